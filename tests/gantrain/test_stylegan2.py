"""StyleGAN2's layers and networks against the paper's formulas written out for one image."""

import math
from pathlib import Path

import pytest
import torch
from conftest import SMALL, tiny_recipe
from torch import Tensor
from torch.nn import functional

from gantrain.game.config import Config, parse_config
from gantrain.models import _synthesis, stylegan2
from gantrain.models._derived import settle
from gantrain.models._mapping import GAIN, MEAN_RATE, Dense, Mapping
from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint, load_generator
from gantrain.runs.samples import draw
from gantrain.training.train import train


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def generator(num_classes: int = 0) -> stylegan2.Generator:
    return stylegan2.Generator(16, 3, num_classes, **SMALL["stylegan2"][0])


def doubled(layer: _synthesis.Convolution, x: Tensor, weight: Tensor) -> Tensor:
    """Zeros between the pixels, the filter with a gain of 4, and then the convolution."""
    sparse = x.new_zeros(x.shape[0], 2 * x.shape[1], 2 * x.shape[2])
    sparse[:, ::2, ::2] = x
    taps = (4 * layer.resample_filter).expand(len(x), 1, -1, -1)
    blurred = functional.conv2d(functional.pad(sparse, (3, 2, 3, 2))[None], taps, groups=len(x))
    return functional.conv2d(blurred, weight.flip(2, 3))


def one_by_one(layer: _synthesis.Convolution, x: Tensor, w: Tensor, *, up: int) -> Tensor:
    """Equations 1 and 3: each image has weights of its own."""
    made = []
    for image, style in zip(x, layer.affine(w), strict=True):
        weight = layer.weight * style[:, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up == 2:
            y = doubled(layer, image, weight)
        else:
            y = functional.conv2d(image[None], weight, padding=1)
        made.append(y[0] + layer.noise_strength * layer.noise_const + layer.bias[:, None, None])
    return math.sqrt(2) * functional.leaky_relu(torch.stack(made), 0.2)


@pytest.mark.parametrize("up", [1, 2])
def test_a_shared_convolution_is_that_of_each_images_own_weights(up: int) -> None:
    """Its values, and its gradients with respect to maps, styles and weights."""
    layer = _synthesis.Convolution(5, 4, 6, 4 * up, up=up, clamp=math.inf).double().eval()
    with torch.no_grad():
        layer.noise_strength.fill_(0.3)
        layer.bias.normal_()
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    given = (x, w, *layer.parameters())
    found, expected = layer(x, w), one_by_one(layer, x, w, up=up)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(expected)
    slopes = [torch.autograd.grad((y * cotangent).sum(), given) for y in (found, expected)]
    torch.testing.assert_close(*slopes)


def test_a_settled_layer_computes_the_same_and_follows_weights_that_are_loaded() -> None:
    network, other = generator(3).eval(), generator(3).eval()
    z, y = torch.randn(4, 16), torch.tensor([0, 2, 1, 2])
    expected = network(z, y)
    settle(network)
    torch.testing.assert_close(network(z, y), expected, rtol=0, atol=1e-5)
    network.load_state_dict(other.state_dict())
    torch.testing.assert_close(network(z, y), other(z, y), rtol=0, atol=1e-5)


def test_demodulated_maps_have_variance_1_whatever_the_style() -> None:
    layer = _synthesis.Convolution(64, 64, 8, 16, up=1, clamp=math.inf)
    style = torch.rand(8, 64) * 10 ** torch.linspace(-2, 2, 8)[:, None]
    own = layer.derived()
    scale_in, scale_out = layer.modulation(style, own)
    x = torch.randn(8, 64, 16, 16) * scale_in
    maps = functional.conv2d(x, own["kernel"] / GAIN, padding=0) * scale_out
    torch.testing.assert_close(maps.var((1, 2, 3)), torch.ones(8), rtol=0.1, atol=0)


def test_equalised_layers_begin_with_variance_1_and_scale_their_weights() -> None:
    for rate in (1.0, 0.01):
        layer = Dense(256, 512, rate=rate)
        x = torch.randn(64, 256)
        assert layer(x).var().item() == pytest.approx(1, rel=0.1)
        assert layer.weight.std().item() == pytest.approx(1 / rate, rel=0.05)
        (slope,) = torch.autograd.grad(layer(x)[0, 0], layer.weight)
        torch.testing.assert_close(slope[0], rate / 16 * x[0])


def test_the_mean_of_w_is_followed_in_training_alone() -> None:
    mapping = Mapping(16, 0, 0, [8])
    z = torch.randn(32, 16)
    w = mapping(z)
    torch.testing.assert_close(mapping.w_avg, MEAN_RATE * w.mean(0))
    before = mapping.w_avg.clone()
    mapping.eval()(z)
    assert torch.equal(mapping.w_avg, before)


def test_some_of_the_places_take_the_styles_of_another_latent() -> None:
    network = generator()
    z = torch.randn(400, 16)
    network.mixing = 0.5
    own = network.mapping(z)[:, None]
    changed = (network.styles(z) != own).any(2)  # (N, L)
    assert not changed[:, 0].any()
    assert torch.equal(changed, changed.cummax(1).values)  # those behind the first one, too
    assert 150 < changed[:, -1].sum() < 250
    assert changed.sum(1).unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(network.eval().styles(z), own.expand(-1, 6, -1))


def test_noise_is_each_images_own_in_training_and_the_same_otherwise() -> None:
    network = generator()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, _synthesis.Convolution):
                layer.noise_strength.fill_(1.0)
    z = torch.randn(1, 16).expand(2, -1)
    one, other = network(z)
    assert not torch.allclose(one, other)
    one, other = network.eval()(z)
    torch.testing.assert_close(one, other)


