from __future__ import annotations

import pytest

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.data.readers import fer2013, rafdb


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


@pytest.mark.parametrize("name", ["calm", "contempt", "1", "AF", "-", ""])
def test_what_only_resembles_an_emotion_is_none(name: str) -> None:
    with pytest.raises(DataError):
        labels.canonical(name)


@pytest.mark.parametrize("key", ["mad", "Mad", " MAD\t"])
@pytest.mark.parametrize("name", ["mad", "MAD "])
def test_a_user_can_add_a_synonym_in_any_case(key: str, name: str) -> None:
    assert labels.canonical(name, {key: "angry"}) == "angry"


def test_a_user_may_say_what_an_ambiguous_synonym_means_but_not_redefine_an_emotion() -> None:
    assert labels.canonical("joy", {"joy": "surprise"}) == "surprise"
    assert labels.canonical("sad", {"Sad": "sad"}) == "sad"
    with pytest.raises(ConfigError, match=r"'sad' to mean 'sad' alone, found 'angry'"):
        labels.canonical("happy", {"SAD": "angry"})


def test_a_minus_before_a_number_matters() -> None:
    assert labels.canonical("very_-_sad", {"very sad": "sad"}) == "sad"
    with pytest.raises(DataError):
        labels.canonical("-1", {"1": "sad"})


def test_each_readers_codes_name_every_emotion_once() -> None:
    assert sorted(fer2013.TABLE_EMOTIONS) == sorted(labels.EMOTIONS)
    assert sorted(rafdb.CODES.values()) == sorted(labels.EMOTIONS)


def test_rafdb_codes_are_those_of_its_authors() -> None:
    assert [rafdb.CODES[str(code)] for code in range(1, 8)] == [
        "surprise", "fear", "disgust", "happy", "sad", "angry", "neutral",
    ]  # fmt: skip
