"""Faces in pictures: found where they are, cut out by one rule, in preparation too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import framing
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.data import conversion, detection, preparation
from fer.data.datamodule import EmotionDataModule
from fer.data.detection import Box, Face, FaceDetector, crop, cut_out, fit, overlap
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import STYLE_B
from fer.data.ferplus import FERPlusReader
from fer.data.folds import warnings_of_images
from fer.data.images import read_picture
from fer.data.preparation import Preparation, prepare
from fer.data.readers.base import Reader
from fer.data.readers.fer2013 import FER2013Reader
from fer.data.readers.folder import FolderReader
from fer.data.readers.rafdb import RAFDBReader
from fer.tasks.notes import notes_on
from tests.conftest import to_png

needs_weights = pytest.mark.skipif(
    find_spec(detection.PACKAGE) is None, reason="the detector's weights are not installed"
)


def scene(places: list[tuple[int, int, int]], width: int = 620, height: int = 300) -> np.ndarray:
    """A gray picture with drawn faces at x, y and side."""
    rng = np.random.default_rng(0)
    canvas = np.full((height, width, 3), 128, np.uint8)
    for x, y, side in places:
        face = Image.fromarray(draw_face("neutral", STYLE_B, rng).image).resize((side, side))
        canvas[y : y + side, x : x + side] = np.asarray(face)
    return canvas


# --- finding -------------------------------------------------------------------------------------


@needs_weights
def test_drawn_faces_are_found_where_they_are() -> None:
    places = [(30, 40, 200), (380, 60, 200)]
    found = sorted(FaceDetector()(scene(places)))
    assert len(found) == 2
    for (x, y, width, height), (left, top, side) in zip(found, places, strict=True):
        assert width == height and 120 < width <= 260
        assert abs(x + width / 2 - left - side / 2) < 40
        assert abs(y + height / 2 - top - side / 2) < 40


@needs_weights
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (300, 2, 3), (48, 48), (10, 400)])
def test_pictures_of_any_shape_without_a_face_have_none(shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert FaceDetector()(noise) == []
    assert FaceDetector(0.001)(np.zeros(shape, np.uint8)) == []


@needs_weights
def test_small_and_large_faces_are_found_in_a_large_and_in_a_small_picture() -> None:
    small = scene([(100, 100, 90), (700, 200, 800)], 1600, 1200)
    assert len(FaceDetector()(small)) == 1
    found = sorted(FaceDetector(0.04)(small))
    assert len(found) == 2 and found[0][2] < 100 and found[1][2] > 500
    assert len(FaceDetector()(scene([(2, 2, 44)], 48, 48))) == 1


@needs_weights
def test_threads_may_share_a_detector() -> None:
    pictures = [scene([(30, 40, 200)]), scene([(10, 10, 100)], 130, 120)]
    detector = FaceDetector()
    expected = [detector(picture) for picture in pictures]
    found: list[list[Box]] = []

    def work() -> None:
        found.extend(detector(picture) for picture in pictures * 5)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and all(one in expected for one in found)


@needs_weights
def test_faces_of_photographs_are_found(shared_data: Path) -> None:
    folder = shared_data / "photos"
    if not folder.is_dir():
        pytest.skip("FER_SHARED_DATA does not hold photos/")
    expected = {
        "one_face": [(330, 430, 380)],
        "two_faces": [(850, 520, 235), (1236, 485, 235), (1704, 1134, 190)],
    }
    for name, places in expected.items():
        pixels = read_picture(folder / f"{name}.jpg")
        found = sorted(FaceDetector()(pixels))
        assert len(found) == len(places), name
        for (x, y, width, height), (across, down, side) in zip(found, places, strict=True):
            assert abs(x + width / 2 - across) < side / 8 and 0.85 < width / side < 1.18
            assert abs(y + height / 2 - down) < side / 8


@pytest.mark.parametrize(
    ("options", "words"),
    [((0, 0.5), "min size"), ((0.1, 0), "min confidence"), ((0.1, 1.5), "min confidence")],
)
def test_impossible_options_are_refused(options: tuple[float, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FaceDetector(*options)


def test_without_its_package_the_detector_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r'pip install "fer-lab\[faces\]".*--whole'):
        FaceDetector()(np.zeros((9, 9), np.uint8))


def test_weights_that_opencv_does_not_read_are_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "é.onnx").write_bytes(b"no weights")
    monkeypatch.setattr(detection, "find_weights", lambda: tmp_path / "é.onnx")
    with pytest.raises(ConfigError, match=r"(?s)weights that OpenCV .* reads, found .*é.onnx"):
        FaceDetector()(np.zeros((9, 9), np.uint8))


@needs_weights
def test_the_detector_is_described_by_its_weights_and_thresholds() -> None:
    described = detection.describe_detector()
    assert set(described) == {"weights", "opencv", "min_size", "min_confidence"}
    assert len(described["weights"]) == 64


@pytest.mark.parametrize("images", [0, 2])
def test_the_benchmark_of_framing_says_that_no_face_was_found(
    images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaceDetector, "search", lambda self, image: [])
    pictures = [np.zeros((48, 48), np.uint8)] * images
    assert framing.measure(pictures, FaceDetector()) == f"0 of {images} images"


# --- the square ----------------------------------------------------------------------------------


@given(st.tuples(*[st.floats(-300, 300)] * 2, st.floats(0.1, 500)), *[st.integers(1, 300)] * 2)
def test_a_square_lies_in_its_picture(place: tuple[float, float, float], w: int, h: int) -> None:
    x, y, side, other = fit(Face(*place, 1.0), w, h)
    assert side == other and 1 <= side <= min(w, h)
    assert 0 <= x <= w - side and 0 <= y <= h - side


def test_a_square_is_moved_into_the_picture_and_made_smaller_only_where_it_must_be() -> None:
    assert fit(Face(10, 20, 30, 1), 100, 80) == (10, 20, 30, 30)
    assert fit(Face(-7, 60, 30, 1), 100, 80) == (0, 50, 30, 30)
    assert fit(Face(20, -15, 110, 1), 200, 80) == (35, 0, 80, 80)  # around the same middle


def test_squares_overlap_by_intersection_over_union() -> None:
    one = Face(0, 0, 10, 1)
    assert overlap(one, one) == 1 and overlap(one, Face(10, 0, 10, 1)) == 0
    assert overlap(one, Face(5, 0, 10, 1)) == pytest.approx(1 / 3)


def test_a_crop_beyond_the_border_repeats_the_last_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(crop(image, (0, 0, 1, 1), 1), image[[0, 0, 1]][:, [0, 0, 1]])
    assert crop(np.zeros((40, 50, 3), np.uint8), (10, 10, 10, 20)).shape == (20, 20, 3)


# --- preparation ---------------------------------------------------------------------------------


def stub_search(self: FaceDetector, image: np.ndarray) -> list[Face]:
    """The faces that the first pixel of a picture stands for."""
    small, one, large = Face(0, 0, 3, 0.9), Face(4, 6, 20, 0.9), Face(20, 10, 24.2, 0.8)
    return {0: [], 1: [small], 2: [small, one], 3: [one, large]}[int(image[0, 0]) % 4]


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaceDetector, "search", stub_search)
    monkeypatch.setattr(preparation, "find_weights", lambda: None)
    monkeypatch.setattr(preparation, "describe_detector", lambda: {"opencv": "5"})


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Class folders with eight pictures each, two of each kind of :func:`stub_search`."""
    rng = np.random.default_rng(0)
    for emotion in labels.EMOTIONS:
        (tmp_path / "raw" / emotion).mkdir(parents=True)
        for number in range(8):
            image = rng.integers(0, 256, (50, 60), dtype=np.uint8)
            image[0, 0] = number
            (tmp_path / "raw" / emotion / f"{number}.png").write_bytes(to_png(image))
    return tmp_path / "raw"


