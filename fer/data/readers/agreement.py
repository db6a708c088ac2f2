"""Rows of tables that name the same image, and what they disagree about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer.core.errors import DataError
from fer.core.words import how_many
from fer.data.readers.label_tables import Item
from fer.data.readers.names import shown

DISAGREE = "names them with different labels"
"""In the reason for which images are left out by ``conflicts="drop"``."""
MOST_IMAGES = 10
"""Most images that a message names."""
MOST_ROWS = 5
"""Most rows of an image that a message names."""


def find_disputed(
    folder: Path,
    rows_of: Mapping[str, Sequence[Item]],
    meaning: Callable[[str], str],
    *,
    drop: bool,
) -> set[str]:
    """The images that rows name with different labels, which are to be left out.

    Args:
        folder: of the tables.
        rows_of: the rows of each image, by its key.
        meaning: the emotion that a class means, or else the class.
        drop: whether such images may be left out.

    Raises:
        DataError: they may not, or no other image is left; or rows agree about an image's label,
            but not about its split, its person or an attribute.
    """
    disputed: dict[str, str] = {}
    others: dict[str, str] = {}
    for key, rows in rows_of.items():
        said = [say(row, meaning) for row in rows] if len(rows) > 1 else [{}]
        # An empty cell says nothing.
        differing = [what for what in said[0] if len({one[what] for one in said} - {""}) > 1]
        if differing:
            place = disputed if "label" in differing else others
            place[key] = name_rows(rows, said, differing)
    leaves_none = len(disputed) == len(rows_of)
    refused = [*([] if drop and not leaves_none else disputed.values()), *others.values()]
    if not refused:
        return set(disputed)
    more = len(refused) - MOST_IMAGES
    lines = [*refused[:MOST_IMAGES], *[f"  - and {more:,} more"] * (more > 0)]
    remedy = "Correct or remove the rows."
    if disputed and leaves_none:
        remedy += " With dataset.conflicts=drop no image would be left."
    elif disputed and not drop and not others:
        remedy = (
            "Correct or remove the rows, or leave out images with different labels, and exact "
            'copies with such: dataset.conflicts=drop, in Python FolderReader(conflicts="drop").'
        )
    raise DataError(
        f"{folder}: expected rows that agree about an image, found "
        f"{how_many(len(refused), 'image')} about which they do not:\n"
        + "\n".join([*lines, remedy])
    )


def say(row: Item, meaning: Callable[[str], str]) -> dict[str, str]:
    """What a row says of its image."""
    return {
        "label": meaning(row.emotion),
        "split": row.split,
        "person": row.person,
        "gender": row.gender.casefold(),
        "race": row.race.casefold(),
        "age": row.age.casefold(),
    }


def put_together(rows: Sequence[Item]) -> Item:
    """One row of several that agree: what one leaves empty, another may say."""
    said: dict[str, Any] = {
        what: next((value for row in rows if (value := getattr(row, what))), "")
        for what in ("split", "person", "gender", "race", "age")
    }
    return replace(rows[0], **said)


def warn_of_repetition(repeated: int) -> list[str]:
    """A warning that rows say again what others say, if there are any."""
    if not repeated:
        return []
    rows = "1 row of the table names" if repeated == 1 else f"{repeated:,} rows of the table name"
    return [f"{rows} an image again, in the same way."]


def name_rows(
    rows: Sequence[Item], said: Sequence[Mapping[str, str]], differing: Sequence[str]
) -> str:
    """A line on an image: the first row that says each of the different things."""
    first: dict[str, Item] = {}
    for row, one in zip(rows, said, strict=True):
        first.setdefault(", ".join(f"{what} {shown(one[what])!r}" for what in differing), row)
    named = [f"{text} in {row.table.name}, row {row.row}" for text, row in first.items()]
    more = "; …" * (len(named) > MOST_ROWS)
    return f"  - {shown(rows[0].source)}: {'; '.join(named[:MOST_ROWS])}{more}"
