"""Scores of a network: what each is called, how it is computed, and where it is shown.

``metrics.json``, tables, pages, the model card, sweeps and comparisons follow :data:`SCORES`. A
metric of one's own is a function with its entry, in any module that is imported before measuring::

    from fer.evaluation.scores import register_score

    @register_score("top2_accuracy", heading="top-2 accuracy")
    def top2_accuracy(target, probabilities):
        \"\"\"share of images whose emotion is among the two most probable\"\"\"
        return (probabilities.argsort(axis=1)[:, -2:] == target[:, None]).any(axis=1).mean()
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

import numpy as np

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.words import PERCENT, Format
from fer.evaluation.calibration_error import calibration_error, calibration_error_interval
from fer.evaluation.intervals import (
    accuracy_interval,
    balanced_accuracy_interval,
    macro_f1_interval,
)

TABLES = ("cards", "comparisons", "sweeps", "robustness")
"""Tables that show some of the scores only.

- ``cards``: on top of a run's page.
- ``comparisons``: of networks, datasets and groups (``cross_dataset.csv``, ``comparison.json``).
- ``sweeps``: of many trainings (``sweep.csv``, TensorBoard's HParams, the model card's metadata).
- ``robustness``: scores of every damaged copy of the images, which takes that much longer.
"""
RESERVED = {
    *("dataset", "split", "samples", "confidence_intervals", "per_class", "confusion_matrix"),
    *("without_leaks", "without_near_leaks", "reliability", "altered_copy", "tta", "left_out"),
    *("prediction_sets", "selective", "label_sets"),
    *("temperature_scaling", "measured_on", "subgroups", "robustness", "train_dataset"),
    *("test_dataset", "seeds", "network", "run"),
    *("accuracy_source_priors", "accuracy_adjusted", "macro_f1_adjusted", "reference_accuracy"),
    *("perturbation", "severity", "parameters", "image_size", "settings"),
    *(f"recall_{emotion}" for emotion in labels.EMOTIONS),
}
"""Keys and columns beside the scores in a run's files."""

Function = Callable[[np.ndarray, np.ndarray], float]
"""A number from target ``(N,)`` int64 and probabilities ``(N, 7)``."""
F = TypeVar("F", bound=Function)


@dataclass(frozen=True)
class Score:
    """A metric of all images together."""

    name: str
    """Key in files."""
    heading: str
    """Name within a sentence, such as macro-F1."""
    meaning: str
    """Its meaning in a few words."""
    function: Function
    higher_is_better: bool = True
    format: Format = PERCENT
    tables: tuple[str, ...] = ("cards", "comparisons", "sweeps")
    """The :data:`TABLES` that show it."""
    formula: Callable[[np.ndarray], np.ndarray] | None = None
    """The score from confusion matrices ``(..., 7, 7)``, which is faster on resamples; None to call
    the function for each of them."""
    interval: Callable[[np.ndarray, np.ndarray, int, int], list[float]] | None = None
    """95 % interval from target, probabilities, resamples and seed; None for bootstrap
    percentiles."""

    @property
    def title(self) -> str:
        """Column title: Macro-F1."""
        return self.heading[:1].upper() + self.heading[1:]

    def __call__(self, target: np.ndarray, probabilities: np.ndarray) -> float:
        """Compute the score of target ``(N,)`` int64 and probabilities ``(N, 7)``.

        Raises:
            DataError: the function fails, or returns something other than a finite number.
        """
        try:
            # Copies: a formula that works in place must not change what others measure.
            value = self.function(target.copy(), probabilities.copy())
        except Exception as error:
            raise DataError(
                f"metric {self.name}: expected a number for {len(target)} images, found an error "
                f"in {_place(self.function)}: {error!r}. Mend the function."
            ) from error
        if not isinstance(value, Real) or not math.isfinite(value):
            raise DataError(
                f"metric {self.name}: expected a finite number for {len(target)} images, found "
                f"{value!r}. Return 0.0 for what is not defined (resamples and groups may lack an "
                f"emotion), or mend {_place(self.function)}."
            )
        return float(value)


