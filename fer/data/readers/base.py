"""What a dataset brings along: a :class:`Reader`, and what it hands over.

A reader lists a raw dataset without decoding it (:class:`RawDataset`): records that say which image
has which label, and a :class:`Source`, which a worker process can unpickle, to read each.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.files import is_outside, sha256_of_file
from fer.core.options import SEED, check_value, number
from fer.data.images import MAX_BYTES, decode, suffixes

SPLITS: tuple[str, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "publictest": "val",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}
"""What public copies call a split, in lower case, and the split it is."""
LEFT_THERE = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
MAX_MEMBERS = 2_000_000
"""Of an archive; the largest public set of labelled faces has half as many."""
MAX_MEMBER_BYTES = MAX_BYTES
MAX_RATIO = 100
"""How many times an archive may grow; images are compressed already and hardly do."""
FREE_BYTES = 64 * 2**20
"""Up to this much in all, the ratio does not matter: a few blank bitmaps are no bomb."""
MAX_ID_BYTES = 120
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""File names that mean a device on Windows, whatever ends them."""
EMOTION_NAMES = ", ".join(labels.EMOTIONS)
LATER = "later"
"""Marks a field of a reader that joined later: what was prepared without it is found again."""
SHARE = number("a share between 0 and 1", lambda value: 0 < value < 1)


@dataclass(frozen=True, slots=True)  # there may be a million
class Record:
    """One labelled image of a raw dataset."""

    id: str
    """Unique within the dataset; the prepared file is ``<split>/<emotion>/<id>.png``."""
    emotion: str
    """A name of :data:`fer.core.labels.EMOTIONS`."""
    split: str
    """``train``, ``val`` or ``test``."""
    source: str
    """Where it came from, for people: a file of the copy, or a table and its row."""
    location: str | tuple[Any, ...]
    """Where it came from, for :meth:`Source.read`: a member or file, or what its source needs."""
    gender: str = ""
    """As the dataset's annotators judged it, in words; empty where they did not."""
    race: str = ""
    age: str = ""
    """In years, such as ``20-39``."""


class Source(Protocol):
    """Reads one raw image. Implementations are small and picklable."""

    path: Path

    def read(self, record: Record) -> np.ndarray:
        """The image of ``record``: ``(H, W)`` or ``(H, W, 3)`` uint8.

        Raises:
            DataError: it cannot be decoded.
        """
        ...

    def signature(self) -> str:
        """A checksum that changes when the raw data changes; cheap enough for every start."""
        ...


@dataclass
class FolderSource:
    """Images in a folder."""

    path: Path
    mode: str | None = None
    """``"L"`` or ``"RGB"``: what the images are converted to; None: whichever each one is."""

    def read(self, record: Record) -> np.ndarray:
        name = str(record.location)
        return decode(self.read_bytes(name), str(self.path / name), self.mode)

    def read_bytes(self, name: str, size: int = -1) -> bytes:
        """The first ``size`` bytes of a file, or all of it.

        Raises:
            DataError: it cannot be read.
        """
        try:
            with (self.path / name).open("rb") as file:
                return file.read(size)
        except OSError as error:
            raise DataError(
                f"{self.path / name}: expected a file that can be read, found: {error.strerror}. "
                "Check the copy."
            ) from error

    def signature(self) -> str:
        digest = hashlib.sha256()
        for name, size, modified in describe_files(self.path):
            digest.update(f"{name}\0{size}\0{modified}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass
class ZipSource:
    """Images in a zip archive, read in place: nothing is ever extracted."""

    path: Path
    mode: str | None = None
    """As of :class:`FolderSource`."""
    _archive: zipfile.ZipFile | None = field(default=None, repr=False, compare=False)
    _members: dict[str, zipfile.ZipInfo] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "mode": self.mode, "_archive": None, "_members": {}}

    def read(self, record: Record) -> np.ndarray:
        name = str(record.location)
        return decode(self.read_bytes(name), f"{self.path}: {name}", self.mode)

    def read_bytes(self, name: str, size: int = -1) -> bytes:
        """As of :class:`FolderSource`, of a member as :func:`list_zip` names it."""
        try:
            if self._archive is None:  # opened once per worker process
                self._archive = zipfile.ZipFile(self.path)
                self._members = {with_slashes(one): one for one in self._archive.infolist()}
            with self._archive.open(self._members[name]) as file:
                return file.read(size)
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            EOFError,
            KeyError,
            OSError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise DataError(
                f"{self.path}: expected a readable member {name!r}, found: {error}. "
                "The archive is damaged; download it again."
            ) from error

    def signature(self) -> str:
        return sha256_of_file(self.path)


