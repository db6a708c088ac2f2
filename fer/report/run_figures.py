"""Figures of a run: training curves, confusion matrix, scores of each emotion, predictions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fer.core import labels
from fer.core.words import how_many, percent, to_number
from fer.evaluation.metrics import ClassScores, SplitResult
from fer.report.figures import (
    CORRECT,
    INK,
    MUTED,
    SPLIT_COLORS,
    WRONG,
    Look,
    Tile,
    bars,
    class_balance,
    new_figure,
    picture_grid,
    plot_cells,
    save,
    style,
)
from fer.report.page import Section, render

GRID = 32
"""Images in the grid of predictions."""
PANELS = (
    ("loss", "loss", 1.0, ("train_loss", "val_loss")),
    ("accuracy", "accuracy (%)", 100.0, ("train_accuracy", "val_accuracy")),
    ("macro-F1", "macro-F1 (%)", 100.0, ("train_macro_f1", "val_macro_f1")),
    ("learning rate", "learning rate", 1.0, ("learning_rate",)),
)
"""The panels of the training curves: title, label, factor, columns of ``history.csv``."""
LINES: dict[str, Look] = {
    # A second difference beside the hue, for gray print.
    "train": {"color": SPLIT_COLORS["train"], "linestyle": "--", "linewidth": 1.8},
    "val": {"color": SPLIT_COLORS["val"], "linestyle": "-", "linewidth": 1.8},
    "learning": {"color": MUTED, "linewidth": 1.8},
}
"""The style of a line by the first word of its column."""
MANY_POINTS = 60  # more than this and markers would merge into a thick line
# One hue from light to dark, so that the three also differ in gray print.
SCORE_COLORS = {"precision": "#B9C6D6", "recall": "#7590AE", "F1": "#1F3A5F"}


# --- the section -------------------------------------------------------------------------------


def run_section(
    folder: Path,
    results: Sequence[SplitResult],
    history: Sequence[Mapping[str, Any]] = (),
    best_epoch: int = 0,
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> Section:
    """Write the figures of a run and show those of its last split, with predictions of the first.

    Args:
        results: of val, and of test where it was measured; of an evaluation one.
        history: the rows of ``history.csv``; none without a training.
        counts: images of each split and emotion, of a training.
    """
    plots = {"curves": training_curves(history, best_epoch)} if history else {}
    if counts is not None:
        title = f"Class balance of {results[0].metrics['dataset']}"
        plots["class_balance"] = class_balance(counts, title=title)
    for result in results:
        metrics, split = result.metrics, result.metrics["split"]
        shown = f"{metrics['dataset']}, {split}"
        matrix, title = np.array(metrics["confusion_matrix"]), f"Confusion matrix: {shown}"
        plots[f"confusion_matrix_{split}"] = confusion_matrix(matrix, title=title)
        title = f"Per emotion: {shown}"
        plots[f"per_class_{split}"] = per_class(metrics["per_class"], title=title)
        plots[f"predictions_{split}"] = prediction_grid(
            result.images, result.target, result.probabilities, title=f"Predictions: {shown}"
        )
    return render(
        "run_figures.html.j2",
        files={name: save(one, folder / "figures" / f"{name}.png") for name, one in plots.items()},
        metrics=results[-1].metrics,
        pictured=results[0].metrics,
        grid=len(pick_rows(results[0].target, GRID)),
    )


# --- training ----------------------------------------------------------------------------------


def training_curves(history: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Loss, accuracy, macro-F1 and learning rate over the epochs, from ``history.csv``.

    A value that is absent, None or NaN is left out, and the line goes on to the next one
    (validation may run every few epochs only). Epochs are counted from 1, in files from 0.
    """
    history = [{**row, "epoch": row["epoch"] + 1} for row in history]
    best_epoch += 1
    epochs = [row["epoch"] for row in history]
    reached = percent(history[epochs.index(best_epoch)].get("val_macro_f1"))
    best = f"best epoch {best_epoch}"
    subtitle = f"{how_many(len(history), 'epoch')} · {best}, validation macro-F1 {reached}"
    with style():
        figure = new_figure(9.0, 5.9, "Training curves", f"{subtitle} (dotted line)")
        axes = figure.subplots(2, 2)
        axes[1, 0].sharey(axes[0, 1])  # accuracy and macro-F1 can then be compared by height
        room = max(0.5, 0.02 * (max(epochs) - min(epochs)))
        for axis, (name, ylabel, unit, keys) in zip(axes.flat, PANELS, strict=True):
            for key in keys:
                _plot_curve(axis, history, key, unit)
            if not axis.lines:
                middle: Any = {"ha": "center", "transform": axis.transAxes}
                axis.text(0.5, 0.5, "not recorded", color=MUTED, **middle)
            axis.axvline(best_epoch, color=INK, linewidth=1, linestyle=":", zorder=1)
            axis.set(title=name, xlabel="epoch", ylabel=ylabel)
            axis.set_xlim(min(epochs) - room, max(epochs) + room)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
            axis.grid(True)
        axes[1, 1].set_ylim(bottom=0)
        handles = [
            Line2D([], [], label=name, **LINES[split])
            for split, name in (("train", "train"), ("val", "validation"))
        ]
        handles.append(Line2D([], [], color=INK, lw=1, linestyle=":", label=best))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _plot_curve(axis: Axes, history: Sequence[Mapping[str, Any]], key: str, unit: float) -> None:
    """A column of the history against the epochs."""
    found = [(row["epoch"], to_number(row.get(key))) for row in history]
    known = [(epoch, unit * value) for epoch, value in found if value is not None]
    if known:
        marker: Look = {"marker": "o" if len(known) <= MANY_POINTS else "", "markersize": 3.5}
        axis.plot(*zip(*known, strict=True), label=key, **LINES[key.split("_")[0]], **marker)


