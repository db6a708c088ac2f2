"""Hydra's plugin of the sweeps of ``train.py -m``; see :mod:`fer.runs.sweep`."""

from hydra_plugins.fer_grid.sweeper import GridSweeper

__all__ = ["GridSweeper"]
