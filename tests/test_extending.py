"""What a stranger adds, a module and a few YAML files outside the repository, goes the whole way.

One training uses a network, loss, optimizer, schedule, augmentation, callback and logger of the
stranger's own; it is killed and goes on, is swept, evaluated with his damage, explained, exported,
used for prediction and taken through a study. Datasets and scores have tests of their own:
``tests/tasks/test_extending_dataset.py`` and ``tests/evaluation/test_scores.py``.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, run_program

MODULE = '''
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from fer import register_network


@register_network("stranger.cnn")
class Cnn(nn.Module):
    """Knows nothing of this program but its name, the images and the seven emotions."""

    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.last = nn.LazyLinear(7)

    def forward(self, images):
        maps = torch.relu(self.second(torch.relu(self.norm(self.first(images)))))
        return self.last(maps.mean(dim=(2, 3)))


@register_network("stranger.perceptron")
def perceptron(in_channels, image_size, hidden=8):
    layers = [nn.Flatten(), nn.Linear(in_channels * image_size**2, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, 7))


class Counted(nn.Module):
    """A loss that asks for the counts of the classes."""

    def __init__(self, class_counts, power=0.5):
        super().__init__()
        self.register_buffer("weight", torch.tensor(class_counts, dtype=torch.float32) ** -power)

    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target, self.weight)


class Notes(Callback):
    """Writes a line for each epoch, and goes on counting in a training that was cut off."""

    def __init__(self, path):
        self.path, self.count = path, 0

    def on_train_epoch_end(self, trainer, module):
        self.count += 1
        with open(self.path, "a") as file:
            file.write(f"{trainer.current_epoch} {self.count}\\n")

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class OwnLogger(CSVLogger):
    """Has a run of its own, which is to be finished, and knows images."""

    def log_image(self, key, images):
        with open(f"{self.save_dir}/images.txt", "a") as file:
            file.write(f"{key} {images[0].shape[2]}\\n")

    @property
    def experiment(self):
        experiment = super().experiment
        experiment.finish = lambda: open(f"{self.save_dir}/finished.txt", "a").write("once\\n")
        return experiment


def dead_rows(images, draws, *, share):
    """Every image loses rows, which its own draws choose."""
    damaged = images.copy()
    for image, draw in zip(damaged, draws):
        image[draw.random(len(image)) < share] = 0
    return damaged
'''
OPTIONS = {
    "model/cnn.yaml": "_target_: stranger.Cnn\nwidth: 4\nimage_size: 24\n",
    "model/perceptron.yaml": "_target_: stranger.perceptron\nhidden: 8\nimage_size: 16\n",
    "loss/counted.yaml": "_target_: stranger.Counted\npower: 0.5\n",
    "loss/torch.yaml": "_target_: torch.nn.CrossEntropyLoss\nlabel_smoothing: 0.1\n",
    "loss/margin.yaml": "_target_: torch.nn.MultiMarginLoss\nmargin: 0.5\n",
    "loss/each.yaml": "_target_: torch.nn.CrossEntropyLoss\nreduction: none\n",
    "optimizer/radam.yaml": "_target_: torch.optim.RAdam\nlr: 1e-3\n",
    "optimizer/lbfgs.yaml": "_target_: torch.optim.LBFGS\nlr: 0.1\nmax_iter: 2\n",
    "scheduler/steps.yaml": "_target_: torch.optim.lr_scheduler.StepLR\nstep_size: 1\ngamma: 0.5\n",
    "scheduler/cycle.yaml": "_target_: torch.optim.lr_scheduler.OneCycleLR\nmax_lr: 1e-2\n",
    "scheduler/watch.yaml": "_target_: torch.optim.lr_scheduler.ReduceLROnPlateau\npatience: 0\n",
    "augmentation/mirror.yaml": (
        "transforms:\n  flip:\n    _target_: albumentations.HorizontalFlip\n    p: 0.5\n"
    ),
    "callbacks/notes.yaml": "notes:\n  _target_: stranger.Notes\n  path: ???\n",
    "callbacks/clock.yaml": "clock:\n  _target_: lightning.pytorch.callbacks.Timer\n",
    "logger/own.yaml": "own:\n  _target_: stranger.OwnLogger\n  name: ''\n  version: own\n",
    "perturbation/dead_rows.yaml": (
        "dead_rows:\n  _target_: stranger.dead_rows\n  severities:\n"
        "    - {share: 0.2}\n    - {share: 0.6}\n"
    ),
}
DATA = [f"dataset.generator.{split}={n}" for split, n in (("train", 70), ("val", 28), ("test", 28))]
SHORT = ["trainer.progress_bar=false", "metrics.resamples=100", "loader.batch_size=16"]
SALIENCY = [
    *("saliency.images_per_class=1", "saliency.smoothgrad.samples=2"),
    *("saliency.integrated_gradients.steps=2", "saliency.sanity.images=7"),
    *("saliency.faithfulness.images=7", "saliency.faithfulness.steps=4"),
]
PARTS = [
    *("model=cnn", "loss=counted", "optimizer=radam", "scheduler=steps", "augmentation=mirror"),
    *("logger=[csv,own]", "callbacks=[notes,clock]"),
]


@dataclass(frozen=True)
class Stranger:
    """A folder with a module and options, and the ways to run commands there."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}", "FER_DATA": "data"}

    def fer(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command, *rest = arguments
        return run_program(
            "-m", "fer", command, "--config-dir", "options", *rest,
            cwd=self.folder, env=self.env, check=check,
        )  # fmt: skip

    def rows(self, path: str) -> list[dict[str, str]]:
        with (self.folder / path).open(newline="") as file:
            return list(csv.DictReader(file))

    def read(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "stranger.py").write_text(MODULE)
    for name, text in OPTIONS.items():
        path = folder / "options" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Stranger(folder)


@pytest.fixture(scope="module")
def trained(stranger: Stranger) -> Stranger:
    stranger.fer("train", *PARTS, *DATA, *SHORT, "trainer.max_epochs=2",
                 "callbacks.notes.path=notes.txt", "hydra.run.dir=run")  # fmt: skip
    return stranger


@pytest.fixture(scope="module")
def evaluated(trained: Stranger) -> Stranger:
    trained.fer("evaluate", "checkpoint=run/checkpoints/best.ckpt", "perturbation=dead_rows",
                "saliency=standard", *SALIENCY, "metrics.resamples=100",
                "hydra.run.dir=evaluated")  # fmt: skip
    return trained


pytestmark = pytest.mark.slow


def test_network_trains_and_is_named_in_its_checkpoint(trained: Stranger) -> None:
    import torch

    content = torch.load(trained.folder / "run/checkpoints/best.ckpt", weights_only=True)
    assert content["fer"]["model"] == {
        "network": "stranger.cnn", "image_size": 24, "in_channels": 1, "options": {"width": 4}
    }  # fmt: skip
    assert "stranger.Cnn" not in json.dumps(content["fer"])  # a name, never code
    assert float(content["state_dict"]["network.std"]) != 1  # normalised by its training images


def test_network_is_evaluated_and_explained(evaluated: Stranger) -> None:
    found = evaluated.read("evaluated/saliency.json")
    assert "grad_cam" in found["methods"]  # its last convolution has maps
    assert found["sanity"]["stages"] == ["trained", "last", "second", "norm", "first"]
    assert "Cnn: synthetic_a" in (evaluated.folder / "evaluated/report.html").read_text()


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_network_is_exported_and_predicts(trained: Stranger, form: str) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    output = "network.onnx" if form == "onnx" else "network.safetensors"
    done = trained.fer(
        "export", "checkpoint=run/checkpoints/best.ckpt", f"format={form}", f"output={output}"
    )
    assert "probabilities differ by at most" in done.stdout
    checkpoint = "run/checkpoints/best.ckpt" if form == "onnx" else output
    image = next((trained.folder / "data/synthetic_a/test/happy").iterdir())
    done = trained.fer("predict", "--whole", "--json", "--checkpoint", checkpoint, str(image))
    (picture,) = json.loads(done.stdout)
    assert len(picture["faces"][0]["probabilities"]) == 7


def test_network_without_maps_keeps_the_methods_that_need_none(stranger: Stranger) -> None:
    stranger.fer("train", "model=perceptron", *DATA, *SHORT, "trainer.max_epochs=1",
                 "logger=none", "hydra.run.dir=perceptron")  # fmt: skip
    stranger.fer("evaluate", "checkpoint=perceptron/checkpoints/best.ckpt", "saliency=standard",
                 *SALIENCY, "metrics.resamples=100",
                 "hydra.run.dir=perceptron_evaluated")  # fmt: skip
    found = stranger.read("perceptron_evaluated/saliency.json")
    assert found["methods"] == ["gradient", "smoothgrad", "integrated_gradients"]
    assert any("has no feature maps" in note for note in found["notes"])
    assert found["sanity"]["stages"] == ["trained", "3", "1"]


def test_everything_goes_on_after_a_kill_as_if_nothing_had_been(stranger: Stranger) -> None:
    options = [*PARTS, *DATA, *SHORT, "trainer.max_epochs=12", "early_stopping.patience=null"]
    stranger.fer("train", *options, "callbacks.notes.path=whole.txt", "hydra.run.dir=whole")
    command = [sys.executable, "-m", "fer", "train", "--config-dir", "options", *options,
               "callbacks.notes.path=cut.txt", "hydra.run.dir=cut"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=stranger.folder, env={**os.environ, **stranger.env},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    history, last = (
        stranger.folder / "cut/history.csv",
        stranger.folder / "cut/checkpoints/last.ckpt",
    )
    until = time.monotonic() + 120
    while not (history.is_file() and last.is_file() and len(history.read_text().splitlines()) > 3):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (stranger.folder / "cut/report.html").exists()
    stranger.fer("train", "callbacks.notes.path=cut.txt", "resume=cut")
    measured = [
        [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
         for row in stranger.rows(f"{name}/history.csv")]
        for name in ("whole", "cut")
    ]  # fmt: skip
    assert measured[0] == measured[1]
    assert stranger.read("whole/metrics.json") == stranger.read("cut/metrics.json")
    # A callback's own state came back, too.
    assert (stranger.folder / "cut.txt").read_text().splitlines()[-1] == "11 12"


def test_network_is_swept_and_every_job_finishes_its_own_logger(stranger: Stranger) -> None:
    stranger.fer("train", "-m", "model=cnn", "model.width=2,4", "logger=own", *DATA, *SHORT,
                 "trainer.max_epochs=1", "hydra.sweep.dir=sweep")  # fmt: skip
    rows = stranger.rows("sweep/sweep.csv")
    assert [row["model.width"] for row in rows] == ["2", "4"]
    assert all(row["status"] == "finished" for row in rows)
    for number in (0, 1):
        assert (stranger.folder / f"sweep/{number}/finished.txt").read_text() == "once\n"


def test_network_goes_through_a_study_and_its_card(stranger: Stranger) -> None:
    small = [f"train.{item}" for item in (*DATA, *SHORT, "model=cnn", "trainer.max_epochs=1")]
    measured = [f"evaluate.{item}" for item in (*SALIENCY, "metrics.resamples=100")]
    stranger.fer("study", "a=synthetic_a", "b=null", *small, *measured,
                 "evaluate.perturbation=dead_rows", "folder=study")  # fmt: skip
    results = stranger.read("study/study.json")
    assert results["parameters"] == 4 * 9 + 4 + 2 * 4 + 8 * 4 * 9 + 8 + 7 * 8 + 7
    assert results["trainings"][0]["config"]["model"]["_target_"] == "stranger.Cnn"
    run_program("-m", "fer", "card", "study", "--output", "card.md", cwd=stranger.folder)
    assert "Cnn(width=4, image_size=24)" in (stranger.folder / "card.md").read_text()


def test_loss_gets_the_class_counts_that_it_asks_for(trained: Stranger) -> None:
    import torch

    content = torch.load(trained.folder / "run/checkpoints/last.ckpt", weights_only=True)
    counts = trained.read("data/synthetic_a/integrity.json")["counts"]["train"].values()
    found = content["state_dict"]["loss.weight"].tolist()
    assert found == pytest.approx([count**-0.5 for count in counts])


@pytest.mark.parametrize(
    ("loss", "optimizer", "scheduler"),
    [("torch", "lbfgs", "watch"), ("margin", "radam", "cycle")],
)
def test_torchs_own_classes_train_as_they_are(
    stranger: Stranger, loss: str, optimizer: str, scheduler: str
) -> None:
    folder = f"torch_{loss}"
    stranger.fer("train", f"loss={loss}", f"optimizer={optimizer}", f"scheduler={scheduler}",
                 "model=cnn", *DATA, *SHORT, "trainer.max_epochs=2", "logger=none",
                 f"hydra.run.dir={folder}")  # fmt: skip
    rates = [float(row["learning_rate"]) for row in stranger.rows(f"{folder}/history.csv")]
    assert len(rates) == 2
    if scheduler == "cycle":  # advanced with the steps: at its end after the last of them
        assert rates[1] < rates[0] < 1e-2


def test_schedule_without_total_steps_advances_with_the_epochs(trained: Stranger) -> None:
    rates = [float(row["learning_rate"]) for row in trained.rows("run/history.csv")]
    assert rates == pytest.approx([1e-3, 5e-4])


def test_callbacks_run_beside_those_of_every_training(trained: Stranger) -> None:
    assert (trained.folder / "notes.txt").read_text() == "0 1\n1 2\n"
    assert (trained.folder / "run/checkpoints/best.ckpt").is_file()


def test_loggers_get_values_results_and_images_and_an_end(trained: Stranger) -> None:
    for name in ("csv", "own"):
        rows = trained.rows(f"run/{name}/metrics.csv")
        assert {"val/macro_f1", "train/loss", "best/test_accuracy"} <= rows[0].keys()
    lines = (trained.folder / "run/images.txt").read_text().splitlines()
    assert lines == ["confusion_matrix/val 3", "confusion_matrix/test 3", "predictions/val 3"]
    assert (trained.folder / "run/finished.txt").read_text() == "once\n"
    assert not (trained.folder / "run/tensorboard").exists()


def test_damage_is_measured_and_drawn(evaluated: Stranger) -> None:
    rows = evaluated.read("evaluated/robustness.json")
    assert [(row["perturbation"], row["severity"]) for row in rows if row["severity"]] == [
        ("dead_rows", 1),
        ("dead_rows", 2),
    ]
    assert (evaluated.folder / "evaluated/figures/robustness.png").is_file()


def test_augmentation_is_albumentations_own(trained: Stranger) -> None:
    config = trained.read("run/run.json")["config"]["augmentation"]
    assert config["transforms"] == {"flip": {"_target_": "albumentations.HorizontalFlip", "p": 0.5}}


MISTAKES = {
    "a loss for each image": (["loss=each"], r"loss: expected CrossEntropyLoss to give one number"),
    "a network that is not there": (
        ["model=cnn", "model._target_=stranger.Nothing"],
        r"model: expected the dotted name of a class or function, found 'stranger.Nothing'",
    ),
    "one without a name": (
        ["model=cnn", "model._target_=torch.nn.Flatten", "~model.width"],
        r"expected a registered network \(.*shared_cnn.*\), found torch.nn.modules.flatten.Flatten",
    ),
    "options that it does not take": (
        ["model=cnn", "+model.depth=3"],
        r"model: expected options that stranger.Cnn accepts, found width=4, depth=3",
    ),
}


@pytest.mark.parametrize(("options", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_answered_before_anything_is_trained(
    stranger: Stranger, options: list[str], message: str
) -> None:
    import re

    done = stranger.fer("train", *options, *DATA, *SHORT, "hydra.run.dir=mistake", check=False)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (stranger.folder / "mistake/history.csv").exists()


def test_a_checkpoint_of_an_unknown_network_says_how_to_name_its_module(trained: Stranger) -> None:
    command = ["-m", "fer", "evaluate", "checkpoint=run/checkpoints/best.ckpt",
               "metrics.resamples=100"]  # fmt: skip
    done = run_program(*command, cwd=trained.folder, env=trained.env, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "found 'stranger.cnn'" in done.stderr and "FER_PLUGINS=my_module" in done.stderr
    own = {**trained.env, "FER_PLUGINS": "stranger"}
    run_program(*command, "hydra.run.dir=named", cwd=trained.folder, env=own)
    wrong = {**trained.env, "FER_PLUGINS": "strnger"}
    done = run_program(*command, cwd=trained.folder, env=wrong, check=False)
    assert done.returncode == 1 and "FER_PLUGINS=strnger: expected a module" in done.stderr
