"""A few hundred of the cases that ``python -m tests.fuzz`` has ten thousand of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fer.core.command_line import refuse_odd_choices
from fer.core.errors import DataError
from tests.fuzz import SHARES, Tally, fuzz

CASES = 300


def test_odd_files_and_options_load_or_end_in_their_documented_error(tmp_path: Path) -> None:
    lines: list[str] = []
    tally = fuzz(tmp_path, CASES, 0, lines.append)
    assert len(lines) == len(SHARES)
    assert sum(tally.loaded.values()) + sum(tally.refused.values()) >= CASES / 2
    # Neither all nor none: a case that is always refused at its first byte tests little.
    for name in (
        "image",
        "archive",
        "checkpoint",
        "safetensors",
        "RAF-DB annotation",
        "image,label table",
    ):
        assert tally.loaded[name] and tally.refused[name], name


def test_the_same_seed_makes_the_same_cases(tmp_path: Path) -> None:
    found: list[tuple[Counter[str], Counter[str]]] = []
    for number in (1, 1, 2):
        place = tmp_path / str(len(found))
        place.mkdir()
        tally = fuzz(place, 60, number, lambda line: None)
        found.append((tally.loaded, tally.refused))
    assert found[0] == found[1] != found[2]


def test_an_error_that_is_not_documented_is_not_taken_for_one() -> None:
    tally = Tally()
    with pytest.raises(KeyError), tally.case("image"):
        raise KeyError("undocumented")
    with pytest.raises(AssertionError), tally.case("image"):
        raise DataError("without its three parts")
    with tally.case("image"):
        raise DataError("expected one thing, found another")
    assert tally.refused == {"image": 1} and not tally.loaded


@pytest.mark.parametrize("item", ["model=", "model=null", "dataset=0", "~dataset=0", "loss={a: 1}"])
def test_a_choice_that_is_no_word_is_answered_with_the_options(item: str) -> None:
    """Hydra's own answer is a traceback."""
    with pytest.raises(SystemExit, match=r"expected one of \w+, "):
        refuse_odd_choices([item])


@pytest.mark.parametrize(
    ("item", "words"),
    [("=0", "no key"), ("hydra/launcher=1", "expected a name"), ("x" * 300 + "=1", "a key of 300")],
)
def test_overrides_that_hydra_does_not_expect_are_answered(item: str, words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        refuse_odd_choices([item])


@pytest.mark.parametrize(
    "item", ["model=shared_cnn", "dataset=a,b", "-m", "~logger", "seed=1", "x"]
)
def test_other_options_are_left_to_hydra(item: str) -> None:
    refuse_odd_choices([item])
