"""Losses on logits ``(N, 7)`` and targets ``(N,)``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from fer.core.errors import ConfigError
from fer.core.options import check_value, number

SMOOTHING = number("a share from 0 to below 1", lambda value: 0 <= value < 1)
WEIGHTINGS = (None, "balanced", "sqrt_balanced")


def class_weights(counts: Sequence[int] | None, weighting: str | None) -> torch.Tensor | None:
    """Weights ``(C,)`` that make rare classes count more.

    ``balanced`` is n / (C * n_c) (King & Zeng, "Logistic Regression in Rare Events Data", 2001; as
    in scikit-learn); ``sqrt_balanced`` is its square root. Both are scaled to a mean weight of one
    per training image, which leaves the learning rate comparable. A class without images gets 0.

    >>> class_weights([1, 3], "balanced")
    tensor([2.0000, 0.6667])
    """
    if weighting is None:
        return None
    if counts is None:
        raise ConfigError(
            f"loss.class_weight: expected the images of each class beside {weighting!r}, found "
            "none. Pass class_counts, or let the module make the loss where it meets its data: "
            "EmotionModule(network, partial(CrossEntropyLoss, class_weight='balanced'))"
        )
    n = torch.tensor(counts, dtype=torch.float64)
    weights = torch.where(n > 0, n.sum() / (len(counts) * n.clamp(min=1)), 0.0)
    if weighting == "sqrt_balanced":
        weights = weights.sqrt()
    elif weighting != "balanced":
        raise ConfigError(
            f"loss.class_weight: expected one of {', '.join(map(str, WEIGHTINGS))}, "
            f"found {weighting!r}."
        )
    mean = (weights * n).sum() / n.sum()
    return (weights / mean).float()


class CrossEntropyLoss(nn.Module):
    """Cross-entropy with label smoothing and class weights.

    Args:
        class_counts: training images per class; needed for weights only.
        label_smoothing: share s of the target spread evenly over the C classes, 0 <= s < 1 (Szegedy
            et al., arXiv 1512.00567). With class weights w, as in PyTorch, an image of class y
            costs -(1 - s) w_y log p_y - s / C sum_c w_c log p_c, and a batch the sum over its
            images divided by the sum of their w_y. A rare class thus gets more of what is spread.
        class_weight: None, ``balanced`` or ``sqrt_balanced`` (see :func:`class_weights`).
    """

    weight: torch.Tensor | None

    def __init__(
        self,
        class_counts: Sequence[int] | None = None,
        label_smoothing: float = 0.1,
        class_weight: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"loss.label_smoothing: expected a share from 0 to below 1, found "
                f"{label_smoothing}."
            )
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", class_weights(class_counts, class_weight))

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean loss over the batch, weighted where there are weights; a scalar."""
        return F.cross_entropy(
            logits.float(), target, weight=self.weight, label_smoothing=self.label_smoothing
        )


class SoftLoss(nn.Module):
    """Cross-entropy with the shares of several annotators' votes.

    An image whose emotions y have the shares q_y costs -sum_y q_y log p_y (Barsoum et al., arXiv
    1608.01041). In evaluation the target is one label.

    Args:
        label_smoothing: share of each target that is spread evenly, 0 <= s < 1.
    """

    takes_votes = True
    """Asks the data module for votes instead of labels."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_value("loss.label_smoothing", label_smoothing, SMOOTHING)
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean loss of logits ``(N, 7)`` and shares ``(N, 7)`` or labels ``(N,)``; a scalar."""
        return F.cross_entropy(logits.float(), target, label_smoothing=self.label_smoothing)


class FocalLoss(nn.Module):
    """Focal loss: -(1 - p)^gamma log p of the target's probability p.

    Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, in its multi-class form.

    Args:
        class_counts: training images per class; needed for weights (the paper's alpha) only.
        gamma: 0 is cross-entropy; larger values look away from easy images. Between 0 and 1 the
            slope of (1 - p)^gamma has no bound at p = 1, where 1 - p is held at 1e-7.
        class_weight: None, ``balanced`` or ``sqrt_balanced`` (see :func:`class_weights`).
    """

    weight: torch.Tensor | None

    def __init__(
        self,
        class_counts: Sequence[int] | None = None,
        gamma: float = 2.0,
        class_weight: str | None = None,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise ConfigError(f"loss.gamma: expected a number from 0, found {gamma}.")
        self.gamma = gamma
        self.register_buffer("weight", class_weights(class_counts, class_weight))

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Weighted mean loss over the batch, a scalar."""
        log_p = F.log_softmax(logits.float(), dim=1)  # (N, C)
        log_p = log_p.gather(1, target[:, None]).squeeze(1)  # (N,)
        rest = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)  # 1 - p
        loss = -(rest**self.gamma) * log_p  # (N,)
        if self.weight is None:
            return loss.mean()
        weight = self.weight[target]  # (N,)
        return (weight * loss).sum() / weight.sum()


def process_factor(loss: nn.Module, target: torch.Tensor) -> torch.Tensor | float:
    """Factor of this process's weighted mean loss among those of all processes.

    Each is divided by the weights of its own images. Times this factor, their mean, whose gradient
    DistributedDataParallel follows, is the weighted mean over all images, as in one process.

    Args:
        loss: ours, or one of torch's own with class weights.
        target: ``(N,)``, of this process.
    """
    weight = getattr(loss, "weight", None)
    weighted = CrossEntropyLoss | FocalLoss | nn.CrossEntropyLoss | nn.NLLLoss
    if weight is None or not isinstance(loss, weighted) or not dist.is_initialized():
        return 1.0
    if getattr(loss, "reduction", "mean") != "mean":  # a sum is divided by nothing
        return 1.0
    own = weight[target[target != getattr(loss, "ignore_index", None)]].sum()
    total = own.clone()
    dist.all_reduce(total)
    return own * dist.get_world_size() / total
