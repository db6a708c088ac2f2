"""Sections of an evaluation's page: calibration, groups, robustness, mistakes.

The templates named after them hold the sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from fer.core.words import PERCENT, how_many, percent
from fer.evaluation.metrics import SMALLEST_GROUP, SplitResult
from fer.evaluation.mistakes import Confusion, confident_mistakes, frequent_confusions
from fer.evaluation.robustness import Robustness
from fer.evaluation.scores import shown_in
from fer.report import evaluation_figures as figures
from fer.report.figures import save
from fer.report.page import Cell, Section, Table, percent_cell, render
from fer.report.score_cells import change_cell, score_cell, score_table

ACROSS = 4
"""Confident mistakes beside each other."""


def calibration_section(folder: Path, result: SplitResult, shown: str) -> Section:
    """Confidence against accuracy, and what temperature scaling makes of it."""
    metrics = result.metrics
    series = {"as it is": (metrics["reliability"], metrics["expected_calibration_error"])}
    scaling = metrics.get("temperature_scaling")
    if scaling is not None:
        name = f"temperature {scaling['temperature']:.2f}"
        series[name] = scaling["reliability"], scaling["expected_calibration_error"]
    figure = figures.reliability_diagram(series, title=f"Reliability: {shown}")
    return render(
        "calibration.html.j2",
        metrics=metrics,
        scaling=scaling,
        gap=float((result.probabilities.max(axis=1) - (result.target == result.preds)).mean()),
        figure=save(figure, folder / "figures" / "reliability.png"),
    )


def subgroups_section(subgroups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Section:
    """Scores of the images that share an attribute."""
    tables = [
        score_table(
            f"group-{attribute}",
            attribute,
            groups,
            shown_in("comparisons"),
        )
        for attribute, groups in subgroups.items()
    ]
    return render("subgroups.html.j2", tables=tables, smallest=SMALLEST_GROUP)


def robustness_section(
    folder: Path,
    found: Robustness,
    result: SplitResult,
    examples: Mapping[str, Sequence[np.ndarray]],
    faces: np.ndarray,
    shown: str,
) -> Section:
    """The section on damaged images.

    Args:
        folder: of the run.
        found: the measurement.
        result: of the undamaged images.
        examples: see :func:`fer.report.evaluation_figures.damage_grid`.
        faces: rows of the images in ``examples``.
        shown: dataset and split.
    """
    n = len(result.target)
    for name, figure in {
        "robustness": figures.robustness_curves(
            {"network": found.rows},
            title=f"Robustness: {shown}",
            subtitle=f"{how_many(n, 'image')} · shaded: 95 % interval",
        ),
        "robustness_per_class": figures.robustness_per_class(
            found.rows, title=f"Robustness per emotion: {shown}", images=n
        ),
        "perturbations": figures.damage_grid(
            examples, result.target[faces], title=f"What the perturbations look like: {shown}"
        ),
    }.items():
        save(figure, folder / "figures" / f"{name}.png")
    return render(
        "robustness.html.j2",
        summary=found.summary,
        published=found.summary.get("beside_published"),
        means=[
            (score, score_cell(found.summary["mean_over_settings"], score))
            for score in shown_in("robustness")
        ],
        sizes={row["image_size"] for row in found.rows},
        areas=area_table("robustness-areas", {"": [found.summary["relative_area"]]}),
        settings=settings_table(found.rows),
        place=folder / "figures",
        images=f"{how_many(n, 'image')} of {shown}",
        faces=len(faces),
    )


def area_table(id: str, groups: Mapping[str, Sequence[Mapping[str, Mapping[str, Any]]]]) -> Table:
    """The share of each score that damage leaves.

    Args:
        id: of the table.
        groups: name before the perturbation's → ``relative_area`` of one measurement, or of
            several that are averaged.
    """
    scores = shown_in("robustness")
    rows: list[list[Cell]] = []
    for group, areas in groups.items():
        for name in areas[0]:
            own = [area[name] for area in areas]
            row = own[0]
            if len(own) > 1:
                known = [s.name for s in scores if all(s.name in one for one in own)]
                row = {key: mean(one[key] for one in own) for key in known}
            cells = [score_cell(row, score, PERCENT) for score in scores]
            rows.append([Cell(f"{group}{name.replace('_', ' ')}"), *cells])
    columns = ["Perturbation", *(f"{score.title} left" for score in scores)]
    return Table(id, columns, rows)


def settings_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Scores under each severity of each perturbation, beside the undamaged ones."""
    with_reference = any("reference_accuracy" in row for row in rows)
    with_size = len({row["image_size"] for row in rows}) > 1
    scores = shown_in("robustness")
    table = []
    for row in rows:
        words = ", ".join(f"{key} {value:g}" for key, value in row["parameters"].items())
        cells = [Cell(f"{row['perturbation'].replace('_', ' ')} {row['severity']}", words)]
        if with_size:
            cells.append(Cell(f"{row['image_size']} × {row['image_size']}"))
        for score in scores:
            key = f"delta_{score.name}"
            change = change_cell(row[key], row["confidence_intervals"][key], score)
            cells += [score_cell(row, score), change]
        if with_reference:
            cells.append(percent_cell(row.get("reference_accuracy")))
        table.append(cells)
    columns = ["Setting", *(["Damaged at"] if with_size else [])]
    columns += [name for score in scores for name in (score.title, "Change")]
    columns += ["Published accuracy"] if with_reference else []
    return Table("robustness", columns, table)


def error_rows(
    result: SplitResult, *, pairs: int, images: int, confident: int
) -> tuple[list[tuple[str, np.ndarray]], np.ndarray]:
    """The mistakes that the galleries show.

    Args:
        result: of the split.
        pairs: most frequent confusions.
        images: of each of them.
        confident: most confident mistakes.

    Returns:
        For each confusion its words and the rows of its images, and the rows of the confident
        mistakes.
    """

    def describe(pair: Confusion) -> str:
        number = how_many(len(pair.rows), "image")
        return f"{pair.true} → {pair.predicted}: {number}, {percent(pair.share)} of {pair.true}"

    confusions = frequent_confusions(result.target, result.probabilities, pairs)
    return (
        [(describe(pair), pair.rows[:images]) for pair in confusions],
        confident_mistakes(result.target, result.probabilities, confident),
    )


def errors_section(
    folder: Path,
    result: SplitResult,
    shown: str,
    confusions: Sequence[tuple[str, np.ndarray]],
    confident: np.ndarray,
    maps: Mapping[int, np.ndarray] | None,
    method: str | None,
) -> Section:
    """Galleries of mistakes.

    Args:
        folder: of the run.
        result: of the split.
        shown: dataset and split.
        confusions: see :func:`error_rows`.
        confident: see :func:`error_rows`.
        maps: row → saliency ``(S, S)`` of the predicted emotion; None for none.
        method: the saliency method's name.
    """
    words = "id, true emotion → predicted one, with their probabilities"
    lines = {
        "confusions": [rows for _, rows in confusions],
        "confident_mistakes": np.split(confident, range(ACROSS, len(confident), ACROSS)),
    }
    files = {}
    for name, rows in lines.items():
        if sum(map(len, rows)):
            title = f"{name.replace('_', ' ').capitalize()}: {shown}"
            figure = figures.mistakes(result, rows, title=title, subtitle=words, maps=maps)
            files[name] = save(figure, folder / "figures" / f"{name}.png")
    return render(
        "mistakes.html.j2",
        files=files,
        samples=len(result.target),
        wrong=int((result.target != result.preds).sum()),
        confusions=[words for words, _ in confusions],
        confident=len(confident),
        method=method if maps else None,
    )
