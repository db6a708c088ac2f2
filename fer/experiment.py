"""The task of training a network and measuring it, and what evaluation shares with it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from torch.multiprocessing.spawn import ProcessRaisedException

from fer import errors, labels
from fer.cli import compose, config_folder, instantiate
from fer.data.datamodule import EmotionDataModule
from fer.data.files import remove_leftovers, write_json
from fer.data.integrity import data_notes
from fer.errors import CheckpointError, ConfigError, FerError
from fer.evaluation.metrics import SCALARS, describe_empty
from fer.evaluation.predict import Checkpoint, load_checkpoint, measure_network
from fer.hardware import Computing, check_processes, keep_freed_memory
from fer.model.callbacks import (
    AtomicCheckpointIO,
    History,
    ProgressBar,
    Pruning,
    Quiet,
    Watch,
    make_checkpoints,
    quieten_lightning,
    vanished,
)
from fer.model.checkpoint import read_checkpoint
from fer.model.mixing import Mixing
from fer.model.module import MONITOR, EmotionModule
from fer.model.shared_cnn import SharedCNN
from fer.options import CHECKS, NAME, Guard, check_options
from fer.report.dataset import write_dataset_report
from fer.report.html import write_run_report
from fer.report.run import describe_run, draw_run, log_to_tensorboard, print_summary
from fer.resume import LAST, PRUNED

log = logging.getLogger(__name__)

BEST = "checkpoints/best.ckpt"


def train(cfg: DictConfig, folder: Path) -> float:
    """Train as ``cfg`` says, then measure the best checkpoint once on the test split.

    With ``test=false`` the test split is left alone and validation is reported: for a search.

    Args:
        cfg: composed from ``conf/train.yaml``.
        folder: of the run; everything is written there.

    Returns:
        The best validation macro-F1, a fraction: what a sweep may optimise. Of a trial that a
        search ends early, the best until then; it leaves ``pruned.json`` and is not measured.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    started = time.perf_counter()
    begun = datetime.now(timezone.utc)
    check_options(cfg)
    quieten_lightning()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    # Warn rather than fail: an operation without a deterministic version on some device should
    # not stop a run there.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # That also fills memory before an operation overwrites it, which nothing here needs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    processes = int(cfg.trainer.devices)
    check_processes(processes, computing.device)
    network: SharedCNN = instantiate(cfg.model)
    data = make_data(cfg, device=computing.device)
    data.prepare_data()
    data.setup()
    data.check_accepted()
    data.check_shares(processes)
    notes = notes_on(data)
    if not cfg.test:
        notes.insert(
            0,
            "The test split was left alone (test=false). The best epoch was chosen on the "
            "validation images that these figures are of: they flatter it.",
        )
    network.set_normalisation(*data.normalisation())
    network.to(memory_format=torch.channels_last)
    if cfg.trainer.compile:
        network.compile()
    module = EmotionModule(
        network,
        instantiate(cfg.loss, class_counts=data.datasets["train"].class_counts()),
        Guard(instantiate(cfg.optimizer), "optimizer"),
        Guard(instantiate(cfg.scheduler), "scheduler"),
        checkpoint_extras=describe_checkpoint(cfg, data),
        mixing=Mixing(**cfg.mixing),
    )
    remove_leftovers(folder)  # of a run that was killed while it wrote
    cut_off = load_cut_off(cfg, folder, data)
    history = History(folder / "history.csv")
    best, last = make_checkpoints(folder / "checkpoints")
    logger = make_logger(cfg, folder, cut_off)
    own = ("accelerator", "devices", "precision", "max_epochs", "progress_bar", "compile")
    trainer = Guard(pl.Trainer, "trainer")(
        accelerator="gpu" if computing.device.type == "cuda" else computing.device.type,
        devices=processes,
        precision=computing.precision,
        max_epochs=cfg.trainer.max_epochs,
        logger=logger or False,
        callbacks=[Quiet(), Watch(folder), history, *make_callbacks(cfg), best, last],
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,  # the data module shares out the images, and repeats none
        num_sanity_val_steps=0,  # it would only cost time and count in the metrics
        enable_progress_bar=cfg.trainer.progress_bar,
        enable_model_summary=False,
        default_root_dir=folder,
        log_every_n_steps=1,
        # Anything else below trainer is Lightning's: +trainer.gradient_clip_val=1.0
        **{
            **(in_processes() if processes > 1 else {}),
            **{key: value for key, value in resolved(cfg)["trainer"].items() if key not in own},
        },
    )
    log.info(
        "Training %s (%s parameters) on %s: %s images, %s%s, %s",
        type(network).__name__,
        f"{sum(p.numel() for p in network.parameters()):,}",
        data.dataset_name,
        f"{len(data.datasets['train']):,}",
        computing.device,
        "" if processes == 1 else f" in {processes} processes",
        computing.precision,
    )
    if cut_off is not None:
        log.info("Going on after epoch %s of %s", cut_off.epochs - 1, folder)
    is_trial = cfg.optuna.trial is not None
    if cut_off is not None and (
        cut_off.is_trained(cfg.trainer.max_epochs) or (is_trial and cut_off.pruned)
    ):
        history.load_state_dict({"rows": cut_off.rows})
    else:
        fit(trainer, module, data, None if cut_off is None else cut_off.path)
        if processes > 1:
            history.load_state_dict({"rows": read_progress(folder / LAST).rows})
    if trainer.interrupted:
        raise KeyboardInterrupt
    trained = time.perf_counter() - started
    if is_trial and read_progress(folder / LAST).pruned:
        return record_pruned(folder, history, int(cfg.optuna.trial), trained)
    checkpoint = load_checkpoint(folder / BEST)
    val = measure_network(checkpoint.network, data, "val", computing, **measuring(cfg))
    results = [val]
    if cfg.test:
        results.append(
            measure_network(checkpoint.network, data, "test", computing, **measuring(cfg))
        )
    shown = results[-1]
    empty = describe_empty(shown.metrics)
    if empty is not None:
        notes.insert(0, empty)
    write_json(folder / "metrics.json", shown.metrics)
    run = {
        **describe_run(resolved(cfg), data, computing, notes),
        "started": begun.isoformat(timespec="seconds"),
        "resumed_after_epochs": None if cut_off is None else cut_off.epochs,
        "best_epoch": history.best_epoch,
        "epochs": len(history.rows),
        "validation": {name: val.metrics[name] for name in SCALARS},
        "images_per_second": float(np.median([row["images_per_second"] for row in history.rows])),
        "training_seconds": round(trained, 1),
        "wall_seconds": round(time.perf_counter() - started, 1),
    }
    write_json(folder / "run.json", run)
    drawn = draw_run(folder, data, results, history)
    if isinstance(logger, TensorBoardLogger):
        log_to_tensorboard(logger, hyper_parameters(cfg), results)
    # Last: a run that has its page is finished.
    write_run_report(
        folder / "report.html",
        title=f"{data.dataset_name}: {type(network).__name__}",
        subtitle=f"Best of {len(history.rows)} epochs on validation macro-F1, measured on "
        f"the {len(shown.target):,} {shown.metrics['split']} images.",
        notes=notes,
        metrics=shown.metrics,
        figures=drawn,
        provenance={key: value for key, value in run.items() if key != "config"},
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        history=history.rows,
        extra_splits={"val": val.metrics} if cfg.test else None,
        data=data.prepared.integrity,
        left_out=describe_left_out(data),
    )
    print_summary(folder, data, shown, val if cfg.test else None, notes)
    return float(val.metrics["macro_f1"])


