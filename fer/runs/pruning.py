"""The callback that ends a search's trial when it lags behind the others."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from fer.model.module import MONITOR
from fer.runs.search import Reporter


class Pruning(Callback):
    """Reports each epoch's validation macro-F1 to a trial, and ends a training that lags behind.

    The last epoch ends by itself, and so does one that early stopping has ended: the callback
    belongs behind that. The arguments are those of :class:`fer.runs.search.Reporter`.
    """

    def __init__(self, study: str, trial: int, storage: str) -> None:
        self.place = (study, trial, storage)
        self.pruned = False
        self._reporter: Reporter | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Connect to the trial; not before, since a connection cannot be sent to a process."""
        if trainer.is_global_zero:
            self._reporter = Reporter(*self.place)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the score; all processes end together."""
        score = float(trainer.callback_metrics[MONITOR])
        hopeless = self._reporter is not None and self._reporter.report(
            score, trainer.current_epoch
        )
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        self.pruned = not last and trainer.strategy.reduce_boolean_decision(hopeless, all=False)
        trainer.should_stop = trainer.should_stop or self.pruned

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the connection."""
        self._reporter = None

    def state_dict(self) -> dict[str, bool]:
        """The state for a checkpoint: true if the training was ended here."""
        return {"pruned": self.pruned}
