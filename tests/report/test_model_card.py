"""The model card: every number in it comes from a study's results."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer.core import labels
from fer.core.errors import DataError
from fer.evaluation.metrics import measure_split
from fer.model.checkpoint import load_checkpoint
from fer.report.model_card import preferred, render_card
from fer.report.study_results import of_direction, summarise
from fer.tasks.card import main, write_card
from tests.conftest import ROOT

pytest.importorskip("huggingface_hub")


def make_results(names: tuple[str, ...] = ("fer2013",), seeds: tuple[int, ...] = (0,)) -> Any:
    """Results of a study whose networks guess, with numbers that can be found again."""
    import numpy as np

    rng = np.random.default_rng(0)
    evaluations: list[Any] = []
    for here in names:
        for seed in seeds:
            for there in names:
                target = rng.integers(0, 7, 210)
                probabilities = rng.dirichlet(np.ones(7), 210)
                metrics = measure_split(
                    there, "test", target, probabilities, np.zeros(210, bool), resamples=100, seed=0
                )
                evaluations.append(
                    {
                        "train_dataset": here, "test_dataset": there, "seed": seed,
                        "folder": f"evaluate/{here}-seed{seed}-on-{there}",
                        "command": f"python evaluate.py checkpoint={here}{seed} dataset={there}",
                        "notes": [], "metrics": metrics,
                    }
                )  # fmt: skip
    counts = {split: dict.fromkeys(labels.EMOTIONS, 10) for split in ("train", "val", "test")}
    return {
        "datasets": list(names), "seeds": list(seeds), "train_options": [], "parameters": 1234567,
        "git": None,
        "data": {
            name: {
                "counts": counts, "fingerprint": "ab" * 32, "verdict": "x", "verdict_text": "Good.",
                "leaks": {"test_in_train_or_val": 31, "val_in_train": 17},
                "duplicates": {"groups": 5, "images": 12, "groups_with_conflicting_labels": 3},
                "blank": 2, "drawn": False,
            }
            for name in names
        },
        "summary": [
            summarise(of_direction(evaluations, here, there))
            for here in names for there in names
        ],
        "trainings": [
            {
                "dataset": name, "seed": seed, "folder": "train", "command": "python train.py x",
                "git": {"commit": "c" * 40, "dirty": False}, "started": "", "best_epoch": 28,
                "epochs": 30, "validation": {"accuracy": 0.5, "macro_f1": 0.4},
                "images_per_second": 100.0, "epoch_seconds": 6000, "drawn": False,
                "versions": {"torch": "2", "lightning": "2"},
                "hardware": {"device_name": None, "cpu": "a CPU", "precision": "32-true"},
                "config": {
                    "model": {"widths": [64, 128], "image_size": 48, "in_channels": 1,
                              "dropout": 0.3},
                    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.003},
                    "scheduler": {"_target_": "fer.model.schedules.one_cycle"},
                    "loss": {"_target_": "fer.model.losses.CrossEntropyLoss"},
                    "augmentation": {"transforms": {"flip": {}, "noise": {}}},
                    "early_stopping": {"patience": 15}, "trainer": {"max_epochs": 30},
                    "loader": {"batch_size": 32},
                },
            }
            for name in names for seed in seeds
        ],
        "evaluations": evaluations,
    }  # fmt: skip


def test_every_score_of_the_study_is_in_the_card_and_in_its_metadata() -> None:
    results = make_results(("fer2013", "rafdb"), (0, 1))
    card = render_card(results)
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    (entry,) = metadata["model-index"]
    found = {
        (row["dataset"]["name"], metric["name"]): metric["value"]
        for row in entry["results"]
        for metric in row["metrics"]
    }
    for row in results["summary"]:
        here, there, accuracy = row["train_dataset"], row["test_dataset"], row["accuracy"]
        assert f"| {here} → {there} | {100 * accuracy['mean']:.1f} % (± " in body
        assert found[there, f"Accuracy (trained on {here})"] == round(accuracy["mean"], 4)
    assert len(found) == 8
    assert "1,234,567 parameters" in body
    assert "31 test images and 17 validation images are exact duplicates" in body
    assert "RAF-DB was not measured here" not in body


def test_huggingfaces_own_reader_takes_the_card(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    path = tmp_path / "card.md"
    path.write_text(render_card(make_results()), encoding="utf-8")
    card = ModelCard.load(path)
    assert [result.metric_type for result in card.data.eval_results] == ["accuracy", "f1"]
    assert card.data.license == "mit"


def test_one_dataset_and_one_seed_are_said_to_be_that() -> None:
    results = make_results()
    body = render_card(results)
    assert "RAF-DB was not measured here" in body
    assert "One training each: another seed gives other figures." in body
    assert "Not measured: it takes a second dataset." in body
    low, high = results["summary"][0]["accuracy"]["interval"]
    assert f"({100 * low:.1f}–{100 * high:.1f} %)" in body
    assert body == render_card(copy.deepcopy(results))


def test_the_command_writes_the_card_and_explains_what_is_no_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.json").write_text(json.dumps(make_results()))
    assert main([str(tmp_path), "--output", str(tmp_path / "CARD.md")]) == 0
    assert (tmp_path / "CARD.md").read_text() == render_card(make_results())
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "Run it first: python -m fer study" in capsys.readouterr().err
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(DataError, match="expected the results of a study"):
        write_card(tmp_path, tmp_path / "never.md")
    assert not (tmp_path / "never.md").exists()


def test_of_several_seeds_the_card_names_the_one_that_validation_chose() -> None:
    results = make_results(seeds=(0, 1, 2))
    assert "The network to use" not in render_card(make_results())
    results["trainings"][2]["validation"] = {"accuracy": 0.4, "macro_f1": 0.45}
    (metrics,) = (one["metrics"] for one in results["evaluations"] if one["seed"] == 2)
    low, high = metrics["confidence_intervals"]["macro_f1"]
    assert (
        f"macro-F1 {100 * metrics['macro_f1']:.1f} % ({100 * low:.1f}–{100 * high:.1f} %) on test"
        in next(line for line in render_card(results).splitlines() if "that of seed 2" in line)
    )


def test_a_number_without_an_interval_stands_alone() -> None:
    results = make_results()
    results["summary"][0]["accuracy"]["interval"] = None
    accuracy = results["summary"][0]["accuracy"]["mean"]
    assert f"| fer2013 → fer2013 | {100 * accuracy:.1f} % |" in render_card(results)


def body_of(**changes: Any) -> str:
    """The card of a study with these parts in every training's configuration."""
    results = make_results()
    for training in results["trainings"]:
        training["config"] |= changes
    return render_card(results)


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("loss", {"label_smoothing": 0.1, "class_weight": "sqrt_balanced"},
         "loss X, label smoothing 0.1, class weights sqrt_balanced"),
        ("loss", {"label_smoothing": 0.0, "class_weight": None}, "loss X, no class weights"),
        ("loss", {"weight": [1.0, 2.5]}, "loss X, class weights [1.0, 2.5]"),
        ("mixing", {"mixup": 0.2, "cutmix": 1.0, "p": 0.5},
         "mixup (alpha 0.2) or CutMix (alpha 1) in 50 % of the batches"),
        ("mixing", {"mixup": 0, "cutmix": 0, "p": 1.0}, "no mixup or CutMix"),
        ("ema", {"decay": 0.999}, "weights averaged over the steps (EMA, decay 0.999)"),
        ("ema", {"decay": None}, "no averaged weights"),
    ],
)  # fmt: skip
def test_the_recipe_is_said_in_full(part: str, value: dict[str, Any], words: str) -> None:
    if part == "loss":
        value = {"_target_": "a.X", **value}
    assert f"; {words};" in body_of(**{part: value}).replace(".\n", ";\n")


