from pathlib import Path

import pytest
from conftest import SMALL, tiny_recipe

from ganinfer.errors import ConfigError, DataError
from gantrain.game.config import parse_config
from gantrain.training.summary import summarize


def test_layers_parameters_and_macs_are_those_of_the_networks(shapes: Path) -> None:
    tree = tiny_recipe(shapes)
    tree["model"]["generator"] = {"width": 8, "z_dim": 16}
    generator, discriminator = summarize(parse_config(tree, where="x"))
    rows = {row.name: row for row in generator.rows}
    project = rows["project"]
    assert (project.kind, project.shape) == ("ConvTranspose2d", (16, 4, 4))
    # 16 latents to 16 maps of 4x4; every product counted once.
    assert project.macs == 16 * 16 * 4 * 4
    assert project.num_parameters == 16 * 16 * 4 * 4
    assert generator.macs == sum(row.macs for row in generator.rows)
    assert rows["to_image"].shape == (3, 16, 16)
    # 8x8 maps of 8 channels, each entry into 4x4 outputs of 3 channels.
    assert rows["to_image"].macs == 8 * 8 * 8 * 4 * 4 * 3
    head = next(row for row in discriminator.rows if row.name == "head.to_logit")
    assert head.num_parameters == 16 * 4 * 4 + 1
    total = sum(row.num_parameters for row in generator.rows)
    assert generator.num_parameters == total


def test_layers_within_layers_are_counted_once(shapes: Path) -> None:
    tree = tiny_recipe(shapes)
    generator, discriminator = SMALL["stylegan2"]
    names = {"name": "stylegan2", "generator": generator, "discriminator": discriminator}
    tree |= {"model": names, "regularizers": []}
    for network in summarize(parse_config(tree, where="x")):
        assert all(row.macs >= 0 for row in network.rows)
        # What resamples images has no weights, and no row.
        assert 0.9 < sum(row.macs for row in network.rows) / network.macs <= 1


def test_a_dry_run_finds_what_would_stop_the_run(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared dataset there"):
        summarize(parse_config(tiny_recipe(tmp_path / "none"), where="x"))
    tree = tiny_recipe(shapes)
    tree["objective"] = {"name": "wgan"}
    tree["regularizers"] = []
    with pytest.raises(ConfigError, match="must be Lipschitz"):
        summarize(parse_config(tree, where="x"))
    tree = tiny_recipe(shapes, compile="on")
    tree["regularizers"] = [{"name": "r1"}]
    with pytest.raises(ConfigError, match="r1 differentiates a gradient"):
        summarize(parse_config(tree, where="x"))
    tree = tiny_recipe(shapes)
    tree["objective"] = {"name": "semi_supervised", "num_classes": 10}
    tree["model"]["conditional"] = False
    with pytest.raises(ConfigError, match=r"num_classes: found 10, and .* has 3 classes"):
        summarize(parse_config(tree, where="x"))
