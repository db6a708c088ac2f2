"""Values of a configuration, checked before any data is read or anything is trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from fer.core.composition import NAME_PATTERN, config_folder
from fer.core.errors import ConfigError

Check = tuple[str, Callable[[Any], bool]]
"""A description of what is expected, and a function that accepts it."""


def whole(least: int, most: int | None = None) -> Check:
    """Accept whole numbers in a range."""
    words = f"a whole number from {least:,}" + (f" to {most:,}" if most is not None else "")

    def check(value: Any) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value >= least
            and (most is None or value <= most)
        )

    return words, check


def number(words: str, accept: Callable[[float], bool]) -> Check:
    """Accept numbers that satisfy ``accept``, described by ``words``."""

    def check(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and accept(value)

    return words, check


def or_null(check: Check, meaning: str) -> Check:
    """Accept what ``check`` accepts, and null."""
    words, accept = check
    return f"{words}, or null {meaning}", lambda value: value is None or accept(value)


def one_of(*options: str) -> Check:
    """Accept any of the words."""
    return f"one of {', '.join(options)}", lambda value: value in options


TEXT: Check = ("a text", lambda value: isinstance(value, str) and value != "")
NAME: Check = (
    "letters, digits, spaces, dots, _ and -, the first a letter, digit or _",
    lambda value: isinstance(value, str) and NAME_PATTERN.fullmatch(value) is not None,
)
SWITCH: Check = ("true or false", lambda value: isinstance(value, bool))
SWITCH_OR_AUTO: Check = (
    "auto, true or false",
    lambda value: value == "auto" or isinstance(value, bool),
)
GROUP: Check = ("a choice with its options", lambda value: isinstance(value, Mapping))
PATH: Check = (
    "a path",
    lambda value: isinstance(value, str | os.PathLike) and str(value) != "",
)
SEED = whole(0, 2**32 - 1)
EACH_EPOCH = "since every epoch is validated and the best kept (a quick try: trainer.max_epochs=1)"

FIGURE_FORM: ContextVar[str | None] = ContextVar("figures.format", default=None)
"""The vector form that each figure is saved in too: ``svg`` or ``pdf``; None for neither."""

CHECKS: dict[str, Check] = {
    "dataset.epochs": whole(1),
    "augmentation.transforms": GROUP,
    "optimizer.lr": number("a number above 0", lambda value: value > 0),
    "optimizer.weight_decay": number("a number from 0", lambda value: value >= 0),
    "trainer.max_epochs": whole(1),
    "trainer.devices": whole(1),
    "trainer.progress_bar": SWITCH,
    "trainer.compile": SWITCH,
    "trainer.fast_dev_run": (f"false, {EACH_EPOCH}", lambda value: not value),
    "trainer.limit_val_batches": (f"more than 0, {EACH_EPOCH}", lambda value: value != 0),
    "trainer.check_val_every_n_epoch": (f"1, {EACH_EPOCH}", lambda value: value == 1),
    "trainer.val_check_interval": (f"1.0, {EACH_EPOCH}", lambda value: value in (None, 1.0)),
    "trainer.enable_checkpointing": (f"true, {EACH_EPOCH}", bool),
    "seed": SEED,
    "test": SWITCH,
    "resume": or_null(TEXT, "for a new run"),
    "optuna.study": or_null(TEXT, "for a run that is no trial"),
    "optuna.trial": or_null(whole(0), "for a run that is no trial"),
    "optuna.storage": or_null(TEXT, "for a run that is no trial"),
    "early_stopping.patience": or_null(whole(1), "for never"),
    "early_stopping.min_delta": number("a number from 0", lambda value: value >= 0),
    "ema.decay": or_null(
        number("a share between 0 and 1", lambda value: 0 < value < 1), "for no averaging"
    ),
    "tta": or_null(one_of("flip"), "for a single pass"),
    "figures.format": or_null(one_of("svg", "pdf"), "for PNG alone"),
    "metrics.resamples": whole(100),
    "metrics.seed": SEED,
    "split": one_of("train", "val", "test", "val+test"),
    "robustness.seed": SEED,
    "robustness.severities": or_null(
        (
            "a list of whole numbers from 1 to 5, such as [1,3,5]",
            lambda value: (
                isinstance(value, list)
                and len(value) > 0
                and all(whole(1, 5)[1](severity) for severity in value)
            ),
        ),
        "for all",
    ),
    "temperature_scaling": SWITCH,
    "votes": or_null(PATH, "for the dataset's own labels alone"),
    "folds": whole(3),
    "flags": whole(1, 1000),
    "plan": SWITCH,
    "folder": or_null(TEXT, "for one below paths.outputs"),
    "prediction_sets": or_null(
        number("a share between 0 and 1", lambda value: 0 < value < 1), "for none"
    ),
    "errors.pairs": whole(0),
    "errors.images": whole(1),
    "errors.confident": whole(0),
    "checkpoint": ("the path of a checkpoint, pretrained, or hf://user/name", TEXT[1]),
    "format": one_of("onnx", "safetensors", "web"),
    "output": or_null(TEXT, "for the place that the configuration names"),
    "runtime": or_null(PATH, "to fetch it with npm"),
    "port": whole(0, 65535),
    "open": SWITCH,
    "launcher": ("the name of a configuration in conf/launcher", lambda value: False),
    "sweep": ("the name of a configuration in conf/sweep", lambda value: False),
    "experiment": ("the name of a configuration in conf/experiment", lambda value: False),
}
"""Checks of values that reach no constructor, or reach it late: after data was read or training
began. All others are checked by the constructor that takes them, with :func:`check_value`.
"""


def known_keys() -> dict[str, bool]:
    """The top-level keys of the configurations, and whether each is a group of options."""
    folder = config_folder()
    known = {path.name: True for path in folder.iterdir() if path.is_dir()}
    for path in folder.glob("*.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        known |= {key: isinstance(value, Mapping) for key, value in content.items()}
    return known


def check_value(key: str, value: Any, rule: Check) -> None:
    """Check a value, in the constructor that takes it.

    Raises:
        ConfigError: it is not what ``key`` expects.
    """
    words, accept = rule
    if not accept(value):
        raise ConfigError(f"{key}: expected {words}, found {value!r}. Set it: {key}=VALUE")


def check_values(place: str, content: Mapping[Any, Any], checks: Mapping[str, Check]) -> None:
    """Check the values of a nested mapping that stands below ``place``, as far as it has them.

    Raises:
        ConfigError: for the first value that its key does not accept.
    """
    for key, rule in checks.items():
        *parents, name = key.split(".")
        node: Any = content
        for parent in parents:
            node = node.get(parent) if isinstance(node, Mapping) else None
        if isinstance(node, Mapping) and name in node:
            check_value(f"{place}.{key}".lstrip("."), node[name], rule)


def check_options(cfg: DictConfig, optional: Sequence[str] = ()) -> None:
    """Check the values of a composed configuration; the groups in ``optional`` may be null.

    Raises:
        ConfigError: for the first value that its key does not accept.
    """
    content = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(content, dict)
    known, absent = known_keys(), {key for key in optional if content.get(key) is None}
    for key, value in content.items():
        if key not in known:
            raise ConfigError(
                f"{key!s}: expected a known option, found this. Valid at the top: "
                f"{', '.join(str(own) for own in content if own in known)}."
            )
        if known[key] and key not in absent:
            check_value(str(key), value, GROUP)
    check_values("", content, {key: rule for key, rule in CHECKS.items() if key not in absent})


@dataclass(frozen=True)
class Guard:
    """Call ``make``; turn its complaints about values into one message that names ``key``.

    A class, because training in several processes pickles it.
    """

    make: Callable[..., Any]
    key: str

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Return what ``make`` returns.

        Raises:
            ConfigError: ``make`` rejects the values.
        """
        try:
            return self.make(*positional, **named)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"{self.key}: expected values that it accepts, found: {error}. Correct them: "
                f"{self.key}.NAME=VALUE"
            ) from error
