"""What the notebooks share: run a command as a user types it, and show what it left behind.

Nothing here imports torch or Jupyter before it is needed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.core.commands import quoted_if_needed
from fer.core.composition import config_folder
from fer.core.errors import ConfigError, DataError, FerError
from fer.core.files import read_json
from fer.core.words import ABSENT, PERCENT, how_many, percent, signed, whole
from fer.report.page import Cell, Table, fragment, read_png
from fer.runs import records
from fer.runs.plan import IN_DOMAIN
from fer.runs.state import State, state_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

    from fer.data.datamodule import EmotionDataModule
    from fer.model.network import NormalisedNetwork

LINES = 12
"""Last lines of a failed command's output that the error repeats."""
LOOK = """<style>
.fer { margin: 0 0 8px; }
.fer .row { display: flex; gap: 12px; align-items: flex-start; }
.fer img { flex: 0 1 auto; min-width: 0; height: auto; background: #fff; }
.fer figcaption { max-width: 100ch; margin: 6px 0 0; font-size: 90%; opacity: .8; }
.fer .scroll { overflow-x: auto; }
.fer table { border-collapse: collapse; margin: 4px 0; font-variant-numeric: tabular-nums; }
.fer .scroll table th, .fer .scroll table td {
  text-align: left; vertical-align: top; padding: 3px 10px;
}
.fer .scroll table .number { text-align: right; white-space: nowrap; }
.fer .scroll thead .number { white-space: normal; }
.fer small { display: block; font-weight: 400; opacity: .75; }
.fer .differs { outline: 2px solid #c04a00; }
.fer .verdict { display: flex; gap: 12px; border-left: 4px solid; padding: 6px 12px; }
.fer .verdict strong { display: block; }
.fer pre { font-size: 85%; overflow-x: auto; }
.fer .notes { margin: 4px 0; }
.fer .tag { font-weight: 600; margin-right: 6px; }
.reveal .fer table { font-size: 105%; }
.reveal .fer .row { justify-content: center; }
.reveal .fer img { margin: 0; max-height: 500px; object-fit: contain; }
.reveal .fer figcaption { max-width: none; font-size: 85%; }
</style>"""
"""Of everything shown: plain enough for light and dark pages, and for slides (``.reveal``)."""


class CommandFailed(FerError, RuntimeError):
    """A program that a notebook started has ended with an error."""


@dataclass(frozen=True)
class Size:
    """How much a notebook computes: options of the commands."""

    data: tuple[str, ...] = ()
    """Of every command that reads a dataset."""
    training: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    """With ``perturbation=stress saliency=standard``."""


TINY = Size(
    # ++: a sweep over datasets has none yet when Hydra reads its options.
    data=(
        "++dataset.generator.train=105",
        "++dataset.generator.val=28",
        "++dataset.generator.test=56",
    ),
    training=(
        "model.widths=[8,16,16,32]",
        "model.image_size=32",
        "trainer.max_epochs=2",
        "logger=none",
        "metrics.resamples=100",
    ),
    evaluation=(
        "metrics.resamples=100",
        "robustness.severities=[3]",
        "saliency.images_per_class=1",
        "saliency.smoothgrad.samples=2",
        "saliency.integrated_gradients.steps=2",
        "saliency.faithfulness.steps=4",
        "saliency.sanity.images=7",
    ),
)
"""To see that a notebook runs; its figures say nothing."""
SHORT = Size(
    training=("model=shared_cnn_small", "model.image_size=48", "trainer.max_epochs=6"),
    evaluation=(
        "robustness.severities=[1,3,5]",
        "saliency.images_per_class=6",
        "saliency.faithfulness.images=21",
        "saliency.sanity.images=7",
    ),
)
"""The drawn faces in about a minute per training."""


def size_of(dataset: str, *, quick: bool) -> Size:
    """How much to compute on a dataset: the recipe as it is on real images.

    >>> size_of("fer2013", quick=False)
    Size(data=(), training=(), evaluation=())
    """
    drawn = dataset.startswith("synthetic")
    if not quick:
        return SHORT if drawn else Size()
    return TINY if drawn else Size((), TINY.training, TINY.evaluation)


