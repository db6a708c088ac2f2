"""Numbers and names as text, formatted alike in figures and pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

ABSENT = "–"


def how_many(number: int, noun: str) -> str:
    """A count with its noun, in the plural where it must be.

    >>> how_many(1, "image"), how_many(1516, "group"), how_many(2, "copy")
    ('1 image', '1,516 groups', '2 copies')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def to_number(value: object) -> float | None:
    """Convert ``value``, or the text of it, to a finite number; None if it is not one."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def whole(value: object) -> str:
    """A number without decimals; a dash if it is absent or not a number.

    >>> whole(35887), whole("2331.0"), whole(None)
    ('35,887', '2,331', '–')
    """
    number = to_number(value)
    return ABSENT if number is None else f"{number:,.0f}"


@dataclass(frozen=True)
class Format:
    """A format of numbers."""

    factor: float
    decimals: int
    unit: str
    """Including the space before it."""

    def digits(self, value: float, more: int = 0) -> str:
        """A number without its unit, with ``more`` decimals than usual."""
        return f"{self.factor * value:.{self.decimals + more}f}"

    def text(self, value: object, more: int = 0) -> str:
        """A number with its unit; a dash if it is absent or not a number."""
        number = to_number(value)
        return ABSENT if number is None else f"{self.digits(number, more)}{self.unit}"

    def interval(self, bounds: object, more: int = 0) -> str | None:
        """A pair of bounds; None if there is none.

        >>> PERCENT.interval([0.64, 0.6799]), NUMBER.interval([0.5, 0.75])
        ('64.0–68.0 %', '0.500–0.750')
        """
        if not isinstance(bounds, Sequence) or len(bounds) != 2:
            return None
        low, high = map(to_number, bounds)
        if low is None or high is None:
            return None
        return f"{self.digits(low, more)}–{self.digits(high, more)}{self.unit}"

    def change(self, value: float) -> str:
        """A signed difference; of percentages, in percentage points.

        >>> PERCENT.change(-0.012), NUMBER.change(0.5)
        ('−1.2', '+0.500')
        """
        return signed(self.factor * value, self.decimals)


PERCENT = Format(100, 1, " %")
"""The format of fractions."""
NUMBER = Format(1, 3, "")
"""The format of all other numbers."""


def percent(value: object) -> str:
    """A fraction in percent with one decimal; a dash if it is absent or not a number.

    >>> percent(0.66), percent(None), percent(float("nan"))
    ('66.0 %', '–', '–')
    """
    return PERCENT.text(value)


def change(found: float, reference: float) -> str | None:
    """The difference of ``found`` from ``reference`` in percent of it; None if that is 0.

    >>> change(110, 100), change(99.97, 100), change(60, 100)
    ('+10.0 %', '±0.0 %', '−40.0 %')
    """
    if reference == 0:
        return None
    return f"{signed(100 * (found - reference) / abs(reference))} %"


def signed(number: float, decimals: int = 1) -> str:
    """A signed number with a fixed number of decimals.

    >>> signed(1.25), signed(-0.04), signed(-3)
    ('+1.2', '±0.0', '−3.0')
    """
    text = f"{number:+.{decimals}f}"
    return f"±{text[1:]}" if float(text) == 0 else text.replace("-", "−")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(59.6), duration(4000)
    ('0:01:00', '1:06:40')
    """
    return str(timedelta(seconds=round(seconds)))


def plain(text: str) -> str:
    """Escape the surrogates that stand for bytes of a file name that is not UTF-8.

    No font can show them, and no UTF-8 file can contain them.

    >>> plain("a\\udcff.png")
    'a\\\\udcff.png'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
