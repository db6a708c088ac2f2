"""Copies with known alterations: each is found and named, and none is accused without a reason."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.core import labels
from fer.core.errors import DataError
from fer.data.audit import differences
from fer.data.audit.appearance import LOOKS, measure
from fer.data.audit.integrity import Inspection, inspect
from fer.data.audit.reference import (
    UNKNOWN_PIXELS,
    Reference,
    cells_of,
    checksums_of,
    load_reference,
    match,
    pair_alike,
)
from fer.data.audit.splits_compared import between_splits
from fer.data.audit.verdict import ALTERED, REFERENCE, UNKNOWN, Verdict, count_classes, judge
from fer.data.manifest import Entry, pixel_hash
from fer.data.readers.base import SPLITS, Finding
from tests.conftest import decode, to_jpeg
from tests.data.audit.test_appearance import picture

PER_SPLIT = {"train": 16, "val": 8, "test": 8}
Change = Callable[[np.ndarray], np.ndarray]


@dataclass
class Copy:
    """Images with their splits and emotions."""

    images: list[np.ndarray] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    emotions: list[str] = field(default_factory=list)

    def add(self, image: np.ndarray, split: str, emotion: str) -> None:
        self.images.append(image)
        self.splits.append(split)
        self.emotions.append(emotion)

    def changed(self, change: Change, split: str) -> Copy:
        images = [
            change(image) if own == split else image
            for image, own in zip(self.images, self.splits, strict=True)
        ]
        return replace(self, images=images)

    @property
    def entries(self) -> list[Entry]:
        rows = zip(self.images, self.splits, self.emotions, strict=True)
        return [
            Entry(str(number), emotion, split, "somewhere", pixel_hash(image))
            for number, (image, split, emotion) in enumerate(rows)
        ]

    @property
    def looks(self) -> np.ndarray:
        return np.array([measure(image, 48) for image in self.images], LOOKS)


@cache
def original() -> Copy:
    """224 pictures, with a copy within train, one across splits and a blank one, as in life."""
    copy = Copy()
    seed = 0
    for split, count in PER_SPLIT.items():
        for emotion in labels.EMOTIONS:
            for _ in range(count):
                copy.add(picture(seed), split, emotion)
                seed += 1
    copy.images[1] = copy.images[0]
    copy.images[-1] = copy.images[2]
    copy.images[5] = np.full((48, 48), 3, np.uint8)
    return copy


@cache
def reference() -> Reference:
    return Reference.of(original().entries, original().looks)


def judged(copy: Copy, known: tuple[Finding, ...] = ()) -> Verdict:
    return judge(
        copy.entries,
        copy.looks,
        reference=reference(),
        official_counts=reference().counts(),
        expected_size=48,
        known=known,
    )


def kinds(verdict: Verdict) -> set[str]:
    return {finding.kind for finding in verdict.findings}


def unsharp(amount: float) -> Change:
    return lambda x: cv2.addWeighted(x, 1 + amount, cv2.GaussianBlur(x, (0, 0), 1.0), -amount, 0)


def tone(gain: float, offset: float) -> Change:
    return lambda x: np.clip(gain * x.astype(np.float32) + offset, 0, 255).astype(np.uint8)


def noise(x: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(int(x[0, 0]))
    return np.clip(x + rng.normal(0, 16, x.shape), 0, 255).astype(np.uint8)


def shift(x: np.ndarray) -> np.ndarray:
    return np.roll(x, (3, 4), axis=(0, 1))


ALTERATIONS: dict[str, tuple[str, Change]] = {
    "blur": ("smoothed", lambda x: cv2.GaussianBlur(x, (0, 0), 0.8)),
    "light blur": ("smoothed", lambda x: cv2.GaussianBlur(x, (0, 0), 0.5)),
    "median": ("smoothed", lambda x: cv2.medianBlur(x, 3)),
    "smaller and back": (
        "smoothed",
        lambda x: cv2.resize(cv2.resize(x, (36, 36), interpolation=cv2.INTER_AREA), (48, 48)),
    ),
    "unsharp mask": ("sharpened", unsharp(0.5)),
    "lower contrast": ("contrast", tone(0.8, 25)),
    "higher contrast": ("contrast", tone(1.2, -25)),
    "brighter": ("brightness", tone(1.0, 12)),
    "noise": ("noise", noise),
    "few gray levels": ("posterised", lambda x: x // 16 * 16 + 8),
    "negative": ("unrecognised", lambda x: 255 - x),
    "mirrored": ("unrecognised", lambda x: np.ascontiguousarray(x[:, ::-1])),
    "larger": ("upscaled", lambda x: cv2.resize(x, (96, 96))),
    "smaller": ("downscaled", lambda x: cv2.resize(x, (32, 32), interpolation=cv2.INTER_AREA)),
    "other pictures": ("unrecognised", lambda x: picture(10_000 + int(x.sum()) % 5000)),
}


def test_the_reference_copy_is_the_reference_copy() -> None:
    verdict = judged(original())
    assert verdict.verdict == REFERENCE and not verdict.findings
    assert verdict.compared is not None and verdict.compared["identical"] == 224


@cache
def encoded() -> tuple[Copy, Reference]:
    """The pictures as a JPEG archive, and a reference that is made of it and knows the originals.

    The original pixels of two of them are not known.
    """
    copy = original()
    for split in SPLITS:
        copy = copy.changed(lambda image: decode(to_jpeg(image, 92)), split)
    checksums = checksums_of(original().entries)
    checksums[-3:-1] = UNKNOWN_PIXELS
    table_rows = np.arange(len(checksums), dtype=np.uint16)
    return copy, Reference.of(copy.entries, copy.looks, checksums, table_rows)


def judged_by(known: Reference, copy: Copy) -> Inspection:
    return inspect(
        copy.entries, copy.looks, reference=known, official_counts=known.counts(), expected_size=48
    )


def test_each_encoding_is_named_and_both_are_the_same_images() -> None:
    archive, known = encoded()
    one, two = judged_by(known, archive), judged_by(known, original())
    assert one["verdict"] == two["verdict"] == REFERENCE and not one["findings"]
    assert "public image archive, pixel for pixel, a JPEG encoding" in one["verdict_text"]
    assert "this is the authors' table, pixel for pixel" in two["verdict_text"]
    assert "(the original pixels of 2 images" in two["verdict_text"]
    # The blank picture is the same in both.
    counts = [found["compared_with_reference"] or {} for found in (one, two)]
    assert [(own["identical"], own["original"]) for own in counts] == [(224, 1), (1, 222)]
    assert one["fingerprint"] != two["fingerprint"]
    assert one["identity"] == two["identity"]


def test_images_of_both_encodings_are_neither_of_them() -> None:
    archive, known = encoded()
    table = original()
    images = [*archive.images[:100], *table.images[100:]]
    found = judged_by(known, replace(table, images=images))
    assert found["verdict"] == REFERENCE
    assert (
        "encoded anew: 123 images are equal pixel for pixel to the authors' table, 100 to"
        in (found["verdict_text"])
    )
    assert "the others within what compression changes" in found["verdict_text"]


def test_who_is_who_follows_the_splits_and_needs_every_image() -> None:
    archive, known = encoded()
    whole = judged_by(known, archive)["identity"]
    relabelled = replace(archive, emotions=[*archive.emotions[1:], archive.emotions[0]])
    assert judged_by(known, relabelled)["identity"] == whole
    moved = replace(archive, splits=["test", *archive.splits[1:]])
    assert judged_by(known, moved)["identity"] not in (None, whole)
    stranger = replace(archive, images=[picture(9_999), *archive.images[1:]])
    assert judged_by(known, stranger)["identity"] is None


def test_a_checksum_that_collides_is_not_taken_for_the_original() -> None:
    archive, known = encoded()
    # Of another picture, which only the first four bytes of the checksum make equal.
    entries = [replace(entry, sha256=f"{0xFF:08x}" + 56 * "0") for entry in archive.entries[:1]]
    strange = replace(known, originals=np.full_like(known.originals, 0xFF))
    other = np.array([measure(255 - archive.images[0], 48)], LOOKS)
    assert not match(entries, other, strange).identical.any()
    assert match(entries, archive.looks[:1], strange).identical.all()


@pytest.mark.parametrize("quality", [95, 90, 75])
def test_encoding_a_copy_anew_is_no_alteration(quality: int) -> None:
    copy = original()
    for split in SPLITS:
        copy = copy.changed(lambda x: decode(to_jpeg(x, quality)), split)
    verdict = judged(copy)
    assert verdict.verdict == REFERENCE, verdict
    assert "encoded anew" in verdict.text


@pytest.mark.parametrize(("name", "split"), [*zip(ALTERATIONS, itertools.cycle(SPLITS))])
def test_an_altered_split_is_found_and_named(name: str, split: str) -> None:
    kind, change = ALTERATIONS[name]
    verdict = judged(original().changed(change, split))
    assert verdict.verdict == ALTERED
    assert {finding.split for finding in verdict.findings} == {split}
    # So much noise strengthens details, too.
    assert kinds(verdict) == {kind} or name == "noise", verdict.findings
    (finding,) = (finding for finding in verdict.findings if finding.kind == kind)
    assert f"{split}: " in finding.text
    # All of the split, but for the blank picture and the copies that are elsewhere, too.
    assert finding.images >= 0.9 * 7 * PER_SPLIT[split]


def test_an_image_of_another_size_does_not_hide_what_was_done_to_the_others() -> None:
    copy = original().changed(ALTERATIONS["lower contrast"][1], "val")
    copy.images[copy.splits.index("val")] = np.full((96, 96), 7, np.uint8)
    assert {"upscaled", "contrast"} <= kinds(judged(copy))


def test_a_whole_copy_that_was_altered_is_found_too() -> None:
    copy = original()
    for split in SPLITS:
        copy = copy.changed(ALTERATIONS["blur"][1], split)
    verdict = judged(copy)
    assert [(finding.kind, finding.split) for finding in verdict.findings] == [
        ("smoothed", split) for split in SPLITS
    ]


def test_one_altered_class_is_named() -> None:
    copy = original()
    images = [
        cv2.GaussianBlur(image, (0, 0), 1.0) if (split, emotion) == ("train", "fear") else image
        for image, split, emotion in zip(copy.images, copy.splits, copy.emotions, strict=True)
    ]
    (finding,) = judged(replace(copy, images=images)).findings
    assert (finding.kind, finding.split, finding.emotion) == ("smoothed", "train", "fear")


def test_moving_a_picture_in_its_frame_is_named() -> None:
    verdict = judged(original().changed(lambda x: np.roll(x, 1, axis=1), "val"))
    assert "layout" in kinds(verdict) and kinds(verdict) <= {"layout", "unrecognised"}


def test_images_moved_to_another_split_are_named() -> None:
    copy = original()
    splits = list(copy.splits)
    for index in (20, 21, 22):
        splits[index] = "val"
    verdict = judged(replace(copy, splits=splits))
    assert kinds(verdict) == {"re-split"}
    assert "3 of train are in val" in verdict.findings[0].text
    assert verdict.compared is not None and verdict.compared["moved"] == 3


def test_one_image_in_another_split_is_enough_however_large_the_copy_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(differences, "STRAY", 0.1)  # a share, of which one image is less
    copy = original()
    splits = [*copy.splits]
    splits[20] = "val"
    (finding,) = judged(replace(copy, splits=splits)).findings
    assert (finding.kind, finding.images) == ("re-split", 1)


def test_images_moved_to_another_split_are_named_in_a_processed_copy_too() -> None:
    copy = original()
    images = [cv2.GaussianBlur(image, (0, 0), 3.0) for image in copy.images]
    splits = list(copy.splits)
    splits[20:50] = ["val"] * 30
    assert {"smoothed", "re-split"} <= kinds(judged(replace(copy, images=images, splits=splits)))


def test_both_directions_are_named() -> None:
    darker, brighter = tone(1.0, -16), tone(1.0, 16)
    images = [(darker if index % 3 else brighter)(x) for index, x in enumerate(original().images)]
    texts = [finding.text for finding in judged(replace(original(), images=images)).findings]
    for split, word in itertools.product(SPLITS, ("darker", "brighter")):
        assert any(text.startswith(split) and word in text for text in texts)


def test_exchanged_labels_are_named() -> None:
    copy = original()
    swap = {"fear": "sad", "sad": "fear"}
    verdict = judged(replace(copy, emotions=[swap.get(name, name) for name in copy.emotions]))
    assert kinds(verdict) == {"relabelled"}
    assert "32 of fear are called sad; 32 of sad are called fear" in verdict.findings[0].text


def test_what_is_exchanged_in_a_copy_that_was_encoded_anew_is_not_called_missing_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(differences, "STRAY", 0.03)  # of so few images as these
    copy = original()
    images = [decode(to_jpeg(image)) for image in copy.images]
    images[20] = picture(9_000)  # is none of them, and has its own emotion still
    emotions = [{"disgust": "sad", "sad": "disgust"}.get(name, name) for name in copy.emotions]
    verdict = judged(replace(copy, images=images, emotions=emotions))
    assert kinds(verdict) == {"relabelled"}, verdict.findings


def test_a_picture_that_stands_under_two_labels_is_not_taken_for_a_moved_one() -> None:
    """Exchanged, each of its two copies has the label that belongs to the other one's split."""
    copy = original()
    assert copy.splits[2] != copy.splits[-1] and copy.emotions[2] != copy.emotions[-1]
    swap = {copy.emotions[2]: copy.emotions[-1], copy.emotions[-1]: copy.emotions[2]}
    verdict = judged(replace(copy, emotions=[swap.get(name, name) for name in copy.emotions]))
    assert kinds(verdict) == {"relabelled"}, verdict.findings


