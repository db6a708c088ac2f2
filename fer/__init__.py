"""Facial emotion recognition with one compact CNN on two datasets.

Importing this package is cheap: what it offers is imported when it is asked for, so that the
command line can compose a configuration, print its help or reject a bad override at once::

    from lightning.pytorch import Trainer
    from fer import EmotionModule, FER2013DataModule, SharedCNN

    data = FER2013DataModule(raw="archive.zip")
    module = EmotionModule(SharedCNN())
    trainer = Trainer(max_epochs=70)
    trainer.fit(module, data)
    trainer.test(module, data)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.core.labels import EMOTIONS as EMOTIONS
    from fer.data.datamodule import EmotionDataModule as EmotionDataModule
    from fer.data.published import FER2013DataModule as FER2013DataModule
    from fer.data.published import FERPlusDataModule as FERPlusDataModule
    from fer.data.published import RAFDBDataModule as RAFDBDataModule
    from fer.evaluation.predictor import Predictor as Predictor
    from fer.evaluation.scores import register_score as register_score
    from fer.model.checkpoint import load_checkpoint as load_checkpoint
    from fer.model.module import EmotionModule as EmotionModule
    from fer.model.network import register_network as register_network
    from fer.model.shared_cnn import SharedCNN as SharedCNN

__version__ = "0.2.0"

MODULES = {
    "EMOTIONS": "fer.core.labels",
    "EmotionDataModule": "fer.data.datamodule",
    "EmotionModule": "fer.model.module",
    "FER2013DataModule": "fer.data.published",
    "FERPlusDataModule": "fer.data.published",
    "Predictor": "fer.evaluation.predictor",
    "RAFDBDataModule": "fer.data.published",
    "SharedCNN": "fer.model.shared_cnn",
    "load_checkpoint": "fer.model.checkpoint",
    "register_network": "fer.model.network",
    "register_score": "fer.evaluation.scores",
}
"""The module of each name that the package offers."""

__all__ = [*MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
