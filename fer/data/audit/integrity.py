"""What is in a prepared dataset: counts, pixel statistics, duplicates, blanks, fingerprint."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TypedDict, cast

import numpy as np

from fer.core import labels
from fer.core.values import Options
from fer.core.words import how_many
from fer.data.audit.appearance import HASH_BITS, HASH_BYTES, hamming, has_content, sharpness
from fer.data.audit.neighbours import group_near
from fer.data.audit.reference import Reference
from fer.data.audit.splits_compared import SplitDifference, compare_splits
from fer.data.audit.verdict import (
    ALTERED,
    Counts,
    Verdict,
    count_classes,
    has_official_counts,
    judge,
)
from fer.data.manifest import Entry, fingerprint
from fer.data.readers.base import SPLITS, Finding

BLANK_STD = 2.0
"""A picture whose gray levels (0–255) have a smaller standard deviation than this is blank."""
NEAR_BITS = 16
"""Pictures whose hashes differ in at most so many of 127 bits are near duplicates. All pairs of
FER2013 at 16 bits that were looked at show the same photograph; at 24 bits some do not."""
LISTED = 200
"""Groups and ids of each kind that ``integrity.json`` names; the numbers count all."""
MEMBERS = 5
"""Images of a group that the terminal names, or as many as have different emotions."""


class Groups(TypedDict):
    """Groups of images that show the same."""

    groups: int
    images: int
    groups_across_splits: int
    images_across_splits: int
    groups_with_conflicting_labels: int
    images_with_conflicting_labels: int


class Duplicates(Groups):
    """The same pixels more than once."""

    conflicts: list[list[dict[str, str]]]
    """The first groups whose images have different emotions; see :func:`name_groups`."""


class NearDuplicates(Groups):
    """The same picture more than once, in other pixels."""

    distance: int
    """Most bits in which two perceptual hashes differ."""
    bits: int
    """Bits of a hash."""
    listed: list[list[dict[str, str]]]
    """The first groups, those that cross splits before the others."""


class Leaks(TypedDict):
    """Images that are duplicated, pixel for pixel, in another split."""

    train_in_val_or_test: int
    val_in_train: int
    test_in_train_or_val: int


class OddSizes(TypedDict):
    """Images of another size than expected, and the first of their ids."""

    images: int
    ids: list[str]


class FindingRecord(TypedDict):
    """A :class:`~fer.data.readers.base.Finding` as plain data."""

    kind: str
    text: str
    split: str | None
    emotion: str | None
    images: int


class _Inspection(TypedDict):
    verdict: str
    """``reference copy``, ``altered copy`` or ``unknown``."""
    verdict_text: str
    findings: list[FindingRecord]
    images: int
    counts: dict[str, dict[str, int]]
    """Split → emotion → images."""
    official_counts: Counts | None
    matches_official_counts: bool | None
    sizes: dict[str, int]
    """``48x48`` → images, of the twenty most frequent sizes."""
    expected_size: int | None
    odd_sizes: OddSizes
    pixels: dict[str, dict[str, float]]
    """Split → :func:`pool_statistics`."""
    reference_pixels: dict[str, dict[str, float]] | None
    splits_compared: list[SplitDifference]
    compared_with_reference: dict[str, int] | None
    """Images by what they are in the reference copy."""
    duplicates: Duplicates
    leaks: Leaks
    near_duplicates: NearDuplicates
    blank: list[str]
    """Ids."""
    fingerprint: str


class Inspection(_Inspection, total=False):
    """The part of ``integrity.json`` that follows from the images themselves."""

    identity: str | None
    """See :func:`fer.data.manifest.identity`; missing in reports of an earlier version."""


class Given(TypedDict, total=False):
    """What raw data is known by; of a folder that was prepared elsewhere, the path alone."""

    path: str
    files: int
    bytes: int
    listing: str
    """Checksum of the files' names, sizes and times."""
    sha256: str
    """Of a file that was read beside the raw data, instead of the three above."""


class _Source(TypedDict):
    form: str
    """In words: ``image archive (zip)``."""
    given: Given
    signature: str


class SourceRecord(_Source, total=False):
    """The raw data that was prepared."""

    beside: Given | None
    """What was read beside a file, such as the images that a table names."""


