"""The figure of a sweep: validation macro-F1 against what was swept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer.core.words import how_many, plain
from fer.report.figures import INK, MUTED, new_figure, readable_on, save, style
from fer.runs.state import State
from fer.runs.sweep import shorten

if TYPE_CHECKING:
    from fer.runs.sweep import Job

SEED = "seed"
MANY = 8
"""Numbers beyond this stand on a scale instead of one beside the other."""
LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}


def draw_sweep(folder: Path, jobs: Sequence[Job], keys: Sequence[str]) -> Path | None:
    """Draw the finished jobs: points for one swept key, a heat map for two, lines for more.

    Two keys of which few pairs of values were tried, as by a search, are points in a plane.

    Jobs that differ in their seed alone are repetitions: their mean is shown, with its spread.

    Returns:
        The figure's path; None where nothing was swept.
    """
    finished = [job for job in jobs if job.state is State.FINISHED]
    others = [key for key in keys if key != SEED]
    if not keys:
        return None
    if not others:
        figure = points(finished, SEED)
    elif len(others) == 1:
        figure = points(finished, others[0])
    elif len(others) == 2 and _is_sparse(finished, others[0], others[1]):
        figure = plane(finished, others[0], others[1])
    elif len(others) == 2:
        figure = heat_map(finished, others[0], others[1])
    else:
        figure = parallel_coordinates(finished, others)
    return save(figure, folder / "figures" / "sweep.png")


def _score(job: Job) -> float:
    score = job.score("val", "macro_f1")
    assert score is not None
    return 100 * score


def _ordered(values: set[str]) -> list[str]:
    """Numbers by size, then words by name."""

    def key(value: str) -> tuple[int, float, str]:
        try:
            return (0, float(value), value)
        except ValueError:
            return (1, 0.0, value)

    return sorted(values, key=key)


def _is_sparse(jobs: Sequence[Job], first: str, second: str) -> bool:
    """Whether a heat map would be empty for the most part."""
    pairs = {(job.values[first], job.values[second]) for job in jobs}
    rows, columns = ({pair[side] for pair in pairs} for side in (0, 1))
    return 2 * len(pairs) < len(rows) * len(columns)


class Scale:
    """Where the values of a key stand on an axis.

    Many numbers stand where they are, on a logarithmic axis if they are above 0 and the largest is
    30 times the smallest; words and few numbers one beside the other, at 0, 1, 2, …

    Args:
        values: of the jobs.
    """

    def __init__(self, values: set[str]) -> None:
        self.values = _ordered(values)
        numbers = [number for number in map(_number, self.values) if number is not None]
        self.is_numeric = len(numbers) == len(self.values) > MANY
        self.is_log = self.is_numeric and min(numbers) > 0 and max(numbers) >= 30 * min(numbers)

    def place(self, value: str) -> float:
        """Of a value."""
        number = _number(value) if self.is_numeric else None
        return float(self.values.index(value)) if number is None else number

    def height(self, value: str) -> float:
        """Of a value on an axis from 0 to 1."""
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


def _number(value: str) -> float | None:
    """None where it is none."""
    try:
        return float(value)
    except ValueError:
        return None


def points(jobs: Sequence[Job], key: str) -> Figure:
    """One swept key: a point for each job, and the mean of those that share a value."""
    scale = Scale({job.values[key] for job in jobs})
    scores = [_score(job) for job in jobs]
    subtitle = how_many(len(jobs), "finished job")
    if not scale.is_numeric:
        subtitle += " · line: mean of the jobs with one value"
    if key == SEED:
        spread = f" ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else ""
        subtitle = (
            f"{how_many(len(jobs), 'finished job')} · mean {np.mean(scores):.2f}{spread} "
            "(standard deviation; line: mean)"
        )
    with style():
        figure = new_figure(6.4, 3.8, f"Validation macro-F1 against {key}", subtitle)
        axis = figure.subplots()
        means = []
        for value in scale.values:
            own = [_score(job) for job in jobs if job.values[key] == value]
            axis.plot([scale.place(value)] * len(own), own, "o", color="#0072B2", alpha=0.7)
            means.append(float(np.mean(own)))
        if key == SEED:  # seeds have no order
            axis.axhline(float(np.mean(scores)), color=INK, linewidth=1)
        elif not scale.is_numeric:
            axis.plot(range(len(means)), means, "-", color=INK, linewidth=1)
        scale.set(axis, "x")
        axis.set(xlabel=plain(key), ylabel="validation macro-F1 (%)")
        axis.margins(x=0.1, y=0.15)
        axis.grid(axis="y")
    return figure


def plane(jobs: Sequence[Job], across: str, up: str) -> Figure:
    """Two swept keys of which few pairs were tried: a point for each job, coloured by its score."""
    scores = [_score(job) for job in jobs]
    scales = [Scale({job.values[key] for job in jobs}) for key in (across, up)]
    with style():
        figure = new_figure(
            6.4, 4.2, "Validation macro-F1", f"{how_many(len(jobs), 'finished job')} · best ringed"
        )
        axis = figure.subplots()
        x, y = (
            [scale.place(job.values[key]) for job in jobs]
            for scale, key in zip(scales, (across, up), strict=True)
        )
        for scale, side in zip(scales, "xy", strict=True):
            scale.set(axis, side)
        picture = axis.scatter(x, y, c=scores, cmap="viridis_r", s=60)
        best = int(np.argmax(scores))
        axis.scatter(x[best], y[best], s=170, facecolors="none", edgecolors=INK)
        axis.set(xlabel=plain(across), ylabel=plain(up))
        axis.margins(0.12)
        axis.grid()
        figure.colorbar(picture, ax=axis, label="validation macro-F1 (%)")
    return figure


def heat_map(jobs: Sequence[Job], down: str, across: str) -> Figure:
    """Two swept keys: a cell for each pair of values; a pair without a finished job stays empty."""
    rows = _ordered({job.values[down] for job in jobs})
    columns = _ordered({job.values[across] for job in jobs})
    cells = {
        (row, column): [
            _score(job) for job in jobs if job.values[down] == row and job.values[across] == column
        ]
        for row in rows
        for column in columns
    }
    means = np.array(
        [[np.mean(cells[row, column] or [math.nan]) for column in columns] for row in rows]
    )
    repeated = max(map(len, cells.values())) > 1
    subtitle = f"{how_many(len(jobs), 'finished job')} · percent" + (
        " · mean ± standard deviation over seeds" if repeated else ""
    )
    with style():
        width = max(5.6, 1.8 + 1.25 * len(columns))
        figure = new_figure(width, 1.3 + 0.75 * len(rows), "Validation macro-F1", subtitle)
        axis = figure.subplots()
        colors = matplotlib.colormaps["Blues"].with_extremes(bad="#F2F2F2")
        low, high = float(np.nanmin(means)), float(np.nanmax(means))
        picture = axis.imshow(
            np.ma.masked_invalid(means),
            cmap=colors,
            vmin=low - 0.3 * (high - low) - 0.1,
            vmax=high + 0.1,
            aspect="auto",
        )
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                scores = cells[row, column]
                text = "–" if not scores else f"{np.mean(scores):.1f}"
                if len(scores) > 1:
                    text += f" ± {np.std(scores, ddof=1):.1f}"
                background = picture.to_rgba(np.ma.masked_invalid(means))[y, x]
                axis.text(
                    x,
                    y,
                    text,
                    ha="center",
                    va="center",
                    size=11,
                    color=readable_on(tuple(background)),
                )
        axis.set_xticks(range(len(columns)), list(map(plain, columns)))
        axis.set_yticks(range(len(rows)), list(map(plain, rows)))
        axis.set(xlabel=plain(across), ylabel=plain(down))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.colorbar(picture, ax=axis, label="validation macro-F1 (%)")
    return figure


def parallel_coordinates(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """More swept keys: a line for each job through its values, coloured by its score."""
    scores = np.array([_score(job) for job in jobs])
    scales = [Scale({job.values[key] for job in jobs}) for key in keys]
    low, high = float(scores.min()), float(scores.max())
    normal = matplotlib.colors.Normalize(low, high if high > low else low + 1)
    colors = matplotlib.colormaps["viridis_r"]
    with style():
        figure = new_figure(
            max(6.4, 1.9 * (len(keys) + 1)),
            4.2,
            "Validation macro-F1",
            f"{how_many(len(jobs), 'finished job')} · a line for each, the best drawn last",
        )
        axis = figure.subplots()
        aside = np.linspace(-0.03, 0.03, len(jobs))
        for rank, index in enumerate(np.argsort(scores, kind="stable")):
            # Jobs that share a value pass beside each other.
            heights = [
                scale.height(jobs[index].values[key]) + (0 if scale.is_numeric else aside[rank])
                for key, scale in zip(keys, scales, strict=True)
            ]
            end = float(normal(scores[index]))
            axis.plot(
                range(len(keys) + 1),
                [*heights, 0.05 + 0.9 * end],
                color=colors(end),
                linewidth=1.8,
                alpha=0.85,
            )
        for x, scale in enumerate(scales):
            axis.axvline(x, color=MUTED, linewidth=0.8)
            for mark in scale.marks:
                axis.text(
                    x + 0.03,
                    scale.height(mark),
                    plain(shorten(mark)),
                    size=9,
                    va="center",
                    bbox=LABEL,
                )
        axis.axvline(len(keys), color=MUTED, linewidth=0.8)
        for height, value in ((0.05, low), (0.95, high)):
            axis.text(len(keys) + 0.03, height, f"{value:.1f} %", size=9, va="center")
        axis.set_xticks(range(len(keys) + 1), [*map(plain, keys), "macro-F1"])
        axis.set(ylim=(0, 1), xlim=(-0.1, len(keys) + 0.35), yticks=[])
        axis.spines[:].set_visible(False)
    return figure
