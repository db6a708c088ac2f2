"""RAF-DB in its public forms, in miniature: labels, splits, crops, attributes, bad input."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.data.manifest import Entry, read_manifest
from fer.data.preparation import prepare
from fer.data.prepared import Prepared
from fer.data.readers import rafdb
from fer.data.readers.base import RawDataset
from fer.data.readers.rafdb import BOXES, LIST_FILE, MANUAL, RAFDBReader
from tests.conftest import run_program, to_png, write_annotation, write_file, write_rafdb

EMOTION_OF_COLOUR = {
    30: "surprise", 60: "fear", 90: "disgust", 120: "happy", 150: "sad", 180: "angry",
    210: "neutral",
}  # fmt: skip
"""write_rafdb paints the top of each face in 30 times its RAF-DB code."""
FORMS = {"aligned": {}, "mirror": {"mirror": True}, "original": {"original": True}}
FIRST = "train_00001"
"""An image with label 1, surprise."""


def prepare_rafdb(folder: Path, raw: Path, *, undecodable: str = "error") -> Prepared:
    reader = RAFDBReader(val_fraction=0.2, margin=0.0)
    return prepare("rafdb", folder, reader, raw=raw, undecodable=undecodable)


def listed(raw: Path, **options: object) -> RawDataset:
    return RAFDBReader(**options).list(raw)  # type: ignore[arg-type]


def splits_of(prepared: Prepared) -> dict[str, tuple[str, str]]:
    return {entry.id: (entry.split, entry.emotion) for entry in prepared.entries}


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


# --- labels and splits -----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_mapped_by_name_in_every_form(tmp_path: Path, form: str) -> None:
    prepared = prepare_rafdb(tmp_path / "d", write_rafdb(tmp_path / "raw", **FORMS[form]))
    assert len(prepared.entries) == 70
    for index, entry in enumerate(prepared.entries):
        image = prepared.read(index)
        assert image.shape == (20, 20, 3)
        assert EMOTION_OF_COLOUR[int(image[0, 0, 0])] == entry.emotion


def test_every_form_prepares_to_the_same_dataset_and_split(tmp_path: Path) -> None:
    prepared = [
        prepare_rafdb(tmp_path / f"{form}_d", write_rafdb(tmp_path / form, **options))
        for form, options in FORMS.items()
    ]
    assert len({one.integrity["fingerprint"] for one in prepared}) == 1
    assert splits_of(prepared[0]) == splits_of(prepared[1]) == splits_of(prepared[2])


@pytest.mark.parametrize(
    ("form", "words", "size"),
    [
        ("aligned", "authors' tree, aligned images", 100),
        (
            "mirror",
            "mirror's tree, aligned images, labels as in train_labels.csv and test_labels.csv",
            100,
        ),
        ("original", r"authors' tree, original images cut out by their boxes (margin 0.1)", None),
    ],
)
def test_the_form_is_told_in_words_and_the_size_where_there_is_one(
    tmp_path: Path, form: str, words: str, size: int | None
) -> None:
    dataset = listed(write_rafdb(tmp_path / "raw", **FORMS[form]))
    assert (dataset.form, dataset.expected_size) == (words, size)
    assert dataset.official_protocol
    assert not dataset.warnings and not dataset.excluded


def test_validation_is_held_out_of_train_and_test_is_the_official_one(tmp_path: Path) -> None:
    prepared = prepare_rafdb(tmp_path / "d", write_rafdb(tmp_path / "raw", per_class=5))
    counts = Counter((entry.split, entry.emotion) for entry in prepared.entries)
    assert set(counts.values()) == {4, 1, 5}
    assert all(
        entry.id.startswith("test_") == (entry.split == "test") for entry in prepared.entries
    )


def test_neither_the_order_of_the_list_nor_how_it_was_saved_matters(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw")
    first = prepare_rafdb(tmp_path / "a", raw)
    path = raw / LIST_FILE
    lines = path.read_text().replace(" ", "\t").splitlines()
    random.Random(0).shuffle(lines)
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
    assert splits_of(prepare_rafdb(tmp_path / "b", raw)) == splits_of(first)


@given(
    per_class=st.lists(st.integers(1, 40), min_size=7, max_size=7),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 2**32 - 1),
    shuffled=st.randoms(use_true_random=False),
)
def test_a_hold_out_depends_on_the_ids_alone_and_takes_its_share_of_each_class(
    per_class: list[int], fraction: float, seed: int, shuffled: random.Random
) -> None:
    emotions = {
        f"train_{emotion}_{number}": emotion
        for emotion, count in zip(labels.EMOTIONS, per_class, strict=True)
        for number in range(count)
    }
    holder = RAFDBReader(val_fraction=fraction, split_seed=seed)
    chosen = holder.choose(emotions, emotions)
    ids = list(emotions)
    shuffled.shuffle(ids)
    assert holder.choose(ids, emotions) == chosen
    taken = Counter(emotions[name] for name in chosen)
    for emotion, count in zip(labels.EMOTIONS, per_class, strict=True):
        # One stays wherever there are two.
        assert taken[emotion] == max(1, min(round(fraction * count), count - 1))


def test_where_the_data_lie_is_found(tmp_path: Path) -> None:
    """The authors' whole distribution, whose compound set has files of the same names."""
    write_rafdb(tmp_path / "raf" / "basic")
    write_rafdb(tmp_path / "raf" / "compound", mirror=False)
    write_rafdb(tmp_path / "mirror", mirror=True)
    reader = RAFDBReader()
    assert reader.find(tmp_path / "raf") == tmp_path / "raf" / "basic"
    assert reader.find(tmp_path / "mirror" / "DATASET") == tmp_path / "mirror" / "DATASET"
    assert reader.find(tmp_path / "nowhere") is None
    inner = listed(tmp_path / "mirror" / "DATASET")
    assert {r.id: r.split for r in inner.records} == {
        r.id: r.split for r in listed(tmp_path / "mirror").records
    }


