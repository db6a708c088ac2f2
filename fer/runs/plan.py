"""The plan of a study: which commands it takes, in which order, and which of them are done.

A study is a folder of runs, each with the command that anybody could type. What is complete is not
done again; what was cut off goes on.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer.core.application import compose, config_folder, options_of, own_folders
from fer.core.errors import ConfigError
from fer.core.files import read_json, sha256_of_file
from fer.core.options import SEED
from fer.data.prepared import CACHE, REPORTED
from fer.runs.records import RUN, read_evaluation, read_training
from fer.runs.resume import FREE, key_of, quote, read_overrides
from fer.runs.state import BEST, FINISHED, State, state_of

OWN = ("dataset", "seed", "test", "resume", "checkpoint", "split", "paths", "hydra")
"""Options that the study sets itself."""
PLACES = (
    *("paths", "resume", "trainer.progress_bar", "logger"),
    *("dataset.raw", "dataset.workers", "dataset.folder"),
)
"""Options that do not change a result: where things are, what is shown."""


AT_HOME = ("perturbation", "robustness", "saliency", "errors", "temperature_scaling")
"""Options of an evaluation that add to its scores, and are for a network's own dataset alone."""
UNSEEN = ("--", "hydra.", "paths.", "checkpoint=")
"""How arguments begin that say where things are, not what is measured."""


@functools.cache
def checksum(path: Path, modified: int) -> str:
    """Hex SHA-256 of a file as it was at a time of modification, computed once."""
    return sha256_of_file(path)


@dataclass(frozen=True)
class Stage:
    """One command of the study."""

    name: str
    command: list[str]
    """Without the interpreter."""
    done_by: Path
    """The file that it writes last."""
    folder: Path | None = None
    """Of its run."""
    needs: tuple[str, ...] = ()
    """Names of earlier stages."""
    checkpoint: Path | None = None
    """That it measures."""

    @property
    def done(self) -> bool:
        """Whether it is complete: for an evaluation, of this checkpoint and with these options."""
        if not self.done_by.is_file():
            return False
        return self.checkpoint is None or self._is_of(self.checkpoint)

    def _is_of(self, checkpoint: Path) -> bool:
        assert self.folder is not None
        record = read_evaluation(self.folder)
        if not checkpoint.is_file() or record["checkpoint"].get("sha256") != checksum(
            checkpoint, checkpoint.stat().st_mtime_ns
        ):
            return False
        unseen = (*UNSEEN, *FREE)
        wanted = [item for item in self.command if "=" in item and not item.startswith(unseen)]
        saved = read_overrides(self.folder) or []
        return sorted(wanted) == sorted(item for item in saved if not item.startswith(unseen))

    @property
    def begun(self) -> bool:
        """Whether a training was cut off and can go on."""
        return self.folder is not None and state_of(self.folder) is State.UNFINISHED

    @property
    def line(self) -> str:
        """The command as one could type it."""
        return shlex.join(["python", *self.command])


@dataclass(frozen=True)
class Evaluation:
    """A network of the study on a dataset."""

    trained_on: str
    seed: int
    measured_on: str
    stage: Stage

    @property
    def at_home(self) -> bool:
        """Whether the network was trained on this dataset."""
        return self.trained_on == self.measured_on


@dataclass(frozen=True)
class Study:
    """What a configuration of ``conf/study.yaml`` asks for."""

    folder: Path
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    options: tuple[str, ...]
    """Of every training."""
    measured: tuple[str, ...]
    """Options of every evaluation of a network on its own dataset; but for :data:`AT_HOME` of the
    others too."""
    stages: list[Stage]
    trainings: dict[tuple[str, int], Stage]
    """By dataset and seed."""
    evaluations: list[Evaluation]

    @property
    def page(self) -> Path:
        """What the study writes last."""
        return self.folder / FINISHED


# --- what there is to do -----------------------------------------------------------------------


def make_study(cfg: DictConfig) -> Study:
    """The stages, in order.

    Raises:
        ConfigError: a value is not what its key expects.
    """
    datasets = tuple(check_datasets(cfg))
    seeds = tuple(check_seeds(cfg))
    options = tuple(check_list(cfg, "train"))
    measured = check_list(cfg, "evaluate")
    # What changes the scores themselves holds wherever they are compared.
    abroad = [item for item in measured if not key_of(item).startswith(AT_HOME)]
    folder = Path(cfg.folder or Path(cfg.paths.outputs) / "study" / "_".join(datasets))
    data = f"paths.data={place_of(Path(cfg.paths.data))}"
    # What is done with the data holds wherever they are used.
    chosen = [item for item in options if key_of(item).startswith("dataset.")]
    raw = {
        name: [] if path is None else [f"dataset.raw={place_of(Path(path))}"]
        for name, path in zip(datasets, (cfg.raw.a, cfg.raw.b), strict=False)
    }
    stages: list[Stage] = []
    prepared: dict[str, Path] = {}
    trainings: dict[tuple[str, int], Stage] = {}
    evaluations: list[Evaluation] = []

    def add(stage: Stage) -> Stage:
        stages.append(stage)
        return stage

    for name in datasets:
        prepared[name] = integrity_file(cfg, name)
        add(
            Stage(
                f"prepare {name}",
                [*program("prepare"), f"dataset={name}", *chosen, *raw[name], data],
                prepared[name],
            )
        )
    for name in datasets:
        for seed in seeds:
            place = folder / "train" / f"{name}-seed{seed}"
            command = [*program("train"), f"dataset={name}", f"seed={seed}", "test=false"]
            stage = Stage(
                f"train on {name}, seed {seed}",
                [*command, *options, *raw[name], data, f"hydra.run.dir={place_of(place)}"],
                place / FINISHED,
                place,
                (f"prepare {name}",),
            )
            if stage.begun:
                # With the whole recipe, which is refused if it is another one.
                resumed = [*command, *options, *raw[name], data, f"resume={place_of(place)}"]
                stage = Stage(stage.name, resumed, stage.done_by, place, stage.needs)
            trainings[name, seed] = add(stage)
    for name, seed in trainings:
        checkpoint = trainings[name, seed].done_by.parent / BEST
        for other in datasets:
            place = folder / "evaluate" / f"{name}-seed{seed}-on-{other}"
            stage = Stage(
                f"measure {name}, seed {seed}, on {other}",
                [
                    *program("evaluate"),
                    f"checkpoint={place_of(checkpoint)}",
                    # A dataset that is named would lose the options that it was trained with.
                    *([] if other == name else [f"dataset={other}", *chosen]),
                    *(measured if other == name else abroad),
                    data,
                    f"hydra.run.dir={place_of(place)}",
                ],
                place / FINISHED,
                place,
                (trainings[name, seed].name, f"prepare {other}"),
                checkpoint,
            )
            evaluations.append(Evaluation(name, seed, other, add(stage)))
    return Study(folder, datasets, seeds, options, tuple(measured), stages, trainings, evaluations)


