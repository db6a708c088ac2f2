"""Sections on where a network looks, made of an ``Explanation``.

``saliency.html.j2`` holds the sentences.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer.core import labels
from fer.core.words import ABSENT, how_many, percent
from fer.evaluation.explanation import (
    REPLACEMENTS,
    Curve,
    Explanation,
    Faithfulness,
    RegionReport,
    Replaced,
    Saliency,
    Sanity,
)
from fer.report.figures import (
    INK,
    MARKERS,
    SERIES,
    Look,
    Tile,
    new_figure,
    picture_grid,
    save,
    style,
)
from fer.report.page import Cell, Content, Section, Table, make_table, percent_cell, render

METHOD_NAMES: dict[str, str] = {
    "gradient": "plain gradient",
    "smoothgrad": "SmoothGrad",
    "integrated_gradients": "integrated gradients",
    "grad_cam": "Grad-CAM",
}
LOOKS: dict[str, Look] = {
    method: {"color": color, "marker": marker, "label": METHOD_NAMES[method]}
    for method, color, marker in zip(METHOD_NAMES, SERIES, MARKERS, strict=False)
}
"""The style of each method's line."""
HEAT = matplotlib.colormaps["YlOrRd"]
BRIGHTEST = 99.0
"""Percentile of the values that has the darkest red: single pixels would leave all others pale."""
KINDS = {"deletion": ("deletion to", "lower"), "insertion": ("insertion into", "higher")}
"""Each test's name, put before that of a replacement, and which area is better."""
VERDICTS = {"better": "yes", "worse": "no, worse", "not better": "no", None: "too few images"}


def class_maps(explanation: Explanation, *, title: str) -> Figure:
    """The mean map of each emotion and method over the mean face, on one scale."""
    present = _present(explanation)
    faces = [_gray(explanation.images[explanation.target == i]).mean(axis=0) for i in present]
    means = {
        method: [maps[explanation.target == i].mean(axis=0) * maps[0].size for i in present]
        for method, maps in explanation.maps.items()
    }
    top = max(2.0, float(np.percentile(list(means.values()), BRIGHTEST)))
    rows = [("mean face", [_overlay(face, None) for face in faces])]
    for method, maps in means.items():
        tiles = [_overlay(face, values, top) for face, values in zip(faces, maps, strict=True)]
        rows.append((METHOD_NAMES[method], tiles))
    counts = explanation.summary["images"]["per_class"]
    names = [labels.EMOTIONS[i] for i in present]
    return picture_grid(
        rows,
        [f"{emotion}\n{how_many(counts[emotion], 'image')}" for emotion in names],
        title=title,
        subtitle=f"{_recognised(len(explanation.target))} · mean map over the mean face · the "
        f"darkest red, for all: {top:.1f} times an even map's saliency or more · boxes: regions",
        boxes=list(explanation.summary["options"]["regions"].values()),
    )


def _recognised(images: int) -> str:
    return how_many(images, "correctly recognised image")


def examples(explanation: Explanation, *, title: str) -> Figure:
    """One image of each emotion with the map of each method, each map on its own scale."""
    present = _present(explanation)
    first = [int(np.flatnonzero(explanation.target == index)[0]) for index in present]
    faces = _gray(explanation.images[first])
    rows = [("image", [_overlay(face, None) for face in faces])]
    for method, maps in explanation.maps.items():
        rows.append((METHOD_NAMES[method], list(map(_overlay, faces, maps[first]))))
    subtitle = f"{_recognised(len(first))}, picked by a fixed seed · each map on its own scale"
    return picture_grid(rows, [labels.EMOTIONS[i] for i in present], title=title, subtitle=subtitle)


def confusions(explanation: Explanation, *, title: str) -> Figure:
    """Images of the most frequent confusions with maps for the true and the predicted emotion."""
    methods = explanation.summary["methods"]
    rows = []
    for confusion in explanation.confusions:
        emotions = confusion.true, confusion.predicted
        for n, face in enumerate(_gray(confusion.images)):
            true, predicted = (
                f"{emotion} {percent(confusion.probabilities[n][labels.INDEX[emotion]])}"
                for emotion in emotions
            )
            maps = [one for method in methods for one in confusion.maps[method][n]]
            rows.append((f"{true}\n→ {predicted}", [_overlay(face, one) for one in (None, *maps)]))
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


def _overlay(face: np.ndarray, values: np.ndarray | None, top: float | None = None) -> Tile:
    """A map over a pale face; the more salient, the less of the face is seen.

    Args:
        face: ``(H, W)``, 0–1.
        values: ``(H, W)``; None for the face alone.
        top: has the darkest red; None for the map's own top percentile. On its own scale an even
            map leaves the face pale.
    """
    pale = np.repeat(face[..., None], 3, axis=2)
    if values is None or (top is None and np.ptp(values) <= 1e-6 * values.max()):
        return Tile(pale)
    if top is None:
        top = float(np.percentile(values, BRIGHTEST)) or float(values.max())
    strength = np.clip(values / top, 0, 1)
    opacity = 0.25 + 0.65 * strength[..., None]
    return Tile(np.clip((1 - opacity) * pale + opacity * HEAT(strength)[..., :3], 0, 1))


