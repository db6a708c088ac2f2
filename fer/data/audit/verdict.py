"""Is this the copy that its authors published? A verdict, and what speaks for it.

Where the package knows the reference copy image by image (:mod:`fer.data.audit.reference`), each
image is held against its original. Elsewhere the official counts and sizes are all there is, and
the splits of the copy are held against each other: who smooths or sharpens a copy often does it to
one split.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from fer.core import labels
from fer.data.audit.appearance import COARSE, DETAIL, Looks
from fer.data.audit.processing import FEW, Changes, amount_of, find_traces
from fer.data.audit.reference import Matching, Reference, match
from fer.data.manifest import Entry
from fer.data.readers.base import SPLITS, Finding

REFERENCE, ALTERED, UNKNOWN = "reference copy", "altered copy", "unknown"

STRAY = 0.002
"""A share of the images below which a match by looks alone may be a mistake."""
CLOSE_BITS, FEW_CLOSE = 4, 5
"""By so few differing bits a match is nearly certain; FER2013 at JPEG quality 75 has no such match
in another split or emotion than its own."""
LOST, MOSTLY_LOST = 0.1, 0.3
"""Shares of a processed split's images that are not recognised any more: from the first on that is
named, from the second on the others say little about what was done to them all."""
RECOGNISED = 0.3
"""With fewer of its images in the reference, this is another dataset."""
SPLIT_LIMITS = {"sharpness": 0.05, "contrast": 0.10, "brightness": 8.0}
"""Smallest difference between the splits of one copy that is named; FER2013's own splits differ by
at most 0.003, 0.011 and 1.7."""
SPLIT_Z, SPLIT_IMAGES = 6.0, 500
"""A difference has to be this many standard errors, in splits of at least so many images."""


@dataclass(frozen=True)
class Verdict:
    """What a copy is."""

    verdict: str
    """``reference copy``, ``altered copy`` or ``unknown``."""
    text: str
    findings: list[Finding] = field(default_factory=list)
    compared: dict[str, int] | None = None
    """How many images are what in the reference; None where there is none."""


def judge(
    entries: Sequence[Entry],
    looks: Looks,
    *,
    reference: Reference | None,
    official_counts: Mapping[str, Mapping[str, int]] | None,
    expected_size: int | None,
    known: Sequence[Finding] = (),
) -> Verdict:
    """Judge a copy.

    Args:
        entries: its images.
        looks: how they look, in the same order.
        reference: the reference copy, None where it is not known.
        official_counts: images per split and emotion that the authors state; without ``val`` where
            they have none.
        expected_size: side of an unaltered copy's images in pixels, None if they may differ.
        known: what the reader found from the names of the files alone.
    """
    if official_counts is None:
        return Verdict(
            UNKNOWN,
            "There is no official copy to compare these images with.",
            [*known, *between_splits(entries, looks, held_out=False)],
        )
    official = count_cells(entries, official_counts) == {
        split: dict(row) for split, row in official_counts.items()
    }
    if reference is not None:
        matching = match(entries, looks, reference)
        recognised = int((matching.rows >= 0).sum())
        if recognised >= RECOGNISED * min(len(entries), len(reference.cells)):
            findings = against_reference(entries, looks, reference, matching, expected_size)
            return conclude([*findings, *known], count_matches(entries, reference, matching))
        if official:
            finding = Finding(
                "unrecognised",
                f"{len(entries) - recognised:,} of {len(entries):,} images are not recognisable as "
                "those of the reference copy, although their numbers are the official ones: they "
                "are cropped, turned, heavily processed, or other pictures.",
                images=len(entries) - recognised,
            )
            return conclude([finding, *known], count_matches(entries, reference, matching))
        compared = count_matches(entries, reference, matching)
        if alters(known):
            return conclude(list(known), compared)
        return Verdict(
            UNKNOWN,
            f"Only {recognised:,} of {len(entries):,} images are in the reference copy: these are "
            "other pictures, or they were cropped, turned or heavily processed.",
            list(known),
            compared,
        )
    findings = [
        *known,
        *against_counts(entries, official_counts),
        *against_size(entries, looks, official_counts, expected_size),
        *between_splits(entries, looks, held_out="val" not in official_counts),
    ]
    if findings:
        return conclude(findings, None)
    if official:
        return Verdict(
            UNKNOWN,
            "The numbers of images are the official ones and the splits look alike. The pixels of "
            "the reference copy are not known here, so that nothing more can be said.",
        )
    return Verdict(
        UNKNOWN, "The numbers of images are not the official ones: part of a copy, or other images."
    )


def conclude(findings: list[Finding], compared: dict[str, int] | None) -> Verdict:
    """The verdict that follows from the findings."""
    kinds = list(dict.fromkeys(finding.kind for finding in findings))
    if alters(findings):
        text = f"It differs from what its authors published: {', '.join(kinds)}."
        return Verdict(ALTERED, text, findings, compared)
    assert compared is not None
    text = "Every image, split and emotion is as its authors published it, pixel for pixel."
    if compared["identical"] < compared["recognised"]:
        text = (
            "Every image, split and emotion is as its authors published it, encoded anew: "
            f"{compared['identical']:,} images are equal pixel for pixel, the others within what "
            "compression changes."
        )
    if kinds:
        text += " Its files were renamed."
    return Verdict(REFERENCE, text, findings, compared)


def alters(findings: Sequence[Finding]) -> bool:
    """Whether one of the findings makes an altered copy: what files are called does not."""
    return any(finding.kind != "renamed" for finding in findings)


def count_cells(
    entries: Sequence[Entry], official_counts: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """Images per official split and emotion; what was held out of train counts as train."""
    counts = {split: dict.fromkeys(labels.EMOTIONS, 0) for split in official_counts}
    for entry in entries:
        counts[entry.split if entry.split in counts else "train"][entry.emotion] += 1
    return counts


def count_matches(
    entries: Sequence[Entry], reference: Reference, matching: Matching
) -> dict[str, int]:
    """How many images are what in the reference copy."""
    found = matching.rows >= 0
    own = reference.cells[matching.rows[found]].astype(int)
    split = np.array([SPLITS.index(entry.split) for entry in entries])[found]
    emotion = np.array([labels.INDEX[entry.emotion] for entry in entries])[found]
    return {
        "identical": int(matching.identical.sum()),
        "recognised": int(found.sum()),
        "unrecognised": int((~found).sum()),
        "missing": len(reference.cells) - int(found.sum()),
        "moved": int((own // labels.NUM_CLASSES != split).sum()),
        "relabelled": int((own % labels.NUM_CLASSES != emotion).sum()),
    }


# --- against the reference copy ----------------------------------------------------------------


def against_reference(
    entries: Sequence[Entry],
    looks: Looks,
    reference: Reference,
    matching: Matching,
    expected_size: int | None,
) -> list[Finding]:
    """Every way in which a recognised copy differs from the reference."""
    splits = np.array([entry.split for entry in entries])
    emotions = np.array([entry.emotion for entry in entries])
    resized = find_resized(splits, looks, expected_size)
    processed = [
        finding
        for split in SPLITS
        for finding in pixel_findings(
            split, splits, emotions, looks, reference, matching, split in resized
        )
    ]
    found = [*resized.values(), *processed]
    where = {finding.split for finding in found}
    return [*found, *content_findings(splits, emotions, reference, matching, where)]


def find_resized(splits: np.ndarray, looks: Looks, expected_size: int | None) -> dict[str, Finding]:
    """The splits whose images have another size than the authors'."""
    found: dict[str, Finding] = {}
    if expected_size is None:
        return found
    for split in SPLITS:
        sizes = looks.size[splits == split]
        other = (sizes != expected_size).any(axis=1)
        if not other.any():
            continue
        width, height = np.median(sizes[other], axis=0).astype(int)
        larger = "upscaled" if width * height > expected_size**2 else "downscaled"
        found[split] = Finding(
            larger,
            f"{split}: {of(other)} are not {expected_size} x {expected_size} pixels: {larger}, "
            f"typically to {width} x {height}.",
            split,
            images=int(other.sum()),
        )
    return found


