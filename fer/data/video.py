"""Videos and cameras, one frame in memory at a time, through OpenCV and the FFmpeg inside it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fer.core.errors import ConfigError, DataError
from fer.core.files import HALF
from fer.data.images import MAX_PIXELS

SUFFIXES = frozenset((
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".ogv", ".ts", ".webm", ".wmv",
))  # fmt: skip
USUAL_RATE = 30.0
"""Frames per second where a file or a camera states none, or one that cannot be."""
MISSING = 0.5
"""Seconds by which a file may end before the length that it states and still be whole."""
RECORDED = ".webm"
"""Suffix of a recorded video: VP8 in WebM, which OpenCV's wheels write and browsers play."""
LONGEST = 1280
"""Longest side of a recorded video in pixels; larger pictures are shrunk to it."""
LONGEST_PAUSE = 60.0
"""Seconds for which a recorded video holds a picture at most, whatever a damaged file says."""


class Frame(NamedTuple):
    """A frame of a video."""

    number: int
    """From 0, those that are left out counted too."""
    seconds: float
    """Since the first frame."""
    pixels: np.ndarray
    """``(H, W, 3)`` uint8, RGB, upright."""


def is_video(path: Path) -> bool:
    """Tell whether a path ends like that of a video, and is no folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


class Video:
    """The frames of a file, or of a camera until :meth:`stop` is called; iterate over it once.

    Args:
        source: path of a file, or number of a camera, from 0.
        every: give one of so many frames.

    Raises:
        DataError: the file is no video, or, once it is read, none with a frame.
        ConfigError: there is no such camera.
    """

    def __init__(self, source: Path | int, every: int = 1) -> None:
        self.source, self.every = source, every
        self._capture = open_file(source) if isinstance(source, Path) else open_camera(source)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate: float = rate if 1 <= rate <= 240 else USUAL_RATE
        """Frames per second; the mean of a variable rate."""
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        known = isinstance(source, Path) and rate == self.rate and 0 < count < 1e9
        self.count = int(count) if known else None
        """Frames, by what the file states of itself; None if unknown."""
        self.read = 0
        """Frames read so far."""
        self.seconds = 0.0
        """Time of the last of them."""
        self._begin = 0.0
        self._stopped = False

    def stop(self) -> None:
        """End after the frame that is being read; a signal's handler may call this."""
        self._stopped = True

    @property
    def missing(self) -> str | None:
        """What is wrong with the end that the frames came to; None if nothing is."""
        if not isinstance(self.source, Path):
            return None if self._stopped else f"camera {self.source} gives no more frames"
        length, end = (self.count or 0) / self.rate, self.seconds + 1 / self.rate
        if self.read >= (self.count or 0) or end > length - MISSING:
            return None
        return (
            f"{self.source}: expected {length:.1f} seconds, as the file states, found {end:.1f}: "
            "the rest is missing or damaged"
        )

    def __iter__(self) -> Iterator[Frame]:
        try:
            while not self._stopped and self._capture.grab():
                pixels: np.ndarray | None = None
                if self.read % self.every == 0:
                    decoded, pixels = self._capture.retrieve()
                    if not decoded:
                        break
                self.seconds = self._time()
                self.read += 1
                if pixels is not None:
                    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                    yield Frame(self.read - 1, self.seconds, pixels)
        finally:
            self._capture.release()
        if not self.read and not self._stopped:
            what = "a camera" if isinstance(self.source, int) else "a video"
            raise DataError(f"{self.source}: expected {what} with frames, found none.")

    def _time(self) -> float:
        """Time of the frame that was just grabbed, in seconds."""
        if isinstance(self.source, int):
            now = time.monotonic()
            self._begin = self._begin if self.read else now
            return now - self._begin
        # The frame's own time, which its number does not tell where the rate varies.
        seconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        if not self.read:
            self._begin = seconds
        seconds -= self._begin
        later = not self.read or seconds > self.seconds  # some files have no times
        return seconds if later else self.seconds + 1 / self.rate


