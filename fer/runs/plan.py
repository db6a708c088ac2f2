"""The plan of a study: which commands it takes, in which order, and which of them are done.

A study is a folder of runs, each with the command that anybody could type. What is complete is not
done again; what was cut off goes on.
"""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer.core.application import compose, config_folder, options_of, own_folders
from fer.core.commands import quoted_if_needed
from fer.core.errors import ConfigError, DataError
from fer.core.files import read_json, sha256_of_file
from fer.core.options import SEED
from fer.data.prepared import CACHE, REPORTED
from fer.runs.records import RUN, STATISTICS, read_evaluation, read_training
from fer.runs.resume import FREE, key_of, read_overrides
from fer.runs.state import BEST, FINISHED, State, state_of

SET_BY_STUDY = ("dataset", "seed", "test", "resume", "checkpoint", "split", "paths", "hydra")
"""Options that the study sets itself."""
INERT = (
    *("paths", "resume", "trainer.progress_bar", "logger"),
    *("dataset.raw", "dataset.workers", "dataset.folder"),
)
"""Options that do not change a result: where things are, what is shown."""
IN_DOMAIN = ("perturbation", "robustness", "saliency", "errors", "temperature_scaling")
"""Options that add to the scores, for a network's own dataset alone."""
UNCOMPARED = ("--", "hydra.", "paths.", "checkpoint=", *FREE)
"""Beginnings of arguments that say where things are, not what is measured."""


@functools.cache
def checksum(path: Path, modified: int) -> str:
    """Hex SHA-256 of a file as it was at a time of modification, computed once."""
    return sha256_of_file(path)


@dataclass(frozen=True)
class Stage:
    """One command of the study."""

    name: str
    dataset: str
    """The dataset that it prepares, trains on or measures."""
    command: list[str]
    """Without the interpreter."""
    done_by: Path
    """The file that it writes last."""
    needs: tuple[str, ...] = ()
    """Names of earlier stages."""

    @property
    def folder(self) -> Path:
        """The folder of its results."""
        return self.done_by.parent

    @property
    def done(self) -> bool:
        """True if it is complete."""
        return self.done_by.is_file()

    @property
    def begun(self) -> bool:
        """True for a training that was cut off and can go on."""
        return state_of(self.folder) is State.UNFINISHED

    @property
    def line(self) -> str:
        """The command as one could type it."""
        return shlex.join(["python", *self.command])


class Preparation(Stage):
    """The preparation of a dataset."""

    @property
    def done(self) -> bool:
        """True if its report is there, in the form that this version reads."""
        try:
            return bool(self.report())
        except DataError:
            return False

    def report(self) -> dict[str, Any]:
        """``integrity.json``.

        Raises:
            DataError: it cannot be read, or is something else.
        """
        return dict(read_json(self.done_by, REPORTED))


@dataclass(frozen=True, kw_only=True)
class Training(Stage):
    """A training on one of the datasets."""

    seed: int

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of its best epoch."""
        return self.folder / BEST


@dataclass(frozen=True, kw_only=True)
class Measurement(Stage):
    """The evaluation of a training's network on a dataset."""

    training: Training

    @property
    def in_domain(self) -> bool:
        """True if the network was trained on this dataset."""
        return self.training.dataset == self.dataset

    @property
    def done(self) -> bool:
        """True if it is complete: of this checkpoint, with these options and statistics."""
        checkpoint = self.training.checkpoint
        if not (self.done_by.is_file() and checkpoint.is_file()):
            return False
        record = read_evaluation(self.folder)
        wanted = [item for item in self.command if "=" in item]
        return (
            record.get("statistics") == STATISTICS
            and record["checkpoint"].get("sha256")
            == checksum(checkpoint, checkpoint.stat().st_mtime_ns)
            and _compared(wanted) == _compared(read_overrides(self.folder) or [])
        )


def _compared(arguments: Sequence[str]) -> list[str]:
    return sorted(item for item in arguments if not item.startswith(UNCOMPARED))


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

    @property
    def page(self) -> Path:
        """The file that the study writes last."""
        return self.folder / FINISHED


# --- what there is to do -----------------------------------------------------------------------


