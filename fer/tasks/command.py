"""The commands: ``fer COMMAND …``, ``python -m fer COMMAND …`` and ``python train.py …``.

A command's code is imported when it runs, so that help and typing errors need no torch.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer import __version__
from fer.core.errors import PIPE_CLOSED, FerError
from fer.core.plugins import import_plugins
from fer.core.processes import is_output_closed

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Command:
    """A command and the code that it runs."""

    summary: str
    target: str
    """``module:function``, called with the composed configuration and the run folder."""
    config: str | None = None
    """Its configuration in ``conf/``; None for a function that parses its arguments itself."""
    expand: str | None = None
    """``module:function`` that rewrites arguments before anything is composed."""


COMMANDS = {
    "train": Command(
        "train a network on one dataset and measure it on the test split",
        "fer.tasks.train:train",
        "train",
        "fer.runs.resume:expand",
    ),
    "evaluate": Command(
        "measure a checkpoint on one split: scores, robustness, saliency, mistakes",
        "fer.tasks.evaluate:evaluate",
        "evaluate",
    ),
    "prepare": Command(
        "read and check a raw dataset and write it as train/, val/ and test/",
        "fer.tasks.prepare:prepare_task",
        "prepare",
    ),
    "study": Command(
        "train on each of two datasets, measure on both, and write one page",
        "fer.tasks.study:study_task",
        "study",
        "fer.runs.plan:expand",
    ),
    "audit": Command(
        "find the images of a dataset that are most likely mislabelled, by cross-validation",
        "fer.tasks.audit:audit_task",
        "audit",
        "fer.runs.plan:expand",
    ),
    "predict": Command(
        "find the faces in pictures or a video and say which emotion each shows",
        "fer.tasks.predict:main",
    ),
    "export": Command(
        "write a network as ONNX, safetensors or a page for browsers",
        "fer.tasks.export:export_task",
        "export",
    ),
    "demo": Command(
        "show a network in the browser: camera or pictures, and what damage does to its answer",
        "fer.tasks.demo:demo_task",
        "demo",
    ),
    "card": Command("write the model card of a study", "fer.tasks.card:main"),
    "push": Command("put a network and its card on the Hugging Face Hub", "fer.tasks.push:main"),
}


def load(target: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def run_task(target: str, cfg: DictConfig, folder: Path) -> object:
    """Import a command's function and call it; also in a launcher's processes."""
    from fer.core.options import FIGURE_FORM

    import_plugins()
    FIGURE_FORM.set(cfg.figures.format)
    return load(target)(cfg, folder)


def evaluated_dataset(name: str | None, checkpoint: str | None) -> str:
    """The dataset in the name of an evaluation's folder: the chosen one, or the checkpoint's."""
    from fer.core.composition import folder_name

    if name is not None:
        return folder_name(name)
    from fer.model.checkpoint import read_description

    try:
        return folder_name(read_description(checkpoint or "")[1]["dataset"]["name"])
    except (FerError, OSError):
        return "unknown"  # the task itself explains what is wrong with the checkpoint


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code, or ends the program with a message."""
    print_in_any_encoding()
    with quiet_end():
        return run_loaded(COMMANDS[name], arguments)


@contextlib.contextmanager
def quiet_end() -> Iterator[None]:
    """End the program without a word where ``| head`` has read enough."""
    try:
        yield
    except BrokenPipeError:
        if not is_output_closed():
            raise
        discard_output()
        sys.exit(PIPE_CLOSED)
    except BaseException:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            raise
        discard_output()
        raise
    try:
        sys.stdout.flush()  # what fails later would be told by the interpreter
    except BrokenPipeError:
        discard_output()
        sys.exit(PIPE_CLOSED)


def discard_output() -> None:
    """Let what is left to print go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_loaded(command: Command, arguments: Sequence[str]) -> int:
    """Import a command's code and run it; returns its exit code."""
    try:
        import_plugins()
    except FerError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if command.config is None:
        return int(load(command.target)(list(arguments)))
    from omegaconf import OmegaConf

    from fer.core.application import run

    OmegaConf.register_new_resolver("evaluated_dataset", evaluated_dataset, replace=True)
    sys.argv[1:] = arguments
    task = functools.partial(run_task, command.target)
    run(task, command.config, None if command.expand is None else load(command.expand))
    return 0


def print_in_any_encoding() -> None:
    """Print what the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def usage() -> str:
    """The text of ``fer --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    head = "Facial emotion recognition: fer COMMAND [option=value …]"
    return "\n".join([head, "", *lines, "", "fer COMMAND --help lists a command's options."])


def complete(arguments: Sequence[str]) -> int:
    """Complete the command line for the shell, as Hydra does."""
    line = os.environ.get("COMP_LINE")  # what was typed, while the shell asks
    if line is None:
        return run_command("train", arguments)
    _, _, rest = line.partition(" ")
    name, space, options = rest.lstrip().partition(" ")
    if not space or name not in COMMANDS:
        print(" ".join(COMMANDS))
    elif COMMANDS[name].config is not None:  # of the others the shell completes files
        os.environ["COMP_LINE"] = f"fer {options}"
        return run_command(name, arguments)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``fer COMMAND …``; returns the exit code."""
    print_in_any_encoding()
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in ("-h", "--help", "help"):
        with quiet_end():
            print(usage())
        return 0
    if name == "--version":
        print(f"fer-lab {__version__}")
        return 0
    if name in ("-sc", "--shell-completion"):
        return complete([name, *rest])
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(
            f"Error: expected a command ({', '.join(COMMANDS)}), found {name!r}.{hint}",
            file=sys.stderr,
        )
        return 2
    # A module in the folder where the command is given is found, as with python -m.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    sys.argv[0] = f"fer {name}"  # the command as run.json records it
    return run_command(name, rest)
