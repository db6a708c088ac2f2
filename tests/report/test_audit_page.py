"""The page of an audit says what was flagged, and how right the flags are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer.core import labels
from fer.data.manifest import Entry
from fer.evaluation.label_issues import LabelIssues, score_flags, summarise_issues
from fer.report.audit_page import Audited, write_audit
from tests.report.test_report import Page

IMAGES = 70


def make(*, flagged: int, votes: bool) -> Audited:
    rng = np.random.default_rng(0)
    target = np.arange(IMAGES) % 7
    entries = [
        Entry(f"face{i}", labels.EMOTIONS[label], "train", f"{i}.jpg", "")
        for i, label in enumerate(target.tolist())
    ]
    order = np.arange(IMAGES)
    issues = LabelIssues(order, order < flagged, order / IMAGES, np.diag(np.full(7, 10.0)))
    probabilities = 0.05 + 0.65 * np.eye(7)[(target + (order < flagged)) % 7]
    return Audited(
        "faces", entries, [entry.file for entry in entries], order % 3, target, probabilities,
        issues, np.where(order % 2, target, np.where(order % 4, -1, (target + 1) % 7))
        if votes else None,
        lambda row: rng.integers(0, 256, (48, 48), dtype=np.uint8),
    )  # fmt: skip


def drawn(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "figures").iterdir())


def write(folder: Path, audited: Audited, shown: int = 50) -> Page:
    scores = summarise_issues(audited.target, audited.probabilities, audited.issues)
    flags = None
    if audited.second is not None:
        flags = score_flags(audited.target, audited.second, audited.issues, "ten people", unknown=2)
    path = write_audit(
        folder, audited, scores, flags, shown=shown, notes=["a note"], provenance={"folds": 3}
    )
    return Page(path.read_text())


def test_flagged_images_are_shown_and_named(tmp_path: Path) -> None:
    page = write(tmp_path, make(flagged=60, votes=False))
    assert "60 images of 70 flagged as probably mislabelled" in page.text
    assert "a suggestion to look at an image, not a verdict" in page.text
    assert "without it and its copies, which all lie in one fold" in page.text
    rows = page.tables["flagged-1"][1:] + page.tables["flagged-41"][1:]
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 51)]
    assert rows[0] == ["1", "angry", "disgust", "70.0 %", "train", "face0", "0.jpg"]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 3
    assert drawn(tmp_path) == ["flagged.png", "flagged_0001.png", "flagged_0041.png"]
    assert page.tables["emotions"][1] == ["angry", "10", "9", "90.0 %", "disgust"]
    assert page.tables["noise"][1][:3] == ["angry", "–", "9"]
    assert "precision" not in page.tables and "How right" not in page.text


def test_flags_stand_beside_what_the_annotators_say(tmp_path: Path) -> None:
    page = write(tmp_path, make(flagged=60, votes=True))
    assert "ten people, which names none of the seven emotions for 15 images" in page.text
    assert "and has no votes for 2 images: of all others" in page.text
    counts = [row[:3] for row in page.tables["precision"][1:]]
    assert counts == [
        ["The first 50 flags", "38", "13"], ["All 60 flags", "45", "15"],
        ["All images", "53", "18"],
    ]  # fmt: skip
    assert page.tables["flagged-1"][1][4] == "disgust" and page.tables["flagged-1"][3][4] == "–"
    assert "Of these 18 images 83.3 %" in page.text
    # What an earlier call drew, and this one does not, does not stay.
    (tmp_path / "figures/flagged.svg").touch()
    write(tmp_path, make(flagged=60, votes=True), shown=40)
    assert drawn(tmp_path) == ["flagged_0001.png", "precision.png"]


def test_the_shares_of_the_emotions_stand_with_the_emotions(tmp_path: Path) -> None:
    """Where the annotators give none of the flagged images an emotion."""
    silent = replace(make(flagged=60, votes=True), second=np.full(IMAGES, -1))
    text = write(tmp_path, silent).text
    assert text.index("Emotion by emotion") < text.index("The share of the images with each")


@pytest.mark.parametrize("votes", [True, False])
def test_a_dataset_without_a_flag_has_a_page_too(votes: bool, tmp_path: Path) -> None:
    page = write(tmp_path, make(flagged=0, votes=votes))
    assert "Nothing was flagged." in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert len(page.tables["emotions"]) == 8
