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
from fer.evaluation.attribution import METHODS, check_images, feature_maps_of, saliency_maps
from fer.evaluation.explanation import Confusion, Explanation
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

LEAST = {
    "images_per_class": 1,
    "seed": 0,
    "smoothgrad.samples": 1,
    "integrated_gradients.steps": 1,
    "faithfulness.images": 1,
    "faithfulness.steps": 1,
    "sanity.images": 1,
    "confusions.pairs": 0,
    "confusions.examples": 1,
}
"""The options that are whole numbers, and the least of each."""
SHARES = ("smoothgrad.noise", "integrated_gradients.blur")


def explain(
    network: NormalisedNetwork,
    images: np.ndarray,
    target: np.ndarray,
    probabilities: np.ndarray,
    ids: Sequence[str],
    options: Mapping[str, Any],
    *,
    generator: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> Explanation:
    """Explain a network's predictions on one split.

    Which images are looked at depends on their ids and the seed, not on their order.

    Args:
        network: left as it is.
        images: ``(N, H, W, C)`` uint8, H = W, the network's input.
        target: ``(N,)`` int64.
        probabilities: ``(N, 7)``, what the network says of the images.
        ids: of the images, unique.
        options: those of conf/saliency/standard.yaml.
        generator: see :func:`fer.evaluation.regions.drawn_regions`.
        device: where to compute.
        batch_size: images per pass.

    Raises:
        ConfigError: an option cannot work.
        DataError: shapes do not fit, or no image was recognised.
    """
    _check_options(options)
    check_images(images, target)
    methods, seed, notes = options["methods"], options["seed"], []
    if "grad_cam" in methods and network.feature_maps() is None:
        methods = [method for method in methods if method != "grad_cam"]
        notes.append(f"{network.title} has no feature maps: there is no Grad-CAM of it.")
        if not methods:
            feature_maps_of(network)  # says why
    masks = standard_regions(images.shape[1], options["regions"])
    if probabilities.shape != (len(images), labels.NUM_CLASSES) or len(ids) != len(images):
        raise DataError(
            f"saliency: expected probabilities ({len(images)}, {labels.NUM_CLASSES}) and as many "
            f"ids, found {probabilities.shape} and {len(ids)} ids."
        )
    preds = probabilities.argmax(axis=1)
    rank = {
        name: hashlib.sha256(f"{seed}:{name}".encode("utf-8", "replace")).hexdigest()
        for name in ids
    }

    def choose(mask: np.ndarray, most: int) -> list[int]:
        return sorted(np.flatnonzero(mask).tolist(), key=lambda i: rank[ids[i]])[:most]

    by_class = [
        choose((target == index) & (preds == index), options["images_per_class"])
        for index in range(labels.NUM_CLASSES)
    ]
    chosen = [index for indices in by_class for index in indices]
    if not chosen:
        raise DataError(
            f"saliency: expected an image that the network recognises, found none among "
            f"{len(images)}. Maps of wrong answers alone say little; train it for longer."
        )
    notes += [
        f"No image of {emotion} was recognised: there is no map of it."
        for emotion, indices in zip(labels.EMOTIONS, by_class, strict=True)
        if not indices
    ]
    shown, explained = images[chosen], target[chosen]
    settings = {method: dict(options.get(method, {})) for method in methods}
    if "smoothgrad" in settings:
        settings["smoothgrad"]["seed"] = seed
    computing: dict[str, Any] = {"device": device, "batch_size": batch_size}
    maps = {
        method: saliency_maps(network, shown, explained, method, **own, **computing)
        for method, own in settings.items()
    }
    notes += _empty_maps(maps)
    drawn = drawn_regions([ids[index] for index in chosen], shown, generator)
    # Evenly over the emotions: the first of each, then the second of each, …
    places = np.argsort([k for indices in by_class for k in range(len(indices))], kind="stable")
    checked = places[: options["faithfulness"]["images"]]
    cascade = places[: options["sanity"]["images"]]
    mistaken = _confusions(
        network, images, target, probabilities, settings, computing, options["confusions"], choose
    )
    summary: dict[str, Any] = {
        "methods": list(methods),
        "options": dict(options),
        "images": {
            "explained": len(chosen),
            "per_class": {
                emotion: len(indices)
                for emotion, indices in zip(labels.EMOTIONS, by_class, strict=True)
            },
            "ids": [ids[index] for index in chosen],
        },
        "notes": notes,
        "regions": {
            "standard": _region_report(maps, explained, masks),
            "drawn": None if drawn.masks is None else _region_report(maps, explained, drawn.masks),
            "why_not_drawn": drawn.reason or None,
        },
        "faithfulness": faithfulness(
            network,
            shown[checked],
            explained[checked],
            {method: values[checked] for method, values in maps.items()},
            steps=options["faithfulness"]["steps"],
            seed=seed,
            **computing,
        ),
        "sanity": randomisation_check(
            network,
            shown[cascade],
            explained[cascade],
            {method: values[cascade] for method, values in maps.items()},
            seed=seed,
            settings=settings,
            **computing,
        ),
        "confusions": [entry for entry, _ in mistaken],
    }
    return Explanation(summary, shown, explained, maps, [confusion for _, confusion in mistaken])


def _check_options(options: Mapping[str, Any]) -> None:
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
    expected = {"methods", "regions", *LEAST, *SHARES}
    if given.keys() != expected:
        raise ConfigError(
            "saliency: expected the options of conf/saliency/standard.yaml, found others: "
            f"{', '.join(sorted(given.keys() - expected)) or 'none'} unknown, "
            f"{', '.join(sorted(expected - given.keys())) or 'none'} missing."
        )
    for key, least in LEAST.items():
        value = given[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"saliency.{key}: expected a whole number from {least}, found {value!r}."
            )
    for key in SHARES:
        share = given[key]
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise ConfigError(f"saliency.{key}: expected a share above 0 to 1, found {share!r}.")


def _empty_maps(maps: Mapping[str, np.ndarray]) -> list[str]:
    """A note on each method of which some maps are even."""
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
    images: np.ndarray,
    target: np.ndarray,
    probabilities: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    computing: Mapping[str, Any],
    options: Mapping[str, Any],
    choose: Any,
) -> list[tuple[dict[str, Any], Confusion]]:
    """The most frequent confusions, each as plain data and with its images and maps."""
    preds = probabilities.argmax(axis=1)
    found = []
    for pair in frequent_confusions(target, probabilities, options["pairs"]):
        true, predicted = labels.INDEX[pair.true], labels.INDEX[pair.predicted]
        rows = choose((target == true) & (preds == predicted), options["examples"])
        shown = images[rows]
        maps = {
            method: np.stack(
                [
                    saliency_maps(
                        network,
                        shown,
                        np.full(len(rows), emotion),
                        method,
                        **own,
                        **computing,
                    )
                    for emotion in (true, predicted)
                ],
                axis=1,
            )
            for method, own in settings.items()
        }
        entry = {
            "true": pair.true,
            "predicted": pair.predicted,
            "images": len(pair.rows),
            "share_of_true": pair.share,
            "examples": [
                {
                    "probability_true": float(probabilities[row, true]),
                    "probability_predicted": float(probabilities[row, predicted]),
                }
                for row in rows
            ],
        }
        found.append(
            (entry, Confusion(pair.true, pair.predicted, shown, probabilities[rows], maps))
        )
    return found


