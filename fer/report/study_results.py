"""The results of a whole study as one file: every number of its page and of its model card."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, TypedDict, cast

from fer.core.errors import DataError
from fer.core.files import read_json, read_text
from fer.core.values import Options
from fer.data.audit.integrity import Integrity, Leaks, exact_leaks, near_leaks
from fer.data.manifest import Entry, read_manifest
from fer.evaluation.explanation import Saliency
from fer.evaluation.label_sets import LabelSets
from fer.evaluation.metrics import Metrics, Scores, measure_scores
from fer.evaluation.robustness import RobustnessRow
from fer.evaluation.scores import scores_in
from fer.runs.plan import Study
from fer.runs.provenance import git_state, without_places
from fer.runs.records import Circumstances, DataRecord, GitState, read_training
from fer.runs.side_by_side import Evaluation, differing, load_evaluation
from fer.runs.stages import Measurement, Training

if TYPE_CHECKING:
    from typing import NotRequired  # of Python 3.11

RESULTS = "study.json"
"""The file, in the study's folder."""
RECIPE = (
    *("augmentation", "model", "loss", "optimizer", "scheduler", "trainer", "loader"),
    *("early_stopping", "mixing", "ema", "seed"),
)
"""Parts of a configuration that both trainings share; the others say where things are."""


class DataFacts(TypedDict):
    """A dataset for a card: counts, verdict, and known faults as numbers."""

    counts: dict[str, dict[str, int]]
    fingerprint: str
    verdict: str
    verdict_text: str
    leaks: Leaks
    duplicates: dict[str, int]
    blank: int
    drawn: bool


class TrainingResult(Circumstances):
    """A training of the study."""

    dataset: str
    seed: int
    folder: str
    """Relative to the study's."""
    command: str
    started: str
    best_epoch: int
    epochs: int
    validation: dict[str, float]
    images_per_second: float
    epoch_seconds: int
    """Sum over all epochs, those before a training was cut off too."""
    config: Options
    drawn: bool
    data: DataRecord


class Shared(TypedDict):
    """Measured images of one dataset that are duplicated in train or val of another."""

    exact: int
    exact_or_near: int | None
    """None where a manifest has no perceptual hashes."""
    without: Scores | None
    """The scores without them; None where none is left, or none was shared."""


class EvaluationResult(TypedDict):
    """An evaluation of the study."""

    train_dataset: str
    test_dataset: str
    seed: int
    folder: str
    command: str
    notes: list[str]
    data: DataRecord
    precision: str
    metrics: Metrics
    shared: NotRequired[Shared]
    """Between two datasets."""
    robustness: NotRequired[list[RobustnessRow]]
    saliency: NotRequired[Saliency]


class Spread(TypedDict):
    """A score over the seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation; None for one seed."""
    values: list[float]
    interval: list[float] | None
    """95 %, over the images; None for several seeds."""


class Direction(TypedDict):
    """The networks of one dataset on another; a registered metric adds its key."""

    train_dataset: str
    test_dataset: str
    seeds: int
    samples: int
    accuracy: Spread
    macro_f1: Spread


class ByLabels(TypedDict):
    """Another network, measured by two sets of labels."""

    network: str
    """Which it is, and what it was trained on, in words."""
    command: str
    label_sets: LabelSets


class InDomain(TypedDict):
    """A network's scores on the test split of one dataset."""

    samples: int
    accuracy: float
    accuracy_interval: list[float]
    macro_f1: float


class Carried(TypedDict):
    """Another network, measured on datasets from several domains."""

    network: str
    """Which it is, and what it was trained on, in words."""
    measured: dict[str, InDomain]
    """Dataset → its scores there."""


class Domains(TypedDict):
    """How far networks carry beyond their own dataset."""

    about: str
    """What the datasets are, in words."""
    networks: list[Carried]
    commands: list[str]


class StudyResults(TypedDict):
    """``study.json``."""

    datasets: list[str]
    seeds: list[int]
    train_options: list[str]
    parameters: int
    git: GitState | None
    data: dict[str, DataFacts]
    summary: list[Direction]
    trainings: list[TrainingResult]
    evaluations: list[EvaluationResult]
    by_labels: NotRequired[list[ByLabels]]
    domains: NotRequired[Domains]
    """What the card shows beside the study's own networks."""


def gather(study: Study, parameters: int) -> StudyResults:
    """Collect the results of a study's runs, as plain values.

    Raises:
        DataError: a file of a run cannot be read.
    """
    trainings = [_read_training(stage, study.folder) for stage in study.trainings]
    entries = {
        stage.dataset: read_manifest(stage.folder / "manifest.csv") for stage in study.preparations
    }
    evaluations = [_read_evaluation(one, study.folder, entries) for one in study.measurements]
    return {
        "datasets": list(study.datasets),
        "seeds": list(study.seeds),
        "train_options": list(study.options),
        "parameters": parameters,
        "git": git_state(),
        "data": {
            stage.dataset: describe_data(stage.report(), trainings) for stage in study.preparations
        },
        "summary": [
            summarise(of_direction(evaluations, trained_on, measured_on))
            for trained_on in study.datasets
            for measured_on in study.datasets
        ],
        "trainings": trainings,
        "evaluations": evaluations,
    }


