"""What preparation found in a dataset, as a page with its pictures, and in short for a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.core import labels
from fer.core.errors import DataError
from fer.core.words import ABSENT, change, how_many, signed, whole
from fer.data.audit.integrity import Groups, Integrity
from fer.data.audit.verdict import ALTERED, REFERENCE, UNKNOWN
from fer.data.manifest import ATTRIBUTES, Entry
from fer.data.readers.base import SPLITS
from fer.report.dataset_pictures import Pictures, Read
from fer.report.page import Cell, Table, make_table, write_page

LISTED = 50
"""Ids and files that the page lists before it only counts."""
FAR = 0.05
"""A statistic that is at least this share away from the reference copy's is marked."""
VERDICTS: dict[str, tuple[str, str, str]] = {
    REFERENCE: ("good", "✓", "Reference copy"),
    ALTERED: ("bad", "!", "Altered copy"),
    UNKNOWN: ("open", "?", "Unknown copy"),
}
"""Look, sign and name of each verdict."""
COMPARED: dict[str, tuple[str, bool]] = {
    "identical": ("Identical", False),
    "original": ("Identical to the authors' table", False),
    "recognised": ("Recognised", False),
    "unrecognised": ("Not recognised", True),
    "missing": ("Missing here", True),
    "moved": ("In another split than there", True),
    "relabelled": ("With another emotion than there", True),
}
"""The words for each count of ``compared_with_reference``, and whether it counts a fault."""
STATISTICS: dict[str, int] = {"mean": 2, "std": 2, "contrast": 1, "sharpness": 3}
"""The decimals of each statistic in ``pixels``."""


def write_dataset_report(
    folder: Path, entries: Sequence[Entry], integrity: Integrity, read: Read
) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into ``folder``.

    The page is one file, readable without a network, a server or JavaScript. It links the figures'
    files, ``manifest.csv``, ``integrity.json`` and the images shown, as far as they are beside it.
    Only the images shown are decoded.

    Args:
        integrity: the content of ``integrity.json``.
        read: decodes the image of an entry, given its index: ``(H, W)`` or ``(H, W, 3)`` uint8.

    Raises:
        DataError: there is no entry, the report and the entries do not belong together, or an
            image cannot be read.
    """
    if not entries:
        raise DataError(f"{folder}: expected images to report on, found none.")
    section, pictures = dataset_section(integrity), Pictures(folder, entries, integrity, read)
    overview, galleries = pictures.overview(), pictures.galleries()
    content = {
        **section,
        "title": f"{integrity['dataset']}: the data",
        "subtitle": f"{how_many(integrity['images'], 'image')} · {integrity['source']['form']}",
        "integrity": integrity,
        "overview": overview,
        "splits_compared": _splits_compared(integrity),
        "galleries": [picture for picture in galleries.values() if picture],
        "absent": [title.lower() for title, picture in galleries.items() if picture is None],
        "compared": _compared(integrity),
        "sizes": _sizes(integrity),
        "source": _without_listing(integrity["source"]),
        "odd_ids": list(map(str, integrity["odd_sizes"]["ids"][:LISTED])),
        "excluded": {why: number for why, number in integrity["excluded"].items() if number},
        "undecodable": integrity["undecodable"][:LISTED],
        "subgroups": subgroup_tables(entries),
        "links": [file for file in ("manifest.csv", "integrity.json") if (folder / file).exists()],
    }
    return write_page(folder / "report.html", "dataset.html.j2", content)


def _without_listing(node: Any) -> Any:
    """Where data comes from, without the checksums of files' names, which tell a reader nothing."""
    if not isinstance(node, Mapping):
        return node
    return {key: _without_listing(one) for key, one in node.items() if key != "listing"}


def dataset_section(integrity: Integrity, left_out: Sequence[str] = ()) -> dict[str, object]:
    """The section of a run's report on its data, for the template's macro ``data_section``.

    Args:
        integrity: the content of ``integrity.json``.
        left_out: sentences on what the run left out of the prepared dataset.
    """
    return {
        "verdict": _verdict(integrity),
        "findings": integrity["findings"],
        "counts": _counts(integrity),
        "counts_note": _describe_official(integrity),
        "pixels": _pixels(integrity) if integrity["pixels"] else None,  # not of folds
        "copies": _copies(integrity),
        "left_out": list(left_out),
    }


def _verdict(integrity: Integrity) -> dict[str, str]:
    verdict = integrity["verdict"]
    if verdict not in VERDICTS:
        raise DataError(
            f"integrity.json: expected a verdict ({', '.join(VERDICTS)}), found {verdict!r}. "
            "Prepare the dataset again."
        )
    look, sign, word = VERDICTS[verdict]
    leaks = integrity["leaks"]["test_in_train_or_val"]
    if verdict == REFERENCE and leaks:  # what its authors published is not all as it should be
        look, sign = "warn", "!"
        copies = how_many(leaks, "test image")
        return {
            "look": look,
            "sign": sign,
            "word": f"{word}, with leaks",
            "text": f"{integrity['verdict_text']} It has {copies} in train or val too; a run's "
            "page has its scores without them.",
        }
    return {"look": look, "sign": sign, "word": word, "text": integrity["verdict_text"]}


