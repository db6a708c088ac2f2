"""Hydra's plugin of ``launcher=ray``."""

from hydra_plugins.fer_ray.launcher import ClusterLauncher

__all__ = ["ClusterLauncher"]
