"""How the images of a copy differ from the reference: in their pixels, sizes, splits and emotions.

The limits were set on FER2013, where JPEG at quality 50 changes the details of the median image by
less than 1 % and its finest structures by 10 %, and a Gaussian blur of 0.4 pixels the details by
4 %. tests/data/readers/test_real_data.py repeats such measurements on the real archive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
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
STRAY, LOST = 0.002, 0.1
"""Shares of the changed images that may be mistaken for other pictures: of images that were only
encoded anew, and of processed ones."""
CLOSE_BITS, FEW_CLOSE = 4, 5
"""By so few differing bits a match is nearly certain; FER2013 at JPEG quality 75 has no such match
in another split or emotion than its own."""


@dataclass(frozen=True)
class Measure:
    """A limit for one measured difference, and texts that begin with the finding's kind; None for
    a direction that is not named."""

    slight: float
    """Named where the median image differs by more than this."""
    clear: float
    """Named where :data:`SHARE` of the images differ by more than this."""
    lower: str | None
    higher: str | None

    def judge(self, change: np.ndarray) -> list[tuple[int, str, np.ndarray]]:
        """Sign, text and ``(N,)`` bool of images for each direction of a ``change`` ``(N,)``."""
        if self.lower is None or self.higher is None:
            change = np.clip(change, None if self.lower else 0, None if self.higher else 0)
        limit = self.slight if abs(np.median(change)) > self.slight else self.clear
        found = []
        for sign, text in ((-1, self.lower), (1, self.higher)):
            mask = sign * change > limit
            if text is not None and mask.sum() >= max(FEW, SHARE * len(change)):
                typical = float(np.median(change[mask]))
                words = text.format(ratio=as_ratio(typical), levels=f"{abs(typical):.0f} levels")
                found.append((sign, words, mask))
        return found


MEASURES = {
    "detail": Measure(0.03, 0.10, "smoothed: details {ratio}", "sharpened: details {ratio}"),
    "finest": Measure(0.20, np.inf, "smoothed: finest structures {ratio}", None),
    "grain": Measure(0.40, np.inf, "smoothed: grain {ratio}", "noise: grain {ratio}"),
    "contrast": Measure(0.03, 0.15, *2 * ("contrast: coarse structures {ratio}",)),
    "brightness": Measure(
        2.0, 12.0, "brightness: darker by {levels}", "brightness: brighter by {levels}"
    ),
    "levels": Measure(0.7, np.inf, "posterised: at most half of the gray levels are left", None),
    "shapes": Measure(10.5, np.inf, None, "layout: shifted, turned, cropped, covered or filtered"),
}
"""``brightness`` in gray levels, ``shapes`` in bits of the hash, the others as natural logarithms
of a ratio. A kind is named once in each direction."""
FORMS = {
    "mirrored": "mirrored: left and right are exchanged",
    "inverted": "inverted: dark is bright and bright is dark",
}
"""The same of forms that only the matching can tell."""
ROBUST = ("contrast", "brightness", "levels", "shapes")
"""Compared in images of another size or layout too, which alone changes the others."""


def as_ratio(logarithm: float) -> str:
    """A change of an amplitude in words.

    >>> as_ratio(-0.105), as_ratio(0.2624)
    ('10 % weaker', '30 % stronger')
    """
    amount = f"{abs(np.expm1(logarithm)):.0%}".replace("%", " %")
    return f"{amount} {'weaker' if logarithm < 0 else 'stronger'}"


def compare(matching: Matching, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """The change of each of :data:`MEASURES` in the images ``chosen`` (indices), all matched."""
    now, then = matching.looks[chosen], matching.reference.looks[matching.rows[chosen]]
    bands = now["bands"] - then["bands"]
    contrast = bands[:, COARSE]
    detail, finest = bands[:, DETAIL] - contrast, bands[:, FINEST] - contrast
    brightness = now["mean"] - then["mean"]
    return {
        # Sharpening raises the finest structures two to three times as much, noise far more.
        "detail": np.where((detail > 0) & (finest > 4 * detail), 0.0, detail),
        "finest": finest,
        # Not 0: the flat parts of some pictures have no grain.
        "grain": np.log((now["grain"] + 0.3) / (then["grain"] + 0.3)),
        "contrast": contrast,
        "brightness": np.where(matching.changed["inverted"][chosen], 0.0, brightness),
        "levels": np.log(now["levels"] / then["levels"]),
        "shapes": matching.distance[chosen].astype(np.float64),
    }


def against_reference(matching: Matching, expected_size: int | None) -> list[Finding]:
    """Every way in which a recognised copy differs from the reference."""
    splits = np.array([entry.split for entry in matching.entries])
    resized = find_resized(splits, matching.looks, expected_size)
    found = list(resized.values())
    for split in SPLITS:
        found += pixel_findings(split, splits == split, matching, split in resized)
    processed = {finding.split for finding in found}
    return [*found, *exchanged(matching), *missing_and_added(matching, processed)]


def find_resized(
    splits: np.ndarray, looks: np.ndarray, expected_size: int | None
) -> dict[str, Finding]:
    """The splits whose images have another size than the authors'."""
    found: dict[str, Finding] = {}
    for split in SPLITS if expected_size else ():
        sizes = looks["size"][splits == split]
        other = (sizes != expected_size).any(axis=1)
        if not other.any():
            continue
        width, height = np.median(sizes[other], axis=0).astype(int)
        kind = "upscaled" if width * height > (expected_size or 0) ** 2 else "downscaled"
        found[split] = Finding(
            kind,
            f"{split}: {some(other.sum(), len(other))} are not {expected_size} x {expected_size} "
            f"pixels: {kind}, typically to {width} x {height}.",
            split,
            images=int(other.sum()),
        )
    return found


