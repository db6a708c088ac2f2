"""``manifest.csv``: one row per prepared image, and the fingerprint of a dataset's content."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import from_cell, write_csv
from fer.data.readers.base import SPLITS


@dataclass(frozen=True)
class Entry:
    """One prepared image: ``<split>/<emotion>/<id>.png``."""

    id: str
    emotion: str
    split: str
    source: str
    """The file of the raw copy, or the table and its row."""
    sha256: str
    """Of the decoded pixels (see :func:`pixel_hash`), not of a file."""
    gender: str = ""
    """As the dataset's annotators judged it, in words; empty where they did not."""
    race: str = ""
    age: str = ""
    """In years, such as ``20-39``."""
    phash: str = ""
    """Perceptual hash, 32 hex digits; empty where the picture has no content."""

    @property
    def file(self) -> str:
        """Path below the prepared folder."""
        return f"{self.split}/{self.emotion}/{self.id}.png"


ATTRIBUTES = ("gender", "race", "age")
"""Columns of ``manifest.csv`` that only a dataset with such annotations has."""
PHASH = re.compile("(?:[0-9a-f]{32})?")
LATER = (*ATTRIBUTES, "phash")
"""Columns that a table may lack; an earlier version wrote no ``phash``."""
COLUMNS = tuple(field.name for field in fields(Entry) if field.name not in LATER)


def pixel_hash(image: np.ndarray) -> str:
    """Hex SHA-256 of the pixels, row by row: equal for the same picture in any file format."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def fingerprint(entries: Iterable[Entry]) -> str:
    """Hex SHA-256 of what a dataset contains: each image's split, emotion and pixels.

    File names, order, file format and machine do not matter.
    """
    lines = sorted(f"{entry.split} {entry.emotion} {entry.sha256}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(path: Path, entries: Sequence[Entry]) -> Path:
    """Write ``manifest.csv``, atomically."""
    rows = [asdict(entry) for entry in entries]
    annotated = any(row[name] for row in rows for name in ATTRIBUTES)
    columns = (*COLUMNS, *(ATTRIBUTES if annotated else ()), "phash")
    return write_csv(path, columns, ({name: row[name] for name in columns} for row in rows))


def read_manifest(path: Path) -> list[Entry]:
    """Read ``manifest.csv``.

    Raises:
        DataError: it cannot be read, a column is missing, or a row has an unknown value.
    """
    repair = "Delete the prepared folder and prepare the dataset again."
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or [])]
            if missing:
                raise DataError(
                    f"{path}: expected the columns {', '.join(COLUMNS)}, found no "
                    f"{', '.join(missing)}. {repair}"
                )
            rows = [
                {key: from_cell(cell or "") for key, cell in row.items() if key} for row in table
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a readable table, found: {error}. {repair}") from error
    entries = []
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS or row["emotion"] not in labels.INDEX or not row["id"]:
            raise DataError(
                f"{path}: row {number}: expected an id, a split ({', '.join(SPLITS)}) and an "
                f"emotion ({', '.join(labels.EMOTIONS)}), found {row['id']!r}, {row['split']!r}, "
                f"{row['emotion']!r}. {repair}"
            )
        if not PHASH.fullmatch(row.get("phash", "")):
            raise DataError(
                f"{path}: row {number}: expected a phash of 32 hex digits or none, found "
                f"{row['phash']!r}. {repair}"
            )
        entries.append(Entry(**{name: row.get(name, "") for name in (*COLUMNS, *LATER)}))
    return entries
