"""Results of saliency maps, as plain arrays: no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from fer.core.values import Options

REPLACEMENTS = {"mean": "mean gray", "black": "black"}
"""Words for the values that replace deleted pixels while maps are checked."""


class Gain(TypedDict):
    """How much better than random maps; see :func:`fer.evaluation.saliency_checks.compare`."""

    mean: float
    interval: list[float] | None
    verdict: str | None


class _Curve(TypedDict):
    curve: list[float]
    """Mean probability of the explained emotion after each step."""
    auc: float


class Curve(_Curve, total=False):
    """Mean effect of deleting or inserting pixels; random maps have no gain."""

    gain: Gain


class Replaced(TypedDict):
    """What the maps do with one replacement of deleted pixels."""

    random: dict[str, Curve]
    """``deletion`` and ``insertion``, by random maps."""
    methods: dict[str, dict[str, Curve]]
    """The same by each method's."""


class Faithfulness(TypedDict):
    """Deletion and insertion."""

    images: int
    replacements: dict[str, Replaced]
    verdicts: dict[str, dict[str, str | None]]
    """Method → ``deletion`` and ``insertion`` → what holds under every replacement."""


class Sanity(TypedDict):
    """How maps change while weights become random, from the head downwards."""

    images: int
    stages: list[str]
    """``trained``, ``head``, ``block 4``, …"""
    methods: dict[str, dict[str, list[float | None]]]
    """Method → ``correlation`` → the mean rank correlation with the trained network's maps at each
    stage; None where no map has contrast."""


class Expressive(TypedDict):
    """The regions that an emotion moves."""

    regions: list[str]
    images: int
    area: float
    methods: dict[str, dict[str, float | None]]
    """Method → ``share`` of the saliency there, and ``ratio`` to the area: 1 for an even map."""


class RegionReport(TypedDict):
    """Shares of saliency and of area by region."""

    area: dict[str, float]
    methods: dict[str, dict[str, dict[str, float]]]
    """Method → ``all`` or an emotion → region → mean share over its images."""
    expressive: dict[str, Expressive]


class Regions(TypedDict):
    """Shares by fixed boxes, and by the regions that a drawn face has."""

    standard: RegionReport
    drawn: RegionReport | None
    why_not_drawn: str | None


class Explained(TypedDict):
    """The images that are explained."""

    explained: int
    per_class: dict[str, int]
    ids: list[str]


class ConfusionReport(TypedDict):
    """Images of one emotion that were taken for another."""

    true: str
    predicted: str
    images: int
    share_of_true: float
    examples: list[dict[str, float]]
    """``probability_true`` and ``probability_predicted`` of some of them."""


class Saliency(TypedDict):
    """``saliency.json``. Shares and probabilities are fractions."""

    methods: list[str]
    options: Options
    """Those of conf/saliency/standard.yaml."""
    images: Explained
    notes: list[str]
    regions: Regions
    faithfulness: Faithfulness
    sanity: Sanity
    confusions: list[ConfusionReport]


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

    summary: Saliency
    images: np.ndarray
    """The correctly recognised images that are explained, ``(M, H, W, C)`` uint8."""
    target: np.ndarray
    """Their emotions, ``(M,)`` int64."""
    maps: dict[str, np.ndarray]
    """Method → ``(M, H, W)`` float32."""
    confusions: list[ConfusionMaps]
