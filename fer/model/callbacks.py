"""Callbacks of a training: its history, a guard, and checkpoints that are complete or absent."""

from __future__ import annotations

import io
import logging
import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fer.core.errors import TrainingError
from fer.core.files import BackgroundWriter, write_bytes, write_csv
from fer.data.readers.names import shown
from fer.model.checkpoint import read_checkpoint
from fer.model.module import MONITOR, EmotionModule

log = logging.getLogger(__name__)

HISTORY_COLUMNS = (
    "epoch",
    "train_loss",
    "val_loss",
    "train_accuracy",
    "val_accuracy",
    "train_macro_f1",
    "val_macro_f1",
    "learning_rate",
    "seconds",
    "images_per_second",
)


def quieten_lightning() -> None:
    """Silence Lightning's messages about itself, and three of its warnings about the run."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Augmenting in the training process is a choice (loader.num_workers), the second is about
    # Lightning's own code, and the logged metrics are those of all processes already.
    for message in ("does not have many workers", "isinstance\\(treespec", "sync_dist=True"):
        warnings.filterwarnings("ignore", message=f".*{message}.*")


class Quiet(Callback):
    """Quietens Lightning in each process that is spawned with it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Run where it is unpickled, before Lightning speaks there."""
        self.__dict__.update(state)
        quieten_lightning()


class History(Callback):
    """Writes ``history.csv``, one row per epoch, complete after each epoch.

    ``seconds`` is the wall time of the epoch with its validation, ``images_per_second`` counts
    training images over the training part alone.
    """

    takes_chunks = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._writer = BackgroundWriter()
        self._started = 0.0
        self._trained = 0.0
        self._images = 0
        self._validated = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._started = time.perf_counter()
        self._images = 0
        self._validated = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of a batch or chunk, those of the other processes too."""
        self._images += len(batch[1]) * trainer.world_size

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the training part's clock."""
        self._trained = time.perf_counter()
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row. Runs before the module resets its metrics."""
        if not self._validated:  # trainer.max_steps has cut the epoch off
            return
        assert isinstance(pl_module, EmotionModule)
        values = {**trainer.callback_metrics, **pl_module.train_metrics.compute()}
        training = self._trained - self._started
        row = {name.replace("/", "_"): float(value) for name, value in values.items()}
        row |= {
            "epoch": trainer.current_epoch,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self._started, 3),
            "images_per_second": round(self._images / training, 1),
        }
        self.rows.append({name: row[name] for name in HISTORY_COLUMNS})
        if trainer.is_global_zero:
            self._writer.write(write_csv, self.path, HISTORY_COLUMNS, list(self.rows))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait until it is written."""
        self._writer.wait()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Wait until it is written; the error that ends the training is the one to be told."""
        try:
            self._writer.wait()
        except OSError as error:
            log.warning("%s was not written: %s", self.path, error)

    def state_dict(self) -> dict[str, list[dict[str, float]]]:
        """Rows for a training that is resumed."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, list[dict[str, float]]]) -> None:
        """Take over the rows of a training that was cut off."""
        self.rows = list(state_dict["rows"])

    @property
    def best_epoch(self) -> int | None:
        """First epoch with the highest validation macro-F1."""
        if not self.rows:
            return None
        return int(max(self.rows, key=lambda row: row["val_macro_f1"])["epoch"])


class DivergenceGuard(Callback):
    """Ends a training that has gone wrong, before it overwrites the last good checkpoint.

    It has gone wrong when a loss is not finite, or when the run folder is gone: what is written
    afterwards would be half a run. A step's loss is checked after the next one has begun, so that
    a GPU does not wait for the answer. The hooks raise :class:`TrainingError`.
    """

    takes_chunks = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[torch.Tensor, int] | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the losses of the batch or chunk before."""
        before, self._last = self._last, (outputs["loss"].detach(), batch_idx)
        self._check(trainer, before)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the losses of the epoch's last batch or chunk."""
        before, self._last = self._last, None
        self._check(trainer, before)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the validation loss and the run folder, before a checkpoint is written."""
        loss = float(trainer.callback_metrics.get("val/loss", 0.0))  # none if it was cut off
        epoch = trainer.current_epoch + 1
        if not math.isfinite(loss):
            raise TrainingError(
                f"epoch {epoch}: expected a finite validation loss, found {loss}. "
                f"{self._advice(trainer)}"
            )
        if trainer.is_global_zero and not self.folder.is_dir():
            raise vanished(self.folder, epoch)

    def _check(self, trainer: Trainer, batch: tuple[torch.Tensor, int] | None) -> None:
        if batch is None:
            return
        losses, index = np.atleast_1d(batch[0].float().cpu().numpy()), batch[1]
        if np.isfinite(losses).all():
            return
        loader: Any = trainer.train_dataloader
        wrong = int(np.flatnonzero(~np.isfinite(losses))[0])
        step = index * getattr(loader, "steps_at_once", 1) + wrong
        dataset = loader.dataset
        rows = [draw.row for draw in loader.sampler]  # the epoch's order, once more
        start = step * loader.batch_size
        ids = [dataset.ids[row] for row in rows[start : start + loader.batch_size]]
        raise TrainingError(
            f"epoch {trainer.current_epoch + 1}, step {step + 1}: expected a finite loss, found "
            f"{losses[wrong]}. The batch's images: {', '.join(map(shown, ids))}. "
            f"{self._advice(trainer)}"
        )

    def _advice(self, trainer: Trainer) -> str:
        trainer.strategy.checkpoint_io.teardown()  # the last one may still be on its way to disk
        kept = [path.name for path in sorted((self.folder / "checkpoints").glob("*.ckpt"))]
        return (
            f"Kept from before: {' and '.join(kept) or 'no checkpoint'}. Lower optimizer.lr, limit "
            "the gradients (+trainer.gradient_clip_val=1.0), or compute in single precision "
            "(trainer.precision=32-true)."
        )


def vanished(folder: Path, epoch: int) -> TrainingError:
    """Make the error for a run folder that is gone."""
    return TrainingError(
        f"{folder}: expected the run folder in epoch {epoch}, found that it was moved or deleted "
        "while the training ran. If it was moved, go on there: python train.py resume=FOLDER"
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its path and renames it: a killed run leaves the old one.

    It is written in the background: the training does not wait for the disk.

    Args:
        background: False to wait all the same, for a logger that passes each file on at once.
    """

    def __init__(self, background: bool = True) -> None:
        self._writer = BackgroundWriter()
        self._background = background

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Serialise ``checkpoint`` as it is now, and write it to ``path``, atomically."""
        buffer = io.BytesIO()  # the training goes on to change what the checkpoint refers to
        torch.save(checkpoint, buffer)
        self._writer.write(write_bytes, Path(path), buffer.getbuffer())
        if not self._background:
            self._writer.wait()

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        self._writer.wait()
        super().remove_checkpoint(path)

    def teardown(self) -> None:
        """Wait for the last one, at the end of a training or when an error ends it.

        One of several processes hands its weights over after that.
        """
        self._background = False
        self._writer.wait()

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint as data: nothing in it is executed."""
        return read_checkpoint(Path(path))


def make_checkpoints(folder: Path) -> list[ModelCheckpoint]:
    """Callbacks for ``best.ckpt`` (highest validation macro-F1) and ``last.ckpt``."""
    options: dict[str, Any] = {
        "dirpath": folder,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
    }
    return [
        ModelCheckpoint(filename="best", monitor=MONITOR, mode="max", save_top_k=1, **options),
        ModelCheckpoint(filename="last", monitor=None, save_top_k=1, **options),
    ]