def faithfulness_curves(found: Faithfulness, *, title: str) -> Figure:
    """Probability of the explained emotion while pixels are deleted and inserted.

    A row for each replacement of deleted pixels; ``found`` is ``faithfulness`` of the summary.
    """
    subtitle = (
        f"{_recognised(found['images'])} · dashed: random order of the "
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


def _plot_probabilities(axis: Axes, own: Replaced, kind: str) -> None:
    signs: dict[str | None, str] = {"better": " +", "worse": " −"}
    lines = {**own["methods"], "random": own["random"]}
    for method, results in lines.items():
        curve, area = results[kind]["curve"], f"{results[kind]['auc']:.3f}"
        look: Look = {"color": INK, "ls": "--", "label": f"random map ({area})"}
        if method != "random":
            sign = signs.get(results[kind]["gain"]["verdict"], "")
            label = f"{METHOD_NAMES[method]} ({area}{sign})"
            look = {**LOOKS[method], "markersize": 3.5, "label": label}
        axis.plot(np.linspace(0, 100, len(curve)), 100 * np.array(curve), linewidth=1.5, **look)
    axis.grid(True)
    axis.legend(loc="upper right" if kind == "deletion" else "upper left", fontsize=8.5)


def sanity_curves(found: Sanity, *, title: str) -> Figure:
    """Rank correlation with the trained network's maps while weights become random.

    ``found`` is ``sanity`` of the summary.
    """
    stages = found["stages"]
    subtitle = (
        f"{_recognised(found['images'])} · mean rank correlation with "
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


# --- sections -----------------------------------------------------------------------------------


def saliency_section(folder: Path, explanation: Explanation, shown: str) -> Section:
    """Write every figure into ``folder/figures/saliency_*.png`` and put the sections together."""
    summary = explanation.summary
    found, sanity = summary["faithfulness"], summary["sanity"]
    plots = {
        "class_maps": class_maps(explanation, title=f"Mean saliency of each emotion: {shown}"),
        "examples": examples(explanation, title=f"Saliency of single images: {shown}"),
        "faithfulness": faithfulness_curves(found, title=f"Deletion and insertion: {shown}"),
        "sanity": sanity_curves(sanity, title=f"Maps of networks with random weights: {shown}"),
    }
    if summary["confusions"]:
        title = f"Saliency of confusions: {shown}"
        plots["confusions"] = confusions(explanation, title=title)
    return render(
        "saliency.html.j2",
        files={
            name: save(figure, folder / "figures" / f"saliency_{name}.png")
            for name, figure in plots.items()
        },
        shown=shown,
        summary=summary,
        images=len(explanation.target),
        confused=sum(len(confusion.images) for confusion in explanation.confusions),
        regions={
            words: (
                _region_table(report, kind),
                _expressive_table(report, kind) if report["expressive"] else None,
            )
            for kind, words, report in (
                ("standard", "regions in fixed boxes", summary["regions"]["standard"]),
                ("drawn", "regions as drawn", summary["regions"]["drawn"]),
            )
            if report is not None
        },
        checks=checks_table(summary),
    )


def _region_table(report: RegionReport, kind: str) -> Table:
    """The share of the saliency in each region, beside its share of the area."""
    methods = report["methods"]
    rows = [
        [
            Cell(region),
            *map(percent_cell, (area, *(own["all"][region] for own in methods.values()))),
        ]
        for region, area in report["area"].items()
    ]
    columns = ["Region", "Area", *(_upper(METHOD_NAMES[method]) for method in methods)]
    return Table(f"saliency-regions-{kind}", columns, rows)


def _expressive_table(report: RegionReport, kind: str) -> Table:
    """The share of the saliency in the regions that make each expression."""
    rows = []
    for emotion, entry in report["expressive"].items():
        regions, area = ", ".join(entry["regions"]), percent_cell(entry["area"])
        cells: list[Content] = [emotion, Cell(regions, words=True), entry["images"], area]
        for found in entry["methods"].values():
            ratio = ABSENT if found["ratio"] is None else format(found["ratio"], ".2f")
            cells.append(percent_cell(found["share"], f"{ratio} ×"))
        rows.append(cells)
    names = [_upper(METHOD_NAMES[method]) for method in report["methods"]]
    columns = ["Emotion", "Regions", "Images", "Area", *names]
    return make_table(f"saliency-expressive-{kind}", columns, rows)


def checks_table(summary: Saliency) -> Table:
    """The checks of each method's maps: areas under the curves, verdicts, correlation."""
    found, sanity = summary["faithfulness"], summary["sanity"]
    tests = [(kind, name) for kind in KINDS for name in found["replacements"]]
    rows = []
    for method in summary["methods"]:
        last = sanity["methods"][method]["correlation"][-1]
        results = [found["replacements"][name]["methods"][method][kind] for kind, name in tests]
        verdicts = [Cell(VERDICTS[found["verdicts"][method][kind]], words=True) for kind in KINDS]
        cells = [Cell(METHOD_NAMES[method]), *map(_area_cell, results), *verdicts]
        rows.append([*cells, Cell(ABSENT if last is None else f"{last:.2f}")])
    chance = [found["replacements"][name]["random"][kind] for kind, name in tests]
    rows.append([Cell("random map"), *map(_area_cell, chance), *[Cell(ABSENT)] * (len(KINDS) + 1)])
    columns = [
        "Method",
        *(f"{_upper(KINDS[kind][0])} {REPLACEMENTS[name]}, area" for kind, name in tests),
        *(f"{_upper(kind)}: better than random?" for kind in KINDS),
        "Like the map of a random network",
    ]
    return Table("saliency-checks", columns, rows)


def _area_cell(result: Curve) -> Cell:
    """Area under a curve, with the gain over random maps where there is one."""
    gain, detail = result.get("gain"), None
    if gain is not None and gain["interval"] is not None:
        low, high = gain["interval"]
        detail = f"{gain['mean']:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    return Cell(f"{result['auc']:.3f}", detail)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
