"""What a network says of one face."""

from __future__ import annotations

from dataclasses import dataclass

from fer.data.detection import Box


@dataclass(frozen=True)
class Prediction:
    """A network's answer for one face."""

    emotion: str
    """The most probable one."""
    probabilities: dict[str, float]
    """Every emotion's, in the order of :data:`fer.core.labels.EMOTIONS`."""
    box: Box | None = None
    """The box of the face in its picture, without the margin; None if the picture is the face."""
    emotions: tuple[str, ...] | None = None
    """The prediction set, the most probable emotion first; None if sets were not asked for."""

    @property
    def confidence(self) -> float:
        """Probability of :attr:`emotion`."""
        return self.probabilities[self.emotion]
