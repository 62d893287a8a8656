"""Importers of networks whose own code can be installed, against that code; see small_networks."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from originals import assert_same_pixels, draw, eight
from small_networks import CASES, Z_DIM, Case, State
from torch import Tensor, nn

from ganexport.importers import (
    fastgan,
    lightweight_gan,
    pro_gan_pytorch,
    stylegan2_pytorch,
    torch_mimicry,
)
from ganexport.importers._fixed_noise import NOTE
from ganexport.options import ExportOptions
from ganexport.pipeline import export
from ganexport.subjects.outside import of_import
from ganexport.subjects.spec import RANGES, Spec
from ganexport.subjects.subject import of_module
from ganinfer import Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.inputs import Inputs, truncation_input
from ganinfer.errors import ExportError
from gantrain.models._derived import Layer

BY_NAME = {str(case): case for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@torch.no_grad()
def in_double(network: nn.Module) -> nn.Module:
    """The network in float64, and what its layers derive from their weights."""
    network.double()
    for layer in network.modules():
        if isinstance(layer, Layer):
            layer.derive()
    return network


def on_range(images: Tensor, spec: Spec) -> Tensor:
    """On [-1, 1]."""
    assert spec.output_range is not None
    scale, shift = RANGES[spec.output_range]
    return images * scale[0] + shift[0]


@every_case
@torch.no_grad()
def test_network_gives_the_originals_images(case: Case) -> None:
    network, spec = case.read()
    images = network(*case.inputs())
    assert images.shape == (4, *case.shape)
    assert eight(images) == pytest.approx(case.reference, abs=2e-5)
    assert (spec.z_dim, len(spec.class_names)) == (Z_DIM, case.num_classes)


@every_case
@torch.no_grad()
def test_original_that_is_installed_gives_the_same_pixels(case: Case) -> None:
    state = case.state()
    own, own_images = case.original(case.arguments, state)
    network, spec = case.read()
    found, expected = network(*case.inputs()), own_images(*case.inputs())
    assert_same_pixels(on_range(found, spec), on_range(expected, spec))
    own.double()
    z, *y = case.inputs()
    exact, expected = in_double(network)(z.double(), *y), own_images(z.double(), *y)
    assert float((exact - expected).abs().max()) < 1e-6 * float(1 + expected.abs().max())


ONE_EACH = (
    *("stylegan2_pytorch-attention", "lightweight_gan-attention", "torch_mimicry-sagan_128"),
    *("pro_gan_pytorch-plain_grey", "fastgan-projected_classes"),
)


@pytest.mark.parametrize("name", ONE_EACH)
def test_onnx_of_another_batch_gives_the_networks_images(name: str) -> None:
    case = BY_NAME[name]
    subject = of_module(*case.read())
    z, *y = (given[:3].numpy() for given in case.inputs())
    given = Inputs(z, y[0] if y else None, truncation_input(subject.model, 3, None))
    shipped = OnnxRuntimeBackend(subject.to_onnx(subject.twin()), "cpu", "fp32").run(given)
    expected = ((subject(given).clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1)
    assert np.abs(shipped.astype(int) - expected.numpy().astype(int)).max() <= 1


def saved(name: str, state: State) -> object:
    """As the project's own training saves it."""
    other = {key: -value for key, value in state.items()}
    family = name.partition("-")[0]
    if family in ("stylegan2_pytorch", "lightweight_gan"):
        raw = {key.replace("E.", ".", 1): value for key, value in other.items()}
        return {"GAN": {"D.logit.weight": torch.ones(2), **raw, **state}, "version": "1.9.0"}
    if family == "torch_mimicry":
        optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
        return {"model_state_dict": state, "optimizer_state_dict": optimizer, "global_step": 9}
    if family == "pro_gan_pytorch":
        conf = {"depth": 4, "use_eql": False}
        return {
            "generator": {"conf": conf, "state_dict": other},
            "discriminator": {"conf": conf, "state_dict": {"layers.0.weight": torch.ones(2)}},
            "shadow_generator": {"conf": conf, "state_dict": state},
        }
    return state


