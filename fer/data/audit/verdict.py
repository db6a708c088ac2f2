"""Is this the copy that its authors published? A verdict, and the findings behind it.

Where the package knows the reference copy image by image (:mod:`fer.data.audit.reference`), each
image is compared with its original. Elsewhere the official counts and sizes are all there is, and
the splits of the copy are compared with each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fer.core import labels
from fer.data.audit.differences import against_reference, find_resized, find_surplus
from fer.data.audit.reference import UNKNOWN_PIXELS, Matching, Reference, checksums_of, match
from fer.data.audit.splits_compared import between_splits
from fer.data.manifest import Entry, identity
from fer.data.readers.base import SPLITS, Finding

Counts = Mapping[str, Mapping[str, int]]
"""Images per split and emotion."""

REFERENCE, ALTERED, UNKNOWN = "reference copy", "altered copy", "unknown"
RECOGNISED = 0.3
"""A copy with a smaller share of its images in the reference is another dataset."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a copy."""

    verdict: str
    """``reference copy``, ``altered copy`` or ``unknown``."""
    text: str
    findings: list[Finding] = field(default_factory=list)
    compared: dict[str, int] | None = None
    """Counts of images by what they are in the reference; None without one."""
    rows: np.ndarray | None = field(default=None, compare=False, repr=False)
    """``(N,)`` int64: each image's row of the reference, -1 for none; None without one."""
    identity: str | None = None
    """Of the whole copy, before images are left out: see :func:`fer.data.manifest.identity`; None
    if an image is not recognised."""


def judge(
    entries: Sequence[Entry],
    looks: np.ndarray,
    *,
    reference: Reference | None,
    official_counts: Counts | None,
    expected_size: int | None,
    known: Sequence[Finding] = (),
) -> Verdict:
    """Judge a copy.

    Args:
        entries: its images.
        looks: ``(N,)``, how they look.
        reference: the reference copy, None where it is not known.
        official_counts: the authors' images per split and emotion; without ``val``, train and val
            count together.
        expected_size: side of an unaltered copy's images in pixels, None if they may differ.
        known: what the reader found from the names of the files alone.
    """
    if official_counts is None:
        return Verdict(
            UNKNOWN,
            "There is no official copy to compare these images with.",
            [*known, *between_splits(entries, looks, held_out=False)],
        )
    if reference is None:
        return judge_by_counts(entries, looks, official_counts, expected_size, known)
    matching = match(entries, looks, reference)
    rows, compared = matching.rows, count_matches(matching)
    images, recognised = len(entries), compared["recognised"]
    if recognised >= RECOGNISED * min(images, len(reference.cells)):
        findings = [*against_reference(matching, expected_size), *known]
        unaltered = (
            REFERENCE,
            f"Every image, split and emotion is as its authors published it, {encoding(compared)}."
            + " Its files were renamed." * bool(findings),
        )
    else:
        findings = list(known)
        if has_official_counts(entries, official_counts):
            text = (
                f"{images - recognised:,} of {images:,} images are not recognisable as those of "
                "the reference copy, although their numbers are the official ones: they are "
                "cropped, turned, heavily processed, or other pictures."
            )
            findings.insert(0, Finding("unrecognised", text, images=images - recognised))
        unaltered = (
            UNKNOWN,
            f"Only {recognised:,} of {images:,} images are in the reference copy: these are other "
            "pictures, or they were cropped, turned or heavily processed.",
        )
    verdict, text = alteration(findings) or unaltered
    who = identity(entries, reference.checksums[rows]) if (rows >= 0).all() else None
    return Verdict(verdict, text, findings, compared, rows, who)


def judge_by_counts(
    entries: Sequence[Entry],
    looks: np.ndarray,
    official_counts: Counts,
    expected_size: int | None,
    known: Sequence[Finding],
) -> Verdict:
    """Judge a copy of a dataset whose pixels are not known here."""
    findings = [*known, *against_counts(entries, official_counts)]
    if 2 * len(entries) >= sum(sum(row.values()) for row in official_counts.values()):
        splits = np.array([entry.split for entry in entries])
        findings += find_resized(splits, looks, expected_size)
    findings += between_splits(entries, looks, held_out="val" not in official_counts)
    text = "The numbers of images are not the official ones: part of a copy, or other images."
    if has_official_counts(entries, official_counts):
        text = (
            "The numbers of images are the official ones and the splits look alike. The pixels of "
            "the reference copy are not known here, so that nothing more can be said."
        )
    return Verdict(*(alteration(findings) or (UNKNOWN, text)), findings)


