"""The task of evaluating a checkpoint: everything that ``evaluate.py`` measures on one split."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
from omegaconf import DictConfig, OmegaConf

from fer.core.application import locate, own_folders
from fer.core.errors import ConfigError
from fer.core.files import sha256_of_file, write_csv, write_json
from fer.core.hardware import Computing, keep_freed_memory
from fer.core.options import check_options
from fer.core.progress import progress_bar
from fer.data.datamodule import EmotionDataModule
from fer.data.images import to_input
from fer.evaluation.calibration import calibrate
from fer.evaluation.inference import measure_network, predict
from fer.evaluation.metrics import SplitResult, describe_empty, measure_subgroups
from fer.evaluation.mistakes import write_predictions
from fer.evaluation.perturbations import Setting, make_settings
from fer.evaluation.robustness import Robustness, columns, measure_robustness
from fer.model.checkpoint import load_checkpoint
from fer.model.network import NormalisedNetwork
from fer.report.evaluation_sections import (
    calibration_section,
    error_rows,
    errors_section,
    pick_faces,
    robustness_section,
    subgroups_section,
)
from fer.report.page import Section
from fer.report.run_figures import run_section
from fer.report.run_page import write_run_report
from fer.report.terminal import print_summary
from fer.runs.ownership import hold
from fer.runs.provenance import describe_run
from fer.runs.state import State, state_of
from fer.tasks.assembly import import_networks, make_data, measuring, resolved, with_dataset_of
from fer.tasks.notes import (
    compare_data,
    describe_left_out,
    notes_on,
    notes_on_published,
    temperature_notes,
)

log = logging.getLogger(__name__)

MANY = 4
"""With more perturbations than these, their figure shows three severities of each."""


def evaluate(cfg: DictConfig, folder: Path) -> None:
    """Measure a checkpoint on one split.

    Args:
        cfg: composed from ``conf/evaluate.yaml``.
        folder: of the run; everything is written there.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    started = time.perf_counter()
    begun = datetime.now(timezone.utc)
    check_options(cfg, optional=["dataset"])
    settings = configured_settings(cfg)
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
    network = checkpoint.network
    data = make_data(cfg, network)
    data.prepare_data()
    data.setup()
    shown = f"{data.dataset_name}, {cfg.split}"
    notes = [*notes_on(data), *compare_data(checkpoint, data)]
    if cfg.tta is not None:
        notes.insert(0, "Each image and its mirror image are averaged (tta=flip): two passes.")
    if "val" in cfg.split and checkpoint.extras["dataset"]["name"] == data.dataset_name:
        notes.insert(
            0,
            "The best epoch was chosen on validation images that these figures are of: they "
            "flatter it.",
        )
    hold(folder)
    if state_of(folder) is State.FINISHED:  # of an earlier job of the same sweep
        raise ConfigError(
            f"{folder}: expected a folder without a run, found a finished one. Two jobs share it: "
            "leave out hydra.sweep.subdir, or give each job its own."
        )
    result = measure_network(network, data, cfg.split, computing, tta=cfg.tta, **measuring(cfg))
    metrics = result.metrics
    notes += notes_on_published(settings, data.dataset_name, len(result.target))
    empty = describe_empty(metrics)
    if empty is not None:
        notes.insert(0, empty)
    for note in notes:
        log.warning(note)
    bootstrap = {"resamples": cfg.metrics.resamples, "seed": cfg.metrics.seed}
    if cfg.temperature_scaling:
        val = measure_network(network, data, "val", computing, tta=cfg.tta, **measuring(cfg))
        scaling = calibrate(
            (val.target, val.probabilities),
            result.target,
            result.probabilities,
            fitted_on=f"{data.dataset_name}'s val",
            notes=temperature_notes(checkpoint, data.dataset_name, cfg.split),
            **bootstrap,
        )
        metrics["temperature_scaling"] = scaling
        for note in scaling["notes"]:
            log.warning(note)
    sections = [calibration_section(folder, result, shown)]
    attributes = data.attributes(cfg.split)
    if attributes:
        metrics["subgroups"] = measure_subgroups(
            result.target, result.probabilities, attributes, **bootstrap
        )
        sections.append(subgroups_section(metrics["subgroups"]))
    write_predictions(folder / "predictions.csv", result.ids, result.target, result.probabilities)
    if settings:
        sections.append(
            evaluate_robustness(cfg, folder, settings, network, data, computing, result)
        )
    # Written before the maps, which take longest: what was measured is not lost with them.
    write_json(folder / "metrics.json", metrics)
    sections += evaluate_mistakes(cfg, folder, network, computing, result, shown)
    run = {
        **describe_run(resolved(cfg), data, computing, notes),
        "started": begun.isoformat(timespec="seconds"),
        "checkpoint": {
            "path": str(checkpoint.path),
            "sha256": sha256_of_file(checkpoint.path),
            "epoch": checkpoint.epoch,
            **{key: checkpoint.extras.get(key) for key in ("model", "dataset", "seed", "priors")},
        },
        "wall_seconds": round(time.perf_counter() - started, 1),
    }
    write_json(folder / "run.json", run)
    write_run_report(
        folder / "report.html",
        title=f"{network.title}: {checkpoint.extras['dataset']['name']} → {data.dataset_name}",
        subtitle=f"{checkpoint.path.name} measured on the {len(result.target):,} images of "
        f"{data.dataset_name}'s {cfg.split} split.",
        notes=notes,
        metrics=metrics,
        provenance={key: value for key, value in run.items() if key != "config"},
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        data=data.prepared.integrity,
        left_out=describe_left_out(data),
        sections=[run_section(folder, [result]), *sections],
    )
    print_summary(folder, result, None, notes)


