"""Wall time until validation accuracy reaches a target, ours and a plain loop's.

    python benchmarks/time_to_accuracy.py --target 0.64 dataset=fer2013 model=shared_cnn_small

Ours is train.py with its own recipe. The plain one is benchmarks/plain.py with the recipe of a
student study of the same question: Adam at 1e-3, batch 32, RGB at 64 x 64, 30 epochs, the same
network. Both count training and validation of each epoch; neither counts preparing the data. They
run one after the other, so let nothing else run beside them. A schedule that ends sooner reaches a
modest target sooner: options of train.py, such as trainer.max_epochs=26, are ours alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hydra
import plain
import torch
from omegaconf import OmegaConf
from training import TRAIN

from fer.core.composition import config_folder
from fer.tasks.assembly import make_data, make_model


def first_reached(rows: list[tuple[float, float]], target: float) -> dict[str, float | int | None]:
    """When ``rows`` of (seconds, accuracy), one per epoch, first reach ``target``."""
    reached = next((i for i, row in enumerate(rows) if row[1] >= target), None)
    return {
        "epochs": None if reached is None else reached + 1,
        "seconds": round(
            sum(row[0] for row in rows[: len(rows) if reached is None else reached + 1])
        ),
        "best_accuracy": round(max(row[1] for row in rows), 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--target", type=float, default=0.64, help="validation accuracy, a fraction"
    )
    parser.add_argument("--plain-epochs", type=int, default=30, help="the plain loop ends here")
    parser.add_argument("overrides", nargs="*", help="as of train.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, str(TRAIN), *options.overrides, "test=false",
                   f"hydra.run.dir={run}"]  # fmt: skip
        subprocess.run(command, check=True, stdout=sys.stderr)
        with (run / "history.csv").open() as file:
            ours = [(float(r["seconds"]), float(r["val_accuracy"])) for r in csv.DictReader(file)]
    one = first_reached(ours, options.target)
    print(f"ours: {one}", file=sys.stderr)
    if one["epochs"] is None:  # before the plain loop takes its hour
        sys.exit(
            f"ours: expected a validation accuracy of {options.target}, found at best "
            f"{one['best_accuracy']}. Train for longer (trainer.max_epochs) or lower --target."
        )
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        cfg = hydra.compose("train", overrides=options.overrides)
    torch.manual_seed(0)
    place = make_data(cfg, make_model(cfg.model)).folder
    network = make_model(OmegaConf.create({**cfg.model, "in_channels": 3, "image_size": 64}))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    training = plain.loader(place / "train", 64, 3, 32, augment=True)
    validation = plain.loader(place / "val", 64, 3, 256, augment=False)
    usual: list[tuple[float, float]] = []
    while len(usual) < options.plain_epochs and (not usual or usual[-1][1] < options.target):
        started = time.perf_counter()
        for _ in plain.train_epoch(network, training, optimizer):
            pass
        reached = plain.accuracy(network, validation)
        usual.append((time.perf_counter() - started, reached))
        print(f"plain, epoch {len(usual)}: {reached:.4f}, {usual[-1][0]:.0f} s", file=sys.stderr)
    other = first_reached(usual, options.target)
    print(
        json.dumps(
            {
                "target": options.target,
                "ours": one,
                "plain": other,
                # Where the plain loop never reaches the target, its whole time counts: the true
                # ratio is smaller.
                "ours/plain": round(one["seconds"] / other["seconds"], 3),  # type: ignore[operator]
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
