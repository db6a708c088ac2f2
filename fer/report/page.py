"""What every HTML page of this program is made of: cells, tables, embedded figures, one look."""

from __future__ import annotations

import base64
import functools
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.environment import TemplateModule

from fer.core.errors import DataError
from fer.core.files import write_text
from fer.core.words import PERCENT, how_many, percent, plain, whole
from fer.evaluation.scores import shown_in

FEW = 3
"""Headings that need no list of them."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Cell:
    """A table cell."""

    text: str
    detail: str | None = None
    """A second line, in small print."""
    code: str | None = None
    """A command to type, on a line of its own."""
    words: bool = False
    """Aligned to the left and wrapped, where a number is not."""
    link: str | None = None
    """A URL relative to the page."""
    marked: bool = False
    """Differs from what it should be. The text must say so too: colour alone does not reach all."""


Content = Cell | str | float | None
"""What a cell is made of."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows. There is at least one row."""

    id: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class FigureEntry:
    """A figure of a page."""

    path: Path
    """A PNG file; its content goes into the page."""
    title: str
    caption: str
    """What is shown, on how many images, and what to look for."""
    link: str | None = None
    """Where the file itself stands, relative to the page; None for no link."""
    files: Table | None = None
    """Which images it shows; folded."""


def make_table(
    id: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Content]],
) -> Table:
    """A table of cells, texts and whole numbers; what is absent is a dash."""
    cells = [
        [
            one if isinstance(one, Cell) else Cell(one if isinstance(one, str) else whole(one))
            for one in row
        ]
        for row in rows
    ]
    return Table(id, columns, cells)


def percent_cell(value: object, detail: str | None = None) -> Cell:
    """A fraction in percent, and a dash for what is absent."""
    return Cell(percent(value), detail)


Section = TemplateModule
"""A part of a page: HTML that a template has made and escaped."""


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> Path:
    """Render a template of this package into the file ``path``, atomically."""
    # A file name that is not UTF-8 reaches us with surrogates, which UTF-8 cannot write.
    return write_text(path, plain(with_contents(str(render(template, **content)))))


def render(template: str, **content: Any) -> Section:
    """A whole page, or a part of one, from a template of this package.

    Raises:
        DataError: a figure cannot be read or is not a PNG file.
    """
    return environment().get_template(template).make_module(content)


@functools.cache
def environment(autoescape: bool = True) -> Environment:
    """The templates of this package, with what they may call.

    Args:
        autoescape: as HTML; for every template, where Jinja's default looks at a name's ending.
    """
    found = Environment(
        loader=PackageLoader("fer.report", "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"percent": percent, "in_brackets": _in_brackets, "whole": whole}
    found.filters |= {"points": _points, "change": PERCENT.change}
    found.globals |= {"how_many": how_many, "read_png": read_png, "shown_in": shown_in}
    return found


CONTENTS = "<!-- contents -->"
"""Where a page has its list of headings; what comes from outside is escaped and cannot be this."""


def with_contents(html: str) -> str:
    """Give each ``h2`` of a page an anchor made of its words, and list them if they are several.

    >>> with_contents("<h2>Per emotion</h2>")
    '<h2 id="per-emotion">Per emotion</h2>'
    """
    titles: dict[str, str] = {}
    taken = set(re.findall(r' id="([^"]+)"', html))

    def anchored(heading: re.Match[str]) -> str:
        anchor = "-".join(re.findall(r"[a-z0-9]+", heading[1].lower())) or "section"
        while anchor in taken or anchor in titles:
            anchor += "-"
        titles[anchor] = heading[1]
        return f'<h2 id="{anchor}">{heading[1]}</h2>'

    html = re.sub(r"<h2>(.*?)</h2>", anchored, html)
    links = "\n".join(f'<li><a href="#{anchor}">{text}</a></li>' for anchor, text in titles.items())
    several = f'<nav aria-label="Contents"><ul class="contents">\n{links}\n</ul></nav>'
    return html.replace(CONTENTS, several if len(titles) > FEW else "", 1)


def _in_brackets(words: object) -> str:
    """What stands behind a number: an interval, or words; nothing where there is none.

    >>> _in_brackets([0.64, 0.68]), _in_brackets("± 0.3"), _in_brackets(None)
    (' (64.0–68.0 %)', ' (± 0.3)', '')
    """
    text = words if isinstance(words, str) else PERCENT.interval(words)
    return f" ({text})" if text else ""


def _points(fraction: float) -> str:
    """A difference of fractions in percentage points.

    >>> _points(-0.0123)
    '−1.2'
    """
    return f"{100 * fraction:.1f}".replace("-", "−")


def read_png(path: Path) -> dict[str, str | int]:
    """A figure's content as a URI, with its width and height in pixels.

    Raises:
        DataError: the file cannot be read or is not a PNG file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"report: expected a figure at {path}, found: {error}.") from error
    if not content.startswith(PNG_SIGNATURE) or len(content) < 24:
        raise DataError(f"report: expected a PNG file, found something else at {path}.")
    # Width and height open the first chunk, IHDR: https://www.w3.org/TR/png-3/#11IHDR
    width, height = struct.unpack(">II", content[16:24])
    uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return {"uri": uri, "width": width, "height": height}
