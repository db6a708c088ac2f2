"""The task of evaluating a checkpoint on one split."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
from omegaconf import DictConfig, OmegaConf

from fer.core.application import locate
from fer.core.composition import own_folders
from fer.core.errors import ConfigError
from fer.core.files import sha256_of_file, write_csv, write_json
from fer.core.hardware import Computing, keep_freed_memory
from fer.core.options import check_options
from fer.core.progress import progress_bar
from fer.data.conversion import describe_left_out
from fer.data.datamodule import EmotionDataModule
from fer.data.ferplus import SecondLabels, check_own_labels, second_labels
from fer.data.images import to_input
from fer.evaluation.calibration import calibrate
from fer.evaluation.inference import measure_network, predict
from fer.evaluation.label_sets import compare_label_sets
from fer.evaluation.metrics import SplitResult, describe_empty, measure_subgroups
from fer.evaluation.mistakes import write_predictions
from fer.evaluation.perturbations import Setting, make_settings
from fer.evaluation.prediction_sets import check_level, measure_sets, selective_accuracy
from fer.evaluation.robustness import columns, measure_robustness
from fer.model.checkpoint import Checkpoint, load_checkpoint
from fer.model.network import NormalisedNetwork
from fer.report.confidence_sections import calibration_section, unsure_section
from fer.report.evaluation_sections import (
    error_rows,
    errors_section,
    label_sets_section,
    robustness_section,
    subgroups_section,
)
from fer.report.page import Section
from fer.report.run_figures import pick_rows, run_section
from fer.report.run_page import write_run_report
from fer.report.terminal import print_summary
from fer.runs.ownership import hold
from fer.runs.provenance import describe_run
from fer.runs.records import STATISTICS, EvaluationRecord
from fer.runs.state import FINISHED, State, state_of
from fer.tasks.assembly import import_networks, make_data, measuring, resolved, with_dataset_of
from fer.tasks.notes import (
    compare_data,
    has_pictures_of,
    notes_on,
    notes_on_published,
    temperature_notes,
)

log = logging.getLogger(__name__)

MANY = 4
"""The most perturbations of which the figure shows every severity, and not only three."""


@dataclass(frozen=True)
class Measured:
    """A checkpoint, the data that it is measured on, and what it answers."""

    cfg: DictConfig
    folder: Path
    checkpoint: Checkpoint
    data: EmotionDataModule
    computing: Computing
    result: SplitResult
    second: SecondLabels | None
    """Other labels of the same images; None if they were not asked for, or are not known."""

    @property
    def network(self) -> NormalisedNetwork:
        """The network of the checkpoint."""
        return self.checkpoint.network

    @property
    def shown(self) -> str:
        """The images in words: dataset and split."""
        return f"{self.data.dataset_name}, {self.cfg.split}"


def evaluate(cfg: DictConfig, folder: Path) -> None:
    """Measure a checkpoint on one split, as ``conf/evaluate.yaml`` says; writes into ``folder``.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    started, begun = time.perf_counter(), datetime.now(timezone.utc)
    check_options(cfg, optional=["dataset"])
    if cfg.prediction_sets is not None and "val" in cfg.split.split("+"):
        raise ConfigError(
            "prediction_sets: expected a split without the validation images, which calibrate the "
            f"sets, found split={cfg.split}. Take split=test."
        )
    settings = configured_settings(cfg)
    measured = measure(cfg, folder)
    cfg, checkpoint = measured.cfg, measured.checkpoint
    data, result = measured.data, measured.result
    notes = notes_on_measured(measured, settings)
    for note in notes:
        log.warning(note)
    sections = measure_more(measured)
    sections.insert(0, calibration_section(folder, result, measured.shown))
    write_predictions(folder / "predictions.csv", result.ids, result.target, result.probabilities)
    if settings:
        sections.append(evaluate_robustness(measured, settings))
    # Written before the maps, which take longest: what was measured is not lost with them.
    write_json(folder / "metrics.json", result.metrics)
    sections += evaluate_mistakes(measured)
    extras = checkpoint.extras
    run: EvaluationRecord = {
        **describe_run(resolved(cfg), data, measured.computing, notes),
        "statistics": STATISTICS,
        "started": begun.isoformat(timespec="seconds"),
        "checkpoint": {
            "path": str(checkpoint.path),
            "sha256": sha256_of_file(checkpoint.path),
            "epoch": checkpoint.epoch,
            "model": extras["model"],
            "dataset": extras["dataset"],
            "seed": extras["seed"],
            "priors": extras.get("priors"),
        },
        "wall_seconds": round(time.perf_counter() - started, 1),
    }
    write_json(folder / "run.json", run)
    write_run_report(
        folder / FINISHED,
        title=f"{checkpoint.network.title}: {extras['dataset']['name']} → {data.dataset_name}",
        subtitle=f"{checkpoint.path.name} measured on the {len(result.target):,} images of "
        f"{data.dataset_name}'s {cfg.split} split.",
        notes=notes,
        metrics=result.metrics,
        provenance=run,
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        data=data.prepared.integrity,
        left_out=describe_left_out(data.left_out),
        sections=[run_section(folder, [result]), *sections],
    )
    print_summary(folder / FINISHED, result, None, notes)


