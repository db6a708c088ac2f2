"""How an image looks in numbers: what a copy of a picture keeps, and what betrays a change."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from fer.data.audit.appearance import (
    COARSE,
    DETAIL,
    LOOKS,
    hamming,
    has_content,
    hex_hash,
    measure,
    sharpness,
)
from tests.conftest import decode, to_jpeg

SIDES = (48, 96)


def picture(seed: int, side: int = 48) -> np.ndarray:
    """A random picture with structure at every scale, as photographs have it."""
    rng = np.random.default_rng(seed)
    total: np.ndarray = np.zeros((side, side), np.float32)
    for size in (3, 6, 12, 24, 48):
        layer = rng.normal(size=(size, size)).astype(np.float32)
        total = total + cv2.resize(layer, (side, side), interpolation=cv2.INTER_CUBIC) / size**0.35
    low, high = total.min(), total.max()
    return (20 + 215 * (total - low) / (high - low)).astype(np.uint8)


def hash_of(image: np.ndarray) -> np.ndarray:
    return measure(image, 48)["hashes"][None]


def bits(one: np.ndarray, two: np.ndarray) -> int:
    return int(np.unpackbits(one ^ two).sum())


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "jpeg": lambda x: decode(to_jpeg(x)),
    "blur": lambda x: cv2.GaussianBlur(x, (0, 0), 1.0),
    "sharpen": lambda x: cv2.addWeighted(x, 1.5, cv2.GaussianBlur(x, (0, 0), 1.0), -0.5, 0),
    "contrast": lambda x: (0.6 * x + 40).astype(np.uint8),
    "larger": lambda x: cv2.resize(x, (224, 224), interpolation=cv2.INTER_CUBIC),
    "colour": lambda x: np.repeat(x[..., None], 3, axis=2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_changed_copy_has_nearly_the_same_hash(change: str, seed: int) -> None:
    image = picture(seed)
    assert bits(hash_of(image), hash_of(CHANGES[change](image))) <= 8


def test_different_pictures_have_different_hashes() -> None:
    hashes = np.concatenate([hash_of(picture(seed)) for seed in range(60)])
    nearest, rows = hamming(hashes, hashes)
    assert (nearest == 0).all() and rows.tolist() == list(range(60))
    others = [hamming(hashes[[i]], np.delete(hashes, i, axis=0))[0] for i in range(60)]
    assert np.min(others) > 20


def test_flat_pictures_have_one_hash() -> None:
    assert (
        len({hash_of(np.full((48, 48), level, np.uint8)).tobytes() for level in (0, 7, 255)}) == 1
    )


def looks_of(images: list[np.ndarray], side: int = 48) -> np.ndarray:
    return np.array([measure(image, side) for image in images], LOOKS)


@pytest.mark.parametrize("side", SIDES)
def test_sharpness_tells_blur_and_sharpening_and_ignores_contrast(side: int) -> None:
    images = [picture(seed, side) for seed in range(20)]
    plain = sharpness(looks_of(images, side))
    ratios = {
        name: sharpness(looks_of([CHANGES[name](image) for image in images], side)) / plain
        for name in ("blur", "sharpen", "contrast", "jpeg")
    }
    assert ratios["blur"].max() < 0.85
    assert ratios["sharpen"].min() > 1.1
    np.testing.assert_allclose(ratios["contrast"], 1, atol=0.04)  # whole gray levels
    np.testing.assert_allclose(ratios["jpeg"], 1, atol=0.02)


def test_the_coarse_band_measures_contrast() -> None:
    image = picture(0)
    halved = ((image.astype(np.float32) - 128) / 2 + 128).round().astype(np.uint8)
    change = looks_of([halved])["bands"] - looks_of([image])["bands"]
    assert change[0, COARSE] == pytest.approx(np.log(0.5), abs=0.01)
    assert change[0, DETAIL] == pytest.approx(np.log(0.5), abs=0.02)


def test_a_wave_shows_in_the_band_of_its_wavelength() -> None:
    """Wavelengths in pixels: above 16, 16–8, 8–4.8, 4.8–3, and finer."""
    column = np.arange(96) + 0.5
    for band, wavelength in enumerate((32.0, 11.0, 6.0, 4.0, 2.3)):
        wave = 128 + 60 * np.cos(2 * np.pi * column / wavelength)
        image = np.repeat(wave.round().astype(np.uint8)[None], 96, axis=0)
        assert int(looks_of([image], 96)["bands"][0].argmax()) == band


def test_gray_levels_are_those_of_the_image_itself() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)
    found = measure(image)
    assert found["size"].tolist() == [20, 30]
    assert found["mean"] == pytest.approx(image.mean())
    assert found["std"] == pytest.approx(image.std())
    assert found["levels"] == len(np.unique(image))


def test_a_flat_colour_has_no_contrast() -> None:
    assert measure(np.full((40, 40, 3), (200, 200, 20), np.uint8))["std"] == 0


def test_pictures_without_content_are_known() -> None:
    looks = looks_of([picture(0), np.full((48, 48), 9, np.uint8)])
    assert has_content(looks).tolist() == [True, False]
    assert hex_hash(looks[0]) == looks["hashes"][0].tobytes().hex() and hex_hash(looks[1]) == ""


def test_a_picture_of_one_pixel_can_be_measured() -> None:
    assert np.isfinite(looks_of([np.zeros((1, 1), np.uint8)])["bands"]).all()


def test_no_hash_is_near_where_there_is_none() -> None:
    hashes = hash_of(picture(0))
    assert hamming(hashes, hashes[:0])[0].tolist() == [128]
    assert hamming(hashes[:0], hashes)[0].shape == (0,)
