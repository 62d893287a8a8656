"""Every rewrite is the same function, on every architecture."""

import numpy as np
import onnx
import pytest
import torch
from conftest import SMALL

from ganexport.graph.tracing import to_onnx
from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganexport.subjects.rewrites import REWRITES, rewrite
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ConfigError
from gantrain.models import biggan, biggan_deep, dcgan
from gantrain.models._base import GeneratorModule
from gantrain.training.standing import standing_statistics


def trained_biggan() -> GeneratorModule:
    """Not trained, but far from its initial state."""
    torch.manual_seed(0)
    network = biggan.Generator(32, 3, 5, **SMALL["biggan"][0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5).add_(0.05 * torch.randn_like(parameter))
    standing_statistics(network, num_batches=4, truncation=None, seed=0)
    return network.eval().requires_grad_(False)


def images_of(network: torch.nn.Module, without: list[str], count: int) -> np.ndarray:
    graph = to_onnx(rewrite(network, without), z_dim=network.z_dim, num_classes=5)
    backend = OnnxRuntimeBackend(graph, "cpu", "fp32")
    return backend.run(Inputs(draw_latents(range(count), network.z_dim), np.arange(count) % 5))


@pytest.mark.parametrize(
    "without",
    [[], ["norms"], ["upsampling"], ["classes"], ["norms", "upsampling"], ["norms", "classes"]],
)
def test_a_rewritten_network_is_the_same_to_1e_5(without: list[str]) -> None:
    """As exact numbers would make it; float32's own roundings are as far from them."""
    network, changed = trained_biggan().double(), rewrite(trained_biggan(), without)
    z, y = torch.from_numpy(draw_latents(range(16), network.z_dim)), torch.arange(16) % 5
    torch.testing.assert_close(changed(z, y).double(), network(z.double(), y), rtol=0, atol=1e-5)


def test_class_conditional_norms_are_rewritten_too() -> None:
    torch.manual_seed(0)
    network = dcgan.Generator(16, 3, 4, z_dim=8, width=8)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    standing_statistics(network, num_batches=4, truncation=None, seed=0)
    network.eval()
    z, y = torch.randn(8, 8), torch.arange(8) % 4
    expected = network(z, y)
    changed = rewrite(network)
    assert "ScaledByClass" in {type(m).__name__ for m in changed.modules()}
    torch.testing.assert_close(changed(z, y), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", [biggan, biggan_deep])
@pytest.mark.parametrize("without", [[], ["norms"]])
def test_products_with_class_embeddings_are_constants(model, without: list[str]) -> None:
    torch.manual_seed(0)
    network = model.Generator(32, 3, 4, width=8, embedding_dim=16).eval()
    z, y = torch.randn(8, network.z_dim), torch.arange(8) % 4
    expected = network(z, y)
    changed = rewrite(network, without)
    assert changed.embed.weight.shape == (4, 4)
    torch.testing.assert_close(changed(z, y), expected, rtol=0, atol=1e-5)


def test_a_thousand_images_are_the_same_to_the_pixel() -> None:
    plain = images_of(trained_biggan(), list(REWRITES), 1000)
    assert np.unique(plain).size > 100
    found = images_of(trained_biggan(), [], 1000)
    assert np.mean(found != plain) <= 1e-4  # halves that rounding splits
    assert np.abs(found.astype(int) - plain).max() <= 1


def test_the_graph_has_fewer_operations() -> None:
    def operators(without: list[str]) -> list[str]:
        network = rewrite(trained_biggan(), without)
        graph = to_onnx(network, z_dim=network.z_dim, num_classes=5)
        return [node.op_type for node in onnx.load_from_string(graph).graph.node]

    every, none = operators([]), operators(list(REWRITES))
    assert every.count("ConvTranspose") == 3
    assert none.count("ConvTranspose") == 0
    assert none.count("BatchNormalization") > every.count("BatchNormalization")
    assert len(every) < len(none)


def test_a_rewrite_that_is_not_there_is_named(run, tmp_path) -> None:
    with pytest.raises(ConfigError, match="there is no 'norm'; did you mean 'norms'"):
        export_run(run, tmp_path / "x.gan", ExportOptions(without=["norm"], verify=False))
