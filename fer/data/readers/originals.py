"""Faces cut out of RAF-DB's original photographs, or turned so that their eyes are level.

Coordinates of boxes and landmarks refer to the pixels as the file stores them, x to the right and
y down; pixel i covers i to i + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import ExifTags, Image

from fer.core.errors import DataError
from fer.data.images import MAX_PIXELS
from fer.data.readers.sources import FolderSource, Record

ALIGNED_SIDE = 100
EYES = (34 + 38j, 66 + 38j)
"""Places of aligned eyes in the 100 x 100 pixels, as x + y·i: brows and chin are in the picture."""
MAX_OVERSAMPLING = 32
CORRECT = "Correct the file, or obtain it again."
TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""EXIF orientation → swap x and y, then mirror x, then mirror y (Exif 2.32, tag 274)."""


@dataclass
class OriginalSource(FolderSource):
    """Faces of original photographs.

    A record's location is (image below path, annotation file below path, x, y, x, y, …): two
    corners of the box, or five landmarks if there is no margin.
    """

    margin: float | None = None
    """Margin around the box, as a share of its larger side; None: align the eyes."""

    def read(self, record: Record) -> np.ndarray:
        assert isinstance(record.location, tuple)
        name, annotation, *numbers = record.location
        image = super().read(replace(record, location=name))
        with Image.open(self.path / name) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        points = turn(np.reshape(numbers, (-1, 2)).astype(np.float64), orientation, image.shape)
        where = str(self.path / annotation)
        if self.margin is None:
            return align_face(image, points, where)
        return crop_face(image, points, self.margin, where)


def turn(points: np.ndarray, orientation: int, shape: Sequence[int]) -> np.ndarray:
    """``(N, 2)`` points of a stored image in the upright one, whose height and width are given.

    >>> turn(np.array([[1.0, 0.0]]), 6, (4, 3))  # the top of a picture to turn clockwise
    array([[3., 1.]])
    """
    swap, mirror_x, mirror_y = TURNS.get(orientation, TURNS[1])
    x, y = points.T[::-1] if swap else points.T
    return np.stack([shape[1] - x if mirror_x else x, shape[0] - y if mirror_y else y], axis=1)


def crop_face(image: np.ndarray, corners: np.ndarray, margin: float, where: str) -> np.ndarray:
    """The ``(S, S, 3)`` square around a box, with its centre and larger side: no face is distorted.

    Beyond the picture its border is repeated, and no pixel is interpolated.

    Args:
        image: ``(H, W, 3)`` uint8.
        corners: ``(2, 2)`` x and y of two opposite corners of the box.
        margin: what is added on each side, as a share of the box's larger side.
        where: the box's file, for the message.

    Raises:
        DataError: the box lies outside the picture, or is too large to be a face.
    """
    height, width = image.shape[:2]
    low, high = corners.min(axis=0), corners.max(axis=0)
    side = (high - low).max() * (1 + 2 * margin)
    is_outside = (low >= (width, height)).any() or (high <= 0).any()
    if is_outside or side > math.sqrt(MAX_PIXELS):
        found = " ".join(f"{number:g}" for number in (*low, *high))
        raise DataError(
            f"{where}: expected a box in the picture of {width} x {height} pixels, at most "
            f"{math.isqrt(MAX_PIXELS):,} pixels on each side with its margin, found {found}. "
            f"{CORRECT}"
        )
    # Halves are rounded up: round() would place equal boxes differently at odd and even pixels.
    count = max(1, math.floor(side + 0.5))
    left, top = np.floor((low + high - count) / 2 + 0.5).astype(int)
    rows = np.clip(np.arange(top, top + count), 0, height - 1)
    columns = np.clip(np.arange(left, left + count), 0, width - 1)
    return image[np.ix_(rows, columns)]


def align_face(image: np.ndarray, landmarks: np.ndarray, where: str) -> np.ndarray:
    """The ``(100, 100, 3)`` face turned, scaled and moved so that its eyes are at :data:`EYES`.

    Beyond the picture its border is repeated.

    Args:
        image: ``(H, W, 3)`` uint8.
        landmarks: ``(5, 2)`` x and y of the eyes, the tip of the nose, the mouth's corners.
        where: the landmarks' file, for the message.

    Raises:
        DataError: the eyes lie outside the picture or in one place, or the picture is too large.
    """
    height, width = image.shape[:2]
    one, two = (complex(x, y) for x, y in landmarks[:2].tolist())
    inside = all(0 <= eye.real <= width and 0 <= eye.imag <= height for eye in (one, two))
    if not inside or abs(two - one) < 1:
        raise DataError(
            f"{where}: expected two eyes in the picture of {width} x {height} pixels, at least a "
            f"pixel apart, found {one.real:g} {one.imag:g} and {two.real:g} {two.imag:g}. {CORRECT}"
        )
    # Left is the eye that leaves nose and mouth below the line of the eyes. So a face is upright
    # afterwards however far its head is turned, and whichever eye the annotators noted first.
    below = complex(*landmarks[2:].mean(axis=0).tolist())
    if ((two - one).conjugate() * (below - one)).imag < 0:
        one, two = two, one
    left, right = EYES
    # A similarity is z → scale·z + shift in complex numbers. A picture that shrinks is made
    # larger first and averaged: bilinear interpolation alone would skip most of its pixels.
    scale = (right - left) / (two - one)
    oversampling = min(max(1, math.ceil(1 / abs(scale))), MAX_OVERSAMPLING)
    shift = (left - scale * one) * oversampling
    scale *= oversampling
    middle = complex(0.5, 0.5)  # OpenCV counts from the middle of the first pixel
    shift += scale * middle - middle
    matrix = np.array([[scale.real, -scale.imag, shift.real], [scale.imag, scale.real, shift.imag]])
    side = ALIGNED_SIDE * oversampling
    try:
        large = cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    except cv2.error as error:  # sides from 32,767 pixels
        raise DataError(
            f"{where}: expected a picture that OpenCV can turn, found one of {width} x {height} "
            "pixels. Make it smaller, and the landmarks with it."
        ) from error
    return cv2.resize(large, (ALIGNED_SIDE, ALIGNED_SIDE), interpolation=cv2.INTER_AREA)
