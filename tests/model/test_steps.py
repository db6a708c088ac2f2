"""Chunks of training steps give the weights of single ones, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger

from fer.core.errors import ConfigError, TrainingError
from fer.core.hardware import images_at_once
from fer.data.datamodule import EmotionDataModule
from fer.data.device import fits
from fer.data.drawn.synthetic import generate
from fer.data.readers.fer2013 import FER2013Reader
from fer.model import graph
from fer.model.callbacks import AtomicCheckpointIO, DivergenceGuard, History
from fer.model.mixing import Mixing
from fer.model.module import EmotionModule
from fer.model.muon import Muon
from fer.model.schedules import plateau
from fer.model.shared_cnn import SharedCNN
from fer.model.steps import looks_at_steps


class Watcher(Callback):
    """Sees each training step."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the drawn dataset is prepared once."""
    return tmp_path_factory.mktemp("steps") / "drawn"


def data_in(folder: Path, **options: Any) -> EmotionDataModule:
    """75 training images: seven batches of ten."""
    draw = functools.partial(generate, name="synthetic_a", train=75, val=21, test=7, seed=0)
    return EmotionDataModule("drawn", folder, reader=FER2013Reader(), generator=draw,
                             image_size=24, batch_size=10, on_device=torch.device("cpu"),
                             **options)  # fmt: skip


def fit(
    folder: Path, callbacks: list[Callback], precision: Any = "32-true", **options: Any
) -> tuple[EmotionModule, Trainer]:
    """Two epochs of a small network with dropout, in chunks of three batches."""
    torch.manual_seed(3)
    data = data_in(folder, chunk=3)
    module = EmotionModule(SharedCNN([4, 8], image_size=24, dropout=0.3), **options)
    trainer = Trainer(accelerator="cpu", max_epochs=2, precision=precision, logger=False,
                      callbacks=callbacks, enable_progress_bar=False, enable_checkpointing=False,
                      enable_model_summary=False, num_sanity_val_steps=0)  # fmt: skip
    trainer.fit(module, data)
    return module, trainer


@pytest.mark.parametrize(
    ("make_callbacks", "options"),
    [
        (list, {}),
        (lambda: [EMAWeightAveraging(decay=0.9)], {"mixing": Mixing(0.2, 1.0)}),
        (
            lambda: [EMAWeightAveraging(decay=0.9, update_every_n_steps=2)],
            {"optimizer": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
             "scheduler": plateau},
        ),
        (list, {"precision": "bf16-mixed"}),
        (list, {"optimizer": functools.partial(torch.optim.LBFGS, lr=0.1, max_iter=2),
                "scheduler": plateau}),
    ],
    ids=["the recipe", "averaged and mixed", "SGD on a plateau", "bfloat16", "several passes"],
)  # fmt: skip
def test_chunks_give_the_weights_of_single_steps(
    folder: Path, tmp_path: Path, make_callbacks: Callable[[], list[Any]], options: dict[str, Any]
) -> None:
    found = []
    for name, watchers in (("chunks", []), ("single", [Watcher()])):
        history = History(tmp_path / f"{name}.csv")
        module, trainer = fit(folder, [*make_callbacks(), history, *watchers], **options)
        assert module.automatic_optimization == (name == "single")
        assert trainer.global_step == 14
        times = ("seconds", "images_per_second")
        rows = [{k: v for k, v in row.items() if k not in times} for row in history.rows]
        found.append((module.state_dict(), rows))
        assert not watchers or watchers[0].steps == 14
    (one, rows), (other, same) = found
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert rows == same


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches=2"),
        ({"gradient_clip_val": 1.0}, "trainer.gradient_clip_val=1.0"),
        ({"limit_train_batches": 4}, "trainer.limit_train_batches=4"),
        ({"max_steps": 5}, "trainer.max_steps=5"),
        ({"callbacks": [LearningRateMonitor("step")]}, "the callback LearningRateMonitor"),
    ],
)
def test_what_is_about_single_steps_takes_them_singly(
    folder: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], words: str
) -> None:
    data = data_in(folder, chunk=3)
    module = EmotionModule(SharedCNN([4, 8], image_size=24))
    with caplog.at_level("INFO", logger="fer"):
        Trainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False,
                enable_checkpointing=False, num_sanity_val_steps=0,
                logger=CSVLogger(folder.parent), **options).fit(module, data)  # fmt: skip
    assert module.automatic_optimization
    assert f"one at a time: {words}" in caplog.text


