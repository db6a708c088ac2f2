"""Which images of a dataset its page shows, and what is written below each picture of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from fer.core import labels
from fer.core.errors import DataError
from fer.core.words import how_many
from fer.data.audit.integrity import Integrity
from fer.data.manifest import Entry
from fer.data.readers.base import SPLITS
from fer.report import figures
from fer.report.figures import WRONG, Tile
from fer.report.page import Cell, FigureEntry, Table, make_table

SEED = 0
"""Picks the images of the sample grid."""
ACROSS = 8
"""Images in a row of a picture; groups may have dozens of copies."""
DOWN = 8
"""Rows of a gallery."""
LISTED = 50
"""Images of a row that the page names."""

Read = Callable[[int], np.ndarray]
"""Decodes the image of an entry, given its index: ``(H, W)`` or ``(H, W, 3)`` uint8."""


@dataclass(frozen=True)
class Gallery:
    """Images that have a fault, a group in each row."""

    name: str
    """Name of the file below ``figures/``, without its suffix."""
    title: str
    groups: Sequence[Sequence[int]]
    """Indices of the images, of all groups or of the first."""
    images: int
    """In all groups."""
    note: str
    """The end of the caption."""


@dataclass(frozen=True)
class Pictures:
    """Makes the pictures of a prepared dataset; they decode only the images that they show."""

    folder: Path
    entries: Sequence[Entry]
    integrity: Integrity
    read: Read

    @cached_property
    def index(self) -> dict[str, int]:
        """The index of each entry by its id."""
        return {entry.id: i for i, entry in enumerate(self.entries)}

    def find(self, ids: Iterable[str]) -> list[int]:
        """Indices of the entries with these ids."""
        try:
            return [self.index[item] for item in ids]
        except KeyError as error:
            raise DataError(
                f"{self.folder}: expected integrity.json to name images of manifest.csv, found "
                f"{error.args[0]!r}. Prepare the dataset again."
            ) from error

    def overview(self) -> list[FigureEntry]:
        """Class balance, and random images of each emotion."""
        name, counts = self.integrity["dataset"], self.integrity["counts"]
        balance = figures.class_balance(counts, title=f"Class balance of {name}")
        words = "Each emotion's share of the images of every split."
        return [self._save("class_balance", "Class balance", words, balance), self._samples()]

    def _samples(self) -> FigureEntry:
        split = min((entry.split for entry in self.entries), key=SPLITS.index)
        rng, rows = np.random.default_rng(SEED), []
        for emotion in labels.EMOTIONS:
            found = [
                i
                for i, entry in enumerate(self.entries)
                if (entry.split, entry.emotion) == (split, emotion)
            ]
            picked = sorted(rng.permutation(found)[:ACROSS].tolist())
            if picked:
                words = f"{emotion}\n{how_many(len(found), 'image')}"
                rows.append((words, [Tile(self.read(i)) for i in picked]))
        how = f"up to {ACROSS} images of each emotion, picked at random (seed {SEED})"
        title = f"Images of {self.integrity['dataset']}, {split}"
        figure = figures.picture_grid(rows, title=title, subtitle=how)
        caption = (
            f"From {split}: {how}. All faces of a row should show its emotion; wrong labels can "
            "be seen here."
        )
        return self._save("samples", f"Images of each emotion ({split})", caption, figure)

    def galleries(self) -> dict[str, FigureEntry | None]:
        """A picture for each kind of fault by its title; None where there is no such image."""
        return {
            one.title: self._show(one) if one.groups else None for one in self._list_galleries()
        }

    def _list_galleries(self) -> list[Gallery]:
        by_pixels: dict[str, list[int]] = defaultdict(list)
        for i, entry in enumerate(self.entries):
            by_pixels[entry.sha256].append(i)
        copies = [group for group in by_pixels.values() if len(group) > 1]
        exact, near = self.integrity["duplicates"], self.integrity["near_duplicates"]
        blank = self.find(self.integrity["blank"])
        by_split = [[i for i in blank if self.entries[i].split == split] for split in SPLITS]
        return [
            Gallery(
                "duplicates",
                "Exact duplicates",
                copies,
                exact["images"],
                "What a network saw in train says little about how it does on faces that it has "
                "not seen.",
            ),
            Gallery(
                "conflicts",
                "Exact duplicates with different emotions",
                [group for group in copies if len({self.entries[i].emotion for i in group}) > 1],
                exact["images_with_conflicting_labels"],
                "No classifier can be right on all the copies of such an image.",
            ),
            Gallery(
                "near_duplicates",
                "Near duplicates",
                [self.find(member["id"] for member in group) for group in near["listed"]],
                near["images"],
                f"Their perceptual hashes differ in at most {near['distance']} of {near['bits']} "
                "bits. A few may be different pictures that look alike.",
            ),
            Gallery(
                "blank",
                "Blank images",
                list(filter(None, by_split)),
                len(blank),
                "They show nothing, and have a label all the same.",
            ),
        ]

    def _show(self, gallery: Gallery) -> FigureEntry:
        """Some groups of a gallery, a few images of each."""
        picked, rows, shown = self._pick(gallery), [], 0
        for name, group in picked.items():
            few = self._varied(group)[:ACROSS]
            color = WRONG if self._crosses(group) else None
            some = f"\n{len(few)} of them shown" if len(few) < len(group) else ""
            tiles = [
                Tile(self.read(i), (self.entries[i].split, self.entries[i].emotion), color)
                for i in few
            ]
            rows.append((f"{name}: {how_many(len(group), 'image')}{some}", tiles))
            shown += len(few)
        count = f"{shown:,} of {how_many(gallery.images, 'image')}"
        crossing = any(map(self._crosses, picked.values()))
        figure = figures.picture_grid(
            rows,
            title=f"{gallery.title} in {self.integrity['dataset']}",
            subtitle=count + (" · orange: in more than one split" if crossing else ""),
        )
        first = ", first those in more than one split" if crossing else ""
        caption = f"{count}{first}. {gallery.note}"
        files = self._list_files(gallery.name, picked)
        return self._save(gallery.name, gallery.title, caption, figure, files)

    def _crosses(self, group: Sequence[int]) -> bool:
        return len({self.entries[i].split for i in group}) > 1

    def _pick(self, gallery: Gallery) -> dict[str, Sequence[int]]:
        """The groups to show by their names: first those that cross splits and are not blank."""
        if gallery.name == "blank":  # a group for each split
            return {self.entries[group[0]].split: group for group in gallery.groups}
        blank = frozenset(self.integrity["blank"])

        def order(group: Sequence[int]) -> tuple[bool, bool, str]:
            first = self.entries[group[0]]
            # By the checksum of the pixels: in no particular order, but always the same.
            return not self._crosses(group), first.id in blank, first.sha256

        picked = sorted(gallery.groups, key=order)[:DOWN]
        return {str(number): group for number, group in enumerate(picked, start=1)}

    def _varied(self, group: Sequence[int]) -> list[int]:
        """The group, with one image of each split and emotion ahead of the others."""
        ahead: dict[tuple[str, str], int] = {}
        for i in group:
            ahead.setdefault((self.entries[i].split, self.entries[i].emotion), i)
        first = list(ahead.values())
        return [*first, *(i for i in group if i not in first)]

    def _list_files(self, kind: str, groups: Mapping[str, Sequence[int]]) -> Table:
        """The images of the groups that a picture shows."""
        rows: list[list[Cell | str]] = []
        for name, group in groups.items():
            for entry in (self.entries[i] for i in group[:LISTED]):
                is_there = (self.folder / entry.file).exists()
                link = quote(entry.file, errors="surrogateescape") if is_there else None
                texts = (entry.split, entry.emotion, entry.id, entry.source)
                cells = [Cell(text, words=True) for text in texts]
                cells[2] = Cell(entry.id, words=True, link=link)
                rows.append([name, *cells])
        columns = ["Group", "Split", "Emotion", "Image", "From"]
        return make_table(f"{kind}-files", columns, rows)

    def _save(
        self, name: str, title: str, caption: str, figure: Figure, files: Table | None = None
    ) -> FigureEntry:
        """Save a picture below the dataset's folder, for the page."""
        file = f"figures/{name}.png"
        path = figures.save(figure, self.folder / file)
        return FigureEntry(path, title, caption, file, files)
