"""Measure a checkpoint on one split of a dataset. See ``python evaluate.py --help``."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fer.cli import run


def task(cfg: DictConfig, folder: Path) -> None:
    """Evaluate as ``cfg`` says; everything is written below ``folder``."""
    from fer.evaluating import evaluate  # imports torch, which help need not wait for

    evaluate(cfg, folder)


def evaluated_dataset(choice: str | None, checkpoint: str | None) -> str:
    """The dataset's name in the run folder: the one chosen, or the checkpoint's own."""
    if choice is not None:
        return choice
    from fer.errors import CheckpointError
    from fer.evaluation.predict import load_checkpoint

    try:
        return str(load_checkpoint(checkpoint or "").extras["dataset"]["choice"])
    except CheckpointError:
        return "unknown"  # the task itself explains what is wrong with the checkpoint


if __name__ == "__main__":
    OmegaConf.register_new_resolver("evaluated_dataset", evaluated_dataset)
    run(task, "evaluate")
