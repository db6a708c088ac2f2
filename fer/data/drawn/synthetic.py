"""The embedded datasets: drawn faces in the raw formats of FER2013 and RAF-DB.

They let everything run with no download. Scores on drawings say nothing about human faces.
"""

from __future__ import annotations

import math
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from fer.core.files import HALF, write_atomic
from fer.core.labels import EMOTIONS
from fer.core.options import SEED, check_value, one_of, whole
from fer.core.processes import cpu_count, worker_pool
from fer.core.progress import Progress
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import STYLES
from fer.data.readers import fer2013, rafdb

WEIGHTS: dict[str, dict[str, int]] = {
    "synthetic_a": fer2013.OFFICIAL_COUNTS["train"],
    "synthetic_b": rafdb.OFFICIAL_COUNTS["train"],
}
"""Each domain's class frequencies follow the square root of these counts."""
MOST = 1_000_000
"""Images of a split: to draw them takes a core a quarter of an hour."""
SPLIT_CODES = {"train": 0, "val": 1, "test": 2}
USAGES = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
CHUNK = 32


def generate(
    name: str,
    folder: Path,
    *,
    train: int,
    val: int,
    test: int,
    seed: int,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Draw a dataset and write it in the raw form of the real one.

    Image i of a split depends on (name, seed, split, i) alone, and its emotion on i: neither the
    number of workers nor the size of a split matters.

    Args:
        name: ``synthetic_a`` for FER2013's image archive (``folder/archive.zip``), ``synthetic_b``
            for the tree of RAF-DB's authors (``folder/basic``), where val is part of train.
        folder: where to write.
        train, val, test: images in each split, from seven to :data:`MOST`.
        seed: another seed draws other people.
        workers: processes; None takes every core.
        progress: called now and then.

    Raises:
        ConfigError: an argument is none of these.
    """
    check_value("dataset.generator.name", name, one_of(*STYLES))
    sizes = {"train": train, "val": val, "test": test}
    for split, count in sizes.items():
        check_value(f"dataset.generator.{split}", count, whole(len(EMOTIONS), MOST))
    check_value("dataset.generator.seed", seed, SEED)
    tasks = [
        Task(name, seed, split, index, emotion)
        for split, count in sizes.items()
        for index, emotion in enumerate(class_sequence(count, WEIGHTS[name]))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw_all(tasks, workers, progress)
    if name == "synthetic_a":
        return write_archive(folder / "archive.zip", drawn)
    return write_tree(folder / "basic", drawn, train)


def class_sequence(total: int, counts: Mapping[str, int]) -> list[str]:
    """The emotion of each image of a split: every class, near the square roots of ``counts``.

    The roots keep the imbalance of the real data and still leave the rare classes enough images.
    After one image of each class, each next one goes to the class that is furthest behind its
    share (Sainte-Laguë's method), so that a larger split begins like a smaller one.

    >>> class_sequence(9, dict(zip(EMOTIONS, (1, 1, 1, 900, 1, 1, 1))))[7:]
    ['happy', 'happy']
    """
    weights = np.sqrt([counts[emotion] for emotion in EMOTIONS])
    sequence = list(range(min(total, len(EMOTIONS))))
    given = np.bincount(sequence, minlength=len(EMOTIONS))
    while len(sequence) < total:
        following = int(np.argmax(weights / (2 * given + 1)))
        given[following] += 1
        sequence.append(following)
    return [EMOTIONS[index] for index in sequence]


@dataclass(frozen=True)
class Task:
    """One image to draw."""

    name: str
    seed: int
    split: str
    index: int
    emotion: str


@dataclass(frozen=True)
class Drawn:
    """A task done: the encoded image and the face's annotation."""

    task: Task
    jpeg: bytes
    landmarks: tuple[tuple[float, float], ...]
    attributes: dict[str, int]


def draw_task(task: Task) -> Drawn:
    """Draw and encode one image; runs in a worker process."""
    entropy = [list(STYLES).index(task.name), task.seed, SPLIT_CODES[task.split], task.index]
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    face = draw_face(task.emotion, STYLES[task.name], rng)
    pixels = face.image if face.image.ndim == 2 else cv2.cvtColor(face.image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return Drawn(task, data.tobytes(), face.landmarks, face.attributes)


def draw_all(tasks: list[Task], workers: int | None, progress: Progress | None) -> Iterator[Drawn]:
    """The tasks' images in the tasks' order."""
    count = min(workers or cpu_count(), math.ceil(len(tasks) / CHUNK))
    with worker_pool(count) if count > 1 else nullcontext() as pool:
        drawn = pool.map(draw_task, tasks, chunksize=CHUNK) if pool else map(draw_task, tasks)
        for done, item in enumerate(drawn, start=1):
            yield item
            if progress is not None and (done % CHUNK == 0 or done == len(tasks)):
                progress(done, len(tasks))


def write_archive(path: Path, drawn: Iterator[Drawn]) -> Path:
    """FER2013's image archive. Members have one fixed time, so that the bytes are reproducible."""

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for item in drawn:
                task = item.task
                folder = "train" if task.split == "train" else "test"
                name = f"{folder}/{task.emotion}/{USAGES[task.split]}_{task.index}.jpg"
                archive.writestr(zipfile.ZipInfo(name), item.jpeg)  # dated 1980-01-01

    return write_atomic(path, write)


def write_tree(path: Path, drawn: Iterator[Drawn], train: int) -> Path:
    """RAF-DB's tree as its authors distribute it, without the original photographs.

    ``train`` is the number of train images: those of the val images continue theirs.
    """
    codes = {emotion: code for code, emotion in rafdb.CODES.items()}
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", suffix=HALF, dir=path.parent, ignore_cleanup_errors=True
    ) as temporary:
        tree, replaced = Path(temporary) / "new", Path(temporary) / "old"
        parts = (rafdb.ALIGNED, rafdb.BOXES, rafdb.MANUAL, rafdb.LIST_FILE)
        aligned, boxes, manual, label_file = (tree / part for part in parts)
        for folder in (aligned, boxes, manual, label_file.parent):
            folder.mkdir(parents=True)
        lines = []
        for item in drawn:
            task = item.task
            number = task.index + 1 + (train if task.split == "val" else 0)
            stem = f"test_{number:04d}" if task.split == "test" else f"train_{number:05d}"
            lines.append(f"{stem}.jpg {codes[task.emotion]}\n")
            (aligned / f"{stem}_aligned.jpg").write_bytes(item.jpeg)
            side = float(STYLES[task.name].size)
            # Bytes, not text: the same line ends on every system.
            (boxes / f"{stem}_boundingbox.txt").write_bytes(f"0.0 0.0 {side} {side}\n".encode())
            rows = [f"{x:.2f} {y:.2f}\n" for x, y in item.landmarks]
            rows += [f"{item.attributes[key]}\n" for key in ("gender", "race", "age")]
            (manual / f"{stem}_manu_attri.txt").write_bytes("".join(rows).encode())
        label_file.write_bytes("".join(lines).encode())
        if path.exists():
            path.replace(replaced)
        tree.replace(path)
    return path
