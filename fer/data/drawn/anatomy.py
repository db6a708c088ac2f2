"""The shape of a face: from a person and action units to curves.

Curves are in *face units*: the origin is midway between the eyes, x goes to the image's right, y
down, and 1 is half the width of the head. Eyes lie near x = ±0.42, the mouth near y = 0.78, the
chin near y = 1.25. All is computed for the image's right side (x > 0) and mirrored for the left.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fer.data.drawn.people import Person

Units = Mapping[int, float]
"""Strength of each action unit in a face, 0–1."""
MIRROR = np.array([-1.0, 1.0])
ACROSS = np.linspace(-1, 1, 17)
"""Positions along a lid or a lip, corner to corner."""


def head_outline(person: Person, au: Units) -> np.ndarray:
    """The head's outline, clockwise from the top; the jaw drops with AU26."""
    bottom = 1.25 * person.length + 0.16 * au[26]
    right = np.array(
        [
            *[(0.52, -1.18), (0.90, -0.72), (0.99, -0.15), (0.95, 0.35)],
            *[(person.jaw + 0.06, 0.62 * bottom), (person.chin, 0.94 * bottom)],
        ]
    )
    return curve(
        np.concatenate([[(0, -1.3)], right, [(0, bottom)], right[::-1] * MIRROR]), closed=True
    )


def eye_lids(person: Person, au: Units) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower lid of the right eye, each ``(17, 2)`` from the inner to the outer corner."""
    opening = 1 + 0.8 * au[5] - 0.3 * au[7] - 0.12 * au[6] - 0.45 * au[9]
    upper = 0.115 * person.eye_size * max(opening, 0.35)
    closing = 1 + 0.15 * au[5] - 0.5 * au[7] - 0.75 * au[6] - 0.6 * au[9]
    lower = 0.08 * person.eye_size * max(closing, 0.15)
    # Where the brow's inner end is pulled up alone, the lid's outer part hangs.
    oblique = au[1] * (1 - au[2]) * (1 - au[5])
    arch = 1 - ACROSS**2
    x = person.eye_x + 0.205 * person.eye_size**0.7 * ACROSS
    tilt = (0.03 * oblique - person.eye_tilt) * ACROSS
    hang = oblique * upper * (0.2 + 0.35 * (ACROSS + 1) / 2) * arch
    upper_y = -upper * arch**0.7 * (1 - 0.1 * ACROSS) + tilt + hang
    # Raised cheeks push the lower lid up into an arch.
    lower_y = (lower - 0.06 * au[6] * person.eye_size) * arch + tilt
    lower_y = np.maximum(lower_y, upper_y + 0.025 * arch)
    return np.stack([x, upper_y], 1), np.stack([x, lower_y], 1)


def brow(person: Person, au: Units) -> np.ndarray:
    """Polygon of the right brow."""
    x = np.array([0.15, 0.31, 0.49, 0.68]) - au[4] * np.array([0.06, 0.05, 0.03, 0.0])
    y = person.brow_y + person.brow_arch * np.array([0.0, -0.05, -0.07, 0.0])
    y -= 0.17 * au[1] * np.array([1.0, 0.6, 0.15, -0.1])
    y -= 0.15 * au[2] * np.array([0.1, 0.4, 0.9, 1.0])
    # Against AU1 the corrugator cannot lower the brow: it knits it and makes it oblique.
    y += au[4] * (1 - 0.9 * au[1]) * np.array([0.16, 0.12, 0.04, -0.03])
    y += au[9] * np.array([0.10, 0.07, 0.03, 0.0])
    centre = curve(np.stack([x, y], 1))
    along = np.linspace(0, 1, len(centre))
    half = 0.042 * person.brow_weight * (0.75 + 0.6 * along) * (1 - along**3 * 0.8)
    # The brow stops above the lid.
    lid = eye_lids(person, au)[0]
    ceiling = np.interp(centre[:, 0], lid[:, 0], lid[:, 1]) - 0.05
    centre[:, 1] = np.minimum(centre[:, 1], ceiling - half)
    edge = np.stack([np.zeros_like(half), half], 1)
    return band(centre - edge, centre + edge)


@dataclass(frozen=True)
class Mouth:
    """Edges of the lips, each ``(17, 2)`` from the left to the right corner."""

    top: np.ndarray
    upper: np.ndarray  # lower edge of the upper lip
    lower: np.ndarray  # upper edge of the lower lip
    bottom: np.ndarray
    gap: float  # how far the lips are parted at the middle


def mouth(person: Person, au: Units) -> Mouth:
    """The lips' edges."""
    stretch = 0.32 * au[12] + 0.3 * au[20] - 0.14 * au[23] - 0.06 * au[24] - 0.3 * au[26]
    half = person.mouth_width * (1 + stretch * (1 - 0.2 * au[26]))
    corner = -0.15 * au[12] + 0.13 * au[15] + 0.03 * au[20] + 0.02 * au[23]
    middle = 0.06 * au[12] - 0.05 * au[15] - 0.05 * au[17] - 0.02 * au[23]
    gap = 0.09 * au[25] * (1 + 0.9 * au[12]) + 0.36 * au[26] + 0.04 * au[16]
    thin = 1 - 0.6 * au[23] - 0.35 * au[24] - 0.3 * au[20] - 0.25 * au[12]
    lips = person.lips * max(thin, 0.25)
    arch = 1 - np.abs(ACROSS) ** (2 + 2 * max(au[20], au[23]))  # a stretched mouth is a flat band
    parted = arch ** (1 - 0.5 * au[26])  # a dropped jaw makes it oval
    line = corner + (middle - corner) * arch
    # The nose wrinkler pulls the upper lip up beside its middle.
    sneer = au[9] * (0.05 * arch + 0.05 * np.exp(-(((np.abs(ACROSS) - 0.45) / 0.25) ** 2)) * arch)
    share = 0.3 + 0.15 * au[26]
    upper = line - share * gap * parted - sneer
    lower = line + (1 - share) * gap * parted + 0.05 * au[16] * arch - 0.02 * au[17] * arch
    lower = np.maximum(lower - sneer * (1 - max(au[16], au[25])), upper)
    bow = 0.25 * np.exp(-((np.abs(ACROSS) / 0.16) ** 2))  # the dip of the cupid's bow
    top = upper - 0.065 * lips * (1 - bow) * arch**0.7
    bottom = lower + (0.09 * lips + 0.03 * au[16] + 0.02 * au[17]) * arch**0.8
    x, y = half * ACROSS, person.mouth_y * person.length + 0.08 * au[26]
    top, upper, lower, bottom = (np.stack([x, y + e], 1) for e in (top, upper, lower, bottom))
    return Mouth(top, upper, lower, bottom, gap=float(np.max(lower[:, 1] - upper[:, 1])))


