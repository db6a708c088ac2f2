"""Networks by name, and the normalisation of images that is put around each.

A network is any ``nn.Module`` that gives logits ``(N, 7)`` of images ``(N, C, H, W)``. It is
registered under a name, and a checkpoint holds that name with the network's arguments::

    @register_network("linear")
    class Linear(nn.Module):
        def __init__(self, in_channels: int, image_size: int) -> None:
            super().__init__()
            self.layer = nn.Linear(in_channels * image_size**2, 7)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.flatten(1))

What else a network may offer is in :class:`Network`; all of it can be left out.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn

from fer.core import labels
from fer.core.errors import ConfigError, first_line
from fer.core.values import is_plain

Make = TypeVar("Make", bound=Callable[..., nn.Module])
NETWORKS: dict[str, Callable[..., nn.Module]] = {}
"""Name → the class or function that makes the network."""
RECORD = "registered_as"
"""Attribute in which a network keeps its :class:`Registered`."""
INPUT = {"image_size": 48, "in_channels": 1, "num_classes": labels.NUM_CLASSES}
"""Arguments that a network gets where its options do not set them."""
MAX_ACTIVATIONS = 2**24
"""Numbers in a layer's output for one image: 64 channels at 512 x 512 pixels."""
MAX_PARAMETERS = 2**30


class Network(Protocol):
    """Optional parts of a network beside ``forward``; each alone, or none.

    The attributes ``image_size`` and ``in_channels`` are the input that it is made for.
    """

    def folded(self) -> nn.Module:
        """A copy for inference in which BatchNorm is part of the convolutions."""
        ...

    def stages(self) -> list[tuple[str, nn.Module]]:
        """Its parts with their names, from the input to the logits; the last one is the head."""
        ...

    def feature_maps(self) -> nn.Module:
        """The part whose output ``(N, K, H', W')`` Grad-CAM looks at."""
        ...


@dataclass(frozen=True)
class Registered:
    """A network's name and the arguments that it was made with, as plain values."""

    name: str
    options: dict[str, Any]


def register_network(name: str) -> Callable[[Make], Make]:
    """Decorate a class, or a function that makes a network, to register it under ``name``.

    Args:
        name: letters, digits, ``_``, ``.`` and ``-``, the first a letter. Checkpoints hold it.

    Raises:
        ConfigError: the name is malformed, or belongs to something else.
    """
    if not re.fullmatch(r"[A-Za-z][\w.-]*", name):
        raise ConfigError(
            "register_network: expected a name of letters, digits, _, . and -, the first a letter, "
            f"found {name!r}."
        )

    def register(make: Make) -> Make:
        known = NETWORKS.get(name)
        if known is not None and _place(known) != _place(make):
            raise ConfigError(
                f"register_network: expected a name that is free, found {name!r}, which "
                f"{_place(known)} has. Give {_place(make)} another one."
            )
        signature = inspect.signature(make)
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
            raise ConfigError(
                f"register_network: expected arguments with names, by which {_place(make)} can be "
                "made again from a checkpoint, found some without. Name them."
            )
        made: Any = make
        if isinstance(make, type):
            initialise = make.__init__  # type: ignore[misc]

            @functools.wraps(initialise)
            def remember(self: nn.Module, *arguments: Any, **named: Any) -> None:
                if type(self) is make:  # a class derived from it has a name of its own, or none
                    # Not through nn.Module, which is not set up yet.
                    self.__dict__[RECORD] = Registered(name, _bind(signature, arguments, named))
                initialise(self, *arguments, **named)

            made.__init__ = remember
        else:

            @functools.wraps(make)
            def made(*arguments: Any, **named: Any) -> nn.Module:
                network = make(*arguments, **named)
                network.__dict__[RECORD] = Registered(name, _bind(signature, arguments, named))
                return network

        NETWORKS[name] = made
        return cast(Make, made)

    return register


def _place(make: Callable[..., Any]) -> str:
    return f"{make.__module__}.{make.__qualname__}"


def _bind(
    signature: inspect.Signature, arguments: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any]:
    """All arguments of a call by name, with lists for tuples, as a checkpoint gives them back."""
    bound = signature.bind(*arguments, **named)
    bound.apply_defaults()
    options = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            options |= options.pop(parameter.name)
    return {key: _listed(value) for key, value in options.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_listed(item) for item in value]
    return value


def find_network(name: str) -> Callable[..., nn.Module]:
    """The class or function that makes the network of this name.

    Raises:
        ConfigError: none is registered under it.
    """
    if name not in NETWORKS:
        raise ConfigError(
            f"expected a registered network ({', '.join(sorted(NETWORKS))}), found {name!r}. "
            "Name the module that registers it in the environment: FER_PLUGINS=my_module; or pass "
            "the folder with its options: --config-dir FOLDER"
        )
    return NETWORKS[name]