# --- predictions -------------------------------------------------------------------------------


def confusion_matrix(counts: np.ndarray, *, title: str) -> Figure:
    """Percent of each true emotion's images by predicted emotion, with the counts.

    ``counts``: ``(7, 7)`` int, rows true, columns predicted, in the schema's order.
    """
    support, total = counts.sum(axis=1), int(counts.sum())
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, support[:, None], out=shares, where=support[:, None] > 0)
    texts = {
        (row, column): (percent(shares[row, column]), f"{counts[row, column]:,}")
        for row, column in np.ndindex(*counts.shape)
        if support[row]
    }
    correct = f" · {percent(np.trace(counts) / total)} correct" if total else ""
    subtitle = (
        f"{how_many(total, 'image')}{correct} · big: percent of the row's images, "
        "small: number of images"
    )
    predicted, true = (
        [f"{emotion}\n({n:,})" for emotion, n in zip(labels.EMOTIONS, numbers, strict=True)]
        for numbers in (counts.sum(axis=0), support)
    )
    with style():
        figure = new_figure(8.6, 7.7, title, subtitle)
        axis = figure.subplots()
        plot_cells(axis, 100 * shares, texts, true, predicted, (0, 100))
        for index, images in enumerate(support):
            if images:
                corner = (index - 0.5, index - 0.5)
                axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, lw=1.5))
            else:
                axis.text(3, index, "no images", ha="center", va="center", color=MUTED)
        axis.set_xlabel("predicted emotion (number of images)", labelpad=8)
        axis.set_ylabel("true emotion (number of images)", labelpad=8)
    return figure


def per_class(scores: Mapping[str, ClassScores], *, title: str) -> Figure:
    """Precision, recall and F1 of each emotion, from ``per_class`` of ``metrics.json``."""
    rows = [scores[emotion] for emotion in labels.EMOTIONS]
    series: dict[str, list[float | None]] = {
        "precision": [row["precision"] for row in rows],
        "recall": [row["recall"] if row["support"] else None for row in rows],
        "F1": [row["f1"] for row in rows],
    }
    groups = [
        f"{emotion}\n{how_many(row['support'], 'image')}"
        for emotion, row in zip(labels.EMOTIONS, rows, strict=True)
    ]
    images = how_many(sum(row["support"] for row in rows), "image")
    return bars(
        series,
        list(SCORE_COLORS.values()),
        groups,
        title=title,
        subtitle=f"{images} · scores in percent",
        xlabel="true emotion (support)",
        ylabel="score (%)",
    )


def pick_rows(target: np.ndarray, most: int | None = None) -> np.ndarray:
    """Rows of images, evenly over the emotions, the same for every network.

    Args:
        target: ``(N,)`` int64, the emotion of each image.
        most: of them; None for one of each emotion that occurs.
    """
    rng = np.random.default_rng(0)
    by_class = [
        rng.permutation(np.flatnonzero(target == index)) for index in range(labels.NUM_CLASSES)
    ]
    rounds = itertools.zip_longest(*by_class)
    order = [row for rows in rounds for row in rows if row is not None]
    return np.array(order[: most or len(np.unique(target))], dtype=np.int64)


def prediction_grid(
    images: np.ndarray, target: np.ndarray, probabilities: np.ndarray, *, title: str
) -> Figure:
    """Some images with their true emotion, the predicted one and its probability.

    A prediction is marked as correct or wrong by a sign (✓, ✗) and by a colour.

    Args:
        images: ``(N, H, W, C)`` uint8, of which at most :data:`GRID` are shown.
        target: ``(N,)`` int64.
        probabilities: ``(N, 7)``.
        title: of the figure.
    """
    tiles = []
    for index in pick_rows(target, GRID):
        true, predicted = target[index], probabilities[index].argmax()
        sign, color = ("✓", CORRECT) if true == predicted else ("✗", WRONG)
        confidence = 100 * probabilities[index].max()
        lines = (
            f"true: {labels.EMOTIONS[true]}",
            f"{sign} {labels.EMOTIONS[predicted]} {confidence:.0f} %",
        )
        tiles.append(Tile(images[index], lines, color))
    hits = sum(tile.color == CORRECT for tile in tiles)
    subtitle = (
        f"{how_many(len(tiles), 'image')} · ✓ blue: {hits:,} correct · ✗ orange: "
        f"{len(tiles) - hits:,} wrong · percent: confidence"
    )
    rows = [("", tiles[start : start + 8]) for start in range(0, len(tiles), 8)]
    return picture_grid(rows, title=title, subtitle=subtitle)
