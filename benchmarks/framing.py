"""How FER2013 frames a face, and how a face that is found and cut out is framed.

    python benchmarks/framing.py archive.zip [MORE]

looks for the face in each of FER2013's test images (any form that ``dataset=fer2013`` takes) and
says where its box lies: how often one is found, the ratio of the image's side to the longer side
of YuNet's box, and how far the image's centre is from the box's, in sides of the box. The rule of
``fer/data/detection.py``, the box's centre and its longer side, frames a face in the same way if
that ratio is 1 and the distance 0.

``MORE``, class folders (or their zip) of pictures with faces that are not cropped, is cut out by
that rule, shrunk to FER2013's 48 pixels and looked at again: here the detector sees no more of a
face's surroundings than in FER2013, so that these figures may stand beside those above.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fer.data.detection import Face, FaceDetector, cut_out
from fer.data.images import to_input
from fer.data.readers.base import Reader
from fer.data.readers.fer2013 import FER2013Reader
from fer.data.readers.folder import FolderReader

SIDE = 48


def read(reader: Reader, raw: Path, split: str | None, step: int) -> Iterator[np.ndarray]:
    """Every ``step``-th image of a split, or of all."""
    dataset = reader.list(raw)
    records = [record for record in dataset.records if split in (None, record.split)]
    yield from (dataset.source.read(record) for record in records[::step])


def measure(images: Iterable[np.ndarray], detector: FaceDetector) -> str:
    """Where the surest face lies in images of :data:`SIDE` pixels, in words."""
    found: list[Face] = []
    looked_at = 0
    for image in images:
        looked_at += 1
        found += detector.search(to_input(image, SIDE, 1)[..., 0])[:1]
    if not found:
        return f"0 of {looked_at:,} images"
    x, y, side, _ = np.array(found).T
    ratio = np.quantile(SIDE / side, [0.25, 0.5, 0.75])
    across, down = ((SIDE / 2 - (low + side / 2)) / side for low in (x, y))
    return (
        f"{len(found):,} of {looked_at:,} images; box {np.median(side):.1f} of {SIDE} pixels, "
        f"image / box {ratio[1]:.3f} (quartiles {ratio[0]:.3f} to {ratio[2]:.3f}); centre of the "
        f"image beside the box's: {np.median(across):+.3f} across, {np.median(down):+.3f} down"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fer2013", type=Path)
    parser.add_argument("more", type=Path, nargs="?")
    parser.add_argument("--column", help="the column of MORE's table that has the emotion")
    parser.add_argument("--step", type=int, default=1, help="look at every n-th image alone")
    options = parser.parse_args()
    detector = FaceDetector()
    print(
        "FER2013:", measure(read(FER2013Reader(), options.fer2013, "test", options.step), detector)
    )
    if options.more is not None:
        columns = {"label": options.column} if options.column else None
        reader = FolderReader(drop_unknown=True, columns=columns)
        pictures = read(reader, options.more, None, options.step)
        cut = (cut_out(picture, detector)[0] for picture in pictures)
        print("cut out:", measure((face for face in cut if face is not None), detector))
    return 0


if __name__ == "__main__":
    sys.exit(main())
