"""Names of files: which are images, how a message shows them, and the ids that are made of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from fer.data.images import suffixes

LEFT_THERE = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
MAX_ID_BYTES = 120
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""File names that mean a device on Windows, with any suffix."""


def is_hidden(name: str) -> bool:
    """True if some part of a path is a leftover of an operating system."""
    return any(part.startswith(".") or part in LEFT_THERE for part in PurePosixPath(name).parts)


def is_image(name: str) -> bool:
    """True if the file name ends like that of an image, of any format that Pillow reads."""
    return PurePosixPath(name).suffix.lower() in suffixes()


def composed(name: str) -> str:
    """``name`` with accents in their composed form: one file system stores é as two characters."""
    return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    r"""``name`` for a message: bytes of a file name that are not UTF-8 cannot be printed.

    >>> shown("caf\udce9.jpg")
    'caf\\udce9.jpg'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def sha256_of_name(name: str) -> str:
    """Hex SHA-256 of a name, whatever its bytes."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


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
    digest = sha256_of_name(composed(text))[:16]
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
        safe_id(f"{sha256_of_name(composed(name))[:16]}_{path.stem}")
        for name, path in zip(names, paths, strict=True)
    ]


def by_suffix(names: Sequence[str]) -> str:
    """Counts of some files by suffix, and the first of them.

    >>> by_suffix(["a/notes.txt", "b/README", "c/more.TXT"])
    '2 .txt, 1 without a suffix; the first: a/notes.txt'
    """
    counts = Counter(PurePosixPath(name).suffix.lower() for name in names)
    kinds = [f"{count:,} {end or 'without a suffix'}" for end, count in counts.most_common(8)]
    return shown(f"{', '.join(kinds)}; the first: {names[0]}")


def warn_of(names: Sequence[str], what: str) -> list[str]:
    """A warning that files were left out, if there are any; ``what`` begins ``files …``."""
    return [f"{len(names):,} {what} and were left out ({by_suffix(names)})."] if names else []
