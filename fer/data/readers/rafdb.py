"""Reader of RAF-DB (basic emotions) in both of its public layouts.

RAF-DB (Li, Deng & Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
Recognition in the Wild", CVPR 2017) is 15,339 faces. Its authors distribute them aligned to
100 x 100 RGB and, beside that, as the original photographs with a bounding box, five landmarks and
three attributes for each; the usual mirror has the aligned images alone. The labels run from 1 to
7 in an order of RAF-DB's own and are mapped into the schema by name. There is no official
validation split: one is held out of train, stratified and seeded, and is the same in every form.

Coordinates of boxes and landmarks refer to the pixels as the file stores them, x to the right and
y down; pixel i covers i to i + 1. A photograph whose EXIF orientation says that it is to be turned
is turned, and its box or landmarks with it.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import ExifTags, Image

from fer.core import options
from fer.core.errors import ConfigError, DataError
from fer.data.images import MAX_PIXELS
from fer.data.readers.base import (
    LATER,
    FolderSource,
    HoldOut,
    RawDataset,
    Record,
    by_suffix,
    is_hidden,
    is_image,
    list_files,
    safe_id,
)

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
GENDERS = {"0": "male", "1": "female", "2": "unsure"}
RACES = {"0": "Caucasian", "1": "African-American", "2": "Asian"}
AGES = {"0": "0-3", "1": "4-19", "2": "20-39", "3": "40-69", "4": "70+"}
"""Codes of the attributes, as the readme defines them; ages are in years."""

LIST_FILE = "EmoLabel/list_patition_label.txt"  # the misspelling is the authors'
ALIGNED, ORIGINAL = "Image/aligned", "Image/original"
BOXES, MANUAL = "Annotation/boundingbox", "Annotation/manual"
MIRROR = "DATASET"
TABLES = {"train_labels.csv": "train", "test_labels.csv": "test"}
OFFICIAL_COUNTS: dict[str, dict[str, int]] = {
    split: {CODES[str(code)]: count for code, count in enumerate(counts, start=1)}
    for split, counts in {
        "train": (1290, 281, 717, 4772, 1982, 705, 2524),
        "test": (329, 74, 160, 1185, 478, 162, 680),
    }.items()
}
"""Images per official split; ``train`` is what train and val add up to here."""

ALIGNED_SIDE = 100
EYES = ((34.0, 38.0), (66.0, 38.0))
"""Where ``align_eyes`` puts the eyes in its 100 x 100 pixels.

A chin lies about 1.8 eye distances below the eyes: 32 pixels between the eyes leave the picture
from the hairline to the chin, so that brows and an open mouth are in it.
"""
MAX_OVERSAMPLING = 32
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
        align_eyes: turn, scale and move originals so that the eyes lie at :data:`EYES`, instead
            of cutting out the bounding box.
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
        """What the copy's labels mean."""
        return {str(code): name for code, name in enumerate(CODES.values(), self.codes_from)}

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
        """List the copy at ``raw`` without decoding it.

        Raises:
            DataError: ``raw`` is neither layout, or something in it is malformed.
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
        train = {r.id: r.emotion for r in dataset.records if r.split == "train"}
        held_out = self.choose(train, train)
        dataset.records = [
            replace(record, split="val") if record.id in held_out else record
            for record in dataset.records
        ]
        return dataset

    def _list_authors(self, root: Path) -> RawDataset:
        """List the authors' tree below ``root``."""
        original = self._wants_originals(root)
        folder, ending = (ORIGINAL, "") if original else (ALIGNED, "_aligned")
        labelled = read_label_list(root / LIST_FILE, self._codes())
        images, warnings = index_images(root, folder)
        found = {label.stem: images.get(safe_id(label.stem + ending)) for label in labelled}
        missing = [label for label in labelled if found[label.stem] is None]
        if missing:
            first = missing[0]
            raise DataError(
                f"{root / LIST_FILE}: line {first.line}: expected the image "
                f"{root / folder / first.stem}{ending}.jpg, found no such file"
                f"{among(missing, labelled, 'listed images are missing')}. "
                f"Unpack {PurePosixPath(folder).name}.zip into {folder}/ completely, or remove "
                "the line."
            )
        manual = read_manual(root, [label.stem for label in labelled], strict=self.align_eyes)
        warnings += manual.warnings
        boxes: dict[str, tuple[str, Sequence[float]]] = {}
        if original and not self.align_eyes:
            boxes = read_boxes(root, [label.stem for label in labelled])
        records = []
        for label in labelled:
            image = found[label.stem]
            assert image is not None
            location: str | tuple[str | float, ...] = image
            if original:
                file, numbers = (manual.landmarks if self.align_eyes else boxes)[label.stem]
                location = (image, file, *numbers)
            attributes = manual.attributes.get(label.stem, ("", "", ""))
            records.append(
                Record(label.id, label.emotion, label.split, image, location, *attributes)
            )
        source = FolderSource(root, "RGB")
        form = "authors' tree, aligned images"
        if self.align_eyes:
            source = OriginalSource(root, "RGB", None)
            form = "authors' tree, original images with the eyes aligned"
        elif original:
            source = OriginalSource(root, "RGB", self.margin)
            form = f"authors' tree, original images cut out by their boxes (margin {self.margin})"
        return RawDataset(
            source,
            form,
            records,
            official_protocol=True,
            warnings=warnings,
            excluded=counted(
                f"{LIST_FILE} has no line for these images of {folder}/",
                len(images) - len(records),
            ),
            expected_size=None if original and not self.align_eyes else ALIGNED_SIDE,
        )

    def _wants_originals(self, root: Path) -> bool:
        """Whether to read the originals below ``root``."""
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
    """Whether ``folder`` holds RAF-DB in one of its layouts."""
    return (
        (folder / LIST_FILE).is_file()
        or (folder / MIRROR).is_dir()
        or all((folder / split).is_dir() for split in OFFICIAL_COUNTS)
    )


