"""Reader of RAF-DB (basic emotions) in both of its public layouts.

RAF-DB (Li, Deng & Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
Recognition in the Wild", CVPR 2017) is 15,339 faces. Its authors distribute them aligned to
100 x 100 RGB and, beside that, as the original photographs with a bounding box, five landmarks and
three attributes for each; the usual mirror has the aligned images alone. The labels run from 1 to
7 in an order of RAF-DB's own and are mapped into the schema by name. There is no official
validation split: one is held out of train, stratified and seeded, and is the same in every form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fer.core import options
from fer.core.errors import ConfigError, DataError
from fer.data.readers.annotations import (
    Notes,
    find_each,
    read_boxes,
    read_notes,
)
from fer.data.readers.base import LATER, HoldOut, RawDataset, Record
from fer.data.readers.label_tables import read_rows
from fer.data.readers.names import is_hidden, is_image, safe_id, shown, warn_of
from fer.data.readers.originals import ALIGNED_SIDE, OriginalSource
from fer.data.readers.sources import FolderSource, list_files, read_text

CODED = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
CODES = {str(code): emotion for code, emotion in enumerate(CODED, start=1)}
"""RAF-DB's codes, as its readme defines them."""
LIST_FILE = "EmoLabel/list_patition_label.txt"  # the misspelling is the authors'
ALIGNED, ORIGINAL = "Image/aligned", "Image/original"
BOXES, MANUAL = "Annotation/boundingbox", "Annotation/manual"
FOLDERS = {"aligned": ALIGNED, "original": ORIGINAL}
MIRROR = "DATASET"
OFFICIAL_COUNTS: dict[str, dict[str, int]] = {
    split: dict(zip(CODED, counts, strict=True))
    for split, counts in {
        "train": (1290, 281, 717, 4772, 1982, 705, 2524),
        "test": (329, 74, 160, 1185, 478, 162, 680),
    }.items()
}
"""Images per official split; ``train`` is what train and val add up to here."""

