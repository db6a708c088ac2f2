"""Modules of the user's own, imported at the start of a command: what they register is then known.

They are named by the user, in the environment (``FER_PLUGINS=my_networks,my_scores``), or by a
package that he has installed (an entry point of the group ``fer.plugins``); never by a file that is
opened.
"""

from __future__ import annotations

import importlib
import os
from importlib.metadata import entry_points

from fer.core.errors import ConfigError, first_line

VARIABLE = "FER_PLUGINS"
GROUP = "fer.plugins"


def import_plugins() -> None:
    """Import every module that the user has named.

    Raises:
        ConfigError: one cannot be imported.
    """
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    for name in filter(None, named):
        import_plugin(name, f"{VARIABLE}={os.environ[VARIABLE]}")
    for point in entry_points(group=GROUP):
        import_plugin(point.module, f"entry point {point.name} of {GROUP}")


def import_plugin(module: str, named_by: str) -> None:
    """Import a module.

    Args:
        module: its dotted name.
        named_by: where it was named, for the message.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        importlib.import_module(module)
    except ConfigError:
        raise
    except Exception as error:  # a module may raise anything
        raise ConfigError(
            f"{named_by}: expected a module that can be imported, found that {module} fails: "
            f"{type(error).__name__}: {first_line(error)}. Correct it, or put its folder on the "
            "path: PYTHONPATH=FOLDER"
        ) from error
