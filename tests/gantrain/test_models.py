import inspect

import pytest
import torch
from conftest import SMALL
from torch import nn
from torch.nn import functional

from ganinfer.errors import ConfigError
from ganinfer.lookup import find_module, module_names
from gantrain.data.resolution import Resolution, in_words, size_of
from gantrain.models import _blocks, biggan, r3gan
from gantrain.models._base import DiscriminatorModule, GeneratorModule
from gantrain.models._layers import (
    ConditionalBatchNorm2d,
    DownConv2d,
    Head,
    SelfAttention,
    UpConv2d,
    start_and_doublings,
)

MODELS = module_names("gantrain.models")
LINEAR = {"stylegan2"}  # their images are clipped where they are drawn


def build(
    name: str, resolution: Resolution, channels: int, num_classes: int
) -> tuple[GeneratorModule, DiscriminatorModule]:
    """A small pair; a new architecture without an entry in SMALL comes as it is."""
    module = find_module("gantrain.models", name, where="test")
    generator, discriminator = SMALL.get(name, ({}, {}))
    shape = (resolution, channels, num_classes)
    return module.Generator(*shape, **generator), module.Discriminator(*shape, **discriminator)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("resolution", [16, 28, 32, 64, 128, 256, (16, 48), (64, 32)])
@pytest.mark.parametrize(("channels", "num_classes"), [(1, 0), (3, 5), (3, 0)])
def test_shapes_and_ranges(
    name: str, resolution: Resolution, channels: int, num_classes: int
) -> None:
    if (
        not isinstance(resolution, int)
        and find_module("gantrain.models", name, where="test").Generator.only_square
    ):
        pytest.skip(f"{name} makes square images alone")
    generator, discriminator = build(name, resolution, channels, num_classes)
    y = torch.tensor([0, 4]) if num_classes else None
    images = generator(torch.randn(2, generator.z_dim), y)
    assert images.shape == (2, channels, *size_of(resolution))
    assert images.abs().max() <= 1 or name in LINEAR
    assert discriminator(images, y).shape == (2,)
    assert discriminator.features(images).ndim == 2
    assert generator.num_classes == num_classes


@pytest.mark.parametrize("name", MODELS)
def test_options_are_keyword_only_and_typed(name: str) -> None:
    module = find_module("gantrain.models", name, where="test")
    for network in (module.Generator, module.Discriminator):
        parameters = list(inspect.signature(network).parameters.values())
        assert [p.name for p in parameters[:3]] == ["resolution", "channels", "num_classes"]
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[3:])
        assert all(p.annotation is not p.empty for p in parameters)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_trained(name: str) -> None:
    generator, discriminator = build(name, 16, 3, 4)
    y = torch.arange(4)
    discriminator(generator(torch.randn(4, generator.z_dim), y), y).sum().backward()
    for network in (generator, discriminator):
        assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_class_changes_the_image_and_the_logit(name: str) -> None:
    torch.manual_seed(0)
    generator, discriminator = build(name, 16, 3, 4)
    with torch.no_grad():  # conditional batch norm starts as plain batch norm
        for layer in generator.modules():
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight)
    z = torch.randn(4, generator.z_dim)
    one, other = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    assert not torch.allclose(generator(z, one), generator(z, other), atol=1e-5)
    images = torch.randn(4, 3, 16, 16)
    assert not torch.allclose(discriminator(images, one), discriminator(images, other), atol=1e-6)


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        (8, ((4, 4), 1)),
        (28, ((7, 7), 2)),
        (64, ((4, 4), 4)),
        (96, ((6, 6), 4)),
        ((128, 256), ((4, 8), 5)),
        ((80, 48), ((10, 6), 3)),
    ],
)
def test_resolution_is_a_small_map_doubled(
    resolution: Resolution, expected: tuple[tuple[int, int], int]
) -> None:
    assert start_and_doublings(nn.Identity(), resolution) == expected


@pytest.mark.parametrize("resolution", [5, 7, 17, 30, 36, (32, 36), (64, 7)])
def test_a_resolution_that_cannot_be_doubled_to_is_refused_by_the_model_that_was_asked(
    resolution: Resolution,
) -> None:
    with pytest.raises(ConfigError, match=f"^sagan: resolution {in_words(resolution)} "):
        build("sagan", resolution, 3, 0)


