"""The page of a whole study, and its results as one file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import open_data, read_json, write_json
from fer.core.words import ABSENT, how_many, percent, whole
from fer.data.audit.integrity import exact_leaks, near_leaks
from fer.data.manifest import Entry, read_manifest
from fer.evaluation.metrics import measure_scores
from fer.evaluation.scores import SCORES, Score, shown_in
from fer.report.evaluation_sections import curves_caption
from fer.report.page import Cell, FigureEntry, Section, Table, embed_section, write_page
from fer.report.score_cells import score_cell, share_cell
from fer.runs.plan import Study
from fer.runs.provenance import git_state, without_places
from fer.runs.records import read_evaluation, read_metrics, read_robustness, read_training
from fer.runs.side_by_side import Evaluation, differing, load_evaluation
from fer.runs.state import FINISHED, disparities

RESULTS = "study.json"
"""The file that holds every number of the page, for a model card."""
RECIPE = (
    *("augmentation", "model", "loss", "optimizer", "scheduler", "trainer", "loader"),
    *("early_stopping", "mixing", "ema", "seed"),
)
"""Parts of a configuration that both trainings share; the others say where things are."""


def write_study(study: Study, parameters: int) -> Path:
    """Write ``study.json`` and ``report.html``, the page last.

    Args:
        study: of which every stage is complete.
        parameters: of its network.

    Returns:
        The page.

    Raises:
        DataError: a file of a run cannot be read.
    """
    results = gather(study, parameters)
    write_json(study.folder / RESULTS, results)
    first = study.seeds[0]
    homes = [_of(results["evaluations"], name, name) for name in study.datasets]
    notes = [
        *describe_unlike(results["evaluations"]),
        *disparities(results["trainings"]),
        *dict.fromkeys(note for own in homes for one in own for note in one["notes"]),
    ]
    sections = [
        _in_short(study, results),
        *([_transfer(study, results)] if len(study.datasets) > 1 else []),
        _per_emotion(study, results),
        _training(study, results),
        *_robustness(study, results),
        *_pictures(study, first),
        _origin(study, results),
    ]
    return write_page(
        study.page,
        "collection.html.j2",
        {
            "title": "One compact CNN, one recipe: " + " and ".join(study.datasets),
            "subtitle": f"{how_many(results['parameters'], 'parameter')}, trained from scratch on "
            f"each dataset with the same recipe, {how_many(len(study.seeds), 'seed')} each. Epochs "
            "were chosen on validation; the test images were measured when training had ended.",
            "notes": notes,
            "sections": [embed_section(section) for section in sections],
        },
    )


# --- the results -------------------------------------------------------------------------------


def gather(study: Study, parameters: int) -> dict[str, Any]:
    """What the runs found, as plain values.

    Raises:
        DataError: a file of a run cannot be read.
    """
    trainings = []
    for stage in study.trainings:
        run = read_training(stage.folder)
        trainings.append(
            {
                "dataset": stage.dataset,
                "seed": stage.seed,
                "folder": _relative(stage.folder, study.folder),
                "command": without_places(run["command"]),
                **{
                    key: run[key]
                    for key in (
                        *("git", "started", "best_epoch", "epochs", "validation"),
                        *("images_per_second", "versions", "hardware"),
                    )
                },
                # Of all epochs, those before a training was cut off too.
                "epoch_seconds": round(sum(read_column(stage.folder / "history.csv", "seconds"))),
                "config": {key: value for key, value in run["config"].items() if key in RECIPE},
                "drawn": run["config"]["dataset"]["generator"] is not None,
                "data": run["dataset"],
            }
        )
    evaluations = []
    entries = {
        stage.dataset: read_manifest(stage.folder / "manifest.csv") for stage in study.preparations
    }
    for one in study.measurements:
        folder = one.folder
        run = read_evaluation(folder)
        found = {
            "train_dataset": one.training.dataset,
            "test_dataset": one.dataset,
            "seed": one.training.seed,
            "folder": _relative(folder, study.folder),
            "command": without_places(run["command"]),
            "notes": run["notes"],
            "data": run["dataset"],
            "precision": run["hardware"]["precision"],
            "metrics": read_metrics(folder),
        }
        if not one.in_domain:
            found["shared"] = find_shared(
                load_evaluation(folder), entries[one.training.dataset], entries[one.dataset]
            )
        damaged = read_robustness(folder)
        if damaged is not None:
            found["robustness"] = damaged
        if (folder / "saliency.json").is_file():
            found["saliency"] = read_json(folder / "saliency.json", dict)
        evaluations.append(found)
    return {
        "datasets": list(study.datasets),
        "seeds": list(study.seeds),
        "train_options": list(study.options),
        "parameters": parameters,
        "git": git_state(),
        "data": {
            stage.dataset: describe_data(stage.report(), trainings) for stage in study.preparations
        },
        "summary": [
            {
                "train_dataset": trained_on,
                "test_dataset": measured_on,
                **summarise(_of(evaluations, trained_on, measured_on)),
            }
            for trained_on in study.datasets
            for measured_on in study.datasets
        ],
        "trainings": trainings,
        "evaluations": evaluations,
    }


def find_shared(job: Evaluation, home: Sequence[Entry], abroad: Sequence[Entry]) -> dict[str, Any]:
    """Measured images of one dataset that stand again in train or val of another.

    Args:
        job: the measurement.
        home: images of the dataset that its network was trained on.
        abroad: of the dataset that it is measured on.

    Returns:
        ``exact`` and ``exact_or_near``: how many (the second None where a manifest has no
        perceptual hashes); ``without``: the scores without them, None where that is all or none.
    """
    seen = [entry for entry in home if entry.split != "test"]
    split = job.metrics["split"]
    by_id = {entry.id: entry for entry in abroad if entry.split == split}
    measured = [by_id[id] for id in job.ids]
    exact, near = exact_leaks(seen, measured), near_leaks(seen, measured)
    kept = ~(exact if near is None else near)
    config = job.run["config"]["metrics"]
    return {
        "exact": int(exact.sum()),
        "exact_or_near": None if near is None else int(near.sum()),
        "without": measure_scores(
            job.target[kept],
            job.probabilities[kept],
            resamples=config["resamples"],
            seed=config["seed"],
        )
        if kept.any() and not kept.all()
        else None,
    }


def describe_unlike(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """In what measurements that stand side by side differ beside network and dataset."""
    ways = [{"tta": str(o["metrics"].get("tta")), "precision": o["precision"]} for o in evaluations]
    notes = [f"Not every score here is measured alike: {key} differs." for key in differing(ways)]
    for name in dict.fromkeys(one["test_dataset"] for one in evaluations):
        images = {
            (
                one["data"].get("fingerprints", {}).get("test", one["data"]["fingerprint"]),
                one["metrics"]["samples"],
            )
            for one in evaluations
            if one["test_dataset"] == name
        }
        if len(images) > 1:
            notes.append(f"Not every score on {name} is of the same test images.")
    return notes


def describe_data(
    integrity: Mapping[str, Any], trainings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What a card says of a dataset: counts, verdict, and known faults as numbers."""
    drawn = next(row["drawn"] for row in trainings if row["dataset"] == integrity["dataset"])
    return {
        **{
            key: integrity[key]
            for key in ("counts", "fingerprint", "verdict", "verdict_text", "leaks")
        },
        "duplicates": {
            key: value for key, value in integrity["duplicates"].items() if isinstance(value, int)
        },
        "blank": len(integrity["blank"]),
        "drawn": drawn,
    }


