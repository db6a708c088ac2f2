"""Folds for cross-validation: every image is measured once, and its copies stay with it."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer.core import labels
from fer.core.errors import ConfigError
from fer.data.datamodule import EmotionDataModule
from fer.data.folds import assign_folds, refold
from fer.data.manifest import Entry
from fer.data.readers.base import SPLITS
from fer.data.readers.folder import FolderReader
from fer.tasks.notes import notes_on
from tests.conftest import to_png

PERSONS = 8


def entry(number: int, emotion: str, **more: str) -> Entry:
    return Entry(f"{number}", emotion, "train", f"{number}.png", f"{number:064x}", **more)


@given(
    data=st.data(),
    count=st.integers(3, 7),
    images=st.lists(st.sampled_from(labels.EMOTIONS[:3]), min_size=40, max_size=90),
)
@settings(max_examples=40, deadline=None)
def test_folds_have_equal_classes_and_no_copies_across(
    data: st.DataObject, count: int, images: list[str]
) -> None:
    entries = [entry(number, emotion) for number, emotion in enumerate(images)]
    copied = data.draw(st.integers(0, 10))
    entries += [entry(i, one.emotion) for i, one in enumerate(entries[:copied])]
    if any(n < count for n in Counter(images).values()):
        return
    folds = assign_folds(entries, count, seed=0)
    where: dict[str, int] = {}
    for one, fold in zip(entries, folds.tolist(), strict=True):
        assert where.setdefault(one.sha256, fold) == fold
    for emotion in set(images):
        own = np.array([one.emotion == emotion for one in entries])
        sizes = np.bincount(folds[own], minlength=count)
        assert sizes.max() - sizes.min() <= 2
    order = data.draw(st.permutations(range(len(entries))))
    again = assign_folds([entries[i] for i in order], count, seed=0)
    assert again.tolist() == folds[order].tolist()


def test_near_duplicates_and_persons_stay_together() -> None:
    rng = np.random.default_rng(0)
    for other in range(1, 30):  # each in turn looks like the first, and has another emotion
        hashes = [rng.bytes(16).hex() for _ in range(30)]
        hashes[other] = f"{int(hashes[0], 16) ^ 0b111:032x}"
        entries = [entry(i, labels.EMOTIONS[i % 3], phash=hashes[i]) for i in range(30)]
        folds = assign_folds(entries, 3, seed=0)
        assert folds[0] == folds[other]
        assert len(set(folds.tolist())) == 3
    persons = [entry(i, labels.EMOTIONS[i % 3], person=f"p{i // 5}") for i in range(60)]
    folds = assign_folds(persons, 4, seed=0)
    shown: dict[str, set[int]] = {}
    for one, fold in zip(persons, folds.tolist(), strict=True):
        shown.setdefault(one.person, set()).add(fold)
    assert all(len(places) == 1 for places in shown.values())
    assert assign_folds(persons, 4, seed=1).tolist() != folds.tolist()


def test_an_emotion_that_is_rare_in_each_person_is_dealt_out_too() -> None:
    for seed in range(20):
        entries = [entry(4 * p + i, "happy", person=f"p{p}") for p in range(30) for i in range(4)]
        entries += [entry(1000 + p, "fear", person=f"p{p}") for p in range(6)]
        folds = assign_folds(entries, 3, seed)
        assert np.bincount(folds[-6:], minlength=3).tolist() == [2, 2, 2]


def test_too_many_folds_are_refused_before_anything_is_trained() -> None:
    entries = [entry(i, labels.EMOTIONS[i % 2]) for i in range(20)]
    entries += [entry(0, "happy") for _ in range(20)]  # of one image
    with pytest.raises(
        ConfigError, match=r"each of the 3 folds, .* found too few of happy \(20 images\)"
    ):
        assign_folds(entries, 3, seed=0)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of noise, 16 images of each emotion, two of each person."""
    folder = tmp_path_factory.mktemp("folds") / "raw"
    folder.mkdir()
    rng = np.random.default_rng(0)
    (folder / "notes.txt").write_text("none of the images")
    (folder / "more.txt").write_text("neither")
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "who"])
        for number in range(16 * labels.NUM_CLASSES):
            pixels = rng.integers(0, 256, (24, 24), dtype=np.uint8)
            (folder / f"{number:03d}.png").write_bytes(to_png(pixels))
            emotion = labels.EMOTIONS[number % labels.NUM_CLASSES]
            table.writerow([f"{number:03d}.png", emotion, f"p{number // 14}"])
    return folder


def module(faces: Path, fold: str | None, person: str | None = "who") -> EmotionDataModule:
    data = EmotionDataModule(
        "mine", faces.parent / f"prepared_{person}", reader=FolderReader(person=person), raw=faces,
        image_size=24, transforms=[], fold=fold,
    )  # fmt: skip
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("person", ["who", None])
def test_every_image_is_measured_once(faces: Path, person: str | None) -> None:
    plain = module(faces, None, person)
    pixels = dict(zip(*known(plain), strict=True))
    measured: list[str] = []
    for number in range(1, 5):
        data = module(faces, f"{number}/4", person)
        ids, images = known(data)
        assert len(ids) == len(set(ids)) == len(pixels)
        assert all(np.array_equal(image, pixels[id]) for id, image in zip(ids, images, strict=True))
        measured += data.split("test").ids
        persons = [{entry.person for entry in data.entries(split)} for split in SPLITS]
        assert persons == [{""}] * 3 or not set.intersection(*persons[:2])
        own = data.prepared.integrity["counts"]["test"]
        assert Counter(entry.emotion for entry in data.entries("test")) == Counter(own)
        assert data.describe()["options"]["fold"] == f"{number}/4"
        kept = sorted((data.folder / ".cache").iterdir())
        assert np.array_equal(data.images("test", 24), data.split("test").images)
        assert sorted((data.folder / ".cache").iterdir()) == kept  # nothing is decoded again
        assert [e.id for e in data.entries("val", "test")] == list(data.split("val+test").ids)
        notes = " ".join(notes_on(data))
        assert f"fold {number} of 4 is test" in notes
        assert "2 files are not images" in notes  # what else the reader has to say
        assert "held out" not in notes and "more than one split" not in notes
    assert sorted(measured) == sorted(pixels)


def known(data: EmotionDataModule) -> tuple[list[str], np.ndarray]:
    """Ids and images of all splits."""
    whole = data.split("train+val+test")
    return whole.ids, whole.images


def test_who_is_shown_must_be_known(faces: Path, tmp_path: Path) -> None:
    data = module(faces, None)
    manifest = data.folder / "manifest.csv"
    rows = list(csv.DictReader(manifest.open()))
    assert {row["person"] for row in rows} == {f"p{i}" for i in range(PERSONS)}
    assert "person" not in (module(faces, None, None).folder / "manifest.csv").read_text()[:200]
    without = [replace(one, person="") for one in data.prepared.entries]
    with pytest.raises(ConfigError, match=r"expected a prepared dataset that says who is shown"):
        refold(replace(data.prepared, entries=without), "1/3", data.reader)


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/2", "2 of 5", 2, "1/99999"])
def test_what_is_no_fold_is_refused(faces: Path, fold: object) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.fold: expected one of three folds or more"):
        module(faces, fold)  # type: ignore[arg-type]
