"""The task of preparing a dataset, without torch."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from fer.core.application import instantiate
from fer.core.options import check_options
from fer.data.audit.integrity import summarise
from fer.data.download import download_from_kaggle
from fer.data.preparation import prepare
from fer.report.dataset_page import write_dataset_report


def prepare_task(cfg: DictConfig, _: Path) -> None:
    """Prepare a dataset if it is not prepared, and print what it holds.

    Args:
        cfg: composed from ``conf/prepare.yaml``.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    check_options(cfg)
    # The summary is printed below, whether the dataset was prepared now or before.
    logging.getLogger("fer.data.preparation").setLevel(logging.WARNING)
    node = cfg.dataset
    prepared = prepare(
        node.name,
        Path(node.folder),
        instantiate(node.reader),
        raw=None if node.raw is None else Path(node.raw),
        generator=None if node.generator is None else instantiate(node.generator),
        download=(lambda: download_from_kaggle(node.name, node.kaggle)) if node.download else None,
        workers=node.workers,
        undecodable=node.undecodable,
        report=write_dataset_report,
    )
    print(f"{node.name}: {len(prepared.entries):,} images in {prepared.folder}")
    for line in summarise(prepared.integrity):
        print(f"  {line}")