def contents(folder: Path) -> str:
    """What is in a folder, in words."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) + more) or "an empty folder"


def packed(root: Path, folder: str) -> str:
    """A remark if the archive of ``folder`` still lies beside it."""
    place = root / folder
    archives = sorted(place.parent.glob(f"{place.name}.*"))
    return f" (but {archives[0].name} beside it)" if archives else ""


def among(some: Sequence[object], every: Sequence[object], what: str) -> str:
    """``" (3 of 70 listed images are missing)"``, or nothing if it is one."""
    return f" ({len(some):,} of {len(every):,} {what})" if len(some) > 1 else ""


def counted(reason: str, count: int) -> dict[str, int]:
    """An entry of :attr:`RawDataset.excluded`, or none."""
    return {reason: count} if count else {}


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


def index_files(root: Path, folder: str) -> dict[str, list[str]]:
    """Files below ``root/folder`` by their name without suffix, as an id.

    Returns:
        id → files below ``root``, usually one; nothing if the folder is not there.
    """
    found: dict[str, list[str]] = {}
    if (root / folder).is_dir():
        for name in list_files(root / folder):
            found.setdefault(safe_id(PurePosixPath(name).stem), []).append(f"{folder}/{name}")
    return found


def index_images(root: Path, folder: str) -> tuple[dict[str, str], list[str]]:
    """Images below ``root/folder`` by id, and warnings about what is no image.

    Raises:
        DataError: there is no image, or two have one name.
    """
    images: dict[str, str] = {}
    others: list[str] = []
    for name, files in index_files(root, folder).items():
        pictures = [file for file in files if is_image(file)]
        others += [file for file in files if not is_image(file)]
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
    return images, warn_of_others(others, root / folder)


def warn_of_others(names: Sequence[str], folder: Path) -> list[str]:
    """A warning about files among the images that are none, if there are any."""
    if not names:
        return []
    return [
        f"{len(names):,} files below {folder} are no images and were left out ({by_suffix(names)})."
    ]


# --- the authors' text files -----------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """A line of the label list."""

    line: int
    id: str
    stem: str
    emotion: str
    split: str


def read_text(path: Path, what: str) -> str:
    """A text file, with or without a byte-order mark.

    Raises:
        DataError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: expected {what}, found: {error.strerror}. Check the copy."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected {what} as UTF-8 text, found another encoding ({error}). "
            "Save it as UTF-8, or obtain it again."
        ) from error


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


def parse_numbers(words: Sequence[str], where: str) -> list[float]:
    """Finite numbers.

    Raises:
        DataError: a word is none.
    """
    numbers = []
    for word in words:
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DataError(
                f"{where}: expected coordinates in pixels, found {word[:40]!r}. "
                "Correct the file, or obtain it again."
            )
        numbers.append(number)
    return numbers