def test_missing_images_are_counted() -> None:
    copy = original()
    verdict = judged(Copy(copy.images[3:], copy.splits[3:], copy.emotions[3:]))
    assert kinds(verdict) == {"missing"}
    assert verdict.findings[0].images == 3 and "3 of train" in verdict.findings[0].text


def test_missing_images_are_counted_in_a_copy_that_was_encoded_anew_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(differences, "STRAY", 0.1)  # a share, of which eight images are less
    copy = original()
    for split in SPLITS:
        copy = copy.changed(lambda x: decode(to_jpeg(x)), split)
    (finding,) = judged(Copy(copy.images[8:], copy.splits[8:], copy.emotions[8:])).findings
    assert (finding.kind, finding.images) == ("missing", 8)


def test_a_class_that_was_filled_up_is_named_with_what_it_was_filled_with() -> None:
    copy = original()
    grown = Copy(list(copy.images), list(copy.splits), list(copy.emotions))
    for index in range(16, 26):  # disgust
        grown.add(np.ascontiguousarray(copy.images[index][:, ::-1]), "train", "disgust")
    for index in range(16, 21):
        grown.add(copy.images[index], "train", "disgust")
    for seed in range(5):
        grown.add(picture(9000 + seed), "train", "disgust")
    (finding,) = judged(grown).findings
    assert (finding.kind, finding.split, finding.emotion) == ("augmented", "train", "disgust")
    assert finding.images == 20
    assert "20 images more than in the reference copy (20 disgust)" in finding.text


