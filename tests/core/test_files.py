"""Files are complete or absent, and written in the order in which they were given."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fer.core.files import BackgroundWriter, write_bytes


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_has_the_mode_that_open_would_give(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        path = write_bytes(tmp_path / "a.json", b"{}")
    finally:
        assert os.umask(before) == mask
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def held_back(held: threading.Event) -> Callable[..., object]:
    """:func:`write_bytes`, once the event has come."""
    return lambda path, data, **options: (held.wait(10), write_bytes(path, data, **options))


def test_the_background_writer_keeps_the_order_and_does_not_wait(tmp_path: Path) -> None:
    path, held = tmp_path / "a", threading.Event()
    writer = BackgroundWriter()
    writer.write(held_back(held), path, b"first")
    assert not path.exists()  # the caller has gone on
    held.set()
    writer.write(write_bytes, path, b"second")
    writer.wait()
    assert path.read_bytes() == b"second"


def test_an_interrupted_wait_can_be_taken_up_again(tmp_path: Path) -> None:
    held = threading.Event()
    writer = BackgroundWriter()
    writer.write(held_back(held), tmp_path / "a", b"")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer._pending, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.wait()
    held.set()
    writer.wait()
    assert (tmp_path / "a").exists()


def test_an_error_in_the_background_is_raised_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    writer = BackgroundWriter()
    writer.write(write_bytes, tmp_path / "folder", b"")
    with pytest.raises(OSError, match="folder"):
        writer.write(write_bytes, tmp_path / "other", b"")
    writer.wait()
    assert not (tmp_path / "other").exists()


def test_a_folder_that_moves_while_a_file_waits_is_not_made_anew(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    held = threading.Event()
    writer = BackgroundWriter()
    writer.write(held_back(held), tmp_path / "run/a", b"")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    held.set()
    with pytest.raises(FileNotFoundError):
        writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
