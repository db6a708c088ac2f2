"""The reader on the real FER2013 archive; runs where ``FER_SHARED_DATA`` points to it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from fer.core import labels
from fer.data.audit.appearance import LOOKS, measure
from fer.data.audit.integrity import inspect
from fer.data.audit.reference import Reference, load_reference
from fer.data.audit.splits_compared import compare_splits
from fer.data.audit.verdict import Verdict, judge
from fer.data.make_reference import pair_rows, place_rows
from fer.data.manifest import fingerprint, pixel_hash
from fer.data.preparation import prepare
from fer.data.prepared import Prepared
from fer.data.readers.fer2013 import OFFICIAL_COUNTS, TABLE_EMOTIONS, FER2013Reader
from fer.model.checkpoint import load_checkpoint
from fer.tasks.notes import compare_data
from tests.conftest import decode, to_jpeg

pytestmark = pytest.mark.slow  # the whole real archive

# Measured once on the public archive with `python -m fer prepare dataset=fer2013`.
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


def test_the_archives_faults_are_counted(real: Prepared) -> None:
    # Measured once with `python -m fer prepare dataset=fer2013`; images never change.
    found = real.integrity
    assert found["verdict"] == "reference copy" and found["findings"] == []
    assert found["compared_with_reference"] is not None
    assert found["compared_with_reference"]["identical"] == 35_887
    assert found["official_protocol"] is True
    duplicates = found["duplicates"]
    assert (duplicates["groups"], duplicates["images"]) == (1516, 3369)
    assert duplicates["groups_across_splits"] == 557
    assert duplicates["groups_with_conflicting_labels"] == 57
    assert found["leaks"] == {
        "train_in_val_or_test": 703,
        "val_in_train": 280,
        "test_in_train_or_val": 314,
    }
    assert len(found["blank"]) == 13
    # A bit of a hash may fall differently with another version of OpenCV.
    near = found["near_duplicates"]
    assert near["groups"] == pytest.approx(1006, rel=0.02)
    assert near["groups_across_splits"] == pytest.approx(378, rel=0.02)


def test_duplicates_and_blanks_are_surfaced(real: Prepared) -> None:
    duplicates = real.integrity["duplicates"]
    assert duplicates["groups"] > duplicates["groups_across_splits"] > 0
    assert duplicates["groups_with_conflicting_labels"] > 0
    assert real.integrity["blank"]


def test_a_table_of_the_same_images_prepares_to_the_same_fingerprint(
    real: Prepared, tmp_path: Path
) -> None:
    usage = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
    chosen = range(0, len(real.entries), 12)
    table = tmp_path / "icml_face_data.csv"

    def row(index: int) -> str:
        entry = real.entries[index]
        pixels = " ".join(map(str, real.read(index).ravel()))
        return f"{TABLE_EMOTIONS.index(entry.emotion)}, {usage[entry.split]},{pixels}\n"

    with table.open("w") as file:
        file.write("emotion, Usage, pixels\n")
        file.writelines(map(row, chosen))
    prepared = prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=table)
    expected = fingerprint([real.entries[index] for index in chosen])
    assert prepared.integrity["fingerprint"] == expected
    assert list(labels.EMOTIONS) == list(prepared.integrity["counts"]["test"])
    # A part of the archive is that, and nothing worse.
    assert [finding["kind"] for finding in prepared.integrity["findings"]] == ["missing"]


# --- copies of it that were altered --------------------------------------------------------------


@pytest.fixture(scope="module")
def looks(real: Prepared) -> np.ndarray:
    return np.array([measure(real.read(i), 48) for i in range(len(real.entries))], LOOKS)


def test_the_shipped_reference_is_made_from_the_archive_and_the_tables_checksums(
    real: Prepared, looks: np.ndarray, shared_data: Path
) -> None:
    shipped = load_reference("fer2013")
    with (shared_data / "ferplus" / "rows.csv").open(newline="") as file:
        pairs = pair_rows(list(csv.DictReader(file)))
    made = Reference.of(real.entries, looks, *place_rows(pairs, real.entries))
    assert shipped is not None and shipped.table_rows is not None
    np.testing.assert_array_equal(shipped.originals, made.originals)
    np.testing.assert_array_equal(shipped.table_rows, made.table_rows)
    assert sorted(shipped.table_rows.tolist()) == list(range(35_887))
    np.testing.assert_array_equal(shipped.cells, made.cells)
    np.testing.assert_array_equal(shipped.checksums, made.checksums)
    assert (shipped.looks["hashes"] == made.looks["hashes"]).all(axis=1).mean() > 0.99
    np.testing.assert_allclose(shipped.looks["bands"], made.looks["bands"], atol=0.02)


@pytest.mark.parametrize("without", [True, False])
def test_the_authors_table_is_known_by_its_checksums(
    real: Prepared, looks: np.ndarray, shared_data: Path, without: bool
) -> None:
    # Nobody has the pixels here: the checksums stand for them, and the archive's looks for theirs.
    with (shared_data / "ferplus" / "rows.csv").open(newline="") as file:
        sha256 = {row["member"]: row["sha256"] for row in csv.DictReader(file) if row["member"]}
    entries = [
        replace(entry, sha256=sha256[entry.source] or (64 * "f" if without else entry.sha256))
        for entry in real.entries
    ]
    found = inspect(
        entries,
        looks,
        reference=load_reference("fer2013"),
        official_counts=OFFICIAL_COUNTS,
        expected_size=48,
    )
    assert found["verdict"] == "reference copy" and found["findings"] == []
    assert (
        "this is the authors' table, pixel for pixel (the original pixels of 178"
        in (found["verdict_text"])
    )
    compared = found["compared_with_reference"]
    assert compared is not None
    assert (compared["original"], compared["original_unknown"]) == (35_709, 178)
    assert compared["identical"] == (0 if without else 178)
    assert found["fingerprint"] != FINGERPRINT
    assert found["identity"] == real.integrity["identity"]
    # The network of this package was trained on these images, in the archive's encoding.
    pretrained = load_checkpoint("pretrained")
    notes = compare_data(pretrained, like(found))
    assert notes == [
        "The pictures are those of the copy that the network was trained on, in the same given "
        "splits; their pixels or labels differ."
    ]
    assert compare_data(pretrained, like(real.integrity)) == []


def like(integrity: Mapping[str, Any]) -> Any:
    """What notes ask of a data module."""
    options = dict.fromkeys(("leaks", "blank", "conflicts"), "keep")
    prepared = SimpleNamespace(integrity=integrity)
    return SimpleNamespace(
        dataset_name="fer2013", prepared=prepared, fold=None, reader=FER2013Reader(), **options
    )


def test_the_official_splits_look_alike(real: Prepared, looks: np.ndarray) -> None:
    limits = {"sharpness": 0.01, "contrast": 0.02, "brightness": 3.0}
    for row in compare_splits(real.entries, looks, held_out=False):
        assert abs(row["difference"]) < limits[row["measure"]] and abs(row["z"]) < 3


def altered(
    real: Prepared, looks: np.ndarray, split: str, change: Callable[[np.ndarray], np.ndarray]
) -> Verdict:
    """The verdict on the archive with one split changed."""
    entries, changed = list(real.entries), looks.copy()
    for index, entry in enumerate(entries):
        if entry.split == split:
            image = change(real.read(index))
            entries[index] = replace(entry, sha256=pixel_hash(image))
            changed[index] = measure(image, 48)
    return judge(
        entries,
        changed,
        reference=load_reference("fer2013"),
        official_counts=OFFICIAL_COUNTS,
        expected_size=48,
    )


def jpeg(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: decode(to_jpeg(image, quality))


@pytest.mark.parametrize("qualities", [(95,), (90,), (75,), (50,), (75, 50), (60, 50)])
def test_the_archive_encoded_anew_is_not_accused(
    real: Prepared, looks: np.ndarray, qualities: tuple[int, ...]
) -> None:
    def encode(image: np.ndarray) -> np.ndarray:
        for quality in qualities:
            image = decode(to_jpeg(image, quality))
        return image

    verdict = altered(real, looks, "val", encode)
    assert verdict.verdict == "reference copy", verdict.findings


@pytest.mark.parametrize(
    "swap",
    [{"fear": "sad", "sad": "fear"}, {"angry": "disgust", "disgust": "fear", "fear": "angry"}],
)
def test_exchanged_labels_are_not_taken_for_another_split(
    real: Prepared, looks: np.ndarray, swap: dict[str, str]
) -> None:
    entries = [replace(e, emotion=swap.get(e.emotion, e.emotion)) for e in real.entries]
    verdict = judge(
        entries,
        looks,
        reference=load_reference("fer2013"),
        official_counts=OFFICIAL_COUNTS,
        expected_size=48,
    )
    assert [finding.kind for finding in verdict.findings] == ["relabelled"]


def noise(x: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(int(x[:5].sum()))
    return np.clip(np.round(x + rng.normal(0, 5, x.shape)), 0, 255).astype(np.uint8)


SHARP_KERNEL = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])


@pytest.mark.parametrize(
    ("kinds", "change"),
    [
        ("smoothed", lambda x: cv2.GaussianBlur(x, (0, 0), 0.4)),
        ("smoothed", lambda x: cv2.medianBlur(x, 3)),
        ("smoothed", lambda x: cv2.fastNlMeansDenoising(x, None, 5, 3, 9)),
        ("sharpened", lambda x: cv2.addWeighted(x, 1.3, cv2.GaussianBlur(x, (0, 0), 1), -0.3, 0)),
        ("contrast", lambda x: np.clip((x - 128.0) * 0.9 + 128, 0, 255).astype(np.uint8)),
        ("smoothed, contrast", lambda x: cv2.GaussianBlur(x, (0, 0), 3)),
        ("sharpened, noise", lambda x: cv2.filter2D(x, -1, SHARP_KERNEL)),
        ("noise", noise),
        ("layout, unrecognised", lambda x: np.roll(x, 1, axis=1)),
        ("brightness, posterised", lambda x: x // 16 * 16),
        ("contrast", lambda x: np.clip((x - 128.0) * 1.1 + 128, 0, 255).astype(np.uint8)),
        ("upscaled", lambda x: cv2.resize(x, (96, 96), interpolation=cv2.INTER_CUBIC)),
        ("smoothed", jpeg(20)),
        ("unrecognised", lambda x: np.ascontiguousarray(x[:, ::-1])),
        ("unrecognised", lambda x: cv2.resize(x[6:42, 6:42], (48, 48))),
    ],
)
def test_a_slight_change_of_one_split_is_named(
    real: Prepared, looks: np.ndarray, kinds: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    verdict = altered(real, looks, "test", change)
    assert verdict.verdict == "altered copy"
    assert ", ".join(finding.kind for finding in verdict.findings) == kinds, verdict.findings
    assert {finding.split for finding in verdict.findings} == {"test"}
    assert verdict.findings[0].images > 0.7 * 3589
