"""The whole study in one command: ``python -m fer study a=fer2013 b=rafdb``."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from fer.core import labels
from fer.core.application import LIFELINE, instantiate
from fer.core.composition import compose
from fer.core.errors import FerError
from fer.core.options import check_options
from fer.evaluation.explanation import REPLACEMENTS
from fer.report.study_results import RESULTS
from fer.runs.plan import make_study
from fer.runs.stages import (
    Measurement,
    Preparation,
    Stage,
    Training,
    check_runs,
    refuse_others,
)
from fer.runs.state import FINISHED, State, state_of
from fer.tasks.wrap_up import put_side_by_side

if TYPE_CHECKING:
    from fer.model.network import NormalisedNetwork

EARLIER = ".earlier"
"""The folder of measurements that are made again, until that has succeeded."""
STARTING = 8.0
"""Seconds that a command takes before it computes, and for its figures; roughly."""
PREPARED = 1500
"""Small images that are read, checked and plotted in a second on one core; roughly."""
Counts = dict[str, int]
"""Images of each split."""


# --- how long it takes -------------------------------------------------------------------------


def estimate(
    stages: Sequence[Stage], counts: Mapping[str, Counts | None], measured: Sequence[str] = ()
) -> dict[str, float | None]:
    """Seconds that each stage that is left takes, roughly; None where that is not known.

    Args:
        stages: all of them.
        counts: the images of each dataset's splits.
        measured: options of the evaluations of a network on its own dataset.
    """
    left = [stage for stage in stages if not stage.done]
    rates, randomised = (1.0, 1.0), 0
    if any(not isinstance(stage, Preparation) for stage in left):
        from fer.tasks.assembly import make_model  # imports torch

        training = next(stage for stage in stages if isinstance(stage, Training))
        cfg = compose("train", training.options)
        network = make_model(cfg.model)
        rates, randomised = measure_rates(cfg, network), len(network.stages())
    seconds: dict[str, float | None] = {}
    for stage in left:
        own = counts[stage.dataset]
        if own is None:
            seconds[stage.name] = None
        elif isinstance(stage, Preparation):
            seconds[stage.name] = STARTING + sum(own.values()) / PREPARED
        else:
            if isinstance(stage, Training):
                epochs = epochs_left(stage)
                trained, predicted = epochs * own["train"], (epochs + 1) * own["val"]
            else:
                assert isinstance(stage, Measurement)
                options = measured if stage.in_domain else []
                settings, maps, steps = count_passes(options, randomised)
                trained, predicted = maps, own["test"] * (1 + settings) + steps
            seconds[stage.name] = STARTING + trained / rates[0] + predicted / rates[1]
    return seconds


def epochs_left(stage: Training) -> int:
    """The epochs that a training has yet to do."""
    epochs = int(compose("train", stage.options).trainer.max_epochs)
    history = stage.folder / "history.csv"  # may be written after the checkpoint
    done = history.read_text().count("\n") - 1 if stage.begun and history.is_file() else 0
    return max(0, epochs - done)


def count_passes(options: Sequence[str], randomised: int) -> tuple[int, int, int]:
    """Count what an evaluation with these options asks of the network.

    That is how many damaged versions of each image; how many images that go forward and back for
    saliency maps, and forward to see whether the maps mean anything. The check with random weights
    takes the network's parts one by one, ``randomised`` of them.
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
        + asked.sanity.images * randomised
        + asked.confusions.pairs * asked.confusions.examples
    )
    # Deletion and insertion, by each method and by random maps.
    curves = 2 * len(REPLACEMENTS) * (len(asked.methods) + 1)
    return settings, images * a_map, asked.faithfulness.images * asked.faithfulness.steps * curves


def count_images(stage: Preparation) -> Counts | None:
    """Images of each split: as prepared, as they will be drawn, or as the authors state them."""
    cfg = compose("train", [f"dataset={stage.dataset}"]).dataset
    if not stage.done and cfg.generator is not None:
        return {split: int(cfg.generator[split]) for split in ("train", "val", "test")}
    counts = stage.report()["counts"] if stage.done else instantiate(cfg.reader).official_counts
    if counts is None:
        return None
    totals = {split: sum(own.values()) for split, own in counts.items()}
    if "val" not in totals:  # held out of train
        share = cfg.reader.get("val_fraction")
        if share is None:
            return None
        totals["val"] = round(totals["train"] * share)
        totals["train"] -= totals["val"]
    return totals


