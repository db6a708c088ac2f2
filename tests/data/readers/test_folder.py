"""Anybody's own faces: class folders with or without splits, archives, and tables of labels."""

from __future__ import annotations

import json
import os
import random
import shlex
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.options import check_options
from fer.data.preparation import prepare
from fer.data.prepared import Prepared
from fer.data.readers.base import RawDataset, check_classes, make_ids
from fer.data.readers.folder import FolderReader
from fer.data.readers.names import safe_id
from tests.conftest import compose, run_program, to_png
from tests.data.test_images import MODES

SPLITS = ("train", "val", "test")
SPOKEN = {
    "angry": "Anger", "disgust": "Disgusted", "fear": "Fearful", "happy": "Happiness",
    "sad": "Sadness", "surprise": "Surprised", "neutral": "Neutral",
}  # fmt: skip


def write(folder: Path, names: Iterable[str]) -> Path:
    """An image, different from every other, at each name."""
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_png(rng.integers(0, 256, (8, 8), dtype=np.uint8)))
    return folder


def class_names(per_class: int = 10, classes: Iterable[str] = labels.EMOTIONS) -> list[str]:
    return [f"{name}/{number}.png" for name in classes for number in range(per_class)]


def split_names(splits: Mapping[str, int], classes: Iterable[str] = labels.EMOTIONS) -> list[str]:
    """``train/happy/3.png``, so many for each class of each split."""
    return [f"{split}/{name}" for split, n in splits.items() for name in class_names(n, classes)]


FULL = split_names({"train": 4, "val": 2, "test": 2})


def write_table(path: Path, rows: Iterable[Sequence[str]], header: str = "image,label") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def table_rows(per_class: int = 10) -> list[list[str]]:
    return [[f"images/{n}_{e}.png", e] for e in labels.EMOTIONS for n in range(per_class)]


def read(raw: Path, **options: Any) -> RawDataset:
    return FolderReader(**options).list(raw)


def read_to_train(raw: Path) -> RawDataset:
    """What a training asks of the data beyond what measuring does."""
    dataset = read(raw)
    check_classes(raw, [(record.split, record.emotion) for record in dataset.records])
    return dataset


def counts(dataset: RawDataset) -> dict[str, set[int]]:
    """For each split the sizes of its classes."""
    found = Counter((record.split, record.emotion) for record in dataset.records)
    return {split: {found[split, emotion] for emotion in labels.EMOTIONS} for split in SPLITS}


def splits_of(dataset: RawDataset) -> dict[str, str]:
    return {str(record.location): record.split for record in dataset.records}


# --- class folders -------------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["", "dataset/", "archive/My Faces/"])
@pytest.mark.parametrize(
    "names", [SPLITS, ("Training", "Validation", "Testing"), ("TRAIN", "valid", "PrivateTest")]
)
def test_split_folders_are_taken_as_they_are(
    tmp_path: Path, names: tuple[str, ...], around: str
) -> None:
    sizes = dict(zip(names, (3, 2, 1), strict=True))
    raw = write(tmp_path / "raw", (around + name for name in split_names(sizes)))
    dataset = read(raw)
    assert counts(dataset) == {"train": {3}, "val": {2}, "test": {1}}
    assert dataset.warnings == [] and dataset.excluded == {} and not dataset.official_protocol
    for record in dataset.records:
        assert record.emotion in str(record.location)


@pytest.mark.parametrize(
    ("splits", "expected", "message"),
    [
        (["train", "val", "test"], {"train": {10}, "val": {10}, "test": {10}}, None),
        (["train", "test"], {"train": {9}, "val": {1}, "test": {10}}, r"no val split: .*10% of tr"),
        (["train", "val"], {"train": {8}, "val": {10}, "test": {2}}, r"no test split: .*20% of tr"),
        (
            ["train"],
            {"train": {7}, "val": {1}, "test": {2}},
            r"no test and no val split: .*20% of train as test and then 10% of the rest as val "
            r"\(seed 0\)\. This is not an official protocol",
        ),
        ([""], {"train": {7}, "val": {1}, "test": {2}}, r"no test and no val split"),
    ],
    ids=["all", "no val", "no test", "train alone", "classes alone"],
)
def test_a_missing_split_is_held_out_of_train_and_said_so(
    tmp_path: Path, splits: list[str], expected: dict[str, set[int]], message: str | None
) -> None:
    raw = write(tmp_path, (f"{s}/{name}".lstrip("/") for s in splits for name in class_names()))
    dataset = read(raw)
    assert counts(dataset) == expected
    if message is None:
        assert dataset.warnings == []
    else:
        (warning,) = dataset.warnings
        with pytest.raises(DataError, match=message):
            raise DataError(warning)


def test_the_hold_out_does_not_depend_on_folder_archive_or_what_is_around(tmp_path: Path) -> None:
    names = class_names()
    plain = splits_of(read(write(tmp_path / "a", names)))
    around = splits_of(read(write(tmp_path / "b", (f"x/{name}" for name in names))))
    assert {f"x/{name}": split for name, split in plain.items()} == around
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name in random.Random(0).sample(names, len(names)):
            archive.write(tmp_path / "a" / name, name)
    assert splits_of(read(tmp_path / "faces.zip")) == plain
    assert splits_of(read(tmp_path / "a", split_seed=1)) != plain


def test_an_image_stays_where_it_is_when_the_options_of_the_other_split_change(
    tmp_path: Path,
) -> None:
    raw = write(tmp_path, class_names(20))
    few, many = (splits_of(read(raw, val_fraction=share)) for share in (0.1, 0.4))
    assert [n for n in few if few[n] == "test"] == [n for n in many if many[n] == "test"]


def test_accents_are_ranked_alike_in_both_ways_to_store_them(tmp_path: Path) -> None:
    names = [f"{e}/Zoé_{n}.png" for e in labels.EMOTIONS for n in range(6)]
    results = []
    for form in ("NFC", "NFD"):
        raw = write(tmp_path / form, (unicodedata.normalize(form, name) for name in names))
        dataset = read(raw)
        results.append({record.id: record.split for record in dataset.records})
    assert results[0] == results[1]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("images", [3, 4, 50])
