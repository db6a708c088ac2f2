"""Figures of an evaluation: calibration, damaged images, robustness, mistakes, comparisons."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from fer.core import labels
from fer.core.words import PERCENT, how_many, percent, plain
from fer.evaluation.metrics import SplitResult
from fer.evaluation.scores import Score, shown_in
from fer.report.figures import (
    EMOTION_COLORS,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Tile,
    bars,
    new_figure,
    picture_grid,
    style,
)


def reliability_diagram(
    series: Mapping[str, tuple[Sequence[Mapping[str, Any]], float]], *, title: str
) -> Figure:
    """Accuracy against confidence, with how many images each bin has.

    Args:
        series: name → the bins of :func:`fer.evaluation.metrics.reliability` and the calibration
            error (fraction); one panel each.
    """
    images = sum(row["images"] for row in next(iter(series.values()))[0])
    subtitle = (
        f"{how_many(images, 'image')} · bar below the line: more confident than right; above it: "
        "less"
    )
    with style():
        figure = new_figure(max(5.0, 4.6 * len(series)), 5.0, title, subtitle)
        axes = figure.subplots(
            2, len(series), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1]
        )
        for column, (name, (bins, error)) in enumerate(series.items()):
            upper, lower = axes[:, column]
            for row in bins:
                left, width = 100 * row["low"], 100 * (row["high"] - row["low"])
                lower.bar(left, row["images"], width, align="edge", color=MUTED, edgecolor="white")
                if row["images"]:
                    value = 100 * row["accuracy"]
                    upper.bar(left, value, width, align="edge", color=SERIES[5], edgecolor="white")
                    upper.plot(100 * row["confidence"], value, "o", color=INK, markersize=4)
            upper.plot([0, 100], [0, 100], color=INK, linestyle="--", linewidth=1)
            upper.set_title(f"{name}: calibration error {percent(error)}")
            upper.set(xlim=(0, 100), ylim=(0, 100))
            upper.grid(True)
            lower.set_xlabel("confidence of the prediction (%)")
            lower.grid(axis="y")
        axes[0, 0].set_ylabel("correct (%)")
        axes[1, 0].set_ylabel("images")
    return figure


def damage_grid(
    images: Mapping[str, Sequence[np.ndarray]], faces: np.ndarray, *, title: str
) -> Figure:
    """One face per emotion, undamaged and under each severity of each perturbation.

    Args:
        images: name of a row, such as ``blur 3`` → its faces, in the order of ``faces``.
        faces: ``(7,)`` int, the emotion of each column.
    """
    subtitle = "a face of each emotion, the same in every row"
    rows = [(name, [Tile(image) for image in row]) for name, row in images.items()]
    columns = [labels.EMOTIONS[emotion] for emotion in faces]
    return picture_grid(rows, columns, title=title, subtitle=subtitle)


# --- robustness --------------------------------------------------------------------------------


def robustness_curves(
    networks: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str, subtitle: str
) -> Figure:
    """Scores against severity, a column for each perturbation.

    Args:
        networks: name → the rows of its ``robustness.json``. With one network its 95 % interval
            is shaded; with several a line each, with bars.
    """
    rows = [row for own in networks.values() for row in own]
    scores, alone = shown_in("robustness"), len(networks) == 1
    with style():
        figure, panels = _severity_panels(rows, list(map(_unit, scores)), 4, 2.5, title, subtitle)
        for (name, axes), score in itertools.product(panels.items(), scores):
            axis, factor = axes[scores.index(score)], score.format.factor
            for index, (network, found) in enumerate(networks.items()):
                points = {
                    row["severity"]: factor
                    * _with_bounds(row[score.name], row["confidence_intervals"][score.name])
                    for row in found
                    if row["perturbation"] == name and score.name in row
                }
                _plot_curve(axis, points, SERIES, index, network, shaded=alone)
                for place, (value, *_) in points.items() if alone else ():
                    axis.annotate(
                        f"{value:.{score.format.decimals - 1}f}", (place, value), xytext=(0, 5),
                        textcoords="offset points", ha="center", size=8,
                    )  # fmt: skip
            if score.format == PERCENT:
                axis.set_ylim(0, 100)
                axis.yaxis.set_major_locator(MultipleLocator(20))
        if not alone:
            handles, texts = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, texts, loc="outside lower center", ncols=min(3, len(networks)))
    return figure


def _unit(score: Score) -> str:
    """The score's name with its unit, for an axis."""
    return f"{score.heading} ({score.format.unit.strip()})" if score.format.unit else score.heading


