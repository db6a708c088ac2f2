"""Reader of FER+: FER2013's images with the votes of ten annotators instead of its labels.

FER+ (Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced
Label Distribution", arXiv 1608.01041) is a table of votes, one row for each row of FER2013's own
table, and no pictures. Each image of a copy is looked for in the reference of FER2013, which knows
its row: the copy may have any form, and its order means nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.options import PATH, check_value, one_of, or_null
from fer.core.words import how_many
from fer.data.audit.reference import (
    UNKNOWN_PIXELS,
    Reference,
    cells_of,
    checksums_of,
    load_reference,
)
from fer.data.audit.verdict import RECOGNISED
from fer.data.manifest import Entry
from fer.data.readers.base import SPLITS, NewLabels, RawDataset, Reader
from fer.data.readers.fer2013 import HOW_TO_OBTAIN, USAGE_SPLIT, FER2013Reader
from fer.data.readers.sources import read_text

VOTES = "fer2013new.csv"
ANSWERS = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "nf"),
)
"""Columns of the table of votes, in lower case; ``nf`` is no face."""
EMOTIONS = [ANSWERS.index(name) for name in (
    "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral",
)]  # fmt: skip
"""The columns of the seven emotions, in the schema's order."""
CODES = np.full(len(ANSWERS) + 1, -1)
"""The emotion of each answer, -1 for none; so for no answer, which is the last."""
CODES[EMOTIONS] = np.arange(labels.NUM_CLASSES)
RULES = ("majority", "plurality", "distribution")
AGREEMENT, BLOCK = 0.4, 100
"""FER+'s majority is FER2013's own label for two images in three, and for 18 % if rows are shuffled
or shifted by one. In each block of so many images that follow each other it is for 54 % or more,
in each of half as many for 50 %."""
WHERE = "Get it from https://github.com/microsoft/FERPlus"


