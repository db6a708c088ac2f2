"""Prediction on a video or a camera: frame by frame, in constant memory."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from fer.core.errors import ConfigError
from fer.core.files import Row, is_ours, write_bytes, write_csv
from fer.core.progress import progress_bar
from fer.core.words import how_many, percent
from fer.data.images import encode_png
from fer.data.video import RECORDED, Video, recorded
from fer.evaluation.tracking import Appearance, Tracker, longest
from fer.report.annotation import annotate
from fer.report.figures import to_image
from fer.report.timeline import timeline
from fer.tasks.predict_output import (
    FACE_COLUMNS,
    MARK,
    SHOWN,
    check_table,
    face_cells,
    load_predictor,
    name_copy,
    shown,
)

COLUMNS = ("seconds", "frame", *FACE_COLUMNS)


def run(options: argparse.Namespace, source: Path | int) -> int:
    """Predict, write and print a summary; returns the exit code.

    Args:
        options: the command line.
        source: path of a video, or number of a camera.

    Raises:
        FerError: nothing can be done; nothing is written then.
    """
    if options.csv is not None:
        check_table(options.csv, COLUMNS)
    if options.timeline is not None and not is_ours(options.timeline, MARK):
        raise ConfigError(
            "--timeline: expected a new file, or the timeline of an earlier run, found another "
            f"file: {options.timeline}. Choose another name."
        )
    name = source.name if isinstance(source, Path) else f"camera {source}"
    watching = Watching(Video(source, options.every), name, options)
    if options.csv is not None:
        write_csv(options.csv, COLUMNS, watching.rows())
    else:
        deque(watching.rows(), maxlen=0)
    if options.timeline is not None:
        figure = timeline(watching.faces, name, watching.video.seconds, options.every)
        write_bytes(options.timeline, encode_png(to_image(figure), MARK))
    watching.tell()
    return int(watching.video.missing is not None)


class Watching:
    """What is gathered while a video or a camera is watched."""

    def __init__(self, video: Video, name: str, options: argparse.Namespace) -> None:
        self.video, self.name, self.options = video, name, options
        self.faces: dict[int, Appearance] = {}
        self.looked = 0
        """Frames in which faces were searched."""
        self.took = 0.0
        """Seconds that all this took, without loading the network."""
        self.copy: Path | None = None
        """The annotated copy."""
        if options.annotate is not None:
            stem, taken = f"camera_{datetime.now():%Y-%m-%d_%H-%M-%S}", []
            if isinstance(video.source, Path):
                stem, taken = video.source.stem, [video.source.resolve()]
            self.copy = name_copy(options.annotate, stem, RECORDED, taken)

    def rows(self) -> Iterator[Row]:
        """Look at each frame, write it into the annotated copy, and give its faces' rows."""
        video, options = self.video, self.options
        predictor, tracker = load_predictor(options), Tracker()
        begin = time.monotonic()
        with contextlib.ExitStack() as stack:
            if self.copy is not None:
                copy = recorded(self.copy, video.rate / video.every, MARK)
                add = stack.enter_context(copy)
            progress = stack.enter_context(progress_bar(shown(self.name)))
            if isinstance(video.source, int):
                stack.enter_context(stopped_by_ctrl_c(video))
            for frame in video:
                faces = [predictor(frame.pixels)] if options.whole else predictor.find(frame.pixels)
                boxes = [face.box for face in faces if face.box is not None]
                numbers = [1] if options.whole else tracker.number(boxes, frame.seconds)
                if self.copy is not None:
                    shown_numbers = None if options.whole else numbers
                    add(annotate(frame.pixels, faces, shown_numbers), frame.seconds)
                self.looked += 1
                for number, face in zip(numbers, faces, strict=True):
                    seen = self.faces.setdefault(number, Appearance(frame.seconds))
                    seen.add(self.looked, frame.seconds, face, keep=options.timeline is not None)
                    place: Row = {"seconds": f"{frame.seconds:.3f}", "frame": frame.number}
                    yield place | face_cells(number, face)
                progress(video.read, video.count)
                self.took = time.monotonic() - begin

    def tell(self) -> None:
        """Print the summary."""
        video, speed = self.video, self.looked / max(self.took, 1e-9)
        if self.options.json:
            faces = [
                {"face": number, "first": face.first, "last": face.last, "frames": face.frames,
                 "shares": dict(face.shares)}
                for number, face in self.faces.items()
            ]  # fmt: skip
            summary = {
                "video": str(video.source), "seconds": video.seconds, "frames": self.looked,
                "frames_per_second": speed, "error": video.missing, "faces": faces,
            }  # fmt: skip
            print(json.dumps(summary, indent=2))
        else:
            self._print_lines(speed)
        if self.copy is not None and self.looked:
            print(f"Annotated: {shown(self.copy)}", file=sys.stderr)
        if self.looked and not self.faces:
            print(
                "No face was found. For smaller faces a lower --min-size, for unsure ones a lower "
                "--min-confidence; if each frame is itself one cropped face, add --whole.",
                file=sys.stderr,
            )
        if video.missing is not None:
            print(f"Error: {shown(video.missing)}. What was read is kept.", file=sys.stderr)

    def _print_lines(self, speed: float) -> None:
        name, found = shown(self.name), how_many(len(self.faces), "face")
        looked = f"{self.looked:,} of {how_many(self.video.read, 'frame')} looked at"
        print(f"{name}: {self.video.seconds:.1f} s, {looked}, {speed:.1f} a second; {found}")
        numbers = self.faces if self.options.verbose else longest(self.faces)
        for number in numbers:
            face = self.faces[number]
            shares = face.shares[: None if self.options.verbose else SHOWN]
            text = ", ".join(f"{emotion} in {percent(share)}" for emotion, share in shares)
            when = f"{face.first:.1f}–{face.last:.1f} s, {how_many(face.frames, 'frame')}"
            print(f"{name}, face {number}, {when}: {text}")
        if len(numbers) < len(self.faces):
            others = how_many(len(self.faces) - len(numbers), "other face")
            print(f"{name}: {others}, seen in fewer frames; --verbose names all")


@contextlib.contextmanager
def stopped_by_ctrl_c(video: Video) -> Iterator[None]:
    """Let Ctrl-C end a video, with all that was recorded; a second one ends the program."""
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        video.stop()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    print("Ctrl-C ends it and keeps what was recorded.", file=sys.stderr)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
