"""Reader of anybody's own faces: class folders, with or without splits, or a table of labels.

Three forms are told apart by what is there:

1. ``train|val|test/<class>/…/<image>``, as a folder or a zip archive;
2. ``<class>/…/<image>``, as a folder or a zip archive;
3. a table with the columns ``image,label[,split]`` beside the images, or one for each split;
   Hugging Face's ``metadata.csv`` with ``file_name,label`` is one, and so is its
   ``metadata.jsonl``.

A folder and its zip archive are read by the same rules.

Classes are mapped into the schema by name. A split that is missing is held out of train,
stratified and seeded; each image is ranked by its path, so that every machine chooses the same.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fer.core import labels
from fer.core.commands import typed
from fer.core.errors import DataError
from fer.core.files import is_outside
from fer.core.options import SWITCH, check_value, or_null
from fer.data.readers.base import (
    LATER,
    SHARE,
    SPLIT_NAMES,
    FolderSource,
    HoldOut,
    RawDataset,
    Record,
    ZipSource,
    by_suffix,
    composed,
    is_image,
    list_files,
    list_zip,
    make_ids,
    only_archive,
    persons_across,
    shown,
)

SYNONYMS = or_null(
    (
        f"names of classes, each with one of {', '.join(labels.EMOTIONS)} ({{mad: angry}}, or in "
        'any script ["mad: angry"])',
        lambda value: isinstance(value, Mapping | list | tuple),
    ),
    "for none",
)
PERSON = or_null(
    (
        "the name of a table's column, or a pattern (a regular expression) of file names",
        lambda value: isinstance(value, str) and 0 < len(value) <= 200 and is_pattern(value),
    ),
    "where nobody says who is shown",
)
COLUMNS = ("image", "label", "split", "gender", "race", "age")
"""What a table of labels may say of an image; other columns are not read."""
TABLES = (".csv", ".jsonl")
DELIMITERS = (",", ";", "\t")
MOST_CLASSES = 20
"""That a message names; who has more classes has another kind of data."""
HEADER_BYTES = 1 << 16
"""Of a table, among which its first line is."""
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
HOW_TO_OBTAIN = """\
How to bring your own faces: pass a folder (or its .zip) that holds
  - train/<class>/<image> with val/ and test/ beside train/ where you have them, or
  - <class>/<image> alone,
with the class folders named angry, disgust, fear, happy, sad, surprise and neutral; or a table
*.csv with the columns image,label (and split), beside the images: dataset.raw=PATH"""


@dataclass(frozen=True)
class Item:
    """One labelled image, as the copy describes it."""

    location: str
    """Member or file, below the copy's folder."""
    key: str
    """Its path below the splits or classes, the same on every machine: what the hold-out ranks."""
    label: str
    """Its class, as written."""
    split: str
    """``train``, ``val`` or ``test``; empty where the copy does not say."""
    gender: str = ""
    race: str = ""
    age: str = ""
    person: str = ""
    """Who is shown, of a table's column; empty where it does not say."""


@dataclass(frozen=True)
class Listing:
    """What one form of the data holds."""

    form: str
    items: Sequence[Item]
    excluded: Mapping[str, int]
    """Why images were left out, in words, and how many."""
    ignored: Sequence[str]
    """Files that are not images."""


