"""Reader of RAF-DB (basic emotions) in both of its public layouts.

RAF-DB (Li, Deng & Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
Recognition in the Wild", CVPR 2017) is 15,339 faces. Its authors distribute them aligned to
100 x 100 RGB and, beside that, as the original photographs with a bounding box, five landmarks and
three attributes for each; the usual mirror has the aligned images alone. The labels run from 1 to
7 in an order of RAF-DB's own and are mapped into the schema by name. There is no official
validation split: one is held out of train, stratified and seeded, and is the same in every form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fer.core import options
from fer.core.errors import ConfigError, DataError
from fer.data.readers.annotations import (
    among,
    contents,
    index_files,
    packed,
    read_boxes,
    read_manual,
)
from fer.data.readers.base import LATER, HoldOut, RawDataset, Record
from fer.data.readers.label_tables import Item, read_rows
from fer.data.readers.names import is_hidden, is_image, safe_id, warn_of
from fer.data.readers.originals import ALIGNED_SIDE, OriginalSource
from fer.data.readers.sources import FolderSource, list_files, read_text

CODED = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
CODES = {str(code): emotion for code, emotion in enumerate(CODED, start=1)}
"""RAF-DB's codes, as its readme defines them."""
LIST_FILE = "EmoLabel/list_patition_label.txt"  # the misspelling is the authors'
ALIGNED, ORIGINAL = "Image/aligned", "Image/original"
BOXES, MANUAL = "Annotation/boundingbox", "Annotation/manual"
MIRROR = "DATASET"
TABLES = {"train_labels.csv": "train", "test_labels.csv": "test"}
OFFICIAL_COUNTS: dict[str, dict[str, int]] = {
    split: dict(zip(CODED, counts, strict=True))
    for split, counts in {
        "train": (1290, 281, 717, 4772, 1982, 705, 2524),
        "test": (329, 74, 160, 1185, 478, 162, 680),
    }.items()
}
"""Images per official split; ``train`` is what train and val add up to here."""

IMAGES = ("auto", "aligned", "original")
MARGIN = options.number("a share of the face's size from 0 to 1", lambda value: 0 <= value <= 1)
HOW_TO_OBTAIN = """\
How to obtain RAF-DB: its terms do not allow passing it on. Ask its authors for access at
http://www.whdeld.cn/RAF/model1.html (academic use), unpack what they send, and pass the folder
that holds EmoLabel/ and Image/ (or the mirror's DATASET/): dataset.raw=PATH"""
RENAMED = (
    "If this is RAF-DB with other file or folder names, read it as plain class folders: "
    "dataset=folder 'dataset.synonyms={"
    + ", ".join(f"{code}: {emotion}" for code, emotion in CODES.items())
    + "}'"
)


