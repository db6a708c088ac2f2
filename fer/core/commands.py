"""Command lines in messages, quoted so that they can be pasted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence


def typed(key: str, value: object) -> str:
    r"""``key=value`` as a user would type it, quoted for Hydra and then for the shell.

    Args:
        key: the option.
        value: a text, such as a path, or a list of texts.

    >>> print(typed("dataset.raw", "/data/faces"), typed("dataset.raw", "/my data/a=b"))
    dataset.raw=/data/faces 'dataset.raw="/my data/a=b"'
    >>> print(typed("dataset.synonyms", ["mad: angry"]))
    'dataset.synonyms=["mad: angry"]'
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return shlex.quote(f"{key}=[{','.join(quoted(str(item)) for item in value)}]")
    return shlex.quote(f"{key}={quoted_if_needed(value)}")


def quoted_if_needed(value: object) -> str:
    """A text, such as a path, as Hydra's command line takes it.

    >>> print(quoted_if_needed("/data/faces"), quoted_if_needed("1_3"))
    /data/faces "1_3"
    """
    text = str(value)
    plain = re.fullmatch(r"(?!(null|true|false|nan|inf)$)[a-z/._][\w/.-]*", text, re.A | re.I)
    return text if plain else quoted(text)


def quoted(text: str) -> str:
    """Put ``text`` in double quotes, escaped for Hydra's grammar and OmegaConf's interpolations."""
    # To Hydra, a backslash is special only before a quote.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + (m[2] and '\\"'), text)
    escaped = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", escaped)
    return f'"{escaped}"'
