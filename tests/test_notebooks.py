"""The notebooks run from top to bottom, and each .ipynb is its .py, executed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import helpers as notebook
import pytest
from helpers import CommandFailed

from tests.conftest import ROOT

jupytext = pytest.importorskip("jupytext", reason='pip install -e ".[notebooks]"')
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = ROOT / "notebooks"
NAMES = ("1_prepare_fer2013", "2_prepare_rafdb", "3_train", "4_analysis")


def content_of(book: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Kind, text and slide of each cell, without what a run leaves behind."""
    return [
        (cell.cell_type, cell.source, {k: v for k, v in cell.metadata.items() if k != "execution"})
        for cell in book.cells
    ]


def test_every_notebook_is_a_pair() -> None:
    assert sorted(path.stem for path in FOLDER.glob("[0-9]*.py")) == sorted(NAMES)
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_ipynb_is_what_jupytext_makes_of_the_py(name: str) -> None:
    written = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    made = jupytext.read(FOLDER / f"{name}.py")
    assert content_of(written) == content_of(made), f"jupytext --sync notebooks/{name}.py"
    assert written.metadata.kernelspec == made.metadata.kernelspec


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_ipynb_was_run_from_top_to_bottom(name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert len(text) < 3_000_000 and str(ROOT) not in text


def execute(name: str) -> list[Any]:
    """The outputs of a notebook, run in its own folder, as Jupyter does."""
    book = jupytext.read(FOLDER / f"{name}.py")
    client = nbclient.NotebookClient(
        book,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        # A kernel sends what was printed so far whenever its clock says so, in the middle of a
        # line too: pages put the pieces together, and so must this.
        coalesce_streams=True,
    )
    client.execute()
    return [output for cell in book.cells for output in cell.get("outputs", [])]


def texts(outputs: list[Any]) -> str:
    """Everything that is shown, as text and HTML."""
    parts = []
    for output in outputs:
        data = output.get("data", {})
        parts.append(output.get("text", "") + data.get("text/html", ""))
        parts.append(data.get("text/markdown", ""))
    return "\n".join(parts)


@pytest.mark.slow
def test_all_notebooks_run_from_top_to_bottom_and_use_finished_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs"
    for key in ("DATASET", "CHECKPOINT_A", "CHECKPOINT_B"):
        monkeypatch.delenv(f"FER_NOTEBOOK_{key}", raising=False)
    monkeypatch.setenv("FER_NOTEBOOK_QUICK", "1")
    monkeypatch.setenv("FER_NOTEBOOK_TRAIN", "model.dropout=0.15 seed=3")
    monkeypatch.setenv("FER_NOTEBOOK_EVALUATE", "saliency.seed=1")
    monkeypatch.setenv("FER_NOTEBOOK_OUTPUTS", str(outputs))
    monkeypatch.setenv("FER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shown = {}
    for name in NAMES:
        found = execute(name)
        assert all(output.get("name") != "stderr" for output in found), texts(found)
        shown[name] = texts(found)
    for number, dataset in ((0, "synthetic_a"), (1, "synthetic_b")):
        assert f"{dataset}: 189 images" in shown[NAMES[number]]
    training, analysis = shown["3_train"], shown["4_analysis"]
    assert "x.mean(dim=(2, 3))" in training  # the network's own source
    assert training.count("model.dropout=0.15 seed=3 trainer.progress_bar") == 2
    assert analysis.count("saliency.seed=1") == 2  # of each network on its own dataset
    assert training.count("$ python train.py") == 2 and "Finished before" not in training
    assert analysis.count("Finished before") == 2  # the trainings of the notebook before
    (folder,) = outputs.glob("evaluate/synthetic_a_on_synthetic_a/*")
    accuracy = json.loads((folder / "metrics.json").read_text())["accuracy"]
    assert f"synthetic_a: {100 * accuracy:.1f} % of 56 images" in analysis


def test_a_command_that_fails_says_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        CommandFailed, match=r"(?s)exit code 1.*model\.drop.* below model: .*widths"
    ):
        notebook.python("train.py", "model.drop=0.5")
    assert "$ python train.py model.drop=0.5" in capsys.readouterr().out


def test_another_option_is_another_run_and_what_was_cut_off_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, ...]] = []

    def start(*arguments: str, lines: int) -> None:
        started.append(arguments)
        folder = ROOT / arguments[-1].partition("=")[2]
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        if "seed=2" not in arguments:  # which is cut off
            (folder / "report.html").touch()

    monkeypatch.setenv("FER_NOTEBOOK_OUTPUTS", str(tmp_path / "runs"))
    monkeypatch.setattr(notebook, "python", start)
    first = notebook.run("train.py", "seed=1", name="a")
    assert notebook.run("train.py", "seed=1", name="a") == first and len(started) == 1
    second = notebook.run("train.py", "seed=2", name="a")
    assert second != first
    notebook.run("train.py", "seed=2", name="a")
    shown = os.path.relpath(second, ROOT)
    assert started[1:] == [
        ("train.py", "seed=2", f"hydra.run.dir={shown}"),
        ("train.py", f"resume={shown}"),
    ]
