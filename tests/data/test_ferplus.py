"""FER+: votes find their images by what these show, whatever the form and order of the copy."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.nn import functional as F

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.data import adoption, ferplus
from fer.data.audit.appearance import LOOKS, measure
from fer.data.audit.reference import Reference, load_reference
from fer.data.datamodule import EmotionDataModule
from fer.data.ferplus import ANSWERS, FERPlusReader, majority, plurality
from fer.data.manifest import Entry, fingerprint, pixel_hash, read_manifest
from fer.data.preparation import prepare
from fer.data.prepared import Prepared
from fer.data.published import FERPlusDataModule
from fer.data.readers.fer2013 import USAGE_SPLIT, FER2013Reader
from fer.model.losses import CrossEntropyLoss, SoftLoss
from fer.model.module import EmotionModule
from fer.model.shared_cnn import SharedCNN
from tests.conftest import Row, decode, to_jpeg, write_folder, write_table, write_zip
from tests.data.audit.test_appearance import picture

PER_CLASS = {"Training": 8, "PublicTest": 3, "PrivateTest": 3}
NAMES = {
    "angry": "anger", "disgust": "disgust", "fear": "fear", "happy": "happiness",
    "sad": "sadness", "surprise": "surprise", "neutral": "neutral",
}  # fmt: skip
ODD: dict[tuple[str, str], dict[str, int]] = {
    ("Training", "fear"): {"surprise": 7, "fear": 3},  # another emotion than FER2013's
    ("Training", "happy"): {"happiness": 5, "neutral": 3, "sadness": 2},  # no majority
    ("Training", "sad"): {"contempt": 8, "sadness": 2},
    ("Training", "neutral"): {"nf": 10},
    ("PublicTest", "angry"): {"unknown": 6, "anger": 4},
    ("PrivateTest", "fear"): {"fear": 5, "surprise": 5},  # a tie
    # Of ten votes four and six single ones: the single ones are dropped.
    ("PrivateTest", "sad"): {"sadness": 4, **dict.fromkeys(ANSWERS[4:10], 1)},
    # Half of what is left, not more.
    ("PrivateTest", "happy"): {"happiness": 4, "neutral": 2, "surprise": 2, "sadness": 1, "nf": 1},
}  # fmt: skip
"""The votes for the first image of some usages and emotions; of others, nine agree with FER2013."""


def original_rows() -> list[Row]:
    """FER2013's own table in miniature: 98 pictures, emotions mixed, usages one after another."""
    rows, seed = [], 0
    for usage, count in PER_CLASS.items():
        for _ in range(count):
            for emotion in labels.EMOTIONS:
                rows.append((usage, emotion, picture(seed)))
                seed += 1
    return rows


def in_jpeg(rows: list[Row]) -> list[Row]:
    return [(usage, emotion, decode(to_jpeg(image, 92))) for usage, emotion, image in rows]


def votes_for(rows: list[Row]) -> list[dict[str, int]]:
    seen: Counter[tuple[str, str]] = Counter()
    votes = []
    for usage, emotion, _ in rows:
        usual = {NAMES[emotion]: 9, "unknown": 1}
        votes.append(ODD.get((usage, emotion), usual) if not seen[usage, emotion] else usual)
        seen[usage, emotion] += 1
    return votes


def write_votes(path: Path, rows: list[Row], votes: list[dict[str, int]]) -> Path:
    columns = ["Usage", "Image name", *ANSWERS[:-1], "NF"]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for number, ((usage, _, _), own) in enumerate(zip(rows, votes, strict=True)):
            name = f"fer{number:07d}.png" if "nf" not in own else ""
            table.writerow([usage, name, *(own.get(answer, 0) for answer in ANSWERS)])
    return path


ROWS = original_rows()
ARCHIVE = in_jpeg(ROWS)


