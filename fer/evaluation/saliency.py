"""Where a network looks: saliency maps through Captum, and whether they mean something.

- plain gradient: Simonyan et al., "Deep Inside Convolutional Networks", arXiv 1312.6034;
- SmoothGrad: Smilkov et al., "SmoothGrad: removing noise by adding noise", arXiv 1706.03825;
- integrated gradients: Sundararajan et al., "Axiomatic Attribution for Deep Networks", arXiv
  1703.01365;
- Grad-CAM: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", arXiv 1610.02391;
- deletion and insertion: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of
  Black-box Models", arXiv 1806.07421;
- random weights: Adebayo et al., "Sanity Checks for Saliency Maps", arXiv 1810.03292.

Everything is computed in 32 bits and is a function of the image, its emotion and the seed: neither
the order of the images nor, but for the last bit on some devices, the batch size matters.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from scipy.stats import t as student_t
from torch import nn

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.evaluation.explanation import Confusion, Explanation
from fer.evaluation.mistakes import frequent_confusions
from fer.evaluation.regions import (
    REGIONS,
    drawn_regions,
    expressive_regions,
    region_shares,
    standard_regions,
)
from fer.model.network import NormalisedNetwork

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "grad_cam")


# --- maps --------------------------------------------------------------------------------------


def attributions(
    network: NormalisedNetwork,
    images: np.ndarray,
    targets: np.ndarray,
    method: str,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    samples: int = 16,
    noise: float = 0.1,
    steps: int = 16,
    blur: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """Signed attributions ``(N, H, W)`` float32 of the logit of an emotion, summed over channels.

    Args:
        network: gives logits ``(N, 7)`` of images ``(N, C, H, W)``, float 0–1; left as it is.
            Grad-CAM looks at its feature maps.
        images: ``(N, H, W, C)`` uint8.
        targets: ``(N,)`` int, the emotion of each image that is explained.
        method: one of :data:`METHODS`.
        device: where to compute.
        batch_size: images per pass.
        samples: noisy copies of an image (SmoothGrad).
        noise: their standard deviation, as a share of the range of values (SmoothGrad).
        steps: points of the path from the blurred image to the image (integrated gradients).
        blur: see :func:`blurred`.
        seed: of the noise, which depends on the image's content besides.

    Raises:
        ConfigError: the method is unknown, or the network has no feature maps for Grad-CAM.
        DataError: shapes or values other than these.
    """
    if method not in METHODS:
        raise ConfigError(
            f"saliency.methods: expected one of {', '.join(METHODS)}, found {method!r}."
        )
    _check_images(images, targets)
    if method == "grad_cam":
        _feature_maps(network)
    if len(images) == 0:
        return np.empty(images.shape[:3], np.float32)
    if len(images) == 1:  # see _batches
        pair = attributions(
            network,
            np.repeat(images, 2, axis=0),
            np.repeat(targets, 2, axis=0),
            method,
            device=device,
            batch_size=batch_size,
            samples=samples,
            noise=noise,
            steps=steps,
            blur=blur,
            seed=seed,
        )
        return pair[:1]
    device = torch.device(device)
    network = _own(network, device)
    pixels = images.astype(np.float32) / 255
    with torch.autocast(device.type, enabled=False):
        if method == "smoothgrad":
            return _smoothgrad(
                network, images, pixels, targets, device, batch_size, samples, noise, seed
            )
        parts = []
        # Captum lays out every step of an image in one pass.
        size = batch_size // steps if method == "integrated_gradients" else batch_size
        for batch in _batches(len(images), size):
            x, y = _tensor(pixels[batch], device).requires_grad_(), _indices(targets[batch], device)
            if method == "gradient":
                found = Saliency(network).attribute(x, y, abs=False)
            elif method == "integrated_gradients":
                start = _tensor(blurred(images[batch], blur) / 255, device)
                found = IntegratedGradients(network).attribute(x, start, y, n_steps=steps)
            else:
                cam = LayerGradCam(network, _feature_maps(network))
                coarse = cam.attribute(x, y, relu_attributions=True)
                found = nn.functional.interpolate(coarse, x.shape[2:], mode="bilinear")
            parts.append(found.detach().sum(dim=1).float().cpu().numpy())
    return np.concatenate(parts)


def saliency_maps(
    network: NormalisedNetwork, images: np.ndarray, targets: np.ndarray, method: str, **options: Any
) -> np.ndarray:
    """Maps ``(N, H, W)`` float32 of how much each pixel bears on an emotion, from 0, sum 1.

    They are the magnitudes of :func:`attributions`, which has the options and what is raised. A map
    that is zero everywhere becomes an even one.
    """
    return _normalised(np.abs(attributions(network, images, targets, method, **options)))


def _smoothgrad(
    network: NormalisedNetwork,
    images: np.ndarray,
    pixels: np.ndarray,
    targets: np.ndarray,
    device: torch.device,
    batch_size: int,
    samples: int,
    noise: float,
    seed: int,
) -> np.ndarray:
    """The mean gradient over noisy copies of each image.

    Captum's own NoiseTunnel draws from the global stream: the same image would get another noise
    in another batch.
    """
    total = np.zeros(images.shape[:3], np.float64)
    of_image = np.repeat(np.arange(len(images)), samples)
    generators: dict[int, np.random.Generator] = {}
    for batch in _batches(len(of_image), batch_size):
        rows = of_image[batch]
        noisy = pixels[rows]
        for row, index in zip(noisy, rows.tolist(), strict=True):
            if index not in generators:  # the images come one after the other
                generators[index] = _generator(images[index], seed, "noise")
            row += noise * generators[index].standard_normal(row.shape, dtype=np.float32)
        x = _tensor(noisy, device).requires_grad_()
        found = Saliency(network).attribute(x, _indices(targets[rows], device), abs=False)
        np.add.at(total, rows, found.detach().sum(dim=1).double().cpu().numpy())
    return (total / samples).astype(np.float32)


def _own(network: NormalisedNetwork, device: torch.device) -> NormalisedNetwork:
    """A copy in evaluation mode, whose weights have no gradients and take none.

    It is needed besides: weights that moved while torch was in inference mode, as in
    :func:`fer.evaluation.inference.predict`, take no part in a backward pass.
    """
    own = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last).eval()
    return own.requires_grad_(False)


def random_maps(images: np.ndarray, seed: int) -> np.ndarray:
    """Maps ``(N, H, W)`` float32 of independent random pixels, sum 1; the same for an image."""
    values = [
        _generator(image, seed, "map").random(image.shape[:2], dtype=np.float32) for image in images
    ]
    return _normalised(np.array(values, np.float32).reshape(images.shape[:3]))


def blurred(images: np.ndarray, blur: float) -> np.ndarray:
    """Images ``(N, H, W, C)`` without their features: float32 0–255.

    Args:
        images: ``(N, H, W, C)`` uint8.
        blur: standard deviation of a Gaussian, as a share of the image's side.
    """
    soft = [
        cv2.GaussianBlur(image.astype(np.float32), (0, 0), blur * image.shape[0])
        for image in images
    ]
    return np.array(soft, np.float32).reshape(images.shape)


def _generator(image: np.ndarray, seed: int, purpose: str) -> np.random.Generator:
    """The same random numbers for the same image, seed and purpose, wherever the image stands."""
    content = purpose.encode() + np.ascontiguousarray(image).tobytes()
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])


def _normalised(values: np.ndarray) -> np.ndarray:
    """Values from 0 as maps with a sum of 1, even where all are zero."""
    total = values.sum(axis=(1, 2), dtype=np.float64)[:, None, None]
    even = np.full(values.shape, 1 / max(1, math.prod(values.shape[1:])))
    return np.divide(values, total, out=even, where=total > 0).astype(np.float32)


def _batches(count: int, size: int) -> Iterator[slice]:
    """Slices of about ``size`` rows, at least two in each.

    A pass over a single row takes another path through the CPU's kernels, with another last bit.
    """
    size = max(2, size)
    starts = list(range(0, count, size))
    if count % size == 1 and len(starts) > 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        yield slice(start, end)


def _tensor(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """``(N, H, W, C)`` to ``(N, C, H, W)``, channels-last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)