IMAGES = options.one_of("auto", *FOLDERS)
MARGIN = options.number("a share of the face's size from 0 to 1", lambda value: 0 <= value <= 1)
HOW_TO_OBTAIN = """\
How to obtain RAF-DB: its terms do not allow passing it on. Ask its authors for access at
http://www.whdeld.cn/RAF/model1.html (academic use), unpack what they send, and pass the folder
that holds EmoLabel/ and Image/ (or the mirror's DATASET/): dataset.raw=PATH"""
CORRECT = (
    "Correct or remove it, or obtain the copy again. If its labels begin with 0: "
    "dataset.reader.codes_from=0. If they go to 11, it is RAF-DB's compound set: pass the basic "
    "one. If files or folders have other names, read it as class folders: dataset=folder "
    "'dataset.synonyms={"
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
        ConfigError: a value is unknown or out of range.
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
            ("images", self.images, IMAGES),
            ("margin", self.margin, MARGIN),
            ("align_eyes", self.align_eyes, options.SWITCH),
            ("codes_from", self.codes_from, options.whole(0, 1)),
        ):
            options.check_value(f"dataset.reader.{key}", value, rule)

    def find(self, folder: Path) -> Path | None:
        """The raw data in ``folder`` or one level below.

        Raises:
            DataError: ``folder`` holds several copies.
        """
        if not folder.is_dir() or is_copy(folder):
            return folder if folder.is_dir() else None
        # The authors' compound set lies beside basic/, in files of the same names.
        if is_copy(folder / "basic"):
            return folder / "basic"
        below = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
        copies = list(filter(is_copy, below))
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
            ConfigError: aligned images are to be aligned.
        """
        root = self.find(raw)
        if root is None:
            inside = sorted(path.name for path in raw.iterdir()) if raw.is_dir() else []
            inside = ["a file"] if raw.is_file() else inside
            raise DataError(
                f"{raw}: expected a folder with RAF-DB: {LIST_FILE} with {ALIGNED}/ or {ORIGINAL}/ "
                f"beside it, or DATASET/train/<1..7>/ and DATASET/test/<1..7>/. Found "
                f"{shown(', '.join(inside[:5])) or 'nothing'}. Unpack what is still packed, and "
                "pass the folder that holds one of them: dataset.raw=PATH"
            )
        codes = {str(code): name for code, name in enumerate(CODED, self.codes_from)}
        if (root / LIST_FILE).is_file() and has_halves(root / MIRROR):
            raise DataError(
                f"{root}: expected one copy of RAF-DB, found two: {LIST_FILE} and {MIRROR}/train "
                "and test. Move one of them elsewhere."
            )
        if (root / LIST_FILE).is_file():
            there = [kind for kind, folder in FOLDERS.items() if (root / folder).is_dir()]
            dataset = self._list_authors(root, self._choose_images(root, there), codes)
        else:
            self._choose_images(root, ["aligned"])
            dataset = list_mirror(root, codes)
        dataset.records = list(self.hold_out(dataset.records))
        return dataset

    def _choose_images(self, root: Path, there: Collection[str]) -> str:
        """The key of :data:`FOLDERS` that is asked for, which is one of those ``there``."""
        kind = self.images
        if kind == "auto":
            kind = "original" if there == ["original"] else "aligned"
        if kind == "aligned" and self.align_eyes:
            raise ConfigError(
                f"dataset.reader.align_eyes: expected original images to align, found that {root} "
                "is read for its aligned ones. Set dataset.reader.images=original, which needs "
                f"{ORIGINAL}/ and {MANUAL}/, or dataset.reader.align_eyes=false"
            )
        if kind not in there:
            raise DataError(
                f"{root / FOLDERS[kind]}: expected a folder of images, found none. Unpack "
                f"{kind}.zip there, or take what is there: dataset.reader.images=auto"
            )
        return kind

    def _list_authors(self, root: Path, kind: str, codes: Mapping[str, str]) -> RawDataset:
        """List the authors' tree below ``root``, with images of one ``kind``."""
        folder, original = FOLDERS[kind], kind == "original"
        labels = read_label_list(root / LIST_FILE, codes)
        stems = [label.stem for label in labels]
        pictures, others = index_images(root, folder)
        ending = "" if original else "_aligned"
        otherwise = f"remove the line from {LIST_FILE}."
        images = find_each(pictures, root / folder, ending, stems, otherwise)
        notes, warnings = read_notes(root, MANUAL, stems, strict=self.align_eyes)
        cut_out = original and not self.align_eyes
        boxes = read_boxes(root, BOXES, stems) if cut_out else {}
        records = []
        for label in labels:
            image, noted = images[label.stem], notes.get(label.stem, Notes())
            location: str | tuple[str | float, ...] = image
            if cut_out:
                location = (image, *boxes[label.stem])
            elif original:
                location = (image, noted.file, *noted.landmarks)
            records.append(
                Record(label.id, label.emotion, label.split, image, location, *noted.attributes)
            )
        form = "aligned images"
        if original:
            form = "original images with the eyes aligned"
        if cut_out:
            form = f"original images cut out by their boxes (margin {self.margin})"
        margin = self.margin if cut_out else None
        unlisted = len(pictures) - len(records)
        return RawDataset(
            OriginalSource(root, "RGB", margin) if original else FolderSource(root, "RGB"),
            f"authors' tree, {form}",
            records,
            official_protocol=True,
            warnings=[*others, *warnings],
            excluded={f"{LIST_FILE} has no line for these images of {folder}/": unlisted},
            expected_size=None if cut_out else ALIGNED_SIDE,
        )


def has_halves(folder: Path) -> bool:
    """True if ``folder`` is the mirror's DATASET."""
    return all((folder / split).is_dir() for split in OFFICIAL_COUNTS)


def is_copy(folder: Path) -> bool:
    """True if ``folder`` holds RAF-DB in one of its layouts."""
    has_list = (folder / LIST_FILE).is_file()
    return has_list or has_halves(folder / MIRROR) or has_halves(folder)


# --- labels ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """What a line of the authors' list, or a place in the mirror, says of an image."""

    where: str
    stem: str
    """Name of the image, without a suffix and as in the authors' list."""
    emotion: str
    split: str

    @property
    def id(self) -> str:
        return safe_id(self.stem)


def listed_name(name: str) -> str:
    """An image's name as in the authors' list: files and tables may give it with ``_aligned``."""
    return PurePosixPath(name).stem.removesuffix("_aligned")


def read_label(
    where: str,
    name: str,
    code: str,
    codes: Mapping[str, str],
    splits: Collection[str] = tuple(OFFICIAL_COUNTS),
) -> Label:
    """The label of an image: its split is the beginning of its ``name``, its emotion the ``code``.

    Raises:
        DataError: one of the two is something else.
    """
    stem = listed_name(name)
    split = stem.split("_")[0] if "_" in stem else ""
    if split not in splits or "/" in name or not is_image(name) or code not in codes:
        raise DataError(
            f"{where}: expected the name of an image that starts with "
            f"{' or '.join(f'{split}_' for split in splits)} and a label from {min(codes)} to "
            f"{max(codes)}, found {shown(name)[:200]!r} and {shown(code)[:40]!r}. {CORRECT}"
        )
    return Label(where, stem, codes[code], split)


