"""From a raw copy to a prepared folder, once, atomically, on all cores.

A prepared dataset is complete or absent. Images are written to a staging folder; when the last one
is there, one rename turns it into ``.ready``, and from then on the dataset exists: whatever starts
next only has to move its parts into place. A staging folder that a killed process left is
deleted. A lock file lets one process at a time prepare a dataset.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from filelock import FileLock

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.files import (
    HALF,
    read_json,
    refuse_links,
    remove_leftovers,
    write_json,
    write_text,
)
from fer.core.options import NAME, PATH, Check, check_value, one_of, or_null, whole
from fer.core.processes import cpu_count, worker_pool
from fer.core.progress import Progress, progress_bar
from fer.core.values import fits
from fer.data.audit.appearance import LOOKS, hex_hash, measure, working_side
from fer.data.audit.integrity import inspect, summarise
from fer.data.audit.reference import Reference, load_reference, official_splits
from fer.data.audit.verdict import ALTERED, REFERENCE
from fer.data.images import encode_png, read_picture
from fer.data.manifest import Entry, fingerprint, pixel_hash, read_manifest, write_manifest
from fer.data.readers.base import (
    SPLITS,
    RawDataset,
    Reader,
    Record,
    Source,
    check_records,
    describe_file,
    describe_files,
    is_hidden,
    is_image,
    list_files,
)

log = logging.getLogger(__name__)

CHUNK = 256
SMALL = 4_000
"""Up to this many images, starting worker processes takes longer than they save."""
FORMAT = 3
"""Of ``integrity.json``; what was prepared in another one is prepared again."""
PARTS = (*SPLITS, "integrity.json", "manifest.csv")
"""What a prepared folder consists of, in the order in which it is moved into place."""
REPORT = ("figures", "report.html")
"""What a report adds; moved before the others."""
OWN = frozenset({*PARTS, *REPORT})
ORIGIN: dict[str, Any] = {"reader": dict, "generator": (dict, None)}
GROUPS = dict.fromkeys(
    (
        *("groups", "images", "groups_across_splits", "images_across_splits"),
        *("groups_with_conflicting_labels", "images_with_conflicting_labels"),
    ),
    int,
)
REPORTED: dict[str, Any] = {
    "dataset": str,
    "source": {"form": str, "given": {"path": str}, "signature": str},
    "origin": ORIGIN,
    "official_protocol": bool,
    "warnings": [str],
    "excluded": dict,
    "undecodable": [dict],
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
    "duplicates": GROUPS,
    "leaks": dict.fromkeys(("train_in_val_or_test", "val_in_train", "test_in_train_or_val"), int),
    "near_duplicates": (GROUPS, None),
    "blank": [str],
    "fingerprint": str,
}
"""What is read of ``integrity.json``, which somebody may have changed; see
:func:`fer.core.values.misfit`."""
CACHE = ".cache"
DRAWN, DRAWN_TEXT = ".drawn", "What lies here was drawn, and may be drawn again.\n"
"""The mark of a raw folder whose content was drawn: what else is in one is somebody's."""
GENERATOR: Check = (
    "a choice with its options",
    lambda value: callable(value) and isinstance(getattr(value, "keywords", None), Mapping),
)


class Generator(Protocol):
    """A ``functools.partial`` that writes a raw dataset and returns its path."""

    @property
    def keywords(self) -> dict[str, Any]:
        """The options that decide what it draws."""
        ...

    def __call__(self, *, folder: Path, workers: int | None, progress: Progress | None) -> Path: ...


class Report(Protocol):
    """Writes figures and a page about a dataset into a folder."""

    def __call__(
        self,
        folder: Path,
        entries: Sequence[Entry],
        integrity: Mapping[str, Any],
        read: Callable[[int], np.ndarray],
    ) -> object: ...


@dataclass(frozen=True)
class Prepared:
    """A complete prepared dataset."""

    folder: Path
    entries: list[Entry]
    integrity: dict[str, Any]
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