@dataclass(frozen=True)
class Finding:
    """One way in which a copy differs from what its authors published."""

    kind: str
    """A word to look for: ``smoothed``, ``re-split``, …"""
    text: str
    """A sentence for people."""
    split: str | None = None
    emotion: str | None = None
    images: int = 0


@dataclass
class RawDataset:
    """A raw dataset, listed but not yet decoded."""

    source: Source
    form: str
    """In words, what was found: ``"image archive (zip)"``, ``"table (fer2013.csv)"``, …"""
    records: list[Record]
    official_protocol: bool = False
    """Whether train, val and test are the ones that the dataset's authors defined."""
    warnings: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
    """Why images of the copy were left out, in words, and how many for each reason."""
    expected_size: int | None = None
    """Side in pixels of the images of an unaltered copy of this form; None if sizes differ."""
    findings: list[Finding] = field(default_factory=list)
    """Alterations that the names of the files alone betray."""
    restore_splits: bool = False
    """Whether a recognised image goes to the split that it has in the reference copy."""


class Reader(ABC):
    """Lists the raw data of a dataset. A dataset of your own is a class that extends this.

    :meth:`list` alone has to be written. Options are attributes of the names that the constructor
    gives them, as in a dataclass: they decide whether what was prepared before still holds, and
    travel in checkpoints. What is no option has a name that begins with ``_``.

    >>> @dataclass(frozen=True)
    ... class MyReader(Reader):
    ...     level: int = 3
    ...
    ...     def list(self, raw):
    ...         names = [name for name in list_files(raw) if is_image(name)]  # train/sad/1.png
    ...         places = [name.split("/") for name in names]
    ...         ids = make_ids(names, [emotion for _, emotion, _ in places])
    ...         records = [
    ...             Record(id, labels.canonical(emotion), split, source=name, location=name)
    ...             for id, name, (split, emotion, _) in zip(ids, names, places)
    ...         ]
    ...         return RawDataset(FolderSource(raw), "my folders", records)
    >>> MyReader(level=4).options()
    {'level': 4}
    """

    official_counts: Mapping[str, Mapping[str, int]] | None = None
    """Images per split and emotion as the dataset's authors state them; without ``val`` where they
    define none. None: not known."""
    expected_size: int | None = None
    """Side in pixels of the images as they are usually passed on; None if that varies."""
    reference: str | None = None
    """Name of the copy in :mod:`fer.data.audit.reference`; None if there is none."""
    how_to_obtain: str = "Pass its path: dataset.raw=PATH"
    """What a user without the raw data is told."""

    def find(self, folder: Path) -> Path | None:
        """The raw data in ``folder``: the folder itself, or the one archive in it; None if none."""
        names = list_files(folder) if folder.is_dir() else []
        return folder / (only_archive(names) or "") if names else None

    @abstractmethod
    def list(self, raw: Path) -> RawDataset:
        """List the raw data without decoding it.

        Raises:
            DataError: it is not what this reader reads.
        """

    def options(self) -> dict[str, Any]:
        """What the reader was made with: text, numbers, true, false, None, and lists and mappings
        of them; without those of :data:`LATER` that are at their default.

        Raises:
            ConfigError: an option is something else.
        """
        names: Iterable[str] = vars(self)
        if is_dataclass(self):
            names = [
                one.name
                for one in fields(self)
                if one.init
                and not (LATER in one.metadata and getattr(self, one.name) == one.default)
            ]
        return {name: to_plain(name, getattr(self, name)) for name in names if name[0] != "_"}