@dataclass(frozen=True)
class FolderReader(HoldOut):
    """Lists faces in class folders or in a table.

    Args:
        val_fraction: share of each class of train that is held out where there is no val.
        split_seed: another seed gives another hold-out.
        test_fraction: share of each class of train that is held out, before val is, where there
            is no test.
        drop_unknown: leave out, and count, images of a class that is none of the seven emotions;
            otherwise one is an error.
        synonyms: what other names of classes mean, ``{"mad": "angry"}`` or ``["mad: angry"]``.
        person: who is shown, so that what is held out shows other people: a column of the table, or
            a pattern of the file's name, else of its path: its group, or all that it matches
            (``S\\d+`` for CK+, ``^[A-Z]{2}`` for JAFFE).

    Raises:
        ConfigError: a share would leave a split empty, a synonym is none, or ``person`` no pattern.
    """

    test_fraction: float = 0.2
    drop_unknown: bool = False
    synonyms: labels.Synonyms | None = None
    person: str | None = field(default=None, metadata={LATER: True})

    how_to_obtain = HOW_TO_OBTAIN

    def __post_init__(self) -> None:
        super().__post_init__()
        check_value("dataset.reader.test_fraction", self.test_fraction, SHARE)
        check_value("dataset.drop_unknown", self.drop_unknown, SWITCH)
        check_value("dataset.synonyms", self.synonyms, SYNONYMS)
        check_value("dataset.person", self.person, PERSON)
        # In one form, so that the same synonyms in another order are the same preparation.
        object.__setattr__(self, "synonyms", labels.read_synonyms(self.synonyms or {}))

    def list(self, raw: Path) -> RawDataset:
        """List the data at ``raw`` without decoding it.

        Raises:
            DataError: ``raw`` has none of the three forms, or something in it is malformed.
        """
        source: FolderSource | ZipSource = FolderSource(raw, None)
        tables: Sequence[str] = ()
        if raw.is_dir():
            names = list_files(raw)
            archive = only_archive(names)
            if archive is not None:
                return self.list(raw / archive)
        elif raw.suffix.lower() in TABLES:
            source, tables = FolderSource(raw.parent, None), [raw.name]
            names = list_files(raw.parent)
        elif raw.suffix.lower() == ".zip":
            source = ZipSource(raw, None)
            names = list_zip(raw)
        else:
            raise DataError(
                f"{raw}: expected a folder, a .zip or a table .csv, found a file ending in "
                f"{raw.suffix!r}.\n{HOW_TO_OBTAIN}"
            )
        root = self._root(names)
        if not tables:
            tables = find_tables(source, names, root)
            if not tables:
                check_unread(source, names)
        if tables:
            listing = self._list_tables(source, tables, names)
        else:
            listing = self._list_folders(raw, names, root)
        counts = Counter(item.label for item in listing.items)
        emotions, unknown = self._map_classes(raw, counts)
        items: Sequence[Item] = sorted(
            (item for item in listing.items if item.label in emotions), key=lambda item: item.key
        )
        check_keys(raw, items)
        emotion_of = {item.key: emotions[item.label] for item in items}
        persons = self._persons(raw, items)
        items, held_out = self._hold_out(raw, items, emotion_of, persons)
        warnings = [held_out] if held_out else []
        if listing.ignored:
            warnings.append(
                f"{len(listing.ignored):,} files are not images and were left out "
                f"({by_suffix(listing.ignored)})."
            )
        ids = make_ids([item.key for item in items], [emotion_of[item.key] for item in items])
        records = [
            Record(
                name,
                emotion_of[item.key],
                item.split,
                item.location,
                item.location,
                item.gender,
                item.race,
                item.age,
            )
            for name, item in zip(ids, items, strict=True)
        ]
        excluded = {
            f"their class {name!r} is not one of the seven emotions": count
            for name, count in sorted(unknown.items())
        }
        return RawDataset(
            source,
            listing.form,
            records,
            official_protocol=False,
            warnings=warnings,
            excluded=excluded | {why: count for why, count in listing.excluded.items() if count},
            findings=persons_across(persons, {item.key: item.split for item in items}),
        )

    def _emotion(self, name: str) -> str:
        """The schema's name for a class; empty if it is none of the seven emotions."""
        try:
            return labels.canonical(name, self.synonyms)
        except DataError:
            return ""

    def _map_classes(
        self, raw: Path, counts: Mapping[str, int]
    ) -> tuple[dict[str, str], Counter[str]]:
        """The emotion of each class that is one, and the images of each class that is none.

        Args:
            raw: the copy, for messages.
            counts: images of each class, as written.

        Raises:
            DataError: a class is a number, or is no emotion and may not be left out.
        """
        emotions: dict[str, str] = {}
        unknown: Counter[str] = Counter()
        for label, count in counts.items():
            emotion = self._emotion(label)
            if emotion:
                emotions[label] = emotion
            elif NUMBER.fullmatch(label.strip()):
                raise DataError(
                    f"{raw}: expected the names of emotions, found the class {label.strip()!r} "
                    f"({count:,} images). Numbers mean different emotions in different datasets: "
                    "use names, or say what each of yours means, such as "
                    "'dataset.synonyms={1: surprise, 2: fear}'"
                )
            else:
                unknown[shown(labels.normalise(label))] += count
        if unknown and not self.drop_unknown:
            found = ", ".join(f"{name!r} ({unknown[name]:,} images)" for name in sorted(unknown))
            raise DataError(
                f"{raw}: expected the classes {', '.join(labels.EMOTIONS)} or synonyms of them, "
                f"found {found}. Leave such images out (dataset.drop_unknown=true), or say which "
                f"emotion a name means: {ask_for_meaning(sorted(unknown))}"
            )
        return emotions, unknown

    def _persons(self, raw: Path, items: Sequence[Item]) -> dict[str, str]:
        """Who is shown on each image, by its key; empty where nobody says.

        Raises:
            DataError: of some images neither a column nor the pattern says it.
        """
        if self.person is None:
            return {}
        persons = {item.key: item.person or find_person(self.person, item.key) for item in items}
        without = [key for key, person in persons.items() if not person]
        if without:
            raise DataError(
                f"{raw}: expected dataset.person to be a column of the table, or a pattern that "
                f"says of each image who is shown, found none for {len(without):,} of "
                f"{len(items):,} images with {self.person!r}; the first: {shown(without[0])!r}. "
                f"Correct it, such as {typed('dataset.person', '^S[0-9]+')}"
            )
        return persons

    def _hold_out(
        self,
        raw: Path,
        items: Sequence[Item],
        emotion_of: Mapping[str, str],
        persons: Mapping[str, str],
    ) -> tuple[Sequence[Item], str]:
        """The items, each with a split, and a warning that says how a missing split was made.

        Raises:
            DataError: a class has too few images to hold any out, or too few persons are shown.
        """
        given = {item.split for item in items}
        missing = [split for split in ("test", "val") if split not in given]
        if not missing:
            return items, ""
        pool = [item.key for item in items if item.split in ("", "train")]
        if not pool:  # such as test/ alone, to measure on
            return items, ""
        least = 1 + len(missing)
        counts = Counter(emotion_of[key] for key in pool)
        few = [name for name in labels.EMOTIONS if 0 < counts[name] < least]
        if few:
            raise DataError(
                f"{raw}: expected at least {least} training images of each emotion to hold "
                f"{' and '.join(missing)} out of, found "
                f"{', '.join(f'{counts[name]} of {name!r}' for name in few)}. Add images, or make "
                "the splits yourself: train/, val/ and test/, or a column split in the table."
            )
        made: dict[str, str] = {}
        shares = {"test": self.test_fraction, "val": self.val_fraction}
        for number, split in enumerate(missing, start=1):
            rest = [key for key in pool if key not in made]
            if persons:
                own = {key: persons[key] for key in rest}
                chosen = self.choose_persons(own, emotion_of, shares[split])
                if not chosen:
                    raise DataError(
                        f"{raw}: expected enough persons to hold {split} out of train with every "
                        f"emotion left there, found {len(set(own.values()))}. Add images of "
                        "others, or leave out dataset.person."
                    )
            else:
                chosen = self.choose(rest, emotion_of, shares[split], leave=least - number)
            made.update(dict.fromkeys(chosen, split))
        items = [replace(item, split=made.get(item.key, item.split or "train")) for item in items]
        parts = " and then ".join(
            f"{shares[split]:.0%} of {'train' if split == missing[0] else 'the rest'} as {split}"
            for split in missing
        )
        return items, (
            f"There is no {' and no '.join(missing)} split: held out at random, "
            f"{'person by person' if persons else 'class by class'}, "
            f"{'are' if missing[1:] else 'is'} {'about ' * bool(persons)}{parts} (seed "
            f"{self.split_seed}). This is not an official protocol"
            + (
                "."
                if persons
                else ", and pictures of one person may be on both sides (dataset.person=… says "
                "who is shown)."
            )
        )

    # --- class folders -----------------------------------------------------------------------

    def _root(self, names: Sequence[str]) -> str:
        """The folder around all images that is neither a split nor a class, with a slash behind."""
        images = [name for name in names if is_image(name)]
        root = ""
        while True:
            tops = folders_below(root, images)
            if len(tops) != 1 or split_of(*tops) or self._emotion(*tops):
                return root
            root += f"{next(iter(tops))}/"

    def _list_folders(self, raw: Path, names: Sequence[str], root: str) -> Listing:
        """Items of ``[…/][<split>/]<class>/…/<image>`` names below ``root``."""
        images = [name for name in names if is_image(name)]
        tops = folders_below(root, images)
        with_splits = any(map(split_of, tops))
        if not with_splits and not any(
            self._emotion(name) or NUMBER.fullmatch(name) for name in tops
        ):
            found = ", ".join(repr(shown(name)) for name in sorted(tops)[:5]) or "none"
            raise DataError(
                f"{raw}: expected train/<class>/<image> or <class>/<image> with classes named "
                f"{', '.join(labels.EMOTIONS)}, or, in a folder, one table *.csv with the columns "
                f"image and label; found {len(names):,} files, {len(images):,} of them images, "
                f"and the folders {found}. Rename the folders, or say what their names mean"
                + (f": {ask_for_meaning(sorted(tops))}" if tops else ".")
            )
        strangers = {name: count for name, count in tops.items() if not split_of(name)}
        if with_splits and strangers:
            name = min(strangers)
            raise DataError(
                f"{raw}: expected only folders of splits beside "
                f"{shown(next(filter(split_of, sorted(tops))))!r}, found {shown(name)!r} with "
                f"{strangers[name]:,} images. Name it train, val or test, or move it elsewhere."
            )
        depth = 2 if with_splits else 1
        items = []
        for name in images:
            parts = name[len(root) :].split("/") if name.startswith(root) else []
            if len(parts) > depth:
                split = split_of(parts[0]) if with_splits else ""
                items.append(Item(name, composed("/".join(parts)), parts[depth - 1], split))
        archive = " (zip)" if raw.is_file() else ""
        return Listing(
            ("class folders in split folders" if with_splits else "class folders") + archive,
            items,
            {"they are in no class folder": len(images) - len(items)},
            [name for name in names if not is_image(name)],
        )

    # --- tables ------------------------------------------------------------------------------

    def _list_tables(
        self, source: FolderSource | ZipSource, tables: Sequence[str], names: Sequence[str]
    ) -> Listing:
        """Items of the tables' rows.

        Args:
            source: the copy.
            tables: one, or one for each split.
            names: every file of the copy.
        """
        # One lies beside its images; several lie together, or each in the folder of its split.
        places = {PurePosixPath(table).parent for table in tables}
        base = min(places) if len(places) == 1 else min(places).parent
        if len(places) == 1 and split_of(base.name):
            base = base.parent
        prefix = "" if base == PurePosixPath() else f"{base}/"
        files: dict[str, str] = {}
        for name in names:
            if not name.startswith(prefix):
                continue
            if files.setdefault(composed(name[len(prefix) :]), name) != name:
                raise doubled(source.path, name)
        first: dict[str, Row] = {}
        missing = []
        repeated = 0
        for table in tables:
            folder = PurePosixPath(table[len(prefix) :]).parent
            for row in read_table(source, table, self.person, alone=len(tables) == 1):
                key = find_file(row, folder, files)
                if key not in first:
                    first[key] = row
                    if key not in files and (self._emotion(row.label) or not self.drop_unknown):
                        missing.append(row)
                    continue
                self._compare(first[key], row)
                repeated += 1
        if missing:
            row = missing[0]
            raise DataError(
                f"{row.table}: row {row.number}: expected the image "
                f"{shown(str(row.table.parent / row.image))}, found no such file ("
                f"{len(missing):,} such rows; hidden files do not count, and case does). Correct "
                "the paths, which are relative to the table's folder, or remove the rows."
            )
        items = [Item(files.get(key, key), key, *row.facts) for key, row in first.items()]
        used = {item.location for item in items}.union(tables)
        others = [name for name in names if name not in used]
        shown_tables = ", ".join(table[len(prefix) :] for table in tables)
        return Listing(
            f"table ({shown_tables})" + (" (zip)" if source.path.is_file() else ""),
            items,
            {
                f"{shown_tables} does not name them": sum(map(is_image, others)),
                f"{shown_tables} names them again, in the same way": repeated,
            },
            [name for name in others if not is_image(name)],
        )

    def _compare(self, one: Row, two: Row) -> None:
        """Refuse two rows that say different things of one image."""
        for what, a, b in (
            ("label", self._meaning(one), self._meaning(two)),
            ("split", one.split, two.split),
        ):
            if a != b:
                where = f"rows {one.number} and {two.number}"
                if one.table != two.table:
                    where = f"row {one.number}, and {two.table}: row {two.number}"
                raise DataError(
                    f"{one.table}: {where}: expected one {what} for {shown(two.image)!r}, found "
                    f"{shown(a)!r} and {shown(b)!r}. Correct or remove one of the rows."
                )

    def _meaning(self, row: Row) -> str:
        """The emotion of a row, or its class as it stands."""
        return self._emotion(row.label) or labels.normalise(row.label)


