"""The look of every figure, and what figures are made of.

Functions named after a figure return a ``matplotlib.figure.Figure``; ``plot_…`` adds to an axes.
Nothing here touches pyplot or leaves a changed ``rcParams`` behind, so that figures can be made
inside a training loop, a notebook or a test without side effects. Sizes are chosen for a browser
that shows the PNG about 1,000 pixels wide.
"""

from __future__ import annotations

import logging
import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from fer.core import labels
from fer.core.files import write_atomic
from fer.core.options import FIGURE_FORM
from fer.core.words import ABSENT, how_many, plain

# It says that it builds a cache of fonts, once, which a newcomer takes for something gone wrong.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

DPI = 130
"""Pixels per inch of every figure, saved or turned into an array."""

# Okabe & Ito, "Color Universal Design", 2008: told apart with every common colour blindness. Its
# yellow is too pale on white, so gray takes its place.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, GRAY = SERIES
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Signs of several lines, told apart in gray print too."""
EMOTION_COLORS = dict(
    zip(labels.EMOTIONS, (ORANGE, GREEN, PINK, YELLOW, BLUE, SKY, GRAY), strict=True)
)
SPLIT_COLORS = {"train": BLUE, "val": ORANGE, "test": GREEN}
CORRECT, WRONG = BLUE, "#C04A00"

INK, MUTED, GRID = "#1B1F24", "#5A636E", "#E3E6EA"
Look = dict[str, Any]
"""Options of matplotlib for a line, a bar or a text."""
STYLE: Look = {
    "text.color": INK,
    "axes.edgecolor": "#9AA3AD",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "fer",  # the names inside a file are else random
}
"""What differs from matplotlib's defaults."""

NAMELESS: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
"""Metadata that would differ from one run to the next."""

TITLE_POINTS, SUBTITLE_POINTS = 13, 9.5
MARGIN = 0.15
"""Inches around the header."""


# --- figures and files -------------------------------------------------------------------------


def style() -> AbstractContextManager[None]:
    """:data:`STYLE` while a figure is made; the user's own settings come back after it."""
    return matplotlib.style.context(["default", STYLE])


def new_figure(
    width: float, body: float, title: str, subtitle: str, *, constrained: bool = True
) -> Figure:
    """An empty figure of ``width`` × ``body`` inches below a header as high as its text."""
    header = (
        (_wrap(title, width, TITLE_POINTS), TITLE_POINTS, INK, "bold"),
        (_wrap(subtitle, width, SUBTITLE_POINTS), SUBTITLE_POINTS, MUTED, "normal"),
    )
    height = body + 2 * MARGIN + sum(_height(lines, points) for lines, points, *_ in header)
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    y = height - MARGIN
    for lines, points, color, weight in header:
        look: Look = {"size": points, "color": color, "weight": weight, "va": "top"}
        look |= {"linespacing": 1.25, "parse_math": False}  # a dollar sign is no formula
        figure.text(MARGIN / width, y / height, "\n".join(lines), **look)
        y -= _height(lines, points)
    if constrained:
        figure.set_layout_engine(
            "constrained", rect=(0, 0, 1, body / height), w_pad=0.1, h_pad=0.08, hspace=0.04
        )
    return figure


def _height(lines: Sequence[str], points: float) -> float:
    """Inches that lines of this font size take."""
    return len(lines) * points * 1.45 / 72


def _wrap(text: str, width: float, points: float) -> list[str]:
    """``text`` in lines that fit into ``width`` inches."""
    # A letter of DejaVu Sans is about 0.6 of the font size wide, a bold one about 0.68.
    letter = points / 72 * (0.68 if points == TITLE_POINTS else 0.6)
    return textwrap.wrap(plain(text), max(10, int((width - 2 * MARGIN) / letter))) or [""]


def panels(
    count: int, across: int, width: float, height: float, title: str, subtitle: str
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels of this size, ``across`` of them in a row."""
    columns = min(across, count)
    rows = math.ceil(count / columns)
    figure = new_figure(max(6.0, 0.6 + width * columns), height * rows, title, subtitle)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as PNG, atomically, and beside it in the form of
    :data:`~fer.core.options.FIGURE_FORM`.

    Equal figures give equal bytes: the files name neither the time nor the version of matplotlib.
    Parent folders are created. Returns the path of the PNG file.
    """
    form = FIGURE_FORM.get()
    with style():
        if form is not None:
            write_atomic(
                path.with_suffix(f".{form}"),
                lambda file: figure.savefig(file, format=form, metadata=NAMELESS[form]),
            )
        return write_atomic(
            path,
            lambda file: figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None}),
        )


