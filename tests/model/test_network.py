"""Networks by name: what is registered comes back from a checkpoint; what cannot be is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fer.core import labels
from fer.core.errors import CheckpointError, ConfigError
from fer.evaluation.inference import predict
from fer.model.checkpoint import load_checkpoint
from fer.model.network import (
    NETWORKS,
    NormalisedNetwork,
    find_network,
    make_network,
    register_network,
)
from fer.model.shared_cnn import SharedCNN

SIZE = 16


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = dict(NETWORKS)
    yield
    NETWORKS.clear()
    NETWORKS.update(before)


class Convolution(nn.Module):
    """Options of several types, a mask, shared weights, and numbers computed while it is made."""

    def __init__(
        self, widths: Any = (4, 6), rates: Any = None, name: str = "a", residual: bool = False
    ) -> None:
        super().__init__()
        # What many do for stochastic depth; on torch's meta device it fails.
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, len(widths))]
        self.first = nn.Conv2d(1, widths[0], 3)
        self.second = nn.Conv2d(widths[0], widths[1], 3)
        self.last = nn.LazyLinear(7)
        self.twin = self.last
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``(N, 1, H, W)`` to ``(N, 7)``."""
        logits: torch.Tensor = self.twin(self.second(self.first(images)).mean(dim=(2, 3)))
        return logits


def save(path: Path, network: NormalisedNetwork, **changes: Any) -> Path:
    """A checkpoint of a network, as training writes it as far as evaluation reads it."""
    extras = {
        "model": {**network.describe(), **changes},
        "labels": list(labels.EMOTIONS),
        "dataset": {
            **{"choice": "fer2013", "name": "fer2013", "fingerprint": "0" * 64},
            **{"generator": None, "reader": {}, "options": {}},
        },
        "seed": 0,
    }
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state, "fer": extras}, path)
    return path


def make_images(n: int = 5) -> Any:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, SIZE, SIZE, 1), generator=generator, dtype=torch.uint8).numpy()


def test_a_network_comes_back_from_its_checkpoint_with_its_options(tmp_path: Path) -> None:
    make = register_network("own")(Convolution)
    options = {"widths": (3, 5), "rates": {"drop": [0.1, None]}, "name": "b", "residual": True}
    network = make_network(make, {**options, "image_size": SIZE})
    network.check_output()
    network.set_normalisation([0.3], [0.2])
    again = load_checkpoint(save(tmp_path / "own.ckpt", network)).network
    assert again.describe() == network.describe()
    assert again.describe()["options"] == {**options, "widths": [3, 5]}
    found, expected = (predict(one, make_images()) for one in (again, network))
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(expected))
    assert isinstance(again.network, Convolution) and again.network.twin is again.network.last


def test_a_class_that_is_derived_needs_a_name_of_its_own() -> None:
    register_network("own")(Convolution)

    class Derived(Convolution):
        pass

    with pytest.raises(ConfigError, match=r"Derived, which no checkpoint could name. Write\s@reg"):
        NormalisedNetwork(Derived()).describe()
    register_network("derived")(Derived)
    assert NormalisedNetwork(Derived()).describe()["network"] == "derived"
    assert NormalisedNetwork(Convolution()).describe()["network"] == "own"


def test_a_name_belongs_to_one_network_and_to_its_module_when_it_is_imported_again() -> None:
    register_network("own")(Convolution)
    register_network("own")(Convolution)
    with pytest.raises(ConfigError, match=r"a name that is free, found 'own', which .*Convolution"):
        register_network("own")(SharedCNN)
    with pytest.raises(ConfigError, match="a name of letters, digits"):
        register_network("../own")
    with pytest.raises(ConfigError, match=r"registered network \(own, shared_cnn\), found 'none'"):
        find_network("none")


def test_arguments_that_no_checkpoint_can_hold_are_refused() -> None:
    register_network("own")(Convolution)
    with pytest.raises(ConfigError, match=r"expected plain values .* of own"):
        NormalisedNetwork(Convolution(rates=nn.ReLU())).describe()

    def positional(*widths: int) -> nn.Module:
        return nn.Linear(1, 7)

    with pytest.raises(ConfigError, match="expected arguments with names"):
        register_network("positional")(positional)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (nn.Linear(4, 8), r"found \(2, 8\) for N = 2"),
        (nn.Identity(), r"found \(2, 4\) for N = 2"),
        (nn.LSTM(4, 7), "found tuple for N = 2"),
        (nn.Linear(5, 7), "found that it fails: .*mat1 and mat2"),
    ],
)
def test_a_network_that_gives_something_else_than_seven_logits_is_refused(
    last: nn.Module, message: str
) -> None:
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    network = NormalisedNetwork(layers, SIZE)
    with pytest.raises(ConfigError, match=message):
        network.check_output()
    assert network.training


def test_what_a_checkpoint_names_must_be_registered_and_take_its_options(tmp_path: Path) -> None:
    register_network("own")(Convolution)
    network = NormalisedNetwork(Convolution(), SIZE)
    network.check_output()
    path = save(tmp_path / "own.ckpt", network, options={"depth": 3})
    with pytest.raises(CheckpointError, match=r"own\.ckpt: .*accepts, found depth=3"):
        load_checkpoint(path)
    NETWORKS.pop("own")
    with pytest.raises(CheckpointError, match=r"found 'own'.*FER_PLUGINS"):
        load_checkpoint(save(tmp_path / "own.ckpt", network))


def test_the_input_is_that_of_the_options_or_of_the_constructor() -> None:
    def square(image_size: int = 32, in_channels: int = 3) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, 7))

    def asks(image_size: int, in_channels: int, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

    for make, options, expected in (
        (square, {}, (32, 3)),
        (square, {"image_size": 8}, (8, 3)),
        (asks, {}, (48, 1)),
        (Convolution, {"image_size": 20}, (20, 1)),
    ):
        network = make_network(make, options)
        network.check_output()
        assert (network.image_size, network.in_channels) == expected
    # Without options, as in a script: what it was made with says the same.
    made = NormalisedNetwork(register_network("square")(square)(image_size=24))
    assert (made.image_size, made.in_channels) == (24, 3)


@pytest.mark.parametrize("key", ["image_size", "in_channels"])
def test_an_impossible_input_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"model.{key}: expected"):
        make_network(Convolution, {key: 2000})


def test_stages_and_maps_are_found_where_the_network_does_not_name_them() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 14), nn.Flatten())
    network = NormalisedNetwork(nn.Sequential(layers, nn.Linear(4, 7)), SIZE)
    assert [name for name, _ in network.stages()] == ["0", "1"]
    assert network.feature_maps() is layers[0]  # the last one leaves a single point
    assert not any(module._forward_hooks for module in network.modules())
    flat = NormalisedNetwork(nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 7)), SIZE)
    assert flat.feature_maps() is None
    assert [name for name, _ in flat.stages()] == ["1"]
    assert flat.folded() is flat
