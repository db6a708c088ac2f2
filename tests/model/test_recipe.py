"""What the recipe is made of: cheaper transforms, mixing, averaged weights, what is measured."""

from __future__ import annotations

import functools
import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fer.core.errors import ConfigError
from fer.data.augmentation import import_albumentations
from fer.evaluation.inference import predict
from fer.model.losses import CrossEntropyLoss
from fer.model.mixing import Mixing
from fer.model.module import EmotionModule
from fer.model.shared_cnn import SharedCNN
from tests.conftest import run_program

import_albumentations()

import albumentations  # noqa: E402

from fer.data.transforms import (  # noqa: E402
    Affine,
    CoarseDropout,
    GaussNoise,
    HorizontalFlip,
    RandomBrightnessContrast,
)

OPTIONS = ["dataset=fer2013", "model.widths=[4,8,8,8]", "model.image_size=32",
           "trainer.max_epochs=2", "loader.batch_size=7", "metrics.resamples=100",
           "trainer.progress_bar=false", "logger=none"]  # fmt: skip


def apply(kind: Any, options: dict[str, Any], image: np.ndarray, count: int) -> np.ndarray:
    """One image after a transform, as often as ``count`` says, from the same random numbers."""
    pipeline = albumentations.Compose([kind(**{"p": 0.9, **options})])
    pipeline.set_random_state(np.random.default_rng(1), random.Random(1))
    return np.stack([pipeline(image=image)["image"] for _ in range(count)])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (HorizontalFlip, {}),
        (Affine, {"rotate": (-15, 15), "scale": (0.88, 1.12), "translate_percent": (-0.1, 0.1)}),
        (
            Affine,
            {"rotate": (-40, 40), "scale": {"x": (0.5, 1.5), "y": (0.8, 1.0)}, "shear": (-20, 20)},
        ),
        (
            Affine,
            {"translate_px": (-5, 5), "fill": 77, "scale": (0.7, 1.3), "balanced_scale": True},
        ),
        (
            RandomBrightnessContrast,
            {"brightness_limit": (-0.2, 0.2), "contrast_limit": (-0.2, 0.2)},
        ),
        (
            RandomBrightnessContrast,
            {"brightness_limit": (0.5, 1.0), "contrast_limit": (-1, 2), "brightness_by_max": False},
        ),
        (
            RandomBrightnessContrast,
            {"brightness_limit": (-0.9, 0.9), "ensure_safe_range": True},
        ),
    ],
)
@pytest.mark.parametrize("shape", [(48, 48, 1), (33, 40, 3)])
def test_a_cheaper_transform_gives_the_pixels_of_the_original(
    kind: Any, options: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    original = getattr(albumentations, kind.__name__)
    one, other = (apply(own, options, image, 40).astype(int) for own in (original, kind))
    assert one.shape == other.shape == (40, *shape)
    # A matrix that differs in its last digit may round a pixel to its neighbour.
    assert np.abs(one - other).max() <= (1 if kind is Affine else 0)
    assert (one != image).any(axis=(1, 2, 3)).sum() > 20


@pytest.mark.parametrize("level", [0, 128, 255])
def test_the_cheaper_noise_is_drawn_like_the_original(level: int) -> None:
    options = {"std_range": (0.08, 0.12), "mean_range": (-0.1, 0.1)}
    found = []
    for kind in (albumentations.GaussNoise, GaussNoise):
        gray = np.full((30, 20, 3), level, np.uint8)
        images = apply(kind, {**options, "p": 1.0}, gray, 400).astype(float)
        found.append(np.column_stack([images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))]))
        pixels = images - images.mean(axis=(1, 2, 3), keepdims=True)
        # Each pixel and each channel has noise of its own.
        assert abs(np.mean(pixels[:, :, 1:] * pixels[:, :, :-1])) < 0.03 * pixels.var()
        assert abs(np.mean(pixels[..., 1:] * pixels[..., :-1])) < 0.03 * pixels.var()
        assert len(np.unique(images.reshape(400, -1), axis=0)) > 390  # some are all black or white
    one, other = found
    error = ((one.var(axis=0) + other.var(axis=0)) / len(one)) ** 0.5
    assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) <= 4 * error).all()
    np.testing.assert_allclose(one.std(axis=0), other.std(axis=0), rtol=0.2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_cheaper_coarse_dropout_draws_patches_like_the_original(channels: int) -> None:
    options = {"num_holes_range": (1, 1), "hole_height_range": (0.15, 0.35),
               "hole_width_range": (0.3, 0.36), "fill": "random_uniform"}  # fmt: skip
    shape = (40, 60, channels)
    found = []
    for kind in (albumentations.CoarseDropout, CoarseDropout):
        gray = np.full(shape, 128, np.uint8)
        images = apply(kind, {**options, "p": 1.0}, gray, 3000).astype(float)
        covered = (images != 128).any(axis=3)
        rows, columns = covered.any(axis=2), covered.any(axis=1)
        found.append(
            np.column_stack(
                [
                    rows.sum(axis=1),  # height, width, top, left
                    columns.sum(axis=1),
                    rows.argmax(axis=1),
                    columns.argmax(axis=1),
                    images.max(axis=(1, 2, 3)),  # levels
                    images.min(axis=(1, 2, 3)),
                    images.var(axis=3).max(axis=(1, 2)),  # of the channels among themselves
                ]
            )
        )
    one, other = found
    error = ((one.var(axis=0) + other.var(axis=0)) / len(one)) ** 0.5
    assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) <= 5 * error).all()
    np.testing.assert_allclose(one.std(axis=0), other.std(axis=0), rtol=0.1)
    assert (one[:, :4].min(axis=0) == other[:, :4].min(axis=0)).all()
    assert (one[:, :4].max(axis=0) == other[:, :4].max(axis=0)).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GaussNoise, {"per_channel": False}),
        (GaussNoise, {"noise_scale_factor": 0.5}),
        (CoarseDropout, {"num_holes_range": (1, 3), "fill": 7}),
        (
            CoarseDropout,
            {"hole_height_range": (3, 9), "hole_width_range": (2, 5), "fill": "random_uniform"},
        ),
        (CoarseDropout, {"fill": "random"}),
    ],
)
def test_what_a_cheaper_transform_does_not_know_is_the_originals(
    kind: Any, options: dict[str, Any]
) -> None:
    original, gray = getattr(albumentations, kind.__name__), np.full((16, 20, 3), 128, np.uint8)
    one, other = (apply(own, {**options, "p": 1.0}, gray, 400) for own in (original, kind))
    assert (one != 128).any() and (one == other).all()


