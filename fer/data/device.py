"""Augmentation of whole batches on the device, for GPUs that would wait for the CPU.

The policy is that of the ``augmentation`` configuration: ranges and probabilities are read from its
albumentations transforms. The distribution is the same, the random numbers are not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fer.core.errors import ConfigError
from fer.data.dataset import Batch, Draw, EmotionDataset

Operation = Callable[[torch.Tensor], torch.Tensor]
"""Maps images ``(N, C, H, W)`` float 0–1 to such images."""


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
        """A whole batch on the device, float 0–1, by random numbers of torch's stream."""
        rows = [item.row if isinstance(item, Draw) else int(item) for item in items]
        index = torch.tensor(rows)
        if self.labels.is_cuda:  # without pinned memory the copy would wait for the step before
            index = index.pin_memory().to(self.labels.device, non_blocking=True)
        images = self.pixels[index].float() / 255
        for operation in self.operations:
            images = operation(images)
        return images, self.labels[index]


def translate(transform: Any) -> Operation:
    """Make the operation on batches that an albumentations transform describes.

    Raises:
        ConfigError: there is none, or one of its options has no counterpart.
    """
    kind = type(transform).__name__
    if kind not in OPERATIONS:
        raise ConfigError(
            f"augmentation: expected transforms that are known on the device "
            f"({', '.join(OPERATIONS)}), found {kind}. Leave it out, or set loader.on_device=false."
        )
    for option, holds in EXPECTED.get(kind, {}).items():
        if not holds(transform):
            raise ConfigError(
                f"augmentation: {kind} on the device expects {option}. Change it, or set "
                "loader.on_device=false."
            )
    if kind == "GaussianBlur":
        import_kornia()
    return functools.partial(OPERATIONS[kind], transform)


def import_kornia() -> Any:
    """Import kornia's filters.

    Raises:
        ConfigError: kornia is not installed.
    """
    try:
        import kornia.filters
    except ImportError as error:
        raise ConfigError(
            "loader.on_device: expected kornia to be installed, found none. "
            'pip install "kornia>=0.7.4", or set loader.on_device=false.'
        ) from error
    return kornia.filters


def _uniform(images: torch.Tensor, limits: Sequence[float]) -> torch.Tensor:
    """``(N, 1, 1, 1)``, made where the images are: a copy from the CPU would wait for the step."""
    return torch.empty(len(images), 1, 1, 1, device=images.device).uniform_(*limits)


def _chosen(images: torch.Tensor, p: float) -> torch.Tensor:
    """``(N, 1, 1, 1)`` bool: each image with probability ``p``."""
    return torch.rand(len(images), 1, 1, 1, device=images.device) < p


def flip(transform: Any, images: torch.Tensor) -> torch.Tensor:
    """HorizontalFlip."""
    return torch.where(_chosen(images, transform.p), images.flip(-1), images)


def affine(transform: Any, images: torch.Tensor) -> torch.Tensor:
    """Affine: scale, then rotation, then shift by a share of the side, about the centre."""
    share = transform.translate_percent or {"x": (0.0, 0.0), "y": (0.0, 0.0)}
    size = images.shape[-1]
    limits = (transform.rotate, *(transform.scale[k] for k in "xy"), *(share[k] for k in "xy"))
    angle, scale_x, scale_y, x, y = (_uniform(images, own).flatten() for own in limits)
    angle = torch.deg2rad(angle)
    cos, sin = angle.cos(), angle.sin()
    # Where each pixel comes from: the transform's inverse, in the coordinates of affine_grid,
    # which go from -1 to 1 between the centres of the outermost pixels.
    to_x = torch.stack([cos / scale_x, -sin / scale_x], dim=1)
    to_y = torch.stack([sin / scale_y, cos / scale_y], dim=1)
    back = torch.stack([to_x, to_y], dim=1)  # (N, 2, 2)
    shift = torch.stack([x, y], dim=1)[..., None] * (2 * size / (size - 1))
    theta = torch.cat([back, -(back * shift.transpose(1, 2)).sum(2, keepdim=True)], dim=2)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=True)
    moved = functional.grid_sample(images, grid, align_corners=True)
    return torch.where(_chosen(images, transform.p), moved, images)


def light(transform: Any, images: torch.Tensor) -> torch.Tensor:
    """RandomBrightnessContrast: contrast times the image, plus brightness, cut off at 0 and 1."""
    contrast = 1 + _uniform(images, transform.contrast_limit)
    brightness = _uniform(images, transform.brightness_limit)
    lit = (images * contrast + brightness).clamp(0, 1)
    return torch.where(_chosen(images, transform.p), lit, images)


def blur(transform: Any, images: torch.Tensor) -> torch.Tensor:
    """GaussianBlur whose kernel follows sigma (``blur_limit: 0``)."""
    side = 2 * round(3.5 * transform.sigma_limit[1]) + 1
    sigma = _uniform(images, transform.sigma_limit).flatten()[:, None].expand(-1, 2)
    blurred = import_kornia().gaussian_blur2d(images, (side, side), sigma, border_type="reflect")
    return torch.where(_chosen(images, transform.p), blurred, images)


def noise(transform: Any, images: torch.Tensor) -> torch.Tensor:
    """GaussNoise with a standard deviation of its own for each image."""
    std = _uniform(images, transform.std_range)
    noisy = (images + std * torch.randn_like(images)).clamp(0, 1)
    return torch.where(_chosen(images, transform.p), noisy, images)


def occlusion(transform: Any, images: torch.Tensor) -> torch.Tensor:
    """CoarseDropout with one hole of a random gray level inside the image."""
    inside = _chosen(images, transform.p)
    for axis, limits in ((2, transform.hole_height_range), (3, transform.hole_width_range)):
        size = images.shape[axis]
        length = (_uniform(images, limits) * size).floor().clamp(min=1)
        start = (_uniform(images, (0, 1)) * (size - length + 1)).floor()
        place = torch.arange(size, device=images.device)
        place = place.view((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
        inside = inside & (place >= start) & (place < start + length)
    gray = torch.rand(*images.shape[:2], 1, 1, device=images.device)
    return torch.where(inside, gray, images)


OPERATIONS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "HorizontalFlip": flip,
    "Affine": affine,
    "RandomBrightnessContrast": light,
    "GaussianBlur": blur,
    "GaussNoise": noise,
    "CoarseDropout": occlusion,
}
"""Name of an albumentations transform → its operation."""
EXPECTED: dict[str, dict[str, Callable[[Any], bool]]] = {
    "Affine": {
        "shifts as shares of the side": lambda own: (
            not any(map(np.any, (own.translate_px or {}).values()))
        ),
        "no shear": lambda own: all(tuple(limits) == (0, 0) for limits in own.shear.values()),
        "fill 0": lambda own: not np.any(own.fill),
        "keep_ratio=false": lambda own: not own.keep_ratio,
    },
    "RandomBrightnessContrast": {"brightness_by_max=true": lambda own: own.brightness_by_max},
    "GaussianBlur": {"blur_limit 0": lambda own: not np.any(own.blur_limit)},
    "GaussNoise": {"mean_range 0": lambda own: not np.any(own.mean_range)},
    "CoarseDropout": {
        "one hole": lambda own: tuple(own.num_holes_range) == (1, 1),
        "fill random_uniform": lambda own: own.fill == "random_uniform",
        "sizes as shares of the side": lambda own: (
            max(own.hole_height_range[1], own.hole_width_range[1]) <= 1
        ),
    },
}
"""Options that a transform must have here, in words."""
