import subprocess
from pathlib import Path

import pytest
from conftest import GAN, SMALL, tiny_recipe

from gantrain.game.config import parse_config
from gantrain.training.profile import profile_training
from gantrain.training.summary import summarize


def test_all_products_of_a_step_are_found_where_they_are_made(shapes: Path) -> None:
    config = parse_config(tiny_recipe(shapes), where="x")
    generator, discriminator = summarize(config)
    step = profile_training(config, num_steps=2)
    of = {layer.name: layer for layer in step.layers}
    size = config.train.batch_size
    # G: forward for D and for itself, and a backward to inputs and weights; z wants no gradient.
    for row in generator.rows:
        ways = 3 if row.name == "project" else 4
        assert of[f"generator.{row.name}"].macs == ways * size * row.macs, row.name
    # D: three forwards; two backwards to inputs and weights, in G's step one to inputs alone. Real
    # and generated images want no gradient in its own step.
    for row in discriminator.rows:
        ways = 6 if row.name == "downs.0" else 8
        assert of[f"discriminator.{row.name}"].macs == ways * size * row.macs, row.name
    assert all(layer.forward_ms > 0 for layer in step.layers)
    assert of["discriminator.downs.1"].weight_ms > 0  # spectral norm
    assert of["generator.norms.0"].weight_ms == 0
    assert {"data", "optimizers", "averaged generator", "figures of the record"} <= set(step.parts)
    whole = sum(layer.ms for layer in step.layers) + sum(step.parts.values())
    assert whole == pytest.approx(step.profiled_ms, rel=0.01)


def test_penalties_that_differentiate_twice_belong_to_layers(shapes: Path) -> None:
    tree = tiny_recipe(shapes)
    generator, discriminator = SMALL["r3gan"]
    tree["model"] = {"name": "r3gan", "generator": generator, "discriminator": discriminator}
    tree["regularizers"] = []
    plain = profile_training(parse_config(tree, where="x"), num_steps=1)
    tree["regularizers"] = [{"name": "r1"}]
    punished = profile_training(parse_config(tree, where="x"), num_steps=1)
    products = [
        {layer.name: layer.macs for layer in step.layers if layer.macs}
        for step in (plain, punished)
    ]
    assert products[0].keys() == products[1].keys()
    in_d = [name for name in products[0] if name.startswith("discriminator")]
    assert all(products[1][name] > products[0][name] for name in in_d)


def test_the_command_shows_every_layer_and_leaves_nothing(shapes: Path, tmp_path: Path) -> None:
    small = (f"data.path={shapes}", "model.generator.width=8", "model.discriminator.width=8")
    short = ("train.batch_size=8", "train.device=cpu", "train.compile=on")
    changes = [word for change in (*small, *short) for word in ("--set", change)]
    said = subprocess.run(
        [*GAN, "train", "dcgan-digits", "--profile", *changes],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for layer in ("generator.project", "generator.to_image", "discriminator.head.to_logit"):
        assert layer in said
    assert "left out:" in said
    assert "compile = 'on'" in said
    assert list(tmp_path.iterdir()) == []
