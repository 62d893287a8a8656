import inspect

import pytest
import torch
from torch import nn

from ganinfer.errors import ConfigError
from ganinfer.lookup import find_module, module_names
from gantrain.models._layers import ConditionalBatchNorm2d, spectral_norm
from gantrain.models.dcgan import start_and_doublings

MODELS = module_names("gantrain.models")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("resolution", [16, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [0, 5])
def test_shapes_and_ranges(name: str, resolution: int, channels: int, num_classes: int) -> None:
    module = find_module("gantrain.models", name, where="test")
    generator = module.Generator(resolution, channels, num_classes)
    discriminator = module.Discriminator(resolution, channels, num_classes)
    y = torch.tensor([0, 4, 2]) if num_classes else None
    images = generator(torch.randn(3, generator.z_dim), y)
    assert images.shape == (3, channels, resolution, resolution)
    assert images.abs().max() <= 1
    assert discriminator(images, y).shape == (3,)


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
    module = find_module("gantrain.models", name, where="test")
    generator, discriminator = module.Generator(16, 3, 4), module.Discriminator(16, 3, 4)
    y = torch.arange(4)
    discriminator(generator(torch.randn(4, generator.z_dim), y), y).sum().backward()
    for network in (generator, discriminator):
        assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(
    ("resolution", "expected"), [(8, (4, 1)), (28, (7, 2)), (64, (4, 4)), (96, (6, 4))]
)
def test_resolution_is_a_small_map_doubled(resolution: int, expected: tuple[int, int]) -> None:
    assert start_and_doublings(resolution) == expected


@pytest.mark.parametrize("resolution", [5, 7, 17, 30, 36])
def test_a_resolution_that_cannot_be_doubled_to_is_refused(resolution: int) -> None:
    with pytest.raises(ConfigError, match=f"resolution {resolution}"):
        start_and_doublings(resolution)


def test_conditional_batch_norm_is_batch_norm_with_a_gain_and_bias_for_each_class() -> None:
    layer = ConditionalBatchNorm2d(3, 2)
    layer.gain_and_bias.weight.data = torch.tensor(
        [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    )
    x = torch.randn(2, 3, 4, 4)
    normal = nn.functional.batch_norm(x, None, None, training=True)
    result = layer(x, torch.tensor([0, 1]))
    assert torch.allclose(result[0], normal[0], atol=1e-6)
    gain = torch.tensor([2.0, 3.0, 4.0])[:, None, None]
    bias = torch.tensor([4.0, 5.0, 6.0])[:, None, None]
    assert torch.allclose(result[1], normal[1] * gain + bias, atol=1e-5)


def test_spectral_norm_brings_the_largest_singular_value_to_one() -> None:
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(20, 30))
    for _ in range(200):
        layer(torch.randn(1, 20))
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-3)
