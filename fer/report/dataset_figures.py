"""Figures of a dataset, from plain data: galleries of faces, and pixel statistics.

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

from fer.core.errors import DataError
from fer.core.words import change, plain
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
LINE, HEADING = 0.165, 0.195
"""Heights of a line of small print and of a heading."""
PAD = 0.1
"""Between a frame and what is in it."""
FRAME, FACE_EDGE = "#B4BCC6", "#C9CFD6"

FAR = 0.05
"""A statistic that is at least this share away from what it is compared with is marked."""
PANELS: dict[str, tuple[str, int]] = {
    "mean": ("gray level, 0–255", 1),
    "contrast": ("gray levels within an image", 1),
    "sharpness": ("details relative to coarse structure, no unit", 3),
}
"""Statistic: its unit in words, its decimals."""


@dataclass(frozen=True)
class Face:
    """An image of a gallery."""

    image: np.ndarray
    """``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8, of any size."""
    lines: Sequence[str] = ()
    """Words below it."""


@dataclass(frozen=True)
class Group:
    """Images that belong together."""

    heading: str
    faces: Sequence[Face]
    marked: bool = False
    """Framed in a warning's colour. The figure's subtitle says what that means."""


def gallery(groups: Sequence[Group], *, title: str, subtitle: str) -> Figure:
    """Groups of images, each in a frame under its heading, from left to right and down.

    Args:
        groups: at least one, each with at least one image.
        title: what is shown, of which dataset.
        subtitle: how many of how many, and what the frames mean.

    Raises:
        DataError: no group, a group without images, or something that is not an image.
    """
    if not groups or not all(group.faces for group in groups):
        raise DataError("gallery: expected groups of at least one image, found none.")
    rows: list[list[_Box]] = []
    room = 0.0
    for box in map(_Box.around, groups):
        if box.width > room:
            rows.append([])
            room = PAGE - 2 * MARGIN
        rows[-1].append(box)
        room -= box.width + GAP
    heights = [max(box.height for box in row) for row in rows]
    body = sum(heights) + GAP * (len(rows) - 1) + MARGIN
    with style():
        figure = new_figure(PAGE, body, title, subtitle, constrained=False)
        # This axes counts inches from the header's lower left corner, y downwards.
        axis = figure.add_axes((0, 0, 1, body / figure.get_figheight()))
        axis.set(xlim=(0, PAGE), ylim=(body, -0.02), aspect="auto", autoscale_on=False)
        axis.set_axis_off()
        y = 0.0
        for row, height in zip(rows, heights, strict=True):
            x = MARGIN
            for box in row:
                _draw_group(axis, box, x, y, height)
                x += box.width + GAP
            y += height + GAP
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
    :data:`FAR` or more away is hatched and written in a warning's colour.

    Args:
        found: ``{split: {"mean", "contrast", "sharpness"}}``.
        reference: the same of the reference copy, or None. It need not have every split.
        title: of which dataset.

    Raises:
        DataError: no split, or a statistic is missing.
    """
    missing = [f"no {name} of {split}" for split in found for name in PANELS.keys() - found[split]]
    if not found or missing:
        raise DataError(
            f"pixel statistics: expected {', '.join(PANELS)} of each split, found "
            f"{', '.join(sorted(missing)) or 'no split'}."
        )
    subtitle = "one split, nothing to compare it with"
    if reference is not None or len(found) > 1:
        against = "the middle one of the splits" if reference is None else "the reference copy"
        subtitle = f"black line: {against} · hatched: {100 * FAR:.0f} % or more away from it"
    with style():
        figure = new_figure(PAGE, 0.85 + 0.62 * len(found), title, subtitle)
        axes = figure.subplots(1, len(PANELS), sharey=True)
        for axis, (name, (unit, decimals)) in zip(axes, PANELS.items(), strict=True):
            values = {split: float(row[name]) for split, row in found.items()}
            if reference is not None:
                expected = {split: row[name] for split, row in reference.items() if name in row}
            elif len(found) > 1:
                expected = dict.fromkeys(values, float(np.median(list(values.values()))))
            else:
                expected = {}
            _draw_bars(axis, values, expected, decimals)
            axis.set_title(name)
            axis.set_xlabel(unit, size=9)
    return figure


