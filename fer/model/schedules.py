"""Learning-rate schedules beside torch's own.

One whose signature asks for ``total_steps`` gets them and advances with every step; any other, such
as torch's ``StepLR``, advances with every epoch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import lr_scheduler

from fer.core.errors import ConfigError


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"scheduler.{name}: expected a share from 0 to below 1, found {value}.")


def one_cycle(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    warmup: float = 0.3,
    start_factor: float = 0.04,
    end_factor: float = 1e-5,
) -> lr_scheduler.OneCycleLR:
    """Rise to the optimizer's learning rate and fall again, in cosines, once over the training.

    Smith & Topin, "Super-Convergence", arXiv 1708.07120.

    Args:
        optimizer: its learning rate is the peak.
        total_steps: steps of the training.
        warmup: share of the steps with a rising rate.
        start_factor: first learning rate as a share of the peak.
        end_factor: last learning rate as a share of the peak.
    """
    _check_share("warmup", warmup)
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=warmup,
        div_factor=1 / start_factor,
        final_div_factor=start_factor / end_factor,
        # Not every optimizer has a momentum; none is cycled.
        cycle_momentum=False,
    )


def cosine(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup: float = 0.05
) -> lr_scheduler.LambdaLR:
    """Rise linearly, then fall to zero in a cosine (Loshchilov & Hutter, arXiv 1608.03983).

    The arguments are those of :func:`one_cycle`.
    """
    _check_share("warmup", warmup)
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = (step - rising) / max(1, total_steps - rising)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    return lr_scheduler.LambdaLR(optimizer, factor)


def plateau(
    optimizer: torch.optim.Optimizer, factor: float = 0.5, patience: int = 3
) -> lr_scheduler.ReduceLROnPlateau:
    """Multiply the learning rate by ``factor``, 0 < factor < 1, when validation macro-F1 stops
    rising for more than ``patience`` epochs."""
    if not 0 < factor < 1:
        raise ConfigError(f"scheduler.factor: expected a share between 0 and 1, found {factor}.")
    options: dict[str, Any] = {"mode": "max", "factor": factor, "patience": patience}
    return lr_scheduler.ReduceLROnPlateau(optimizer, **options)


def constant(optimizer: torch.optim.Optimizer) -> lr_scheduler.LambdaLR:
    """Keep the optimizer's learning rate from the first step to the last."""
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
