"""Checkpoints as data: whatever a file holds, nothing in it is executed and little is trusted."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.parameter import is_lazy

from fer.core import labels
from fer.core.commands import typed
from fer.core.errors import CheckpointError, ConfigError, first_line
from fer.core.options import NAME
from fer.core.values import Options, Shape, is_plain, misfit
from fer.model import hub, shared_cnn  # noqa: F401  (shared_cnn registers its name)
from fer.model.network import NormalisedNetwork, find_network, make_network

PREFIX = "network."
"""Prefix of the network's weights among those of the Lightning module."""
PRETRAINED = "pretrained"
"""Stands for the network that comes with the package, in place of a checkpoint's path."""
PRETRAINED_FILE = Path(__file__).resolve().parent.parent / "pretrained" / "fer2013.safetensors"
SAFETENSORS = ".safetensors"
"""Suffix of checkpoints in that format; all others are read as PyTorch's own."""


class ModelRecord(TypedDict):
    """A network, as :meth:`.NormalisedNetwork.describe` writes it."""

    network: str
    """Its registered name."""
    image_size: int
    in_channels: int
    options: Options


class _TrainedOn(TypedDict):
    choice: str
    """Its configuration in ``conf/dataset``."""
    name: str
    generator: Options | None
    """Options of the drawn faces."""
    reader: Options
    """Options of the reader."""
    options: Options
    """Those that decide which images are used."""
    fingerprint: str


class TrainedOn(_TrainedOn, total=False):
    """A dataset, as :meth:`.EmotionDataModule.describe` writes it."""

    identity: str | None
    """Of who is who in it; None or missing where that is not known."""


class _Description(TypedDict):
    model: ModelRecord
    labels: list[str]
    dataset: TrainedOn
    seed: int