def test_several_copies_are_not_chosen_from(tmp_path: Path) -> None:
    write_rafdb(tmp_path / "one")
    write_rafdb(tmp_path / "two", mirror=True)
    with pytest.raises(DataError, match=r"expected one copy .*found 2: one, two\. Pass"):
        listed(tmp_path)
    write_rafdb(tmp_path / "one", mirror=True)
    with pytest.raises(DataError, match=r"found two: .*Move one of them elsewhere"):
        listed(tmp_path / "one")


def test_a_mirror_s_tables_may_name_images_without_aligned(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", mirror=True)
    before = listed(raw)
    for table in raw.rglob("*_labels.csv"):
        table.write_text(table.read_text().replace("_aligned", ""))
    assert listed(raw).records == before.records


@pytest.mark.parametrize("form", FORMS)
def test_suffixes_in_capitals_links_and_long_or_foreign_names_are_read(
    tmp_path: Path, form: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", **FORMS[form])
    long, foreign = "train_" + "x" * 200, "train_été顔"
    for number, name in ((1, long), (2, foreign)):
        old = f"train_{number:05d}"
        for path in sorted(raw.rglob(f"{old}*")):
            path.rename(path.with_name(path.name.replace(old, name).replace(".jpg", ".JPG")))
        for table in (raw / LIST_FILE, raw / "train_labels.csv"):
            if table.exists():
                edit(table, lambda text, old=old, name=name: text.replace(old, name))  # type: ignore[misc]
    pictures = next(path for path in raw.rglob("train_00003*") if path.suffix == ".jpg").parent
    pictures.rename(tmp_path / "elsewhere")
    pictures.symlink_to(tmp_path / "elsewhere")
    prepared = prepare_rafdb(tmp_path / "d", raw)
    names = [entry.id for entry in prepared.entries]
    assert len(names) == 70
    assert foreign in names
    assert any(name.startswith("train_xxx") and len(name) <= 120 for name in names)


# --- crops of the originals ------------------------------------------------------------------


def pattern(width: int, height: int) -> np.ndarray:
    """A picture in which a pixel's colour is its place: red x, green y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 9)], axis=-1).astype(np.uint8)


def write_original(raw: Path, image: np.ndarray, box: str, orientation: int = 1) -> Path:
    """Replace the photograph of FIRST and its box."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(buffer, format="PNG", exif=exif)
    write_file(raw / "Image/original" / f"{FIRST}.jpg", buffer.getvalue())
    write_file(raw / BOXES / f"{FIRST}_boundingbox.txt", box.encode())
    return raw


def read_first(raw: Path, **options: object) -> np.ndarray:
    """The face of FIRST, as a worker process would read it."""
    dataset = listed(raw, images="original", **options)
    record = next(record for record in dataset.records if record.id == FIRST)
    source, record = pickle.loads(pickle.dumps((dataset.source, record)))
    image = source.read(record)
    assert isinstance(image, np.ndarray) and image.dtype == np.uint8
    return image


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rafdb(tmp_path_factory.mktemp("originals"), original=True)


@pytest.mark.parametrize(
    ("box", "margin", "left", "top", "side"),
    [
        ("20 10 50 40", 0.0, 20, 10, 30),
        ("20.0\t10.0\t50.0\t40.0\t\r\n", 0.0, 20, 10, 30),
        ("20\n10\n50\n40\n", 0.0, 20, 10, 30),
        ("20 10 50 40", 0.1, 17, 7, 36),  # 3 pixels more on each side
        ("20 10 40 40", 0.0, 15, 10, 30),  # a tall box: as wide as it is high
        ("20 10 50 30", 0.2, 14, -1, 42),  # a wide one, with a margin beyond the top
        ("20.4 10.4 50.2 40.2", 0.0, 20, 10, 30),
        ("20.6 10.6 50.6 40.6", 0.0, 21, 11, 30),
        ("19.5 10.5 49.5 40.5", 0.0, 20, 11, 30),  # halves go to the right and down
        ("-8 -6 12 14", 0.0, -8, -6, 20),  # beyond the left and the top
        ("70 45 100 75", 0.0, 70, 45, 30),  # beyond the right and the bottom
        ("-10 -20 100 90", 0.0, -10, -20, 110),  # around the whole picture
        ("30.2 30.2 30.4 30.4", 0.0, 30, 30, 1),
    ],
)
def test_the_crop_is_the_square_around_the_box_to_the_pixel(
    originals: Path, box: str, margin: float, left: int, top: int, side: int
) -> None:
    image = read_first(write_original(originals, pattern(80, 60), box), margin=margin)
    assert image.shape == (side, side, 3)
    columns = np.clip(np.arange(left, left + side), 0, 79)  # the border is repeated
    rows = np.clip(np.arange(top, top + side), 0, 59)
    assert (image[..., 0] == columns).all()
    assert (image[..., 1] == rows[:, None]).all()
    assert (image[..., 2] == 9).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_refers_to_the_stored_pixels_and_the_face_is_turned_upright(
    originals: Path, orientation: int
) -> None:
    upright = Image.fromarray(pattern(80, 60))
    undo = {  # how the upright picture is stored
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    pixels = np.asarray(stored)
    inside = (abs(pixels[..., 0] - 34.5) < 15) & (abs(pixels[..., 1] - 24.5) < 15)
    rows, columns = np.nonzero(inside)  # where x 20–49 and y 10–39 are stored
    box = f"{columns.min()} {rows.min()} {columns.max() + 1} {rows.max() + 1}"
    image = read_first(write_original(originals, pixels, box, orientation), margin=0.0)
    assert np.array_equal(image, pattern(80, 60)[10:40, 20:50])


def test_a_gray_photograph_is_read_as_colour(originals: Path) -> None:
    image = read_first(write_original(originals, pattern(80, 60)[..., 0], "20 10 50 40"))
    assert image.shape == (36, 36, 3)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("90 10 120 40", r"expected a box in the picture of 80 x 60 pixels, .*found 90 10 120 40"),
        ("20 -40 50 0", r"found 20 -40 50 0"),
        ("-1e6 10 50 40", r"expected a box .* at most 7,071 pixels"),
    ],
)
def test_a_box_that_does_not_fit_its_picture_is_named(
    originals: Path, box: str, message: str
) -> None:
    with pytest.raises(DataError, match=rf"{FIRST}_boundingbox\.txt: .*{message}"):
        read_first(write_original(originals, pattern(80, 60), box))


@pytest.mark.parametrize(
    "box",
    [
        *("20 10 20 40", "50 10 20 40", "20 10 nan 40", "20 10 inf 40", "20 10 x 40"),
        *("20,5 10 50 40", "20 10 50", "20 10 50 40 1", ""),
    ],
)
def test_a_file_that_holds_no_box_is_named(tmp_path: Path, box: str) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, original=True)
    path = write_file(raw / BOXES / f"{FIRST}_boundingbox.txt", box.encode())
    with pytest.raises(DataError, match=rf"{path.name}: expected a bounding box .* found '{box}'"):
        listed(raw)
    path.write_bytes(b"\xff\xfe2\x000\x00")
    with pytest.raises(DataError, match=rf"{path.name}: .* as UTF-8 text, found another encoding"):
        listed(raw)


