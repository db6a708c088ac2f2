"""From the command line to a task: compose a configuration, run, explain what went wrong.

Nothing here imports torch: help, ``--cfg`` and mistyped options are answered at once.
"""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import os
import pydoc
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fer.core.command_line import find_mistakes, help_text, refuse_odd_choices
from fer.core.commands import typed
from fer.core.composition import config_folder, split_flags
from fer.core.errors import PIPE_CLOSED, ConfigError, FerError
from fer.core.processes import is_output_closed

log = logging.getLogger(__name__)

FAILED = "failed.json"
"""Left behind in the folder of a sweep's job that failed."""
LAST = "checkpoints/last.ckpt"
"""The checkpoint that a training resumes from."""

CANNOT_WRITE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    errno.ENAMETOOLONG,
)
"""A full disk, an exceeded quota or limit, a lack of permission, or too long a name."""

TERMINATED, INTERRUPTED = 143, 130
"""Exit codes after SIGTERM and Ctrl-C: 128 plus the signal's number."""

LIFELINE = "FER_LIFELINE"
"""The file descriptor of a pipe whose other end a study holds: it closes when the study ends."""

TRACEBACK = "HYDRA_FULL_ERROR"
"""The environment variable that brings tracebacks back, if it is 1."""

Task = Callable[[DictConfig, Path], object]


class CommandError(CompactHydraException):
    """An error that is printed as its message alone, without a traceback."""


def run(
    task: Task, config_name: str, expand: Callable[[Sequence[str]], list[str]] | None = None
) -> None:
    """Compose ``config_name`` with the command line's overrides and call ``task``.

    ``task`` gets the configuration, without Hydra's own part, and the run folder. Its
    :class:`~fer.core.errors.FerError` ends the program with a non-zero exit code and its message.
    ``expand`` may replace the command line's arguments before anything is composed.
    """
    # Importing creates half a million objects that stay alive. Collecting garbage after every 700
    # of them would take a seventh of the import time.
    gc.set_threshold(10_000)
    if expand is not None:
        try:
            sys.argv[1:] = expand(sys.argv[1:])
        except (FerError, OSError) as error:
            sys.exit(f"Error: {error}")
    if not os.environ.get("FER_DATA", "data"):
        del os.environ["FER_DATA"]  # set but empty does not mean the root of the file system
    refuse_odd_choices(sys.argv[1:])
    if split_flags(sys.argv[1:])[0].help:
        try:
            print(help_text(config_name, sys.argv[1:]))
        except (HydraException, OmegaConfBaseException, YAMLError, FerError) as error:
            # of a file of the user's
            sys.exit(f"Error: {in_full(error)}")
        return
    end_on_sigterm()
    end_with_study()
    before = os.environ.get(TRACEBACK)
    os.environ[TRACEBACK] = "1"  # Hydra raises an error then, and leaves the words to us
    job = Job(task, before)
    main = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
    try:
        main(job)()
    except BaseException as error:
        code = code_of_signal(error)
        if code is not None:
            raise SystemExit(code) from error
        if before == "1" or not isinstance(error, Exception):
            raise
        if isinstance(error, BrokenPipeError) and is_output_closed():
            raise
        sys.exit(explain_error(error, config_name, job.started))
    finally:
        restore(before)


class Job:
    """A task as Hydra calls it, once or for each job of a sweep.

    Args:
        task: the task.
        before: :data:`TRACEBACK` as the user has it, which the job and what it starts see.
    """

    def __init__(self, task: Task, before: str | None) -> None:
        self.task, self.before = task, before
        self.started = False

    def __call__(self, cfg: DictConfig) -> object:
        """Call the task."""
        self.started = True
        one = HydraConfig.get().mode != RunMode.MULTIRUN
        try:
            restore(self.before)
            return call(self.task, cfg) if one else call_recorded(self.task, cfg)
        except CommandError as error:
            if one and self.before != "1":
                sys.exit(str(error))  # Hydra would say which overrides there were
            raise
        finally:
            os.environ[TRACEBACK] = "1"


def restore(before: str | None) -> None:
    """Put :data:`TRACEBACK` back to what it was."""
    if before is None:
        os.environ.pop(TRACEBACK, None)
    else:
        os.environ[TRACEBACK] = before


def explain_error(error: Exception, config_name: str, started: bool) -> int | str:
    """What to end the program with: a message, or an exit code after a traceback."""
    causes = (one for one in chain_of(error) if not isinstance(one, CommandError | FerError))
    if not started and isinstance(next(causes, None), HydraException):  # it does not compose
        mistakes = find_mistakes(config_name, sys.argv[1:])
        if mistakes:
            return "\n".join(f"Error: {line}" for line in mistakes)
    if isinstance(error, CommandError):
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return f"Error: {in_full(error)}"
    traceback.print_exception(error)
    return 1


def in_full(error: BaseException) -> str:
    """An error's message, and that of its cause, which often names the place."""
    cause = error.__cause__
    return str(error) if cause is None or str(cause) in str(error) else f"{error}\n{cause}"


class Terminated(SystemExit):
    """SIGTERM was received."""


def end_on_sigterm() -> None:
    """Let SIGTERM unwind the program as Ctrl-C does, so that it cleans up and says how to go on.

    Without a handler the process would vanish without a word. Lightning's own handler ends a
    training with exit code 0, as if it had finished.
    """

    def stop(*_: object) -> None:
        raise Terminated(TERMINATED)

    signal.signal(signal.SIGTERM, stop)


