"""Augmentation of whole batches on the device, for GPUs that would wait for the CPU.

The policy is the one of the ``augmentation`` configuration, whose albumentations transforms are
read for their ranges and probabilities: the distribution is the same, the random numbers are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fer.core.errors import ConfigError
from fer.data.dataset import Batch, Draw, EmotionDataset

Operation = Callable[[torch.Tensor], torch.Tensor]
"""From images ``(N, C, H, W)`` float 0–1 to such images."""


class DeviceDataset(EmotionDataset):
    """One split as a uint8 tensor on the device, augmented a batch at a time.

    Args:
        dataset: the split; its own augmentation is replaced.
        transforms: albumentations transforms of the policy, in order.
        device: where images and targets are kept.

    Raises:
        ConfigError: kornia is missing, or a transform is not known here.
    """

    def __init__(
        self, dataset: EmotionDataset, transforms: Sequence[Any], device: torch.device
    ) -> None:
        super().__init__(dataset.source, dataset.targets, dataset.ids, rows=dataset.rows)
        self.operations = [translate(transform) for transform in transforms]
        images = torch.from_numpy(dataset.read(np.arange(len(dataset)))).to(device)  # (N, H, W, C)
        self.pixels = images.permute(0, 3, 1, 2)  # (N, C, H, W), channels-last in memory
        self.labels = torch.from_numpy(dataset.targets).to(device)

    def __getitems__(self, items: Sequence[int | Draw]) -> Batch:
        """A whole batch on the device, float 0–1. Draws from torch's random stream."""
        rows = [item.row if isinstance(item, Draw) else int(item) for item in items]
        index = torch.tensor(rows)
        if self.labels.is_cuda:  # without pinned memory the copy would wait for the step before
            index = index.pin_memory().to(self.labels.device, non_blocking=True)
        images = self.pixels[index].float() / 255
        for operation in self.operations:
            images = operation(images)
        return images, self.labels[index]


def translate(transform: Any) -> Operation:
    """The operation on batches that an albumentations transform describes.

    Raises:
        ConfigError: there is none, or one of its options has no counterpart.
    """
    kind = type(transform).__name__
    if kind not in OPERATIONS:
        raise ConfigError(
            f"augmentation: expected transforms that are known on the device "
            f"({', '.join(OPERATIONS)}), found {kind}. Leave it out, or set loader.on_device=false."
        )
    return OPERATIONS[kind](transform)