def check_preparation(
    name: str,
    folder: str | Path,
    reader: Reader,
    *,
    raw: str | Path | None,
    generator: Generator | None,
    workers: int | None,
    undecodable: str,
) -> None:
    """Refuse options of :func:`prepare` that cannot work, before anything is read.

    Raises:
        ConfigError: the first of them.
    """
    if not isinstance(reader, Reader):
        raise ConfigError(
            "dataset.reader: expected a fer.data.readers.base.Reader, one that the package has or "
            f"a class of your own that extends it, found {reader!r}. Choose another dataset than "
            "base, which is what the others share, or name the reader in the dataset's file: "
            "'reader: {_target_: my_module.MyReader}'"
        )
    for key, value, rule in (
        ("name", name, NAME),
        ("folder", folder, PATH),
        ("raw", raw, or_null(PATH, "for none")),
        ("workers", workers, or_null(whole(1), "for every core")),
        ("undecodable", undecodable, one_of("error", "drop")),
        ("generator", generator, or_null(GENERATOR, "for real images")),
    ):
        check_value(f"dataset.{key}", value, rule)


def prepare(
    name: str,
    folder: str | Path,
    reader: Reader,
    *,
    raw: str | Path | None = None,
    generator: Generator | None = None,
    download: Callable[[], Path] | None = None,
    workers: int | None = None,
    undecodable: str = "error",
    report: Report | None = None,
) -> Prepared:
    """The prepared dataset in ``folder``, made first if it is not there.

    Args:
        name: of the dataset, for messages.
        folder: ``<paths.data>/<name>``.
        reader: lists the raw data.
        raw: the raw data; None looks in ``folder/raw``.
        generator: draws the raw data of an embedded dataset.
        download: fetches the raw data and returns its path; called only if it is nowhere.
        workers: processes to use; None takes every core.
        undecodable: what to do with images that do not decode: ``"error"``, or ``"drop"``, which
            leaves them out and lists them in ``integrity.json``.
        report: writes ``report.html`` and ``figures/``; None writes neither.

    Raises:
        ConfigError: an option has a value that cannot work.
        DataError: the raw data is missing or malformed. No prepared folder is left then.
    """
    check_preparation(
        name,
        folder,
        reader,
        raw=raw,
        generator=generator,
        workers=workers,
        undecodable=undecodable,
    )
    folder, raw = Path(folder), None if raw is None else Path(raw)
    if raw is not None and generator is not None:
        raise ConfigError(
            f"dataset.raw: expected none for {name}, whose images are drawn, found {raw}. "
            "To use your own images choose the dataset whose form they have, such as "
            "dataset=fer2013."
        )
    origin = {
        **describe_origin(reader, generator),
        "undecodable": undecodable,
        "format": FORMAT,
    }
    if raw is not None and not raw.exists():
        raise DataError(
            f"dataset.raw: expected an existing file or folder, found none at {raw.absolute()}.\n"
            f"{reader.how_to_obtain}"
        )
    if raw is not None and not (raw.is_file() or raw.is_dir()):
        raise DataError(
            f"dataset.raw: expected a file or a folder, found a pipe, socket or device at {raw}. "
            "Write what it gives into a file, and pass that."
        )
    if folder.is_dir():  # what is written there stays there, whoever made the folder
        hidden = [path.name for path in folder.glob(".*")]
        own = [name for name in OWN if name not in SPLITS or not is_foreign(folder)]
        refuse_links(folder, [*hidden, *own, *(["raw"] * (generator is not None))])
    try:
        finished = load_current(folder, origin, raw)
    except DataError:
        if not os.access(folder, os.W_OK):
            raise
        finished = None  # another process may be replacing it: under the lock is the truth
    if finished is not None:  # the usual case, and one that a read-only folder allows
        return finished
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be written, found: {error.strerror}. "
            "Choose another place with paths.data=FOLDER or the environment variable FER_DATA."
        ) from error
    if is_foreign(folder) and not os.access(folder, os.W_OK):
        return adopt(
            name, folder, reader, origin, report
        )  # nothing to lock: nobody can prepare anything here
    with lock(folder):
        recover(folder)
        finished = load_current(folder, origin, raw)  # another process may just have made it
        if finished is not None:
            return finished
        if is_foreign(folder):
            if raw is not None or generator is not None:
                raise DataError(
                    f"{folder}: expected no prepared dataset or one made by this program, found "
                    "split folders without a manifest.csv. To train on them leave out "
                    "dataset.raw; else move them away or choose another paths.data."
                )
            return adopt(name, folder, reader, origin, report)
        refuse_strangers(folder, drawn=generator is not None)
        found = raw or obtain(name, folder, reader, generator, download, workers, origin)
        again = " again: other raw data or options" if (folder / "manifest.csv").exists() else ""
        log.info("Preparing %s from %s%s", name, found, again)
        dataset = reader.list(found)
        check_listing(type(reader).__name__, found, dataset)
        stage(name, folder, found, dataset, reader, origin, workers, report)
        recover(folder)
        prepared = load(folder)
        for warning in prepared.integrity["warnings"]:
            log.warning(warning)
        for line in summarise(prepared.integrity):
            log.info("%s: %s", name, line)
        return prepared


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One process at a time prepares in ``folder``.

    Raises:
        DataError: nothing can be written there.
    """
    file = FileLock(folder / ".lock")
    try:
        file.acquire()
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be written, since the dataset in it was not "
            f"prepared with these options, found: {error.strerror}. Choose another place with "
            "paths.data=FOLDER or the environment variable FER_DATA."
        ) from error
    try:
        yield
    finally:
        file.release()


def describe_origin(reader: Reader, generator: Generator | None) -> dict[str, Any]:
    """The options that decide what preparation makes of the raw data, as JSON gives them back."""
    origin: dict[str, Any] = {
        "reader": {"class": type(reader).__name__, **reader.options()},
        "generator": dict(generator.keywords) if generator is not None else None,
    }
    return json.loads(json.dumps(origin, default=str))


def check_listing(reader: str, raw: Path, dataset: RawDataset) -> None:
    """Refuse what a reader lists if no prepared dataset can come of it.

    Args:
        reader: its class, for messages.
        raw: what it has listed, for messages.
        dataset: the listing.

    Raises:
        DataError: it is none, or records are missing or wrong.
    """
    if not isinstance(dataset, RawDataset):
        raise DataError(
            f"{reader}: expected a RawDataset from list(), found {dataset!r}. Correct the reader."
        )
    dataset.records = list(dataset.records)  # which may be what is read only once
    check_records(reader, dataset.records)


def obtain(
    name: str,
    folder: Path,
    reader: Reader,
    generator: Generator | None,
    download: Callable[[], Path] | None,
    workers: int | None,
    origin: Mapping[str, Any],
) -> Path:
    """Raw data from ``folder/raw``, the generator or a download."""
    place = folder / "raw"
    if generator is not None:
        remove_leftovers(place)
        is_new = not (place / DRAWN).exists()
        write_text(place / DRAWN, DRAWN_TEXT)
        log.info("Drawing %s (%s)", name, ", ".join(f"{k}={v}" for k, v in _plain(generator)))
        try:
            with progress_bar(f"Drawing {name}") as progress:
                return generator(folder=place, workers=workers, progress=progress)
        except ConfigError:  # before anything was drawn
            if is_new:
                (place / DRAWN).unlink()
            raise
    found = reader.find(place)
    if found is not None:
        return found
    if download is not None:
        return download()
    if (folder / "manifest.csv").exists():
        raise DataError(
            f"{folder.absolute()}: expected a dataset prepared with the options given, found one "
            "prepared with others. Pass the raw data to prepare it again (dataset.raw=PATH), or "
            "give the options as they were. Different: "
            f"{how_origins_differ(load(folder).integrity['origin'], origin)}."
        )
    raise DataError(
        f"{name}: expected a prepared or raw dataset, found none. Looked for\n"
        f"  - a prepared one: {folder.absolute()} (train/, val/, test/)\n"
        f"  - a raw one: {place.absolute()}\n"
        f"  - dataset.raw: not given\n{reader.how_to_obtain}"
    )


def how_origins_differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The options in which two preparations differ, in words."""

    def flat(origin: Mapping[str, Any]) -> dict[str, Any]:
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


