from __future__ import annotations

import gzip
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer.core import labels
from fer.core.errors import DataError, FerError
from fer.data.preparation import prepare
from fer.data.prepared import Prepared
from fer.data.published import FER2013DataModule
from fer.data.readers.fer2013 import FER2013Reader
from tests.conftest import Row, to_png, write_file, write_folder, write_table, write_zip

ICML = "emotion, Usage, pixels"


def prepare_fer(folder: Path, raw: Path, **options: float | str) -> Prepared:
    return prepare("fer2013", folder, FER2013Reader(**options), raw=raw)  # type: ignore[arg-type]


def test_every_form_prepares_to_the_same_dataset(tmp_path: Path, rows: list[Row]) -> None:
    forms = {
        "zip": write_zip(tmp_path / "archive.zip", rows),
        "folder": write_folder(tmp_path / "unpacked", rows),
        "table": write_table(tmp_path / "fer2013.csv", rows),
        "icml": write_table(tmp_path / "icml_face_data.csv", rows, ICML),
        "renamed": write_table(tmp_path / "mine" / "fer2013_full.csv", rows).parent,
    }
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as tar:
        tar.add(forms["table"], "fer2013/fer2013.csv")
    with zipfile.ZipFile(tmp_path / "table.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(forms["icml"], "icml_face_data.csv")
    forms |= {"tar": tmp_path / "fer2013.tar.gz", "packed": tmp_path / "table.zip"}
    prepared = {name: prepare_fer(tmp_path / "data" / name, raw) for name, raw in forms.items()}
    assert len({item.integrity["fingerprint"] for item in prepared.values()}) == 1
    expected = Counter((usage, emotion, image.tobytes()) for usage, emotion, image in rows)
    usage_of = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
    for item in prepared.values():
        found = Counter(
            (usage_of[entry.split], entry.emotion, item.read(index).tobytes())
            for index, entry in enumerate(item.entries)
        )
        assert found == expected


def test_the_prepared_folder_has_the_contracts_layout(tmp_path: Path, tiny_zip: Path) -> None:
    prepared = prepare_fer(tmp_path / "fer2013", tiny_zip)
    for entry in prepared.entries:
        path = tmp_path / "fer2013" / entry.split / entry.emotion / f"{entry.id}.png"
        with Image.open(path) as image:
            assert image.mode == "L" and image.size == (48, 48)
    header = (tmp_path / "fer2013" / "manifest.csv").read_text().splitlines()[0]
    assert header == "id,emotion,split,source,sha256,phash"
    assert (tmp_path / "fer2013" / "integrity.json").is_file()
    assert not list((tmp_path / "fer2013").glob(".staging*"))


def test_an_archive_with_a_folder_around_everything_is_read(
    tmp_path: Path, rows: list[Row]
) -> None:
    plain = write_folder(tmp_path / "plain" / "fer2013", rows)
    inner = prepare_fer(tmp_path / "a", plain)
    outer = prepare_fer(tmp_path / "b", plain.parent)
    assert inner.integrity["fingerprint"] == outer.integrity["fingerprint"]


def test_a_copy_without_usage_is_split_by_a_stratified_hold_out(
    tmp_path: Path, rows: list[Row]
) -> None:
    renamed = tmp_path / "renamed"
    for number, (usage, emotion, image) in enumerate(rows):
        place = renamed / ("train" if usage == "Training" else "test") / emotion
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    prepared = prepare_fer(tmp_path / "a", renamed, val_fraction=0.25)
    counts = prepared.integrity["counts"]
    assert counts["train"] == dict.fromkeys(labels.EMOTIONS, 3)
    assert counts["val"] == dict.fromkeys(labels.EMOTIONS, 1)
    assert counts["test"] == dict.fromkeys(labels.EMOTIONS, 4)
    assert "not comparable" in " ".join(prepared.integrity["warnings"])
    assert prepared.integrity["official_protocol"] is False
    again = prepare_fer(tmp_path / "b", renamed, val_fraction=0.25)
    other = prepare_fer(tmp_path / "c", renamed, val_fraction=0.25, split_seed=1)
    assert again.integrity["fingerprint"] == prepared.integrity["fingerprint"]
    assert other.integrity["fingerprint"] != prepared.integrity["fingerprint"]


@pytest.mark.parametrize("form", ["renamed", "moved", "table"])
def test_official_splits_are_restored_whatever_the_files_are_called(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from fer.data import preparation as prepare_module
    from fer.data.audit.appearance import LOOKS, measure
    from fer.data.audit.reference import Reference

    original = prepare_fer(tmp_path / "a", write_folder(tmp_path / "original", rows))
    images = map(original.read, range(len(original.entries)))
    looks = np.array([measure(image, 48) for image in images], LOOKS)
    known = Reference.of(original.entries, looks)
    monkeypatch.setattr(prepare_module, "load_known", lambda reader: known)
    order = np.random.default_rng(0).permutation(len(rows))
    usages = [usage for usage, _, _ in rows]
    mixed = [
        (usages[i], emotion, image) for i, (_, emotion, image) in zip(order, rows, strict=True)
    ]
    copy = tmp_path / "copy"
    if form == "table":
        copy = write_table(tmp_path / "fer2013.csv", mixed)
    for number, (usage, emotion, image) in enumerate(mixed if form != "table" else []):
        place = copy / ("train" if usage == "Training" else "test") / emotion
        place.mkdir(parents=True, exist_ok=True)
        name = f"{number}.png" if form == "renamed" else f"{rows[number][0]}_{number}.png"
        Image.fromarray(image).save(place / name)
    given = prepare_fer(tmp_path / "b", copy) if form != "table" else None
    restored = prepare_fer(tmp_path / "c", copy, splits="official")
    assert restored.integrity["fingerprint"] == original.integrity["fingerprint"]
    assert all((tmp_path / "c" / entry.file).is_file() for entry in restored.entries)
    assert not any(finding["kind"] == "re-split" for finding in restored.integrity["findings"])
    if form == "renamed" and given is not None:
        assert given.integrity["verdict"] == "altered copy"
        assert {"re-split", "renamed"} <= {f["kind"] for f in given.integrity["findings"]}


def test_an_unknown_kind_of_splits_is_refused() -> None:
    with pytest.raises(FerError, match=r"dataset.reader.splits: expected one of given, official"):
        FER2013Reader(splits="mine")


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path, rows: list[Row]) -> None:
    plain = write_table(tmp_path / "fer2013.csv", rows)
    (tmp_path / "windows").mkdir()
    windows = tmp_path / "windows" / "fer2013.csv"
    windows.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    first, second = prepare_fer(tmp_path / "a", plain), prepare_fer(tmp_path / "b", windows)
    assert first.integrity["fingerprint"] == second.integrity["fingerprint"]


def broken_table(tmp_path: Path, rows: list[Row], change: tuple[int, str, str]) -> Path:
    """A table whose line ``number`` has ``old`` replaced by ``new``."""
    path = write_table(tmp_path / "fer2013.csv", rows)
    number, old, new = change
    lines = path.read_text().splitlines()
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_row_with_a_missing_pixel_is_named(tmp_path: Path, rows: list[Row]) -> None:
    last = f"{rows[2][2].ravel()[-1]},Training"
    path = broken_table(tmp_path, rows, (4, f" {last}", ",Training"))
    check_refused(tmp_path, path, r"fer2013.csv.*row 4: expected 2,304 pixels.*found 2,303")


def test_an_emotion_of_9_is_named(tmp_path: Path, rows: list[Row]) -> None:
    path = broken_table(tmp_path, rows, (3, "0,", "9,"))
    check_refused(
        tmp_path, path, r"expected emotions from 0 to 6, found '9' .* first: fer2013.csv row 3"
    )


def test_an_unknown_usage_is_named(tmp_path: Path, rows: list[Row]) -> None:
    path = broken_table(tmp_path, rows, (2, "Training", "Secret"))
    check_refused(tmp_path, path, r"row 2: expected 3 cells, with a usage.*found 3 and 'Secret'")


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_text("image,label\na.jpg,3\n")
    check_refused(tmp_path, path, r"columns emotion, pixels and Usage.*found image, label")


def test_a_zip_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(b"<html>Sign in to download</html>")
    check_refused(tmp_path, path, r"archive.zip: expected a zip archive")


@pytest.mark.parametrize("name", ["../../evil.jpg", "/evil.jpg", "train\\..\\..\\evil.jpg"])
def test_a_member_that_leaves_the_target_is_refused(
    tmp_path: Path, rows: list[Row], name: str
) -> None:
    path = write_zip(tmp_path / "archive.zip", rows)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    check_refused(tmp_path, path, r"outside the target folder.*evil")
    assert not list(tmp_path.parent.rglob("evil.jpg"))


def test_two_copies_in_one_are_refused(tmp_path: Path, rows: list[Row]) -> None:
    write_folder(tmp_path / "raw", rows)
    write_folder(tmp_path / "raw" / "backup", rows)
    check_refused(tmp_path, tmp_path / "raw", r"one copy of FER2013.*2 places: \., backup")


def test_a_member_that_stands_twice_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    path = write_zip(tmp_path / "archive.zip", rows)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"x")
    check_refused(tmp_path, path, r"the same member twice")


