"""The drawn faces: what they show, and the raw datasets that are made of them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer.core.errors import ConfigError
from fer.core.labels import EMOTIONS
from fer.data.drawn import anatomy, people, synthetic
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import ACTION_UNITS, STYLE_A, STYLE_B, STYLES, UNITS
from fer.data.drawn.synthetic import generate
from fer.data.readers.fer2013 import FER2013Reader
from fer.data.readers.rafdb import CODES, RAFDBReader

SIZES = {"train": 40, "val": 9, "test": 12}


def still_person() -> people.Person:
    return people.sample_person(STYLE_A, np.random.default_rng(3))


def units(emotion: str) -> dict[int, float]:
    """The emotion's prototype at full strength."""
    return {unit: ACTION_UNITS[emotion].get(unit, 0.0) for unit in UNITS}


def only(**strengths: float) -> dict[int, float]:
    """``only(au12=1.0)``: that unit and no other."""
    return {unit: strengths.get(f"au{unit}", 0.0) for unit in UNITS}


def contents(path: Path) -> dict[str, str]:
    """Checksums of a file or of every file below a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def make(
    name: str,
    folder: Path,
    sizes: dict[str, int],
    *,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """``generate`` with the sizes of the splits in one argument."""
    train, val, test = (sizes[split] for split in ("train", "val", "test"))
    return generate(
        name,
        folder,
        train=train,
        val=val,
        test=test,
        seed=seed,
        workers=workers,
        progress=progress,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("synthetic_a", tmp_path_factory.mktemp("a"), SIZES)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("synthetic_b", tmp_path_factory.mktemp("b"), SIZES)


# --- faces -----------------------------------------------------------------------------------


def test_every_unit_of_a_prototype_is_one_that_is_drawn() -> None:
    assert tuple(ACTION_UNITS) == EMOTIONS
    for table in (ACTION_UNITS, people.OPTIONAL_UNITS):
        for emotion in EMOTIONS:
            assert set(table[emotion]) <= set(UNITS)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_face_has_its_styles_form_and_depends_on_the_generator_alone(
    name: str, emotion: str
) -> None:
    style = STYLES[name]
    first, again, other = (draw_face(emotion, style, np.random.default_rng(i)) for i in (5, 5, 6))
    assert first.image.dtype == np.uint8
    assert first.image.shape == ((48, 48) if name == "synthetic_a" else (100, 100, 3))
    assert first.image.std() > 15
    assert np.array_equal(first.image, again.image)
    assert (first.regions, first.landmarks, first.attributes) == (
        again.regions,
        again.landmarks,
        again.attributes,
    )
    assert not np.array_equal(first.image, other.image)


def test_regions_lie_in_the_image_with_brows_above_eyes_above_mouth() -> None:
    for style in STYLES.values():
        for seed in range(40):
            face = draw_face(EMOTIONS[seed % 7], style, np.random.default_rng(seed))
            assert set(face.regions) == {"brows", "eyes", "nose", "mouth"}
            for x1, y1, x2, y2 in face.regions.values():
                assert 0 <= x1 < x2 <= style.size
                assert 0 <= y1 < y2 <= style.size
            middle = {name: (box[1] + box[3]) / 2 for name, box in face.regions.items()}
            assert middle["brows"] < middle["eyes"] < middle["nose"] < middle["mouth"]


def test_landmarks_are_in_rafdbs_order_and_within_their_regions() -> None:
    for style in STYLES.values():
        for seed in range(20):
            face = draw_face(EMOTIONS[seed % 7], style, np.random.default_rng(seed))
            left_eye, right_eye, _, left_corner, right_corner = face.landmarks
            assert left_eye[0] < right_eye[0]
            assert left_corner[0] < right_corner[0]
            for points, name in ((face.landmarks[:2], "eyes"), (face.landmarks[3:], "mouth")):
                x1, y1, x2, y2 = face.regions[name]
                assert all(x1 - 1 <= x <= x2 and y1 - 1 <= y <= y2 for x, y in points)
            assert face.attributes["gender"] == 2
            assert face.attributes["race"] in (0, 1, 2)
            assert face.attributes["age"] in (1, 2, 3, 4)


def test_aligned_faces_have_their_eyes_in_one_place_and_loose_ones_do_not() -> None:
    def spread(style: people.Style) -> float:
        eyes = [
            draw_face("neutral", style, np.random.default_rng(seed)).landmarks[0]
            for seed in range(40)
        ]
        return float(np.std(eyes, axis=0).max()) / style.size

    assert 2 * spread(STYLE_B) < spread(STYLE_A)


# --- action units ----------------------------------------------------------------------------


def corner_height(emotion: str) -> float:
    """How far the mouth's corners are above its middle (y goes down)."""
    lips = anatomy.mouth(still_person(), units(emotion))
    line = (lips.upper + lips.lower)[:, 1] / 2
    return float(line[8] - line[0])


