"""Figures that are built but not rendered, which takes five sixths of the time of a tiny run."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

RENDERING = [
    (owner, name, getattr(owner, name))
    for owner, name in (
        (Figure, "savefig"),
        (Figure, "draw_without_rendering"),
        (FigureCanvasAgg, "draw"),
    )
]
"""What :func:`sketch` replaces: owner, name and matplotlib's own."""


def sketch(replace: Callable[[Any, str, Any], None]) -> None:
    """Let every figure be saved as the same small blank picture.

    Args:
        replace: ``setattr``, or that of a :class:`pytest.MonkeyPatch`.
    """
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 255).save(buffer, "PNG")
    blank = buffer.getvalue()
    replace(Figure, "savefig", lambda figure, file, **_: file.write(blank))
    replace(Figure, "draw_without_rendering", lambda figure: None)
    replace(FigureCanvasAgg, "draw", lambda canvas: canvas.get_renderer())


def render(replace: Callable[[Any, str, Any], None]) -> None:
    """Undo :func:`sketch`."""
    for owner, name, plain in RENDERING:
        replace(owner, name, plain)


def is_sketching() -> bool:
    """Whether :func:`sketch` holds in this process."""
    return any(getattr(owner, name) is not plain for owner, name, plain in RENDERING)
