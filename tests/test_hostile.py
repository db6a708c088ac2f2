"""Folders made to harm: resumed, evaluated, studied and carded, nothing in them runs or gets out.

Each attack changes a good folder that the tests write. Whatever the attack, the answer is a message
of one line, the canary does not exist, and outside of the folder nothing has changed.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer.core.errors import FerError
from fer.data.manifest import read_manifest
from fer.data.preparation import prepare
from fer.data.prepared import DRAWN, DRAWN_TEXT
from fer.data.readers.fer2013 import FER2013Reader
from fer.runs.resume import expand
from fer.runs.side_by_side import collect
from fer.runs.sweep import Job, read_job, recall
from fer.tasks.card import write_card
from fer.tasks.evaluate import evaluate
from fer.tasks.study import study_task
from tests.conftest import (
    compose,
    data_record,
    metrics_record,
    network_record,
    run_record,
    to_png,
)
from tests.core.test_strangers import png_of, save, tiny
from tests.report.test_model_card import make_results

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are POSIX's")

Attack = Callable[[Path, Path], object]
"""Makes a folder harmful: the folder, and the canary, which is not to exist afterwards."""


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def overrides(*items: str) -> Attack:
    return lambda folder, canary: write(
        folder / ".hydra/overrides.yaml",
        yaml.safe_dump([item.replace("CANARY", str(canary)) for item in items]),
    )


def sweep_of(*items: str) -> Attack:
    return sweep_record({"task": ["seed=1,2"], "hydra": list(items)})


def sweep_record(record: object) -> Attack:
    def attack(folder: Path, canary: Path) -> None:
        text = yaml.safe_dump({"hydra": {"overrides": record}})
        write(folder / "multirun.yaml", text.replace("CANARY", str(canary)))
        write(folder / "jobs.json", [])

    return attack


def link(name: str) -> Attack:
    """A link to the folder around, under the name of something that a run writes into."""

    def attack(folder: Path, canary: Path) -> None:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(canary.parent if "." not in place.name[1:] else canary)

    return attack


def pipe(name: str) -> Attack:
    """What never ends where it is read."""

    def attack(folder: Path, _: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return attack


# --- resumed -------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
RESUMED: dict[str, Attack] = {
    "a class": overrides("+callbacks.x={_target_: pathlib.Path.touch, self: CANARY}"),
    "an interpolation": overrides("model.dropout=${oc.decode:CANARY}"),
    "hydra's own": sweep_of("hydra.job_logging.handlers.file.filename=CANARY"),
    "a database elsewhere": sweep_of("hydra.sweeper.storage='sqlite:///CANARY'"),
    "a logger's folder": overrides("logger=csv", "+logger.csv.save_dir=CANARY"),
    "a trainer's folder": overrides("+trainer.default_root_dir=CANARY"),
    "data elsewhere": overrides("dataset=synthetic_a", "paths.data=CANARY"),
    "a dataset's folder": overrides("dataset=synthetic_a", "dataset.folder=CANARY"),
    "a file of options": overrides("model=../../CANARY"),
    "python in yaml": lambda folder, canary: write(
        folder / ".hydra/overrides.yaml",
        f"!!python/object/apply:os.system ['touch {canary}']",
    ),
    "a bomb in yaml": lambda folder, _: write(folder / ".hydra/overrides.yaml", BOMB),
    "deep yaml": lambda folder, _: write(folder / ".hydra/overrides.yaml", "[" * 20_000),
    "no texts": sweep_record({"task": [{"a": 1}], "hydra": [3]}),
    "a pipe": pipe(".hydra/overrides.yaml"),
    "a log that is a link": lambda folder, canary: (
        overrides("seed=1")(folder, canary),
        link("train.log")(folder, canary),
    ),
    "figures that are a link": lambda folder, canary: (
        overrides("seed=1")(folder, canary),
        link("figures")(folder, canary),
    ),
}


def snapshot(place: Path, apart: Path) -> dict[Path, bytes]:
    """The files and folders of ``place`` but those of ``apart``, and what is in each."""
    paths = [path for path in place.rglob("*") if not path.is_relative_to(apart)]
    return {path: path.read_bytes() if path.is_file() else b"" for path in paths}


def refuse(place: Path, folder: Path, task: Callable[[], object]) -> str:
    """Run a task, which is to end in a message of one line and leave all but ``folder``."""
    before = snapshot(place, folder)
    with pytest.raises(FerError) as caught:
        task()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2_000
    assert not (place / "canary").exists() and snapshot(place, folder) == before
    return message


@pytest.mark.parametrize("attack", RESUMED.values(), ids=RESUMED)
def test_a_folder_that_is_resumed(attack: Attack, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    attack(folder, tmp_path / "canary")
    refuse(tmp_path, folder, lambda: expand([f"resume={folder}"]))


def test_places_are_taken_from_a_folder_where_data_is_prepared(tmp_path: Path) -> None:
    """One's own run goes on with the options that it has."""
    write(tmp_path / "data/faces/manifest.csv", "")
    items = [f"paths.data={tmp_path / 'data'}", "dataset.raw=/a/b.zip", "logger.wandb.project=mine"]
    overrides(*items)(tmp_path / "run", tmp_path)
    assert expand([f"resume={tmp_path / 'run'}"])[:3] == items
    overrides("+trainer.default_root_dir=/x")(tmp_path / "run", tmp_path)
    again = ["+trainer.default_root_dir=/x", f"resume={tmp_path / 'run'}"]
    assert expand(again)[0] == again[0]


