"""The task of finding mislabelled images: ``python -m fer audit dataset=folder``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer.core import labels
from fer.core.errors import ConfigError, FerError
from fer.core.files import write_csv, write_json
from fer.core.options import check_options
from fer.core.words import how_many, percent
from fer.data.audit.integrity import data_notes
from fer.data.audit.verdict import ALTERED
from fer.data.ferplus import SecondLabels, check_own_labels, second_labels
from fer.data.folds import folds_of, warnings_of_images
from fer.data.prepared import Prepared
from fer.data.readers.base import Reader, check_classes
from fer.data.selection import refuse_altered, select
from fer.evaluation.label_issues import (
    FlagScores,
    find_label_issues,
    join_folds,
    require_cleanlab,
    score_flags,
    summarise_issues,
)
from fer.report.audit_page import Audited, write_audit
from fer.runs.plan import Audit, make_audit
from fer.runs.provenance import git_state, versions, without_places
from fer.runs.records import read_run
from fer.runs.stages import check_runs, refuse_others
from fer.tasks.prepare import make_part, prepare_dataset
from fer.tasks.study import estimate, print_plan, run_stages

TABLE, NUMBERS = "audit.csv", "audit.json"
HELD_OUT = [(split, emotion) for split in ("val", "test") for emotion in labels.EMOTIONS]
"""What every fold has, beside the training images."""
ANNOTATORS = "the majority of FER+'s annotators"
COLUMNS = (
    *("rank", "id", "source", "image", "split", "fold", "label", "answer"),
    *("answer_probability", "label_probability", "quality", "flagged"),
)
"""Columns of ``audit.csv``; ``image`` is a path below the prepared folder."""


@dataclass(frozen=True)
class Images:
    """The images of a dataset that are audited."""

    prepared: Prepared
    rows: np.ndarray
    """``(N,)`` int64, which entries they are."""
    folds: np.ndarray
    """``(N,)`` int64 from 0, the fold of each."""
    left_out: dict[str, dict[str, int]]
    """For each reason the number of images of each given split that are not audited."""
    second: SecondLabels | None
    """What annotators say of them."""

    @property
    def target(self) -> np.ndarray:
        """``(N,)`` int64, their labels."""
        return np.array([labels.INDEX[self.prepared.entries[row].emotion] for row in self.rows])


def audit_task(cfg: DictConfig, _: Path) -> None:
    """Do what is left of an audit, and write its table and page.

    Raises:
        FerError: a value is wrong, cleanlab is missing, the folder holds another audit, or a stage
            failed.
    """
    check_options(cfg)
    own = HydraConfig.get()
    audit = make_audit(cfg, own.runtime.choices["dataset"], own.overrides.task)
    refuse_others(audit.folder, NUMBERS, "an audit")
    if not cfg.plan:
        require_cleanlab()
    reader = make_part(cfg.dataset, "reader")
    if cfg.votes is not None:
        check_own_labels(reader, cfg.dataset.name)
    images = choose_images(cfg, prepare_dataset(cfg.dataset, reader), reader)
    prints = {audit.trainings[0].dataset: images.prepared.integrity["fingerprint"]}
    check_runs(audit.stages, prints)
    print(f"Audit of {how_many(len(images.rows), 'image')} of {cfg.dataset.name} in {audit.folder}")
    if all(stage.done for stage in audit.stages):
        print(f"Nothing to train: all {len(audit.stages)} stages are complete.")
    else:
        fold = len(images.rows) // cfg.folds
        counts = {"train": (cfg.folds - 2) * fold, "val": fold, "test": fold}
        print_plan(audit.stages, estimate(audit.stages, dict.fromkeys(prints, counts)))
    if cfg.plan:
        return
    for stage, code in run_stages(audit.stages, every=False):
        raise FerError(
            f"A stage failed: {stage.name} (exit code {code}; its message stands above). When the "
            "cause is gone, the same command goes on."
        )
    check_runs(audit.stages, prints)  # of what went on, too
    write_results(cfg, audit, images)


def choose_images(cfg: DictConfig, prepared: Prepared, reader: Reader) -> Images:
    """The images that are audited and their folds; refuses what a training would refuse.

    Raises:
        FerError: an emotion has fewer images than folds, the copy is altered, or the votes are not
            of these images.
    """
    given, node = prepared.integrity["source"]["given"]["path"], cfg.dataset
    check_classes(given, [("train", entry.emotion) for entry in prepared.entries] + HELD_OUT)
    if not node.accept_altered:
        refuse_altered(node.name, prepared.folder, prepared.integrity)
    folds = folds_of(prepared, cfg.folds, reader, "folds")
    chosen, left_out = select(prepared, leaks="keep", blank=node.blank, conflicts=node.conflicts)
    rows = np.flatnonzero(chosen)
    found = Images(prepared, rows, folds[rows], left_out, None)
    counts = np.zeros((cfg.folds, labels.NUM_CLASSES), np.int64)
    np.add.at(counts, (found.folds, found.target), 1)
    short = [name for name, own in zip(labels.EMOTIONS, counts.T, strict=True) if not own.all()]
    if short:
        raise ConfigError(
            f"folds: expected images of every emotion for each of the {cfg.folds} folds, found too "
            f"few of {', '.join(short)} after leaving out what dataset.blank and dataset.conflicts "
            f"name. {'Take fewer folds, or set' if cfg.folds > 3 else 'Set'} one of them to keep."
        )
    if cfg.votes is None:
        return found
    second = second_labels([prepared.entries[row] for row in rows], Path(cfg.votes))
    if second is None:
        raise ConfigError(
            f"votes: expected FER2013's images, which these votes are of, found others in "
            f"{node.name}. Leave out votes."
        )
    return replace(found, second=second)


def write_results(cfg: DictConfig, audit: Audit, images: Images) -> None:
    """Find the label issues, and write ``audit.csv``, ``audit.json`` and, last, the page."""
    entries = [images.prepared.entries[row] for row in images.rows]
    target, second, integrity = images.target, images.second, images.prepared.integrity
    ids = [entry.id for entry in entries]
    tables = [stage.folder / "predictions.csv" for stage in audit.measurements]
    probabilities = join_folds(tables, ids, target, images.folds)
    issues = find_label_issues(target, probabilities)
    audited = Audited(
        cfg.dataset.name,
        entries,
        [images.prepared.files[row] for row in images.rows],
        images.folds,
        target,
        probabilities,
        issues,
        None if second is None else second.emotions,
        lambda row: images.prepared.read(int(images.rows[row])),
    )
    scores = summarise_issues(target, probabilities, issues)
    flags = None
    if second is not None:
        flags = score_flags(target, second.emotions, issues, ANNOTATORS, second.unknown)
    altered = integrity["verdict"] == ALTERED
    notes = [
        *(data_notes(integrity) if altered else []),
        *(
            f"Left out because {why}: {how_many(sum(counts.values()), 'image')}."
            for why, counts in images.left_out.items()
        ),
        *warnings_of_images(integrity),
        *([] if second is None else second.notes),
    ]
    provenance = {
        "commands": {
            stage.folder.relative_to(audit.folder).as_posix(): without_places(
                read_run(stage.folder)["command"]
            )
            for stage in audit.stages
        },
        "git": git_state(),
        "versions": versions(),
        "fingerprint": integrity["fingerprint"],
        "folds": cfg.folds,
    }
    used = {
        "altered_copy": [finding["text"] for finding in integrity["findings"] if altered],
        "left_out": images.left_out,
    }
    columns = COLUMNS if second is None else (*COLUMNS, "annotators")
    write_csv(audit.folder / TABLE, columns, list_rows(audited))
    found = {"dataset": cfg.dataset.name, **used, **scores, "votes": flags, "notes": notes}
    write_json(audit.folder / NUMBERS, {**found, **provenance})
    page = write_audit(
        audit.folder, audited, scores, flags, shown=cfg.flags, notes=notes, provenance=provenance
    )
    print(f"\nFlagged: {scores['flagged']:,} of {how_many(scores['images'], 'image')}.")
    if flags is not None:
        print_precision(flags)
    print(f"{'Look at them' if scores['flagged'] else 'The page'}: {page}")
    print(f"All images, the most suspicious first: {audit.folder / TABLE}")


def list_rows(audited: Audited) -> Iterator[dict[str, object]]:
    """The rows of ``audit.csv``, the most suspicious first."""
    issues = audited.issues
    for rank, row in enumerate(issues.order.tolist(), start=1):
        entry, label, answer = audited.entries[row], audited.target[row], audited.preds[row]
        found: dict[str, object] = {
            "rank": rank,
            "id": entry.id,
            "source": entry.source,
            "image": audited.files[row],
            "split": entry.split,
            "fold": int(audited.folds[row]) + 1,
            "label": entry.emotion,
            "answer": labels.EMOTIONS[answer],
            "answer_probability": f"{audited.probabilities[row, answer]:.6g}",
            "label_probability": f"{audited.probabilities[row, label]:.6g}",
            "quality": f"{issues.quality[row]:.6g}",
            "flagged": "true" if issues.flagged[row] else "false",
        }
        if audited.second is not None:
            found["annotators"] = audited.said(row)
        yield found


def print_precision(flags: FlagScores) -> None:
    """Print how many flags the annotators confirm."""
    print("Have a label that is not the annotators', where these agree on an emotion:")
    for row in flags["precision"][:-1]:
        print(f"  of the first {row['flags']:,} flagged images {percent(row['share'])}")
    print(f"  of all flagged images {percent(flags['precision'][-1]['share'])}")
    print(f"  of all images {percent(flags['base']['share'])}")