def test_a_box_outside_can_be_left_out_on_request(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", original=True)
    write_file(raw / BOXES / f"{FIRST}_boundingbox.txt", b"900 900 910 910")
    prepared = prepare_rafdb(tmp_path / "d", raw, undecodable="drop")
    assert len(prepared.entries) == 69
    assert "expected a box in the picture" in prepared.integrity["undecodable"][0]["error"]


def test_a_changed_box_makes_a_new_preparation(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", original=True)
    first = prepare_rafdb(tmp_path / "d", raw)
    path = write_file(raw / BOXES / f"{FIRST}_boundingbox.txt", b"9 4 27 24 \n")
    second = prepare_rafdb(tmp_path / "d", raw)
    assert second.integrity["fingerprint"] != first.integrity["fingerprint"]
    signature = second.integrity["source"]["signature"]
    assert signature != first.integrity["source"]["signature"]
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert prepare_rafdb(tmp_path / "d", raw).integrity["source"]["signature"] != signature


# --- alignment of the eyes -------------------------------------------------------------------

MARKS = {"left": (255, 0, 0), "right": (0, 255, 0), "mouth": (0, 0, 255)}


def draw_turned_face(
    raw: Path, degrees: float, apart: float, *, eyes_swapped: bool = False, orientation: int = 1
) -> None:
    """A photograph of FIRST with a disk at each eye and at the mouth, turned about its middle."""
    step = np.exp(1j * math.radians(degrees)) * apart
    middle = 203 + 151j
    places = {
        "left": middle - 0.5 * step,
        "right": middle + 0.5 * step,
        "mouth": middle + 1j * step,
    }
    y, x = np.mgrid[:300, :400] + 0.5  # the middle of each pixel
    image = np.full((300, 400, 3), 90, np.uint8)
    for name, place in places.items():
        image[np.hypot(x - place.real, y - place.imag) < 0.12 * apart] = MARKS[name]
    write_original(raw, image, "0 0 400 300", orientation)
    eyes = ["right", "left"] if eyes_swapped else ["left", "right"]
    points = [places[name] for name in (*eyes, "mouth", "mouth", "mouth")]
    rows = [f"{point.real:.3f} {point.imag:.3f}\n" for point in points]
    write_file(raw / MANUAL / f"{FIRST}_manu_attri.txt", "".join([*rows, "0\n1\n2\n"]).encode())


def find_marks(image: np.ndarray) -> dict[str, tuple[float, float]]:
    """Centre of each disk, with pixel i covering i to i + 1."""
    found = {}
    for name, colour in MARKS.items():
        weight = np.clip(255.0 - np.abs(image - np.array(colour, float)).max(axis=-1), 0, None)
        weight[weight < 120] = 0
        y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
        found[name] = tuple(float((weight * axis).sum() / weight.sum()) for axis in (x, y))
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("eyes_swapped", [False, True], ids=["left-first", "right-first"])
@pytest.mark.parametrize("apart", [20.0, 32.0, 110.0], ids=["small", "same", "large"])
@pytest.mark.parametrize("degrees", [0, 25, -40, 90, 180])
def test_the_eyes_are_level_at_their_places_however_a_face_is_turned(
    originals: Path, degrees: float, apart: float, eyes_swapped: bool
) -> None:
    draw_turned_face(originals, degrees, apart, eyes_swapped=eyes_swapped)
    image = read_first(originals, align_eyes=True)
    assert image.shape == (100, 100, 3)
    found = find_marks(image)
    assert found["left"] == pytest.approx((34.0, 38.0), abs=0.4)
    assert found["right"] == pytest.approx((66.0, 38.0), abs=0.4)
    assert found["mouth"] == pytest.approx((50.0, 70.0), abs=0.4)


def test_a_photograph_stored_on_its_side_is_aligned_too(originals: Path) -> None:
    draw_turned_face(originals, 90, 40.0, orientation=6)
    assert find_marks(read_first(originals, align_eyes=True))["left"] == pytest.approx(
        (34.0, 38.0), abs=0.4
    )


def test_a_face_that_shrinks_is_averaged_and_beyond_the_picture_its_border_is_repeated(
    originals: Path,
) -> None:
    draw_turned_face(originals, 0, 160.0)
    path = originals / "Image/original" / f"{FIRST}.jpg"
    y, x = np.mgrid[:300, :400]
    checks = np.where((x + y) % 2, 0, 200).astype(np.uint8)
    checks[0] = 40  # the picture ends far below the top of the aligned face
    write_file(path, to_png(checks))
    image = read_first(originals, align_eyes=True)
    assert abs(image[20:90, 15:85].astype(int) - 100).max() <= 25  # sampled alone: 100
    assert (image[:6] == 40).all()


def test_aligned_eyes_are_told_and_have_one_size(originals: Path) -> None:
    dataset = listed(originals, align_eyes=True)
    assert dataset.form == "authors' tree, original images with the eyes aligned"
    assert dataset.expected_size == 100


@pytest.mark.parametrize("eyes", ["10 10\n10 10", "-5 10\n20 10", "10 10\n500 10"])
def test_eyes_that_cannot_be_are_named(originals: Path, eyes: str) -> None:
    write_original(originals, pattern(80, 60), "0 0 80 60")
    write_file(
        originals / MANUAL / f"{FIRST}_manu_attri.txt",
        f"{eyes}\n17 14\n13 19\n21 19\n0\n0\n0\n".encode(),
    )
    with pytest.raises(DataError, match=rf"{FIRST}_manu_attri\.txt: expected two eyes .* found"):
        read_first(originals, align_eyes=True)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: path.unlink(), r"found no train_00001_manu_attri .*Unpack manual\.zip"),
        (
            lambda path: path.write_text("1 2\n"),
            r"expected x and y of five landmarks .*, found '1 2'",
        ),
    ],
    ids=["missing", "malformed"],
)
def test_alignment_needs_the_landmarks_of_every_image(
    tmp_path: Path, break_it: Callable[[Path], object], message: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, original=True)
    break_it(raw / MANUAL / f"{FIRST}_manu_attri.txt")
    with pytest.raises(DataError, match=message):
        listed(raw, align_eyes=True)


