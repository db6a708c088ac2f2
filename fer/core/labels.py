"""The seven emotions, in the one order used everywhere.

Every reader maps its own names or codes into this order **by name**. No other module knows the
indices that another dataset uses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from fer.core.commands import typed
from fer.core.errors import ConfigError, DataError

Synonyms = Mapping[str, str] | Sequence[str]
"""Accepted by :func:`read_synonyms`."""

EMOTIONS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
NUM_CLASSES = len(EMOTIONS)
INDEX: dict[str, int] = {emotion: index for index, emotion in enumerate(EMOTIONS)}

SYNONYMS: dict[str, str] = {
    "anger": "angry",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "sadness": "sad",
    "unhappy": "sad",
    "surprised": "surprise",
    "suprise": "surprise",  # misspelt so in several public copies
    "neutrality": "neutral",
}
"""Spellings found in public copies, each with the schema's name for it.

Only true synonyms: ``calm`` is not ``neutral`` (RAVDESS has both), ``contempt`` is none of the
seven, and codes such as ``AF`` or ``1`` mean what their dataset says. Users can add their own.
"""


def normalise(name: str) -> str:
    """Normalise case, surrounding space, ``-`` and ``_`` between words, and accents.

    Some file systems store é as two characters.

    >>> normalise(" Very_Happy ")
    'very happy'
    """
    text = unicodedata.normalize("NFC", name).strip().lower()
    # only between words: -1 is not 1
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", text)


def read_synonyms(extra: Synonyms) -> dict[str, str]:
    """Check a user's own synonyms; return them with normalised keys, sorted.

    Args:
        extra: ``{"mad": "angry"}`` or ``["mad: angry"]``. On Hydra's command line the keys of the
            first form are limited to the letters ``a`` to ``z``.

    Raises:
        ConfigError: a text has no colon, a value is none of the seven emotions, a key is one of
            them with another meaning, or two keys are the same name with different meanings.
    """
    pairs = list(extra.items()) if isinstance(extra, Mapping) else [split_pair(x) for x in extra]
    table: dict[str, str] = {}
    for name, emotion in pairs:
        key = normalise(str(name))
        if emotion not in EMOTIONS:
            raise ConfigError(
                f"dataset.synonyms: expected one of {', '.join(EMOTIONS)} for {key!r}, found "
                f"{emotion!r}. Correct it: {typed('dataset.synonyms', [f'{key}: angry'])}"
            )
        meant = key if key in INDEX else table.get(key, emotion)
        if meant != emotion:
            raise ConfigError(
                f"dataset.synonyms: expected {key!r} to mean {meant!r} alone, found "
                f"{emotion!r} for it too. Remove that synonym."
            )
        table[key] = emotion
    return dict(sorted(table.items()))


def split_pair(text: str) -> tuple[str, str]:
    """Split ``"mad: angry"`` at its last colon into the name and the emotion."""
    name, _, emotion = str(text).rpartition(":")
    return name.strip(), emotion.strip()


def canonical(name: str, extra: Synonyms | None = None) -> str:
    """Translate a name to the schema's, by :data:`SYNONYMS` and the user's ``extra`` ones.

    Raises:
        DataError: ``name`` is none of the seven emotions.
        ConfigError: ``extra`` is invalid, see :func:`read_synonyms`.

    >>> canonical("Happiness")
    'happy'
    """
    key = normalise(name)
    table = {**SYNONYMS, **read_synonyms(extra)} if extra else SYNONYMS
    key = table.get(key, key)
    if key not in INDEX:
        raise DataError(
            f"Unknown emotion {name!r}. Expected one of {', '.join(EMOTIONS)} "
            f"(or a synonym: {', '.join(sorted(table))})."
        )
    return key
