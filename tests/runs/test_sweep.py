"""Sweeps: failures are contained, a sweep that was killed goes on, its jobs stand side by side."""

from __future__ import annotations

import csv
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from filelock import FileLock
from omegaconf import OmegaConf

from fer.core.application import FAILED, CommandError
from fer.core.commands import quoted_if_needed
from fer.core.errors import ConfigError
from fer.core.files import write_json
from fer.report import sweep_figure as drawing
from fer.report.figures import to_image
from fer.runs import sweep
from fer.runs.ownership import LOCK
from fer.runs.resume import expand
from fer.runs.state import FINISHED, LAST, State
from fer.runs.sweep import Job
from fer.tasks.wrap_up import finish_sweep
from hydra_plugins.fer_ray import ClusterLauncher, choose_resources
from tests.conftest import (
    ROOT,
    compose,
    is_held,
    metrics_record,
    run_program,
    run_record,
    tiny_rows,
    write_zip,
)
from tests.runs.test_resume import OPTIONS

pytestmark = pytest.mark.slow  # whole trainings

GRID = ["optimizer.lr=1e-3,1e-2", "model.dropout=0.2,0.5"]
SHORT = [*OPTIONS, "trainer.max_epochs=2", "logger=none"]


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Of ``sweep.csv``, without how long the jobs took."""
    with (folder / "sweep.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny dataset and a sweep of four jobs in ``whole``."""
    folder = tmp_path_factory.mktemp("sweep")
    write_zip(folder / "archive.zip", tiny_rows())
    run_program(
        "train.py", "-m", *SHORT, "dataset.raw=archive.zip", *GRID, "hydra.sweep.dir=whole",
        cwd=folder, env={"FER_DATA": str(folder / "data")},
    )  # fmt: skip
    return folder


def test_a_sweep_leaves_its_table_its_best_job_and_a_figure(place: Path) -> None:
    rows = rows_of(place / "whole")
    assert [row["optimizer.lr"] for row in rows] == ["0.001", "0.001", "0.01", "0.01"]
    assert [row["model.dropout"] for row in rows] == ["0.2", "0.5", "0.2", "0.5"]
    assert {row["status"] for row in rows} == {"finished"}
    for row in rows:
        run = json.loads((place / "whole" / row["run"] / "run.json").read_text())
        metrics = json.loads((place / "whole" / row["run"] / "metrics.json").read_text())
        assert float(row["val_macro_f1"]) == run["validation"]["macro_f1"]
        # The test split is left alone where scores choose.
        assert metrics["split"] == "val" and "test_accuracy" not in row
    best = yaml.safe_load((place / "whole/best.yaml").read_text())
    assert best["validation"]["macro_f1"] == max(float(row["val_macro_f1"]) for row in rows)
    assert f"optimizer.lr={rows[best['job']]['optimizer.lr']}" in best["overrides"]
    assert (place / "whole/figures/sweep.png").stat().st_size > 0