class Description(_Description, total=False):
    """``fer`` in a checkpoint: what is needed to use its weights elsewhere."""

    priors: list[float] | None
    """Each emotion's share in training; None or missing where that is not known."""
    teachers: list[str]
    """SHA-256 of the checkpoints that it learned from."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the content of a checkpoint file.

    Raises:
        CheckpointError: there is no file, it is not a checkpoint, or reading it would run code.
    """
    path = find_checkpoint(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # torch never compresses: a few bytes that become gigabytes are not a checkpoint.
            plain = all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
        content = torch.load(path, map_location="cpu", weights_only=True) if plain else None
    except Exception as error:  # the bytes may be anything, and so may torch's error
        # Its own message advises to load the file with its code: not passed on.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"one that would run {named[1]}" if named else "not a checkpoint, or a damaged one"
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


def rebuild_network(path: Path, model: ModelRecord, state: Mapping[str, Any]) -> NormalisedNetwork:
    """Rebuild the network of a checkpoint from its description and weights.

    Raises:
        CheckpointError: no such network is registered, it does not accept the options, or the
            weights do not fit it or are not finite.
    """
    name, own = str(model["network"]), model["options"]
    shape = {"image_size": model["image_size"], "in_channels": model["in_channels"]}

    def refuse(found: object) -> CheckpointError:
        options = ", ".join(f"{key}={value!r}" for key, value in (own or shape).items())
        return CheckpointError(
            f"{path}: expected weights of {name}({options}), found others: {found}. Use a "
            "checkpoint that train.py wrote."
        )

    try:
        make = find_network(name)
        expected = on_meta(make, {**own, **shape})
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (RuntimeError, OverflowError) as error:
        raise refuse(first_line(error)) from error
    missing, more = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or more:
        part = min(missing or more)
        raise refuse(f"{'no ' if missing else ''}{part} (of {len(missing) + len(more)} such)")
    for part, wanted in expected.items():
        check_tensor(path, part, state[part], wanted, refuse)
    network = make_network(make, {**own, **shape})
    make_lazy(network)
    network.load_state_dict(dict(state))
    network.is_normalised = True
    return network


def on_meta(make: Callable[..., nn.Module], options: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of such a network on the meta device, without the memory for them.

    A network that computes with numbers in its constructor cannot be made there, and is made as
    usual.

    Raises:
        ConfigError: it does not accept the options, or would fill the memory.
    """
    try:
        with torch.device("meta"):
            network = make_network(make, options)
            make_lazy(network)
            network.check_size()
    except (ConfigError, RuntimeError, NotImplementedError) as error:
        if "meta tensor" not in str(error):
            raise
        network = make_network(make, options)
        make_lazy(network)
    # The parameters themselves tell what is trained and what is a buffer.
    return network.state_dict(keep_vars=True)


def make_lazy(network: NormalisedNetwork) -> None:
    """Show an input to layers that take their size from one."""
    if any(is_lazy(parameter) for parameter in network.parameters()):
        network.check_output()


def check_tensor(
    path: Path,
    name: str,
    value: object,
    wanted: torch.Tensor,
    refuse: Callable[[object], CheckpointError],
) -> None:
    """Check one tensor of a file against the network's.

    Raises:
        CheckpointError: it has another shape, holds fewer numbers than its shape says, or one that
            is not finite.
    """
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise refuse(f"{name} is not a tensor")
    if value.shape != wanted.shape:
        raise refuse(f"{name} has shape {tuple(value.shape)} instead of {tuple(wanted.shape)}")
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise refuse(f"{name} repeats a few numbers")
    # A buffer may hold infinity on purpose: the mask of an attention.
    is_mask = not wanted.requires_grad and "running_" not in name and name not in ("mean", "std")
    bad = value.isnan() if is_mask and not value.is_complex() else ~torch.isfinite(value)
    if value.is_complex() or bad.any():
        raise CheckpointError(
            f"{path}: expected finite weights, found others in {name}: that training had "
            "diverged. Use an earlier checkpoint, or train again with a lower optimizer.lr."
        )


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what it was trained on."""

    path: Path
    network: NormalisedNetwork
    extras: Description
    epoch: int


def find_checkpoint(checkpoint: Path | str) -> Path:
    """Find the file of ``checkpoint``: a path, :data:`PRETRAINED`, or ``hf://user/name``.

    Raises:
        CheckpointError: there is no such file.
    """
    if checkpoint == PRETRAINED:
        if not PRETRAINED_FILE.is_file():
            raise CheckpointError(
                f"checkpoint={PRETRAINED}: expected the network of this package, found none at "
                f"{PRETRAINED_FILE}. Name a checkpoint of your own, or make this one of it: python "
                "-m fer export checkpoint=PATH format=safetensors "
                f"{typed('output', PRETRAINED_FILE)}"
            )
        return PRETRAINED_FILE
    if str(checkpoint).startswith(hub.SCHEME):
        return hub.download(str(checkpoint))
    path = Path(checkpoint)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(
            f"checkpoint: expected a file such as <run>/checkpoints/best.ckpt, found {found} at "
            f"{path.absolute()}."
        )
    return path


def read_safetensors(path: Path) -> dict[str, Any]:
    """Read a checkpoint in the safetensors format into the content of PyTorch's own.

    Raises:
        CheckpointError: it cannot be read, or its description is not JSON.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {f"network.{key}": file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        description = json.loads(metadata.get("fer", "null"))
        return {"fer": description, "epoch": int(metadata.get("epoch", 0)), "state_dict": state}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected a safetensors file that python -m fer export wrote, found one that "
            f"cannot be read: {error}. Export it again."
        ) from error


def read_description(checkpoint: Path | str) -> tuple[Path, Description, dict[str, Any]]:
    """Read a checkpoint's description without making its network.

    Returns:
        The file, its description, and all of its content.

    Raises:
        CheckpointError: there is no file, this program did not write it, or its emotions differ.
    """
    path = find_checkpoint(checkpoint)
    content = read_safetensors(path) if path.suffix == SAFETENSORS else read_checkpoint(path)
    extras = content.get("fer")
    if not isinstance(extras, dict) or "state_dict" not in content:
        raise CheckpointError(
            f"{path}: expected a checkpoint that train.py wrote, found one without its "
            "description. Use <run>/checkpoints/best.ckpt."
        )
    model, trained_on = extras.get("model"), extras.get("dataset")
    if (
        not isinstance(model, dict)
        or not isinstance(trained_on, dict)
        or not {"generator", "reader"} <= trained_on.keys()
        # The first is part of the run folder's path when no other dataset is chosen.
        or not all(NAME[1](trained_on.get(key)) for key in ("choice", "name", "fingerprint"))
        or not isinstance(extras.get("labels"), list)
        or "seed" not in extras
        or not isinstance(content["state_dict"], dict)
        or not isinstance(content.get("epoch"), int)
        or not is_plain(extras)
        or not are_shares(extras.get("priors"))
    ):
        raise CheckpointError(
            f"{path}: expected the model, dataset, labels and seed of a training, found an "
            "incomplete description. Use <run>/checkpoints/best.ckpt."
        )
    if extras["labels"] != list(labels.EMOTIONS):
        raise CheckpointError(
            f"{path}: expected the emotions {', '.join(labels.EMOTIONS)}, found "
            f"{', '.join(map(str, extras['labels']))}. It was trained with another schema."
        )
    return path, cast(Description, extras), content


def are_shares(value: object) -> bool:
    """Tell whether ``value`` is None or a share of each emotion: finite, from 0, not all 0."""
    return value is None or (
        isinstance(value, list)
        and len(value) == len(labels.EMOTIONS)
        and all(isinstance(share, float) and 0 <= share < math.inf for share in value)
        and sum(value) > 0
    )


def load_checkpoint(checkpoint: Path | str) -> Checkpoint:
    """Load a checkpoint as data: nothing in it is executed.

    Args:
        checkpoint: path of a file that ``train.py`` or ``fer export`` (``.safetensors``) wrote,
            :data:`PRETRAINED`, or ``hf://user/name`` for one on the Hugging Face Hub.

    Raises:
        CheckpointError: as :func:`read_description`, no such network is registered, or the
            weights do not fit it.
    """
    path, extras, content = read_description(checkpoint)
    state = {
        key.removeprefix(PREFIX): value
        for key, value in content["state_dict"].items()
        if isinstance(key, str) and key.startswith(PREFIX)
    }
    model: Any = extras["model"]  # of which nothing is known yet
    if (
        model.keys() != ModelRecord.__required_keys__
        or not isinstance(model["options"], dict)
        or not all(isinstance(model[key], int) for key in ("image_size", "in_channels"))
    ):
        raise CheckpointError(
            f"{path}: expected a network's name, image_size, in_channels and options, found "
            f"{', '.join(map(str, model)) or 'nothing'}. Use <run>/checkpoints/best.ckpt of this "
            "version: those of unreleased states before it are not read."
        )
    return Checkpoint(path, rebuild_network(path, model, state), extras, content["epoch"])


@dataclass(frozen=True)
class CutOff:
    """A training that was cut off."""

    path: Path
    """Its last checkpoint."""
    epochs: int
    """Finished epochs."""
    steps: int
    stopped: bool
    """True if early stopping or a search had ended it."""
    pruned: bool
    """True if a search had ended it."""
    threads: int | None
    """Threads that it computed with, if known: another number rounds differently."""
    rows: list[dict[str, float]]
    """Rows of its history."""

    def is_trained(self, max_epochs: int) -> bool:
        """Tell whether only the measuring is left to do."""
        return (self.stopped and not self.pruned) or self.epochs >= max_epochs


PROGRESS: Shape = {
    "fer_progress": {"epochs": int, "stopped": bool, "threads": (int, None, ...)},
    "global_step": int,
    "callbacks": {"History": {"rows": [dict]}, "Pruning": ({"pruned": bool}, ...)},
}


def read_progress(path: Path) -> CutOff:
    """Read how far the training of a checkpoint has come.

    Raises:
        CheckpointError: it does not say.
    """
    content = read_checkpoint(path)
    wrong = misfit(content, PROGRESS)
    if wrong is not None:
        raise CheckpointError(
            f"{path}: expected a checkpoint that a training can go on from, found one without a "
            f"good {wrong}: the file was changed, or another version wrote it. Start a new run "
            "without resume."
        )
    progress, callbacks = content["fer_progress"], content["callbacks"]
    return CutOff(
        path,
        progress["epochs"],
        content["global_step"],
        progress["stopped"],
        callbacks.get("Pruning", {"pruned": False})["pruned"],
        progress.get("threads"),
        callbacks["History"]["rows"],
    )
