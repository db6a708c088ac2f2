"""Saliency maps show what a network uses, the checks tell good maps from bad ones, regions fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from captum.attr import IntegratedGradients
from matplotlib.figure import Figure
from scipy.stats import spearmanr, ttest_1samp
from torch import nn

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import ACTION_UNITS, STYLES, UNITS
from fer.data.drawn.synthetic import Task, draw_task
from fer.data.images import decode, to_input
from fer.evaluation.attribution import (
    METHODS,
    MapOptions,
    attributions,
    blurred,
    class_activation,
    random_maps,
    saliency_maps,
)
from fer.evaluation.explanation import REPLACEMENTS, Explanation, Sanity
from fer.evaluation.inference import predict
from fer.evaluation.metrics import SplitResult
from fer.evaluation.regions import (
    PARTS,
    REGIONS,
    drawn_regions,
    expressive_regions,
    masks_of_boxes,
    region_of_unit,
    region_shares,
    standard_regions,
)
from fer.evaluation.saliency import explain
from fer.evaluation.saliency_checks import (
    areas,
    compare,
    deletion_insertion,
    faithfulness,
    randomised,
    rank_correlation,
    replacements,
)
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN
from fer.report import saliency_sections as pages
from tests.conftest import ROOT
from tests.report.test_report import Page, assert_texts_inside, figure_texts

CONF = ROOT / "conf/saliency/standard.yaml"
SIZE = 32
PATCH = (slice(8, 16), slice(16, 24))
"""Where :class:`PatchNetwork` looks: rows 8–15, columns 16–23."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from threads, and lose much on a machine that is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class LinearNetwork(nn.Module):
    """Logits that are weighted sums of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(7, SIZE, SIZE, generator=generator) / 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` to ``(N, 7)``."""
        return torch.einsum("nchw,khw->nk", x, self.weight)


