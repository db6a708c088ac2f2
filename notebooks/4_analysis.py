# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: slideshow
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] slideshow={"slide_type": "slide"}
# # Seven emotions, one small network, two datasets
#
# Can one compact CNN, trained from scratch with one recipe, recognise seven emotions on two
# different datasets?
#
# How well · how robustly · how far from one dataset to the other · where does it look · what does
# it confuse?

# %% [markdown] slideshow={"slide_type": "skip"}
# # 4 · Analysis
#
# This notebook measures the networks of notebook 3, or trains them first. Scores are computed here
# from the table of predictions, so that nothing has to be believed. **By default all faces are
# drawings**, and the results say nothing about human faces. `CHECKPOINTS` takes checkpoints of
# your own, trained on the first and second of `DATASETS`.
#
# The notebook is also a talk of about eight minutes; `docs/notebooks.md` has the command.

# %% slideshow={"slide_type": "skip"}
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from helpers import run, setting
from IPython.display import Image, display

DATASETS = setting("DATASET", "synthetic_a,synthetic_b").split(",")  # "fer2013,rafdb": real faces
CHECKPOINTS = [setting("CHECKPOINT_A", ""), setting("CHECKPOINT_B", "")]
QUICK = setting("QUICK", "0") == "1"  # a tiny network on a handful of images
PHOTOGRAPHS = setting("PHOTOGRAPHS", "1") == "1"  # 0: show no picture of a person
TRAIN = setting("TRAIN", "").split()  # more options of train.py, the same as in notebook 3
EVALUATE = setting("EVALUATE", "").split()  # and of evaluate.py, such as "saliency.seed=1"
EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]

# %% [markdown] slideshow={"slide_type": "skip"}
# ## The networks
#
# The same commands as in notebook 3: what has finished there is used here.

# %% slideshow={"slide_type": "skip"}
SMALL = ["model=shared_cnn_small", "trainer.max_epochs=6"]
TINY = ["model.widths=[8,16,16,32]", "model.image_size=32", "trainer.max_epochs=2",
        "metrics.resamples=100"]  # fmt: skip
FEW = [f"++dataset.generator.{key}={n}" for key, n in (("train", 105), ("val", 28), ("test", 56))]
drawn = [dataset for dataset in DATASETS if dataset.startswith("synthetic")]
few = FEW if QUICK and drawn else []

networks = {}
for dataset, checkpoint in zip(DATASETS, CHECKPOINTS, strict=False):
    if checkpoint:
        networks[dataset] = Path(checkpoint)
        continue
    size = (TINY if QUICK else SMALL if dataset in drawn else []) + few
    options = [f"dataset={dataset}", *size, *TRAIN, "trainer.progress_bar=false"]
    networks[dataset] = run("train.py", *options, name=f"train/{dataset}") / "checkpoints/best.ckpt"

# %% [markdown] slideshow={"slide_type": "skip"}
# ## The measurements
#
# Each network on the test split of its own dataset: clean, and under blur, occlusion and low
# light, with saliency maps. Then each network on the other dataset.

# %% slideshow={"slide_type": "skip"}
LESS = ["robustness.severities=[1,3,5]", "saliency.images_per_class=6",
        "saliency.faithfulness.images=21", "saliency.sanity.images=7"]  # fmt: skip
LEAST = ["metrics.resamples=100", "robustness.severities=[1,5]", "saliency.images_per_class=1",
         "saliency.smoothgrad.samples=2", "saliency.integrated_gradients.steps=2",
         "saliency.faithfulness.images=7", "saliency.faithfulness.steps=4",
         "saliency.sanity.images=7"]  # fmt: skip
more = [*few, *(f"++{option}" for option in TRAIN if option.startswith("dataset."))]

runs = {}  # (trained on, measured on) -> run folder
for trained_on, checkpoint in networks.items():
    for measured_on in DATASETS:
        options = [f"checkpoint={checkpoint}", f"dataset={measured_on}", *more]
        if trained_on == measured_on:
            size = LEAST if QUICK else LESS if measured_on in drawn else []
            options += ["perturbation=stress", "saliency=standard", *size, *EVALUATE]
        runs[trained_on, measured_on] = run(
            "evaluate.py", *options, name=f"evaluate/{trained_on}_on_{measured_on}"
        )
home = {dataset: runs[dataset, dataset] for dataset in DATASETS}

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One recipe, twice
#
# - Four blocks of convolution, average pooling, one linear layer; no pretrained weights
# - The same recipe, value for value, on each dataset: only the data differ
# - Validation chooses the epoch; the test split is measured once
# - Every number comes from a run folder, which names its command

