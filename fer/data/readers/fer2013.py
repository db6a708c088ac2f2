"""Reader of FER2013 in each of its public forms.

FER2013 (Goodfellow et al., "Challenges in Representation Learning", arXiv 1307.0414) is 35,887
grayscale faces of 48 x 48 pixels. It is passed on as one table (``fer2013.csv``, or
``icml_face_data.csv`` with other column names, or packed), as its authors published it, and as an
archive of image files, a JPEG encoding of that table. In every form the *usage* of an image decides
its split: Training is train, PublicTest is val, PrivateTest is test.
"""

from __future__ import annotations

import csv
import itertools
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import sha256_of_file
from fer.core.options import SWITCH, check_value, one_of
from fer.data.readers.base import (
    LATER,
    Finding,
    HoldOut,
    RawDataset,
    Record,
    emotion_or_none,
    name_emotions,
    split_of,
)
from fer.data.readers.names import is_hidden, is_image, make_ids, warn_of
from fer.data.readers.sources import (
    UNREADABLE,
    FolderSource,
    check_growth,
    open_copy,
    with_slashes,
)

SIDE = 48
PIXELS = SIDE * SIDE
TABLE_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The table's codes 0–6, as its authors define them."""
USAGE_SPLIT = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
USAGES_IN_FOLDER = {
    "train": ("Training",),
    "val": ("PublicTest",),
    "test": ("PublicTest", "PrivateTest"),  # the usual archive has both in one folder
}
GRAY_LEVELS = {str(level): level for level in range(256)}
"""Every way to write a pixel. A dictionary is stricter than int(), which takes "+5" and "1_0"."""
TABLES = ("fer2013.csv", "icml_face_data.csv")
COLUMNS = ("emotion", "usage", "pixels")
TARS = (".tar.gz", ".tgz", ".tar")
USAGE_IN_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_")
OFFICIAL_COUNTS: dict[str, dict[str, int]] = {
    split: dict(zip(labels.EMOTIONS, counts, strict=True))
    for split, counts in {
        "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
        "val": (467, 56, 496, 895, 653, 415, 607),
        "test": (491, 55, 528, 879, 594, 416, 626),
    }.items()
}
"""Images per split and emotion in the reference copy (sum 35,887)."""

HOW_TO_OBTAIN = """\
How to obtain FER2013:
  - with a free Kaggle account, download https://www.kaggle.com/datasets/msambare/fer2013
    (archive.zip), or the table of https://www.kaggle.com/c/challenges-in-representation-learning-\
facial-expression-recognition-challenge, and pass its path: dataset.raw=PATH
  - or let it be fetched with your own Kaggle credentials:
    pip install "kagglehub>=0.3.6", then dataset.download=true"""


