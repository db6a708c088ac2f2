"""Tables of labels: ``image,label[,split]`` as CSV or JSON lines, and where they lie."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fer.core.errors import DataError
from fer.data.readers.base import split_of
from fer.data.readers.names import is_image, shown
from fer.data.readers.sources import FolderSource, Record

COLUMNS = ("image", "label", "split", "gender", "race", "age")
"""Columns of a table of labels; others are not read."""
Own = Mapping[str, str]
"""What a table calls some of :data:`COLUMNS`, in lower case: ``{"label": "emotion"}``."""
TABLES = (".csv", ".jsonl")
DELIMITERS = (",", ";", "\t")
HOW_TO_NAME = "'dataset.columns={label: COLUMN}'"
MOST_COLUMNS = 20
"""Most columns that a message names."""
HEADER_BYTES = 1 << 16
"""The beginning of a table in which its first line is looked for."""


@dataclass(frozen=True)
class Item(Record):
    """One labelled image, as the copy describes it.

    Its emotion is the class as written; its split is empty where the copy does not say.
    """

    person: str = ""
    """The person shown, from a table's column; empty where it does not say."""
    key: str = ""
    """Its path below the splits or classes, the same on every machine: what the hold-out ranks."""
    table: Path = Path()
    row: int = 0
    """Line of the table."""

    @property
    def where(self) -> str:
        return f"{self.table}: row {self.row}"


def find_tables(
    source: FolderSource, names: Sequence[str], root: str, own: Own | None = None
) -> Sequence[str]:
    """The table of labels, or those of the splits, if there are any: in the outermost folder, else
    in those around all images (the last is ``root``), else in the folders of the splits.

    Raises:
        DataError: there is more than one and they are not of splits, one cannot be read, or none
            has the columns that ``own`` names.
    """
    around = PurePosixPath(root)
    found: dict[PurePosixPath, list[str]] = {}
    others = ""
    for name in names:
        place = PurePosixPath(name).parent
        near = place in (around, *around.parents)
        of_split = place.parent == around and split_of(place.name)
        if name.lower().endswith(TABLES) and (near or of_split):
            start = source.read_bytes(name, HEADER_BYTES)
            if open_table(source.path / name, start, own)[0]:
                found.setdefault(place if near else around / "<split>", []).append(name)
            else:
                others = others or has_not(source.path / name, start, own)
    if not found and own:
        raise DataError(
            others
            or f"{source.path}: expected a table *.csv, whose columns dataset.columns names, found "
            "none. Leave dataset.columns out, or pass the table's path: dataset.raw=PATH"
        )
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


def check_unread(source: FolderSource, names: Sequence[str]) -> None:
    """Refuse a copy with a table that names its images, but is not one that can be read: the class
    folders beside it would count instead."""
    images = {part for name in names if is_image(name) for part in (name, PurePosixPath(name).name)}
    for name in names:
        if "/" in name or not name.lower().endswith((".csv", ".tsv", ".txt")):
            continue
        start = source.read_bytes(name, 4096).decode("utf-8", "replace")
        if "\0" in start or not images.isdisjoint(re.split(r"[ \"']*[\r\n,;|\t][ \"']*", start)):
            raise DataError(
                f"{source.path / name}: expected a table *.csv as UTF-8 text with the columns "
                "image and label (and split), separated by commas, semicolons or tabs, found "
                "another encoding, or no first line that names the columns. Correct it, say what "
                f"the columns are called ({HOW_TO_NAME}), or "
                "move it elsewhere: the class folders then count alone."
            )


