"""Prediction: the same answers as evaluation, from every kind of image, and a command for it."""

from __future__ import annotations

import csv
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import from_cell
from fer.core.hardware import Computing
from fer.data.detection import PACKAGE, Box, FaceDetector, cut_out
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import STYLE_B
from fer.evaluation import predictor as predictor_module
from fer.evaluation.prediction import Prediction
from fer.evaluation.predictor import Predictor
from fer.report.annotation import annotate
from fer.tasks.export import export
from fer.tasks.predict import main
from tests.conftest import run_program, to_png, write_file
from tests.tasks.test_export import make_checkpoint, pictures

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
BOXES: list[Box] = [(5, 6, 20, 20), (28, 10, 20, 20)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("predict") / "a.ckpt").path


@pytest.fixture
def predictor(checkpoint: Path) -> Predictor:
    return Predictor(checkpoint, "cpu", precision="32-true")


def values(prediction: Prediction) -> list[float]:
    assert list(prediction.probabilities) == list(labels.EMOTIONS)
    return list(prediction.probabilities.values())


# --- the same answers as evaluation --------------------------------------------------------------


def test_prepared_images_get_the_probabilities_of_predictions_csv(
    tmp_path: Path, tiny_zip: Path, checkpoint: Path
) -> None:
    """Also: evaluation takes a safetensors checkpoint, and it is the same network."""
    weights = tmp_path / "a.safetensors"
    export(checkpoint_of(checkpoint), "safetensors", weights, pictures(2, 1))
    run_program(
        "evaluate.py", f"checkpoint={weights}", f"dataset.raw={tiny_zip}", "dataset=fer2013",
        "hydra.run.dir=run", "metrics.resamples=100", cwd=tmp_path,
    )  # fmt: skip
    with (tmp_path / "run/predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    predictor = Predictor(checkpoint)
    paths = [next((tmp_path / "data/fer2013/test").rglob(f"{row['id']}.png")) for row in table]
    found = predictor(paths)
    assert len(found) == 14
    for row, prediction in zip(table, found, strict=True):
        expected = [float(row[f"p_{emotion}"]) for emotion in labels.EMOTIONS]
        assert values(prediction) == pytest.approx(expected, abs=1e-6)
        assert prediction.emotion == row["predicted"]
        assert prediction.confidence == pytest.approx(float(row["confidence"]), abs=1e-6)
    spread = np.ptp([values(prediction) for prediction in found], axis=0).max()
    assert spread > 1e-3  # they are not all alike: the comparison can fail


def checkpoint_of(path: Path) -> Any:
    from fer.model.checkpoint import load_checkpoint

    return load_checkpoint(path)


def test_every_form_of_an_image_gets_the_same_answer(predictor: Predictor, tmp_path: Path) -> None:
    for pixels in (GRAY, COLOUR):
        expected = values(predictor(pixels))
        path = write_file(tmp_path / "image.png", to_png(pixels))
        tensor = torch.from_numpy(pixels)
        tensor = tensor.permute(2, 0, 1) if pixels.ndim == 3 else tensor
        forms: list[Any] = [path, str(path), Image.open(path), Image.fromarray(pixels)]
        forms += [tensor, tensor / 255, tensor.double() / 255]
        forms += [path.read_bytes()]
        for stream in (io.BytesIO(path.read_bytes()), path.open("rb")):
            assert values(predictor(stream)) == values(predictor(path))
            stream.close()
        forms += [np.asarray(Image.fromarray(pixels).convert("RGBA"))] if pixels.ndim == 3 else []
        if pixels.ndim == 2:
            forms += [pixels[..., None], tensor[None]]
        for form in forms:
            one = predictor(form)
            assert isinstance(one, Prediction) and one.box is None
            assert values(one) == pytest.approx(expected, abs=1e-6), type(form)
        several = predictor([*forms, GRAY])
        assert values(several[-1]) == pytest.approx(values(predictor(GRAY)), abs=1e-6)
        assert len(several) == len(forms) + 1
    batch = RNG.integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    expected_rows = [values(predictor(image)) for image in batch]
    for form in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2)):
        np.testing.assert_allclose([values(one) for one in predictor(form)], expected_rows, 1e-5)
    assert predictor([]) == []


