"""The interface of a dataset: a :class:`Reader`, and the listing that it returns.

A reader lists a raw dataset without decoding it (:class:`RawDataset`): records that say which image
has which label, and a :class:`Source`, which a worker process can unpickle, to read each.
"""

from __future__ import annotations

import functools
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.options import SEED, check_value, number
from fer.data.readers.names import is_image, make_ids, safe_id, sha256_of_name, shown
from fer.data.readers.sources import (
    FolderSource,
    Record,
    Source,
    ZipSource,
    list_files,
    list_zip,
    only_archive,
)

__all__ = [
    "FolderSource",
    "HoldOut",
    "RawDataset",
    "Reader",
    "Record",
    "Source",
    "ZipSource",
    "is_image",
    "list_files",
    "list_zip",
    "make_ids",
]
"""Names that a reader of one's own needs."""

SPLITS: tuple[str, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "publictest": "val",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}
"""Names of splits in public copies, in lower case, and the split that each means."""
EMOTION_NAMES = ", ".join(labels.EMOTIONS)
LATER = "later"
"""Marks a field of a reader that was added later: what was prepared without it stays valid."""
Labelled = TypeVar("Labelled", bound=Record)
SHARE = number("a share between 0 and 1", lambda value: 0 < value < 1)


@dataclass(frozen=True)
class Finding:
    """One way in which a copy differs from what its authors published."""

    kind: str
    """A word to look for: ``smoothed``, ``re-split``, …"""
    text: str
    """A sentence for people."""
    split: str | None = None
    emotion: str | None = None
    images: int = 0


@dataclass(frozen=True)
class NewLabels:
    """Labels from another source than the copy's, one of each for each image."""

    emotions: Sequence[str]
    """Names of :data:`fer.core.labels.EMOTIONS`; empty for an image that is left out."""
    votes: Sequence[str]
    """As in :class:`fer.data.manifest.Entry`."""
    reasons: Sequence[str]
    """Why the image is left out, in words; counts only where it is."""
    warnings: Sequence[str] = ()


Relabel = Callable[[np.ndarray, Sequence[Any]], NewLabels]
"""Labels from each image's row of the reference ``(N,)`` int64, -1 for none, and its
:class:`fer.data.manifest.Entry`."""


@dataclass
class RawDataset:
    """A raw dataset, listed but not yet decoded."""

    source: Source
    form: str
    """The form of the copy in words: ``"image archive (zip)"``, ``"table (fer2013.csv)"``, …"""
    records: list[Record]
    official_protocol: bool = False
    """True if train, val and test are the ones that the dataset's authors defined."""
    warnings: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
    """Reasons for which images of the copy were left out, in words, and how many for each."""
    expected_size: int | None = None
    """Side in pixels of the images of an unaltered copy of this form; None if sizes differ."""
    findings: list[Finding] = field(default_factory=list)
    """Alterations that the names of the files alone betray."""
    restore_splits: bool = False
    """True if a recognised image goes to the split that it has in the reference copy."""
    relabel: Relabel | None = None
    """Gives images other labels than the copy's, once they are recognised; None: they keep them."""
    beside: Path | None = None
    """Another file that was read; when it changes, the dataset is prepared again."""
    disputed: Sequence[str] = ()
    """Images that are left out since the copy itself gives them different labels."""

    def __post_init__(self) -> None:
        self.excluded = {why: count for why, count in self.excluded.items() if count}


class Reader(ABC):
    """Lists the raw data of a dataset: extend it for one of your own, and write :meth:`list`.

    Options are attributes, as in a dataclass: they decide whether what was prepared before still
    holds, and travel in checkpoints. What is no option has a name that begins with ``_``.

    >>> @dataclass(frozen=True)
    ... class MyReader(Reader):
    ...     level: int = 3
    ...
    ...     def list(self, raw):
    ...         names = [name for name in list_files(raw) if is_image(name)]  # train/sad/1.png
    ...         places = [name.split("/") for name in names]
    ...         ids = make_ids(names, [emotion for _, emotion, _ in places])
    ...         records = [
    ...             Record(id, labels.canonical(emotion), split, source=name, location=name)
    ...             for id, name, (split, emotion, _) in zip(ids, names, places)
    ...         ]
    ...         return RawDataset(FolderSource(raw), "my folders", records)
    >>> MyReader(level=4).options()
    {'level': 4}
    """

    official_counts: Mapping[str, Mapping[str, int]] | None = None
    """Images per split and emotion as the dataset's authors state them; without ``val`` where they
    define none. None: not known."""
    expected_size: int | None = None
    """Side in pixels of the images as they are usually passed on; None if that varies."""
    reference: str | None = None
    """Name of the copy in :mod:`fer.data.audit.reference`; None if there is none."""
    relabels: bool = False
    """True if labels come from another source than the copy (see :class:`RawDataset`), so that
    those of a folder that somebody else prepared are not the ones to take."""
    how_to_obtain: str = "Pass its path: dataset.raw=PATH"
    """Shown to a user who does not have the raw data."""

    def beside(self, raw: Path) -> Path | None:
        """Another file that goes with a copy, such as one with labels: see :class:`RawDataset`."""
        return None

    def find(self, folder: Path) -> Path | None:
        """The raw data in ``folder``: the folder itself, or the one archive in it; None if none."""
        names = list_files(folder) if folder.is_dir() else []
        return folder / (only_archive(names) or "") if names else None

    @abstractmethod
    def list(self, raw: Path) -> RawDataset:
        """List the raw data without decoding it.

        Raises:
            DataError: it is not what this reader reads.
        """

    def options(self) -> dict[str, Any]:
        """The reader's options as plain values, without :data:`LATER` ones at their default.

        Raises:
            ConfigError: an option is something else.
        """
        names: Iterable[str] = vars(self)
        if is_dataclass(self):
            names = [
                one.name
                for one in fields(self)
                if one.init
                and not (LATER in one.metadata and getattr(self, one.name) == one.default)
            ]
        return {name: to_plain(name, getattr(self, name)) for name in names if name[0] != "_"}


