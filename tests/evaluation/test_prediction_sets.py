"""Prediction sets hold the true emotion as often as they ought to, however bad the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.evaluation.prediction_sets import (
    calibrate_sets,
    check_level,
    make_sets,
    mass_above,
    measure_sets,
    risk_curve,
    selective_accuracy,
)
from fer.evaluation.predictor import Predictor
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN


def answers(rng: np.random.Generator, n: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets and the probabilities of a network that is too sure of itself."""
    logits = 3 * rng.standard_normal((n, 7))
    target = rng.integers(0, 7, n)
    logits[np.arange(n), target] += skill
    exponentials = np.exp(logits)
    return target, (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1), skill=st.floats(0, 5), level=st.sampled_from([0.8, 0.95]))
@settings(max_examples=12, deadline=None)
def test_the_share_of_sets_that_hold_the_truth_is_the_one_asked_for(
    seed: int, skill: float, level: float
) -> None:
    rng = np.random.default_rng(seed)
    found = [
        measure_sets(answers(rng, 59, skill), *answers(rng, 100, skill), level) for _ in range(150)
    ]
    expected = np.ceil(60 * level) / 60  # 48 and 57 of sixty places
    mean = np.mean([one["coverage"] for one in found])
    assert abs(mean - expected) < 0.025  # five standard errors
    inside = [low <= one["coverage"] <= high for one in found for low, high in [one["expected"]]]
    assert np.mean(inside) > 0.87


def test_a_level_below_the_accuracy_gives_the_best_guess_alone() -> None:
    rng = np.random.default_rng(0)
    found = measure_sets(answers(rng, 500, 6.0), *answers(rng, 500, 6.0), 0.5)
    assert found["threshold"] == 0 and found["sizes"][0] == 500
    low, high = found["expected"]
    assert low < 0.6 < found["coverage"] < high < 1
    tiny = measure_sets(answers(rng, 50, 6.0), *answers(rng, 50, 6.0), 1e-13)
    assert tiny["threshold"] == 0


@given(seed=st.integers(0, 2**32 - 1), a=st.floats(0, 1), b=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_sets_take_the_most_probable_emotions_and_grow_with_the_threshold(
    seed: int, a: float, b: float
) -> None:
    _, probabilities = answers(np.random.default_rng(seed), 20, 1.0)
    small, large = (make_sets(probabilities, threshold) for threshold in sorted((a, b)))
    assert small.any(axis=1).all()
    assert not (small & ~large).any()
    inside = np.where(small, probabilities, np.inf).min(axis=1)
    outside = np.where(small, -np.inf, probabilities).max(axis=1)
    assert (inside >= outside).all()


def test_equal_probabilities_are_told_apart_by_the_order_of_emotions() -> None:
    scores = mass_above(np.full((1, 7), 1 / 7))
    np.testing.assert_allclose(scores[0], np.arange(7) / 7)


@pytest.mark.parametrize(("level", "needed"), [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_too_few_validation_images_are_refused(level: float, needed: int) -> None:
    rng = np.random.default_rng(0)
    check_level(level, needed)
    target, probabilities = answers(rng, needed, 1.0)
    own = mass_above(probabilities)[np.arange(needed), target]
    assert calibrate_sets(target, probabilities, level) == own.max()
    words = rf"at least {needed} validation images for sets of .* found {needed - 1}\."
    with pytest.raises(ConfigError, match=words):
        calibrate_sets(target[1:], probabilities[1:], level)


def test_the_surest_images_are_counted_one_by_one() -> None:
    target, probabilities = answers(np.random.default_rng(0), 30, 2.0)
    risk = risk_curve(target, probabilities)
    order = sorted(range(30), key=lambda i: -probabilities[i].max())
    for k in range(1, 31):
        wrong = sum(probabilities[i].argmax() != target[i] for i in order[:k])
        assert risk[k - 1] == pytest.approx(wrong / k)
    rows = selective_accuracy(target, probabilities)
    assert [row["images"] for row in rows] == [30, 27, 24, 21, 18, 15]
    assert rows[0]["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == target).mean())


def test_a_class_without_images_has_no_coverage() -> None:
    target, probabilities = answers(np.random.default_rng(0), 30, 2.0)
    found = measure_sets((target, probabilities), target % 3, probabilities, 0.9, "drawn's val")
    assert found["per_class"]["neutral"] == {"support": 0, "coverage": None, "mean_size": None}
    assert found["calibrated_on"] == "drawn's val (30 images)"
    assert sum(found["sizes"]) == 30
    sizes = np.arange(1, 8) @ np.array(found["sizes"]) / 30
    assert found["mean_size"] == pytest.approx(sizes)


@pytest.fixture
def network() -> NormalisedNetwork:
    torch.manual_seed(0)
    return NormalisedNetwork(SharedCNN([4, 8], image_size=24))


def test_a_predictor_gives_the_sets_of_the_evaluation(
    network: NormalisedNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"prediction_sets": {"threshold": 0.4}}))
    faces = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 1), dtype=np.uint8)
    for sets in (path, str(path), 0.4):
        for face in Predictor(network, "cpu", sets=sets)(faces):
            ordered = sorted(face.probabilities, key=lambda name: -face.probabilities[name])
            row = np.array([list(face.probabilities.values())])
            inside = make_sets(row, 0.4)[0]
            assert face.emotions is not None and face.emotions[0] == face.emotion
            assert list(face.emotions) == ordered[: len(face.emotions)]
            assert set(face.emotions) == {labels.EMOTIONS[i] for i in np.flatnonzero(inside)}
    assert Predictor(network, "cpu")(faces)[0].emotions is None


@pytest.mark.parametrize(
    "content", [{}, {"prediction_sets": None}, {"prediction_sets": {"threshold": "0.4"}}, []]
)
def test_a_file_without_sets_is_refused(
    network: NormalisedNetwork, tmp_path: Path, content: Any
) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"expected the metrics\.json of an evaluation"):
        Predictor(network, "cpu", sets=path)
    path.write_text(json.dumps({"prediction_sets": {"threshold": 0.4}, "tta": "flip"}))
    with pytest.raises(DataError, match=r"single passes calibrate, found tta=flip"):
        Predictor(network, "cpu", sets=path)
    with pytest.raises(ConfigError, match=r"sets: expected a threshold from 0 to 1, found 1\.5"):
        Predictor(network, "cpu", sets=1.5)