# --- attributes ------------------------------------------------------------------------------


def attributes(entry: Entry) -> tuple[str, str, str]:
    return entry.gender, entry.race, entry.age


@pytest.mark.parametrize("original", [False, True], ids=["aligned", "original"])
def test_attributes_travel_into_the_manifest_in_words(tmp_path: Path, original: bool) -> None:
    raw = write_rafdb(tmp_path / "raw", original=original)
    expected = {}
    for number in range(1, 36):
        gender, race, age = number % 3, (number // 3) % 3, number % 5
        codes = f"{gender}\r\n{race}\t\r\n{age}"
        write_annotation(raw, f"train_{number:05d}", "7 4 27 24", codes)
        expected[f"train_{number:05d}"] = (
            ("male", "female", "unsure")[gender],
            ("Caucasian", "African-American", "Asian")[race],
            ("0-3", "4-19", "20-39", "40-69", "70+")[age],
        )
    prepared = prepare_rafdb(tmp_path / "d", raw)
    entries = read_manifest(tmp_path / "d" / "manifest.csv")
    found = {entry.id: attributes(entry) for entry in entries if entry.split != "test"}
    assert found == expected
    warnings = prepared.integrity["warnings"]
    if original:
        assert warnings == []
    else:  # those of test were not written
        assert len(warnings) == 1
        assert warnings[0].startswith("35 of 70 images have no file in Annotation/manual/")


@pytest.mark.parametrize("form", FORMS)
def test_without_annotations_attributes_are_empty_and_nothing_is_warned_of(
    tmp_path: Path, form: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", **FORMS[form])
    for path in raw.rglob("*_manu_attri.txt"):
        path.unlink()
    dataset = listed(raw)
    assert {(r.gender, r.race, r.age) for r in dataset.records} == {("", "", "")}
    assert dataset.warnings == []


@pytest.mark.parametrize(
    "codes", ["3 3 0 0", "3 0 3 0", "3 0 0 5", "3 0 0 0.5", "3 0 0", "x 0 0 0"]
)
def test_malformed_attributes_are_left_empty_and_reported(tmp_path: Path, codes: str) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, original=True)
    content = f"1 1 2 1 1 2 1 3 2 {codes}"
    write_file(raw / MANUAL / f"{FIRST}_manu_attri.txt", content.encode())
    dataset = listed(raw)
    (warning,) = dataset.warnings
    assert warning.startswith("1 of 28 images have no file in Annotation/manual/ that can be used")
    assert (
        f"a code each for gender (0 to 2), race (0 to 2), age (0 to 4), found '{content}'"
        in warning
    )
    empty = [record.id for record in dataset.records if not record.age]
    assert empty == [FIRST]


# --- what is wrong with the authors' tree ----------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train_00001.jpg 1",
            r"expected each image once, found 'train_00001' again: 'surprise' here, 'surprise' "
            r"in .*line 1",
        ),
        ("train_00001.jpg 5", r".* again: 'sad' here, 'surprise' in .*line 1\. Remove one"),
        ("train_00001.jpg", r"expected the name of an image .* and a label .*jpg' and ''"),
        ("train_00001 copy.jpg 3", r".* and a label .*found 'train_00001' and 'copy.jpg 3'"),
        ("train_00099.jpg 0", r".* a label from 1 to 7, found .* '0'\. Correct"),
        ("train_00099.jpg 8", r".* a label from 1 to 7, found .* '8'\. .*RAF-DB's compound set"),
        ("train_00099.jpg happy", r".* a label from 1 to 7, found .* 'happy'"),
        ("train_00099.jpg 1.0", r".* a label from 1 to 7, found .* '1\.0'"),
        ("face_1.jpg 3", r".* starts with train_ or test_ .*, found 'face_1"),
        ("train.jpg 3", r".* starts with train_ or test_ .*, found 'train.jpg"),
        ("../train_00001.jpg 3", r"expected the name of an image"),
        ("train_00001 3", r"expected the name of an image"),
    ],
)
def test_a_wrong_line_of_the_label_list_is_named(tmp_path: Path, line: str, message: str) -> None:
    raw = write_rafdb(tmp_path / "raw")
    with (raw / LIST_FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=rf"{LIST_FILE}: line 71: {message}"):
        prepare_rafdb(tmp_path / "d", raw)
    assert not (tmp_path / "d" / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r".*a line for each image, .*found none"),
        (b"\n \r\n", r".*a line for each image, .*found none"),
        ("train_é.jpg 1\n".encode("latin-1"), r".*UTF-8 text, found another encoding"),
        ("train_00001.jpg 1\n".encode("utf-16"), r".*UTF-8 text, found another encoding"),
    ],
)
def test_a_label_list_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", 2)
    write_file(raw / LIST_FILE, content)
    with pytest.raises(DataError, match=rf"{LIST_FILE}: expected {message}"):
        listed(raw)


