"""Figures say what is in the data; the HTML report is one safe file with the run's numbers."""

from __future__ import annotations

import base64
import io
import itertools
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from fer.core import labels
from fer.core.errors import DataError
from fer.core.options import FIGURE_FORM
from fer.core.words import PERCENT, percent
from fer.evaluation.metrics import ClassScores, SplitResult, measure_split
from fer.evaluation.scores import SCORES
from fer.report import figures, run_figures
from fer.report.evaluation_sections import robustness_curves, robustness_per_class
from fer.report.page import Cell, FigureEntry, render
from fer.report.run_page import write_run_report
from fer.report.score_cells import change_cell, score_cell
from fer.report.sweep_figure import heat_map, points
from fer.report.terminal import print_summary
from fer.runs.state import State
from fer.runs.sweep import Job
from tests.conftest import fragment, run_record

# --- made-up data ------------------------------------------------------------------------------


def make_history(epochs: int) -> list[dict[str, float]]:
    """Rows of ``history.csv``; validation macro-F1 is highest in the last epoch but one."""
    rows = []
    for epoch in range(epochs):
        score = 0.3 + 0.4 * (epoch + 1) / epochs
        rows.append(
            {
                "epoch": epoch,
                "train_loss": 1.9 - score,
                "val_loss": 1.95 - score,
                "train_accuracy": score + 0.05,
                "val_accuracy": score,
                "train_macro_f1": score,
                "val_macro_f1": 0.1 if epoch == epochs - 1 and epochs > 1 else score - 0.02,
                "learning_rate": 0.001 * (1 - epoch / epochs),
                "seconds": 12.34,
                "images_per_second": 2331.0,
            }
        )
    return rows


def make_matrix() -> np.ndarray:
    """40, 41, … right; 10, 20, … mistaken for the next emotion. Rows and columns differ in sum."""
    matrix = np.diag(np.arange(40, 47))
    for row in range(labels.NUM_CLASSES):
        matrix[row, (row + 1) % labels.NUM_CLASSES] = 10 * (row + 1)
    return matrix


def make_metrics(split: str = "test", leaks: int = 5) -> Any:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 7, 200)
    probabilities = rng.dirichlet(np.ones(7), 200)
    probabilities[np.arange(150), target[:150]] += 1
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    leaked = np.arange(200) < leaks
    return measure_split("faces", split, target, probabilities, leaked, resamples=100)


def make_result(n: int, *channels: int) -> SplitResult:
    """Images whose first prediction is right and whose others are wrong."""
    images = np.random.default_rng(0).integers(0, 100, (n, 24, 24, *channels), dtype=np.uint8)
    target = np.arange(n) % 7
    preds = np.where(np.arange(n) == 0, target, (target + 1) % 7)
    probabilities = np.zeros((n, 7))
    probabilities[np.arange(n), preds] = np.linspace(0.9, 0.3, n)
    metrics: Any = {}
    return SplitResult(metrics, images, target, probabilities, [])


def figure_texts(figure: Figure) -> list[str]:
    """Every visible, non-empty text of a figure, tick labels included, as drawn."""
    figure.draw_without_rendering()
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text.get_text() for text in found if isinstance(text, Text) and text.get_text()]


def panel(figure: Figure, title: str) -> Axes:
    return next(axis for axis in figure.axes if axis.get_title().startswith(title))


def x_of(line: Line2D) -> list[float]:
    return [float(x) for x in np.asarray(line.get_xdata())]


def tick_labels(labelled: Sequence[Text]) -> list[str]:
    return [label.get_text() for label in labelled]


def assert_texts_inside(figure: Figure) -> None:
    """No text is cut off by the figure's edge."""
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    undrawn = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text() and text not in undrawn:
            box = text.get_window_extent()
            inside = -1 <= box.x0 <= box.x1 <= width + 1 and -1 <= box.y0 <= box.y1 <= height + 1
            assert inside, text.get_text()


# --- figures -----------------------------------------------------------------------------------


