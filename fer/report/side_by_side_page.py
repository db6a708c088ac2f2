"""The page of several evaluations side by side."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from fer.core import labels
from fer.core.words import ABSENT, how_many, percent, whole
from fer.evaluation.scores import Score, shown_in
from fer.report import evaluation_figures as drawing
from fer.report.evaluation_sections import curves_caption
from fer.report.figures import confusion_matrix, save
from fer.report.page import Cell, FigureEntry, Section, Table, embed_section, write_page
from fer.report.score_cells import change_cell, score_cell
from fer.runs.side_by_side import Collection, Evaluation, unlike
from fer.runs.state import FINISHED

MOST_MATRICES = 9
"""With more jobs than these, their own pages have the confusion matrices."""


def write_side_by_side_page(folder: Path, collection: Collection) -> Path:
    """Draw the figures and write ``folder/report.html``.

    Args:
        folder: of the sweep.
        collection: its evaluations and what they say together.
    """
    jobs, names, rows = collection.jobs, collection.names, collection.rows
    sections = [_cross_section(folder, jobs, names, rows)]
    if any(row.get("drop_accuracy") is not None for row in rows):
        sections.append(_prior_section(names, rows))
    sections += _comparison_sections(collection)
    sections += _robustness_sections(folder, collection)
    if len(jobs) <= MOST_MATRICES:
        sections.append(_matrices_section(folder, collection))
    notes = list(dict.fromkeys(note for job in jobs for note in job.run["notes"]))
    return write_page(
        folder / FINISHED,
        "collection.html.j2",
        {
            "title": f"{how_many(len(jobs), 'evaluation')} side by side",
            "subtitle": f"{how_many(len({job.network for job in jobs}), 'network')} on "
            f"{how_many(len({job.data for job in jobs}), 'set')} of images. Each evaluation has a "
            "page of its own in its folder.",
            "notes": notes,
            "sections": [embed_section(section) for section in sections],
        },
    )


def _cross_section(
    folder: Path,
    jobs: Sequence[Evaluation],
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> Section:
    table = []
    scores = shown_in("comparisons")
    for job, name, row in zip(jobs, names, rows, strict=True):
        table.append(
            [
                Cell(f"{name} → {row['measured_on']}", link=f"{quote(job.folder.name)}/{FINISHED}"),
                *(score_cell(job.metrics, score) for score in scores),
                *(_drop(row, score) for score in scores),
                Cell(whole(row["samples"]), row["samples"]),
            ]
        )
    columns = [
        "Network → measured on",
        *(score.title for score in scores),
        *(f"{score.title} {'lost' if score.higher_is_better else 'gained'}" for score in scores),
        "Images",
    ]
    entries = []
    for score in scores:
        key = score.name
        measured = {
            (name, row["measured_on"]): (job.metrics[key], job.metrics["confidence_intervals"][key])
            for job, name, row in zip(jobs, names, rows, strict=True)
            if key in job.metrics
        }
        if not measured:
            continue
        title = f"Every network on every dataset: {score.heading}"
        figure = drawing.cross_table(
            measured,
            score=score,
            title=title,
            subtitle="a row for each network, named after what it was trained on; small: 95 % "
            "interval",
        )
        entries.append(
            FigureEntry(
                save(figure, folder / "figures" / f"cross_{key}.png"),
                title,
                "Compare within a column: the images are the same there. From one column to "
                "another the difficulty of the images changes too.",
            )
        )
    if len(jobs) <= len(drawing.SERIES):  # each has a colour of its own
        recalls = {
            f"{name} → {row['measured_on']}": {
                emotion: row[f"recall_{emotion}"] for emotion in labels.EMOTIONS
            }
            for job, name, row in zip(jobs, names, rows, strict=True)
        }
        entries.append(
            FigureEntry(
                save(
                    drawing.recall_side_by_side(
                        recalls,
                        title="Recall of each emotion",
                        subtitle="share of an emotion's images that is recognised",
                    ),
                    folder / "figures" / "recall.png",
                ),
                "Recall of each emotion, side by side",
                "Emotions are matched by name. "
                + "; ".join(
                    f"{name} → {row['measured_on']}: {how_many(len(job.target), 'image')}"
                    for job, name, row in zip(jobs, names, rows, strict=True)
                )
                + ".",
            )
        )
    return Section(
        "Every network on every dataset",
        tables=[
            (
                Table("cross", columns, table, sortable=True),
                "Lost or gained, of fractions in percentage points: how much worse than the same "
                "network on the dataset that it was trained on, where that was measured alike "
                "(split, passes, precision, images left out). Small: 95 % interval.",
            )
        ],
        figures=entries,
    )


def _drop(row: Mapping[str, Any], score: Score) -> Cell:
    """How much worse than in domain."""
    value = row.get(f"drop_{score.name}")
    if value is None:
        return Cell(ABSENT)
    worse = value if score.higher_is_better else -value
    return Cell(score.format.digits(worse).replace("-", "−"), worse)


def _prior_section(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Section:
    table, text = [], []
    for name, row in zip(names, rows, strict=True):
        if row.get("drop_accuracy") is None:
            continue
        weighted, home = row["accuracy_source_priors"], row["accuracy"] + row["drop_accuracy"]
        table.append(
            [
                Cell(f"{name} → {row['measured_on']}"),
                Cell(percent(home), home),
                Cell(percent(row["accuracy"]), row["accuracy"]),
                Cell(percent(weighted), weighted),
                Cell(percent(row["accuracy_adjusted"]), row["accuracy_adjusted"]),
                Cell(percent(row["macro_f1_adjusted"]), row["macro_f1_adjusted"]),
            ]
        )
        if weighted is not None:
            text.append(
                f"{name} → {row['measured_on']}: {100 * row['drop_accuracy']:.1f} points of "
                f"accuracy are lost. With the emotions as frequent as in domain, "
                f"{100 * (home - weighted):.1f} would be: "
                f"{100 * (row['drop_accuracy'] - home + weighted):+.1f} points of the loss come "
                "from how frequent the emotions are, the rest from how they look.".replace("-", "−")
            )
    columns = [
        "Network → measured on",
        "Accuracy in domain",
        "Accuracy here",
        "Emotions as frequent as in domain",
        "Accuracy, adjusted",
        "Macro-F1, adjusted",
    ]
    return Section(
        "How much of the loss is class frequency",
        [
            "Datasets differ in how frequent the emotions are, and that alone changes accuracy. "
            "“As frequent as in domain” weights the recall of each emotion by its share in the "
            "network's own dataset. “Adjusted” multiplies the probabilities by the shares here "
            "over those that the network was trained with, which are its training images times the "
            "weights of its loss (Saerens et al., 2002): what the network would reach if it "
            "knew how frequent the emotions are here, which a user rarely does.",
            *text,
        ],
        [(Table("priors", columns, table, sortable=True), "")],
    )


def _comparison_sections(collection: Collection) -> list[Section]:
    table = []
    scores = shown_in("comparisons")
    apart = {
        words
        for one, other in itertools.combinations(collection.jobs, 2)
        if one.network != other.network and one.place == other.place
        for words in unlike(one, other)
    }
    refused = [f"Not compared are measurements that differ in: {', '.join(sorted(apart))}."]
    if not collection.comparisons:
        return [Section("Networks on the same images", refused)] if apart else []
    for row in collection.comparisons:
        difference, bounds = row["difference"], row["confidence_intervals"]
        test = row["mcnemar"]
        p = test["p_value"]
        table.append(
            [
                Cell(f"{row['second']} minus {row['first']}", None, row["dataset"]),
                *(change_cell(difference[s.name], bounds[s.name], s) for s in scores),
                Cell(whole(test["only_first_right"]), test["only_first_right"]),
                Cell(whole(test["only_second_right"]), test["only_second_right"]),
                Cell("< 0.0001" if p < 1e-4 else f"{p:.4f}", p),
            ]
        )
    columns = [
        "Difference",
        *(score.title for score in scores),
        "Only the first right",
        "Only the second right",
        "McNemar's p",
    ]
    return [
        Section(
            "Networks on the same images",
            [
                "Differences in percentage points with paired 95 % intervals. McNemar's exact test "
                "asks whether as many images could be right with one network alone as with the "
                "other. Networks of one seed each differ by their seeds too: repeat with others "
                "before you call a recipe better. With many pairs, some p-values are small by "
                "chance.",
                *(refused if apart else []),
            ],
            [(Table("comparison", columns, table, sortable=True), "")],
        )
    ]


def _robustness_sections(folder: Path, collection: Collection) -> list[Section]:
    entries = []
    for index, shown in enumerate(dict.fromkeys(collection.places)):
        own = {
            name: job.robustness
            for job, name, place in zip(
                collection.jobs, collection.names, collection.places, strict=True
            )
            if place == shown and job.robustness
        }
        if not own:
            continue
        samples = next(iter(own.values()))[0]["samples"]
        figure = drawing.robustness_curves(
            own,
            title=f"Robustness: {shown}",
            subtitle=f"{how_many(samples, 'image')} · bars: 95 % interval",
        )
        entries.append(
            FigureEntry(
                save(figure, folder / "figures" / f"robustness_{index}.png"),
                f"Robustness: {shown}",
                f"{curves_caption()}, on {how_many(samples, 'image')}; with one robustness.seed "
                "every network sees the same damage.",
            )
        )
    return [Section("Robustness", figures=entries)] if entries else []


def _matrices_section(folder: Path, collection: Collection) -> Section:
    entries = [
        FigureEntry(
            save(
                confusion_matrix(
                    np.array(job.metrics["confusion_matrix"]),
                    title=f"Confusion matrix: {name} → {place}",
                ),
                folder / "figures" / f"confusion_matrix_{job.folder.name}.png",
            ),
            f"{name} → {place}",
            f"{how_many(len(job.target), 'image')}. Each row is a true emotion.",
        )
        for job, name, place in zip(
            collection.jobs, collection.names, collection.places, strict=True
        )
    ]
    return Section("Confusion matrices", figures=entries)
