"""Evaluation end to end: what a user runs, on drawn faces and on folders with other class names."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fer.core import labels
from fer.core.errors import FerError
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN
from fer.runs.records import STATISTICS
from fer.tasks.evaluate import evaluate as run_evaluation
from fer.tasks.notes import temperature_notes
from fer.tasks.train import train
from tests.conftest import compose, run_program, to_png, write_file

pytestmark = pytest.mark.slow  # whole trainings

FEW = ["saliency.images_per_class=2", "saliency.smoothgrad.samples=2",
       "saliency.integrated_gradients.steps=2", "saliency.faithfulness.images=7",
       "saliency.faithfulness.steps=3", "saliency.sanity.images=4", "saliency.confusions.pairs=1",
       "metrics.resamples=100"]  # fmt: skip
NAMES = {
    "angry": "anger", "disgust": "disgusted", "fear": "afraid", "happy": "joy", "sad": "unhappy",
    "surprise": "Surprised", "neutral": "neutrality",
}  # fmt: skip
"""Other names of the classes, which the alphabet puts in another order."""
SIZES = {"train": 210, "val": 42, "test": 70}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small drawn datasets in ``data``, a network trained on the one, an untrained one."""
    folder = tmp_path_factory.mktemp("evaluate")
    env = {"FER_DATA": str(folder / "data")}
    small = [f"dataset.generator.{split}={n}" for split, n in SIZES.items()]
    run_program(
        "train.py", "dataset=synthetic_a", "hydra.run.dir=a", "model.widths=[8,16,16]",
        "model.image_size=32", "trainer.max_epochs=1", "metrics.resamples=100",
        "trainer.progress_bar=false", *small, cwd=folder, env=env,
    )  # fmt: skip
    run_program("-m", "fer", "prepare", "dataset=synthetic_b", *small, cwd=folder, env=env)
    dataset = {"choice": "synthetic_b", "name": "synthetic_b", "reader": {}, "fingerprint": "0"}
    write_checkpoint(folder / "b.ckpt", dataset={**dataset, "generator": SIZES, "options": {}})
    return folder


def evaluate(place: Path, *overrides: str, check: bool = True) -> str:
    done = run_program(
        "evaluate.py", *overrides, cwd=place, check=check, env={"FER_DATA": str(place / "data")}
    )
    return done.stdout + done.stderr