def to_plain(name: str, value: object) -> Any:
    """The value of a reader's option as JSON gives it back: a tuple is a list, a path a text.

    Raises:
        ConfigError: JSON cannot hold it.
    """

    def plain(one: Any) -> Any:
        return dict(one) if isinstance(one, Mapping) else os.fspath(one)

    try:
        return json.loads(json.dumps(value, default=plain))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"dataset.reader.{name}: expected text, numbers, true, false, null, or lists and "
            f"mappings of them, found {value!r}. In the reader, begin the names of attributes that "
            "are no options with _"
        ) from error


@dataclass(frozen=True)
class HoldOut(Reader):
    """A reader that holds val out of train: stratified, seeded, the same on every machine."""

    val_fraction: float = 0.1
    """Share of each class that is held out, at least one image of each."""
    split_seed: int = 0
    """Another seed gives another hold-out."""

    def __post_init__(self) -> None:
        check_value("dataset.reader.val_fraction", self.val_fraction, SHARE)
        check_value("dataset.reader.split_seed", self.split_seed, SEED)

    def hold_out(self, records: Iterable[Record]) -> Sequence[Record]:
        """The records, with val held out of train."""
        records = tuple(records)
        train = {record.id: record.emotion for record in records if record.split == "train"}
        held_out = self.choose(train, train)
        return [
            replace(record, split="val") if record.id in held_out else record for record in records
        ]

    def choose(
        self,
        ids: Iterable[str],
        emotions: Mapping[str, str],
        share: float | None = None,
        leave: int = 1,
    ) -> frozenset[str]:
        """The ids that are held out: ``share`` of each class (None: ``val_fraction``), at least
        one, of which ``leave`` images stay where it has more than that.

        Each id is ranked by a hash of seed and id, so that the choice depends neither on the
        order of the files nor on the machine nor on any library's random numbers.
        """
        share = self.val_fraction if share is None else share
        by_class: dict[str, list[str]] = {}
        for name in self._ranked(ids):
            by_class.setdefault(emotions[name], []).append(name)
        chosen: set[str] = set()
        for names in by_class.values():
            chosen.update(names[: max(1, min(round(share * len(names)), len(names) - leave))])
        return frozenset(chosen)

    def choose_persons(
        self, persons: Mapping[str, str], emotions: Mapping[str, str], share: float
    ) -> frozenset[str]:
        """The ids that are held out, all of a person or none, with about ``share`` of each class.

        Persons come in the order of a hash, as images do in :meth:`choose`. One is taken where
        that brings the classes nearer to their shares, and leaves images of each to the others.
        """
        own: dict[str, Counter[str]] = {}
        for name, person in persons.items():
            own.setdefault(person, Counter())[emotions[name]] += 1
        total = sum(own.values(), Counter[str]())
        held: Counter[str] = Counter()
        chosen: set[str] = set()

        def distance(counts: Counter[str]) -> float:
            return sum((counts[c] - share * n) ** 2 / n for c, n in total.items())

        for person in self._ranked(own):
            after = held + own[person]
            leaves = all(total[c] > after[c] for c in own[person])
            if leaves and (not chosen or distance(after) < distance(held)):
                chosen.add(person)
                held = after
        return frozenset(name for name, person in persons.items() if person in chosen)

    def _ranked(self, names: Iterable[str]) -> Sequence[str]:
        """Names in the order of a hash of seed and name."""
        return sorted(names, key=lambda name: sha256_of_name(f"{self.split_seed}:{name}"))


def split_of(name: str) -> str:
    """The split that a folder or cell names; empty if it names none."""
    return SPLIT_NAMES.get(name.strip().lower(), "")


def emotion_or_none(name: str, synonyms: labels.Synonyms | None = None) -> str | None:
    """The schema's name for a class; None if it is none of the seven emotions."""
    try:
        return labels.canonical(name, synonyms)
    except DataError:
        return None


