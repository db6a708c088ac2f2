"""The prepared images of one split in memory, fetched a whole batch at a time."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import remove_leftovers, write_atomic
from fer.core.progress import progress_bar
from fer.data.augmentation import Augmentation
from fer.data.images import to_input
from fer.data.manifest import ATTRIBUTES, COLUMNS, pixel_hash
from fer.data.prepared import CACHE, Prepared, lock

log = logging.getLogger(__name__)

SMALL = 64 * 2**20
"""Bytes for which nobody asks whether there is room."""
Batch = tuple[torch.Tensor, torch.Tensor]
"""Images ``(N, C, H, W)`` uint8 and targets ``(N,)`` int64, or ``(N, 7)`` float32 shares."""


class Draw(NamedTuple):
    """An image and the epoch in which it is drawn: what the augmentation depends on."""

    row: int
    epoch: int


class EmotionDataset(Dataset[tuple[torch.Tensor, int]]):
    """One split: uint8 images, in memory or mapped into it, with their targets.

    Args:
        images: ``(M, H, W, C)`` uint8; may be memory-mapped.
        targets: ``(N,)`` int64, in the order of :data:`fer.core.labels.EMOTIONS`.
        ids: of the images, N strings.
        augmentation: applied to each image that is fetched; None leaves it as it is.
        rows: ``(N,)`` int64, which of the images are the split's; None: all of them.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        ids: Sequence[str],
        augmentation: Augmentation | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        self.source = images
        self.rows = rows
        self.targets = targets
        self.ids = list(ids)
        self.augmentation = augmentation
        self.answers = targets
        """What a batch has for targets: these, or ``(N, 7)`` float32 shares of votes."""

    def soften(self, shares: np.ndarray) -> None:
        """Give batches the shares of votes ``(N, 7)`` float32 for targets, or emotions ``(N,)``."""
        self.answers = shares

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, items: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """Some images as they are, ``(n, H, W, C)`` uint8; of a slice perhaps a view."""
        return np.asarray(self.source[items if self.rows is None else self.rows[items]])

    @property
    def images(self) -> np.ndarray:
        """All images, ``(N, H, W, C)`` uint8; a copy where ``rows`` chooses some."""
        return self.source if self.rows is None else self.read(slice(None))

    def __getitem__(self, item: int | Draw) -> tuple[torch.Tensor, int]:
        """Image ``(C, H, W)`` uint8 and target of one item."""
        images, _ = self.__getitems__([item])
        return images[0], int(self.targets[item.row if isinstance(item, Draw) else item])

    def __getitems__(self, items: Sequence[int | Draw]) -> Batch:
        """A whole batch, for a data loader with :func:`identity_collate` as ``collate_fn``."""
        draws = [item if isinstance(item, Draw) else Draw(int(item), 0) for item in items]
        rows = [draw.row for draw in draws]
        images = self.read(rows)  # (N, H, W, C), a copy
        if self.augmentation is not None:
            for i, draw in enumerate(draws):
                images[i] = self.augmentation(images[i], epoch=draw.epoch, index=draw.row)
        # Seen as (N, C, H, W), the memory stays channels-last, which the network wants.
        return (
            torch.from_numpy(images).permute(0, 3, 1, 2),
            torch.from_numpy(self.answers[rows]),
        )

    def class_counts(self) -> list[int]:
        """Images per emotion."""
        return np.bincount(self.targets, minlength=labels.NUM_CLASSES).tolist()

    def class_shares(self) -> np.ndarray:
        """``(7,)`` float64: what batches have for targets, as images per emotion."""
        if self.answers.ndim == 2:
            return self.answers.sum(axis=0, dtype=np.float64)
        return np.array(self.class_counts(), np.float64)

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the images per channel, as fractions of 255."""
        _, height, width, channels = self.source.shape
        total, squares = np.zeros(channels), np.zeros(channels)
        for start in range(0, len(self), 1024):  # in parts: float64 is eight times the memory
            part = self.read(slice(start, start + 1024)).astype(np.float64) / 255
            total += part.sum(axis=(0, 1, 2))
            squares += (part**2).sum(axis=(0, 1, 2))
        count = len(self) * height * width
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        # Images that are all equal have no spread; dividing by one leaves them at zero.
        return mean.tolist(), np.where(std > 1e-6, std, 1.0).tolist()


def identity_collate(batch: Any) -> Any:
    """``collate_fn`` of a data set that fetches whole batches."""
    return batch


def own_generator() -> torch.Generator:
    """For a loader to seed its workers from.

    Without one of its own it takes numbers from the global stream, once per epoch without workers
    and once in all with them: the dropout masks, and so the weights, would depend on the workers.
    """
    return torch.Generator().manual_seed(0)


class TrainingLoader(DataLoader[Any]):
    """Training batches; without workers, the images of several are augmented in one go.

    A training step leaves nothing of the augmentation's code and tables in the processor's caches:
    an image after a step takes longer than one after an image (``benchmarks/augmentation.py``).
    The batches are those of a plain data loader.
    """

    AHEAD = 4
    """Batches that are fetched at once."""

    def __iter__(self) -> Any:
        """Images ``(N, C, H, W)`` uint8 and their targets, a batch at a time."""
        return super().__iter__() if self.num_workers else self._fetch()

    def _fetch(self) -> Iterator[Batch]:
        draws = iter(self.sampler)
        size = self.batch_size or 1
        while some := list(itertools.islice(draws, size * self.AHEAD)):
            images, targets = self.dataset.__getitems__(some)  # type: ignore[attr-defined]
            yield from zip(images.split(size), targets.split(size), strict=True)


class EpochSampler(Sampler[Draw]):
    """Every image once per epoch, in an order that depends on seed and epoch alone.

    Of several processes, each takes its part of every batch: together they take in a step what one
    process would. Images that do not fill a batch are left out.

    Args:
        size: number of images.
        seed: of the run.
        batch_size: images of a batch, those of all processes.
        rank: of this process.
        processes: number of them; divides ``batch_size``.
    """

    def __init__(
        self, size: int, seed: int, batch_size: int = 1, rank: int = 0, processes: int = 1
    ) -> None:
        self.size = size
        self.seed = seed
        self.shape = (size // batch_size, processes, batch_size // processes)
        self.rank = rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        batches, _, share = self.shape
        return batches * share

    def rows(self) -> np.ndarray:
        """This process's rows of the epoch in order, ``(n,)`` int64."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        full = order[: np.prod(self.shape)].reshape(self.shape)
        return full[:, self.rank].ravel()

    def __iter__(self) -> Iterator[Draw]:
        # The epoch is held fast: the next one may be set while this one is drawn.
        return map(Draw, self.rows().tolist(), itertools.repeat(self.epoch))


