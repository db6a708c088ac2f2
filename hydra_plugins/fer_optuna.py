"""A search by Optuna: it proposes the values of each job from the scores of those before.

Hydra only takes sweepers from the package ``hydra_plugins``, and imports all of it at every start:
the search is in :mod:`fer.runs.search`, imported when it is needed, and Optuna with it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OptunaSweeper(Sweeper):
    """Trials that Optuna proposes, each a job in a folder of its own below the sweep's.

    Args:
        params: the values of each option that is searched, as on the command line:
            ``interval(0, 0.5)``, ``int(interval(2, 8))``, ``tag(log, interval(1e-4, 1e-2))``,
            ``range(1, 9, 2)``, ``choice(a, b)``. Overrides of the command line add to them or
            replace them.
        **settings: see :class:`fer.runs.search.Settings`.
    """

    def __init__(self, params: DictConfig | None, **settings: Any) -> None:
        self.params: Mapping[str, Any] = {str(key): value for key, value in (params or {}).items()}
        self.settings = settings
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what the jobs are composed of, and what runs them."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[list[JobReturn]]:
        """Search, launching the jobs, and collect their results.

        Raises:
            CommandError: Optuna is not installed, the options cannot work, the folder of a
                job holds a run, or jobs have failed.
        """
        from fer.core.application import CommandError
        from fer.core.errors import FerError
        from fer.core.options import FIGURE_FORM
        from fer.runs import search, sweep
        from fer.runs.search_space import example, read_space
        from fer.tasks.wrap_up import finish_sweep

        assert self.config is not None and self.launcher is not None
        assert self.hydra_context is not None
        launcher = self.launcher
        returns: list[Any] = []

        def launch(first: int, jobs: list[list[str]]) -> None:
            returns.append(launcher.launch(jobs, initial_job_idx=first))

        folder = Path(self.config.hydra.sweep.dir)
        resuming = OmegaConf.select(self.config, "resume") is not None
        try:
            settings = search.Settings.make(self.settings)
            parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
            space, fixed = read_space(self.params, arguments, parser)
            self._check(example(space, fixed))
            search.import_optuna()
            if not resuming:
                sweep.begin(folder, [], self.config)
            plan = functools.partial(sweep.plan, self.config, self.hydra_context.config_loader)
            asked = search.Search(folder, space, fixed, settings, resuming=resuming)
            jobs = asked.run(plan, launch)
            FIGURE_FORM.set(OmegaConf.select(self.config, "figures.format"))
            finish_sweep(folder, jobs, [dimension.name for dimension in space], search.ADVICE)
        except FerError as error:
            raise CommandError(f"Error: {error}") from error
        return returns

    def _check(self, job: list[str]) -> None:
        """Compose one job, to find what no trial could run with before the first.

        Raises:
            ConfigError: it does not compose, or a value is not what its key expects.
        """
        from fer.core.errors import ConfigError
        from fer.core.options import check_options

        assert self.config is not None and self.hydra_context is not None
        try:
            cfg = self.hydra_context.config_loader.load_sweep_config(self.config, job)
            check_options(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
        except HydraException as error:
            raise ConfigError(
                "hydra.sweeper.params and the command line: expected options of train.py, found: "
                f"{error} Correct the key; python train.py --help lists the options."
            ) from error
