"""Table cells of scores: a number with its interval, and a dash where a file has it not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fer.core.words import PERCENT, Format, to_number
from fer.evaluation.scores import Score
from fer.report.page import Cell


def score_cell(row: Mapping[str, Any], score: Score) -> Cell:
    """The score of a mapping such as ``metrics.json``, with its interval."""
    return _cell(row, score, score.format)


def share_cell(row: Mapping[str, Any], score: Score) -> Cell:
    """What is left of a score, as a share of it, with its interval."""
    return _cell(row, score, PERCENT)


def _cell(row: Mapping[str, Any], score: Score, form: Format) -> Cell:
    value = row.get(score.name)
    bounds = (row.get("confidence_intervals") or {}).get(score.name)
    return Cell(form.text(value), to_number(value), form.interval(bounds))


def change_cell(value: float, bounds: tuple[float, float], score: Score) -> Cell:
    """A difference, of fractions in points, with its interval."""
    low, high = (score.format.factor * bound for bound in bounds)
    decimals = score.format.decimals
    detail = f"{low:+.{decimals}f} to {high:+.{decimals}f}"
    return Cell(score.format.change(value), score.format.factor * value, detail)
