from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.data import adoption, conversion
from fer.data import prepared as prepared_module
from fer.data.audit.integrity import earlier_and_own, exact_leaks, summarise
from fer.data.dataset import load_images
from fer.data.drawn.synthetic import generate
from fer.data.manifest import Entry, fingerprint, read_manifest
from fer.data.preparation import prepare
from fer.data.published import FER2013DataModule
from fer.data.readers.base import RawDataset
from fer.data.readers.fer2013 import FER2013Reader
from fer.data.readers.folder import FolderReader
from tests.conftest import Row, write_file, write_folder, write_zip


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file, but for the lock."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.usefixtures("tiny_ready")
def test_a_second_call_prepares_nothing(tmp_path: Path, tiny_zip: Path) -> None:
    first = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    before = state_of(tmp_path / "d")
    second = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    without_raw = prepare("fer2013", tmp_path / "d", FER2013Reader())
    assert state_of(tmp_path / "d") == before
    assert first.entries == second.entries == without_raw.entries


def test_other_raw_data_is_prepared_anew(tmp_path: Path, rows: list[Row]) -> None:
    first = prepare(
        "fer2013", tmp_path / "d", FER2013Reader(), raw=write_zip(tmp_path / "a.zip", rows)
    )
    fewer = write_zip(tmp_path / "b.zip", rows[1:])
    second = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=fewer)
    assert len(second.entries) == len(first.entries) - 1
    assert len(list((tmp_path / "d").glob("*/*/*.png"))) == len(second.entries)


def test_raw_data_is_not_modified(tmp_path: Path, rows: list[Row]) -> None:
    raw = write_folder(tmp_path / "raw", rows)
    before = state_of(raw)
    prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=raw)
    assert state_of(raw) == before


def test_what_a_killed_preparation_left_is_removed(tmp_path: Path, tiny_zip: Path) -> None:
    leftover = tmp_path / "d" / ".staging-1" / "train" / "happy"
    leftover.mkdir(parents=True)
    (leftover / "half.png").write_bytes(b"\x89PNG")
    prepared = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    assert not leftover.exists()
    assert "half" not in {entry.id for entry in prepared.entries}


@pytest.mark.usefixtures("tiny_ready")
@pytest.mark.parametrize("moved", range(len(prepared_module.PARTS) + 1))
def test_a_preparation_killed_while_it_moved_into_place_is_finished(
    tmp_path: Path, tiny_zip: Path, moved: int
) -> None:
    folder = tmp_path / "d"
    expected = prepare("fer2013", folder, FER2013Reader(), raw=tiny_zip)
    (folder / ".ready").mkdir()
    for part in prepared_module.PARTS[moved:]:  # as if the process had died here
        shutil.move(folder / part, folder / ".ready" / part)
    found = prepare("fer2013", folder, FER2013Reader())
    assert found.entries == expected.entries
    assert all((folder / file).is_file() for file in found.files)
    assert not (folder / ".ready").exists()


def test_an_error_keeps_the_dataset_that_was_there(tmp_path: Path, rows: list[Row]) -> None:
    good = write_folder(tmp_path / "good", rows)
    prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=good)
    before = state_of(tmp_path / "d")
    bad = write_folder(tmp_path / "bad", rows)
    sorted(bad.rglob("*.png"))[-1].write_bytes(b"")
    with pytest.raises(DataError, match="an empty file"):
        prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=bad)
    assert state_of(tmp_path / "d") == before


def test_worker_processes_give_the_same_dataset(
    tmp_path: Path, tiny_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = prepare("fer2013", tmp_path / "a", FER2013Reader(), raw=tiny_zip, workers=1)
    monkeypatch.setattr(conversion, "SMALL", 0)
    monkeypatch.setattr(conversion, "CHUNK", 10)
    pooled = prepare("fer2013", tmp_path / "b", FER2013Reader(), raw=tiny_zip, workers=2)
    assert pooled.entries == alone.entries


def test_an_error_in_a_worker_process_arrives_with_its_message(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_folder(tmp_path / "raw", rows)
    victim = sorted(raw.rglob("*.png"))[3]
    victim.write_bytes(b"no image")
    monkeypatch.setattr(conversion, "SMALL", 0)
    with pytest.raises(DataError, match=f"{victim.name}: expected an image"):
        prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=raw, workers=2)


def test_a_folder_prepared_elsewhere_is_loaded_and_left_alone(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fer2013"
    splits = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    for number, (usage, emotion, image) in enumerate(rows):
        place = folder / splits[usage] / emotion
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number % 3}{number}.png")
    before = state_of(folder)
    prepared = prepare("fer2013", folder, FER2013Reader())
    assert len(prepared.entries) == len(rows)
    assert {name: state_of(folder)[name] for name in before} == before
    pixels = {prepared.read(index).tobytes() for index in range(len(rows))}
    assert pixels == {image.tobytes() for _, _, image in rows}
    monkeypatch.delattr(adoption, "look_at")  # what was found is remembered
    again = prepare("fer2013", folder, FER2013Reader())
    assert again.entries == prepared.entries


def test_a_folder_prepared_elsewhere_is_never_replaced(tmp_path: Path, tiny_zip: Path) -> None:
    place = tmp_path / "d" / "train" / "happy"
    place.mkdir(parents=True)
    (place / "mine.png").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"without a manifest.csv"):
        prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    assert (place / "mine.png").read_bytes() == b"precious"


