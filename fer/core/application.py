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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.core.commands import typed
from fer.core.errors import ConfigError, FerError

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

BASE = "base"
"""The file of a group that its options build on; not an option itself."""

TERMINATED, INTERRUPTED = 143, 130
"""Exit codes after SIGTERM and Ctrl-C: 128 plus the signal's number."""

LIFELINE = "FER_LIFELINE"
"""The file descriptor of a pipe whose other end a study holds: it closes when the study ends."""

LONGEST_KEY = 100
"""In characters. Hydra passes keys on to the file system, which refuses long names."""

Task = Callable[[DictConfig, Path], object]


class CommandError(CompactHydraException):
    """An error that Hydra prints as its message alone, without a traceback."""


def config_folder() -> Path:
    """The configuration folder, in the source tree or inside the installed package."""
    package = Path(__file__).resolve().parent.parent
    source = package.parent / "conf"
    return source if (source / "train.yaml").is_file() else package / "conf"


def own_folders() -> list[Path]:
    """The user's own configuration folders, from ``--config-dir`` and ``hydra.searchpath``."""
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        return [
            Path(source.path)
            for source in sources
            if source.schema == "file" and source.provider != "main"
        ]
    flags, _ = split_flags(sys.argv[1:])
    folder = flags.config_dir
    return [] if folder is None else [Path(folder).absolute()]


def split_flags(arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Split a command line into Hydra's flags, as its parser returns them, and overrides."""
    flags, _ = get_args_parser().parse_known_args(list(arguments))
    return flags, list(flags.overrides)


def options_of(group: str) -> list[str]:
    """The choices of a group, including those in the user's own folders."""
    folders = [config_folder(), *own_folders()]
    names = {path.stem for folder in folders for path in folder.glob(f"{group}/*.yaml")}
    return sorted(names - {BASE})


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
    end_on_sigterm()
    end_with_study()
    started = False

    def job(cfg: DictConfig) -> object:
        nonlocal started
        started = True
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return call_recorded(task, cfg)
        return call(task, cfg)

    main = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
    try:
        main(job)()
    except SystemExit as stop:
        if stop.code and not started:
            for line in suggest(config_name, sys.argv[1:]):
                print(line, file=sys.stderr)
        raise


def is_group(key: str) -> bool:
    """Tell whether ``key`` names a group of options rather than a value."""
    # Listed instead of looked up: a key may be longer than the file system allows.
    paths = (path for folder in [config_folder(), *own_folders()] for path in folder.glob("*"))
    return any(path.name == key and path.is_dir() for path in paths)


def refuse_odd_choices(arguments: Sequence[str]) -> None:
    """End the program at ``model=`` or ``model=1``, which Hydra answers with a traceback."""
    parser = OverridesParser.create()
    for item in arguments:
        try:
            override = parser.parse_override(item)
            value = override.value()
        except HydraException:
            continue  # not an override, or one that Hydra itself rejects
        group = override.key_or_group
        if not group or len(group) > LONGEST_KEY:
            found = f"a key of {len(group)} characters" if group else "no key"
            sys.exit(f"Error: {item}: expected key=value, found {found}. --help lists the keys.")
        if override.is_delete() and value in ("", None):
            continue
        names = value if isinstance(value, list) else [value]
        named = override.is_sweep_override() or all(isinstance(name, str) for name in names)
        # Hydra's own groups, such as hydra/launcher, have a slash in their names.
        if ("/" in group or is_group(group)) and (value == "" or not named):
            wanted = "a name" if "/" in group else f"one of {', '.join(options_of(group))}"
            sys.exit(
                f"Error: {item}: expected {wanted}, found {value!r}. Leave it out for the default."
            )


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
    except Terminated:
        log.error("Ended by SIGTERM. %s", how_to_go_on(folder))
        raise
    except KeyboardInterrupt as error:
        log.error("Ended by Ctrl-C. %s", how_to_go_on(folder))
        raise SystemExit(INTERRUPTED) from error
    except (FerError, OmegaConfBaseException) as error:
        raise CommandError(f"Error: {error}") from error
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise CommandError(
            f"Error: {error.filename or folder}: expected to read or write there, found: "
            f"{error.strerror}. Free some space, correct the permissions or shorten the path. "
            f"{how_to_go_on(folder)}"
        ) from error


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


def compose(
    config_name: str, overrides: Sequence[str], *, return_hydra_config: bool = False
) -> DictConfig:
    """Compose another configuration, from the same folders as the running job's.

    Raises:
        HydraException: the overrides do not fit.
    """
    places = ",".join(f"'file://{folder}'" for folder in own_folders())
    found = [f"hydra.searchpath=[{places}]"] if places else []
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()  # Hydra allows only one instance
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            return hydra.compose(
                config_name,
                overrides=[*overrides, *found],
                return_hydra_config=return_hydra_config,
            )
    except ValueError as error:  # raised for saliency=null
        raise ConfigError(
            f"{config_name}: expected options that fit, found {' '.join(overrides)}: {error}. "
            "Leave out a choice for its default, or write ~KEY for none."
        ) from error
    finally:
        GlobalHydra.instance().hydra = running


def suggest(config_name: str, arguments: Sequence[str]) -> list[str]:
    """Explain each override that cannot be parsed or names an unknown key."""
    keys, lines = [], []
    parser = OverridesParser.create()
    for item in split_flags(arguments)[1]:
        try:
            parser.parse_override(item)
        except HydraException:
            lines.append(
                f"{item}: expected key=value, found something else. Quote a value with special "
                "characters for Hydra as well as for the shell: 'key=\"value\"'."
            )
            continue
        match = re.match(r"([A-Za-z_][\w./@-]*)=", item)
        if match and not match[1].startswith("hydra"):
            keys.append((match[1], item))
    choices = [item for key, item in keys if is_group(key)]
    try:
        composed = compose(config_name, choices)
    except HydraException:  # an unknown choice: Hydra has already listed the valid ones
        composed = compose(config_name, [])
    content = OmegaConf.to_container(composed, resolve=False)
    lines += [explain(key, content, config_name) for key, item in keys if item not in choices]
    return list(filter(None, lines))


def explain(key: str, node: Any, config_name: str) -> str:
    """A sentence on a key that a configuration does not have; empty if it has it."""
    path = ""
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            break
        node, path = node[part], f"{path}.{part}".lstrip(".")
    else:
        return ""
    known = {str(name) for name in node if name != "_target_"} if isinstance(node, dict) else set()
    if not path:  # and the groups that are not chosen
        defaults = OmegaConf.load(config_folder() / f"{config_name}.yaml").defaults
        groups = {str(group) for item in defaults if OmegaConf.is_dict(item) for group in item}
        if part in groups:
            return (
                f"{key}: expected a choice of {part} first, found none. Add {part}=NAME, one of: "
                f"{', '.join(options_of(part))}."
            )
        known |= groups
    place = f"below {path}" if path else "at the top"
    return (
        f"{key}: expected a known option, found {part!r}. Valid {place}: "
        f"{', '.join(sorted(known)) or 'none'}."
    )
