from __future__ import annotations

import pytest

from fer import labels
from fer.data import fer2013, rafdb
from fer.errors import DataError


def test_the_order_is_the_schemas() -> None:
    assert labels.EMOTIONS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert [labels.INDEX[name] for name in labels.EMOTIONS] == list(range(7))


@pytest.mark.parametrize(
    ("name", "emotion"),
    [("Anger", "angry"), (" HAPPINESS ", "happy"), ("fear", "fear"), ("joy", "happy")],
)
def test_other_spellings_are_mapped_by_name(name: str, emotion: str) -> None:
    assert labels.canonical(name) == emotion


def test_an_emotion_outside_the_schema_is_refused_with_the_list() -> None:
    with pytest.raises(DataError, match=r"contempt.*angry, disgust, fear, happy"):
        labels.canonical("contempt")


def test_a_user_can_add_a_synonym() -> None:
    assert labels.canonical("mad", {"mad": "angry"}) == "angry"


def test_each_readers_codes_name_every_emotion_once() -> None:
    assert sorted(fer2013.TABLE_EMOTIONS) == sorted(labels.EMOTIONS)
    assert sorted(rafdb.CODES.values()) == sorted(labels.EMOTIONS)


def test_rafdb_codes_are_those_of_its_authors() -> None:
    assert [rafdb.CODES[str(code)] for code in range(1, 8)] == [
        "surprise", "fear", "disgust", "happy", "sad", "angry", "neutral",
    ]  # fmt: skip
