"""What saliency maps say of a network, as plain arrays: no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

REPLACEMENTS = {"mean": "mean gray", "black": "black"}
"""What stands for deleted pixels while maps are checked, in words."""


@dataclass(frozen=True)
class Confusion:
    """Images of one emotion that were taken for another, and maps of both."""

    true: str
    predicted: str
    images: np.ndarray
    """``(N, H, W, C)`` uint8."""
    probabilities: np.ndarray
    """``(N, 7)``."""
    maps: dict[str, np.ndarray]
    """Of each method ``(N, 2, H, W)``: for the true emotion and for the predicted one."""


@dataclass(frozen=True)
class Explanation:
    """Where a network looks."""

    summary: dict[str, Any]
    """Plain data, the content of ``saliency.json``. Shares and probabilities are fractions."""
    images: np.ndarray
    """The correctly recognised images that are explained, ``(M, H, W, C)`` uint8."""
    target: np.ndarray
    """``(M,)`` int64, their emotions."""
    maps: dict[str, np.ndarray]
    """Of each method ``(M, H, W)`` float32."""
    confusions: list[Confusion]
