"""The plan of a study: which commands it takes, in which order, and which of them are done.

A study is a folder of runs, each with the command that anybody could type. What is complete is not
done again; what was cut off goes on.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer.core.commands import quoted_if_needed
from fer.core.composition import compose, config_folder, options_of, own_folders
from fer.core.errors import ConfigError, DataError
from fer.core.files import read_json, refuse_links, sha256_of_file
from fer.core.options import SEED, Check, check_value, one_of, or_null
from fer.data.audit.integrity import Integrity
from fer.data.prepared import CACHE, REPORTED
from fer.runs.overrides import INERT, deciding, key_of, plain, read_overrides, unlike
from fer.runs.records import STATISTICS, read_evaluation, read_run, read_training
from fer.runs.state import BEST, FINISHED, State, state_of

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
REPORT = "integrity.json"
"""A prepared dataset's own report, in its folder."""


# --- the stages --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One command of the study."""

    name: str
    dataset: str
    """The dataset that it prepares, trains on or measures."""
    command: list[str]
    """Without the interpreter."""
    folder: Path
    """The folder of its results."""
    needs: tuple[str, ...] = ()
    """Names of earlier stages."""

    @property
    def done(self) -> bool:
        """True if it is complete."""
        return state_of(self.folder) is State.FINISHED

    @property
    def begun(self) -> bool:
        """True for a training that was cut off and can go on."""
        return state_of(self.folder) is State.UNFINISHED

    @property
    def options(self) -> list[str]:
        """The options of its command that decide what it does."""
        return plain([one for one in self.command if "=" in one and not one.startswith("--")])


class Preparation(Stage):
    """The preparation of a dataset."""

    @property
    def done(self) -> bool:
        """True if its report is there, in the form that this version reads."""
        try:
            return bool(self.report())
        except DataError:
            return False

    def report(self) -> Integrity:
        """``integrity.json``.

        Raises:
            DataError: it cannot be read, or is something else.
        """
        found: Integrity = read_json(self.folder / REPORT, REPORTED)
        return found


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
        path = self.training.checkpoint
        try:
            return super().done and path.is_file() and self._is_of(path)
        except DataError:  # its record is damaged
            return False

    def _is_of(self, path: Path) -> bool:
        """Compare its record with a checkpoint and with its command."""
        # Of another version nothing else is known: it may lack what is read of this one's.
        version = read_json(self.folder / "run.json", {"statistics": (int, ...)})
        if version.get("statistics") != STATISTICS:
            return False
        own = checksum(path, path.stat().st_mtime_ns)
        same = read_evaluation(self.folder)["checkpoint"]["sha256"] == own
        return same and deciding(self.options) == deciding(read_overrides(self.folder) or [])


@functools.cache
def checksum(path: Path, modified: int) -> str:
    """Hex SHA-256 of a file, computed once for each time of its modification."""
    return sha256_of_file(path)


def make_training(
    name: str, dataset: str, seed: int, options: Sequence[str], place: Path, *needs: str
) -> Training:
    """The training in the folder ``place``; what was cut off there goes on."""
    # With the whole recipe, and is refused if it had another one.
    key = "resume" if state_of(place) is State.UNFINISHED else "hydra.run.dir"
    command = [*program("train"), *options, f"{key}={place_of(place)}"]
    return Training(name, dataset, command, place, needs, seed=seed)


def make_measurement(
    name: str, dataset: str, training: Training, options: Sequence[str], place: Path, *needs: str
) -> Measurement:
    """The measurement of a training's network in the folder ``place``."""
    network = f"checkpoint={place_of(training.checkpoint)}"
    command = [*program("evaluate"), network, *options, f"hydra.run.dir={place_of(place)}"]
    needs = (training.name, *needs)
    return Measurement(name, dataset, command, place, needs, training=training)


def program(command: str) -> list[str]:
    """The arguments of Python for a command, with the folder of the user's own options."""
    folders = own_folders()
    own = [f"--config-dir={folder}" for folder in folders[:1]]
    more = ",".join(f"'file://{folder.absolute()}'" for folder in folders[1:])
    return ["-m", "fer", command, *own, *([f"hydra.searchpath=[{more}]"] if more else [])]


def place_of(path: str | Path) -> str:
    """A path for a command: relative where it lies below the current folder."""
    here, absolute = Path.cwd(), Path(path).absolute()
    shown = absolute.relative_to(here) if absolute.is_relative_to(here) else absolute
    return quoted_if_needed(shown)