def _plain(generator: Generator) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in generator.keywords.items() if key != "name"]


# --- the folder's states ---------------------------------------------------------------------


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


def load_current(folder: Path, origin: Mapping[str, Any], raw: Path | None) -> Prepared | None:
    """The complete dataset in ``folder`` if it was made this way from this raw data, else None."""
    if (folder / ".ready").exists() or not (folder / "manifest.csv").exists():
        return None
    prepared = load(folder)
    if prepared.integrity["origin"] != origin:
        return None
    source = prepared.integrity["source"]
    if raw is not None:
        if source["given"] != describe_path(raw):
            return None
    elif origin["generator"] is None:
        own = Path(source["given"]["path"]).is_relative_to((folder / "raw").resolve())
        if own and has_changed(source["given"]):
            return None
    if fits(source.get("beside"), {"path": str}) and has_changed(source["beside"]):
        return None
    return prepared


def describe_path(raw: Path) -> dict[str, Any]:
    """Path and size of a file or folder, and a checksum of its files' names, sizes and times."""
    absolute = raw.resolve()
    is_folder = absolute.is_dir()
    files = describe_files(absolute) if is_folder else [("", *describe_file(absolute))]
    listing = hashlib.sha256()
    for name, size, modified in files:
        listing.update(f"{name}\0{size}\0{modified}\n".encode("utf-8", "surrogateescape"))
    return {
        "path": str(absolute),
        "files": len(files),
        "bytes": sum(size for _, size, _ in files),
        "listing": listing.hexdigest(),
    }