@pytest.fixture(scope="module")
def known() -> Reference:
    """The reference of the miniature, made of its archive."""
    splits = [USAGE_SPLIT[usage] for usage, _, _ in ROWS]
    entries = [
        Entry(str(number), emotion, split, "", pixel_hash(image))
        for number, ((_, emotion, image), split) in enumerate(zip(ARCHIVE, splits, strict=True))
    ]
    looks = np.array([measure(image, 48) for _, _, image in ARCHIVE], LOOKS)
    originals = np.array([int(pixel_hash(image)[:8], 16) for _, _, image in ROWS], np.uint32)
    return Reference.of(entries, looks, originals, np.arange(len(ROWS), dtype=np.uint16))


@pytest.fixture(autouse=True)
def miniature(known: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package knows the miniature instead of FER2013."""
    for module in (ferplus, adoption):
        monkeypatch.setattr(module, "load_reference", lambda name: known)


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    return write_votes(tmp_path / "fer2013new.csv", ROWS, votes_for(ROWS))


def made(tmp_path: Path, raw: Path, rule: str = "majority", **options: Any) -> Prepared:
    reader = FERPlusReader(rule=rule, votes=options.pop("votes", None))
    return prepare("ferplus", tmp_path / "prepared", reader, raw=raw, **options)


def named(prepared: Prepared) -> dict[str, str]:
    """Emotion and split of each image, by its pixels."""
    return {entry.sha256: f"{entry.split} {entry.emotion}" for entry in prepared.entries}


def backwards(rows: list[Row]) -> list[Row]:
    return rows[::-1]


FORMS: dict[str, Callable[[Path], Path]] = {
    "archive": lambda at: write_zip(at / "archive.zip", ARCHIVE),
    "folder": lambda at: write_folder(at / "images", ARCHIVE),
    "archive in another order": lambda at: write_zip(at / "archive.zip", backwards(ARCHIVE)),
    "authors' table": lambda at: write_table(at / "fer2013.csv", ROWS),
    "authors' table in another order": lambda at: write_table(at / "fer2013.csv", backwards(ROWS)),
    "table made of the archive": lambda at: write_table(
        at / "icml_face_data.csv", ARCHIVE, "emotion, Usage, pixels"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_labels(form: str, tmp_path: Path, votes: Path) -> None:
    prepared = made(tmp_path, FORMS[form](tmp_path), votes=votes)
    is_original = "authors" in form
    images = {
        pixel_hash(image): own for own, (_, _, image) in enumerate(ROWS if is_original else ARCHIVE)
    }
    found = {images[sha256]: place for sha256, place in named(prepared).items()}
    expected = {}
    for number, (row, own) in enumerate(zip(ROWS, votes_for(ROWS), strict=True)):
        best = max(own, key=lambda name: own[name])
        total = sum(count for count in own.values() if count > 1)
        if 2 * own[best] > total and best in NAMES.values():
            emotion = next(name for name, other in NAMES.items() if other == best)
            expected[number] = f"{USAGE_SPLIT[row[0]]} {emotion}"
    assert found == expected and len(found) == 98 - 6
    integrity = prepared.integrity
    assert integrity["verdict"] == "reference copy" and integrity["official_protocol"]
    assert ("this is the authors' table" in integrity["verdict_text"]) == is_original
    assert integrity["identity"] and integrity["matches_official_counts"] is None
    files = {
        path.relative_to(prepared.folder).as_posix() for path in prepared.folder.glob("*/*/*.png")
    }
    assert files == set(prepared.files)


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path, votes: Path) -> None:
    integrity = made(tmp_path, FORMS["archive"](tmp_path)).integrity
    assert integrity["excluded"] == {
        "no answer of the annotators has enough votes": 3,
        "the annotators saw contempt, which is not one of the seven emotions": 1,
        "the annotators saw no face, or could not tell the emotion": 2,
    }
    assert sum("Left out because no answer" in line for line in integrity["warnings"]) == 1
    assert integrity["images"] == 92 and integrity["counts"]["train"]["surprise"] == 9


@pytest.mark.parametrize(
    ("rule", "train", "test"), [("plurality", 54, 20), ("distribution", 54, 19)]
)
def test_the_other_rules_keep_more(
    rule: str, train: int, test: int, tmp_path: Path, votes: Path
) -> None:
    counts = made(tmp_path, FORMS["archive"](tmp_path), rule).integrity["counts"]
    assert [sum(counts[split].values()) for split in ("train", "val", "test")] == [train, 20, test]


def test_the_votes_travel_in_the_manifest(tmp_path: Path, votes: Path) -> None:
    prepared = made(tmp_path, FORMS["archive"](tmp_path), "plurality")
    entries = read_manifest(prepared.folder / "manifest.csv")
    by_pixels = {entry.sha256: entry.votes for entry in entries}
    place = next(n for n, row in enumerate(ROWS) if row[:2] == ("Training", "happy"))
    assert by_pixels[pixel_hash(ARCHIVE[place][2])] == "0 0 0 5 2 0 3"
    place = next(n for n, row in enumerate(ROWS) if row[:2] == ("PrivateTest", "sad"))
    assert by_pixels[pixel_hash(ARCHIVE[place][2])] == "0 0 0 0 4 0 0"  # single votes are dropped
    bare = [Entry(e.id, e.emotion, e.split, e.source, e.sha256) for e in entries]
    assert fingerprint(bare) != fingerprint(entries) == prepared.integrity["fingerprint"]


def test_a_copy_that_lost_its_splits_gets_them_back_first(tmp_path: Path, votes: Path) -> None:
    moved = [("Training", emotion, image) for _, emotion, image in ARCHIVE[:-7]] + ARCHIVE[-7:]
    reader = FERPlusReader(splits="official")
    raw = write_zip(tmp_path / "archive.zip", moved)
    counts = prepare("ferplus", tmp_path / "prepared", reader, raw=raw).integrity["counts"]
    assert [sum(counts[split].values()) for split in ("train", "val", "test")] == [53, 20, 19]


@pytest.mark.parametrize("form", FORMS)
def test_second_labels_find_the_images_of_every_form(
    form: str, tmp_path: Path, votes: Path
) -> None:
    """FER2013 prepared as it is, with what the annotators saw beside its labels."""
    entries = prepare(
        "fer2013", tmp_path / "plain", FER2013Reader(), raw=FORMS[form](tmp_path)
    ).entries
    relabelled = made(tmp_path, FORMS[form](tmp_path), votes=votes)
    expected = {entry.sha256: entry for entry in relabelled.entries}
    found = ferplus.second_labels(entries, votes.parent)
    assert found is not None and found.notes == [] and found.unknown == 0
    for entry, emotion, own in zip(entries, found.emotions.tolist(), found.shares, strict=True):
        other = expected.get(entry.sha256)
        assert (emotion < 0) == (other is None)
        if other is not None:
            assert labels.EMOTIONS[emotion] == other.emotion
            counts = np.array(other.votes.split(), float)
            assert own.argmax() == counts.argmax() and own.sum() <= 1
    # In folds, where an image has another split than the authors gave it.
    folded = [replace(one, split="val") for one in entries]
    again = ferplus.second_labels(folded, votes)
    assert again is not None and again.emotions.tolist() == found.emotions.tolist()
    strangers = [replace(one, sha256="0" * 64) for one in entries]
    assert ferplus.second_labels(strangers, votes) is None
    some = ferplus.second_labels([*entries, strangers[0]], votes)
    assert some is not None and "1 image without votes" in some.notes[-1]
    assert some.unknown == 1 and some.emotions[-1] == -1 and not some.shares[-1].any()
    with pytest.raises(DataError, match=r"^votes: expected FER.'s table.*votes=PATH"):
        ferplus.second_labels(entries, tmp_path / "nowhere.csv")


# --- bad input -----------------------------------------------------------------------------------


def refuses(tmp_path: Path, match: str, raw: Path | None = None, **options: Any) -> None:
    raw = raw or FORMS["archive"](tmp_path)
    with pytest.raises(DataError, match=match):
        made(tmp_path, raw, **options)
    assert not (tmp_path / "prepared" / "manifest.csv").exists()


def test_votes_that_are_not_there(tmp_path: Path) -> None:
    refuses(
        tmp_path, r"dataset.reader.votes: expected .*fer2013new.csv, found none at .*votes=PATH"
    )
    refuses(tmp_path, "found none at .*nowhere", votes=tmp_path / "nowhere")


def test_votes_of_another_length(tmp_path: Path) -> None:
    write_votes(tmp_path / "fer2013new.csv", ROWS[:-1], votes_for(ROWS)[:-1])
    refuses(tmp_path, "expected 98 rows, one for each of FER2013's table, found 97")


def test_votes_whose_usages_have_another_order(tmp_path: Path) -> None:
    write_votes(tmp_path / "fer2013new.csv", backwards(ROWS), votes_for(ROWS)[::-1])
    refuses(tmp_path, "row 2: expected the usage Training.*found 'PrivateTest'.*another order")


def test_votes_that_were_sorted_within_their_usage(tmp_path: Path) -> None:
    votes = votes_for(ROWS)
    shifted = [*votes[1:56], votes[0], *votes[57:77], votes[56], *votes[78:], votes[77]]
    write_votes(tmp_path / "fer2013new.csv", ROWS, shifted)
    refuses(tmp_path, "expected votes in the order of FER2013's table.*found .*another order")


@pytest.mark.parametrize("bad", [{}, {"anger": -1}, {"anger": 10_000}])
def test_a_row_without_votes(tmp_path: Path, bad: dict[str, int]) -> None:
    votes = votes_for(ROWS)
    votes[4] = bad
    write_votes(tmp_path / "fer2013new.csv", ROWS, votes)
    refuses(tmp_path, "row 6: expected the votes of ten annotators, .* not all 0, found 0, 0, 0")


def test_a_table_without_the_columns(tmp_path: Path) -> None:
    (tmp_path / "fer2013new.csv").write_text("image,label\n1,2\n")
    refuses(tmp_path, "expected FER.'s columns usage, neutral.*found no usage, neutral")


def test_a_copy_of_other_pictures(tmp_path: Path, votes: Path) -> None:
    strange = [(usage, emotion, picture(5_000 + n)) for n, (usage, emotion, _) in enumerate(ROWS)]
    raw = write_zip(tmp_path / "archive.zip", strange)
    refuses(tmp_path, "expected images of FER2013 to go with these votes, found 0 of 98", raw)


def test_a_picture_that_is_not_fer2013s_is_left_out(tmp_path: Path, votes: Path) -> None:
    rows = [*ARCHIVE, ("PrivateTest", "happy", picture(5_000))]
    integrity = made(tmp_path, write_zip(tmp_path / "archive.zip", rows)).integrity
    assert integrity["excluded"]["they are not recognised as images of FER2013"] == 1
    assert integrity["images"] == 92


def test_a_folder_with_labels_of_its_own_is_not_taken_for_ferplus(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "prepared", ARCHIVE)
    with pytest.raises(DataError, match=r"gives images new labels.*dataset=folder"):
        prepare("ferplus", place, FERPlusReader())


# --- preparing again -----------------------------------------------------------------------------


def test_other_votes_are_noticed(tmp_path: Path, votes: Path) -> None:
    raw = FORMS["archive"](tmp_path)
    first = made(tmp_path, raw, votes=votes)
    assert first.integrity["origin"]["reader"] == {
        "class": "FERPlusReader", "rule": "majority", "splits": "given", "split_seed": 0,
        "val_fraction": 0.1,
    }  # fmt: skip
    changed = votes_for(ROWS)
    changed[0], changed[1] = changed[1], changed[0]
    (tmp_path / "other").mkdir()
    other = write_votes(tmp_path / "other" / "fer2013new.csv", ROWS, changed)
    assert (
        made(tmp_path, raw, votes=other).integrity["fingerprint"]
        != (first.integrity["fingerprint"])
    )
    # What is prepared is taken as it is by one who names no votes.
    votes.unlink()
    assert prepare("ferplus", tmp_path / "prepared", FERPlusReader()).entries
    write_votes(other, ROWS, votes_for(ROWS))
    again = prepare("ferplus", tmp_path / "prepared", FERPlusReader(votes=other), raw=raw)
    assert again.integrity["fingerprint"] == first.integrity["fingerprint"]
    # The same votes elsewhere are no others, also beside the raw data, which need not be there.
    manifest = tmp_path / "prepared" / "manifest.csv"
    modified = manifest.stat().st_mtime_ns
    votes.write_bytes(other.read_bytes())
    for reader in (FERPlusReader(votes=votes), FERPlusReader()):
        prepare("ferplus", tmp_path / "prepared", reader, raw=raw)
        assert manifest.stat().st_mtime_ns == modified
    write_votes(votes, ROWS, changed)
    prepare("ferplus", tmp_path / "prepared", FERPlusReader(), raw=raw)
    assert manifest.stat().st_mtime_ns != modified


def test_a_dataset_of_an_earlier_version_has_no_identity(tmp_path: Path, votes: Path) -> None:
    raw = FORMS["archive"](tmp_path)
    place = made(tmp_path, raw).folder / "integrity.json"
    integrity = json.loads(place.read_text())
    assert len(integrity.pop("identity")) == 64
    place.write_text(json.dumps(integrity))
    for given, identity in ((None, None), (raw, made(tmp_path / "other", raw, votes=votes))):
        data = FERPlusDataModule(tmp_path / "prepared", raw=given)
        data.setup("test")
        expected = None if identity is None else identity.integrity["identity"]
        assert data.describe()["identity"] == expected  # prepared again where there is raw data
        assert data.describe()["fingerprint"] == integrity["fingerprint"]


# --- votes as targets ----------------------------------------------------------------------------


def data_of(tmp_path: Path, **options: Any) -> EmotionDataModule:
    raw, reader = FORMS["archive"](tmp_path), FERPlusReader(rule="plurality")
    own = {"batch_size": 27, "transforms": [], **options}
    return FERPlusDataModule(tmp_path / "prepared", raw=raw, reader=reader, **own)


def fit(data: EmotionDataModule, loss: Any = None, **options: Any) -> EmotionModule:
    torch.manual_seed(0)
    network = SharedCNN(widths=[8, 8], image_size=48)
    module = EmotionModule(network, loss or SoftLoss(), **options)
    Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False).fit(module, data)  # fmt: skip
    return module


def test_training_takes_the_votes_and_validation_the_labels(tmp_path: Path, votes: Path) -> None:
    data = data_of(tmp_path)
    fit(data)
    _, targets = next(iter(data.train_dataloader()))
    assert targets.shape == (27, 7) and targets.dtype == torch.float32
    assert torch.allclose(targets.sum(dim=1), torch.ones(27))
    assert next(iter(data.val_dataloader()))[1].dtype == torch.int64
    whole = data.datasets["train"]
    assert (whole.answers.argmax(axis=1) == whole.targets).all()
    assert whole[0][1] == whole.targets[0]
    odd = [row for row in whole.answers.tolist() if max(row) < 1]
    expected = [[0, 0, 0, 0.5, 0.2, 0, 0.3], [0, 0, 0.3, 0, 0, 0.7, 0]]
    np.testing.assert_allclose(sorted(odd), expected)


def test_the_priors_are_those_of_the_votes(tmp_path: Path, votes: Path) -> None:
    data = data_of(tmp_path)
    data.prepare_data()
    data.setup("fit")
    assert data.class_shares() == data.class_counts()
    data.soften(True)
    counts, shares = np.array(data.class_counts()), np.array(data.class_shares())
    # Of the two images with several emotions; see ODD.
    expected = {"fear": 0.3, "surprise": -0.3, "happy": -0.5, "sad": 0.2, "neutral": 0.3}
    np.testing.assert_allclose(
        shares - counts, [expected.get(name, 0.0) for name in labels.EMOTIONS], atol=1e-6
    )
    fit(data, CrossEntropyLoss())  # another network on the same data learns from emotions again
    assert data.class_shares() == data.class_counts()


def test_chunks_on_the_device_give_the_weights_of_single_steps(tmp_path: Path, votes: Path) -> None:
    class Watcher(Callback):
        def on_train_batch_end(self, *_: Any) -> None: ...

    weights = []
    alternatives: list[list[Callback]] = [[], [Watcher()]]
    for callbacks in alternatives:
        data = data_of(tmp_path, on_device=torch.device("cpu"))
        torch.manual_seed(0)
        module = EmotionModule(SharedCNN(widths=[8, 8], image_size=48), SoftLoss())
        Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False,
                enable_checkpointing=False, enable_model_summary=False, callbacks=callbacks).fit(
            module, data)  # fmt: skip
        assert all(targets.shape[1:] == (7,) for _, targets in data.train_dataloader())
        assert module.automatic_optimization == bool(callbacks)
        weights.append(torch.cat([w.flatten() for w in module.network.parameters()]))
    assert torch.equal(*weights)


def test_a_dataset_without_votes_is_refused(tmp_path: Path) -> None:
    data = EmotionDataModule(
        "fer2013", tmp_path / "prepared", reader=FER2013Reader(), raw=FORMS["archive"](tmp_path)
    )
    with pytest.raises(ConfigError, match=r"loss: expected a dataset with .*found fer2013"):
        fit(data)


def test_the_soft_loss_is_the_mean_over_the_votes() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    shares = torch.softmax(3 * logits.flip(0), dim=1)
    expected = -(shares * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(SoftLoss()(logits, shares), expected)
    hard = torch.arange(5)
    torch.testing.assert_close(SoftLoss()(logits, hard), F.cross_entropy(logits, hard))
    with pytest.raises(ConfigError, match=r"loss\.label_smoothing"):
        SoftLoss(label_smoothing=1.0)


# --- the real votes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "counts"),
    [(majority, [24_941, 3_186, 3_137]), (plurality, [26_778, 3_372, 3_350])],
)
def test_the_real_votes_give_the_published_counts(
    rule: Callable[[np.ndarray], np.ndarray], counts: list[int], shared_data: Path
) -> None:
    reference = load_reference("fer2013")
    assert reference is not None and reference.table_rows is not None
    votes = ferplus.read_votes(shared_data / "ferplus" / "fer2013new.csv", reference)
    joined = votes[reference.table_rows]
    answers = rule(np.where(joined > 1, joined, 0))
    splits = reference.cells // 7
    kept = ferplus.CODES[answers] >= 0
    assert [int((kept & (splits == split)).sum()) for split in range(3)] == counts
    contempt = kept | ((answers >= 0) & (answers == ANSWERS.index("contempt")))
    if rule is majority:
        rows = np.arange(len(joined))
        entries = [
            Entry(str(row), "sad", "train", "", f"{checksum:08x}")
            for row, checksum in enumerate(reference.checksums.tolist())
        ]
        path = Path("fer2013new.csv")
        found = ferplus.Relabelling(path, votes, "majority", reference)(rows, entries)
        assert len(found.votes) == len(rows)
        last, exchanged, few = votes.copy(), votes.copy(), votes.copy()
        last[-3589:] = np.roll(votes[-3589:], 1, axis=0)  # a shift by one, in the last usage alone
        exchanged[:5000], exchanged[5000:10000] = votes[5000:10000], votes[:5000]
        few[30_000:30_300] = votes[np.random.default_rng(0).permutation(300) + 30_000]
        for other, where in ((last, "32"), (exchanged, "2 to"), (few, "30")):
            with pytest.raises(DataError, match=rf"in rows {where}.*another order"):
                ferplus.Relabelling(path, other, "majority", reference)(rows, entries)
        with_contempt = [int((contempt & (splits == split)).sum()) for split in range(3)]
        assert with_contempt == [25_060, 3_199, 3_153]
