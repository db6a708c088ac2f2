from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer.core.errors import ConfigError
from fer.model import schedules
from fer.model.losses import CrossEntropyLoss, FocalLoss, class_weights
from fer.model.module import asks_for, parameter_groups
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN

SMALL = (32, 64, 128, 256)


@pytest.mark.parametrize(("widths", "millions"), [((64, 128, 256, 512), 1.55), (SMALL, 0.39)])
def test_parameter_counts_are_the_contracts(widths: tuple[int, ...], millions: float) -> None:
    count = sum(p.numel() for p in SharedCNN(widths).parameters())
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize("size", [48, 64, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_documented_input_gives_seven_logits(size: int, channels: int) -> None:
    network = NormalisedNetwork(SharedCNN((4, 4, 4, 4), in_channels=channels, image_size=size))
    images = torch.zeros(2, channels, size, size, dtype=torch.uint8)
    assert network(images).shape == (2, 7)


def test_the_blocks_are_conv_batchnorm_relu_maxpool() -> None:
    """The network against the architecture as the documents state it, layer by layer."""
    torch.manual_seed(0)
    network = SharedCNN((4, 6, 8, 10), dropout=0.0).train()
    images = torch.rand(5, 1, 64, 64)
    x = images
    for block in network.blocks:
        convolution, norm = block[0], block[1]  # type: ignore[index]
        assert convolution.kernel_size == (3, 3)
        x = F.conv2d(x, convolution.weight, padding=1)
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
        x = F.max_pool2d(F.relu(x), 2)
    expected = F.linear(x.mean(dim=(2, 3)), network.head.weight, network.head.bias)
    torch.testing.assert_close(network(images), expected)


def test_uint8_images_are_normalised_like_their_fractions() -> None:
    network = NormalisedNetwork(SharedCNN((4, 4))).eval()
    network.set_normalisation([0.4], [0.2])
    images = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(network(images), network(images.float() / 255))


def test_normalisation_travels_with_the_weights() -> None:
    network = NormalisedNetwork(SharedCNN((4, 4)))
    network.set_normalisation([0.4], [0.2])
    other = NormalisedNetwork(SharedCNN((4, 4)))
    other.load_state_dict(network.state_dict())
    assert other.mean.item() == pytest.approx(0.4) and other.std.item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.5}, r"model.dropout: .*found 1.5"),
        ({"in_channels": 2}, r"model.in_channels: expected 1 \(gray\) or 3 \(RGB\), found 2"),
        ({"image_size": 8}, r"model.image_size: expected at least 16"),
        ({"widths": []}, r"model.widths"),
    ],
)
def test_an_impossible_network_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SharedCNN(**options)  # type: ignore[arg-type]


def test_weight_decay_is_for_matrices_only() -> None:
    decayed, free = parameter_groups(SharedCNN((4, 4)).parameters())
    assert all(p.ndim > 1 for p in decayed["params"]) and "weight_decay" not in decayed
    assert all(p.ndim == 1 for p in free["params"]) and free["weight_decay"] == 0.0


COUNTS = [10, 1, 10, 20, 12, 8, 9]


def test_balanced_weights_are_scikit_learns_up_to_scale() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat(np.arange(7), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(7), y=y)
    weights = class_weights(COUNTS, "balanced")
    assert weights is not None
    np.testing.assert_allclose(weights / weights[0], expected / expected[0], rtol=1e-6)


@pytest.mark.parametrize("weighting", ["balanced", "sqrt_balanced"])
def test_the_mean_training_image_has_weight_one(weighting: str) -> None:
    weights = class_weights(COUNTS, weighting)
    assert weights is not None
    assert float((weights * torch.tensor(COUNTS)).sum() / sum(COUNTS)) == pytest.approx(1)


def test_a_class_without_images_does_not_make_weights_infinite() -> None:
    weights = class_weights([5, 0, 5, 5, 5, 5, 5], "balanced")
    assert weights is not None and torch.isfinite(weights).all() and weights[1] == 0


def test_cross_entropy_is_torchs() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(8, 7), torch.randint(0, 7, (8,))
    loss = CrossEntropyLoss(COUNTS, label_smoothing=0.1, class_weight="balanced")
    expected = F.cross_entropy(
        logits, target, weight=class_weights(COUNTS, "balanced"), label_smoothing=0.1
    )
    torch.testing.assert_close(loss(logits, target), expected)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(8, 7), torch.randint(0, 7, (8,))
    for weighting in (None, "balanced"):
        focal = FocalLoss(COUNTS, gamma=0.0, class_weight=weighting)
        plain = CrossEntropyLoss(COUNTS, label_smoothing=0.0, class_weight=weighting)
        torch.testing.assert_close(focal(logits, target), plain(logits, target))


def test_focal_loss_is_the_papers_formula() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0, 0, 0, 0]])
    p = float(logits.softmax(1)[0, 0])
    expected = -((1 - p) ** 2) * np.log(p)
    assert float(FocalLoss(COUNTS, gamma=2.0)(logits, torch.tensor([0]))) == pytest.approx(expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropyLoss(COUNTS, label_smoothing=1.0),
        lambda: CrossEntropyLoss(COUNTS, class_weight="heavy"),
        lambda: FocalLoss(COUNTS, gamma=-1),
    ],
)
def test_an_impossible_loss_is_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="loss"):
        make()  # type: ignore[operator]


def rates(make: object, steps: int = 100) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    more = {"total_steps": steps} if asks_for(make, "total_steps") else {}  # type: ignore[arg-type]
    scheduler = make(optimizer, **more)  # type: ignore[operator]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(found) < steps:
            scheduler.step()
    return found


def test_one_cycle_peaks_at_the_optimizers_learning_rate() -> None:
    found = rates(schedules.one_cycle)
    assert found[0] == pytest.approx(0.5 * 0.04)
    assert max(found) == pytest.approx(0.5) and 25 <= found.index(max(found)) <= 32
    assert found[-1] == pytest.approx(0.5 * 1e-5, rel=1e-3)


def test_cosine_warms_up_and_falls_towards_zero() -> None:
    found = rates(schedules.cosine)
    assert found[0] == pytest.approx(0.1) and found[4] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(found[5:]))
    assert found[-1] < 0.001


def test_constant_is_constant() -> None:
    assert set(rates(schedules.constant)) == {0.5}
