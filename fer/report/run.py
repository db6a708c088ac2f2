"""What a run leaves behind beside its numbers: figures, TensorBoard, a table, its origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from fer import labels
from fer.data.datamodule import EmotionDataModule
from fer.evaluation.metrics import SCALARS
from fer.evaluation.predict import SplitResult
from fer.hardware import Computing
from fer.model.callbacks import History
from fer.report import figures
from fer.report.page import FigureEntry
from fer.report.provenance import command_line, git_state, hardware, versions

GRID = 32
"""Images in the grid of predictions."""


def describe_run(
    config: Mapping[str, Any], data: EmotionDataModule, computing: Computing, notes: Sequence[str]
) -> dict[str, Any]:
    """What ``run.json`` says of any run."""
    integrity = data.prepared.integrity
    return {
        "command": command_line(),
        "git": git_state(),
        "seed": config.get("seed"),
        "dataset": {
            "name": data.dataset_name,
            "fingerprint": integrity["fingerprint"],
            "form": integrity["source"]["form"],
            "verdict": integrity["verdict"],
            "official_protocol": integrity["official_protocol"],
            "images": {split: len(dataset) for split, dataset in data.datasets.items()},
            "left_out": data.left_out,
        },
        "notes": list(notes),
        "versions": versions(),
        "hardware": hardware(str(computing.device), computing.precision),
        "config": dict(config),
    }


def draw_split(folder: Path, data: EmotionDataModule, result: SplitResult) -> list[FigureEntry]:
    """Figures of one split: confusion matrix, per class, a grid of predictions."""
    place = folder / "figures"
    split = result.metrics["split"]
    shown = f"{data.dataset_name}, {split}"
    images = f"{len(result.target):,} {split} images of {data.dataset_name}"
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
    folder: Path, data: EmotionDataModule, results: Sequence[SplitResult], history: History
) -> list[FigureEntry]:
    """Figures of a training run: those of the last of ``results``, and predictions on val.

    Args:
        folder: of the run.
        data: set up.
        results: of val, and of test where it was measured.
        history: of the training.
    """
    place = folder / "figures"
    curves = figures.training_curves(history.rows, history.best_epoch)
    balance = figures.class_balance(
        data.prepared.integrity["counts"], title=f"Class balance of {data.dataset_name}"
    )
    by_split = [draw_split(folder, data, result) for result in results]
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


def log_to_tensorboard(
    logger: TensorBoardLogger, parameters: Mapping[str, Any], results: Sequence[SplitResult]
) -> None:
    """Figures as images, and hyper-parameters beside the metrics that they led to."""
    writer = logger.experiment
    for result in results:
        split = result.metrics["split"]
        matrix = figures.confusion_matrix(
            np.array(result.metrics["confusion_matrix"]), title=f"Confusion matrix ({split})"
        )
        writer.add_image(f"confusion_matrix/{split}", figures.to_image(matrix), dataformats="HWC")
    val = results[0]
    grid = pick_grid(val)
    sample = figures.prediction_grid(
        val.images[grid],
        val.target[grid],
        val.preds[grid],
        val.probabilities.max(axis=1)[grid],
        title="Validation images",
    )
    writer.add_image("predictions/val", figures.to_image(sample), dataformats="HWC")
    best = {
        f"best/{result.metrics['split']}_{name}": result.metrics[name]
        for result in results
        for name in ("accuracy", "macro_f1")
    }
    logger.log_hyperparams(dict(parameters), best)
    logger.finalize("success")


def print_summary(
    folder: Path,
    data: EmotionDataModule,
    result: SplitResult,
    val: SplitResult | None,
    notes: Sequence[str],
) -> None:
    """The final table: metrics, and where everything is."""
    split = result.metrics["split"]
    table = Table(title=f"{data.dataset_name}: {len(result.target):,} {split} images")
    table.add_column("metric")
    table.add_column(split, justify="right")
    table.add_column("95 % interval", justify="right")
    if val is not None:
        table.add_column("val", justify="right")
    for name in SCALARS:
        low, high = result.metrics["confidence_intervals"][name]
        cells = [name.replace("_", " "), f"{result.metrics[name]:.2%}", f"{low:.2%} – {high:.2%}"]
        if val is not None:
            cells.append(f"{val.metrics[name]:.2%}")
        table.add_row(*cells)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(f"Note: {note}", markup=False)
    robustness = result.metrics.get("robustness")
    if robustness is not None:
        for name, row in robustness["relative_area"].items():
            console.print(
                f"Left under {name.replace('_', ' ')}: {row['accuracy']:.1%} of the accuracy, "
                f"{row['macro_f1']:.1%} of the macro-F1 (area under the curve)",
                highlight=False,
            )
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            # soft_wrap keeps a path in one piece, to be copied.
            console.print(f"  {path}", markup=False, highlight=False, soft_wrap=True)
