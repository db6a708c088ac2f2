"""One self-contained HTML file per run: its numbers, figures, configuration and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.core import labels
from fer.core.words import ABSENT, percent, to_number, whole
from fer.evaluation.scores import SCORES, shown_in
from fer.report.dataset_page import dataset_section
from fer.report.page import (
    Cell,
    FigureEntry,
    Section,
    Table,
    embed,
    embed_section,
    tree,
    write_page,
)
from fer.report.score_cells import score_cell

PER_CLASS = ("precision", "recall", "f1")
HISTORY: dict[str, str] = {
    "epoch": "Epoch",
    "train_loss": "Train loss",
    "val_loss": "Val loss",
    "train_accuracy": "Train accuracy",
    "val_accuracy": "Val accuracy",
    "train_macro_f1": "Train macro-F1",
    "val_macro_f1": "Val macro-F1",
    "learning_rate": "Learning rate",
    "seconds": "Seconds",
    "images_per_second": "Images/s",
}
"""Headings of the columns of ``history.csv``."""


def write_run_report(
    path: Path,
    *,
    title: str,
    subtitle: str,
    notes: Sequence[str],
    metrics: Mapping[str, Any],
    figures: Sequence[FigureEntry],
    provenance: Mapping[str, Any],
    config_yaml: str,
    history: Sequence[Mapping[str, Any]] | None = None,
    extra_splits: Mapping[str, Mapping[str, Any]] | None = None,
    data: Mapping[str, Any] | None = None,
    left_out: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """Write ``report.html``: one file, readable without a network, a server or JavaScript.

    Args:
        path: of the file; written atomically.
        title: of the page.
        subtitle: what was measured, in one sentence.
        notes: warnings, shown before any number is explained.
        metrics: the content of ``metrics.json``.
        figures: shown in this order.
        provenance: the content of ``run.json``, nested as deeply as it is.
        config_yaml: the resolved configuration.
        history: the rows of ``history.csv``, or None for a run without training.
        extra_splits: ``{name: metrics}`` of further splits, shown beside ``metrics``.
        data: the content of the dataset's ``integrity.json``, for the section on the data.
        left_out: what this run left out of the prepared dataset, a sentence each; shown there.
        sections: further parts, shown after the figures.

    Raises:
        DataError: a figure cannot be read or is not a PNG file.
    """
    splits = {str(metrics.get("split") or "result"): metrics, **(extra_splits or {})}
    return write_page(
        path,
        "run.html.j2",
        {
            "title": title,
            "subtitle": subtitle,
            "notes": notes,
            "cards": _cards(metrics),
            "headline": _headline(splits),
            "leaks": _describe_leaks(metrics),
            "per_class": _per_class(splits),
            "data": None if data is None else dataset_section(data, left_out),
            "figures": [embed(entry) for entry in figures],
            "sections": [embed_section(section) for section in sections],
            "history": _history(history) if history else None,
            "config_yaml": config_yaml,
            "provenance": tree(provenance),
        },
    )


def _cards(metrics: Mapping[str, Any]) -> list[dict[str, str | None]]:
    cards: list[dict[str, str | None]] = []
    for score in shown_in("cards"):
        cell = score_cell(metrics, score)
        detail = f"95 % CI {cell.detail}" if cell.detail else None
        cards.append({"name": score.title, "value": cell.text, "detail": detail})
    where = " · ".join(str(metrics[key]) for key in ("dataset", "split") if metrics.get(key))
    return [*cards, {"name": "Images", "value": whole(metrics.get("samples")), "detail": where}]


def _with_leak_free(
    splits: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, Mapping[str, Any]]]:
    """The columns of the headline table: the first split, the same without leaks, the others."""
    (name, metrics), *others = splits.items()
    return [
        (name, metrics),
        (f"{name}, without leaks", metrics.get("without_leaks") or {}),
        *([(f"{name}, without near leaks", near)] if (near := near_leaks(metrics)) else []),
        *others,
    ]


def near_leaks(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The scores without near duplicates, where there are some beside the exact ones."""
    exact, near = (metrics.get(f"without_{kind}") for kind in ("leaks", "near_leaks"))
    return near if exact and near and near["samples"] != exact["samples"] else None


