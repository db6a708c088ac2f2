"""The page of several evaluations side by side; ``side_by_side.html.j2`` holds the sentences."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from fer.core import labels
from fer.core.words import ABSENT, how_many
from fer.evaluation.scores import Score, shown_in
from fer.report import evaluation_figures as figures
from fer.report.figures import SERIES, save
from fer.report.page import Cell, Table, count_cell, percent_cell, write_page
from fer.report.run_figures import confusion_matrix
from fer.report.score_cells import change_cell, score_cell
from fer.runs.side_by_side import Collection, unlike

MOST_MATRICES = 9
"""With more jobs than these, their own pages have the confusion matrices."""


def write_side_by_side_page(folder: Path, collection: Collection) -> Path:
    """Write the figures and ``folder/report.html``.

    Args:
        folder: of the sweep.
        collection: its evaluations and what they say together.
    """
    jobs = collection.jobs
    labelled = list(zip(_labels(collection), collection.rows, strict=True))
    return write_page(
        folder / "report.html",
        "side_by_side.html.j2",
        {
            "evaluations": len(jobs),
            "networks": len({job.network for job in jobs}),
            "sets": len({job.data for job in jobs}),
            "notes": list(dict.fromkeys(note for job in jobs for note in job.run["notes"])),
            "cross": _cross_table(collection),
            "cross_figures": _plot_cross(folder, collection),
            "recall": _plot_recall(folder, collection),
            "images": {label: row["samples"] for label, row in labelled},
            "losses": [(label, row) for label, row in labelled if _is_lost(row)],
            "priors": _prior_table(labelled),
            "comparisons": _comparison_table(collection.comparisons),
            "unlike": _differences(collection),
            "robustness": _plot_robustness(folder, collection),
            "matrices": _plot_matrices(folder, collection),
        },
    )


def _labels(collection: Collection) -> list[str]:
    """Of each job: its network, and what it is measured on."""
    return list(map("{} → {}".format, collection.names, collection.places))


def _cross_table(collection: Collection) -> Table:
    scores = shown_in("comparisons")
    rows = [
        [
            Cell(label, link=f"{quote(job.folder.name)}/report.html"),
            *(score_cell(job.metrics, score) for score in scores),
            *(_lost(row, score) for score in scores),
            count_cell(row["samples"]),
        ]
        for job, label, row in zip(
            collection.jobs, _labels(collection), collection.rows, strict=True
        )
    ]
    columns = [
        "Network → measured on",
        *(score.title for score in scores),
        *(f"{score.title} {'lost' if score.higher_is_better else 'gained'}" for score in scores),
        "Images",
    ]
    return Table("cross", columns, rows, sortable=True)


def _lost(row: Mapping[str, Any], score: Score) -> Cell:
    """How much worse than on the network's own dataset."""
    value = row.get(f"drop_{score.name}")
    if value is None:
        return Cell(ABSENT)
    worse = value if score.higher_is_better else -value
    return Cell(score.format.digits(worse).replace("-", "−"), worse)


def _plot_cross(folder: Path, collection: Collection) -> dict[str, Path]:
    """A table of each score as a figure, by the score's name in words."""
    found = {}
    for score in shown_in("comparisons"):
        measured = {
            (name, place): (
                job.metrics[score.name],
                job.metrics["confidence_intervals"][score.name],
            )
            for job, name, place in zip(
                collection.jobs, collection.names, collection.places, strict=True
            )
            if score.name in job.metrics
        }
        if measured:
            title = f"Every network on every dataset: {score.heading}"
            figure = figures.cross_table(measured, score=score, title=title)
            found[score.heading] = save(figure, folder / "figures" / f"cross_{score.name}.png")
    return found


def _plot_recall(folder: Path, collection: Collection) -> Path | None:
    if len(collection.jobs) > len(SERIES):  # each has a colour of its own
        return None
    recalls = {
        label: {emotion: row[f"recall_{emotion}"] for emotion in labels.EMOTIONS}
        for label, row in zip(_labels(collection), collection.rows, strict=True)
    }
    return save(figures.recall_side_by_side(recalls), folder / "figures" / "recall.png")


def _is_lost(row: Mapping[str, Any]) -> bool:
    """Whether the network was measured on its own dataset too."""
    return row.get("drop_accuracy") is not None


def _prior_table(labelled: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    columns = {
        "accuracy_source_priors": "Emotions as frequent as in its own",
        "accuracy_adjusted": "Accuracy, adjusted",
        "macro_f1_adjusted": "Macro-F1, adjusted",
    }
    rows = [
        [
            Cell(label),
            percent_cell(row["accuracy"] + row["drop_accuracy"]),
            percent_cell(row["accuracy"]),
            *(percent_cell(row[column]) for column in columns),
        ]
        for label, row in labelled
        if _is_lost(row)
    ]
    headings = ["Accuracy on its own dataset", "Accuracy here", *columns.values()]
    return Table("priors", ["Network → measured on", *headings], rows, sortable=True)


def _differences(collection: Collection) -> list[str]:
    """In what measurements differ whose networks could be compared otherwise."""
    found = {
        words
        for one, other in itertools.combinations(collection.jobs, 2)
        if one.network != other.network and one.place == other.place
        for words in unlike(one, other)
    }
    return sorted(found)


def _comparison_table(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    scores = shown_in("comparisons")
    rows = []
    for row in comparisons:
        difference, bounds, test = row["difference"], row["confidence_intervals"], row["mcnemar"]
        p = test["p_value"]
        rows.append(
            [
                Cell(f"{row['second']} minus {row['first']}", None, row["dataset"]),
                *(change_cell(difference[s.name], bounds[s.name], s) for s in scores),
                count_cell(test["only_first_right"]),
                count_cell(test["only_second_right"]),
                Cell("< 0.0001" if p < 1e-4 else f"{p:.4f}", p),
            ]
        )
    columns = ["Only the first right", "Only the second right", "McNemar's p"]
    headings = ["Difference", *(score.title for score in scores), *columns]
    return Table("comparison", headings, rows, sortable=True)


def _plot_robustness(folder: Path, collection: Collection) -> list[tuple[str, int, Path]]:
    """For each set of images its name, its size and the curves of all networks on it."""
    entries = []
    for index, shown in enumerate(dict.fromkeys(collection.places)):
        own = {
            name: job.robustness
            for job, name, place in zip(
                collection.jobs, collection.names, collection.places, strict=True
            )
            if place == shown and job.robustness
        }
        if own:
            samples = next(iter(own.values()))[0]["samples"]
            figure = figures.robustness_curves(
                own,
                title=f"Robustness: {shown}",
                subtitle=f"{how_many(samples, 'image')} · bars: 95 % interval",
            )
            path = save(figure, folder / "figures" / f"robustness_{index}.png")
            entries.append((shown, samples, path))
    return entries


def _plot_matrices(folder: Path, collection: Collection) -> dict[str, Path]:
    """The confusion matrix of each evaluation; none of many."""
    if len(collection.jobs) > MOST_MATRICES:
        return {}
    return {
        label: save(
            confusion_matrix(
                np.array(job.metrics["confusion_matrix"]), title=f"Confusion matrix: {label}"
            ),
            folder / "figures" / f"confusion_matrix_{job.folder.name}.png",
        )
        for job, label in zip(collection.jobs, _labels(collection), strict=True)
    }
