"""Evaluations side by side: what differs is said, and what is not alike is not compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.core.files import write_json
from fer.core.labels import EMOTIONS
from fer.data.selection import REASONS
from fer.evaluation.metrics import measure_split
from fer.evaluation.mistakes import write_predictions
from fer.report.side_by_side_page import write_side_by_side_page
from fer.runs.side_by_side import Collection, collect
from tests.conftest import data_record, network_record, run_record

N = 70


def write_job(folder: Path, network: str, dataset: str, **differing: Any) -> None:
    """An evaluation as ``evaluate.py`` leaves it; ``differing`` replaces what it was made with."""
    facts = {
        "path": f"{network}.ckpt", "sha256": network * 32, "split": "test", "tta": None,
        "precision": "32-true", "fingerprint": dataset * 32, "conflicts": "keep", "samples": N,
        "conflicting": 7,
        "robustness": {"seed": 0}, "perturbation": None, **differing,
    }  # fmt: skip
    rng = np.random.default_rng(int(folder.name))
    n = facts["samples"]
    target, probabilities = np.arange(n) % 7, rng.dirichlet(np.ones(7), n)
    metrics = measure_split(
        dataset, facts["split"], target, probabilities, np.zeros(n, bool), resamples=100
    )
    if facts["tta"]:
        metrics["tta"] = facts["tta"]
    folder.mkdir(parents=True)
    write_json(folder / "metrics.json", metrics)
    config = {
        "split": facts["split"], "tta": facts["tta"], "metrics": {"resamples": 100, "seed": 0},
        "robustness": facts["robustness"], "perturbation": facts["perturbation"],
        "dataset": {"name": dataset, "folder": str(folder), "conflicts": facts["conflicts"]},
    }  # fmt: skip
    left_out = {REASONS["conflicts"]: {facts["split"]: facts["conflicting"]}}
    data = data_record(facts["fingerprint"])
    run = run_record(
        # Network "a2" is another one of dataset "a".
        checkpoint=network_record(network[0], path=facts["path"], sha256=facts["sha256"]),
        dataset={**data, "left_out": left_out if facts["conflicts"] == "drop" else {}},
        hardware={"precision": facts["precision"]},
        config=config,
    )
    write_json(folder / "run.json", run)
    write_predictions(folder / "predictions.csv", [str(i) for i in range(n)], target, probabilities)


def side_by_side(folder: Path, *jobs: tuple[str, str, dict[str, Any]]) -> Collection:
    for number, (network, dataset, differing) in enumerate(jobs):
        write_job(folder / str(number), network, dataset, **differing)
    collection = collect(folder)
    assert collection is not None
    return collection


def names_in(found: Collection) -> list[Any]:
    return [row["network"] for row in found.rows]


def test_one_pass_and_two_are_told_apart_and_not_compared(tmp_path: Path) -> None:
    jobs = [(name, "a", {"tta": tta}) for name in ("a", "b") for tta in (None, "flip")]
    found = side_by_side(tmp_path, *jobs)
    assert names_in(found) == ["a (tta=None)", "a (tta=flip)", "b (tta=None)", "b (tta=flip)"]
    assert [(row["first"], row["second"]) for row in found.comparisons] == [
        ("a (tta=None)", "b (tta=None)"), ("a (tta=flip)", "b (tta=flip)"),
    ]  # fmt: skip
    with (tmp_path / "cross_dataset.csv").open() as file:
        assert [row["network"] for row in csv.DictReader(file)] == names_in(found)
    page = write_side_by_side_page(tmp_path, found).read_text()
    assert "Not compared are measurements that differ in: tta." in page


@pytest.mark.parametrize(
    ("differing", "mark"),
    [
        ({"tta": "flip"}, "tta=flip"),
        ({"precision": "bf16-mixed"}, "trainer.precision=bf16-mixed"),
        ({"robustness": {"seed": 3}}, "robustness.seed=3"),
        ({"perturbation": {"blur": {"sigma": 1}}}, "perturbation=blur"),
        ({}, "run 1"),
    ],
)
def test_rows_of_one_network_say_in_what_they_differ(
    differing: dict[str, Any], mark: str, tmp_path: Path
) -> None:
    found = side_by_side(tmp_path, ("a", "a", {}), ("a", "a", differing))
    assert names_in(found)[0] != names_in(found)[1] == f"a ({mark})"
    assert found.comparisons == []


@pytest.mark.parametrize(
    ("differing", "place"),
    [
        ({"split": "val"}, "a, val"),
        ({"conflicts": "drop", "samples": N - 7},
         "a, test (dataset.conflicts=drop, 63 images)"),
        ({"fingerprint": "f" * 64}, "a, test (70 images, fingerprint ffffffff)"),
    ],
)  # fmt: skip
def test_other_images_are_said_and_not_compared(
    differing: dict[str, Any], place: str, tmp_path: Path
) -> None:
    found = side_by_side(tmp_path, ("a", "a", {}), ("b", "a", differing))
    assert found.rows[1]["measured_on"] == place != found.rows[0]["measured_on"]
    assert found.comparisons == []
    assert len(side_by_side(tmp_path / "like", ("a", "a", {}), ("b", "a", {})).comparisons) == 1


def test_a_loss_is_against_a_home_that_was_measured_alike(tmp_path: Path) -> None:
    jobs = [
        ("a", dataset, {"tta": tta, "conflicts": conflicts})
        for tta in (None, "flip") for conflicts in ("keep", "drop") for dataset in ("a", "b")
    ]  # fmt: skip
    found = side_by_side(tmp_path, *jobs)
    rows: Any = found.rows
    for home, away in zip(rows[::2], rows[1::2], strict=True):
        assert away["drop_accuracy"] == home["accuracy"] - away["accuracy"]
    for number, differing in enumerate(
        ({"tta": "flip"}, {"split": "val"}, {"precision": "bf16-mixed"}, {"conflicts": "drop"})
    ):
        alone = side_by_side(tmp_path / f"alone{number}", ("a", "a", {}), ("a", "b", differing))
        assert "drop_accuracy" not in alone.rows[1]
    none = {"conflicts": "drop", "conflicting": 0}  # an option that found nothing changes nothing
    alike = side_by_side(tmp_path / "alike", ("a", "a", {}), ("a", "b", none))
    assert "drop_accuracy" in alike.rows[1]
    some = {"conflicts": "drop", "conflicting": 7}
    alike = side_by_side(tmp_path / "both", ("a", "a", some), ("a", "b", none))
    assert "drop_accuracy" in alike.rows[1]


def test_networks_are_told_apart_by_their_content(tmp_path: Path) -> None:
    same = side_by_side(
        tmp_path / "same", ("a", "a", {"path": "x.ckpt"}), ("a", "b", {"path": "copy.ckpt"})
    )
    assert names_in(same) == ["a", "a"] and "drop_accuracy" in same.rows[1]
    other = side_by_side(
        tmp_path / "other", ("a", "a", {"path": "x.ckpt"}), ("a2", "a", {"path": "x.ckpt"})
    )
    assert len(set(names_in(other))) == 2 and len(other.comparisons) == 1


def test_damaged_images_are_said_to_be_of_their_split(tmp_path: Path) -> None:
    for number, split in enumerate(("val", "test")):
        folder = tmp_path / str(number)
        write_job(folder, "a", "a", split=split)
        row = {"perturbation": "blur", "severity": 0, "parameters": {}, "image_size": 48,
               "samples": N, "confidence_intervals": {},
               "per_class": {name: {"recall": None} for name in EMOTIONS}}  # fmt: skip
        (folder / "robustness.json").write_text(json.dumps([row]))
    assert collect(tmp_path) is not None
    with (tmp_path / "robustness.csv").open() as file:
        assert [row["measured_on"] for row in csv.DictReader(file)] == ["a, val", "a, test"]
