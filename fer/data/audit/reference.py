"""The reference copy of a dataset, as checksums and measurements, and how a copy matches it.

For FER2013 the package has one row for each of the 35,887 images: a checksum of its pixels, its
perceptual hash, its official split and emotion, and how sharp, bright and noisy it is. No picture
can be made from that. It lets a copy be judged image by image, whatever its files are called.

FER2013 is known in two encodings. The measurements and one checksum are of the public image
archive, a JPEG encoding of the table that its authors published; the other checksum is of the
original pixels, and beside it stands the image's row in that table.

``python -m fer.data.make_reference FOLDER NAME --table ROWS.csv`` makes the file anew from a
prepared dataset.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from fer.core import labels
from fer.data.audit.appearance import LOOKS, hamming
from fer.data.manifest import Entry
from fer.data.readers.base import SPLITS

SAME_CELL_BITS = 20
"""Up to this many differing bits, an image of the same split and emotion counts as the same."""
ELSEWHERE_BITS = 16
"""The same where split or emotion differ. In FER2013 the nearest *other* picture is at 24 bits or
more for 92 % of the images (the rest have near duplicates)."""
COLLISION_BITS = 40
"""An image whose checksum of four bytes is equal, but whose hash differs in more bits than this, is
another picture: those of two pictures differ in a third of 127 bits."""
UNKNOWN_PIXELS = 0
"""Stands for the checksum of original pixels that are not known."""
STORED = {
    **dict.fromkeys(("mean", "std", "bands", "grain"), np.float16),
    **{"levels": np.uint16, "hashes": np.uint8},
}
"""The measurements in a reference file, and their types there. Sizes are not kept."""


@dataclass(frozen=True)
class Reference:
    """The reference copy, one row per image."""

    cells: np.ndarray
    """``(N,)`` uint8, see :func:`cells_of`."""
    checksums: np.ndarray
    """``(N,)`` uint32, the first four bytes of the pixels' SHA-256."""
    looks: np.ndarray
    """``(N,)`` :data:`~fer.data.audit.appearance.LOOKS`."""
    originals: np.ndarray
    """``(N,)`` uint32, checksums of the original pixels, :data:`UNKNOWN_PIXELS` where these are not
    known; so for all images of a reference copy that is itself what the authors published."""
    table_rows: np.ndarray | None = None
    """``(N,)`` uint16, each image's row in the authors' table, from 0; None where there is none."""

    @classmethod
    def of(
        cls,
        entries: Sequence[Entry],
        looks: np.ndarray,
        originals: np.ndarray | None = None,
        table_rows: np.ndarray | None = None,
    ) -> Reference:
        """Make one from a prepared dataset that is known to be the reference copy."""
        cells, checksums = cells_of(entries), checksums_of(entries)
        order = np.lexsort((checksums, cells))
        if originals is None:
            originals = np.full(len(cells), UNKNOWN_PIXELS, np.uint32)
        rows = None if table_rows is None else table_rows[order]
        return cls(cells[order], checksums[order], looks[order], originals[order], rows)

    @property
    def arrays(self) -> dict[str, Any]:
        """The content of a reference file."""
        stored = {name: self.looks[name].astype(kind) for name, kind in STORED.items()}
        own = {"cells": self.cells, "checksums": self.checksums, "originals": self.originals}
        if self.table_rows is not None:
            own["table_rows"] = self.table_rows
        return {**own, **stored}

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per split and emotion."""
        table = count_by_cell(self.cells).tolist()
        return {
            split: dict(zip(labels.EMOTIONS, row, strict=True))
            for split, row in zip(SPLITS, table, strict=True)
        }


def cells_of(entries: Sequence[Entry]) -> np.ndarray:
    """``(N,)`` uint8: split and emotion of each image as one number, 7 · split + emotion."""
    return np.array(
        [
            SPLITS.index(entry.split) * labels.NUM_CLASSES + labels.INDEX[entry.emotion]
            for entry in entries
        ],
        dtype=np.uint8,
    )


def count_by_cell(cells: np.ndarray) -> np.ndarray:
    """``(3, 7)`` int64: images per split and emotion."""
    counts = np.bincount(cells, minlength=len(SPLITS) * labels.NUM_CLASSES)
    return counts.reshape(len(SPLITS), labels.NUM_CLASSES)


def checksums_of(entries: Sequence[Entry]) -> np.ndarray:
    """``(N,)`` uint32."""
    return np.array([int(entry.sha256[:8], 16) for entry in entries], dtype=np.uint32)


@functools.cache
def load_reference(name: str) -> Reference | None:
    """The reference copy called ``name`` that the package ships, or None."""
    path = resources.files("fer.data.audit") / "references" / f"{name}.npz"
    if not path.is_file():
        return None
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        looks = np.zeros(len(arrays["cells"]), LOOKS)
        looks["size"] = 1
        for name in STORED:
            looks[name] = arrays[name]
        return Reference(
            *(arrays["cells"], arrays["checksums"], looks),
            *(arrays["originals"], arrays.get("table_rows")),
        )


@dataclass(frozen=True)
class Matching:
    """The image of the reference that each image of a copy is."""

    entries: Sequence[Entry]
    looks: np.ndarray
    """``(N,)`` :data:`~fer.data.audit.appearance.LOOKS` of the entries, as the reference has."""
    reference: Reference
    cells: np.ndarray
    """``(N,)`` uint8 of the entries, see :func:`cells_of`."""
    rows: np.ndarray
    """``(N,)`` int64: the row of the reference, -1 for none. No row is given twice."""
    identical: np.ndarray
    """``(N,)`` bool: pixel for pixel, in either encoding."""
    distance: np.ndarray
    """``(N,)`` int64: bits in which the hashes differ, -1 for none."""


def match(entries: Sequence[Entry], looks: np.ndarray, reference: Reference) -> Matching:
    """Find each image of a copy in the reference, one to one.

    Equal pixels come first, then equal looks; in both, an image's own split and emotion come first,
    then its emotion or its split alone: a picture that is there twice is found where it should be.
    """
    cells, hashes, own_hashes = cells_of(entries), looks["hashes"], reference.looks["hashes"]
    rows = np.full(len(cells), -1, np.int64)
    distance = rows.copy()
    free = np.ones(len(own_hashes), bool)
    levels = list(zip(groupings(cells), groupings(reference.cells), strict=True))

    def pair(images: np.ndarray | int, own: np.ndarray | int, bits: np.ndarray | int) -> None:
        rows[images], distance[images], free[own] = own, bits, False

    checksums = checksums_of(entries)
    for known in (reference.originals, reference.checksums):
        wanted = np.isin(known, checksums) & (known != UNKNOWN_PIXELS)
        for keys, own_keys in levels:
            equal = defaultdict(list)
            for row in np.flatnonzero(free & wanted).tolist():
                equal[known[row], own_keys[row]].append(row)
            for image in np.flatnonzero(rows < 0).tolist():
                for row in equal.get((checksums[image], keys[image]), ()):
                    bits = int(np.unpackbits(hashes[image] ^ own_hashes[row]).sum())
                    if free[row] and bits <= COLLISION_BITS:
                        pair(image, row, bits)
                        break
    identical = rows >= 0
    for level, (keys, own_keys) in enumerate(levels):
        most = ELSEWHERE_BITS if level else SAME_CELL_BITS
        for key in np.unique(keys[rows < 0]):
            images = np.flatnonzero((rows < 0) & (keys == key))
            spares = np.flatnonzero(free & (own_keys == key))
            for one, two, apart in pair_alike(hashes[images], own_hashes[spares], most):
                pair(images[one], spares[two], apart)
    return Matching(entries, looks, reference, cells, rows, identical, distance)


def official_splits(entries: Sequence[Entry], looks: np.ndarray, reference: Reference) -> list[str]:
    """The split of each image in the reference copy; its own where it is not recognised."""
    rows = match(entries, looks, reference).rows.tolist()
    return [
        SPLITS[reference.cells[row] // labels.NUM_CLASSES] if row >= 0 else entry.split
        for entry, row in zip(entries, rows, strict=True)
    ]


def groupings(cells: np.ndarray) -> tuple[np.ndarray, ...]:
    """What has to agree, loosened step by step: split and emotion, emotion, split, nothing."""
    c = labels.NUM_CLASSES
    return cells, cells % c, cells // c, np.zeros_like(cells)


def pair_alike(
    left: np.ndarray, right: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """One-to-one pairs of hashes that differ in at most ``most`` bits, the closest first.

    Yields:
        Positions on the left, positions on the right and differing bits, for some of the pairs.
    """
    lefts, rights = np.arange(len(left)), np.arange(len(right))
    while len(lefts) and len(rights):
        distance, nearest = hamming(left[lefts], right[rights])
        # What is near nothing now is near nothing later.
        near = np.flatnonzero(distance <= most)
        near = near[np.argsort(distance[near], kind="stable")]
        taken, first = np.unique(nearest[near], return_index=True)
        closest = near[first]
        yield lefts[closest], rights[taken], distance[closest]
        lefts, rights = lefts[np.setdiff1d(near, closest)], np.delete(rights, taken)