def is_pattern(text: str) -> bool:
    """Whether a text is a regular expression."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def find_person(pattern: str, path: str) -> str:
    """Who is shown, by a pattern of the file's name, else of its path; empty if neither says.

    >>> find_person(r"S\\d+", "happy/S005_001.png"), find_person("^[A-Z]{2}", "sad/KA.SA1.tiff")
    ('S005', 'KA')
    """
    found = re.search(pattern, PurePosixPath(path).name) or re.search(pattern, path)
    return "" if found is None else found[found.re.groups and 1] or ""


def ask_for_meaning(names: Sequence[str]) -> str:
    """The option that says which emotions classes mean, to be pasted and completed."""
    pairs = [f"{shown(name)}: EMOTION" for name in names[:MOST_CLASSES]]
    return f"{typed('dataset.synonyms', pairs)}, with the name of an emotion in place of EMOTION"


def split_of(name: str) -> str:
    """The split that a folder or cell names; empty if it names none."""
    return SPLIT_NAMES.get(name.strip().lower(), "")


def folders_below(root: str, images: Sequence[str]) -> Counter[str]:
    """The folders in ``root`` that hold images, and how many each."""
    below = [name[len(root) :] for name in images if name.startswith(root)]
    return Counter(name.split("/")[0] for name in below if "/" in name)


def check_keys(raw: Path, items: Sequence[Item]) -> None:
    """Refuse two files whose names differ only in how accents are stored: no hold-out can rank
    them, and no other file system could hold both."""
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            raise doubled(raw, item.location)
        seen.add(item.key)


def doubled(folder: Path, name: str) -> DataError:
    """The error for two files with one name."""
    return DataError(
        f"{folder}: expected each file once, found two whose names differ only in how accents "
        f"are stored: {shown(name)!r}. Rename or remove one of them."
    )


# --- a table's text ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row of a table: the cells as they stand, but for the split."""

    table: Path
    number: int
    """Line of the file; the header is on the first."""
    image: str
    label: str
    split: str = ""
    """``train``, ``val`` or ``test``, or empty."""
    gender: str = ""
    race: str = ""
    age: str = ""
    person: str = ""

    @property
    def facts(self) -> tuple[str, ...]:
        """What an :class:`Item` takes from it, in that order."""
        return self.label, self.split, self.gender, self.race, self.age, self.person