@dataclass(frozen=True)
class FERPlusReader(FER2013Reader):
    """Lists a FER2013 copy, whose images get the emotions that FER+'s annotators saw.

    Votes that an answer has alone are dropped first, as FER+'s authors do. Images whose answer is
    contempt, unknown or no face are left out, and so are those that the rule decides nothing on.

    Args:
        votes: ``fer2013new.csv``, or its folder; None: it lies beside the raw data.
        rule: ``majority``: the answer with more than half of the votes, as FER+'s authors have it;
            ``plurality``: the answer with the most votes, if it is one; ``distribution``:
            ``plurality`` for training images, whose votes ``loss=soft`` takes for targets, and
            ``majority`` for the others, so that scores are comparable.

    Raises:
        ConfigError: an option has a value that cannot work.
    """

    votes: str | Path | None = None
    rule: str = "majority"

    relabels = True
    how_to_obtain = (
        f"{HOW_TO_OBTAIN}\nThe votes are not in it. {WHERE}, and pass its path: "
        f"dataset.reader.votes=PATH, or put {VOTES} beside the raw data."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_value("dataset.reader.votes", self.votes, or_null(PATH, "beside the raw data"))
        check_value("dataset.reader.rule", self.rule, one_of(*RULES))

    def beside(self, raw: Path) -> Path | None:
        """The table of votes that goes with a copy; None if it is nowhere.

        Raises:
            DataError: it is not where ``votes`` says.
        """
        if self.votes is None:
            path = (raw if raw.is_dir() else raw.parent) / VOTES
            return path if raw.exists() and path.is_file() else None
        path = Path(self.votes)
        return find_votes(path / VOTES if path.is_dir() else path)

    def options(self) -> dict[str, Any]:
        """The reader's options as plain values, without the place of the votes."""
        return {name: value for name, value in super().options().items() if name != "votes"}

    def list(self, raw: Path) -> RawDataset:
        """List the copy at ``raw``, whichever form it has, and read the votes."""
        dataset = super().list(raw)
        if dataset.relabel is None:  # of a folder, the file in it was listed
            path = self.beside(raw) or find_votes((raw if raw.is_dir() else raw.parent) / VOTES)
            reference = load_reference(self.reference)
            assert reference is not None and reference.table_rows is not None
            votes = read_votes(path, reference)
            dataset.beside = path
            dataset.official_protocol = self.rule != "plurality"
            dataset.form += f" with FER+'s votes ({self.rule})"
            dataset.relabel = Relabelling(path, votes, self.rule, reference)
        return dataset


@dataclass(frozen=True)
class SecondLabels:
    """What FER+'s annotators saw in images of FER2013."""

    emotions: np.ndarray
    """``(N,)`` int64: the emotion that the majority rule gives, or -1."""
    shares: np.ndarray
    """``(N, 7)`` float: each emotion's share of the ten annotators; 0 for an unknown image."""
    unknown: int
    """How many images are not recognised, and so have no votes."""
    notes: list[str]


def second_labels(entries: Sequence[Entry], votes: Path) -> SecondLabels | None:
    """The second labels of images of FER2013; None if hardly any is one, or none has a label.

    Args:
        entries: of the images, which are recognised by their pixels, in either encoding.
        votes: FER+'s table, or its folder.

    Raises:
        DataError: the table cannot be used.
    """
    reference = load_reference("fer2013")
    assert reference is not None and reference.table_rows is not None
    path = find_votes(votes / VOTES if votes.is_dir() else votes, "votes")
    table, rows = read_votes(path, reference), find_rows(entries, reference)
    known = rows >= 0
    if known.sum() < RECOGNISED * len(rows):
        return None
    found = Relabelling(path, table, "majority", reference)(rows, entries)
    emotions = np.array([labels.INDEX.get(emotion, -1) for emotion in found.emotions])
    if not (emotions >= 0).any():
        return None
    own = np.where(known[:, None], table[reference.table_rows[rows]], 0)
    notes = list(found.warnings)
    unknown = int((~known).sum())
    if unknown:
        images = how_many(unknown, "image")
        notes.append(f"{images} without votes: not FER2013's pixel for pixel.")
    shares = own[:, EMOTIONS] / np.maximum(own.sum(axis=1, keepdims=True), 1)
    return SecondLabels(emotions, shares, unknown, notes)


def check_own_labels(reader: Reader, name: str) -> None:
    """Refuse votes beside a dataset whose labels are those of the votes.

    Raises:
        ConfigError: the reader of the dataset ``name`` takes its labels from them.
    """
    if reader.relabels:
        raise ConfigError(
            f"votes: expected a dataset with labels of its own, found {name}, whose labels are "
            "those of the votes. Take dataset=fer2013, or leave out votes."
        )


def find_rows(entries: Sequence[Entry], reference: Reference) -> np.ndarray:
    """``(N,)`` int64: the row of the reference with an image's pixels in either encoding, or -1.

    Of equal copies, one with the image's split and emotion is taken if there is one, else one with
    its emotion.
    """
    rows: dict[tuple[int, str, int], int] = {}
    for known in (reference.originals, reference.checksums):
        pairs = zip(known.tolist(), reference.cells.tolist(), strict=True)
        for row, (checksum, cell) in enumerate(pairs):
            if checksum != UNKNOWN_PIXELS:
                for key in _keys(checksum, cell):
                    rows.setdefault(key, row)
    own = zip(checksums_of(entries).tolist(), cells_of(entries).tolist(), strict=True)
    found = (next((rows[key] for key in _keys(*one) if key in rows), -1) for one in own)
    return np.fromiter(found, np.int64, len(entries))


def _keys(checksum: int, cell: int) -> tuple[tuple[int, str, int], ...]:
    """What an image may be found by, the surest first."""
    emotion = cell % labels.NUM_CLASSES
    return (checksum, "cell", cell), (checksum, "emotion", emotion), (checksum, "", 0)


def find_votes(path: Path, key: str = "dataset.reader.votes") -> Path:
    """The table of votes at ``path``, which the option ``key`` names.

    Raises:
        DataError: there is none.
    """
    if not path.is_file():
        raise DataError(
            f"{key}: expected FER+'s table of votes, {VOTES}, found none at {path.absolute()}. "
            f"{WHERE}, and pass its path: {key}=PATH"
        )
    return path


def read_votes(path: Path, reference: Reference) -> np.ndarray:
    """``(R, 10)`` int64: the votes for each of :data:`ANSWERS`, a row for each row of FER2013.

    Raises:
        DataError: it is not FER+'s table, or its rows are not those of FER2013's table.
    """
    assert reference.table_rows is not None
    table = csv.DictReader(read_text(path, "FER+'s table of votes").splitlines())
    try:
        names = {name.strip().lower(): name for name in table.fieldnames or []}
        found_rows = list(table)
    except csv.Error as error:
        raise DataError(f"{path}: expected a table of votes, found: {error}. {WHERE}") from error
    missing = [name for name in ("usage", *ANSWERS) if name not in names]
    if missing:
        raise DataError(
            f"{path}: expected FER+'s columns usage, {', '.join(ANSWERS)}, found no "
            f"{', '.join(missing)}. {WHERE}"
        )
    cells = [{key: (row[name] or "").strip() for key, name in names.items()} for row in found_rows]
    if len(cells) != len(reference.table_rows):
        raise DataError(
            f"{path}: expected {len(reference.table_rows):,} rows, one for each of FER2013's "
            f"table, found {len(cells):,}. {WHERE}"
        )
    splits = np.empty(len(cells), np.int64)
    splits[reference.table_rows] = reference.cells // labels.NUM_CLASSES
    for number, (row, split) in enumerate(zip(cells, splits.tolist(), strict=True), start=2):
        if USAGE_SPLIT.get(row["usage"]) != SPLITS[split]:
            usage = next(name for name, own in USAGE_SPLIT.items() if own == SPLITS[split])
            raise DataError(
                f"{path}: row {number}: expected the usage {usage}, as in this row of FER2013's "
                f"table, found {row['usage'][:40]!r}: the rows have another order. {WHERE}"
            )
        found = [row[name] for name in ANSWERS]
        if not all(one.isdecimal() and len(one) < 4 for one in found) or not any(map(int, found)):
            raise DataError(
                f"{path}: row {number}: expected the votes of ten annotators, whole numbers that "
                f"are not all 0, found {', '.join(found)[:80]}. {WHERE}"
            )
    return np.array([[int(row[name]) for name in ANSWERS] for row in cells], np.int64)


@dataclass(frozen=True)
class Relabelling:
    """Gives each image of FER2013 the emotion that the annotators saw."""

    path: Path
    """The table of votes, for messages."""
    votes: np.ndarray
    """``(R, 10)`` int64, see :func:`read_votes`."""
    rule: str
    reference: Reference

    def __call__(self, rows: np.ndarray, entries: Sequence[Entry]) -> NewLabels:
        """The labels of a copy's images.

        Args:
            rows: ``(N,)`` int64, each image's row of the reference, -1 for none.
            entries: of the images.

        Raises:
            DataError: the images are not FER2013's, or the votes are not in its table's order.
        """
        known = rows >= 0
        if known.sum() < RECOGNISED * len(rows):
            raise DataError(
                f"{self.path}: expected images of FER2013 to go with these votes, found "
                f"{known.sum():,} of {len(rows):,} that are recognised. Pass a copy of FER2013: "
                "dataset.raw=PATH"
            )
        assert self.reference.table_rows is not None
        votes = self.votes[self.reference.table_rows[rows]]  # of those without a row: not used
        kept = np.where(votes > 1, votes, 0)
        answers = majority(kept) if self.rule == "majority" else plurality(kept)
        if self.rule == "distribution":
            is_train = np.array([entry.split == "train" for entry in entries], dtype=bool)
            answers = np.where(is_train, answers, majority(kept))
        codes = np.where(known, CODES[answers], -1)
        chosen = codes >= 0
        self._check_order(codes[chosen], rows[chosen])
        return NewLabels(
            emotions=[labels.EMOTIONS[code] if code >= 0 else "" for code in codes.tolist()],
            votes=[" ".join(map(str, own)) for own in kept[:, EMOTIONS].tolist()],
            reasons=[why(*one) for one in zip(known.tolist(), answers.tolist(), strict=True)],
            warnings=self._warnings(rows, votes, chosen, entries),
        )

    def _check_order(self, codes: np.ndarray, rows: np.ndarray) -> None:
        """Refuse votes whose emotions are hardly ever those of FER2013, anywhere in the table."""
        assert self.reference.table_rows is not None
        places = self.reference.table_rows[rows]
        order = np.argsort(places)
        own = self.reference.cells[rows] % labels.NUM_CLASSES
        for part in np.split(order, range(BLOCK, len(order), BLOCK)) if len(order) else []:
            agree = (codes == own)[part].mean() if 2 * len(part) >= BLOCK else 1.0
            first, last = places[part[0]] + 2, places[part[-1]] + 2  # as an editor counts
            # Of a part of the images, such as those of one emotion, this is not known.
            if agree < AGREEMENT and last - first < 3 * BLOCK:
                raise DataError(
                    f"{self.path}: expected votes in the order of FER2013's table, which agree "
                    f"with its labels on more than {AGREEMENT:.0%} of the images, found "
                    f"{agree:.0%} in rows {first} to {last}: the rows have another order. {WHERE}"
                )

    def _warnings(
        self, rows: np.ndarray, votes: np.ndarray, chosen: np.ndarray, entries: Sequence[Entry]
    ) -> list[str]:
        """What is not certain about the votes ``(N, 10)`` of the images that are chosen."""
        by_sight = int((self.reference.originals[rows[chosen]] == UNKNOWN_PIXELS).sum())
        seen: dict[str, set[bytes]] = {}
        for index in np.flatnonzero(rows >= 0).tolist():
            seen.setdefault(entries[index].sha256, set()).add(votes[index].tobytes())
        picked = np.flatnonzero(chosen).tolist()
        copies = sum(len(seen[entries[index].sha256]) > 1 for index in picked)
        lines = (
            (by_sight, "paired with votes by sight: the original pixels of such rows in FER2013's "
             "table are not known here. In the whole dataset two of these pairs are guesses: their "
             "labels may be those of other pictures."),
            (copies, "among exact copies whose votes differ: which copy has which votes cannot be "
             "told."),
        )  # fmt: skip
        return [f"{how_many(count, 'image')} {text}" for count, text in lines if count]


def majority(votes: np.ndarray) -> np.ndarray:
    """``(N,)`` int64: the answer that has more than half of the votes ``(N, 10)``, or -1.

    >>> majority(np.array([[5, 3, 2], [5, 5, 0], [0, 0, 0]])).tolist()
    [-1, -1, -1]
    >>> majority(np.array([[6, 4, 0], [0, 2, 3]])).tolist()
    [0, 2]
    """
    return np.where(2 * votes.max(axis=1) > votes.sum(axis=1), votes.argmax(axis=1), -1)


def plurality(votes: np.ndarray) -> np.ndarray:
    """``(N,)`` int64: the answer that has more of the votes ``(N, 10)`` than any other, or -1.

    >>> plurality(np.array([[5, 3, 2], [5, 5, 0], [0, 0, 0]])).tolist()
    [0, -1, -1]
    """
    most = votes.max(axis=1, keepdims=True)
    return np.where((votes == most).sum(axis=1) == 1, votes.argmax(axis=1), -1)


def why(known: bool, answer: int) -> str:
    """Why an image with this answer (-1: none) is left out, if it is."""
    if not known:
        return "they are not recognised as images of FER2013"
    if answer < 0:
        return "no answer of the annotators has enough votes"
    if ANSWERS[answer] == "contempt":
        return "the annotators saw contempt, which is not one of the seven emotions"
    return "the annotators saw no face, or could not tell the emotion"
