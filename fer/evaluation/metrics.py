"""Every number of ``metrics.json``, from targets and probabilities, in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer.core import labels
from fer.core.errors import ConfigError, DataError

ECE_BINS = 15
SCALARS = ("accuracy", "macro_f1", "micro_f1", "balanced_accuracy", "expected_calibration_error")


@dataclass(frozen=True)
class SplitResult:
    """What a network says of one split."""

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


def confusion_matrix(target: np.ndarray, preds: np.ndarray) -> np.ndarray:
    """``(7, 7)`` int64, rows true, columns predicted, in the schema's order."""
    c = labels.NUM_CLASSES
    return np.bincount(target * c + preds, minlength=c * c).reshape(c, c)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def scalars_of(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, macro- and micro-F1 and balanced accuracy of confusion matrices ``(..., 7, 7)``.

    As in scikit-learn, macro-F1 averages over the emotions that occur among the targets or the
    predictions, balanced accuracy over those that occur among the targets; with one prediction
    per image, micro-F1 equals accuracy.
    """
    matrix = matrix.astype(np.float64)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)  # (..., 7)
    true = matrix.sum(axis=-1)
    predicted = matrix.sum(axis=-2)
    f1 = _ratio(2 * hits, true + predicted)
    accuracy = _ratio(hits.sum(axis=-1), true.sum(axis=-1))
    return {
        "accuracy": accuracy,
        "macro_f1": _ratio(f1.sum(axis=-1), (true + predicted > 0).sum(axis=-1)),
        "micro_f1": accuracy,
        "balanced_accuracy": _ratio(_ratio(hits, true).sum(axis=-1), (true > 0).sum(axis=-1)),
    }


def per_class(matrix: np.ndarray) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support of each emotion; 0 where a ratio is not defined."""
    hits, true, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall = _ratio(hits, predicted), _ratio(hits, true)
    f1 = _ratio(2 * hits, true + predicted)
    return {
        emotion: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(true[i]),
        }
        for i, emotion in enumerate(labels.EMOTIONS)
    }