def of(mask: np.ndarray) -> str:
    """``5 of 20 images``, or ``all 20 images``."""
    count, total = int(mask.sum()), len(mask)
    return f"all {total:,} images" if count == total else f"{count:,} of {total:,} images"


def pixel_findings(
    split: str,
    splits: np.ndarray,
    emotions: np.ndarray,
    looks: Looks,
    reference: Reference,
    matching: Matching,
    resized: bool,
) -> list[Finding]:
    """What was done to the pixels of one split, where that shows against the originals."""
    inside = splits == split
    other = inside & ~matching.identical & looks.has_content
    differs = np.flatnonzero(other & (matching.rows >= 0))
    if len(differs) < FEW:
        return []
    lost = 1 - len(differs) / int(other.sum())
    findings = []
    for trace in find_traces(Changes.of(looks, reference, matching, differs), resized=resized):
        if lost > 1 - MOSTLY_LOST or (lost > MOSTLY_LOST and trace.mask.mean() < 0.75):
            continue
        where = np.unique(emotions[differs[trace.mask]])
        # Where one emotion alone is concerned, that is what a reader needs to know.
        emotion = str(where[0]) if len(where) == 1 else None
        amount = f"{int(trace.mask.sum()):,} of {int(inside.sum()):,} images"
        if emotion:
            amount += f" (all of them {emotion})"
        text = f"{split}: {amount} are {trace.words}"
        findings.append(Finding(trace.kind, text, split, emotion, int(trace.mask.sum())))
    return findings


