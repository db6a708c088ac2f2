"""Labels that networks do not believe: joined over folds, flagged, and held against annotators."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer.core.errors import ConfigError, DataError
from fer.evaluation.label_issues import (
    LabelIssues,
    find_label_issues,
    join_folds,
    require_cleanlab,
    score_flags,
    summarise_issues,
)
from fer.evaluation.mistakes import write_predictions

IDS = [f"{number}" for number in range(12)]
TARGET = np.arange(12) % 7
FOLDS = np.array([0, 1, 2] * 4)
ANSWERS = np.random.default_rng(0).dirichlet(np.ones(7), 12).astype(np.float32)


def write(folder: Path, **rows: list[int]) -> list[Path]:
    """Predictions of three folds; ``fold2=[…]`` gives one other images than its own."""
    paths = []
    for fold in range(3):
        own = rows.get(f"fold{fold + 1}", np.flatnonzero(fold == FOLDS)[::-1].tolist())
        ids = [IDS[row] for row in own]
        path = folder / f"{fold}.csv"
        paths.append(write_predictions(path, ids, TARGET[own], ANSWERS[own]))
    return paths


def test_every_image_has_the_answer_of_the_network_that_did_not_see_it(tmp_path: Path) -> None:
    found = join_folds(write(tmp_path), IDS, TARGET, FOLDS)
    assert (found.astype(np.float32) == ANSWERS).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1, 4, 7], r"1\.csv: expected each image of fold 2 once, found 1 image missing, .*'10'"),
        ([1, 4, 4, 7, 10], "found 1 image more than once, first '4'"),
        ([0, 1, 4, 7, 10], "found 1 image from elsewhere or with another label, first '0'"),
    ],
)
def test_an_image_that_is_not_there_exactly_once_is_refused(
    rows: list[int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        join_folds(write(tmp_path, fold2=rows), IDS, TARGET, FOLDS)


def test_an_image_that_has_another_label_by_now_is_refused(tmp_path: Path) -> None:
    changed = TARGET.copy()
    changed[4] = 0
    with pytest.raises(DataError, match="or with another label, first '4'"):
        join_folds(write(tmp_path), IDS, changed, FOLDS)


def simulate(seed: int, images: int) -> tuple[np.ndarray, ...]:
    """Labels of which a tenth is wrong, answers that are mostly right, and which are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 7, images)
    flipped = rng.random(images) < 0.1
    target = np.where(flipped, (true + rng.integers(1, 7, images)) % 7, true)
    logits = rng.normal(size=(images, 7)) + 3 * np.eye(7)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return target, probabilities, flipped


@pytest.mark.slow
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_the_first_flags_are_mostly_labels_that_were_flipped(seed: int) -> None:
    pytest.importorskip("cleanlab")
    target, probabilities, flipped = simulate(seed, 600)
    issues = find_label_issues(target, probabilities)
    assert sorted(issues.order.tolist()) == list(range(600))
    flags = int(issues.flagged.sum())
    assert flags and issues.flagged[issues.order[:flags]].all()
    assert (np.diff(issues.quality[issues.order[:flags]]) >= 0).all()
    assert flipped[issues.order[:30]].mean() > 5 * flipped.mean()
    assert not (issues.flagged & (probabilities.argmax(axis=1) == target)).any()
    scores = summarise_issues(target, probabilities, issues)
    assert sum(row["flagged"] for row in scores["per_emotion"].values()) == flags
    assert issues.joint.sum() == pytest.approx(600)


def test_flags_are_counted_where_the_annotators_decide() -> None:
    target = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    second = np.array([1, -1, 0, 3, 1, 1, 0, -1, 2, 2])
    flagged = np.isin(np.arange(10), [0, 1, 2, 3])
    order = np.array([3, 1, 2, 0, 4, 5, 6, 7, 8, 9])
    issues = LabelIssues(order, flagged, np.zeros(10), np.zeros((7, 7)))
    found = score_flags(target, second, issues, "others", unknown=1)
    assert (found["none_of_the_seven"], found["unknown"]) == (1, 1)
    assert (found["base"]["hits"], found["base"]["images"]) == (3, 8)
    (every,) = found["precision"]  # there are fewer flags than 50
    assert (every["flags"], every["images"], every["hits"]) == (4, 3, 2)
    assert (found["recall"]["hits"], found["recall"]["images"]) == (2, 3)
    assert every["share"] == pytest.approx(2 / 3) and every["interval"] is not None
    assert every["interval"][0] < 2 / 3 < every["interval"][1]
    silent = score_flags(target, np.full(10, -1), issues, "others", unknown=0)
    assert silent["base"]["share"] is None and silent["precision"][0]["interval"] is None


def test_the_first_flags_are_counted_at_round_numbers() -> None:
    images = 700
    flagged = np.arange(images) < 600
    issues = LabelIssues(np.arange(images), flagged, np.zeros(images), np.zeros((7, 7)))
    second = np.where(np.arange(images) < 50, 1, 0)
    found = score_flags(np.zeros(images, np.int64), second, issues, "others", unknown=0)
    counted = [(row["flags"], row["hits"]) for row in found["precision"]]
    assert counted == [(50, 50), (100, 50), (500, 50), (600, 50)]


def test_without_cleanlab_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(ConfigError, match=r'cleanlab missing.*pip install "fer-lab\[audit\]"'):
        require_cleanlab()
