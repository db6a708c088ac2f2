"""Numbers of ``metrics.json``, from targets and probabilities, in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer.core import labels
from fer.core.errors import DataError
from fer.core.options import check_value, whole
from fer.evaluation.calibration_error import BINS, bins_of
from fer.evaluation.intervals import percentile
from fer.evaluation.scores import (
    SCORES,
    Score,
    confusion_matrix,
    counts_of,
    on_resamples,
    ratio,
    resampling,
)

SMALLEST_GROUP = 20
"""Images; fewer are too few for intervals that say anything (``benchmarks/coverage.py``)."""


@dataclass(frozen=True)
class SplitResult:
    """A network's answers on one split."""

    metrics: dict[str, Any]
    images: np.ndarray
    target: np.ndarray
    probabilities: np.ndarray
    ids: list[str]
    """Sample id of each image, as in the manifest."""

    @property
    def preds(self) -> np.ndarray:
        """Predicted emotion of each image, ``(N,)``."""
        return self.probabilities.argmax(axis=1)


def per_class(matrix: np.ndarray) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support of each emotion; 0 where a ratio is not defined."""
    hits, true, predicted = counts_of(matrix)
    precision, recall = ratio(hits, predicted), ratio(hits, true)
    f1 = ratio(2 * hits, true + predicted)
    return {
        emotion: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(true[i]),
        }
        for i, emotion in enumerate(labels.EMOTIONS)
    }


def reliability(correct: np.ndarray, confidence: np.ndarray) -> list[dict[str, Any]]:
    """Bounds, images, mean confidence and accuracy of the calibration error's 15 bins.

    ``correct`` is ``(N,)`` bool, ``confidence`` ``(N,)``. The means of an empty bin are None.
    """
    bins = bins_of(confidence)
    images = np.bincount(bins, minlength=BINS)
    sure, hits = (np.bincount(bins, weights=x, minlength=BINS) for x in (confidence, correct))
    return [
        {
            "low": index / BINS,
            "high": (index + 1) / BINS,
            "images": int(n),
            "confidence": float(sure[index] / n) if n else None,
            "accuracy": float(hits[index] / n) if n else None,
        }
        for index, n in enumerate(images)
    ]


def intervals(
    target: np.ndarray,
    probabilities: np.ndarray,
    scores: Sequence[Score],
    *,
    resamples: int,
    seed: int,
) -> dict[str, list[float]]:
    """95 % intervals of scores: each score's own, or the percentiles of resampled images."""
    others = [score for score in scores if score.interval is None]
    parts: list[dict[str, np.ndarray]] = []
    if others:
        values_of = on_resamples(others, target, probabilities)
        parts = [values_of(weights) for weights in resampling(len(target), resamples, seed)]
    return {
        score.name: score.interval(target, probabilities, resamples, seed)
        if score.interval
        else percentile(np.concatenate([part[score.name] for part in parts]), len(target))
        for score in scores
    }


def measure_scores(
    target: np.ndarray, probabilities: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Number of images, every score, and their intervals. Fractions, not percent.

    Args:
        target: ``(N,)`` int64, 0–6.
        probabilities: ``(N, 7)``.
        resamples: simulated or resampled sets of images for the intervals that need them.
        seed: seed of these sets.

    Raises:
        ConfigError: there are too few resamples.
        DataError: there is no image, a probability is not finite, or a metric gives no number.
    """
    check_value("metrics.resamples", resamples, whole(100))
    if len(target) == 0:
        raise DataError("expected at least one image to measure, found none.")
    if not np.isfinite(probabilities).all():
        bad = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise DataError(
            f"expected finite probabilities, found {probabilities[bad].tolist()} for image {bad}. "
            "The weights have diverged; lower the learning rate."
        )
    scores = list(SCORES.values())
    return {
        "samples": len(target),
        **{score.name: score(target, probabilities) for score in scores},
        "confidence_intervals": intervals(
            target, probabilities, scores, resamples=resamples, seed=seed
        ),
    }


def measure(
    target: np.ndarray, probabilities: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """:func:`measure_scores`, with per-class figures and the confusion matrix."""
    found = measure_scores(target, probabilities, resamples=resamples, seed=seed)
    matrix = confusion_matrix(target, probabilities.argmax(axis=1))
    return {**found, "per_class": per_class(matrix), "confusion_matrix": matrix.tolist()}


def measure_split(
    dataset: str,
    split: str,
    target: np.ndarray,
    probabilities: np.ndarray,
    leaked: np.ndarray,
    nearly_leaked: np.ndarray | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of ``metrics.json``: :func:`measure_scores`, whose errors name dataset and split.

    Args:
        dataset: name.
        split: name.
        target: ``(N,)`` int64.
        probabilities: ``(N, 7)``.
        leaked: ``(N,)`` bool, images that are duplicated in an earlier split.
        nearly_leaked: the same with near duplicates; None where these are not known.
        resamples: see :func:`measure_scores`.
        seed: see :func:`measure_scores`.
    """
    options: Mapping[str, int] = {"resamples": resamples, "seed": seed}
    parts = {"without_leaks": leaked, "without_near_leaks": nearly_leaked}
    try:
        return {
            "dataset": dataset,
            "split": split,
            **measure(target, probabilities, **options),
            **{
                name: None
                if again.all()
                else measure_scores(target[~again], probabilities[~again], **options)
                for name, again in parts.items()
                if again is not None
            },
            "reliability": reliability(
                target == probabilities.argmax(axis=1), probabilities.max(axis=1)
            ),
        }
    except DataError as error:
        raise DataError(f"{dataset}, split {split}: {error}") from error


def measure_subgroups(
    target: np.ndarray,
    probabilities: np.ndarray,
    attributes: Mapping[str, Sequence[str]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """:func:`measure_scores` of the images that share an annotated attribute.

    ``attributes`` maps a name to the value of each image, an empty text for none.

    Returns:
        attribute → value → samples, scores and intervals, in the order of the values. A group of
        fewer than :data:`SMALLEST_GROUP` images has its samples alone.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, column in attributes.items():
        values = np.array(column)
        for value in sorted(set(column) - {""}):
            own = values == value
            group: dict[str, Any] = {"samples": int(own.sum())}
            if own.sum() >= SMALLEST_GROUP:
                try:
                    group = measure_scores(
                        target[own], probabilities[own], resamples=resamples, seed=seed
                    )
                except DataError as error:
                    raise DataError(f"{name} {value}: {error}") from error
            found.setdefault(name, {})[value] = group
    return found


def describe_empty(metrics: Mapping[str, Any]) -> str | None:
    """A sentence for the reader where an emotion has no image; None where each has one."""
    empty = [name for name, row in metrics["per_class"].items() if row["support"] == 0]
    if not empty:
        return None
    return (
        f"The {metrics['split']} split has no image of {', '.join(empty)}: recall and F1 of it are "
        "not defined (0 in metrics.json). Balanced accuracy averages over the other emotions, "
        "macro-F1 over those that occur or were predicted."
    )
