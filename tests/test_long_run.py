"""A training that runs long: nothing grows, and TensorBoard can be read meanwhile.

``python benchmarks/long_run.py`` does the same with two hundred epochs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from long_run import SMALL, Sample, count_events, find_growth, watch

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
EPOCHS = 20


@pytest.mark.slow
def test_memory_open_files_and_disk_do_not_grow_and_tensorboard_can_be_read_meanwhile(
    tmp_path: Path,
) -> None:
    samples = watch(
        tmp_path / "run",
        [*SMALL, f"paths.data={tmp_path / 'data'}", f"trainer.max_epochs={EPOCHS}"],
    )
    assert len(samples) >= 3 and find_growth(samples) == []
    # While it ran: of every epoch but those that the writer still held in memory.
    assert all(sample.epoch - 2 <= sample.events <= EPOCHS for sample in samples)
    assert [sample.events for sample in samples] == sorted(sample.events for sample in samples)
    assert 0 < samples[0].events < EPOCHS
    assert count_events(tmp_path / "run/tensorboard") == EPOCHS
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"memory_mb": 450.0}, "memory grew by 50 MB"),
        ({"files": 60}, "40 more files are open"),
        ({"disk_bytes": 500_000}, "run folder grew"),
        ({"event_bytes": 10_000_000}, "TensorBoard's files grew"),
    ],
)
def test_growth_is_seen(change: dict[str, float], words: str) -> None:
    samples = [Sample(n, 400.0, 20, 100_000, 400 * n, n) for n in range(1, 201)]
    assert find_growth(samples) == []
    (found,) = find_growth([*samples, replace(samples[-1], **change)])  # type: ignore[arg-type]
    assert words in found