def test_a_filled_up_class_is_named_in_a_processed_copy_too() -> None:
    copy = original()
    grown = Copy(list(copy.images), list(copy.splits), list(copy.emotions))
    for seed in range(16):
        grown.add(picture(9000 + seed), "train", "disgust")
    for split in SPLITS:
        grown = grown.changed(ALTERATIONS["higher contrast"][1], split)
    verdict = judged(grown)
    assert kinds(verdict) == {"contrast", "augmented"}, verdict.findings
    assert verdict.findings[-1].emotion == "disgust" and verdict.findings[-1].images == 16


def test_a_renamed_copy_is_the_reference_copy_and_says_that_it_was_renamed() -> None:
    renamed = Finding("renamed", "The files were renamed.")
    verdict = judged(original(), (renamed,))
    assert verdict.verdict == REFERENCE and verdict.findings == [renamed]
    assert "renamed" in verdict.text


def test_what_the_names_betray_makes_an_altered_copy() -> None:
    verdict = judged(original(), (Finding("re-split", "Files stand in other folders."),))
    assert verdict.verdict == ALTERED and "re-split" in verdict.text


def test_the_order_of_the_images_does_not_matter() -> None:
    copy = original().changed(ALTERATIONS["blur"][1], "val")
    order = np.random.default_rng(0).permutation(len(copy.images))
    mixed = Copy(
        [copy.images[i] for i in order],
        [copy.splits[i] for i in order],
        [copy.emotions[i] for i in order],
    )
    assert judged(mixed) == judged(copy)


