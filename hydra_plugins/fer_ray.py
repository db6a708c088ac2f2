"""Jobs of a sweep on a Ray cluster, through Hydra's own launcher for Ray.

That launcher hands jobs to Ray and collects what they return. What it leaves out is here: a
connection to a cluster that is already running (it asks for an object store's size, which Ray
then refuses), the working folder and ``FER_…`` variables in the cluster's processes, and a GPU for
each job where the cluster has some. Hydra imports this at every start, Ray only when it is used.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ClusterLauncher(Launcher):
    """See ``conf/launcher/ray.yaml``.

    Args:
        address: of the cluster's head; None for the one of ``RAY_ADDRESS`` or of this machine, or
            else one that is started here and ends with the sweep.
        cpus: cores of each job.
        gpus: of each job; None for one where the cluster has any.
        show_output: whether the terminal shows what the jobs print.
    """

    def __init__(
        self, address: str | None, cpus: float, gpus: float | None, show_output: bool
    ) -> None:
        self.address = address
        self.cpus = cpus
        self.gpus = gpus
        self.show_output = show_output
        self.context: dict[str, Any] = {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what the jobs are composed of, and what they do."""
        self.context = {
            "hydra_context": hydra_context,
            "task_function": task_function,
            "config": config,
        }

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs on the cluster and wait for them.

        Raises:
            CommandError: Ray is not installed, there is no such cluster, or no node of it can run
                a job.
        """
        from fer.core.application import CommandError

        try:
            import ray
            from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher
        except ModuleNotFoundError as error:
            raise CommandError(
                f"Error: launcher=ray: expected the packages ray and hydra-ray-launcher, found no "
                f'{error.name}. Install them: pip install "fer-lab[ray]"'
            ) from error
        if not ray.is_initialized():
            self._connect(ray.init)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        wanted = choose_resources(nodes, self.cpus, self.gpus)
        own = RayLauncher(
            ray=OmegaConf.create(
                {"init": {}, "remote": {"num_cpus": wanted["CPU"], "num_gpus": wanted["GPU"]}}
            )
        )
        own.setup(**self.context)
        returns: Sequence[JobReturn] = own.launch(job_overrides, initial_job_idx)
        return returns

    def _connect(self, init: Callable[..., Any]) -> None:
        """Join the cluster, or start one.

        Raises:
            CommandError: there is none at the address.
        """
        from fer.core.application import CommandError

        folder = Path.cwd()

        def enter() -> None:
            os.chdir(folder)  # relative paths mean the same as where the sweep was started

        try:
            host, colon, port = (self.address or "").rpartition(":")
            if colon and port.isdecimal() and "/" not in host:
                # Ray itself would try for minutes.
                socket.create_connection((host, int(port)), timeout=10).close()
            init(
                address=self.address,
                log_to_driver=self.show_output,
                runtime_env={
                    "env_vars": {k: v for k, v in os.environ.items() if k.startswith("FER_")},
                    "worker_process_setup_hook": enter,
                },
            )
        except OSError as error:  # a ConnectionError among them
            raise CommandError(
                f"Error: hydra.launcher.address: expected a Ray cluster, found none at "
                f"{self.address} that lets this program in: {error}. Start one there (ray start "
                "--head); one that asks for a token needs RAY_AUTH_MODE=token here as there."
            ) from error


def choose_resources(
    nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float | None
) -> dict[str, float]:
    """Cores and GPUs of a job: one GPU where there are any, unless ``gpus`` says otherwise.

    >>> choose_resources([{"CPU": 8.0}, {"CPU": 8.0, "GPU": 4.0}], 2, None)
    {'CPU': 2, 'GPU': 1}

    Raises:
        CommandError: no node has them; Ray would wait for one without end.
    """
    from fer.core.application import CommandError

    if gpus is None:
        gpus = 1 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0
    wanted = {"CPU": cpus, "GPU": gpus}
    if not any(all(node.get(key, 0) >= count for key, count in wanted.items()) for node in nodes):
        largest = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
        raise CommandError(
            f"Error: hydra.launcher.cpus and gpus: expected what a node of the cluster has (cores "
            f"and GPUs: {largest}), found {cpus:g} and {gpus:g}. Ask for less."
        )
    return wanted
