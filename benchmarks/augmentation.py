"""What augmentation on the CPU costs.  python benchmarks/augmentation.py

Microseconds of wall time per image, medians over the rounds:
- of each transform of the policy, applied to every image: here, where each image has random numbers
  of its own, and albumentations' original in an albumentations.Compose;
- of the whole policy with its probabilities: one image behind the other, the same by albumentations
  alone, and right after the bare training step of benchmarks/training.py, which leaves little in
  the processor's caches, for 1, 2, 4 and 8 batches at once (train.py: TrainingLoader.AHEAD).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import albumentations
import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from training import bare_step

from fer.core.composition import config_folder
from fer.core.hardware import Computing, keep_freed_memory
from fer.data.augmentation import Augmentation, make_transforms
from fer.data.dataset import Draw, EmotionDataset, TrainingLoader

OWN, ORIGINAL = "fer.data.transforms.", "albumentations."
BATCHES = (1, 2, 4, 8)


def originals(policy: DictConfig) -> list[Any]:
    """The transforms of a policy, those of this package replaced by what they stand for."""
    text = OmegaConf.to_yaml(policy).replace(OWN, ORIGINAL)
    return make_transforms(OmegaConf.create(text))  # type: ignore[arg-type]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def always(transform: Any) -> Any:
    """The transform, applied to every image."""
    transform.p = 1.0
    return transform


def middle(times: Iterable[float], images: int) -> float:
    """Median of the seconds that ``images`` took, in microseconds per image."""
    return round(statistics.median(times) / images * 1e6, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="repetitions of each measurement")
    parser.add_argument("overrides", nargs="*", help="as of train.py, such as augmentation=strong")
    options = parser.parse_args()
    keep_freed_memory()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        cfg = hydra.compose("train", overrides=options.overrides)
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    batch, size, channels = cfg.loader.batch_size, cfg.model.image_size, cfg.model.in_channels
    count = batch * max(BATCHES)
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)
    rounds = range(options.rounds)

    def one_by_one(augment: Augmentation, epoch: int) -> Callable[[], None]:
        def work() -> None:
            for index in range(batch):
                augment(images[index], epoch=epoch, index=index)

        return work

    transforms: dict[str, dict[str, float]] = {}
    names = list(cfg.augmentation.transforms)
    pairs = zip(make_transforms(cfg.augmentation), originals(cfg.augmentation), strict=True)
    for name, (own, original) in zip(names, pairs, strict=True):
        augment = Augmentation([always(own)], seed=0)
        compose = albumentations.Compose([always(original)])
        times: dict[str, list[float]] = {"here, with seeding": [], "original": []}
        for epoch in rounds:
            times["here, with seeding"].append(seconds(one_by_one(augment, epoch)))
            times["original"].append(
                seconds(lambda: [compose(image=image) for image in images[:batch]])  # noqa: B023
            )
        transforms[name] = {key: middle(value, batch) for key, value in times.items()}
    print("each transform done", file=sys.stderr)

    augment = Augmentation(make_transforms(cfg.augmentation), seed=0)
    dataset = EmotionDataset(images, np.zeros(count, np.int64), [""] * count, augment)
    compose = albumentations.Compose(originals(cfg.augmentation))
    step = bare_step(cfg, computing)
    behind, alone = [], []
    beside: dict[int, list[float]] = {n: [] for n in BATCHES}
    for epoch in rounds:
        for n, found in beside.items():
            draws = [Draw(row, epoch) for row in range(n * batch)]
            step()
            found.append(seconds(lambda: dataset.__getitems__(draws)))  # noqa: B023
        behind.append(seconds(one_by_one(augment, epoch)))
        alone.append(seconds(lambda: [compose(image=image) for image in images[:batch]]))
    print(
        json.dumps(
            {
                "image": [size, size, channels],
                "batch_size": batch,
                "microseconds_per_image": {
                    "transforms": transforms,
                    "policy, one image behind the other": middle(behind, batch),
                    "policy, albumentations alone": middle(alone, batch),
                    "policy, after a training step, batches at once": {
                        n: middle(found, n * batch) for n, found in beside.items()
                    },
                },
                "batches_at_once_in_train.py": TrainingLoader.AHEAD,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