def _place(function: Function) -> str:
    """Dotted name of a function; the same after its module has been imported again."""
    return f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"


# --- the formulas of the built-in scores ---------------------------------------------------------


def confusion_matrix(target: np.ndarray, preds: np.ndarray) -> np.ndarray:
    """``(7, 7)`` int64, rows true, columns predicted, in the schema's order."""
    c = labels.NUM_CLASSES
    return np.bincount(target * c + preds, minlength=c * c).reshape(c, c)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def counts_of(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, true and predicted images of each emotion ``(..., 7)``, from ``(..., 7, 7)``."""
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Accuracy of confusion matrices ``(..., 7, 7)``; micro-F1 is the same number."""
    hits, true, _ = counts_of(matrix)
    return ratio(hits.sum(axis=-1), true.sum(axis=-1))


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """Macro-F1 of confusion matrices ``(..., 7, 7)``.

    As in scikit-learn, over the emotions that occur among the targets or the predictions.
    """
    hits, true, predicted = counts_of(matrix)
    f1 = ratio(2 * hits, true + predicted)
    return ratio(f1.sum(axis=-1), (true + predicted > 0).sum(axis=-1))


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Mean recall of confusion matrices ``(..., 7, 7)``, over the emotions that have images."""
    hits, true, _ = counts_of(matrix)
    return ratio(ratio(hits, true).sum(axis=-1), (true > 0).sum(axis=-1))


def certainty(target: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits ``(N,)`` bool and confidence ``(N,)`` of the predicted emotions."""
    return target == probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)


# --- the registry --------------------------------------------------------------------------------


def _of_matrix(
    name: str,
    heading: str,
    meaning: str,
    formula: Callable[[np.ndarray], np.ndarray],
    interval: Callable[[np.ndarray], list[float]],
    *tables: str,
) -> Score:
    """A score that the confusion matrix decides."""

    @functools.wraps(formula)
    def function(target: np.ndarray, probabilities: np.ndarray) -> float:
        return float(formula(confusion_matrix(target, probabilities.argmax(axis=1))))

    def interval_of(
        target: np.ndarray, probabilities: np.ndarray, resamples: int, seed: int
    ) -> list[float]:
        matrix = confusion_matrix(target, probabilities.argmax(axis=1))
        value, (low, high) = float(formula(matrix)), interval(matrix)
        return [min(low, value), max(high, value)]  # with a handful of images it may lie outside

    return Score(
        name, heading, meaning, function, tables=tables, formula=formula, interval=interval_of
    )


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        _of_matrix(
            "accuracy",
            "accuracy",
            "share of images predicted correctly",
            accuracy,
            accuracy_interval,
            *TABLES,
        ),
        _of_matrix(
            "macro_f1",
            "macro-F1",
            "mean of the emotions' F1, each counting the same",
            macro_f1,
            macro_f1_interval,
            *TABLES,
        ),
        _of_matrix(
            "micro_f1",
            "micro-F1",
            "F1 over all images; equals accuracy with one label per image",
            accuracy,
            accuracy_interval,
        ),
        _of_matrix(
            "balanced_accuracy",
            "balanced accuracy",
            "mean of the emotions' recall",
            balanced_accuracy,
            balanced_accuracy_interval,
            *("cards", "comparisons"),
        ),
        Score(
            "expected_calibration_error",
            "calibration error",
            "ECE, mean gap between confidence and accuracy, less what chance adds to it; lower is "
            "better",
            lambda target, probabilities: calibration_error(*certainty(target, probabilities)),
            higher_is_better=False,
            tables=("cards",),
            interval=lambda target, probabilities, resamples, seed: calibration_error_interval(
                *certainty(target, probabilities), resamples, seed
            ),
        ),
    )
}
"""Name → score, in the order of ``metrics.json`` and of every table."""


def shown_in(table: str) -> list[Score]:
    """Scores that one of :data:`TABLES` shows, in order."""
    return [score for score in SCORES.values() if table in score.tables]


def scores_in(found: Mapping[str, Any]) -> dict[str, float]:
    """The registered scores that a record such as ``metrics.json`` holds.

    A record from before a score was registered lacks it.
    """
    return {name: found[name] for name in SCORES if name in found}


