"""What a run says of where it came from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fer.runs import provenance


def test_the_state_of_the_checkout_is_asked_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed meanwhile would leave it, and git would refuse the next commit."""

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    file, index = tmp_path / "a.py", tmp_path / ".git" / "index"
    file.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(provenance, "__file__", str(file))
    os.utime(file, (0, 0))  # git would note the new time in its index
    before = index.read_bytes()
    state = provenance.git_state()
    assert state is not None and not state["dirty"]
    assert index.read_bytes() == before
    file.write_text("2")
    state = provenance.git_state()
    assert state is not None and state["dirty"]