@pytest.mark.usefixtures("stubbed")
def test_preparation_cuts_out_the_largest_face_and_counts_the_others(
    raw: Path, tmp_path: Path
) -> None:
    data = EmotionDataModule("mine", tmp_path / "d", reader=FolderReader(), raw=raw, faces="crop")
    data.prepare_data()
    data.setup("test")
    integrity = data.prepared.integrity
    assert integrity["excluded"] == {detection.NO_FACE: 14, detection.SMALL_FACE: 14}
    assert integrity["origin"]["faces"] == "crop"
    assert data.describe()["options"]["faces"] == "crop"
    notes = notes_on(data)
    assert "14 pictures with several faces: the largest was taken." in notes
    lost = integrity["faceless"][detection.SMALL_FACE]
    assert sum(lost.values()) == 14 and set(lost) == {"train", "val", "test"} and lost["test"]
    assert (
        f"Left out because {detection.SMALL_FACE}: {lost['train']} of train, {lost['val']} of val, "
        f"{lost['test']} of test. The test split is then not the official one." in notes
    )
    assert integrity["detector"] == {"opencv": "5"}
    assert f"Left out because {detection.SMALL_FACE}: 14 images." in warnings_of_images(integrity)
    assert not any("official one" in line for line in warnings_of_images(integrity))
    assert len(data.prepared.entries) == 28
    for index, entry in enumerate(data.prepared.entries):
        image = read_picture(raw / entry.source)
        x, y, side = (4, 6, 20) if image[0, 0] % 4 == 2 else (20, 10, 24)
        found = data.prepared.read(index)
        np.testing.assert_array_equal(found, image[y : y + side, x : x + side])