def test_training_curves_show_both_splits_in_percent_and_mark_the_best_epoch() -> None:
    history = make_history(30)
    figure = run_figures.training_curves(history, 28)
    accuracy = panel(figure, "accuracy")
    assert accuracy.get_ylabel() == "accuracy (%)"
    assert accuracy.get_xlabel() == "epoch"
    lines = {line.get_label(): line for line in accuracy.get_lines()}
    np.testing.assert_allclose(
        np.asarray(lines["val_accuracy"].get_ydata(), float),
        [100 * row["val_accuracy"] for row in history],
    )
    assert lines["train_accuracy"].get_color() == figures.SPLIT_COLORS["train"]
    assert lines["val_accuracy"].get_color() == figures.SPLIT_COLORS["val"]
    # Told apart without colours too.
    assert lines["train_accuracy"].get_linestyle() != lines["val_accuracy"].get_linestyle()
    assert panel(figure, "macro-F1").get_ylim() == accuracy.get_ylim()
    for axis in figure.axes:
        assert any(x_of(line) == [29, 29] for line in axis.get_lines())
    texts = figure_texts(figure)
    assert {"train", "validation", "best epoch 29"} <= set(texts)
    best = 100 * history[28]["val_macro_f1"]
    assert f"30 epochs · best epoch 29, validation macro-F1 {best:.1f} % (dotted line)" in texts
    assert_texts_inside(figure)


def test_training_curves_of_one_epoch_show_points() -> None:
    figure = run_figures.training_curves(make_history(1), 0)
    for axis in figure.axes:
        curves = [line for line in axis.get_lines() if not str(line.get_label()).startswith("_")]
        assert curves
        assert all(line.get_marker() == "o" and x_of(line) == [1] for line in curves)
        low, high = axis.get_xlim()
        assert low < 1 < high
        shown = [tick for tick in axis.get_xticks() if low <= tick <= high]
        assert shown == [1]
    assert_texts_inside(figure)


def test_training_curves_draw_over_gaps_and_name_what_is_absent() -> None:
    history: list[dict[str, float | None]] = [dict(row) for row in make_history(200)]
    for row in history:
        row["learning_rate"] = None
        if row["epoch"] not in (4, 104):
            row["val_loss"] = math.nan
        del row["train_accuracy"]
    figure = run_figures.training_curves(history, 0)
    validation = {line.get_label(): line for line in panel(figure, "loss").get_lines()}["val_loss"]
    assert x_of(validation) == [5, 105]
    assert validation.get_marker() == "o"
    assert [text.get_text() for text in panel(figure, "learning rate").texts] == ["not recorded"]
    assert "train_accuracy" not in [
        str(x.get_label()) for x in panel(figure, "accuracy").get_lines()
    ]


def test_confusion_matrix_shows_row_percent_count_and_support() -> None:
    figure = run_figures.confusion_matrix(make_matrix(), title="Faces, test split")
    axis = figure.axes[0]
    texts = [text.get_text() for text in axis.texts]
    assert texts[:4] == ["80.0 %", "40", "20.0 %", "10"]
    assert tick_labels(axis.get_yticklabels())[0] == "angry\n(50)"
    assert tick_labels(axis.get_yticklabels())[6] == "neutral\n(116)"
    assert tick_labels(axis.get_xticklabels())[0] == "angry\n(110)"
    assert tick_labels(axis.get_xticklabels())[1] == "disgust\n(51)"
    assert axis.get_xlabel().startswith("predicted")
    assert axis.get_ylabel().startswith("true")
    percents = np.asarray(axis.images[0].get_array())
    assert percents[2, 3] == pytest.approx(100 * 30 / 72)
    headers = [text.get_text() for text in figure.texts]
    assert headers[0] == "Faces, test split"
    assert headers[1].startswith("581 images · 51.8 % correct")
    assert_texts_inside(figure)


def test_confusion_matrix_says_no_images_for_an_empty_row() -> None:
    matrix = make_matrix()
    matrix[1] = 0
    texts = figure_texts(run_figures.confusion_matrix(matrix, title="t"))
    assert texts.count("no images") == 1
    assert "disgust\n(0)" in texts
    assert not any("nan" in text for text in texts)
    empty = figure_texts(run_figures.confusion_matrix(np.zeros((7, 7), int), title="t"))
    assert empty.count("no images") == 7
    assert not any("nan" in text or "correct" in text for text in empty)