def read_table(
    source: FolderSource, name: str, person: str | None, own: Own | None = None, *, alone: bool
) -> Sequence[Item]:
    """The rows of a table of labels, each with a split or none.

    ``person`` is the column that says who is shown, if the table has it. The name of a table that
    is ``alone`` says nothing about its images' split, but that of a split's folder does.

    Raises:
        DataError: it cannot be read, or some rows have a split and others have none.
    """
    rows = list(read_rows(source.path / name, source.read_bytes(name), person, own=own))
    without = [row for row in rows if not row.split]
    if without and len(without) < len(rows):
        raise DataError(
            f"{without[0].where}: expected a split in every row or in none, found "
            f"none in {len(without):,} of {len(rows):,} rows. Fill the column split, or remove it "
            "to have the splits made."
        )
    split = split_of(PurePosixPath(name).parent.name) if alone else split_of_table(name)
    return [row if row.split else replace(row, split=split) for row in rows]


def read_rows(
    path: Path,
    data: bytes,
    person: str | None = None,
    known: Sequence[str] = COLUMNS,
    own: Own | None = None,
) -> Iterator[Item]:
    """The rows of a table of labels; empty ones, and columns that are not ``known``, are left out.

    Raises:
        DataError: a column is missing or there twice, or a row is malformed.
    """
    names, header, rows = open_table(path, data, own)
    if not names and own:
        raise DataError(has_not(path, data, own))
    if not names and path.suffix.lower() == ".jsonl":
        raise DataError(
            f'{path}: expected a JSON mapping such as {{"file_name": "1.png", "label": "happy"}} '
            f"in each line, found {shown(first_line(data)[1].strip())[:80]!r} in the first. "
            "Correct it."
        )
    if not names:
        raise DataError(
            f"{path}: expected the columns image and label (and split), in any order, separated "
            f"by commas, semicolons or tabs, found {shown(first_line(data)[1].strip())[:80]!r}. "
            "Name them so in the first line, or say what they are called "
            f"({HOW_TO_NAME}), and save the table as UTF-8."
        )
    places = {name: names.index(name) for name in known if name in names}
    if person is not None and person.lower() in header:  # whatever the columns mean
        places["person"] = header.index(person.lower())
    for column in (header[place] for place in places.values()):
        if header.count(column) > 1:
            raise DataError(
                f"{path}: expected the column {shown(column)} once, found it "
                f"{header.count(column)} times. Rename or remove one of them."
            )
    for number, cells in rows:
        if not any(cells):
            continue
        values = {name: cells[place] for name, place in places.items()}
        image, label, split = (values.pop(name, "") for name in ("image", "label", "split"))
        item = Item("", label, split_of(split), image, image, **values, table=path, row=number)
        if not image or not label or bool(split) != bool(item.split):
            found = ", ".join(map(repr, map(shown, (image, label, split))))
            raise DataError(
                f"{item.where}: expected an image, a label and as split train, val, test or none, "
                f"found {found}. Correct or remove the row."
            )
        yield item


def open_table(
    path: Path, data: bytes, own: Own | None = None
) -> tuple[list[str], list[str], Iterator[tuple[int, list[str]]]]:
    """The columns of a table of labels, the same as it writes them, and the numbers and cells of
    its rows.

    Without columns it is another table. Those that it calls by its ``own`` names come by the usual
    ones. All are in lower case.
    """
    if path.suffix.lower() == ".jsonl":
        cells = json_keys(data)
        return label_columns(cells, own), in_lower_case(cells), read_json_lines(path, data, cells)
    number, line = first_line(data)
    for delimiter in DELIMITERS:
        cells = split_line(line, delimiter)
        columns = label_columns(cells, own)
        if columns:
            rows = read_csv(path, data, number, delimiter, len(columns))
            return columns, in_lower_case(cells), rows
    return [], [], iter(())


def json_keys(data: bytes) -> list[str]:
    """The keys of the first of some JSON lines; none if it is no mapping."""
    first = next(filter(bytes.strip, data.splitlines()), b"")
    try:
        return list(json.loads(first).keys())
    except (ValueError, AttributeError, RecursionError):
        return []


