"""Tables of scores, the same on every page: a number with its interval, a dash for none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from fer.core import labels
from fer.core.words import ABSENT, Format, percent
from fer.evaluation.metrics import DetailedScores, Metrics, Scores
from fer.evaluation.scores import Score
from fer.report.page import Cell, Content, Table, make_table, percent_cell

EMOTION_SCORES = {"precision": "Precision", "recall": "Recall", "f1": "F1"}


def score_cell(row: Mapping[str, Any], score: Score, form: Format | None = None) -> Cell:
    """The score of a mapping such as ``metrics.json``, with its interval."""
    value, form = row.get(score.name), form or score.format
    bounds = (row.get("confidence_intervals") or {}).get(score.name)
    return Cell(form.text(value), form.interval(bounds))


def spread_cell(row: Mapping[str, Any], score: Score) -> Cell:
    """A mean with its spread over seeds, or with the interval over images of a single seed."""
    found, form = row.get(score.name), score.format
    if found is None:
        return Cell(ABSENT)
    spread = form.interval(found["interval"])
    if found["sd"] is not None:
        spread = f"± {form.digits(found['sd'])}"
    return Cell(form.text(found["mean"]), spread)


def change_cell(value: float, bounds: Sequence[float] | None, score: Score) -> Cell:
    """A difference, of fractions in points, with its interval."""
    form, detail = score.format, None
    if bounds is not None:
        low, high = map(form.change, bounds)
        detail = f"{low} to {high}"
    return Cell(form.change(value), detail)


def score_table(
    id: str,
    heading: str,
    rows: Mapping[str, Mapping[str, Any]],
    scores: Sequence[Score],
    cell: Callable[[Mapping[str, Any], Score], Cell] = score_cell,
) -> Table:
    """Scores side by side, with the number of images.

    Args:
        rows: each row's name → the mapping with its scores and ``samples``.
    """
    return make_table(
        id,
        [heading, *(score.title for score in scores), "Images"],
        [
            [name, *(cell(row, score) for score in scores), row["samples"]]
            for name, row in rows.items()
        ],
    )


def average(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def emotion_table(id: str, groups: Mapping[str, Sequence[DetailedScores]]) -> Table:
    """Precision, recall and F1 of each emotion, and what it is mistaken for.

    Args:
        groups: name before the emotion's → the ``metrics.json`` that are averaged.
    """
    rows: list[list[Content]] = []
    for group, metrics in groups.items():
        for index, emotion in enumerate(labels.EMOTIONS):
            own: list[Mapping[str, Any]] = [one["per_class"][emotion] for one in metrics]
            support: int = own[0]["support"]
            scores = {name: average([row[name] for row in own]) for name in EMOTION_SCORES}
            if not support:
                scores |= {"recall": None, "f1": None}
            confused = np.sum([one["confusion_matrix"][index] for one in metrics], axis=0).tolist()
            other, most = taken_for(confused, index)
            taken = f"{other} ({percent(most / sum(confused))})" if other else ABSENT
            rows.append([f"{group}{emotion}", *map(percent_cell, scores.values()), support, taken])
    columns = ["Emotion", *EMOTION_SCORES.values(), "Images", "Most often taken for"]
    return make_table(id, columns, rows)


def taken_for(counts: Sequence[int], index: int) -> tuple[str | None, int]:
    """The other emotion that is predicted most often, or None, and how often.

    Args:
        counts: predictions of each emotion, a row of a confusion matrix.
        index: of the true emotion.

    >>> taken_for([5, 0, 2, 2, 0, 0, 0], 0), taken_for([5, 0, 0, 0, 0, 0, 0], 0)
    (('fear', 2), (None, 0))
    """
    wrong = [0 if place == index else count for place, count in enumerate(counts)]
    most = max(wrong)
    return (labels.EMOTIONS[wrong.index(most)] if most else None), most


def leak_free(metrics: Metrics) -> dict[str, Scores]:
    """The scores without copies of earlier splits' images, where there are such copies.

    Returns:
        Which copies are left out, in words → the scores and ``samples``.
    """
    found, before = {}, metrics["samples"]
    for words, clean in (
        ("exactly", metrics["without_leaks"]),
        ("exactly or nearly", metrics.get("without_near_leaks")),
    ):
        if clean is not None and clean["samples"] < before:
            found[words], before = clean, clean["samples"]
    return found


def leak_free_means(metrics: Sequence[Metrics]) -> dict[str, dict[str, float]]:
    """Mean scores by :func:`leak_free` over the seeds of one network, with the images left out."""
    found = [leak_free(one) for one in metrics]
    return {
        words: {
            "left_out": metrics[0]["samples"] - first["samples"],
            "accuracy": mean(one[words]["accuracy"] for one in found),
            "macro_f1": mean(one[words]["macro_f1"] for one in found),
        }
        for words, first in found[0].items()
        if all(words in one for one in found)
    }


def most_frequent(metrics: DetailedScores) -> float:
    """Accuracy of naming the most frequent emotion always."""
    supports = [scores["support"] for scores in metrics["per_class"].values()]
    return max(supports) / sum(supports)
