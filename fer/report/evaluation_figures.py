"""Figures of an evaluation: calibration, damaged images, robustness, mistakes, comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from fer.core import labels
from fer.core.words import PERCENT, how_many, percent, plain
from fer.evaluation.scores import Score, shown_in
from fer.report.figures import (
    CORRECT,
    EMOTION_COLORS,
    GRID,
    INK,
    MARGIN,
    MUTED,
    WRONG,
    new_figure,
    style,
)

SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Colours and signs of several networks, told apart in gray print too."""


def reliability_diagram(
    series: Mapping[str, tuple[Sequence[Mapping[str, Any]], float]], *, title: str
) -> Figure:
    """Accuracy against confidence, with how many images each bin has.

    Args:
        series: name → the bins of :func:`fer.evaluation.metrics.reliability` and the calibration
            error (fraction); one panel each.
        title: whose predictions on what.
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
        title: of which dataset.
    """
    rows, columns = len(images), len(faces)
    face, label = 0.92, 1.75
    with style():
        width = label + columns * (face + 0.06) + 2 * MARGIN
        body = rows * (face + 0.06) + 0.4
        figure = new_figure(
            width, body, title, "a face of each emotion, the same in every row", constrained=False
        )
        axis = figure.add_axes((0, 0, 1, body / figure.get_figheight()))
        for column, emotion in enumerate(faces):
            x = MARGIN + label + column * (face + 0.06)
            axis.text(
                x + face / 2, 0.2, labels.EMOTIONS[emotion], ha="center", va="center", size=10
            )
        for row, (name, pictures) in enumerate(images.items()):
            y = 0.36 + row * (face + 0.06)
            axis.text(MARGIN, y + face / 2, plain(name), va="center", size=9.5)
            for column, picture in enumerate(pictures):
                x = MARGIN + label + column * (face + 0.06)
                show(axis, picture, x, y, face)
        axis.set(xlim=(0, width), ylim=(body, 0), aspect="auto")
        axis.set_axis_off()
    return figure


def show(axis: Axes, image: np.ndarray, x: float, y: float, side: float) -> None:
    """Draw an image ``(S, S, C)`` or ``(S, S)`` uint8 into a square of an axes in inches."""
    axis.imshow(
        image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(x, x + side, y + side, y),
        interpolation="nearest",
    )


