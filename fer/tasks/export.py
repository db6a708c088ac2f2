"""The task of exporting: a trained network as ONNX, safetensors or a page for browsers.

ONNX holds everything from images ``(N, C, size, size)`` uint8, gray or RGB, to probabilities
``(N, 7)`` float32 in the order of :data:`fer.core.labels.EMOTIONS`; safetensors is a checkpoint.
What is exported is compared with the network before it is written. The page is
:mod:`fer.tasks.site`'s.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from safetensors.torch import save

from fer import __version__
from fer.core import labels
from fer.core.composition import own_folders
from fer.core.errors import ConfigError, ExportError, FerError, first_line
from fer.core.files import is_ours, write_bytes
from fer.core.options import check_options
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import STYLE_A
from fer.data.images import read_picture, to_input
from fer.data.readers.names import is_image
from fer.data.readers.sources import list_files
from fer.evaluation.attribution import class_activation
from fer.evaluation.inference import predict
from fer.model.checkpoint import Checkpoint, load_checkpoint
from fer.model.hub import SCHEME
from fer.model.network import NormalisedNetwork
from fer.tasks.assembly import import_networks
from fer.tasks.site import check_site, find_runtime, write_site

SUFFIXES = {"onnx": ".onnx", "safetensors": ".safetensors"}
MARK = "fer_version"
"""A key of the description, in the bytes of every exported file."""
OPSET = 17
"""The version of ONNX's operators: read by ONNX Runtime from 1.12 on."""
TOLERANCE = 1e-4
"""The most that a probability of the exported network may differ."""
COMPARED = 64
"""The most images that it is compared on."""


def export(checkpoint: Checkpoint, form: str, output: Path, images: np.ndarray) -> float:
    """Write a network as ``onnx`` or ``safetensors``; returns how far its probabilities differ.

    They are compared as in :func:`make_checked`. An existing file is replaced, and kept if anything
    fails.

    Raises:
        ConfigError, ExportError: as of :func:`make_checked`.
    """
    data, difference = make_checked(checkpoint, form, images)
    write_bytes(output, data)
    return difference


def make_checked(checkpoint: Checkpoint, form: str, images: np.ndarray) -> tuple[bytes, float]:
    """A network as ``onnx``, ``safetensors`` or ``web``, and how far its probabilities differ.

    They are compared on ``images`` ``(N, size, size, C)`` uint8 at the network's input size.
    ``web`` is ONNX with a second output, ``maps``, where the network has class activation maps.

    Raises:
        ConfigError: a package is missing.
        ExportError: a probability differs by more than :data:`TOLERANCE`.
    """
    make, run = EXPORTERS[form]
    expected = predict(checkpoint.network, images)
    # In two batches of different sizes: the number of images must be free.
    parts = [part for part in (images[:1], images[1:]) if len(part)]
    try:
        data = make(checkpoint)
        found = np.concatenate([run(data, part) for part in parts])
    except FerError:
        raise
    except Exception as error:  # an exporter meets whatever a network computes with
        raise ExportError(
            f"format={form}: expected a network that torch can export, found that "
            f"{checkpoint.network.title} is not: {first_line(error)}. "
            "Try format=safetensors, or use other operations in it."
        ) from error
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # NaN is refused too
        raise ExportError(
            f"{form}: expected the probabilities of the network, found a difference of "
            f"{difference:.2g} on {len(images)} images. Nothing was written; try other versions of "
            "torch and onnxruntime, and report it."
        )
    return data, difference


def describe(checkpoint: Checkpoint) -> dict[str, str]:
    """The description in every exported file, each value a text.

    ``fer`` is the checkpoint's own as JSON; the rest is for people and programs that only run the
    network.
    """
    network = checkpoint.network
    trained_on = checkpoint.extras["dataset"]
    return {
        "labels": json.dumps(list(labels.EMOTIONS)),
        "image_size": str(network.image_size),
        "in_channels": str(network.in_channels),
        "mean": json.dumps(network.mean.tolist()),
        "std": json.dumps(network.std.tolist()),
        "normalisation": "(pixel / 255 - mean) / std, inside the network",
        "resize": "bilinear with anti-aliasing, ITU-R 601 luma for gray",
        "dataset": str(trained_on["name"]),
        "fingerprint": str(trained_on["fingerprint"]),
        "epoch": str(checkpoint.epoch),
        MARK: __version__,
        "fer": json.dumps(checkpoint.extras),
    }