def test_conditional_batch_norm_is_batch_norm_with_a_gain_and_bias_for_each_class() -> None:
    layer = ConditionalBatchNorm2d(3, 2)
    layer.gain_and_bias.weight.data = torch.tensor(
        [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    )
    x = torch.randn(2, 3, 4, 4)
    normal = functional.batch_norm(x, None, None, training=True)
    result = layer(x, torch.tensor([0, 1]))
    assert torch.allclose(result[0], normal[0], atol=1e-6)
    gain = torch.tensor([2.0, 3.0, 4.0])[:, None, None]
    bias = torch.tensor([4.0, 5.0, 6.0])[:, None, None]
    assert torch.allclose(result[1], normal[1] * gain + bias, atol=1e-5)


def test_up_and_down_convolutions_are_resampling_and_a_3x3_convolution() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8, 8, dtype=torch.float64)
    up, down = UpConv2d(5, 7).double(), DownConv2d(5, 7).double()
    plain = functional.conv2d(
        functional.interpolate(x, scale_factor=2.0), up.weight, up.bias, padding=1
    )
    assert torch.allclose(up(x), plain, atol=1e-12)
    plain = functional.avg_pool2d(functional.conv2d(x, down.weight, down.bias, padding=1), 2)
    assert torch.allclose(down(x), plain, atol=1e-12)
    single = UpConv2d(5, 7)
    assert torch.equal(single.plain()(x.float()), single(x.float()))


def test_attention_starts_as_the_identity_and_mixes_places() -> None:
    layer = SelfAttention(16)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(layer(x), x)
    layer.gamma.data.fill_(1.0)
    moved = x.clone()
    moved[:, :, 0, 0] += 1
    assert not torch.allclose(layer(moved)[:, :, 7, 7], layer(x)[:, :, 7, 7])
    # By hand, with the softmax over the pooled keys.
    query, key, value = layer.query(x), layer.key(x), layer.value(x)
    key, value = (functional.max_pool2d(m, 2).flatten(2) for m in (key, value))
    weights = torch.softmax(torch.einsum("ncq,nck->nqk", query.flatten(2), key), dim=2)
    attended = torch.einsum("nqk,nck->ncq", weights, value).reshape(2, 8, 8, 8)
    assert torch.allclose(layer(x), x + layer.out(attended), atol=1e-5)


def test_a_projection_head_adds_the_inner_product_with_the_class() -> None:
    head = Head(6, 3)
    features, y = torch.randn(4, 6), torch.tensor([0, 1, 2, 1])
    expected = head.to_logit(features)[:, 0] + (head.embed.weight[y] * features).sum(1)
    assert torch.allclose(head(features, y), expected, atol=1e-6)
    wide = head.widened(2)
    padded = torch.cat([features, torch.zeros(4, 2)], dim=1)
    assert torch.allclose(wide(padded, y), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("resolution", "generator", "discriminator"),
    [
        (32, [4, 4, 4, 4], [4, 4, 4, 4]),
        (64, [16, 16, 8, 4, 2], [1, 2, 4, 8, 16]),
        (128, [16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16]),
        (256, [16, 16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16]),
    ],
)
def test_widths_are_those_of_the_papers(
    resolution: int, generator: list[int], discriminator: list[int]
) -> None:
    _, doublings = start_and_doublings(nn.Identity(), resolution)
    assert _blocks.generator_widths(1, doublings) == generator
    assert [width for width, _ in _blocks.discriminator_widths(1, doublings)] == discriminator


def test_biggan_splits_its_latent_over_the_blocks() -> None:
    torch.manual_seed(0)
    network = biggan.Generator(32, 3, 5, width=4).eval()
    assert network.z_dim == 80
    y = torch.tensor([1])
    z = torch.randn(1, 80)
    inner = []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: inner.append(inputs))
    network(z, y)
    first, condition = inner[0]
    assert torch.allclose(first.flatten(), network.project(z[:, :20]).flatten())
    assert torch.equal(condition, torch.cat([z[:, 20:40], network.embed(y)], dim=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: biggan.Generator(32, 3, 0, z_dim=81), "z_dim: found 81; expected a multiple of 4"),
        (
            lambda: biggan.Generator(32, 3, 0, attention=[64]),
            "no block has maps of 64; there are 8, 16, 32",
        ),
        (lambda: r3gan.Generator(32, 3, 0, widths=[16, 16]), "found 2; expected 1, or 4"),
        (lambda: r3gan.Generator(32, 3, 0, cardinality=7), "found 7; expected a divisor"),
    ],
)
def test_options_that_do_not_fit_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_r3gan_starts_as_a_network_without_its_branches() -> None:
    """Fix-up: the last convolution of each branch is 0, so depth does not matter at first."""
    torch.manual_seed(0)
    block = r3gan.Block(16, 4, 2, depth=8)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), x)
    down, up = r3gan.Down(3), r3gan.Up(3)
    flat = torch.ones(1, 3, 8, 8)
    assert torch.allclose(down(flat)[..., 1:-1, 1:-1], torch.ones(1, 3, 2, 2))
    assert torch.allclose(up(flat)[..., 2:-2, 2:-2], torch.ones(1, 3, 12, 12))
