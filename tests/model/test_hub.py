"""Networks on the Hugging Face Hub: what is uploaded, and what comes back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from fer.core.errors import CheckpointError, ConfigError
from fer.evaluation.predictor import Predictor
from fer.model.checkpoint import PRETRAINED_FILE, load_checkpoint
from fer.model.hub import download
from fer.tasks.export import export_task
from fer.tasks.push import main
from tests.conftest import ROOT, compose, run_program

CARD = ROOT / "MODEL_CARD.md"


class Hub:
    """Stands in for the hub: repositories are folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private: list[str] = []

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        (self.folder / name).mkdir(parents=True, exist_ok=exist_ok)
        if private:
            self.private.append(name)

    def upload_folder(self, *, repo_id: str, folder_path: Path) -> str:
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}"

    def download(self, name: str, file: str, revision: str | None = None) -> str:
        path = self.folder / name / file
        if not path.is_file():
            raise FileNotFoundError(f"404: {name}/{file}\nmore lines")
        return str(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    return made


def test_what_was_pushed_answers_as_before(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ada/faces", "--card", str(CARD), "--private"]) == 0
    assert sorted(path.name for path in (hub.folder / "ada/faces").iterdir()) == [
        "README.md",
        "model.safetensors",
    ]
    assert (hub.folder / "ada/faces/README.md").read_bytes() == CARD.read_bytes()
    assert hub.private == ["ada/faces"]
    assert "https://hub/ada/faces" in capsys.readouterr().out
    image = np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)
    there, here = Predictor("hf://ada/faces"), Predictor("pretrained")
    assert there(image).probabilities == here(image).probabilities
    assert load_checkpoint("hf://ada/faces").extras == load_checkpoint("pretrained").extras


def test_a_dry_run_uploads_nothing(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ada/faces", "--card", str(CARD), "--dry-run"]) == 0
    assert not hub.folder.exists()
    out = capsys.readouterr().out
    assert f"README.md: {CARD.stat().st_size:,} bytes" in out
    assert f"model.safetensors: {PRETRAINED_FILE.stat().st_size:,} bytes" in out
    assert "Nothing was uploaded." in out


@pytest.mark.parametrize("text", [None, "# Mine\n"], ids=["none", "another file"])
def test_a_network_without_a_card_is_not_pushed(
    text: str | None, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "CARD.md"
    if text is not None:
        card.write_text(text)
    assert main(["ada/faces", "--card", str(card)]) == 1
    assert "expected a card that fer card wrote" in capsys.readouterr().err
    assert not hub.folder.exists()


@pytest.mark.parametrize("name", ["faces", "a/b/c", "../faces", "ada/", "ada/fa ces"])
def test_names_of_repositories_are_checked(name: str, hub: Hub) -> None:
    with pytest.raises(ConfigError, match="expected a repository as user/name"):
        download(f"hf://{name}")
    assert main([name, "--card", str(CARD)]) == 1
    assert not hub.folder.exists()


def test_a_repository_without_weights_is_one_message(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"^checkpoint: expected model\.safetensors.*404"):
        load_checkpoint("hf://ada/nothing")


def test_a_revision_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fake(name: str, file: str, revision: str | None) -> str:
        asked.append((name, file, revision))
        return str(PRETRAINED_FILE)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    assert download("hf://ada/faces@v1") == PRETRAINED_FILE
    download("hf://ada/faces")
    assert asked == [
        ("ada/faces", "model.safetensors", "v1"),
        ("ada/faces", "model.safetensors", None),
    ]


def test_a_hub_that_does_not_answer_is_one_message(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unreachable(Exception):
        """As of a library that the hub's client uses: no OSError."""

    def fail(*_: object, **__: object) -> None:
        raise Unreachable("connection refused")

    monkeypatch.setattr(hub, "create_repo", fail)
    assert main(["ada/faces", "--card", str(CARD)]) == 1
    assert (
        "expected the hub to take ada/faces, found: connection refused" in capsys.readouterr().err
    )


def test_what_comes_from_the_hub_is_not_exported_into_its_cache(hub: Hub) -> None:
    cfg = compose("checkpoint=hf://ada/faces", "format=safetensors", config="export")
    with pytest.raises(ConfigError, match=r"output: expected a name .* output=NAME\.safetensors"):
        export_task(cfg, Path())


def test_a_name_that_is_none_is_the_message_of_the_evaluation(tmp_path: Path) -> None:
    done = run_program("-m", "fer", "evaluate", "checkpoint=hf://nobody", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "hub: expected a repository as user/name" in done.stderr
    assert "hydra.run.dir" not in done.stderr