class Whole(torch.nn.Module):
    """A network from pixels to probabilities, with BatchNorm folded and without gradients."""

    def __init__(self, network: NormalisedNetwork) -> None:
        super().__init__()
        self.network = network.cpu().eval().folded()
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities ``(N, 7)`` of images ``(N, C, H, W)`` uint8."""
        probabilities: torch.Tensor = self.network(images).softmax(dim=1)
        return probabilities


class WholeWithMaps(Whole):
    """A network from pixels to probabilities and class activation maps.

    Args:
        network: one that :func:`fer.evaluation.attribution.class_activation` knows maps of.
    """

    def __init__(self, network: NormalisedNetwork) -> None:
        super().__init__(network)
        found = class_activation(self.network)
        assert found is not None
        self.layer, self.head = found

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """Probabilities ``(N, 7)`` and maps ``(N, 7, H', W')`` of images ``(N, C, H, W)`` uint8."""
        kept: list[torch.Tensor] = []
        hook = self.layer.register_forward_hook(lambda _, __, output: kept.append(output))
        probabilities = super().forward(images)
        hook.remove()
        weights = self.head.weight[:, :, None, None]  # (7, K, 1, 1)
        return probabilities, torch.nn.functional.conv2d(kept[-1], weights)


def to_web(checkpoint: Checkpoint) -> bytes:
    """As :func:`to_onnx`, with the output ``maps`` where the network has class activation maps."""
    return to_onnx(checkpoint, maps=class_activation(checkpoint.network) is not None)


def to_onnx(checkpoint: Checkpoint, maps: bool = False) -> bytes:
    """The network as an ONNX model: input ``images``, output ``probabilities``; and ``maps``."""
    try:
        import onnx
        import onnxruntime  # noqa: F401  (asked for before the work, not after it)
    except ImportError as error:
        raise ConfigError(
            f"format=onnx: expected the packages onnx and onnxruntime, found {error.name} missing. "
            'Install them: pip install "fer-lab[export]"'
        ) from error
    network = checkpoint.network
    shape = (2, network.in_channels, network.image_size, network.image_size)
    outputs = ["probabilities", "maps"] if maps else ["probabilities"]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        # The exporter that traces the network needs no further package (the newer one needs
        # onnxscript), and exists in every version of torch that is supported here.
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")
        # Attention's fast path is an operation of torch's own, which ONNX does not have.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            torch.onnx.export(
                WholeWithMaps(network) if maps else Whole(network),
                (torch.zeros(shape, dtype=torch.uint8),),
                path,
                input_names=["images"],
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in ("images", *outputs)},
                opset_version=OPSET,
                dynamo=False,
            )
        finally:  # a failed export must not leave the process slower
            torch.backends.mha.set_fastpath_enabled(fast)
        model = onnx.load(path)
    model.producer_name, model.producer_version = "fer-lab", __version__
    onnx.helper.set_model_props(model, describe(checkpoint))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def run_onnx(data: bytes, images: np.ndarray) -> np.ndarray:
    """Probabilities ``(N, 7)`` from ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"images": channels_first(images)})
    found: np.ndarray = probabilities
    return found


def to_safetensors(checkpoint: Checkpoint) -> bytes:
    """The weights as they were trained, BatchNorm apart: evaluation folds it itself."""
    # Copies: the format refuses weights that two layers share.
    state = checkpoint.network.state_dict().items()
    weights = {key: value.clone().contiguous() for key, value in state}
    data: bytes = save(weights, metadata=describe(checkpoint))
    return data


