"""The page of an audit of labels: what was flagged, and how right the flags are.

``audit.html.j2`` holds the sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fer.core import labels
from fer.core.words import ABSENT, how_many, percent
from fer.data.manifest import Entry
from fer.evaluation.intervals import wilson
from fer.evaluation.label_issues import AuditScores, FlagScores, LabelIssues, Share
from fer.report.figures import (
    BLUE,
    CORRECT,
    INK,
    ORANGE,
    WRONG,
    Tile,
    bars,
    legend_below,
    new_figure,
    picture_grid,
    save,
    style,
)
from fer.report.page import Cell, Content, FigureEntry, Table, make_table, write_page

ACROSS, DOWN = 8, 5
"""Images in a row, and rows in a picture."""
SHORTEST = 10
"""Flags before which their precision is not drawn: it jumps."""


@dataclass(frozen=True)
class Audited:
    """The images of an audit and what was found, all in one order."""

    name: str
    """Of the dataset."""
    entries: Sequence[Entry]
    files: Sequence[str]
    """Path of each image below the prepared folder."""
    folds: np.ndarray
    """``(N,)`` int64 from 0."""
    target: np.ndarray
    """``(N,)`` int64, the labels."""
    probabilities: np.ndarray
    """``(N, 7)`` of the network that has not seen the image."""
    issues: LabelIssues
    second: np.ndarray | None
    """``(N,)`` int64, what annotators say, -1 for none of the seven; None without votes."""
    read: Callable[[int], np.ndarray]
    """Decodes an image: ``(H, W)`` or ``(H, W, 3)`` uint8."""

    @cached_property  # asked for image by image
    def preds(self) -> np.ndarray:
        """``(N,)`` int64: the networks' answers."""
        found: np.ndarray = self.probabilities.argmax(axis=1)
        return found

    def said(self, row: int) -> str | None:
        """What annotators say of an image; empty for none of the seven, None without votes."""
        if self.second is None:
            return None
        code = int(self.second[row])
        return labels.EMOTIONS[code] if code >= 0 else ""


# --- figures -----------------------------------------------------------------------------------


def gallery(audited: Audited, rows: Sequence[int], first: int, subtitle: str) -> Figure:
    """Flagged images with their label, the network's answer and, where known, the annotators'.

    Args:
        audited: all images.
        rows: of the images to show.
        first: the rank of the first of them.
    """
    tiles = [_tile(audited, row) for row in rows]
    lines = []
    for start in range(0, len(tiles), ACROSS):
        part = tiles[start : start + ACROSS]
        lines.append((f"{first + start} to {first + start + len(part) - 1}", part))
    title = f"{audited.name}: flagged images {first} to {first + len(rows) - 1}"
    return picture_grid(lines, title=title, subtitle=subtitle)


def _tile(audited: Audited, row: int) -> Tile:
    label, answer = int(audited.target[row]), int(audited.preds[row])
    sure = round(100 * audited.probabilities[row, answer])
    lines = [f"label {labels.EMOTIONS[label]}", f"net {labels.EMOTIONS[answer]} {sure} %"]
    said, color = audited.said(row), None
    if said is not None:
        lines.append(f"people {said or ABSENT}")
        if said:
            color = CORRECT if said == labels.EMOTIONS[label] else WRONG
    return Tile(audited.read(row), lines, color)


def precision_curve(
    target: np.ndarray, second: np.ndarray, issues: LabelIssues, base: Share, *, title: str
) -> Figure:
    """The share of the first n flags that annotators confirm, against n, beside the base rate.

    Args:
        target: ``(N,)``, the labels.
        second: ``(N,)``, what the annotators say, -1 for none of the seven.
        issues: what was flagged.
        base: of all labels, those that they do not confirm.
    """
    flags = issues.order[: int(issues.flagged.sum())]
    known = np.cumsum(second[flags] >= 0)
    hits = np.cumsum((second[flags] >= 0) & (second[flags] != target[flags]))
    counts = np.arange(1, len(flags) + 1)
    drawn = known >= min(SHORTEST, known[-1])
    low, high = wilson(hits, known)
    with style():
        subtitle = "shade: 95 % interval of the first n flags, each n for itself"
        figure = new_figure(9.0, 4.2, title, subtitle)
        axis = figure.subplots()
        axis.fill_between(
            counts[drawn], 100 * low[drawn], 100 * high[drawn], color=BLUE, alpha=0.2, lw=0
        )
        axis.plot(
            counts[drawn],
            100 * hits[drawn] / np.maximum(known[drawn], 1),
            color=BLUE,
            label="of the first n flags",
        )
        axis.axhline(
            100 * (base["share"] or 0), color=INK, linestyle="--", lw=1.2, label="of all images"
        )
        axis.set(xlim=(0, len(flags) + 1), ylim=(0, 100))
        axis.set(xlabel="n, the most suspicious first", ylabel="label not the annotators' (%)")
        axis.grid(True)
        legend_below(figure, axis)
    return figure


def flagged_shares(scores: AuditScores, *, title: str) -> Figure:
    """The share of the images of each emotion that are flagged."""
    own = scores["per_emotion"]
    shares = [own[emotion]["flagged"] / own[emotion]["images"] for emotion in labels.EMOTIONS]
    return bars(
        {"flagged": shares},
        [ORANGE],
        labels.EMOTIONS,
        title=title,
        subtitle=f"{scores['flagged']:,} of {how_many(scores['images'], 'image')}",
        xlabel="label",
        ylabel="flagged (%)",
    )


# --- the page ----------------------------------------------------------------------------------


