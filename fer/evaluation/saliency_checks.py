"""Checks of saliency maps: deletion and insertion, and networks with random weights.

- deletion and insertion: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of
  Black-box Models", arXiv 1806.07421;
- random weights: Adebayo et al., "Sanity Checks for Saliency Maps", arXiv 1810.03292.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import numpy as np
import torch
from scipy.integrate import trapezoid
from scipy.stats import rankdata, t
from torch import nn

from fer.evaluation.attribution import (
    DEFAULTS,
    MapOptions,
    batches,
    own_copy,
    random_maps,
    saliency_maps,
    to_tensor,
)
from fer.evaluation.explanation import Curve, Faithfulness, Gain, Replaced, Sanity
from fer.model.network import NormalisedNetwork


def replacements(images: np.ndarray) -> dict[str, np.ndarray]:
    """Values that replace deleted pixels of ``(N, H, W, C)`` uint8: ``(N, 1, 1, C)`` float32 0–255.

    A replacement rewards the maps that were made with it: integrated gradients, which begin at the
    blurred image, win when pixels are blurred. Neither of :data:`.explanation.REPLACEMENTS` is any
    method's starting point, and what holds under both is owed to neither.
    """
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return {"mean": mean, "black": np.zeros_like(mean)}


@torch.inference_mode()
def deletion_insertion(
    network: NormalisedNetwork,
    images: np.ndarray,
    targets: np.ndarray,
    maps: np.ndarray,
    replacement: np.ndarray,
    options: MapOptions = DEFAULTS,
    steps: int = 16,
) -> dict[str, np.ndarray]:
    """Delete and insert pixels in the order of their saliency (arXiv 1806.07421, section 4.2).

    Args:
        network: left as it is.
        images: ``(N, H, W, C)`` uint8.
        targets: ``(N,)`` int, the explained emotions.
        maps: ``(N, H, W)``.
        replacement: what deleted pixels become, one of :func:`replacements`.
        options: device, batch size, and the seed of the order of equally salient pixels.
        steps: from no pixel to all pixels.

    Returns:
        ``deletion`` (from the image to its replacement) and ``insertion`` (the way back), each
        ``(N, steps + 1)``: the probability of the explained emotion after each step.
    """
    device = torch.device(options.device)
    network = own_copy(network, device)
    n, count = len(images), math.prod(images.shape[1:3])
    ties = random_maps(images, options.seed).reshape(n, count)
    order = np.lexsort((ties, -maps.reshape(n, count)), axis=1)
    ranks = np.argsort(order, axis=1).reshape(*maps.shape, 1)
    without, sharp = replacement / np.float32(255), images.astype(np.float32) / 255
    # Insertion ends where deletion begins, and the other way round: those are computed once.
    rows = [(i, k, False) for i in range(n) for k in range(steps + 1)]
    rows += [(i, k, True) for i in range(n) for k in range(1, steps)]
    found = np.empty(len(rows))
    for batch in batches(len(rows), options.batch_size):
        mixed = np.array(
            [
                np.where((ranks[i] < round(k / steps * count)) == is_in, sharp[i], without[i])
                for i, k, is_in in rows[batch]
            ]
        )
        probabilities = network(to_tensor(mixed, device)).float().softmax(dim=1).cpu().numpy()
        explained = targets[[i for i, *_ in rows[batch]]]
        found[batch] = probabilities[np.arange(len(mixed)), explained]
    deletion = found[: n * (steps + 1)].reshape(n, steps + 1)
    between = found[n * (steps + 1) :].reshape(n, steps - 1)
    insertion = np.concatenate([deletion[:, -1:], between, deletion[:, :1]], axis=1)
    return {"deletion": deletion, "insertion": insertion}


def areas(curves: np.ndarray) -> np.ndarray:
    """Area ``(N,)``, 0–1, under each curve ``(N, steps + 1)`` over the share of the pixels.

    A good map has a small one by deletion and a large one by insertion.
    """
    return np.asarray(trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1))


def compare(gains: np.ndarray) -> Gain:
    """Test whether the mean of ``gains`` ``(N,)`` over the random maps is above 0.

    Returns:
        ``mean``, ``interval`` (95 %, Student's t over the images), and ``verdict``: ``better``,
        ``worse``, or ``not better`` where the interval holds 0. Fewer than two images have no
        interval and no verdict.
    """
    n = len(gains)
    mean = float(gains.mean())
    if n < 2:
        return {"mean": mean, "interval": None, "verdict": None}
    margin = float(t.ppf(0.975, n - 1) * gains.std(ddof=1) / math.sqrt(n))
    verdict = "better" if mean > margin else "worse" if mean < -margin else "not better"
    return {"mean": mean, "interval": [mean - margin, mean + margin], "verdict": verdict}


def faithfulness(
    network: NormalisedNetwork,
    images: np.ndarray,
    targets: np.ndarray,
    maps: Mapping[str, np.ndarray],
    options: MapOptions = DEFAULTS,
    steps: int = 16,
) -> Faithfulness:
    """Delete and insert by each method's maps and by random maps.

    The arguments are those of :func:`deletion_insertion`, with the maps of each method.

    Returns:
        The mean curves with their areas, for each method with its gain over the random map of the
        same image; a verdict holds under every replacement, else it is ``not better``.
    """
    by_chance = random_maps(images, options.seed)
    found: dict[str, Replaced] = {}
    verdicts: dict[str, dict[str, set[str | None]]] = {
        method: {"deletion": set(), "insertion": set()} for method in maps
    }
    for name, fill in replacements(images).items():
        chance = deletion_insertion(network, images, targets, by_chance, fill, options, steps)
        own: Replaced = {"random": _describe(chance), "methods": {}}
        for method, values in maps.items():
            curves = deletion_insertion(network, images, targets, values, fill, options, steps)
            own["methods"][method] = _describe(curves)
            for kind, sign in (("deletion", -1), ("insertion", 1)):
                gain = compare(sign * (areas(curves[kind]) - areas(chance[kind])))
                own["methods"][method][kind]["gain"] = gain
                verdicts[method][kind].add(gain["verdict"])
        found[name] = own
    agreed = {
        method: {kind: own.pop() if len(own) == 1 else "not better" for kind, own in kinds.items()}
        for method, kinds in verdicts.items()
    }
    return {"images": len(images), "replacements": found, "verdicts": agreed}


def _describe(curves: Mapping[str, np.ndarray]) -> dict[str, Curve]:
    return {
        kind: {"curve": values.mean(axis=0).tolist(), "auc": float(areas(values).mean())}
        for kind, values in curves.items()
    }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation ``(N,)`` of each row of ``(N, P)`` arrays; NaN for a constant row."""
    a, b = (rankdata(rows, axis=1) for rows in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    nan = np.full(len(a), np.nan)
    return np.divide((a * b).sum(axis=1), spread, out=nan, where=spread > 0)


def randomised(network: NormalisedNetwork, stages: int, seed: int) -> NormalisedNetwork:
    """A copy whose last ``stages`` parts (head, last block, …) have random weights.

    The weights of a part do not depend on how many parts are random.
    """
    other = copy.deepcopy(network).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _, part in reversed(other.stages()[-stages:]):
            for module in part.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
                else:  # weights that a layer of somebody's own holds
                    for parameter in module.parameters(recurse=False):
                        nn.init.normal_(parameter, std=float(parameter.detach().std(correction=0)))
                if isinstance(module, nn.Conv2d):  # as SharedCNN begins
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return other


def randomisation_check(
    network: NormalisedNetwork,
    images: np.ndarray,
    targets: np.ndarray,
    maps: Mapping[str, np.ndarray],
    options: MapOptions = DEFAULTS,
) -> Sanity:
    """Compare the maps with those of networks whose weights are random from the head downwards.

    A map that shows what the network has learned changes; one that stays shows edges of the image.
    The arguments are those of :func:`faithfulness`; the seed is also that of the random weights.
    """
    stages = network.stages()[::-1]
    copies = [randomised(network, k, options.seed) for k in range(1, len(stages) + 1)]
    methods: dict[str, dict[str, list[float | None]]] = {}
    for method, trained in maps.items():
        means: list[float | None] = []
        for other in (None, *copies):
            again = trained
            if other is not None:
                again = saliency_maps(other, images, targets, method, options)
            alike = rank_correlation(*(own.reshape(len(own), -1) for own in (trained, again)))
            alike = alike[np.isfinite(alike)]
            means.append(float(alike.mean()) if len(alike) else None)
        methods[method] = {"correlation": means}
    return {"images": len(images), "stages": ["trained", *dict(stages)], "methods": methods}
