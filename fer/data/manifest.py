"""``manifest.csv``: one row per prepared image, and the fingerprint of a dataset's content."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.files import from_cell, is_outside, open_data, write_csv
from fer.data.readers.base import SPLITS


@dataclass(frozen=True, slots=True)  # there may be a million
class Entry:
    """One prepared image: ``<split>/<emotion>/<id>.png``."""

    id: str
    emotion: str
    split: str
    source: str
    """The file of the raw copy, or the table and its row."""
    sha256: str
    """Checksum of the decoded pixels (see :func:`pixel_hash`), not of a file."""
    gender: str = ""
    """As the dataset's annotators judged it, in words; empty where they did not."""
    race: str = ""
    age: str = ""
    """A range of years, such as ``20-39``."""
    phash: str = ""
    """Perceptual hash, 32 hex digits; empty where the picture has no content."""
    person: str = ""
    """Who is shown; empty if that is not known."""
    votes: str = ""
    """Annotators who saw each emotion, seven numbers in the schema's order; empty if unknown."""

    @property
    def file(self) -> str:
        """Path below the prepared folder."""
        return f"{self.split}/{self.emotion}/{self.id}.png"


ATTRIBUTES = ("gender", "race", "age")
"""Columns of ``manifest.csv`` that only a dataset with such annotations has."""
PHASH = re.compile("(?:[0-9a-f]{32})?")
VOTES = re.compile("(?:(?=.*[1-9])[0-9]{1,6}(?: [0-9]{1,6}){6})?")
LATER = (*ATTRIBUTES, "phash", "person", "votes")
"""Columns that a table may lack; an earlier version wrote no ``phash``."""
COLUMNS = tuple(field.name for field in fields(Entry) if field.name not in LATER)


REPAIR = "Delete the prepared folder and prepare the dataset again."


def pixel_hash(image: np.ndarray) -> str:
    """Hex SHA-256 of the pixels, row by row: equal for the same picture in any file format."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def fingerprint(entries: Iterable[Entry]) -> str:
    """Hex SHA-256 of what a dataset contains: each image's split, emotion, pixels and votes.

    File names, order, file format and machine do not matter.
    """
    lines = sorted(
        f"{entry.split} {entry.emotion} {entry.sha256}{entry.votes and f' {entry.votes}'}\n"
        for entry in entries
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def identity(entries: Iterable[Entry], checksums: Iterable[int]) -> str:
    """Hex SHA-256 of who is who: each image's split, and the picture of the reference that it is.

    Two encodings of the same images have the same identity, and other fingerprints. Labels do not
    matter.

    Args:
        entries: of the images.
        checksums: of the reference's pixels for each of them.
    """
    pairs = zip(entries, checksums, strict=True)
    lines = sorted(f"{entry.split} {checksum:08x}\n" for entry, checksum in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def shares(entries: Sequence[Entry], dataset: str) -> np.ndarray:
    """``(N, 7)`` float32: the share of each image's votes that each emotion has.

    Raises:
        ConfigError: an image of the dataset has no votes.

    >>> shares([Entry("1", "sad", "train", "1.png", "", votes="0 0 1 0 3 0 0")], "ferplus")
    array([[0.  , 0.  , 0.25, 0.  , 0.75, 0.  , 0.  ]], dtype=float32)
    """
    if not all(entry.votes for entry in entries):
        raise ConfigError(
            "loss: expected a dataset with the votes of several annotators for each image, such as "
            f"dataset=ferplus, found {dataset}, which has one label. Take loss=cross_entropy"
        )
    votes = np.array([entry.votes.split() for entry in entries], np.float32)
    return votes / votes.sum(axis=1, keepdims=True)


def write_manifest(path: Path, entries: Sequence[Entry]) -> Path:
    """Write ``manifest.csv``, atomically."""
    annotated = any(getattr(entry, name) for entry in entries for name in ATTRIBUTES)
    known = any(entry.person for entry in entries)
    voted = any(entry.votes for entry in entries)
    columns = (*COLUMNS, *ATTRIBUTES * annotated, "phash", *["person"] * known, *["votes"] * voted)
    rows = ({name: getattr(entry, name) for name in columns} for entry in entries)
    return write_csv(path, columns, rows)


def is_name(entry_id: str) -> bool:
    """True if an id is the name of a file, and leads nowhere else.

    >>> is_name("00001"), is_name("../1"), is_name("")
    (True, False, False)
    """
    return bool(entry_id) and not is_outside(entry_id) and not set("/\\\0") & set(entry_id)


def read_manifest(path: Path) -> list[Entry]:
    """Read ``manifest.csv``.

    Raises:
        DataError: it cannot be read, a column is missing, or a row has an unknown value.
    """
    try:
        with open_data(path) as data:
            file = io.TextIOWrapper(data, "utf-8", "surrogateescape", newline="")
            table = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or [])]
            if missing:
                raise DataError(
                    f"{path}: expected the columns {', '.join(COLUMNS)}, found no "
                    f"{', '.join(missing)}. {REPAIR}"
                )
            return [to_entry(path, number, row) for number, row in enumerate(table, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a readable table, found: {error}. {REPAIR}") from error


def to_entry(path: Path, number: int, cells: Mapping[str | None, str | None]) -> Entry:
    """The entry of a row of ``manifest.csv``.

    Raises:
        DataError: it has an unknown value.
    """
    row = {key: from_cell(cell or "") for key, cell in cells.items() if key}
    known = row["split"] in SPLITS and row["emotion"] in labels.INDEX
    if not known or not is_name(row["id"]):
        raise DataError(
            f"{path}: row {number}: expected an id that is the name of a file, a split "
            f"({', '.join(SPLITS)}) and an emotion ({', '.join(labels.EMOTIONS)}), found "
            f"{row['id']!r}, {row['split']!r}, {row['emotion']!r}. {REPAIR}"
        )
    if not PHASH.fullmatch(row.get("phash", "")):
        raise DataError(
            f"{path}: row {number}: expected a phash of 32 hex digits or none, found "
            f"{row['phash']!r}. {REPAIR}"
        )
    if not VOTES.fullmatch(row.get("votes", "")):
        raise DataError(
            f"{path}: row {number}: expected seven numbers of votes that are not all 0, or none, "
            f"found {row['votes'][:40]!r}. {REPAIR}"
        )
    own = {name: row.get(name, "") for name in (*COLUMNS, *LATER)}
    repeated = ("emotion", "split", *ATTRIBUTES, "person", "votes")  # kept in memory once
    return Entry(**own | {name: sys.intern(own[name]) for name in repeated})