@pytest.mark.parametrize("name", ONE_EACH)
@torch.no_grad()
def test_checkpoint_is_read_as_its_project_saves_it(name: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    torch.save(saved(name, case.state()), tmp_path / "checkpoint.pt")
    subject = of_import(case.family, tmp_path / "checkpoint.pt", None, case.options)
    network, spec = case.read()
    assert set(spec.notes) <= set(subject.notes)
    expected = on_range(network(*case.inputs()), spec)
    torch.testing.assert_close(subject.network(*case.inputs()), expected)


def test_checkpoint_of_fastgan_gives_the_generator_by_its_key(tmp_path: Path) -> None:
    case = BY_NAME["fastgan-original_256"]
    d = {"down_4.main.0.weight_orig": torch.ones(2, 2)}
    torch.save({"g": case.state(), "d": d}, tmp_path / "50000.pth")
    subject = of_import("fastgan", tmp_path / "50000.pth", "g", {})
    assert (subject.model.resolution, subject.model.z_dim) == (256, Z_DIM)
    with pytest.raises(ExportError, match="2 state dicts; say which with --weights-key"):
        of_import("fastgan", tmp_path / "50000.pth", None, {})


@pytest.mark.slow
def test_bundle_of_an_imported_network_passes_its_gates(tmp_path: Path) -> None:
    case = BY_NAME["torch_mimicry-cgan_pd_32"]
    exported = export(*case.read(), tmp_path / "x.gan", ExportOptions(num_images=1000))
    assert exported.gates
    assert all(gate.passed for gate in exported.gates)
    with Sampler(tmp_path / "x.gan") as sampler:
        assert sampler.sample(seeds=[0, 1], labels=[0, 2]).shape == (2, 32, 32, 3)


# --- what the originals draw for each image, and psi


def test_noise_that_is_kept_is_told_of() -> None:
    noisy = {name for name in BY_NAME if NOTE in BY_NAME[name].read()[1].notes}
    assert {name.partition("-")[0] for name in noisy} == {
        *("stylegan2_pytorch", "lightweight_gan", "fastgan"),
    }
    assert "fastgan-projected_lite" not in noisy


@torch.no_grad()
def test_psi_draws_w_to_its_mean() -> None:
    case = BY_NAME["stylegan2_pytorch-no_const"]
    network, spec = stylegan2_pytorch.read(case.state())
    assert spec.truncation_input is not None
    (z,) = case.inputs()
    mean = network(z, torch.zeros(4))
    assert float((mean - mean[0]).abs().max()) < 1e-6
    assert torch.equal(network(z, torch.ones(4)), case.read()[0](z))
    fixed, spec = stylegan2_pytorch.read(case.state(), truncation_psi=0.0)
    assert spec.truncation_input is None
    torch.testing.assert_close(fixed(z), mean)


@torch.no_grad()
def test_lr_mlp_multiplies_the_mapping_networks_weights() -> None:
    case = BY_NAME["stylegan2_pytorch-no_const"]
    doubled = {
        name: value * (2 if name.startswith("SE.") else 1) for name, value in case.state().items()
    }
    network, _ = stylegan2_pytorch.read(doubled, truncation_psi=1.0, lr_mlp=0.05)
    torch.testing.assert_close(network(*case.inputs()), case.read()[0](*case.inputs()))


# --- what is no such network


@pytest.mark.parametrize("name", ONE_EACH)
def test_missing_and_unknown_names_and_other_shapes_are_named(name: str) -> None:
    case = BY_NAME[name]
    last = list(case.state())[-1]
    lacking, more, other = case.state(), case.state(), case.state()
    del lacking[last]
    more[f"{last.partition('.')[0]}.stranger"] = torch.ones(1)
    other[last] = torch.ones((*other[last].shape, 2))
    own = re.escape(last.removeprefix("GE.").removeprefix("synthesis."))
    for state, named in ((lacking, own), (more, "stranger"), (other, own)):
        with pytest.raises(ExportError, match=f"^{case.family}: expected .*{named}"):
            case.importer.read(state, **case.options)


@pytest.mark.parametrize("importer", [fastgan, pro_gan_pytorch, torch_mimicry])
def test_state_of_another_project_is_refused_by_a_name(importer: Any) -> None:
    with pytest.raises(ExportError, match=r"no '[\w.]+' among its 1 names \['main.0.weight'\]"):
        importer.read({"main.0.weight": torch.ones(2, 2)})


@pytest.mark.parametrize("importer", [lightweight_gan, stylegan2_pytorch])
def test_part_of_a_gans_state_is_refused_with_its_remedy(importer: Any) -> None:
    with pytest.raises(ExportError, match="no [SG]E among its 1 parts .*without --weights-key"):
        importer.read({"initial_conv.weight": torch.ones(2, 2)})


def test_old_lightweight_gan_is_refused_in_words() -> None:
    state = BY_NAME["lightweight_gan-attention"].state()
    old = {name.replace(".0.2.1.", ".0.2."): value for name, value in state.items()}
    with pytest.raises(ExportError, match="version 0.21 or later: this one's convolutions"):
        lightweight_gan.read(old)


def test_transparent_images_are_taken_or_refused_by_their_shape() -> None:
    shapes = {n: tuple(v.shape) for n, v in BY_NAME["stylegan2_pytorch-no_const"].state().items()}
    four = {n: tuple(4 if s == 3 and ".to_rgb.conv" in n and i == 0 else s
                     for i, s in enumerate(shape)) for n, shape in shapes.items()}  # fmt: skip
    network, _ = stylegan2_pytorch.read(draw(four), truncation_psi=1.0)
    assert network(torch.ones(2, Z_DIM)).shape == (2, 4, 16, 16)


def test_attention_at_an_unknown_place_is_refused() -> None:
    state = BY_NAME["torch_mimicry-sagan_128"].state()
    fewer = {name: value for name, value in state.items() if not name.startswith("block6")}
    with pytest.raises(ExportError, match="attention among 4 blocks, and its place is known for"):
        torch_mimicry.read(fewer)


@pytest.mark.parametrize("depth", [1, 6])
def test_depth_that_the_network_has_not_is_refused(depth: int) -> None:
    with pytest.raises(ExportError, match=f"depth {depth}: expected 2 to 5, log2"):
        pro_gan_pytorch.read(BY_NAME["pro_gan_pytorch-depth_5"].state(), depth=depth)


def test_lr_mlp_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ExportError, match="lr_mlp -1: expected a positive number"):
        stylegan2_pytorch.read(BY_NAME["stylegan2_pytorch-no_const"].state(), lr_mlp=-1)
