"""What the notebooks share: their settings, and commands that are not run twice."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

from fer import __version__
from fer.core.errors import FerError

ROOT = Path(__file__).resolve().parent.parent
"""Paths are relative to the repository, wherever a notebook was started."""

# What Lightning says of devices and bars has no place between a reader and a figure.
logging.disable(logging.INFO)
warnings.filterwarnings("ignore", message=r"IProgress not found|`isinstance\(treespec")


class CommandFailed(FerError, RuntimeError):
    """A program that a notebook started has ended with an error."""


def setting(name: str, default: str) -> str:
    """A setting of a notebook: the environment's ``FER_NOTEBOOK_<name>``, else ``default``."""
    return os.environ.get(f"FER_NOTEBOOK_{name}") or default


def data_folder(dataset: str) -> Path:
    """Where a prepared dataset lies."""
    return ROOT / (os.environ.get("FER_DATA") or "data") / dataset


def spelled(*arguments: str) -> str:
    """A command as it is typed in the repository."""
    return shlex.join(["python", *arguments]).replace(f"{ROOT}{os.sep}", "")


def python(*arguments: str, lines: int = 12) -> None:
    """Run ``python <arguments>`` in the repository, and show the command with its last ``lines``.

    Raises:
        CommandFailed: it ended with an error.
    """
    print(f"$ {spelled(*arguments)}", flush=True)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8", "TERM": "dumb"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    said = done.stdout.replace(f"{ROOT}{os.sep}", "").rstrip().splitlines()
    if done.returncode:
        raise CommandFailed(
            f"python {arguments[0]}: expected it to come to its end, found exit code "
            f"{done.returncode} after:\n" + "\n".join(said[-12:])
        )
    print("\n".join(["…", *said[-lines:]] if len(said) > lines else said))


def run(program: str, *options: str, name: str) -> Path:
    """Run ``train.py`` or ``evaluate.py``, unless this command has finished before.

    A training that was cut off is resumed. Other options, or another version, are another run.

    Returns:
        The run folder, ``outputs/notebooks/<name>/<checksum>``.
    """
    key = hashlib.sha256(shlex.join([__version__, program, *options]).encode()).hexdigest()[:10]
    folder = ROOT / setting("OUTPUTS", "outputs/notebooks") / name / key
    shown = os.path.relpath(folder, ROOT)
    if (folder / "report.html").is_file():
        print(f"$ {spelled(program, *options)}\nFinished before: {shown}")
    elif program == "train.py" and (folder / ".hydra").is_dir():
        python(program, f"resume={shown}", lines=1)
    else:
        place = "hydra.sweep.dir" if "-m" in options else "hydra.run.dir"
        python(program, *options, f"{place}={shown}", lines=1)
    return folder