def to_plain(name: str, value: object) -> Any:
    """The value of a reader's option as what a file can hold: a tuple is a list, a path a text.

    Raises:
        ConfigError: it cannot be that.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {to_plain(name, key): to_plain(name, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(name, one) for one in value]
    raise ConfigError(
        f"dataset.reader.{name}: expected text, numbers, true, false, null, or lists and mappings "
        f"of them, found {value!r}. In the reader, begin the names of attributes that are no "
        "options with _"
    )


def list_files(folder: Path) -> list[str]:
    """Files below ``folder``, as sorted posix paths relative to it. Hidden entries are left out.

    Symbolic links are followed: on a cluster a class folder often is one.

    Raises:
        DataError: a folder cannot be read, a link leads back to a folder above it, or something is
            neither a file nor a folder.
    """
    found: list[str] = []
    _walk(folder, "", (folder.resolve(),), found)
    return sorted(found)


def _walk(folder: Path, prefix: str, above: tuple[Path, ...], found: list[str]) -> None:
    try:
        entries = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
        kinds = [(entry, entry.is_dir()) for entry in entries]
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be read, found: {error.strerror}. Check its "
            "permissions and links."
        ) from error
    for entry, is_folder in kinds:
        if not is_folder:
            # A link to nothing is a file that cannot be read; reading a pipe would never end.
            if not entry.is_file() and Path(entry.path).exists():
                raise DataError(
                    f"{entry.path}: expected a file or a folder, found a pipe, socket or device. "
                    "Remove it."
                )
            found.append(prefix + entry.name)
            continue
        place = Path(entry.path).resolve() if entry.is_symlink() else above[-1] / entry.name
        if place in above:
            raise DataError(
                f"{entry.path}: expected images or folders of images, found a symbolic link that "
                f"leads back to {place}. Remove the link."
            )
        _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, place), found)


def describe_files(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size in bytes and modification time in ns of each file below ``folder``.

    Raises:
        DataError: a file cannot be looked at, such as a link to nothing.
    """
    return [(name, *describe_file(folder / name)) for name in list_files(folder)]


def describe_file(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns.

    Raises:
        DataError: it cannot be looked at.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"{path}: expected a file that can be read, found: {error.strerror}. Remove it, or "
            "correct where the link leads."
        ) from error
    return status.st_size, status.st_mtime_ns


def list_zip(path: Path) -> list[str]:
    """Members of a zip archive that are files, with slashes, checked but not extracted.

    Raises:
        DataError: it is no zip archive, or a member is unsafe (leaves the target folder, is a
            link, is encrypted, or is larger than :data:`MAX_MEMBER_BYTES`).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path}: expected a zip archive, found a file that is none ({error}). "
            "The download may be incomplete; fetch it again."
        ) from error
    total, packed = sum(member.file_size for member in members), path.stat().st_size
    for found, is_too_much in (
        (f"{len(members):,} members (at most {MAX_MEMBERS:,})", len(members) > MAX_MEMBERS),
        (
            f"{packed:,} bytes that unpack to {total:,} (at most {MAX_RATIO} times as many)",
            total > max(FREE_BYTES, MAX_RATIO * packed),
        ),
    ):
        if is_too_much:
            raise DataError(
                f"{path}: expected an archive of images, found one that would fill the disk: "
                f"{found}. Do not use it; obtain the dataset from another place."
            )
    names: list[str] = []
    seen: set[str] = set()
    for member in members:
        name = with_slashes(member)
        if not name:
            problem = "a member without a name"
        elif name in seen:
            problem = "the same member twice"
        elif is_outside(name):
            problem = "a member that would be written outside the target folder"
        elif stat.S_ISLNK(member.external_attr >> 16):
            problem = "a member that is a symbolic link"
        elif member.flag_bits & 0x1:
            problem = "an encrypted member"
        elif member.file_size > MAX_MEMBER_BYTES and not name.endswith(".csv"):
            problem = f"a member of {member.file_size:,} bytes (at most {MAX_MEMBER_BYTES:,})"
        else:
            seen.add(name)
            if not name.endswith("/") and not is_hidden(name):
                names.append(name)
            continue
        raise DataError(
            f"{path}: expected plain image files, found {problem}: {member.filename!r}. "
            "Do not use this archive; obtain the dataset from another place."
        )
    return sorted(names)


def with_slashes(member: zipfile.ZipInfo) -> str:
    """A member's path, as it was meant.

    Against the specification some programs write backslashes, and names in UTF-8 or, in China, in
    GB 2312 without saying so: Python then takes their bytes for those of code page 437.
    """
    name = member.filename
    if not member.flag_bits & 0x800 and not name.isascii():
        for encoding in ("utf-8", "gb2312"):
            with contextlib.suppress(UnicodeError):
                name = name.encode("cp437").decode(encoding)
                break
    return name.replace("\\", "/")


def is_hidden(name: str) -> bool:
    """Whether some part of a path is what an operating system left there."""
    return any(part.startswith(".") or part in LEFT_THERE for part in PurePosixPath(name).parts)


def composed(name: str) -> str:
    """``name`` with accents in their composed form: one file system stores é as two characters."""
    return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    r"""``name`` for a message: a file name that is not UTF-8 reaches us as what cannot be printed.

    >>> shown("caf\udce9.jpg")
    'caf\\udce9.jpg'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def checksum(name: str) -> str:
    """64 bits of the SHA-256 of a name, in hex; equal on every file system."""
    data = composed(name).encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()[:16]


