"""Damage to images: pure functions of (image, parameters, seed, sample id).

They act on uint8 images at the network's input size, before normalisation: noise that is added to a
larger image is averaged away while it shrinks. Lengths are shares of the image's side, so that 48
and 64 pixels are damaged alike. Random numbers (the place of a patch, the grain of noise) come from
a generator of the image's own, which depends on the seed, the perturbation's name and the sample id
alone: every network, run and machine sees the same damage, and the severities of one perturbation
share their random numbers, so that a larger patch covers the smaller one.

A perturbation is a function of images ``(N, H, W, C)`` uint8, their :class:`Draws` and parameters
that returns a new array. A new one is such a function here (or anywhere that Python can import) and
a YAML file in ``conf/perturbation``.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import cv2
import numpy as np

from fer.core.errors import ConfigError, first_line
from fer.core.options import whole
from fer.core.values import Options

MAX_SEVERITY = 5
GAMMA = 2.2
"""Exponent from stored values to light, close to sRGB's curve (IEC 61966-2-1)."""


class Draws:
    """A random generator for each image of a batch, made when it is asked for.

    Args:
        name: name of the perturbation.
        ids: sample id of each image.
        seed: another seed damages every image in another place.

    >>> first, other = Draws("noise", ["a", "b"], 0), Draws("noise", ["b"], 0)
    >>> float(first[1].random()) == float(other[0].random())
    True
    """

    def __init__(self, name: str, ids: Sequence[str], seed: int) -> None:
        self.name = name
        self.ids = ids
        self.seed = seed

    def __getitem__(self, index: int) -> np.random.Generator:
        text = f"{self.seed}\0{self.name}\0{self.ids[index]}".encode("utf-8", "surrogateescape")
        key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        # Counter-based: cheap to start, and the same numbers on every platform.
        return np.random.Generator(np.random.Philox(key=key))


Function = Callable[..., np.ndarray]
"""``(images (N, H, W, C) uint8, draws, **parameters)`` → damaged images, a new array."""


# --- the functions -------------------------------------------------------------------------------


def gaussian_blur(
    images: np.ndarray, draws: Draws, *, sigma: float | None = None, kernel: int | None = None
) -> np.ndarray:
    """Blur with a Gaussian.

    Args:
        sigma: standard deviation as a share of the side; None for torchvision's choice for a
            kernel, 0.3 ((kernel - 1) / 2 - 1) + 0.8 pixels.
        kernel: taps on a side, odd, in pixels; None for as many as eight bits can tell apart.

    Raises:
        ConfigError: neither is given, or the kernel is even.
    """
    if sigma is None and kernel is None:
        raise ConfigError("gaussian_blur: expected sigma or kernel, found neither. Give one.")
    if kernel is not None and (kernel < 1 or kernel % 2 == 0):
        raise ConfigError(f"gaussian_blur: expected an odd kernel, found {kernel}.")
    # Written out: given a sigma of 0, OpenCV takes another, fixed kernel for up to 7 taps.
    usual = 0.3 * ((kernel or 0) / 2 - 1.5) + 0.8
    pixels = usual if sigma is None else sigma * images.shape[1]
    size = (kernel or 0, kernel or 0)
    return _each(images, lambda image, _: cv2.GaussianBlur(image, size, pixels))


def motion_blur(images: np.ndarray, draws: Draws, *, length: float) -> np.ndarray:
    """Blur along a straight path in a random direction, as if the head or camera had moved.

    ``length`` is that of the path, as a share of the side.
    """
    reach = length * images.shape[1]
    size = 2 * int(np.ceil(reach / 2)) + 1
    # Many points along the path, each shared out between the pixels around it.
    steps = np.linspace(-reach / 2, reach / 2, 8 * size)

    def blur(image: np.ndarray, index: int) -> np.ndarray:
        angle = np.pi * draws[index].random()
        kernel = np.zeros((size + 2, size + 2))
        x = size / 2 + 0.5 + steps * np.cos(angle)
        y = size / 2 + 0.5 + steps * np.sin(angle)
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = np.abs(1 - down - (y - row)) * np.abs(1 - right - (x - column))
            np.add.at(kernel, (row + down, column + right), weight)
        return cv2.filter2D(image, -1, kernel / kernel.sum())

    return _each(images, blur)


def occlusion(images: np.ndarray, draws: Draws, *, size: float, fill: float = 0.0) -> np.ndarray:
    """Cover a square at a random place, wholly inside the image.

    A larger square covers the smaller one of the same image.

    Args:
        size: side of the square as a share of the image's.
        fill: its brightness, 0 (black) to 1.
    """
    height, width = images.shape[1:3]
    rows, columns = round(size * height), round(size * width)
    covered = images.copy()
    for index in range(len(images)):
        down, right = draws[index].random(2)
        top, left = round(down * (height - rows)), round(right * (width - columns))
        covered[index, top : top + rows, left : left + columns] = round(255 * fill)
    return covered