def measure_rates(cfg: DictConfig, network: NormalisedNetwork) -> tuple[float, float]:
    """Images per second in a configured training and in prediction, from a second of each."""
    import torch

    from fer.core.hardware import Computing, autocast_dtype, keep_freed_memory
    from fer.evaluation.inference import predict

    keep_freed_memory()  # as the runs do
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    device, dtype = computing.device, autocast_dtype(computing.precision)
    network.to(device).to(memory_format=torch.channels_last).train()
    shape = (cfg.loader.batch_size, network.image_size, network.image_size, network.in_channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    batch = images.to(device).permute(0, 3, 1, 2)

    def train() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            loss = network(batch).float().logsumexp(1).mean()
        loss.backward()
        loss.item()  # waits for the device

    def forward() -> None:
        predict(network, images.numpy(), device=device, precision=computing.precision)

    return len(images) * per_second(train), len(images) * per_second(forward)


def per_second(step: Callable[[], None]) -> float:
    """Runs of ``step`` per second, in about a second; the first one does not count."""
    step()
    started, times = time.perf_counter(), 0
    while time.perf_counter() - started < 1:
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
    """Run what is left of a study, and write its page.

    Raises:
        FerError: a value is wrong, the folder holds another study, or a stage failed.
    """
    check_options(cfg)
    study = make_study(cfg)
    refuse_others(study.folder, RESULTS, "a study")
    check_runs(study.stages)
    left = [stage for stage in study.stages if not stage.done]
    print(f"Study of {' and '.join(study.datasets)} in {study.folder}")
    page = study.folder / FINISHED
    if not left and page.is_file():
        print(f"Nothing to do: all {len(study.stages)} stages are complete. {page}")
        return
    if left:
        counts = {stage.dataset: count_images(stage) for stage in study.preparations}
        print_plan(study.stages, estimate(study.stages, counts, study.measured))
    if cfg.plan:
        return
    failed = run_stages(study.stages)
    if failed:
        stage, code = failed[0]
        raise FerError(
            f"{len(failed)} of {len(study.stages)} stages failed, first: {stage.name} (exit code "
            f"{code}; its message stands above). What does not need them is complete. When the "
            "cause is gone, the same command goes on."
        )
    # Imported when there is something to measure and plot.
    from fer.model.checkpoint import load_checkpoint
    from fer.report.study_page import write_study

    check_runs(study.stages)  # of what went on, too
    put_side_by_side(study.folder / "evaluate")
    network = load_checkpoint(study.trainings[0].checkpoint).network
    print(f"The study: {write_study(study, network.count_parameters())}")


def print_plan(stages: Sequence[Stage], seconds: Mapping[str, float | None]) -> None:
    """Print what there is to do, and about how long it takes."""
    for stage in stages:
        if stage.done:
            print(f"  done      {stage.name}")
        else:
            state = "goes on" if stage.begun else "to do"
            print(f"  {state:<9} {stage.name}: {about(seconds[stage.name])}")
    total = about(sum(took or 0.0 for took in seconds.values()))
    more = ", and what is unknown" if None in seconds.values() else ""
    print(f"In all {total}{more}, by a few steps that were timed now.", flush=True)


def run_stages(stages: Sequence[Stage], *, every: bool = True) -> list[tuple[Stage, int]]:
    """Run the stages that are not done, without those that need one that failed.

    Args:
        stages: in order.
        every: go on with what does not need it when one has failed.

    Returns those that failed with their exit codes, -1 for one that was left out.
    """
    failed: list[tuple[Stage, int]] = []
    environment = {**os.environ, "PYTHONPATH": search_path()}
    for number, stage in enumerate(stages, start=1):
        if stage.done:
            continue
        line = shlex.join(["python", *stage.command])
        print(f"\n[{number}/{len(stages)}] {stage.name}\n  {line}", flush=True)
        if any(other.name in stage.needs for other, _ in failed):
            print("  left out: it needs a stage that failed", flush=True)
            failed.append((stage, -1))
            continue
        earlier = stage.folder.parent.parent / EARLIER / stage.folder.name
        if isinstance(stage, Measurement) and state_of(stage.folder) is State.FINISHED:
            # Of another checkpoint, other options or statistics: none of it may be mixed in.
            print(f"  {stage.folder} is of an earlier state, and is measured again", flush=True)
            shutil.rmtree(earlier, ignore_errors=True)
            earlier.parent.mkdir(exist_ok=True)
            stage.folder.replace(earlier)
        code = run_child([sys.executable, *stage.command], environment)
        # It stays until there is something better. A training of the same name has nothing there.
        if isinstance(stage, Measurement) and earlier.is_dir():
            old = stage.folder if code else earlier
            shutil.rmtree(old, ignore_errors=True)
            if code:
                earlier.replace(stage.folder)
            if not any(earlier.parent.iterdir()):
                earlier.parent.rmdir()
        if code:
            failed.append((stage, code))
            if not every:
                break
    return failed


def run_child(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command that does not outlive this process, however this one ends; its exit code."""
    if sys.platform == "win32":  # where no pipe can be passed on
        return subprocess.run(command, env=environment).returncode
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
    """``PYTHONPATH`` for the commands: this package before another that is installed."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
