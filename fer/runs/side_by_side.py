"""Several evaluations side by side: the cross-dataset table and comparisons of networks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer.core import labels
from fer.core.errors import DataError
from fer.core.files import Row, write_csv, write_json
from fer.core.words import how_many
from fer.data.selection import REASONS
from fer.evaluation.compare import PairedComparison, compare_paired, prior_shift
from fer.evaluation.metrics import Metrics
from fer.evaluation.mistakes import read_predictions
from fer.evaluation.robustness import RobustnessRow, columns, flatten
from fer.evaluation.scores import scores_in, shown_in
from fer.runs.records import (
    EvaluationRecord,
    read_evaluation,
    read_metrics,
    read_robustness,
)


def cross_columns() -> tuple[str, ...]:
    """Columns of ``cross_dataset.csv``: fractions; a drop is in domain minus here."""
    scores = shown_in("comparisons")
    return (
        *("train_dataset", "test_dataset", "samples"),
        *(f"{score.name}{end}" for score in scores for end in ("", "_low", "_high")),
        *(f"drop_{score.name}" for score in scores),
        *("accuracy_source_priors", "accuracy_adjusted", "macro_f1_adjusted"),
        *(f"recall_{emotion}" for emotion in labels.EMOTIONS),
        *("split", "network", "measured_on", "run"),
    )


NO_MEASUREMENT = ("checkpoint", "dataset", "split", "paths", "figures", "loader", "trainer")
"""Parts of an evaluation's configuration that are told otherwise, or that change no number."""
NO_IMAGE = ("name", "folder", "raw", "workers", "download", "kaggle", "epochs")
"""Options of a dataset that change no image."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, as its folder has it."""

    folder: Path
    metrics: Metrics
    run: EvaluationRecord
    ids: list[str]
    target: np.ndarray
    probabilities: np.ndarray
    robustness: list[RobustnessRow] | None

    @property
    def trained_on(self) -> str:
        """The dataset that the network was trained on."""
        return self.run["checkpoint"]["dataset"]["name"]

    @property
    def network(self) -> str:
        """The identity of its network: the checkpoint's content, wherever it lies."""
        return self.run["checkpoint"]["sha256"]

    @property
    def place(self) -> tuple[str, str]:
        """Dataset and split."""
        return (self.metrics["dataset"], self.metrics["split"])

    @property
    def data(self) -> tuple[Any, ...]:
        """What identifies the images: evaluations in which it is equal saw the same ones."""
        return (*self.place, self.run["dataset"]["fingerprint"], tuple(self.ids))

    @property
    def way(self) -> dict[str, str]:
        """The passes and precision, which change a network's answers on the same images."""
        precision = self.run["hardware"]["precision"]
        return {"tta": str(self.metrics.get("tta")), "trainer.precision": precision}

    @property
    def options(self) -> dict[str, str]:
        """Options of the measurement by key, without network, data and places."""
        config = {k: v for k, v in self.run["config"].items() if k not in NO_MEASUREMENT}
        damage = "+".join(config.pop("perturbation", None) or ["none"])
        return {**leaves(config), "perturbation": damage, **self.way}

    def left_out(self, option: str) -> bool:
        """True unless an option of the dataset is known to have left out nothing of the split."""
        data = self.run["dataset"]
        counts = data.get("left_out", {}).get(REASONS.get(option, option))
        if counts is None:  # the option was not set, or does not say what it left out
            return self.choices.get(f"dataset.{option}") != "keep"
        splits = self.metrics["split"].split("+")
        disputed = option == "conflicts" and data.get("disputed", 0)
        return bool(disputed) or any(counts.get(split) for split in splits)

    @property
    def choices(self) -> dict[str, str]:
        """Options of its dataset by key: what was done with the data."""
        dataset = self.run["config"].get("dataset", {})
        return leaves({key: own for key, own in dataset.items() if key not in NO_IMAGE}, "dataset")

    @property
    def in_domain(self) -> bool:
        """True if the network is measured on the dataset that it was trained on."""
        return self.trained_on == self.metrics["dataset"]


class Comparison(PairedComparison):
    """A row of ``comparison.json``: two networks on the same images."""

    dataset: str
    split: str
    first: str
    second: str


@dataclass(frozen=True)
class Collection:
    """Several evaluations and what they say together."""

    jobs: list[Evaluation]
    rows: list[Row]
    """``cross_dataset.csv``, a row for each: ``network`` with the options that tell evaluations of
    one network apart, ``measured_on`` with what tells images apart."""
    comparisons: list[Comparison]
    """``comparison.json``."""


