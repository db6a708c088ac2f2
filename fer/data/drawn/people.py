"""The two domains, the people in them, and the action units that they show.

An emotion is drawn from its *action units* (AUs, single facial movements):

- Ekman & Friesen, "Facial Action Coding System: A Technique for the Measurement of Facial
  Movement", Consulting Psychologists Press, 1978 (what each AU moves);
- Friesen & Ekman, "EMFACS-7: Emotional Facial Action Coding System", unpublished manual,
  University of California, 1983 (which AUs make the prototype of an emotion).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

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

UNITS = (1, 2, 4, 5, 6, 7, 9, 12, 15, 16, 17, 20, 23, 24, 25, 26)
"""Every action unit that is drawn: 1 inner and 2 outer brow raiser, 4 brow lowerer, 5 upper lid
raiser, 6 cheek raiser, 7 lid tightener, 9 nose wrinkler, 12 lip corner puller, 15 lip corner
depressor, 16 lower lip depressor, 17 chin raiser, 20 lip stretcher, 23 lip tightener, 24 lip
pressor, 25 lips part, 26 jaw drop."""

Colour = tuple[float, float, float]


class Style(SimpleNamespace):
    """The parameters of a domain: a column of :data:`PARAMETERS`."""


PARAMETERS: dict[str, tuple[Any, Any]] = {
    "size": (48, 100),  # side of the image in pixels
    "colour": (False, True),
    "oversampling": (4, 2.4),  # side of the canvas, in images
    "unit": ((0.385, 0.46), (0.365, 0.39)),  # length of a face unit, in sides of the image
    "eye_line": (0.40, 0.41),  # height of the eyes' midpoint, in sides of the image
    "offset": (0.03, 0.006),  # standard deviation of the face's place, in sides of the image
    "roll": (6.0, 1.2),  # standard deviations of the head's rotation in degrees, cut off at two
    "yaw": (7.0, 4.0),
    "pitch": (4.0, 3.0),
    "intensity": ((0.5, 1.0), (0.45, 1.0)),  # strength of an expression, in prototypes
    "jitter": (0.095, 0.09),  # standard deviation of movements that belong to no expression
    "eye_size": ((0.95, 1.2), (1.25, 1.55)),
    "mouth_size": ((0.95, 1.2), (0.7, 0.9)),
    "brow_weight": ((0.8, 1.25), (0.7, 1.3)),
    "face_length": ((1.0, 1.12), (0.92, 1.0)),
    "contour": (0.0, 0.028),  # width of the dark line around head and nose in face units, or 0
    "line": (0.55, 0.4),  # depth of wrinkles and folds, 0–1
    "relief": ((0.8, 1.3), (0.5, 0.8)),  # depth of the soft shading
    "exposure": (0.75, 0.0),  # how far brightness and contrast are brought to a common level, 0–1
    "light": ((0.1, 0.38), (0.02, 0.15)),  # strength of the light's direction
    "gain": ((0.75, 1.15), (0.92, 1.08)),
    "contrast": ((0.8, 1.25), (0.95, 1.05)),
    "gamma": ((0.75, 1.35), (0.9, 1.1)),
    "noise": ((3.0, 11.0), (0.5, 2.0)),  # standard deviation of the grain in gray levels
    "blur": ((0.0, 0.55), (0.0, 0.4)),  # standard deviation of the final blur in pixels
    "backgrounds": (  # weights
        {"gradient": 0.3, "blobs": 0.3, "clutter": 0.4},
        {"gradient": 0.6, "blobs": 0.4},
    ),
    "hair": (
        {"bald": 1, "buzz": 1.5, "short": 3, "parted": 2, "long": 3, "curly": 1.5, "hat": 0.7},
        {"bald": 0.5, "buzz": 1, "short": 2, "parted": 2, "long": 4, "curly": 2.5, "hat": 0.3},
    ),
    "glasses": (0.12, 0.15),  # shares of the faces that have them
    "beard": (0.22, 0.15),
    "watermark": (0.15, 0.0),
}
"""The two domains: like FER2013 (gray, loosely framed, grainy, harsh light) and like RAF-DB
(colour, aligned, clean, with the contours and large eyes of an illustration). A pair is (low, high)
of a uniform random number."""
STYLE_A, STYLE_B = (
    Style(**{name: values[domain] for name, values in PARAMETERS.items()}) for domain in (0, 1)
)
STYLES: dict[str, Style] = {"synthetic_a": STYLE_A, "synthetic_b": STYLE_B}

SKIN_TONES = np.array(
    [
        *[(252, 222, 200), (242, 205, 176), (228, 183, 146), (207, 157, 115)],
        *[(179, 127, 86), (147, 98, 64), (114, 74, 48), (86, 56, 38)],
    ],
    np.float32,
)
HAIR_COLOURS: tuple[Colour, ...] = (
    *[(28, 22, 20), (52, 34, 24), (84, 54, 32)],
    *[(122, 78, 42), (150, 66, 34), (206, 164, 96)],
)
GRAY_HAIR: Colour = (186, 184, 182)
IRIS_COLOURS: tuple[Colour, ...] = ((70, 42, 22), (92, 60, 30), (84, 108, 64), (70, 110, 150))


class Person(SimpleNamespace):
    """Looks that no expression changes, listed in :func:`sample_person`."""


def sample_person(style: Style, rng: np.random.Generator) -> Person:
    """Sample somebody's looks. Colours are RGB, lengths in face units."""
    tone = rng.uniform()
    skin = interpolate(SKIN_TONES, tone) * rng.uniform(0.985, 1.015, 3).astype(np.float32)
    age = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.45, 0.25, 0.1]))
    young = age == 1
    # Fair hair is rare on dark skin.
    hair = np.array(HAIR_COLOURS[int(rng.integers(len(HAIR_COLOURS) if tone < 0.45 else 3))])
    grayness = {3: rng.uniform(0, 0.6), 4: rng.uniform(0.6, 1.0)}.get(age, 0.0)
    hair = hair * (1 - grayness) + np.array(GRAY_HAIR) * grayness
    return Person(
        skin=skin,
        tone=tone,  # 0 lightest – 1 darkest
        hair_colour=hair,
        # Brows carry much of an expression: they stay darker than the skin whatever the hair is.
        brow_colour=np.minimum(0.75 * hair, (0.62 - 0.25 * tone) * skin),
        beard_colour=np.minimum(0.9 * hair, 0.72 * skin),
        lip_colour=skin * rng.uniform((0.78, 0.5, 0.5), (0.92, 0.68, 0.68)),
        iris_colour=IRIS_COLOURS[int(rng.integers(len(IRIS_COLOURS) if tone < 0.4 else 2))],
        cloth_colour=tuple(rng.uniform(40, 220, 3)),
        age=age,  # RAF-DB's code, 1 (4–19 years) – 4 (70 and over)
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


def sample_units(emotion: str, style: Style, rng: np.random.Generator) -> dict[int, float]:
    """Sample how strongly a face shows each action unit, 0–1."""
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


def pick(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """Sample one of the keys, with a probability proportional to its value."""
    ends = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(ends, rng.uniform(0, ends[-1])))]


def interpolate(table: np.ndarray, position: float) -> np.ndarray:
    """The row at ``position`` (0–1) of a table, between its rows."""
    place = position * (len(table) - 1)
    low = min(int(place), len(table) - 2)
    return table[low] + (table[low + 1] - table[low]) * np.float32(place - low)
