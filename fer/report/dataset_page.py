"""What preparation found in a dataset, as a page with its pictures, and in short for a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from fer.core import labels
from fer.core.errors import DataError
from fer.core.words import change, how_many, percent, signed, whole
from fer.data.audit.verdict import ALTERED, REFERENCE, UNKNOWN
from fer.data.manifest import ATTRIBUTES, Entry
from fer.data.readers.base import SPLITS
from fer.report import dataset_pictures, figures
from fer.report.dataset_figures import is_far
from fer.report.dataset_pictures import Picture, Read, Shown
from fer.report.page import Cell, FigureEntry, Table, embed, tree, write_page

LISTED = 50
"""Ids and files that the page lists before it only counts."""
VERDICTS: dict[str, tuple[str, str, str]] = {
    REFERENCE: ("good", "✓", "Reference copy"),
    ALTERED: ("bad", "!", "Altered copy"),
    UNKNOWN: ("open", "?", "Unknown copy"),
}
"""Look, sign and name of each verdict."""
STATISTICS: dict[str, int] = {"mean": 2, "std": 2, "contrast": 1, "sharpness": 3}
"""The decimals of each statistic in ``pixels``."""
COMPARED: dict[str, tuple[str, str]] = {
    "identical": ("Identical", "pixel for pixel an image of the reference copy"),
    "recognised": ("Recognised", "an image of the reference copy, identical or altered"),
    "unrecognised": ("Not recognised", "like no image of the reference copy"),
    "missing": ("Missing", "in the reference copy, but not here"),
    "moved": ("Moved", "in another split than in the reference copy"),
    "relabelled": ("Relabelled", "with another emotion than in the reference copy"),
}
ACTING = {
    "Training images in val or test": "dataset.leaks=drop_from_train",
    "Exact duplicates with different emotions": "dataset.conflicts=drop",
    "Blank images": "dataset.blank=drop",
}
"""Options that leave out what a row of the table of copies counts."""
GALLERIES = {
    "exact duplicates": dataset_pictures.duplicates,
    "exact duplicates with different emotions": dataset_pictures.conflicts,
    "near duplicates": dataset_pictures.near_duplicates,
    "blank images": dataset_pictures.blanks,
}


def write_dataset_report(
    folder: Path, entries: Sequence[Entry], integrity: Mapping[str, Any], read: Read
) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into ``folder``.

    The page is one file, readable without a network, a server or JavaScript. It links the figures'
    files, ``manifest.csv``, ``integrity.json`` and the images shown, as far as they are beside it.
    Only the images shown are decoded.

    Args:
        folder: of the prepared dataset.
        entries: the prepared images.
        integrity: the content of ``integrity.json``.
        read: decodes the image of an entry, given its index: ``(H, W)`` or ``(H, W, 3)`` uint8.

    Raises:
        DataError: there is no entry, the report and the entries do not belong together, or an
            image cannot be read.
    """
    if not entries:
        raise DataError(f"{folder}: expected images to report on, found none.")
    name = str(integrity["dataset"])
    shown = Shown(folder, name, entries, integrity, read)
    verdict = _verdict(integrity)
    overview = [dataset_pictures.class_balance(shown), dataset_pictures.samples(shown)]
    pixels = dataset_pictures.pixels(shown)
    galleries = {what: draw(shown) for what, draw in GALLERIES.items()}
    if integrity["near_duplicates"] is None:
        del galleries["near duplicates"]  # not searched, which is not none
    content = {
        "title": f"{name}: the data",
        "subtitle": f"{how_many(integrity['images'], 'image')} · {integrity['source']['form']}",
        "how_many": how_many,
        "integrity": integrity,
        "verdict": verdict,
        "findings": _findings(integrity),
        "options": _options(integrity),
        "cards": _cards(integrity),
        "counts": _counts(integrity),
        "counts_note": _describe_official(integrity),
        "overview": [_place(folder, picture) for picture in overview],
        "compared": _compared(integrity),
        "pixels": _pixels(integrity),
        "pixels_figure": _place(folder, pixels),
        "splits_compared": _splits_compared(integrity),
        "copies": _copies(integrity),
        "galleries": [_place(folder, picture) for picture in galleries.values() if picture],
        "absent": [f"No {what}." for what, picture in galleries.items() if picture is None],
        "sizes": _sizes(integrity),
        "odd_ids": list(map(str, integrity["odd_sizes"]["ids"][:LISTED])),
        "excluded": _excluded(integrity),
        "undecodable": _undecodable(integrity),
        "subgroups": subgroup_tables(entries),
        "links": [file for file in ("manifest.csv", "integrity.json") if (folder / file).exists()],
        "provenance": _provenance(integrity),
    }
    return write_page(folder / "report.html", "dataset.html.j2", content)