# %% slideshow={"slide_type": "-"}
for folder in home.values():
    for note in json.loads((folder / "run.json").read_text())["notes"]:
        print("·", note)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How well?
#
# `predictions.csv` has the probabilities of every test image. Accuracy counts images, macro-F1
# counts emotions: a gap between the two says that rare emotions do worse.


# %% slideshow={"slide_type": "-"}
def confusion(predictions):
    """The confusion matrix: rows true, columns predicted."""
    table = pd.crosstab(predictions.true, predictions.predicted)
    return table.reindex(index=EMOTIONS, columns=EMOTIONS, fill_value=0)


def accuracy(matrix):
    """The share of the images on the diagonal."""
    return np.trace(matrix) / matrix.to_numpy().sum()


def macro_f1(matrix):
    """The mean of the emotions' F1: twice the hits over what is of the emotion or taken for it."""
    hits = np.diag(matrix)
    f1 = 2 * hits / np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1), 1)
    return f1[matrix.sum(axis=1) > 0].mean()


def resampled(predictions, score, times=300):
    """A 95 % interval: the same score of the images drawn again, with replacement."""
    rng = np.random.default_rng(0)
    scores = [
        score(confusion(predictions.iloc[rng.integers(0, len(predictions), len(predictions))]))
        for _ in range(times)
    ]
    return np.quantile(scores, [0.025, 0.975])


tables = {key: pd.read_csv(folder / "predictions.csv") for key, folder in runs.items()}
matrices = {key: confusion(table) for key, table in tables.items()}
rows = []
for dataset in DATASETS:
    matrix, table = matrices[dataset, dataset], tables[dataset, dataset]
    row = {"dataset": dataset, "images": len(table)}
    for name, score in {"accuracy": accuracy, "macro-F1": macro_f1}.items():
        low, high = resampled(table, score)
        row[name] = f"{100 * score(matrix):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    row["always the most frequent"] = f"{100 * matrix.sum(axis=1).max() / len(table):.1f} %"
    rows.append(row)
pd.DataFrame(rows).set_index("dataset")

# %% slideshow={"slide_type": "skip"}
for dataset, folder in home.items():  # the program computes the same
    found = json.loads((folder / "metrics.json").read_text())
    assert np.isclose(found["accuracy"], accuracy(matrices[dataset, dataset]))
    assert np.isclose(found["macro_f1"], macro_f1(matrices[dataset, dataset]))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What is taken for what?
#
# A row is a true emotion, a column an answer, in percent of the row. Look for dark cells off the
# diagonal, and for columns that attract answers from everywhere.

# %% slideshow={"slide_type": "-"}
figure, axes = plt.subplots(1, len(home), figsize=(5.5 * len(home), 4.5), squeeze=False)
for axis, dataset in zip(axes[0], home, strict=True):
    shares = 100 * matrices[dataset, dataset].T / matrices[dataset, dataset].sum(axis=1)
    axis.imshow(shares.T, cmap="Blues", vmin=0, vmax=100)
    for (i, j), share in np.ndenumerate(shares.T.to_numpy()):
        axis.text(j, i, f"{share:.0f}", ha="center", va="center", color="w" if share > 60 else "k")
    axis.set_xticks(range(7), EMOTIONS, rotation=45)
    axis.set_yticks(range(7), EMOTIONS)
    axis.set(title=dataset, xlabel="answer", ylabel="true emotion")
figure.tight_layout()

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Each emotion

# %% slideshow={"slide_type": "skip"}
for dataset in home:
    matrix = matrices[dataset, dataset]
    hits = np.diag(matrix)
    each = pd.DataFrame(
        {
            "images": matrix.sum(axis=1),
            "recall": hits / matrix.sum(axis=1),
            "precision": hits / matrix.sum(axis=0),
        }
    ).rename_axis(dataset)
    display(each.round(3))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Under blur, occlusion and low light
#
# Accuracy against the severity of the damage; 0 is undamaged. A flat line is robust, wherever it
# begins.

# %% slideshow={"slide_type": "-"}
figure, axes = plt.subplots(1, 3, figsize=(10, 3), sharey=True)
damage = {dataset: pd.read_csv(folder / "robustness.csv") for dataset, folder in home.items()}
for axis, kind in zip(axes, ("blur", "occlusion", "low_light"), strict=True):
    for dataset, table in damage.items():
        curve = table[table.perturbation.isin([kind, "clean"])].sort_values("severity")
        axis.plot(curve.severity, 100 * curve.accuracy, marker="o", label=dataset)
    axis.set(title=kind.replace("_", " "), xlabel="severity")
axes[0].set_ylabel("accuracy (%)")
axes[0].legend()
figure.tight_layout()