class Window(nn.Module):
    """Leaves the patch and blanks the rest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        mask = torch.zeros_like(x)
        mask[:, :, PATCH[0], PATCH[1]] = 1
        return x * mask


class PatchNetwork(nn.Module):
    """Sees nothing but the patch: the brighter, the more surely it is happy."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.Sequential(nn.AvgPool2d(4), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(nn.Sequential(Window(), nn.Conv2d(1, 1, 1, bias=False)), pool)
        self.head = nn.Linear(1, 7, bias=False)
        with torch.no_grad():
            self.blocks[0][1].weight.fill_(1.0)  # type: ignore[index]
            self.head.weight.fill_(-40.0)
            self.head.weight[labels.INDEX["happy"]] = 40.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, 1, H, W)`` to ``(N, 7)``."""
        return self.head(self.blocks(x).mean(dim=(2, 3)))


def make_images(n: int, channels: int = 1, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def lit_patches(n: int) -> np.ndarray:
    """Dark noise with a bright patch, whose features a blur takes away."""
    images = make_images(n) // 8
    images[:, PATCH[0], PATCH[1]] = 255
    return images


def make_network(channels: int = 1) -> NormalisedNetwork:
    torch.manual_seed(0)
    network = NormalisedNetwork(SharedCNN([8, 16], channels, SIZE)).eval()
    network.set_normalisation([0.5] * channels, [0.25] * channels)
    return network


HAPPY = labels.INDEX["happy"]


def options(**changes: Any) -> dict[str, Any]:
    """Those of conf/saliency/standard.yaml, made small."""
    found: dict[str, Any] = yaml.safe_load(CONF.read_text(encoding="utf-8"))
    small = {
        "images_per_class": 2,
        "smoothgrad": {"samples": 3, "noise": 0.1},
        "integrated_gradients": {"steps": 4, "blur": 0.1},
        "faithfulness": {"images": 9, "steps": 4},
        "sanity": {"images": 7},
        "confusions": {"pairs": 2, "examples": 1},
    }
    assert small.keys() < found.keys()
    return {**found, **small, **changes}


# --- maps --------------------------------------------------------------------------------------


def test_gradient_and_smoothgrad_of_a_linear_network_are_its_weights() -> None:
    network = NormalisedNetwork(LinearNetwork(), SIZE, in_channels=3)
    images, targets = make_images(5, 3), np.arange(5)
    weight = network.state_dict()["network.weight"].numpy()
    for method in ("gradient", "smoothgrad"):
        found = attributions(network, images, targets, method)
        np.testing.assert_allclose(found, 3 * weight[:5], rtol=1e-5)  # a sum over three channels
        maps = saliency_maps(network, images, targets, method)
        expected = np.abs(weight[:5]) / np.abs(weight[:5]).sum(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(maps, expected, rtol=1e-4)


def test_integrated_gradients_add_up_to_the_change_of_the_logit() -> None:
    network, images, targets = make_network(), make_images(4), np.array([0, 3, 5, 6])
    found = attributions(network, images, targets, "integrated_gradients", MapOptions(steps=64))

    def logits(values: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy((values / 255).astype(np.float32)).permute(0, 3, 1, 2)
        with torch.no_grad():
            return network(tensor).numpy()[np.arange(4), targets]

    change = logits(images) - logits(blurred(images, 0.1))
    assert np.abs(change).min() > 0.01
    np.testing.assert_allclose(found.sum(axis=(1, 2)), change, rtol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_maps_lie_where_the_network_looks_and_beat_random_ones(method: str) -> None:
    network, images, targets = (
        NormalisedNetwork(PatchNetwork(), SIZE),
        lit_patches(12),
        np.full(12, HAPPY),
    )
    maps = saliency_maps(network, images, targets, method)
    assert maps.dtype == np.float32
    assert (maps >= 0).all()
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
    inside = maps[:, PATCH[0], PATCH[1]].sum(axis=(1, 2))
    # Grad-CAM is interpolated from 8 x 8 cells and reaches a little beyond the patch.
    assert inside.min() > (0.5 if method == "grad_cam" else 0.999)
    found = faithfulness(network, images, targets, {method: maps})
    assert found["verdicts"] == {method: {"deletion": "better", "insertion": "better"}}
    assert tuple(found["replacements"]) == tuple(REPLACEMENTS)


def test_random_maps_are_not_better_than_random_maps_and_misleading_ones_are_worse() -> None:
    network, images, targets = (
        NormalisedNetwork(PatchNetwork(), SIZE),
        lit_patches(24),
        np.full(24, HAPPY),
    )

    elsewhere = 1 - saliency_maps(network, images, targets, "gradient")
    maps = {"again": random_maps(images, 1), "elsewhere": elsewhere}
    found = faithfulness(network, images, targets, maps, steps=8)
    for own in found["replacements"].values():
        again: Any = own["methods"]["again"]["deletion"]["gain"]
        assert again["interval"][0] < again["mean"] < again["interval"][1]
    assert found["verdicts"]["again"]["deletion"] == "not better"
    assert found["verdicts"]["elsewhere"]["deletion"] == "worse"


def test_better_is_what_holds_under_every_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, targets = (
        NormalisedNetwork(PatchNetwork(), SIZE),
        lit_patches(12),
        np.full(12, HAPPY),
    )
    maps = {"gradient": saliency_maps(network, images, targets, "gradient")}
    nothing = {"black": np.zeros((12, 1, 1, 1), np.float32), "itself": images.astype(np.float32)}
    monkeypatch.setattr("fer.evaluation.saliency_checks.replacements", lambda _: nothing)
    found = faithfulness(network, images, targets, maps)
    verdicts = [
        found["replacements"][name]["methods"]["gradient"]["deletion"]["gain"]["verdict"]
        for name in nothing
    ]
    assert verdicts == ["better", "not better"]
    assert found["verdicts"]["gradient"]["deletion"] == "not better"


def test_no_replacement_is_where_a_method_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Integrated gradients would win by it: they say where the image differs from their start."""
    images = make_images(3)
    starts = []
    attribute = IntegratedGradients.attribute

    def spy(self: Any, x: torch.Tensor, start: torch.Tensor, *rest: Any, **named: Any) -> Any:
        starts.append(255 * start.numpy().transpose(0, 2, 3, 1))
        return attribute(self, x, start, *rest, **named)

    monkeypatch.setattr(IntegratedGradients, "attribute", spy)
    saliency_maps(make_network(), images, np.arange(3), "integrated_gradients")
    (start,) = starts
    found = replacements(images)
    assert tuple(found) == tuple(REPLACEMENTS) == ("mean", "black")
    for replacement in found.values():
        assert np.abs(start - replacement).mean() > 1  # gray levels
    np.testing.assert_allclose(found["mean"].ravel(), images.mean(axis=(1, 2, 3)), rtol=1e-5)
    assert not found["black"].any()


