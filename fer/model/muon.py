"""Muon for a convolutional network: kernels as matrices, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fer.core.options import check_value, number

GRAY_OR_RGB = 3
"""Channels of an image: a kernel on more is Muon's."""


class Muon(torch.optim.Optimizer):
    """Muon for the kernels of convolutions, AdamW for the first of them and all other weights.

    Muon moves a matrix by its momentum, made orthogonal by Newton-Schulz iterations and scaled by
    the square root of max(1, rows / columns) (Jordan et al.,
    https://kellerjordan.github.io/posts/muon/, 2024). A kernel ``(out, in, h, w)`` is the matrix
    ``(out, in h w)``. :class:`torch.optim.Muon` computes the step.

    Args:
        params: parameters or parameter groups.
        lr: of Muon.
        adamw_lr: of AdamW.
        momentum: Nesterov's, of Muon.
        weight_decay: of both, unless a group has its own.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        adamw_lr: float = 5e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        share = number("a share from 0 to below 1", lambda value: 0 <= value < 1)
        check_value("optimizer.momentum", momentum, share)
        check_value("optimizer.adamw_lr", adamw_lr, number("above 0", lambda value: value > 0))
        groups: list[dict[str, Any]] = []
        for given in params:
            group = dict(given) if isinstance(given, dict) else {"params": [given]}
            for of_muon, rate in ((True, lr), (False, adamw_lr)):
                own = [p for p in group["params"] if is_kernel(p) == of_muon]
                if own:
                    groups.append({**group, "params": own, "of_muon": of_muon, "lr": rate})
        adamw = torch.optim.AdamW([torch.zeros(())], lr=adamw_lr, weight_decay=weight_decay)
        super().__init__(groups, {**adamw.defaults, "of_muon": False})
        rest = [{"params": own["params"]} for own in self.param_groups if not own["of_muon"]]
        self.adamw = torch.optim.AdamW(rest) if rest else None
        self.matrices = {
            kernel: nn.Parameter(torch.zeros_like(kernel.detach().flatten(1)))
            for group in self.param_groups
            if group["of_muon"]
            for kernel in group["params"]
        }
        """Kernel → where Muon steps from zero: what it moves a matrix by at a rate of 1."""
        kernels = list(self.matrices.values())
        self.muon: Any = None
        if kernels:
            self.muon = torch.optim.Muon(kernels, 1.0, weight_decay=0, momentum=momentum)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the weights; with a closure, compute the loss anew and return it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # What the two remember lies in this optimizer's state, which checkpoints hold.
        if self.adamw is not None:
            self.adamw.state = self.state
            others = [group for group in self.param_groups if not group["of_muon"]]
            for own, group in zip(self.adamw.param_groups, others, strict=True):
                own.update({key: value for key, value in group.items() if key != "params"})
            self.adamw.step()
        for kernel, matrix in self.matrices.items():
            matrix.zero_()
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
            self.muon.state[matrix] = self.state[kernel]
        if self.muon is not None:
            self.muon.step()
        for group in self.param_groups:
            if group["of_muon"]:
                for kernel in group["params"]:
                    kernel.mul_(1 - group["lr"] * group["weight_decay"])
                    kernel.add_(self.matrices[kernel].view(kernel.shape) * group["lr"])
        return loss


def is_kernel(parameter: nn.Parameter) -> bool:
    """True for the kernel of a convolution other than the first, which sees the image."""
    return parameter.ndim == 4 and parameter.shape[1] > GRAY_OR_RGB
