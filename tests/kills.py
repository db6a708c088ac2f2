"""Kill preparation, training and evaluation at random moments; start again; compare.

    python -m tests.kills                     # 120 kills; exit code 1 if anything was lost
    python -m tests.kills --kills 30 --seed 7

Every program runs as a user would start it, in a process of its own that a server, which has
imported torch already, forks: a kill then costs about as long as the program had run. SIGKILL comes
from outside, after a random time or, for checkpoints, while one is being written. After each kill
every file that has its final name must be whole; when a program has come to its end, what it leaves
must equal what an undisturbed one left.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

import fer.data.augmentation
import fer.tasks.evaluate
import fer.tasks.train  # not needed here: what the server has imported, no child has to
from fer.data.prepared import CACHE
from fer.runs.state import FINISHED
from fer.tasks.command import run_command
from tests.conftest import tiny_rows, write_zip

PHASES = {"preparation": 0.3, "training": 0.25, "checkpoint": 0.25, "evaluation": 0.2}
"""Of the kills, the share of each phase."""
PATIENCE = 300.0
"""Seconds after which a program hangs."""
TIMES = ("seconds", "images_per_second")
DATA = ["dataset=fer2013", "hydra.job_logging.root.level=WARNING"]
TRAIN = [
    *("model.widths=[4,8]", "model.image_size=16", "trainer.max_epochs=6", "loader.batch_size=7"),
    *("trainer.progress_bar=false", "metrics.resamples=100", "ema.decay=0.9"),
]


class Lost(AssertionError):
    """Something was lost, or a half-written file was read."""


@dataclass
class Tally:
    """What has happened so far."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    half_written: Counter[str] = field(default_factory=Counter)
    """Kills that left a file or folder which had not got its final name yet."""
    completed: Counter[str] = field(default_factory=Counter)
    """Programs that came to their end and were compared."""
    lost: list[str] = field(default_factory=list)


def start(program: str, arguments: Sequence[str], log: Path) -> int:
    """Fork a process that runs a program as from the command line; its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.argv = [program, *arguments]
        run_command(program, arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
        if isinstance(stop.code, str):
            os.write(2, stop.code.encode())
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)  # nothing of the server's is to be cleaned up here


def finish(child: int, until: float | None = None) -> int | None:
    """Wait for a process; its exit code (negative: the signal), or None if it still runs then."""
    deadline = time.monotonic() + PATIENCE if until is None else until
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            if until is None:
                end(child)
                raise Lost(f"a program did not end within {PATIENCE:.0f} s")
            return None
        time.sleep(0.001)


def end(child: int) -> None:
    """SIGKILL to the process alone, as the kernel's out-of-memory killer does it."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