def test_a_damaged_member_is_named(tmp_path: Path, rows: list[Row]) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (usage, emotion, image) in enumerate(rows):
            place = "train" if usage == "Training" else "test"
            archive.writestr(f"{place}/{emotion}/{usage}_{number}.png", to_png(image))
    data = bytearray(path.read_bytes())
    data[60:90] = b"\xff" * 30  # inside the first member
    path.write_bytes(data)
    check_refused(tmp_path, path, r"readable member 'train/angry/Training_0.png'")


@pytest.mark.parametrize("word", ["300", "+5", "1_0", "-1", "1.5", "x", "\u0663", "9" * 5000])
def test_only_plain_numbers_are_pixels(tmp_path: Path, rows: list[Row], word: str) -> None:
    first = f"0,{rows[0][2].ravel()[0]} "
    path = broken_table(tmp_path, rows, (2, first, f"0,{word} "))
    check_refused(tmp_path, path, r"row 2: .*0 to 255, found 2,304 and '.*'")


def test_a_table_with_a_header_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels,Usage\n")
    check_refused(tmp_path, path, r"found the header alone")


def test_what_an_operating_system_leaves_there_is_no_image(tmp_path: Path, rows: list[Row]) -> None:
    folder = write_folder(tmp_path / "raw", rows)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / "train" / "happy" / name).write_bytes(b"x")
    (folder / "__MACOSX" / "train" / "happy").mkdir(parents=True)
    (folder / "__MACOSX" / "train" / "happy" / "._1.jpg").write_bytes(b"x")
    prepared = prepare_fer(tmp_path / "d", folder)
    assert len(prepared.entries) == len(rows) and prepared.integrity["warnings"] == []


