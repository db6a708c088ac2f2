"""How images look, in a few numbers each: size, gray levels, detail at five scales, a hash.

They are made for comparing two copies of one picture, or two splits of one dataset.
"""

from __future__ import annotations

import functools
import itertools

import cv2
import numpy as np

HASH_SIDE = 32
HASH_BITS = 127
HASH_BYTES = 16
BAND_EDGES = (0.5, 6.0, 12.0, 20.0, 32.0, np.inf)
"""Distances from the origin of a 48 x 48 discrete cosine transform. A coefficient at distance r
has a wavelength of 96 / r pixels: the bands hold structures of more than 16 pixels, 16 to 8, 8 to
4.8, 4.8 to 3, and the finest. A larger picture has the same wavelengths in its bands."""
COARSE, DETAIL, FINEST = 0, 2, 4
"""The bands that are compared."""
FLOOR = 0.015
"""Gray levels; rounding to whole gray levels leaves less than this in a flat picture."""
CONTENT = float(np.log(2.0))
"""A picture whose coarse structures are weaker than this, as a logarithm, shows nothing."""
DEFAULT_SIDE = 96
LOOKS = np.dtype(
    [
        ("size", np.int64, 2),  # width and height
        ("mean", np.float64),  # of the luma (ITU-R 601), in gray levels 0–255
        ("std", np.float64),
        ("bands", np.float32, len(BAND_EDGES) - 1),  # log of the root mean square amplitude
        ("grain", np.float32),  # lower quartile of the absolute Laplacian: noise of flat parts
        ("levels", np.int64),  # distinct gray levels, 1–256
        ("hashes", np.uint8, HASH_BYTES),  # see perceptual_hash
    ]
)
"""The measurements of an image. Those of N images are an array of this type, ``(N,)``."""


def measure(image: np.ndarray, side: int = DEFAULT_SIDE) -> np.ndarray:
    """The :data:`LOOKS` of an image, ``()``.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8.
        side: pixels to which the image is resized before its detail is measured; the same for
            all images that are compared.
    """
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    level = resize(gray, side).astype(np.float32)
    # cv2.dct is orthonormal: divided by the side, an amplitude is in gray levels.
    power = (cv2.dct(level) / side).ravel() ** 2
    mean, std = cv2.meanStdDev(gray)
    looks = np.zeros((), LOOKS)
    looks["size"] = gray.shape[::-1]
    looks["mean"], looks["std"] = mean[0, 0], std[0, 0]
    looks["bands"] = 0.5 * np.log(band_weights(side) @ power + FLOOR**2)
    looks["grain"] = np.percentile(np.abs(cv2.Laplacian(level, cv2.CV_32F)), 25)
    looks["levels"] = np.count_nonzero(np.bincount(gray.ravel()))
    looks["hashes"] = perceptual_hash(gray)
    return looks


def has_content(looks: np.ndarray) -> np.ndarray:
    """``(N,)`` bool: images with enough structure for bands and hash to mean something."""
    return looks["bands"][..., COARSE] > CONTENT


def sharpness(looks: np.ndarray) -> np.ndarray:
    """``(N,)``: amplitude of details of 5 to 8 pixels, relative to structures above 16."""
    return np.exp(looks["bands"][:, DETAIL] - looks["bands"][:, COARSE])


def hex_hash(looks: np.ndarray) -> str:
    """The hash of one image in hex; empty for one without content, whose hash means nothing."""
    return looks["hashes"].tobytes().hex() if has_content(looks) else ""


def working_side(expected_size: int | None) -> int:
    """The side in pixels at which a dataset's images are measured: even, for the transform.

    >>> working_side(48), working_side(100), working_side(None)
    (48, 96, 96)
    """
    return 48 if expected_size is not None and expected_size <= 48 else DEFAULT_SIDE


def resize(gray: np.ndarray, side: int) -> np.ndarray:
    """``gray`` as ``(side, side)``; pixels are averaged where it is larger."""
    if gray.shape == (side, side):
        return gray
    smaller = gray.shape[0] < side or gray.shape[1] < side
    return cv2.resize(
        gray, (side, side), interpolation=cv2.INTER_LINEAR if smaller else cv2.INTER_AREA
    )


@functools.cache
def band_weights(side: int) -> np.ndarray:
    """``(5, side²)`` float32: weights of the mean over each band's coefficients."""
    row, column = np.mgrid[:side, :side]
    distance = (np.hypot(row, column) * 48 / side).ravel()
    if side != 48:  # the first coefficient beside the origin lies below the first edge
        distance[1:] = np.maximum(distance[1:], BAND_EDGES[0])
    inside = np.stack(
        [(distance >= low) & (distance < high) for low, high in itertools.pairwise(BAND_EDGES)]
    )
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


@functools.cache
def hash_order() -> np.ndarray:
    """Flat indices of the first 127 coefficients after the mean, from coarse to fine."""
    row, column = np.mgrid[:HASH_SIDE, :HASH_SIDE]
    return np.lexsort((row.ravel(), (row + column).ravel()))[1 : HASH_BITS + 1]


def perceptual_hash(gray: np.ndarray) -> np.ndarray:
    """The signs of the coarsest structures of an ``(H, W)`` uint8 picture: ``(16,)`` uint8.

    Copies of a picture in other sizes, compressions, brightness or contrast differ in a few bits,
    other pictures in a third of them. This is the DCT hash (Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1) with signs instead of
    the comparison with the median.
    """
    small = resize(gray, HASH_SIDE).astype(np.float32)
    # Not 0: in a flat picture the signs would be those of rounding errors.
    return np.packbits(cv2.dct(small).ravel()[hash_order()] > 0.25)


def hamming(query: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest hash of ``reference`` to each of ``query``.

    Args:
        query: ``(Q, 16)`` uint8.
        reference: ``(R, 16)`` uint8.

    Returns:
        Numbers of differing bits and rows of ``reference``, ``(Q,)`` int32 each. Where there is no
        reference, all bits differ.
    """
    if len(query) == 0 or len(reference) == 0:
        return np.full(len(query), HASH_BITS + 1, np.int32), np.zeros(len(query), np.int32)
    distance, rows = cv2.batchDistance(
        np.ascontiguousarray(query),
        np.ascontiguousarray(reference),
        dtype=cv2.CV_32S,
        normType=cv2.NORM_HAMMING,
        K=1,
    )
    return distance[:, 0], rows[:, 0]
