"""What became of a run, read from its folder: the one place that knows what its files mean.

Nothing here imports torch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.core.application import FAILED

BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"
FINISHED = "report.html"
"""The file that a run, a sweep of evaluations or a study writes last."""
PRUNED = "pruned.json"
"""What a trial leaves that a search has ended early: its scores so far."""
JOBS = "jobs.json"
"""The jobs of a sweep, in its folder."""


class State(enum.Enum):
    """How far a run has come."""

    FINISHED = "finished"
    PRUNED = "pruned"
    """A search has ended it early."""
    FAILED = "failed"
    """In a sweep, with an error that is recorded."""
    UNFINISHED = "unfinished"
    """Cut off; it has a checkpoint to go on from."""
    MISSING = "missing"
    """Not begun, or cut off before anything was left to go on from."""


def state_of(folder: Path) -> State:
    """How far the run in ``folder`` has come; the folder need not exist."""
    for name, state in (
        (FINISHED, State.FINISHED),
        (PRUNED, State.PRUNED),
        (FAILED, State.FAILED),
        (LAST, State.UNFINISHED),
    ):
        if (folder / name).is_file():
            return state
    return State.MISSING


def disparities(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What runs whose numbers stand side by side do not share, though they need to for equal bits.

    Args:
        runs: their ``run.json``.

    Returns:
        A sentence for each of: code, PyTorch, device, threads.
    """
    facts = {
        "code": lambda run: _code(run),
        "PyTorch": lambda run: run["versions"].get("torch"),
        "a device": lambda run: run["hardware"].get("device_name") or run["hardware"]["device"],
        "a number of threads": lambda run: run["hardware"].get("threads"),
    }
    sentences = []
    for name, fact in facts.items():
        found = list(dict.fromkeys(str(value) for run in runs if (value := fact(run)) is not None))
        if len(found) > 1:
            sentences.append(
                f"The runs do not share {name} ({', '.join(found)}): the same options and seed "
                "need not give the same weights in them."
            )
    return sentences


def _code(run: Mapping[str, Any]) -> str:
    git = run.get("git")
    version = str(run["versions"].get("fer"))
    if git is None:
        return version
    return f"{version} at {git['commit'][:8]}{' with changes' if git['dirty'] else ''}"