def to_image(figure: Figure) -> np.ndarray:
    """``(H, W, 3)`` uint8 pixels of ``figure``; ``dataformats="HWC"`` in TensorBoard's terms."""
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    with style():
        figure.draw_without_rendering()  # the layout settles in two passes, as in saving
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


# --- parts of figures --------------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """A picture of a :func:`picture_grid`."""

    image: np.ndarray
    """``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``, uint8; ``(H, W, 3)`` float 0–1 too."""
    lines: Sequence[str] = ()
    """Words below it."""
    color: str | None = None
    """Colour of its frame and its words; None for no frame."""


def picture_grid(
    rows: Sequence[tuple[str, Sequence[Tile]]],
    columns: Sequence[str] = (),
    *,
    title: str,
    subtitle: str,
    boxes: Sequence[Sequence[float]] = (),
) -> Figure:
    """Pictures in rows and columns with their names.

    Args:
        rows: their names, or "" for all, and their pictures.
        columns: names, of several lines each; none for no names.
        boxes: outlined in the first row: x1, y1, x2, y2 as shares of the side.
    """
    side, lines = 1.04, max(len(tile.lines) for _, tiles in rows for tile in tiles)
    across = side + (0.15 if lines else 0.07)  # words need more room than pictures
    down = across + 0.17 * lines
    left = 1.42 if any(name for name, _ in rows) else MARGIN
    head = 0.19 * max((1 + name.count("\n") for name in columns), default=0)
    width = left + max(len(tiles) for _, tiles in rows) * across + 0.1
    with style():
        width, body = max(5.6, width), head + len(rows) * down + 0.1
        figure = new_figure(width, body, title, subtitle, constrained=False)
        # One axes, which counts inches from below the header: much faster than an axes each.
        axis = figure.add_axes((0, 0, 1, body / figure.get_figheight()))
        axis.set(xlim=(0, width), ylim=(body, -0.02), aspect="auto", autoscale_on=False)
        axis.set_axis_off()
        for column, name in enumerate(columns):
            x = left + column * across + side / 2
            for line, words in enumerate(reversed(name.split("\n"))):  # on common baselines
                axis.text(x, head - 0.1 - 0.18 * line, words, ha="center", va="baseline", size=9)
        for row, (name, tiles) in enumerate(rows):
            y = head + row * down
            parts = [part for line in name.split("\n") for part in textwrap.wrap(plain(line), 17)]
            axis.text(left - 0.1, y + side / 2, "\n".join(parts), ha="right", va="center", size=9)
            for column, tile in enumerate(tiles):
                x = left + column * across
                _plot_tile(axis, tile, x, y, side)
                for x1, y1, x2, y2 in boxes if row == 0 else ():
                    box = x + x1 * side, y + y1 * side, (x2 - x1) * side, (y2 - y1) * side
                    _outline(axis, *box, "white", 0.8)
    return figure


def _plot_tile(axis: Axes, tile: Tile, x: float, y: float, side: float) -> None:
    """A picture in the middle of a square, in its own proportions, and what is around it."""
    image, shape = tile.image, np.array(tile.image.shape[:2])
    height, width = side * shape / shape.max()
    left, top = x + (side - width) / 2, y + (side - height) / 2
    axis.imshow(
        image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(left, left + width, top + height, top),
        # What has more pixels than the figure is averaged, not thinned out.
        interpolation="nearest" if shape.max() <= side * DPI else "hanning",
    )
    if tile.color is not None:
        _outline(axis, x, y, side, side, tile.color, 2.5)
    for line, words in enumerate(tile.lines):
        look: Look = {"va": "top", "size": 8.5, "color": tile.color or INK}
        axis.text(x, y + side + 0.05 + 0.17 * line, words, **look)


def _outline(
    axis: Axes, x: float, y: float, width: float, height: float, color: str, lw: float
) -> None:
    axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, lw=lw))