class _Origin(TypedDict):
    reader: Options
    generator: Options | None
    """Options of the drawn faces."""
    undecodable: str
    format: int


class Origin(_Origin, total=False):
    """The options that decide what becomes of the raw data."""

    faces: str
    """``crop`` where faces were cut out of the pictures."""


class _Integrity(Inspection):
    dataset: str
    source: SourceRecord
    origin: Origin
    official_protocol: bool
    warnings: list[str]
    excluded: dict[str, int]
    """Reason → images that the reader left out."""
    undecodable: list[dict[str, str]]
    """Files that did not decode."""


class Integrity(_Integrity, total=False):
    """``integrity.json``."""

    disputed: list[str]
    """Images that were left out since the copy itself gives them different labels."""
    faceless: dict[str, dict[str, int]]
    """Why pictures had no face to cut out → split → images; they are among ``excluded``."""
    detector: Options
    """What found the faces: checksum of its weights, version of OpenCV, thresholds."""


def earlier_and_own(entries: Sequence[Entry], split: str) -> tuple[list[Entry], list[Entry]]:
    """The images of the splits before ``split``, and its own.

    What a network has seen, or what chose its checkpoint, says little about new faces.
    """
    earlier = SPLITS[: SPLITS.index(split)]
    return (
        [entry for entry in entries if entry.split in earlier],
        [entry for entry in entries if entry.split == split],
    )


def exact_leaks(seen: Sequence[Entry], measured: Sequence[Entry]) -> np.ndarray:
    """``(N,)`` bool: images of ``measured`` that are, pixel for pixel, among ``seen``."""
    known = {entry.sha256 for entry in seen}
    return np.array([entry.sha256 in known for entry in measured], dtype=bool)


def near_leaks(seen: Sequence[Entry], measured: Sequence[Entry]) -> np.ndarray | None:
    """Like :func:`exact_leaks`, with near duplicates: other sizes, crops and compressions.

    None where one of the manifests has no perceptual hashes: an earlier version wrote it.
    """
    both = [*seen, *measured]
    rows, hashes = perceptual_hashes(both)
    first = len(seen)
    if seen and not ((rows < first).any() and (rows >= first).any()):
        return None
    group, before = group_near(hashes, NEAR_BITS), rows < first
    mixed = np.isin(group, np.intersect1d(group[before], group[~before]))
    # A group may be linked by chains: its members are compared directly.
    ours = mixed & ~before
    distance, _ = hamming(hashes[ours], hashes[mixed & before])
    found = np.zeros(len(both), dtype=bool)
    found[rows[ours]] = distance <= NEAR_BITS
    return found[first:] | exact_leaks(seen, measured)


def perceptual_hashes(entries: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images with a perceptual hash, ``(M,)``, and the hashes, ``(M, 16)`` uint8."""
    hashes = bytes.fromhex("".join(entry.phash for entry in entries))
    rows = np.flatnonzero([bool(entry.phash) for entry in entries])
    return rows, np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)


def near_groups(entries: Sequence[Entry]) -> np.ndarray:
    """``(N,)`` int64: equal for near duplicates; -1 for images without a perceptual hash."""
    rows, hashes = perceptual_hashes(entries)
    groups = np.full(len(entries), -1)
    groups[rows] = group_near(hashes, NEAR_BITS)
    return groups


def count_leaks(entries: Sequence[Entry]) -> Leaks:
    """Images that are duplicated, pixel for pixel, in another split."""
    train = [entry for entry in entries if entry.split == "train"]
    held_out = [entry for entry in entries if entry.split != "train"]
    return {
        "train_in_val_or_test": int(exact_leaks(held_out, train).sum()),
        "val_in_train": int(exact_leaks(*earlier_and_own(entries, "val")).sum()),
        "test_in_train_or_val": int(exact_leaks(*earlier_and_own(entries, "test")).sum()),
    }


def group_duplicates(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Groups of two or more images with the same pixels."""
    by_hash: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_hash[entry.sha256].append(entry)
    return [group for group in by_hash.values() if len(group) > 1]


def describe_groups(groups: Sequence[Sequence[Entry]]) -> Groups:
    """Count groups and images, and those of them that cross splits or disagree in emotion."""
    across = [group for group in groups if len({entry.split for entry in group}) > 1]
    conflicts = conflicting(groups)
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "groups_across_splits": len(across),
        "images_across_splits": sum(map(len, across)),
        "groups_with_conflicting_labels": len(conflicts),
        "images_with_conflicting_labels": sum(map(len, conflicts)),
    }


