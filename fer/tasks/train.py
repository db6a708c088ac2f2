"""The task of training a network: build, fit, measure, write."""

from __future__ import annotations

import logging
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from torch.multiprocessing.spawn import ProcessRaisedException

from fer.core import errors
from fer.core.application import log_to_file
from fer.core.errors import CheckpointError, FerError, TrainingError
from fer.core.files import remove_leftovers, write_json
from fer.core.hardware import Computing, check_processes, keep_freed_memory
from fer.core.options import Guard, check_options
from fer.core.values import Options
from fer.core.words import duration
from fer.data.conversion import describe_left_out
from fer.data.datamodule import EmotionDataModule
from fer.evaluation.inference import measure_network
from fer.evaluation.metrics import SplitResult, describe_empty
from fer.evaluation.scores import scores_in
from fer.model.callbacks import (
    AtomicCheckpointIO,
    DivergenceGuard,
    History,
    Quiet,
    make_checkpoints,
    quieten_lightning,
    vanished,
)
from fer.model.checkpoint import CutOff, load_checkpoint, read_progress
from fer.model.epoch_log import EpochLog
from fer.model.mixing import Mixing
from fer.model.module import EmotionModule, make_loss
from fer.report.run_figures import run_section
from fer.report.run_page import write_run_report
from fer.report.terminal import print_summary
from fer.runs.ownership import hold, keep
from fer.runs.provenance import command_line, describe_run, versions
from fer.runs.records import PrunedRecord, TrainingRecord
from fer.runs.state import BEST, FINISHED, LAST, PRUNED
from fer.tasks.assembly import (
    hyper_parameters,
    make_callbacks,
    make_data,
    make_later,
    make_loggers,
    make_model,
    measuring,
    resolved,
    several,
)
from fer.tasks.epoch_pictures import EpochPictures
from fer.tasks.logging_results import finish, log_results
from fer.tasks.notes import compare_threads, notes_on

log = logging.getLogger(__name__)

TRANSLATED = (
    *("accelerator", "devices", "precision", "max_epochs", "progress_bar", "compile"),
    "cuda_graph",
)
"""Keys below ``trainer`` that are not passed on to Lightning as they are."""


@dataclass
class Run:
    """The objects of one training."""

    cfg: DictConfig
    folder: Path
    computing: Computing
    data: EmotionDataModule
    module: EmotionModule
    trainer: pl.Trainer
    history: History
    loggers: list[Logger]
    cut_off: CutOff | None
    """The progress of an earlier process that was cut off."""
    begun: datetime
    started: float
    """Clock in seconds."""

    @property
    def is_trial(self) -> bool:
        """True if it belongs to a search."""
        return self.cfg.optuna.trial is not None


