"""``python -m fer predict``: the emotions of the faces in pictures, a video or a camera's.

See ``--help``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fer.core.errors import DataError, FerError
from fer.core.files import Row, write_bytes, write_csv
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

if TYPE_CHECKING:
    from fer.evaluation.prediction import Prediction

COLUMNS = ("image", "status", *FACE_COLUMNS)


@dataclass(frozen=True)
class Result:
    """The faces in one picture, or what is wrong with it."""

    path: Path
    faces: list[Prediction] = field(default_factory=list)
    error: str | None = None

    @property
    def status(self) -> str:
        """``ok``, ``no face`` or ``error``."""
        if self.error is not None:
            return "error"
        return "ok" if self.faces else "no face"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fer predict",
        description="Find the faces in pictures, in a video or before a camera, and say which "
        "emotion each shows.",
        epilog="Exit code: 0 if every picture was read (a picture without a face is no mistake), "
        "1 if one was not or nothing could be done, 2 for a mistaken command line.",
    )
    parser.add_argument(
        "images", nargs="*", type=Path, metavar="IMAGE|FOLDER|VIDEO",
        help="picture, or folder whose pictures are taken, those in its subfolders too; or one "
        "video",
    )  # fmt: skip
    parser.add_argument(
        "--camera", type=whole_number(0), metavar="NUMBER",
        help="watch a camera, 0 being the first, until Ctrl-C",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", default="pretrained", metavar="PATH",
        help="checkpoint of train.py or fer export (.safetensors); default: %(default)s, the "
        "network that comes with the package",
    )  # fmt: skip
    parser.add_argument(
        "--whole", action="store_true",
        help="take each picture or frame for one cropped face; needs no detector",
    )  # fmt: skip
    parser.add_argument(
        "--config-dir", type=Path, action="append", default=[], metavar="DIR",
        help="folder with options of your own, for a checkpoint of a network in DIR/model",
    )  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table, a row per face")
    parser.add_argument(
        "--verbose", action="store_true",
        help=f"print every emotion's probability, not those of the {SHOWN} likeliest alone, and of "
        "a video every face",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of lines; of a video the summary"
    )
    parser.add_argument(
        "--annotate", type=Path, metavar="DIR",
        help="write a copy of each picture there, with box, emotion and percentage (PNG); of a "
        "video one with face numbers too (WebM)",
    )  # fmt: skip
    parser.add_argument(
        "--accelerator", default="auto", metavar="NAME",
        help="auto, cpu, gpu or mps; default: %(default)s",
    )  # fmt: skip
    add_groups(parser)
    return parser


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Add the options on videos and on finding faces."""
    videos = parser.add_argument_group("videos and cameras")
    videos.add_argument(
        "--every", type=whole_number(1), metavar="N",
        help="look at one frame of N; default: each; with a large N a face that moves gets new "
        "numbers",
    )  # fmt: skip
    videos.add_argument(
        "--timeline", type=Path, metavar="FILE",
        help="draw each face's probabilities over time (PNG)",
    )  # fmt: skip
    faces = parser.add_argument_group("finding faces")
    faces.add_argument(
        "--margin", type=float, default=0.0, metavar="SHARE",
        help="added around each face, as a share of its box; default: 0, as in FER2013's crops",
    )  # fmt: skip
    faces.add_argument(
        "--min-size", type=float, default=0.1, metavar="SHARE",
        help="smallest face, as a share of the picture's shorter side; half of it takes four "
        "times as long; default: %(default)s",
    )  # fmt: skip
    faces.add_argument(
        "--min-confidence", type=float, default=0.8, metavar="SHARE",
        help="how sure of a face one must be, 0 to 1: more for fewer false faces; default: "
        "%(default)s",
    )  # fmt: skip