# --- from the configuration to objects ---------------------------------------------------------


def in_processes() -> dict[str, Any]:
    """Lightning's options for several processes.

    They are spawned by the one that Hydra started, which measures the test split when they have
    ended: no second process composes a configuration or makes a run folder, in a sweep either.
    """
    # Named, since inside a job of Slurm Lightning would wait for Slurm to start the processes.
    return {
        "strategy": DDPStrategy(cluster_environment=LightningEnvironment(), start_method="spawn")
    }


def fit(
    trainer: pl.Trainer, module: EmotionModule, data: EmotionDataModule, path: Path | None
) -> None:
    """Train; an error of one of several processes is raised as its own kind.

    Raises:
        FerError: as the process raised it.
        CheckpointError: ``path`` is not one that this training can go on from.
    """
    try:
        trainer.fit(module, data, ckpt_path=None if path is None else str(path))
    except FerError:
        raise
    except FileNotFoundError as error:  # TensorBoard's writer may be the first to notice
        if Path(trainer.default_root_dir).is_dir():
            raise
        raise vanished(Path(trainer.default_root_dir), trainer.current_epoch) from error
    except ProcessRaisedException as error:
        found = re.findall(r"^fer\.errors\.(\w+): (.*)", str(error), re.DOTALL | re.MULTILINE)
        if not found:
            raise
        name, message = found[-1]
        raise getattr(errors, name)(message.strip()) from error
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        if path is None or module.begun:
            raise
        raise CheckpointError(
            f"{path}: expected the state of a training with these options, found another: "
            f"{error!r}. Start a new run without resume."
        ) from error