def find_tables(source: FolderSource | ZipSource, names: Sequence[str], root: str) -> Sequence[str]:
    """The table of labels, or those of the splits, if there are any.

    They are looked for in the outermost folder first, then in those around all images, then in
    the folders of the splits. A table with other columns, such as a list of landmarks beside class
    folders, is none.

    Args:
        source: the copy.
        names: its files.
        root: the folder around all images.

    Raises:
        DataError: there is more than one and they are not of splits, or one cannot be read.
    """
    around = PurePosixPath(root)
    found: dict[PurePosixPath, list[str]] = {}
    for name in names:
        place = PurePosixPath(name).parent
        near = place in (around, *around.parents)
        of_split = place.parent == around and split_of(place.name)
        if name.lower().endswith(TABLES) and (near or of_split):
            start = read_csv(source, name, HEADER_BYTES)
            if read_header(first_line(read_lines(start))[1]):
                found.setdefault(place if near else around / "<split>", []).append(name)
    if not found:
        return ()
    tables = found[min(found, key=lambda place: len(place.parts))]
    if len(tables) > 1 and not all(map(split_of_table, tables)):
        raise DataError(
            f"{source.path}: expected one table with the columns image and label, or one for each "
            f"split (train.csv, test.csv), found {', '.join(map(shown, tables))}. Pass the path of "
            "one of them: dataset.raw=PATH"
        )
    return tables