def test_mixup_blends_each_image_with_its_partner() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    mixed = Mixing(mixup=1.0)(images)
    assert mixed is not None and 0 < mixed.share < 1
    values = images.float() / 255
    expected = mixed.share * values + (1 - mixed.share) * values[mixed.partner]
    torch.testing.assert_close(mixed.images, expected)


def test_cutmix_pastes_a_patch_and_the_share_is_what_is_left() -> None:
    torch.manual_seed(0)
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 20, 24)
    for _ in range(50):
        mixed = Mixing(cutmix=1.0)(images)
        assert mixed is not None and mixed.images.dtype == torch.uint8
        own = (mixed.images == images)[mixed.partner != torch.arange(10)]
        other = (mixed.images == images[mixed.partner]) | (mixed.images == images)
        assert other.all()
        assert own.float().mean().item() == pytest.approx(mixed.share)
    assert images[3].eq(3).all()  # the batch itself is left as it was


def test_mixing_leaves_the_share_of_batches_alone_that_p_says() -> None:
    torch.manual_seed(0)
    images = torch.zeros(4, 1, 8, 8)
    mixing = Mixing(mixup=0.2, cutmix=1.0, p=0.3)
    assert sum(mixing(images) is not None for _ in range(1000)) == pytest.approx(300, abs=50)
    assert Mixing()(images) is None
    with pytest.raises(ConfigError, match=r"mixing.mixup: expected a number from 0, found -1"):
        Mixing(mixup=-1)


def test_the_loss_of_a_mixed_batch_weighs_both_targets() -> None:
    network = SharedCNN(widths=[4, 4], dropout=0.0).eval()
    loss = CrossEntropyLoss([1] * 7, label_smoothing=0.1)
    module = EmotionModule(network, loss, torch.optim.SGD, dict, mixing=Mixing(mixup=1.0))
    images = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8)
    target = torch.arange(8) % 7
    torch.manual_seed(3)
    found = module.training_step((images, target), 0)
    torch.manual_seed(3)
    mixed = Mixing(mixup=1.0)(images)
    assert mixed is not None
    soft = mixed.share * nn.functional.one_hot(target, 7)
    soft = soft + (1 - mixed.share) * nn.functional.one_hot(target[mixed.partner], 7)
    expected = nn.functional.cross_entropy(network(mixed.images), soft, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


def test_a_mirrored_image_gets_the_same_probabilities_with_tta() -> None:
    torch.manual_seed(0)
    network = SharedCNN(widths=[4, 8], image_size=32)
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 1), dtype=np.uint8)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    one, two = (predict(network, batch, tta="flip") for batch in (images, mirrored))
    np.testing.assert_allclose(one, two, atol=1e-6)
    plain = [predict(network, batch) for batch in (images, mirrored)]
    np.testing.assert_allclose(one, sum(plain) / 2, atol=1e-6)
    assert np.abs(plain[0] - plain[1]).max() > 1e-3


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory, tiny_zip: Path) -> Path:
    """A run with averaged weights that leaves the test split alone."""
    folder = tmp_path_factory.mktemp("averaged")
    run_program("train.py", *OPTIONS, f"dataset.raw={tiny_zip}", f"paths.data={folder / 'data'}",
                "ema.decay=0.8", "test=false", f"hydra.run.dir={folder / 'run'}",
                "trainer.precision=32-true",  # fourteen images, hardly trained: near to a tie
                cwd=folder)  # fmt: skip
    return folder


