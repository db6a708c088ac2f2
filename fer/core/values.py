"""Plain values: what strangers' files may hold."""

from __future__ import annotations

from collections.abc import Mapping

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