def split_of_table(name: str) -> str:
    """The split that a table's folder or name says, such as ``test_labels.csv``; empty if none."""
    path = PurePosixPath(name)
    words = {split_of(word) for word in re.split(r"[\W_]+", path.stem)} - {""}
    return split_of(path.parent.name) or (words.pop() if len(words) == 1 else "")


def check_unread(source: FolderSource | ZipSource, names: Sequence[str]) -> None:
    """Refuse a copy with a table that names its images, but is not one that can be read.

    The class folders beside it would count instead, without a word to whoever wrote the table.
    """
    images = {part for name in names if is_image(name) for part in (name, PurePosixPath(name).name)}
    for name in names:
        if "/" in name or not name.lower().endswith((".csv", ".tsv", ".txt")):
            continue
        start = source.read_bytes(name, 4096)
        reason = ""
        if b"\0" in start:
            reason = "text in UTF-16, or none"
        else:
            text = start.decode("utf-8", "replace").replace("\r", "\n")
            cells = {cell.strip(" \"'") for cell in re.split(r"[\n,;|\t]", text)}
            if cells & images:
                reason = "images, but no first line that names the columns image and label"
        if reason:
            raise DataError(
                f"{source.path / name}: expected a table *.csv as UTF-8 text with the columns "
                "image and label (and split), separated by commas, semicolons or tabs, found "
                f"{reason}. Correct it, or move it elsewhere: the class folders then count alone."
            )