def common_options(cfg: DictConfig) -> list[str]:
    """Options of every command: where the data are, and in which form figures are drawn too."""
    form = cfg.figures.format
    data = f"paths.data={place_of(cfg.paths.data)}"
    return [data] if form is None else [data, f"figures.format={form}"]


# --- the study ---------------------------------------------------------------------------------


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


def prepared_folder(cfg: DictConfig, name: str) -> Path:
    """The folder with a dataset's integrity report, which may not be prepared yet."""
    data = quoted_if_needed(Path(cfg.paths.data).absolute())
    folder = Path(compose("train", [f"dataset={name}", f"paths.data={data}"]).dataset.folder)
    # The report on a folder that was prepared elsewhere is kept in its cache.
    adopted = sorted(folder.glob(f"{CACHE}/adopted-*/{REPORT}"))
    return adopted[0].parent if adopted and not (folder / REPORT).is_file() else folder


# --- whose runs they are -----------------------------------------------------------------------


def refuse_others(folder: Path, record: str, what: str) -> None:
    """Refuse a folder with the page of something else in it, or with links that lead out of it.

    Args:
        record: the file that stands beside a page of this kind.
        what: that is, such as a study.

    Raises:
        FerError: it is one.
    """
    refuse_links(folder)
    if (folder / FINISHED).is_file() and not (folder / record).is_file():
        raise ConfigError(
            f"{folder}: expected the folder of {what}, or a new one, found the page of something "
            "else in it. Choose another folder: folder=PATH"
        )


def check_same(study: Study) -> None:
    """Refuse a folder whose runs are of another recipe or of other data.

    Raises:
        ConfigError: a finished run was made with other options, or on another copy.
    """
    prints = {one.dataset: one.report()["fingerprint"] for one in study.preparations if one.done}
    check_runs((*study.trainings, *study.measurements), prints)


def check_runs(stages: Sequence[Stage], prints: Mapping[str, str]) -> None:
    """Refuse runs that their stages' commands would not make again, or cannot go on with.

    Args:
        stages: trainings and measurements; those that are not begun pass.
        prints: the fingerprint of each dataset that is prepared.

    Raises:
        ConfigError: a run was made or begun with other options, or made on another copy.
    """
    for stage in stages:
        # The training itself would say so too, but hours later, after others.
        saved = read_overrides(stage.folder) if stage.begun else None
        if isinstance(stage, Training) and saved is not None:
            lost = set(deciding(saved)).difference(stage.options)
            if other := [*unlike(saved, stage.options), *sorted(lost)]:
                raise ConfigError(
                    f"{stage.folder}: expected a run that was begun with the same options, found "
                    f"one {'with' if other[0] in lost else 'without'} {other[0]}. Choose another "
                    "folder: folder=PATH"
                )
        for key, wanted, found in mismatches(stage, prints) if stage.done else ():
            raise ConfigError(
                f"{stage.folder}: expected a run with {key}={wanted}, found one with "
                f"{key}={found}. Choose another folder: folder=PATH"
            )


def mismatches(stage: Stage, prints: Mapping[str, str]) -> Iterator[tuple[str, Any, Any]]:
    """Yield what changes a result, with its values in the command and in a finished run."""
    if isinstance(stage, Training):
        composed = compose("train", stage.options)
        wanted = OmegaConf.to_container(composed, resolve=True)
        saved = read_training(stage.folder)["config"]
        for key, value, found in differences(wanted, saved):
            if key.endswith("_target_"):  # a class may have moved since; its name stays
                value, found = (str(name).rpartition(".")[2] for name in (value, found))
            if value != found and not key.startswith(INERT):
                yield key, value, found
    found = read_run(stage.folder)["dataset"]["fingerprint"]
    if prints.get(stage.dataset, found) != found:
        yield f"the fingerprint of {stage.dataset}", prints[stage.dataset], found


def differences(wanted: Any, found: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted keys of nested mappings whose values differ, with both values.

    What only one of them has is an option that the other's version did not have.

    >>> list(differences({"a": {"b": 1, "c": 2}, "d": [3]}, {"a": {"b": 0}, "d": [3]}))
    [('a.b', 1, 0)]
    """
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for name in wanted:
            if name in found:
                yield from differences(wanted[name], found[name], f"{key}.{name}".lstrip("."))
    elif wanted != found:
        yield key, wanted, found


# --- the command line --------------------------------------------------------------------------


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
