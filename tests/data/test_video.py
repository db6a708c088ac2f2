"""Videos and cameras: frames with their times, damage that is named, recordings that are whole."""

from __future__ import annotations

import os
import re
import struct
import wave
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.core.errors import ConfigError, DataError
from fer.data import video as video_module
from fer.data.video import LONGEST, LONGEST_PAUSE, Video, recorded
from tests.conftest import write_file

RATE = 10.0
FRAMES = [np.full((48, 64, 3), 20 + 20 * i, np.uint8) for i in range(10)]


def write_video(
    path: Path, frames: Sequence[np.ndarray] = FRAMES, code: str = "mp4v", rate: float = RATE
) -> Path:
    """A video of ``(H, W, 3)`` uint8 RGB frames."""
    height, width = frames[0].shape[:2]
    with video_module.silent():
        writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), rate, (width, height)
        )
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


class FakeCapture:
    """What OpenCV would have opened."""

    def __init__(self, frames: Sequence[np.ndarray], times: Sequence[float] | None = None) -> None:
        self.frames, self.times, self.at, self.released = frames, times, -1, False

    def isOpened(self) -> bool:
        return True

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self.times[self.at] if self.times else 0.0
        return RATE if key == cv2.CAP_PROP_FPS else -1.0

    def grab(self) -> bool:
        self.at += 1
        return self.at < len(self.frames)

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, self.frames[self.at]

    def release(self) -> None:
        self.released = True


# --- reading -------------------------------------------------------------------------------------


def test_frames_come_in_order_with_their_times_and_colours(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    video = Video(write_video(tmp_path / "a.mp4", [red, *FRAMES[1:]]))
    frames = list(video)
    assert [frame.number for frame in frames] == list(range(10))
    assert [frame.seconds for frame in frames] == pytest.approx([i / RATE for i in range(10)])
    assert abs(frames[0].pixels.mean(axis=(0, 1)) - (200, 0, 0)).max() < 8
    assert (video.rate, video.count, video.read, video.missing) == (RATE, 10, 10, None)


def test_one_of_several_frames_keeps_its_own_number_and_time(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "a.mp4"), every=4)
    found = [(frame.number, round(frame.seconds, 6)) for frame in video]
    assert found == [(0, 0.0), (4, 0.4), (8, 0.8)]
    assert video.read == 10


def test_times_are_those_of_the_file_where_the_rate_varies(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", code="VP80")
    data = bytearray(path.read_bytes())
    times = [0, 20, 50, 100, 110, 300, 500, 700, 1900, 2500]
    places = []
    for number in range(10):  # the milliseconds of its SimpleBlocks
        block = b"\x81" + re.escape(struct.pack(">h", 100 * number)) + b"[\x00\x80]"
        places += [found.start() + 1 for found in re.finditer(block, data, re.DOTALL)]
    for place, time in zip(places, times, strict=True):
        data[place : place + 2] = struct.pack(">h", time)
    path.write_bytes(data)
    assert [round(1000 * frame.seconds) for frame in Video(path)] == times


def test_times_that_a_file_lacks_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_module, "open_file", lambda path: FakeCapture(FRAMES))
    video = Video(tmp_path / "a.mp4")
    assert [frame.seconds for frame in video] == pytest.approx([i / RATE for i in range(10)])
    assert video.count is None and video.missing is None


