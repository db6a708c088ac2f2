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
# from the internet, each labelled by about forty people and aligned to 100 × 100 pixels. It is the
# second dataset of the study: other pictures, other annotators, other shares of the emotions.
#
# **RAF-DB may not be passed on.** `synthetic_b`, the default below, stands in for it: drawings,
# written in the form in which RAF-DB's authors distribute theirs and read by the same reader. Its
# pictures and numbers say nothing about human faces. `rafdb` takes the real images.

# %%
from helpers import (
    command,
    compose,
    draw_augmentations,
    draw_inputs,
    load_data,
    policy_table,
    setting,
    show,
    show_part,
    size_of,
    table,
)
from omegaconf import OmegaConf

from fer.data.readers.rafdb import CODES
from fer.report.dataset_page import dataset_section, subgroup_tables

DATASET = setting("DATASET", "synthetic_b")  # "rafdb" for the real faces
QUICK = setting("QUICK", "0") == "1"  # a handful of images, to see that the notebook runs

size = size_of(DATASET, quick=QUICK)
options = [f"dataset={DATASET}", *size.data]

# %% [markdown]
# ## Getting the images
#
# Ask [the authors](http://www.whdeld.cn/RAF/model1.html) for access, for research. Put what you get
# into `data/rafdb/raw/`: the folder `basic` with `EmoLabel/` and `Image/`. The layout of the usual
# mirror (`DATASET/train/1…7/`) is understood as well.
#
# The authors' aligned faces are used where they are there. Otherwise faces are cut out of the
# original photographs by their bounding boxes; `conf/dataset/rafdb.yaml` has the choices.
#
# ## Preparing
#
# One command reads the raw copy, checks it and writes `data/<dataset>/`. A prepared dataset is
# complete or absent. Where it is prepared already, the command only says what was found.

# %%
command("-m", "fer", "prepare", *options)

# %% [markdown]
# ## How it is organised
#
# As every dataset here: `<split>/<emotion>/<id>.png`, with `manifest.csv`, `integrity.json` and
# `report.html`.

# %%
cfg = compose("train", *options, *size.training)
data = load_data(cfg)
integrity = data.prepared.integrity
entries = data.prepared.entries
show(
    table(
        "manifest",
        ["Id", "Split", "Emotion", "From", "Checksum of the pixels"],
        [
            [entry.id, entry.split, entry.emotion, entry.source, f"{entry.sha256[:16]}…"]
            for entry in entries[:: max(1, len(entries) // 6)]
        ],
    ),
    caption=f"A few of the {len(entries):,} rows of manifest.csv.",
)

# %% [markdown]
# ## Labels
#
# RAF-DB counts its emotions in an order of its own. They are mapped **by name** into the one order
# that is used everywhere here. Nothing ever compares a code of one dataset with a code of another.

# %%
show(
    table("labels", ["RAF-DB's code", "Emotion"], [[code, name] for code, name in CODES.items()]),
    caption="RAF-DB's codes, as its readme defines them.",
)

# %% [markdown]
# ## Splits
#
# RAF-DB has an official `train` and `test`, and no validation split. A share of `train` is held out
# as `val`, with each emotion as frequent as in the rest, and the same on every machine. It decides
# when to stop and which epoch to keep; `test` decides nothing.

# %%
section = dataset_section(integrity)
show(section["counts"], caption=f"Images of each emotion and split. {section['counts_note']}")

# %% [markdown]
# ## Class balance
#
# Happy faces are many, frightened ones few. Compare this with FER2013 in notebook 1: two datasets
# that differ in how frequent the emotions are give different accuracies to the same network, even
# if it recognises each emotion equally well in both. Notebook 4 tells the two apart.

# %%
pictures = data.folder / "figures"
show(
    pictures / "class_balance.png",
    caption="Each emotion's share of the images of every split.",
)

# %% [markdown]
# ## Who is in the pictures
#
# RAF-DB's annotators also judged gender, race and age from each picture, where the copy has their
# files. These are judgements of others, not what the people say of themselves. They are not used in
# training; evaluation reports the scores of each group.

# %%
for groups in subgroup_tables(entries):
    show(groups, caption="Images by what the annotators judged, in each split.")

# %% [markdown]
# ## What the images look like

# %%
show(
    pictures / "samples.png",
    caption="Up to eight training images of each emotion, picked at random with a fixed seed. The "
    "faces of a row should share its emotion.",
)

# %% [markdown]
# ## Is it the copy that was published?
#
# The pixels of RAF-DB are not known to this program. The verdict rests on the official numbers of
# images, their size, and how the splits look beside each other.

# %%
show_part("verdict", section["verdict"])
show_part("findings", section["findings"])

# %%
show(
    section["pixels"],
    caption="Brightness, contrast and sharpness of each split. A split that was smoothed or "
    "sharpened would stand apart from the others.",
)

# %% [markdown]
# ## What stands there more than once
#
# An image in `train` that stands again in `test` makes a network look better than it is. Every
# `metrics.json` has the scores without such images beside the official ones.

# %%
show(section["copies"], caption="Duplicates, leaks and blank images of this copy.")

# %%
GALLERIES = {
    "duplicates.png": "Exact duplicates: the same pixels more than once.",
    "conflicts.png": "Exact duplicates with different emotions: at most one label is right.",
    "near_duplicates.png": "Near duplicates: other crops, sizes or watermarks of one picture.",
    "blank.png": "Images that show nothing.",
}
for name, caption in GALLERIES.items():
    if (pictures / name).is_file():
        show(pictures / name, caption=caption)
    else:
        print(f"None here: {caption}")

# %% [markdown]
# ## From the prepared image to the input
#
# Both datasets reach the network in one form, so that one network can be measured on both: the same
# size, and gray by default. Mean and standard deviation come from the training split of the dataset
# that a network was trained on, and stay with the network wherever it is measured.

# %%
show(
    draw_inputs(data),
    caption="A training image of each emotion as it was prepared, and below it as the network "
    "gets it (before normalisation).",
)
mean, std = data.normalisation()
show(
    table(
        "input",
        ["Of the training images", "Value"],
        [
            ["mean, per channel, as a share of 255", ", ".join(f"{m:.4f}" for m in mean)],
            ["standard deviation", ", ".join(f"{s:.4f}" for s in std)],
        ],
    ),
    caption="What the input is normalised with.",
)

# %% [markdown]
# ## Augmentation
#
# The policy is the same as for FER2013, value for value: what differs between the two experiments
# is the dataset alone.

# %%
show(policy_table(cfg), caption="The augmentation policy, in the order of application.")

# %%
show(
    draw_augmentations(data, cfg),
    caption="Above: each transform alone, on every face. Below: the whole policy in four epochs, "
    "with each transform as rare as in training.",
)

# %% [markdown]
# ## What to take along
#
# - `report.html` in the dataset's folder has everything above on one page, with the names of the
#   images behind each picture.
# - Faces that were found by emotion words on the internet are often acted or exaggerated, and they
#   are no sample of people.
# - A score on this dataset and a score on FER2013 are no measure of which network is better: the
#   images, the labels and the shares of the emotions differ.
#
# The configuration that this notebook used:

# %%
print(OmegaConf.to_yaml(cfg.dataset))
