"""RAF-DB's annotation files: boxes, landmarks and attributes, a file for each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fer.core.errors import DataError
from fer.data.readers.names import safe_id
from fer.data.readers.sources import list_files, read_text

ATTRIBUTES = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
"""Meanings of the attributes' codes from 0, as the readme defines them; ages are in years."""
BOX = "a bounding box in pixels (x1 y1 x2 y2, with x1 < x2 and y1 < y2)"
NOTES = "x and y of five landmarks and a code each for " + ", ".join(
    f"{name} (0 to {len(meanings) - 1})" for name, meanings in ATTRIBUTES.items()
)


def index_files(root: Path, folder: str) -> dict[str, str]:
    """Files below ``root/folder``, as paths below ``root``, by their name without suffix, as an
    id; nothing if the folder is not there."""
    names = list_files(root / folder) if (root / folder).is_dir() else []
    return {safe_id(PurePosixPath(name).stem): f"{folder}/{name}" for name in reversed(names)}


def find_each(
    files: Mapping[str, str],
    folder: Path,
    ending: str,
    stems: Sequence[str],
    otherwise: str = "",
) -> dict[str, str]:
    """The file of each image among ``files`` of a folder: its name is the image's and ``ending``.

    Raises:
        DataError: one is missing, and ``otherwise`` says what else to do.
    """
    ids = {stem: safe_id(stem + ending) for stem in stems}
    missing = [stem for stem, name in ids.items() if name not in files]
    if missing and otherwise:
        raise DataError(
            f"{folder}: expected a file for each image, found no {missing[0]}{ending} "
            f"({len(missing):,} of {len(stems):,} files are missing). Unpack {folder.name}.zip "
            f"there completely, or {otherwise}"
        )
    return {stem: files[name] for stem, name in ids.items() if name in files}


def read_numbers(path: Path, what: str, fits: Callable[[list[float]], bool]) -> list[float]:
    """The finite numbers in a file.

    Raises:
        DataError: it holds anything else, or they do not fit ``what``.
    """
    text = read_text(path, what)
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = []
    if not all(map(math.isfinite, numbers)) or not fits(numbers):
        raise DataError(
            f"{path}: expected {what}, found {' '.join(text.split())[:120]!r}. Correct the file, "
            "or obtain it again."
        )
    return numbers


def read_boxes(root: Path, folder: str, stems: Sequence[str]) -> dict[str, tuple[str | float, ...]]:
    """File below ``root``, x1, y1, x2 and y2 in pixels of each image's bounding box.

    Raises:
        DataError: a file is missing, or holds no box.
    """
    otherwise = "read aligned images: dataset.reader.images=aligned"

    def is_box(numbers: list[float]) -> bool:
        return len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]

    indexed = index_files(root, folder)
    files = find_each(indexed, root / folder, "_boundingbox", stems, otherwise)
    return {stem: (file, *read_numbers(root / file, BOX, is_box)) for stem, file in files.items()}


@dataclass(frozen=True)
class Notes:
    """What the annotators noted on an image."""

    file: str = ""
    """Below the root."""
    landmarks: Sequence[float] = ()
    """x and y of the eyes, the tip of the nose and the mouth's corners, in pixels."""
    attributes: Sequence[str] = ("", "", "")
    """Gender, race and age in words."""


def read_notes(
    root: Path, folder: str, stems: Sequence[str], *, strict: bool
) -> tuple[dict[str, Notes], list[str]]:
    """The annotators' notes on each image, and warnings.

    Attributes are a help, not a condition: an image whose file is missing or malformed is kept
    without them, and a warning says how many there are.

    Raises:
        DataError: a file is missing or malformed, and ``strict``, since the landmarks are needed.
    """
    otherwise = "cut out boxes: dataset.reader.align_eyes=false" if strict else ""

    def are_notes(numbers: list[float]) -> bool:
        codes = zip(ATTRIBUTES.values(), numbers[10:], strict=False)
        return len(numbers) == 13 and all(code in range(len(words)) for words, code in codes)

    files = find_each(index_files(root, folder), root / folder, "_manu_attri", stems, otherwise)
    notes: dict[str, Notes] = {}
    first = ""
    for stem, file in files.items():
        try:
            numbers = read_numbers(root / file, NOTES, are_notes)
        except DataError as error:
            if strict:
                raise
            first = first or f"{error}"
            continue
        codes = zip(ATTRIBUTES.values(), numbers[10:], strict=True)
        notes[stem] = Notes(file, numbers[:10], [words[int(code)] for words, code in codes])
    if not files or len(notes) == len(stems):
        return notes, []
    without = len(stems) - len(notes)
    return notes, [
        f"{without:,} of {len(stems):,} images have no file in {folder}/ that can be used: their "
        f"gender, race and age stay empty. {first}".rstrip()
    ]
