"""The page of several evaluations side by side; ``side_by_side.html.j2`` holds the sentences."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fer.core import labels
from fer.core.words import ABSENT, how_many
from fer.evaluation.robustness import RobustnessRow
from fer.evaluation.scores import Score, shown_in
from fer.report.evaluation_sections import robustness_curves
from fer.report.figures import SERIES, bars, save
from fer.report.page import Cell, Content, Table, make_table, percent_cell, write_page
from fer.report.score_cells import change_cell, score_cell
from fer.runs.side_by_side import Collection, Comparison, Evaluation, unlike
from fer.runs.state import FINISHED

Row = Mapping[str, Any]
"""A row of ``cross_dataset.csv``."""


def write_side_by_side_page(folder: Path, collection: Collection) -> Path:
    """Write the figures and ``folder/report.html``."""
    jobs, rows, place = collection.jobs, collection.rows, folder / "figures"
    lost = [row for row in rows if row.get("drop_accuracy") is not None]
    return write_page(
        folder / FINISHED,
        "side_by_side.html.j2",
        {
            "evaluations": len(jobs),
            "networks": len({job.network for job in jobs}),
            "sets": len({job.data for job in jobs}),
            "notes": list(dict.fromkeys(note for job in jobs for note in job.run["notes"])),
            "images": {_label(row): row["samples"] for row in rows},
            "cross": cross_table(collection),
            "recall": _plot_recall(place, rows),
            "losses": [(_label(row), row) for row in lost],
            "priors": _prior_table(lost),
            "comparisons": _comparison_table(collection.comparisons),
            "unlike": _differences(jobs),
            "robustness": _plot_robustness(place, collection),
        },
    )


def _label(row: Row) -> str:
    """The network, and what it is measured on."""
    return f"{row['network']} → {row['measured_on']}"


def cross_table(collection: Collection, *, brief: bool = False) -> Table:
    """Every network on what it was measured on, with what it loses there.

    ``brief``: in two scores, for a terminal.
    """
    scores = shown_in("comparisons")[: 2 if brief else None]
    cells: list[list[Content]] = [
        [
            Cell(_label(row), link=f"{quote(job.folder.name)}/{FINISHED}"),
            *(score_cell(job.metrics, score) for score in scores),
            *(_lost(row, score) for score in scores),
            row["samples"],
        ]
        for job, row in zip(collection.jobs, collection.rows, strict=True)
    ]
    columns = [
        "Network → measured on",
        *(score.title for score in scores),
        *(f"{score.title} {'lost' if score.higher_is_better else 'gained'}" for score in scores),
        "Images",
    ]
    return make_table("cross", columns, cells)


def _lost(row: Row, score: Score) -> Cell:
    """The loss against the network's own dataset."""
    value = row.get(f"drop_{score.name}")
    if value is None:
        return Cell(ABSENT)
    worse = value if score.higher_is_better else -value
    return Cell(score.format.digits(worse).replace("-", "−"))


def _plot_recall(place: Path, rows: Sequence[Row]) -> Path | None:
    if len(rows) > len(SERIES):  # each has a colour of its own
        return None
    figure = bars(
        {_label(row): [row[f"recall_{e}"] for e in labels.EMOTIONS] for row in rows},
        SERIES,
        labels.EMOTIONS,
        title="Recall of each emotion",
        subtitle="share of an emotion's images that is recognised",
        xlabel="true emotion",
        ylabel="recall (%)",
        numbers=len(rows) <= 4,
    )
    return save(figure, place / "recall.png")


def _prior_table(lost: Sequence[Row]) -> Table:
    columns = ("accuracy", "accuracy_source_priors", "accuracy_adjusted", "macro_f1_adjusted")
    rows: list[list[Content]] = [
        [
            _label(row),
            percent_cell(row["accuracy"] + row["drop_accuracy"]),
            *(percent_cell(row[column]) for column in columns),
        ]
        for row in lost
    ]
    headings = [
        "Network → measured on",
        "Accuracy on its own dataset",
        "Accuracy here",
        "Emotions as frequent as in its own dataset",
        "Accuracy, adjusted",
        "Macro-F1, adjusted",
    ]
    return make_table("priors", headings, rows)


def _differences(jobs: Sequence[Evaluation]) -> list[str]:
    """Describe what keeps measurements from being compared."""
    found = {
        words
        for one, other in itertools.combinations(jobs, 2)
        if one.network != other.network and one.place == other.place
        for words in unlike(one, other)
    }
    return sorted(found)


def _comparison_table(comparisons: Sequence[Comparison]) -> Table:
    scores = shown_in("comparisons")
    rows: list[list[Content]] = []
    for row in comparisons:
        difference, bounds, test = row["difference"], row["confidence_intervals"], row["mcnemar"]
        p = test["p_value"]
        rows.append(
            [
                Cell(f"{row['second']} minus {row['first']}", row["dataset"]),
                *(change_cell(difference[s.name], bounds[s.name], s) for s in scores),
                test["only_first_right"],
                test["only_second_right"],
                "< 0.0001" if p < 1e-4 else f"{p:.4f}",
            ]
        )
    columns = ["Only the first right", "Only the second right", "McNemar's p"]
    headings = ["Difference", *(score.title for score in scores), *columns]
    return make_table("comparison", headings, rows)


def _plot_robustness(place: Path, collection: Collection) -> list[tuple[str, int, Path]]:
    """For each set of images its name, its size and the curves of all networks on it."""
    found: dict[str, dict[str, list[RobustnessRow]]] = {}
    for job, row in zip(collection.jobs, collection.rows, strict=True):
        curves = found.setdefault(str(row["measured_on"]), {})
        if job.robustness:
            curves[str(row["network"])] = job.robustness
    entries = []
    for index, (shown, own) in enumerate(found.items()):
        if own:
            samples = next(iter(own.values()))[0]["samples"]
            subtitle = f"{how_many(samples, 'image')} · bars: 95 % interval"
            title = f"Robustness: {shown}"
            figure = robustness_curves(own, title=title, subtitle=subtitle)
            entries.append((shown, samples, save(figure, place / f"robustness_{index}.png")))
    return entries
