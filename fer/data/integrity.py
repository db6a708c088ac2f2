"""What is in a prepared dataset: counts, pixel statistics, duplicates, blanks, fingerprint."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer import labels
from fer.data.manifest import Entry, fingerprint
from fer.data.raw import SPLITS

BLANK_STD = 2.0
"""A picture whose gray levels (0–255) deviate less than this from their mean shows nothing."""


@dataclass(frozen=True)
class PixelStatistics:
    """Of one image, over all its pixels and channels, in gray levels 0–255."""

    width: int
    height: int
    mean: float
    std: float

    @classmethod
    def of(cls, image: np.ndarray) -> PixelStatistics:
        """Measure an ``(H, W)`` or ``(H, W, 3)`` uint8 image."""
        return cls(image.shape[1], image.shape[0], float(image.mean()), float(image.std()))


def count_classes(entries: Iterable[Entry]) -> dict[str, dict[str, int]]:
    """Images per split and emotion, in the schema's order."""
    counts = Counter((entry.split, entry.emotion) for entry in entries)
    return {
        split: {emotion: counts[split, emotion] for emotion in labels.EMOTIONS} for split in SPLITS
    }


def leaked(entries: Sequence[Entry], split: str) -> list[bool]:
    """Whether each image of ``split`` stands, pixel for pixel, in an earlier split too.

    Earlier than ``test`` are train and val; earlier than ``val`` is train. What a network has
    seen, or what chose its checkpoint, says little about how it does on new faces.
    """
    earlier = SPLITS[: SPLITS.index(split)]
    seen = {entry.sha256 for entry in entries if entry.split in earlier}
    return [entry.sha256 in seen for entry in entries if entry.split == split]


def find_duplicates(entries: Iterable[Entry]) -> dict[str, Any]:
    """Exact duplicates: groups of images with the same pixels."""
    by_hash: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_hash[entry.sha256].append(entry)
    groups = [group for group in by_hash.values() if len(group) > 1]
    across = [group for group in groups if len({entry.split for entry in group}) > 1]
    conflicts = [group for group in groups if len({entry.emotion for entry in group}) > 1]
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "groups_across_splits": len(across),
        "images_across_splits": sum(map(len, across)),
        "groups_with_conflicting_labels": len(conflicts),
        "images_with_conflicting_labels": sum(map(len, conflicts)),
        "conflicts": [
            [{"id": entry.id, "split": entry.split, "emotion": entry.emotion} for entry in group]
            for group in conflicts
        ],
    }


def pool_statistics(statistics: Sequence[PixelStatistics]) -> dict[str, float]:
    """Mean and standard deviation over all pixels of several images, in gray levels 0–255."""
    weights = np.array([item.width * item.height for item in statistics], dtype=np.float64)
    means = np.array([item.mean for item in statistics])
    stds = np.array([item.std for item in statistics])
    mean = float(np.average(means, weights=weights))
    square = float(np.average(stds**2 + means**2, weights=weights))
    return {"mean": mean, "std": float(np.sqrt(max(square - mean**2, 0.0)))}


def inspect(
    entries: Sequence[Entry],
    statistics: Sequence[PixelStatistics],
    official_counts: Mapping[str, Mapping[str, int]] | None,
) -> dict[str, Any]:
    """The content of ``integrity.json`` that follows from the images themselves.

    Args:
        entries: the prepared images.
        statistics: of each entry's pixels, in the same order.
        official_counts: images per split and emotion that the dataset's authors state. Where they
            state none for ``val``, their ``train`` is compared with train and val together.
    """
    counts = count_classes(entries)
    compared = None
    if official_counts is not None:
        found = {split: dict(counts[split]) for split in official_counts}
        if "val" not in official_counts:
            found["train"] = {
                emotion: counts["train"][emotion] + counts["val"][emotion]
                for emotion in labels.EMOTIONS
            }
        compared = found == {split: dict(row) for split, row in official_counts.items()}
    by_split: dict[str, list[PixelStatistics]] = defaultdict(list)
    for entry, item in zip(entries, statistics, strict=True):
        by_split[entry.split].append(item)
    sizes = Counter(f"{item.width}x{item.height}" for item in statistics)
    return {
        "images": len(entries),
        "counts": counts,
        "matches_official_counts": compared,
        "sizes": dict(sizes.most_common(20)),
        "pixels": {split: pool_statistics(by_split[split]) for split in SPLITS if by_split[split]},
        "duplicates": find_duplicates(entries),
        "blank": [
            entry.id
            for entry, item in zip(entries, statistics, strict=True)
            if item.std < BLANK_STD
        ],
        "fingerprint": fingerprint(entries),
    }


def summarise(integrity: Mapping[str, Any]) -> list[str]:
    """A few lines for the terminal."""
    duplicates = integrity["duplicates"]
    matches = integrity["matches_official_counts"]
    verdict = {True: "the official counts", False: "NOT the official counts", None: ""}[matches]
    sizes = [
        f"{split} {sum(integrity['counts'][split].values()):,}"
        for split in SPLITS
        if sum(integrity["counts"][split].values())
    ]
    lines = [
        f"{integrity['images']:,} images ({', '.join(sizes)})"
        + (f": {verdict}" if verdict else ""),
        f"exact duplicates: {duplicates['images']:,} images in {duplicates['groups']:,} groups; "
        f"{duplicates['groups_across_splits']:,} groups cross splits, "
        f"{duplicates['groups_with_conflicting_labels']:,} have conflicting labels",
        f"blank images: {len(integrity['blank']):,}",
        f"fingerprint {integrity['fingerprint'][:16]}",
    ]
    return lines