def _indices(targets: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.array(targets, np.int64)).to(device)


def _feature_maps(network: NormalisedNetwork) -> nn.Module:
    layer = network.feature_maps()
    if layer is None:
        raise ConfigError(
            f"saliency.methods: expected methods without grad_cam for {network.title}, which has "
            f"no feature maps, found it. Leave it out: saliency.methods=[{', '.join(METHODS[:3])}]"
        )
    return layer


def _check_images(images: np.ndarray, targets: np.ndarray) -> None:
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        raise DataError(
            "saliency: expected images (N, H, W, 1) or (N, H, W, 3) uint8, found "
            f"{images.shape} {images.dtype}."
        )
    is_index = targets.shape == (len(images),) and np.issubdtype(targets.dtype, np.integer)
    if not is_index or not ((targets >= 0) & (targets < labels.NUM_CLASSES)).all():
        raise DataError(
            f"saliency: expected an emotion 0–{labels.NUM_CLASSES - 1} of each of {len(images)} "
            f"images, found {targets.dtype} {targets.shape}."
        )


# --- do the maps mean something? ---------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """Probability of the explained emotion while pixels go or come, the most salient first."""

    fractions: np.ndarray
    """``(S + 1,)``, share of the pixels deleted or inserted, 0–1."""
    deletion: np.ndarray
    """``(N, S + 1)``: pixels of the image become those of the blurred image."""
    insertion: np.ndarray
    """``(N, S + 1)``: pixels of the blurred image become those of the image."""

    @property
    def deletion_auc(self) -> np.ndarray:
        """Area under each image's curve, ``(N,)``, 0–1; a good map has a small one."""
        return _area(self.deletion, self.fractions)

    @property
    def insertion_auc(self) -> np.ndarray:
        """Area under each image's curve, ``(N,)``, 0–1; a good map has a large one."""
        return _area(self.insertion, self.fractions)


