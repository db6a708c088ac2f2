"""The user's own modules, imported at the start of every command to register what they add.

The user names them in the environment (``FER_PLUGINS=my_networks,my_scores``) or installs a package
with an entry point in the group ``fer.plugins``. No file that is opened can name one.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

from fer.core.errors import ConfigError, first_line

SOURCE = Path(__file__).resolve().parent.parent.parent
"""The folder that holds this package, and beside it the plugins for Hydra."""
VARIABLE = "FER_PLUGINS"
GROUP = "fer.plugins"


def import_plugins() -> None:
    """Import the plugins.

    Raises:
        ConfigError: one cannot be imported.
    """
    # Installed with pip install -e, a program elsewhere would not find the plugins for Hydra.
    if (SOURCE / "hydra_plugins").is_dir() and str(SOURCE) not in sys.path:
        sys.path.append(str(SOURCE))
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    for name in filter(None, named):
        import_plugin(name, f"{VARIABLE}={os.environ[VARIABLE]}")
    for point in entry_points(group=GROUP):
        import_plugin(point.module, f"entry point {point.name} of {GROUP}")


def import_plugin(module: str, named_by: str) -> None:
    """Import a module; ``named_by`` says in the message where its name comes from.

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
