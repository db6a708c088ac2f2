"""Fetching a dataset with the user's own Kaggle account."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from fer.core.errors import ConfigError, DataError
from fer.core.options import SWITCH, TEXT, check_value, or_null


def downloader(name: str, download: bool, kaggle: str | None) -> Callable[[], Path] | None:
    """A function that fetches the raw data of a dataset; None if nothing may be fetched.

    Args:
        name: of the dataset, for messages.
        download: whether to fetch it.
        kaggle: ``owner/name`` on Kaggle, or None if the dataset may not be fetched.

    Raises:
        ConfigError: an option has a value that cannot work.
    """
    check_value("dataset.download", download, SWITCH)
    check_value("dataset.kaggle", kaggle, or_null(TEXT, "for none"))
    return functools.partial(download_from_kaggle, name, kaggle) if download else None


def download_from_kaggle(name: str, handle: str | None) -> Path:
    """Fetch a Kaggle dataset through ``kagglehub`` and return the folder it was put in.

    Args:
        name: of the dataset, for messages.
        handle: ``owner/name`` on Kaggle, or None if the dataset may not be fetched.

    Raises:
        ConfigError: this dataset cannot be fetched, or kagglehub is not installed.
        DataError: Kaggle refused or could not be reached.
    """
    if handle is None:
        raise ConfigError(
            f"dataset.download: expected a dataset that may be passed on, found {name}, which may "
            "not. Obtain it from its authors and pass its path: dataset.raw=PATH"
        )
    try:
        import kagglehub
    except ImportError as error:
        raise ConfigError(
            "dataset.download=true: expected the package kagglehub, which is not installed. "
            'Install it with: pip install "kagglehub>=0.3.6"'
        ) from error
    try:
        return Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub raises errors of several HTTP libraries
        raise DataError(
            f"{name}: expected to fetch {handle} from Kaggle, found: {error}. Check the network "
            "and your credentials (~/.kaggle/kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY), "
            "or download it in a browser and pass its path: dataset.raw=PATH"
        ) from error