@dataclass(frozen=True)
class RAFDBReader(HoldOut):
    """Lists a RAF-DB copy: the authors' ``basic/`` tree, or the mirror's ``DATASET/`` tree.

    Validation is held out of the official train split.

    Args:
        images: ``aligned``: the authors' aligned faces; ``original``: faces cut out of the
            original photographs; ``auto``: aligned where ``Image/aligned`` exists, else original.
        margin: how far the square that is cut out of an original reaches beyond the bounding box
            on each side, as a share (0–1) of the box's larger side. Unused with ``align_eyes``.
        align_eyes: turn, scale and move originals so that the eyes lie where those of aligned
            images do, instead of cutting out the bounding box.
        codes_from: the number that the labels begin with: 1, or 0 in copies that count from there,
            in the same order.

    Raises:
        ConfigError: a value is unknown or out of range, or aligned images are to be aligned.
    """

    images: str = "auto"
    margin: float = 0.1
    align_eyes: bool = False
    codes_from: int = field(default=1, metadata={LATER: True})

    official_counts = OFFICIAL_COUNTS
    expected_size = None  # aligned faces and cut-out ones differ
    how_to_obtain = HOW_TO_OBTAIN

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value, rule in (
            ("images", self.images, options.one_of(*IMAGES)),
            ("margin", self.margin, MARGIN),
            ("align_eyes", self.align_eyes, options.SWITCH),
            ("codes_from", self.codes_from, options.whole(0, 1)),
        ):
            options.check_value(f"dataset.reader.{key}", value, rule)
        if self.images == "aligned":
            self._refuse_aligning("the authors' aligned images")

    def _codes(self) -> dict[str, str]:
        """The emotion that each of the copy's labels means."""
        return {str(code): name for code, name in enumerate(CODED, self.codes_from)}

    def _refuse_aligning(self, found: str) -> None:
        if self.align_eyes:
            raise ConfigError(
                "dataset.reader.align_eyes: expected original images to align, found "
                f"{found}. Set dataset.reader.images=original, which needs {ORIGINAL}/ and "
                f"{MANUAL}/, or dataset.reader.align_eyes=false"
            )

    def find(self, folder: Path) -> Path | None:
        """The raw data in ``folder`` or one level below.

        Raises:
            DataError: ``folder`` cannot be read, or holds several copies.
        """
        if not folder.is_dir():
            return None
        try:
            if is_copy(folder):
                return folder
            # The authors' compound set lies beside basic/, in files of the same names.
            if is_copy(folder / "basic"):
                return folder / "basic"
            below = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
            copies = [path for path in below if is_copy(path)]
        except OSError as error:
            raise DataError(
                f"{error.filename}: expected a folder that can be read, found: "
                f"{error.strerror}. Check its permissions."
            ) from error
        if len(copies) > 1:
            raise DataError(
                f"{folder}: expected one copy of RAF-DB, found {len(copies)}: "
                f"{', '.join(path.name for path in copies)}. Pass the folder of one of them: "
                "dataset.raw=PATH"
            )
        return copies[0] if copies else None

    def list(self, raw: Path) -> RawDataset:
        """List the copy at ``raw``, in either layout.

        Raises:
            ConfigError: the copy has no images of the kind that the options ask for.
        """
        if raw.is_file():
            raise DataError(
                f"{raw}: expected the unpacked folder of RAF-DB, found a file. Unpack it and pass "
                "the folder that holds EmoLabel/ and Image/, or DATASET/: dataset.raw=PATH"
            )
        root = self.find(raw)
        if root is None and any((raw / split).is_dir() for split in OFFICIAL_COUNTS):
            root = raw  # DATASET itself, without one of its halves
        if root is None:
            raise DataError(
                f"{raw}: expected RAF-DB: {LIST_FILE} with {ALIGNED}/ or {ORIGINAL}/ beside it, or "
                f"DATASET/train/<1..7>/ and DATASET/test/<1..7>/. Found {contents(raw)}. Unpack "
                "what is still packed, and pass the folder that holds one of them: "
                "dataset.raw=PATH"
            )
        if not (root / LIST_FILE).is_file():
            if self.images == "original":
                raise ConfigError(
                    "dataset.reader.images: expected auto or aligned for the mirror's layout, "
                    f"found 'original'. {root} holds no original photographs; they come with the "
                    "authors' own files."
                )
            self._refuse_aligning("the mirror's layout, whose images are aligned")
            dataset = list_mirror(root, self._codes())
        elif (root / MIRROR).is_dir():
            raise DataError(
                f"{root}: expected one copy of RAF-DB, found both layouts: {LIST_FILE} and "
                f"{MIRROR}/. Move one of them elsewhere, or pass {root / MIRROR}: dataset.raw=PATH"
            )
        else:
            dataset = self._list_authors(root)
        dataset.records = list(self.hold_out(dataset.records))
        return dataset

    def _list_authors(self, root: Path) -> RawDataset:
        """List the authors' tree below ``root``."""
        original = self._wants_originals(root)
        folder, ending = (ORIGINAL, "") if original else (ALIGNED, "_aligned")
        labelled = read_label_list(root / LIST_FILE, self._codes())
        stems = [label.stem for label in labelled]
        images, warnings = index_images(root, folder)
        missing = [label for label in labelled if safe_id(label.stem + ending) not in images]
        if missing:
            first = missing[0]
            raise DataError(
                f"{root / LIST_FILE}: line {first.line}: expected the image "
                f"{root / folder / first.stem}{ending}.jpg, found no such file"
                f"{among(missing, labelled, 'listed images are missing')}. "
                f"Unpack {PurePosixPath(folder).name}.zip into {folder}/ completely, or remove "
                "the line."
            )
        manual, some_missing = read_manual(root, MANUAL, stems, strict=self.align_eyes)
        cut_out = original and not self.align_eyes
        boxes = read_boxes(root, BOXES, stems) if cut_out else {}
        records = []
        for label in labelled:
            image = images[safe_id(label.stem + ending)]
            file, landmarks, attributes = manual.get(label.stem, ("", (), ("", "", "")))
            location: str | tuple[str | float, ...] = image
            if cut_out:
                location = (image, *boxes[label.stem])
            elif original:
                location = (image, file, *landmarks)
            records.append(
                Record(label.id, label.emotion, label.split, image, location, *attributes)
            )
        margin = self.margin if cut_out else None
        form = "aligned images"
        if original:
            form = "original images with the eyes aligned"
        if cut_out:
            form = f"original images cut out by their boxes (margin {self.margin})"
        return RawDataset(
            OriginalSource(root, "RGB", margin) if original else FolderSource(root, "RGB"),
            f"authors' tree, {form}",
            records,
            official_protocol=True,
            warnings=[*warnings, *some_missing],
            excluded={
                f"{LIST_FILE} has no line for these images of {folder}/": len(images) - len(records)
            },
            expected_size=None if cut_out else ALIGNED_SIDE,
        )

    def _wants_originals(self, root: Path) -> bool:
        """True if the originals below ``root`` are to be read."""
        aligned, original = (root / ALIGNED).is_dir(), (root / ORIGINAL).is_dir()
        wanted = self.images == "original" or (self.images == "auto" and original and not aligned)
        if not wanted:
            self._refuse_aligning(f"the aligned images of {root / ALIGNED}")
        if original if wanted else aligned:
            return wanted
        here, there = (ORIGINAL, ALIGNED) if wanted else (ALIGNED, ORIGINAL)
        other = PurePosixPath(there).name
        raise DataError(
            f"{root / here}: expected a folder of images, found none"
            f"{packed(root, here)}. Unpack {PurePosixPath(here).name}.zip there"
            + (f", or read {there}/: dataset.reader.images={other}" if aligned or original else ".")
        )


