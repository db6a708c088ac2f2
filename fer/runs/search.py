"""Searches by Optuna: ``train.py sweep=optuna``.

The study's storage is the record: a trial is a job of the sweep, under the same number. What became
of a job is read from its folder, not from what a launcher returns, so that a search that was killed
goes on where it was. Neither Optuna nor torch is imported before it is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
)
from hydra.errors import HydraException

from fer.core.application import FAILED
from fer.core.errors import ConfigError
from fer.core.files import write_json
from fer.core.options import SEED, SWITCH, TEXT, Check, or_null, whole
from fer.runs import sweep
from fer.runs.state import State
from fer.runs.sweep import Planned

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

ADVICE = (
    "The search went on without them. Where the cause lay outside the values, ask for more trials: "
    "python train.py {resume} hydra.sweeper.n_trials=NUMBER"
)
"""What to do about trials that have failed: to Optuna a failure is a result."""

EXAMPLE = "'optimizer.lr=tag(log, interval(1e-4, 1e-2))'"

Launch = Callable[[int, list[list[str]]], None]
"""Runs jobs: the number of the first and the overrides of each."""
Plan = Callable[[Sequence[Sequence[str]], Sequence[Planned]], list[Planned]]
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
        """Checked.

        Raises:
            ConfigError: a value is missing, unknown or not what it should be.
        """
        for place, checks, found in (
            ("hydra.sweeper", SETTINGS, values),
            ("hydra.sweeper.pruning", PRUNING, values.get("pruning", {})),
        ):
            if not isinstance(found, Mapping) or set(found) != set(checks):
                raise ConfigError(
                    f"{place}: expected {', '.join(checks)}, found "
                    f"{', '.join(map(str, found)) if isinstance(found, Mapping) else found!r}. "
                    "See conf/sweep/optuna.yaml"
                )
            for key, (words, accept) in checks.items():
                if not accept(found[key]):
                    raise ConfigError(
                        f"{place}.{key}: expected {words}, found {found[key]!r}. Set it: "
                        f"{place}.{key}=VALUE"
                    )
        return cls(**{**values, "pruning": dict(values["pruning"])})


SETTINGS: dict[str, Check] = {
    "n_trials": whole(1),
    "n_jobs": whole(1),
    "study_name": TEXT,
    "storage": or_null(TEXT, "for optuna.db in the sweep's folder"),
    "seed": SEED,
    "random_trials": whole(1),
    "pruning": (
        "enabled, startup_trials and warmup_epochs",
        lambda value: isinstance(value, Mapping),
    ),
}
PRUNING: dict[str, Check] = {
    "enabled": SWITCH,
    "startup_trials": whole(0),
    "warmup_epochs": whole(0),
}


# --- the search space --------------------------------------------------------------------------


@dataclass(frozen=True)
class Dimension:
    """An option that is searched, and its values."""

    key: str
    """As in an override, with the + of a key that is added."""
    kind: str
    """``float``, ``int`` or ``choice``."""
    low: float = 0
    high: float = 0
    """Both ends are among the values."""
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    """As texts of the command line."""

    @property
    def name(self) -> str:
        """The key alone: the parameter's name in the study."""
        return self.key.lstrip("+~")

    def suggest(self, trial: optuna.trial.Trial) -> None:
        """Let the study choose a value for ``trial``."""
        if self.kind == "choice":
            trial.suggest_categorical(self.name, self.choices)
        elif self.kind == "int":
            step = 1 if self.step is None else int(self.step)
            trial.suggest_int(self.name, int(self.low), int(self.high), step=step, log=self.log)
        else:
            trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def override(self, value: Any) -> str:
        """``value`` of this option on the command line, a float in full.

        >>> Dimension("a", "float", 0.1, 0.5, step=0.1).override(0.1 + 2 * 0.1)
        'a=0.3'
        """
        if self.kind == "float" and self.step is not None:
            value = _stepped(self.low, self.step, round((value - self.low) / self.step))
        return f"{self.key}={value}"


def _stepped(low: float, step: float, count: int) -> float:
    """``low + count * step`` in decimal digits, as one writes it."""
    return float(Decimal(repr(low)) + count * Decimal(repr(step)))


