"""Results and figures for experiment loggers, which log the epochs' values themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger

from fer.evaluation.metrics import SplitResult
from fer.evaluation.scores import scores_in, shown_in
from fer.report import run_figures as figures
from fer.report.figures import to_image


def log_results(
    loggers: Sequence[Logger], parameters: Mapping[str, Any], results: Sequence[SplitResult]
) -> None:
    """Log hyper-parameters beside the scores that they led to, and figures as images.

    Loggers that know images get those: TensorBoard, W&B and MLflow. The first of the results is of
    val, the second, where it was measured, of test.
    """
    if not loggers:
        return
    best, *tested = [
        {
            f"best/{result.metrics['split']}_{score.name}": scores_in(result.metrics)[score.name]
            for score in shown_in("sweeps")
        }
        for result in results
    ]
    images = plot_images(results)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            # Its HParams view compares jobs: by what may choose among them, not by the test split.
            logger.log_hyperparams(dict(parameters), best)
        else:
            logger.log_hyperparams(dict(parameters))
            logger.log_metrics(best)
        for scores in tested:
            logger.log_metrics(scores)
        for name, image in images.items():
            log_image(logger, name, image)
        logger.finalize("success")


def plot_images(results: Sequence[SplitResult]) -> dict[str, np.ndarray]:
    """The confusion matrix of each split and validation images, ``(H, W, 3)`` uint8, by name."""
    images = {}
    for result in results:
        split = result.metrics["split"]
        matrix = figures.confusion_matrix(
            np.array(result.metrics["confusion_matrix"]), title=f"Confusion matrix ({split})"
        )
        images[f"confusion_matrix/{split}"] = to_image(matrix)
    val = results[0]
    sample = figures.prediction_grid(
        val.images, val.target, val.probabilities, title="Validation images"
    )
    images["predictions/val"] = to_image(sample)
    return images


def log_image(logger: Logger, name: str, image: np.ndarray) -> None:
    """Log an image ``(H, W, 3)`` uint8, where the logger knows images."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, image, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, image, f"{name}.png")
    elif hasattr(logger, "log_image"):  # W&B's, and others of its form
        logger.log_image(key=name, images=[image])


def finish(loggers: Sequence[Logger]) -> None:
    """End the run of each logger that has to be told: W&B would go on with it in the next job.

    What was written is safe before: Lightning closes its loggers, after a failure too.
    """
    for logger in loggers:
        end = getattr(getattr(logger, "_experiment", None), "finish", None)
        if callable(end):
            end()
