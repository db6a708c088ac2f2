"""``python -m fer.data.make_reference FOLDER NAME``: write ``references/NAME.npz``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fer.core.errors import DataError
from fer.core.files import write_atomic
from fer.data.audit.appearance import LOOKS, measure, working_side
from fer.data.audit.reference import Reference
from fer.data.prepared import load


def main() -> None:
    """Measure every image of a prepared dataset that is known to be the reference copy."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="a prepared dataset that is the reference copy")
    parser.add_argument("name", help="of the dataset")
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
    path = Path(__file__).parent / "audit" / "references" / f"{arguments.name}.npz"
    write_atomic(path, lambda file: np.savez_compressed(file, **made.arrays))
    print(f"{path}: {len(made.cells):,} images, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
