"""Optimizer steps as a CUDA graph.

A GPU computes a small network's step in a tenth of the time that it takes to launch it operation
by operation from Python.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

from fer.core.errors import ConfigError, first_line
from fer.model.muon import Muon
from fer.model.steps import follow, take_steps

log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps before a capture, in which libraries choose their algorithms."""
FROM_ZERO = (torch.optim.Adam, torch.optim.RMSprop, torch.optim.SGD, Muon)
"""Optimizers (AdamW is an Adam) whose state is zero before their first step."""


def why_not_graphed(module: Any) -> str | None:
    """What keeps steps from being replayed as a CUDA graph, in a few words; None if nothing."""
    if module.device.type != "cuda":
        return f"the device is {module.device.type}"
    if module.mixing.mixup or module.mixing.cutmix:
        return "mixing draws its numbers on the CPU"
    if getattr(module.loss, "takes_votes", False):
        return "targets are shares of votes"
    if module.trainer.precision == "16-mixed":
        return "16-mixed scales its losses on the CPU"
    optimizer: Any = module.optimizers().optimizer
    if not isinstance(optimizer, FROM_ZERO) or any(
        group.get("dampening") for group in optimizer.param_groups
    ):
        return f"the state of {type(optimizer).__name__} does not begin at zero"
    if getattr(module.lr_schedulers(), "cycle_momentum", False):
        return "the schedule changes more than learning rates"
    return None


