"""The task of preparing a dataset, without torch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer.core.application import instantiate
from fer.core.options import check_options
from fer.data.audit.integrity import summarise
from fer.data.download import downloader
from fer.data.preparation import prepare
from fer.data.prepared import Prepared
from fer.data.readers.base import Reader
from fer.data.selection import check_selection
from fer.report.dataset_page import write_dataset_report


def prepare_task(cfg: DictConfig, _: Path) -> None:
    """Prepare a dataset, as ``conf/prepare.yaml`` says, if it is not, and print what it holds.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    check_options(cfg)
    # The summary is printed below, whether the dataset was prepared now or before.
    logging.getLogger("fer.data").setLevel(logging.WARNING)
    prepared = prepare_dataset(cfg.dataset, make_part(cfg.dataset, "reader"))
    print(f"{cfg.dataset.name}: {len(prepared.entries):,} images in {prepared.folder}")
    for line in summarise(prepared.integrity):
        print(f"  {line}")


def prepare_dataset(node: DictConfig, reader: Reader) -> Prepared:
    """The dataset that ``dataset`` describes, prepared if it is not.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    check_selection(node.leaks, node.blank, node.conflicts, node.accept_altered, node.fold)
    return prepare(
        node.name,
        node.folder,
        reader,
        raw=node.raw,
        generator=make_part(node, "generator"),
        download=downloader(node.name, node.download, node.kaggle),
        workers=node.workers,
        undecodable=node.undecodable,
        faces=node.faces,
        report=write_dataset_report,
    )


def make_part(dataset: DictConfig, key: str) -> Any:
    """The object that a part of a dataset's configuration describes, or the part's plain value.

    Raises:
        ConfigError: its ``_target_`` does not exist or does not accept its values.
    """
    node = dataset[key]
    return instantiate(node) if OmegaConf.is_dict(node) and "_target_" in node else node
