"""The whole study in one command: planned, cut off, gone on with, and not done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from fer.core.errors import ConfigError
from fer.core.files import sha256_of_file, write_json
from fer.report.study_results import summarise
from fer.runs.plan import expand, make_study
from fer.runs.records import STATISTICS
from fer.runs.stages import Measurement, Preparation, Stage, check_runs
from fer.tasks.study import (
    count_images,
    count_passes,
    epochs_left,
    run_child,
    run_stages,
    study_task,
)
from tests.conftest import (
    ROOT,
    compose,
    is_held,
    network_record,
    run_program,
    run_record,
    tiny_rows,
    write_zip,
)

TINY = ["train.model.widths=[4,8,8,8]", "train.model.image_size=32", "train.trainer.max_epochs=2",
        "train.loader.batch_size=7", "train.metrics.resamples=100",
        "train.trainer.progress_bar=false", "train.logger=none", "train.dataset.blank=drop",
        "evaluate=['perturbation=blur','tta=flip']",
        "a=fer2013", "raw.a=archive.zip", "b=folder", "raw.b=faces"]  # fmt: skip


def configure(*options: str) -> DictConfig:
    return compose(*expand(options), config="study")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the raw data of two tiny datasets, and a study that was killed and goes on."""
    folder = tmp_path_factory.mktemp("study")
    write_zip(folder / "archive.zip", tiny_rows())
    with zipfile.ZipFile(folder / "archive.zip") as archive:
        archive.extractall(folder / "faces")
    command = [sys.executable, "-m", "fer", "study", *TINY]
    env = {"FER_DATA": str(folder / "data"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **env}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    first = folder / "outputs/study/fer2013_folder/train/fer2013-seed0"
    while process.poll() is None and not (first / "checkpoints/last.ckpt").exists():
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (first / "report.html").exists()
    done = run_program("-m", "fer", "study", *TINY, cwd=folder, env=env)
    assert "goes on   train on fer2013, seed 0" in done.stdout
    assert "done      prepare fer2013" in done.stdout
    return folder


@pytest.mark.slow
def test_a_killed_study_goes_on_to_its_page(place: Path) -> None:
    study = place / "outputs/study/fer2013_folder"
    results = json.loads((study / "study.json").read_text())
    assert [(row["train_dataset"], row["test_dataset"]) for row in results["summary"]] == [
        ("fer2013", "fer2013"), ("fer2013", "folder"),
        ("folder", "fer2013"), ("folder", "folder"),
    ]  # fmt: skip
    for row in results["evaluations"]:
        metrics = json.loads((study / row["folder"] / "metrics.json").read_text())
        assert row["metrics"] == metrics and metrics["split"] == "test"
        assert ("robustness" in row) == (row["train_dataset"] == row["test_dataset"])
    for row in results["trainings"]:
        # The training itself leaves the test split alone.
        assert json.loads((study / row["folder"] / "metrics.json").read_text())["split"] == "val"
    recipes = [row["config"] for row in results["trainings"]]
    for recipe in recipes:
        recipe["trainer"].pop("progress_bar")
    assert recipes[0] == recipes[1]
    assert str(place) not in json.dumps(results)
    page = (study / "report.html").read_text()
    for row in results["summary"]:
        assert f"{100 * row['accuracy']['mean']:.1f} %" in page
    assert (study / "evaluate/cross_dataset.csv").is_file()


@pytest.mark.slow
def test_a_complete_study_is_not_done_again(place: Path) -> None:
    study = place / "outputs/study/fer2013_folder"
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    done = run_program(
        "-m", "fer", "study", *TINY, cwd=place,
        env={"FER_DATA": str(place / "data"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "Nothing to do: all 8 stages are complete" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


@pytest.mark.slow
def test_a_folder_of_another_recipe_or_other_data_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("FER_DATA", str(place / "data"))
    check_runs(make_study(configure(*TINY)).stages)
    with pytest.raises(ConfigError, match=r"with optimizer\.lr=0\.5, found one with"):
        check_runs(make_study(configure(*TINY, "train.optimizer.lr=0.5")).stages)
    integrity = place / "data/folder/integrity.json"
    content = integrity.read_text()
    monkeypatch.setattr(
        "fer.runs.stages.read_json",
        lambda path, shape=None: (
            {"fingerprint": "f" * 64} if path == integrity else json.loads(path.read_text())
        ),
    )
    with pytest.raises(ConfigError, match=r"with the fingerprint of folder=f{64}, found one with"):
        check_runs(make_study(configure(*TINY)).stages)
    assert integrity.read_text() == content


def test_a_stage_that_fails_leaves_out_what_needs_it_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def stage(name: str, *needs: str, fails: bool = False) -> Stage:
        code = f"open({str(tmp_path / name)!r}, 'w').close(); raise SystemExit({3 * fails})"
        return Stage(name, "a", ["-c", code], tmp_path / name / "never", needs)

    stages = [
        stage("prepare"), stage("train a", "prepare", fails=True), stage("train b", "prepare"),
        stage("measure a", "train a"), stage("measure b", "train b"),
    ]  # fmt: skip
    failed = run_stages(stages)
    assert [(one.name, code) for one, code in failed] == [("train a", 3), ("measure a", -1)]
    assert {path.name for path in tmp_path.iterdir()} == {
        "prepare", "train a", "train b", "measure b",
    }  # fmt: skip
    assert "left out: it needs a stage that failed" in capfd.readouterr().out
    assert [one.name for one, _ in run_stages(stages, every=False)] == ["train a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a=fer2014"], "a: expected one of fer2013, ferplus, folder, .*found 'fer2014'"),
        (["b=synthetic_a"], "b: expected another dataset"),
        (["seeds=[]"], "seeds: expected a list"),
        (["seeds=[0,0]"], "seeds: expected a list"),
        (["seeds=[-1]"], "seeds: expected a list"),
        (["seeds=3"], "seeds: expected a list"),
        (["train.seed=3"], "train: expected options of the recipe, found seed=3"),
        (["train.dataset=fer2013"], "train: expected options of the recipe, found dataset"),
        (["train.hydra.run.dir=x"], r"train: expected options of the recipe, found hydra\.run"),
        (["train=3"], "train: expected options"),
        (["train=[x]"], "train: expected options"),
    ],
)
def test_what_cannot_work_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_study(configure(*options))


def test_the_plan_names_every_command(tmp_path: Path) -> None:
    study = make_study(
        configure("a=fer2013", "b=null", "seeds=[3,5]", f"folder={tmp_path}", "train.model=x")
    )
    assert [stage.name for stage in study.stages] == [
        "prepare fer2013",
        "train on fer2013, seed 3",
        "train on fer2013, seed 5",
        "measure fer2013, seed 3, on fer2013",
        "measure fer2013, seed 5, on fer2013",
    ]
    command = study.stages[2].command
    assert command[3:7] == ["dataset=fer2013", "seed=5", "test=false", "model=x"]
    # Before it is prepared, the numbers are those that its authors state.
    study = make_study(configure("a=fer2013", "b=rafdb", f"paths.data={tmp_path}"))
    assert count_images(study.preparations[0]) == {"train": 28_709, "val": 3_589, "test": 3_589}
    assert sum((count_images(study.preparations[1]) or {}).values()) == 15_339


def test_options_of_the_data_reach_every_stage_and_passes_every_measurement(
    tmp_path: Path,
) -> None:
    study = make_study(
        configure("a=fer2013", "b=rafdb", f"folder={tmp_path}", "train.dataset.blank=drop",
                  "train.model.dropout=0.1", "evaluate.tta=flip",
                  "evaluate.robustness.seed=3")
    )  # fmt: skip
    for stage in study.stages:
        measuring = "evaluate" in stage.command
        # In domain it comes with the checkpoint, as every option of the data.
        in_domain = isinstance(stage, Measurement) and stage.in_domain
        named = any(item.startswith("dataset=") for item in stage.command)
        assert named != in_domain, stage.name
        assert ("dataset.blank=drop" in stage.command) != in_domain, stage.name
        assert ("tta=flip" in stage.command) == measuring, stage.name
        assert ("robustness.seed=3" in stage.command) == in_domain, stage.name
    with pytest.raises(ConfigError, match=r"Set it as train\.dataset\.blank=drop"):
        make_study(configure("evaluate.dataset.blank=drop"))


@pytest.mark.slow
def test_a_study_is_of_like_measurements(place: Path) -> None:
    study = place / "outputs/study/fer2013_folder"
    results = json.loads((study / "study.json").read_text())
    for one in results["evaluations"]:
        run = json.loads((study / one["folder"] / "run.json").read_text())
        assert one["metrics"]["tta"] == "flip" and run["config"]["dataset"]["blank"] == "drop"
        in_domain = one["train_dataset"] == one["test_dataset"]
        assert ("robustness" in one) == in_domain != ("shared" in one)
        assert one["data"]["fingerprints"] == next(
            row["data"]["fingerprints"] for row in results["trainings"]
            if row["dataset"] == one["test_dataset"]
        )  # fmt: skip
    page = (study / "report.html").read_text()
    assert "Not every score" not in page and "two passes" in page
    assert len(json.loads((study / "evaluate/comparison.json").read_text())) == 2


def test_a_training_goes_on_with_the_recipe_that_the_study_states(tmp_path: Path) -> None:
    """So that one of another recipe, cut off in the same folder, is refused."""
    run = tmp_path / "train/synthetic_a-seed0"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").touch()
    cfg = configure("a=synthetic_a", "b=null", f"folder={tmp_path}", "train.optimizer.lr=3e-4",
                    "train.++dataset.blank=drop")  # fmt: skip
    prepared, training, *_ = make_study(cfg).stages
    assert training.begun and training.command[-1].startswith("resume=")
    for item in ("dataset=synthetic_a", "seed=0", "test=false", "optimizer.lr=3e-4"):
        assert item in training.command
    assert "++dataset.blank=drop" in prepared.command


@pytest.mark.parametrize(
    ("saved", "given", "message"),
    [
        ([], ["optimizer.lr=0.5"], r"with the same options, found one without optimizer\.lr=0\.5"),
        (["optimizer.lr=0.5"], [], r"with the same options, found one with optimizer\.lr=0\.5"),
        (["dataset.download=true"], ["optimizer.lr=0.5"], r"found one without optimizer"),
        (["dataset.download=true", "figures.format=svg"], [], None),
        ([], ["dataset.workers=1"], None),
    ],
)
def test_what_cannot_go_on_is_refused_before_the_others_are_trained(
    saved: list[str], given: list[str], message: str | None, tmp_path: Path
) -> None:
    own = configure("b=null", f"folder={tmp_path}", *(f"train.{item}" for item in given))
    (stage,) = make_study(own).trainings
    (stage.folder / "checkpoints").mkdir(parents=True)
    (stage.folder / "checkpoints/last.ckpt").touch()
    write_json(
        stage.folder / ".hydra/overrides.yaml",
        ["dataset=synthetic_a", "seed=0", "test=false", *saved, "paths.data=elsewhere"],
    )
    study = make_study(own)
    assert epochs_left(study.trainings[0]) == 14  # all: it may have no history yet
    if message is None:
        check_runs(study.stages)
    else:
        with pytest.raises(ConfigError, match=message):
            check_runs(study.stages)


def test_the_form_of_figures_reaches_every_stage(tmp_path: Path) -> None:
    study = make_study(configure(f"folder={tmp_path}", "figures.format=svg"))
    assert all("figures.format=svg" in stage.command for stage in study.stages)
    with pytest.raises(ConfigError, match=r"figures\.format: expected"):
        study_task(configure("figures.format=gif"), tmp_path)


def test_an_evaluation_is_done_with_its_checkpoint_options_and_statistics_alone(
    tmp_path: Path,
) -> None:
    (stage,) = make_study(configure("b=null", f"folder={tmp_path}")).measurements
    path = stage.training.checkpoint
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    checkpoint = network_record("x", sha256=sha256_of_file(path))
    record = run_record(checkpoint=checkpoint, statistics=STATISTICS)
    overrides = [item for item in stage.command if "=" in item]

    def is_done(record: dict[str, Any], overrides: list[str]) -> bool:
        write_json(stage.folder / "run.json", record)
        write_json(stage.folder / ".hydra/overrides.yaml", overrides)
        return stage.done

    assert not is_done(record, overrides)  # without its page
    (stage.folder / "report.html").touch()
    assert is_done(record, overrides)
    inert = ["dataset.raw=x", "dataset.download=true", "dataset.workers=1", "figures.format=svg"]
    assert is_done(record, [*overrides, *inert])
    assert not is_done(record, [*overrides, "tta=flip"])
    assert not is_done(record | {"statistics": STATISTICS - 1}, overrides)
    # One of a version that said neither this nor other things that are read of today's.
    dataset = {"fingerprint": record["dataset"]["fingerprint"]}
    network = {"path": "x.ckpt", "dataset": {"name": "x"}}
    older = record | {"dataset": dataset, "checkpoint": network}
    del older["statistics"]
    assert not is_done(older, overrides)
    record = record | {"checkpoint": checkpoint | {"sha256": "0"}, "statistics": STATISTICS}
    assert not is_done(record, overrides)
    (stage.folder / "run.json").write_text("{")  # damaged: it is measured again
    assert not stage.done


def test_a_training_is_the_same_where_the_class_of_its_reader_has_moved(tmp_path: Path) -> None:
    study = make_study(configure("a=fer2013", "b=null", "seeds=[0]", f"folder={tmp_path}"))
    (stage,) = study.trainings
    stage.folder.mkdir(parents=True)
    (stage.folder / "report.html").touch()
    composed = compose("dataset=fer2013", "seed=0", "test=false")
    config = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config, dict)

    def check(reader: str) -> None:
        config["dataset"]["reader"]["_target_"] = reader
        write_json(stage.folder / "run.json", run_record(config=config))
        check_runs(study.stages)

    check("my_package.earlier.FER2013Reader")
    with pytest.raises(ConfigError, match=r"dataset\.reader\._target_=FER2013Reader, .*MyReader"):
        check("my_package.MyReader")


