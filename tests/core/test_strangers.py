"""What strangers give: checkpoints, archives, images, tables, names. Nothing of it is executed."""

from __future__ import annotations

import csv
import io
import math
import os
import pickle
import re
import stat
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fer.core import labels
from fer.core.errors import CheckpointError, ConfigError, DataError, FerError
from fer.core.files import FORMULA, from_cell, to_cell, write_csv
from fer.core.values import MAX_VALUES, is_plain
from fer.data.dataset import load_images
from fer.data.images import MAX_SIDE, decode
from fer.data.manifest import Entry, read_manifest, write_manifest
from fer.data.preparation import prepare
from fer.data.readers import sources as raw_module
from fer.data.readers.fer2013 import FER2013Reader
from fer.data.readers.folder import FolderReader
from fer.evaluation.mistakes import read_predictions, write_predictions
from fer.model.callbacks import AtomicCheckpointIO
from fer.model.checkpoint import load_checkpoint, read_progress
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN
from fer.report.dataset_page import write_dataset_report
from fer.report.evaluation_sections import subgroups_section
from fer.report.run_page import write_run_report
from fer.runs.resume import expand
from fer.tasks.command import evaluated_dataset
from fer.tasks.evaluate import evaluate
from tests.conftest import ROOT, Row, compose, to_png, write_zip
from tests.tasks.test_odd_data import TINY, train_here

OPTIONS: dict[str, Any] = {"widths": [2, 2], "in_channels": 1, "image_size": 16, "dropout": 0.0}
FORMULAS = ["=cmd|'/c calc'!A1", "+1+cmd", "-2+3+cmd|' /C calc'!A0", "@SUM(1,2)", "\t=1", "'=1"]


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def content() -> dict[str, Any]:
    """Of a small checkpoint as training writes it, as far as evaluation reads it."""
    network = NormalisedNetwork(SharedCNN(**OPTIONS))
    state = network.state_dict()
    return {
        "epoch": 1,
        "global_step": 4,
        "state_dict": {f"network.{key}": value for key, value in state.items()},
        "fer": {
            "model": network.describe(),
            "labels": list(labels.EMOTIONS),
            "dataset": {
                **{"choice": "fer2013", "name": "fer2013", "fingerprint": "0" * 64},
                **{"generator": None, "reader": {}, "options": {}},
            },
            "seed": 0,
        },
    }


