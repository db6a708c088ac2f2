"""The device to compute on, and the precision that is fast on it."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

AUTOCAST = {"32-true": None, "bf16-mixed": "bfloat16", "16-mixed": "float16"}
"""Lightning's names of the precisions that are known here, and the type autocast computes in."""


def autocast_dtype(precision: str) -> torch.dtype | None:
    """What autocast computes in; None for single precision.

    Raises:
        ConfigError: the precision is unknown.
    """
    import torch

    if precision not in AUTOCAST:
        raise ConfigError(
            f"trainer.precision: expected one of {', '.join(AUTOCAST)}, found {precision!r}."
        )
    name = AUTOCAST[precision]
    return None if name is None else getattr(torch, name)


def find_device(accelerator: str) -> torch.device:
    """The device for a value of ``trainer.accelerator``.

    Raises:
        ConfigError: there is no such device here.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if accelerator == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if accelerator == "cpu":
        return torch.device("cpu")
    if accelerator == "gpu" and (cuda or mps):
        return torch.device("cuda" if cuda else "mps")
    if accelerator == "mps" and mps:
        return torch.device("mps")
    available = ["auto", "cpu", *(["gpu"] if cuda or mps else []), *(["mps"] if mps else [])]
    raise ConfigError(
        f"trainer.accelerator: expected one that this machine has ({', '.join(available)}), "
        f"found {accelerator!r}."
    )


def check_processes(count: int, device: torch.device) -> None:
    """Refuse more processes than the machine has devices for.

    Raises:
        ConfigError: ``trainer.devices`` asks for more.
    """
    if device.type == "cuda":
        import torch

        there, unit = torch.cuda.device_count(), "GPUs"
    elif device.type == "cpu":
        there, unit = os.cpu_count() or 1, "CPU cores"
    else:
        there, unit = 1, f"device of the kind {device.type}"
    if count > there:
        raise ConfigError(
            f"trainer.devices: expected at most what this machine has ({there} {unit}), found "
            f"{count}. Take fewer: trainer.devices={there}"
        )


def keep_freed_memory() -> None:
    """Let the C library keep what a step has freed for the next one (glibc alone; else nothing).

    A training step on the CPU allocates and frees tens of megabytes. Whether glibc gives them back
    to the system each time depends on what happens to lie at the end of its heap. Where it does,
    the system clears thousands of pages anew in every step. The process is
    left as large as it has been, and no larger.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    # Older versions take no more than 32 MB. The first must be set: the second alone would leave
    # it at its beginning, and everything above 128 kB would be mapped and unmapped.
    if any(library.mallopt(mmap_threshold, size) for size in (1 << 30, 1 << 25)):
        library.mallopt(trim_threshold, 1 << 30)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 faster than in float32.

    On a CPU this asks for the instructions themselves (AVX-512 BF16 or AMX on x86, BF16 on Arm):
    without them bfloat16 runs too, but slower than float32.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_capability(device)[0] >= 8  # Ampere and later
    if device.type != "cpu" or platform.system() != "Linux":
        return False
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def find_precision(precision: str, device: torch.device) -> str:
    """The precision for a value of ``trainer.precision``.

    Raises:
        ConfigError: it is unknown.
    """
    if precision == "auto":
        return "bf16-mixed" if has_fast_bfloat16(device) else "32-true"
    if str(precision) not in AUTOCAST:
        raise ConfigError(
            f"trainer.precision: expected one of auto, {', '.join(AUTOCAST)}, found {precision!r}."
        )
    return precision


@dataclass(frozen=True)
class Computing:
    """Where and how the network runs."""

    device: torch.device
    precision: str

    @classmethod
    def find(cls, accelerator: str, precision: str) -> Computing:
        """What ``trainer.accelerator`` and ``trainer.precision`` mean on this machine."""
        device = find_device(accelerator)
        return cls(device, find_precision(precision, device))