def nose(person: Person, au: Units) -> tuple[np.ndarray, np.ndarray]:
    """Lower edge of the nose from wing to wing, and the centre of the right nostril ``(2,)``."""
    width = person.nose_width * (1 + 0.18 * au[9] + 0.08 * au[12])
    y = person.nose_y * person.length - 0.05 * au[9]
    right = np.array([(0.42, 0.045), (0.78, 0.03), (1.0, -0.02), (0.98, -0.09), (0.8, -0.13)])
    right = right * (width, 1)
    edge = np.concatenate([right[::-1] * MIRROR, [(0, 0.075)], right])
    return curve(edge + np.array([0, y])), np.array([0.5 * width, y + 0.015])


def folds(person: Person, au: Units) -> list[tuple[np.ndarray, float]]:
    """Wrinkles and folds of the right half: control points of a curve, and its depth, 0–1."""
    lips = mouth(person, au)
    corner, wing, lid = lips.upper[-1], nose(person, au)[0][-1], eye_lids(person, au)[1]
    old = {3: 0.25, 4: 0.5}.get(person.age, 0.0)
    smile = max(au[12], 0.8 * au[9], 0.5 * au[15], 0.7 * old)
    pouch = max(au[6], 0.8 * au[7], 0.7 * au[9], old)
    knit = max(au[4], 0.5 * au[9])
    raised = max(0.6 * au[1], 0.6 * au[2], 0.6 * old)
    crow = max(0.8 * au[6], 0.6 * old)
    x, below = person.eye_x, lid[:, 1].max() + 0.075
    cheek = (corner[0] + wing[0]) / 2 + 0.12 + 0.09 * au[12], (corner[1] + wing[1]) / 2 - 0.03
    chin = lips.bottom[8, 1] + 0.09
    reach = 0.55 if au[2] > 0.4 or old else 0.3
    forehead = [-0.55 - 0.09 * step - 0.03 * au[2] for step in range(3)]

    def at(point: np.ndarray, right: float, down: float) -> tuple[float, float]:
        return point[0] + right, point[1] + down

    found: list[tuple[object, float]] = [
        # from the wing of the nose around the mouth
        ([at(wing, 0.05, 0), cheek, at(corner, 0.1, 0.05)], 0.9 * smile),
        ([at(corner, 0.02, 0), at(corner, 0.05, 0.09)], 0.9 * au[15]),
        # below the eye, and beside it (crow's feet)
        ([(x - 0.15, below - 0.02), (x, below + 0.02), (x + 0.17, below - 0.03)], 0.4 * pouch),
        *(
            ([at(lid[-1], 0.05, rise / 3), at(lid[-1], 0.15, rise)], crow)
            for rise in (-0.08, 0.0, 0.08)
        ),
        # between the brows, on the bridge of the nose and at its wings
        ([(0.055, -0.38), (0.05, -0.28), (0.06, -0.18)], 0.9 * knit),
        *(
            ([(0, y), (0.08, y - 0.02), (0.14, y - 0.05)], au[9] ** 1.5)
            for y in (-0.04, 0.045, 0.13)
        ),
        ([at(wing, 0.03, -0.03), at(wing, 0.06, -0.12), at(wing, 0.02, -0.2)], 0.9 * au[9]),
        # above the chin, and across the forehead
        ([(0, chin), (0.1, chin + 0.01), (0.17, chin + 0.06)], max(0.3, 0.8 * au[17])),
        *(([(0, y + 0.02), (0.6 * reach, y), (reach, y + 0.03)], raised) for y in forehead),
    ]
    return [(np.asarray(points, float), depth) for points, depth in found if depth > 0.15]


