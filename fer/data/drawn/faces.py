"""One drawn face: from an emotion to action units, to curves, to pixels.

A face is drawn from the *action units* (AUs, single facial movements) of its emotion:

- Ekman & Friesen, "Facial Action Coding System: A Technique for the Measurement of Facial
  Movement", Consulting Psychologists Press, 1978 (what each AU moves);
- Friesen & Ekman, "EMFACS-7: Emotional Facial Action Coding System", unpublished manual,
  University of California, 1983 (which AUs make the prototype of an emotion).

There are two domains with a visible shift between them: ``synthetic_a`` is drawn like FER2013
(48 x 48 gray, loosely framed, grainy, harsh light), ``synthetic_b`` like RAF-DB (100 x 100 colour,
aligned, clean, with the contours and large eyes of an illustration). The faces are drawings: scores
on them say nothing about human faces.

Geometry is in *face units*: the origin is midway between the eyes, x goes to the image's right,
y down, and 1 is half the width of the head. Eyes lie near x = ±0.42, the mouth near y = 0.78, the
chin near y = 1.25.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from fer.core.errors import ConfigError
from fer.core.labels import EMOTIONS

ACTION_UNITS: dict[str, dict[int, float]] = {
    "angry": {4: 1.0, 5: 0.5, 7: 0.7, 23: 0.9},
    "disgust": {9: 1.0, 15: 0.6, 16: 0.7},
    "fear": {1: 0.9, 2: 0.5, 4: 0.6, 5: 1.0, 7: 0.3, 20: 1.0, 25: 0.8, 26: 0.2},
    "happy": {6: 0.9, 12: 1.0},
    "sad": {1: 1.0, 4: 0.7, 15: 1.0},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.7, 25: 0.5, 26: 1.0},
    "neutral": {},
}
"""The prototype of each emotion (EMFACS): action unit → intensity at full expression, 0–1."""

OPTIONAL_UNITS: dict[str, dict[int, tuple[float, float]]] = {
    "angry": {24: (0.5, 0.6), 25: (0.25, 0.9)},  # pressed lips, or bared teeth
    "disgust": {17: (0.4, 0.6), 25: (0.4, 0.5)},
    "fear": {26: (0.3, 0.3)},
    "happy": {25: (0.65, 1.0), 26: (0.2, 0.35)},  # a smile with the teeth, a laugh
    "sad": {17: (0.5, 0.6)},
    "surprise": {},
    "neutral": {},
}
"""Units that some faces of an emotion add: action unit → (probability, intensity)."""

UNITS: dict[int, str] = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    12: "lip corner puller",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
}
"""Every action unit that is drawn, with its name in FACS."""

Range = tuple[float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Style:
    """The knobs of a domain. A range is (low, high) of a uniform draw."""

    size: int
    """Side of the image in pixels."""
    colour: bool
    oversampling: float
    """Side of the canvas that is drawn on, in images."""
    unit: Range
    """Length of a face unit, as a share of the image's side."""
    eye_line: float
    """Height of the eyes' midpoint, as a share of the image's side."""
    offset: float
    """Standard deviation of the face's place, as a share of the image's side."""
    roll: float
    yaw: float
    pitch: float
    """Standard deviations of the head's rotation in degrees; at most twice that is drawn."""
    intensity: Range
    """Strength of an expression, as a share of the prototype."""
    jitter: float
    """Standard deviation of movements that belong to no expression."""
    eye_size: Range
    mouth_size: Range
    brow_weight: Range
    face_length: Range
    contour: float
    """Width of the dark line around head and nose in face units; 0 draws none."""
    line: float
    """Depth of wrinkles and folds, 0–1."""
    relief: Range
    """Depth of the soft shading."""
    exposure: float
    """How far brightness and contrast are brought to a common level, 0–1."""
    light: Range
    """Strength of the light's direction."""
    gain: Range
    contrast: Range
    gamma: Range
    noise: Range
    """Standard deviation of the grain in gray levels."""
    blur: Range
    """Standard deviation of the final blur in pixels."""
    backgrounds: Mapping[str, float]
    hair: Mapping[str, float]
    glasses: float
    beard: float
    watermark: float
    """Shares of the faces that have them."""


STYLE_A = Style(
    size=48,
    colour=False,
    oversampling=4,
    unit=(0.385, 0.46),
    eye_line=0.40,
    offset=0.03,
    roll=6.0,
    yaw=7.0,
    pitch=4.0,
    intensity=(0.5, 1.0),
    jitter=0.095,
    eye_size=(0.95, 1.2),
    mouth_size=(0.95, 1.2),
    brow_weight=(0.8, 1.25),
    face_length=(1.0, 1.12),
    contour=0.0,
    line=0.55,
    relief=(0.8, 1.3),
    exposure=0.75,
    light=(0.1, 0.38),
    gain=(0.75, 1.15),
    contrast=(0.8, 1.25),
    gamma=(0.75, 1.35),
    noise=(3.0, 11.0),
    blur=(0.0, 0.55),
    backgrounds={"gradient": 0.3, "blobs": 0.3, "clutter": 0.4},
    hair={"bald": 1, "buzz": 1.5, "short": 3, "parted": 2, "long": 3, "curly": 1.5, "hat": 0.7},
    glasses=0.12,
    beard=0.22,
    watermark=0.15,
)