def test_a_finished_run_on_another_copy_of_the_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(configure("a=fer2013", "b=null", "seeds=[0]", f"folder={tmp_path}"))
    (stage,) = study.trainings
    composed = OmegaConf.to_container(compose(*stage.options), resolve=True)
    stage.folder.mkdir(parents=True)
    (stage.folder / "report.html").touch()
    record = run_record(config=composed)
    write_json(stage.folder / "run.json", record)
    prints = {"fingerprint": record["dataset"]["fingerprint"]}
    monkeypatch.setattr(Preparation, "report", lambda _: prints)
    check_runs(study.stages)
    prints["fingerprint"] = "f" * 64
    with pytest.raises(ConfigError, match=r"with the fingerprint of fer2013=f{64}, found one with"):
        check_runs(study.stages)


def test_the_page_of_something_else_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "report.html").touch()
    with pytest.raises(ConfigError, match="the folder of a study, or a new one, found the page of"):
        study_task(configure("b=null", f"folder={tmp_path}", "plan=true"), tmp_path)


def test_the_report_on_a_folder_that_others_prepared_is_in_its_cache(tmp_path: Path) -> None:
    folder = tmp_path / "fer2013"
    write_json(folder / ".cache/adopted-1/integrity.json", {})

    def found() -> Path:
        study = make_study(configure("a=fer2013", "b=null", f"paths.data={tmp_path}"))
        return study.preparations[0].folder

    assert found() == folder / ".cache/adopted-1"
    (folder / "integrity.json").touch()
    assert found() == folder


