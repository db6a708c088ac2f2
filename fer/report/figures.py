"""The look of every figure, and what figures are made of.

Functions named after a figure return a ``matplotlib.figure.Figure``; ``plot_…`` adds to an axes.
Nothing here touches pyplot or leaves a changed ``rcParams`` behind, so that figures can be made
inside a training loop, a notebook or a test without side effects. Sizes are chosen for a browser
that shows the PNG about 1,000 pixels wide.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fer.core import labels
from fer.core.files import write_atomic
from fer.core.words import ABSENT, how_many, plain

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
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.usetex": False,
    "text.color": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "axes.facecolor": "white",
    "axes.edgecolor": "#9AA3AD",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linestyle": "-",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 10,
}

TITLE_POINTS, SUBTITLE_POINTS = 13, 9.5
MARGIN = 0.15
"""Inches around the header."""


# --- figures and files -------------------------------------------------------------------------


def style() -> AbstractContextManager[None]:
    """:data:`STYLE` while a figure is made; the user's own settings come back after it."""
    parameters: Any = STYLE  # matplotlib's type names each of its 300 parameters
    return matplotlib.rc_context(parameters)


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
        figure.text(
            MARGIN / width,
            y / height,
            "\n".join(lines),
            size=points,
            color=color,
            weight=weight,
            ha="left",
            va="top",
            linespacing=1.25,
            parse_math=False,  # a dollar sign in a file name is no formula
        )
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


