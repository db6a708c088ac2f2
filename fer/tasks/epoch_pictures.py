"""A training while it runs, for TensorBoard: its images, its loss by step, and what it answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from fer.core import labels
from fer.data.augmentation import Augmentation, load_policy
from fer.data.datamodule import EmotionDataModule
from fer.model.module import EmotionModule
from fer.report.evaluation_sections import damage_grid
from fer.report.figures import to_image
from fer.report.run_figures import GRID, confusion_matrix, pick_rows, prediction_grid

SHOWN = (1, 5, 20, 50, 100, 200, 500)
"""Epochs after which pictures are made, counted from 1; the last one has its own in the results."""
AUGMENTED = 4
"""How often each image is shown as the policy changes it."""
STEPS = 10
"""Steps over which a point of the loss is the mean."""


class EpochPictures(Callback):
    """Logs pictures of some epochs and the loss by step. It changes nothing in the training."""

    takes_chunks = True

    def __init__(self, board: TensorBoardLogger) -> None:
        self.board = board
        self._losses: list[torch.Tensor] = []
        self._steps: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show training images as the policy changes them, unless the training is resumed."""
        data: EmotionDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.current_epoch or not trainer.is_global_zero:
            return
        train = data.datasets["train"]
        rows = pick_rows(train.targets)
        own = data.transforms
        augment = Augmentation(load_policy(own) if isinstance(own, str) else own, data.seed)
        images = train.read(rows)
        grid = {"as prepared": list(images)}
        for draw in range(AUGMENTED):
            grid[f"augmented, {draw + 1}"] = [
                augment(image, epoch=draw, index=int(row))
                for image, row in zip(images, rows, strict=True)
            ]
        figure = damage_grid(grid, train.targets[rows], title="Training images")
        self._add("augmented/train", figure, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the losses of a batch or chunk where they are: reading them would wait."""
        losses = outputs["loss"].detach().clone().reshape(-1)
        self._losses.append(losses)
        last = trainer.global_step  # of a chunk's; of several batches that one step gathers, one
        self._steps += range(last - len(losses), last)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's losses and, of some epochs, predictions and the confusion matrix."""
        assert isinstance(pl_module, EmotionModule)
        losses, self._losses = self._losses, []
        steps, self._steps = self._steps, []
        epoch = trainer.current_epoch + 1
        if not trainer.is_global_zero or not losses:
            return
        values = torch.cat(losses).float().cpu().numpy()
        for start in range(0, len(values), STEPS):
            part = values[start : start + STEPS]
            step = steps[start + len(part) - 1]
            self.board.log_metrics({"train/loss_by_step": float(part.mean())}, step)
        if epoch in SHOWN and trainer.world_size == 1:
            self._answers(trainer, pl_module, epoch, steps[-1])

    def _answers(self, trainer: Trainer, module: EmotionModule, epoch: int, step: int) -> None:
        preds, target, _ = (
            torch.cat(parts).cpu() for parts in zip(*module.val_metrics.kept, strict=True)
        )
        counts = np.zeros((labels.NUM_CLASSES, labels.NUM_CLASSES), np.int64)
        np.add.at(counts, (target.numpy(), preds.numpy()), 1)
        title = f"Validation images, epoch {epoch}"
        self._add("confusion_matrix/epochs", confusion_matrix(counts, title=title), step)
        data: EmotionDataModule = trainer.datamodule  # type: ignore[attr-defined]
        val = data.datasets["val"]
        rows = pick_rows(val.targets, GRID)
        images = val.read(rows)
        batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            logits = module(batch.to(module.device))  # the network is in evaluation's mode here
        shares = logits.float().softmax(dim=1).cpu().numpy()
        figure = prediction_grid(images, val.targets[rows], shares, title=title)
        self._add("predictions/epochs", figure, step)

    def _add(self, name: str, figure: Any, step: int) -> None:
        # By the step, as all else: what a resumed training does again replaces what was purged.
        self.board.experiment.add_image(name, to_image(figure), step, dataformats="HWC")
