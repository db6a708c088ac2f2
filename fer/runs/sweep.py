"""Sweeps of ``train.py -m``: what is left to run, and what the jobs say together.

Nothing here imports torch; what draws is imported when the sweep ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fer.core.application import FAILED, CommandError
from fer.core.files import read_json, write_csv, write_json, write_text
from fer.evaluation.scores import shown_in
from fer.runs.resume import FINISHED, FREE, JOBS, LAST, PRUNED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One job of a sweep."""

    number: int
    overrides: list[str]
    status: str
    """``finished``, ``pruned`` (a search has ended it early), ``failed``, ``unfinished`` (it has a
    checkpoint to go on from) or ``missing``."""
    error: str = ""
    run: dict[str, Any] | None = None
    """Its ``run.json`` if it has finished, its ``pruned.json`` if it was ended early."""
    metrics: dict[str, Any] | None = None

    @property
    def values(self) -> dict[str, str]:
        """Its overrides by key."""
        pairs = (item.lstrip("+~").partition("=") for item in self.overrides)
        return {key: value for key, _, value in pairs}

    @property
    def validated_on(self) -> str:
        """Fingerprint of its validation images; of a run before it was recorded, of its data."""
        data = (self.run or {}).get("dataset", {})
        own = data.get("fingerprints", {}).get("val") or data.get("fingerprint", "")
        return str(own)[:16]

    def score(self, split: str, name: str) -> float | None:
        """A score on val or test; None where it was not measured."""
        if split == "val":
            value = None if self.run is None else self.run["validation"].get(name)
        else:
            measured = self.metrics if self.metrics and self.metrics["split"] == split else {}
            value = measured.get(name)
        return None if value is None else float(value)


def claim(folder: Path, jobs: Sequence[Sequence[str]], *, resuming: bool) -> None:
    """Refuse a folder that holds another sweep.

    Raises:
        CommandError: it does, or the sweep to go on with has other jobs.
    """
    path = folder / JOBS
    if not resuming:
        if path.exists() or (folder / "multirun.yaml").exists():
            raise CommandError(
                f"Error: hydra.sweep.dir: expected a folder without a sweep, found one: {folder}. "
                f"Go on with it: python train.py resume={folder}, or choose another folder."
            )
        return
    saved = read_json(path)
    if saved != [plain(job) for job in jobs]:
        raise CommandError(
            f"Error: resume: expected the {len(saved)} jobs of {folder} as they were, found other "
            "options. Start a new sweep without resume."
        )


def plain(overrides: Sequence[str]) -> list[str]:
    """Without what does not change the job."""
    return [item for item in overrides if not item.startswith(FREE)]


def save_jobs(folder: Path, jobs: Sequence[Sequence[str]]) -> None:
    """Remember the jobs of a new sweep."""
    write_json(folder / JOBS, [plain(job) for job in jobs])


def groups_to_run(folder: Path, jobs: Sequence[list[str]]) -> list[tuple[int, list[list[str]]]]:
    """Runs of neighbouring jobs that have not finished, each with its first number."""
    return neighbours(
        (number, overrides)
        for number, overrides in enumerate(jobs)
        if not (folder / str(number) / FINISHED).is_file()
    )


def neighbours(jobs: Iterable[tuple[int, list[str]]]) -> list[tuple[int, list[list[str]]]]:
    """Numbered jobs in rows without a gap, each with its first number: a launch each."""
    groups: list[tuple[int, list[list[str]]]] = []
    before = None
    for number, overrides in jobs:
        if before is None or number != before + 1:
            groups.append((number, []))
        groups[-1][1].append(overrides)
        before = number
    return groups


