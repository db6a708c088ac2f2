"""The whole way of a dataset that somebody brings along: a reader of theirs, and a short YAML."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from fer.core import labels
from fer.core.errors import CheckpointError, ConfigError, FerError
from fer.model.checkpoint import Checkpoint, load_checkpoint
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN
from fer.tasks.assembly import make_data, with_dataset_of
from tests.conftest import compose, run_program, to_png, write_file

pytestmark = pytest.mark.slow  # trainings

READER = '''
"""Faces at <split>/<class>/<prefix><number>.png, with classes and a val split of any name."""

from dataclasses import dataclass

from fer.core import labels
from fer.data.readers.base import FolderSource, RawDataset, Reader, Record, list_files, make_ids


@dataclass(frozen=True)
class MyReader(Reader):
    classes: dict | None = None
    dev: list | None = None
    prefix: str = ""
    most: int | None = None
    share: float = 1.0
    colour: bool = False

    def list(self, raw):
        names, splits, emotions = [], [], []
        for name in list_files(raw):
            split, emotion, file = name.split("/")
            if file.startswith(self.prefix) and (self.most is None or len(names) < self.most):
                names.append(name)
                splits.append("val" if split in (self.dev or ()) else split)
                emotions.append(labels.canonical(emotion, self.classes))
        ids = make_ids(names, emotions)
        rows = zip(ids, emotions, splits, names)
        records = [Record(i, e, s, source=name, location=name) for i, e, s, name in rows]
        return RawDataset(FolderSource(raw, "RGB" if self.colour else "L"), "my faces", records)
'''

YAML = """
defaults: [base]
name: mine
epochs: 2
reader:
  _target_: my_faces.MyReader
  classes: null
  dev: null
  prefix: ""
  most: 1000
  share: 1.0
  colour: false
"""

GIVEN = {
    "classes": {"mad": "angry", "Joyous": "happy"},
    "dev": ["devel", "more of it"],
    "prefix": "face_",
    "most": None,
    "share": 0.25,
    "colour": True,
}
"""Of every type, and none of them what the YAML says."""
OPTIONS = [
    "dataset.reader.classes={mad: angry, Joyous: happy}",
    "dataset.reader.dev=[devel, more of it]", "dataset.reader.prefix=face_",
    "dataset.reader.most=null", "dataset.reader.share=0.25", "dataset.reader.colour=true",
]  # fmt: skip
TINY = ["model.widths=[4,8]", "model.image_size=16", "metrics.resamples=100", "loader.batch_size=7",
        "trainer.progress_bar=false"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stranger's module, configuration and faces, and a network trained on them."""
    folder = tmp_path_factory.mktemp("stranger")
    assert len(yaml.safe_load(YAML)) <= 5
    write_file(folder / "code/my_faces.py", READER.encode())
    write_file(folder / "menu/dataset/mine.yaml", YAML.encode())
    rng = np.random.default_rng(0)
    for split in ("train", "devel", "test"):
        for emotion in labels.EMOTIONS:
            name = {"angry": "mad", "happy": "Joyous"}.get(emotion, emotion)
            for number in range(4):
                image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                prefix = "face_" if number < 3 else "spoilt_"
                write_file(folder / f"raw/{split}/{name}/{prefix}{number}.png", to_png(image))
    run(folder, "-m", "fer", "prepare", "dataset=mine", "dataset.raw=raw", *OPTIONS)
    run(folder, "train.py", "dataset=mine", "dataset.raw=raw", *OPTIONS, *TINY, "hydra.run.dir=run")
    return folder


def run(place: Path, *command: str, check: bool = True) -> str:
    """A command as the stranger gives it: their module on the path, their menu beside ours."""
    program = [command[0]] if command[0].endswith(".py") else list(command[:3])
    path = os.pathsep.join([str(place / "code"), os.environ.get("PYTHONPATH", "")])
    done = run_program(
        *program, "--config-dir", str(place / "menu"), *command[len(program) :], cwd=place,
        check=check, env={"FER_DATA": str(place / "data"), "PYTHONPATH": path},
    )  # fmt: skip
    return done.stdout + done.stderr


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_it_is_prepared_once_and_trains_for_its_own_number_of_epochs(place: Path) -> None:
    integrity = read(place / "data/mine/integrity.json")
    assert integrity["origin"]["reader"] == {"class": "MyReader", **GIVEN}
    assert {split: sum(row.values()) for split, row in integrity["counts"].items()} == {
        "train": 21, "val": 21, "test": 21,
    }  # fmt: skip
    record = read(place / "run/run.json")
    assert record["epochs"] == 2 and record["dataset"]["images"]["train"] == 21
    assert record["dataset"]["fingerprint"] == integrity["fingerprint"]
    # Preparing alone came first, and training has found what it left.
    log = (place / "run/train.log").read_text()
    assert "Training SharedCNN" in log and "Preparing" not in log
    page = (place / "run/report.html").read_text()
    assert "mine: SharedCNN" in page


