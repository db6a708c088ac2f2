"""Odd data, odd disks, trainings that go wrong: they work, or end in a message that helps."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fer.core import labels
from fer.core.application import CommandError, call
from fer.core.errors import DataError, TrainingError
from fer.core.files import write_atomic, write_bytes
from fer.data import dataset as dataset_module
from fer.data.dataset import load_images
from fer.data.preparation import prepare
from fer.data.readers.fer2013 import FER2013Reader
from fer.model import callbacks
from fer.model.callbacks import HISTORY_COLUMNS
from fer.model.checkpoint import load_checkpoint
from fer.model.module import EmotionModule
from fer.runs.state import LAST
from fer.tasks import train as experiment
from tests.conftest import Row, compose, refusal, tiny_rows, to_png, write_folder, write_zip
from tests.kills import history

TINY = ["model.widths=[4,8]", "model.image_size=16", "trainer.max_epochs=2", "loader.batch_size=7",
        "metrics.resamples=100", "trainer.progress_bar=false", "logger=none",
        "trainer.accelerator=cpu", "augmentation=none"]  # fmt: skip


def train_here(folder: Path, raw: Path, *overrides: str, explain: bool = False) -> Any:
    """The task of ``train.py`` in this process.

    Args:
        folder: of the run.
        raw: a copy of FER2013.
        overrides: of the command line, the data apart.
        explain: make messages of errors as the command line does.
    """
    arguments = ["dataset=fer2013", f"dataset.raw={raw}", *overrides]
    arguments.append(f"+hydra.runtime.output_dir={folder}")
    cfg = compose(*arguments, hydra=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    OmegaConf.set_struct(cfg, True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return call(experiment.train, cfg) if explain else experiment.train(cfg, folder)
    finally:
        HydraConfig.instance().cfg = None
        torch.use_deterministic_algorithms(False)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# --- data ------------------------------------------------------------------------------------


def rows_of(counts: dict[str, int], image: np.ndarray | None = None) -> list[Row]:
    """So many images of each emotion for each usage: noise, or one image again and again."""
    rng = np.random.default_rng(0)
    return [
        (usage, emotion, rng.integers(0, 256, (48, 48), np.uint8) if image is None else image)
        for usage, count in counts.items()
        for emotion in labels.EMOTIONS
        for _ in range(count)
    ]


ONE_EACH = {"Training": 1, "PublicTest": 1, "PrivateTest": 1}


@pytest.mark.parametrize(
    "rows",
    [
        [row for row in rows_of(ONE_EACH) if row[0] != "Training" or row[1] == "happy"],
        [(usage, "sad", image) for usage, _, image in rows_of(ONE_EACH)],
    ],
    ids=["one training image", "labels of one class"],
)
def test_what_is_missing_of_the_seven_emotions_is_named(tmp_path: Path, rows: list[Row]) -> None:
    with pytest.raises(DataError, match=r"all seven emotions in 'train', found none of 'angry'"):
        train_here(tmp_path / "run", write_zip(tmp_path / "archive.zip", rows), *TINY)


@pytest.mark.parametrize("batch", [1, 1000], ids=["of one", "larger than the set"])
def test_one_training_image_of_each_emotion_is_enough_in_any_batch(
    tmp_path: Path, batch: int
) -> None:
    raw = write_zip(tmp_path / "archive.zip", rows_of(ONE_EACH))
    train_here(
        tmp_path / "run", raw, *TINY, f"loader.batch_size={batch}", "loader.eval_batch_size=1",
        "mixing.mixup=0.2", "mixing.cutmix=1.0",
    )  # fmt: skip
    assert read(tmp_path / "run/metrics.json")["samples"] == 7


def test_a_last_batch_of_one_image_is_left_out_of_training_and_kept_in_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BatchNorm would normalise that image by itself alone."""
    raw = write_zip(tmp_path / "archive.zip", rows_of({**ONE_EACH, "Training": 2}))
    sizes: list[int] = []
    plain = EmotionModule.training_step

    def step(module: EmotionModule, batch: Any, batch_idx: int) -> torch.Tensor:
        sizes.append(len(batch[1]))
        return plain(module, batch, batch_idx)

    monkeypatch.setattr(EmotionModule, "training_step", step)
    options = ("loader.batch_size=13", "loader.eval_batch_size=6", "trainer.max_epochs=1")
    train_here(tmp_path / "run", raw, *TINY, *options)
    assert sizes == [13]
    assert read(tmp_path / "run/metrics.json")["samples"] == 7


