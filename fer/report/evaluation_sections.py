"""Sections of an evaluation's page: calibration, groups, robustness, mistakes.

The templates named after them hold the sentences.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from fer.core import labels
from fer.core.words import PERCENT, how_many, percent, plain
from fer.evaluation.label_sets import SHOWN, LabelSets
from fer.evaluation.metrics import SMALLEST_GROUP, DamagedScores, Group, SplitResult
from fer.evaluation.mistakes import Confusion, confident_mistakes, frequent_confusions
from fer.evaluation.robustness import Robustness, RobustnessRow
from fer.evaluation.scores import SCORES, scores_in, shown_in
from fer.report.figures import (
    EMOTION_COLORS,
    MARKERS,
    SERIES,
    Look,
    Tile,
    legend_below,
    panels,
    picture_grid,
    save,
    style,
)
from fer.report.page import Cell, Section, Table, make_table, percent_cell, render
from fer.report.score_cells import change_cell, score_cell, score_table

ACROSS = 4
"""Confident mistakes beside each other."""


def damage_grid(
    images: Mapping[str, Sequence[np.ndarray]], faces: np.ndarray, *, title: str
) -> Figure:
    """One face per emotion, undamaged and under each severity of each perturbation.

    Args:
        images: name of a row, such as ``blur 3`` → its faces, in the order of ``faces``.
        faces: ``(7,)`` int, the emotion of each column.
    """
    subtitle = "a face of each emotion, the same in every row"
    rows = [(name, [Tile(image) for image in row]) for name, row in images.items()]
    columns = [labels.EMOTIONS[emotion] for emotion in faces]
    return picture_grid(rows, columns, title=title, subtitle=subtitle)


def robustness_curves(
    networks: Mapping[str, Sequence[RobustnessRow]], *, title: str, subtitle: str
) -> Figure:
    """Scores against severity, a panel for each perturbation and score.

    Args:
        networks: name → the rows of its ``robustness.json``. With one network its 95 % interval
            is shaded; with several a line each, with bars.
    """
    names = dict.fromkeys(row["perturbation"] for rows in networks.values() for row in rows)
    scores = shown_in("robustness")
    pairs, alone = list(itertools.product(names, scores)), len(networks) == 1
    across = max(1, 4 // len(scores)) * len(scores)  # a perturbation's panels stay together
    if 1 < len(names) <= 4:  # a row for each score instead, and none with gaps
        pairs, across = [(name, score) for score in scores for name in names], len(names)
    with style():
        figure, axes = panels(len(pairs), across, 2.6, 2.6, title, subtitle)
        for axis, (name, score) in zip(axes, pairs, strict=True):
            for index, (network, rows) in enumerate(networks.items()):
                points = {
                    row["severity"]: score.format.factor
                    * _with_bounds(values[score.name], row["confidence_intervals"][score.name])
                    for row in rows
                    if row["perturbation"] == name and score.name in (values := scores_in(row))
                }
                _plot_curve(axis, points, SERIES, index, network, shaded=alone)
            unit = f" ({score.format.unit.strip()})" if score.format.unit else ""
            panel = textwrap.fill(f"{score.title}: {name.replace('_', ' ')}", 27)
            _label_severities(axis, panel, score.heading + unit, score.format == PERCENT)
        if not alone:
            legend_below(figure, axes[0])
    return figure


def _label_severities(axis: Axes, title: str, ylabel: str, percents: bool) -> None:
    axis.set_title(title, parse_math=False)
    axis.set_xlabel("severity (0: clean)")
    axis.set_ylabel(ylabel, parse_math=False)
    axis.xaxis.set_major_locator(MultipleLocator(1))
    axis.grid(True)
    if percents:
        axis.set_ylim(-2, 102)
        axis.yaxis.set_major_locator(MultipleLocator(20))


def _with_bounds(value: float | None, bounds: Sequence[float] | None) -> np.ndarray:
    """A value with its interval; NaN, which is not plotted, where there is none."""
    return np.array([value, *(bounds or (np.nan, np.nan))])


def _plot_curve(
    axis: Axes,
    points: Mapping[int, np.ndarray],
    colors: Sequence[str],
    index: int,
    label: str,
    *,
    shaded: bool,
) -> None:
    """A line through severity → value, lower and upper bound, the ``index``-th of its panel."""
    if not points:
        return
    x, (y, low, high) = list(points), np.array(list(points.values())).T
    color, marker = colors[index % len(colors)], MARKERS[index % len(MARKERS)]
    look: Look = {"color": color, "marker": marker, "markersize": 4.5, "label": label}
    if shaded:
        axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axis.plot(x, y, **look)
    else:
        # The percentile interval may leave out the estimate itself where it is near a bound.
        errors = np.maximum(0, [y - low, high - y])
        axis.errorbar(x, y, errors, capsize=2, elinewidth=0.8, **look)


def robustness_per_class(rows: Sequence[RobustnessRow], *, title: str, images: int) -> Figure:
    """Recall of each emotion against severity in the rows of ``robustness.json``."""
    subtitle = f"{how_many(images, 'image')} · shaded: 95 % interval"
    colors = list(EMOTION_COLORS.values())
    names = list(dict.fromkeys(row["perturbation"] for row in rows))
    with style():
        figure, axes = panels(len(names), 3, 3.3, 3.3, title, subtitle)
        for axis, name in zip(axes, names, strict=True):
            for index, emotion in enumerate(labels.EMOTIONS):
                points = {
                    row["severity"]: 100 * _with_bounds(own["recall"], own["recall_interval"])
                    for row in rows
                    if row["perturbation"] == name
                    and (own := row["per_class"][emotion])["recall"] is not None
                }
                _plot_curve(axis, points, colors, index, emotion, shaded=True)
            _label_severities(axis, name.replace("_", " "), "recall (%)", True)
        legend_below(figure, axes[0], most=7)
    return figure


def mistakes(
    result: SplitResult,
    lines: Sequence[np.ndarray],
    *,
    title: str,
    subtitle: str,
    maps: Mapping[int, np.ndarray] | None,
) -> Figure:
    """Wrongly predicted faces with the true and the predicted emotion and their probabilities.

    Args:
        lines: the rows of the images that each line shows.
        maps: row → ``(S, S)`` saliency of the predicted emotion, at least 0, shown beside the
            face; None for none.
    """
    rows = []
    for line in lines:
        tiles = []
        for row in line.tolist():
            true, predicted = (
                f"{labels.EMOTIONS[of[row]]} {100 * result.probabilities[row, of[row]]:.0f} %"
                for of in (result.target, result.preds)
            )
            name = plain(result.ids[row])
            words = (name if len(name) <= 16 else f"…{name[-15:]}", true, f"→ {predicted}")
            tiles.append(Tile(result.images[row], words))
            if maps is not None:
                heat = maps[row] / max(float(np.quantile(maps[row], 0.99)), 1e-12)
                tiles.append(Tile(matplotlib.colormaps["magma"](np.clip(heat, 0, 1))[..., :3]))
        rows.append(("", tiles))
    return picture_grid(rows, title=title, subtitle=subtitle)


# --- sections -----------------------------------------------------------------------------------


def label_sets_section(found: LabelSets) -> Section:
    """Scores by two sets of labels, and where these disagree."""
    by = {"the dataset's own labels": found["by_first"], found["second"]: found["by_second"]}
    scores: list[list[Cell | str | float | None]] = [
        [name, *(score_cell(own, SCORES[score]) for score in SHOWN)] for name, own in by.items()
    ]
    rows: list[list[Cell | str | float | None]] = []
    for emotion, counts in zip(labels.EMOTIONS, found["confusion_matrix"], strict=True):
        others = dict(zip(labels.EMOTIONS, counts, strict=True))
        total, _ = sum(counts), others.pop(emotion)
        most = max(others, key=others.__getitem__)
        taken = f"{most} ({percent(others[most] / total)})" if others[most] else None
        agreed = percent_cell(found["agreement_per_class"][emotion])
        rows.append([emotion, total, agreed, taken])
    return render(
        "label_sets.html.j2",
        found=found,
        scores=make_table("label-sets", ["By", *(SCORES[s].title for s in SHOWN)], scores),
        classes=make_table(
            "label-sets-classes", ["Own label", "Images", "Annotators agree", "Else mostly"], rows
        ),
    )


def subgroups_section(subgroups: Mapping[str, Mapping[str, Group]]) -> Section:
    """Scores of the images that share an attribute."""
    tables = [
        score_table(
            f"group-{attribute}",
            attribute,
            groups,
            shown_in("comparisons"),
        )
        for attribute, groups in subgroups.items()
    ]
    return render("subgroups.html.j2", tables=tables, smallest=SMALLEST_GROUP)


def robustness_section(
    folder: Path,
    found: Robustness,
    result: SplitResult,
    examples: Mapping[str, Sequence[np.ndarray]],
    faces: np.ndarray,
    shown: str,
) -> Section:
    """The section on damaged images.

    Args:
        examples: see :func:`damage_grid`.
        faces: rows of the images in ``examples``.
    """
    n = len(result.target)
    for name, figure in {
        "robustness": robustness_curves(
            {"network": found.rows},
            title=f"Robustness: {shown}",
            subtitle=f"{how_many(n, 'image')} · shaded: 95 % interval",
        ),
        "robustness_per_class": robustness_per_class(
            found.rows, title=f"Robustness per emotion: {shown}", images=n
        ),
        "perturbations": damage_grid(
            examples, result.target[faces], title=f"What the perturbations look like: {shown}"
        ),
    }.items():
        save(figure, folder / "figures" / f"{name}.png")
    return render(
        "robustness.html.j2",
        summary=found.summary,
        published=found.summary.get("beside_published"),
        means=[
            (score, score_cell(found.summary["mean_over_settings"], score))
            for score in shown_in("robustness")
        ],
        sizes={row["image_size"] for row in found.rows},
        areas=area_table("robustness-areas", {"": [found.summary["relative_area"]]}),
        settings=settings_table(found.rows),
        place=folder / "figures",
        images=f"{how_many(n, 'image')} of {shown}",
        faces=len(faces),
    )


def area_table(id: str, groups: Mapping[str, Sequence[Mapping[str, DamagedScores]]]) -> Table:
    """The share of each score that damage leaves.

    Args:
        groups: name before the perturbation's → ``relative_area`` of one measurement, or of
            several that are averaged.
    """
    scores = shown_in("robustness")
    rows: list[list[Cell]] = []
    for group, areas in groups.items():
        for name in areas[0] if areas else ():
            if not all(name in area for area in areas):
                continue  # some of them were damaged in another way
            row: Mapping[str, Any] = areas[0][name]
            if len(areas) > 1:  # without an interval
                own = [scores_in(area[name]) for area in areas]
                known = [key for key in own[0] if all(key in one for one in own)]
                row = {key: mean(one[key] for one in own) for key in known}
            cells = [score_cell(row, score, PERCENT) for score in scores]
            rows.append([Cell(f"{group}{name.replace('_', ' ')}"), *cells])
    columns = ["Perturbation", *(f"{score.title} left" for score in scores)]
    return Table(id, columns, rows)


def settings_table(rows: Sequence[RobustnessRow]) -> Table:
    """Scores under each severity of each perturbation, beside the undamaged ones."""
    with_reference = any("reference_accuracy" in row for row in rows)
    with_size = len({row["image_size"] for row in rows}) > 1
    scores = shown_in("robustness")
    table = []
    for row in rows:
        words = ", ".join(f"{key} {value:g}" for key, value in row["parameters"].items())
        cells = [Cell(f"{row['perturbation'].replace('_', ' ')} {row['severity']}", words)]
        if with_size:
            cells.append(Cell(f"{row['image_size']} × {row['image_size']}"))
        changes: Mapping[str, Any] = row
        for score in scores:
            key = f"delta_{score.name}"
            change = change_cell(changes[key], row["confidence_intervals"][key], score)
            cells += [score_cell(row, score), change]
        if with_reference:
            cells.append(percent_cell(row.get("reference_accuracy")))
        table.append(cells)
    columns = ["Setting", *(["Damaged at"] if with_size else [])]
    columns += [name for score in scores for name in (score.title, "Change")]
    columns += ["Published accuracy"] if with_reference else []
    return Table("robustness", columns, table)


def error_rows(
    result: SplitResult, *, pairs: int, images: int, confident: int
) -> tuple[list[tuple[str, np.ndarray]], np.ndarray]:
    """The mistakes that the galleries show.

    Returns:
        For each confusion its words and the rows of its images, and the rows of the confident
        mistakes.
    """

    def describe(pair: Confusion) -> str:
        number = how_many(len(pair.rows), "image")
        return f"{pair.true} → {pair.predicted}: {number}, {percent(pair.share)} of {pair.true}"

    confusions = frequent_confusions(result.target, result.probabilities, pairs)
    return (
        [(describe(pair), pair.rows[:images]) for pair in confusions],
        confident_mistakes(result.target, result.probabilities, confident),
    )


def errors_section(
    folder: Path,
    result: SplitResult,
    shown: str,
    confusions: Sequence[tuple[str, np.ndarray]],
    confident: np.ndarray,
    maps: Mapping[int, np.ndarray] | None,
    method: str | None,
) -> Section:
    """Galleries of mistakes.

    Args:
        confusions: see :func:`error_rows`.
        maps: row → saliency ``(S, S)`` of the predicted emotion; None for none.
    """
    words = "id, true emotion → predicted one, with their probabilities"
    lines = {
        "confusions": [rows for _, rows in confusions],
        "confident_mistakes": np.split(confident, range(ACROSS, len(confident), ACROSS)),
    }
    files = {}
    for name, rows in lines.items():
        if sum(map(len, rows)):
            title = f"{name.replace('_', ' ').capitalize()}: {shown}"
            figure = mistakes(result, rows, title=title, subtitle=words, maps=maps)
            files[name] = save(figure, folder / "figures" / f"{name}.png")
    return render(
        "mistakes.html.j2",
        files=files,
        samples=len(result.target),
        wrong=int((result.target != result.preds).sum()),
        confusions=[words for words, _ in confusions],
        confident=len(confident),
        method=method if maps else None,
    )