def of_data(options: Sequence[str]) -> list[str]:
    """Options of the data among those of a training, for the commands that measure too.

    >>> of_data(["model.dropout=0.1", "dataset.blank=drop"])
    ['++dataset.blank=drop']
    """
    plain = [option.lstrip("+") for option in options]
    return [f"++{option}" for option in plain if option.startswith("dataset.")]


def of_scores(options: Sequence[str]) -> list[str]:
    """Options of ``evaluate.py`` that change the scores themselves, on every dataset.

    >>> of_scores(["tta=flip", "saliency.images_per_class=4"])
    ['tta=flip']
    """
    return [option for option in options if not option.lstrip("+").startswith(IN_DOMAIN)]


def setting(name: str, default: str) -> str:
    """A setting of a notebook: the environment's ``FER_NOTEBOOK_<name>``, else ``default``.

    >>> setting("NOT_SET", "synthetic_a")
    'synthetic_a'
    """
    return os.environ.get(f"FER_NOTEBOOK_{name}") or default


# tqdm asks for ipywidgets when it is imported in a notebook. No bar is drawn in one here.
warnings.filterwarnings("ignore", message="IProgress not found")


# --- commands ----------------------------------------------------------------------------------


def root() -> Path:
    """The folder with ``train.py``: paths are relative to it, wherever a notebook was started.

    Raises:
        ConfigError: the package was installed without its checkout.
    """
    folder = config_folder().parent
    if not (folder / "train.py").is_file():
        raise ConfigError(
            f"notebooks: expected train.py beside the package, found none in {folder}. Install the "
            "package from a checkout of the repository: pip install -e '.[notebooks]'"
        )
    return folder


def data_folder() -> Path:
    """Where prepared datasets are: ``FER_DATA``, else ``data`` in the repository."""
    return root() / (os.environ.get("FER_DATA") or "data")