def safe_id(text: str) -> str:
    """``text`` as an id: a file name on every system, with ``.png`` behind it and a prefix before.

    Letters of every script are kept, in their composed form. What is too long is cut, with a
    checksum of the whole in its place.

    >>> safe_id("a face/1"), safe_id("con"), len(safe_id("x" * 300))
    ('a_face_1', '_con', 120)
    """
    name = re.sub(r"[^\w.-]", "_", composed(text))
    if RESERVED.match(name):
        name = f"_{name}"
    if len(name.encode()) <= MAX_ID_BYTES:
        return name
    digest = checksum(text)
    kept = name.encode()[: MAX_ID_BYTES - len(digest) - 1].decode("utf-8", "ignore")
    return f"{kept}-{digest}"


def make_ids(names: Sequence[str], emotions: Sequence[str]) -> list[str]:
    """Ids that are unique and safe as file names, as short as that allows.

    They are unique without regard to case too, so that no file system takes two for one, and do
    not depend on the order of the images.

    Args:
        names: posix path of each image, ``[…/]<split>/<emotion>/<file>`` or a part of it.
        emotions: of each image.
    """
    paths = [PurePosixPath(name) for name in names]
    stems = [safe_id(path.stem) for path in paths]
    folders = [path.parts[-3] if len(path.parts) > 2 else "" for path in paths]
    by_emotion = [f"{e}_{s}" for e, s in zip(emotions, stems, strict=True)]
    by_folder = [safe_id(f"{f}_{name}") for f, name in zip(folders, by_emotion, strict=True)]
    by_path = [safe_id("_".join(path.with_suffix("").parts)) for path in paths]
    for ids in (stems, by_emotion, by_folder, by_path):
        if len({name.casefold() for name in ids}) == len(ids):
            return ids
    # The same stem twice in one class folder, such as 1.jpg and 1.png: only the whole path tells.
    return [
        safe_id(f"{checksum(name)}_{path.stem}") for name, path in zip(names, paths, strict=True)
    ]


def is_image(name: str) -> bool:
    """Whether the file name ends like that of an image, of any format that Pillow reads."""
    return PurePosixPath(name).suffix.lower() in suffixes()


def by_suffix(names: Sequence[str]) -> str:
    """How many of some files end in what, and the first of them.

    >>> by_suffix(["a/notes.txt", "b/README", "c/more.TXT"])
    '2 .txt, 1 without a suffix; the first: a/notes.txt'
    """
    counts = Counter(PurePosixPath(name).suffix.lower() for name in names)
    kinds = [f"{count:,} {end or 'without a suffix'}" for end, count in counts.most_common(8)]
    return shown(f"{', '.join(kinds)}; the first: {names[0]}")


def only_archive(names: Sequence[str]) -> str | None:
    """The one zip archive among the files of a folder that holds neither images nor a table."""
    archives = [name for name in names if name.lower().endswith(".zip")]
    others = any(is_image(name) or name.lower().endswith(".csv") for name in names)
    return archives[0] if len(archives) == 1 and not others else None


@dataclass(frozen=True)
class HoldOut(Reader):
    """A reader that holds val out of train: stratified, seeded, the same on every machine.

    Args:
        val_fraction: share of each class that is held out, at least one image of each.
        split_seed: another seed gives another hold-out.

    Raises:
        ConfigError: the share would leave train or val empty, or the seed is none.
    """

    val_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_value("dataset.reader.val_fraction", self.val_fraction, SHARE)
        check_value("dataset.reader.split_seed", self.split_seed, SEED)

    def choose(
        self,
        ids: Iterable[str],
        emotions: Mapping[str, str],
        share: float | None = None,
        leave: int = 1,
    ) -> frozenset[str]:
        """The ids that are held out, at least one of each class.

        Each id is ranked by a hash of seed and id, so that the choice depends neither on the
        order of the files nor on the machine nor on any library's random numbers.

        Args:
            ids: the images to hold out of.
            emotions: the class of each.
            share: of each class that is held out; None: ``val_fraction``.
            leave: images of each class that stay, where it has more than that.
        """
        share = self.val_fraction if share is None else share
        by_class: dict[str, list[tuple[str, str]]] = {}
        for name in ids:
            key = f"{self.split_seed}:{name}".encode("utf-8", "surrogateescape")
            rank = hashlib.sha256(key).hexdigest()
            by_class.setdefault(emotions[name], []).append((rank, name))
        chosen: set[str] = set()
        for ranked in by_class.values():
            count = max(1, min(round(share * len(ranked)), len(ranked) - leave))
            chosen.update(name for _, name in sorted(ranked)[:count])
        return frozenset(chosen)

    def choose_persons(
        self, persons: Mapping[str, str], emotions: Mapping[str, str], share: float
    ) -> frozenset[str]:
        """The ids that are held out, all of a person or none, with about ``share`` of each class.

        Persons come in the order of a hash, as images do in :meth:`choose`. One is taken where
        that brings the classes nearer to their shares, and leaves images of each to the others.

        Args:
            persons: who is shown on each image.
            emotions: the class of each.
            share: of each class that is held out.
        """
        own: dict[str, Counter[str]] = {}
        for name, person in persons.items():
            own.setdefault(person, Counter())[emotions[name]] += 1
        ranks = {
            person: hashlib.sha256(
                f"{self.split_seed}:{person}".encode("utf-8", "surrogateescape")
            ).hexdigest()
            for person in own
        }
        total = sum(own.values(), Counter[str]())
        held: Counter[str] = Counter()
        chosen: set[str] = set()

        def distance(counts: Counter[str]) -> float:
            return sum((counts[c] - share * n) ** 2 / n for c, n in total.items())

        for person in sorted(own, key=ranks.__getitem__):
            after = held + own[person]
            leaves = all(total[c] > after[c] for c in own[person])
            if leaves and (not chosen or distance(after) < distance(held)):
                chosen.add(person)
                held = after
        return frozenset(name for name, person in persons.items() if person in chosen)


