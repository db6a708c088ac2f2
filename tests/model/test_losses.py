"""Losses: what their weights and exponents compute, in one process and in several."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from fer.model.losses import CrossEntropyLoss, FocalLoss, class_weights
from fer.model.mixing import Mixing
from fer.model.module import EmotionModule
from fer.model.network import NormalisedNetwork

COUNTS = [40, 4, 41, 72, 48, 32, 50]
LOSSES = {
    "smoothed": lambda: CrossEntropyLoss(COUNTS, class_weight="balanced"),
    "focal": lambda: FocalLoss(COUNTS, gamma=0.5, class_weight="sqrt_balanced"),
    "torch's": lambda: nn.CrossEntropyLoss(weight=class_weights(COUNTS, "balanced")),
    "without weights": CrossEntropyLoss,
}


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
def test_focal_loss_has_a_slope_however_sure_the_network_is(gamma: float) -> None:
    logits = torch.tensor([[200.0, *[0.0] * 6], [17.0, *[0.0] * 6], [0.0] * 7], requires_grad=True)
    loss = FocalLoss(gamma=gamma)(logits, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_what_is_smoothed_has_the_weight_of_its_own_class() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(5, 7), torch.tensor([0, 1, 1, 3, 6])
    weight, s = class_weights(COUNTS, "balanced"), 0.2
    assert weight is not None
    cost = -logits.log_softmax(dim=1)
    each = (1 - s) * weight[target] * cost[torch.arange(5), target] + s / 7 * cost @ weight
    found = CrossEntropyLoss(COUNTS, label_smoothing=s, class_weight="balanced")(logits, target)
    torch.testing.assert_close(found, each.sum() / weight[target].sum())


class Step(nn.Module):
    """A training step as a forward pass, so that processes can share its gradient."""

    def __init__(self, module: EmotionModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.module.training_step((images, target), 0)


class Linear(nn.Module):
    """Without batch statistics, which differ between processes."""

    image_size, in_channels = 4, 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images.flatten(1))
        return logits


def make_step(loss: str, mixing: Mixing | None = None) -> Step:
    torch.manual_seed(0)
    return Step(EmotionModule(NormalisedNetwork(Linear()), LOSSES[loss](), mixing=mixing))


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 1, 4, 4, generator=generator)
    return images, torch.tensor([3, 3, 3, 4, 1, 1, 0, 5])  # the rare class in the second half


def gradient(step: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in step.parameters() if p.grad is not None])


def in_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    images, target = (part[4 * rank : 4 * rank + 4] for part in make_batch())
    for name in LOSSES:
        step = DistributedDataParallel(make_step(name))
        step(images, target).backward()
        found[name] = gradient(step)
    # One process mixes its batch and the other does not: neither waits for the other.
    step = DistributedDataParallel(make_step("smoothed", Mixing(mixup=1.0, p=float(rank))))
    step(images, target).backward()
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    spawn(in_process, (str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name in LOSSES:
        step = make_step(name)
        step(*make_batch()).backward()
        torch.testing.assert_close(found[name], gradient(step), msg=name)


class Counted:
    """Data that know their training images."""

    def class_counts(self) -> list[int]:
        return COUNTS


def test_what_a_network_takes_for_frequent_is_counts_times_weights() -> None:
    module = make_step("smoothed").module
    assert module.priors(Counted()) == pytest.approx([1 / 7] * 7)  # balanced
    plain = make_step("without weights").module
    assert plain.priors(Counted()) == pytest.approx([n / sum(COUNTS) for n in COUNTS])
    assert plain.priors(object()) is None
