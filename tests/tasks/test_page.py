"""The page in a real browser: it says what Predictor says, and lets nothing out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer.core import labels
from fer.core.errors import ConfigError
from fer.data.detection import FaceDetector, crop
from fer.data.images import decode, read_picture, to_input
from fer.evaluation.perturbations import Draws, gaussian_blur, low_light
from fer.evaluation.perturbations import occlusion as cover
from fer.evaluation.predictor import Predictor
from fer.model.checkpoint import load_checkpoint
from fer.tasks.demo import HOST, serving
from fer.tasks.export import export_site
from fer.tasks.site import draw_sample, find_runtime
from tests.browser import Browser
from tests.conftest import to_jpeg, to_png
from tests.data.test_detection import needs_weights

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")
PRINTED = f"""Object.fromEntries({list(labels.EMOTIONS)}.map(
    (name) => [name, Number(document.getElementById('p_' + name).value)]))"""
EXACT = "32-true"
"""The precision of the browser; on some processors Predictor's own choice is bfloat16."""
FACES = "[...document.querySelectorAll('#boxes button')].map((box) => box.textContent)"

pytestmark = [
    needs_weights,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on the path"),
    pytest.mark.skipif(os.name == "nt", reason="the browser's pipe is two file descriptors"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page of the package's network."""
    pytest.importorskip("onnxruntime")
    try:
        find_runtime(None)
    except ConfigError as error:  # no npm, or no registry that it reaches
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("site")
    export_site(load_checkpoint("pretrained"), folder, None, Path("nowhere"))
    with serving(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{HOST}:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, site: str) -> Path:
    """A photograph with faces where there is one, else drawn ones."""
    photograph = Path(os.environ.get("FER_SHARED_DATA", "nowhere")) / "photos/two_faces.jpg"
    if photograph.is_file():
        return photograph
    path = tmp_path_factory.mktemp("picture") / "drawn.jpg"
    path.write_bytes(to_jpeg(decode(draw_sample(), "sample")))
    return path


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory, picture: Path) -> Path:
    """A film of the surest face of the picture, for Chromium's fake camera."""
    pixels = read_picture(picture)
    (x, y, side, _), *_ = FaceDetector()(pixels)
    whole = crop(pixels, (x, y, side, side), margin=0.5)
    frame = Image.fromarray(whole).resize((480, 480))
    film = Image.new("RGB", (640, 480), (128, 128, 128))
    film.paste(frame, (80, 0))
    path = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    buffer = io.BytesIO()
    film.save(buffer, format="JPEG", quality=95)
    path.write_bytes(buffer.getvalue() * 2)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, site: str, camera: Path) -> Iterator[Browser]:
    """The page with a fake camera, once its drawn faces are computed."""
    browser = Browser(
        CHROMIUM, tmp_path_factory.mktemp("profile"), "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    )  # fmt: skip
    try:
        browser.call("Page.navigate", url=site)
        browser.wait("document.body.dataset.computed")
        yield browser
    finally:
        browser.close()


@contextlib.contextmanager
def computed(page: Browser) -> Iterator[None]:
    """Wait until the page has computed, with its curves, what is done in the block."""
    before = page.run("Number(document.body.dataset.turn)")
    yield
    page.wait(f"Number(document.body.dataset.computed) > {before}")


def show(page: Browser, path: Path) -> None:
    """Choose a picture, and wait until the page has computed it."""
    with computed(page):
        page.give_file("#file", path)


def js(page: Browser, code: str, **values: Any) -> Any:
    """The value of code that uses faces.js as ``faces``, and these values."""
    names = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    imported = "const faces = await import('./faces.js');\n"
    return page.run(f"(async () => {{ {imported}{names}{code} }})()")


def as_picture(pixels: np.ndarray) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    step = 1 if pixels.ndim == 2 else pixels.shape[2]
    return {"data": pixels.ravel().tolist(), "width": width, "height": height, "step": step}


@pytest.mark.parametrize("number", [0, 1])
def test_a_pictures_faces_get_the_probabilities_of_predictor(
    page: Browser, picture: Path, number: int
) -> None:
    expected = Predictor("pretrained", precision=EXACT).find(picture)
    show(page, picture)
    assert len(page.run(FACES)) == len(expected) > number
    page.run(f"document.querySelectorAll('#boxes button')[{number}].click()")
    likeliest = expected[number].emotion
    page.wait(f"document.getElementById('emotion').textContent.startsWith('{likeliest}')")
    assert page.run(PRINTED) == pytest.approx(expected[number].probabilities, abs=1e-3)


def test_a_cropped_face_gets_the_probabilities_of_predictor(page: Browser, tmp_path: Path) -> None:
    """Transparent, and of a shape that is squeezed into the input's."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (61, 90, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(np.arange(90) < 20, 0, 255)
    path = tmp_path / "crop.png"
    path.write_bytes(to_png(pixels))
    page.run("document.getElementById('whole').checked = true")
    try:
        show(page, path)
        found = page.run(PRINTED)
    finally:
        page.run("document.getElementById('whole').checked = false")
    expected = Predictor("pretrained", precision=EXACT)(path)
    assert found == pytest.approx(expected.probabilities, abs=1e-3)


@pytest.mark.parametrize("shape", [(61, 97, 3), (48, 200, 3), (300, 48, 3), (130, 130, 4), (9, 9)])
def test_pixels_become_an_input_to_the_bit(page: Browser, shape: tuple[int, ...]) -> None:
    """Squares, as faces are, and others; of those that are higher than wide Pillow before 13 has
    another last bit than later ones."""
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    code = "return [1, 3].map((channels) => Array.from(faces.toInput(one, 48, channels)));"
    gray, colour = js(page, code, one=as_picture(pixels))
    kept = pixels[..., :3] if pixels.ndim == 3 else pixels
    assert gray == to_input(kept, 48, 1).transpose(2, 0, 1).ravel().tolist()
    assert colour == to_input(kept, 48, 3).transpose(2, 0, 1).ravel().tolist()


def damaged(page: Browser, image: np.ndarray, kind: str, step: dict[str, float]) -> np.ndarray:
    """An image ``(48, 48)`` uint8 as the page damages it at a severity of these parameters."""
    code = f"""const options = {{ gamma: 2.2, place: [0.5, 0.5] }};
        const found = faces.damaged(Uint8Array.from(one), 48, {{ {kind}: 1 }}, steps, options);
        return Array.from(found);"""
    found = js(page, code, one=image.ravel().tolist(), steps={kind: [step]})
    return np.array(found).reshape(48, 48)


def test_damage_is_that_of_the_robustness_tests(page: Browser) -> None:
    image = np.random.default_rng(2).integers(0, 256, (48, 48), dtype=np.uint8)
    batch, none = image[None, :, :, None], Draws("damage", ["a"], 0)
    for sigma in (0.01, 0.016, 0.024, 0.034, 0.05):
        expected = gaussian_blur(batch, none, sigma=sigma)[0, :, :, 0].astype(int)
        assert np.abs(damaged(page, image, "blur", {"sigma": sigma}) - expected).max() <= 1
    covered = damaged(page, image, "occlusion", {"size": 0.35})
    expected = cover(batch, none, size=0.35)[0, :, :, 0]
    assert (covered != image).sum() == pytest.approx((expected != image).sum(), abs=3)
    even = np.full((48, 48), 200, np.uint8)  # the same light, and as much noise
    for gain in (0.4, 0.02):
        own = damaged(page, even, "low_light", {"gain": gain, "photons": 1000})
        other = low_light(even[None, :, :, None], none, gain=gain, photons=1000)
        assert own.mean() == pytest.approx(other.mean(), rel=0.02)
        assert own.std() == pytest.approx(other.std(), rel=0.1)


def test_a_slider_changes_the_answer_as_its_curve_says(page: Browser) -> None:
    with computed(page):
        page.run("document.getElementById('sample').click()")
    assert len(page.run(FACES)) == 2
    before = page.run(PRINTED)
    with computed(page):
        page.run("""const slider = document.getElementById('blur'); slider.value = 5;
            slider.dispatchEvent(new Event('input'));""")
    after = page.run(PRINTED)
    curve = page.run("document.getElementById('blur_plot').getAttribute('aria-label')")
    first, last = (max(one, key=lambda emotion: one[emotion]) for one in (before, after))
    assert curve.endswith(f"{100 * after[first]:.1f} %")
    level = page.run("document.getElementById('blur_level').textContent")
    assert level == f"severity 5: {last} {100 * after[last]:.1f} %"
    turned = first != last
    assert page.run("document.getElementById('blur_turns').className") == (
        "turns turned" if turned else "turns"
    )
    with computed(page):
        page.run("""const one = document.getElementById('blur'); one.value = 0;
            one.dispatchEvent(new Event('input'));""")


def test_the_camera_is_looked_at_until_a_frame_is_held(page: Browser) -> None:
    page.call("Browser.grantPermissions", permissions=["videoCapture"])
    page.run("document.getElementById('camera').click()")
    page.wait("/median of [1-9]/.test(document.getElementById('time').textContent)")
    assert len(page.run(FACES)) == 1 and "ms per frame" in page.run(
        "document.getElementById('time').textContent"
    )
    with computed(page):
        page.run("document.getElementById('hold').click()")
    assert not page.run("document.body.textContent.includes('Hold a frame')")
    page.run("document.getElementById('camera').click()")
    assert page.run("document.getElementById('camera').textContent") == "Use the camera"


def test_what_cannot_be_shown_is_said(page: Browser, tmp_path: Path, site: str) -> None:
    said = "document.getElementById('status').textContent"
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    page.give_file("#file", path)
    page.wait(f"{said}.startsWith('notes.png is not a picture')")
    page.call("Browser.setPermission", permission={"name": "camera"}, setting="denied", origin=site)
    page.run("document.getElementById('camera').click()")
    page.wait(f"{said}.startsWith('The camera was refused')")
    blank = tmp_path / "blank.png"
    blank.write_bytes(to_png(np.full((300, 300), 90, np.uint8)))
    page.give_file("#file", blank)
    page.wait("document.getElementById('note').textContent.startsWith('No face was found')")
    assert page.run("document.getElementById('answer').hidden")


def test_it_fits_a_phone_and_a_desk(page: Browser, picture: Path, tmp_path: Path) -> None:
    show(page, picture)
    for width in (390, 1200):
        page.screenshot(tmp_path / f"{width}.png", width)
        assert page.run("document.documentElement.scrollWidth") <= width


def test_a_browser_that_cannot_compute_is_told_so(page: Browser, site: str) -> None:
    gone = page.call("Page.addScriptToEvaluateOnNewDocument", source="delete self.WebAssembly")
    page.call("Page.navigate", url=site)
    page.wait("""document.getElementById('status')?.textContent ===
        'This browser cannot run the network: it has no WebAssembly'""")
    page.call("Page.removeScriptToEvaluateOnNewDocument", **gone)


def test_nothing_leaves_the_machine(page: Browser, site: str) -> None:
    """After all of the above; and the page could not if it would."""
    requests = [line.split()[2] for line in page.log if line.startswith("request: ")]
    assert requests and all(one.startswith((site, "blob:", "data:")) for one in requests)
    assert all(line.split()[1] == "GET" for line in page.log if line.startswith("request: "))
    refused = page.run("fetch('http://127.0.0.1:9/').then(() => '', (error) => error.message)")
    assert refused and any("Content Security Policy" in line for line in page.log)