def test_no_share_empties_a_split(tmp_path: Path, share: float, images: int) -> None:
    raw = write(tmp_path, class_names(images, ["happy"]) + class_names(3, labels.EMOTIONS))
    for sizes in counts(read(raw, val_fraction=share, test_fraction=share)).values():
        assert 0 not in sizes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            [*class_names(5, labels.EMOTIONS[:1] + labels.EMOTIONS[2:]), "disgust/1.png"],
            r"at least 3 training images .*to hold test and val out of, found 1 of 'disgust'",
        ),
        (
            split_names({"train": 1, "test": 3}),
            r"at least 2 training images .*hold val out of, found 1 of 'angry', 1 of 'disgust'",
        ),
        (class_names(5, labels.EMOTIONS[:6]), r"all seven emotions in 'train', found none of 'neu"),
        (split_names({"val": 3, "test": 3}), r"found none for 'train'"),
        (split_names({"train": 3, "val": 3, "test": 3}, ["happy"]), r"none of 'angry', 'disgust'"),
    ],
    ids=["1 of a class", "1 of each", "class missing", "no train", "one class"],
)
def test_too_few_images_are_answered_with_how_many_are_needed(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_to_train(write(tmp_path, names))


def test_spellings_of_one_emotion_are_merged(tmp_path: Path) -> None:
    raw = write(tmp_path, class_names(3, SPOKEN.values()) + class_names(3))
    dataset = read(raw)
    assert set(Counter(record.emotion for record in dataset.records).values()) == {6}
    assert len({record.id for record in dataset.records}) == 42


def test_images_may_lie_in_subfolders_of_their_class(tmp_path: Path) -> None:
    names = [f"{e}/person {p}/{n}.png" for e in labels.EMOTIONS for p in (1, 2) for n in (1, 2, 3)]
    dataset = read(write(tmp_path, names))
    assert len({record.id for record in dataset.records}) == len(names)
    assert set(Counter(record.emotion for record in dataset.records).values()) == {6}


def test_a_class_beyond_the_seven_is_an_error_with_both_remedies(tmp_path: Path) -> None:
    raw = write(tmp_path, FULL + class_names(3, ["train/Contempt"]) + ["val/contempt/1.png"])
    with pytest.raises(
        DataError, match=r"'contempt' \(4 .*drop_unknown=true.*'dataset.synonyms=\[\"contempt: EM"
    ):
        read(raw)
    dataset = read(raw, drop_unknown=True)
    assert dataset.excluded == {"their class 'contempt' is not one of the seven emotions": 4}
    assert len(dataset.records) == len(FULL)
    merged = read(raw, synonyms={"CONTEMPT": "disgust"})
    assert Counter(r.emotion for r in merged.records)["disgust"] == 8 + 4


@pytest.mark.parametrize("drop_unknown", [False, True])
def test_numbers_as_classes_ask_for_names(tmp_path: Path, drop_unknown: bool) -> None:
    raw = write(tmp_path, class_names(3, "1234567"))
    with pytest.raises(DataError, match=r"class '1'\. Numbers mean.*{1: surprise"):
        read(raw, drop_unknown=drop_unknown)
    meaning: dict[Any, str] = dict(enumerate(labels.EMOTIONS, start=1))
    assert len(read(raw, synonyms=meaning).records) == 21


@pytest.mark.parametrize(
    ("extra", "excluded", "warning"),
    [
        (["train/loose.png", "loose.png"], {"they are in no class folder": 2}, None),
        (["train/happy/notes.txt", "readme.md"], {}, r"2 files are not images .*\(the first: "),
        (["train/happy/.hidden.png", "__MACOSX/train/happy/1.png", ".git/x"], {}, None),
        (["train/happy/Thumbs.db"], {}, None),
    ],
)
def test_what_is_left_out_is_counted(
    tmp_path: Path, extra: list[str], excluded: dict[str, int], warning: str | None
) -> None:
    dataset = read(write(tmp_path, FULL + extra))
    assert len(dataset.records) == len(FULL)
    assert dataset.excluded == excluded
    assert len(dataset.warnings) == (warning is not None)
    if warning is not None:
        assert dataset.warnings[0].startswith("2 files are not images and were left out (1 .md")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"found 0 files, 0 of them images, and the folders none"),
        (["1.png", "2.png"], r"found 2 files, 2 of them images, and the folders none"),
        (["a/1.png", "b/1.png"], r"the folders 'a', 'b'. Rename the folders"),
        (["happy/readme.txt"], r"found 1 files, 0 of them images"),
        (
            [*FULL, "Valdation/happy/1.png"],
            r"of splits alone.*the folders 'Valdation'. Rename",
        ),
        ([*FULL, "happy/1.png"], r"of splits alone.*the folders 'happy'. Rename"),
    ],
)
def test_a_folder_of_another_form_is_answered_with_the_forms(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, names))


def test_a_file_of_another_kind_is_answered_with_the_forms(tmp_path: Path) -> None:
    path = tmp_path / "faces.rar"
    path.touch()
    with pytest.raises(DataError, match=r"(?s)a .zip or a table .csv, found .*'.rar'.*<class>"):
        read(path)


@pytest.mark.parametrize("around", ["2013", "1/faces", "7"])
@pytest.mark.parametrize("names", [class_names(), FULL], ids=["classes", "splits"])
def test_a_number_may_name_the_folder_around_the_classes(
    tmp_path: Path, around: str, names: list[str]
) -> None:
    found = read(write(tmp_path / "raw", [f"{around}/{name}" for name in names]))
    assert len(found.records) == len(names)
    assert {record.emotion for record in found.records} == set(labels.EMOTIONS)


def test_a_damaged_line_of_json_is_answered_with_its_form(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text("not json\n")
    with pytest.raises(DataError, match=r"expected a JSON mapping .*found 'not json' in the first"):
        read(path)


def test_links_are_followed_and_loops_refused(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", FULL)
    (tmp_path / "raw").mkdir()
    for split in SPLITS:
        (tmp_path / "raw" / split).symlink_to(tmp_path / "elsewhere" / split)
    assert len(read(tmp_path / "raw").records) == len(FULL)
    (tmp_path / "raw" / "again").symlink_to(tmp_path / "raw")
    with pytest.raises(DataError, match="leads back to"):
        read(tmp_path / "raw")


ODD_NAMES = ["x" * 246, "y" * 300 if os.name == "nt" else "ы" * 125, "😀 smile", "con", "AUX.face",
             "a b", "a_b", "A_b", "trailing.", "ناس", 'quote"s', "comma, semi;colon", "line\nend",
             "back\\slash", os.fsdecode(b"caf\xe9")]  # fmt: skip


def test_odd_names_are_prepared(tmp_path: Path) -> None:
    names = [f"happy/{name}.png" for name in ODD_NAMES] + class_names(4)
    raw = tmp_path / "raw"
    try:
        write(raw, names)
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses such names")
    prepared = prepare("folder", tmp_path / "d", FolderReader(), raw=raw)
    assert len(prepared.entries) == len(names)
    assert len({entry.id.casefold() for entry in prepared.entries}) == len(names)
    again = prepare("folder", tmp_path / "d", FolderReader(), raw=raw)
    assert again.integrity == prepared.integrity
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name in names:
            if name.isprintable() and "\\" not in name:
                archive.write(raw / name, name)
    assert len(prepare("z", tmp_path / "z", FolderReader(), raw=tmp_path / "odd.zip").entries) > 30


def test_names_that_differ_only_in_how_accents_are_stored_are_refused(tmp_path: Path) -> None:
    both = [f"happy/{unicodedata.normalize(form, 'é')}.png" for form in ("NFC", "NFD")]
    raw = write(tmp_path, class_names(3) + both)
    if len(list((raw / "happy").iterdir())) < 5:
        pytest.skip("this file system takes the two for one")
    with pytest.raises(DataError, match=r"differ only in how accents are stored"):
        read(raw)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "an empty file"), (b"not an image", "no known format")],
)
def test_an_image_that_does_not_decode_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    raw = write(tmp_path / "raw", FULL)
    (raw / "train/happy/0.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"train/happy/0\.png: expected an image .*{message}"):
        prepare("folder", tmp_path / "d", FolderReader(), raw=raw)
    prepared = prepare("folder", tmp_path / "d", FolderReader(), raw=raw, undecodable="drop")
    assert len(prepared.entries) == len(FULL) - 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=150), min_size=1, max_size=8, unique=True))
