"""One entry in the registry, and a metric stands in every file, table and page."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.core import labels
from fer.core.errors import ConfigError, DataError
from fer.core.files import write_json
from fer.core.words import NUMBER
from fer.data.manifest import Entry, write_manifest
from fer.data.prepared import REPORTED
from fer.evaluation.compare import compare_paired
from fer.evaluation.metrics import SplitResult, measure, measure_split, measure_subgroups
from fer.evaluation.mistakes import write_predictions
from fer.evaluation.perturbations import Setting
from fer.evaluation.robustness import columns, flatten, measure_robustness
from fer.evaluation.scores import (
    SCORES,
    TABLES,
    on_resamples,
    register_score,
    resampling,
)
from fer.report.evaluation_sections import robustness_curves, subgroups_section
from fer.report.side_by_side_page import write_side_by_side_page
from fer.report.study_page import write_study
from fer.report.study_results import summarise
from fer.report.sweep_page import jobs_table
from fer.report.terminal import print_jobs, print_summary
from fer.runs.plan import Study
from fer.runs.side_by_side import collect, cross_columns
from fer.runs.stages import Measurement, Preparation, Training
from fer.runs.state import State
from fer.runs.sweep import Job, write_table
from tests.conftest import ROOT, data_record, network_record, run_program, run_record, to_png
from tests.report.test_report import Page, make_report

N = 210
BUILT_IN = tuple(SCORES)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(SCORES)
    yield
    SCORES.clear()
    SCORES.update(before)


def top2(target: np.ndarray, probabilities: np.ndarray) -> float:
    """share of images whose emotion is among the two most probable

    Not shown: the second paragraph.
    """
    return float((probabilities.argsort(axis=1)[:, -2:] == target[:, None]).any(axis=1).mean())


def register_top2(**options: Any) -> None:
    register_score("top2", heading="top-2 accuracy", **options)(top2)


def brier(target: np.ndarray, probabilities: np.ndarray) -> float:
    return float(((probabilities - np.eye(7)[target]) ** 2).sum(axis=1).mean())


def guess(seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Targets and float32 probabilities of a network that is often right."""
    rng = np.random.default_rng(seed)
    target = np.arange(n) % 7
    probabilities = rng.dirichlet(np.ones(7), n)
    right = rng.random(n) < 0.5
    probabilities[right, target[right]] += 1
    return target, (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


def metrics_of(seed: int = 0, dataset: str = "faces", split: str = "test") -> Any:
    return measure_split(dataset, split, *guess(seed), np.arange(N) < 10, resamples=100)


def percent_and_interval(row: dict[str, Any], name: str) -> str:
    low, high = row["confidence_intervals"][name]
    return f"{100 * row[name]:.1f} % | {100 * low:.1f}–{100 * high:.1f} %"


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


# --- measuring -----------------------------------------------------------------------------------


def test_a_registered_metric_is_measured_after_the_built_in_ones() -> None:
    register_top2()
    target, probabilities = guess(0)
    found = metrics_of()
    assert [key for key in found if key in SCORES] == [*BUILT_IN, "top2"]
    assert found["top2"] == top2(target, probabilities)
    low, high = found["confidence_intervals"]["top2"]
    assert low < found["top2"] < high
    clean = found["without_leaks"]
    assert clean["top2"] == top2(target[10:], probabilities[10:])
    assert list(clean["confidence_intervals"]) == [*BUILT_IN, "top2"]
    groups = ["a" if index % 2 else "b" for index in range(N)]
    found = measure_subgroups(target, probabilities, {"side": groups}, resamples=100)
    group: Any = found["side"]["a"]
    assert group["top2"] == top2(target[1::2], probabilities[1::2])
    assert "top2" in group["confidence_intervals"]
    json.dumps(found, allow_nan=False)


def share_of_hits(target: np.ndarray, probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == target).mean())


def test_its_interval_is_that_of_the_same_resamples() -> None:
    register_score("hits", tables=TABLES)(share_of_hits)
    target, first = guess(1)
    _, second = guess(2)
    leaked = np.arange(N) < 30
    found: Any = measure_split("faces", "test", target, first, leaked, resamples=300, seed=5)
    for part in (found, found["without_leaks"]):
        intervals = part["confidence_intervals"]
        # Accuracy has an interval of its own; that of resamples is much the same.
        assert intervals["hits"] == pytest.approx(intervals["accuracy"], abs=0.03)
    compared = compare_paired(target, first, second, resamples=300, seed=5)
    assert compared["difference"]["hits"] == compared["difference"]["accuracy"]
    intervals = compared["confidence_intervals"]
    assert intervals["hits"] == pytest.approx(intervals["accuracy"], abs=0.03)


