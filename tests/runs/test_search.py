"""Searches by Optuna: what is proposed, what survives a kill, what ends early, what is refused."""

from __future__ import annotations

import builtins
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from fer.core.application import FAILED, CommandError
from fer.core.errors import ConfigError
from fer.core.files import write_json
from fer.report import sweep_figure as drawing
from fer.runs import search, sweep
from fer.runs.search import Settings
from fer.runs.search_space import Dimension, example, read_space
from fer.runs.state import FINISHED, PRUNED, State
from fer.runs.sweep import Job
from fer.tasks.wrap_up import finish_sweep
from tests.conftest import (
    ROOT,
    metrics_record,
    refusal,
    run_program,
    run_record,
    tiny_rows,
    write_zip,
)
from tests.runs.test_resume import OPTIONS
from tests.runs.test_sweep import made_up, rows_of, times_of

optuna = pytest.importorskip("optuna")

PARSER = OverridesParser.create()
SETTINGS = Settings.make(
    {
        "n_trials": 8,
        "n_jobs": 1,
        "study_name": "fer",
        "storage": None,
        "seed": 0,
        "random_trials": 3,
        "pruning": {"enabled": True, "startup_trials": 1, "warmup_epochs": 1},
    }
)
SPACE = [
    Dimension("optimizer.lr", "float", 1e-4, 1e-1, log=True),
    Dimension("model.dropout", "float", 0.0, 0.5, step=0.1),
    Dimension("loss", "choice", choices=("focal", "weighted")),
]
FIXED = ["dataset=fer2013"]


def space_of(*overrides: str) -> list[Dimension]:
    return read_space({}, overrides, PARSER)[0]


