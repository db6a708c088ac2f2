"""The end of a command with several jobs: their table, figures and page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fer.core.application import CommandError
from fer.core.commands import typed
from fer.core.errors import FerError
from fer.core.options import FIGURE_FORM
from fer.runs import sweep
from fer.runs.state import State

log = logging.getLogger(__name__)

RETRY = "When the cause is gone, run what is missing: python train.py {resume}"
"""Advice on jobs that have failed."""


class SideBySide(Callback):
    """Puts the jobs of ``evaluate.py -m`` side by side at its end."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Collect the jobs in the sweep's folder, if they are at least two."""
        FIGURE_FORM.set(config.figures.format)
        try:
            put_side_by_side(Path(config.hydra.sweep.dir), shown=True)
        except FerError as error:
            log.error("Error: %s", error)


def put_side_by_side(folder: Path, *, shown: bool = False) -> None:
    """Write the tables and the page of the evaluations below ``folder``, if it has two finished.

    ``shown``: on the terminal as well.

    Raises:
        DataError: a file of an evaluation cannot be read.
    """
    from fer.report.side_by_side_page import cross_table, write_side_by_side_page
    from fer.report.terminal import print_jobs
    from fer.runs.side_by_side import collect

    collection = collect(folder)
    if collection is None:
        return
    write_side_by_side_page(folder, collection)
    if shown:
        print_jobs(folder, "Every network on every dataset", cross_table(collection, brief=True))


def finish_sweep(
    folder: Path,
    planned: Sequence[sweep.Job],
    keys: Sequence[str] | None = None,
    advice: str = RETRY,
) -> None:
    """Put the jobs side by side: ``sweep.csv``, ``best.yaml``, a figure, a table on the terminal.

    Shown are the keys that were swept, else those that differ among the jobs; ``advice`` says what
    to do about jobs that have failed.

    Raises:
        CommandError: a job has failed, or did not finish.
    """
    # matplotlib takes a second to import: when there is something to plot.
    from fer.report.sweep_page import jobs_table, write_sweep_page
    from fer.report.terminal import print_jobs

    jobs = [sweep.read_job(folder, job) for job in planned]
    keys = sweep.swept_keys(job.values for job in jobs) if keys is None else keys
    sweep.write_table(folder / "sweep.csv", jobs, keys)
    best, notes = sweep.best_jobs(jobs), sweep.notes_on(jobs)
    if best:
        sweep.write_best(folder / "best.yaml", best, notes)
    advice = advice.format(resume=typed("resume", folder))
    write_sweep_page(folder, jobs, keys, notes, advice)
    title = "Jobs, the best macro-F1 on validation first"
    print_jobs(folder, title, jobs_table(jobs, keys), notes)
    failed = [job for job in jobs if job.state is State.FAILED]
    missing = failed or [job for job in jobs if job.state in (State.UNFINISHED, State.MISSING)]
    if missing:
        first, what = missing[0], "failed" if failed else "did not finish"
        message = f": {first.error.splitlines()[0]}" if first.error else ""
        raise CommandError(
            f"Error: {len(missing)} of {len(jobs)} jobs {what}, job {first.number} first"
            f"{message}. {advice}"
        )
