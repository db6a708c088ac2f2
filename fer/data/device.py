"""Augmentation of whole batches on the device, for GPUs that would wait for the CPU.

The policy is that of the ``augmentation`` configuration: ranges and probabilities are read from its
albumentations transforms. The distribution is the same, the random numbers are not.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from fer.core.errors import ConfigError
from fer.data.dataset import (
    Batch,
    EmotionDataset,
    EpochSampler,
    identity_collate,
    own_generator,
)

log = logging.getLogger(__name__)


class Images:
    """Images while they are augmented, and the random numbers for that.

    Args:
        values: ``(N, C, H, W)`` float 0–1.
        generator: on their device.
    """

    def __init__(self, values: torch.Tensor, generator: torch.Generator) -> None:
        self.values = values
        self.generator = generator

    def uniform(self, limits: Sequence[float]) -> torch.Tensor:
        """A number for each image, ``(N, 1, 1, 1)``."""
        # Made where the images are: a copy from the CPU would wait for the step before.
        numbers = torch.empty(len(self.values), 1, 1, 1, device=self.values.device)
        return numbers.uniform_(*limits, generator=self.generator)

    def normal(self) -> torch.Tensor:
        """A standard normal number for each pixel."""
        return torch.empty_like(self.values).normal_(generator=self.generator)

    def replace(self, changed: torch.Tensor, p: float) -> None:
        """Take the changed images with probability ``p`` each."""
        self.values = torch.where(self.uniform((0, 1)) < p, changed, self.values)


Operation = Callable[[Images], None]
"""Changes images in place of a transform."""


class DeviceDataset(EmotionDataset):
    """One split as a uint8 tensor on the device, augmented many images at a time.

    Args:
        dataset: the split; its own augmentation is replaced.
        transforms: albumentations transforms of the policy, in order.
        device: where images and targets are kept.

    Raises:
        ConfigError: a transform is not known here.
    """

    def __init__(
        self, dataset: EmotionDataset, transforms: Sequence[Any], device: torch.device
    ) -> None:
        super().__init__(dataset.source, dataset.targets, dataset.ids, rows=dataset.rows)
        self.operations = [translate(transform) for transform in transforms]
        self.pixels, self.labels = move(dataset, device)

    def soften(self, shares: np.ndarray) -> None:
        """Give batches the shares of votes ``(N, 7)`` float32 for targets, or emotions ``(N,)``."""
        super().soften(shares)
        self.labels = torch.from_numpy(shares).to(self.labels.device)

    def augmented(self, rows: torch.Tensor, generator: torch.Generator) -> Batch:
        """Augmented images float 0–1 and targets of some rows, all of it on the device."""
        images = Images(self.pixels[rows].float() / 255, generator)
        for operation in self.operations:
            operation(images)
        return images.values, self.labels[rows]


def move(dataset: EmotionDataset, device: torch.device) -> Batch:
    """Images ``(N, C, H, W)`` uint8 as they are, and targets ``(N,)`` int64, on the device."""
    images = torch.from_numpy(dataset.read(np.arange(len(dataset)))).to(device)  # (N, H, W, C)
    # Channels-last in memory, as convolutions want them.
    return images.permute(0, 3, 1, 2), torch.from_numpy(dataset.targets).to(device)


class DeviceLoader(DataLoader[Any]):
    """Training batches that are augmented a chunk at a time, where the images are.

    The random numbers of an epoch depend on seed, epoch and the number of images of a chunk. They
    are the same whether the loader gives chunks, of which a training step takes as many optimizer
    steps, or their batches.

    Args:
        dataset: kept on a device.
        sampler: orders it.
        batch_size: images of a batch.
        chunk: batches that are augmented at once; the last chunk of an epoch may be smaller.
        whole: give chunks instead of batches.
    """

    def __init__(
        self,
        dataset: DeviceDataset,
        sampler: EpochSampler,
        batch_size: int,
        chunk: int,
        whole: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=identity_collate,
            generator=own_generator(),
        )
        self.images, self.order, self.size = dataset, sampler, batch_size
        self.chunk, self.whole = chunk, whole

    @property
    def steps_at_once(self) -> int:
        """Training steps for which it gives images at once."""
        return self.chunk if self.whole else 1

    def __len__(self) -> int:
        batches = len(self.order) // self.size
        return -(-batches // self.steps_at_once)

    def __iter__(self) -> Any:
        """Images ``(N, C, H, W)`` float 0–1 and their targets."""
        return self._fetch()

    def _fetch(self) -> Iterator[Batch]:  # runs from the first batch on, when the epoch is known
        device = self.images.labels.device
        seed = np.random.SeedSequence([self.order.seed, self.order.epoch, 1]).generate_state(1)
        generator = torch.Generator(device).manual_seed(int(seed[0]))
        rows = torch.from_numpy(self.order.rows()).to(device)
        for part in rows.split(self.size * self.chunk):
            images, targets = self.images.augmented(part, generator)
            if self.whole:
                yield images, targets
            else:
                yield from zip(images.split(self.size), targets.split(self.size), strict=True)


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
    return functools.partial(OPERATIONS[kind], transform)


def are_known(transforms: Sequence[Any]) -> bool:
    """True if the device has an operation for each transform."""
    try:
        for transform in transforms:
            translate(transform)
    except ConfigError as error:
        log.info("Images are augmented on the CPU: %s", error)
        return False
    return True


def fits(device: torch.device, images: tuple[int, ...], chunk: int) -> bool:
    """True if a GPU has room for images of this shape, ``chunk`` of which are augmented at once.

    If not, a line in the log says so. Half of the free memory is left to the network.
    """
    if device.type != "cuda":
        return True
    # A chunk in single precision, its grid, and what an operation makes of it.
    needed = math.prod(images) + 6 * 4 * chunk * math.prod(images[1:])
    free = torch.cuda.mem_get_info(device)[0]
    if needed > free / 2:
        log.warning(
            "Training images stay on the CPU: they need %.1f GB on %s, which has %.1f GB free, "
            "half of them for the network. loader.on_device=false leaves out this line",
            needed / 1e9,
            device,
            free / 1e9,
        )
    return needed <= free / 2


def flip(transform: Any, images: Images) -> None:
    """HorizontalFlip."""
    images.replace(images.values.flip(-1), transform.p)


def affine(transform: Any, images: Images) -> None:
    """Affine: scale, then rotation, then shift by a share of the side, about the centre."""
    share = transform.translate_percent or {"x": (0.0, 0.0), "y": (0.0, 0.0)}
    size = images.values.shape[-1]
    limits = (transform.rotate, *(transform.scale[k] for k in "xy"), *(share[k] for k in "xy"))
    angle, scale_x, scale_y, x, y = (images.uniform(own).flatten() for own in limits)
    angle = torch.deg2rad(angle)
    cos, sin = angle.cos(), angle.sin()
    # Where each pixel comes from: the transform's inverse, in the coordinates of affine_grid,
    # which go from -1 to 1 between the centres of the outermost pixels.
    to_x = torch.stack([cos / scale_x, -sin / scale_x], dim=1)
    to_y = torch.stack([sin / scale_y, cos / scale_y], dim=1)
    back = torch.stack([to_x, to_y], dim=1)  # (N, 2, 2)
    shift = torch.stack([x, y], dim=1)[..., None] * (2 * size / (size - 1))
    theta = torch.cat([back, -(back * shift.transpose(1, 2)).sum(2, keepdim=True)], dim=2)
    grid = functional.affine_grid(theta, list(images.values.shape), align_corners=True)
    images.replace(functional.grid_sample(images.values, grid, align_corners=True), transform.p)


def light(transform: Any, images: Images) -> None:
    """RandomBrightnessContrast: contrast times the image, plus brightness, cut off at 0 and 1."""
    contrast = 1 + images.uniform(transform.contrast_limit)
    brightness = images.uniform(transform.brightness_limit)
    images.replace((images.values * contrast + brightness).clamp(0, 1), transform.p)


def blur(transform: Any, images: Images) -> None:
    """GaussianBlur whose kernel follows sigma (``blur_limit: 0``), its edges mirrored."""
    radius = round(3.5 * transform.sigma_limit[1])
    sigma = images.uniform(transform.sigma_limit)
    places = torch.arange(-radius, radius + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (places / sigma) ** 2)  # (N, 1, 1, 2 radius + 1)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    blurred = images.values
    # Sums of shifted images: a convolution with a kernel for each image would be a slow one.
    for axis, edges in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        size = blurred.shape[axis]
        padded = functional.pad(blurred, edges, mode="reflect")
        blurred = torch.zeros_like(blurred)
        for i in range(2 * radius + 1):
            blurred.addcmul_(padded.narrow(axis, i, size), weights[..., i : i + 1])
    images.replace(blurred, transform.p)


def noise(transform: Any, images: Images) -> None:
    """GaussNoise with a standard deviation of its own for each image."""
    std = images.uniform(transform.std_range)
    images.replace((images.values + std * images.normal()).clamp(0, 1), transform.p)


def occlusion(transform: Any, images: Images) -> None:
    """CoarseDropout with one hole of a random gray level inside the image."""
    pixels = images.values
    hole = torch.ones_like(pixels[:, :1], dtype=torch.bool)
    for axis, limits in ((2, transform.hole_height_range), (3, transform.hole_width_range)):
        size = pixels.shape[axis]
        length = (images.uniform(limits) * size).floor().clamp(min=1)
        start = (images.uniform((0, 1)) * (size - length + 1)).floor()
        place = torch.arange(size, device=pixels.device)
        place = place.view((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
        hole = hole & (place >= start) & (place < start + length)
    gray = torch.cat([images.uniform((0, 1)) for _ in range(pixels.shape[1])], dim=1)
    images.replace(torch.where(hole, gray, pixels), transform.p)


OPERATIONS: dict[str, Callable[[Any, Images], None]] = {
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
