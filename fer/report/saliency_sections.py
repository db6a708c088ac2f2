"""Figures and sections of where a network looks, made of an ``Explanation``.

Saliency is shown as a multiple of an even map's: 1 is what a pixel would have if all had the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from fer.core import labels
from fer.core.words import ABSENT, how_many, percent
from fer.evaluation.explanation import REPLACEMENTS, Explanation
from fer.report import figures
from fer.report.figures import INK, new_figure, style
from fer.report.page import Cell, FigureEntry, Section, Table

METHOD_NAMES: dict[str, str] = {
    "gradient": "plain gradient",
    "smoothgrad": "SmoothGrad",
    "integrated_gradients": "integrated gradients",
    "grad_cam": "Grad-CAM",
}
METHOD_COLORS: dict[str, str] = {
    "gradient": "#0072B2",
    "smoothgrad": "#009E73",
    "integrated_gradients": "#D55E00",
    "grad_cam": "#CC79A7",
}
MARKERS: dict[str, str] = {  # for gray print
    "gradient": "o",
    "smoothgrad": "s",
    "integrated_gradients": "^",
    "grad_cam": "D",
}
HEAT = matplotlib.colormaps["YlOrRd"]
BRIGHTEST = 99.0
"""Percentile of the values that has the darkest red: single pixels would leave all others pale."""
KINDS = {"deletion": ("deletion to", "lower"), "insertion": ("insertion into", "higher")}
"""Of each test: its name before that of a replacement, and which area is better."""
VERDICTS = {"better": "yes", "worse": "no, worse", "not better": "no", None: "too few images"}
ALIKE = 0.3
"""A rank correlation above this, with every weight random, is remarked on."""


# --- figures -----------------------------------------------------------------------------------


def class_maps(explanation: Explanation, *, title: str) -> Figure:
    """The mean map of each emotion and method over the mean face, on one scale.

    Args:
        explanation: of a network.
        title: of which network on what; the number of images is added below it.
    """
    present = _present(explanation)
    faces = [_gray(explanation.images[explanation.target == i]).mean(axis=0) for i in present]
    means = {
        method: [_relative(maps[explanation.target == i].mean(axis=0)) for i in present]
        for method, maps in explanation.maps.items()
    }
    top = max(2.0, float(np.percentile(list(means.values()), BRIGHTEST)))
    rows = [("mean face", [_overlay(face, None, top) for face in faces])]
    for method, maps in means.items():
        pictures = [_overlay(face, values, top) for face, values in zip(faces, maps, strict=True)]
        rows.append((METHOD_NAMES[method], pictures))
    counts = explanation.summary["images"]["per_class"]
    columns = [
        f"{emotion}\n{how_many(counts[emotion], 'image')}"
        for emotion in (labels.EMOTIONS[i] for i in present)
    ]
    subtitle = (
        f"{how_many(len(explanation.target), 'correctly recognised image')} · mean map over the "
        "mean face · one scale for all · boxes: regions"
    )
    boxes = list(explanation.summary["options"]["regions"].values())
    return _picture_grid(rows, columns, title, subtitle, top, boxes)


def examples(explanation: Explanation, *, title: str) -> Figure:
    """One image of each emotion with the map of each method, each map on its own scale."""
    present = _present(explanation)
    first = [int(np.flatnonzero(explanation.target == index)[0]) for index in present]
    faces = _gray(explanation.images[first])
    rows = [("image", [_overlay(face, None, 1.0) for face in faces])]
    for method, maps in explanation.maps.items():
        rows.append(
            (
                METHOD_NAMES[method],
                [_own_scale(face, values) for face, values in zip(faces, maps[first], strict=True)],
            )
        )
    columns = [labels.EMOTIONS[index] for index in present]
    subtitle = (
        f"{how_many(len(first), 'correctly recognised image')}, picked by a fixed seed · each map "
        "on its own scale"
    )
    return _picture_grid(rows, columns, title, subtitle, None)


def confusions(explanation: Explanation, *, title: str) -> Figure:
    """Images of the most frequent confusions with maps for the true and the predicted emotion."""
    methods = explanation.summary["methods"]
    rows = []
    for confusion in explanation.confusions:
        true, predicted = labels.INDEX[confusion.true], labels.INDEX[confusion.predicted]
        for n, face in enumerate(_gray(confusion.images)):
            p = confusion.probabilities[n]
            label = (
                f"{confusion.true} {percent(p[true])}\n→ {confusion.predicted} "
                f"{percent(p[predicted])}"
            )
            pictures = [_overlay(face, None, 1.0)]
            for method in methods:
                pictures += [_own_scale(face, values) for values in confusion.maps[method][n]]
            rows.append((label, pictures))
    columns = ["image"]
    for method in methods:
        name = METHOD_NAMES[method].replace(" ", "\n")
        columns += [f"{name}\nfor true", f"{name}\nfor predicted"]
    subtitle = (
        f"{how_many(len(rows), 'wrongly recognised image')}, picked by a fixed seed · left: true "
        "and predicted emotion with their probabilities · each map on its own scale"
    )
    return _picture_grid(rows, columns, title, subtitle, None)


def region_bars(report: Mapping[str, Any], images: int, *, title: str) -> Figure:
    """The share of saliency in each region by method, with the region's share of the area.

    Args:
        report: ``regions.standard`` or ``regions.drawn`` of the summary.
        images: how many.
        title: of which network on what; the number of images is added below it.
    """
    regions = list(report["area"])
    areas = [report["area"][region] for region in regions]
    shares = {
        method: [found["all"][region] for region in regions]
        for method, found in report["methods"].items()
    }
    return _bars(regions, areas, shares, images, title)


def expressive_bars(report: Mapping[str, Any], *, title: str) -> Figure:
    """The share of saliency in the regions that make each expression, with their area.

    Args:
        report: ``regions.standard`` or ``regions.drawn`` of the summary.
        title: of which network on what; the number of images is added below it.
    """
    entries = report["expressive"]
    names = ["\n".join([emotion, *entry["regions"]]) for emotion, entry in entries.items()]
    areas = [entry["area"] for entry in entries.values()]
    shares = {
        method: [entry["methods"][method]["share"] for entry in entries.values()]
        for method in report["methods"]
    }
    images = sum(entry["images"] for entry in entries.values())
    return _bars(names, areas, shares, images, title)


def faithfulness_curves(found: Mapping[str, Any], *, title: str) -> Figure:
    """Probability of the explained emotion while pixels are deleted and inserted.

    A row for each replacement of deleted pixels.

    Args:
        found: ``faithfulness`` of the summary.
        title: of which network on what; the number of images is added below it.
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
            for axis, kind in zip(line, KINDS, strict=True):
                _draw_curves(axis, own, kind)
                test, good = KINDS[kind]
                axis.set_title(f"{test} {REPLACEMENTS[name]}: {good} is better")
            line[0].set_ylabel("mean probability of the emotion (%)")
        for axis, done in zip(axes[-1], ("deleted", "inserted"), strict=True):
            axis.set_xlabel(f"pixels {done}, the most salient first (%)")
        axes[0, 0].set(xlim=(0, 100), ylim=(0, 100))
    return figure