def test_the_fast_way_of_a_built_in_score_is_its_function_on_each_resample() -> None:
    target, probabilities = guess(3)
    (weights,) = resampling(N, 20, 0)
    found = on_resamples(list(SCORES.values()), target, probabilities)(weights)
    for name, score in SCORES.items():
        assert score.formula is not None or name == "expected_calibration_error"
        for value, counts in zip(found[name], weights.astype(int), strict=True):
            rows = np.repeat(np.arange(N), counts)
            assert value == pytest.approx(score(target[rows], probabilities[rows]), abs=1e-12)


def test_another_metric_leaves_the_built_in_ones_as_they_are() -> None:
    @register_score("in_place")
    def in_place(target: np.ndarray, probabilities: np.ndarray) -> float:
        target[:] = 0
        probabilities[:] = 0
        return 0.5

    with_it = metrics_of()
    del SCORES["in_place"]
    without = metrics_of()
    assert list(without) == [key for key in with_it if key != "in_place"]
    for part in (with_it, with_it["without_leaks"]):
        del part["in_place"], part["confidence_intervals"]["in_place"]
    assert with_it == without


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Kappa", "cohen kappa", "", "2nd", "über", "a-b", "_x", "kappa\n"]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name of lower-case letters"):
        register_score(name)(top2)


@pytest.mark.parametrize(
    "name",
    ["dataset", "split", "samples", "per_class", "without_leaks", "recall_angry", "accuracy_low",
     "drop_macro_f1", "accuracy_adjusted"],
)  # fmt: skip
def test_a_name_that_a_file_uses_already_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"metric {name}: expected .* found a key or column {name} there"
    ):
        register_score(name)(top2)
    assert tuple(SCORES) == BUILT_IN


def test_every_key_beside_the_scores_is_reserved() -> None:
    study = json.loads((ROOT / "fer/pretrained/fer2013.json").read_text())
    own = {name for row in study["evaluations"] for name in row["metrics"]}
    own |= {name for row in study["summary"] for name in row} | set(metrics_of())
    rows = [row for one in study["evaluations"] for row in one.get("robustness", [])]
    own |= {key for row in rows for key in row} | set(columns()) | set(cross_columns())
    for name in sorted(own - set(BUILT_IN)):
        with pytest.raises(ConfigError):
            register_score(name)(top2)


def test_one_name_has_one_function() -> None:
    register_top2()
    with pytest.raises(ConfigError, match=r"metric top2: .*found .*brier beside .*top2\. Give"):
        register_score("top2")(brier)
    with pytest.raises(ConfigError, match=r"found .*top2 beside fer\.evaluation\.scores\.accuracy"):
        register_score("accuracy")(top2)
    assert SCORES["top2"].function is top2


def test_a_module_may_be_imported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metrics_here.py").write_text(
        "from fer.evaluation.scores import register_score\n"
        "@register_score('own')\n"
        "def own(target, probabilities):\n    return 0.25\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("own_metrics_here")
    first = SCORES["own"].function
    importlib.reload(module)
    assert SCORES["own"].function is module.own is not first
    assert tuple(SCORES) == (*BUILT_IN, "own")
    del sys.modules["own_metrics_here"]


def test_a_table_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected tables among cards, .*, found poster"):
        register_score("top2", tables=["cards", "poster"])(top2)


@pytest.mark.parametrize(
    ("value", "found"),
    [(float("nan"), "nan"), (float("inf"), "inf"), ("0.5", "'0.5'"), (None, "None"),
     (np.array([0.5]), r"array\(\[0.5\]\)")],
)  # fmt: skip
def test_a_metric_that_gives_no_number_is_named(value: Any, found: str) -> None:
    @register_score("broken")
    def broken(target: np.ndarray, probabilities: np.ndarray) -> Any:
        return value

    message = rf"faces, split val: metric broken: .* 210 images, found {found}\. Return 0\.0.*mend"
    with pytest.raises(DataError, match=message):
        metrics_of(split="val")


