"""Face detection in photographs.

The detector is the frontal-face cascade of local binary patterns (Liao et al., *Learning
Multi-scale Block Local Binary Patterns for Face Recognition*, ICB 2007) that ships inside
scikit-image. OpenCV 5 no longer has a cascade classifier or any detector that works without a
download.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from fer.core.errors import ConfigError

Box = tuple[int, int, int, int]
"""x and y of the upper left corner, width and height, in pixels."""
Detector = Callable[[np.ndarray], list[Box]]
"""Finds the boxes of the faces in an image ``(H, W)`` or ``(H, W, 3)`` uint8."""

WINDOW = 24
"""Side of the smallest face that the cascade knows, in pixels."""
SEARCHED = 30
"""Side in pixels that the smallest wanted face is shrunk to: just above :data:`WINDOW`, near which
many faces are missed; more costs time and finds more that is not a face."""
STEP = 1.05
"""Ratio of one searched size to the next."""
ALIKE = 0.4
"""Windows whose intersection over union is above this show the same thing."""


@dataclass(frozen=True)
class Prediction:
    """A network's answer for one face."""

    emotion: str
    """The most probable one."""
    probabilities: dict[str, float]
    """Every emotion's, in the order of :data:`fer.core.labels.EMOTIONS`."""
    box: Box | None = None
    """The box of the face in its picture, without the margin; None if the picture is the face."""
    emotions: tuple[str, ...] | None = None
    """The prediction set, the most probable emotion first; None if sets were not asked for."""

    @property
    def confidence(self) -> float:
        """Probability of :attr:`emotion`."""
        return self.probabilities[self.emotion]


@dataclass(frozen=True)
class FaceDetector:
    """Finds upright frontal faces; call it with an image.

    Args:
        min_size: side of the smallest face, as a share of the picture's shorter side. Half of it
            takes about four times as long.
        neighbours: windows that must agree on a face; more mean fewer false faces and fewer true
            ones.

    Raises:
        ConfigError: a value that cannot work; or, at the first call, no scikit-image.
    """

    min_size: float = 0.1
    neighbours: int = 12

    def __post_init__(self) -> None:
        if not 0 < self.min_size <= 1:
            raise ConfigError(
                f"min size: expected a share of the picture's shorter side, above 0 to 1, found "
                f"{self.min_size}."
            )
        if self.neighbours < 1:
            raise ConfigError(f"neighbours: expected at least 1, found {self.neighbours}.")

    @cached_property
    def _cascade(self) -> Any:
        try:
            from skimage.data import lbp_frontal_face_cascade_filename
            from skimage.feature import Cascade
        except ImportError as error:
            raise ConfigError(
                "finding faces: expected scikit-image, whose face detector is used, found none. "
                'Install it: pip install "fer-lab[faces]"; or take each picture for one cropped '
                "face: --whole"
            ) from error
        return Cascade(lbp_frontal_face_cascade_filename())

    def __call__(self, image: np.ndarray) -> list[Box]:
        """Boxes of the faces in ``(H, W)`` or ``(H, W, 3)`` uint8, the surest first; square."""
        cascade = self._cascade
        picture = Image.fromarray(image).convert("L")
        shorter = min(picture.size)
        scale = min(1.0, SEARCHED / (self.min_size * shorter))
        if scale < 1:
            size = [max(1, round(side * scale)) for side in picture.size]
            picture = picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        largest = min(picture.size)
        smallest = max(WINDOW, round(self.min_size * largest))
        if largest < smallest:
            return []
        windows = cascade.detect_multi_scale(
            np.asarray(picture) / 255,
            scale_factor=STEP,
            step_ratio=1,
            min_size=(smallest, smallest),
            max_size=(largest, largest),
            min_neighbor_number=1,
            intersection_score_threshold=2,  # never reached: every window comes back by itself
        )
        squares = np.array([(w["c"], w["r"], w["width"]) for w in windows], dtype=float)
        return [
            fit(square / scale, image.shape[1], image.shape[0])
            for square in group(squares.reshape(-1, 3), self.neighbours)
        ]


def group(squares: np.ndarray, neighbours: int) -> list[np.ndarray]:
    """Faces that at least ``neighbours`` overlapping windows agree on.

    scikit-image's own grouping leaves boxes inside boxes and does not say how many windows agreed.

    Args:
        squares: ``(N, 3)``, x, y and side of each window.
        neighbours: windows that a face needs.

    Returns:
        x, y and side of each face: the means of its windows. The surest face comes first; one that
        overlaps a surer one's centre, or has its own centre in it, is left out.
    """
    from scipy.sparse.csgraph import connected_components

    if not len(squares):
        return []
    low, side = squares[:, :2], squares[:, 2]
    high = low + side[:, None]
    shared = np.prod(  # of each pair of windows
        (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).clip(min=0), axis=2
    )
    union = side[:, None] ** 2 + side[None] ** 2 - shared
    count, member = connected_components(shared > ALIKE * union, directed=False)
    votes = np.bincount(member, minlength=count)
    faces: list[np.ndarray] = []
    for index in np.argsort(-votes, kind="stable"):
        face = squares[member == index].mean(axis=0)
        if votes[index] >= neighbours and not any(
            has_centre(face, other) or has_centre(other, face) for other in faces
        ):
            faces.append(face)
    return faces


def has_centre(outer: np.ndarray, inner: np.ndarray) -> bool:
    """Tell whether the centre of ``inner`` (x, y, side) lies in ``outer``."""
    centre = inner[:2] + inner[2] / 2
    return bool(((outer[:2] < centre) & (centre < outer[:2] + outer[2])).all())


def fit(square: np.ndarray, width: int, height: int) -> Box:
    """Round a square to whole pixels inside an image."""
    side = max(1, min(round(float(square[2])), width, height))
    x, y = (int(np.clip(round(float(square[i])), 0, (width, height)[i] - side)) for i in (0, 1))
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