def make_study(cfg: DictConfig) -> Study:
    """Plan the stages.

    Raises:
        ConfigError: a value is not what its key expects.
    """
    datasets, seeds = check_datasets(cfg), check_seeds(cfg)
    options, measured = check_list(cfg, "train"), check_list(cfg, "evaluate")
    folder = Path(cfg.folder or Path(cfg.paths.outputs) / "study" / "_".join(datasets))
    data = f"paths.data={place_of(Path(cfg.paths.data))}"
    # What is done with the data holds wherever they are used.
    of_data = [item for item in options if key_of(item).startswith("dataset.")]
    raw = {
        name: [] if path is None else [f"dataset.raw={place_of(Path(path))}"]
        for name, path in zip(datasets, (cfg.raw.a, cfg.raw.b), strict=False)
    }
    preparations = [
        Preparation(
            f"prepare {name}",
            name,
            [*program("prepare"), f"dataset={name}", *of_data, *raw[name], data],
            integrity_file(cfg, name),
        )
        for name in datasets
    ]
    trainings = []
    for name, seed in itertools.product(datasets, seeds):
        place = folder / "train" / f"{name}-seed{seed}"
        command = [*program("train"), f"dataset={name}", f"seed={seed}", "test=false"]
        # What was cut off goes on with the whole recipe, and is refused if it had another one.
        key = "resume" if state_of(place) is State.UNFINISHED else "hydra.run.dir"
        command += [*options, *raw[name], data, f"{key}={place_of(place)}"]
        done_by, needs = place / FINISHED, (f"prepare {name}",)
        stage = f"train on {name}, seed {seed}"
        trainings.append(Training(stage, name, command, done_by, needs, seed=seed))
    # What changes the scores themselves holds wherever they are compared.
    everywhere = [item for item in measured if not key_of(item).startswith(IN_DOMAIN)]
    measurements = []
    for training, other in itertools.product(trainings, datasets):
        name, seed = training.dataset, training.seed
        place = folder / "evaluate" / f"{name}-seed{seed}-on-{other}"
        # A dataset that is named would lose the options that it was trained with.
        chosen = measured if other == name else [f"dataset={other}", *of_data, *everywhere]
        command = [*program("evaluate"), f"checkpoint={place_of(training.checkpoint)}", *chosen]
        command += [data, f"hydra.run.dir={place_of(place)}"]
        done_by, both = place / FINISHED, (training.name, f"prepare {other}")
        stage = f"measure {name}, seed {seed}, on {other}"
        measurements.append(Measurement(stage, other, command, done_by, both, training=training))
    return Study(folder, datasets, seeds, options, measured, preparations, trainings, measurements)


def program(command: str) -> list[str]:
    """The arguments of Python for a command, with the folder of the user's own options."""
    own = [f"--config-dir={folder}" for folder in own_folders()[:1]]
    return ["-m", "fer", command, *own]


def place_of(path: Path) -> str:
    """A path for a command: relative where it lies below the current folder."""
    here, absolute = Path.cwd(), path.absolute()
    shown = absolute.relative_to(here) if absolute.is_relative_to(here) else absolute
    return quoted_if_needed(shown)


def check_datasets(cfg: DictConfig) -> list[str]:
    """The names of Exp-A's and Exp-B's datasets.

    Raises:
        ConfigError: one does not exist, or both are one.
    """
    known = options_of("dataset")
    names = [cfg.a] if cfg.b is None else [cfg.a, cfg.b]
    for key, name in zip("ab", names, strict=False):
        if name not in known:
            raise ConfigError(
                f"{key}: expected a dataset ({', '.join(known)}), found {name!r}. "
                f"Set it: {key}=NAME"
            )
    if len(set(names)) != len(names):
        raise ConfigError(
            f"b: expected another dataset than a={cfg.a}, found the same. "
            "Take b=null for one alone."
        )
    return names


def check_seeds(cfg: DictConfig) -> list[int]:
    """The seeds of the trainings.

    Raises:
        ConfigError: they are not different whole numbers from 0.
    """
    seeds: Any = OmegaConf.to_container(cfg.seeds) if OmegaConf.is_list(cfg.seeds) else []
    accept = SEED[1]
    if not (seeds and all(map(accept, seeds)) and len(set(seeds)) == len(seeds)):
        raise ConfigError(
            f"seeds: expected a list of different whole numbers from 0, found {cfg.seeds}. "
            "Set it: 'seeds=[0,1,2]'"
        )
    return seeds


