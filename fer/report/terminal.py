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
from fer.runs.state import FINISHED


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
        _say(
            console,
            f"Without {copies} duplicated {words} in an earlier split: accuracy "
            f"{percent(clean['accuracy'])}, macro-F1 {percent(clean['macro_f1'])}",
        )
    for note in notes:
        _say(console, f"Note: {note}")
    damaged = result.metrics.get("robustness")
    for name, row in damaged["relative_area"].items() if damaged else ():
        kept = scores_in(row)
        left = (f"{percent(kept[s.name])} of the {s.heading}" for s in shown_in("robustness"))
        shown = name.replace("_", " ")
        _say(console, f"Left under {shown}: {', '.join(left)} (area under the curve)")
    if more:
        _say(console, more)
    _say(console, f"Report: {page}", whole=True)
    log_to_file(console.export_text(), logging.INFO)


def print_jobs(folder: Path, title: str, table: PageTable, notes: Sequence[str] = ()) -> None:
    """Print the table of several jobs, notes on it, and where their results are."""
    console = Console()
    console.print(as_rich(table, title))
    for note in notes:
        _say(console, f"Note: {note}")
    for name in ("sweep.csv", "best.yaml", "cross_dataset.csv", "comparison.json"):
        if (folder / name).exists():
            _say(console, f"  {folder / name}", whole=True)
    _say(console, f"Report: {folder / FINISHED}", whole=True)


def _say(console: Console, text: str, *, whole: bool = False) -> None:
    """Print a text as it is, in lines of the terminal's width, or ``whole``, to be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=whole)


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