def read_space(
    params: Mapping[str, Any], arguments: Sequence[str], parser: OverridesParser
) -> tuple[list[Dimension], list[str]]:
    """The options that are searched, and the overrides that every job shares.

    Args:
        params: ``hydra.sweeper.params``.
        arguments: overrides of the command line; one for a key of ``params`` takes its place.
        parser: Hydra's.

    Raises:
        ConfigError: nothing is searched, or something cannot be.
    """
    for key, value in params.items():
        if isinstance(value, Mapping):
            raise ConfigError(
                f"hydra.sweeper.params: expected values below each key, found {key}: {value}. "
                f"Pass it as an override: {EXAMPLE}"
            )
    try:
        overrides = parser.parse_overrides([*(f"{k}={v}" for k, v in params.items()), *arguments])
    except HydraException as error:
        raise ConfigError(
            f"hydra.sweeper.params: expected values such as {EXAMPLE}, found: {error}"
        ) from error
    by_key = {override.get_key_element(): override for override in overrides}
    swept = {key: item for key, item in by_key.items() if item.is_sweep_override()}
    if not swept:
        raise ConfigError(
            "hydra.sweeper.params: expected options to search, found none. Pass one as "
            f"{EXAMPLE}, or choose the space in conf/sweep/optuna.yaml"
        )
    for key in swept:
        name = key.lstrip("+~")
        # dataset.leaks changes training images alone.
        if name == "dataset" or (name.startswith("dataset.") and name != "dataset.leaks"):
            raise ConfigError(
                f"hydra.sweeper.params: expected options that leave the validation images as they "
                f"are, found {key}: scores on different images choose nothing. Search each dataset "
                f"on its own, with {key}=VALUE"
            )
    space = [make_dimension(key, item) for key, item in swept.items()]
    return space, [str(item.input_line) for key, item in by_key.items() if key not in swept]


def make_dimension(key: str, override: Override) -> Dimension:
    """What an override with several values says.

    Raises:
        ConfigError: it has no values, or values that a search cannot take.
    """
    value = override.value()
    tags: set[str] = getattr(value, "tags", set())
    allowed: set[str] = {"log"} if isinstance(value, IntervalSweep) else set()
    if tags - allowed:
        raise ConfigError(
            f"{override.input_line}: expected {'the tag log or none' if allowed else 'no tag'}, "
            f"found {', '.join(sorted(tags - allowed))}. Write {EXAMPLE}"
        )
    if isinstance(value, IntervalSweep):
        dimension = _make_interval(key, value)
    elif isinstance(value, RangeSweep):
        dimension = _make_range(key, value)
    else:
        assert isinstance(value, ChoiceSweep | list) or override.is_choice_sweep()
        choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
        dimension = Dimension(key, "choice", choices=choices) if choices else None
    if dimension is None:
        raise ConfigError(
            f"{override.input_line}: expected at least one value, from the lower to the higher and "
            f"above 0 on a logarithmic scale, found none. Write it like {EXAMPLE}"
        )
    return dimension


def _make_interval(key: str, value: IntervalSweep) -> Dimension | None:
    """None where it is empty."""
    low, high, log = value.start, value.end, "log" in value.tags
    assert low is not None and high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or (log and low <= 0):
        return None
    if isinstance(low, int) and isinstance(high, int):
        return Dimension(key, "int", low, high, log=log)
    return Dimension(key, "float", float(low), float(high), log=log)


def _make_range(key: str, value: RangeSweep) -> Dimension | None:
    """The values that a grid would take, without the upper end; None where there are none."""
    step = abs(value.step)
    if step == 0:
        return None
    values = sorted(value.range())
    if not values:
        return None
    if all(isinstance(item, int) for item in values):
        return Dimension(key, "int", values[0], values[-1], step=step)
    low = float(values[0])
    return Dimension(key, "float", low, _stepped(low, step, len(values) - 1), step=step)


def example(space: Iterable[Dimension], fixed: Iterable[str]) -> list[str]:
    """The overrides of some job."""
    values = ((d.choices[0] if d.kind == "choice" else d.low) for d in space)
    return [*fixed, *(d.override(value) for d, value in zip(space, values, strict=True))]


# --- the study ---------------------------------------------------------------------------------


def locate_storage(folder: Path, storage: str | None) -> str:
    """Of the study of the sweep in ``folder``, as it is from every working folder."""
    if storage is None:
        return f"sqlite:///{(folder / 'optuna.db').absolute()}"
    if storage.startswith("journal:"):
        return f"journal:{Path(storage.removeprefix('journal:')).absolute()}"
    return storage


