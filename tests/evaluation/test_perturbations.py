"""Damage is a pure function of image, parameters, seed and sample id, and grows with severity."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fer.core.composition import config_folder
from fer.core.errors import ConfigError
from fer.evaluation import perturbations as p
from fer.evaluation.robustness import (
    Robustness,
    _beside_published,
    _mean_interval,
    columns,
    measure_robustness,
)
from fer.report.evaluation_sections import settings_table
from fer.tasks.evaluate import fit_input
from fer.tasks.notes import notes_on_published
from tests.conftest import fragment

SINGLE = sorted(
    path.stem
    for path in (config_folder() / "perturbation").glob("*.yaml")
    if path.stem not in ("stress", "stress_all", "published")
)


def load(name: str) -> p.Function:
    module, _, function = name.rpartition(".")
    found: p.Function = getattr(importlib.import_module(module), function)
    return found


def configured(name: str) -> dict[str, Any]:
    content = yaml.safe_load((config_folder() / "perturbation" / f"{name}.yaml").read_text())
    content.pop("defaults", None)
    assert isinstance(content, dict)
    return content


def settings_of(name: str) -> list[p.Setting]:
    return p.make_settings(configured(name), None, load)


def faces(n: int = 12, size: int = 48, channels: int = 1) -> np.ndarray:
    """Smooth pictures with edges, uint8."""
    rng = np.random.default_rng(0)
    images = np.empty((n, size, size, channels), np.uint8)
    for index in range(n):
        coarse = rng.uniform(30, 220, (6, 6, channels)).astype(np.float32)
        images[index] = cv2.resize(coarse, (size, size)).reshape(size, size, channels)
        cv2.circle(images[index], (size // 3, size // 2), size // 8, (250,) * channels, -1)
    return images


IDS = [f"image_{index}" for index in range(12)]


def damage(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(before.astype(np.float64) - after).mean())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SINGLE)
def test_each_severity_is_stronger_than_the_one_before(name: str, channels: int) -> None:
    images = faces(channels=channels)
    original = images.copy()
    amounts = []
    for setting in settings_of(name):
        damaged = setting(images, IDS, 0)
        assert damaged.shape == images.shape and damaged.dtype == np.uint8
        amounts.append(damage(images, damaged))
    assert len(amounts) == 5
    assert amounts[0] > 0 and all(a < b for a, b in itertools.pairwise(amounts))
    np.testing.assert_array_equal(images, original)


@pytest.mark.parametrize("name", [*SINGLE, "published"])
def test_an_image_is_damaged_alike_in_any_company(name: str) -> None:
    images = faces()
    order = np.random.default_rng(1).permutation(len(images))
    for setting in settings_of(name):
        whole = setting(images, IDS, 0)
        shuffled = setting(images[order], [IDS[i] for i in order], 0)
        np.testing.assert_array_equal(shuffled, whole[order])
        alone = setting(images[3:4], IDS[3:4], 0)
        np.testing.assert_array_equal(alone[0], whole[3])
        np.testing.assert_array_equal(setting(images, IDS, 0), whole)


RANDOM = ["occlusion", "low_light", "noise", "motion_blur", "rotation", "shift"]


@pytest.mark.parametrize("name", RANDOM)
def test_seed_and_id_decide_what_is_random(name: str) -> None:
    images = np.repeat(faces(1), 12, axis=0)
    setting = settings_of(name)[-1]
    first = setting(images, IDS, 0)
    assert len({image.tobytes() for image in first}) > 1  # one picture, several ids
    assert not np.array_equal(first, setting(images, IDS, 1))


@pytest.mark.parametrize("name", sorted(set(SINGLE) - set(RANDOM)))
def test_what_is_not_random_ignores_seed_and_id(name: str) -> None:
    images = np.repeat(faces(1), 12, axis=0)
    for setting in settings_of(name):
        assert len({image.tobytes() for image in setting(images, IDS, 5)}) == 1


def test_a_larger_patch_covers_the_smaller_one_and_stays_inside() -> None:
    images = np.full((200, 48, 48, 1), 200, np.uint8)
    ids = [str(index) for index in range(200)]
    covered = [setting(images, ids, 0)[..., 0] == 0 for setting in settings_of("occlusion")]
    for setting, mask in zip(settings_of("occlusion"), covered, strict=True):
        side = round(48 * setting.parameters["size"])
        assert (mask.sum(axis=(1, 2)) == side * side).all()
    for smaller, larger in itertools.pairwise(covered):
        assert (larger | ~smaller).all()
    # Places are spread over the image.
    assert covered[0].any(axis=0).mean() > 0.8


def test_low_light_has_the_mean_and_the_noise_of_counted_photons() -> None:
    images = np.full((400, 8, 8, 1), 180, np.uint8)
    ids = [str(index) for index in range(400)]
    dimmed = p.low_light(images, p.Draws("low_light", ids, 0), gain=0.2, photons=1000)
    light = 1000 * (dimmed / 255) ** p.GAMMA  # back to photons
    expected = 0.2 * 1000 * (180 / 255) ** p.GAMMA
    assert light.mean() == pytest.approx(expected, rel=0.01)
    assert light.var() == pytest.approx(expected, rel=0.1)  # Poisson: as large as the mean
    assert p.low_light(np.zeros_like(images), p.Draws("x", ids, 0), gain=1, photons=99).max() == 0


def test_noise_has_the_deviation_that_it_is_given() -> None:
    images = np.full((50, 48, 48, 1), 128, np.uint8)
    ids = [str(index) for index in range(50)]
    noisy = p.gaussian_noise(images, p.Draws("noise", ids, 0), std=0.1)
    assert (noisy.astype(float) - 128).std() == pytest.approx(25.5, rel=0.01)


@pytest.mark.parametrize("kernel", [5, 9])
def test_the_blur_of_a_kernel_is_torchvisions(kernel: int) -> None:
    import torch
    from torchvision.transforms.functional import gaussian_blur

    images = faces()
    blurred = p.gaussian_blur(images, p.Draws("blur", IDS, 0), kernel=kernel)
    expected = gaussian_blur(torch.from_numpy(images).permute(0, 3, 1, 2), [kernel, kernel])
    assert np.abs(blurred[..., 0].astype(int) - expected[:, 0].numpy()).max() <= 1


def test_motion_blur_keeps_the_brightness_and_has_its_length() -> None:
    images = np.zeros((30, 49, 49, 1), np.uint8)
    images[:, 24, 24] = 255
    ids = [str(index) for index in range(30)]
    streaks = p.motion_blur(images, p.Draws("motion_blur", ids, 0), length=10 / 49)
    for streak in streaks[..., 0]:
        y, x = np.nonzero(streak > 4)
        assert 8 <= np.hypot(np.ptp(x), np.ptp(y)) <= 12
    assert streaks.sum(axis=(1, 2, 3)).mean() == pytest.approx(255, rel=0.1)


def test_a_shift_moves_by_its_distance() -> None:
    images = np.zeros((20, 48, 48, 1), np.uint8)
    images[:, 20:28, 20:28] = 255
    ids = [str(index) for index in range(20)]
    moved = p.shift(images, p.Draws("shift", ids, 0), distance=0.125)[..., 0].astype(float)
    y, x = np.mgrid[:48, :48]
    mass = moved.sum(axis=(1, 2))
    to_x, to_y = ((moved * axis).sum(axis=(1, 2)) / mass - 23.5 for axis in (x, y))
    np.testing.assert_allclose(np.hypot(to_x, to_y), 6, atol=0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 255), st.sampled_from(SINGLE), st.sampled_from([1, 3]))
def test_flat_images_of_any_brightness_survive(value: int, name: str, channels: int) -> None:
    images = np.full((2, 32, 32, channels), value, np.uint8)
    for setting in settings_of(name):
        assert setting(images, ["a", "b\udcff"], 0).shape == images.shape


def test_published_settings_are_the_studys_eight_at_both_sizes() -> None:
    found = settings_of("published")
    for size in (None, 64):
        own = [setting for setting in found if setting.image_size == size]
        references = [setting.reference or {} for setting in own]
        assert all(set(reference) == {"fer2013", "rafdb"} for reference in references)
        assert {reference["fer2013"]["images"] for reference in references} == {7178}
        accuracies = [reference["fer2013"]["accuracy"] for reference in references]
        assert len(accuracies) == 8
        assert np.mean(accuracies) == pytest.approx(0.49725)


def measure(asked: list[p.Setting], count: int) -> Robustness:
    """What settings do to gray images of 48 pixels, for a network that sees contrast alone."""
    ids = [str(index) for index in range(count)]

    def images(size: int | None) -> np.ndarray:
        return np.full((count, size or 48, size or 48, 1), 128, np.uint8)

    def predict(pictures: np.ndarray) -> np.ndarray:
        spread = fit_input(pictures, 48).std(axis=(1, 2, 3)) / 255
        return np.stack([1 - spread, spread, *[np.zeros(count)] * 5], axis=1)

    return measure_robustness(
        asked, images, predict, np.zeros(count, np.int64), ids,
        clean=predict(images(None)), dataset="fer2013", resamples=20,
    )  # fmt: skip


def test_published_noise_is_at_its_full_strength_in_the_image_that_the_network_gets() -> None:
    seen = {}
    for setting in settings_of("published"):
        if setting.parameters == {"std": 0.1}:
            images = np.full((20, setting.image_size or 48, setting.image_size or 48, 1), 128)
            damaged = setting(images.astype(np.uint8), IDS + IDS, 0)
            seen[setting.image_size] = float((fit_input(damaged, 48) / 255).std())
    assert seen[None] == pytest.approx(0.1, rel=0.01)
    assert seen[64] == pytest.approx(0.05, rel=0.05)  # shrinking averages half of it away


def test_a_row_says_its_size_and_a_reference_stands_beside_its_own_number_of_images() -> None:
    asked = settings_of("published")
    found = measure(asked, 30)
    assert {row["image_size"] for row in found.rows if row["perturbation"].endswith("_64")} == {64}
    assert {row["image_size"] for row in found.rows} == {48, 64}
    assert {row["image_size"] for row in found.table()} == {48, 64}
    assert set(found.table()[0]) <= set(columns())
    assert settings_table(found.rows).columns[1] == "Damaged at"
    assert not any("reference_accuracy" in row for row in found.rows)
    assert "beside_published" not in found.summary
    few: dict[str, p.Published] = {"fer2013": {"images": 30, "accuracy": 0.5}}
    found = measure([dataclasses.replace(setting, reference=few) for setting in asked], 30)
    assert all(row["reference_accuracy"] == 0.5 for row in found.rows if row["severity"])
    beside = found.summary["beside_published"]
    assert beside["settings"] == 8
    assert {size: row["settings"] for size, row in beside["at_size"].items()} == {"48": 8, "64": 8}
    assert "of 7,178 images" in notes_on_published(settings_of("published"), "fer2013", 30)[0]
    assert notes_on_published(settings_of("published"), "fer2013", 7178) == []
    assert notes_on_published(settings_of("published"), "another", 30) == []


def test_the_interval_of_a_mean_is_narrower_the_less_its_settings_agree() -> None:
    rows: Any = [
        {"perturbation": name, "severity": 1, "accuracy": 0.5,
         "confidence_intervals": {"accuracy": [0.4, 0.7]}}
        for name in ("blur", "noise")
    ]  # fmt: skip
    one, other, flat = np.array([1.0, 2, 3, 4]), np.array([1.0, -1, -1, 1]), np.ones(4)
    for second, share in ((one, 1.0), (other, 0.5**0.5), (flat, 1.0), (-one, 0.0)):
        draws = {("blur", 1): {"accuracy": one}, ("noise", 1): {"accuracy": second}}
        found = _mean_interval(rows, draws, "accuracy")
        np.testing.assert_allclose(found, [0.5 - share * 0.1, 0.5 + share * 0.2], atol=1e-9)


def test_a_network_is_compared_by_the_harder_size_of_each_setting() -> None:
    accuracies = {("noise", 48): 0.5, ("noise_at_64", 64): 0.6,
                  ("blur", 48): 0.7, ("blur_at_64", 64): 0.66}  # fmt: skip
    rows: Any = [
        {"perturbation": name, "severity": 1, "image_size": size, "accuracy": accuracy,
         "confidence_intervals": {"accuracy": [accuracy - 0.095, accuracy + 0.095]},
         "reference_accuracy": 0.5}
        for (name, size), accuracy in accuracies.items()
    ]  # fmt: skip
    draws = {
        (name, 1): {"accuracy": accuracy + np.linspace(-0.1, 0.1, 41)}
        for (name, _), accuracy in accuracies.items()
    }
    found = _beside_published(rows, draws)
    assert found["settings"] == 2
    assert found["accuracy"] == pytest.approx(0.58)
    np.testing.assert_allclose(found["interval"], [0.485, 0.675], rtol=1e-9)
    at_size = {size: row["accuracy"] for size, row in found["at_size"].items()}
    assert at_size == pytest.approx({"48": 0.6, "64": 0.63})
    words = fragment("published", found)
    assert "58.0 % (48.5–67.5 %), 8.0 points above the 50.0 % that was published" in words
    assert "60.0 % (50.5–69.5 %) at 48 × 48, 63.0 % (53.5–72.5 %) at 64 × 64" in words


@pytest.mark.parametrize("severities", [[0], [6], [1, 9], [True], []])
def test_a_severity_out_of_range_is_refused(severities: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"whole numbers from 1 to 5 for blur"):
        p.make_settings(configured("blur"), severities, load)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"severities": [{}]}, "expected a function"),
        ({"_target_": "x", "severities": []}, "a list of 1 to 5"),
        ({"_target_": "x", "severities": [{}] * 6}, "a list of 1 to 5"),
        ({"_target_": "x", "severities": [{}], "size": 3}, "found size"),
        ({"_target_": "x", "severities": [{}], "image_size": "64"}, "expected pixels"),
        ({"_target_": "x", "severities": [{}], "reference": {"a": []}}, "one for each of"),
        ({"_target_": "x", "severities": [{}], "reference": {"a": {"accuracy": [1]}}}, "number of"),
        (
            {"_target_": "fer.evaluation.perturbations.jpeg", "severities": [{"quali": 3}]},
            "does not accept",
        ),
    ],
)
def test_malformed_perturbations_are_refused(node: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        p.make_settings({"mine": node}, None, lambda name: p.jpeg)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda images, draws: images / 255,
            r"expected images \(2, 8, 8, 1\) uint8, found .*fl",
        ),
        (lambda images, draws: images[:, :, :4], r"found \(2, 8, 4, 1\) uint8"),
        (lambda images, draws: None, "found NoneType"),
        (lambda images, draws: images.no_such_thing, "the function fails: .*no_such_thing"),
    ],
)
def test_what_a_function_gives_that_is_no_damaged_image_is_refused(
    function: Any, message: str
) -> None:
    setting = p.Setting("own", 1, {}, function)
    with pytest.raises(ConfigError, match=rf"perturbation\.own: .*{message}"):
        setting(np.zeros((2, 8, 8, 1), np.uint8), ["a", "b"], 0)