@pytest.mark.usefixtures("tiny_ready")
def test_a_damaged_manifest_is_named(tmp_path: Path, tiny_zip: Path) -> None:
    prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    manifest = tmp_path / "d" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",happy,", ",glad,", 1))
    with pytest.raises(DataError, match=r"manifest.csv: row \d+: .*'glad'"):
        read_manifest(manifest)


@pytest.mark.usefixtures("tiny_ready")
def test_a_manifest_that_was_changed_after_the_preparation_is_refused(
    tmp_path: Path, tiny_zip: Path
) -> None:
    prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    manifest = tmp_path / "d" / "manifest.csv"
    original = manifest.read_text()
    lines = original.splitlines(keepends=True)
    for changed in ("".join(lines[:-1]), original.replace(",angry,", ",happy,", 1)):
        manifest.write_text(changed)
        with pytest.raises(DataError, match=r"manifest.csv: .*changed after the preparation"):
            prepare("fer2013", tmp_path / "d", FER2013Reader())


@pytest.mark.usefixtures("tiny_ready")
def test_a_prepared_image_that_was_replaced_is_refused(tmp_path: Path, tiny_zip: Path) -> None:
    prepared = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    test_image = next(f for f in prepared.files if f.startswith("test/"))
    shutil.copy(tmp_path / "d" / test_image, tmp_path / "d" / prepared.files[0])
    with pytest.raises(DataError, match=r"expected the pixels that manifest.csv names"):
        load_images(prepared, 64, 1)