def _severity_panels(
    rows: Sequence[Mapping[str, Any]],
    ylabels: Sequence[str],
    most: int,
    size: float,
    title: str,
    subtitle: str,
) -> tuple[Figure, dict[str, list[Axes]]]:
    """Panels of values against severity, ``most`` perturbations beside each other.

    Returns:
        The figure, and each perturbation's panels, one below the other for each of ``ylabels``.
    """
    names = list(dict.fromkeys(row["perturbation"] for row in rows))
    columns, lines = min(most, len(names)), len(ylabels)
    blocks = math.ceil(len(names) / columns)
    figure = new_figure(
        max(6.0, 0.9 + size * columns), size * lines * blocks + 0.3, title, subtitle
    )
    grid = figure.subplots(lines * blocks, columns, squeeze=False, sharey="row")
    for axis in grid.flat:
        axis.set_xlabel("severity (0: clean)")
        axis.xaxis.set_major_locator(MultipleLocator(1))
        axis.grid(True)
    for line, axis in enumerate(grid[:, 0]):
        axis.set_ylabel(ylabels[line % lines], parse_math=False)
    panels = {}
    for position, name in enumerate(names):
        block, column = divmod(position, columns)
        panels[name] = list(grid[lines * block : lines * (block + 1), column])
        panels[name][0].set_title(name.replace("_", " "))
    for axis in grid[lines * (blocks - 1) :, len(names) - columns * (blocks - 1) :].flat:
        axis.set_visible(False)
    return figure, panels


def _with_bounds(value: float, bounds: Sequence[float] | None) -> np.ndarray:
    """A value with its interval; NaN, which is not plotted, where there is none."""
    return np.array([value, *(bounds or (np.nan, np.nan))])


def _plot_curve(
    axis: Axes,
    points: Mapping[int, np.ndarray],
    colors: Sequence[str],
    index: int,
    label: str,
    *,
    shaded: bool,
) -> None:
    """A line through severity → value, lower and upper bound, the ``index``-th of its panel."""
    if not points:
        return
    x, (y, low, high) = list(points), np.array(list(points.values())).T
    color, marker = colors[index % len(colors)], MARKERS[index % len(MARKERS)]
    look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4.5, "label": label}
    if shaded:
        axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axis.plot(x, y, **look)
    else:
        # The percentile interval may leave out the estimate itself where it is near a bound.
        errors = np.maximum(0, [y - low, high - y])
        axis.errorbar(x, y, errors, capsize=2, elinewidth=0.8, **look)


def robustness_per_class(rows: Sequence[Mapping[str, Any]], *, title: str, images: int) -> Figure:
    """Recall of each emotion against severity in the rows of ``robustness.json``."""
    subtitle = f"{how_many(images, 'image')} · shaded: 95 % interval"
    colors = list(EMOTION_COLORS.values())
    with style():
        figure, panels = _severity_panels(rows, ["recall (%)"], 3, 3.3, title, subtitle)
        for name, (axis,) in panels.items():
            for index, emotion in enumerate(labels.EMOTIONS):
                points = {
                    row["severity"]: 100 * _with_bounds(own["recall"], own["recall_interval"])
                    for row in rows
                    if row["perturbation"] == name
                    and (own := row["per_class"][emotion])["recall"] is not None
                }
                _plot_curve(axis, points, colors, index, emotion, shaded=True)
            axis.set_ylim(-2, 102)
            axis.yaxis.set_major_locator(MultipleLocator(20))
        handles, texts = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=7)
    return figure


def mistakes(
    result: SplitResult,
    lines: Sequence[np.ndarray],
    *,
    title: str,
    subtitle: str,
    maps: Mapping[int, np.ndarray] | None,
) -> Figure:
    """Wrongly predicted faces with the true and the predicted emotion and their probabilities.

    Args:
        result: of the split.
        lines: the rows of the images that each line shows.
        title: of the figure.
        subtitle: in which order.
        maps: row → ``(S, S)`` saliency of the predicted emotion, at least 0, shown beside the
            face; None for none.
    """
    rows = []
    for line in lines:
        tiles = []
        for row in line.tolist():
            true, predicted = (
                f"{labels.EMOTIONS[of[row]]} {100 * result.probabilities[row, of[row]]:.0f} %"
                for of in (result.target, result.preds)
            )
            name = plain(result.ids[row])
            words = (name if len(name) <= 16 else f"…{name[-15:]}", true, f"→ {predicted}")
            tiles.append(Tile(result.images[row], words))
            if maps is not None:
                heat = maps[row] / max(float(np.quantile(maps[row], 0.99)), 1e-12)
                tiles.append(Tile(matplotlib.colormaps["magma"](np.clip(heat, 0, 1))[..., :3]))
        rows.append(("", tiles))
    return picture_grid(rows, title=title, subtitle=subtitle)


def recall_side_by_side(recalls: Mapping[str, Mapping[str, float | None]]) -> Figure:
    """Recall of each emotion; ``recalls``: name of a bar → emotion → fraction or None."""
    return bars(
        {name: [row[e] for e in labels.EMOTIONS] for name, row in recalls.items()},
        SERIES,
        labels.EMOTIONS,
        title="Recall of each emotion",
        subtitle="share of an emotion's images that is recognised",
        xlabel="true emotion",
        ylabel="recall (%)",
        numbers=len(recalls) <= 4,
    )
