"""The LightningModule: a network, its loss and its optimizer, with metrics of each epoch."""

from __future__ import annotations

import functools
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from fer.core import labels
from fer.core.errors import ConfigError, first_line
from fer.core.options import SWITCH_OR_AUTO, Guard, check_value
from fer.model.checkpoint import load_checkpoint
from fer.model.distillation import DistilledLoss
from fer.model.graph import make_take
from fer.model.losses import CrossEntropyLoss, process_factor
from fer.model.mixing import Mixing
from fer.model.network import NormalisedNetwork
from fer.model.schedules import one_cycle
from fer.model.steps import why_single

log = logging.getLogger(__name__)

MONITOR = "val/macro_f1"
"""Watched by early stopping, the plateau schedule and the best checkpoint; higher is better."""


class EpochMetrics(nn.Module):
    """Accuracy, macro-F1 and mean loss of an epoch, computed at its end, on the device.

    A step only keeps the network's answers. Updating metrics in it would cost some thirty small
    operations each time, and on a GPU a wait: torchmetrics checks whether each loss is a number.

    Args:
        prefix: prefix of the metrics' names.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix
        options: dict[str, Any] = {"num_classes": labels.NUM_CLASSES, "validate_args": False}
        self.metrics = MetricCollection(  # which share the counts that they are computed from
            {
                "accuracy": MulticlassAccuracy(average="micro", **options),
                "macro_f1": MulticlassF1Score(average="macro", **options),
            },
            prefix=prefix,
        )
        # A loss that is not a number stays one, instead of being left out of the mean.
        self.loss = MeanMetric(nan_strategy=math.nan)
        self.kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(self, logits: torch.Tensor, target: torch.Tensor, loss: torch.Tensor) -> None:
        """Keep a step's logits ``(N, 7)``, targets ``(N,)`` or ``(N, 7)`` shares, and loss."""
        own = target if target.ndim == 1 else target.argmax(dim=1)
        self.keep(logits.detach().argmax(dim=1), own, loss.detach()[None])

    def keep(self, preds: torch.Tensor, target: torch.Tensor, losses: torch.Tensor) -> None:
        """Keep predictions and targets ``(N,)`` of steps of one size, and their losses ``(K,)``."""
        self.kept.append((preds, target, losses))

    def compute(self) -> dict[str, torch.Tensor]:
        """The epoch's metrics so far, over all processes."""
        if self.kept:
            answers, targets, losses = zip(*self.kept, strict=True)
            self.kept.clear()
            self.metrics.update(torch.cat(answers), torch.cat(targets))
            sizes = [
                len(t) // len(own) for t, own in zip(targets, losses, strict=True) for _ in own
            ]
            values = torch.cat(losses)
            self.loss.update(values, weight=torch.tensor(sizes, device=values.device))
        return {**self.metrics.compute(), f"{self.prefix}loss": self.loss.compute()}

    def reset(self) -> None:
        """Forget the epoch."""
        self.kept.clear()
        self.metrics.reset()
        self.loss.reset()