def make_network(make: Callable[..., nn.Module], options: Mapping[str, Any]) -> NormalisedNetwork:
    """Make a network from its options, with normalisation around it.

    Args:
        make: a registered class or function.
        options: its arguments, and the input's ``image_size`` and ``in_channels`` and
            ``num_classes``, which are passed on if ``make`` takes them.

    Raises:
        ConfigError: it does not accept the options, or what it makes cannot be used.
    """
    own = dict(options)
    shape = {key: own[key] for key in ("image_size", "in_channels") if own.get(key) is not None}
    taken = inspect.signature(make).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    for key, usual in INPUT.items():
        if key not in taken and not (takes_any and key == "num_classes"):
            own.pop(key, None)
        elif key in taken and taken[key].default is inspect.Parameter.empty:
            own.setdefault(key, usual)
        elif key in taken and key in ("image_size", "in_channels") and key not in own:
            shape[key] = taken[key].default
    try:
        network = make(**own)
    except ConfigError:
        raise
    except Exception as error:  # of somebody's constructor, that may be anything
        raise ConfigError(
            f"model: expected options that {_place(make)} accepts, found "
            f"{', '.join(f'{key}={value!r}' for key, value in own.items()) or 'none'}: "
            f"{first_line(error)}. "
            "Correct them: model.NAME=VALUE"
        ) from error
    return NormalisedNetwork(network, **shape)


