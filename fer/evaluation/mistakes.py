"""Predictions of every image, and the mistakes worth looking at."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import from_cell, open_data, write_csv
from fer.evaluation.scores import confusion_matrix

SHARES = tuple(f"p_{emotion}" for emotion in labels.EMOTIONS)
PREDICTION_COLUMNS = ("id", "true", "predicted", "confidence", *SHARES)
"""Columns of ``predictions.csv``."""


@dataclass(frozen=True)
class Confusion:
    """Images of one emotion that are taken for another."""

    true: str
    predicted: str
    rows: np.ndarray
    """Indices of the images, the most confident mistake first."""
    share: float
    """Their share of the images of the true emotion."""


def frequent_confusions(
    target: np.ndarray, probabilities: np.ndarray, pairs: int
) -> list[Confusion]:
    """Find up to ``pairs`` pairs of a true and another, predicted emotion, most frequent first.

    Args:
        target: ``(N,)`` int64.
        probabilities: ``(N, 7)``.
        pairs: how many; pairs that do not occur are left out.
    """
    preds, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    matrix = confusion_matrix(target, preds)
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    found = []
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:pairs]:
        true, predicted = divmod(int(cell), len(matrix))
        rows = np.flatnonzero((target == true) & (preds == predicted))
        if wrong[true, predicted]:
            rows = rows[np.argsort(-confidence[rows], kind="stable")]
            share = float(len(rows) / matrix[true].sum())
            found.append(Confusion(labels.EMOTIONS[true], labels.EMOTIONS[predicted], rows, share))
    return found


def confident_mistakes(target: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Rows of the wrongly predicted images, the most confident mistake first, ``count`` at most."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != target)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:count]]


def write_predictions(
    path: Path, ids: Sequence[str], target: np.ndarray, probabilities: np.ndarray
) -> Path:
    """Write ``predictions.csv``: id, true and predicted emotion, confidence, seven probabilities.

    Nine digits bring back every float32 exactly.
    """
    preds = probabilities.argmax(axis=1)
    rows = (
        [id, labels.EMOTIONS[true], labels.EMOTIONS[pred], f"{own[pred]:.9g}"]
        + [f"{p:.9g}" for p in own]
        for id, true, pred, own in zip(ids, target, preds, probabilities, strict=True)
    )
    return write_csv(
        path, PREDICTION_COLUMNS, (dict(zip(PREDICTION_COLUMNS, row, strict=True)) for row in rows)
    )


def read_predictions(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, target ``(N,)`` int64 and probabilities ``(N, 7)`` float32 of ``predictions.csv``.

    Raises:
        DataError: the file cannot be read or is not such a table.
    """
    try:
        with open_data(path) as data:
            file = io.TextIOWrapper(data, "utf-8", "surrogateescape", newline="")
            table = csv.DictReader(file)
            rows = list(table)
            if not set(PREDICTION_COLUMNS) <= set(table.fieldnames or ()):
                raise ValueError("other columns")
        probabilities = np.array(
            [[float(row[column]) for column in SHARES] for row in rows], dtype=np.float32
        ).reshape(-1, labels.NUM_CLASSES)
        if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN is refused too
            raise ValueError("numbers that are not probabilities")
        return (
            [from_cell(row["id"]) for row in rows],
            np.array([labels.INDEX[row["true"]] for row in rows], dtype=np.int64),
            probabilities,
        )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path}: expected the table of predictions that evaluate.py writes, found: {error!r}. "
            "Evaluate the checkpoint again."
        ) from error