def dataset_section(integrity: Mapping[str, Any], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The section of a run's report on its data, for the template's macro ``data_section``.

    Args:
        integrity: the content of ``integrity.json``.
        left_out: sentences on what the run left out of the prepared dataset.
    """
    return {
        "verdict": _verdict(integrity),
        "findings": _findings(integrity),
        "counts": _counts(integrity),
        "counts_note": _describe_official(integrity),
        "copies": _copies(integrity),
        "left_out": list(left_out),
    }


def _verdict(integrity: Mapping[str, Any]) -> dict[str, str]:
    verdict = integrity["verdict"]
    if verdict not in VERDICTS:
        raise DataError(
            f"integrity.json: expected a verdict ({', '.join(VERDICTS)}), found {verdict!r}. "
            "Prepare the dataset again."
        )
    look, sign, word = VERDICTS[verdict]
    return {"look": look, "sign": sign, "word": word, "text": integrity["verdict_text"]}


def _findings(integrity: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for finding in integrity["findings"]:
        tags = (*(finding[key] for key in ("kind", "split", "emotion")), finding["images"])
        shown = [how_many(tag, "image") if isinstance(tag, int) else tag for tag in tags]
        found.append({"tags": [tag for tag in shown if tag is not None], "text": finding["text"]})
    return found


def _options(integrity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The options that act on what was found: what each does, and what to type."""
    options = {
        "dataset.leaks=drop_from_train": (
            "Keep images out of training that are duplicated, exactly, in val or test",
            integrity["leaks"]["train_in_val_or_test"],
        ),
        "dataset.conflicts=drop": (
            "Leave exact copies with different emotions out of every split",
            integrity["duplicates"]["images_with_conflicting_labels"],
        ),
        "dataset.blank=drop": ("Leave blank images out of every split", len(integrity["blank"])),
    }
    return [
        (f"{what} ({how_many(count, 'image')}).", option)
        for option, (what, count) in options.items()
        if count
    ]


def _cards(integrity: Mapping[str, Any]) -> list[dict[str, str | None]]:
    sizes = {split: sum(integrity["counts"][split].values()) for split in SPLITS}
    duplicates, near = integrity["duplicates"], integrity["near_duplicates"]
    leaked = integrity["leaks"]["test_in_train_or_val"]
    of_test = f", {percent(leaked / sizes['test'])} of it" if sizes["test"] else ""
    found_near = (None, "not searched: too many images")
    if near:
        found_near = (near["images"], f"in {how_many(near['groups'], 'group')}")
    conflicting = duplicates["images_with_conflicting_labels"]
    cards = {
        "Images": (integrity["images"], None),
        **{split: (size, None) for split, size in sizes.items()},
        "Exact duplicates": (duplicates["images"], f"in {how_many(duplicates['groups'], 'group')}"),
        "Leaks into test": (leaked, f"test images in train or val{of_test}"),
        "Near duplicates": found_near,
        "Conflicts": (conflicting, "exact copies with different emotions"),
        "Blank": (len(integrity["blank"]), "images that show nothing"),
    }
    return [
        {"name": name, "value": whole(value), "detail": detail}
        for name, (value, detail) in cards.items()
    ]


def _number(count: int | None, detail: str | None = None, *, marked: bool = False) -> Cell:
    """A cell with a count; a dash for None."""
    return Cell(whole(count), count, detail, marked=marked)


def _counts(integrity: Mapping[str, Any]) -> Table:
    """Images per emotion and split, beside the official ones."""
    counts, official = integrity["counts"], integrity["official_counts"] or {}
    # Heading, the splits that are added up, and the official split that they are compared with.
    columns: list[tuple[str, tuple[str, ...], str]] = [(s, (s,), s) for s in SPLITS]
    if official and "val" not in official:
        # Their train is ours before val was held out of it.
        columns = [
            ("train", ("train",), ""),
            ("val", ("val",), ""),
            ("train + val", ("train", "val"), "train"),
            ("test", ("test",), "test"),
        ]
    rows = []
    for index, emotion in enumerate((*labels.EMOTIONS, "all")):
        kinds = labels.EMOTIONS if emotion == "all" else (emotion,)
        # "all" is last in the schema's order, too
        row = [Cell(emotion, index)]
        for _, splits, compared in columns:
            found = sum(counts[split].get(kind, 0) for split in splits for kind in kinds)
            row.append(_number(found))
            if compared in official:
                expected = sum(official[compared].get(kind, 0) for kind in kinds)
                row[-1] = _beside_official(found, expected)
        everywhere = sum(counts[split].get(kind, 0) for split in SPLITS for kind in kinds)
        rows.append([*row, _number(everywhere)])
    return Table("counts", ["Emotion", *(heading for heading, *_ in columns), "all"], rows, True)


def _beside_official(found: int, official: int) -> Cell:
    if found == official:
        return _number(found, "= official")
    difference = f"{found - official:+,}".replace("-", "−")
    return _number(found, f"official {official:,} ({difference})", marked=True)


def _describe_official(integrity: Mapping[str, Any]) -> str:
    official = integrity["official_counts"]
    if official is None:
        return "There are no official counts to compare these with."
    note = {
        True: "These are the official counts.",
        False: "These are not the official counts: what differs is marked.",
        None: "These were not compared with the official counts as a whole.",
    }[integrity["matches_official_counts"]]
    if "val" not in official:
        note += " Officially there is no val: it was held out of train."
    return note


def _compared(integrity: Mapping[str, Any]) -> Table | None:
    compared = integrity["compared_with_reference"]
    if compared is None:
        return None
    rows = []
    for key, (name, meaning) in COMPARED.items():
        differs = key not in ("identical", "recognised") and compared[key] > 0
        rows.append([Cell(name, None, meaning), _number(compared[key], marked=differs)])
    return Table("compared", ["Beside the reference copy", "Images"], rows)


def _pixels(integrity: Mapping[str, Any]) -> Table:
    reference = integrity["reference_pixels"] or {}
    rows = []
    for split, found in integrity["pixels"].items():
        cells = [Cell(split)]
        for key, decimals in STATISTICS.items():
            value, expected = found[key], reference.get(split, {}).get(key)
            detail = None
            if expected is not None:
                difference = change(value, expected)
                detail = f"reference {expected:.{decimals}f}"
                detail += f" ({difference})" if difference else ""
            cells.append(
                Cell(f"{value:.{decimals}f}", value, detail, marked=is_far(value, expected))
            )
        rows.append(cells)
    return Table("pixels", ["Split", *map(str.capitalize, STATISTICS)], rows)


def _splits_compared(integrity: Mapping[str, Any]) -> Table | None:
    """The looks of each split beside those of each other one."""
    rows = []
    measures = ["sharpness", "contrast", "brightness"]
    for splits, found in groupby(integrity["splits_compared"], itemgetter("splits")):
        by_measure = {row["measure"]: row for row in found}
        cells = [Cell(" → ".join(splits))]
        for measure in measures:
            difference, z = by_measure[measure]["difference"], by_measure[measure]["z"]
            text = change(math.exp(difference), 1.0)
            if measure == "brightness":
                text = f"{signed(difference)} gray levels"
            cells.append(Cell(str(text), difference, f"z {signed(z)}"))
        rows.append(cells)
    columns = ["Splits", *map(str.capitalize, measures)]
    return Table("splits-compared", columns, rows) if rows else None


def _copies(integrity: Mapping[str, Any]) -> Table:
    """Images that are there more than once or show nothing, with the option that acts on them."""
    exact, near, leaks = integrity["duplicates"], integrity["near_duplicates"], integrity["leaks"]
    bits = "not searched: too many images"
    if near:
        bits = f"perceptual hashes that differ in at most {near['distance']} of {near['bits']} bits"
    leaks_why = "exact leaks, counted where they could be left out"
    measured = "exact leaks; every run measures test without them too"
    # What, in small print, groups, images, and the option that leaves them out.
    kinds = [
        *_grouped("Exact duplicates", "the same pixels more than once", exact),
        ("Training images in val or test", leaks_why, None, leaks["train_in_val_or_test"]),
        ("Validation images in train", "exact leaks", None, leaks["val_in_train"]),
        ("Test images in train or val", measured, None, leaks["test_in_train_or_val"]),
        *_grouped("Near duplicates", bits, near or {}),
        ("Blank images", "all pixels nearly alike", None, len(integrity["blank"])),
    ]
    rows = []
    for name, detail, groups, images in kinds:
        option = ACTING.get(name) if images else None
        rows.append([Cell(name, None, detail, option), _number(groups), _number(images)])
    return Table("copies", ["What is there more than once, or blank", "Groups", "Images"], rows)


def _grouped(
    name: str, detail: str, found: Mapping[str, Any]
) -> list[tuple[str, str | None, int | None, int | None]]:
    """Rows on all groups of copies, on those across splits, and on those that disagree."""
    kinds = (
        (name, detail, ""),
        (f"{name} across splits", None, "_across_splits"),
        (f"{name} with different emotions", None, "_with_conflicting_labels"),
    )
    return [
        (words, small, found.get(f"groups{key}"), found.get(f"images{key}"))
        for words, small, key in kinds
    ]


def _sizes(integrity: Mapping[str, Any]) -> Table:
    sizes = integrity["sizes"]
    rows = [
        [Cell(size.replace("x", " × "), index), _number(count)]
        for index, (size, count) in enumerate(sizes.items())
    ]
    rest = integrity["images"] - sum(sizes.values())
    if rest:
        rows.append([Cell("others", len(sizes)), _number(rest)])
    return Table("sizes", ["Width × height", "Images"], rows)


def _excluded(integrity: Mapping[str, Any]) -> Table | None:
    rows = [[Cell(why), _number(count)] for why, count in integrity["excluded"].items() if count]
    return Table("excluded", ["Left out, because", "Images"], rows) if rows else None


def _undecodable(integrity: Mapping[str, Any]) -> Table:
    rows = [
        [Cell(str(failure["source"])), Cell(str(failure["error"]), words=True)]
        for failure in integrity["undecodable"][:LISTED]
    ]
    return Table("undecodable", ["File", "Error"], rows)


def _provenance(integrity: Mapping[str, Any]) -> dict[str, Any]:
    source = integrity["source"]
    given = {key: source["given"].get(key) for key in ("path", "files", "bytes")}
    return tree(
        {
            "form": source["form"],
            **{key: value for key, value in given.items() if value is not None},
            "signature": source["signature"],
            **integrity["origin"],
            "official protocol": integrity["official_protocol"],
            "fingerprint": integrity["fingerprint"],
        }
    )


def subgroup_tables(entries: Sequence[Entry]) -> list[Table]:
    """Images per split for each value of the annotators' attributes, as far as there are any."""
    tables = []
    for name in ATTRIBUTES:
        counts = Counter((getattr(entry, name), entry.split) for entry in entries)
        values = sorted({value for value, _ in counts})
        if values == [""]:
            continue
        rows: list[list[Cell]] = []
        for value in sorted(values, key=_by_value):
            found = [counts[value, split] for split in SPLITS]
            numbers = map(_number, (*found, sum(found)))
            rows.append([Cell(value or "not annotated", len(rows)), *numbers])
        tables.append(Table(f"by-{name}", [name.capitalize(), *SPLITS, "all"], rows, True))
    return tables


def _by_value(value: str) -> tuple[bool, int, str]:
    """Ages by their first year, words by their letters, and what is not annotated last."""
    first = value.split("-")[0].rstrip("+")
    return (not value, int(first) if first.isdecimal() else -1, value)


def _place(folder: Path, picture: Picture) -> dict[str, Any]:
    """Save a picture below ``folder``, for the page."""
    file = f"figures/{picture.name}.png"
    path = figures.save(picture.figure, folder / file)
    entry = FigureEntry(path, picture.title, picture.caption)
    return embed(entry, link=file, files=picture.files)