def test_confusion_matrix_writes_readably_on_every_color() -> None:
    """At least 3:1, the WCAG minimum for large text, from an empty to a full cell."""
    for correct in range(0, 101, 5):
        matrix = np.full((7, 7), 0)
        matrix[:, 0] = 100 - correct
        matrix += np.diag(np.full(7, correct))
        axis = run_figures.confusion_matrix(matrix, title="t").axes[0]
        background = axis.images[0].to_rgba(np.array([100 - correct]), norm=True)[0, :3]
        label = next(t for t in axis.texts if t.get_position() == (0, 1 - 0.1))
        ink = matplotlib.colors.to_rgb(label.get_color())
        dark, light = sorted((luminance(background), luminance(ink)))
        assert (light + 0.05) / (dark + 0.05) >= 3


def luminance(rgb: Sequence[float] | np.ndarray) -> float:
    """Relative luminance, WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in map(float, rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_class_balance_shows_the_shares_of_each_split() -> None:
    counts = {
        "train": dict(zip(labels.EMOTIONS, [1000, 0, 1000, 3000, 1000, 2000, 2000], strict=True)),
        "val": {"happy": 1},
        "test": {},
    }
    figure = figures.class_balance(counts, title="Faces")
    axis = figure.axes[0]
    assert tick_labels(axis.get_xticklabels()) == list(labels.EMOTIONS)
    assert axis.get_ylabel() == "share of the split (%)"
    texts = [text.get_text() for text in axis.texts]
    assert texts[:7] == ["10", "0", "10", "30", "10", "20", "20"]
    assert texts[7:] == [*"000", "100", *"000", *"–––––––"]
    assert {"train: 10,000 images", "val: 1 image", "test: 0 images"} <= set(figure_texts(figure))
    assert figure.texts[1].get_text() == "10,001 images"
    assert_texts_inside(figure)


@pytest.mark.parametrize(("longest", "columns"), [(30, 3), (50, 2), (80, 1)])
def test_a_legend_with_long_names_is_not_cut_off(longest: int, columns: int) -> None:
    names = [f"{i}{'_shared_cnn_focal' * 5}"[: longest - 10] + " → fer2013" for i in range(4)]
    figure = figures.bars(
        {name: [0.5] * 7 for name in names},
        figures.SERIES,
        labels.EMOTIONS,
        title="t",
        subtitle="s",
        xlabel="x",
        ylabel="y",
    )
    assert_texts_inside(figure)
    tops = [text.get_window_extent().y0 for text in figure.legends[0].get_texts()]
    assert len(set(map(round, tops))) == math.ceil(4 / columns)


def test_emotions_have_seven_distinct_colors() -> None:
    assert list(figures.EMOTION_COLORS) == list(labels.EMOTIONS)
    assert len(set(figures.EMOTION_COLORS.values())) == 7


@pytest.mark.parametrize(
    "shape", [(48, 48), (48, 48, 1), (48, 48, 3), (1, 1), (20, 300), (3000, 20, 3)]
)
def test_an_image_of_any_size_is_shown_in_its_own_proportions(shape: tuple[int, ...]) -> None:
    tile = figures.Tile(np.full(shape, 30, np.uint8), ["x"])
    figure = figures.picture_grid([("g", [tile])], title="t", subtitle="s")
    (picture,) = figure.axes[0].images
    left, right, bottom, top = picture.get_extent()
    width, height = right - left, bottom - top
    assert max(width, height) == pytest.approx(1.04)
    assert width / height == pytest.approx(shape[1] / shape[0])
    assert_texts_inside(figure)
    if np.asarray(picture.get_array()).ndim == 2:  # a dark picture must stay dark
        assert picture.get_clim() == (0, 255)


def test_per_class_shows_three_scores_and_the_support() -> None:
    scores: dict[str, ClassScores] = {
        e: {"precision": 0.5, "recall": 0.25, "f1": 1.0, "support": 7} for e in labels.EMOTIONS
    }
    scores["fear"] = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    figure = run_figures.per_class(scores, title="Faces, test split")
    axis = figure.axes[0]
    assert axis.get_ylabel() == "score (%)"
    assert tick_labels(axis.get_xticklabels())[:3] == [
        "angry\n7 images",
        "disgust\n7 images",
        "fear\n0 images",
    ]
    values = [text.get_text() for text in axis.texts]
    assert values[:7] == ["50"] * 2 + ["0"] + ["50"] * 4  # precision
    assert values[7:14] == ["25"] * 2 + ["–"] + ["25"] * 4  # recall of no images: not defined
    assert {"precision", "recall", "F1"} <= set(figure_texts(figure))
    assert figure.texts[1].get_text().startswith("42 images")
    assert_texts_inside(figure)


@pytest.mark.parametrize(("n", "channels"), [(1, ()), (1, (1,)), (11, (3,)), (9, ())])
def test_prediction_grid_marks_right_and_wrong_by_sign_and_color(
    n: int, channels: tuple[int, ...]
) -> None:
    result = make_result(n, *channels)
    figure = run_figures.prediction_grid(
        result.images, result.target, result.probabilities, title="Faces"
    )
    axis = figure.axes[0]
    assert len(axis.images) == n
    texts = {text.get_text(): text.get_color() for text in axis.texts}
    assert texts["✓ angry 90 %"] == figures.CORRECT
    if n > 1:
        assert texts[f"✗ {labels.EMOTIONS[result.preds[-1]]} 30 %"] == figures.WRONG
        assert f"true: {labels.EMOTIONS[result.target[-1]]}" in texts
    assert f"✓ blue: 1 correct · ✗ orange: {n - 1} wrong" in " ".join(
        figure.texts[1].get_text().split()
    )
    assert_texts_inside(figure)
    gray = np.asarray(axis.images[0].get_array())
    assert gray.shape == ((24, 24, 3) if channels == (3,) else (24, 24))
    if channels != (3,):  # a dark picture must stay dark: no stretching to its own range
        assert axis.images[0].get_clim() == (0, 255)


def test_a_run_shows_its_last_split_and_predictions_on_the_first(tmp_path: Path) -> None:
    results = [replace(make_result(9), metrics=make_metrics(split)) for split in ("val", "test")]
    section = run_figures.run_section(tmp_path, results, make_history(2), 1, {"val": {"happy": 1}})
    assert [a["alt"] for tag, a in Page(str(section)).tags if tag == "img"] == [
        "Training curves",
        "Confusion matrix (test)",
        "Precision, recall and F1 of each emotion (test)",
        "Images with their predictions (val)",
        "Class balance",
    ]
    assert len(list((tmp_path / "figures").iterdir())) == 8  # those of val, too


LONG = [f"a_long_name_of_a_network_{n}" for n in range(3)]


def test_a_value_without_an_interval_is_shown_alone() -> None:
    rows: Any = [
        {
            "perturbation": "low_light",
            "severity": severity,
            "accuracy": 0.5,
            "macro_f1": 0.25,
            "confidence_intervals": {"accuracy": None, "macro_f1": [0.2, 0.3]},
            "per_class": {
                e: {"recall": None if e == "fear" else 0.5, "recall_interval": None}
                for e in labels.EMOTIONS
            },
        }
        for severity in range(3)
    ]
    for networks in ({"a": rows}, {"a": rows, "b": rows}, dict.fromkeys(LONG, rows)):
        figure = robustness_curves(networks, title="t", subtitle="s")
        assert list(np.asarray(figure.axes[0].lines[0].get_ydata())) == [50] * 3
        titles = [axis.get_title() for axis in figure.axes]
        assert titles == ["Accuracy: low light", "Macro-F1: low light"]
        assert_texts_inside(figure)
    figure = robustness_per_class(rows, title="t", images=9)
    assert_texts_inside(figure)
    assert len(figure.axes[0].lines) == 6  # there is no image of fear
    assert change_cell(-0.012, None, SCORES["accuracy"]) == Cell("−1.2")
    assert score_cell(rows[0], SCORES["accuracy"]) == Cell("50.0 %")


def make_jobs(**values: Sequence[Any]) -> list[Job]:
    """Finished jobs, the n-th with the n-th of each option's values; better and better."""
    jobs = []
    for number, row in enumerate(zip(*values.values(), strict=True)):
        overrides = [f"{key}={value}" for key, value in zip(values, row, strict=True)]
        run: Any = run_record(validation={"macro_f1": 0.01 * number})
        jobs.append(Job(number, str(number), overrides, State.FINISHED, run=run))
    return jobs


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"lr": [0.1, 0.1, 0.2]}, [0.5, 2]),
        ({"lr": [*range(1, 11), 1]}, [5, *range(1, 10)]),  # a scale, with a value that is shared
        ({"lr": range(1, 11)}, None),  # a scale without one
        ({"seed": range(3)}, [1, 1]),
        ({"seed": range(20)}, [9.5, 9.5]),
    ],
)
def test_a_sweep_has_the_line_that_its_subtitle_promises(
    values: dict[str, Sequence[Any]], line: list[float] | None
) -> None:
    figure = points(make_jobs(**values), list(values))
    lines = figure.axes[0].lines[1:]
    assert [list(np.asarray(one.get_ydata())) for one in lines] == (
        [] if line is None else [pytest.approx(line)]
    )
    assert ("line: mean" in figure.texts[1].get_text()) == (line is not None)