def _region_report(
    maps: Mapping[str, np.ndarray], target: np.ndarray, masks: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Shares of saliency and of area by region, of all images and of each emotion's.

    ``all`` is the mean over the images; ``expressive`` the regions that the emotion moves, and
    ``ratio`` their share of saliency by their share of the area: 1 for an even map.
    """
    shape = next(iter(maps.values())).shape
    even = np.full(shape, 1 / math.prod(shape[1:]))
    areas = region_shares(even, masks)
    emotions = [e for i, e in enumerate(labels.EMOTIONS) if (target == i).any()]
    inside = {emotion: target == labels.INDEX[emotion] for emotion in emotions}
    report: dict[str, Any] = {
        "area": {region: float(areas[region].mean()) for region in REGIONS},
        "methods": {},
        "expressive": {},
    }
    shares = {method: region_shares(values, masks) for method, values in maps.items()}
    for method, found in shares.items():
        report["methods"][method] = {
            "all": {region: float(found[region].mean()) for region in REGIONS},
            **{
                emotion: {region: float(found[region][mask].mean()) for region in REGIONS}
                for emotion, mask in inside.items()
            },
        }
    for emotion, mask in inside.items():
        moved = expressive_regions(emotion)
        if not moved:
            continue
        area = float(sum(areas[region][mask].mean() for region in moved))
        entry: dict[str, Any] = {"regions": list(moved), "images": int(mask.sum()), "area": area}
        entry["methods"] = {}
        for method, found in shares.items():
            share = float(sum(found[region][mask].mean() for region in moved))
            ratio = share / area if area > 0 else None
            entry["methods"][method] = {"share": share, "ratio": ratio}
        report["expressive"][emotion] = entry
    return report
