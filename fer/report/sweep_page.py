"""The page of a sweep, and the table of its jobs; ``sweep.html.j2`` holds the sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from fer.core.words import ABSENT, how_many
from fer.report.page import Cell, Content, Table, make_table, write_page
from fer.report.sweep_figure import plot_sweep
from fer.runs.state import FINISHED
from fer.runs.sweep import Job, best_jobs, chooses, measured_scores, short_names, shorten


def jobs_table(jobs: Sequence[Job], keys: Sequence[str]) -> Table:
    """The jobs, the best on validation first; of several sets of validation images, set by set.

    Args:
        jobs: at least one.
        keys: the options that are shown.
    """
    scores = measured_scores(jobs)
    groups = [job.validated_on for job in best_jobs(jobs)]
    order = sorted(
        jobs,
        key=lambda job: (
            groups.index(job.validated_on) if job.validated_on in groups else len(groups),
            -(job.score("val", "macro_f1") or -1.0),
        ),
    )
    rows: list[list[Content]] = []
    for job in order:
        page = f"{quote(job.folder)}/{FINISHED}" if job.run is not None else None
        seconds = ABSENT if job.outcome is None else f"{job.outcome['wall_seconds']:.0f}"
        measured = (
            score.format.text(job.score(split, score.name), more=1) for split, score in scores
        )
        rows.append(
            [
                Cell(str(job.number), link=page),
                *(Cell(shorten(job.values.get(key, "")), words=True) for key in keys),
                *measured,
                seconds,
                Cell(job.state.value, words=True),
            ]
        )
    names = [f"{split} {score.heading}" for split, score in scores]
    return make_table("jobs", ["job", *short_names(keys), *names, "seconds", "status"], rows)


def write_sweep_page(
    folder: Path,
    jobs: Sequence[Job],
    keys: Sequence[str],
    notes: Sequence[str],
    advice: str,
) -> Path:
    """Write the figure and ``folder/report.html``.

    Args:
        folder: of the sweep.
        jobs: all of them.
        keys: the options that were swept.
        notes: sentences for the reader.
        advice: what to do about jobs without a result.
    """
    best, figure = best_jobs(jobs), None
    if len(best) == 1:
        figure = plot_sweep(folder, jobs, keys)
    else:  # it would compare scores on different images
        for path in (folder / "figures").glob("sweep.*"):
            path.unlink()
    return write_page(
        folder / FINISHED,
        "sweep.html.j2",
        {
            "title": f"Sweep: {how_many(len(jobs), 'job')}",
            "keys": list(keys),
            "notes": notes,
            "best": best,
            "chooses": chooses([job.overrides for job in jobs]),
            "lacking": [job for job in jobs if job.outcome is None],
            "advice": advice,
            "table": jobs_table(jobs, keys),
            "figure": figure,
        },
    )
