"""The device to compute on, and its fastest precision."""

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
"""Lightning's name of each supported precision, and the type that autocast uses for it."""


def autocast_dtype(precision: str) -> torch.dtype | None:
    """The type that autocast uses; None for single precision.

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
    """Find the device that ``trainer.accelerator`` means on this machine."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    best = "cuda" if cuda else "mps" if mps else "cpu"
    known = {"auto": best, "cpu": "cpu"}
    if best != "cpu":
        known["gpu"] = best
    if mps:
        known["mps"] = "mps"
    if str(accelerator) not in known:
        raise ConfigError(
            f"trainer.accelerator: expected one that this machine has ({', '.join(known)}), "
            f"found {accelerator!r}."
        )
    return torch.device(known[accelerator])


def check_processes(count: int, device: torch.device) -> None:
    """Refuse to start more processes than the machine has devices.

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
    """Make glibc keep freed memory for the next training step; do nothing on other C libraries.

    A step on the CPU allocates and frees tens of megabytes. Depending on what happens to lie at the
    end of the heap, glibc returns them to the system, which then clears thousands of pages anew in
    every step. The process stays as large as its peak, and no larger.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    # Older versions accept at most 32 MB. Both must be set: the trim threshold alone would pin the
    # other at 128 kB, and every larger block would be mapped and unmapped.
    if any(library.mallopt(mmap_threshold, size) for size in (1 << 30, 1 << 25)):
        library.mallopt(trim_threshold, 1 << 30)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether the device computes faster in bfloat16 than in float32.

    A CPU needs instructions for it (AVX-512 BF16 or AMX on x86, BF16 on Arm). Without them bfloat16
    works, but is slower than float32.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_capability(device)[0] >= 8  # Ampere and later
    if device.type != "cpu" or platform.system() != "Linux":
        return False
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def find_precision(precision: str, device: torch.device) -> str:
    """Find the precision that ``trainer.precision`` means on a device."""
    if precision == "auto":
        return "bf16-mixed" if has_fast_bfloat16(device) else "32-true"
    if str(precision) not in AUTOCAST:
        raise ConfigError(
            f"trainer.precision: expected one of auto, {', '.join(AUTOCAST)}, found {precision!r}."
        )
    return precision


def images_at_once(device: torch.device | None) -> int:
    """Images of a step that only predicts: few fit a CPU's cache, many keep another device busy."""
    return 32 if device is None or device.type == "cpu" else 512


@dataclass(frozen=True)
class Computing:
    """The device and precision that a network runs with."""

    device: torch.device
    precision: str

    @classmethod
    def find(cls, accelerator: str, precision: str) -> Computing:
        """Resolve ``trainer.accelerator`` and ``trainer.precision`` on this machine."""
        device = find_device(accelerator)
        return cls(device, find_precision(precision, device))