def robustness_curves(
    networks: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str, subtitle: str
) -> Figure:
    """Scores against severity, a column for each perturbation.

    Args:
        networks: name → the rows of its ``robustness.json``. With one network its 95 % interval
            is shaded; with several a line each, with bars.
        title: whose, on what.
        subtitle: number of images, what the shade is.
    """
    names = list(dict.fromkeys(row["perturbation"] for rows in networks.values() for row in rows))
    columns = min(4, len(names))
    blocks = math.ceil(len(names) / columns)
    scores = shown_in("robustness")
    lines = len(scores) * blocks
    with style():
        figure = new_figure(max(6.0, 0.9 + 2.55 * columns), 2.45 * lines + 0.3, title, subtitle)
        axes = figure.subplots(lines, columns, squeeze=False, sharey="row")
        for position, name in enumerate(names):
            for offset, score in enumerate(scores):
                axis = axes[len(scores) * (position // columns) + offset, position % columns]
                for index, (network, rows) in enumerate(networks.items()):
                    own = [r for r in rows if r["perturbation"] == name and score.name in r]
                    if own:
                        _curve(axis, own, score, index, network, shaded=len(networks) == 1)
                if offset == 0:
                    axis.set_title(name.replace("_", " "))
                axis.set_xlabel("severity (0: clean)")
                if position % columns == 0:
                    unit = f" ({score.format.unit.strip()})" if score.format.unit else ""
                    axis.set_ylabel(f"{score.heading}{unit}", parse_math=False)
                axis.xaxis.set_major_locator(MultipleLocator(1))
                if score.format == PERCENT:
                    axis.set_ylim(0, 100)
                    axis.yaxis.set_major_locator(MultipleLocator(20))
                axis.grid(True)
        for spare in range(len(names), blocks * columns):
            for offset in range(len(scores)):
                axes[len(scores) * (spare // columns) + offset, spare % columns].set_visible(False)
        if len(networks) > 1:
            handles, texts = axes[0, 0].get_legend_handles_labels()
            figure.legend(handles, texts, loc="outside lower center", ncols=min(3, len(networks)))
    return figure


def _curve(
    axis: Axes,
    rows: Sequence[Mapping[str, Any]],
    score: Score,
    index: int,
    network: str,
    *,
    shaded: bool,
) -> None:
    x = [row["severity"] for row in rows]
    factor = score.format.factor
    y = factor * np.array([row[score.name] for row in rows])
    low, high = factor * np.array([row["confidence_intervals"][score.name] for row in rows]).T
    color, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
    if shaded:
        axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(x, y, color=color, marker=marker, markersize=4.5, label=network)
        for place, value in zip(x, y, strict=True):
            axis.annotate(
                f"{value:.{score.format.decimals - 1}f}", (place, value), xytext=(0, 5),
                textcoords="offset points", ha="center", size=8,
            )  # fmt: skip
    else:
        # The percentile interval may leave out the estimate itself where it is near a bound.
        errors = np.maximum(0, [y - low, high - y])
        axis.errorbar(
            x, y, errors, color=color, marker=marker, markersize=4.5, capsize=2, elinewidth=0.8,
            label=network,
        )  # fmt: skip


def robustness_per_class(rows: Sequence[Mapping[str, Any]], *, title: str, images: int) -> Figure:
    """Recall of each emotion against severity, a panel for each perturbation.

    Args:
        rows: of ``robustness.json``.
        title: whose, on what.
        images: number of images.
    """
    names = list(dict.fromkeys(row["perturbation"] for row in rows))
    columns = min(3, len(names))
    blocks = math.ceil(len(names) / columns)
    with style():
        figure = new_figure(
            max(6.0, 0.9 + 3.3 * columns),
            3.3 * blocks + 0.4,
            title,
            f"{how_many(images, 'image')} · shaded: 95 % interval",
        )
        axes = figure.subplots(blocks, columns, squeeze=False, sharey=True)
        for axis, name in zip(axes.flat, names, strict=False):
            own = [row for row in rows if row["perturbation"] == name]
            for index, emotion in enumerate(labels.EMOTIONS):
                points = [
                    (row["severity"], scores["recall"], scores["recall_interval"])
                    for row in own
                    if (scores := row["per_class"][emotion])["recall_interval"] is not None
                ]
                if not points:
                    continue
                x, y, bounds = zip(*points, strict=True)
                low, high = 100 * np.array(bounds).T
                color = EMOTION_COLORS[emotion]
                axis.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
                axis.plot(
                    x, 100 * np.array(y), color=color, marker=MARKERS[index], markersize=4.5,
                    label=emotion,
                )  # fmt: skip
            axis.set_title(name.replace("_", " "))
            axis.set(ylim=(-2, 102), xlabel="severity (0: clean)")
            axis.xaxis.set_major_locator(MultipleLocator(1))
            axis.yaxis.set_major_locator(MultipleLocator(20))
            axis.grid(True)
        for axis in axes[:, 0]:
            axis.set_ylabel("recall (%)")
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        handles, texts = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=7)
    return figure


def mistakes(
    images: np.ndarray,
    target: np.ndarray,
    probabilities: np.ndarray,
    ids: Sequence[str],
    *,
    title: str,
    subtitle: str,
    lines: Sequence[int],
    maps: np.ndarray | None = None,
) -> Figure:
    """Wrongly predicted faces, each with its probabilities and, if there are any, its saliency.

    Args:
        images: ``(N, S, S, C)`` uint8.
        target: ``(N,)`` int.
        probabilities: ``(N, 7)``.
        ids: of the images.
        title: which mistakes.
        subtitle: what they are of.
        lines: how many of the faces each line holds, N in all.
        maps: ``(N, S, S)`` saliency of the predicted emotion, at least 0; None draws none.
    """
    n = len(images)
    places = [(line, column) for line, size in enumerate(lines) for column in range(size)]
    face, bars, words, gap = 1.05, 1.75, 0.42, 0.2
    pictures = 2 if maps is not None else 1
    step_x = pictures * (face + 0.06) + bars + gap
    step_y = face + words + gap
    with style():
        width = max(5.6, max(lines) * step_x + 2 * MARGIN)
        body = len(lines) * step_y + 0.05
        figure = new_figure(width, body, title, subtitle, constrained=False)
        axis = figure.add_axes((0, 0, 1, body / figure.get_figheight()))
        for index in range(n):
            line, column = places[index]
            x, y = MARGIN + column * step_x, line * step_y
            predicted = int(probabilities[index].argmax())
            true = labels.EMOTIONS[target[index]]
            axis.text(x, y + 0.1, plain(ids[index]), size=7.5, color=MUTED, va="center")
            axis.text(
                x, y + 0.29, f"{true} → {labels.EMOTIONS[predicted]}", size=9, weight="bold",
                color=WRONG, va="center",
            )  # fmt: skip
            top = y + words
            show(axis, images[index], x, top, face)
            if maps is not None:
                heat = maps[index] / max(float(np.quantile(maps[index], 0.99)), 1e-12)
                axis.imshow(
                    np.clip(heat, 0, 1), cmap="magma", vmin=0, vmax=1, interpolation="nearest",
                    extent=(x + face + 0.06, x + 2 * face + 0.06, top + face, top),
                )  # fmt: skip
            _probability_bars(
                axis, probabilities[index], int(target[index]), predicted,
                x + pictures * (face + 0.06) + 0.55, top, bars - 0.92, face,
            )  # fmt: skip
        axis.set(xlim=(0, width), ylim=(body, 0), aspect="auto")
        axis.set_axis_off()
    return figure


def _probability_bars(
    axis: Axes,
    probabilities: np.ndarray,
    true: int,
    predicted: int,
    x: float,
    y: float,
    width: float,
    height: float,
) -> None:
    step = height / labels.NUM_CLASSES
    for index, emotion in enumerate(labels.EMOTIONS):
        middle = y + (index + 0.5) * step
        color = CORRECT if index == true else WRONG if index == predicted else MUTED
        axis.text(
            x - 0.04, middle, emotion, ha="right", va="center", size=6.5, color=color,
            weight="bold" if index in (true, predicted) else "normal",
        )  # fmt: skip
        axis.add_patch(Rectangle((x, middle - 0.3 * step), width, 0.6 * step, color=GRID, lw=0))
        axis.add_patch(
            Rectangle(
                (x, middle - 0.3 * step),
                width * float(probabilities[index]),
                0.6 * step,
                color=color,
                lw=0,
            )
        )
        if index in (true, predicted):
            axis.text(
                x + width + 0.04,
                middle,
                f"{100 * probabilities[index]:.0f} %",
                va="center",
                size=6.5,
                color=color,
            )


def cross_table(
    values: Mapping[tuple[str, str], tuple[float, Sequence[float]]],
    *,
    score: Score,
    title: str,
    subtitle: str,
) -> Figure:
    """Every network on every dataset, as a coloured table; the darker, the better.

    Args:
        values: (network, dataset) → a value and its 95 % interval.
        score: what it is a value of.
        title: of the figure.
        subtitle: what is seen.
    """
    networks = list(dict.fromkeys(network for network, _ in values))
    datasets = list(dict.fromkeys(dataset for _, dataset in values))
    with style():
        figure = new_figure(
            max(5.6, 2.6 + 1.9 * len(datasets)), 0.9 + 0.95 * len(networks), title, subtitle
        )
        axis = figure.subplots()
        found = [value for value, _ in values.values()]
        span = (0, 1) if score.format == PERCENT else (min(found), max(found))
        shades = np.full((len(networks), len(datasets)), np.nan)
        for (network, dataset), (value, bounds) in values.items():
            x, y = datasets.index(dataset), networks.index(network)
            shades[y, x] = np.interp(value, span, (0, 1) if score.higher_is_better else (1, 0))
            color = "white" if shades[y, x] > 0.55 else INK
            text, detail = score.format.text(value), score.format.interval(bounds) or ""
            axis.text(x, y - 0.1, text, ha="center", va="center", size=13, color=color)
            axis.text(x, y + 0.26, detail, ha="center", va="center", size=8.5, color=color)
        axis.imshow(np.ma.masked_invalid(shades), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(datasets)), list(map(plain, datasets)))
        axis.set_yticks(range(len(networks)), list(map(plain, networks)))
        axis.set_xlabel(f"measured on ({score.heading})", labelpad=8, parse_math=False)
        axis.set_ylabel("network")
        axis.tick_params(length=0, labelsize=10)
        axis.spines[:].set_visible(False)
    return figure


def recall_side_by_side(
    recalls: Mapping[str, Mapping[str, float | None]], *, title: str, subtitle: str
) -> Figure:
    """Recall of each emotion, one bar for each network and dataset.

    Args:
        recalls: name of a bar → emotion → recall (fraction); None where it is not defined.
        title: of the figure.
        subtitle: what is seen.
    """
    with style():
        figure = new_figure(9.0, 4.2, title, subtitle)
        axis = figure.subplots()
        width = 0.84 / len(recalls)
        for index, (name, row) in enumerate(recalls.items()):
            for position, emotion in enumerate(labels.EMOTIONS):
                value = row[emotion]
                x = position - 0.42 + (index + 0.5) * width
                axis.bar(
                    x, 0 if value is None else 100 * value, width * 0.92,
                    color=SERIES[index % len(SERIES)], label=name if position == 0 else None,
                )  # fmt: skip
                if len(recalls) <= 4:
                    axis.annotate(
                        "–" if value is None else f"{100 * value:.0f}",
                        (x, 0 if value is None else 100 * value),
                        xytext=(0, 2), textcoords="offset points", ha="center", size=8,
                    )  # fmt: skip
        axis.set_xticks(range(labels.NUM_CLASSES), labels.EMOTIONS)
        axis.tick_params(axis="x", length=0, labelsize=10)
        axis.set(ylim=(0, 105), ylabel="recall (%)", xlabel="true emotion")
        axis.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=2)
    return figure
