"""A prepared folder that someone else made: the three split folders alone."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import write_json
from fer.core.progress import progress_bar
from fer.data.audit.appearance import LOOKS, hex_hash, measure, working_side
from fer.data.audit.integrity import Integrity, Origin, inspect, summarise
from fer.data.audit.reference import Reference, load_reference
from fer.data.images import read_picture
from fer.data.manifest import Entry, pixel_hash, write_manifest
from fer.data.prepared import CACHE, FORMAT, Prepared, Report, load
from fer.data.readers.base import SPLITS, Reader
from fer.data.readers.names import is_image
from fer.data.readers.sources import describe_files, list_files, sha256_of_files

log = logging.getLogger(__name__)


def adopt(
    name: str, folder: Path, reader: Reader, origin: Origin, report: Report | None
) -> Prepared:
    """Take a folder as it is.

    Nothing in it is changed, but for a ``.cache`` folder that remembers what was found until a
    file changes.

    Raises:
        DataError: a file is no image, is misplaced or does not decode, or there is none; or the
            reader has other labels than the folder.
    """
    if reader.relabels:
        raise DataError(
            f"{folder}: expected no prepared dataset or one made by this program, since {name} "
            "gives images new labels, found split folders without a manifest.csv. Move them away "
            "and pass the raw data: dataset.raw=PATH; or take their own labels: dataset=folder"
        )
    emotions = list_split_folders(folder)
    files = list(emotions)
    signature = sha256_of_files(describe_files(folder, files), start=str(FORMAT))
    remembered = folder / CACHE / f"adopted-{signature[:16]}"
    known = recall(remembered, folder, files)
    if known is not None:
        return known
    entries, looks = look_at(name, folder, emotions, working_side(reader.expected_size))
    integrity: Integrity = {
        "dataset": name,
        "source": {
            "form": "prepared folder made elsewhere",
            "given": {"path": str(folder.resolve())},
            "signature": signature,
        },
        "origin": origin,
        "official_protocol": False,
        "warnings": ["The prepared folder was made elsewhere: its splits are taken as they are."],
        "excluded": {},
        "undecodable": [],
        **inspect(
            entries,
            looks,
            official_counts=reader.official_counts,
            expected_size=reader.expected_size,
            reference=load_known(reader),
        ),
    }
    for line in (*integrity["warnings"], *summarise(integrity)):
        log.info("%s: %s", name, line)
    prepared = Prepared(folder, entries, integrity, files)
    if os.access(folder, os.W_OK):
        write_manifest(remembered / "manifest.csv", entries)
        if report is not None:
            report(remembered, entries, integrity, prepared.read)
        write_json(remembered / "integrity.json", integrity)  # last: it says that all is there
    return prepared


def list_split_folders(folder: Path) -> dict[str, str]:
    """Images of split folders, as paths below ``folder``, and the emotion of each.

    Raises:
        DataError: a file is no image or is misplaced, or there is none.
    """
    emotions: dict[str, str] = {}
    for split in SPLITS:
        for name in list_files(folder / split) if (folder / split).is_dir() else ():
            file, parts = f"{split}/{name}", name.split("/")
            if len(parts) != 2 or not is_image(file):
                raise DataError(
                    f"{folder / file}: expected image files at <split>/<emotion>/<image>, found "
                    "this. Move it elsewhere."
                )
            try:
                emotions[file] = labels.canonical(parts[0])
            except DataError as error:
                raise DataError(f"{folder / file}: {error}") from error
    if not emotions:
        raise DataError(
            f"{folder}: expected images at <split>/<emotion>/<image>, found split folders without "
            "any. Fill them, or remove them to prepare the dataset here."
        )
    return emotions


def recall(remembered: Path, folder: Path, files: list[str]) -> Prepared | None:
    """The earlier findings about the same files; None if there are none, or damaged ones."""
    if not (remembered / "integrity.json").exists():
        return None
    try:
        known = load(remembered)
    except DataError as error:
        log.warning("%s is damaged: it is made again (%s)", remembered, error)
        return None
    sources = [entry.source for entry in known.entries]
    if sources != files or len({entry.id for entry in known.entries}) != len(files):
        return None
    return Prepared(folder, known.entries, known.integrity, files)


def look_at(
    name: str, folder: Path, emotions: Mapping[str, str], side: int
) -> tuple[list[Entry], np.ndarray]:
    """Entries and appearances of the images in ``folder``."""
    entries, appearances = [], []
    # Stems may repeat from folder to folder here; the path without its suffix hardly does.
    stems = {file: Path(file).with_suffix("").as_posix() for file in emotions}
    count = Counter(stems.values())
    with progress_bar(f"Checking {name}") as progress:
        for number, (file, emotion) in enumerate(emotions.items(), start=1):
            image = read_picture(folder / file)
            looks = measure(image, side)
            entry_id = (stems[file] if count[stems[file]] == 1 else file).replace("/", "_")
            split, sha256 = file.split("/")[0], pixel_hash(image)
            entries.append(Entry(entry_id, emotion, split, file, sha256, phash=hex_hash(looks)))
            appearances.append(looks)
            if number % 256 == 0 or number == len(emotions):
                progress(number, len(emotions))
    return entries, np.array(appearances, LOOKS)


def load_known(reader: Reader) -> Reference | None:
    """The reference copy of the reader's dataset, where the package has one."""
    return None if reader.reference is None else load_reference(reader.reference)
