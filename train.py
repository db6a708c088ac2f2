"""Train the shared CNN and measure it on the test split. See ``python train.py --help``."""

from pathlib import Path

from omegaconf import DictConfig

from fer.cli import run
from fer.resume import expand


def task(cfg: DictConfig, folder: Path) -> float:
    """Train as ``cfg`` says; everything is written below ``folder``."""
    from fer.experiment import train  # imports torch, which help and mistakes need not wait for

    return train(cfg, folder)


if __name__ == "__main__":
    run(task, "train", expand)
