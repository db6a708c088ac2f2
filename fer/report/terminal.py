"""The tables that a command prints at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer.core.application import log_to_file
from fer.core.words import ABSENT, how_many, percent
from fer.evaluation.metrics import SplitResult
from fer.evaluation.scores import SCORES, scores_in, shown_in
from fer.report.score_cells import leak_free
from fer.runs.sweep import Job, best_jobs, measured_scores, short_names, shorten


def print_summary(
    page: Path,
    result: SplitResult,
    val: SplitResult | None,
    notes: Sequence[str],
    more: str | None = None,
) -> None:
    """Print the final table of metrics, the notes, ``more``, and where the page is.

    The run's log has the same.
    """
    split = result.metrics["split"]
    table = Table(title=f"{result.metrics['dataset']}: {len(result.target):,} {split} images")
    table.add_column("metric")
    table.add_column(split, justify="right")
    table.add_column("95 % interval", justify="right")
    if val is not None:
        table.add_column("val", justify="right")
    for name, score in SCORES.items():
        cells = [
            escape(score.heading),
            score.format.text(scores_in(result.metrics)[name], more=1),
            score.format.interval(result.metrics["confidence_intervals"][name], more=1),
        ]
        if val is not None:
            cells.append(score.format.text(scores_in(val.metrics)[name], more=1))
        table.add_row(*cells)
    console = Console(record=True)
    console.print(table)
    for words, clean in leak_free(result.metrics).items():
        copies = how_many(len(result.target) - clean["samples"], "image")
        console.print(
            f"Without {copies} duplicated {words} in an earlier split: accuracy "
            f"{percent(clean['accuracy'])}, macro-F1 {percent(clean['macro_f1'])}",
            markup=False,
            highlight=False,
        )
    for note in notes:
        console.print(f"Note: {note}", markup=False)
    damaged = result.metrics.get("robustness")
    for name, row in damaged["relative_area"].items() if damaged else ():
        kept = scores_in(row)
        left = (f"{percent(kept[s.name])} of the {s.heading}" for s in shown_in("robustness"))
        console.print(
            f"Left under {name.replace('_', ' ')}: {', '.join(left)} (area under the curve)",
            markup=False,
            highlight=False,
        )
    if more:
        console.print(more, markup=False, highlight=False)
    # soft_wrap keeps a path in one piece, to be copied.
    console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)
    log_to_file(console.export_text(), logging.INFO)


def print_jobs(
    folder: Path, jobs: Sequence[Job], keys: Sequence[str], notes: Sequence[str]
) -> None:
    """Print the jobs, the best on validation first."""
    table = Table(title="Jobs, the best macro-F1 on validation first")
    table.add_column("job", justify="right")
    for name in short_names(keys):
        table.add_column(name)
    columns = measured_scores(jobs)
    for heading in (*(f"{split} {score.heading}" for split, score in columns), "seconds"):
        table.add_column(escape(heading), justify="right")
    table.add_column("status", no_wrap=True)
    groups = [job.validated_on for job in best_jobs(jobs)]  # a set of validation images each
    order = sorted(
        jobs,
        key=lambda job: (
            groups.index(job.validated_on) if job.validated_on in groups else len(groups),
            -(job.score("val", "macro_f1") or -1.0),
        ),
    )
    for job in order:
        table.add_row(
            str(job.number),
            *(escape(shorten(job.values.get(key, ""))) for key in keys),
            *(score.format.text(job.score(split, score.name), more=1) for split, score in columns),
            ABSENT if job.outcome is None else f"{job.outcome['wall_seconds']:.0f}",
            job.state.value,
        )
    console = Console()
    console.print(table)
    for note in notes:
        console.print(f"Note: {note}", markup=False, highlight=False)
    for name in ("sweep.csv", "best.yaml", "figures"):
        if (folder / name).exists():
            console.print(f"  {folder / name}", markup=False, highlight=False, soft_wrap=True)