def test_gains_have_students_interval() -> None:
    gains = np.random.default_rng(0).normal(0.1, 0.2, 32)
    found: Any = compare(gains)
    expected = ttest_1samp(gains, 0).confidence_interval(0.95)
    np.testing.assert_allclose(found["interval"], [expected.low, expected.high])
    assert found["verdict"] == "better" and compare(-gains)["verdict"] == "worse"
    assert compare(gains - gains.mean())["verdict"] == "not better"
    assert compare(np.array([0.1])) == {"mean": 0.1, "interval": None, "verdict": None}


def test_curves_begin_and_end_with_the_image_and_what_replaces_it() -> None:
    network, images, targets = make_network(), make_images(3), np.array([1, 2, 3])
    maps = saliency_maps(network, images, targets, "gradient")
    for replacement in replacements(images).values():
        curves = deletion_insertion(network, images, targets, maps, replacement, steps=5)
        clean = predict(network, images)[np.arange(3), targets]
        np.testing.assert_allclose(curves["deletion"][:, 0], clean, rtol=1e-5)
        np.testing.assert_array_equal(curves["insertion"][:, -1], curves["deletion"][:, 0])
        np.testing.assert_array_equal(curves["insertion"][:, 0], curves["deletion"][:, -1])
        blank = np.broadcast_to(np.rint(replacement), images.shape).astype(np.uint8)
        gone = predict(network, blank)[np.arange(3), targets]
        np.testing.assert_allclose(curves["deletion"][:, -1], gone, rtol=1e-2)
        assert curves["deletion"].shape == curves["insertion"].shape == (3, 6)
    assert areas(np.array([[1, 0.5, 0], [1, 1, 1]])).tolist() == [0.5, 1]


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_the_same_in_any_batch_and_order(method: str) -> None:
    network, images, targets = make_network(3), make_images(9, 3), np.arange(9) % 7
    few = MapOptions(samples=5, steps=4)
    first = saliency_maps(network, images, targets, method, few)
    for size in (1, 2, 5, 8, 64):
        again = saliency_maps(network, images, targets, method, replace(few, batch_size=size))
        np.testing.assert_array_equal(first, again)
    turned = saliency_maps(network, images[::-1], targets[::-1], method, few)
    np.testing.assert_array_equal(first, turned[::-1])
    alone = saliency_maps(network, images[4:5], targets[4:5], method, few)
    np.testing.assert_array_equal(first[4:5], alone)


def test_noise_follows_the_seed() -> None:
    network, images, targets = make_network(), make_images(2), np.arange(2)
    first, second = (
        saliency_maps(network, images, targets, "smoothgrad", MapOptions(samples=2, seed=seed))
        for seed in (0, 1)
    )
    assert (first != second).any()


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was(method: str) -> None:
    network = make_network().train()
    predict(network, make_images(2))  # its weights moved in inference mode
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    saliency_maps(network, make_images(3), np.arange(3), method, MapOptions(samples=2, steps=2))
    assert network.training
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_map_of_nothing_is_even() -> None:
    network = NormalisedNetwork(PatchNetwork(), SIZE)
    maps = saliency_maps(network, lit_patches(2), np.zeros(2, np.int64), "grad_cam")
    np.testing.assert_allclose(maps, 1 / SIZE**2, rtol=1e-6)  # nothing speaks for anger
    assert saliency_maps(network, make_images(0), np.arange(0), "gradient").shape == (0, 32, 32)


def test_rank_correlation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 6, (5, 60)).astype(np.float32)  # with many ties
    second = first + rng.normal(0, 3, (5, 60))
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlation(first, second), expected)
    assert np.isnan(rank_correlation(np.ones((1, 4)), np.arange(4.0)[None]))[0]


def test_weights_become_random_from_the_head_downwards() -> None:
    network = make_network()
    state = network.state_dict()
    for stages, parts in (
        (1, ("network.head",)),
        (2, ("network.head", "network.blocks.1")),
        (3, ("network.head", "network.blocks")),
    ):
        other = randomised(network, stages, seed=0).state_dict()
        changed = {name for name in state if not torch.equal(state[name], other[name])}
        weights = {name for name in state if name.startswith(parts)}
        assert changed <= weights
        assert {name for name in weights if state[name].ndim > 1} <= changed
        repeated = randomised(network, stages, seed=0).state_dict()
        assert all(torch.equal(other[name], repeated[name]) for name in other)