def read_csv(source: FolderSource | ZipSource, name: str, size: int = -1) -> bytes:
    """The bytes of a table, or the first ``size`` of them; of JSON lines as a table with a header.

    Raises:
        DataError: it cannot be read, or a line is no JSON mapping.
    """
    data = source.read_bytes(name, size)
    if not name.lower().endswith(".jsonl"):
        return data
    lines = [line for line in data.splitlines() if line.strip()]
    lines = lines[:1] if size >= 0 else lines
    table: list[str] = []
    columns: list[str] = []

    def add(cells: Iterable[object]) -> None:
        texts = ("" if cell is None else str(cell).replace('"', '""') for cell in cells)
        table.append(",".join(f'"{text}"' for text in texts) + "\n")

    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            columns = columns or list(row)
            if number == 1:
                add(columns)
            add([row.get(column, "") for column in columns])
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            if size >= 0:  # while tables are looked for: it is none
                return b""
            raise DataError(
                f"{source.path / name}: line {number}: expected a JSON mapping such as "
                '{"file_name": "1.png", "label": "happy"}, found: '
                f"{shown(str(error))}. Correct the line."
            ) from error
    return "".join(table).encode("utf-8", "surrogatepass")


def read_lines(data: bytes) -> Iterator[str]:
    """Lines of a table with their ends; what is not UTF-8 comes as surrogates, as in file names."""
    return io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "surrogateescape", newline="")


def first_line(lines: Iterator[str]) -> tuple[int, str]:
    """Number and text of the first line that is not empty; the text is empty if there is none."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            return number, line
    return 0, ""


def read_header(line: str) -> tuple[str, list[str]] | None:
    """The delimiter and the columns' names, in lower case, of a table of labels, else None."""
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        names = [cell.strip().lower() for cell in cells]
        if "image" not in names:
            names = ["image" if name == "file_name" else name for name in names]
        if {"image", "label"} <= set(names):
            return delimiter, names
    return None