def conflicting(groups: Sequence[Sequence[Entry]]) -> list[Sequence[Entry]]:
    """The groups whose images have different emotions."""
    return [group for group in groups if len({entry.emotion for entry in group}) > 1]


def name_groups(groups: Sequence[Sequence[Entry]]) -> list[list[dict[str, str]]]:
    """The first :data:`LISTED` groups, as plain data."""
    return [
        [{"id": entry.id, "split": entry.split, "emotion": entry.emotion} for entry in group]
        for group in groups[:LISTED]
    ]


def find_near_duplicates(entries: Sequence[Entry], looks: np.ndarray) -> NearDuplicates:
    """Different pixels, the same picture: other sizes, crops, compressions and watermarks.

    Exact copies count as one image, and images without content are left out.
    """
    first: dict[str, int] = {}
    for index in np.flatnonzero(has_content(looks)).tolist():
        first.setdefault(entries[index].sha256, index)
    rows = np.array(list(first.values()), dtype=np.int64)
    members: dict[int, list[Entry]] = defaultdict(list)
    for row, group in zip(rows.tolist(), group_near(looks["hashes"][rows], NEAR_BITS), strict=True):
        members[group].append(entries[row])
    groups = [group for group in members.values() if len(group) > 1]
    # Only some are listed: those that cross splits first.
    groups.sort(key=lambda group: -len({entry.split for entry in group}))
    return {
        "distance": NEAR_BITS,
        "bits": HASH_BITS,
        **describe_groups(groups),
        "listed": name_groups(groups),
    }


def pool_statistics(looks: np.ndarray) -> dict[str, float]:
    """Gray levels (0–255) of several images: ``mean`` and ``std`` over all pixels, and the median
    ``contrast`` (an image's own standard deviation) and ``sharpness``."""
    weights = looks["size"].prod(axis=1).astype(np.float64)
    means, stds = looks["mean"], looks["std"]
    mean = float(np.average(means, weights=weights))
    square = float(np.average(stds**2 + means**2, weights=weights))
    content = has_content(looks)
    return {
        "mean": mean,
        "std": float(np.sqrt(max(square - mean**2, 0.0))),
        "contrast": float(np.median(stds)),
        "sharpness": float(np.median(sharpness(looks[content]))) if content.any() else 0.0,
    }


def statistics_by_split(splits: np.ndarray, looks: np.ndarray) -> dict[str, dict[str, float]]:
    """:func:`pool_statistics` of each split that has images."""
    found = np.unique(splits)
    return {split: pool_statistics(looks[splits == split]) for split in SPLITS if split in found}