STYLE_B = Style(
    size=100,
    colour=True,
    oversampling=2.4,
    unit=(0.365, 0.39),
    eye_line=0.41,
    offset=0.006,
    roll=1.2,
    yaw=4.0,
    pitch=3.0,
    intensity=(0.45, 1.0),
    jitter=0.09,
    eye_size=(1.25, 1.55),
    mouth_size=(0.7, 0.9),
    brow_weight=(0.7, 1.3),
    face_length=(0.92, 1.0),
    contour=0.028,
    line=0.4,
    relief=(0.5, 0.8),
    exposure=0.0,
    light=(0.02, 0.15),
    gain=(0.92, 1.08),
    contrast=(0.95, 1.05),
    gamma=(0.9, 1.1),
    noise=(0.5, 2.0),
    blur=(0.0, 0.4),
    backgrounds={"gradient": 0.6, "blobs": 0.4},
    hair={"bald": 0.5, "buzz": 1, "short": 2, "parted": 2, "long": 4, "curly": 2.5, "hat": 0.3},
    glasses=0.15,
    beard=0.15,
    watermark=0.0,
)

STYLES: dict[str, Style] = {"synthetic_a": STYLE_A, "synthetic_b": STYLE_B}


@dataclass(frozen=True)
class Face:
    """A drawn face and what is known about it. Coordinates are pixels of the image."""

    image: np.ndarray
    """``(H, W)`` uint8 in a gray style, ``(H, W, 3)`` uint8 RGB in a colour style."""
    emotion: str
    regions: dict[str, tuple[int, int, int, int]]
    """``brows``, ``eyes``, ``nose``, ``mouth`` → x1, y1, x2, y2 (x2 and y2 exclusive)."""
    landmarks: tuple[tuple[float, float], ...]
    """Left eye, right eye, nose tip, left and right corner of the mouth; left is image left."""
    attributes: dict[str, int]
    """RAF-DB's codes: ``gender`` (always 2, unsure), ``race`` by skin tone band, ``age`` drawn."""


# --- who is drawn, and what the face does ----------------------------------------------------

SKIN_TONES = np.array(
    [
        (252, 222, 200),
        (242, 205, 176),
        (228, 183, 146),
        (207, 157, 115),
        (179, 127, 86),
        (147, 98, 64),
        (114, 74, 48),
        (86, 56, 38),
    ],
    np.float32,
)
HAIR_COLOURS: tuple[Colour, ...] = (
    (28, 22, 20),
    (52, 34, 24),
    (84, 54, 32),
    (122, 78, 42),
    (150, 66, 34),
    (206, 164, 96),
)
GRAY_HAIR: Colour = (186, 184, 182)
IRIS_COLOURS: tuple[Colour, ...] = ((70, 42, 22), (92, 60, 30), (84, 108, 64), (70, 110, 150))


@dataclass(frozen=True)
class Person:
    """What stays the same whatever the face expresses. Lengths are in face units."""

    skin: np.ndarray  # (3,) float32 RGB
    tone: float  # 0 lightest – 1 darkest
    hair_colour: np.ndarray
    brow_colour: np.ndarray
    beard_colour: np.ndarray
    lip_colour: np.ndarray
    iris_colour: Colour
    cloth_colour: Colour
    age: int  # RAF-DB's code, 1 (4–19 years) – 4 (70 and over)
    length: float
    jaw: float
    chin: float
    eye_x: float
    eye_size: float
    eye_tilt: float
    iris: float
    brow_y: float
    brow_weight: float
    brow_arch: float
    nose_width: float
    nose_y: float
    mouth_y: float
    mouth_width: float
    lips: float
    lashes: float
    hair: str
    hairline: float
    beard: str
    glasses: bool


def draw_person(style: Style, rng: np.random.Generator) -> Person:
    """Draw somebody's looks."""
    tone = rng.uniform()
    skin = interpolate(SKIN_TONES, tone) * rng.uniform(0.985, 1.015, 3).astype(np.float32)
    age = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.45, 0.25, 0.1]))
    # Fair hair is rare on dark skin.
    hair = np.array(HAIR_COLOURS[int(rng.integers(len(HAIR_COLOURS) if tone < 0.45 else 3))])
    grayness = {3: rng.uniform(0, 0.6), 4: rng.uniform(0.6, 1.0)}.get(age, 0.0)
    hair = hair * (1 - grayness) + np.array(GRAY_HAIR) * grayness
    # Brows carry much of an expression: they stay darker than the skin whatever the hair is.
    brow = np.minimum(0.75 * hair, (0.62 - 0.25 * tone) * skin)
    young = age == 1
    return Person(
        skin=skin,
        tone=tone,
        hair_colour=hair,
        brow_colour=brow,
        beard_colour=np.minimum(0.9 * hair, 0.72 * skin),
        lip_colour=skin * rng.uniform((0.78, 0.5, 0.5), (0.92, 0.68, 0.68)),
        iris_colour=IRIS_COLOURS[int(rng.integers(len(IRIS_COLOURS) if tone < 0.4 else 2))],
        cloth_colour=tuple(rng.uniform(40, 220, 3)),
        age=age,
        length=rng.uniform(*style.face_length) * (0.96 if young else 1.0),
        jaw=rng.uniform(0.68, 0.86),
        chin=rng.uniform(0.3, 0.46),
        eye_x=rng.uniform(0.39, 0.45),
        eye_size=rng.uniform(*style.eye_size) * (1.1 if young else 1.0),
        eye_tilt=rng.normal(0, 0.012),
        iris=rng.uniform(0.098, 0.112),
        brow_y=rng.uniform(-0.33, -0.29),
        brow_weight=rng.uniform(*style.brow_weight) * (0.85 if young else 1.0),
        brow_arch=rng.uniform(0.2, 0.9),
        nose_width=rng.uniform(0.15, 0.22),
        nose_y=rng.uniform(0.40, 0.46) - (0.04 if young else 0.0),
        mouth_y=rng.uniform(0.77, 0.81),
        mouth_width=0.37 * rng.uniform(*style.mouth_size),
        lips=rng.uniform(0.75, 1.25) * (0.8 if age == 4 else 1.0),
        lashes=rng.uniform(0.6, 1.4),
        hair=pick(style.hair, rng),
        hairline=rng.uniform(-0.84, -0.76),
        beard=("full", "stubble", "moustache")[int(rng.integers(3))]
        if not young and rng.uniform() < style.beard
        else "none",
        glasses=rng.uniform() < style.glasses,
    )