def read_table(
    source: FolderSource | ZipSource, name: str, person: str | None, *, alone: bool
) -> Sequence[Row]:
    """The rows of a table of labels, each with a split or none.

    Args:
        source: the copy.
        name: of the table.
        person: the column that says who is shown, if the table has it.
        alone: there is no other: its own name then says nothing about its images' split, but
            that of a split's folder does.

    Raises:
        DataError: it cannot be read, or some rows have a split and others have none.
    """
    path = source.path / name
    rows = check_splits(path, list(read_rows(path, read_csv(source, name), person)))
    split = split_of(PurePosixPath(name).parent.name) if alone else split_of_table(name)
    return [row if row.split else replace(row, split=split) for row in rows]


def read_rows(path: Path, data: bytes, person: str | None = None) -> Iterator[Row]:
    """The rows of a table of labels; empty ones are left out.

    Raises:
        DataError: a column is missing or stands there twice, or a row is malformed.
    """
    lines = read_lines(data)
    skipped, line = first_line(lines)
    header = read_header(line)
    if header is None:
        raise DataError(
            f"{path}: expected the columns image and label (and split), in any order, separated "
            f"by commas, semicolons or tabs, found {shown(line.strip())[:80]!r}. Name them so in "
            "the first line, and save the table as UTF-8."
        )
    delimiter, names = header
    columns = {name: names.index(name) for name in COLUMNS if name in names}
    if person is not None and person.lower() in names:
        columns["person"] = names.index(person.lower())
    for name, place in columns.items():
        if names.count(names[place]) > 1:
            raise DataError(
                f"{path}: expected the column {name} once, found it {names.count(name)} times. "
                "Rename or remove one of them."
            )
    table = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            cells = [cell.strip() for cell in next(table)]
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: row {skipped + table.line_num}: expected cells separated by "
                f"{delimiter!r}, found: {error}. Correct the row (a quote that opens must close)."
            ) from error
        number = skipped + table.line_num
        if not any(cells):
            continue
        if len(cells) != len(names):
            raise DataError(
                f"{path}: row {number}: expected {len(names)} cells separated by {delimiter!r}, "
                f"found {len(cells)}. Correct the row; a cell that holds {delimiter!r} needs "
                "quotes around it."
            )
        row = Row(path, number, **{name: cells[place] for name, place in columns.items()})
        if not row.image or not row.label:
            raise DataError(
                f"{path}: row {number}: expected an image and a label, found "
                f"{shown(row.image)!r} and {shown(row.label)!r}. Fill in the row, or remove it."
            )
        if row.split and not split_of(row.split):
            raise DataError(
                f"{path}: row {number}: expected a split of train, val or test, found "
                f"{shown(row.split)!r}. Correct or remove the row."
            )
        yield replace(row, split=split_of(row.split))


def check_splits(path: Path, rows: Sequence[Row]) -> Sequence[Row]:
    """Refuse a table in which some rows have a split and others have none."""
    without = [row for row in rows if not row.split]
    if without and len(without) < len(rows):
        raise DataError(
            f"{path}: row {without[0].number}: expected a split in every row or in none, found "
            f"none in {len(without):,} of {len(rows):,} rows. Fill the column split, or remove it "
            "to have the splits made."
        )
    return rows


def find_file(row: Row, folder: PurePosixPath, files: Mapping[str, str]) -> str:
    """The key in ``files`` of a row's image; what it would be where there is no such file.

    Raises:
        DataError: the path leaves the table's folder.
    """
    if is_outside(row.image):
        raise DataError(
            f"{row.table}: row {row.number}: expected an image below the table's folder, found "
            f"{shown(row.image)!r}. Write its path relative to the table, without '..', and move "
            "or link the images there."
        )
    key = composed(str(folder / row.image))
    if key not in files and "\\" in row.image:  # a table that was written on Windows
        key = composed(str(folder / row.image.replace("\\", "/")))
    return key