def test_images_do_not_depend_on_whether_chunks_are_given(folder: Path) -> None:
    data = data_in(folder, chunk=3)
    data.prepare_data()
    data.setup()
    batches = list(data.train_dataloader())
    data.in_chunks = True
    chunks = list(data.train_dataloader())
    assert [len(target) for _, target in batches] == [10] * 7
    assert [len(target) for _, target in chunks] == [30, 30, 10]
    for part in (0, 1):
        assert torch.equal(
            torch.cat([batch[part] for batch in batches]), torch.cat([own[part] for own in chunks])
        )


def test_validation_on_the_device_has_the_batches_of_the_cpu(folder: Path) -> None:
    found = []
    for device in (torch.device("cpu"), None):
        data = data_in(folder, eval_batch_size=8)
        data.on_device = device
        data.prepare_data()
        data.setup()
        found.append(list(data.val_dataloader()))
    assert [len(target) for _, target in found[0]] == [7, 7, 7]
    for one, other in zip(*found, strict=True):
        assert all(map(torch.equal, one, other))
        assert one[0].dtype == other[0].dtype
        assert one[0].stride() == other[0].stride()


def test_many_images_at_once_are_predicted_where_that_is_faster() -> None:
    assert images_at_once(None) == images_at_once(torch.device("cpu")) == 32
    assert images_at_once(torch.device("cuda")) > 32


def test_a_checkpoint_is_that_of_the_moment_it_was_saved_in(tmp_path: Path) -> None:
    weights, rows = torch.zeros(3), [1]
    saver = AtomicCheckpointIO()
    saver.save_checkpoint({"weights": weights, "rows": rows}, tmp_path / "a.ckpt")
    weights += 1  # the next step
    rows.append(2)
    saver.teardown()
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["weights"].tolist() == [0, 0, 0]
    assert content["rows"] == [1]
    saver.save_checkpoint(content, tmp_path / "b.ckpt")
    saver.remove_checkpoint(tmp_path / "b.ckpt")  # not before it is there
    saver.teardown()
    assert not (tmp_path / "b.ckpt").exists()


def test_the_same_images_again_and_again_are_the_cpu_s(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"overfit_batches: expected 0 .*on_device=false"):
        Trainer(accelerator="cpu", max_epochs=1, overfit_batches=2, logger=False).fit(
            EmotionModule(SharedCNN([4, 8], image_size=24)), data_in(folder)
        )


def test_too_little_memory_leaves_the_images_on_the_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**6, 10**9))
    shape = (75, 24, 24, 1)
    assert fits(torch.device("cuda"), shape, 30) and fits(torch.device("cpu"), (10**9,), 10**9)
    assert not fits(torch.device("cuda"), shape, 40)
    assert "need 0.0 GB on cuda" in caplog.text


def test_a_loss_that_is_not_finite_names_its_batch_within_the_chunk(
    folder: Path, tmp_path: Path
) -> None:
    calls = []

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(target)
        return logits.square().mean() * (float("nan") if len(calls) == 6 else 1.0)

    with pytest.raises(TrainingError, match=r"epoch 1, step 5: .*found nan") as caught:
        fit(folder, [DivergenceGuard(tmp_path)], loss=loss)
    data = data_in(folder, chunk=3)
    data.prepare_data()
    data.setup()
    batch = [draw.row for draw in data.train_dataloader().sampler][40:50]
    dataset = data.datasets["train"]
    assert all(dataset.ids[row] in str(caught.value) for row in batch)
    np.testing.assert_array_equal(dataset.targets[batch], calls[5])


def test_a_chunk_that_is_longer_than_the_epoch_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"loader\.chunk: expected at most the 7 steps .*found 8"):
        data = data_in(folder, chunk=8)
        data.prepare_data()
        data.setup()
        data.train_dataloader()