def register_score(
    name: str,
    *,
    heading: str | None = None,
    meaning: str | None = None,
    higher_is_better: bool = True,
    format: Format = PERCENT,
    tables: Sequence[str] = Score.tables,
) -> Callable[[F], F]:
    """Decorate a function to add it to :data:`SCORES`; the function stays as it is.

    Args:
        name: key in files: lower-case letters, digits and _.
        heading: name within a sentence; the words of ``name`` by default.
        meaning: what it is, in a few words; the first line of the docstring by default.
        higher_is_better: direction.
        format: ``PERCENT`` for fractions, ``NUMBER`` for anything else, both of
            :mod:`fer.core.words`.
        tables: the :data:`TABLES` that show it, beside ``metrics.json`` and the tables of all
            scores.

    Raises:
        ConfigError: the name is taken or not a name, or there is no such table.

    >>> @register_score("share_of_happy", heading="share of happy", tables=[])
    ... def share_of_happy(target, probabilities):
    ...     return (probabilities.argmax(axis=1) == 3).mean()
    >>> SCORES.pop("share_of_happy")(np.array([3, 0]), np.eye(7)[[3, 3]])
    1.0
    """
    _check_entry(name, tables)

    def register(function: F) -> F:
        known = SCORES.get(name)
        if known is not None and _place(known.function) != _place(function):
            raise ConfigError(
                f"metric {name}: expected one function of this name, found {_place(function)} "
                f"beside {_place(known.function)}. Give one of them another name."
            )
        line = (function.__doc__ or "").strip().partition("\n")[0]
        SCORES[name] = Score(
            name,
            name.replace("_", " ") if heading is None else heading,
            line if meaning is None else meaning,
            function,
            higher_is_better,
            format,
            tuple(tables),
        )
        return function

    return register


def _check_entry(name: str, tables: Sequence[str]) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f"metric {name!r}: expected a name of lower-case letters, digits and _ that begins "
            "with a letter, such as cohen_kappa. Rename it."
        )
    others = [other for other in SCORES if other != name]
    taken = _columns(name) & RESERVED.union(*map(_columns, others))
    if taken:
        raise ConfigError(
            f"metric {name}: expected a name that is free in a run's files, found a key or column "
            f"{min(taken, key=len)} there. Rename it."
        )
    unknown = sorted(set(tables) - set(TABLES))
    if unknown:
        raise ConfigError(
            f"metric {name}: expected tables among {', '.join(TABLES)}, found "
            f"{', '.join(unknown)}. Correct them or leave them out."
        )


def _columns(name: str) -> set[str]:
    """Columns that a score may have in a table."""
    return {f"{a}{name}{b}" for a in ("", "drop_", "delta_") for b in ("", "_low", "_high")}


# --- resamples -----------------------------------------------------------------------------------


def resampling(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights ``(R, n)``: how often each of ``n`` images is in each bootstrap resample.

    The same arguments give the same resamples: what is computed on them is paired.
    """
    rng = np.random.default_rng(seed)
    step = max(1, 4_000_000 // n)  # bounds the memory of the weights to 32 MB
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def on_resamples(
    scores: Sequence[Score], target: np.ndarray, probabilities: np.ndarray
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Make a function from the weights ``(R, N)`` of resamples to each score's values ``(R,)``."""
    c = labels.NUM_CLASSES
    cells = np.eye(c * c)[target * c + probabilities.argmax(axis=1)]  # of the confusion matrix

    def values_of(weights: np.ndarray) -> dict[str, np.ndarray]:
        matrices = (weights @ cells).reshape(-1, c, c)
        found = {
            score.name: score.formula(matrices) if score.formula else np.empty(len(weights))
            for score in scores
        }
        others = [score for score in scores if score.formula is None]
        for index, counts in enumerate(weights.astype(np.int64) if others else ()):
            rows = np.repeat(np.arange(len(target)), counts)
            for score in others:
                found[score.name][index] = score(target[rows], probabilities[rows])
        return found

    return values_of