def open_storage(storage: str) -> optuna.storages.BaseStorage:
    """A database, or the file of ``journal:PATH``.

    Raises:
        ConfigError: it cannot be opened, or Optuna is not installed.
    """
    optuna = import_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    # Jobs that run side by side wait for each other's writes, in seconds.
    patient = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite:") else {}
    try:
        if storage.startswith("journal:"):
            from optuna.storages.journal import JournalFileBackend

            return optuna.storages.JournalStorage(
                JournalFileBackend(storage.removeprefix("journal:"))
            )
        return optuna.storages.RDBStorage(storage, engine_kwargs=patient)
    except (ImportError, OSError, ValueError, RuntimeError, SQLAlchemyError) as error:
        raise ConfigError(
            f"hydra.sweeper.storage: expected null, journal:PATH or the URL of a database that can "
            f"be opened, found {storage}: {error}"
        ) from error


def open_study(
    folder: Path,
    space: Sequence[Dimension],
    fixed: Sequence[str],
    settings: Settings,
    *,
    resuming: bool,
) -> tuple[optuna.study.Study, optuna.storages.BaseStorage]:
    """The study of the sweep in ``folder``: a new one, or with ``resuming`` the one it has.

    Raises:
        ConfigError: there is one already, there is none, or it searches something else.
    """
    optuna = import_optuna()
    name = settings.study_name
    where = locate_storage(folder, settings.storage)
    storage = open_storage(where)
    exists = name in optuna.get_all_study_names(storage)
    if exists and not resuming:
        raise ConfigError(
            f"hydra.sweeper.study_name: expected a study that {where} does not have yet, found "
            f"{name}. Choose another name, or go on with its sweep: python train.py resume=FOLDER"
        )
    if not exists and resuming and sweep.read_jobs(folder):
        raise ConfigError(
            f"resume: expected the study {name} of {folder} in {where}, found none. Bring the "
            "storage back, or start a new sweep."
        )
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )
    wanted = {"space": [asdict(item) for item in space], "fixed": sweep.plain(fixed)}
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as in the storage
    saved = study.user_attrs.get("search", wanted)
    if saved != wanted:
        raise ConfigError(
            f"resume: expected the search of {folder} as it was, found another space or other "
            f"options: {_difference(saved, wanted)}. Start a new sweep without resume."
        )
    study.set_user_attr("search", wanted)
    study.set_user_attr("pruning", dict(settings.pruning))
    return study, storage


def _difference(saved: Mapping[str, list[Any]], wanted: Mapping[str, list[Any]]) -> str:
    """The options that are not the same."""
    one, other = (
        {**{item["key"]: item for item in side["space"]}, **{item: item for item in side["fixed"]}}
        for side in (saved, wanted)
    )
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return ", ".join(keys) or "their order"


def trial_id(storage: optuna.storages.BaseStorage, study_name: str, number: int) -> int:
    """The storage's own name of a trial.

    Raises:
        KeyError: there is no such study or trial.
    """
    study = storage.get_study_id_from_name(study_name)
    return storage.get_trial_id_from_study_id_trial_number(study, number)


def search(
    folder: Path,
    space: Sequence[Dimension],
    fixed: Sequence[str],
    settings: Settings,
    plan: Plan,
    launch: Launch,
    *,
    resuming: bool,
) -> list[Planned]:
    """Ask for trials and run them until there are ``n_trials``.

    A trial that was running when the search was killed comes first, with its values, in its folder.

    Returns:
        Every job.

    Raises:
        ConfigError: there is no such study to go on with, or one to write over.
    """
    study, storage = open_study(folder, space, fixed, settings, resuming=resuming)
    planned: list[Planned] = []
    trials = Trials(folder, space, fixed, settings, study, storage, planned)
    # With what is said now beside resume, which the list of jobs does not keep.
    saved = zip(sweep.read_jobs(folder), trials.jobs(), strict=False)
    planned += [Planned(old.folder, job) for old, job in saved]
    left = trials.cut_off()
    while True:
        batch, left = left[: settings.n_jobs], left[settings.n_jobs :]
        while len(batch) < settings.n_jobs and len(trials.begun()) < settings.n_trials:
            batch.append(trials.ask())
        planned[:] = plan(trials.jobs()[len(planned) :], planned)
        if not batch:
            return planned
        sweep.save_jobs(folder, planned)
        where = locate_storage(folder, settings.storage)
        numbered = [
            (number, [*planned[number].launched, *link(settings.study_name, number, where)])
            for number in batch
        ]
        for first, group in sweep.neighbours(numbered):
            launch(first, group)
        for number in batch:
            if not trials.settle(number):
                message = "expected a result, found none: its process has ended before its time"
                place = folder / planned[number].folder
                write_json(place / FAILED, {"error": "", "message": message})
                trials.settle(number)


