"""One self-contained HTML file per run: its numbers, figures, configuration and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.core import labels
from fer.data.audit.integrity import Integrity
from fer.evaluation.metrics import Metrics
from fer.evaluation.scores import SCORES, shown_in
from fer.report.dataset_page import dataset_section
from fer.report.page import Cell, Section, Table, make_table, write_page
from fer.report.score_cells import emotion_table, leak_free, most_frequent, score_cell, taken_for
from fer.runs.records import RunRecord


def write_run_report(
    path: Path,
    *,
    title: str,
    subtitle: str,
    notes: Sequence[str],
    metrics: Metrics,
    sections: Sequence[Section],
    provenance: RunRecord,
    config_yaml: str,
    val: Metrics | None = None,
    data: Integrity | None = None,
    left_out: Sequence[str] = (),
) -> Path:
    """Write ``report.html``: one file, readable without a network, a server or JavaScript.

    Args:
        metrics: the content of ``metrics.json``.
        provenance: the content of ``run.json``.
        val: of validation, shown beside ``metrics`` of another split.
        data: the content of the dataset's ``integrity.json``, for the section on the data.
        left_out: what this run left out of the prepared dataset, a sentence each; shown there.
    """
    splits = {own["split"]: own for own in (metrics, val) if own is not None}
    recalls = _recalls(metrics)
    return write_page(
        path,
        "run.html.j2",
        {
            "title": title,
            "subtitle": subtitle,
            "notes": notes,
            "metrics": metrics,
            "cards": [(score.title, score_cell(metrics, score)) for score in shown_in("cards")],
            "headline": _headline(splits),
            "baseline": most_frequent(metrics),
            "recalls": recalls,
            "leak_free": leak_free(metrics),
            "per_class": emotion_table(
                "per-class",
                {"" if own is metrics else f"{split}: ": [own] for split, own in splits.items()},
            ),
            "data": None if data is None else dataset_section(data, left_out),
            "sections": sections,
            "config_yaml": config_yaml,
            "provenance": {key: value for key, value in provenance.items() if key != "config"},
        },
    )


def _recalls(metrics: Metrics) -> list[tuple[str, float, str | None]]:
    """Each emotion that the split has, its recall and what it is taken for, the lowest first."""
    rows = enumerate(metrics["confusion_matrix"])
    found = [
        (labels.EMOTIONS[index], row[index] / sum(row), taken_for(row, index)[0])
        for index, row in rows
        if any(row)
    ]
    return sorted(found, key=lambda one: one[1])


def _headline(splits: Mapping[str, Metrics]) -> Table:
    (name, metrics), *others = splits.items()
    columns: dict[str, Mapping[str, Any]] = {
        name: metrics,
        f"{name}, without leaks": metrics["without_leaks"] or {},
    }
    near = leak_free(metrics).get("exactly or nearly")
    if near:
        columns[f"{name}, without near leaks"] = near
    columns |= dict(others)
    rows = [
        [
            Cell(score.title, score.meaning or None),
            *(score_cell(column, score) for column in columns.values()),
        ]
        for score in SCORES.values()
    ]
    counts = [column.get("samples") for column in columns.values()]
    return make_table("headline", ["Metric", *columns], [*rows, ["Images", *counts]])
