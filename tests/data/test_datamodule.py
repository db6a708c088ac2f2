"""The data modules as a library: without Hydra, with the defaults of ``conf/``."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from fer.core import labels
from fer.core.errors import ConfigError
from fer.data.datamodule import EmotionDataModule
from fer.data.drawn.synthetic import generate
from fer.data.prepared import FORMAT
from fer.data.published import FER2013DataModule, RAFDBDataModule
from fer.data.readers.base import FolderSource, RawDataset, Reader, Record, is_image, list_files
from fer.data.readers.fer2013 import FER2013Reader
from fer.tasks.assembly import make_data, make_model
from tests.conftest import compose, write_file, write_rafdb


def plain(data: EmotionDataModule) -> dict[str, Any]:
    """Everything that a data module was made with, comparable."""
    kept = {key: value for key, value in vars(data).items() if not key.startswith("_")}
    augmentation, preparation = kept.pop("transforms"), vars(kept.pop("preparation")).copy()
    preparation.pop("report")  # the command line's own: a library writes no page
    fetches = preparation.pop("download") is not None
    return {**preparation, **kept, "fetches": fetches, "augments": bool(augmentation)}


@pytest.mark.parametrize(
    ("made", "choice"), [(FER2013DataModule, "fer2013"), (RAFDBDataModule, "rafdb")]
)
@pytest.mark.parametrize("variable", [None, "elsewhere", ""])
def test_the_defaults_of_the_classes_are_those_of_the_configuration(
    made: type[EmotionDataModule], choice: str, variable: str | None, monkeypatch: Any
) -> None:
    if variable is None:
        monkeypatch.delenv("FER_DATA")
    else:
        monkeypatch.setenv("FER_DATA", variable)
    data: EmotionDataModule = made()  # type: ignore[call-arg]
    assert data.folder == Path(variable or "data") / choice
    if variable == "":  # which the command line takes out of the environment
        monkeypatch.delenv("FER_DATA")
    cfg = compose(f"dataset={choice}")
    composed = make_data(cfg, make_model(cfg.model))
    assert plain(data) == plain(composed)


@pytest.mark.usefixtures("tiny_ready")
def test_the_default_policy_is_the_one_of_the_configuration(tmp_path: Path, tiny_zip: Path) -> None:
    cfg = compose("dataset=fer2013", f"dataset.raw={tiny_zip}", "seed=3")
    composed = make_data(cfg, make_model(cfg.model))
    data = FER2013DataModule(tmp_path / "d", raw=tiny_zip, seed=3)
    first = []
    for one in (composed, data):
        one.prepare_data()
        one.setup("fit")
        loader = one.train_dataloader()
        loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
        first.append(next(iter(loader)))
    assert torch.equal(first[0][0], first[1][0]) and torch.equal(first[0][1], first[1][1])
    original = torch.from_numpy(np.array(data.datasets["train"].images)).permute(0, 3, 1, 2)
    assert not any(torch.equal(image, other) for image in first[1][0][:3] for other in original)


@pytest.mark.usefixtures("tiny_ready")
def test_a_policy_is_made_only_when_training_images_are_set_up(
    tmp_path: Path, tiny_zip: Path
) -> None:
    data = FER2013DataModule(tmp_path / "d", raw=tiny_zip, transforms="gone")
    data.prepare_data()
    data.setup("test")
    data.setup("predict")
    assert data.datasets["train"].augmentation is None
    with pytest.raises(ConfigError, match=r"transforms: expected the name .* found 'gone'"):
        data.setup("fit")
    data.transforms = "standard"
    data.setup("fit")
    augmentation = data.datasets["train"].augmentation
    assert augmentation is not None and len(augmentation) == 6
    data.setup()
    assert data.datasets["train"].augmentation is augmentation


@pytest.mark.usefixtures("tiny_ready")
@pytest.mark.parametrize("transforms", [[], "none"])
def test_training_images_can_be_left_as_they_are(
    tmp_path: Path, tiny_zip: Path, transforms: Any
) -> None:
    data = FER2013DataModule(tmp_path / "d", raw=tiny_zip, transforms=transforms)
    data.prepare_data()
    data.setup()
    assert data.datasets["train"].augmentation is None


class Model(pl.LightningModule):
    """Counts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch[0]


def trainer(tmp_path: Path) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip


