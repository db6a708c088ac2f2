"""What the documents say is so: commands, files, links, messages."""

from __future__ import annotations

import ast
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

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
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
OTHERS = (
    *(
        "-m venv",
        "-m pytest",
        "-m sphinx",
        "-m fer card",
        "-m fer push",
        "-m fer predict",
        "-m tests.",
    ),
    *("benchmarks/", "-c "),
)
NOT_PYTHON = (
    *(
        "cd fer",
        "git clone",
        "lowest/bin/python",
        "source .venv",
        "pip install",
        "uv ",
        "tensorboard --logdir",
        "jupyter ",
        "ray ",
    ),
    *("fer --", "eval ", "pre-commit "),
)
"""Programs of others, which are not run here, and what ``tests/test_installed.py`` runs."""


def commands() -> list[tuple[str, str]]:
    """Commands of the documents' code blocks and lines, without comments."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        lines += [inline.replace("\n", " ") for inline in re.findall(r"`(python [^`]+)`", text)]
        for line in lines:
            words = shlex.split(line, comments=True)
            parts = " ".join(map(shlex.quote, words)).split(" '&&' ")
            found += [(path.name, part) for part in parts if part]
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
    assert len(commands()) > 100


@pytest.mark.parametrize(("document", "command"), commands())
def test_every_command_composes(
    document: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = shlex.split(command)
    while re.match(r"[A-Z_]+=", arguments[0]):  # the environment
        arguments.pop(0)
    command = shlex.join(arguments)
    if not command.startswith(("python ", "fer ")) or command.startswith(NOT_PYTHON):
        assert command.startswith(NOT_PYTHON), f"{document}: what is {command!r}?"
        return
    command = re.sub(r"^fer ", "-m fer ", command).removeprefix("python ")
    command = re.sub(r"^-m fer train\b", "train.py", command)
    arguments = shlex.split(command)
    for start, config in PROGRAMS.items():
        if not command.startswith(start):
            continue
        rest = arguments[len(start.split()) :]
        rest = [item for item in rest if item not in ("--cfg", "job")]
        if config in ("study", "audit"):
            rest = expand(rest)
        rest = with_own_options(rest, tmp_path)
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


def with_own_options(arguments: list[str], folder: Path) -> list[str]:
    """Stand in for the reader's own files: options named ``mine`` and ``portraits``."""
    if "--config-dir" in arguments:
        place = arguments.index("--config-dir")
        arguments = arguments[:place] + arguments[place + 2 :]
    own = {
        "dataset": "defaults: [folder]\n",
        "model": "_target_: my_networks.TwoLayers\nimage_size: 64\nin_channels: 1\n",
        "loss": "_target_: torch.nn.CrossEntropyLoss\n",
    }
    for group, text in own.items():
        (folder / group).mkdir()
        for name in ("mine", "portraits"):
            (folder / f"{group}/{name}.yaml").write_text(text)
    named = [item for item in arguments if item.endswith(("=mine", "=portraits"))]
    if all(item.startswith("dataset.name") for item in named):
        return arguments
    return [*arguments, f"hydra.searchpath=[{folder}]"]


def test_files_that_the_documents_name_are_there() -> None:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        folders = "fer|conf|tests|benchmarks|docs|notebooks|hydra_plugins"
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_links_lead_somewhere() -> None:
    """Those of the site are Sphinx's to check as well; README is read on a code host."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            name, _, anchor = target.partition("#")
            linked = path.parent / name if name else path
            assert linked.exists(), f"{path.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)
                slugs = [re.sub(r"[^\w -]", "", h).strip().lower() for h in headings]
                assert anchor in [slug.replace(" ", "-") for slug in slugs], (
                    f"{path.name}: {target}"
                )


def test_extras_that_the_documents_name_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = \[", text.split("optional-dependencies]")[1], re.M)
    for path in DOCUMENTS:
        for named in re.findall(r"pip install -e \"\.\[([\w,]+)\]\"", path.read_text("utf-8")):
            assert set(named.split(",")) <= set(extras), f"{path.name}: {named}"


def test_messages_of_troubleshooting_are_those_of_the_code() -> None:
    sources = [*(ROOT / "fer").rglob("*.py")]
    said = []
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                ]
                said.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^```text\n(.*?)\n```", text, re.DOTALL | re.MULTILINE)
    assert len(messages) >= 20
    for message in messages:
        pieces = [re.escape(piece.strip()) for piece in message.split("…")]
        pattern = re.compile(".*?".join(pieces), re.DOTALL)
        assert any(pattern.search(one) for one in said), message


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 220
