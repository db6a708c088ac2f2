"""Where a network looks: saliency maps of one split, and whether they mean something."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.options import Check, check_value, number, whole
from fer.evaluation.attribution import METHODS, MapOptions, saliency_maps
from fer.evaluation.explanation import (
    ConfusionMaps,
    ConfusionReport,
    Explanation,
    RegionReport,
    Saliency,
)
from fer.evaluation.metrics import SplitResult
from fer.evaluation.mistakes import frequent_confusions
from fer.evaluation.regions import (
    REGIONS,
    drawn_regions,
    expressive_regions,
    region_shares,
    standard_regions,
)
from fer.evaluation.saliency_checks import faithfulness, randomisation_check
from fer.model.network import NormalisedNetwork

SHARE = number("a share above 0 to 1", lambda value: 0 < value <= 1)
NUMBERS: dict[str, Check] = {
    "images_per_class": whole(1),
    "seed": whole(0),
    "smoothgrad.samples": whole(1),
    "smoothgrad.noise": SHARE,
    "integrated_gradients.steps": whole(1),
    "integrated_gradients.blur": SHARE,
    "faithfulness.images": whole(1),
    "faithfulness.steps": whole(1),
    "sanity.images": whole(1),
    "confusions.pairs": whole(0),
    "confusions.examples": whole(1),
}
"""Options of conf/saliency/standard.yaml; ``methods`` and ``regions`` come on top."""


def explain(
    network: NormalisedNetwork,
    result: SplitResult,
    options: Mapping[str, Any],
    *,
    generator: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> Explanation:
    """Explain a network's predictions on one split.

    Which images are chosen depends on their ids and the seed, not on their order.

    Args:
        network: left as it is.
        result: the network's answers.
        options: those of conf/saliency/standard.yaml.
        generator: see :func:`fer.evaluation.regions.drawn_regions`.
        device: where to compute, ``batch_size`` images at a time.

    Raises:
        ConfigError: an option cannot work.
        DataError: no image was recognised.
    """
    check_options(options)
    how = map_options(options, device, batch_size)
    masks = standard_regions(result.images.shape[1], options["regions"])
    methods, notes = list(options["methods"]), []
    if len(methods) > 1 and "grad_cam" in methods and network.feature_maps() is None:
        methods.remove("grad_cam")
        notes.append(f"{network.title} has no feature maps: there is no Grad-CAM of it.")
    order = _shuffled(result.ids, how.seed)
    by_class = _recognised(result, order, options["images_per_class"])
    chosen = np.concatenate(by_class)
    notes += [
        f"No image of {emotion} was recognised: there is no map of it."
        for emotion, indices in zip(labels.EMOTIONS, by_class, strict=True)
        if not len(indices)
    ]
    images, target = result.images[chosen], result.target[chosen]
    maps = {method: saliency_maps(network, images, target, method, how) for method in methods}
    notes += _empty_maps(maps)
    ids = [result.ids[index] for index in chosen]
    drawn = drawn_regions(ids, images, generator)
    confusions = _confusions(network, result, order, methods, options["confusions"], how)
    # Evenly over the emotions: the first of each, then the second of each, …
    evenly = np.argsort([k for indices in by_class for k in range(len(indices))], kind="stable")

    def first(count: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        rows = evenly[:count]
        return images[rows], target[rows], {method: own[rows] for method, own in maps.items()}

    counts = dict(zip(labels.EMOTIONS, map(len, by_class), strict=True))
    belief = options["faithfulness"]
    summary: Saliency = {
        "methods": methods,
        "options": dict(options),
        "images": {"explained": len(chosen), "per_class": counts, "ids": ids},
        "notes": notes,
        "regions": {
            "standard": _region_report(maps, target, masks),
            "drawn": None if drawn.masks is None else _region_report(maps, target, drawn.masks),
            "why_not_drawn": drawn.reason or None,
        },
        "faithfulness": faithfulness(network, *first(belief["images"]), how, belief["steps"]),
        "sanity": randomisation_check(network, *first(options["sanity"]["images"]), how),
        "confusions": [entry for entry, _ in confusions],
    }
    return Explanation(summary, images, target, maps, [own for _, own in confusions])


def map_options(
    options: Mapping[str, Any], device: torch.device | str, batch_size: int = 32
) -> MapOptions:
    """Options of the maps, from those of conf/saliency/standard.yaml."""
    return MapOptions(
        **options["smoothgrad"],
        **options["integrated_gradients"],
        seed=options["seed"],
        device=device,
        batch_size=batch_size,
    )


def check_options(options: Mapping[str, Any]) -> None:
    """Check the options but for the regions.

    Raises:
        ConfigError: one is missing, unknown, or cannot work.
    """
    methods = options["methods"]
    if not set(methods) <= set(METHODS) or not methods or len(set(methods)) < len(methods):
        raise ConfigError(
            f"saliency.methods: expected some of {', '.join(METHODS)}, each once, found "
            f"{', '.join(map(str, methods)) or 'none'}."
        )
    given: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping) and key != "regions":
            given |= {f"{key}.{name}": own for name, own in value.items()}
        else:
            given[key] = value
    expected = {"methods", "regions", *NUMBERS}
    if given.keys() != expected:
        raise ConfigError(
            "saliency: expected the options of conf/saliency/standard.yaml, found others: "
            f"{', '.join(sorted(given.keys() - expected)) or 'none'} unknown, "
            f"{', '.join(sorted(expected - given.keys())) or 'none'} missing."
        )
    for key, rule in NUMBERS.items():
        check_value(f"saliency.{key}", given[key], rule)


def _shuffled(ids: Sequence[str], seed: int) -> np.ndarray:
    """Indices of the images in an order that their ids and the seed decide."""

    def rank(index: int) -> str:
        return hashlib.sha256(f"{seed}:{ids[index]}".encode("utf-8", "replace")).hexdigest()

    return np.array(sorted(range(len(ids)), key=rank), np.int64)


def _recognised(result: SplitResult, order: np.ndarray, most: int) -> list[np.ndarray]:
    """Indices of each emotion's correctly recognised images, the first ``most`` in ``order``."""
    hits = order[(result.target == result.preds)[order]]
    if not len(hits):
        raise DataError(
            f"saliency: expected an image that the network recognises, found none among "
            f"{len(order)}. Maps of wrong answers alone say little; train it for longer."
        )
    return [hits[result.target[hits] == index][:most] for index in range(labels.NUM_CLASSES)]


