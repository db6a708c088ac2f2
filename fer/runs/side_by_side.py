"""What several evaluations of one command say together: the cross-dataset table and comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer.core import labels
from fer.core.files import read_json, write_csv, write_json
from fer.evaluation.compare import compare_paired, prior_shift
from fer.evaluation.mistakes import read_predictions
from fer.evaluation.robustness import columns, flatten
from fer.evaluation.scores import shown_in


def cross_columns() -> tuple[str, ...]:
    """Of ``cross_dataset.csv``. Fractions; a drop is the network's own dataset minus this one."""
    scores = shown_in("comparisons")
    return (
        *("train_dataset", "test_dataset", "samples"),
        *(f"{score.name}{end}" for score in scores for end in ("", "_low", "_high")),
        *(f"drop_{score.name}" for score in scores),
        *("accuracy_source_priors", "accuracy_adjusted", "macro_f1_adjusted"),
        *(f"recall_{emotion}" for emotion in labels.EMOTIONS),
        *("split", "network", "run"),
    )


@dataclass(frozen=True)
class Job:
    """One evaluation of the command."""

    folder: Path
    metrics: dict[str, Any]
    run: dict[str, Any]
    ids: list[str]
    target: np.ndarray
    probabilities: np.ndarray
    robustness: list[dict[str, Any]] | None

    @property
    def trained_on(self) -> str:
        """The dataset of the checkpoint."""
        return str(self.run["checkpoint"]["dataset"]["name"])

    @property
    def data(self) -> tuple[str, str, str]:
        """Dataset, split and fingerprint: jobs that agree in it saw the same images."""
        return (
            str(self.metrics["dataset"]),
            str(self.metrics["split"]),
            str(self.run["dataset"]["fingerprint"]),
        )

    @property
    def at_home(self) -> bool:
        """Whether the network is measured on the dataset that it was trained on."""
        return self.trained_on == self.metrics["dataset"]


@dataclass(frozen=True)
class Collection:
    """Several evaluations and what they say together."""

    jobs: list[Job]
    names: list[str]
    """Of the jobs' networks."""
    rows: list[dict[str, Any]]
    """Of ``cross_dataset.csv``, one for each job."""
    comparisons: list[dict[str, Any]]
    """Of ``comparison.json``."""


def collect(folder: Path) -> Collection | None:
    """Write what the evaluations below ``folder`` say together.

    ``cross_dataset.csv``, ``comparison.json`` (each pair of networks on the same images), and
    ``robustness.csv`` where images were damaged.

    Args:
        folder: of a sweep; each of its jobs has a folder in it.

    Returns:
        What was written, or None where there are not two finished jobs.

    Raises:
        DataError: a job's file cannot be read.
    """
    places = [path.parent for path in folder.glob("*/metrics.json")]
    # A job that did not come to its end has no run.json.
    places = [place for place in places if (place / "run.json").is_file()]
    jobs = [load_job(place) for place in sorted(places, key=_number)]
    if len(jobs) < 2:
        return None
    names = name_networks(jobs)
    rows = [cross_row(job, jobs, name) for job, name in zip(jobs, names, strict=True)]
    write_csv(folder / "cross_dataset.csv", cross_columns(), rows)
    comparisons = compare_jobs(jobs, names)
    write_json(folder / "comparison.json", comparisons)
    damaged = [
        {"network": name, "dataset": job.metrics["dataset"], **flatten(row)}
        for job, name in zip(jobs, names, strict=True)
        for row in job.robustness or []
    ]
    if damaged:
        write_csv(folder / "robustness.csv", ("network", "dataset", *columns()), damaged)
    return Collection(jobs, names, rows, comparisons)


def _number(folder: Path) -> tuple[int, str]:
    """Job 10 follows job 9."""
    return (int(folder.name) if folder.name.isdigit() else -1, folder.name)


