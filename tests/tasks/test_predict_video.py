"""``fer predict`` on a video and on a camera."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer.core import labels
from fer.data import video
from fer.data.detection import PACKAGE, Box, FaceDetector
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import STYLE_B
from fer.data.video import Video
from fer.evaluation import tracking
from fer.evaluation.predictor import Predictor
from fer.evaluation.tracking import Tracker
from fer.tasks.predict import main
from tests.conftest import write_file
from tests.data.test_video import RATE, FakeCapture, write_video
from tests.tasks.test_export import make_checkpoint
from tests.tasks.test_predict import read_table, run


def scene(*places: int) -> np.ndarray:
    """A dark frame with bright squares of 40 pixels at these columns."""
    frame = np.zeros((120, 320, 3), np.uint8)
    for x in places:
        frame[40:80, x : x + 40] = 220
    return frame


MOVING = [scene(4 * i, *([200] if i < 6 else [])) for i in range(10)]
"""A square that moves through, and one that stands still for six frames."""


def find_squares(self: FaceDetector, image: np.ndarray) -> list[Box]:
    bright = np.r_[False, image[60].max(axis=-1) > 120, False]
    edges = np.flatnonzero(np.diff(bright.astype(int)))
    return [(int(x), 40, 40, 40) for x in edges[::2]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("video") / "a.ckpt").path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FaceDetector, "__call__", find_squares)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


OUTPUTS = ["--csv", "t.csv", "--annotate", "out", "--timeline", "t.png"]


def test_a_video_gives_a_table_an_annotated_copy_a_timeline_and_a_summary(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str], rendering: None
) -> None:
    write_video(folder / "clip.mp4", MOVING)
    code, out, err = run(capsys, "clip.mp4", "--checkpoint", checkpoint, *OUTPUTS)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("clip.mp4: 0.9 s, 10 of 10 frames looked at, ")
    assert lines[0].endswith("a second; 2 faces")
    assert lines[1].startswith("clip.mp4, face 1, 0.0–0.9 s, 10 frames: ")
    assert lines[2].startswith("clip.mp4, face 2, 0.0–0.5 s, 6 frames: ")
    assert "Annotated: out/clip.webm" in err and len(lines) == 3
    table = read_table(folder / "t.csv")
    assert [row["face"] for row in table] == ["1", "2"] * 6 + ["1"] * 4
    assert [row["frame"] for row in table if row["face"] == "1"] == [str(i) for i in range(10)]
    for row in table:
        assert float(row["seconds"]) == pytest.approx(int(row["frame"]) / RATE)
        assert sum(float(row[f"p_{e}"]) for e in labels.EMOTIONS) == pytest.approx(1, abs=1e-3)
    assert abs(int(table[-1]["x"]) - 36) <= 1 and table[-1]["width"] == "40"
    copy = list(Video(folder / "out/clip.webm"))
    assert len(copy) == 10 and copy[0].pixels.shape[:2] == (120, 320)
    assert np.ptp(copy[0].pixels.astype(int), axis=2).max() > 60  # boxes are coloured
    assert min(Image.open(folder / "t.png").size) > 300
    assert names(folder) == ["clip.mp4", "out/clip.webm", "t.csv", "t.png"]


def test_a_frame_gets_the_probabilities_of_the_picture_that_it_is(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(folder / "clip.mp4", MOVING)
    given = ["clip.mp4", "--checkpoint", checkpoint, "--csv", "t.csv", "--accelerator", "cpu"]
    assert run(capsys, *given)[0] == 0
    predictor = Predictor(checkpoint, "cpu")
    expected = [
        face for frame in Video(folder / "clip.mp4") for face in predictor.find(frame.pixels)
    ]
    table = read_table(folder / "t.csv")
    assert len(table) == len(expected) == 16
    for row, face in zip(table, expected, strict=True):
        found = [float(row[f"p_{emotion}"]) for emotion in labels.EMOTIONS]
        assert found == pytest.approx(list(face.probabilities.values()), abs=1e-6)


def test_every_nth_frame_and_json(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(folder / "clip.mp4", MOVING)
    arguments = ["clip.mp4", "--checkpoint", checkpoint, "--every", "4", "--json", *OUTPUTS]
    code, out, _ = run(capsys, *arguments)
    summary = json.loads(out)
    assert code == 0 and (summary["frames"], summary["error"]) == (3, None)
    assert [(face["face"], face["frames"]) for face in summary["faces"]] == [(1, 3), (2, 2)]
    assert sum(summary["faces"][0]["shares"].values()) == pytest.approx(1)
    assert [row["frame"] for row in read_table(folder / "t.csv")] == ["0", "0", "4", "4", "8"]
    assert [frame.seconds for frame in Video(folder / "out/clip.webm")] == [0, 0.4, 0.8]


def test_of_many_faces_those_that_stay_longest_are_named(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(folder / "clip.mp4", [scene(0, 60, 120), scene(0), scene(60), scene(180, 240)])
    given = ["clip.mp4", "--checkpoint", checkpoint]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "MOST", 2)
        _, out, _ = run(capsys, *given)
    faces = [line.split(", ")[1] for line in out.splitlines()[1:-1]]
    assert faces == ["face 1", "face 2"]
    assert "clip.mp4: 3 other faces, seen in fewer frames; --verbose names all" in out
    assert run(capsys, *given, "--verbose")[1].count("clip.mp4, face ") == 5


def test_a_video_of_one_cropped_face_and_one_without_faces(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(folder / "clip.mp4", [scene()] * 3)
    code, out, _ = run(capsys, "clip.mp4", "--checkpoint", checkpoint, "--whole", *OUTPUTS)
    assert code == 0 and "face 1, 0.0–0.2 s, 3 frames" in out
    assert {row["x"] for row in read_table(folder / "t.csv")} == {""}
    code, out, err = run(capsys, "clip.mp4", "--checkpoint", checkpoint, *OUTPUTS)
    assert code == 0 and out.endswith("; 0 faces\n") and "No face was found" in err
    assert read_table(folder / "t.csv") == []
    assert len(list(Video(folder / "out/clip.webm"))) == 3


def test_a_damaged_end_is_told_and_what_was_read_is_kept(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 100, (20, 120, 320, 3), dtype=np.uint8)
    data = write_video(folder / "clip.webm", list(noise), "VP80").read_bytes()
    write_file(folder / "clip.webm", data[: len(data) // 2])
    code, _, err = run(capsys, "clip.webm", "--checkpoint", checkpoint, "--whole", "--csv", "t.csv")
    assert code == 1 and "the rest is missing or damaged. What was read is kept." in err
    assert 0 < len(read_table(folder / "t.csv")) < 15


def test_files_of_others_are_not_replaced_and_earlier_results_are(
    folder: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(folder / "clip.webm", MOVING[:2], "VP80")
    write_file(folder / "mine.csv", b"a,b\n1,2\n")
    write_file(folder / "mine.png", b"a picture")
    for key, name in (("--csv", "mine.csv"), ("--timeline", "mine.png"), ("--csv", "clip.webm")):
        before = (folder / name).read_bytes()
        code, out, err = run(capsys, "clip.webm", "--checkpoint", checkpoint, key, name)
        assert code == 1 and out == "" and f"{key}: expected a new file" in err
        assert (folder / name).read_bytes() == before
    before = (folder / "clip.webm").read_bytes()
    given = ["clip.webm", "--checkpoint", checkpoint, "--csv", "t.csv", "--annotate", "."]
    for _ in range(2):
        assert run(capsys, *given, "--timeline", "t.png")[0] == 0
    assert (folder / "clip.webm").read_bytes() == before
    assert names(folder) == ["clip.webm", "clip_2.webm", "mine.csv", "mine.png", "t.csv", "t.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_broken_off_leaves_nothing(
    folder: Path,
    checkpoint: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_video(folder / "clip.mp4", MOVING)

    def number(self: Tracker, boxes: list[Box], seconds: float) -> list[int]:
        if seconds > 0.3:
            raise error
        return [1, 2]

    monkeypatch.setattr(Tracker, "number", number)
    code, out, _ = run(capsys, "clip.mp4", "--checkpoint", checkpoint, *OUTPUTS)
    assert code == (130 if error is KeyboardInterrupt else 1) and out == ""
    assert names(folder) == ["clip.mp4"]


def test_ctrl_c_ends_a_camera_and_keeps_what_was_recorded(
    folder: Path,
    checkpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Camera(FakeCapture):
        def grab(self) -> bool:
            if self.at == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super().grab()

    monkeypatch.setattr(video, "open_camera", lambda number: Camera(MOVING))
    before = signal.getsignal(signal.SIGINT)
    code, out, err = run(capsys, "--camera", "0", "--checkpoint", checkpoint, *OUTPUTS)
    assert code == 0 and out.startswith("camera 0: ") and "Ctrl-C ends it" in err
    assert signal.getsignal(signal.SIGINT) is before
    frames = {row["frame"] for row in read_table(folder / "t.csv")}
    assert frames == {"0", "1", "2", "3", "4", "5"}
    assert (folder / "t.png").exists() and len(list((folder / "out").glob("camera_*.webm"))) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clip.mp4", "a.png"], "give each video or camera a command of its own"),
        (["clip.mp4", "clip.mp4"], "give each video or camera a command of its own"),
        (["clip.mp4", "--camera", "0"], "give each video or camera a command of its own"),
        (["a.png", "--camera", "0"], "give each video or camera a command of its own"),
        (["a.png", "--timeline", "t.png"], "found pictures"),
        (["a.png", "--every", "2"], "found pictures"),
        (["clip.mp4", "--every", "0"], "a whole number of at least 1, found '0'"),
        (["--camera", "-1"], "--camera"),
        (["clip.mp4", "--timeline", "t.jpg"], "a name that ends in .png, found t.jpg"),
        ([], "found none of them"),
    ],
)
def test_a_mistaken_command_line_is_exit_code_2(
    folder: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_no_camera_and_no_video_are_one_message(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_file(folder / "text.mp4", b"text")
    for arguments, words in (
        (["--camera", "99"], "none that does for 99"),
        (["gone.mp4"], "found nothing"),
        (["text.mp4", *OUTPUTS], "expected a video that OpenCV"),
    ):
        assert main(arguments) == 1
        err = capfd.readouterr().err
        assert err.startswith("Error: ") and words in err and err.count("\n") == 1
    assert names(folder) == ["text.mp4"]


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the detector's weights are not installed")
def test_a_drawn_face_that_moves_is_found_and_followed(
    tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = draw_face("neutral", STYLE_B, np.random.default_rng(0)).image
    face = np.asarray(Image.fromarray(drawn).convert("RGB").resize((200, 200)))
    frames = []
    for step in range(4):
        frame = np.full((300, 420, 3), 128, np.uint8)
        frame[40:240, 30 + 20 * step : 230 + 20 * step] = face
        frames.append(frame)
    clip, table = write_video(tmp_path / "clip.mp4", frames), tmp_path / "t.csv"
    assert run(capsys, str(clip), "--checkpoint", checkpoint, "--csv", str(table))[0] == 0
    rows = read_table(table)
    assert [row["face"] for row in rows] == ["1"] * 4
    assert np.allclose(np.diff([int(row["x"]) for row in rows]), 20, atol=8)
