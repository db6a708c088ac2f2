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
# One compact network is trained from scratch, with one recipe, on each of two datasets: **Exp-A**
# on FER2013, **Exp-B** on RAF-DB. First we look at the network and at what a training step does,
# then we train a small one in this notebook, then we run both experiments.
#
# **By default both datasets are drawings** and the network is small, so that this takes minutes.
# The numbers then say that the software works, and nothing about human faces. `DATASETS =
# ["fer2013", "rafdb"]` runs the study itself: hours on a CPU.

# %%
import inspect
import json
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import torch
from helpers import data_folder, run, setting
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from fer import EmotionModule, FER2013DataModule, SharedCNN
from fer.data.drawn.synthetic import generate

DATASETS = setting("DATASET", "synthetic_a,synthetic_b").split(",")
QUICK = setting("QUICK", "0") == "1"  # a tiny network on a handful of images
TRAIN = setting("TRAIN", "").split()  # more options of train.py, such as "model=shared_cnn_small"

# %% [markdown]
# ## The network
#
# Four blocks of convolution, batch normalisation, pooling and ReLU. Each halves height and width
# and widens the channels. What is left is averaged over the image and goes through dropout into
# seven logits, one for each emotion. This is the code:

# %%
print(inspect.getsource(SharedCNN.forward))

# %%
network = SharedCNN(widths=(32, 64, 128, 256))  # half the default widths: faster
print(network.blocks[0])

# %% [markdown]
# An image on its way through the network:

# %%
x = torch.rand(1, 1, 48, 48)
shapes = [("image", tuple(x.shape[1:]), 0)]
for name, stage in network.stages()[:-1]:
    x = stage(x)
    shapes.append((name, tuple(x.shape[1:]), sum(p.numel() for p in stage.parameters())))
shapes.append(("average, linear", (7,), sum(p.numel() for p in network.head.parameters())))
table = pd.DataFrame(shapes, columns=["after", "shape (C, H, W)", "parameters"])
print(f"{table.parameters.sum():,} parameters")
table

# %% [markdown]
# ## A training step
#
# A step takes 64 images, computes the loss of the logits, and lets the optimizer follow the
# gradients. The loss is cross-entropy with label smoothing: the target of the right emotion is a
# little below 1, because labels are not that certain. Lightning calls this method for each batch,
# and does the rest of the loop:

# %%
print(inspect.getsource(EmotionModule.loss_of_batch))

# %% [markdown]
# ## A training, here and now
#
# The data module prepares and augments, the module has loss, optimizer and schedule with the
# defaults of the recipe, the trainer runs the loop. `drawn` draws faces; for FER2013, it would be
# `FER2013DataModule(raw="archive.zip")`.

# %%
sizes = {"train": 105, "val": 28, "test": 56} if QUICK else {"train": 1500, "val": 300, "test": 700}
drawn = partial(generate, name="synthetic_a", **sizes, seed=0)
data = FER2013DataModule(data_folder("synthetic_a"), name="synthetic_a", generator=drawn)
module = EmotionModule(network)


# %%
class Curves(Callback):
    """Keeps the numbers of each epoch, for the plot below."""

    def __init__(self):
        self.rows = []

    def on_train_epoch_end(self, trainer, module):
        values = {**trainer.callback_metrics, **module.train_metrics.compute()}
        self.rows.append({name: float(value) for name, value in values.items()})


curves = Curves()
trainer = Trainer(
    max_epochs=2 if QUICK else 6,
    callbacks=[curves],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, data)

# %%
history = pd.DataFrame(curves.rows, index=range(1, len(curves.rows) + 1))
figure, axes = plt.subplots(1, 2, figsize=(9, 3))
for axis, name in zip(axes, ("loss", "macro_f1"), strict=True):
    history[[f"train/{name}", f"val/{name}"]].plot(ax=axis, marker="o", xlabel="epoch", title=name)
history.round(3)

# %% [markdown]
# How to read such curves. *Loss falls in both*: it learns. *Training far better than validation,
# and validation getting worse*: it learns its images by heart. *Both still improve at the end*: it
# was stopped early. Training values are measured on augmented images with dropout, so validation
# may well look better.
#
# ## Exp-A and Exp-B
#
# The same from the command line, with everything that a study needs: the best epoch on validation
# macro-F1 is kept, the test split is measured once, and a folder with checkpoints, figures and a
# report is left behind. The two experiments compose to the same configuration but for the dataset.
# A run that has finished is not run again; one that was stopped is resumed.

# %%
SMALL = ["model=shared_cnn_small", "trainer.max_epochs=6"]
TINY = ["model.widths=[8,16,16,32]", "model.image_size=32", "trainer.max_epochs=2",
        "metrics.resamples=100"]  # fmt: skip
FEW = [f"++dataset.generator.{split}={n}" for split, n in sizes.items()]
runs = {}
for dataset in DATASETS:
    is_drawn = dataset.startswith("synthetic")
    size = (TINY if QUICK else SMALL if is_drawn else []) + (FEW if QUICK and is_drawn else [])
    options = [f"dataset={dataset}", *size, *TRAIN, "trainer.progress_bar=false"]
    runs[dataset] = run("train.py", *options, name=f"train/{dataset}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axis, (dataset, folder) in zip(axes, runs.items(), strict=False):
    epochs = pd.read_csv(folder / "history.csv")
    epochs["epoch"] += 1  # files count from 0
    epochs.plot(x="epoch", y=["train_macro_f1", "val_macro_f1"], ax=axis, title=dataset)
    kept = epochs.val_macro_f1.idxmax()
    axis.axvline(epochs.epoch[kept], linestyle=":", color="gray")
print("Dotted: the epoch that is kept, with the best macro-F1 on validation.")

# %% [markdown]
# ## How well do they do?
#
# On the test split, measured once, with 95 % intervals over the images. They do not say how much
# another seed would change.

# %%
scores = {}
for dataset, folder in runs.items():
    found = json.loads((folder / "metrics.json").read_text())
    for name in ("accuracy", "macro_f1"):
        low, high = found["confidence_intervals"][name]
        scores.setdefault(dataset, {})[name] = (
            f"{100 * found[name]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        )
    scores[dataset]["test images"] = found["samples"]
pd.DataFrame(scores).T

# %% [markdown]
# ## Questions
#
# 1. Where are most of the parameters? What would a network with twice the channels cost, in
#    parameters and in time?
# 2. Why is the epoch chosen by macro-F1 on `val`, and not by accuracy on `test`?
# 3. Try something else: `python train.py -m optimizer.lr=1e-2,3e-3,1e-3 test=false`. Why
#    `test=false`?