def measure(cfg: DictConfig, folder: Path) -> Measured:
    """Load the checkpoint and its data, and predict the split."""
    import_networks(own_folders())
    checkpoint = load_checkpoint(cfg.checkpoint)
    if cfg.trainer.devices != 1:
        raise ConfigError(
            "trainer.devices: expected 1 here, where a second process would cost more than it "
            f"saves, found {cfg.trainer.devices}. Leave it out."
        )
    keep_freed_memory()
    computing = Computing.find(cfg.trainer.accelerator, cfg.trainer.precision)
    cfg = with_dataset_of(cfg, checkpoint)
    data = make_data(cfg, checkpoint.network)
    data.prepare_data()
    data.setup()
    if cfg.prediction_sets is not None:
        check_level(cfg.prediction_sets, len(data.datasets["val"]))
    second = find_second_labels(cfg, data)
    hold(folder)
    if state_of(folder) is State.FINISHED:  # of an earlier job of the same sweep
        raise ConfigError(
            f"{folder}: expected a folder without a run, found a finished one. Two jobs share it: "
            "leave out hydra.sweep.subdir, or give each job its own."
        )
    result = measure_network(
        checkpoint.network, data, cfg.split, computing, tta=cfg.tta, **measuring(cfg)
    )
    return Measured(cfg, folder, checkpoint, data, computing, result, second)


def find_second_labels(cfg: DictConfig, data: EmotionDataModule) -> SecondLabels | None:
    """What ``votes`` says of the images, if they are FER2013's."""
    if cfg.votes is None:
        return None
    check_own_labels(data.reader, data.dataset_name)
    return second_labels(data.entries(*cfg.split.split("+")), Path(cfg.votes))


def notes_on_measured(measured: Measured, settings: Sequence[Setting]) -> list[str]:
    """Notes for a reader on the measurement, its data and its network."""
    cfg, data, result = measured.cfg, measured.data, measured.result
    empty = describe_empty(result.metrics)
    notes = [] if empty is None else [empty]
    if "val" in cfg.split and has_pictures_of(measured.checkpoint, data):
        notes.append(
            "The best epoch was chosen on validation images that these figures are of: they "
            "flatter it."
        )
    if measured.second is not None:
        notes += measured.second.notes
    elif cfg.votes is not None:
        notes.append(
            "The votes are of FER2013's images, and these are others: they are measured by their "
            "own labels alone."
        )
    if cfg.tta is not None:
        notes.append("Each image and its mirror image are averaged (tta=flip): two passes.")
    return [
        *notes,
        *notes_on(data),
        *compare_data(measured.checkpoint, data),
        *notes_on_published(settings, data.dataset_name, len(result.target)),
    ]


def measure_more(measured: Measured) -> list[Section]:
    """Add to the metrics what is fitted on validation, and the scores of subgroups."""
    cfg, data, result = measured.cfg, measured.data, measured.result
    bootstrap = {"resamples": cfg.metrics.resamples, "seed": cfg.metrics.seed}
    sections = []
    if cfg.temperature_scaling or cfg.prediction_sets is not None:
        val = measure_network(
            measured.network, data, "val", measured.computing, tta=cfg.tta, **measuring(cfg)
        )
    if cfg.prediction_sets is not None:
        result.metrics["prediction_sets"] = measure_sets(
            (val.target, val.probabilities),
            result.target,
            result.probabilities,
            cfg.prediction_sets,
            f"{data.dataset_name}'s val",
        )
        result.metrics["selective"] = selective_accuracy(result.target, result.probabilities)
        own = has_pictures_of(measured.checkpoint, data)
        sections.append(unsure_section(measured.folder, result, measured.shown, own))
    if cfg.temperature_scaling:
        scaling = calibrate(
            (val.target, val.probabilities),
            result.target,
            result.probabilities,
            fitted_on=f"{data.dataset_name}'s val",
            notes=temperature_notes(measured.checkpoint, data.dataset_name, cfg.split),
            **bootstrap,
        )
        result.metrics["temperature_scaling"] = scaling
        for note in scaling["notes"]:
            log.warning(note)
    if measured.second is not None:
        result.metrics["label_sets"] = compare_label_sets(
            result.target,
            measured.second.emotions,
            measured.second.shares,
            result.probabilities,
            name="the majority of FER+'s annotators",
        )
        sections.append(label_sets_section(result.metrics["label_sets"]))
    attributes = data.attributes(cfg.split)
    if attributes:
        subgroups = measure_subgroups(result.target, result.probabilities, attributes, **bootstrap)
        result.metrics["subgroups"] = subgroups
        sections.append(subgroups_section(subgroups))
    return sections


