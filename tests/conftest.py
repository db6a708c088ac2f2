"""Tiny raw datasets in every public form, written by the tests themselves."""

from __future__ import annotations

import copy
import functools
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # The test processes share the cores. torch reads this when it is imported, here and in the
    # programs that the tests start; threads that wait for each other's cores are slow.
    _share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _share)))

import numpy as np
import pytest
from filelock import FileLock, Timeout
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from PIL import Image

from fer.core import composition, labels
from fer.core.composition import config_folder
from fer.core.words import plain
from fer.data.preparation import prepare
from fer.data.readers import fer2013, rafdb
from fer.evaluation.metrics import measure_split
from fer.report.page import environment
from fer.runs.ownership import LOCK
from tests.forked import run_forked
from tests.sketches import is_sketching, render, sketch

ROOT = Path(__file__).resolve().parent.parent
PER_SPLIT = {"Training": 4, "PublicTest": 2, "PrivateTest": 2}
"""Images per emotion in the tiny FER2013."""

Row = tuple[str, str, np.ndarray]
"""Usage, emotion and pixels ``(48, 48)`` uint8."""


def tiny_rows() -> list[Row]:
    """A tiny FER2013: noise, decoded from its own JPEG so that every form has equal pixels."""
    rng = np.random.default_rng(0)
    rows = []
    for usage, count in PER_SPLIT.items():
        for emotion in labels.EMOTIONS:
            for _ in range(count):
                noise = rng.integers(0, 256, (48, 48), dtype=np.uint8)
                rows.append((usage, emotion, decode(to_jpeg(noise))))
    return rows


def to_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def to_png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def write_folder(folder: Path, rows: list[Row]) -> Path:
    """The image form, unpacked. PNG keeps the decoded pixels."""
    for number, (usage, emotion, image) in enumerate(rows):
        split = "train" if usage == "Training" else "test"
        path = folder / split / emotion / f"{usage}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_png(image))
    return folder


