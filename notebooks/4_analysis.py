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
# This notebook measures the networks of notebook 3 (and trains them if that was not done). All
# numbers below are read from the run folders; the text says how to read them and stays true
# whatever they are. **With the default, all faces are drawings**, and the results say nothing about
# human faces.
#
# `CHECKPOINT_A` and `CHECKPOINT_B` take checkpoints of your own: paths of `best.ckpt` files,
# trained on the first and second of `DATASETS`.
#
# The notebook is also a talk of about eight minutes:
#
# ```
# jupyter nbconvert --to slides --execute --no-input --SlidesExporter.reveal_number=c/t \
#     --SlidesExporter.reveal_width=1280 --SlidesExporter.reveal_height=800 \
#     --output-dir outputs/notebooks notebooks/4_analysis.ipynb
# ```
#
# makes `outputs/notebooks/4_analysis.slides.html` (a browser with a network shows it).

# %% slideshow={"slide_type": "skip"}
from pathlib import Path

from helpers import (
    checkpoint_option,
    cross_table,
    damage_table,
    findings,
    of_data,
    of_scores,
    read_notes,
    run,
    run_table,
    saliency_checks_table,
    score_table,
    setting,
    show,
    show_part,
    size_of,
)
from IPython.display import Markdown, display

DATASETS = setting("DATASET", "synthetic_a,synthetic_b").split(",")  # "fer2013,rafdb": real faces
QUICK = setting("QUICK", "0") == "1"  # a tiny network on a handful of images
CHECKPOINT_A = setting("CHECKPOINT_A", "")  # of the first dataset; empty: trained as in notebook 3
CHECKPOINT_B = setting("CHECKPOINT_B", "")  # of the second
TRAIN = setting("TRAIN", "").split()  # more options of train.py, the same as in notebook 3
EVALUATE = setting("EVALUATE", "").split()  # and of evaluate.py, such as "saliency.seed=1"

# %% [markdown] slideshow={"slide_type": "skip"}
# ## The networks

# %% slideshow={"slide_type": "skip"}
networks = {}
for dataset, checkpoint in zip(DATASETS, [CHECKPOINT_A, CHECKPOINT_B], strict=False):
    size = size_of(dataset, quick=QUICK)
    if checkpoint:
        networks[dataset] = Path(checkpoint)
        continue
    folder = run(
        "train.py",
        f"dataset={dataset}",
        *size.data,
        *size.training,
        *TRAIN,
        "trainer.progress_bar=false",
        name=f"train/{dataset}",
    )
    networks[dataset] = folder / "checkpoints" / "best.ckpt"

# %% [markdown] slideshow={"slide_type": "skip"}
# ## The measurements
#
# Each network on the test split of its own dataset: clean, and under blur, occlusion and low light,
# with saliency maps.

# %% slideshow={"slide_type": "skip"}
home = {}
for dataset, checkpoint in networks.items():
    size = size_of(dataset, quick=QUICK)
    home[dataset] = run(
        "evaluate.py",
        checkpoint_option(checkpoint),
        f"dataset={dataset}",
        "perturbation=stress",
        "saliency=standard",
        *size.data,
        *size.evaluation,
        *of_data(TRAIN),
        *EVALUATE,
        name=f"evaluate/{dataset}",
    )

# %% [markdown] slideshow={"slide_type": "skip"}
# Then each network on each dataset, where there are two. Emotions are matched by name.

