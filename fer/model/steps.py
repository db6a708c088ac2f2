"""Several optimizer steps in one training step, for images that lie on the device."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)

ORDINARY = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "limit_train_batches": 1.0,
    "max_steps": -1,
    "val_check_interval": 1.0,
}
"""Options of Lightning's trainer that are about single steps, with their defaults."""
HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step"),
)
"""Those of a callback that are called for each step."""
ABOUT_STEPS = (BaseFinetuning, GradientAccumulationScheduler, StochasticWeightAveraging)
"""Callbacks that change what a step does, by other means than its hooks."""


def why_single(trainer: Trainer) -> str | None:
    """What keeps a training from taking several steps at once, in a few words; None if nothing."""
    for name, usual in ORDINARY.items():
        found = getattr(trainer, name)
        if found not in (usual, None):
            return f"trainer.{name}={found}"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if looks_at_steps(callback):
            return f"the callback {type(callback).__name__} looks at each step"
    return None


def looks_at_steps(callback: Callback) -> bool:
    """True for a callback that chunks of steps would mislead.

    One of ours that they do not has the attribute ``takes_chunks``.
    """
    if isinstance(callback, ModelCheckpoint):
        return callback._every_n_train_steps > 0
    if isinstance(callback, WeightAveraging | ProgressBar) or hasattr(callback, "takes_chunks"):
        return False
    own = type(callback)
    return isinstance(callback, ABOUT_STEPS) or any(
        hook in vars(callback) or getattr(own, hook) is not getattr(Callback, hook)
        for hook in HOOKS
    )


def take_steps(module: Any, images: torch.Tensor, target: torch.Tensor, size: int) -> torch.Tensor:
    """Take an optimizer step for each batch of a chunk, as Lightning does for one.

    Args:
        module: an EmotionModule, in manual optimization.
        images: ``(K size, C, H, W)``.
        target: ``(K size,)``.
        size: images of a batch.

    Returns:
        Losses ``(K,)``.
    """
    optimizer, schedule = module.optimizers(), module.lr_schedulers()
    losses = []
    # Lightning computes in the precision of the run around all of this, but takes backward and
    # update out of it; the closure enters it for the forward pass alone.
    with torch.autocast(images.device.type, enabled=False):
        for part, own in zip(images.split(size), target.split(size), strict=True):

            def closure(part: torch.Tensor = part, own: torch.Tensor = own) -> torch.Tensor:
                with module.trainer.precision_plugin.train_step_context():
                    loss = module.loss_of_batch(part, own)
                optimizer.zero_grad()
                module.manual_backward(loss)
                losses.append(loss.detach())
                return loss

            optimizer.step(closure=closure)
            if schedule is not None:
                schedule.step()
            follow(module)
    return torch.stack(losses)


def follow(module: Any) -> None:
    """Let the averaged weights follow a step."""
    for callback in module.trainer.callbacks:
        if isinstance(callback, WeightAveraging):
            callback.on_train_batch_end(module.trainer, module, None, None, 0)
