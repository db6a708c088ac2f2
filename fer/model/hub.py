"""Networks on the Hugging Face Hub: a safetensors file and a card, never code."""

from __future__ import annotations

import re
from pathlib import Path

from fer.core.errors import CheckpointError, ConfigError, first_line

SCHEME = "hf://"
WEIGHTS = "model.safetensors"
CARD = "README.md"
"""Where the hub looks for a model's card."""
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def check_name(name: str) -> str:
    """Check the name of a repository, ``user/name``.

    Raises:
        ConfigError: it is not one.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"hub: expected a repository as user/name, found {name!r}. Correct it, such as "
            f"{SCHEME}ada/faces"
        )
    return name


def download(address: str) -> Path:
    """Download the weights of ``hf://user/name`` or ``hf://user/name@revision``, once.

    Args:
        address: revision is a branch, tag or commit; without one, its main branch.

    Returns:
        The file in the cache of ``huggingface_hub``.

    Raises:
        ConfigError: the name is not one, or ``huggingface_hub`` is missing.
        CheckpointError: there is no such repository, revision or file, or the hub does not answer.
    """
    name, _, revision = address.removeprefix(SCHEME).partition("@")
    check_name(name)
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise missing(address) from error
    try:
        return Path(hf_hub_download(name, WEIGHTS, revision=revision or None))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint: expected {WEIGHTS} in the repository {address}, found: "
            f"{first_line(error)}. Correct the name, log in if the repository is private "
            "(hf auth login), or download the file and pass its path."
        ) from error


def missing(what: str) -> ConfigError:
    """Make the error for a missing ``huggingface_hub``."""
    return ConfigError(
        f"{what}: expected the package huggingface_hub, found none. Install it: pip install "
        '"fer-lab[card]"'
    )
