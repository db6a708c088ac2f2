"""Sections on where a network looks, made of an ``Explanation``.

``saliency.html.j2`` holds the sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer.core.words import ABSENT
from fer.evaluation.explanation import REPLACEMENTS, Explanation
from fer.report import saliency_figures as figures
from fer.report.figures import save
from fer.report.page import Cell, Section, Table, make_table, percent_cell, render
from fer.report.saliency_figures import KINDS, METHOD_NAMES

VERDICTS = {"better": "yes", "worse": "no, worse", "not better": "no", None: "too few images"}
REGIONS = {"standard": "regions in fixed boxes", "drawn": "regions as drawn"}
"""Source of the regions of the face → the words for it."""


def saliency_section(folder: Path, explanation: Explanation, shown: str) -> Section:
    """Write every figure into ``folder/figures/saliency_*.png`` and put the sections together.

    Args:
        folder: of the run.
        explanation: of its network.
        shown: dataset and split.
    """
    summary = explanation.summary
    found, sanity = summary["faithfulness"], summary["sanity"]
    plots = {
        "class_maps": figures.class_maps(
            explanation, title=f"Mean saliency of each emotion: {shown}"
        ),
        "examples": figures.examples(explanation, title=f"Saliency of single images: {shown}"),
        "faithfulness": figures.faithfulness_curves(
            found, title=f"Deletion and insertion: {shown}"
        ),
        "sanity": figures.sanity_curves(
            sanity, title=f"Maps of networks with random weights: {shown}"
        ),
    }
    if summary["confusions"]:
        title = f"Saliency of confusions: {shown}"
        plots["confusions"] = figures.confusions(explanation, title=title)
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
            for kind, words in REGIONS.items()
            if (report := summary["regions"][kind]) is not None
        },
        checks=checks_table(summary),
    )


def _region_table(report: Mapping[str, Any], kind: str) -> Table:
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


def _expressive_table(report: Mapping[str, Any], kind: str) -> Table:
    """The share of the saliency in the regions that make each expression."""
    rows: list[list[Cell | str | int]] = []
    for emotion, entry in report["expressive"].items():
        regions, area = ", ".join(entry["regions"]), percent_cell(entry["area"])
        cells = [emotion, Cell(regions, words=True), entry["images"], area]
        for found in entry["methods"].values():
            ratio = ABSENT if found["ratio"] is None else format(found["ratio"], ".2f")
            cells.append(percent_cell(found["share"], f"{ratio} ×"))
        rows.append(cells)
    names = [_upper(METHOD_NAMES[method]) for method in report["methods"]]
    columns = ["Emotion", "Regions", "Images", "Area", *names]
    return make_table(f"saliency-expressive-{kind}", columns, rows)


def checks_table(summary: Mapping[str, Any]) -> Table:
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


def _area_cell(result: Mapping[str, Any]) -> Cell:
    """Area under a curve, with the gain over random maps where there is one."""
    gain, detail = result.get("gain"), None
    if gain is not None and gain["interval"] is not None:
        low, high = gain["interval"]
        detail = f"{gain['mean']:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    return Cell(f"{result['auc']:.3f}", detail)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
