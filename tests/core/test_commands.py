"""What messages print to be pasted reaches the program as it was meant."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fer.core.commands import typed

ODD = ["a b", "a\\", "it's", 'q"x', '\\"', "${x}", "\\${x}", "高兴: happy", "C:\\data", "a,b",
       "1e5", "~x", "null", "True", "x=y", "$HOME", "a\tb", "[x]", "", "/data/faces",
       "x\\\\"]  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(ODD),
    st.text(st.sampled_from("a高/\\\"'${}[]=, :~"), max_size=8),
)


def received(line: str) -> Any:
    """What a configuration holds after ``line`` was typed in a shell."""
    (word,) = shlex.split(line)
    value = OverridesParser.create().parse_override(word).value()
    return OmegaConf.to_container(OmegaConf.create({"key": value}), resolve=True)["key"]  # type: ignore[index,call-overload]


@given(WORDS, st.lists(WORDS, max_size=3))
def test_what_is_typed_is_what_was_meant(text: str, texts: list[str]) -> None:
    assert received(typed("key", text)) == text
    assert received(typed("key", texts)) == texts


@pytest.mark.parametrize("path", ["/data/faces", "runs/a-1/best.ckpt"])
def test_a_plain_path_needs_no_quotes(path: str) -> None:
    assert typed("resume", path) == f"resume={path}"
