import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from test_importer_stylegan2 import CLASSES, state_of
from torch import Tensor, nn

from ganexport.graph.precision import convert, layers
from ganexport.graph.styles import cut_mapping
from ganexport.importers import stylegan2
from ganexport.pipeline import _calibration
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module, with_class_weights
from ganinfer.backends.onnxruntime import MappingNetwork, OnnxRuntimeBackend
from ganinfer.drawing.inputs import draw_inputs, of_styles
from ganinfer.drawing.model import StyleInput
from ganinfer.errors import ExportError


@pytest.fixture(scope="module")
def subject() -> Subject:
    return of_module(*stylegan2.read(state_of(CLASSES), truncation_cutoff=4))


@pytest.fixture(scope="module")
def graph(subject: Subject) -> bytes:
    return subject.to_onnx(subject.twin())


def test_the_mapping_network_is_cut_out_of_the_graph(subject: Subject, graph: bytes) -> None:
    inputs = draw_inputs(subject.model, range(5), np.array([0, 1, 2, 2, 0]), truncation=0.3)
    found = MappingNetwork(cut_mapping(graph))(inputs)
    network = subject.network
    z, y = torch.from_numpy(inputs.z), torch.from_numpy(inputs.y)
    w, w_avg = network.mapping(z, y), network.mapping.w_avg
    np.testing.assert_allclose(found[:, 0], w_avg.lerp(w, 0.3).numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[:, 5], w.numpy(), rtol=1e-5, atol=1e-5)
    assert np.array_equal(found[:, 0], found[:, 3])
    assert np.array_equal(found[:, 4], found[:, 5])


def test_it_holds_no_weight_of_the_synthesis(graph: bytes) -> None:
    weights = onnx.load_from_string(cut_mapping(graph)).graph.initializer
    assert sum(w.name.endswith("kernel") for w in weights) == 2
    assert not [w.name for w in weights if "synthesis" in w.name]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_styles_of_z_make_the_image_of_z_in_every_precision(
    subject: Subject, graph: bytes, precision: str
) -> None:
    file = convert(graph, precision, calibration=_calibration(subject))
    inputs = draw_inputs(subject.model, range(8), np.arange(8) % 3, truncation=0.5)
    w = MappingNetwork(cut_mapping(graph))(inputs)
    if precision == "bf16":  # which onnxruntime does not compute; the weights show it
        kernel = next(
            weight
            for weight in onnx.load_from_string(file).graph.initializer
            if weight.name.startswith("generator.mapping.fc0.kernel")
        )
        assert numpy_helper.to_array(kernel).dtype == np.float32
        return
    backend = OnnxRuntimeBackend(file, "cpu", precision)
    assert np.array_equal(backend.run(of_styles(subject.model, w)), backend.run(inputs))


def test_sums_over_styles_are_not_quantised(subject: Subject, graph: bytes) -> None:
    file = convert(graph, "int8", calibration=_calibration(subject))
    nodes = onnx.load_from_string(file).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    products = [node for node in nodes if node.op_type == "MatMul"]
    assert len(products) == 5
    assert not [n for n in products if "DequantizeLinear" in map(makers.get, n.input)]
    assert "DequantizeLinear" in makers.values()


def test_mixtures_of_classes_are_mapped(subject: Subject, graph: bytes) -> None:
    mixing = with_class_weights(subject)
    mapping = MappingNetwork(cut_mapping(mixing.to_onnx(mixing.twin())))
    y = np.array([0, 1, 2])
    expected = MappingNetwork(cut_mapping(graph))(draw_inputs(subject.model, range(3), y))
    assert np.array_equal(mapping(draw_inputs(mixing.model, range(3), y)), expected)


def test_a_search_leaves_the_mapping_network_alone(graph: bytes) -> None:
    assert all(name.startswith(("synthesis.", "node_")) for name in layers(graph))


class Halfway(nn.Module):
    """Adds what it is given to what it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping, self.synthesis = nn.Linear(4, 4), nn.Linear(4, 64)

    def forward(self, z: Tensor, w: Tensor, takes_w: Tensor) -> Tensor:
        v = self.mapping(z) + takes_w[:, None] * w[:, 0]
        return torch.tanh(self.synthesis(v)).reshape(-1, 1, 8, 8)


def test_another_use_of_styles_is_refused() -> None:
    spec = Spec(z_dim=4, style_input=StyleInput(num_styles=1, w_dim=4))
    halfway = of_module(Halfway(), spec)
    with pytest.raises(ExportError, match="expected one torch.where"):
        cut_mapping(halfway.to_onnx(halfway.twin()))
