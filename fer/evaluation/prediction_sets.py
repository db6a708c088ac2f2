"""Answers for when a network is unsure: sets of emotions, or none at all.

Prediction sets hold the true emotion of as large a share of the images as was asked for, however
good the network is: split conformal prediction with adaptive sets (Romano, Sesia & Candès,
"Classification with Valid and Adaptive Coverage", NeurIPS 2020, arXiv 2006.02544), calibrated on
validation images. An unsure network gives large sets. The score is theirs without its random part,
so that an image always gets the same set, and one that is never empty. On FER2013's PublicTest,
halved fifty times at random, the sets of 90 % had 2.15 emotions on average, with the random part
2.39; the penalty for large sets of RAPS (arXiv 2009.14193) made them no smaller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypedDict

import numpy as np
from scipy import stats

from fer.core import labels
from fer.core.errors import ConfigError, DataError

KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the images, the surest first, of which the accuracy is reported."""


class ClassOfSets(TypedDict):
    """The sets of the images of one emotion; fractions are None where there is no image."""

    support: int
    coverage: float | None
    mean_size: float | None


class Selective(TypedDict):
    """The surest images alone."""

    kept: float
    images: int
    accuracy: float


class PredictionSets(TypedDict):
    """What the sets of some images are worth."""

    level: float
    """The share of the sets that ought to hold the true emotion."""
    threshold: float
    """The most probability that stands above an emotion in a set; for :func:`make_sets`."""
    calibrated_on: str
    coverage: float
    """The share of the sets that do hold it."""
    expected: list[float]
    """Where the coverage lies in 95 % of all cases if both splits are alike."""
    mean_size: float
    sizes: list[int]
    """Images whose set has one, two, … seven emotions."""
    per_class: dict[str, ClassOfSets]


def mass_above(probabilities: np.ndarray) -> np.ndarray:
    """The score of each emotion: how much probability the more probable ones have together.

    Args:
        probabilities: ``(N, 7)``.

    Returns:
        ``(N, 7)`` float64, 0 for the most probable emotion.

    >>> mass_above(np.array([[0.5, 0.125, 0.375, 0, 0, 0, 0]]))[0, :3].tolist()
    [0.0, 0.875, 0.5]
    """
    probabilities = probabilities.astype(np.float64)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    above = np.zeros_like(ordered)
    np.cumsum(ordered[:, :-1], axis=1, out=above[:, 1:])
    scores = np.empty_like(above)
    np.put_along_axis(scores, order, above, axis=1)
    return scores


def check_level(level: float, images: int) -> None:
    """Refuse a level for which too few images calibrate: the sets would hold every emotion.

    Raises:
        ConfigError: there are too few.
    """
    # The position that is needed among the scores, and an endless one, must not be the endless one.
    needed = math.ceil(round(level / (1 - level), 9))
    if images < needed:
        raise ConfigError(
            f"prediction_sets: expected at least {needed:,} validation images for sets of "
            f"{100 * level:g} %, found {images:,}. Ask for less, or hold out more images."
        )


def calibrate_sets(target: np.ndarray, probabilities: np.ndarray, level: float) -> float:
    """The threshold for :func:`make_sets` at which ``level`` of the sets hold the true emotion.

    Args:
        target: ``(M,)`` of images that the network has not learned from.
        probabilities: ``(M, 7)``.
        level: a share between 0 and 1.

    Raises:
        ConfigError: there are too few images.
    """
    check_level(level, len(target))
    scores = np.sort(mass_above(probabilities)[np.arange(len(target)), target])
    return float(scores[_position(level, len(target)) - 1])


def _position(level: float, images: int) -> int:
    """Which of the ordered scores is the threshold, counted from 1."""
    return max(1, math.ceil(round((images + 1) * level, 9)))


def make_sets(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Which emotions are in the set of each image: ``(N, 7)`` bool of probabilities ``(N, 7)``."""
    return mass_above(probabilities) <= threshold


def measure_sets(
    val: tuple[np.ndarray, np.ndarray],
    target: np.ndarray,
    probabilities: np.ndarray,
    level: float,
    calibrated_on: str = "val",
) -> PredictionSets:
    """Calibrate sets on validation, and measure those of other images.

    Args:
        val: target ``(M,)`` and probabilities ``(M, 7)`` of the validation split.
        target: ``(N,)`` of the split that is measured.
        probabilities: ``(N, 7)``.
        level: a share between 0 and 1.
        calibrated_on: name of the validation images.

    Raises:
        ConfigError: there are too few validation images.
    """
    threshold = calibrate_sets(*val, level)
    inside = make_sets(probabilities, threshold)
    covered = inside[np.arange(len(target)), target]
    size = inside.sum(axis=1)
    m, n = len(val[0]), len(target)
    # The coverage that a threshold has varies with the images that calibrate it (a beta
    # distribution), and that of the sample with its images: together, beta-binomial. All images
    # whose best guess is right have the score 0: where that is the threshold, the sets hold more.
    first, last = _position(level, m), int(make_sets(val[1], threshold)[np.arange(m), val[0]].sum())
    low = stats.betabinom(n, first, m + 1 - first).ppf(0.025)
    high = stats.betabinom(n, last, m + 1 - last).ppf(0.975)
    per_class: dict[str, ClassOfSets] = {}
    for index, emotion in enumerate(labels.EMOTIONS):
        own = target == index
        there = bool(own.any())
        per_class[emotion] = {
            "support": int(own.sum()),
            "coverage": float(covered[own].mean()) if there else None,
            "mean_size": float(size[own].mean()) if there else None,
        }
    return {
        "level": level,
        "threshold": threshold,
        "calibrated_on": f"{calibrated_on} ({m} images)",
        "coverage": float(covered.mean()),
        "expected": [float(low / n), float(high / n)],
        "mean_size": float(size.mean()),
        "sizes": np.bincount(size, minlength=labels.NUM_CLASSES + 1)[1:].tolist(),
        "per_class": per_class,
    }


def risk_curve(target: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The share of mistakes among the k surest images, for k from 1 to N: ``(N,)``.

    Geifman & El-Yaniv, "Selective Classification for Deep Neural Networks", arXiv 1705.08500.
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != target)[order]
    return wrong.cumsum() / np.arange(1, len(wrong) + 1)


def selective_accuracy(target: np.ndarray, probabilities: np.ndarray) -> list[Selective]:
    """Accuracy of the surest :data:`KEPT` of the images.

    Args:
        target: ``(N,)``.
        probabilities: ``(N, 7)``.
    """
    risk = risk_curve(target, probabilities)

    def rows() -> Iterator[Selective]:
        for kept in KEPT:
            images = max(1, round(kept * len(risk)))
            yield {"kept": kept, "images": images, "accuracy": 1 - float(risk[images - 1])}

    return list(rows())


def read_threshold(content: object, source: str) -> float:
    """The threshold in the content of an evaluation's ``metrics.json``.

    Raises:
        DataError: there is none.
    """
    found = content.get("prediction_sets") if isinstance(content, Mapping) else None
    threshold = found.get("threshold") if isinstance(found, Mapping) else None
    if isinstance(content, Mapping) and content.get("tta") is not None:
        raise DataError(
            f"{source}: expected sets that single passes calibrate, found tta={content['tta']}. "
            "Evaluate without tta."
        )
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise DataError(
            f"{source}: expected the metrics.json of an evaluation with prediction sets, found "
            "none in it. python evaluate.py checkpoint=PATH prediction_sets=0.9 makes one."
        )
    return threshold
