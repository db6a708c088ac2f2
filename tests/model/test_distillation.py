"""A network learns from others' answers, and keeps nothing of them but its own weights."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

from fer.core.errors import CheckpointError, ConfigError
from fer.model.checkpoint import load_checkpoint
from fer.model.distillation import DistilledLoss
from fer.model.mixing import Mixing
from fer.model.module import EmotionModule
from fer.model.shared_cnn import SharedCNN
from fer.tasks.train import load_cut_off
from tests.model.test_steps import data_in, folder  # noqa: F401

OPTIONS: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
    "enable_model_summary": False, "num_sanity_val_steps": 0,
}  # fmt: skip


def train(
    folder: Path,  # noqa: F811
    place: Path,
    widths: list[int],
    loss: Any = None,
    epochs: int = 1,
    **more: Any,
) -> tuple[EmotionModule, Path]:
    """A small network trained on drawn faces, and its checkpoint."""
    torch.manual_seed(len(widths))
    module = EmotionModule(SharedCNN(widths, image_size=24, dropout=0.0), loss, **more)
    trainer = Trainer(max_epochs=epochs, enable_checkpointing=False, **OPTIONS)
    trainer.fit(module, data_in(folder, chunk=3))
    trainer.save_checkpoint(place)
    return module, place


@pytest.fixture(scope="module")
def teachers(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:  # noqa: F811
    place = tmp_path_factory.mktemp("teachers")
    return [
        str(train(folder, place / f"{len(widths)}.ckpt", widths)[1]) for widths in ([6], [4, 8])
    ]


def test_the_loss_is_hintons(teachers: list[str]) -> None:
    loss = DistilledLoss(teachers, temperature=2.0, weight=0.25, label_smoothing=0.1)
    images, target = torch.rand(5, 1, 24, 24), torch.tensor([0, 1, 2, 3, 6])
    logits = torch.randn(5, 7, requires_grad=True)
    answers = [load_checkpoint(path).network.eval()(images) for path in teachers]
    taught = torch.stack([(answer / 2).softmax(dim=1) for answer in answers]).mean(dim=0)
    own = (logits / 2).softmax(dim=1)
    divergence = (taught * (taught.log() - own.log())).sum(dim=1).mean()
    labels = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    expected = 0.75 * labels + 0.25 * 4 * divergence
    torch.testing.assert_close(loss(logits, target, images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.eval()(logits, target, images), labels)
    torch.testing.assert_close(loss.train()(logits, target), labels)


def test_a_student_of_teachers_alone_comes_to_answer_like_them(
    folder: Path,  # noqa: F811
    teachers: list[str],
    tmp_path: Path,
) -> None:
    make = functools.partial(DistilledLoss, teachers[1], weight=1.0, temperature=1.0)
    module, path = train(folder, tmp_path / "student.ckpt", [4, 8], make, epochs=12)
    assert not module.automatic_optimization  # chunks of steps teach, too
    data = data_in(folder, chunk=3)
    data.prepare_data()
    data.setup("test")
    images = torch.from_numpy(data.split("train").images).permute(0, 3, 1, 2)
    with torch.no_grad():
        taught = load_checkpoint(teachers[1]).network.eval()(images).softmax(dim=1)
        own = load_checkpoint(path).network.eval()(images).softmax(dim=1)
        other = load_checkpoint(teachers[0]).network.eval()(images).softmax(dim=1)
    assert (own - taught).abs().mean() < 0.5 * (other - taught).abs().mean()


def test_teachers_leave_no_weights_in_checkpoint_or_optimizer(
    folder: Path,  # noqa: F811
    teachers: list[str],
    tmp_path: Path,
) -> None:
    loss = DistilledLoss(teachers)
    before = [p.clone() for teacher in loss.teachers for p in teacher.parameters()]
    module, path = train(folder, tmp_path / "student.ckpt", [4, 8], loss, mixing=Mixing(0.2))
    after = [p for teacher in loss.teachers for p in teacher.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    content = torch.load(path, weights_only=True)
    assert all(key.startswith("network.") for key in content["state_dict"])
    held = sum(len(group["params"]) for group in content["optimizer_states"][0]["param_groups"])
    assert held == len(list(module.network.parameters()))


def test_a_run_does_not_go_on_with_other_teachers(
    folder: Path,  # noqa: F811
    teachers: list[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "checkpoints").mkdir()
    loss = DistilledLoss(teachers)
    _, path = train(folder, tmp_path / "checkpoints" / "last.ckpt", [4, 8], loss)
    data = data_in(folder)
    data.prepare_data()
    data.setup("test")
    cfg = OmegaConf.create({"resume": str(tmp_path)})
    checksums = [hashlib.sha256(Path(own).read_bytes()).hexdigest() for own in teachers]
    assert load_checkpoint(path).extras["teachers"] == checksums
    for other in ([], checksums[:1], [checksums[1], checksums[0]]):
        with pytest.raises(CheckpointError, match=r"loss\.teacher names, found that they have"):
            load_cut_off(cfg, tmp_path, data, other)
    with pytest.raises(CheckpointError, match="History"):  # gets as far as the epochs
        load_cut_off(cfg, tmp_path, data, checksums)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"loss\.teacher: expected the checkpoints .*found None"),
        ({"teacher": []}, r"loss\.teacher: expected the checkpoints .*found \[\]"),
        ({"temperature": 0}, r"loss\.temperature: expected a number above 0"),
        ({"weight": 1.5}, r"loss\.weight: expected a share from 0 to 1"),
        ({"label_smoothing": 1}, r"loss\.label_smoothing: expected a share"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DistilledLoss(**options)


def test_a_teacher_that_sees_other_images_is_refused(
    folder: Path,  # noqa: F811
    teachers: list[str],
    tmp_path: Path,
) -> None:
    with pytest.raises(CheckpointError, match="found nothing at"):
        DistilledLoss([str(tmp_path / "gone.ckpt")])
    module = EmotionModule(SharedCNN([4], image_size=48), DistilledLoss(teachers))
    with pytest.raises(ConfigError, match=r"48 x 48 .* 1 channels, .*found one of 24 x 24 with 1"):
        Trainer(max_epochs=1, **OPTIONS).fit(module, data_in(folder))
