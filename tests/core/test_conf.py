"""Configurations: every choice composes and can be built, and Exp-B is Exp-A on other data."""

from __future__ import annotations

import functools
import itertools
import random
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from fer.core.composition import config_folder
from fer.core.options import check_options
from fer.model.shared_cnn import SharedCNN
from tests.conftest import ROOT, compose


@pytest.mark.parametrize(
    "overrides",
    [
        "dataset=rafdb dataset.raw=x +model.depth=3 ~dataset.download logger=[csv,tensorboard]",
        "experiment=exp_b trainer.max_epochs=3 early_stopping=null dataset=folder",
    ],
)
def test_tests_compose_what_hydra_composes(overrides: str) -> None:
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        expected = hydra.compose("train", overrides=overrides.split())
    for _ in range(2):
        cfg = compose(*overrides.split())
        assert cfg == expected
        cfg.seed = 99  # must not reach those who ask for the same
    with pytest.raises(HydraException, match="nope"):
        compose("nope=1")


def test_tests_compose_hydras_own_part_as_hydra_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = ["sweep=lr_dropout", "dataset=rafdb"]
    for folder in (config_folder(), tmp_path):
        monkeypatch.chdir(folder)
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            expected = hydra.compose("train", overrides=choices, return_hydra_config=True)
        assert compose(*choices, hydra=True) == expected


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


CHOICES = [
    (folder.name, option)
    for folder in sorted(config_folder().iterdir())
    if folder.is_dir()
    for option in options(folder.name)
]


@pytest.mark.parametrize(("group", "option"), CHOICES)
def test_every_choice_composes(group: str, option: str) -> None:
    config = "evaluate" if group in ("perturbation", "saliency") else "train"
    cfg = compose(f"{group}={option}", *(["checkpoint=x"] * (config == "evaluate")), config=config)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


GROUPS = ("dataset", "augmentation", "model", "loss", "optimizer", "scheduler", "trainer", "logger",
          "experiment", "launcher", "sweep")  # fmt: skip


def covering() -> list[dict[str, str]]:
    """Combinations of an option of every group in which each two options meet at least once."""
    values = {group: options(group) for group in GROUPS}
    for group in ("experiment", "launcher", "sweep"):
        values[group] = ["", *values[group]]  # none
    pairs = {
        ((first, one), (second, other))
        for first, second in itertools.combinations(GROUPS, 2)
        for one, other in itertools.product(values[first], values[second])
    }
    rng = random.Random(0)
    rows = []
    while pairs:
        drawn = [{group: rng.choice(values[group]) for group in GROUPS} for _ in range(100)]
        best = max(drawn, key=lambda row: len(pairs & {*itertools.combinations(row.items(), 2)}))
        pairs -= {*itertools.combinations(best.items(), 2)}
        rows.append(best)
    return rows


@pytest.mark.slow
def test_choices_compose_with_each_other() -> None:
    """No option changes what another group chose, but for an experiment its dataset."""

    def plain(node: Any) -> Any:
        return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node

    alone = functools.cache(lambda group, option: plain(compose(f"{group}={option}")[group]))
    for row in covering():
        cfg = compose(*(f"{group}={option}" for group, option in row.items() if option))
        check_options(cfg, optional=["launcher", "sweep", "experiment"])
        for group in ("dataset", "augmentation", "model", "loss", "optimizer", "trainer"):
            assert plain(cfg[group]) == alone(group, row[group]), row


@pytest.mark.parametrize("option", options("model"))
def test_every_model_can_be_built(option: str) -> None:
    from fer.tasks.assembly import make_model

    assert isinstance(make_model(compose(f"model={option}").model).network, SharedCNN)