def test_pillow_images_are_seen_as_files_are(predictor: Predictor, tmp_path: Path) -> None:
    """Turned by EXIF, over gray where they are transparent, scaled from 16 bits."""
    exif = Image.Exif()
    exif[0x0112] = 6
    see_through = Image.fromarray(COLOUR).convert("RGBA")
    see_through.putalpha(Image.fromarray(GRAY))
    deep = Image.fromarray(RNG.integers(0, 65536, (40, 50), dtype=np.uint16))
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    see_through.save(tmp_path / "see_through.png")
    deep.save(tmp_path / "deep.png")
    for name in ("turned", "see_through", "deep"):
        path = tmp_path / f"{name}.png"
        assert values(predictor(Image.open(path))) == values(predictor(path)), name
    upright = np.rot90(COLOUR, -1)
    assert values(predictor(tmp_path / "turned.png")) == values(predictor(upright))


WRONG: list[tuple[Any, str]] = [
    (np.zeros((4, 4), np.float32), r"expected an array .* of uint8.* found \(4, 4\) of float32"),
    (np.zeros((4, 4, 5), np.uint8), r"found \(4, 4, 5\) of uint8"),
    (np.zeros((0, 4), np.uint8), r"found \(0, 4\)"),
    (torch.zeros(4, 4, 3), r"expected a tensor .* found \(4, 4, 3\)"),
    (torch.full((1, 4, 4), 255.0), "floats from 0 to 1, found 255 to 255"),
    (torch.full((1, 4, 4), float("nan")), "floats from 0 to 1, found nan"),
    (torch.zeros(1, 4, 4, dtype=torch.int64), "of int64"),
    (None, "found a NoneType"),
    (b"GIF89a", "image: expected an image .* that do not decode"),
    (io.StringIO("text"), "expected a file opened in binary mode, found one of str"),
    ("https://example.org/a.jpg", "found the address of one. Nothing is fetched"),
    ("nowhere.png", "nowhere.png: expected an image file, found nothing"),
    (".", "expected an image file, found a folder"),
    ([GRAY, np.zeros((4, 4, 2), np.uint8)], "image 1: expected an array"),
]


