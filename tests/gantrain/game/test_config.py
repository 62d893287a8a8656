from pathlib import Path

import pytest
import torch
from conftest import tiny_recipe

from ganinfer.errors import ConfigError
from gantrain.game.build import build_game
from gantrain.game.config import load_config, parse_config
from gantrain.game.recipes import shipped_recipes

# Resolution, channels and classes of the recipes' datasets.
DATA = {
    "digits": (16, 1, 10),
    "mnist": (28, 1, 10),
    "mnist100": (28, 1, 10),
    "stacked_mnist": (28, 3, 1000),
    "cifar10": (32, 3, 10),
    "folder64": (64, 3, 0),
    "folder128": (128, 3, 100),
    "folder256": (256, 3, 0),
    "ring8": (1, 2, 8),
    "grid25": (1, 2, 25),
}


def test_every_shipped_recipe_is_valid() -> None:
    recipes = shipped_recipes()
    assert {"dcgan-digits", "dcgan-mnist"} <= recipes.keys()
    for name, path in recipes.items():
        data = name.partition("-")[2]
        narrow = ["model.generator.width=8", "model.discriminator.width=8"]
        config = load_config(path, narrow if data == "folder128" else [])
        build_game(config, *DATA[data], torch.device("cpu"))
        assert data.startswith(Path(config.data.path).name)


def test_a_recipe_is_found_by_its_bare_name() -> None:
    assert load_config(Path("dcgan-digits")).model == "dcgan"


def test_a_config_survives_the_trip_through_a_checkpoint() -> None:
    config = load_config(Path("dcgan-mnist"))
    assert parse_config(config.as_dict(), where="x").as_dict() == config.as_dict()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batchsize=3", r"\[train\]: there is no key 'batchsize'; did you mean 'batch_size'"),
        ("train.batch_size=0", r"\[train\] batch_size: found 0; .*greater than or equal to 1"),
        ("train.batch_size=3.5", r"\[train\] batch_size: found 3.5; .*integer"),
        ("train.batch_size='3'", r"\[train\] batch_size: found '3'"),
        ("train.batch_size=true", r"\[train\] batch_size: found True"),
        ("train.precision=fp64", r"\[train\] precision: found 'fp64'; .*'fp32' or 'bf16'"),
        ("train.total_kimg=-1", r"\[train\] total_kimg: found -1"),
        ("train.total_kimg=inf", r"\[train\] total_kimg: found inf"),
        ("optimizer.generator.learning_rate=nan", r"learning_rate: found nan"),
        ("optimizer.generator.name=Field", r"there is no 'Field'; it takes adam"),
        ("train.device=gpu", r"\[train\] device: found 'gpu'"),
        ("trian.seed=1", "no section 'trian'; did you mean 'train'"),
        ("model.name=dgan", r"\[model\] name: there is no 'dgan'; did you mean 'dcgan'"),
        ("model.generator.zdim=3", r"\[model.generator\]: 'dcgan' has no option 'zdim'; .*z_dim"),
        ("model.generator.z_dim=0", r"\[model.generator\] z_dim: found 0"),
        ("model.generator.z_distribution=cauchy", r"z_distribution: found 'cauchy'"),
        ("model.width=3", r"\[model\]: there is no key 'width'"),
        ("objective.name=hinges", r"there is no 'hinges'; did you mean 'hinge'"),
        ("objective.margin=2", r"\[objective\]: 'hinge' has no option 'margin'; it takes none"),
        ("optimizer.generator.name=adm", r"there is no 'adm'; did you mean 'adam'"),
        ("optimizer.generator.lr=1", r"'adam' has no option 'lr'"),
        ("optimizer.generator.betas=[0.5]", r"betas: found \[0.5\]"),
        ("optimizer.generator.betas=[0.5,1.0]", r"betas.1: found 1.0"),
        ("optimizer.generator.learning_rate='2e-4'", r"learning_rate: found '2e-4'"),
        ("data=3", "found 3; expected a section"),
        ("train.seed", "expected section.key=value"),
        ("train.seed.x=1", "'seed' is a value"),
    ],
)
def test_a_mistake_names_file_key_and_what_it_takes(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Path("dcgan-digits"), ["train.seed=0", override])
    assert "dcgan-digits" in str(caught.value) or "--set" in str(caught.value)


@pytest.mark.parametrize("section", ["data", "model", "objective", "optimizer", "train"])
def test_a_missing_section_is_named(section: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    del recipe[section]
    with pytest.raises(ConfigError, match=rf"section \[{section}\] is missing"):
        parse_config(recipe, where="x.toml")


def test_a_missing_required_key_is_named(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    del recipe["train"]["total_kimg"]
    with pytest.raises(ConfigError, match=r"\[train\] total_kimg: missing"):
        parse_config(recipe, where="x.toml")


def test_files_that_are_no_configs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shipped ones are acgan-cifar10, .*dcgan-digits"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[train\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "bad.toml")


def test_a_folder_of_a_recipes_name_does_not_hide_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dcgan-digits").mkdir()
    assert load_config(Path("dcgan-digits")).model == "dcgan"
    with pytest.raises(ConfigError, match="no such config"):
        load_config(Path("experimnts/dcgan-digits.toml"))


def test_overrides_are_toml_or_plain_strings() -> None:
    config = load_config(
        Path("dcgan-digits"), ["train.seed=7", "data.path=some/where", "train.channels_last=true"]
    )
    assert (config.train.seed, config.data.path) == (7, "some/where")
    assert config.train.channels_last
