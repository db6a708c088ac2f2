"""How the images of a copy differ from the reference: in their pixels, sizes, splits and emotions.

The limits were set on FER2013, where JPEG at quality 50 changes the details of the median image by
less than 1 % and its finest structures by 10 %, and a Gaussian blur of 0.4 pixels the details by
4 %. tests/data/readers/test_real_data.py repeats such measurements on the real archive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fer.core import labels
from fer.data.audit.appearance import COARSE, DETAIL, FINEST, has_content
from fer.data.audit.reference import Matching, count_by_cell
from fer.data.readers.base import SPLITS, Finding

SHARE, FEW = 0.01, 3
"""Smallest share and number of images whose difference is named."""
RECOGNISED = 0.3
"""Fewer changed images of a split than these say little about its others."""
STRAY = 0.002
"""Share of the changed images that may be mistaken for others: blank ones look like any other."""
CLOSE_BITS, FEW_CLOSE = 4, 5
"""By so few differing bits a match is nearly certain; FER2013 at JPEG quality 75 has no such match
in another split or emotion than its own."""


@dataclass(frozen=True)
class Change:
    """One direction in which the images of a copy may differ from their originals."""

    kind: str
    words: str
    measure: str
    """A key of what :func:`compare` returns."""
    sign: int
    """-1 if the copy has less of it."""
    typical: float
    """Named where the median image differs by more than this."""
    single: float = np.inf
    """Named where :data:`SHARE` of the images differ by more than this."""

    def find(self, change: np.ndarray) -> np.ndarray:
        """``(N,)`` bool: the images that differ in this direction, if they are enough to say so."""
        size = self.sign * change
        mask = size > (self.typical if np.median(size) > self.typical else self.single)
        return mask & (mask.sum() >= max(FEW, SHARE * len(mask)))


CHANGES = (
    Change("smoothed", "details {ratio}", "detail", -1, 0.03, 0.10),
    Change("smoothed", "finest structures {ratio}", "finest", -1, 0.20),
    Change("sharpened", "details {ratio}", "detail", +1, 0.03, 0.10),
    Change("smoothed", "grain {ratio}", "grain", -1, 0.40),
    Change("noise", "grain {ratio}", "grain", +1, 0.40),
    Change("contrast", "coarse structures {ratio}", "contrast", -1, 0.03, 0.15),
    Change("contrast", "coarse structures {ratio}", "contrast", +1, 0.03, 0.15),
    Change("brightness", "darker by {levels:.0f} levels", "brightness", -1, 2.0, 12.0),
    Change("brightness", "brighter by {levels:.0f} levels", "brightness", +1, 2.0, 12.0),
    Change("posterised", "at most half of the gray levels are left", "levels", -1, 0.70),
)
"""What is looked for in each split, in images whose layout is that of their originals."""
LAYOUT = Change("layout", "shifted, turned, cropped, covered or filtered", "bits", +1, 10.5)


def compare(matching: Matching, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """The change of the images ``chosen`` (indices), all matched.

    ``brightness`` is in gray levels, ``bits`` of the hash that differ, the others are natural
    logarithms of a ratio.
    """
    now, then = matching.looks[chosen], matching.reference.looks[matching.rows[chosen]]
    bands = now["bands"] - then["bands"]
    return {
        "detail": bands[:, DETAIL] - bands[:, COARSE],
        "finest": bands[:, FINEST] - bands[:, COARSE],
        # Not 0: the flat parts of some pictures have no grain.
        "grain": np.log((now["grain"] + 0.3) / (then["grain"] + 0.3)),
        "contrast": bands[:, COARSE],
        "brightness": now["mean"] - then["mean"],
        "levels": np.log(now["levels"] / then["levels"]),
        "bits": matching.distance[chosen],
    }


def as_ratio(logarithm: float) -> str:
    """A change of an amplitude in words.

    >>> as_ratio(-0.105), as_ratio(0.2624)
    ('10 % weaker', '30 % stronger')
    """
    amount = f"{abs(np.expm1(logarithm)):.0%}".replace("%", " %")
    return f"{amount} {'weaker' if logarithm < 0 else 'stronger'}"


def some(count: int, total: int) -> str:
    """``5 of 20 images``, or ``all 20 images``."""
    return f"all {total:,} images" if count == total else f"{count:,} of {total:,} images"


def against_reference(matching: Matching, expected_size: int | None) -> list[Finding]:
    """Every way in which a recognised copy differs from the reference."""
    splits, sizes = np.array([e.split for e in matching.entries]), matching.looks["size"]
    # Another size alone changes the details.
    comparable = (sizes == (expected_size or sizes)).all(axis=1) & has_content(matching.looks)
    found = find_resized(splits, matching.looks, expected_size)
    for split in SPLITS:
        found += find_changes(split, splits == split, comparable, matching)
    rows, cells, reference = matching.rows, matching.cells, matching.reference
    official = np.where(rows >= 0, reference.cells[rows], cells)
    exchanged = find_exchanged(matching, official)
    surplus = count_by_cell(cells) - count_by_cell(reference.cells)
    if exchanged:  # an image counts where it belongs, but for a few that were taken for others
        surplus = count_by_cell(official) - count_by_cell(reference.cells)
        surplus *= abs(surplus).sum() > STRAY * (~matching.identical).sum()
    unrecognised = find_unrecognised(matching, np.maximum(surplus, 0))
    return [*found, *exchanged, *unrecognised, *find_surplus(surplus, SPLITS)]


def find_resized(splits: np.ndarray, looks: np.ndarray, expected_size: int | None) -> list[Finding]:
    """The splits whose images have another size than the authors', in pixels."""
    found = []
    for split in SPLITS if expected_size else ():
        sizes = looks["size"][splits == split]
        other = (sizes != expected_size).any(axis=1)
        if other.any():
            width, height = np.median(sizes[other], axis=0).astype(int)
            kind = "upscaled" if width * height > (expected_size or 0) ** 2 else "downscaled"
            text = (
                f"{split}: {some(other.sum(), len(other))} are not {expected_size} x "
                f"{expected_size} pixels: {kind}, typically to {width} x {height}."
            )
            found.append(Finding(kind, text, split, images=int(other.sum())))
    return found


