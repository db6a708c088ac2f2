"""Training in several processes: the same images, exact metrics, one run folder."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fer.core.errors import ConfigError
from fer.core.hardware import check_processes
from fer.data.dataset import EpochSampler, ShareSampler
from fer.data.published import FER2013DataModule
from tests.conftest import ROOT, run_program, tiny_rows, write_zip
from tests.runs.test_resume import OPTIONS

# Validation batches of 5 leave one process fewer images than the other.
DDP = [*OPTIONS, "loader.batch_size=8", "loader.eval_batch_size=5", "dataset.raw=archive.zip",
       "trainer=ddp", "logger=none"]  # fmt: skip


@given(st.integers(1, 5), st.integers(0, 40), st.integers(0, 20))
def test_shares_of_a_split_are_disjoint_complete_and_never_empty(
    processes: int, size: int, batch_size: int
) -> None:
    size, batch_size = size + processes, batch_size + processes
    shares = [list(ShareSampler(size, batch_size, rank, processes)) for rank in range(processes)]
    assert len({len(batches) for batches in shares}) == 1
    assert all(batch for batches in shares for batch in batches)
    assert sorted(row for batches in shares for batch in batches for row in batch) == [*range(size)]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 50))
def test_processes_together_take_the_batches_of_one(processes: int, share: int, more: int) -> None:
    batch, size = processes * share, processes * share + more
    whole = list(EpochSampler(size, 3, batch))
    parts = [list(EpochSampler(size, 3, batch, rank, processes)) for rank in range(processes)]
    assert len(whole) == size // batch * batch
    for start in range(0, len(whole), batch):
        step = start // processes
        together = [draw for part in parts for draw in part[step : step + share]]
        assert together == whole[start : start + batch]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny dataset and a sweep of two jobs, two processes each, in ``sweep``."""
    folder = tmp_path_factory.mktemp("processes")
    write_zip(folder / "archive.zip", tiny_rows())
    run_program(
        "train.py", "-m", *DDP, "trainer.max_epochs=3", "model.dropout=0.2,0.5", "test=true",
        "hydra.sweep.dir=sweep", cwd=folder, env={"FER_DATA": str(folder / "data")},
    )  # fmt: skip
    return folder


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has no two processes")
def test_a_sweep_of_two_processes_a_job_measures_the_whole_test_split(place: Path) -> None:
    folders = {path.name for path in (place / "sweep").iterdir() if path.is_dir()}
    assert folders == {"0", "1", "figures"}
    for job in ("0", "1"):
        run = place / "sweep" / job
        run_program(
            "evaluate.py", f"checkpoint={run / 'checkpoints/best.ckpt'}", "metrics.resamples=100",
            f"hydra.run.dir=again{job}", "errors.pairs=0", "errors.confident=0",
            cwd=place, env={"FER_DATA": str(place / "data")},
        )  # fmt: skip
        metrics = json.loads((run / "metrics.json").read_text())
        again = json.loads((place / f"again{job}/metrics.json").read_text())
        assert metrics["samples"] == 14
        assert metrics == again
        # What the processes gathered in training is what one process measures of the checkpoint.
        record = json.loads((run / "run.json").read_text())
        with (run / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        best = rows[record["best_epoch"]]
        assert len(rows) == record["epochs"] == 3
        for name in ("accuracy", "macro_f1"):
            assert float(best[f"val_{name}"]) == pytest.approx(record["validation"][name], abs=1e-7)
        assert record["config"]["trainer"]["devices"] == 2


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has no two processes")
def test_two_processes_that_are_killed_go_on_bit_for_bit(place: Path) -> None:
    command = [*DDP, "trainer.max_epochs=16", "early_stopping.patience=null", "test=false"]
    env = {"FER_DATA": str(place / "data")}
    run_program("train.py", *command, "hydra.run.dir=whole", cwd=place, env=env)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command, "hydra.run.dir=killed"],
        cwd=place, env={**os.environ, **env},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not (place / "killed/checkpoints/last.ckpt").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (place / "killed/metrics.json").exists()
    run_program("train.py", "resume=killed", cwd=place, env=env)
    record = json.loads((place / "killed/run.json").read_text())
    assert 0 < record["resumed_after_epochs"] < 16
    first, second = (
        torch.load(place / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "killed")
    )
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_what_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    def check(processes: int, **options: Any) -> None:
        data = FER2013DataModule(
            tmp_path / "data", raw=write_zip(tmp_path / "archive.zip", tiny_rows()), **options
        )
        data.setup()
        data.check_shares(processes)

    check(2, batch_size=8, eval_batch_size=2)
    with pytest.raises(ConfigError, match=r"loader.batch_size: expected a multiple of .*=2"):
        check(2, batch_size=7)
    with pytest.raises(ConfigError, match=r"at most loader\.eval_batch_size=1"):
        check(2, batch_size=8, eval_batch_size=1)
    with pytest.raises(ConfigError, match="the 14 validation images"):
        check(28, batch_size=28)
    with pytest.raises(ConfigError, match=r"loader\.on_device: expected false"):
        check(2, batch_size=8, on_device=torch.device("cpu"))


def test_one_process_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(2, torch.device("cuda"))
    with pytest.raises(ConfigError, match=r"2 GPUs\), found 3. Take fewer: trainer.devices=2"):
        check_processes(3, torch.device("cuda"))
    with pytest.raises(ConfigError, match="mps"):
        check_processes(2, torch.device("mps"))
