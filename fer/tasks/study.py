"""The whole study in one command: ``python -m fer study a=fer2013 b=rafdb``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fer.core import labels
from fer.core.application import LIFELINE, compose, instantiate
from fer.core.errors import ConfigError, FerError
from fer.core.files import read_json, refuse_links
from fer.data.prepared import REPORTED
from fer.evaluation.explanation import REPLACEMENTS
from fer.runs.plan import Stage, Study, check_same, make_study
from fer.runs.state import BEST
from fer.tasks.wrap_up import put_side_by_side

if TYPE_CHECKING:
    from fer.model.network import NormalisedNetwork

STARTING = 8.0
"""Seconds that a command takes before it computes, and for its figures; roughly."""


# --- how long it takes -------------------------------------------------------------------------


def estimate(study: Study) -> dict[str, float | None]:
    """Seconds that each stage takes, roughly, from a few measured steps; None: not known."""
    rates: tuple[float, float] | None = None
    stages = 0
    counts = {name: count_images(study, name) for name in study.datasets}
    seconds: dict[str, float | None] = {}
    for stage, name in zip(study.stages, study.datasets, strict=False):
        total = counts[name]
        # Reading, checking and drawing: about 1,500 small images a second on one core.
        seconds[stage.name] = None if total is None else STARTING + sum(total.values()) / 1500
    left = [stage for stage in study.stages[len(study.datasets) :] if not stage.done]
    if left:
        from fer.tasks.assembly import make_model  # imports torch, which a finished study needs not

        network = make_model(compose("train", list(study.options)).model)
        stages = len(network.stages())
        rates = measure_rates(study, network)
    for (name, seed), stage in study.trainings.items():
        own = counts[name]
        if stage.done or own is None or rates is None:
            seconds[stage.name] = None
            continue
        cfg = compose("train", [f"dataset={name}", f"seed={seed}", *study.options])
        epochs = int(cfg.trainer.max_epochs)
        if stage.begun:
            assert stage.folder is not None
            rows = (stage.folder / "history.csv").read_text().count("\n") - 1
            epochs = max(0, epochs - rows)
        each = own["train"] / rates[0] + own["val"] / rates[1]
        seconds[stage.name] = STARTING + epochs * each + own["val"] / rates[1]
    for one in study.evaluations:
        own = counts[one.measured_on]
        if one.stage.done or own is None or rates is None:
            seconds[one.stage.name] = None
            continue
        settings, maps, steps = count_passes(study.measured if one.at_home else (), stages)
        took = own["test"] * (1 + settings) / rates[1] + maps / rates[0] + steps / rates[1]
        seconds[one.stage.name] = STARTING + took
    return seconds


def count_passes(options: Sequence[str], stages: int) -> tuple[int, int, int]:
    """What an evaluation asks of the network.

    Args:
        options: of ``evaluate.py``.
        stages: parts of the network whose weights the sanity check randomises.

    Returns:
        Damaged versions of each image; images that go forward and back for saliency maps, and
        forward to see whether the maps mean anything.
    """
    from fer.tasks.evaluate import configured_settings

    cfg = compose("evaluate", ["checkpoint=none", *options])
    settings = len(configured_settings(cfg))
    asked = cfg.get("saliency")
    if asked is None:
        return settings, 0, 0
    each = {"smoothgrad": asked.smoothgrad.samples}
    each |= {"integrated_gradients": asked.integrated_gradients.steps}
    a_map = sum(each.get(method, 1) for method in asked.methods)
    images = (
        labels.NUM_CLASSES * asked.images_per_class
        + asked.sanity.images * stages
        + asked.confusions.pairs * asked.confusions.examples
    )
    # Deletion and insertion, by each method and by random maps.
    curves = 2 * len(REPLACEMENTS) * (len(asked.methods) + 1)
    return settings, images * a_map, asked.faithfulness.images * asked.faithfulness.steps * curves


def count_images(study: Study, name: str) -> dict[str, int] | None:
    """Images of each split: as prepared, as they will be drawn, or as the authors state them."""
    stage = study.stages[study.datasets.index(name)]
    if stage.done:
        counts = read_json(stage.done_by, REPORTED)["counts"]
        return {split: sum(own.values()) for split, own in counts.items()}
    cfg = compose("train", [f"dataset={name}"]).dataset
    if cfg.generator is not None:
        return {split: int(cfg.generator[split]) for split in ("train", "val", "test")}
    official = instantiate(cfg.reader).official_counts
    if official is None:
        return None
    counts = {split: sum(own.values()) for split, own in official.items()}
    if "val" not in counts:
        share = cfg.reader.get("val_fraction")
        if share is None:  # a reader of one's own, which holds val out in its own way
            return None
        held_out = round(counts["train"] * share)
        counts |= {"train": counts["train"] - held_out, "val": held_out}
    return counts


def measure_rates(study: Study, network: NormalisedNetwork) -> tuple[float, float]:
    """Images per second of a training step and of prediction, from a second of each."""
    import torch

    from fer.core.hardware import Computing, autocast_dtype, keep_freed_memory
    from fer.evaluation.inference import predict

    keep_freed_memory()  # as the runs do
    cfg = compose("train", [f"dataset={study.datasets[0]}", *study.options])
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    network.to(computing.device).to(memory_format=torch.channels_last)
    shape = (cfg.loader.batch_size, network.image_size, network.image_size, network.in_channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    batch = images.to(computing.device).permute(0, 3, 1, 2)
    dtype = autocast_dtype(computing.precision)

    def train() -> None:
        with torch.autocast(computing.device.type, dtype=dtype, enabled=dtype is not None):
            loss = network(batch).float().logsumexp(1).mean()
        loss.backward()
        loss.item()  # waits for the device

    def forward() -> None:
        predict(
            network, images.numpy(), device=computing.device, precision=computing.precision,
            batch_size=len(images),
        )  # fmt: skip

    network.train()
    return len(images) * per_second(train), len(images) * per_second(forward)


def per_second(step: Any, seconds: float = 1.0) -> float:
    """How often ``step`` runs per second, after a first time that does not count."""
    step()
    started, times = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        times += 1
    return times / (time.perf_counter() - started)


def about(seconds: float | None) -> str:
    """A duration in words.

    >>> about(40), about(170), about(8000), about(None)
    ('under a minute', 'about 3 min', 'about 2.2 h', 'unknown')
    """
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return "under a minute"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


# --- doing it ----------------------------------------------------------------------------------


def study_task(cfg: DictConfig, _: Path) -> None:
    """Do what is left of a study.

    Raises:
        FerError: a value is wrong, the folder holds another study, or a stage failed.
    """
    study = make_study(cfg)
    refuse_links(study.folder)
    if study.page.is_file() and not (study.folder / "study.json").is_file():
        raise ConfigError(
            f"{study.folder}: expected the folder of a study, or a new one, found the page of "
            "something else in it. Choose another folder: folder=PATH"
        )
    check_same(study)
    left = [stage for stage in study.stages if not stage.done]
    print(f"Study of {' and '.join(study.datasets)} in {study.folder}")
    if not left and study.page.is_file():
        print(f"Nothing to do: all {len(study.stages)} stages are complete. {study.page}")
        return
    if left:
        print_plan(study, estimate(study))
    if cfg.plan:
        return
    failed = run_stages(study)
    if failed:
        stage, code = failed[0]
        raise FerError(
            f"{len(failed)} of {len(study.stages)} stages failed, first: {stage.name} (exit code "
            f"{code}; its message stands above). What does not need them is complete. When the "
            "cause is gone, the same command goes on."
        )
    # Measuring and drawing: imported when there is something to draw.
    from fer.model.checkpoint import load_checkpoint
    from fer.report.study_page import write_study

    check_same(study)  # of what went on, too
    put_side_by_side(study.folder / "evaluate")
    networks = {
        load_checkpoint(stage.done_by.parent / BEST).network for stage in study.trainings.values()
    }
    page = write_study(study, networks.pop().count_parameters())
    print(f"The study: {page}")


def print_plan(study: Study, seconds: Mapping[str, float | None]) -> None:
    """What there is to do, and about how long it takes."""
    total, unknown = 0.0, False
    for stage in study.stages:
        if stage.done:
            print(f"  done      {stage.name}")
            continue
        took = seconds[stage.name]
        total += took or 0.0
        unknown |= took is None
        state = "goes on" if stage.begun else "to do"
        print(f"  {state:<9} {stage.name}: {about(took)}")
    more = ", and what is unknown" if unknown else ""
    print(f"In all {about(total)}{more}, by a few steps that were timed now.", flush=True)


def run_stages(study: Study) -> list[tuple[Stage, int]]:
    """Run what is not done; what needs a stage that failed is left out.

    Returns:
        Stages that failed or were left out, with their exit codes (-1: left out).
    """
    failed: list[tuple[Stage, int]] = []
    environment = {**os.environ, "PYTHONPATH": search_path()}
    for number, stage in enumerate(study.stages, start=1):
        if stage.done:
            continue
        print(f"\n[{number}/{len(study.stages)}] {stage.name}\n  {stage.line}", flush=True)
        if any(other.name in stage.needs for other, _ in failed):
            print("  left out: it needs a stage that failed", flush=True)
            failed.append((stage, -1))
            continue
        if stage.folder is not None and stage.done_by.is_file():
            # Of another checkpoint, or with other options: nothing of it is to stay beside the new.
            print(f"  {stage.folder} is of an earlier state, and is measured again", flush=True)
            shutil.rmtree(stage.folder)
        code = run_child([sys.executable, *stage.command], environment)
        if code:
            failed.append((stage, code))
    return failed


def run_child(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command that does not outlive this process, however this one ends; its exit code."""
    read, write = os.pipe()  # the other end closes when this process is gone
    process = subprocess.Popen(command, env={**environment, LIFELINE: str(read)}, pass_fds=(read,))
    os.close(read)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        os.close(write)


def search_path() -> str:
    """Where Python looks for modules: this package first, not another one that is installed."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
