"""The tables that a command prints at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer.evaluation.metrics import SCALARS, SplitResult
from fer.runs.sweep import Job, short_names, shorten


def print_summary(
    folder: Path,
    result: SplitResult,
    val: SplitResult | None,
    notes: Sequence[str],
) -> None:
    """The final table: metrics, and where everything is."""
    split = result.metrics["split"]
    table = Table(title=f"{result.metrics['dataset']}: {len(result.target):,} {split} images")
    table.add_column("metric")
    table.add_column(split, justify="right")
    table.add_column("95 % interval", justify="right")
    if val is not None:
        table.add_column("val", justify="right")
    for name in SCALARS:
        low, high = result.metrics["confidence_intervals"][name]
        cells = [name.replace("_", " "), f"{result.metrics[name]:.2%}", f"{low:.2%} – {high:.2%}"]
        if val is not None:
            cells.append(f"{val.metrics[name]:.2%}")
        table.add_row(*cells)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(f"Note: {note}", markup=False)
    robustness = result.metrics.get("robustness")
    if robustness is not None:
        for name, row in robustness["relative_area"].items():
            console.print(
                f"Left under {name.replace('_', ' ')}: {row['accuracy']:.1%} of the accuracy, "
                f"{row['macro_f1']:.1%} of the macro-F1 (area under the curve)",
                highlight=False,
            )
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            # soft_wrap keeps a path in one piece, to be copied.
            console.print(f"  {path}", markup=False, highlight=False, soft_wrap=True)


def print_jobs(folder: Path, jobs: Sequence[Job], keys: Sequence[str], best: Job | None) -> None:
    """The jobs on the terminal, the best on validation first."""
    table = Table(title="Jobs, the best on validation first (F1: macro-F1)")
    table.add_column("job", justify="right")
    for name in short_names(keys):
        table.add_column(name)
    # A search leaves the test split alone.
    tested = any(job.score("test", "macro_f1") is not None for job in jobs)
    splits = ("val", "test") if tested else ("val",)
    scored = [f"{split} {name}" for split in splits for name in ("F1", "acc.")]
    for heading in (*scored, "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("status", no_wrap=True)
    order = sorted(jobs, key=lambda job: -(job.score("val", "macro_f1") or -1.0))
    for job in order:
        scores = [job.score(split, name) for split in splits for name in ("macro_f1", "accuracy")]
        table.add_row(
            str(job.number),
            *(escape(shorten(job.values.get(key, ""))) for key in keys),
            *("–" if score is None else f"{score:.2%}" for score in scores),
            "–" if job.run is None else f"{job.run['wall_seconds']:.0f}",
            job.status,
        )
    console = Console()
    console.print(table)
    for name in ("sweep.csv", "best.yaml", "figures"):
        if (folder / name).exists():
            console.print(f"  {folder / name}", markup=False, highlight=False, soft_wrap=True)
