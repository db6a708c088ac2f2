"""How scores fall as images get worse: ``robustness.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

import numpy as np

from fer.core import labels
from fer.core.files import Row
from fer.core.values import Options
from fer.evaluation.compare import difference_interval, one_sided
from fer.evaluation.intervals import distances, percentile, wilson
from fer.evaluation.metrics import (
    BesidePublished,
    DamagedScores,
    PublishedMean,
    RobustnessSummary,
    per_class,
)
from fer.evaluation.perturbations import Setting
from fer.evaluation.scores import (
    confusion_matrix,
    counts_of,
    on_resamples,
    resampling,
    shown_in,
)

TABLE = "robustness"
"""Scores with this entry in the registry are measured here."""


def columns() -> tuple[str, ...]:
    """The columns of ``robustness.csv``."""
    return (
        *("perturbation", "severity", "parameters", "image_size", "samples"),
        *(f"{name}{end}" for name in with_changes() for end in ("", "_low", "_high")),
        *(f"recall_{emotion}" for emotion in labels.EMOTIONS),
    )


def with_changes() -> list[str]:
    """The keys of each score of damaged images, and of its difference to the undamaged ones."""
    return [f"{prefix}{score.name}" for prefix in ("", "delta_") for score in shown_in(TABLE)]


class DamagedClass(TypedDict):
    """An emotion under damage; None where it has no image."""

    recall: float | None
    f1: float
    recall_interval: list[float] | None


class _Row(DamagedScores):
    perturbation: str
    severity: int
    """0 is clean."""
    parameters: Options
    image_size: int
    """Side in pixels at which the images were damaged."""
    samples: int
    delta_accuracy: float
    delta_macro_f1: float
    per_class: dict[str, DamagedClass]


class RobustnessRow(_Row, total=False):
    """A row of ``robustness.json``; a registered metric adds its key and that of its change."""

    reference_accuracy: float
    """A published network's, on as many images."""


@dataclass(frozen=True)
class Robustness:
    """The scores of a network on damaged images."""

    rows: list[RobustnessRow]
    """The content of ``robustness.json``: for each perturbation the clean images (severity 0),
    then its severities."""
    summary: RobustnessSummary
    """One number per perturbation and over all, for ``metrics.json``."""

    def table(self) -> list[Row]:
        """The rows of ``robustness.csv``, under :func:`columns`."""
        return [flatten(row) for row in self.rows]