class ShareSampler(Sampler[list[int]]):
    """The rows in order, in batches of which each of several processes takes its part.

    No row is taken twice, and every process has the same number of batches, none of them empty:
    processes that wait for each other in every step all come to the end.

    Args:
        size: number of rows, at least ``processes``.
        batch_size: rows of a batch, those of all processes, at least ``processes``.
        rank: of this process.
        processes: number of them.
    """

    def __init__(self, size: int, batch_size: int, rank: int, processes: int) -> None:
        count = min(-(-size // batch_size), size // processes)
        batches = np.array_split(np.arange(size), count)
        self.shares = [np.array_split(batch, processes)[rank].tolist() for batch in batches]

    def __len__(self) -> int:
        """Batches."""
        return len(self.shares)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.shares)


def load_images(prepared: Prepared, size: int, channels: int) -> np.ndarray:
    """All images of a prepared dataset at the network's input size.

    They are decoded once and kept in ``<dataset>/.cache`` as one array, which later runs map into
    memory. The array's name holds a checksum of the manifest and the size, so that another
    manifest never finds it.

    Returns:
        ``(N, size, size, channels)`` uint8, in the order of the manifest.
    """
    content = hashlib.sha256(f"[{size}, {channels}".encode())
    for entry in prepared.entries:
        row = {name: getattr(entry, name) for name in (*COLUMNS, *ATTRIBUTES)}
        content.update(f", {json.dumps(row)}".encode())
    content.update(b"]")
    key = content.hexdigest()[:16]
    path = prepared.folder / CACHE / f"images-{size}x{size}x{channels}-{key}.npy"
    shape = (len(prepared.entries), size, size, channels)
    images = read_cache(path, shape)
    if images is not None:
        return images
    check_room(prepared.folder, shape)
    if not os.access(prepared.folder, os.W_OK):
        log.warning("%s cannot be written: images are decoded at every start", prepared.folder)
        return decode_all(prepared, size, channels)
    with lock(prepared.folder):  # of several processes one decodes, and the others wait for it
        images = read_cache(path, shape)
        if images is None:
            remove_leftovers(path.parent)
            try:
                write_atomic(path, lambda file: write_images(file, prepared, size, channels))
            except OSError as error:
                log.warning("%s cannot be written: %s. Each start decodes the images", path, error)
                return decode_all(prepared, size, channels)
            remove_stale(path)
            images = np.load(path, mmap_mode="r")
    return images


def check_room(folder: Path, shape: tuple[int, ...]) -> None:
    """Refuse a size at which the images would fill the disk.

    Raises:
        DataError: they would, to more than half of what is free there.
    """
    count, size, _, channels = shape
    needed, free = math.prod(shape), shutil.disk_usage(folder).free
    if needed > max(free // 2, SMALL):
        raise DataError(
            f"model.image_size: expected a size at which the {count:,} images of {folder} leave "
            f"half of the {free / 1e9:.1f} GB there free, found {size} ({channels} channels), "
            f"which needs {needed / 1e9:.1f} GB. Take a network of smaller images, or free space."
        )


def read_cache(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached array mapped into memory, or None if it is not there or damaged."""
    if not path.exists():
        return None
    try:
        images: np.ndarray = np.load(path, mmap_mode="r")
        whole = images.shape == shape and images.dtype == np.uint8
    except (OSError, ValueError, EOFError):
        whole = False
    if not whole:
        log.warning("%s is damaged: it is made again", path)
    return images if whole else None


def write_images(file: BinaryIO, prepared: Prepared, size: int, channels: int) -> None:
    """Write what ``np.save`` writes of :func:`decode_all`, an image at a time.

    Not through a memory map: on a disk that is full, that ends the process instead of raising.
    """
    shape = (len(prepared.entries), size, size, channels)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for image in decode_images(prepared, size, channels):
        file.write(image.tobytes())


def decode_all(prepared: Prepared, size: int, channels: int) -> np.ndarray:
    """Every image in memory: ``(N, size, size, channels)`` uint8."""
    images = np.empty((len(prepared.entries), size, size, channels), dtype=np.uint8)
    for index, image in enumerate(decode_images(prepared, size, channels)):
        images[index] = image
    return images


def decode_images(prepared: Prepared, size: int, channels: int) -> Iterator[np.ndarray]:
    """Decode one image after the other: ``(size, size, channels)`` uint8.

    Raises:
        DataError: an image is not the one that the manifest names.
    """
    with progress_bar(f"Reading {prepared.folder.name}") as progress:
        for index, entry in enumerate(prepared.entries):
            image = prepared.read(index)
            if pixel_hash(image) != entry.sha256:
                raise DataError(
                    f"{prepared.folder / prepared.files[index]}: expected the pixels that "
                    "manifest.csv names, found others: the file was changed after the preparation. "
                    f"Delete {prepared.folder} (but not its raw/ folder) and prepare it again."
                )
            yield to_input(image, size, channels)
            if index % 256 == 0:
                progress(index, len(prepared.entries))


def remove_stale(path: Path) -> None:
    """Delete cached arrays of the same shape that belong to another manifest."""
    shape = path.name.rsplit("-", 1)[0]
    for other in path.parent.glob(f"{shape}-*.npy"):
        if other != path:
            other.unlink(missing_ok=True)
