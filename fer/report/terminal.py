"""The tables that a command prints at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer.core.application import log_to_file
from fer.core.words import how_many, percent
from fer.evaluation.metrics import SplitResult
from fer.evaluation.scores import SCORES, scores_in, shown_in
from fer.report.page import Table as PageTable
from fer.report.score_cells import leak_free
from fer.report.sweep_page import jobs_table
from fer.runs.state import FINISHED
from fer.runs.sweep import Job


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
    console = Console()
    title = "Jobs, the best macro-F1 on validation first"
    console.print(as_rich(jobs_table(jobs, keys), title))
    for note in notes:
        console.print(f"Note: {note}", markup=False, highlight=False)
    print_places(folder)


def print_side_by_side(folder: Path, table: PageTable) -> None:
    """Print several evaluations, and where their page is."""
    Console().print(as_rich(table, "Every network on every dataset"))
    print_places(folder)


def print_places(folder: Path) -> None:
    """Print where the results of several jobs are."""
    console = Console()
    for name in ("sweep.csv", "best.yaml", "cross_dataset.csv", "comparison.json"):
        if (folder / name).exists():
            console.print(f"  {folder / name}", markup=False, highlight=False, soft_wrap=True)
    if (folder / FINISHED).exists():
        page = f"Report: {folder / FINISHED}"
        console.print(page, markup=False, highlight=False, soft_wrap=True)


def as_rich(content: PageTable, title: str) -> Table:
    """A page's table for the terminal, without its small print."""
    table = Table(title=title)
    for index, heading in enumerate(content.columns):
        first = content.rows[0][index]
        words = first.words or (index == 0 and not first.text.isdecimal())
        table.add_column(
            escape(heading),
            justify="left" if words else "right",
            no_wrap=index == len(content.columns) - 1,
        )
    for row in content.rows:
        table.add_row(*(escape(cell.text) for cell in row))
    return table