def name_emotions(
    raw: Path,
    records: Iterable[Labelled],
    meaning: Callable[[str], str | None],
    *,
    drop_unknown: bool,
    expected: str = f"the classes {EMOTION_NAMES} or synonyms of them",
    remedy: Callable[[Sequence[str]], str] = lambda _: "correct their names",
) -> tuple[list[Labelled], dict[str, int]]:
    """Records with the schema's emotion for the copy's own class, and entries of ``excluded``.

    Args:
        raw: the copy.
        records: of all images, with the copy's class as emotion.
        meaning: the emotion of a class, or None.
        drop_unknown: leave out images of other classes.
        expected: which classes, in words.
        remedy: what else can be done about classes that are none, in words.

    Raises:
        DataError: a class is no emotion and may not be left out, or nothing else is there.
    """
    meaning = functools.cache(meaning)
    named: list[Labelled] = []
    unknown: dict[str, list[Record]] = {}
    for record in records:
        emotion = meaning(record.emotion)
        if emotion:
            named.append(replace(record, emotion=emotion))
        else:
            unknown.setdefault(shown(labels.normalise(record.emotion)), []).append(record)
    names = sorted(unknown)
    if names and not (drop_unknown and named):
        found = ", ".join(f"{name!r} ({len(unknown[name]):,} images)" for name in names)
        leave = "Leave such images out (dataset.drop_unknown=true), or "
        if drop_unknown:
            leave = "dataset.drop_unknown=true leaves no image: "
        raise DataError(
            f"{raw}: expected {expected}, found {found}; the first: "
            f"{shown(unknown[names[0]][0].source)}. {leave}{remedy(names)}"
        )
    why = "their class {!r} is not one of the seven emotions"
    return named, {why.format(name): len(unknown[name]) for name in names}


def persons_across(persons: Mapping[str, str], splits: Mapping[str, str]) -> list[Finding]:
    """A finding where pictures of one person are in several splits."""
    places: dict[str, set[str]] = {}
    for name, person in persons.items():
        places.setdefault(person, set()).add(splits[name])
    across = sorted(person for person, own in places.items() if len(own) > 1)
    if not across:
        return []
    text = (
        f"{len(across):,} of {len(places):,} persons are in more than one split "
        f"({shown(', '.join(across[:5]))}{', …' * (len(across) > 5)}): scores say less about "
        "people whom the network has not seen."
    )
    images = sum(len(places[person]) > 1 for person in persons.values())
    return [Finding("persons across splits", text, images=images)]


def check_records(reader: str, records: Sequence[Record]) -> None:
    """Refuse records that cannot become a prepared dataset, whichever ``reader`` made them.

    Raises:
        DataError: there are none, one is not a record, an id is not safe or not unique, or an
            emotion or split is unknown.
    """
    if not records:
        raise DataError(
            f"{reader}: expected a record for each image, found an empty list. Check that "
            "dataset.raw is the right place, or correct the reader's list()."
        )
    seen: set[str] = set()
    for record in records:
        if not isinstance(record, Record):
            raise DataError(
                f"{reader}: expected records that are each a Record, found {record!r}. Correct the "
                "reader's list()."
            )
        name = str(record.id)
        for what, found, is_right, expected in (
            ("id", record.id, safe_id(name) == record.id != "", "one that safe_id() made"),
            ("id", record.id, name.casefold() not in seen, "each id once"),
            ("emotion", record.emotion, record.emotion in labels.EMOTIONS, EMOTION_NAMES),
            ("split", record.split, record.split in SPLITS, ", ".join(SPLITS)),
        ):
            if not is_right:
                raise DataError(
                    f"{reader}: {shown(str(record.source))}: expected as {what} {expected}, found "
                    f"{shown(str(found))!r}. Correct the reader: make_ids() and labels.canonical() "
                    "help."
                )
        seen.add(name.casefold())


def check_classes(raw: Path | str, placed: Sequence[tuple[str, str]]) -> None:
    """Refuse to train on a copy in which a split is missing, or train lacks an emotion.

    In val and test an empty emotion is allowed: scores are defined without it, and results say so.
    ``placed`` are split and emotion of each image.

    Raises:
        DataError: a split is missing, or a class of train is empty.
    """
    counts = Counter(placed)
    for split in SPLITS:
        empty = [name for name in labels.EMOTIONS if not counts[split, name]]
        if len(empty) == labels.NUM_CLASSES:
            raise DataError(
                f"{raw}: expected images for the splits train, val and test, found none for "
                f"{split!r}. Check that the copy is complete; evaluate.py needs one split alone."
            )
        if empty and split == "train":
            raise DataError(
                f"{raw}: expected images of all seven emotions in {split!r}, found none of "
                f"{', '.join(map(repr, empty))}. Check that the copy is complete; evaluate.py does "
                "without them."
            )
