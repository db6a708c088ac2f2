"""Mislabelled images in one command: planned, refused, cut off, gone on with, and written."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.files import write_json
from fer.core.options import check_options
from fer.data.audit.integrity import FindingRecord
from fer.data.audit.verdict import ALTERED
from fer.data.ferplus import FERPlusReader, SecondLabels, check_own_labels
from fer.data.prepared import load
from fer.data.readers.fer2013 import FER2013Reader
from fer.evaluation.label_issues import LabelIssues
from fer.evaluation.mistakes import write_predictions
from fer.runs.plan import expand, make_audit
from fer.tasks import audit as task
from fer.tasks.audit import choose_images, write_results
from tests.conftest import ROOT, compose, refusal, run_program, run_record


def configure(*options: str) -> DictConfig:
    return compose(*expand(options), config="audit")


def test_every_fold_is_trained_without_and_measured_with_its_images(tmp_path: Path) -> None:
    own = ["dataset.raw=my.zip", "++dataset.blank=drop", "metrics.resamples=100", "flags=7",
           "figures.format=svg"]  # fmt: skip
    cfg = configure("dataset=folder", *own, "folds=3", "seed=4", f"folder={tmp_path}",
                    "train.model=x", "train.optimizer.lr=0.1", "train.trainer=ddp",
                    "train.loader.eval_batch_size=8")  # fmt: skip
    audit = make_audit(cfg, "folder", own)
    assert [stage.name for stage in audit.stages] == [
        "train without fold 1", "measure fold 1",
        "train without fold 2", "measure fold 2",
        "train without fold 3", "measure fold 3",
    ]  # fmt: skip
    for number, stage in enumerate(audit.stages):
        said = ["dataset=folder", *own[:2], f"dataset.fold={number // 2 + 1}/3", *own[4:],
                "trainer=ddp", "loader.eval_batch_size=8"]  # fmt: skip
        assert set(said) < set(stage.command) and not {*own[2:4]} & set(stage.command)
        training = number % 2 == 0
        recipe = {"seed=4", "test=false", "model=x", "optimizer.lr=0.1"}
        assert (recipe <= set(stage.command)) == training
        assert ("trainer.devices=1" in stage.command) != training
        assert ("split=test" in stage.command) != training
    assert audit.measurements[1].needs == ("train without fold 2",)
    cut_off = audit.trainings[0].folder / "checkpoints/last.ckpt"
    cut_off.parent.mkdir(parents=True)
    cut_off.touch()
    again = make_audit(cfg, "folder", own).trainings
    assert [stage.begun for stage in again] == [True, False, False]
    assert again[0].command[-1].startswith("resume=")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dataset.fold=1/3"], "dataset.fold: expected null, .*found 1/3"),
        (["train.dataset.blank=drop"], r"train: expected options of the recipe.*Set it as dataset"),
        (["train.seed=3"], "found seed=3, which the audit sets itself.*fer audit --help"),
        (["train.loss=distilled", "train.loss.teacher=[A.ckpt]"], "train: .*may have seen them"),
        (["train.dataset.fold=1/3"], "train: expected options of the recipe, found dataset.fold"),
    ],
)
def test_options_that_the_audit_sets_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_audit(configure(*options), "synthetic_a", [])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("folds=2", "folds: expected a whole number from 3, found 2"),
        ("flags=0", "flags: expected a whole number from 1 to 1,000, found 0"),
        ("folder=''", "folder: expected a text"),
        ("votes=''", "votes: expected a path"),
    ],
)
def test_wrong_values_are_refused(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options(configure(option))


def test_votes_beside_their_own_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="votes: expected a dataset with labels of its own"):
        check_own_labels(FERPlusReader(), "ferplus")


def choose(prepared: Path, *options: str) -> task.Images:
    cfg = configure("dataset=fer2013", *options)
    return choose_images(cfg, load(prepared), FER2013Reader())


def test_more_folds_than_images_of_an_emotion_are_refused(prepared_tiny: Path) -> None:
    found = choose(prepared_tiny, "folds=8")
    assert sorted(found.folds.tolist()) == sorted([*range(8)] * 7)
    assert len(found.target) == 56
    with pytest.raises(ConfigError, match=r"folds: .*each of the 9 folds.*angry \(8 images\)"):
        choose(prepared_tiny, "folds=9")


def test_images_that_are_left_out_are_not_audited(prepared_tiny: Path) -> None:
    prepared = load(prepared_tiny)
    prepared.integrity["blank"] = [e.id for e in prepared.entries if e.emotion == "fear"][:1]
    cfg = configure("dataset=fer2013", "dataset.blank=drop", "folds=3")
    found = choose_images(cfg, prepared, FER2013Reader())
    assert len(found.target) == 55
    assert [sum(counts.values()) for counts in found.left_out.values()] == [1]
    cfg.folds = 8
    with pytest.raises(ConfigError, match=r"folds: .*too few of fear after leaving out"):
        choose_images(cfg, prepared, FER2013Reader())


def test_a_dataset_without_an_emotion_and_votes_of_others_are_refused(
    prepared_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "second_labels", lambda entries, votes: None)
    with pytest.raises(ConfigError, match=r"votes: expected FER2013's images.*others in fer2013"):
        choose(prepared_tiny, "folds=3", "votes=votes.csv")
    prepared = load(prepared_tiny)
    prepared.entries[:] = [entry for entry in prepared.entries if entry.emotion != "sad"]
    with pytest.raises(DataError, match=r"all seven emotions .*found none of 'sad'"):
        choose_images(configure("dataset=fer2013", "folds=3"), prepared, FER2013Reader())


def test_results_say_what_the_annotators_see(
    prepared_tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = choose(prepared_tiny, "folds=3")
    number = len(images.target)
    second = np.where(np.arange(number) % 3, images.target, (images.target + 1) % 7)
    second[5] = -1
    images = replace(images, second=SecondLabels(second, np.zeros((number, 7)), 0, ["A note."]),
                     left_out={"they show nothing": {"train": 2, "val": 1, "test": 0}})  # fmt: skip
    finding: FindingRecord = {
        "kind": "pixels", "text": "Pixels differ.", "split": None, "emotion": None, "images": 1,
    }  # fmt: skip
    images.prepared.integrity["verdict"] = ALTERED
    images.prepared.integrity["findings"] = [finding]
    plan = make_audit(configure("folds=3", f"folder={tmp_path}"), "fer2013", [])
    ids = np.array([images.prepared.entries[row].id for row in images.rows])
    answers = np.random.default_rng(0).dirichlet(np.ones(7), number)
    for fold, measured in enumerate(plan.measurements):
        path, own = measured.folder / "predictions.csv", images.folds == fold
        write_predictions(path, ids[own].tolist(), images.target[own], answers[own])
    for stage in plan.stages:
        write_json(stage.folder / "run.json", run_record())
    order = np.roll(np.arange(number), 7)
    flagged = np.isin(np.arange(number), order[:20])
    issues = LabelIssues(order, flagged, answers[:, 0], np.zeros((7, 7)))
    monkeypatch.setattr(task, "find_label_issues", lambda target, probabilities: issues)
    write_results(configure("dataset=fer2013", "folds=3", "flags=3"), plan, images)
    with (tmp_path / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ids[order].tolist()
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, number + 1)]
    said = [labels.EMOTIONS[code] if code >= 0 else "" for code in second[order]]
    assert [row["annotators"] for row in rows] == said
    numbers = json.loads((tmp_path / "audit.json").read_text())
    assert numbers["votes"]["none_of_the_seven"] == 1 and "A note." in numbers["notes"]
    assert numbers["left_out"]["they show nothing"]["train"] == 2
    assert "Left out because they show nothing: 3 images." in numbers["notes"]
    assert numbers["altered_copy"] == ["Pixels differ."]
    assert "altered copy of " in numbers["notes"][0]
    assert numbers["commands"]["evaluate/fold3"] == "python train.py"
    printed = capsys.readouterr().out
    assert "Flagged: 20 of 56 images." in printed and "of all flagged images " in printed
    assert f"Look at them: {tmp_path / 'report.html'}" in printed


OPTIONS = ["dataset=folder", "folds=3",
           "train.model.widths=[4,8]", "train.model.image_size=16", "train.trainer.max_epochs=3",
           "train.loader.batch_size=16", "train.trainer.progress_bar=false",
           "train.logger=none"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn faces, a tenth of them in a wrong folder, and an audit of them that was killed."""
    pytest.importorskip("cleanlab")
    folder = tmp_path_factory.mktemp("audit")
    run_program(
        "-m", "fer", "prepare", "dataset.generator.train=84", "dataset.generator.val=14",
        "dataset.generator.test=14", cwd=folder, env={"FER_DATA": str(folder / "drawn")},
    )  # fmt: skip
    rng = random.Random(0)
    for path in sorted((folder / "drawn/synthetic_a").glob("t*/*/*.png")):
        emotion = path.parent.name
        if rng.random() < 0.1:
            emotion = rng.choice([one for one in labels.EMOTIONS if one != emotion])
        (folder / "faces" / emotion).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "faces" / emotion / path.name)
    process = subprocess.Popen(
        [sys.executable, "-m", "fer", "audit", *OPTIONS, "dataset.raw=faces"],
        cwd=folder, start_new_session=True,
        env={**os.environ, "FER_DATA": str(folder / "data"), "PYTHONPATH": python_path()},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    second = folder / "outputs/audit/folder/train/fold2"
    while process.poll() is None and not (second / "checkpoints/last.ckpt").exists():
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (second / "report.html").exists()
    return folder


def python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def audit(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_program("-m", "fer", "audit", *OPTIONS, *options, cwd=place,
                       env={"FER_DATA": str(place / "data")})  # fmt: skip


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_audit_goes_on_and_does_nothing_twice(place: Path) -> None:
    folder = place / "outputs/audit/folder"
    first = times(folder / "train/fold1") | times(folder / "evaluate/fold1")
    done = audit(place, "dataset.raw=./faces")
    for line in ("done      train without fold 1", "done      measure fold 1",
                 "goes on   train without fold 2", "to do     measure fold 3"):  # fmt: skip
        assert line in done.stdout
    assert times(folder / "train/fold1") | times(folder / "evaluate/fold1") == first
    assert "Flagged: " in done.stdout and "Look at them: outputs/audit/folder/report.html" in (
        done.stdout
    )
    check_results(folder)
    before = times(folder / "train") | times(folder / "evaluate")
    table = (folder / "audit.csv").read_bytes()
    again = audit(place, "flags=3")
    assert "Nothing to train: all 6 stages are complete." in again.stdout
    assert times(folder / "train") | times(folder / "evaluate") == before
    assert (folder / "audit.csv").read_bytes() == table
    other = refusal("-m", "fer", "audit", *OPTIONS, "train.optimizer.lr=0.5", cwd=place,
                    env={"FER_DATA": str(place / "data")})  # fmt: skip
    assert "expected a run with optimizer.lr=0.5, found one with" in other


def check_results(folder: Path) -> None:
    """The table and the numbers are those of the folds' predictions."""
    with (folder / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers: dict[str, Any] = json.loads((folder / "audit.json").read_text())
    predicted: dict[str, dict[str, str]] = {}
    for fold in (1, 2, 3):
        with (folder / f"evaluate/fold{fold}/predictions.csv").open(newline="") as file:
            predicted |= {row["id"]: {**row, "fold": str(fold)} for row in csv.DictReader(file)}
    assert len(rows) == len(predicted) == numbers["images"] == 98
    for row in rows:
        own = predicted[row["id"]]
        assert (row["label"], row["fold"]) == (own["true"], own["fold"])
        assert row["answer"] == own["predicted"]
        label = float(own[f"p_{row['label']}"])
        assert float(row["label_probability"]) == pytest.approx(label, abs=1e-4)
        assert row["source"] == f"{row['label']}/{Path(row['source']).name}"
    flagged = [row["flagged"] == "true" for row in rows]
    assert flagged == sorted(flagged, reverse=True) and sum(flagged) == numbers["flagged"]
    right = sum(row["label"] == row["answer"] for row in rows)
    assert numbers["accuracy"] == pytest.approx(right / 98)
    assert str(folder.parent.parent) not in json.dumps(numbers)