def test_ids_are_unique_safe_and_independent_of_the_order(texts: list[str]) -> None:
    stems = dict.fromkeys(unicodedata.normalize("NFC", t).replace("/", "_") for t in texts)
    names = [f"train/happy/{stem}.png" for stem in stems]
    ids = make_ids(names, ["happy"] * len(names))
    assert len({name.casefold() for name in ids}) == len(names)
    assert all(len(name.encode()) <= 120 and safe_id(name) == name for name in ids)
    back = make_ids(names[::-1], ["happy"] * len(names))
    assert back[::-1] == ids


# --- archives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [FULL, class_names(3)], ids=["splits", "classes"])
def test_an_archive_prepares_to_the_same_as_its_folder(tmp_path: Path, names: list[str]) -> None:
    raw = write(tmp_path / "raw", names)
    path = tmp_path / "in" / "faces.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(raw / name, f"faces/{name}")
    one = prepare("folder", tmp_path / "a", FolderReader(), raw=raw)
    two = prepare("folder", tmp_path / "b", FolderReader(), raw=path)
    three = prepare("folder", tmp_path / "c", FolderReader(), raw=path.parent)
    prints = {prepared.integrity["fingerprint"] for prepared in (one, two, three)}
    assert len(prints) == 1
    assert "(zip)" in three.integrity["source"]["form"]


def test_raw_data_is_found_below_the_prepared_folder(tmp_path: Path) -> None:
    reader = FolderReader()
    assert reader.find(tmp_path / "raw") is None
    (tmp_path / "raw").mkdir()
    assert reader.find(tmp_path / "raw") is None
    write(tmp_path / "raw", FULL)
    assert reader.find(tmp_path / "raw") == tmp_path / "raw"
    assert len(prepare("folder", tmp_path, reader).entries) == len(FULL)