def test_the_card_says_how_often_each_image_was_seen() -> None:
    results = make_results(("a", "b"))
    assert "Scores on the test images, in a single forward pass." in render_card(results)
    results["evaluations"][0]["metrics"]["tta"] = "flip"
    body = render_card(results)
    assert "| a → a, tta=flip | " in body and "| a → b | " in body
    assert "in a single forward pass but where tta is named" in body
    for one in results["evaluations"]:
        one["metrics"]["tta"] = "flip"
    body = render_card(results)
    assert "single forward pass" not in body and "in two passes" in body


def test_the_card_names_the_temperature_and_the_scores_without_copies() -> None:
    results = make_results()
    (metrics,) = (one["metrics"] for one in results["evaluations"])
    assert "duplicated" not in render_card(results)
    clean = {"samples": 200, "accuracy": 0.456, "macro_f1": 0.321}
    metrics["without_leaks"] = clean
    metrics["without_near_leaks"] = {"samples": 1, "accuracy": 0.123, "macro_f1": 0.117}
    metrics["temperature_scaling"] = {"temperature": 1.234, "expected_calibration_error": 0.05}
    body = render_card(results)
    where = "in train or validation the accuracy is"
    assert f"not duplicated exactly {where} 45.6 % and the macro-F1 32.1 %." in body
    assert f"not duplicated exactly or nearly {where} 12.3 % and the macro-F1 11.7 %." in body
    assert "fitted on validation (1.23; no other figure here has one)" in body


def test_the_committed_card_is_that_of_the_committed_results(tmp_path: Path) -> None:
    results = ROOT / "fer/pretrained/fer2013.json"
    card = write_card(results, tmp_path / "card.md")
    assert card.read_bytes() == (ROOT / "MODEL_CARD.md").read_bytes()
    # What the card says of the training is what the network itself remembers of it.
    checkpoint = load_checkpoint("pretrained")
    training = preferred(json.loads(results.read_text()), "fer2013")
    assert checkpoint.extras["seed"] == training["seed"]
    assert checkpoint.extras["dataset"]["fingerprint"] == training["data"]["fingerprint"]
    assert checkpoint.epoch == training["best_epoch"]
    model = checkpoint.extras["model"]["options"]
    assert model["widths"] == training["config"]["model"]["widths"]


def test_a_card_replaces_nothing_but_an_earlier_card(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps(make_results()))
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(DataError, match=r"an earlier card, found another file: .*README\.md"):
        write_card(tmp_path, tmp_path / "README.md")
    with pytest.raises(DataError, match="found another file"):
        write_card(tmp_path, tmp_path / "study.json")
    assert (tmp_path / "README.md").read_text() == "# Mine"
    for _ in range(2):
        assert write_card(tmp_path, tmp_path / "CARD.md").is_file()