def load_job(folder: Path) -> Job:
    """Read one evaluation.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    damaged = folder / "robustness.json"
    return Job(
        folder,
        read_json(folder / "metrics.json"),
        read_json(folder / "run.json"),
        *read_predictions(folder / "predictions.csv"),
        robustness=read_json(damaged) if damaged.is_file() else None,
    )


def name_networks(jobs: Sequence[Job]) -> list[str]:
    """A name for each job's network: what it was trained on, and what sets it apart from others.

    Networks are told apart by their checkpoints' paths; the seed and then the path are added to
    names that would be equal.
    """
    facts = {}
    for job in jobs:
        checkpoint = job.run["checkpoint"]
        path = Path(checkpoint["path"])
        run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        facts[checkpoint["path"]] = (
            job.trained_on,
            f"{job.trained_on}, seed {checkpoint['seed']}",
            f"{job.trained_on}, {run.name}/{path.name}",
            f"{job.trained_on}, {path}",
        )
    level = next(
        level for level in range(4) if len({own[level] for own in facts.values()}) == len(facts)
    )
    return [facts[job.run["checkpoint"]["path"]][level] for job in jobs]


def cross_row(job: Job, jobs: Sequence[Job], network: str) -> dict[str, Any]:
    """A row of ``cross_dataset.csv``.

    Left out: scores that a file has not, and what needs the network's own dataset without it.
    """
    metrics = job.metrics
    row: dict[str, Any] = {
        "train_dataset": job.trained_on,
        "test_dataset": metrics["dataset"],
        "samples": metrics["samples"],
        "split": metrics["split"],
        "network": network,
        "run": job.folder.name,
    }
    names = [score.name for score in shown_in("comparisons") if score.name in metrics]
    for name in names:
        low, high = metrics["confidence_intervals"][name]
        row |= {name: metrics[name], f"{name}_low": low, f"{name}_high": high}
    for emotion, scores in metrics["per_class"].items():
        row[f"recall_{emotion}"] = scores["recall"] if scores["support"] else None
    home = home_of(job, jobs)
    if home is not None and not job.at_home:
        for name in names:
            if name in home.metrics:
                row[f"drop_{name}"] = home.metrics[name] - metrics[name]
        at_home = np.bincount(home.target, minlength=labels.NUM_CLASSES)
        # A checkpoint of an earlier version does not say: its loss is taken to have had no weights.
        priors = job.run["checkpoint"].get("priors") or home.run["dataset"].get("train_counts")
        shares = None if priors is None else np.array(priors, dtype=np.float64)
        row |= prior_shift(job.target, job.probabilities, at_home, shares)
    return row


def home_of(job: Job, jobs: Sequence[Job]) -> Job | None:
    """The same checkpoint on its own dataset, on the same split."""
    path = job.run["checkpoint"]["path"]
    return next(
        (
            other
            for other in jobs
            if other.at_home
            and other.run["checkpoint"]["path"] == path
            and other.metrics["split"] == job.metrics["split"]
        ),
        None,
    )


def compare_jobs(jobs: Sequence[Job], names: Sequence[str]) -> list[dict[str, Any]]:
    """Each two networks that were measured on the same images."""
    found = []
    pairs = itertools.combinations(zip(jobs, names, strict=True), 2)
    for (first, first_name), (second, second_name) in pairs:
        same_network = first.run["checkpoint"]["path"] == second.run["checkpoint"]["path"]
        if same_network or first.data != second.data or first.ids != second.ids:
            continue
        metrics: Mapping[str, Any] = first.run["config"]["metrics"]
        found.append(
            {
                "dataset": first.metrics["dataset"],
                "split": first.metrics["split"],
                "first": first_name,
                "second": second_name,
                **compare_paired(
                    first.target,
                    first.probabilities,
                    second.probabilities,
                    resamples=metrics["resamples"],
                    seed=metrics["seed"],
                ),
            }
        )
    return found