@pytest.mark.usefixtures("rendering")
@pytest.mark.parametrize("usage", ["PublicTest", "PrivateTest"])
def test_a_class_may_be_missing_from_val_or_test_and_the_page_says_so(
    tmp_path: Path, usage: str
) -> None:
    rows = [row for row in rows_of({**ONE_EACH, usage: 2}) if row[:2] != (usage, "sad")]
    train_here(tmp_path / "run", write_zip(tmp_path / "archive.zip", rows), *TINY)
    metrics = read(tmp_path / "run/metrics.json")
    assert metrics["per_class"]["sad"]["support"] == (0 if usage == "PrivateTest" else 1)
    assert np.isfinite(metrics["macro_f1"])
    if usage == "PrivateTest":
        assert "sad" in read(tmp_path / "run/run.json")["notes"][0]
    assert (tmp_path / "run/report.html").stat().st_size > 0


@pytest.mark.usefixtures("rendering")
@pytest.mark.parametrize("level", [0, 255])
def test_images_that_are_all_equal_train_and_are_reported(tmp_path: Path, level: int) -> None:
    """Their standard deviation is 0, and every image is a copy of every other."""
    rows = rows_of(ONE_EACH, np.full((48, 48), level, np.uint8))
    raw = write_folder(tmp_path / "raw", rows)
    # FER2013 has a few black and white pictures itself: this many are an altered copy of it.
    train_here(tmp_path / "run", raw, *TINY, "dataset.accept_altered=true")
    metrics = read(tmp_path / "run/metrics.json")
    assert np.isfinite(metrics["accuracy"]) and metrics["without_leaks"] is None
    integrity = read(tmp_path / "data/fer2013/integrity.json")
    assert len(integrity["blank"]) == 21 and integrity["duplicates"]["images"] == 21


# --- trainings that go wrong -----------------------------------------------------------------