def write_zip(path: Path, rows: list[Row]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, (usage, emotion, image) in enumerate(rows):
            split = "train" if usage == "Training" else "test"
            archive.writestr(f"{split}/{emotion}/{usage}_{number}.png", to_png(image))
    return path


def write_table(path: Path, rows: list[Row], header: str = "emotion,pixels,Usage") -> Path:
    """``fer2013.csv`` or, with the other header, ``icml_face_data.csv``."""
    columns = [name.strip().lower() for name in header.split(",")]
    lines = [header]
    for usage, emotion, image in rows:
        cells = {
            "emotion": str(fer2013.TABLE_EMOTIONS.index(emotion)),
            "pixels": " ".join(map(str, image.ravel())),
            "usage": usage,
        }
        lines.append(",".join(cells[name] for name in columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_rafdb(
    folder: Path, per_class: int = 5, *, mirror: bool = False, original: bool = False
) -> Path:
    """A tiny RAF-DB; every face is noise under a colour of its label.

    Args:
        folder: where to write it.
        per_class: images of each class in train and in test.
        mirror: the mirror's layout, with its tables, instead of the authors'.
        original: the authors' layout with photographs instead of aligned images. Their boxes are
            the faces that the other forms hold, and each has its landmarks and attributes.
    """
    rng = np.random.default_rng(1)
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for split, width in (("train", 5), ("test", 4)):
        number = 0
        for code in rafdb.CODES:
            for _ in range(per_class):
                number += 1
                name = f"{split}_{number:0{width}d}"
                image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                image[:5] = 30 * int(code)
                if mirror:
                    path = folder / "DATASET" / split / code / f"{name}_aligned.jpg"
                elif original:
                    path = folder / "Image" / "original" / f"{name}.jpg"
                    write_annotation(folder, name, "7 4 27 24 \n", "2\n1\n3\n")
                    image = np.pad(image, ((4, 6), (7, 13), (0, 0)))
                else:
                    path = folder / "Image" / "aligned" / f"{name}_aligned.jpg"
                write_file(path, to_png(image))
                lines[split].append(f"{path.name if mirror else name + '.jpg'} {code}\n")
    if mirror:
        for split in lines:
            rows = [line.replace(" ", ",") for line in lines[split]]
            write_file(folder / f"{split}_labels.csv", "".join(["image,label\n", *rows]).encode())
    else:
        write_file(folder / rafdb.LIST_FILE, "".join(lines["train"] + lines["test"]).encode())
    return folder


def write_annotation(folder: Path, name: str, box: str, codes: str) -> None:
    """The authors' text files of one original: eyes at (12, 10) and (22, 10)."""
    points = "12\t10\n22\t10\n17\t14\n13\t19\n21\t19\n"
    write_file(folder / rafdb.BOXES / f"{name}_boundingbox.txt", box.encode())
    write_file(folder / rafdb.MANUAL / f"{name}_manu_attri.txt", (points + codes).encode())


def write_file(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


RENDERING = ("tests/report/", "tests/evaluation/test_saliency.py")
"""Where figures are looked at. Modules that are slow as a whole render them, too."""


@pytest.fixture(scope="module", autouse=True)
def figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are built everywhere, and rendered where that is tested.

    A slow test of another module does not render; a test that uses ``rendering`` does.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not (
            request.node.nodeid.startswith(RENDERING) or request.node.get_closest_marker("slow")
        ):
            sketch(patch.setattr)
        yield


@pytest.fixture
def rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render the figures of one test in a module that only builds them."""
    render(monkeypatch.setattr)


@pytest.fixture(scope="session", autouse=True)
def own_command_line() -> Iterator[None]:
    """Not pytest's, whose options some of the code would read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py"])
        yield


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return tiny_rows()


@pytest.fixture(scope="session")
def tiny_zip(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    return write_zip(tmp_path_factory.mktemp("tiny") / "archive.zip", rows)


@pytest.fixture(scope="session")
def prepared_tiny(tmp_path_factory: pytest.TempPathFactory, tiny_zip: Path) -> Path:
    """The tiny FER2013, prepared from ``tiny_zip``; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("prepared") / "fer2013"
    prepare("fer2013", folder, fer2013.FER2013Reader(), raw=tiny_zip)
    return folder


@pytest.fixture
def tiny_ready(tmp_path: Path, prepared_tiny: Path) -> Path:
    """A prepared dataset at ``d``, where preparing ``tiny_zip`` finds it."""
    return shutil.copytree(prepared_tiny, tmp_path / "d")


@pytest.fixture
def tiny_data(tmp_path: Path, prepared_tiny: Path, tiny_zip: Path) -> Path:
    """``tiny_zip``, of which a command finds the prepared dataset in its data folder."""
    shutil.copytree(prepared_tiny, tmp_path / "data/fer2013")
    return tiny_zip


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own prepared data."""
    monkeypatch.setenv("FER_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Iterator[Path]:
    """Real data, where ``FER_SHARED_DATA`` says that there is some."""
    folder = os.environ.get("FER_SHARED_DATA")
    if not folder or not (Path(folder) / "fer2013" / "archive.zip").is_file():
        pytest.skip("FER_SHARED_DATA does not hold fer2013/archive.zip")
    yield Path(folder)


def compose(*overrides: str, config: str = "train", hydra: bool = False) -> DictConfig:
    """A configuration, with Hydra's own part if asked; the choices of groups are composed once.

    The command line has no say in it. Hydra's list of overrides has the choices alone.
    """
    choices, values = [], []
    for item in overrides:
        override = OverridesParser.create().parse_override(item)
        key = override.key_or_group
        own = key.startswith("hydra.") and not hydra  # is gone once it is composed
        is_choice = own or "/" in key or (config_folder() / key).is_dir()
        choices.append(item) if is_choice else values.append(override)
    cfg = copy.deepcopy(compose_choices(config, tuple(choices), hydra))
    if hydra:
        cfg.hydra.runtime.cwd = str(Path.cwd())
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    return cfg


@functools.cache
def compose_choices(config: str, choices: tuple[str, ...], hydra: bool) -> DictConfig:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py"])  # other tests, with others, are given the same
        return composition.compose(config, choices, return_hydra_config=hydra)


READ_LATE = {"COMP_LINE", "COMP_POINT", "FER_DATA", "FER_PLUGINS", "HYDRA_FULL_ERROR"}
"""Variables that a program does not read while it imports libraries."""


def run_program(
    *arguments: str,
    cwd: Path,
    check: bool = True,
    env: dict[str, str] | None = None,
    sketching: bool | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``python <arguments>`` as a user would, from ``cwd``.

    ``sketching`` says whether figures are built alone, by default as in the test that asks. It
    holds for the entry points of ``fer``, unless ``env`` has more than ``READ_LATE``; all other
    programs render.
    """
    command = list(arguments)
    if command[0].endswith(".py"):
        command[0] = str(ROOT / command[0])
    whole = {**os.environ, **(env or {})}
    sketching = is_sketching() if sketching is None else sketching
    if set(env or {}) <= READ_LATE and (command[0].endswith(".py") or command[:2] == ["-m", "fer"]):
        done = run_forked(command, cwd, whole, timeout=300, sketching=sketching)
    else:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=whole,
            capture_output=True,
            text=True,
            timeout=300,
        )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def refusal(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    """What ``python <arguments>`` says when it ends with a message instead of a result."""
    done = run_program(*arguments, cwd=cwd, check=False, env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def run_record(**changes: Any) -> dict[str, Any]:
    """``run.json`` of a training as a program writes it, but for ``changes``."""
    return {
        "command": "python train.py", "git": None, "notes": [], "started": "", "seed": 0,
        "epochs": 2, "best_epoch": 1, "images_per_second": 1.0, "wall_seconds": 1.0,
        "versions": {"fer": "1", "torch": "2", "lightning": "2"},
        "hardware": {"device": "cpu", "cpu": "a CPU", "device_name": None, "threads": 2,
                     "precision": "32-true"},
        "config": {"dataset": {"generator": None}, "metrics": {"resamples": 100, "seed": 0}},
        "dataset": data_record(64 * "0"),
        "validation": {"macro_f1": 0.5, "accuracy": 0.5},
    } | changes  # fmt: skip


def data_record(fingerprint: object) -> dict[str, Any]:
    """``dataset`` of a run's ``run.json``."""
    fingerprints = dict.fromkeys(("train", "val", "test"), fingerprint)
    return {"fingerprint": fingerprint, "fingerprints": fingerprints, "train_counts": None}


def network_record(dataset: str, **changes: Any) -> dict[str, Any]:
    """``checkpoint`` of an evaluation's ``run.json``: a network that was trained on ``dataset``."""
    return {
        "path": f"{dataset}.ckpt", "sha256": 64 * "0", "dataset": {"name": dataset}, "seed": 0,
        "priors": None,
    } | changes  # fmt: skip


def metrics_record(**changes: Any) -> dict[str, Any]:
    """``metrics.json`` of 14 images, but for ``changes``."""
    target = np.arange(14) % 7
    right = 0.4 * np.eye(7)[target] + 0.6 / 7
    found = measure_split("faces", "test", target, right, target < 0, resamples=100)
    return {**found, **changes}


def is_held(folder: Path) -> bool:
    """Whether a process works in a folder."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def fragment(name: str, content: object) -> str:
    """HTML of one part of a page, by the name of its macro in ``macros.html.j2``."""
    macros: Any = environment().get_template("macros.html.j2").module
    return plain(str(getattr(macros, name)(content)))