def check_list(cfg: DictConfig, key: str) -> list[str]:
    """The options for ``train.py`` or ``evaluate.py``.

    Raises:
        ConfigError: they are not a list of ``key=value``, or name what the study sets itself.
    """
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
        places = ("hydra.", "paths.", "dataset.raw", "dataset.folder")
        if name in SET_BY_STUDY or name.startswith(places):
            raise ConfigError(
                f"{key}: expected options of the recipe, found {item}, which the study sets "
                "itself. See its own options: python -m fer study --help"
            )
    return items


def integrity_file(cfg: DictConfig, name: str) -> Path:
    """The path of a dataset's integrity report, which may not be prepared yet."""
    dataset = compose(
        "train",
        [f"dataset={name}", f"paths.data={quoted_if_needed(Path(cfg.paths.data).absolute())}"],
    )
    folder = Path(dataset.dataset.folder)
    # The report on a folder that was prepared elsewhere is kept in its cache.
    adopted = sorted(folder.glob(f"{CACHE}/adopted-*/integrity.json"))
    own = folder / "integrity.json"
    return adopted[0] if adopted and not own.is_file() else own


def check_same(study: Study) -> None:
    """Refuse a folder whose runs are of another recipe or of other data.

    Raises:
        ConfigError: a finished run was made with other options, or on another copy.
    """
    prints = {one.dataset: one.report()["fingerprint"] for one in study.preparations if one.done}
    for training in study.trainings:
        if training.done:
            check_recipe(training, study.options)
    for stage in (*study.trainings, *study.measurements):
        if not stage.done or stage.dataset not in prints:
            continue
        wanted = prints[stage.dataset]
        found = read_json(stage.folder / "run.json", RUN)["dataset"]["fingerprint"]
        if found != wanted:
            raise ConfigError(
                f"{stage.folder}: expected a run on the copy of {stage.dataset} that is prepared "
                f"now (fingerprint {wanted[:16]}), found one on another ({found[:16]}). Choose "
                "another folder for this study: folder=PATH"
            )


def check_recipe(stage: Training, options: Sequence[str]) -> None:
    """Refuse a finished training of another recipe.

    Raises:
        ConfigError: an option that changes its result has another value.
    """
    saved = read_training(stage.folder)["config"]
    named = [f"dataset={stage.dataset}", f"seed={stage.seed}", "test=false"]
    wanted = compose("train", [*named, *options])
    for key, value in leaves(OmegaConf.to_container(wanted, resolve=True)):
        found = look_up(saved, key)
        if key.startswith(INERT) or found is MISSING:  # an option that was not there yet
            continue
        if key.endswith("_target_"):  # a class may have moved since; its name stays
            value, found = (str(name).rpartition(".")[2] for name in (value, found))
        if found != value:
            raise ConfigError(
                f"{stage.folder}: expected a training with {key}={value}, found one with "
                f"{key}={found}. Choose another folder for this study: folder=PATH"
            )


MISSING = object()


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested mappings with their values; a list is a value.

    >>> list(leaves({"a": {"b": 1}, "c": [2]}))
    [('a.b', 1), ('c', [2])]
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def look_up(node: Any, key: str) -> Any:
    """The value of a dotted key, :data:`MISSING` where there is none."""
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return MISSING
        node = node[part]
    return node


# --- the command line --------------------------------------------------------------------------


def expand(arguments: Sequence[str]) -> list[str]:
    """Put ``train.KEY=VALUE`` and ``evaluate.KEY=VALUE`` of the command line into their lists.

    An option of the evaluations replaces the study's own of that key.

    Args:
        arguments: of the program, without its name.

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
    """A text as Hydra's command line takes it; an interpolation in it is the command's.

    >>> print(as_text("model.widths=[4,8]"), as_text("a='b'"))
    'model.widths=[4,8]' 'a=\\'b\\''
    """
    escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'"