def collect(folder: Path) -> Collection | None:
    """Write the tables of the evaluations below ``folder``, if there are two finished ones.

    These are ``cross_dataset.csv``, ``comparison.json`` (each pair of networks on the same images),
    and ``robustness.csv`` where images were damaged.

    Raises:
        DataError: a file of an evaluation cannot be read.
    """
    # An evaluation that did not come to its end has no run.json.
    folders = [
        path.parent for path in folder.rglob("metrics.json") if path.with_name("run.json").is_file()
    ]
    jobs = [load_evaluation(place) for place in sorted(folders, key=_number)]
    if len(jobs) < 2:
        return None
    names, places = name_measurements(jobs), name_places(jobs)
    rows, damaged = [], []
    for job, name, place in zip(jobs, names, places, strict=True):
        rows.append(cross_row(job, jobs, name, place))
        own: Row = {"network": name, "dataset": job.metrics["dataset"], "measured_on": place}
        damaged += [own | flatten(row) for row in job.robustness or []]
    write_csv(folder / "cross_dataset.csv", cross_columns(), rows)
    comparisons = compare(jobs, names)
    write_json(folder / "comparison.json", comparisons)
    if damaged:
        heading = ("network", "dataset", "measured_on")
        write_csv(folder / "robustness.csv", (*heading, *columns()), damaged)
    return Collection(jobs, rows, comparisons)


def _number(folder: Path) -> tuple[int, str]:
    """Job 10 follows job 9."""
    return (int(folder.name) if folder.name.isdigit() else -1, folder.name)


def load_evaluation(folder: Path) -> Evaluation:
    """Read one evaluation.

    Raises:
        DataError: a file is missing or cannot be read, or they do not belong together.
    """
    metrics = read_metrics(folder)
    ids, target, probabilities = read_predictions(folder / "predictions.csv")
    if len(ids) != metrics["samples"]:
        raise DataError(
            f"{folder / 'predictions.csv'}: expected the {metrics['samples']:,} images of "
            f"metrics.json, found {len(ids):,}. Evaluate the checkpoint again."
        )
    run, damaged = read_evaluation(folder), read_robustness(folder)
    return Evaluation(folder, metrics, run, ids, target, probabilities, damaged)


def name_networks(jobs: Sequence[Evaluation]) -> list[str]:
    """Name the network of each evaluation after what it was trained on.

    Networks differ by their checkpoints' content; the seed, then the path and a checksum are added
    to names that would be equal.
    """
    facts = {}
    for job in jobs:
        checkpoint = job.run["checkpoint"]
        parts = Path(checkpoint["path"]).parts[-3:]
        path = "/".join(part for part in parts if part != "checkpoints")
        facts[job.network] = (
            job.trained_on,
            f"{job.trained_on}, seed {checkpoint['seed']}",
            f"{job.trained_on}, {path}, {job.network[:8]}",
        )
    level = next((n for n in (0, 1) if len({own[n] for own in facts.values()}) == len(facts)), 2)
    return [facts[job.network][level] for job in jobs]


def name_measurements(jobs: Sequence[Evaluation]) -> list[str]:
    """Name the network of each evaluation and what sets that apart: ``fer2013 (tta=flip)``.

    Passes and precision are named wherever they are not the same for all, any other option where
    evaluations of one network on the same images differ in it.
    """
    ways = differing([job.way for job in jobs])
    names = []
    for job, network in zip(jobs, name_networks(jobs), strict=True):
        twins = [one for one in jobs if (one.network, one.data) == (job.network, job.data)]
        keys = dict.fromkeys([*ways, *differing([one.options for one in twins])])
        marks = [f"{key}={job.options.get(key)}" for key in keys]
        if sum(one.options == job.options for one in twins) > 1:  # the same, measured again
            marks.append(f"run {job.folder.name}")
        names.append(with_marks(network, marks))
    return names


def name_places(jobs: Sequence[Evaluation]) -> list[str]:
    """Name the images of each evaluation: ``fer2013, test``, with options where they differ."""
    names = []
    for job in jobs:
        beside = list({one.data: one for one in jobs if one.place == job.place}.values())
        marks = []
        if len(beside) > 1:
            marks = [
                *(f"{k}={job.choices.get(k)}" for k in differing([one.choices for one in beside])),
                how_many(len(job.ids), "image"),
            ]
            if len({one.data[2] for one in beside}) > 1:
                marks.append(f"fingerprint {job.data[2][:8]}")
        names.append(with_marks(", ".join(job.place), marks))
    return names