def command(*arguments: str, folded: bool = False) -> None:
    """Run ``python <arguments>`` in the repository's folder and show it with what it prints.

    Args:
        arguments: of Python.
        folded: show the last line alone while it runs, then a line that unfolds.

    Raises:
        CommandFailed: it ended with an error.
    """
    from IPython.display import HTML, display
    from markupsafe import escape

    print("$ python", shlex.join(arguments), flush=True)
    # What Jupyter sets for its own output would put colours and bars into a file's.
    own = ("FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "MPLBACKEND", "TERM")
    environment = {key: value for key, value in os.environ.items() if key not in own}
    lines = []
    place = display(HTML("<pre>…</pre>"), display_id=True) if folded else None
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=root(),
        env={**environment, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                if place is None:
                    print(line, end="", flush=True)
                else:
                    place.update(HTML(f"<pre>{escape(line)}</pre>"))
        except BaseException:  # the kernel is interrupted: its command goes with it
            process.terminate()
            raise
    if place is not None:
        summary = f"<summary>What it printed ({how_many(len(lines), 'line')})</summary>"
        text = escape("".join(lines))
        place.update(HTML(f'{LOOK}<details class="fer">{summary}<pre>{text}</pre></details>'))
    if process.returncode:
        raise CommandFailed(
            f"python {arguments[0]}: expected it to come to its end, found exit code "
            f"{process.returncode} after:\n{''.join(lines[-LINES:])}Correct what the last lines "
            "name and run this cell again."
        )


def run(program: str, *overrides: str, name: str) -> Path:
    """Run ``train.py`` or ``evaluate.py``, unless the same command has finished before.

    The run folder is ``outputs/notebooks/<name>/<checksum of the command and its inputs>`` (or
    below ``FER_NOTEBOOK_OUTPUTS``): another option is another run. A training that was cut off
    goes on.

    Args:
        program: the script's name.
        overrides: its options.
        name: of the run, for its folder.

    Returns:
        The run folder.

    Raises:
        CommandFailed: it ended with an error.
    """
    folder = root() / setting("OUTPUTS", "outputs/notebooks") / name / _checksum(program, overrides)
    shown = _relative(folder)
    if state_of(folder) is State.FINISHED:
        print("$ python", shlex.join([program, *overrides]))
        print(f"This has finished before: its results in {shown} are used again.")
        return folder
    if program == "train.py" and (folder / ".hydra" / "overrides.yaml").is_file():
        command(program, f"resume={_option(folder)}", folded=True)
    else:
        place = "hydra.sweep.dir" if "-m" in overrides else "hydra.run.dir"
        command(program, *overrides, f"{place}={_option(folder)}", folded=True)
    return folder


def _checksum(program: str, overrides: Sequence[str]) -> str:
    """Of what decides the results: a command, its data folder and checkpoints, the statistics."""
    parts = [program, *overrides, str(data_folder())]
    if program == "evaluate.py":  # what an earlier version measured is not used again
        parts.append(str(records.STATISTICS))
    for item in overrides:
        key, _, value = item.partition("=")
        if key == "checkpoint":
            for path in value.split(","):
                file = root() / path.strip("'\"")
                parts.append(str(file.stat().st_mtime_ns if file.is_file() else None))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def _relative(path: Path) -> Path:
    """``path`` as seen from the repository's folder, if it lies in it."""
    return path.relative_to(root()) if path.is_relative_to(root()) else path


def _option(path: Path) -> str:
    """A path as an option's value: short where nothing in it is special to Hydra."""
    text = _relative(path).as_posix()
    return text if all(c.isalnum() or c in "/_-." for c in text) else quoted_if_needed(path)


def checkpoint_option(*paths: Path) -> str:
    """``checkpoint=A`` for ``evaluate.py``, or ``checkpoint=A,B`` for its ``-m``."""
    return "checkpoint=" + ",".join(map(_option, paths))


# --- showing -----------------------------------------------------------------------------------


def show(*items: Path | Figure | Table, caption: str) -> None:
    """Show pictures beside each other, or tables below each other, with one caption.

    Args:
        items: PNG files and figures, or tables.
        caption: what is seen, and what to look for.

    Raises:
        DataError: a picture cannot be read.
    """
    from IPython.display import HTML, display
    from markupsafe import escape

    tables = [fragment("table", item) for item in items if isinstance(item, Table)]
    pictures = [_picture(item, caption) for item in items if not isinstance(item, Table)]
    # The highest width at which two, three, … fit; one is shown as large as it was drawn.
    images = [
        f'<img src="{picture["uri"]}" alt="{escape(picture["title"])}" style="width: '
        f'{picture["width"] / 1.3:.0f}px; max-width: {100 / len(pictures):.1f}%">'
        for picture in pictures
    ]
    row = f'<div class="row">{"".join(images)}</div>' if images else ""
    content = f"{''.join(tables)}{row}<figcaption>{escape(caption)}</figcaption>"
    display(HTML(f'{LOOK}<figure class="fer">{content}</figure>'))


def _picture(item: Path | Figure, caption: str) -> dict[str, Any]:
    from fer.report.figures import save

    if isinstance(item, Path):
        return {**read_png(item), "title": caption}
    with tempfile.TemporaryDirectory() as place:
        return {**read_png(save(item, Path(place) / "figure.png")), "title": caption}


def show_part(name: str, content: Any) -> None:
    """Show a part of a report: see :func:`fer.report.page.fragment`."""
    from IPython.display import HTML, display

    display(HTML(f'{LOOK}<div class="fer">{fragment(name, content)}</div>'))


def table(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table of texts and numbers; the first column names the rows.

    Args:
        name: of the table.
        columns: headings.
        rows: what has letters is aligned to the left, a number to the right.
    """
    return Table(
        name,
        columns,
        [
            [
                item
                if isinstance(item, Cell)
                else Cell(f"{item:,}" if isinstance(item, int) else str(item), words=_is_text(item))
                for item in row
            ]
            for row in rows
        ],
    )


def _is_text(item: object) -> bool:
    return isinstance(item, str) and any(letter.isalpha() for letter in item)


# --- data --------------------------------------------------------------------------------------


def compose(program: str, *overrides: str) -> DictConfig:
    """The configuration that ``<program>.py`` would have with these options."""
    import hydra

    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return hydra.compose(program, [*overrides, f"paths.data={quoted_if_needed(data_folder())}"])


def load_data(cfg: DictConfig) -> EmotionDataModule:
    """The dataset of a training's configuration, prepared and loaded."""
    from fer.tasks.assembly import make_data, make_model

    data = make_data(cfg, make_model(cfg.model))
    data.prepare_data()
    data.setup()
    return data


def pick_rows(data: EmotionDataModule, split: str = "train") -> list[int]:
    """A row of each emotion in a split, picked by a fixed seed."""
    import numpy as np

    rng = np.random.default_rng(0)
    targets = data.datasets[split].targets
    return [int(rng.choice(np.flatnonzero(targets == i))) for i in sorted(set(targets.tolist()))]


def draw_inputs(data: EmotionDataModule) -> Figure:
    """Training images as they were prepared, and as the network gets them."""
    from fer.report.evaluation_sections import damage_grid

    train, rows = data.datasets["train"], pick_rows(data)
    prepared = [data.prepared.read(int(data.rows["train"][row])) for row in rows]
    height, width = prepared[0].shape[:2]
    channels = {1: "gray", 3: "colour"}[data.in_channels]
    return damage_grid(
        {
            f"prepared, {width} × {height}": prepared,
            f"input, {data.image_size} × {data.image_size} {channels}": list(train.images[rows]),
        },
        train.targets[rows],
        title=f"From the prepared image to the input: {data.dataset_name}",
    )


def draw_augmentations(data: EmotionDataModule, cfg: DictConfig, draws: int = 4) -> Figure:
    """Training images under each transform of the policy alone, then under the whole policy.

    Args:
        data: set up.
        cfg: of the training.
        draws: epochs of the whole policy.
    """
    from fer.data.augmentation import Augmentation, make_transforms
    from fer.report.evaluation_sections import damage_grid

    train, rows = data.datasets["train"], pick_rows(data)
    grid = {"input": list(train.images[rows])}
    names = cfg.augmentation.transforms.keys()
    for name, transform in zip(names, make_transforms(cfg.augmentation), strict=True):
        transform.p = 1.0  # alone, so that it is seen on every face
        alone = Augmentation([transform], cfg.seed)
        grid[str(name)] = [alone(train.images[row], epoch=0, index=row) for row in rows]
    policy = Augmentation(make_transforms(cfg.augmentation), cfg.seed)
    for epoch in range(draws):
        grid[f"all, epoch {epoch}"] = [
            policy(train.images[row], epoch=epoch, index=row) for row in rows
        ]
    return damage_grid(
        grid, train.targets[rows], title=f"Augmented training images: {data.dataset_name}"
    )


def policy_table(cfg: DictConfig) -> Table:
    """The transforms of the augmentation policy with their values."""
    rows = []
    for name, node in cfg.augmentation.transforms.items():
        values = [f"{key} {value}" for key, value in node.items() if key not in ("_target_", "p")]
        kind = node["_target_"].rpartition(".")[2]
        rows.append([name, kind, percent(node["p"]), "; ".join(values) or ABSENT])
    return table("policy", ["Transform", "Class", "Share of images", "Values"], rows)


# --- model and runs ----------------------------------------------------------------------------


def layer_table(network: NormalisedNetwork) -> Table:
    """Each layer with the shape that leaves it for one image, and its parameters."""
    import torch
    from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary

    from fer.model.module import EmotionModule

    module = EmotionModule(network)
    size = network.image_size
    module.example_input_array = torch.zeros(1, network.in_channels, size, size, dtype=torch.uint8)
    summary = ModelSummary(module, max_depth=-1)
    rows: list[list[object]] = [["input", "image", f"{network.in_channels} × {size} × {size}", 0]]
    names = summary.layer_names
    for name, kind, out, parameters in zip(
        names, summary.layer_types, summary.out_sizes, summary.param_nums, strict=True
    ):
        is_leaf = not any(other.startswith(f"{name}.") for other in names)
        if name.startswith("network.network.") and is_leaf:
            shape = " × ".join(map(str, out[1:]))
            rows.append([name.removeprefix("network.network."), kind, shape, parameters])
    rows.append(["all", "", "", network.count_parameters()])
    return table("layers", ["Layer", "Kind", "Output", "Parameters"], rows)


def read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a run."""
    metrics: dict[str, Any] = read_json(folder / "metrics.json")
    return metrics


def score_table(runs: Mapping[str, Path]) -> Table:
    """The scores of runs with their 95 % intervals.

    Args:
        runs: name of a row → run folder.
    """
    from fer.evaluation.scores import shown_in
    from fer.report.score_cells import score_cell

    rows, scores = [], shown_in("cards")
    for name, folder in runs.items():
        found = read_metrics(folder)
        rows.append(
            [
                Cell(name, f"{found['dataset']}, {found['split']}"),
                *(score_cell(found, score) for score in scores),
                Cell(whole(found["samples"])),
            ]
        )
    return Table("scores", ["Run", *(score.title for score in scores), "Images"], rows)


def training_table(runs: Mapping[str, Path]) -> Table:
    """How each training went, and what its best checkpoint holds."""
    from fer.model.checkpoint import load_checkpoint

    rows = []
    for name, folder in runs.items():
        made = read_json(folder / "run.json")
        path = folder / "checkpoints" / "best.ckpt"
        checkpoint = load_checkpoint(path)
        mean, std = checkpoint.network.mean.tolist(), checkpoint.network.std.tolist()
        rows.append(
            [
                name,
                f"{made['best_epoch']} of {made['epochs']}",
                percent(made["validation"]["macro_f1"]),
                f"{made['images_per_second']:,.0f}",
                f"{made['training_seconds']:,.0f}",
                f"{path.stat().st_size / 1e6:.1f} MB",
                " ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, std, strict=True)),
                made["dataset"]["fingerprint"][:12],
            ]
        )
    columns = [
        "Run",
        "Best epoch",
        "Its validation macro-F1",
        "Images/s",
        "Seconds",
        "Checkpoint",
        "Normalisation (mean ± std)",
        "Data fingerprint",
    ]
    return table("trainings", columns, rows)


def file_table(folder: Path) -> Table:
    """What a run has left in its folder."""
    rows = []
    for path in sorted(folder.iterdir()):
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files)
        name = f"{path.name}/" if path.is_dir() else path.name
        rows.append([name, len(files), f"{size / 1e3:,.1f} kB"])
    return table("files", ["In the run folder", "Files", "Size"], rows)


def damage_table(runs: Mapping[str, Path]) -> Table:
    """How much of the scores each perturbation leaves."""
    from fer.evaluation.scores import shown_in
    from fer.report.score_cells import score_cell

    scores = shown_in("robustness")
    areas = {name: read_metrics(folder)["robustness"] for name, folder in runs.items()}
    perturbations = next(iter(areas.values()))["relative_area"]
    rows = [
        [
            Cell(perturbation.replace("_", " ")),
            *(
                score_cell(found["relative_area"][perturbation], score, PERCENT)
                for found in areas.values()
                for score in scores
            ),
        ]
        for perturbation in perturbations
    ]
    columns = [f"{name}: {score.heading} left" for name in areas for score in scores]
    return Table("damage", ["Perturbation", *columns], rows)


def read_cross(folder: Path) -> list[dict[str, str]]:
    """The rows of a sweep's ``cross_dataset.csv``.

    Raises:
        DataError: there is none.
    """
    path = folder / "cross_dataset.csv"
    try:
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise DataError(
            f"{path}: expected the table of several evaluations, found: {error.strerror}. Run "
            "evaluate.py -m with two checkpoints or datasets."
        ) from error


def cross_table(folder: Path) -> Table:
    """Each network on each dataset: scores, and what is lost against its own dataset."""
    from fer.evaluation.scores import shown_in

    rows, scores = [], shown_in("comparisons")
    for row in read_cross(folder):
        cells = [Cell(row["network"], words=True), Cell(row["measured_on"], words=True)]
        for score in scores:
            bounds = [row.get(f"{score.name}_{end}") for end in ("low", "high")]
            drop = row.get(f"drop_{score.name}")
            cells += [
                Cell(score.format.text(row.get(score.name)), score.format.interval(bounds)),
                Cell(score.format.change(-float(drop)) if drop else ABSENT),
            ]
        rows.append([*cells, Cell(whole(row["samples"]))])
    measured = [name for score in scores for name in (score.title, "Change")]
    return Table("cross", ["Trained on", "Measured on", *measured, "Images"], rows)


def saliency_checks_table(runs: Mapping[str, Path]) -> Table:
    """Whether each method's saliency maps pass the checks, as ``saliency.json`` has it."""
    from fer.report.saliency_sections import METHOD_NAMES

    rows = []
    for name, folder in runs.items():
        found = read_json(folder / "saliency.json")
        for method in found["methods"]:
            last = found["sanity"]["methods"][method]["correlation"][-1]
            verdicts = found["faithfulness"]["verdicts"][method].values()
            like = Cell(ABSENT if last is None else f"{last:.2f}")
            rows.append([name, METHOD_NAMES[method], *(word or ABSENT for word in verdicts), like])
    columns = [
        "Network",
        "Method",
        "Deletion: than a random map",
        "Insertion: than a random map",
        "Like the map of a random network",
    ]
    return table("saliency-checks", columns, rows)


# --- words -------------------------------------------------------------------------------------


def read_notes(runs: Mapping[str, Path]) -> list[str]:
    """What a reader of the runs' results must know, as their ``run.json`` has it."""
    notes = (note for folder in runs.values() for note in read_json(folder / "run.json")["notes"])
    return list(dict.fromkeys(notes))


def findings(runs: Mapping[str, Path], cross: Path | None = None) -> list[str]:
    """What the numbers of evaluations say, in Markdown: a paragraph for each network.

    Args:
        runs: the dataset of a network → folder of its evaluation there, with perturbations.
        cross: folder of the sweep of each network on each dataset; None for none.
    """
    from fer.evaluation.mistakes import frequent_confusions, read_predictions

    abroad = [] if cross is None else [row for row in read_cross(cross) if row["drop_accuracy"]]
    paragraphs = []
    for name, folder in runs.items():
        found = read_metrics(folder)
        low, high = found["confidence_intervals"]["accuracy"]
        recall, images = {}, {}
        for emotion, row in found["per_class"].items():
            if row["support"]:
                recall[emotion], images[emotion] = row["recall"], row["support"]
        most = max(images, key=lambda emotion: images[emotion])
        best, worst = (pick(recall, key=lambda emotion: recall[emotion]) for pick in (max, min))
        areas = found["robustness"]["relative_area"]
        harm = min(areas, key=lambda damage: areas[damage]["accuracy"])
        sentences = [
            f"**Trained on {name}:** {percent(found['accuracy'])} of "
            f"{how_many(found['samples'], 'image')} of {found['dataset']} are recognised (95 % "
            f"interval {percent(low)} to {percent(high)}), macro-F1 {percent(found['macro_f1'])}. "
            f"Always answering *{most}* would be right on "
            f"{percent(images[most] / found['samples'])}.",
            f"Recall is highest for *{best}* ({percent(recall[best])} of "
            f"{how_many(images[best], 'image')}) and lowest for *{worst}* "
            f"({percent(recall[worst])} of {how_many(images[worst], 'image')}).",
        ]
        _, target, probabilities = read_predictions(folder / "predictions.csv")
        sentences += [
            f"The most frequent confusion takes *{pair.true}* for *{pair.predicted}*: "
            f"{how_many(len(pair.rows), 'image')}, {percent(pair.share)} of that emotion."
            for pair in frequent_confusions(target, probabilities, 1)
        ]
        sentences.append(
            f"Of the perturbations, {harm.replace('_', ' ')} leaves the least of the accuracy: "
            f"{percent(areas[harm]['accuracy'])} over its severities."
        )
        sentences += [
            f"On {row['test_dataset']} its accuracy is {percent(row['accuracy'])}, "
            f"{signed(-100 * float(row['drop_accuracy']))} points from that on its own dataset."
            for row in abroad
            if row["train_dataset"] == name
        ]
        paragraphs.append(" ".join(sentences))
    return paragraphs


def run_table(runs: Mapping[str, Path]) -> Table:
    """Where runs are."""
    rows = [[name, _relative(folder).as_posix()] for name, folder in runs.items()]
    return table("runs", ["Run", "Folder"], rows)
