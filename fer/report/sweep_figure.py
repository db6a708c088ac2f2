"""The figure of a sweep: validation macro-F1 against what was swept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer.core.words import ABSENT, how_many, plain
from fer.report.figures import INK, MUTED, SERIES, new_figure, plot_cells, save, style
from fer.runs.state import State
from fer.runs.sweep import Job, shorten

SEED = "seed"
MANY = 8
"""Numbers beyond this are put on a scale instead of one beside the other."""
LABEL = "validation macro-F1 (%)"


def plot_sweep(folder: Path, jobs: Sequence[Job], keys: Sequence[str]) -> Path | None:
    """Plot the finished jobs: points for one swept key, a heat map for two, lines for more.

    Two keys of which few pairs of values were tried, as by a search, are points in a plane. Jobs
    that differ in their seed alone are repetitions: their mean is shown, with its spread.

    Returns:
        The figure's path; None where nothing was swept.
    """
    if not keys:
        return None
    finished = [job for job in jobs if job.state is State.FINISHED]
    others = [key for key in keys if key != SEED]
    if len(others) < 2:
        figure = points(finished, *others or [SEED])
    elif len(others) == 2:
        plot = plane if _is_sparse(finished, *others) else heat_map
        figure = plot(finished, *others)
    else:
        figure = parallel_coordinates(finished, others)
    return save(figure, folder / "figures" / "sweep.png")


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


def _is_sparse(jobs: Sequence[Job], first: str, second: str) -> bool:
    """True if a heat map would be mostly empty."""
    pairs = {(job.values[first], job.values[second]) for job in jobs}
    rows, columns = ({pair[side] for pair in pairs} for side in (0, 1))
    return 2 * len(pairs) < len(rows) * len(columns)


class Scale:
    """Place the values of a key on an axis.

    Many numbers are where they belong, on a logarithmic axis if they are above 0 and the largest is
    30 times the smallest; words and few numbers are one beside the other, at 0, 1, 2, …

    Args:
        values: of the jobs.
    """

    def __init__(self, values: set[str]) -> None:
        self.values = _ordered(values)
        numbers = [number for number in map(_number, values) if math.isfinite(number)]
        self.is_numeric = len(numbers) == len(values) > MANY
        self.is_log = self.is_numeric and min(numbers) > 0 and max(numbers) >= 30 * min(numbers)

    def place(self, value: str) -> float:
        """The coordinate of a value."""
        return _number(value) if self.is_numeric else float(self.values.index(value))

    def height(self, value: str) -> float:
        """The coordinate of a value on an axis from 0 to 1."""
        if not self.is_numeric:
            return (self.place(value) + 0.5) / len(self.values)
        low, here, high = (
            math.log(place) if self.is_log else place
            for place in map(self.place, (self.values[0], value, self.values[-1]))
        )
        return 0.05 + 0.9 * (here - low) / (high - low)

    @property
    def marks(self) -> list[str]:
        """Values to write beside an axis: all, or the first, the middle and the last of many."""
        if not self.is_numeric:
            return self.values
        return [self.values[0], self.values[len(self.values) // 2], self.values[-1]]

    def set(self, axes: Axes, side: str) -> None:
        """Set up the x or the y axis (``side``)."""
        if self.is_log:
            axes.set(**{f"{side}scale": "log"})
        elif not self.is_numeric:
            names = [plain(shorten(value)) for value in self.values]
            axes.set(**{f"{side}ticks": range(len(names)), f"{side}ticklabels": names})


def points(jobs: Sequence[Job], key: str) -> Figure:
    """One swept key: a point for each job, and the mean of those that share a value."""
    scale = Scale({job.values[key] for job in jobs})
    scores = [_score(job) for job in jobs]
    subtitle = how_many(len(jobs), "finished job")
    if key == SEED:
        spread = f" ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else ""
        subtitle += f" · mean {np.mean(scores):.2f}{spread} (standard deviation; line: mean)"
    elif not scale.is_numeric:
        subtitle += " · line: mean of the jobs with one value"
    with style():
        figure = new_figure(6.4, 3.8, f"Validation macro-F1 against {key}", subtitle)
        axis = figure.subplots()
        places = [scale.place(job.values[key]) for job in jobs]
        axis.plot(places, scores, "o", color=SERIES[0], alpha=0.7)
        if key == SEED:  # seeds have no order
            axis.axhline(float(np.mean(scores)), color=INK, linewidth=1)
        elif not scale.is_numeric:
            means = [
                np.mean([_score(job) for job in jobs if job.values[key] == value])
                for value in scale.values
            ]
            axis.plot(range(len(means)), means, "-", color=INK, linewidth=1)
        scale.set(axis, "x")
        axis.set(xlabel=plain(key), ylabel=LABEL)
        axis.margins(x=0.1, y=0.15)
        axis.grid(axis="y")
    return figure


def plane(jobs: Sequence[Job], across: str, up: str) -> Figure:
    """Two swept keys of which few pairs were tried: a point for each job, coloured by its score."""
    scores = [_score(job) for job in jobs]
    subtitle = f"{how_many(len(jobs), 'finished job')} · best ringed"
    with style():
        figure = new_figure(6.4, 4.2, "Validation macro-F1", subtitle)
        axis = figure.subplots()
        places = []
        for side, key in (("x", across), ("y", up)):
            scale = Scale({job.values[key] for job in jobs})
            scale.set(axis, side)
            places.append([scale.place(job.values[key]) for job in jobs])
        x, y = places
        picture = axis.scatter(x, y, c=scores, cmap="viridis_r", s=60)
        best = int(np.argmax(scores))
        axis.scatter(x[best], y[best], s=170, facecolors="none", edgecolors=INK)
        axis.set(xlabel=plain(across), ylabel=plain(up))
        axis.margins(0.12)
        axis.grid()
        figure.colorbar(picture, ax=axis, label=LABEL)
    return figure


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
        size = max(5.6, 1.8 + 1.25 * len(columns)), 1.3 + 0.75 * len(rows)
        figure = new_figure(*size, "Validation macro-F1", subtitle)
        axis = figure.subplots()
        limits = low - 0.3 * (high - low) - 0.1, high + 0.1
        picture = plot_cells(axis, means, texts, rows, columns, limits)
        axis.set(xlabel=plain(across), ylabel=plain(down))
        figure.colorbar(picture, ax=axis, label=LABEL)
    return figure


def parallel_coordinates(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """More swept keys: a line for each job through its values, coloured by its score."""
    scores = np.array([_score(job) for job in jobs])
    scales = [Scale({job.values[key] for job in jobs}) for key in keys]
    low, high = float(scores.min()), float(scores.max())
    ends = (scores - low) / (high - low or 1.0)
    subtitle = f"{how_many(len(jobs), 'finished job')} · a line for each, the best on top"
    with style():
        figure = new_figure(max(6.4, 1.9 * (len(keys) + 1)), 4.2, "Validation macro-F1", subtitle)
        axis = figure.subplots()
        aside = np.linspace(-0.03, 0.03, len(jobs))
        for rank, index in enumerate(np.argsort(scores, kind="stable")):
            # Jobs that share a value pass beside each other.
            heights = [
                scale.height(jobs[index].values[key]) + (0 if scale.is_numeric else aside[rank])
                for key, scale in zip(keys, scales, strict=True)
            ]
            color = matplotlib.colormaps["viridis_r"](ends[index])
            heights.append(0.05 + 0.9 * ends[index])
            axis.plot(range(len(keys) + 1), heights, color=color, linewidth=1.8, alpha=0.85)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        for x in range(len(keys) + 1):
            axis.axvline(x, color=MUTED, linewidth=0.8)
        for x, scale in enumerate(scales):
            for mark in scale.marks:
                words = plain(shorten(mark))
                axis.text(x + 0.03, scale.height(mark), words, size=9, va="center", bbox=box)
        for height, value in ((0.05, low), (0.95, high)):
            axis.text(len(keys) + 0.03, height, f"{value:.1f} %", size=9, va="center")
        axis.set_xticks(range(len(keys) + 1), [*map(plain, keys), "macro-F1"])
        axis.set(ylim=(0, 1), xlim=(-0.1, len(keys) + 0.35), yticks=[])
        axis.spines[:].set_visible(False)
    return figure