@dataclass(frozen=True)
class Trials:
    """The trials of a study, each of which is a job of the sweep under the same number."""

    folder: Path
    space: Sequence[Dimension]
    fixed: Sequence[str]
    settings: Settings
    study: optuna.study.Study
    storage: optuna.storages.BaseStorage
    planned: Sequence[Planned]
    """The jobs that have been launched, those of the running search too."""

    def begun(self) -> list[FrozenTrial]:
        """All trials but those that somebody has put into the study to be run later."""
        waiting = import_optuna().trial.TrialState.WAITING
        return [t for t in self.study.get_trials(deepcopy=False) if t.state != waiting]

    def jobs(self) -> list[list[str]]:
        """The overrides of each."""
        return [
            [*self.fixed, *(d.override(t.params[d.name]) for d in self.space if d.name in t.params)]
            for t in self.begun()
        ]

    def ask(self) -> int:
        """A new one with values that the study proposes; its number."""
        # A sampler of its own for each trial: a search that goes on proposes what it would have.
        self.study.sampler = make_sampler(self.settings, len(self.begun()))
        trial = self.study.ask()
        for dimension in self.space:
            dimension.suggest(trial)
        return trial.number

    def cut_off(self) -> list[int]:
        """Those that were running when the search was killed and have no result, with values."""
        optuna = import_optuna()
        left = []
        for trial in self.begun():
            running = trial.state == optuna.trial.TrialState.RUNNING
            if not running or self.settle(trial.number):
                continue
            self.study.sampler = make_sampler(self.settings, trial.number)
            again = optuna.trial.Trial(self.study, self._id(trial.number))
            for dimension in self.space:  # if it was killed while it was proposed
                dimension.suggest(again)
            left.append(trial.number)
        return left

    def settle(self, number: int) -> bool:
        """Tell the study what became of a job; False if it has not come to an end."""
        states = import_optuna().trial.TrialState
        if number >= len(self.planned):
            return False
        job = sweep.read_job(self.folder, number, self.planned[number])
        if job.state is State.FINISHED:
            self.study.tell(number, job.score("val", "macro_f1"))
        elif job.state is State.PRUNED:
            self.study.tell(number, state=states.PRUNED)
        elif job.state is State.FAILED:
            self.storage.set_trial_user_attr(self._id(number), "error", job.error)
            self.study.tell(number, state=states.FAIL)
        else:
            return False
        return True

    def _id(self, number: int) -> int:
        return trial_id(self.storage, self.settings.study_name, number)


def make_sampler(settings: Settings, number: int) -> optuna.samplers.BaseSampler:
    """TPE (Bergstra et al., NeurIPS 2011) for the trial ``number``."""
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    sampler: optuna.samplers.BaseSampler = import_optuna().samplers.TPESampler(
        n_startup_trials=settings.random_trials, seed=seed, constant_liar=True
    )
    return sampler


def link(study_name: str, number: int, storage: str) -> list[str]:
    """The overrides by which a job knows its trial."""

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    return [
        f"optuna.study={quoted(study_name)}",
        f"optuna.trial={number}",
        f"optuna.storage={quoted(storage)}",
    ]


# --- in a job ----------------------------------------------------------------------------------


class Reporter:
    """Tells the study how a trial gets on; made in the process that trains.

    Args:
        study: its name.
        number: of the trial.
        storage: of the study.

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
        """Report the score of an epoch; whether the trial should end here."""
        if epoch < self._last:  # it was cut off later than it goes on, and had not been ended here
            return False
        if epoch > self._last:
            self._trial.report(score, epoch)
            self._last = epoch
        return bool(self._trial.should_prune())