# --- evaluated -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["fer"]["dataset"].update(
                choice="synthetic_a",
                name="synthetic_a",
                generator={"train": 10**12, "val": 7, "test": 7, "seed": 0},
            ),
            "dataset.generator.train: expected a whole number from 7 to 1,000,000",
        ),
        (
            lambda c: c["fer"]["dataset"].update(reader={"val_fraction": "${oc.env:HOME}"}),
            "names something to look up or to run",
        ),
        (lambda c: c["fer"]["model"].update(network="os.abort"), "registered network"),
        (
            lambda c: (
                c["fer"]["model"]["options"].update(widths=[64], image_size=1024),
                c["fer"]["model"].update(image_size=1024),
            ),
            "numbers for an image",
        ),
    ],
    ids=["a million million images", "the environment", "code as a network", "a gigabyte an image"],
)
def test_a_checkpoint_that_is_evaluated(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    path = save(run / "best.ckpt", change)
    for name, content in ((f"raw/{DRAWN}", DRAWN_TEXT), (".lock", "")):  # of every preparation
        write(tmp_path / "data/synthetic_a" / name, content)
    cfg = compose(f"checkpoint={path}", "trainer.accelerator=cpu", config="evaluate")
    assert message in refuse(tmp_path, run, lambda: evaluate(cfg, run))


# --- a prepared folder ---------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path, prepared_tiny: Path) -> Path:
    """A prepared folder."""
    return shutil.copytree(prepared_tiny, tmp_path / "prepared", ignore=lambda *_: [".lock"])


def rename(old: str, new: str) -> Attack:
    """An id of the manifest that leads elsewhere."""

    def attack(folder: Path, _: Path) -> None:
        path = folder / "manifest.csv"
        with path.open() as file:
            rows = list(csv.reader(file))
        rows[1][0] = new
        with path.open("w") as file:
            csv.writer(file).writerows(rows)

    return attack


def report(**changes: object) -> Attack:
    def attack(folder: Path, _: Path) -> None:
        content = json.loads((folder / "integrity.json").read_text())
        write(folder / "integrity.json", content | changes)

    return attack


def picture(data: bytes | None) -> Attack:
    """Another file in the place of the first image."""

    def attack(folder: Path, _: Path) -> None:
        path = folder / read_manifest(folder / "manifest.csv")[0].file
        path.unlink()
        os.mkfifo(path) if data is None else path.write_bytes(data)

    return attack


PREPARED: dict[str, Attack] = {
    "an id that leads out": rename("0", "../../../canary"),
    "an absolute id": rename("0", "/etc/passwd"),
    "a report of texts": report(images="<script>", counts="many"),
    "a report of numbers without end": report(images=10**300),
    "a report without end": lambda folder, _: write(folder / "integrity.json", "[" * 200_000),
    "a cache that is a link": link(".cache"),
    "a lock that is a link": link(".lock"),
    "a ready folder that is a link": link(".ready"),
    "a manifest that is a pipe": pipe("manifest.csv"),
    "an image that is a pipe": picture(None),
    "an image that is a bomb": picture(png_of(40_000, 40_000, zlib.compress(bytes(10**6)))),
    "another image": picture(to_png(tiny()[0][2] // 2)),
}


@pytest.mark.parametrize("attack", PREPARED.values(), ids=PREPARED)
def test_a_prepared_folder(attack: Attack, dataset: Path, tmp_path: Path) -> None:
    from fer.data.dataset import load_images

    attack(dataset, tmp_path / "canary")

    def use() -> None:
        prepared = prepare("x", dataset, FER2013Reader())
        load_images(prepared, 16, 1)

    refuse(tmp_path, dataset, use)


# --- studied ---------------------------------------------------------------------------------


def run_json(content: object) -> Attack:
    return lambda folder, _: write(folder / "train/synthetic_a-seed0/run.json", content)


def without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A record without what lies at the end of ``keys``."""
    key, *others = keys
    if others:
        return record | {key: without(record[key], *others)}
    return {name: value for name, value in record.items() if name != key}


GOOD_RUN = run_record()
STUDIED: dict[str, Attack] = {
    "no mapping": run_json([1, 2]),
    "without end": run_json("[" * 200_000),
    "a text as a number": run_json(GOOD_RUN | {"epochs": "<b>many</b>"}),
    "a number without end": run_json(GOOD_RUN | {"best_epoch": 10**400}),
    "a score that is none": run_json(json.dumps(GOOD_RUN).replace("0.5", "NaN")),
    "a fingerprint that is a list": run_json(GOOD_RUN | {"dataset": data_record([1])}),
    "checkpoints elsewhere": lambda folder, canary: (
        run_json(GOOD_RUN)(folder, canary),
        link("train/synthetic_a-seed0/checkpoints")(folder, canary),
    ),
}


@pytest.mark.parametrize("attack", STUDIED.values(), ids=STUDIED)
def test_a_study(attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "study"
    write(folder / "train/synthetic_a-seed0/report.html", "")
    attack(folder, tmp_path / "canary")
    cfg = compose("a=synthetic_a", "b=null", f"folder={folder}", config="study")
    assert folder.name in refuse(tmp_path, folder, lambda: study_task(cfg, folder))


GOOD_EVALUATION: dict[str, dict[str, Any]] = {
    "metrics.json": metrics_record(samples=1, without_near_leaks=metrics_record()["without_leaks"]),
    "run.json": GOOD_RUN | {"checkpoint": network_record("x")},
}


def write_evaluations(folder: Path) -> None:
    """Two good evaluations of one image."""
    table = (
        "id,true,predicted,confidence,p_angry,p_disgust,p_fear,p_happy,p_sad,p_surprise,p_neutral\n"
    )
    for job in "01":
        for file, good in (*GOOD_EVALUATION.items(), ("robustness.json", [])):
            write(folder / job / file, good)
        write(folder / job / "predictions.csv", table + "a,happy,sad,1" + 7 * ",0" + "\n")
    assert collect(folder) is not None


@pytest.mark.parametrize("name", ["metrics.json", "run.json", "predictions.csv", "robustness.json"])
@pytest.mark.parametrize("content", ["[]", "{}", '{"samples": "<b>"}', "id,true\n1,2", "\0", ""])
def test_evaluations_side_by_side(name: str, content: str, tmp_path: Path) -> None:
    write_evaluations(tmp_path / "sweep")
    if (name, content) != ("robustness.json", "[]"):
        write(tmp_path / "sweep/1" / name, content)
        assert name in refuse(tmp_path, tmp_path / "sweep", lambda: collect(tmp_path / "sweep"))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("run.json", ("dataset", "fingerprints", "test")),
        ("metrics.json", ("without_leaks",)),
        ("metrics.json", ("without_leaks", "samples")),
        ("metrics.json", ("without_near_leaks", "macro_f1")),
    ],
)
def test_an_evaluation_without_what_a_page_reads(
    name: str, keys: tuple[str, ...], tmp_path: Path
) -> None:
    folder, good = tmp_path / "sweep", GOOD_EVALUATION[name]
    write_evaluations(folder)
    write(folder / "1" / name, without(good, *keys))
    message = refuse(tmp_path, folder, lambda: collect(folder))
    assert f"found something else as '{keys[0]}" in message
    assert message.endswith("Move its folder away and run its command again.")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("jobs.json", [1]),
        ("jobs.json", {"a": 1}),
        ("jobs.json", [{"folder": "../..", "overrides": []}]),
        ("jobs.json", [{"folder": "/", "overrides": []}]),
        ("0/run.json", {"validation": {"macro_f1": "x"}}),
        ("0/run.json", without(GOOD_RUN, "dataset", "fingerprints", "val")),
        ("0/pruned.json", {"validation": [1]}),
        ("0/failed.json", {"message": ["x"]}),
    ],
)
def test_a_sweep(name: str, content: object, tmp_path: Path) -> None:
    write(tmp_path / "sweep/jobs.json", [])
    write(tmp_path / "sweep" / name, content)
    if name == "0/run.json":
        write(tmp_path / "sweep/0/report.html", "")

    def use() -> None:
        recall(tmp_path / "sweep", [])
        read_job(tmp_path / "sweep", Job(0, "0", []))

    assert Path(name).name in refuse(tmp_path, tmp_path / "sweep", use)


# --- carded ----------------------------------------------------------------------------------

EVIL = "x\n# Heading\n<script>alert(1)</script> ![](http://evil) | **bold** `code`\n```\n~~~"


def poison(value: Any, key: str = "") -> Any:
    """Every text of a study's results is evil, but those that are looked up."""
    if isinstance(value, dict):
        return {name: poison(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [poison(one, key) for one in value]
    kept = ("dataset", "datasets", "train_dataset", "test_dataset", "perturbation", "split")
    return EVIL if isinstance(value, str) and key not in kept else value


def test_no_text_of_a_study_reaches_a_card_as_markdown(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    write(tmp_path / "good.json", make_results())
    write(tmp_path / "evil.json", poison(make_results()))
    good, evil = (
        write_card(tmp_path / f"{name}.json", tmp_path / f"{name}.md").read_text()
        for name in ("good", "evil")
    )
    assert "Heading" in evil and "Heading" not in good, "nothing was tested"
    assert evil.count("\n```\n") == good.count("\n```\n")
    # In a block of code, which a command stands in alone, nothing has a meaning.
    good, evil = (re.sub(r"(?s)\n```\n.*?\n```\n", "\n", text) for text in (good, evil))
    assert not [part for part in ("<script", "![", "](", "**bold", "`code") if part in evil]
    for mark in ("\n#", "```", "\n|", "~~~", "---\n"):
        assert evil.count(mark) == good.count(mark)


CARDED: dict[str, object] = {
    "no mapping": [],
    "no results": {"datasets": ["<b>"]},
    "deep": "[" * 200_000,
    "texts as numbers": {**make_results(), "parameters": "many"},
    "a long text": {**make_results(), "train_options": ["x" * 1_000_000]},
    "numbers without end": {**make_results(), "parameters": 10**5000},
}


@pytest.mark.parametrize("content", CARDED.values(), ids=CARDED)
def test_a_card_of_what_is_no_study(content: object, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    study = tmp_path / "study"
    if isinstance(content, dict) and content.get("parameters") == 10**5000:
        sys.set_int_max_str_digits(0)
        try:
            write(study / "study.json", content)
        finally:
            sys.set_int_max_str_digits(4300)
    else:
        write(study / "study.json", content)
    refuse(tmp_path, study, lambda: write_card(study, tmp_path / "card.md"))
