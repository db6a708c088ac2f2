"""The seven emotions, in the one order used everywhere.

Every reader maps its own names or codes into this order **by name**; no other module knows the
index that another dataset gives to an emotion.
"""

from __future__ import annotations

from collections.abc import Mapping

from fer.errors import DataError

EMOTIONS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
NUM_CLASSES = len(EMOTIONS)
INDEX: dict[str, int] = {emotion: index for index, emotion in enumerate(EMOTIONS)}

SYNONYMS: dict[str, str] = {
    "anger": "angry",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
"""Other spellings found in public copies, each with the schema's name."""


def canonical(name: str, extra: Mapping[str, str] | None = None) -> str:
    """The schema's name for ``name``.

    Case, surrounding space, and ``-``/``_`` do not matter. ``extra`` adds synonyms to
    :data:`SYNONYMS` (``{"mad": "angry"}``).

    Raises:
        DataError: ``name`` is none of the seven emotions.

    >>> canonical("Happiness")
    'happy'
    """
    key = name.strip().lower().replace("-", " ").replace("_", " ")
    table = {**SYNONYMS, **(extra or {})}
    key = table.get(key, key)
    if key not in INDEX:
        raise DataError(
            f"Unknown emotion {name!r}. Expected one of {', '.join(EMOTIONS)} "
            f"(or a synonym: {', '.join(sorted(table))})."
        )
    return key