def test_a_metric_that_fails_is_named_with_its_error() -> None:
    @register_score("failing")
    def failing(target: np.ndarray, probabilities: np.ndarray) -> float:
        raise KeyError("fear is missing")

    with pytest.raises(DataError, match=r"split test: metric failing: .*KeyError.*fear") as caught:
        metrics_of()
    causes = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(type(error))
        error = error.__cause__
    assert causes == [DataError, DataError, KeyError]


def test_a_metric_that_a_resample_or_a_group_breaks_is_named() -> None:
    @register_score("needs_all")
    def needs_all(target: np.ndarray, probabilities: np.ndarray) -> float:
        return 1.0 if len(set(target)) == 7 else float("nan")

    with pytest.raises(DataError, match=r"metric needs_all: .*found nan.*resamples"):
        measure(np.arange(7), np.eye(7), resamples=100)
    target, probabilities = guess(0)
    emotions = [labels.EMOTIONS[index] for index in target]
    with pytest.raises(DataError, match="emotion angry: metric needs_all"):
        measure_subgroups(target, probabilities, {"emotion": emotions}, resamples=100)


# --- a run ---------------------------------------------------------------------------------------


def test_a_runs_page_shows_it_with_its_interval(tmp_path: Path) -> None:
    register_top2()
    metrics = metrics_of()
    source = make_report(tmp_path, metrics=metrics, val=metrics_of(1, split="val"))
    rows = {row[0].split(" | ")[0]: row for row in Page(source).tables["headline"]}
    name, test, clean, val = rows["Top-2 accuracy"]
    assert name.endswith(" | share of images whose emotion is among the two most probable")
    assert test == percent_and_interval(metrics, "top2")
    assert clean == percent_and_interval(metrics["without_leaks"], "top2")
    assert val == percent_and_interval(metrics_of(1), "top2")
    cards = source[: source.index(">Results</h2>")]
    assert "Top-2 accuracy" in cards and f"{100 * metrics['top2']:.1f} %" in cards


def test_a_page_of_a_run_that_is_older_than_the_metric_has_a_dash(tmp_path: Path) -> None:
    metrics = metrics_of()
    register_top2()
    page = Page(make_report(tmp_path, metrics=metrics, val=None))
    rows = {row[0].split(" | ")[0]: row[1:] for row in page.tables["headline"]}
    assert rows["Top-2 accuracy"] == ["–", "–"]


def test_a_page_without_the_metric_ignores_it_in_a_file(tmp_path: Path) -> None:
    register_top2()
    metrics = metrics_of()
    del SCORES["top2"]
    source = make_report(tmp_path, metrics=metrics, val=None)
    assert "op-2 accuracy" not in source and "top2" not in source


def test_a_table_of_groups_shows_it() -> None:
    register_top2()
    groups = ["a" if index % 2 else "b" for index in range(N)]
    found: Any = measure_subgroups(*guess(0), {"side": groups}, resamples=100)
    header, first, _ = Page(str(subgroups_section(found))).tables["group-side"]
    cell = first[header.index("Top-2 accuracy")]
    assert cell == percent_and_interval(found["side"]["a"], "top2")


def test_the_terminal_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register_top2()
    register_score("brier", heading="Brier [score]", format=NUMBER)(brier)
    target, probabilities = guess(0)
    images = np.zeros((N, 2, 2, 1), np.uint8)
    metrics = metrics_of()
    result = SplitResult(metrics, images, target, probabilities, [])
    print_summary(tmp_path, result, result, [])
    lines = capsys.readouterr().out.splitlines()
    low, high = metrics["confidence_intervals"]["top2"]
    (line,) = (line for line in lines if "top-2 accuracy" in line)
    assert line.count(f"{100 * metrics['top2']:.2f} %") == 2
    assert f"{100 * low:.2f}–{100 * high:.2f} %" in line
    assert any("Brier [score]" in line and f" {metrics['brier']:.4f} " in line for line in lines)


# --- sweeps --------------------------------------------------------------------------------------


def job(number: int, metrics: dict[str, Any] | None) -> Job:
    validation = metrics or {"accuracy": 0.5, "macro_f1": 0.4}
    run: Any = run_record(validation=validation)
    tested: Any = {"split": "test", "accuracy": 0.5, "macro_f1": 0.4, **(metrics or {})}
    return Job(number, str(number), ["seed=1"], State.FINISHED, run=run, metrics=tested)


