"""A StyleGAN2 that was published, fine-tuned here and exported again.

The file is written as stylegan2-ada-pytorch pickles a training, with random weights.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, tiny_recipe
from published import network, register
from torch import Tensor

from ganexport.importers import stylegan2
from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export_run
from ganexport.subjects.styled import styled as with_inputs
from ganinfer import Sampler
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import CheckpointError
from gantrain.game.config import Config, parse_config
from gantrain.models import stylegan2 as trained
from gantrain.models._synthesis import binomial
from gantrain.runs.ancestor import open_ancestor
from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint, load_generator
from gantrain.training.summary import what_fits
from gantrain.training.train import train

SMALL_G, SMALL_D = SMALL["stylegan2"]


def generator(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    made = trained.Generator(16, 3, 3, **SMALL_G)
    made.mapping.w_avg.normal_(std=0.2)
    return made.state_dict()


def discriminator() -> dict[str, Tensor]:
    """Under the published names, with the filters that the file has, too."""
    torch.manual_seed(7)
    state = trained.Discriminator(16, 3, 3, **SMALL_D).state_dict()
    names = {"head.out.": "b4.out.", "head.mapping.": "mapping."}
    for new, old in names.items():
        state = {
            f"{old}{n.removeprefix(new)}" if n.startswith(new) else n: v for n, v in state.items()
        }
    return state | {"b16.resample_filter": binomial(), "b16.skip.resample_filter": binomial()}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "network-snapshot.pkl"
    states = {"G": generator(1), "D": discriminator(), "G_ema": generator(2)}
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        tree = {key: network(state, {}) for key, state in states.items()}
        path.write_bytes(pickle.dumps({**tree, "augment_pipe": None}))
    return path


def recipe(data: Path, path: Path, **start: Any) -> Config:
    tree = tiny_recipe(data, batch_size=8, total_kimg=0.016, trackers=[])
    tree["model"] = {"name": "stylegan2", "generator": SMALL_G, "discriminator": SMALL_D}
    tree["objective"] = {"name": "nonsaturating"}
    tree["regularizers"] = [{"name": "path_length", "interval": 1}, {"name": "style_mixing"}]
    return parse_config(tree | {"start": {"path": str(path), **start}}, where="x.toml")


@pytest.fixture(scope="module")
def tuned(shapes: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that began with the file."""
    return train(recipe(shapes, snapshot), tmp_path_factory.mktemp("tuned") / "run").run


@pytest.fixture(scope="module")
def exported(tuned: Path) -> Exported:
    return export_run(tuned, tuned.parent / "x.gan", ExportOptions(num_images=1000))


def test_all_three_networks_of_the_file_are_begun_with(tuned: Path, snapshot: Path) -> None:
    ancestor = open_ancestor(snapshot)
    for found, seed in ((ancestor.generator, 1), (ancestor.ema, 2)):
        expected = generator(seed)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    ancestry = load_checkpoint(checkpoint_files(tuned)[-1])["ancestry"]
    assert ancestry["path"] == str(snapshot)
    assert (ancestry["fresh"], ancestry["left_out"]) == ({}, [])
    after = load_checkpoint(checkpoint_files(tuned)[-1])["discriminator"]
    before = ancestor.discriminator
    assert after.keys() == before.keys()
    assert all((after[name] - before[name]).abs().max() < 0.01 for name in before)


def test_the_clamp_of_the_file_is_told(shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "network-snapshot.pkl"
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        layers = {"synthesis.b8.conv0": {"conv_clamp": 256}, "mapping.fc0": {"conv_clamp": None}}
        path.write_bytes(pickle.dumps({"G_ema": network(generator(2), layers)}))
    settings = [f"--set model.{part}.conv_clamp=256.0" for part in ("generator", "discriminator")]
    words = what_fits(recipe(shapes, path)).words()
    assert words.endswith(f"it was trained with conv_clamp = 256.0: {' '.join(settings)}")
    tree = recipe(shapes, path).as_dict()
    for part in ("generator", "discriminator"):
        tree["model"][part]["conv_clamp"] = 256.0
    assert "conv_clamp" not in what_fits(parse_config(tree, where="x.toml")).words()


def test_a_trained_generator_is_the_one_that_the_importer_rebuilds(tuned: Path) -> None:
    """One network: with the same weights both give the same images, whatever psi is."""
    own = load_generator(tuned).network
    assert isinstance(own, trained.Generator)
    imported, _ = stylegan2.read(own.state_dict(), conv_clamp=None)
    z, y, psi = torch.randn(3, 16), torch.tensor([0, 2, 1]), torch.tensor([0.3, 0.7, 1.0])
    expected = imported(z, y, psi)
    torch.testing.assert_close(with_inputs(own)(z, y, psi), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(own(z, y)[2], expected[2], rtol=0, atol=1e-5)
    torch.testing.assert_close(own(z, y, psi=0.3)[0], expected[0], rtol=0, atol=1e-5)


def test_it_is_exported_again_and_passes_its_gates(exported: Exported) -> None:
    assert {gate.artifact for gate in exported.gates} == {"onnx fp32", "onnx fp16 (emulated)"}
    assert sum(gate.gate.startswith("styles, ") for gate in exported.gates) == 2
    assert all(gate.passed for gate in exported.gates)
    assert not exported.left_out


def test_psi_and_styles_are_inputs_of_its_bundle(exported: Exported, tuned: Path) -> None:
    own = load_generator(tuned).network
    z, y = torch.from_numpy(draw_latents([3, 4, 5], 16)), torch.tensor([2, 2, 2])
    with Sampler(exported.path) as sampler, torch.no_grad():
        assert sampler.info["truncation_modes"] == ["network"]
        for psi in (0.5, 1.0):
            images = own(z, y, psi=psi).clamp(-1, 1).permute(0, 2, 3, 1).numpy()
            found = sampler.sample(seeds=[3, 4, 5], labels="2", truncation=psi)
            assert np.abs(found - (images + 1) * 127.5).max() <= 0.5 + 1e-3
        w = sampler.mapped(8, truncation=0.7)
        assert w.shape == (8, 6, 12)
        assert np.array_equal(sampler.synthesize(w), sampler.sample(8, truncation=0.7))


def test_the_raw_generator_may_be_begun_with(shapes: Path, snapshot: Path, tmp_path: Path) -> None:
    run = train(recipe(shapes, snapshot, generator="raw"), tmp_path / "run").run
    found = load_checkpoint(checkpoint_files(run)[-1])["generator"]["synthesis.b4.const"]
    distances = [(found - generator(seed)["synthesis.b4.const"]).abs().max() for seed in (1, 2)]
    assert distances[0] < 0.01 < distances[1]


def test_a_file_with_other_things_than_networks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"G_ema": [1], "D": None}))
    with pytest.raises(CheckpointError, match="x.pkl: G_ema is a list; expected a network of NVID"):
        open_ancestor(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(CheckpointError, match="x.pkl: none of G, D, G_ema in it"):
        open_ancestor(tmp_path / "x.pkl")