# --- regions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48, 64, 96])
def test_standard_regions_are_exclusive_and_complete(size: int) -> None:
    masks = standard_regions(size, options()["regions"])
    assert tuple(masks) == REGIONS
    assert (np.sum(list(masks.values()), axis=0) == 1).all()
    assert all(masks[part].any() for part in PARTS)
    middle = [np.mean(np.nonzero(masks[part])[0]) for part in PARTS]
    assert middle == sorted(middle)  # from the brows down to the mouth
    assert masks["rest"][0].all()


def test_a_pixel_in_two_boxes_belongs_to_the_nearer_one() -> None:
    boxes = dict.fromkeys(PARTS, (0.0, 0.0, 0.1, 0.1))
    masks = masks_of_boxes({**boxes, "nose": (0.5, 0, 1, 0.6), "mouth": (0.5, 0.4, 1, 1)}, 10)
    assert masks["nose"][:, 7].tolist() == [True] * 5 + [False] * 5
    assert masks["mouth"][:, 7].tolist() == [False] * 5 + [True] * 5


def test_shares_of_an_even_map_are_areas() -> None:
    masks = standard_regions(48, options()["regions"])
    shares = region_shares(np.full((2, 48, 48), 1 / 48**2, np.float32), masks)
    for region, mask in masks.items():
        np.testing.assert_allclose(shares[region], mask.mean(), rtol=1e-5)
    spot = np.zeros((1, 48, 48), np.float32)
    spot[0, 38, 24] = 1
    found = region_shares(spot, masks)
    assert {region: float(share[0]) for region, share in found.items()} == {
        **dict.fromkeys(REGIONS, 0.0),
        "mouth": 1.0,
    }


@pytest.mark.parametrize("regions", [{}, {"brows": [0, 0, 1, 1]}, None])
def test_impossible_boxes_are_refused(regions: dict[str, Any] | None) -> None:
    boxes = {**options()["regions"], "eyes": [0.5, 0.1, 0.4, 0.2]} if regions is None else regions
    with pytest.raises(ConfigError, match=r"saliency\.regions"):
        standard_regions(48, boxes)


def test_every_unit_moves_a_region_and_every_emotion_but_neutral_some() -> None:
    assert {region_of_unit(unit) for unit in UNITS} == set(PARTS)
    assert expressive_regions("surprise") == ("brows", "eyes", "mouth")
    assert [e for e in ACTION_UNITS if not expressive_regions(e)] == ["neutral"]


def draw(name: str, split: str, index: int, emotion: str, size: int) -> np.ndarray:
    """The network's input, through the JPEG file that the generator writes."""
    jpeg = draw_task(Task(name, 3, split, index, emotion)).jpeg
    return to_input(decode(jpeg, name), size, 1)


@pytest.mark.parametrize(
    ("name", "split", "image_id"),
    [
        ("synthetic_a", "train", "Training_{0}"),
        ("synthetic_a", "val", "PublicTest_{0}"),
        ("synthetic_a", "test", "PrivateTest_{0}"),
        ("synthetic_b", "train", "train_{1:05d}"),
        ("synthetic_b", "val", "train_{2:05d}"),  # the numbers go on after the train images
        ("synthetic_b", "test", "test_{1:04d}"),
    ],
)
def test_drawn_regions_are_those_of_the_face_that_was_drawn(
    name: str, split: str, image_id: str
) -> None:
    generator = {"name": name, "train": 50, "val": 20, "test": 20, "seed": 3}
    indices = [5, 0]  # one image of each emotion comes first
    images = np.array([draw(name, split, i, labels.EMOTIONS[i], 64) for i in indices])
    ids = [image_id.format(i, i + 1, i + 51) for i in indices]
    found = drawn_regions(ids, images, generator)
    assert found.masks is not None, found.reason
    assert (np.sum(list(found.masks.values()), axis=0) == 1).all()
    splits = {"train": 0, "val": 1, "test": 2}
    for row, index in enumerate(indices):
        entropy = [list(STYLES).index(name), 3, splits[split], index]
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        face = draw_face(labels.EMOTIONS[index], STYLES[name], rng)
        for part in PARTS:
            x1, y1, x2, y2 = np.array(face.regions[part]) * 64 / STYLES[name].size
            y, x = np.nonzero(found.masks[part][row])
            assert x1 - 0.5 <= x.min() <= x1 + 1.5
            assert x2 - 2.5 <= x.max() <= x2
            assert y1 - 0.5 <= y.min()
            assert y.max() <= y2