def save(path: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    """A checkpoint after ``change``."""
    values = content()
    change(values)
    torch.save(values, path)
    return path


# --- checkpoints -----------------------------------------------------------------------------


def plain_pickle(path: Path, payload: object) -> None:
    path.write_bytes(pickle.dumps(payload))


def old_format(path: Path, payload: object) -> None:
    torch.save({"state_dict": {}, "fer": payload}, path, _use_new_zipfile_serialization=False)


def among_good_values(path: Path, payload: object) -> None:
    save(path, lambda content: content["fer"].update(seed=payload))


def as_weights(path: Path, payload: object) -> None:
    save(path, lambda content: content["state_dict"].update({"network.mean": payload}))


@pytest.mark.parametrize("write", [plain_pickle, old_format, among_good_values, as_weights])
def test_a_checkpoint_with_a_payload_is_refused_by_name_and_nothing_runs(
    tmp_path: Path, write: Callable[[Path, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By everything that reads one: evaluation, its run folder's name, and a resumed training."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    write(path, Payload(tmp_path / "executed"))
    with pytest.raises(CheckpointError, match=r"last\.ckpt: expected a checkpoint with nothing"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(path)
    with pytest.raises(FerError, match=r"last\.ckpt"):
        evaluate(compose(f"checkpoint={path}", config="evaluate"), tmp_path / "evaluated")
    assert evaluated_dataset(None, str(path)) == "unknown"
    raw = write_zip(tmp_path / "archive.zip", tiny())
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        train_here(tmp_path / "run", raw, *TINY, f"resume={tmp_path / 'run'}")
    assert not (tmp_path / "executed").exists()
    # The test itself would notice: whoever unpickles it without care does run it.
    if write is plain_pickle:
        pickle.loads(path.read_bytes())
        assert (tmp_path / "executed").exists()


def test_the_refusal_names_what_would_have_run(tmp_path: Path) -> None:
    among_good_values(tmp_path / "evil.ckpt", Payload(tmp_path / "executed"))
    with pytest.raises(CheckpointError, match=r"found one that would run \w+\.mkdir"):
        load_checkpoint(tmp_path / "evil.ckpt")


def tiny() -> list[Row]:
    rng = np.random.default_rng(0)
    return [
        (usage, emotion, rng.integers(0, 256, (48, 48), dtype=np.uint8))
        for usage in ("Training", "PublicTest", "PrivateTest")
        for emotion in labels.EMOTIONS
    ]


def set_weight(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["state_dict"].update({f"network.{name}": value})


BIAS = "network.network.head.bias"


def set_bias(value: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["state_dict"].update({BIAS: value})


def model(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["fer"]["model"].update(changes)


def options(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["fer"]["model"]["options"].update(changes)


def own_list(content: dict[str, Any]) -> None:
    more: list[Any] = []
    content["fer"]["more"] = more
    more.append(more)


def thousands(content: dict[str, Any]) -> None:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    content["fer"]["more"] = value


NAN = torch.full((7,), torch.nan)
STRANGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no weights": (lambda c: c.pop("state_dict"), "without its description"),
    "weights that are none": (lambda c: c.update(state_dict=None), "incomplete description"),
    "no description": (lambda c: c.pop("fer"), "without its description"),
    "other emotions": (lambda c: c["fer"].update(labels=["happy"]), "found happy"),
    "the emotions in another order": (
        lambda c: c["fer"].update(labels=sorted(labels.EMOTIONS)),
        "expected the emotions angry",
    ),
    "no seed": (lambda c: c["fer"].pop("seed"), "incomplete description"),
    "no dataset": (lambda c: c["fer"]["dataset"].update(choice=None), "incomplete description"),
    "other widths": (options(widths=[4, 8]), "expected weights of shared_cnn"),
    "endless priors": (lambda c: c["fer"].update(priors=[1e400] * 7), "incomplete description"),
    "no epoch": (lambda c: c.pop("epoch"), "incomplete description"),
    "one weight missing": (
        lambda c: c["state_dict"].pop(BIAS),
        "no network.head.bias",
    ),
    "one weight more": (set_weight("tail", torch.zeros(1)), "found others: tail"),
    "another shape": (
        set_bias(torch.zeros(8)),
        r"shape \(8,\) instead of \(7,\)",
    ),
    "no tensor": (set_bias([0.0] * 7), "head.bias is not a tensor"),
    "sparse": (
        set_bias(torch.zeros(7).to_sparse()),
        "head.bias is not a tensor",
    ),
    "complex": (
        set_bias(torch.zeros(7, dtype=torch.cfloat)),
        "finite weights",
    ),
    "NaN": (
        set_bias(NAN),
        "finite weights, found others in network.head.bias",
    ),
    "infinite": (set_weight("std", torch.tensor([torch.inf])), "others in std"),
    "a number of keys": (lambda c: c["state_dict"].update({3: torch.zeros(1)}), ""),
    "unknown options": (options(depth=3), "found .*depth=3"),
    "too wide": (options(widths=[10**12]), r"at most 1,073,741,824 parameters, found 18,000,000"),
    "wide for an image": (options(widths=[10**6]), "at most 16,777,216 numbers for an image"),
    "large and wide": (
        lambda c: (options(widths=[64], image_size=1024)(c), model(image_size=1024)(c)),
        "found SharedCNN with 67,108,864 at model.image_size=1024, 0.3 GB for each",
    ),
    "far too wide": (
        options(widths=[10**30]),
        "found widths",
    ),
    "wide out of nothing": (
        lambda c: (
            options(widths=[10**4, 2])(c),
            set_weight("network.blocks.0.0.weight", torch.zeros(1).expand(10**4, 1, 3, 3))(c),
            *(
                set_weight(f"network.blocks.0.1.{name}", torch.zeros(1).expand(10**4))(c)
                for name in ("weight", "bias", "running_mean", "running_var")
            ),
            set_weight("network.blocks.1.0.weight", torch.zeros(1).expand(2, 10**4, 3, 3))(c),
        ),
        "repeats a few numbers",
    ),
    "a huge input": (model(image_size=10**9), "from 1 to 1,024"),
    "widths in words": (
        options(widths="wide"),
        "channels per block",
    ),
    "a size in words": (
        model(image_size="48"),
        "network's name, image",
    ),
    "no options": (lambda c: c["fer"]["model"].pop("options"), "network's name, image_size"),
    "an unknown network": (
        model(network="resnet"),
        r"expected a registered network \(.*shared_cnn.*\), found 'resnet'.*FER_PLUGINS",
    ),
    "code as its network": (
        model(network="os.abort"),
        "found 'os.abort'",
    ),
    "a path as its dataset": (lambda c: c["fer"]["dataset"].update(choice="../../x"), "incomplete"),
    "a path as its name": (lambda c: c["fer"]["dataset"].update(name="../x"), "incomplete"),
    "a tensor as its seed": (lambda c: c["fer"].update(seed=torch.zeros(2)), "incomplete"),
    "a list that holds itself": (own_list, "incomplete"),
    "a list of lists of lists": (thousands, "incomplete"),
}


@pytest.mark.parametrize(("change", "message"), STRANGE.values(), ids=STRANGE)
def test_a_checkpoint_that_does_not_fit_is_refused_at_once(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = save(tmp_path / "other.ckpt", change)
    started = time.perf_counter()
    if message:
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path)
    else:
        assert load_checkpoint(path).epoch == 1
    assert time.perf_counter() - started < 60  # unchecked, some would take for ever


def test_the_checkpoint_that_the_others_were_made_of_loads(tmp_path: Path) -> None:
    assert load_checkpoint(save(tmp_path / "fine.ckpt")).network.image_size == 16


def compressed(data: bytes) -> bytes:
    """The same parts, deflated: what a bomb would do."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "not a checkpoint, or a damaged one"),
        (lambda data: data[: len(data) // 2], "not a checkpoint, or a damaged one"),
        (lambda data: data[:-1], "not a checkpoint, or a damaged one"),
        (lambda data: to_png(np.zeros((4, 4), np.uint8)), "not a checkpoint, or a damaged one"),
        (lambda data: b"<html>Sign in</html>", "not a checkpoint, or a damaged one"),
        (lambda data: data.replace(b"data.pkl", b"data.pkx"), "not a checkpoint, or a damaged one"),
        (compressed, "found a compressed file"),
    ],
    ids=["empty", "half", "a byte short", "a picture", "a page", "no pickle", "compressed"],
)
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = save(tmp_path / "damaged.ckpt")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=rf"damaged\.ckpt: expected .*{message}"):
        load_checkpoint(path)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found a folder at"):
        load_checkpoint(tmp_path)


def test_plain_values_are_counted() -> None:
    assert is_plain({"a": [1, 2.0, None, True, {"b": "c"}]})
    assert not is_plain({"a": object()})
    assert not is_plain(list(range(MAX_VALUES + 1)))


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive and, in ``run``, a training that was cut off after an epoch."""
    place = tmp_path_factory.mktemp("cut_off")
    raw = write_zip(place / "archive.zip", tiny())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_DATA", str(place / "data"))
        patch.setattr("fer.tasks.train.measure_network", stop)
        with pytest.raises(KeyboardInterrupt):
            train_here(place / "run", raw, *TINY, "trainer.max_epochs=1")
    return place


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("optimizer_states"),
        lambda c: c.update(optimizer_states=[]),
        lambda c: c.update(optimizer_states=[{"state": {}, "param_groups": []}]),
        lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)),
        lambda c: c.pop("lr_schedulers"),
        lambda c: c.update(loops=None),
        lambda c: c.pop("callbacks"),
        lambda c: c["callbacks"].update(History={}),
        lambda c: c.update(callbacks={"History": {"rows": []}, "other": None}),
        lambda c: c["fer_progress"].update(cpu_random=torch.zeros(3)),
        lambda c: c["fer_progress"].pop("epoch_scheduler"),
        lambda c: c.update(fer_progress=None),
        lambda c: c.update(global_step="many"),
        lambda c: c.update(global_step=math.inf),
        lambda c: c["fer_progress"].update(threads=math.inf),
        lambda c: c["fer_progress"].update(threads="two\nlines"),
        lambda c: c["callbacks"].update(Pruning=[]),
    ],
)
def test_a_training_does_not_go_on_from_a_state_that_is_none(
    cut_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object]
) -> None:
    monkeypatch.setenv("FER_DATA", str(cut_off / "data"))
    values = torch.load(cut_off / "run/checkpoints/last.ckpt", weights_only=True)
    change(values)
    path = tmp_path / "run/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(values, path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: expected .*new run without resume"):
        train_here(tmp_path / "run", cut_off / "archive.zip", *TINY, f"resume={tmp_path / 'run'}")


@pytest.mark.parametrize(
    "change",
    [lambda c: c["fer_progress"].pop("threads"), lambda c: c["fer_progress"].update(threads=None)],
)
def test_a_training_goes_on_where_the_number_of_threads_is_not_known(
    cut_off: Path, tmp_path: Path, change: Callable[[Any], object]
) -> None:
    values = torch.load(cut_off / "run/checkpoints/last.ckpt", weights_only=True)
    change(values)
    torch.save(values, tmp_path / "last.ckpt")
    progress = read_progress(tmp_path / "last.ckpt")
    assert (progress.epochs, progress.threads) == (1, None)


def test_a_run_folder_cannot_name_code_to_run(tmp_path: Path) -> None:
    """``resume=`` repeats a command that stands in the folder, whoever wrote it there."""
    (tmp_path / ".hydra").mkdir()
    code = "optimizer._target_=os.system"
    (tmp_path / ".hydra/overrides.yaml").write_text(f"- seed=1\n- {code}")
    with pytest.raises(
        ConfigError, match=r"could run code of its own choice.*: optimizer\._target_"
    ):
        expand([f"resume={tmp_path}"])
    assert code in expand([f"resume={tmp_path}", code])  # the user's own


@pytest.mark.parametrize("file", [".hydra/overrides.yaml", "multirun.yaml"])
def test_yaml_is_never_evaluated(tmp_path: Path, file: str) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "jobs.json").write_text("[]")
    (tmp_path / file).write_text(
        f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path "
        f"[{str(tmp_path / 'executed')!r}]]"
    )
    with pytest.raises(ConfigError, match=r"resume: expected the folder|Hydra's record"):
        expand([f"resume={tmp_path}"])
    assert not (tmp_path / "executed").exists()


def test_no_yaml_and_no_pickle_is_read_in_an_unsafe_way() -> None:
    unsafe = re.compile(r"yaml\.(?:unsafe_|full_)?load\(|pickle\.load|(?<![.\w])eval\(|"
                        r"allow_pickle=True|weights_only=False|\|\s*safe\b|Markup\(")  # fmt: skip
    files = [*(ROOT / "fer").rglob("*.py"), *(ROOT / "fer").rglob("*.j2")]
    assert len(files) > 40
    found = [(path.name, unsafe.findall(path.read_text())) for path in files]
    assert [item for item in found if item[1]] == []


# --- archives --------------------------------------------------------------------------------


def refused(tmp_path: Path, archive: Path, message: str) -> None:
    """By both readers, and without a file anywhere."""
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for reader in (FER2013Reader(), FolderReader()):
        with pytest.raises(DataError, match=message):
            prepare("x", tmp_path / "data", reader, raw=archive)
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in after - before} <= {".lock"}


