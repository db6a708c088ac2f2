"""One self-contained HTML file per run: its numbers, figures, configuration and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.core.words import ABSENT, to_number, whole
from fer.evaluation.scores import SCORES, shown_in
from fer.report.dataset_page import dataset_section
from fer.report.page import Cell, Section, Table, count_cell, percent_cell, tree, write_page
from fer.report.score_cells import emotion_table, leak_free, score_cell

HEADINGS = {
    "train_macro_f1": "Train macro-F1",
    "val_macro_f1": "Val macro-F1",
    "images_per_second": "Images/s",
}
"""Headings of columns of ``history.csv`` that are not their names."""
FORMATS = {"seconds": ",.1f", "learning_rate": ".3g"}
"""Formats of its columns that are neither scores nor losses nor counts."""


def write_run_report(
    path: Path,
    *,
    title: str,
    subtitle: str,
    notes: Sequence[str],
    metrics: Mapping[str, Any],
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
    config_yaml: str,
    history: Sequence[Mapping[str, Any]] = (),
    extra_splits: Mapping[str, Mapping[str, Any]] | None = None,
    data: Mapping[str, Any] | None = None,
    left_out: Sequence[str] = (),
) -> Path:
    """Write ``report.html``: one file, readable without a network, a server or JavaScript.

    Args:
        path: of the file; written atomically.
        title: of the page.
        subtitle: what was measured, in one sentence.
        notes: warnings, shown before any number is explained.
        metrics: the content of ``metrics.json``.
        sections: further parts, shown after the scores and the data.
        provenance: the content of ``run.json``, nested as deeply as it is.
        config_yaml: the resolved configuration.
        history: the rows of ``history.csv``; none for a run without training.
        extra_splits: ``{name: metrics}`` of further splits, shown beside ``metrics``.
        data: the content of the dataset's ``integrity.json``, for the section on the data.
        left_out: what this run left out of the prepared dataset, a sentence each; shown there.
    """
    splits = {str(metrics["split"]): metrics, **(extra_splits or {})}
    return write_page(
        path,
        "run.html.j2",
        {
            "title": title,
            "subtitle": subtitle,
            "notes": notes,
            "metrics": metrics,
            "cards": _cards(metrics),
            "headline": _headline(splits),
            "leak_free": leak_free(metrics),
            "per_class": _per_class(splits),
            "data": None if data is None else dataset_section(data, left_out),
            "sections": sections,
            "history": _history_table(history) if history else None,
            "best": _best_row(history),
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
    where = f"{metrics['dataset']} · {metrics['split']}"
    return [*cards, {"name": "Images", "value": whole(metrics["samples"]), "detail": where}]


def _headline(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    (name, metrics), *others = splits.items()
    columns = {name: metrics, f"{name}, without leaks": metrics.get("without_leaks") or {}}
    near = leak_free(metrics).get("exactly or nearly")
    if near:
        columns[f"{name}, without near leaks"] = near
    columns |= dict(others)
    rows = [
        [
            Cell(score.title, None, score.meaning or None),
            *(score_cell(column, score) for column in columns.values()),
        ]
        for score in SCORES.values()
    ]
    counts = [count_cell(column.get("samples")) for column in columns.values()]
    return Table("headline", ["Metric", *columns], [*rows, [Cell("Images"), *counts]])


def _per_class(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    first, *others = (emotion_table("per-class", {"": [own]}) for own in splits.values())
    f1 = first.columns.index("F1")
    return Table(
        first.id,
        [*first.columns, *(f"F1 ({split})" for split in list(splits)[1:])],
        [[*row, *(other.rows[n][f1] for other in others)] for n, row in enumerate(first.rows)],
        sortable=True,
    )


def _history_table(history: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in history for key in row))
    headings = [HEADINGS.get(one, one.replace("_", " ").capitalize()) for one in columns]
    rows = [[_history_cell(column, row.get(column)) for column in columns] for row in history]
    return Table("epochs", headings, rows, sortable=True)


def _best_row(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The epoch of the checkpoint that is kept: the first with the highest macro-F1 on val."""
    scores = [to_number(row.get("val_macro_f1")) for row in history]
    known = [score for score in scores if score is not None]
    return scores.index(max(known)) if known else None


def _history_cell(column: str, value: object) -> Cell:
    number = to_number(value)
    if number is None:
        return Cell(ABSENT)
    if column.endswith(("accuracy", "_f1")):
        return percent_cell(number)
    if column in ("epoch", "images_per_second"):
        return count_cell(number)
    return Cell(format(number, FORMATS.get(column, ".4f")), number)