def disturb(
    monkeypatch: pytest.MonkeyPatch, epoch: int, step: int, what: Callable[[Any], float]
) -> None:
    """Multiply the loss of one step by what a function of its batch returns."""
    plain, begin = EmotionModule.loss_of_batch, EmotionModule.on_train_epoch_start
    steps = itertools.count()

    def on_train_epoch_start(module: EmotionModule) -> None:
        nonlocal steps
        steps = itertools.count()
        begin(module)

    def loss_of_batch(
        module: EmotionModule, images: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        loss = plain(module, images, target)
        if (module.current_epoch, next(steps)) == (epoch, step):
            loss = loss * what((images, target))
        return loss

    monkeypatch.setattr(EmotionModule, "on_train_epoch_start", on_train_epoch_start)
    monkeypatch.setattr(EmotionModule, "loss_of_batch", loss_of_batch)


@pytest.mark.parametrize("device", ["false", "true"], ids=["", "on_device"])
@pytest.mark.parametrize("step", [0, 2, 3], ids=["first step", "a step", "last step"])
def test_a_loss_that_is_not_finite_ends_training_with_when_and_what(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, step: int, device: str
) -> None:
    batches: list[np.ndarray] = []

    def spoil(batch: Any) -> float:
        images = batch[0].permute(0, 2, 3, 1).numpy()
        batches.append(images if images.dtype == np.uint8 else np.rint(images * 255))
        return float("nan")

    def write_slowly(path: Path, content: Any, **options: bool) -> Path:
        time.sleep(0.3)  # the first steps of an epoch are taken while the last one's is written
        return write_bytes(path, content, **options)

    monkeypatch.setattr(callbacks, "write_bytes", write_slowly)
    disturb(monkeypatch, 1, step, spoil)
    options = ("trainer.max_epochs=4", f"loader.on_device={device}")
    with pytest.raises(TrainingError) as error:
        train_here(tmp_path / "run", tiny_data, *TINY, *options)
    message = str(error.value)
    assert f"epoch 2, step {step + 1}: expected a finite loss, found nan" in message
    assert "Kept from before: best.ckpt and last.ckpt" in message
    prepared = prepare("fer2013", tmp_path / "data/fer2013", FER2013Reader())
    ids = [entry.id for entry in prepared.entries]
    named = message.partition("images: ")[2].partition(". Kept")[0].split(", ")
    pixels = load_images(prepared, 16, 1)[[ids.index(name) for name in named]]
    np.testing.assert_array_equal(pixels, batches[0])
    check_last_good(tmp_path / "run", epochs=1)


def check_last_good(run: Path, epochs: int) -> None:
    """The checkpoints are of the epochs before, finite, and no result was written."""
    for name in ("best", "last"):
        path = run / f"checkpoints/{name}.ckpt"
        load_checkpoint(path)  # refuses weights that are not finite
        content = torch.load(path, weights_only=True)
        assert content["fer_progress"]["epochs"] <= epochs
    assert content["fer_progress"]["epochs"] == epochs
    assert not list(run.rglob("*.tmp")) and not (run / "metrics.json").exists()


@pytest.mark.parametrize("loss", [torch.inf, torch.nan])
def test_a_validation_loss_that_is_not_finite_does_not_overwrite_the_last_checkpoint(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    """The last step of an epoch may ruin the weights though its own loss was finite."""
    plain = EmotionModule.on_validation_epoch_end

    def ruined(module: EmotionModule) -> None:
        if module.current_epoch == 1:
            module.val_metrics.loss.update(torch.tensor(loss))
            with torch.no_grad():
                next(module.network.parameters()).fill_(torch.nan)
        plain(module)

    monkeypatch.setattr(EmotionModule, "on_validation_epoch_end", ruined)
    with pytest.raises(TrainingError, match=r"epoch 2: expected a finite validation loss"):
        train_here(tmp_path / "run", tiny_data, *TINY, "trainer.max_epochs=4")
    check_last_good(tmp_path / "run", epochs=1)


def test_a_learning_rate_that_is_far_too_high_is_named_as_the_likely_cause(
    tmp_path: Path, tiny_data: Path
) -> None:
    options = ("optimizer=sgd", "scheduler=constant", "optimizer.lr=1e30")
    with pytest.raises(TrainingError, match=r"epoch 1, .*no checkpoint. Lower optimizer.lr"):
        train_here(tmp_path / "run", tiny_data, *TINY, *options)


@pytest.mark.parametrize("logger", ["none", "tensorboard"])
@pytest.mark.parametrize("moved", [False, True], ids=["deleted", "moved"])
def test_a_run_folder_that_vanishes_is_noticed_and_not_made_anew(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, moved: bool, logger: str
) -> None:
    run = tmp_path / "run"

    def vanish(_: Any) -> float:
        deadline = time.monotonic() + 10  # what is half written would be lost with it
        while not (run / LAST).exists() or not (run / "history.csv").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run.rename(tmp_path / "elsewhere") if moved else shutil.rmtree(run)
        return 1.0

    disturb(monkeypatch, 1, 1, vanish)
    with pytest.raises(TrainingError, match=r"run: expected the run folder in epoch 2, found that"):
        train_here(run, tiny_data, *TINY, f"logger={logger}")
    assert not run.exists()
    if moved:
        check_last_good(tmp_path / "elsewhere", epochs=1)


# --- disks -----------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of ``size`` at ``folder``; skips where none may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """``folder`` without the right to write; root has it whatever the mode, so it mounts."""
    if os.geteuid() != 0:
        places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for place in places:
            place.chmod(0o555)
        try:
            yield
        finally:
            for place in places:
                place.chmod(0o755)
        return
    bind = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("needs the right to mount, or a user who is not root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_while_preparing_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    """On a real file system of 128 KiB, and then on one that is large enough."""
    raw = write_zip(tmp_path / "archive.zip", tiny_rows())
    with small_disk(tmp_path / "disk", "128k") as disk:
        with pytest.raises(DataError, match=r"expected to write 56 images, found: .*No space left"):
            prepare("fer2013", disk / "d", FER2013Reader(), raw=raw)
        assert [path.name for path in (disk / "d").iterdir()] == [".lock"]
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert len(prepare("fer2013", disk / "d", FER2013Reader(), raw=raw).entries) == 56


def test_a_disk_that_fills_up_while_a_checkpoint_is_written_keeps_the_last_one(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real file system; with space again, the run goes on from there."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        run = disk / "run"

        def fill(_: Any) -> float:
            with pytest.raises(OSError), (disk / "ballast").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            return 1.0

        with monkeypatch.context() as patch:
            disturb(patch, 1, 2, fill)
            with pytest.raises(
                CommandError, match=r"expected to read or write there, found: No space"
            ):
                train_here(run, tiny_data, *TINY, explain=True)
        (disk / "ballast").unlink()
        check_last_good(run, epochs=1)
        train_here(run, tiny_data, *TINY, f"resume={run}")
        assert read(run / "run.json")["resumed_after_epochs"] == 1
        train_here(tmp_path / "whole", tiny_data, *TINY)
        assert history(run) == history(tmp_path / "whole")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_fails_leaves_the_file_that_was_there(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The same on every machine: fsync fails, as it does on a full disk or above a quota."""
    plain = os.fsync

    def fail(_: Any) -> float:
        monkeypatch.setattr(os, "fsync", refuse)
        return 1.0

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    disturb(monkeypatch, 1, 2, fail)
    with pytest.raises(
        CommandError, match=rf"expected to read or write there, found: {os.strerror(code)}"
    ):
        train_here(tmp_path / "run", tiny_data, *TINY, explain=True)
    monkeypatch.setattr(os, "fsync", plain)
    check_last_good(tmp_path / "run", epochs=1)
    assert (tmp_path / "run/history.csv").read_text().startswith(",".join(HISTORY_COLUMNS))


def test_a_disk_that_is_too_full_for_the_cache_costs_time_alone(
    tmp_path: Path, tiny_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)

    def full(path: Path, write: Any) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(dataset_module, "write_atomic", full)
    images = load_images(prepared, 16, 1)
    monkeypatch.undo()
    np.testing.assert_array_equal(load_images(prepared, 16, 1), images)


def test_a_read_only_raw_folder_is_prepared_elsewhere(tmp_path: Path, rows: list[Row]) -> None:
    raw = write_folder(tmp_path / "raw", rows)
    with read_only(raw):
        with pytest.raises(OSError):
            (raw / "file").write_text("")
        prepared = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=raw)
    assert len(prepared.entries) == len(rows)


def test_a_read_only_place_for_prepared_data_is_named(tmp_path: Path, rows: list[Row]) -> None:
    """Raw data in its default place, below a folder of a cluster that cannot be written."""
    write_folder(tmp_path / "data/fer2013/raw", rows)
    with (
        read_only(tmp_path / "data"),
        pytest.raises(DataError, match=r"folder that can be written.*paths\.data=FOLDER"),
    ):
        prepare("fer2013", tmp_path / "data/fer2013", FER2013Reader())


@pytest.mark.parametrize("made", ["here", "elsewhere"])
def test_a_read_only_prepared_folder_trains(
    tmp_path: Path, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = tmp_path / "data/fer2013", tiny_rows()
    raw = "null"
    if made == "here":
        raw = str(write_zip(tmp_path / "archive.zip", rows))
        prepare("fer2013", folder, FER2013Reader(), raw=Path(raw))
    else:
        splits = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
        for number, (usage, emotion, image) in enumerate(rows):
            place = folder / splits[usage] / emotion
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(to_png(image))
    before = sorted(folder.rglob("*"))
    with read_only(tmp_path / "data"):
        train_here(tmp_path / "run", Path(raw), *TINY)
    assert sorted(folder.rglob("*")) == before
    assert read(tmp_path / "run/metrics.json")["samples"] == 14


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "run").mkdir()
    with (
        read_only(tmp_path / "run"),
        pytest.raises(
            CommandError, match=r"expected to read or write there, found: (Read-only|Permission)"
        ),
    ):
        train_here(tmp_path / "run", tiny_data, *TINY, explain=True)


# --- what is no fault of the program's ---------------------------------------------------------


def test_a_full_disk_is_named_where_it_is(tmp_path: Path) -> None:
    def write(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*/deep/a\.json'"):
        write_atomic(tmp_path / "deep/a.json", write)


@pytest.mark.parametrize("command", ["train resume=", "card ", "predict ", "evaluate checkpoint="])
def test_a_path_that_is_too_long_is_a_message(command: str, tmp_path: Path) -> None:
    said = refusal("-m", "fer", *f"{command}{'x' * 5000}".split(), cwd=tmp_path)
    assert "File name too long" in said


def test_a_pipe_behind_a_link_is_never_read(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", tiny_rows())
    os.mkfifo(tmp_path / "pipe.png")
    (raw / "train/happy/pipe.png").symlink_to(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: expected a file or a folder, found a pipe"):
        prepare("x", tmp_path / "x", FER2013Reader(), raw=raw)


def test_pictures_for_tensorboard_change_nothing_in_a_training(
    tmp_path: Path, tiny_data: Path
) -> None:
    """They are augmented by the same policy, whose random numbers are the training's."""
    weights = []
    for logger in ("none", "tensorboard"):
        options = [option for option in TINY if not option.startswith(("logger", "augmentation"))]
        train_here(tmp_path / logger, tiny_data, *options, f"logger={logger}")
        weights.append(load_checkpoint(tmp_path / logger / LAST).network.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
