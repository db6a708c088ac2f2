"""Going on with a training that was cut off: ``resume=<run folder>`` or ``resume=auto``.

The run folder remembers its command (``.hydra/overrides.yaml``), and its last checkpoint all that
the training needs. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fer.core.application import compose, is_group, options_of, split_flags
from fer.core.errors import ConfigError
from fer.core.files import read_text, refuse_links
from fer.core.values import fits, is_plain
from fer.runs.state import JOBS, State, state_of

SWEEPS = ("hydra.sweeper.",)
"""How Hydra's own options begin that belong to a sweep's jobs, as ours do."""
PLACES = ("paths.data", "paths.outputs", "dataset.raw", "dataset.folder")
"""Options of ours that say where something is."""
WORDS = ("dataset.synonyms", "dataset.person")
"""Options of ours that are neither a place nor a program, whatever is in them."""
PLACE_LIKE = re.compile(r"dir|folder|path|file|root|ur[il]|storage|host|address|kaggle|^resume$")
"""In the last part of a key that may say where something is written, or fetched from."""
FREE = ("resume=", "trainer.progress_bar=", "hydra.", "optuna.")
"""Overrides that do not change what is trained."""


def expand(arguments: Sequence[str]) -> list[str]:
    """The command line with ``resume`` replaced by the command that it stands for.

    Args:
        arguments: of the program, without its name.

    Returns:
        The same if there is no ``resume``; with ``resume=FOLDER`` the overrides of that run and
        its folder; with ``resume=auto`` the folder of the newest unfinished run of the same
        command, if there is one.

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
    if chosen[-1] == "auto" and any(item in ("-m", "--multirun") for item in flags):
        raise ConfigError(
            "resume: expected the folder of a sweep beside -m, found auto. Pass "
            "resume=outputs/train/multirun/<date>_<time>"
        )
    if chosen[-1] == "auto":
        folder = find_unfinished(others)
        if folder is None:
            return [*flags, *others, "resume=auto"]
        return [
            *flags,
            *others,
            f"hydra.run.dir={quote(folder.absolute())}",
            f"resume={quote(folder.absolute())}",
        ]
    folder = Path(read_value(f"resume={chosen[-1]}"))
    refuse_links(folder)
    sweep = read_sweep(folder)
    if sweep is not None:
        return [*flags, *expand_sweep(folder, sweep, others)]
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
    saved = without_places_of(others, saved)
    changed = changes(others, saved)
    if changed:
        raise ConfigError(
            f"resume: expected the command of {folder} as it was "
            f"({' '.join(saved) or 'no options'}), found {' '.join(changed)} beside it. Leave that "
            "out, or start a new run without resume."
        )
    refuse_code(folder, saved, others)
    return [
        *flags,
        *saved,
        *additions(others),
        f"hydra.run.dir={quote(folder.absolute())}",
        f"resume={quote(folder.absolute())}",
    ]


def expand_sweep(folder: Path, saved: Sequence[str], others: Sequence[str]) -> list[str]:
    """The command of a sweep that goes on.

    Raises:
        ConfigError: the command line asks for something else beside it.
    """
    saved = without_places_of(others, saved)
    changed = changes(others, saved)
    if changed:
        raise ConfigError(
            f"resume: expected the sweep of {folder} as it was ({' '.join(saved)}), found "
            f"{' '.join(changed)} beside it. Leave that out, or start a new sweep."
        )
    refuse_code(folder, saved, others)
    place = quote(folder.absolute())
    return ["-m", *saved, *additions(others), f"hydra.sweep.dir={place}", f"resume={place}"]


def key_of(item: str) -> str:
    """The key of an override.

    >>> key_of("++dataset.raw=a=b")
    'dataset.raw'
    """
    return item.lstrip("+~").partition("=")[0]


def additions(others: Sequence[str]) -> list[str]:
    """What may be said beside ``resume``: what changes no result, and where data is now."""
    return [item for item in others if item.startswith(FREE) or key_of(item) in PLACES]


def changes(others: Sequence[str], saved: Sequence[str]) -> list[str]:
    """What is said beside ``resume`` that the command did not have."""
    return [item for item in others if item not in [*saved, *additions(others)]]


def without_places_of(others: Sequence[str], saved: Sequence[str]) -> list[str]:
    """The command without the places that are named beside ``resume``."""
    given = {key_of(item) for item in others} & set(PLACES)
    return [item for item in saved if key_of(item) not in given]