def times_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_killed_sweep_goes_on_and_ends_like_one_that_was_not(place: Path) -> None:
    command = [*SHORT, "dataset.raw=archive.zip", *GRID, "hydra.sweep.dir=killed"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *command],
        cwd=place, env={**os.environ, "FER_DATA": str(place / "data")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    # Killed as soon as the third job has a folder.
    while process.poll() is None and not (place / "killed/2/.hydra").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert (place / "killed/1" / FINISHED).is_file()
    assert not (place / "killed/2" / FINISHED).is_file()
    assert not (place / "killed/sweep.csv").exists()
    before = times_of(place / "killed/0") | times_of(place / "killed/1")
    run_program("train.py", "resume=killed", cwd=place, env={"FER_DATA": str(place / "data")})
    assert rows_of(place / "killed") == rows_of(place / "whole")
    assert times_of(place / "killed/0") | times_of(place / "killed/1") == before
    one, other = (
        yaml.safe_load((place / f / "best.yaml").read_text()) for f in ("killed", "whole")
    )
    assert one == other


@pytest.mark.parametrize("launcher", ["joblib", "local"])
def test_other_launchers_give_the_same_jobs(place: Path, launcher: str) -> None:
    run_program(
        "train.py", "-m", *SHORT, "dataset.raw=archive.zip", *GRID, f"launcher={launcher}",
        f"hydra.sweep.dir={launcher}", cwd=place, env={"FER_DATA": str(place / "data")},
    )  # fmt: skip
    assert rows_of(place / launcher) == rows_of(place / "whole")


def test_jobs_side_by_side_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    """They prepare their dataset themselves; nobody trains on in a folder that is resumed."""
    sizes = [f"dataset.generator.{split}=56" for split in ("train", "val", "test")]
    options = [*SHORT[1:], *sizes, "trainer.max_epochs=40", "early_stopping.patience=null"]
    command = ["launcher=joblib", "hydra.launcher.n_jobs=2", *options, "seed=0,1"]
    env = {"FER_DATA": str(tmp_path / "data")}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *command, "hydra.sweep.dir=sweep"],
        cwd=tmp_path, env={**os.environ, **env}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    jobs = [tmp_path / "sweep" / name for name in "01"]
    while not all((job / "history.csv").is_file() for job in jobs):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(map(is_held, jobs)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not any((job / FINISHED).is_file() for job in jobs)
    again = ["train.py", "resume=sweep"]
    with FileLock(jobs[0] / LOCK):  # as if it still trained
        done = run_program(*again, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 1 and "found another process at work" in done.stderr
    run_program(*again, cwd=tmp_path, env=env)
    assert [row["status"] for row in rows_of(tmp_path / "sweep")] == ["finished", "finished"]
    assert {row["epochs"] for row in rows_of(tmp_path / "sweep")} == {"40"}


def test_a_failure_is_recorded_and_the_others_go_on(place: Path) -> None:
    done = run_program(
        "train.py", "-m", *SHORT, "dataset.raw=archive.zip", "model.dropout=1.5,0.2",
        "hydra.sweep.dir=failing", cwd=place, check=False, env={"FER_DATA": str(place / "data")},
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "1 of 2 jobs failed, job 0 first: model.dropout: expected a probability" in done.stderr
    first, second = rows_of(place / "failing")
    assert (first["status"], second["status"]) == ("failed", "finished")
    assert "found 1.5" in first["error"] and first["val_macro_f1"] == ""
    assert (place / "failing/best.yaml").exists()


def test_jobs_have_the_folders_that_the_user_asks_for(place: Path) -> None:
    """Also when the sweep goes on, and where the name holds a time or would be another job's."""
    command = [
        *("train.py", "-m", *SHORT, "dataset.raw=archive.zip", "model.dropout=1.5,0.2"),
        "hydra.sweep.dir=named",
        "hydra.sweep.subdir=${now:%H-%M-%S-%f}/${hydra:job.override_dirname}",
        "hydra.job.config.override_dirname.exclude_keys=[model.dropout,dataset.raw]",
    ]
    env = {"FER_DATA": str(place / "data")}
    done = run_program(*command, cwd=place, check=False, env=env)
    assert done.returncode == 1 and "1 of 2 jobs failed, job 0 first" in done.stderr
    rows = rows_of(place / "named")
    assert [row["status"] for row in rows] == ["failed", "finished"]
    for row in rows:
        assert "trainer.max_epochs=2" in row["run"]
        assert (place / "named" / row["run"] / ".hydra").is_dir()
    before = times_of(place / "named" / rows[1]["run"])
    done = run_program("train.py", "resume=named", cwd=place, check=False, env=env)
    assert done.returncode == 1 and rows_of(place / "named") == rows
    assert times_of(place / "named" / rows[1]["run"]) == before
    assert len(list((place / "named").rglob(".hydra"))) == 2


def test_folders_of_jobs_stay_apart_and_inside_the_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "ask_folder", lambda config, loader, number, job: job[-1])

    def folders(subdir: str, jobs: list[list[str]]) -> list[str]:
        config = OmegaConf.create({"hydra": {"sweep": {"subdir": subdir}}})
        return [job.folder for job in sweep.plan(config, cast(Any, None), jobs)]

    assert folders("${hydra:job.num}", [["x"], ["x"]]) == ["0", "1"]
    assert folders("x", [["x"], ["x"], ["y/z"]]) == ["x", "x_2", "y/z"]
    assert folders("x", [["x"], ["x_2"], ["X"]]) == ["x", "x_2", "X_3"]
    for outside in ("../x", "/x", "."):
        with pytest.raises(CommandError, match=r"hydra.sweep.subdir: expected a folder inside"):
            folders("x", [[outside]])


@pytest.mark.parametrize(
    "jobs",
    [[["seed=0"], ["seed=1"]], [["dataset=a"], ["dataset=b"]], [["model.dropout=0.1"]],
     [["optimizer.lr=1", "test=true"], ["optimizer.lr=2", "test=true"]]],
)  # fmt: skip
def test_a_sweep_that_does_not_choose_or_says_so_itself_measures_the_test_split(
    jobs: list[list[str]],
) -> None:
    assert sweep.leave_test_alone(jobs) == jobs
    chosen = [[*job, f"loss=l{n}"] for n, job in enumerate([["seed=0"], ["seed=1"]])]
    assert sweep.leave_test_alone(chosen) == [[*job, "test=false"] for job in chosen]


def test_jobs_that_came_to_no_end_are_a_failure(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"1 of 1 jobs did not finish, job 0 .*resume="):
        finish_sweep(tmp_path, [Job(0, "0", ["seed=0"])])


def test_a_new_sweep_takes_no_job_for_its_own_that_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / FINISHED).touch()
    with pytest.raises(CommandError, match="expected a folder without a run, found one in"):
        sweep.begin(tmp_path, [Job(0, "0", [])], OmegaConf.create({}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]


def test_jobs_that_were_computed_differently_are_noted() -> None:
    jobs = made_up(lr=[1, 2])
    (left_alone,) = sweep.notes_on(jobs)
    assert left_alone.startswith("The test split was left alone")
    assert jobs[1].run is not None
    jobs[1].run["hardware"]["threads"] = 1
    (_, threads) = sweep.notes_on(jobs)
    assert threads.startswith("The runs do not share a number of threads (2, 1)")


def test_a_folder_with_a_sweep_is_not_written_over(place: Path) -> None:
    before = times_of(place / "whole")
    done = run_program(
        "train.py", "-m", *SHORT, "dataset.raw=archive.zip", "seed=1,2", "hydra.sweep.dir=whole",
        cwd=place, check=False, env={"FER_DATA": str(place / "data")},
    )  # fmt: skip
    assert done.returncode == 1 and "expected a folder without a run, found a sweep" in done.stderr
    assert times_of(place / "whole") == before


def test_resume_refuses_what_is_no_sweep_or_has_changed(place: Path) -> None:
    whole = place / "whole"
    assert expand([f"resume={whole}"])[0] == "-m"
    assert f"resume={quoted_if_needed(whole)}" in expand([f"resume={whole}", "-m"])
    with pytest.raises(ConfigError, match=r"expected the command of .* as it was"):
        expand([f"resume={whole}", "optimizer.lr=1"])
    with pytest.raises(ConfigError, match="expected the folder of a run"):
        expand([f"resume={place}"])
    with pytest.raises(ConfigError, match="expected the folder of a sweep"):
        expand(["-m", "resume=auto", "seed=1,2"])
    jobs = [["optimizer.lr=1"]]
    with pytest.raises(CommandError, match="expected the 4 jobs"):
        sweep.recall(whole, jobs)


def test_neighbours_are_launched_together_under_their_own_numbers(tmp_path: Path) -> None:
    jobs = [Job(n, f"seed={n}", [f"seed={n}"]) for n in range(6)]
    for number, name in ((0, FINISHED), (1, FAILED), (2, LAST), (3, FINISHED)):
        (tmp_path / f"seed={number}" / name).parent.mkdir(parents=True)
        (tmp_path / f"seed={number}" / name).touch()
    assert jobs[1].launched == ["seed=1", 'hydra.sweep.subdir="seed=1"']
    # What Hydra would read as a number stays a name.
    assert Job(0, "1_3", []).launched == ['hydra.sweep.subdir="1_3"']
    assert sweep.to_run(tmp_path, jobs) == [
        (1, [jobs[1].launched, jobs[2].launched]),
        (4, [jobs[4].launched, jobs[5].launched]),
    ]
    assert sweep.to_run(tmp_path / "new", jobs) == [(0, [job.launched for job in jobs])]


def made_up(**values: list[Any]) -> list[Job]:
    """Jobs of a grid, better the further down the list."""
    import itertools

    jobs = []
    for number, choice in enumerate(itertools.product(*values.values())):
        overrides = [f"{key}={value}" for key, value in zip(values, choice, strict=True)]
        scores = {"macro_f1": 0.4 + 0.01 * number, "accuracy": 0.5}
        run: Any = run_record(validation=scores)
        metrics: Any = metrics_record(split="val", **scores)
        jobs.append(Job(number, str(number), overrides, State.FINISHED, run=run, metrics=metrics))
    return jobs


GRIDS: list[dict[str, list[Any]]] = [
    {"seed": [0, 1, 2]},
    {"lr": ["1e-2", "1e-3"]},
    {"lr": ["1e-2", "1e-3"], "seed": [0, 1]},
    {"lr": ["1e-2", "1e-3"], "dropout": [0.1, 0.2, 0.5], "seed": [0, 1]},
    {"lr": ["1e-2", "1e-3"], "dropout": [0.1, 0.2], "loss": ["focal", "cross_entropy"]},
]


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_has_a_figure(grid: dict[str, list[Any]], tmp_path: Path) -> None:
    jobs = made_up(**grid)
    keys = sweep.swept_keys(job.values for job in jobs)
    assert keys == list(grid)
    path = drawing.plot_sweep(tmp_path, jobs, keys)
    assert path is not None and path.stat().st_size > 0


def test_a_heat_map_shows_the_mean_over_seeds_and_orders_numbers_by_size() -> None:
    jobs = made_up(lr=["1e-2", "2e-3"], dropout=[0.1, 0.5], seed=[0, 1])
    figure = drawing.heat_map(jobs, "lr", "dropout")
    axis = figure.axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["2e-3", "1e-2"]
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["44.5 ± 0.7", "46.5 ± 0.7", "40.5 ± 0.7", "42.5 ± 0.7"]
    assert to_image(figure).std() > 0


def test_validation_chooses_the_best_job_and_the_first_of_equals() -> None:
    jobs = made_up(lr=[1, 2, 3])
    assert sweep.best_jobs(jobs) == [jobs[2]]
    assert sweep.best_jobs([jobs[0], jobs[0]])[0] is jobs[0]
    assert sweep.best_jobs([Job(0, "0", [], State.FAILED)]) == []
    assert jobs[0].score("test", "accuracy") is None  # the test split was left alone


def test_jobs_that_were_validated_on_different_images_have_no_single_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = made_up(lr=[1, 2], dataset=["a", "b"])
    for job in jobs:
        assert job.run is not None
        number = str(job.number)
        job.run["dataset"]["fingerprints"]["val"] = 64 * job.values["dataset"]
        write_json(tmp_path / number / "run.json", job.run)
        write_json(tmp_path / number / "metrics.json", job.metrics)
        (tmp_path / number / FINISHED).touch()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/sweep.png").touch()  # of an earlier, smaller state
    finish_sweep(tmp_path, [Job(job.number, job.folder, job.overrides) for job in jobs])
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert [row["job"] for row in best["best_on_each"]] == [2, 3] and "job" not in best
    assert "2 different sets of validation images" in best["notes"][0]
    assert "No job is the best of all" in capsys.readouterr().out
    assert {row["validated_on"] for row in rows_of(tmp_path)} == {16 * "a", 16 * "b"}
    assert not (tmp_path / "figures/sweep.png").exists()


@pytest.mark.parametrize(
    ("key", "sets"),
    [("dataset.reader.split_seed=0,1", 2), ("dataset.leaks=keep,drop_from_train", 1)],
)
def test_a_run_records_which_images_it_was_validated_on(
    key: str, sets: int, tmp_path: Path
) -> None:
    few = [
        f"dataset.generator.{split}={n}" for split, n in (("train", 70), ("val", 28), ("test", 14))
    ]
    run_program(
        "train.py", "-m", "dataset=synthetic_b", *few, key, *SHORT[1:], "hydra.sweep.dir=sweep",
        cwd=tmp_path, env={"FER_DATA": "data"},
    )  # fmt: skip
    assert len({row["validated_on"] for row in rows_of(tmp_path / "sweep")}) == sets
    assert ("best_on_each" in (tmp_path / "sweep/best.yaml").read_text()) == (sets == 2)


def test_a_sweep_over_nothing_is_refused(tmp_path: Path) -> None:
    done = run_program("train.py", "-m", "seed=range(0,0)", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "expected values to sweep, found none" in done.stderr
    assert not list(tmp_path.rglob("jobs.json"))


def test_the_preset_is_a_sweep_without_being_asked(tmp_path: Path) -> None:
    done = run_program("train.py", "sweep=lr_dropout", "nope=1", cwd=tmp_path, check=False)
    assert done.returncode != 0 and "nope" in done.stderr
    cfg = compose("sweep=lr_dropout", hydra=True)
    assert str(cfg.hydra.mode) == "RunMode.MULTIRUN"
    assert set(cfg.hydra.sweeper.params) == {"optimizer.lr", "model.dropout"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster of two cores, of this test alone, in another folder."""
    pytest.importorskip("ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    # A token of its own: neither open to others nor dependent on one of the user's.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    log = tmp_path / "ray.log"
    # A socket's path may have 107 characters, which those of pytest's folders come close to.
    with tempfile.TemporaryDirectory(prefix="ray") as short, log.open("w") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--port", address.partition(":")[2], "--num-cpus=2", "--temp-dir", short),
                *("--include-dashboard=false", "--disable-usage-stats"),
            ],
            cwd=tmp_path, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            until = time.monotonic() + 60
            while "Ray runtime started" not in log.read_text() and process.poll() is None:
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def test_a_ray_cluster_gives_the_same_jobs(place: Path, cluster: str) -> None:
    run_program(
        "train.py", "-m", *SHORT, "dataset.raw=archive.zip", *GRID, "launcher=ray",
        f"hydra.launcher.address='{cluster}'", "hydra.sweep.dir=ray", cwd=place,
        env={"FER_DATA": "data"},
    )  # fmt: skip
    assert rows_of(place / "ray") == rows_of(place / "whole")


def test_an_address_without_a_cluster_is_answered_at_once() -> None:
    pytest.importorskip("ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    launcher = ClusterLauncher("127.0.0.1:1", cpus=1, gpus=None, show_output=False)
    with pytest.raises(CommandError, match=r"found none at 127\.0\.0\.1:1 that"):
        launcher.launch([["seed=1"]], 0)


def test_a_cluster_that_cannot_run_a_job_is_refused_and_a_gpu_is_taken_where_there_is_one() -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 4.0, "GPU": 2.0}]
    assert choose_resources(nodes, 4, None) == {"CPU": 4, "GPU": 1}
    assert choose_resources(nodes, 8, 0) == {"CPU": 8, "GPU": 0}
    assert choose_resources(nodes[:1], 1, None) == {"CPU": 1, "GPU": 0}
    with pytest.raises(CommandError, match=r"cores and GPUs: 8 and 0, 4 and 2\), found 8 and 1"):
        choose_resources(nodes, 8, None)


def test_the_folds_of_a_cross_validation_have_a_mean() -> None:
    def job(number: int, accuracy: float, *more: str, split: str = "test") -> Job:
        scores = {"accuracy": accuracy, "macro_f1": accuracy / 2}
        run: Any = {"dataset": {"fingerprints": {"val": str(number)}}, "validation": scores}
        overrides = [f"dataset.fold={number + 1}/3", *more]
        metrics: Any = {"split": split, **scores}
        return Job(number, str(number), overrides, State.FINISHED, run=run, metrics=metrics)

    jobs = [job(0, 0.5), job(1, 0.6), job(2, 0.7)]
    assert not sweep.chooses([one.overrides for one in jobs])  # so that test is measured
    (note,) = sweep.mean_over_folds(jobs)
    assert "of the 3 folds" in note and note.endswith("60.0 ± 10.0 %, macro-F1 30.0 ± 5.0 %.")
    for other in (
        jobs[:2],
        [*jobs[:2], job(1, 0.6)],
        [*jobs[:2], job(2, 0.7, "optimizer.lr=1")],
        [*jobs[:2], job(2, 0.7, split="val")],
        [*jobs[:2], Job(2, "2", ["dataset.fold=3/3"], State.FAILED)],
    ):
        assert sweep.mean_over_folds(other) == []