def test_the_names_of_swept_values_do_not_touch() -> None:
    words = [f"augmentation_number_{n}" for n in range(6)]
    figure = points(make_jobs(augmentation=words, loss=list("abcdef")), ["augmentation", "loss"])
    assert figure.texts[0].get_text() == "Validation macro-F1 against each swept option"
    aslant, upright = (axis.get_xticklabels()[0].get_rotation() for axis in figure.axes)
    assert (aslant, upright) == (45, 0)
    assert_texts_inside(figure)
    jobs = make_jobs(a=words * 2, b=[*"xxxxxxyyyyyy"])
    assert heat_map(jobs, "b", "a").axes[0].get_xticklabels()[0].get_rotation() == 45
    assert heat_map(jobs, "a", "b").axes[0].get_xticklabels()[0].get_rotation() == 0
    # On a scale: two labels never overlap.
    figure = points(make_jobs(a=[n * 1.7e-5 for n in range(1, 12)], b=range(11)), ["a", "b"])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_the_terminal_says_what_damage_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    area = {"low_light": {"accuracy": 0.8951, "macro_f1": 0.7}}
    metrics = make_metrics()
    print_summary(tmp_path, replace(make_result(200), metrics=metrics), None, [])
    assert "Left under" not in capsys.readouterr().out
    metrics["robustness"] = {"relative_area": area}
    print_summary(tmp_path, replace(make_result(200), metrics=metrics), None, [])
    words = "Left under low light: 89.5 % of the accuracy, 70.0 % of the macro-F1"
    assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("node", "shown"),
    [
        ([True, None, "a", 0], "yes, –, a, 0"),
        ("", "–"),
        ({"a": []}, "a –"),
        (Path("here"), "here"),
        ([["a", "b"], {"c": False}], "a, b c no"),
    ],
)
def test_nested_data_is_shown_in_words(node: object, shown: str) -> None:
    assert " ".join(Page(fragment("tree", node)).text.split()) == shown