def content_findings(
    splits: np.ndarray,
    emotions: np.ndarray,
    reference: Reference,
    matching: Matching,
    processed: Collection[str | None],
) -> list[Finding]:
    """Images that are missing, added, in another split, or of another emotion.

    Args:
        splits: of each image.
        emotions: of each image.
        reference: the reference copy.
        matching: to the reference.
        processed: splits whose pixels were altered: a few images become unrecognisable by that.
    """
    findings: list[Finding] = []
    found = matching.rows >= 0
    own_cells = reference.cells[np.maximum(matching.rows, 0)].astype(int)
    own_splits = np.array(SPLITS)[own_cells // labels.NUM_CLASSES]
    own_emotions = np.array(labels.EMOTIONS)[own_cells % labels.NUM_CLASSES]
    # Pixel for pixel the match is certain, but for pictures that the reference holds several
    # times; by looks alone a few may be near duplicates.
    _, place, times = np.unique(reference.checksums, return_inverse=True, return_counts=True)
    once = found & (times[place][np.maximum(matching.rows, 0)] == 1)
    sure = once & matching.identical
    close = once & (matching.distance <= CLOSE_BITS)
    stray = STRAY * len(splits)

    def certain(mask: np.ndarray) -> bool:
        return bool(
            (mask & sure).any() or (mask & close).sum() > FEW_CLOSE or (mask & once).sum() > stray
        )

    moved = found & (own_splits != splits)
    if certain(moved):
        routes = [
            f"{count:,} of {one} are in {two}"
            for one in SPLITS
            for two in SPLITS
            if (count := int((moved & (own_splits == one) & (splits == two)).sum()))
        ]
        findings.append(
            Finding(
                "re-split",
                f"Re-split: images in another split than the official one: {int(moved.sum()):,} "
                f"({'; '.join(routes)}). Results are not comparable with published ones; "
                "dataset.reader.splits=official puts recognised images back.",
                images=int(moved.sum()),
            )
        )
    relabelled = found & (own_emotions != emotions)
    if certain(relabelled):
        pairs = sorted(
            (
                (int((relabelled & (own_emotions == one) & (emotions == two)).sum()), one, two)
                for one in labels.EMOTIONS
                for two in labels.EMOTIONS
            ),
            reverse=True,
        )
        shown = "; ".join(f"{n:,} of {one} are called {two}" for n, one, two in pairs[:3] if n)
        findings.append(
            Finding(
                "relabelled",
                "Relabelled: images with another emotion than the official one: "
                f"{int(relabelled.sum()):,} ({shown}).",
                images=int(relabelled.sum()),
            )
        )
    taken = np.zeros(len(reference.cells), bool)
    taken[matching.rows[found]] = True
    lost = np.bincount(reference.cells[~taken], minlength=len(SPLITS) * labels.NUM_CLASSES)
    lost = lost.reshape(len(SPLITS), labels.NUM_CLASSES).astype(int)
    surplus = ~found
    extra = np.array(
        [
            [
                int((surplus & (splits == split) & (emotions == name)).sum())
                for name in labels.EMOTIONS
            ]
            for split in SPLITS
        ]
    )
    # An image too many where one is missing took its place.
    replaced = np.minimum(lost, extra)
    for split, count in zip(SPLITS, replaced.sum(axis=1).tolist(), strict=True):
        inside = splits == split
        differs = int((inside & ~matching.identical).sum())
        if count > (LOST if split in processed else STRAY) * differs:
            findings.append(
                Finding(
                    "unrecognised",
                    f"{split}: {count:,} of {int(inside.sum()):,} images are no longer "
                    "recognisable: cropped, turned, covered, heavily processed, or other pictures.",
                    split,
                    images=count,
                )
            )
    missing, added = lost - replaced, extra - replaced
    # Among images that were processed a few are taken for another emotion's.
    few = (LOST if processed else STRAY) * int((~matching.identical).sum())
    if missing.sum() > few:
        where = ", ".join(
            f"{n:,} of {split}"
            for split, n in zip(SPLITS, missing.sum(axis=1).tolist(), strict=True)
            if n
        )
        findings.append(
            Finding(
                "missing",
                "Missing: images of the reference copy that are not there: "
                f"{int(missing.sum()):,} ({where}).",
                images=int(missing.sum()),
            )
        )
    if added.sum() > few:
        findings.extend(added_findings(splits, emotions, matching, surplus, added))
    return findings


def added_findings(
    splits: np.ndarray,
    emotions: np.ndarray,
    matching: Matching,
    surplus: np.ndarray,
    added: np.ndarray,
) -> list[Finding]:
    """Images that come on top of those of the reference copy, per split.

    Args:
        splits: of each image.
        emotions: of each image.
        matching: to the reference.
        surplus: ``(N,)`` bool, the images without a counterpart.
        added: ``(3, 7)`` int, how many of them are too many in each split and emotion.
    """
    findings = []
    for split, counts in zip(SPLITS, added.tolist(), strict=True):
        total = sum(counts)
        if not total:
            continue
        filled = [emotion for emotion, n in zip(labels.EMOTIONS, counts, strict=True) if n]
        where = ", ".join(
            f"{n:,} {emotion}" for emotion, n in zip(labels.EMOTIONS, counts, strict=True) if n
        )
        inside = surplus & (splits == split) & np.isin(emotions, filled)
        kinds = {
            "further copies of known images": inside & matching.known,
            "mirror images of known images": inside & matching.known_mirrored,
            "no known picture (turned, shifted or processed, or new)": inside
            & ~matching.known
            & ~matching.known_mirrored,
        }
        shown = ", ".join(
            f"{mask.mean() / inside.mean():.0%} {words}".replace("%", " %", 1)
            for words, mask in kinds.items()
            if mask.sum() >= 0.005 * inside.sum()
        )
        findings.append(
            Finding(
                "augmented",
                f"{split}: {total:,} images more than in the reference copy ({where}): the "
                f"classes were filled up with augmented or other files ({shown}).",
                split,
                filled[0] if len(filled) == 1 else None,
                total,
            )
        )
    return findings


# --- without a reference ------------------------------------------------------------------------


def against_counts(
    entries: Sequence[Entry], official_counts: Mapping[str, Mapping[str, int]]
) -> list[Finding]:
    """Rebalanced classes and moved images, where the counts leave no doubt which dataset it is."""
    counts = count_cells(entries, official_counts)
    cells = [(split, emotion) for split in official_counts for emotion in labels.EMOTIONS]
    different = {
        (split, emotion): counts[split][emotion] - official_counts[split][emotion]
        for split, emotion in cells
        if counts[split][emotion] != official_counts[split][emotion]
    }
    if not different:
        return []
    sums = {
        emotion: sum(counts[split][emotion] - official_counts[split][emotion] for split in counts)
        for emotion in labels.EMOTIONS
    }
    if not any(sums.values()):
        moved = sum(abs(n) for n in different.values()) // 2
        return [
            Finding(
                "re-split",
                f"Re-split: each emotion has its official number of images in all, but at least "
                f"{moved:,} are in another split. Results are not comparable with published ones.",
                images=moved,
            )
        ]
    if all(sum(counts[split].values()) == sum(official_counts[split].values()) for split in counts):
        moved = sum(abs(n) for n in different.values()) // 2
        return [
            Finding(
                "relabelled",
                f"Relabelled: each split has its official number of images, but at least {moved:,} "
                "of them have another emotion.",
                images=moved,
            )
        ]
    if 2 * len(different) > len(cells):
        return []  # too little agrees to say that this is the dataset at all
    return [
        Finding(
            "augmented" if n > 0 else "missing",
            f"{split}: {abs(n):,} images of {emotion} "
            + ("more than the official number: the class was filled up." if n > 0 else "missing."),
            split,
            emotion,
            abs(n),
        )
        for (split, emotion), n in different.items()
    ]


def against_size(
    entries: Sequence[Entry],
    looks: Looks,
    official_counts: Mapping[str, Mapping[str, int]],
    expected_size: int | None,
) -> list[Finding]:
    """Images of another size, in a copy that has at least half the official number of images."""
    if 2 * len(entries) < sum(sum(row.values()) for row in official_counts.values()):
        return []
    splits = np.array([entry.split for entry in entries])
    return list(find_resized(splits, looks, expected_size).values())


def compare_splits(
    entries: Sequence[Entry], looks: Looks, *, held_out: bool
) -> list[dict[str, Any]]:
    """How much the splits of one copy differ in looks, each emotion held against itself.

    Args:
        entries: the images.
        looks: how they look.
        held_out: whether val was taken from train, so that the two are one.

    Returns:
        For each pair of splits and each of sharpness, contrast (natural logarithms) and
        brightness (gray levels): ``{splits, measure, difference, z}``. The difference is that of
        the medians, the second split less the first; z is in standard errors.
    """
    splits = np.array(
        ["train" if held_out and entry.split == "val" else entry.split for entry in entries]
    )
    emotions = np.array([entry.emotion for entry in entries])
    usable = looks.has_content
    values = {
        "sharpness": looks.bands[:, DETAIL] - looks.bands[:, COARSE],
        "contrast": looks.bands[:, COARSE],
        "brightness": looks.mean,
    }
    rows = []
    for one, two in combinations([split for split in SPLITS if (splits == split).any()], 2):
        for measure, value in values.items():
            terms = []
            for emotion in labels.EMOTIONS:
                group = [
                    value[usable & (splits == split) & (emotions == emotion)]
                    for split in (one, two)
                ]
                smaller = min(map(len, group))
                if smaller >= 5:
                    error = np.sqrt(sum(squared_error_of_median(part) for part in group))
                    terms.append((smaller, np.median(group[1]) - np.median(group[0]), error))
            if not terms:
                continue
            weights, differences, errors = map(np.array, zip(*terms, strict=True))
            weights = weights / weights.sum()
            difference = float(weights @ differences)
            error = float(np.sqrt(weights**2 @ errors**2))
            rows.append(
                {
                    "splits": [one, two],
                    "measure": measure,
                    "difference": round(difference, 4),
                    "z": round(difference / error, 1) if error > 0 else 0.0,
                }
            )
    return rows


def squared_error_of_median(values: np.ndarray) -> float:
    """Of a sample's median, from its median absolute deviation, as for a normal distribution."""
    deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return (1.2533 * deviation) ** 2 / len(values)


def between_splits(entries: Sequence[Entry], looks: Looks, *, held_out: bool) -> list[Finding]:
    """Splits of one copy that differ more than chance and the dataset's own variation allow."""
    sizes = {
        split: sum(
            (entry.split == split) or (held_out and split == "train" and entry.split == "val")
            for entry in entries
        )
        for split in SPLITS
    }
    words = {
        "sharpness": ("sharpened", "smoothed", "details are {} in {} than in {}"),
        "contrast": ("contrast", "contrast", "contrast is {} in {} than in {}"),
    }
    findings = []
    for row in compare_splits(entries, looks, held_out=held_out):
        one, two = row["splits"]
        measure, difference = row["measure"], row["difference"]
        if min(sizes[one], sizes[two]) < SPLIT_IMAGES:
            continue
        if abs(row["z"]) < SPLIT_Z or abs(difference) < SPLIT_LIMITS[measure]:
            continue
        if measure == "brightness":
            kind = "brightness"
            text = (
                f"images of {two} are {'brighter' if difference > 0 else 'darker'} than those of "
                f"{one} by {abs(difference):.0f} of 255 gray levels"
            )
        else:
            more, less, phrase = words[measure]
            kind = more if difference > 0 else less
            text = phrase.format(amount_of(np.array([difference])), two, one)
        findings.append(
            Finding(
                kind,
                f"The splits do not look alike: {text}. One of the two was processed, or comes "
                "from another source.",
                two,
            )
        )
    return findings