def train(cfg: DictConfig, folder: Path) -> float:
    """Train as ``conf/train.yaml`` says, then measure the best checkpoint once on the test split.

    With ``test=false`` the test split is left alone, and validation is reported. A trial that its
    search ends early leaves ``pruned.json`` and is not measured. Everything is written into
    ``folder``; returned is the best validation macro-F1, a fraction.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    run = build(cfg, folder)
    try:
        fit_or_go_on(run)
        trained = time.perf_counter() - run.started
        if run.is_trial and read_progress(folder / LAST).pruned:
            return record_pruned(run, trained)
        # The best checkpoint, on val and, unless test=false, once on test.
        network = load_checkpoint(folder / BEST).network
        results = [
            measure_network(network, run.data, split, run.computing, **measuring(cfg))
            for split in (("val", "test") if cfg.test else ("val",))
        ]
        write(run, results, trained)
        return float(results[0].metrics["macro_f1"])
    finally:
        finish(run.loggers)  # the next job of a sweep is a run of its own


def build(cfg: DictConfig, folder: Path) -> Run:
    """Make everything that the training needs, and check it before it begins."""
    started, begun = time.perf_counter(), datetime.now(timezone.utc)
    check_options(cfg)
    quieten_lightning()
    set_up_torch(cfg.seed)
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    processes = int(cfg.trainer.devices)
    check_processes(processes, computing.device)
    network, mixing = make_model(cfg.model), Mixing(**cfg.mixing)
    data = make_data(cfg, network, device=computing.device)
    data.prepare_data()
    data.setup()
    data.check_accepted()
    data.check_shares(processes)
    network.set_normalisation(*data.normalisation())
    module = EmotionModule(
        network,
        make_loss(make_later(cfg.loss), data.class_counts()),
        make_later(cfg.optimizer),
        make_later(cfg.scheduler),
        mixing=mixing,
        cuda_graph=cfg.trainer.cuda_graph,
    )
    if cfg.trainer.compile:
        network.compile()
    hold(folder)  # in a sweep, only the sweep's own folder is held so far
    keep(folder)
    remove_leftovers(folder)  # of a run that was killed while it wrote
    cut_off = load_cut_off(cfg, folder, data, module.teachers)
    history = History(folder / "history.csv")
    loggers = make_loggers(cfg, folder, cut_off)
    trainer = make_trainer(cfg, folder, computing, loggers, history)
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    found = data.prepared.integrity
    log_to_file(
        f"{command_line()}\nwith {used}\non {data.dataset_name}, fingerprint "
        f"{found['fingerprint'][:16]}, {found['verdict']}: {found['verdict_text']}",
        logging.INFO,
    )
    log.info(
        "Training %s (%s parameters) on %s: %s images, %s%s, %s",
        network.title,
        f"{network.count_parameters():,}",
        data.dataset_name,
        f"{len(data.datasets['train']):,}",
        computing.device,
        "" if processes == 1 else f" in {processes} processes",
        computing.precision,
    )
    return Run(
        cfg, folder, computing, data, module, trainer, history, loggers, cut_off, begun, started
    )


def set_up_torch(seed: int) -> None:
    """Seed every generator and choose deterministic operations."""
    pl.seed_everything(seed, workers=True, verbose=False)
    # Warn only: a device may lack the deterministic version of an operation.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # That also fills memory before an operation overwrites it, which nothing needs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()


def make_trainer(
    cfg: DictConfig, folder: Path, computing: Computing, loggers: list[Logger], history: History
) -> pl.Trainer:
    """Lightning's trainer with the callbacks of every run and those of ``cfg``."""
    options: Options = {}
    if cfg.trainer.devices > 1:
        # They are spawned by the one that Hydra started, which measures the test split when they
        # have ended: no second one composes a configuration or makes a run folder. The environment
        # is named, since inside a Slurm job Lightning would wait for Slurm to start them.
        options["strategy"] = DDPStrategy(
            cluster_environment=LightningEnvironment(), start_method="spawn"
        )
    # Anything else below trainer is Lightning's: +trainer.gradient_clip_val=1.0
    options |= {key: own for key, own in resolved(cfg.trainer).items() if key not in TRANSLATED}
    best, last = make_checkpoints(folder / "checkpoints")
    own = make_callbacks(cfg)
    epochs = EpochLog(history, folder / "train.log", bar=cfg.trainer.progress_bar)
    boards = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    shown = [EpochPictures(board) for board in boards]
    trainer: pl.Trainer = Guard(pl.Trainer, "trainer")(
        accelerator="gpu" if computing.device.type == "cuda" else computing.device.type,
        devices=cfg.trainer.devices,
        precision=computing.precision,
        max_epochs=cfg.trainer.max_epochs,
        logger=loggers or False,
        callbacks=[
            *(Quiet(), DivergenceGuard(folder), history, epochs),
            *shown,  # before the averaged weights, which validation has seen, are put back
            *(*own, best, last),
        ],
        plugins=[AtomicCheckpointIO(background=not passes_on(cfg))],
        use_distributed_sampler=False,  # the data module shares out the images, and repeats none
        num_sanity_val_steps=0,  # it would only cost time and count in the metrics
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in own),
        enable_model_summary=False,
        default_root_dir=folder,
        log_every_n_steps=1,
        **options,
    )
    return trainer


def passes_on(cfg: DictConfig) -> bool:
    """True if a logger uploads each checkpoint as soon as it is saved."""
    return any(node.get("log_model") == "all" for node in several(cfg.logger).values())


def fit_or_go_on(run: Run) -> None:
    """Train from the beginning or from the last checkpoint; not at all if it is trained."""
    cut_off, folder = run.cut_off, run.folder
    if cut_off is not None:
        log.info("Going on after epoch %s of %s", cut_off.epochs, folder)
    if cut_off is not None and (
        cut_off.is_trained(run.cfg.trainer.max_epochs) or (run.is_trial and cut_off.pruned)
    ):
        run.history.load_state_dict({"rows": cut_off.rows})
    else:
        fit(run.trainer, run.module, run.data, None if cut_off is None else cut_off.path)
        if run.trainer.world_size > 1:  # the history was written in another process
            run.history.load_state_dict({"rows": read_progress(folder / LAST).rows})
    if not run.history.rows:
        raise TrainingError(
            "trainer: expected at least one whole epoch with its validation, found that training "
            "ended before. Raise or leave out trainer.max_steps and trainer.max_time."
        )


