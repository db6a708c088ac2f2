"""A network as a page: which files, from where, over what; and the server that shows it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from fer.core.errors import ConfigError
from fer.core.files import write_bytes, write_json
from fer.data.detection import FaceDetector
from fer.data.images import decode
from fer.evaluation.attribution import attributions
from fer.model.checkpoint import load_checkpoint
from fer.tasks import site
from fer.tasks.demo import HOST, serving
from fer.tasks.export import export_site, make_checked
from fer.tasks.site import RUNTIME, check_site, describe_network, draw_sample, find_runtime
from tests.conftest import ROOT, run_program
from tests.data.test_detection import needs_weights
from tests.tasks.test_export import SIZE, make_checkpoint, pictures

PAGE = {"index.html", "style.css", "demo.js", "faces.js"}


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder with files that are called like ONNX Runtime's."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in RUNTIME:
        (folder / name).write_bytes(name.encode())
    return folder


@needs_weights
def test_a_page_is_a_folder_of_its_own(tmp_path: Path, runtime: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    checkpoint = make_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    folder = tmp_path / "page"
    for _ in range(2):  # an earlier page is replaced
        assert "64 drawn faces" in export_site(checkpoint, folder, str(runtime), tmp_path)
    names = {path.name for path in folder.iterdir()}
    others = {"README.md", "demo.json", "network.onnx", "detector.onnx", "sample.png"}
    assert names == PAGE | others | set(RUNTIME)
    known = json.loads((folder / "demo.json").read_text())
    assert (known["size"], known["channels"], known["maps"]) == (SIZE, 1, True)
    assert known["damage"]["low_light"][0] == {"gain": 0.4, "photons": 1000}
    assert all(len(steps) == 5 for steps in known["damage"].values())
    # What a static Space asks for, at the start.
    assert (folder / "README.md").read_text().startswith("---\ntitle: ")
    assert (folder / "README.md").read_text().count("\nsdk: static\n") == 1
    detector = onnxruntime.InferenceSession(folder / "detector.onnx")
    found = detector.run(["cls_8"], {"input": np.zeros((1, 3, 64, 96), np.float32)})
    assert found[0].shape == (1, 8 * 12, 1)


def test_the_maps_of_the_page_are_grad_cams_before_relu(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    checkpoint = make_checkpoint(tmp_path / "a.ckpt")
    images = pictures(4, 1)
    data, difference = make_checked(checkpoint, "web", images)
    assert difference < 1e-4
    session = onnxruntime.InferenceSession(data)
    probabilities, maps = session.run(
        ["probabilities", "maps"], {"images": images.transpose(0, 3, 1, 2)}
    )
    assert maps.shape == (4, 7, SIZE // 4, SIZE // 4)
    best = probabilities.argmax(axis=1)
    own = np.maximum(maps[np.arange(4), best], 0).mean(axis=(1, 2))
    expected = attributions(checkpoint.network, images, best, "grad_cam").mean(axis=(1, 2))
    np.testing.assert_allclose(own / expected, (SIZE // 4) ** 2, rtol=1e-3)


def test_a_page_replaces_nothing_but_an_earlier_one(tmp_path: Path) -> None:
    check_site(tmp_path / "new")
    check_site(tmp_path)  # empty
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"output: .*found a folder with other files: .*=DIR"):
        check_site(tmp_path)
    with pytest.raises(ConfigError, match="found a file"):
        check_site(tmp_path / "mine.txt")
    (tmp_path / "demo.json").write_text("{}")  # somebody else's
    with pytest.raises(ConfigError, match="other files"):
        check_site(tmp_path)
    write_json(tmp_path / "demo.json", {"fer_version": "0"})
    check_site(tmp_path)


@needs_weights
def test_what_fails_half_way_is_no_page_and_can_be_written_anew(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    checkpoint = make_checkpoint(tmp_path / "a.ckpt")
    folder, files = tmp_path / "page", find_runtime(str(runtime))
    site.write_site(folder, checkpoint, b"graph", files)

    def fail(path: Path, data: bytes) -> Path:
        if path.name == RUNTIME[-1]:
            raise OSError("disk full")
        return write_bytes(path, data)

    monkeypatch.setattr(site, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        site.write_site(folder, checkpoint, b"graph", files)
    assert not (folder / "index.html").exists()
    check_site(folder)


def test_a_runtime_folder_without_the_files_is_refused(tmp_path: Path, runtime: Path) -> None:
    assert find_runtime(str(runtime)) == {name: name.encode() for name in RUNTIME}
    (runtime / RUNTIME[1]).unlink()
    with pytest.raises(ConfigError, match=rf"runtime: .*name {RUNTIME[1]} in .*node_modules"):
        find_runtime(str(runtime))
    with pytest.raises(ConfigError, match=r"found none of the name .* or "):
        find_runtime(str(tmp_path / "nowhere"))


def put_npm(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An npm of our own, alone on the path."""
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def archive() -> bytes:
    """npm's archive of the package, with files of a few bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name in RUNTIME:
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            file.addfile(member, io.BytesIO(name.encode()))
    return buffer.getvalue()


@pytest.mark.skipif(os.name == "nt", reason="the npm of this test is a script")
def test_npm_brings_one_version_of_one_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = archive()
    (tmp_path / "a.tgz").write_bytes(data)
    copy = (
        "import pathlib\n"
        f"assert sys.argv[1:3] == ['pack', 'onnxruntime-web@{site.VERSION}'], sys.argv\n"
        f"data = pathlib.Path({str(tmp_path / 'a.tgz')!r}).read_bytes()\n"
        "(pathlib.Path(sys.argv[-1]) / 'onnxruntime-web.tgz').write_bytes(data)\n"
    )
    put_npm(tmp_path / "bin", copy, monkeypatch)
    with pytest.raises(ConfigError, match=r"another checksum \(sha512-.*nothing was written"):
        find_runtime(None)
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    monkeypatch.setattr(site, "INTEGRITY", f"sha512-{digest}")
    assert find_runtime(None) == {name: name.encode() for name in RUNTIME}


@pytest.mark.skipif(os.name == "nt", reason="the npm of this test is a script")
def test_no_npm_and_one_that_fails_are_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_npm(tmp_path / "bin", "sys.exit('npm error code ENOTFOUND')", monkeypatch)
    with pytest.raises(ConfigError, match=r"it fails: npm error code ENOTFOUND.*runtime=FOLDER"):
        find_runtime(None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"runtime: .*found no npm.*Node.js.*runtime=FOLDER"):
        find_runtime(None)


def test_the_page_says_what_the_network_was_trained_on_and_how_good_it_is(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert describe_network(checkpoint).endswith("parameters, trained on fer2013.")
    scores = {"dataset": "fer2013", "split": "test", "accuracy": 0.5, "samples": 3589}
    write_json(tmp_path / "run/metrics.json", scores)
    assert "right about 50.0 % of the 3,589 images of its test split, PrivateTest." in (
        describe_network(checkpoint)
    )
    write_json(tmp_path / "run/metrics.json", {**scores, "dataset": "rafdb"})
    assert "right" not in describe_network(checkpoint)
    study = json.loads((ROOT / "fer/pretrained/fer2013.json").read_text())
    (own,) = (one["metrics"] for one in study["evaluations"] if one["seed"] == 1)
    assert f"right about {own['accuracy']:.1%}"[:-1] in describe_network(
        load_checkpoint("pretrained")
    )
    dataset = {**checkpoint.extras["dataset"], "generator": {"train": 7}}
    drawn = make_checkpoint(tmp_path / "drawn.ckpt", dataset=dataset)
    assert "what it says of human faces means nothing" in describe_network(drawn)


@needs_weights
def test_the_detector_finds_the_drawn_faces_that_the_page_begins_with() -> None:
    assert len(FaceDetector()(decode(draw_sample(), "sample"))) == len(site.DRAWN)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.mjs", "text/javascript"), ("a.js", "text/javascript"), ("a.wasm", "application/wasm")],
)
def test_files_are_served_as_what_they_are(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_text("1")
    with serving(tmp_path, 0) as server:
        assert server.server_address[0] == HOST
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://{HOST}:{server.server_port}/{name}"
        # The machine's proxy has no part in it.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address) as answer:
            assert answer.headers["Content-Type"].split(";")[0] == kind
        server.shutdown()
        thread.join()


def test_a_port_in_use_is_one_message(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port: .* found {port}: .*port=0"):
            serving(tmp_path, port).__enter__()


@needs_weights
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent in another way")
def test_the_demo_ends_quietly_with_ctrl_c(tmp_path: Path, runtime: Path) -> None:
    pytest.importorskip("onnxruntime")
    make_checkpoint(tmp_path / "a.ckpt")
    run_program(
        "-m", "fer", "export", "checkpoint=a.ckpt", "format=web", f"runtime={runtime}",
        "output=page", cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "page/index.html").is_file()
    command = ["demo", "checkpoint=a.ckpt", "open=false", "port=0", f"runtime={runtime}"]
    before = {path.name for path in tmp_path.iterdir()}
    with subprocess.Popen(
        [sys.executable, "-m", "fer", *command], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith(f"http://{HOST}:") and "until Ctrl-C" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stdout.read() + process.stderr.read() == ""
    assert {path.name for path in tmp_path.iterdir()} == before
