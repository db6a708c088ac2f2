"""The report of a preparation: its verdict, numbers and pictures, on one safe page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from fer.core import labels, words
from fer.core.errors import DataError
from fer.data.manifest import Entry, pixel_hash
from fer.data.readers.base import SPLITS
from fer.report import dataset_pictures, figures
from fer.report.dataset_page import dataset_section, write_dataset_report
from fer.report.run_page import write_run_report
from tests.report.test_report import Page, assert_texts_inside, figure_texts, make_metrics

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"

# --- a made-up dataset -------------------------------------------------------------------------


def make_images() -> tuple[list[Entry], list[np.ndarray]]:
    """Three images of each emotion and split, gray and colour, of several sizes.

    The first angry one of train stands in test too, as sad; the first happy one of val twice. The
    last sad one of train is blank.
    """
    rng = np.random.default_rng(0)
    images: list[np.ndarray] = []
    entries: list[Entry] = []
    for split in SPLITS:
        for emotion in labels.EMOTIONS:
            for number in range(3):
                shape = ((48, 48), (20, 48, 3), (600, 300))[number]
                image = rng.integers(0, 256, shape, dtype=np.uint8)
                name = f"{split}_{emotion}_{number}"
                if name == "test_sad_0":
                    image = images[0]
                elif name == "val_happy_1":
                    image = images[-1]
                elif name == "train_sad_2":
                    image = np.zeros((48, 48), np.uint8)
                images.append(image)
                entries.append(Entry(name, emotion, split, f"raw/{name}.jpg", pixel_hash(image)))
    return entries, images


def members(*ids: str) -> list[dict[str, str]]:
    return [
        {"id": name, "split": name.split("_")[0], "emotion": name.split("_")[1]} for name in ids
    ]


NONE_LEAKED = {"train_in_val_or_test": 0, "val_in_train": 0, "test_in_train_or_val": 0}


def make_integrity(**changes: Any) -> Any:
    """A report with every number different, so that each can be looked for on the page."""

    def counts(first: int) -> dict[str, int]:
        return {emotion: first + i for i, emotion in enumerate(labels.EMOTIONS)}

    pixels = {
        split: {
            "mean": 120.25 + i,
            "std": 60.5 + i,
            "contrast": 50.1 + i,
            "sharpness": 0.201 + i / 1000,
        }
        for i, split in enumerate(SPLITS)
    }
    return {
        "dataset": "faces",
        "images": 4231,
        "verdict": "reference copy",
        "verdict_text": "Every image is the reference's.",
        "findings": [],
        "warnings": ["Mind the gap."],
        "source": {
            "form": "image archive (zip)",
            "given": {"path": "/data/a.zip", "files": 1, "bytes": 98765, "modified_ns": 1},
            "signature": "5e1f",
        },
        "origin": {
            "reader": {"class": "FacesReader", "val_fraction": 0.1},
            "generator": None,
            "undecodable": "error",
        },
        "official_protocol": True,
        "counts": {"train": counts(301), "val": counts(401), "test": counts(501)},
        "official_counts": {"train": counts(301), "val": counts(401), "test": counts(501)},
        "matches_official_counts": True,
        "sizes": {"48x48": 1410, "48x20": 1409, "300x600": 1411},
        "expected_size": None,
        "odd_sizes": {"images": 0, "ids": []},
        "pixels": pixels,
        "reference_pixels": pixels,
        "splits_compared": [
            {"splits": ["train", "test"], "measure": measure, "difference": 0.1, "z": z}
            for measure, z in (("sharpness", 61.1), ("contrast", 62.2), ("brightness", -63.3))
        ],
        "compared_with_reference": {
            "identical": 4217,
            "recognised": 4218,
            "unrecognised": 0,
            "missing": 0,
            "moved": 0,
            "relabelled": 0,
        },
        "duplicates": {
            "groups": 1017,
            "images": 2035,
            "groups_across_splits": 733,
            "images_across_splits": 1467,
            "groups_with_conflicting_labels": 617,
            "images_with_conflicting_labels": 1235,
            "conflicts": [members("train_angry_0", "test_sad_0")],
        },
        "leaks": {
            "train_in_val_or_test": 731,
            "val_in_train": 227,
            "test_in_train_or_val": 229,
        },
        "near_duplicates": {
            "distance": 6,
            "bits": 128,
            "groups": 1801,
            "images": 3605,
            "groups_across_splits": 919,
            "images_across_splits": 1839,
            "groups_with_conflicting_labels": 821,
            "images_with_conflicting_labels": 1643,
            "listed": [
                members("train_fear_0", "train_fear_1"),
                members("train_happy_0", "val_happy_2", "test_happy_0"),
            ],
        },
        "blank": ["train_sad_2"],
        "excluded": {},
        "undecodable": [],
        "fingerprint": "f1f2f3",
        **changes,
    }


ALTERED: dict[str, Any] = {
    "verdict": "altered copy",
    "verdict_text": "Training images were smoothed.",
    "findings": [
        {
            "kind": "smoothed",
            "split": "train",
            "emotion": "disgust",
            "images": 2149,
            "text": "train/disgust: edges are weak.",
        },
        {"kind": "odd size", "split": None, "emotion": None, "images": 1, "text": "One is large."},
    ],
}
NOTHING: dict[str, Any] = {
    "duplicates": {
        "groups": 0,
        "images": 0,
        "groups_across_splits": 0,
        "images_across_splits": 0,
        "groups_with_conflicting_labels": 0,
        "images_with_conflicting_labels": 0,
        "conflicts": [],
    },
    "leaks": NONE_LEAKED,
    "near_duplicates": {
        "distance": 6,
        "bits": 128,
        "groups": 0,
        "images": 0,
        "groups_across_splits": 0,
        "images_across_splits": 0,
        "groups_with_conflicting_labels": 0,
        "images_with_conflicting_labels": 0,
        "listed": [],
    },
    "blank": [],
}


def write(
    folder: Path,
    integrity: Any = None,
    entries: Sequence[Entry] | None = None,
) -> str:
    made, images = make_images()
    path = write_dataset_report(
        folder,
        made if entries is None else entries,
        make_integrity() if integrity is None else integrity,
        images.__getitem__,
    )
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of words and numbers: figures are not painted, which takes the time."""

    def save(figure: Figure, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(path)
        return path

    monkeypatch.setattr(figures, "save", save)


def rows_of(page: Page, table: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell, without the small print."""
    return {row[0].split(" | ")[0]: row[1:] for row in page.tables[table]}


# --- the page ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_every_number_of_the_integrity_report_stands_on_the_page(tmp_path: Path) -> None:
    integrity = make_integrity()
    page = Page(write(tmp_path, integrity))
    shown = page.text.replace(",", "")

    def check(value: object) -> None:
        if isinstance(value, Mapping):
            for item in value.values():
                check(item)
        elif isinstance(value, int) and not isinstance(value, bool):
            assert re.search(rf"(?<![\d.]){value}(?!\d)", shown), value

    for key in (
        "images",
        "counts",
        "sizes",
        "compared_with_reference",
        "duplicates",
        "leaks",
        "near_duplicates",
    ):
        check(integrity[key])
    cells = [cell for row in page.tables["pixels"] for cell in row]
    for i in range(3):
        assert f"{120.25 + i:.2f} | reference {120.25 + i:.2f} (±0.0 %)" in cells
        assert f"{0.201 + i / 1000:.3f} | reference {0.201 + i / 1000:.3f} (±0.0 %)" in cells
    for text in ("98765", "/data/a.zip", "FacesReader", "f1f2f3", "5e1f", "Mind the gap."):
        assert text in page.text


@pytest.mark.usefixtures("quick")
def test_the_splits_stand_beside_each_other(tmp_path: Path) -> None:
    assert Page(write(tmp_path)).tables["splits-compared"][1:] == [
        ["train → test", "sharpness", "+10.5 %", "+61.1"],  # logarithms: exp(0.1)
        ["train → test", "contrast", "+10.5 %", "+62.2"],
        ["train → test", "brightness", "+0.1 gray levels", "−63.3"],
    ]


@pytest.mark.usefixtures("quick")
def test_what_the_reference_copy_says_stands_in_words_and_faults_are_marked(
    tmp_path: Path,
) -> None:
    compared = {
        "identical": 30_000,
        "recognised": 32_000,
        "unrecognised": 1_234,
        "missing": 3_887,
        "moved": 0,
        "relabelled": 5,
    }
    integrity = make_integrity(
        compared_with_reference=compared, images=33_234, sizes={"48x48": 33_000}
    )
    source = write(tmp_path, integrity)
    page = Page(source)
    assert page.tables["compared"] == [
        ["Beside the reference copy", "Images"],
        ["Identical", "30,000"],
        ["Recognised", "32,000"],
        ["Not recognised", "1,234"],
        ["Missing here", "3,887"],
        ["In another split than there", "0"],
        ["With another emotion than there", "5"],
    ]
    assert re.findall(r'differs"[^>]*>([\d,]+)<', source) == ["1,234", "3,887", "5"]
    assert page.tables["sizes"][1:] == [["48 × 48", "33,000"], ["others", "234"]]


@pytest.mark.usefixtures("quick")
def test_of_the_raw_data_the_page_does_not_show_a_bare_checksum(tmp_path: Path) -> None:
    integrity = make_integrity()
    listing = 32 * "ab"
    integrity["source"]["given"]["listing"] = listing
    integrity["source"]["beside"] = {"path": "/data/list.txt", "listing": listing}
    source = write(tmp_path, integrity)
    assert "/data/list.txt" in source and listing not in source and "listing" not in source


@pytest.mark.usefixtures("quick")
def test_counts_stand_beside_the_official_ones_and_what_differs_is_marked(tmp_path: Path) -> None:
    integrity = make_integrity(matches_official_counts=False)
    integrity["official_counts"]["val"] = {**integrity["counts"]["val"], "fear": 400}
    source = write(tmp_path, integrity)
    rows = rows_of(Page(source), "counts")
    assert rows["Emotion"] == ["train", "val", "test", "all"]
    assert rows["fear"] == [
        "303 | = official",
        "403 | official 400 (+3)",
        "503 | = official",
        "1,209",
    ]
    assert rows["all"][1] == "2,828 | official 2,825 (+3)"
    assert re.findall(r'differs"[^>]*>([\d,]+)<', source) == ["403", "2,828"]
    assert "These are not the official counts" in source
    integrity["official_counts"]["val"]["fear"] = 28_112
    rows = rows_of(Page(write(tmp_path, integrity)), "counts")
    assert rows["fear"][1] == "403 | official 28,112 (−27,709)"


@pytest.mark.usefixtures("quick")
def test_an_official_train_without_val_is_compared_with_both(tmp_path: Path) -> None:
    integrity = make_integrity()
    counts = integrity["counts"]
    integrity["official_counts"] = {
        "train": {e: counts["train"][e] + counts["val"][e] for e in labels.EMOTIONS},
        "test": counts["test"],
    }
    page = Page(write(tmp_path, integrity))
    rows = rows_of(page, "counts")
    assert rows["Emotion"] == ["train", "val", "train + val", "test", "all"]
    assert rows["angry"] == ["301", "401", "702 | = official", "501 | = official", "1,203"]
    assert "held out of train" in page.text


@pytest.mark.usefixtures("quick")
def test_without_official_counts_the_page_says_so(tmp_path: Path) -> None:
    page = Page(write(tmp_path, make_integrity(official_counts=None, matches_official_counts=None)))
    assert rows_of(page, "counts")["angry"] == ["301", "401", "501", "1,203"]
    assert "no official counts" in page.text


@pytest.mark.usefixtures("quick")
def test_an_altered_copy_is_called_so_first_with_its_findings_and_the_remedy(
    tmp_path: Path,
) -> None:
    source = write(tmp_path, make_integrity(**ALTERED))
    page = Page(source)
    text = " ".join(page.text.split())
    order = [
        "! Altered copy",
        "Training images were smoothed.",
        "smoothed train disgust 2,149 images train/disgust: edges are weak.",
        "odd size 1 image One is large.",
        "Get the reference copy",
        "dataset.raw=PATH",
        "dataset.accept_altered=true",
        "Images per split and emotion",
    ]
    text = text[text.index("! Altered copy") :]  # behind the contents
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert 'class="verdict bad"' in source
    assert "can be trained on as it is" not in text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("verdict", "look", "word"),
    [
        ("reference copy", "warn", "! Reference copy, with leaks"),
        ("unknown", "open", "? Unknown copy"),
    ],
)
def test_other_verdicts_have_their_own_look_sign_and_word(
    tmp_path: Path, verdict: str, look: str, word: str
) -> None:
    source = write(tmp_path, make_integrity(verdict=verdict))
    text = " ".join(Page(source).text.split())
    assert f'class="verdict {look}"' in source
    assert word in text
    assert "can be trained on as it is" in text
    assert "The checks of this copy found nothing." in text
    assert "accept_altered" not in text
    assert ("before you trust the labels" in text) == (verdict == "unknown")


@pytest.mark.usefixtures("quick")
def test_an_unknown_verdict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reference copy, altered copy.*found 'fine'"):
        write(tmp_path, make_integrity(verdict="fine"))
    assert not (tmp_path / "report.html").exists()


@pytest.mark.usefixtures("quick")
def test_copies_and_leaks_stand_with_the_options_that_act_on_them(tmp_path: Path) -> None:
    page = Page(write(tmp_path))
    rows = page.tables["copies"]
    cells = {row[0]: row[1:] for row in rows}
    found = {
        option: next(values for name, values in cells.items() if option in name)
        for option in ("dataset.conflicts=drop", "dataset.leaks=drop_from_train", "dataset.blank=")
    }
    assert list(found.values()) == [["617", "1,235"], ["–", "731"], ["–", "1"]]
    assert "at most 6 of 128 bits" in page.text
    assert "stand beside their numbers below" in page.text


@pytest.mark.usefixtures("quick")
def test_empty_galleries_are_left_out_and_said_in_words(tmp_path: Path) -> None:
    entries, _ = make_images()
    kept = [entry for entry in entries if entry.split == "train"]
    source = write(tmp_path, make_integrity(**NOTHING), kept)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {"class_balance", "samples"}
    assert (
        "None here: exact duplicates, exact duplicates with different emotions, near duplicates, "
        "blank images." in source
    )
    assert "<code>" not in source  # nothing to act on, no option
    assert "stand beside their numbers" not in source
    assert "every image of the raw copy is in the prepared dataset" in source


def test_figures_are_embedded_as_they_stand_in_their_files_and_linked(tmp_path: Path) -> None:
    source = write(tmp_path)
    files = sorted((tmp_path / "figures").iterdir())
    assert len(files) == 6
    page = Page(source)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 6
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    for file in files:
        assert f"figures/{file.name}" in links
    for image in images:
        assert str(image["src"]).startswith("data:image/png;base64,")
    with Image.open(tmp_path / "figures" / "class_balance.png") as picture:
        assert (images[0]["width"], images[0]["height"]) == tuple(map(str, picture.size))


@pytest.mark.usefixtures("quick")
def test_links_lead_to_what_stands_beside_the_page_and_nowhere_else(tmp_path: Path) -> None:
    entries, _ = make_images()
    shown = tmp_path / entries[0].file
    shown.parent.mkdir(parents=True)
    shown.touch()
    (tmp_path / "manifest.csv").touch()
    source = write(tmp_path)
    links = {str(a["href"]) for tag, a in Page(source).tags if tag == "a"}
    assert {"manifest.csv", "train/angry/train_angry_0.png"} <= links
    assert "integrity.json" not in links
    files = {link for link in links if not link.startswith("#")}
    assert all((tmp_path / unquote(link)).exists() for link in files)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest", source)
    loads = [a["src"] for _, a in Page(source).tags if "src" in a]
    assert all(str(value).startswith("data:") for value in loads)
    assert "default-src 'none'" in source


@pytest.mark.usefixtures("quick")
def test_the_list_of_images_names_the_groups_as_the_picture_does(tmp_path: Path) -> None:
    page = Page(write(tmp_path))
    header, *rows = page.tables["duplicates-files"]
    assert header == ["Group", "Split", "Emotion", "Image", "From"]
    assert rows[0] == ["1", "train", "angry", "train_angry_0", "raw/train_angry_0.jpg"]
    assert rows[1][:4] == ["1", "test", "sad", "test_sad_0"]  # crosses splits: first
    assert [row[0] for row in rows] == ["1", "1", "2", "2"]
    assert page.tables["blank-files"][1][:2] == ["train", "train"]  # a group for each split


@pytest.mark.usefixtures("quick")
def test_what_was_left_out_is_listed(tmp_path: Path) -> None:
    failures = [{"source": f"bad{i}.jpg", "error": "cut off"} for i in range(60)]
    integrity = make_integrity(
        excluded={"they show nobody": 12, "never": 0},
        undecodable=failures,
        expected_size=48,
        odd_sizes={"images": 73, "ids": [f"odd{i}" for i in range(73)]},
    )
    page = Page(write(tmp_path, integrity))
    assert ["they show nobody", "12"] in [row for table in page.tables.values() for row in table]
    assert "never" not in page.text
    assert "bad0.jpg: cut off" in page.text and "bad59" not in page.text
    assert "60 files of the raw copy did not decode" in page.text
    assert "integrity.json lists all" in page.text
    assert "odd49 and 23 more" in page.text
    assert "73 images" in page.text


@pytest.mark.usefixtures("quick")
def test_subgroups_are_counted_in_the_order_of_their_values(tmp_path: Path) -> None:
    entries, _ = make_images()
    ages = ("40-69", "4-19", "70+")
    entries = [
        dataclasses.replace(entry, age=ages[i % 3], gender="female" if i else "")
        for i, entry in enumerate(entries)
    ]
    page = Page(write(tmp_path, entries=entries))
    assert page.tables["by-age"] == [
        ["Age", "train", "val", "test", "all"],
        ["4-19", "7", "7", "7", "21"],
        ["40-69", "7", "7", "7", "21"],
        ["70+", "7", "7", "7", "21"],
    ]
    assert page.tables["by-gender"][1:] == [
        ["female", "20", "21", "21", "62"],
        ["not annotated", "1", "0", "0", "1"],
    ]
    assert "by-race" not in page.tables


@pytest.mark.usefixtures("quick")
def test_nothing_from_outside_becomes_html(tmp_path: Path) -> None:
    def tags(source: str) -> list[str]:
        return [tag for tag, _ in Page(source).tags if tag in ("script", "img", "style")]

    changes: dict[str, Any] = {
        "findings": [dict.fromkeys(("kind", "split", "emotion", "text"), ATTACK) | {"images": 1}],
        "warnings": [ATTACK],
        "excluded": {ATTACK: 1},
        "undecodable": [{"source": ATTACK, "error": ATTACK}],
        "expected_size": 48,
        "odd_sizes": {"images": 1, "ids": [ATTACK]},
    }
    honest = write(tmp_path / "a")
    entries, _ = make_images()
    entries[0] = dataclasses.replace(entries[0], source=ATTACK, race=ATTACK)
    integrity = make_integrity(dataset=ATTACK, verdict_text=ATTACK, **changes)
    integrity["source"]["given"]["path"] = ATTACK
    source = write(tmp_path / "b", integrity, entries)
    assert tags(source) == tags(honest)
    page = Page(source)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count(ATTACK) >= 10


@pytest.mark.usefixtures("quick")
def test_a_file_name_that_is_not_utf8_is_written_as_its_bytes(tmp_path: Path) -> None:
    entries, _ = make_images()
    entries[0] = dataclasses.replace(entries[0], source="raw/\udcff.jpg")
    integrity = make_integrity(dataset="f\udcff")
    integrity["source"]["given"]["path"] = "/data/\udcfe.zip"
    page = Page(write(tmp_path, integrity, entries))
    assert "/data/\\udcfe.zip" in page.text
    assert "raw/\\udcff.jpg" in page.text


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name)
    for file in sorted((tmp_path / "a").rglob("*")):
        if file.is_file():
            other = tmp_path / "b" / file.relative_to(tmp_path / "a")
            assert file.read_bytes() == other.read_bytes(), file.name


@pytest.mark.usefixtures("quick")
def test_only_the_images_shown_are_decoded(tmp_path: Path) -> None:
    entries, images = make_images()
    many = entries + [
        dataclasses.replace(entries[1], id=f"more_{i}", sha256=f"{i:064x}") for i in range(5000)
    ]
    asked: list[int] = []

    def read(index: int) -> np.ndarray:
        asked.append(index)
        return images[min(index, len(images) - 1)]

    write_dataset_report(tmp_path, many, make_integrity(), read)
    assert len(asked) < 100


def test_a_dataset_of_one_image_has_a_report(tmp_path: Path) -> None:
    entries, _ = make_images()
    counts: dict[str, dict[str, int]] = {"train": {}, "val": {}, "test": {"happy": 1}}
    integrity = make_integrity(
        **NOTHING,
        images=1,
        counts=counts,
        official_counts=None,
        matches_official_counts=None,
        sizes={"48x48": 1},
        pixels={"test": make_integrity()["pixels"]["test"]},
        reference_pixels=None,
        compared_with_reference=None,
    )
    one = dataclasses.replace(entries[0], split="test", emotion="happy")
    page = Page(write(tmp_path, integrity, [one]))
    assert "1 image ·" in page.text
    assert "Images of each emotion (test)" in page.text
    assert "beside the reference" not in page.text


@pytest.mark.usefixtures("quick")
def test_a_report_without_images_or_of_another_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected images"):
        write(tmp_path, entries=[])
    with pytest.raises(DataError, match="'elsewhere'"):
        write(tmp_path, make_integrity(blank=["elsewhere"]))
    assert not (tmp_path / "report.html").exists()


def test_reporting_changes_no_global_state(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    write(tmp_path)
    assert dict(matplotlib.rcParams) == before


# --- the section of a run's report -------------------------------------------------------------


def write_run(folder: Path, **changes: Any) -> str:
    run: Any = {"seed": 1}
    path = write_run_report(
        folder / "report.html",
        title="t",
        subtitle="s",
        notes=[],
        metrics=make_metrics(),
        sections=[],
        provenance=run,
        config_yaml="seed: 1",
        **changes,
    )
    return path.read_text(encoding="utf-8")


def test_a_runs_report_says_what_its_data_is_and_what_was_left_out(tmp_path: Path) -> None:
    integrity = make_integrity(**ALTERED)
    page = Page(write_run(tmp_path, data=integrity, left_out=[f"731 images {ATTACK}"]))
    text = " ".join(page.text.split())
    assert "The data ! Altered copy Training images were smoothed." in text
    assert "train/disgust: edges are weak." in text
    assert f"731 images {ATTACK}" in text
    assert rows_of(page, "counts")["angry"][0] == "301 | = official"
    assert rows_of(page, "copies")["Test images in train or val"] == ["–", "229"]


def test_a_runs_report_without_data_has_no_such_section(tmp_path: Path) -> None:
    source = write_run(tmp_path)
    assert "The data" not in Page(source).text


def test_the_section_is_plain_data() -> None:
    section: Any = dataset_section(make_integrity(), ["none"])
    assert section["verdict"]["word"] == "Reference copy, with leaks"
    sound: Any = dataset_section(make_integrity(leaks=NONE_LEAKED))
    assert (sound["verdict"]["word"], sound["verdict"]["look"]) == ("Reference copy", "good")
    assert section["left_out"] == ["none"]
    assert section["counts"].columns == ["Emotion", *SPLITS, "all"]


# --- the pictures ------------------------------------------------------------------------------


def make_pictures(folder: Path, entries: list[Entry], **changes: Any) -> dataset_pictures.Pictures:
    _, images = make_images()
    return dataset_pictures.Pictures(
        folder, entries, make_integrity(**changes), lambda index: images[0]
    )


def collect_figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Where figures go instead of files."""
    saved: list[Figure] = []

    def save(figure: Figure, path: Path) -> Path:
        saved.append(figure)
        return path

    monkeypatch.setattr(figures, "save", save)
    return saved


def test_a_split_that_is_far_from_the_reference_is_marked(tmp_path: Path) -> None:
    integrity = make_integrity()
    pixels = integrity["pixels"]
    integrity["pixels"] = {**pixels, "train": {**pixels["train"], "sharpness": 0.1}}
    source = write(tmp_path, integrity)
    assert re.findall(r'differs"[^>]*>([\d.]+)<', source) == ["0.100"]
    assert rows_of(Page(source), "pixels")["train"][-1] == (
        f"0.100 | reference 0.201 ({words.change(0.1, 0.201)})"
    )


def test_a_group_of_many_copies_shows_each_split_and_emotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten copies in train, then one in test with another emotion: the few shown have both."""
    saved = collect_figures(monkeypatch)
    entries, _ = make_images()
    copies = [dataclasses.replace(entries[0], id=f"copy_{i}") for i in range(9)]
    other = dataclasses.replace(entries[0], id="t", split="test", emotion="sad")
    near = NOTHING["near_duplicates"]
    pictures = make_pictures(tmp_path, [entries[0], *copies, other], blank=[], near_duplicates=near)
    found = pictures.galleries()["Exact duplicates with different emotions"]
    assert found is not None and "8 of 1,235 images" in found.caption
    texts = figure_texts(saved[1])
    assert f"1: 11 images\n{dataset_pictures.ACROSS} of them shown" in texts
    assert {"train", "test", "angry", "sad"} <= set(texts)
    assert_texts_inside(saved[1])


def test_groups_across_splits_come_first_and_are_framed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = collect_figures(monkeypatch)
    entries, _ = make_images()
    found = make_pictures(tmp_path, entries).galleries()
    axis = saved[0].axes[0]  # a copy in train and test, and two in val
    assert len(axis.images) == 4
    assert [patch.get_edgecolor() for patch in axis.patches] == [to_rgba(figures.WRONG)] * 2
    colors = {text.get_text(): text.get_color() for text in axis.texts}
    assert colors["test"] == figures.WRONG and colors["val"] == figures.INK
    words = {
        title: (picture.caption, saved[place].texts[1].get_text())
        for place, (title, picture) in enumerate(found.items())
        if picture is not None
    }
    for text in words["Exact duplicates"]:
        assert "in more than one split" in text
    for text in words["Blank images"]:
        assert "in more than one split" not in text
    assert "train: 1 image" in figure_texts(saved[list(found).index("Blank images")])
