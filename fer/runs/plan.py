"""The plan of a study, and of an audit of labels: which commands they take, and in which order.

Each is a folder of runs, each run with the command that anybody could type.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer.core.commands import quoted_if_needed
from fer.core.composition import compose, config_folder, options_of
from fer.core.errors import ConfigError
from fer.core.options import SEED, Check, check_value, one_of, or_null
from fer.data.prepared import CACHE
from fer.runs.overrides import key_of
from fer.runs.stages import (
    REPORT,
    Measurement,
    Preparation,
    Stage,
    Training,
    common_options,
    make_measurement,
    make_training,
    place_of,
    program,
)

SET_BY_STUDY = ("dataset", "seed", "test", "resume", "checkpoint", "split", "paths", "hydra")
"""Options that the study sets itself."""
PLACES_OF_STUDY = ("hydra.", "paths.", "dataset.raw", "dataset.folder", "dataset.fold")
"""Beginnings of more of them."""
SEEDS: Check = (
    "a list of different whole numbers from 0, such as [0,1,2]",
    lambda found: (
        isinstance(found, list)
        and len(set(map(str, found))) == len(found) > 0
        and all(map(SEED[1], found))
    ),
)
IN_DOMAIN = (
    *("perturbation", "robustness", "saliency", "errors", "temperature_scaling"),
    *("prediction_sets", "votes"),
)
"""Options that add to the scores, for a network's own dataset alone."""
MEASURED = ("trainer", "trainer.accelerator", "trainer.precision", "loader.eval_batch_size")
"""Options of the trainings that hold for the measurements, too."""


@dataclass(frozen=True)
class Study:
    """A configuration of ``conf/study.yaml``, as commands."""

    folder: Path
    datasets: list[str]
    seeds: list[int]
    options: list[str]
    """Options of every training."""
    measured: list[str]
    """Options of every evaluation of a network on its own dataset; without those of
    :data:`IN_DOMAIN` also on the others."""
    preparations: list[Preparation]
    trainings: list[Training]
    measurements: list[Measurement]

    @property
    def stages(self) -> list[Stage]:
        """All commands, in order."""
        return [*self.preparations, *self.trainings, *self.measurements]


def make_study(cfg: DictConfig) -> Study:
    """Plan the stages.

    Raises:
        ConfigError: a value is not what its key expects.
    """
    datasets, seeds = check_datasets_and_seeds(cfg)
    options, measured = check_list(cfg, "train"), check_list(cfg, "evaluate")
    folder = Path(cfg.folder or Path(cfg.paths.outputs) / "study" / "_".join(datasets))
    common = common_options(cfg)
    # What is done with the data holds wherever they are used.
    of_data = [item for item in options if key_of(item).startswith("dataset.")]
    raw = {
        name: [] if path is None else [f"dataset.raw={place_of(path)}"]
        for name, path in zip(datasets, (cfg.raw.a, cfg.raw.b), strict=False)
    }
    preparations = [
        Preparation(
            f"prepare {name}",
            name,
            [*program("prepare"), f"dataset={name}", *of_data, *raw[name], *common],
            prepared_folder(cfg, name),
        )
        for name in datasets
    ]
    trainings = [
        make_training(
            f"train on {name}, seed {seed}",
            name,
            seed,
            [f"dataset={name}", f"seed={seed}", "test=false", *options, *raw[name], *common],
            folder / "train" / f"{name}-seed{seed}",
            f"prepare {name}",
        )
        for name, seed in itertools.product(datasets, seeds)
    ]
    # What changes the scores themselves holds wherever they are compared.
    everywhere = [item for item in measured if not key_of(item).startswith(IN_DOMAIN)]
    measurements = []
    for training, other in itertools.product(trainings, datasets):
        name, seed = training.dataset, training.seed
        # A dataset that is named would lose the options that it was trained with.
        chosen = measured if other == name else [f"dataset={other}", *of_data, *everywhere]
        stage = f"measure {name}, seed {seed}, on {other}"
        place = folder / "evaluate" / f"{name}-seed{seed}-on-{other}"
        measurements.append(
            make_measurement(stage, other, training, [*chosen, *common], place, f"prepare {other}")
        )
    return Study(folder, datasets, seeds, options, measured, preparations, trainings, measurements)