def canvas(width: float, body: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """A figure whose one axes counts inches from below the header, x to the right, y downwards.

    Pictures in one axes are drawn much faster than in an axes each.
    """
    figure = new_figure(width, body, title, subtitle, constrained=False)
    axis = figure.add_axes((0, 0, 1, body / figure.get_figheight()))
    axis.set(xlim=(0, width), ylim=(body, -0.02), aspect="auto", autoscale_on=False)
    axis.set_axis_off()
    return figure, axis


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as PNG, atomically. Equal figures give equal bytes.

    Parent folders are created. The file names neither the time nor the version of matplotlib.
    """
    with style():
        return write_atomic(
            path,
            lambda file: figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None}),
        )


def to_image(figure: Figure) -> np.ndarray:
    """``(H, W, 3)`` uint8 pixels of ``figure``; ``dataformats="HWC"`` in TensorBoard's terms."""
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    with style():
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


# --- parts of figures --------------------------------------------------------------------------


def plot_image(axis: Axes, image: np.ndarray, x: float, y: float, side: float) -> None:
    """Show an image in a square of a :func:`canvas`.

    Args:
        axis: of the canvas.
        image: ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``, uint8; ``(H, W, 3)`` float 0–1 too.
        x, y: its upper left corner, in inches.
        side: of the square, in inches.
    """
    axis.imshow(
        image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(x, x + side, y + side, y),
        interpolation="nearest",
    )


def picture_grid(
    rows: Mapping[str, Sequence[np.ndarray]],
    columns: Sequence[str],
    *,
    title: str,
    subtitle: str,
    boxes: Sequence[Sequence[float]] = (),
    foot: float = 0.1,
) -> Figure:
    """Pictures in rows and columns with their names.

    Args:
        rows: name → pictures as :func:`plot_image` shows them, one for each column.
        columns: names, of several lines each.
        title: of the figure.
        subtitle: what is seen.
        boxes: outlined in the first row: x1, y1, x2, y2 as shares of the side.
        foot: inches that stay empty below.
    """
    side, gap, left = 1.04, 0.07, 1.42
    head = 0.19 * (1 + max(name.count("\n") for name in columns))
    with style():
        figure, axis = canvas(
            left + len(columns) * (side + gap) + 0.1,
            head + len(rows) * (side + gap) + foot,
            title,
            subtitle,
        )
        for column, name in enumerate(columns):
            x = left + column * (side + gap) + side / 2
            for line, words in enumerate(reversed(name.split("\n"))):  # on common baselines
                axis.text(x, head - 0.1 - 0.18 * line, words, ha="center", va="baseline", size=9)
        for row, (name, pictures) in enumerate(rows.items()):
            y = head + row * (side + gap)
            words = "\n".join(part for line in name.split("\n") for part in textwrap.wrap(line, 17))
            axis.text(left - 0.1, y + side / 2, plain(words), ha="right", va="center", size=9)
            for column, picture in enumerate(pictures):
                x = left + column * (side + gap)
                plot_image(axis, picture, x, y, side)
                for x1, y1, x2, y2 in boxes if row == 0 else ():
                    corner, width, height = (x + x1 * side, y + y1 * side), x2 - x1, y2 - y1
                    axis.add_patch(
                        Rectangle(
                            corner, width * side, height * side, fill=False, ec="white", lw=0.8
                        )
                    )
    return figure


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
        axis: to plot into.
        shades: ``(rows, columns)``; NaN is left pale.
        texts: (row, column) → what is written there, large and small.
        rows, columns: names.
        limits: the values of the palest and the darkest shade.
    """
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="#F2F2F2")
    values = np.ma.masked_invalid(shades)
    image = axis.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1], aspect="auto")
    backgrounds = image.to_rgba(values)
    for (row, column), (large, small) in texts.items():
        color = readable_on(backgrounds[row, column])
        place: dict[str, Any] = {"ha": "center", "va": "center", "color": color}
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


def plot_bars(
    axis: Axes,
    series: Mapping[str, Sequence[float | None]],
    colors: Sequence[str],
    groups: Sequence[str],
    *,
    numbers: bool = True,
) -> None:
    """Bars of fractions in percent, side by side in a group for each position.

    Args:
        axis: to plot into.
        series: name → a fraction for each group; None is marked by a dash.
        colors: of the series.
        groups: names.
        numbers: write each value above its bar.
    """
    width = 0.82 / len(series)
    for index, ((name, values), color) in enumerate(zip(series.items(), colors, strict=False)):
        x = np.arange(len(groups)) - 0.41 + (index + 0.5) * width
        heights = [100 * (value or 0.0) for value in values]
        bars = axis.bar(x, heights, 0.93 * width, color=color, label=name)
        if numbers:
            texts = [ABSENT if value is None else f"{100 * value:.0f}" for value in values]
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
            axis.bar_label(bars, texts, padding=3, size=8.5, bbox=box)
    axis.set_xticks(range(len(groups)), groups)
    axis.tick_params(axis="x", length=0, labelsize=10)
    axis.grid(axis="y")


def class_balance(counts: Mapping[str, Mapping[str, int]], *, title: str) -> Figure:
    """Plot the number of images of each emotion in every split, and their share of it.

    Args:
        counts: ``{split: {emotion: images}}``; an emotion that is not named has none.
        title: of which dataset; the number of images is added below it.
    """
    total = sum(sum(row.values()) for row in counts.values())
    columns = min(3, len(counts))
    rows = math.ceil(len(counts) / columns)
    subtitle = f"{how_many(total, 'image')} · bar: share of the split's images"
    with style():
        width = max(6.0, 1.0 + 2.9 * columns)
        figure = new_figure(width, 3.3 * rows, title, subtitle)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
        longest = 1.0
        for axis, (split, row) in zip(grid.flat, counts.items(), strict=False):
            images = [int(row.get(emotion, 0)) for emotion in labels.EMOTIONS]
            size = sum(images)
            shares = [100 * n / size if size else 0.0 for n in images]
            longest = max(longest, *shares)
            bars = axis.barh(
                labels.EMOTIONS, shares, color=list(EMOTION_COLORS.values()), height=0.72
            )
            if size:
                pairs = zip(images, shares, strict=True)
                texts = [f"{n:,} ({share:.1f} %)" for n, share in pairs]
                axis.bar_label(bars, texts, padding=4, size=9)
            else:
                say(axis, "no images")
            axis.set_title(plain(f"{split}: {how_many(size, 'image')}"), parse_math=False)
            axis.set_xlabel("share of the split (%)")
            axis.tick_params(axis="y", length=0, labelsize=10)
            axis.grid(axis="x")
        for axis in grid.flat[len(counts) :]:
            axis.set_visible(False)
        first = grid[0, 0]
        first.invert_yaxis()
        ticks = MaxNLocator(nbins=3, integer=True).tick_values(0, longest)
        first.set_xticks([tick for tick in ticks if 0 <= tick <= 100])
        # The longest label takes 1.25 inches of a panel that is about 2.7 inches wide.
        first.set_xlim(0, longest * 1.85)
    return figure


def say(axis: Axes, text: str) -> None:
    """Write ``text`` into the middle of an empty panel."""
    axis.text(
        0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=MUTED, size=10
    )
