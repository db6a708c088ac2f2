"""How much of the machine a training uses.  python benchmarks/training.py > training.json

For each network, several times over, images/s of
(a) the bare training step on one batch that is already in memory, a dozen in turn with a dozen of
(b) train.py's own loop: augmentation, metrics, logging and all (benchmarks/in_turn.py), then of
(c) the plain loop of benchmarks/plain.py, with the same network, input size and batch.
All three keep freed memory as train.py does, which favours the plain loop: its users do not.
Ratios are taken within a round and their median is reported: machines are noisy, and the three
share what happens in a round. The most memory that a train.py took is reported too.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import hydra
import plain
import torch
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from fer.core.composition import config_folder
from fer.core.hardware import Computing, autocast_dtype, keep_freed_memory
from fer.model.module import make_loss, parameter_groups
from fer.tasks.assembly import make_data, make_later, make_model

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "train.py"
IN_TURN = HERE / "in_turn.py"
DOZEN = 12
"""Steps of train.py, and then bare ones."""


def bare_step(cfg: DictConfig, computing: Computing) -> Callable[[], None]:
    """The training step of a configuration, on one batch that stays in memory."""
    torch.manual_seed(0)
    device = computing.device
    network = make_model(cfg.model)
    network.to(device).to(memory_format=torch.channels_last)
    loss = make_loss(make_later(cfg.loss), [1] * 7).to(device)
    optimizer = make_later(cfg.optimizer)(parameter_groups(network.parameters()))
    size, channels, n = cfg.model.image_size, cfg.model.in_channels, cfg.loader.batch_size
    batch = torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8)
    batch = batch.to(device, memory_format=torch.channels_last)
    target = (torch.arange(n) % 7).to(device)
    dtype = autocast_dtype(computing.precision)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            value = loss(network(batch), target)
        value.backward()
        optimizer.step()

    return step


def count_flops(step: Callable[[], None]) -> int:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def in_turn(overrides: list[str], images: int, batch_size: int) -> dict[str, float]:
    """Images/s of the bare step and of train.py's own: three epochs of ``images`` images."""
    batches = max(DOZEN, images // batch_size)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(IN_TURN), str(result), *overrides, "test=false",
                   "trainer.max_epochs=4", "metrics.resamples=100",
                   f"hydra.run.dir={Path(folder) / 'run'}",
                   f"+trainer.limit_train_batches={batches}",
                   "+trainer.limit_val_batches=1"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        found = json.loads(result.read_text())
    return {
        kind: batch_size * steps / found["seconds"][kind] for kind, steps in found["steps"].items()
    }


def matmul_peak(computing: Computing) -> float:
    """Floating-point operations per second of a large matrix product in the precision in use."""
    dtype = autocast_dtype(computing.precision) or torch.float32
    n = 2048 if computing.device.type == "cpu" else 8192
    a = torch.randn(n, n, dtype=dtype, device=computing.device)
    times = []
    for _ in range(6):
        wait(computing.device)
        started = time.perf_counter()
        a @ a
        wait(computing.device)
        times.append(time.perf_counter() - started)
    return 2 * n**3 / min(times[1:])


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="shared_cnn,shared_cnn_small", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of a, b and c")
    parser.add_argument("--images", type=int, default=5120, help="of an epoch; b has three")
    parser.add_argument("overrides", nargs="*", help="as of train.py, such as dataset=fer2013")
    options = parser.parse_args()
    keep_freed_memory()
    report = {}
    for name in options.models.split(","):
        overrides = [f"model={name}", *options.overrides]
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            cfg = hydra.compose("train", overrides=overrides)
        computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
        data = make_data(cfg, make_model(cfg.model))
        data.prepare_data()
        size, n = cfg.model.image_size, cfg.loader.batch_size
        rounds = []
        for number in range(options.rounds):
            print(f"{name}: round {number + 1} of {options.rounds}", file=sys.stderr)
            product = matmul_peak(computing)
            flops = count_flops(bare_step(cfg, computing)) // n
            speeds = in_turn(overrides, options.images, n)
            network = make_model(cfg.model)
            usual = plain.throughput(
                network, data.folder / "train", size, cfg.model.in_channels, n, options.images
            )
            rounds.append({**speeds, "plain": usual, "peak": product})
        middle = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
        report[name] = {
            "input": [cfg.model.in_channels, size, size],
            "batch_size": n,
            "device": str(computing.device),
            "precision": computing.precision,
            "images_per_second": {
                "a_bare_step": round(middle["bare"], 1),
                "b_train_py": round(middle["own"], 1),
                "c_plain_loop": round(middle["plain"], 1),
            },
            "b/a": round(statistics.median(row["own"] / row["bare"] for row in rounds), 3),
            "b/c": round(statistics.median(row["own"] / row["plain"] for row in rounds), 2),
            "training_gflop_per_image": round(flops / 1e9, 4),
            "matmul_gflop_per_second": round(middle["peak"] / 1e9, 1),
            "share_of_matmul_peak": round(
                statistics.median(row["bare"] * flops / row["peak"] for row in rounds), 3
            ),
            "rounds": [{key: round(value, 1) for key, value in row.items()} for row in rounds],
        }
    machine = {
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        json.dumps(
            {"machine": machine, "train_py_peak_megabytes": round(peak), "networks": report},
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
