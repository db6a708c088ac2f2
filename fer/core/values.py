"""Plain values: what strangers' files may hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_VALUES = 100_000
"""In the description of a training, which has about a hundred."""


def is_plain(value: object) -> bool:
    """Whether a value is text, numbers, lists and dictionaries of such, and not too many of them.

    What refers to itself, or to one list a thousand times, has too many.
    """
    waiting = [value]
    for _ in range(MAX_VALUES):
        if not waiting:
            return True
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif item is not None and not isinstance(item, str | int | float | bool):
            return False
        if len(waiting) > MAX_VALUES:
            return False
    return not waiting


def fits(value: Any, shape: Any) -> bool:
    """Whether a value has a shape: see :func:`misfit`.

    >>> fits({"a": [1, 2], "b": None}, {"a": [int], "b": (str, None)}), fits({"a": "x"}, {"a": int})
    (True, False)
    """
    return misfit(value, shape) is None


def misfit(value: Any, shape: Any, key: str = "") -> str | None:
    """The dotted key of the first part of a value, as read from JSON, that has not its shape.

    A tuple holds alternatives, ``...`` among them for a key that may be missing. A list holds the
    shape of all its items, or of each of several; a mapping those of some keys, or with ``str`` as
    its only key that of all. Numbers are finite, and fit 64 bits.

    >>> misfit({"a": {"x": 1, "y": "one"}}, {"a": {str: int}})
    'a.y'
    """
    if isinstance(shape, tuple):
        return None if any(fits(value, one) for one in shape) else key
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return key
        each = dict.fromkeys(value, shape[str]) if set(shape) == {str} else shape
        places = ((value.get(name, ...), one, f"{key}.{name}") for name, one in each.items())
    elif isinstance(shape, list):
        if not isinstance(value, list) or len(shape) not in (1, len(value)):
            return key
        shapes = shape if len(shape) > 1 else shape * len(value)
        pairs = zip(value, shapes, strict=True)
        places = ((one, its, f"{key}.{row}") for row, (one, its) in enumerate(pairs))
    else:
        return None if _is_a(value, shape) else key
    found = (misfit(one, its, place.lstrip(".")) for one, its, place in places)
    return next((place for place in found if place is not None), None)


def _is_a(value: Any, kind: Any) -> bool:
    if kind in (None, ...):
        return value is kind
    if isinstance(value, int) and kind in (int, float):
        return abs(value) < 2**63
    return isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))