@pytest.mark.usefixtures("tiny_ready")
@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", None], ids=["empty", "cut", "half"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, tiny_zip: Path, damage: bytes | None
) -> None:
    prepared = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    expected = np.array(load_images(prepared, 64, 1))
    (cache,) = (tmp_path / "d" / ".cache").glob("images-*.npy")
    data = cache.read_bytes()
    cache.write_bytes(data[: len(data) // 2] if damage is None else damage)
    np.testing.assert_array_equal(load_images(prepared, 64, 1), expected)


@pytest.mark.usefixtures("tiny_ready")
def test_a_dataset_prepared_with_other_options_needs_its_raw_data(
    tmp_path: Path, tiny_zip: Path
) -> None:
    prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    with pytest.raises(DataError, match=r"prepared with others. Pass the raw data"):
        prepare("fer2013", tmp_path / "d", FER2013Reader(split_seed=1))


def test_drawn_data_and_raw_data_exclude_each_other(tmp_path: Path, tiny_zip: Path) -> None:
    generator = functools.partial(generate, "synthetic_a", train=7, val=7, test=7, seed=0)
    with pytest.raises(ConfigError, match=r"dataset.raw: expected none for synthetic_a"):
        prepare("synthetic_a", tmp_path / "d", FER2013Reader(), raw=tiny_zip, generator=generator)


@pytest.mark.parametrize("usage", ["Training", "PrivateTest"])
def test_a_folder_prepared_elsewhere_may_lack_an_emotion_in_test_but_not_in_train(
    tmp_path: Path, rows: list[Row], usage: str
) -> None:
    splits = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    for number, (own, emotion, image) in enumerate(rows):
        place = tmp_path / "d" / splits[own] / emotion
        place.mkdir(parents=True, exist_ok=True)
        if (own, emotion) != (usage, "sad"):
            Image.fromarray(image).save(place / f"{number}.png")
    data = FER2013DataModule(tmp_path / "d")
    data.prepare_data()
    data.setup()
    if usage == "Training":
        with pytest.raises(DataError, match=r"all seven emotions in 'train', found none of 'sad'"):
            data.check_accepted()
    else:
        data.check_accepted()
        assert data.prepared.integrity["counts"]["test"]["sad"] == 0


def entry(name: str, split: str, pixels: str, emotion: str = "happy") -> Entry:
    return Entry(name, emotion, split, "somewhere", pixels)


def test_the_fingerprint_ignores_names_and_order_but_not_content() -> None:
    one = [entry("a", "train", "x"), entry("b", "test", "y")]
    renamed = [entry("q", "test", "y"), entry("p", "train", "x")]
    assert fingerprint(one) == fingerprint(renamed)
    assert fingerprint(one) != fingerprint([entry("a", "train", "x"), entry("b", "test", "z")])
    assert fingerprint(one) != fingerprint([entry("a", "val", "x"), entry("b", "test", "y")])
    relabelled = [entry("a", "train", "x", "sad"), entry("b", "test", "y")]
    assert fingerprint(one) != fingerprint(relabelled)


def test_leaks_are_copies_in_an_earlier_split() -> None:
    entries = [
        entry("a", "train", "x"),
        entry("b", "val", "y"),
        entry("c", "test", "x"),
        entry("d", "test", "y"),
        entry("e", "test", "z"),
        entry("f", "test", "z"),  # a copy within the split is no leak
    ]
    leaks = {split: exact_leaks(*earlier_and_own(entries, split)) for split in ("val", "test")}
    assert leaks["test"].tolist() == [True, True, False, False]
    assert leaks["val"].tolist() == [False]


def test_duplicates_blanks_and_conflicts_are_counted(tmp_path: Path, rows: list[Row]) -> None:
    blank = np.full((48, 48), 7, np.uint8)
    copies: list[Row] = [
        ("PrivateTest", "sad", rows[0][2]),  # rows[0] is an angry training image
        ("Training", "angry", rows[0][2]),
        ("Training", "happy", blank),
    ]
    raw = write_folder(tmp_path / "raw", [*rows, *copies])
    found = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=raw).integrity
    assert found["duplicates"]["groups"] == 1
    assert found["duplicates"]["images"] == 3
    assert found["duplicates"]["groups_across_splits"] == 1
    assert found["duplicates"]["groups_with_conflicting_labels"] == 1
    (named,) = (line for line in summarise(found) if "dataset.conflicts=drop" in line)
    assert f"Training_{len(rows) + 1} angry" in named and f"PrivateTest_{len(rows)} sad" in named
    assert "leaves them out of every split" in named
    assert found["blank"] == [f"Training_{len(rows) + 2}"]
    assert found["matches_official_counts"] is False


# --- raw data that was changed --------------------------------------------------------------------


def own_faces(folder: Path, rows: list[Row]) -> Path:
    """Class folders with splits, as ``dataset=folder`` reads them."""
    splits = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    for number, (usage, emotion, image) in enumerate(rows):
        place = folder / splits[usage] / emotion
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return folder


def test_a_corrected_label_is_noticed_though_no_size_or_time_changed(
    tmp_path: Path, rows: list[Row]
) -> None:
    raw = own_faces(tmp_path / "raw", rows)
    first = prepare("mine", tmp_path / "d", FolderReader(), raw=raw)
    happy = sorted((raw / "train/happy").iterdir())[0]
    happy.rename(raw / "train/sad" / happy.name)
    second = prepare("mine", tmp_path / "d", FolderReader(), raw=raw)
    assert second.integrity["fingerprint"] != first.integrity["fingerprint"]
    assert [entry.emotion for entry in second.entries if entry.id == happy.stem] == ["sad"]


def test_changed_images_beside_a_table_are_noticed(tmp_path: Path, rows: list[Row]) -> None:
    raw = own_faces(tmp_path / "raw", rows)
    files = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*.png"))
    lines = [f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in files]
    (raw / "labels.csv").write_text("\n".join(["image,label,split", *lines]))
    first = prepare("mine", tmp_path / "d", FolderReader(), raw=raw / "labels.csv")
    again = prepare("mine", tmp_path / "d", FolderReader(), raw=raw / "labels.csv")
    assert again.entries == first.entries
    Image.new("L", (48, 48), 77).save(raw / files[0])
    second = prepare("mine", tmp_path / "d", FolderReader(), raw=raw / "labels.csv")
    assert second.integrity["fingerprint"] != first.integrity["fingerprint"]


def test_images_added_to_the_datasets_own_raw_folder_are_noticed(
    tmp_path: Path, rows: list[Row]
) -> None:
    raw = own_faces(tmp_path / "d/raw", rows)
    first = prepare("mine", tmp_path / "d", FolderReader())
    Image.new("L", (48, 48), 77).save(raw / "train/happy/new.png")
    second = prepare("mine", tmp_path / "d", FolderReader())
    assert len(second.entries) == len(first.entries) + 1
    shutil.rmtree(raw)  # prepared is enough
    assert prepare("mine", tmp_path / "d", FolderReader()).entries == second.entries


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "7"}, "expected as id each id once"),
        ({"id": "../outside"}, "one that safe_id"),
        ({"emotion": "contempt"}, "expected as emotion angry"),
        ({"split": "dev"}, "expected as split train, val, test"),
    ],
)
def test_a_readers_records_are_checked_before_anything_is_written(
    tmp_path: Path, rows: list[Row], change: dict[str, str], message: str
) -> None:
    class Wrong(FolderReader):
        def list(self, raw: Path) -> RawDataset:
            dataset = super().list(raw)
            dataset.records[0] = replace(dataset.records[0], **change)
            return dataset

    raw = own_faces(tmp_path / "raw", rows)
    with pytest.raises(DataError, match=message):
        prepare("mine", tmp_path / "d", Wrong(), raw=raw)
    assert not (tmp_path / "d/manifest.csv").exists()


