"""Resuming a training or a sweep that was cut off: ``resume=<folder>`` or ``resume=auto``.

The folder remembers its command (``.hydra/overrides.yaml`` or ``multirun.yaml``), and the last
checkpoint all that the training needs. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fer.core.commands import quoted_if_needed
from fer.core.composition import compose, is_group, options_of, split_flags
from fer.core.errors import ConfigError
from fer.core.files import refuse_links
from fer.core.values import fits, is_plain, walk
from fer.runs.overrides import (
    FREE_TO_CHANGE,
    PLACES,
    key_of,
    plain,
    read_overrides,
    read_yaml,
    unlike,
)
from fer.runs.state import JOBS, State, state_of

ANY_TEXT = ("dataset.synonyms", "dataset.person", "dataset.columns")
"""Options that are neither a place nor a program, whatever their text."""
PLACE_LIKE = re.compile(r"dir|folder|path|file|root|ur[il]|storage|host|address|kaggle|^resume$")
"""Found in the last part of a key that may say where to write to, or to fetch from."""


def expand(arguments: Sequence[str]) -> list[str]:
    """Replace ``resume`` on the command line by the command that it stands for.

    With ``resume=FOLDER`` it becomes the overrides of that run or sweep and its folder; with
    ``resume=auto`` the folder of the newest unfinished run of the same command, if there is one.

    Raises:
        ConfigError: there is no such run, it is finished, or its command was another one.
        DataError: a symbolic link leads out of its folder.
    """
    chosen = [item.partition("=")[2] for item in arguments if item.startswith("resume=")]
    if not chosen or chosen[-1] in ("", "null"):
        return list(arguments)
    _, overrides = split_flags(arguments)
    flags = [item for item in arguments if item not in overrides]
    others = [item for item in overrides if not item.startswith("resume=")]
    if chosen[-1] == "auto":
        if any(item in ("-m", "--multirun") for item in flags):
            raise ConfigError(
                "resume: expected the folder of a sweep beside -m, found auto. Pass "
                "resume=outputs/train/multirun/<date>_<time>"
            )
        found = find_unfinished(others)
        return [*flags, *others, *(["resume=auto"] if found is None else _places("run", found))]
    folder = Path(read_value(f"resume={chosen[-1]}"))
    refuse_links(folder)
    kind, saved = "sweep", read_sweep(folder)
    if saved is None:
        kind, saved = "run", read_unfinished(folder)
    named = {key_of(item) for item in others} & set(FREE_TO_CHANGE)
    saved = [item for item in saved if key_of(item) not in named]
    changed = unlike(saved, others)
    added = [item for item in others if item not in (*saved, *changed)]
    if changed:
        raise ConfigError(
            f"resume: expected the command of {folder} as it was "
            f"({' '.join(saved) or 'no options'}), found {' '.join(changed)} beside it. Leave that "
            f"out, or start a new {kind} without resume."
        )
    refuse_code(folder, saved, others)
    return [*flags, *(["-m"] * (kind == "sweep")), *saved, *added, *_places(kind, folder)]


def _places(kind: str, folder: Path) -> list[str]:
    place = quoted_if_needed(folder.absolute())
    return [f"hydra.{kind}.dir={place}", f"resume={place}"]


def refuse_code(folder: Path, saved: Sequence[str], others: Sequence[str]) -> None:
    """Refuse a folder whose command is more than plain values, unless the user gives it too.

    The folder may be a stranger's: resuming it must not run his programs here. An interpolation
    reads the environment or assembles what a plain text may not say; Hydra's own options set
    variables, write files and start commands.
    """
    for item in saved:
        key, _, name = item.partition("=")
        if is_group(key) and re.fullmatch(r"\w[\w-]*", name) and name not in options_of(key):
            raise ConfigError(
                f"resume: expected {item} of {folder} among the options "
                f"({', '.join(options_of(key))}), found none. If it is one of your own, name the "
                "folder of your options beside resume: --config-dir FOLDER"
            )
    unseen = [
        item
        for item in saved
        if item not in others and not (is_plain_override(item) and is_known_place(item))
    ]
    if unseen:
        raise ConfigError(
            f"resume: expected a command of plain values in {folder}, found what could run code of "
            f"its own choice, or write where it wants: {' '.join(unseen)}. If it is yours, repeat "
            "that beside resume."
        )


def read_value(item: str) -> str:
    """The value of an override as Hydra reads it, without quotes."""
    try:
        return str(OverridesParser.create().parse_override(item).value())
    except HydraException:  # what Hydra itself will complain about
        return item.partition("=")[2]


def is_known_place(item: str) -> bool:
    """True if an override names no folder of data, or one with prepared data in it.

    >>> is_known_place("seed=1"), is_known_place("paths.data=/nowhere")
    (True, False)
    """
    key = key_of(item)
    if key not in ("paths.data", "dataset.folder"):
        return True
    found = Path(read_value(item))
    return any(found.glob("manifest.csv" if key == "dataset.folder" else "*/manifest.csv"))


def is_plain_override(item: str) -> bool:
    """True if an override sets plain values of our options.

    Nothing in it can run, and it names no place to write to but those of :data:`PLACES`.

    >>> is_plain_override("optimizer.lr=1e-3"), is_plain_override("model=shared_cnn_small")
    (True, True)
    >>> is_plain_override("a=${oc.env:HOME}"), is_plain_override("+b={c: {_target_: os.abort}}")
    (False, False)
    >>> is_plain_override("logger.csv.save_dir=x"), is_plain_override("seed=/tmp/x")
    (False, False)
    """
    try:
        override = OverridesParser.create().parse_override(item)
        swept = override.is_sweep_override() and not override.is_interval_sweep()
        values = list(override.sweep_string_iterator()) if swept else [override.value()]
    except HydraException:
        return False
    key = override.key_or_group
    is_hydras = key == "hydra" or key.startswith(("hydra.", "hydra/"))
    # Such as n_jobs; a launcher's texts may be commands.
    counts = key.startswith("hydra.launcher.") and all(isinstance(v, int | float) for v in values)
    choice = key in ("hydra/sweeper", "hydra/launcher")
    if is_hydras and not (key.startswith("hydra.sweeper.") or choice or counts):
        return False
    if key == "" or any(part.startswith("_") for part in re.split(r"[./@]", key)):
        return False
    # The text itself is searched: quotes and sweeps leave it as it is.
    if "${" in item or re.search(r"(^|[{,\s'\"])_\w+_?['\"]?\s*:", item):
        return False
    if is_group(key):  # a path would name a file of options, and what that says would run
        names = [n for value in values for n in (value if isinstance(value, list) else [value])]
        return all(name is None or re.fullmatch(r"\w[\w-]*", str(name)) for name in names)
    if not all(override.is_interval_sweep() or is_plain(value) for value in values):
        return False
    if key in (*PLACES, *ANY_TEXT):
        return True
    names_a_place = PLACE_LIKE.search(key.rpartition(".")[2]) is not None
    texts = [part for part, _ in walk(values) if isinstance(part, str)]
    return not any(re.search(r"[/\\]|^[~.]", text) or names_a_place for text in texts)


def read_sweep(folder: Path) -> list[str] | None:
    """The overrides of a sweep; None if ``folder`` holds none."""
    path = folder / "multirun.yaml"
    if not path.is_file() or not (folder / JOBS).is_file():
        return None
    content = read_yaml(path)
    if not fits(content, {"hydra": {"overrides": {"task": [str], "hydra": [str]}}}):
        raise ConfigError(
            f"{path}: expected Hydra's record of a sweep, found something else. Start a new sweep."
        )
    saved = content["hydra"]["overrides"]
    # The list of jobs has their folders.
    own = ("hydra.sweep.dir=", "hydra.sweep.subdir=", "hydra.mode=", "resume=", "optuna.")
    return [item for item in (*saved["task"], *saved["hydra"]) if not item.startswith(own)]


def read_unfinished(folder: Path) -> list[str]:
    """The overrides of a run that was cut off."""
    saved = read_overrides(folder)
    if saved is None:
        raise ConfigError(
            f"resume: expected the folder of a run, with .hydra/overrides.yaml in it, found none "
            f"at {folder.absolute()}. Pass outputs/train/<dataset>/<date>_<time>, or auto."
        )
    if state_of(folder) is State.FINISHED:
        raise ConfigError(
            f"resume: expected a run that was cut off, found a finished one: {folder.absolute()}. "
            "Start a new one without resume."
        )
    return saved


def find_unfinished(overrides: Sequence[str]) -> Path | None:
    """The newest run of this command that was cut off, where its runs are put by default."""
    options = [item for item in overrides if not item.startswith("-")]
    try:
        cfg = compose("train", options, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)  # the folder's name asks it for the dataset
        runs = Path(cfg.hydra.run.dir).parent
    except (HydraException, OmegaConfBaseException):
        return None  # the program itself explains what is wrong with the overrides
    finally:
        HydraConfig.instance().cfg = None
    folders = sorted(runs.iterdir(), reverse=True) if runs.is_dir() else []
    for folder in folders:  # named after their start
        saved = read_overrides(folder)
        same = saved is not None and sorted(saved) == sorted(plain(options))
        if same and state_of(folder) is not State.FINISHED:
            return folder
    return None