def _draw_curves(axis: Axes, own: Mapping[str, Any], kind: str) -> None:
    signs = {"better": " +", "worse": " −"}
    for method, results in own["methods"].items():
        curve, sign = results[kind]["curve"], signs.get(results[kind]["gain"]["verdict"], "")
        axis.plot(
            np.linspace(0, 100, len(curve)),
            [100 * value for value in curve],
            color=METHOD_COLORS[method],
            marker=MARKERS[method],
            markersize=3.5,
            linewidth=1.6,
            label=f"{METHOD_NAMES[method]} ({results[kind]['auc']:.3f}{sign})",
        )
    curve = own["random"][kind]["curve"]
    axis.plot(
        np.linspace(0, 100, len(curve)),
        [100 * value for value in curve],
        color=INK,
        linestyle="--",
        linewidth=1.4,
        label=f"random map ({own['random'][kind]['auc']:.3f})",
    )
    axis.grid(True)
    axis.legend(loc="upper right" if kind == "deletion" else "upper left", fontsize=8.5)


def sanity_curves(found: Mapping[str, Any], *, title: str) -> Figure:
    """Rank correlation with the trained network's maps while weights become random.

    Args:
        found: ``sanity`` of the summary.
        title: of which network on what; the number of images is added below it.
    """
    stages = found["stages"]
    subtitle = (
        f"{how_many(found['images'], 'correctly recognised image')} · mean rank correlation with "
        "the map of the trained network · from left to right, one more part has random weights"
    )
    with style():
        figure = new_figure(9.0, 4.2, title, subtitle)
        axis = figure.subplots()
        lowest = 0.0
        for method, results in found["methods"].items():
            points = [(k, c) for k, c in enumerate(results["correlation"]) if c is not None]
            lowest = min([lowest, *(c for _, c in points)])
            axis.plot(
                [k for k, _ in points],
                [c for _, c in points],
                color=METHOD_COLORS[method],
                marker=MARKERS[method],
                markersize=5,
                linewidth=1.8,
                label=METHOD_NAMES[method],
            )
        axis.axhline(0, color=INK, linewidth=1, linestyle=":")
        names = [stages[0], *(f"+ {stage}" if k else stage for k, stage in enumerate(stages[1:]))]
        axis.set_xticks(range(len(stages)), names)
        axis.set(
            xlabel="parts with random weights",
            ylabel="rank correlation (Spearman)",
            ylim=(lowest - 0.05, 1.03),
        )
        axis.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=len(found["methods"]))
    return figure


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
    width = 0.8 / len(shares)
    with style():
        figure = new_figure(9.0, 4.3, title, subtitle)
        axis = figure.subplots()
        highest = 0.0
        for number, (method, values) in enumerate(shares.items()):
            for position, share in enumerate(values):
                highest = max(highest, 100 * share)
                x = position - 0.4 + (number + 0.5) * width
                axis.bar(
                    x,
                    100 * share,
                    width=0.92 * width,
                    color=METHOD_COLORS[method],
                    label=METHOD_NAMES[method] if position == 0 else None,
                )
                axis.annotate(
                    f"{100 * share:.0f}",
                    (x, 100 * share),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    size=8.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
                )
        for position, area in enumerate(areas):
            highest = max(highest, 100 * area)
            axis.plot([position - 0.44, position + 0.44], [100 * area] * 2, color=INK, lw=2)
        handles, _ = axis.get_legend_handles_labels()
        handles.append(Line2D([], [], color=INK, lw=2, label="share of the area"))
        axis.set_xticks(range(len(names)), names)
        axis.tick_params(axis="x", length=0, labelsize=10)
        axis.set_ylim(0, min(105.0, 1.12 * highest))
        axis.yaxis.set_major_locator(MultipleLocator(10))
        axis.set_ylabel("share of saliency (%)")
        axis.grid(axis="y")
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _picture_grid(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    columns: Sequence[str],
    title: str,
    subtitle: str,
    top: float | None,
    boxes: Sequence[Sequence[float]] = (),
) -> Figure:
    """Pictures in rows and columns with their names; a colour bar up to ``top`` if it is given.

    ``boxes`` (x1, y1, x2, y2 as shares of the side) are outlined in the first row.
    """
    # All lengths in inches. One axes for all pictures draws much faster than one for each.
    side, gap, margin = 1.04, 0.07, 1.42
    head = 0.19 * (1 + max(name.count("\n") for name in columns))
    foot = 0.75 if top is not None else 0.1
    page = margin + len(columns) * (side + gap) + 0.1
    body = head + len(rows) * (side + gap) + foot
    with style():
        figure = new_figure(page, body, title, subtitle, constrained=False)
        share = body / figure.get_figheight()
        axis = figure.add_axes((0, 0, 1, share))
        for column, name in enumerate(columns):
            x = margin + column * (side + gap) + side / 2
            for line, words in enumerate(reversed(name.split("\n"))):  # on common baselines
                axis.text(x, head - 0.1 - 0.18 * line, words, ha="center", va="baseline", size=9)
        for row, (name, pictures) in enumerate(rows):
            y = head + row * (side + gap)
            words = name if "\n" in name else name.replace(" ", "\n")
            axis.text(margin - 0.1, y + side / 2, words, ha="right", va="center", size=9)
            for column, picture in enumerate(pictures):
                x = margin + column * (side + gap)
                axis.imshow(picture, extent=(x, x + side, y + side, y), interpolation="nearest")
                for x1, y1, x2, y2 in boxes if row == 0 else ():
                    corner = (x + x1 * side, y + y1 * side)
                    width, height = (x2 - x1) * side, (y2 - y1) * side
                    axis.add_patch(
                        Rectangle(corner, width, height, fill=False, edgecolor="white", lw=0.8)
                    )
        axis.set(xlim=(0, page), ylim=(body, 0), aspect="auto")
        axis.set_axis_off()
        if top is not None:
            _colour_bar(figure, page, foot, margin, top)
    return figure


