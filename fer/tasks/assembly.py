"""From a composed configuration to the objects that training and evaluation work with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from fer.core import labels
from fer.core.application import compose, config_folder, instantiate
from fer.core.errors import CheckpointError, ConfigError
from fer.core.options import CHECKS, NAME, check_options
from fer.data.datamodule import EmotionDataModule
from fer.evaluation.inference import Checkpoint
from fer.model.callbacks import ProgressBar
from fer.model.checkpoint import CutOff
from fer.model.module import MONITOR
from fer.model.shared_cnn import SharedCNN
from fer.report.dataset_page import write_dataset_report
from fer.runs.pruning import Pruning


def make_data(
    cfg: DictConfig, network: SharedCNN | None = None, device: torch.device | None = None
) -> EmotionDataModule:
    """The data module, at the input size of the configured model or of ``network``.

    ``device`` is where training images are kept if ``loader.on_device`` asks for that.
    """
    size: Mapping[str, int] = cfg.model if network is None else vars(network)
    options: dict[str, Any] = {
        "image_size": size["image_size"],
        "in_channels": size["in_channels"],
        **OmegaConf.to_container(cfg.loader, resolve=True),  # type: ignore[dict-item]
    }
    options["on_device"] = device if options.get("on_device") else None
    if network is None:
        options["transforms"] = make_transforms(cfg.augmentation)
        options["seed"] = cfg.seed
    node = cfg.dataset.copy()
    OmegaConf.resolve(node)  # the reader's options refer to some that are removed next
    OmegaConf.set_struct(node, False)
    # The trainer's (see conf/trainer/auto.yaml), and the reader's (see conf/dataset/folder.yaml).
    for key in ("epochs", "drop_unknown", "synonyms"):
        node.pop(key, None)
    data: EmotionDataModule = instantiate(node, report=write_dataset_report, **options)
    return data


def make_transforms(augmentation: DictConfig) -> list[Any]:
    """The albumentations transforms of an ``augmentation`` configuration, in order."""
    from fer.data.augmentation import import_albumentations

    import_albumentations()
    return [instantiate(node) for node in augmentation.transforms.values()]


def make_logger(cfg: DictConfig, folder: Path, cut_off: CutOff | None = None) -> Logger | None:
    """The experiment logger, writing into the run folder."""
    if cfg.logger._target_ is None:
        return None
    options: dict[str, Any] = {}
    if cut_off is not None and cfg.logger._target_.endswith(".TensorBoardLogger"):
        # What was logged after the checkpoint is logged again: TensorBoard drops the first.
        options["purge_step"] = cut_off.steps
    logger: Logger = instantiate(
        cfg.logger, save_dir=folder, name="", version="tensorboard", **options
    )
    return logger


def make_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """Early stopping, pruning, averaged weights, progress bar: what the configuration asks for."""
    callbacks: list[pl.Callback] = []
    if cfg.early_stopping.patience is not None:
        callbacks.append(
            EarlyStopping(
                MONITOR,
                mode="max",
                patience=cfg.early_stopping.patience,
                min_delta=cfg.early_stopping.min_delta,
                check_on_train_epoch_end=True,
            )
        )
    if cfg.optuna.trial is not None:
        callbacks.append(Pruning(cfg.optuna.study, cfg.optuna.trial, cfg.optuna.storage))
    if cfg.ema.decay is not None:
        # Validation, best.ckpt and test then see the averaged weights.
        callbacks.append(EMAWeightAveraging(decay=cfg.ema.decay))
    if cfg.trainer.progress_bar:
        callbacks.append(ProgressBar())
    return callbacks


def describe_checkpoint(cfg: DictConfig, data: EmotionDataModule) -> dict[str, Any]:
    """What a checkpoint carries beside its weights: plain values only, so that it loads as data."""
    model = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(model, dict)
    target = str(model.pop("_target_"))
    generator = cfg.dataset.generator
    return {
        "model": {"class": target.rpartition(".")[2], **model},
        "labels": list(labels.EMOTIONS),
        "dataset": {
            "choice": HydraConfig.get().runtime.choices["dataset"],
            "name": data.dataset_name,
            "generator": None
            if generator is None
            else {key: value for key, value in generator.items() if not str(key).startswith("_")},
            "reader": {
                key: value
                for key, value in resolved(cfg.dataset.reader).items()
                if not key.startswith("_")
            },
            "options": {
                key: value for key, value in resolved(cfg.dataset).items() if key in DATA_OPTIONS
            },
            "fingerprint": data.prepared.integrity["fingerprint"],
        },
        "seed": cfg.seed,
    }


DATA_OPTIONS = (
    "undecodable",
    "leaks",
    "blank",
    "conflicts",
    "accept_altered",
    "drop_unknown",
    "synonyms",
)
"""Options of a dataset that decide what is in it, and that evaluation takes from a checkpoint."""


def with_dataset_of(cfg: DictConfig, checkpoint: Checkpoint) -> DictConfig:
    """``cfg`` with the dataset that the checkpoint was trained on, unless one is chosen.

    Only the name of a configuration and plain options come from the checkpoint, never code.
    """
    if cfg.get("dataset") is not None:
        return cfg
    trained_on = checkpoint.extras["dataset"]
    path = config_folder() / "dataset" / f"{trained_on['choice']}.yaml"
    if "/" in trained_on["choice"] or not path.is_file():
        raise ConfigError(
            f"{checkpoint.path}: expected to find its dataset's configuration "
            f"{trained_on['choice']!r} in conf/dataset/, found none. Choose one: dataset=NAME"
        )
    composed = compose("evaluate", [f"dataset={trained_on['choice']}"])
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.dataset = composed.dataset
    for part, prefix in (("options", ""), ("generator", "generator."), ("reader", "reader.")):
        saved = trained_on.get(part)
        node = cfg.dataset if part == "options" else cfg.dataset[part]
        if node is None or not isinstance(saved, dict):
            continue
        for key, value in saved.items():
            if part == "options" and key not in DATA_OPTIONS:
                continue
            # A text could be a class to call (_target_) or an interpolation: only numbers are
            # taken, and what the option's own check knows to be one of its values.
            check = CHECKS.get(f"dataset.{prefix}{key}")
            if key in node and (
                isinstance(value, int | float) or (check is not None and check[1](value))
            ):
                node[key] = value
    if not NAME[1](trained_on["name"]):  # neither a path nor an interpolation
        raise CheckpointError(
            f"{checkpoint.path}: expected a dataset's name ({NAME[0]}), found "
            f"{trained_on['name']!r}. Choose a dataset: dataset=NAME"
        )
    cfg.dataset.name = trained_on["name"]
    check_options(cfg)
    return cfg


def hyper_parameters(cfg: DictConfig) -> dict[str, Any]:
    """The choices and values that TensorBoard's HParams view compares runs by."""
    choices = HydraConfig.get().runtime.choices
    groups = ("dataset", "augmentation", "model", "loss", "optimizer", "scheduler")
    keys = (
        "seed",
        "optimizer.lr",
        "optimizer.weight_decay",
        "model.dropout",
        "model.image_size",
        "loader.batch_size",
        "trainer.max_epochs",
    )
    # An optimizer or model of the user's own may lack some of them.
    values = {key.rpartition(".")[2]: OmegaConf.select(cfg, key) for key in keys}
    return {
        **{name: choices[name] for name in groups},
        **{name: value for name, value in values.items() if value is not None},
    }


def measuring(cfg: DictConfig) -> dict[str, Any]:
    """The options of :func:`fer.evaluation.inference.measure_network`."""
    return {
        "batch_size": cfg.loader.eval_batch_size,
        "resamples": cfg.metrics.resamples,
        "seed": cfg.metrics.seed,
    }


def resolved(node: DictConfig) -> dict[str, Any]:
    """A part of a configuration, or all of it, as plain values."""
    content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