def _counts(integrity: Integrity) -> Table:
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
    for emotion in (*labels.EMOTIONS, "all"):
        kinds = labels.EMOTIONS if emotion == "all" else (emotion,)
        row: list[Cell | str | int] = [emotion]
        for _, splits, compared in columns:
            found = sum(counts[split].get(kind, 0) for split in splits for kind in kinds)
            expected = None
            if compared in official:
                expected = sum(official[compared].get(kind, 0) for kind in kinds)
            row.append(_beside_official(found, expected))
        everywhere = sum(counts[split].get(kind, 0) for split in SPLITS for kind in kinds)
        rows.append([*row, everywhere])
    return make_table("counts", ["Emotion", *(heading for heading, *_ in columns), "all"], rows)


def _beside_official(found: int, official: int | None) -> Cell:
    detail = None if official is None else "= official"
    if official is not None and official != found:
        detail = f"official {official:,} ({found - official:+,})".replace("-", "−")
    return Cell(whole(found), detail, marked=official not in (None, found))


def _describe_official(integrity: Integrity) -> str:
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


def _compared(integrity: Integrity) -> Table | None:
    """Images by what they are in the reference copy; what should not be is marked."""
    compared = integrity["compared_with_reference"]
    if compared is None:
        return None
    rows = [
        (Cell(name), Cell(whole(compared[key]), marked=fault and compared[key] > 0))
        for key, (name, fault) in COMPARED.items()
        if key in compared
    ]
    return make_table("compared", ["Beside the reference copy", "Images"], rows)


def _sizes(integrity: Integrity) -> Table:
    """Images of each size, as far as ``integrity.json`` lists them."""
    sizes = {size.replace("x", " × "): images for size, images in integrity["sizes"].items()}
    rest = integrity["images"] - sum(sizes.values())
    if rest:
        sizes["others"] = rest
    return make_table("sizes", ["Width × height in pixels", "Images"], sizes.items())


def _pixels(integrity: Integrity) -> Table:
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
            far = expected is not None and abs(value - expected) >= FAR * abs(expected) > 0
            cells.append(Cell(f"{value:.{decimals}f}", detail, marked=far))
        rows.append(cells)
    return Table("pixels", ["Split", *map(str.capitalize, STATISTICS)], rows)


def _splits_compared(integrity: Integrity) -> Table | None:
    """The looks of each split beside those of each other one."""
    rows = []
    for row in integrity["splits_compared"]:
        by, unit = signed(row["difference"]), " gray levels"
        if row["measure"] != "brightness":  # a logarithm
            by, unit = change(math.exp(row["difference"]), 1.0) or ABSENT, ""
        rows.append([" → ".join(row["splits"]), row["measure"], by + unit, signed(row["z"])])
    columns = ["Splits", "Measure", "Difference", "z"]
    return make_table("splits-compared", columns, rows) if rows else None


def _copies(integrity: Integrity) -> Table:
    """Images that are there more than once or show nothing, with the option that acts on them."""
    leaks, near = integrity["leaks"], integrity["near_duplicates"]
    rows: list[list[Cell | int | None]] = []

    def add(
        name: str, groups: int | None, images: int, detail: str = "", option: str | None = None
    ) -> None:
        rows.append([Cell(name, detail or None, option if images else None), groups, images])

    def add_groups(name: str, found: Groups, detail: str, option: str | None = None) -> None:
        add(name, found["groups"], found["images"], detail)
        across = found["groups_across_splits"], found["images_across_splits"]
        add(f"{name} across splits", *across)
        conflicts = (
            found["groups_with_conflicting_labels"],
            found["images_with_conflicting_labels"],
        )
        add(f"{name} with different emotions", *conflicts, option=option)

    same = "the same pixels more than once"
    add_groups("Exact duplicates", integrity["duplicates"], same, "dataset.conflicts=drop")
    counted = "exact leaks, counted where they could be left out"
    drop = "dataset.leaks=drop_from_train"
    add("Training images in val or test", None, leaks["train_in_val_or_test"], counted, drop)
    add("Validation images in train", None, leaks["val_in_train"], "exact leaks")
    measured = "exact leaks; every run measures test without them too"
    add("Test images in train or val", None, leaks["test_in_train_or_val"], measured)
    bits = f"perceptual hashes that differ in at most {near['distance']} of {near['bits']} bits"
    add_groups("Near duplicates", near, bits)
    blank = len(integrity["blank"])
    add("Blank images", None, blank, "all pixels nearly alike", "dataset.blank=drop")
    return make_table(
        "copies", ["What is there more than once, or blank", "Groups", "Images"], rows
    )


def subgroup_tables(entries: Sequence[Entry]) -> list[Table]:
    """Images per split for each value of the annotated attributes; no table without any."""
    tables = []
    for name in ATTRIBUTES:
        counts = Counter((getattr(entry, name), entry.split) for entry in entries)
        values = sorted({value for value, _ in counts})
        if values == [""]:
            continue
        rows: list[list[str | int]] = []
        for value in sorted(values, key=_by_value):
            found = [counts[value, split] for split in SPLITS]
            rows.append([value or "not annotated", *found, sum(found)])
        columns = [name.capitalize(), *SPLITS, "all"]
        tables.append(make_table(f"by-{name}", columns, rows))
    return tables


def _by_value(value: str) -> tuple[bool, int, str]:
    """Ages by their first year, words by their letters, and what is not annotated last."""
    first = value.split("-")[0].rstrip("+")
    return (not value, int(first) if first.isdecimal() else -1, value)
