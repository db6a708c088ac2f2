"""What is in a prepared dataset: counts, pixel statistics, duplicates, blanks, fingerprint."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fer.core import labels
from fer.data.audit.appearance import HASH_BITS, HASH_BYTES, Looks, hamming
from fer.data.audit.neighbours import group_near
from fer.data.audit.reference import Reference
from fer.data.audit.verdict import ALTERED, compare_splits, count_cells, judge
from fer.data.manifest import Entry, fingerprint
from fer.data.readers.base import SPLITS, Finding

BLANK_STD = 2.0
"""A picture whose gray levels (0–255) deviate less than this from their mean shows nothing."""
NEAR_BITS = 16
"""Pictures whose hashes differ in at most so many of 127 bits are near duplicates. Of pairs of
FER2013 at 16 bits all that were looked at show the same photograph; at 24 bits some do not."""
LISTED = 200
"""Groups and ids that ``integrity.json`` names of each kind; the numbers count all."""


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
    return stand_again(*apart(entries, split)).tolist()


def apart(entries: Sequence[Entry], split: str) -> tuple[list[Entry], list[Entry]]:
    """The images of the splits before ``split``, and its own."""
    earlier = SPLITS[: SPLITS.index(split)]
    return (
        [entry for entry in entries if entry.split in earlier],
        [entry for entry in entries if entry.split == split],
    )


def stand_again(seen: Sequence[Entry], measured: Sequence[Entry]) -> np.ndarray:
    """``(N,)`` bool: which of ``measured`` are, pixel for pixel, among ``seen``."""
    known = {entry.sha256 for entry in seen}
    return np.array([entry.sha256 in known for entry in measured], dtype=bool)


def nearly_stand_again(seen: Sequence[Entry], measured: Sequence[Entry]) -> np.ndarray | None:
    """As :func:`stand_again`, with near duplicates: other sizes, crops and compressions.

    None where one of the manifests has no perceptual hashes, as an earlier version wrote it.
    """
    both = [*seen, *measured]
    has = np.array([bool(entry.phash) for entry in both])
    rows, first = np.flatnonzero(has), len(seen)
    if seen and not (has[:first].any() and has[first:].any()):
        return None
    text = "".join(both[row].phash for row in rows)
    hashes = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, HASH_BYTES)
    group, before = group_near(hashes, NEAR_BITS), rows < first
    mixed = np.isin(group, np.intersect1d(group[before], group[~before]))
    # A group hangs together by chains: its members are compared themselves.
    ours = mixed & ~before
    distance, _ = hamming(hashes[ours], hashes[mixed & before], 1)
    found = np.zeros(len(both), dtype=bool)
    found[rows[ours]] = (distance <= NEAR_BITS).any(axis=1)
    return found[first:] | stand_again(seen, measured)


def count_leaks(entries: Sequence[Entry]) -> dict[str, int]:
    """Images that stand, pixel for pixel, in another split too."""
    hashes = {
        split: {entry.sha256 for entry in entries if entry.split == split} for split in SPLITS
    }
    held_out = hashes["val"] | hashes["test"]
    return {
        "train_in_val_or_test": sum(
            entry.split == "train" and entry.sha256 in held_out for entry in entries
        ),
        "val_in_train": sum(leaked(entries, "val")),
        "test_in_train_or_val": sum(leaked(entries, "test")),
    }


def group_duplicates(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Images with the same pixels, in groups of two and more."""
    by_hash: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_hash[entry.sha256].append(entry)
    return [group for group in by_hash.values() if len(group) > 1]


def describe_groups(groups: Sequence[Sequence[Entry]]) -> dict[str, int]:
    """How many groups and images there are, and how many of them cross splits or disagree."""
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
    """The first groups, as plain data."""
    return [
        [{"id": entry.id, "split": entry.split, "emotion": entry.emotion} for entry in group]
        for group in groups[:LISTED]
    ]


def find_duplicates(entries: Sequence[Entry]) -> dict[str, Any]:
    """Exact duplicates: groups of images with the same pixels."""
    groups = group_duplicates(entries)
    return {**describe_groups(groups), "conflicts": name_groups(conflicting(groups))}


def find_near_duplicates(entries: Sequence[Entry], looks: Looks) -> dict[str, Any]:
    """Different pixels, the same picture: other sizes, crops, compressions and watermarks.

    Exact copies count as one image here. Images without content are left out.
    """
    first: dict[str, int] = {}
    for index in np.flatnonzero(looks.has_content).tolist():
        first.setdefault(entries[index].sha256, index)
    rows = np.array(list(first.values()), dtype=np.int64)
    members: dict[int, list[Entry]] = defaultdict(list)
    for row, group in zip(rows.tolist(), group_near(looks.hashes[rows], NEAR_BITS), strict=True):
        members[group].append(entries[row])
    groups = [group for group in members.values() if len(group) > 1]
    # Those that matter most come first, since only some are listed.
    groups.sort(key=lambda group: -len({entry.split for entry in group}))
    return {
        "distance": NEAR_BITS,
        "bits": HASH_BITS,
        **describe_groups(groups),
        "listed": name_groups(groups),
    }