def _read_training(stage: Training, folder: Path) -> TrainingResult:
    run = read_training(stage.folder)
    return {
        "dataset": stage.dataset,
        "seed": stage.seed,
        "folder": _relative(stage.folder, folder),
        "command": without_places(run["command"]),
        "git": run["git"],
        "started": run["started"],
        "best_epoch": run["best_epoch"],
        "epochs": run["epochs"],
        "validation": run["validation"],
        "images_per_second": run["images_per_second"],
        "versions": run["versions"],
        "hardware": run["hardware"],
        "epoch_seconds": round(sum(read_column(stage.folder / "history.csv", "seconds"))),
        "config": {key: value for key, value in run["config"].items() if key in RECIPE},
        "drawn": run["config"]["dataset"]["generator"] is not None,
        "data": run["dataset"],
    }


def _read_evaluation(
    one: Measurement, folder: Path, entries: Mapping[str, Sequence[Entry]]
) -> EvaluationResult:
    place, trained_on = one.folder, one.training.dataset
    evaluation = load_evaluation(place)
    run = evaluation.run
    found: EvaluationResult = {
        "train_dataset": trained_on,
        "test_dataset": one.dataset,
        "seed": one.training.seed,
        "folder": _relative(place, folder),
        "command": without_places(run["command"]),
        "notes": run["notes"],
        "data": run["dataset"],
        "precision": run["hardware"]["precision"],
        "metrics": evaluation.metrics,
    }
    if not one.in_domain:
        found["shared"] = find_shared(evaluation, entries[trained_on], entries[one.dataset])
    if evaluation.robustness is not None:
        found["robustness"] = evaluation.robustness
    if (place / "saliency.json").is_file():
        found["saliency"] = read_json(place / "saliency.json", dict)
    return found


def find_shared(job: Evaluation, home: Sequence[Entry], abroad: Sequence[Entry]) -> Shared:
    """Find measured images that are duplicated in train or val of the network's own dataset.

    Args:
        home: images of the dataset that its network was trained on.
        abroad: of the dataset that it is measured on.
    """
    seen = [entry for entry in home if entry.split != "test"]
    split = job.metrics["split"]
    by_id = {entry.id: entry for entry in abroad if entry.split == split}
    measured = [by_id[id] for id in job.ids]
    exact, near = exact_leaks(seen, measured), near_leaks(seen, measured)
    kept = ~(exact if near is None else near)
    config = job.run["config"]["metrics"]
    return {
        "exact": int(exact.sum()),
        "exact_or_near": None if near is None else int(near.sum()),
        "without": measure_scores(
            job.target[kept],
            job.probabilities[kept],
            resamples=config["resamples"],
            seed=config["seed"],
        )
        if kept.any() and not kept.all()
        else None,
    }


def describe_unlike(evaluations: Sequence[EvaluationResult]) -> list[str]:
    """Say in sentences what measurements do not share beside network and dataset."""
    ways = [{"tta": str(o["metrics"].get("tta")), "precision": o["precision"]} for o in evaluations]
    notes = [f"Not every score here is measured alike: {key} differs." for key in differing(ways)]
    for name in dict.fromkeys(one["test_dataset"] for one in evaluations):
        images = {
            (one["data"]["fingerprints"]["test"], one["metrics"]["samples"])
            for one in evaluations
            if one["test_dataset"] == name
        }
        if len(images) > 1:
            notes.append(f"Not every score on {name} is of the same test images.")
    return notes


def describe_data(integrity: Integrity, trainings: Sequence[TrainingResult]) -> DataFacts:
    """The facts of a dataset for a card."""
    drawn = next(row["drawn"] for row in trainings if row["dataset"] == integrity["dataset"])
    return {
        "counts": integrity["counts"],
        "fingerprint": integrity["fingerprint"],
        "verdict": integrity["verdict"],
        "verdict_text": integrity["verdict_text"],
        "leaks": integrity["leaks"],
        "duplicates": {
            key: value for key, value in integrity["duplicates"].items() if isinstance(value, int)
        },
        "blank": len(integrity["blank"]),
        "drawn": drawn,
    }


def read_column(path: Path, name: str) -> list[float]:
    """The numbers of a column of a CSV file.

    Raises:
        DataError: the file cannot be read, or has no such column.
    """
    try:
        return [float(row[name]) for row in csv.DictReader(read_text(path).splitlines())]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path}: expected a column {name} of numbers, found: {error!r}."
        ) from error


def _relative(path: Path, folder: Path) -> str:
    return path.absolute().relative_to(folder.absolute()).as_posix()


def of_direction(
    evaluations: Sequence[EvaluationResult], trained_on: str, measured_on: str
) -> list[EvaluationResult]:
    """The evaluations of the networks of one dataset on another, a seed each."""
    return [
        one
        for one in evaluations
        if (one["train_dataset"], one["test_dataset"]) == (trained_on, measured_on)
    ]


def summarise(evaluations: Sequence[EvaluationResult]) -> Direction:
    """Mean and spread over the seeds of one direction, of the scores that every seed has."""
    metrics = [one["metrics"] for one in evaluations]
    rows = [scores_in(one) for one in metrics]
    spreads: dict[str, Spread] = {}
    for name in rows[0]:
        if not all(name in row for row in rows):
            continue
        values = [row[name] for row in rows]
        alone = len(values) == 1
        spreads[name] = {
            "mean": mean(values),
            "sd": None if alone else stdev(values),
            "values": values,
            "interval": metrics[0]["confidence_intervals"][name] if alone else None,
        }
    found = {
        "train_dataset": evaluations[0]["train_dataset"],
        "test_dataset": evaluations[0]["test_dataset"],
        "seeds": len(metrics),
        "samples": metrics[0]["samples"],
        **spreads,
    }
    return cast(Direction, found)