def leaves(node: Any, key: str = "") -> dict[str, str]:
    """The values of nested mappings as texts, by dotted key; a list is a value.

    >>> leaves({"a": {"b": 1}, "c": [2]})
    {'a.b': '1', 'c': '[2]'}
    """
    if not isinstance(node, Mapping):
        return {key: str(node)}
    parts = [leaves(value, f"{key}.{name}".lstrip(".")) for name, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def differing(facts: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys whose values are not the same everywhere.

    >>> differing([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}])
    ['b']
    """
    keys = dict.fromkeys(key for own in facts for key in own)
    return [key for key in keys if len({own.get(key) for own in facts}) > 1]


def with_marks(name: str, marks: Sequence[str]) -> str:
    """A name with what sets it apart in brackets, if anything does."""
    return f"{name} ({', '.join(marks)})" if marks else name


def cross_row(job: Evaluation, jobs: Sequence[Evaluation], network: str, place: str) -> Row:
    """A row of ``cross_dataset.csv``, without columns of what was not measured.

    Scores may be missing, or the network's evaluation on its own dataset.
    """
    metrics = job.metrics
    row: Row = {
        "train_dataset": job.trained_on,
        "test_dataset": metrics["dataset"],
        "samples": metrics["samples"],
        "split": metrics["split"],
        "network": network,
        "measured_on": place,
        "run": job.folder.name,
    }
    values = scores_in(metrics)
    names = [score.name for score in shown_in("comparisons") if score.name in values]
    for name in names:
        low, high = metrics["confidence_intervals"][name]
        row |= {name: values[name], f"{name}_low": low, f"{name}_high": high}
    for emotion, scores in metrics["per_class"].items():
        row[f"recall_{emotion}"] = scores["recall"] if scores["support"] else None
    own = in_domain_of(job, jobs)
    if own is not None and not job.in_domain:
        before = scores_in(own.metrics)
        for name in names:
            if name in before:
                row[f"drop_{name}"] = before[name] - values[name]
        counts = np.bincount(own.target, minlength=labels.NUM_CLASSES)
        # A checkpoint that does not say is taken to be trained without weights in its loss.
        priors = job.run["checkpoint"]["priors"] or own.run["dataset"]["train_counts"]
        shares = None if priors is None else np.array(priors, dtype=np.float64)
        row |= prior_shift(job.target, job.probabilities, counts, shares)
    return row


def in_domain_of(job: Evaluation, jobs: Sequence[Evaluation]) -> Evaluation | None:
    """The evaluation of the same network on its own dataset, measured alike.

    Alike are the split, passes, precision, and the options that leave images out, unless they left
    out none of either split.
    """

    def alike(home: Evaluation, *, same_options: bool) -> bool:
        if (home.network, home.metrics["split"], home.way) != (
            job.network,
            job.metrics["split"],
            job.way,
        ):
            return False
        return all(
            home.choices.get(f"dataset.{key}") == job.choices.get(f"dataset.{key}")
            or not (same_options or home.left_out(key) or job.left_out(key))
            for key in ("undecodable", *REASONS)
        )

    homes = [one for one in jobs if one.in_domain]
    found = (one for same in (True, False) for one in homes if alike(one, same_options=same))
    return next(found, None)


def unlike(first: Evaluation, second: Evaluation) -> list[str]:
    """The differences, in words, for which two networks cannot be compared."""
    found = [
        words
        for words, part in (("fingerprint of the data", 2), ("images", 3))
        if first.data[part] != second.data[part]
    ]
    return found + differing([first.way, second.way])


def compare(jobs: Sequence[Evaluation], names: Sequence[str]) -> list[Comparison]:
    """Compare every two networks that were measured on the same images in the same way."""
    found = []
    pairs = itertools.combinations(zip(jobs, names, strict=True), 2)
    for (first, first_name), (second, second_name) in pairs:
        if first.network == second.network or first.place != second.place or unlike(first, second):
            continue
        options = first.run["config"]["metrics"]
        comparison = compare_paired(
            first.target,
            first.probabilities,
            second.probabilities,
            resamples=options["resamples"],
            seed=options["seed"],
        )
        row: Comparison = {
            "dataset": first.metrics["dataset"],
            "split": first.metrics["split"],
            "first": first_name,
            "second": second_name,
            **comparison,
        }
        found.append(row)
    return found
