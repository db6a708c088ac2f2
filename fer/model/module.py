"""What Lightning trains: the network, its loss and its optimizer, with metrics at each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from fer import labels
from fer.model.mixing import Mixing

MONITOR = "val/macro_f1"
"""What early stopping, the plateau schedule and the best checkpoint look at; higher is better."""


def make_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Accuracy and macro-F1 of an epoch, accumulated on the device."""
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
            "macro_f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
        },
        prefix=prefix,
    )


class EmotionModule(LightningModule):
    """Trains a network on batches of images ``(N, C, H, W)`` uint8 and targets ``(N,)``.

    Args:
        network: gives logits ``(N, num_classes)``.
        loss: of logits and targets.
        optimizer: makes the optimizer of parameter groups.
        scheduler: makes the schedule of (optimizer, total_steps).
        checkpoint_extras: plain values that every checkpoint carries under the key ``fer``.
        num_classes: number of emotions.
        mixing: makes one image of two; None for none.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any],
        checkpoint_extras: dict[str, Any] | None = None,
        num_classes: int = labels.NUM_CLASSES,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.checkpoint_extras = checkpoint_extras or {}
        self.mixing = mixing or Mixing()
        self.train_metrics = make_metrics(num_classes, "train/")
        self.val_metrics = make_metrics(num_classes, "val/")
        self.train_loss = MeanMetric()
        self.val_loss = MeanMetric()
        self.plateau: ReduceLROnPlateau | None = None
        """A schedule that follows validation; the others are Lightning's to step."""
        self.progress: dict[str, Any] | None = None
        self.begun = False
        """Whether a step was taken: before that, what fails is what was restored."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, num_classes)``."""
        logits: torch.Tensor = self.network(images)
        return logits

    def training_step(
        self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int
    ) -> torch.Tensor:
        """Loss of one batch, a scalar."""
        images, target = batch
        mixed = self.mixing(images)
        logits = self(images if mixed is None else mixed.images)
        loss: torch.Tensor = self.loss(logits, target)
        if mixed is not None:
            other = self.loss(logits, target[mixed.partner])
            loss = mixed.share * loss + (1 - mixed.share) * other
        # Both accumulate on the device: nothing waits for the result before the epoch ends.
        self.train_metrics.update(logits.detach(), target)
        self.train_loss.update(loss.detach(), weight=len(target))
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Update the metrics with one batch."""
        images, target = batch
        logits = self(images)
        self.val_metrics.update(logits, target)
        self.val_loss.update(self.loss(logits, target), weight=len(target))

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics. Lightning validates before it ends the training epoch."""
        self.log_dict(self.val_metrics.compute(), prog_bar=True)
        self.log("val/loss", self.val_loss.compute(), prog_bar=True)
        self.val_metrics.reset()
        self.val_loss.reset()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's metrics, measured on the augmented images as they went by."""
        self.log_dict(self.train_metrics.compute())
        self.log("train/loss", self.train_loss.compute(), prog_bar=True)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.train_metrics.reset()
        self.train_loss.reset()
        if self.plateau is not None:
            self.plateau.step(self.trainer.callback_metrics[MONITOR].item())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what it takes to use the weights without this run's configuration, and to go on."""
        checkpoint["fer"] = self.checkpoint_extras
        checkpoint["fer_progress"] = {
            "epochs": self.trainer.current_epoch + 1,
            "stopped": self.trainer.should_stop,  # by early stopping
            "cpu_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember where the random numbers were: they are set when training goes on."""
        self.progress = checkpoint["fer_progress"]
        # The run folder may have been moved; the checkpoints' callbacks remember where it was.
        place = getattr(self.trainer.checkpoint_callback, "dirpath", None)
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state and place is not None:
                _relocate(state, str(state["dirpath"]), str(place))

    def on_train_epoch_start(self) -> None:
        """Set the random numbers: of several processes each has its own, known from the epoch.

        One process goes on with those of a training that was cut off.
        """
        if self.progress is not None:
            self._go_on(self.progress)
            self.progress = None
        if self.trainer.world_size > 1:
            # All were started with the same: dropout would hide the same units in each.
            place = [self.checkpoint_extras.get("seed", 0), self.current_epoch, self.global_rank]
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note that a step was taken."""
        self.begun = True

    def _go_on(self, progress: dict[str, Any]) -> None:
        """Restore what :meth:`on_save_checkpoint` has put away."""
        torch.set_rng_state(progress["cpu_random"])
        states = progress["cuda_random"]
        if torch.cuda.is_available() and len(states) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states)
        if self.plateau is not None:
            self.plateau.load_state_dict(progress["plateau"])

    def configure_optimizers(self) -> Any:
        """Weight decay for weight matrices only; biases and BatchNorm are left free."""
        optimizer = self.make_optimizer(parameter_groups(self.network.parameters()))
        total_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = self.make_scheduler(optimizer, total_steps=total_steps)
        if isinstance(scheduler, ReduceLROnPlateau):
            # Lightning would step it after the checkpoint of the epoch is written, so that a
            # training that goes on from there would lack that step.
            self.plateau = scheduler
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _relocate(state: dict[str, Any], old: str, new: str) -> None:
    """Replace the folder ``old`` at the start of every path in a callback's state."""
    for key, value in state.items():
        if isinstance(value, str) and value.startswith(old):
            state[key] = new + value[len(old) :]
        elif isinstance(value, dict):
            state[key] = {
                new + path[len(old) :] if path.startswith(old) else path: score
                for path, score in value.items()
            }


def parameter_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameters that decay (matrices and kernels) and those that do not (vectors)."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