def _empty_maps(maps: Mapping[str, np.ndarray]) -> list[str]:
    """A note on each method that gives even maps for some images."""
    notes = []
    for method, values in maps.items():
        empty = int((np.ptp(values, axis=(1, 2)) <= 1e-6 * values.max(axis=(1, 2))).sum())
        if empty:
            notes.append(
                f"{method} finds nothing that speaks for the emotion of {empty} of the "
                f"{len(values)} images: an even map stands for it."
            )
    return notes


def _confusions(
    network: NormalisedNetwork,
    result: SplitResult,
    order: np.ndarray,
    methods: Sequence[str],
    options: Mapping[str, int],
    how: MapOptions,
) -> list[tuple[ConfusionReport, ConfusionMaps]]:
    """The most frequent confusions, each as plain data and with its images and maps."""
    found = []
    for pair in frequent_confusions(result.target, result.probabilities, options["pairs"]):
        both = true, predicted = labels.INDEX[pair.true], labels.INDEX[pair.predicted]
        rows = order[np.isin(order, pair.rows)][: options["examples"]]
        shown, probabilities = result.images[rows], result.probabilities[rows]
        maps = {
            method: np.stack(
                [
                    saliency_maps(network, shown, np.full(len(rows), emotion), method, how)
                    for emotion in both
                ],
                axis=1,
            )
            for method in methods
        }
        entry: ConfusionReport = {
            "true": pair.true,
            "predicted": pair.predicted,
            "images": len(pair.rows),
            "share_of_true": pair.share,
            "examples": [
                {"probability_true": float(p[true]), "probability_predicted": float(p[predicted])}
                for p in probabilities
            ],
        }
        found.append((entry, ConfusionMaps(pair.true, pair.predicted, shown, probabilities, maps)))
    return found


def _region_report(
    maps: Mapping[str, np.ndarray], target: np.ndarray, masks: Mapping[str, np.ndarray]
) -> RegionReport:
    """Shares of saliency and of area by region, over all images and over each emotion's."""
    shape = next(iter(maps.values())).shape
    areas = region_shares(np.full(shape, 1 / math.prod(shape[1:])), masks)
    shares = {method: region_shares(values, masks) for method, values in maps.items()}
    inside = {emotion: target == index for index, emotion in enumerate(labels.EMOTIONS)}
    inside = {emotion: own for emotion, own in inside.items() if own.any()}

    def means(values: Mapping[str, np.ndarray], own: np.ndarray) -> dict[str, float]:
        return {region: float(values[region][own].mean()) for region in REGIONS}

    everyone = {"all": np.ones(len(target), bool), **inside}
    report: RegionReport = {
        "area": means(areas, everyone["all"]),
        "methods": {
            method: {name: means(found, own) for name, own in everyone.items()}
            for method, found in shares.items()
        },
        "expressive": {},
    }
    for emotion, own in inside.items():
        moved = expressive_regions(emotion)
        if not moved:
            continue
        area = float(sum(areas[region][own].mean() for region in moved))
        methods: dict[str, dict[str, float | None]] = {}
        for method, found in shares.items():
            share = float(sum(found[region][own].mean() for region in moved))
            methods[method] = {"share": share, "ratio": share / area if area > 0 else None}
        report["expressive"][emotion] = {
            "regions": list(moved),
            "images": int(own.sum()),
            "area": area,
            "methods": methods,
        }
    return report
