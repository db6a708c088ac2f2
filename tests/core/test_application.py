"""The programs as a user meets them: help, mistakes, messages and exit codes."""

from __future__ import annotations

import time
from pathlib import Path

import hydra
import pytest

from fer.core.application import config_folder
from fer.core.errors import ConfigError
from fer.core.options import check_options
from tests.conftest import ROOT, Row, run_program, write_table


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_help_shows_every_group_with_its_options(program: str, tmp_path: Path) -> None:
    done = run_program(program, "--help", cwd=tmp_path)
    assert "dataset: fer2013, folder, rafdb, synthetic_a, synthetic_b" in done.stdout
    if program == "train.py":
        for line in (
            "augmentation: none, standard, strong",
            "model: shared_cnn, shared_cnn_small",
            "loss: cross_entropy, focal, weighted",
            "optimizer: adam, adamw, sgd",
            "experiment: exp_a, exp_b",
        ):
            assert line in done.stdout


@pytest.mark.parametrize("flag", ["--help", "--cfg=job"])
def test_nothing_heavy_is_imported_before_the_job_starts(flag: str, tmp_path: Path) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', {flag!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('HEAVY', sorted({'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = run_program("-c", program, cwd=tmp_path)
    assert "HEAVY []" in done.stdout


MISTAKES = [
    (["dataset=fer2014"], ["fer2013", "rafdb", "synthetic_a"]),
    (["model=resnet"], ["shared_cnn", "shared_cnn_small"]),
    (["model.drop=0.5"], ["found 'drop'", "widths", "dropout"]),
    (["trainer.max_epoch=3"], ["found 'max_epoch'", "max_epochs"]),
    (["model=shared_cnn_small", "lr=1"], ["found 'lr'", "optimizer", "seed"]),
    (["optimizer.lr=["], ["optimizer.lr"]),
    (["optimizer=null"], ["expected one of adam, adamw, sgd"]),
    (["nope=1"], ["experiment", "dataset", "seed"]),
]


