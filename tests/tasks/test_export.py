"""Exported networks say what the network says, whatever program runs them."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fer.model.checkpoint as checkpoints
from fer.core import labels
from fer.core.errors import CheckpointError, ConfigError, ExportError
from fer.evaluation.inference import predict
from fer.model.checkpoint import Checkpoint, load_checkpoint
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN
from fer.tasks import export as exporting
from fer.tasks.export import export, images_to_compare, output_path
from tests.conftest import ROOT, run_program, to_png, write_file

RNG = np.random.default_rng(0)
SIZE = 32


def make_checkpoint(path: Path, in_channels: int = 1, **changes: Any) -> Checkpoint:
    """A checkpoint as training writes it; every statistic in it is far from a new network's."""
    torch.manual_seed(0)
    widths = [8, 8]
    network = NormalisedNetwork(SharedCNN(widths, in_channels, SIZE))
    network.set_normalisation([0.4] * in_channels, [0.2] * in_channels)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.randn(8)
            module.running_var = torch.rand(8) + 0.5
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    extras = {
        "model": network.describe(),
        "labels": list(labels.EMOTIONS),
        "dataset": {"choice": "fer2013", "name": "fer2013", "generator": None, "reader": {},
                    "options": {}, "fingerprint": "0" * 64},
        "seed": 0,
        **changes,
    }  # fmt: skip
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "fer": extras, "epoch": 3}, path)
    return load_checkpoint(path)


def pictures(count: int, channels: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, SIZE, SIZE, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_onnx_holds_everything_from_pixels_to_probabilities(tmp_path: Path, channels: int) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    checkpoint = make_checkpoint(tmp_path / "a.ckpt", channels)
    path = tmp_path / "a.onnx"
    assert export(checkpoint, "onnx", path, pictures(5, channels)) < 1e-4
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type) == ("images", "tensor(uint8)")
    assert given.shape == ["batch", channels, SIZE, SIZE]
    assert session.get_outputs()[0].shape == ["batch", 7]
    for count in (1, 2, 7):
        images = pictures(count, channels)
        (found,) = session.run(["probabilities"], {"images": images.transpose(0, 3, 1, 2)})
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(found, predict(checkpoint.network, images), atol=1e-4)
    operations = [node.op_type for node in onnx.load(path).graph.node]
    assert operations.count("Conv") == 2 and "BatchNormalization" not in operations
    check_description(session.get_modelmeta().custom_metadata_map, channels)


def check_description(found: dict[str, str], channels: int) -> None:
    assert json.loads(found["labels"]) == list(labels.EMOTIONS)
    assert (found["image_size"], found["in_channels"]) == (str(SIZE), str(channels))
    assert json.loads(found["mean"]) == pytest.approx([0.4] * channels)
    assert json.loads(found["std"]) == pytest.approx([0.2] * channels)
    assert (found["dataset"], found["fingerprint"], found["epoch"]) == ("fer2013", "0" * 64, "3")
    assert json.loads(found["fer"])["model"]["options"]["widths"] == [8, 8]


def test_a_safetensors_file_is_the_same_checkpoint(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "a.ckpt")
    path = tmp_path / "a.safetensors"
    export(checkpoint, "safetensors", path, pictures(5, 1))
    again = load_checkpoint(path)
    assert again.extras == checkpoint.extras and again.epoch == 3
    state = again.network.state_dict()
    for key, value in checkpoint.network.state_dict().items():
        assert torch.equal(state[key], value), key


def damage(path: Path, kind: str) -> str:
    """Damage a safetensors file; returns what is to be said of it."""
    state = load_file(path)
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:100])
        return "cannot be read"
    if kind == "a pickle":
        torch.save({"a": 1}, path)
        return "cannot be read"
    if kind == "without description":
        save_file(state, path)
        return "without its description"
    if kind == "description no JSON":
        save_file(state, path, metadata={"fer": "{"})
        return "cannot be read"
    save_file(state, path, metadata={"fer": '{"model": {}}'})
    return "incomplete description"


@pytest.mark.parametrize(
    "kind",
    ["cut off", "a pickle", "without description", "description no JSON", "description too short"],
)
def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.safetensors"
    export(make_checkpoint(tmp_path / "a.ckpt"), "safetensors", path, pictures(2, 1))
    words = damage(path, kind)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


def test_pretrained_is_the_network_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "package" / "fer2013.safetensors"
    monkeypatch.setattr(checkpoints, "PRETRAINED_FILE", path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="format=safetensors output=") as error:
        load_checkpoint("pretrained")
    assert str(path) in str(error.value)
    checkpoint = make_checkpoint(tmp_path / "pretrained")  # a file of that name is another one
    export(checkpoint, "safetensors", path, pictures(2, 1))
    assert load_checkpoint("pretrained").path == path
    assert load_checkpoint(Path("pretrained")).path == Path("pretrained")


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_the_network_of_the_package_can_be_exported(tmp_path: Path, form: str) -> None:
    pretrained = load_checkpoint("pretrained")
    images = RNG.integers(0, 256, (3, 48, 48, 1), dtype=np.uint8)
    path = tmp_path / f"pretrained.{form}"
    assert export(pretrained, form, path, images) < 1e-4
    if form == "safetensors":
        again = load_checkpoint(path)
        assert again.extras == pretrained.extras
        assert (predict(again.network, images) == predict(pretrained.network, images)).all()


