"""A network's probabilities for images, and what they are worth on a split."""

from __future__ import annotations

import numpy as np
import torch

from fer.core import labels
from fer.core.hardware import Computing, autocast_dtype, images_at_once
from fer.data.audit.verdict import ALTERED
from fer.data.datamodule import EmotionDataModule
from fer.evaluation.metrics import SplitResult, measure_split


@torch.inference_mode()
def predict(
    network: torch.nn.Module,
    images: np.ndarray,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    batch_size: int | None = None,
    tta: str | None = None,
) -> np.ndarray:
    """Probabilities ``(N, 7)`` float32 of images ``(N, H, W, C)`` uint8.

    With ``tta="flip"`` (test-time augmentation) they are the mean over each image and its mirror
    image. ``batch_size`` is the images of a step; None: 32 on a CPU, 512 on another device. The
    network is left in evaluation mode on ``device``.

    Raises:
        ConfigError: the precision is unknown.
    """
    dtype = autocast_dtype(precision)
    device = torch.device(device)
    batch_size = batch_size or images_at_once(device)
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
    """Put the network into evaluation mode on ``device``, and fold its BatchNorm if it can."""
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    fold = getattr(network, "folded", None)
    if callable(fold):
        network = fold().to(memory_format=torch.channels_last)
    return network


def measure_network(
    network: torch.nn.Module,
    data: EmotionDataModule,
    split: str,
    computing: Computing,
    *,
    batch_size: int | None = None,
    resamples: int = 2000,
    seed: int = 0,
    tta: str | None = None,
) -> SplitResult:
    """Predict and measure one split, for training and evaluation alike.

    Args:
        network: gives logits ``(N, 7)``.
        data: a data module that is set up.
        split: ``train``, ``val``, ``test`` or ``val+test``.
        computing: device and precision.
        batch_size: see :func:`predict`.
        resamples: see :func:`fer.evaluation.metrics.measure_scores`.
        seed: see :func:`fer.evaluation.metrics.measure_scores`.
        tta: see :func:`predict`; the metrics then name it.

    Raises:
        DataError: the split is empty, or the network's answers are not finite.
    """
    dataset = data.split(split)
    target = dataset.targets
    probabilities = predict(
        network,
        dataset.images,
        device=computing.device,
        precision=computing.precision,
        batch_size=batch_size,
        tta=tta,
    )
    leaks = data.leaked(split), data.nearly_leaked(split)
    metrics = measure_split(
        data.dataset_name, split, target, probabilities, *leaks, resamples=resamples, seed=seed
    )
    integrity = data.prepared.integrity
    if integrity["verdict"] == ALTERED:  # a number that is copied elsewhere takes this along
        metrics["altered_copy"] = [finding["text"] for finding in integrity["findings"]]
    if tta is not None:
        metrics["tta"] = tta
    if data.left_out:
        metrics["left_out"] = data.left_out
    return SplitResult(metrics, dataset.images, target, probabilities, list(dataset.ids))