def is_copy(folder: Path) -> bool:
    """True if ``folder`` holds RAF-DB in one of its layouts."""
    return (
        (folder / LIST_FILE).is_file()
        or (folder / MIRROR).is_dir()
        or all((folder / split).is_dir() for split in OFFICIAL_COUNTS)
    )


def emotion_of(code: str, where: str, advice: str, codes: Mapping[str, str]) -> str:
    """The schema's name of one of ``codes``."""
    if code not in codes:
        if code == "0":
            advice += " If the copy counts its labels from 0: dataset.reader.codes_from=0"
        raise DataError(
            f"{where}: expected a label from {min(codes)} to {max(codes)}, found {code[:40]!r}. "
            f"{advice}"
        )
    return codes[code]


def split_of(name: str, where: str, advice: str) -> str:
    """``train`` or ``test``, from an image's name."""
    match = re.match(r"(train|test)_", name)
    if match is None:
        raise DataError(
            f"{where}: expected an image name that starts with train_ or test_, found "
            f"{name[:200]!r}. {advice}"
        )
    return match[1]


def index_images(root: Path, folder: str) -> tuple[dict[str, str], list[str]]:
    """Images below ``root/folder`` by id, and a warning about files that are not images.

    Raises:
        DataError: there is no image, or two have one name.
    """
    images: dict[str, str] = {}
    others: list[str] = []
    for name, files in index_files(root, folder).items():
        pictures = list(filter(is_image, files))
        others += [file for file in files if file not in pictures]
        if len(pictures) > 1:
            raise DataError(
                f"{root}: expected each image once, found {pictures[0]!r} and {pictures[1]!r}. "
                "Remove one of them."
            )
        if pictures:
            images[name] = pictures[0]
    if not images:
        raise DataError(
            f"{root / folder}: expected images (JPEG, PNG, …), found {contents(root / folder)}"
            f"{packed(root, folder)}. Unpack {PurePosixPath(folder).name}.zip there."
        )
    return images, warn_of(others, f"files below {root / folder} are not images")


# --- the authors' text files -----------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """A line of the label list."""

    line: int
    id: str
    stem: str
    emotion: str
    split: str


def read_label_list(path: Path, codes: Mapping[str, str] = CODES) -> list[Label]:
    """The lines of the authors' label list.

    Raises:
        DataError: a line is malformed or names an image again, or there is none.
    """
    advice = "Correct or remove the line, or obtain the file again."
    compound = "RAF-DB's compound set has the labels 1 to 11; pass the basic set: dataset.raw=PATH"
    labelled: dict[str, Label] = {}
    for number, line in enumerate(read_text(path, "a list of images").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}: line {number}"
        if len(words) != 2:
            raise DataError(
                f"{where}: expected an image name and a label, such as 'train_00001.jpg 5', "
                f"found {line.strip()[:200]!r}. {advice}"
            )
        name, code = words
        if PurePosixPath(name).name != name or not is_image(name):
            raise DataError(
                f"{where}: expected the name of an image file, such as 'train_00001.jpg', found "
                f"{name[:200]!r}. {advice}"
            )
        stem = PurePosixPath(name).stem
        beyond = compound if code in ("8", "9", "10", "11") else advice
        emotion = emotion_of(code, where, beyond, codes)
        label = Label(number, safe_id(stem), stem, emotion, split_of(stem, where, advice))
        earlier = labelled.setdefault(label.id, label)
        if earlier is not label:
            raise DataError(
                f"{where}: expected each image once, found {stem!r} again: {label.emotion!r} here, "
                f"{earlier.emotion!r} in line {earlier.line}. Remove one of the lines."
            )
    if not labelled:
        raise DataError(
            f"{path}: expected a line for each image, such as 'train_00001.jpg 5', found none. "
            "Obtain the file again."
        )
    return list(labelled.values())


