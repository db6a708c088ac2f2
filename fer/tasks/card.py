"""The model card of a study: ``python -m fer card outputs/study/fer2013_rafdb``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fer.core.errors import DataError, FerError

MARK = "written by `python -m fer card` from the results of"
"""A line of every card, by which its files are known."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fer card",
        description="Write the model card of a study, from its results alone.",
    )
    parser.add_argument(
        "study", type=Path, help="folder of a study, or its study.json: outputs/study/A_B"
    )
    parser.add_argument("--output", type=Path, default=Path("MODEL_CARD.md"), help="%(default)s")
    options = parser.parse_args(arguments)
    try:
        print(write_card(options.study, options.output))
    except (FerError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def write_card(study: Path, output: Path) -> Path:
    """Write the card of a study, from its folder or the file with its results, atomically.

    Raises:
        FerError: there are no results of a study, huggingface_hub is missing, or ``output`` is
            another file than a card.
    """
    from fer.core.files import is_ours, read_json, write_text
    from fer.report.model_card import render_card
    from fer.report.study_results import RESULTS

    path = study / RESULTS if study.is_dir() else study
    if not path.is_file():
        raise DataError(
            f"fer card: expected the results of a study at {path}, found none. Run it first: "
            "python -m fer study"
        )
    card = render_card(read_json(path))
    if not is_ours(output, MARK):
        raise DataError(
            f"fer card: expected a new file to write, or an earlier card, found another file: "
            f"{output}. Give another name: --output CARD.md"
        )
    return write_text(output, card)


if __name__ == "__main__":
    sys.exit(main())
