"""Sections of an evaluation's page on how sure the network is: calibration, sets of emotions.

The templates named after them hold the sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fer.core.words import PERCENT, how_many, percent
from fer.evaluation.intervals import wilson
from fer.evaluation.metrics import Bin, SplitResult
from fer.evaluation.prediction_sets import Selective, risk_curve
from fer.report.figures import INK, MUTED, SERIES, Look, new_figure, save, style
from fer.report.page import Section, make_table, percent_cell, render

FAINT = 0.01
"""A bin with a smaller share of the images is drawn faintly."""


def calibration_section(folder: Path, result: SplitResult, shown: str) -> Section:
    """Confidence against accuracy, and what temperature scaling makes of it."""
    metrics = result.metrics
    series = {"as it is": (metrics["reliability"], metrics["expected_calibration_error"])}
    scaling = metrics.get("temperature_scaling")
    if scaling is not None:
        name = f"temperature {scaling['temperature']:.2f}"
        series[name] = scaling["reliability"], scaling["expected_calibration_error"]
    title = f"Reliability: {shown}"
    figure = reliability_diagram(series, title=title, images=metrics["samples"])
    return render(
        "calibration.html.j2",
        metrics=metrics,
        scaling=scaling,
        gap=float((result.probabilities.max(axis=1) - (result.target == result.preds)).mean()),
        figure=save(figure, folder / "figures" / "reliability.png"),
    )


def reliability_diagram(
    series: Mapping[str, tuple[Sequence[Bin], float]], *, title: str, images: int
) -> Figure:
    """Accuracy against confidence, with how many images each bin has.

    Args:
        series: name → the bins of :func:`fer.evaluation.metrics.reliability` and the calibration
            error (fraction); one panel each.
    """
    words = "bar below the line: more confident than right; above it: less"
    with style():
        size = max(5.0, 4.6 * len(series)), 5.0
        figure = new_figure(*size, title, f"{how_many(images, 'image')} · {words}")
        axes = figure.subplots(
            2, len(series), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1]
        )
        for (upper, lower), (name, (bins, error)) in zip(axes.T, series.items(), strict=True):
            rows = [row for row in bins if row["images"]]
            left = [100 * row["low"] for row in rows]
            look: Look = {"align": "edge", "edgecolor": "white"}
            look["width"] = [100 * (row["high"] - row["low"]) for row in rows]
            lower.bar(left, [row["images"] for row in rows], color=MUTED, **look)
            right = 100 * np.array([row["accuracy"] for row in rows], np.float64)
            number = np.array([row["images"] for row in rows])
            drawn = upper.bar(left, right, color=SERIES[5], **look)
            for bar, share in zip(drawn, number / images, strict=True):
                bar.set_alpha(1.0 if share >= FAINT else 0.35)
            low, high = wilson(np.round(right / 100 * number), number)
            middle = np.array(left) + np.array(look["width"]) / 2
            upper.vlines(middle, 100 * low, 100 * high, color=MUTED, linewidth=1.2)
            sure = 100 * np.array([row["confidence"] for row in rows], np.float64)
            upper.plot(sure, right, "o", color=INK, ms=4)
            upper.plot([0, 100], [0, 100], color=INK, linestyle="--", linewidth=1)
            upper.set(title=f"{name}: calibration error {percent(error)}")
            upper.set(xlim=(0, 100), ylim=(0, 100))
            upper.grid(True)
            lower.set_xlabel("confidence of the prediction (%)")
            lower.grid(axis="y")
        axes[0, 0].set_ylabel("correct (%)")
        axes[1, 0].set_ylabel("images")
    return figure


def unsure_section(folder: Path, result: SplitResult, shown: str, in_domain: bool) -> Section:
    """Sets of emotions instead of one, and accuracy where the least sure images are left out.

    ``in_domain``: the network was trained on this dataset.
    """
    metrics = result.metrics
    sets = metrics["prediction_sets"]
    risk = risk_curve(result.target, result.probabilities)
    rows = [
        [emotion, own["support"], percent_cell(own["coverage"]), size_cell(own["mean_size"])]
        for emotion, own in sets["per_class"].items()
    ]
    columns = ["Emotion", "Images", "Sets that hold it", "Emotions in a set"]
    figure = selective_curve(
        risk, metrics["selective"], title=f"Accuracy of the surest images: {shown}"
    )
    return render(
        "unsure.html.j2",
        sets=sets,
        expected=PERCENT.interval(sets["expected"]),
        selective=metrics["selective"],
        samples=metrics["samples"],
        in_domain=in_domain,
        table=make_table("prediction-sets", columns, rows),
        figure=save(figure, folder / "figures" / "selective.png"),
    )


def size_cell(size: float | None) -> str | None:
    """A mean number of emotions."""
    return None if size is None else f"{size:.2f}"


def selective_curve(risk: np.ndarray, marked: Sequence[Selective], *, title: str) -> Figure:
    """Accuracy against the share of images that are answered, the surest first.

    Args:
        risk: of :func:`fer.evaluation.prediction_sets.risk_curve`.
        marked: the points with numbers.
    """
    with style():
        figure = new_figure(7.0, 4.0, title, how_many(len(risk), "image"))
        axis = figure.subplots()
        share = 100 * np.arange(1, len(risk) + 1) / len(risk)
        axis.plot(share, 100 * (1 - risk), color=SERIES[5])
        for row in marked:
            x, y = 100 * row["kept"], 100 * row["accuracy"]
            axis.plot(x, y, "o", color=INK, ms=4)
            axis.annotate(f"{y:.1f}", (x, y), (5, 5), textcoords="offset points")
        axis.set(xlim=(0, 105), ylim=(None, 103))
        axis.set(xlabel="images that are answered, the surest first (%)", ylabel="accuracy (%)")
        axis.grid()
    return figure
