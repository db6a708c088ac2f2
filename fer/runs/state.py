"""The state of a run, read from its folder: the one place that knows what its files mean.

Nothing here imports torch.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer.core.application import FAILED
from fer.core.application import LAST as LAST

if TYPE_CHECKING:
    from fer.runs.records import Circumstances

BEST = "checkpoints/best.ckpt"
FINISHED = "report.html"
"""Written last by a run, a sweep of evaluations and a study."""
PRUNED = "pruned.json"
"""The scores of a trial that its search ended early."""
JOBS = "jobs.json"
"""The jobs of a sweep, in its folder."""


class State(enum.Enum):
    """The progress of a run."""

    FINISHED = "finished"
    PRUNED = "pruned"
    """Ended early by its search."""
    FAILED = "failed"
    """A job of a sweep that ended with a recorded error."""
    UNFINISHED = "unfinished"
    """Cut off, with a checkpoint to go on from."""
    MISSING = "missing"
    """Not begun, or cut off before its first checkpoint."""


def state_of(folder: Path) -> State:
    """The state of the run in ``folder``, which need not exist."""
    for name, state in (
        (FINISHED, State.FINISHED),
        (PRUNED, State.PRUNED),
        (FAILED, State.FAILED),
        (LAST, State.UNFINISHED),
    ):
        if (folder / name).is_file():
            return state
    return State.MISSING


def disparities(runs: Sequence[Circumstances]) -> list[str]:
    """Say in sentences what runs do not share, although the same weights would need it."""
    facts = {
        "code": _code,
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


def _code(run: Circumstances) -> str:
    git, version = run.get("git"), str(run["versions"].get("fer"))
    if git is None:
        return version
    return f"{version} at {git['commit'][:8]}{' with changes' if git['dirty'] else ''}"