def drawn(dimension: Dimension, count: int = 30) -> list[str]:
    """Values that a study proposes, as texts of the command line."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    for trial in trials:
        dimension.suggest(trial)
    return [dimension.override(trial.params[dimension.name]).partition("=")[2] for trial in trials]


# --- the search space --------------------------------------------------------------------------


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-7, 7).filter(bool))
@settings(max_examples=40, deadline=None)
def test_a_range_proposes_what_a_grid_would_run(start: int, stop: int, step: int) -> None:
    grid = set(range(start, stop, step))
    text = f"a=range({start}, {stop}, {step})"
    if not grid:
        with pytest.raises(ConfigError, match="at least one value"):
            space_of(text)
        return
    (dimension,) = space_of(text)
    values = set(map(int, drawn(dimension, 20)))
    assert values <= grid and {dimension.low, dimension.high} == {min(grid), max(grid)}


@given(st.integers(-5, 5), st.integers(1, 9), st.sampled_from([0.1, 0.25, 0.3, 1.5]))
@settings(max_examples=40, deadline=None)
def test_a_range_of_decimals_proposes_them_as_one_writes_them(
    start: int, count: int, step: float
) -> None:
    low, stop = start / 10, start / 10 + (count - 0.5) * step
    (dimension,) = space_of(f"a=range({low}, {stop:.6f}, {step})")
    wanted = {float(f"{low + k * step:.6f}") for k in range(count)}
    assert set(map(float, drawn(dimension, 20))) <= wanted
    assert {dimension.low, dimension.high} == {min(wanted), max(wanted)}


@given(
    st.floats(1e-8, 1e8, allow_subnormal=False), st.floats(1.0, 1e6), st.booleans(), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_an_interval_proposes_numbers_that_lie_in_it_and_are_read_back_exactly(
    low: float, factor: float, log: bool, negative: bool
) -> None:
    low, high = (low, low * factor) if log or not negative else (-low * factor, -low)
    text = f"interval({low!r}, {high!r})"
    (dimension,) = space_of(f"a=tag(log, {text})" if log else f"a={text}")
    assert (dimension.kind, dimension.log) == ("float", log)
    for value in drawn(dimension, 5):
        assert low <= float(value) <= high
        read = PARSER.parse_override(f"a={value}").value()
        assert isinstance(read, float) and read == float(value)


def test_whole_numbers_in_an_interval_stay_whole_and_both_ends_are_in() -> None:
    (dimension,) = space_of("a=int(interval(2, 4))")
    assert set(drawn(dimension)) == {"2", "3", "4"}
    (dimension,) = space_of("a=tag(log, int(interval(1, 64)))")
    assert dimension.kind == "int" and dimension.log
    assert {int(value) for value in drawn(dimension)} <= set(range(1, 65))
    assert space_of("a=interval(2, 4)")[0].kind == "float"  # as Hydra reads it


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=x,y,x", {"x", "y"}),
        ("a=choice(1, 2.5, true)", {"1", "2.5", "True"}),
        ("a='b c',\"d,e\"", {"'b c'", '"d,e"'}),
        ("a=[1,2],[3]", {"[1,2]", "[3]"}),
    ],
)
def test_choices_come_back_as_they_were_written(text: str, values: set[str]) -> None:
    (dimension,) = space_of(text)
    assert dimension.kind == "choice" and set(drawn(dimension)) == values
    key = text.partition("=")[0]
    read = {repr(PARSER.parse_override(f"{key}={value}").value()) for value in values}
    assert len(read) == len(values)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=interval(2.0, 1.0)", "at least one value"),
        ("a=interval(0.0, inf)", "at least one value"),
        ("a=tag(log, interval(0.0, 1.0))", "at least one value"),
        ("a=range(1, 5, 0)", "at least one value"),
        ("a=tag(log, range(1, 5))", "no tag but log for an interval, found log"),
        ("a=tag(lg, interval(1, 5))", "no tag but log for an interval, found lg"),
        ("a=1", "expected options to search, found none"),
        ("dataset=a,b", "expected options that leave the validation images as they are"),
        ("+dataset.reader.split_seed=0,1", "found .dataset.reader.split_seed: scores on different"),
        ("a=interval(1,", "hydra.sweeper.params: expected values below each key"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(override)


def test_the_command_line_adds_to_the_space_replaces_it_and_holds_values_fast() -> None:
    assert len(space_of("dataset.leaks=keep,drop_from_train")) == 1  # of train alone
    params = {"a": "interval(0.0, 1.0)", "b": "choice(x, y)", "c": "range(1, 5)", "d": 3}
    space, fixed = read_space(params, ["b=z", "c=7,8", "+e=1,2", "f=0"], PARSER)
    assert [(item.key, item.kind) for item in space] == [
        ("a", "float"),
        ("c", "choice"),
        ("+e", "choice"),
    ]
    assert fixed == ["b=z", "d=3", "f=0"]
    assert space[2].name == "e" and space[2].override("1") == "+e=1"
    assert example(space, fixed) == ["b=z", "d=3", "f=0", "a=0.0", "c=7", "+e=1"]
    with pytest.raises(ConfigError, match=r"expected values below each key, .* found optimizer"):
        read_space({"optimizer": {"lr": "1,2"}}, [], PARSER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_trials": 0}, r"hydra.sweeper.n_trials: expected a whole number from 1, found 0"),
        ({"n_jobs": 0}, r"hydra.sweeper.n_jobs: expected a whole number from 1"),
        ({"trials": 3}, r"hydra.sweeper: expected values that it accepts, found: .*'trials'"),
        (
            {"pruning": {"enabled": True}},
            r"hydra.sweeper.pruning: expected enabled, startup_trials and warmup_epochs, found",
        ),
        ({"pruning": False}, r"hydra.sweeper.pruning: expected enabled, .*, found False"),
        (
            {"pruning": {**SETTINGS.pruning, "enabled": 1}},
            r"hydra.sweeper.pruning.enabled: expected true or false, found 1",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.make({**vars(SETTINGS), **change})


# --- the search, with jobs that only leave what a job leaves -----------------------------------


class Killed(BaseException):
    """The end of the whole program, whatever it was doing."""


class Jobs:
    """Instead of a launcher: writes what each job would leave.

    The score of a job lies on a hill over its learning rate. Job 2 fails, job 3 is ended early.

    Args:
        folder: of the sweep.
        killed_in: the number of the job in which everything ends.
    """

    def __init__(self, folder: Path, killed_in: int | None = None) -> None:
        self.folder = folder
        self.killed_in = killed_in
        self.launches: list[tuple[int, int]] = []
        self.overrides: dict[int, list[str]] = {}

    def __call__(self, first: int, jobs: list[list[str]]) -> None:
        self.launches.append((first, len(jobs)))
        for number, overrides in enumerate(jobs, first):
            self.overrides[number] = overrides
            if number == self.killed_in:
                raise Killed
            self.run(number, overrides)

    def run(self, number: int, overrides: Sequence[str]) -> None:
        values = dict(item.split("=", 1) for item in overrides)
        assert values["optuna.trial"] == str(number)
        place = self.folder / str(number)
        score = 0.9 - 0.1 * abs(math.log10(float(values["optimizer.lr"])) + 2)
        reporter = search.Reporter(
            values["optuna.study"], number, values["optuna.storage"].strip('"')
        )
        for epoch in range(2):
            reporter.report(score * (0.5 + 0.5 * epoch), epoch)
        scores = {"macro_f1": score, "accuracy": score}
        run = run_record(validation=scores)
        if number == 2:
            write_json(place / FAILED, {"error": "ConfigError", "message": "no such thing"})
        elif number == 3:
            write_json(place / PRUNED, run)
        else:
            write_json(place / "run.json", run)
            write_json(place / "metrics.json", metrics_record(split="val", **scores))
            (place / FINISHED).touch()


def in_numbers(jobs: Sequence[Sequence[str]], before: Sequence[Job]) -> list[Job]:
    """The folders that jobs have unless the user chooses others."""
    new = [Job(n, str(n), list(job)) for n, job in enumerate(jobs, start=len(before))]
    return [*before, *new]


def start(folder: Path, jobs: Jobs, chosen: Settings = SETTINGS) -> list[Job]:
    folder.mkdir()
    sweep.save_jobs(folder, [])
    return search.Search(folder, SPACE, FIXED, chosen, resuming=False).run(in_numbers, jobs)


def go_on(folder: Path, jobs: Jobs, chosen: Settings = SETTINGS) -> list[Job]:
    return search.Search(folder, SPACE, FIXED, chosen, resuming=True).run(in_numbers, jobs)


def trials_of(folder: Path) -> list[Any]:
    study = optuna.load_study(study_name="fer", storage=f"sqlite:///{folder / 'optuna.db'}")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    return list(study.trials)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Job]]:
    """A search of eight trials that nothing has cut off."""
    folder = tmp_path_factory.mktemp("search") / "whole"
    return folder, start(folder, Jobs(folder))


def test_each_trial_is_a_job_with_its_state_and_score(
    whole: tuple[Path, list[Job]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, jobs = whole
    trials = trials_of(folder)
    assert [trial.number for trial in trials] == list(range(8)) and len(jobs) == 8
    names = [trial.state.name for trial in trials]
    assert names == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED", *["COMPLETE"] * 4]
    assert trials[2].user_attrs["error"] == "no such thing"
    for number, (trial, job) in enumerate(zip(trials, jobs, strict=True)):
        assert job.overrides[0] == "dataset=fer2013"
        assert f"optimizer.lr={trial.params['optimizer.lr']!r}" in job.overrides
        if trial.state.name == "COMPLETE":
            run = json.loads((folder / str(number) / "run.json").read_text())
            assert trial.value == run["validation"]["macro_f1"]
    assert sweep.read_jobs(folder) == jobs
    with pytest.raises(CommandError, match="1 of 8 jobs failed, job 2 first: no such thing"):
        finish_sweep(folder, jobs, [item.name for item in SPACE], search.ADVICE)
    rows = rows_of(folder)
    assert [row["status"] for row in rows].count("finished") == 6
    assert rows[3]["status"] == "pruned" and float(rows[3]["val_macro_f1"]) > 0
    assert rows[3]["error"] == "" and "test_macro_f1" not in rows[3]
    best = yaml.safe_load((folder / "best.yaml").read_text())
    scores = [trial.value for trial in trials if trial.state.name == "COMPLETE"]
    assert best["validation"]["macro_f1"] == max(scores)
    assert (folder / "figures/sweep.png").stat().st_size > 0
    assert "pruned" in capsys.readouterr().out


@pytest.mark.parametrize("killed_in", [0, 4])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(
    whole: tuple[Path, list[Job]], tmp_path: Path, killed_in: int
) -> None:
    folder = tmp_path / "killed"
    first = Jobs(folder, killed_in)
    with pytest.raises(Killed):
        start(folder, first)
    assert trials_of(folder)[-1].state.name == "RUNNING"
    before = [times_of(folder / str(number)) for number in range(killed_in)]
    second = Jobs(folder)
    jobs = go_on(folder, second)
    assert second.overrides[killed_in] == first.overrides[killed_in]
    assert sorted(second.overrides) == list(range(killed_in, 8))
    assert [times_of(folder / str(number)) for number in range(killed_in)] == before
    assert jobs == whole[1]
    one, other = trials_of(folder), trials_of(whole[0])
    assert [(t.state, t.value, t.params) for t in one] == [
        (t.state, t.value, t.params) for t in other
    ]


def test_a_job_that_ended_while_nobody_watched_is_not_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "killed"

    class KilledAfter(Jobs):
        def run(self, number: int, overrides: Sequence[str]) -> None:
            super().run(number, overrides)
            if number == 3:
                raise Killed

    with pytest.raises(Killed):
        start(folder, KilledAfter(folder))
    jobs = Jobs(folder)
    go_on(folder, jobs, replace(SETTINGS, n_trials=5))
    assert sorted(jobs.overrides) == [4]
    assert trials_of(folder)[3].state.name == "PRUNED"
    more = Jobs(folder)
    go_on(folder, more, replace(SETTINGS, n_trials=6))
    assert sorted(more.overrides) == [5]


def test_a_trial_that_was_killed_while_it_was_proposed_gets_its_other_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "killed"
    suggest = Dimension.suggest

    def killed(dimension: Dimension, trial: Any) -> None:
        if dimension.kind == "choice":
            raise Killed
        suggest(dimension, trial)

    monkeypatch.setattr(Dimension, "suggest", killed)
    with pytest.raises(Killed):
        start(folder, Jobs(folder))
    monkeypatch.undo()
    (before,) = trials_of(folder)
    assert "loss" not in before.params
    jobs = Jobs(folder)
    go_on(folder, jobs, replace(SETTINGS, n_trials=1))
    (after,) = trials_of(folder)
    assert {**before.params, "loss": after.params["loss"]} == after.params
    assert after.state.name == "COMPLETE" and f"loss={after.params['loss']}" in jobs.overrides[0]


def test_several_trials_are_launched_at_once_and_a_lost_one_is_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "parallel"

    class Losing(Jobs):
        def run(self, number: int, overrides: Sequence[str]) -> None:
            if number != 4:  # as if its process had been killed
                super().run(number, overrides)

    jobs = Losing(folder)
    start(folder, jobs, replace(SETTINGS, n_jobs=3, storage=f"journal:{tmp_path / 'log'}"))
    assert jobs.launches == [(0, 3), (3, 3), (6, 2)]
    assert len({tuple(own[1:4]) for own in jobs.overrides.values()}) == 8
    assert sweep.read_job(folder, sweep.read_jobs(folder)[4]).state is State.FAILED
    study = optuna.load_study(
        study_name="fer", storage=search.open_storage(f"journal:{tmp_path / 'log'}")
    )
    assert study.trials[4].state.name == "FAIL" and not (folder / "optuna.db").exists()


def test_the_search_learns_from_the_scores() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(40):
        study.sampler = search.make_sampler(replace(SETTINGS, random_trials=10), number)
        trial = study.ask()
        SPACE[0].suggest(trial)
        study.tell(trial, -abs(math.log10(trial.params["optimizer.lr"]) + 2))
    distances = [-trial.value for trial in study.trials]
    assert sum(distances[30:]) < 0.7 * sum(distances[:10])


def test_what_is_another_search_is_refused(whole: tuple[Path, list[Job]], tmp_path: Path) -> None:
    folder, jobs = whole[0], Jobs(whole[0])
    with pytest.raises(ConfigError, match=r"expected a study that .* does not have yet, found fer"):
        search.Search(folder, SPACE, FIXED, SETTINGS, resuming=False).run(in_numbers, jobs)
    other = [SPACE[0], replace(SPACE[1], high=0.4), SPACE[2]]
    with pytest.raises(ConfigError, match=r"found another space .*: .*'high': 0\.4"):
        search.Search(folder, other, FIXED, SETTINGS, resuming=True).run(in_numbers, jobs)
    with pytest.raises(ConfigError, match=r"found another space or other options: .*seed=1"):
        search.Search(folder, SPACE, [*FIXED, "seed=1"], SETTINGS, resuming=True).run(
            in_numbers, jobs
        )
    with pytest.raises(ConfigError, match=r"expected the study fer of .* found none"):
        lost = replace(SETTINGS, storage=f"sqlite:///{tmp_path / 'new.db'}")
        go_on(folder, jobs, lost)
    with pytest.raises(ConfigError, match="expected null, journal:PATH or the URL"):
        search.open_storage("nothing")
    with pytest.raises(ConfigError, match="expected trial 99 of the study fer"):
        search.Reporter("fer", 99, search.locate_storage(folder, None))
    assert jobs.launches == []


def test_without_optuna_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r'pip install "fer-lab\[optuna\]"'):
        search.import_optuna()


# --- figures -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("rendering")
@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("keys", [1, 2, 3])
def test_values_of_an_interval_have_a_figure(count: int, keys: int, tmp_path: Path) -> None:
    values = {"lr": [10 ** -(1 + n / 4) for n in range(count)]}
    jobs = [
        replace(job, overrides=[*job.overrides, f"dropout={n % 7 / 14 + n / 100}", f"w={n % 2}"])
        for n, job in enumerate(made_up(**values))
    ]  # fmt: skip
    names = ["lr", "dropout", "w"][:keys]
    path = drawing.plot_sweep(tmp_path, jobs, names)
    assert path is not None and path.stat().st_size > 0


def test_many_numbers_stand_on_a_scale_and_words_side_by_side() -> None:
    def places(values: list[Any]) -> tuple[str, list[float]]:
        axis = drawing.points(made_up(lr=values), ["lr"]).axes[0]
        return axis.get_xscale(), [float(x) for x in np.asarray(axis.lines[0].get_xdata())]

    tenths = [10.0**-n for n in range(9)]
    assert places(tenths) == ("log", tenths)
    assert places(list(range(1, 12))) == ("linear", list(range(1, 12)))
    assert places(["focal", "10", "weighted", "2"]) == ("linear", [2, 1, 3, 0])
    pairs = made_up(lr=[1, 2, 3], dropout=[1, 2, 3])
    assert drawing._is_grid(pairs, ["lr", "dropout"])
    assert not drawing._is_grid([pairs[n] for n in (0, 4, 8)], ["lr", "dropout"])


# --- with training -----------------------------------------------------------------------------

QUICK = [*OPTIONS, "trainer.max_epochs=3", "logger=none", "dataset.raw=archive.zip"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("optuna")
    write_zip(folder / "archive.zip", tiny_rows())
    return folder


@pytest.mark.slow
def test_a_killed_search_goes_on_from_the_last_checkpoint_of_its_job(place: Path) -> None:
    env = {"FER_DATA": str(place / "data")}
    command = [
        *(str(ROOT / "train.py"), "sweep=optuna", *QUICK, "trainer.max_epochs=8"),
        *("hydra.sweep.dir=killed", "hydra.sweeper.n_trials=2", "model.dropout=0.1"),
        "hydra.sweeper.pruning.enabled=false",
    ]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=place, env={**os.environ, **env},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    history = place / "killed/0/history.csv"
    while process.poll() is None and not (history.exists() and history.read_text().count("\n") > 4):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (before,) = trials_of(place / "killed")
    assert before.state.name == "RUNNING" and len(before.intermediate_values) >= 3
    run_program("train.py", "resume=killed", cwd=place, env=env)
    trials = trials_of(place / "killed")
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert trials[0].params == before.params and set(before.params) == {
        "optimizer.lr",
        "optimizer.weight_decay",
    }
    run = json.loads((place / "killed/0/run.json").read_text())
    assert run["resumed_after_epochs"] >= 3 and run["epochs"] == len(trials[0].intermediate_values)
    rows = rows_of(place / "killed")
    assert [row["status"] for row in rows] == ["finished", "finished"]
    for row, trial in zip(rows, trials, strict=True):
        assert float(row["optimizer.lr"]) == trial.params["optimizer.lr"]
        assert float(row["val_macro_f1"]) == trial.value
        assert "test_macro_f1" not in row  # the search has left the test split alone


def test_a_trial_that_goes_on_is_ended_where_it_would_have_been(tmp_path: Path) -> None:
    """A kill between the report of an epoch and its checkpoint lets it repeat epochs."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=storage, study_name="fer", direction="maximize")
    study.set_user_attr("pruning", {"enabled": True, "startup_trials": 1, "warmup_epochs": 0})
    scores = {0: 0.1, 1: 0.1, 2: 0.9}
    study.add_trial(optuna.trial.create_trial(value=0.9, intermediate_values=scores))
    number = study.ask().number
    answers = [search.Reporter("fer", number, storage).report(0.2, epoch) for epoch in range(3)]
    assert answers == [False, False, True]
    again = search.Reporter("fer", number, storage)
    assert [again.report(0.2, epoch) for epoch in range(3)] == answers
    assert study.trials[number].intermediate_values == dict.fromkeys(range(3), 0.2)