def program(command: str) -> list[str]:
    """What Python runs for a command, with the folder of the user's own options."""
    own = [f"--config-dir={folder}" for folder in own_folders()[:1]]
    return ["-m", "fer", command, *own]


def place_of(path: Path) -> str:
    """A path for a command: relative where it lies below the current folder."""
    here = Path.cwd()
    absolute = path.absolute()
    return quote(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


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
    """Seeds of the trainings.

    Raises:
        ConfigError: they are not different whole numbers from 0.
    """
    seeds = OmegaConf.to_container(cfg.seeds) if OmegaConf.is_list(cfg.seeds) else None
    accept = SEED[1]
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(map(accept, seeds))
        or len(set(seeds)) != len(seeds)
    ):
        raise ConfigError(
            f"seeds: expected a list of different whole numbers from 0, found {cfg.seeds}. "
            "Set it: 'seeds=[0,1,2]'"
        )
    return seeds


def check_list(cfg: DictConfig, key: str) -> list[str]:
    """Options for ``train.py`` or ``evaluate.py``.

    Raises:
        ConfigError: they are no list of ``key=value``, or name what the study sets itself.
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
        if name in OWN or name.startswith(("hydra.", "paths.", "dataset.raw", "dataset.folder")):
            raise ConfigError(
                f"{key}: expected options of the recipe, found {item}, which the study sets "
                "itself. See its own options: python -m fer study --help"
            )
    return items


def integrity_file(cfg: DictConfig, name: str) -> Path:
    """Where the integrity report of a dataset is, or will be when it is prepared."""
    dataset = compose(
        "train", [f"dataset={name}", f"paths.data={quote(Path(cfg.paths.data).absolute())}"]
    )
    folder = Path(dataset.dataset.folder)
    # That of a folder that was prepared elsewhere is kept beside it.
    adopted = sorted(folder.glob(f"{CACHE}/adopted-*/integrity.json"))
    own = folder / "integrity.json"
    return adopted[0] if adopted and not own.is_file() else own


def check_same(study: Study) -> None:
    """Refuse a folder whose runs are of another recipe or of other data.

    Raises:
        ConfigError: a finished run was made with other options, or on another copy.
    """
    prints = {}
    for name, stage in zip(study.datasets, study.stages, strict=False):
        if stage.done:
            prints[name] = read_json(stage.done_by, REPORTED)["fingerprint"]
    runs = [(stage, name, seed) for (name, seed), stage in study.trainings.items()]
    for stage, name, seed in runs:
        if not stage.done:
            continue
        assert stage.folder is not None
        saved = read_training(stage.folder)
        wanted = compose("train", [f"dataset={name}", f"seed={seed}", "test=false", *study.options])
        for key, value in leaves(OmegaConf.to_container(wanted, resolve=True)):
            if key.startswith(PLACES):
                continue
            found = look_up(saved["config"], key)
            if found is MISSING:  # an option that was not there yet
                continue
            if key.endswith("_target_"):  # a class may have moved since; its name stays
                value, found = (str(name).rpartition(".")[2] for name in (value, found))
            if found != value:
                raise ConfigError(
                    f"{stage.folder}: expected a training with {key}={value}, found one with "
                    f"{key}={found}. Choose another folder for this study: folder=PATH"
                )
    measured = [(one.stage, one.measured_on) for one in study.evaluations]
    for stage, name in [*((stage, name) for stage, name, _ in runs), *measured]:
        if not stage.done or name not in prints:
            continue
        assert stage.folder is not None
        found = read_json(stage.folder / "run.json", RUN)["dataset"]["fingerprint"]
        if found != prints[name]:
            raise ConfigError(
                f"{stage.folder}: expected a run on the copy of {name} that is prepared now "
                f"(fingerprint {prints[name][:16]}), found one on another ({found[:16]}). Choose "
                "another folder for this study: folder=PATH"
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
    """The command line with ``train.KEY=VALUE`` and ``evaluate.KEY=VALUE`` put into their lists.

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
    """A text as Hydra's command line takes it, whatever is in it.

    >>> print(as_text("model.widths=[4,8]"), as_text("a='b'"))
    'model.widths=[4,8]' 'a=\\'b\\''
    """
    escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'"
