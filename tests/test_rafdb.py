from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fer.data import rafdb
from fer.data.prepare import Prepared, prepare
from fer.data.rafdb import RAFDBReader
from fer.errors import DataError
from tests.conftest import write_rafdb

EMOTION_OF_COLOUR = {
    30: "surprise", 60: "fear", 90: "disgust", 120: "happy", 150: "sad", 180: "angry",
    210: "neutral",
}  # fmt: skip
"""write_rafdb paints the top of each face in 30 times its RAF-DB code."""


def prepare_rafdb(folder: Path, raw: Path) -> Prepared:
    return prepare("rafdb", folder, RAFDBReader(val_fraction=0.2), raw=raw)


@pytest.mark.parametrize("mirror", [False, True], ids=["authors", "mirror"])
def test_labels_are_mapped_by_name_in_both_layouts(tmp_path: Path, mirror: bool) -> None:
    prepared = prepare_rafdb(tmp_path / "d", write_rafdb(tmp_path / "raw", mirror=mirror))
    for index, entry in enumerate(prepared.entries):
        image = prepared.read(index)
        assert image.shape == (20, 20, 3)
        assert EMOTION_OF_COLOUR[int(image[0, 0, 0])] == entry.emotion


def test_both_layouts_prepare_to_the_same_dataset(tmp_path: Path) -> None:
    one = prepare_rafdb(tmp_path / "a", write_rafdb(tmp_path / "basic"))
    two = prepare_rafdb(tmp_path / "b", write_rafdb(tmp_path / "other", mirror=True))
    assert one.integrity["fingerprint"] == two.integrity["fingerprint"]


def test_validation_is_held_out_of_train_and_test_is_the_official_one(tmp_path: Path) -> None:
    prepared = prepare_rafdb(tmp_path / "d", write_rafdb(tmp_path / "raw", per_class=5))
    counts = Counter((entry.split, entry.emotion) for entry in prepared.entries)
    assert set(counts.values()) == {4, 1, 5}
    assert all(
        entry.id.startswith("test_") == (entry.split == "test") for entry in prepared.entries
    )


def test_the_hold_out_does_not_depend_on_the_order_of_the_list(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw")
    first = prepare_rafdb(tmp_path / "a", raw)
    path = raw / rafdb.LIST_FILE
    lines = path.read_text().splitlines()
    random.Random(0).shuffle(lines)
    path.write_text("\r\n".join(lines))
    second = prepare_rafdb(tmp_path / "b", raw)
    assert {e.id: e.split for e in first.entries} == {e.id: e.split for e in second.entries}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_00099.jpg 3", r"line 71: expected the image .*train_00099_aligned.jpg"),
        ("train_00001.jpg 1", r"line 71: expected each image once, found 'train_00001' again"),
        ("train_00001.jpg", r"line 71: expected an image name and a label"),
    ],
)
def test_a_wrong_line_of_the_label_list_is_named(tmp_path: Path, line: str, message: str) -> None:
    raw = write_rafdb(tmp_path / "raw")
    with (raw / rafdb.LIST_FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        prepare_rafdb(tmp_path / "d", raw)


def test_an_unknown_code_is_named(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw")
    path = raw / rafdb.LIST_FILE
    path.write_text(path.read_text().replace("train_00001.jpg 1", "train_00001.jpg 8"))
    with pytest.raises(DataError, match=r"line 1: expected a label from 1 to 7, found '8'"):
        prepare_rafdb(tmp_path / "d", raw)


def test_an_image_in_two_class_folders_is_refused(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", mirror=True)
    Image.new("RGB", (20, 20)).save(raw / "DATASET/train/7/train_00001_aligned.jpg")
    with pytest.raises(DataError, match=r"found 'train_00001' in two"):
        prepare_rafdb(tmp_path / "d", raw)


def test_a_folder_that_is_no_rafdb_is_answered_with_both_layouts(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"(?s)list_patition_label.txt.*DATASET/train"):
        prepare_rafdb(tmp_path / "d", tmp_path / "raw")