def read_job(folder: Path, number: int, overrides: Sequence[str]) -> Job:
    """What became of a job."""
    place, own = folder / str(number), plain(overrides)
    if (place / FINISHED).is_file():
        run, metrics = read_json(place / "run.json"), read_json(place / "metrics.json")
        return Job(number, own, "finished", run=run, metrics=metrics)
    if (place / PRUNED).is_file():
        return Job(number, own, "pruned", run=read_json(place / PRUNED))
    if (place / FAILED).is_file():
        return Job(number, own, "failed", read_json(place / FAILED)["message"])
    return Job(number, own, "unfinished" if (place / LAST).is_file() else "missing")


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Keys that have more than one value, in the order of the command line."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.values))
    return [key for key in keys if len({job.values.get(key) for job in jobs}) > 1]


def best_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Of the finished jobs the one with the highest validation macro-F1, the first of several.

    One for each set of validation images: scores on different images choose nothing.
    """
    best: dict[str, Job] = {}
    for job in jobs:
        if job.status == "finished":
            other = best.setdefault(job.validated_on, job)
            best[job.validated_on] = max(
                other, job, key=lambda one: one.score("val", "macro_f1") or 0.0
            )
    return list(best.values())


def write_table(path: Path, jobs: Sequence[Job], keys: Sequence[str]) -> None:
    """``sweep.csv``: a row for each job."""
    scores = [(split, score.name) for split in ("val", "test") for score in shown_in("sweeps")]
    columns = [
        "job",
        "status",
        *keys,
        *(f"{split}_{name}" for split, name in scores),
        "validated_on",
        "best_epoch",
        "epochs",
        "seconds",
        "error",
        "run",
    ]
    rows = []
    for job in jobs:
        run = job.run or {}
        rows.append(
            {
                "job": job.number,
                "status": job.status,
                **{key: job.values.get(key) for key in keys},
                **{f"{split}_{name}": job.score(split, name) for split, name in scores},
                "validated_on": job.validated_on,
                "best_epoch": run.get("best_epoch"),
                "epochs": run.get("epochs"),
                "seconds": run.get("wall_seconds"),
                "error": job.error.replace("\n", " "),
                "run": str(job.number),
            }
        )
    write_csv(path, columns, rows)


SEVERAL = (
    "No job is the best of all: they are scored on {number} different sets of validation images. "
    "The best on each: {jobs}."
)
"""What is said where no single job can be chosen."""


def describe_several(best: Sequence[Job]) -> str | None:
    """Why there is not one best job; None where there is."""
    jobs = ", ".join(f"job {job.number} (validated on {job.validated_on})" for job in best)
    return SEVERAL.format(number=len(best), jobs=jobs) if len(best) > 1 else None


def write_best(path: Path, best: Sequence[Job]) -> None:
    """``best.yaml``: the job that validation chose, as a command and as numbers.

    Where jobs were validated on different images, a list of them below ``best_on_each``.
    """
    chosen = []
    for job in best:
        assert job.run is not None
        chosen.append(
            {
                "job": job.number,
                "run": str(job.number),
                "overrides": job.overrides,
                "validation": job.run["validation"],
                "best_epoch": job.run["best_epoch"],
                "seed": job.run["seed"],
            }
        )
    why = describe_several(best)
    content: dict[str, Any] = {"chosen_by": "validation macro-F1"}
    content |= chosen[0] if why is None else {"why": why, "best_on_each": chosen}
    # Through JSON: plain values, floats in full.
    text = yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True)
    write_text(path, text)


def short_names(keys: Sequence[str]) -> list[str]:
    """Keys without their groups, where that leaves them apart.

    >>> short_names(["optimizer.lr", "model.dropout"]), short_names(["a.lr", "b.lr"])
    (['lr', 'dropout'], ['a.lr', 'b.lr'])
    """
    last = [key.rpartition(".")[2] for key in keys]
    return last if len(set(last)) == len(last) else list(keys)


def shorten(value: str) -> str:
    """A number with four digits; anything else as it is.

    >>> shorten("0.00314159265"), shorten("64"), shorten("adamw")
    ('0.003142', '64', 'adamw')
    """
    try:
        number = float(value)
    except ValueError:
        return value
    return value if len(value) <= 6 else f"{number:.4g}"
