"""Robustness, calibration, paired comparison, class priors and mistakes, on made-up predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.core import labels
from fer.core.errors import DataError
from fer.evaluation.calibration import calibrate, fit_temperature, scale
from fer.evaluation.compare import compare_paired, exact_p_value, prior_shift
from fer.evaluation.metrics import (
    describe_empty,
    measure,
    measure_split,
    measure_subgroups,
    reliability,
)
from fer.evaluation.mistakes import (
    confident_mistakes,
    frequent_confusions,
    read_predictions,
    write_predictions,
)
from fer.evaluation.perturbations import Setting
from fer.evaluation.robustness import columns, measure_robustness
from fer.evaluation.scores import accuracy, macro_f1


def draw(
    n: int, accuracy: float, rng: np.random.Generator, target: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities of a network that is right so often."""
    if target is None:
        target = rng.integers(0, 7, n)
    preds = np.where(rng.random(n) < accuracy, target, (target + rng.integers(1, 7, n)) % 7)
    probabilities = rng.uniform(0.0, 0.1, (n, 7))
    probabilities[np.arange(n), preds] += rng.uniform(0.5, 2, n)
    return target, (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


# --- calibration ---------------------------------------------------------------------------------


def test_the_temperature_is_the_one_that_the_logits_were_multiplied_by() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 7))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.array([rng.choice(7, p=row) for row in honest])
    overconfident = scale(honest, 1 / 2.5)
    assert fit_temperature(target, overconfident) == pytest.approx(2.5, rel=0.03)
    found = calibrate((target, overconfident), target, overconfident, resamples=100)
    before = measure(target, overconfident, resamples=100)["expected_calibration_error"]
    assert before > 0.1 and found["expected_calibration_error"] < 0.02
    assert (scale(overconfident, 2.5).argmax(axis=1) == overconfident.argmax(axis=1)).all()


def test_scaling_is_the_softmax_of_divided_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (50, 7))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.exp(logits / 3) / np.exp(logits / 3).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scale(softmax, 3.0), expected, rtol=1e-9)
    assert np.isfinite(scale(np.eye(7)[[0]], 0.05)).all()


def test_the_reliability_bins_add_up_to_the_calibration_error() -> None:
    target, probabilities = draw(500, 0.6, np.random.default_rng(0))
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins: Any = reliability(probabilities.argmax(axis=1) == target, confidence)
    assert sum(row["images"] for row in bins) == 500
    gap = sum(
        row["images"] * abs(row["confidence"] - row["accuracy"]) for row in bins if row["images"]
    )
    debiased = measure(target, probabilities, resamples=100)["expected_calibration_error"]
    assert debiased < gap / 500  # chance alone opens gaps
    json.dumps(bins, allow_nan=False)


# --- groups --------------------------------------------------------------------------------------


def test_groups_are_measured_on_their_own_images() -> None:
    rng = np.random.default_rng(0)
    target, probabilities = draw(300, 0.7, rng)
    gender = rng.choice(["", "female", "male"], 300).tolist()
    found: Any = measure_subgroups(target, probabilities, {"gender": gender}, resamples=100)
    assert list(found["gender"]) == ["female", "male"]
    chosen = np.array(gender) == "male"
    expected = measure(target[chosen], probabilities[chosen], resamples=100)
    assert found["gender"]["male"]["accuracy"] == expected["accuracy"]
    assert found["gender"]["male"]["samples"] == chosen.sum()


def test_an_emotion_without_images_is_named_and_gives_no_nan() -> None:
    target, probabilities = draw(100, 0.7, np.random.default_rng(0))
    chosen = target != labels.INDEX["fear"]
    leaked = np.zeros(int(chosen.sum()), bool)
    found = measure_split("x", "test", target[chosen], probabilities[chosen], leaked, resamples=100)
    json.dumps(found, allow_nan=False)
    assert "no image of fear" in str(describe_empty(found))
    full = measure_split("x", "test", target, probabilities, np.zeros(100, bool), resamples=100)
    assert describe_empty(full) is None


# --- two networks --------------------------------------------------------------------------------


def test_the_exact_test_is_the_binomial_one() -> None:
    from scipy.stats import binomtest

    for first, second in ((0, 1), (3, 9), (40, 22), (700, 800)):
        expected = binomtest(first, first + second).pvalue
        assert exact_p_value(first, second) == pytest.approx(expected, rel=1e-9)
    assert exact_p_value(0, 0) == 1.0


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    target, probabilities = draw(1000, 0.7, rng)
    first = probabilities.argmax(axis=1)
    second = first.copy()
    wrong = np.flatnonzero(first != target)
    second[wrong[:30]] = target[wrong[:30]]  # right wherever the first is, and 30 times more
    found = compare_paired(target, np.eye(7)[first], np.eye(7)[second], resamples=500)
    assert found["difference"]["accuracy"] == pytest.approx(0.03)
    low, high = found["confidence_intervals"]["accuracy"]
    assert 0.015 < low < 0.03 < high < 0.045
    assert found["mcnemar"]["only_first_right"] == 0
    assert found["mcnemar"]["only_second_right"] == 30
    assert found["mcnemar"]["p_value"] < 1e-6
    same = compare_paired(target, np.eye(7)[first], np.eye(7)[first], resamples=100)
    # That both agree on 1000 images does not show that they always do.
    low, high = same["confidence_intervals"]["accuracy"]
    assert -0.003 < low < 0 < high < 0.003 and same["mcnemar"]["p_value"] == 1