def eye_opening(au: dict[int, float]) -> float:
    upper, lower = anatomy.eye_lids(still_person(), au)
    return float((lower - upper)[:, 1].max())


def brow_heights(au: dict[int, float]) -> tuple[float, float]:
    """Heights of the inner and the outer end of the brow above the eyes."""
    polygon = anatomy.brow(still_person(), au)
    return -float(polygon[0, 1]), -float(polygon[len(polygon) // 2 - 1, 1])


def test_a_happy_mouth_curves_up_and_a_sad_one_down() -> None:
    assert corner_height("happy") > corner_height("neutral") + 0.05
    assert corner_height("sad") < corner_height("neutral") - 0.05


def test_surprise_opens_the_eyes_and_the_mouth() -> None:
    person = still_person()
    neutral, surprise = units("neutral"), units("surprise")
    assert eye_opening(surprise) > 1.2 * eye_opening(neutral)
    assert anatomy.mouth(person, surprise).gap > anatomy.mouth(person, neutral).gap + 0.2
    assert (
        anatomy.head_outline(person, surprise)[:, 1].max()
        > anatomy.head_outline(person, neutral)[:, 1].max()
    )


@pytest.mark.parametrize("unit", ["au6", "au7", "au9"])
def test_cheek_raiser_lid_tightener_and_nose_wrinkler_narrow_the_eyes(unit: str) -> None:
    assert eye_opening(only(**{unit: 1.0})) < eye_opening(only())


def test_each_brow_unit_moves_its_own_end_of_the_brow() -> None:
    inner, outer = brow_heights(only())
    raised_inner, same_outer = brow_heights(only(au1=1.0))
    same_inner, raised_outer = brow_heights(only(au2=1.0))
    lowered_inner, _ = brow_heights(only(au4=1.0))
    assert raised_inner - inner > 0.1 > abs(same_outer - outer)
    assert raised_outer - outer > 0.1 > abs(same_inner - inner)
    assert lowered_inner < inner - 0.05


def test_lips_stretch_with_au20_and_thin_with_au23() -> None:
    person = still_person()

    def width_and_thickness(au: dict[int, float]) -> tuple[float, float]:
        lips = anatomy.mouth(person, au)
        thickness = (lips.upper - lips.top + lips.bottom - lips.lower)[:, 1].max()
        return float(np.ptp(lips.upper[:, 0])), float(thickness)

    width, thickness = width_and_thickness(only())
    assert width_and_thickness(only(au20=1.0))[0] > 1.15 * width
    assert width_and_thickness(only(au23=1.0))[1] < 0.7 * thickness


def test_brows_stay_above_the_upper_lids() -> None:
    rng = np.random.default_rng(0)
    for style in STYLES.values():
        for index in range(70):
            person = people.sample_person(style, rng)
            au = people.sample_units(EMOTIONS[index % 7], style, rng)
            polygon, lid = anatomy.brow(person, au), anatomy.eye_lids(person, au)[0]
            over = np.interp(polygon[:, 0], lid[:, 0], lid[:, 1])
            assert (polygon[:, 1] < over).all()


# --- datasets --------------------------------------------------------------------------------


def test_a_split_holds_every_class_near_the_square_roots_and_begins_like_a_larger_one() -> None:
    counts = {"angry": 1, "disgust": 4, "fear": 9, "happy": 16, "sad": 25, "surprise": 36}
    counts["neutral"] = 49
    drawn = synthetic.class_sequence(280, counts)
    expected = {emotion: 10 * (index + 1) for index, emotion in enumerate(counts)}
    assert Counter(drawn) == expected
    assert synthetic.class_sequence(33, counts) == drawn[:33]
    assert set(drawn[:7]) == set(EMOTIONS)


def test_the_archive_is_fer2013s_and_its_reader_takes_it(archive: Path) -> None:
    assert archive.name == "archive.zip"
    dataset = FER2013Reader().list(archive)
    assert not dataset.warnings
    assert dataset.official_protocol
    assert Counter(record.split for record in dataset.records) == SIZES
    for split in SIZES:
        assert {r.emotion for r in dataset.records if r.split == split} == set(EMOTIONS)
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        image = Image.open(io.BytesIO(file.read("train/angry/Training_0.jpg")))
    assert (image.format, image.mode, image.size) == ("JPEG", "L", (48, 48))
    usages = {"train": "train/", "PublicTest": "test/", "PrivateTest": "test/"}
    for usage, start in usages.items():
        matching = [name for name in names if f"/{usage}_" in name]
        assert all(name.startswith(start) for name in matching)


def test_the_tree_is_rafdbs_with_labels_mapped_by_name(tree: Path) -> None:
    assert tree.name == "basic"
    lines = (tree / "EmoLabel/list_patition_label.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        *(f"train_{number:05d}.jpg" for number in range(1, 50)),
        *(f"test_{number:04d}.jpg" for number in range(1, 13)),
    ]
    weights = synthetic.WEIGHTS["synthetic_b"]
    drawn = [e for size in SIZES.values() for e in synthetic.class_sequence(size, weights)]
    assert [CODES[line.split()[1]] for line in lines] == drawn
    with Image.open(tree / "Image/aligned/train_00001_aligned.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (100, 100))
    manual = (tree / "Annotation/manual/train_00001_manu_attri.txt").read_text().splitlines()
    assert len(manual) == 8
    assert all(len(line.split()) == 2 for line in manual[:5])
    assert manual[5] == "2"
    box = (tree / "Annotation/boundingbox/test_0012_boundingbox.txt").read_text()
    assert len([float(number) for number in box.split()]) == 4
    assert len(list((tree / "Annotation/manual").iterdir())) == len(lines)
    records = RAFDBReader(val_fraction=0.2).list(tree).records
    assert Counter(record.split == "test" for record in records) == {False: 49, True: 12}


@pytest.mark.parametrize("fixture", ["archive", "tree"])
def test_no_image_is_drawn_twice(fixture: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(fixture)
    if path.is_dir():
        images = [file.read_bytes() for file in (path / "Image/aligned").iterdir()]
    else:
        with zipfile.ZipFile(path) as file:
            images = [file.read(name) for name in file.namelist()]
    assert len(set(images)) == sum(SIZES.values())


@pytest.mark.parametrize("fixture", ["archive", "tree"])
def test_the_bytes_depend_on_the_seed_and_not_on_the_workers(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    first: Path = request.getfixturevalue(fixture)
    name = {"archive": "synthetic_a", "tree": "synthetic_b"}[fixture]
    steps: list[tuple[int, int]] = []
    again = make(
        name, tmp_path, SIZES, workers=2, progress=lambda done, total: steps.append((done, total))
    )
    assert contents(again) == contents(first)
    assert steps[-1] == (61, 61)
    task = synthetic.Task(name, seed=0, split="train", index=3, emotion="happy")
    assert synthetic.draw_task(task) == synthetic.draw_task(task)
    assert synthetic.draw_task(task).jpeg != synthetic.draw_task(replace(task, seed=1)).jpeg
    assert synthetic.draw_task(task).jpeg != synthetic.draw_task(replace(task, split="val")).jpeg


def test_an_image_does_not_depend_on_how_many_others_are_drawn(tree: Path, tmp_path: Path) -> None:
    fewer = make("synthetic_b", tmp_path, {"train": 10, "val": 7, "test": 8})
    for name in ("train_00009_aligned.jpg", "test_0008_aligned.jpg"):
        place = Path("Image/aligned") / name
        assert (fewer / place).read_bytes() == (tree / place).read_bytes()


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("synthetic_c", SIZES, r"expected one of synthetic_a, synthetic_b, found 'synthetic_c'"),
        (
            "synthetic_a",
            {**SIZES, "val": 6},
            r"val: expected a whole number from 7 to 1,000,000, found 6\. Set",
        ),
    ],
)
def test_datasets_that_cannot_be_drawn_are_refused_before_anything_is_written(
    name: str, sizes: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, tmp_path / "new", sizes)
    assert not (tmp_path / "new").exists()


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed: expected a whole number from 0 .*-1\. Set"):
        make("synthetic_a", tmp_path, SIZES, seed=-1)


@pytest.mark.parametrize("name", STYLES)
def test_a_run_that_breaks_off_leaves_the_old_dataset_and_no_temporary_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"train": 7, "val": 7, "test": 7}
    path = make(name, tmp_path, tiny)
    before = contents(path)

    def fail_after_two(*_: object) -> Iterator[synthetic.Drawn]:
        for index in range(2):
            yield synthetic.draw_task(synthetic.Task(name, 0, "train", index, "happy"))
        raise RuntimeError("interrupted")

    monkeypatch.setattr(synthetic, "draw_all", fail_after_two)
    with pytest.raises(RuntimeError, match="interrupted"):
        make(name, tmp_path, tiny, seed=1)
    assert contents(path) == before
    assert list(tmp_path.iterdir()) == [path]
