"""Searches by Optuna: ``train.py sweep=optuna``.

The study's storage is the record: a trial is a job of the sweep, under the same number. What became
of a job is read from its folder, not from what a launcher returns, so that a search that was killed
goes on where it was. Neither Optuna nor torch is imported before it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer.core.application import FAILED
from fer.core.commands import quoted_if_needed
from fer.core.errors import ConfigError
from fer.core.files import write_json
from fer.core.options import (
    SEED,
    SWITCH,
    TEXT,
    Check,
    Guard,
    check_values,
    or_null,
    whole,
)
from fer.runs import sweep
from fer.runs.overrides import plain
from fer.runs.search_space import Dimension
from fer.runs.state import State
from fer.runs.sweep import Job

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

ADVICE = (
    "The search went on without them. Where the cause lay outside the values, ask for more trials: "
    "python train.py {resume} hydra.sweeper.n_trials=NUMBER"
)
"""Advice on trials that have failed: to Optuna a failure is a result."""
SETTINGS: dict[str, Check] = {
    "n_trials": whole(1),
    "n_jobs": whole(1),
    "study_name": TEXT,
    "storage": or_null(TEXT, "for optuna.db in the sweep's folder"),
    "seed": SEED,
    "random_trials": whole(1),
    "pruning": (
        "enabled, startup_trials and warmup_epochs",
        lambda found: (
            isinstance(found, Mapping)
            and set(found) == {"enabled", "startup_trials", "warmup_epochs"}
        ),
    ),
    "pruning.enabled": SWITCH,
    "pruning.startup_trials": whole(0),
    "pruning.warmup_epochs": whole(0),
}
Launch = Callable[[int, list[list[str]]], None]
"""Runs jobs: the number of the first and the overrides of each."""
Plan = Callable[[Sequence[Sequence[str]], Sequence[Job]], list[Job]]
"""Gives new jobs their folders; see :func:`fer.runs.sweep.plan`."""


def import_optuna() -> Any:
    """The package, which is not among those that training needs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"sweep=optuna: expected the package optuna, found no {error.name}. Install it: "
            'pip install "fer-lab[optuna]"'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@dataclass(frozen=True)
class Settings:
    """``hydra.sweeper`` but for the search space; ``conf/sweep/optuna.yaml`` explains each."""

    n_trials: int
    n_jobs: int
    study_name: str
    storage: str | None
    seed: int
    random_trials: int
    pruning: Mapping[str, Any]

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> Settings:
        """Check the values.

        Raises:
            ConfigError: one is missing, unknown or not what it should be.
        """
        settings: Settings = Guard(cls, "hydra.sweeper")(**values)
        check_values("hydra.sweeper", vars(settings), SETTINGS)
        return replace(settings, pruning=dict(settings.pruning))


def locate_storage(folder: Path, storage: str | None) -> str:
    """The storage of the sweep in ``folder``, as it is named from every working folder."""
    if storage is None:
        return f"sqlite:///{(folder / 'optuna.db').absolute()}"
    if storage.startswith("journal:"):
        return f"journal:{Path(storage.removeprefix('journal:')).absolute()}"
    return storage


def open_storage(storage: str) -> optuna.storages.BaseStorage:
    """Open a database, or the file of ``journal:PATH``."""
    optuna = import_optuna()
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    # Jobs that run side by side wait for each other's writes, in seconds.
    patient = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite:") else {}
    try:
        if storage.startswith("journal:"):
            file = JournalFileBackend(storage.removeprefix("journal:"))
            return optuna.storages.JournalStorage(file)
        return optuna.storages.RDBStorage(storage, engine_kwargs=patient)
    except (ImportError, OSError, ValueError, RuntimeError, SQLAlchemyError) as error:
        raise ConfigError(
            f"hydra.sweeper.storage: expected null, journal:PATH or the URL of a database that can "
            f"be opened, found {storage}: {error}"
        ) from error


