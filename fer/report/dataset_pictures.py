"""Which images of a dataset its report shows, and what is written below each picture of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    """Name of the file below ``figures/``, without its suffix."""
    figure: Figure
    title: str
    caption: str
    files: Table | None = None


@dataclass(frozen=True)
class Shown:
    """The dataset whose pictures are made."""

    folder: Path
    name: str
    entries: Sequence[Entry]
    integrity: Mapping[str, Any]
    read: Read

    @cached_property
    def copies(self) -> list[list[int]]:
        """Groups of two or more entries with the same pixels, as indices."""
        by_hash: dict[str, list[int]] = defaultdict(list)
        for i, entry in enumerate(self.entries):
            by_hash[entry.sha256].append(i)
        return [group for group in by_hash.values() if len(group) > 1]

    @cached_property
    def index(self) -> dict[str, int]:
        """The index of each entry by its id."""
        return {entry.id: i for i, entry in enumerate(self.entries)}

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
        """The splits of a group's images."""
        found = {self.entries[i].split for i in group}
        return [split for split in SPLITS if split in found]

    def emotions(self, group: Sequence[int]) -> list[str]:
        """The emotions of a group's images."""
        found = {self.entries[i].emotion for i in group}
        return [emotion for emotion in labels.EMOTIONS if emotion in found]

    def pick(self, groups: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """The groups to show: first those that cross splits and are not blank."""
        blank = frozenset(self.integrity["blank"])

        def order(group: Sequence[int]) -> tuple[bool, bool, str]:
            first = self.entries[group[0]]
            # By the checksum of the pixels: in no particular order, but always the same.
            return len(self.splits(group)) == 1, first.id in blank, first.sha256

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


def class_balance(shown: Shown) -> Picture:
    """Bars of the images per emotion and split."""
    counts = shown.integrity["counts"]
    figure = figures.class_balance(counts, title=f"Class balance of {shown.name}")
    caption = "Images per emotion in each split, and their share of the split."
    return Picture("class_balance", figure, "Class balance", caption)


def samples(shown: Shown) -> Picture:
    """Random images of each emotion."""
    split = shown.splits(range(len(shown.entries)))[0]
    rng = np.random.default_rng(SEED)
    groups = []
    for emotion in labels.EMOTIONS:
        rows = [
            i
            for i, entry in enumerate(shown.entries)
            if (entry.split, entry.emotion) == (split, emotion)
        ]
        faces = [Face(shown.read(i)) for i in sorted(rng.permutation(rows)[:SAMPLES].tolist())]
        if faces:
            groups.append(Group(f"{emotion}: {how_many(len(rows), 'image')}", faces))
    how = f"up to {SAMPLES} images of each emotion, picked at random (seed {SEED})"
    figure = dataset_figures.gallery(groups, title=f"Images of {shown.name}, {split}", subtitle=how)
    caption = (
        f"From {split}: {how}. All faces of a frame should show its emotion; wrong labels can be "
        "seen here."
    )
    return Picture("samples", figure, f"Images of each emotion ({split})", caption)


def pixels(shown: Shown) -> Picture:
    """Bars of the pixel statistics of each split."""
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


def duplicates(shown: Shown) -> Picture | None:
    """Groups of exact copies."""
    return _gallery(
        shown,
        "duplicates",
        "Exact duplicates",
        shown.copies,
        shown.integrity["duplicates"]["groups"],
        lambda group: f"{how_many(len(group), 'copy')} · {', '.join(shown.splits(group))}",
        "What a network saw in train says little about how it does on faces that it has not seen.",
    )


def conflicts(shown: Shown) -> Picture | None:
    """Groups of exact copies whose labels disagree."""
    return _gallery(
        shown,
        "conflicts",
        "Exact duplicates with different emotions",
        [group for group in shown.copies if len(shown.emotions(group)) > 1],
        shown.integrity["duplicates"]["groups_with_conflicting_labels"],
        lambda group: " / ".join(shown.emotions(group)),
        "No classifier can be right on all the copies of such an image.",
    )


def near_duplicates(shown: Shown) -> Picture | None:
    """Groups of images that are nearly alike, with how far they are from each other."""
    near = shown.integrity["near_duplicates"]
    if near is None:
        return None
    bits = f"at most {near['distance']} of {near['bits']} bits"
    return _gallery(
        shown,
        "near_duplicates",
        "Near duplicates",
        [shown.find([member["id"] for member in group]) for group in near["listed"]],
        near["groups"],
        lambda group: f"{how_many(len(group), 'image')} · {', '.join(shown.splits(group))}",
        f"Their perceptual hashes differ in {bits}; Δ is the mean difference of an image from the "
        "first of its group, over all pixels, in gray levels from 0 to 255. A few may be different "
        "pictures that look alike.",
        f"perceptual hashes {bits} apart · Δ: mean difference from the group's first image in gray "
        "levels, 0–255 · ",
        differences=True,
    )


def blanks(shown: Shown) -> Picture | None:
    """Images that show nothing."""
    blank = shown.find(shown.integrity["blank"])
    if not blank:
        return None
    picked = blank[:BLANKS]
    number = f"{len(picked):,} of {how_many(len(blank), 'image')}"
    figure = dataset_figures.gallery(
        [Group(number, _faces(shown, picked))],
        title=f"Blank images in {shown.name}",
        subtitle="with the split and the emotion of each",
    )
    caption = f"{number} that show nothing, with the emotion that they are labelled with."
    return Picture("blank", figure, "Blank images", caption, shown.list_files("blank", [picked]))


def _gallery(
    shown: Shown,
    name: str,
    title: str,
    groups: Sequence[Sequence[int]],
    total: int,
    heading: Callable[[Sequence[int]], str],
    note: str,
    legend: str = "",
    *,
    differences: bool = False,
) -> Picture | None:
    """Groups of images, a few of each; None if there is no group.

    Args:
        shown: the dataset.
        name: of the picture's file.
        title: of the picture.
        groups: indices of their entries.
        total: how many groups there are, of which ``groups`` may be the first.
        heading: of a group.
        note: the end of the caption.
        legend: what else the figure's subtitle explains.
        differences: write below each image how far it is from the first one of its group.
    """
    if not groups:
        return None
    picked = shown.pick(groups)
    framed = []
    for number, group in enumerate(picked, start=1):
        some = f" · {PER_GROUP} of {len(group)} shown" if len(group) > PER_GROUP else ""
        faces = _faces(shown, _varied(shown, group)[:PER_GROUP], differences=differences)
        words = f"{number}: {heading(group)}{some}"
        framed.append(Group(words, faces, marked=len(shown.splits(group)) > 1))
    count = f"{len(picked):,} of {how_many(total, 'group')}"
    figure = dataset_figures.gallery(
        framed, title=f"{title} in {shown.name}", subtitle=f"{count} · {legend}{FRAMES}"
    )
    caption = f"{count}, first those in more than one split. {note}"
    return Picture(name, figure, title, caption, shown.list_files(name, picked))


def _varied(shown: Shown, group: Sequence[int]) -> list[int]:
    """The group, with one image of each split and emotion ahead of the others."""
    ahead: dict[tuple[str, str], int] = {}
    for i in group:
        ahead.setdefault((shown.entries[i].split, shown.entries[i].emotion), i)
    first = list(ahead.values())
    return [*first, *(i for i in group if i not in first)]


def _faces(shown: Shown, picked: Sequence[int], *, differences: bool = False) -> list[Face]:
    """Images with their splits and emotions, and how far each is from the first."""
    images = [shown.read(i) for i in picked]
    faces: list[Face] = []
    for i, image in zip(picked, images, strict=True):
        lines = [shown.entries[i].split, shown.entries[i].emotion]
        if differences:
            lines.append("first" if not faces else f"Δ {_difference(images[0], image):.1f}")
        faces.append(Face(image, lines))
    return faces


def _difference(image: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two images in gray levels, at the size of the first."""
    first, second = (Image.fromarray(array).convert("L") for array in (image, other))
    if second.size != first.size:
        second = second.resize(first.size, Image.Resampling.BILINEAR)
    return float(np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).mean())
