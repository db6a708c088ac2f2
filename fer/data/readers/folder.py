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

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fer.core import labels
from fer.core.commands import typed
from fer.core.errors import DataError
from fer.core.files import is_outside
from fer.core.options import SWITCH, check_value, one_of, or_null
from fer.data.readers.agreement import DISAGREE, find_disputed, put_together, warn_of_repetition
from fer.data.readers.base import (
    LATER,
    SHARE,
    HoldOut,
    RawDataset,
    Record,
    emotion_or_none,
    name_emotions,
    persons_across,
    split_of,
)
from fer.data.readers.label_tables import (
    COLUMNS,
    TABLES,
    Item,
    check_unread,
    find_tables,
    in_lower_case,
    read_table,
)
from fer.data.readers.names import composed, is_image, make_ids, shown, warn_of
from fer.data.readers.sources import FolderSource, ZipSource, only_archive, open_copy

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
ASKED = or_null(
    (
        f"some of {', '.join(COLUMNS)}, each with the name of a column of the table that no other "
        "has ({label: emotion}); dataset.person names that of persons",
        lambda value: (
            isinstance(value, Mapping)
            and set(value) <= set(COLUMNS)
            and all(isinstance(column, str) and column.strip() for column in value.values())
            and len(set(in_lower_case(value.values()))) == len(value)
        ),
    ),
    "where they have these names",
)
MOST_CLASSES = 20
"""Most classes that a message names; with more it is another kind of data."""
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
HOW_TO_OBTAIN = """\
How to bring your own faces: pass a folder (or its .zip) that holds
  - train/<class>/<image> with val/ and test/ beside train/ where you have them, or
  - <class>/<image> alone,
with the class folders named angry, disgust, fear, happy, sad, surprise and neutral; or a table
*.csv with the columns image,label (and split), beside the images: dataset.raw=PATH"""


