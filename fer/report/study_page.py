"""The page of a whole study; ``study.html.j2`` holds the sentences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from fer.core.files import write_json
from fer.evaluation.scores import SCORES, shown_in
from fer.report.evaluation_sections import area_table
from fer.report.page import Cell, Content, Table, make_table, write_page
from fer.report.score_cells import (
    emotion_table,
    leak_free_means,
    most_frequent,
    score_cell,
    score_table,
    spread_cell,
)
from fer.report.study_results import (
    RESULTS,
    Direction,
    StudyResults,
    describe_unlike,
    gather,
    of_direction,
)
from fer.runs.plan import Study
from fer.runs.state import FINISHED, disparities


def write_study(study: Study, parameters: int) -> Path:
    """Write ``study.json`` and, last, the page.

    Raises:
        DataError: a file of a run cannot be read.
    """
    results = gather(study, parameters)
    write_json(study.folder / RESULTS, results)
    summary = {(row["train_dataset"], row["test_dataset"]): row for row in results["summary"]}
    # Each network on its own dataset, a seed each.
    own = {name: of_direction(results["evaluations"], name, name) for name in study.datasets}
    metrics = {name: [one["metrics"] for one in found] for name, found in own.items()}
    # The folder of a dataset's first training.
    trained = {one["dataset"]: one["folder"] for one in reversed(results["trainings"])}
    areas = {
        f"{name}: ": [one["robustness"]["relative_area"] for one in found]
        for name, found in metrics.items()
        if all("robustness" in one for one in found)
    }
    unlike = describe_unlike(results["evaluations"])
    notes = [note for found in own.values() for one in found for note in one["notes"]]
    return write_page(
        study.folder / FINISHED,
        "study.html.j2",
        {
            "title": "One compact CNN, one recipe: " + " and ".join(study.datasets),
            "results": results,
            "seed": study.seeds[0],
            "notes": [*unlike, *disparities(results["trainings"]), *dict.fromkeys(notes)],
            "homes": [
                {
                    "name": name,
                    "accuracy": summary[name, name]["accuracy"]["mean"],
                    "most_frequent": most_frequent(found[0]),
                    "leak_free": leak_free_means(found),
                    "figures": study.folder / own[name][0]["folder"] / "figures",
                    "curves": study.folder / trained[name] / "figures" / "curves.png",
                }
                for name, found in metrics.items()
            ],
            "away": [
                _describe_transfer(results, summary, *pair)
                for pair in summary
                if len(set(pair)) > 1
            ],
            "across": study.folder / "evaluate" / "figures",
            "short": score_table(
                "short",
                "Dataset",
                {name: summary[name, name] for name in study.datasets},
                list(SCORES.values()),
                spread_cell,
            ),
            "transfer": score_table(
                "transfer",
                "Network → measured on",
                {" → ".join(pair): row for pair, row in summary.items()},
                shown_in("comparisons"),
                spread_cell,
            ),
            "emotions": emotion_table("emotions", {f"{n}: ": own for n, own in metrics.items()}),
            "trainings": _training_table(results),
            "robustness": area_table("robustness", areas),
            "finished": FINISHED,
        },
    )


def _describe_transfer(
    results: StudyResults, summary: Mapping[tuple[str, str], Direction], here: str, there: str
) -> dict[str, object]:
    """The loss from one dataset to another, and the images that they share."""
    shared = [one["shared"] for one in of_direction(results["evaluations"], here, there)]
    exact, near = shared[0]["exact"], shared[0]["exact_or_near"]
    without = [one["without"]["accuracy"] for one in shared if one["without"]]
    home, away = summary[here, here]["accuracy"], summary[here, there]["accuracy"]
    return {
        "trained_on": here,
        "measured_on": there,
        "lost": home["mean"] - away["mean"],
        "exact": exact,
        "near": None if near is None else near - exact,
        "without": mean(without) if len(without) == len(shared) else None,
    }


def _training_table(results: StudyResults) -> Table:
    scores = shown_in("sweeps")
    rows: list[list[Content]] = [
        [
            Cell(f"{row['dataset']}, seed {row['seed']}", link=f"{row['folder']}/{FINISHED}"),
            Cell(str(row["best_epoch"]), f"of 0 to {row['epochs'] - 1}"),
            *(score_cell(row["validation"], score) for score in scores),
            row["images_per_second"],
            f"{row['epoch_seconds'] / 60:.1f}",
            Cell(row["hardware"]["device_name"] or row["hardware"]["cpu"], words=True),
        ]
        for row in results["trainings"]
    ]
    columns = [
        *("Training", "Best epoch", *(f"Validation {score.heading}" for score in scores)),
        *("Images/s", "Minutes", "On"),
    ]
    return make_table("training", columns, rows)