def to_fractions(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images 0–255 into float 0–1; float images stay as they are."""
    return images if images.is_floating_point() else images.float() / 255


class NormalisedNetwork(nn.Module):
    """A network with the normalisation of its images in front.

    Mean and standard deviation of the training images are buffers and travel with the weights.

    Args:
        network: gives logits ``(N, 7)`` of normalised images ``(N, C, H, W)``.
        image_size: side of the input in pixels; None for the network's own, or 48.
        in_channels: 1 (gray) or 3 (RGB); None for the network's own, or 1.

    Raises:
        ConfigError: a value that cannot work.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, network: nn.Module, image_size: int | None = None, in_channels: int | None = None
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ConfigError(
                f"model: expected a torch.nn.Module, found {type(network).__name__}. Let the "
                "registered class or function make one."
            )
        record = getattr(network, RECORD, None)
        options = record.options if isinstance(record, Registered) else {}
        own: dict[str, Any] = {**options, **vars(network)}
        self.image_size = int(image_size or own.get("image_size", INPUT["image_size"]))
        self.in_channels = int(in_channels or own.get("in_channels", INPUT["in_channels"]))
        if self.in_channels not in (1, 3):
            raise ConfigError(f"model.in_channels: expected 1 or 3, found {self.in_channels}.")
        if not 1 <= self.image_size <= 1024:
            raise ConfigError(
                "model.image_size: expected a whole number from 1 to 1,024, found "
                f"{self.image_size}. Set it: model.image_size=VALUE"
            )
        self.network = network
        self.is_normalised = False
        """True once mean and standard deviation have been set."""
        self.register_buffer("mean", torch.zeros(self.in_channels))
        self.register_buffer("std", torch.ones(self.in_channels))

    @property
    def title(self) -> str:
        """Class of the network, for people."""
        return type(self.network).__name__

    def describe(self) -> dict[str, Any]:
        """Name, options and input as plain values, from which a checkpoint rebuilds the network.

        Raises:
            ConfigError: the network is not registered, or an argument is not a plain value.
        """
        record = getattr(self.network, RECORD, None)
        if not isinstance(record, Registered):
            raise ConfigError(
                f"model: expected a registered network ({', '.join(sorted(NETWORKS))}), found "
                f"{_place(type(self.network))}, which no checkpoint could name. Write "
                '@register_network("NAME") above it; see fer.register_network.'
            )
        if not is_plain(record.options):
            raise ConfigError(
                f"model: expected plain values (numbers, texts, lists) as arguments of "
                f"{record.name}, which checkpoints hold, found {record.options!r}."
            )
        return {
            "network": record.name,
            "image_size": self.image_size,
            "in_channels": self.in_channels,
            "options": record.options,
        }

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set mean and standard deviation per channel, as fractions of 255."""
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(std))
        self.is_normalised = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, 7)`` of images ``(N, C, H, W)``: uint8 0–255, or float 0–1."""
        x = (to_fractions(images) - self.mean[:, None, None]) / self.std[:, None, None]
        return self.network(x)

    @torch.no_grad()
    def check_size(self) -> None:
        """Refuse a network that would fill the memory; it lies on the meta device, which has none.

        Raises:
            ConfigError: it has more than :data:`MAX_PARAMETERS`, or a layer gives more than
                :data:`MAX_ACTIVATIONS` numbers of an image.
        """
        if self.count_parameters() > MAX_PARAMETERS:
            raise ConfigError(
                f"model: expected at most {MAX_PARAMETERS:,} parameters, found "
                f"{self.count_parameters():,} in {self.title}. Take fewer channels."
            )
        shape = (1, self.in_channels, self.image_size, self.image_size)
        try:
            with _shapes_of(self.eval().modules()) as shapes:
                self(torch.zeros(shape, device="meta"))
        except Exception:  # somebody's forward that needs numbers to compute with
            return
        largest = max((shape.numel() for _, shape in shapes), default=0)
        if largest > MAX_ACTIVATIONS:
            raise ConfigError(
                f"model: expected layers that give at most {MAX_ACTIVATIONS:,} numbers for an "
                f"image, found {self.title} with {largest:,} at model.image_size="
                f"{self.image_size}, {4 * largest / 1e9:.1f} GB for each. Take smaller images or "
                "fewer channels."
            )

    @torch.no_grad()  # not in inference mode: a lazy layer makes its weights here
    def check_output(self) -> None:
        """Try the network on two black images.

        Raises:
            ConfigError: it fails, or gives something other than logits ``(2, 7)``.
        """
        shape = (2, self.in_channels, self.image_size, self.image_size)
        was_training = self.training
        self.eval()
        try:
            with torch.random.fork_rng(devices=[]):
                found = self(torch.zeros(shape, dtype=torch.uint8, device=self.mean.device))
        except Exception as error:  # of somebody's network, that may be anything
            raise ConfigError(
                f"model: expected {self.title} to give logits (N, {labels.NUM_CLASSES}) of images "
                f"(N, {', '.join(map(str, shape[1:]))}), found that it fails: {first_line(error)}. "
                "Correct its forward, or model.image_size and model.in_channels."
            ) from error
        finally:
            self.train(was_training)
        if not isinstance(found, torch.Tensor) or found.shape != (2, labels.NUM_CLASSES):
            what = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ConfigError(
                f"model: expected {self.title} to give logits (N, {labels.NUM_CLASSES}), one for "
                f"each of {', '.join(labels.EMOTIONS)}, found {what} for N = 2. Correct its last "
                "layer."
            )

    def folded(self) -> NormalisedNetwork:
        """A copy for inference with BatchNorm folded; itself if the network cannot fold."""
        fold = getattr(self.network, "folded", None)
        if not callable(fold):
            return self
        copy = NormalisedNetwork(fold(), self.image_size, self.in_channels)
        copy.load_state_dict({"mean": self.mean, "std": self.std}, strict=False)
        return copy.to(self.mean.device).eval()

    def stages(self) -> list[tuple[str, nn.Module]]:
        """Parts of the network that have weights, with their names, from the input to the logits.

        Those that the network names, else its children, or those of its only child.
        """
        ask = getattr(self.network, "stages", None)
        if callable(ask):
            return list(ask())
        part, prefix = self.network, ""
        while True:
            parts = [
                (prefix + name, child)
                for name, child in part.named_children()
                if any(True for _ in child.parameters())
            ]
            if len(parts) != 1 or not list(parts[0][1].children()):
                return parts or [(prefix.rstrip(".") or self.title, part)]
            prefix, part = f"{parts[0][0]}.", parts[0][1]

    def feature_maps(self) -> nn.Module | None:
        """The part whose output Grad-CAM looks at; None where the network has no feature maps.

        The one that the network names, else its last convolution whose output is more than a point.
        """
        ask = getattr(self.network, "feature_maps", None)
        if callable(ask):
            return ask()
        convolutions = [part for part in self.network.modules() if isinstance(part, nn.Conv2d)]
        with _shapes_of(convolutions) as shapes:
            self.check_output()
        maps = [layer for layer, shape in dict(shapes).items() if shape[2:].numel() > 1]
        return maps[-1] if maps else None

    def count_parameters(self) -> int:
        """Number of values that training adjusts."""
        return sum(parameter.numel() for parameter in self.network.parameters())


@contextlib.contextmanager
def _shapes_of(layers: Iterable[nn.Module]) -> Iterator[list[tuple[nn.Module, torch.Size]]]:
    """Collect the shape of each layer's output, call by call, while the network runs."""
    shapes: list[tuple[nn.Module, torch.Size]] = []

    def note(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            shapes.append((layer, output.shape))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield shapes
    finally:
        for hook in hooks:
            hook.remove()
