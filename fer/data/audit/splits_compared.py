"""How much the splits of one copy differ in looks: often one split alone was processed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import TypedDict

import numpy as np

from fer.core import labels
from fer.data.audit.appearance import COARSE, DETAIL, has_content
from fer.data.audit.differences import as_ratio
from fer.data.manifest import Entry
from fer.data.readers.base import SPLITS, Finding

LIMITS = {"sharpness": 0.05, "contrast": 0.10, "brightness": 8.0}
"""Smallest difference that is named; FER2013's own splits differ by at most 0.003, 0.011, 1.7."""
LEAST_Z, LEAST_IMAGES = 6.0, 500
"""A difference has to be this many standard errors, in splits of at least so many images."""


class SplitDifference(TypedDict):
    """A row of ``splits_compared`` in ``integrity.json``."""

    splits: list[str]
    measure: str
    """Sharpness and contrast (natural logarithms), or brightness (gray levels)."""
    difference: float
    """Difference of the medians, second split less first."""
    z: float
    """Its size in standard errors."""


def places(entries: Sequence[Entry], *, held_out: bool) -> list[str]:
    """The split of each image; val counts as train if it was held out of it."""
    return ["train" if held_out and e.split == "val" else e.split for e in entries]


def compare_splits(
    entries: Sequence[Entry], looks: np.ndarray, *, held_out: bool
) -> list[SplitDifference]:
    """Compare each pair of splits, each emotion with itself; see :func:`places`."""
    splits = np.array(places(entries, held_out=held_out))
    emotions = np.array([entry.emotion for entry in entries])
    values = {
        "sharpness": looks["bands"][:, DETAIL] - looks["bands"][:, COARSE],
        "contrast": looks["bands"][:, COARSE],
        "brightness": looks["mean"],
    }
    rows: list[SplitDifference] = []
    for one, two in combinations([split for split in SPLITS if (splits == split).any()], 2):
        for measure, value in values.items():
            terms = []
            for emotion in labels.EMOTIONS:
                usable = has_content(looks) & (emotions == emotion)
                a, b = (value[usable & (splits == split)] for split in (one, two))
                if min(len(a), len(b)) >= 5:
                    error = np.sqrt(squared_error_of_median(a) + squared_error_of_median(b))
                    terms.append((min(len(a), len(b)), np.median(b) - np.median(a), error))
            if not terms:
                continue
            weights, differences, errors = map(np.array, zip(*terms, strict=True))
            weights = weights / weights.sum()
            difference = float(weights @ differences)
            error = float(np.sqrt(weights**2 @ errors**2))
            z = round(difference / error if error > 0 else 0.0, 1)
            difference = round(difference, 4)
            rows.append(
                {"splits": [one, two], "measure": measure, "difference": difference, "z": z}
            )
    return rows


def squared_error_of_median(values: np.ndarray) -> float:
    """The square of a median's standard error, from the median absolute deviation if normal."""
    deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return (1.2533 * deviation) ** 2 / len(values)


def between_splits(entries: Sequence[Entry], looks: np.ndarray, *, held_out: bool) -> list[Finding]:
    """Splits of one copy that differ more than chance and the dataset's own variation allow."""
    sizes = Counter(places(entries, held_out=held_out))
    findings = []
    for row in compare_splits(entries, looks, held_out=held_out):
        (one, two), measure, difference = row["splits"], row["measure"], row["difference"]
        is_large = abs(row["z"]) >= LEAST_Z and abs(difference) >= LIMITS[measure]
        if not is_large or min(sizes[one], sizes[two]) < LEAST_IMAGES:
            continue
        kind, what = measure, f"{measure} is {as_ratio(difference)}"
        if measure == "sharpness":
            kind = "sharpened" if difference > 0 else "smoothed"
            what = f"details are {as_ratio(difference)}"
        elif measure == "brightness":
            direction = "brighter" if difference > 0 else "darker"
            what = f"images are {direction} by {abs(difference):.0f} of 255 gray levels"
        findings.append(
            Finding(
                kind,
                f"The splits do not look alike: in {two}, {what} than in {one}. One of the two was "
                "processed, or comes from another source.",
                two,
            )
        )
    return findings