def write_audit(
    folder: Path,
    audited: Audited,
    scores: AuditScores,
    flags: FlagScores | None,
    *,
    shown: int,
    notes: Sequence[str],
    provenance: Mapping[str, Any],
) -> Path:
    """Write ``report.html`` and ``figures/``.

    Args:
        folder: of the audit.
        audited: the images and what was found.
        scores: ``audit.json``'s counts.
        flags: those of the flags beside the votes; None without votes.
        shown: the most images in the galleries.
        notes: sentences for the reader.
        provenance: plain values on where it comes from.
    """
    for pattern in ("flagged*", "precision.*"):  # of an earlier call, which may have had more
        for path in (folder / "figures").glob(pattern):
            path.unlink()
    curve = _curve(folder, audited, flags)
    return write_page(
        folder / "report.html",
        "audit.html.j2",
        {
            "title": f"{audited.name}: labels to look at",
            "scores": scores,
            "flags": flags,
            "notes": notes,
            "persons": all(entry.person for entry in audited.entries),
            "galleries": _galleries(folder, audited, shown),
            "curve": curve,
            "shares": None if curve else _shares(folder, audited, scores),
            "emotions": _emotions(scores),
            "noise": _noise(scores),
            "precision": None if flags is None else _precision(flags),
            "provenance": provenance,
        },
    )


def _galleries(folder: Path, audited: Audited, shown: int) -> list[FigureEntry]:
    flagged = audited.issues.order[: min(shown, int(audited.issues.flagged.sum()))].tolist()
    found = []
    for start in range(0, len(flagged), ACROSS * DOWN):
        rows = flagged[start : start + ACROSS * DOWN]
        subtitle = "below each: its label, the network's answer and how sure it is"
        if audited.second is not None:
            said = "orange: not the label; blue: the label; –: none of the seven"
            subtitle += f"; what people say ({said})"
        figure = gallery(audited, rows, start + 1, subtitle)
        name = f"flagged_{start + 1:04d}.png"
        path = save(figure, folder / "figures" / name)
        title = f"Flagged images {start + 1} to {start + len(rows)}"
        caption = f"Of {int(audited.issues.flagged.sum()):,}, the most suspicious first."
        files = _files(audited, rows, start + 1)
        found.append(FigureEntry(path, title, caption, f"figures/{name}", files))
    return found


def _files(audited: Audited, rows: Sequence[int], first: int) -> Table:
    cells: list[list[Content]] = []
    for rank, row in enumerate(rows, start=first):
        entry, answer = audited.entries[row], int(audited.preds[row])
        line: list[Content] = [
            str(rank),
            Cell(entry.emotion, words=True),
            Cell(labels.EMOTIONS[answer], words=True),
            percent(audited.probabilities[row, answer]),
        ]
        if audited.second is not None:
            line.append(Cell(audited.said(row) or ABSENT, words=True))
        texts = (entry.split, entry.id, entry.source)
        cells.append([*line, *(Cell(text, words=True) for text in texts)])
    said = ["Annotators"] if audited.second is not None else []
    columns = ["Rank", "Label", "Answer", "Probability", *said, "Split", "Image", "From"]
    return make_table(f"flagged-{first}", columns, cells)


def _curve(folder: Path, audited: Audited, flags: FlagScores | None) -> FigureEntry | None:
    """How right the flags are, where that is known of any."""
    if flags is None or audited.second is None or not flags["precision"][-1]["images"]:
        return None
    title = f"{audited.name}: flags that annotators confirm"
    figure = precision_curve(
        audited.target, audited.second, audited.issues, flags["base"], title=title
    )
    path = save(figure, folder / "figures" / "precision.png")
    caption = (
        "The share of the first n flags whose label is not what the annotators say, among those on "
        "which they agree on an emotion. Dashed: the same of all images, flagged or not."
    )
    return FigureEntry(path, "Flags that annotators confirm", caption, "figures/precision.png")


def _shares(folder: Path, audited: Audited, scores: AuditScores) -> FigureEntry | None:
    if not scores["flagged"]:
        return None
    figure = flagged_shares(scores, title=f"{audited.name}: flagged images of each emotion")
    path = save(figure, folder / "figures" / "flagged.png")
    caption = "The share of the images with each label that are flagged."
    return FigureEntry(path, "Flagged images of each emotion", caption, "figures/flagged.png")


def _emotions(scores: AuditScores) -> Table:
    rows: list[list[Content]] = []
    for emotion, own in scores["per_emotion"].items():
        share = percent(own["flagged"] / own["images"])
        rows.append([emotion, own["images"], own["flagged"], share, own["suggested"] or ABSENT])
    columns = ["Label", "Images", "Flagged", "Share", "Answer mostly"]
    return make_table("emotions", columns, rows)


def _noise(scores: AuditScores) -> Table:
    rows = [
        [emotion, *(number or Cell(ABSENT) for number in row)]
        for emotion, row in zip(labels.EMOTIONS, scores["noise_matrix"], strict=True)
    ]
    return make_table("noise", ["Label", *labels.EMOTIONS], rows)


def _precision(flags: FlagScores) -> Table:
    rows: list[list[Content]] = [
        [f"The first {row['flags']:,} flags", row["images"], row["hits"], _share(row)]
        for row in flags["precision"][:-1]
    ]
    every, base = flags["precision"][-1], flags["base"]
    rows.append([f"All {every['flags']:,} flags", every["images"], every["hits"], _share(every)])
    rows.append(["All images", base["images"], base["hits"], _share(base)])
    columns = ["Of", "Annotators agree on an emotion", "It is not the label", "Share"]
    return make_table("precision", columns, rows)


def _share(found: Share) -> Cell:
    interval = found["interval"]
    detail = None if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"
    return Cell(percent(found["share"]), detail)