def band(
    images: np.ndarray, draws: Draws, *, centre: float, height: float, fill: float = 0.0
) -> np.ndarray:
    """Cover a horizontal band over the whole width, as over the eyes or the mouth.

    Args:
        centre: middle of the band, from the top, as a share of the side.
        height: its height, as a share of the side.
        fill: its brightness, 0 (black) to 1.
    """
    side = images.shape[1]
    covered = images.copy()
    top, bottom = round((centre - height / 2) * side), round((centre + height / 2) * side)
    covered[:, max(0, top) : max(0, bottom)] = round(255 * fill)
    return covered


def low_light(
    images: np.ndarray, draws: Draws, *, gain: float, photons: float, gamma: float = GAMMA
) -> np.ndarray:
    """Less light on the sensor, with the photon noise that comes with it.

    Stored values are turned into light (gamma), the light is dimmed (gain), photons are counted
    (Poisson noise), and the count is stored again; noise of the electronics is left out. After the
    Poissonian part of Foi et al., "Practical Poissonian-Gaussian Noise Modeling and Fitting for
    Single-Image Raw-Data", IEEE TIP 17(10), 2008.

    Args:
        gain: share of the light that is left, 0 to 1.
        photons: that a white pixel would collect in full light.
        gamma: exponent from stored values to light.
    """
    expected = gain * photons * (np.arange(256) / 255) ** gamma  # of each stored value
    # More than white cannot be stored; the table ends there.
    stored = np.rint(
        255 * np.minimum(1, np.arange(int(photons) + 2) / photons) ** (1 / gamma)
    ).astype(np.uint8)
    dimmed = np.empty_like(images)
    for index, image in enumerate(images):
        counts = draws[index].poisson(expected[image])
        dimmed[index] = stored[np.minimum(counts, len(stored) - 1)]
    return dimmed


def gaussian_noise(images: np.ndarray, draws: Draws, *, std: float) -> np.ndarray:
    """Add independent Gaussian noise, ``std`` as a share of the largest value, to every value."""
    shape = images.shape[1:]

    def add(image: np.ndarray, index: int) -> np.ndarray:
        noise = draws[index].standard_normal(shape, dtype=np.float32)
        return _to_uint8(image + np.float32(255 * std) * noise)

    return _each(images, add)


def contrast(images: np.ndarray, draws: Draws, *, factor: float) -> np.ndarray:
    """Bring every value closer to its image's mean: ``factor`` of the contrast is left, 0 to 1."""
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    return _to_uint8(mean + factor * (images - mean))


def brightness(images: np.ndarray, draws: Draws, *, factor: float) -> np.ndarray:
    """Multiply every value by ``factor``; what exceeds white is cut off."""
    return _to_uint8(np.arange(256) * factor)[images]


def jpeg(images: np.ndarray, draws: Draws, *, quality: int) -> np.ndarray:
    """Compress as JPEG of libjpeg's ``quality``, 1 to 100, and decode again."""
    colour = images.shape[-1] == 3
    flag = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE

    def compress(image: np.ndarray, _: int) -> np.ndarray:
        # OpenCV's order of channels is BGR.
        source = np.ascontiguousarray(image[..., ::-1]) if colour else image
        _, data = cv2.imencode(".jpg", source, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = np.asarray(cv2.imdecode(data, flag))
        return decoded[..., ::-1] if colour else decoded

    return _each(images, compress)


def rotation(images: np.ndarray, draws: Draws, *, degrees: float) -> np.ndarray:
    """Turn around the centre, to a random side; the border is repeated outwards."""
    height, width = images.shape[1:3]

    def turn(image: np.ndarray, index: int) -> np.ndarray:
        sign = 1 if draws[index].random() < 0.5 else -1
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), sign * degrees, 1.0)
        return _warp(image, matrix)

    return _each(images, turn)


def shift(images: np.ndarray, draws: Draws, *, distance: float) -> np.ndarray:
    """Move by ``distance``, a share of the side, in a random direction; the border is repeated."""
    pixels = distance * images.shape[1]

    def move(image: np.ndarray, index: int) -> np.ndarray:
        angle = 2 * np.pi * draws[index].random()
        along_x, along_y = pixels * np.cos(angle), pixels * np.sin(angle)
        return _warp(image, np.array([[1, 0, along_x], [0, 1, along_y]]))

    return _each(images, move)


