"""A prepared folder: what is in it, and in which state it is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock, Timeout

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import HALF, read_json, sha256_of_file
from fer.core.values import Shape, fits
from fer.data.audit.integrity import Given, Integrity, Origin
from fer.data.images import read_picture
from fer.data.manifest import Entry, fingerprint, read_manifest
from fer.data.readers.agreement import DISAGREE
from fer.data.readers.base import SPLITS
from fer.data.readers.names import is_hidden
from fer.data.readers.sources import describe_files, sha256_of_files

log = logging.getLogger(__name__)

FORMAT = 4
"""Version of ``integrity.json``; what was prepared in another one is prepared again."""
PARTS = (*SPLITS, "integrity.json", "manifest.csv")
"""Parts of a prepared folder, in the order in which they are moved into place."""
REPORT = ("figures", "report.html")
"""Parts that a report adds; moved before the others."""
OWN = frozenset({*PARTS, *REPORT})
CACHE = ".cache"
DRAWN, DRAWN_TEXT = ".drawn", "What lies here was drawn, and may be drawn again.\n"
"""The mark of a raw folder whose content was drawn: what else is in one is somebody's."""
ELSEWHERE = "Choose another place with paths.data=FOLDER or the environment variable FER_DATA."
ORIGIN: Shape = {"reader": dict, "generator": (dict, None)}
GROUPS = dict.fromkeys(
    (
        *("groups", "images", "groups_across_splits", "images_across_splits"),
        *("groups_with_conflicting_labels", "images_with_conflicting_labels"),
    ),
    int,
)
REPORTED: Shape = {
    "dataset": str,
    "source": {
        "form": str,
        "given": {"path": str},
        "signature": str,
        "beside": ({"path": str}, None, ...),
    },
    "origin": ORIGIN,
    "official_protocol": bool,
    "warnings": [str],
    "excluded": dict,
    "undecodable": [dict],
    "faceless": ({str: {str: int}}, ...),
    "verdict": str,
    "verdict_text": str,
    "findings": [{"kind": str, "text": str}],
    "images": int,
    "counts": {split: dict.fromkeys(labels.EMOTIONS, int) for split in SPLITS},
    "official_counts": (dict, None),
    "matches_official_counts": (bool, None),
    "sizes": dict,
    "odd_sizes": {"images": int},
    "pixels": dict,
    "duplicates": {**GROUPS, "conflicts": ([[{"id": str, "emotion": str}]], ...)},
    "leaks": dict.fromkeys(("train_in_val_or_test", "val_in_train", "test_in_train_or_val"), int),
    "near_duplicates": {**GROUPS, "distance": int, "bits": int},
    "blank": [str],
    "fingerprint": str,
}
"""Shape of ``integrity.json``, which somebody may have changed; see
:func:`fer.core.values.misfit`."""


class Report(Protocol):
    """Writes figures and a page about a dataset into a folder."""

    def __call__(
        self,
        folder: Path,
        entries: Sequence[Entry],
        integrity: Integrity,
        read: Callable[[int], np.ndarray],
    ) -> object: ...


@dataclass(frozen=True)
class Prepared:
    """A complete prepared dataset."""

    folder: Path
    entries: list[Entry]
    integrity: Integrity
    files: list[str]
    """Path of each entry's image below ``folder``."""

    def read(self, index: int) -> np.ndarray:
        """Decode image ``index``: ``(H, W)`` or ``(H, W, 3)`` uint8."""
        try:
            return read_picture(self.folder / self.files[index])
        except DataError as error:
            raise DataError(
                f"{error} Delete {self.folder} (not its raw/ folder) and prepare the dataset again."
            ) from error


