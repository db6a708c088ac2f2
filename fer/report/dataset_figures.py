"""Figures of a dataset, from plain data: its faces, its copies, its pixels.

The rules of :mod:`fer.report.figures` hold here too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from fer.core import labels
from fer.core.errors import DataError
from fer.core.words import change, how_many, plain
from fer.report.figures import (
    DPI,
    GRID,
    INK,
    MARGIN,
    MUTED,
    SPLIT_COLORS,
    WRONG,
    new_figure,
    style,
)

# All lengths in inches.
PAGE = 9.8
FACE, GAP = 0.98, 0.12
LINE = 0.165
"""Height of a line of small print."""
HEADING = 0.26
PAD = 0.1
"""Between a frame and what is in it."""
LABEL = 1.0
"""Width of the emotions' names beside their rows."""
SMALL_POINTS = 8.5
FRAME, FACE_EDGE = "#B4BCC6", "#C9CFD6"

FAR = 0.05
"""A statistic that is at least this share away from what it is compared with is marked."""
PANELS: dict[str, tuple[str, str, int]] = {
    "mean": ("mean", "gray level, 0–255", 1),
    "contrast": ("contrast", "gray levels within an image", 1),
    "sharpness": ("sharpness", "details relative to coarse structure, no unit", 3),
}
"""Statistic: its name, its unit in words, its decimals."""


@dataclass(frozen=True)
class Face:
    """An image of a gallery."""

    image: np.ndarray
    """``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8, of any size."""
    lines: Sequence[str] = ()
    """What stands under it, a few words each."""


@dataclass(frozen=True)
class Group:
    """Images that belong together."""

    heading: str
    faces: Sequence[Face]
    marked: bool = False
    """Framed in a warning's colour. The figure's subtitle says what that means."""


def sample_grid(
    samples: Mapping[str, Sequence[np.ndarray]],
    counts: Mapping[str, int],
    *,
    title: str,
    subtitle: str,
) -> Figure:
    """A row of images for each emotion.

    Args:
        samples: ``{emotion: images}``, each image as :class:`Face` has it; an emotion that is not
            named has none.
        counts: images of each emotion in the whole split.
        title: of which dataset and split.
        subtitle: how the images were picked.

    Raises:
        DataError: no image at all, an unknown emotion, or something that is not an image.
    """
    unknown = sorted(set(samples) - set(labels.EMOTIONS))
    columns = max(map(len, samples.values()), default=0)
    if unknown or not columns:
        raise DataError(
            f"sample grid: expected images of the emotions {', '.join(labels.EMOTIONS)}, found "
            f"{', '.join(unknown) or 'none'}."
        )
    gap = GAP / 2
    with style():
        width = max(5.6, LABEL + columns * (FACE + gap) - gap + 2 * MARGIN)
        body = labels.NUM_CLASSES * (FACE + gap) - gap + MARGIN
        figure, axis = _canvas(width, body, title, subtitle)
        for row, emotion in enumerate(labels.EMOTIONS):
            y = row * (FACE + gap)
            middle = y + FACE / 2
            axis.text(MARGIN, middle - 0.09, emotion, va="center", size=10.5, weight="bold")
            number = how_many(counts.get(emotion, 0), "image")
            axis.text(MARGIN, middle + 0.11, number, va="center", size=SMALL_POINTS, color=MUTED)
            for column, image in enumerate(samples.get(emotion, ())):
                _draw_image(axis, image, MARGIN + LABEL + column * (FACE + gap), y)
    return figure


def gallery(groups: Sequence[Group], *, title: str, subtitle: str) -> Figure:
    """Groups of images, each in a frame under its heading.

    They stand from left to right and down, but for small ones that fill gaps further up.

    Args:
        groups: at least one, each with at least one image.
        title: what is shown, of which dataset.
        subtitle: how many of how many, and what the frames mean.

    Raises:
        DataError: no group, a group without images, or something that is not an image.
    """
    if not groups or not all(group.faces for group in groups):
        raise DataError("gallery: expected groups of at least one image, found none.")
    boxes = [_Box.around(group) for group in groups]
    widest = max(box.width for box in boxes)
    width = max(PAGE, widest + 2 * MARGIN)
    shelves = _shelve([box.width for box in boxes], width - 2 * MARGIN)
    heights = [max(boxes[index].height for index in shelf) for shelf in shelves]
    with style():
        body = sum(heights) + GAP * (len(shelves) - 1) + MARGIN
        figure, axis = _canvas(width, body, title, subtitle)
        y = 0.0
        for shelf, height in zip(shelves, heights, strict=True):
            x = MARGIN
            for index in shelf:
                _draw_group(axis, groups[index], boxes[index], x, y, height)
                x += boxes[index].width + GAP
            y += height + GAP
    return figure


