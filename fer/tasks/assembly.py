"""The objects of a training or an evaluation, made from a composed configuration."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from pathlib import Path

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from fer.core.application import instantiate, locate
from fer.core.commands import typed
from fer.core.composition import compose
from fer.core.errors import CheckpointError, ConfigError
from fer.core.hardware import images_at_once
from fer.core.options import NAME, SWITCH_OR_AUTO, Guard, check_options, check_value
from fer.core.plugins import import_plugin
from fer.core.values import Options, walk
from fer.data.augmentation import make_transforms
from fer.data.datamodule import OPTIONS, EmotionDataModule
from fer.data.device import are_known
from fer.model.checkpoint import Checkpoint, CutOff, on_meta
from fer.model.module import MONITOR
from fer.model.network import NormalisedNetwork, make_network
from fer.report.dataset_page import write_dataset_report
from fer.runs.overrides import PLACES
from fer.runs.pruning import Pruning
from fer.tasks.prepare import make_part

log = logging.getLogger(__name__)

OF_READER = ("drop_unknown", "synonyms", "person", "columns")
"""Options of a reader that are set beside it, in its dataset's configuration."""


def import_networks(folders: Iterable[Path]) -> None:
    """Import the modules that ``model/*.yaml`` of the user's own folders name.

    Checkpoints can then name their networks. A module that cannot be imported is a warning: the
    checkpoint may name another.
    """
    for folder in folders:
        for path in sorted(folder.glob("model/*.yaml")):
            target = OmegaConf.select(OmegaConf.load(path), "_target_")
            if isinstance(target, str) and "." in target:
                try:
                    import_plugin(target.rpartition(".")[0], str(path))
                except ConfigError as error:
                    log.warning(error)


def make_model(node: DictConfig) -> NormalisedNetwork:
    """The network that ``model`` describes, with normalisation around it, tried on two images.

    Raises:
        ConfigError: there is no such network, it does not accept its options, is not registered, or
            its output is not logits ``(N, 7)``.
    """
    options = resolved(node)
    make = locate("model", options.pop("_target_", None))
    on_meta(make, options)  # refuses one that memory does not hold
    network = make_network(make, options)
    network.describe()
    network.check_output()
    return network


def make_data(
    cfg: DictConfig, network: NormalisedNetwork, device: torch.device | None = None
) -> EmotionDataModule:
    """The data module, at the input size of ``network``.

    With ``loader.on_device`` it keeps its training images on ``device``: ``auto`` means on a GPU
    that no other process shares, with an augmentation that is known there.
    """
    options: Options = {
        "image_size": network.image_size,
        "in_channels": network.in_channels,
        **OmegaConf.to_container(cfg.loader, resolve=True),  # type: ignore[dict-item]
    }
    options["transforms"] = []
    on_device = options.get("on_device", False)
    check_value("loader.on_device", on_device, SWITCH_OR_AUTO)
    if "augmentation" in cfg:  # of a training
        options["transforms"] = make_transforms(cfg.augmentation)
        if on_device == "auto":
            on_device = (
                device is not None
                and device.type == "cuda"
                and cfg.trainer.devices == 1
                and not options["num_workers"]
                and are_known(options["transforms"])
            )
        options["seed"] = cfg.seed
    options["on_device"] = device if on_device is True else None
    if options["eval_batch_size"] is None:  # where the network computes, whatever keeps the images
        options["eval_batch_size"] = images_at_once(device)
    if HydraConfig.initialized():
        options["choice"] = HydraConfig.get().runtime.choices.get("dataset")
    node = cfg.dataset.copy()
    OmegaConf.resolve(node)  # the reader's options refer to some that are removed next
    OmegaConf.set_struct(node, False)
    parts = {key: make_part(node, key) for key in ("reader", "generator")}
    # The trainer's (see conf/trainer/auto.yaml), and the reader's (see conf/dataset/folder.yaml).
    for key in ("epochs", *OF_READER, *parts):
        node.pop(key, None)
    make = Guard(instantiate(node, _partial_=True), "dataset")
    data: EmotionDataModule = make(**parts, report=write_dataset_report, **options)
    return data


def make_loggers(cfg: DictConfig, folder: Path, cut_off: CutOff | None = None) -> list[Logger]:
    """The experiment loggers that ``logger`` names.

    Each gets the run folder as ``save_dir`` if it takes one; a ``name`` or ``run_name`` of null
    becomes the run's.

    Raises:
        ConfigError: one cannot be made; its package may be missing.
    """
    loggers = []
    for key, node in several(cfg.logger).items():
        taken = inspect.signature(locate(f"logger.{key}", node.get("_target_"))).parameters
        own: Options = {}
        if "save_dir" in taken and node.get("save_dir") is None:
            own["save_dir"] = folder
        for name in ("name", "run_name"):
            if name in node and node[name] is None:
                own[name] = "/".join(folder.absolute().parts[-2:])
        if cut_off is not None and node._target_.endswith(".TensorBoardLogger"):
            # What was logged after the checkpoint is logged again: TensorBoard drops the first.
            own["purge_step"] = cut_off.steps
        loggers.append(instantiate(node, **own))
    return loggers


