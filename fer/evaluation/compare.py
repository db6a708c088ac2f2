"""Networks against each other: on the same images, and from one dataset to another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fer.evaluation.intervals import accuracy_difference_interval, percentile
from fer.evaluation.scores import (
    SCORES,
    accuracy,
    confusion_matrix,
    macro_f1,
    on_resamples,
    resampling,
    shown_in,
)


def compare_paired(
    target: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Second minus first, on the same images.

    Args:
        target: ``(N,)`` int64.
        first, second: probabilities ``(N, 7)`` of the two networks.
        resamples: bootstrap resamples for the intervals.
        seed: of the bootstrap.

    Returns:
        ``difference`` and ``confidence_intervals`` of the scores, and ``mcnemar``: how many
        images only the first and only the second gets right, with the exact two-sided p-value
        (McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12(2), 1947).
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
    """How many images only the first, and only the second, of two networks gets right."""
    right = [found.argmax(axis=1) == target for found in (first, second)]
    return int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())


def difference_interval(
    name: str, value: float, draws: np.ndarray, only_first: int, only_second: int, n: int
) -> list[float]:
    """The 95 % interval of a score's difference.

    That of accuracy is Bonett & Price's; others are percentiles of the paired resamples ``draws``
    ``(R,)``. For those of means over the classes the ends are no nearer than accuracy's.
    """
    ends = percentile(draws)
    if SCORES[name].interval is None:
        return ends
    low, high = accuracy_difference_interval(only_first, only_second, n)
    if name == "accuracy":
        return [low, high]
    accuracy = (only_second - only_first) / n
    return [min(ends[0], value - (accuracy - low)), max(ends[1], value + (high - accuracy))]


def exact_p_value(first: int, second: int) -> float:
    """Two-sided p-value of so uneven a division if either side were as likely.

    >>> exact_p_value(5, 5), round(exact_p_value(0, 6), 5)
    (1.0, 0.03125)
    """
    n, fewer = first + second, min(first, second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)  # whole numbers of any size: the division is exact


def prior_shift(
    target: np.ndarray, probabilities: np.ndarray, source: np.ndarray
) -> dict[str, float | None]:
    """How much of a result comes from how frequent the emotions are.

    Args:
        target: ``(N,)`` int64, of the dataset that is measured.
        probabilities: ``(N, 7)``.
        source: ``(7,)``, images of each emotion in the dataset that the network is at home in.

    Returns:
        ``accuracy_source_priors``: accuracy if the emotions were as frequent as in the source,
        which is their recall weighted by the source's shares; None if one that the source has
        does not occur here. ``accuracy_adjusted`` and ``macro_f1_adjusted``: with probabilities
        divided by the source's shares and multiplied by this dataset's, which are taken as known
        (Saerens, Latinne & Decaestecker, Neural Computation 14(1), 2002, equation 2.4).
    """
    matrix = confusion_matrix(target, probabilities.argmax(axis=1))
    support = matrix.sum(axis=1)
    shares = source / source.sum()
    weighted: float | None = None
    if not ((support == 0) & (source > 0)).any():
        recall = np.diagonal(matrix) / np.maximum(support, 1)
        weighted = float((shares * recall).sum())
    ratio = np.divide(support / support.sum(), shares, out=np.zeros(len(shares)), where=shares > 0)
    adjusted = confusion_matrix(target, (probabilities * ratio).argmax(axis=1))
    return {
        "accuracy_source_priors": weighted,
        "accuracy_adjusted": float(accuracy(adjusted)),
        "macro_f1_adjusted": float(macro_f1(adjusted)),
    }