class EmotionModule(LightningModule):
    """Trains a network on batches of images ``(N, C, H, W)`` uint8 and targets ``(N,)`` int64.

    When it is fitted to a data module it takes what it needs from it: mean and standard deviation
    of the training images, and the counts of the classes if the loss asks for them. The defaults
    are the recipe's.

    Args:
        network: gives logits ``(N, 7)``; registered: see :mod:`fer.model.network`.
        loss: compares logits and targets and gives a scalar; or something that makes such a loss,
            with ``class_counts`` if its signature asks for them. None for cross-entropy with label
            smoothing.
        optimizer: makes an optimizer from parameters or parameter groups. None for AdamW.
        scheduler: makes an optimizer's schedule. With ``total_steps`` in its signature it gets
            them and advances with every step, else with every epoch. None for one cycle.
        mixing: blends images in pairs; None for none.
        cuda_graph: whether a GPU replays its steps as a graph where a data module gives it chunks
            of batches: ``auto``, where it can, True or False.

    Example::

        module = EmotionModule(SharedCNN())
        Trainer(max_epochs=70).fit(module, FER2013DataModule(raw="archive.zip"))
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | Callable[..., nn.Module] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        mixing: Mixing | None = None,
        cuda_graph: bool | str = "auto",
    ) -> None:
        super().__init__()
        whole = network if isinstance(network, NormalisedNetwork) else NormalisedNetwork(network)
        self.network: NormalisedNetwork = whole.to(memory_format=torch.channels_last)
        self.loss: Any = loss or CrossEntropyLoss()
        self.make_optimizer = optimizer or functools.partial(
            torch.optim.AdamW, lr=5e-3, weight_decay=1e-2
        )
        self.make_scheduler: Callable[..., Any] = scheduler or one_cycle
        self.mixing = mixing or Mixing()
        check_value("trainer.cuda_graph", cuda_graph, SWITCH_OR_AUTO)
        self.cuda_graph = cuda_graph
        self.take: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
        """Takes the steps of a chunk of images and targets, and gives their losses ``(K,)``."""
        self.train_metrics = EpochMetrics("train/")
        self.val_metrics = EpochMetrics("val/")
        self.test_metrics = EpochMetrics("test/")
        self.epoch_scheduler: LRScheduler | None = None
        """A schedule that advances with the epochs; the others are Lightning's to step."""
        self.progress: dict[str, Any] | None = None
        self.begun = False
        """True once a step was taken; an error before that comes from what was restored."""

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Path | str, map_location: Any = None, **options: Any
    ) -> EmotionModule:
        """Load the network of a checkpoint, as data: nothing in it is executed.

        Args:
            checkpoint_path: file that a training of this module wrote.
            map_location: device of the network; None for the CPU.
            options: the constructor's other arguments.

        Raises:
            CheckpointError: it cannot be used.
        """
        module = cls(load_checkpoint(checkpoint_path).network, **options)
        return module if map_location is None else module.to(map_location)

    def setup(self, stage: str) -> None:
        """Take from the data what training needs, and refuse what could not be saved or used.

        Raises:
            ConfigError: the network is not registered, or does not give logits ``(N, 7)``.
        """
        if stage != "fit":
            return
        self.network.describe()
        self.network.check_output()
        data: Any = getattr(self.trainer, "datamodule", None)
        if not self.network.is_normalised and hasattr(data, "normalisation"):
            self.network.set_normalisation(*data.normalisation())
        if not isinstance(self.loss, nn.Module):
            counts = data.class_counts() if hasattr(data, "class_counts") else None
            self.loss = make_loss(self.loss, counts)
        if isinstance(self.loss, DistilledLoss):
            self.loss.check_student(self.network)
        if hasattr(data, "soften"):
            data.soften(getattr(self.loss, "takes_votes", False))
        self.take = None
        if getattr(data, "on_device", None) is not None:
            single = why_single(self.trainer)
            if single is not None:
                log.info("Training steps are taken one at a time: %s", single)
            data.in_chunks = single is None
        self.automatic_optimization = not getattr(data, "in_chunks", False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, 7)`` of images ``(N, C, H, W)``: uint8 0–255, or float 0–1."""
        return self.network(images)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> Any:
        """Compute the loss of one batch, a scalar; or take the steps of a chunk of batches."""
        if self.automatic_optimization:
            return self.loss_of_batch(*batch)
        if self.take is None:  # a checkpoint is loaded by now
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            self.take = make_take(self, batch[0], data.images_of_step(), self.cuda_graph)
        return {"loss": self.take(*batch)}

    def loss_of_batch(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of training images ``(N, C, H, W)``, a scalar, with mixing; noted as such."""
        mixed = self.mixing(images)
        seen = images if mixed is None else mixed.images
        logits = self(seen)
        loss = self.loss_of(logits, target, seen)
        if mixed is not None:
            other = self.loss_of(logits, target[mixed.partner], seen)
            loss = mixed.share * loss + (1 - mixed.share) * other
        # A mixed batch repeats its targets, and so their weights.
        loss = loss * process_factor(self.loss, target)
        self.train_metrics.add(logits, target, loss)
        return loss

    def loss_of(
        self, logits: torch.Tensor, target: torch.Tensor, images: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss in single precision, a scalar; teachers see the images."""
        seen = [images] if isinstance(self.loss, DistilledLoss) else []
        loss: torch.Tensor = self.loss(logits.float(), target, *seen)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Add one batch to the metrics."""
        self._measure(self.val_metrics, batch)

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Add one batch to the metrics."""
        self._measure(self.test_metrics, batch)

    def _measure(self, metrics: EpochMetrics, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        images, target = batch
        logits = self(images)
        metrics.add(logits, target, self.loss_of(logits, target))

    def predict_step(
        self, batch: torch.Tensor | tuple[torch.Tensor, torch.Tensor], batch_idx: int
    ) -> torch.Tensor:
        """Probabilities ``(N, 7)`` of images, or of the images of a batch."""
        images = batch if isinstance(batch, torch.Tensor) else batch[0]
        return self(images).float().softmax(dim=1)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics. Lightning validates before it ends the training epoch."""
        self.log_dict(self.val_metrics.compute(), prog_bar=True)
        self.val_metrics.reset()

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test images."""
        self.log_dict(self.test_metrics.compute())
        self.test_metrics.reset()

    def on_train_epoch_end(self) -> None:
        """Log the metrics of the augmented images, and let the schedule advance."""
        values = self.train_metrics.compute()
        self.log("train/loss", values.pop("train/loss"), prog_bar=True)
        self.log_dict(values)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.train_metrics.reset()
        if isinstance(self.epoch_scheduler, ReduceLROnPlateau):
            watched = MONITOR if self.epoch_scheduler.mode == "max" else "val/loss"
            self.epoch_scheduler.step(self.trainer.callback_metrics[watched].item())
        elif self.epoch_scheduler is not None:
            self.epoch_scheduler.step()

    def describe(self) -> dict[str, Any]:
        """Describe the weights so that they can be used without this run's configuration."""
        data: Any = getattr(self.trainer, "datamodule", None)
        return {
            "model": self.network.describe(),
            "labels": list(labels.EMOTIONS),
            "dataset": data.describe() if hasattr(data, "describe") else UNKNOWN_DATASET,
            "seed": getattr(data, "seed", 0),
            "priors": self.priors(data),
            "teachers": self.teachers,
        }

    @property
    def teachers(self) -> list[str]:
        """SHA-256 of the checkpoints that the loss learns from."""
        return list(self.loss.checksums) if isinstance(self.loss, DistilledLoss) else []

    def priors(self, data: Any) -> list[float] | None:
        """Share of each emotion in training: images times the loss's weights.

        None where the data do not say.
        """
        if not hasattr(data, "class_counts"):
            return None
        count = getattr(data, "class_shares", data.class_counts)
        seen = torch.tensor(count(), dtype=torch.float64)
        weight = getattr(self.loss, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.shape == seen.shape:
            seen *= weight.double().cpu()
        return (seen / seen.sum()).tolist()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to use the weights and to resume."""
        checkpoint["fer"] = self.describe()
        schedule = self.epoch_scheduler
        checkpoint["fer_progress"] = {
            "epochs": self.trainer.current_epoch + 1,
            "stopped": self.trainer.should_stop,  # by early stopping
            "threads": torch.get_num_threads(),
            "cpu_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "epoch_scheduler": None if schedule is None else schedule.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of the random numbers for the next epoch's start."""
        self.progress = checkpoint["fer_progress"]
        # The run folder may have been moved; the checkpoints' callbacks remember where it was.
        place = getattr(self.trainer.checkpoint_callback, "dirpath", None)
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state and place is not None:
                _relocate(state, str(state["dirpath"]), str(place))

    def on_train_epoch_start(self) -> None:
        """Seed each of several processes by the epoch; restore the state of a resumed training."""
        if self.progress is not None:
            self._restore(self.progress)
            self.progress = None
        if self.trainer.world_size > 1:
            # All start with the same state: dropout would hide the same units in each.
            seed = getattr(getattr(self.trainer, "datamodule", None), "seed", 0)
            place = [seed, self.current_epoch, self.global_rank]
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note that a step was taken."""
        self.begun = True

    def _restore(self, progress: dict[str, Any]) -> None:
        torch.set_rng_state(progress["cpu_random"])
        states = progress["cuda_random"]
        if torch.cuda.is_available() and len(states) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states)
        if self.epoch_scheduler is not None:
            self.epoch_scheduler.load_state_dict(progress["epoch_scheduler"])

    def configure_optimizers(self) -> Any:
        """Make optimizer and schedule. Weight decay leaves biases and BatchNorm alone."""
        # A loss may have parameters, too.
        parameters = [*self.network.parameters(), *self.loss.parameters()]
        if asks_for(self.make_optimizer, "weight_decay"):
            optimizer = self.make_optimizer(parameter_groups(parameters))
        else:  # torch's LBFGS knows neither groups nor weights that lie channels-last
            self.network.to(memory_format=torch.contiguous_format)
            optimizer = self.make_optimizer(parameters)
        asked, bound = signature_of(self.make_scheduler)
        if "total_steps" in asked:
            steps: dict[str, int] = {}
            if "total_steps" not in bound:
                steps["total_steps"] = self._total_steps()
            scheduler = self.make_scheduler(optimizer, **steps)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }
        # Lightning would step it after the checkpoint of the epoch is written, so that a training
        # that goes on from there would lack that step.
        self.epoch_scheduler = self.make_scheduler(optimizer)
        if not callable(getattr(self.epoch_scheduler, "step", None)):
            raise ConfigError(
                "scheduler: expected a schedule with step(), such as those of "
                f"torch.optim.lr_scheduler, found {type(self.epoch_scheduler).__name__}."
            )
        return optimizer

    def _total_steps(self) -> int:
        if self.automatic_optimization:
            return int(self.trainer.estimated_stepping_batches)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return (self.trainer.max_epochs or 1) * int(data.steps_of_epoch())  # chunks are fewer


UNKNOWN_DATASET: dict[str, Any] = {
    "choice": "unknown",
    "name": "unknown",
    "generator": None,
    "reader": {},
    "options": {},
    "fingerprint": "unknown",
}
"""The dataset in a checkpoint whose images did not come from a data module of ours."""


def signature_of(
    make: Callable[..., Any],
) -> tuple[Mapping[str, inspect.Parameter], set[str]]:
    """Parameters of the function inside partials, and the names of those that are bound already.

    ``inspect.signature`` of a partial would refuse values that do not fit before they are used.
    """
    inner: Any = make
    bound: set[str] = set()
    while isinstance(inner, Guard | functools.partial):
        bound |= set() if isinstance(inner, Guard) else set(inner.keywords)
        inner = inner.make if isinstance(inner, Guard) else inner.func
    return inspect.signature(inner).parameters, bound


def asks_for(make: Callable[..., Any], name: str) -> bool:
    """Tell whether the signature of ``make`` has this argument.

    >>> asks_for(torch.optim.lr_scheduler.OneCycleLR, "total_steps")
    True
    """
    return name in signature_of(make)[0]


class FunctionLoss(nn.Module):
    """A loss that is a function of logits and targets."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Call the function on logits ``(N, 7)`` and targets ``(N,)``."""
        return self.function(logits, target)


def make_loss(make: Callable[..., Any], class_counts: Sequence[int] | None) -> nn.Module:
    """Make a loss, with the training images per class if its signature asks for them.

    Args:
        make: a class or function that makes a loss, or a function of logits and targets.
        class_counts: training images of each emotion.

    Raises:
        ConfigError: it is not a scalar, or fails on logits and targets.
    """
    parameters, bound = signature_of(make)
    wanted: dict[str, Any] = {}
    if "class_counts" in parameters and "class_counts" not in bound:
        wanted["class_counts"] = class_counts
    required = [p.name for p in parameters.values() if p.default is p.empty]
    # If two arguments are missing it is the loss itself, else it makes one.
    is_function = len([name for name in required if name not in wanted and name not in bound]) == 2
    loss: nn.Module = (
        FunctionLoss(functools.partial(make, **wanted)) if is_function else make(**wanted)
    )
    try:
        found = loss(torch.zeros(2, labels.NUM_CLASSES), torch.tensor([0, 1]))
    except Exception as error:  # of somebody's loss, that may be anything
        raise ConfigError(
            f"loss: expected {type(loss).__name__} to compare logits (N, {labels.NUM_CLASSES}) "
            f"with targets (N,), found that it fails: {first_line(error)}. Choose another loss."
        ) from error
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        what = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ConfigError(
            f"loss: expected {type(loss).__name__} to give one number, found {what} for two "
            "images. Let it give the mean: loss.reduction=mean"
        )
    return loss


def _relocate(state: dict[str, Any], old: str, new: str) -> None:
    """Replace the folder ``old`` at the start of every path in a callback's state."""

    def moved(path: str) -> str:
        return new + path[len(old) :] if path.startswith(old) else path

    for key, value in state.items():
        if isinstance(value, str):
            state[key] = moved(value)
        elif isinstance(value, dict):
            state[key] = {moved(path): score for path, score in value.items()}


def parameter_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Split parameters into those that decay (matrices) and those that do not (vectors)."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
