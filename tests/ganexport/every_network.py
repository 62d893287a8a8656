"""Every recipe's and every importer's generator; narrow ones have the operators of the wide ones.

Weights are random; the shape of a dataset stands for the dataset.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import published
import pytest
import small_networks
import test_importer_stylegan2 as of_stylegan2
import test_importer_stylegan3 as of_stylegan3
import test_importers_biggan as of_biggan
import torch

from ganexport.importers import stylegan2_rosinality, stylegan3
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from gantrain.game.build import build_generator
from gantrain.game.config import load_config
from gantrain.game.recipes import shipped_recipes
from gantrain.training.standing import standing_statistics

SHAPES = {  # resolution, channels, classes; points are no images
    "digits": (16, 1, 10),
    "mnist": (28, 1, 10),
    "mnist100": (28, 1, 10),
    "stacked_mnist": (28, 3, 0),
    "cifar10": (32, 3, 10),
    "folder64": (64, 3, 0),
    "folder128": (128, 3, 10),
}


# With random weights their values are those of no image.
NO_IMAGES = {"lightweight_gan-version_0_23", "fastgan-projected_lite"}


def recipes(*, narrow: bool = True) -> dict[str, Callable[[], Subject]]:
    """By name, those that make images."""
    names = [name for name in sorted(shipped_recipes()) if name.partition("-")[2] in SHAPES]
    return {name: lambda name=name: _recipe(name, narrow=narrow) for name in names}


def importers() -> dict[str, Callable[[], Subject]]:
    """By name: those of the importers' own tests."""
    cases = [*small_networks.CASES, *of_biggan.CASES]
    return {
        **{str(c): lambda case=c: _case(case) for c in cases if str(c) not in NO_IMAGES},
        "stylegan2_rosinality": _stylegan2,
        "stylegan3": _stylegan3,
    }


def _recipe(name: str, *, narrow: bool) -> Subject:
    config = load_config(Path(name))
    if narrow and "width" in config.generator:
        config = load_config(Path(name), ["model.generator.width=8"])
    resolution, channels, num_classes = SHAPES[name.partition("-")[2]]
    torch.manual_seed(0)
    network = build_generator(
        config, resolution, channels, num_classes if config.conditional else 0
    )
    standing_statistics(network, num_batches=2, truncation=config.train.truncation, seed=0)
    for name, weight in network.named_parameters():
        if name.endswith("torgb.weight"):  # linear, and random ones' images far beyond [-1, 1]
            weight.data *= 0.05
    classes = [str(k) for k in range(network.num_classes)]
    return of_module(
        network, Spec(network.z_dim, classes, network.z_distribution, config.train.truncation)
    )


def _case(case: small_networks.Case | of_biggan.Case) -> Subject:
    return of_module(*case.importer.read(case.state(), **case.options))


def _stylegan2() -> Subject:
    state = of_stylegan2.state_of(of_stylegan2.SQUARE)
    mean = {"latent_avg": state["mapping.w_avg"]}
    return of_module(*stylegan2_rosinality.read(of_stylegan2.rosinalitys(state) | mean))


def _stylegan3() -> Subject:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        published.register(patch)
        return of_module(*stylegan3.read(of_stylegan3.saved(Path(folder), of_stylegan3.plan(3))))
