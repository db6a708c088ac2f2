"""Sections on where a network looks, made of an ``Explanation``.

``saliency.html.j2`` holds the sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fer.core.words import ABSENT
from fer.evaluation.explanation import REPLACEMENTS, Explanation
from fer.report import saliency_figures as figures
from fer.report.figures import save
from fer.report.page import Cell, Section, Table, count_cell, percent_cell, render
from fer.report.saliency_figures import KINDS, METHOD_NAMES

VERDICTS = {"better": "yes", "worse": "no, worse", "not better": "no", None: "too few images"}
ALIKE = 0.3
"""A rank correlation above this, with every weight random, is remarked on."""
REGIONS = {
    "standard": ("boxes", "regions in fixed boxes"),
    "drawn": ("drawn", "regions as drawn"),
}
"""Source of the regions of the face → ending of names, and the words for it."""


def saliency_section(folder: Path, explanation: Explanation, shown: str) -> Section:
    """Write every figure into ``folder/figures/saliency_*.png`` and put the sections together.

    Args:
        folder: of the run.
        explanation: of its network.
        shown: dataset and split.
    """
    summary = explanation.summary
    plots: dict[str, Figure] = {
        "class_maps": figures.class_maps(
            explanation, title=f"Mean saliency of each emotion: {shown}"
        ),
        "examples": figures.examples(explanation, title=f"Saliency of single images: {shown}"),
        "faithfulness": figures.faithfulness_curves(
            summary["faithfulness"], title=f"Deletion and insertion: {shown}"
        ),
        "sanity": figures.sanity_curves(
            summary["sanity"], title=f"Maps of networks with random weights: {shown}"
        ),
    }
    if summary["confusions"]:
        title = f"Saliency of confusions: {shown}"
        plots["confusions"] = figures.confusions(explanation, title=title)
    regions = []
    for kind, (suffix, words) in REGIONS.items():
        report = summary["regions"][kind]
        if report is not None:
            regions.append(_describe_regions(report, suffix, words))
            plots |= _plot_regions(report, suffix, len(explanation.target), shown)
    files = {
        name: save(figure, folder / "figures" / f"saliency_{name}.png")
        for name, figure in plots.items()
    }
    return render(
        "saliency.html.j2",
        files=files,
        shown=shown,
        summary=summary,
        images=len(explanation.target),
        confusions=confusion_table(summary["confusions"]) if summary["confusions"] else None,
        confused=sum(len(confusion.images) for confusion in explanation.confusions),
        regions=regions,
        checks=saliency_checks_table(summary),
        better={kind: _better(summary["faithfulness"], kind) for kind in KINDS},
        outlasting=outlasting(summary["sanity"]),
    )


def _plot_regions(
    report: Mapping[str, Any], suffix: str, images: int, shown: str
) -> dict[str, Figure]:
    title = f"Saliency by region of the face: {shown}"
    plots = {f"regions_{suffix}": figures.region_bars(report, images, title=title)}
    if report["expressive"]:
        title = f"Saliency in the regions that make an expression: {shown}"
        plots[f"expressive_{suffix}"] = figures.expressive_bars(report, title=title)
    return plots


def _describe_regions(report: Mapping[str, Any], suffix: str, words: str) -> dict[str, Any]:
    entries = report["expressive"].values()
    ratios = {
        METHOD_NAMES[method]: [entry["methods"][method]["ratio"] for entry in entries]
        for method in report["methods"]
    }
    return {
        "suffix": suffix,
        "words": words,
        "table": region_table(report, suffix),
        "expressive": expressive_table(report, suffix) if entries else None,
        "images": sum(entry["images"] for entry in entries),
        # For how many emotions a method has more saliency there than an even map would.
        "above": {name: sum((ratio or 0) > 1 for ratio in own) for name, own in ratios.items()},
        "emotions": len(entries),
    }


def confusion_table(entries: list[dict[str, Any]]) -> Table:
    """The most frequent confusions."""
    rows = [
        [
            Cell(f"{entry['true']} → {entry['predicted']}"),
            count_cell(entry["images"]),
            percent_cell(entry["share_of_true"]),
        ]
        for entry in entries
    ]
    columns = ["True → predicted", "Images", "Share of the true emotion's images"]
    return Table("saliency-confusions", columns, rows)


def region_table(report: Mapping[str, Any], suffix: str) -> Table:
    """The share of the saliency in each region, beside its share of the area."""
    methods = report["methods"]
    rows = [
        [
            Cell(region),
            percent_cell(area),
            *(percent_cell(found["all"][region]) for found in methods.values()),
        ]
        for region, area in report["area"].items()
    ]
    columns = ["Region", "Area", *(_upper(METHOD_NAMES[method]) for method in methods)]
    return Table(f"saliency-regions-{suffix}", columns, rows)


def expressive_table(report: Mapping[str, Any], suffix: str) -> Table:
    """The share of the saliency in the regions that make each expression."""
    rows = [
        [
            Cell(emotion),
            Cell(", ".join(entry["regions"]), words=True),
            count_cell(entry["images"]),
            percent_cell(entry["area"]),
            *(
                percent_cell(
                    found["share"],
                    f"{ABSENT if found['ratio'] is None else format(found['ratio'], '.2f')} ×",
                )
                for found in entry["methods"].values()
            ),
        ]
        for emotion, entry in report["expressive"].items()
    ]
    names = [_upper(METHOD_NAMES[method]) for method in report["methods"]]
    columns = ["Emotion", "Regions", "Images", "Area", *names]
    return Table(f"saliency-expressive-{suffix}", columns, rows)


def saliency_checks_table(summary: Mapping[str, Any]) -> Table:
    """The checks of each method's maps: areas under the curves, verdicts, correlation."""
    found, sanity = summary["faithfulness"], summary["sanity"]
    tests = [(kind, name) for kind in KINDS for name in found["replacements"]]
    rows = []
    for method in summary["methods"]:
        last = sanity["methods"][method]["correlation"][-1]
        results = [found["replacements"][name]["methods"][method][kind] for kind, name in tests]
        verdicts = [Cell(VERDICTS[found["verdicts"][method][kind]], words=True) for kind in KINDS]
        cells = [Cell(METHOD_NAMES[method]), *map(_area_cell, results), *verdicts]
        rows.append([*cells, Cell(ABSENT if last is None else f"{last:.2f}", last)])
    chance = [found["replacements"][name]["random"][kind] for kind, name in tests]
    rows.append([Cell("random map"), *map(_area_cell, chance), *[Cell(ABSENT)] * (len(KINDS) + 1)])
    columns = [
        "Method",
        *(f"{_upper(KINDS[kind][0])} {REPLACEMENTS[name]}, area" for kind, name in tests),
        *(f"{_upper(kind)}: better than random?" for kind in KINDS),
        "Like the map of a random network",
    ]
    return Table("saliency-checks", columns, rows)


def _area_cell(result: Mapping[str, Any]) -> Cell:
    """Area under a curve, with the gain over random maps where there is one."""
    gain, detail = result.get("gain"), None
    if gain is not None and gain["interval"] is not None:
        low, high = gain["interval"]
        detail = f"{gain['mean']:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    return Cell(f"{result['auc']:.3f}", result["auc"], detail)


def _better(found: Mapping[str, Any], kind: str) -> list[str]:
    """The methods whose maps are better than random ones, whatever replaces a pixel."""
    verdicts = found["verdicts"].items()
    return [METHOD_NAMES[method] for method, own in verdicts if own[kind] == "better"]


def outlasting(sanity: Mapping[str, Any]) -> dict[str, float]:
    """The methods whose maps outlast all weights, with their rank correlation."""
    last = {METHOD_NAMES[name]: row["correlation"][-1] for name, row in sanity["methods"].items()}
    return {name: value for name, value in last.items() if value is not None and value > ALIKE}


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
