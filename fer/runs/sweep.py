"""Sweeps of ``train.py -m``: what is left to run, and what the jobs say together.

Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import mean, stdev

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from fer.core.application import FAILED, CommandError
from fer.core.commands import quoted_if_needed
from fer.core.errors import DataError
from fer.core.files import is_outside, read_json, write_csv, write_json, write_text
from fer.evaluation.metrics import Metrics
from fer.evaluation.scores import Score, scores_in, shown_in
from fer.runs.overrides import plain, values_of
from fer.runs.records import (
    PRUNED_SHAPE,
    PrunedRecord,
    TrainingRecord,
    read_metrics,
    read_training,
)
from fer.runs.state import JOBS, PRUNED, State, disparities, state_of

NUMBER = "${hydra:job.num}"
"""``hydra.sweep.subdir``, the folder of a job, unless the user chooses another."""
FOLD = "dataset.fold"
REPEATS = ("dataset", "experiment", FOLD, "seed", "test")
"""Keys that a sweep repeats a recipe over; between the values of any other it chooses."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep and, once it was read, what became of it."""

    number: int
    folder: str
    """Relative to the sweep's."""
    overrides: list[str]
    state: State = State.MISSING
    error: str = ""
    run: TrainingRecord | None = None
    """Its ``run.json`` if it has finished."""
    pruned: PrunedRecord | None = None
    """Its ``pruned.json`` if it was ended early."""
    metrics: Metrics | None = None

    @property
    def launched(self) -> list[str]:
        """Its overrides with its folder, whose name may hold the time of this start."""
        return [*self.overrides, f"hydra.sweep.subdir={quoted_if_needed(self.folder)}"]

    @property
    def values(self) -> dict[str, str]:
        """Its overrides by key."""
        return values_of(self.overrides)

    @property
    def outcome(self) -> PrunedRecord | None:
        """What is known of it, finished or ended early."""
        return self.run or self.pruned

    @property
    def validated_on(self) -> str:
        """Fingerprint of its validation images."""
        return "" if self.run is None else self.run["dataset"]["fingerprints"]["val"][:16]

    def score(self, split: str, name: str) -> float | None:
        """A score on val or test; None where it was not measured."""
        if split == "val":
            return None if self.outcome is None else self.outcome["validation"].get(name)
        if self.metrics is None or self.metrics["split"] != split:
            return None
        return scores_in(self.metrics).get(name)


# --- what there is to run ------------------------------------------------------------------------


def plan(
    config: DictConfig,
    loader: ConfigLoader,
    jobs: Sequence[Sequence[str]],
    before: Sequence[Job] = (),
) -> list[Job]:
    """Give each job a folder of its own, as ``hydra.sweep.subdir`` says.

    ``loader`` composes the configuration of a job from that of the sweep, ``config``. The jobs
    ``before`` have their folders, and are returned too.

    Raises:
        CommandError: a folder would lie outside the sweep's.
    """
    subdir = OmegaConf.to_container(config.hydra, resolve=False)["sweep"]["subdir"]  # type: ignore
    planned = list(before)
    for number, job in enumerate(jobs, start=len(before)):
        folder = str(number) if subdir == NUMBER else ask_folder(config, loader, number, job)
        if not is_inside(folder):
            raise CommandError(
                f"Error: hydra.sweep.subdir: expected a folder inside the sweep's, found "
                f"{folder!r}. Leave it out, or take "
                "'hydra.sweep.subdir=${hydra:job.override_dirname}'"
            )
        # The next name that no job has; some systems ignore capitals.
        taken = {other.folder.casefold() for other in planned}
        names = itertools.chain([folder], (f"{folder}_{n}" for n in itertools.count(2)))
        free = next(name for name in names if name.casefold() not in taken)
        planned.append(Job(number, free, list(job)))
    return planned


