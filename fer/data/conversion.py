"""From raw images to the PNG files of a prepared folder, on all cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fer.core.errors import DataError
from fer.core.processes import cpu_count, worker_pool
from fer.core.progress import Progress
from fer.data.audit.appearance import LOOKS, hex_hash, measure
from fer.data.images import encode_png
from fer.data.manifest import Entry, pixel_hash
from fer.data.readers.base import Record, Source

CHUNK = 256
SMALL = 4_000
"""Up to this many images, starting worker processes takes longer than they save."""


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


def convert(
    source: Source,
    records: Sequence[Record],
    folder: Path,
    side: int,
    workers: int | None,
    progress: Progress,
) -> Converted:
    """Decode the images of some records and write them as PNG files into ``folder``, which has a
    folder for each emotion of each split. Appearances are measured at ``side`` pixels.
    """
    chunks = [records[i : i + CHUNK] for i in range(0, len(records), CHUNK)]
    jobs = ((source, chunk, folder, side) for chunk in chunks)
    done: list[Converted] = []
    entries: list[Entry] = []
    failures: list[Failure] = []
    with pool(workers, len(records)) as executor:
        for part in executor.map(_convert, jobs) if executor else map(_convert, jobs):
            done.append(part)
            entries += part.entries
            failures += part.failures
            progress(len(entries) + len(failures), len(records))
    return Converted(entries, np.concatenate([part.looks for part in done]), failures)


def _convert(job: tuple[Source, Sequence[Record], Path, int]) -> Converted:
    """Convert some records. Runs in a worker process."""
    source, records, folder, side = job
    entries, appearances, failures = [], [], []
    for record in records:
        try:
            image = source.read(record)
        except DataError as error:
            failures.append(Failure(record.source, str(error)))
            continue
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
    return Converted(entries, np.array(appearances, LOOKS), failures)


@contextmanager
def pool(workers: int | None, images: int) -> Iterator[Executor | None]:
    """Worker processes for ``images`` images, or None where this process does it as fast."""
    count = workers or cpu_count()
    if count == 1 or images <= SMALL:
        yield None
        return
    with worker_pool(count, one_thread) as executor:
        yield executor


def one_thread() -> None:
    """Let OpenCV compute in one thread: a process a core is enough."""
    cv2.setNumThreads(1)
