"""What a training says while it runs: a line for each epoch, and a bar within the epoch."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fer.core.words import duration, percent
from fer.model.callbacks import History

log = logging.getLogger(__name__)

HEAD = " epoch  train loss  val loss  val accuracy  val macro-F1  time left"
MESSAGE = logging.Formatter("%(message)s")


class EpochLog(Callback):
    """Logs a line per epoch, and shows a bar that is gone when the line comes.

    Args:
        history: has the epoch's row when this is called: it must come earlier among the callbacks.
        file: the log of a training in several processes, whose first one has no log of its own.
        bar: False for lines alone; so it is where the error stream is no terminal.
    """

    takes_chunks = True

    def __init__(self, history: History, file: Path, bar: bool = True) -> None:
        self.history, self.file, self.bar = history, file, bar
        self._progress: Progress | None = None
        self._started = 0.0
        self._first = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and log what the columns are."""
        root = logging.getLogger()
        if trainer.world_size > 1 and trainer.is_global_zero and not root.handlers:
            for handler in (
                logging.StreamHandler(),
                logging.FileHandler(self.file, encoding="utf-8"),
            ):
                handler.setFormatter(MESSAGE)
                root.addHandler(handler)
            root.setLevel(logging.INFO)
        self._started, self._first = time.perf_counter(), trainer.current_epoch
        if trainer.is_global_zero:
            log.info(HEAD)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        if not (self.bar and trainer.is_global_zero and sys.stderr.isatty()):
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        of = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        self._progress.add_task(
            f"epoch {trainer.current_epoch + 1}{of}", total=float(trainer.num_training_batches)
        )
        self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=batch_idx + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's line."""
        self._hide()
        rows = self.history.rows
        if not (trainer.is_global_zero and rows and rows[-1]["epoch"] == trainer.current_epoch):
            return  # the epoch was cut off
        row, done = rows[-1], trainer.current_epoch + 1
        number, left = f"{done}", ""
        if trainer.max_epochs not in (None, -1):
            number = f"{done}/{trainer.max_epochs}"
            pace = (time.perf_counter() - self._started) / (done - self._first)
            left = duration(pace * (trainer.max_epochs - done))
        best = "  best" if self.history.best_epoch == trainer.current_epoch else ""
        log.info(
            f"{number:>6}  {row['train_loss']:>10.4f}  {row['val_loss']:>8.4f}  "
            f"{percent(row['val_accuracy']):>12}  {percent(row['val_macro_f1']):>12}  "
            f"{left:>9}{best}"
        )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Hide the bar before the error is told."""
        self._hide()

    def _hide(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