def ask_folder(config: DictConfig, loader: ConfigLoader, number: int, job: Sequence[str]) -> str:
    """The value of ``hydra.sweep.subdir`` in a job."""
    own = loader.load_sweep_config(config, list(job))
    with open_dict(own):
        own.hydra.job.num = number
        own.hydra.job.id = str(number)
    try:
        HydraConfig.instance().set_config(own)
        return str(own.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().set_config(config)


def is_inside(folder: str) -> bool:
    """True if a path stays below the folder that it is relative to.

    >>> is_inside("lr=1,x/seed=0"), is_inside("."), is_inside("../x"), is_inside("/tmp")
    (True, False, False, False)
    """
    return bool(PurePosixPath(folder).parts) and not is_outside(folder)


def begin(folder: Path, jobs: Sequence[Job], config: DictConfig) -> None:
    """Record a new sweep."""
    for job in jobs:
        if state_of(folder / job.folder) is not State.MISSING:
            raise CommandError(
                f"Error: hydra.sweep.dir: expected a folder without a run, found one in "
                f"{folder / job.folder}. Choose another folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    save_jobs(folder, jobs)  # last: a sweep that was killed before begins anew


def save_jobs(folder: Path, jobs: Sequence[Job]) -> None:
    """Write the list of a sweep's jobs."""
    rows = [{"folder": job.folder, "overrides": plain(job.overrides)} for job in jobs]
    write_json(folder / JOBS, rows)


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep, as far as they are recorded."""
    path = folder / JOBS
    jobs = read_json(path, [{"folder": str, "overrides": [str]}])
    for job in jobs:
        if not is_inside(job["folder"]):
            raise DataError(
                f"{path}: expected folders inside the sweep's, found {job['folder']!r}. Start a "
                "new sweep."
            )
    return [Job(number, job["folder"], job["overrides"]) for number, job in enumerate(jobs)]


def recall(folder: Path, jobs: Sequence[Sequence[str]]) -> list[Job]:
    """The jobs of a sweep that is resumed."""
    saved = read_jobs(folder)
    if [job.overrides for job in saved] != [plain(job) for job in jobs]:
        raise CommandError(
            f"Error: resume: expected the {len(saved)} jobs of {folder} as they were, found other "
            "options. Start a new sweep without resume."
        )
    return [replace(old, overrides=list(job)) for old, job in zip(saved, jobs, strict=True)]


def leave_test_alone(jobs: Sequence[list[str]]) -> list[list[str]]:
    """Add ``test=false`` to the jobs of a grid whose scores choose between them.

    Unless the command says ``test=…`` itself.
    """
    if not chooses(jobs) or any("test" in values_of(job) for job in jobs):
        return [list(job) for job in jobs]
    return [[*job, "test=false"] for job in jobs]


def chooses(jobs: Sequence[Sequence[str]]) -> bool:
    """True if a sweep compares recipes, and does not only repeat one.

    >>> chooses([["seed=0"], ["seed=1"]]), chooses([["optimizer.lr=1"], ["optimizer.lr=2"]])
    (False, True)
    """
    return any(key not in REPEATS for key in swept_keys(map(values_of, jobs)))


def to_run(folder: Path, jobs: Sequence[Job]) -> list[tuple[int, list[list[str]]]]:
    """The launches of the jobs that have not finished; see :func:`launches`."""
    return launches(
        (job.number, job.launched)
        for job in jobs
        if state_of(folder / job.folder) is not State.FINISHED
    )


def launches(jobs: Iterable[tuple[int, list[str]]]) -> list[tuple[int, list[list[str]]]]:
    """Group jobs into launches of consecutive numbers, each with its first number.

    A launcher counts the jobs of a launch from its first number on.
    """
    numbered = enumerate(jobs)
    groups = itertools.groupby(numbered, key=lambda item: item[1][0] - item[0])
    rows = ([job for _, job in group] for _, group in groups)
    return [(row[0][0], [overrides for _, overrides in row]) for row in rows]


# --- what became of it ---------------------------------------------------------------------------


def read_job(folder: Path, job: Job) -> Job:
    """Read what became of a job of the sweep in ``folder``.

    Raises:
        DataError: a file of it cannot be read, or is something else.
    """
    place = folder / job.folder
    found = replace(job, overrides=plain(job.overrides), state=state_of(place))
    if found.state is State.FINISHED:
        return replace(found, run=read_training(place), metrics=read_metrics(place))
    if found.state is State.PRUNED:
        return replace(found, pruned=read_json(place / PRUNED, PRUNED_SHAPE))
    if found.state is State.FAILED:
        return replace(found, error=read_json(place / FAILED, {"message": str})["message"])
    return found


def swept_keys(jobs: Iterable[Mapping[str, str]]) -> list[str]:
    """The keys of jobs that have more than one value, in the order of the command line."""
    jobs = list(jobs)
    keys = dict.fromkeys(key for job in jobs for key in job)
    return [key for key in keys if len({job.get(key) for job in jobs}) > 1]


def best_jobs(jobs: Sequence[Job]) -> list[Job]:
    """The finished job with the highest validation macro-F1, the first of several.

    One for each set of validation images: scores on different images choose nothing.
    """
    best: dict[str, Job] = {}
    for job in jobs:
        if job.state is State.FINISHED:
            pair = best.get(job.validated_on, job), job
            best[job.validated_on] = max(pair, key=lambda one: one.score("val", "macro_f1") or 0.0)
    return list(best.values())


def measured_scores(jobs: Sequence[Job]) -> list[tuple[str, Score]]:
    """The splits and scores to show: those of test only where a job has measured it."""
    tested = any(job.score("test", "macro_f1") is not None for job in jobs)
    splits = ("val", "test") if tested else ("val",)
    return [(split, score) for split in splits for score in shown_in("sweeps")]


def write_table(path: Path, jobs: Sequence[Job], keys: Sequence[str]) -> None:
    """Write ``sweep.csv``, a row for each job."""
    scores = [(split, score.name) for split, score in measured_scores(jobs)]
    rows = [
        {
            "job": job.number,
            "status": job.state.value,
            **{key: job.values.get(key) for key in keys},
            **{f"{split}_{name}": job.score(split, name) for split, name in scores},
            "validated_on": job.validated_on,
            "best_epoch": None if job.outcome is None else job.outcome["best_epoch"],
            "epochs": None if job.outcome is None else job.outcome["epochs"],
            "seconds": None if job.outcome is None else job.outcome["wall_seconds"],
            "error": job.error.replace("\n", " "),
            "run": job.folder,
        }
        for job in jobs
    ]
    write_csv(path, list(rows[0]), rows)


def notes_on(jobs: Sequence[Job]) -> list[str]:
    """Notes for a reader of the table."""
    finished = [job for job in jobs if job.state is State.FINISHED]
    notes = mean_over_folds(jobs)
    best = best_jobs(jobs)
    if len(best) > 1 and not notes:
        each = ", ".join(f"job {job.number} (validated on {job.validated_on})" for job in best)
        notes.append(
            f"No job is the best of all: they are scored on {len(best)} different sets of "
            f"validation images. The best on each: {each}."
        )
    tested = any(job.metrics and job.metrics["split"] == "test" for job in finished)
    if finished and not tested and chooses([job.overrides for job in jobs]):
        notes.append(
            "The test split was left alone, since the jobs are compared on validation. Measure the "
            "best one when the choice is made: python evaluate.py checkpoint=PATH"
        )
    return notes + disparities([job.run for job in finished if job.run is not None])


def mean_over_folds(jobs: Sequence[Job]) -> list[str]:
    """A note on the mean of the test scores, if the jobs are the folds of a cross-validation."""
    values = [job.values for job in jobs]
    folds = {one.get(FOLD, "").partition("/")[0] for one in values}
    counts = {one.get(FOLD, "").partition("/")[2] for one in values}
    if swept_keys(values) != [FOLD] or counts != {str(len(jobs))} or len(folds) != len(jobs):
        return []
    words = []
    for score in shown_in("sweeps"):
        own = [value for job in jobs if (value := job.score("test", score.name)) is not None]
        if len(own) < len(jobs):
            return []
        spread = score.format.digits(stdev(own))
        middle = score.format.digits(mean(own))
        words.append(f"{score.heading} {middle} ± {spread}{score.format.unit}")
    return [
        f"Cross-validation, mean and standard deviation of the {len(jobs)} folds, each measured "
        f"once: {', '.join(words)}."
    ]


def write_best(path: Path, best: Sequence[Job], notes: Sequence[str]) -> None:
    """Write ``best.yaml``: the job that validation chose, as a command and as numbers.

    Where jobs were validated on different images, a list of them below ``best_on_each``.
    """
    chosen = []
    for job in best:
        assert job.run is not None
        chosen.append(
            {
                "job": job.number,
                "run": job.folder,
                "overrides": job.overrides,
                "validation": job.run["validation"],
                "best_epoch": job.run["best_epoch"],
                "seed": job.run["seed"],
            }
        )
    content: dict[str, object] = {"chosen_by": "validation macro-F1"}
    content |= chosen[0] if len(chosen) == 1 else {"best_on_each": chosen}
    content["notes"] = list(notes)
    # Through JSON: plain values, floats in full.
    text = yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True)
    write_text(path, text)


def short_names(keys: Sequence[str]) -> list[str]:
    """Keys without their groups, unless that makes two of them equal.

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
