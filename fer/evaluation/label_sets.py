"""A network measured by two sets of labels for the same images."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from fer.core import labels
from fer.evaluation.intervals import accuracy_interval, macro_f1_interval
from fer.evaluation.scores import accuracy, confusion_matrix, macro_f1

SHOWN = ("accuracy", "macro_f1")
"""Scores that are measured by either set."""


class ScoresByLabels(TypedDict):
    """The scores by one set of labels."""

    accuracy: float
    macro_f1: float
    confidence_intervals: dict[str, list[float]]


class LabelSets(TypedDict):
    """``label_sets``: the images that have a label in both sets, by either."""

    second: str
    """The second set in words."""
    images: int
    without: int
    """Images that have no label in the second set."""
    by_first: ScoresByLabels
    by_second: ScoresByLabels
    agreement: float
    """The share of the images with the same label in both."""
    agreement_per_class: dict[str, float | None]
    """By the first label; None where no image has it."""
    confusion_matrix: list[list[int]]
    """Rows first, columns second."""
    mistakes: int
    """Answers that are not the first label."""
    sided_with: int
    """Mistakes that are the second label."""
    confidence: float
    """The mean probability of the network's answer."""
    annotators_for_answer: float
    """The mean share of the annotators who saw it."""


def compare_label_sets(
    first: np.ndarray,
    second: np.ndarray,
    shares: np.ndarray,
    probabilities: np.ndarray,
    *,
    name: str,
) -> LabelSets:
    """Measure answers by two sets of labels, on the images that have both.

    Args:
        first: ``(N,)``, the dataset's own labels.
        second: ``(N,)``, -1 for an image without; not of all.
        shares: ``(N, 7)``, each emotion's share of the annotators.
        probabilities: ``(N, 7)``.
        name: of the second set.
    """
    both = second >= 0
    one, two, answers = first[both], second[both], probabilities[both]
    preds = answers.argmax(axis=1)
    agree = one == two
    wrong = preds != one
    rows = np.arange(len(one))

    def scores(target: np.ndarray) -> ScoresByLabels:
        matrix = confusion_matrix(target, preds)
        return {
            "accuracy": float(accuracy(matrix)),
            "macro_f1": float(macro_f1(matrix)),
            "confidence_intervals": {
                "accuracy": accuracy_interval(matrix),
                "macro_f1": macro_f1_interval(matrix),
            },
        }

    return {
        "second": name,
        "images": len(one),
        "without": int((~both).sum()),
        "by_first": scores(one),
        "by_second": scores(two),
        "agreement": float(agree.mean()),
        "agreement_per_class": {
            emotion: float(agree[one == index].mean()) if (one == index).any() else None
            for index, emotion in enumerate(labels.EMOTIONS)
        },
        "confusion_matrix": confusion_matrix(one, two).tolist(),
        "mistakes": int(wrong.sum()),
        "sided_with": int((wrong & (preds == two)).sum()),
        "confidence": float(answers[rows, preds].mean()),
        "annotators_for_answer": float(shares[both][rows, preds].mean()),
    }
