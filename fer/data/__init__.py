"""Raw files → records → prepared folders → data modules.

The data modules are imported on first use: preparing a dataset does not need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.data.datamodule import EmotionDataModule, FER2013DataModule, RAFDBDataModule

__all__ = ["EmotionDataModule", "FER2013DataModule", "RAFDBDataModule"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fer.data import datamodule

        return getattr(datamodule, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