def test_the_font_has_every_sign_that_figures_use() -> None:
    glyphs = FT2Font(findfont("DejaVu Sans")).get_charmap()
    for path in Path(figures.__file__).parent.glob("*.py"):
        assert all(ord(sign) in glyphs for sign in {*path.read_text("utf-8")} - {"\n"}), path


def test_long_and_odd_titles_are_written_as_they_are_and_fit() -> None:
    title = "costs $1 and $2_x " + "a long name of a checkpoint " * 6 + "\udcff"
    figure = run_figures.confusion_matrix(make_matrix(), title=title)
    shown = figure.texts[0].get_text()
    assert shown.replace("\n", " ").startswith("costs $1 and $2_x a long name")
    assert shown.endswith("\\udcff")
    assert not figure.texts[0].get_parse_math()
    assert_texts_inside(figure)
    header, body = figure.texts[1].get_window_extent(), figure.axes[0].get_window_extent()
    assert header.y0 > body.y1


def test_save_gives_equal_bytes_without_metadata_and_leaves_no_temporary_file(
    tmp_path: Path,
) -> None:
    def draw() -> Figure:
        return run_figures.per_class(make_metrics()["per_class"], title="Faces")

    figure = draw()
    first = figures.save(figure, tmp_path / "new" / "a.png")
    again = figures.save(figure, tmp_path / "new" / "b.png")
    other = figures.save(draw(), tmp_path / "new" / "c.png")
    assert first == tmp_path / "new" / "a.png"
    assert first.read_bytes() == again.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in first.parent.iterdir()) == ["a.png", "b.png", "c.png"]
    with Image.open(first) as image:
        assert set(image.info) <= {"dpi"}
        assert image.info["dpi"][0] == pytest.approx(figures.DPI, abs=0.1)


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_save_writes_a_vector_form_beside_it_in_equal_bytes(form: str, tmp_path: Path) -> None:
    def draw() -> Figure:
        return run_figures.per_class(make_metrics()["per_class"], title="Faces")

    token = FIGURE_FORM.set(form)
    for name in ("a", "b"):
        figures.save(draw(), tmp_path / f"{name}.png")
    FIGURE_FORM.reset(token)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a." + end for end in sorted((form, "png"))),
        *("b." + end for end in sorted((form, "png"))),
    ]
    first, second = (tmp_path / f"{name}.{form}" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes() and len(first.read_bytes()) > 1000


def test_save_that_fails_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(self: Figure, file: io.BytesIO, **options: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save(Figure(), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_to_image_gives_the_pixels_of_the_saved_file(tmp_path: Path) -> None:
    figure = figures.class_balance({"test": {"happy": 3}}, title="Faces")
    pixels = figures.to_image(figure)
    assert pixels.dtype == np.uint8
    with Image.open(figures.save(figure, tmp_path / "a.png")) as image:
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_drawing_changes_no_global_state_and_ignores_the_users_style(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    plain = figures.to_image(run_figures.confusion_matrix(make_matrix(), title="t"))
    assert dict(matplotlib.rcParams) == before
    dark = {"figure.facecolor": "black", "text.color": "white", "font.size": 20.0}
    with matplotlib.rc_context(dark):  # type: ignore[arg-type]
        styled = figures.to_image(run_figures.confusion_matrix(make_matrix(), title="t"))
    np.testing.assert_array_equal(plain, styled)


def test_the_report_stage_imports_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys, fer.report.figures, fer.report.run_page; "
        "print([m for m in ('matplotlib.pyplot', 'torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the HTML report ---------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would find: tags with their attributes, text, and tables as rows of cells.

    A cell's text does not contain that of a table inside it; its small print follows " | ".
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self._hidden = False
        self._open_tables: list[list[list[str]]] = []
        self._open_rows: list[list[str]] = []  # of the cells that are open, innermost last
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a table, row or cell."""
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._hidden = tag in ("style", "script")
        if tag == "table":
            rows: list[list[str]] = []
            self.tables[attributes.get("id") or f"table {len(self.tables)}"] = rows
            self._open_tables.append(rows)
        elif tag == "tr":
            self._open_tables[-1].append([])
        elif tag in ("td", "th"):
            self._open_rows.append(self._open_tables[-1][-1])
            self._open_rows[-1].append("")
        elif tag == "small" and self._open_rows:
            self._open_rows[-1][-1] += " | "

    def handle_endtag(self, tag: str) -> None:
        """Close what was opened."""
        self._hidden = False
        if tag == "table":
            self._open_tables.pop()
        elif tag in ("td", "th"):
            self._open_rows.pop()

    def handle_data(self, data: str) -> None:
        """Add to the page's text and to the innermost cell's."""
        if self._hidden:
            return
        self.text += data
        if self._open_rows:
            self._open_rows[-1][-1] += data.strip()


@pytest.fixture
def figure_file(tmp_path: Path) -> Path:
    path = tmp_path / "figures" / "a.png"
    path.parent.mkdir()
    Image.new("RGB", (4, 3), "red").save(path)
    return path


def make_report(folder: Path, figures: Sequence[FigureEntry] = (), **changes: Any) -> str:
    options: dict[str, Any] = {
        "title": "faces: SharedCNN",
        "subtitle": "Measured once.",
        "notes": ["Scores on drawn faces say nothing about human faces."],
        "metrics": make_metrics(),
        "sections": [Markup(fragment("figure", entry)) for entry in figures],
        "provenance": {
            "command": "python train.py dataset=faces",
            "git": {"commit": "3f1c2a9", "dirty": True},
            "dataset": {
                "counts": {"train": {"angry": 31, "happy": 41}, "test": {"angry": 59, "happy": 26}}
            },
            "seed": 42,
            "device_name": None,
            "notes": ["one", "two"],
        },
        "config_yaml": "seed: 42\noptimizer:\n  lr: 0.001\n",
        "val": make_metrics("val", leaks=0),
        **changes,
    }
    path = write_run_report(folder / "out" / "report.html", **options)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_report_is_self_contained(tmp_path: Path, figure_file: Path) -> None:
    source = make_report(tmp_path, [FigureEntry(figure_file, "Red", "A red card.")])
    page = Page(source)
    loads = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
        and not (value or "").startswith("#")
    ]
    assert len(loads) == 2  # the icon, which is empty, and the figure
    assert all(value and value.startswith("data:") for value in loads)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest", source)
    policies = [a["content"] for t, a in page.tags if "Content-Security-Policy" in a.values()]
    assert [str(policy).split(";")[0] for policy in policies] == ["default-src 'none'"]


def test_report_embeds_the_figure_itself(tmp_path: Path, figure_file: Path) -> None:
    source = make_report(tmp_path, [FigureEntry(figure_file, "Red", "A red card.")])
    images = [attributes for tag, attributes in Page(source).tags if tag == "img"]
    assert [image["alt"] for image in images] == ["Red"]
    encoded = str(images[0]["src"]).removeprefix("data:image/png;base64,")
    assert base64.b64decode(encoded) == figure_file.read_bytes()
    assert "A red card." in Page(source).text


def test_report_shows_the_scores_with_their_intervals(tmp_path: Path) -> None:
    metrics = make_metrics()
    page = Page(make_report(tmp_path, metrics=metrics))
    rows = {row[0].split(" | ")[0]: row[1:] for row in page.tables["headline"]}
    assert rows["Metric"] == ["test", "test, without leaks", "val"]
    low, high = metrics["confidence_intervals"]["macro_f1"]
    clean = metrics["without_leaks"]
    assert rows["Macro-F1"][0] == (
        f"{100 * metrics['macro_f1']:.1f} % | {100 * low:.1f}–{100 * high:.1f} %"
    )
    assert rows["Accuracy"][1].startswith(f"{100 * clean['accuracy']:.1f} % | ")
    assert set(rows) == {
        "Metric",
        "Accuracy",
        "Macro-F1",
        "Micro-F1",
        "Balanced accuracy",
        "Calibration error",
        "Images",
    }
    assert rows["Images"] == ["200", "195", "200"]
    assert "5 of 200 (2.5 %)" in page.text
    low, high = metrics["confidence_intervals"]["accuracy"]
    assert f"95 % CI {100 * low:.1f}–{100 * high:.1f} %" in page.text  # on its card


def test_report_shows_each_emotion_and_what_it_is_taken_for(tmp_path: Path) -> None:
    metrics = make_metrics()
    metrics["confusion_matrix"] = make_matrix().tolist()
    page = Page(make_report(tmp_path, metrics=metrics))
    header, *rows = page.tables["per-class"]
    assert header == [
        "Emotion",
        "Precision",
        "Recall",
        "F1",
        "Images",
        "Most often taken for",
    ]
    assert [row[0] for row in rows[:7]] == list(labels.EMOTIONS)
    assert [row[0] for row in rows[7:]] == [f"val: {emotion}" for emotion in labels.EMOTIONS]
    angry = metrics["per_class"]["angry"]
    assert rows[0][1] == f"{100 * angry['precision']:.1f} %"
    assert rows[0][4:6] == [str(angry["support"]), "disgust (20.0 %)"]
    assert rows[6][5] == "angry (60.3 %)"


def test_report_shows_a_dash_for_what_is_absent(tmp_path: Path) -> None:
    metrics = make_metrics()
    metrics |= {"without_leaks": None, "confidence_intervals": None, "macro_f1": math.nan}
    del metrics["micro_f1"]
    metrics["per_class"]["fear"] = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    source = make_report(tmp_path, metrics=metrics, val=None, notes=[])
    page = Page(source)
    rows = {row[0].split(" | ")[0]: row[1:] for row in page.tables["headline"]}
    assert rows["Macro-F1"] == ["–", "–"]
    assert rows["Micro-F1"] == ["–", "–"]
    assert rows["Accuracy"] == [f"{100 * metrics['accuracy']:.1f} %", "–"]
    assert page.tables["per-class"][3][:5] == ["fear", "0.0 %", "–", "–", "0"]
    assert "there is no such measurement" in page.text
    assert not re.search(r"\bnan\b|\bNone\b|95 % CI \d", page.text, re.IGNORECASE)
    assert not any(attributes.get("class") == "notes" for _, attributes in page.tags)


def test_report_says_in_short_what_was_reached_and_what_guessing_would(tmp_path: Path) -> None:
    metrics = make_metrics()
    metrics["confusion_matrix"] = make_matrix().tolist()
    support = {name: row["support"] for name, row in metrics["per_class"].items()}
    page = Page(make_report(tmp_path, metrics=metrics))
    assert (
        f"the most frequent emotion always would be right for {max(support.values()) / 2:.1f} %"
        in (page.text)
    )
    assert "naming any of the seven at random for 14.3 %" in page.text
    assert "Most often recognised is angry (80.0 %), least often neutral (39.7 %, mostly taken" in (
        page.text
    )


def test_report_has_contents_that_lead_to_its_sections(tmp_path: Path) -> None:
    page = Page(make_report(tmp_path))
    links = [
        own["href"] for tag, own in page.tags if tag == "a" and (own.get("href") or "")[0] == "#"
    ]
    anchors = [own["id"] for tag, own in page.tags if tag == "h2"]
    assert links == [f"#{anchor}" for anchor in anchors] and len(set(anchors)) == len(anchors) > 3
    assert links[:3] == ["#in-short", "#results", "#per-emotion"]


def test_report_says_so_when_nothing_leaked(tmp_path: Path) -> None:
    page = Page(make_report(tmp_path, metrics=make_metrics(leaks=0)))
    assert "this split has none" in page.text


def test_report_shows_where_the_run_comes_from(tmp_path: Path) -> None:
    page = Page(make_report(tmp_path))
    cells = [row for table in page.tables.values() for row in table]
    assert ["commit", "3f1c2a9"] in cells
    assert ["dirty", "yes"] in cells
    assert ["angry", "31"] in cells and ["happy", "26"] in cells
    assert ["seed", "42"] in cells
    assert ["device_name", "–"] in cells
    assert ["notes", "one, two"] in cells
    assert "optimizer:\n  lr: 0.001" in page.text


def test_report_escapes_everything_that_comes_from_outside(
    tmp_path: Path, figure_file: Path
) -> None:
    attack = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
    honest = Page(make_report(tmp_path, [FigureEntry(figure_file, "t", "c")]))
    page = Page(
        make_report(
            tmp_path,
            [FigureEntry(figure_file, attack, attack)],
            title=attack,
            subtitle=attack,
            notes=[attack],
            provenance={
                attack: attack,
                "table": {attack: {attack: 1}, "b": {attack: 2}},
                "list": [{attack: [attack]}],
            },
            config_yaml=f"name: {attack}</pre>",
            metrics={**make_metrics(), "dataset": attack, "split": attack},
            val={**make_metrics(), "split": f"val {attack}"},
        )
    )
    for tag in ("script", "img", "style"):
        count = [name for name, _ in page.tags].count(tag)
        assert count == [name for name, _ in honest.tags].count(tag), tag
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count(attack) >= 12
    assert [a["alt"] for t, a in page.tags if t == "img"] == [attack]


def test_report_survives_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    page = Page(make_report(tmp_path, provenance={"command": "python train.py raw=\udcff.zip"}))
    assert "raw=\\udcff.zip" in page.text


def test_report_refuses_what_is_not_a_figure(tmp_path: Path) -> None:
    def show(path: Path) -> None:
        render("calibration.html.j2", metrics=make_metrics(), scaling=None, gap=0.1, figure=path)

    with pytest.raises(DataError, match=r"absent\.png"):
        show(tmp_path / "absent.png")
    (tmp_path / "a.svg").write_text("<svg onload='alert(1)'/>")
    with pytest.raises(DataError, match="PNG"):
        show(tmp_path / "a.svg")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.66, "66.0 %"), ("0.5", "50.0 %"), (0, "0.0 %"), (1, "100.0 %")]
    + [(absent, "–") for absent in (None, "", math.nan, math.inf, True, [0.5])],
)
def test_percent_has_one_decimal_and_a_dash_for_what_is_no_number(value: Any, shown: str) -> None:
    assert percent(value) == shown


@pytest.mark.parametrize("bounds", [None, [], [0.1], [0.1, None], [math.nan, 0.2], 0.3])
def test_interval_is_none_where_there_is_none(bounds: Any) -> None:
    assert PERCENT.interval(bounds) is None
