"""The records that runs leave in their folders, read as data that a stranger may have written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer.core import labels
from fer.core.files import read_json
from fer.evaluation.scores import SCORES

STATISTICS = 2
"""Version of an evaluation's numbers, kept in its ``run.json``. Raise it with any change of a
number or a key for the same predictions: evaluations of another version are measured again."""
BOUNDS = [float, float]
RUN: dict[str, Any] = {
    "command": str,
    "notes": [str],
    "config": dict,
    "dataset": {"fingerprint": str},
    "git": ({"commit": str, "dirty": bool}, None),
}
TRAINING: dict[str, Any] = {
    **RUN,
    "config": {"dataset": {"generator": (dict, None)}},
    "seed": int,
    "started": str,
    "epochs": int,
    "best_epoch": int,
    "validation": {str: float},
    "images_per_second": float,
    "wall_seconds": float,
    "versions": {str: str},
    "hardware": {str: (str, int, None)},
}
EVALUATION: dict[str, Any] = {
    **RUN,
    "checkpoint": {
        "path": str,
        "sha256": (str, ...),
        "seed": (int, None),
        "dataset": {"name": str},
        "priors": ([float] * labels.NUM_CLASSES, None, ...),
    },
    "dataset": {**RUN["dataset"], "train_counts": ([int] * labels.NUM_CLASSES, None, ...)},
    "config": {"metrics": {"resamples": int, "seed": int}},
    "hardware": {"precision": str},
    "statistics": (int, ...),
}
PRUNED = {
    "validation": {str: float},
    "best_epoch": int,
    "epochs": int,
    "wall_seconds": float,
}


def read_run(folder: Path, shape: Mapping[str, Any]) -> dict[str, Any]:
    """``run.json`` of a training (:data:`TRAINING`) or of an evaluation (:data:`EVALUATION`).

    Raises:
        DataError: it cannot be read, or is something else.
    """
    return dict(read_json(folder / "run.json", shape))


def read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json``; an older run may lack some scores.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    scores = {"support": int, **dict.fromkeys(("precision", "recall", "f1"), (float, None))}
    shape = {
        **_scores(),
        "samples": int,
        "dataset": str,
        "split": str,
        "per_class": dict.fromkeys(labels.EMOTIONS, scores),
        "confusion_matrix": [[int] * labels.NUM_CLASSES] * labels.NUM_CLASSES,
        "robustness": ({"relative_area": {str: _scores()}}, ...),
    }
    return dict(read_json(folder / "metrics.json", shape))


def read_robustness(folder: Path) -> list[dict[str, Any]] | None:
    """The rows of ``robustness.json``; None where nothing was damaged.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    path = folder / "robustness.json"
    if not path.is_file():
        return None
    row = {
        **_scores(),
        "samples": int,
        "perturbation": str,
        "severity": int,
        "parameters": dict,
        "per_class": {emotion: {"recall": (float, None)} for emotion in labels.EMOTIONS},
    }
    return list(read_json(path, [row]))


def _scores() -> dict[str, Any]:
    """The shape of all registered scores and their intervals."""
    return {
        **dict.fromkeys(SCORES, (float, ...)),
        "confidence_intervals": {str: BOUNDS},
    }