def configured_settings(cfg: DictConfig) -> list[Setting]:
    """The settings of ``perturbation``; none if it is not chosen."""
    severities = cfg.robustness.severities
    if cfg.get("perturbation") is None:
        if severities is not None:
            raise ConfigError(
                "robustness.severities: expected a perturbation beside it, found none. Choose one: "
                "perturbation=stress"
            )
        return []
    return make_settings(
        resolved(cfg.perturbation),
        None if severities is None else list(severities),
        functools.partial(locate, "perturbation"),
    )


def evaluate_robustness(measured: Measured, settings: Sequence[Setting]) -> Section:
    """Measure the damaged images; writes ``robustness.json`` and ``robustness.csv``."""
    cfg, folder, result = measured.cfg, measured.folder, measured.result
    network, computing = measured.network, measured.computing

    @functools.cache
    def images(size: int | None) -> np.ndarray:
        if size in (None, network.image_size):
            return result.images
        return measured.data.images(cfg.split, size)

    def answer(pictures: np.ndarray) -> np.ndarray:
        return predict(
            network,
            fit_input(pictures, network.image_size),
            device=computing.device,
            precision=computing.precision,
            batch_size=cfg.loader.eval_batch_size,
            tta=cfg.tta,
        )

    with progress_bar("Damaged images") as progress:
        found = measure_robustness(
            settings,
            images,
            answer,
            result.target,
            result.ids,
            clean=result.probabilities,
            dataset=measured.data.dataset_name,
            seed=cfg.robustness.seed,
            resamples=cfg.metrics.resamples,
            bootstrap_seed=cfg.metrics.seed,
            progress=progress,
        )
    write_json(folder / "robustness.json", found.rows)
    write_csv(folder / "robustness.csv", columns(), found.table())
    result.metrics["robustness"] = found.summary
    faces = pick_rows(result.target)
    ids = [result.ids[row] for row in faces]
    examples: dict[str, Sequence[np.ndarray]] = {"undamaged": list(result.images[faces])}
    names = {setting.perturbation for setting in settings}
    for setting in settings:
        if len(names) <= MANY or setting.severity % 2:
            damaged = setting(images(setting.image_size)[faces], ids, cfg.robustness.seed)
            label = f"{setting.perturbation.replace('_', ' ')} {setting.severity}"
            examples[label] = list(fit_input(damaged, network.image_size))
    return robustness_section(folder, found, result, examples, faces, measured.shown)


def fit_input(images: np.ndarray, size: int) -> np.ndarray:
    """Images ``(N, S, S, C)`` uint8 at the network's input size, ``(N, size, size, C)``."""
    channels = images.shape[-1]
    if images.shape[1] == size:
        return images
    return np.stack([to_input(image.squeeze(), size, channels) for image in images])


def evaluate_mistakes(measured: Measured) -> list[Section]:
    """Galleries of mistakes and, where they are asked for, saliency maps (``saliency.json``)."""
    cfg, folder, result = measured.cfg, measured.folder, measured.result
    network, computing, shown = measured.network, measured.computing, measured.shown
    confusions, confident = error_rows(result, **resolved(cfg.errors))
    if cfg.get("saliency") is None:
        return [errors_section(folder, result, shown, confusions, confident, None, None)]
    from fer.evaluation.attribution import saliency_maps  # captum takes a second to import
    from fer.evaluation.saliency import explain, map_options
    from fer.report.saliency_sections import METHOD_NAMES, saliency_section

    options = resolved(cfg.saliency)
    log.info("Saliency maps: %s", ", ".join(options["methods"]))
    generator = cfg.dataset.generator
    explanation = explain(
        network,
        result,
        options,
        generator=None if generator is None else resolved(generator),
        device=computing.device,
    )
    write_json(folder / "saliency.json", explanation.summary)
    preferred = "integrated_gradients"  # the sharpest of those that every pixel has a value in
    methods = explanation.summary["methods"]
    method = preferred if preferred in methods else methods[0]
    rows = np.unique(np.concatenate([*(part for _, part in confusions), confident])).astype(int)
    maps: dict[int, np.ndarray] | None = None
    if len(rows):
        how = map_options(options, computing.device)
        found = saliency_maps(network, result.images[rows], result.preds[rows], method, how)
        # Smoothed: beside a small face, where the mass lies says more than single pixels.
        sigma = result.images.shape[1] / 32
        smooth = [cv2.GaussianBlur(one, (0, 0), sigma) for one in found]
        maps = dict(zip(rows.tolist(), smooth, strict=True))
    return [
        errors_section(folder, result, shown, confusions, confident, maps, METHOD_NAMES[method]),
        saliency_section(folder, explanation, shown),
    ]
