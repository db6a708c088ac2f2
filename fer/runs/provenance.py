"""The provenance of a result: ``run.json``."""

from __future__ import annotations

import contextlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from fer import __version__
from fer.core.processes import cpu_count
from fer.core.values import Options
from fer.data.manifest import fingerprint
from fer.runs.records import GitState, HardwareRecord, RunRecord

if TYPE_CHECKING:
    from fer.core.hardware import Computing
    from fer.data.datamodule import EmotionDataModule

PACKAGES = (
    *("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "omegaconf"),
    *("albumentations", "opencv-python-headless", "numpy", "pillow", "matplotlib", "tensorboard"),
    "cleanlab",
)


def describe_run(
    config: Options, data: EmotionDataModule, computing: Computing, notes: Sequence[str]
) -> RunRecord:
    """The part of ``run.json`` that every run has."""
    integrity = data.prepared.integrity
    return {
        "command": command_line(),
        "git": git_state(),
        "seed": config.get("seed"),
        "dataset": {
            "name": data.dataset_name,
            "fingerprint": integrity["fingerprint"],
            "identity": integrity.get("identity"),
            "form": integrity["source"]["form"],
            "verdict": integrity["verdict"],
            "official_protocol": integrity["official_protocol"],
            "images": {split: len(dataset) for split, dataset in data.datasets.items()},
            "train_counts": data.class_counts() if len(data.datasets["train"]) else None,
            "fingerprints": {split: fingerprint(data.entries(split)) for split in data.rows},
            "left_out": data.left_out,
            "disputed": len(integrity.get("disputed", [])),
        },
        "notes": list(notes),
        "versions": versions(),
        "hardware": hardware(str(computing.device), computing.precision),
        "config": config,
    }


def git_state() -> GitState | None:
    """Commit, and whether files differ from it; None outside a git checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            # Without locks: killed in the middle, status would leave one that blocks the checkout.
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of those that can change a result."""
    found = {"python": platform.python_version(), "fer": __version__}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def hardware(device: str, precision: str) -> HardwareRecord:
    """The machine and what of it was used."""
    import torch

    return {
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name(0) if device.startswith("cuda") else None,
        "precision": precision,
    }


def command_line() -> str:
    """The command as it was given, without the folder of the program."""
    program = Path(sys.argv[0]).name or "python"
    words = program.split() if program.startswith("fer ") else ["python", program]
    return shlex.join([*words, *sys.argv[1:]])


def without_places(command: str) -> str:
    """A command without the places on the machine that ran it.

    >>> without_places("python train.py dataset=fer2013 seed=1 hydra.run.dir=/home/me/x")
    'python train.py dataset=fer2013 seed=1'
    """
    places = ("hydra.", "paths.", "resume=", "dataset.raw=", "dataset.folder=", "trainer.progress")
    words = []
    try:
        given = shlex.split(command)
    except ValueError:  # not a command: a stranger may have written it
        return command
    for word in given:
        key, equals, value = word.partition("=")
        if word.startswith(places):
            continue
        if key == "checkpoint":
            value = "/".join(PurePath(value.strip("'")).parts[-3:])
        words.append(f"{key}{equals}{value}")
    return shlex.join(words)
