"""The overrides of a run: which of them decide its result, and which say where things are.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fer.core.files import read_text
from fer.core.values import fits

PLACES = (
    *("paths.data", "paths.outputs", "dataset.raw", "dataset.folder"),
    "dataset.reader.votes",
)
"""Options that say where something is."""
FREE_TO_CHANGE = (
    *PLACES,
    *("dataset.workers", "dataset.download", "dataset.kaggle", "figures.format"),
)
"""Options that may be others when a run goes on: also how data come here, and what is drawn."""
INERT = (*FREE_TO_CHANGE, "paths", "figures", "resume", "trainer.progress_bar", "logger")
"""Beginnings of options that do not change a result; a run goes on with the loggers that it has."""
FREE = ("resume=", "trainer.progress_bar=", "hydra.", "optuna.")
"""Beginnings of overrides that do not change what is trained."""


def key_of(item: str) -> str:
    """The key of an override.

    >>> key_of("++dataset.raw=a=b")
    'dataset.raw'
    """
    return item.lstrip("+~").partition("=")[0]


def values_of(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides by key."""
    return {key_of(item): item.partition("=")[2] for item in overrides}


def plain(overrides: Sequence[str]) -> list[str]:
    """Overrides without those that do not change what is trained."""
    return [item for item in overrides if not item.startswith(FREE)]


def unlike(saved: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Overrides that a run with those in ``saved`` cannot go on with.

    >>> unlike(["seed=1"], ["seed=1", "figures.format=svg", "optimizer.lr=0.1"])
    ['optimizer.lr=0.1']
    """
    return [
        item
        for item in plain(overrides)
        if item not in saved and key_of(item) not in FREE_TO_CHANGE
    ]


def deciding(overrides: Sequence[str]) -> list[str]:
    """Overrides that decide a result, whichever checkpoint is measured and wherever data lie.

    >>> deciding(["tta=flip", "checkpoint=a.ckpt", "dataset.workers=2", "votes=fer2013new.csv"])
    ['tta=flip', 'votes']
    """
    return sorted(
        "votes" if key_of(item) == "votes" else item  # wherever that table lies
        for item in plain(overrides)
        if not (item.startswith("checkpoint=") or key_of(item).startswith(INERT))
    )


def read_yaml(path: Path) -> Any:
    """The content of an untrusted file; None if it cannot be read."""
    try:
        return yaml.safe_load(read_text(path))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def read_overrides(folder: Path) -> list[str] | None:
    """The overrides that a run was started with; None if ``folder`` is no run."""
    items = read_yaml(folder / ".hydra" / "overrides.yaml")
    return plain(items) if fits(items, [str]) else None