@pytest.mark.parametrize(
    "name", ["/evil.png", "../evil.png", "train/../../evil.png", "..\\evil.png", "C:\\evil.png"]
)
def test_an_archive_member_never_leaves_the_target(
    tmp_path: Path, rows: list[Row], name: str
) -> None:
    path = write_zip(tmp_path / "archive.zip", rows)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, to_png(rows[0][2]))
    refused(tmp_path, path, r"written outside the target folder.*evil\.png")


def test_a_member_without_a_name_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    path = write_zip(tmp_path / "archive.zip", rows)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(
            zipfile.ZipInfo("\0name"), b""
        )  # what follows a zero byte is no part of a name
    refused(tmp_path, path, "a member without a name")


def test_a_symbolic_link_in_an_archive_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    path = write_zip(tmp_path / "archive.zip", rows)
    link = zipfile.ZipInfo("train/happy/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path, path, r"a symbolic link.*link\.png")


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    path = write_zip(tmp_path / "archive.zip", rows)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"train/happy/bomb{number}.bmp", bytes(30 * 2**20))
    refused(tmp_path, path, r"would fill the disk: .* members that unpack to 94,\d{3},\d{3}")


def test_a_member_that_is_too_large_is_refused(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_module, "MAX_MEMBER_BYTES", 1000)
    refused(tmp_path, write_zip(tmp_path / "archive.zip", rows), r"a member of \d,\d{3} bytes")


