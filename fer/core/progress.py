"""Progress bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""Called with the number of steps done and their total."""


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on the error stream, if that is a terminal.

    Yields:
        a :data:`Progress`, which takes None as the total too, while that is unknown.
    """
    from rich.console import Console
    from rich.progress import Progress as Bar

    hidden = not sys.stderr.isatty()  # rich would draw into a notebook all the same
    with Bar(console=Console(file=sys.stderr), transient=True, disable=hidden) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