def split_line(line: str, delimiter: str) -> list[str]:
    """The cells of one line; none if quotes in it do not close."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []


def in_lower_case(cells: Iterable[str]) -> list[str]:
    """The names of columns as they are compared."""
    return [cell.strip().lower() for cell in cells]


def label_columns(cells: Sequence[str], own: Own | None = None) -> list[str]:
    """Cells of a first line as columns of a table of labels; none if it is another table.

    >>> label_columns(["Image", "Emotion", "label"], {"label": "emotion"})
    ['image', 'label', '']
    """
    own = own or {}
    names = in_lower_case(cells)
    meant = {column: name for name, column in own.items()}
    names = [meant.get(name, "" if name in own else name) for name in names]
    if "image" not in names:
        names = ["image" if name == "file_name" else name for name in names]
    return names if {"image", "label", *own} <= set(names) else []


def has_not(path: Path, data: bytes, own: Own | None) -> str:
    """The message about a table without the columns that ``own`` names."""
    own = own or {}
    line = first_line(data)[1]
    if re.search(r"[\0\ud800-\udfff]", line):  # UTF-16, or what decoded() keeps of other bytes
        return (
            f"{path}: expected a table as UTF-8 text, to find the columns that dataset.columns "
            "names, found another encoding. Save the table as UTF-8."
        )
    if path.suffix.lower() == ".jsonl":
        cells = json_keys(data)
    else:
        cells = max((split_line(line, delimiter) for delimiter in DELIMITERS), key=len)
    names = in_lower_case(cells)
    asked = {name: own.get(name, name) for name in ("image", "label", *own)}
    if "image" not in own and "file_name" in names:
        del asked["image"]
    lacking = [repr(shown(column)) for column in asked.values() if column not in names]
    has = ", ".join(repr(shown(cell.strip())[:80]) for cell in cells[:MOST_COLUMNS])
    return (
        f"{path}: dataset.columns: expected the columns "
        f"{', '.join(repr(shown(column)) for column in asked.values())}, found no "
        f"{' and no '.join(lacking)}. The table has {has or 'none'}"
        f"{', …' * (len(cells) > MOST_COLUMNS)}: name those that it has."
    )


def decoded(data: bytes) -> Iterator[str]:
    """Lines of a table with their ends; what is not UTF-8 comes as surrogates, as in file names."""
    return io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "surrogateescape", newline="")


def first_line(data: bytes) -> tuple[int, str]:
    """Number and text of the first line that is not empty; the text is empty if there is none."""
    lines = enumerate(decoded(data), start=1)
    return next(((number, line) for number, line in lines if line.strip()), (0, ""))


def read_csv(
    path: Path, data: bytes, header: int, delimiter: str, width: int
) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row below the line ``header``."""
    lines = decoded(data)
    for _ in range(header):
        next(lines)
    table = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            cells = [cell.strip() for cell in next(table)]
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: row {header + table.line_num}: expected cells separated by "
                f"{delimiter!r}, found: {error}. Correct the row (a quote that opens must close)."
            ) from error
        number = header + table.line_num
        if any(cells) and len(cells) != width:
            raise DataError(
                f"{path}: row {number}: expected {width} cells separated by {delimiter!r}, "
                f"found {len(cells)}. Correct the row; a cell that holds {delimiter!r} needs "
                "quotes around it."
            )
        yield number, cells


def read_json_lines(
    path: Path, data: bytes, columns: Sequence[str]
) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each of some JSON lines."""
    lines = enumerate(data.splitlines(), start=1)
    for number, line in ((number, line) for number, line in lines if line.strip()):
        try:
            row = json.loads(line)
            cells = [row.get(column) for column in columns]
        except (ValueError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}: line {number}: expected a JSON mapping such as "
                f'{{"file_name": "1.png", "label": "happy"}}, found: {shown(str(error))}. '
                "Correct the line."
            ) from error
        yield number, ["" if cell is None else storable(str(cell).strip()) for cell in cells]


def storable(text: str) -> str:
    """Replace lone surrogates, which JSON allows, by bytes that can be written and read again."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
