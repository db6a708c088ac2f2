"""Hydra's plugin of ``sweep=optuna``; see :mod:`fer.runs.search`."""

from hydra_plugins.fer_optuna.sweeper import OptunaSweeper

__all__ = ["OptunaSweeper"]