def make_later(node: DictConfig) -> Guard:
    """A function that makes the object of a node once its first arguments are there.

    For torch's own classes a list of numbers becomes a tensor, as a loss wants for its weights.
    """
    values: Options = {}
    if str(node.get("_target_")).startswith("torch.nn."):
        values = {
            str(key): torch.tensor(list(value), dtype=torch.float32)
            for key, value in node.items()
            if OmegaConf.is_list(value) and all(isinstance(n, int | float) for n in value)
        }
    return Guard(instantiate(node, _partial_=True, **values), str(node._key()))


def several(node: DictConfig | None) -> dict[str, DictConfig]:
    """Nodes with a ``_target_`` by name, given a mapping of them or a single one."""
    if not node:
        return {}
    return {"own": node} if "_target_" in node else {str(key): one for key, one in node.items()}


def make_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """Early stopping, pruning, averaged weights, then those of ``callbacks``."""
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
    return callbacks + [instantiate(node) for node in several(cfg.callbacks).values()]


def with_dataset_of(cfg: DictConfig, checkpoint: Checkpoint) -> DictConfig:
    """``cfg`` with the dataset that the checkpoint was trained on, unless it has one.

    The checkpoint gives the name of a configuration and plain values of keys that this has, which
    mean nothing to Hydra or OmegaConf: never code.

    Raises:
        ConfigError: there is no such configuration.
        CheckpointError: an option is more than data.
    """
    if cfg.get("dataset") is not None:
        return cfg
    trained_on = checkpoint.extras["dataset"]
    try:
        composed = compose("evaluate", [f"dataset='{trained_on['choice']}'"])
    except MissingConfigException as error:
        raise ConfigError(
            f"{checkpoint.path}: expected to find its dataset's configuration "
            f"{trained_on['choice']!r} in conf/dataset/, found none. Choose one: dataset=NAME, or "
            "name the folder of your own options: --config-dir FOLDER"
        ) from error
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.dataset = composed.dataset
    for part in ("options", "generator", "reader"):
        saved = trained_on.get(part)
        node = cfg.dataset if part == "options" else cfg.dataset[part]
        if not OmegaConf.is_dict(node) or not isinstance(saved, dict):
            continue
        known = (*OPTIONS, *OF_READER) if part == "options" else tuple(map(str, node))
        for key, value in saved.items():
            is_place = f"dataset.{part}.{key}" in PLACES  # where something is on another machine
            if key not in known or key not in node or key.startswith("_") or is_place:
                continue
            if not is_inert(value):
                raise CheckpointError(
                    f"{checkpoint.path}: expected data as its dataset's option {key}, found "
                    f"{value!r}, which names something to look up or to run. Choose the dataset "
                    f"and its options yourself: {typed('dataset', trained_on['choice'])}"
                )
            beside = part == "reader" and key in OF_READER and key in cfg.dataset
            (cfg.dataset if beside else node)[key] = value
    if not NAME[1](trained_on["name"]):  # neither a path nor an interpolation
        raise CheckpointError(
            f"{checkpoint.path}: expected a dataset's name ({NAME[0]}), found "
            f"{trained_on['name']!r}. Choose a dataset: dataset=NAME"
        )
    cfg.dataset.name = trained_on["name"]
    check_options(cfg)
    return cfg


def is_inert(value: object) -> bool:
    """True if a plain value means nothing to Hydra or OmegaConf.

    An interpolation (``${…}``) does, and so do ``???`` and keys such as ``_target_``.

    >>> is_inert({"a": ["_b"]}), is_inert([{"_target_": "os.abort"}]), is_inert({"${seed}": 1})
    (True, False, False)
    """
    return not any(
        isinstance(part, str)
        and ("${" in part or part == "???" or (is_key and part.startswith("_")))
        for part, is_key in walk(value)
    )


def hyper_parameters(cfg: DictConfig) -> Options:
    """The choices and values by which TensorBoard's HParams view compares runs."""
    choices = HydraConfig.get().runtime.choices
    groups = ("dataset", "augmentation", "model", "loss", "optimizer", "scheduler")
    keys = (
        *("seed", "optimizer.lr", "optimizer.weight_decay", "model.dropout", "model.image_size"),
        *("loader.batch_size", "trainer.max_epochs"),
    )
    # An optimizer or model of the user's own may lack some of them.
    values = {key.rpartition(".")[2]: OmegaConf.select(cfg, key) for key in keys}
    return {
        **{name: choices[name] for name in groups},
        **{name: value for name, value in values.items() if value is not None},
    }


def measuring(cfg: DictConfig) -> Options:
    """The options of :func:`fer.evaluation.inference.measure_network`."""
    return {
        "batch_size": cfg.loader.eval_batch_size,
        "resamples": cfg.metrics.resamples,
        "seed": cfg.metrics.seed,
    }


def resolved(node: DictConfig) -> Options:
    """A configuration, or a part of it, as plain values."""
    content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