def check_unique(labels: Iterable[Label]) -> None:
    """Refuse two labels of one image.

    Raises:
        DataError: two are of one image.
    """
    found: dict[str, Label] = {}
    for label in labels:
        earlier = found.setdefault(label.id, label)
        if earlier is not label:
            raise DataError(
                f"{label.where}: expected each image once, found {label.stem[:200]!r} again: "
                f"{label.emotion!r} here, {earlier.emotion!r} in {earlier.where}. Remove one of "
                "them."
            )


def read_label_list(path: Path, codes: Mapping[str, str]) -> list[Label]:
    """The lines of the authors' label list.

    Raises:
        DataError: a line is malformed or names an image again, or there is none.
    """
    text = read_text(path, "a list of images")
    lines = enumerate((line.split() for line in text.splitlines()), start=1)
    labels = [
        read_label(f"{path}: line {number}", words[0], " ".join(words[1:]), codes)
        for number, words in lines
        if words
    ]
    check_unique(labels)
    if not labels:
        raise DataError(
            f"{path}: expected a line for each image, such as 'train_00001.jpg 5', found none. "
            "Obtain the file again."
        )
    return labels


def index_images(root: Path, folder: str) -> tuple[dict[str, str], list[str]]:
    """Images below ``root/folder`` by id, and a warning about files that are not images.

    Raises:
        DataError: two have one name.
    """
    images: dict[str, str] = {}
    others: list[str] = []
    for name in list_files(root / folder):
        file = f"{folder}/{name}"
        if not is_image(name):
            others.append(file)
            continue
        earlier = images.setdefault(safe_id(PurePosixPath(name).stem), file)
        if earlier != file:
            raise DataError(
                f"{root}: expected each image once, found {earlier!r} and {file!r}. Remove one of "
                "them."
            )
    return images, warn_of(others, f"files below {root / folder} are not images")


# --- the mirror ------------------------------------------------------------------------------


def list_mirror(root: Path, codes: Mapping[str, str]) -> RawDataset:
    """List the mirror's class folders in ``root/DATASET``, or in ``root`` if that is DATASET.

    Its tables of labels are checked against the folders where they are there; the folders count.

    Raises:
        DataError: a folder or file is not what its place says, or disagrees with a table.
    """
    base = root / MIRROR if has_halves(root / MIRROR) else root
    tables = {f"{split}_labels.csv": split for split in OFFICIAL_COUNTS}
    images: dict[str, Label] = {}
    placed: dict[str, set[tuple[str, str]]] = {split: set() for split in OFFICIAL_COUNTS}
    misplaced, others = 0, []
    for name in list_files(base):
        split, *parts = name.split("/")
        if not is_image(name):
            others += [] if name in tables else [name]
        elif len(parts) != 2 or split not in OFFICIAL_COUNTS:
            misplaced += 1
        else:
            code, file = parts
            below = (base / name).relative_to(root).as_posix()
            images[below] = read_label(str(base / name), file, code, codes, (split,))
            placed[split].add((listed_name(file), code))
    check_unique(images.values())
    checked = []
    for place in dict.fromkeys((root, base)):
        for file, split in tables.items():
            if (place / file).exists():
                check_table(place / file, placed[split])
                checked.append((place / file).relative_to(root).as_posix())
    return RawDataset(
        FolderSource(root, "RGB"),
        "mirror's tree, aligned images"
        + (f", labels as in {' and '.join(checked)}" if checked else ""),
        [Record(one.id, one.emotion, one.split, name, name) for name, one in images.items()],
        official_protocol=True,
        warnings=warn_of(others, f"files below {base} are not images"),
        excluded={"they lie outside DATASET/train/<1..7>/ and DATASET/test/<1..7>/": misplaced},
        expected_size=ALIGNED_SIDE,
    )


def check_table(path: Path, placed: Collection[tuple[str, str]]) -> None:
    """Refuse a table (``image,label``) that does not say what the folders do: name and label of
    each image.

    Raises:
        DataError: the table is malformed or disagrees.
    """
    data = FolderSource(path.parent).read_bytes(path.name)
    rows = read_rows(path, data, known=("image", "label"))
    listed = {(listed_name(row.source), row.emotion) for row in rows}
    odd = [(pair, "table") for pair in listed.difference(placed)]
    odd += [(pair, "folders") for pair in set(placed) - listed]
    if odd:
        (stem, code), where = min(odd)
        raise DataError(
            f"{path}: expected the images and labels of the folders, found {shown(stem)[:200]!r} "
            f"with the label {shown(code)[:40]!r} in the {where} alone (the first of {len(odd):,} "
            "differences). Obtain the copy again, or move the table elsewhere: the "
            "folders then count alone."
        )