def _calibration_terms(
    correct: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each image's bin ``(N,)`` and its confidence minus correctness ``(N,)``."""
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    return bins, confidence - correct


def expected_calibration_error(correct: np.ndarray, confidence: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over 15 bins of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, equation 3.

    Args:
        correct: ``(N,)`` bool.
        confidence: ``(N,)``, the probability of the predicted emotion.
    """
    bins, gap = _calibration_terms(correct, confidence)
    return float(np.abs(np.bincount(bins, weights=gap, minlength=ECE_BINS)).sum() / len(gap))


def reliability(correct: np.ndarray, confidence: np.ndarray) -> list[dict[str, Any]]:
    """The bins of the calibration error: bounds, images, mean confidence and accuracy.

    Args:
        correct: ``(N,)`` bool.
        confidence: ``(N,)``, the probability of the predicted emotion.

    Returns:
        A mapping for each of the 15 bins; its means are None where it has no image.
    """
    bins, _ = _calibration_terms(correct, confidence)
    images = np.bincount(bins, minlength=ECE_BINS)
    sums = [np.bincount(bins, weights=x, minlength=ECE_BINS) for x in (confidence, correct)]
    return [
        {
            "low": index / ECE_BINS,
            "high": (index + 1) / ECE_BINS,
            "images": int(n),
            "confidence": float(sums[0][index] / n) if n else None,
            "accuracy": float(sums[1][index] / n) if n else None,
        }
        for index, n in enumerate(images)
    ]


def resampling(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of ``n`` images is drawn in each bootstrap resample, ``(R, n)`` at a time.

    The same arguments give the same resamples: what is computed on them is paired.
    """
    rng = np.random.default_rng(seed)
    step = max(1, 4_000_000 // n)  # bounds the memory of the weights to 32 MB
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def cells_of(target: np.ndarray, preds: np.ndarray) -> np.ndarray:
    """``(N, 49)``: the cell of the confusion matrix that each image falls into.

    ``weights @ cells_of(...)`` are the confusion matrices of resamples.
    """
    cells = np.zeros((len(target), labels.NUM_CLASSES**2))
    cells[np.arange(len(target)), target * labels.NUM_CLASSES + preds] = 1
    return cells


def interval(values: np.ndarray) -> list[float]:
    """The 95 % percentile interval ``[low, high]`` of a statistic's resamples ``(R,)``.

    Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


def bootstrap(
    target: np.ndarray,
    preds: np.ndarray,
    confidence: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> dict[str, list[float]]:
    """95 % percentile intervals of the scalars, by resampling the images with replacement."""
    n, c = len(target), labels.NUM_CLASSES
    bins, gap = _calibration_terms(target == preds, confidence)
    cells = cells_of(target, preds)
    gaps = np.zeros((n, ECE_BINS))
    gaps[np.arange(n), bins] = gap
    values: dict[str, list[np.ndarray]] = {name: [] for name in SCALARS}
    for weights in resampling(n, resamples, seed):
        for name, value in scalars_of((weights @ cells).reshape(-1, c, c)).items():
            values[name].append(value)
        values["expected_calibration_error"].append(np.abs(weights @ gaps).sum(axis=1) / n)
    return {name: interval(np.concatenate(parts)) for name, parts in values.items()}


def measure(
    target: np.ndarray,
    probabilities: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scalars, intervals, per-class figures and confusion matrix. Fractions, not percent.

    Args:
        target: ``(N,)`` int64, 0–6.
        probabilities: ``(N, 7)``.
        resamples: bootstrap resamples for the intervals.
        seed: of the bootstrap.

    Raises:
        DataError: there is no image, or a probability is not finite.
        ConfigError: too few resamples for an interval.
    """
    if resamples < 100:
        raise ConfigError(
            f"metrics.resamples: expected at least 100 for a 95 % interval, found {resamples}."
        )
    if len(target) == 0:
        raise DataError("expected at least one image to measure, found none.")
    if not np.isfinite(probabilities).all():
        bad = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise DataError(
            f"expected finite probabilities, found {probabilities[bad].tolist()} for image {bad}. "
            "The weights have diverged; lower the learning rate."
        )
    preds = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1).astype(np.float64)
    matrix = confusion_matrix(target, preds)
    return {
        "samples": len(target),
        **{name: float(value) for name, value in scalars_of(matrix).items()},
        "expected_calibration_error": expected_calibration_error(target == preds, confidence),
        "confidence_intervals": bootstrap(
            target, preds, confidence, resamples=resamples, seed=seed
        ),
        "per_class": per_class(matrix),
        "confusion_matrix": matrix.tolist(),
    }


def measure_split(
    dataset: str,
    split: str,
    target: np.ndarray,
    probabilities: np.ndarray,
    leaked: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of ``metrics.json``.

    Args:
        dataset: its name.
        split: ``train``, ``val`` or ``test``.
        target: ``(N,)`` int64.
        probabilities: ``(N, 7)``.
        leaked: ``(N,)`` bool, images that stand again in an earlier split.
        resamples: bootstrap resamples for the intervals.
        seed: of the bootstrap.
    """
    options: Mapping[str, int] = {"resamples": resamples, "seed": seed}
    metrics = {
        "dataset": dataset,
        "split": split,
        **measure(target, probabilities, **options),
        "without_leaks": None,
        "reliability": reliability(
            target == probabilities.argmax(axis=1), probabilities.max(axis=1)
        ),
    }
    if not leaked.all():
        clean = measure(target[~leaked], probabilities[~leaked], **options)
        kept: Sequence[str] = ("samples", *SCALARS, "confidence_intervals")
        metrics["without_leaks"] = {name: clean[name] for name in kept}
    return metrics


def measure_subgroups(
    target: np.ndarray,
    probabilities: np.ndarray,
    attributes: Mapping[str, Sequence[str]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Scalars of the images that share an annotated attribute.

    Args:
        target: ``(N,)`` int64.
        probabilities: ``(N, 7)``.
        attributes: name → the value of each image; an empty text for none.
        resamples: bootstrap resamples for the intervals.
        seed: of the bootstrap.

    Returns:
        attribute → value → samples, scalars and intervals, in the order of the values.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, column in attributes.items():
        values = np.array(column)
        for value in sorted(set(column) - {""}):
            chosen = values == value
            group = measure(target[chosen], probabilities[chosen], resamples=resamples, seed=seed)
            kept = ("samples", *SCALARS, "confidence_intervals")
            found.setdefault(name, {})[value] = {key: group[key] for key in kept}
    return found


def describe_empty(metrics: Mapping[str, Any]) -> str | None:
    """What a reader must know where an emotion has no image; None where each has one."""
    empty = [name for name, row in metrics["per_class"].items() if row["support"] == 0]
    if not empty:
        return None
    return (
        f"The {metrics['split']} split has no image of {', '.join(empty)}: recall and F1 of it are "
        "not defined (0 in metrics.json). Balanced accuracy averages over the other emotions, "
        "macro-F1 over those that occur or were predicted."
    )