def draw_units(emotion: str, style: Style, rng: np.random.Generator) -> dict[int, float]:
    """Draw how strongly a face shows each action unit, 0–1."""
    strength = rng.uniform(*style.intensity)
    prototype = dict(ACTION_UNITS[emotion])
    for unit, (probability, intensity) in OPTIONAL_UNITS[emotion].items():
        if rng.uniform() < probability:
            prototype[unit] = max(intensity, prototype.get(unit, 0.0))
    variation = rng.uniform(0.85, 1.1, len(UNITS))
    jitter = np.abs(rng.normal(0, style.jitter, len(UNITS)))
    return {
        unit: min(1.0, strength * prototype.get(unit, 0.0) * variation[i] + jitter[i])
        for i, unit in enumerate(UNITS)
    }


def pick(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    """One of the keys, with a probability proportional to its value."""
    weights = np.cumsum(list(shares.values()))
    return list(shares)[int(np.searchsorted(weights, rng.uniform(0, weights[-1])))]


def interpolate(table: np.ndarray, position: float) -> np.ndarray:
    """The row at ``position`` (0–1) of a table, between its rows."""
    place = position * (len(table) - 1)
    low = min(int(place), len(table) - 2)
    return table[low] + (table[low + 1] - table[low]) * np.float32(place - low)


# --- geometry: from action units to curves in face units -------------------------------------
# Everything is computed for the image's right side (x > 0) and mirrored for the left.

ACROSS = np.linspace(-1, 1, 17)
"""Positions along a lid or a lip, corner to corner."""


def head_outline(person: Person, au: Mapping[int, float]) -> np.ndarray:
    """The head's outline, clockwise from the top; the jaw drops with AU26."""
    bottom = 1.25 * person.length + 0.16 * au[26]
    right = np.array(
        [
            (0.52, -1.18),
            (0.90, -0.72),
            (0.99, -0.15),
            (0.95, 0.35),
            (person.jaw + 0.06, 0.62 * bottom),
            (person.chin, 0.94 * bottom),
        ]
    )
    left = right[::-1] * (-1, 1)
    return curve(np.concatenate([[(0, -1.3)], right, [(0, bottom)], left]), closed=True)


def eye_lids(person: Person, au: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
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


def brow(person: Person, au: Mapping[int, float]) -> np.ndarray:
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
    return np.concatenate([centre - edge, (centre + edge)[::-1]])


@dataclass(frozen=True)
class Mouth:
    """Edges of the lips, each ``(17, 2)`` from the left to the right corner."""

    top: np.ndarray
    upper: np.ndarray
    """Lower edge of the upper lip."""
    lower: np.ndarray
    """Upper edge of the lower lip."""
    bottom: np.ndarray
    gap: float
    """How far the lips are parted at the middle."""


def mouth(person: Person, au: Mapping[int, float]) -> Mouth:
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


def nose(person: Person, au: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Lower edge of the nose from wing to wing, and the centre of the right nostril ``(2,)``."""
    width = person.nose_width * (1 + 0.18 * au[9] + 0.08 * au[12])
    y = person.nose_y * person.length - 0.05 * au[9]
    right = np.array([(0.42, 0.045), (0.78, 0.03), (1.0, -0.02), (0.98, -0.09), (0.8, -0.13)])
    right = right * (width, 1)
    edge = np.concatenate([right[::-1] * (-1, 1), [(0, 0.075)], right])
    return curve(edge + np.array([0, y])), np.array([0.5 * width, y + 0.015])


def folds(person: Person, au: Mapping[int, float]) -> list[tuple[np.ndarray, float]]:
    """Wrinkles and folds of the right half: a curve and its depth, 0–1."""
    lips = mouth(person, au)
    corner = lips.upper[-1]
    wing = nose(person, au)[0][-1]
    _, lid = eye_lids(person, au)
    old = {3: 0.25, 4: 0.5}.get(person.age, 0.0)
    smile = max(au[12], 0.8 * au[9], 0.5 * au[15], 0.7 * old)
    pouch = max(au[6], 0.8 * au[7], 0.7 * au[9], old)
    knit = max(au[4], 0.5 * au[9])
    raised = max(0.6 * au[1], 0.6 * au[2], 0.6 * old)
    crow = max(0.8 * au[6], 0.6 * old)
    x, below = person.eye_x, lid[:, 1].max() + 0.075
    cheek = (corner[0] + wing[0]) / 2 + 0.12 + 0.09 * au[12], (corner[1] + wing[1]) / 2 - 0.03
    chin = lips.bottom[8, 1] + 0.09

    def beside(point: np.ndarray, right: float, down: float) -> tuple[float, float]:
        return point[0] + right, point[1] + down

    found = [
        # from the wing of the nose around the mouth
        ([beside(wing, 0.05, 0), cheek, beside(corner, 0.1, 0.05)], 0.9 * smile),
        ([beside(corner, 0.02, 0), beside(corner, 0.05, 0.09)], 0.9 * au[15]),
        # below the eye, and beside it (crow's feet)
        ([(x - 0.15, below - 0.02), (x, below + 0.02), (x + 0.17, below - 0.03)], 0.4 * pouch),
        *(
            ([beside(lid[-1], 0.05, rise / 3), beside(lid[-1], 0.15, rise)], crow)
            for rise in (-0.08, 0.0, 0.08)
        ),
        # between the brows, on the bridge of the nose and at its wings
        ([(0.055, -0.38), (0.05, -0.28), (0.06, -0.18)], 0.9 * knit),
        *(
            ([(0, y), (0.08, y - 0.02), (0.14, y - 0.05)], au[9] ** 1.5)
            for y in (-0.04, 0.045, 0.13)
        ),
        (
            [beside(wing, 0.03, -0.03), beside(wing, 0.06, -0.12), beside(wing, 0.02, -0.2)],
            0.9 * au[9],
        ),
        # above the chin
        ([(0, chin), (0.1, chin + 0.01), (0.17, chin + 0.06)], max(0.3, 0.8 * au[17])),
    ]
    reach = 0.55 if au[2] > 0.4 or old else 0.3
    for step in range(3):  # across the forehead
        y = -0.55 - 0.09 * step - 0.03 * au[2]
        found.append(([(0, y + 0.02), (0.6 * reach, y), (reach, y + 0.03)], raised))
    return [(np.asarray(points, float), depth) for points, depth in found if depth > 0.15]


def relief(person: Person, au: Mapping[int, float]) -> np.ndarray:
    """Soft light and shadow: rows of x, y, radius along x, along y, and amount (dark < 0)."""
    lips = mouth(person, au)
    bottom = lips.bottom[8, 1]
    cheek = max(au[6], au[12])
    nose_y = person.nose_y * person.length
    right = [
        (person.eye_x - 0.02, -0.1, 0.26, 0.13, -0.16),  # the eye's socket
        (person.eye_x - 0.23, -0.02, 0.08, 0.16, -0.13),
        (0.55, 0.36 - 0.06 * cheek, 0.2, 0.15, 0.08 + 0.16 * cheek),
        (0.62, 0.68, 0.16, 0.3, -0.10 - 0.06 * cheek),
        (0.13, nose_y - 0.12, 0.05, 0.16, -0.10),
        (person.nose_width + 0.1, nose_y + 0.1, 0.1, 0.14, -0.18 * max(au[9], au[12])),
        (0.1, -0.27, 0.08, 0.1, -0.25 * max(au[4], au[9])),
        (lips.upper[-1, 0] + 0.07, lips.upper[-1, 1] + 0.05, 0.09, 0.1, -0.16 * au[15] - 0.06),
    ]
    middle = [
        (0, nose_y - 0.2, 0.055, 0.25, 0.12),  # the ridge
        (0, nose_y - 0.02, 0.09, 0.07, 0.14),
        (0, nose_y + 0.12, 0.14, 0.05, -0.17),
        (0, bottom + 0.06, 0.2, 0.045, -0.20),
        (0, bottom + 0.2, 0.15, 0.1, 0.08 + 0.1 * au[17]),
        (0, -0.7, 0.45, 0.25, 0.07),
    ]
    both = np.array(right)
    return np.concatenate([both, both * (-1, 1, 1, 1, 1), middle])


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


# --- drawing ---------------------------------------------------------------------------------

MIRROR = np.array([-1.0, 1.0])
SUBPIXEL_BITS = 4
HEAD_DEPTH = 0.9
"""From the axis that the head turns about to the point between the eyes, in face units."""


class Canvas:
    """A large image, and where on it the head is and how it is turned.

    Args:
        side: in pixels.
        unit: pixels per face unit.
        centre: where the point between the eyes is seen, in pixels, (x, y).
        roll, yaw, pitch: rotation of the head in radians.
    """

    def __init__(
        self, side: int, unit: float, centre: np.ndarray, roll: float, yaw: float, pitch: float
    ) -> None:
        self.image: np.ndarray = np.zeros((side, side, 3), np.uint8)
        self.side, self.unit = side, unit
        self.rotation = np.array(
            [[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]]
        )
        self.turn = np.array([math.sin(yaw), -math.sin(pitch)])
        self.centre = centre - HEAD_DEPTH * unit * (self.turn @ self.rotation)

    def flat(self, points: np.ndarray) -> np.ndarray:
        """Face units → pixels, for what a turn of the head does not move (outline, hair)."""
        return (points @ self.rotation) * self.unit + self.centre

    def place(self, points: np.ndarray, height: float = 0.0) -> np.ndarray:
        """Face units → pixels, for what lies on the front of the head, ``height`` above it.

        The head is a paraboloid: near the middle, a turn moves a point the most.
        """
        depth = HEAD_DEPTH + height - 0.4 * points[:, :1] ** 2 - 0.25 * points[:, 1:] ** 2
        return self.flat(points + depth * self.turn)

    def fill(self, pixels: np.ndarray, colour: np.ndarray | Colour) -> None:
        cv2.fillPoly(self.image, [fixed_point(pixels)], rgb(colour), cv2.LINE_AA, SUBPIXEL_BITS)

    def line(
        self,
        pixels: np.ndarray,
        colour: np.ndarray | Colour,
        width: float,
        *,
        closed: bool = False,
    ) -> None:
        """``width`` is in face units."""
        thickness = max(1, round(width * self.unit))
        cv2.polylines(
            self.image,
            [fixed_point(pixels)],
            closed,
            rgb(colour),
            thickness,
            cv2.LINE_AA,
            SUBPIXEL_BITS,
        )

    def disc(self, pixel: np.ndarray, colour: np.ndarray | Colour, radius: float) -> None:
        """``radius`` is in face units."""
        x, y = fixed_point(pixel)
        size = round(radius * self.unit * 2**SUBPIXEL_BITS)
        cv2.circle(
            self.image, (int(x), int(y)), size, rgb(colour), cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS
        )

    def mask(self, pixels: np.ndarray) -> np.ndarray:
        """``(side, side)`` uint8, 255 within the polygon."""
        mask = np.zeros((self.side, self.side), np.uint8)
        cv2.fillPoly(mask, [fixed_point(pixels)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        return mask


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 2**SUBPIXEL_BITS).astype(np.int32)


def rgb(colour: np.ndarray | Colour) -> tuple[float, ...]:
    return tuple(float(min(255, max(0, value))) for value in colour)


def paint_background(canvas: Canvas, kind: str, rng: np.random.Generator) -> None:
    """Fill the canvas: a smooth gradient, soft blobs, or a cluttered room."""
    side = canvas.side
    cells = 2 if kind == "gradient" else 5
    base = rng.uniform(50, 215) + rng.uniform(-35, 35, 3)
    spread = 35 if kind == "gradient" else 60
    coarse = np.clip(base + rng.uniform(-spread, spread, (cells, cells, 1)), 0, 255)
    coarse = np.clip(coarse + rng.uniform(-12, 12, (cells, cells, 3)), 0, 255).astype(np.uint8)
    canvas.image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
    if kind == "clutter":
        for _ in range(int(rng.integers(2, 6))):
            corner, extent = rng.uniform(-0.1, 0.9, 2) * side, rng.uniform(0.08, 0.5, 2) * side
            box = corner + np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * extent
            canvas.fill(box, base + rng.uniform(-70, 70))


HAIR_OUTER = np.array(
    [
        *[(-1.05, 0.1), (-1.09, -0.4), (-0.98, -0.9), (-0.55, -1.3), (0, -1.43)],
        *[(0.55, -1.3), (0.98, -0.9), (1.09, -0.4), (1.05, 0.1)],
    ]
)
HAIRLINES = {  # heights relative to the person's hairline at x = -0.86 … 0.86
    "straight": (0.22, 0.04, 0.0, 0.0, 0.0, 0.04, 0.22),
    "parted": (0.2, 0.14, 0.1, 0.02, -0.1, -0.02, 0.2),
    "fringe": (0.22, 0.13, 0.14, 0.13, 0.14, 0.13, 0.22),
    "receding": (0.12, -0.16, -0.2, -0.08, -0.2, -0.16, 0.12),
}


def paint_behind(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Shoulders, neck, ears, and the hair that falls behind them."""
    hair = 0.8 * person.hair_colour
    if person.hair == "long":
        reach = rng.uniform(1.2, 2.2)
        width = rng.uniform(1.12, 1.3)
        right = np.array([(0.6, -1.4), (1.12, -0.85), (width, 0), (width + 0.05, reach)])
        outline = np.concatenate([[(0, -1.5)], right, [(0, reach + 0.2)], right[::-1] * MIRROR])
        canvas.fill(canvas.flat(curve(outline, closed=True)), hair)
    if person.hair == "curly":
        for angle in np.linspace(-0.15, 1.15, 13) * math.pi:
            spot = np.array([-1.02 * math.cos(angle), -0.35 - 0.95 * math.sin(angle)])
            spot += rng.normal(0, 0.04, 2)
            canvas.disc(canvas.flat(spot), hair, rng.uniform(0.2, 0.32))
    neck = np.array([(-0.55, 0.6), (0.55, 0.6), (0.62, 2.6), (-0.62, 2.6)])
    canvas.fill(canvas.flat(neck), 0.72 * person.skin)
    cloth = np.array(
        [(-2.5, 2.1), (-0.75, 1.62), (0, 1.8), (0.75, 1.62), (2.5, 2.1), (2.5, 3), (-2.5, 3)]
    )
    canvas.fill(canvas.flat(cloth), person.cloth_colour)
    if person.hair != "long":
        angles = np.linspace(0, 2 * math.pi, 16, endpoint=False)
        ear = np.stack([1.0 + 0.13 * np.cos(angles), 0.14 + 0.24 * np.sin(angles)], 1)
        canvas.fill(canvas.flat(ear), 0.88 * person.skin)
        canvas.fill(canvas.flat(ear * MIRROR), 0.88 * person.skin)


def paint_head(
    canvas: Canvas, person: Person, au: Mapping[int, float], style: Style, rng: np.random.Generator
) -> None:
    """The head with its soft shading, folds and beard, before eyes, nose and mouth."""
    outline = canvas.flat(head_outline(person, au))
    canvas.fill(outline, person.skin)
    head = canvas.mask(outline)
    small = canvas.side // 4
    scale = small / canvas.side
    shade = directional_light(canvas, small, style, rng)
    spots = relief(person, au)
    centres = canvas.place(spots[:, :2]) * scale
    radii = spots[:, 2:4] * canvas.unit * scale
    grid = np.arange(small)
    falloff_x, falloff_y = (
        np.exp(-(((grid - centres[:, i : i + 1]) / radii[:, i : i + 1]) ** 2)) for i in (0, 1)
    )
    shade += rng.uniform(*style.relief) * ((falloff_y.T * spots[:, 4]) @ falloff_x)
    lines = np.zeros_like(head)
    for points, depth in folds(person, au):
        smooth = curve(points)
        for side in (smooth, smooth * MIRROR):
            pixels = [fixed_point(canvas.place(side))]
            thickness = max(1, round(0.035 * canvas.unit))
            grey = min(255.0, 255 * depth)
            cv2.polylines(lines, pixels, False, grey, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    lines = cv2.GaussianBlur(lines, (5, 5), 0)
    change = cv2.resize(shade.astype(np.float32), (canvas.side, canvas.side))
    change = change - lines * np.float32(style.line / 255)
    factor = 1 + change * (head * np.float32(1 / 255))
    canvas.image = cv2.multiply(canvas.image, cv2.merge([factor] * 3), dtype=cv2.CV_8U)
    if person.beard in ("full", "stubble"):
        paint_beard(canvas, person, au, head)
    if style.contour:
        canvas.line(outline, 0.35 * person.skin, style.contour, closed=True)


def directional_light(
    canvas: Canvas, small: int, style: Style, rng: np.random.Generator
) -> np.ndarray:
    """Change of brightness over an ellipsoid head lit from one side, ``(small, small)``."""
    strength = rng.uniform(*style.light)
    angle = rng.uniform(-0.9, 0.9) * math.pi / 2
    step = canvas.side / small
    pixels = np.stack(np.meshgrid(*[(np.arange(small) + 0.5) * step] * 2), -1)
    x, y = np.moveaxis((pixels - canvas.centre) @ canvas.rotation.T / canvas.unit, -1, 0)
    depth = np.sqrt(np.clip(1 - (x / 1.15) ** 2 - (y / 1.45) ** 2, 0, 1))
    return strength * (math.sin(angle) * x - math.cos(angle) * 0.5 * y) + 0.3 * (depth - 0.85)


def paint_beard(canvas: Canvas, person: Person, au: Mapping[int, float], head: np.ndarray) -> None:
    """A beard on the jaw and above the lips; the lips are painted over it later."""
    lips = mouth(person, au)
    nose_y = person.nose_y * person.length
    right = np.array(
        [
            (0.14, nose_y + 0.16),
            (lips.upper[-1, 0] + 0.1, lips.upper[-1, 1] - 0.02),
            (0.72, lips.upper[-1, 1] - 0.12),
            (0.93, 0.25),
            (1.2, 0.3),
            (1.0, 1.5),
        ]
    )
    area = np.concatenate([right, right[::-1] * MIRROR])
    mask = cv2.blur(cv2.min(canvas.mask(canvas.place(area)), head), (7, 7))
    share = mask[..., None] * np.float32((0.7 if person.beard == "full" else 0.25) / 255)
    hair = person.beard_colour.astype(np.float32)
    canvas.image = (canvas.image + share * (hair - canvas.image)).astype(np.uint8)


def paint_eyes(
    canvas: Canvas, person: Person, au: Mapping[int, float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Both eyes. Returns the lids in pixels and, first, the centres of left and right eye."""
    upper, lower = eye_lids(person, au)
    gaze = rng.normal(0, 0.018, 2) * (1, 0.4)
    dark = np.minimum(0.3 * person.skin, (70, 50, 45))
    sclera = np.array([240, 236, 230]) - 25 * person.tone
    radius = person.iris * person.eye_size
    centres, drawn = [], []
    for mirror in (MIRROR, np.array([1.0, 1.0])):
        top, bottom = canvas.place(upper * mirror), canvas.place(lower * mirror)
        lids = np.concatenate([top, bottom[::-1]])
        middle = np.array([person.eye_x, -0.012]) * mirror
        centre = canvas.place((middle + gaze)[None])[0]
        reach = radius * canvas.unit + 2
        first, last = (
            np.minimum(lids.min(0), centre - reach),
            np.maximum(lids.max(0), centre + reach),
        )
        x1, y1 = np.clip(np.floor(first).astype(int), 0, canvas.side)
        x2, y2 = np.clip(np.ceil(last).astype(int) + 1, 0, canvas.side)
        opening = canvas.mask(lids)[y1:y2, x1:x2, None] * np.float32(1 / 255)
        skin = canvas.image[y1:y2, x1:x2].copy()
        canvas.image[y1:y2, x1:x2] = sclera
        canvas.disc(centre, 0.5 * np.array(person.iris_colour), radius)
        canvas.disc(centre, person.iris_colour, 0.8 * radius)
        canvas.disc(centre, (12, 10, 10), 0.45 * radius)
        canvas.disc(
            centre + 0.35 * radius * canvas.unit * MIRROR * (1, -1), (255,) * 3, 0.2 * radius
        )
        eye = canvas.image[y1:y2, x1:x2]
        canvas.image[y1:y2, x1:x2] = skin + opening * (eye.astype(np.float32) - skin)
        crease = upper[2:-1] * (1, 1.15) - (0, 0.055)
        canvas.line(canvas.place(crease * mirror), 0.62 * person.skin, 0.02)
        canvas.line(bottom, 0.55 * person.skin, 0.022)
        canvas.line(top, dark, 0.042 * person.lashes)
        centres.append(canvas.place(middle[None])[0])
        drawn.append(lids)
    return [np.stack(centres), *drawn]


def paint_nose(canvas: Canvas, person: Person, au: Mapping[int, float], style: Style) -> np.ndarray:
    """Tip, wings and nostrils. Returns the edge in pixels; its middle point is the tip."""
    edge, nostril = nose(person, au)
    pixels = canvas.place(edge, 0.15)
    for mirror in (MIRROR, np.array([1.0, 1.0])):
        hole = nostril * mirror + np.array([(-0.05, 0.0), (0.0, -0.018), (0.05, 0.005)]) * mirror
        canvas.line(canvas.place(hole, 0.15), 0.3 * person.skin, 0.04)
    shadow = 0.45 if style.contour else 0.62
    canvas.line(pixels, shadow * person.skin, 0.022)
    return pixels


def paint_mouth(canvas: Canvas, person: Person, au: Mapping[int, float]) -> Mouth:
    """Lips, and what shows between them. Returns the edges in pixels."""
    edges = mouth(person, au)
    place = canvas.place
    top, upper = place(edges.top), place(edges.upper)
    lower, bottom = place(edges.lower), place(edges.bottom)
    dark = np.minimum(0.32 * person.lip_colour, (80, 30, 30))
    canvas.fill(np.concatenate([top, upper[::-1]]), 0.85 * person.lip_colour)
    canvas.fill(np.concatenate([lower, bottom[::-1]]), person.lip_colour)
    if edges.gap > 0.05:
        canvas.fill(np.concatenate([upper, lower[::-1]]), (52, 14, 16))
        inside = slice(1, -1)
        height = edges.lower[inside] - edges.upper[inside]
        if edges.gap > 0.2:
            tongue = edges.lower[inside] - height * (0, 0.4)
            canvas.fill(np.concatenate([place(tongue), lower[inside][::-1]]), (178, 84, 84))
        # A stretched or smiling mouth bares the teeth; a hanging jaw hides them.
        bared = 0.13 * (0.15 + max(au[12], au[20], au[9], au[23]))
        teeth = edges.upper[inside] + np.minimum(height * (0, 0.85), (0, bared))
        canvas.fill(np.concatenate([upper[inside], place(teeth)[::-1]]), (238, 234, 224))
        below = edges.lower[inside] - np.minimum(height * (0, 0.4), (0, 0.07 * au[20]))
        if au[20] > 0.4:
            canvas.fill(np.concatenate([place(below), lower[inside][::-1]]), (216, 210, 200))
        canvas.line(upper, dark, 0.022)
        canvas.line(lower, dark, 0.022)
    else:
        canvas.line((upper + lower) / 2, dark, 0.038)
    if person.beard in ("full", "moustache"):
        half = edges.top[-1, 0]
        lift = 0.01 + 0.085 * (1 - ACROSS**2)
        ridge = edges.top - np.stack([np.zeros_like(lift), lift], 1)
        whiskers = np.concatenate([ridge, edges.top[::-1]]) - (0, 0.025)
        whiskers[:, 0] *= 0.85 * min(1.0, 0.36 / half)
        canvas.fill(place(whiskers), 0.65 * person.beard_colour + 0.35 * person.skin)
    return Mouth(top, upper, lower, bottom, edges.gap)


def paint_hair(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Hair or a hat on top of the head; it ends above the highest brow."""
    side = rng.choice((-1, 1))
    kind = {"buzz": "receding", "short": "straight", "parted": "parted"}.get(person.hair)
    if kind is None:
        kind = ("straight", "fringe", "parted")[int(rng.integers(3))]
    if person.hair == "bald":
        return
    heights = np.array(HAIRLINES[kind]) + person.hairline
    heights[[0, -1]] += 0.2
    x = np.linspace(-0.86, 0.86, 7)
    low = 0.9 if person.hair == "long" else 0.1
    ends = np.array([(0.97, low), (0.95, -0.25)])
    hairline = np.concatenate([ends * MIRROR, np.stack([x, heights], 1)[1:-1], ends[::-1]])
    hairline = canvas.flat(curve(hairline * (side, 1)) + 0.35 * canvas.turn)
    outer = HAIR_OUTER * (0.96 if person.hair == "buzz" else rng.uniform(0.99, 1.06))
    if person.hair == "long":
        outer = np.concatenate([[(-1.1, 0.9)], outer[1:-1], [(1.1, 0.9)]])
    outer = canvas.flat(curve(outer * (side, 1)))
    colour = person.hair_colour
    if person.hair == "buzz":
        colour = 0.6 * colour + 0.4 * person.skin
    if person.hair == "hat":
        colour = np.array(person.cloth_colour)
    canvas.fill(np.concatenate([outer, hairline[::-1]]), colour)
    for share in rng.uniform(0.15, 0.85, 4):
        ring = outer + (hairline - outer) * share
        canvas.line(ring, colour * rng.uniform(0.8, 1.18), 0.03)
    if person.hair == "curly":
        for point in outer[4:-4:3]:
            spot = point + rng.normal(0, 0.05, 2) * canvas.unit
            canvas.disc(spot, colour * rng.uniform(0.85, 1.1), rng.uniform(0.14, 0.22))


def paint_glasses(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Thin rims around the eyes."""
    colour = ((30, 28, 30), (96, 62, 40), (120, 120, 126))[int(rng.integers(3))]
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    square = rng.uniform(0.55, 1.0)
    outline = np.stack([np.cos(angles), np.sin(angles)], 1)
    outline = np.sign(outline) * np.abs(outline) ** square
    centre = np.array([person.eye_x + 0.01, 0.03])
    radii = np.array([0.31, 0.235 + 0.05 * (person.eye_size > 1.2)])
    rim = centre + outline * radii
    inner, outer = centre - radii * (1, 0.15), centre + radii * (1, -0.15)
    for mirror in (MIRROR, np.array([1.0, 1.0])):
        canvas.line(canvas.place(rim * mirror, 0.1), colour, 0.035, closed=True)
        temple = np.stack([outer, (1.03, -0.05)]) * mirror
        canvas.line(np.stack([canvas.place(temple, 0.1)[0], canvas.flat(temple)[1]]), colour, 0.03)
    bridge = np.stack([inner, inner * MIRROR])
    canvas.line(canvas.place(bridge, 0.1), colour, 0.035)


def draw_face(emotion: str, style: Style, rng: np.random.Generator) -> Face:
    """Draw one face.

    Args:
        emotion: a name of :data:`fer.core.labels.EMOTIONS`.
        style: the domain.
        rng: decides everything else; the same state draws the same face.

    Raises:
        ConfigError: the emotion is unknown.

    >>> draw_face("happy", STYLE_A, np.random.default_rng(0)).image.shape
    (48, 48)
    """
    if emotion not in ACTION_UNITS:
        raise ConfigError(
            f"emotion: expected one of {', '.join(EMOTIONS)}, found {emotion!r}. "
            "Use fer.core.labels.canonical() to map other spellings."
        )
    person = draw_person(style, rng)
    au = draw_units(emotion, style, rng)
    side = round(style.size * style.oversampling)
    turn = np.clip(rng.normal(size=3), -2, 2) * np.radians([style.roll, style.yaw, style.pitch])
    centre = (np.array([0.5, style.eye_line]) + rng.normal(0, style.offset, 2)) * side
    canvas = Canvas(side, rng.uniform(*style.unit) * side, centre, *turn)
    paint_background(canvas, pick(style.backgrounds, rng), rng)
    paint_behind(canvas, person, rng)
    paint_head(canvas, person, au, style, rng)
    centres, *lids = paint_eyes(canvas, person, au, rng)
    nose_edge = paint_nose(canvas, person, au, style)
    lips = paint_mouth(canvas, person, au)
    right_brow = brow(person, au)
    brows = [canvas.place(right_brow * MIRROR), canvas.place(right_brow)]
    for pixels in brows:
        canvas.fill(pixels, person.brow_colour)
    paint_hair(canvas, person, rng)
    if person.glasses:
        paint_glasses(canvas, person, rng)
    image = finish(canvas.image, style, rng)

    bridge = canvas.place(np.array([(0.0, 0.1)]))
    points = {
        "brows": np.concatenate(brows),
        "eyes": np.concatenate(lids),
        "nose": np.concatenate([nose_edge, bridge]),
        "mouth": np.concatenate([lips.top, lips.bottom]),
    }
    scale = style.size / side
    tip = nose_edge[len(nose_edge) // 2]
    landmarks = np.stack([*centres, tip, lips.upper[0], lips.upper[-1]])
    landmarks = (landmarks + 0.5) * scale - 0.5
    return Face(
        image=image,
        emotion=emotion,
        regions={name: box(pixels * scale, style.size) for name, pixels in points.items()},
        landmarks=tuple((float(x), float(y)) for x, y in landmarks),
        attributes={
            "gender": 2,
            "race": 0 if person.tone < 0.4 else 2 if person.tone < 0.65 else 1,
            "age": person.age,
        },
    )


def box(pixels: np.ndarray, size: int) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around points, within the image, at least one pixel wide and high."""
    x1, y1 = np.clip(np.floor(pixels.min(0)), 0, size - 1).astype(int)
    x2, y2 = np.clip(np.ceil(pixels.max(0)), (x1 + 1, y1 + 1), size).astype(int)
    return int(x1), int(y1), int(x2), int(y2)


def finish(image: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """From the canvas to the image: shrink it, light it, blur it, add grain."""
    if not style.colour:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = style.size
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    if rng.uniform() < style.watermark:  # a row of bars such as a line of small print
        y, x, width = int(rng.integers(size - 6, size - 2)), int(rng.integers(size // 2)), size // 2
        bars = rng.uniform(size=width) < 0.6
        small[y - 2 : y, x : x + width] += 35 * bars[: size - x]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = rng.normal(0, 0.3 * style.light[1], 2).astype(np.float32)
    lit = 1 + slope[0] * ramp[:, None] + slope[1] * ramp
    if style.colour:
        warmth = rng.uniform(-0.02, 0.05)
        tint = np.array([1 + warmth, 1, 1 - warmth], np.float32)
        lit = lit[..., None] * tint
    # A camera exposes for what is in the middle: a dark or dull picture is corrected in part.
    middle = small[size // 4 : -size // 4, size // 4 : -size // 4]
    mean, deviation = float(middle.mean()), float(middle.std())
    spread = (42 / deviation) ** style.exposure
    small = (small - mean) * spread + mean * (128 / mean) ** style.exposure
    small = np.clip(small * (lit * np.float32(rng.uniform(*style.gain) / 255)), 0, 1)
    small **= np.float32(rng.uniform(*style.gamma))
    small = (small - 0.5) * np.float32(rng.uniform(*style.contrast)) + 0.5
    sigma = rng.uniform(*style.blur)
    if sigma > 0.2:
        small = cv2.GaussianBlur(small, (3, 3), sigma)
    grain = rng.standard_normal(small.shape, dtype=np.float32) * np.float32(
        rng.uniform(*style.noise)
    )
    return np.clip(np.rint(255 * small + grain), 0, 255).astype(np.uint8)