@dataclass(frozen=True)
class FER2013Reader(HoldOut):
    """Lists a FER2013 copy: image archive, unpacked folder, or either table.

    The hold-out is used only for a copy whose file names do not say their usage and that has no
    validation folder of its own.

    Args:
        val_fraction: share of each class that is held out.
        split_seed: another seed gives another hold-out.
        splits: ``given``: what the names, the folders or the table say; ``official``: each image
            that is recognised as one of the reference copy goes to the split that it has there,
            whatever it is called and wherever it lies.
        drop_unknown: leave out, and count, images of another emotion than the seven, such as the
            code 7 (contempt) of CK+ in this form; otherwise one is an error.

    Raises:
        ConfigError: an option has a value that cannot work.
    """

    splits: str = "given"
    drop_unknown: bool = field(default=False, metadata={LATER: True})

    official_counts = OFFICIAL_COUNTS
    expected_size = SIDE
    reference = "fer2013"
    how_to_obtain = HOW_TO_OBTAIN

    def __post_init__(self) -> None:
        super().__post_init__()
        check_value("dataset.reader.splits", self.splits, one_of("given", "official"))
        check_value("dataset.drop_unknown", self.drop_unknown, SWITCH)

    def find(self, folder: Path) -> Path | None:
        """The raw data in ``folder`` or one level below: a table, image folders, or an archive."""
        if not folder.is_dir():
            return None
        for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
            entries = sorted(place.iterdir())
            files = [path for path in entries if path.is_file()]
            named = [path for path in files if path.name in TABLES]
            folders = {path.name.lower() for path in entries if path.is_dir()}
            if not named and {"train", "test"} <= folders:
                return place
            packed = (path for path in files if path.name.lower().endswith((".zip", *TARS)))
            found = next(iter(named), None) or find_renamed(files) or next(packed, None)
            if found:
                return found
        return None

    def list(self, raw: Path) -> RawDataset:
        """List the copy at ``raw``, whichever form it has."""
        if raw.is_dir():
            found = self.find(raw)
            if found is not None and found.is_file():
                return self.list(found)
        name = "" if raw.is_dir() else raw.name.lower()
        if name.endswith(".csv"):
            dataset = self._list_table(TableSource(raw))
        elif name.endswith(TARS):
            dataset = self._list_table(TableSource(raw, find_in_tar(raw)))
        elif raw.is_dir() or name.endswith(".zip"):
            source, names = open_copy(raw, "L")
            tables = [name for name in names if PurePosixPath(name).name in TABLES]
            if tables and raw.is_file() and not any(map(is_image, names)):
                dataset = self._list_table(TableSource(raw, tables[0]))
            else:
                dataset = self._list_images(source, names)
        else:
            raise DataError(
                f"{raw}: expected archive.zip, its unpacked folder, fer2013.csv, fer2013.tar.gz or "
                f"icml_face_data.csv, found a file ending in {raw.suffix!r}. Pass one of them: "
                "dataset.raw=PATH"
            )
        dataset.restore_splits = self.splits == "official"
        return dataset

    def _list_images(self, source: FolderSource, names: Sequence[str]) -> RawDataset:
        """Records of ``.../<train|test|…>/<emotion>/<file>`` names."""
        raw = source.path
        parts = {name: name.split("/") for name in names if is_image(name)}
        placed = {name: own for name, own in parts.items() if len(own) > 2 and split_of(own[-3])}
        records, excluded = name_emotions(
            raw,
            (
                Record("", own[-2], split_of(usage_of(name) or own[-3]), name, name)
                for name, own in placed.items()
            ),
            emotion_or_none,
            drop_unknown=self.drop_unknown,
        )
        images = [record.source for record in records]
        roots = sorted({"/".join(placed[name][:-3]) or "." for name in images})
        if len(roots) != 1:
            found = f"{len(names):,} files elsewhere, such as {names[0]!r}" if names else "no file"
            if roots:
                found = f"split folders in {len(roots)} places: {', '.join(roots[:5])}"
            raise DataError(
                f"{raw}: expected one copy of FER2013, with images at train/<emotion>/<file>.jpg "
                f"and test/<emotion>/<file>.jpg, found {found}. Check that it was downloaded "
                "completely, or pass the folder of one copy: dataset.raw=PATH"
            )
        ids = make_ids(images, [record.emotion for record in records])
        records = [replace(one, id=name) for one, name in zip(records, ids, strict=True)]
        listed, warnings = self._split(records)
        ignored = [name for name in names if name not in placed]
        return RawDataset(
            source,
            "image folder" if raw.is_dir() else "image archive (zip)",
            list(listed),
            official_protocol=not warnings,
            warnings=[
                *warn_of(ignored, "files are not images below <split>/<emotion>/"),
                *warnings,
            ],
            excluded=excluded,
            expected_size=SIDE,
            findings=list(self._find_changes({name: placed[name][-3] for name in images})),
        )

    def _find_changes(self, folders: Mapping[str, str]) -> Sequence[Finding]:
        """Differences from the reference copy that the names of images and split folders show."""
        if not any(map(usage_of, folders)):
            text = (
                "The files were renamed: their names do not say the usage (Training, PublicTest, "
                "PrivateTest) that decides the official split."
            )
            return [Finding("renamed", text, images=len(folders))]
        misplaced = [
            name
            for name, folder in folders.items()
            if usage_of(name) not in ("", *USAGES_IN_FOLDER[split_of(folder)])
        ]
        if not misplaced or self.splits == "official":
            return []
        text = (
            f"Re-split: {len(misplaced):,} files are in a folder of another split than the usage "
            f"in their names says, such as {misplaced[0]}. The names decide here."
        )
        return [Finding("re-split", text, images=len(misplaced))]

    def _split(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[str]]:
        """The records, with val held out where the copy has none, and a warning if some names do
        not say their usage."""
        without = [record for record in records if not usage_of(record.source)]
        if not without:
            return records, []
        how = "their folders decide their split"
        if self.splits == "official":
            how = "each image that is recognised goes to the split that its authors gave it"
        elif all(record.split != "val" for record in records):
            records = self.hold_out(records)
            how = f"{self.val_fraction:.0%} of train is held out as val (seed {self.split_seed})"
        return records, [
            f"{len(without):,} of {len(records):,} file names carry no usage (Training, "
            f"PublicTest, PrivateTest), such as {without[0].source}: {how}. "
            + (
                "The verdict says whether that restored the official protocol."
                if self.splits == "official"
                else "Results are not comparable with the official protocol. To restore the "
                "official splits: dataset.reader.splits=official"
            )
        ]

    def _list_table(self, source: TableSource) -> RawDataset:
        """Records of ``fer2013.csv`` or ``icml_face_data.csv``. Pixels are left for later."""
        table = source.path / source.member
        try:
            with source.open() as file:
                rows = list(read_rows(table, source.name, file))
        except UNREADABLE as error:
            raise damaged(source.path, error) from error
        records, excluded = name_emotions(
            table,
            rows,
            dict(zip("0123456", TABLE_EMOTIONS, strict=True)).get,
            drop_unknown=self.drop_unknown,
            expected="emotions from 0 to 6",
            remedy=lambda _: "correct or remove the rows, or download the table again",
        )
        if not records:
            raise DataError(
                f"{table}: expected a row for each image, found the header alone. Download it "
                "again."
            )
        packed = f" in {source.path.name}" if source.member else ""
        return RawDataset(
            source,
            f"table ({source.name}{packed})",
            records,
            official_protocol=True,
            excluded=excluded,
            expected_size=SIDE,
        )