def _area(curves: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Trapezoidal rule."""
    means = (curves[:, 1:] + curves[:, :-1]) / 2
    return np.asarray(means @ np.diff(x))


@torch.inference_mode()
def deletion_insertion(
    network: NormalisedNetwork,
    images: np.ndarray,
    targets: np.ndarray,
    maps: np.ndarray,
    *,
    steps: int = 16,
    blur: float = 0.1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> Curves:
    """Delete and insert pixels in the order of their saliency (arXiv 1806.07421, section 4.2).

    Pixels of equal saliency go in a random order.

    Args:
        network: gives logits ``(N, 7)``; left as it is.
        images: ``(N, H, W, C)`` uint8.
        targets: ``(N,)`` int, the explained emotions.
        maps: ``(N, H, W)``.
        steps: from no pixel to all pixels.
        blur: see :func:`blurred`.
        seed: of the order of equal pixels.
        device: where to compute.
        batch_size: images per pass.

    Raises:
        DataError: the shapes do not fit.
    """
    _check_images(images, targets)
    if maps.shape != images.shape[:3]:
        raise DataError(f"saliency: expected maps {images.shape[:3]}, found {maps.shape}.")
    device = torch.device(device)
    network = _own(network, device)
    n, count = len(images), math.prod(images.shape[1:3])
    fractions = np.linspace(0, 1, steps + 1)
    ties = random_maps(images, seed).reshape(n, count)
    order = np.lexsort((ties, -maps.reshape(n, count)), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(count), order.shape), axis=1)
    ranks = ranks.reshape(*maps.shape, 1)
    soft, sharp = blurred(images, blur) / 255, images.astype(np.float32) / 255
    # Insertion ends where deletion begins, and the other way round: those are computed once.
    rows = [(i, k, False) for i in range(n) for k in range(steps + 1)]
    rows += [(i, k, True) for i in range(n) for k in range(1, steps)]
    found = np.empty(len(rows))
    for batch in _batches(len(rows), batch_size):
        mixed = np.array(
            [
                np.where((ranks[i] < round(fractions[k] * count)) == is_in, sharp[i], soft[i])
                for i, k, is_in in rows[batch]
            ]
        )
        probabilities = network(_tensor(mixed, device)).float().softmax(dim=1).cpu().numpy()
        explained = targets[[i for i, *_ in rows[batch]]]
        found[batch] = probabilities[np.arange(len(mixed)), explained]
    deletion = found[: n * (steps + 1)].reshape(n, steps + 1)
    between = found[n * (steps + 1) :].reshape(n, steps - 1)
    insertion = np.concatenate([deletion[:, -1:], between, deletion[:, :1]], axis=1)
    return Curves(fractions, deletion, insertion)


def compare(gains: np.ndarray) -> dict[str, Any]:
    """Whether the mean of paired differences is above 0.

    Args:
        gains: ``(N,)``, how much better each image fares than with its random map.

    Returns:
        ``mean``, ``interval`` (95 %, of Student's t over the images), and ``verdict``:
        ``better``, ``worse``, or ``not better`` where the interval holds 0. Fewer than two images
        have no interval and no verdict.
    """
    mean = float(gains.mean()) if len(gains) else None
    if len(gains) < 2:
        return {"mean": mean, "interval": None, "verdict": None}
    n = len(gains)
    half = float(student_t.ppf(0.975, n - 1) * gains.std(ddof=1) / math.sqrt(n))
    low, high = float(gains.mean()) - half, float(gains.mean()) + half
    verdict = "better" if low > 0 else "worse" if high < 0 else "not better"
    return {"mean": mean, "interval": [low, high], "verdict": verdict}


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation ``(N,)`` of each row of ``(N, P)`` arrays; equal values share a rank.

    NaN where a row is constant.
    """
    a, b = (np.array([_ranks(row) for row in rows]).reshape(rows.shape) for rows in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    nan = np.full(len(a), np.nan)
    return np.divide((a * b).sum(axis=1), spread, out=nan, where=spread > 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values have the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse.reshape(-1)])


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
    *,
    seed: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> dict[str, Any]:
    """How like the maps stay while weights become random from the head downwards.

    A map that shows what the network has learned changes; one that stays shows edges of the image.

    Args:
        network: trained; left as it is.
        images: ``(N, H, W, C)`` uint8.
        targets: ``(N,)`` int.
        maps: of each method, ``(N, H, W)``, of the trained network.
        seed: of the random weights.
        settings: of each method, further options of :func:`attributions`.
        device: where to compute.
        batch_size: images per pass.

    Returns:
        ``stages`` (``trained``, ``head``, ``block 4``, …) and, for each method, ``correlation``:
        the mean rank correlation over the images at each stage, None where no map has contrast.

    Raises:
        ConfigError: a method is unknown.
    """
    stages = network.stages()[::-1]
    copies = [randomised(network, k, seed) for k in range(1, len(stages) + 1)]
    found: dict[str, Any] = {"images": len(images), "stages": ["trained", *dict(stages)]}
    for method, trained in maps.items():
        means: list[float | None] = []
        own = dict((settings or {}).get(method, {}))
        for other in (None, *copies):
            again = trained
            if other is not None:
                again = saliency_maps(
                    other,
                    images,
                    targets,
                    method,
                    device=device,
                    batch_size=batch_size,
                    **own,
                )
            alike = rank_correlation(_flat(trained), _flat(again))
            alike = alike[np.isfinite(alike)]
            means.append(float(alike.mean()) if len(alike) else None)
        found.setdefault("methods", {})[method] = {"correlation": means}
    return found


def _flat(maps: np.ndarray) -> np.ndarray:
    return maps.reshape(len(maps), -1)


# --- everything about one network on one split -------------------------------------------------


def explain(
    network: NormalisedNetwork,
    images: np.ndarray,
    target: np.ndarray,
    probabilities: np.ndarray,
    ids: Sequence[str],
    *,
    methods: Sequence[str] = METHODS,
    images_per_class: int = 16,
    seed: int = 0,
    blur: float = 0.1,
    smoothgrad: Mapping[str, Any],
    integrated_gradients: Mapping[str, Any],
    faithfulness: Mapping[str, Any],
    sanity: Mapping[str, Any],
    confusions: Mapping[str, Any],
    regions: Mapping[str, Sequence[float]],
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
        methods, images_per_class, seed, blur, smoothgrad, integrated_gradients, faithfulness,
        sanity, confusions, regions: see conf/saliency/standard.yaml.
        generator: see :func:`fer.evaluation.regions.drawn_regions`.
        device: where to compute.
        batch_size: images per pass.

    Raises:
        ConfigError: an option cannot work.
        DataError: shapes do not fit, or no image was recognised.
    """
    _check_options(
        methods,
        images_per_class,
        seed,
        blur,
        smoothgrad,
        integrated_gradients,
        faithfulness,
        sanity,
        confusions,
    )
    _check_images(images, target)
    notes = []
    if "grad_cam" in methods and network.feature_maps() is None:
        methods = [method for method in methods if method != "grad_cam"]
        notes.append(f"{network.title} has no feature maps: there is no Grad-CAM of it.")
        if not methods:
            _feature_maps(network)  # says why
    masks = standard_regions(images.shape[1], regions)
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
        choose((target == index) & (preds == index), images_per_class)
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
    settings: dict[str, dict[str, Any]] = {
        "smoothgrad": {**smoothgrad, "seed": seed},
        "integrated_gradients": {**integrated_gradients, "blur": blur},
    }
    computing: dict[str, Any] = {"device": device, "batch_size": batch_size}
    maps = {
        method: saliency_maps(
            network, shown, explained, method, **settings.get(method, {}), **computing
        )
        for method in methods
    }
    for method, values in maps.items():
        empty = int((np.ptp(values, axis=(1, 2)) <= 1e-6 * values.max(axis=(1, 2))).sum())
        if empty:
            notes.append(
                f"{method} finds nothing that speaks for the emotion of {empty} of the "
                f"{len(chosen)} images: an even map stands for it."
            )
    drawn = drawn_regions([ids[index] for index in chosen], shown, generator)
    # Evenly over the emotions: the first of each, then the second of each, …
    places = np.argsort([k for indices in by_class for k in range(len(indices))], kind="stable")
    checked = places[: faithfulness["images"]]
    cascade = places[: sanity["images"]]
    mistaken = _confusions(
        network, images, target, probabilities, methods, settings, computing, confusions, choose
    )
    summary: dict[str, Any] = {
        "methods": list(methods),
        "options": {
            "images_per_class": images_per_class,
            "seed": seed,
            "blur": blur,
            "smoothgrad": dict(smoothgrad),
            "integrated_gradients": dict(integrated_gradients),
            "faithfulness": dict(faithfulness),
            "sanity": dict(sanity),
            "confusions": dict(confusions),
            "regions": {part: list(box) for part, box in regions.items()},
        },
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
        "faithfulness": _faithfulness(
            network,
            shown[checked],
            explained[checked],
            {method: maps[method][checked] for method in methods},
            steps=faithfulness["steps"],
            blur=blur,
            seed=seed,
            **computing,
        ),
        "sanity": randomisation_check(
            network,
            shown[cascade],
            explained[cascade],
            {method: maps[method][cascade] for method in methods},
            seed=seed,
            settings=settings,
            **computing,
        ),
        "confusions": [entry for entry, _ in mistaken],
    }
    return Explanation(summary, shown, explained, maps, [confusion for _, confusion in mistaken])


def _check_options(
    methods: Sequence[str],
    images_per_class: int,
    seed: int,
    blur: float,
    smoothgrad: Mapping[str, Any],
    integrated_gradients: Mapping[str, Any],
    faithfulness: Mapping[str, Any],
    sanity: Mapping[str, Any],
    confusions: Mapping[str, Any],
) -> None:
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods or len(set(methods)) < len(methods):
        raise ConfigError(
            f"saliency.methods: expected some of {', '.join(METHODS)}, each once, found "
            f"{', '.join(map(str, methods)) or 'none'}."
        )
    for key, given, expected in (
        ("smoothgrad", smoothgrad, {"samples", "noise"}),
        ("integrated_gradients", integrated_gradients, {"steps"}),
        ("faithfulness", faithfulness, {"images", "steps"}),
        ("sanity", sanity, {"images"}),
        ("confusions", confusions, {"pairs", "examples"}),
    ):
        if set(given) != expected:
            raise ConfigError(
                f"saliency.{key}: expected {', '.join(sorted(expected))}, found "
                f"{', '.join(map(str, given)) or 'nothing'}."
            )
    for key, value, least in (
        ("images_per_class", images_per_class, 1),
        ("seed", seed, 0),
        ("smoothgrad.samples", smoothgrad["samples"], 1),
        ("integrated_gradients.steps", integrated_gradients["steps"], 1),
        ("faithfulness.images", faithfulness["images"], 1),
        ("faithfulness.steps", faithfulness["steps"], 1),
        ("sanity.images", sanity["images"], 1),
        ("confusions.pairs", confusions["pairs"], 0),
        ("confusions.examples", confusions["examples"], 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(
                f"saliency.{key}: expected a whole number from {least}, found {value!r}."
            )
    for key, share in (("blur", blur), ("smoothgrad.noise", smoothgrad["noise"])):
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise ConfigError(f"saliency.{key}: expected a share above 0 to 1, found {share!r}.")


def _confusions(
    network: NormalisedNetwork,
    images: np.ndarray,
    target: np.ndarray,
    probabilities: np.ndarray,
    methods: Sequence[str],
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
                        **settings.get(method, {}),
                        **computing,
                    )
                    for emotion in (true, predicted)
                ],
                axis=1,
            )
            for method in methods
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


def _faithfulness(
    network: NormalisedNetwork,
    images: np.ndarray,
    targets: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    seed: int,
    **options: Any,
) -> dict[str, Any]:
    """Deletion and insertion of each method's maps against random maps."""

    def curves_of(values: np.ndarray) -> Curves:
        return deletion_insertion(network, images, targets, values, seed=seed, **options)

    by_chance = curves_of(random_maps(images, seed))
    found: dict[str, Any] = {
        "images": len(images),
        "fractions": by_chance.fractions.tolist(),
        "random": {
            "deletion": _curve(by_chance.deletion, by_chance.deletion_auc),
            "insertion": _curve(by_chance.insertion, by_chance.insertion_auc),
        },
        "methods": {},
    }
    for method, values in maps.items():
        curves = curves_of(values)
        # Positive: better than random. A good deletion curve lies low, a good insertion curve high.
        falls = by_chance.deletion_auc - curves.deletion_auc
        rises = curves.insertion_auc - by_chance.insertion_auc
        found["methods"][method] = {
            "deletion": {
                **_curve(curves.deletion, curves.deletion_auc),
                "gain": compare(falls),
            },
            "insertion": {
                **_curve(curves.insertion, curves.insertion_auc),
                "gain": compare(rises),
            },
        }
    return found


def _curve(curves: np.ndarray, areas: np.ndarray) -> dict[str, Any]:
    return {"curve": curves.mean(axis=0).tolist(), "auc": float(areas.mean())}