def trial_id(storage: optuna.storages.BaseStorage, study_name: str, number: int) -> int:
    """The storage's own name of a trial; a KeyError if there is none."""
    study = storage.get_study_id_from_name(study_name)
    return storage.get_trial_id_from_study_id_trial_number(study, number)


class Search:
    """A search: a study, and its trials as the jobs of the sweep in ``folder``.

    The study is a new one, or with ``resuming`` the one that the sweep has.

    Raises:
        ConfigError: there is no such study to go on with, or one to write over.
    """

    def __init__(
        self,
        folder: Path,
        space: Sequence[Dimension],
        fixed: Sequence[str],
        settings: Settings,
        *,
        resuming: bool,
    ) -> None:
        self.optuna = import_optuna()
        self.folder, self.space, self.fixed, self.settings = folder, space, fixed, settings
        self.where = locate_storage(folder, settings.storage)
        self.storage = open_storage(self.where)
        name = settings.study_name
        exists = name in self.optuna.get_all_study_names(self.storage)
        if exists and not resuming:
            raise ConfigError(
                f"hydra.sweeper.study_name: expected a study that {self.where} does not have yet, "
                f"found {name}. Choose another name, or go on with its sweep: python train.py "
                "resume=FOLDER"
            )
        if not exists and resuming and sweep.read_jobs(folder):
            raise ConfigError(
                f"resume: expected the study {name} of {folder} in {self.where}, found none. Bring "
                "the storage back, or start a new sweep."
            )
        self.study: optuna.study.Study = self.optuna.create_study(
            storage=self.storage, study_name=name, direction="maximize", load_if_exists=True
        )
        wanted = {"space": [asdict(item) for item in space], "fixed": plain(fixed)}
        wanted = json.loads(json.dumps(wanted))  # tuples become lists, as in the storage
        saved = self.study.user_attrs.get("search", wanted)
        if saved != wanted:
            raise ConfigError(
                f"resume: expected the search of {folder} as it was ({saved}), found another space "
                f"or other options: {wanted}. Start a new sweep without resume."
            )
        self.study.set_user_attr("search", wanted)
        self.study.set_user_attr("pruning", dict(settings.pruning))

    def run(self, plan: Plan, launch: Launch) -> list[Job]:
        """Ask for trials and run them until there are ``n_trials``; returns every job.

        A trial that was running when the search was killed comes first, with its values, in its
        folder.
        """
        settings = self.settings
        # With what is said now beside resume, which the list of jobs does not keep.
        saved = zip(sweep.read_jobs(self.folder), self.overrides(), strict=False)
        jobs = [replace(old, overrides=overrides) for old, overrides in saved]
        left = self.cut_off(jobs)
        while True:
            batch, left = left[: settings.n_jobs], left[settings.n_jobs :]
            while len(batch) < settings.n_jobs and len(self.begun()) < settings.n_trials:
                batch.append(self.ask())
            jobs = plan(self.overrides()[len(jobs) :], jobs)
            if not batch:
                return jobs
            sweep.save_jobs(self.folder, jobs)
            for first, group in sweep.launches(
                (number, [*jobs[number].launched, *link(settings.study_name, number, self.where)])
                for number in batch
            ):
                launch(first, group)
            for number in batch:
                if not self.settle(jobs[number]):
                    message = "expected a result, found none: its process has ended before its time"
                    place = self.folder / jobs[number].folder
                    write_json(place / FAILED, {"error": "", "message": message})
                    self.settle(jobs[number])

    def begun(self) -> list[FrozenTrial]:
        """All trials but those that somebody has put into the study to be run later."""
        waiting = self.optuna.trial.TrialState.WAITING
        return [t for t in self.study.get_trials(deepcopy=False) if t.state != waiting]

    def overrides(self) -> list[list[str]]:
        """The overrides of each trial."""
        return [
            [*self.fixed, *(d.override(t.params[d.name]) for d in self.space if d.name in t.params)]
            for t in self.begun()
        ]

    def ask(self) -> int:
        """Add a trial with values that the study proposes; returns its number."""
        self.study.sampler = make_sampler(self.settings, len(self.begun()))
        return self._complete(self.study.ask())

    def cut_off(self, jobs: Sequence[Job]) -> list[int]:
        """The trials that were running when the search was killed and have no result."""
        left = []
        for trial in self.begun():
            number = trial.number
            running = trial.state == self.optuna.trial.TrialState.RUNNING
            if running and not (number < len(jobs) and self.settle(jobs[number])):
                self.study.sampler = make_sampler(self.settings, number)
                again = self.optuna.trial.Trial(self.study, self._id(number))
                left.append(self._complete(again))
        return left

    def _complete(self, trial: optuna.trial.Trial) -> int:
        """Propose the values that a trial lacks; it may have been killed meanwhile."""
        for dimension in self.space:
            dimension.suggest(trial)
        return trial.number

    def settle(self, job: Job) -> bool:
        """Tell the study what became of a job; False if it has not come to an end."""
        states = self.optuna.trial.TrialState
        found = sweep.read_job(self.folder, job)
        if found.state is State.FINISHED:
            self.study.tell(job.number, found.score("val", "macro_f1"))
        elif found.state is State.PRUNED:
            self.study.tell(job.number, state=states.PRUNED)
        elif found.state is State.FAILED:
            self.storage.set_trial_user_attr(self._id(job.number), "error", found.error)
            self.study.tell(job.number, state=states.FAIL)
        else:
            return False
        return True

    def _id(self, number: int) -> int:
        return trial_id(self.storage, self.settings.study_name, number)