def measure_robustness(
    settings: Sequence[Setting],
    images: Callable[[int | None], np.ndarray],
    predict: Callable[[np.ndarray], np.ndarray],
    target: np.ndarray,
    ids: Sequence[str],
    *,
    clean: np.ndarray,
    dataset: str,
    seed: int = 0,
    resamples: int = 2000,
    bootstrap_seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Robustness:
    """Predict the damaged images of every setting and measure what is left.

    Intervals of differences, areas and means come from one set of resamples, the same for all
    settings: differences are paired. ``benchmarks/coverage.py`` simulates how often they hold the
    truth.

    Args:
        settings: of :func:`fer.evaluation.perturbations.make_settings`.
        images: the images ``(N, S, S, C)`` uint8 at side S; at the network's own for None.
        predict: probabilities ``(N, 7)`` of such images; it brings them to the network's size.
        target: ``(N,)`` int64.
        ids: sample ids.
        clean: probabilities ``(N, 7)`` of the undamaged images at the network's size.
        dataset: its name, for published figures.
        seed: of the perturbations.
        resamples: bootstrap resamples for the intervals.
        bootstrap_seed: of the bootstrap.
        progress: called with (done, total) before each pass.
    """
    found: dict[tuple[str, int], np.ndarray] = {}
    undamaged: dict[int | None, np.ndarray] = {None: clean}
    sizes: dict[str, int] = {}
    for index, setting in enumerate(settings):
        progress(index, len(settings))
        pictures = images(setting.image_size)
        sizes[setting.perturbation] = pictures.shape[1]
        if setting.image_size not in undamaged:
            undamaged[setting.image_size] = predict(pictures)
        found[setting.perturbation, 0] = undamaged[setting.image_size]
        found[setting.perturbation, setting.severity] = predict(setting(pictures, ids, seed))
    resampled = _resample(target, found, resamples, bootstrap_seed)
    by_key = {(setting.perturbation, setting.severity): setting for setting in settings}
    rows = [
        _row(key, target, found, resampled, by_key.get(key), dataset, bootstrap_seed)
        for key in found
    ]
    rows = [{**row, "image_size": sizes[row["perturbation"]]} for row in rows]
    return Robustness(rows, _summarise(rows, resampled))


Resampled = Mapping[tuple[str, int], Mapping[str, np.ndarray]]
"""Perturbation and severity → statistic → its value in each resample."""


def _resample(
    target: np.ndarray, found: Mapping[tuple[str, int], np.ndarray], resamples: int, seed: int
) -> Resampled:
    values_of = {key: on_resamples(shown_in(TABLE), target, own) for key, own in found.items()}
    parts: dict[tuple[str, int], dict[str, list[np.ndarray]]] = {key: {} for key in found}
    for weights in resampling(len(target), resamples, seed):
        for key, own in values_of.items():
            for name, values in own(weights).items():
                parts[key].setdefault(name, []).append(values)
    return {
        key: {name: np.concatenate(values) for name, values in own.items()}
        for key, own in parts.items()
    }


def _row(
    key: tuple[str, int],
    target: np.ndarray,
    found: Mapping[tuple[str, int], np.ndarray],
    resampled: Resampled,
    setting: Setting | None,
    dataset: str,
    seed: int,
) -> RobustnessRow:
    name, severity = key
    own, clean = found[key], found[name, 0]
    values: dict[str, float] = {}
    ends: dict[str, list[float]] = {}
    undamaged, counts = resampled[name, 0], one_sided(target, clean, own)
    for score in shown_in(TABLE):
        drawn = resampled[key][score.name]
        ends[score.name] = (
            score.interval(target, own, len(drawn), seed)
            if score.interval
            else percentile(drawn, len(target))
        )
        values[score.name] = score(target, own)
        change = f"delta_{score.name}"
        values[change] = values[score.name] - score(target, clean)
        ends[change] = (
            difference_interval(
                score.name, values[change], drawn - undamaged[score.name], *counts, len(target)
            )
            if severity
            else [0.0, 0.0]
        )
    matrix = confusion_matrix(target, own.argmax(axis=1))
    hits, true, _ = counts_of(matrix)
    recall_ends = np.transpose(wilson(hits, true)).tolist()
    row = {
        "perturbation": name,
        "severity": severity,
        "parameters": {} if setting is None else setting.parameters,
        "samples": len(target),
        **{column: values[column] for column in with_changes()},
        "confidence_intervals": {column: ends[column] for column in with_changes()},
        "per_class": {
            emotion: {
                "recall": scores["recall"] if scores["support"] else None,
                "f1": scores["f1"],
                "recall_interval": recall_ends[index] if scores["support"] else None,
            }
            for index, (emotion, scores) in enumerate(per_class(matrix).items())
        },
    }
    published = ((setting and setting.reference) or {}).get(dataset)
    # A number that is of other images does not stand beside this one.
    if published is not None and published["images"] == len(target):
        row["reference_accuracy"] = published["accuracy"]
    return cast(RobustnessRow, row)


def _summarise(rows: Sequence[RobustnessRow], resampled: Resampled) -> RobustnessSummary:
    """Areas under the curves relative to clean, and the mean over all damaged settings."""
    n = rows[0]["samples"]
    severities: dict[str, list[int]] = {}
    for row in rows:
        severities.setdefault(row["perturbation"], []).append(row["severity"])
    values: Mapping[tuple[str, int], Mapping[str, Any]] = {
        (row["perturbation"], row["severity"]): row for row in rows
    }
    names = [score.name for score in shown_in(TABLE)]
    areas: dict[str, dict[str, float]] = {}
    resampled_areas: dict[str, dict[str, np.ndarray]] = {}
    for name, steps in severities.items():
        areas[name] = {
            metric: float(_relative_area(steps, [values[name, s][metric] for s in steps]))
            for metric in names
        }
        resampled_areas[name] = {
            metric: _relative_area(steps, [resampled[name, s][metric] for s in steps])
            for metric in names
        }
    damaged = [row for row in rows if row["severity"]]
    summary: dict[str, object] = {
        "relative_area": {
            name: {
                "confidence_intervals": {metric: percentile(own[metric], n) for metric in names},
                **areas[name],
            }
            for name, own in resampled_areas.items()
        },
        "relative_area_mean": {
            **{metric: float(np.mean([own[metric] for own in areas.values()])) for metric in names},
            "confidence_intervals": {
                metric: percentile(
                    np.mean([own[metric] for own in resampled_areas.values()], axis=0), n
                )
                for metric in names
            },
        },
        "mean_over_settings": {
            "settings": len(damaged),
            **{metric: float(np.mean(_values(damaged, metric))) for metric in names},
            "confidence_intervals": {
                metric: _mean_interval(damaged, resampled, metric) for metric in names
            },
        },
    }
    beside = [row for row in damaged if "reference_accuracy" in row]
    if beside:
        summary["beside_published"] = _beside_published(beside, resampled)
    return cast(RobustnessSummary, summary)


def _values(rows: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    return [row[metric] for row in rows]


def _mean_interval(rows: Sequence[RobustnessRow], resampled: Resampled, metric: str) -> list[float]:
    """The 95 % interval of a score's mean over settings, from the settings' own.

    Percentiles of the resampled mean would lie too low: few resampled images lack emotions, which
    lowers macro-F1 once more than the sample does.
    """
    ends = np.array([row["confidence_intervals"][metric] for row in rows])
    drawn = np.array([resampled[row["perturbation"], row["severity"]][metric] for row in rows])
    with np.errstate(invalid="ignore"):  # what never varies is taken to vary with the others
        correlation = np.nan_to_num(np.atleast_2d(np.corrcoef(drawn)), nan=1.0)
    middle, (low, high) = np.array(_values(rows, metric)), ends.T
    below, above = np.maximum(0, middle - low), np.maximum(0, high - middle)
    down, up = distances(below, above, correlation)
    return [float(middle.mean() - down), float(middle.mean() + up)]


def _beside_published(rows: Sequence[RobustnessRow], resampled: Resampled) -> BesidePublished:
    """Mean accuracy over the settings with a published one.

    A setting that is measured at two sizes (``noise`` and ``noise_at_64``) counts with the lower
    accuracy; beside it the mean at each size.
    """
    both: dict[tuple[str, int], list[RobustnessRow]] = {}
    for row in rows:
        name = row["perturbation"].removesuffix(f"_at_{row['image_size']}")
        both.setdefault((name, row["severity"]), []).append(row)
    lower = [min(pair, key=lambda row: row["accuracy"]) for pair in both.values()]

    def mean(own: Sequence[RobustnessRow]) -> PublishedMean:
        return {
            "settings": len(own),
            "accuracy": float(np.mean([row["accuracy"] for row in own])),
            "interval": _mean_interval(own, resampled, "accuracy"),
        }

    sizes = sorted({row["image_size"] for row in rows})
    return {
        **mean(lower),
        "reference_accuracy": float(np.mean([row["reference_accuracy"] for row in lower])),
        "at_size": {
            str(size): mean([row for row in rows if row["image_size"] == size]) for size in sizes
        },
    }


def _relative_area(steps: Sequence[int], values: Sequence[Any]) -> Any:
    """Area under a curve over the severities, as a share of what it would be without damage.

    Trapezoids between the severities that were measured. 0 where nothing is right even clean.
    """
    curve = np.array(values, dtype=np.float64)  # (severities,) or (severities, resamples)
    widths = np.diff(steps).reshape(-1, *[1] * (curve.ndim - 1))
    area = (widths * (curve[1:] + curve[:-1]) / 2).sum(axis=0)
    full = (steps[-1] - steps[0]) * curve[0]
    return np.divide(area, full, out=np.zeros_like(area), where=full > 0)


def flatten(row: RobustnessRow) -> Row:
    """A row of ``robustness.json`` under :func:`columns`; scores that it lacks are left out."""
    flat: Row = {
        "perturbation": row["perturbation"],
        "severity": row["severity"],
        # Compact JSON: a cell that programs can read again.
        "parameters": json.dumps(row["parameters"], separators=(",", ":")),
        "image_size": row["image_size"],
        "samples": row["samples"],
    }
    values: Mapping[str, Any] = row
    for name in with_changes():
        if name in values:
            low, high = row["confidence_intervals"][name]
            flat |= {name: values[name], f"{name}_low": low, f"{name}_high": high}
    for emotion, scores in row["per_class"].items():
        flat[f"recall_{emotion}"] = scores["recall"]
    return flat
