"""Networks against each other: on the same images, and from one dataset to another."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

from fer.evaluation.intervals import accuracy_difference_interval, percentile
from fer.evaluation.scores import (
    SCORES,
    accuracy,
    confusion_matrix,
    macro_f1,
    on_resamples,
    ratio,
    resampling,
    shown_in,
)


class McNemar(TypedDict):
    """How many images only one of two networks gets right."""

    only_first_right: int
    only_second_right: int
    p_value: float
    """Exact, two-sided."""


class PairedComparison(TypedDict):
    """Second network minus first, on the same images."""

    samples: int
    difference: dict[str, float]
    """Score → difference."""
    confidence_intervals: dict[str, list[float]]
    mcnemar: McNemar


def compare_paired(
    target: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedComparison:
    """Second minus first, on the same images.

    Args:
        target: ``(N,)`` int64.
        first, second: probabilities ``(N, 7)`` of the two networks.
        resamples: bootstrap resamples for the intervals.
        seed: of the bootstrap.

    Returns:
        The scores' differences with intervals, and McNemar's exact test ("Note on the sampling
        error of the difference between correlated proportions or percentages", Psychometrika
        12(2), 1947).
    """
    scores = shown_in("comparisons")
    before, after = (on_resamples(scores, target, found) for found in (first, second))
    draws: dict[str, list[np.ndarray]] = {score.name: [] for score in scores}
    for weights in resampling(len(target), resamples, seed):
        values, other = before(weights), after(weights)
        for name, parts in draws.items():
            parts.append(other[name] - values[name])
    difference = {score.name: score(target, second) - score(target, first) for score in scores}
    only_first, only_second = one_sided(target, first, second)
    ends = {
        name: difference_interval(
            name, difference[name], np.concatenate(parts), only_first, only_second, len(target)
        )
        for name, parts in draws.items()
    }
    return {
        "samples": len(target),
        "difference": difference,
        "confidence_intervals": ends,
        "mcnemar": {
            "only_first_right": only_first,
            "only_second_right": only_second,
            "p_value": exact_p_value(only_first, only_second),
        },
    }


def one_sided(target: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Count the images that only the first, and only the second, of two networks gets right."""
    right = [found.argmax(axis=1) == target for found in (first, second)]
    return int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())


def difference_interval(
    name: str, value: float, draws: np.ndarray, only_first: int, only_second: int, n: int
) -> list[float]:
    """The 95 % interval of a score's difference.

    That of accuracy is Bonett & Price's; others are percentiles of the paired resamples ``draws``
    ``(R,)``. For those of means over the classes the ends are no nearer than accuracy's.
    """
    ends = percentile(draws, n)
    if SCORES[name].interval is None:
        return ends
    low, high = accuracy_difference_interval(only_first, only_second, n)
    if name == "accuracy":
        return [low, high]
    accuracy = (only_second - only_first) / n
    return [min(ends[0], value - (accuracy - low)), max(ends[1], value + (high - accuracy))]


def exact_p_value(first: int, second: int) -> float:
    """Two-sided p-value of this division of images if both sides are equally likely.

    >>> exact_p_value(5, 5), round(exact_p_value(0, 6), 5)
    (1.0, 0.03125)
    """
    n, fewer = first + second, min(first, second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)  # whole numbers of any size: the division is exact


def prior_shift(
    target: np.ndarray, probabilities: np.ndarray, home: np.ndarray, priors: np.ndarray | None
) -> dict[str, float | None]:
    """Measure how much of a result comes from the frequencies of the emotions.

    Args:
        target: ``(N,)`` int64, of the dataset that is measured.
        probabilities: ``(N, 7)``.
        home: ``(7,)``, measured images of each emotion in the network's own dataset.
        priors: ``(7,)``, how frequent the emotions were to the network in training; None where
            that is not known.

    Returns:
        ``accuracy_source_priors``: accuracy if the emotions were as frequent as in the network's
        own dataset: their recall weighted by its shares; None if one of its emotions does not
        occur here.
        ``accuracy_adjusted`` and ``macro_f1_adjusted``: with probabilities divided by the priors
        and multiplied by this dataset's shares, which are taken as known (Saerens, Latinne &
        Decaestecker, Neural Computation 14(1), 2002, equation 2.4). An emotion whose prior is 0
        was never learned, and is not named. None without priors.
    """
    matrix = confusion_matrix(target, probabilities.argmax(axis=1))
    support = matrix.sum(axis=1)
    found: dict[str, float | None] = dict.fromkeys(
        ("accuracy_source_priors", "accuracy_adjusted", "macro_f1_adjusted")
    )
    if not ((support == 0) & (home > 0)).any():
        recall = ratio(np.diagonal(matrix), support)
        found["accuracy_source_priors"] = float((home * recall).sum() / home.sum())
    if priors is not None:
        scaled = probabilities * ratio(support, priors)
        if not scaled.any(axis=1).all():  # no emotion that occurs here was learned
            return found
        adjusted = confusion_matrix(target, scaled.argmax(axis=1))
        found["accuracy_adjusted"] = float(accuracy(adjusted))
        found["macro_f1_adjusted"] = float(macro_f1(adjusted))
    return found