def usage_of(name: str) -> str:
    """The usage that a file's name says; empty if it says none."""
    found = USAGE_IN_NAME.match(PurePosixPath(name).name)
    return found[1] if found else ""


def find_renamed(files: Sequence[Path]) -> Path | None:
    """A table of faces among ``files``, whatever it is called, a whole one if there is one.

    Raises:
        DataError: there are several whole ones.
    """
    found: dict[Path, set[str]] = {}
    for path in files:
        if path.suffix == ".csv" and not is_hidden(path.name):
            with path.open("rb") as file:
                start = file.readline(4096).decode("utf-8-sig", "replace")
            header = {cell.strip().lower() for cell in start.split(",")}
            if "pixels" in header:
                found[path] = header
    whole = [path for path, header in found.items() if set(COLUMNS) <= header]
    if len(whole) > 1:
        raise DataError(
            f"{whole[0].parent}: expected one table with the columns emotion, pixels and Usage, "
            f"found {', '.join(path.name for path in whole)}. Pass the path of one of them: "
            "dataset.raw=PATH"
        )
    return next(iter([*whole, *found]), None)


def find_in_tar(path: Path) -> str:
    """The table in a tar archive, such as ``fer2013/fer2013.csv`` of ``fer2013.tar.gz``.

    Raises:
        DataError: there is none, the archive is damaged, or it would fill the memory.
    """
    names = []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                check_growth(path, member.size)
                if member.isfile() and PurePosixPath(member.name).name in TABLES:
                    return member.name
                names.append(member.name)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    raise DataError(
        f"{path}: expected the table {' or '.join(TABLES)} in it, found "
        f"{', '.join(names[:5]) or 'nothing'}. Unpack it and pass the path of what it holds: "
        "dataset.raw=PATH"
    )


def damaged(path: Path, error: Exception) -> DataError:
    """The error for an archive that cannot be read."""
    return DataError(
        f"{path}: expected an archive that can be read, found: {error}. The download may be "
        "incomplete; fetch it again."
    )


