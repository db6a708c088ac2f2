"""Pictures with what was recognised written onto them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer.evaluation.detection import Prediction

SMALLEST = 320
"""Pictures whose longer side is below this many pixels are enlarged: text needs the room."""
COLOURS = {
    "angry": (214, 39, 40),
    "disgust": (140, 86, 75),
    "fear": (148, 103, 189),
    "happy": (255, 187, 0),
    "sad": (31, 119, 180),
    "surprise": (255, 127, 14),
    "neutral": (190, 190, 190),
}


def annotate(image: np.ndarray, faces: Sequence[Prediction]) -> np.ndarray:
    """A copy of a picture with box, emotion and percentage of each face.

    A prediction without a box is written into a strip above the picture.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8.
        faces: in this picture.

    Returns:
        ``(H', W', 3)`` uint8; larger than the picture if that is small, see :data:`SMALLEST`.
    """
    picture = Image.fromarray(image).convert("RGB")
    scale = max(1, -(-SMALLEST // max(picture.size)))
    if scale > 1:
        size = (picture.width * scale, picture.height * scale)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    captions = [face for face in faces if face.box is None]
    if captions:
        font = fitting_font(max(map(label, captions), key=len), picture.width, picture.width / 18)
        line = round(font.size * 1.5)
        strip = Image.new("RGB", (picture.width, picture.height + line * len(captions)))
        strip.paste(picture, (0, line * len(captions)))
        for row, face in enumerate(captions):
            write(strip, face, (0, row * line), strip.width, line, font)
        return np.asarray(strip)
    unit = max(picture.size) / 50
    draw = ImageDraw.Draw(picture)
    boxes = [(face, [side * scale for side in face.box]) for face in faces if face.box is not None]
    for face, (x, y, width, height) in boxes:
        corners = (x, y, x + width - 1, y + height - 1)
        draw.rectangle(corners, outline=COLOURS[face.emotion], width=max(2, round(unit / 6)))
    # Labels last: no box crosses one out.
    for face, (x, y, width, height) in boxes:
        # As wide as its box where that is large enough to be read, at most.
        font = fitting_font(label(face), picture.width, max(unit, min(width / 9, 2 * unit)))
        line = round(font.size * 1.4)
        wide = round(font.getlength(label(face)) + font.size * 0.6)
        left = min(x, max(0, picture.width - wide))
        # Above the box; where there is no room, below it; else inside.
        below = y + height if y + height + line <= picture.height else y
        write(picture, face, (left, y - line if y >= line else below), wide, line, font)
    return np.asarray(picture)


def label(face: Prediction) -> str:
    """Emotion and probability in percent, such as ``happy 97 %``."""
    return f"{face.emotion} {100 * face.confidence:.0f} %"


def fitting_font(text: str, width: float, size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font, about ``size`` pixels high, 11 at least; smaller if too wide."""
    size = max(11, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    needed = font.getlength(text) + size * 0.6
    if needed > width:
        font = ImageFont.load_default(max(6, size * width / needed))
        assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def write(
    picture: Image.Image,
    face: Prediction,
    corner: tuple[int, int],
    width: int,
    height: int,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Write a face's label on its emotion's colour, in black or white, whichever stands out."""
    red, green, blue = COLOURS[face.emotion]
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "white"
    draw = ImageDraw.Draw(picture)
    x, y = corner
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=COLOURS[face.emotion])
    draw.text((x + font.size * 0.3, y + height / 2), label(face), fill=ink, font=font, anchor="lm")
