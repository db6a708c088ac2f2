"""What damaged images cost beside clean ones.  python benchmarks/stress.py dataset=fer2013

Predicts the test split sixteen times as it is and, in turn with that, once clean and under each of
the fifteen settings of perturbation=stress. Prints JSON with the seconds of both, their ratio, and
the share of each perturbation. Weights are those of a new network: they do not change the time.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections import defaultdict

import hydra

from fer.core.application import locate
from fer.core.composition import config_folder
from fer.core.hardware import Computing
from fer.evaluation.inference import predict
from fer.evaluation.perturbations import make_settings
from fer.tasks.assembly import make_data, make_model, resolved


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of train.py, such as dataset=fer2013")
    options = parser.parse_args()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        cfg = hydra.compose("train", overrides=options.overrides)
        damage = hydra.compose("evaluate", overrides=["checkpoint=x", "perturbation=stress"])
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    network = make_model(cfg.model)
    data = make_data(cfg, network)
    data.prepare_data()
    data.setup()
    test = data.split("test")
    images = test.images.copy()  # in memory, not mapped

    def classify(batch: object) -> float:
        started = time.perf_counter()
        predict(network, batch, device=computing.device, precision=computing.precision)  # type: ignore[arg-type]
        return time.perf_counter() - started

    classify(images)
    clean, damaged = classify(images), classify(images)  # the sixteenth pass of each
    parts: dict[str, float] = defaultdict(float)
    for setting in make_settings(
        resolved(damage.perturbation), None, functools.partial(locate, "perturbation")
    ):
        clean += classify(images)
        started = time.perf_counter()
        worse = setting(images, test.ids, 0)
        spent = time.perf_counter() - started
        parts[setting.perturbation] += spent
        damaged += spent + classify(worse)
    print(
        json.dumps(
            {
                "network": cfg.model.widths[:],
                "image_size": cfg.model.image_size,
                "images": len(images),
                "device": str(computing.device),
                "precision": computing.precision,
                "clean_seconds": round(clean, 2),
                "stress_seconds": round(damaged, 2),
                "ratio": round(damaged / clean, 3),
                "microseconds_per_image": {
                    name: round(1e6 * seconds / 5 / len(images), 1)
                    for name, seconds in parts.items()
                },
            },
            default=list,
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
