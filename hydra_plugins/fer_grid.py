"""A grid whose sweep survives: failures are contained, and what is missing can be run later.

Hydra only takes sweepers from the package ``hydra_plugins``, and imports all of it at every start:
what the sweep does with its results is in :mod:`fer.runs.sweep`, imported when it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf


class GridSweeper(BasicSweeper):
    """Runs every combination of the values, each in a folder of its own below the sweep's.

    Beyond Hydra's basic sweeper, which reads the command line: a folder that holds a sweep is not
    written over; with ``resume`` only jobs that have not finished are launched, under their own
    numbers; at the end the jobs are put side by side.
    """

    def sweep(self, arguments: list[str]) -> list[list[JobReturn]]:
        """Launch the jobs and collect their results.

        Raises:
            CommandError: the folder of a job holds a run, or jobs have failed.
        """
        from fer.core.application import CommandError
        from fer.core.errors import FerError
        from fer.core.options import FIGURE_FORM
        from fer.runs import sweep
        from fer.tasks.wrap_up import finish_sweep

        assert self.config is not None and self.launcher is not None
        assert self.hydra_context is not None
        values = [f"{key}={value}" for key, value in (self.params or {}).items()]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*values, *arguments])
        (found,) = self.split_arguments(overrides, max_batch_size=None)
        if not found:
            given = " ".join([*values, *arguments])
            raise CommandError(f"Error: expected values to sweep, found none in {given}.")
        jobs = sweep.leave_test_alone([list(job) for job in found])
        folder = Path(self.config.hydra.sweep.dir)
        self.validate_batch_is_legal(jobs)
        returns: list[Any] = []
        try:
            if OmegaConf.select(self.config, "resume") is None:
                planned = sweep.plan(self.config, self.hydra_context.config_loader, jobs)
                sweep.begin(folder, planned, self.config)
            else:
                planned = sweep.recall(folder, jobs)
            for first, group in sweep.to_run(folder, planned):
                returns.append(self.launcher.launch(group, initial_job_idx=first))
            FIGURE_FORM.set(OmegaConf.select(self.config, "figures.format"))
            finish_sweep(folder, planned)
        except FerError as error:
            raise CommandError(f"Error: {error}") from error
        return returns
