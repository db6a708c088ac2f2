"""Answers are measured by two sets of labels on the same images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from fer.evaluation.label_sets import compare_label_sets
from fer.report.evaluation_sections import label_sets_section


def test_the_figures_are_those_of_the_images_with_both_labels() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 200), rng.integers(-1, 7, 200)
    second[:90] = first[:90]
    probabilities, shares = rng.dirichlet(np.ones(7), 200), rng.dirichlet(np.ones(7), 200)
    found = compare_label_sets(first, second, shares, probabilities, name="others")
    both = [i for i in range(200) if second[i] >= 0]
    preds = probabilities.argmax(axis=1)
    assert (found["images"], found["without"]) == (len(both), 200 - len(both))
    for target, own in ((first, found["by_first"]), (second, found["by_second"])):
        assert own["accuracy"] == pytest.approx(accuracy_score(target[both], preds[both]))
        expected = f1_score(
            target[both], preds[both], labels=range(7), average="macro", zero_division=0
        )
        assert own["macro_f1"] == pytest.approx(expected)
        for score, (low, high) in own["confidence_intervals"].items():
            assert low <= own[score] <= high  # type: ignore[literal-required]
    matrix = confusion_matrix(first[both], second[both], labels=range(7))
    assert found["confusion_matrix"] == matrix.tolist()
    assert found["agreement"] == pytest.approx(np.trace(matrix) / matrix.sum())
    wrong = [i for i in both if preds[i] != first[i]]
    assert found["mistakes"] == len(wrong)
    assert found["sided_with"] == sum(preds[i] == second[i] for i in wrong)
    assert found["confidence"] == pytest.approx(probabilities[both].max(axis=1).mean())
    votes = np.mean([shares[i, preds[i]] for i in both])
    assert found["annotators_for_answer"] == pytest.approx(votes)
    assert found["agreement_per_class"]["neutral"] is None  # no image has it
    text = str(label_sets_section(found))
    assert f"in {found['sided_with']} of them (" in text and "others" in text


def test_a_network_without_mistakes_has_nobody_on_its_side() -> None:
    labels = np.arange(14) % 7
    probabilities = np.eye(7)[labels]
    found = compare_label_sets(labels, labels, probabilities, probabilities, name="others")
    assert (found["mistakes"], found["agreement"], found["annotators_for_answer"]) == (0, 1, 1)
    assert "in 0 of them (–)" in str(label_sets_section(found))
