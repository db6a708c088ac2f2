"""How an image looks, in a few numbers: size, gray levels, detail at five scales, a hash.

The numbers tell a copy of a picture from another picture, and say what was done to the copy. They
are made for comparing: of two copies of one picture, or of one split with another.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

HASH_SIDE = 32
HASH_BITS = 127
HASH_BYTES = 16
BAND_EDGES = (0.5, 6.0, 12.0, 20.0, 32.0, np.inf)
"""Distances from the origin of a 48 x 48 discrete cosine transform. A coefficient at distance r
has a wavelength of 96 / r pixels, so that the bands hold structures of more than 16 pixels, 16 to
8, 8 to 4.8, 4.8 to 3, and the finest. A larger picture has the same wavelengths in its bands."""
BANDS = len(BAND_EDGES) - 1
COARSE, MEDIUM, DETAIL, FINE, FINEST = range(BANDS)
FLOOR = 0.015
"""Gray levels; what rounding to whole gray levels leaves in a flat picture is below this."""
CONTENT = float(np.log(2.0))
"""A picture has some where its coarse structures are stronger than this, as a logarithm."""
DEFAULT_SIDE = 96


@dataclass(frozen=True)
class Appearance:
    """What is kept of one image."""

    width: int
    height: int
    mean: float
    """Of the luma (ITU-R 601), in gray levels 0–255."""
    std: float
    """The same: a flat picture of any colour has none."""
    bands: tuple[float, ...]
    """Logarithm of the root mean square amplitude in each band of :data:`BAND_EDGES`."""
    grain: float
    """Lower quartile of the absolute Laplacian, in gray levels: how noisy the flat parts are."""
    levels: int
    """Distinct gray levels, 1–256."""
    hash: bytes
    """:data:`HASH_BITS` bits in 16 bytes, see :func:`perceptual_hash`."""

    @classmethod
    def of(cls, image: np.ndarray, side: int = DEFAULT_SIDE) -> Appearance:
        """Measure an image.

        Args:
            image: ``(H, W)`` or ``(H, W, 3)`` uint8.
            side: pixels to which the image is brought before its detail is measured; the same for
                all images that are to be compared.
        """
        height, width = image.shape[:2]
        gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        level = resize(gray, side).astype(np.float32)
        # cv2.dct is orthonormal: divided by the side, an amplitude is in gray levels.
        power = (cv2.dct(level) / side).ravel() ** 2
        bands = 0.5 * np.log(band_weights(side) @ power + FLOOR**2)
        laplacian = np.abs(cv2.Laplacian(level, cv2.CV_32F))
        mean, std = cv2.meanStdDev(gray)
        return cls(
            width,
            height,
            float(mean[0, 0]),
            float(std[0, 0]),
            tuple(bands.tolist()),
            float(np.percentile(laplacian, 25)),
            int(np.count_nonzero(np.bincount(gray.ravel()))),
            perceptual_hash(gray),
        )

    @property
    def phash(self) -> str:
        """The hash in hex; empty for a picture without content, whose bits say nothing."""
        return self.hash.hex() if self.bands[COARSE] > CONTENT else ""


def working_side(expected_size: int | None) -> int:
    """The side at which a dataset's images are measured: even, as the transform needs it.

    >>> working_side(48), working_side(100), working_side(None)
    (48, 96, 96)
    """
    return 48 if expected_size is not None and expected_size <= 48 else DEFAULT_SIDE


def resize(gray: np.ndarray, side: int) -> np.ndarray:
    """``(side, side)``; pixels are averaged where the picture is larger."""
    if gray.shape == (side, side):
        return gray
    smaller = gray.shape[0] < side or gray.shape[1] < side
    return cv2.resize(
        gray, (side, side), interpolation=cv2.INTER_LINEAR if smaller else cv2.INTER_AREA
    )


@functools.cache
def band_weights(side: int) -> np.ndarray:
    """``(5, side²)`` float32: the mean over each band's coefficients."""
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
    """The first 127 coefficients after the mean, from coarse to fine, as flat indices."""
    row, column = np.mgrid[:HASH_SIDE, :HASH_SIDE]
    return np.lexsort((row.ravel(), (row + column).ravel()))[1 : HASH_BITS + 1]