@pytest.mark.parametrize("form", ["aligned", "original"])
def test_images_without_a_label_are_left_out_and_counted(tmp_path: Path, form: str) -> None:
    raw = write_rafdb(tmp_path / "raw", **FORMS[form])
    edit(raw / LIST_FILE, lambda text: text.replace("train_00001.jpg 1\ntrain_00002.jpg 1\n", ""))
    (raw / "Image" / form / "notes.txt").write_text("mine")
    prepared = prepare_rafdb(tmp_path / "d", raw)
    assert len(prepared.entries) == 68
    ((reason, count),) = prepared.integrity["excluded"].items()
    assert count == 2 and "has no line" in reason and form in reason
    assert f"Left out because {reason}: 2 images." in prepared.integrity["warnings"]
    assert any("1 files below" in line for line in prepared.integrity["warnings"])


def test_an_image_in_two_formats_is_refused(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", 2)
    write_file(raw / "Image/aligned/train_00001_aligned.png", to_png(pattern(20, 20)))
    with pytest.raises(DataError, match=r"each image once, found '.*jpg' and '.*png'\. Remove"):
        listed(raw)


def remove(raw: Path, folder: str, keep: int) -> None:
    """Leave as much of a folder as an interrupted unpacking does."""
    for path in sorted((raw / folder).iterdir())[keep:]:
        path.unlink()
    if keep == 0:
        (raw / folder).rmdir()
    (raw / f"{folder}.zip").write_bytes(b"PK")


@pytest.mark.parametrize(
    ("form", "folder", "keep", "options", "message"),
    [
        ("aligned", "Image/aligned", 3, {}, r"25 of 28 files are missing.*aligned\.zip"),
        ("aligned", "Image/aligned", 0, {}, r"found none\. Unpack aligned\.zip there"),
        (
            "original",
            "Image/original",
            3,
            {},
            r"25 of 28 files .*Unpack original\.zip.* or remove the line",
        ),
        ("original", BOXES, 3, {}, r"25 of 28 files are missing\)\. Unpack boundingbox"),
        ("original", BOXES, 0, {}, r"28 of 28 files are missing.*images=aligned"),
        ("original", MANUAL, 3, {"align_eyes": True}, r"25 of 28 files .*align_eyes=false"),
        ("original", MANUAL, 0, {"align_eyes": True}, r"28 of 28 files .*manual\.zip"),
        ("aligned", "Image/aligned", 0, {"images": "aligned"}, r"expected a folder of images"),
    ],
)
def test_a_copy_that_was_unpacked_in_part_is_refused(
    tmp_path: Path, form: str, folder: str, keep: int, options: dict[str, object], message: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, **FORMS[form])
    remove(raw, folder, keep)
    with pytest.raises(DataError, match=message):
        listed(raw, **options)


@pytest.mark.parametrize(
    ("form", "images", "message"),
    [
        ("original", "aligned", r"Image/aligned: .*found none.*images=auto"),
        ("aligned", "original", r"Image/original: .*found none.*images=auto"),
    ],
)
def test_images_that_are_not_there_are_not_replaced_by_others(
    tmp_path: Path, form: str, images: str, message: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, **FORMS[form])
    with pytest.raises(DataError, match=message):
        listed(raw, images=images)


def test_an_empty_folder_of_images_is_refused(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, original=True)
    (raw / "Image/aligned").mkdir()
    with pytest.raises(DataError, match=r"aligned: expected a file for each image.*\(28 of 28"):
        listed(raw)


def test_aligned_images_are_taken_where_both_are_there(tmp_path: Path) -> None:
    raw = write_rafdb(write_rafdb(tmp_path / "raw", 2, original=True), 2)
    assert listed(raw).form == "authors' tree, aligned images"
    assert "original images" in listed(raw, images="original").form
    assert "eyes" in listed(raw, images="original", align_eyes=True).form


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("mirror", {"images": "original"}, r"expected a folder of images, found none.*images=auto"),
        ("mirror", {"align_eyes": True}, r"align_eyes: expected original images to align"),
        ("aligned", {"align_eyes": True}, r"align_eyes: expected original images to align"),
        (
            "aligned",
            {"align_eyes": True, "images": "aligned"},
            r"align_eyes: .* read for its aligned",
        ),
        ("aligned", {"images": "originals"}, r"expected one of auto, aligned, original, found"),
        ("aligned", {"margin": -0.1}, r"margin: expected a share .* from 0 to 1, found -0\.1"),
        ("aligned", {"margin": float("nan")}, r"margin: expected a share .*, found nan"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(
    tmp_path: Path, form: str, options: dict[str, object], message: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, **FORMS[form])
    with pytest.raises((ConfigError, DataError), match=message):
        listed(raw, **options)


def test_a_folder_that_is_no_rafdb_is_answered_with_both_layouts(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "basic.zip").write_bytes(b"PK")
    with pytest.raises(
        DataError, match=r"(?s)list_patition_label.txt.*DATASET/train.*Found basic\.zip\. Unpack"
    ):
        prepare_rafdb(tmp_path / "d", tmp_path / "raw")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", 2)
    with pytest.raises(DataError, match=r"expected a folder with RAF-DB.*Found a file"):
        listed(raw / LIST_FILE)


@pytest.mark.parametrize("form", FORMS)
def test_a_link_back_to_a_folder_above_is_refused(tmp_path: Path, form: str) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, **FORMS[form])
    pictures = next(raw.rglob("train_00001*.jpg")).parent
    (pictures / "loop").symlink_to(pictures)
    with pytest.raises(DataError, match=r"symbolic link that leads back"):
        listed(raw)


@pytest.mark.parametrize("form", FORMS)
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, form: str) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, **FORMS[form])
    path = next(path for path in raw.rglob(f"{FIRST}*") if path.suffix == ".jpg")
    path.write_bytes(b"\xff\xd8 half a JPEG")
    with pytest.raises(DataError, match=rf"{path.name}: expected an image"):
        prepare_rafdb(tmp_path / "d", raw)


