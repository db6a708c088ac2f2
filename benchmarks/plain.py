"""A training loop as most people write it, to measure ours against.

ImageFolder, torchvision's transforms in the training process, float32, contiguous tensors, the loss
read after every step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder


def loader(
    folder: Path, image_size: int, channels: int, batch_size: int, *, augment: bool
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a prepared split, ``(N, C, H, W)`` float32; ImageFolder sorts its classes."""
    steps: list[nn.Module | transforms.ToTensor] = [transforms.Resize((image_size, image_size))]
    if channels == 1:
        steps.append(transforms.Grayscale())
    if augment:  # the operations of conf/augmentation/standard.yaml, as torchvision has them
        steps += [
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(15, translate=(0.1, 0.1), scale=(0.88, 1.12)),
            transforms.ColorJitter(brightness=0.2, contrast=0.2),
        ]
    steps.append(transforms.ToTensor())
    if augment:
        steps.append(transforms.RandomErasing(p=0.3, scale=(0.02, 0.12)))
    steps.append(transforms.Normalize([0.5] * channels, [0.25] * channels))
    return DataLoader(
        ImageFolder(str(folder), transforms.Compose(steps)),
        batch_size=batch_size,
        shuffle=augment,
        drop_last=augment,
    )


def train_epoch(
    network: nn.Module,
    batches: DataLoader[tuple[torch.Tensor, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
) -> Iterator[int]:
    """Train on each batch; gives the number of its images."""
    network.train()
    criterion = nn.CrossEntropyLoss()
    total = 0.0
    for images, target in batches:
        optimizer.zero_grad()
        loss = criterion(network(images), target)
        loss.backward()
        optimizer.step()
        total += loss.item()
        yield len(target)


def throughput(
    network: nn.Module, folder: Path, image_size: int, channels: int, batch_size: int, images: int
) -> float:
    """Training images per second over ``images`` of them, after three batches to warm up."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    batches = loader(folder, image_size, channels, batch_size, augment=True)
    done, warm, started = 0, 3, 0.0
    while done < images:
        for count in train_epoch(network, batches, optimizer):
            if warm > 0:
                warm -= 1
                started = time.perf_counter()
                continue
            done += count
            if done >= images:
                break
    return done / (time.perf_counter() - started)


@torch.inference_mode()
def accuracy(network: nn.Module, batches: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Share of the images that are recognised."""
    network.eval()
    right = total = 0
    for images, target in batches:
        right += int((network(images).argmax(dim=1) == target).sum())
        total += len(target)
    return right / total
