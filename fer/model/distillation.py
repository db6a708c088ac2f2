"""Learning from other networks' answers beside the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from fer.core.errors import ConfigError
from fer.core.files import sha256_of_file
from fer.core.options import check_value, number
from fer.model.checkpoint import load_checkpoint
from fer.model.network import NormalisedNetwork


class DistilledLoss(nn.Module):
    """Cross-entropy with the labels, and with what teachers say of the same augmented images.

    (1 - w) CE + w T² KL(p || q), of the teachers' mean probabilities p and the student's q, both at
    temperature T (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", arXiv
    1503.02531). In evaluation it is cross-entropy alone.

    Args:
        teacher: checkpoints, or one of them, of networks with the student's input.
        temperature: T, above 0.
        weight: w, 0 to 1.
        label_smoothing: of the cross-entropy with the labels, 0 <= s < 1.

    Raises:
        ConfigError: a value that cannot work, or no teacher.
        CheckpointError: a teacher cannot be read, or has other emotions.
    """

    def __init__(
        self,
        teacher: str | Sequence[str] | None = None,
        temperature: float = 3.0,
        weight: float = 0.7,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        for key, value, words, accept in (
            ("temperature", temperature, "a number above 0", lambda v: v > 0),
            ("weight", weight, "a share from 0 to 1", lambda v: 0 <= v <= 1),
            ("label_smoothing", label_smoothing, "a share from 0 to below 1", lambda v: 0 <= v < 1),
        ):
            check_value(f"loss.{key}", value, number(words, accept))
        paths = [teacher] if isinstance(teacher, str) else list(teacher or [])
        if not paths or not all(isinstance(path, str) for path in paths):
            raise ConfigError(
                "loss.teacher: expected the checkpoints of networks to learn from, found "
                f"{teacher!r}. loss.teacher=[RUN/checkpoints/best.ckpt,OTHER.ckpt]"
            )
        self.temperature, self.weight, self.label_smoothing = temperature, weight, label_smoothing
        loaded = [load_checkpoint(path) for path in paths]
        # A tuple, which hides them from the student's weights, optimizer and checkpoints.
        self.teachers: tuple[NormalisedNetwork, ...] = tuple(
            one.network.folded().eval().requires_grad_(False) for one in loaded
        )
        self.checksums = [sha256_of_file(one.path) for one in loaded]
        """SHA-256 of each teacher's checkpoint."""

    def check_student(self, network: NormalisedNetwork) -> None:
        """Refuse a student that sees other images than its teachers.

        Raises:
            ConfigError: a teacher's input is another one.
        """
        own = (network.image_size, network.in_channels)
        for teacher in self.teachers:
            if (teacher.image_size, teacher.in_channels) != own:
                raise ConfigError(
                    f"loss.teacher: expected networks of {own[0]} x {own[0]} images with "
                    f"{own[1]} channels, as the student, found one of {teacher.image_size} x "
                    f"{teacher.image_size} with {teacher.in_channels}. Take teachers of the same "
                    "input, or set model.image_size and model.in_channels to theirs."
                )

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, images: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean loss of logits ``(N, 7)``, targets ``(N,)`` and images ``(N, C, H, W)``."""
        loss = F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        if images is None or not self.training:
            return loss
        teachers = [teacher.to(images.device) for teacher in self.teachers]
        with torch.no_grad():
            answers = [teacher(images).float() / self.temperature for teacher in teachers]
            taught = torch.stack([one.softmax(dim=1) for one in answers]).mean(dim=0)  # (N, 7)
        own = (logits / self.temperature).log_softmax(dim=1)
        soft = F.kl_div(own, taught, reduction="batchmean") * self.temperature**2
        return (1 - self.weight) * loss + self.weight * soft