def test_its_checkpoint_holds_its_readers_options_as_they_are(place: Path) -> None:
    content = torch.load(place / "run/checkpoints/best.ckpt", weights_only=True)
    described = content["fer"]["dataset"]
    assert (described["choice"], described["name"]) == ("mine", "mine")
    assert described["reader"] == GIVEN and described["generator"] is None


def test_its_checkpoint_is_evaluated_without_saying_what_it_was_trained_on(place: Path) -> None:
    run(place, "evaluate.py", "checkpoint=run/checkpoints/best.ckpt", "hydra.run.dir=again",
        "metrics.resamples=100")  # fmt: skip
    assert read(place / "again/metrics.json") == read(place / "run/metrics.json")
    reader = read(place / "again/run.json")["config"]["dataset"]["reader"]
    assert reader == {"_target_": "my_faces.MyReader", **GIVEN}


def hostile(place: Path, name: str, **reader: Any) -> str:
    """The checkpoint with other options of its reader."""
    content = torch.load(place / "run/checkpoints/best.ckpt", weights_only=True)
    content["fer"]["dataset"]["reader"].update(reader)
    torch.save(content, place / name)
    return f"checkpoint={name}"


@pytest.mark.parametrize(
    "reader",
    [
        {"prefix": "${oc.env:SECRET}"},
        {"dev": ["devel", "${oc.env:SECRET}"]},
        {"classes": {"_target_": "os.mkdir", "path": "executed"}},
    ],
    ids=["an interpolation", "one in a list", "a class to call"],
)
def test_a_hostile_checkpoint_of_it_is_refused(
    place: Path, reader: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "face_")
    checkpoint = hostile(place, "hostile.ckpt", **reader)
    said = run(place, "evaluate.py", checkpoint, "hydra.run.dir=hostile", check=False)
    assert f"expected data as its dataset's option {min(reader)}, found" in said
    assert "Traceback" not in said
    assert not (place / "executed").exists() and not (place / "hostile/metrics.json").exists()


def test_what_is_none_of_its_readers_options_stays_out_of_its_reader(place: Path) -> None:
    odd: dict[str, Any] = {"_target_": "os.mkdir", "_args_": ["executed"], "path": "${oc.env:HOME}"}
    run(place, "evaluate.py", hostile(place, "odd.ckpt", **odd), "hydra.run.dir=odd",
        "metrics.resamples=100")  # fmt: skip
    assert read(place / "odd/metrics.json") == read(place / "run/metrics.json")
    assert not (place / "executed").exists()


def test_a_dataset_that_is_not_there_is_asked_for(place: Path) -> None:
    done = run_program(
        "evaluate.py", "checkpoint=run/checkpoints/best.ckpt", cwd=place, check=False,
        env={"FER_DATA": str(place / "data")},
    )  # fmt: skip
    assert "expected to find its dataset's configuration 'mine'" in done.stderr
    assert "Choose one: dataset=NAME" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_cannot_be_imported_is_named(place: Path) -> None:
    said = run(
        place, "-m", "fer", "prepare", "dataset=mine", "dataset.reader._target_=my_face.MyReader",
        check=False,
    )  # fmt: skip
    assert "my_face" in said and "dataset.reader" in said and "Traceback" not in said


# --- options that come from checkpoints ----------------------------------------------------------


def trained_on(choice: str, **parts: Any) -> Checkpoint:
    """A checkpoint as far as its dataset goes."""
    dataset: dict[str, Any] = {
        "choice": choice,
        "name": choice,
        "generator": None,
        "reader": {},
        "options": {},
    }
    network = NormalisedNetwork(SharedCNN(widths=[4, 4], image_size=16))
    extras: Any = {"dataset": {**dataset, **parts}}
    return Checkpoint(Path("x.ckpt"), network, extras, 0)