# %% slideshow={"slide_type": "skip"}
cross = None
if len(networks) > 1:
    cross = run(
        "evaluate.py",
        "-m",
        checkpoint_option(*networks.values()),
        f"dataset={','.join(networks)}",
        *size_of(DATASETS[0], quick=QUICK).data,
        *of_data(TRAIN),
        *of_scores(EVALUATE),
        name="cross",
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One recipe, twice
#
# - Four blocks of convolution, average pooling, one linear layer; no pretrained weights
# - The same recipe, value for value, on each dataset: only the data differ
# - Validation chooses the epoch; the test split is measured once
# - Every number here comes from a run folder, which names its command

# %% slideshow={"slide_type": "-"}
show_part("notes", read_notes(home))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How well?

# %% slideshow={"slide_type": "-"}
show(
    score_table(home),
    caption="Each network on the test split of its own dataset. Small: 95 % interval "
    "over images. Accuracy counts images, macro-F1 counts emotions: a gap between them "
    "says that rare emotions do worse.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What is taken for what?

# %% slideshow={"slide_type": "-"}
show(
    *(folder / "figures" / "confusion_matrix_test.png" for folder in home.values()),
    caption="Confusion matrices. A row is a true emotion, a column an answer; big: percent of the "
    "row. Look for dark cells off the diagonal, and for columns that draw answers from "
    "everywhere.",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Each emotion

# %% slideshow={"slide_type": "skip"}
show(
    *(folder / "figures" / "per_class_test.png" for folder in home.values()),
    caption="Precision, recall and F1 of each emotion. Scores of emotions with few images (below "
    "their names) are uncertain.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Under blur, occlusion and low light

# %% slideshow={"slide_type": "-"}
show(
    *(folder / "figures" / "robustness.png" for folder in home.values()),
    caption="Accuracy and, at its right, macro-F1 against the severity of each kind of damage; 0 "
    "is clean. The shade is the 95 % interval. A flat line is robust, wherever it begins.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ## What is left under damage

# %% slideshow={"slide_type": "-"}
show(
    damage_table(home),
    caption="Area under each curve as a share of what it would be if the clean score held: 100 % "
    "is no loss. It compares how networks take damage even if their clean scores differ.",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What the damage looks like, and which emotions it takes

# %% slideshow={"slide_type": "skip"}
for dataset, folder in home.items():
    show(
        folder / "figures" / "perturbations.png",
        caption=f"Faces of {dataset} under each perturbation, as the network gets them. Judge for "
        "yourself at which severity you would still recognise the emotion.",
    )

# %% slideshow={"slide_type": "skip"}
for dataset, folder in home.items():
    show(
        folder / "figures" / "robustness_per_class.png",
        caption=f"Recall of each emotion of {dataset} under damage. An emotion that rises draws "
        "the answers of damaged images to itself: that is no robustness.",
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From one dataset to the other

# %% slideshow={"slide_type": "-"}
if cross:
    show(
        cross_table(cross),
        caption="Each network on each dataset. Change: in percentage points against the same "
        "network on its own dataset. Compare within a dataset: from one to the other the "
        "images' difficulty changes too.",
    )
else:
    print("One dataset was chosen: there is no other one to carry the network to.")

# %% slideshow={"slide_type": "subslide"}
if cross:
    show(
        cross / "figures" / "recall.png",
        caption="Share of each emotion's images that is recognised, for each network on each "
        "dataset. Where a network fails abroad on single emotions, it is these that carry "
        "the loss.",
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where does it look?

# %% slideshow={"slide_type": "-"}
show(
    *(folder / "figures" / "saliency_class_maps.png" for folder in home.values()),
    caption="Mean saliency of each emotion over the mean face, by four methods. Red pixels bear "
    "the most on the emotion. Boxes: brows, eyes, nose and mouth of a frontal face.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ## Can these maps be believed?

# %% slideshow={"slide_type": "-"}
show(
    saliency_checks_table(home),
    caption="Deletion and insertion: whether the probability follows the map's order of pixels "
    "better than a random order, both when deleted pixels become the image's mean gray and when "
    "they become black. Last column: rank correlation with the map of the same "
    "network with random weights; near 0, the map shows what was learned; near 1, only "
    "the image's edges.",
)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Single images

# %% slideshow={"slide_type": "skip"}
for dataset, folder in home.items():
    show(
        folder / "figures" / "saliency_examples.png",
        caption=f"An image of each emotion of {dataset} with the map of each method, each on a "
        "scale of its own: places can be compared, amounts cannot.",
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What does it get wrong?

# %% slideshow={"slide_type": "-"}
SUREST = (
    "The mistakes that the network was surest of. Look for wrong labels among them. Beside each "
    "face: where the answer comes from; below it: the true emotion, → the answer, with their "
    "probabilities."
)
mistakes = [folder / "figures" / "confident_mistakes.png" for folder in home.values()]
mistakes = [picture for picture in mistakes if picture.is_file()]  # none where all is right
for picture in mistakes[:1]:
    show(picture, caption=SUREST)

# %% slideshow={"slide_type": "subslide"}
for picture in mistakes[1:]:
    show(picture, caption=SUREST)

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Frequent confusions

# %% slideshow={"slide_type": "skip"}
confusions = [folder / "figures" / "confusions.png" for folder in home.values()]
for picture in confusions:
    if picture.is_file():
        show(
            picture,
            caption="A line for each of the most frequent confusions, with its most confident "
            "images. Would you tell these two emotions apart in these faces?",
        )

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the numbers say

# %% slideshow={"slide_type": "-"}
display(Markdown("\n\n".join(findings(home, cross))))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How far that goes
#
# - **Labels** are judgements of a few people about a picture, not what a person felt. Where people
#   disagree, no score can be near 100 %.
# - **Intervals** are over test images. Each network was trained once: another seed gives other
#   numbers, and a small difference says nothing about a recipe.
# - **Accuracy abroad** falls because faces look otherwise, because annotators judged otherwise, and
#   because emotions are otherwise frequent. `report.html` of each on each measures the last part.
# - **Damage** here is made by a computer. It says which kind hurts more, not what a camera in the
#   dark would do.
# - **Saliency** says which pixels bear on a score, not why. A map that fails the checks shows
#   nothing.
# - **Not measured**: who is in the pictures. A network that is right on average may be wrong for
#   some.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## To see for yourself
#
# Each run folder has `report.html` with everything on one page, and `run.json` with the command,
# code, data and machine that it came from.

# %% slideshow={"slide_type": "-"}
show(
    run_table({**home, **({"each on each": cross} if cross else {})}),
    caption="Where the results of this notebook are.",
)

# %% [markdown] slideshow={"slide_type": "notes"}
# Speaking notes: one minute for the question and the recipe, one for the scores, one for the
# confusions, one and a half for robustness, one and a half for the two datasets, one for saliency,
# one for the discussion.
