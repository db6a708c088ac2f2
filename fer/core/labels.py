"""The seven emotions, in the one order used everywhere.

Every reader maps its own names or codes into this order **by name**; no other module knows the
index that another dataset gives to an emotion.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from fer.core.commands import typed
from fer.core.errors import ConfigError, DataError

Synonyms = Mapping[str, str] | Sequence[str]
"""What :func:`read_synonyms` reads."""

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
"""Other spellings found in public copies, each with the schema's name.

Only what means the same: ``calm`` is not ``neutral`` (RAVDESS has both), ``contempt`` is none of
the seven, and codes such as ``AF`` or ``1`` mean what their dataset says. A user who knows better
adds a synonym.
"""


def normalise(name: str) -> str:
    """``name`` without what does not matter: case, space around it, ``-`` and ``_`` for a space.

    Accents are compared in their composed form, since one file system stores é as two characters.

    >>> normalise(" Very_Happy ")
    'very happy'
    """
    text = unicodedata.normalize("NFC", name).strip().lower()
    # Only between words: -1 is not 1.
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", text)


def read_synonyms(extra: Synonyms) -> dict[str, str]:
    """A user's own synonyms, with normalised keys in sorted order.

    Args:
        extra: ``{"mad": "angry"}``, or ``["mad: angry"]``, which can be typed in any script:
            Hydra's command line takes no other letters than ``a`` to ``z`` in a mapping's key.

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
    """The name and the emotion of ``"mad: angry"``; the last colon counts."""
    name, _, emotion = str(text).rpartition(":")
    return name.strip(), emotion.strip()


def canonical(name: str, extra: Synonyms | None = None) -> str:
    """The schema's name for ``name``.

    Case, surrounding space, and ``-``/``_`` do not matter. ``extra`` adds synonyms to
    :data:`SYNONYMS`, in any case too (``{"Mad": "angry"}``).

    Raises:
        DataError: ``name`` is none of the seven emotions.
        ConfigError: ``extra`` cannot be read, see :func:`read_synonyms`.

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