@pytest.fixture
def without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps go through all of the graph's code but for the capture: a replay is a plain step."""

    def capture(self: graph.GraphedSteps, device: torch.device) -> Callable[[], None]:
        def replay() -> None:
            before = [group["lr"] for group in self.optimizer.param_groups]
            for group, rate in zip(self.optimizer.param_groups, self.current, strict=True):
                group["lr"] = rate
            self.optimizer.zero_grad()
            self._step()
            for group, number in zip(self.optimizer.param_groups, before, strict=True):
                group["lr"] = number

        for _ in range(2):
            self.optimizer.zero_grad()
            self.place.zero_()
            self._step()
        return replay

    monkeypatch.setattr(graph.GraphedSteps, "_capture", capture)
    monkeypatch.setattr(graph, "why_not_graphed", lambda module: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state)
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)


@pytest.mark.usefixtures("without_a_card")
@pytest.mark.parametrize(
    ("make_callbacks", "options"),
    [
        (list, {}),
        (lambda: [EMAWeightAveraging(decay=0.9)], {"optimizer": Muon}),
        (list, {"optimizer": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
                "scheduler": plateau}),
    ],
    ids=["the recipe", "Muon, averaged", "SGD on a plateau"],
)  # fmt: skip
def test_replayed_steps_do_what_plain_ones_do(
    folder: Path, tmp_path: Path, make_callbacks: Callable[[], list[Any]], options: dict[str, Any]
) -> None:
    found = []
    for name, graphed in (("replayed", True), ("plain", False)):
        history = History(tmp_path / f"{name}.csv")
        module, trainer = fit(folder, [*make_callbacks(), history], cuda_graph=graphed, **options)
        assert isinstance(getattr(module.take, "__self__", None), graph.GraphedSteps) == graphed
        assert trainer.global_step == 14
        found.append((module.state_dict(), history.rows, trainer.optimizers[0].state_dict()))
    (one, rows, state), (other, same, plain) = found
    for key in one:  # a graph's learning rates are in single precision
        torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(state["state"], plain["state"], rtol=1e-3, atol=1e-6)
    assert state["param_groups"] == plain["param_groups"]
    for key in ("train_loss", "train_accuracy", "train_macro_f1", "val_macro_f1", "learning_rate"):
        assert [row[key] for row in rows] == pytest.approx([row[key] for row in same], rel=1e-4)


def nothing(self: graph.GraphedSteps) -> None:
    """A replay that does not run."""


def forward_only(self: graph.GraphedSteps) -> None:
    """A replay that computes a loss and moves no weight."""
    with torch.no_grad():
        loss = self.module.loss_of(self.module(self.images[0]), self.target[0])
    self.losses[0] = loss


@pytest.mark.usefixtures("without_a_card")
@pytest.mark.parametrize("replay", [nothing, forward_only])
def test_a_replay_that_does_something_else_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, replay: Callable[[graph.GraphedSteps], None]
) -> None:
    monkeypatch.setattr(
        graph.GraphedSteps, "_capture", lambda self, device: functools.partial(replay, self)
    )
    module, _ = fit(folder, [], cuda_graph="auto")
    assert not hasattr(module.take, "__self__")
    with pytest.raises(ConfigError, match=r"true, but the step cannot be captured \(a replayed"):
        fit(folder, [], cuda_graph=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": torch.optim.NAdam}, "the state of NAdam does not begin at zero"),
        (
            {"optimizer": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.1)},
            "the state of SGD",
        ),
        (
            {"scheduler": functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1e-3)},
            "the schedule changes more",
        ),
        ({"mixing": Mixing(0.2)}, "mixing draws"),
    ],
)
def test_what_a_graph_could_not_repeat_is_not_graphed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    module, _ = fit(folder, [], cuda_graph=False, **options)
    monkeypatch.setattr(EmotionModule, "device", torch.device("cuda"))
    reason = graph.why_not_graphed(module)
    assert reason is not None and words in reason


@pytest.mark.parametrize(
    "callback",
    [
        LambdaCallback(on_train_batch_end=print),
        GradientAccumulationScheduler({0: 2}),
        StochasticWeightAveraging(1e-3),
        ModelCheckpoint(every_n_train_steps=5),
    ],
)
def test_callbacks_that_chunks_would_mislead_are_known(callback: Callback) -> None:
    assert looks_at_steps(callback)
    assert not looks_at_steps(ModelCheckpoint()) and not looks_at_steps(TQDMProgressBar())


def test_a_graph_needs_a_gpu(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.cuda_graph: .*found true, but .* is cpu"):
        fit(folder, [], cuda_graph=True)