def refuse_code(folder: Path, saved: Sequence[str], others: Sequence[str]) -> None:
    """Refuse a run folder whose command is more than plain values, unless the user gives it too.

    The folder may be a stranger's: going on with it must not be a way to run his programs here. An
    interpolation reads the environment or assembles what a plain text may not say; Hydra's own
    options set variables, write files and start commands.

    Raises:
        ConfigError: it is.
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
        if item not in others and not (is_plain_override(item) and is_at_home(item))
    ]
    if unseen:
        raise ConfigError(
            f"resume: expected a command of plain values in {folder}, found what could run code of "
            f"its own choice, or write where it wants: {' '.join(unseen)}. If it is yours, repeat "
            "that beside resume."
        )


def read_value(item: str) -> str:
    """The value of an override as Hydra reads it: without the quotes that it may need."""
    try:
        return str(OverridesParser.create().parse_override(item).value())
    except HydraException:  # what Hydra itself will complain about
        return item.partition("=")[2]


def is_at_home(item: str) -> bool:
    """Whether an override names no place to write, or one with prepared data to read there.

    >>> is_at_home("seed=1"), is_at_home("paths.data=/nowhere")
    (True, False)
    """
    key = item.lstrip("+").partition("=")[0]
    if key not in ("paths.data", "dataset.folder"):
        return True
    found = Path(read_value(item))
    return any(found.glob("manifest.csv" if key == "dataset.folder" else "*/manifest.csv"))


def is_plain_override(item: str) -> bool:
    """Whether an override sets plain values, of ours, and names nothing that could run or be
    written, but for :data:`PLACES`.

    >>> is_plain_override("optimizer.lr=1e-3"), is_plain_override("model=shared_cnn_small")
    (True, True)
    >>> is_plain_override("a=${oc.env:HOME}"), is_plain_override("+b={c: {_target_: os.abort}}")
    (False, False)
    """
    try:
        override = OverridesParser.create().parse_override(item)
        swept = override.is_sweep_override() and not override.is_interval_sweep()
        values = list(override.sweep_string_iterator()) if swept else [override.value()]
    except HydraException:
        return False
    key = override.key_or_group
    is_own = key == "hydra" or key.startswith(("hydra.", "hydra/"))
    # Such as n_jobs; a launcher's texts may be commands.
    counts = key.startswith("hydra.launcher.") and all(isinstance(v, int | float) for v in values)
    choice = key in ("hydra/sweeper", "hydra/launcher")
    if is_own and not (key.startswith(SWEEPS) or choice or counts):
        return False
    if key == "" or any(part.startswith("_") for part in re.split(r"[./@]", key)):
        return False
    # What a value says is looked for in its own text: quotes and sweeps leave it as it is.
    if "${" in item or re.search(r"(^|[{,\s'\"])_\w+_?['\"]?\s*:", item):
        return False
    if is_group(key):  # a path would name a file of options, and what that says would run
        names = [n for value in values for n in (value if isinstance(value, list) else [value])]
        return all(name is None or re.fullmatch(r"\w[\w-]*", str(name)) for name in names)
    if not all(override.is_interval_sweep() or is_plain(value) for value in values):
        return False
    if key in (*PLACES, *WORDS):
        return True
    names_a_place = PLACE_LIKE.search(key.rpartition(".")[2]) is not None
    return not any(re.search(r"[/\\]|^[~.]", text) or names_a_place for text in texts_of(values))


def texts_of(value: object) -> Iterator[str]:
    """Every text in plain values, those of keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from texts_of([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


def quote(path: Path | str) -> str:
    """A path as Hydra's command line takes it: in quotes, where it has more than plain letters."""
    text = str(path)
    if re.fullmatch(r"(?!(null|true|false|nan|inf)$)[a-z/._][\w./-]*", text, re.ASCII | re.I):
        return text
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def read_sweep(folder: Path) -> list[str] | None:
    """The command of a sweep, as overrides; None if ``folder`` holds none.

    Raises:
        ConfigError: its record cannot be read.
    """
    path = folder / "multirun.yaml"
    if not path.is_file() or not (folder / JOBS).is_file():
        return None
    try:
        content = yaml.safe_load(read_text(path))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            f"{path}: expected Hydra's record of a sweep, found: {error!r}. Start a new sweep."
        ) from error
    if not fits(content, {"hydra": {"overrides": {"task": [str], "hydra": [str]}}}):
        raise ConfigError(
            f"{path}: expected Hydra's record of a sweep, found something else. Start a new sweep."
        )
    saved = content["hydra"]["overrides"]
    # Where the jobs are stands in their list.
    own = ("hydra.sweep.dir=", "hydra.sweep.subdir=", "hydra.mode=", "resume=", "optuna.")
    return [item for item in (*saved["task"], *saved["hydra"]) if not item.startswith(own)]


def read_overrides(folder: Path) -> list[str] | None:
    """The overrides that a run was started with, None if ``folder`` is no run."""
    path = folder / ".hydra" / "overrides.yaml"
    try:
        items = yaml.safe_load(read_text(path))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    if not fits(items, [str]):
        return None
    return [item for item in items if not item.startswith(FREE)]


def find_unfinished(overrides: Sequence[str]) -> Path | None:
    """The newest run of this command that was cut off, where its runs are put by default.

    Args:
        overrides: of the command, without ``resume``.
    """
    plain = [item for item in overrides if not item.startswith("-")]
    try:
        cfg = compose("train", plain, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)  # the folder's name asks it for the dataset
        runs = Path(cfg.hydra.run.dir).parent
    except (HydraException, OmegaConfBaseException):
        return None  # the program itself explains what is wrong with the overrides
    finally:
        HydraConfig.instance().cfg = None
    if not runs.is_dir():
        return None
    wanted = sorted(item for item in plain if not item.startswith(FREE))
    for folder in sorted(runs.iterdir(), reverse=True):  # named after their start
        saved = read_overrides(folder)
        if saved is not None and sorted(saved) == wanted and state_of(folder) is not State.FINISHED:
            return folder
    return None
