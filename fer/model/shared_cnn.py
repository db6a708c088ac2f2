"""The one network of the study, trained from scratch on every dataset."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer.core import labels
from fer.core.errors import ConfigError
from fer.core.options import Check, check_value, number, whole
from fer.model.network import register_network, to_fractions

CHANNELS: Check = ("1 (gray) or 3 (RGB)", lambda value: value in (1, 3))
CLASSES: Check = (
    f"{labels.NUM_CLASSES}, the emotions of the schema",
    lambda value: value == labels.NUM_CLASSES,
)
PROBABILITY = number("a probability from 0 to below 1", lambda value: 0 <= value < 1)
WIDTHS: Check = (
    "a list of channels per block",
    lambda value: (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(map(whole(1)[1], value))
    ),
)


@register_network("shared_cnn")
class SharedCNN(nn.Module):
    """Blocks of Conv 3x3 → BatchNorm → ReLU → MaxPool, then average pooling, dropout and Linear.

    Args:
        widths: channels of each block; a block halves height and width.
        convolutions: convolutions of each block, each with BatchNorm and ReLU.
        in_channels: 1 (gray) or 3 (RGB).
        image_size: side of the training images in pixels; other sizes run too.
        dropout: probability before the last layer, 0 <= dropout < 1.
        num_classes: number of emotions.

    Raises:
        ConfigError: a value that cannot work.

    >>> SharedCNN(widths=[8, 16])(torch.zeros(2, 1, 48, 48)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 1,
        image_size: int = 48,
        dropout: float = 0.3,
        num_classes: int = labels.NUM_CLASSES,
        convolutions: int = 1,
    ) -> None:
        super().__init__()
        check_value("model.widths", widths, WIDTHS)
        check_value("model.convolutions", convolutions, whole(1, 8))
        check_value("model.in_channels", in_channels, CHANNELS)
        check_value("model.dropout", dropout, PROBABILITY)
        check_value("model.image_size", image_size, whole(1, 1024))
        check_value("model.num_classes", num_classes, CLASSES)
        if image_size < 2 ** len(widths):
            raise ConfigError(
                f"model.image_size: expected at least {2 ** len(widths)} pixels for "
                f"{len(widths)} blocks that halve the image, found {image_size}."
            )
        self.image_size = image_size
        self.in_channels = in_channels
        blocks = []
        channels = in_channels
        for width in widths:
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [
                    nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
            # Pooling before ReLU gives the same values, and leaves ReLU a quarter of them.
            layers.insert(-1, nn.MaxPool2d(2))
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def folded(self) -> SharedCNN:
        """A cheaper copy for inference in which BatchNorm is part of the convolutions.

        The sums are taken in another order, so that logits differ in the last digits.
        """
        copy = deepcopy(self).eval()
        blocks: Any = copy.blocks
        for block in blocks:
            for index, layer in enumerate(block):
                if isinstance(layer, nn.BatchNorm2d):  # else folded already
                    block[index - 1] = fuse_conv_bn_eval(block[index - 1], layer)
                    block[index] = nn.Identity()
        return copy

    def stages(self) -> list[tuple[str, nn.Module]]:
        """The blocks and the head, with their names."""
        named = [(f"block {number}", block) for number, block in enumerate(self.blocks, start=1)]
        return [*named, ("head", self.head)]

    def feature_maps(self) -> nn.Module:
        """The last block, whose output Grad-CAM looks at."""
        return self.blocks[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, 7)`` of images ``(N, C, H, W)``: float, or uint8 0–255."""
        x = self.blocks(to_fractions(images))  # (N, widths[-1], H / 16, W / 16) for four blocks
        x = x.mean(dim=(2, 3))  # (N, widths[-1])
        return self.head(self.dropout(x))  # (N, 7)