def test_the_table_of_a_sweep_has_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(0, None), job(1, metrics_of())]  # the first is older than the metric
    assert list_columns(tmp_path, jobs)[:6] == [
        "job", "status", "val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1",
    ]  # fmt: skip
    register_top2()
    jobs[1] = job(1, metrics_of())
    assert list_columns(tmp_path, jobs)[:8] == [
        "job", "status", "val_accuracy", "val_macro_f1", "val_top2",
        "test_accuracy", "test_macro_f1", "test_top2",
    ]  # fmt: skip
    old, new = read_table(tmp_path / "sweep.csv")
    assert old["val_top2"] == old["test_top2"] == "" and old["val_accuracy"] == "0.5"
    assert float(new["val_top2"]) == float(new["test_top2"]) == metrics_of()["top2"]
    monkeypatch.setenv("COLUMNS", "200")
    print_jobs(tmp_path, "Jobs", jobs_table(jobs, []))
    shown = capsys.readouterr().out
    assert "val top-2 accuracy" in shown and "test top-2 accuracy" in shown
    assert shown.count(f"{100 * metrics_of()['top2']:.2f} %") == 2


def list_columns(folder: Path, jobs: list[Job]) -> list[str]:
    write_table(folder / "sweep.csv", jobs, [])
    return (folder / "sweep.csv").read_text().splitlines()[0].split(",")


# --- side by side --------------------------------------------------------------------------------


def write_evaluation(folder: Path, trained_on: str, measured_on: str, seed: int) -> Path:
    """The files of an evaluation that the pages of several read."""
    target, probabilities = guess(seed)
    metrics = metrics_of(seed, measured_on)
    write_json(folder / "metrics.json", metrics)
    run = run_record(
        checkpoint=network_record(trained_on, sha256=trained_on), dataset=data_record(measured_on)
    )
    write_json(folder / "run.json", run)
    ids = [str(index) for index in range(N)]
    write_predictions(folder / "predictions.csv", ids, target, probabilities)
    return folder


def write_evaluations(folder: Path) -> Path:
    for number, (here, there) in enumerate((("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"))):
        (folder / str(number)).mkdir(parents=True)
        write_evaluation(folder / str(number), here, there, number)
    return folder


def collected(folder: Path) -> tuple[list[dict[str, str]], list[dict[str, Any]], Page]:
    """``cross_dataset.csv``, ``comparison.json`` and the page of evaluations side by side."""
    collection = collect(folder)
    assert collection is not None
    page = write_side_by_side_page(folder, collection).read_text()
    comparison = json.loads((folder / "comparison.json").read_text())
    return read_table(folder / "cross_dataset.csv"), comparison, Page(page)


def test_evaluations_side_by_side_show_it(tmp_path: Path) -> None:
    before = cross_columns()
    register_top2()
    rows, comparison, page = collected(write_evaluations(tmp_path))
    added = ["top2", "top2_low", "top2_high", "drop_top2"]
    assert [name for name in rows[0] if name not in before] == added
    assert [name for name in rows[0] if name in before] == list(before)
    home, away = metrics_of(0), metrics_of(1)
    assert float(rows[1]["top2"]) == away["top2"]
    low, high = away["confidence_intervals"]["top2"]
    assert (float(rows[1]["top2_low"]), float(rows[1]["top2_high"])) == (low, high)
    assert float(rows[1]["drop_top2"]) == home["top2"] - away["top2"]
    assert rows[0]["drop_top2"] == ""
    assert comparison[0]["difference"]["top2"] == metrics_of(2)["top2"] - home["top2"]
    low, high = comparison[0]["confidence_intervals"]["top2"]
    assert low < comparison[0]["difference"]["top2"] < high
    header, _, second, *_ = page.tables["cross"]
    assert second[header.index("Top-2 accuracy")] == percent_and_interval(away, "top2")
    lost = f"{100 * (home['top2'] - away['top2']):.1f}".replace("-", "−")
    assert second[header.index("Top-2 accuracy lost")] == lost
    header, first, *_ = page.tables["comparison"]
    difference = f"{100 * comparison[0]['difference']['top2']:+.1f}".replace("-", "−")
    assert first[header.index("Top-2 accuracy")].startswith(f"{difference} | ")


