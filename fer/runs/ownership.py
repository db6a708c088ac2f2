"""Run folders: each belongs to one process, and a finished run is not written over.

A folder that a command names itself is claimed by making it: of two commands that begin in the same
second, the second takes another name. A folder that the user names is refused if it holds a run.
The process that works in a folder holds its lock, which the system releases when it ends, however
it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from fer.core.commands import typed
from fer.core.errors import ConfigError
from fer.runs.state import JOBS, State, state_of

LOCK = ".lock"
WRITTEN = ("metrics.json", "run.json", "history.csv", "figures", "checkpoints", "predictions.csv")
"""Names that a run writes, in a folder that Hydra has marked with ``.hydra``."""
HELD: dict[Path, FileLock] = {}
"""Locks of this process, by folder."""
RETRIES = 10
"""Times that a parent is made again."""
KEPT: set[Path] = set()
"""Folders in which a run has begun: see :func:`keep`."""


class Ownership(Callback):
    """Claims the folder of a run or a sweep before Hydra writes into it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim ``hydra.run.dir``, or end the program with a message."""
        claim(config, "hydra.run.dir", config.get("resume"))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim ``hydra.sweep.dir``, or end the program with a message."""
        claim(config, "hydra.sweep.dir", config.get("resume"))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Release the folder of a sweep's job: a process may run hundreds of them."""
        if config.hydra.mode == RunMode.MULTIRUN:
            lock = HELD.pop(place_of(Path(config.hydra.runtime.output_dir)), None)
            if lock is not None:
                lock.release()


def claim(config: DictConfig, key: str, resume: str | None) -> None:
    """Make the folder of ``key`` this process's own, and write its name into ``config``.

    Ends the program where that cannot be: to Hydra a callback's exceptions are warnings.
    """
    HydraConfig.instance().set_config(config)  # the folder's name may ask it for the dataset
    try:
        folder = place_of(Path(OmegaConf.select(config, key)))
    except OmegaConfBaseException as error:
        sys.exit(f"Error: {key}: expected a folder, found a value that cannot be resolved: {error}")
    named = any(item.startswith(f"{key}=") for item in config.hydra.overrides.hydra)
    above = [parent for parent in folder.parents if not parent.exists()]
    try:
        if named:
            if resume in (None, "auto"):
                refuse_a_run(folder, key)
            is_new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder, is_new = make_new(folder), True
        if is_new:
            log = f"{config.hydra.job.name}.log"
            atexit.register(remove_unused, folder, log, above)
        hold(folder)
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        sys.exit(
            f"Error: {key}: expected a folder that can be made, found: {error}. Choose another: "
            f"{key}=FOLDER"
        )
    if not named:
        with read_write(config.hydra):
            OmegaConf.update(config, key, str(folder))


def make_new(folder: Path) -> Path:
    """Make a folder under this name, or the next that is free."""
    numbered = (folder.with_name(f"{folder.name}_{number}") for number in itertools.count(2))
    gone = 0
    place = folder
    while True:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.mkdir()
        except FileExistsError:
            place = next(numbered)
        except FileNotFoundError:  # another process has removed the parent, which it did not use
            gone += 1
            if gone == RETRIES:
                raise
        else:
            return place


def refuse_a_run(folder: Path, key: str) -> None:
    """Refuse to write over a run or a sweep."""
    state, advice = state_of(folder), f", or go on with it: {typed('resume', folder)}"
    if (folder / JOBS).is_file():  # it has a page even if some of its jobs failed
        found = "a sweep"
    elif state is State.FINISHED:
        found, advice = "a finished run", ""
    elif state is State.UNFINISHED:
        found = "a training that was cut off"
    elif not (folder / ".hydra").is_dir() and any((folder / name).exists() for name in WRITTEN):
        found, advice = "files of another origin that a run would replace", ""
    else:
        return
    raise ConfigError(
        f"{key}: expected a folder without a run, found {found}: {folder}. Choose another folder"
        f"{advice}."
    )


def place_of(folder: Path) -> Path:
    """The one name of a folder, as Hydra has it: absolute, and without the ``..`` of an option."""
    return Path(os.path.abspath(folder))  # noqa: PTH100  (resolve() would follow links)


def hold(folder: Path) -> None:
    """Lock a folder for as long as this process lives.

    Raises:
        ConfigError: another process has it.
    """
    place = place_of(folder)
    if place in HELD:
        return
    lock = FileLock(place / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"{folder}: expected a folder in which nobody works, found another process at work. "
            "Wait for it, or choose another folder."
        ) from error
    HELD[place] = lock


def keep(folder: Path) -> None:
    """Leave a folder where it is when the process ends, even if nothing came of the run."""
    KEPT.add(place_of(folder))


def remove_unused(folder: Path, log: str, above: Sequence[Path]) -> None:
    """Remove a folder that this process has made for a run that failed before it began.

    It holds no more than its lock, its log and Hydra's copy of the configuration. What else is in
    it, it is left as it is.

    Args:
        folder: of the run.
        log: name of the log in it.
        above: folders around it that this process has made as well, the nearest first.
    """
    if folder in KEPT or folder not in HELD or not folder.is_dir():
        return
    copies = [folder / ".hydra" / f"{name}.yaml" for name in ("config", "hydra", "overrides")]
    own = {folder / LOCK, folder / log, folder / ".hydra", *copies}
    if not set(folder.rglob("*")) <= own:
        return
    logging.shutdown()  # closes the log, which Windows would not remove otherwise
    HELD[folder].release()
    with contextlib.suppress(OSError):
        for file in (folder / LOCK, folder / log, *copies):
            file.unlink(missing_ok=True)
        if (folder / ".hydra").is_dir():
            (folder / ".hydra").rmdir()
        for place in (folder, *above):
            place.rmdir()