def describe_beside(raw: Path, source: Source) -> dict[str, Any] | None:
    """What a source reads beside ``raw``, such as the images that a table names."""
    is_beside = raw.is_file() and source.path.is_dir()
    return describe_path(source.path) if is_beside else None


def has_changed(given: Mapping[str, Any]) -> bool:
    """Whether raw data that is still there is not what was described."""
    place = Path(given["path"])
    return place.exists() and describe_path(place) != given


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


def move(staging: Path, entry: Entry, split: str) -> Entry:
    """The entry in another split, and its file with it."""
    moved = replace(entry, split=split)
    if moved != entry:
        (staging / entry.file).rename(staging / moved.file)
    return moved


def load_known(reader: Reader) -> Reference | None:
    """The reference copy of the reader's dataset, where the package has one."""
    return None if reader.reference is None else load_reference(reader.reference)


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
        page = folder / "report.html"  # which links every figure that was drawn with it
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


def is_foreign(folder: Path) -> bool:
    """Whether ``folder`` holds split folders that this program did not make."""
    return not (folder / "manifest.csv").exists() and any(
        (folder / split).is_dir() for split in SPLITS
    )


# --- making it -------------------------------------------------------------------------------


def stage(
    name: str,
    folder: Path,
    raw: Path,
    dataset: RawDataset,
    reader: Reader,
    origin: Mapping[str, Any],
    workers: int | None,
    report: Report | None,
) -> None:
    """Write everything into a staging folder, then rename that to ``.ready``."""
    try:
        # Not named after this process: in containers process ids come again.
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder))
    except OSError as error:
        raise cannot_write(folder, len(dataset.records), error) from error
    try:
        for split in SPLITS:
            for emotion in labels.EMOTIONS:
                (staging / split / emotion).mkdir(parents=True)
        entries: list[Entry] = []
        looks: list[np.ndarray] = []
        failures: list[Failure] = []
        records = dataset.records
        with (
            progress_bar(f"Preparing {name}") as progress,
            pool(workers, len(records)) as executor,
        ):
            chunks = [records[i : i + CHUNK] for i in range(0, len(records), CHUNK)]
            side = working_side(dataset.expected_size)
            jobs = ((dataset.source, staging, chunk, side) for chunk in chunks)
            results = executor.map(_convert, jobs) if executor else map(_convert, jobs)
            for chunk, (hashes, chunk_looks, chunk_failures) in zip(chunks, results, strict=True):
                pairs = zip(chunk, hashes, strict=True)
                entries.extend(to_entry(record, *found) for record, found in pairs if found)
                looks.append(chunk_looks)
                failures.extend(chunk_failures)
                progress(len(entries) + len(failures), len(records))
        if failures and (origin["undecodable"] == "error" or not entries):
            raise undecodable_error(failures, len(records))
        drawn = origin["generator"] is not None
        reference = None if drawn else load_known(reader)
        restored = 0
        if dataset.restore_splits and reference is not None:
            official = official_splits(entries, np.concatenate(looks), reference)
            restored = sum(a.split != b for a, b in zip(entries, official, strict=True))
            entries = [
                move(staging, entry, split) for entry, split in zip(entries, official, strict=True)
            ]
        order = sorted(
            range(len(entries)),
            key=lambda i: (SPLITS.index(entries[i].split), entries[i].emotion, entries[i].id),
        )
        entries = [entries[i] for i in order]
        sorted_looks = np.concatenate(looks)[order]
        write_manifest(staging / "manifest.csv", entries)
        found = inspect(
            entries,
            sorted_looks,
            official_counts=None if drawn else reader.official_counts,
            expected_size=dataset.expected_size,
            reference=reference,
            known=dataset.findings,
        )
        integrity = {
            "dataset": name,
            "source": {
                "form": dataset.form,
                "given": describe_path(raw),
                "beside": describe_beside(raw, dataset.source),
                "signature": dataset.source.signature(),
            },
            "origin": dict(origin),
            "official_protocol": found["matches_official_counts"] is True
            and found["verdict"] != ALTERED
            and (dataset.official_protocol or found["verdict"] == REFERENCE),
            "warnings": [
                *dataset.warnings,
                *(
                    [f"{restored:,} images were put back into their official split."]
                    * (restored > 0)
                ),
                *describe_excluded({**dataset.excluded, "they could not be read": len(failures)}),
            ],
            "excluded": dataset.excluded,
            "undecodable": [asdict(failure) for failure in failures],
            **found,
        }
        write_json(staging / "integrity.json", integrity)
        staged = Prepared(staging, entries, integrity, [entry.file for entry in entries])
        if report is not None:
            report(staging, entries, integrity, staged.read)
        else:
            for part in REPORT:  # of an earlier preparation
                remove(folder / part)
        staging.rename(folder / ".ready")
    except OSError as error:
        raise cannot_write(folder, len(dataset.records), error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def cannot_write(folder: Path, images: int, error: OSError) -> DataError:
    """The message for a disk that is full or cannot be written."""
    return DataError(
        f"{folder}: expected to write {images:,} images, found: {error}. "
        "Free some space or choose another paths.data; nothing was kept."
    )


@dataclass(frozen=True)
class Failure:
    """An image that does not decode."""

    source: str
    error: str


def undecodable_error(failures: Sequence[Failure], images: int) -> DataError:
    """The message for images that do not decode."""
    shown = "\n".join(failure.error for failure in failures[:3])
    if len(failures) > 1:
        shown = (
            f"Expected {images:,} images that decode, found {len(failures):,} that do not. "
            f"The first of them:\n{shown}"
        )
    return DataError(f"{shown}\nTo leave out what does not decode: dataset.undecodable=drop")


def describe_excluded(excluded: Mapping[str, int]) -> list[str]:
    """One line for each reason for which images of the copy were left out."""
    return [
        f"{count:,} {'image was' if count == 1 else 'images were'} left out: {why}."
        for why, count in excluded.items()
        if count
    ]


def _convert(
    job: tuple[Source, Path, Sequence[Record], int],
) -> tuple[list[tuple[str, str] | None], np.ndarray, list[Failure]]:
    """Decode some records and write them as PNG files. Runs in a worker process.

    Returns:
        The :func:`~fer.data.manifest.pixel_hash` and the perceptual hash of each, None for one that
        does not decode; how the others look; and what does not decode.
    """
    source, staging, records, side = job
    hashes: list[tuple[str, str] | None] = []
    appearances, failures = [], []
    for record in records:
        try:
            image = source.read(record)
        except DataError as error:
            failures.append(Failure(record.source, str(error)))
            hashes.append(None)
            continue
        looks = measure(image, side)
        found = pixel_hash(image), hex_hash(looks)
        (staging / to_entry(record, *found).file).write_bytes(encode_png(image))
        hashes.append(found)
        appearances.append(looks)
    return hashes, np.array(appearances, LOOKS), failures


def to_entry(record: Record, sha256: str, phash: str) -> Entry:
    """What the manifest says of a record."""
    return Entry(
        record.id,
        record.emotion,
        record.split,
        record.source,
        sha256,
        record.gender,
        record.race,
        record.age,
        phash,
    )


def adopt(
    name: str,
    folder: Path,
    reader: Reader,
    origin: Mapping[str, Any],
    report: Report | None = None,
) -> Prepared:
    """A prepared folder that someone else made: the three split folders alone.

    Nothing in it is changed, but for a ``.cache`` folder that remembers what was found until a
    file changes.

    Raises:
        DataError: a file is no image, is misplaced or does not decode, or there is none.
    """
    files = [
        f"{split}/{file}"
        for split in SPLITS
        if (folder / split).is_dir()
        for file in list_files(folder / split)
    ]
    placed = []
    for file in files:
        parts = file.split("/")
        if len(parts) != 3 or not is_image(file):
            raise DataError(
                f"{folder / file}: expected image files at <split>/<emotion>/<image>, found this. "
                "Move it elsewhere."
            )
        try:
            placed.append((parts[0], labels.canonical(parts[1]), file))
        except DataError as error:
            raise DataError(f"{folder / file}: {error}") from error
    if not placed:
        raise DataError(
            f"{folder}: expected images at <split>/<emotion>/<image>, found split folders without "
            "any. Fill them, or remove them to prepare the dataset here."
        )
    signature = hashlib.sha256(str(FORMAT).encode())
    for file in files:
        size, modified = describe_file(folder / file)
        signature.update(f"{file}\0{size}\0{modified}\n".encode("utf-8", "surrogateescape"))
    remembered = folder / CACHE / f"adopted-{signature.hexdigest()[:16]}"
    if (remembered / "integrity.json").exists():  # written last
        try:
            known = load(remembered)
        except DataError as error:
            log.warning("%s is damaged: it is made again (%s)", remembered, error)
        else:
            sources = [entry.source for entry in known.entries]
            if sources == files and len({entry.id for entry in known.entries}) == len(files):
                return Prepared(folder, known.entries, known.integrity, sources)
    entries, appearances = [], []
    side = working_side(reader.expected_size)
    # Stems may repeat from folder to folder here; the path without its suffix hardly does.
    paths = Counter(Path(file).with_suffix("") for file in files)
    with progress_bar(f"Checking {name}") as progress:
        for number, (split, emotion, file) in enumerate(placed, start=1):
            image = read_picture(folder / file)
            path = Path(file).with_suffix("")
            entry_id = (path.as_posix() if paths[path] == 1 else file).replace("/", "_")
            looks = measure(image, side)
            entries.append(
                Entry(entry_id, emotion, split, file, pixel_hash(image), phash=hex_hash(looks))
            )
            appearances.append(looks)
            if number % CHUNK == 0 or number == len(placed):
                progress(number, len(placed))
    integrity = {
        "dataset": name,
        "source": {
            "form": "prepared folder made elsewhere",
            "given": {"path": str(folder.resolve())},
            "signature": signature.hexdigest(),
        },
        "origin": dict(origin),
        "official_protocol": False,
        "warnings": ["The prepared folder was made elsewhere: its splits are taken as they are."],
        "excluded": {},
        "undecodable": [],
        **inspect(
            entries,
            np.array(appearances, LOOKS),
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
        write_json(remembered / "integrity.json", integrity)
    return prepared


@contextmanager
def pool(workers: int | None, images: int) -> Iterator[Executor | None]:
    """Worker processes for ``images`` images, or None where this process does it as fast."""
    count = workers or cpu_count()
    if count == 1 or images <= SMALL:
        yield None
        return
    with worker_pool(count, one_thread) as executor:
        yield executor


def one_thread() -> None:
    """Let OpenCV compute in one thread: a process a core is enough."""
    cv2.setNumThreads(1)
