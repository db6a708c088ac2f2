"""Figures of where a network looks.

Saliency is shown as a multiple of an even map's: 1 is what a pixel would have if all had the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from fer.core import labels
from fer.core.words import how_many, percent
from fer.evaluation.explanation import REPLACEMENTS, Explanation
from fer.report.figures import (
    INK,
    MARKERS,
    SERIES,
    new_figure,
    picture_grid,
    plot_bars,
    style,
)

METHOD_NAMES: dict[str, str] = {
    "gradient": "plain gradient",
    "smoothgrad": "SmoothGrad",
    "integrated_gradients": "integrated gradients",
    "grad_cam": "Grad-CAM",
}
LOOKS: dict[str, dict[str, Any]] = {
    method: {"color": color, "marker": marker, "label": METHOD_NAMES[method]}
    for method, color, marker in zip(METHOD_NAMES, SERIES, MARKERS, strict=False)
}
"""The style of each method's line."""
HEAT = matplotlib.colormaps["YlOrRd"]
BRIGHTEST = 99.0
"""Percentile of the values that has the darkest red: single pixels would leave all others pale."""
KINDS = {"deletion": ("deletion to", "lower"), "insertion": ("insertion into", "higher")}
"""Each test's name, put before that of a replacement, and which area is better."""


# --- maps --------------------------------------------------------------------------------------


def class_maps(explanation: Explanation, *, title: str) -> Figure:
    """The mean map of each emotion and method over the mean face, on one scale."""
    present = _present(explanation)
    faces = [_gray(explanation.images[explanation.target == i]).mean(axis=0) for i in present]
    means = {
        method: [maps[explanation.target == i].mean(axis=0) * maps[0].size for i in present]
        for method, maps in explanation.maps.items()
    }
    top = max(2.0, float(np.percentile(list(means.values()), BRIGHTEST)))
    rows = {"mean face": [_overlay(face, None, top) for face in faces]}
    for method, maps in means.items():
        rows[METHOD_NAMES[method]] = [
            _overlay(face, values, top) for face, values in zip(faces, maps, strict=True)
        ]
    counts = explanation.summary["images"]["per_class"]
    names = [labels.EMOTIONS[i] for i in present]
    figure = picture_grid(
        rows,
        [f"{emotion}\n{how_many(counts[emotion], 'image')}" for emotion in names],
        title=title,
        subtitle=f"{how_many(len(explanation.target), 'correctly recognised image')} · mean map "
        "over the mean face · one scale for all · boxes: regions",
        boxes=list(explanation.summary["options"]["regions"].values()),
        foot=0.75,
    )
    _add_colour_bar(figure, top)
    return figure


def _add_colour_bar(figure: Figure, top: float) -> None:
    """A scale from 0 to ``top`` in the empty foot of a grid of pictures."""
    width, height = figure.get_size_inches()
    place = figure.add_axes((1.42 / width, 0.55 / height, min(4.5 / width, 0.6), 0.14 / height))
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, top), HEAT), cax=place, orientation="horizontal"
    )
    bar.set_label("saliency, as a multiple of an even map's (1: as much as the mean pixel)", size=9)
    bar.outline.set_visible(False)


def examples(explanation: Explanation, *, title: str) -> Figure:
    """One image of each emotion with the map of each method, each map on its own scale."""
    present = _present(explanation)
    first = [int(np.flatnonzero(explanation.target == index)[0]) for index in present]
    faces = _gray(explanation.images[first])
    rows = {"image": [_overlay(face, None, 1.0) for face in faces]}
    for method, maps in explanation.maps.items():
        rows[METHOD_NAMES[method]] = list(map(_own_scale, faces, maps[first]))
    subtitle = (
        f"{how_many(len(first), 'correctly recognised image')}, picked by a fixed seed · each map "
        "on its own scale"
    )
    return picture_grid(rows, [labels.EMOTIONS[i] for i in present], title=title, subtitle=subtitle)