def _each(images: np.ndarray, function: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """``function(image, index)`` of every image; OpenCV drops the last axis of gray ones."""
    result = np.empty_like(images)
    for index, image in enumerate(images):
        result[index] = function(image, index).reshape(image.shape)
    return result


def _warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(
        image,
        matrix,
        (image.shape[1], image.shape[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# --- from a configuration to what is measured ----------------------------------------------------


class Published(TypedDict):
    """A published accuracy under damage."""

    images: int
    accuracy: float
    """A fraction."""


@dataclass(frozen=True)
class Setting:
    """One perturbation at one severity."""

    perturbation: str
    severity: int
    """1 is the weakest."""
    parameters: Options
    function: Function
    image_size: int | None = None
    """Side in pixels at which it acts, before the image is brought to the network's size; None for
    that size itself."""
    reference: dict[str, Published] | None = None
    """Dataset → what another network has there."""

    def __call__(self, images: np.ndarray, ids: Sequence[str], seed: int) -> np.ndarray:
        """Damage images ``(N, H, W, C)`` uint8 into a new array; ids decide what is random.

        Raises:
            ConfigError: the function fails, or returns something other than images of this form.
        """
        try:
            found = self.function(images, Draws(self.perturbation, ids, seed), **self.parameters)
        except Exception as error:  # of somebody's function, that may be anything
            raise ConfigError(
                f"perturbation.{self.perturbation}: expected damaged images, found that the "
                f"function fails: {first_line(error)}. Let it change a copy: images.copy()"
            ) from error
        if getattr(found, "shape", None) != images.shape or found.dtype != np.uint8:
            what = f"{getattr(found, 'shape', type(found).__name__)} {getattr(found, 'dtype', '')}"
            raise ConfigError(
                f"perturbation.{self.perturbation}: expected images {images.shape} uint8, found "
                f"{what.strip()}. Return a uint8 array of the same shape."
            )
        return found


def make_settings(
    perturbations: Mapping[str, Any],
    severities: Sequence[int] | None,
    load: Callable[[str], Function],
) -> list[Setting]:
    """List what a ``perturbation`` configuration asks for.

    Args:
        perturbations: name → ``_target_``, ``severities`` (parameters of each, weakest first),
            and perhaps ``image_size`` and ``reference`` (dataset → ``images``, how many, and the
            ``accuracy`` of each severity).
        severities: the chosen ones; None for all.
        load: finds a function by its dotted name.

    Raises:
        ConfigError: an entry is malformed, a severity is out of range, or a function does not
            accept its parameters.
    """
    settings = []
    for name, node in perturbations.items():
        _check_node(f"perturbation.{name}", node)
        steps = node["severities"]
        chosen = range(1, len(steps) + 1) if severities is None else sorted(set(severities))
        if not chosen or not all(whole(1, len(steps))[1](severity) for severity in chosen):
            raise ConfigError(
                f"robustness.severities: expected whole numbers from 1 to {len(steps)} for "
                f"{name}, found {list(severities or [])}. Leave it out for all of them."
            )
        function = load(node["_target_"])
        for severity in chosen:
            parameters = dict(steps[severity - 1] or {})
            try:
                inspect.signature(function).bind(None, None, **parameters)
            except TypeError as error:
                raise ConfigError(
                    f"perturbation.{name}.severities: {node['_target_']} does not accept "
                    f"{parameters}: {error}."
                ) from error
            reference: dict[str, Published] = {
                dataset: {
                    "images": published["images"],
                    "accuracy": published["accuracy"][severity - 1],
                }
                for dataset, published in (node.get("reference") or {}).items()
            }
            size = node.get("image_size")
            settings.append(Setting(name, severity, parameters, function, size, reference or None))
    return settings


def _check_node(key: str, node: Any) -> None:
    if not isinstance(node, Mapping) or not {"_target_", "severities"} <= node.keys():
        raise ConfigError(
            f"{key}: expected a function (_target_) and its severities, found {node!r}."
        )
    unknown = node.keys() - {"_target_", "severities", "image_size", "reference"}
    if unknown:
        raise ConfigError(
            f"{key}: expected _target_, severities, image_size and reference, found "
            f"{', '.join(sorted(unknown))}."
        )
    steps, size = node["severities"], node.get("image_size")
    if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_SEVERITY:
        raise ConfigError(
            f"{key}.severities: expected a list of 1 to {MAX_SEVERITY} parameter sets, the "
            f"weakest first, found {steps!r}."
        )
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ConfigError(f"{key}.image_size: expected pixels, or null, found {size!r}.")
    for dataset, published in (node.get("reference") or {}).items():
        found = published.get("accuracy") if isinstance(published, Mapping) else None
        if not isinstance(found, list) or len(found) != len(steps) or "images" not in published:
            raise ConfigError(
                f"{key}.reference.{dataset}: expected the number of images and, as accuracy, "
                f"one for each of the {len(steps)} severities, found {published!r}."
            )