# --- the mirror ------------------------------------------------------------------------------


def list_mirror(root: Path, codes: Mapping[str, str] = CODES) -> RawDataset:
    """List the mirror's class folders in ``root/DATASET``, or in ``root`` if that is DATASET.

    Its tables of labels are checked against the folders where they are there; the folders count.

    Raises:
        DataError: a folder or file is not what its place says, or disagrees with a table.
    """
    base = root / MIRROR if (root / MIRROR).is_dir() else root
    absent = [split for split in OFFICIAL_COUNTS if not (base / split).is_dir()]
    if absent:
        raise DataError(
            f"{base}: expected the folders train and test with 1 to 7 in each, found no "
            f"{' and no '.join(absent)} but {contents(base)}. Unpack the archive completely, and "
            "pass the folder that holds DATASET/: dataset.raw=PATH"
        )
    records: dict[str, Record] = {}
    misplaced = 0
    others = []
    for name in list_files(base):
        parts = PurePosixPath(name).parts
        if not is_image(name):
            if name not in TABLES:
                others.append(name)
            continue
        if len(parts) != 3 or parts[0] not in OFFICIAL_COUNTS:
            misplaced += 1
            continue
        folder, code, file = parts
        where = str(base / name)
        emotion = emotion_of(code, f"{base / folder / code}: folder", RENAMED, codes)
        split = split_of(file, where, RENAMED)
        if split != folder:
            raise DataError(
                f"{where}: expected an image of {folder!r} in this folder, found one of "
                f"{split!r}. The copy was rearranged; obtain it again."
            )
        location = (base / name).relative_to(root).as_posix()
        record = Record(mirror_id(file), emotion, split, location, location)
        earlier = records.setdefault(record.id, record)
        if earlier is not record:
            raise DataError(
                f"{root}: expected each image once, found {record.id!r} in two files: "
                f"{earlier.source!r} and {location!r}. Remove one of them."
            )
    tables = []
    for place in dict.fromkeys((root, base)):
        for file, split in TABLES.items():
            if (place / file).exists():
                placed = {r.id: r for r in records.values() if r.split == split}
                check_table(place / file, split, placed, codes)
                tables.append((place / file).relative_to(root).as_posix())
    labels = f", labels as in {' and '.join(tables)}" if tables else ""
    return RawDataset(
        FolderSource(root, "RGB"),
        f"mirror's tree, aligned images{labels}",
        list(records.values()),
        official_protocol=True,
        warnings=warn_of(others, f"files below {base} are not images"),
        excluded={"they lie outside DATASET/train/<1..7>/ and DATASET/test/<1..7>/": misplaced},
        expected_size=ALIGNED_SIDE,
    )


def mirror_id(file: str) -> str:
    """The id of one of the mirror's files: the same as in the authors' tree."""
    return safe_id(PurePosixPath(file).stem.removesuffix("_aligned"))


def check_table(
    path: Path, split: str, records: Mapping[str, Record], codes: Mapping[str, str]
) -> None:
    """Refuse a table of labels (``image,label``) that does not agree with the folders.

    ``records`` are the split's images by id.

    Raises:
        DataError: the table is malformed, names another label than the folder, or lacks an image.
    """
    advice = "Correct or remove the row, or obtain the copy again."
    rows: dict[str, Item] = {}
    data = FolderSource(path.parent).read_bytes(path.name)
    for row in read_rows(path, data, known=("image", "label")):
        emotion = emotion_of(row.label, row.where, advice, codes)
        name = mirror_id(row.image)
        record = records.get(name)
        if record is None:
            raise DataError(
                f"{row.where}: expected an image below {split}/, found no file for "
                f"{row.image[:200]!r}. {advice}"
            )
        earlier = rows.setdefault(name, row)
        if earlier is not row:
            raise DataError(
                f"{row.where}: expected each image once, found {row.image[:200]!r} again, first in "
                f"row {earlier.row}. {advice}"
            )
        if record.emotion != emotion:
            raise DataError(
                f"{row.where}: expected {record.emotion!r}, as the folder of {record.source} says, "
                f"found {emotion!r} (label {row.label}). One of the two is wrong; obtain the copy "
                "again."
            )
    absent = [record for name, record in records.items() if name not in rows]
    if absent:
        raise DataError(
            f"{path}: expected a row for each image, found none for {absent[0].source}"
            f"{among(absent, list(records), 'images have none')}. Obtain the table again, remove "
            "the image, or move the table elsewhere: the folders then count alone."
        )
