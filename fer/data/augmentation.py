"""Augmentation on the CPU: an albumentations pipeline, reproducible image by image.

How an image looks in an epoch is a pure function of (seed, epoch, image). The number of workers,
the batch size and what came before do not matter.
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hydra.errors import HydraException
from omegaconf import DictConfig

from fer.core.application import instantiate
from fer.core.composition import compose
from fer.core.errors import ConfigError


class Augmentation:
    """A sequence of albumentations transforms with its random numbers under control.

    Args:
        transforms: albumentations transforms, in the order in which they are applied.
        seed: the run's.

    >>> import numpy as np
    >>> augment = Augmentation([], seed=0)
    >>> augment(np.zeros((48, 48, 1), np.uint8), epoch=0, index=7).shape
    (48, 48, 1)
    """

    def __init__(self, transforms: Sequence[Any], seed: int) -> None:
        import_albumentations()
        import albumentations
        import cv2

        # A worker that is forked while OpenCV's threads exist waits for them for ever; on images of
        # this size they gain nothing.
        cv2.setNumThreads(0)
        self.seed = seed
        own = copy.deepcopy(list(transforms))  # another augmentation may have the same ones
        self.transforms = albumentations.Compose(own).transforms  # which checks them
        # A counter-based generator: setting its counter is a jump to an independent stream, and
        # cheaper than seeding a new one for each image.
        self.bits = np.random.Philox(key=seed)
        self.generator = np.random.Generator(self.bits)
        self.start: Any = dict(self.bits.state)
        self.start["buffer_pos"] = 4  # nothing buffered
        self.start["has_uint32"] = 0
        self.random = BufferedRandom(self.generator)
        # albumentations would seed each transform alike, so that a flip and an occlusion with
        # equal probabilities always came together. Sharing one stream keeps them independent.
        for transform in self.transforms:
            transform.set_random_state(self.generator, self.random)
        self.steps = [(transform, on_image(transform)) for transform in self.transforms]

    def __len__(self) -> int:
        return len(self.transforms)

    def __call__(self, image: np.ndarray, *, epoch: int, index: int) -> np.ndarray:
        """Augment one ``(H, W, C)`` uint8 image; ``index`` is its place in the data set."""
        counter = self.start["state"]["counter"]
        counter[1], counter[2] = index, epoch
        self.bits.state = self.start
        self.random.restart()
        # As in Compose, without its checks for masks and boxes on every image, and of transforms
        # that are not applied: a third of the whole cost.
        for transform, apply in self.steps:
            if self.random.random() < transform.p:
                image = apply(image)
        return image


class BufferedRandom(random.Random):
    """``random.Random`` with a NumPy generator's numbers, the first of which are made in advance.

    Seeding Python's own generator for each image takes an eighth of a policy's time. Whoever moves
    the generator to another state calls :meth:`restart`.
    """

    AHEAD = 32
    """A policy takes fewer; one that takes more goes on with single ones."""

    def __init__(self, generator: np.random.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.restart()

    def restart(self) -> None:
        """Begin with the generator's next numbers."""
        single = self.generator.random
        numbers = itertools.chain(single(self.AHEAD).tolist(), iter(single, None))
        self.random = numbers.__next__  # type: ignore[method-assign]
        self.gauss_next = None  # gauss() makes two and keeps one

    def random(self) -> float:
        """A number from 0 up to 1; :meth:`restart` replaces this method."""
        return self.generator.random()

    def getrandbits(self, k: int, /) -> int:
        """A whole number of ``k`` random bits."""
        if k <= 53:  # as many as random() has
            return int(self.random() * (1 << k))
        return int.from_bytes(self.generator.bytes(-(-k // 8)), "little") >> (-k % 8)

    def __reduce__(self) -> tuple[Any, ...]:
        return BufferedRandom, (self.generator,)


def on_image(transform: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Turn a transform into a function of an image ``(H, W, C)`` that always applies it."""
    from albumentations import BasicTransform

    kind = type(transform)
    if (
        kind.__call__ is not BasicTransform.__call__  # several of them, such as OneOf
        or kind.apply_with_params is not BasicTransform.apply_with_params
        or transform.targets_as_params
    ):
        return functools.partial(apply_whole, transform)
    return functools.partial(apply_alone, transform, transform.targets["image"])


def apply_whole(transform: Any, image: np.ndarray) -> np.ndarray:
    """Call the transform."""
    return transform(force_apply=True, image=image)["image"]


def apply_alone(
    transform: Any, operation: Callable[..., np.ndarray], image: np.ndarray
) -> np.ndarray:
    """Do what the call does for a single image; the rest of it costs a tenth."""
    data = {"image": np.ascontiguousarray(image)}
    params = transform.update_transform_params(transform.get_params(), data)
    params |= transform.get_params_dependent_on_data(params, data)
    return np.ascontiguousarray(operation(data["image"], **params))


def make_transforms(augmentation: DictConfig) -> list[Any]:
    """Make the albumentations transforms of an ``augmentation`` configuration, in order.

    Raises:
        ConfigError: one of them does not exist or does not accept its options.
    """
    import_albumentations()
    return [instantiate(node) for node in augmentation.transforms.values()]


def load_policy(name: str) -> list[Any]:
    """Make the albumentations transforms of ``conf/augmentation/<name>.yaml``, in order.

    Raises:
        ConfigError: there is no such file, or a transform in it cannot be made.
    """
    try:
        composed = compose("train", [f"augmentation='{name}'"])
    except HydraException as error:
        raise ConfigError(
            "transforms: expected the name of a file in conf/augmentation, such as standard, or a "
            f"list of albumentations transforms, found {name!r}: {error}. [] is for none."
        ) from error
    return make_transforms(composed.augmentation)


def import_albumentations() -> None:
    """Import albumentations without its look over the network for a newer version."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations  # noqa: F401
