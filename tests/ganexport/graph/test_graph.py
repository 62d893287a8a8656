from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ganexport.graph.tracing import SamplingGraph, bake, float_images, to_onnx
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.images import to_uint8
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ExportError
from gantrain.models.dcgan import Generator
from gantrain.runs.checkpoint import load_generator


@pytest.fixture(scope="module")
def trained(run: Path):
    return load_generator(run)


@pytest.fixture(scope="module")
def graph(trained) -> bytes:
    return to_onnx(bake(trained), z_dim=16, num_classes=3)


def test_baking_leaves_no_parametrization_and_the_same_function(trained) -> None:
    twin = bake(trained)
    assert not [name for name in twin.state_dict() if "parametrizations" in name]
    assert [name for name in trained.network.state_dict() if "parametrizations" in name]
    z, y = torch.randn(4, 16), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        torch.testing.assert_close(twin(z, y), trained.network(z, y), atol=1e-6, rtol=0)


def test_batch_norm_is_folded_and_norms_are_baked(graph: bytes) -> None:
    operators = [node.op_type for node in onnx.load_from_string(graph).graph.node]
    assert operators.count("ConvTranspose") == 3
    assert not {"BatchNormalization", "MatMul", "SplitToSequence"} & set(operators)
    assert operators[-6:] == ["Clip", "Add", "Mul", "Round", "Transpose", "Cast"]


def test_the_tail_quantises_as_to_uint8_does() -> None:
    class Image(nn.Module):
        def forward(self, z):
            return z[:, :, None, None]

    values = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 4)).astype(np.float32)
    halves = ((np.arange(4 * 255) % 255 + 0.5) / 127.5 - 1).astype(np.float32).reshape(-1, 4)
    z = np.concatenate([values, halves])
    with torch.no_grad():
        pixels = SamplingGraph(Image())(torch.from_numpy(z)).numpy()
    assert np.array_equal(pixels[:, 0, 0, :], to_uint8(z))
    shipped = OnnxRuntimeBackend(to_onnx(Image(), z_dim=4, num_classes=0), "cpu", "fp32")
    assert np.array_equal(shipped.run(Inputs(z))[:, 0, 0, :], to_uint8(z))


def test_the_same_weights_give_the_same_bytes(trained, graph: bytes) -> None:
    assert to_onnx(bake(trained), z_dim=16, num_classes=3) == graph


def test_no_path_of_the_exporting_machine_is_left(graph: bytes) -> None:
    assert str(Path.cwd()).encode() not in graph
    assert b"site-packages" not in graph
    assert b".py" not in graph


def test_the_batch_is_dynamic(graph: bytes) -> None:
    backend = OnnxRuntimeBackend(graph, "cpu", "fp32")
    for n in (1, 2, 65):
        assert backend.run(Inputs(draw_latents(range(n), 16), np.zeros(n, np.int64))).shape[0] == n


def test_float_images_is_the_tanh(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    name = float_images(model)
    assert next(n.op_type for n in model.graph.node if name in n.output) == "Tanh"


def test_an_unconditional_generator_takes_z_alone() -> None:
    torch.manual_seed(0)
    model = onnx.load_from_string(
        to_onnx(Generator(16, 1, 0, z_dim=8, width=4).eval(), z_dim=8, num_classes=0)
    )
    assert [value.name for value in model.graph.input] == ["z"]


def test_what_cannot_be_traced_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, z):
            return z.new_tensor(z.detach().numpy()) if z.sum().item() > 0 else z

    with pytest.raises(ExportError, match="Odd: forward decides by .*in test_graph.py, line"):
        to_onnx(Odd(), z_dim=4, num_classes=0)