def test_a_search_leaves_the_test_split_alone(averaged: Path) -> None:
    run = averaged / "run"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["split"] == "val" and metrics["samples"] == 14
    assert not [path for path in run.rglob("*test*") if path.is_file()]
    described = json.loads((run / "run.json").read_text())
    assert described["validation"]["accuracy"] == metrics["accuracy"]
    assert "they flatter it" in described["notes"][0]


def test_the_averaged_weights_are_what_is_validated_and_kept(averaged: Path) -> None:
    run = averaged / "run"
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    kept, last_step = best["state_dict"], best["current_model_state"]
    assert any(not torch.equal(kept[key], last_step[key]) for key in kept)
    rows = (run / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_macro_f1")
    validated = max(float(row.split(",")[column]) for row in rows[1:])
    measured = json.loads((run / "metrics.json").read_text())["macro_f1"]
    assert measured == pytest.approx(validated, abs=1e-6)


def test_a_result_with_tta_says_so(averaged: Path) -> None:
    run_program("evaluate.py", f"checkpoint={averaged / 'run/checkpoints/best.ckpt'}", "tta=flip",
                f"paths.data={averaged / 'data'}", "metrics.resamples=100",
                f"hydra.run.dir={averaged / 'flip'}", cwd=averaged)  # fmt: skip
    assert json.loads((averaged / "flip/metrics.json").read_text())["tta"] == "flip"
    assert "tta=flip" in json.loads((averaged / "flip/run.json").read_text())["notes"][0]
    assert "mirror image are averaged" in (averaged / "flip/report.html").read_text()


KEEPS = """
import resource
import torch
from fer.core.hardware import keep_freed_memory

torch.set_num_threads(1)
if {keep}:
    keep_freed_memory()


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def step():
    return [torch.ones(2**20) for _ in range(24)]  # of 4 MB


for _ in range(3):
    step()
before = faults()
for _ in range(5):
    step()
print((faults() - before) / 5)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone")
def test_memory_that_a_step_has_freed_is_there_for_the_next_one() -> None:
    # Whether glibc gives it back by itself is a matter of luck; here it is told to.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    pages = {}
    for keep in (False, True):
        code = [sys.executable, "-c", KEEPS.format(keep=keep)]
        result = subprocess.run(code, capture_output=True, text=True, check=True, env=environment)
        pages[keep] = float(result.stdout)
    assert 10 * pages[True] < pages[False]


def weighted_mean(logits: torch.Tensor, target: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return scale * nn.functional.cross_entropy(logits, target)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"_target_": "torch.nn.CrossEntropyLoss", "weight": [1, 2, 1, 1, 1, 1, 1.5]}, None),
        ({"_target_": "tests.model.test_recipe.weighted_mean", "scale": 2.0}, None),
        (
            {"_target_": "torch.nn.CrossEntropyLoss", "weight": [1, 2]},
            "loss: expected CrossEntropyLoss to compare logits .* weight tensor should be",
        ),
        (
            {"_target_": "torch.nn.MSELoss"},
            "loss: expected MSELoss to compare logits",
        ),
        ({"_target_": "torch.nn.CrossEntropyLos"}, "loss: expected the dotted name of a class"),
        ({"_target_": "torch.nn.CrossEntropyLoss", "wight": 1}, r"loss: expected values .*wight"),
    ],
)
def test_losses_of_torch_and_functions_are_taken_as_they_are(
    node: dict[str, Any], expected: str | None
) -> None:
    from omegaconf import OmegaConf

    from fer.model.module import make_loss
    from fer.tasks.assembly import make_later

    cfg = OmegaConf.create({"loss": node})
    if expected is not None:
        with pytest.raises(ConfigError, match=expected):
            make_loss(make_later(cfg.loss), [3] * 7)
        return
    logits, target = torch.randn(4, 7), torch.tensor([0, 1, 1, 6])
    found = make_loss(make_later(cfg.loss), [3] * 7)(logits, target)
    weight = torch.tensor([1, 2, 1, 1, 1, 1, 1.5]) if "weight" in node else None
    plain = nn.functional.cross_entropy(logits, target, weight)
    torch.testing.assert_close(found, node.get("scale", 1.0) * plain)


def test_what_a_loss_learns_is_optimized_and_a_schedules_own_steps_are_kept() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(self.scale * logits, target)

    from lightning.pytorch import Trainer

    schedule = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=9)
    module = EmotionModule(SharedCNN([4, 4]), Learned(), scheduler=schedule)
    module.trainer = Trainer(max_epochs=3, logger=False, enable_checkpointing=False)
    found = module.configure_optimizers()
    ids = {id(p) for group in found["optimizer"].param_groups for p in group["params"]}
    assert id(module.loss.scale) in ids
    assert found["lr_scheduler"]["scheduler"].total_steps == 9