def test_other_pictures_are_unknown_not_altered() -> None:
    copy = Copy()
    for seed in range(100):
        copy.add(picture(50_000 + seed), SPLITS[seed % 3], labels.EMOTIONS[seed % 7])
    verdict = judged(copy)
    assert verdict.verdict == UNKNOWN and "Only 0 of 100" in verdict.text


def test_every_picture_processed_beyond_recognition_under_the_official_counts_is_altered() -> None:
    copy = original()
    images = [picture(70_000 + seed) for seed in range(len(copy.images))]
    assert judged(replace(copy, images=images)).verdict == ALTERED


def test_a_dataset_without_an_official_copy_is_unknown() -> None:
    verdict = judge(
        original().entries,
        original().looks,
        reference=None,
        official_counts=None,
        expected_size=None,
    )
    assert verdict.verdict == UNKNOWN and not verdict.findings


def test_own_images_are_not_accused_but_splits_that_differ_are_reported(two_splits: Copy) -> None:
    copy = two_splits.changed(ALTERATIONS["blur"][1], "test")
    verdict = judge(
        copy.entries, copy.looks, reference=None, official_counts=None, expected_size=None
    )
    assert verdict.verdict == UNKNOWN
    assert [finding.kind for finding in verdict.findings] == ["smoothed"]