@pytest.mark.parametrize("option", options("loss"))
def test_every_loss_can_be_built(option: str) -> None:
    from fer.model.module import make_loss
    from fer.tasks.assembly import make_later

    cfg = compose(f"loss={option}").loss
    if option == "distilled":
        cfg.teacher = "pretrained"
    loss = make_loss(make_later(cfg), [3] * 7)
    assert torch.isfinite(loss(torch.randn(4, 7), torch.tensor([0, 1, 2, 6])))


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_every_schedule_works_with_every_optimizer(optimizer: str, scheduler: str) -> None:
    from fer.model.module import asks_for
    from fer.tasks.assembly import make_later

    node = compose(f"optimizer={optimizer}").optimizer
    made = make_later(node)([torch.nn.Parameter(torch.zeros(2, 2))])
    make = make_later(compose(f"scheduler={scheduler}").scheduler)
    schedule = make(made, **({"total_steps": 10} if asks_for(make, "total_steps") else {}))
    made.step()
    schedule.step(*([0.5] if scheduler == "plateau" else []))


@pytest.mark.parametrize("option", options("augmentation"))
def test_every_augmentation_can_be_built(option: str) -> None:
    import numpy as np

    from fer.data.augmentation import Augmentation, make_transforms

    transforms = make_transforms(compose(f"augmentation={option}").augmentation)
    image = np.full((64, 64, 1), 100, np.uint8)
    for index in range(20):
        augmented = Augmentation(transforms, seed=0)(image, epoch=0, index=index)
        assert augmented.shape == image.shape and augmented.dtype == np.uint8


@pytest.mark.parametrize("option", sorted({*options("dataset")} - {"base"}))
def test_every_dataset_can_be_built(option: str, tmp_path: Path) -> None:
    from fer.tasks.assembly import make_data, make_model

    cfg = compose(f"dataset={option}", f"paths.data={tmp_path}")
    data = make_data(cfg, make_model(cfg.model))
    assert data.folder == tmp_path / option
    assert (data.image_size, data.in_channels, data.batch_size) == (48, 1, 64)


def without_dataset(cfg: DictConfig) -> dict[str, Any]:
    content = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(content, dict)
    content.pop("dataset")
    return content  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("experiment=exp_a", "experiment=exp_b"),
        ("dataset=synthetic_a", "dataset=synthetic_b"),
    ],
)
def test_exp_b_is_exp_a_with_another_dataset(a: str, b: str) -> None:
    first, second = compose(a), compose(b)
    assert without_dataset(first) == without_dataset(second)
    assert first.dataset.name != second.dataset.name
    # The one recipe value that a dataset may carry is the number of epochs: equal here.
    assert first.trainer.max_epochs == second.trainer.max_epochs


def test_the_experiments_are_the_two_real_datasets() -> None:
    assert compose("experiment=exp_a").dataset.name == "fer2013"
    assert compose("experiment=exp_b").dataset.name == "rafdb"


def test_an_experiment_runs_on_the_synthetic_pair_by_one_override() -> None:
    assert compose("experiment=exp_a", "dataset=synthetic_a").dataset.name == "synthetic_a"


def block_of_guide(language: str, after: str) -> str:
    text = (ROOT / "docs/extending.md").read_text()
    return text.split(after)[1].split(f"```{language}\n")[1].split("```")[0]


def test_the_guides_own_dataset_has_every_key(tmp_path: Path) -> None:
    block = block_of_guide("yaml", "`menu/dataset/mine.yaml`;")
    assert len(OmegaConf.create(block)) <= 5
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/mine.yaml").write_text(block)
    cfg = compose("dataset=mine", f"hydra.searchpath=[{tmp_path}]")
    assert set(cfg.dataset) == set(compose("dataset=rafdb").dataset)
    assert (cfg.dataset.name, cfg.dataset.epochs, cfg.trainer.max_epochs) == ("mine", 30, 30)
    assert cfg.dataset.folder.endswith("/mine")
    own = OmegaConf.to_container(cfg.dataset.reader)
    assert own == {"_target_": "my_package.MyReader", "digits": 2}


def test_a_dataset_is_the_shared_one_but_for_what_its_file_says() -> None:
    folder = config_folder() / "dataset"
    shared: Any = OmegaConf.to_container(OmegaConf.load(folder / "base.yaml"))
    for option in ("fer2013", "rafdb", "folder"):
        said: Any = OmegaConf.to_container(OmegaConf.load(folder / f"{option}.yaml"))
        assert said.pop("defaults") == ["base"]
        composed = OmegaConf.to_container(compose(f"dataset={option}").dataset)
        assert composed == {**shared, **said}


