"""The reader on the real FER2013 archive; runs where ``FER_SHARED_DATA`` points to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer import labels
from fer.data.fer2013 import OFFICIAL_COUNTS, TABLE_EMOTIONS, FER2013Reader
from fer.data.manifest import Entry
from fer.data.prepare import Prepared, prepare

# Measured once on the public archive with `python -m fer.data.prepare dataset=fer2013`.
FINGERPRINT = "046377511a0537b08cf77f4298a42d3e084d4abf730b6f44f4c9a0c12eb02caa"


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    archive = shared_data / "fer2013" / "archive.zip"
    return prepare("fer2013", tmp_path_factory.mktemp("real"), FER2013Reader(), raw=archive)


def test_the_archive_is_the_reference_copy(real: Prepared) -> None:
    assert real.integrity["counts"] == OFFICIAL_COUNTS
    assert real.integrity["matches_official_counts"] is True
    assert real.integrity["fingerprint"] == FINGERPRINT
    published = {"train": (129.47, 65.04), "val": (128.98, 65.02), "test": (129.08, 65.37)}
    for split, (mean, std) in published.items():
        assert real.integrity["pixels"][split]["mean"] == pytest.approx(mean, abs=0.005)
        assert real.integrity["pixels"][split]["std"] == pytest.approx(std, abs=0.005)


def test_duplicates_and_blanks_are_surfaced(real: Prepared) -> None:
    duplicates = real.integrity["duplicates"]
    assert duplicates["groups"] > duplicates["groups_across_splits"] > 0
    assert duplicates["groups_with_conflicting_labels"] > 0
    assert real.integrity["blank"]


def test_the_table_prepares_to_the_same_fingerprint(real: Prepared, tmp_path: Path) -> None:
    usage = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
    table = tmp_path / "icml_face_data.csv"

    def row(index: int, entry: Entry) -> str:
        pixels = " ".join(map(str, np.asarray(real.read(index)).ravel()))
        return f"{TABLE_EMOTIONS.index(entry.emotion)}, {usage[entry.split]},{pixels}\n"

    with table.open("w") as file:
        file.write("emotion, Usage, pixels\n")
        file.writelines(row(index, entry) for index, entry in enumerate(real.entries))
    prepared = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=table)
    assert prepared.integrity["fingerprint"] == FINGERPRINT
    assert list(labels.EMOTIONS) == list(prepared.integrity["counts"]["test"])
