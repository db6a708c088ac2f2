"""From a raw copy to a prepared folder, once, atomically, on all cores.

A prepared dataset is complete or absent. Images are written to a staging folder; when the last one
is there, one rename turns it into ``.ready``, and from then on the dataset exists: whatever starts
next only has to move its parts into place. A staging folder that a killed process left is
deleted. A lock file lets one process at a time prepare a dataset.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.files import refuse_links, remove_leftovers, write_json, write_text
from fer.core.options import NAME, PATH, Check, check_value, one_of, or_null, whole
from fer.core.progress import Progress, progress_bar
from fer.core.words import how_many
from fer.data.adoption import adopt, load_known
from fer.data.audit.appearance import working_side
from fer.data.audit.integrity import Integrity, Origin, inspect, summarise
from fer.data.audit.reference import Reference, official_splits
from fer.data.audit.verdict import ALTERED, REFERENCE, Verdict, judge
from fer.data.conversion import (
    UNREADABLE,
    Converted,
    add_splits,
    convert,
    describe_excluded,
    describe_left_out,
    undecodable_error,
)
from fer.data.detection import describe_detector, find_weights
from fer.data.manifest import Entry, write_manifest
from fer.data.prepared import (
    DRAWN,
    DRAWN_TEXT,
    ELSEWHERE,
    FORMAT,
    OWN,
    REPORT,
    Prepared,
    Report,
    describe_beside,
    describe_path,
    how_origins_differ,
    is_foreign,
    load,
    load_current,
    lock,
    recover,
    refuse_strangers,
    remove,
)
from fer.data.readers.base import SPLITS, RawDataset, Reader, check_records
from fer.data.relabelling import move, relabel

log = logging.getLogger(__name__)

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


def prepare(name: str, folder: str | Path, reader: Reader, **options: Any) -> Prepared:
    """The prepared dataset in ``folder``, made first if it is not there: see
    :class:`Preparation`."""
    return Preparation(name, folder, reader, **options).run()


@dataclass
class Preparation:
    """The options of preparing a dataset.

    Raises:
        ConfigError: an option has a value that cannot work.
    """

    name: str
    """Name of the dataset, for messages."""
    folder: str | Path
    """``<paths.data>/<name>``."""
    reader: Reader
    """Lists the raw data."""
    raw: str | Path | None = None
    """The raw data; None looks in ``folder/raw``."""
    generator: Generator | None = None
    """Draws the raw data of an embedded dataset."""
    download: Callable[[], Path] | None = None
    """Fetches the raw data and returns its path; called only if it is nowhere."""
    workers: int | None = None
    """Processes to use; None takes every core."""
    undecodable: str = "error"
    """Treatment of images that do not decode: ``error``, or ``drop``, which leaves them out
    and lists them in ``integrity.json``."""
    faces: str | None = None
    """``crop`` finds the largest face of each picture and cuts it out as prediction does; what has
    none is left out, and counted. None: the pictures are cropped faces."""
    report: Report | None = None
    """Writes ``report.html`` and ``figures/``; None writes neither."""

    def __post_init__(self) -> None:
        if not isinstance(self.reader, Reader):
            raise ConfigError(
                "dataset.reader: expected a fer.data.readers.base.Reader, one that the package has "
                f"or a class of your own that extends it, found {self.reader!r}. Choose another "
                "dataset than base, which is what the others share, or name the reader in the "
                "dataset's file: 'reader: {_target_: my_module.MyReader}'"
            )
        for key, value, rule in (
            ("name", self.name, NAME),
            ("folder", self.folder, PATH),
            ("raw", self.raw, or_null(PATH, "for none")),
            ("workers", self.workers, or_null(whole(1), "for every core")),
            ("undecodable", self.undecodable, one_of("error", "drop")),
            ("faces", self.faces, or_null(one_of("crop"), "for pictures that are cropped faces")),
            ("generator", self.generator, or_null(GENERATOR, "for real images")),
        ):
            check_value(f"dataset.{key}", value, rule)
        if self.raw is not None and self.generator is not None:
            raise ConfigError(
                f"dataset.raw: expected none for {self.name}, whose images are drawn, found "
                f"{self.raw}. To use your own images choose the dataset whose form they have, such "
                "as dataset=fer2013."
            )
        known = (self.reader.relabels, self.reader.official_counts, self.reader.reference)
        if self.faces is not None and any(known):
            raise ConfigError(
                f"dataset.faces: expected null for {self.name}: its images are cropped faces, "
                "which are compared with the original ones, found "
                f"{self.faces!r}. Set it: dataset.faces=null"
            )
        self.place = Path(self.folder)
        self.given = None if self.raw is None else Path(self.raw)

    def run(self) -> Prepared:
        """The prepared dataset, made first if it is not there.

        Raises:
            DataError: the raw data is missing or malformed. No prepared folder is left then.
        """
        place, origin = self.place, self.describe_origin()
        self._check_given()
        if place.is_dir():  # what is written there stays there, whoever made the folder
            hidden = [path.name for path in place.glob(".*")]
            own = [name for name in OWN if name not in SPLITS or not is_foreign(place)]
            refuse_links(place, [*hidden, *own, *(["raw"] * (self.generator is not None))])
        try:
            finished = load_current(place, origin, self.given, self._beside())
        except DataError:
            if not os.access(place, os.W_OK):
                raise
            finished = None  # another process may be replacing it: under the lock is the truth
        if finished is not None:  # the usual case, and one that a read-only folder allows
            return finished
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{place}: expected a folder that can be written, found: {error.strerror}. "
                f"{ELSEWHERE}"
            ) from error
        if is_foreign(place) and not os.access(place, os.W_OK):
            return self._adopt(origin)  # nothing to lock: nobody can prepare anything here
        with lock(place):
            recover(place)
            # Another process may have made it.
            finished = load_current(place, origin, self.given, self._beside())
            if finished is not None:
                return finished
            if not is_foreign(place):
                return self._make(origin)
            if self.given is not None or self.generator is not None:
                raise DataError(
                    f"{place}: expected no prepared dataset or one made by this program, found "
                    "split folders without a manifest.csv. To train on them leave out "
                    "dataset.raw; else move them away or choose another paths.data."
                )
            return self._adopt(origin)

    def _adopt(self, origin: Origin) -> Prepared:
        if self.faces is not None:
            raise DataError(
                f"{self.place}: expected raw data, to cut out faces, found a prepared folder "
                "that was made elsewhere. Take its images as they are (dataset.faces=null), or "
                "move it away and pass the raw data: dataset.raw=PATH"
            )
        return adopt(self.name, self.place, self.reader, origin, self.report)

    def describe_origin(self) -> Origin:
        """The options that decide what becomes of the raw data, as JSON gives them back."""
        origin = {
            "reader": {"class": type(self.reader).__name__, **self.reader.options()},
            "generator": dict(self.generator.keywords) if self.generator is not None else None,
            "undecodable": self.undecodable,
            "format": FORMAT,
        }
        if self.faces is not None:  # what was prepared before there were any stays valid
            origin["faces"] = self.faces
        described: Origin = json.loads(json.dumps(origin, default=str))
        return described

    def _check_given(self) -> None:
        """Refuse raw data that is not there."""
        raw = self.given
        if raw is not None and not raw.exists():
            raise DataError(
                f"dataset.raw: expected an existing file or folder, found none at "
                f"{raw.absolute()}.\n{self.reader.how_to_obtain}"
            )
        if raw is not None and not (raw.is_file() or raw.is_dir()):
            raise DataError(
                f"dataset.raw: expected a file or a folder, found a pipe, socket or device at "
                f"{raw}. Write what it gives into a file, and pass that."
            )

    # --- raw data ----------------------------------------------------------------------------

    def _obtain(self, origin: Origin) -> Path:
        """The raw data: given, drawn, found in ``folder/raw``, or downloaded."""
        raw = self.place / "raw"
        if self.generator is not None:
            return self._draw(self.generator, raw)
        found = self.given or self.reader.find(raw)
        if found is not None:
            return found
        if self.download is not None:
            return self.download()
        if (self.place / "manifest.csv").exists():
            raise DataError(
                f"{self.place.absolute()}: expected a dataset prepared with the options given, "
                "found one prepared with others. Pass the raw data to prepare it again "
                "(dataset.raw=PATH), or give the options as they were. Different: "
                + (how_origins_differ(load(self.place).integrity["origin"], origin) or "its labels")
                + "."
            )
        raise DataError(
            f"{self.name}: expected a prepared or raw dataset, found none. Looked for\n"
            f"  - a prepared one: {self.place.absolute()} (train/, val/, test/)\n"
            f"  - a raw one: {raw.absolute()}\n"
            f"  - dataset.raw: not given\n{self.reader.how_to_obtain}"
        )

    def _draw(self, generator: Generator, raw: Path) -> Path:
        """Draw the raw data into ``raw``."""
        remove_leftovers(raw)
        is_new = not (raw / DRAWN).exists()
        write_text(raw / DRAWN, DRAWN_TEXT)
        options = [f"{key}={one}" for key, one in generator.keywords.items() if key != "name"]
        log.info("Drawing %s (%s)", self.name, ", ".join(options))
        try:
            with progress_bar(f"Drawing {self.name}") as progress:
                return generator(folder=raw, workers=self.workers, progress=progress)
        except ConfigError:  # before anything was drawn
            if is_new:
                (raw / DRAWN).unlink()
            raise

    # --- making it ---------------------------------------------------------------------------

    def _make(self, origin: Origin) -> Prepared:
        """Prepare the dataset. Needs the lock."""
        place = self.place
        if self.faces is not None:
            find_weights()
        refuse_strangers(place, drawn=self.generator is not None)
        raw = self._obtain(origin)
        again = " again: other raw data or options" if (place / "manifest.csv").exists() else ""
        log.info("Preparing %s from %s%s", self.name, raw, again)
        dataset, reader = self.reader.list(raw), type(self.reader).__name__
        if not isinstance(dataset, RawDataset):
            raise DataError(
                f"{reader}: expected a RawDataset from list(), found {dataset!r}. Correct the "
                "reader."
            )
        dataset.records = list(dataset.records)  # which may be what is read only once
        check_records(reader, dataset.records)
        self._stage(raw, dataset, origin)
        recover(place)
        prepared = load(place)
        for warning in prepared.integrity["warnings"]:
            log.warning(warning)
        for line in summarise(prepared.integrity):
            log.info("%s: %s", self.name, line)
        return prepared

    def _stage(self, raw: Path, dataset: RawDataset, origin: Origin) -> None:
        """Write everything into a staging folder, then rename that to ``.ready``."""
        staging = None
        try:
            # Not named after this process: in containers process ids come again.
            staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.place))
            for split in SPLITS:
                for emotion in labels.EMOTIONS:
                    (staging / split / emotion).mkdir(parents=True)
            staged = self._fill(staging, raw, dataset, origin)
            if self.report is not None:
                self.report(staging, staged.entries, staged.integrity, staged.read)
            else:
                for part in REPORT:  # of an earlier preparation
                    remove(self.place / part)
            staging.rename(self.place / ".ready")
        except OSError as error:
            raise DataError(
                f"{self.place}: expected to write {len(dataset.records):,} images, found: {error}. "
                "Free some space or choose another paths.data; nothing was kept."
            ) from error
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)

    def _fill(self, staging: Path, raw: Path, dataset: RawDataset, origin: Origin) -> Prepared:
        """Write images, manifest and integrity report."""
        made, source = self._convert(staging, raw, dataset), dataset.source
        drawn = self.generator is not None
        reference = None if drawn else load_known(self.reader)
        entries, looks, judged = made.entries, made.looks, None
        if dataset.restore_splits and reference is not None:
            entries = self._put_back(staging, dataset, reference, entries, looks)
        if dataset.relabel is not None:
            entries, looks, judged = self._relabel(staging, dataset, reference, entries, looks)
        order = sorted(
            range(len(entries)),
            key=lambda i: (SPLITS.index(entries[i].split), entries[i].emotion, entries[i].id),
        )
        entries = [entries[i] for i in order]
        if judged is not None and judged.rows is not None:
            judged = replace(judged, rows=judged.rows[order])
        write_manifest(staging / "manifest.csv", entries)
        found = inspect(
            entries,
            looks[order],
            official_counts=None if drawn or judged else self.reader.official_counts,
            expected_size=dataset.expected_size,
            reference=reference,
            known=dataset.findings,
            judged=judged,
        )
        # What a source reads beside a file, such as the images that a table names.
        beside = dataset.beside
        if raw.is_file() and source.path.is_dir():
            beside = source.path
        is_reference = found["verdict"] == REFERENCE
        integrity: Integrity = {
            "dataset": self.name,
            "source": {
                "form": dataset.form,
                "given": describe_path(raw),
                "beside": None if beside is None else describe_beside(beside),
                "signature": source.signature(),
            },
            "origin": origin,
            "official_protocol": is_reference and dataset.official_protocol
            if judged
            else found["matches_official_counts"] is True
            and found["verdict"] != ALTERED
            and (dataset.official_protocol or is_reference),
            "warnings": [
                *dataset.warnings,
                *describe_excluded({**dataset.excluded, UNREADABLE: len(made.failures)}),
                *describe_left_out(made.faceless),
            ],
            "excluded": dataset.excluded | add_splits(made.faceless),
            "undecodable": [asdict(failure) for failure in made.failures],
            "disputed": list(dataset.disputed),
            **found,
        }
        if self.faces is not None:
            integrity |= {"faceless": made.faceless, "detector": describe_detector()}
        write_json(staging / "integrity.json", integrity)
        return Prepared(staging, entries, integrity, [entry.file for entry in entries])

    def _convert(self, staging: Path, raw: Path, dataset: RawDataset) -> Converted:
        """Write the images, or the faces in them."""
        cut = self.faces is not None
        if cut:
            dataset.expected_size = None
        side, number = working_side(dataset.expected_size), len(dataset.records)
        with progress_bar(f"Preparing {self.name}") as progress:
            made = convert(
                *(dataset.source, dataset.records, staging, side, self.workers, progress), cut=cut
            )
        if made.failures and (self.undecodable == "error" or not (made.entries or made.left_out)):
            raise undecodable_error(made.failures, number)
        if not made.entries:
            found = {**add_splits(made.faceless), UNREADABLE: len(made.failures)}
            raise DataError(
                f"{raw}: expected pictures with faces that are large enough, found none among "
                f"{number:,}. {' '.join(describe_excluded(found))} Take the pictures as they are: "
                "dataset.faces=null"
            )
        if made.several:
            pictures = how_many(made.several, "picture")
            dataset.warnings.append(f"{pictures} with several faces: the largest was taken.")
        return made

    def _beside(self) -> Path | None:
        """The file that the reader takes beside the raw data; None if there is none."""
        if type(self.reader).beside is Reader.beside:
            return None
        raw = self.given or Path(self.folder) / "raw"
        return self.reader.beside((self.reader.find(raw) if raw.is_dir() else None) or raw)

    def _put_back(
        self,
        staging: Path,
        dataset: RawDataset,
        reference: Reference,
        entries: Sequence[Entry],
        looks: np.ndarray,
    ) -> list[Entry]:
        """The entries, those that are recognised in their official split."""
        official = official_splits(entries, looks, reference)
        placed = list(zip(entries, official, strict=True))
        moved = [move(staging, entry, replace(entry, split=split)) for entry, split in placed]
        if restored := sum(entry.split != split for entry, split in placed):
            text = f"{restored:,} images were put back into their official split."
            dataset.warnings.append(text)
        return moved

    def _relabel(
        self,
        staging: Path,
        dataset: RawDataset,
        reference: Reference | None,
        entries: Sequence[Entry],
        looks: np.ndarray,
    ) -> tuple[list[Entry], np.ndarray, Verdict]:
        """The images that another source has labels for: entries, looks, and the verdict on the
        copy as it was."""
        judged = judge(
            entries,
            looks,
            reference=reference,
            official_counts=self.reader.official_counts,
            expected_size=dataset.expected_size,
            known=dataset.findings,
        )
        if judged.rows is None or dataset.relabel is None:
            raise DataError(
                f"{self.name}: expected a reference, by which images are recognised that get other "
                "labels, found none. Name one in the reader: reference = NAME"
            )
        found = dataset.relabel(judged.rows, entries)
        left, kept, excluded = relabel(staging, entries, found)
        if not left:
            raise DataError(
                f"{self.name}: expected labels for the images, found none for any of "
                f"{len(entries):,}: {', '.join(excluded)}."
            )
        dataset.excluded |= excluded
        dataset.warnings += found.warnings
        text = f"Before the images got other labels: {judged.text}"
        return left, looks[kept], replace(judged, rows=judged.rows[kept], text=text)