def record_pruned(folder: Path, history: History, trial: int, seconds: float) -> float:
    """Write ``pruned.json``, the scores of a trial that was ended early.

    Returns:
        Its best validation macro-F1, a fraction.
    """
    assert history.best_epoch is not None
    best = history.rows[history.best_epoch]
    write_json(
        folder / PRUNED,
        {
            "best_epoch": history.best_epoch,
            "epochs": len(history.rows),
            "validation": {name: best[f"val_{name}"] for name in ("accuracy", "macro_f1")},
            "wall_seconds": round(seconds, 1),
        },
    )
    log.info(
        "Trial %s was ended after %s epochs with a best validation macro-F1 of %.2f %%: below the "
        "median of the trials before it",
        trial,
        len(history.rows),
        100 * best["val_macro_f1"],
    )
    return best["val_macro_f1"]


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


@dataclass(frozen=True)
class CutOff:
    """A training that did not come to its end."""

    path: Path
    """Its last checkpoint."""
    epochs: int
    """Finished ones."""
    steps: int
    stopped: bool
    """Whether early stopping had ended it, or a search."""
    pruned: bool
    """Whether it was a search."""
    rows: list[dict[str, float]]
    """Of its history."""

    def is_trained(self, max_epochs: int) -> bool:
        """Whether only the measuring is left to do."""
        return (self.stopped and not self.pruned) or self.epochs >= max_epochs


def load_cut_off(cfg: DictConfig, folder: Path, data: EmotionDataModule) -> CutOff | None:
    """What a run that is resumed has left in ``folder``; None if it has not finished an epoch.

    Raises:
        CheckpointError: the last checkpoint is not one of this run.
    """
    path = folder / LAST
    if cfg.resume in (None, "auto") or not path.is_file():
        return None
    trained_on = load_checkpoint(path).extras["dataset"]
    if trained_on["fingerprint"] != data.prepared.integrity["fingerprint"]:
        raise CheckpointError(
            f"{path}: expected a run on this copy of {data.dataset_name} (fingerprint "
            f"{data.prepared.integrity['fingerprint'][:16]}), found one on another "
            f"({trained_on['fingerprint'][:16]}). Give it the data that it was started with, or "
            "start a new run without resume."
        )
    return read_progress(path)


def read_progress(path: Path) -> CutOff:
    """How far the training of a checkpoint has come.

    Raises:
        CheckpointError: it does not say.
    """
    content = read_checkpoint(path)
    try:
        progress = content["fer_progress"]
        return CutOff(
            path,
            int(progress["epochs"]),
            int(content["global_step"]),
            bool(progress["stopped"]),
            bool(content["callbacks"].get("Pruning", {"pruned": False})["pruned"]),
            list(content["callbacks"]["History"]["rows"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint that a training can go on from, found one without "
            f"{error}: an earlier version wrote it. Start a new run without resume."
        ) from error


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


# --- what readers of the results must know -----------------------------------------------------


def notes_on(data: EmotionDataModule) -> list[str]:
    """What a reader of the results must know about the data."""
    notes = [
        *data_notes(data.prepared.integrity),
        *describe_left_out(data),
        *data.prepared.integrity["warnings"],
    ]
    if data.prepared.integrity["matches_official_counts"] is False:
        notes.insert(
            0,
            f"This copy of {data.dataset_name} does not have the official number of images: "
            "results are not comparable with published ones.",
        )
    if data.generator is not None:
        notes.insert(0, "These faces are drawn. Scores on them say nothing about human faces.")
    return notes


def describe_left_out(data: EmotionDataModule) -> list[str]:
    """Of each option that leaves images out: how many, and what that means for the results."""
    lines = []
    for why, counts in data.left_out.items():
        shown = ", ".join(f"{n:,} of {split}" for split, n in counts.items())
        protocol = " The test split is then not the official one." if counts["test"] else ""
        lines.append(f"Left out because {why}: {shown}.{protocol}")
    return lines


def compare_data(checkpoint: Checkpoint, data: EmotionDataModule) -> list[str]:
    """Notes on how the evaluated data differ from what the checkpoint was trained on."""
    trained_on = checkpoint.extras["dataset"]
    if trained_on["name"] != data.dataset_name:
        return [
            f"The network was trained on {trained_on['name']} and is measured on "
            f"{data.dataset_name}."
        ]
    notes = []
    saved = trained_on.get("options") or {}
    own = {"leaks": data.leaks, "blank": data.blank, "conflicts": data.conflicts}
    different = [key for key, value in own.items() if saved.get(key, value) != value]
    if different:
        notes.append(
            "Images were left out in another way than in training: "
            + ", ".join(f"dataset.{key}={own[key]}, then {saved[key]}" for key in different)
            + "."
        )
    if trained_on["fingerprint"] != data.prepared.integrity["fingerprint"]:
        notes.append(
            f"This is not the copy of {data.dataset_name} that the network was trained on "
            f"(fingerprint {trained_on['fingerprint'][:16]}, here "
            f"{data.prepared.integrity['fingerprint'][:16]}): test images may have been seen in "
            "training."
        )
    return notes


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
    """The options of :func:`fer.evaluation.predict.measure_network`."""
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
