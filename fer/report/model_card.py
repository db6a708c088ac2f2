"""The model card (Mitchell et al., arXiv 1810.03993) of a study, from its results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fer.core import labels
from fer.core.errors import ConfigError, DataError, FerError
from fer.core.words import ABSENT, how_many, whole
from fer.evaluation.explanation import REPLACEMENTS
from fer.evaluation.scores import SCORES, Score, shown_in
from fer.report.saliency_sections import KINDS, METHOD_NAMES

ABOUT = {
    "fer2013": (
        "FER2013 (Goodfellow et al., arXiv 1307.0414): faces found by searching the web for words "
        "of emotion, 48×48 pixels, gray. It was published for a Kaggle challenge and is used for "
        "research; the pictures belong to their owners. People reached 65 ± 5 % on a part of it. "
        "Known faults: exact and near duplicates, some across splits and some with different "
        "labels; wrong labels; blank and broken images, drawings, watermarks."
    ),
    "rafdb": (
        "RAF-DB, basic emotions (Li et al., CVPR 2017): faces from the web in colour, each "
        "labelled by about forty annotators. Its terms allow research that is not commercial "
        "and forbid passing it on. It has no validation split: a tenth of train is held out here."
    ),
}
DRAWN = "Drawn faces: scores on them say nothing about human faces."
LONGEST = 10_000
"""Characters of a text: a command with many options has some hundred."""
HUB = {"macro_f1": "f1"}
"""The names of scores that have another one on the Hugging Face hub."""
MISSING = {
    "rafdb": (
        "**RAF-DB was not measured here.** Its terms forbid passing it on, and no copy was at "
        "hand. The reader was tried on generated files in its layouts; the command that measures "
        "it is `python -m fer study a=fer2013 b=rafdb raw.b=PATH`."
    )
}


def render_card(results: Mapping[str, Any]) -> str:
    """The card as Markdown with its metadata.

    Args:
        results: the content of a study's ``study.json``.

    Raises:
        DataError: it is not that.
        ConfigError: huggingface_hub, which writes the metadata, is missing.
    """
    try:
        content = describe(inert(results))
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        if isinstance(error, FerError):
            raise
        raise DataError(
            f"study.json: expected the results of a study, found something else ({error!r}). "
            "Run the study again: it writes the file anew when its page is deleted."
        ) from error
    environment = Environment(
        loader=PackageLoader("fer.report", "templates"),
        autoescape=False,  # Markdown; what is put in was made inert
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("model_card.md.j2").render(content)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip("\n") + "\n"


def inert(value: Any, key: str = "") -> Any:
    """Plain values whose texts mean nothing to Markdown or HTML, wherever they are put in.

    A command stands in a block of code, where nothing but its end has a meaning.

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
    kept = "\n" if key == "command" else ""  # several commands stand below each other
    line = "".join(one if one.isprintable() or one == kept else " " for one in value)
    if key == "command":
        return line.replace("```", "")
    return "".join(f"&#{ord(one)};" if one in "*[]`|\\#~" else one for one in escape(line, False))


def describe_architecture(model: Mapping[str, Any]) -> str:
    """The network in a line: of the shared CNN its blocks, of another its class and options."""
    if is_shared_cnn(model):
        widths = "-".join(map(str, model["widths"]))
        return (
            f"{len(model['widths'])} blocks of 3×3 convolution, BatchNorm, ReLU and max pooling "
            f"(channels\n  {widths}), global average pooling, dropout, a linear layer"
        )
    options = ", ".join(f"{key}={value}" for key, value in model.items() if key != "_target_")
    return f"`{name_network(model)}({options})`"


def is_shared_cnn(model: Mapping[str, Any]) -> bool:
    """Whether it is the study's own network, in whichever width."""
    return str(model.get("_target_", "SharedCNN")).rpartition(".")[2] == "SharedCNN"


def name_network(model: Mapping[str, Any]) -> str:
    """What a network is called."""
    return "Shared CNN" if is_shared_cnn(model) else model["_target_"].rpartition(".")[2]


