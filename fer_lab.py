"""The console command ``fer``; outside the package, which another distribution may overwrite.

The distribution named ``fer`` on the package index also installs a top-level package ``fer``. With
both installed, files of one have replaced those of the other.
"""

from __future__ import annotations

import sys
from importlib import metadata, util
from pathlib import Path


def find_other() -> str | None:
    """The distribution ``fer``, if it lies where this package or the one found first does.

    >>> find_other() is None
    True
    """
    try:
        other = metadata.distribution("fer")
    except metadata.PackageNotFoundError:
        return None
    spec = util.find_spec("fer")
    places = [] if spec is None else spec.submodule_search_locations or []
    own = Path(str(other.locate_file("fer"))).resolve()
    return f"fer {other.version}" if own in [Path(place).resolve() for place in places] else None


def main() -> int:
    """``fer COMMAND …``; returns the exit code."""
    other = find_other()
    if other is not None:
        print(
            "Error: expected fer-lab alone to have installed the package fer, found that the "
            f"distribution {other} did so too: files of one have replaced the other's. "
            "pip uninstall fer, then install fer-lab once more (pip install --force-reinstall "
            "--no-deps), or keep each in a virtual environment of its own.",
            file=sys.stderr,
        )
        return 1
    from fer.tasks.command import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
