from __future__ import annotations

import io
import pickle
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fer.core import labels
from fer.core.composition import config_folder
from fer.core.errors import ConfigError
from fer.data.augmentation import Augmentation, BufferedRandom, import_albumentations, on_image
from fer.data.dataset import (
    Draw,
    EmotionDataset,
    EpochSampler,
    TrainingLoader,
    identity_collate,
    load_images,
)
from fer.data.images import to_input
from fer.data.preparation import prepare
from fer.data.published import FER2013DataModule
from fer.data.readers.fer2013 import FER2013Reader
from tests.conftest import Row, write_folder

pytestmark = pytest.mark.usefixtures("tiny_ready")


def standard_transforms() -> list[Any]:
    from omegaconf import OmegaConf

    from fer.data.augmentation import make_transforms

    config = OmegaConf.load(config_folder() / "augmentation" / "standard.yaml")
    return make_transforms(config)  # type: ignore[arg-type]


def module(tmp_path: Path, raw: Path, **options: Any) -> FER2013DataModule:
    options = {"image_size": 64, "transforms": [], **options}
    data = FER2013DataModule(tmp_path / "d", raw=raw, batch_size=7, **options)
    data.prepare_data()
    data.setup()
    return data


def batches(data: FER2013DataModule, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader)


def test_batches_are_uint8_in_the_networks_layout(tmp_path: Path, tiny_zip: Path) -> None:
    images, targets = batches(module(tmp_path, tiny_zip), 0)[0]
    assert images.shape == (7, 1, 64, 64) and images.dtype == torch.uint8
    assert targets.shape == (7,) and targets.dtype == torch.int64
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_holds_every_image_once(tmp_path: Path, tiny_zip: Path) -> None:
    data = module(tmp_path, tiny_zip)
    targets = torch.cat([target for _, target in batches(data, 0)])
    assert targets.bincount().tolist() == [4] * 7


@pytest.mark.parametrize("num_workers", [1, 2])
def test_augmentation_does_not_depend_on_the_number_of_workers(
    tmp_path: Path, tiny_zip: Path, num_workers: int
) -> None:
    alone = module(tmp_path, tiny_zip, transforms=standard_transforms())
    helped = module(tmp_path, tiny_zip, transforms=standard_transforms(), num_workers=num_workers)
    for epoch in (0, 3):
        pairs = zip(batches(alone, epoch), batches(helped, epoch), strict=True)
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def test_batches_that_are_fetched_together_are_those_of_a_plain_loader(
    tmp_path: Path, tiny_zip: Path
) -> None:
    data = module(tmp_path, tiny_zip, transforms=standard_transforms())
    assert isinstance(data.train_dataloader(), TrainingLoader)
    ours, plain = (
        kind(
            data.datasets["train"],
            batch_size=5,
            sampler=EpochSampler(28, 0, batch_size=5),
            collate_fn=identity_collate,
        )
        for kind in (TrainingLoader, DataLoader)
    )
    assert len(ours) == len(plain) == 5
    pairs = list(zip(ours, plain, strict=True))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
    assert all(a[0].is_contiguous(memory_format=torch.channels_last) for a, _ in pairs)


def test_transforms_are_applied_as_albumentations_applies_them() -> None:
    import_albumentations()
    import albumentations

    def invert(image: np.ndarray, **_: Any) -> np.ndarray:
        return 255 - image

    def kinds() -> list[Any]:
        return [
            albumentations.HorizontalFlip(p=1),
            albumentations.GaussNoise(p=1),
            albumentations.Rotate(p=1),
            albumentations.Lambda(image=invert, p=1),
            albumentations.OneOf([albumentations.Blur(p=1), albumentations.ColorJitter(p=1)], p=1),
            albumentations.SomeOf([albumentations.Transpose(p=1)], n=1, p=1),
        ]

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for one, other in zip(kinds(), kinds(), strict=True):
        for transform in (one, other):
            transform.set_random_state(np.random.default_rng(3), random.Random(3))
        results = [on_image(one)(image), other(force_apply=True, image=image)["image"]]
        assert (results[0] == results[1]).all(), one
        assert (results[0] != image).any(), one


def test_augmentation_does_not_depend_on_the_batch_size(tmp_path: Path, tiny_zip: Path) -> None:
    data = module(tmp_path, tiny_zip, transforms=standard_transforms())
    dataset = data.datasets["train"]
    together, _ = dataset.__getitems__([Draw(3, 2), Draw(5, 2)])
    assert torch.equal(together[1], dataset[Draw(5, 2)][0])


