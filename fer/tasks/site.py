"""A network as a page for browsers: a static folder that any web server can show.

The page is ``fer/web``: pictures and camera images never leave the browser, in which ONNX Runtime
computes. Beside it lie the network, YuNet, what the page has to know of both (``demo.json``), a
drawn picture to begin with, and ONNX Runtime's own files. Those are fetched with npm, in one
version whose checksum is known, or taken from a folder that the user names.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fer import __version__
from fer.core import labels
from fer.core.composition import config_folder
from fer.core.errors import ConfigError, DataError
from fer.core.files import is_ours, read_json, write_bytes, write_json, write_text
from fer.core.words import percent
from fer.data import detection
from fer.data.drawn.faces import draw_face
from fer.data.drawn.people import STYLE_B, Style
from fer.data.images import encode_png
from fer.evaluation.attribution import class_activation
from fer.evaluation.perturbations import GAMMA
from fer.model.checkpoint import Checkpoint

PAGE = Path(__file__).resolve().parent.parent / "web"
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzc"
    "V7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""Of that version's archive, as npm writes it: the algorithm and the digest in base 64."""
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""ONNX Runtime's files that the page loads, from the package's ``dist/``."""
PATIENCE = 600
"""Seconds that npm may take."""
DESCRIPTION, MARK = "demo.json", "fer_version"
"""The file that every such folder has, and a key in it."""
DAMAGE = ("blur", "occlusion", "low_light")
DRAWN = ("happy", "surprise")
"""Expressions of the faces in the picture that the page begins with."""
SIDE = 320
"""Side in pixels of each of them."""
OFFICIAL = {"fer2013": ", PrivateTest"}
"""Names that the authors of datasets gave their test splits."""
README = f"""---
title: Seven expressions
sdk: static
app_file: index.html
license: mit
---
A network that names the expression of a face, in the browser. Written by fer-lab {__version__};
show it with any web server, such as `python -m http.server`. Pictures and camera images stay in
the browser.

Third parties, all under the MIT licence: ONNX Runtime Web (`ort*`), Copyright (c) Microsoft
Corporation; YuNet (`detector.onnx`), Copyright (c) Shiqi Yu, from OpenCV's model zoo.
"""


def check_site(folder: Path) -> None:
    """Refuse to write a page where anything else lies.

    Raises:
        ConfigError: it is no folder, or one with other files and without an earlier page.
    """
    described = folder / DESCRIPTION
    earlier = described.is_file() and is_ours(described, MARK)
    if folder.is_dir() and (earlier or not any(folder.iterdir())):
        return
    if folder.exists() or folder.is_symlink():
        found = "a folder with other files" if folder.is_dir() else "a file"
        raise ConfigError(
            f"output: expected a new or empty folder, or that of an earlier page, found {found}: "
            f"{folder}. Give another name: output=DIR"
        )


def find_runtime(folder: str | None) -> dict[str, bytes]:
    """ONNX Runtime's files for browsers, by name: from a folder, or fetched with npm.

    Raises:
        ConfigError: the folder lacks them, or npm is missing or does not bring what is expected.
    """
    if folder is None:
        return fetch_runtime()
    missing = [name for name in RUNTIME if not (Path(folder) / name).is_file()]
    if missing:
        raise ConfigError(
            f"runtime: expected a folder with {' and '.join(RUNTIME)}, found none of the name "
            f"{' or '.join(missing)} in {folder}. They are in dist/ of npm's package {PACKAGE}, "
            f"such as node_modules/{PACKAGE}/dist."
        )
    return {name: (Path(folder) / name).read_bytes() for name in RUNTIME}


def fetch_runtime() -> dict[str, bytes]:
    """Fetch ONNX Runtime's files with npm, from the registry that the user's npm is set to.

    Raises:
        ConfigError: npm is missing or fails, or the archive is another one.
    """
    expected = f"runtime: expected npm to fetch {PACKAGE} {VERSION}, found "
    instead = f"Or fetch it elsewhere, and name the folder with {RUNTIME[0]}: runtime=FOLDER"
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(f"{expected}no npm. Install it: it comes with Node.js. {instead}")
    with tempfile.TemporaryDirectory() as place:
        # What npm has fetched before it takes from its cache.
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--prefer-offline"]
        try:
            done = subprocess.run(
                [*command, "--pack-destination", place],
                capture_output=True, text=True, encoding="utf-8", errors="replace",
                timeout=PATIENCE,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"{expected}none after {PATIENCE} s. Try again. {instead}") from error
        archives = list(Path(place).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            words = " ".join(done.stderr.split())[:300] or "no archive"
            raise ConfigError(f"{expected}that it fails: {words}. Correct it. {instead}")
        data = archives[0].read_bytes()
        digest = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
        if digest != INTEGRITY:
            raise ConfigError(
                f"{expected}an archive of another checksum ({digest}, not {INTEGRITY}); nothing "
                f"was written. Empty npm's cache (npm cache clean --force), and look at its "
                f"registry (npm config get registry). {instead}"
            )
        with tarfile.open(archives[0]) as archive:
            files = {name: archive.extractfile(f"package/dist/{name}") for name in RUNTIME}
            return {name: file.read() for name, file in files.items() if file is not None}


def write_site(
    folder: Path, checkpoint: Checkpoint, graph: bytes, runtime: dict[str, bytes]
) -> None:
    """Write the page of a network.

    Args:
        folder: made if it is not there; see :func:`check_site`.
        checkpoint: what was exported.
        graph: it as ONNX, with the output ``maps`` where it has class activation maps.
        runtime: ONNX Runtime's files, see :func:`find_runtime`.

    Raises:
        ConfigError: the detector's weights are missing.
    """
    detector = detector_graph()
    front, *others = sorted(PAGE.iterdir(), key=lambda path: path.suffix != ".html")
    (folder / front.name).unlink(missing_ok=True)  # no page of an old and a new network
    write_json(folder / DESCRIPTION, describe_site(checkpoint))
    write_text(folder / "README.md", README)
    files = {path.name: path.read_bytes() for path in others if path.is_file()}
    files |= {"network.onnx": graph, "detector.onnx": detector, "sample.png": draw_sample()}
    for name, data in (files | runtime).items():
        write_bytes(folder / name, data)
    write_bytes(folder / front.name, front.read_bytes())


def describe_site(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the page has to know of the network, the detector and the damage."""
    network = checkpoint.network
    sure = detection.FaceDetector()
    damage = {}
    for name in DAMAGE:
        text = (config_folder() / "perturbation" / f"{name}.yaml").read_text(encoding="utf-8")
        damage[name] = yaml.safe_load(text)[name]["severities"]
    return {
        MARK: __version__,
        "emotions": list(labels.EMOTIONS),
        "facts": describe_network(checkpoint),
        "size": network.image_size,
        "channels": network.in_channels,
        "maps": class_activation(network) is not None,
        "damage": damage,
        "gamma": GAMMA,
        "detector": {
            "smallest": detection.SMALLEST,
            "least": detection.LEAST,
            "usual": detection.USUAL,
            "step": detection.STEP,
            "longest": detection.LONGEST,
            "overlap": detection.OVERLAP,
            "min_size": sure.min_size,
            "min_confidence": sure.min_confidence,
        },
    }


