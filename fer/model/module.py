"""What Lightning trains: the network, its loss and its optimizer, with metrics at each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from fer.core import labels
from fer.model.mixing import Mixing

MONITOR = "val/macro_f1"
"""What early stopping, the plateau schedule and the best checkpoint look at; higher is better."""


class Seen(nn.Module):
    """What the network said of the images of an epoch, measured at its end, on the device.

    A step only keeps its answers. Updating metrics in it would cost some thirty small operations
    each time, and on a GPU a wait: torchmetrics looks whether each loss is a number.

    Args:
        num_classes: number of emotions.
        prefix: of the names of what is measured.
    """

    def __init__(self, num_classes: int, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix
        options: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
        self.metrics = MetricCollection(
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
        """Keep what was said in a step: logits ``(N, num_classes)``, targets ``(N,)``, the loss."""
        self.kept.append((logits.detach().argmax(dim=1), target, loss.detach()))

    def compute(self) -> dict[str, torch.Tensor]:
        """Accuracy, macro-F1 and mean loss of the epoch so far, of all processes together."""
        if self.kept:
            answers, targets, losses = zip(*self.kept, strict=True)
            self.kept.clear()
            self.metrics.update(torch.cat(answers), torch.cat(targets))
            sizes = torch.tensor([len(part) for part in targets], device=losses[0].device)
            self.loss.update(torch.stack(losses), weight=sizes)
        return {**self.metrics.compute(), f"{self.prefix}loss": self.loss.compute()}

    def reset(self) -> None:
        """Forget the epoch."""
        self.kept.clear()
        self.metrics.reset()
        self.loss.reset()


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
        self.seen_train = Seen(num_classes, "train/")
        self.seen_val = Seen(num_classes, "val/")
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
        self.seen_train.add(logits, target, loss)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Answers of one batch."""
        images, target = batch
        logits = self(images)
        self.seen_val.add(logits, target, self.loss(logits, target))

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics. Lightning validates before it ends the training epoch."""
        self.log_dict(self.seen_val.compute(), prog_bar=True)
        self.seen_val.reset()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's metrics, measured on the augmented images as they went by."""
        values = self.seen_train.compute()
        self.log("train/loss", values.pop("train/loss"), prog_bar=True)
        self.log_dict(values)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.seen_train.reset()
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
