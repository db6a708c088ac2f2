"""The whole study in one command: ``python -m fer.study a=fer2013 b=rafdb``.

A study is a folder of runs of ``train.py`` and ``evaluate.py``, each with the command that anybody
could type. What is complete is not done again; what was cut off goes on.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

import fer
from fer import labels
from fer.cli import compose, config_folder, instantiate, run
from fer.data.files import read_json
from fer.data.prepare import CACHE
from fer.errors import ConfigError, FerError
from fer.options import SEED
from fer.resume import FINISHED, LAST, quote

if TYPE_CHECKING:
    from fer.model.shared_cnn import SharedCNN

log = logging.getLogger(__name__)

OWN = ("dataset", "seed", "test", "resume", "checkpoint", "split", "paths", "hydra")
"""Options that the study sets itself."""
PLACES = (
    *("paths", "resume", "trainer.progress_bar", "logger"),
    *("dataset.raw", "dataset.workers", "dataset.folder"),
)
"""Options that do not change a result: where things are, what is shown."""
STARTING = 8.0
"""Seconds that a command takes before it computes, and for its figures; roughly."""


@dataclass(frozen=True)
class Stage:
    """One command of the study."""

    name: str
    command: list[str]
    """Without the interpreter."""
    done_by: Path
    """The file that it writes last."""
    folder: Path | None = None
    """Of its run."""
    needs: tuple[str, ...] = ()
    """Names of earlier stages."""

    @property
    def done(self) -> bool:
        """Whether it is complete."""
        return self.done_by.is_file()

    @property
    def begun(self) -> bool:
        """Whether a training was cut off and can go on."""
        return not self.done and self.folder is not None and (self.folder / LAST).is_file()

    @property
    def line(self) -> str:
        """The command as one could type it."""
        return shlex.join(["python", *self.command])


@dataclass(frozen=True)
class Evaluation:
    """A network of the study on a dataset."""

    trained_on: str
    seed: int
    measured_on: str
    stage: Stage

    @property
    def at_home(self) -> bool:
        """Whether the network was trained on this dataset."""
        return self.trained_on == self.measured_on


@dataclass(frozen=True)
class Study:
    """What a configuration of ``conf/study.yaml`` asks for."""

    folder: Path
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    options: tuple[str, ...]
    """Of every training."""
    measured: tuple[str, ...]
    """Options of every evaluation of a network on its own dataset."""
    stages: list[Stage]
    trainings: dict[tuple[str, int], Stage]
    """By dataset and seed."""
    evaluations: list[Evaluation]

    @property
    def page(self) -> Path:
        """What the study writes last."""
        return self.folder / FINISHED


# --- what there is to do -----------------------------------------------------------------------


def make_study(cfg: DictConfig) -> Study:
    """The stages, in order.

    Raises:
        ConfigError: a value is not what its key expects.
    """
    datasets = tuple(check_datasets(cfg))
    seeds = tuple(check_seeds(cfg))
    options = tuple(check_list(cfg, "train"))
    measured = check_list(cfg, "evaluate")
    root = Path(fer.__file__).resolve().parent.parent
    if not (root / "train.py").is_file():
        raise ConfigError(
            f"fer.study: expected a checkout, with train.py and evaluate.py beside the package, "
            f"found none in {root}. Clone the repository and run it there."
        )
    folder = Path(cfg.folder or Path(cfg.paths.outputs) / "study" / "_".join(datasets))
    data = f"paths.data={place_of(Path(cfg.paths.data))}"
    raw = {
        name: [] if path is None else [f"dataset.raw={place_of(Path(path))}"]
        for name, path in zip(datasets, (cfg.raw.a, cfg.raw.b), strict=False)
    }
    stages: list[Stage] = []
    prepared: dict[str, Path] = {}
    trainings: dict[tuple[str, int], Stage] = {}
    evaluations: list[Evaluation] = []

    def add(stage: Stage) -> Stage:
        stages.append(stage)
        return stage

    for name in datasets:
        prepared[name] = integrity_file(cfg, name)
        add(
            Stage(
                f"prepare {name}",
                ["-m", "fer.data.prepare", f"dataset={name}", *raw[name], data],
                prepared[name],
            )
        )
    for name in datasets:
        for seed in seeds:
            place = folder / "train" / f"{name}-seed{seed}"
            command = [str(root / "train.py"), f"dataset={name}", f"seed={seed}", "test=false"]
            stage = Stage(
                f"train on {name}, seed {seed}",
                [*command, *options, *raw[name], data, f"hydra.run.dir={place_of(place)}"],
                place / FINISHED,
                place,
                (f"prepare {name}",),
            )
            if stage.begun:
                resumed = [str(root / "train.py"), f"resume={place_of(place)}"]
                stage = Stage(stage.name, resumed, stage.done_by, place, stage.needs)
            trainings[name, seed] = add(stage)
    for name, seed in trainings:
        checkpoint = trainings[name, seed].done_by.parent / "checkpoints/best.ckpt"
        for other in datasets:
            place = folder / "evaluate" / f"{name}-seed{seed}-on-{other}"
            stage = Stage(
                f"measure {name}, seed {seed}, on {other}",
                [
                    str(root / "evaluate.py"),
                    f"checkpoint={place_of(checkpoint)}",
                    # A dataset that is named would lose the options that it was trained with.
                    *([] if other == name else [f"dataset={other}"]),
                    *(measured if other == name else []),
                    data,
                    f"hydra.run.dir={place_of(place)}",
                ],
                place / FINISHED,
                place,
                (trainings[name, seed].name, f"prepare {other}"),
            )
            evaluations.append(Evaluation(name, seed, other, add(stage)))
    return Study(folder, datasets, seeds, options, tuple(measured), stages, trainings, evaluations)


def place_of(path: Path) -> str:
    """A path for a command: relative where it lies below the current folder."""
    here = Path.cwd()
    absolute = path.absolute()
    return quote(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def check_datasets(cfg: DictConfig) -> list[str]:
    """The names of Exp-A's and Exp-B's datasets.

    Raises:
        ConfigError: one does not exist, or both are one.
    """
    known = sorted(path.stem for path in (config_folder() / "dataset").glob("*.yaml"))
    names = [cfg.a] if cfg.b is None else [cfg.a, cfg.b]
    for key, name in zip("ab", names, strict=False):
        if name not in known:
            raise ConfigError(
                f"{key}: expected a dataset ({', '.join(known)}), found {name!r}. "
                f"Set it: {key}=NAME"
            )
    if len(set(names)) != len(names):
        raise ConfigError(
            f"b: expected another dataset than a={cfg.a}, found the same. "
            "Take b=null for one alone."
        )
    return names


def check_seeds(cfg: DictConfig) -> list[int]:
    """Seeds of the trainings.

    Raises:
        ConfigError: they are not different whole numbers from 0.
    """
    seeds = OmegaConf.to_container(cfg.seeds) if OmegaConf.is_list(cfg.seeds) else None
    accept = SEED[1]
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(map(accept, seeds))
        or len(set(seeds)) != len(seeds)
    ):
        raise ConfigError(
            f"seeds: expected a list of different whole numbers from 0, found {cfg.seeds}. "
            "Set it: 'seeds=[0,1,2]'"
        )
    return seeds


def check_list(cfg: DictConfig, key: str) -> list[str]:
    """Options for ``train.py`` or ``evaluate.py``.

    Raises:
        ConfigError: they are no list of ``key=value``, or name what the study sets itself.
    """
    items = OmegaConf.to_container(cfg[key]) if OmegaConf.is_list(cfg[key]) else None
    if not isinstance(items, list) or not all("=" in str(item) for item in items):
        raise ConfigError(
            f"{key}: expected options, found {cfg[key]}. Set them one by one: {key}.KEY=VALUE"
        )
    for item in items:
        name = item.lstrip("+~").partition("=")[0]
        # The whole dataset is the study's; what is done with it, such as dataset.leaks, is not.
        if name in OWN or name.startswith(("hydra.", "paths.", "dataset.raw", "dataset.folder")):
            raise ConfigError(
                f"{key}: expected options of the recipe, found {item}, which the study sets "
                "itself. See its own options: python -m fer.study --help"
            )
    return items


def integrity_file(cfg: DictConfig, name: str) -> Path:
    """Where the integrity report of a dataset is, or will be when it is prepared."""
    dataset = compose(
        "train", [f"dataset={name}", f"paths.data={quote(Path(cfg.paths.data).absolute())}"]
    )
    folder = Path(dataset.dataset.folder)
    # That of a folder that was prepared elsewhere is kept beside it.
    adopted = sorted(folder.glob(f"{CACHE}/adopted-*/integrity.json"))
    own = folder / "integrity.json"
    return adopted[0] if adopted and not own.is_file() else own


def check_same(study: Study) -> None:
    """Refuse a folder whose runs are of another recipe or of other data.

    Raises:
        ConfigError: a finished run was made with other options, or on another copy.
    """
    prints = {}
    for name, stage in zip(study.datasets, study.stages, strict=False):
        if stage.done:
            prints[name] = read_json(stage.done_by)["fingerprint"]
    runs = [(stage, name, seed) for (name, seed), stage in study.trainings.items()]
    for stage, name, seed in runs:
        if not stage.done:
            continue
        assert stage.folder is not None
        saved = read_json(stage.folder / "run.json")
        wanted = compose("train", [f"dataset={name}", f"seed={seed}", "test=false", *study.options])
        for key, value in leaves(OmegaConf.to_container(wanted, resolve=True)):
            if key.startswith(PLACES):
                continue
            found = look_up(saved["config"], key)
            if found is MISSING:  # an option that was not there yet
                continue
            if key.endswith("_target_"):  # a class may have moved since; its name stays
                value, found = (str(name).rpartition(".")[2] for name in (value, found))
            if found != value:
                raise ConfigError(
                    f"{stage.folder}: expected a training with {key}={value}, found one with "
                    f"{key}={found}. Choose another folder for this study: folder=PATH"
                )
    measured = [(one.stage, one.measured_on) for one in study.evaluations]
    for stage, name in [*((stage, name) for stage, name, _ in runs), *measured]:
        if not stage.done or name not in prints:
            continue
        assert stage.folder is not None
        found = read_json(stage.folder / "run.json")["dataset"]["fingerprint"]
        if found != prints[name]:
            raise ConfigError(
                f"{stage.folder}: expected a run on the copy of {name} that is prepared now "
                f"(fingerprint {prints[name][:16]}), found one on another ({found[:16]}). Choose "
                "another folder for this study: folder=PATH"
            )


MISSING = object()


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested mappings with their values; a list is a value.

    >>> list(leaves({"a": {"b": 1}, "c": [2]}))
    [('a.b', 1), ('c', [2])]
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def look_up(node: Any, key: str) -> Any:
    """The value of a dotted key, :data:`MISSING` where there is none."""
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return MISSING
        node = node[part]
    return node


# --- how long it takes -------------------------------------------------------------------------


def estimate(study: Study) -> dict[str, float | None]:
    """Seconds that each stage takes, roughly, from a few measured steps; None: not known."""
    rates: tuple[float, float] | None = None
    counts = {name: count_images(study, name) for name in study.datasets}
    seconds: dict[str, float | None] = {}
    for stage, name in zip(study.stages, study.datasets, strict=False):
        total = counts[name]
        # Reading, checking and drawing: about 1,500 small images a second on one core.
        seconds[stage.name] = None if total is None else STARTING + sum(total.values()) / 1500
    left = [stage for stage in study.stages[len(study.datasets) :] if not stage.done]
    if left:
        rates = measure_rates(study)
    for (name, seed), stage in study.trainings.items():
        own = counts[name]
        if stage.done or own is None or rates is None:
            seconds[stage.name] = None
            continue
        cfg = compose("train", [f"dataset={name}", f"seed={seed}", *study.options])
        epochs = int(cfg.trainer.max_epochs)
        if stage.begun:
            assert stage.folder is not None
            rows = (stage.folder / "history.csv").read_text().count("\n") - 1
            epochs = max(0, epochs - rows)
        each = own["train"] / rates[0] + own["val"] / rates[1]
        seconds[stage.name] = STARTING + epochs * each + own["val"] / rates[1]
    for one in study.evaluations:
        own = counts[one.measured_on]
        if one.stage.done or own is None or rates is None:
            seconds[one.stage.name] = None
            continue
        settings, maps, steps = count_passes(study.measured if one.at_home else ())
        took = own["test"] * (1 + settings) / rates[1] + maps / rates[0] + steps / rates[1]
        seconds[one.stage.name] = STARTING + took
    return seconds


def count_passes(options: Sequence[str]) -> tuple[int, int, int]:
    """What an evaluation asks of the network.

    Returns:
        Damaged versions of each image; images that go forward and back for saliency maps, and
        forward to see whether the maps mean anything.
    """
    from fer.evaluating import configured_settings

    cfg = compose("evaluate", ["checkpoint=none", *options])
    settings = len(configured_settings(cfg))
    asked = cfg.get("saliency")
    if asked is None:
        return settings, 0, 0
    each = {"smoothgrad": asked.smoothgrad.samples}
    each |= {"integrated_gradients": asked.integrated_gradients.steps}
    a_map = sum(each.get(method, 1) for method in asked.methods)
    layers = len(compose("train", []).model.widths) + 1
    images = (
        labels.NUM_CLASSES * asked.images_per_class
        + asked.sanity.images * layers
        + asked.confusions.pairs * asked.confusions.examples
    )
    # Deletion and insertion, by each method and by random maps.
    curves = 2 * (len(asked.methods) + 1)
    return settings, images * a_map, asked.faithfulness.images * asked.faithfulness.steps * curves


def count_images(study: Study, name: str) -> dict[str, int] | None:
    """Images of each split: as prepared, as they will be drawn, or as the authors state them."""
    stage = study.stages[study.datasets.index(name)]
    if stage.done:
        counts = read_json(stage.done_by)["counts"]
        return {split: sum(own.values()) for split, own in counts.items()}
    cfg = compose("train", [f"dataset={name}"]).dataset
    if cfg.generator is not None:
        return {split: int(cfg.generator[split]) for split in ("train", "val", "test")}
    official = instantiate(cfg.reader).official_counts
    if official is None:
        return None
    counts = {split: sum(own.values()) for split, own in official.items()}
    if "val" not in counts:
        held_out = round(counts["train"] * cfg.reader.val_fraction)
        counts |= {"train": counts["train"] - held_out, "val": held_out}
    return counts


def measure_rates(study: Study) -> tuple[float, float]:
    """Images per second of a training step and of prediction, from a second of each."""
    import torch

    from fer.evaluation.predict import predict
    from fer.hardware import AUTOCAST, Computing, keep_freed_memory

    keep_freed_memory()  # as the runs do
    cfg = compose("train", [f"dataset={study.datasets[0]}", *study.options])
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    network: SharedCNN = instantiate(cfg.model)
    network.to(computing.device).to(memory_format=torch.channels_last)
    shape = (cfg.loader.batch_size, network.image_size, network.image_size, network.in_channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    batch = images.to(computing.device).permute(0, 3, 1, 2)
    dtype = AUTOCAST[computing.precision]

    def train() -> None:
        with torch.autocast(computing.device.type, dtype=dtype, enabled=dtype is not None):
            loss = network(batch).float().logsumexp(1).mean()
        loss.backward()
        loss.item()  # waits for the device

    def forward() -> None:
        predict(
            network, images.numpy(), device=computing.device, precision=computing.precision,
            batch_size=len(images),
        )  # fmt: skip

    network.train()
    return len(images) * per_second(train), len(images) * per_second(forward)


def per_second(step: Any, seconds: float = 1.0) -> float:
    """How often ``step`` runs per second, after a first time that does not count."""
    step()
    started, times = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        times += 1
    return times / (time.perf_counter() - started)


def about(seconds: float | None) -> str:
    """A duration in words.

    >>> about(40), about(170), about(8000), about(None)
    ('under a minute', 'about 3 min', 'about 2.2 h', 'unknown')
    """
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return "under a minute"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


# --- the command line --------------------------------------------------------------------------


def expand(arguments: Sequence[str]) -> list[str]:
    """The command line with ``train.KEY=VALUE`` and ``evaluate.KEY=VALUE`` put into their lists.

    An option of the evaluations replaces the study's own of that key.

    Args:
        arguments: of the program, without its name.

    >>> expand(["a=fer2013", "train.model=shared_cnn_small", "train.optimizer.lr=1e-3"])
    ['a=fer2013', "train=['model=shared_cnn_small','optimizer.lr=1e-3']"]
    """
    found: dict[str, list[str]] = {}
    others = []
    for item in arguments:
        key, dot, rest = item.partition(".")
        if dot and key in ("train", "evaluate"):
            found.setdefault(key, []).append(rest)
        else:
            others.append(item)
    for key, items in found.items():
        if key == "evaluate":
            chosen = {item.partition("=")[0] for item in items}
            own = OmegaConf.load(config_folder() / "study.yaml").evaluate
            items[:0] = [item for item in own if item.partition("=")[0] not in chosen]
        others.append(f"{key}=[{','.join(map(as_text, items))}]")
    return others


def as_text(value: str) -> str:
    """A text as Hydra's command line takes it, whatever is in it.

    >>> print(as_text("model.widths=[4,8]"), as_text("a='b'"))
    'model.widths=[4,8]' 'a=\\'b\\''
    """
    escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'"


# --- doing it ----------------------------------------------------------------------------------


def study_task(cfg: DictConfig, _: Path) -> None:
    """Do what is left of a study.

    Raises:
        FerError: a value is wrong, the folder holds another study, or a stage failed.
    """
    study = make_study(cfg)
    check_same(study)
    left = [stage for stage in study.stages if not stage.done]
    print(f"Study of {' and '.join(study.datasets)} in {study.folder}")
    if not left and study.page.is_file():
        print(f"Nothing to do: all {len(study.stages)} stages are complete. {study.page}")
        return
    if left:
        print_plan(study, estimate(study))
    if cfg.plan:
        return
    failed = run_stages(study)
    if failed:
        stage, code = failed[0]
        raise FerError(
            f"{len(failed)} of {len(study.stages)} stages failed, first: {stage.name} (exit code "
            f"{code}; its message stands above). What does not need them is complete. When the "
            "cause is gone, the same command goes on."
        )
    from fer.report.study import write_study  # draws; imported when there is something to draw

    page = write_study(study)
    print(f"The study: {page}")


def print_plan(study: Study, seconds: Mapping[str, float | None]) -> None:
    """What there is to do, and about how long it takes."""
    total, unknown = 0.0, False
    for stage in study.stages:
        if stage.done:
            print(f"  done      {stage.name}")
            continue
        took = seconds[stage.name]
        total += took or 0.0
        unknown |= took is None
        state = "goes on" if stage.begun else "to do"
        print(f"  {state:<9} {stage.name}: {about(took)}")
    more = ", and what is unknown" if unknown else ""
    print(f"In all {about(total)}{more}, by a few steps that were timed now.", flush=True)


def run_stages(study: Study) -> list[tuple[Stage, int]]:
    """Run what is not done; what needs a stage that failed is left out.

    Returns:
        Stages that failed or were left out, with their exit codes (-1: left out).
    """
    failed: list[tuple[Stage, int]] = []
    environment = {**os.environ, "PYTHONPATH": search_path()}
    for number, stage in enumerate(study.stages, start=1):
        if stage.done:
            continue
        print(f"\n[{number}/{len(study.stages)}] {stage.name}\n  {stage.line}", flush=True)
        if any(other.name in stage.needs for other, _ in failed):
            print("  left out: it needs a stage that failed", flush=True)
            failed.append((stage, -1))
            continue
        command = [sys.executable, *stage.command]
        code = subprocess.run(command, env=environment, check=False).returncode
        if code:
            failed.append((stage, code))
    return failed


def search_path() -> str:
    """Where Python looks for modules: this package first, not another one that is installed."""
    root = str(Path(fer.__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


def main() -> None:
    """``python -m fer.study``."""
    run(study_task, "study", expand)


if __name__ == "__main__":
    main()
