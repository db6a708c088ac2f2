"""Who works in a run's folder: each folder belongs to one process, and a finished run to nobody.

A folder that a command chooses by itself is claimed by making it: where two commands begin in the
same second, the second takes another name. A folder that the user names is refused if it holds a
run. Whoever works in a folder holds its lock, which the system releases when the process ends,
however it ends.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
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
"""What a run writes, into a folder that Hydra has made its own by ``.hydra``."""
HELD: dict[Path, FileLock] = {}
"""Locks of this process, by folder; kept until it ends."""


class Ownership(Callback):
    """Claims the folder of a run or of a sweep before Hydra writes into it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim ``hydra.run.dir``, or end the program with a message."""
        claim(config, "hydra.run.dir", config.get("resume"))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim ``hydra.sweep.dir``, or end the program with a message."""
        claim(config, "hydra.sweep.dir", config.get("resume"))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Let go of the folder of a sweep's job: a process may run hundreds of them."""
        if config.hydra.mode == RunMode.MULTIRUN:
            lock = HELD.pop(Path(config.hydra.runtime.output_dir).absolute(), None)
            if lock is not None:
                lock.release()


def claim(config: DictConfig, key: str, resume: str | None) -> None:
    """Make the folder of ``key`` this process's own; another name is written into ``config``.

    A callback's exceptions are warnings to Hydra: what cannot be ends the program here.
    """
    HydraConfig.instance().set_config(config)  # the folder's name may ask it for the dataset
    try:
        folder = Path(OmegaConf.select(config, key))
    except OmegaConfBaseException as error:
        sys.exit(f"Error: {key}: expected a folder, found a value that cannot be resolved: {error}")
    named = any(item.startswith(f"{key}=") for item in config.hydra.overrides.hydra)
    try:
        if named:
            if resume in (None, "auto"):
                refuse_a_run(folder, key)
            if not folder.exists():
                atexit.register(remove_empty, folder.absolute())
            folder.mkdir(parents=True, exist_ok=True)
            hold(folder)
            return
        folder = make_new(folder)
        atexit.register(remove_empty, folder.absolute())
        hold(folder)
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        sys.exit(
            f"Error: {key}: expected a folder that can be made, found: {error}. Choose another: "
            f"{key}=FOLDER"
        )
    with read_write(config.hydra):
        OmegaConf.update(config, key, str(folder))


def make_new(folder: Path) -> Path:
    """Make a folder that was not there, under this name or the next that is free."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(2):
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            stem = folder.name if number == 2 else folder.name.rpartition("_")[0]
            folder = folder.with_name(f"{stem}_{number}")
    raise AssertionError("counting has no end")


def refuse_a_run(folder: Path, key: str) -> None:
    """Refuse to write over a run or a sweep.

    Raises:
        ConfigError: the folder holds one.
    """
    state = state_of(folder)
    if state is State.FINISHED:
        found, advice = "a finished run", ""
    elif state is State.UNFINISHED:
        found, advice = (
            "a training that was cut off",
            f" or go on with it: {typed('resume', folder)}",
        )
    elif (folder / JOBS).is_file():
        found, advice = "a sweep", f" or go on with it: {typed('resume', folder)}"
    elif not (folder / ".hydra").is_dir() and any((folder / name).exists() for name in WRITTEN):
        found, advice = "files of another origin that a run would replace", ""
    else:
        return
    raise ConfigError(
        f"{key}: expected a folder without a run, found {found}: {folder}. Choose another folder"
        f"{',' if advice else ''}{advice}."
    )


def hold(folder: Path) -> None:
    """Take the lock of a folder, for as long as this process lives.

    Raises:
        ConfigError: another process has it.
    """
    place = folder.absolute()
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


def remove_empty(folder: Path) -> None:
    """Remove a folder that this process has made and nothing was written into.

    A command that ends before it begins leaves nothing behind.
    """
    if folder not in HELD or not folder.is_dir() or os.listdir(folder) != [LOCK]:  # noqa: PTH208
        return
    HELD[folder].release()
    (folder / LOCK).unlink(missing_ok=True)
    folder.rmdir()
