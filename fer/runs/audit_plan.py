"""The plan of an audit of labels: a training and a measurement for each fold of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from fer.core.errors import ConfigError
from fer.runs.overrides import key_of
from fer.runs.plan import (
    Measurement,
    Stage,
    Training,
    check_list,
    common_options,
    make_measurement,
    make_training,
)

MEASURED = ("trainer", "trainer.accelerator", "trainer.precision", "loader.eval_batch_size")
"""Options of the trainings that hold for the measurements, too."""


@dataclass(frozen=True)
class Audit:
    """A configuration of ``conf/audit.yaml``, as commands."""

    folder: Path
    trainings: list[Training]
    """One for each fold, which it leaves out."""
    measurements: list[Measurement]
    """Of the images of each fold by the network that has not seen them."""

    @property
    def stages(self) -> list[Stage]:
        """All commands, fold by fold."""
        pairs = zip(self.trainings, self.measurements, strict=True)
        return [stage for pair in pairs for stage in pair]

    @property
    def predictions(self) -> list[Path]:
        """The table of predictions of each fold."""
        return [stage.folder / "predictions.csv" for stage in self.measurements]


def make_audit(cfg: DictConfig, choice: str, overrides: Sequence[str]) -> Audit:
    """Plan the stages.

    Args:
        cfg: as composed.
        choice: the configuration in ``conf/dataset``.
        overrides: of the audit's own command line.

    Raises:
        ConfigError: a value is not what its key expects.
    """
    options = check_list(cfg, "train", "audit")
    for item in options:
        if key_of(item).startswith("dataset."):
            raise ConfigError(
                f"train: expected options of the recipe, found {item}: what is done with the data "
                f"holds for every stage. Set it as {item}"
            )
        if key_of(item) == "loss.teacher":
            raise ConfigError(
                f"train: expected a training that has not seen the images of its fold, found "
                f"{item}: a teacher may have seen them. Leave it out."
            )
    if cfg.dataset.fold is not None:
        raise ConfigError(
            "dataset.fold: expected null, since an audit measures every fold, found "
            f"{cfg.dataset.fold}. Leave it out; folds={cfg.folds} says how many there are."
        )
    folder = Path(cfg.folder or Path(cfg.paths.outputs) / "audit" / cfg.dataset.name)
    own = [item for item in overrides if key_of(item).startswith("dataset.")]
    measured = [item for item in options if key_of(item) in MEASURED]
    if "trainer" in map(key_of, measured):
        measured.append("trainer.devices=1")  # more processes train alone
    common = common_options(cfg)
    trainings, measurements = [], []
    for number in range(1, cfg.folds + 1):
        named = [f"dataset={choice}", *own, f"dataset.fold={number}/{cfg.folds}"]
        training = make_training(
            f"train without fold {number}",
            choice,
            cfg.seed,
            [*named, f"seed={cfg.seed}", "test=false", *options, *common],
            folder / "train" / f"fold{number}",
        )
        trainings.append(training)
        place = folder / "evaluate" / f"fold{number}"
        chosen = [*named, *measured, "split=test", *common]
        stage = f"measure fold {number}"
        measurements.append(make_measurement(stage, choice, training, chosen, place))
    return Audit(folder, trainings, measurements)
