"""The one network of the study, trained from scratch on every dataset."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer.core import labels
from fer.core.errors import ConfigError


class SharedCNN(nn.Module):
    """Blocks of Conv 3x3 → BatchNorm → ReLU → MaxPool, then average pooling, dropout and Linear.

    Normalisation is part of the network: mean and standard deviation of the training images are
    buffers, so that they travel with the weights.

    Args:
        widths: channels of each block; one block halves height and width.
        in_channels: 1 (gray) or 3 (RGB).
        image_size: side of the input in pixels that it is trained at; other sizes run too.
        dropout: probability before the last layer, 0 <= dropout < 1.
        num_classes: number of emotions.

    Raises:
        ConfigError: a value that cannot work.

    >>> SharedCNN(widths=[8, 16])(torch.zeros(2, 1, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 7])
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 1,
        image_size: int = 64,
        dropout: float = 0.3,
        num_classes: int = labels.NUM_CLASSES,
    ) -> None:
        super().__init__()
        if not widths or any(width < 1 for width in widths):
            raise ConfigError(f"model.widths: expected channels per block, found {list(widths)}.")
        if in_channels not in (1, 3):
            raise ConfigError(f"model.in_channels: expected 1 or 3, found {in_channels}.")
        if not 0 <= dropout < 1:
            raise ConfigError(
                f"model.dropout: expected a probability from 0 to below 1, found {dropout}."
            )
        if image_size < 2 ** len(widths):
            raise ConfigError(
                f"model.image_size: expected at least {2 ** len(widths)} pixels for "
                f"{len(widths)} blocks that halve the image, found {image_size}."
            )
        self.image_size = image_size
        self.in_channels = in_channels
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("std", torch.ones(in_channels))
        blocks = []
        channels = in_channels
        for width in widths:
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    # Pooling first: the maximum of the rectified values is the rectified
                    # maximum, on a quarter of the values.
                    nn.MaxPool2d(2),
                    nn.ReLU(inplace=True),
                )
            )
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set mean and standard deviation per channel, as fractions of 255."""
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(std))

    @property
    def is_folded(self) -> bool:
        """Whether BatchNorm is part of the convolutions."""
        return not any(isinstance(module, nn.BatchNorm2d) for module in self.blocks.modules())

    def folded(self) -> SharedCNN:
        """A copy for inference in which BatchNorm is part of the convolutions: equal but cheaper.

        The sums are taken in another order, so that logits differ in the last digits.
        """
        copy = deepcopy(self).eval()
        for block in copy.blocks:
            assert isinstance(block, nn.Sequential)
            convolution, norm = block[0], block[1]
            assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            block[0], block[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
        return copy

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, 7)`` of images ``(N, C, H, W)``: uint8 0–255, or float 0–1."""
        x = images if images.is_floating_point() else images.float() / 255
        x = (x - self.mean[:, None, None]) / self.std[:, None, None]
        x = self.blocks(x)  # (N, widths[-1], H / 16, W / 16) for four blocks
        x = x.mean(dim=(2, 3))  # (N, widths[-1])
        logits: torch.Tensor = self.head(self.dropout(x))  # (N, 7)
        return logits
