"""Images that are probably mislabelled, by what networks say that have not seen them.

Confident learning (Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in
Dataset Labels", Journal of Artificial Intelligence Research 70, 2021) through cleanlab.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.words import how_many
from fer.evaluation.intervals import accuracy_interval, macro_f1_interval, wilson
from fer.evaluation.mistakes import read_predictions
from fer.evaluation.scores import accuracy, confusion_matrix, macro_f1

FIRST = (50, 100, 500, 1000)
"""How many of the first flags are held against the annotators."""


# --- predictions -------------------------------------------------------------------------------


def join_folds(
    tables: Sequence[Path], ids: Sequence[str], target: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Put the predictions of all folds together: each image's by the network that did not see it.

    Args:
        tables: ``predictions.csv`` of each fold's images.
        ids: of all images.
        target: ``(N,)`` int64, their labels.
        folds: ``(N,)`` int64, the place in ``tables`` of each image's fold.

    Returns:
        Probabilities ``(N, 7)`` float64, in the order of ``ids``.

    Raises:
        DataError: an image is missing, is there twice, or has another label or fold than here.
    """
    found = np.full((len(ids), labels.NUM_CLASSES), np.nan)
    rows = {id: row for row, id in enumerate(ids)}
    for fold, path in enumerate(tables):
        own, true, probabilities = read_predictions(path)
        twice = [id for id, count in Counter(own).items() if count > 1]
        absent = sorted({ids[row] for row in np.flatnonzero(folds == fold).tolist()} - set(own))
        strange = [
            id
            for id, label in zip(own, true.tolist(), strict=True)
            if id not in rows or folds[rows[id]] != fold or target[rows[id]] != label
        ]
        for words, wrong in (
            ("more than once", twice),
            ("from elsewhere or with another label", strange),
            ("missing", absent),
        ):
            if wrong:
                raise DataError(
                    f"{path}: expected each image of fold {fold + 1} once, found "
                    f"{how_many(len(wrong), 'image')} {words}, first {wrong[0]!r}. Move the "
                    "folder of this fold away, and give the same command again."
                )
        found[[rows[id] for id in own]] = probabilities
    return found


# --- confident learning ------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelIssues:
    """What confident learning says of labels."""

    order: np.ndarray
    """``(N,)`` int64: the images, first those that are flagged, the most suspicious first."""
    flagged: np.ndarray
    """``(N,)`` bool."""
    quality: np.ndarray
    """``(N,)``, 0 to 1: normalised margin, half of one plus the label's probability less that of
    the likeliest other emotion."""
    joint: np.ndarray
    """``(7, 7)``: estimated images of a label (row) and a true emotion (column)."""


def require_cleanlab() -> None:
    """Import cleanlab, which takes seconds, before the work that needs it at its end.

    Raises:
        ConfigError: it is missing.
    """
    try:
        import cleanlab  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"audit: expected the package cleanlab, found {error.name} missing. Install it: "
            'pip install "fer-lab[audit]"'
        ) from error


def find_label_issues(target: np.ndarray, probabilities: np.ndarray) -> LabelIssues:
    """Find the labels that are probably wrong.

    Args:
        target: ``(N,)`` int64, the labels, with all seven among them.
        probabilities: ``(N, 7)`` of networks that have not seen the images.

    Raises:
        ConfigError: cleanlab is missing.
    """
    require_cleanlab()
    from cleanlab.count import compute_confident_joint
    from cleanlab.filter import find_label_issues as find
    from cleanlab.rank import get_label_quality_scores

    ranked = "normalized_margin"
    first = find(target, probabilities, return_indices_ranked_by=ranked, n_jobs=1)
    quality = get_label_quality_scores(target, probabilities, method=ranked)
    flagged = np.zeros(len(target), dtype=bool)
    flagged[first] = True
    joint = compute_confident_joint(target, probabilities)
    # Of equally suspicious images the first comes first, whatever the version of a library.
    order = np.lexsort((np.arange(len(target)), quality, ~flagged))
    return LabelIssues(order, flagged, quality, joint)


# --- what it comes to --------------------------------------------------------------------------


class Share(TypedDict):
    """A share of images with its 95 % interval; both None where there is no image."""

    hits: int
    images: int
    share: float | None
    interval: list[float] | None