def code_of_signal(error: BaseException) -> int | None:
    """The exit code of the SIGTERM or Ctrl-C that an error goes back to; None if none does.

    What is interrupted may fail in turn while it cleans up: OmegaConf, for one, raises an
    AttributeError if it is interrupted where it restores the flags of a node.
    """
    for one in chain_of(error):
        if isinstance(one, Terminated):
            return TERMINATED
        if isinstance(one, KeyboardInterrupt):
            return INTERRUPTED
    return None


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """An error and what it goes back to, each once: an error may be its own cause's cause."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__context__ if at.__cause__ is None else at.__cause__


def end_with_study() -> None:
    """Treat the end of the study that started this command as a SIGTERM."""
    line = os.environ.pop(LIFELINE, None)
    if line is None:
        return

    def watch() -> None:
        os.read(int(line), 1)  # nothing is ever written: returns when the other end closes
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def end_with_sweep() -> None:
    """Exit when the sweep that started this worker is gone, lest its successor run the same job."""
    if multiprocessing.parent_process() is None:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(TERMINATED)  # a joblib worker would wait for its next job forever

    threading.Thread(target=watch, daemon=True).start()


def how_to_go_on(folder: Path) -> str:
    """Say how to continue a program that was stopped."""
    own = HydraConfig.get()
    if own.job.name in ("study", "audit"):
        return "The same command goes on with it."
    if own.mode == RunMode.MULTIRUN and own.job.name == "train":
        folder = Path(own.sweep.dir)
    elif not (folder / LAST).is_file():
        return "There is nothing to go on with: give the command again."
    return f"Go on with it: python train.py {typed('resume', folder)}"


def call(task: Task, cfg: DictConfig) -> object:
    """Call a task; turn errors that a user can act on into one message."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        if HydraConfig.get().job.chdir:
            raise ConfigError(
                "hydra.job.chdir: expected false, found true: paths such as dataset.raw would mean "
                "something else in the run folder. Leave it out; hydra.run.dir chooses the folder."
            )
        return task(cfg, folder)
    except BaseException as error:
        code = code_of_signal(error)
        if code is not None:
            name = "SIGTERM" if code == TERMINATED else "Ctrl-C"
            log.error("Ended by %s. %s", name, how_to_go_on(folder))
            raise SystemExit(code) from error
        if isinstance(error, BrokenPipeError) and is_output_closed():
            raise SystemExit(PIPE_CLOSED) from error
        message = None
        if isinstance(error, FerError | OmegaConfBaseException):
            message = f"Error: {error}"
        elif isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            message = (
                f"Error: {error.filename or folder}: expected to read or write there, found: "
                f"{error.strerror}. Free some space, correct the permissions or shorten the path. "
                f"{how_to_go_on(folder)}"
            )
        log_to_file(message or traceback.format_exc())
        if message is None:
            raise
        raise CommandError(message) from error


def log_to_file(text: str, level: int = logging.ERROR) -> None:
    """Write into the run's log what the terminal does not need, or gets in another way."""
    record = log.makeRecord(log.name, level, __file__, 0, text, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def call_recorded(task: Task, cfg: DictConfig) -> object:
    """Call a job of a sweep; record a failure in its folder and raise it again.

    Hydra then continues with the next job.
    """
    end_with_sweep()
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / FAILED).unlink(missing_ok=True)
    try:
        return call(task, cfg)
    except Exception as error:
        from fer.core.files import write_json

        text = str(error).removeprefix("Error: ")
        known = isinstance(error, CommandError)
        record = {"error": type(error).__name__, "message": text}
        if not known:
            record["traceback"] = traceback.format_exc()
        write_json(folder / FAILED, record)
        log.error("Job %s failed: %s", HydraConfig.get().job.num, text, exc_info=not known)
        raise


def instantiate(node: DictConfig, **values: Any) -> Any:
    """Call Hydra's ``instantiate``; report failures in one message, not a chain of tracebacks.

    Raises:
        ConfigError: the target does not exist, or rejects the node's values.
    """
    place = node._get_full_key("") or "configuration"
    if "_target_" in node:
        locate(place, node._target_)
    try:
        return hydra.utils.instantiate(node, **values, _convert_="all")
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
            if isinstance(cause, FerError):
                raise cause from error
        if isinstance(cause, ImportError):
            # Lightning names the missing requirement only in its message.
            named = re.search(r"Requirement '([\w.-]+)", str(cause))
            package = named[1] if named else cause.name or str(cause)
            raise ConfigError(
                f"{place}: expected the package {package}, which {node.get('_target_')} needs, "
                f"found none. Install it: pip install {package}"
            ) from error
        raise ConfigError(
            f"{place}: {node.get('_target_')} does not accept these values: {cause}. Correct them "
            "in conf/ or on the command line."
        ) from error


def locate(key: str, target: str | None) -> Callable[..., Any]:
    """Import the class or function that a dotted name refers to, at ``key`` of the configuration.

    Raises:
        ConfigError: nothing of that name can be called.
    """
    try:
        found: object = pydoc.locate(str(target))
    except pydoc.ErrorDuringImport as error:
        raise ConfigError(
            f"{key}: expected a module that can be imported for {target!r}, found: {error.value!r}."
        ) from error
    if not callable(found):
        raise ConfigError(
            f"{key}: expected the dotted name of a class or function, found {target!r}, which is "
            f"{'none' if found is None else type(found).__name__}. Its module must be on the path: "
            "PYTHONPATH=FOLDER"
        )
    return found