def test_truncation_of_a_run_is_psi() -> None:
    network = generator().eval()
    network.mapping.w_avg.normal_()
    with torch.no_grad():
        mean, half, whole = (
            torch.from_numpy(draw(network, range(3), None, truncation=psi)) for psi in (0, 0.5, 1)
        )
        torch.testing.assert_close(mean, mean[:1].expand(3, -1, -1, -1))
        distances = [(images - mean).square().mean() for images in (half, whole)]
    assert 0 < distances[0] < distances[1]


def test_halving_blurs_first() -> None:
    """A convolution of what is blurred, at every other pixel; both ways of a block do so."""
    x = torch.randn(2, 3, 8, 8)
    blurred = stylegan2.blurred(x, _synthesis.binomial(), padding=2)  # (N, C, 9, 9)
    wide = stylegan2.Convolution(3, 4, 3, down=2, biased=False)
    kernel = wide.weight / math.sqrt(27)
    torch.testing.assert_close(wide(x), functional.conv2d(blurred, kernel)[:, :, ::2, ::2])
    point = stylegan2.Convolution(3, 4, 1, down=2, biased=False)
    mixed = torch.einsum("oi,nihw->nohw", point.weight[:, :, 0, 0] / math.sqrt(3), blurred)
    torch.testing.assert_close(point(x), mixed[:, :, 1:-1:2, 1:-1:2])
    flat = stylegan2.blurred(torch.ones(1, 1, 8, 8), _synthesis.binomial(), padding=1, stride=2)
    torch.testing.assert_close(flat[..., 1:-1, 1:-1], torch.ones(1, 1, 2, 2))


def published_shapes(size: int, classes: int) -> dict[str, tuple[int, ...]]:
    """D of stylegan2-ada-pytorch's configuration paper256, with its c_dim, by its source."""

    def width(size: int) -> int:
        return min(16384 // size, 512)

    shapes: dict[str, tuple[int, ...]] = {"b256.fromrgb.weight": (width(256), 3, 1, 1)}
    shapes["b256.fromrgb.bias"] = (width(256),)
    while size > 4:
        block, wide, narrow = f"b{size}", width(size), width(size // 2)
        shapes[f"{block}.conv0.weight"] = (wide, wide, 3, 3)
        shapes[f"{block}.conv0.bias"] = (wide,)
        shapes[f"{block}.conv1.weight"] = (narrow, wide, 3, 3)
        shapes[f"{block}.conv1.bias"] = (narrow,)
        shapes[f"{block}.skip.weight"] = (narrow, wide, 1, 1)
        shapes |= {f"{block}.{part}resample_filter": (4, 4) for part in ("", "conv1.", "skip.")}
        size //= 2
    out = 512 if classes else 1
    for part, shape in {
        "conv": (512, 513, 3, 3),
        "fc": (512, 512 * 16),
        "out": (out, 512),
    }.items():
        shapes |= {f"b4.{part}.weight": shape, f"b4.{part}.bias": shape[:1]}
    if classes:
        for part in ("embed", *(f"fc{n}" for n in range(8))):
            num_in = classes if part == "embed" else 512
            shapes |= {f"mapping.{part}.weight": (512, num_in), f"mapping.{part}.bias": (512,)}
    return shapes


@pytest.mark.parametrize("classes", [0, 10])
def test_names_and_shapes_of_the_discriminator_are_those_that_are_published(classes: int) -> None:
    with torch.device("meta"):
        network = stylegan2.Discriminator(256, 3, classes, channel_base=16384)
        published = {n: torch.empty(s) for n, s in published_shapes(256, classes).items()}
    own = {name: value.shape for name, value in network.state_dict().items()}
    renamed = stylegan2.published_discriminator(published)
    assert own == {name: value.shape for name, value in renamed.items()}


def recipe(data: Path, **train_options: object) -> Config:
    """Small networks in the paper's game."""
    tree = tiny_recipe(data, **{"batch_size": 8, "trackers": [], **train_options})
    small, d = SMALL["stylegan2"]
    tree["model"] = {"name": "stylegan2", "generator": small, "discriminator": d}
    tree["objective"] = {"name": "nonsaturating"}
    tree["regularizers"] = [
        {"name": "r1", "gamma": 0.1, "interval": 4},
        {"name": "path_length", "interval": 3},
        {"name": "style_mixing"},
    ]
    return parse_config(tree, where="x.toml")


def test_a_stopped_run_goes_on_to_the_same_weights(shapes: Path, tmp_path: Path) -> None:
    """Between two lazy steps: noise, mixed styles, the mean length and the rounds go on."""
    config = recipe(shapes, total_kimg=0.08)
    whole = train(config, tmp_path / "whole")
    steps = iter([False] * 4 + [True])
    assert train(config, tmp_path / "x", should_stop=lambda: next(steps)).images_seen == 40
    resumed = train(config, tmp_path / "x")
    saved = [load_checkpoint(checkpoint_files(o.run)[-1]) for o in (whole, resumed)]
    for part in ("generator", "discriminator", "ema"):
        assert all(torch.equal(saved[0][part][n], saved[1][part][n]) for n in saved[0][part])
    lengths = [state["hooks"]["path_length"]["mean"] for state in saved]
    assert torch.equal(*lengths)
    assert lengths[0] > 0


def test_the_mean_of_w_comes_with_the_averaged_generator(shapes: Path, tmp_path: Path) -> None:
    run = train(recipe(shapes, total_kimg=0.016), tmp_path / "run").run
    trained = load_generator(run).network
    assert isinstance(trained, stylegan2.Generator)
    assert trained.mapping.w_avg.abs().sum() > 0
