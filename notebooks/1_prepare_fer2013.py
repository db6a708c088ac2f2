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
# # 1 · Preparing FER2013
#
# FER2013 (Goodfellow et al., [arXiv 1307.0414](https://arxiv.org/abs/1307.0414)) has 35,887 gray
# faces of 48 × 48 pixels, found by an image search and labelled with one of seven emotions. Before
# anything is learned from them, we look at what is there: how the images are split, how often each
# emotion occurs, what is in there twice, and what the network will see.
#
# **By default every face is a drawing** (`synthetic_a`), made in seconds and stored in FER2013's
# form. The code is the same, but the numbers say nothing about human faces. Set `DATASET` to
# `fer2013` for the real ones.

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from helpers import data_folder, python, setting

from fer.data.augmentation import Augmentation, load_policy

DATASET = setting("DATASET", "synthetic_a")
QUICK = setting("QUICK", "0") == "1"  # a handful of images, to see that the notebook runs
PHOTOGRAPHS = setting("PHOTOGRAPHS", "1") == "1"  # 0: show no picture of a person

FEW = ["dataset.generator.train=105", "dataset.generator.val=28", "dataset.generator.test=56"]
few = FEW if QUICK and DATASET.startswith("synthetic") else []

# %% [markdown]
# ## Getting the images
#
# Download `archive.zip` (60 MB) from
# [msambare/fer2013](https://www.kaggle.com/datasets/msambare/fer2013) with a free Kaggle account,
# and put it into `data/fer2013/raw/`. One command reads it, compares it with the published
# dataset, and writes `data/fer2013/`. What has been prepared before is only described.

# %%
python("-m", "fer", "prepare", f"dataset={DATASET}", *few)

# %% [markdown]
# ## What is there
#
# Every image is a file `<split>/<emotion>/<id>.png`. `manifest.csv` has a row for each, with the
# file it comes from and a checksum of its pixels.

# %%
folder = data_folder(DATASET)
manifest = pd.read_csv(folder / "manifest.csv")
manifest.sample(5, random_state=0)

# %% [markdown]
# ## Splits and class balance
#
# FER2013's authors decided which image serves what: *Training* (here `train`), *PublicTest*
# (`val`) and *PrivateTest* (`test`). The network learns from `train`. `val` decides when to stop
# and which epoch to keep. `test` is used once, at the end, and decides nothing.

# %%
EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
SPLITS = ["train", "val", "test"]
counts = manifest.pivot_table(index="emotion", columns="split", values="id", aggfunc="count")
counts = counts.loc[EMOTIONS, SPLITS]
counts

# %%
shares = 100 * counts / counts.sum()
shares.plot.bar(rot=0, ylabel="share of the split (%)", xlabel="", figsize=(9, 3))
most = counts["test"].idxmax()
plt.title(f"Always answering “{most}” would be right in {shares['test'].max():.1f} % of test")
plt.show()

# %% [markdown]
# A network may have a good **accuracy** and still miss a rare emotion altogether. **Macro-F1**,
# the mean of the seven F1 scores, counts every emotion the same. Both are reported everywhere, and
# macro-F1 chooses the epoch.

# %% [markdown]
# ## What the images look like
#
# Five training images of each emotion, chosen at random with a fixed seed. Would you agree with
# every label? People agreed with FER2013's labels on 65 ± 5 % of a part of it (Goodfellow et al.):
# no score should be read without this number.


# %%
def show_faces(rows, title):
    """A grid of faces: a row for each entry of ``rows``, a list of image files with its name."""
    height, width = len(rows), max(len(files) for _, files in rows)
    figure, axes = plt.subplots(
        height, width, figsize=(1.2 * width, 1.2 * height), squeeze=False, layout="constrained"
    )
    for line, (name, files) in zip(axes, rows, strict=True):
        line[0].text(-0.1, 0.5, name, ha="right", va="center", transform=line[0].transAxes)
        for axis in line:
            axis.axis("off")
        for axis, file in zip(line, files, strict=False):
            axis.imshow(plt.imread(file), cmap="gray")
    figure.suptitle(title)


