"""95 % intervals of scores that a confusion matrix decides, and of resampled statistics.

``python benchmarks/coverage.py`` simulates how often each of them holds the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from fer.core.labels import NUM_CLASSES

Z = 1.959964
"""97.5 % quantile of the standard normal distribution."""


def student(images: float) -> float:
    """How much further out the ends of an interval lie where a class has few images.

    Student's quantile over the normal one. With one and a half times as many degrees of freedom as
    a class has images, intervals held the truth in 91 to 99 % of simulated samples of 20 to 300
    images; without it, those of 20 did in 78 to 94 %. ``benchmarks/coverage.py`` simulates them.

    >>> [round(student(images), 2) for images in (3, 10, 100)]
    [1.36, 1.09, 1.01]
    """
    return float(stats.t.ppf(0.975, 1.5 * images) / Z)


def percentile(values: np.ndarray, n: int) -> list[float]:
    """The 95 % percentile interval ``[low, high]`` of a statistic's resamples ``(R,)``.

    Resamples of few images vary less than samples do, so the percentiles lie further out
    (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4),
    2015, section 5.3), by :func:`student`.

    Args:
        values: the resampled statistic.
        n: number of images that were resampled.
    """
    tail = stats.norm.cdf(-Z * student(n / NUM_CLASSES))
    low, high = np.quantile(values, [tail, 1 - tail])
    return [float(low), float(high)]


def wilson(hits: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends for proportions ``hits / n``; 0 and 1 where n is 0.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.

    >>> [end.round(3).tolist() for end in wilson(np.array([3, 0]), np.array([3, 0]))]
    [[0.439, 0.0], [1.0, 1.0]]
    """
    n = np.asarray(n, dtype=np.float64)
    centre = (hits + Z**2 / 2) / (n + Z**2)
    spread = hits * (n - hits) / np.maximum(n, 1)
    half = Z * np.sqrt(np.maximum(spread, 0) + Z**2 / 4) / (n + Z**2)
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def accuracy_interval(matrix: np.ndarray) -> list[float]:
    """Wilson's interval of the accuracy of a confusion matrix ``(7, 7)``, which is micro-F1."""
    low, high = wilson(np.trace(matrix), matrix.sum())
    return [float(low), float(high)]


def balanced_accuracy_interval(matrix: np.ndarray) -> list[float]:
    """The interval of a confusion matrix's mean recall: see :func:`mean_interval`."""
    return mean_interval(matrix, matrix.sum(axis=1), lambda recall: recall, np.eye(len(matrix)))


def macro_f1_interval(matrix: np.ndarray) -> list[float]:
    """The interval of the macro-F1 of a confusion matrix ``(7, 7)``, by :func:`mean_interval`.

    The F1 of a class is 2 J / (1 + J), where J is a plain proportion: its hits among the images
    that are of it or taken for it. A mistake counts in two classes, which correlates their F1; how
    much follows from the gradients of F1 in the cells.
    """
    hits, true, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    cells = matrix + 0.1  # a class without images has a gradient, too
    total = cells.sum(axis=0) + cells.sum(axis=1)
    f1 = 2 * np.diag(cells) / total
    own = np.eye(len(matrix))
    in_row, in_column = own[:, :, None], own[:, None, :]  # of a class's row, of its column
    gradient = (2 * in_row * in_column - f1[:, None, None] * (in_row + in_column)) / total[
        :, None, None
    ]
    covariance = np.einsum("iab,ab,jab->ij", gradient, cells, gradient)
    deviation = np.sqrt(np.diag(covariance))
    return mean_interval(
        matrix,
        true + predicted - hits,
        lambda share: 2 * share / (1 + share),
        covariance / np.outer(deviation, deviation),
    )


def mean_interval(
    matrix: np.ndarray,
    images: np.ndarray,
    score_of: Callable[[np.ndarray], np.ndarray],
    correlation: np.ndarray,
) -> list[float]:
    """The interval of a mean over the classes that occur, from Wilson's interval of each.

    The truth that it holds is the mean over the same classes: a class without an image tells
    nothing. No mean over classes is surer than the accuracy: where many classes have few images,
    accuracy's ends are the farther ones. See :func:`student` for small samples.

    Args:
        matrix: confusion matrix ``(7, 7)``.
        images: ``(7,)``, of which each class's hits are a share.
        score_of: the class's score of that share.
        correlation: ``(7, 7)``, of the classes' scores.
    """
    occurs = images > 0
    hits, images = np.diag(matrix)[occurs], images[occurs]
    right, n = np.trace(matrix), matrix.sum()
    ends = wilson(right, n)
    low, high = wilson(hits, images)
    values = score_of(hits / images)
    down, up = distances(
        values - score_of(low), score_of(high) - values, correlation[np.ix_(occurs, occurs)]
    )
    wider, middle = student(n / len(hits)), values.mean()
    down = wider * max(down, right / n - ends[0])
    up = wider * max(up, ends[1] - right / n)
    return [float(max(0, middle - down)), float(min(1, middle + up))]


def distances(below: np.ndarray, above: np.ndarray, correlation: np.ndarray) -> tuple[float, float]:
    """How far the ends of a mean's interval lie from it.

    The distances of its parts add up like standard deviations (MOVER: Zou & Donner, Statistics in
    Medicine 27, 2008).

    Args:
        below, above: ``(K,)``, of the parts' ends from their values.
        correlation: ``(K, K)``, of the parts.
    """
    down, up = (math.sqrt(max(0, d @ correlation @ d)) / len(d) for d in (below, above))
    return down, up


def accuracy_difference_interval(only_first: int, only_second: int, n: int) -> list[float]:
    """The interval of a difference of two accuracies, second less first, on ``n`` images.

    Bonett & Price, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data", Journal of Educational and Behavioral Statistics 37(4), 2012. A bootstrap
    of a few images on which both agree would be sure that they always do.

    Args:
        only_first: images that only the first gets right.
        only_second: those that only the second gets right.
        n: all images.

    >>> [round(end, 3) for end in accuracy_difference_interval(0, 0, 98)]
    [-0.028, 0.028]
    """
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    middle = second - first
    half = Z * np.sqrt((first + second - middle**2) / (n + 2))
    value = (only_second - only_first) / n
    return [float(min(middle - half, value)), float(max(middle + half, value))]