def pool_statistics(looks: Looks, chosen: np.ndarray) -> dict[str, float]:
    """Gray levels 0–255 and sharpness of several images.

    Returns:
        ``mean`` and ``std`` over all their pixels; ``contrast``, the median of the images' own
        standard deviations; ``sharpness``, the median of :attr:`Looks.sharpness`.
    """
    weights = looks.size[chosen].prod(axis=1).astype(np.float64)
    means, stds = looks.mean[chosen], looks.std[chosen]
    mean = float(np.average(means, weights=weights))
    square = float(np.average(stds**2 + means**2, weights=weights))
    content = chosen & looks.has_content
    return {
        "mean": mean,
        "std": float(np.sqrt(max(square - mean**2, 0.0))),
        "contrast": float(np.median(stds)),
        "sharpness": float(np.median(looks.sharpness[content])) if content.any() else 0.0,
    }


def inspect(
    entries: Sequence[Entry],
    looks: Looks,
    *,
    official_counts: Mapping[str, Mapping[str, int]] | None = None,
    expected_size: int | None = None,
    reference: Reference | None = None,
    known: Sequence[Finding] = (),
) -> dict[str, Any]:
    """The content of ``integrity.json`` that follows from the images themselves.

    Args:
        entries: the prepared images.
        looks: how each entry's image looks, in the same order.
        official_counts: images per split and emotion that the dataset's authors state. Where they
            state none for ``val``, their ``train`` is compared with train and val together.
        expected_size: side in pixels of the authors' images, None if they may differ.
        reference: the reference copy, where it is known.
        known: what the reader found from the names of the files alone.
    """
    splits = np.array([entry.split for entry in entries])
    held_out = official_counts is not None and "val" not in official_counts
    judged = judge(
        entries,
        looks,
        reference=reference,
        official_counts=official_counts,
        expected_size=expected_size,
        known=known,
    )
    sizes = Counter(f"{width}x{height}" for width, height in looks.size.tolist())
    usual = expected_size if expected_size is not None else 0
    odd = (looks.size != usual).any(axis=1) if usual else np.zeros(len(entries), bool)
    blank = looks.std < BLANK_STD
    return {
        "verdict": judged.verdict,
        "verdict_text": judged.text,
        "findings": [asdict(finding) for finding in judged.findings],
        "images": len(entries),
        "counts": count_classes(entries),
        "official_counts": official_counts,
        "matches_official_counts": None
        if official_counts is None
        else count_cells(entries, official_counts)
        == {split: dict(row) for split, row in official_counts.items()},
        "sizes": dict(sizes.most_common(20)),
        "expected_size": expected_size,
        "odd_sizes": {
            "images": int(odd.sum()),
            "ids": [entries[row].id for row in np.flatnonzero(odd)[:LISTED].tolist()],
        },
        "pixels": {
            split: pool_statistics(looks, splits == split)
            for split in SPLITS
            if (splits == split).any()
        },
        "reference_pixels": None if reference is None else reference_statistics(reference),
        "splits_compared": compare_splits(entries, looks, held_out=held_out),
        "compared_with_reference": judged.compared,
        "duplicates": find_duplicates(entries),
        "leaks": count_leaks(entries),
        "near_duplicates": find_near_duplicates(entries, looks),
        "blank": [entries[row].id for row in np.flatnonzero(blank).tolist()],
        "fingerprint": fingerprint(entries),
    }


def reference_statistics(reference: Reference) -> dict[str, dict[str, float]]:
    """What :func:`pool_statistics` gives for each split of the reference copy."""
    looks = replace(reference.looks, size=np.ones((len(reference.cells), 2), np.int64))
    own = reference.cells // labels.NUM_CLASSES
    return {
        split: pool_statistics(looks, own == number)
        for number, split in enumerate(SPLITS)
        if (own == number).any()
    }


def summarise(integrity: Mapping[str, Any]) -> list[str]:
    """A few lines for the terminal."""
    duplicates, near = integrity["duplicates"], integrity["near_duplicates"]
    matches = integrity["matches_official_counts"]
    counts = {True: ": the official counts", False: ": NOT the official counts", None: ""}[matches]
    sizes = [
        f"{split} {sum(integrity['counts'][split].values()):,}"
        for split in SPLITS
        if sum(integrity["counts"][split].values())
    ]
    leaks = integrity["leaks"]
    return [
        f"{integrity['verdict']}: {integrity['verdict_text']}",
        *(f"- {finding['text']}" for finding in integrity["findings"]),
        f"{integrity['images']:,} images ({', '.join(sizes)}){counts}",
        f"exact duplicates: {duplicates['images']:,} images in {duplicates['groups']:,} groups; "
        f"{duplicates['groups_across_splits']:,} groups cross splits, "
        f"{duplicates['groups_with_conflicting_labels']:,} have conflicting labels",
        f"leaks: {leaks['test_in_train_or_val']:,} test images stand again in train or val, "
        f"{leaks['val_in_train']:,} val images in train",
        "near duplicates: "
        + (
            f"{near['images']:,} images in {near['groups']:,} groups; "
            f"{near['groups_across_splits']:,} groups cross splits"
            if near
            else "not searched"  # when more than 100,000 images were too many
        ),
        f"blank images: {len(integrity['blank']):,}; odd sizes: "
        f"{integrity['odd_sizes']['images']:,}",
        f"fingerprint {integrity['fingerprint'][:16]}",
    ]


def data_notes(integrity: Mapping[str, Any]) -> list[str]:
    """What every result that is measured on this copy has to say of it."""
    if integrity["verdict"] != ALTERED:
        # The names of files say nothing about the results.
        return [f["text"] for f in integrity["findings"] if f["kind"] != "renamed"]
    return [
        f"These results are from an altered copy of {integrity['dataset']}, not from what its "
        "authors published. " + " ".join(finding["text"] for finding in integrity["findings"])
    ]
