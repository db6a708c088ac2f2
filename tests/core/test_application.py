"""The programs as a user meets them: help, mistakes, messages and exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fer.core.application import INTERRUPTED, CommandError, chain_of, code_of_signal
from fer.core.command_line import find_mistakes
from fer.core.errors import CheckpointError, ConfigError, FerError
from fer.core.options import check_options
from fer.tasks.assembly import make_data, make_model
from fer.tasks.evaluate import evaluate
from fer.tasks.prepare import prepare_task
from tests.conftest import ROOT, Row, compose, refusal, run_program, write_table
from tests.tasks.test_odd_data import train_here


def test_nothing_heavy_is_imported_before_the_job_starts(tmp_path: Path) -> None:
    program = (
        "import runpy, sys\n"
        "for flag in ('--help', '--cfg=job'):\n"
        "    sys.argv = ['train.py', flag]\n"
        "    try:\n"
        f"        runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "    except SystemExit:\n"
        "        pass\n"
        "print('HEAVY', sorted({'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = run_program("-c", program, cwd=tmp_path)
    assert "cross_entropy*" in done.stdout
    assert done.stdout.count("max_epochs:") == 2  # --help prints the configuration, too
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["dataset=fer2014"], ["fer2013", "rafdb", "synthetic_a"]),
        (["model=shared_cnn_small", "lr=1"], ["found 'lr'", "optimizer", "seed"]),
    ],
)
def test_an_unknown_option_is_answered_with_the_valid_ones(
    overrides: list[str], expected: list[str], tmp_path: Path
) -> None:
    said = refusal("train.py", *overrides, cwd=tmp_path)
    assert all(text in said for text in expected)


def test_each_unknown_option_has_a_line_with_the_valid_ones() -> None:
    mistakes = ["optimizer.lr=[", "model.drop=0.5", "trainer.max_epoch=3", "nope=1", "seed=1"]
    expected = [
        ["optimizer.lr=[: expected key=value"],
        ["found 'drop'", "widths", "dropout"],
        ["found 'max_epoch'", "max_epochs"],
        ["found 'nope'", "experiment", "dataset", "seed"],
    ]
    for line, texts in zip(find_mistakes("train", mistakes), expected, strict=True):
        assert all(text in line for text in texts), line


@pytest.mark.parametrize(
    ("program", "mistake", "meant"),
    [
        ("train.py", "optimizer.lrr=1e-3", "optimizer.lr"),
        ("train.py", "lr=1e-3", "optimizer.lr"),
        ("train.py", "modle=shared_cnn_small", "model"),
        ("train.py", "dataset=fer2031", "fer2013"),
        ("evaluate.py", "checkpont=pretrained", "checkpoint"),
    ],
)
def test_a_typing_error_gets_one_message_that_says_what_was_meant(
    program: str, mistake: str, meant: str, tmp_path: Path
) -> None:
    (said,) = refusal(program, mistake, cwd=tmp_path).splitlines()
    assert f"Did you mean {meant}?" in said and "HYDRA" not in said
    assert not list(tmp_path.iterdir())


def test_a_command_that_fails_before_it_begins_leaves_no_folder(tmp_path: Path) -> None:
    assert len(refusal("train.py", "seed=-1", cwd=tmp_path).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_was_there_before_a_failed_command_stays(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "notes.log").touch()
    for program in (("train.py", "hydra.run.dir=."), ("-m", "fer", "prepare")):
        refusal(*program, "dataset.name=../elsewhere", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {".git", "notes.log"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["-m", "optimizer=sgd,adam", "optimizer.momentum=0.8,0.9"], []),
        (["-m", "model=glob(*)", "optimizer.lrr=1"], ["optimizer.lrr: expected"]),
        (["-m", "optimizer=sgd,nope"], ["optimizer=sgd,nope: expected one of"]),
    ],
)
def test_a_sweep_is_told_its_mistakes_alone(overrides: list[str], expected: list[str]) -> None:
    found = find_mistakes("train", overrides)
    assert [line[: len(text)] for line, text in zip(found, expected, strict=True)] == expected


def test_an_error_that_is_its_own_causes_cause_is_looked_at_once() -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert list(chain_of(one)) == [one, other] and code_of_signal(one) is None
    other.__cause__ = KeyboardInterrupt()
    assert code_of_signal(one) == INTERRUPTED


def test_help_is_of_the_chosen_options_with_their_comments(tmp_path: Path) -> None:
    done = run_program("-m", "fer", "prepare", "dataset=folder", "--help", cwd=tmp_path)
    assert "folder*, rafdb" in done.stdout and "optimizer" not in done.stdout
    assert "test_fraction: 0.2 # held out of train" in done.stdout
    assert "_target_" not in done.stdout.partition("Values")[2].replace("_target_: my", "")


def test_a_pipe_that_closes_early_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    prepare = ["dataset.generator.train=7", "dataset.generator.val=7", "dataset.generator.test=7"]
    for arguments in (
        ["--help"],
        ["train", "--help"],
        ["train", "--cfg=job"],
        ["prepare", *prepare],
    ):
        command = [sys.executable, "-m", "fer", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (141, ""), arguments
    os.close(write)


def test_a_choice_of_nothing_is_answered_with_the_choices(tmp_path: Path) -> None:
    said = refusal("train.py", "optimizer=null", cwd=tmp_path)
    assert "expected one of adam, adamw, muon, sgd" in said


def test_bad_data_ends_in_one_message_without_a_traceback(tmp_path: Path, rows: list[Row]) -> None:
    raw = write_table(tmp_path / "fer2013.csv", rows)
    raw.write_text(raw.read_text().replace("\n0,", "\n9,", 1))
    arguments = ["-m", "fer", "prepare", "dataset=fer2013", f"dataset.raw={raw}"]
    said = refusal(*arguments, cwd=tmp_path)
    assert "expected emotions from 0 to 6, found '9' (1 images)" in said
    assert "the first: fer2013.csv row 2" in said
    assert not (tmp_path / "data" / "fer2013" / "manifest.csv").exists()
    full = run_program(*arguments, cwd=tmp_path, check=False, env={"HYDRA_FULL_ERROR": "1"})
    assert full.returncode != 0 and "Traceback" in full.stderr


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ([], ["{data}", r"dataset\.raw", r"whdeld\.cn"]),
        (["dataset.download=true"], ["may be passed on"]),
    ],
)
def test_missing_data_is_answered_with_the_places_and_how_to_obtain_it(
    options: list[str], messages: list[str], tmp_path: Path
) -> None:
    cfg = compose("dataset=rafdb", *options, config="prepare")
    data = re.escape(str(tmp_path / "data" / "rafdb"))
    messages = [message.format(data=data) for message in messages]
    with pytest.raises(FerError, match="(?s)" + "".join(f"(?=.*{text})" for text in messages)):
        prepare_task(cfg, tmp_path)


@pytest.mark.parametrize("variable", [{}, {"FER_DATA": ""}], ids=["unset", "empty"])
def test_preparation_alone_reports_what_it_found(
    variable: dict[str, str], tmp_path: Path, tiny_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FER_DATA")
    arguments = ["-m", "fer", "prepare", "dataset=fer2013", f"dataset.raw={tiny_zip}"]
    done = run_program(*arguments, cwd=tmp_path, env=variable)
    assert "fer2013: 56 images" in done.stdout and "fingerprint" in done.stdout
    assert (tmp_path / "data" / "fer2013" / "manifest.csv").is_file()


def test_what_is_prepared_is_not_prepared_again(tmp_path: Path, tiny_data: Path) -> None:
    manifest = tmp_path / "data" / "fer2013" / "manifest.csv"
    before = manifest.stat().st_mtime_ns
    cfg = compose("dataset=fer2013", f"dataset.raw={tiny_data}", config="prepare")
    prepare_task(cfg, tmp_path)
    assert manifest.stat().st_mtime_ns == before


WRONG_VALUES = [
    ("trainer.max_epochs=0", "trainer.max_epochs: expected a whole number from 1, found 0"),
    ("trainer.max_epochs=abc", "trainer.max_epochs: .*found 'abc'"),
    ("trainer.devices=0", "trainer.devices: expected a whole number from 1"),
    ("optimizer.lr=-1", "optimizer.lr: expected a number above 0, found -1"),
    ("optimizer.weight_decay=abc", "optimizer.weight_decay: expected a number from 0"),
    ("dataset.epochs=0", "dataset.epochs: expected a whole number from 1, found 0"),
    ("early_stopping.patience=0", "early_stopping.patience: expected"),
    ("early_stopping.min_delta=abc", "early_stopping.min_delta: expected a number"),
    ("early_stopping=null", "early_stopping: expected a choice"),
    ("metrics.resamples=5", "metrics.resamples: expected a whole number from 100"),
    ("seed=5000000000", "seed: expected a whole number from 0 to 4,294,967,295"),
    ("+nope=1", "nope: expected a known option"),
]


@pytest.mark.parametrize(("override", "message"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_what_was_expected(override: str, message: str) -> None:
    cfg = compose(override)
    with pytest.raises(ConfigError, match=message):
        check_options(cfg)


WRONG_NETWORKS = [
    ("model.dropout=2", "model.dropout: expected a probability"),
    ("model.image_size=64.5", "model.image_size: expected a whole number"),
    ("model.in_channels=2", "model.in_channels: expected 1"),
    ("model.widths=5", "model.widths: expected a list"),
    ("+model.num_classes=8", "model.num_classes: expected 7"),
    ("+model.depth=8", "model: expected options that .*SharedCNN accepts, found .*depth=8"),
]


@pytest.mark.parametrize(("override", "message"), WRONG_NETWORKS)
def test_a_wrong_value_of_the_network_is_named_before_any_data_is_read(
    override: str, message: str
) -> None:
    cfg = compose(override)
    check_options(cfg)
    with pytest.raises(ConfigError, match=f"^{message}"):
        make_model(cfg.model)


WRONG_DATA = [
    ("loader.batch_size=2.5", "loader.batch_size: expected a whole number from 1, found 2.5"),
    ("loader.eval_batch_size=0", "loader.eval_batch_size: expected .* from 1, or null .* found 0"),
    ("loader.num_workers=-1", "loader.num_workers: expected a whole number from 0, found -1"),
    ("loader.on_device=gpu", "loader.on_device: expected auto, true or false, found 'gpu'"),
    ("dataset.name=a/b", "dataset.name: expected letters, digits, .* found 'a/b'"),
    ("dataset.folder=", "dataset.folder: expected a path, found ''"),
    ("dataset.raw=", "dataset.raw: expected a path, or null for none, found ''"),
    ("dataset.workers=0", "dataset.workers: expected a whole number from 1, or null"),
    ("dataset.undecodable=keep", "dataset.undecodable: expected one of error, drop, found 'keep'"),
    ("dataset.leaks=drop", "dataset.leaks: expected one of keep, drop_from_train, found 'drop'"),
    ("dataset.blank=2", "dataset.blank: expected one of keep, drop, found 2"),
    ("dataset.conflicts=x", "dataset.conflicts: expected one of keep, drop, found 'x'"),
    ("dataset.accept_altered=1", "dataset.accept_altered: expected true or false, found 1"),
    ("dataset.download=maybe", "dataset.download: expected true or false, found 'maybe'"),
    ("dataset.kaggle=1", "dataset.kaggle: expected a text, or null for none, found 1"),
    ("dataset.reader=x", "dataset.reader: expected a fer.data.readers.base.Reader, .* found 'x'"),
    ("dataset.generator=5", "dataset.generator: expected a choice with its options, or null"),
    ("dataset.reader.val_fraction=1.5", "dataset.reader.val_fraction: expected a share"),
    ("dataset.reader.val_fraction=a", "dataset.reader.val_fraction: expected a share .*'a'"),
    ("dataset.reader.split_seed=-1", "dataset.reader.split_seed: expected a whole number from 0"),
    ("dataset.reader.splits=x", "dataset.reader.splits: expected one of given, official"),
    ("+dataset.reader.nope=1", "dataset.reader: .*nope"),
    ("+dataset.nope=1", "dataset: expected values that it accepts, found: .*nope"),
]


@pytest.mark.parametrize(("override", "message"), WRONG_DATA)
def test_a_wrong_value_of_the_data_is_named_before_anything_is_read(
    override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = compose(override)
    check_options(cfg)
    with pytest.raises(ConfigError, match=f"(?s)^{message}"):
        make_data(cfg, make_model(cfg.model))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "message"),
    [one for one in WRONG_DATA if "loader" not in one[0] and one[0] != "+dataset.nope=1"],
)
def test_preparation_alone_names_a_wrong_value_too(
    override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = compose(override, config="prepare")
    with pytest.raises(ConfigError, match=f"(?s)^{message}"):
        prepare_task(cfg, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_drawn_is_named_before_anything_is_drawn(tmp_path: Path) -> None:
    cfg = compose("dataset.generator.train=3", f"paths.data={tmp_path}")
    data = make_data(cfg, make_model(cfg.model))
    message = (
        r"^dataset.generator.train: expected a whole number from 7 to 1,000,000, found 3\. Set it"
    )
    with pytest.raises(ConfigError, match=message):
        data.prepare_data()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_what_datasets_share_is_no_dataset(tmp_path: Path) -> None:
    said = refusal("train.py", "dataset=base", cwd=tmp_path)
    assert "Choose another dataset than base, which is what the others share" in said
    with pytest.raises(ConfigError, match="Choose another dataset than base"):
        prepare_task(compose("dataset=base", config="prepare"), tmp_path)
    assert not (tmp_path / "data").exists()


def test_the_shipped_values_pass() -> None:
    check_options(compose())
    check_options(compose("dataset=rafdb", config="prepare"))
    check_options(compose("checkpoint=a.ckpt", config="export"))
    check_options(compose("checkpoint=a.ckpt", config="evaluate"), optional=["dataset"])


IMPOSSIBLE = [
    ("metrics.resamples=5", "metrics.resamples: expected a whole number from 100, found 5"),
    ("trainer.precision=int4", "trainer.precision: expected one of auto, 32-true"),
    ("scheduler.warmup=2", "scheduler.warmup: expected a share"),
    ("+optimizer.betas=[0.9,2.0]", "optimizer: expected values that it accepts"),
    ("augmentation.transforms.flip.p=2", "augmentation.transforms.flip"),
    ("hydra.job.chdir=true", "hydra.job.chdir: expected false, found true"),
]


@pytest.mark.parametrize(("override", "message"), IMPOSSIBLE)
def test_an_impossible_value_is_a_message_before_anything_is_trained(
    override: str, message: str, tmp_path: Path, tiny_zip: Path
) -> None:
    with pytest.raises(CommandError, match=re.escape(message)):
        train_here(tmp_path / "run", tiny_zip, override, explain=True)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_message_ends_the_program(tmp_path: Path, tiny_zip: Path) -> None:
    data = ["dataset=fer2013", f"dataset.raw={tiny_zip}"]
    assert IMPOSSIBLE[3][1] in refusal("train.py", *data, IMPOSSIBLE[3][0], cwd=tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "expected a file such as"),
        (lambda path: path.write_bytes(b"not a checkpoint"), "expected a checkpoint"),
        (lambda path: path.mkdir(), "found a folder"),
    ],
    ids=["missing", "garbage", "folder"],
)
def test_a_checkpoint_that_is_none_is_named(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.ckpt"
    make(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        evaluate(compose(f"checkpoint={path}", config="evaluate"), tmp_path / "run")
    assert "model.ckpt" in str(caught.value) and not (tmp_path / "run").exists()


def test_dataset_options_of_an_evaluation_ask_for_the_dataset_first() -> None:
    (line,) = find_mistakes("evaluate", ["checkpoint=a", "dataset.raw=b"])
    assert "Add dataset=NAME, one of: fer2013" in line


def test_evaluation_asks_for_its_checkpoint(tmp_path: Path) -> None:
    assert "checkpoint: expected the path" in refusal("evaluate.py", cwd=tmp_path)
