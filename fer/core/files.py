"""Files that are complete or absent: atomic writes, safe names, checksums."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import mmap
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fer.core.errors import DataError
from fer.core.values import misfit

HALF = ".fer.tmp"
"""Suffix of files that are still being written; nothing else is ever cleaned up."""


def write_atomic(
    path: Path, write: Callable[[BinaryIO], object], *, make_folder: bool = True
) -> Path:
    """Let ``write`` fill a temporary neighbour of ``path``, then rename it into place.

    A reader sees the old file or the whole new one, never a part of it. The folder is made unless
    ``make_folder`` is false.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Not by mkstemp, whose files are private: the mode that others have cannot be asked for without
    # changing it, for other threads too.
    half = path.with_name(f".{path.name}.{secrets.token_hex(4)}{HALF}")
    try:
        with half.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except BaseException as error:
        half.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # so that the message says which disk is full
        raise
    return path


class BackgroundWriter:
    """Writes files in a thread, one after the other, while whatever comes next is computed.

    At most one is waiting. What goes wrong is raised by the next :meth:`write` or :meth:`wait`. A
    folder that is moved while a file waits is not made anew.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[object] | None = None

    def write(self, function: Callable[..., object], path: Path, *arguments: object) -> None:
        """Call the function, which writes the file ``path``, once the one before is written."""
        self.wait()
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._thread is None:  # not before: a writer travels to other processes
            self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending = self._thread.submit(function, path, *arguments, make_folder=False)

    def wait(self) -> None:
        """Return once everything is written."""
        if self._pending is None:
            return
        try:
            self._pending.result()
        except Exception:  # of the writing; an interrupted wait is waited for again
            self._pending = None
            raise
        self._pending = None


def is_ours(path: Path, mark: str) -> bool:
    """Tell whether ``path`` may be overwritten: it does not exist, or this program wrote it.

    ``mark`` is a text that only this program's files of that kind contain.
    """
    if not path.exists():
        return not path.is_symlink()
    if not path.is_file():
        return False
    if path.stat().st_size == 0:
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(mark.encode()) >= 0


def remove_leftovers(folder: Path) -> None:
    """Delete the half-written files (see :data:`HALF`) that killed processes left in ``folder``.

    No other process may be writing there.
    """
    for path in list(folder.rglob(f".*{HALF}")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | memoryview, *, make_folder: bool = True) -> Path:
    """Write ``data``, atomically."""
    return write_atomic(path, lambda file: file.write(data), make_folder=make_folder)


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` as UTF-8, atomically."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> Path:
    """Write ``content`` as indented JSON, atomically. NaN is refused: JSON has none."""
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""Start of a cell that a spreadsheet would compute, or that is already marked as text."""


def to_cell(value: Any) -> Any:
    """Prefix text that a spreadsheet would run as a formula with a quote; keep everything else.

    A file name may begin with an equals sign. :func:`from_cell` removes the quote.

    >>> to_cell("=1+1"), to_cell("-0.5"), to_cell(-0.5), to_cell("happy")
    ("'=1+1", '-0.5', -0.5, 'happy')
    """
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def from_cell(text: str) -> str:
    """Undo :func:`to_cell`.

    >>> from_cell(to_cell("=1+1")), from_cell(to_cell("'=1+1")), from_cell("'quoted'")
    ('=1+1', "'=1+1", "'quoted'")
    """
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


Row = dict[str, str | float | None]
"""A row of a table by its columns."""


def write_csv(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, object]],
    *,
    make_folder: bool = True,
) -> Path:
    """Write ``rows`` under a header of ``columns``, atomically; see :func:`to_cell`."""

    def write(file: BinaryIO) -> None:
        import io

        # Python reads file names that are not UTF-8 with surrogates; write their bytes back.
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({key: to_cell(value) for key, value in row.items()} for row in rows)
        text.flush()
        text.detach()

    return write_atomic(path, write, make_folder=make_folder)


MAX_TEXT_BYTES = 1 << 30
"""Largest table or JSON file that is read; the manifest of a million images is a fifth of it."""


def open_data(path: Path, most: int = MAX_TEXT_BYTES) -> BinaryIO:
    """Open an untrusted file of at most so many bytes, to read it whole.

    Raises:
        OSError: it cannot be read, is larger, or is a pipe, socket or device, which may never end.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "nothing", str(path))
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a pipe, socket or device"
        raise OSError(errno.EINVAL, found, str(path))
    size = path.stat().st_size
    if size > most:
        raise OSError(errno.EFBIG, f"{size:,} bytes (at most {most:,})", str(path))
    return path.open("rb")


def read_text(path: Path) -> str:
    """Read an untrusted UTF-8 file.

    Raises:
        OSError: see :func:`open_data`.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open_data(path) as file:
        return file.read().decode("utf-8")


def read_json(path: Path, shape: Any = object) -> Any:
    """Read a JSON file whose content has a shape, see :func:`fer.core.values.misfit`.

    Raises:
        DataError: the file cannot be read, is not JSON, or its content has another shape.
    """
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON file, found: {error}.") from error
    wrong = misfit(content, shape)
    if wrong is not None:
        raise DataError(
            f"{path}: expected what this program writes there, found something else"
            f"{f' as {wrong[:80]!r}' if wrong else ''}: the file was changed, or another program "
            "or version wrote it."
        )
    return content


def refuse_links(folder: Path, names: Iterable[str] | None = None) -> None:
    """Refuse an untrusted folder whose symbolic links would make this program write outside it.

    Checked are the entries of these names; without names all, at any depth.

    Raises:
        DataError: a link leads out of the folder.
    """
    inside = folder.resolve()
    if names is None:
        places = [
            Path(top, name) for top, *both in os.walk(folder) for name in (*both[0], *both[1])
        ]
    else:
        places = [folder / name for name in names]
    for place in places:
        if place.is_symlink() and not place.resolve().is_relative_to(inside):
            raise DataError(
                f"{place}: expected a file or folder, found a symbolic link that leads out of "
                f"{folder}; nothing is written there. Replace the link with what it leads to, or "
                "remove it."
            )


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of the file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_outside(name: str) -> bool:
    """Tell whether an archive member called ``name`` would be extracted outside its target.

    >>> is_outside("train/happy/1.jpg"), is_outside("../1.jpg"), is_outside("/etc/passwd")
    (False, True, True)
    """
    posix = PurePosixPath(name.replace("\\", "/"))
    has_drive = len(name) > 1 and name[1] == ":"
    return posix.is_absolute() or has_drive or ".." in posix.parts