def test_the_guides_own_reader_prepares_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fer.core import labels
    from fer.data.preparation import prepare

    (tmp_path / "my_package").mkdir()
    code = block_of_guide("python", "`my_package/__init__.py`:")
    (tmp_path / "my_package/__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for split in ("train", "test"):
        for number, emotion in enumerate(labels.EMOTIONS):
            for image in range(3):
                path = tmp_path / f"raw/{split}/{number:02d}_{emotion}/{image:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (20, 20), (number, image, len(split))).save(path)
    node = OmegaConf.create(block_of_guide("yaml", "`menu/dataset/mine.yaml`;")).reader
    reader = hydra.utils.instantiate(node)
    prepared = prepare("mine", tmp_path / "d", reader, raw=tmp_path / "raw")
    sizes = {split: sum(row.values()) for split, row in prepared.integrity["counts"].items()}
    assert sizes == {"train": 14, "val": 7, "test": 21}
    for index, entry in enumerate(prepared.entries):
        assert labels.EMOTIONS[int(prepared.read(index)[0, 0, 0])] == entry.emotion


def test_the_guides_own_network_gives_logits_at_the_size_of_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fer.model.network import NETWORKS
    from fer.tasks.assembly import make_model

    (tmp_path / "my_networks.py").write_text(block_of_guide("python", "`my_networks.py`:"))
    monkeypatch.syspath_prepend(tmp_path)
    node = OmegaConf.create(block_of_guide("yaml", "`menu/model/mine.yaml`:"))
    assert isinstance(node, DictConfig)
    try:
        network = make_model(node)
    finally:
        NETWORKS.pop("two_layers", None)
    assert network.describe() == {
        "network": "two_layers",
        "image_size": 64,
        "in_channels": 1,
        "options": {"width": 32},
    }


def test_the_guides_own_metric_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from fer.core.plugins import import_plugins
    from fer.evaluation.scores import SCORES

    (tmp_path / "my_metrics.py").write_text(block_of_guide("python", "`my_metrics.py`:"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FER_PLUGINS", "my_metrics")
    try:
        import_plugins()
        probabilities = np.eye(7)[[0, 1, 2]] + 0.1 * np.eye(7)[[3, 3, 3]]
        assert SCORES["top2_accuracy"](np.array([0, 3, 6]), probabilities) == 2 / 3
    finally:
        SCORES.pop("top2_accuracy", None)


def test_the_guides_own_perturbation_damages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from hydra.utils import get_method

    from fer.evaluation.perturbations import make_settings

    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/damage.py").write_text(
        block_of_guide("python", "`my_package/damage.py`")
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)  # that of the reader above
    node = OmegaConf.create(block_of_guide("yaml", "`menu/perturbation/dead_rows.yaml`"))
    settings = make_settings(OmegaConf.to_container(node), None, get_method)  # type: ignore[arg-type]
    images = np.full((3, 20, 20, 1), 100, np.uint8)
    black = [setting(images, ["a", "b", "c"], seed=0) == 0 for setting in settings]
    assert [rows.mean() for rows in black] == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert all((weak <= strong).all() for weak, strong in itertools.pairwise(black))


def test_numbers_in_the_files_are_numbers() -> None:
    """YAML reads 3e-3 as text unless the loader knows better."""
    for optimizer in options("optimizer"):
        cfg = compose(f"optimizer={optimizer}").optimizer
        assert isinstance(cfg.lr, float) and isinstance(cfg.weight_decay, float)


@pytest.mark.parametrize(("name", "folder"), [("mine", "mine"), ("../mine", "unnamed")])
def test_runs_lie_in_a_folder_of_the_datasets_name(name: str, folder: str) -> None:
    cfg = compose("dataset=fer2013", f"dataset.name={name}", hydra=True)
    assert Path(cfg.hydra.run.dir).parent == Path("outputs/train") / folder
