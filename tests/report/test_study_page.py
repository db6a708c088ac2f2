"""A study's page: its numbers are measured alike, and what its datasets share is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fer.core.files import read_json, write_json
from fer.data.manifest import read_manifest, write_manifest
from fer.evaluation.metrics import measure_scores
from fer.report.evaluation_sections import area_table
from fer.report.study_page import write_study
from tests.conftest import data_record
from tests.evaluation.test_scores import guess, list_entries, make_study
from tests.report.test_report import Page


def test_images_that_two_datasets_share_are_counted_and_left_out(tmp_path: Path) -> None:
    page = write_study(make_study(tmp_path), 1).read_text()
    results = json.loads((tmp_path / "study.json").read_text())
    shared = {(one["train_dataset"], one["test_dataset"]): one.get("shared")
              for one in results["evaluations"]}  # fmt: skip
    assert shared["a", "a"] is None and shared["b", "b"] is None
    assert (shared["a", "b"]["exact"], shared["a", "b"]["exact_or_near"]) == (1, 2)
    target, probabilities = guess(1)
    assert shared["a", "b"]["without"] == measure_scores(
        target[2:], probabilities[2:], resamples=100
    )
    assert shared["b", "a"] == {"exact": 0, "exact_or_near": 0, "without": None}
    accuracy = 100 * shared["a", "b"]["without"]["accuracy"]
    assert (
        "Of b's test images 1 are duplicated in a's train or val exactly, and 1 more nearly; "
        f"without them its accuracy is {accuracy:.1f} %." in page
    )


def test_what_a_manifest_does_not_know_is_not_said_to_be_none(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    manifest = tmp_path / "a/manifest.csv"
    lines = manifest.read_text().splitlines()
    assert lines[0].endswith(",phash")
    manifest.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in lines))  # an older one
    assert all(entry.phash == "" for entry in read_manifest(manifest))
    page = write_study(study, 1).read_text()
    shared = json.loads((tmp_path / "study.json").read_text())["evaluations"][1]["shared"]
    assert (shared["exact"], shared["exact_or_near"]) == (1, None)
    assert "near duplicates are not known" in page


OTHER_TEST = {"train": "b", "val": "b", "test": "x"}
"""Fingerprints of the same dataset, of which other test images are in use."""


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("metrics.json", {"tta": "flip"}, "tta differs"),
        ("run.json", {"hardware": {"precision": "bf16-mixed"}}, "precision differs"),
        ("run.json", {"dataset": data_record("b") | {"fingerprints": OTHER_TEST}},
         "Not every score on b is of the same test images"),
    ],
)  # fmt: skip
def test_what_is_not_measured_alike_is_said(
    file: str, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    assert "Not every score" not in write_study(make_study(tmp_path / "like"), 1).read_text()
    study = make_study(tmp_path / "unlike")
    path = tmp_path / "unlike/evaluate/a0b" / file
    write_json(path, read_json(path) | change)
    assert words in write_study(study, 1).read_text()


def test_trainings_of_different_code_are_said_to_be(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    path = tmp_path / "train/a0/run.json"
    commit = {"git": {"commit": 40 * "c", "dirty": False}}
    write_json(path, read_json(path) | commit)
    page = write_study(study, 1).read_text()
    assert "The runs do not share code (1 at cccccccc, 1)" in page


def test_what_damage_leaves_is_averaged_over_seeds() -> None:
    scores: Any = [{"accuracy": 0.8, "macro_f1": 0.5}, {"accuracy": 0.9, "macro_f1": 0.7}]
    table = area_table("areas", {"a: ": [{"low_light": one} for one in scores]})
    assert [cell.text for cell in table.rows[0]] == ["a: low light", "85.0 %", "60.0 %"]


def test_what_damage_leaves_is_shown_where_it_was_measured_for_every_seed(tmp_path: Path) -> None:
    study = make_study(tmp_path, seeds=(0, 1))
    rows = Page(write_study(study, 1).read_text()).tables["robustness"]
    assert {row[0].partition(":")[0] for row in rows[1:]} == {"a", "b"}
    path = tmp_path / "evaluate/a1a/metrics.json"
    metrics = read_json(path)
    del metrics["robustness"]
    write_json(path, metrics)
    rows = Page(write_study(study, 1).read_text()).tables["robustness"]
    assert {row[0].partition(":")[0] for row in rows[1:]} == {"b"}


def test_a_manifest_keeps_its_hashes(tmp_path: Path) -> None:
    entries = list_entries("b")
    assert read_manifest(write_manifest(tmp_path / "m.csv", entries)) == entries
