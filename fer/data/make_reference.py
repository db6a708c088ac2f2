"""``python -m fer.data.make_reference FOLDER NAME [--table ROWS.csv]``: ``references/NAME.npz``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fer.core.errors import DataError
from fer.core.files import write_atomic
from fer.data.audit.appearance import LOOKS, measure, working_side
from fer.data.audit.reference import UNKNOWN_PIXELS, Reference
from fer.data.manifest import Entry
from fer.data.prepared import load

BY_SIGHT = {
    # Equal, pixel for pixel, to the member of another row to which FER+ gives the same image name.
    "5348": "train/sad/Training_91676721.jpg",
    "8423": "train/angry/Training_98013078.jpg",
    # One of three nearly equal pictures; FER+'s votes for it are those for one of the others.
    "25269": "train/angry/Training_20946656.jpg",
    # Not certain: among the members that are left, faces that FER+'s votes may be for.
    "5274": "train/neutral/Training_13601251.jpg",
    "33200": "test/sad/PrivateTest_24153381.jpg",
}
"""Rows of FER2013's table, and members of its image archive, that were paired by looking at them:
the original pixels of these rows are not at hand, and FER+'s annotators saw a face. Which of the
other 173 rows without pixels is which member makes no difference: FER+ has no face in any."""


def main() -> None:
    """Measure every image of a prepared dataset that is known to be the reference copy."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="a prepared dataset that is the reference copy")
    parser.add_argument("name", help="of the dataset")
    parser.add_argument(
        "--table",
        type=Path,
        help="rows of the authors' table, of which the copy is an encoding: row,usage,member,sha256"
        " (of the row's pixels); rows and members that nobody paired stand alone",
    )
    arguments = parser.parse_args()
    prepared = load(arguments.folder)
    if prepared.integrity["matches_official_counts"] is not True:
        raise DataError(
            f"{arguments.folder}: expected the official number of images, found another. Prepare "
            "the reference copy first."
        )
    side = working_side(prepared.integrity["expected_size"])
    images = map(prepared.read, range(len(prepared.entries)))
    looks = np.array([measure(image, side) for image in images], LOOKS)
    made = Reference.of(prepared.entries, looks)
    if arguments.table is not None:
        with arguments.table.open(newline="") as file:
            pairs = pair_rows(list(csv.DictReader(file)))
        made = Reference.of(prepared.entries, looks, *place_rows(pairs, prepared.entries))
    path = Path(__file__).parent / "audit" / "references" / f"{arguments.name}.npz"
    write_atomic(path, lambda file: np.savez_compressed(file, **made.arrays))
    print(f"{path}: {len(made.cells):,} images, {path.stat().st_size:,} bytes")


def pair_rows(table: Sequence[Mapping[str, str]]) -> dict[str, tuple[int, int]]:
    """Row and checksum of the original pixels for each member of the archive.

    What nobody paired is paired within its usage: by :data:`BY_SIGHT`, else in order, and its
    original pixels are unknown.

    >>> left = {"usage": "Training", "sha256": ""}
    >>> table = [{"row": "0", "member": "a", "usage": "Training", "sha256": "0000000fab"}]
    >>> pair_rows([*table, {"row": "1", "member": "", **left}, {"row": "", "member": "b", **left}])
    {'a': (0, 15), 'b': (1, 0)}
    """
    pairs = {
        one["member"]: (int(one["row"]), int(one["sha256"][:8], 16))
        for one in table
        if one["row"] and one["member"]
    }
    alone = [one for one in table if not one["member"]]
    spare = {one["member"]: one["usage"] for one in table if not one["row"]}
    for one in sorted(alone, key=lambda one: one["row"] not in BY_SIGHT):
        chosen = BY_SIGHT.get(one["row"]) or next(
            name for name, usage in spare.items() if usage == one["usage"]
        )
        del spare[chosen]
        pairs[chosen] = (int(one["row"]), UNKNOWN_PIXELS)
    return pairs


def place_rows(
    pairs: Mapping[str, tuple[int, int]], entries: Sequence[Entry]
) -> tuple[np.ndarray, np.ndarray]:
    """``(N,)`` uint32 checksums of the originals and ``(N,)`` uint16 rows of the table."""
    found = [pairs[entry.source] for entry in entries]
    return (
        np.array([checksum for _, checksum in found], np.uint32),
        np.array([row for row, _ in found], np.uint16),
    )


if __name__ == "__main__":
    main()
