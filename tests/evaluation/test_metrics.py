from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.evaluation.calibration_error import bins_of, calibration_error
from fer.evaluation.intervals import (
    balanced_accuracy_interval,
    macro_f1_interval,
    percentile,
)
from fer.evaluation.metrics import measure, measure_split, per_class
from fer.evaluation.scores import SCORES, balanced_accuracy, confusion_matrix, macro_f1

classes = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int64, n, elements=st.integers(0, 6)),
        hnp.arrays(np.int64, n, elements=st.integers(0, 6)),
    )
)


@settings(max_examples=60, deadline=None)
@given(classes)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_scalars_and_per_class_figures_are_scikit_learns(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    target, preds = pair
    matrix = confusion_matrix(target, preds)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(target, preds, labels=range(7)))
    found = {name: score(target, np.eye(7)[preds]) for name, score in SCORES.items()}
    expected = {
        "accuracy": sk.accuracy_score(target, preds),
        "macro_f1": sk.f1_score(target, preds, average="macro", zero_division=0),
        "micro_f1": sk.f1_score(target, preds, average="micro", zero_division=0),
        "balanced_accuracy": sk.balanced_accuracy_score(target, preds),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        target, preds, labels=range(7), zero_division=0
    )
    for index, row in enumerate(per_class(matrix).values()):
        assert row["precision"] == pytest.approx(precision[index], abs=1e-12)
        assert row["recall"] == pytest.approx(recall[index], abs=1e-12)
        assert row["f1"] == pytest.approx(f1[index], abs=1e-12)
        assert row["support"] == support[index]


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy() -> None:
    # Two bins of many images, whose gaps chance hardly changes: |0.95 - 0.75| and |0.55 - 0.5|.
    confidence = np.repeat([0.95, 0.55], 40_000)
    correct = np.concatenate([np.arange(40_000) % 4 > 0, np.arange(40_000) % 2 > 0])
    assert calibration_error(correct, confidence) == pytest.approx(0.125)
    assert calibration_error(np.ones(3, bool), np.ones(3)) == 0.0


def test_chance_is_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        confidence = rng.uniform(0.3, 1, 700)
        found.append(calibration_error(rng.random(700) < confidence, confidence))
    assert np.mean(found) < 0.02  # the mean absolute gap of the bins is 0.04


def simulate(n: int, accuracy: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    target = rng.integers(0, 7, n)
    wrong = (target + rng.integers(1, 7, n)) % 7
    preds = np.where(rng.random(n) < accuracy, target, wrong)
    probabilities = np.full((n, 7), 0.4 / 6)
    probabilities[np.arange(n), preds] = 0.6
    return target, probabilities


def covered(
    n: int, truth: dict[str, float], shares: np.ndarray, recall: float, overconfident: float
) -> dict[str, float]:
    """Share of 300 trials in which each interval holds the truth; confidence is off by so much."""
    rng = np.random.default_rng(0)
    held = dict.fromkeys(truth, 0)
    for trial in range(300):
        target = rng.choice(7, n, p=shares)
        preds = np.where(rng.random(n) < recall, target, (target + rng.integers(1, 7, n)) % 7)
        sure = np.clip(recall + overconfident + rng.choice([-0.04, 0.04], n), 0, 1)
        sure = np.where(rng.random(n) < 0.5, sure, recall + overconfident)
        probabilities = np.repeat((1 - sure[:, None]) / 6, 7, axis=1)
        probabilities[np.arange(n), preds] = sure
        for name, value in truth.items():
            interval = SCORES[name].interval
            assert interval is not None
            low, high = interval(target, probabilities, 200, trial)
            assert low - 1e-12 <= SCORES[name](target, probabilities) <= high + 1e-12
            held[name] += low <= value <= high
    return {name: count / 300 for name, count in held.items()}


FER2013 = np.array([491, 55, 528, 879, 594, 416, 626]) / 3589


@pytest.mark.parametrize("n", [20, 70, 700, 3589])
@pytest.mark.parametrize("recall", [0.7, 0.94])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n: int, recall: float) -> None:
    truth = {"accuracy": recall, "balanced_accuracy": recall}
    for shares in (np.full(7, 1 / 7), FER2013):
        for name, found in covered(n, truth, shares, recall, 0.0).items():
            assert 0.90 <= found <= (0.99 if n > 20 else 1), (name, found)


def test_percentiles_of_few_images_lie_far_enough_out() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for sample in rng.standard_normal((1000, 20)):
        low, high = percentile(rng.choice(sample, (500, 20)).mean(axis=1), 20)
        covered.append(low <= 0 <= high)
    assert 0.95 <= np.mean(covered) <= 0.99  # plain percentiles: 0.914


INTERVALS = {macro_f1: macro_f1_interval, balanced_accuracy: balanced_accuracy_interval}


