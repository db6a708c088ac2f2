"""Which images of a dataset its report shows, and what stands under each picture of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fer.core import labels
from fer.core.errors import DataError
from fer.core.words import how_many
from fer.data.manifest import Entry
from fer.data.readers.base import SPLITS
from fer.report import dataset_figures, figures
from fer.report.dataset_figures import Face, Group
from fer.report.page import Cell, Table

SEED = 0
"""Picks the images of the sample grid."""
SAMPLES = 8
"""Images of each emotion in the sample grid."""
GROUPS = 12
"""Groups in a gallery."""
PER_GROUP = 4
"""Images of a group; some have dozens of copies."""
BLANKS = 24
LISTED = 50
"""Images of a group that the page names."""
FRAMES = "thick orange frame: in more than one split"

Read = Callable[[int], np.ndarray]
"""Decodes the image of an entry, given its index: ``(H, W)`` or ``(H, W, 3)`` uint8."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page, and which images it shows."""

    name: str
    """Of the file below ``figures/``, without its ending."""
    figure: Figure
    title: str
    caption: str
    files: Table | None = None


class Shown:
    """The dataset, with what the pictures need of it."""

    def __init__(
        self,
        folder: Path,
        name: str,
        entries: Sequence[Entry],
        integrity: Mapping[str, Any],
        read: Read,
    ) -> None:
        self.folder, self.name, self.entries = folder, name, entries
        self.integrity, self.read = integrity, read
        self.blank = frozenset(integrity["blank"])
        self.index = {entry.id: i for i, entry in enumerate(entries)}
        by_hash: dict[str, list[int]] = defaultdict(list)
        for i, entry in enumerate(entries):
            by_hash[entry.sha256].append(i)
        self.copies = [group for group in by_hash.values() if len(group) > 1]

    def find(self, ids: Sequence[str]) -> list[int]:
        """Indices of the entries with these ids."""
        unknown = [item for item in ids if item not in self.index]
        if unknown:
            raise DataError(
                f"{self.folder}: expected integrity.json to name images of manifest.csv, found "
                f"{unknown[0]!r}. Prepare the dataset again."
            )
        return [self.index[item] for item in ids]

    def splits(self, group: Sequence[int]) -> list[str]:
        """The splits that a group has images in."""
        found = {self.entries[i].split for i in group}
        return [split for split in SPLITS if split in found]

    def emotions(self, group: Sequence[int]) -> list[str]:
        """The emotions that a group has."""
        found = {self.entries[i].emotion for i in group}
        return [emotion for emotion in labels.EMOTIONS if emotion in found]

    def pick(self, groups: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """The first groups to show: those that cross splits, with something to be seen."""

        def order(group: Sequence[int]) -> tuple[bool, bool, str]:
            first = self.entries[group[0]]
            # The checksum of the pixels: in no order that means anything, and always the same.
            return len(self.splits(group)) == 1, first.id in self.blank, first.sha256

        return sorted(groups, key=order)[:GROUPS]

    def list_files(self, kind: str, groups: Sequence[Sequence[int]]) -> Table:
        """The images of the groups that a picture shows."""
        rows = []
        for number, group in enumerate(groups, start=1):
            for i in group[:LISTED]:
                entry = self.entries[i]
                is_there = (self.folder / entry.file).exists()
                link = quote(entry.file, errors="surrogateescape") if is_there else None
                rows.append(
                    [
                        Cell(f"{number}", number),
                        Cell(entry.split, words=True),
                        Cell(entry.emotion, words=True),
                        Cell(entry.id, words=True, link=link),
                        Cell(entry.source, words=True),
                    ]
                )
        return Table(f"{kind}-files", ["Group", "Split", "Emotion", "Image", "From"], rows)


def draw_balance(shown: Shown) -> Picture:
    counts = shown.integrity["counts"]
    figure = figures.class_balance(counts, title=f"Class balance of {shown.name}")
    caption = "Images per emotion in each split, and their share of the split."
    return Picture("class_balance", figure, "Class balance", caption)


def draw_samples(shown: Shown) -> Picture:
    split = shown.splits(range(len(shown.entries)))[0]
    rng = np.random.default_rng(SEED)
    by_emotion: dict[str, list[int]] = {emotion: [] for emotion in labels.EMOTIONS}
    for i, entry in enumerate(shown.entries):
        if entry.split == split:
            by_emotion[entry.emotion].append(i)
    picked = {
        emotion: sorted(rng.permutation(indices)[:SAMPLES].tolist())
        for emotion, indices in by_emotion.items()
    }
    figure = dataset_figures.sample_grid(
        {emotion: [shown.read(i) for i in indices] for emotion, indices in picked.items()},
        {emotion: len(indices) for emotion, indices in by_emotion.items()},
        title=f"Images of {shown.name}, {split}",
        subtitle=f"up to {SAMPLES} images of each emotion, picked at random (seed {SEED})",
    )
    caption = (
        f"Up to {SAMPLES} images of each emotion from {split}, picked at random with seed {SEED}. "
        "The faces of a row should share its emotion; wrong labels are to be seen here."
    )
    return Picture("samples", figure, f"Images of each emotion ({split})", caption)


def draw_pixels(shown: Shown) -> Picture:
    figure = dataset_figures.pixel_statistics(
        shown.integrity["pixels"],
        shown.integrity["reference_pixels"],
        title=f"Pixels of {shown.name}",
    )
    caption = (
        "A split that was smoothed has less sharpness than it should have, one that was sharpened "
        "has more."
    )
    return Picture("pixels", figure, "Brightness, contrast and sharpness", caption)


def draw_duplicates(shown: Shown) -> Picture | None:
    """Groups of exact copies."""
    if not shown.copies:
        return None
    picked = shown.pick(shown.copies)
    groups = [
        _group(shown, number, group, how_many(len(group), "copy"), ", ".join(shown.splits(group)))
        for number, group in enumerate(picked, start=1)
    ]
    count = _some(len(picked), shown.integrity["duplicates"]["groups"])
    return Picture(
        "duplicates",
        dataset_figures.gallery(
            groups, title=f"Exact duplicates in {shown.name}", subtitle=f"{count} · {FRAMES}"
        ),
        "Exact duplicates",
        f"{count}, first those that stand in more than one split. What a network saw in train "
        "says little about how it does on faces that it has not seen.",
        shown.list_files("duplicates", picked),
    )


def draw_conflicts(shown: Shown) -> Picture | None:
    """Groups of exact copies whose labels disagree."""
    conflicts = [group for group in shown.copies if len(shown.emotions(group)) > 1]
    if not conflicts:
        return None
    picked = shown.pick(conflicts)
    groups = [
        _group(shown, number, group, " / ".join(shown.emotions(group)))
        for number, group in enumerate(picked, start=1)
    ]
    total = shown.integrity["duplicates"]["groups_with_conflicting_labels"]
    count = _some(len(picked), total)
    return Picture(
        "conflicts",
        dataset_figures.gallery(
            groups,
            title=f"Exact duplicates with different emotions in {shown.name}",
            subtitle=f"{count} · {FRAMES}",
        ),
        "Exact duplicates with different emotions",
        f"{count}, first those that stand in more than one split. No classifier can be right on "
        "all the copies of such an image.",
        shown.list_files("conflicts", picked),
    )


def draw_near(shown: Shown) -> Picture | None:
    """Groups of images that are nearly alike, with how far they are from each other."""
    near = shown.integrity["near_duplicates"] or {"listed": []}
    listed = [shown.find([member["id"] for member in group]) for group in near["listed"]]
    if not listed:
        return None
    picked = shown.pick(listed)
    groups = [
        _group(
            shown,
            number,
            group,
            how_many(len(group), "image"),
            ", ".join(shown.splits(group)),
            differences=True,
        )
        for number, group in enumerate(picked, start=1)
    ]
    count = _some(len(picked), near["groups"])
    bits = f"{near['distance']} of {near['bits']} bits"
    return Picture(
        "near_duplicates",
        dataset_figures.gallery(
            groups,
            title=f"Near duplicates in {shown.name}",
            subtitle=f"{count} · perceptual hashes at most {bits} apart · Δ: mean difference from "
            f"the group's first image in gray levels, 0–255 · {FRAMES}",
        ),
        "Near duplicates",
        f"{count}, first those that stand in more than one split. Their perceptual hashes differ "
        f"in at most {bits}; Δ is how far an image is from the first of its group on average over "
        "its pixels, in gray levels from 0 to 255. A few may be different pictures that look "
        "alike.",
        shown.list_files("near", picked),
    )


def draw_blanks(shown: Shown) -> Picture | None:
    blank = shown.find(shown.integrity["blank"])
    if not blank:
        return None
    picked = blank[:BLANKS]
    faces = [
        Face(shown.read(i), (shown.entries[i].split, shown.entries[i].emotion)) for i in picked
    ]
    number = f"{len(picked):,} of {how_many(len(blank), 'image')}"
    return Picture(
        "blank",
        dataset_figures.face_wall(faces, title=f"Blank images in {shown.name}", subtitle=number),
        "Blank images",
        f"{number} that show nothing, with the emotion that they are labelled with.",
        shown.list_files("blank", [[i] for i in picked]),
    )


def _some(shown: int, groups: int) -> str:
    return f"{shown:,} of {how_many(groups, 'group')}"


def _varied(shown: Shown, group: Sequence[int]) -> list[int]:
    """The group with one image of each split and emotion first: so the first few show them all."""
    ahead: dict[tuple[str, str], int] = {}
    for i in group:
        ahead.setdefault((shown.entries[i].split, shown.entries[i].emotion), i)
    first = list(ahead.values())
    return [*first, *(i for i in group if i not in first)]


def _group(
    shown: Shown, number: int, group: Sequence[int], *heading: str, differences: bool = False
) -> Group:
    """Some images of a group, each with its split and emotion.

    Args:
        shown: the dataset.
        number: of the group, by which the list of files names it.
        group: indices of its entries.
        heading: parts of the heading.
        differences: whether each image also says how far it is from the first one.
    """
    more = [f"{PER_GROUP} of {len(group)} shown"] if len(group) > PER_GROUP else []
    picked = _varied(shown, group)[:PER_GROUP]
    images = [shown.read(i) for i in picked]
    faces = []
    for position, (i, image) in enumerate(zip(picked, images, strict=True)):
        lines = [shown.entries[i].split, shown.entries[i].emotion]
        if differences:
            lines.append("first" if position == 0 else f"Δ {_difference(images[0], image):.1f}")
        faces.append(Face(image, lines))
    return Group(
        f"{number}: " + " · ".join([*heading, *more]), faces, marked=len(shown.splits(group)) > 1
    )


def _difference(image: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two images in gray levels, at the size of the first."""
    first, second = (Image.fromarray(array).convert("L") for array in (image, other))
    if second.size != first.size:
        second = second.resize(first.size, Image.Resampling.BILINEAR)
    return float(np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).mean())