def test_an_archive_of_too_many_members_is_refused(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_module, "MAX_MEMBERS", 10)
    path = write_zip(tmp_path / "archive.zip", rows)
    refused(tmp_path, path, rf"{len(rows)} members that .*\(at most 10 and")


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_says(
    tmp_path: Path, rows: list[Row]
) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (usage, emotion, image) in enumerate(rows):
            split = "train" if usage == "Training" else "test"
            archive.writestr(f"{split}/{emotion}/{usage}_{number}.png", to_png(image))
        archive.writestr("train/happy/Training_bomb.png", bytes(50 * 2**20))
    size = struct.pack("<L", 50 * 2**20)
    data = path.read_bytes()
    assert data.count(size) == 2  # in the member's own header and in the directory
    path.write_bytes(data.replace(size, struct.pack("<L", 100)))
    refused(tmp_path, path, r"Training_bomb\.png")


def test_an_archive_in_an_archive_is_left_alone(tmp_path: Path, rows: list[Row]) -> None:
    inner = write_zip(tmp_path / "inner.zip", rows)
    path = write_zip(tmp_path / "archive.zip", rows)
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(inner, "train/happy/inner.zip")
    prepared = prepare("x", tmp_path / "data", FER2013Reader(), raw=path)
    assert len(prepared.entries) == len(rows)
    assert any("inner.zip" in warning for warning in prepared.integrity["warnings"])


