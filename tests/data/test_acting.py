"""What a user can do about a dataset's faults: leave images out, or accept an altered copy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fer.core.errors import ConfigError, DataError
from fer.core.hardware import Computing
from fer.data.dataset import EmotionDataset
from fer.data.device import DeviceDataset
from fer.data.published import FER2013DataModule
from fer.evaluation.inference import measure_network
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN
from tests.conftest import Row, run_program, write_folder, write_zip
from tests.tasks.test_train import TINY


def faulty(rows: list[Row]) -> list[Row]:
    """The tiny FER2013 with a leak, a conflict within train, and a blank image in test."""
    blank = np.full((48, 48), 7, np.uint8)
    return [
        *rows,
        ("PrivateTest", "angry", rows[0][2]),  # rows[0] and [4] are training images
        ("Training", "sad", rows[4][2]),
        ("PrivateTest", "happy", blank),
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where faulty images are prepared once: what is left out is decided afterwards."""
    return tmp_path_factory.mktemp("acting")


def module(place: Path, rows: list[Row], **options: Any) -> FER2013DataModule:
    raw = place / "archive.zip"
    if not raw.exists():
        write_zip(raw, faulty(rows))
    options = {"image_size": 32, "transforms": [], **options}
    data = FER2013DataModule(place / "d", raw=raw, batch_size=4, **options)
    data.prepare_data()
    data.setup()
    return data


def sizes(data: FER2013DataModule) -> dict[str, int]:
    return {split: len(dataset) for split, dataset in data.datasets.items()}


@pytest.mark.parametrize(
    ("options", "train", "test", "leaks"),
    [
        ({}, 29, 16, 1),  # the official protocol
        ({"leaks": "drop_from_train"}, 28, 16, 0),  # nothing of the test was learned
        ({"blank": "drop"}, 29, 15, 1),
        ({"conflicts": "drop"}, 27, 16, None),  # all copies
    ],
    ids=["nothing", "leaks", "blank", "conflicts"],
)
def test_what_is_asked_for_is_left_out(
    place: Path, rows: list[Row], options: dict[str, str], train: int, test: int, leaks: int | None
) -> None:
    data = module(place, rows, **options)
    assert sizes(data) == {"train": train, "val": 14, "test": test}
    assert bool(data.left_out) == bool(options)
    assert leaks is None or data.leaked("test").sum() == leaks
    if "leaks" in options:
        why = "they are duplicated in val or test"
        assert data.left_out == {why: {"train": 1, "val": 0, "test": 0}}
    if "blank" in options:
        assert data.datasets["test"].images.reshape(test, -1).std(axis=1).min() > 2


def test_near_duplicates_of_earlier_splits_are_leaks_too(tmp_path: Path, rows: list[Row]) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    face = cv2.resize(coarse, (48, 48))
    darker = face // 4 * 3
    pictures: list[Row] = [
        ("Training", "sad", face),
        ("PrivateTest", "sad", face.T),  # another picture
        ("PrivateTest", "sad", darker),
    ]
    data = module(tmp_path, [*rows, *pictures])
    (row,) = np.flatnonzero(data.nearly_leaked("test") & ~data.leaked("test"))
    assert np.ptp(data.split("test").images[row]) <= np.ptp(darker)
    result: Any = measure_network(
        NormalisedNetwork(SharedCNN(widths=[4], image_size=32)), data, "val+test",
        Computing(torch.device("cpu"), "32-true"), resamples=100,
    ).metrics  # fmt: skip
    assert [result["samples"] - result[f"without_{kind}"]["samples"]
            for kind in ("leaks", "near_leaks")] == [1, 2]  # fmt: skip
    # A folder that was prepared before there were hashes does not know of any.
    entries = [replace(entry, phash="") for entry in data.prepared.entries]
    old = module(tmp_path, [*rows, *pictures])
    old.prepared = replace(old.prepared, entries=entries)
    assert old.nearly_leaked("test") is None and old.leaked("test").sum() == 1


def test_images_targets_and_ids_stay_together_when_some_are_dropped(
    place: Path, rows: list[Row]
) -> None:
    from fer.core import labels
    from fer.data.images import to_input

    data = module(place, rows, leaks="drop_from_train", blank="drop", conflicts="drop")
    at = {entry.id: index for index, entry in enumerate(data.prepared.entries)}
    for dataset in data.datasets.values():
        for image, target, name in zip(dataset.images, dataset.targets, dataset.ids, strict=True):
            entry = data.prepared.entries[at[name]]
            assert labels.EMOTIONS[target] == entry.emotion
            np.testing.assert_array_equal(image, to_input(data.prepared.read(at[name]), 32, 1))


def test_what_is_left_stays_mapped_and_gives_the_values_of_a_copy(
    tmp_path: Path, rows: list[Row]
) -> None:
    drop = {"leaks": "drop_from_train", "blank": "drop", "conflicts": "drop"}
    data = module(tmp_path, rows, transforms="standard", eval_batch_size=4, **drop)
    copies = module(tmp_path, rows, transforms="standard", eval_batch_size=4, **drop)
    for split, dataset in copies.datasets.items():
        copies.datasets[split] = EmotionDataset(
            np.array(dataset.images), dataset.targets, dataset.ids, dataset.augmentation
        )
        assert isinstance(data.datasets[split].source, np.memmap)
    for split in ("train", "test"):  # something is left out between the first and the last
        assert len(data.datasets[split].source) > len(data.datasets[split])
    assert isinstance(data.test_dataloader().dataset.source, np.memmap)  # type: ignore[attr-defined]
    assert data.normalisation() == copies.normalisation()
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        batches = zip(getattr(data, name)(), getattr(copies, name)(), strict=True)
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in batches)
    one, other = (
        DeviceDataset(each.datasets["train"], [], torch.device("cpu")) for each in (data, copies)
    )
    assert isinstance(one.source, np.memmap)
    assert torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("option", ["leaks", "blank", "conflicts"])