class Harness:
    """A folder with everything that the kills need.

    Args:
        folder: to work in.
        seed: of the moments.
        say: prints a line of progress.
    """

    def __init__(self, folder: Path, seed: int, say: Callable[[str], object] = print) -> None:
        self.folder, self.say = folder, say
        self.random = random.Random(seed)
        self.tally = Tally(seed)
        self.log = folder / "log.txt"
        self.raw = write_zip(folder / "archive.zip", tiny_rows())
        os.environ["FER_DATA"] = str(folder / "data")
        self.prepared = folder / "data" / "fer2013"
        self.whole = folder / "whole"
        self.evaluated = folder / "evaluated"
        self.length: dict[str, float] = {}
        """Seconds that each program takes when nothing disturbs it."""
        for program, place in (
            ("prepare", self.folder),
            ("train", self.whole),
            ("evaluate", self.evaluated),
        ):
            started = time.monotonic()
            code = finish(start(program, self.command(program, place), self.log))
            self.length[program] = time.monotonic() - started
            if code != 0:
                raise RuntimeError(f"{program} ended with {code}: {self.log.read_text()[-2000:]}")
        self.say(f"seconds undisturbed: { {k: round(v, 1) for k, v in self.length.items()} }")
        self.data = content_of(self.prepared)
        self.finished = {place: content_of(place) for place in (self.whole, self.evaluated)}

    def command(self, program: str, place: Path, *options: str) -> list[str]:
        """The arguments of a program that writes into ``place``."""
        if program == "prepare":
            return [*DATA, f"dataset.raw={self.raw}", *options]
        if program == "evaluate":
            best = self.whole / "checkpoints/best.ckpt"
            options = (f"checkpoint={best}", "metrics.resamples=100", *options)
            return [*options, f"hydra.run.dir={place}", DATA[1]]
        return [*DATA, *TRAIN, *options, f"hydra.run.dir={place}"]

    def disturb(
        self, phase: str, program: str, arguments: Sequence[str], moment: Callable[[], bool] | None
    ) -> int | None:
        """Start a program and kill it; its exit code if it was faster, None if it was killed.

        Args:
            phase: for the count.
            program: which.
            arguments: of it.
            moment: whether it is time; None: after a random time.
        """
        self.tally.starts[phase] += 1
        child = start(program, arguments, self.log)
        if moment is None:
            code = finish(child, time.monotonic() + self.random.uniform(0, self.length[program]))
        else:
            deadline = time.monotonic() + PATIENCE
            code = None
            while code is None and not moment():
                code = finish(child, time.monotonic() + 0.0005)
                if time.monotonic() > deadline:
                    end(child)
                    raise Lost(f"{phase}: the program hangs")
            if code is None:
                code = finish(child, time.monotonic() + self.random.uniform(0, 0.008))
        if code is None:
            end(child)
            self.tally.kills[phase] += 1
        elif code != 0:
            raise Lost(f"{phase}: {program} ended with {code}: {self.log.read_text()[-2000:]}")
        return code

    def complete(self, program: str, arguments: Sequence[str]) -> None:
        """Run a program to its end."""
        code = finish(start(program, arguments, self.log))
        if code != 0:
            raise Lost(f"{program} ended with {code}: {self.log.read_text()[-2000:]}")

    # --- the phases --------------------------------------------------------------------------

    def kill_preparation(self) -> None:
        """From nothing, or over a dataset made with other options, until it is there."""
        option = "dataset.reader.val_fraction=0.2"
        if self.random.random() < 0.5:
            shutil.rmtree(self.prepared)
        else:
            self.complete("prepare", self.command("prepare", self.folder, option))
        for _ in range(self.random.randint(1, 5)):
            if self.tally.kills["preparation"] >= self.wanted["preparation"]:
                break
            before = {path.name for path in self.prepared.glob(".staging-*")}
            code = self.disturb(
                "preparation", "prepare", self.command("prepare", self.folder), None
            )
            if code == 0:
                break
            begun = {path.name for path in self.prepared.glob(".staging-*")} - before
            if begun or (self.prepared / ".ready").exists():
                self.tally.half_written["preparation"] += 1
        self.complete("prepare", self.command("prepare", self.folder))
        self.compare_data()
        self.tally.completed["preparation"] += 1

    def compare_data(self) -> None:
        """The prepared dataset is the same, with nothing beside it."""
        found = content_of(self.prepared)
        if found != self.data:
            raise Lost(f"the prepared dataset differs in {differences(found, self.data)}")

    def kill_training(self, phase: str) -> None:
        """One run, killed and resumed until it is finished."""
        place = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder)) / "run"
        for _ in range(self.random.randint(2, 6)):
            moment = None
            if phase == "checkpoint":
                moment = self.checkpoint_moment(place)
            if self.tally.kills[phase] >= self.wanted[phase] or (place / FINISHED).exists():
                break
            resumable = (place / ".hydra/overrides.yaml").is_file()
            code = self.disturb(
                phase,
                "train",
                [f"resume={place}", DATA[1]] if resumable else self.command("train", place),
                moment,
            )
            if any(place.rglob("*.tmp")):
                self.tally.half_written[phase] += 1
            check_whole(place)
            if code == 0:
                break
        if not (place / FINISHED).exists():
            resumable = (place / ".hydra/overrides.yaml").is_file()
            arguments = [f"resume={place}"] if resumable else self.command("train", place)
            self.complete("train", arguments)
        self.compare_runs(place)
        shutil.rmtree(place.parent)
        self.tally.completed[phase] += 1

    def checkpoint_moment(self, place: Path) -> Callable[[], bool]:
        """Whether a checkpoint is being written, after a random number of them."""
        skip = self.random.randint(0, 6)
        seen: set[str] = set()

        def moment() -> bool:
            try:
                names = {path.name for path in (place / "checkpoints").glob(".*.tmp")}
            except FileNotFoundError:
                return False
            seen.update(names)
            return bool(names) and len(seen) > skip

        return moment

    def compare_runs(self, place: Path) -> None:
        """A run that was killed ends like one that was not, and leaves nothing beside it."""
        for name in ("best", "last"):
            one, two = (weights(run, name) for run in (self.whole, place))
            if any(not torch.equal(one[key], two[key]) for key in one):
                raise Lost(f"{place}: {name}.ckpt has other weights")
        if history(place) != history(self.whole):
            raise Lost(f"{place}: history.csv differs")
        if (place / "metrics.json").read_bytes() != (self.whole / "metrics.json").read_bytes():
            raise Lost(f"{place}: metrics.json differs")
        left = [path.name for path in place.rglob("*.tmp")]
        if left:
            raise Lost(f"{place}: left behind: {left}")

    def kill_evaluation(self) -> None:
        """Evaluations that are killed, and then one that is not."""
        place = Path(tempfile.mkdtemp(prefix="evaluation-", dir=self.folder)) / "run"
        for _ in range(self.random.randint(3, 8)):
            if self.tally.kills["evaluation"] >= self.wanted["evaluation"]:
                break
            code = self.disturb("evaluation", "evaluate", self.command("evaluate", place), None)
            check_whole(place)
            if code == 0:
                break
        self.complete("evaluate", self.command("evaluate", place))
        for name in ("metrics.json", "predictions.csv"):
            if (place / name).read_bytes() != (self.evaluated / name).read_bytes():
                raise Lost(f"{place}: {name} differs")
        shutil.rmtree(place.parent)
        self.tally.completed["evaluation"] += 1

    # --- all of it ---------------------------------------------------------------------------

    def run(self, kills: int) -> Tally:
        """Kill so many times, in rounds through the phases."""
        self.wanted = {phase: round(share * kills) for phase, share in PHASES.items()}
        self.wanted["preparation"] += kills - sum(self.wanted.values())
        rounds: dict[str, Callable[[], None]] = {
            "preparation": self.kill_preparation,
            "training": lambda: self.kill_training("training"),
            "checkpoint": lambda: self.kill_training("checkpoint"),
            "evaluation": self.kill_evaluation,
        }
        while True:
            open_phases = [p for p in rounds if self.tally.kills[p] < self.wanted[p]]
            if not open_phases or self.tally.lost:
                return self.tally
            for phase in open_phases:
                try:
                    rounds[phase]()
                    self.compare_data()
                    for place, content in self.finished.items():
                        if content_of(place) != content:
                            raise Lost(f"{place}, a finished run, was changed")
                except Lost as loss:
                    self.tally.lost.append(f"{phase}: {loss}")
                    return self.tally
                done = ", ".join(f"{p} {self.tally.kills[p]}/{self.wanted[p]}" for p in rounds)
                self.say(f"killed: {done}")