# --- matching ---------------------------------------------------------------------------------


def test_each_image_is_matched_once_and_where_it_belongs() -> None:
    for step in (1, -1):  # whichever copy of a picture comes first
        copy = original()
        copy = Copy(copy.images[::step], copy.splits[::step], copy.emotions[::step])
        found = match(copy.entries, copy.looks, reference())
        assert sorted(found.rows.tolist()) == list(range(len(copy.images)))
        np.testing.assert_array_equal(reference().cells[found.rows], cells_of(copy.entries))


def test_hashes_are_paired_one_to_one_the_closest_first() -> None:
    right = np.random.default_rng(0).integers(0, 256, (40, 16), dtype=np.uint8)
    near = right ^ np.packbits(np.arange(128) < 2)  # each has a rival at two bits
    pairs = [np.stack(part) for part in pair_alike(np.concatenate([near, right]), right, 16)]
    left, found, bits = np.concatenate(pairs, axis=1)
    np.testing.assert_array_equal(np.sort(left), np.arange(40, 80))
    np.testing.assert_array_equal(left - 40, found)
    assert not bits.any()


def test_encoded_copies_are_matched_where_they_belong() -> None:
    copy = original().changed(lambda x: decode(to_jpeg(x)), "train")
    found = match(copy.entries, copy.looks, reference())
    known = found.rows >= 0
    assert known.sum() >= len(copy.images) - 1  # the blank picture looks like anything
    np.testing.assert_array_equal(
        reference().cells[found.rows[known]], cells_of(copy.entries)[known]
    )