def confusions(explanation: Explanation, *, title: str) -> Figure:
    """Images of the most frequent confusions with maps for the true and the predicted emotion."""
    methods = explanation.summary["methods"]
    rows = {}
    for confusion in explanation.confusions:
        emotions = confusion.true, confusion.predicted
        for n, face in enumerate(_gray(confusion.images)):
            true, predicted = (
                f"{emotion} {percent(confusion.probabilities[n][labels.INDEX[emotion]])}"
                for emotion in emotions
            )
            rows[f"{true}\n→ {predicted}"] = [
                _overlay(face, None, 1.0),
                *(
                    _own_scale(face, values)
                    for method in methods
                    for values in confusion.maps[method][n]
                ),
            ]
    columns = ["image"]
    for method in methods:
        name = METHOD_NAMES[method].replace(" ", "\n")
        columns += [f"{name}\nfor true", f"{name}\nfor predicted"]
    subtitle = (
        f"{how_many(len(rows), 'wrongly recognised image')}, picked by a fixed seed · left: true "
        "and predicted emotion with their probabilities · each map on its own scale"
    )
    return picture_grid(rows, columns, title=title, subtitle=subtitle)


def _present(explanation: Explanation) -> list[int]:
    """The emotions that have an image."""
    return [i for i in range(labels.NUM_CLASSES) if (explanation.target == i).any()]


def _gray(images: np.ndarray) -> np.ndarray:
    """``(N, H, W, C)`` uint8 as gray ``(N, H, W)``, 0–1."""
    return images.mean(axis=3) / 255