def test_augmentation_travels_to_another_process() -> None:
    augment = Augmentation(standard_transforms(), seed=0)
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 1), dtype=np.uint8)
    there = pickle.loads(pickle.dumps(augment))
    for index in range(20):
        here = augment(image, epoch=1, index=index)
        assert (there(image, epoch=1, index=index) == here).all()


def test_two_augmentations_of_one_policy_do_not_share_random_numbers() -> None:
    policy = standard_transforms()
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 1), dtype=np.uint8)
    augment = Augmentation(policy, seed=0)
    before = [augment(image, epoch=0, index=index) for index in range(20)]
    Augmentation(policy, seed=0)(image, epoch=3, index=1)
    after = [augment(image, epoch=0, index=index) for index in range(20)]
    np.testing.assert_array_equal(before, after)


def test_each_epoch_and_each_image_is_augmented_in_its_own_way() -> None:
    augment = Augmentation(standard_transforms(), seed=0)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)
    looks = {
        augment(image, epoch=epoch, index=index).tobytes()
        for epoch in range(4)
        for index in range(4)
    }
    assert len(looks) > 12  # now and then no transform applies
    other = Augmentation(standard_transforms(), seed=1)
    assert any(
        not np.array_equal(augment(image, epoch=0, index=i), other(image, epoch=0, index=i))
        for i in range(4)
    )


def test_the_numbers_of_an_image_depend_on_the_generators_place_alone() -> None:
    bits = np.random.Philox(key=5)
    numbers = BufferedRandom(np.random.Generator(bits))
    beginning = bits.state

    def draw(numbers: BufferedRandom) -> list[object]:
        return [
            numbers.random(),
            numbers.gauss(),  # draws two and keeps one
            numbers.uniform(3, 4),
            numbers.randint(1, 10**18),
            numbers.getrandbits(200),
            numbers.choice("abcdefgh"),
            numbers.sample(range(100), 5),
            *(numbers.random() for _ in range(2 * BufferedRandom.AHEAD)),
        ]

    found = []
    for _ in range(2):
        bits.state = beginning
        numbers.restart()
        found.append(draw(numbers))
    assert found[0] == found[1]
    assert draw(numbers) != found[0]
    bits.state = beginning
    there = pickle.loads(pickle.dumps(numbers))
    assert draw(there) == found[0]


def test_the_numbers_of_an_image_are_uniform() -> None:
    numbers = BufferedRandom(np.random.Generator(np.random.Philox(key=0)))
    counts = np.zeros((3, 6))
    for _ in range(2000):
        numbers.restart()
        counts[0, int(6 * numbers.random())] += 1
        counts[1, numbers.randint(0, 5)] += 1
        counts[2, int(6 * numbers.getrandbits(60) / 2**60)] += 1
    # A die of six sides: 333 times each, give or take 17.
    assert np.abs(counts - 2000 / 6).max() < 70


def test_transforms_with_the_same_probability_are_independent() -> None:
    import_albumentations()
    import albumentations

    seen: list[str] = []

    def mark(letter: str) -> Any:
        def apply(image: np.ndarray, **_: Any) -> np.ndarray:
            seen.append(letter)
            return image

        return albumentations.Lambda(image=apply, p=0.5)

    first, second = mark("a"), mark("b")
    augment = Augmentation([first, second], seed=0)
    pairs = set()
    for index in range(64):
        seen.clear()
        augment(np.zeros((8, 8, 1), np.uint8), epoch=0, index=index)
        pairs.add("".join(seen))
    assert pairs == {"", "a", "b", "ab"}


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[Draw]:
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert [draw.row for draw in order(0, 1)] != [draw.row for draw in order(0, 2)]
    assert [draw.row for draw in order(0, 1)] != [draw.row for draw in order(1, 1)]
    assert sorted(draw.row for draw in order(0, 1)) == list(range(50))


def test_lightning_tells_the_sampler_each_epoch(
    tmp_path: Path, tiny_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning.pytorch as pl

    from fer.model import schedules
    from fer.model.losses import CrossEntropyLoss
    from fer.model.module import EmotionModule
    from fer.model.shared_cnn import SharedCNN

    data = module(tmp_path, tiny_zip, image_size=32)
    drawn: list[list[Draw]] = []
    fetch = EmotionDataset.__getitems__

    def record(self: EmotionDataset, items: Any) -> Any:
        if isinstance(items[0], Draw):
            drawn.append(list(items))
        return fetch(self, items)

    monkeypatch.setattr(EmotionDataset, "__getitems__", record)
    counts = data.datasets["train"].class_counts()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )  # fmt: skip
    network = SharedCNN((4, 4), image_size=32)
    trainer.fit(
        EmotionModule(network, CrossEntropyLoss(counts), torch.optim.AdamW, schedules.constant),
        data,
    )
    for epoch in range(3):
        rows = [draw.row for batch in drawn for draw in batch if draw.epoch == epoch]
        assert sorted(rows) == list(range(28))
    assert [len(batch) for batch in drawn] == [28] * 3  # the four batches of an epoch at once


