"""Training steps on a GPU: are they right, and how fast.  python benchmarks/gpu.py > gpu.json

    python benchmarks/gpu.py dataset=fer2013 dataset.raw=archive.zip
    python benchmarks/gpu.py --dry          # every part on a tiny size, on any machine

Options are those of train.py. On one card it takes at most ten minutes, and prints JSON:

- ``steps``: the largest difference between the losses of 200 steps that are replayed as a graph and
  of single ones (float32, no dropout, the same seeds), and the milliseconds of a bare replay.
- ``train_py``: for the defaults, chunks without a graph, and single steps, the milliseconds of a
  step, from images/s of the last epochs.
- ``repeated`` and ``resumed``: whether a second training, and one that was killed and goes on, have
  the weights of the first.
- ``whole``: seconds of the whole train.py from the start of its process to its end, of its training
  and of the rest; scores; seconds of epochs until validation accuracy first reaches each target.
- the card, its peak memory, versions and the commit.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from fer import EmotionModule, SharedCNN
from fer.core.hardware import find_device
from fer.model.graph import GraphedSteps
from fer.tasks.train import set_up_torch

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
TARGETS = (0.64, 0.668, 0.68)
BATCH, CHUNK = 64, 32
WAYS = {
    "graph": (),
    "chunks": ("trainer.cuda_graph=false",),
    # A limit that is never reached is about single steps, and costs nothing.
    "single": ("+trainer.max_steps=1000000",),
}
"""Ways to take training steps, and the options of train.py for them."""
TINY = (
    *("dataset=synthetic_a", "dataset.generator.train=700", "dataset.generator.val=70"),
    *("dataset.generator.test=70", "model=shared_cnn_small", "model.widths=[4,8]"),
    *("loader.on_device=true", "loader.chunk=4", "metrics.resamples=100"),
)


class Chunks(pl.LightningDataModule):
    """Random images on a device, one chunk of batches again and again."""

    def __init__(self, device: torch.device, repeats: int, steps: int) -> None:
        super().__init__()
        self.on_device, self.in_chunks, self.repeats, self.steps = device, False, repeats, steps
        generator = torch.Generator(device).manual_seed(0)
        n = BATCH * steps
        self.images = torch.rand(n, 1, 48, 48, device=device, generator=generator)
        self.target = torch.randint(0, 7, (n,), device=device, generator=generator)

    def images_of_step(self) -> int:
        """Images of a batch."""
        return BATCH

    def steps_of_epoch(self) -> int:
        """Optimizer steps."""
        return self.repeats * self.steps

    def train_dataloader(self) -> DataLoader[Any]:
        """Chunks, or their batches."""
        parts: Any = list(zip(self.images.split(BATCH), self.target.split(BATCH), strict=True))
        parts = [(self.images, self.target)] if self.in_chunks else parts
        return DataLoader(parts * self.repeats, batch_size=None)


class Losses(pl.Callback):
    """Keeps the losses of the steps, and times a bare graph when they are done."""

    takes_chunks = True

    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []
        self.milliseconds: float | None = None

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Keep them."""
        self.values.append(arguments[2]["loss"].detach().reshape(-1).clone())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replay the graph, if there is one."""
        graphed = getattr(pl_module.take, "__self__", None)
        if isinstance(graphed, GraphedSteps):
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(10):
                graphed.place.zero_()
                for _ in range(CHUNK):
                    graphed.replay()
            torch.cuda.synchronize()
            self.milliseconds = 1000 * (time.perf_counter() - started) / (10 * CHUNK)


class Single(pl.Callback):
    """Makes steps single: it looks at each."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Look."""