def test_a_pipe_among_the_images_is_refused_not_waited_for(tmp_path: Path, rows: list[Row]) -> None:
    raw = own_faces(tmp_path / "raw", rows)
    os.mkfifo(raw / "train/happy/pipe.png")
    with pytest.raises(DataError, match=r"pipe.png: expected a file or a folder, found a pipe"):
        prepare("mine", tmp_path / "d", FolderReader(), raw=raw)


def test_a_flat_colour_is_blank(tmp_path: Path, rows: list[Row]) -> None:
    raw = own_faces(tmp_path / "raw", rows)
    Image.new("RGB", (40, 40), (200, 200, 20)).save(raw / "train/happy/yellow.png")
    assert prepare("mine", tmp_path / "d", FolderReader(), raw=raw).integrity["blank"] == ["yellow"]


@pytest.mark.usefixtures("tiny_ready")
def test_a_dataset_of_an_earlier_version_says_so(tmp_path: Path, tiny_zip: Path) -> None:
    prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    path = tmp_path / "d/integrity.json"
    content = json.loads(path.read_text())
    del content["origin"]["format"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="an earlier version of this program made it"):
        prepare("fer2013", tmp_path / "d", FER2013Reader())
    assert prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip).entries


def test_a_report_is_written_with_the_dataset_and_replaced_with_it(
    tmp_path: Path, tiny_zip: Path
) -> None:
    from fer.report.dataset_page import write_dataset_report

    folder = tmp_path / "d"
    prepare("fer2013", folder, FER2013Reader(), raw=tiny_zip, report=write_dataset_report)
    assert "Unknown copy" in (folder / "report.html").read_text()
    assert (folder / "figures/class_balance.png").is_file()
    prepare("fer2013", folder, FER2013Reader(split_seed=1), raw=tiny_zip)
    assert not (folder / "report.html").exists() and not (folder / "figures").exists()


@pytest.mark.parametrize("name", ["figures/mine.png", "report.html", "integrity.json"])
def test_what_somebody_else_put_there_is_not_replaced(
    tmp_path: Path, tiny_zip: Path, name: str
) -> None:
    mine = tmp_path / "mine"
    for path in (name, ".staging-area/notes.txt", ".cache/.x.tmp/thesis.txt"):
        (mine / path).parent.mkdir(parents=True, exist_ok=True)
        (mine / path).write_text("mine")
    before = state_of(mine)
    with pytest.raises(DataError, match=rf"found {name.split('/')[0]}. Move it elsewhere, or ch"):
        prepare("fer2013", mine, FER2013Reader(), raw=tiny_zip)
    assert state_of(mine) == before
    (mine / name).unlink()
    if "/" in name:
        (mine / name).parent.rmdir()
    load_images(prepare("fer2013", mine, FER2013Reader(), raw=tiny_zip), 48, 1)
    for kept in (".staging-area/notes.txt", ".cache/.x.tmp/thesis.txt"):
        assert (mine / kept).read_text() == "mine"


