"""How long one image takes on one core.  python benchmarks/latency.py checkpoint=pretrained

The exported network in ONNX Runtime, and `Predictor` on an array of the network's own size, with
all that it does besides. They take turns, an image each. Prints JSON with medians and 95th
percentiles in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch

from fer.core.hardware import find_precision
from fer.evaluation.predictor import Predictor
from fer.model.checkpoint import PRETRAINED, load_checkpoint
from fer.tasks.export import channels_first, to_onnx


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", default=PRETRAINED, help="a path, or %(default)s")
    parser.add_argument("--images", type=int, default=500, help="for each")
    options = parser.parse_args()
    checkpoint = options.checkpoint.removeprefix("checkpoint=")
    torch.set_num_threads(1)
    loaded = load_checkpoint(checkpoint)
    size, channels = loaded.network.image_size, loaded.network.in_channels
    one_core = onnxruntime.SessionOptions()
    one_core.intra_op_num_threads = one_core.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        to_onnx(loaded), one_core, providers=["CPUExecutionProvider"]
    )
    precisions = {find_precision("auto", torch.device("cpu")), "32-true"}
    predictors = {
        precision: Predictor(checkpoint, "cpu", precision=precision)
        for precision in sorted(precisions)
    }
    programs: dict[str, Callable[[np.ndarray], Any]] = {
        "onnxruntime": lambda image: session.run(None, {"images": channels_first(image[None])}),
        **{f"predictor, {name}": predictor for name, predictor in predictors.items()},
    }
    shape = (options.images, size, size, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in programs}
    with torch.inference_mode():
        for image in [*images[:20], *images]:
            for name, program in programs.items():
                started = time.perf_counter()
                program(image)
                times[name].append(1000 * (time.perf_counter() - started))
    print(
        json.dumps(
            {
                "checkpoint": str(checkpoint),
                "parameters": sum(p.numel() for p in loaded.network.parameters()),
                "input": [channels, size, size],
                "machine": {
                    "processor": platform.processor() or platform.machine(),
                    "instructions": torch.backends.cpu.get_cpu_capability(),
                    "torch": torch.__version__,
                    "onnxruntime": onnxruntime.__version__,
                },
                "milliseconds": {  # the first twenty warm up
                    name: {
                        "median": round(float(np.median(found[20:])), 2),
                        "95 %": round(float(np.percentile(found[20:], 95)), 2),
                    }
                    for name, found in times.items()
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