def test_evaluations_that_are_older_than_the_metric_leave_it_out(tmp_path: Path) -> None:
    write_evaluations(tmp_path)
    register_top2()
    write_evaluation(tmp_path / "1", "a", "b", 1)  # measured anew, its home was not
    rows, comparison, page = collected(tmp_path)
    assert [row["top2"] != "" for row in rows] == [False, True, False, False]
    assert {row["drop_top2"] for row in rows} == {""} and rows[1]["drop_accuracy"] != ""
    assert "top2" in comparison[0]["difference"]  # from predictions.csv, which every file has
    header, first, second, *_ = page.tables["cross"]
    assert first[header.index("Top-2 accuracy")] == "–"
    assert first[header.index("Top-2 accuracy lost")] == "–"
    assert second[header.index("Top-2 accuracy")] == percent_and_interval(metrics_of(1), "top2")


def test_less_of_an_error_is_better(tmp_path: Path) -> None:
    register_score("brier", heading="Brier score", higher_is_better=False, format=NUMBER)(brier)
    rows, _, page = collected(write_evaluations(tmp_path))
    header, _, second, *_ = page.tables["cross"]
    gained = metrics_of(1)["brier"] - metrics_of(0)["brier"]
    shown = second[header.index("Brier score gained")]
    assert shown == f"{gained:.3f}".replace("-", "−")
    assert float(rows[1]["drop_brier"]) == pytest.approx(-gained)  # the table has home minus here


# --- studies -------------------------------------------------------------------------------------


def list_entries(name: str) -> list[Entry]:
    """Of b's test, image 0 stands again in the train of a, and image 1 nearly in its val."""
    hashes = [np.random.default_rng([ord(name), n]).bytes(16).hex() for n in range(N)]
    if name == "b":
        hashes[1] = "f" * 32
    return [
        Entry("x", "happy", "train", "raw", "b 0", phash="0" * 32),
        Entry("y", "happy", "val", "raw", "another", phash="f" * 31 + "0"),
        *(
            Entry(str(n), "happy", "test", "raw", f"{name} {n}", phash=hash)
            for n, hash in enumerate(hashes)
        ),
    ]


def example_of(shape: Any) -> Any:
    """Some value of a shape, as :func:`fer.core.values.misfit` reads it."""
    if isinstance(shape, tuple):
        return example_of(shape[0])
    if isinstance(shape, dict):
        return {key: example_of(one) for key, one in shape.items() if key is not str}
    if isinstance(shape, list):
        return [example_of(one) for one in shape] if len(shape) > 1 else []
    return None if shape is None else shape()


def make_study(folder: Path, seeds: tuple[int, ...] = (0,)) -> Study:
    """The files of a finished study of datasets a and b."""
    names = ["a", "b"]
    preparations, trainings, measurements = [], [], []
    for name in names:
        (folder / name).mkdir(parents=True)
        counts = {split: dict.fromkeys(labels.EMOTIONS, 3) for split in ("train", "val", "test")}
        integrity = example_of(REPORTED) | {
            "dataset": name, "counts": counts, "fingerprint": name * 64, "verdict": "drawn",
            "verdict_text": "Good.",
        }  # fmt: skip
        path = write_json(folder / name / "integrity.json", integrity)
        write_manifest(folder / name / "manifest.csv", list_entries(name))
        preparations.append(Preparation(f"prepare {name}", name, ["x"], path.parent))
    for name in names:
        for seed in seeds:
            place = folder / "train" / f"{name}{seed}"
            (place / "figures").mkdir(parents=True)
            (place / "figures/curves.png").write_bytes(to_png(np.zeros((2, 2), np.uint8)))
            (place / "history.csv").write_text("epoch,seconds\n0,60\n")
            own = {name: metrics_of(seed)[name] for name in SCORES}
            run = run_record(
                validation=own, config={"dataset": {"generator": {}}}, dataset=data_record(name)
            )
            write_json(place / "run.json", run)
            trainings.append(Training(f"train {name}{seed}", name, ["x"], place, seed=seed))
    pairs = [(training, other) for training in trainings for other in names]
    for number, (training, other) in enumerate(pairs):
        name = training.dataset
        place = folder / "evaluate" / f"{name}{training.seed}{other}"
        place.mkdir(parents=True)
        write_evaluation(place, name, other, number)
        metrics = json.loads((place / "metrics.json").read_text())
        write_json(place / "metrics.json", {**metrics, "robustness": damage().summary})
        measurements.append(Measurement(f"{place}", other, ["x"], place, training=training))
    return Study(folder, names, list(seeds), [], [], preparations, trainings, measurements)


