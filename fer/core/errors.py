"""Errors that a user can act on.

The command line prints the message of a :class:`FerError` alone, without a traceback
(``HYDRA_FULL_ERROR=1`` brings the traceback back). Every message therefore says three things:
what was expected, what was found, and what to do next.
"""

from __future__ import annotations

PIPE_CLOSED = 141
"""The exit code where the reader of the output, such as ``head``, has read enough."""


class FerError(Exception):
    """Base class of every error that the package raises on purpose."""


class DataError(FerError, ValueError):
    """Raw or prepared data is missing, malformed or incomplete."""


class ConfigError(FerError, ValueError):
    """An option has an invalid value."""


class TrainingError(FerError, RuntimeError):
    """A training cannot continue."""


class CheckpointError(FerError, ValueError):
    """A checkpoint is missing, unreadable, or made for something else."""


class ExportError(FerError, RuntimeError):
    """A network cannot be exported, or the hub does not take it."""


def first_line(error: BaseException) -> str:
    """The first line of the message of an error that other code raised."""
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