def _headline(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = _with_leak_free(splits)
    rows = [
        [
            Cell(score.title, None, score.meaning or None),
            *(score_cell(metrics, score) for _, metrics in columns),
        ]
        for score in SCORES.values()
    ]
    counts = (metrics.get("samples") for _, metrics in columns)
    rows.append([Cell("Images"), *(Cell(whole(count), to_number(count)) for count in counts)])
    return Table("headline", ["Metric", *(name for name, _ in columns)], rows)


def _describe_leaks(metrics: Mapping[str, Any]) -> str:
    clean, total = metrics.get("without_leaks"), to_number(metrics.get("samples"))
    rule = "“Without leaks” leaves out each image that is pixel for pixel in an earlier split too"
    if not clean:
        return f"{rule}; for this split there is no such measurement."
    kept = to_number(clean.get("samples"))
    if kept is None or not total:
        return f"{rule}."
    left_out = total - kept
    text = f"{rule}: {left_out:,.0f} of {total:,.0f} ({percent(left_out / total)})."
    if left_out == 0:
        text = f"{rule}; this split has none."
    near = near_leaks(metrics)
    if near is None:
        return text
    return f"{text} “Without near leaks” leaves out {kept - near['samples']:,.0f} near copies too."


def _per_class(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    first, *others = splits.values()
    rows = []
    for index, emotion in enumerate(labels.EMOTIONS):
        own = _of_emotion(first, emotion)
        f1_elsewhere = (_of_emotion(metrics, emotion).get("f1") for metrics in others)
        rows.append(
            [
                Cell(emotion, index),  # sorts in the schema's order
                *(Cell(percent(own.get(name)), to_number(own.get(name))) for name in PER_CLASS),
                Cell(whole(own.get("support")), to_number(own.get("support"))),
                _taken_for(first.get("confusion_matrix"), index),
                *(Cell(percent(f1), to_number(f1)) for f1 in f1_elsewhere),
            ]
        )
    extra = [f"F1 ({split})" for split in list(splits)[1:]]
    columns = ["Emotion", "Precision", "Recall", "F1", "Images", "Most often taken for", *extra]
    return Table("per-class", columns, rows, sortable=True)


def _of_emotion(metrics: Mapping[str, Any], emotion: str) -> Mapping[str, Any]:
    """An emotion's scores. Recall and F1 of an emotion without images are not defined: absent."""
    found = dict((metrics.get("per_class") or {}).get(emotion) or {})
    if found.get("support") == 0:
        found |= {"recall": None, "f1": None}
    return found


def _taken_for(matrix: Sequence[Sequence[int]] | None, index: int) -> Cell:
    """The emotion that the images of emotion ``index`` are most often mistaken for."""
    if matrix is None:
        return Cell(ABSENT)
    row = list(matrix[index])
    mistakes = [0 if column == index else n for column, n in enumerate(row)]
    most = max(mistakes)
    if most == 0:
        return Cell(ABSENT)
    share = most / sum(row)
    return Cell(f"{labels.EMOTIONS[mistakes.index(most)]} ({percent(share)})", share)


def _history(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(key for row in history for key in row))
    scores = [to_number(row.get("val_macro_f1")) for row in history]
    known = [score for score in scores if score is not None]
    return {
        "columns": [HISTORY.get(column, column) for column in columns],
        "rows": [[_history_cell(column, row.get(column)) for column in columns] for row in history],
        # The checkpoint that is kept: the first with the highest validation macro-F1.
        "best": scores.index(max(known)) if known else None,
    }


def _history_cell(column: str, value: object) -> Cell:
    number = to_number(value)
    if number is None:
        return Cell(ABSENT)
    if column.endswith(("accuracy", "_f1")):
        text = percent(number)
    elif column == "epoch" or column == "images_per_second":
        text = whole(number)
    elif column == "seconds":
        text = f"{number:,.1f}"
    elif column == "learning_rate":
        text = f"{number:.3g}"
    else:
        text = f"{number:.4f}"
    return Cell(text, number)
