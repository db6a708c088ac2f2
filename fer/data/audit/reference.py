"""The reference copy of a dataset, as checksums and measurements, and who in a copy is who in it.

For FER2013 the package has one row for each of the 35,887 images: a checksum of its pixels, its
perceptual hash, its official split and emotion, and how sharp, bright and noisy it is. No picture
can be made from that. It lets a copy be judged image by image, whatever its files are called.

``python -m fer.data.make_reference FOLDER NAME`` makes the file anew from a prepared dataset.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from fer.core import labels
from fer.data.audit.appearance import Looks, hamming, inverted, mirrored
from fer.data.manifest import Entry
from fer.data.readers.base import SPLITS

log = logging.getLogger(__name__)

SAME_CELL_BITS = 20
"""Up to this many differing bits, an image of the same split and emotion counts as the same."""
ELSEWHERE_BITS = 16
"""The same where split or emotion differ. In FER2013 the nearest *other* picture is at 24 bits or
more for 92 % of the images (the rest have near duplicates)."""
NEIGHBOURS = 4


@dataclass(frozen=True)
class Reference:
    """One row per image of the reference copy."""

    cells: np.ndarray
    """``(N,)`` uint8, see :func:`cells_of`."""
    checksums: np.ndarray
    """``(N,)`` uint32, the first four bytes of the pixels' SHA-256."""
    hashes: np.ndarray
    """``(N, 16)`` uint8."""
    mean: np.ndarray
    """``(N,)`` float16, gray levels."""
    std: np.ndarray
    bands: np.ndarray
    """``(N, 5)`` float16."""
    grain: np.ndarray
    levels: np.ndarray
    """``(N,)`` uint16."""

    @classmethod
    def of(cls, entries: Sequence[Entry], looks: Looks) -> Reference:
        """Of a prepared dataset that is known to be the reference copy."""
        order = np.lexsort((checksums_of(entries), cells_of(entries)))
        return cls(
            cells_of(entries)[order],
            checksums_of(entries)[order],
            looks.hashes[order],
            looks.mean[order].astype(np.float16),
            looks.std[order].astype(np.float16),
            looks.bands[order].astype(np.float16),
            looks.grain[order].astype(np.float16),
            looks.levels[order].astype(np.uint16),
        )

    @property
    def looks(self) -> Looks:
        """The measurements, in the form that those of a copy have. The sizes are not kept."""
        return Looks(
            np.zeros((len(self.cells), 2), np.int64),
            self.mean.astype(np.float64),
            self.std.astype(np.float64),
            self.bands.astype(np.float32),
            self.grain.astype(np.float32),
            self.levels.astype(np.int64),
            self.hashes,
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per split and emotion."""
        counts = np.bincount(self.cells, minlength=len(SPLITS) * labels.NUM_CLASSES)
        rows = counts.reshape(len(SPLITS), labels.NUM_CLASSES).tolist()
        return {
            split: dict(zip(labels.EMOTIONS, row, strict=True))
            for split, row in zip(SPLITS, rows, strict=True)
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


def checksums_of(entries: Sequence[Entry]) -> np.ndarray:
    """``(N,)`` uint32."""
    return np.array([int(entry.sha256[:8], 16) for entry in entries], dtype=np.uint32)


@functools.cache
def load_reference(name: str) -> Reference | None:
    """The reference copy called ``name`` that the package has, or None."""
    path = resources.files("fer.data.audit") / "references" / f"{name}.npz"
    if not path.is_file():
        return None
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Reference(**{key: arrays[key] for key in Reference.__dataclass_fields__})


@dataclass(frozen=True)
class Matching:
    """Which image of the reference copy each image of a copy is."""

    rows: np.ndarray
    """``(N,)`` int64: the row of the reference, -1 for none. No row is given twice."""
    identical: np.ndarray
    """``(N,)`` bool: pixel for pixel."""
    distance: np.ndarray
    """``(N,)`` int64: bits in which the hashes differ, -1 for none."""
    changed: dict[str, np.ndarray]
    """``mirrored`` and ``inverted``: ``(N,)`` bool, matched in this form only."""
    known: np.ndarray
    """``(N,)`` bool: unmatched, but a further copy of an image of the reference."""
    known_mirrored: np.ndarray
    """``(N,)`` bool: unmatched, but the mirror image of an image of the reference."""


def match(entries: Sequence[Entry], looks: Looks, reference: Reference) -> Matching:
    """Find each image of a copy in the reference, one to one.

    Equal pixels come first, then equal looks; in both, the image's own split and emotion come
    before the same emotion or the same split alone, and that before everything else. A picture that
    stands several times in the reference is therefore found where it should be, if it is there.
    """
    count = len(entries)
    cells, sums = cells_of(entries).astype(np.int64), checksums_of(entries).astype(np.int64)
    own = reference.cells.astype(np.int64)
    own_sums = reference.checksums.astype(np.int64)
    rows = np.full(count, -1, np.int64)
    distance = np.full(count, -1, np.int64)
    changed = {name: np.zeros(count, bool) for name in ("mirrored", "inverted")}
    free = np.ones(len(own), bool)

    def assign(images: np.ndarray, found: np.ndarray, bits: np.ndarray) -> None:
        rows[images], distance[images], free[found] = found, bits, False

    for copy_key, own_key in zip(groupings(cells), groupings(own), strict=True):
        left, spare = np.flatnonzero(rows < 0), np.flatnonzero(free)
        pairs = pair_equal(sums[left] * 64 + copy_key[left], own_sums[spare] * 64 + own_key[spare])
        # Four bytes may coincide; together with the hash of the looks they do not.
        images, found = left[pairs[0]], spare[pairs[1]]
        same = (looks.hashes[images] == reference.hashes[found]).all(axis=1)
        assign(images[same], found[same], np.zeros(same.sum(), np.int64))
    identical = rows >= 0
    forms = {
        "": looks.hashes,
        "mirrored": mirrored(looks.hashes),
        "inverted": inverted(looks.hashes),
    }
    for level, (copy_key, own_key) in enumerate(zip(groupings(cells), groupings(own), strict=True)):
        bits = SAME_CELL_BITS if level == 0 else ELSEWHERE_BITS
        for form, hashes in forms.items():
            if form and level > 1:
                continue  # mirrored or inverted, and another emotion as well: not worth the search
            before = rows < 0
            for images, spare in groups(copy_key, own_key, before, free):
                for pair in pair_alike(hashes[images], reference.hashes[spare], bits):
                    assign(images[pair[0]], spare[pair[1]], pair[2])
            if form:
                changed[form] |= before & (rows >= 0)
    left = np.flatnonzero((rows < 0) & looks.has_content)
    known, known_mirrored = np.zeros(count, bool), np.zeros(count, bool)
    for mark, form in ((known, ""), (known_mirrored, "mirrored")):
        nearest, _ = hamming(forms[form][left], reference.hashes, 1)
        mark[left] = nearest[:, :1].ravel() <= ELSEWHERE_BITS
    return Matching(rows, identical, distance, changed, known, known_mirrored & ~known)


def official_splits(entries: Sequence[Entry], looks: Looks, reference: Reference) -> list[str]:
    """The split of each image in the reference copy; its own where it is not recognised."""
    rows = match(entries, looks, reference).rows.tolist()
    return [
        SPLITS[reference.cells[row] // labels.NUM_CLASSES] if row >= 0 else entry.split
        for entry, row in zip(entries, rows, strict=True)
    ]


def groupings(cells: np.ndarray) -> tuple[np.ndarray, ...]:
    """What has to agree, ever less: split and emotion, the emotion, the split, nothing."""
    c = labels.NUM_CLASSES
    return cells, cells % c, cells // c, np.zeros_like(cells)


def groups(
    copy_key: np.ndarray, own_key: np.ndarray, left: np.ndarray, free: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each key, the images that are left and the rows that are free."""
    for key in np.unique(copy_key[left]):
        images = np.flatnonzero(left & (copy_key == key))
        spare = np.flatnonzero(free & (own_key == key))
        if len(images) and len(spare):
            yield images, spare


def pair_equal(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of equal numbers: the n-th of a number on the left with the n-th on the right."""
    _, one, two = np.intersect1d(
        _numbered(left), _numbered(right), assume_unique=True, return_indices=True
    )
    return one, two


def _numbered(keys: np.ndarray) -> np.ndarray:
    """Keys made unique: how often each came before is counted into it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.diff(np.r_[starts, len(ordered)])
    unique = np.empty(len(keys), np.int64)
    unique[order] = np.arange(len(keys)) - np.repeat(starts, sizes)
    return keys * (1 << 20) + unique


def pair_alike(
    left: np.ndarray, right: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """One-to-one pairs of hashes that differ in at most ``most`` bits, the closest first.

    Yields:
        Positions on the left, positions on the right and differing bits, for some of the pairs.
    """
    lefts, rights = np.arange(len(left)), np.arange(len(right))
    while len(lefts) and len(rights):
        distance, nearest = hamming(left[lefts], right[rights], NEIGHBOURS)
        near = np.argwhere(distance <= most)
        bits = distance[near[:, 0], near[:, 1]]
        order = np.argsort(bits, kind="stable")
        one, two = near[order, 0], nearest[near[:, 0], near[:, 1]][order]
        bits = bits[order]
        pairs = list(_greedy(one, two))
        if not pairs:
            return
        taken = np.array(pairs)
        yield lefts[one[taken]], rights[two[taken]], bits[taken].astype(np.int64)
        # What is near to nothing now is near to nothing later.
        hopeful = distance[:, 0] <= most
        hopeful[one[taken]] = False
        lefts = lefts[hopeful]
        rights = np.delete(rights, two[taken])


def _greedy(one: np.ndarray, two: np.ndarray) -> Iterator[int]:
    """Positions of the pairs that are taken when each side may be used once."""
    used_one: set[int] = set()
    used_two: set[int] = set()
    for position, (a, b) in enumerate(zip(one.tolist(), two.tolist(), strict=True)):
        if a not in used_one and b not in used_two:
            used_one.add(a)
            used_two.add(b)
            yield position