def test_drawing_does_not_replace_the_raw_data_of_a_real_dataset(
    tmp_path: Path, tiny_zip: Path
) -> None:
    (tmp_path / "d/raw").mkdir(parents=True)
    raw = Path(shutil.copy(tiny_zip, tmp_path / "d/raw/archive.zip"))
    prepare("fer2013", tmp_path / "d", FER2013Reader())
    generator = functools.partial(generate, "synthetic_a", train=7, val=7, test=7, seed=0)
    with pytest.raises(DataError, match=r"found raw\. Move it elsewhere"):
        prepare("synthetic_a", tmp_path / "d", FER2013Reader(), generator=generator)
    assert raw.read_bytes() == tiny_zip.read_bytes()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the parts of a JSON file are, two levels deep."""
    if path:
        yield path
    if isinstance(value, dict) and len(path) < 2:
        for key, one in value.items():
            yield from places(one, (*path, key))


@pytest.mark.usefixtures("tiny_ready")
@pytest.mark.parametrize("change", ["removed", None, 7, "x", [], {}])
def test_an_edited_report_is_one_message_or_does_no_harm(
    tmp_path: Path, tiny_zip: Path, change: Any
) -> None:
    prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    path = tmp_path / "d" / "integrity.json"
    whole = json.loads(path.read_text())
    refused = 0
    for *parents, key in places(whole):
        edited = json.loads(json.dumps(whole))
        node = edited
        for parent in parents:
            node = node[parent]
        if change == "removed":
            del node[key]
        else:
            node[key] = change
        path.write_text(json.dumps(edited))
        try:
            current = prepared_module.load_current(tmp_path / "d", whole["origin"], tiny_zip)
        except DataError as error:
            assert ".json: expected" in str(error) or "manifest.csv: expected" in str(error)
            assert "Delete" in str(error)
            refused += 1
        else:
            summarise((current or prepared_module.load(tmp_path / "d")).integrity)
    assert refused > 25
    for text in ("", "{", "[1]", "null"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"integrity.json: expected .*Delete"):
            prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)


def write_splits(folder: Path, names: Iterable[str]) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for emotion in labels.EMOTIONS:
            for name in names:
                path = folder / split / emotion / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return folder


def test_files_that_differ_in_their_suffix_alone_are_two_images_in_a_folder_made_elsewhere(
    tmp_path: Path,
) -> None:
    folder = write_splits(tmp_path / "d", ["0.png", "0.jpg", "1.png"])
    prepared = prepare("folder", folder, FolderReader())
    ids = [entry.id for entry in prepared.entries]
    assert len(set(ids)) == len(ids) == 63
    assert {"test_sad_0.png", "test_sad_0.jpg", "test_sad_1"} <= set(ids)


@pytest.mark.parametrize("name", ["integrity.json", "manifest.csv"])
def test_a_damaged_memory_of_a_folder_made_elsewhere_is_made_again(
    tmp_path: Path, name: str
) -> None:
    folder = write_splits(tmp_path / "d", ["0.png"])
    first = prepare("folder", folder, FolderReader())
    (memory,) = folder.glob(f".cache/adopted-*/{name}")
    memory.write_text("edited")
    again = prepare("folder", folder, FolderReader())
    assert again.entries == first.entries and again.integrity == first.integrity


@pytest.mark.parametrize("name", ["faces.zip", "fer2013.csv", "faces"])
def test_a_pipe_is_no_raw_data(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=r"found a pipe, socket or device"):
        prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tmp_path / name)
    with pytest.raises(DataError, match=r"found a pipe, socket or device"):
        prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tmp_path)


def test_a_users_own_figure_is_not_removed_with_those_of_a_report(
    tmp_path: Path, tiny_zip: Path, rows: list[Row]
) -> None:
    def report(folder: Path, entries: Any, integrity: Any, read: Any) -> None:
        (folder / "figures").mkdir()
        (folder / "figures/counts.png").write_bytes(b"ours")
        (folder / "report.html").write_text('<a href="figures/counts.png">')

    folder = tmp_path / "prepared"
    prepare("x", folder, FER2013Reader(), raw=tiny_zip, report=report)
    other = write_zip(tmp_path / "other.zip", [*rows, rows[0]])
    prepare("x", folder, FER2013Reader(), raw=other, report=report)
    (folder / "figures/mine.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"somebody else's .*found figures/mine\.png\. Move it"):
        prepare("x", folder, FER2013Reader(), raw=tiny_zip, report=report)
    assert (folder / "figures/mine.png").read_bytes() == b"mine"


def test_nothing_is_drawn_into_a_raw_folder_of_the_users_own(tmp_path: Path) -> None:
    draw = functools.partial(generate, name="synthetic_a", train=7, val=7, test=7, seed=0)
    mine = write_file(tmp_path / "mine/raw/archive.zip", b"mine")
    content = mine.read_bytes()
    with pytest.raises(DataError, match=r"somebody else's .*found raw"):
        prepare("x", tmp_path / "mine", FER2013Reader(), generator=draw)
    assert mine.read_bytes() == content
    # What a killed drawing has left is drawn again.
    (tmp_path / "mine/raw/.drawn").touch()
    assert len(prepare("x", tmp_path / "mine", FER2013Reader(), generator=draw).entries) == 21
