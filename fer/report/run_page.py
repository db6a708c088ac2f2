"""One self-contained HTML file per run: its numbers, figures, configuration and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from fer.core import labels
from fer.data.audit.integrity import Integrity
from fer.evaluation.metrics import Metrics
from fer.evaluation.scores import SCORES, shown_in
from fer.report.dataset_page import dataset_section
from fer.report.page import Cell, Section, Table, make_table, write_page
from fer.report.score_cells import emotion_table, leak_free, most_frequent, score_cell
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
    extra_splits: Mapping[str, Metrics] | None = None,
    data: Integrity | None = None,
    left_out: Sequence[str] = (),
) -> Path:
    """Write ``report.html``: one file, readable without a network, a server or JavaScript.

    Args:
        metrics: the content of ``metrics.json``.
        provenance: the content of ``run.json``.
        extra_splits: ``{name: metrics}`` of further splits, shown beside ``metrics``.
        data: the content of the dataset's ``integrity.json``, for the section on the data.
        left_out: what this run left out of the prepared dataset, a sentence each; shown there.
    """
    splits = {metrics["split"]: metrics, **(extra_splits or {})}
    present = sorted(_recalls(metrics), key=lambda row: row["recall"])
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
            "present": len(present),
            "extremes": [present[0], present[-1]] if len(present) > 1 else [],
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


class _Recall(TypedDict):
    """How often an emotion is recognised, and what it is taken for if there is a mistake."""

    emotion: str
    recall: float
    taken_for: str | None


def _recalls(metrics: Metrics) -> list[_Recall]:
    """Of each emotion that the split has."""
    found: list[_Recall] = []
    for row, emotion in zip(metrics["confusion_matrix"], labels.EMOTIONS, strict=True):
        images, right = sum(row), row[labels.INDEX[emotion]]
        if images:
            others = {name: n for name, n in zip(labels.EMOTIONS, row, strict=True) if n}
            others.pop(emotion, None)
            taken = max(others, key=lambda name: others[name]) if others else None
            found.append({"emotion": emotion, "recall": right / images, "taken_for": taken})
    return found


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