def _colour_bar(figure: Figure, page: float, foot: float, margin: float, top: float) -> None:
    height = figure.get_figheight()
    length = min(4.5, page - margin - 0.5)
    place = figure.add_axes((margin / page, (foot - 0.2) / height, length / page, 0.14 / height))
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, top), HEAT), cax=place, orientation="horizontal"
    )
    bar.set_label("saliency, as a multiple of an even map's (1: as much as the mean pixel)", size=9)
    bar.outline.set_visible(False)


# --- pictures ----------------------------------------------------------------------------------


def _present(explanation: Explanation) -> list[int]:
    """The emotions that have an image."""
    return [i for i in range(labels.NUM_CLASSES) if (explanation.target == i).any()]


def _gray(images: np.ndarray) -> np.ndarray:
    """``(N, H, W, C)`` uint8 as gray ``(N, H, W)``, 0–1."""
    return images.mean(axis=3) / 255


def _relative(values: np.ndarray) -> np.ndarray:
    """A map with a sum of 1 as multiples of an even one."""
    return values * values.size


def _own_scale(face: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map over its face; its highest percentile is the darkest red. An even map is not drawn."""
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


# --- pages -------------------------------------------------------------------------------------


def saliency_section(
    folder: Path, explanation: Explanation, dataset_name: str, split: str
) -> list[Section]:
    """Draw every figure into ``folder/figures/saliency_*.png`` and put the sections together.

    Args:
        folder: of the run.
        explanation: of its network.
        dataset_name: whose images.
        split: ``train``, ``val`` or ``test``.
    """
    shown = f"{dataset_name}, {split}"
    return [
        _maps_section(folder, explanation, shown),
        *_confusions_section(folder, explanation, shown),
        _regions_section(folder, explanation, shown),
        _belief_section(folder, explanation, shown),
    ]


def _entry(folder: Path, figure: Figure, name: str, title: str, caption: str) -> FigureEntry:
    path = figures.save(figure, folder / "figures" / f"saliency_{name}.png")
    return FigureEntry(path, title, caption)


def _maps_section(folder: Path, explanation: Explanation, shown: str) -> Section:
    count = len(explanation.target)
    images = how_many(count, "image")
    text = [
        "A saliency map says how much each pixel bears on the score of an emotion. The maps are "
        f"of {images} of {shown} that the network recognises, the same number of each emotion as "
        "far as they reach, picked by a fixed seed.",
        *explanation.summary["notes"],
    ]
    return Section(
        "Where the network looks",
        text,
        figures=[
            _entry(
                folder,
                class_maps(explanation, title=f"Mean saliency of each emotion: {shown}"),
                "class_maps",
                "Mean saliency of each emotion",
                f"{images}. Red pixels bear the most on the emotion. The faces do not all lie at "
                "the same place, which blurs the means. Boxes: brows, eyes, nose and mouth "
                "of a frontal face.",
            ),
            _entry(
                folder,
                examples(explanation, title=f"Saliency of single images: {shown}"),
                "examples",
                "Saliency of single images",
                "One image of each emotion, picked by a fixed seed. Each map has a scale of its "
                "own: places can be compared between maps, amounts cannot. A face without colours: "
                "the method finds nothing that speaks for the emotion.",
            ),
        ],
    )


def _confusions_section(folder: Path, explanation: Explanation, shown: str) -> list[Section]:
    entries = explanation.summary["confusions"]
    if not entries:
        text = ["The network made no mistake on these images: there is no confusion to explain."]
        return [Section("Why emotions are confused", text)]
    rows = [
        [
            Cell(f"{entry['true']} → {entry['predicted']}"),
            Cell(f"{entry['images']:,}", entry["images"]),
            Cell(percent(entry["share_of_true"]), entry["share_of_true"]),
        ]
        for entry in entries
    ]
    columns = ["True → predicted", "Images", "Share of the true emotion's images"]
    count = sum(len(confusion.images) for confusion in explanation.confusions)
    return [
        Section(
            "Why emotions are confused",
            [
                "What speaks for the true emotion, and what for the one that the network names? "
                "Where the two maps differ is what tipped the balance; where they agree, the same "
                "features count for both or against one of them."
            ],
            [(Table("saliency-confusions", columns, rows), "The most frequent confusions.")],
            [
                _entry(
                    folder,
                    confusions(explanation, title=f"Saliency of confusions: {shown}"),
                    "confusions",
                    "Saliency of the most frequent confusions",
                    f"{how_many(count, 'image')} that the network takes for another emotion, with "
                    "the probabilities of the true and the predicted emotion at the left. A face "
                    "without colours: the method finds nothing that speaks for the emotion. Single "
                    "images: they illustrate and prove nothing.",
                )
            ],
        )
    ]


def _regions_section(folder: Path, explanation: Explanation, shown: str) -> Section:
    regions = explanation.summary["regions"]
    count = len(explanation.target)
    tables: list[tuple[Table, str]] = []
    drawn_figures: list[FigureEntry] = []
    text = [
        "The share of the saliency that lies in a region says little without the region's share "
        "of the area, which an even map would have. The boxes are at fixed places, right for a "
        "frontal face that fills the image; of turned faces they are only roughly right.",
        "The regions that make an expression are those that the action units of its prototype "
        "move (EMFACS); neutral has none.",
    ]
    kinds = [("standard", "boxes", "regions in fixed boxes")]
    if regions["drawn"] is not None:
        text.append(
            "These faces are drawn, so that it is known where brows, eyes, nose and mouth of each "
            "image are."
        )
        kinds.append(("drawn", "drawn", "regions as drawn"))
    for kind, suffix, words in kinds:
        report = regions[kind]
        drawn_figures.append(
            _entry(
                folder,
                region_bars(report, count, title=f"Saliency by region of the face: {shown}"),
                f"regions_{suffix}",
                f"Saliency by region ({words})",
                f"{how_many(count, 'image')}. A bar above the black line: more than its area's "
                "share.",
            )
        )
        tables.append((_region_table(report, suffix), f"All explained images, {words}."))
        if report["expressive"]:
            drawn_figures.append(
                _entry(
                    folder,
                    expressive_bars(
                        report, title=f"Saliency in the regions that make an expression: {shown}"
                    ),
                    f"expressive_{suffix}",
                    f"Saliency in the regions that make an expression ({words})",
                    _expressive_words(report),
                )
            )
            tables.append(
                (
                    _expressive_table(report, suffix),
                    f"Share of saliency in the regions that make each expression, {words}; small: "
                    "as a multiple of their share of the area.",
                )
            )
    return Section("Which parts of the face count", text, tables, drawn_figures)


def _expressive_words(report: Mapping[str, Any]) -> str:
    sentences = []
    for method in report["methods"]:
        ratios = [entry["methods"][method]["ratio"] for entry in report["expressive"].values()]
        above = sum(ratio is not None and ratio > 1 for ratio in ratios)
        sentences.append(f"{METHOD_NAMES[method]} {above} of {len(ratios)}")
    images = sum(entry["images"] for entry in report["expressive"].values())
    return (
        f"{how_many(images, 'image')}. Emotions whose expressive regions have more than their "
        f"area's share: {'; '.join(sentences)}."
    )


def _region_table(report: Mapping[str, Any], suffix: str) -> Table:
    rows = [
        [
            Cell(region),
            Cell(percent(area), area),
            *(
                Cell(percent(found["all"][region]), found["all"][region])
                for found in report["methods"].values()
            ),
        ]
        for region, area in report["area"].items()
    ]
    names = [_upper(METHOD_NAMES[method]) for method in report["methods"]]
    return Table(f"saliency-regions-{suffix}", ["Region", "Area", *names], rows)


def _expressive_table(report: Mapping[str, Any], suffix: str) -> Table:
    rows = []
    for emotion, entry in report["expressive"].items():
        cells = [
            Cell(emotion),
            Cell(", ".join(entry["regions"]), words=True),
            Cell(f"{entry['images']:,}", entry["images"]),
            Cell(percent(entry["area"]), entry["area"]),
        ]
        for found in entry["methods"].values():
            ratio = found["ratio"]
            detail = f"{ABSENT if ratio is None else f'{ratio:.2f}'} ×"
            cells.append(Cell(percent(found["share"]), found["share"], detail))
        rows.append(cells)
    names = [_upper(METHOD_NAMES[method]) for method in report["methods"]]
    columns = ["Emotion", "Regions", "Images", "Area", *names]
    return Table(f"saliency-expressive-{suffix}", columns, rows)


def _belief_section(folder: Path, explanation: Explanation, shown: str) -> Section:
    found, sanity = explanation.summary["faithfulness"], explanation.summary["sanity"]
    tests = [(kind, name) for kind in KINDS for name in found["replacements"]]
    rows = []
    for method in explanation.summary["methods"]:
        last = sanity["methods"][method]["correlation"][-1]
        results = [found["replacements"][name]["methods"][method][kind] for kind, name in tests]
        verdicts = [Cell(VERDICTS[found["verdicts"][method][kind]], words=True) for kind in KINDS]
        cells = [Cell(METHOD_NAMES[method]), *map(_area, results), *verdicts]
        rows.append([*cells, Cell(ABSENT if last is None else f"{last:.2f}", last)])
    chance = [found["replacements"][name]["random"][kind] for kind, name in tests]
    rows.append([Cell("random map"), *map(_area, chance), *[Cell(ABSENT)] * (len(KINDS) + 1)])
    columns = [
        "Method",
        *(f"{_upper(KINDS[kind][0])} {REPLACEMENTS[name]}, area" for kind, name in tests),
        *(f"{_upper(kind)}: better than random?" for kind in KINDS),
        "Like the map of a random network",
    ]
    below = (
        f"{how_many(found['images'], 'image')} for deletion and insertion: area under the curve; "
        "small: how much better than the random map of the same image, with the 95 % interval "
        "(Student's t over the images). Better than random: yes, if the interval lies above 0 for "
        "both replacements. Last column: rank correlation with the map of the same network with "
        f"random weights, {how_many(sanity['images'], 'image')}; 0 is good."
    )
    return Section(
        "Whether the maps can be believed",
        [
            "If a map shows what matters, the probability falls early while its most salient "
            "pixels are deleted and rises early while they are inserted (RISE, arXiv 1806.07421). "
            "What replaces a pixel matters as much as the map: a method whose maps start from the "
            "replacement, as integrated gradients do from the blurred image, would win by it. Here "
            "it is the image's mean gray and black, where no method starts, and only what holds "
            "under both is called better. Scattered random pixels are a low bar for insertion, "
            "where a smooth map's patches look more like a face, and a high one for deletion to "
            "black, where scattered black pixels do more harm than a patch.",
            "If a map shows what the network has learned, it changes when the weights become "
            "random (arXiv 1810.03292). A map that stays shows edges of the image.",
            *_sanity_words(sanity),
        ],
        [(Table("saliency-belief", columns, rows), below)],
        [
            _entry(
                folder,
                faithfulness_curves(found, title=f"Deletion and insertion: {shown}"),
                "faithfulness",
                "Deletion and insertion",
                f"{how_many(found['images'], 'image')}. {_faithfulness_words(found)}",
            ),
            _entry(
                folder,
                sanity_curves(sanity, title=f"Maps of networks with random weights: {shown}"),
                "sanity",
                "Maps of networks with random weights",
                f"{how_many(sanity['images'], 'image')}. The weights become random from the last "
                "part to the first, in one draw of them; the lower a line falls, the more its map "
                "depends on what the network has learned.",
            ),
        ],
    )


def _area(result: Mapping[str, Any]) -> Cell:
    """Area under a curve, with the gain over random maps where there is one."""
    gain, detail = result.get("gain"), None
    if gain is not None and gain["interval"] is not None:
        low, high = gain["interval"]
        detail = f"{gain['mean']:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    return Cell(f"{result['auc']:.3f}", result["auc"], detail)


def _faithfulness_words(found: Mapping[str, Any]) -> str:
    sentences = []
    for kind in KINDS:
        better = [
            METHOD_NAMES[method]
            for method, verdicts in found["verdicts"].items()
            if verdicts[kind] == "better"
        ]
        sentences.append(
            f"Better than random by {kind}, whatever replaces a pixel: "
            f"{', '.join(better) or 'no method'}."
        )
    return " ".join(sentences)


def _sanity_words(sanity: Mapping[str, Any]) -> list[str]:
    """A remark about each method whose map outlasts all weights."""
    remarks = []
    for method, results in sanity["methods"].items():
        last = results["correlation"][-1]
        if last is not None and last > ALIKE:
            remarks.append(
                f"With every weight random, the maps of {METHOD_NAMES[method]} still resemble "
                f"those of the trained network (rank correlation {last:.2f}): a part of what they "
                "show is the image itself, not what the network makes of it."
            )
    return remarks


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