@pytest.mark.usefixtures("stubbed")
def test_what_was_prepared_one_way_is_not_taken_for_the_other(raw: Path, tmp_path: Path) -> None:
    whole = prepare("mine", tmp_path / "d", FolderReader(), raw=raw)
    assert "faces" not in whole.integrity["origin"]  # it stays valid for later versions
    cut = prepare("mine", tmp_path / "d", FolderReader(), raw=raw, faces="crop")
    assert (len(whole.entries), len(cut.entries)) == (56, 28)
    with pytest.raises(DataError, match=r"faces: 'crop' then, None now"):
        prepare("mine", tmp_path / "d", FolderReader())


@pytest.mark.usefixtures("stubbed")
def test_pictures_without_any_face_are_refused(raw: Path, tmp_path: Path) -> None:
    for path in raw.rglob("*.png"):
        path.write_bytes(to_png(np.full((50, 60), int(path.stem) % 2, np.uint8)))
    (raw / "happy/0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"happy/0.png.*\n.*dataset.undecodable=drop"):
        prepare("mine", tmp_path / "d", FolderReader(), raw=raw, faces="crop")
    with pytest.raises(
        DataError,
        match=f"none among 56. Left out because {detection.NO_FACE}: 27 images. Left out because "
        f"{detection.SMALL_FACE}: 28 images. .*read: 1 image. .*dataset.faces=null",
    ):
        options = {"faces": "crop", "undecodable": "drop"}
        prepare("mine", tmp_path / "d", FolderReader(), raw=raw, **options)


@pytest.mark.parametrize("value", ["whole", True, "auto"])
def test_other_values_of_faces_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"dataset.faces: expected one of crop, or null"):
        Preparation("mine", tmp_path, FolderReader(), faces=value)


@pytest.mark.parametrize("reader", [FERPlusReader, FER2013Reader, RAFDBReader])
def test_faces_are_not_cut_out_of_what_is_compared_as_it_is(
    tmp_path: Path, reader: Callable[[], Reader]
) -> None:
    with pytest.raises(ConfigError, match=r"expected null for x: its images are cropped faces"):
        Preparation("x", tmp_path, reader(), faces="crop")


def test_without_the_weights_nothing_is_read(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "PACKAGE", "no_such_package")
    monkeypatch.setattr(FolderReader, "list", lambda self, raw: pytest.fail("it was read"))
    with pytest.raises(ConfigError, match=r"fer-lab\[faces\]"):
        prepare("mine", tmp_path / "d", FolderReader(), raw=raw, faces="crop")


def test_a_folder_that_was_prepared_elsewhere_is_not_cut(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    raw.rename(tmp_path / "d" / "train")
    with pytest.raises(DataError, match=r"to cut out faces, found a prepared folder.*faces=null"):
        prepare("mine", tmp_path / "d", FolderReader(), faces="crop")


@needs_weights
@pytest.mark.slow
def test_worker_processes_cut_out_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for emotion in labels.EMOTIONS:
        (tmp_path / "raw" / emotion).mkdir(parents=True)
        for number in range(3):
            place = (20 + 9 * number, 5 + labels.INDEX[emotion], 120)
            (tmp_path / "raw" / emotion / f"{number}.png").write_bytes(
                to_png(scene([place], 200, 140))
            )
    monkeypatch.setattr(conversion, "FEW", 5)
    monkeypatch.setattr(conversion, "CHUNK", 6)
    one, two = (
        prepare(
            "m", tmp_path / f"d{n}", FolderReader(), raw=tmp_path / "raw", workers=n, faces="crop"
        )
        for n in (1, 2)
    )
    assert one.integrity["fingerprint"] == two.integrity["fingerprint"]
    assert len(one.entries) == 21


@needs_weights
def test_portraits_of_the_web_are_cut_out(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "portraits" / "portraits.zip"
    if not archive.is_file():
        pytest.skip("FER_SHARED_DATA does not hold portraits/")
    reader = FolderReader(columns={"label": "emotion"}, drop_unknown=True, conflicts="drop")
    dataset = reader.list(archive)
    assert len(dataset.records) == 4115
    assert dataset.excluded == {"their class 'contempt' is not one of the seven emotions": 9}
    detector = FaceDetector()
    cut = [cut_out(dataset.source.read(record), detector)[0] for record in dataset.records[::200]]
    assert all(face is not None and face.shape[0] == face.shape[1] for face in cut)
