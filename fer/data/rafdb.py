"""Reader of RAF-DB (basic emotions) in both of its public layouts.

RAF-DB (Li, Deng & Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
Recognition in the Wild", CVPR 2017) is 15,339 faces, aligned to 100 x 100 RGB. Its labels run from
1 to 7 in an order of its own and are mapped into the schema by name. There is no official
validation split: one is held out of train, stratified and seeded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fer.data.raw import (
    FolderSource,
    HoldOut,
    RawDataset,
    Record,
    check_classes,
    is_image,
    list_files,
)
from fer.errors import DataError

CODES: dict[str, str] = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happy",
    "5": "sad",
    "6": "angry",
    "7": "neutral",
}
"""RAF-DB's codes, as its readme defines them."""
LIST_FILE = "EmoLabel/list_patition_label.txt"  # the misspelling is the authors'
OFFICIAL_COUNTS: dict[str, dict[str, int]] = {
    split: {CODES[str(code)]: count for code, count in enumerate(counts, start=1)}
    for split, counts in {
        "train": (1290, 281, 717, 4772, 1982, 705, 2524),
        "test": (329, 74, 160, 1185, 478, 162, 680),
    }.items()
}
"""Images per official split; ``train`` is what train and val add up to here."""

HOW_TO_OBTAIN = """\
How to obtain RAF-DB: its terms do not allow passing it on. Ask its authors for access at
http://www.whdeld.cn/RAF/model1.html (academic use), unpack what they send, and pass the folder
that holds EmoLabel/ and Image/ (or the mirror's DATASET/): dataset.raw=PATH"""


@dataclass(frozen=True)
class RAFDBReader(HoldOut):
    """Lists a RAF-DB copy: the authors' ``basic/`` tree, or the mirror's ``DATASET/`` tree.

    Validation is held out of the official train split.
    """

    official_counts = OFFICIAL_COUNTS
    how_to_obtain = HOW_TO_OBTAIN

    def find(self, folder: Path) -> Path | None:
        """The raw data in ``folder`` or one level below."""
        if not folder.is_dir():
            return None
        for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
            if (place / LIST_FILE).is_file() or (place / "DATASET").is_dir():
                return place
        return None

    def list(self, raw: Path) -> RawDataset:
        """List the copy at ``raw`` without decoding it.

        Raises:
            DataError: ``raw`` is neither layout, or something in it is malformed.
        """
        if raw.is_file():
            raise DataError(
                f"{raw}: expected the unpacked folder of RAF-DB, found a file. Unpack it and pass "
                "the folder that holds EmoLabel/ and Image/, or DATASET/: dataset.raw=PATH"
            )
        root = self.find(raw)
        if root is None and (raw / "train").is_dir() and (raw / "test").is_dir():
            root = raw  # DATASET itself
        if root is None:
            raise DataError(
                f"{raw}: expected RAF-DB: {LIST_FILE} with Image/aligned/ beside it, or "
                "DATASET/train/<1..7>/ and DATASET/test/<1..7>/. Found neither. Pass the folder "
                "that holds one of them: dataset.raw=PATH"
            )
        if (root / LIST_FILE).is_file():
            form, placed = "authors' tree, aligned images", list_authors(root)
        else:
            form, placed = "mirror's tree, aligned images", list_mirror(root)
        emotions = {name: emotion for name, emotion, _, _ in placed}
        train = [name for name, _, split, _ in placed if split == "train"]
        held_out = self.choose(train, emotions)
        records = [
            Record(name, emotion, "val" if name in held_out else split, location, location)
            for name, emotion, split, location in placed
        ]
        check_classes(raw, [(record.split, record.emotion) for record in records])
        return RawDataset(FolderSource(root, "RGB"), form, records, official_protocol=True)


def emotion_of(code: str, where: str) -> str:
    """The schema's name of RAF-DB's code 1–7."""
    if code not in CODES:
        raise DataError(
            f"{where}: expected a label from 1 to 7, found {code!r}. "
            "Correct or remove it, or obtain the file again."
        )
    return CODES[code]


def split_of(name: str, where: str) -> str:
    """``train`` or ``test``, from an image's name."""
    match = re.match(r"(train|test)_", name)
    if match is None:
        raise DataError(
            f"{where}: expected an image name that starts with train_ or test_, found {name!r}. "
            "Correct or remove it, or obtain the file again."
        )
    return match[1]


def list_authors(root: Path) -> list[tuple[str, str, str, str]]:
    """(id, emotion, split, file below root) of each line of the authors' label list."""
    path = root / LIST_FILE
    placed: dict[str, tuple[str, str, str, str]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: expected a list of images as UTF-8 text, found: {error}. Obtain it again."
        ) from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}: line {number}"
        if len(words) != 2:
            raise DataError(
                f"{where}: expected an image name and a label, such as 'train_00001.jpg 5', "
                f"found {line.strip()!r}. Correct or remove the line."
            )
        stem = PurePosixPath(words[0]).stem
        if stem in placed:
            raise DataError(
                f"{where}: expected each image once, found {stem!r} again. Remove one of the lines."
            )
        location = f"Image/aligned/{stem}_aligned.jpg"
        if not (root / location).is_file():
            raise DataError(
                f"{where}: expected the image {root / location}, found no such file. "
                "Unpack aligned.zip into Image/aligned/."
            )
        placed[stem] = (stem, emotion_of(words[1], where), split_of(stem, where), location)
    return list(placed.values())


def list_mirror(root: Path) -> list[tuple[str, str, str, str]]:
    """(id, emotion, split, file below root) of each image of the mirror's class folders."""
    placed = []
    for location in list_files(root):
        parts = PurePosixPath(location).parts
        if len(parts) < 3 or parts[-3] not in ("train", "test") or not is_image(location):
            continue
        where = f"{root / location}"
        emotion = emotion_of(parts[-2], where)
        split = split_of(parts[-1], where)
        if split != parts[-3]:
            raise DataError(
                f"{where}: expected an image of {parts[-3]!r} in this folder, found one of "
                f"{split!r}. The copy was rearranged; obtain it again."
            )
        stem = PurePosixPath(parts[-1]).stem.removesuffix("_aligned")
        placed.append((stem, emotion, split, location))
    check_unique(root, [name for name, _, _, _ in placed])
    return placed


def check_unique(root: Path, names: Sequence[str]) -> None:
    """Refuse the same image in two class folders."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"{root}: expected each image in one class folder, found {name!r} in two. "
                "Remove one of them."
            )
        seen.add(name)
