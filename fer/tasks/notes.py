"""Notes for a reader of results on the data and the network."""

from __future__ import annotations

from collections.abc import Sequence

from fer.core.words import how_many
from fer.data.audit.integrity import data_notes
from fer.data.conversion import describe_left_out
from fer.data.datamodule import EmotionDataModule
from fer.evaluation.perturbations import Setting
from fer.model.checkpoint import Checkpoint


def notes_on(data: EmotionDataModule) -> list[str]:
    """Notes on the data of a run."""
    notes = [
        *data_notes(data.prepared.integrity),
        *describe_left_out(data.left_out),
        *data.prepared.integrity["warnings"],
    ]
    if data.prepared.integrity["matches_official_counts"] is False:
        notes.insert(
            0,
            f"This copy of {data.dataset_name} does not have the official number of images: "
            "results are not comparable with published ones.",
        )
    if data.generator is not None:
        notes.insert(0, "These faces are drawn. Scores on them say nothing about human faces.")
    return notes


def compare_threads(before: int | None, now: int) -> list[str]:
    """A note if a training went on with another number of threads, which round differently."""
    if before in (None, now):
        return []
    return [
        f"The training was begun with {how_many(before, 'thread')} and went on with {now}: its "
        "weights may differ in their last digits from those of one that was not cut off."
    ]


def has_pictures_of(checkpoint: Checkpoint, data: EmotionDataModule) -> bool:
    """True if the network was trained on this dataset, or on its pictures under another name."""
    trained_on, integrity = checkpoint.extras["dataset"], data.prepared.integrity
    identity = integrity.get("identity")
    return (
        trained_on["name"] == data.dataset_name
        or trained_on["fingerprint"] == integrity["fingerprint"]
        or (identity is not None and identity == trained_on.get("identity"))
    )


def compare_data(checkpoint: Checkpoint, data: EmotionDataModule) -> list[str]:
    """Notes on how the evaluated data differ from what the checkpoint was trained on."""
    trained_on, integrity = checkpoint.extras["dataset"], data.prepared.integrity
    notes = []
    if trained_on["name"] != data.dataset_name:
        notes.append(
            f"The network was trained on {trained_on['name']} and is measured on "
            f"{data.dataset_name}."
        )
    if not has_pictures_of(checkpoint, data):
        return notes
    saved = trained_on.get("options") or {}
    own = {"leaks": data.leaks, "blank": data.blank, "conflicts": data.conflicts}
    different = [key for key, value in own.items() if saved.get(key, value) != value]
    if different:
        notes.append(
            "Images were left out in another way than in training: "
            + ", ".join(f"dataset.{key}={own[key]}, then {saved[key]}" for key in different)
            + "."
        )
    same_content = trained_on["fingerprint"] == integrity["fingerprint"]
    reader, other = data.reader.options(), trained_on.get("reader") or {}
    makes_folds = [key for key in ("split_seed", "person") if other.get(key) != reader.get(key)]
    before = saved.get("fold")
    if before != data.fold or (before is not None and (makes_folds or not same_content)):
        notes.append(
            f"The network was trained with dataset.fold={before or 'null'} and is measured with "
            f"{data.fold or 'null'}{' of other folds' if before == data.fold else ''}: test images "
            "may have been seen in training."
        )
    identity = integrity.get("identity")
    if not same_content and identity is not None and identity == trained_on.get("identity"):
        notes.append(
            "The pictures are those of the copy that the network was trained on, in the same "
            "given splits; their pixels or labels differ."
        )
    elif not same_content:
        notes.append(
            f"This is not the copy of {data.dataset_name} that the network was trained on "
            f"(fingerprint {trained_on['fingerprint'][:16]}, here "
            f"{integrity['fingerprint'][:16]}): test images may have been seen in training."
        )
    return notes


def temperature_notes(checkpoint: Checkpoint, dataset: str, split: str) -> list[str]:
    """Notes on calibration with a temperature that was fitted on ``dataset``'s val."""
    notes = []
    if "val" in split.split("+"):
        notes.append(
            "The temperature was fitted on validation images that these figures are of: they "
            "flatter the calibration with it. Use split=test."
        )
    if checkpoint.extras["dataset"]["name"] != dataset:
        notes.append(
            f"The temperature was fitted on {dataset}'s validation images and their emotions, not "
            "on those of the dataset that the network was trained on."
        )
    return notes


def notes_on_published(settings: Sequence[Setting], dataset: str, images: int) -> list[str]:
    """Notes where published figures of a dataset are of another number of images."""
    published = ((setting.reference or {}).get(dataset) for setting in settings)
    counts = {one["images"] for one in published if one} - {images}
    return [
        f"The published accuracies are of {count:,} images of {dataset}, these are of {images:,}: "
        "do not compare them. FER2013 has as many in split=val+test, RAF-DB in split=test."
        for count in sorted(counts)
    ]