@dataclass(frozen=True)
class Listing:
    """The content of a copy, in any of the three forms."""

    form: str
    items: Sequence[Item]
    excluded: Mapping[str, int]
    """Reasons for which images were left out, in words, and how many for each."""
    ignored: Sequence[str]
    """Files that are not images."""
    disputed: Sequence[str] = ()
    """Images that are left out since rows of the table name them with different labels."""
    repeated: int = 0
    """Rows of the table that say again what another one says."""


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
        columns: what a table calls the columns image, label, split, gender, race and age, where
            that is something else: ``{"label": "emotion"}``.
        conflicts: images that rows of a table name with different labels: ``keep`` refuses them,
            ``drop`` leaves all of them out, counts them and lists them in ``integrity.json``. Rows
            that disagree about something else, such as the split, are refused.

    Raises:
        ConfigError: a share would leave a split empty, a synonym is none, ``person`` is no pattern,
            or ``columns`` names something else.
    """

    test_fraction: float = 0.2
    drop_unknown: bool = False
    synonyms: labels.Synonyms | None = None
    person: str | None = field(default=None, metadata={LATER: True})
    columns: Mapping[str, str] | None = field(default=None, metadata={LATER: True})
    conflicts: str = field(default="keep", metadata={LATER: True})

    how_to_obtain = HOW_TO_OBTAIN

    def __post_init__(self) -> None:
        super().__post_init__()
        check_value("dataset.reader.test_fraction", self.test_fraction, SHARE)
        check_value("dataset.drop_unknown", self.drop_unknown, SWITCH)
        check_value("dataset.synonyms", self.synonyms, SYNONYMS)
        check_value("dataset.person", self.person, PERSON)
        check_value("dataset.columns", self.columns, ASKED)
        check_value("dataset.conflicts", self.conflicts, one_of("keep", "drop"))
        # In one form, so that the same synonyms in another order are the same preparation.
        object.__setattr__(self, "synonyms", labels.read_synonyms(self.synonyms or {}))
        own = dict(sorted((self.columns or {}).items()))
        own = dict(zip(own, in_lower_case(own.values()), strict=True))
        object.__setattr__(self, "columns", own or None)

    def list(self, raw: Path) -> RawDataset:
        """List the data at ``raw``, whichever form it has."""
        source, listing = self._open(raw)
        raw = source.path if raw.is_dir() else raw  # the one archive in a folder
        items, unknown = name_emotions(
            raw,
            listing.items,
            functools.partial(self._emotion, raw),
            drop_unknown=self.drop_unknown,
            remedy=lambda names: f"say which emotion a name means: {ask_for_meaning(names)}",
        )
        items.sort(key=lambda item: item.key)
        persons = self._persons(raw, items)
        placed, warnings = self._split(raw, items, persons)
        ids = make_ids([item.key for item in placed], [item.emotion for item in placed])
        records = [
            Record(
                *(name, item.emotion, item.split, item.source, item.location),
                *(item.gender, item.race, item.age, persons.get(item.key, "")),
            )
            for name, item in zip(ids, placed, strict=True)
        ]
        return RawDataset(
            source,
            listing.form + (" (zip)" if isinstance(source, ZipSource) else ""),
            records,
            warnings=[
                *warnings,
                *warn_of(listing.ignored, "files are not images"),
                *warn_of_repetition(listing.repeated),
            ],
            excluded={**unknown, **listing.excluded},
            findings=persons_across(persons, {item.key: item.split for item in placed}),
            disputed=listing.disputed,
        )

    def _open(self, raw: Path) -> tuple[FolderSource, Listing]:
        """The source at ``raw``, and its images by whichever form it has."""
        tables: Sequence[str] = ()
        if raw.is_file() and raw.suffix.lower() in TABLES:
            source, names = open_copy(raw.parent)
            tables = [raw.name]
        elif raw.is_dir() or raw.suffix.lower() == ".zip":
            source, names = open_copy(raw)
            archive = only_archive(names) if raw.is_dir() else None
            if archive:
                return self._open(raw / archive)
        else:
            raise DataError(
                f"{raw}: expected a folder, a .zip or a table .csv, found a file ending in "
                f"{raw.suffix!r}.\n{HOW_TO_OBTAIN}"
            )
        same = Counter(composed(name) for name in names if is_image(name))
        twice = [name for name in names if same[composed(name)] > 1]
        if twice:  # no hold-out can rank them
            raise DataError(
                f"{source.path}: expected each file once, found two whose names differ only in how "
                f"accents are stored: {shown(twice[0])!r}. Rename or remove one of them."
            )
        root = self._root(names)
        tables = tables or find_tables(source, names, root, self.columns)
        if tables:
            return source, self._list_tables(source, tables, names)
        check_unread(source, names)
        return source, self._list_folders(source.path, names, root)

    def _known(self, name: str) -> str | None:
        """The schema's name for a class; None if it is none of the seven emotions."""
        return emotion_or_none(name, self.synonyms)

    def _emotion(self, raw: Path, name: str) -> str | None:
        """The same, where numbers, which may mean anything, are refused.

        Raises:
            DataError: it is a number.
        """
        emotion = self._known(name)
        if emotion is None and NUMBER.fullmatch(name.strip()):
            raise DataError(
                f"{raw}: expected the names of emotions, found the class {name.strip()!r}. Numbers "
                "mean different emotions in different datasets: use names, or say what each of "
                "yours means, such as 'dataset.synonyms={1: surprise, 2: fear}'"
            )
        return emotion

    def _persons(self, raw: Path, items: Sequence[Item]) -> dict[str, str]:
        """The person on each image, by the image's key; empty without ``person``.

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

    def _split(
        self,
        raw: Path,
        items: Sequence[Item],
        persons: Mapping[str, str],
    ) -> tuple[Sequence[Item], Sequence[str]]:
        """The items, each with a split, and a warning if a missing split was made.

        Raises:
            DataError: a class has too few images to hold any out, or too few persons are shown.
        """
        given = {item.split for item in items}
        missing = [split for split in ("test", "val") if split not in given]
        pool = [item.key for item in items if item.split in ("", "train")]
        if not missing or not pool:  # no pool: such as test/ alone, to measure on
            return items, []
        emotion_of = {item.key: item.emotion for item in items}
        least = 1 + len(missing)
        made: dict[str, str] = {}
        rest = pool
        shares = {"test": self.test_fraction, "val": self.val_fraction}
        for number, split in enumerate(missing, start=1):
            if persons:
                own = {key: persons[key] for key in rest}
                chosen = self.choose_persons(own, emotion_of, shares[split])
            else:
                chosen = self.choose(rest, emotion_of, shares[split], leave=least - number)
            made.update(dict.fromkeys(chosen, split))
            rest = [key for key in pool if key not in made]
        counts = Counter(emotion_of[key] for key in pool)
        short = [f"{n} of {name!r}" for name in labels.EMOTIONS if 0 < (n := counts[name]) < least]
        if short or not set(missing) <= set(made.values()):
            found = ", ".join(short) or f"{len(set(persons.values()))} persons"
            raise DataError(
                f"{raw}: expected at least {least} training images of each emotion, with "
                f"dataset.person of as many persons, to hold {' and '.join(missing)} out of, found "
                f"{found}. Add images, or make the splits yourself: train/, val/ and test/, or a "
                "column split in the table."
            )
        items = [replace(item, split=made.get(item.key, item.split or "train")) for item in items]
        parts = " and then ".join(
            f"{'about ' if persons else ''}{shares[split]:.0%} of "
            f"{'the rest' if number else 'train'} as {split}"
            for number, split in enumerate(missing)
        )
        how, note = "person by person", ""
        if not persons:
            how = "class by class"
            note = ": pictures of one person may be on both sides (dataset.person=… says who it is)"
        return items, [
            f"There is no {' and no '.join(missing)} split: held out at random, {how}, were "
            f"{parts} (seed {self.split_seed}). This is not an official protocol{note}."
        ]

    def _is_class(self, name: str) -> bool:
        """True for the name of an emotion, and for a number, which may be one."""
        return bool(self._known(name) or NUMBER.fullmatch(name))

    # --- class folders -----------------------------------------------------------------------

    def _root(self, names: Sequence[str]) -> str:
        """The folder around all images that is neither a split nor a class, with a slash behind."""
        images = [name for name in names if is_image(name)]
        root = ""
        while True:
            tops = folders_below(root, images)
            # Not for a number: the folder around all classes may be called 2013.
            if len(tops) != 1 or any(split_of(name) or self._known(name) for name in tops):
                return root
            root += f"{next(iter(tops))}/"

    def _list_folders(self, raw: Path, names: Sequence[str], root: str) -> Listing:
        """Items of ``[…/][<split>/]<class>/…/<image>`` names below ``root``."""
        images = [name for name in names if is_image(name)]
        tops = folders_below(root, images)
        with_splits = any(map(split_of, tops))
        others = sorted(name for name in tops if not split_of(name))
        if others if with_splits else not any(map(self._is_class, tops)):
            found = ", ".join(repr(shown(name)) for name in others[:5]) or "none"
            raise DataError(
                f"{raw}: expected train/<class>/<image>, in folders of splits alone, or "
                f"<class>/<image>, with classes named {', '.join(labels.EMOTIONS)}, or, in a "
                "folder, one table *.csv with the columns image and label; found "
                f"{len(names):,} files, {len(images):,} of them images, and the folders {found}. "
                "Rename the folders, move them elsewhere, or say what their names mean"
                + (f": {ask_for_meaning(others)}" if others else ".")
            )
        depth = 2 if with_splits else 1
        items = []
        for name in images:
            parts = name[len(root) :].split("/") if name.startswith(root) else []
            if len(parts) > depth:
                split = split_of(parts[0]) if with_splits else ""
                key = composed("/".join(parts))
                items.append(Item("", parts[depth - 1], split, name, name, key=key))
        return Listing(
            "class folders in split folders" if with_splits else "class folders",
            items,
            {"they are in no class folder": len(images) - len(items)},
            [name for name in names if not is_image(name)],
        )

    # --- tables ------------------------------------------------------------------------------

    def _list_tables(
        self, source: FolderSource, tables: Sequence[str], names: Sequence[str]
    ) -> Listing:
        """Items of the rows of one table, or of one for each split."""
        # One lies beside its images; several lie together, or each in the folder of its split.
        places = {PurePosixPath(table).parent for table in tables}
        base = min(places) if len(places) == 1 else min(places).parent
        if len(places) == 1 and split_of(base.name):
            base = base.parent
        prefix = "" if base == PurePosixPath() else f"{base}/"
        files = {
            composed(name.removeprefix(prefix)): name for name in names if name.startswith(prefix)
        }
        rows_of: dict[str, list[Item]] = {}
        alone = len(tables) == 1
        for table in tables:
            folder = PurePosixPath(table[len(prefix) :]).parent
            for row in read_table(source, table, self.person, self.columns, alone=alone):
                rows_of.setdefault(find_file(row, folder, files), []).append(row)
        disputed = find_disputed(
            source.path,
            rows_of,
            lambda name: self._known(name) or labels.normalise(name),
            drop=self.conflicts == "drop",
        )
        first = {key: put_together(rows) for key, rows in rows_of.items()}
        missing = [
            row
            for key, row in first.items()
            if key not in files and not (self.drop_unknown and not self._known(row.emotion))
        ]
        if missing:
            row = missing[0]
            raise DataError(
                f"{row.where}: expected the image {shown(str(row.table.parent / row.source))}, "
                f"found no such file ({len(missing):,} such rows; hidden files do not count, and "
                "case does). Correct the paths, which are relative to the table's folder, or "
                "remove the rows."
            )
        items = [
            replace(row, source=files.get(key, key), location=files.get(key, key), key=key)
            for key, row in first.items()
        ]
        used = {item.source for item in items}.union(tables)
        out = [item.source for item in items if item.key in disputed]
        items = [item for item in items if item.key not in disputed]
        repeated = sum(len(rows) - 1 for key, rows in rows_of.items() if key not in disputed)
        others = [name for name in names if name not in used]
        shown_tables = ", ".join(table[len(prefix) :] for table in tables)
        return Listing(
            f"table ({shown_tables})",
            items,
            {
                f"{shown_tables} does not name them": sum(map(is_image, others)),
                f"{shown_tables} {DISAGREE}": len(out),
            },
            [name for name in others if not is_image(name)],
            out,
            repeated,
        )


def is_pattern(text: str) -> bool:
    """True if a text is a regular expression."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def find_person(pattern: str, path: str) -> str:
    """The person that a pattern finds in the file's name, else in its path; empty if in neither.

    >>> find_person(r"S\\d+", "happy/S005_001.png"), find_person("^[A-Z]{2}", "sad/KA.SA1.tiff")
    ('S005', 'KA')
    """
    found = re.search(pattern, PurePosixPath(path).name) or re.search(pattern, path)
    return "" if found is None else found[found.re.groups and 1] or ""


def ask_for_meaning(names: Sequence[str]) -> str:
    """The option that says which emotions classes mean, to be pasted and completed."""
    pairs = [f"{shown(name)}: EMOTION" for name in names[:MOST_CLASSES]]
    return f"{typed('dataset.synonyms', pairs)}, with the name of an emotion in place of EMOTION"


def folders_below(root: str, images: Sequence[str]) -> Counter[str]:
    """The folders in ``root`` that hold images, and how many each."""
    below = [name[len(root) :] for name in images if name.startswith(root)]
    return Counter(name.split("/")[0] for name in below if "/" in name)


def find_file(row: Item, folder: PurePosixPath, files: Mapping[str, str]) -> str:
    """The key in ``files`` of a row's image; what it would be where there is no such file.

    Raises:
        DataError: the path leaves the table's folder.
    """
    if is_outside(row.source):
        raise DataError(
            f"{row.where}: expected an image below the table's folder, found "
            f"{shown(row.source)!r}. Write its path relative to the table, without '..', and move "
            "or link the images there."
        )
    key = composed(str(folder / row.source))
    if key not in files and "\\" in row.source:  # a table that was written on Windows
        key = composed(str(folder / row.source.replace("\\", "/")))
    return key