def take_steps(device: torch.device, way: str, steps: int, precision: Any) -> Losses:
    """Take so many steps on random images, without dropout."""
    set_up_torch(0)
    chunk = min(CHUNK, steps)
    module = EmotionModule(SharedCNN(dropout=0.0), cuda_graph="auto" if way == "graph" else False)
    kept = Losses()
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, max_epochs=1,
        precision=precision, logger=False, callbacks=[kept, *[Single()] * (way == "single")],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, Chunks(device, -(-steps // chunk), chunk))
    return kept


def compare_steps(device: torch.device, steps: int) -> dict[str, Any]:
    """The losses of graphed or chunked steps beside those of single ones."""
    found = {way: take_steps(device, way, steps, "32-true") for way in ("graph", "single")}
    one, other = (torch.cat(kept.values).cpu()[:steps] for kept in found.values())
    quick = take_steps(device, "graph", CHUNK, "bf16-mixed" if device.type == "cuda" else "32-true")
    return {
        "steps": steps,
        "first_and_last_loss": [round(float(one[0]), 4), round(float(one[-1]), 4)],
        "largest_difference": float((one - other).abs().max()),
        "milliseconds_of_a_bare_replay": quick.milliseconds,
    }


def run_train(folder: Path, *options: str, kill_after: int | None = None) -> float:
    """Run train.py in ``folder``, or kill it once so many epochs are done; returns seconds."""
    command = [sys.executable, str(TRAIN), *options, "trainer.progress_bar=false"]
    if not any(option.startswith("resume=") for option in options):
        command.append(f"hydra.run.dir={folder}")
    started = time.perf_counter()
    with (folder.parent / f"{folder.name}.txt").open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while kill_after is not None and process.poll() is None:
            if len(history(folder)) >= kill_after and (folder / "checkpoints/last.ckpt").exists():
                process.send_signal(signal.SIGKILL)
            time.sleep(0.05)
        code = process.wait()
    if code and kill_after is None:
        sys.exit(f"{' '.join(command)} failed:\n{Path(output.name).read_text()}")
    return time.perf_counter() - started


def history(folder: Path) -> list[dict[str, float]]:
    """Rows of a run's history so far."""
    path = folder / "history.csv"
    if not path.is_file():
        return []
    with path.open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a run's last epoch."""
    path = folder / "checkpoints" / "last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state["state_dict"]  # type: ignore[return-value]


def equal(one: Path, other: Path) -> bool:
    """True if two runs have the same weights, bit for bit."""
    first, second = weights(one), weights(other)
    return all(torch.equal(first[key], second[key]) for key in first)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="every part on a tiny size")
    parser.add_argument("options", nargs="*", help="of train.py; default: dataset=fer2013")
    arguments = parser.parse_args()
    options = TINY if arguments.dry else tuple(arguments.options or ["dataset=fer2013"])
    device = find_device("auto")
    report: dict[str, Any] = {
        "commit": subprocess.run(["git", "-C", str(TRAIN.parent), "rev-parse", "--short", "HEAD"],
                                 capture_output=True, text=True).stdout.strip(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "versions": {"torch": torch.__version__, "lightning": lightning.__version__,
                     "cuda": torch.version.cuda},
        "options": options,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        run_train(place / "prepared", *options, "trainer.max_epochs=1", "test=false")
        report["steps"] = compare_steps(device, 8 if arguments.dry else 200)
        report["train_py"] = {}
        for way, own in WAYS.items():
            run_train(place / way, *options, *own, "trainer.max_epochs=3", "test=false")
            speeds = [row["images_per_second"] for row in history(place / way)[1:]]
            report["train_py"][way] = round(1000 * BATCH / max(speeds), 3)
        run_train(place / "again", *options, "trainer.max_epochs=3", "test=false")
        report["repeated"] = equal(place / "graph", place / "again")
        short = [*options, "trainer.max_epochs=3", "test=false"]
        run_train(place / "killed", *short, kill_after=1)
        run_train(place / "killed", f"resume={place / 'killed'}")
        report["resumed"] = equal(place / "graph", place / "killed")
        whole = place / "whole"
        seconds = run_train(whole, *options, *(["trainer.max_epochs=2"] if arguments.dry else []))
        rows = history(whole)
        record = json.loads((whole / "run.json").read_text())
        metrics = json.loads((whole / "metrics.json").read_text())
        report["whole"] = {
            "seconds": round(seconds, 1),
            "seconds_of_epochs": round(sum(row["seconds"] for row in rows), 1),
            "seconds_of_training_and_start": record["training_seconds"],
            "epochs": len(rows),
            "test": {key: round(metrics[key], 4) for key in ("accuracy", "macro_f1")},
            "seconds_to": {
                str(target): next(
                    (round(sum(own["seconds"] for own in rows[: index + 1]), 1)
                     for index, row in enumerate(rows) if row["val_accuracy"] >= target), None)
                for target in TARGETS
            },
        }  # fmt: skip
    if device.type == "cuda":
        report["peak_megabytes_of_bare_steps"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