@pytest.mark.parametrize(("overrides", "expected"), MISTAKES)
def test_an_unknown_option_is_answered_with_the_valid_ones(
    overrides: list[str], expected: list[str], tmp_path: Path
) -> None:
    done = run_program("train.py", *overrides, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for text in expected:
        assert text in done.stderr


def test_bad_data_ends_in_one_message_without_a_traceback(tmp_path: Path, rows: list[Row]) -> None:
    raw = write_table(tmp_path / "fer2013.csv", rows)
    raw.write_text(raw.read_text().replace("\n0,", "\n9,", 1))
    arguments = ["-m", "fer", "prepare", "dataset=fer2013", f"dataset.raw={raw}"]
    done = run_program(*arguments, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "row 2: expected an emotion from 0 to 6, found '9'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "fer2013" / "manifest.csv").exists()
    full = run_program(*arguments, cwd=tmp_path, check=False, env={"HYDRA_FULL_ERROR": "1"})
    assert full.returncode != 0 and "Traceback" in full.stderr


def test_missing_data_is_answered_with_the_places_and_how_to_obtain_it(tmp_path: Path) -> None:
    done = run_program("-m", "fer", "prepare", "dataset=rafdb", cwd=tmp_path, check=False)
    assert done.returncode != 0
    for text in (str(tmp_path / "data" / "rafdb"), "dataset.raw", "whdeld.cn"):
        assert text in done.stderr


def test_a_dataset_that_may_not_be_passed_on_is_not_downloaded(tmp_path: Path) -> None:
    done = run_program(
        "-m", "fer", "prepare", "dataset=rafdb", "dataset.download=true", cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "may be passed on" in done.stderr


def test_preparation_alone_reports_what_it_found(tmp_path: Path, tiny_zip: Path) -> None:
    arguments = ["-m", "fer", "prepare", "dataset=fer2013", f"dataset.raw={tiny_zip}"]
    first = run_program(*arguments, cwd=tmp_path)
    assert "fer2013: 56 images" in first.stdout and "fingerprint" in first.stdout
    manifest = tmp_path / "data" / "fer2013" / "manifest.csv"
    made = manifest.stat().st_mtime_ns
    time.sleep(0.01)
    run_program(*arguments, cwd=tmp_path)
    assert manifest.stat().st_mtime_ns == made


WRONG_VALUES = [
    ("trainer.max_epochs=0", "trainer.max_epochs: expected a whole number from 1, found 0"),
    ("trainer.max_epochs=abc", "trainer.max_epochs: .*found 'abc'"),
    ("trainer.devices=0", "trainer.devices: expected a whole number from 1"),
    ("optimizer.lr=-1", "optimizer.lr: expected a number above 0, found -1"),
    ("optimizer.weight_decay=abc", "optimizer.weight_decay: expected a number from 0"),
    ("model.dropout=2", "model.dropout: expected a probability"),
    ("model.image_size=64.5", "model.image_size: expected a whole number"),
    ("model.in_channels=2", "model.in_channels: expected 1"),
    ("model.widths=5", "model.widths: expected a list"),
    ("+model.num_classes=8", "model.num_classes: expected 7"),
    ("loader.batch_size=2.5", "loader.batch_size: expected a whole number from 1"),
    ("loader.num_workers=-1", "loader.num_workers: expected a whole number from 0"),
    ("dataset.raw=", "dataset.raw: expected a path, or null for none, found ''"),
    ("dataset.workers=0", "dataset.workers: expected a whole number from 1, or null"),
    ("dataset.reader.val_fraction=1.5", "dataset.reader.val_fraction: expected a share"),
    ("dataset.generator.train=3", "dataset.generator.train: expected a whole number from 7"),
    ("dataset.download=maybe", "dataset.download: expected true or false"),
    ("early_stopping.patience=0", "early_stopping.patience: expected"),
    ("early_stopping.min_delta=abc", "early_stopping.min_delta: expected a number"),
    ("early_stopping=null", "early_stopping: expected a choice"),
    ("metrics.resamples=5", "metrics.resamples: expected a whole number from 100"),
    ("seed=5000000000", "seed: expected a whole number from 0 to 4294967295"),
    ("+nope=1", "nope: expected a known option"),
]


@pytest.mark.parametrize(("override", "message"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_what_was_expected(override: str, message: str) -> None:
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        cfg = hydra.compose("train", overrides=[override])
    with pytest.raises(ConfigError, match=message):
        check_options(cfg)


def test_the_shipped_values_pass() -> None:
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        check_options(hydra.compose("train"))
        check_options(hydra.compose("prepare", overrides=["dataset=rafdb"]))
        check_options(hydra.compose("export", overrides=["checkpoint=a.ckpt"]))
        evaluation = hydra.compose("evaluate", overrides=["checkpoint=a.ckpt"])
    check_options(evaluation, optional=["dataset"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("metrics.resamples=5", "metrics.resamples: expected a whole number from 100, found 5"),
        ("trainer.precision=int4", "trainer.precision: expected one of auto, 32-true"),
        ("scheduler.warmup=2", "scheduler.warmup: expected a share"),
        ("+optimizer.betas=[0.9,2.0]", "optimizer: expected values that it accepts"),
        ("augmentation.transforms.flip.p=2", "augmentation.transforms.flip"),
    ],
)
def test_an_impossible_value_ends_the_program_before_anything_is_trained(
    override: str, message: str, tmp_path: Path, tiny_zip: Path
) -> None:
    done = run_program(
        "train.py", "dataset=fer2013", f"dataset.raw={tiny_zip}", override, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/**/*.ckpt"))


def test_an_empty_data_variable_means_the_default_folder(tmp_path: Path, tiny_zip: Path) -> None:
    run_program(
        "-m", "fer", "prepare", "dataset=fer2013", f"dataset.raw={tiny_zip}", cwd=tmp_path,
        env={"FER_DATA": ""},
    )  # fmt: skip
    assert (tmp_path / "data" / "fer2013" / "manifest.csv").is_file()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "expected a file such as"),
        (lambda path: path.write_bytes(b"not a checkpoint"), "expected a checkpoint"),
        (lambda path: path.mkdir(), "found a folder"),
    ],
    ids=["missing", "garbage", "folder"],
)
def test_a_checkpoint_that_is_none_is_named(make: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    make(path)  # type: ignore[operator]
    done = run_program("evaluate.py", f"checkpoint={path}", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert message in done.stderr and "model.ckpt" in done.stderr
    assert "Traceback" not in done.stderr


def test_dataset_options_of_an_evaluation_ask_for_the_dataset_first(tmp_path: Path) -> None:
    done = run_program("evaluate.py", "checkpoint=a", "dataset.raw=b", cwd=tmp_path, check=False)
    assert done.returncode != 0 and "Add dataset=NAME, one of: fer2013" in done.stderr


def test_evaluation_asks_for_its_checkpoint(tmp_path: Path) -> None:
    done = run_program("evaluate.py", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "checkpoint: expected the path" in done.stderr and "Traceback" not in done.stderr
