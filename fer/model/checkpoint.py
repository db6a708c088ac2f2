"""Checkpoints as data: whatever a file holds, nothing in it is executed, and little is trusted."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fer.core.errors import CheckpointError, ConfigError
from fer.core.options import CHECKS
from fer.model.shared_cnn import SharedCNN

MAX_VALUES = 100_000
"""In the description of a training, which has about a hundred."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file.

    Raises:
        CheckpointError: there is none, it is none, or reading it would mean to run code.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(
            f"checkpoint: expected a file such as <run>/checkpoints/best.ckpt, found {found} at "
            f"{path.absolute()}."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            # torch never compresses: a few bytes that become gigabytes are no checkpoint.
            plain = all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
        content = torch.load(path, map_location="cpu", weights_only=True) if plain else None
    except Exception as error:  # of bytes that may be anything, torch's reader raises anything
        # Its own message advises to load the file with code and all: not passed on.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"one that would run {named[1]}" if named else "a file that is none, or damaged"
        raise CheckpointError(
            f"{path}: expected a checkpoint with nothing but data in it, found {reason}. "
            "Use a checkpoint that train.py wrote."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(
            f"{path}: expected a checkpoint that train.py wrote, found "
            f"{'something else' if plain else 'a compressed file'}. "
            "Use <run>/checkpoints/best.ckpt."
        )
    return content


def is_plain(value: object) -> bool:
    """Whether a value is text, numbers, lists and dictionaries of such, and not too many of them.

    What refers to itself, or to one list a thousand times, has too many.
    """
    waiting = [value]
    for _ in range(MAX_VALUES):
        if not waiting:
            return True
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif item is not None and not isinstance(item, str | int | float | bool):
            return False
        if len(waiting) > MAX_VALUES:
            return False
    return not waiting


def build_network(path: Path, options: Mapping[str, Any], content: Mapping[str, Any]) -> SharedCNN:
    """The network of a checkpoint.

    Args:
        path: of the file, for messages.
        options: of :class:`SharedCNN`, plain values.
        content: of the file's ``state_dict``.

    Raises:
        CheckpointError: the options are none of a network, or the weights are not those of it, or
            not finite.
    """

    def refuse(found: object) -> CheckpointError:
        return CheckpointError(
            f"{path}: expected weights of {SharedCNN.__name__}({dict(options)}), found others: "
            f"{found}. Use a checkpoint that train.py wrote."
        )

    for key, value in options.items():
        known = CHECKS.get(f"model.{key}")
        if known is not None and not known[1](value):
            raise CheckpointError(
                f"{path}: expected as the network's {key} {known[0]}, found {value!r}. Use a "
                "checkpoint that train.py wrote."
            )
    prefix = "network."
    state = {
        key.removeprefix(prefix): value
        for key, value in content.items()
        if isinstance(key, str) and key.startswith(prefix)
    }
    try:
        with torch.device("meta"):  # shapes alone: they may ask for more memory than there is
            expected = SharedCNN(**options).state_dict()
    except (RuntimeError, TypeError, ConfigError) as error:
        raise refuse(error) from error
    missing, more = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or more:
        name = min(missing or more)
        raise refuse(f"{'no ' if missing else ''}{name} (of {len(missing) + len(more)} such)")
    for name, wanted in expected.items():
        value = state[name]
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise refuse(f"{name} is no tensor")
        if value.shape != wanted.shape:
            raise refuse(f"{name} has shape {tuple(value.shape)} instead of {tuple(wanted.shape)}")
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise refuse(f"{name} repeats a few numbers")
        if value.is_complex() or not torch.isfinite(value).all():
            raise CheckpointError(
                f"{path}: expected finite weights, found others in {name}: that training had "
                "diverged. Use an earlier checkpoint, or train again with a lower optimizer.lr."
            )
    network = SharedCNN(**options)
    network.load_state_dict(state)
    return network


@dataclass(frozen=True)
class CutOff:
    """A training that did not come to its end."""

    path: Path
    """Its last checkpoint."""
    epochs: int
    """Finished ones."""
    steps: int
    stopped: bool
    """Whether early stopping had ended it, or a search."""
    pruned: bool
    """Whether it was a search."""
    rows: list[dict[str, float]]
    """Of its history."""

    def is_trained(self, max_epochs: int) -> bool:
        """Whether only the measuring is left to do."""
        return (self.stopped and not self.pruned) or self.epochs >= max_epochs


def read_progress(path: Path) -> CutOff:
    """How far the training of a checkpoint has come.

    Raises:
        CheckpointError: it does not say.
    """
    content = read_checkpoint(path)
    try:
        progress = content["fer_progress"]
        return CutOff(
            path,
            int(progress["epochs"]),
            int(content["global_step"]),
            bool(progress["stopped"]),
            bool(content["callbacks"].get("Pruning", {"pruned": False})["pruned"]),
            list(content["callbacks"]["History"]["rows"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint that a training can go on from, found one without "
            f"{error}: an earlier version wrote it. Start a new run without resume."
        ) from error
