"""One console command for everything: help, mistakes, completion, modules of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fer.core.composition import config_folder
from fer.tasks.command import COMMANDS, quiet_end
from tests.conftest import ROOT, run_program


def fer(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return run_program("-m", "fer", *arguments, cwd=cwd, check=False, env=env)


def test_help_names_every_command_and_a_typo_the_nearest(tmp_path: Path) -> None:
    found = fer("--help", cwd=tmp_path)
    assert found.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in found.stdout
    assert fer(cwd=tmp_path).stdout == found.stdout
    wrong = fer("trian", cwd=tmp_path)
    assert wrong.returncode == 2 and "found 'trian'. Did you mean train?" in wrong.stderr


def menu(group: str) -> str:
    """The line of a command's help that lists the choices of a group."""
    names = {path.stem for path in (config_folder() / group).glob("*.yaml")} - {"base"}
    return f" {group} {', '.join(sorted(names))} "


HELP = {
    "train": (
        *(menu("dataset"), menu("augmentation"), menu("optimizer")),
        *(menu("model"), menu("loss"), menu("experiment")),
    ),
    "evaluate": (menu("dataset"),),
    "prepare": (menu("dataset"),),
    "study": ("evaluate:",),
    "audit": (menu("dataset"), "flags:", "votes:"),
    "export": ("format",),
    "demo": ("port:", "runtime:"),
    "predict": ("--annotate",),
    "card": ("--output",),
    "push": ("--dry-run",),
}


@pytest.mark.parametrize(("name", "texts"), HELP.items(), ids=HELP)
def test_every_command_has_its_own_help_with_its_options(
    name: str, texts: tuple[str, ...], tmp_path: Path
) -> None:
    found = fer(name, "--help", cwd=tmp_path)
    words = " ".join(found.stdout.replace("*", "").split())
    assert found.returncode == 0 and all(text in words for text in texts), found.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fer tr", "prepare"),
        ("fer train model=", "model=shared_cnn_small"),
        ("fer evaluate robustness.", "robustness.severities="),
        ("fer predict pictures", ""),
    ],
)
def test_the_shell_completes_commands_and_options(line: str, expected: str, tmp_path: Path) -> None:
    found = fer("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert found.returncode == 0, found.stderr
    assert expected in found.stdout.split() or found.stdout == expected == ""


def test_a_module_in_the_folder_of_the_command_is_found(tmp_path: Path) -> None:
    """As ``python -m`` finds it; a console script has its own folder on the path instead."""
    (tmp_path / "beside.py").write_text("print('imported')\n")
    code = "import sys; sys.path.remove(''); from fer.tasks.command import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "card", "nowhere"],
        cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "FER_PLUGINS": "beside"},
    )  # fmt: skip
    assert "imported" in done.stdout
    assert done.returncode == 1 and "expected the results of a study" in done.stderr


def test_a_plugin_that_cannot_be_imported_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('half written')\n")
    done = fer("card", "nowhere", cwd=tmp_path, FER_PLUGINS="broken")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "FER_PLUGINS=broken: expected a module that can be imported" in done.stderr
    assert "RuntimeError: half written" in done.stderr


def test_a_terminal_of_any_encoding_will_do(tmp_path: Path) -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    found = fer("--help", cwd=tmp_path, **ascii_only)
    assert found.returncode == 0 and "[option=value \\u2026]" in found.stdout
    done = fer(
        "train", "hydra.run.dir=run", "dataset.generator.train=7", "dataset.generator.val=7",
        "dataset.generator.test=7", "model.widths=[4,4]", "model.image_size=32",
        "trainer.max_epochs=1", "metrics.resamples=100", cwd=tmp_path, **ascii_only,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "7 test images" in done.stdout and "\\u2013" in done.stdout  # a table, its intervals
    assert "Logging error" not in done.stderr


@pytest.mark.parametrize("error", [BrokenPipeError("a worker is gone"), SystemExit("Error: no")])
def test_an_error_is_told_while_somebody_reads(error: BaseException) -> None:
    with pytest.raises(type(error), match=str(error)), quiet_end():
        raise error