def test_a_dataset_with_a_report_of_another_form_is_prepared_again(tmp_path: Path) -> None:
    stage = Preparation("prepare a", "a", ["-c", ""], tmp_path)
    assert not stage.done
    write_json(tmp_path / "integrity.json", {"fingerprint": "f" * 64})
    assert not stage.done
    run_stages([stage])
    assert (tmp_path / "integrity.json").is_file()  # nothing of a dataset's folder is removed


def test_a_command_runs_where_no_pipe_can_be_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnWindows(subprocess.Popen):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            assert "pass_fds" not in options
            super().__init__(*arguments, **options)

    code = "import os; raise SystemExit(3 + ('FER_LIFELINE' in os.environ))"
    assert run_child([sys.executable, "-c", code], os.environ) == 4
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "Popen", OnWindows)
    assert run_child([sys.executable, "-c", code], os.environ) == 3


def test_options_of_the_evaluations_replace_the_studys_own() -> None:
    (found,) = expand(["evaluate.perturbation=blur"])
    assert found.startswith("evaluate=['saliency=standard'") and "stress" not in found
    settings, maps, steps = count_passes([], 5)
    assert (settings, maps, steps) == (0, 0, 0)
    settings, maps, steps = count_passes(["perturbation=stress", "saliency=standard"], 5)
    assert settings == 15
    assert maps == (7 * 16 + 21 * 5 + 4 * 2) * (1 + 16 + 16 + 1)
    assert steps == 64 * 16 * 2 * 2 * 5  # two replacements, two ways, five maps