def face_wall(faces: Sequence[Face], *, title: str, subtitle: str) -> Figure:
    """Images without groups, each with its lines under it.

    Raises:
        DataError: no image, or something that is not an image.
    """
    if not faces:
        raise DataError("face wall: expected at least one image, found none.")
    step = FACE + GAP
    columns = min(len(faces), int((PAGE - 2 * MARGIN + GAP) / step))
    tall = max(_height(face) for face in faces)
    rows = -(-len(faces) // columns)
    with style():
        width = max(5.6, columns * step - GAP + 2 * MARGIN)
        figure, axis = _canvas(width, rows * (tall + GAP) - GAP + MARGIN, title, subtitle)
        for index, face in enumerate(faces):
            row, column = divmod(index, columns)
            _draw_face(axis, face, MARGIN + column * step, row * (tall + GAP))
    return figure


def pixel_statistics(
    found: Mapping[str, Mapping[str, float]],
    reference: Mapping[str, Mapping[str, float]] | None,
    *,
    title: str,
) -> Figure:
    """Brightness, contrast and sharpness of each split, beside what they should be.

    A bar is compared with the reference copy's split; where there is no reference, with the middle
    one of the splits, which are random parts of one whole in an unaltered copy. A bar that is
    :data:`FAR` or more away is hatched and its difference is printed in a warning's colour.

    Args:
        found: ``{split: {"mean", "contrast", "sharpness"}}``.
        reference: the same of the reference copy, or None. It need not have every split.
        title: of which dataset.

    Raises:
        DataError: no split, or a statistic is missing.
    """
    missing = [
        f"{name} of {split}" for split, row in found.items() for name in PANELS if name not in row
    ]
    if not found or missing:
        raise DataError(
            f"pixel statistics: expected {', '.join(PANELS)} of each split, found "
            f"{'no ' + ', no '.join(missing) if missing else 'no split'}."
        )
    against = "the reference copy" if reference is not None else "the middle one of the splits"
    compared = reference is not None or len(found) > 1
    subtitle = (
        f"black line: {against} · hatched: {100 * FAR:.0f} % or more away from it"
        if compared
        else "one split, nothing to compare it with"
    )
    with style():
        figure = new_figure(PAGE, 0.85 + 0.62 * len(found), title, subtitle)
        axes = figure.subplots(1, len(PANELS), sharey=True)
        for axis, (name, (heading, unit, decimals)) in zip(axes, PANELS.items(), strict=True):
            values = {split: float(row[name]) for split, row in found.items()}
            expected = _expected(name, values, reference) if compared else {}
            longest = max([*values.values(), *expected.values(), 1e-9])
            for position, (split, value) in enumerate(values.items()):
                _draw_bar(axis, position, split, value, expected.get(split), decimals)
            axis.set_title(heading)
            axis.set_xlabel(unit, size=9)
            # Room for the two lines beside the longest bar.
            axis.set_xlim(0, longest * 1.6)
            ticks = MaxNLocator(nbins=3).tick_values(0, longest)
            axis.set_xticks([tick for tick in ticks if 0 <= tick <= longest])
            axis.set_yticks(range(len(found)), [plain(split) for split in found])
            axis.tick_params(axis="y", length=0, labelsize=10)
            axis.grid(axis="x", color=GRID)
            axis.set_ylim(len(found) - 0.45, -0.55)
    return figure


def _expected(
    name: str,
    values: Mapping[str, float],
    reference: Mapping[str, Mapping[str, float]] | None,
) -> dict[str, float]:
    """What each split's statistic is compared with, as far as there is something."""
    if reference is None:
        middle = float(np.median(list(values.values())))
        return dict.fromkeys(values, middle)
    return {
        split: float(reference[split][name]) for split in values if name in reference.get(split, {})
    }


def _draw_bar(
    axis: Axes, position: int, split: str, value: float, expected: float | None, decimals: int
) -> None:
    far = is_far(value, expected)
    axis.barh(
        position,
        value,
        height=0.62,
        color=SPLIT_COLORS.get(split, MUTED),
        edgecolor="white",
        linewidth=0,
        hatch="////" if far else None,
    )
    end = value
    difference = None
    if expected is not None:
        axis.plot([expected] * 2, [position - 0.42, position + 0.42], color=INK, linewidth=2.2)
        end = max(value, expected)
        difference = change(value, expected)
    axis.annotate(
        f"{value:.{decimals}f}",
        (end, position),
        xytext=(6, 5 if difference else 0),
        textcoords="offset points",
        va="center",
        size=9.5,
    )
    if difference:
        axis.annotate(
            difference,
            (end, position),
            xytext=(6, -7),
            textcoords="offset points",
            va="center",
            size=9.5 if far else SMALL_POINTS,
            color=WRONG if far else MUTED,
            weight="bold" if far else "normal",
        )


def is_far(value: float, expected: float | None) -> bool:
    """Whether a statistic is :data:`FAR` or more away from what it is compared with."""
    return expected is not None and abs(value - expected) >= FAR * abs(expected) > 0


@dataclass(frozen=True)
class _Box:
    """What a group takes, with its frame."""

    columns: int
    heading: Sequence[str]
    width: float
    height: float
    row: float
    """Height of a row of its faces."""

    @classmethod
    def around(cls, group: Group) -> _Box:
        columns = min(len(group.faces), int((PAGE - 2 * MARGIN - 2 * PAD + GAP) / (FACE + GAP)))
        width = columns * (FACE + GAP) - GAP + 2 * PAD
        # A letter of this size is about 0.075 inches wide.
        heading = textwrap.wrap(plain(group.heading), max(8, int((width - 2 * PAD) / 0.075)))
        row = max(_height(face) for face in group.faces)
        rows = -(-len(group.faces) // columns)
        height = 2 * PAD + HEADING * 0.75 * len(heading) + 0.06 + rows * (row + GAP) - GAP
        return cls(columns, heading, width, height, row)


def _shelve(widths: Sequence[float], room: float) -> list[list[int]]:
    """Indices in rows: each stands in the first row that has room for it."""
    shelves: list[list[int]] = []
    used: list[float] = []
    for index, width in enumerate(widths):
        for number, taken in enumerate(used):
            if taken + GAP + width <= room + 1e-9:
                shelves[number].append(index)
                used[number] += GAP + width
                break
        else:
            shelves.append([index])
            used.append(width)
    return shelves


def _canvas(width: float, body: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """A figure whose one axes counts inches from the header's lower left corner, y downwards."""
    figure = new_figure(width, body, title, subtitle, constrained=False)
    axis = figure.add_axes((0, 0, 1, body / figure.get_figheight()))
    axis.set(xlim=(0, width), ylim=(body, -0.02), aspect="auto", autoscale_on=False)
    axis.set_axis_off()
    return figure, axis


def _draw_group(axis: Axes, group: Group, box: _Box, x: float, y: float, height: float) -> None:
    edge = WRONG if group.marked else FRAME
    axis.add_patch(
        Rectangle(
            (x, y), box.width, height, fill=False, edgecolor=edge, lw=2.2 if group.marked else 1
        )
    )
    top = y + PAD
    for line in box.heading:
        axis.text(x + PAD, top, line, va="top", size=9, weight="bold", parse_math=False)
        top += HEADING * 0.75
    top += 0.06
    for index, face in enumerate(group.faces):
        row, column = divmod(index, box.columns)
        _draw_face(axis, face, x + PAD + column * (FACE + GAP), top + row * (box.row + GAP))


def _lines(face: Face) -> list[str]:
    # A letter of this size is about 0.07 inches wide.
    return [part for line in face.lines for part in textwrap.wrap(plain(line), int(FACE / 0.07))]


def _height(face: Face) -> float:
    return FACE + 0.05 + LINE * len(_lines(face))


def _draw_face(axis: Axes, face: Face, x: float, y: float) -> None:
    _draw_image(axis, face.image, x, y)
    for number, line in enumerate(_lines(face)):
        axis.text(
            x,
            y + FACE + 0.05 + number * LINE,
            line,
            va="top",
            size=SMALL_POINTS,
            parse_math=False,
        )


def _draw_image(axis: Axes, image: np.ndarray, x: float, y: float) -> None:
    """Draw an image into the square of side :data:`FACE` at ``(x, y)``, in its own proportions."""
    pixels = _displayable(image)
    height, width = np.shape(image)[:2]
    scale = FACE / max(height, width)
    left, top = x + (FACE - width * scale) / 2, y + (FACE - height * scale) / 2
    axis.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(left, left + width * scale, top + height * scale, top),
        interpolation="bilinear",
        aspect="auto",
    )
    # An outline, for what is as white as the page.
    axis.add_patch(Rectangle((x, y), FACE, FACE, fill=False, edgecolor=FACE_EDGE, lw=0.8))


def _displayable(image: np.ndarray) -> np.ndarray:
    """``(H, W)`` or ``(H, W, 3)``, not much larger than it is drawn."""
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3)
    if not is_image or array.dtype != np.uint8 or 0 in array.shape:
        raise DataError(
            "gallery: expected images as (H, W), (H, W, 1) or (H, W, 3) uint8, found "
            f"{array.shape} {array.dtype}."
        )
    most = int(2 * FACE * DPI)
    if max(array.shape[:2]) <= most:
        return array
    picture = Image.fromarray(array)
    picture.thumbnail((most, most))
    return np.asarray(picture)
