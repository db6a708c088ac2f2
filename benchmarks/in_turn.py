"""train.py with bare training steps in turn with its own; benchmarks/training.py runs this.

    python benchmarks/in_turn.py RESULT.json dataset=fer2013 test=false trainer.max_epochs=4

After every dozen steps of the training a dozen bare ones are taken, in the same process, and the
clock of the training stands still. So both have the same machine at nearly the same time: measured
one after the other, they differed by up to 8 % either way. The first epoch warms up. RESULT.json
says how many steps of each kind the other epochs took, and how long.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from training import DOZEN, TRAIN, bare_step, wait

from fer.core.composition import config_folder
from fer.core.hardware import Computing
from fer.model.module import EmotionModule


class InTurn(Callback):
    """Takes bare steps and the time.

    Args:
        step: the bare training step.
        device: that it runs on.
        result: the file to write.
    """

    def __init__(self, step: Callable[[], None], device: torch.device, result: Path) -> None:
        self.step = step
        self.device = device
        self.result = result
        self.steps = {"own": 0, "bare": 0}
        self.seconds = {"own": 0.0, "bare": 0.0}
        self.started = 0.0

    def note(self, kind: str, steps: int, epoch: int) -> None:
        """Count steps and the time since the last note, and start the clock again."""
        wait(self.device)
        now = time.perf_counter()
        if epoch > 0:
            self.steps[kind] += steps
            self.seconds[kind] += now - self.started
        self.started = now

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a dozen steps of the training, take a dozen bare ones."""
        if (batch_idx + 1) % DOZEN:
            return
        self.note("own", DOZEN, trainer.current_epoch)
        # As the bare step is without train.py: any algorithm will do.
        torch.use_deterministic_algorithms(False)
        with torch.enable_grad():
            for _ in range(DOZEN):
                self.step()
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.note("bare", DOZEN, trainer.current_epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the last steps of the epoch; the training's own clock stops here as well."""
        self.note("own", int(trainer.num_training_batches) % DOZEN, trainer.current_epoch)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was counted."""
        self.result.write_text(json.dumps({"steps": self.steps, "seconds": self.seconds}))


def main() -> None:
    """Run train.py with the options behind the file's name."""
    result, *overrides = sys.argv[1:]
    options = [item for item in overrides if not item.startswith("hydra.")]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        cfg = hydra.compose("train", overrides=options)
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    turns = InTurn(bare_step(cfg, computing), computing.device, Path(result).resolve())
    EmotionModule.configure_callbacks = lambda self: [turns]  # type: ignore[method-assign]
    sys.argv = [str(TRAIN), *overrides]
    runpy.run_path(str(TRAIN), run_name="__main__")


if __name__ == "__main__":
    main()
