"""A run's folder belongs to one process: nobody writes over it, into it or beside it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fer.core.application import FAILED
from fer.core.composition import compose
from fer.core.errors import ConfigError
from fer.runs import ownership
from fer.runs.ownership import claim, hold, make_new, refuse_a_run
from tests.conftest import ROOT, is_held, run_program

TINY = [
    *("dataset.generator.train=70", "dataset.generator.val=28", "dataset.generator.test=28"),
    *("model.widths=[4,8]", "model.image_size=16", "trainer.progress_bar=false"),
    *("metrics.resamples=100", "logger=none", "early_stopping.patience=null"),
]


def configure(folder: Path, *, named: bool) -> DictConfig:
    """A composed training whose folder the user has named, or the configuration."""
    overrides = [f"hydra.run.dir={folder}"] if named else []
    config = compose("train", overrides, return_hydra_config=True)
    OmegaConf.update(config, "hydra.run.dir", str(folder))
    return config


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """A test's locks and Hydra's configuration end with it."""
    yield
    HydraConfig.instance().cfg = None
    while ownership.HELD:
        ownership.HELD.popitem()[1].release()


def test_a_folder_of_the_users_own_files_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    refuse_a_run(tmp_path, "hydra.run.dir")
    (tmp_path / "figures").mkdir()
    with pytest.raises(ConfigError, match="found files of another origin"):
        refuse_a_run(tmp_path, "hydra.run.dir")
    (tmp_path / ".hydra").mkdir()  # of a run that was killed before its first checkpoint
    refuse_a_run(tmp_path, "hydra.run.dir")


def test_a_name_that_is_taken_gives_the_next_one(tmp_path: Path) -> None:
    made = [make_new(tmp_path / "outputs" / "12-00-00").name for _ in range(3)]
    assert made == ["12-00-00", "12-00-00_2", "12-00-00_3"]
    config = configure(tmp_path / "outputs" / "12-00-00", named=False)
    claim(config, "hydra.run.dir", None)
    assert config.hydra.run.dir.endswith("12-00-00_4")


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("report.html", "a finished run"),
        ("checkpoints/last.ckpt", "a training that was cut off: .* resume="),
        ("jobs.json", "a sweep: .* resume="),
    ],
)
def test_a_folder_with_a_run_is_refused_by_name(
    tmp_path: Path, file: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_a_run(tmp_path, "hydra.run.dir")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(ConfigError, match=rf"without a run, found {found}"):
        refuse_a_run(tmp_path, "hydra.run.dir")
    with pytest.raises(SystemExit, match=r"Error: hydra.run.dir: expected a folder without"):
        claim(configure(tmp_path, named=True), "hydra.run.dir", None)
    claim(configure(tmp_path, named=True), "hydra.run.dir", str(tmp_path))  # goes on with it


def test_a_lock_is_released_when_its_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fer.runs.ownership import hold\n"
        "hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    assert is_held(tmp_path)
    with pytest.raises(ConfigError, match="found another process at work"):
        hold(tmp_path)
    other.kill()
    other.wait()
    assert not is_held(tmp_path)
    hold(tmp_path)
    assert is_held(tmp_path)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *TINY, *arguments],
        cwd=folder, env={**os.environ, "FER_DATA": str(folder / "data")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_epochs(process: subprocess.Popen[str], run: Path, count: int) -> None:
    until = time.monotonic() + 120
    while not (run / "history.csv").is_file() or (
        len((run / "history.csv").read_text().splitlines()) <= count
    ):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)


def test_a_folder_whose_parent_cannot_be_made_is_an_error_and_no_endless_search(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_new(tmp_path / "file" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    with pytest.raises(OSError, match="link"):
        make_new(tmp_path / "link" / "run")


def test_a_folder_above_the_current_one_is_held_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra gives ``hydra.run.dir=../run`` to the task as ``<above>/run``."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    claim(configure(Path("../run"), named=True), "hydra.run.dir", None)
    hold(tmp_path / "run")  # no second lock
    assert list(ownership.HELD) == [tmp_path / "run"]


@pytest.mark.slow
def test_two_runs_that_begin_together_have_a_folder_each(tmp_path: Path) -> None:
    run_program("-m", "fer", "prepare", *TINY[:3], cwd=tmp_path,
                env={"FER_DATA": str(tmp_path / "data")})  # fmt: skip
    options = ["trainer.max_epochs=1", "hydra.job.name=one"]
    processes = [start(tmp_path, *options, f"seed={seed}") for seed in (1, 2)]
    for process in processes:
        assert process.communicate(timeout=300) and process.returncode == 0
    runs = sorted((tmp_path / "outputs/train/synthetic_a").iterdir())
    assert len(runs) == 2
    assert {json.loads((run / "run.json").read_text())["seed"] for run in runs} == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
def test_a_training_that_is_ended_says_how_to_go_on_and_is_not_finished(
    tmp_path: Path, number: int, code: int, word: str
) -> None:
    run = tmp_path / "run"
    process = start(tmp_path, "trainer.max_epochs=2000", f"hydra.run.dir={run}")
    wait_for_epochs(process, run, 2)
    second = start(tmp_path, f"resume={run}")  # while the first works there
    assert "found another process at work" in second.communicate(timeout=120)[1]
    assert second.returncode == 1
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code
    assert stderr.splitlines()[-1] == (
        f"Ended by {word}. Go on with it: python train.py resume={run}"
    )
    assert "Traceback" not in stderr
    assert not (run / "report.html").exists() and not (run / "metrics.json").exists()
    assert f"Ended by {word}" in (run / "train.log").read_text()


@pytest.mark.parametrize("multirun", ["", "-m"])
@pytest.mark.parametrize(
    ("raised", "code", "word"),
    [("Terminated(143)", 143, "SIGTERM"), ("KeyboardInterrupt", 130, "Ctrl-C")],
)
def test_an_error_while_an_ended_program_cleans_up_is_no_failure_of_its_own(
    tmp_path: Path, raised: str, code: int, word: str, multirun: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from fer.core.application import Terminated, run\n"
        "from fer.core.plugins import import_plugins\n"
        "import_plugins()\n"
        "def task(cfg, folder):\n"
        "    try:\n"
        f"        raise {raised}\n"
        "    finally:\n"
        "        None.flags\n"
        "run(task, 'train')\n"
    )
    options = (
        [f"paths.outputs={tmp_path}", "seed=1,2"] if multirun else [f"hydra.run.dir={tmp_path}"]
    )
    done = run_program(str(program), *filter(None, [multirun, *options]), cwd=tmp_path, check=False)
    assert done.returncode == code
    assert done.stderr.count(f"Ended by {word}.") == 1  # a sweep does not go on with its next job
    assert not list(tmp_path.rglob(FAILED))


@pytest.mark.slow
def test_rows_are_of_validated_epochs_alone(tmp_path: Path) -> None:
    env = {"FER_DATA": str(tmp_path / "data")}
    options = [*TINY, "loader.batch_size=32", "trainer.max_epochs=3"]
    run_program("train.py", *options, "+trainer.max_steps=3", "hydra.run.dir=run",
                cwd=tmp_path, env=env)  # fmt: skip
    with (tmp_path / "run/history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0"]  # two steps an epoch
    for option in (
        "fast_dev_run=true",
        "limit_val_batches=0",
        "check_val_every_n_epoch=2",
        "val_check_interval=0.5",
        "enable_checkpointing=false",
    ):
        done = run_program("train.py", *options, f"+trainer.{option}", cwd=tmp_path, env=env,
                           check=False)  # fmt: skip
        key = option.partition("=")[0]
        assert done.returncode == 1 and f"Error: trainer.{key}: expected" in done.stderr