def _draw_bars(
    axis: Axes, values: Mapping[str, float], expected: Mapping[str, float], decimals: int
) -> None:
    longest = max([*values.values(), *(expected[s] for s in values if s in expected), 1e-9])
    for position, (split, value) in enumerate(values.items()):
        against = expected.get(split)
        far = is_far(value, against)
        axis.barh(
            position,
            value,
            height=0.62,
            color=SPLIT_COLORS.get(split, MUTED),
            edgecolor="white",
            linewidth=0,
            hatch="////" if far else None,
        )
        end, text = value, f"{value:.{decimals}f}"
        if against is not None:
            axis.vlines(against, position - 0.42, position + 0.42, color=INK, linewidth=2.2)
            difference = change(value, against)
            end, text = max(value, against), f"{text}\n{difference}" if difference else text
        axis.annotate(
            text,
            (end, position),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=9,
            color=WRONG if far else INK,
            weight="bold" if far else "normal",
        )
    axis.set_xlim(0, longest * 1.6)  # room for the text beside the longest bar
    ticks = MaxNLocator(nbins=3).tick_values(0, longest)
    axis.set_xticks([tick for tick in ticks if 0 <= tick <= longest])
    axis.set_yticks(range(len(values)), [plain(split) for split in values])
    axis.tick_params(axis="y", length=0, labelsize=10)
    axis.grid(axis="x", color=GRID)
    axis.set_ylim(len(values) - 0.45, -0.55)


def is_far(value: float, expected: float | None) -> bool:
    """Mark a statistic that is :data:`FAR` or more away from what it is compared with."""
    return expected is not None and abs(value - expected) >= FAR * abs(expected) > 0


@dataclass(frozen=True)
class _Box:
    """A group with the room that it takes."""

    group: Group
    columns: int
    heading: Sequence[str]
    row: float
    """Height of a row of its faces."""
    width: float
    height: float

    @classmethod
    def around(cls, group: Group) -> _Box:
        columns = min(len(group.faces), int((PAGE - 2 * MARGIN - 2 * PAD + GAP) / (FACE + GAP)))
        width = columns * (FACE + GAP) - GAP + 2 * PAD
        # A letter of this size is about 0.075 inches wide.
        heading = textwrap.wrap(plain(group.heading), max(8, int((width - 2 * PAD) / 0.075)))
        row = FACE + 0.05 + LINE * max(len(_wrap(face.lines)) for face in group.faces)
        rows = -(-len(group.faces) // columns)
        height = 2 * PAD + HEADING * len(heading) + 0.06 + rows * (row + GAP) - GAP
        return cls(group, columns, heading, row, width, height)


def _draw_group(axis: Axes, box: _Box, x: float, y: float, height: float) -> None:
    edge, width = (WRONG, 2.2) if box.group.marked else (FRAME, 1)
    axis.add_patch(Rectangle((x, y), box.width, height, fill=False, edgecolor=edge, lw=width))
    top = y + PAD
    for line in box.heading:
        axis.text(x + PAD, top, line, va="top", size=9, weight="bold", parse_math=False)
        top += HEADING
    top += 0.06
    for index, face in enumerate(box.group.faces):
        row, column = divmod(index, box.columns)
        _draw_face(axis, face, x + PAD + column * (FACE + GAP), top + row * (box.row + GAP))


def _wrap(lines: Sequence[str]) -> list[str]:
    # A letter of this size is about 0.07 inches wide.
    return [part for line in lines for part in textwrap.wrap(plain(line), int(FACE / 0.07))]


def _draw_face(axis: Axes, face: Face, x: float, y: float) -> None:
    """Draw an image into the square of side :data:`FACE` at ``(x, y)``, in its own proportions."""
    pixels = _displayable(face.image)
    shape = np.array(np.shape(face.image)[:2])
    height, width = FACE * shape / shape.max()
    left, top = x + (FACE - width) / 2, y + (FACE - height) / 2
    axis.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(left, left + width, top + height, top),
        interpolation="bilinear",
        aspect="auto",
    )
    # An outline, for what is as white as the page.
    axis.add_patch(Rectangle((x, y), FACE, FACE, fill=False, edgecolor=FACE_EDGE, lw=0.8))
    for number, line in enumerate(_wrap(face.lines)):
        below = y + FACE + 0.05 + number * LINE
        axis.text(x, below, line, va="top", size=8.5, parse_math=False)


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
