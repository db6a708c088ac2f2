"""A run that was cut off and goes on ends like one that was not."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from fer.core.errors import ConfigError
from fer.model.checkpoint import read_progress
from fer.runs.resume import expand, find_unfinished, is_plain_override
from fer.tasks.notes import compare_threads
from tests.conftest import ROOT, run_program, tiny_rows, write_zip

OPTIONS = ["dataset=fer2013", "model.widths=[4,8,8,8]", "model.image_size=32",
           "trainer.max_epochs=8", "loader.batch_size=7", "metrics.resamples=100",
           "trainer.progress_bar=false"]  # fmt: skip


def history_of(run: Path) -> list[dict[str, str]]:
    """Without the columns that measure time."""
    with (run / "history.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["ema.decay=0.9", "mixing.mixup=0.2", "mixing.cutmix=1.0"],
        [
            *("scheduler=plateau", "scheduler.patience=0", "early_stopping.patience=4"),
            "loader.on_device=true",
        ],
        ["scheduler=constant", "loader.num_workers=2"],
    ],
    ids=["one_cycle_averaged_mixed", "plateau_on_device", "steps_with_workers"],
)
def test_a_killed_moved_and_resumed_run_ends_bit_for_bit_like_another(
    tmp_path: Path, options: list[str]
) -> None:
    raw = write_zip(tmp_path / "archive.zip", tiny_rows())
    env = {"FER_DATA": str(tmp_path / "data")}
    command = ["train.py", *OPTIONS, f"dataset.raw={raw}", *options]
    whole, killed, moved = tmp_path / "whole", tmp_path / "killed", tmp_path / "moved"
    run_program(*command, f"hydra.run.dir={whole}", cwd=tmp_path, env=env)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command[1:], f"hydra.run.dir={killed}"],
        cwd=tmp_path, env={**os.environ, **env}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None:
        if (killed / "history.csv").exists() and len(history_of(killed)) >= 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    killed.rename(moved)  # the checkpoints remember where they were
    run_program("train.py", f"resume={moved}", cwd=tmp_path, env=env)
    assert not killed.exists()
    for name in ("best", "last"):
        one, two = (
            torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
            for run in (whole, moved)
        )
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert history_of(whole) == history_of(moved)
    assert (whole / "metrics.json").read_bytes() == (moved / "metrics.json").read_bytes()
    threads = json.loads((moved / "run.json").read_text())["hardware"]["threads"]
    assert read_progress(moved / "checkpoints/last.ckpt").threads == threads


def test_what_changes_no_result_may_be_named_anew_beside_resume(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("[seed=1, paths.data=data]")
    here = ["paths.data=/elsewhere", "dataset.raw=a.zip", "figures.format=svg", "seed=1"]
    found = expand([*here, f"resume={tmp_path}"])
    assert found[:4] == ["seed=1", *here[:3]]
    assert "paths.data=data" not in found
    with pytest.raises(ConfigError, match=r"as it was .*found seed=2 beside it"):
        expand(["seed=2", f"resume={tmp_path}"])


def test_a_training_that_goes_on_with_other_threads_says_so() -> None:
    assert compare_threads(2, 2) == [] == compare_threads(None, 2)
    (note,) = compare_threads(2, 1)
    assert note.startswith("The training was begun with 2 threads and went on with 1")


def test_auto_finds_the_newest_unfinished_run_of_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for day, seed in ((1, 1), (2, 1), (3, 1), (4, 2)):
        folder = tmp_path / f"outputs/train/fer2013/2026-01-0{day}_00-00-00"
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra/overrides.yaml").write_text(f"[dataset=fer2013, seed={seed}]")
        if day == 3:
            (folder / "report.html").write_text("")
    found = find_unfinished(["seed=1", "dataset=fer2013"])
    assert found is not None and found.name == "2026-01-02_00-00-00"
    assert expand(["seed=3", "resume=auto"]) == ["seed=3", "resume=auto"]


def test_a_resume_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text("- seed=1")
    assert expand([f"resume={tmp_path}"])[0] == "seed=1"
    with pytest.raises(ConfigError, match=r"as it was \(seed=1\), found seed=2 beside it"):
        expand(["seed=2", f"resume={tmp_path}"])
    with pytest.raises(ConfigError, match="expected the folder of a run"):
        expand([f"resume={tmp_path / 'nowhere'}"])
    (tmp_path / "report.html").write_text("")
    with pytest.raises(ConfigError, match="found a finished one"):
        expand([f"resume={tmp_path}"])


PLAIN = [
    *("optimizer.lr=1e-3", "model=shared_cnn_small", "optimizer.lr=1e-3,3e-3", "~scheduler"),
    *("model.widths=[4,8],[8,16]", "dataset.synonyms={mad: angry, 1: surprise}", "++a.b=null"),
    "dataset.columns={label: ./emotion, image: '~C:\\\\x'}",
    *("+trainer.gradient_clip_val=1.0", "logger=[csv,tensorboard]", "dataset.raw='/a b/c.zip'"),
    *(
        "optimizer.lr=tag(log,interval(1e-4,1e-2))",
        "seed=range(1,9,2)",
        "model.dropout=choice(0,1)",
    ),
    *(
        "hydra.sweeper.n_trials=30",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "dataset=fer2013,rafdb",
    ),
]
HARMFUL = [
    *("a=${oc.env:HOME}", "a='${oc.decode:x}'", "a=[1,'${b}']", "model._target_=os.abort"),
    *(
        "+b={c: {_target_: os.abort}}",
        "a={'_target_': x}",
        'a={"_target_": x}',
        "a=[1,{_target_: x}]",
    ),
    *("hydra.job.env_set.PATH=/x", "++hydra.job.env_set.PATH=/x", "hydra.searchpath=[file:///x]"),
    *("+hydra.callbacks.x={_target_: a.b}", "hydra.launcher.setup=[evil]", "hydra/job_logging=x"),
    *("hydra.job_logging.handlers.file.filename=/x", "hydra.output_subdir=/x", "=3", "a=[1"),
    *("+callbacks.x._target_=os.abort", "dataset=../../tmp/evil", "logger=[csv,/tmp/evil]"),
]


@pytest.mark.parametrize("item", PLAIN)
def test_plain_values_of_a_run_folder_are_taken(item: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text(yaml.safe_dump([item]))
    if not item.startswith("hydra"):
        assert expand([f"resume={tmp_path}"])[0] == item
    assert is_plain_override(item)


@pytest.mark.parametrize("item", HARMFUL)
def test_what_a_run_folder_could_run_is_refused_unless_the_user_gives_it(
    item: str, tmp_path: Path
) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text(yaml.safe_dump(["seed=1", item]))
    if item.startswith("hydra."):  # never taken from a run's folder at all
        assert item not in expand([f"resume={tmp_path}"])
    else:
        with pytest.raises(ConfigError, match="expected a command of plain values"):
            expand([f"resume={tmp_path}"])
        if "=" in item[1:] and "[1" not in item[-3:]:
            assert item in expand([item, f"resume={tmp_path}"])
    (tmp_path / "multirun.yaml").write_text(
        yaml.safe_dump({"hydra": {"overrides": {"task": ["seed=1,2"], "hydra": [item]}}})
    )
    (tmp_path / "jobs.json").write_text("[]")
    with pytest.raises(ConfigError, match="expected a command of plain values"):
        expand([f"resume={tmp_path}"])


def test_options_of_the_users_own_are_asked_for_beside_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run/.hydra/overrides.yaml").write_text("[model=mine]")
    with pytest.raises(ConfigError, match=r"expected model=mine of .*shared_cnn.* --config-dir"):
        expand([f"resume={tmp_path / 'run'}"])
    (tmp_path / "menu/model").mkdir(parents=True)
    (tmp_path / "menu/model/mine.yaml").write_text("_target_: mine.Mine")
    flags = ["--config-dir", str(tmp_path / "menu")]
    monkeypatch.setattr("sys.argv", ["train.py", *flags, f"resume={tmp_path / 'run'}"])
    assert expand([*flags, f"resume={tmp_path / 'run'}"])[:3] == [*flags, "model=mine"]