class FirstFlags(Share):
    """The flags that annotators confirm, among those of images that they give an emotion."""

    flags: int
    """With those of other images."""


class FlagScores(TypedDict):
    """Flags held against annotators, on images that they give an emotion."""

    annotators: str
    none_of_the_seven: int
    """Images of which they say none of the seven emotions."""
    unknown: int
    """Images that they were not asked about."""
    base: Share
    """Images whose label is not what they say."""
    precision: list[FirstFlags]
    """Of the first flags, and of all at last: those whose label is not what they say."""
    recall: Share
    """Of all images whose label is not what they say: those that are flagged."""


class EmotionIssues(TypedDict):
    """An emotion as a label."""

    images: int
    flagged: int
    suggested: str | None
    """The commonest answer on flagged images; None without any."""


class AuditScores(TypedDict):
    """What an audit counts."""

    images: int
    flagged: int
    per_emotion: dict[str, EmotionIssues]
    accuracy: float
    """Of the answers by the labels as they are."""
    macro_f1: float
    confidence_intervals: dict[str, list[float]]
    confusion_matrix: list[list[int]]
    """Rows labels, columns answers."""
    noise_matrix: list[list[int]]
    """Of flagged images: rows labels, columns answers, which are the labels suggested."""
    estimated_joint: list[list[float]]
    """Confident joint: estimated images of a label (row) and a true emotion (column)."""


def summarise_issues(
    target: np.ndarray, probabilities: np.ndarray, issues: LabelIssues
) -> AuditScores:
    """Count flags by emotion, and score the answers by the labels.

    Args:
        target: ``(N,)``.
        probabilities: ``(N, 7)``, as :func:`find_label_issues` took them.
        issues: what it found.
    """
    preds = probabilities.argmax(axis=1)
    matrix = confusion_matrix(target, preds)
    noise = confusion_matrix(target[issues.flagged], preds[issues.flagged])
    return {
        "images": len(target),
        "flagged": int(issues.flagged.sum()),
        "per_emotion": {
            emotion: {
                "images": int(matrix[index].sum()),
                "flagged": int(noise[index].sum()),
                "suggested": labels.EMOTIONS[noise[index].argmax()] if noise[index].any() else None,
            }
            for index, emotion in enumerate(labels.EMOTIONS)
        },
        "accuracy": float(accuracy(matrix)),
        "macro_f1": float(macro_f1(matrix)),
        "confidence_intervals": {
            "accuracy": accuracy_interval(matrix),
            "macro_f1": macro_f1_interval(matrix),
        },
        "confusion_matrix": matrix.tolist(),
        "noise_matrix": noise.tolist(),
        "estimated_joint": issues.joint.round(1).tolist(),
    }


def share_of(hits: int, images: int) -> Share:
    """A share with Wilson's interval.

    >>> share_of(3, 4)["share"], share_of(0, 0)["share"]
    (0.75, None)
    """
    if not images:
        return {"hits": hits, "images": images, "share": None, "interval": None}
    low, high = wilson(np.array(hits), np.array(images))
    return {
        "hits": hits,
        "images": images,
        "share": hits / images,
        "interval": [float(low), float(high)],
    }


def score_flags(
    target: np.ndarray, second: np.ndarray, issues: LabelIssues, annotators: str, unknown: int
) -> FlagScores:
    """Hold flags against what annotators say.

    Args:
        target: ``(N,)``, the labels.
        second: ``(N,)``, what the annotators say, -1 for none of the seven emotions.
        issues: what was flagged.
        annotators: who they are.
        unknown: images among those with -1 that they were not asked about.
    """
    known = second >= 0
    wrong = known & (second != target)
    flags = issues.order[: int(issues.flagged.sum())]
    counts = [*(count for count in FIRST if count < len(flags)), len(flags)]
    return {
        "annotators": annotators,
        "none_of_the_seven": int((~known).sum()) - unknown,
        "unknown": unknown,
        "base": share_of(int(wrong.sum()), int(known.sum())),
        "precision": [
            {
                "flags": count,
                **share_of(int(wrong[flags[:count]].sum()), int(known[flags[:count]].sum())),
            }
            for count in counts
        ],
        "recall": share_of(int((wrong & issues.flagged).sum()), int(wrong.sum())),
    }
