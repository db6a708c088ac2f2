"""Fetching a dataset with the user's own Kaggle account."""

from __future__ import annotations

from pathlib import Path

from fer.core.errors import ConfigError, DataError


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
