"""How time and memory grow with a dataset.  python benchmarks/growth.py --images 10000 50000

Near duplicates among drawn hashes: most far apart, a tenth in small clouds about a picture, one in
a hundred a copy of one picture, as blanks are. Then preparation, without figures, and the cache of
48 x 48 gray pictures of smooth noise. Each size is measured in a process of its own, before which
it has imported what it needs. Prints JSON: seconds, and megabytes at the peak, of which
`megabytes_before` were there when it began.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer.core import labels
from fer.data.audit.integrity import NEAR_BITS
from fer.data.audit.neighbours import group_near
from fer.data.dataset import load_images
from fer.data.preparation import prepare
from fer.data.readers.base import RawDataset, Reader, Record

CLOUD = 5
"""Pictures about one, on average."""
SPLITS = ("train",) * 8 + ("val", "test")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    sizes = [10_000, 100_000, 1_000_000]
    parser.add_argument("--hashes", type=int, nargs="*", default=sizes, help="%(default)s")
    parser.add_argument("--images", type=int, nargs="*", default=[2_000], help="%(default)s")
    options = parser.parse_args()
    print(
        json.dumps(
            {
                "near_duplicates": [alone(search, count) for count in options.hashes],
                "preparation": [alone(prepare_noise, count) for count in options.images],
            },
            indent=2,
        )
    )


def alone(measure: Callable[[int], dict[str, Any]], count: int) -> dict[str, Any]:
    """What ``measure`` says in a process of its own, whose peak of memory is its own too."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(measure, count).result()


def peak() -> float:
    """Most memory that this process has held so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def search(count: int) -> dict[str, Any]:
    """Near duplicates among ``count`` hashes."""
    hashes = draw_hashes(count)
    before = peak()
    start, cpu = time.perf_counter(), time.process_time()
    group = group_near(hashes, NEAR_BITS)
    return {
        "hashes": count,
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "megabytes": peak(),
        "megabytes_before": before,
        "groups": int((np.bincount(group) > 1).sum()),
    }


def draw_hashes(count: int) -> np.ndarray:
    """``(count, 16)`` uint8."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    near = rng.permutation(count)[: count // 10]
    hashes[near] = hashes[near[rng.integers(0, max(1, len(near) // CLOUD), len(near))]]
    for _ in range(6):  # each flips one bit of each, so that two of a cloud differ in up to twelve
        flipped = rng.integers(0, 127, len(near))
        hashes[near, flipped // 8] ^= (128 >> flipped % 8).astype(np.uint8)
    hashes[rng.permutation(count)[: count // 100]] = 0
    return hashes


@dataclass
class Noise:
    """Draws the picture of a record."""

    path: Path

    def read(self, record: Record) -> np.ndarray:
        """``(48, 48)`` uint8."""
        rng = np.random.default_rng(int(record.id))
        return cv2.GaussianBlur(rng.integers(0, 256, (48, 48), dtype=np.uint8), (0, 0), 1.0)

    def signature(self) -> str:
        """Always the same."""
        return "noise"


class NoiseReader(Reader):
    """Lists as many pictures as its raw folder's name says."""

    def list(self, raw: Path) -> RawDataset:
        """One emotion after the other, every tenth in val and in test."""
        names = [str(i) for i in range(int(raw.name))]
        records = [
            Record(name, labels.EMOTIONS[i % 7], SPLITS[i // 7 % 10], name, name)
            for i, name in enumerate(names)
        ]
        return RawDataset(Noise(raw), "noise", records)


def prepare_noise(count: int) -> dict[str, Any]:
    """Preparation of ``count`` pictures and their cache."""
    before = peak()
    with tempfile.TemporaryDirectory(prefix="fer_growth_") as folder:
        raw = Path(folder) / "raw" / str(count)
        raw.mkdir(parents=True)
        start = time.perf_counter()
        prepared = prepare("noise", Path(folder) / "noise", NoiseReader(), raw=raw)
        seconds, megabytes = time.perf_counter() - start, peak()
        start = time.perf_counter()
        images = load_images(prepared, 48, 1)
        return {
            "images": count,
            "seconds": round(seconds, 1),
            "megabytes": megabytes,
            "megabytes_before": before,
            "cache_seconds": round(time.perf_counter() - start, 1),
            "cache_megabytes": round(images.nbytes / 2**20, 1),
            "megabytes_with_cache": peak(),
        }


if __name__ == "__main__":
    main()
