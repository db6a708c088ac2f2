"""Plain values: all that an untrusted file may contain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

Options = dict[str, Any]
"""Options by name. What takes them, such as a reader or a network, knows which there are."""
Shape = dict[str, Any]
"""The keys that a value read from JSON is expected to have, see :func:`misfit`."""
MAX_VALUES = 100_000
"""Largest description of a training that is read; a usual one has about a hundred values."""


def walk(value: object) -> Iterator[tuple[object, bool]]:
    """Yield every part of nested mappings and lists, and whether it is the key of a mapping.

    A value that contains itself has no end, and one list a thousand times over has many parts.
    """
    stack: list[Iterator[tuple[object, bool]]] = [iter([(value, False)])]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        yield found
        part, _ = found
        if isinstance(part, Mapping):
            stack += [((key, True) for key in part), ((own, False) for own in part.values())]
        elif isinstance(part, list):
            stack.append((own, False) for own in part)


def is_plain(value: object) -> bool:
    """Tell whether a value consists of text, numbers, lists and dictionaries, and not too many.

    >>> is_plain({"a": [1, None]}), is_plain({(1, 2): "a"}), is_plain([print])
    (True, False, False)
    """
    parts = list(itertools.islice(walk(value), MAX_VALUES + 1))
    kinds = (str, int, float, bool, type(None), list, Mapping)
    return len(parts) <= MAX_VALUES and all(isinstance(part, kinds) for part, _ in parts)


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
