"""The model card (Mitchell et al., arXiv 1810.03993) of a study, from its results alone.

``model_card.md.j2`` holds the sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jinja2 import TemplateError

from fer.core import labels
from fer.core.errors import ConfigError, DataError, FerError
from fer.core.words import percent
from fer.evaluation.metrics import Group, Metrics
from fer.evaluation.scores import SCORES, shown_in
from fer.report.page import environment, make_table
from fer.report.saliency_sections import checks_table
from fer.report.score_cells import (
    average,
    emotion_table,
    leak_free_means,
    most_frequent,
    score_cell,
    score_table,
    spread_cell,
)
from fer.report.study_results import (
    EvaluationResult,
    StudyResults,
    TrainingResult,
    of_direction,
)

LONGEST = 10_000
"""Characters of a text: a command with many options has some hundred."""
HUB = {"macro_f1": "f1"}
"""The names of scores that have another one on the Hugging Face hub."""


def render_card(results: StudyResults) -> str:
    """The card as Markdown with its metadata.

    Args:
        results: the content of a study's ``study.json``.

    Raises:
        DataError: it is not that.
        ConfigError: huggingface_hub, which writes the metadata, is missing.
    """
    try:
        # Not escaped as HTML: what is put into the Markdown was made inert.
        template = environment(autoescape=False).get_template("model_card.md.j2")
        text = template.render(describe(inert(results)))
    except (
        *(LookupError, TypeError, ValueError, ArithmeticError, AttributeError),
        TemplateError,
    ) as error:
        if isinstance(error, FerError):
            raise
        raise DataError(
            f"study.json: expected the results of a study, found something else ({error!r}). "
            "Run the study again: it writes the file anew when its page is deleted."
        ) from error
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip("\n") + "\n"


def inert(value: Any, key: str = "") -> Any:
    """Plain values whose texts mean nothing to Markdown or HTML, wherever they are put in.

    A command is shown in a block of code, where nothing but its end has a meaning.

    Raises:
        ValueError: a text is longer than any that a study writes.

    >>> inert({"name": "<b>| *x*", "command": "fer train a=[1]"})
    {'name': '&lt;b&gt;&#124; &#42;x&#42;', 'command': 'fer train a=[1]'}
    """
    if isinstance(value, Mapping):
        return {inert(name): inert(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [inert(one, key) for one in value]
    if not isinstance(value, str):
        return value
    if len(value) > LONGEST:
        raise ValueError(f"a text of {len(value):,} characters")
    kept = "\n" if key == "command" else ""  # several commands are listed below each other
    line = "".join(one if one.isprintable() or one == kept else " " for one in value)
    if key == "command":
        return line.replace("```", "")
    return "".join(f"&#{ord(one)};" if one in "*[]`|\\#~" else one for one in escape(line, False))


def describe(results: StudyResults) -> dict[str, object]:
    """The content of the template."""
    names = list(results["datasets"])
    own = {name: of_direction(results["evaluations"], name, name) for name in names}
    metrics = {name: [one["metrics"] for one in found] for name, found in own.items()}
    config = results["trainings"][0]["config"]
    scores = list(SCORES.values())
    passes = {
        (one["train_dataset"], one["test_dataset"]): one["metrics"].get("tta")
        for one in results["evaluations"]
    }
    summary = {(row["train_dataset"], row["test_dataset"]): row for row in results["summary"]}
    rows = {
        " → ".join(pair) + (f", tta={passes[pair]}" if passes[pair] else ""): row
        for pair, row in summary.items()
    }
    return {
        **{"spread_cell": spread_cell, "score_cell": score_cell, "class_name": class_name},
        **{"average": average, "most_frequent": most_frequent},
        "leak_free_means": leak_free_means,
        "results": results,
        "metadata": make_metadata(results),
        "names": names,
        "config": config,
        "model": config["model"],
        "network": class_name(config["model"].get("_target_", "SharedCNN")),
        "emotions": labels.EMOTIONS,
        "summary": summary,
        "scores": score_table("scores", "Network → measured on", rows, scores, spread_cell),
        "drawn": any(facts["drawn"] for facts in results["data"].values()),
        "passes": passes.values(),
        "own": own,
        "metrics": metrics,
        "preferred": {
            name: next(one for one in found if one["seed"] == preferred(results, name)["seed"])
            for name, found in own.items()
            if len(found) > 1
        },
        "emotion_table": emotion_table(
            "emotions", {f"{n}: ": found for n, found in metrics.items()}
        ),
        "groups": {name: _groups(found[0]) for name, found in metrics.items()},
        "robustness": make_table(
            "robustness",
            ["Dataset: damage", *"012345", "Kept"],
            [row for name, found in own.items() for row in _robustness(name, found)],
        ),
        "explained": {
            name: next((one for one in found if one.get("saliency")), None)
            for name, found in own.items()
        },
        "checks_table": checks_table,
    }


def class_name(target: object) -> str:
    """The last part of a dotted path."""
    return str(target).rpartition(".")[2]


def preferred(results: StudyResults, name: str) -> TrainingResult:
    """The training of a dataset with the highest validation macro-F1: the one to pass on."""
    own = [one for one in results["trainings"] if one["dataset"] == name]
    return max(own, key=lambda one: one["validation"]["macro_f1"])


def make_metadata(results: StudyResults) -> str:
    """The card's metadata with its ``model-index``, as YAML.

    Raises:
        ConfigError: huggingface_hub is missing.
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError as error:
        raise ConfigError(
            "fer card: expected huggingface_hub, which writes a card's metadata, found none. "
            'pip install "fer-lab[card]"'
        ) from error
    rows: Sequence[Mapping[str, Any]] = results["summary"]
    scores = [one for one in shown_in("sweeps") if one.name in rows[0]]
    found = [
        EvalResult(
            task_type="image-classification",
            task_name="Facial expression recognition",
            dataset_type=row["test_dataset"],
            dataset_name=row["test_dataset"],
            dataset_split="test",
            metric_type=HUB.get(score.name, score.name),
            metric_name=f"{score.title} (trained on {row['train_dataset']})",
            metric_value=round(row[score.name]["mean"], 4),
        )
        for row in rows
        for score in scores
    ]
    data = ModelCardData(
        language=None,
        license="mit",
        library_name="pytorch",
        tags=["facial-expression-recognition", "image-classification", "lightning", "hydra"],
        datasets=list(results["datasets"]),
        metrics=[HUB.get(score.name, score.name) for score in scores],
        pipeline_tag="image-classification",
        model_name="fer-shared-cnn",
        eval_results=found,
    )
    return str(data.to_yaml()).rstrip("\n")


def _groups(metrics: Metrics) -> tuple[list[tuple[str, Group]], int]:
    """The groups of people that were measured, and how many others are too small for that."""
    found = [
        (f"{attribute} {group}", row)
        for attribute, values in (metrics.get("subgroups") or {}).items()
        for group, row in values.items()
    ]
    measured = [(name, row) for name, row in found if "accuracy" in row]
    return measured, len(found) - len(measured)


def _robustness(name: str, evaluations: Sequence[EvaluationResult]) -> list[list[str]]:
    """For each perturbation the accuracy at severities 0 to 5, and what is left of it."""
    damaged = [one for one in evaluations if "robustness" in one]
    found: dict[str, list[list[float]]] = {}
    for row in (row for one in damaged for row in one["robustness"]):
        cells = found.setdefault(row["perturbation"], [[] for _ in range(6)])
        cells[row["severity"]].append(row["accuracy"])
    areas = [one["metrics"]["robustness"]["relative_area"] for one in damaged]
    return [
        [
            f"{name}: {kind.replace('_', ' ')}",
            *(percent(average(values)) for values in cells),
            percent(average([area[kind]["accuracy"] for area in areas if kind in area])),
        ]
        for kind, cells in found.items()
    ]