def test_a_study_and_its_page_show_it(tmp_path: Path) -> None:
    register_top2()
    page = Page(write_study(make_study(tmp_path), 1).read_text())
    results = json.loads((tmp_path / "study.json").read_text())
    for row, evaluation in zip(results["summary"], results["evaluations"], strict=True):
        metrics = evaluation["metrics"]
        assert row["top2"]["mean"] == metrics["top2"]
        assert row["top2"]["interval"] == metrics["confidence_intervals"]["top2"]
    for table, line, metrics in (
        ("short", 1, metrics_of(0)),
        ("transfer", 2, metrics_of(1)),
    ):
        header, *rows = page.tables[table]
        cell = rows[line - 1][header.index("Top-2 accuracy")]
        assert cell == percent_and_interval(metrics, "top2")
    header, first, *_ = page.tables["training"]
    expected = f"{100 * metrics_of(0)['top2']:.1f} %"
    assert first[header.index("Validation top-2 accuracy")] == expected


def test_a_study_that_is_older_than_the_metric_has_a_dash(tmp_path: Path) -> None:
    study = make_study(tmp_path, (0, 1))
    register_top2()
    write_evaluation(study.measurements[0].folder, "a", "a", 0)  # one of two seeds measured anew
    page = Page(write_study(study, 1).read_text())
    results = json.loads((tmp_path / "study.json").read_text())
    assert all("top2" not in row and row["accuracy"]["sd"] > 0 for row in results["summary"])
    for table, column in (("short", ""), ("transfer", ""), ("training", "Validation ")):
        header, first, *_ = page.tables[table]
        name = f"{column}top-2 accuracy" if column else "Top-2 accuracy"
        assert first[header.index(name)] == "–"


def test_a_model_card_shows_it_and_its_metadata_too() -> None:
    pytest.importorskip("huggingface_hub")
    from fer.report.model_card import render_card
    from tests.report.test_model_card import make_results

    old = make_results(("a", "b"))
    register_top2()
    register_score("brier", heading="Brier score", format=NUMBER)(brier)
    results = make_results(("a", "b"), (0, 1))
    results["trainings"][0]["validation"]["top2"] = 0.875
    card = render_card(results)
    (header,) = (line for line in card.splitlines() if line.startswith("| Network → "))
    assert header.endswith("| Calibration error | Top-2 accuracy | Brier score | Images |")
    found = results["summary"][1]
    (line,) = (line for line in card.splitlines() if line.startswith("| a → b |"))
    assert (
        line.split(" | ")[-3]
        == f"{100 * found['top2']['mean']:.1f} % (± {100 * found['top2']['sd']:.1f})"
    )
    assert line.split(" | ")[-2] == f"{found['brier']['mean']:.3f} (± {found['brier']['sd']:.3f})"
    assert card.splitlines()[card.splitlines().index(header) + 1] == "|---|" + "---:|" * 8
    assert "Top-2 accuracy (trained on a)" in card and "validation accuracy 50.0 %" in card
    assert "macro-F1 40.0 %, top-2 accuracy 87.5 %" in card
    metrics = next(one["metrics"] for one in results["evaluations"] if one["seed"] == 0)
    low, high = metrics["confidence_intervals"]["top2"]
    assert (
        f"top-2 accuracy {100 * metrics['top2']:.1f} % ({100 * low:.1f}–{100 * high:.1f} %)" in card
    )
    card = render_card(old)  # of a study before the metric was registered
    (line,) = (line for line in card.splitlines() if line.startswith("| a → b |"))
    assert line.split(" | ")[-3:-1] == ["–", "–"]
    assert "Top-2 accuracy (trained" not in card


