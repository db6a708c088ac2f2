"""Put a network on the Hugging Face Hub: ``python -m fer push user/name``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fer.core.errors import DataError, ExportError, FerError, first_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Upload a network and its card, or show what would be; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fer push",
        description="Put a network with its model card on the Hugging Face Hub: weights as "
        "safetensors, without any code. Log in first: hf auth login",
    )
    parser.add_argument("repository", metavar="USER/NAME", help="made if it does not exist")
    parser.add_argument(
        "--checkpoint", default="pretrained", metavar="PATH", help="default: %(default)s"
    )
    parser.add_argument(
        "--card", type=Path, default=Path("MODEL_CARD.md"), metavar="FILE",
        help="made by fer card; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--private", action="store_true", help="make a private repository")
    parser.add_argument("--dry-run", action="store_true", help="show what would be uploaded")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            collect(Path(folder), options.checkpoint, options.card)
            print(listing(Path(folder), options.repository))
            if options.dry_run:
                print("Nothing was uploaded.")
            else:
                print(upload(Path(folder), options.repository, options.private))
    except (FerError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def collect(folder: Path, checkpoint: str, card: Path) -> None:
    """Write into ``folder`` what the repository will hold: the weights and the card.

    Raises:
        FerError: there is no such checkpoint, or no card that ``fer card`` wrote.
    """
    from fer.model.checkpoint import load_checkpoint
    from fer.model.hub import CARD, WEIGHTS
    from fer.tasks.card import MARK
    from fer.tasks.export import to_safetensors

    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if MARK not in text:
        found = "another file" if text else "none"
        raise DataError(
            f"--card: expected a card that fer card wrote, found {found} at {card}. Write one from "
            "a study: python -m fer card outputs/study/A_B"
        )
    (folder / WEIGHTS).write_bytes(to_safetensors(load_checkpoint(checkpoint)))
    (folder / CARD).write_text(text, encoding="utf-8")


def listing(folder: Path, repository: str) -> str:
    """What stands in ``folder``, in words."""
    from fer.model.hub import SCHEME, check_name

    files = [f"  {path.name}: {path.stat().st_size:,} bytes" for path in sorted(folder.iterdir())]
    return "\n".join([f"{SCHEME}{check_name(repository)}", *files])


def upload(folder: Path, repository: str, private: bool) -> str:
    """Upload ``folder`` as one commit, into a repository that is made if need be; its address.

    Raises:
        ConfigError: huggingface_hub is missing.
        ExportError: the hub refuses, or does not answer.
    """
    from fer.model.hub import missing

    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise missing("fer push") from error
    try:
        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=folder))
    except Exception as error:  # the hub's client passes on what its own libraries raise
        raise ExportError(
            f"fer push: expected the hub to take {repository}, found: {first_line(error)}. Log in "
            "(hf auth login), and see that the token may write there."
        ) from error