def read_column(path: Path, name: str) -> list[float]:
    """The numbers of a column of a CSV file.

    Raises:
        DataError: the file cannot be read, or has no such column.
    """
    try:
        with open_data(path) as file:
            rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
            return [float(row[name]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path}: expected a column {name} of numbers, found: {error!r}."
        ) from error


def _relative(path: Path, folder: Path) -> str:
    return path.absolute().relative_to(folder.absolute()).as_posix()


def _of(
    evaluations: Sequence[Mapping[str, Any]], trained_on: str, measured_on: str
) -> list[Mapping[str, Any]]:
    """The evaluations of one direction, a seed each."""
    return [
        one
        for one in evaluations
        if (one["train_dataset"], one["test_dataset"]) == (trained_on, measured_on)
    ]


def summarise(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds of one direction.

    Args:
        evaluations: with their ``metrics``, at least one.

    Returns:
        ``seeds``, ``samples``, and for each score that all of them have ``mean``, ``sd`` (sample
        standard deviation over seeds; None for one seed), ``values``, and ``interval``: the 95 %
        interval over images where there is one seed, else None.
    """
    metrics = [one["metrics"] for one in evaluations]
    found: dict[str, Any] = {"seeds": len(metrics), "samples": metrics[0]["samples"]}
    for name in SCORES:
        values = [row[name] for row in metrics if name in row]
        if len(values) < len(metrics):  # of runs before the metric was registered
            continue
        alone = len(values) == 1
        found[name] = {
            "mean": mean(values),
            "sd": None if alone else stdev(values),
            "values": values,
            "interval": metrics[0]["confidence_intervals"][name] if alone else None,
        }
    return found


# --- the page ----------------------------------------------------------------------------------


def _spread(row: Mapping[str, Any], score: Score) -> Cell:
    """A mean with its spread over seeds, or with the interval over images of a single seed."""
    found, form = row.get(score.name), score.format
    if found is None:
        return Cell(ABSENT)
    spread = form.interval(found["interval"])
    if found["sd"] is not None:
        spread = f"± {form.digits(found['sd'])} (seeds)"
    return Cell(form.text(found["mean"]), found["mean"], spread)


def _in_short(study: Study, results: Mapping[str, Any]) -> Section:
    rows, text = [], []
    for row in results["summary"]:
        if row["train_dataset"] != row["test_dataset"]:
            continue
        name = row["train_dataset"]
        rows.append([Cell(name), *(_spread(row, score) for score in SCORES.values()), _images(row)])
        frequent = _majority(_of(results["evaluations"], name, name)[0]["metrics"])
        text.append(
            f"On {name} the network recognises {percent(row['accuracy']['mean'])} of the test "
            f"images; naming the most frequent emotion always would be right for "
            f"{percent(frequent)}, naming any of the seven at random for {percent(1 / 7)}."
        )
        metrics = [one["metrics"] for one in _of(results["evaluations"], name, name)]
        before = row["samples"]
        for key, words in (("leaks", "exactly"), ("near_leaks", "exactly or nearly")):
            clean = [own.get(f"without_{key}") for own in metrics]
            if all(clean) and clean[0]["samples"] < before:
                before = clean[0]["samples"]
                text.append(
                    f"Without the {row['samples'] - clean[0]['samples']:,} test images that stand "
                    f"again, {words}, in train or val it is "
                    f"{percent(mean(own['accuracy'] for own in clean))}."
                )
    spread = (
        "Large: the mean over seeds; ±: their standard deviation."
        if len(study.seeds) > 1
        else "Small: the 95 % interval over the test images. One seed: how much "
        "another would differ was not measured."
    )
    columns = ["Dataset", *(score.title for score in SCORES.values()), "Images"]
    return Section("In short", text, [(Table("short", columns, rows), spread)])


def _images(row: Mapping[str, Any]) -> Cell:
    return Cell(whole(row["samples"]), row["samples"])


def _majority(metrics: Mapping[str, Any]) -> float:
    """Accuracy of naming the most frequent emotion always."""
    supports = [scores["support"] for scores in metrics["per_class"].values()]
    return float(max(supports) / sum(supports))


def _transfer(study: Study, results: Mapping[str, Any]) -> Section:
    by = {(row["train_dataset"], row["test_dataset"]): row for row in results["summary"]}
    rows, text = [], []
    scores = shown_in("comparisons")
    for (trained_on, measured_on), row in by.items():
        rows.append(
            [
                Cell(f"{trained_on} → {measured_on}"),
                *(_spread(row, score) for score in scores),
                _images(row),
            ]
        )
        if trained_on != measured_on:
            lost = by[trained_on, trained_on]["accuracy"]["mean"] - row["accuracy"]["mean"]
            text.append(
                f"The network of {trained_on} loses {100 * lost:.1f} points of accuracy on "
                f"{measured_on}.".replace("-", "−")
                + _shared(_of(results["evaluations"], trained_on, measured_on))
            )
    place = study.folder / "evaluate" / "figures"
    return Section(
        "From one dataset to the other",
        [
            *text,
            "Part of a loss is how frequent the emotions are, part is that one of the datasets is "
            "harder for any network: compare within a column, and see evaluate/report.html for how "
            "much is class frequency and for differences with their intervals.",
        ],
        [
            (
                Table(
                    "transfer",
                    ["Network → measured on", *(score.title for score in scores), "Images"],
                    rows,
                ),
                "",
            )
        ],
        [
            FigureEntry(place / file, title, caption)
            for file, title, caption in (
                (
                    "cross_accuracy.png",
                    "Every network on every dataset: accuracy",
                    "A row for each network, named after what it was trained on.",
                ),
                (
                    "recall.png",
                    "Recall of each emotion, side by side",
                    "Emotions are matched by name.",
                ),
            )
            if (place / file).is_file()
        ],
    )  # fmt: skip


def _shared(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """What one direction's test images share with what the network learned from."""
    here, there = (evaluations[0][f"{side}_dataset"] for side in ("train", "test"))
    first = evaluations[0]["shared"]
    exact, near = first["exact"], first["exact_or_near"]
    text = f" Of {there}'s test images {exact:,} stand again in {here}'s train or val, exactly"
    text += (
        "; near duplicates are not known, prepare both datasets anew"
        if near is None
        else f", and {near - exact:,} more nearly"
    )
    without = [one["shared"]["without"] for one in evaluations]
    if all(without):
        text += f"; without them its accuracy is {percent(mean(o['accuracy'] for o in without))}"
    return f"{text}."


def _per_emotion(study: Study, results: Mapping[str, Any]) -> Section:
    rows = []
    for name in study.datasets:
        own = [one["metrics"]["per_class"] for one in _of(results["evaluations"], name, name)]
        for emotion in labels.EMOTIONS:
            cells = []
            for key in ("precision", "recall", "f1"):
                values = [scores[emotion][key] for scores in own]
                known = [value for value in values if value is not None]
                average = mean(known) if known else None
                cells.append(Cell(percent(average), average))
            support = own[0][emotion]["support"]
            rows.append([Cell(f"{name}: {emotion}"), *cells, Cell(whole(support), support)])
    return Section(
        "Emotion by emotion",
        [],
        [
            (
                Table(
                    "emotions",
                    ["Dataset: emotion", "Precision", "Recall", "F1", "Images"],
                    rows,
                    sortable=True,
                ),
                "On the network's own dataset; the mean over seeds where there are several.",
            )
        ],
    )


def _training(study: Study, results: Mapping[str, Any]) -> Section:
    rows = []
    scores = shown_in("sweeps")
    for row in results["trainings"]:
        rows.append(
            [
                Cell(f"{row['dataset']}, seed {row['seed']}", link=f"{row['folder']}/{FINISHED}"),
                Cell(whole(row["best_epoch"]), row["best_epoch"], f"of 0 to {row['epochs'] - 1}"),
                *(score_cell(row["validation"], score) for score in scores),
                Cell(whole(row["images_per_second"]), row["images_per_second"]),
                Cell(f"{row['epoch_seconds'] / 60:.1f}", row["epoch_seconds"]),
                Cell(str(row["hardware"]["device_name"] or row["hardware"]["cpu"]), words=True),
            ]
        )
    columns = [
        *("Training", "Best epoch", *(f"Validation {score.heading}" for score in scores)),
        *("Images/s", "Minutes", "On"),
    ]
    seed = study.seeds[0]
    return Section(
        "Training",
        [
            "Both trainings compose to the same configuration but for the dataset. The epoch with "
            "the best macro-F1 on validation is kept."
        ],
        [(Table("training", columns, rows), "")],
        [
            FigureEntry(
                stage.folder / "figures" / "curves.png",
                f"Training curves: {stage.dataset}, seed {seed}",
                "Training values are measured on augmented images with dropout, as they go by.",
            )
            for stage in study.trainings
            if stage.seed == seed
        ],
    )


def _robustness(study: Study, results: Mapping[str, Any]) -> list[Section]:
    rows, figures = [], []
    scores = shown_in("robustness")
    for name in study.datasets:
        own = _of(results["evaluations"], name, name)
        areas = [one["metrics"].get("robustness", {}).get("relative_area", {}) for one in own]
        for damage in areas[0]:
            values = [area[damage] for area in areas]
            rows.append(
                [
                    Cell(f"{name}: {damage.replace('_', ' ')}"),
                    *(
                        share_cell({s.name: mean(value[s.name] for value in values)}, s)
                        if all(s.name in value for value in values)
                        else Cell(ABSENT)
                        for s in scores
                    ),
                ]
            )
        picture = study.folder / own[0]["folder"] / "figures" / "robustness.png"
        if areas[0] and picture.is_file():
            figures.append(
                FigureEntry(
                    picture,
                    f"Robustness: {name}, seed {own[0]['seed']}",
                    f"{curves_caption()}, against the severity of the damage; the shade is the "
                    "95 % interval over images.",
                )
            )
    if not rows:
        return []
    return [
        Section(
            "Robustness",
            [],
            [
                (
                    Table("robustness", ["Damage", *(f"{s.title} kept" for s in scores)], rows),
                    "Area under the curve, relative to undamaged images; the mean over seeds.",
                )
            ],
            figures,
        )
    ]


PICTURES = (
    (
        "What is confused",
        (
            ("confusion_matrix_test.png", "Confusion matrix", "Each row is a true emotion."),
            ("confusions.png", "Frequent confusions", "Images of the most frequent mistakes."),
            (
                "confident_mistakes.png",
                "Confident mistakes",
                "Where the network was most sure and wrong; some labels may be wrong instead.",
            ),
        ),
    ),
    (
        "Where the network looks",
        (
            (
                "saliency_class_maps.png",
                "Mean saliency of each emotion",
                "Of correctly recognised images. See the evaluation's own page for whether such "
                "maps can be believed.",
            ),
            (
                "saliency_faithfulness.png",
                "Deletion and insertion",
                "Pixels taken away or put back in the order of the maps, against random orders.",
            ),
        ),
    ),
)
"""Figures of the evaluations that the page shows, where they exist."""


def _pictures(study: Study, seed: int) -> list[Section]:
    """Figures of each network on its own dataset, of the first seed."""
    homes = {
        one.dataset: one.folder / "figures"
        for one in study.measurements
        if one.training.seed == seed and one.in_domain
    }
    sections = []
    for title, parts in PICTURES:
        entries = [
            FigureEntry(place / file, f"{name}: {words}, seed {seed}", caption)
            for file, words, caption in parts
            for name, place in homes.items()
            if (place / file).is_file()
        ]
        if entries:
            sections.append(Section(title, figures=entries))
    return sections


def _origin(study: Study, results: Mapping[str, Any]) -> Section:
    rows = []
    runs = [*results["trainings"], *results["evaluations"]]
    for row, stage in zip(runs, [*study.trainings, *study.measurements], strict=True):
        rows.append(
            [
                Cell(stage.name, link=f"{row['folder']}/{FINISHED}", code=row["command"]),
                Cell(str(row["data"]["fingerprint"])[:16], words=True),
            ]
        )
    git = results["git"] or {}
    state = f"commit {git['commit'][:12]}" if git.get("commit") else ABSENT
    return Section(
        "How it was made",
        [
            f"{RESULTS} beside this page holds every number. Source: {state}"
            f"{', with changes' if git.get('dirty') else ''}."
        ],
        [(Table("origin", ["Run", "Fingerprint of the data"], rows), "")],
    )