def test_only_a_copy_with_the_official_counts_can_become_the_reference(
    tmp_path: Path, tiny_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fer.data import make_reference as module
    from fer.data.preparation import prepare
    from fer.data.readers.fer2013 import FER2013Reader

    prepare("fer2013", tmp_path / "d", FER2013Reader(), raw=tiny_zip)
    monkeypatch.setattr("sys.argv", ["reference", str(tmp_path / "d"), "tiny"])
    with pytest.raises(DataError, match="expected the official number of images"):
        module.main()
    assert load_reference("tiny") is None


def test_the_shipped_reference_has_the_official_counts() -> None:
    from fer.data.readers.fer2013 import OFFICIAL_COUNTS

    shipped = load_reference("fer2013")
    assert shipped is not None and shipped.counts() == OFFICIAL_COUNTS
    assert load_reference("nothing") is None


# --- without a reference ----------------------------------------------------------------------

RAFDB_LIKE: Mapping[str, Mapping[str, int]] = {
    split: dict.fromkeys(labels.EMOTIONS, count) for split, count in (("train", 24), ("test", 8))
}
"""Official counts without val: what original() has when val was held out of train."""


def without_reference(
    copy: Copy, size: int | None = 48, known: tuple[Finding, ...] = ()
) -> Verdict:
    return judge(
        copy.entries,
        copy.looks,
        reference=None,
        official_counts=RAFDB_LIKE,
        expected_size=size,
        known=known,
    )


def test_official_counts_alone_do_not_make_a_reference_copy() -> None:
    verdict = without_reference(original())
    assert verdict.verdict == UNKNOWN and "official ones" in verdict.text


def test_names_alone_say_nothing_where_the_pixels_are_not_known() -> None:
    copy, renamed = original(), Finding("renamed", "The files were renamed.")
    verdict = without_reference(copy, known=(renamed,))
    assert verdict.verdict == UNKNOWN and verdict.findings == [renamed]


def test_other_counts_are_unknown() -> None:
    copy = original()
    verdict = without_reference(Copy(copy.images[::3], copy.splits[::3], copy.emotions[::3]))
    assert verdict.verdict == UNKNOWN and "not the official ones" in verdict.text


def test_a_filled_up_class_shows_in_the_counts() -> None:
    grown = Copy(list(original().images), list(original().splits), list(original().emotions))
    for seed in range(30):
        grown.add(picture(90_000 + seed), "train", "disgust")
    (finding,) = without_reference(grown).findings
    assert (finding.kind, finding.emotion, finding.images) == ("augmented", "disgust", 30)


def test_moved_images_show_in_the_counts() -> None:
    copy = original()
    splits = ["train" if i % 9 == 0 else split for i, split in enumerate(copy.splits)]
    verdict = without_reference(replace(copy, splits=splits))
    assert verdict.verdict == ALTERED and kinds(verdict) == {"re-split"}


def test_an_upscaled_copy_shows_in_the_sizes() -> None:
    verdict = without_reference(original().changed(lambda x: cv2.resize(x, (96, 96)), "test"))
    assert kinds(verdict) == {"upscaled"}
    assert without_reference(original().changed(lambda x: cv2.resize(x, (96, 96)), "test"), None)


@pytest.fixture(scope="module")
def two_splits() -> Copy:
    """Enough pictures for the splits to be held against each other."""
    copy = Copy()
    for seed in range(1400):
        copy.add(picture(seed), ("train", "test")[seed % 2], labels.EMOTIONS[seed % 7])
    return copy


def test_splits_of_one_kind_are_not_accused(two_splits: Copy) -> None:
    assert not between_splits(two_splits.entries, two_splits.looks, held_out=True)


@pytest.mark.parametrize("name", ["blur", "light blur", "unsharp mask"])
def test_a_split_that_was_processed_differs_from_the_other(name: str, two_splits: Copy) -> None:
    kind, change = ALTERATIONS[name]
    copy = two_splits.changed(change, "test")
    found = between_splits(copy.entries, copy.looks, held_out=True)
    assert kind in {finding.kind for finding in found}
    assert all(finding.split == "test" for finding in found)


def test_a_rebalanced_split_alone_is_not_called_processed(two_splits: Copy) -> None:
    """Emotions differ in looks: each is held against itself, whatever its share."""
    sharp = replace(
        two_splits,
        images=[
            unsharp(1.0)(image) if emotion == "happy" else image
            for image, emotion in zip(two_splits.images, two_splits.emotions, strict=True)
        ],
    )
    keep = [
        i
        for i, (split, emotion) in enumerate(zip(sharp.splits, sharp.emotions, strict=True))
        if not (split == "test" and emotion == "happy" and i % 4)
    ]
    fewer = Copy(
        [sharp.images[i] for i in keep],
        [sharp.splits[i] for i in keep],
        [sharp.emotions[i] for i in keep],
    )
    assert not between_splits(fewer.entries, fewer.looks, held_out=True)


# --- the rest of integrity.json ---------------------------------------------------------------


def test_near_duplicates_are_found_and_grouped() -> None:
    copy = Copy()
    for seed in range(40):
        copy.add(picture(seed), "train", "happy")
    copy.add(decode(to_jpeg(copy.images[0])), "test", "happy")
    copy.add(cv2.GaussianBlur(copy.images[0], (0, 0), 0.7), "val", "sad")
    copy.add(copy.images[1], "test", "happy")  # an exact copy is not a near one
    found = inspect(copy.entries, copy.looks)["near_duplicates"]
    assert (found["groups"], found["images"]) == (1, 3)
    assert (found["groups_across_splits"], found["groups_with_conflicting_labels"]) == (1, 1)
    assert {item["id"] for item in found["listed"][0]} == {"0", "40", "41"}


def test_leaks_are_counted_from_both_sides() -> None:
    copy = Copy()
    for seed, split in ((0, "train"), (0, "train"), (0, "test"), (1, "val"), (1, "test")):
        copy.add(picture(seed), split, "happy")
    found = inspect(copy.entries, copy.looks)
    assert found["leaks"] == {
        "train_in_val_or_test": 2,
        "val_in_train": 0,
        "test_in_train_or_val": 2,
    }


def test_odd_sizes_are_named() -> None:
    copy = original().changed(lambda x: x[:40], "test")
    found = inspect(copy.entries, copy.looks, expected_size=48)
    assert found["odd_sizes"]["images"] == 56
    assert found["sizes"]["48x40"] == 56
    assert found["counts"] == count_classes(copy.entries)
