"""Where configurations lie, which choices there are, and how one is composed."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fer.core.errors import ConfigError

NAME_PATTERN = re.compile(r"\w[\w .-]*")
"""A dataset's name, which is that of its folders too."""
BASE = "base"
"""The file of a group that its options build on; not an option itself."""


def folder_name(name: object) -> str:
    """The part of a run's folder that names its dataset.

    A name that no dataset may have, which is refused when the run begins, must not lead elsewhere.
    """
    return str(name) if NAME_PATTERN.fullmatch(str(name)) else "unnamed"


OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def config_folder() -> Path:
    """The configuration folder, in the source tree or inside the installed package."""
    package = Path(__file__).resolve().parent.parent
    source = package.parent / "conf"
    return source if (source / "train.yaml").is_file() else package / "conf"


def own_folders() -> list[Path]:
    """The user's own configuration folders, from ``--config-dir`` and ``hydra.searchpath``."""
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        return [
            Path(source.path)
            for source in sources
            if source.schema == "file" and source.provider != "main"
        ]
    flags, overrides = split_flags(sys.argv[1:])
    found = [] if flags.config_dir is None else [Path(flags.config_dir).absolute()]
    for item in overrides:
        key, _, value = item.partition("=")
        if key == "hydra.searchpath":
            found += [Path(place) for place in re.findall(r"file://([^,\]'\"]+)", value)]
    return found


def split_flags(arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Split a command line into Hydra's flags, as its parser returns them, and overrides."""
    flags, _ = get_args_parser().parse_known_args(list(arguments))
    return flags, list(flags.overrides)


def options_of(group: str) -> list[str]:
    """The choices of a group, including those in the user's own folders."""
    folders = [config_folder(), *own_folders()]
    names = {path.stem for folder in folders for path in folder.glob(f"{group}/*.yaml")}
    return sorted(names - {BASE})


def is_group(key: str) -> bool:
    """Tell whether ``key`` names a group of options rather than a value."""
    # Listed instead of looked up: a key may be longer than the file system allows.
    paths = (path for folder in [config_folder(), *own_folders()] for path in folder.glob("*"))
    return any(path.name == key and path.is_dir() for path in paths)


def compose(
    config_name: str, overrides: Sequence[str], *, return_hydra_config: bool = False
) -> DictConfig:
    """Compose another configuration, from the same folders as the running job's.

    Raises:
        HydraException: the overrides do not fit.
    """
    places = ",".join(f"'file://{folder}'" for folder in own_folders())
    found = [f"hydra.searchpath=[{places}]"] if places else []
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()  # Hydra allows only one instance
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            return hydra.compose(
                config_name,
                overrides=[*overrides, *found],
                return_hydra_config=return_hydra_config,
            )
    except ValueError as error:  # raised for saliency=null
        raise ConfigError(
            f"{config_name}: expected options that fit, found {' '.join(overrides)}: {error}. "
            "Leave out a choice for its default, or write ~KEY for none."
        ) from error
    finally:
        GlobalHydra.instance().hydra = running