def test_the_package_knows_its_network_by_the_name_that_the_command_gives_it() -> None:
    """`python -m fer export … output=fer/pretrained/fer2013.safetensors`, from the checkout."""
    assert (ROOT / "fer" / "pretrained" / "fer2013.safetensors") == checkpoints.PRETRAINED_FILE


def test_a_file_that_says_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    checkpoint = make_checkpoint(tmp_path / "a.ckpt")
    whole = exporting.Whole

    def slightly_wrong(inner: NormalisedNetwork) -> torch.nn.Module:
        network = whole(inner)
        with torch.no_grad():
            next(network.parameters()).mul_(1.01)
        return network

    monkeypatch.setattr(exporting, "Whole", slightly_wrong)
    with pytest.raises(ExportError, match="onnx: expected the probabilities of the network"):
        export(checkpoint, "onnx", tmp_path / "out", pictures(5, 1))
    assert not (tmp_path / "out").exists()


def test_it_is_compared_on_the_test_images_of_its_own_dataset(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "a.ckpt")
    images, what = images_to_compare(checkpoint, tmp_path)
    assert images.shape == (64, SIZE, SIZE, 1) and what == "drawn faces"
    for level in (10, 200):
        image = np.full((48, 48), level, np.uint8)
        write_file(tmp_path / f"fer2013/test/happy/{level}.png", to_png(image))
    images, what = images_to_compare(checkpoint, tmp_path)
    assert what == "test images of fer2013"
    assert images.mean(axis=(1, 2, 3)).tolist() == [10, 200]


def test_the_output_has_a_fitting_name_and_is_not_the_checkpoint() -> None:
    assert output_path(Path("a/best.ckpt"), "onnx", None) == Path("a/best.onnx")
    assert output_path(Path("a.ckpt"), "safetensors", "b.safetensors") == Path("b.safetensors")
    with pytest.raises(ConfigError, match=r"ending in \.onnx .*found another name: .*b\.pt"):
        output_path(Path("a.ckpt"), "onnx", "b.pt")
    with pytest.raises(ConfigError, match="found the checkpoint itself"):
        output_path(Path("a.safetensors"), "safetensors", None)


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_an_export_replaces_nothing_but_an_earlier_one(tmp_path: Path, form: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "a.ckpt")
    path = tmp_path / f"b{exporting.SUFFIXES[form]}"
    path.write_bytes(b"my own")
    with pytest.raises(ConfigError, match=r"an earlier .*, found another file: .* output=NAME"):
        output_path(checkpoint.path, form, str(path))
    export(checkpoint, form, path, pictures(2, 1))
    assert output_path(checkpoint.path, form, str(path)) == path


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r'onnx missing.*pip install "fer-lab\[export\]"'):
        export(make_checkpoint(tmp_path / "a.ckpt"), "onnx", tmp_path / "a.onnx", pictures(2, 1))


def test_the_command_writes_beside_the_checkpoint_and_says_how_close_it_is(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    make_checkpoint(tmp_path / "run/best.ckpt")
    command = ["-m", "fer", "export", "checkpoint=run/best.ckpt", "format=onnx"]
    done = run_program(*command, cwd=tmp_path)
    assert done.stdout.startswith("run/best.onnx: ") and "64 drawn faces" in done.stdout
    assert done.stderr == ""  # no warnings of the exporter
    session = runtime.InferenceSession(tmp_path / "run/best.onnx")
    assert session.run(None, {"images": np.zeros((1, 1, SIZE, SIZE), np.uint8)})[0].shape == (1, 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]  # no log, no run folder


def test_attention_is_exported_without_torchs_own_fast_path(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    def attending() -> torch.nn.Module:
        layer = torch.nn.TransformerEncoderLayer(SIZE, 2, 16, batch_first=True)
        last = torch.nn.Linear(SIZE**2, 7)
        made = torch.nn.Sequential(torch.nn.Flatten(1, 2), layer, torch.nn.Flatten(), last)
        made.image_size = SIZE  # type: ignore[assignment]
        return made

    torch.manual_seed(0)
    network = NormalisedNetwork(attending())
    checkpoint = dataclasses.replace(make_checkpoint(tmp_path / "a.ckpt"), network=network)
    difference = exporting.export(checkpoint, "onnx", tmp_path / "a.onnx", pictures(4, 1))
    assert difference < 1e-5 and torch.backends.mha.get_fastpath_enabled()
