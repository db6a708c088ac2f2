"""Numbers and names as words, the same in figures and pages."""

from __future__ import annotations

import math

ABSENT = "–"


def how_many(number: int, noun: str) -> str:
    """A number with the noun in its number.

    >>> how_many(1, "image"), how_many(1516, "group"), how_many(2, "copy")
    ('1 image', '1,516 groups', '2 copies')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def to_number(value: object) -> float | None:
    """``value`` as a finite number (a CSV file gives text), or None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def whole(value: object) -> str:
    """A number without decimals, and a dash for what is absent or not a number.

    >>> whole(35887), whole("2331.0"), whole(None)
    ('35,887', '2,331', '–')
    """
    number = to_number(value)
    return ABSENT if number is None else f"{number:,.0f}"


def percent(value: object) -> str:
    """A fraction as percent with one decimal, and a dash for what is absent or not a number.

    >>> percent(0.66), percent(None), percent(float("nan"))
    ('66.0 %', '–', '–')
    """
    number = to_number(value)
    return ABSENT if number is None else f"{100 * number:.1f} %"


def change(found: float, reference: float) -> str | None:
    """How far ``found`` is from ``reference``, in percent of it; None where that is 0.

    >>> change(110, 100), change(99.97, 100), change(60, 100)
    ('+10.0 %', '±0.0 %', '−40.0 %')
    """
    if reference == 0:
        return None
    return f"{signed(100 * (found - reference) / abs(reference))} %"


def signed(number: float) -> str:
    """A number with its sign and one decimal.

    >>> signed(1.25), signed(-0.04), signed(-3)
    ('+1.2', '±0.0', '−3.0')
    """
    text = f"{number:+.1f}"
    return "±0.0" if float(text) == 0 else text.replace("-", "−")


def plain(text: str) -> str:
    """``text`` without the surrogates of a file name that is not UTF-8.

    No font can draw them and no UTF-8 file can hold them.

    >>> plain("a\\udcff.png")
    'a\\\\udcff.png'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