def describe_network(checkpoint: Checkpoint) -> str:
    """What the network was trained on and how often it was right there, in a sentence or two."""
    network, trained_on = checkpoint.network, checkpoint.extras["dataset"]
    name = str(trained_on["name"])
    text = f"{network.title}, {network.count_parameters():,} parameters, trained on {name}"
    scores = find_scores(checkpoint)
    if scores is not None:
        text += (
            f"; right about {percent(scores['accuracy'])} of the {scores['samples']:,} images of "
            f"its test split{OFFICIAL.get(name, '')}"
        )
    if trained_on["generator"] is not None:
        text += ". These are drawn faces: what it says of human faces means nothing"
    return f"{text}."


def find_scores(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """``accuracy`` and ``samples`` on its own dataset's test split; None if they are not there.

    They stand in the ``metrics.json`` of the training's folder, or in a study's results of the
    checkpoint's name beside it, as those of ``pretrained`` do.
    """
    trained_on, seed = checkpoint.extras["dataset"], checkpoint.extras["seed"]
    metrics = {"dataset": str, "split": str, "accuracy": float, "samples": int}
    evaluation = {"seed": int, "data": {"fingerprint": str}, "metrics": metrics}
    try:
        study = checkpoint.path.with_suffix(".json")
        if study.is_file():
            found = [
                one["metrics"]
                for one in read_json(study, {"evaluations": [evaluation]})["evaluations"]
                if one["seed"] == seed and one["data"]["fingerprint"] == trained_on["fingerprint"]
            ]
        else:
            found = [read_json(checkpoint.path.parent.parent / "metrics.json", metrics)]
    except DataError:
        return None
    own = [one for one in found if (one["dataset"], one["split"]) == (trained_on["name"], "test")]
    return own[0] if own else None


def detector_graph() -> bytes:
    """YuNet as ONNX for pictures ``(1, 3, H, W)`` float32 BGR, H and W any multiples of 32.

    OpenCV's file has 640 × 640, and OpenCV itself changes it.

    Raises:
        ConfigError: the package that brings it is not installed.
    """
    import onnx  # there, since the network was exported

    model = onnx.load(detection.find_weights())
    del model.graph.value_info[:]  # shapes in between, of 640 × 640
    (picture,) = model.graph.input
    for index, side in ((2, "height"), (3, "width")):
        picture.type.tensor_type.shape.dim[index].dim_param = side
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"places_{output.name}"
    data: bytes = model.SerializeToString()
    return data


def draw_sample() -> bytes:
    """The picture that the page begins with, as PNG: drawn faces side by side."""
    style = Style(**{**vars(STYLE_B), "size": SIDE})
    rng = np.random.default_rng(1)
    return encode_png(np.hstack([draw_face(emotion, style, rng).image for emotion in DRAWN]))
