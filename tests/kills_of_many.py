"""Kill or terminate studies, sweeps and searches at random moments; go on; compare.

    python -m tests.kills_of_many                       # 30 of each; exit code 1 if any differs
    python -m tests.kills_of_many --kills 5 --of sweep

Each is started as a user would start it and gets SIGKILL or SIGTERM, in turn, after a random time;
then the command that a user would type is given, until it has come to its end. What it publishes
must be what an undisturbed one publishes, to the last digit.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from fer.core.application import TERMINATED
from fer.runs.ownership import LOCK
from fer.runs.state import FINISHED, JOBS
from tests.conftest import is_held, tiny_rows, write_zip
from tests.kills import DATA, PATIENCE, TRAIN, Lost, check_whole, finish, history, start

VARYING = (
    *("seconds", "wall_seconds", "epoch_seconds", "images_per_second", "training_seconds"),
    # The command that went on, and a checkpoint's bytes: they hold the seconds of each epoch.
    *("command", "commands", "resumed_after_epochs", "started", "sha256"),
)
"""What differs between two runs of one command."""


@dataclass(frozen=True)
class Kind:
    """One kind of program that runs many others."""

    program: str
    begin: Callable[[Path], list[str]]
    """Its arguments, with the folder to work in."""
    results: Callable[[Path], Any]
    """What it publishes, but for what varies."""

    def arguments(self, place: Path) -> list[str]:
        """Of the command that a user gives now: a sweep that has its list of jobs is resumed."""
        return [f"resume={place}"] if (place / JOBS).is_file() else self.begin(place)


def begin_sweep(place: Path) -> list[str]:
    """Two networks, two seeds."""
    options = ["-m", DATA[0], *TRAIN, "logger=none", "trainer.max_epochs=4"]
    return [*options, "model.dropout=0.1,0.4", "seed=0,1", f"hydra.sweep.dir={place}"]


def begin_search(place: Path) -> list[str]:
    """Five trials, of which the last may be ended early."""
    options = ["sweep=optuna", DATA[0], *TRAIN, "logger=none", "trainer.max_epochs=4"]
    pruning = [f"hydra.sweeper.pruning.{key}=1" for key in ("startup_trials", "warmup_epochs")]
    trials = ["hydra.sweeper.n_trials=5", "hydra.sweeper.random_trials=3", *pruning]
    return [*options, *trials, f"hydra.sweep.dir={place}"]


def begin_study(place: Path) -> list[str]:
    """One dataset, one seed, with damage."""
    training = [f"train.{item}" for item in (*TRAIN, "logger=none")]
    measured = ["evaluate.perturbation=blur", "evaluate.metrics.resamples=100"]
    saliency = [f"evaluate.saliency.{key}=7" for key in ("sanity.images", "faithfulness.images")]
    measured += [*saliency, "evaluate.saliency.images_per_class=1"]
    return ["a=fer2013", "b=null", *training, *measured, f"folder={place}"]


def results_of_sweep(place: Path) -> Any:
    """The table, the choice, and what each job has measured."""
    with (place / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    jobs = {}
    for folder in sorted(path.parent for path in place.glob("*/history.csv")):
        files = [path for path in folder.glob("*.json") if path.name != "run.json"]
        jobs[folder.name] = {
            "history": history(folder),
            **{path.name: json.loads(path.read_text()) for path in files},
        }
    return without_varying([rows, yaml.safe_load((place / "best.yaml").read_text()), jobs])


def results_of_study(place: Path) -> Any:
    """All that the study publishes, and the predictions that it rests on."""
    found = {path: path.read_text() for path in place.rglob("predictions.csv")}
    predictions = {str(path.relative_to(place)): text for path, text in sorted(found.items())}
    return without_varying([json.loads((place / "study.json").read_text()), predictions])


def without_varying(node: Any) -> Any:
    """A structure without what varies, wherever it stands."""
    if isinstance(node, dict):
        return {key: without_varying(item) for key, item in node.items() if key not in VARYING}
    return [without_varying(item) for item in node] if isinstance(node, list) else node


KINDS = {
    "sweep": Kind("train", begin_sweep, results_of_sweep),
    "search": Kind("train", begin_search, results_of_sweep),
    "study": Kind("study", begin_study, results_of_study),
}


def run_to_end(kind: Kind, place: Path, log: Path) -> None:
    """Give the command, and let it come to its end."""
    code = finish(start(kind.program, kind.arguments(place), log))
    if code != 0:
        raise Lost(f"{kind.program} ended with {code}: {log.read_text()[-3000:]}")


def disturb(kind: Kind, place: Path, log: Path, seconds: float, how: signal.Signals) -> bool:
    """Give the command and end it from outside; whether it was faster and has come to its end."""
    child = start(kind.program, kind.arguments(place), log)
    code = finish(child, time.monotonic() + seconds)
    if code is None:
        os.kill(child, how)
        code = finish(child)
        # By the signal itself: it came before Python, or the program, had begun to listen.
        if code not in (0, -how, TERMINATED):
            raise Lost(f"{how.name} ended with {code}: {log.read_text()[-3000:]}")
    elif code != 0:
        raise Lost(f"{kind.program} ended with {code}: {log.read_text()[-3000:]}")
    wait_for_children(place)
    check_whole(place)
    return code == 0


def wait_for_children(place: Path) -> None:
    """Until no process works below a folder: a command that a study began ends with it."""
    deadline = time.monotonic() + PATIENCE / 5
    while any(is_held(path.parent) for path in place.rglob(LOCK)):
        if time.monotonic() > deadline:
            raise Lost(f"{place}: a process has outlived the one that began it")
        time.sleep(0.05)


def kill_often(kind: Kind, folder: Path, kills: int, chance: random.Random) -> Counter[str]:
    """End programs of a kind ``kills`` times from outside, and compare what they publish.

    Raises:
        Lost: something differs from what an undisturbed program publishes.
    """
    log = folder / "log.txt"
    whole = folder / "whole" / "run"
    whole.parent.mkdir(parents=True)
    started = time.monotonic()
    run_to_end(kind, whole, log)
    length = time.monotonic() - started
    expected = kind.results(whole)
    count: Counter[str] = Counter()
    while sum(count.values()) - count["compared"] < kills:
        place = Path(tempfile.mkdtemp(dir=folder)) / "run"
        for _ in range(chance.randint(2, 6)):
            how = (signal.SIGKILL, signal.SIGTERM)[sum(count.values()) % 2]
            if disturb(kind, place, log, chance.uniform(0, length), how):
                break
            count[how.name] += 1
        if not is_complete(place):
            run_to_end(kind, place, log)
        if kind.results(place) != expected:
            raise Lost(f"{place}: other results than {whole}")
        shutil.rmtree(place.parent)
        count["compared"] += 1
        print(f"{dict(count)}", flush=True)
    return count


def is_complete(place: Path) -> bool:
    """Whether it has written what it writes last."""
    return (place / FINISHED).is_file()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills_of_many", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="of each kind")
    parser.add_argument("--of", choices=list(KINDS), action="append", help="default: all kinds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a process that has threads is not safely forked
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ["FER_DATA"] = str(place / "data")
    raw = place / "data" / "fer2013" / "raw"
    raw.mkdir(parents=True)
    write_zip(raw / "archive.zip", tiny_rows())
    summary = {}
    for name in options.of or KINDS:
        folder = place / name
        folder.mkdir()
        try:
            summary[name] = kill_often(
                KINDS[name], folder, options.kills, random.Random(options.seed)
            )
        except Lost as loss:
            print(f"Lost: {name}: {loss}\nLeft as it is: {place}", file=sys.stderr)
            return 1
    print(json.dumps(summary))
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