EVERYTHING = ["checkpoint=a/checkpoints/best.ckpt", "perturbation=stress", "saliency=standard",
              "temperature_scaling=true", "prediction_sets=0.8", *FEW]  # fmt: skip


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The whole evaluation, in one command."""
    evaluate(place, *EVERYTHING, "hydra.run.dir=whole")
    return place / "whole"


def test_one_command_leaves_every_file(whole: Path) -> None:
    for name in (
        "metrics.json", "predictions.csv", "robustness.json", "robustness.csv", "saliency.json",
        "run.json", "report.html", "figures/reliability.png", "figures/robustness.png",
        "figures/robustness_per_class.png", "figures/perturbations.png", "figures/confusions.png",
        "figures/confident_mistakes.png", "figures/saliency_class_maps.png",
        "figures/confusion_matrix_test.png",
    ):  # fmt: skip
        assert (whole / name).stat().st_size > 0, name
    page = (whole / "report.html").read_text()
    for heading in ("Calibration", "When the network is unsure", "Robustness", "Mistakes"):
        assert f">{heading}</h2>" in page
    assert page.count("data:image/png") == len(list((whole / "figures").glob("*.png")))
    # Nothing is fetched from anywhere.
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', page)


def test_its_numbers_agree_with_each_other(whole: Path) -> None:
    metrics, rows = read(whole / "metrics.json"), read(whole / "robustness.json")
    assert [(row["perturbation"], row["severity"]) for row in rows] == [
        (name, severity) for name in ("blur", "occlusion", "low_light") for severity in range(6)
    ]
    clean = [row for row in rows if row["severity"] == 0]
    assert {row["accuracy"] for row in clean} == {metrics["accuracy"]}
    table = read_table(whole / "robustness.csv")
    assert [float(row["macro_f1"]) for row in table] == [row["macro_f1"] for row in rows]
    predictions = read_table(whole / "predictions.csv")
    right = np.mean([row["true"] == row["predicted"] for row in predictions])
    assert right == pytest.approx(metrics["accuracy"]) and len(predictions) == 70
    ids = {row["id"] for row in read_table(whole.parent / "data/synthetic_a/manifest.csv")}
    assert {row["id"] for row in predictions} <= ids
    assert metrics["temperature_scaling"]["fitted_on"].endswith("'s val (42 images)")
    sets = metrics["prediction_sets"]
    assert sets["level"] == 0.8 and sum(sets["sizes"]) == 70
    assert sets["calibrated_on"].endswith("'s val (42 images)")
    assert metrics["selective"][0]["accuracy"] == pytest.approx(metrics["accuracy"])
    assert "Dividing the logits by" in (whole / "report.html").read_text(encoding="utf-8")
    assert sum(row["images"] for row in metrics["reliability"]) == 70
    run = read(whole / "run.json")
    assert run["statistics"] == STATISTICS and run["hardware"]["precision"]
    trained = read(whole.parent / "a" / "metrics.json")
    assert trained["accuracy"] == metrics["accuracy"]
    assert trained["confidence_intervals"] == metrics["confidence_intervals"]


def test_the_same_command_writes_the_same_bytes(place: Path, whole: Path) -> None:
    evaluate(place, *EVERYTHING, "hydra.run.dir=again")
    names = sorted(path.name for path in whole.iterdir() if path.suffix in (".json", ".csv"))
    assert len(names) == 6
    for name in names:
        if name != "run.json":  # says when it ran and how long it took
            assert (place / "again" / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.fixture(scope="module")
def sweep(place: Path) -> Path:
    """Both networks on both datasets and under blur."""
    evaluate(
        place, "-m", "checkpoint=a/checkpoints/best.ckpt,b.ckpt",
        "dataset=synthetic_a,synthetic_b", "perturbation=blur", "robustness.severities=[2,5]",
        "hydra.sweep.dir=sweep", "metrics.resamples=100",
    )  # fmt: skip
    return place / "sweep"


def test_a_sweep_ends_with_the_table_of_every_network_on_every_dataset(sweep: Path) -> None:
    rows = read_table(sweep / "cross_dataset.csv")
    datasets = ("synthetic_a", "synthetic_b")
    assert [(row["train_dataset"], row["test_dataset"]) for row in rows] == [
        (one, other) for one in datasets for other in datasets
    ]
    for row in rows:
        metrics: dict[str, Any] = read(sweep / row["run"] / "metrics.json")
        assert float(row["accuracy"]) == metrics["accuracy"]
        assert float(row["macro_f1_low"]) == metrics["confidence_intervals"]["macro_f1"][0]
        home = row["train_dataset"] == row["test_dataset"]
        assert (row["drop_accuracy"] == "") == home
    home_row, away = rows[0], rows[1]
    drop = float(home_row["accuracy"]) - float(away["accuracy"])
    assert float(away["drop_accuracy"]) == pytest.approx(drop)
    comparisons = read(sweep / "comparison.json")
    assert [row["dataset"] for row in comparisons] == list(datasets)
    difference = float(rows[2]["accuracy"]) - float(rows[0]["accuracy"])
    assert comparisons[0]["difference"]["accuracy"] == pytest.approx(difference)
    assert len(read_table(sweep / "robustness.csv")) == 4 * 3
    page = (sweep / "report.html").read_text()
    assert "How much of the loss is class frequency" in page
    assert 'href="0/report.html"' in page


def test_class_folders_with_other_names_and_order_give_the_same_figures(
    place: Path, sweep: Path
) -> None:
    """A comparison of indices, which follow the alphabet elsewhere, would shuffle the emotions."""
    assert sorted(NAMES, key=lambda emotion: NAMES[emotion].lower()) != list(labels.EMOTIONS)
    for split in ("train", "val", "test"):
        for emotion, name in NAMES.items():
            source = place / "data/synthetic_b" / split / emotion
            shutil.copytree(source, place / "renamed" / split / name)
    evaluate(
        place, "checkpoint=a/checkpoints/best.ckpt", "dataset=folder", "dataset.name=renamed",
        "dataset.raw=renamed", "hydra.run.dir=renamed_run", "metrics.resamples=100",
        "perturbation=blur", "robustness.severities=[2,5]",
    )  # fmt: skip
    found, expected = read(place / "renamed_run/metrics.json"), read(sweep / "1/metrics.json")
    for name in ("accuracy", "macro_f1", "per_class", "confusion_matrix"):
        assert found[name] == expected[name], name


def write_checkpoint(path: Path, **changes: Any) -> Path:
    """A checkpoint of an untrained network, with changes to its description."""
    network = NormalisedNetwork(SharedCNN(widths=[4, 4], image_size=32))
    extras = {
        "model": network.describe(),
        "labels": list(labels.EMOTIONS),
        "dataset": {"choice": "synthetic_a", "name": "synthetic_a", "generator": None,
                    "reader": {}, "options": {}, "fingerprint": "0"},
        "seed": 0,
        **changes,
    }  # fmt: skip
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "fer": extras, "epoch": 0}, path)
    return path


MISTAKES = [
    (["checkpoint=fine.ckpt", "perturbation=blur", "robustness.severities=[6]"], "from 1 to 5"),
    (["checkpoint=fine.ckpt", "perturbation=published", "robustness.severities=[2]"], "1 to 1"),
    (["checkpoint=fine.ckpt", "robustness.severities=[1]"], "expected a perturbation beside it"),
    (["checkpoint=fine.ckpt", "prediction_sets=0.9", "split=val+test"], "without the validation"),
    (["checkpoint=fine.ckpt", "votes=''"], "votes: expected a path"),
    (["checkpoint=fine.ckpt", "prediction_sets=1"], "a share between 0 and 1"),
    (["checkpoint=fine.ckpt", "split=validation"], r"one of train, val, test, val\+test"),
    (
        ["checkpoint=fine.ckpt", "+perturbation.fog={_target_: fer.fog, severities: [{}]}"],
        "dotted name of a class or function",
    ),
]


@pytest.mark.parametrize(("overrides", "words"), MISTAKES)
def test_mistakes_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "fine.ckpt")
    with pytest.raises(FerError, match=words):
        run_evaluation(compose(*overrides, config="evaluate"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("around", "images"), [("", 3), ("test/", 12)], ids=["three emotions", "a bare test folder"]
)
def test_measuring_needs_the_measured_split_and_its_classes_alone(
    tmp_path: Path, around: str, images: int
) -> None:
    rng = np.random.default_rng(0)
    names = [f"{around}{e}/{n}.png" for e in ("fear", "happy", "sad") for n in range(4)]
    for name in names:
        write_file(tmp_path / "raw" / name, to_png(rng.integers(0, 256, (48, 48), dtype=np.uint8)))
    checkpoint = write_checkpoint(tmp_path / "fine.ckpt")
    data = ["dataset=folder", f"dataset.raw={tmp_path / 'raw'}", "metrics.resamples=100"]
    cfg = compose(f"checkpoint={checkpoint}", *data, config="evaluate")
    run_evaluation(cfg, tmp_path / "run")
    metrics = read(tmp_path / "run/metrics.json")
    supports = {e: row["support"] for e, row in metrics["per_class"].items() if row["support"]}
    assert supports == dict.fromkeys(("fear", "happy", "sad"), images // 3)
    assert "no image of angry, disgust" in (tmp_path / "run/report.html").read_text()
    with pytest.raises(FerError, match=r"in 'train', found none of 'angry'|found none for 'train'"):
        train(compose(*data), tmp_path / "trained")


def test_a_split_without_images_is_named(tmp_path: Path) -> None:
    from fer.core.errors import DataError
    from fer.data.datamodule import EmotionDataModule

    data = EmotionDataModule.__new__(EmotionDataModule)
    data.dataset_name = "mine"
    data.datasets = {"val": []}  # type: ignore[dict-item]
    with pytest.raises(DataError, match=r"mine: expected images in its val split, found none"):
        data.split("val")


def test_folding_does_not_change_what_the_network_says() -> None:
    torch.manual_seed(0)
    network = NormalisedNetwork(SharedCNN(widths=[8, 16, 16], image_size=32))
    for _ in range(3):  # statistics that are not those of a new network
        network(torch.randint(0, 256, (16, 1, 32, 32), dtype=torch.uint8))
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(network.folded()(images), network(images), rtol=1e-4, atol=1e-5)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_whose_images_a_temperature_was_fitted_on_is_said() -> None:
    checkpoint: Any = SimpleNamespace(extras={"dataset": {"name": "a"}})
    assert temperature_notes(checkpoint, "a", "test") == []
    (note,) = temperature_notes(checkpoint, "a", "val+test")
    assert "these figures are of" in note
    (note,) = temperature_notes(checkpoint, "b", "test")
    assert "b's validation images" in note