def open_file(path: Path) -> cv2.VideoCapture:
    """Open a file of untrusted content.

    Raises:
        DataError: it is no video.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a video file, found nothing.")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a damaged file is told of once
    with silent():
        capture = cv2.VideoCapture(spelled(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError(
            f"{path}: expected a video that OpenCV {cv2.__version__} reads, found a file that has "
            "no moving picture, is damaged or is of another kind. Convert it: ffmpeg -i FILE "
            "new.mp4"
        )
    width, height = (capture.get(k) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: expected frames of at most {MAX_PIXELS:,} pixels, found {width:.0f} × "
            f"{height:.0f}. Shrink the video first."
        )
    return capture


def spelled(path: Path) -> str:
    """A path as OpenCV takes it: absolute, since FFmpeg knows protocols before a colon.

    Raises:
        DataError: it is not UTF-8, at which OpenCV crashes.
    """
    text = str(path.absolute())
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}: expected a path of a video in UTF-8, found other bytes. Rename it."
        ) from error
    return text


def open_camera(number: int) -> cv2.VideoCapture:
    """Open a camera.

    Raises:
        ConfigError: there is none of this number, or it does not open.
    """
    with silent():
        capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise ConfigError(
            f"--camera: expected the number of a camera that opens (0 is the first), found none "
            f"that does for {number}. Connect it, end the program that holds it, allow access to "
            "it, or try another number."
        )
    return capture


@contextmanager
def silent() -> Iterator[None]:
    """Keep back what OpenCV and FFmpeg print to standard error, past Python."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def recorded(path: Path, rate: float, mark: str) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Write a video (see :data:`RECORDED`), which is complete or absent.

    Args:
        path: of the file; its folder is made.
        rate: pictures per second; one at least is written, since OpenCV leaves slower videos empty.
        mark: at most 100 bytes that the file contains.

    Yields:
        a function that takes each picture ``(H, W, 3)`` uint8, and its time in seconds, for which
        the picture before it is held.

    Raises:
        ConfigError: this OpenCV does not write such videos.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".", suffix=HALF, dir=path.parent, ignore_cleanup_errors=True
    ) as folder:
        half = Path(folder) / f"video{RECORDED}"
        recorder = Recorder(half, max(rate, 1.0))
        try:
            yield recorder.add
        finally:
            recorder.close()
        if not half.exists():
            return
        with half.open("ab") as file:
            # The element Void of EBML (RFC 8794), which players skip.
            file.write(bytes((0xEC, 0x80 | len(mark.encode()))) + mark.encode())
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)


class Recorder:
    """Writes pictures at their times into a video of a constant rate."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None
        self._last: np.ndarray | None = None
        self._size = (0, 0)
        self._seconds = self._clock = 0.0
        self._written = 0

    def add(self, pixels: np.ndarray, seconds: float) -> None:
        """Hold the picture before this one until its time; of two for one moment, keep this."""
        if self._writer is None:
            self._open(pixels)
        else:
            self._clock += min(seconds - self._seconds, LONGEST_PAUSE)
        self._seconds = seconds
        while self._written < round(self._clock * self._rate):
            self._write()
        self._last = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)

    def _open(self, pixels: np.ndarray) -> None:
        height, width = pixels.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        # OpenCV leaves out pictures of another size without a word, and VP8 has even sides.
        self._size = (max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2))
        code = cv2.VideoWriter.fourcc(*"VP80")
        with silent():
            self._writer = cv2.VideoWriter(
                spelled(self._path), cv2.CAP_FFMPEG, code, self._rate, self._size
            )
        if not self._writer.isOpened():
            raise ConfigError(
                "--annotate: expected an OpenCV that writes VP8 in WebM, found that version "
                f"{cv2.__version__} does not. Install its wheel: pip install --force-reinstall "
                "opencv-python-headless"
            )

    def _write(self) -> None:
        assert self._writer is not None and self._last is not None
        if self._last.shape[1::-1] != self._size:
            self._last = cv2.resize(self._last, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(self._last)
        self._written += 1

    def close(self) -> None:
        """Write the last picture and end the file."""
        if self._writer is not None:
            if self._last is not None:
                self._write()
            self._writer.release()