def configured_settings(cfg: DictConfig) -> list[Setting]:
    """What ``perturbation`` asks for; nothing if it is not chosen.

    Raises:
        ConfigError: it cannot work, or severities are chosen without a perturbation.
    """
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


def evaluate_robustness(
    cfg: DictConfig,
    folder: Path,
    settings: list[Setting],
    network: NormalisedNetwork,
    data: EmotionDataModule,
    computing: Computing,
    result: SplitResult,
) -> Section:
    """Measure the damaged images; writes ``robustness.json`` and ``robustness.csv``."""
    shown = f"{data.dataset_name}, {cfg.split}"
    at_size: dict[int, np.ndarray] = {}

    def images(size: int | None) -> np.ndarray:
        if size is None or size == network.image_size:
            return result.images
        if size not in at_size:
            at_size[size] = data.images(cfg.split, size)
        return at_size[size]

    def fit(pictures: np.ndarray) -> np.ndarray:
        return fit_input(pictures, network.image_size)

    with progress_bar("Damaged images") as progress:
        found: Robustness = measure_robustness(
            settings,
            images,
            lambda pictures: predict(
                network,
                fit(pictures),
                device=computing.device,
                precision=computing.precision,
                batch_size=cfg.loader.eval_batch_size,
                tta=cfg.tta,
            ),
            result.target,
            result.ids,
            clean=result.probabilities,
            dataset=data.dataset_name,
            seed=cfg.robustness.seed,
            resamples=cfg.metrics.resamples,
            bootstrap_seed=cfg.metrics.seed,
            progress=progress,
        )
    write_json(folder / "robustness.json", found.rows)
    write_csv(folder / "robustness.csv", columns(), found.table())
    result.metrics["robustness"] = found.summary
    faces = pick_faces(result)
    ids = [result.ids[row] for row in faces]
    examples: dict[str, Sequence[np.ndarray]] = {"undamaged": list(result.images[faces])}
    names = {setting.perturbation for setting in settings}
    for setting in settings:
        if len(names) <= MANY or setting.severity % 2:
            damaged = setting(images(setting.image_size)[faces], ids, cfg.robustness.seed)
            label = f"{setting.perturbation.replace('_', ' ')} {setting.severity}"
            examples[label] = list(fit(damaged))
    return robustness_section(folder, found, result, examples, faces, shown)


def fit_input(images: np.ndarray, size: int) -> np.ndarray:
    """Images ``(N, S, S, C)`` uint8 at the network's input size, ``(N, size, size, C)``."""
    if images.shape[1] == size:
        return images
    channels = images.shape[-1]
    plain = images[..., 0] if channels == 1 else images
    return np.stack([to_input(image, size, channels) for image in plain])


def evaluate_mistakes(
    cfg: DictConfig,
    folder: Path,
    network: NormalisedNetwork,
    computing: Computing,
    result: SplitResult,
    shown: str,
) -> list[Section]:
    """Galleries of mistakes and, where they are asked for, saliency maps (``saliency.json``)."""
    confusions, confident = error_rows(result, **resolved(cfg.errors))
    if cfg.get("saliency") is None:
        return [errors_section(folder, result, shown, confusions, confident, None, None)]
    from fer.evaluation.attribution import saliency_maps  # captum takes a second to import
    from fer.evaluation.saliency import explain
    from fer.report.saliency_figures import METHOD_NAMES
    from fer.report.saliency_sections import saliency_section

    options = resolved(cfg.saliency)
    log.info("Saliency maps: %s", ", ".join(options["methods"]))
    generator = cfg.dataset.generator
    explanation = explain(
        network,
        result.images,
        result.target,
        result.probabilities,
        result.ids,
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
        found = saliency_maps(
            network,
            result.images[rows],
            result.preds[rows],
            method,
            device=computing.device,
            seed=options["seed"],
            **options.get(method, {}),
        )
        # Smoothed: beside a small face, where the mass lies says more than single pixels.
        sigma = result.images.shape[1] / 32
        smooth = [cv2.GaussianBlur(one, (0, 0), sigma) for one in found]
        maps = dict(zip(rows.tolist(), smooth, strict=True))
    return [
        errors_section(folder, result, shown, confusions, confident, maps, METHOD_NAMES[method]),
        saliency_section(folder, explanation, shown),
    ]