def inspect(
    entries: Sequence[Entry],
    looks: np.ndarray,
    *,
    official_counts: Counts | None = None,
    expected_size: int | None = None,
    reference: Reference | None = None,
    known: Sequence[Finding] = (),
    judged: Verdict | None = None,
) -> Inspection:
    """Inspect images; see :func:`~fer.data.audit.verdict.judge` for the arguments.

    ``judged`` is a verdict on the images before they were given other labels.
    """
    judged = judged or judge(
        entries,
        looks,
        reference=reference,
        official_counts=official_counts,
        expected_size=expected_size,
        known=known,
    )
    sizes = Counter(f"{width}x{height}" for width, height in looks["size"].tolist())
    is_odd = (looks["size"] != (expected_size or looks["size"])).any(axis=1)
    ids = np.array([entry.id for entry in entries], dtype=object)
    odd_ids = ids[is_odd].tolist()
    groups = group_duplicates(entries)
    has_no_val = official_counts is not None and "val" not in official_counts
    return {
        "verdict": judged.verdict,
        "verdict_text": judged.text,
        "findings": [cast(FindingRecord, asdict(finding)) for finding in judged.findings],
        "images": len(entries),
        "counts": count_classes(entries),
        "official_counts": official_counts,
        "matches_official_counts": None
        if official_counts is None
        else has_official_counts(entries, official_counts),
        "sizes": dict(sizes.most_common(20)),
        "expected_size": expected_size,
        "odd_sizes": {"images": len(odd_ids), "ids": odd_ids[:LISTED]},
        "pixels": statistics_by_split(np.array([entry.split for entry in entries]), looks),
        "reference_pixels": None
        if reference is None
        else statistics_by_split(
            np.array(SPLITS)[reference.cells // labels.NUM_CLASSES], reference.looks
        ),
        "splits_compared": compare_splits(entries, looks, held_out=has_no_val),
        "compared_with_reference": judged.compared,
        "duplicates": {**describe_groups(groups), "conflicts": name_groups(conflicting(groups))},
        "leaks": count_leaks(entries),
        "near_duplicates": find_near_duplicates(entries, looks),
        "blank": ids[looks["std"] < BLANK_STD].tolist(),
        "fingerprint": fingerprint(entries),
        "identity": judged.identity,
    }


def name_conflicts(duplicates: Duplicates) -> list[str]:
    """A line that names the first exact copies with different emotions, if there are any."""
    groups = duplicates.get("conflicts", [])  # a report may be edited
    named = [name_members(group) for group in groups[:10]]
    more = duplicates["groups_with_conflicting_labels"] - len(named)
    if not named:
        return []
    listed = "; ".join(named) + f"; and {more:,} more" * (more > 0)
    return [
        "copies with different emotions (dataset.conflicts=drop leaves them out of every split): "
        f"{listed}"
    ]


def name_members(group: Sequence[Mapping[str, str]]) -> str:
    """A few images of a group, one of each emotion at least, and how many others there are.

    >>> name_members([{"id": id, "emotion": "sad" if id < "8" else "fear"} for id in "12345678"])
    '1 sad, 8 fear, 2 sad, 3 sad, 4 sad and 3 others'
    """
    first = {one["emotion"]: one["id"] for one in reversed(group)}
    ordered = sorted(group, key=lambda one: one["id"] != first[one["emotion"]])
    named = ordered[: max(MEMBERS, len(first))]
    more = len(group) - len(named)
    text = ", ".join(f"{one['id']} {one['emotion']}" for one in named)
    return text + f" and {how_many(more, 'other')}" * (more > 0)


def summarise(integrity: Inspection) -> list[str]:
    """A few lines for the terminal."""
    duplicates, near = integrity["duplicates"], integrity["near_duplicates"]
    matches = integrity["matches_official_counts"]
    counts = {True: ": the official counts", False: ": NOT the official counts", None: ""}[matches]
    totals = {split: sum(integrity["counts"][split].values()) for split in SPLITS}
    sizes = [f"{split} {total:,}" for split, total in totals.items() if total]
    leaks = integrity["leaks"]
    return [
        f"{integrity['verdict']}: {integrity['verdict_text']}",
        *(f"- {finding['text']}" for finding in integrity["findings"]),
        f"{integrity['images']:,} images ({', '.join(sizes)}){counts}",
        f"exact duplicates: {duplicates['images']:,} images in {duplicates['groups']:,} groups; "
        f"{duplicates['groups_across_splits']:,} groups cross splits, "
        f"{duplicates['groups_with_conflicting_labels']:,} have conflicting labels",
        *name_conflicts(duplicates),
        f"leaks: {leaks['test_in_train_or_val']:,} test images are duplicated in train or "
        f"val, {leaks['val_in_train']:,} val images in train",
        f"near duplicates: {near['images']:,} images in {near['groups']:,} groups; "
        f"{near['groups_across_splits']:,} groups cross splits",
        f"blank images: {len(integrity['blank']):,}; odd sizes: "
        f"{integrity['odd_sizes']['images']:,}",
        f"fingerprint {integrity['fingerprint'][:16]}",
    ]


def data_notes(integrity: Integrity) -> list[str]:
    """Notes on this copy that go with every result measured on it."""
    if integrity["verdict"] != ALTERED:
        # File names do not affect results.
        return [f["text"] for f in integrity["findings"] if f["kind"] != "renamed"]
    return [
        f"These results are from an altered copy of {integrity['dataset']}, not from what its "
        "authors published. " + " ".join(finding["text"] for finding in integrity["findings"])
    ]