@pytest.mark.parametrize(("image", "words"), WRONG, ids=[words[:30] for _, words in WRONG])
def test_what_is_no_image_is_named(predictor: Predictor, image: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        predictor(image)


# --- faces in photographs ------------------------------------------------------------------------


def stub(image: np.ndarray) -> list[Box]:
    return BOXES


@pytest.mark.parametrize("margin", [0.0, 0.2, -0.1])
def test_a_face_is_cut_out_with_its_margin_and_recognised_as_that_crop(
    checkpoint: Path, margin: float
) -> None:
    predictor = Predictor(checkpoint, "cpu", detector=stub, margin=margin)
    found = predictor.find(COLOUR)
    assert [face.box for face in found] == BOXES
    for face, (x, y, side, _) in zip(found, BOXES, strict=True):
        wide = round(side * margin)
        padded = np.pad(COLOUR, ((9, 9), (9, 9), (0, 0)), mode="edge")
        rows = slice(y - wide + 9, y + side + wide + 9)
        pixels = padded[rows, x - wide + 9 : x + side + wide + 9]
        assert values(face) == pytest.approx(values(predictor(pixels)), abs=1e-6)
    assert predictor.find([COLOUR, GRAY])[0] == found


def test_a_picture_without_a_face_has_an_empty_list(checkpoint: Path) -> None:
    predictor = Predictor(checkpoint, detector=lambda image: [])
    assert predictor.find(COLOUR) == [] and predictor.find([COLOUR]) == [[]]


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the detector's weights are not installed")
def test_a_face_is_cut_out_as_preparation_does(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.full((300, 420, 3), 128, np.uint8)
    face = draw_face("neutral", STYLE_B, np.random.default_rng(0)).image
    picture[40:240, 30:230] = np.asarray(Image.fromarray(face).resize((200, 200)))
    seen: list[np.ndarray] = []

    def to_input(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
        seen.append(pixels)
        return np.zeros((size, size, channels), np.uint8)

    monkeypatch.setattr(predictor_module, "to_input", to_input)
    found = Predictor(checkpoint, "cpu").find(picture)
    cut, _, faces = cut_out(picture, FaceDetector())
    assert len(found) == faces == 1 and cut is not None
    np.testing.assert_array_equal(seen[0], cut)


# --- annotated copies ----------------------------------------------------------------------------


def make_prediction(emotion: str, box: Box | None) -> Prediction:
    return Prediction(emotion, {e: float(e == emotion) for e in labels.EMOTIONS}, box)


@pytest.mark.parametrize("size", [(1, 1), (48, 48), (20, 600), (600, 20), (1000, 1400)])
@pytest.mark.parametrize("emotion", labels.EMOTIONS)
def test_a_picture_of_any_size_can_be_annotated(size: tuple[int, int], emotion: str) -> None:
    image = np.zeros(size, np.uint8)
    height, width = size
    for box in (None, (0, 0, width, height), (width - 1, height - 1, 1, 1)):
        shown = annotate(image, [make_prediction(emotion, box)])
        assert shown.dtype == np.uint8 and shown.shape[2] == 3
        assert max(shown.shape[:2]) >= 320 and shown.any()
        extra = 0 if box is not None else 1
        assert (shown.shape[0] > height * (shown.shape[1] // width)) == bool(extra)


def test_the_box_is_drawn_around_the_face_and_not_over_it() -> None:
    image = np.zeros((400, 600, 3), np.uint8)
    shown = annotate(image, [make_prediction("happy", (200, 150, 100, 100))])
    marked = shown.max(axis=2) > 0
    assert marked[150, 200:300].all() and marked[249, 200:300].all()
    assert marked[150:250, 200].all() and marked[150:250, 299].all()
    assert not marked[160:240, 210:290].any()
    rows = np.flatnonzero(marked[:150].any(axis=1))
    assert rows.max() == 149 and 11 < len(rows) < 60  # the label stands right above it
    assert not marked[250:].any()


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def found_by_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces in colour pictures alone."""
    monkeypatch.setattr(
        FaceDetector, "__call__", lambda self, image: BOXES if image.ndim == 3 else []
    )


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_bad_picture_does_not_lose_the_others(
    folder: Path, checkpoint: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(folder / "in/a.png", to_png(GRAY))
    write_file(folder / "in/b.jpg", b"no picture")
    write_file(folder / "in/deep/c.png", to_png(COLOUR))
    write_file(folder / "in/notes.txt", b"")
    (folder / "empty").mkdir()
    code, out, err = run(
        capsys, "in", "gone.png", "empty", "in/a.png", "--whole", "--checkpoint", str(checkpoint),
        "--csv", "out/t.csv",
    )  # fmt: skip
    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines()] == ["in/a.png", "in/deep/c.png"]
    assert out.splitlines()[0].startswith(f"in/a.png: {predictor(GRAY).emotion} ")
    for words in ("in/b.jpg: expected an image", "gone.png: expected an image file, found nothing",
                  "empty: expected pictures in this folder"):  # fmt: skip
        assert f"Error: {words}" in err
    assert "in: 1 files are not pictures and were left out (1 .txt; the first: notes.txt)" in err
    table = read_table(folder / "out/t.csv")
    assert [(row["image"], row["status"]) for row in table] == [
        ("in/a.png", "ok"), ("in/b.jpg", "error"), ("in/deep/c.png", "ok"), ("gone.png", "error"),
        ("empty", "error"),
    ]  # fmt: skip
    # The program takes bfloat16 where the machine is fast at it.
    close = 1e-6 if Computing.find("auto", "auto").precision == "32-true" else 5e-3
    assert [float(table[0][f"p_{e}"]) for e in labels.EMOTIONS] == pytest.approx(
        values(predictor(GRAY)), abs=close
    )
    assert table[0]["x"] == "" and table[1]["emotion"] == ""


def test_json_and_table_agree_on_boxes_and_probabilities(
    folder: Path, checkpoint: Path, found_by_stub: None, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(folder / "colour.png", to_png(COLOUR))
    write_file(folder / "gray.png", to_png(GRAY))
    arguments = ["colour.png", "gray.png", "--checkpoint", str(checkpoint)]
    code, out, err = run(capsys, *arguments, "--json", "--csv", "t.csv")
    assert code == 0 and err == ""  # a picture without a face is no mistake
    first, second = json.loads(out)
    assert (second["status"], second["faces"], second["error"]) == ("no face", [], None)
    assert [tuple(face["box"]) for face in first["faces"]] == BOXES
    table = read_table(folder / "t.csv")
    assert [row["face"] for row in table] == ["1", "2", ""]
    for row, face in zip(table, first["faces"], strict=False):
        assert [int(row[key]) for key in ("x", "y", "width", "height")] == face["box"]
        assert row["emotion"] == face["emotion"]
        for emotion, p in face["probabilities"].items():
            assert float(row[f"p_{emotion}"]) == pytest.approx(p, rel=1e-6)
    code, out, err = run(capsys, *arguments)
    assert "gray.png: no face found" in out and "--whole" in err and code == 0
    assert "colour.png, face 2 at (28, 10), 20 × 20: " in out


def test_names_cannot_be_formulas_or_control_the_terminal(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["=1+1.png", "+2.png", "-3.png", "@x.png", "\t=y.png", "red\x1b[31m.png"]
    for name in names:
        write_file(folder / name, to_png(GRAY))
    broken = "b\udcff.png"  # no UTF-8
    write_file(folder / broken, to_png(GRAY))
    code, out, _ = run(
        capsys,
        *["--whole", "--checkpoint", str(checkpoint), "--csv", "t.csv"],
        "--",
        *names,
        broken,
    )
    assert code == 0
    assert "\x1b" not in out and "red\\x1b[31m.png" in out and "b\\udcff.png" in out
    with (folder / "t.csv").open(newline="", errors="surrogateescape") as file:
        cells = [row["image"] for row in csv.DictReader(file)]
    assert not any(cell[0] in "=+-@\t\r\n" for cell in cells)
    assert [from_cell(cell) for cell in cells] == [*names, broken]


def test_annotated_copies_replace_no_picture_and_no_other_copy(
    folder: Path, checkpoint: Path, found_by_stub: None, capsys: pytest.CaptureFixture[str]
) -> None:
    original = to_png(COLOUR)
    for name in ("a.png", "deep/a.png"):
        write_file(folder / name, original)
    arguments = ["--checkpoint", str(checkpoint), "--annotate"]
    code, _, _ = run(capsys, "a.png", "deep", *arguments, ".")
    assert code == 0
    assert (folder / "a.png").read_bytes() == original
    for name in ("a_2.png", "a_3.png"):
        assert max(Image.open(folder / name).size) >= 320
    run(capsys, "deep", *arguments, "deep/out")
    _, out, _ = run(capsys, "deep", *arguments, "deep/out")  # its own copies are no pictures
    assert "deep/out" not in out and out.count("deep/a.png, face 1") == 1
    assert [path.name for path in (folder / "deep/out").iterdir()] == ["a.png"]
    # A picture that is neither an input nor a copy stays, and the copy gets another name.
    write_file(folder / "out/a.png", original)
    for _ in range(2):
        run(capsys, "a.png", *arguments, "out")
    assert (folder / "out/a.png").read_bytes() == original
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.png", "a_2.png"]


def test_the_table_replaces_nothing_but_an_earlier_table(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(folder / "a.png", to_png(GRAY))
    write_file(folder / "mine.csv", b"name,mark\nA,1\n")
    write_file(folder / "a picture", to_png(GRAY))
    arguments = ["a.png", "--whole", "--checkpoint", str(checkpoint), "--csv"]
    for name in ("a.png", "new.jpg", "mine.csv", "a picture", str(checkpoint)):
        before = (folder / name).read_bytes() if (folder / name).exists() else None
        code, out, err = run(capsys, *arguments, name)
        assert code == 1 and out == "" and "--csv: expected a new file" in err
        assert ((folder / name).read_bytes() if (folder / name).exists() else None) == before
    (folder / "t.csv").touch()
    for _ in range(2):
        assert run(capsys, *arguments, "t.csv")[0] == 0
    assert len(read_table(folder / "t.csv")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--checkpoint", "nothing.ckpt"], "found nothing at"),
        (["--margin", "-0.6"], "margin: expected"),
        (["--min-size", "0"], "min size: expected"),
        (["--min-confidence", "0"], "min confidence: expected"),
        (["--accelerator", "abacus"], "found 'abacus'"),
        (["--csv", "a.png/t.csv", "--whole"], "Nothing more was written"),
    ],
)
def test_what_cannot_work_is_one_message_and_exit_code_1(
    folder: Path,
    checkpoint: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_file(folder / "a.png", to_png(GRAY))
    given = ["--checkpoint", str(checkpoint), *arguments]
    code, _, err = run(capsys, "a.png", *given)
    assert code == 1 and err.count("Error: ") == 1 and words in err


def test_a_mistaken_command_line_is_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(folder / "a.png", to_png(GRAY))
    for arguments in ([], ["a.png", "--csv", "."], ["a.png", "--annotate", "a.png"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_a_network_trained_on_drawings_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = {"choice": "synthetic_a", "name": "synthetic_a", "generator": {"train": 7},
               "reader": {}, "options": {}, "fingerprint": "0"}  # fmt: skip
    make_checkpoint(folder / "drawn.ckpt", dataset=dataset)
    write_file(folder / "a.png", to_png(GRAY))
    code, _, err = run(capsys, "a.png", "--whole", "--checkpoint", "drawn.ckpt")
    assert code == 0 and "trained on drawn faces" in err


def test_help_is_answered_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from fer.tasks.predict import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'numpy', 'cv2', 'PIL'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = run_program("-c", program, cwd=tmp_path)
    assert "--annotate" in done.stdout and "HEAVY []" in done.stdout