def test_seeds_are_summarised_where_all_have_been_measured() -> None:
    names = {"train_dataset": "a", "test_dataset": "b"}
    old: Any = {**names, "metrics": metrics_of(0)}
    register_top2()
    new: Any = {**names, "metrics": metrics_of(1)}
    assert "top2" not in summarise([old, new])
    found: Any = summarise([new])
    assert found["top2"]["values"] == [new["metrics"]["top2"]]


# --- damage --------------------------------------------------------------------------------------


def damage() -> Any:
    target, probabilities = guess(0)
    images = np.zeros((N, 2, 2, 1), np.uint8)
    setting = Setting("shift", 1, {}, lambda images, draws: images, None, None)
    return measure_robustness(
        [setting], lambda size: images, lambda pictures: guess(1)[1], target,
        [str(index) for index in range(N)], clean=probabilities, dataset="x", resamples=100,
    )  # fmt: skip


def test_damaged_images_are_measured_where_it_asks_for_that() -> None:
    register_top2()
    before = columns()
    assert "top2" not in damage().rows[0] and not any("top2" in name for name in before)
    del SCORES["top2"]
    register_top2(tables=TABLES)
    old = damage()
    clean, damaged = old.rows
    target, probabilities = guess(0)
    assert clean["top2"] == top2(target, probabilities)
    assert damaged["top2"] == top2(target, guess(1)[1])
    assert damaged["delta_top2"] == damaged["top2"] - clean["top2"]
    low, high = damaged["confidence_intervals"]["delta_top2"]
    assert low <= damaged["delta_top2"] <= high
    assert set(old.table()[0]) == set(columns())
    assert "top2" in old.summary["relative_area_mean"]
    figure = robustness_curves({"n": old.rows}, title="t", subtitle="s")
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "accuracy (%)", "macro-F1 (%)", "top-2 accuracy (%)",
    ]  # fmt: skip
    del SCORES["top2"]
    assert set(flatten(damaged)) == set(before)


def test_damage_that_is_older_than_the_metric_leaves_it_out(tmp_path: Path) -> None:
    study, rows = make_study(tmp_path, (0, 1)), damage().rows
    register_top2(tables=TABLES)
    assert set(columns()) - set(flatten(rows[1])) == {
        f"{prefix}top2{end}" for prefix in ("", "delta_") for end in ("", "_low", "_high")
    }
    figure = robustness_curves({"n": rows}, title="t", subtitle="s")
    assert [len(axis.lines) for axis in figure.axes] == [1, 1, 0]
    (header, first, *_) = Page(write_study(study, 1).read_text()).tables["robustness"]
    assert header == ["Perturbation", "Accuracy left", "Macro-F1 left", "Top-2 accuracy left"]
    assert first[0] == "a: shift" and first[1].endswith(" %") and first[3] == "–"


# --- the whole way -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_metric_in_a_module_of_ones_own_goes_the_whole_way(tmp_path: Path) -> None:
    (tmp_path / "my_metrics.py").write_text(
        "from fer.evaluation.scores import register_score\n\n\n"
        '@register_score("top2", heading="top-2 accuracy")\n'
        "def top2(target, probabilities):\n"
        "    best = probabilities.argsort(axis=1)[:, -2:]\n"
        "    return (best == target[:, None]).any(axis=1).mean()\n"
    )
    program = "import my_metrics, fer_lab; raise SystemExit(fer_lab.main())"
    sizes = [
        f"dataset.generator.{split}={n}" for split, n in (("train", 56), ("val", 28), ("test", 28))
    ]
    env = {"PYTHONPATH": str(ROOT)}
    run_program(
        "-c", program, "train", "model.widths=[4,4]", "model.image_size=32",
        "trainer.max_epochs=1", "metrics.resamples=100", "trainer.progress_bar=false",
        "hydra.run.dir=run", *sizes, cwd=tmp_path, env=env,
    )  # fmt: skip
    metrics, run = (
        json.loads((tmp_path / f"run/{n}.json").read_text()) for n in ("metrics", "run")
    )
    assert 0 <= metrics["top2"] <= 1 and "top2" in metrics["confidence_intervals"]
    assert "top2" in run["validation"]
    assert "Top-2 accuracy" in (tmp_path / "run/report.html").read_text()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = [EventAccumulator(str(path.parent)) for path in tmp_path.rglob("events.out*")]
    tags = [tag for one in events for tag in one.Reload().Tags()["scalars"]]
    assert "best/test_top2" in tags and "best/val_top2" in tags
