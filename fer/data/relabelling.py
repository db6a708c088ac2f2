"""Images of a prepared folder get labels from another source than the copy that they are from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer.data.manifest import Entry
from fer.data.readers.base import NewLabels


def relabel(
    folder: Path, entries: Sequence[Entry], found: NewLabels
) -> tuple[list[Entry], np.ndarray, dict[str, int]]:
    """Give the images in ``folder`` their new labels, and delete those that have none.

    Returns:
        The entries that are left, ``(N,)`` bool which those are, and how many were left out for
        each reason.
    """
    kept = np.array([emotion != "" for emotion in found.emotions], dtype=bool)
    excluded: Counter[str] = Counter()
    left = []
    labels = zip(entries, found.emotions, found.votes, found.reasons, strict=True)
    for entry, emotion, votes, reason in labels:
        if emotion:
            left.append(move(folder, entry, replace(entry, emotion=emotion, votes=votes)))
        else:
            (folder / entry.file).unlink()
            excluded[reason] += 1
    return left, kept, dict(excluded)


def move(folder: Path, entry: Entry, changed: Entry) -> Entry:
    """The changed entry, and the file where it says."""
    if changed.file != entry.file:
        (folder / entry.file).rename(folder / changed.file)
    return changed