@dataclass
class TableSource:
    """Pixels of a FER2013 table, read row by row at their byte offset."""

    path: Path
    member: str = ""
    """The table in an archive; empty where ``path`` is the table itself."""
    _file: IO[bytes] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None}

    @property
    def name(self) -> str:
        """Name of the table."""
        return PurePosixPath(self.member).name or self.path.name

    def open(self) -> IO[bytes]:
        """The table from its beginning. In an archive, to seek is to read: forwards is fast."""
        if not self.member:
            return self.path.open("rb")
        if self.path.suffix.lower() == ".zip":
            archive = zipfile.ZipFile(self.path)
            members = {with_slashes(one): one for one in archive.infolist()}
            return archive.open(members[self.member])
        packed = tarfile.open(self.path).extractfile(self.member)  # noqa: SIM115
        assert packed is not None  # it is a file: find_in_tar
        return packed

    def read(self, record: Record) -> np.ndarray:
        assert isinstance(record.location, tuple)
        column, offset, length = record.location
        where = f"{self.path}: {record.source.removeprefix(self.name).strip()}"
        try:
            if self._file is None:  # opened once per worker process
                self._file = self.open()
            self._file.seek(offset)
            line = self._file.read(length)
        except UNREADABLE as error:
            raise damaged(self.path, error) from error
        return parse_pixels(parse_row(line, where)[column], where)

    def signature(self) -> str:
        return sha256_of_file(self.path)


def read_rows(path: Path, table: str, file: IO[bytes]) -> Iterator[Record]:
    """The rows of an open ``table`` that are not empty, with their codes as emotions.

    Locations are the column of the pixels, and the row's offset and length in bytes.

    Raises:
        DataError: a column is missing, or a row is malformed.
    """
    header = [cell.strip().lower() for cell in parse_row(file.readline(), f"{path}: header")]
    if not set(COLUMNS) <= set(header):
        raise DataError(
            f"{path}: expected the columns emotion, pixels and Usage, in any order, found "
            f"{', '.join(header)[:80] or 'none'}. This is not fer2013.csv or icml_face_data.csv. "
            "train.csv and test.csv of the challenge lack the splits, and the labels of the test "
            "images: take icml_face_data.csv from the same page."
        )
    emotion_at, usage_at, pixels_at = map(header.index, COLUMNS)
    for number in itertools.count(2):
        offset = file.tell()
        line = file.readline()
        if not line:
            return
        if not line.strip():
            continue
        where = f"{path}: row {number}"
        cells = [cell.strip() for cell in parse_row(line, where)]
        whole = len(cells) == len(header)
        usage = cells[usage_at] if whole else ""
        if whole and not cells[emotion_at].isdecimal():  # another number may be left out
            raise DataError(
                f"{where}: expected an emotion from 0 to 6, found {cells[emotion_at][:40]!r}. "
                "Correct or remove the row, or download the table again."
            )
        if usage not in USAGE_SPLIT:
            raise DataError(
                f"{where}: expected {len(header)} cells, with a usage of Training, PublicTest or "
                f"PrivateTest, found {len(cells)} and {usage[:40]!r}. Correct or remove the row, "
                "or download the table again."
            )
        yield Record(
            f"{usage}_{number:05d}",
            cells[emotion_at],
            USAGE_SPLIT[usage],
            f"{table} row {number}",
            (pixels_at, offset, len(line)),
        )


def parse_row(line: bytes, where: str) -> list[str]:
    """The cells of one line of a table."""
    try:
        return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")]))
    except (UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise DataError(
            f"{where}: expected one row of comma-separated text, found {line[:40]!r}… ({error}). "
            "The table is damaged; download it again."
        ) from error


def parse_pixels(text: str, where: str) -> np.ndarray:
    """2,304 numbers 0–255 separated by spaces as a ``(48, 48)`` uint8 image."""
    words = text.split()
    odd = next((word for word in words if word not in GRAY_LEVELS), None)
    if len(words) != PIXELS or odd is not None:
        raise DataError(
            f"{where}: expected {PIXELS:,} pixels (48 x 48), each a whole number from 0 to 255, "
            f"found {len(words):,}{f' and {odd[:20]!r}' if odd else ''}. The table is damaged; "
            "download it again."
        )
    return np.array([GRAY_LEVELS[word] for word in words], np.uint8).reshape(SIDE, SIDE)