def import_kornia() -> Any:
    """kornia's filters.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import kornia.filters
    except ImportError as error:
        raise ConfigError(
            "loader.on_device: expected kornia to be installed, found none. "
            'pip install "kornia>=0.7.4", or set loader.on_device=false.'
        ) from error
    return kornia.filters


def _require(kind: str, option: str, holds: bool) -> None:
    if not holds:
        raise ConfigError(
            f"augmentation: {kind} on the device expects {option}. Change it, or set "
            "loader.on_device=false."
        )


def _uniform(n: int, limits: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """``(N, 1, 1, 1)``. Drawn where the images are: a copy from the CPU would wait for the step."""
    return torch.empty(n, 1, 1, 1, device=like.device).uniform_(*limits)


def _chosen(p: float, images: torch.Tensor) -> torch.Tensor:
    """``(N, 1, 1, 1)`` bool: each image with probability ``p``."""
    return torch.rand(len(images), 1, 1, 1, device=images.device) < p


def flip(transform: Any) -> Operation:
    """HorizontalFlip."""

    def operation(images: torch.Tensor) -> torch.Tensor:
        return torch.where(_chosen(transform.p, images), images.flip(-1), images)

    return operation


def affine(transform: Any) -> Operation:
    """Affine: scale, then rotation, then shift by a share of the side, about the centre."""
    share = transform.translate_percent or {"x": (0.0, 0.0), "y": (0.0, 0.0)}
    _require(
        "Affine",
        "shifts as shares of the side",
        not any(map(np.any, (transform.translate_px or {}).values())),
    )
    _require("Affine", "no shear", all(tuple(v) == (0, 0) for v in transform.shear.values()))
    _require("Affine", "fill 0", not np.any(transform.fill))
    _require("Affine", "keep_ratio=false", not transform.keep_ratio)

    def operation(images: torch.Tensor) -> torch.Tensor:
        n, size = len(images), images.shape[-1]
        angle, scale_x, scale_y, x, y = (
            _uniform(n, limits, images).flatten()
            for limits in (
                transform.rotate,
                *(transform.scale[axis] for axis in "xy"),
                *(share[axis] for axis in "xy"),
            )
        )
        angle = torch.deg2rad(angle)
        cos, sin = angle.cos(), angle.sin()
        # Where each pixel comes from: the transform's inverse, in the coordinates of affine_grid,
        # which go from -1 to 1 between the centres of the outermost pixels.
        back = torch.stack(
            [
                torch.stack([cos / scale_x, -sin / scale_x], dim=1),
                torch.stack([sin / scale_y, cos / scale_y], dim=1),
            ],
            dim=1,
        )  # (N, 2, 2)
        shift = torch.stack([x, y], dim=1)[..., None] * (2 * size / (size - 1))
        theta = torch.cat([back, -(back * shift.transpose(1, 2)).sum(2, keepdim=True)], dim=2)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=True)
        moved = functional.grid_sample(images, grid, align_corners=True)
        return torch.where(_chosen(transform.p, images), moved, images)

    return operation


def light(transform: Any) -> Operation:
    """RandomBrightnessContrast: contrast times the image, plus brightness, cut off at 0 and 1."""
    _require("RandomBrightnessContrast", "brightness_by_max=true", transform.brightness_by_max)

    def operation(images: torch.Tensor) -> torch.Tensor:
        n = len(images)
        contrast = 1 + _uniform(n, transform.contrast_limit, images)
        brightness = _uniform(n, transform.brightness_limit, images)
        lit = (images * contrast + brightness).clamp(0, 1)
        return torch.where(_chosen(transform.p, images), lit, images)

    return operation


def blur(transform: Any) -> Operation:
    """GaussianBlur whose kernel follows sigma (``blur_limit: 0``)."""
    _require("GaussianBlur", "blur_limit 0", not np.any(transform.blur_limit))
    side = 2 * round(3.5 * transform.sigma_limit[1]) + 1
    filters = import_kornia()

    def operation(images: torch.Tensor) -> torch.Tensor:
        sigma = _uniform(len(images), transform.sigma_limit, images).flatten()
        sigma = sigma[:, None].expand(-1, 2)
        blurred = filters.gaussian_blur2d(images, (side, side), sigma, border_type="reflect")
        return torch.where(_chosen(transform.p, images), blurred, images)

    return operation


def noise(transform: Any) -> Operation:
    """GaussNoise with a standard deviation of its own for each image."""
    _require("GaussNoise", "mean_range 0", not np.any(transform.mean_range))

    def operation(images: torch.Tensor) -> torch.Tensor:
        std = _uniform(len(images), transform.std_range, images)
        noisy = images + std * torch.randn_like(images)
        return torch.where(_chosen(transform.p, images), noisy.clamp(0, 1), images)

    return operation


def occlusion(transform: Any) -> Operation:
    """CoarseDropout with one hole of a random gray level inside the image."""
    _require("CoarseDropout", "one hole", tuple(transform.num_holes_range) == (1, 1))
    _require("CoarseDropout", "fill random_uniform", transform.fill == "random_uniform")
    shares = (transform.hole_height_range, transform.hole_width_range)
    _require("CoarseDropout", "sizes as shares of the side", all(high <= 1 for _, high in shares))

    def operation(images: torch.Tensor) -> torch.Tensor:
        n, channels = images.shape[:2]
        inside = _chosen(transform.p, images)
        for axis, limits in zip((2, 3), shares, strict=True):
            size = images.shape[axis]
            length = (_uniform(n, limits, images) * size).floor().clamp(min=1)
            start = (_uniform(n, (0, 1), images) * (size - length + 1)).floor()
            place = torch.arange(size, device=images.device).view(
                (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
            )
            inside = inside & (place >= start) & (place < start + length)
        gray = torch.rand(n, channels, 1, 1, device=images.device)
        return torch.where(inside, gray, images)

    return operation


OPERATIONS: dict[str, Callable[[Any], Operation]] = {
    "HorizontalFlip": flip,
    "Affine": affine,
    "RandomBrightnessContrast": light,
    "GaussianBlur": blur,
    "GaussNoise": noise,
    "CoarseDropout": occlusion,
}
"""By the name of the albumentations transform."""
