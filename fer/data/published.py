"""Data modules of the published datasets, without Hydra, with the defaults of ``conf/``.

>>> data = FER2013DataModule(raw="archive.zip")  # read when a Trainer asks for it
>>> data.image_size, data.in_channels, data.batch_size, data.transforms
(48, 1, 64, 'standard')
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fer.data.datamodule import EmotionDataModule
from fer.data.ferplus import FERPlusReader
from fer.data.readers.base import Reader
from fer.data.readers.fer2013 import FER2013Reader
from fer.data.readers.rafdb import RAFDBReader


class FER2013DataModule(EmotionDataModule):
    """FER2013 (see :mod:`fer.data.readers.fer2013`).

    Without ``reader`` it is read with the reader's defaults; ``options`` are those of
    :class:`EmotionDataModule`.

    >>> data = FER2013DataModule("prepared/fer2013", leaks="drop_from_train")
    >>> data.folder.name, data.describe()["options"]["leaks"]
    ('fer2013', 'drop_from_train')
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        name: str = "fer2013",
        reader: Reader | None = None,
        kaggle: str | None = "msambare/fer2013",
        **options: Any,
    ) -> None:
        super().__init__(name, folder, reader=reader or FER2013Reader(), kaggle=kaggle, **options)


class FERPlusDataModule(FER2013DataModule):
    """FER2013's images with FER+'s votes (see :mod:`fer.data.ferplus`).

    Without ``reader`` it is read with the reader's defaults, the votes beside the raw data;
    ``options`` are those of :class:`EmotionDataModule`.

    >>> FERPlusDataModule(raw="archive.zip").describe()["reader"]["rule"]
    'majority'
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        name: str = "ferplus",
        reader: Reader | None = None,
        **options: Any,
    ) -> None:
        super().__init__(folder, name=name, reader=reader or FERPlusReader(), **options)


class RAFDBDataModule(EmotionDataModule):
    """RAF-DB (see :mod:`fer.data.readers.rafdb`).

    Without ``reader`` it is read with the reader's defaults; ``options`` are those of
    :class:`EmotionDataModule`.

    >>> RAFDBDataModule(raw="basic", in_channels=3).describe()["reader"]["images"]
    'auto'
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        name: str = "rafdb",
        reader: Reader | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, folder, reader=reader or RAFDBReader(), **options)
