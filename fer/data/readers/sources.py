"""Where images come from: folders and zip archives, listed and read in place."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer.core.errors import DataError
from fer.core.files import is_outside, sha256_of_file
from fer.data.images import MAX_BYTES, decode
from fer.data.readers.names import is_hidden, is_image

MAX_MEMBERS = 2_000_000
"""Most members of an archive; the largest public set of labelled faces has half as many."""
MAX_MEMBER_BYTES = MAX_BYTES
MAX_RATIO = 100
"""Most times that an archive may grow; images are compressed already and hardly do."""
FREE_BYTES = 64 * 2**20
"""Up to this much in all, the ratio does not matter: a few blank bitmaps are no bomb."""
UNREADABLE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, KeyError),
    *(OSError, NotImplementedError, RuntimeError),
)
"""Errors that a damaged archive raises."""


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
    """Its origin in words: a file of the copy, or a table and its row."""
    location: str | tuple[Any, ...]
    """Its origin for :meth:`Source.read`: a member or file, or what its source needs."""
    gender: str = ""
    """As the dataset's annotators judged it, in words; empty where they did not."""
    race: str = ""
    age: str = ""
    """A range of years, such as ``20-39``."""
    person: str = ""
    """Who is shown; empty if that is not known."""


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
            raise unreadable(self.path / name, error) from error

    def signature(self) -> str:
        return sha256_of_files(describe_files(self.path))


@dataclass
class ZipSource(FolderSource):
    """Images in a zip archive, read in place: nothing is ever extracted."""

    _archive: zipfile.ZipFile | None = field(default=None, repr=False, compare=False)
    _members: dict[str, zipfile.ZipInfo] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "mode": self.mode, "_archive": None, "_members": {}}

    def read_bytes(self, name: str, size: int = -1) -> bytes:
        """The first ``size`` bytes of a member of :func:`list_zip`, or all of it."""
        try:
            if self._archive is None:  # opened once per worker process
                self._archive = zipfile.ZipFile(self.path)
                self._members = {with_slashes(one): one for one in self._archive.infolist()}
            with self._archive.open(self._members[name]) as file:
                return file.read(size)
        except UNREADABLE as error:
            raise DataError(
                f"{self.path}: expected a readable member {name!r}, found: {error}. "
                "The archive is damaged; download it again."
            ) from error

    def signature(self) -> str:
        return sha256_of_file(self.path)


def open_copy(raw: Path, mode: str | None = None) -> tuple[FolderSource, list[str]]:
    """The source of a folder or zip archive, and its files."""
    if raw.is_dir():
        return FolderSource(raw, mode), list_files(raw)
    return ZipSource(raw, mode), list_zip(raw)


# --- folders ---------------------------------------------------------------------------------


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that cannot be read."""
    return DataError(
        f"{path}: expected a file or folder that can be read, found: {error.strerror}. Check its "
        "permissions and where its links lead, or remove it."
    )


def list_files(folder: Path) -> list[str]:
    """Files below ``folder``, as sorted posix paths relative to it, but for hidden ones. Symbolic
    links are followed: on a cluster a class folder often is one.

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
        raise unreadable(folder, error) from error
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


def describe_files(folder: Path, names: Iterable[str] | None = None) -> list[tuple[str, int, int]]:
    """Name, size in bytes and modification time in ns of some files below ``folder``, or of all.

    Raises:
        DataError: a file cannot be looked at, such as a link to nothing.
    """
    described = []
    for name in list_files(folder) if names is None else names:
        try:
            status = (folder / name).stat()
        except OSError as error:
            raise unreadable(folder / name, error) from error
        described.append((name, status.st_size, status.st_mtime_ns))
    return described


def sha256_of_files(files: Iterable[tuple[str, int, int]], start: str = "") -> str:
    """Hex SHA-256 of ``start`` and of what :func:`describe_files` says."""
    digest = hashlib.sha256(start.encode())
    for name, size, modified in files:
        digest.update(f"{name}\0{size}\0{modified}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_text(path: Path, what: str) -> str:
    """A text file, with or without a byte-order mark.

    Raises:
        DataError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected {what} as UTF-8 text, found another encoding ({error}). "
            "Save it as UTF-8, or obtain it again."
        ) from error


# --- archives --------------------------------------------------------------------------------


def list_zip(path: Path) -> list[str]:
    """Members of a zip archive that are files, with slashes, checked but not extracted.

    Raises:
        DataError: it is not a zip archive, or a member is unsafe (leaves the target folder, is a
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
    check_growth(path, sum(member.file_size for member in members), len(members))
    seen: set[str] = set()
    for member in members:
        name = with_slashes(member)
        is_large = member.file_size > MAX_MEMBER_BYTES and not name.endswith(".csv")
        for problem, found in (
            ("a member without a name", not name),
            ("the same member twice", name in seen),
            ("a member that would be written outside the target folder", is_outside(name)),
            ("a member that is a symbolic link", stat.S_ISLNK(member.external_attr >> 16)),
            ("an encrypted member", member.flag_bits & 0x1),
            (f"a member of {member.file_size:,} bytes", is_large),
        ):
            if found:
                raise DataError(
                    f"{path}: expected plain image files, found {problem}: {member.filename!r}. "
                    "Do not use this archive; obtain the dataset from another place."
                )
        seen.add(name)
    return sorted(name for name in seen if not name.endswith("/") and not is_hidden(name))


def check_growth(path: Path, total: int, members: int = 1) -> None:
    """Refuse an archive that would unpack to too many bytes or members.

    Raises:
        DataError: it would fill the disk.
    """
    most = max(FREE_BYTES, MAX_RATIO * path.stat().st_size)
    if members > MAX_MEMBERS or total > most:
        raise DataError(
            f"{path}: expected an archive of images, found one that would fill the disk: "
            f"{members:,} members that unpack to {total:,} bytes (at most {MAX_MEMBERS:,} and "
            f"{most:,}). Do not use it; obtain the dataset from another place."
        )


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


def only_archive(names: Sequence[str]) -> str | None:
    """The one zip archive among the files of a folder that holds neither images nor a table."""
    archives = [name for name in names if name.lower().endswith(".zip")]
    others = any(is_image(name) or name.lower().endswith(".csv") for name in names)
    return archives[0] if len(archives) == 1 and not others else None