def content_of(folder: Path) -> dict[str, str]:
    """A checksum of each file below a folder, but for the lock and the cache; hidden folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == ".lock" or CACHE in path.parts:
            continue
        if path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.is_dir() and path.name.startswith("."):
            found[f"{path.relative_to(folder)}/"] = ""
    return found


def differences(one: dict[str, str], two: dict[str, str]) -> list[str]:
    """Names of the files in which two folders differ, some of them."""
    names = one.keys() | two.keys()
    return sorted(name for name in names if one.get(name) != two.get(name))[:8]


def weights(place: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights of one of a run's checkpoints."""
    content = torch.load(place / f"checkpoints/{name}.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state


def history(place: Path) -> list[dict[str, str]]:
    """The rows of a run's history, without the columns that measure time."""
    with (place / "history.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key not in TIMES}
            for row in csv.DictReader(file)
        ]


def check_whole(place: Path) -> None:
    """Every file of a killed run that has its final name can be read to its end."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".ckpt": lambda path: torch.load(path, weights_only=True),
        ".csv": lambda path: next(csv.reader(path.read_text().splitlines())),
        ".yaml": lambda path: yaml.safe_load(path.read_text()),
    }
    for path in place.rglob("*"):
        reader = readers.get(path.suffix)
        if reader is not None and path.is_file() and ".hydra" not in path.parts:
            try:
                reader(path)
            except Exception as error:
                raise Lost(f"{path} is not whole: {error!r}") from error


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="to work in; default: a temporary one")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process that has threads is not safely forked
    fer.data.augmentation.import_albumentations()
    place = Path(tempfile.mkdtemp(prefix="kills-", dir=options.folder))
    started = time.monotonic()
    print(f"seed {options.seed}, {options.kills} kills, in {place}", flush=True)
    harness = Harness(place, options.seed, lambda line: print(line, flush=True))
    tally = harness.run(options.kills)
    summary = {
        **vars(tally),
        "kills_in_all": sum(tally.kills.values()),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary, indent=2))
    if tally.lost:
        print(f"Lost: {tally.lost[0]}\nLeft as it is: {place}", file=sys.stderr)
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