# %% slideshow={"slide_type": "skip"}
if PHOTOGRAPHS:
    for folder in home.values():
        display(Image(folder / "figures/perturbations.png", width=800))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From one dataset to the other
#
# Compare rows that were measured on the same dataset. Part of what is lost is only that the
# emotions are more or less frequent there: with the recalls that it has there, but the frequencies
# of home, a network would reach the accuracy in the last column.

# %% slideshow={"slide_type": "-"}
rows = []
for (trained_on, measured_on), matrix in matrices.items():
    recalls = np.diag(matrix) / np.maximum(matrix.sum(axis=1), 1)
    of_home = matrices[trained_on, trained_on].sum(axis=1)
    rows.append(
        {
            "trained on": trained_on,
            "measured on": measured_on,
            "accuracy (%)": 100 * accuracy(matrix),
            "macro-F1 (%)": 100 * macro_f1(matrix),
            "with home's frequencies (%)": 100 * (recalls * of_home).sum() / of_home.sum(),
        }
    )
transfer = pd.DataFrame(rows)
transfer.round(1)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where does it look?
#
# Mean saliency of each emotion over the mean face, by four methods. Red pixels weigh most. Boxes:
# brows, eyes, nose and mouth of a frontal face.

# %% slideshow={"slide_type": "-"}
for folder in home.values():
    display(Image(folder / "figures/saliency_class_maps.png", width=700))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ## Can these maps be believed?
#
# A map means something if the probability follows its order of pixels better than a random order,
# and if it changes when the weights are replaced by random ones (correlation near 0).

# %% slideshow={"slide_type": "-"}
rows = []
for dataset, folder in home.items():
    found = json.loads((folder / "saliency.json").read_text())
    for method in found["methods"]:
        verdicts = found["faithfulness"]["verdicts"][method]
        like = found["sanity"]["methods"][method]["correlation"][-1]
        rows.append(
            {"network": dataset, "method": method, **verdicts, "like a random network's": like}
        )
pd.DataFrame(rows).set_index(["network", "method"]).round(2)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What does it get wrong?
#
# The mistakes that the networks were surest of. Look at the images: which labels would you
# contest?

# %% slideshow={"slide_type": "-"}
for dataset in home:
    table = tables[dataset, dataset]
    wrong = table[table.true != table.predicted].nlargest(5, "confidence")
    display(wrong[["id", "true", "predicted", "confidence"]].set_index("id").rename_axis(dataset))

# %% slideshow={"slide_type": "subslide"}
for folder in home.values():
    picture = folder / "figures/confident_mistakes.png"
    if PHOTOGRAPHS and picture.is_file():  # none where all is right
        display(Image(picture, width=800))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the numbers say

# %% slideshow={"slide_type": "-"}
for dataset in home:
    matrix = matrices[dataset, dataset]
    recalls = np.diag(matrix) / matrix.sum(axis=1)
    off = matrix.where(~np.eye(7, dtype=bool), 0).stack()
    true, answer = off.idxmax()
    table = damage[dataset]
    clean = accuracy(matrix)
    kept = table[table.perturbation != "clean"].groupby("perturbation").accuracy.mean() / clean
    print(
        f"{dataset}: {100 * clean:.1f} % of {len(tables[dataset, dataset]):,} images. It finds "
        f"{recalls.idxmax()} best ({100 * recalls.max():.0f} %) and {recalls.idxmin()} worst "
        f"({100 * recalls.min():.0f} %). It takes {true} for {answer} most often ({off.max()} "
        f"images). Of the damage, {kept.idxmin().replace('_', ' ')} hurts most: "
        f"{100 * kept.min():.0f} % of the accuracy is left over the severities measured."
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How far that goes
#
# - **Labels** are what a few people saw in a picture, not what a person felt. Where people
#   disagree, no score can be near 100 %.
# - **Intervals** are over test images. Each network was trained once: another seed gives other
#   numbers, and a small difference says nothing about a recipe.
# - **On the other dataset** accuracy falls because faces look different, because annotators judged
#   differently, and because emotions are differently frequent.
# - **Damage** here is made by a computer. It says which kind hurts more, not what a camera in the
#   dark would do.
# - **Saliency** says which pixels bear on a score, not why. A map that fails the checks shows
#   nothing.
# - **Not shown here**: who is in the pictures. A network that is right on average may be wrong for
#   some people. Where the data says who is shown, `metrics.json` has the groups.

# %% [markdown] slideshow={"slide_type": "notes"}
# Speaking notes: one minute for the question and the recipe, one for the scores, one for the
# confusions, one and a half for robustness, one and a half for the two datasets, one for saliency,
# one for the discussion.
