"""What prediction writes of pictures and of videos: cells of tables, and files that are ours."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer.core import labels
from fer.core.errors import ConfigError
from fer.core.files import Row, is_ours

if TYPE_CHECKING:
    from fer.evaluation.prediction import Prediction
    from fer.evaluation.predictor import Predictor

FACE_COLUMNS = (
    "face", "x", "y", "width", "height", "emotion", "confidence",
    *(f"p_{emotion}" for emotion in labels.EMOTIONS),
)  # fmt: skip
"""Columns of a table that describe a face."""
SHOWN = 3
"""Emotions that a line names unless --verbose is given."""
MARK = "annotated by fer predict"
"""Marks every picture and video that is written, in its bytes."""


def load_predictor(options: argparse.Namespace) -> Predictor:
    """The network of the command line, with a detector; says if it has only seen drawings."""
    from fer.data.detection import FaceDetector
    from fer.evaluation.predictor import Predictor
    from fer.model.checkpoint import load_checkpoint

    detector = FaceDetector(options.min_size, options.min_confidence)
    checkpoint = load_checkpoint(options.checkpoint)
    if checkpoint.extras["dataset"]["generator"] is not None:
        print(
            "This network was trained on drawn faces: what it says of human faces means nothing.",
            file=sys.stderr,
        )
    return Predictor(
        checkpoint.network, options.accelerator, detector=detector, margin=options.margin
    )


def face_cells(number: int, face: Prediction) -> Row:
    """The cells of a face below :data:`FACE_COLUMNS`."""
    box = face.box or ("", "", "", "")
    return {
        "face": number,
        **dict(zip(("x", "y", "width", "height"), box, strict=True)),
        "emotion": face.emotion,
        "confidence": f"{face.confidence:.9g}",
        **{f"p_{emotion}": f"{p:.9g}" for emotion, p in face.probabilities.items()},
    }


def check_table(path: Path, columns: Sequence[str]) -> None:
    """Refuse to write the table over anything but an earlier one, or to a picture's name."""
    from fer.data.readers.names import is_image

    if is_image(path.name) or not is_ours(path, ",".join(columns)):
        raise ConfigError(
            f"--csv: expected a new file, or the table of an earlier run, found another file, or "
            f"a name that ends like a picture's: {path}. Choose another name: --csv faces.csv"
        )


def name_copy(folder: Path, stem: str, suffix: str, taken: Container[Path]) -> Path:
    """A new name for an annotated copy, or that of an earlier copy."""
    numbers = (f"_{number}" for number in itertools.count(2))
    paths = (folder / f"{stem}{end}{suffix}" for end in itertools.chain([""], numbers))
    return next(path for path in paths if path.resolve() not in taken and is_ours(path, MARK))


def shown(text: object) -> str:
    """``text`` with control characters and broken bytes as escapes, for the terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in str(text)
    )