def of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The dataset's configuration for its evaluation."""
    cfg = with_dataset_of(compose("checkpoint=x.ckpt", config="evaluate"), checkpoint)
    content: Any = OmegaConf.to_container(cfg.dataset, resolve=True)
    assert isinstance(make_data(cfg, checkpoint.network).describe(), dict)  # it can be built
    return dict(content)


def test_checkpoints_of_earlier_versions_keep_the_options_of_own_faces() -> None:
    own = {"drop_unknown": True, "synonyms": {"mad": "angry"}}
    for parts in (
        {"options": {**own, "leaks": "drop_from_train"}, "reader": {**own, "val_fraction": 0.3}},
        {"options": {"leaks": "drop_from_train"}, "reader": {**own, "val_fraction": 0.3}},
    ):
        found = of(trained_on("folder", **parts))
        assert found["leaks"] == "drop_from_train"
        assert {key: found[key] for key in own} == own
        assert {key: found["reader"][key] for key in own} == own
        assert found["reader"]["val_fraction"] == 0.3


def test_a_checkpoint_keeps_how_its_table_and_its_faces_were_read() -> None:
    options = {"faces": "crop", "conflicts": "drop"}
    reader = {"columns": {"label": "emotion"}, "conflicts": "drop"}
    found = of(trained_on("folder", options=options, reader=reader))
    assert found.items() >= {**options, "columns": reader["columns"]}.items()
    assert found["reader"].items() >= reader.items()


def test_the_pretrained_network_finds_its_dataset() -> None:
    checkpoint = load_checkpoint("pretrained")
    cfg = with_dataset_of(compose("checkpoint=pretrained", config="evaluate"), checkpoint)
    plain = compose("dataset=fer2013").dataset
    assert OmegaConf.to_container(cfg.dataset) == OmegaConf.to_container(plain)


def test_a_checkpoint_does_not_say_where_a_file_lies() -> None:
    found = of(trained_on("ferplus", reader={"rule": "plurality", "votes": "somewhere/else.csv"}))
    assert (found["reader"]["rule"], found["reader"]["votes"]) == ("plurality", None)


def test_a_drawn_datasets_own_sizes_come_back() -> None:
    sizes = {"name": "synthetic_a", "train": 70, "val": 14, "test": 14, "seed": 3}
    assert of(trained_on("synthetic_a", generator=sizes))["generator"].items() >= sizes.items()


@pytest.mark.parametrize(
    "parts",
    [
        {"reader": {"synonyms": {"mad": "${oc.env:HOME}"}}},
        {"reader": {"synonyms": {"${oc.env:HOME}": "sad"}}},
        {"reader": {"synonyms": {"a": [{"_target_": "os.abort"}]}}},
        {"reader": {"split_seed": "???"}},
        {"options": {"leaks": "${.blank}"}},
        {"options": {"synonyms": {"_partial_": True}}},
    ],
)
def test_an_option_that_is_more_than_data_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"x\.ckpt: expected data as its dataset's option"):
        of(trained_on("folder", **parts))


@pytest.mark.parametrize(
    "parts",
    [
        {"reader": {"_target_": "os.abort", "_convert_": "none", "new": "${oc.env:HOME}"}},
        {"options": {"raw": "/etc", "folder": "/tmp/x", "download": True, "_target_": "os.abort"}},
        {"generator": {"_target_": "os.abort", "train": 9}},
        {"options": None, "reader": [], "generator": "x"},
    ],
)
def test_a_checkpoint_has_no_say_in_anything_else(parts: dict[str, Any]) -> None:
    assert of(trained_on("folder", **parts)) == of(trained_on("folder"))


@pytest.mark.parametrize("choice", ["nothing", "null", "1", "a b", "a.b", "base"])
def test_a_choice_that_is_no_dataset_is_refused(choice: str) -> None:
    with pytest.raises(FerError, match=r"dataset=NAME|Choose another dataset than base"):
        of(trained_on(choice))


def test_values_from_a_checkpoint_are_checked_like_any_other() -> None:
    with pytest.raises(ConfigError, match=r"dataset.reader.val_fraction: expected a share .*'x'"):
        of(trained_on("folder", reader={"val_fraction": "x"}))
    with pytest.raises(ConfigError, match=r"dataset.leaks: expected one of keep"):
        of(trained_on("folder", options={"leaks": "x"}))