def read_boxes(root: Path, stems: Sequence[str]) -> dict[str, tuple[str, Sequence[float]]]:
    """File below ``root`` and x1, y1, x2, y2 in pixels of each image's bounding box.

    Raises:
        DataError: a file is missing, or holds no box.
    """
    files = index_files(root, BOXES)
    paths = {stem: files.get(safe_id(f"{stem}_boundingbox"), [""])[0] for stem in stems}
    missing = [stem for stem in stems if not paths[stem]]
    if missing:
        raise DataError(
            f"{root / BOXES}: expected the bounding box of each original image, found no "
            f"{missing[0]}_boundingbox.txt{among(missing, stems, 'files are missing')}"
            f"{packed(root, BOXES)}. Unpack boundingbox.zip there completely, or read the aligned "
            "images: dataset.reader.images=aligned"
        )
    boxes: dict[str, tuple[str, Sequence[float]]] = {}
    for stem in stems:
        where = str(root / paths[stem])
        words = read_text(root / paths[stem], "a bounding box").split()
        if len(words) != 4:
            raise DataError(
                f"{where}: expected four numbers (x1 y1 x2 y2), found {len(words)}. "
                "Correct the file, or obtain it again."
            )
        x1, y1, x2, y2 = parse_numbers(words, where)
        if x1 >= x2 or y1 >= y2:
            raise DataError(
                f"{where}: expected a box with x1 < x2 and y1 < y2, found an empty one: "
                f"{' '.join(words)}. Correct the file, or obtain it again."
            )
        boxes[stem] = (paths[stem], (x1, y1, x2, y2))
    return boxes


@dataclass(frozen=True)
class Manual:
    """What the annotators noted, by image; without an entry where they did not."""

    landmarks: dict[str, tuple[str, Sequence[float]]]
    """File below the root, and x, y of each of the five landmarks."""
    attributes: dict[str, tuple[str, str, str]]
    """Gender, race and age in words."""
    warnings: list[str]


def read_manual(root: Path, stems: Sequence[str], *, strict: bool) -> Manual:
    """Read the annotators' files below ``root``.

    Attributes are a help, not a condition: an image whose file is missing or malformed is kept
    without them, and the warnings say how many there are.

    Args:
        root: of the authors' tree.
        stems: of the images.
        strict: whether the landmarks are needed, so that every file has to be there and right.

    Raises:
        DataError: ``strict``, and a file is missing or malformed.
    """
    files = index_files(root, MANUAL)
    manual = Manual({}, {}, [])
    missing: list[str] = []
    malformed: list[DataError] = []
    for stem in stems:
        name = f"{stem}_manu_attri"
        file = files.get(safe_id(name), [""])[0]
        if not file:
            missing.append(name)
            continue
        try:
            landmarks, attributes = read_manual_file(root / file)
        except DataError as error:
            if strict:
                raise
            malformed.append(error)
            continue
        manual.landmarks[stem] = (file, landmarks)
        manual.attributes[stem] = attributes
    if missing and strict:
        raise DataError(
            f"{root / MANUAL}: expected the landmarks of each original image, found no "
            f"{missing[0]}.txt{among(missing, stems, 'files are missing')}{packed(root, MANUAL)}. "
            "Unpack manual.zip there completely, or cut out the bounding boxes: "
            "dataset.reader.align_eyes=false"
        )
    if missing and len(missing) < len(stems):
        manual.warnings.append(
            f"{len(missing):,} of {len(stems):,} images have no file in {MANUAL}/ (the first: "
            f"{missing[0]}.txt); their gender, race and age stay empty."
        )
    if malformed:
        manual.warnings.append(
            f"{len(malformed):,} of {len(stems):,} files in {MANUAL}/ were not used, and the "
            f"gender, race and age of their images stay empty. The first: {malformed[0]}"
        )
    return manual


def read_manual_file(path: Path) -> tuple[list[float], tuple[str, str, str]]:
    """Landmarks (x, y of five points) and gender, race, age of one image.

    Raises:
        DataError: the file is malformed.
    """
    words = read_text(path, "landmarks and attributes").split()
    if len(words) != 13:
        raise DataError(
            f"{path}: expected 13 numbers (five landmarks, gender, race, age), found {len(words)}. "
            "Correct the file, or obtain it again."
        )
    attributes = []
    for name, codes, word in zip(
        ("gender", "race", "age"), (GENDERS, RACES, AGES), words[10:], strict=True
    ):
        if word not in codes:
            raise DataError(
                f"{path}: expected a code from 0 to {len(codes) - 1} for {name}, found "
                f"{word[:40]!r}. Correct the file, or obtain it again."
            )
        attributes.append(codes[word])
    gender, race, age = attributes
    return parse_numbers(words[:10], str(path)), (gender, race, age)


# --- faces of the original photographs -------------------------------------------------------

TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""EXIF orientation → swap x and y, then mirror x, then mirror y (Exif 2.32, tag 274)."""


@dataclass
class OriginalSource(FolderSource):
    """Faces of original photographs.

    A record's location is (image below path, annotation file below path, x, y, x, y, …): two
    corners of the box, or five landmarks if there is no margin.
    """

    margin: float | None = None
    """What is cut out beyond the box, as a share of its larger side; None: align the eyes."""

    def read(self, record: Record) -> np.ndarray:
        assert isinstance(record.location, tuple)
        name, annotation, *numbers = record.location
        image = super().read(replace(record, location=name))
        with Image.open(self.path / name) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        points = turn(np.reshape(numbers, (-1, 2)).astype(np.float64), orientation, image.shape)
        where = str(self.path / annotation)
        if self.margin is None:
            return align_face(image, points, where)
        return crop_face(image, points, self.margin, where)


def turn(points: np.ndarray, orientation: int, shape: Sequence[int]) -> np.ndarray:
    """Points of a stored image in the upright one.

    Args:
        points: ``(N, 2)`` x and y.
        orientation: EXIF's, 1–8; any other number means upright.
        shape: height and width of the upright image.

    >>> turn(np.array([[1.0, 0.0]]), 6, (4, 3))  # the top of a picture to turn clockwise
    array([[3., 1.]])
    """
    swap, mirror_x, mirror_y = TURNS.get(orientation, TURNS[1])
    x, y = points.T[::-1] if swap else points.T
    return np.stack([shape[1] - x if mirror_x else x, shape[0] - y if mirror_y else y], axis=1)


def crop_face(image: np.ndarray, corners: np.ndarray, margin: float, where: str) -> np.ndarray:
    """The square around a face.

    It has the box's centre and larger side: a network with a square input then sees the face
    undistorted. Where it reaches beyond the picture, the picture's border is repeated, which keeps
    the face's size and place. Pixels are copied, none is interpolated.

    Args:
        image: ``(H, W, 3)`` uint8.
        corners: ``(2, 2)`` x and y of two opposite corners of the box.
        margin: what is added on each side, as a share of the box's larger side.
        where: the box's file, for the message.

    Returns:
        ``(S, S, 3)`` uint8, S the side rounded to pixels and at least 1.

    Raises:
        DataError: the box lies outside the picture, or is too large to be a face.
    """
    height, width = image.shape[:2]
    (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise DataError(
            f"{where}: expected a box in the picture of {width} x {height} pixels, found one "
            f"outside it: {x1:g} {y1:g} {x2:g} {y2:g}. Correct the file, or obtain it again."
        )
    side = max(x2 - x1, y2 - y1) * (1 + 2 * margin)
    if side > math.sqrt(MAX_PIXELS):
        raise DataError(
            f"{where}: expected a box of at most {math.isqrt(MAX_PIXELS):,} pixels on each side "
            f"with its margin, found {side:,.0f}. Correct the file, or obtain it again."
        )
    count = max(1, round_half_up(side))
    left = round_half_up((x1 + x2 - count) / 2)
    top = round_half_up((y1 + y2 - count) / 2)
    rows = np.clip(np.arange(top, top + count), 0, height - 1)
    columns = np.clip(np.arange(left, left + count), 0, width - 1)
    return image[np.ix_(rows, columns)]


def round_half_up(value: float) -> int:
    """Unlike ``round``, which would place equal boxes differently at odd and even pixels."""
    return math.floor(value + 0.5)


def align_face(image: np.ndarray, landmarks: np.ndarray, where: str) -> np.ndarray:
    """The face turned, scaled and moved so that its eyes are level, at :data:`EYES`.

    Beyond the picture its border is repeated.

    Args:
        image: ``(H, W, 3)`` uint8.
        landmarks: ``(5, 2)`` x and y of the eyes, the tip of the nose, the mouth's corners.
        where: the landmarks' file, for the message.

    Returns:
        ``(100, 100, 3)`` uint8.

    Raises:
        DataError: the eyes lie outside the picture or in one place.
    """
    height, width = image.shape[:2]
    one, two = (complex(x, y) for x, y in landmarks[:2].tolist())
    inside = all(0 <= eye.real <= width and 0 <= eye.imag <= height for eye in (one, two))
    if not inside or abs(two - one) < 1:
        raise DataError(
            f"{where}: expected two eyes in the picture of {width} x {height} pixels, at least a "
            f"pixel apart, found {one.real:g} {one.imag:g} and {two.real:g} {two.imag:g}. "
            "Correct the file, or obtain it again."
        )
    # Left is the eye that leaves nose and mouth below the line of the eyes. So a face is upright
    # afterwards however far its head is turned, and whichever eye the annotators noted first.
    below = complex(*landmarks[2:].mean(axis=0).tolist())
    if ((two - one).conjugate() * (below - one)).imag < 0:
        one, two = two, one
    left, right = (complex(x, y) for x, y in EYES)
    # A similarity is z → scale·z + shift in complex numbers. A picture that shrinks is drawn
    # larger and averaged: bilinear interpolation alone would skip most of its pixels.
    scale = (right - left) / (two - one)
    oversampling = min(max(1, math.ceil(1 / abs(scale))), MAX_OVERSAMPLING)
    shift = (left - scale * one) * oversampling
    scale *= oversampling
    middle = complex(0.5, 0.5)  # OpenCV counts from the middle of the first pixel
    shift += scale * middle - middle
    matrix = np.array([[scale.real, -scale.imag, shift.real], [scale.imag, scale.real, shift.imag]])
    side = ALIGNED_SIDE * oversampling
    try:
        large = cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    except cv2.error as error:  # sides from 32,767 pixels
        raise DataError(
            f"{where}: expected a picture that OpenCV can turn, found one of {width} x {height} "
            "pixels. Make the picture smaller, and the landmarks with it."
        ) from error
    return cv2.resize(large, (ALIGNED_SIDE, ALIGNED_SIDE), interpolation=cv2.INTER_AREA)


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
    return RawDataset(
        FolderSource(root, "RGB"),
        "mirror's tree, aligned images"
        + (f", labels as in {' and '.join(tables)}" if tables else ""),
        list(records.values()),
        official_protocol=True,
        warnings=warn_of_others(others, base),
        excluded=counted(
            "they lie outside DATASET/train/<1..7>/ and DATASET/test/<1..7>/", misplaced
        ),
        expected_size=ALIGNED_SIDE,
    )


def mirror_id(file: str) -> str:
    """The id of one of the mirror's files: the same as in the authors' tree."""
    return safe_id(PurePosixPath(file).stem.removesuffix("_aligned"))


def check_table(
    path: Path, split: str, records: Mapping[str, Record], codes: Mapping[str, str]
) -> None:
    """Refuse a table of labels (``image,label``) that does not agree with the folders.

    Args:
        path: of the table.
        split: that it lists.
        records: the split's images by id.
        codes: what its labels mean.

    Raises:
        DataError: the table is malformed, names another label than the folder, or lacks an image.
    """
    advice = "Correct or remove the row, or obtain the copy again."
    rows = csv.reader(io.StringIO(read_text(path, "a table of labels"), newline=""))
    lines: dict[str, int] = {}  # of each image
    try:
        header = [cell.strip().lower() for cell in next(rows, [])]
        if header.count("image") != 1 or header.count("label") != 1:
            raise DataError(
                f"{path}: expected the columns image and label, found "
                f"{', '.join(header)[:80] or 'none'}. Obtain the table again, or move it "
                "elsewhere: the folders then count alone."
            )
        image_at, label_at = header.index("image"), header.index("label")
        for row in rows:
            if not row:
                continue
            where = f"{path}: line {rows.line_num}"
            if len(row) != len(header):
                raise DataError(
                    f"{where}: expected {len(header)} columns, found {len(row)}. {advice}"
                )
            file = row[image_at].strip()
            emotion = emotion_of(row[label_at].strip(), where, advice, codes)
            name = mirror_id(file)
            record = records.get(name)
            if record is None:
                raise DataError(
                    f"{where}: expected an image below {split}/, found "
                    f"no file for {file[:200]!r}. {advice}"
                )
            if name in lines:
                raise DataError(
                    f"{where}: expected each image once, found {file[:200]!r} again, first in "
                    f"line {lines[name]}. {advice}"
                )
            if record.emotion != emotion:
                raise DataError(
                    f"{where}: expected {record.emotion!r}, as the folder of {record.source} "
                    f"says, found {emotion!r} (label {row[label_at].strip()}). One of the two is "
                    "wrong; obtain the copy again."
                )
            lines[name] = rows.line_num
    except csv.Error as error:
        raise DataError(
            f"{path}: line {rows.line_num}: expected comma-separated text, found: {error}. "
            "Obtain the table again."
        ) from error
    absent = [record for name, record in records.items() if name not in lines]
    if absent:
        raise DataError(
            f"{path}: expected a row for each image, found none for {absent[0].source}"
            f"{among(absent, list(records), 'images have none')}. Obtain the table again, remove "
            "the image, or move the table elsewhere: the folders then count alone."
        )
