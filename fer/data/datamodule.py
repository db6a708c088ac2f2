"""The Lightning data module: from raw data, or a prepared folder, to data loaders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.hardware import images_at_once
from fer.core.options import SEED, check_value, or_null, whole
from fer.data.audit.integrity import earlier_and_own, exact_leaks, near_leaks
from fer.data.augmentation import Augmentation, load_policy
from fer.data.dataset import (
    EmotionDataset,
    EpochSampler,
    ShareSampler,
    TrainingLoader,
    identity_collate,
    load_images,
    own_generator,
)
from fer.data.device import DeviceDataset, DeviceLoader, fits, move
from fer.data.download import downloader
from fer.data.folds import refold
from fer.data.manifest import ATTRIBUTES, Entry, shares
from fer.data.preparation import Generator, Preparation
from fer.data.prepared import Prepared, Report
from fer.data.readers.base import SPLITS, Reader, check_classes
from fer.data.selection import check_selection, refuse_altered, select

log = logging.getLogger(__name__)

OPTIONS = ("undecodable", "faces", "leaks", "blank", "conflicts", "fold", "accept_altered")
"""Options that decide which images a dataset has."""
CHUNK = 32
"""Batches that are augmented at once on a device."""
WORDS = {"val": "validation", "test": "test"}


class EmotionDataModule(LightningDataModule):
    """A dataset in the one schema, prepared and loaded.

    ``prepare_data`` touches the disk, ``setup`` only reads. Several processes share out the images
    of each batch here, so that their Trainer needs ``use_distributed_sampler=False``.

    Args:
        name: of the dataset.
        folder: where the prepared dataset is or will be; ``folder/raw`` may hold the raw one. None:
            ``<FER_DATA>/<name>``, or ``data/<name>`` without that variable.
        reader: lists the raw data.
        raw: path of the raw data; None looks in ``folder/raw``.
        generator: draws the raw data of an embedded dataset.
        download: whether raw data that is nowhere may be fetched from Kaggle.
        kaggle: the Kaggle dataset to fetch, ``owner/name``; None if none may be.
        workers: processes that preparation uses; None takes every core.
        undecodable: what preparation does with images that do not decode: ``error`` or ``drop``.
        faces: ``crop`` has the largest face of each picture cut out; None: they are cropped faces.
        leaks: training images with an exact copy in val or test: ``keep`` or
            ``drop_from_train``.
        blank: images that show nothing: ``keep`` or ``drop``, from every split.
        conflicts: exact copies that have different emotions: ``keep`` or ``drop``, all of them; for
            a table's rows that disagree, ``FolderReader(conflicts="drop")``.
        fold: such as ``2/5``, for cross-validation: see :mod:`fer.data.folds`. None: the splits as
            they are.
        accept_altered: train on a copy that was found to be altered.
        report: writes figures and a page when the dataset is prepared; None writes neither.
        choice: name of the configuration in ``conf/dataset`` that describes it; None: ``name``.
        image_size: side of the network's input in pixels.
        in_channels: 1 (gray) or 3 (RGB).
        transforms: albumentations transforms for training images, or the name of a policy in
            ``conf/augmentation``. An empty list leaves the images as they are.
        batch_size: images per training step.
        eval_batch_size: images per step of validation, test and prediction; None: 32 on a CPU, 512
            on another device.
        num_workers: processes that augment; 0 does it in the training process.
        on_device: keep training images there and augment whole batches there; None for the CPU.
        chunk: batches that are augmented at once on a device, of which :class:`EmotionModule` takes
            the steps at once; None: 32, or those of an epoch.
        seed: of shuffling and augmentation.

    Raises:
        ConfigError: an option has a value that cannot work.

    >>> import functools, tempfile
    >>> from fer.data.drawn.synthetic import generate
    >>> from fer.data.readers.fer2013 import FER2013Reader
    >>> draw = functools.partial(generate, name="synthetic_a", train=14, val=7, test=7, seed=0)
    >>> folder = tempfile.TemporaryDirectory()
    >>> data = EmotionDataModule("drawn", folder.name, reader=FER2013Reader(), generator=draw)
    >>> data.prepare_data()
    >>> data.setup("test")
    >>> images, targets = next(iter(data.test_dataloader()))
    >>> images.shape, targets.tolist()
    (torch.Size([7, 1, 48, 48]), [0, 1, 2, 3, 6, 4, 5])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        name: str,
        folder: str | Path | None = None,
        *,
        reader: Reader,
        raw: str | Path | None = None,
        generator: Generator | None = None,
        download: bool = False,
        kaggle: str | None = None,
        workers: int | None = None,
        undecodable: str = "error",
        faces: str | None = None,
        leaks: str = "keep",
        blank: str = "keep",
        conflicts: str = "keep",
        fold: str | None = None,
        accept_altered: bool = False,
        report: Report | None = None,
        choice: str | None = None,
        image_size: int = 48,
        in_channels: int = 1,
        transforms: Sequence[Any] | str = "standard",
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        on_device: torch.device | None = None,
        chunk: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if folder is None:
            folder = Path(os.environ.get("FER_DATA") or "data") / str(name)
        fetch = downloader(name, download, kaggle)
        self.preparation = Preparation(
            name, folder, reader, raw, generator, fetch, workers, undecodable, faces, report
        )
        check_selection(leaks, blank, conflicts, accept_altered, fold)
        for key, value, rule in (
            ("loader.batch_size", batch_size, whole(1)),
            ("loader.eval_batch_size", eval_batch_size, or_null(whole(1), "for the usual number")),
            ("loader.num_workers", num_workers, whole(0)),
            ("loader.chunk", 1 if chunk is None else chunk, whole(1)),
            ("seed", seed, SEED),
        ):
            check_value(key, value, rule)
        if on_device is not None and num_workers:
            raise ConfigError(
                "loader.num_workers: expected 0 beside loader.on_device=true, where no process has "
                f"anything to augment, found {num_workers}."
            )
        self.dataset_name, self.folder, self.reader = name, Path(folder), reader
        self.generator, self.choice = generator, choice or name
        self.undecodable, self.faces, self.accept_altered = undecodable, faces, accept_altered
        self.leaks, self.blank, self.conflicts, self.fold = leaks, blank, conflicts, fold
        self.image_size, self.in_channels = image_size, in_channels
        self.transforms = transforms if isinstance(transforms, str) else list(transforms)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or images_at_once(on_device)
        self.num_workers, self.on_device, self.seed = num_workers, on_device, seed
        self.chunk, self.in_chunks = chunk, False
        self.prepared: Prepared
        self._stored: Prepared  # the same with the splits that it has on disk
        self.left_out: dict[str, dict[str, int]] = {}
        """Reasons for which images are left out, in words, with the number of each split."""
        self.rows: dict[str, np.ndarray] = {}  # of the manifest, for each split
        self._nearly_leaked: dict[str, np.ndarray | None] = {}
        self.datasets: dict[str, EmotionDataset] = {}
        self.augmented = False  # whether the training images are set up, and not only loaded

    def prepare_data(self) -> None:
        """Prepare the dataset if it is not prepared, and decode it into the cache."""
        load_images(self.preparation.run(), self.image_size, self.in_channels)

    def setup(self, stage: str | None = None) -> None:
        """Load every split and, for ``fit`` or None, set up augmentation. Safe to call again.

        Raises:
            ConfigError: there is no policy of that name, or it cannot work.
        """
        training = stage in (None, "fit") and not self.augmented
        transforms = self.transforms if training else []
        if isinstance(transforms, str):
            transforms = load_policy(transforms)
        if not self.datasets:
            self._load()
        if training:
            self._augment(transforms)

    def _load(self) -> None:
        """The images of every split as they are."""
        self.prepared = self._stored = self.preparation.run()
        images = load_images(self._stored, self.image_size, self.in_channels)
        if self.fold is not None:
            self.prepared = refold(self._stored, self.fold, self.reader)
        entries = self.prepared.entries
        targets = np.array([labels.INDEX[entry.emotion] for entry in entries], dtype=np.int64)
        chosen, self.left_out = select(
            self.prepared, leaks=self.leaks, blank=self.blank, conflicts=self.conflicts
        )
        self._check_left(chosen)
        for split in SPLITS:
            inside = np.array([entry.split == split for entry in entries])
            self.rows[split] = rows = np.flatnonzero(inside & chosen)
            # Preparation orders the entries by split: those of one lie side by side in the mapping,
            # with those that are left out between them; but for folds.
            first, end = (rows[0], rows[-1] + 1) if len(rows) else (0, 0)
            self.datasets[split] = EmotionDataset(
                images[first:end],
                targets[rows],
                [entries[row].id for row in rows],
                rows=None if end - first == len(rows) else rows - first,
            )

    def _augment(self, transforms: Sequence[Any]) -> None:
        """Training images are augmented from now on, on the device if they are kept there."""
        dataset = self.datasets["train"]
        if self.on_device is not None:
            chunk = (self.chunk or CHUNK) * self.images_of_step()
            images = len(dataset) + len(self.datasets["val"])
            if not fits(self.on_device, (images, *dataset.source.shape[1:]), chunk):
                self.on_device = None
        if self.on_device is not None:
            self.datasets["train"] = DeviceDataset(dataset, transforms, self.on_device)
        elif transforms:
            dataset.augmentation = Augmentation(transforms, self.seed)
        self.augmented = True

    def _check_left(self, chosen: np.ndarray) -> None:
        """Refuse options that leave a class empty."""
        places = [(entry.split, entry.emotion) for entry in self.prepared.entries]
        left = {place for place, keep in zip(places, chosen, strict=True) if keep}
        empty = [f"{e} in {s}" for s, e in dict.fromkeys(places) if (s, e) not in left]
        if empty:
            raise DataError(
                f"{self.dataset_name}: expected images of every emotion in every split, found none "
                f"of {', '.join(empty)} after leaving out what dataset.leaks, dataset.blank and "
                "dataset.conflicts name. Set one of them to keep."
            )

    def soften(self, soft: bool) -> None:
        """Training targets are the shares of the annotators' votes from now on, ``(N, 7)`` float32;
        or, if not ``soft``, emotions ``(N,)`` again.

        Raises:
            ConfigError: training images have no votes.
        """
        dataset = self.datasets["train"]
        if soft:
            dataset.soften(shares(self.entries("train"), self.dataset_name))
        elif dataset.answers is not dataset.targets:
            dataset.soften(dataset.targets)

    def check_accepted(self) -> None:
        """Refuse to train without all splits and emotions, or on an altered copy unless the user
        has accepted it.

        Raises:
            DataError: val, test or an emotion of train has no image, or the copy is altered and
                ``accept_altered`` is not set.
        """
        integrity = self.prepared.integrity
        entries = self.prepared.entries
        check_classes(integrity["source"]["given"]["path"], [(e.split, e.emotion) for e in entries])
        if not self.accept_altered:
            refuse_altered(self.dataset_name, self.folder, integrity)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled, augmented batches. A last batch that is not full is left out.

        Raises:
            DataError: as of :meth:`check_accepted`.
        """
        self.check_accepted()
        dataset = self.datasets["train"]
        rank, processes = self._place()
        batch_size = self.images_of_step()
        sampler = EpochSampler(len(dataset), self.seed, batch_size, rank, processes)
        if self.trainer is not None:
            # Workers ask for their first rows before Lightning names the epoch, which is not the
            # first in a training that goes on.
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(progress.processed)
            self.check_shares(processes)
            repeated = getattr(self.trainer, "overfit_batches", 0)
            if self.on_device is not None and repeated:
                raise ConfigError(
                    "trainer.overfit_batches: expected 0 beside images on the device, found "
                    f"{repeated}. Add loader.on_device=false"
                )
        if isinstance(dataset, DeviceDataset):
            return DeviceLoader(dataset, sampler, batch_size, self._chunk(), self.in_chunks)
        return TrainingLoader(
            dataset,
            batch_size=batch_size // processes,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=own_generator(),
            collate_fn=identity_collate,
        )

    def images_of_step(self) -> int:
        """Images of a training step, those of all processes."""
        return min(self.batch_size, len(self.datasets["train"]))

    def steps_of_epoch(self) -> int:
        """Training steps of an epoch."""
        return len(self.datasets["train"]) // self.images_of_step()

    def _chunk(self) -> int:
        steps = self.steps_of_epoch()
        if self.chunk is not None and self.chunk > steps:
            raise ConfigError(
                f"loader.chunk: expected at most the {steps} steps of an epoch, found "
                f"{self.chunk}. Lower it, or leave it out."
            )
        return self.chunk or min(CHUNK, steps)

    def _place(self) -> tuple[int, int]:
        """Rank of this process, and the number of processes that train.

        Raises:
            ConfigError: Lightning would share out again what is shared out here.
        """
        if self.trainer is None:
            return 0, 1
        connector = self.trainer._accelerator_connector
        if self.trainer.world_size > 1 and connector.use_distributed_sampler:
            raise ConfigError(
                "Trainer: expected use_distributed_sampler=False beside several processes, whose "
                "images the data module shares out, found True. Trainer(…, "
                "use_distributed_sampler=False)"
            )
        return self.trainer.global_rank, self.trainer.world_size

    def check_shares(self, processes: int) -> None:
        """Refuse what cannot be shared out among processes.

        Raises:
            ConfigError: there are too few images, or the batch does not divide.
        """
        batch = self.images_of_step()
        if batch % processes:
            raise ConfigError(
                f"loader.batch_size: expected a multiple of trainer.devices={processes}, which "
                f"share out the images of a step, found {batch}. Take "
                f"loader.batch_size={max(1, batch // processes) * processes}"
            )
        self._check_share("val", processes)
        if self.on_device is not None and processes > 1:
            raise ConfigError(
                "loader.on_device: expected false beside trainer.devices above 1, found true. "
                "Images on a device belong to one process."
            )

    def _check_share(self, split: str, processes: int) -> None:
        """Refuse more processes than can each have an image of every batch of ``split``."""
        images = len(self.datasets[split])
        if self.eval_batch_size < processes or images < processes:
            raise ConfigError(
                f"trainer.devices: expected at most loader.eval_batch_size={self.eval_batch_size} "
                f"and the {images} {WORDS[split]} images, which the processes share out, found "
                f"{processes}."
            )

    def __getstate__(self) -> dict[str, Any]:
        """For another process: without the images, which it maps into its own memory."""
        return {**self.__dict__, "datasets": {}, "augmented": False}

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches, in the order of the manifest."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches, in the order of the manifest.

        Raises:
            ConfigError: there are more processes than images in the split or in a batch.
        """
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The batches of :meth:`test_dataloader`, targets and all."""
        return self._in_order("test")

    def _in_order(self, split: str) -> DataLoader[Any]:
        """The images of a split as they are, in the order of the manifest."""
        dataset = self.split(split)
        rank, processes = self._place()
        self._check_share(split, processes)
        batches = ShareSampler(len(dataset), self.eval_batch_size, rank, processes)
        if self.on_device is not None:  # where they stay, for every epoch
            parts = (own.tensor_split(len(batches)) for own in move(dataset, self.on_device))
            whole_batches: Any = list(zip(*parts, strict=True))
            return DataLoader(whole_batches, batch_size=None, generator=own_generator())
        return DataLoader(
            EmotionDataset(dataset.source, dataset.targets, dataset.ids, rows=dataset.rows),
            batch_sampler=batches,
            collate_fn=identity_collate,
            generator=own_generator(),
        )

    def describe(self) -> dict[str, Any]:
        """The description of the dataset in a checkpoint, in plain values.

        Returns:
            ``choice``, ``name``, ``generator`` (its options, or None), ``reader`` (its options),
            ``options`` (those that decide which images are used), ``fingerprint``, and, where every
            image is recognised, ``identity``; both are None until :meth:`setup`.
        """
        prepared: Prepared | None = getattr(self, "prepared", None)
        return {
            "choice": self.choice,
            "name": self.dataset_name,
            "generator": None if self.generator is None else dict(self.generator.keywords),
            "reader": self.reader.options(),
            "options": {key: getattr(self, key) for key in OPTIONS},
            "fingerprint": None if prepared is None else prepared.integrity["fingerprint"],
            # An earlier version wrote none.
            "identity": None if prepared is None else prepared.integrity.get("identity"),
        }

    def class_counts(self) -> list[int]:
        """Training images of each emotion, in the schema's order."""
        return self.datasets["train"].class_counts()

    def class_shares(self) -> list[float]:
        """As :meth:`class_counts`; an image whose votes are its target counts by their shares."""
        return self.datasets["train"].class_shares().tolist()

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the training images per channel, as fractions of 255."""
        return self.datasets["train"].mean_and_std()

    def split(self, name: str) -> EmotionDataset:
        """The images of ``train``, ``val``, ``test``, or of several (``val+test``), as they are.

        Raises:
            DataError: the split has no image.
        """
        parts = [self.datasets[part] for part in name.split("+")]
        if not sum(map(len, parts)):
            raise DataError(
                f"{self.dataset_name}: expected images in its {name} split, found none. Choose "
                "another: split=train, val, test or val+test."
            )
        if len(parts) == 1:
            return parts[0]
        return EmotionDataset(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.targets for part in parts]),
            [id for part in parts for id in part.ids],
            None,
        )

    def _rows_of(self, name: str) -> np.ndarray:
        return np.concatenate([self.rows[part] for part in name.split("+")])

    def images(self, name: str, size: int) -> np.ndarray:
        """The images of :meth:`split` at another size, ``(N, size, size, C)`` uint8."""
        return load_images(self._stored, size, self.in_channels)[self._rows_of(name)]

    def attributes(self, name: str) -> dict[str, list[str]]:
        """The annotated attributes of the images of :meth:`split`, as far as there are any."""
        entries = [self.prepared.entries[row] for row in self._rows_of(name)]
        columns = {name: [getattr(entry, name) for entry in entries] for name in ATTRIBUTES}
        return {name: column for name, column in columns.items() if any(column)}

    def entries(self, *splits: str) -> list[Entry]:
        """Entries of the images of some splits that are used."""
        return [self.prepared.entries[row] for part in splits for row in self.rows[part]]

    def leaked(self, name: str) -> np.ndarray:
        """``(N,)`` bool: which images of :meth:`split` have an exact copy in an earlier one.

        What was left out of the earlier splits does not count: nothing was learned from it.
        """
        return np.concatenate(
            [exact_leaks(*earlier_and_own(self.entries(*SPLITS), part)) for part in name.split("+")]
        )

    def nearly_leaked(self, name: str) -> np.ndarray | None:
        """As :meth:`leaked`, with near duplicates; None where the manifest does not know them."""
        for part in name.split("+"):
            if part not in self._nearly_leaked:  # it takes a second, and val is measured often
                again = near_leaks(*earlier_and_own(self.entries(*SPLITS), part))
                self._nearly_leaked[part] = again
        found = [self._nearly_leaked[part] for part in name.split("+")]
        known = [part for part in found if part is not None]
        return np.concatenate(known) if len(known) == len(found) else None
