"""Killed processes: nothing is lost, nothing half-written is read, nobody waits for the dead."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fer.data import prepared as prepared_module
from fer.data.dataset import load_images
from fer.data.drawn.synthetic import generate
from fer.data.manifest import Entry, read_manifest
from fer.data.preparation import prepare
from fer.data.prepared import DRAWN
from fer.data.readers.fer2013 import FER2013Reader
from tests.conftest import ROOT, Row, write_zip

POOLED = """
import sys
from pathlib import Path
from fer.data import conversion as module
from fer.data.preparation import prepare
from fer.data.readers.fer2013 import FER2013Reader
module.SMALL, module.CHUNK = 0, 1
if __name__ == "__main__":
    prepare("fer2013", Path(sys.argv[1]), FER2013Reader(), raw=Path(sys.argv[2]), workers=2)
"""
LOCKED = """
import sys, time
from pathlib import Path
from fer.data.prepared import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_preparations_trainings_and_evaluations_go_on_without_loss(tmp_path: Path) -> None:
    """The whole of it, with more kills: ``python -m tests.kills``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", "--kills", "4", "--folder", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"kills_in_all": 4' in done.stdout and '"lost": []' in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sweep", "search", "study"])
def test_what_runs_many_publishes_the_same_after_kills(kind: str) -> None:
    """With more of them: ``python -m tests.kills_of_many``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills_of_many", "--kills", "3", "--of", kind],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def prepare_at_once(folder: Path, raw: Path, everybody: Any, answers: Any) -> None:
    """Prepare, but not before everybody is there."""
    everybody.wait()
    prepared = prepare("fer2013", folder, FER2013Reader(), raw=raw)
    answers.put((prepared.integrity["fingerprint"], int(load_images(prepared, 16, 1).sum())))


@pytest.mark.slow
def test_eight_processes_that_prepare_at_once_make_one_dataset(
    tmp_path: Path, tiny_zip: Path
) -> None:
    expected = prepare("fer2013", tmp_path / "alone", FER2013Reader(), raw=tiny_zip)
    total = int(load_images(expected, 16, 1).sum())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    everybody, answers = context.Barrier(8), context.Queue()
    processes = [
        context.Process(target=prepare_at_once, args=(tmp_path / "d", tiny_zip, everybody, answers))
        for _ in range(8)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert found == [(expected.integrity["fingerprint"], total)] * 8
    left = {path.name for path in (tmp_path / "d").iterdir()}
    assert left == {*prepared_module.PARTS, ".lock", prepared_module.CACHE}
    assert len(list((tmp_path / "d/.cache").iterdir())) == 1


def test_a_lock_that_a_dead_process_held_does_not_block(tmp_path: Path, tiny_zip: Path) -> None:
    (tmp_path / "d").mkdir()
    owner = start(LOCKED, tmp_path / "d")
    assert owner.stdout is not None and owner.stdout.readline() == "locked\n"
    waiting = multiprocessing.get_context("fork").Process(
        target=prepare, args=("fer2013", tmp_path / "d", FER2013Reader()), kwargs={"raw": tiny_zip}
    )
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive(), "the lock of a living process was not respected"
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    waiting.join(60)
    assert waiting.exitcode == 0 and (tmp_path / "d/manifest.csv").exists()
    assert (tmp_path / "d/.lock").exists()  # the file stays; what counts is who holds it


@pytest.mark.slow
def test_worker_processes_of_a_killed_preparation_end_with_it(
    tmp_path: Path, rows: list[Row]
) -> None:
    raw = write_zip(tmp_path / "archive.zip", rows)
    script = tmp_path / "pooled.py"  # worker processes import the program that started them
    script.write_text(POOLED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "d"), str(raw)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not any((tmp_path / "d").glob(".staging-*/*/*/*.png")):
        assert process.poll() is None
        time.sleep(0.002)
    workers = children_of(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived the preparation"
        time.sleep(0.05)
    prepared = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=raw)
    assert len(prepared.entries) == len(rows)
    assert not list((tmp_path / "d").glob(".staging*"))


def children_of(process: int) -> list[int]:
    """Ids of the processes that a process has started."""
    path = Path(f"/proc/{process}/task/{process}/children")
    if not path.exists():
        pytest.skip("needs Linux, which lists the children of a process")
    return [int(word) for word in path.read_text().split()]


def is_alive(process: int) -> bool:
    """Whether a process still runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_leftovers_of_a_killed_drawing_are_removed(tmp_path: Path) -> None:
    """As ``write_tree`` and ``write_atomic`` leave them when killed."""
    generator = functools.partial(generate, "synthetic_a", train=7, val=7, test=7, seed=0)
    raw = tmp_path / "d/raw"
    (raw / ".basic.x1.fer.tmp/new").mkdir(parents=True)
    (raw / ".archive.zip.x2.fer.tmp").write_bytes(b"half")
    prepare("synthetic_a", tmp_path / "d", FER2013Reader(), generator=generator, workers=1)
    assert sorted(path.name for path in raw.iterdir()) == [DRAWN, "archive.zip"]


def test_a_dataset_that_is_replaced_while_it_is_looked_at_is_looked_at_again(
    tmp_path: Path, tiny_zip: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the manifest and integrity.json another process may put new ones into place."""
    folder, other = tmp_path / "d", write_zip(tmp_path / "other.zip", rows[1:])
    prepare("fer2013", folder, FER2013Reader(), raw=tiny_zip)
    plain = read_manifest

    def interrupted(path: Path) -> list[Entry]:
        entries = plain(path)
        monkeypatch.setattr(prepared_module, "read_manifest", plain)
        prepare("fer2013", folder, FER2013Reader(), raw=other)
        return entries

    monkeypatch.setattr(prepared_module, "read_manifest", interrupted)
    assert len(prepare("fer2013", folder, FER2013Reader(), raw=other).entries) == len(rows) - 1