def describe(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the template draws."""
    names = list(results["datasets"])
    config = results["trainings"][0]["config"]
    model = config["model"]
    alone = len(results["seeds"]) == 1
    homes = {name: _home(results, name) for name in names}
    passes = {
        (one["train_dataset"], one["test_dataset"]): f", tta={one['metrics']['tta']}"
        for one in results["evaluations"]
        if one["metrics"].get("tta")
    }
    return {
        "metadata": make_metadata(results),
        "title": f"{name_network(model)} for seven facial expressions: {' and '.join(names)}",
        "summary": f"{'A compact convolutional' if is_shared_cnn(model) else 'A'} network of "
        f"{how_many(results['parameters'], 'parameter')} that names one of seven "
        "expressions of a face. The same recipe was trained on "
        f"{' and on '.join(names)}, with {how_many(len(results['seeds']), 'seed')}.",
        "architecture": describe_architecture(model),
        "parameters": results["parameters"],
        "size": model.get("image_size", 48),
        "channels": model.get("in_channels", 1),
        "emotions": labels.EMOTIONS,
        "recipe": describe_recipe(config),
        "data": [_describe_data(name, results["data"][name]) for name in names],
        "missing": {} if "rafdb" in names or _drawn(results) else MISSING,
        "passes": describe_passes(results["evaluations"]),
        "spread": "In brackets: the 95 % interval over the images. One seed: how much "
        "others would differ was not measured."
        if alone
        else f"Mean over {len(results['seeds'])} seeds ± their standard deviation.",
        "headings": [score.heading for score in SCORES.values()],
        "results": [
            {
                "name": f"{row['train_dataset']} → {row['test_dataset']}"
                + passes.get((row["train_dataset"], row["test_dataset"]), ""),
                "samples": whole(row["samples"]),
                "cells": [_spread(row, score) for score in SCORES.values()],
            }
            for row in results["summary"]
        ],
        "beside": [*_beside(homes), *_preferred(results, homes)],
        "per_emotion": [_per_emotion(name, own) for name, own in homes.items()],
        "subgroups": _subgroups(homes),
        "robustness": _robustness(homes),
        "transfer": _transfer(results),
        "saliency": _saliency(homes),
        "seeds_limit": "One training each: another seed gives other figures."
        if alone
        else f"{len(results['seeds'])} trainings each: the spread is a rough one.",
        "provenance": _provenance(results),
    }


def preferred(results: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Of a dataset's trainings the one with the highest validation macro-F1: the one to pass on."""
    own = [one for one in results["trainings"] if one["dataset"] == name]
    return max(own, key=lambda one: one["validation"]["macro_f1"])


def _preferred(
    results: Mapping[str, Any], homes: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """Which network of several seeds is the one to use, by validation, and its own figures."""
    lines = []
    for name, own in homes.items():
        if len(own) < 2:
            continue
        seed = preferred(results, name)["seed"]
        metrics = next(one["metrics"] for one in own if one["seed"] == seed)
        found = []
        for score in shown_in("sweeps"):
            if score.name in metrics:
                bounds = _brackets(metrics["confidence_intervals"][score.name], score)
                found.append(f"{score.heading} {score.format.text(metrics[score.name])} {bounds}")
        lines.append(
            f"The network to use is that of seed {seed}, which has the best macro-F1 on {name}'s "
            f"validation images: {' and '.join(found)} on test (95 % intervals over the images)."
        )
    return lines


def _home(results: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The evaluations of a dataset's networks on its own test split."""
    return [
        one
        for one in results["evaluations"]
        if one["train_dataset"] == name and one["test_dataset"] == name
    ]


def _drawn(results: Mapping[str, Any]) -> bool:
    return any(facts["drawn"] for facts in results["data"].values())


def make_metadata(results: Mapping[str, Any]) -> str:
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
    found = []
    scores = [one for one in shown_in("sweeps") if one.name in results["summary"][0]]
    for row in results["summary"]:
        for score in scores:
            found.append(
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
            )
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


def describe_recipe(config: Mapping[str, Any]) -> str:
    """Optimizer, schedule, loss and augmentation of a training, in words."""

    def kind(node: Mapping[str, Any]) -> str:
        return str(node["_target_"]).rpartition(".")[2]

    optimizer = config["optimizer"]
    policy = ", ".join(config["augmentation"]["transforms"]) or "none"
    patience = config["early_stopping"]["patience"]
    parts = [
        f"{kind(optimizer)}, learning rate {optimizer['lr']:g}",
        f"weight decay {optimizer.get('weight_decay', 0):g}",
        f"schedule {kind(config['scheduler'])}",
        f"{config['trainer']['max_epochs']} epochs at most",
        f"batches of {config['loader']['batch_size']}",
        *([f"dropout {config['model']['dropout']:g}"] if "dropout" in config["model"] else []),
        describe_loss(config["loss"]),
        f"augmentation: {policy}",
        *describe_averages(config),
    ]
    if patience is not None:
        parts.append(f"stopped after {patience} epochs without a better validation macro-F1")
    return "; ".join(parts)


def describe_loss(loss: Mapping[str, Any]) -> str:
    """The loss with its label smoothing and class weights, in words."""
    parts = [f"loss {str(loss['_target_']).rpartition('.')[2]}"]
    smoothing = loss.get("label_smoothing")
    if smoothing:
        parts.append(f"label smoothing {smoothing:g}")
    # Ours has class_weight, torch's own classes weight or pos_weight.
    weights = [loss[key] for key in ("class_weight", "weight", "pos_weight") if loss.get(key)]
    parts.append(f"class weights {', '.join(map(str, weights))}" if weights else "no class weights")
    return ", ".join(parts)


def describe_averages(config: Mapping[str, Any]) -> list[str]:
    """Mixed images and averaged weights, in words; nothing of what a study does not record."""
    parts = []
    if "mixing" in config:
        mixing = config["mixing"]
        mixed = [
            f"{name} (alpha {mixing[key]:g})"
            for key, name in (("mixup", "mixup"), ("cutmix", "CutMix"))
            if mixing[key]
        ]
        share = f" in {100 * mixing['p']:g} % of the batches"
        parts.append(" or ".join(mixed) + share if mixed else "no mixup or CutMix")
    if "ema" in config:
        decay = config["ema"]["decay"]
        parts.append(
            "no averaged weights"
            if decay is None
            else f"weights averaged over the steps (EMA, decay {decay:g})"
        )
    return parts


def describe_passes(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """How often the network saw each image when it was measured."""
    found = {one["metrics"].get("tta") for one in evaluations}
    if found == {None}:
        return "in a single forward pass"
    if None not in found:
        return f"in two passes, the mean of each image and its mirror image (tta={found.pop()})"
    return "in a single forward pass but where tta is named: there it took two"


def _spread(row: Mapping[str, Any], score: Score) -> str:
    found, form = row.get(score.name), score.format
    if found is None:
        return ABSENT
    if found["sd"] is not None:
        return f"{form.digits(found['mean'])} ± {form.digits(found['sd'])}"
    return f"{form.digits(found['mean'])} {_brackets(found['interval'], score)}"


def _brackets(bounds: Sequence[float], score: Score) -> str:
    low, high = map(score.format.digits, bounds)
    return f"[{low}, {high}]"


def _percent(values: Sequence[float | None]) -> str:
    """The mean of fractions in percent; a dash where none is known."""
    known = [value for value in values if value is not None]
    return f"{100 * mean(known):.1f}" if known else "–"


def _describe_data(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    duplicates, leaks = facts["duplicates"], facts["leaks"]
    faults = [
        f"{facts['verdict_text']} Fingerprint `{facts['fingerprint'][:16]}`.",
        f"Exact duplicates: {how_many(duplicates['groups'], 'group')} of "
        f"{how_many(duplicates['images'], 'image')}, "
        f"{how_many(duplicates['groups_with_conflicting_labels'], 'group')} with different labels.",
        f"{how_many(leaks['test_in_train_or_val'], 'test image')} and "
        f"{how_many(leaks['val_in_train'], 'validation image')} stand again, exactly, in an "
        f"earlier split; {how_many(facts['blank'], 'image')} show nothing.",
    ]
    return {
        "name": name,
        "about": ABOUT.get(name, DRAWN if facts["drawn"] else "A dataset of the user's own."),
        "counts": [
            {
                "name": split,
                "numbers": [whole(own[emotion]) for emotion in labels.EMOTIONS],
                "all": whole(sum(own.values())),
            }
            for split, own in facts["counts"].items()
        ],
        "faults": faults,
    }


def _beside(homes: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What each home result is to be compared with, and what leaks and labels do to it."""
    lines = []
    for name, own in homes.items():
        metrics = [one["metrics"] for one in own]
        supports = [scores["support"] for scores in metrics[0]["per_class"].values()]
        line = (
            f"On {name}, naming the most frequent expression always would be right for "
            f"{100 * max(supports) / sum(supports):.1f} %."
        )
        apart = [row.get("without_leaks") for row in metrics]
        if all(apart):
            line += (
                " On the test images that do not stand again in train or validation the accuracy "
                f"is {_percent([row['accuracy'] for row in apart if row])} % and the macro-F1 "
                f"{_percent([row['macro_f1'] for row in apart if row])} %."
            )
        near = [row.get("without_near_leaks") for row in metrics]
        if all(near) and near[0]["samples"] < (apart[0] or near[0])["samples"]:
            line += (
                " Without those that have a near duplicate there as well, they are "
                f"{_percent([row['accuracy'] for row in near if row])} % and "
                f"{_percent([row['macro_f1'] for row in near if row])} %."
            )
        scaled = [row.get("temperature_scaling") for row in metrics]
        if all(scaled):
            fitted = ", ".join(f"{row['temperature']:.2f}" for row in scaled if row)
            line += (
                f" With the temperature that was fitted on validation ({fitted}; no other figure "
                "here has one) the calibration error is "
                f"{_percent([row['expected_calibration_error'] for row in scaled if row])} %."
            )
            notes = [note for row in scaled if row for note in row.get("notes", [])]
            line += "".join(f" {note}" for note in dict.fromkeys(notes))
        lines.append(line)
    return lines


def _per_emotion(name: str, own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for index, emotion in enumerate(labels.EMOTIONS):
        scores = [one["metrics"]["per_class"][emotion] for one in own]
        confused = [sum(column) for column in zip(*(
            one["metrics"]["confusion_matrix"][index] for one in own
        ), strict=True)]  # fmt: skip
        total = sum(confused)
        confused[index] = -1
        worst = max(range(len(confused)), key=confused.__getitem__)
        rows.append(
            [
                emotion,
                *(
                    _percent([score[key] for score in scores])
                    for key in ("precision", "recall", "f1")
                ),
                whole(scores[0]["support"]),
                f"{labels.EMOTIONS[worst]} ({100 * confused[worst] / total:.0f} %)"
                if total and confused[worst] > 0
                else "–",
            ]
        )
    return {"caption": f"{name}, in percent:", "rows": rows}


def _subgroups(homes: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    lines = []
    for name, own in homes.items():
        groups = own[0]["metrics"].get("subgroups")
        if not groups:
            lines.append(
                f"{name} does not say who is shown: how the network does on people of different "
                "gender, age or origin **is not known**."
            )
            continue
        rows = [
            f"{attribute} {group}: {100 * row['accuracy']:.1f} % "
            f"{_brackets(row['confidence_intervals']['accuracy'], SCORES['accuracy'])} of "
            f"{how_many(row['samples'], 'image')}"
            for attribute, values in groups.items()
            for group, row in values.items()
            if "accuracy" in row  # of too few images there is none
        ]
        small = sum("accuracy" not in row for values in groups.values() for row in values.values())
        if small:
            rows.append(f"{how_many(small, 'group')} of too few images not measured")
        lines.append(
            f"{name}, accuracy by the annotators' judgement: {'; '.join(rows)} (seed "
            f"{own[0]['seed']})."
        )
    return "\n\n".join(lines)


def _robustness(homes: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    rows = []
    for name, own in homes.items():
        damaged = [one for one in own if "robustness" in one]
        kinds = dict.fromkeys(row["perturbation"] for one in damaged for row in one["robustness"])
        for kind in kinds:
            cells = []
            for severity in range(6):
                values = [
                    row["accuracy"]
                    for one in damaged
                    for row in one["robustness"]
                    if (row["perturbation"], row["severity"]) == (kind, severity)
                ]
                cells.append(_percent(values))
            kept = [
                one["metrics"]["robustness"]["relative_area"].get(kind, {}).get("accuracy")
                for one in damaged
            ]
            rows.append([f"{name}: {kind.replace('_', ' ')}", *cells, _percent(kept)])
    return rows


def _transfer(results: Mapping[str, Any]) -> str:
    by = {(row["train_dataset"], row["test_dataset"]): row for row in results["summary"]}
    lines = [
        f"The network of {here} has {100 * row['accuracy']['mean']:.1f} % on {there}, "
        f"{100 * (by[here, here]['accuracy']['mean'] - row['accuracy']['mean']):.1f} points less "
        "than in domain."
        for (here, there), row in by.items()
        if here != there
    ]
    return " ".join(lines) or "Not measured: it takes a second dataset."


def _saliency(homes: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    lines = []
    for name, own in homes.items():
        one = next((one for one in own if one.get("saliency")), None)
        if one is None:
            continue
        found = one["saliency"]
        standard = next(iter(found["regions"].values()))
        shares = []
        for region, area in standard["area"].items():
            values = [row["all"][region] for row in standard["methods"].values()]
            shares.append(
                f"{region} {100 * min(values):.0f}–{100 * max(values):.0f} % "
                f"(area {100 * area:.0f} %)"
            )
        lines.append(
            f"{name}, seed {one['seed']}, {how_many(found['images']['explained'], 'image')} of the "
            "test split that were recognised: "
            f"share of the saliency, from the lowest to the highest of "
            f"{how_many(len(found['methods']), 'method')}: {', '.join(shares)}."
        )
        lines += _faithfulness(found["faithfulness"])
        kept = {
            METHOD_NAMES[method]: row["correlation"][-1]
            for method, row in found["sanity"]["methods"].items()
            if row["correlation"][-1] is not None
        }
        if kept:
            lines.append(
                "Rank correlation with the map of the same network with random weights (0: the map "
                "shows what was learned): "
                + ", ".join(f"{method} {value:.2f}" for method, value in kept.items())
                + "."
            )
    return lines or ["Not measured in this study."]


def _faithfulness(found: Mapping[str, Any]) -> list[str]:
    """Areas under both curves with each replacement, and what holds with every one."""
    tests = [(kind, name) for kind in KINDS for name in found["replacements"]]
    heads = [f"{KINDS[kind][0]} {REPLACEMENTS[name]}" for kind, name in tests]
    rows = [["map", *heads, "better than random"], ["---", *["---:"] * len(tests), "---"]]
    for method, verdicts in found["verdicts"].items():
        own = [found["replacements"][name]["methods"][method][kind]["auc"] for kind, name in tests]
        better = [kind for kind, verdict in verdicts.items() if verdict == "better"]
        rows.append([METHOD_NAMES[method], *(f"{x:.3f}" for x in own), ", ".join(better) or "no"])
    chance = [found["replacements"][name]["random"][kind]["auc"] for kind, name in tests]
    rows.append(["random pixels", *(f"{x:.3f}" for x in chance), ABSENT])
    return [
        f"Do the maps say what counts? Area under the curve of the emotion's probability while "
        "the most salient pixels are deleted (lower is better) or inserted (higher is better), "
        f"{how_many(found['images'], 'image')}. A method is better than random if the 95 % "
        "interval of its lead, over the images, lies above 0 with both replacements.",
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
    ]


def _provenance(results: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for row in results["trainings"]:
        git = row["git"] or {}
        hardware = row["hardware"]
        facts = [
            f"commit {git['commit'][:12]}{' with changes' if git.get('dirty') else ''}"
            if git.get("commit")
            else "no commit known",
            f"best epoch {row['best_epoch']} (from 0) of {row['epochs']}",
            "validation "
            + ", ".join(
                f"{score.heading} {score.format.text(row['validation'][score.name])}"
                for score in shown_in("sweeps")
                if score.name in row["validation"]
            ),
            f"{hardware['device_name'] or hardware['cpu']}, {hardware['precision']}",
            f"torch {row['versions']['torch']}, lightning {row['versions']['lightning']}",
            f"its epochs took {row['epoch_seconds'] / 60:.0f} minutes",
        ]
        rows.append(
            {
                "name": f"Training on {row['dataset']}, seed {row['seed']}",
                "command": row["command"],
                "facts": "; ".join(facts) + ".",
            }
        )
    commands = [row["command"] for row in results["evaluations"]]
    rows.append(
        {
            "name": "Evaluations",
            "command": "\n".join(commands),
            "facts": "Of each network on each dataset; the test split, once for each.",
        }
    )
    return rows