def test_drawn_regions_say_why_there_are_none() -> None:
    generator = {"name": "synthetic_a", "train": 50, "val": 20, "test": 20, "seed": 3}
    image = draw("synthetic_a", "test", 0, "angry", 48)[None]
    assert drawn_regions(["PrivateTest_0"], image, generator).masks is not None
    for ids, options_, words in (
        (["PrivateTest_0"], None, "not drawn"),
        (["PrivateTest_0"], {**generator, "seed": 4}, "another face"),
        (["PrivateTest_1"], generator, "another face"),
        (["im0"], generator, "'im0'"),
    ):
        found = drawn_regions(ids, image, options_)
        assert found.masks is None
        assert words in found.reason


# --- everything together -----------------------------------------------------------------------


def make_split(missing: Sequence[str] = (), step: int = 1) -> SplitResult:
    """42 images; two of each emotion's six are taken for the next one, all of ``missing``."""
    images, target = make_images(42), np.arange(42) % 7
    wrong = (np.arange(42) >= 28) | np.isin(target, [labels.INDEX[e] for e in missing])
    probabilities = np.full((42, 7), 0.05)
    probabilities[np.arange(42), np.where(wrong, (target + 1) % 7, target)] = 0.7
    ids = [f"face {index}" for index in range(42)]
    metrics: Any = {}
    return SplitResult(metrics, images[::step], target[::step], probabilities[::step], ids[::step])


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return explain(make_network(), make_split(), options())


def test_the_summary_is_plain_and_complete(explanation: Explanation) -> None:
    summary = json.loads(json.dumps(explanation.summary, allow_nan=False))
    assert summary["images"]["per_class"] == dict.fromkeys(labels.EMOTIONS, 2)
    assert summary["images"]["explained"] == len(explanation.images) == 14
    assert summary["faithfulness"]["images"] == 9
    assert summary["sanity"]["stages"] == ["trained", "head", "block 2", "block 1"]
    assert summary["regions"]["drawn"] is None
    assert "not drawn" in summary["regions"]["why_not_drawn"]
    standard = summary["regions"]["standard"]
    assert sum(standard["area"].values()) == pytest.approx(1)
    for method in METHODS:
        assert summary["sanity"]["methods"][method]["correlation"][0] == pytest.approx(1)
        assert sum(standard["methods"][method]["happy"].values()) == pytest.approx(1)
        entry = standard["expressive"]["happy"]["methods"][method]
        area = standard["expressive"]["happy"]["area"]
        assert entry["ratio"] == pytest.approx(entry["share"] / area)
        for own in summary["faithfulness"]["replacements"].values():
            assert len(own["methods"][method]["deletion"]["curve"]) == 5
        assert set(summary["faithfulness"]["verdicts"][method]) == {"deletion", "insertion"}
    assert "neutral" not in standard["expressive"]
    assert [(c["true"], c["predicted"], c["images"]) for c in summary["confusions"]] == [
        ("angry", "disgust", 2),
        ("disgust", "fear", 2),
    ]
    assert explanation.confusions[0].maps["grad_cam"].shape == (1, 2, SIZE, SIZE)


def test_an_explanation_does_not_depend_on_the_order_of_the_images(
    explanation: Explanation,
) -> None:
    again = explain(make_network(), make_split(step=-1), options(), batch_size=7)
    assert again.summary == explanation.summary
    for method in METHODS:
        np.testing.assert_array_equal(again.maps[method], explanation.maps[method])


def test_the_cost_is_what_the_configuration_says() -> None:
    rows = [0]
    network = make_network()
    network.register_forward_hook(lambda _, __, out: rows.__setitem__(0, rows[0] + len(out)))
    explain(network, make_split(), options())
    passes = 1 + 3 + 4 + 1  # of each method per image
    maps, cascade, confused = 14 * passes, 7 * 3 * passes, 2 * 2 * passes
    curves = 2 * 5 * 9 * (2 * 4)  # steps - 1 between two ends that both share
    lone = 2 * 2 * passes  # one image is computed as two
    assert rows[0] <= maps + cascade + confused + curves + lone


