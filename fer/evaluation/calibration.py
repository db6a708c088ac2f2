"""Temperature scaling: one number that brings a network's confidence to its accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from fer.evaluation.metrics import Scaling, intervals, reliability
from fer.evaluation.scores import SCORES

LOWEST, HIGHEST = 0.05, 20.0
"""Range of temperatures that are tried."""


def scale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities ``(N, 7)`` after dividing the logits by ``temperature``.

    Their logarithms are the logits up to a constant of each image, which softmax removes.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30)) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    scaled: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scaled


def fit_temperature(target: np.ndarray, probabilities: np.ndarray) -> float:
    """Temperature with the smallest negative log-likelihood of target ``(N,)`` on validation.

    Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 4.2. The
    likelihood has one optimum in the temperature.
    """

    def loss(logarithm: float) -> float:
        scaled = scale(probabilities, float(np.exp(logarithm)))
        own = scaled[np.arange(len(target)), target]
        return float(-np.log(np.maximum(own, 1e-300)).mean())

    bounds = np.log([LOWEST, HIGHEST])
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def calibrate(
    val: tuple[np.ndarray, np.ndarray],
    target: np.ndarray,
    probabilities: np.ndarray,
    *,
    fitted_on: str = "val",
    notes: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Scaling:
    """Fit the temperature on validation and measure the calibration that it leads to.

    Args:
        val: target ``(M,)`` and probabilities ``(M, 7)`` of the validation split.
        target: ``(N,)`` of the split that is measured.
        probabilities: ``(N, 7)``.
        fitted_on: name of the validation images.
        notes: what a reader must know about them.
        resamples: simulated sets of images for the interval.
        seed: seed of these sets.

    Returns:
        ``temperature``, ``fitted_on``, ``notes``, ``validation_calibration_error`` before and
        after, ``expected_calibration_error`` with its interval, and the ``reliability`` bins.
    """
    temperature = fit_temperature(*val)
    scaled = scale(probabilities, temperature)
    if not 1.01 * LOWEST < temperature < HIGHEST / 1.01:
        end = (
            f"The temperature stands at an end of what is tried, {LOWEST} to {HIGHEST:.0f}: these "
            "images do not determine it."
        )
        notes = [*notes, end]
    error = SCORES["expected_calibration_error"]
    return {
        "temperature": temperature,
        "fitted_on": f"{fitted_on} ({len(val[0])} images)",
        "notes": list(notes),
        "validation_calibration_error": [
            error(val[0], p) for p in (val[1], scale(val[1], temperature))
        ],
        "expected_calibration_error": error(target, scaled),
        "confidence_intervals": intervals(target, scaled, [error], resamples=resamples, seed=seed),
        "reliability": reliability(target == scaled.argmax(axis=1), scaled.max(axis=1)),
    }