def test_an_unknown_way_to_act_is_refused(place: Path, rows: list[Row], option: str) -> None:
    with pytest.raises(ConfigError, match=rf"dataset.{option}: expected one of keep, "):
        module(place, rows, **{option: "remove"})


@pytest.mark.slow
def test_a_run_says_what_it_left_out_and_its_evaluation_leaves_out_the_same(
    tmp_path: Path, rows: list[Row]
) -> None:
    raw = write_zip(tmp_path / "archive.zip", faulty(rows))
    run_program(
        "train.py", "dataset=fer2013", f"dataset.raw={raw}", "dataset.leaks=drop_from_train",
        "dataset.blank=drop", "hydra.run.dir=run", *TINY, cwd=tmp_path,
    )  # fmt: skip
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["dataset"]["images"] == {"train": 28, "val": 14, "test": 15}
    assert run["dataset"]["left_out"]["they show nothing"] == {"train": 0, "val": 0, "test": 1}
    notes = " ".join(run["notes"])
    assert "1 of train" in notes and "the test split is then not the official one" in notes.lower()
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["left_out"] == run["dataset"]["left_out"]
    assert metrics["samples"] == 15 and metrics["without_leaks"]["samples"] == 15
    run_program(
        "evaluate.py", "checkpoint=run/checkpoints/best.ckpt", "hydra.run.dir=again",
        "metrics.resamples=100", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads((tmp_path / "again/metrics.json").read_text()) == metrics


def test_options_that_leave_a_class_empty_are_named(tmp_path: Path, rows: list[Row]) -> None:
    twins = [(usage, "sad" if emotion == "happy" else emotion, image)
             for usage, emotion, image in rows if emotion == "happy"]  # fmt: skip
    raw = write_zip(tmp_path / "archive.zip", [*rows, *twins])
    data = FER2013DataModule(tmp_path / "d", raw=raw, conflicts="drop")
    data.prepare_data()
    with pytest.raises(DataError, match=r"none of happy in train, .*dataset.conflicts.*to keep"):
        data.setup()


# --- altered copies ------------------------------------------------------------------------------


def altered(tmp_path: Path, rows: list[Row]) -> Path:
    """A copy in which somebody moved files between the folders: their names betray it."""
    raw = write_folder(tmp_path / "raw", rows)
    for name in sorted(path.name for path in (raw / "train/happy").iterdir())[:2]:
        (raw / "train/happy" / name).rename(raw / "test/happy" / name)
    return raw


def test_an_altered_copy_trains_only_when_it_is_accepted(tmp_path: Path, rows: list[Row]) -> None:
    raw = altered(tmp_path, rows)
    data = FER2013DataModule(tmp_path / "d", raw=raw, image_size=32)
    data.prepare_data()
    data.setup()
    assert data.prepared.integrity["verdict"] == "altered copy"
    with pytest.raises(DataError, match=r"(?s)Re-split: 2 files.*dataset.accept_altered=true"):
        data.train_dataloader()
    assert len(data.split("test")) == 14
    data.accept_altered = True
    assert len(data.train_dataloader()) > 0


@pytest.mark.slow
def test_every_result_from_an_altered_copy_says_so(tmp_path: Path, rows: list[Row]) -> None:
    raw = altered(tmp_path, rows)
    command = ["train.py", "dataset=fer2013", f"dataset.raw={raw}", "hydra.run.dir=run", *TINY]
    refused = run_program(*command, cwd=tmp_path, check=False)
    assert refused.returncode != 0 and "Traceback" not in refused.stderr
    for words in ("altered", "Re-split: 2 files", "dataset.accept_altered=true"):
        assert words in refused.stderr
    assert not (tmp_path / "run/metrics.json").exists()
    done = run_program(*command, "dataset.accept_altered=true", cwd=tmp_path)
    assert "altered copy" in done.stdout
    run_program(
        "evaluate.py", "checkpoint=run/checkpoints/best.ckpt", "hydra.run.dir=again",
        "metrics.resamples=100", cwd=tmp_path,
    )  # fmt: skip
    for folder in ("run", "again"):
        metrics = json.loads((tmp_path / folder / "metrics.json").read_text())
        assert "Re-split: 2 files" in metrics["altered_copy"][0]
        run = json.loads((tmp_path / folder / "run.json").read_text())
        assert run["dataset"]["verdict"] == "altered copy"
        assert run["dataset"]["official_protocol"] is False
        assert any("from an altered copy" in note for note in run["notes"])
        assert "Altered copy" in (tmp_path / folder / "report.html").read_text()


def test_an_unaltered_copy_has_no_such_mark(place: Path, rows: list[Row]) -> None:
    from fer.core.hardware import Computing
    from fer.evaluation.inference import measure_network
    from fer.model.shared_cnn import SharedCNN

    data = module(place, rows)
    network = SharedCNN(widths=[4, 4], image_size=32)
    found = measure_network(network, data, "test", Computing.find("cpu", "32-true"), resamples=100)
    assert "altered_copy" not in found.metrics
