"""The images of a prepared dataset that are used, as its user decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fer.core.errors import DataError
from fer.core.options import SWITCH, check_value, one_of
from fer.data.audit.integrity import Integrity, conflicting, group_duplicates
from fer.data.audit.verdict import ALTERED
from fer.data.folds import FOLD
from fer.data.prepared import CACHE, Prepared
from fer.data.readers.base import SPLITS

REASONS = {
    "blank": "they show nothing",
    "conflicts": "exact copies of them have another emotion",
}
"""Why images are left out of every split, by the option."""


def check_selection(
    leaks: str, blank: str, conflicts: str, accept_altered: bool = False, fold: str | None = None
) -> None:
    """Refuse options that cannot work, before anything is read.

    Raises:
        ConfigError: the first of them.
    """
    check_value("dataset.leaks", leaks, one_of("keep", "drop_from_train"))
    check_value("dataset.blank", blank, one_of("keep", "drop"))
    check_value("dataset.conflicts", conflicts, one_of("keep", "drop"))
    check_value("dataset.accept_altered", accept_altered, SWITCH)
    check_value("dataset.fold", fold, FOLD)


def select(
    prepared: Prepared, *, leaks: str, blank: str, conflicts: str
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """Choose the images that are used, by options that :func:`check_selection` accepts.

    Args:
        prepared: the dataset.
        leaks: ``drop_from_train`` leaves out training images that are duplicated in val or test.
        blank: ``drop`` leaves out images that show nothing.
        conflicts: ``drop`` leaves out exact copies that have different emotions, all of them.

    Returns:
        ``(N,)`` bool, and for each reason the number of images of each split that it concerns
        (an image may have two).
    """
    entries = prepared.entries
    reasons: dict[str, set[str]] = {}
    if leaks != "keep":
        held_out = {entry.sha256 for entry in entries if entry.split != "train"}
        reasons["they are duplicated in val or test"] = {
            entry.id for entry in entries if entry.split == "train" and entry.sha256 in held_out
        }
    if blank != "keep":
        reasons[REASONS["blank"]] = set(prepared.integrity["blank"])
    if conflicts != "keep":
        reasons[REASONS["conflicts"]] = {
            entry.id for group in conflicting(group_duplicates(entries)) for entry in group
        }
    dropped = set().union(*reasons.values())
    left_out = {
        why: {
            split: sum(entry.split == split and entry.id in ids for entry in entries)
            for split in SPLITS
        }
        for why, ids in reasons.items()
    }
    return np.array([entry.id not in dropped for entry in entries], dtype=bool), left_out


def refuse_altered(name: str, folder: Path, integrity: Integrity) -> None:
    """Refuse a copy that was found to be altered.

    Args:
        name: of the dataset.
        folder: the prepared one.
        integrity: what was found.

    Raises:
        DataError: it is altered.
    """
    if integrity["verdict"] != ALTERED:
        return
    adopted = folder.glob(f"{CACHE}/adopted-*/report.html")
    pages = [page for page in (folder / "report.html", *adopted) if page.is_file()]
    see = f" (see {pages[0]} for what was found)" if pages else ""
    found = "\n".join(f"  - {finding['text']}" for finding in integrity["findings"])
    raise DataError(
        f"{name}: expected the copy that its authors published, found an altered one:\n{found}\n"
        f"Obtain another copy{see}, or train on this one all the same: "
        "dataset.accept_altered=true. The results will say so."
    )