class GraphedSteps:
    """Optimizer steps as a CUDA graph: one is captured, and replayed for each batch.

    What a replay reads and writes keeps its place in memory: parameters, gradients, the state of
    the optimizer, the chunk of images, learning rates, losses and predictions. Capturing leaves
    weights, BatchNorm, optimizer and random numbers as they were. See "CUDA Graphs" in PyTorch's
    notes on CUDA semantics.

    Args:
        module: an EmotionModule, in manual optimization, its checkpoint loaded.
        images: ``(K size, C, H, W)``, a chunk like those that follow, which may be shorter.
        size: images of a batch.

    Raises:
        RuntimeError: the step waits for the CPU, or memory is too small.
        TypeError: the optimizer's step wants to compute the loss itself.
    """

    def __init__(self, module: Any, images: torch.Tensor, size: int) -> None:
        device, steps = images.device, len(images) // size
        self.module, self.size = module, size
        wrapped: Any = module.optimizers()
        self.optimizer: torch.optim.Optimizer = wrapped.optimizer
        self.images = torch.zeros_like(images).unflatten(0, (steps, size))
        self.target = torch.zeros(steps, size, dtype=torch.int64, device=device)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        """Which batch of the chunk is next."""
        self.places = torch.arange(steps, device=device)
        self.rates = torch.zeros(steps, len(self.optimizer.param_groups), device=device)
        self.losses = torch.zeros(steps, device=device)
        self.preds = torch.zeros(steps, size, dtype=torch.int64, device=device)
        self.images.copy_(images.unflatten(0, (steps, size)))
        # The graph reads these tensors, whatever a schedule puts into the groups.
        self.current = [torch.zeros((), device=device) for _ in self.optimizer.param_groups]
        groups = [dict(group) for group in self.optimizer.param_groups]
        try:
            # Lightning computes in the run's precision around this; see take_steps.
            with torch.autocast(device.type, enabled=False):
                self._prepare(device)
        finally:  # schedules and checkpoints go on with numbers; the graph keeps its tensors
            for group, before in zip(self.optimizer.param_groups, groups, strict=True):
                group.update(before)

    def _prepare(self, device: torch.device) -> None:
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.rates[:] = torch.tensor(rates, device=device)
        for group, rate in zip(self.optimizer.param_groups, self.current, strict=True):
            group["lr"] = rate
            for name, value in (("capturable", True), ("fused", True), ("foreach", False)):
                if name in group:
                    group[name] = value
        for own in self.optimizer.state.values():  # a restored count of steps may lie on the CPU
            own.update({k: v.to(device) for k, v in own.items() if isinstance(v, torch.Tensor)})
        kept = Kept(self.module, self.optimizer)
        try:
            self.replay = self._capture(device)
            kept.restore()
            self._check(kept)
        finally:
            kept.restore()

    def _capture(self, device: torch.device) -> Callable[[], None]:
        side, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.optimizer.zero_grad(set_to_none=True)
                self.place.zero_()
                self._step()
        torch.cuda.current_stream(device).wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)  # the graph has gradients of its own
        try:
            with torch.cuda.graph(graph):
                self._step()
        except RuntimeError:  # random numbers would be left waiting for the end of the capture
            fresh = torch.Generator(device).graphsafe_get_state()
            torch.cuda.default_generators[side.device_index].graphsafe_set_state(fresh)
            raise
        return graph.replay

    def _check(self, kept: Kept) -> None:
        """Refuse a graph whose first step is not like a plain one, but for another dropout."""
        found = []
        for step in (self._step, self.replay):
            self.optimizer.zero_grad(set_to_none=True)
            self.place.zero_()
            self.losses.fill_(torch.nan)
            step()
            moved = max(float((own.detach() - before).abs().max()) for own, before in kept.weights)
            found.append((float(self.losses[0]), moved))
            kept.restore()
        (loss, moved), (other, also) = found
        # Not: the difference is too large. A number that is not finite compares with nothing.
        if not (
            abs(loss - other) <= 0.5 * abs(loss) + 0.1 and 0 < 0.1 * moved <= also <= 10 * moved
        ):
            raise RuntimeError(
                f"a replayed step had the loss {other:.3g} and moved weights by up to {also:.3g}, "
                f"a plain one {loss:.3g} and {moved:.3g}"
            )

    def _step(self) -> None:
        module, chosen = self.module, self.places == self.place
        images, target = self.images[self.place].squeeze(0), self.target[self.place].squeeze(0)
        with module.trainer.precision_plugin.train_step_context():
            logits = module(images)
            loss = module.loss_of(logits, target, images)
        loss.backward()
        rates = self.rates[self.place].squeeze(0)
        for own, rate in zip(self.current, rates, strict=True):
            own.copy_(rate)
        self.optimizer.step()
        self.losses.copy_(torch.where(chosen, loss.detach(), self.losses))
        self.preds.copy_(torch.where(chosen[:, None], logits.argmax(dim=1), self.preds))
        self.place.add_(1)

    def take(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take the steps of a chunk; returns losses ``(K,)``."""
        steps, module = len(target) // self.size, self.module
        self.images[:steps].copy_(images.unflatten(0, (steps, self.size)))
        self.target[:steps].copy_(target.unflatten(0, (steps, self.size)))
        rates = torch.tensor([self._next_rates() for _ in range(steps)]).pin_memory()
        self.rates[:steps].copy_(rates, non_blocking=True)
        self.place.zero_()
        moved = module.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for _ in range(steps):
            self.replay()
            moved.increment_ready()  # Lightning's global_step, which names checkpoints
            moved.increment_completed()
            follow(module)
        losses = self.losses[:steps].clone()
        module.train_metrics.keep(self.preds[:steps].flatten().clone(), target, losses)
        return losses

    def _next_rates(self) -> list[float]:
        """The learning rates of the next step; the schedule advances."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        schedule: Any = self.module.lr_schedulers()
        if schedule is not None:
            schedule.step()
        return rates


class Kept:
    """What warming up and capturing change, to be put back where it lies."""

    def __init__(self, module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        parts = (module.network, module.loss)
        self.weights = [(w, w.detach().clone()) for part in parts for w in part.parameters()]
        self.buffers = [(b, b.detach().clone()) for part in parts for b in part.buffers()]
        self.state = {
            parameter: {k: v.clone() for k, v in own.items() if isinstance(v, torch.Tensor)}
            for parameter, own in optimizer.state.items()
        }
        self.random = torch.cuda.get_rng_state(module.device)
        self.device = module.device

    @torch.no_grad()
    def restore(self) -> None:
        """Put it back; what the optimizer did not have before is zero, as it begins."""
        torch.cuda.synchronize(self.device)
        for own, before in (*self.weights, *self.buffers):
            own.copy_(before)
        for parameter, state in self.optimizer.state.items():
            known = self.state.get(parameter, {})
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    value.copy_(known[name]) if name in known else value.zero_()
        torch.cuda.set_rng_state(self.random, self.device)


def make_take(
    module: Any, images: torch.Tensor, size: int, graph: bool | str
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A function that takes the steps of a chunk of images and targets, and gives their losses.

    Args:
        module: an EmotionModule, in manual optimization.
        images: the first chunk.
        size: images of a batch.
        graph: ``auto``, True or False.

    Raises:
        ConfigError: a graph was asked for, and there can be none.
    """
    reason = why_not_graphed(module)
    if graph and reason is None:
        try:
            return GraphedSteps(module, images, size).take
        # Of any network, loss or optimizer; or there is too little memory.
        except (RuntimeError, TypeError) as error:
            reason = f"the step cannot be captured ({first_line(error)})"
    if graph is True:
        raise ConfigError(f"trainer.cuda_graph: expected auto or false, found true, but {reason}.")
    if graph and module.device.type == "cuda":
        log.info("Steps are launched one by one, not as a CUDA graph: %s", reason)
    return functools.partial(take_steps, module, size=size)
