"""Cross-validation: the images of all splits in folds, one of which is measured.

What shows the same is in one fold: exact and near duplicates, and pictures of one person where the
reader knows who is shown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer.core import labels
from fer.core.errors import ConfigError
from fer.core.options import Check, or_null
from fer.data.audit.integrity import (
    Integrity,
    count_leaks,
    describe_groups,
    group_duplicates,
    near_groups,
)
from fer.data.audit.verdict import count_classes
from fer.data.conversion import add_splits, describe_excluded, describe_left_out
from fer.data.manifest import Entry
from fer.data.prepared import Prepared
from fer.data.readers.base import Reader
from fer.data.readers.names import sha256_of_name

PATTERN = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")


def is_fold(value: object) -> bool:
    """True for the name of a fold.

    >>> is_fold("2/5"), is_fold("6/5"), is_fold("1/2")
    (True, False, False)
    """
    found = PATTERN.fullmatch(value) if isinstance(value, str) else None
    return found is not None and int(found[1]) <= int(found[2]) and int(found[2]) > 2


FOLD: Check = or_null(("one of three folds or more, such as 2/5", is_fold), "for the given splits")


def refold(prepared: Prepared, fold: str, reader: Reader) -> Prepared:
    """A dataset whose test split is a fold, val the next one, and train the others.

    Args:
        prepared: as it is on disk, which does not change.
        fold: such as ``2/5``.
        reader: of the raw data; another ``split_seed`` gives other folds.

    Raises:
        ConfigError: see :func:`folds_of`.
    """
    number, count = map(int, fold.split("/"))
    own = folds_of(prepared, count, reader)
    splits = {number - 1: "test", number % count: "val"}
    entries = [
        replace(entry, split=splits.get(place, "train"))
        for entry, place in zip(prepared.entries, own.tolist(), strict=True)
    ]
    integrity = prepared.integrity
    about_splits = ("persons across splits", "The splits do not look alike")  # a kind, a text
    integrity = {
        **integrity,
        "official_protocol": False,
        "official_counts": None,
        "matches_official_counts": None,
        "reference_pixels": None,
        "pixels": {},  # of the splits that it had
        "findings": [
            finding
            for finding in integrity["findings"]
            if not any(finding[key].startswith(about_splits) for key in ("kind", "text"))
        ],
        "counts": count_classes(entries),
        "leaks": count_leaks(entries),
        "duplicates": {**integrity["duplicates"], **describe_groups(group_duplicates(entries))},
        "near_duplicates": {
            **integrity["near_duplicates"],
            "groups_across_splits": 0,
            "images_across_splits": 0,
            "listed": [],
        },
        "warnings": [
            *warnings_of_images(integrity),
            f"Cross-validation: of the images of all splits, fold {number} of {count} is test, "
            f"fold {number % count + 1} is val, the others are train. Copies"
            f"{' and pictures of one person' if any(e.person for e in entries) else ''} are "
            "in one fold. This is not an official protocol.",
        ],
    }
    return Prepared(prepared.folder, entries, integrity, prepared.files)


def warnings_of_images(integrity: Integrity) -> list[str]:
    """Warnings of a preparation that hold for folds: not those on the splits that there were."""
    faceless = integrity.get("faceless", {})
    of_splits = describe_left_out(faceless)
    return [
        *(one for one in integrity["warnings"] if "held out" not in one and one not in of_splits),
        *describe_excluded(add_splits(faceless)),
    ]


def folds_of(
    prepared: Prepared, count: int, reader: Reader, key: str = "dataset.fold"
) -> np.ndarray:
    """The fold of each image of a dataset, ``(N,)`` int64 from 0.

    Args:
        prepared: as it is on disk.
        count: how many folds.
        reader: of the raw data; another ``split_seed`` gives other folds.
        key: the option that asks for them, for messages.

    Raises:
        ConfigError: a class has too few images that are not alike for so many folds, or it is not
            known who is shown although the reader says so.
    """
    if getattr(reader, "person", None) and not all(entry.person for entry in prepared.entries):
        raise ConfigError(
            f"{key}: expected a prepared dataset that says who is shown (dataset.person), "
            f"found one that does not: {prepared.folder}. Prepare the raw images anew into another "
            "folder (dataset.raw=PATH dataset.folder=NEW), or leave out dataset.person."
        )
    return assign_folds(prepared.entries, count, getattr(reader, "split_seed", 0), key)


def assign_folds(
    entries: Sequence[Entry], count: int, seed: int, key: str = "dataset.fold"
) -> np.ndarray:
    """The fold of each image, ``(N,)`` int64 from 0, with about equal classes in each.

    Images come in the order of a hash, those that must stay together first. They go to the fold
    that has the smallest share of their classes.

    Raises:
        ConfigError: a class has too few images that are not alike.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(group_alike(entries).tolist()):
        members[group].append(index)

    def rank(group: list[int]) -> tuple[int, str]:
        return -len(group), sha256_of_name(f"{seed}:{min(entries[i].sha256 for i in group)}")

    emotions = np.array([labels.INDEX[entry.emotion] for entry in entries])
    total = np.bincount(emotions, minlength=labels.NUM_CLASSES)
    folds = np.zeros(len(entries), np.int64)
    counts = np.zeros((count, labels.NUM_CLASSES), np.int64)
    for group in sorted(members.values(), key=rank):
        own = np.bincount(emotions[group], minlength=labels.NUM_CLASSES)
        crowding = counts @ (own / np.maximum(total, 1))  # a rare emotion counts as much as others
        fold = int(np.lexsort((counts.sum(axis=1), crowding))[0])
        folds[group] = fold
        counts[fold] += own
    short = [
        f"{name} ({counts[:, i].sum():,} images)"
        for i, name in enumerate(labels.EMOTIONS)
        if counts[:, i].any() and not counts[:, i].all()
    ]
    if short:
        fewer = "Take fewer folds, or another" if count > 3 else "Take another"
        raise ConfigError(
            f"{key}: expected images of every emotion for each of the {count} folds, where "
            f"copies and pictures of one person stay together, found too few of "
            f"{', '.join(short)}. {fewer} dataset.reader.split_seed."
        )
    return folds


def group_alike(entries: Sequence[Entry]) -> np.ndarray:
    """``(N,)`` int: equal for images that must not be on both sides of a fold's border."""
    near = near_groups(entries)
    first: dict[tuple[str, object], int] = {}
    edges = []
    for index, entry in enumerate(entries):
        keys: list[tuple[str, object]] = [("pixels", entry.sha256)]
        if entry.person:
            keys.append(("person", entry.person))
        if near[index] >= 0:
            keys.append(("near", int(near[index])))
        edges += [(first.setdefault(key, index), index) for key in keys]
    rows, columns = np.array(edges).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(entries), len(entries)))
    found: np.ndarray = connected_components(graph, directed=False)[1]
    return found
