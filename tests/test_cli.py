"""The programs as a user meets them: help, mistakes, messages and exit codes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Row, run_program, write_table


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_help_shows_every_group_with_its_options(program: str, tmp_path: Path) -> None:
    done = run_program(program, "--help", cwd=tmp_path)
    assert "dataset: fer2013, rafdb, synthetic_a, synthetic_b" in done.stdout
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
    arguments = ["-m", "fer.data.prepare", "dataset=fer2013", f"dataset.raw={raw}"]
    done = run_program(*arguments, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "row 2: expected an emotion from 0 to 6, found '9'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "fer2013" / "manifest.csv").exists()
    full = run_program(*arguments, cwd=tmp_path, check=False, env={"HYDRA_FULL_ERROR": "1"})
    assert full.returncode != 0 and "Traceback" in full.stderr


def test_missing_data_is_answered_with_the_places_and_how_to_obtain_it(tmp_path: Path) -> None:
    done = run_program("-m", "fer.data.prepare", "dataset=rafdb", cwd=tmp_path, check=False)
    assert done.returncode != 0
    for text in (str(tmp_path / "data" / "rafdb"), "dataset.raw", "whdeld.cn"):
        assert text in done.stderr


def test_a_dataset_that_may_not_be_passed_on_is_not_downloaded(tmp_path: Path) -> None:
    done = run_program(
        "-m", "fer.data.prepare", "dataset=rafdb", "dataset.download=true", cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "may be passed on" in done.stderr


def test_preparation_alone_reports_what_it_found(tmp_path: Path, tiny_zip: Path) -> None:
    arguments = ["-m", "fer.data.prepare", "dataset=fer2013", f"dataset.raw={tiny_zip}"]
    first = run_program(*arguments, cwd=tmp_path)
    assert "fer2013: 56 images" in first.stdout and "fingerprint" in first.stdout
    manifest = tmp_path / "data" / "fer2013" / "manifest.csv"
    made = manifest.stat().st_mtime_ns
    time.sleep(0.01)
    run_program(*arguments, cwd=tmp_path)
    assert manifest.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_epochs=0", "trainer.max_epochs: expected a whole number from 1, found 0"),
        ("optimizer.lr=-1", "optimizer.lr: expected a number above 0, found -1"),
        ("model.dropout=2", "model.dropout: expected a probability"),
        ("trainer.precision=int4", "trainer.precision: expected one of auto, 32-true"),
        ("early_stopping.patience=0", "early_stopping.patience: expected"),
    ],
)
def test_an_impossible_value_is_named_before_anything_is_trained(
    override: str, message: str, tmp_path: Path, tiny_zip: Path
) -> None:
    done = run_program(
        "train.py", "dataset=fer2013", f"dataset.raw={tiny_zip}", override, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/**/*.ckpt"))


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


def test_evaluation_asks_for_its_checkpoint(tmp_path: Path) -> None:
    done = run_program("evaluate.py", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "checkpoint: expected the path" in done.stderr and "Traceback" not in done.stderr