def write(run: Run, results: Sequence[SplitResult], trained: float) -> None:
    """Write numbers, figures and, last, the page: a run that has its page is finished.

    The first of the results is of val, the second, where it was measured, of test. Training took
    ``trained`` seconds.
    """
    cfg, folder, data, history = run.cfg, run.folder, run.data, run.history
    val, result = results[0], results[-1]
    notes = notes_on(data)
    if run.cut_off is not None:
        notes += compare_threads(run.cut_off.threads, torch.get_num_threads())
    if not cfg.test:
        notes.insert(
            0,
            "The test split was left alone (test=false). The best epoch was chosen on the "
            "validation images that these figures are of: they flatter it.",
        )
    empty = describe_empty(result.metrics)
    if empty is not None:
        notes.insert(0, empty)
    write_json(folder / "metrics.json", result.metrics)
    assert history.best_epoch is not None  # there is a row
    record: TrainingRecord = {
        **describe_run(resolved(cfg), data, run.computing, notes),
        "started": run.begun.isoformat(timespec="seconds"),
        "resumed_after_epochs": None if run.cut_off is None else run.cut_off.epochs,
        "best_epoch": history.best_epoch,
        "epochs": len(history.rows),
        "validation": scores_in(val.metrics),
        "images_per_second": float(np.median([row["images_per_second"] for row in history.rows])),
        "training_seconds": round(trained, 1),
        "wall_seconds": round(time.perf_counter() - run.started, 1),
    }
    if run.module.teachers:
        record["teachers"] = run.module.teachers
    write_json(folder / "run.json", record)
    took = duration(record["wall_seconds"])
    counts = data.prepared.integrity["counts"]
    figures = run_section(folder, results, history.rows, history.best_epoch, counts)
    log_results(run.loggers, hyper_parameters(cfg), results)
    write_run_report(
        folder / FINISHED,
        title=f"{data.dataset_name}: {run.module.network.title}",
        subtitle=f"Best of {len(history.rows)} epochs on validation macro-F1, measured on "
        f"the {len(result.target):,} {result.metrics['split']} images.",
        notes=notes,
        metrics=result.metrics,
        sections=[figures],
        provenance=record,
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        val=val.metrics if cfg.test else None,
        data=data.prepared.integrity,
        left_out=describe_left_out(data.left_out),
    )
    print_summary(
        folder / FINISHED,
        result,
        val if cfg.test else None,
        notes,
        f"Epoch {history.best_epoch + 1} of {len(history.rows)} was the best on validation, by its "
        f"macro-F1. All took {took}.",
    )


def fit(
    trainer: pl.Trainer, module: EmotionModule, data: EmotionDataModule, path: Path | None
) -> None:
    """Train; an error in one of several processes is raised here with its own class.

    Raises:
        FerError: as the process raised it.
        CheckpointError: this training cannot go on from ``path``.
    """
    try:
        trainer.fit(module, data, ckpt_path=None if path is None else str(path))
    except FerError:
        raise
    except SystemExit as stop:
        if trainer.strategy.launcher is not None:  # its processes would go on alone
            trainer.strategy.launcher.kill(signal.SIGTERM)
        if stop.code == 1 and trainer.interrupted:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from stop
        raise
    except FileNotFoundError as error:  # TensorBoard's writer may be the first to notice
        if Path(trainer.default_root_dir).is_dir():
            raise
        raise vanished(Path(trainer.default_root_dir), trainer.current_epoch + 1) from error
    except ProcessRaisedException as error:
        found = re.findall(r"^fer\.core\.errors\.(\w+): (.*)", str(error), re.DOTALL | re.MULTILINE)
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


def record_pruned(run: Run, seconds: float) -> float:
    """Write ``pruned.json``, the scores of a trial that was ended early; returns its best."""
    history = run.history
    assert history.best_epoch is not None
    scores = {
        name: history.rows[history.best_epoch][f"val_{name}"] for name in ("accuracy", "macro_f1")
    }
    record: PrunedRecord = {
        "best_epoch": history.best_epoch,
        "epochs": len(history.rows),
        "validation": scores,
        "wall_seconds": round(seconds, 1),
    }
    write_json(run.folder / PRUNED, record)
    log.info(
        "Trial %s was ended after %s epochs with a best validation macro-F1 of %.2f %%: below the "
        "median of the trials before it",
        run.cfg.optuna.trial,
        len(history.rows),
        100 * scores["macro_f1"],
    )
    return scores["macro_f1"]


def load_cut_off(
    cfg: DictConfig, folder: Path, data: EmotionDataModule, teachers: Sequence[str]
) -> CutOff | None:
    """The progress of a run that is resumed; None if it has not finished an epoch.

    Raises:
        CheckpointError: it was trained on other images, or learned from other teachers.
    """
    path = folder / LAST
    if cfg.resume in (None, "auto") or not path.is_file():
        return None
    extras = load_checkpoint(path).extras
    trained_on = extras["dataset"]
    if trained_on["fingerprint"] != data.prepared.integrity["fingerprint"]:
        raise CheckpointError(
            f"{path}: expected a run on this copy of {data.dataset_name} (fingerprint "
            f"{data.prepared.integrity['fingerprint'][:16]}), found one on another "
            f"({trained_on['fingerprint'][:16]}). Give it the data that it was started with, or "
            "start a new run without resume."
        )
    if extras.get("teachers", []) != list(teachers):
        raise CheckpointError(
            f"{path}: expected a run that learned from the checkpoints that loss.teacher names, "
            "found that they have changed since. Put the earlier ones back, or start a new run "
            "without resume."
        )
    return read_progress(path)