def test_scores_are_averaged_over_seeds_with_their_spread() -> None:
    def metrics(value: float) -> Any:
        names = (
            "accuracy", "macro_f1", "micro_f1", "balanced_accuracy", "expected_calibration_error",
        )  # fmt: skip
        return {
            "train_dataset": "a",
            "test_dataset": "b",
            "metrics": {
                "samples": 10,
                **dict.fromkeys(names, value),
                "confidence_intervals": {key: [value - 0.1, value + 0.1] for key in names},
            },
        }

    found = summarise([metrics(0.6), metrics(0.7), metrics(0.8)])
    assert found["accuracy"]["mean"] == pytest.approx(0.7)
    assert found["accuracy"]["sd"] == pytest.approx(0.1)
    assert found["accuracy"]["interval"] is None
    alone = summarise([metrics(0.6)])
    assert alone["accuracy"]["sd"] is None
    assert alone["accuracy"]["interval"] == [0.5, 0.7]


@pytest.mark.slow
def test_a_study_that_is_killed_leaves_no_command_behind_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it publish what it measured of an earlier checkpoint."""
    command = [sys.executable, "-m", "fer", "study", "a=synthetic_a", "b=null", "folder=study",
               "train.model.widths=[4,8]", "train.model.image_size=16", "train.logger=none",
               "train.dataset.generator.train=70", "train.dataset.generator.val=28",
               "train.dataset.generator.test=28", "train.metrics.resamples=100",
               "train.early_stopping.patience=null", "train.trainer.max_epochs=40",
               "train.trainer.progress_bar=false", "evaluate.metrics.resamples=100",
               "evaluate.perturbation=blur", "evaluate.saliency.images_per_class=1",
               "evaluate.saliency.sanity.images=7", "evaluate.saliency.faithfulness.images=7",
               ]  # fmt: skip
    env = {**os.environ, "FER_DATA": "data", "PYTHONPATH": str(ROOT)}
    history = tmp_path / "study/train/synthetic_a-seed0/history.csv"

    def rows() -> int:
        return len(history.read_text().splitlines()) - 1 if history.is_file() else 0

    study = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)  # fmt: skip
    until = time.monotonic() + 200
    while rows() < 3:
        assert study.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    study.kill()
    study.wait()
    while is_held(history.parent):
        assert time.monotonic() < until
        time.sleep(0.05)
    reached = rows()
    assert reached < 40
    time.sleep(0.5)
    assert rows() == reached
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    assert rows() == 40
    first = json.loads((tmp_path / "study/study.json").read_text())
    # Another checkpoint in its place: what was measured of the first one is not kept.
    best = tmp_path / "study/train/synthetic_a-seed0/checkpoints/best.ckpt"
    content = torch.load(best, weights_only=True)
    content["state_dict"]["network.network.head.bias"][3] += 100  # sees happiness alone
    torch.save(content, best)
    done = subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True,
                          text=True)  # fmt: skip
    assert "is of an earlier state, and is measured again" in done.stdout
    again = json.loads((tmp_path / "study/study.json").read_text())
    assert again["evaluations"][0]["metrics"] != first["evaluations"][0]["metrics"]
    done = subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True,
                          text=True)  # fmt: skip
    assert "Nothing to do" in done.stdout
