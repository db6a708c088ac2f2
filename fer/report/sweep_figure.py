"""The figure of a sweep: validation macro-F1 against what was swept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer.core.words import ABSENT, how_many, plain
from fer.report.figures import INK, SERIES, new_figure, panels, plot_cells, save, style
from fer.runs.state import State
from fer.runs.sweep import Job, shorten

SEED = "seed"
MANY = 8
"""Numbers beyond this are put on a scale instead of one beside the other."""
LETTER = 0.08
"""Inches of a letter of a label, about."""
LABEL = "validation macro-F1 (%)"


def plot_sweep(folder: Path, jobs: Sequence[Job], keys: Sequence[str]) -> Path | None:
    """Plot the finished jobs: a heat map for a grid of two swept keys, else points for each key.

    Jobs that differ in their seed alone are repetitions: their mean is shown, with its spread.

    Returns:
        The figure's path; None where nothing was swept.
    """
    if not keys:
        return None
    finished = [job for job in jobs if job.state is State.FINISHED]
    others = [key for key in keys if key != SEED]
    if _is_grid(finished, others):
        figure = heat_map(finished, *others)
    else:
        figure = points(finished, others or [SEED])
    return save(figure, folder / "figures" / "sweep.png")


def _is_grid(jobs: Sequence[Job], keys: Sequence[str]) -> bool:
    """True for two keys of which at least half of the pairs of values were tried."""
    pairs = {tuple(job.values[key] for key in keys) for job in jobs}
    sizes = [len({job.values[key] for job in jobs}) for key in keys]
    return len(keys) == 2 and 2 * len(pairs) >= math.prod(sizes)


def _score(job: Job) -> float:
    score = job.score("val", "macro_f1")
    assert score is not None
    return 100 * score


def _number(value: str) -> float:
    """Infinite for words, which then follow all numbers."""
    try:
        return float(value)
    except ValueError:
        return math.inf


def _ordered(values: set[str]) -> list[str]:
    """Numbers by size, then words by name."""
    return sorted(values, key=lambda value: (_number(value), value))


def points(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """A panel for each swept key, with a point for each job."""
    scores = [_score(job) for job in jobs]
    values = {key: [job.values[key] for job in jobs] for key in keys}
    subtitle = how_many(len(jobs), "finished job")
    if list(keys) == [SEED]:
        spread = f" ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else ""
        subtitle += f" · mean {np.mean(scores):.2f}{spread} (standard deviation; line: mean)"
    elif any(map(_has_line, values.values())):
        subtitle += " · line: mean of those that share a value"
    swept = keys[0] if len(keys) == 1 else "each swept option"
    title = f"Validation macro-F1 against {swept}"
    width = 6.4 if len(keys) == 1 else 3.6
    with style():
        figure, axes = panels(len(keys), 3, width, 3.8, title, subtitle)
        for axis, key in zip(axes, keys, strict=True):
            _plot_key(axis, values[key], scores, key, width)
    return figure


def _is_scale(values: Sequence[str]) -> bool:
    """True for many numbers, which are plotted to scale."""
    return len(set(values)) > MANY and all(math.isfinite(_number(value)) for value in values)


def _has_line(values: Sequence[str]) -> bool:
    """False for a scale of numbers that all differ: a line would only join the points."""
    return not _is_scale(values) or len(set(values)) < len(values)


def _plot_key(
    axis: Axes, values: Sequence[str], scores: Sequence[float], key: str, width: float
) -> None:
    """Scores against the values of a key, in a panel of ``width`` inches.

    Many numbers are where they belong, on a logarithmic axis if they are above 0 and the largest is
    30 times the smallest; words and few numbers are one beside the other.
    """
    names = _ordered(set(values))
    if _is_scale(values):
        places = np.array(list(map(_number, values)))
        if min(places) > 0 and max(places) >= 30 * min(places):
            axis.set_xscale("log")
        else:
            axis.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
            axis.ticklabel_format(axis="x", scilimits=(-3, 5))
    else:
        places = np.array(list(map(names.index, values)))
        texts = [plain(shorten(name)) for name in names]
        axis.set_xticks(range(len(texts)), texts)
        if _touch(texts, width):
            _slant(axis)
    axis.plot(places, scores, "o", color=SERIES[0], alpha=0.7)
    if key == SEED:  # seeds have no order
        axis.axhline(float(np.mean(scores)), color=INK, linewidth=1)
    elif _has_line(values):
        marks = np.unique(places)
        means = [np.mean(np.array(scores)[places == mark]) for mark in marks]
        axis.plot(marks, means, color=INK, linewidth=1)
    axis.set(xlabel=plain(key), ylabel=LABEL)
    axis.margins(x=0.1, y=0.15)
    axis.grid(axis="y")


def _touch(texts: Sequence[str], width: float) -> bool:
    """True for labels that would touch on an axis of ``width`` inches."""
    return len(texts) * (max(map(len, texts)) + 2) * LETTER > width


def _slant(axis: Axes) -> None:
    for label in axis.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")


def heat_map(jobs: Sequence[Job], down: str, across: str) -> Figure:
    """Two swept keys: a cell for each pair of values; a pair without a finished job stays empty."""
    rows, columns = (_ordered({job.values[key] for job in jobs}) for key in (down, across))
    cells: dict[tuple[int, int], list[float]] = {}
    for job in jobs:
        place = rows.index(job.values[down]), columns.index(job.values[across])
        cells.setdefault(place, []).append(_score(job))
    means = np.full((len(rows), len(columns)), np.nan)
    texts = dict.fromkeys(np.ndindex(*means.shape), (ABSENT, ""))
    for place, scores in cells.items():
        means[place] = np.mean(scores)
        spread = f" ± {np.std(scores, ddof=1):.1f}" if len(scores) > 1 else ""
        texts[place] = f"{means[place]:.1f}{spread}", ""
    subtitle = f"{how_many(len(jobs), 'finished job')} · percent"
    if max(map(len, cells.values())) > 1:
        subtitle += " · mean ± standard deviation over seeds"
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    with style():
        width, height = max(5.6, 1.8 + 1.25 * len(columns)), 1.3 + 0.75 * len(rows)
        # The names of the rows and the colour bar take their part of the width.
        aslant = _touch(columns, width - 1.5 - LETTER * max(map(len, rows)))
        if aslant:
            height += 0.7 * LETTER * max(map(len, columns))
        figure = new_figure(width, height, "Validation macro-F1", subtitle)
        axis = figure.subplots()
        limits = low - 0.3 * (high - low) - 0.1, high + 0.1
        picture = plot_cells(axis, means, texts, rows, columns, limits)
        if aslant:
            _slant(axis)
        axis.set(xlabel=plain(across), ylabel=plain(down))
        figure.colorbar(picture, ax=axis, label=LABEL)
    return figure
