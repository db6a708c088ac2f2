"""Does a long training grow? Memory, open files and disk of ``train.py``, epoch by epoch.

    python benchmarks/long_run.py                  # 200 epochs on a small drawn set, a few minutes
    python benchmarks/long_run.py --epochs 50 ema.decay=0.99

The training runs as a process of its own and is watched from outside, through Linux's ``/proc``;
its TensorBoard files are read while it writes them. The exit code is 1 if something grows.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer.tasks.epoch_pictures import SHOWN

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    *("dataset.generator.train=70", "dataset.generator.val=14", "dataset.generator.test=14"),
    *("model.widths=[4,8]", "model.image_size=16", "early_stopping.patience=null"),
    *("metrics.resamples=100", "trainer.progress_bar=false"),
]
MEGABYTES = 20.0
"""By how much memory may differ: allocators keep what they once had."""
EVENT_BYTES = 4096
"""Of TensorBoard's file, for each epoch: a few scalars."""
PICTURE_BYTES = 500_000
"""Of the file, for each epoch whose answers are shown in pictures."""


@dataclass(frozen=True)
class Sample:
    """What the training held after an epoch."""

    epoch: int
    memory_mb: float
    files: int
    """Open ones."""
    disk_bytes: int
    """Of the run folder, TensorBoard's files and the history apart."""
    event_bytes: int
    events: int
    """Epochs that TensorBoard's files say something of."""


def watch(run: Path, arguments: Sequence[str]) -> list[Sample]:
    """Train and take a sample after each epoch, as far as the training leaves time for it.

    Raises:
        RuntimeError: the training failed.
    """
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments, f"hydra.run.dir={run}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    samples: list[Sample] = []
    while process.poll() is None:
        epochs = count_epochs(run)
        is_new = epochs > (samples[-1].epoch if samples else 0)
        if is_new and not (run / "figures").exists():
            try:
                samples.append(take(process.pid, run, epochs))
            except FileNotFoundError:
                continue  # a temporary file, or the process itself, was just going
        time.sleep(0.02)
    if process.returncode:
        assert process.stderr is not None
        raise RuntimeError(f"the training ended with {process.returncode}: {process.stderr.read()}")
    return samples


def count_epochs(run: Path) -> int:
    """Rows of the history."""
    try:
        with (run / "history.csv").open() as file:
            return len(list(csv.DictReader(file)))
    except FileNotFoundError:
        return 0


def take(process: int, run: Path, epoch: int) -> Sample:
    """A sample of a process that trains into ``run``."""
    sizes = {path: path.stat().st_size for path in run.rglob("*") if path.is_file()}
    events = [path for path in sizes if "tfevents" in path.name]
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return Sample(
        epoch,
        round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        len(list(Path(f"/proc/{process}/fd").iterdir())),
        sum(n for path, n in sizes.items() if path not in events and path.name != "history.csv"),
        sum(sizes[path] for path in events),
        count_events(run / "tensorboard"),
    )


def count_events(folder: Path) -> int:
    """Epochs in TensorBoard's files, read as TensorBoard reads them."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    if "val/loss" not in accumulator.Tags()["scalars"]:
        return 0
    return len(accumulator.Scalars("val/loss"))


def find_growth(samples: Sequence[Sample]) -> list[str]:
    """What has grown from a tenth of the epochs to the last one, in words.

    The first epochs do not count: what is needed once is loaded there.
    """
    last = samples[-1]
    warm = min(last.epoch, last.epoch / 10 + 2)
    first = next(sample for sample in samples if sample.epoch >= warm)
    epochs = last.epoch - first.epoch
    found = []
    if last.memory_mb - first.memory_mb > MEGABYTES:
        found.append(f"memory grew by {last.memory_mb - first.memory_mb:.0f} MB")
    if last.files > first.files + 2:  # a checkpoint may be open at the moment of a sample
        found.append(f"{last.files - first.files} more files are open")
    # A checkpoint in the middle of being written lies beside the one that it replaces.
    if last.disk_bytes > 1.7 * first.disk_bytes + 100 * epochs:
        found.append(f"the run folder grew from {first.disk_bytes:,} to {last.disk_bytes:,} bytes")
    pictures = sum(first.epoch - 1 <= epoch <= last.epoch + 1 for epoch in SHOWN)
    expected = EVENT_BYTES * (epochs + 1) + PICTURE_BYTES * pictures
    if last.event_bytes - first.event_bytes > expected:
        found.append(f"TensorBoard's files grew by {last.event_bytes - first.event_bytes:,} bytes")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("overrides", nargs="*", help="further options of train.py")
    options = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="long-run-") as place:
        samples = watch(
            Path(place) / "run",
            [*SMALL, f"paths.data={place}/data", f"trainer.max_epochs={options.epochs}",
             *options.overrides],
        )  # fmt: skip
    shown = [sample for n, sample in enumerate(samples) if n % max(1, len(samples) // 10) == 0]
    for sample in [*shown, samples[-1]]:
        print(json.dumps(asdict(sample)))
    grown = find_growth(samples)
    print(f"{len(samples)} samples; " + ("; ".join(grown) or "nothing grew"))
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
