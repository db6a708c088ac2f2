"""Figures from plain data: each function returns a ``matplotlib.figure.Figure``, nothing is shown.

Nothing here touches pyplot or leaves a changed ``rcParams`` behind, so that figures can be drawn
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
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import write_atomic
from fer.core.words import how_many, percent, plain

DPI = 130
"""Pixels per inch of every figure, saved or turned into an array."""

# Okabe & Ito, "Color Universal Design", 2008: told apart with every common colour blindness. Its
# yellow is too pale on white, so gray takes its place.
EMOTION_COLORS: dict[str, str] = {
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#E69F00",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
    "neutral": "#808080",
}
SPLIT_COLORS: dict[str, str] = {"train": "#0072B2", "val": "#D55E00", "test": "#009E73"}
CORRECT, WRONG = "#0072B2", "#C04A00"
# One hue from light to dark, so that the three also differ in gray print.
SCORE_COLORS: dict[str, str] = {"precision": "#B9C6D6", "recall": "#7590AE", "f1": "#1F3A5F"}
SCORE_NAMES: dict[str, str] = {"precision": "precision", "recall": "recall", "f1": "F1"}

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
MARGIN = 0.15  # inches, around the header
MANY_POINTS = 60  # more than this and markers would merge into a thick line


def training_curves(
    history: Sequence[Mapping[str, float | None]],
    best_epoch: int | None,
    *,
    title: str = "Training curves",
) -> Figure:
    """Loss, accuracy, macro-F1 and learning rate over the epochs.

    Args:
        history: one row per epoch with ``epoch`` (from 0) and any of ``train_loss``, ``val_loss``,
            ``train_accuracy``, ``val_accuracy``, ``train_macro_f1``, ``val_macro_f1`` (fractions),
            ``learning_rate``. A value that is absent, None or NaN is left out, and the line goes
            on to the next one (validation may run every few epochs only).
        best_epoch: the epoch of the checkpoint that is kept; marked in every panel.
        title: what was trained, on what.

    Raises:
        DataError: there is no row, or a row has no epoch.
    """
    if not history:
        raise DataError("training curves: expected at least one epoch, found none.")
    epochs = [_number(row, "epoch") for row in history]
    unnumbered = [dict(row) for row, n in zip(history, epochs, strict=True) if math.isnan(n)]
    if unnumbered:
        raise DataError(
            f"training curves: expected an epoch number in every row, found {unnumbered[0]}."
        )
    panels = (
        ("loss", "loss", 1.0, ("train_loss", "val_loss")),
        ("accuracy", "accuracy (%)", 100.0, ("train_accuracy", "val_accuracy")),
        ("macro-F1", "macro-F1 (%)", 100.0, ("train_macro_f1", "val_macro_f1")),
        ("learning rate", "learning rate", 1.0, ("learning_rate",)),
    )
    with style():
        figure = new_figure(9.0, 5.9, title, _curves_subtitle(history, best_epoch))
        axes = figure.subplots(2, 2)
        axes[1, 0].sharey(axes[0, 1])  # accuracy and macro-F1 can then be compared by height
        for axis, (name, ylabel, unit, keys) in zip(axes.flat, panels, strict=True):
            _curves_panel(axis, history, keys, unit, best_epoch)
            axis.set(title=name, xlabel="epoch (the first is 0)", ylabel=ylabel)
            first, last = min(epochs), max(epochs)
            room = max(0.5, 0.02 * (last - first))
            axis.set_xlim(first - room, last + room)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
            axis.grid(True)
        rate = axes[1, 1]
        rate.set_ylim(bottom=0)
        rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        handles = [
            Line2D([], [], color=SPLIT_COLORS[split], label=name, **_line(split, len(history)))
            for split, name in (("train", "train"), ("val", "validation"))
        ]
        if best_epoch is not None:
            handles.append(
                Line2D([], [], color=INK, lw=1, linestyle=":", label=f"best epoch {best_epoch}")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _curves_subtitle(history: Sequence[Mapping[str, float | None]], best_epoch: int | None) -> str:
    count = len(history)
    parts = [f"{count:,} epoch{'' if count == 1 else 's'}"]
    if best_epoch is not None:
        rows = [row for row in history if row.get("epoch") == best_epoch]
        score = _number(rows[0], "val_macro_f1") if rows else math.nan
        reached = f", validation macro-F1 {percent(score)}" if math.isfinite(score) else ""
        parts.append(f"best epoch {best_epoch}{reached} (dotted line)")
    return " · ".join(parts)


def _line(split: str, points: int) -> dict[str, Any]:
    """How a line through so many points looks, in a panel and in the legend."""
    return {
        # A second difference beside the hue, for gray print.
        "linestyle": "--" if split == "train" else "-",
        "linewidth": 1.8,
        "marker": "o" if points <= MANY_POINTS else "",
        "markersize": 6 if points == 1 else 3.5,
    }


def _curves_panel(
    axis: Axes,
    history: Sequence[Mapping[str, float | None]],
    keys: Sequence[str],
    unit: float,
    best_epoch: int | None,
) -> None:
    drawn = False
    for key in keys:
        points = [
            (_number(row, "epoch"), unit * _number(row, key))
            for row in history
            if math.isfinite(_number(row, key))
        ]
        if not points:
            continue
        drawn = True
        split = key.split("_")[0]
        x, y = (list(values) for values in zip(*points, strict=True))
        axis.plot(
            x,
            y,
            color=SPLIT_COLORS.get(split, MUTED),
            label=key,
            **_line(split, len(points)),
        )
        if split == "val" and best_epoch is not None and best_epoch in x:
            axis.plot(
                [best_epoch],
                [y[x.index(best_epoch)]],
                linestyle="",
                marker="o",
                markersize=9,
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=1.3,
                zorder=4,
            )
    if not drawn:
        say(axis, "not recorded")
        axis.tick_params(axis="y", left=False, labelleft=False)
    if best_epoch is not None:
        axis.axvline(best_epoch, color=INK, linewidth=1, linestyle=":", zorder=1)


def confusion_matrix(matrix: np.ndarray | Sequence[Sequence[int]], *, title: str) -> Figure:
    """Percent of each true emotion's images by predicted emotion, with the counts.

    Args:
        matrix: ``(7, 7)`` counts, rows true, columns predicted, in the schema's order.
        title: whose predictions on what; the number of images is added below it.

    Raises:
        DataError: another shape, or something that is not a count.
    """
    counts = _counts(matrix)
    support = counts.sum(axis=1)
    total = int(counts.sum())
    shares = np.full(counts.shape, np.nan)
    np.divide(100.0 * counts, support[:, None], out=shares, where=support[:, None] > 0)
    correct = f" · {percent(np.trace(counts) / total)} correct" if total else ""
    subtitle = (
        f"{how_many(total, 'image')}{correct} · big: percent of the row's images, "
        "small: number of images"
    )
    with style():
        figure = new_figure(8.6, 7.7, title, subtitle)
        axis = figure.subplots()
        colors = matplotlib.colormaps["Blues"].with_extremes(bad="#F2F2F2")
        axis.imshow(np.ma.masked_invalid(shares), cmap=colors, vmin=0, vmax=100)
        for row, column in np.ndindex(*counts.shape):
            if not support[row]:
                continue
            value = shares[row, column]
            color = readable_on(colors(float(value) / 100))
            axis.text(
                column, row - 0.1, f"{value:.1f} %", ha="center", va="center", size=11, color=color
            )
            axis.text(
                column,
                row + 0.23,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                size=8.5,
                color=color if value > 20 else MUTED,
            )
        for index, images in enumerate(support):
            if images:
                axis.add_patch(
                    Rectangle((index - 0.5, index - 0.5), 1, 1, fill=False, edgecolor=INK, lw=1.5)
                )
            else:
                middle = (labels.NUM_CLASSES - 1) / 2
                axis.text(middle, index, "no images", ha="center", va="center", color=MUTED)
        ticks = range(labels.NUM_CLASSES)
        predicted = zip(labels.EMOTIONS, counts.sum(axis=0), strict=True)
        true = zip(labels.EMOTIONS, support, strict=True)
        axis.set_xticks(ticks, [f"{emotion}\n({n:,})" for emotion, n in predicted])
        axis.set_yticks(ticks, [f"{emotion}\n({n:,})" for emotion, n in true])
        axis.set_xlabel("predicted emotion (number of images)", labelpad=8)
        axis.set_ylabel("true emotion (number of images)", labelpad=8)
        axis.tick_params(length=0, labelsize=10, pad=6)
        axis.set_xticks(np.arange(-0.5, labels.NUM_CLASSES), minor=True)
        axis.set_yticks(np.arange(-0.5, labels.NUM_CLASSES), minor=True)
        axis.grid(which="minor", color="white", linewidth=1.5)
        axis.tick_params(which="minor", length=0)
        axis.spines[:].set_visible(False)
    return figure


def class_balance(counts: Mapping[str, Mapping[str, int]], *, title: str) -> Figure:
    """How many images of each emotion every split has, and which share of the split they are.

    Args:
        counts: ``{split: {emotion: images}}``; an emotion that is not named has none.
        title: of which dataset; the number of images is added below it.

    Raises:
        DataError: no split, an unknown emotion, or a negative number.
    """
    if not counts:
        raise DataError("class balance: expected at least one split, found none.")
    for split, row in counts.items():
        unknown = sorted(set(row) - set(labels.EMOTIONS))
        if unknown or any(number < 0 for number in row.values()):
            raise DataError(
                f"class balance: expected images per emotion ({', '.join(labels.EMOTIONS)}) in "
                f"{split!r}, found {dict(row)}."
            )
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
            positions = range(labels.NUM_CLASSES)
            axis.barh(
                positions,
                shares,
                color=[EMOTION_COLORS[emotion] for emotion in labels.EMOTIONS],
                height=0.72,
            )
            if size:
                for position, n, share in zip(positions, images, shares, strict=True):
                    axis.annotate(
                        f"{n:,} ({share:.1f} %)",
                        (share, position),
                        xytext=(4, 0),
                        textcoords="offset points",
                        va="center",
                        size=9,
                    )
            else:
                say(axis, "no images")
            axis.set_title(plain(f"{split}: {how_many(size, 'image')}"), parse_math=False)
            axis.set_xlabel("share of the split (%)")
            axis.set_yticks(positions, labels.EMOTIONS)
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


def per_class(per_class: Mapping[str, Mapping[str, float]], *, title: str) -> Figure:
    """Precision, recall and F1 of each emotion.

    Args:
        per_class: ``{emotion: {precision, recall, f1 (fractions), support (images)}}``, as in
            ``metrics.json``. The recall of an emotion without images is not defined and not drawn.
        title: whose predictions on what; the number of images is added below it.

    Raises:
        DataError: an emotion or one of its values is missing.
    """
    for emotion in labels.EMOTIONS:
        missing = [
            name for name in (*SCORE_NAMES, "support") if name not in per_class.get(emotion, {})
        ]
        if missing:
            raise DataError(
                f"per-class scores: expected precision, recall, f1 and support of "
                f"{', '.join(labels.EMOTIONS)}; found no {', '.join(missing)} of {emotion}."
            )
    supports = [int(per_class[emotion]["support"]) for emotion in labels.EMOTIONS]
    with style():
        figure = new_figure(
            9.0, 4.2, title, f"{how_many(sum(supports), 'image')} · scores in percent"
        )
        axis = figure.subplots()
        width = 0.27
        for offset, (key, name) in zip((-width, 0.0, width), SCORE_NAMES.items(), strict=True):
            for position, emotion in enumerate(labels.EMOTIONS):
                value = 100 * float(per_class[emotion][key])
                undefined = not math.isfinite(value) or (key == "recall" and not supports[position])
                axis.bar(
                    position + offset,
                    0.0 if undefined else value,
                    width=width * 0.94,
                    color=SCORE_COLORS[key],
                    label=name if position == 0 else None,
                )
                axis.annotate(
                    "–" if undefined else f"{value:.0f}",
                    (position + offset, 0.0 if undefined else value),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    size=9,
                )
        ticks = [
            f"{emotion}\n{how_many(n, 'image')}"
            for emotion, n in zip(labels.EMOTIONS, supports, strict=True)
        ]
        axis.set_xticks(range(labels.NUM_CLASSES), ticks)
        axis.tick_params(axis="x", length=0, labelsize=10)
        axis.set_ylim(0, 105)  # room for the number above a bar of 100
        axis.yaxis.set_major_locator(MultipleLocator(20))
        axis.set(ylabel="score (%)", xlabel="true emotion (support)")
        axis.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def prediction_grid(
    images: np.ndarray,
    target: np.ndarray,
    preds: np.ndarray,
    confidence: np.ndarray,
    *,
    title: str,
    columns: int = 8,
) -> Figure:
    """Faces with their true emotion, the predicted one and its probability.

    A prediction is marked as correct or wrong by a sign (✓, ✗) and by a colour.

    Args:
        images: ``(N, H, W)``, ``(N, H, W, 1)`` or ``(N, H, W, 3)`` uint8.
        target: ``(N,)`` int, 0–6.
        preds: ``(N,)`` int, 0–6.
        confidence: ``(N,)``, probability of the predicted emotion, 0–1.
        title: whose predictions on what; the number of images is added below it.
        columns: images in a row.

    Raises:
        DataError: no image, or shapes and values other than these.
    """
    images, target, preds, confidence = map(np.asarray, (images, target, preds, confidence))
    _check_grid(images, target, preds, confidence, columns)
    pixels = images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
    n, height, width = pixels.shape[:3]
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    # All lengths in inches. One axes in inches draws much faster than one axes per image.
    face, gap, words = 1.06, 0.14, 0.44
    tall = face * height / width
    step_x, step_y = face + gap, tall + words + gap
    hits = int((target == preds).sum())
    subtitle = (
        f"{how_many(n, 'image')} · ✓ blue: {hits:,} correct · ✗ orange: {n - hits:,} wrong · "
        "percent: confidence"
    )
    with style():
        page = max(5.6, columns * step_x - gap + 2 * MARGIN)
        body = rows * step_y
        figure = new_figure(page, body, title, subtitle, constrained=False)
        axis = figure.add_axes((0, 0, 1, body / figure.get_figheight()))
        for index in range(n):
            x = MARGIN + index % columns * step_x
            y = index // columns * step_y
            is_hit = bool(target[index] == preds[index])
            color = CORRECT if is_hit else WRONG
            axis.imshow(
                pixels[index],
                cmap="gray",
                vmin=0,
                vmax=255,
                extent=(x, x + face, y + tall, y),
                interpolation="bilinear",
            )
            axis.add_patch(Rectangle((x, y), face, tall, fill=False, edgecolor=color, lw=2.5))
            true, predicted = labels.EMOTIONS[target[index]], labels.EMOTIONS[preds[index]]
            axis.text(x, y + tall + 0.06, f"true: {true}", va="top", size=8.5)
            axis.text(
                x,
                y + tall + 0.24,
                f"{'✓' if is_hit else '✗'} {predicted} {100 * confidence[index]:.0f} %",
                va="top",
                size=8.5,
                color=color,
                weight="bold",
            )
        axis.set(xlim=(0, page), ylim=(body, -0.02), aspect="auto")
        axis.set_axis_off()
    return figure


def _check_grid(
    images: np.ndarray,
    target: np.ndarray,
    preds: np.ndarray,
    confidence: np.ndarray,
    columns: int,
) -> None:
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if not is_image or images.dtype != np.uint8 or 0 in images.shape:
        raise DataError(
            "prediction grid: expected at least one image as (N, H, W), (N, H, W, 1) or "
            f"(N, H, W, 3) uint8, found {images.shape} {images.dtype}."
        )
    for name, values in (("target", target), ("preds", preds), ("confidence", confidence)):
        if values.shape != (len(images),):
            raise DataError(
                f"prediction grid: expected {name} of shape ({len(images)},), one value per image, "
                f"found {values.shape}."
            )
    for name, values in (("target", target), ("preds", preds)):
        is_index = np.issubdtype(values.dtype, np.integer)
        if not is_index or values.min() < 0 or values.max() >= labels.NUM_CLASSES:
            raise DataError(
                f"prediction grid: expected {name} to be integers 0–{labels.NUM_CLASSES - 1}, "
                f"found {values.dtype} from {values.min()} to {values.max()}."
            )
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise DataError(
            "prediction grid: expected confidence as probabilities 0–1, found values from "
            f"{confidence.min()} to {confidence.max()}."
        )
    if columns < 1:
        raise DataError(f"prediction grid: expected at least one column, found {columns}.")


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


def style() -> AbstractContextManager[None]:
    """:data:`STYLE` for as long as a figure is made; what the user has set comes back after it."""
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


def _counts(matrix: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    array = np.asarray(matrix)
    shape = (labels.NUM_CLASSES, labels.NUM_CLASSES)
    if array.shape != shape or array.dtype.kind not in "iuf":
        raise DataError(
            f"confusion matrix: expected {shape} counts, found {array.shape} {array.dtype}."
        )
    if not (np.isfinite(array) & (array >= 0) & (array == np.floor(array))).all():
        raise DataError(
            "confusion matrix: expected whole numbers of images, found values from "
            f"{array.min()} to {array.max()}. Give counts, not shares."
        )
    return array.astype(np.int64)


def readable_on(background: tuple[float, float, float, float]) -> str:
    """White or dark, whichever has more contrast (WCAG 2.2, relative luminance)."""
    rgb = np.asarray(background[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "white" if linear @ (0.2126, 0.7152, 0.0722) < 0.2 else INK


def _number(row: Mapping[str, float | None], key: str) -> float:
    """The value of ``key``, NaN where there is none."""
    value = row.get(key)
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan


def say(axis: Axes, text: str) -> None:
    """Write ``text`` into the middle of an empty panel."""
    axis.text(
        0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=MUTED, size=10
    )