def test_an_image_that_does_not_decode_is_named(tmp_path: Path, rows: list[Row]) -> None:
    folder = write_folder(tmp_path / "raw", rows)
    victim = sorted(folder.rglob("*.png"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    check_refused(tmp_path, folder, rf"{victim.name}: expected an image.*200 bytes")


def test_an_empty_class_is_named(tmp_path: Path, rows: list[Row]) -> None:
    few = [row for row in rows if row[:2] != ("Training", "disgust")]
    folder = write_folder(tmp_path / "raw", few)
    data = FER2013DataModule(tmp_path / "d", raw=folder)
    data.prepare_data()
    data.setup()
    with pytest.raises(DataError, match=r"seven emotions in 'train', found none of 'disgust'"):
        data.train_dataloader()


def test_an_eighth_class_is_named(tmp_path: Path, rows: list[Row]) -> None:
    folder = write_folder(tmp_path / "raw", rows)
    (folder / "train" / "contempt").mkdir()
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(folder / "train/contempt/Training_9.png")
    check_refused(tmp_path, folder, r"found 'contempt' .*the first: train/contempt/Training_9.png")


def test_files_without_usage_among_others_keep_their_folders_split_and_are_reported(
    tmp_path: Path, rows: list[Row]
) -> None:
    """Classes are often filled up with augmented files that have names of their own."""
    folder = write_folder(tmp_path / "raw", rows)
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(folder / "train/happy/17.png")
    prepared = prepare_fer(tmp_path / "d", folder)
    assert [entry.split for entry in prepared.entries if entry.id == "17"] == ["train"]
    counts = Counter(entry.split for entry in prepared.entries)
    assert counts == {"train": 29, "val": 14, "test": 14}  # the others as their names say
    assert "1 of 57 file names carry no usage" in prepared.integrity["warnings"][0]
    assert prepared.integrity["official_protocol"] is False


def test_raw_data_that_does_not_exist_is_answered_with_how_to_obtain_it(tmp_path: Path) -> None:
    check_refused(tmp_path, tmp_path / "nothing.zip", r"(?s)nothing.zip.*How to obtain FER2013")


def test_without_any_data_the_message_lists_the_places(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        prepare("fer2013", tmp_path / "data", FER2013Reader())
    for part in (str(tmp_path / "data"), str(tmp_path / "data" / "raw"), "kaggle.com"):
        assert part in str(error.value)


def check_refused(tmp_path: Path, raw: Path, message: str) -> None:
    """Preparation ends in an error with ``message`` and leaves no prepared dataset."""
    folder = tmp_path / "data" / "fer2013"
    with pytest.raises(FerError, match=message):
        prepare_fer(folder, raw)
    left = [path.name for path in folder.iterdir()] if folder.exists() else []
    assert left in ([], [".lock"])


@pytest.mark.parametrize("header", ["emotion,pixels", "pixels"])
def test_the_tables_of_the_challenge_are_answered_with_the_one_to_take(
    tmp_path: Path, rows: list[Row], header: str
) -> None:
    write_table(tmp_path / "raw" / "train.csv", rows, header)
    check_refused(tmp_path, tmp_path / "raw", r"train.csv: .*take icml_face_data.csv from the same")


def test_two_whole_tables_ask_for_one(tmp_path: Path, rows: list[Row]) -> None:
    for name in ("a.csv", "b.csv"):
        write_table(tmp_path / "raw" / name, rows)
    check_refused(tmp_path, tmp_path / "raw", r"expected one table .*found a.csv, b.csv")


@pytest.mark.parametrize(
    "data",
    [b"none", gzip.compress(b"x" * 2000)[:-9], b""],
    # Compressed data holds the second it was made in: workers would name the case differently.
    ids=["no archive", "cut off", "empty"],
)
def test_a_damaged_tar_archive_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "fer2013.tar.gz").write_bytes(data)
    check_refused(tmp_path, tmp_path / "fer2013.tar.gz", r"fer2013.tar.gz: expected an archive")


def test_emotions_beyond_the_seven_are_left_out_where_that_is_asked_for(
    tmp_path: Path, rows: list[Row]
) -> None:
    path = write_table(tmp_path / "ck.csv", rows)
    path.write_text(path.read_text() + "7," + " ".join(["9"] * 2304) + ",Training\n")
    check_refused(tmp_path, path, r"found '7' .*row 58\. .*dataset.drop_unknown=true")
    prepared = prepare_fer(tmp_path / "d", path, drop_unknown=True)
    assert len(prepared.entries) == len(rows)
    damaged = tmp_path / "damaged.csv"
    damaged.write_text(path.read_text().replace("\n7,", "\nx!,"))
    with pytest.raises(DataError, match=r"row 58: expected an emotion from 0 to 6, found 'x!'"):
        prepare_fer(tmp_path / "x", damaged, drop_unknown=True)
    assert prepared.integrity["excluded"] == {"their class '7' is not one of the seven emotions": 1}
    folder = write_folder(tmp_path / "raw", rows)
    Image.fromarray(rows[0][2]).save(write_file(folder / "train/contempt/Training_99.png", b""))
    assert len(prepare_fer(tmp_path / "e", folder, drop_unknown=True).entries) == len(rows)


def test_what_was_prepared_before_an_option_joined_is_found_again(
    tmp_path: Path, tiny_zip: Path
) -> None:
    reader = prepare_fer(tmp_path / "d", tiny_zip).integrity["origin"]["reader"]
    assert reader == {
        "class": "FER2013Reader", "val_fraction": 0.1, "split_seed": 0, "splits": "given"
    }  # fmt: skip
    assert FER2013Reader(drop_unknown=True).options()["drop_unknown"] is True
