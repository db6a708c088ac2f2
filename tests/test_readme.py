"""Every command of the documents is one that the programs take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fer.core.options import check_options
from fer.runs.plan import expand
from fer.tasks.predict import make_parser
from tests.conftest import ROOT, compose

DOCUMENTS = ["README.md", "CONTRIBUTING.md"]
PROGRAMS = {
    "train.py": "train",
    "evaluate.py": "evaluate",
    "-m fer prepare": "prepare",
    "-m fer study": "study",
    "-m fer audit": "audit",
    "-m fer export": "export",
    "-m fer demo": "demo",
}
"""What starts a command, and the configuration that it composes."""
OTHERS = ("-m venv", "-m pytest", "-m fer card", "-m fer predict", "-m tests.", "benchmarks/")


def commands() -> list[tuple[str, str]]:
    """Commands of the documents' code blocks and lines, without comments."""
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        lines += [inline.replace("\n", " ") for inline in re.findall(r"`(python [^`]+)`", text)]
        for line in lines:
            words = shlex.split(line, comments=True)
            for part in " ".join(map(shlex.quote, words)).split(" '&&' "):
                if part.startswith("python "):
                    found.append((name, part.removeprefix("python ")))
    return sorted(set(found))


def plain(arguments: list[str]) -> list[str]:
    """Overrides of one job: of several values the first."""
    overrides = [item for item in arguments if item not in ("-m", "--multirun", "--help")]
    single = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_interval_sweep():
            single.append(f"{override.get_key_element()}={override.value().start}")  # type: ignore[union-attr]
        elif override.is_sweep_override():
            first = next(iter(override.sweep_string_iterator()))
            single.append(f"{override.get_key_element()}={first}")
        else:
            single.append(str(override.input_line))
    return single


def test_the_documents_have_commands() -> None:
    assert len(commands()) > 40


@pytest.mark.parametrize(("document", "command"), commands())
def test_every_command_composes(document: str, command: str) -> None:
    arguments = shlex.split(command)
    for start, config in PROGRAMS.items():
        if not command.startswith(start):
            continue
        rest = arguments[len(start.split()) :]
        rest = [item for item in rest if item not in ("--cfg", "job")]
        if config in ("study", "audit"):
            rest = expand(rest)
        cfg = compose(*plain(rest), config=config)
        if config in ("train", "evaluate"):
            OmegaConf.set_struct(cfg, False)
            check_options(cfg, optional=["dataset", "perturbation", "saliency", "checkpoint"])
        return
    assert command.startswith(OTHERS), f"{document}: what is {command!r}?"
    if command.startswith("-m fer predict"):
        make_parser().parse_args(arguments[2:])
    if arguments[0].startswith("benchmarks/"):
        assert (ROOT / arguments[0]).is_file()


def test_files_that_the_documents_name_are_there() -> None:
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for path in re.findall(r"`((?:fer|conf|tests|benchmarks|docs|notebooks)/[\w./-]+)`", text):
            # What readers are to write themselves is not there.
            own = path.endswith(("mine.yaml", "dead_rows.yaml"))
            assert own or (ROOT / path).exists(), f"{name}: {path}"
        for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (Path(ROOT) / path).exists(), f"{name}: {path}"
