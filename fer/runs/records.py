"""The records that runs leave in their folders, read as data that a stranger may have written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import read_json
from fer.core.values import Options, Shape
from fer.data.readers.base import SPLITS
from fer.evaluation.metrics import Metrics
from fer.evaluation.robustness import RobustnessRow
from fer.evaluation.scores import SCORES

if TYPE_CHECKING:
    from typing import NotRequired  # of Python 3.11

    from fer.model.checkpoint import ModelRecord, TrainedOn

STATISTICS = 2
"""Version of an evaluation's numbers, kept in its ``run.json``. Raise it with any change of a
number or a key for the same predictions: evaluations of another version are measured again."""


# --- what the files hold -------------------------------------------------------------------------


class GitState(TypedDict):
    """The commit, and whether files differed from it."""

    commit: str
    dirty: bool


class HardwareRecord(TypedDict):
    """The machine and what of it was used."""

    platform: str
    cpu: str
    cores: int
    threads: int
    device: str
    device_name: str | None
    """Name of the GPU."""
    precision: str


class Circumstances(TypedDict):
    """What two runs must share, beside options and seed, to have the same weights."""

    git: GitState | None
    versions: dict[str, str]
    hardware: HardwareRecord


class DataRecord(TypedDict):
    """The data of a run."""

    name: str
    fingerprint: str
    """Fingerprint of the prepared dataset."""
    identity: str | None
    """Of who is who in it; None if that is not known."""
    form: str
    verdict: str
    official_protocol: bool
    images: dict[str, int]
    """In use, by split."""
    train_counts: list[int] | None
    """Training images in use of each emotion."""
    fingerprints: dict[str, str]
    """Split → fingerprint of the images in use: equal where two runs saw the same."""
    left_out: dict[str, dict[str, int]]
    """Reason → split → images."""
    disputed: int
    """Images that rows of a table name with different labels, which were left out."""


class RunRecord(Circumstances):
    """The part of ``run.json`` that every run has."""

    command: str
    seed: int | None
    dataset: DataRecord
    notes: list[str]
    config: Options


class PrunedRecord(TypedDict):
    """``pruned.json`` of a trial that its search ended early; ``run.json`` has these keys, too."""

    best_epoch: int
    epochs: int
    validation: dict[str, float]
    """The scores of the best epoch."""
    wall_seconds: float


class TrainingRecord(RunRecord, PrunedRecord):
    """``run.json`` of a training."""

    started: str
    resumed_after_epochs: int | None
    images_per_second: float
    training_seconds: float
    teachers: NotRequired[list[str]]
    """SHA-256 of the checkpoints that it learned from; missing if there were none."""


class NetworkRecord(TypedDict):
    """The checkpoint that an evaluation measured."""

    path: str
    sha256: str
    epoch: int
    model: ModelRecord
    dataset: TrainedOn
    seed: int
    priors: list[float] | None


class EvaluationRecord(RunRecord):
    """``run.json`` of an evaluation."""

    statistics: int
    started: str
    checkpoint: NetworkRecord
    wall_seconds: float


# --- what of it is relied on ---------------------------------------------------------------------

BOUNDS = [float, float]
RUN: Shape = {
    "command": str,
    "notes": [str],
    "config": dict,
    "dataset": {"fingerprint": str, "fingerprints": dict.fromkeys(SPLITS, str)},
    "git": ({"commit": str, "dirty": bool}, None),
}
PRUNED_SHAPE: Shape = {
    "validation": {str: float},
    "best_epoch": int,
    "epochs": int,
    "wall_seconds": float,
}
TRAINING: Shape = {
    **RUN,
    **PRUNED_SHAPE,
    "config": {"dataset": {"generator": (dict, None)}},
    "seed": int,
    "started": str,
    "images_per_second": float,
    "versions": {str: str},
    "hardware": {str: (str, int, None)},
}
EVALUATION: Shape = {
    **RUN,
    "checkpoint": {
        "path": str,
        "sha256": str,
        "seed": (int, None),
        "dataset": {"name": str},
        "priors": ([float] * labels.NUM_CLASSES, None),
    },
    "dataset": {**RUN["dataset"], "train_counts": ([int] * labels.NUM_CLASSES, None)},
    "config": {"metrics": {"resamples": int, "seed": int}},
    "hardware": {"precision": str},
    "statistics": (int, ...),
}


def read_run(folder: Path) -> RunRecord:
    """``run.json``.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    found: RunRecord = _read(folder / "run.json", RUN)
    return found


def read_training(folder: Path) -> TrainingRecord:
    """``run.json`` of a training; raises as :func:`read_run`."""
    found: TrainingRecord = _read(folder / "run.json", TRAINING)
    return found


def read_evaluation(folder: Path) -> EvaluationRecord:
    """``run.json`` of an evaluation; raises as :func:`read_run`."""
    found: EvaluationRecord = _read(folder / "run.json", EVALUATION)
    return found


def read_metrics(folder: Path) -> Metrics:
    """``metrics.json``; an older run may lack some scores.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    scores = {"support": int, **dict.fromkeys(("precision", "recall", "f1"), (float, None))}
    clean = {**_scores(), "samples": int, "accuracy": float, "macro_f1": float}
    shape = {
        **_scores(),
        "samples": int,
        "dataset": str,
        "split": str,
        "per_class": dict.fromkeys(labels.EMOTIONS, scores),
        "confusion_matrix": [[int] * labels.NUM_CLASSES] * labels.NUM_CLASSES,
        "without_leaks": (clean, None),
        "without_near_leaks": (clean, None, ...),
        "robustness": ({"relative_area": {str: _scores()}}, ...),
    }
    found: Metrics = _read(folder / "metrics.json", shape)
    return found


def read_robustness(folder: Path) -> list[RobustnessRow] | None:
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
        "image_size": int,
        "per_class": {emotion: {"recall": (float, None)} for emotion in labels.EMOTIONS},
    }
    found: list[RobustnessRow] = _read(path, [row])
    return found


def _read(path: Path, shape: Any) -> Any:
    """:func:`.read_json` of what a run wrote, which another run can write again."""
    try:
        return read_json(path, shape)
    except DataError as error:
        raise DataError(f"{error} Move its folder away and run its command again.") from error


def _scores() -> Shape:
    """The shape of all registered scores and their intervals."""
    return {
        **dict.fromkeys(SCORES, (float, ...)),
        "confidence_intervals": {str: BOUNDS},
    }