# --- what is wrong with the mirror's tree ----------------------------------------------------


def test_an_image_in_two_class_folders_is_refused(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", mirror=True)
    Image.new("RGB", (20, 20)).save(raw / "DATASET/train/7/train_00001_aligned.jpg")
    with pytest.raises(
        DataError, match=r"/7/.* found 'train_00001' again: 'neutral' here, 'surprise' in .*/1/"
    ):
        prepare_rafdb(tmp_path / "d", raw)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("train/0/train_9_aligned.jpg", r"a label from 1 to 7, found .* '0'"),
        ("train/8/train_9_aligned.jpg", r"a label from 1 to 7, found .* '8'"),
        ("test/happy/test_9_aligned.jpg", r"'happy'\. .*dataset=folder"),
        ("train/1/0001.jpg", r"starts with train_ .*, found '0001\.jpg' .*dataset=folder"),
        ("train/1/test_9_aligned.jpg", r"starts with train_ .*, found 'test_9_aligned.jpg'"),
    ],
)
def test_an_image_at_a_wrong_place_of_the_mirror_is_named(
    tmp_path: Path, place: str, message: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, mirror=True)
    write_file(raw / "DATASET" / place, to_png(pattern(20, 20)))
    with pytest.raises(DataError, match=rf"{place}: expected .*{message}"):
        listed(raw)


