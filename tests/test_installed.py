"""The package as it is installed, without a checkout: its Python, its command, and its namesake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_program, tiny_rows, write_zip

TEN_LINES = """
from lightning.pytorch import Trainer
from fer import EmotionModule, FER2013DataModule, SharedCNN
data = FER2013DataModule(raw="archive.zip")
module = EmotionModule(SharedCNN())
trainer = Trainer(max_epochs=2)
trainer.fit(module, data)
trainer.test(module, data)
"""
AFTER = """
import json
from pathlib import Path
import fer
from fer import Predictor
path = trainer.checkpoint_callback.best_model_path
again = EmotionModule.load_from_checkpoint(path)
image = next(Path("data/fer2013/test/happy").iterdir())
print(json.dumps({
    "package": fer.__file__,
    "scores": sorted(trainer.callback_metrics),
    "std": [module.network.std.item(), again.network.std.item()],
    "emotions": list(Predictor(path)(image).probabilities),
}))
"""
TINY = [
    *("dataset.generator.train=70", "dataset.generator.val=28", "dataset.generator.test=28"),
    *("model.widths=[4,8]", "model.image_size=16", "trainer.max_epochs=1"),
    *("trainer.progress_bar=false", "metrics.resamples=100"),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked: first on the path, it is what is imported."""
    place = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source") / "fer"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(place), str(source)], check=True)
    return place


def run_there(
    installed: Path, *arguments: str, cwd: Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """A command with the installed package; ``FER_DATA`` is not set."""
    env = {"PYTHONPATH": str(installed), "FER_DATA": "data"}
    return run_program(*arguments, cwd=cwd, env=env, check=check)


def test_the_ten_lines_of_the_library_work_as_they_stand(installed: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "archive.zip", tiny_rows())
    done = run_there(installed, "-c", TEN_LINES + AFTER, cwd=tmp_path)
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["package"]).is_relative_to(installed)
    assert {"test/accuracy", "test/macro_f1", "test/loss"} <= set(found["scores"])
    assert found["std"][0] == found["std"][1] != 1
    assert found["emotions"] == ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


def test_the_command_trains_and_studies_in_any_folder(installed: Path, tmp_path: Path) -> None:
    command = str(installed / "bin" / "fer")
    run_there(installed, command, "train", *TINY, "hydra.run.dir=run", cwd=tmp_path)
    assert (installed / "fer/web/index.html").is_file()  # and whatever else fer demo serves
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["command"].startswith("fer train dataset.generator.train=70")
    options = [f"train.{item}" for item in TINY]
    measured = ["evaluate.perturbation=blur", "evaluate.metrics.resamples=100"]
    measured += ["evaluate.saliency.images_per_class=1", "evaluate.saliency.sanity.images=7",
                 "evaluate.saliency.faithfulness.images=7"]  # fmt: skip
    done = run_there(
        installed, command, "study", "a=synthetic_a", "b=null", *options, *measured,
        "folder=study", cwd=tmp_path,
    )  # fmt: skip
    assert "The study: study/report.html" in done.stdout
    assert (tmp_path / "study/study.json").is_file()


def test_a_namesake_that_has_replaced_the_package_is_named(installed: Path, tmp_path: Path) -> None:
    """The index has another distribution with a package of that name."""
    other = tmp_path / "other"
    (other / "fer").mkdir(parents=True)
    (other / "fer/__init__.py").write_text("import tensorflow_that_is_not_here\n")
    (other / "fer-22.5.1.dist-info").mkdir()
    (other / "fer-22.5.1.dist-info/METADATA").write_text("Name: fer\nVersion: 22.5.1\n")
    done = run_program(
        str(installed / "bin" / "fer"), "train", cwd=tmp_path, check=False,
        env={"PYTHONPATH": f"{other}:{installed}"},
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "fer 22.5.1" in done.stderr and "pip uninstall fer" in done.stderr
