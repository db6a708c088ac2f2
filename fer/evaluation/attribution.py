"""Saliency maps: how much each pixel bears on an emotion, through Captum.

- plain gradient: Simonyan et al., "Deep Inside Convolutional Networks", arXiv 1312.6034;
- SmoothGrad: Smilkov et al., "SmoothGrad: removing noise by adding noise", arXiv 1706.03825;
- integrated gradients: Sundararajan et al., "Axiomatic Attribution for Deep Networks", arXiv
  1703.01365;
- Grad-CAM: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", arXiv 1610.02391;
- class activation maps, which need no gradient and are Grad-CAM's before ReLU, up to a factor: Zhou
  et al., "Learning Deep Features for Discriminative Localization", arXiv 1512.04150.

Everything is computed in 32 bits and is a function of the image, its emotion and the seed: neither
the order of the images nor, except for the last bit on some devices, the batch size matters.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from torch import nn

from fer.core.errors import ConfigError
from fer.model.network import NormalisedNetwork

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "grad_cam")


@dataclass(frozen=True)
class MapOptions:
    """Options of all methods; each reads its own."""

    samples: int = 16
    """SmoothGrad: noisy copies of each image."""
    noise: float = 0.1
    """SmoothGrad: standard deviation of the noise, as a share of the range of values."""
    steps: int = 16
    """Integrated gradients: points on the path from the blurred image to the image."""
    blur: float = 0.1
    """Integrated gradients: see :func:`blurred`."""
    seed: int = 0
    """Seed of the noise, which also depends on the image's content."""
    device: torch.device | str = "cpu"
    batch_size: int = 32
    """Images per pass."""


DEFAULTS = MapOptions()


def attributions(
    network: NormalisedNetwork,
    images: np.ndarray,
    targets: np.ndarray,
    method: str,
    options: MapOptions = DEFAULTS,
) -> np.ndarray:
    """Signed attributions ``(N, H, W)`` float32 of an emotion's logit, summed over channels.

    Args:
        network: left as it is. Grad-CAM looks at its feature maps.
        images: ``(N, H, W, C)`` uint8.
        targets: ``(N,)`` int, the emotion to explain in each image.
        method: one of :data:`METHODS`.
        options: those of other methods are ignored.

    Raises:
        ConfigError: the network has no feature maps for Grad-CAM.
    """
    assert method in METHODS
    if len(images) == 0:
        return np.empty(images.shape[:3], np.float32)
    count = len(images)
    if count == 1:  # see batches
        images, targets = np.repeat(images, 2, axis=0), np.repeat(targets, 2, axis=0)
    device = torch.device(options.device)
    network = own_copy(network, device)
    layer = feature_maps_of(network) if method == "grad_cam" else None
    pixels = images.astype(np.float32) / 255
    # Captum's own NoiseTunnel takes noise from the global stream: an image's noise would depend on
    # its batch.
    generators = [_generator(image, options.seed, "noise") for image in images]
    copies = options.samples if method == "smoothgrad" else 1
    rows = np.repeat(np.arange(len(images)), copies)
    # Captum lays out every step of an image in one pass.
    spread = options.steps if method == "integrated_gradients" else 1
    total = np.zeros(images.shape[:3], np.float64)
    with torch.autocast(device.type, enabled=False):
        for batch in batches(len(rows), options.batch_size // spread):
            own = rows[batch]
            values = pixels[own]
            if method == "smoothgrad":
                for row, image in zip(values, own.tolist(), strict=True):
                    noise = generators[image].standard_normal(row.shape, dtype=np.float32)
                    row += options.noise * noise
            x = to_tensor(values, device).requires_grad_()
            y = torch.from_numpy(targets[own].astype(np.int64)).to(device)
            if method == "integrated_gradients":
                start = to_tensor(blurred(images[own], options.blur) / 255, device)
                found = IntegratedGradients(network).attribute(x, start, y, n_steps=options.steps)
            elif method == "grad_cam":
                coarse = LayerGradCam(network, layer).attribute(x, y, relu_attributions=True)
                found = nn.functional.interpolate(coarse, x.shape[2:], mode="bilinear")
            else:
                found = Saliency(network).attribute(x, y, abs=False)
            np.add.at(total, own, found.detach().sum(dim=1).cpu().double().numpy())
    return (total / copies).astype(np.float32)[:count]


def saliency_maps(
    network: NormalisedNetwork,
    images: np.ndarray,
    targets: np.ndarray,
    method: str,
    options: MapOptions = DEFAULTS,
) -> np.ndarray:
    """Maps ``(N, H, W)`` float32 of how much each pixel bears on an emotion: from 0, sum 1.

    The magnitudes of :func:`attributions`, with the same arguments and errors. A map that is zero
    everywhere becomes an even one.
    """
    return _normalised(np.abs(attributions(network, images, targets, method, options)))


def own_copy(network: NormalisedNetwork, device: torch.device) -> NormalisedNetwork:
    """A copy in evaluation mode, whose weights take no gradients.

    The original may not do: weights that moved while torch was in inference mode, as in
    :func:`fer.evaluation.inference.predict`, take no part in a backward pass.
    """
    own = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last).eval()
    return own.requires_grad_(False)


