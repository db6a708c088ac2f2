"""Training and evaluation end to end, on data that is made in seconds."""

from __future__ import annotations

import csv
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from fer.core import labels
from fer.model.checkpoint import load_checkpoint
from fer.tasks.evaluate import evaluate
from tests.conftest import ROOT, Row, compose, run_program, write_zip
from tests.tasks.test_odd_data import train_here

TINY = ["model.widths=[4,8,8,8]", "model.image_size=32", "trainer.max_epochs=3",
        "loader.batch_size=7", "metrics.resamples=100"]  # fmt: skip


def train(tmp_path: Path, raw: Path, *overrides: str) -> Path:
    """Train on tiny data as a user would and return the run folder."""
    run = tmp_path / "run"
    run_program(
        "train.py", "dataset=fer2013", f"dataset.raw={raw}", f"hydra.run.dir={run}", *TINY,
        *overrides, cwd=tmp_path,
    )  # fmt: skip
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_zip: Path) -> Path:
    """The folder in which a training was started; the run is in ``run`` below it."""
    place = tmp_path_factory.mktemp("trained")
    run_program(
        "train.py", "dataset=fer2013", f"dataset.raw={tiny_zip}", "hydra.run.dir=run", *TINY,
        cwd=place, env={"FER_DATA": str(place / "data")}, sketching=False,
    )  # fmt: skip
    return place


def evaluate_here(folder: Path, checkpoint: Path, *overrides: str) -> None:
    """The task of ``evaluate.py`` in this process."""
    folder.mkdir()
    options = (f"checkpoint={checkpoint}", "metrics.resamples=100", *overrides)
    evaluate(compose(*options, config="evaluate"), folder)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_leaves_every_file_of_the_contract(trained: Path) -> None:
    run = trained / "run"
    for name in (
        "metrics.json",
        "history.csv",
        "run.json",
        "report.html",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "figures/curves.png",
        "figures/confusion_matrix_test.png",
        "figures/class_balance.png",
        "figures/predictions_val.png",
        ".hydra/config.yaml",
    ):
        assert (run / name).stat().st_size > 0, name
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert not list(run.rglob("*.tmp"))


def test_the_metrics_are_of_the_whole_test_split(trained: Path) -> None:
    metrics = read(trained / "run" / "metrics.json")
    assert metrics["dataset"] == "fer2013" and metrics["split"] == "test"
    assert metrics["samples"] == 14
    assert {row["support"] for row in metrics["per_class"].values()} == {2}
    assert sum(map(sum, metrics["confusion_matrix"])) == 14
    assert metrics["without_leaks"]["samples"] == 14


