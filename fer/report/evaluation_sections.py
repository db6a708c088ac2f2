"""Sections of an evaluation's page: calibration, groups, robustness, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer.core import labels
from fer.core.words import PERCENT, how_many, percent, whole
from fer.evaluation.metrics import SMALLEST_GROUP, SplitResult
from fer.evaluation.mistakes import confident_mistakes, frequent_confusions
from fer.evaluation.robustness import Robustness
from fer.evaluation.scores import shown_in
from fer.report import evaluation_figures as drawing
from fer.report.figures import save
from fer.report.page import Cell, FigureEntry, Section, Table
from fer.report.score_cells import change_cell, score_cell, share_cell

IMAGES_A_LINE = 4


def curves_caption() -> str:
    """Which scores the robustness curves show."""
    return f"From top to bottom: {', '.join(score.heading for score in shown_in('robustness'))}"


def calibration_section(folder: Path, result: SplitResult, shown: str) -> Section:
    """Confidence against accuracy, and what temperature scaling makes of it."""
    metrics = result.metrics
    error = metrics["expected_calibration_error"]
    series = {"as it is": (metrics["reliability"], error)}
    gap = float((result.probabilities.max(axis=1) - (result.target == result.preds)).mean())
    text = [
        f"On average the network's confidence is {abs(100 * gap):.1f} points "
        f"{'above' if gap > 0 else 'below'} its accuracy. Calibration error: mean gap between the "
        "two over 15 bins of confidence, weighted by their images, less what chance alone adds to "
        "it (95 % interval "
        f"{PERCENT.interval(metrics['confidence_intervals']['expected_calibration_error'])})."
    ]
    scaling = metrics.get("temperature_scaling")
    if scaling is not None:
        after = scaling["expected_calibration_error"]
        series[f"temperature {scaling['temperature']:.2f}"] = (scaling["reliability"], after)
        text.append(
            f"Dividing the logits by {scaling['temperature']:.3f}, fitted on "
            f"{scaling['fitted_on']}, changes the calibration error from {percent(error)} to "
            f"{percent(after)} here. No prediction changes by it, and all other figures of this "
            "page are without it."
        )
        text += scaling.get("notes", [])
    figure = drawing.reliability_diagram(series, title=f"Reliability: {shown}")
    return Section(
        "Calibration",
        text,
        figures=[
            FigureEntry(
                save(figure, folder / "figures" / "reliability.png"),
                "Reliability diagram",
                f"{how_many(len(result.target), 'image')}. Bars: share of correct predictions "
                "among those with such a confidence; dots: their mean confidence; dashed: what "
                "perfect calibration would be. Below: how many images each bar rests on.",
            )
        ],
    )


def subgroups_section(subgroups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Section:
    """Scores of the images that share an attribute."""
    tables = []
    scores = shown_in("comparisons")
    for attribute, groups in subgroups.items():
        rows = [
            [
                Cell(value, index),
                *(score_cell(row, score) for score in scores),
                Cell(whole(row["samples"]), row["samples"]),
            ]
            for index, (value, row) in enumerate(groups.items())
        ]
        columns = [attribute, *(score.title for score in scores), "Images"]
        tables.append((Table(f"group-{attribute}", columns, rows, sortable=True), ""))
    return Section(
        "Groups of people",
        [
            "The attributes are what the dataset's annotators judged from the picture, not what "
            "the people say of themselves. Groups differ in their emotions too: compare balanced "
            "accuracy rather than accuracy, and look at the intervals of small groups. Groups of "
            f"fewer than {SMALLEST_GROUP} images are counted, not measured."
        ],
        tables,
    )


def robustness_section(
    folder: Path,
    found: Robustness,
    result: SplitResult,
    examples: Mapping[str, Sequence[np.ndarray]],
    faces: np.ndarray,
    shown: str,
) -> Section:
    """What damage does to the scores.

    Args:
        folder: of the run.
        found: the measurement.
        result: of the undamaged images.
        examples: see :func:`fer.report.evaluation_figures.damage_grid`.
        faces: rows of the images in ``examples``.
        shown: dataset and split.
    """
    place = folder / "figures"
    n = len(result.target)
    images = f"{how_many(n, 'image')} of {shown}"
    curves = drawing.robustness_curves(
        {"network": found.rows},
        title=f"Robustness: {shown}",
        subtitle=f"{how_many(n, 'image')} · shaded: 95 % interval",
    )
    by_class = drawing.robustness_per_class(
        found.rows, title=f"Robustness per emotion: {shown}", images=n
    )
    grid = drawing.damage_grid(
        examples, result.target[faces], title=f"What the perturbations look like: {shown}"
    )
    area, mean = found.summary["relative_area_mean"], found.summary["mean_over_settings"]
    scores = shown_in("robustness")
    kept = " and ".join(f"{percent(area[s.name])} of the clean {s.heading}" for s in scores)
    cells = [(score.heading, score_cell(mean, score)) for score in scores]
    means = ", ".join(f"{heading} {cell.text} ({cell.detail})" for heading, cell in cells)
    sizes = {row["image_size"] for row in found.rows}
    at = "at the network's input size" if len(sizes) == 1 else "at the size that the table names"
    text = [
        f"Each image is damaged in the same way for every network, {at}. Over all perturbations, "
        f"{kept} are left (area under the curve; 100 % is no loss). Mean over the "
        f"{mean['settings']} damaged settings: {means}.",
        *_published_words(found.summary.get("beside_published")),
    ]
    return Section(
        "Robustness",
        text,
        [
            (
                _area_table(found.summary["relative_area"]),
                "Area under the curve of severities, as a share of what it would be if the clean "
                "score held.",
            ),
            (
                _settings_table(found.rows),
                "Change: in percentage points against the undamaged images, with a paired 95 % "
                "interval. Severity 0 is undamaged.",
            ),
        ],
        [
            FigureEntry(
                save(curves, place / "robustness.png"),
                "Robustness curves",
                f"{curves_caption()}, on {images}.",
            ),
            FigureEntry(
                save(by_class, place / "robustness_per_class.png"),
                "Robustness of each emotion",
                f"Share of an emotion's images that is still recognised, on {images}. An emotion "
                "that rises under damage draws the predictions to itself.",
            ),
            FigureEntry(
                save(grid, place / "perturbations.png"),
                "What the perturbations look like",
                f"{how_many(len(faces), 'face')}, the first of each emotion in a fixed random "
                "order, as the network gets them.",
            ),
        ],
    )


def _published_words(beside: Mapping[str, Any] | None) -> list[str]:
    """How the network does beside a published one, where the sizes of the damage differ."""
    if beside is None:
        return []
    gain = 100 * (beside["accuracy"] - beside["reference_accuracy"])
    at_size = ", ".join(
        f"{percent(row['accuracy'])} ({PERCENT.interval(row['interval'])}) at {size} × {size}"
        for size, row in beside["at_size"].items()
    )
    return [
        f"Mean accuracy over the {beside['settings']} published settings, each at the size that is "
        f"harder for this network: {percent(beside['accuracy'])} "
        f"({PERCENT.interval(beside['interval'])}), {abs(gain):.1f} points "
        f"{'above' if gain >= 0 else 'below'} the {percent(beside['reference_accuracy'])} that was "
        f"published. With all damage at one size: {at_size} pixels."
    ]


def _area_table(areas: Mapping[str, Mapping[str, Any]]) -> Table:
    scores = shown_in("robustness")
    rows = [
        [Cell(name.replace("_", " "), index), *(share_cell(row, score) for score in scores)]
        for index, (name, row) in enumerate(areas.items())
    ]
    columns = ["Perturbation", *(f"{score.title} left" for score in scores)]
    return Table("robustness-areas", columns, rows, sortable=True)


def _settings_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    with_reference = any("reference_accuracy" in row for row in rows)
    with_size = len({row["image_size"] for row in rows}) > 1
    scores = shown_in("robustness")
    table = []
    for index, row in enumerate(rows):
        words = ", ".join(f"{key} {value:g}" for key, value in row["parameters"].items())
        cells = [Cell(f"{row['perturbation'].replace('_', ' ')} {row['severity']}", index, words)]
        if with_size:
            cells.append(Cell(f"{row['image_size']} × {row['image_size']}", row["image_size"]))
        for score in scores:
            key = f"delta_{score.name}"
            change = change_cell(row[key], row["confidence_intervals"][key], score)
            cells += [score_cell(row, score), change]
        if with_reference:
            value = row.get("reference_accuracy")
            cells.append(Cell(percent(value), value))
        table.append(cells)
    columns = ["Setting", *(["Damaged at"] if with_size else [])]
    columns += [name for score in scores for name in (score.title, "Change")]
    if with_reference:
        columns.append("Published accuracy")
    return Table("robustness", columns, table, sortable=True)


def pick_faces(result: SplitResult) -> np.ndarray:
    """A row of each emotion that occurs, the same for every network."""
    rng = np.random.default_rng(0)
    rows = (
        rng.permutation(np.flatnonzero(result.target == index))[:1]
        for index in range(labels.NUM_CLASSES)
    )
    return np.concatenate(list(rows))


def error_rows(
    result: SplitResult, *, pairs: int, images: int, confident: int
) -> tuple[list[tuple[str, np.ndarray]], np.ndarray]:
    """The mistakes that the galleries show.

    Args:
        result: of the split.
        pairs: most frequent confusions.
        images: of each of them.
        confident: most confident mistakes.

    Returns:
        For each confusion its words and the rows of its images, and the rows of the confident
        mistakes.
    """
    confusions = frequent_confusions(result.target, result.probabilities, pairs)
    return (
        [
            (
                f"{pair.true} → {pair.predicted}: {how_many(len(pair.rows), 'image')}, "
                f"{percent(pair.share)} of {pair.true}",
                pair.rows[:images],
            )
            for pair in confusions
        ],
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
        folder: of the run.
        result: of the split.
        shown: dataset and split.
        confusions: see :func:`error_rows`.
        confident: see :func:`error_rows`.
        maps: row → saliency ``(S, S)`` of the predicted emotion; None for none.
        method: the saliency method's name.
    """
    wrong = int((result.target != result.preds).sum())
    if not wrong:
        return Section("Mistakes", ["Every image is recognised: there is no mistake to look at."])
    saliency = (
        f" Beside each face: where the prediction comes from ({method}, smoothed)." if maps else ""
    )

    def draw(rows: np.ndarray, lines: Sequence[int], title: str, subtitle: str, name: str) -> Path:
        return save(
            drawing.mistakes(
                result.images[rows],
                result.target[rows],
                result.probabilities[rows],
                [result.ids[row] for row in rows],
                title=title,
                subtitle=subtitle,
                lines=lines,
                maps=None if maps is None else np.stack([maps[int(row)] for row in rows]),
            ),
            folder / "figures" / name,
        )

    entries = []
    if confusions:
        rows = np.concatenate([rows for _, rows in confusions])
        lines = [len(part) for _, part in confusions]
        entries.append(
            FigureEntry(
                draw(
                    rows,
                    lines,
                    f"Frequent confusions: {shown}",
                    "a line for each: true → predicted; blue bar: true, orange: predicted",
                    "confusions.png",
                ),
                "The most frequent confusions",
                "In each line the most confident mistakes of one kind. "
                + "; ".join(words for words, _ in confusions)
                + f".{saliency}",
            )
        )
    if len(confident):
        full, rest = divmod(len(confident), IMAGES_A_LINE)
        entries.append(
            FigureEntry(
                draw(
                    confident,
                    [IMAGES_A_LINE] * full + [rest] * bool(rest),
                    f"Most confident mistakes: {shown}",
                    "the most confident first; blue bar: true, orange: predicted",
                    "confident_mistakes.png",
                ),
                "The most confident mistakes",
                f"{len(confident)} of {how_many(wrong, 'mistake')}. Look for wrong labels among "
                f"them: a network is often right here and the annotation is not.{saliency}",
            )
        )
    return Section(
        "Mistakes",
        [
            f"{wrong:,} of {how_many(len(result.target), 'image')} are wrong "
            f"({percent(wrong / len(result.target))}). predictions.csv has the probabilities of "
            "every image."
        ],
        figures=entries,
    )