@pytest.mark.usefixtures("tiny_ready")
def test_a_trainer_tests_and_predicts_the_test_split_in_the_manifests_order(
    tmp_path: Path, tiny_zip: Path
) -> None:
    data = FER2013DataModule(tmp_path / "d", raw=tiny_zip, eval_batch_size=5)
    model = Model()
    trainer(tmp_path).test(model, data, verbose=False)
    dataset = data.split("test")
    expected = torch.from_numpy(np.array(dataset.images)).permute(0, 3, 1, 2)
    assert torch.equal(torch.cat([images for images, _ in model.seen]), expected)
    assert torch.cat([targets for _, targets in model.seen]).tolist() == dataset.targets.tolist()
    predicted = trainer(tmp_path).predict(model, data)
    assert predicted is not None
    assert torch.equal(torch.cat(predicted), expected)  # type: ignore[arg-type]
    manifest = [entry.id for entry in data.prepared.entries if entry.split == "test"]
    assert dataset.ids == manifest


class Place:
    """As much of a trainer as says which process this is."""

    def __init__(self, rank: int, processes: int, distributed: bool = False) -> None:
        self.global_rank = rank
        self.world_size = processes
        self._accelerator_connector = self
        self.use_distributed_sampler = distributed


@pytest.mark.usefixtures("tiny_ready")
@pytest.mark.parametrize("name", ["val_dataloader", "test_dataloader", "predict_dataloader"])
def test_processes_share_out_each_split_without_repeating_an_image(
    tmp_path: Path, tiny_zip: Path, name: str
) -> None:
    data = FER2013DataModule(tmp_path / "d", raw=tiny_zip, eval_batch_size=5)
    data.setup("test")
    rows: list[list[int]] = []
    for rank in range(3):
        data.trainer = Place(rank, 3)  # type: ignore[assignment]
        batches = list(getattr(data, name)().batch_sampler)
        assert len(batches) == 3
        rows += batches
    assert sorted(row for batch in rows for row in batch) == list(range(14))
    data.trainer = Place(0, 15)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"at most loader.eval_batch_size=5 and the 14 "):
        getattr(data, name)()


@pytest.mark.usefixtures("tiny_ready")
def test_lightning_may_not_share_out_again(tmp_path: Path, tiny_zip: Path) -> None:
    data = FER2013DataModule(tmp_path / "d", raw=tiny_zip, transforms=[])
    data.setup()
    data.trainer = Place(0, 2, distributed=True)  # type: ignore[assignment]
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        with pytest.raises(ConfigError, match="expected use_distributed_sampler=False"):
            getattr(data, name)()
    data.trainer = Place(0, 1, distributed=True)  # type: ignore[assignment]
    assert len(data.val_dataloader()) == 1


# --- a reader of one's own -----------------------------------------------------------------------


class Plain(Reader):
    """The least that a reader can be."""

    def list(self, raw: Path) -> RawDataset:
        records = []
        for name in filter(is_image, list_files(raw)):
            split, emotion, file = name.split("/")
            records.append(Record(f"{split}_{file[:-4]}", emotion, split, name, name))
        return RawDataset(FolderSource(raw), "faces", records)