def test_a_turned_video_is_upright(tmp_path: Path) -> None:
    halves = np.zeros((48, 64, 3), np.uint8)
    halves[:, :32] = 200
    path = write_video(tmp_path / "a.mp4", [halves] * 3)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    pixels = next(iter(Video(path))).pixels
    assert pixels.shape == (64, 48, 3)
    assert pixels[:24].mean() > 150 and pixels[40:].mean() < 50


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_what_a_cut_file_still_has_is_read_and_it_says_so(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.webm", list(noise), "VP80")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    video = Video(path)
    read = len(list(video))
    assert 0 < read < 15
    assert video.missing is not None and "expected 2.0 seconds, as the file states" in video.missing


def test_what_is_no_video_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    write_file(tmp_path / "empty.mp4", b"")
    write_file(tmp_path / "text.mp4", b"no video " * 50)
    write_file(tmp_path / "cut.mp4", whole[: len(whole) // 2])  # its index stands at its end
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    for name in ("empty.mp4", "text.mp4", "cut.mp4", "sound.mp4"):
        with pytest.raises(DataError, match=f"{name}: expected a video that OpenCV"):
            Video(tmp_path / name)
    with pytest.raises(DataError, match="found nothing"):
        Video(tmp_path / "gone.mp4")
    broken = write_file(Path(os.fsdecode(bytes(tmp_path) + b"/\xff.mp4")), whole)
    with pytest.raises(DataError, match="expected a path of a video in UTF-8"):
        Video(broken)
    assert capfd.readouterr() == ("", "")


def test_a_video_without_a_frame_and_one_of_huge_frames_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(video_module, "MAX_PIXELS", 1000)
        with pytest.raises(DataError, match=r"at most 1,000 pixels, found 64 × 48"):
            Video(path)
    monkeypatch.setattr(video_module, "open_file", lambda path: FakeCapture([]))
    with pytest.raises(DataError, match="expected a video with frames, found none"):
        list(Video(path))


def test_a_camera_gives_frames_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture(FRAMES)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture)
    video = Video(0)
    seconds = []
    for frame in video:
        seconds.append(frame.seconds)
        if frame.number == 3:
            video.stop()
    assert len(seconds) == 4 and seconds[0] == 0 and seconds == sorted(seconds)
    assert capture.released and video.missing is None


def test_a_camera_that_ends_by_itself_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeCapture(FRAMES))
    video = Video(0)
    assert len(list(video)) == 10 and video.missing == "camera 0 gives no more frames"


def test_no_camera_is_one_message(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"--camera: expected .* found none that does for 99"):
        Video(99)
    assert capfd.readouterr() == ("", "")


# --- recording -----------------------------------------------------------------------------------


def read_back(path: Path) -> list[float]:
    return [round(float(frame.pixels.mean()), 0) for frame in Video(path)]


def test_a_picture_is_held_until_the_next_ones_time(tmp_path: Path) -> None:
    path = tmp_path / "new/a.webm"
    with recorded(path, RATE, "our mark") as add:
        for level, seconds in ((40, 3.0), (80, 3.1), (120, 3.14), (200, 3.5)):
            add(np.full((48, 64, 3), level, np.uint8), seconds)
    assert np.allclose(read_back(path), [40, 120, 120, 120, 120, 200], atol=6)
    assert b"our mark" in path.read_bytes()
    assert [path.name for path in path.parent.iterdir()] == ["a.webm"]


def test_no_pause_fills_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    with recorded(path, 0.001, "m") as add:  # OpenCV would leave a video of that rate empty
        for seconds in (0.0, 1e12, 1e12 + 2):
            add(FRAMES[0], seconds)
    assert len(read_back(path)) == LONGEST_PAUSE + 2 + 1


def test_pictures_of_any_size_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    with recorded(path, RATE, "m") as add:
        for number, (height, width) in enumerate([(601, 2001), (300, 1000), (1, 1)]):
            add(np.full((height, width, 3), 50 + 50 * number, np.uint8), number / RATE)
    frames = list(Video(path))
    assert len(frames) == 3 and frames[0].pixels.shape[1] == LONGEST
    assert np.allclose(read_back(path), [50, 100, 150], atol=6)


def test_what_is_broken_off_leaves_no_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.webm", b"before")
    with pytest.raises(KeyboardInterrupt), recorded(path, RATE, "m") as add:
        add(FRAMES[0], 0.0)
        raise KeyboardInterrupt
    with recorded(path, RATE, "m"):
        pass  # nothing came
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1