def alteration(findings: Sequence[Finding]) -> tuple[str, str] | None:
    """The verdict that findings make and its text; None for names of files alone."""
    kinds = dict.fromkeys(finding.kind for finding in findings)
    if not kinds.keys() - {"renamed"}:
        return None
    return ALTERED, f"It differs from what its authors published: {', '.join(kinds)}."


def encoding(compared: Mapping[str, int]) -> str:
    """Which encoding a copy that is not altered has, in words."""
    identical, recognised = compared["identical"], compared["recognised"]
    if "original" not in compared:
        if identical == recognised:
            return "pixel for pixel"
        return (
            f"encoded anew: {identical:,} images are equal pixel for pixel, the others within what "
            "compression changes"
        )
    original, unknown = compared["original"], compared["original_unknown"]
    if identical == recognised:
        return (
            "in another encoding: this is the public image archive, pixel for pixel, a JPEG "
            "encoding of the authors' table"
        )
    if original and original + unknown == recognised:
        rest = f" (the original pixels of {unknown:,} images are not known here)" if unknown else ""
        return f"and this is the authors' table, pixel for pixel{rest}"
    others = ", the others within what compression changes"
    return (
        f"encoded anew: {original:,} images are equal pixel for pixel to the authors' table, "
        f"{identical:,} to the public image archive{others * (original + identical < recognised)}"
    )


def count_classes(
    entries: Sequence[Entry], splits: Iterable[str] = SPLITS
) -> dict[str, dict[str, int]]:
    """Images per split and emotion; what is in none of ``splits`` was held out of train."""
    counts = {split: dict.fromkeys(labels.EMOTIONS, 0) for split in splits}
    for entry in entries:
        counts[entry.split if entry.split in counts else "train"][entry.emotion] += 1
    return counts


def has_official_counts(entries: Sequence[Entry], official_counts: Counts) -> bool:
    """Compare the images per split and emotion with the official ones."""
    official = {split: dict(row) for split, row in official_counts.items()}
    return count_classes(entries, official) == official


def count_matches(matching: Matching) -> dict[str, int]:
    """Count images by what they are in the reference copy."""
    found, c = matching.rows >= 0, labels.NUM_CLASSES
    reference, cells = matching.reference, matching.cells[found]
    rows, checksums = matching.rows[found], checksums_of(matching.entries)[found]
    own, pixels = reference.cells[rows], reference.originals[rows]
    identical = matching.identical[found]
    originals = {
        "original": int((identical & (checksums == pixels)).sum()),
        "original_unknown": int((pixels == UNKNOWN_PIXELS).sum()),
    }
    return {
        "identical": int((identical & (checksums == reference.checksums[rows])).sum()),
        **(originals if reference.originals.any() else {}),
        "recognised": int(found.sum()),
        "unrecognised": int((~found).sum()),
        "missing": len(reference.cells) - int(found.sum()),
        "moved": int((own // c != cells // c).sum()),
        "relabelled": int((own % c != cells % c).sum()),
    }


def against_counts(entries: Sequence[Entry], official_counts: Counts) -> list[Finding]:
    """Rebalanced classes and moved images, where the counts leave no doubt which dataset it is."""
    counts = count_classes(entries, official_counts)
    surplus = np.array(
        [
            [counts[split][name] - row[name] for name in labels.EMOTIONS]
            for split, row in official_counts.items()
        ]
    )
    moved = int(abs(surplus).sum()) // 2
    for axis, kind, same, other in (
        (0, "re-split", "each emotion", "are in another split: results are not comparable"),
        (1, "relabelled", "each split", "have another emotion"),
    ):
        if moved and not surplus.sum(axis=axis).any():
            text = (
                f"{kind.capitalize()}: {same} has its official number of images in all, but at "
                f"least {moved:,} {other}."
            )
            return [Finding(kind, text, images=moved)]
    # Where too little agrees, this may be another dataset.
    agrees = 2 * np.count_nonzero(surplus) <= surplus.size
    return find_surplus(surplus, list(official_counts)) if agrees else []