def test_the_advice_for_renamed_files_is_one_that_hydra_reads() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    text = rafdb.CORRECT.split("'dataset")[1].split("'")[0]
    value = OverridesParser.create().parse_override(f"dataset{text}").value()
    assert isinstance(value, dict)
    assert {str(code): emotion for code, emotion in value.items()} == rafdb.CODES


def test_images_elsewhere_in_the_mirror_are_left_out_and_counted(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, mirror=True)
    for place in ("val/1/train_9_aligned.jpg", "train/train_8_aligned.JPG", "cover.png"):
        write_file(raw / "DATASET" / place, to_png(pattern(20, 20)))
    write_file(raw / "DATASET" / "train/1/notes.txt", b"mine")
    dataset = listed(raw)
    assert len(dataset.records) == 28
    assert list(dataset.excluded.values()) == [3]
    assert "1 files below" in dataset.warnings[0]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("inside", [False, True], ids=["parent", "DATASET"])
def test_a_mirror_without_one_of_its_halves_is_refused(
    tmp_path: Path, split: str, inside: bool
) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, mirror=True)
    (raw / "DATASET" / split).rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"expected a folder with RAF-DB.*train/<1..7>/ and"):
        listed(raw / "DATASET" if inside else raw)


def test_the_tables_may_be_missing_or_lie_in_the_folder(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, mirror=True)
    before = listed(raw).records
    (raw / "train_labels.csv").rename(raw / "DATASET" / "train_labels.csv")
    (raw / "test_labels.csv").unlink()
    dataset = listed(raw)
    assert dataset.form.endswith("labels as in DATASET/train_labels.csv")
    assert dataset.records == before
    assert not dataset.warnings
    edit(raw / "DATASET" / "train_labels.csv", lambda text: text.replace(",1", ",2"))
    for place in (raw, raw / "DATASET"):
        with pytest.raises(DataError, match=r"found 'train_00001' .*'1' in the folders"):
            listed(place)
    (raw / "DATASET" / "train_labels.csv").unlink()
    assert listed(raw).form == "mirror's tree, aligned images"
    assert listed(raw).records == before


