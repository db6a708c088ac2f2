"""What preparation found in a dataset, as a page with its pictures, and in short for a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.core import labels
from fer.core.errors import DataError
from fer.core.words import ABSENT, change, how_many, percent, signed, whole
from fer.data.manifest import ATTRIBUTES, Entry
from fer.data.readers.base import SPLITS
from fer.report import figures
from fer.report.dataset_figures import is_far
from fer.report.dataset_pictures import (
    Picture,
    Read,
    Shown,
    draw_balance,
    draw_blanks,
    draw_conflicts,
    draw_duplicates,
    draw_near,
    draw_pixels,
    draw_samples,
)
from fer.report.page import Cell, FigureEntry, Table, embed, tree, write_page

UNLIKE = ("unrecognised", "missing", "moved", "relabelled")
"""Those of :data:`COMPARED` that a reference copy has none of."""
LISTED = 50
"""Ids and files that the page lists before it only counts."""

VERDICTS: dict[str, tuple[str, str, str]] = {
    "reference copy": ("good", "✓", "Reference copy"),
    "altered copy": ("bad", "!", "Altered copy"),
    "unknown": ("open", "?", "Unknown copy"),
}
"""Look, sign and name of each verdict."""
STATISTICS: dict[str, tuple[str, int]] = {
    "mean": ("Mean", 2),
    "std": ("Std", 2),
    "contrast": ("Contrast", 1),
    "sharpness": ("Sharpness", 3),
}
"""Heading and decimals of each statistic in ``pixels``."""
COMPARED: dict[str, tuple[str, str]] = {
    "identical": ("Identical", "pixel for pixel an image of the reference copy"),
    "recognised": ("Recognised", "an image of the reference copy, identical or altered"),
    "unrecognised": ("Not recognised", "like no image of the reference copy"),
    "missing": ("Missing", "in the reference copy, but not here"),
    "moved": ("Moved", "in another split than in the reference copy"),
    "relabelled": ("Relabelled", "with another emotion than in the reference copy"),
}


def write_dataset_report(
    folder: Path, entries: Sequence[Entry], integrity: Mapping[str, Any], read: Read
) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into ``folder``.

    The page is one file, readable without a network, a server or JavaScript. It links the figures'
    files, ``manifest.csv``, ``integrity.json`` and the images shown, as far as they stand beside
    it. Only the images shown are decoded.

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
    overview = [draw_balance(shown), draw_samples(shown)]
    pixels = draw_pixels(shown)
    galleries = {
        "exact duplicates": draw_duplicates(shown),
        "exact duplicates with different emotions": draw_conflicts(shown),
        "near duplicates": draw_near(shown),
        "blank images": draw_blanks(shown),
    }
    given = integrity["source"]["given"]
    content = {
        "title": f"{name}: the data",
        "subtitle": f"{how_many(integrity['images'], 'image')} · {integrity['source']['form']}",
        "verdict": _verdict(integrity),
        "findings": _findings(integrity),
        "steps": _next_steps(integrity),
        "cards": _cards(integrity),
        "warnings": integrity["warnings"],
        "counts": _counts(integrity),
        "counts_note": _describe_official(integrity),
        "overview": [_place(folder, picture) for picture in overview],
        "compared": _compared(integrity),
        "pixels": _pixels(integrity),
        "pixels_figure": _place(folder, pixels),
        "splits_compared": _splits_compared(integrity),
        "copies": _copies(integrity),
        "galleries": [_place(folder, picture) for picture in galleries.values() if picture],
        "absent": [
            f"No {what}."
            for what, picture in galleries.items()
            if picture is None
            and (what != "near duplicates" or integrity["near_duplicates"] is not None)
        ],
        "sizes": _sizes(integrity),
        "odd_sizes": _odd_sizes(integrity),
        "excluded": _excluded(integrity),
        "undecodable": _undecodable(integrity),
        "subgroups": subgroup_tables(entries),
        "links": [file for file in ("manifest.csv", "integrity.json") if (folder / file).exists()],
        "provenance": tree(
            {
                "form": integrity["source"]["form"],
                **{key: given[key] for key in ("path", "files", "bytes") if key in given},
                "signature": integrity["source"]["signature"],
                **integrity["origin"],
                "official protocol": integrity["official_protocol"],
                "fingerprint": integrity["fingerprint"],
            }
        ),
    }
    return write_page(folder / "report.html", "dataset.html.j2", content)


def dataset_section(integrity: Mapping[str, Any], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """What a run's report says of its data, as ``data_section`` of the templates draws it.

    Args:
        integrity: the content of ``integrity.json``.
        left_out: what the run left out of the prepared dataset, a sentence each.
    """
    return {
        "verdict": _verdict(integrity),
        "findings": _findings(integrity),
        "counts": _counts(integrity),
        "counts_note": _describe_official(integrity),
        "copies": _copies(integrity),
        "left_out": list(left_out),
    }


# --- words and tables --------------------------------------------------------------------------


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
    return [
        {
            "tags": [
                str(tag)
                for tag in (
                    finding["kind"],
                    finding["split"],
                    finding["emotion"],
                    how_many(finding["images"], "image"),
                )
                if tag is not None
            ],
            "text": finding["text"],
        }
        for finding in integrity["findings"]
    ]


def _next_steps(integrity: Mapping[str, Any]) -> list[dict[str, str | None]]:
    """What to do about what was found: a sentence, and what to type."""
    steps: list[tuple[str, str | None]] = []
    if integrity["verdict"] == "altered copy":
        steps = [
            (
                "Get the reference copy and prepare that: results on an altered copy cannot be "
                "compared with those on the reference.",
                "dataset.raw=PATH",
            ),
            (
                "Or train on this copy as it is; every result will say so.",
                "dataset.accept_altered=true",
            ),
        ]
    elif integrity["verdict"] == "unknown" and integrity["origin"]["generator"] is None:
        steps = [("Look at the pictures below before you trust the labels.", None)]
    images = {
        "dataset.leaks=drop_from_train": (
            "Keep out of training what stands again, exactly, in val or test",
            integrity["leaks"]["train_in_val_or_test"],
        ),
        "dataset.conflicts=drop": (
            "Leave exact copies with different emotions out of every split",
            integrity["duplicates"]["images_with_conflicting_labels"],
        ),
        "dataset.blank=drop": ("Leave blank images out of every split", len(integrity["blank"])),
    }
    steps += [
        (f"{what} ({how_many(count, 'image')}).", option)
        for option, (what, count) in images.items()
        if count
    ]
    return [{"text": text, "code": code} for text, code in steps]


def _cards(integrity: Mapping[str, Any]) -> list[dict[str, str | None]]:
    sizes = {split: sum(integrity["counts"][split].values()) for split in SPLITS}
    duplicates, near = integrity["duplicates"], integrity["near_duplicates"]
    leaked = integrity["leaks"]["test_in_train_or_val"]
    of_test = f", {percent(leaked / sizes['test'])} of it" if sizes["test"] else ""
    cards = {
        "Images": (integrity["images"], None),
        **{split: (size, None) for split, size in sizes.items()},
        "Exact duplicates": (duplicates["images"], f"in {how_many(duplicates['groups'], 'group')}"),
        "Leaks into test": (leaked, f"test images in train or val{of_test}"),
        "Near duplicates": (near["images"], f"in {how_many(near['groups'], 'group')}")
        if near
        else (None, "not searched: too many images"),
        "Conflicts": (
            duplicates["images_with_conflicting_labels"],
            "exact copies with different emotions",
        ),
        "Blank": (len(integrity["blank"]), "images that show nothing"),
    }
    return [
        {"name": name, "value": whole(value), "detail": detail}
        for name, (value, detail) in cards.items()
    ]


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
            expected = (
                sum(official[compared].get(kind, 0) for kind in kinds)
                if compared in official
                else None
            )
            row.append(_counted(found, expected))
        everywhere = sum(counts[split].get(kind, 0) for split in SPLITS for kind in kinds)
        rows.append([*row, Cell(f"{everywhere:,}", everywhere)])
    return Table("counts", ["Emotion", *(heading for heading, *_ in columns), "all"], rows, True)


def _counted(found: int, official: int | None) -> Cell:
    if official is None:
        return Cell(f"{found:,}", found)
    if found == official:
        return Cell(f"{found:,}", found, "= official")
    difference = f"{found - official:+,}".replace("-", "−")
    return Cell(f"{found:,}", found, f"official {official:,} ({difference})", marked=True)


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
    rows = [
        [
            Cell(name, None, meaning),
            Cell(f"{compared[key]:,}", compared[key], marked=key in UNLIKE and compared[key] > 0),
        ]
        for key, (name, meaning) in COMPARED.items()
    ]
    return Table("compared", ["Beside the reference copy", "Images"], rows)


def _pixels(integrity: Mapping[str, Any]) -> Table:
    reference = integrity["reference_pixels"] or {}
    rows = []
    for split, found in integrity["pixels"].items():
        cells = [Cell(split)]
        for key, (_, decimals) in STATISTICS.items():
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
    return Table("pixels", ["Split", *(heading for heading, _ in STATISTICS.values())], rows)


def _splits_compared(integrity: Mapping[str, Any]) -> Table | None:
    """The looks of each split beside those of each other one."""
    measures = ("sharpness", "contrast", "brightness")
    pairs: dict[str, dict[str, tuple[float, float]]] = {}
    for row in integrity["splits_compared"]:
        name = " → ".join(row["splits"])
        pairs.setdefault(name, {})[row["measure"]] = row["difference"], row["z"]
    if not pairs:
        return None
    rows = []
    for name, found in pairs.items():
        cells = [Cell(name)]
        for measure in measures:
            if measure not in found:
                cells.append(Cell(ABSENT))
                continue
            difference, z = found[measure]
            text = (
                f"{signed(difference)} gray levels"
                if measure == "brightness"
                else change(math.exp(difference), 1.0)
            )
            cells.append(Cell(str(text), difference, f"z {signed(z)}"))
        rows.append(cells)
    return Table("splits-compared", ["Splits", *(name.capitalize() for name in measures)], rows)


def _copies(integrity: Mapping[str, Any]) -> Table:
    """What stands more than once or shows nothing, with the option that acts on it."""
    exact, near, leaks = integrity["duplicates"], integrity["near_duplicates"], integrity["leaks"]
    bits = "not searched: too many images"
    if near:
        bits = f"perceptual hashes that differ in at most {near['distance']} of {near['bits']} bits"
    else:
        near = dict.fromkeys(
            ("groups", "images", "groups_across_splits", "groups_with_conflicting_labels")
        )
    # What, in small print, groups, images, and the option that leaves them out.
    kinds: list[tuple[str, str | None, int | None, int | None, str | None]] = [
        (
            "Exact duplicates",
            "the same pixels more than once",
            exact["groups"],
            exact["images"],
            None,
        ),
        (
            "Exact duplicates across splits",
            None,
            exact["groups_across_splits"],
            exact["images_across_splits"],
            None,
        ),
        (
            "Exact duplicates with different emotions",
            "at most one of the labels is right",
            exact["groups_with_conflicting_labels"],
            exact["images_with_conflicting_labels"],
            "dataset.conflicts=drop",
        ),
        (
            "Training images in val or test",
            "exact leaks, counted where they could be left out",
            None,
            leaks["train_in_val_or_test"],
            "dataset.leaks=drop_from_train",
        ),
        ("Validation images in train", "exact leaks", None, leaks["val_in_train"], None),
        (
            "Test images in train or val",
            "exact leaks; every run measures test without them too",
            None,
            leaks["test_in_train_or_val"],
            None,
        ),
        ("Near duplicates", bits, near["groups"], near["images"], None),
        ("Near duplicates across splits", None, near["groups_across_splits"], None, None),
        (
            "Near duplicates with different emotions",
            None,
            near["groups_with_conflicting_labels"],
            None,
            None,
        ),
        (
            "Blank images",
            "all pixels nearly alike",
            None,
            len(integrity["blank"]),
            "dataset.blank=drop",
        ),
    ]
    rows = []
    for name, detail, groups, images, option in kinds:
        cells = (Cell(ABSENT) if n is None else Cell(f"{n:,}", n) for n in (groups, images))
        rows.append([Cell(name, None, detail, option if images else None), *cells])
    return Table("copies", ["What stands more than once, or nothing", "Groups", "Images"], rows)


def _sizes(integrity: Mapping[str, Any]) -> Table:
    sizes = integrity["sizes"]
    rows = [
        [Cell(size.replace("x", " × "), index), Cell(f"{count:,}", count)]
        for index, (size, count) in enumerate(sizes.items())
    ]
    rest = integrity["images"] - sum(sizes.values())
    if rest:
        rows.append([Cell("others", len(sizes)), Cell(f"{rest:,}", rest)])
    return Table("sizes", ["Width × height", "Images"], rows)


def _odd_sizes(integrity: Mapping[str, Any]) -> dict[str, str] | None:
    """A sentence on images of an unexpected size, and their ids; None where any size may be."""
    expected, odd = integrity["expected_size"], integrity["odd_sizes"]
    if expected is None:
        return None
    form = f"{expected} × {expected} pixels"
    if not odd["images"]:
        return {"text": f"All images are {form}, as they should be.", "ids": ""}
    ids = [str(item) for item in odd["ids"][:LISTED]]
    more = odd["images"] - len(ids)
    return {
        "text": f"Not {form}, as they should be: {how_many(odd['images'], 'image')}.",
        "ids": ", ".join(ids) + (f" and {more:,} more" if more else ""),
    }


def _excluded(integrity: Mapping[str, Any]) -> Table | None:
    rows = [
        [Cell(why), Cell(f"{count:,}", count)]
        for why, count in integrity["excluded"].items()
        if count
    ]
    return Table("excluded", ["Left out, because", "Images"], rows) if rows else None


def _undecodable(integrity: Mapping[str, Any]) -> dict[str, Any] | None:
    failures = integrity["undecodable"]
    if not failures:
        return None
    rows = [
        [Cell(str(failure["source"])), Cell(str(failure["error"]), words=True)]
        for failure in failures[:LISTED]
    ]
    more = len(failures) - len(rows)
    return {
        "images": how_many(len(failures), "file"),
        "table": Table("undecodable", ["File", "Error"], rows),
        "more": f"And {more:,} more: they stand in integrity.json." if more else "",
    }


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
            numbers = (Cell(f"{n:,}", n) for n in (*found, sum(found)))
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