def plot_cells(
    axis: Axes,
    shades: np.ndarray,
    texts: Mapping[tuple[int, int], tuple[str, str]],
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
) -> AxesImage:
    """A table of coloured cells.

    Args:
        shades: ``(rows, columns)``; NaN is left pale.
        texts: (row, column) → what is written there, large and small.
        limits: the values of the palest and the darkest shade.
    """
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="#F2F2F2")
    values = np.ma.masked_invalid(shades)
    image = axis.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1], aspect="auto")
    backgrounds = image.to_rgba(values)
    for (row, column), (large, small) in texts.items():
        color = readable_on(backgrounds[row, column])
        place: Look = {"ha": "center", "va": "center", "color": color}
        axis.text(column, row - 0.1 if small else row, large, size=11, **place)
        if small:
            axis.text(column, row + 0.24, small, size=8.5, **place)
    axis.set_xticks(range(len(columns)), list(map(plain, columns)))
    axis.set_yticks(range(len(rows)), list(map(plain, rows)))
    axis.set_xticks(np.arange(-0.5, len(columns)), minor=True)
    axis.set_yticks(np.arange(-0.5, len(rows)), minor=True)
    axis.grid(which="minor", color="white", linewidth=1.5)
    axis.tick_params(which="both", length=0, labelsize=10, pad=6)
    axis.spines[:].set_visible(False)
    return image


def readable_on(background: np.ndarray) -> str:
    """White or dark, whichever has more contrast (WCAG 2.2, relative luminance)."""
    rgb = np.asarray(background[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "white" if linear @ (0.2126, 0.7152, 0.0722) < 0.2 else INK


def bars(
    series: Mapping[str, Sequence[float | None]],
    colors: Sequence[str],
    groups: Sequence[str],
    *,
    title: str,
    subtitle: str,
    xlabel: str,
    ylabel: str,
    numbers: bool = True,
) -> Figure:
    """Bars of fractions in percent, side by side in a group for each position.

    Args:
        series: name → a fraction for each group; None is marked by a dash.
    """
    width = 0.82 / len(series)
    with style():
        figure = new_figure(9.0, 4.2, title, subtitle)
        axis = figure.subplots()
        for index, ((name, values), color) in enumerate(zip(series.items(), colors, strict=False)):
            x = np.arange(len(groups)) - 0.41 + (index + 0.5) * width
            heights = [100 * (value or 0.0) for value in values]
            drawn = axis.bar(x, heights, 0.93 * width, color=color, label=plain(name))
            if numbers:
                texts = [ABSENT if value is None else f"{100 * value:.0f}" for value in values]
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
                axis.bar_label(drawn, texts, padding=3, size=8.5, bbox=box)
        axis.set_xticks(range(len(groups)), groups)
        axis.tick_params(axis="x", length=0, labelsize=10)
        axis.grid(axis="y")
        axis.set_ylim(0, min(105, 1.12 * axis.get_ylim()[1]))
        axis.set(xlabel=xlabel, ylabel=ylabel)
        legend_below(figure, axis)
    return figure


def legend_below(figure: Figure, axis: Axes, most: int = 3) -> None:
    """The names of an axes' series below the figure, in as many columns as fit, up to ``most``."""
    handles, names = axis.get_legend_handles_labels()
    column = 0.62 + 0.075 * max(map(len, names))  # inches: the sign and its space, the letters
    columns = max(1, min(most, int(figure.get_figwidth() / column)))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def class_balance(counts: Mapping[str, Mapping[str, int]], *, title: str) -> Figure:
    """Plot each emotion's share of the images of every split.

    Args:
        counts: ``{split: {emotion: images}}``; an emotion that is not named has none.
    """
    sizes = {split: sum(row.values()) for split, row in counts.items()}
    shares = {
        f"{split}: {how_many(sizes[split], 'image')}": [
            row.get(emotion, 0) / sizes[split] if sizes[split] else None
            for emotion in labels.EMOTIONS
        ]
        for split, row in counts.items()
    }
    return bars(
        shares,
        SERIES,
        labels.EMOTIONS,
        title=title,
        subtitle=how_many(sum(sizes.values()), "image"),
        xlabel="emotion",
        ylabel="share of the split (%)",
    )
