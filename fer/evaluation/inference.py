"""Probabilities of a network for images, and the networks that checkpoints hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from fer.core import labels
from fer.core.errors import CheckpointError
from fer.core.hardware import Computing, autocast_dtype
from fer.core.options import NAME
from fer.data.audit.verdict import ALTERED
from fer.data.datamodule import EmotionDataModule
from fer.evaluation.metrics import SplitResult, measure_split
from fer.model.checkpoint import build_network, is_plain, read_checkpoint
from fer.model.shared_cnn import SharedCNN

PRETRAINED = "pretrained"
"""What stands for the network that comes with the package, in place of a checkpoint's path."""
PRETRAINED_FILE = Path(__file__).resolve().parent.parent / "pretrained" / "fer2013.safetensors"
SAFETENSORS = ".safetensors"
"""Ends the name of a checkpoint in that format; all others are read as PyTorch's own."""


@torch.inference_mode()
def predict(
    network: torch.nn.Module,
    images: np.ndarray,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    batch_size: int = 32,
    tta: str | None = None,
) -> np.ndarray:
    """Probabilities ``(N, 7)`` float32 of images ``(N, H, W, C)`` uint8.

    With ``tta="flip"`` (test-time augmentation) they are the mean over each image and its mirror
    image.

    The network is left in evaluation mode on ``device``.

    Raises:
        ConfigError: the precision is unknown.
    """
    dtype = autocast_dtype(precision)
    device = torch.device(device)
    network = for_inference(network, device)
    parts = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.array(images[start : start + batch_size]))
        batch = batch.to(device).permute(0, 3, 1, 2)  # (N, C, H, W), channels-last in memory
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            probabilities = network(batch).float().softmax(dim=1)
            if tta == "flip":
                mirrored = network(batch.flip(3)).float().softmax(dim=1)
                probabilities = (probabilities + mirrored) / 2
        parts.append(probabilities.cpu())
    if not parts:
        return np.empty((0, labels.NUM_CLASSES), dtype=np.float32)
    return torch.cat(parts).numpy()


def for_inference(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The network in evaluation mode on ``device``, where it is left; BatchNorm is folded."""
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    if isinstance(network, SharedCNN) and not network.is_folded:
        network = network.folded().to(memory_format=torch.channels_last)
    return network


def measure_network(
    network: torch.nn.Module,
    data: EmotionDataModule,
    split: str,
    computing: Computing,
    *,
    batch_size: int = 32,
    resamples: int = 2000,
    seed: int = 0,
    tta: str | None = None,
) -> SplitResult:
    """Predict and measure one split. Training and evaluation both come here, and so agree.

    Args:
        network: gives logits ``(N, 7)``.
        data: set up.
        split: ``train``, ``val``, ``test`` or ``val+test``.
        computing: device and precision.
        batch_size: images per step.
        resamples: bootstrap resamples for the intervals.
        seed: of the bootstrap.
        tta: see :func:`predict`; the metrics then name it.

    Raises:
        DataError: the split is empty, or the network's answers are not finite.
    """
    dataset = data.split(split)
    probabilities = predict(
        network,
        dataset.images,
        device=computing.device,
        precision=computing.precision,
        batch_size=batch_size,
        tta=tta,
    )
    metrics = measure_split(
        data.dataset_name,
        split,
        dataset.targets,
        probabilities,
        data.leaked(split),
        resamples=resamples,
        seed=seed,
    )
    integrity = data.prepared.integrity
    if integrity["verdict"] == ALTERED:  # a number that is copied elsewhere takes this along
        metrics["altered_copy"] = [finding["text"] for finding in integrity["findings"]]
    if tta is not None:
        metrics["tta"] = tta
    if data.left_out:
        metrics["left_out"] = data.left_out
    return SplitResult(metrics, dataset.images, dataset.targets, probabilities, list(dataset.ids))


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what it was trained on."""

    path: Path
    network: SharedCNN
    extras: dict[str, Any]
    """``model``, ``labels``, ``dataset`` (name, choice, options, fingerprint), ``seed``."""
    epoch: int


def find_checkpoint(checkpoint: Path | str) -> Path:
    """The file that ``checkpoint`` names: a path, or :data:`PRETRAINED`.

    Raises:
        CheckpointError: there is none.
    """
    if checkpoint == PRETRAINED:
        if not PRETRAINED_FILE.is_file():
            raise CheckpointError(
                f"checkpoint={PRETRAINED}: expected the network of this package, found none at "
                f"{PRETRAINED_FILE}. Name a checkpoint of your own, or make this one of it: python "
                f"-m fer export checkpoint=PATH format=safetensors output={PRETRAINED_FILE}"
            )
        return PRETRAINED_FILE
    path = Path(checkpoint)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(
            f"checkpoint: expected a file such as <run>/checkpoints/best.ckpt, found {found} at "
            f"{path.absolute()}."
        )
    return path


def read_safetensors(path: Path) -> dict[str, Any]:
    """The content of a checkpoint in the safetensors format, as in PyTorch's own.

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


def load_checkpoint(checkpoint: Path | str) -> Checkpoint:
    """Load a checkpoint of this program as data: nothing in it is ever executed.

    Args:
        checkpoint: path of a file that ``train.py`` or ``fer export`` (``.safetensors``) wrote,
            or :data:`PRETRAINED`.

    Raises:
        CheckpointError: there is none, it is not one of this program, its emotions differ, or its
            weights do not fit the network that it names.
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
    if model.get("class") != SharedCNN.__name__:
        raise CheckpointError(
            f"{path}: expected a {SharedCNN.__name__}, found {model.get('class')!r}."
        )
    options = {key: value for key, value in model.items() if key != "class"}
    network = build_network(path, options, content["state_dict"])
    return Checkpoint(path, network, extras, content["epoch"])