def check_datasets_and_seeds(cfg: DictConfig) -> tuple[list[str], list[int]]:
    """The names of Exp-A's and Exp-B's datasets, and the seeds of the trainings."""
    dataset = one_of(*options_of("dataset"))
    check_value("a", cfg.a, dataset)
    check_value("b", cfg.b, or_null(dataset, "for one dataset alone"))
    check_value("b", cfg.b, (f"another dataset than a={cfg.a}", lambda name: name != cfg.a))
    seeds: Any = OmegaConf.to_container(cfg.seeds) if OmegaConf.is_list(cfg.seeds) else cfg.seeds
    check_value("seeds", seeds, SEEDS)
    return [name for name in (cfg.a, cfg.b) if name is not None], seeds


def prepared_folder(cfg: DictConfig, name: str) -> Path:
    """The folder with a dataset's integrity report, which may not be prepared yet."""
    data = quoted_if_needed(Path(cfg.paths.data).absolute())
    folder = Path(compose("train", [f"dataset={name}", f"paths.data={data}"]).dataset.folder)
    # The report on a folder that was prepared elsewhere is kept in its cache.
    adopted = sorted(folder.glob(f"{CACHE}/adopted-*/{REPORT}"))
    return adopted[0].parent if adopted and not (folder / REPORT).is_file() else folder


# --- the audit --------------------------------------------------------------------------------


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


# --- the command line --------------------------------------------------------------------------


def check_list(cfg: DictConfig, key: str, command: str = "study") -> list[str]:
    """The options for ``train.py`` or ``evaluate.py`` that a command passes on."""
    items = OmegaConf.to_container(cfg[key]) if OmegaConf.is_list(cfg[key]) else None
    if not isinstance(items, list) or not all("=" in str(item) for item in items):
        raise ConfigError(
            f"{key}: expected options, found {cfg[key]}. Set them one by one: {key}.KEY=VALUE"
        )
    for item in items:
        name = key_of(item)
        # The whole dataset is the study's; what is done with it, such as dataset.leaks, is not.
        if key == "evaluate" and name.startswith("dataset."):
            raise ConfigError(
                f"evaluate: expected options of the measurement, found {item}: what is done with "
                f"the data holds for every stage. Set it as train.{item}"
            )
        if name in SET_BY_STUDY or name.startswith(PLACES_OF_STUDY):
            raise ConfigError(
                f"{key}: expected options of the recipe, found {item}, which the {command} sets "
                f"itself. See its own options: python -m fer {command} --help"
            )
    return items


def expand(arguments: Sequence[str]) -> list[str]:
    """Put ``train.KEY=VALUE`` and ``evaluate.KEY=VALUE`` of the command line into their lists.

    An option of the evaluations replaces the study's own of that key.

    >>> expand(["a=fer2013", "train.model=shared_cnn_small", "train.optimizer.lr=1e-3"])
    ['a=fer2013', "train=['model=shared_cnn_small','optimizer.lr=1e-3']"]
    """
    found: dict[str, list[str]] = {}
    others = []
    for item in arguments:
        key, dot, rest = item.partition(".")
        if dot and key in ("train", "evaluate"):
            found.setdefault(key, []).append(rest)
        else:
            others.append(item)
    for key, items in found.items():
        if key == "evaluate":
            chosen = {item.partition("=")[0] for item in items}
            own = OmegaConf.load(config_folder() / "study.yaml").evaluate
            items[:0] = [item for item in own if item.partition("=")[0] not in chosen]
        others.append(f"{key}=[{','.join(map(as_text, items))}]")
    return others


def as_text(value: str) -> str:
    """Quote a text for Hydra's command line; interpolations in it are left to the command.

    >>> print(as_text("model.widths=[4,8]"), as_text("a='b'"))
    'model.widths=[4,8]' 'a=\\'b\\''
    """
    escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'"