def random_maps(images: np.ndarray, seed: int) -> np.ndarray:
    """Maps ``(N, H, W)`` float32 of independent random pixels, sum 1; the same for an image."""
    values = [
        _generator(image, seed, "map").random(image.shape[:2], dtype=np.float32) for image in images
    ]
    return _normalised(np.array(values, np.float32).reshape(images.shape[:3]))


def blurred(images: np.ndarray, blur: float) -> np.ndarray:
    """Images ``(N, H, W, C)`` uint8 without their features, as float32 0–255.

    ``blur`` is the standard deviation of a Gaussian, as a share of the image's side.
    """
    soft = [
        cv2.GaussianBlur(image.astype(np.float32), (0, 0), blur * image.shape[0])
        for image in images
    ]
    return np.array(soft, np.float32).reshape(images.shape)


def _generator(image: np.ndarray, seed: int, purpose: str) -> np.random.Generator:
    """The same random numbers for the same image, seed and purpose."""
    content = purpose.encode() + np.ascontiguousarray(image).tobytes()
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])


def _normalised(values: np.ndarray) -> np.ndarray:
    """Scale values from 0 to maps with a sum of 1; even maps where all are zero."""
    total = values.sum(axis=(1, 2), dtype=np.float64)[:, None, None]
    even = np.full(values.shape, 1 / max(1, math.prod(values.shape[1:])))
    return np.divide(values, total, out=even, where=total > 0).astype(np.float32)


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of about ``size`` rows, at least two in each.

    A pass over a single row takes another path through the CPU's kernels, with another last bit.
    """
    size = max(2, size)
    starts = list(range(0, count, size))
    if count % size == 1 and len(starts) > 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        yield slice(start, end)


def to_tensor(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """``(N, H, W, C)`` to ``(N, C, H, W)``, channels-last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)


def feature_maps_of(network: NormalisedNetwork) -> nn.Module:
    """The layer that Grad-CAM looks at.

    Raises:
        ConfigError: the network has no feature maps.
    """
    layer = network.feature_maps()
    if layer is None:
        raise ConfigError(
            f"saliency.methods: expected methods without grad_cam for {network.title}, which has "
            f"no feature maps, found it. Leave it out: saliency.methods=[{', '.join(METHODS[:3])}]"
        )
    return layer


def class_activation(network: NormalisedNetwork) -> tuple[nn.Module, nn.Linear] | None:
    """The feature maps and the last layer of a network that averages the ones into the other.

    The layer's weights times the feature maps are then maps whose means are the logits, without
    the bias. Whether it is so is computed on noise: how the network is written does not matter.

    Returns:
        The part that gives feature maps ``(N, K, H', W')`` and the layer ``K`` → 7; None for a
        network of another form.
    """
    layer = network.feature_maps()
    if layer is None:
        return None
    shape = (2, network.in_channels, network.image_size, network.image_size)
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    kept: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.no_grad():
        logits = network.eval()(noise.to(network.mean.device))
        hook.remove()
        for head in (part for part in network.modules() if isinstance(part, nn.Linear)):
            features = kept[-1]
            if features.ndim != 4 or head.weight.shape != (logits.shape[1], features.shape[1]):
                continue
            if torch.allclose(head(features.mean(dim=(2, 3))), logits, rtol=1e-4, atol=1e-4):
                return layer, head
    return None