def test_the_history_has_a_row_for_each_epoch(trained: Path) -> None:
    with (trained / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    for row in rows:
        assert all(float(value) >= 0 for value in row.values())
    assert float(rows[0]["learning_rate"]) > float(rows[2]["learning_rate"])
    best = max(rows, key=lambda row: float(row["val_macro_f1"]))
    assert read(trained / "run" / "run.json")["best_epoch"] == int(best["epoch"])


def test_run_json_says_where_the_result_comes_from(trained: Path) -> None:
    run = read(trained / "run" / "run.json")
    assert run["command"].startswith("python train.py dataset=fer2013")
    assert run["seed"] == 0
    assert run["dataset"]["images"] == {"train": 28, "val": 14, "test": 14}
    assert len(run["dataset"]["fingerprint"]) == 64
    assert run["config"]["model"]["widths"] == [4, 8, 8, 8]
    assert run["versions"]["torch"] == metadata.version("torch")
    assert run["hardware"]["device"] and run["hardware"]["precision"]
    assert run["wall_seconds"] > 0 and run["images_per_second"] > 0
    assert set(run["git"] or {"commit", "dirty"}) == {"commit", "dirty"}


def test_the_best_checkpoint_is_the_epoch_with_the_best_validation_macro_f1(trained: Path) -> None:
    best = load_checkpoint(trained / "run" / "checkpoints" / "best.ckpt")
    assert best.epoch == read(trained / "run" / "run.json")["best_epoch"]
    last = torch.load(trained / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2


def test_tensorboard_has_scalars_images_and_hyper_parameters(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "val/loss", "val/macro_f1", "val/accuracy", "learning_rate"} <= set(
        tags["scalars"]
    )
    assert len(events.Scalars("val/macro_f1")) == 3
    assert set(tags["images"]) == {
        *("augmented/train", "predictions/epochs", "confusion_matrix/epochs"),
        *("confusion_matrix/val", "confusion_matrix/test", "predictions/val"),
    }
    # Of the first of three epochs.
    assert [one.step for one in events.Images("predictions/epochs")] == [3]
    by_step = events.Scalars("train/loss_by_step")
    epochs = events.Scalars("train/loss")
    assert [one.step for one in by_step] == [3, 7, 11]
    for mean, one in zip(epochs, by_step, strict=True):
        assert mean.value == pytest.approx(one.value, rel=0.1)  # its batches differ in size
    plugins = events.summary_metadata
    assert any(data.plugin_data.plugin_name == "hparams" for data in plugins.values())


def test_evaluation_of_the_checkpoint_reproduces_the_runs_metrics(trained: Path) -> None:
    run_program(
        "evaluate.py", "checkpoint=run/checkpoints/best.ckpt", "hydra.run.dir=again",
        "metrics.resamples=100", cwd=trained, env={"FER_DATA": str(trained / "data")},
    )  # fmt: skip
    assert (trained / "again/metrics.json").read_bytes() == (
        trained / "run/metrics.json"
    ).read_bytes()
    notes = read(trained / "again/run.json")["notes"]
    assert not any("trained on" in note for note in notes)  # the data are the same
    assert (trained / "again" / "report.html").is_file()


def test_evaluation_says_when_the_data_are_not_the_ones_trained_on(
    trained: Path, tmp_path: Path, rows: list[Row]
) -> None:
    other = write_zip(tmp_path / "other.zip", rows[1:])
    path = trained / "run/checkpoints/best.ckpt"
    evaluate_here(tmp_path / "other", path, "dataset=fer2013", f"dataset.raw={other}")
    notes = " ".join(read(tmp_path / "other/run.json")["notes"])
    assert "not the copy of fer2013 that the network was trained on" in notes


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_command_gives_the_same_weights_bit_for_bit_with_any_workers(
    trained: Path, tmp_path: Path, tiny_zip: Path, workers: int
) -> None:
    run = train(tmp_path, tiny_zip, f"loader.num_workers={workers}")
    first = load_checkpoint(trained / "run/checkpoints/last.ckpt").network.state_dict()
    second = load_checkpoint(run / "checkpoints/last.ckpt").network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (run / "metrics.json").read_bytes() == (trained / "run/metrics.json").read_bytes()


def test_training_stops_early_when_validation_does_not_improve(
    tmp_path: Path, tiny_data: Path
) -> None:
    run = tmp_path / "run"
    patience = ("early_stopping.patience=1", "early_stopping.min_delta=2.0")
    train_here(run, tiny_data, *TINY, "trainer.max_epochs=30", *patience, "logger=none")
    assert read(run / "run.json")["epochs"] == 2  # macro-F1 cannot rise by 2
    assert not (run / "tensorboard").exists()


def test_a_sweep_runs_a_job_for_each_combination(tmp_path: Path, tiny_zip: Path) -> None:
    run_program(
        "train.py", "-m", "dataset=fer2013", f"dataset.raw={tiny_zip}", *TINY,
        "trainer.max_epochs=1", "optimizer.lr=1e-3,3e-4", "logger=none",
        "hydra.sweep.dir=sweep", cwd=tmp_path,
    )  # fmt: skip
    rates = [
        read(tmp_path / "sweep" / str(job) / "run.json")["config"]["optimizer"]["lr"]
        for job in range(2)
    ]
    assert rates == [1e-3, 3e-4]


def test_a_checkpoint_cannot_name_code_for_its_dataset(
    trained: Path, tmp_path: Path, tiny_data: Path
) -> None:
    content = torch.load(trained / "run/checkpoints/best.ckpt", weights_only=True)
    content["fer"]["dataset"]["reader"]["_target_"] = "os.abort"
    content["fer"]["dataset"]["generator"] = {"_target_": "os.abort", "train": 9}
    torch.save(content, tmp_path / "evil.ckpt")
    evaluate_here(tmp_path / "evil", tmp_path / "evil.ckpt")
    config = read(tmp_path / "evil/run.json")["config"]
    assert config["dataset"]["reader"]["_target_"] == "fer.data.readers.fer2013.FER2013Reader"
    assert config["dataset"]["generator"] is None


def test_checkpoints_hold_the_schema_and_the_datas_fingerprint(trained: Path) -> None:
    extras = load_checkpoint(trained / "run/checkpoints/best.ckpt").extras
    assert extras["labels"] == list(labels.EMOTIONS)
    run = read(trained / "run/run.json")
    assert extras["dataset"]["fingerprint"] == run["dataset"]["fingerprint"]


def test_the_readme_starts_with_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "pip install -r requirements.txt && python train.py" in text
