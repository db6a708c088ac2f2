"""From raw images to the PNG files of a prepared folder, on all cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fer.core.errors import DataError
from fer.core.processes import cpu_count, worker_pool
from fer.core.progress import Progress
from fer.core.words import how_many
from fer.data.audit.appearance import LOOKS, hex_hash, measure
from fer.data.detection import FaceDetector, cut_out
from fer.data.images import encode_png
from fer.data.manifest import Entry, pixel_hash
from fer.data.readers.base import SPLITS, Record, Source

CHUNK = 256
SMALL = 4_000
"""Up to this many images, starting worker processes takes longer than they save."""
FEW = 500
"""The same where faces are cut out."""
UNREADABLE = "they could not be read"


@dataclass(frozen=True)
class Failure:
    """An image that does not decode."""

    source: str
    error: str


@dataclass(frozen=True)
class Converted:
    """Images that were written, how they look, and what does not decode."""

    entries: list[Entry]
    looks: np.ndarray
    failures: list[Failure]
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Why images have no face to cut out, in words, and their split: how many there are."""
    several: int = 0
    """Images in which more than one face was found."""

    @property
    def faceless(self) -> dict[str, dict[str, int]]:
        """Why images have no face to cut out, in words, and how many of each split."""
        return {
            why: {split: self.left_out[why, split] for split in SPLITS}
            for why, _ in sorted(self.left_out)
        }


def convert(
    source: Source,
    records: Sequence[Record],
    folder: Path,
    side: int,
    workers: int | None,
    progress: Progress,
    *,
    cut: bool = False,
) -> Converted:
    """Decode the images of some records and write them as PNG files into ``folder``, which has a
    folder for each emotion of each split. Appearances are measured at ``side`` pixels.

    With ``cut`` only the largest face of each is written.
    """
    chunks = [records[i : i + CHUNK] for i in range(0, len(records), CHUNK)]
    jobs = ((source, chunk, folder, side, cut) for chunk in chunks)
    done: list[Converted] = []
    entries: list[Entry] = []
    failures: list[Failure] = []
    left_out: Counter[tuple[str, str]] = Counter()
    with pool(workers, len(records), FEW if cut else SMALL) as executor:
        for part in executor.map(_convert, jobs) if executor else map(_convert, jobs):
            done.append(part)
            entries += part.entries
            failures += part.failures
            left_out += part.left_out
            progress(len(entries) + len(failures) + left_out.total(), len(records))
    looks = np.concatenate([part.looks for part in done])
    return Converted(entries, looks, failures, left_out, sum(part.several for part in done))


def _convert(job: tuple[Source, Sequence[Record], Path, int, bool]) -> Converted:
    """Convert some records. Runs in a worker process."""
    source, records, folder, side, cut = job
    entries, appearances, failures = [], [], []
    left_out: Counter[tuple[str, str]] = Counter()
    several = 0
    detector = FaceDetector() if cut else None
    for record in records:
        try:
            image = source.read(record)
        except DataError as error:
            failures.append(Failure(record.source, str(error)))
            continue
        if detector is not None:
            face, why, faces = cut_out(image, detector)
            several += faces > 1
            if face is None:
                left_out[why, record.split] += 1
                continue
            image = face
        looks = measure(image, side)
        entry = Entry(
            record.id,
            record.emotion,
            record.split,
            record.source,
            pixel_hash(image),
            record.gender,
            record.race,
            record.age,
            hex_hash(looks),
            record.person,
        )
        (folder / entry.file).write_bytes(encode_png(image))
        entries.append(entry)
        appearances.append(looks)
    return Converted(entries, np.array(appearances, LOOKS), failures, left_out, several)


def undecodable_error(failures: Sequence[Failure], images: int) -> DataError:
    """The error for images that do not decode."""
    found = "\n".join(failure.error for failure in failures[:3])
    if len(failures) > 1:
        found = (
            f"Expected {images:,} images that decode, found {len(failures):,} that do not. "
            f"The first of them:\n{found}"
        )
    return DataError(f"{found}\nTo leave out what does not decode: dataset.undecodable=drop")


def describe_excluded(excluded: Mapping[str, int]) -> list[str]:
    """One line for each reason for which images of the copy were left out."""
    return [
        f"Left out because {why}: {how_many(count, 'image')}."
        for why, count in excluded.items()
        if count
    ]


def add_splits(left_out: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """How many images were left out for each reason, of all splits."""
    return {why: sum(counts.values()) for why, counts in left_out.items()}


def describe_left_out(left_out: Mapping[str, Mapping[str, int]]) -> list[str]:
    """One line for each reason for which images of some splits were left out."""
    lines = []
    for why, counts in left_out.items():
        if not any(counts.values()):
            continue
        found = ", ".join(f"{n:,} of {split}" for split, n in counts.items())
        protocol = " The test split is then not the official one." if counts.get("test") else ""
        lines.append(f"Left out because {why}: {found}.{protocol}")
    return lines


@contextmanager
def pool(workers: int | None, images: int, small: int = SMALL) -> Iterator[Executor | None]:
    """Worker processes for ``images`` images, or None where this process does it as fast."""
    count = workers or cpu_count()
    if count == 1 or images <= small:
        yield None
        return
    with worker_pool(count, one_thread) as executor:
        yield executor


def one_thread() -> None:
    """Let OpenCV compute in one thread: a process a core is enough."""
    cv2.setNumThreads(1)