def _own_scale(face: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map over its face; its top percentile is the darkest red; an even map leaves it pale."""
    if np.ptp(values) <= 1e-6 * values.max():
        return _overlay(face, None, 1.0)
    return _overlay(face, values, float(np.percentile(values, BRIGHTEST)) or float(values.max()))


def _overlay(face: np.ndarray, values: np.ndarray | None, top: float) -> np.ndarray:
    """``(H, W, 3)``: a map over a pale face; the more salient, the less of the face is seen."""
    pale = np.repeat(face[..., None], 3, axis=2)
    if values is None:
        return pale
    strength = np.clip(values / top, 0, 1)
    opacity = 0.25 + 0.65 * strength[..., None]
    return np.clip((1 - opacity) * pale + opacity * HEAT(strength)[..., :3], 0, 1)


# --- regions -----------------------------------------------------------------------------------


def region_bars(report: Mapping[str, Any], images: int, *, title: str) -> Figure:
    """The share of saliency in each region by method, with the region's share of the area.

    ``report`` is ``regions.standard`` or ``regions.drawn`` of the summary.
    """
    areas = report["area"]
    shares = {
        method: [found["all"][region] for region in areas]
        for method, found in report["methods"].items()
    }
    return _bars(list(areas), list(areas.values()), shares, images, title)


def expressive_bars(report: Mapping[str, Any], *, title: str) -> Figure:
    """The share of saliency in the regions that make each expression, with their area."""
    entries = report["expressive"]
    names = ["\n".join([emotion, *entry["regions"]]) for emotion, entry in entries.items()]
    areas = [entry["area"] for entry in entries.values()]
    shares = {
        method: [entry["methods"][method]["share"] for entry in entries.values()]
        for method in report["methods"]
    }
    images = sum(entry["images"] for entry in entries.values())
    return _bars(names, areas, shares, images, title)


def _bars(
    names: Sequence[str],
    areas: Sequence[float],
    shares: Mapping[str, Sequence[float]],
    images: int,
    title: str,
) -> Figure:
    """Grouped bars of shares of saliency with the share of the area marked across each group."""
    subtitle = (
        f"{how_many(images, 'correctly recognised image')} · black line: share of the area, which "
        "an even map would have"
    )
    series = {METHOD_NAMES[method]: values for method, values in shares.items()}
    highest = 100 * max([*areas, *(max(values) for values in shares.values())])
    with style():
        figure = new_figure(9.0, 4.3, title, subtitle)
        axis = figure.subplots()
        plot_bars(axis, series, [LOOKS[method]["color"] for method in shares], names)
        positions, heights = np.arange(len(areas)), 100 * np.array(areas)
        axis.hlines(heights, positions - 0.44, positions + 0.44, color=INK, lw=2)
        handles, _ = axis.get_legend_handles_labels()
        handles.append(Line2D([], [], color=INK, lw=2, label="share of the area"))
        axis.set(ylim=(0, min(105.0, 1.12 * highest)), ylabel="share of saliency (%)")
        axis.yaxis.set_major_locator(MultipleLocator(10))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


# --- checks ------------------------------------------------------------------------------------


def faithfulness_curves(found: Mapping[str, Any], *, title: str) -> Figure:
    """Probability of the explained emotion while pixels are deleted and inserted.

    A row for each replacement of deleted pixels; ``found`` is ``faithfulness`` of the summary.
    """
    subtitle = (
        f"{how_many(found['images'], 'correctly recognised image')} · dashed: random order of the "
        "pixels · in brackets: area under the curve, + clearly better than random, − clearly worse"
    )
    rows = found["replacements"]
    with style():
        figure = new_figure(9.6, 3.9 * len(rows), title, subtitle)
        axes = figure.subplots(len(rows), 2, sharex=True, sharey=True, squeeze=False)
        for (name, own), line in zip(rows.items(), axes, strict=True):
            for axis, (kind, (test, good)) in zip(line, KINDS.items(), strict=True):
                _plot_probabilities(axis, own, kind)
                axis.set_title(f"{test} {REPLACEMENTS[name]}: {good} is better")
            line[0].set_ylabel("mean probability of the emotion (%)")
        for axis, done in zip(axes[-1], ("deleted", "inserted"), strict=True):
            axis.set_xlabel(f"pixels {done}, the most salient first (%)")
        axes[0, 0].set(xlim=(0, 100), ylim=(0, 100))
    return figure


def _plot_probabilities(axis: Axes, own: Mapping[str, Any], kind: str) -> None:
    signs = {"better": " +", "worse": " −"}
    lines = {**own["methods"], "random": own["random"]}
    for method, results in lines.items():
        curve, area = results[kind]["curve"], f"{results[kind]['auc']:.3f}"
        look: dict[str, Any] = {"color": INK, "ls": "--", "label": f"random map ({area})"}
        if method != "random":
            sign = signs.get(results[kind]["gain"]["verdict"], "")
            label = f"{METHOD_NAMES[method]} ({area}{sign})"
            look = {**LOOKS[method], "markersize": 3.5, "label": label}
        axis.plot(np.linspace(0, 100, len(curve)), 100 * np.array(curve), linewidth=1.5, **look)
    axis.grid(True)
    axis.legend(loc="upper right" if kind == "deletion" else "upper left", fontsize=8.5)


def sanity_curves(found: Mapping[str, Any], *, title: str) -> Figure:
    """Rank correlation with the trained network's maps while weights become random.

    ``found`` is ``sanity`` of the summary.
    """
    stages = found["stages"]
    subtitle = (
        f"{how_many(found['images'], 'correctly recognised image')} · mean rank correlation with "
        "the map of the trained network · from left to right, one more part has random weights"
    )
    lowest = 0.0
    with style():
        figure = new_figure(9.0, 4.2, title, subtitle)
        axis = figure.subplots()
        for method, results in found["methods"].items():
            points = {k: c for k, c in enumerate(results["correlation"]) if c is not None}
            lowest = min([lowest, *points.values()])
            axis.plot(
                list(points), list(points.values()), markersize=5, linewidth=1.8, **LOOKS[method]
            )
        axis.axhline(0, color=INK, linewidth=1, linestyle=":")
        axis.set_xticks(range(len(stages)), [stages[0], *(f"+ {s}" for s in stages[1:])])
        axis.set(
            xlabel="parts with random weights",
            ylabel="rank correlation (Spearman)",
            ylim=(lowest - 0.05, 1.03),
        )
        axis.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=len(found["methods"]))
    return figure
