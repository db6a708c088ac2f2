"""Augmentation on the device follows the policy that albumentations applies image by image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fer.core.errors import ConfigError
from fer.data.augmentation import Augmentation, import_albumentations
from fer.data.dataset import EmotionDataset
from fer.data.device import DeviceDataset, translate
from tests.conftest import compose, run_program

DRAWS = 5000
NAMES = ["flip", "affine", "light", "blur", "noise", "occlusion"]


def transforms(name: str | None = None) -> list[Any]:
    """Of the strong policy, which has every operation; all of them, or one."""
    from fer.data.augmentation import make_transforms

    import_albumentations()
    node = compose("augmentation=strong").augmentation
    if name is not None:
        node.transforms = {name: node.transforms[name]}
    return make_transforms(node)


def picture(side: int = 48) -> np.ndarray:
    """One image ``(H, W, 1)`` without any symmetry: shades, and a bright corner."""
    y, x = np.mgrid[:side, :side] / side
    image = 60 + 80 * x + 50 * y + 30 * np.sin(9 * x + 4 * y)
    image[4:16, 6:14] = 230
    return image.astype(np.uint8)[..., None]


def draw_both(chosen: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """``(DRAWS, H, W)`` of one picture by each of the two, 0–255."""
    image = picture()
    augment = Augmentation(chosen, seed=0)
    one = np.stack([augment(image, epoch=0, index=i)[..., 0] for i in range(DRAWS)])
    images = np.repeat(image[None], DRAWS, axis=0)
    dataset = EmotionDataset(images, np.zeros(DRAWS, np.int64), [str(i) for i in range(DRAWS)])
    device = DeviceDataset(dataset, chosen, torch.device("cpu"))
    generator = torch.Generator().manual_seed(20_130_707)
    other, _ = device.augmented(torch.arange(DRAWS), generator)
    return one.astype(np.float64), other[:, 0].double().numpy() * 255


def differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """By how much the means of each pixel differ beyond five standard errors."""
    error = (one.var(axis=0) / len(one) + other.var(axis=0) / len(other)) ** 0.5
    gap: np.ndarray = np.abs(one.mean(axis=0) - other.mean(axis=0)) - 5 * error
    return gap


@pytest.mark.parametrize("name", [*NAMES, None], ids=[*NAMES, "the whole policy"])
def test_both_paths_draw_from_one_distribution(name: str | None) -> None:
    one, other = draw_both(transforms(name))
    image = picture()[..., 0].astype(np.float64)
    # How often each operation is applied; a rounded pixel is no change.
    changed = [(np.abs(drawn - image).max(axis=(1, 2)) > 1.5).mean() for drawn in (one, other)]
    assert changed[0] == pytest.approx(changed[1], abs=0.04)
    # The mean picture and the spread of each pixel, beyond sampling error. Patches reach the very
    # edge too rarely for that; albumentations cuts shifts down to whole pixels: hence some slack.
    one, other = one[:, 8:-8, 8:-8], other[:, 8:-8, 8:-8]
    assert differs(one, other).max() < 1.5
    squares = [(drawn - drawn.mean(axis=0)) ** 2 for drawn in (one, other)]
    assert (differs(*squares) < 3 + 4 * one.std(axis=0)).all()  # two levels of its spread
    # Brightness and contrast of the images: ranges.
    for measure in (np.mean, np.std):
        found = [
            np.percentile(measure(drawn, axis=(1, 2)), [2, 25, 50, 75, 98])
            for drawn in (one, other)
        ]
        np.testing.assert_allclose(found[0], found[1], atol=7)


@pytest.mark.parametrize(
    ("column", "ranges", "tolerance"),
    # One blob in the middle shows the shifts, which albumentations cuts down to whole pixels; one
    # beside it, without shifts, shows scale (along) and rotation (across); with ranges of one sign
    # which way it goes.
    [
        (23, {}, 0.15),
        (37, {"translate_percent": {"x": (0.0, 0.0), "y": (0.0, 0.0)}}, 0.1),
        (
            37,
            {
                "rotate": (10, 30),
                "scale": {"x": (0.6, 0.9), "y": (1.1, 1.2)},
                "translate_percent": {"x": (0.0, 0.1), "y": (-0.2, 0.0)},
            },
            0.15,
        ),
    ],
    ids=["shifts", "scale and rotation", "one-sided"],
)
def test_both_paths_move_a_blob_equally_far(
    monkeypatch: pytest.MonkeyPatch, column: int, ranges: dict[str, Any], tolerance: float
) -> None:
    image = np.zeros((48, 48, 1), np.uint8)
    image[23:25, column : column + 2] = 255
    monkeypatch.setattr("tests.data.test_device.picture", lambda: image)
    (affine,) = transforms("affine")
    for name, value in ranges.items():
        setattr(affine, name, value)
    places = []
    for drawn in draw_both([affine]):
        total = drawn.sum(axis=(1, 2))
        y = (drawn.sum(axis=2) * np.arange(48)).sum(axis=1) / total
        x = (drawn.sum(axis=1) * np.arange(48)).sum(axis=1) / total
        places.append(np.stack([x, y]))
    one, other = places
    # Half a pixel is what cutting down costs in the mean, where all shifts have one sign.
    error = ((one.var(axis=1) + other.var(axis=1)) / DRAWS) ** 0.5
    assert (np.abs(one.mean(axis=1) - other.mean(axis=1)) < 0.5 + 5 * error).all()
    np.testing.assert_allclose(one.std(axis=1), other.std(axis=1), rtol=tolerance)


def test_a_transform_that_the_device_does_not_know_is_refused() -> None:
    import_albumentations()
    import albumentations

    with pytest.raises(ConfigError, match=r"known on the device .*found ElasticTransform"):
        translate(albumentations.ElasticTransform())
    with pytest.raises(ConfigError, match="Affine on the device expects no shear"):
        translate(albumentations.Affine(shear=(-5, 5)))


@pytest.mark.slow
def test_a_run_with_augmentation_on_the_device_is_reproducible(
    tmp_path: Path, tiny_zip: Path
) -> None:
    weights = []
    for number in range(2):
        run = tmp_path / f"run{number}"
        run_program("train.py", "dataset=fer2013", f"dataset.raw={tiny_zip}", "logger=none",
                    "model.widths=[4,8,8,8]", "model.image_size=32", "trainer.max_epochs=2",
                    "loader.batch_size=7", "loader.on_device=true", "metrics.resamples=100",
                    f"paths.data={tmp_path / 'data'}", f"hydra.run.dir={run}",
                    cwd=tmp_path)  # fmt: skip
        last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        weights.append(last["state_dict"])
        assert json.loads((run / "metrics.json").read_text())["samples"] == 14
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