def how_origins_differ(old: Origin, new: Origin) -> str:
    """The options in which two preparations differ, in words."""

    def flat(origin: Mapping[str, Any]) -> dict[str, object]:
        parts = {key: value for key, value in origin.items() if not isinstance(value, Mapping)}
        for part in ("reader", "generator"):
            options = origin.get(part) or {}
            parts |= {f"{part}.{key}": value for key, value in options.items()}
        return parts

    before, now = flat(old), flat(new)
    if before.get("format") != now["format"]:
        return "an earlier version of this program made it"
    return ", ".join(
        f"{key}: {before.get(key)!r} then, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    )


def load(folder: Path) -> Prepared:
    """Read the prepared dataset in ``folder``.

    Raises:
        DataError: manifest and integrity report do not belong together.
    """
    repair = f"Delete {folder} (but not its raw/ folder) and prepare the dataset again."
    entries = read_manifest(folder / "manifest.csv")
    try:
        integrity = read_json(folder / "integrity.json")
    except DataError as error:
        raise DataError(f"{error} {repair}") from error
    # What another version wrote is only asked how it was made.
    is_own = (
        fits(integrity, {"origin": {"format": int}}) and integrity["origin"]["format"] == FORMAT
    )
    if not fits(integrity, REPORTED if is_own else {"origin": ORIGIN}):
        raise DataError(
            f"{folder / 'integrity.json'}: expected the report of a preparation, found "
            f"something else: it was changed after the preparation. {repair}"
        )
    if fingerprint(entries) != integrity.get("fingerprint"):
        raise DataError(
            f"{folder / 'manifest.csv'}: expected the {integrity.get('images')} images of "
            f"integrity.json, found {len(entries)} rows that are not those: it was changed after "
            f"the preparation. {repair}"
        )
    return Prepared(folder, entries, integrity, [entry.file for entry in entries])


def load_current(
    folder: Path, origin: Origin, raw: Path | None, beside: Path | None = None
) -> Prepared | None:
    """The complete dataset in ``folder`` if it was made this way, else None.

    Made from this raw data, and from this file ``beside`` it.
    """
    if (folder / ".ready").exists() or not (folder / "manifest.csv").exists():
        return None
    prepared = load(folder)
    if not is_made_so(prepared.integrity, origin):
        return None
    source = prepared.integrity["source"]
    if raw is not None:
        # An earlier version did not ask who is who.
        if source["given"] != describe_path(raw) or "identity" not in prepared.integrity:
            return None
    elif origin["generator"] is None:
        own = Path(source["given"]["path"]).is_relative_to((folder / "raw").resolve())
        if own and has_changed(source["given"]):
            return None
    recorded = source.get("beside")
    if beside is not None and beside.exists():
        return prepared if has_content_of(recorded, beside) else None
    if recorded is not None and has_changed(recorded):
        return None
    return prepared


def is_made_so(integrity: Integrity, origin: Origin) -> bool:
    """True if a preparation had these options.

    Images that rows of a table name with different labels are refused or left out: where none was
    left out, both made the same.
    """
    made = integrity["origin"]
    if not any(DISAGREE in why for why in integrity.get("excluded", ())):
        made, origin = without_conflicts(made), without_conflicts(origin)
    return made == origin


def without_conflicts(origin: Origin) -> Origin:
    """The options of a preparation but for how tables are read whose rows disagree."""
    reader = origin["reader"]
    if reader.get("class") != "FolderReader":  # another's option may mean something else
        return origin
    return {**origin, "reader": {key: one for key, one in reader.items() if key != "conflicts"}}


def has_content_of(recorded: Given | None, place: Path) -> bool:
    """True if a file has the recorded content, or a folder the recorded files, wherever it lies."""
    found = describe_beside(place)
    return recorded is not None and {**recorded, "path": ""} == {**found, "path": ""}


def describe_beside(path: Path) -> Given:
    """Path of what was read beside the raw data, with the content of a file."""
    if path.is_dir():
        return describe_path(path)
    return {"path": str(path.resolve()), "sha256": sha256_of_file(path)}


def describe_path(raw: Path) -> Given:
    """Path and size of a file or folder, and a checksum of its files' names, sizes and times."""
    absolute = raw.resolve()
    if absolute.is_dir():
        files = describe_files(absolute)
    else:
        files = [("", *one[1:]) for one in describe_files(absolute.parent, [absolute.name])]
    return {
        "path": str(absolute),
        "files": len(files),
        "bytes": sum(size for _, size, _ in files),
        "listing": sha256_of_files(files),
    }


def has_changed(given: Given) -> bool:
    """True if raw data is still there, but not as it was described."""
    place = Path(given["path"])
    if "sha256" in given:
        try:
            return place.is_file() and sha256_of_file(place) != given["sha256"]
        except OSError:  # a colleague's, who has prepared the images for others as well
            return False
    return place.exists() and describe_path(place) != given


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Let one process at a time prepare in ``folder``.

    Raises:
        DataError: nothing can be written there.
    """
    file = FileLock(folder / ".lock")
    try:
        try:
            file.acquire(blocking=False)
        except Timeout:
            log.warning("Waiting for another process that prepares %s", folder)
            file.acquire()
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be written, since the dataset in it was not "
            f"prepared with these options, found: {error.strerror}. {ELSEWHERE}"
        ) from error
    try:
        yield
    finally:
        file.release()


def recover(folder: Path) -> None:
    """Finish a preparation that was complete, remove one that was not. Needs the lock."""
    for leftover in folder.glob(".staging-*"):
        # A worker process of a killed preparation may still be writing its last image: what it
        # keeps from being deleted goes next time.
        if all(part.name in OWN or part.name.endswith(HALF) for part in leftover.iterdir()):
            shutil.rmtree(leftover, ignore_errors=True)
    ready = folder / ".ready"
    if not ready.exists():
        return
    for part in (*REPORT, *PARTS):
        if (ready / part).exists():
            remove(folder / part)
            (ready / part).replace(folder / part)
    ready.rmdir()


def remove(path: Path) -> None:
    """Delete a folder or a file that may not be there; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_foreign(folder: Path) -> bool:
    """True if ``folder`` holds split folders that this program did not make."""
    return not (folder / "manifest.csv").exists() and any(
        (folder / split).is_dir() for split in SPLITS
    )


def refuse_strangers(folder: Path, *, drawn: bool) -> None:
    """Refuse to prepare where that would replace what somebody else put there.

    Args:
        folder: of the dataset, which is to be prepared (again).
        drawn: its raw data is drawn, into ``folder/raw``.

    Raises:
        DataError: something has a name that preparation writes, but no preparation made it.
    """
    raw, is_prepared = folder / "raw", (folder / "manifest.csv").exists()
    if is_prepared:
        page = folder / "report.html"  # which links every figure that was made with it
        text = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
        names = (path.name for path in (folder / "figures").glob("*"))
        figures = sorted(name for name in names if not is_hidden(name))
        found = [f"figures/{name}" for name in figures if f"figures/{name}" not in text]
    else:
        found = sorted(name for name in OWN if (folder / name).exists())
    was_drawn = (raw / DRAWN).exists() or (
        is_prepared and load(folder).integrity["origin"]["generator"] is not None
    )
    in_raw = [path for path in raw.glob("*") if not path.name.endswith(HALF)]
    if drawn and not was_drawn and in_raw:
        found.append("raw")
    if found:
        raise DataError(
            f"{folder}: expected nothing of somebody else's under the names that a preparation "
            f"writes, found {', '.join(found)}. Move it elsewhere, or choose another place for the "
            "prepared dataset: dataset.folder=FOLDER"
        )
