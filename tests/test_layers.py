"""The house: what loads without torch, names that say one thing, nothing too long to be read.

That imports run downwards, with no circle, lazy ones among them, is import-linter's to hold
(``lint-imports``, see pyproject.toml).
"""

from __future__ import annotations

import ast
import importlib
import json
import operator
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "fer").rglob("*.py"))
    if path.name != "__init__.py"
]
ASKED_FOR_EARLY = ["fer.tasks.command", "fer.runs.resume", "fer.runs.plan", "fer.runs.sweep"]
"""What a command imports before it is known what it has to do."""


@pytest.mark.parametrize("layer", ["core", "report"])
def test_a_layer_loads_without_torch(layer: str) -> None:
    names = [name for name in MODULES if name.startswith(f"fer.{layer}.")]
    assert names and not loaded_with(names) & {"torch", "lightning", "torchmetrics"}


def test_help_waits_for_nothing_heavy() -> None:
    heavy = {"torch", "lightning", "torchmetrics", "matplotlib", "albumentations", "captum"}
    assert not loaded_with(ASKED_FOR_EARLY) & heavy


def test_modules_and_functions_are_short() -> None:
    too_long = []
    for path in (ROOT / "fer").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 69:
                too_long.append(f"{path}, {node.name}")
        if text.count("\n") > 500:
            too_long.append(f"{path}, {text.count(chr(10))}")
    assert not too_long


def loaded_with(names: list[str]) -> set[str]:
    """Top-level packages that a fresh process has after it has imported these modules."""
    code = (
        "import importlib, json, sys\n"
        f"[importlib.import_module(name) for name in {names}]\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_no_two_modules_have_one_name() -> None:
    names = Counter(name.rpartition(".")[2] for name in MODULES)
    assert [name for name, count in names.items() if count > 1] == []


def test_the_way_of_an_image_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\| \d+ \| `([\w.]+)` in `(fer/[\w/]+\.py)`", text, re.M)
    assert len(steps) == 12
    for name, path in steps:
        found = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert callable(operator.attrgetter(name)(found))


def test_the_package_offers_what_it_names() -> None:
    import fer

    assert all(getattr(fer, name) is not None for name in fer.__all__)
    assert set(fer.__all__) <= set(dir(fer))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fer.nothing


def test_every_package_of_the_source_is_installed() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in sorted((ROOT / "fer").rglob("__init__.py")):
        package = ".".join(Path(path.parent).relative_to(ROOT).parts)
        assert f'"{package}"' in text, package
