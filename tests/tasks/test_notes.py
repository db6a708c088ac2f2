"""A reader is told how the measured images differ from those of the training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fer.tasks.notes import compare_data


class Reader:
    def options(self) -> dict[str, int]:
        return {"split_seed": 0}


def compare(
    name: str = "faces", fold: str | None = None, was: str | None = None, **trained_on: Any
) -> list[str]:
    """Notes on a network of ``faces``, measured on ``name`` with this fold."""
    integrity = {"fingerprint": "f" * 64, "identity": "i"}
    options = {"leaks": "keep", "blank": "keep", "conflicts": "keep", "fold": was}
    own = {"name": "faces", "reader": {"split_seed": 0}, "options": options, **integrity}
    data: Any = SimpleNamespace(
        dataset_name=name, leaks="keep", blank="keep", conflicts="keep", fold=fold,
        prepared=SimpleNamespace(integrity=integrity), reader=Reader(),
    )  # fmt: skip
    checkpoint: Any = SimpleNamespace(extras={"dataset": {**own, **trained_on}})
    return compare_data(checkpoint, data)


NAME, FOLD, OTHER_FOLDS = "is measured on other", "fold=1/5 and is measured with", "of other folds"
PICTURES, COPY = "pixels or labels differ", "This is not the copy"
STRANGE = {"fingerprint": "g" * 64, "identity": None}
AGAIN = {"fingerprint": "g" * 64}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        (AGAIN, [PICTURES]),
        (STRANGE, [COPY]),
        ({"identity": None}, []),
        ({"name": "other"}, [NAME]),
        ({"name": "other", **AGAIN}, [NAME, PICTURES]),
        ({"name": "other", **STRANGE}, [NAME]),
        ({"was": "1/5", "fold": "1/5"}, []),
        ({"was": "1/5"}, [FOLD]),
        ({"was": "1/5", "fold": "2/5"}, [FOLD]),
        ({"was": "1/5", "name": "other"}, [NAME, FOLD]),
        ({"was": "1/5", "fold": "1/5", "reader": {"split_seed": 1}}, [OTHER_FOLDS]),
        ({"was": "1/5", "fold": "1/5", **AGAIN}, [OTHER_FOLDS, PICTURES]),
        ({"was": "1/5", "fold": "2/5", **STRANGE}, [FOLD, COPY]),
        ({"reader": {"split_seed": 1}}, []),
    ],
)
def test_what_differs_from_the_training_is_said(
    options: dict[str, Any], expected: list[str]
) -> None:
    notes = compare(**options)
    assert len(notes) == len(expected)
    assert all(words in note for words, note in zip(expected, notes, strict=True))