def run_safetensors(data: bytes, images: np.ndarray) -> np.ndarray:
    """Probabilities ``(N, 7)`` of a safetensors checkpoint, loaded as evaluation does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        path.write_bytes(data)
        return predict(load_checkpoint(path).network, images)


EXPORTERS = {
    "onnx": (to_onnx, run_onnx),
    "safetensors": (to_safetensors, run_safetensors),
    "web": (to_web, run_onnx),
}
"""Format → what makes the bytes, and what runs them."""


def channels_first(images: np.ndarray) -> np.ndarray:
    """``(N, H, W, C)`` as a contiguous ``(N, C, H, W)``."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def images_to_compare(checkpoint: Checkpoint, data: Path) -> tuple[np.ndarray, str]:
    """Images ``(N, size, size, C)`` uint8 to compare on, and what they are.

    Test images of the checkpoint's own dataset if it is prepared below ``data``, else drawn faces.
    """
    network, name = checkpoint.network, checkpoint.extras["dataset"]["name"]
    folder = data / str(name) / "test"
    files = [file for file in list_files(folder) if is_image(file)] if folder.is_dir() else []
    # Evenly over the list, which is sorted by emotion.
    files = files[:: max(1, len(files) // COMPARED)][:COMPARED]
    rng = np.random.default_rng(0)
    pictures = [read_picture(folder / file) for file in files] or [
        draw_face(labels.EMOTIONS[i % labels.NUM_CLASSES], STYLE_A, rng).image
        for i in range(COMPARED)
    ]
    size, channels = network.image_size, network.in_channels
    images = np.stack([to_input(picture, size, channels) for picture in pictures])
    return images, f"test images of {name}" if files else "drawn faces"


def output_path(checkpoint: Path, form: str, output: str | None) -> Path:
    """The file to write: ``output``, or one beside the checkpoint."""
    suffix = SUFFIXES[form]
    path = checkpoint.with_suffix(suffix) if output is None else Path(output)
    found = ""
    if path.suffix != suffix:
        found = "another name"
    elif path.is_dir() or path.resolve() == checkpoint.resolve():
        found = "a folder" if path.is_dir() else "the checkpoint itself"
    elif not is_ours(path, MARK):
        found = "another file"
    if found:
        raise ConfigError(
            f"output: expected a new file to write, or an earlier export, its name ending in "
            f"{suffix} for format={form}, found {found}: {path}. Give another name: "
            f"output=NAME{suffix}"
        )
    return path


def export_site(checkpoint: Checkpoint, folder: Path, runtime: str | None, data: Path) -> str:
    """Write a network as a page for browsers; returns a line that says how close it is.

    Args:
        folder: where to; see :func:`fer.tasks.site.check_site`.
        runtime: see :func:`fer.tasks.site.find_runtime`.
        data: the prepared datasets, see :func:`images_to_compare`.

    Raises:
        ConfigError: a package, the runtime or the detector is missing, or the folder is another's.
        ExportError: a probability differs by more than :data:`TOLERANCE`.
    """
    check_site(folder)
    images, what = images_to_compare(checkpoint, data)
    graph, difference = make_checked(checkpoint, "web", images)
    write_site(folder, checkpoint, graph, find_runtime(runtime))
    return f"probabilities differ by at most {difference:.1e} on {len(images)} {what}."


def export_task(cfg: DictConfig, _: Path) -> None:
    """Export a network, as ``conf/export.yaml`` says, and print the path.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    check_options(cfg)
    if cfg.output is None and str(cfg.checkpoint).startswith(SCHEME):  # beside it is a cache
        raise ConfigError(
            f"output: expected a name for what is exported from {cfg.checkpoint}, found none. Give "
            f"one: output=NAME{SUFFIXES.get(cfg.format, '')}"
        )
    import_networks(own_folders())
    checkpoint = load_checkpoint(cfg.checkpoint)
    data = Path(cfg.paths.data)
    if cfg.format == "web":
        beside = checkpoint.path.with_name(f"{checkpoint.path.stem}_web")
        folder = beside if cfg.output is None else Path(cfg.output)
        close = export_site(checkpoint, folder, cfg.runtime, data)
        print(f"{folder / 'index.html'}: for any web server; {close}")
        return
    path = output_path(checkpoint.path, cfg.format, cfg.output)
    images, what = images_to_compare(checkpoint, data)
    difference = export(checkpoint, cfg.format, path, images)
    print(
        f"{path}: {path.stat().st_size:,} bytes; probabilities differ by at most "
        f"{difference:.1e} on {len(images)} {what}."
    )
