"""Plain values: all that an untrusted file may contain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_VALUES = 100_000
"""Largest description of a training that is read; a usual one has about a hundred values."""


def is_plain(value: object) -> bool:
    """Tell whether a value consists of text, numbers, lists and dictionaries, and not too many.

    A value that contains itself, or one list a thousand times over, has too many.
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
    """Tell whether a value has a shape, see :func:`misfit`.

    >>> fits({"a": [1, 2], "b": None}, {"a": [int], "b": (str, None)}), fits({"a": "x"}, {"a": int})
    (True, False)
    """
    return misfit(value, shape) is None


def misfit(value: Any, shape: Any, key: str = "") -> str | None:
    """Find the first part of a value read from JSON that does not have the expected shape.

    A tuple lists alternatives, with ``...`` for a key that may be missing. A list gives the shape
    of all items, or of each; a dictionary gives the shapes of some keys, or, with ``str`` as its
    only key, of all. Numbers must be finite and fit into 64 bits.

    Returns:
        Its dotted key; None if everything fits.

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
