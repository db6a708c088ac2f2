"""RAF-DB's annotation files: boxes, landmarks and attributes, a file for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fer.core.errors import DataError
from fer.data.readers.names import safe_id
from fer.data.readers.originals import CORRECT
from fer.data.readers.sources import list_files, read_text

ATTRIBUTES = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
"""Meanings of the attributes' codes from 0, as the readme defines them; ages are in years."""


def contents(folder: Path) -> str:
    """The first names in a folder, in words."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) + more) or "an empty folder"


def packed(root: Path, folder: str) -> str:
    """A remark if the archive of ``folder`` still lies beside it."""
    place = root / folder
    archives = sorted(place.parent.glob(f"{place.name}.*"))
    return f" (but {archives[0].name} beside it)" if archives else ""


def among(some: Sequence[object], every: Sequence[object], what: str) -> str:
    """``" (3 of 70 listed images are missing)"``, or nothing if it is one."""
    return f" ({len(some):,} of {len(every):,} {what})" if len(some) > 1 else ""


def index_files(root: Path, folder: str) -> dict[str, list[str]]:
    """Files below ``root/folder``, as paths below ``root``, by their name without suffix, as an
    id; nothing if the folder is not there."""
    found: dict[str, list[str]] = {}
    if (root / folder).is_dir():
        for name in list_files(root / folder):
            found.setdefault(safe_id(PurePosixPath(name).stem), []).append(f"{folder}/{name}")
    return found


def find_annotations(
    root: Path, folder: str, ending: str, stems: Sequence[str], *, advice: str = ""
) -> dict[str, str]:
    """The annotation file of each image, as a path below ``root``.

    Raises:
        DataError: one is missing, and ``advice`` says what else to do.
    """
    files = index_files(root, folder)
    found = {
        stem: files[safe_id(stem + ending)][0] for stem in stems if safe_id(stem + ending) in files
    }
    missing = [stem for stem in stems if stem not in found]
    if missing and advice:
        raise DataError(
            f"{root / folder}: expected a file for each original image, found no "
            f"{missing[0]}{ending}.txt{among(missing, stems, 'files are missing')}"
            f"{packed(root, folder)}. Unpack {PurePosixPath(folder).name}.zip there completely, "
            f"or {advice}"
        )
    return found


def read_coordinates(path: Path, words: Sequence[str]) -> list[float]:
    """Finite numbers.

    Raises:
        DataError: a word is not a finite number.
    """
    numbers = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise DataError(
                f"{path}: expected coordinates in pixels, found {word[:40]!r}. {CORRECT}"
            )
    return numbers


def read_boxes(root: Path, folder: str, stems: Sequence[str]) -> dict[str, tuple[str | float, ...]]:
    """File below ``root``, x1, y1, x2 and y2 in pixels of each image's bounding box.

    Raises:
        DataError: a file is missing, or holds no box.
    """
    advice = "read the aligned images: dataset.reader.images=aligned"
    files = find_annotations(root, folder, "_boundingbox", stems, advice=advice)
    boxes: dict[str, tuple[str | float, ...]] = {}
    for stem, file in files.items():
        words = read_text(root / file, "a bounding box").split()
        if len(words) != 4:
            raise DataError(
                f"{root / file}: expected four numbers (x1 y1 x2 y2), found {len(words)}. {CORRECT}"
            )
        x1, y1, x2, y2 = read_coordinates(root / file, words)
        if x1 >= x2 or y1 >= y2:
            raise DataError(
                f"{root / file}: expected a box with x1 < x2 and y1 < y2, found an empty one: "
                f"{' '.join(words)}. {CORRECT}"
            )
        boxes[stem] = (file, x1, y1, x2, y2)
    return boxes


Manual = tuple[str, Sequence[float], Sequence[str]]
"""File below the root; x and y of five landmarks; gender, race and age in words."""


def read_manual(
    root: Path, folder: str, stems: Sequence[str], *, strict: bool
) -> tuple[dict[str, Manual], list[str]]:
    """Read the annotators' notes on each image; returns warnings too.

    Attributes are a help, not a condition: an image whose file is missing or malformed is kept
    without them, and the warnings say how many there are.

    Raises:
        DataError: a file is missing or malformed, and ``strict``, since the landmarks are needed.
    """
    advice = "cut out the bounding boxes: dataset.reader.align_eyes=false" if strict else ""
    files = find_annotations(root, folder, "_manu_attri", stems, advice=advice)
    manual: dict[str, Manual] = {}
    malformed: list[DataError] = []
    for stem, file in files.items():
        try:
            manual[stem] = (file, *read_manual_file(root / file))
        except DataError as error:
            if strict:
                raise
            malformed.append(error)
    warnings = []
    missing = [stem for stem in stems if stem not in files]
    if missing and files:
        warnings.append(
            f"{len(missing):,} of {len(stems):,} images have no file in {folder}/ (the first: "
            f"{missing[0]}_manu_attri.txt); their gender, race and age stay empty."
        )
    if malformed:
        warnings.append(
            f"{len(malformed):,} of {len(stems):,} files in {folder}/ were not used, and the "
            f"gender, race and age of their images stay empty. The first: {malformed[0]}"
        )
    return manual, warnings


def read_manual_file(path: Path) -> tuple[list[float], list[str]]:
    """Landmarks (x, y of five points) and gender, race, age of one image.

    Raises:
        DataError: the file is malformed.
    """
    words = read_text(path, "landmarks and attributes").split()
    if len(words) != 13:
        raise DataError(
            f"{path}: expected 13 numbers (five landmarks, gender, race, age), found {len(words)}. "
            f"{CORRECT}"
        )
    attributes = []
    for (name, meanings), word in zip(ATTRIBUTES.items(), words[10:], strict=True):
        codes = {str(code): meaning for code, meaning in enumerate(meanings)}
        if word not in codes:
            raise DataError(
                f"{path}: expected a code from 0 to {len(codes) - 1} for {name}, found "
                f"{word[:40]!r}. {CORRECT}"
            )
        attributes.append(codes[word])
    return read_coordinates(path, words[:10]), attributes
