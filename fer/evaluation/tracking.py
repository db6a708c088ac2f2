"""Faces followed from frame to frame of a video, and what a network says of each over time."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fer.core import labels
from fer.data.detection import OVERLAP, Box, Face, overlap
from fer.evaluation.prediction import Prediction

GAP = 1.0
"""Seconds without it after which a face that comes back is a new one."""
MOST = 6
"""Faces that are shown of a video."""


class Tracker:
    """Gives the faces of one frame after the other numbers, from 1, that stay with them.

    A face is the one whose box it overlaps most, by more than
    :data:`~fer.data.detection.OVERLAP` (intersection over union), among those of the frame before
    and those that were last seen at most :data:`GAP` ago. Nothing else tells one face from another.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Face, float]] = {}
        self._before = 0.0
        self._count = 0

    def number(self, boxes: Sequence[Box], seconds: float) -> list[int]:
        """The number of each face of the next frame, which is at this time."""
        oldest = min(self._before, seconds - GAP)
        self._known = {n: seen for n, seen in self._known.items() if seen[1] >= oldest}
        self._before = seconds
        faces = [Face(x, y, max(width, height), 1.0) for x, y, width, height in boxes]
        pairs = [
            (overlap(face, other), index, number)
            for index, face in enumerate(faces)
            for number, (other, _) in self._known.items()
        ]
        numbers: dict[int, int] = {}
        for share, index, number in sorted(pairs, reverse=True):
            if share > OVERLAP and index not in numbers and number not in numbers.values():
                numbers[index] = number
        for index, face in enumerate(faces):
            if index not in numbers:
                self._count += 1
                numbers[index] = self._count
            self._known[numbers[index]] = face, seconds
        return [numbers[index] for index in range(len(faces))]


@dataclass
class Appearance:
    """A face over time."""

    first: float
    """When it was first seen, in seconds."""
    last: float = 0.0
    """When it was last seen."""
    counts: Counter[str] = field(default_factory=Counter)
    """Frames by their most probable emotion."""
    _points: array[float] = field(default_factory=lambda: array("f"))
    _looked: int = 0

    def add(self, looked: int, seconds: float, face: Prediction, *, keep: bool) -> None:
        """Add a frame.

        Args:
            looked: number of the frame among those that are looked at.
            seconds: its time.
            face: what is said of the face there.
            keep: keep the probabilities for :attr:`curve`, in 32 bytes.
        """
        self.last = seconds
        self.counts[face.emotion] += 1
        if keep:
            if self._points and looked > self._looked + 1:
                self._points.extend([math.nan] * (1 + labels.NUM_CLASSES))
            self._points.extend((seconds, *face.probabilities.values()))
        self._looked = looked

    @property
    def frames(self) -> int:
        """Frames in which it was found."""
        return sum(self.counts.values())

    @property
    def shares(self) -> list[tuple[str, float]]:
        """Emotions that were the most probable, with their shares of the frames, by these."""
        return [(emotion, n / self.frames) for emotion, n in self.counts.most_common()]

    @property
    def curve(self) -> np.ndarray:
        """``(N, 8)`` float32: seconds and probabilities; a row of NaN where it was not found."""
        return np.asarray(self._points, np.float32).reshape(-1, 1 + labels.NUM_CLASSES)


def longest(faces: Mapping[int, Appearance]) -> list[int]:
    """The numbers of the :data:`MOST` faces that stay longest, in their order."""
    return sorted(sorted(faces, key=lambda number: -faces[number].frames)[:MOST])
