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
# # 2 · Preparing RAF-DB
#
# RAF-DB (Li, Deng & Du, [CVPR 2017](http://www.whdeld.cn/RAF/model1.html)) has 15,339 colour faces
# from the internet, each labelled by about forty people. It is the second dataset of the study:
# other pictures, other annotators, other shares of the emotions.
#
# **RAF-DB may not be redistributed.** `synthetic_b`, the default, stands in for it: drawings in
# the form in which RAF-DB's authors distribute theirs, read by the same code. The numbers say
# nothing about human faces. Ask [the authors](http://www.whdeld.cn/RAF/model1.html) for access,
# put the folder `basic` into `data/rafdb/raw/`, and set `DATASET` to `rafdb`.

# %%
import json

import matplotlib.pyplot as plt
import pandas as pd
from helpers import data_folder, python, setting
from IPython.display import display

from fer.core.labels import EMOTIONS
from fer.data.readers.rafdb import CODES

DATASET = setting("DATASET", "synthetic_b")
QUICK = setting("QUICK", "0") == "1"  # a handful of images, to see that the notebook runs
PHOTOGRAPHS = setting("PHOTOGRAPHS", "1") == "1"  # 0: show no picture of a person

FEW = ["dataset.generator.train=105", "dataset.generator.val=28", "dataset.generator.test=56"]
few = FEW if QUICK and DATASET.startswith("synthetic") else []
python("-m", "fer", "prepare", f"dataset={DATASET}", *few)

# %%
folder = data_folder(DATASET)
manifest = pd.read_csv(folder / "manifest.csv")
integrity = json.loads((folder / "integrity.json").read_text())
manifest.sample(5, random_state=0)

# %% [markdown]
# ## Labels are mapped by name
#
# RAF-DB numbers its emotions from 1 to 7 in an order of its own. Readers translate by **name**. A
# score that compares numbers of two datasets means nothing, and no error message would tell.

# %%
pd.DataFrame(
    {"here": {name: index for index, name in enumerate(EMOTIONS)},
     "RAF-DB": {name: int(code) for code, name in CODES.items()}}
)  # fmt: skip

# %% [markdown]
# ## Splits and class balance
#
# RAF-DB has `train` and `test`, but no validation split. A part of `train` is held out as `val`,
# with each emotion as frequent as in the rest, and the same on every machine.

# %%
SPLITS = ["train", "val", "test"]
counts = manifest.pivot_table(index="emotion", columns="split", values="id", aggfunc="count")
counts = counts.loc[list(EMOTIONS), SPLITS]
counts

# %%
(100 * counts / counts.sum()).plot.bar(
    rot=0, ylabel="share of the split (%)", xlabel="", figsize=(9, 3), title=DATASET
)  # fmt: skip
plt.show()

# %% [markdown]
# Compare this with notebook 1. A network that recognises each emotion equally well on both
# datasets still gets a different accuracy on each, because the emotions are differently frequent.
# Notebook 4 tells the two effects apart.
#
# ## Who is in the pictures?
#
# RAF-DB's annotators also judged gender, race and age. These are judgements of others from a
# picture, not what the people say of themselves. They are not used in training, but evaluation
# reports each group.

# %%
attributes = [name for name in ("gender", "race", "age") if name in manifest]
for name in attributes:
    display(manifest.pivot_table(index=name, columns="split", values="id", aggfunc="count")[SPLITS])

# %% [markdown]
# ## What the images look like

# %%
train = manifest[manifest.split == "train"]
figure, axes = plt.subplots(7, 6, figsize=(7.5, 9), layout="constrained")
for emotion, line in zip(EMOTIONS, axes, strict=True):
    chosen = train[train.emotion == emotion].sample(6, random_state=0)
    for axis, row in zip(line, chosen.itertuples(), strict=True):
        axis.imshow(plt.imread(folder / row.split / row.emotion / f"{row.id}.png"))
        axis.axis("off")
    line[0].text(-0.1, 0.5, emotion, ha="right", va="center", transform=line[0].transAxes)
if not PHOTOGRAPHS:
    plt.close(figure)

# %% [markdown]
# ## Can this copy be trusted?
#
# The published pixels of RAF-DB are not known to this program. The verdict rests on the official
# counts, the size of the images, and how alike the splits look: a split that was smoothed or
# sharpened would stand apart.

# %%
print(f"{integrity['verdict']}: {integrity['verdict_text']}")
pd.DataFrame(integrity["pixels"]).T.round(3)

# %%
copies = manifest.groupby("sha256").filter(lambda group: len(group) > 1)
seen = set(manifest[manifest.split != "test"].sha256)
leaked = manifest[(manifest.split == "test") & manifest.sha256.isin(seen)]
assert integrity["leaks"]["test_in_train_or_val"] == len(leaked)
print(f"{len(copies)} images have an exact copy; {len(leaked)} of test are also in train or val.")

# %% [markdown]
# ## What the network sees
#
# Both datasets reach the network in one form, 48 × 48 and gray by default, so that one network can
# be measured on both. Mean and standard deviation come from the training split of the dataset that
# a network was trained on, and stay with it wherever it is measured. Augmentation is the same as
# for FER2013, value for value: the two experiments differ in the dataset alone.
#
# ## Questions
#
# 1. Why are both sets of images shown to the network in gray?
# 2. Which would you expect to transfer better: a network trained on many noisy labels, or on fewer
#    clean ones?
# 3. What would you need to know about the people in the pictures before you used such a network?