def test_an_emotion_without_a_correct_image_is_left_out_with_a_note() -> None:
    found = explain(make_network(), make_split(["fear"]), options(methods=["gradient"]))
    assert any("No image of fear" in note for note in found.summary["notes"])
    assert found.summary["images"]["per_class"]["fear"] == 0
    assert "fear" not in found.summary["regions"]["standard"]["expressive"]
    json.dumps(found.summary, allow_nan=False)
    assert "fear" not in " ".join(figure_texts(pages.class_maps(found, title="t")))
    with pytest.raises(DataError, match="an image that the network recognises"):
        explain(make_network(), make_split(labels.EMOTIONS), options())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["lime"]}, "methods: expected some of"),
        ({"methods": []}, "found none"),
        ({"images_per_class": 0}, "images_per_class: expected a whole number from 1, found 0"),
        ({"smoothgrad": {"samples": 2}}, r"none unknown, smoothgrad\.noise missing"),
        ({"blur": 0.1}, "blur unknown, none missing"),
        ({"smoothgrad": {"samples": 2, "noise": 0}}, r"smoothgrad\.noise"),
        ({"integrated_gradients": {"steps": 4, "blur": 2}}, "blur: expected a share"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_options_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        explain(make_network(), make_split(), options(**changes))


def test_class_activation_maps_average_to_the_logits() -> None:
    inner: Any = SharedCNN([4, 6], image_size=SIZE)
    network = NormalisedNetwork(inner).eval()
    assert class_activation(network) == (inner.blocks[-1], inner.head)
    # Averaging over half of the place leaves the layers in place, and the maps without a meaning.
    inner.forward = lambda x: inner.head(inner.blocks(x)[..., :2].mean(dim=(2, 3)))
    assert class_activation(network) is None
    flat = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(7))
    assert class_activation(NormalisedNetwork(flat, SIZE, 1)) is None


def test_a_network_without_feature_maps_has_no_grad_cam() -> None:
    network = NormalisedNetwork(LinearNetwork(), SIZE)
    with pytest.raises(ConfigError, match="no feature maps"):
        explain(network, make_split(), options(methods=["grad_cam"]))
    found = explain(network, make_split(), options(methods=["gradient", "grad_cam"]))
    assert found.summary["methods"] == list(found.maps) == ["gradient"]
    assert any("no Grad-CAM" in note for note in found.summary["notes"])


# --- the report --------------------------------------------------------------------------------


def test_sections_have_figures_and_say_what_the_numbers_say(
    explanation: Explanation, tmp_path: Path
) -> None:
    page = Page(str(pages.saliency_section(tmp_path, explanation, "faces, val")))
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert files == [
        f"saliency_{name}.png"
        for name in (
            "class_maps",
            "confusions",
            "examples",
            "faithfulness",
            "sanity",
        )
    ]
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(set(images)) == len(files)
    assert len(page.tables) == 3
    for rows in page.tables.values():
        assert len(set(map(len, rows))) == 1
    header, *rows = page.tables["saliency-checks"]
    found = explanation.summary["faithfulness"]
    for method, row in zip(METHODS, rows, strict=False):
        areas_ = [
            f"{found['replacements'][name]['methods'][method][kind]['auc']:.3f}"
            for kind in ("deletion", "insertion")
            for name in REPLACEMENTS
        ]
        assert [cell.split(" | ")[0] for cell in row[1:5]] == areas_
        verdicts = found["verdicts"][method].values()
        assert row[5:7] == [pages.VERDICTS[word] for word in verdicts]
    assert sum("black" in column for column in header) == 2


def test_figures_say_how_many_images_and_cut_nothing_off(explanation: Explanation) -> None:
    summary = explanation.summary
    drawn: dict[str, Figure] = {
        "14 correctly": pages.class_maps(explanation, title="Faces, val"),
        "7 correctly": pages.examples(explanation, title="Faces, val"),
        "2 wrongly": pages.confusions(explanation, title="Faces, val"),
        "9 correctly": pages.faithfulness_curves(summary["faithfulness"], title="t"),
        "7 correctly recognised images · mean": pages.sanity_curves(summary["sanity"], title="t"),
    }
    for words, figure in drawn.items():
        assert any(text.startswith(words) for text in figure_texts(figure)), words
        assert_texts_inside(figure)


def test_a_correlation_that_is_not_defined_is_left_out() -> None:
    sanity: Sanity = {
        "images": 3,
        "stages": ["trained", "head"],
        "methods": {
            "gradient": {"correlation": [1.0, 0.9]},
            "grad_cam": {"correlation": [1.0, None]},
        },
    }
    assert_texts_inside(pages.sanity_curves(sanity, title="t"))