# --- tables --------------------------------------------------------------------------------------


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Images that :func:`table_rows` names; the table is still to be written."""
    return write(tmp_path / "faces", (row[0] for row in table_rows()))


def with_split(rows: list[list[str]]) -> list[list[str]]:
    return [[*row, ("train", "Validation", "test")[n % 3]] for n, row in enumerate(rows)]


@pytest.mark.parametrize("given", ["table", "folder"])
def test_a_table_is_read_from_its_own_path_or_its_folder(faces: Path, given: str) -> None:
    table = write_table(faces / "labels.csv", table_rows())
    dataset = read(table if given == "table" else faces)
    assert dataset.form == "table (labels.csv)"
    assert counts(dataset) == {"train": {7}, "val": {1}, "test": {2}}
    assert dataset.excluded == {} and len(dataset.warnings) == 1
    for record in dataset.records:
        assert record.emotion in str(record.location)


FORMS = {
    "commas": "image,label,split\n{}",
    "any case and space": " Image , LABEL ,Split\n{}",
    "byte order mark": "\ufeffimage,label,split\n{}",
    "empty lines": "\n\nimage,label,split\n\n{}\n\n,,\n",
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_way_to_write_a_table_is_read_alike(faces: Path, form: str, end: str) -> None:
    rows = with_split(table_rows())
    text = form.format("\n".join(",".join(row) for row in rows))
    (faces / "labels.csv").write_bytes(text.replace("\n", end).encode())
    splits = {"train": "train", "Validation": "val", "test": "test"}
    assert splits_of(read(faces)) == {row[0]: splits[row[2]] for row in rows}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_columns_and_quotes(faces: Path, delimiter: str) -> None:
    write(faces, ['images/a,b;c "d".png'])
    lines = [["split", "note", "label", "image"]]
    lines += [[s, "n", e, i] for i, e, s in with_split(table_rows())]
    lines += [["train", '"two\nlines"', "joy", '"images/a,b;c ""d"".png"']]
    (faces / "labels.csv").write_text("\n".join(delimiter.join(line) for line in lines))
    dataset = read(faces)
    assert len(dataset.records) == 71
    assert 'images/a,b;c "d".png' in splits_of(dataset)


@pytest.mark.parametrize(
    "write_path",
    [
        lambda name: f"./{name}",
        lambda name: name.replace("/", "//"),
        lambda name: name.replace("/", "\\"),
        lambda name: unicodedata.normalize("NFD", name),
    ],
    ids=["dot", "two slashes", "windows", "decomposed"],
)
def test_paths_are_found_however_they_are_written(tmp_path: Path, write_path: Any) -> None:
    rows = [[f"é/{n}_{e}.png", e] for e in labels.EMOTIONS for n in range(3)]
    raw = write(tmp_path, (row[0] for row in rows))
    write_table(raw / "labels.csv", ([write_path(name), e] for name, e in rows))
    assert splits_of(read(raw)).keys() == {row[0] for row in rows}


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_order_of_the_table_gives_the_same_split_and_ids(shuffle: random.Random) -> None:
    with tempfile.TemporaryDirectory() as place:
        rows = table_rows(5)
        raw = write(Path(place), (row[0] for row in rows))
        first = read(write_table(raw / "labels.csv", rows))
        shuffle.shuffle(rows)
        second = read(write_table(raw / "labels.csv", rows))
    assert first.records == second.records


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\:"),
            min_size=1,
            max_size=40,
        ).map(lambda name: unicodedata.normalize("NFC", name.strip(" .")).strip()),
        min_size=1,
        max_size=5,
        unique_by=str.casefold,
    )
)
def test_names_in_a_table_round_trip(stems: list[str]) -> None:
    import csv

    names = [f"faces/{number}{stem}.png" for number, stem in enumerate(stems)]
    with tempfile.TemporaryDirectory() as place:
        raw = write(Path(place), names + class_names(3))
        with (raw / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", "label"])
            table.writerows([name, "happy"] for name in names)
            table.writerows([name, name.split("/")[0]] for name in class_names(3))
        dataset = read(raw)
    assert set(splits_of(dataset)) == {*names, *class_names(3)}


def test_attributes_travel_to_the_manifest(faces: Path, tmp_path: Path) -> None:
    rows = [[*row, "female", "Asian", " 20-39"] for row in table_rows()]
    write_table(faces / "labels.csv", rows, "image,label,Gender,race,AGE")
    prepared = prepare("folder", tmp_path / "d", FolderReader(), raw=faces)
    assert {(e.gender, e.race, e.age) for e in prepared.entries} == {("female", "Asian", "20-39")}


def test_an_empty_cell_contradicts_nothing(faces: Path) -> None:
    rows = [[*row, "", "20-39"] for row in table_rows()]
    again = [*rows[0][:2], "Female", ""]
    write_table(faces / "labels.csv", [*rows, again], "image,label,gender,age")
    (first,) = (one for one in read(faces).records if one.source == rows[0][0])
    assert (first.gender, first.age) == ("Female", "20-39")


def test_what_the_table_does_not_name_or_names_twice_is_counted(faces: Path) -> None:
    write(faces, ["images/extra 1.png", "extra 2.jpg", "notes.txt", "landmarks.csv"])
    rows = table_rows()
    write_table(faces / "labels.csv", [*rows, rows[3], [rows[4][0], "Anger"]])
    dataset = read(faces)
    assert len(dataset.records) == len(rows)
    assert dataset.excluded == {"labels.csv does not name them": 2}
    assert "2 rows of the table name an image again, in the same way." in dataset.warnings
    assert dataset.warnings[1].startswith("2 files are not images")


def test_classes_beyond_the_seven_are_left_out_of_a_table_with_or_without_a_file(
    faces: Path,
) -> None:
    write(faces, ["images/c.png"])
    extra = [["images/c.png", "contempt"], ["images/no such.png", "contempt"]]
    table = write_table(faces / "labels.csv", table_rows() + extra)
    dataset = read(table, drop_unknown=True)
    assert dataset.excluded == {"their class 'contempt' is not one of the seven emotions": 2}
    write_table(table, table_rows() + extra[:1])
    with pytest.raises(DataError, match=r"'contempt' \(1 images\)"):
        read(table)


def test_rows_that_disagree_are_all_named_or_all_left_out(faces: Path, tmp_path: Path) -> None:
    rows = table_rows()
    others = [[name, "sad" if emotion == "happy" else "happy"] for name, emotion in rows[::5]]
    write_table(faces / "labels.csv", [*rows, *others, rows[1], rows[0]])
    with pytest.raises(DataError) as refused:
        read(faces)
    message = str(refused.value)
    assert "found 14 images about which they do not" in message
    assert message.count("  - images/") == 10 and "and 4 more" in message
    assert "dataset.conflicts=drop" in message and 'FolderReader(conflicts="drop")' in message
    prepared = prepare("folder", tmp_path / "d", FolderReader(conflicts="drop"), raw=faces)
    assert len(prepared.entries) == 56
    assert prepared.integrity["excluded"] == {
        "labels.csv names them with different labels": 14,
    }
    assert sorted(prepared.integrity["disputed"]) == sorted(name for name, _ in others)


@pytest.mark.parametrize("form", ["class folders", "table"])
def test_where_no_rows_disagree_both_ways_to_read_them_are_one_preparation(
    tmp_path: Path, form: str
) -> None:
    names = class_names()
    raw = write(tmp_path / "raw", names)
    if form == "table":
        write_table(raw / "labels.csv", [[name, name.split("/")[0]] for name in names])
    keep, drop = FolderReader(), FolderReader(conflicts="drop")
    for place, first, second in (("a", keep, drop), ("b", drop, keep)):
        made = prepare("folder", tmp_path / place, first, raw=raw)
        before = (tmp_path / place / "integrity.json").stat().st_mtime_ns
        assert prepare("folder", tmp_path / place, second).entries == made.entries
        prepare("folder", tmp_path / place, second, raw=raw)
        assert (tmp_path / place / "integrity.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"reader.test_fraction: 0.2 then, 0.3 now"):
        prepare("folder", tmp_path / "a", FolderReader(conflicts="drop", test_fraction=0.3))


def test_what_was_left_out_of_a_preparation_is_not_taken_for_all(
    faces: Path, tmp_path: Path
) -> None:
    write_table(faces / "labels.csv", [*table_rows(), ["images/0_happy.png", "sad"]])
    prepare("folder", tmp_path / "d", FolderReader(conflicts="drop"), raw=faces)
    assert prepare("folder", tmp_path / "d", FolderReader(conflicts="drop")).entries
    with pytest.raises(DataError, match=r"reader.conflicts: 'drop' then, None now"):
        prepare("folder", tmp_path / "d", FolderReader())


@pytest.mark.parametrize("conflicts", ["keep", "drop"])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("split", r"0_happy.png: split 'train' in labels.csv, row 32; split 'test' in"),
        ("gender", r"0_happy.png: gender 'train' in labels.csv, row 32; gender 'test' in"),
        ("who", r"0_happy.png: person 'train' in"),
    ],
)
def test_rows_that_agree_on_the_label_alone_are_refused_with_what_differs(
    faces: Path, conflicts: str, column: str, message: str
) -> None:
    rows = [[*row, "train"] for row in table_rows()]
    table = write_table(
        faces / "labels.csv",
        [*rows, ["images/0_happy.png", "happy", "test"]],
        f"image,label,{column}",
    )
    with pytest.raises(DataError, match=f"{message}.*\nCorrect or remove the rows\\.$"):
        read(table, conflicts=conflicts, person="who" if column == "who" else None)


def test_options_that_leave_no_image_say_so(faces: Path) -> None:
    rows = table_rows()
    table = write_table(faces / "labels.csv", [*rows, *([name, "contempt"] for name, _ in rows)])
    with pytest.raises(DataError, match=r"found 70 images .*(.|\n)*no image would be left\.$"):
        read(table, conflicts="drop")
    write_table(table, ([name, "contempt"] for name, _ in rows))
    with pytest.raises(
        DataError, match=r"'contempt' \(70 .*drop_unknown=true leaves no image: say"
    ):
        read(table, drop_unknown=True)


def test_an_image_of_many_rows_is_named_in_one_short_line(faces: Path) -> None:
    rows = [[*row, "30"] for row in table_rows()]
    more = [["images/0_happy.png", "happy", str(age)] for age in range(30, 90)]
    table = write_table(faces / "labels.csv", [*rows, *more], "image,label,age")
    with pytest.raises(DataError) as refused:
        read(table)
    (line,) = (line for line in str(refused.value).split("\n") if line.startswith("  - "))
    assert line.count("row") == 5 and line.endswith("age '34' in labels.csv, row 76; …")


@pytest.mark.parametrize(
    "header", ["image,Emotion", "picture,Emotion,image,label", "file_name,emotion"]
)
def test_a_table_may_call_its_columns_something_else(faces: Path, header: str) -> None:
    names = header.split(",")
    rows = [[*row, "x.png", "other"][: len(names)] for row in table_rows()]
    write_table(faces / "labels.csv", rows, header)
    with pytest.raises(DataError):
        read(faces)
    own = {"label": "emotion"} if len(names) == 2 else {"label": "emotion", "image": "Picture"}
    assert splits_of(read(faces, columns=own)).keys() == {name for name, _ in table_rows()}
    assert FolderReader(columns=own) == FolderReader(columns=dict(reversed(own.items())))


def test_who_is_shown_is_looked_up_among_the_columns_as_they_are_written(faces: Path) -> None:
    rows = [[name, label, str(i % 10)] for i, (name, label) in enumerate(table_rows())]
    table = write_table(faces / "labels.csv", rows, "image,Emotion,Label")
    dataset = read(table, columns={"label": "emotion"}, person="label")
    assert {record.person for record in dataset.records} == set("0123456789")


@pytest.mark.parametrize(
    ("header", "column"),
    [("image,emotion,emotion", "emotion"), ("file_name,x,file_name", "file_name")],
)
def test_a_column_that_is_there_twice_is_named_as_the_table_does(
    faces: Path, header: str, column: str
) -> None:
    table = write_table(faces / "labels.csv", [[*row, "x"] for row in table_rows()], header)
    own = {"label": "emotion" if "emotion" in header else "x"}
    with pytest.raises(DataError, match=f"the column {column} once, found it 2 times"):
        read(table, columns=own)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_table_of_another_encoding_asks_for_utf_8(faces: Path, encoding: str) -> None:
    (faces / "labels.csv").write_text("image,émotion\n", encoding=encoding)
    with pytest.raises(DataError, match=r"found another encoding\. Save the table as UTF-8\.$"):
        read(faces, columns={"label": "émotion"})


def test_columns_of_json_lines_may_be_called_something_else(faces: Path) -> None:
    lines = [json.dumps({"file_name": name, "mood": label}) for name, label in table_rows()]
    (faces / "metadata.jsonl").write_text("\n".join(lines))
    assert len(read(faces, columns={"label": "mood"}).records) == 70
    with pytest.raises(DataError, match=r"no 'emotion'\. The table has 'file_name', 'mood'"):
        read(faces, columns={"label": "emotion"})


def test_a_column_that_the_table_lacks_is_named_beside_those_that_it_has(faces: Path) -> None:
    table = write_table(faces / "labels.csv", table_rows(), "image,emotion")
    for raw in (faces, table):
        with pytest.raises(
            DataError,
            match=r"'mood', 'use', found no 'mood' and no 'use'\. .*has 'image', 'emotion'",
        ):
            read(raw, columns={"label": "mood", "split": "use"})
    with pytest.raises(DataError, match=r"'dataset.columns=\{label: COLUMN\}'"):
        read(table)
    with pytest.raises(DataError, match=r"expected a table .*dataset.columns"):
        read(write(faces.parent / "folders", class_names()), columns={"label": "mood"})


@pytest.mark.parametrize(
    "columns", [{"emotion": "label"}, {"label": ""}, {"label": "a", "image": "A"}, "emotion"]
)
def test_wrong_columns_are_refused_before_anything_is_read(columns: Any) -> None:
    with pytest.raises(ConfigError, match=r"dataset.columns: expected some of image, label, split"):
        FolderReader(columns=columns)


BAD_TABLES = {
    "no file": (["images/x.png,happy", "y.png,sad"], r"row 72: .*x.png, found no such .*\(2 such"),
    "other case": (["images/0_HAPPY.png,happy"], r"row 72: .*case does"),
    "hidden": ([".x.png,happy"], r"row 72: .*hidden files do not count"),
    "folder": (["images,happy"], r"row 72: expected the image .*images, found no such file"),
    "two labels": (
        ["images/0_happy.png,sad"],
        r"0_happy.png: label 'happy' in labels.csv, row 32; label 'sad' in labels.csv, row 72",
    ),
    "label and class": (["images/0_happy.png,contempt"], r"row 32; label 'contempt' in .*row 72"),
    "outside": (["../x.png,happy"], r"row 72: expected an image below the table's folder"),
    "absolute": (["/etc/x.png,happy"], r"row 72: .*found '/etc/x.png'"),
    "drive": (["C:\\x.png,happy"], r"row 72: expected an image below"),
    "outside, windows": (["..\\x.png,happy"], r"row 72: expected an image below"),
    "no label": (["images/0_sad.png,"], r"row 72: .*found 'images/0_sad.png', ''"),
    "no image": ([",sad"], r"row 72: expected an image, a label"),
    "too many cells": (["images/0_sad.png,sad,x"], r"row 72: expected 2 cells .*found 3"),
    "too few cells": (["images/0_sad.png"], r"row 72: expected 2 cells .*found 1"),
    "open quote": (['"images/0_sad.png,sad'], r"row 72: .*a quote that opens must close"),
    "number": (["images/0_sad.png,4"], r"label 'sad' in .*; label '4' in labels.csv, row 72"),
}


@pytest.mark.parametrize(("lines", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_wrong_row_is_named(faces: Path, lines: list[str], message: str) -> None:
    table = write_table(faces / "labels.csv", table_rows())
    table.write_text(table.read_text() + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=message):
        read(table)


def test_numbers_in_a_table_ask_for_names(faces: Path) -> None:
    rows = [[name, str(labels.INDEX[emotion])] for name, emotion in table_rows()]
    table = write_table(faces / "labels.csv", rows)
    with pytest.raises(DataError, match=r"class '0'\. Numbers mean different emotions"):
        read(table)
    meaning: dict[Any, str] = dict(enumerate(labels.EMOTIONS))
    assert len(read(table, synonyms=meaning).records) == 70


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[5].__setitem__(2, ""), r"row 7: .*found none in 1 of 70 rows"),
        (
            lambda rows: rows[5].__setitem__(2, "dev"),
            r"row 7: expected .* as split train, val, test or none, found .*'dev'",
        ),
        (
            lambda rows: rows.append([*rows[0][:2], "test"]),
            r"split 'train' in labels.csv, row 2; split 'test' in labels.csv, row 72",
        ),
    ],
)
def test_a_wrong_split_is_named(faces: Path, change: Any, message: str) -> None:
    rows = with_split(table_rows())
    change(rows)
    with pytest.raises(DataError, match=message):
        read(write_table(faces / "labels.csv", rows, "image,label,split"))


def test_an_empty_split_column_is_as_good_as_none(faces: Path) -> None:
    rows = [[*row, ""] for row in table_rows()]
    dataset = read(write_table(faces / "labels.csv", rows, "image,label,split"))
    assert splits_of(dataset) == splits_of(read(write_table(faces / "labels.csv", table_rows())))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,emotion", r"expected the columns image and label .*found 'file,emotion'"),
        ("image label", r"separated by commas, semicolons or tabs"),
        ("image,label,Image", r"expected the column image once, found it 2 times"),
        ("", r"expected the columns image and label"),
    ],
)
def test_a_header_without_the_columns_is_shown(faces: Path, header: str, message: str) -> None:
    path = faces / "labels.csv"
    path.write_text(header)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_table_in_utf_16_asks_for_utf_8(faces: Path) -> None:
    (faces / "labels.csv").write_bytes("image,label\na.png,happy\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"save the table as UTF-8"):
        read(faces / "labels.csv")


def test_two_tables_of_labels_in_a_folder_ask_for_one(faces: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_table(faces / name, table_rows())
    with pytest.raises(DataError, match=r"expected one table .*found a.csv, b.csv"):
        read(faces)
    assert read(faces / "a.csv").records


def test_a_table_of_something_else_beside_class_folders_is_no_table(tmp_path: Path) -> None:
    raw = write(tmp_path, FULL)
    write_table(raw / "landmarks.csv", [["1", "2"]], "x,y")
    dataset = read(raw)
    assert len(dataset.records) == len(FULL) and len(dataset.warnings) == 1


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 1.0}, r"test_fraction: expected a share"),
        ({"val_fraction": 0.0}, r"val_fraction: expected a share"),
        ({"synonyms": {"Angry": "sad"}}, r"expected 'angry' to mean 'angry' alone, found 'sad'"),
        ({"synonyms": {"mad": "anger"}}, r"expected one of angry, .*for 'mad', found 'anger'"),
        ({"synonyms": {"Mad": "angry", "mad": "sad"}}, r"'mad' to mean 'angry' alone"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FolderReader(**options)


def test_synonyms_in_another_order_or_case_are_the_same_preparation(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", FULL)
    first: dict[Any, str] = {"mad": "angry", 1: "sad"}
    second = {"1": "sad", "MAD": "angry"}
    made: list[Prepared] = []
    for synonyms in (first, second):
        reader = FolderReader(synonyms=synonyms)
        made.append(prepare("folder", tmp_path / "d", reader, raw=raw))
        stamp = (tmp_path / "d" / "manifest.csv").stat().st_mtime_ns
    assert made[0].integrity == made[1].integrity
    prepare("folder", tmp_path / "d", FolderReader(synonyms=second), raw=raw)
    assert (tmp_path / "d" / "manifest.csv").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ([], {}),
        (["dataset.synonyms={}"], {}),
        (["dataset.synonyms={Mad: angry, 1: surprise}"], {"1": "surprise", "mad": "angry"}),
        (["dataset.synonyms={very sad: sad}"], {"very sad": "sad"}),
        (
            ['dataset.synonyms=["Très triste: sad", "2:30: fear"]'],
            {"2:30": "fear", "très triste": "sad"},
        ),
    ],
)
def test_the_command_line_reaches_the_reader(override: list[str], expected: dict[str, str]) -> None:
    from fer.tasks.assembly import make_data, make_model

    overrides = ["dataset=folder", "dataset.drop_unknown=true", "dataset.name=mine", *override]
    cfg = compose(*overrides)
    check_options(cfg)
    data = make_data(cfg, make_model(cfg.model))
    assert data.reader == FolderReader(drop_unknown=True, synonyms=expected)
    assert data.folder.name == data.dataset_name == "mine"
    assert cfg.dataset.reader.drop_unknown is True  # the configuration itself stays whole


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("synonyms={mad: furious}", r"synonyms: expected one of .* for 'mad', found 'furious'"),
        ("synonyms=[mad]", r"synonyms: expected one of .* for '', found 'mad'"),
        ("synonyms=mad", r"synonyms: expected names of classes, each with one of angry, .*'mad'"),
        ("drop_unknown=yes please", r"drop_unknown: expected true or false, found 'yes please'"),
    ],
)
def test_wrong_options_of_own_faces_are_refused_on_the_command_line(
    override: str, message: str
) -> None:
    from fer.tasks.assembly import make_data, make_model

    cfg = compose("dataset=folder", f"dataset.{override}")
    with pytest.raises(ConfigError, match=rf"^dataset.{message}"):
        make_data(cfg, make_model(cfg.model))


def test_preparation_takes_own_names_from_the_command_line(tmp_path: Path) -> None:
    own = ["mad", "contempt", "2", *labels.EMOTIONS[2:]]
    raw = write(tmp_path / "raw", split_names({"train": 3, "test": 2}, own))
    command = [
        "-m", "fer", "prepare", "dataset=folder", f"dataset.raw={raw}", "dataset.name=mine",
        "dataset.synonyms={MAD: angry, 2: disgust}",
    ]  # fmt: skip
    refused = run_program(*command, cwd=tmp_path, check=False)
    assert refused.returncode != 0 and "Traceback" not in refused.stderr
    assert "'contempt' (5 images)" in refused.stderr
    done = run_program(*command, "dataset.drop_unknown=true", cwd=tmp_path)
    assert "mine: 35 images" in done.stdout
    integrity = json.loads((tmp_path / "data" / "mine" / "integrity.json").read_text())
    assert integrity["counts"]["test"] == dict.fromkeys(labels.EMOTIONS, 2)
    assert sum(integrity["excluded"].values()) == 5


@pytest.mark.slow
def test_own_faces_of_every_kind_train(tmp_path: Path) -> None:
    """From a folder with every image mode and a class beyond the seven to complete metrics."""
    raw = tmp_path / "raw"
    kinds = [data for data, _ in MODES.values()]
    number = 0
    for split, count in (("train", 7), ("test", 3)):
        for name in ("contempt", *SPOKEN.values()):
            for _ in range(count):
                number += 1
                path = raw / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(kinds[number % len(kinds)])
    run = tmp_path / "run"
    run_program(
        "train.py", "dataset=folder", f"dataset.raw={raw}", "dataset.drop_unknown=true",
        f"hydra.run.dir={run}", "model.widths=[4,8,8,8]", "model.image_size=32",
        "trainer.max_epochs=1", "loader.batch_size=7", "metrics.resamples=100", cwd=tmp_path,
    )  # fmt: skip
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["dataset"], metrics["split"], metrics["samples"]) == ("folder", "test", 21)
    assert {row["support"] for row in metrics["per_class"].values()} == {3}
    assert metrics.keys() >= {
        "accuracy", "macro_f1", "micro_f1", "balanced_accuracy", "expected_calibration_error",
        "confidence_intervals", "confusion_matrix", "without_leaks",
    }  # fmt: skip
    notes = json.loads((run / "run.json").read_text())["notes"]
    assert any(
        "their class 'contempt' is not one of the seven emotions: 10 images" in note
        for note in notes
    )
    assert any("no val split" in note for note in notes)


@pytest.mark.slow
def test_a_checkpoint_remembers_the_name_and_synonyms_of_own_faces(tmp_path: Path) -> None:
    own = ["mad", "contempt", *labels.EMOTIONS[1:]]
    raw = write(tmp_path / "raw", split_names({"train": 3, "val": 1, "test": 1}, own))
    run_program(
        "train.py", "dataset=folder", f"dataset.raw={raw}", "dataset.name=mine",
        "dataset.drop_unknown=true", "dataset.synonyms={mad: angry}", "hydra.run.dir=run",
        "model.widths=[4,8,8,8]", "model.image_size=32", "trainer.max_epochs=1",
        "loader.batch_size=7", "metrics.resamples=100", cwd=tmp_path,
    )  # fmt: skip
    run_program(
        "evaluate.py", "checkpoint=run/checkpoints/best.ckpt", "hydra.run.dir=again",
        "metrics.resamples=100", cwd=tmp_path,
    )  # fmt: skip
    first, again = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "again")
    )
    assert first == again and first["dataset"] == "mine" and first["samples"] == 7


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "image,label\nhappy/0.png,sad\n".encode("utf-16")),
        ("labels.csv", b"sep=,\nimage,label\nhappy/0.png,sad\n"),
        ("labels.tsv", b"image\tlabel\nhappy/0.png\tsad\n"),
        ("labels.csv", b"filename|emotion\n0.png|sad\n"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_and_not_passed_over(
    tmp_path: Path, name: str, content: bytes
) -> None:
    raw = write(tmp_path / "raw", [f"{e}/{n}.png" for e in labels.EMOTIONS for n in range(4)])
    assert FolderReader().list(raw).records  # a note about landmarks would not matter
    (raw / "notes.txt").write_text("taken by a friend")
    assert FolderReader().list(raw).records
    (raw / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: expected a table \*.csv as UTF-8 text"):
        FolderReader().list(raw)


# --- the same rules for a folder and its archive ------------------------------------------------


def zipped(folder: Path, path: Path, write_name: Any = lambda name: name) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.writestr(write_name(file.relative_to(folder).as_posix()), file.read_bytes())
    return path


@pytest.mark.parametrize("around", ["", "faces/", "a/b/"])
def test_a_table_counts_in_an_archive_as_it_does_in_the_folder(tmp_path: Path, around: str) -> None:
    names = class_names(6)
    raw = write(tmp_path / "raw", [around + name for name in names])
    rows = [[n, n.split("/")[0], SPLITS[i % 3]] for i, n in enumerate(names)]
    write_table(raw / around / "labels.csv", rows, "image,label,split")
    folder, archive = read(raw), read(zipped(raw, tmp_path / "faces.zip"))
    assert folder.records == archive.records and folder.excluded == archive.excluded == {}
    assert splits_of(folder) == {around + name: split for name, _, split in rows}
    assert archive.form == "table (labels.csv) (zip)"
    with pytest.raises(DataError, match=r"faces.zip/labels.csv: row 2: .*found no such file"):
        write_table(raw / "labels.csv", [["gone.png", "sad"]])
        read(zipped(raw, tmp_path / "faces.zip"))


def test_backslashes_in_an_archive_are_folders(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", FULL)
    path = zipped(raw, tmp_path / "w.zip", lambda name: name.replace("/", "\\"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train\\", b"")  # a folder
    one, two = (
        prepare("folder", tmp_path / p.name[:1], FolderReader(), raw=p) for p in (raw, path)
    )
    assert one.integrity["fingerprint"] == two.integrity["fingerprint"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train/happy/0.png", b"")
    with pytest.raises(DataError, match="the same member twice"):
        read(path)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train/metadata.csv", "test/metadata.csv"),
        ("train.csv", "test.csv"),
        ("train_labels.csv", "labels-test.csv"),
    ],
)
@pytest.mark.parametrize("header", ["image,label", "file_name,label"])
def test_each_split_may_have_a_table_of_its_own(
    tmp_path: Path, train: str, test: str, header: str
) -> None:
    names = [f"{split}/{i}_{e}.png" for split in ("train", "test") for e in SPOKEN for i in (1, 2)]
    raw = write(tmp_path, names)
    for table in (train, test):
        split = "train" if "train" in table else "test"
        own = [name for name in names if name.startswith(split)]
        cut = len(split) + 1 if "/" in table else 0
        write_table(raw / table, ([n[cut:], n.split("_")[1][:-4]] for n in own), header)
    dataset = read(raw)
    assert counts(dataset) == {"train": {1}, "val": {1}, "test": {2}}
    assert dataset.form == f"table ({', '.join(sorted([train, test]))})" and not dataset.excluded
    assert all(str(r.location).startswith("test") == (r.split == "test") for r in dataset.records)


def test_the_table_of_one_split_alone_says_so(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", [f"train/{i}.png" for i in range(70)])
    rows = [[f"{i}.png", labels.EMOTIONS[i % 7]] for i in range(70)]
    write_table(raw / "train" / "metadata.csv", rows, "file_name,label")
    assert counts(read(raw)) == {"train": {7}, "val": {1}, "test": {2}}
    write_table(raw / "train" / "more.csv", [["0.png", "sad"]])
    with pytest.raises(DataError, match=r"in metadata.csv, row 2; .* in more.csv, row 2"):
        read(raw)


# --- class folders in any script ------------------------------------------------------------------

CHINESE = dict(
    zip(["愤怒", "厌恶", "恐惧", "高兴", "悲伤", "惊讶", "中性"], labels.EMOTIONS, strict=True)
)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [[], ["happy/a.png"]], ids=["alone", "beside a known class"])
def test_the_message_about_classes_in_another_script_can_be_pasted(
    tmp_path: Path, beside: list[str]
) -> None:
    raw = write(tmp_path / "raw", class_names(3, CHINESE) + beside)
    command = ["-m", "fer", "prepare", "dataset=folder", f"dataset.raw={raw}", "dataset.name=zh"]
    asked = run_program(*command, cwd=tmp_path, check=False).stderr
    (option,) = shlex.split(asked[asked.index("'dataset.synonyms=") : asked.index("]'") + 2])
    assert all(f'"{name}: EMOTION"' in option for name in CHINESE)
    refused = run_program(*command, option, cwd=tmp_path, check=False).stderr
    assert "dataset.synonyms: expected one of angry" in refused and "found 'EMOTION'" in refused
    for name, emotion in CHINESE.items():
        option = option.replace(f"{name}: EMOTION", f"{name}: {emotion}")
    done = run_program(*command, option, cwd=tmp_path)
    assert f"zh: {21 + len(beside)} images" in done.stdout


# --- persons -----------------------------------------------------------------------------------


def of_persons(persons: int, per_person: int = 2) -> list[str]:
    """``happy/S005_1.png``: everybody shows every emotion so many times."""
    return [
        f"{emotion}/S{person:03}_{number}.png"
        for emotion in labels.EMOTIONS
        for person in range(persons)
        for number in range(per_person)
    ]


def person_of(location: object) -> str:
    return Path(str(location)).name[:4]


def test_a_rare_emotion_is_refused_as_without_persons(tmp_path: Path) -> None:
    names = [name for name in of_persons(9) if "disgust" not in name]
    raw = write(tmp_path / "raw", [*names, "disgust/S000_0.png"])
    with pytest.raises(DataError, match=r"at least 3 training images .*found 1 of 'disgust'"):
        read(raw, person=r"S\d+")


@pytest.mark.parametrize("form", ["pattern", "column"])
def test_nobody_is_on_both_sides_of_what_is_held_out(tmp_path: Path, form: str) -> None:
    names = of_persons(20)
    raw = write(tmp_path / "raw", names)
    person = r"S\d+"
    if form == "column":
        rows = [[name, name.split("/")[0], person_of(name)] for name in names]
        write_table(raw / "labels.csv", rows, "image,label,Subject")
        person = "subject"
    dataset = read(raw, person=person)
    sides: dict[str, set[str]] = {}
    for record in dataset.records:
        sides.setdefault(person_of(record.location), set()).add(record.split)
    assert all(len(own) == 1 for own in sides.values())
    counts = Counter(record.split for record in dataset.records)
    assert counts["test"] == 4 * 14 and counts["val"] == 2 * 14  # a fifth, and a tenth of the rest
    assert "held out at random, person by person" in dataset.warnings[0]
    assert "both sides" not in dataset.warnings[0] and dataset.findings == []
    without = read(raw)
    assert len({r.split for r in without.records if person_of(r.location) == "S000"}) > 1
    assert "dataset.person" in without.warnings[0]
    other = read(raw, person=person, split_seed=1)
    assert {r.id for r in other.records if r.split == "test"} != {
        r.id for r in dataset.records if r.split == "test"
    }


def test_given_splits_with_a_person_on_both_sides_are_reported(tmp_path: Path) -> None:
    raw = write(
        tmp_path / "raw",
        [
            *(
                f"{s}/{e}/{s[:2].upper()}{i}.png"
                for s in SPLITS
                for e in labels.EMOTIONS
                for i in "12"
            ),
            "test/happy/TR9.png",
        ],
    )
    prepared = prepare("x", tmp_path / "x", FolderReader(person="^[A-Z]{2}"), raw=raw)
    (finding,) = [f for f in prepared.integrity["findings"] if f["kind"].startswith("persons")]
    assert finding["text"].startswith("1 of 3 persons are in more than one split (TR)")
    assert finding["images"] == 15
    apart = read(write(tmp_path / "apart", FULL), person=r"(train|val|test)/")
    assert apart.findings == []


@pytest.mark.parametrize(
    ("person", "persons", "message"),
    [
        ("Q\\d", 9, "expected dataset.person to be a column.*none for 126 of 126"),
        (r"S\d+", 2, r"of as many persons, to hold test and val out of, found 2 persons"),
    ],
)
def test_persons_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, person: str, persons: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "raw", of_persons(persons)), person=person)
    with pytest.raises(
        ConfigError, match=r"dataset\.person: expected the name of a table's column"
    ):
        FolderReader(person="(")


def test_a_reader_without_persons_finds_what_was_prepared_before_there_were_any() -> None:
    assert "person" not in FolderReader().options()


# --- of the wild -------------------------------------------------------------------------------


def test_hugging_faces_json_lines_are_a_table(tmp_path: Path) -> None:
    rows = [(split, *row) for split in SPLITS for row in table_rows(3)]
    for split in SPLITS:
        write(tmp_path / "raw" / split, [image for own, image, _ in rows if own == split])
        lines = [
            json.dumps({"file_name": image, "label": label, "note": "a, b"})
            for own, image, label in rows
            if own == split
        ]
        (tmp_path / "raw" / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    dataset = read_to_train(tmp_path / "raw")
    assert Counter(record.split for record in dataset.records) == dict.fromkeys(SPLITS, 21)
    alone = read(tmp_path / "raw/train/metadata.jsonl")
    assert Counter(record.emotion for record in alone.records) == dict.fromkeys(labels.EMOTIONS, 3)
    lines[0] = lines[0].replace('"note": "a, b"', '"gender": "\\ud800"')
    (tmp_path / "raw/test/metadata.jsonl").write_text("\n".join([*lines, "{}", '{"label": null}']))
    again = read(tmp_path / "raw/test/metadata.jsonl")
    assert len(again.records) == 21
    assert any(record.gender.encode("utf-8", "surrogateescape") for record in again.records)
    for text in ('{"file_name": "x.png"', "[1]", '{"file_name": 1}\n{'):
        (tmp_path / "raw/train/metadata.jsonl").write_text(text)
        with pytest.raises(
            DataError, match=r"metadata\.jsonl: (line \d: expected a JSON|expected)"
        ):
            read(tmp_path / "raw/train/metadata.jsonl")


@pytest.mark.parametrize("encoding", ["gb2312", "utf-8"])
def test_a_zip_whose_names_say_nothing_of_their_encoding_is_read(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = dict(
        zip(labels.EMOTIONS, ("愤怒", "厌恶", "恐惧", "高兴", "悲伤", "惊讶", "中性"), strict=True)
    )
    monkeypatch.setattr(
        zipfile.ZipInfo, "_encodeFilenameFlags", lambda self: (self.filename.encode(encoding), 0)
    )
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name in class_names(10, words.values()):
            archive.writestr(name, to_png(rng.integers(0, 256, (8, 8), dtype=np.uint8)))
    synonyms = [f"{word}: {emotion}" for emotion, word in words.items()]
    dataset = read(tmp_path / "faces.zip", synonyms=synonyms)
    assert Counter(record.emotion for record in dataset.records) == dict.fromkeys(words, 10)
    prepare("x", tmp_path / "x", FolderReader(synonyms=synonyms), raw=tmp_path / "faces.zip")