def file_of(row):
    """The prepared file of a row of the manifest."""
    return folder / row.split / row.emotion / f"{row.id}.png"


train = manifest[manifest.split == "train"]
rows = [
    (emotion, [file_of(row) for row in group.sample(5, random_state=0).itertuples()])
    for emotion, group in train.groupby("emotion")
]
if PHOTOGRAPHS:
    show_faces(rows, f"{DATASET}: training images")

# %% [markdown]
# ## Is this the published dataset?
#
# Most public copies of FER2013 are copies of copies: some were smoothed, enlarged or re-split on
# the way. Preparation compares every image with the original by checksums and perceptual hashes.

# %%
integrity = json.loads((folder / "integrity.json").read_text())
print(f"{integrity['verdict']}: {integrity['verdict_text']}")
for finding in integrity["findings"]:
    print(" -", finding["text"])

# %% [markdown]
# ## What is in there twice?
#
# An image that is in `train` and again in `test` makes a network look better than it is, because
# it has seen the answer. The checksums find exact copies; a groupby does the rest.

# %%
copies = manifest.groupby("sha256").filter(lambda group: len(group) > 1)
groups = copies.groupby("sha256")
across = groups.filter(lambda group: group.split.nunique() > 1)
contradicting = groups.filter(lambda group: group.emotion.nunique() > 1)
seen = set(manifest[manifest.split != "test"].sha256)
leaked = manifest[(manifest.split == "test") & manifest.sha256.isin(seen)]
pd.Series(
    {
        "images with an exact copy": len(copies),
        "of these, in several splits": len(across),
        "of these, with different emotions": len(contradicting),
        "test images that are also in train or val": len(leaked),
    },
    name="images",
).to_frame()

# %% [markdown]
# Preparation found the same, and near copies (other crops, sizes, watermarks) as well. By default
# nothing is left out, so that scores can be compared with published ones; every result also has
# the scores without these images.

# %%
assert integrity["leaks"]["test_in_train_or_val"] == len(leaked)
pd.json_normalize({key: integrity[key] for key in ("duplicates", "leaks", "near_duplicates")}).T[
    lambda found: found[0].map(lambda value: isinstance(value, int))
]

# %%
pairs = [
    (" / ".join(sorted(set(group.emotion))), [file_of(row) for row in group.itertuples()][:5])
    for _, group in list(contradicting.groupby("sha256"))[:4]
]
if pairs and PHOTOGRAPHS:
    show_faces(pairs, "The same picture with different labels: at most one is right")

# %% [markdown]
# ## What the network sees
#
# Images reach the network as 48 × 48 gray pixels, normalised by mean and standard deviation of
# `train`. While training, they are changed a little in every epoch, so that the network cannot
# learn them by heart: flipped, shifted, turned, darkened, covered. What happens to an image
# follows from seed, epoch and image alone, so a training can be repeated exactly.

# %%
files = [file_of(group.iloc[0]) for _, group in train.groupby("emotion")]
images = [(255 * plt.imread(file)).round().astype(np.uint8) for file in files]
images = [image if image.ndim == 3 else image[..., None] for image in images]
augment = Augmentation(load_policy("standard"), 0)
figure, axes = plt.subplots(5, 7, figsize=(8.5, 6), layout="constrained")
for epoch, line in enumerate(axes):
    for index, (axis, image) in enumerate(zip(line, images, strict=True)):
        shown = image if epoch == 0 else augment(image, epoch=epoch, index=index)
        axis.imshow(shown, cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
    line[0].text(
        -0.1, 0.5, f"epoch {epoch}" if epoch else "as it is", ha="right", va="center",
        transform=line[0].transAxes,
    )  # fmt: skip
figure.suptitle("The same training images in four epochs")
if not PHOTOGRAPHS:
    plt.close(figure)

# %% [markdown]
# ## Questions
#
# 1. Which emotion would a lazy network always answer, and what macro-F1 would it have?
# 2. Leave the leaked images out of `test`. Should accuracy rise or fall, and why?
# 3. Find an image whose label you would contest. `python -m fer audit` finds thousands.