# --- images ----------------------------------------------------------------------------------


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A gray PNG that claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        length, checksum = (struct.pack(">I", n) for n in (len(body), zlib.crc32(kind + body)))
        return length + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    )


@pytest.mark.parametrize(
    ("width", "height"),
    [(10_000, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1), (1, MAX_SIDE + 1), (40_000, 1)],
)
def test_a_decompression_bomb_or_an_absurd_size_is_refused_unread(width: int, height: int) -> None:
    bomb = zlib.compress(bytes(10**7), 9)
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"bomb\.png: expected an image"):
        decode(png_of(width, height, bomb), "bomb.png")
    assert time.perf_counter() - started < 1


def test_a_large_but_reasonable_image_is_read() -> None:
    assert decode(to_png(np.zeros((MAX_SIDE, 2), np.uint8)), "x").shape == (MAX_SIDE, 2)


# --- tables ----------------------------------------------------------------------------------


@given(st.text(max_size=12) | st.sampled_from(FORMULAS) | st.integers().map(str))
def test_no_cell_starts_a_formula_and_every_cell_comes_back(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    if cell[:1] in tuple("=+-@\t\r"):
        float(cell)  # a number, which a spreadsheet shows as it is


def test_file_names_cannot_bring_formulas_into_the_manifest(
    tmp_path: Path, rows: list[Row]
) -> None:
    usages = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    folder = tmp_path / "raw"
    for number, (usage, emotion, image) in enumerate(rows):
        place = folder / usages[usage] / emotion
        place.mkdir(parents=True, exist_ok=True)
        (place / f"={number}+cmd|' C'!A1.png").write_bytes(to_png(image))
    prepared = prepare("mine", tmp_path / "data", FolderReader(), raw=folder)
    check_cells(tmp_path / "data/manifest.csv")
    again = prepare("mine", tmp_path / "data", FolderReader(), raw=folder)
    assert again.entries == prepared.entries
    assert load_images(again, 16, 1).shape[0] == len(rows)


def check_cells(path: Path) -> None:
    with path.open(newline="") as file:
        for row in csv.reader(file):
            for cell in row:
                assert not FORMULA.match(cell) or cell.startswith("'") or float(cell) <= 0, cell


def test_every_table_is_written_without_formulas(tmp_path: Path) -> None:
    """History, robustness, cross-dataset, sweep: all of them go through :func:`write_csv`."""
    write_csv(tmp_path / "t.csv", ["a", "b"], [{"a": text, "b": -1.5} for text in FORMULAS])
    entries = [
        Entry(text.replace("/", "_"), "happy", "train", text, "0", text, text, text)
        for text in FORMULAS
    ]
    write_manifest(tmp_path / "m.csv", entries)
    assert read_manifest(tmp_path / "m.csv") == entries
    target, even = np.zeros(len(FORMULAS), np.int64), np.full((len(FORMULAS), 7), 1 / 7, np.float32)
    write_predictions(tmp_path / "p.csv", FORMULAS, target, even)
    assert read_predictions(tmp_path / "p.csv")[0] == FORMULAS
    for name in ("t.csv", "m.csv", "p.csv"):
        check_cells(tmp_path / name)
    sources = "".join(path.read_text() for path in (ROOT / "fer").rglob("*.py"))
    assert sources.count("csv.DictWriter(") == 1 and "csv.writer(" not in sources


# --- pages -----------------------------------------------------------------------------------

EVIL = "<img src=x onerror=alert(1)>\"'&"


def check_page(path: Path) -> None:
    page = path.read_text()
    assert "onerror=alert(1)" in page, "the name is not on the page: nothing was tested"
    assert "<img src=x" not in page and "alert(1)>" not in page


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file names")
def test_file_names_cannot_bring_html_into_the_report_of_a_dataset(
    tmp_path: Path, rows: list[Row]
) -> None:
    usages = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    folder = tmp_path / "raw"
    for number, (usage, emotion, image) in enumerate(rows):
        place = folder / usages[usage] / emotion
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(to_png(image))
    for name in (f"1{EVIL}.png", f"2{EVIL}.png"):  # duplicates, which the page lists by name
        (folder / "train/happy" / name).write_bytes(to_png(rows[0][2]))
    (folder / f"train/sad/{EVIL}.png").write_bytes(b"no image")  # listed with its error
    (folder / f"{EVIL}.html").write_bytes(b"")
    prepare(
        "mine", tmp_path / "data", FolderReader(), raw=folder, undecodable="drop",
        report=write_dataset_report,
    )  # fmt: skip
    check_page(tmp_path / "data/report.html")


def test_names_cannot_bring_html_into_the_page_of_a_run_or_an_evaluation(tmp_path: Path) -> None:
    from fer.evaluation.metrics import measure_split

    target = np.arange(7)
    even = np.eye(7, dtype=np.float32)
    metrics = measure_split(EVIL, EVIL, target, even, np.zeros(7, bool), resamples=100, seed=0)
    run: Any = {EVIL: {EVIL: EVIL}}
    write_run_report(
        tmp_path / "report.html", title=EVIL, subtitle=EVIL, notes=[EVIL], metrics=metrics,
        provenance=run, config_yaml=EVIL, left_out=[EVIL],
        sections=[subgroups_section({EVIL: {EVIL: metrics}})],
    )  # fmt: skip
    check_page(tmp_path / "report.html")


def test_an_image_that_is_a_page_is_no_image() -> None:
    with pytest.raises(DataError, match="no known format"):
        decode(b"<svg onload=alert(1)></svg>", "x.png")