def some(count: int, total: int) -> str:
    """``5 of 20 images``, or ``all 20 images``."""
    return f"all {total:,} images" if count == total else f"{count:,} of {total:,} images"


def pixel_findings(
    split: str, inside: np.ndarray, matching: Matching, resized: bool
) -> list[Finding]:
    """Describe the changes to the pixels of one split, whose images are ``inside`` (bool)."""
    changed = inside & ~matching.identical & has_content(matching.looks)
    chosen = np.flatnonzero(changed & (matching.rows >= 0))
    if len(chosen) < max(FEW, RECOGNISED * changed.sum()):
        return []
    changes = compare(matching, chosen)
    traces = [
        (1, words, mask)
        for form, words in FORMS.items()
        if (mask := matching.changed[form][chosen]).sum() >= max(FEW, SHARE * len(chosen))
    ]
    names = ROBUST if resized or MEASURES["shapes"].judge(changes["shapes"]) else tuple(MEASURES)
    traces += [trace for name in names for trace in MEASURES[name].judge(changes[name])]
    found: dict[tuple[str, int], Finding] = {}
    for sign, words, mask in traces:
        kind, what = words.split(": ")
        emotions = {matching.entries[index].emotion for index in chosen[mask].tolist()}
        # Where one emotion alone is concerned, that is what a reader needs to know.
        emotion = emotions.pop() if len(emotions) == 1 else None
        who = some(int(mask.sum()), int(inside.sum())) + (f" (all {emotion})" if emotion else "")
        text = f"{split}: {who} differ from their originals ({kind}): {what}."
        found.setdefault((kind, sign), Finding(kind, text, split, emotion, int(mask.sum())))
    return list(found.values())


def exchanged(matching: Matching) -> list[Finding]:
    """Images in another split, and images with another emotion, than in the reference."""
    rows, c = np.maximum(matching.rows, 0), labels.NUM_CLASSES
    cells, own = matching.cells, matching.reference.cells[rows]
    # A match is certain if the pixels or nearly all bits of the hash are equal, and the reference
    # has the picture only once. Of others, so many do not err in the same way.
    _, place, times = np.unique(
        matching.reference.checksums, return_inverse=True, return_counts=True
    )
    found = matching.rows >= 0
    once = found & (times[place][rows] == 1)
    close = once & (matching.distance <= CLOSE_BITS)
    advice = (
        " Results are not comparable with published ones; dataset.reader.splits=official puts "
        "recognised images back."
    )
    findings = []
    for kind, what, names, verb, now, then, end in (
        ("re-split", "split", SPLITS, "in", cells // c, own // c, advice),
        ("relabelled", "emotion", labels.EMOTIONS, "called", cells % c, own % c, ""),
    ):
        differs = found & (now != then)
        if (
            (differs & once & matching.identical).any()
            or (differs & close).sum() > FEW_CLOSE
            or (differs & once).sum() > STRAY * len(cells)
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


def missing_and_added(matching: Matching, processed: Collection[str | None]) -> list[Finding]:
    """Images without a counterpart, on either side.

    Where a split and emotion lack as many images of the reference as they have of their own, these
    took their place: they are no longer recognisable. The rest is missing or was added. In splits
    that were ``processed``, a few images become unrecognisable by that.
    """
    cells, found, reference = matching.cells, matching.rows >= 0, matching.reference
    taken = np.isin(np.arange(len(reference.cells)), matching.rows)
    lost, extra = count_by_cell(reference.cells[~taken]), count_by_cell(cells[~found])
    replaced = np.minimum(lost, extra)
    missing, added = lost - replaced, extra - replaced
    sizes = count_by_cell(cells).sum(axis=1).tolist()
    changed = count_by_cell(cells[~matching.identical])
    mistaken = np.array([[LOST if split in processed else STRAY] for split in SPLITS]) * changed
    in_all = (LOST if processed else STRAY) * changed.sum()
    in_a_class = np.maximum(mistaken, STRAY * changed.sum())

    def is_named(surplus: np.ndarray) -> bool:
        return bool(surplus.sum() > in_all or (surplus > in_a_class).any())

    findings = []
    for row, split in enumerate(SPLITS):
        if (count := int(replaced[row].sum())) > mistaken[row].sum():
            text = (
                f"{split}: {some(count, sizes[row])} are no longer recognisable: cropped, turned, "
                "covered, heavily processed, or other pictures."
            )
            findings.append(Finding("unrecognised", text, split, images=count))
    if is_named(missing):
        by_split = zip(SPLITS, missing.sum(axis=1).tolist(), strict=True)
        where = ", ".join(f"{count:,} of {split}" for split, count in by_split if count)
        text = f"Missing: images of the reference copy that are not there: {missing.sum():,} "
        findings.append(Finding("missing", f"{text}({where}).", images=int(missing.sum())))
    for number in np.flatnonzero(added.any(axis=1)).tolist() if is_named(added) else ():
        filled = {name: int(n) for name, n in zip(labels.EMOTIONS, added[number], strict=True) if n}
        where = ", ".join(f"{n:,} {name}" for name, n in filled.items())
        copied = matching.copied[~found & (cells // labels.NUM_CLASSES == number)].mean()
        text = (
            f"{SPLITS[number]}: {added[number].sum():,} images more than in the reference copy "
            f"({where}): the classes were filled up with augmented or other files, "
            f"{100 * copied:.0f} % of them copies or mirror images of known pictures."
        )
        emotion = next(iter(filled)) if len(filled) == 1 else None
        findings.append(
            Finding("augmented", text, SPLITS[number], emotion, int(added[number].sum()))
        )
    return findings