@pytest.mark.slow
def test_a_hopeless_trial_is_ended_and_leaves_its_scores(place: Path) -> None:
    storage = f"sqlite:///{place / 'study.db'}"
    study = optuna.create_study(storage=storage, study_name="fer", direction="maximize")
    study.set_user_attr("pruning", {"enabled": True, "startup_trials": 2, "warmup_epochs": 1})
    for _ in range(2):  # that were better in every epoch than any other can be
        scores = dict.fromkeys(range(3), 1.1)
        study.add_trial(optuna.trial.create_trial(value=1.1, intermediate_values=scores))
    number = study.ask().number
    run_program(
        "train.py", *QUICK, *search.link("fer", number, storage), "hydra.run.dir=hopeless/0",
        cwd=place, env={"FER_DATA": str(place / "data")},
    )  # fmt: skip
    job = sweep.read_job(place / "hopeless", Job(0, "0", []))
    assert job.state is State.PRUNED and job.outcome is not None and job.outcome["epochs"] == 2
    assert 0 <= (job.score("val", "macro_f1") or 0) < 1
    assert job.score("test", "macro_f1") is None
    assert not (place / "hopeless/0/metrics.json").exists()
    reported = study.trials[number].intermediate_values
    assert sorted(reported) == [0, 1] and max(reported.values()) == job.score("val", "macro_f1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: expected a whole number from 1"),
        (["nope=interval(0, 1)"], "nope: expected a known option"),
        (["seed=interval(1, 9)"], "seed: expected a whole number from 0 to 4,294,967,295"),
    ],
)
def test_mistakes_are_answered_before_anything_is_trained(
    place: Path, arguments: list[str], message: str
) -> None:
    assert message in refusal(
        "train.py", "sweep=optuna", *arguments, "hydra.sweep.dir=refused", cwd=place
    )
    assert not (place / "refused").exists()
