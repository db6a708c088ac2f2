"""Training on pairs of images that are blended (mixup) or pasted into each other (CutMix)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fer.core.options import check_value, number

ALPHA = number("a number from 0", lambda value: value >= 0)


class Mixed(NamedTuple):
    """A batch in which each image is made of two."""

    images: torch.Tensor
    """``(N, C, H, W)``, float 0–1 after mixup, as they came after CutMix."""
    partner: torch.Tensor
    """``(N,)`` int64: row of each second image in the batch."""
    share: float
    """Share of the first image, 0 to 1, by which the loss weighs the two targets."""


class Mixing:
    """Mixes a batch with a shuffled copy of itself, by random numbers of torch's CPU stream.

    Zhang et al., "mixup", arXiv 1710.09412; Yun et al., "CutMix", arXiv 1905.04899. With both, each
    batch gets one of them at random.

    Args:
        mixup: alpha of the Beta(alpha, alpha) distribution of the share; 0 for none.
        cutmix: the same for the area that is kept.
        p: probability per batch.

    Raises:
        ConfigError: a value that cannot work.
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0, p: float = 1.0) -> None:
        check_value("mixing.mixup", mixup, ALPHA)
        check_value("mixing.cutmix", cutmix, ALPHA)
        check_value("mixing.p", p, number("a probability from 0 to 1", lambda p: 0 <= p <= 1))
        self.mixup = mixup
        self.cutmix = cutmix
        self.p = p

    def __call__(self, images: torch.Tensor) -> Mixed | None:
        """Mix images ``(N, C, H, W)``; None leaves this batch as it is."""
        if self.mixup == self.cutmix == 0 or len(images) < 2 or torch.rand(()) >= self.p:
            return None
        cut = self.mixup == 0 or (self.cutmix > 0 and bool(torch.rand(()) < 0.5))
        alpha = torch.full((2,), self.cutmix if cut else self.mixup, dtype=torch.float64)
        # A Beta from two Gammas: torch.distributions would validate its arguments each time.
        first, second = torch._standard_gamma(alpha).clamp(min=1e-12).tolist()
        share = first / (first + second)
        partner = torch.randperm(len(images)).to(images.device)
        if not cut:
            values = images if images.is_floating_point() else images.float() / 255
            return Mixed(torch.lerp(values[partner], values, share), partner, share)
        height, width = images.shape[2:]
        side = (1 - share) ** 0.5
        centre = torch.rand(2).tolist()
        top, bottom = _span(centre[0], side, height)
        left, right = _span(centre[1], side, width)
        pasted = images.clone()
        pasted[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
        return Mixed(pasted, partner, 1 - (bottom - top) * (right - left) / (height * width))


def _span(centre: float, side: float, size: int) -> tuple[int, int]:
    """First and last pixel, exclusive, of a patch that the image's edge may cut off."""
    start = round(centre * size - side * size / 2)
    return max(0, start), min(size, start + round(side * size))
