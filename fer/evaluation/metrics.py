"""Numbers of ``metrics.json``, from targets and probabilities, in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import numpy as np

from fer.core import labels
from fer.core.errors import DataError
from fer.core.options import check_value, whole
from fer.evaluation.calibration_error import BINS, bins_of
from fer.evaluation.intervals import percentile
from fer.evaluation.label_sets import LabelSets
from fer.evaluation.prediction_sets import PredictionSets, Selective
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


# --- what the files hold -------------------------------------------------------------------------


class ClassScores(TypedDict):
    """An emotion's row of ``per_class``; 0 where a ratio is not defined."""

    precision: float
    recall: float
    f1: float
    support: int
    """Images."""


class Bin(TypedDict):
    """A bin of the calibration error. The means of an empty one are None."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


class Group(TypedDict):
    """A group of images; one that is large enough has :class:`Scores`."""

    samples: int


class Scores(Group):
    """Scores of some images; a metric that somebody registers adds its key."""

    accuracy: float
    macro_f1: float
    micro_f1: float
    balanced_accuracy: float
    expected_calibration_error: float
    confidence_intervals: dict[str, list[float]]
    """95 % interval of each score."""


class DetailedScores(Scores):
    """Scores of all images together and of each emotion."""

    per_class: dict[str, ClassScores]
    confusion_matrix: list[list[int]]
    """Rows true, columns predicted."""


class Scaling(TypedDict):
    """``temperature_scaling``: what one fitted temperature makes of the calibration."""

    temperature: float
    fitted_on: str
    notes: list[str]
    """What a reader must know about the images that it was fitted on."""
    validation_calibration_error: list[float]
    """Before and after."""
    expected_calibration_error: float
    confidence_intervals: dict[str, list[float]]
    reliability: list[Bin]


class DamagedScores(TypedDict):
    """Each score that is measured under damage, as one number."""

    accuracy: float
    macro_f1: float
    confidence_intervals: dict[str, list[float]]


class MeanOverSettings(DamagedScores):
    """Mean scores over damaged settings."""

    settings: int


class PublishedMean(TypedDict):
    """Mean accuracy over the settings for which one has been published."""

    settings: int
    accuracy: float
    interval: list[float]


class BesidePublished(PublishedMean):
    """The same beside the published mean, and by the size in pixels at which damage is done."""

    reference_accuracy: float
    at_size: dict[str, PublishedMean]


class _RobustnessSummary(TypedDict):
    relative_area: dict[str, DamagedScores]
    """Perturbation → area under the curve as a share of clean."""
    relative_area_mean: DamagedScores
    mean_over_settings: MeanOverSettings


class RobustnessSummary(_RobustnessSummary, total=False):
    """``robustness``: one number for each perturbation, and over all."""

    beside_published: BesidePublished


class _Metrics(DetailedScores):
    dataset: str
    split: str
    without_leaks: Scores | None
    """Without images that are duplicated in an earlier split; None if none is left."""


class Metrics(_Metrics, total=False):
    """``metrics.json``. Fractions, not percent; what was not measured is missing."""

    without_near_leaks: Scores | None
    """Without near duplicates too."""
    reliability: list[Bin]
    altered_copy: list[str]
    """What was found in a copy that is not the authors'."""
    tta: str
    left_out: dict[str, dict[str, int]]
    """Reason → split → images left out."""
    temperature_scaling: Scaling
    prediction_sets: PredictionSets
    selective: list[Selective]
    label_sets: LabelSets
    subgroups: dict[str, dict[str, Group]]
    """Attribute → value → its images."""
    robustness: RobustnessSummary


# --- how they are computed -----------------------------------------------------------------------


@dataclass(frozen=True)
class SplitResult:
    """A network's answers on one split."""

    metrics: Metrics
    images: np.ndarray
    target: np.ndarray
    probabilities: np.ndarray
    ids: list[str]
    """Sample id of each image, as in the manifest."""

    @property
    def preds(self) -> np.ndarray:
        """Predicted emotion of each image, ``(N,)``."""
        return self.probabilities.argmax(axis=1)


def per_class(matrix: np.ndarray) -> dict[str, ClassScores]:
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


def reliability(correct: np.ndarray, confidence: np.ndarray) -> list[Bin]:
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
) -> Scores:
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
    found = {
        "samples": len(target),
        **{score.name: score(target, probabilities) for score in scores},
        "confidence_intervals": intervals(
            target, probabilities, scores, resamples=resamples, seed=seed
        ),
    }
    return cast(Scores, found)


def measure(
    target: np.ndarray, probabilities: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> DetailedScores:
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
) -> Metrics:
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

    def without(again: np.ndarray) -> Scores | None:
        if again.all():
            return None
        return measure_scores(target[~again], probabilities[~again], **options)

    try:
        found: Metrics = {
            "dataset": dataset,
            "split": split,
            **measure(target, probabilities, **options),
            "without_leaks": without(leaked),
        }
        if nearly_leaked is not None:
            found["without_near_leaks"] = without(nearly_leaked)
        right = target == probabilities.argmax(axis=1)
        found["reliability"] = reliability(right, probabilities.max(axis=1))
        return found
    except DataError as error:
        raise DataError(f"{dataset}, split {split}: {error}") from error


def measure_subgroups(
    target: np.ndarray,
    probabilities: np.ndarray,
    attributes: Mapping[str, Sequence[str]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Group]]:
    """:func:`measure_scores` of the images that share an annotated attribute.

    ``attributes`` maps a name to the value of each image, an empty text for none.

    Returns:
        attribute → value → samples, scores and intervals, in the order of the values. A group of
        fewer than :data:`SMALLEST_GROUP` images has its samples alone.
    """
    found: dict[str, dict[str, Group]] = {}
    for name, column in attributes.items():
        values = np.array(column)
        for value in sorted(set(column) - {""}):
            own = values == value
            group: Group = {"samples": int(own.sum())}
            if own.sum() >= SMALLEST_GROUP:
                try:
                    group = measure_scores(
                        target[own], probabilities[own], resamples=resamples, seed=seed
                    )
                except DataError as error:
                    raise DataError(f"{name} {value}: {error}") from error
            found.setdefault(name, {})[value] = group
    return found


def describe_empty(metrics: Metrics) -> str | None:
    """A sentence for the reader where an emotion has no image; None where each has one."""
    empty = [name for name, row in metrics["per_class"].items() if row["support"] == 0]
    if not empty:
        return None
    return (
        f"The {metrics['split']} split has no image of {', '.join(empty)}: recall and F1 of it are "
        "not defined (0 in metrics.json). Balanced accuracy averages over the other emotions, "
        "macro-F1 over those that occur or were predicted."
    )
