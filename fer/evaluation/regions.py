"""Which pixels of a face belong to brows, eyes, nose and mouth, and which of them an emotion moves.

Regions of photographs are boxes at fixed places, right for a frontal face that fills the image and
roughly right for others. Regions of drawn faces are known: the face is drawn again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer.core.errors import ConfigError
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import ACTION_UNITS, STYLES
from fer.data.drawn.synthetic import SPLIT_CODES, USAGES, WEIGHTS, class_sequence
from fer.data.images import to_input

PARTS = ("brows", "eyes", "nose", "mouth")
REGIONS = (*PARTS, "rest")
SAME_FACE = 8.0
"""Largest mean difference, in gray levels, between an image and its face drawn again; JPEG makes
1–3."""


def region_of_unit(unit: int) -> str:
    """Region that an action unit of FACS moves.

    >>> [region_of_unit(unit) for unit in (1, 6, 9, 12)]
    ['brows', 'eyes', 'nose', 'mouth']
    """
    if unit in (1, 2, 4):
        return "brows"
    if unit in (5, 6, 7):
        return "eyes"
    return "nose" if unit == 9 else "mouth"


def expressive_regions(emotion: str) -> tuple[str, ...]:
    """Regions that the prototype of an emotion moves; none for neutral.

    >>> expressive_regions("happy"), expressive_regions("disgust"), expressive_regions("neutral")
    (('eyes', 'mouth'), ('nose', 'mouth'), ())
    """
    moved = {region_of_unit(unit) for unit in ACTION_UNITS[emotion]}
    return tuple(part for part in PARTS if part in moved)


def masks_of_boxes(boxes: Mapping[str, Sequence[float]], size: int) -> dict[str, np.ndarray]:
    """Exclusive masks ``(size, size)`` bool of every region, ``rest`` included.

    A pixel belongs to the box that its centre lies in. In several boxes it belongs to the one whose
    horizontal middle line it is nearest to, measured in the box's heights.

    Args:
        boxes: each of :data:`PARTS` → x1, y1, x2, y2 as shares of the side.
        size: side of the masks in pixels.
    """
    centres = (np.arange(size) + 0.5) / size
    distances = []
    for part in PARTS:
        x1, y1, x2, y2 = boxes[part]
        across = (centres >= x1) & (centres < x2)
        down = (centres >= y1) & (centres < y2)
        distance = np.abs(centres - (y1 + y2) / 2) / (y2 - y1)
        distances.append(np.where(down[:, None] & across, distance[:, None], np.inf))
    nearest = np.where(np.isinf(distances).all(axis=0), len(PARTS), np.argmin(distances, axis=0))
    return {region: nearest == index for index, region in enumerate(REGIONS)}


def standard_regions(size: int, boxes: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """Masks ``(size, size)`` bool of a frontal face that fills the image.

    The arguments are those of :func:`masks_of_boxes`; the boxes are in conf/saliency/standard.yaml.

    Raises:
        ConfigError: a box is missing, unknown, or not within the image.
    """
    if sorted(boxes) != sorted(PARTS):
        raise ConfigError(
            f"saliency.regions: expected a box of each of {', '.join(PARTS)}, found "
            f"{', '.join(map(str, boxes)) or 'none'}."
        )
    for part, box in boxes.items():
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ConfigError(
                f"saliency.regions.{part}: expected x1, y1, x2, y2 with 0 <= x1 < x2 <= 1 and "
                f"0 <= y1 < y2 <= 1, shares of the side, found {list(box)}."
            )
    return masks_of_boxes(boxes, size)


@dataclass(frozen=True)
class DrawnRegions:
    """Regions of drawn images, or why there are none."""

    masks: dict[str, np.ndarray] | None
    """``(N, size, size)`` bool of each of :data:`REGIONS`, exclusive."""
    reason: str = ""
    """A sentence where there are no masks."""


def drawn_regions(
    ids: Sequence[str], images: np.ndarray, generator: Mapping[str, Any] | None
) -> DrawnRegions:
    """Find the regions of drawn faces by drawing them again.

    Works for every split: an image's id says which image of the generator it is, even where the
    reader held it out of another split.

    Args:
        ids: ids of the images.
        images: ``(N, size, size, C)`` uint8, the network's input.
        generator: the dataset's options ``name``, ``seed`` and ``train``, the number of training
            images; None for photographs.
    """
    if generator is None or generator.get("name") not in STYLES:
        return DrawnRegions(None, "The images are not drawn: where their regions are is not known.")
    name, size = str(generator["name"]), images.shape[1]
    places = [_place_of(name, image_id, int(generator["train"])) for image_id in ids]
    found: list[dict[str, np.ndarray]] = []
    sequences: dict[str, list[str]] = {}
    for image_id, image, place in zip(ids, images, places, strict=True):
        if place is None:
            return DrawnRegions(None, f"The id {image_id!r} is not one of {name}'s.")
        split, index = place
        if split not in sequences:
            total = 1 + max(other[1] for other in places if other and other[0] == split)
            sequences[split] = class_sequence(total, WEIGHTS[name])
        entropy = [list(STYLES).index(name), int(generator["seed"]), SPLIT_CODES[split], index]
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        face = draw_face(sequences[split][index], STYLES[name], rng)
        again = to_input(face.image, size, images.shape[3])
        if np.abs(again.astype(np.int16) - image).mean() > SAME_FACE:
            return DrawnRegions(
                None,
                f"The image {image_id!r} shows another face than {name} draws with seed "
                f"{generator['seed']}: it was drawn with other options, or changed.",
            )
        side = STYLES[name].size
        boxes = {part: [value / side for value in face.regions[part]] for part in PARTS}
        found.append(masks_of_boxes(boxes, size))
    return DrawnRegions(
        {
            region: np.array([masks[region] for masks in found]).reshape(-1, size, size)
            for region in REGIONS
        }
    )


def _place_of(name: str, image_id: str, train: int) -> tuple[str, int] | None:
    """An image's split and index in the generator, from its id."""
    if name == "synthetic_a":
        match = re.fullmatch(r"(?:.*_)?(Training|PublicTest|PrivateTest)_(\d+)", image_id)
        if match is None:
            return None
        split = next(split for split, usage in USAGES.items() if usage == match[1])
        return split, int(match[2])
    match = re.fullmatch(r"(train|test)_(\d+)", image_id)
    if match is None or int(match[2]) < 1:
        return None
    split, index = match[1], int(match[2]) - 1  # numbers begin at 1
    # In the tree, the val images follow the train images under the same name.
    return ("val", index - train) if split == "train" and index >= train else (split, index)


def region_shares(maps: np.ndarray, masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Share ``(N,)`` of each map ``(N, H, W)`` in each region.

    Maps have a sum of 1; masks are ``(H, W)`` or ``(N, H, W)`` bool.
    """
    return {
        region: (maps * mask).sum(axis=(1, 2), dtype=np.float64) for region, mask in masks.items()
    }
