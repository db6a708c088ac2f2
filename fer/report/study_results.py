"""The results of a whole study as one file: every number of its page and of its model card."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fer.core.errors import DataError
from fer.core.files import read_json, read_text
from fer.data.audit.integrity import exact_leaks, near_leaks
from fer.data.manifest import Entry, read_manifest
from fer.evaluation.metrics import measure_scores
from fer.evaluation.scores import SCORES
from fer.runs.plan import Measurement, Study, Training
from fer.runs.provenance import git_state, without_places
from fer.runs.records import EVALUATION, TRAINING, read_metrics, read_robustness, read_run
from fer.runs.side_by_side import Evaluation, differing, load_evaluation

RESULTS = "study.json"
"""The file, in the study's folder."""
RECIPE = (
    *("augmentation", "model", "loss", "optimizer", "scheduler", "trainer", "loader"),
    *("early_stopping", "mixing", "ema", "seed"),
)
"""Parts of a configuration that both trainings share; the others say where things are."""
RECORDED = (
    *("git", "started", "best_epoch", "epochs", "validation"),
    *("images_per_second", "versions", "hardware"),
)
"""Keys of a training's ``run.json`` that are taken over."""


def gather(study: Study, parameters: int) -> dict[str, Any]:
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
            {
                "train_dataset": trained_on,
                "test_dataset": measured_on,
                **summarise(of_direction(evaluations, trained_on, measured_on)),
            }
            for trained_on in study.datasets
            for measured_on in study.datasets
        ],
        "trainings": trainings,
        "evaluations": evaluations,
    }


def _read_training(stage: Training, folder: Path) -> dict[str, Any]:
    run = read_run(stage.folder, TRAINING)
    return {
        "dataset": stage.dataset,
        "seed": stage.seed,
        "folder": _relative(stage.folder, folder),
        "command": without_places(run["command"]),
        **{key: run[key] for key in RECORDED},
        # Of all epochs, those before a training was cut off too.
        "epoch_seconds": round(sum(read_column(stage.folder / "history.csv", "seconds"))),
        "config": {key: value for key, value in run["config"].items() if key in RECIPE},
        "drawn": run["config"]["dataset"]["generator"] is not None,
        "data": run["dataset"],
    }


def _read_evaluation(
    one: Measurement, folder: Path, entries: Mapping[str, Sequence[Entry]]
) -> dict[str, Any]:
    place, trained_on = one.folder, one.training.dataset
    run = read_run(place, EVALUATION)
    found = {
        "train_dataset": trained_on,
        "test_dataset": one.dataset,
        "seed": one.training.seed,
        "folder": _relative(place, folder),
        "command": without_places(run["command"]),
        "notes": run["notes"],
        "data": run["dataset"],
        "precision": run["hardware"]["precision"],
        "metrics": read_metrics(place),
    }
    if not one.in_domain:
        evaluation = load_evaluation(place)
        found["shared"] = find_shared(evaluation, entries[trained_on], entries[one.dataset])
    damaged = read_robustness(place)
    if damaged is not None:
        found["robustness"] = damaged
    if (place / "saliency.json").is_file():
        found["saliency"] = read_json(place / "saliency.json", dict)
    return found


def find_shared(job: Evaluation, home: Sequence[Entry], abroad: Sequence[Entry]) -> dict[str, Any]:
    """Measured images of one dataset that are duplicated in train or val of another.

    Args:
        home: images of the dataset that its network was trained on.
        abroad: of the dataset that it is measured on.

    Returns:
        ``exact`` and ``exact_or_near``: how many (the second None where a manifest has no
        perceptual hashes); ``without``: the scores without them, None where that is all or none.
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


def describe_unlike(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe how measurements differ in more than network and dataset."""
    ways = [{"tta": str(o["metrics"].get("tta")), "precision": o["precision"]} for o in evaluations]
    notes = [f"Not every score here is measured alike: {key} differs." for key in differing(ways)]
    for name in dict.fromkeys(one["test_dataset"] for one in evaluations):
        images = {
            (
                one["data"].get("fingerprints", {}).get("test", one["data"]["fingerprint"]),
                one["metrics"]["samples"],
            )
            for one in evaluations
            if one["test_dataset"] == name
        }
        if len(images) > 1:
            notes.append(f"Not every score on {name} is of the same test images.")
    return notes


def describe_data(
    integrity: Mapping[str, Any], trainings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The facts of a dataset for a card: counts, verdict, and known faults as numbers."""
    drawn = next(row["drawn"] for row in trainings if row["dataset"] == integrity["dataset"])
    return {
        **{
            key: integrity[key]
            for key in ("counts", "fingerprint", "verdict", "verdict_text", "leaks")
        },
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
    evaluations: Sequence[Mapping[str, Any]], trained_on: str, measured_on: str
) -> list[Mapping[str, Any]]:
    """The evaluations of the networks of one dataset on another, a seed each."""
    return [
        one
        for one in evaluations
        if (one["train_dataset"], one["test_dataset"]) == (trained_on, measured_on)
    ]


def summarise(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds of one direction.

    Args:
        evaluations: with their ``metrics``, at least one.

    Returns:
        ``seeds``, ``samples``, and for each score that all of them have ``mean``, ``sd`` (sample
        standard deviation over seeds; None for one seed), ``values``, and ``interval``: the 95 %
        interval over images where there is one seed, else None.
    """
    metrics = [one["metrics"] for one in evaluations]
    found: dict[str, Any] = {"seeds": len(metrics), "samples": metrics[0]["samples"]}
    for name in SCORES:
        values = [row[name] for row in metrics if name in row]
        if len(values) < len(metrics):  # of runs before the metric was registered
            continue
        alone = len(values) == 1
        found[name] = {
            "mean": mean(values),
            "sd": None if alone else stdev(values),
            "values": values,
            "interval": metrics[0]["confidence_intervals"][name] if alone else None,
        }
    return found