@pytest.mark.parametrize("n", [300, 3589])
@pytest.mark.parametrize(
    ("shares", "recall"),
    [
        ([0.05, 0.06, 0.02, 0.38, 0.16, 0.1, 0.23], [0.3, 0.05, 0.05, 0.97, 0.75, 0.6, 0.9]),
        ([1 / 3, 0, 0, 1 / 3, 1 / 3, 0, 0], [0.8] * 7),
    ],
    ids=["rare emotions fail", "three emotions"],
)
def test_means_over_uneven_classes_are_covered(
    n: int, shares: list[float], recall: list[float]
) -> None:
    rng, own, right = np.random.default_rng(0), np.array(shares), np.diag(recall)
    cells = own[:, None] * (right + (1 - np.array(recall))[:, None] * own / own.sum())
    for score in (macro_f1, balanced_accuracy):
        truth, held = float(score(cells)), 0
        for _ in range(300):
            matrix = rng.multinomial(n, (cells / cells.sum()).ravel()).reshape(7, 7)
            low, high = INTERVALS[score](matrix)
            held += low <= truth <= high
        assert 0.92 <= held / 300 <= 0.99, score.__name__


@pytest.mark.parametrize("n", [70, 700])
def test_the_interval_of_macro_f1_covers_it(n: int) -> None:
    for shares in (np.full(7, 1 / 7), FER2013):
        matrix = shares[:, None] * (np.full((7, 7), 0.05) + np.eye(7) * 0.65)
        f1 = 2 * np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1))
        (found,) = covered(n, {"macro_f1": f1.mean()}, shares, 0.7, 0.0).values()
        assert 0.90 <= found <= 0.99


@pytest.mark.parametrize(("n", "gap"), [(70, 0.0), (700, 0.03), (70, 0.1), (700, 0.1)])
def test_the_interval_of_the_calibration_error_covers_it(n: int, gap: float) -> None:
    (found,) = covered(
        n, {"expected_calibration_error": error_of(0.7, gap)}, FER2013, 0.7, gap
    ).values()
    assert 0.91 <= found <= 0.995


def error_of(recall: float, gap: float) -> float:
    """True calibration error of :func:`covered`'s network, whose accuracy is always the same."""
    levels = recall + gap + np.array([-0.04, 0.0, 0.04])
    sums = np.bincount(bins_of(levels), np.array([0.25, 0.5, 0.25]) * (levels - recall))
    return float(np.abs(sums).sum())


def test_the_schema_is_complete_and_is_json() -> None:
    target, probabilities = simulate(100, 0.5, np.random.default_rng(1))
    leaked = np.zeros(100, bool)
    leaked[:40] = True
    found = measure_split("fer2013", "test", target, probabilities, leaked, resamples=100)
    assert list(found) == [
        "dataset", "split", "samples", "accuracy", "macro_f1", "micro_f1", "balanced_accuracy",
        "expected_calibration_error", "confidence_intervals", "per_class", "confusion_matrix",
        "without_leaks", "reliability",
    ]  # fmt: skip
    assert list(found["per_class"]) == list(labels.EMOTIONS)
    assert set(found["confidence_intervals"]) == set(SCORES)
    clean = measure(target[40:], probabilities[40:], resamples=100)
    assert found["without_leaks"] is not None
    assert found["without_leaks"]["samples"] == 60
    assert found["without_leaks"]["accuracy"] == clean["accuracy"]
    json.dumps(found, allow_nan=False)


def test_when_every_image_leaks_there_is_nothing_left_to_measure() -> None:
    target, probabilities = simulate(10, 0.5, np.random.default_rng(1))
    found = measure_split("x", "test", target, probabilities, np.ones(10, bool), resamples=100)
    assert found["without_leaks"] is None


def test_the_same_seed_gives_the_same_intervals() -> None:
    target, probabilities = simulate(100, 0.5, np.random.default_rng(1))
    first, again, other = (
        measure(target, probabilities, resamples=200, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_rows_are_true_and_columns_predicted() -> None:
    matrix = confusion_matrix(np.array([3, 3, 3]), np.array([3, 4, 4]))
    assert matrix[3, 3] == 1 and matrix[3, 4] == 2 and matrix[4, 3] == 0


def test_diverged_weights_are_named() -> None:
    target, probabilities = simulate(10, 0.5, np.random.default_rng(1))
    probabilities[4] = np.nan
    with pytest.raises(DataError, match=r"finite probabilities.*image 4.*learning rate"):
        measure(target, probabilities)


@pytest.mark.parametrize("resamples", [10, 0, -1])
def test_too_few_resamples_are_refused(resamples: int) -> None:
    target, probabilities = simulate(10, 0.5, np.random.default_rng(1))
    with pytest.raises(ConfigError, match="from 100"):
        measure(target, probabilities, resamples=resamples)