def find_changes(
    split: str, inside: np.ndarray, comparable: np.ndarray, matching: Matching
) -> list[Finding]:
    """The changes to the pixels of one split: of ``inside`` ``(N,)`` bool, those ``comparable``."""
    changed = inside & comparable & ~matching.identical
    chosen = np.flatnonzero(changed & (matching.rows >= 0))
    if len(chosen) < max(FEW, RECOGNISED * changed.sum()):
        return []
    values = compare(matching, chosen)
    found: dict[tuple[str, int], Finding] = {}
    for change in (LAYOUT,) if LAYOUT.find(values["bits"]).any() else CHANGES:
        mask = change.find(values[change.measure])
        if mask.any():
            typical = float(np.median(values[change.measure][mask]))
            what = change.words.format(ratio=as_ratio(typical), levels=abs(typical))
            emotions = {matching.entries[index].emotion for index in chosen[mask].tolist()}
            # Where one emotion alone is concerned, that is what a reader needs to know.
            emotion = emotions.pop() if len(emotions) == 1 else None
            who = some(int(mask.sum()), int(inside.sum())) + (
                f" (all {emotion})" if emotion else ""
            )
            text = f"{split}: {who} differ from their originals ({change.kind}): {what}."
            finding = Finding(change.kind, text, split, emotion, int(mask.sum()))
            found.setdefault((change.kind, change.sign), finding)
    return list(found.values())


def find_exchanged(matching: Matching, official: np.ndarray) -> list[Finding]:
    """Images in another split, and images with another emotion, than in the reference.

    Args:
        matching: of the copy.
        official: ``(N,)``, the cell of each image in the reference; its own if it is not there.
    """
    c, cells = labels.NUM_CLASSES, matching.cells
    # A match is certain if the pixels or nearly all bits of the hash are equal, and the reference
    # has the picture only once. Of others, so many do not err in the same way.
    _, place, times = np.unique(
        matching.reference.checksums, return_inverse=True, return_counts=True
    )
    once = times[place][matching.rows] == 1
    advice = (
        " Results are not comparable with published ones; dataset.reader.splits=official puts "
        "recognised images back."
    )
    findings = []
    for kind, what, names, verb, now, then, end in (
        ("re-split", "split", SPLITS, "in", cells // c, official // c, advice),
        ("relabelled", "emotion", labels.EMOTIONS, "called", cells % c, official % c, ""),
    ):
        differs = now != then
        moved = differs & once
        if (
            (moved & matching.identical).any()
            or (moved & (matching.distance <= CLOSE_BITS)).sum() > FEW_CLOSE
            or moved.sum() > STRAY * len(cells)
        ):
            counts = Counter(zip(then[differs].tolist(), now[differs].tolist(), strict=True))
            routes = sorted(counts, key=lambda pair: (-counts[pair], pair))[:6]
            shown = "; ".join(
                f"{counts[a, b]:,} of {names[a]} are {verb} {names[b]}" for a, b in routes
            )
            text = (
                f"{kind.capitalize()}: images with another {what} than the official one: "
                f"{differs.sum():,} ({shown}).{end}"
            )
            findings.append(Finding(kind, text, images=int(differs.sum())))
    return findings


def find_unrecognised(matching: Matching, added: np.ndarray) -> list[Finding]:
    """Images that are none of the reference's, but for as many as were ``added`` ``(3, 7)``."""
    strange = count_by_cell(matching.cells[matching.rows < 0])
    replaced = (strange - np.minimum(strange, added)).sum(axis=1).tolist()
    changed = count_by_cell(matching.cells[~matching.identical]).sum(axis=1).tolist()
    sizes = count_by_cell(matching.cells).sum(axis=1).tolist()
    return [
        Finding(
            "unrecognised",
            f"{split}: {some(count, size)} are no longer recognisable: cropped, turned, covered, "
            "mirrored, heavily processed, or other pictures.",
            split,
            images=count,
        )
        for split, count, size, different in zip(SPLITS, replaced, sizes, changed, strict=True)
        if count > STRAY * different
    ]


def find_surplus(surplus: np.ndarray, splits: Sequence[str]) -> list[Finding]:
    """Classes with more or fewer images than officially.

    Args:
        surplus: ``(splits, 7)``, less than 0 where images are missing.
        splits: names of the rows.
    """
    findings = []
    missing, added = np.maximum(-surplus, 0), np.maximum(surplus, 0)
    if missing.any():
        by_split = zip(splits, missing.sum(axis=1).tolist(), strict=True)
        where = ", ".join(f"{count:,} of {split}" for split, count in by_split if count)
        text = f"Missing: images of the reference copy that are not there: {missing.sum():,} "
        findings.append(Finding("missing", f"{text}({where}).", images=int(missing.sum())))
    for split, row in zip(splits, added.tolist(), strict=True):
        filled = {name: n for name, n in zip(labels.EMOTIONS, row, strict=True) if n}
        if filled:
            where = ", ".join(f"{n:,} {name}" for name, n in filled.items())
            text = (
                f"{split}: {sum(row):,} images more than in the reference copy ({where}): the "
                "classes were filled up with augmented or other files."
            )
            emotion = next(iter(filled)) if len(filled) == 1 else None
            findings.append(Finding("augmented", text, split, emotion, sum(row)))
    return findings
