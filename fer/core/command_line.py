"""The command line: what is wrong with it, and the help that a command gives.

Hydra's own words on an unknown key advise to append it, and its help lists every group there is.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fer.core.composition import (
    compose,
    config_folder,
    is_group,
    options_of,
    own_folders,
    split_flags,
)
from fer.core.errors import FerError

LONGEST_KEY = 100
"""In characters. Hydra passes keys on to the file system, which refuses long names."""
LEFT_OUT = ("defaults:", "hydra:")
"""Blocks of a YAML file that say nothing to who reads the help."""


def refuse_odd_choices(arguments: Sequence[str]) -> None:
    """End the program at ``model=`` or ``model=1``, which Hydra answers with a traceback."""
    parser = OverridesParser.create()
    for item in arguments:
        try:
            override = parser.parse_override(item)
            value = override.value()
        except HydraException:
            continue  # not an override, or one that Hydra itself rejects
        group = override.key_or_group
        if not group or len(group) > LONGEST_KEY:
            found = f"a key of {len(group)} characters" if group else "no key"
            sys.exit(f"Error: {item}: expected key=value, found {found}. --help lists the keys.")
        if override.is_delete() and value in ("", None):
            continue
        names = value if isinstance(value, list) else [value]
        named = override.is_sweep_override() or all(isinstance(name, str) for name in names)
        # Hydra's own groups, such as hydra/launcher, have a slash in their names.
        if ("/" in group or is_group(group)) and (value == "" or not named):
            wanted = "a name" if "/" in group else f"one of {', '.join(options_of(group))}"
            sys.exit(
                f"Error: {item}: expected {wanted}, found {value!r}. Leave it out for the default."
            )


def find_mistakes(config_name: str, arguments: Sequence[str]) -> list[str]:
    """Explain each override that cannot be parsed, or names an unknown key or choice."""
    lines, keys, choices = [], [], []
    swept: dict[str, list[str]] = {}
    parser = OverridesParser.create()
    for item in split_flags(arguments)[1]:
        try:
            override = parser.parse_override(item)
        except HydraException:
            lines.append(
                f"{item}: expected key=value, found something else. Quote a value with special "
                "characters for Hydra as well as for the shell: 'key=\"value\"'."
            )
            continue
        key = override.key_or_group
        if override.is_delete() or override.is_add() or key.startswith("hydra"):
            continue
        if is_group(key):
            names = chosen(override)
            wrong = [name for name in names if name not in options_of(key)]
            lines += [explain_choice(item, key, name) for name in wrong]
            if override.is_sweep_override():  # of several choices each may have a key of its own
                swept[key] = [name for name in names if name not in wrong]
            elif not wrong:
                choices.append(item)
        else:
            keys.append(key)
    known = [contents(config_name, choices)]
    for group, names in swept.items():
        known += [contents(config_name, [*choices, f"{group}={name}"]) for name in names]
    for key in keys:
        said = [explain(key, content, config_name) for content in known]
        lines += said[:1] if all(said) else []
    return lines


def contents(config_name: str, choices: Sequence[str]) -> Any:
    """A configuration as plain values; that of the default choices if these do not compose."""
    try:
        composed = compose(config_name, choices)
    except (HydraException, FerError):
        composed = compose(config_name, [])
    return OmegaConf.to_container(composed, resolve=False)


def chosen(override: Override) -> list[str]:
    """The options that an override of a group names: one, or several to be swept or combined.

    Empty where that cannot be told from the override alone.
    """
    if override.is_sweep_override():
        try:
            return [str(name) for name in override.sweep_string_iterator()]
        except HydraException:  # glob(*), interval(0, 1): which these are is not known here
            return []
    value = override.value()
    names = value if isinstance(value, list) else [value]
    return [str(name) for name in names if name is not None]


def explain_choice(item: str, group: str, name: str) -> str:
    """A sentence on a choice that a group does not have."""
    known = options_of(group)
    hint = did_you_mean(difflib.get_close_matches(name, known, n=1))
    return f"{item}: expected one of {', '.join(known)}, found {name!r}.{hint}"


def explain(key: str, content: Any, config_name: str) -> str:
    """A sentence on a key that a configuration does not have; empty if it has it."""
    node, path = content, ""
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            break
        node, path = node[part], f"{path}.{part}".lstrip(".")
    else:
        return ""
    known = {str(name) for name in node if name != "_target_"} if isinstance(node, dict) else set()
    if not path:  # and the groups that are not chosen
        groups = groups_of(config_name)
        if part in groups:
            return (
                f"{key}: expected a choice of {part} first, found none. Add {part}=NAME, one of: "
                f"{', '.join(options_of(part))}."
            )
        known |= set(groups)
    place = f"below {path}" if path else "at the top"
    near = [f"{path}.{name}".lstrip(".") for name in difflib.get_close_matches(part, known, n=1)]
    last = key.rpartition(".")[2]
    elsewhere = [found for found in dotted_keys(content) if found.rpartition(".")[2] == last]
    return (
        f"{key}: expected a known option, found {part!r}.{did_you_mean(near or elsewhere)} Valid "
        f"{place}: {', '.join(sorted(known)) or 'none'}."
    )


def did_you_mean(names: Sequence[str]) -> str:
    """The question, with a space before it; empty without a name.

    >>> did_you_mean(["optimizer.lr"])
    ' Did you mean optimizer.lr?'
    """
    return f" Did you mean {' or '.join(names)}?" if names else ""


def dotted_keys(node: Any, path: str = "") -> Iterator[str]:
    """Every key of a configuration, with those above it."""
    for name, value in node.items() if isinstance(node, dict) else ():
        key = f"{path}.{name}".lstrip(".")
        yield key
        yield from dotted_keys(value, key)


def help_text(config_name: str, arguments: Sequence[str]) -> str:
    """What a command does, its groups with their choices, and the values with their comments.

    The values are shown as the files in ``conf/`` have them: with the comments that explain them.
    """
    parser = OverridesParser.create()
    choices = []
    for item in split_flags(arguments)[1]:
        try:
            override = parser.parse_override(item)
        except HydraException:
            continue
        group = override.key_or_group
        if (
            is_group(group)
            and len(found := chosen(override)) == 1
            and found[0] in options_of(group)
        ):
            choices.append(item)
    cfg = compose(config_name, choices, return_hydra_config=True)
    selected = {
        group: cfg.hydra.runtime.choices.get(group, default)
        for group, default in groups_of(config_name).items()
    }
    parts = [str(cfg.hydra.help.header).rstrip(), ""]
    if selected:
        width = max(map(len, selected))
        parts += ["Choices (group=option; * is chosen):", ""]
        for group, name in selected.items():
            names = name if OmegaConf.is_list(name) else [name]
            marked = [f"{option}*" if option in names else option for option in options_of(group)]
            parts.append(f"  {group:<{width}}  {', '.join(marked)}")
        parts.append("")
    parts += ["Values (key=value changes one):", ""]
    for title, path in sources(config_name, selected):
        body = values_in(path)
        if body:
            indent = "  " if title else ""
            parts += [title] * bool(title) + [indent + line if line else "" for line in body] + [""]
    return "\n".join([*parts, str(cfg.hydra.help.footer).rstrip()])


def groups_of(config_name: str) -> dict[str, Any]:
    """The groups of a command, with the choice, or the list of choices, that is its default."""
    defaults = OmegaConf.load(config_folder() / f"{config_name}.yaml").defaults
    pairs = [pair for item in defaults if OmegaConf.is_dict(item) for pair in item.items()]
    return {str(group): choice for group, choice in pairs if "/" not in str(group)}


def sources(config_name: str, selected: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The files whose values a command has, with the key that they lie below; empty at the top."""
    for path in with_its_base(config_name, ""):
        yield "", path
    for group, name in selected.items():
        for option in name if OmegaConf.is_list(name) else [name]:
            for path in with_its_base(option, group) if option else ():
                whole = path.read_text(encoding="utf-8").startswith("# @package _global_")
                note = f"   # {path.relative_to(path.parent.parent)}"
                yield (f"{note.strip()}:" if whole else f"{group}:{note}"), path


def with_its_base(name: str, group: str) -> Iterator[Path]:
    """The file of a choice, and before it those that it builds on."""
    for folder in [config_folder(), *own_folders()]:  # as Hydra searches them
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            content = OmegaConf.load(path)
            defaults = content.get("defaults") if isinstance(content, DictConfig) else None
            for item in defaults or []:
                if isinstance(item, str) and item != "_self_":
                    yield from with_its_base(item, group)
            yield path
            return


def values_in(path: Path) -> list[str]:
    """The lines of a YAML file that hold values, with their comments."""
    lines: list[str] = []
    keeping = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            keeping = not line.startswith((*LEFT_OUT, "_target_:"))
        if keeping and not re.match(r"\s*(_target_|_partial_):", line):
            lines.append(line)
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
