"""The stages of a study or an audit: commands, and which of them are done, and of what.

What is complete is not done again; what was cut off goes on; what is another's is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer.core.commands import quoted_if_needed
from fer.core.composition import compose, own_folders
from fer.core.errors import ConfigError, DataError
from fer.core.files import read_json, refuse_links, sha256_of_file
from fer.data.audit.integrity import Integrity
from fer.data.prepared import REPORTED
from fer.runs.overrides import INERT, deciding, plain, read_overrides, unlike
from fer.runs.records import STATISTICS, read_evaluation, read_run, read_training
from fer.runs.state import BEST, FINISHED, State, state_of

REPORT = "integrity.json"
"""A prepared dataset's own report, in its folder."""


@dataclass(frozen=True)
class Stage:
    """One command."""

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


# --- whose runs they are -----------------------------------------------------------------------


def refuse_others(folder: Path, record: str, what: str) -> None:
    """Refuse a folder with the page of something else in it, or with links that lead out of it.

    Args:
        folder: of a study or an audit.
        record: the file that stands beside the page of one.
        what: which of them it is, in words.

    Raises:
        ConfigError: the page is of something else.
        DataError: a link leads out of the folder.
    """
    refuse_links(folder)
    if (folder / FINISHED).is_file() and not (folder / record).is_file():
        raise ConfigError(
            f"{folder}: expected the folder of {what}, or a new one, found the page of something "
            "else in it. Choose another folder: folder=PATH"
        )


def check_runs(stages: Sequence[Stage], prints: Mapping[str, str] | None = None) -> None:
    """Refuse runs that their stages' commands would not make again, or cannot go on with.

    Args:
        stages: those that are not begun pass.
        prints: the fingerprint of each dataset; None for those that the stages prepare.

    Raises:
        ConfigError: a run was made or begun with other options, or made on another copy.
    """
    if prints is None:
        prepared = [one for one in stages if isinstance(one, Preparation) and one.done]
        prints = {one.dataset: one.report()["fingerprint"] for one in prepared}
    for stage in stages:
        if isinstance(stage, Preparation):
            continue
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