def test_intervals_of_differences_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(150):
        target, first = draw(300, 0.6, rng)
        _, second = draw(300, 0.7, rng, target)
        found = compare_paired(target, first, second, resamples=200, seed=trial)
        low, high = found["confidence_intervals"]["accuracy"]
        covered += low <= 0.1 <= high
    assert 0.89 <= covered / 150 <= 0.99


def test_a_drop_that_is_all_class_frequency_is_seen_as_such() -> None:
    """Recall is 0.9 of happy and 0.4 of the others on both datasets; only the shares differ."""
    rng = np.random.default_rng(0)
    recall = np.full(7, 0.4)
    recall[3] = 0.9

    def dataset(shares: np.ndarray, n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
        target = rng.choice(7, n, p=shares)
        preds = np.where(rng.random(n) < recall[target], target, (target + 1) % 7)
        return target, np.eye(7)[preds] * 0.8 + 0.2 / 7

    home = np.full(7, 0.1)
    home[3] = 0.4
    away = np.full(7, 0.95 / 6)
    away[3] = 0.05
    at_home, home_probabilities = dataset(home)
    target, probabilities = dataset(away)
    accuracy = float((probabilities.argmax(axis=1) == target).mean())
    home_accuracy = float((home_probabilities.argmax(axis=1) == at_home).mean())
    assert home_accuracy - accuracy > 0.15
    found = prior_shift(target, probabilities, np.bincount(at_home, minlength=7), home)
    assert found["accuracy_source_priors"] == pytest.approx(home_accuracy, abs=0.01)


def test_known_shares_help_where_they_differ() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(7) * 2.0
    home, away = np.full(7, 1 / 7), np.array([0.7, *[0.05] * 6])
    target = rng.choice(7, 5000, p=away)
    points = centres[target] + rng.normal(size=(5000, 7))
    # The right answer of a network that expects the shares of home.
    logits = points @ centres.T - (centres**2).sum(axis=1) / 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = prior_shift(target, probabilities, home * 700, home)
    plain = float((probabilities.argmax(axis=1) == target).mean())
    assert found["accuracy_adjusted"] is not None and found["accuracy_adjusted"] > plain + 0.02
    own = np.bincount(target, minlength=7)
    same = prior_shift(target, probabilities, own, own / len(target))
    assert same["accuracy_adjusted"] == pytest.approx(plain)


def test_recall_of_an_emotion_that_is_not_here_is_not_invented() -> None:
    target, probabilities = draw(200, 0.7, np.random.default_rng(0))
    chosen = target != 1
    found = prior_shift(target[chosen], probabilities[chosen], np.full(7, 10), np.ones(7))
    assert found["accuracy_source_priors"] is None
    json.dumps(found, allow_nan=False)


def test_an_emotion_that_was_never_learned_is_not_named() -> None:
    target, probabilities = draw(200, 0.7, np.random.default_rng(0))
    lacking = np.where(np.arange(7) == 1, 0.0, 1.0)
    found = prior_shift(target, probabilities, lacking * 10, lacking)
    json.dumps(found, allow_nan=False)
    named = np.where(lacking > 0, probabilities * np.bincount(target, minlength=7), 0).argmax(
        axis=1
    )
    assert found["accuracy_adjusted"] == pytest.approx((named == target).mean())
    unknown = prior_shift(target, probabilities, lacking * 10, None)
    assert unknown["accuracy_adjusted"] is unknown["macro_f1_adjusted"] is None


def test_groups_that_are_too_small_are_counted_alone() -> None:
    target, probabilities = draw(300, 0.7, np.random.default_rng(0))
    age = ["0-3"] * 4 + ["20-39"] * 296
    found = measure_subgroups(target, probabilities, {"age": age}, resamples=100)["age"]
    assert found["0-3"] == {"samples": 4} and found["20-39"]["samples"] == 296


def test_a_temperature_that_the_images_do_not_determine_is_noted() -> None:
    target = np.arange(70) % 7
    probabilities = np.eye(7)[target] * 0.3 + 0.1
    found = calibrate((target, probabilities), target, probabilities, resamples=100)
    assert "stands at an end" in found["notes"][0]
    rng = np.random.default_rng(0)
    target, probabilities = draw(700, 0.7, rng)
    found = calibrate((target, probabilities), target, probabilities, resamples=100)
    assert found["notes"] == []


# --- mistakes ------------------------------------------------------------------------------------


def test_confusions_are_the_most_frequent_and_mistakes_the_most_confident() -> None:
    target = np.array([2, 2, 2, 4, 4, 6, 6])
    preds = np.array([5, 5, 2, 6, 4, 6, 0])
    probabilities = np.full((7, 7), 0.01)
    probabilities[np.arange(7), preds] = [0.5, 0.9, 0.9, 0.6, 0.9, 0.9, 0.7]
    first, *others = frequent_confusions(target, probabilities, 10)
    assert (first.true, first.predicted) == ("fear", "surprise")
    assert first.rows.tolist() == [1, 0] and first.share == pytest.approx(2 / 3)
    assert {(pair.true, pair.predicted) for pair in others} == {
        ("sad", "neutral"), ("neutral", "angry"),
    }  # fmt: skip
    assert confident_mistakes(target, probabilities, 3).tolist() == [1, 6, 3]
    assert len(frequent_confusions(target, probabilities, 1)) == 1
    assert frequent_confusions(target, np.eye(7)[target], 49) == []


def test_predictions_come_back_bit_for_bit(tmp_path: Path) -> None:
    target, probabilities = draw(50, 0.5, np.random.default_rng(0))
    ids = [f"a,{i}\udcff" for i in range(50)]
    path = write_predictions(tmp_path / "predictions.csv", ids, target, probabilities)
    found_ids, found_target, found = read_predictions(path)
    assert found_ids == ids
    np.testing.assert_array_equal(found_target, target)
    np.testing.assert_array_equal(found, probabilities)


@pytest.mark.parametrize("content", ["", "id,true\na,happy\n", "id,true\na,glad\n"])
def test_another_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.csv").write_text(content)
    if content:
        with pytest.raises(DataError, match="table of predictions"):
            read_predictions(tmp_path / "p.csv")
    with pytest.raises(DataError, match="table of predictions"):
        read_predictions(tmp_path / "absent.csv")


# --- robustness ----------------------------------------------------------------------------------


def stripes(images: np.ndarray, draws: object, *, rows: int) -> np.ndarray:
    """Erase so many rows: what :func:`by_brightness` reads falls with it."""
    damaged = images.copy()
    damaged[:, :rows] = 0
    return damaged


def run(severities: list[int], **options: Any) -> Any:
    """Each image holds its emotion in a row; the network answers 0 where the row is erased."""
    target = np.arange(70) % 7
    images = np.zeros((70, 16, 16, 1), np.uint8)
    images[np.arange(70), np.arange(70) % 16] = 10 * (1 + target)[:, None, None]

    def predict(pictures: np.ndarray) -> np.ndarray:
        values = pictures.max(axis=(1, 2, 3)) // 10
        return np.eye(7)[np.maximum(values.astype(int) - 1, 0)]

    settings = [
        Setting(
            "stripes", s, {"rows": 3 * s}, stripes, None, {"mine": {"accuracy": 0.5, "images": 70}}
        )
        for s in severities
    ]
    found = measure_robustness(
        settings, lambda size: images, predict, target, [str(i) for i in range(70)],
        clean=predict(images), dataset=options.get("dataset", "mine"), resamples=200,
    )  # fmt: skip
    return found, target, images, predict


def test_the_rows_are_those_of_the_contract() -> None:
    found, target, images, predict = run([1, 2, 3, 4, 5])
    assert [row["severity"] for row in found.rows] == [0, 1, 2, 3, 4, 5]
    clean = found.rows[0]
    assert clean["accuracy"] == 1 and clean["delta_accuracy"] == 0 and clean["parameters"] == {}
    for row in found.rows:
        damaged = stripes(images, None, rows=3 * row["severity"])
        preds = predict(damaged).argmax(axis=1)
        matrix = np.bincount(target * 7 + preds, minlength=49).reshape(7, 7)
        assert row["accuracy"] == accuracy(matrix) == (preds == target).mean()
        assert row["macro_f1"] == macro_f1(matrix)
        assert row["delta_macro_f1"] == pytest.approx(row["macro_f1"] - 1)
        low, high = row["confidence_intervals"]["delta_accuracy"]
        assert low <= row["delta_accuracy"] <= high
    json.dumps(found.rows, allow_nan=False)
    assert all(set(row) == set(columns()) for row in found.table())


def test_the_summary_is_the_area_under_the_curve_as_a_share_of_clean() -> None:
    found, *_ = run([1, 2, 3, 4, 5])
    accuracy = [row["accuracy"] for row in found.rows]
    expected = (sum(accuracy) - (accuracy[0] + accuracy[-1]) / 2) / 5  # trapezoids
    assert found.summary["relative_area"]["stripes"]["accuracy"] == pytest.approx(expected)
    mean = found.summary["mean_over_settings"]
    assert mean["accuracy"] == pytest.approx(np.mean(accuracy[1:]))
    assert found.summary["beside_published"]["reference_accuracy"] == 0.5
    chosen, *_ = run([2, 5])
    area = (2 * (1 + accuracy[2]) / 2 + 3 * (accuracy[2] + accuracy[5]) / 2) / 5
    assert chosen.summary["relative_area"]["stripes"]["accuracy"] == pytest.approx(area)


def test_figures_of_another_dataset_are_not_put_beside() -> None:
    found, *_ = run([1], dataset="other")
    assert "beside_published" not in found.summary
    assert "reference_accuracy" not in found.rows[1]
