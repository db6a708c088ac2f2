"""The figures of a run: curves, confusion matrix, scores of each emotion, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fer.core import labels
from fer.evaluation.metrics import SplitResult
from fer.report import figures
from fer.report.page import FigureEntry

GRID = 32
"""Images in the grid of predictions."""


def draw_split(folder: Path, result: SplitResult) -> list[FigureEntry]:
    """Figures of one split: confusion matrix, per class, a grid of predictions."""
    place = folder / "figures"
    dataset, split = result.metrics["dataset"], result.metrics["split"]
    shown = f"{dataset}, {split}"
    images = f"{len(result.target):,} {split} images of {dataset}"
    matrix = np.array(result.metrics["confusion_matrix"])
    grid = pick_grid(result)
    return [
        FigureEntry(
            figures.save(
                figures.confusion_matrix(matrix, title=f"Confusion matrix: {shown}"),
                place / f"confusion_matrix_{split}.png",
            ),
            f"Confusion matrix ({split})",
            f"{images}. Each row is a true emotion; large: percent of the row, small: images.",
        ),
        FigureEntry(
            figures.save(
                figures.per_class(result.metrics["per_class"], title=f"Per emotion: {shown}"),
                place / f"per_class_{split}.png",
            ),
            f"Precision, recall and F1 of each emotion ({split})",
            f"{images}. The number of images of each emotion stands below its name.",
        ),
        FigureEntry(
            figures.save(
                figures.prediction_grid(
                    result.images[grid],
                    result.target[grid],
                    result.preds[grid],
                    result.probabilities.max(axis=1)[grid],
                    title=f"Predictions: {shown}",
                ),
                place / f"predictions_{split}.png",
            ),
            f"Images with their predictions ({split})",
            f"{len(grid)} of the {images}, the same number of each emotion as far as they reach, "
            "picked by a fixed seed. Percent is the network's confidence.",
        ),
    ]


def pick_grid(result: SplitResult) -> np.ndarray:
    """Indices of up to ``GRID`` images, evenly over the emotions, the same for every network."""
    rng = np.random.default_rng(0)
    by_class = [
        rng.permutation(np.flatnonzero(result.target == index))
        for index in range(labels.NUM_CLASSES)
    ]
    rounds = max(map(len, by_class))
    order = [indices[i] for i in range(rounds) for indices in by_class if i < len(indices)]
    return np.array(order[:GRID], dtype=np.int64)


def draw_run(
    folder: Path,
    counts: Mapping[str, Mapping[str, int]],
    results: Sequence[SplitResult],
    rows: Sequence[Mapping[str, float]],
    best_epoch: int | None,
) -> list[FigureEntry]:
    """Figures of a training run: those of the last of ``results``, and predictions on val.

    Args:
        folder: of the run.
        counts: images of each split and emotion.
        results: of val, and of test where it was measured.
        rows: of ``history.csv``.
        best_epoch: the one that is marked.
    """
    place = folder / "figures"
    curves = figures.training_curves(rows, best_epoch)
    balance = figures.class_balance(
        counts, title=f"Class balance of {results[0].metrics['dataset']}"
    )
    by_split = [draw_split(folder, result) for result in results]
    return [
        FigureEntry(
            figures.save(curves, place / "curves.png"),
            "Training curves",
            "Training values are measured on augmented images with dropout, as they go by; "
            "validation values after each epoch. The best epoch is marked.",
        ),
        *by_split[-1][:2],
        by_split[0][2],
        FigureEntry(
            figures.save(balance, place / "class_balance.png"),
            "Class balance",
            "Images per emotion in each split, and their share of the split.",
        ),
    ]