def faces(folder: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """One face of each emotion in each split, gray as the emotion's number."""
    from tests.conftest import to_png

    for split in splits:
        for number, emotion in enumerate(labels.EMOTIONS):
            image = np.full((20, 20), 20 * number, np.uint8)
            image[5:9, len(split) :] = 255
            write_file(folder / split / emotion / f"{number}.png", to_png(image))
    return folder


def test_a_readers_own_dataset_needs_its_name_and_nothing_else(tmp_path: Path) -> None:
    data = EmotionDataModule("mine", reader=Plain(), raw=faces(tmp_path / "raw"))
    assert data.folder == tmp_path / "data/mine"  # FER_DATA of the tests
    data.prepare_data()
    data.setup()
    for split in ("train", "val", "test"):
        assert data.datasets[split].targets.tolist() == sorted(
            range(7), key=lambda index: labels.EMOTIONS[index]
        )
        first = data.datasets[split].images[:, 0, 0, 0]
        assert first.tolist() == [20 * target for target in data.datasets[split].targets]
    assert data.prepared.integrity["matches_official_counts"] is None
    assert data.prepared.integrity["official_protocol"] is False


@pytest.mark.parametrize("form", ["folder", "archive", "empty", "missing"])
def test_raw_data_in_its_place_is_found_without_a_word_of_the_reader(
    tmp_path: Path, form: str
) -> None:
    place = tmp_path / "data/mine/raw"
    expected: Path | None = None
    if form == "folder":
        expected = faces(place)
    elif form == "archive":
        expected = write_file(place / "faces.zip", b"")
    elif form == "empty":
        place.mkdir(parents=True)
    assert Plain().find(place) == expected
    if expected is None:
        data = EmotionDataModule("mine", reader=Plain())
        with pytest.raises(ValueError, match=r"(?s)mine: expected .*dataset\.raw=PATH"):
            data.prepare_data()


def test_a_reader_that_cannot_list_is_none() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Reader()  # type: ignore[abstract]
    with pytest.raises(ConfigError, match=r"dataset.reader: expected a .*Reader, .*found <class"):
        EmotionDataModule("mine", reader=Plain)  # type: ignore[arg-type]


class Wrong(Plain):
    """Lists something else than records of images."""

    def __init__(self, listed: Any) -> None:
        self._listed = listed

    def list(self, raw: Path) -> Any:
        dataset = super().list(raw)
        return self._listed(dataset) if callable(self._listed) else self._listed


def changed(**changes: Any) -> Any:
    """A listing whose first record says something else."""

    def change(dataset: RawDataset) -> RawDataset:
        dataset.records[0] = replace(dataset.records[0], **changes)
        return dataset

    return change


def with_records(records: Any) -> Any:
    """A listing of other records."""

    def change(dataset: RawDataset) -> RawDataset:
        dataset.records = records(dataset.records)
        return dataset

    return change


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (changed(emotion="contempt"), "expected as emotion angry, .*, found 'contempt'"),
        (changed(emotion="Happy"), "expected as emotion angry, .*, found 'Happy'"),
        (changed(emotion=3), "expected as emotion angry, .*, found '3'"),
        (changed(emotion=["sad"]), "expected as emotion angry, "),
        (changed(split="dev"), "expected as split train, val, test, found 'dev'"),
        (changed(split=None), "expected as split train, val, test, found 'None'"),
        (changed(id="a/b"), "expected as id one that safe_id.* made, found 'a/b'"),
        (changed(id=""), "expected as id one that safe_id.* made, found ''"),
        (changed(id=7), "expected as id one that safe_id.* made, found '7'"),
        (with_records(lambda records: [*records, records[0]]), "expected as id each id once"),
        (with_records(lambda records: []), "expected a record for each image, found an empty list"),
        (with_records(lambda records: ["a.png"]), "each a Record, found 'a.png'"),
        (None, r"expected a RawDataset from list\(\), found None"),
        ([], r"expected a RawDataset from list\(\), found \[\]"),
    ],
)
def test_what_a_reader_gets_wrong_is_one_message_that_names_it(
    tmp_path: Path, listed: Any, message: str
) -> None:
    from fer.core.errors import DataError

    data = EmotionDataModule("mine", reader=Wrong(listed), raw=faces(tmp_path / "raw"))
    with pytest.raises(DataError, match=rf"^Wrong: .*{message}.*[Cc]orrect the reader"):
        data.prepare_data()
    assert not (data.folder / "manifest.csv").exists()


def test_a_split_that_a_reader_does_not_list_is_named(tmp_path: Path) -> None:
    raw = faces(tmp_path / "raw", ("train", "test"))
    data = EmotionDataModule("mine", reader=Plain(), raw=raw)
    data.prepare_data()
    data.setup()
    with pytest.raises(ValueError, match="splits train, val and test, found none for 'val'"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="mine: expected images in its val split, found none"):
        data.val_dataloader()
    assert len(data.test_dataloader()) > 0


class Optioned(Plain):
    """A reader with options of every kind."""

    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)


ODD = {"pair": (1, 2), "names": {"a": ["b", None]}, "path": Path("x/y"), "share": 0.5, "on": True}