def test_validation_images_are_never_augmented(tmp_path: Path, tiny_zip: Path) -> None:
    data = module(tmp_path, tiny_zip, transforms=standard_transforms())
    images = torch.cat([batch for batch, _ in data.val_dataloader()])
    expected = torch.from_numpy(np.array(data.datasets["val"].images)).permute(0, 3, 1, 2)
    assert torch.equal(images, expected)


def test_the_cache_is_rebuilt_when_the_dataset_changes(tmp_path: Path, rows: list[Row]) -> None:
    folder = tmp_path / "d"
    first = prepare("x", folder, FER2013Reader(), raw=write_folder(tmp_path / "a", rows))
    images = load_images(first, 64, 1)
    assert isinstance(images, np.memmap)
    inverted: list[Row] = [(usage, emotion, 255 - image) for usage, emotion, image in rows]
    second = prepare("x", folder, FER2013Reader(), raw=write_folder(tmp_path / "b", inverted))
    changed = load_images(second, 64, 1)
    assert not np.array_equal(images, changed)
    np.testing.assert_array_equal(changed[3], to_input(second.read(3), 64, 1))
    assert len(list((folder / ".cache").glob("images-*.npy"))) == 1
    assert load_images(second, 48, 3).shape == (len(rows), 48, 48, 3)


def test_the_cache_is_what_numpy_saves_and_is_never_whole_in_memory(tmp_path: Path) -> None:
    count, size = 300, 96
    rng = np.random.default_rng(0)
    rows: list[Row] = [
        (usage, emotion, rng.integers(0, 256, (8, 8), dtype=np.uint8))
        for usage in ("Training", "PublicTest", "PrivateTest")
        for emotion in labels.EMOTIONS
        for _ in range(count // 21 + 1)
    ]
    raw = write_folder(tmp_path / "raw", rows)
    prepared = prepare("x", tmp_path / "d", FER2013Reader(), raw=raw)
    expected = io.BytesIO()
    images = [to_input(prepared.read(i), size, 3) for i in range(len(prepared.entries))]
    np.save(expected, np.stack(images))
    tracemalloc.start()
    load_images(prepared, size, 3)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (cache,) = (tmp_path / "d/.cache").glob("images-*.npy")
    assert cache.read_bytes() == expected.getvalue()
    assert most < len(expected.getvalue()) / 4


def test_targets_follow_the_schema(tmp_path: Path, tiny_zip: Path, rows: list[Row]) -> None:
    data = module(tmp_path, tiny_zip, image_size=48)
    emotion_of = {image.tobytes(): emotion for _, emotion, image in rows}
    for split in ("train", "val", "test"):
        dataset = data.datasets[split]
        for image, target in zip(dataset.images, dataset.targets, strict=True):
            assert emotion_of[image.tobytes()] == labels.EMOTIONS[target]


def test_normalisation_comes_from_the_training_split_alone(tmp_path: Path, tiny_zip: Path) -> None:
    data = module(tmp_path, tiny_zip)
    images = data.datasets["train"].images / 255
    mean, std = data.normalisation()
    np.testing.assert_allclose(mean, [images.mean()], rtol=1e-12)
    np.testing.assert_allclose(std, [images.std()], rtol=1e-9)


def test_images_that_are_all_equal_do_not_divide_by_zero() -> None:
    data = FER2013DataModule("nowhere")
    images = np.full((3, 8, 8, 1), 9, np.uint8)
    data.datasets["train"] = EmotionDataset(images, np.zeros(3, np.int64), ["a", "b", "c"])
    assert data.normalisation()[1] == [1.0]


def test_a_plain_data_loader_passes_batches_on() -> None:
    images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2, 1)
    dataset = EmotionDataset(images, np.arange(5), list("abcde"))
    loader = DataLoader(dataset, batch_size=2, collate_fn=identity_collate)
    assert torch.cat([target for _, target in loader]).tolist() == [0, 1, 2, 3, 4]


def test_a_batch_size_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loader.batch_size: .*from 1, found 0"):
        FER2013DataModule("nowhere", batch_size=0)
