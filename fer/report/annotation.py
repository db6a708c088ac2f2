"""Pictures with what was recognised written onto them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fer.evaluation.prediction import Prediction
from fer.report.figures import EMOTION_COLORS, readable_on

SMALLEST = 320
"""Pictures whose longer side is below this many pixels are enlarged: text needs the room."""


def annotate(
    image: np.ndarray, faces: Sequence[Prediction], numbers: Sequence[int] | None = None
) -> np.ndarray:
    """A copy of a picture with box, emotion and percentage of each face.

    A prediction without a box is written into a strip above the picture.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8.
        faces: in this picture.
        numbers: of the faces, written before their emotions; None for no numbers.

    Returns:
        ``(H', W', 3)`` uint8; larger than the picture if that is small, see :data:`SMALLEST`.
    """
    picture = Image.fromarray(image).convert("RGB")
    scale = max(1, -(-SMALLEST // max(picture.size)))
    if scale > 1:
        picture = ImageOps.scale(picture, scale, Image.Resampling.BICUBIC)
    unit = max(picture.size) / 50
    draw = ImageDraw.Draw(picture)
    starts = [""] * len(faces) if numbers is None else [f"{number}: " for number in numbers]
    labels = [f"{start}{_label(face)}" for start, face in zip(starts, faces, strict=True)]
    boxes = [
        (face, label, [side * scale for side in face.box])
        for face, label in zip(faces, labels, strict=True)
        if face.box is not None
    ]
    for face, _, (x, y, width, height) in boxes:
        corners = (x, y, x + width - 1, y + height - 1)
        draw.rectangle(corners, outline=EMOTION_COLORS[face.emotion], width=max(2, round(unit / 6)))
    # Labels last: no box crosses one out.
    for face, label, (x, y, width, height) in boxes:
        # As wide as its box where that is large enough to be read, at most.
        font = _fitting_font(label, picture.width, max(unit, min(width / 9, 2 * unit)))
        line = round(font.size * 1.4)
        wide = round(font.getlength(label) + font.size * 0.6)
        left = min(x, max(0, picture.width - wide))
        # Above the box; where there is no room, below it; else inside.
        below = y + height if y + height + line <= picture.height else y
        place = (left, y - line if y >= line else below)
        _write(picture, label, EMOTION_COLORS[face.emotion], place, (wide, line), font)
    whole = [pair for pair in zip(faces, labels, strict=True) if pair[0].box is None]
    for face, label in reversed(whole):
        font = _fitting_font(label, picture.width, picture.width / 18)
        line = round(font.size * 1.5)
        picture = ImageOps.expand(picture, (0, line, 0, 0))
        _write(picture, label, EMOTION_COLORS[face.emotion], (0, 0), (picture.width, line), font)
    return np.asarray(picture)


def _label(face: Prediction) -> str:
    """Emotion and probability in percent, such as ``happy 97 %``."""
    return f"{face.emotion} {100 * face.confidence:.0f} %"


def _fitting_font(text: str, width: float, size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font, about ``size`` pixels high, 11 at least; smaller if too wide."""
    size = max(11, size)
    font = ImageFont.load_default(size)
    needed = font.getlength(text) + size * 0.6
    if needed > width:
        font = ImageFont.load_default(max(6, size * width / needed))
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _write(
    picture: Image.Image,
    label: str,
    color: str,
    corner: tuple[int, int],
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont,
) -> None:
    """Write a label on its emotion's colour, in white or dark, whichever stands out."""
    draw = ImageDraw.Draw(picture)
    x, y = corner
    width, height = size
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    place, ink = (x + font.size * 0.3, y + height / 2), readable_on(np.array(to_rgb(color)))
    draw.text(place, label, fill=ink, font=font, anchor="lm")
