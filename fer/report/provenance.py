"""Where a result comes from: ``run.json``."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import fer
from fer.data.files import cpu_count

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "pillow",
    "matplotlib",
    "tensorboard",
)


def git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None where the source is not a git checkout."""
    folder = Path(fer.__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python, this package and those whose versions can change a result."""
    found = {"python": platform.python_version(), "fer": fer.__version__}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def hardware(device: str, precision: str) -> dict[str, Any]:
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
    """The command that was given, with the program's name but not the folder that it lies in."""
    import shlex

    program = Path(sys.argv[0]).name or "python"
    return shlex.join(["python", program, *sys.argv[1:]])


def without_places(command: str) -> str:
    """A command without where things lay on the machine that ran it.

    >>> without_places("python train.py dataset=fer2013 seed=1 hydra.run.dir=/home/me/x")
    'python train.py dataset=fer2013 seed=1'
    """
    places = ("hydra.", "paths.", "resume=", "dataset.raw=", "dataset.folder=", "trainer.progress")
    words = []
    for word in shlex.split(command):
        key, equals, value = word.partition("=")
        if word.startswith(places):
            continue
        if key == "checkpoint":
            value = "/".join(PurePath(value.strip("'")).parts[-3:])
        words.append(f"{key}{equals}{value}")
    return shlex.join(words)