def test_how_a_table_was_saved_does_not_matter(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, mirror=True)
    before = listed(raw).records
    path = raw / "train_labels.csv"
    lines = path.read_text().splitlines()
    random.Random(1).shuffle(lines[1:])
    numbered = [f"{number},{line}" for number, line in enumerate(lines)]
    numbered[0] = ",Image,Label"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*numbered, ""]).encode())
    assert listed(raw).records == before
    more = ["image,label,split,age,age", *(f"{line},fold1,20,30" for line in lines[1:])]
    path.write_text("\n".join(more) + "\n")
    assert listed(raw).records == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.replace("train_00001_aligned.jpg,1", "train_00001_aligned.jpg,5"),
            r"expected the images and labels of the folders, found "
            r"'train_00001' with the label '1' in the folders alone \(the first of 2 diff",
        ),
        (lambda t: t + "train_00099_aligned.jpg,1\n", r".*'train_00099' .* in the table alone"),
        (lambda t: t + "test_0001_aligned.jpg,1\n", r".*'test_0001' .* in the table alone"),
        (
            lambda t: t + "train_00001_aligned.jpg,3\n",
            r".* '3' in the table alone \(the first of 1 ",
        ),
        (lambda t: t.replace(",1", ",8"), r".*\(the first of 4 differences"),
        (lambda t: t.replace(",1", ","), r"row 2: expected an image, a label.*, ''"),
        (lambda t: t.replace(",1", ""), r"row 2: expected 2 cells .*, found 1"),
        (lambda t: t.replace("image,label", "file,emotion"), r".*found 'file,emotion'\. Name them"),
        (lambda t: "", r"expected the columns image and label .*, found ''"),
        (
            lambda t: t.replace("train_00001_aligned.jpg,1\n", ""),
            r".* in the folders alone \(the first of 1 ",
        ),
        (lambda t: "image,label\n", r".*'train_00001' .* folders alone .*of 14 diff"),
        (lambda t: t + "x" * 200_000, r"row 16: expected cells separated by ',', found: field"),
    ],
)
def test_a_table_that_does_not_agree_with_the_folders_is_refused(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, mirror=True)
    edit(raw / "train_labels.csv", change)
    with pytest.raises(DataError, match=rf"train_labels\.csv: {message}") as caught:
        listed(raw)
    assert len(str(caught.value)) < 1000


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, mirror=True)
    write_file(raw / "test_labels.csv", "image,label\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"test_labels\.csv: .*save the table as UTF-8"):
        listed(raw)


# --- the program -----------------------------------------------------------------------------


@pytest.mark.slow
def test_training_runs_on_faces_cut_out_of_the_originals(tmp_path: Path) -> None:
    raw = write_rafdb(tmp_path / "raw", 2, original=True)
    write_original(raw, pattern(80, 60), "20 10 51.5 40")  # another size than the others
    run_program(
        "train.py", "dataset=rafdb", f"dataset.raw={raw}", "dataset.reader.images=original",
        "dataset.reader.margin=0.2", "hydra.run.dir=run", "model.widths=[4,8,8,8]",
        "model.image_size=32", "trainer.max_epochs=2", "loader.batch_size=7",
        "metrics.resamples=100", cwd=tmp_path,
    )  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["dataset"], metrics["split"], metrics["samples"]) == ("rafdb", "test", 14)
    assert list(metrics["per_class"]) == list(labels.EMOTIONS)
    assert {row["support"] for row in metrics["per_class"].values()} == {2}
    assert sum(map(sum, metrics["confusion_matrix"])) == 14
    for key in ("accuracy", "macro_f1", "micro_f1", "balanced_accuracy"):
        assert 0 <= metrics[key] <= 1
        assert len(metrics["confidence_intervals"][key]) == 2
    assert "without_leaks" in metrics and "expected_calibration_error" in metrics
    integrity = json.loads((tmp_path / "data/rafdb/integrity.json").read_text())
    assert integrity["source"]["form"].endswith("cut out by their boxes (margin 0.2)")
    assert set(integrity["sizes"]) == {"28x28", "44x44"}


@pytest.mark.parametrize("mirror", [False, True])
def test_labels_that_count_from_0_are_read_where_that_is_said(tmp_path: Path, mirror: bool) -> None:
    raw = write_rafdb(tmp_path / "raw", mirror=mirror)
    plain = [(r.id, r.emotion, r.split) for r in RAFDBReader().list(raw).records]
    for path in [*raw.rglob("*.txt"), *raw.rglob("*.csv")]:
        lines = path.read_text().splitlines()
        path.write_text(
            "".join(
                f"{line[:-1]}{int(line[-1]) - 1}\n" if line[-1].isdigit() else f"{line}\n"
                for line in lines
            )
        )
    for folder in sorted(raw.glob("DATASET/*/*")):
        folder.rename(folder.with_name(str(int(folder.name) - 1)))
    with pytest.raises(DataError, match=r"from 1 to 7, found .* '0'.*dataset.reader.codes_from=0"):
        RAFDBReader().list(raw)
    found = RAFDBReader(codes_from=0).list(raw).records
    assert [(r.id, r.emotion, r.split) for r in found] == plain
    assert "codes_from" not in RAFDBReader().options()