def perceptual_hash(gray: np.ndarray) -> bytes:
    """The signs of the coarsest structures of an ``(H, W)`` uint8 picture, 127 bits in 16 bytes.

    Copies of a picture that differ in size, compression, sharpness, brightness or contrast differ
    in a few bits; other pictures in a third of them. It is the DCT hash (Zauner, "Implementation
    and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1) with the sign in
    the place of the comparison with the median: a mirrored or inverted picture then has a hash
    that follows from the original's (:func:`mirrored`, :func:`inverted`).
    """
    small = resize(gray, HASH_SIDE).astype(np.float32)
    # Not 0: in a flat picture the signs would be those of rounding errors.
    bits = cv2.dct(small).ravel()[hash_order()] > 0.25
    return np.packbits(bits).tobytes()


@functools.cache
def _mirror_mask() -> np.ndarray:
    """Mirroring turns the sign of every coefficient with an odd horizontal frequency."""
    return np.packbits(hash_order() % HASH_SIDE % 2 == 1)


def mirrored(hashes: np.ndarray) -> np.ndarray:
    """``(N, 16)`` uint8 hashes of the same pictures, left and right exchanged."""
    return hashes ^ _mirror_mask()


def inverted(hashes: np.ndarray) -> np.ndarray:
    """``(N, 16)`` uint8 hashes of the same pictures, as negatives."""
    return hashes ^ np.packbits(np.ones(HASH_BITS, dtype=bool))


@dataclass(frozen=True)
class Looks:
    """The appearance of N images, as arrays."""

    size: np.ndarray
    """``(N, 2)`` int64, width and height."""
    mean: np.ndarray
    std: np.ndarray
    bands: np.ndarray
    """``(N, 5)`` float32."""
    grain: np.ndarray
    levels: np.ndarray
    hashes: np.ndarray
    """``(N, 16)`` uint8."""

    @classmethod
    def stack(cls, appearances: Sequence[Appearance]) -> Looks:
        """Arrays of some appearances, in their order."""
        hashes = b"".join(item.hash for item in appearances)
        return cls(
            np.array([(item.width, item.height) for item in appearances]).reshape(-1, 2),
            np.array([item.mean for item in appearances]),
            np.array([item.std for item in appearances]),
            np.array([item.bands for item in appearances], np.float32).reshape(-1, BANDS),
            np.array([item.grain for item in appearances], np.float32),
            np.array([item.levels for item in appearances], np.int64),
            np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES),
        )

    @classmethod
    def join(cls, parts: Sequence[Looks], order: Sequence[int] | None = None) -> Looks:
        """Of several parts one after the other, then in ``order`` if there is one."""
        wanted = slice(None) if order is None else order
        columns = [[getattr(part, field.name) for part in parts] for field in fields(cls)]
        return cls(*(np.concatenate(column)[wanted] for column in columns))

    @property
    def sharpness(self) -> np.ndarray:
        """``(N,)``: amplitude of details of 5 to 8 pixels, relative to structures above 16."""
        return np.exp(self.bands[:, DETAIL] - self.bands[:, COARSE])

    @property
    def has_content(self) -> np.ndarray:
        """``(N,)`` bool: whether there is enough structure for the bands to mean something."""
        return self.bands[:, COARSE] > CONTENT


def hamming(query: np.ndarray, reference: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest hashes of ``reference`` to each of ``query``.

    Args:
        query: ``(Q, 16)`` uint8.
        reference: ``(R, 16)`` uint8.
        k: at least 1; fewer are given where there are fewer.

    Returns:
        Numbers of differing bits ``(Q, k)`` and rows of ``reference`` ``(Q, k)``, nearest first.
    """
    k = min(k, len(reference))
    if len(query) == 0 or k == 0:
        return np.zeros((len(query), 0), np.int32), np.zeros((len(query), 0), np.int32)
    distance, rows = cv2.batchDistance(
        np.ascontiguousarray(query),
        np.ascontiguousarray(reference),
        dtype=cv2.CV_32S,
        normType=cv2.NORM_HAMMING,
        K=k,
    )
    return distance, rows