def relief(person: Person, au: Units) -> np.ndarray:
    """Soft light and shadow: rows of x, y, radius along x, along y, and amount (dark < 0)."""
    lips = mouth(person, au)
    corner, bottom = lips.upper[-1], lips.bottom[8, 1]
    cheek = max(au[6], au[12])
    nose_y = person.nose_y * person.length
    right = np.array(
        [
            (person.eye_x - 0.02, -0.1, 0.26, 0.13, -0.16),  # the eye's socket
            (person.eye_x - 0.23, -0.02, 0.08, 0.16, -0.13),
            (0.55, 0.36 - 0.06 * cheek, 0.2, 0.15, 0.08 + 0.16 * cheek),
            (0.62, 0.68, 0.16, 0.3, -0.10 - 0.06 * cheek),
            (0.13, nose_y - 0.12, 0.05, 0.16, -0.10),
            (person.nose_width + 0.1, nose_y + 0.1, 0.1, 0.14, -0.18 * max(au[9], au[12])),
            (0.1, -0.27, 0.08, 0.1, -0.25 * max(au[4], au[9])),
            (corner[0] + 0.07, corner[1] + 0.05, 0.09, 0.1, -0.16 * au[15] - 0.06),
        ]
    )
    middle = [
        (0, nose_y - 0.2, 0.055, 0.25, 0.12),  # the ridge
        (0, nose_y - 0.02, 0.09, 0.07, 0.14),
        (0, nose_y + 0.12, 0.14, 0.05, -0.17),
        (0, bottom + 0.06, 0.2, 0.045, -0.20),
        (0, bottom + 0.2, 0.15, 0.1, 0.08 + 0.1 * au[17]),
        (0, -0.7, 0.45, 0.25, 0.07),
    ]
    return np.concatenate([right, right * (-1, 1, 1, 1, 1), middle])


def band(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The polygon between two edges that run in the same direction."""
    return np.concatenate([one, other[::-1]])


@functools.lru_cache
def spline_matrix(count: int, closed: bool, steps: int = 6) -> np.ndarray:
    """Matrix that takes ``count`` control points to points of their Catmull-Rom spline."""
    u = np.arange(steps) / steps
    basis = 0.5 * np.stack(
        [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2]
    )
    segments = count if closed else count - 1
    matrix = np.zeros((segments * steps + (not closed), count))
    for segment in range(segments):
        for neighbour in range(4):
            point = segment + neighbour - 1
            point = point % count if closed else min(max(point, 0), count - 1)
            matrix[segment * steps : (segment + 1) * steps, point] += basis[neighbour]
    if not closed:
        matrix[-1, -1] = 1
    return matrix


def curve(points: np.ndarray, *, closed: bool = False) -> np.ndarray:
    """A smooth curve through ``(N, 2)`` control points."""
    return spline_matrix(len(points), closed) @ points
