"""Results of saliency maps, as plain arrays: no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

REPLACEMENTS = {"mean": "mean gray", "black": "black"}
"""Words for the values that replace deleted pixels while maps are checked."""


@dataclass(frozen=True)
class ConfusionMaps:
    """Images of one emotion that were taken for another, with maps of both."""

    true: str
    predicted: str
    images: np.ndarray
    """``(N, H, W, C)`` uint8."""
    probabilities: np.ndarray
    """``(N, 7)``."""
    maps: dict[str, np.ndarray]
    """Method → ``(N, 2, H, W)``: for the true emotion and for the predicted one."""


@dataclass(frozen=True)
class Explanation:
    """Where a network looks."""

    summary: dict[str, Any]
    """Content of ``saliency.json``. Shares and probabilities are fractions."""
    images: np.ndarray
    """The correctly recognised images that are explained, ``(M, H, W, C)`` uint8."""
    target: np.ndarray
    """Their emotions, ``(M,)`` int64."""
    maps: dict[str, np.ndarray]
    """Method → ``(M, H, W)`` float32."""
    confusions: list[ConfusionMaps]
