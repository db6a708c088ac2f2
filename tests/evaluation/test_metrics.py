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
from fer.evaluation.metrics import measure, measure_split, per_class
from fer.evaluation.scores import SCORES, confusion_matrix, expected_calibration_error

classes = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int64, n, elements=st.integers(0, 6)),
        hnp.arrays(np.int64, n, elements=st.integers(0, 6)),
    )
)


@settings(max_examples=200, deadline=None)
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
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False])
    # Two bins of two images: |0.95 - 1| and |0.55 - 0.5|.
    assert expected_calibration_error(correct, confidence) == pytest.approx(0.05)
    assert expected_calibration_error(np.ones(3, bool), np.ones(3)) == 0.0


def simulate(n: int, accuracy: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    target = rng.integers(0, 7, n)
    wrong = (target + rng.integers(1, 7, n)) % 7
    preds = np.where(rng.random(n) < accuracy, target, wrong)
    probabilities = np.full((n, 7), 0.4 / 6)
    probabilities[np.arange(n), preds] = 0.6
    return target, probabilities


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        target, probabilities = simulate(300, 0.7, rng)
        found = measure(target, probabilities, resamples=300, seed=trial)
        low, high = found["confidence_intervals"]["accuracy"]
        assert low <= found["accuracy"] <= high
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 200 <= 0.99


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


def test_too_few_resamples_are_refused() -> None:
    target, probabilities = simulate(10, 0.5, np.random.default_rng(1))
    with pytest.raises(ConfigError, match="at least 100"):
        measure(target, probabilities, resamples=10)
