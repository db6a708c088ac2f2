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

# %% [markdown]
# # 3 · Training one network on two datasets
#
# One compact convolutional network is trained from scratch, by one recipe, on each of two datasets:
# **Exp-A** on FER2013, **Exp-B** on RAF-DB. This notebook shows the network and the recipe, runs
# both trainings and looks at how they went. Notebook 4 asks what the two networks are worth.
#
# **With the default below, both datasets are drawings** and the network is a small one, so that all
# of this takes a few minutes. The numbers then say that the software works, and nothing about human
# faces. `fer2013,rafdb` runs the study itself: hours on a CPU, with the recipe as it stands in
# `conf/`. One name alone (`fer2013`) is fine too.
#
# A run that has finished is not run again. Its folder is `outputs/notebooks/train/…`; delete it to
# start anew.

# %%
from helpers import (
    compose,
    file_table,
    layer_table,
    run,
    score_table,
    setting,
    show,
    size_of,
    training_table,
)
from omegaconf import OmegaConf

from fer.tasks.assembly import make_model

DATASETS = setting("DATASET", "synthetic_a,synthetic_b").split(",")  # "fer2013,rafdb": real faces
QUICK = setting("QUICK", "0") == "1"  # a tiny network on a handful of images
TRAIN = setting("TRAIN", "").split()  # more options of train.py, such as "model=shared_cnn_small"

# %% [markdown]
# ## The network
#
# `SharedCNN` (in `fer/model/shared_cnn.py`, readable in one sitting) has four blocks of
# convolution, batch normalisation, pooling and ReLU. Each block halves height and width and widens
# the channels. What is left is averaged over the image, so that the last layer has few parameters,
# and goes through dropout into seven logits, one for each emotion. Normalisation of the input
# stands around it and travels with the weights.

# %%
size = size_of(DATASETS[0], quick=QUICK)
recipe = compose("train", f"dataset={DATASETS[0]}", *size.data, *size.training, *TRAIN)
show(
    layer_table(make_model(recipe.model)),
    caption="Each layer with the shape of its output for one image (channels × height × width) "
    "and its learned parameters. Most of them are in the last convolution.",
)

# %% [markdown]
# ## The recipe
#
# What is learned from, by how much at a time, and when it ends. `conf/` has a comment on each
# value; `python train.py --help` lists all choices.

# %%
parts = ["model", "loss", "optimizer", "scheduler", "loader", "mixing", "ema", "early_stopping"]
chosen = {part: recipe[part] for part in parts}
print(OmegaConf.to_yaml(OmegaConf.create(chosen)))
print("trainer.max_epochs:", recipe.trainer.max_epochs)

# %% [markdown]
# The two experiments are the same but for the dataset. That is checked here, on the configurations
# as the program composes them:

# %%
exp_a, exp_b = (compose("train", f"experiment={name}") for name in ("exp_a", "exp_b"))
different = [key for key in exp_a if exp_a[key] != exp_b[key]]
print("Exp-A and Exp-B differ in:", ", ".join(map(str, different)))
print(f"Exp-A: {exp_a.dataset.name}, Exp-B: {exp_b.dataset.name}")

# %% [markdown]
# ## Exp-A and Exp-B
#
# The commands below are what you would type (`dataset=fer2013` is `experiment=exp_a`,
# `dataset=rafdb` is `experiment=exp_b`). If this is stopped, running the cell again goes on after
# the last finished epoch. While a long training runs, `tensorboard --logdir outputs` shows how it
# does.

# %%
runs = {}
for dataset in DATASETS:
    size = size_of(dataset, quick=QUICK)
    runs[dataset] = run(
        "train.py",
        f"dataset={dataset}",
        *size.data,
        *size.training,
        *TRAIN,
        "trainer.progress_bar=false",
        name=f"train/{dataset}",
    )

# %% [markdown]
# ## How they went
#
# Read the curves of a training like this. *Loss falling in both lines*: it learns. *Training far
# better than validation, validation getting worse*: it learns its images by heart. *Both still
# improving at the end*: it was stopped early. Training values are measured on augmented images with
# dropout, so that validation may well be the better of the two.

# %%
for dataset, folder in runs.items():
    show(
        folder / "figures" / "curves.png",
        caption=f"Training on {dataset}: loss, accuracy, macro-F1 and learning rate over the "
        "epochs. The dotted line marks the epoch that is kept: the one with the best "
        "validation macro-F1.",
    )

# %% [markdown]
# ## What is kept
#
# `best.ckpt` is the epoch with the best validation macro-F1, `last.ckpt` the last one, which a
# training that was cut off goes on from. A checkpoint holds data alone, never code. It carries the
# normalisation, the order of the emotions and a fingerprint of the dataset that it was trained on.

# %%
show(
    training_table(runs),
    caption="Each training: the epoch that is kept (the first is 0), its speed on this machine, "
    "and what its best checkpoint carries.",
)

# %% [markdown]
# ## How well they do
#
# The test split is measured once, with the best checkpoint. An interval that is wide says that the
# test images are too few for a finer answer. It does not say how much another seed would change.

# %%
show(
    score_table(runs),
    caption="Scores on the test split of each network's own dataset. Small: 95 % interval. "
    "Calibration error: lower is better.",
)

# %%
show(
    *(folder / "figures" / "per_class_test.png" for folder in runs.values()),
    caption="Precision, recall and F1 of each emotion on test. Recall: share of an emotion's "
    "images that is found. Precision: share of the answers with this emotion that is "
    "right.",
)

# %% [markdown]
# ## What a run leaves
#
# `report.html` is a page with all figures and numbers of the run, `run.json` says from which
# command, code, data, versions and machine they came.

# %%
for dataset, folder in runs.items():
    show(file_table(folder), caption=f"The folder of the run on {dataset}.")

# %% [markdown]
# ## Trying something else
#
# ```
# python train.py dataset=fer2013 model.dropout=0.5 seed=1
# python train.py -m dataset=fer2013 optimizer.lr=1e-3,3e-4 test=false
# ```
#
# The second is a search. It looks at validation alone (`test=false`): a test split that helped to
# choose anything would not be a test any more.