def whole_number(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number, at least ``least``."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {least}, found {text!r}"
            )
        return int(text)

    return read


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    source = find_source(parser, options)
    if options.csv is not None and options.csv.is_dir():
        parser.error(f"--csv: expected a file, found the folder {shown(options.csv)}")
    if options.annotate is not None and options.annotate.exists() and not options.annotate.is_dir():
        parser.error(f"--annotate: expected a folder, found the file {shown(options.annotate)}")
    try:
        if options.config_dir:
            from fer.tasks.assembly import import_networks

            import_networks(options.config_dir)
        if source is not None:
            from fer.tasks import predict_video

            return predict_video.run(options, source)
        return run(options)
    except FerError as error:
        print(f"Error: {shown(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted; what was not complete is gone.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise  # | head has read enough: no mistake
    except OSError as error:  # a result that cannot be written
        print(f"Error: {shown(error)}. Nothing more was written.", file=sys.stderr)
    return 1


def find_source(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Path | int | None:
    """The video or camera that is asked for; None for pictures. A mistake ends the program."""
    cameras = [] if options.camera is None else [options.camera]
    if not (options.images or cameras):
        parser.error("expected pictures, folders, a video or --camera, found none of them")
    from fer.data.video import is_video

    sources = [*filter(is_video, options.images), *cameras]
    if sources and len(options.images) + len(cameras) > 1:
        parser.error(
            "expected pictures and folders, or one video, or --camera, found several of these: "
            "give each video or camera a command of its own"
        )
    if not sources and (options.every or options.timeline):
        parser.error("--every, --timeline: expected a video or --camera, found pictures")
    options.every = options.every or 1
    if options.timeline is not None and options.timeline.suffix.lower() != ".png":
        found = shown(options.timeline)
        parser.error(f"--timeline: expected a name that ends in .png, found {found}")
    return sources[0] if sources else None


def run(options: argparse.Namespace) -> int:
    """Predict, print and write; returns the exit code.

    Raises:
        FerError: nothing can be done; what is wrong with one picture is printed instead.
    """
    paths, missing = collect(options.images, options.annotate)
    if options.csv is not None:
        check_table(options.csv, COLUMNS)
    results = []
    for result in itertools.chain(find_faces(paths, options) if paths else [], missing):
        if not options.json:
            print_result(result, None if options.verbose else SHOWN)
        results.append(result)
    if options.csv is not None:
        write_csv(options.csv, COLUMNS, rows(results))
    if options.json:
        print(json.dumps([describe(result) for result in results], indent=2))
    elif any(result.status == "no face" for result in results):
        print(
            "No face was found in some pictures. If a picture is itself one cropped face, add "
            "--whole; for smaller faces a lower --min-size, for unsure ones a lower "
            "--min-confidence.",
            file=sys.stderr,
        )
    return int(any(result.error is not None for result in results))


def collect(given: Sequence[Path], annotated: Path | None) -> tuple[list[Path], list[Result]]:
    """The pictures to look at, and a result for each of ``given`` that has none.

    The folder ``annotated`` is left out where it lies in one that is searched: an earlier run wrote
    its pictures.
    """
    from fer.data.readers.names import by_suffix, is_image
    from fer.data.readers.sources import list_files

    paths: list[Path] = []
    missing = []
    for path in given:
        if not path.is_dir():
            paths.append(path)  # whatever is wrong with it is said when it is read
            continue
        try:
            names = list_files(path)
        except DataError as error:
            missing.append(Result(path, error=str(error)))
            continue
        others = [name for name in names if not is_image(name)]
        if others:
            found = f"{len(others):,} files are not pictures and were left out"
            print(f"{shown(path)}: {found} ({shown(by_suffix(others))}).", file=sys.stderr)
        files = [path / name for name in names if is_image(name)]
        if annotated is not None and path.resolve() in annotated.resolve().parents:
            files = [file for file in files if annotated.resolve() not in file.resolve().parents]
        if not files:
            why = f"{path}: expected pictures in this folder, found none."
            missing.append(Result(path, error=why))
        paths += files
    return list(dict.fromkeys(paths)), missing


def find_faces(paths: Sequence[Path], options: argparse.Namespace) -> Iterator[Result]:
    """Read each picture, find its faces and write its annotated copy."""
    from fer.data.images import encode_png, read_picture
    from fer.report.annotation import annotate

    predictor = load_predictor(options)
    taken = {path.resolve() for path in paths}
    for path in paths:
        try:
            pixels = read_picture(path)
            faces = [predictor(pixels)] if options.whole else predictor.find(pixels)
        except DataError as error:
            yield Result(path, error=str(error))
            continue
        if options.annotate is not None:
            copy = name_copy(options.annotate, path.stem, ".png", taken)
            taken.add(copy.resolve())
            write_bytes(copy, encode_png(annotate(pixels, faces), MARK))
        yield Result(path, faces)


def print_result(result: Result, most: int | None = None) -> None:
    """Print a line for each face, or what is wrong to standard error.

    ``most``: emotions that a line names, the likeliest first; None for all.
    """
    if result.error is not None:
        print(f"Error: {shown(result.error)}", file=sys.stderr, flush=True)
        return
    name = shown(result.path)
    if not result.faces:
        print(f"{name}: no face found")
    for number, face in enumerate(result.faces, start=1):
        where = ""
        if face.box is not None:
            x, y, width, height = face.box
            where = f", face {number} at ({x}, {y}), {width} × {height}"
        ordered = sorted(face.probabilities.items(), key=lambda item: -item[1])
        text = ", ".join(f"{emotion} {100 * p:.1f} %" for emotion, p in ordered[:most])
        print(f"{name}{where}: {text}")


def describe(result: Result) -> dict[str, object]:
    """An element of what ``--json`` prints."""
    faces = [
        {
            "box": None if face.box is None else list(face.box),
            "emotion": face.emotion,
            "confidence": face.confidence,
            "probabilities": face.probabilities,
        }
        for face in result.faces
    ]
    picture = {"image": str(result.path), "status": result.status, "error": result.error}
    return {**picture, "faces": faces}


def rows(results: Sequence[Result]) -> Iterator[Row]:
    """The rows of the table: one per face, and one for a picture without any."""
    for result in results:
        picture: Row = {"image": str(result.path), "status": result.status}
        if not result.faces:
            yield picture
        for number, face in enumerate(result.faces, start=1):
            yield picture | face_cells(number, face)


if __name__ == "__main__":
    sys.exit(main())