def test_options_of_every_kind_are_found_again(tmp_path: Path) -> None:
    raw = faces(tmp_path / "raw")

    def prepared(**changes: Any) -> int:
        data = EmotionDataModule("mine", reader=Optioned(**{**ODD, **changes}), raw=raw)
        data.prepare_data()
        return (data.folder / "manifest.csv").stat().st_mtime_ns

    first = prepared()
    assert prepared() == first
    assert prepared(_cache=object()) == first  # no option
    assert prepared(pair=(1, 3)) > first
    origin = json.loads((tmp_path / "data/mine/integrity.json").read_text())["origin"]
    assert origin["reader"] == {
        "class": "Optioned",
        **{"pair": [1, 3], "names": {"a": ["b", None]}, "path": "x/y", "share": 0.5, "on": True},
    }


def test_an_option_that_no_file_can_hold_is_named(tmp_path: Path) -> None:
    data = EmotionDataModule("mine", reader=Optioned(source=object()), raw=faces(tmp_path / "raw"))
    for act in (data.prepare_data, data.describe):
        with pytest.raises(ConfigError, match=r"dataset.reader.source: expected text, numbers"):
            act()


def test_the_origin_of_prepared_data_is_what_it_was(tmp_path: Path) -> None:
    """What an earlier version of this program has prepared is not prepared again."""
    draw = functools.partial(generate, name="synthetic_a", train=14, val=7, test=7, seed=0)
    drawn = FER2013DataModule(tmp_path / "a", name="synthetic_a", generator=draw)
    raf = RAFDBDataModule(tmp_path / "b", raw=write_rafdb(tmp_path / "raw"))
    for data in (drawn, raf):
        data.prepare_data()
    origins = [
        json.loads((tmp_path / f"{one}/integrity.json").read_text())["origin"] for one in "ab"
    ]
    assert origins == [
        {
            "reader": {
                "class": "FER2013Reader",
                "val_fraction": 0.1,
                "split_seed": 0,
                "splits": "given",
            },
            "generator": {"name": "synthetic_a", "train": 14, "val": 7, "test": 7, "seed": 0},
            "undecodable": "error",
            "format": FORMAT,
        },
        {
            "reader": {
                "class": "RAFDBReader",
                "val_fraction": 0.1,
                "split_seed": 0,
                "images": "auto",
                "margin": 0.1,
                "align_eyes": False,
            },
            "generator": None,
            "undecodable": "error",
            "format": FORMAT,
        },
    ]


# --- what a checkpoint says of it ----------------------------------------------------------------


@pytest.mark.usefixtures("tiny_ready")
def test_a_data_module_describes_itself_in_plain_values(tmp_path: Path, tiny_zip: Path) -> None:
    reader = FER2013Reader(val_fraction=0.25, split_seed=4)
    data = FER2013DataModule(tmp_path / "d", raw=tiny_zip, reader=reader, leaks="drop_from_train")
    described = data.describe()
    assert described == {
        "choice": "fer2013",
        "name": "fer2013",
        "generator": None,
        "reader": {"val_fraction": 0.25, "split_seed": 4, "splits": "given"},
        "options": {
            "undecodable": "error",
            "faces": None,
            "leaks": "drop_from_train",
            "blank": "keep",
            "conflicts": "keep",
            "fold": None,
            "accept_altered": False,
        },
        "fingerprint": None,
        "identity": None,
    }
    data.prepare_data()
    data.setup()
    fingerprint = data.prepared.integrity["fingerprint"]
    assert data.describe() == {**described, "fingerprint": fingerprint}
    draw = functools.partial(generate, name="synthetic_a", train=9, val=7, test=7, seed=2)
    drawn = FER2013DataModule(name="faces", generator=draw, choice="synthetic_a").describe()
    assert (drawn["choice"], drawn["name"]) == ("synthetic_a", "faces")
    assert drawn["generator"] == {"name": "synthetic_a", "train": 9, "val": 7, "test": 7, "seed": 2}
    assert json.loads(json.dumps(drawn)) == drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "loader.batch_size: .*from 1, found 0"),
        ({"num_workers": 1.5}, "loader.num_workers: .*found 1.5"),
        ({"leaks": "drop"}, "dataset.leaks: expected one of keep, drop_from_train, found 'drop'"),
        ({"undecodable": None}, "dataset.undecodable: expected one of error, drop, found None"),
        ({"workers": 0}, "dataset.workers: .*found 0"),
        ({"name": "../x"}, "dataset.name: .*found '../x'"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"generator": generate}, "dataset.generator: expected a choice"),
    ],
)
def test_the_constructor_names_the_value_that_cannot_work(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        FER2013DataModule(**options)