def make_sampler(settings: Settings, number: int) -> optuna.samplers.BaseSampler:
    """TPE (Bergstra et al., NeurIPS 2011) with a seed of the trial's own.

    A search that is resumed proposes what it would have proposed.
    """
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    sampler: optuna.samplers.BaseSampler = import_optuna().samplers.TPESampler(
        n_startup_trials=settings.random_trials, seed=seed, constant_liar=True
    )
    return sampler


def link(study_name: str, number: int, storage: str) -> list[str]:
    """The overrides by which a job knows its trial."""
    return [
        f"optuna.study={quoted_if_needed(study_name)}",
        f"optuna.trial={number}",
        f"optuna.storage={quoted_if_needed(storage)}",
    ]


class Reporter:
    """Reports the progress of a study's trial, from the process that trains.

    Raises:
        ConfigError: there is no such trial.
    """

    def __init__(self, study: str, number: int, storage: str) -> None:
        optuna = import_optuna()
        opened = open_storage(storage)
        try:
            identity = trial_id(opened, study, number)
        except KeyError as error:
            raise ConfigError(
                f"optuna: expected trial {number} of the study {study} in {storage}, found none. "
                "Leave optuna.study, optuna.trial and optuna.storage to sweep=optuna."
            ) from error
        loaded = optuna.load_study(
            study_name=study, storage=opened, sampler=optuna.samplers.RandomSampler()
        )
        pruning = loaded.user_attrs["pruning"]
        loaded.pruner = (
            optuna.pruners.MedianPruner(pruning["startup_trials"], pruning["warmup_epochs"])
            if pruning["enabled"]
            else optuna.pruners.NopPruner()
        )
        self._trial = optuna.trial.Trial(loaded, identity)
        self._last = max(opened.get_trial(identity).intermediate_values, default=-1)

    def report(self, score: float, epoch: int) -> bool:
        """Report the score of an epoch; returns whether the trial should end here."""
        if epoch < self._last:  # repeated after a kill: it had not been ended here
            return False
        if epoch > self._last:
            self._trial.report(score, epoch)
            self._last = epoch
        return bool(self._trial.should_prune())