def persons_across(persons: Mapping[str, str], splits: Mapping[str, str]) -> list[Finding]:
    """What is to be said where pictures of one person are in several splits.

    Args:
        persons: who is shown, of each image that says so.
        splits: of each image.
    """
    places: dict[str, set[str]] = {}
    for name, person in persons.items():
        places.setdefault(person, set()).add(splits[name])
    across = sorted(person for person, own in places.items() if len(own) > 1)
    if not across:
        return []
    images = sum(len(places[person]) > 1 for person in persons.values())
    return [
        Finding(
            "persons across splits",
            f"{len(across):,} of {len(places):,} persons are in more than one split "
            f"({shown(', '.join(across[:5]))}{', …' * (len(across) > 5)}): scores say less about "
            "people whom the network has not seen.",
            images=images,
        )
    ]


def check_records(reader: str, records: Sequence[Record]) -> None:
    """Refuse records that cannot become a prepared dataset, whichever reader made them.

    Args:
        reader: its class, for the message.
        records: as it lists them.

    Raises:
        DataError: there are none, something among them is no record, an id is not safe or not
            unique, or an emotion or split is unknown.
    """
    if not records:
        raise DataError(
            f"{reader}: expected a record for each image, found an empty list. Check that "
            "dataset.raw is the right place, or correct the reader's list()."
        )
    seen: set[str] = set()
    for record in records:
        if not isinstance(record, Record):
            raise DataError(
                f"{reader}: expected records that are each a Record, found {record!r}. Correct the "
                "reader's list()."
            )
        name = str(record.id)
        for what, found, is_right, expected in (
            ("id", record.id, safe_id(name) == record.id != "", "one that safe_id() made"),
            ("id", record.id, name.casefold() not in seen, "each id once"),
            ("emotion", record.emotion, record.emotion in labels.EMOTIONS, EMOTION_NAMES),
            ("split", record.split, record.split in SPLITS, ", ".join(SPLITS)),
        ):
            if not is_right:
                raise DataError(
                    f"{reader}: {shown(str(record.source))}: expected as {what} {expected}, found "
                    f"{shown(str(found))!r}. Correct the reader: make_ids() and labels.canonical() "
                    "help."
                )
        seen.add(name.casefold())


def check_classes(raw: Path | str, placed: Sequence[tuple[str, str]]) -> None:
    """Refuse to train on a copy in which a split is missing, or train lacks an emotion.

    A network cannot learn what it never sees. In val and test an empty emotion is allowed: scores
    are defined without it, and results say so. To measure takes the measured split alone.

    Args:
        raw: the copy, for the message.
        placed: split and emotion of each image.

    Raises:
        DataError: a split is missing, or a class of train is empty.
    """
    counts = Counter(placed)
    for split in SPLITS:
        empty = [name for name in labels.EMOTIONS if not counts[split, name]]
        if len(empty) == labels.NUM_CLASSES:
            raise DataError(
                f"{raw}: expected images for the splits train, val and test, found none for "
                f"{split!r}. Check that the copy is complete; evaluate.py needs one split alone."
            )
        if empty and split == "train":
            raise DataError(
                f"{raw}: expected images of all seven emotions in {split!r}, found none of "
                f"{', '.join(map(repr, empty))}. Check that the copy is complete; evaluate.py does "
                "without them."
            )
