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
# faces of 48 × 48 pixels, collected by an image search and labelled with one of seven emotions.
# This notebook prepares it and looks at what is in it: how the files are organised, how the splits
# came about, whether the copy is the published one, what stands in it twice, and what the network
# gets to see in the end.
#
# **With `synthetic_a`, the default below, every face is a drawing** in the form of FER2013, made in
# seconds without a download. Everything works alike, but the pictures and numbers say nothing about
# human faces. `fer2013` takes the real images.

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

from fer.data.readers.fer2013 import TABLE_EMOTIONS
from fer.report.dataset_page import dataset_section

DATASET = setting("DATASET", "synthetic_a")  # "fer2013" for the real faces
QUICK = setting("QUICK", "0") == "1"  # a handful of images, to see that the notebook runs

size = size_of(DATASET, quick=QUICK)
options = [f"dataset={DATASET}", *size.data]

# %% [markdown]
# ## Getting the images
#
# FER2013 is free for research, but not part of this repository. With a free Kaggle account,
# download `archive.zip` (60 MB) from
# [msambare/fer2013](https://www.kaggle.com/datasets/msambare/fer2013) and put it into
# `data/fer2013/raw/`. The older public forms are understood as well: the unpacked folder,
# `fer2013.csv` and `icml_face_data.csv`. All of them have the same images, labels and splits; the
# archive is a JPEG encoding of the table that the authors published, so its pixels differ a little.
#
# ## Preparing
#
# One command reads the raw copy, checks it and writes `data/<dataset>/`. A prepared dataset is
# complete or absent: if this is stopped half-way, nothing that is incomplete will be read later.
# Where the dataset is prepared already, the command only says what was found.

# %%
command("-m", "fer", "prepare", *options)

# %% [markdown]
# ## How it is organised
#
# Each image is a PNG file at `<split>/<emotion>/<id>.png`. `manifest.csv` has a row for each, with
# the file of the raw copy that it comes from and a checksum of its pixels. `integrity.json` has
# what the checks found, `report.html` shows it.

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
# The seven emotions have one order everywhere in this program. Readers map into it **by name**: the
# index that a dataset gives to an emotion is nothing that another dataset would understand, and a
# score that compares indices of two datasets means nothing.

# %%
show(
    table(
        "labels",
        ["Code in fer2013.csv", "Emotion"],
        [[str(code), emotion] for code, emotion in enumerate(TABLE_EMOTIONS)],
    ),
    caption="FER2013's own codes. In the image archive the folders' names say the emotion.",
)

# %% [markdown]
# ## Splits
#
# The authors gave each image a usage: *Training* is our `train`, *PublicTest* is `val` and
# *PrivateTest* is `test`. The network learns from `train`; `val` decides when to stop and which
# epoch to keep; `test` is measured once, at the end, and decides nothing.

# %%
section = dataset_section(integrity)
show(section["counts"], caption=f"Images of each emotion and split. {section['counts_note']}")

# %% [markdown]
# ## Class balance
#
# The emotions are far from equally frequent. A classifier can therefore have a good accuracy and be
# poor at the rare ones, which is why macro-F1 (the mean of the seven F1 scores, each counting the
# same) stands beside accuracy everywhere.

# %%
pictures = data.folder / "figures"
show(
    pictures / "class_balance.png",
    caption="Each emotion's share of the images of every split. Look at how unequal the bars are, "
    "and whether the three splits agree.",
)

# %% [markdown]
# ## What the images look like

# %%
show(
    pictures / "samples.png",
    caption="Up to eight training images of each emotion, picked at random with a fixed seed. The "
    "faces of a row should share its emotion; on real images, wrong labels are to be seen "
    "here.",
)

# %% [markdown]
# ## Is it the copy that was published?
#
# Most public copies are copies of copies. Preparation holds each image against what is known of the
# original one and says whether pixels, labels and splits are those that were published.

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
# An image that stands in `train` and again in `test` makes a network look better than it is: it has
# seen the answer. Copies with different emotions cannot all be right. The official splits are kept
# all the same, since published results are measured on them; every `metrics.json` has the scores
# without such images beside the official ones. The table names the option that leaves them out.

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
# Images are brought to the network's input size once and kept as whole numbers 0–255. Mean and
# standard deviation are computed from `train` alone. They are a part of the network, so that a
# checkpoint cannot be used with other ones.

# %%
show(
    draw_inputs(data),
    caption="A training image of each emotion as it was prepared, and below it as the network "
    "gets it (before normalisation).",
)
mean, std = data.normalisation()
images, target = next(iter(data.train_dataloader()))
show(
    table(
        "input",
        ["What the network gets", "Value"],
        [
            [
                "batch: images, channels, height, width",
                " × ".join(map(str, images.shape)),
            ],
            ["type", str(images.dtype)],
            ["mean of train, per channel, as a share of 255", ", ".join(f"{m:.4f}" for m in mean)],
            ["standard deviation", ", ".join(f"{s:.4f}" for s in std)],
        ],
    ),
    caption="A batch as the data loader makes it.",
)

# %% [markdown]
# ## Augmentation
#
# Training images are changed anew in each epoch, so that the network cannot learn them by heart.
# What an image looks like in an epoch follows from the seed, the epoch and the image alone: a run
# can be repeated exactly. Validation and test images are never changed.

# %%
show(policy_table(cfg), caption="The augmentation policy, in the order of application.")

# %%
show(
    draw_augmentations(data, cfg),
    caption="Above: each transform alone, on every face. Below: the whole policy in four epochs, "
    "with each transform as rare as in training. The emotion must stay recognisable: what "
    "you cannot tell any more, the network should not be asked to learn.",
)

# %% [markdown]
# ## What to take along
#
# - `report.html` in the dataset's folder has everything above on one page, with the names of the
#   images behind each picture.
# - Of the labels, nothing here says whether they are *right*. People agree with FER2013's labels on
#   about 65 ± 5 % of its images (Goodfellow et al.): no score should be read without that number.
# - Faces of an image search are no sample of people: who is in the pictures, and who is not, was
#   not controlled by anybody.
#
# The configuration that this notebook used:

# %%
print(OmegaConf.to_yaml(cfg.dataset))
