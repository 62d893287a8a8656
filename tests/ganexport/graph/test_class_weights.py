"""Graphs that take weights of classes: one-hot rows are exact, others are mixtures of tables."""

import functools
import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import SMALL
from torch import Tensor, nn
from torch.nn import functional

from ganexport.graph.class_weights import class_products, take_weights
from ganexport.graph.precision import convert, layers
from ganexport.graph.tracing import to_onnx
from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export_run, export_subject
from ganexport.proof.verify import verify_against_run
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer import Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.images import to_uint8
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ExportError, RequestError
from ganinfer.verify import verify_host
from gantrain.models._base import GeneratorModule

K = 5
ONE_HOT = np.eye(K, dtype=np.float32)[np.arange(20) % K]
MIXED = np.random.default_rng(0).dirichlet(np.ones(K), 20).astype(np.float32)
CONDITIONAL = ["mlp", "dcgan", "sagan", "biggan", "biggan_deep"]


def generator(name: str) -> GeneratorModule:
    """Not trained, but far from its initial state; nothing of a class is zero."""
    torch.manual_seed(0)
    module = importlib.import_module(f"gantrain.models.{name}")
    network: GeneratorModule = module.Generator(32, 3, K, **SMALL[name][0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


@functools.lru_cache
def graphs(name: str) -> tuple[bytes, bytes]:
    """Of classes, and of weights."""
    network = generator(name)
    index = to_onnx(rewrite(network), z_dim=network.z_dim, num_classes=K)
    return index, take_weights(index, K)


def images(graph: bytes, y: np.ndarray) -> np.ndarray:
    backend = OnnxRuntimeBackend(graph, "cpu", "fp32")
    z_dim = onnx.load_from_string(graph).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    return backend.run(Inputs(draw_latents(range(len(y)), z_dim), y))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_the_image_of_a_one_hot_row_is_that_of_its_class_to_the_bit(name: str) -> None:
    index, weights = graphs(name)
    assert np.array_equal(images(weights, ONE_HOT), images(index, ONE_HOT.argmax(1)))


class Mixing(nn.Module):
    """An embedding that takes weights."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table

    def forward(self, y: Tensor) -> Tensor:
        return functional.linear(y, self.table.weight.T)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_other_weights_mix_the_rows_of_every_embedding(name: str) -> None:
    _, weights = graphs(name)
    network = generator(name)
    for parent in list(network.modules()):
        for key, layer in list(parent.named_children()):
            if isinstance(layer, nn.Embedding):
                setattr(parent, key, Mixing(layer))
    z = torch.from_numpy(draw_latents(range(20), network.z_dim))
    expected = to_uint8(network(z, torch.from_numpy(MIXED)).numpy()).transpose(0, 2, 3, 1)
    found = images(weights, MIXED)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert not np.array_equal(found, images(weights, ONE_HOT))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_mixing_stays_in_float32_and_is_no_layer(precision: str) -> None:
    _, graph = graphs("dcgan")
    products = class_products(onnx.load_from_string(graph).graph)
    assert len(products) == 3
    assert not products & set(layers(graph))
    calibration = {"z": draw_latents(range(20), 16), "y": ONE_HOT}
    converted = onnx.load_from_string(convert(graph, precision, calibration=calibration))
    assert class_products(converted.graph) == products
    tables = {node.input[1] for node in converted.graph.node if node.name in products}
    kept = {weight.name for weight in converted.graph.initializer if weight.data_type == 1}
    assert tables <= kept


class Tables(nn.Module):
    """Tables whose rows are of no, one and two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.tables = nn.ParameterList(
            torch.randn(K, *shape, generator=generator) / 4 for shape in [(), (4,), (2, 2)]
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        number, row, square = self.tables
        x = (
            z
            + number[y][:, None]
            + row.index_select(0, y)
            + functional.embedding(y[:, None], row)[:, 0]
        )
        return (x.reshape(-1, 2, 2) + square[y])[:, None].clamp(-1, 1)


def test_tables_may_have_any_shape_and_any_way_of_indexing() -> None:
    index = to_onnx(Tables(), z_dim=4, num_classes=K)
    weights = take_weights(index, K)
    operators = {node.op_type for node in onnx.load_from_string(index).graph.node}
    assert operators >= {"Gather", "GatherND"}
    assert np.array_equal(images(weights, ONE_HOT), images(index, ONE_HOT.argmax(1)))


def test_another_use_of_y_is_refused_by_name() -> None:
    class Scaled(nn.Module):
        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            return (z * y[:, None]).reshape(-1, 1, 2, 2).clamp(-1, 1)

    graph = to_onnx(Scaled(), z_dim=4, num_classes=K)
    with pytest.raises(ExportError, match=r"\w+: \w+ uses y otherwise .* leave --class-weights"):
        take_weights(graph, K)


def test_a_generator_without_classes_is_refused(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def forward(self, z):
            return z.reshape(-1, 1, 2, 2).clamp(-1, 1)

    with pytest.raises(ExportError, match="Plain: has no classes to mix"):
        export_subject(
            of_module(Plain(), Spec(4)), tmp_path / "x.gan", ExportOptions(class_weights=True)
        )


@pytest.fixture(scope="module")
def mixable(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("mixable") / "x.gan"
    precisions = ("fp32", "fp16", "int8")
    return export_run(
        run, path, ExportOptions(class_weights=True, precisions=precisions, num_images=1000)
    )


def test_a_bundle_passes_every_gate_in_every_precision(mixable: Exported, run: Path) -> None:
    assert {gate.artifact.split()[1] for gate in mixable.gates} == {"fp32", "fp16", "int8"}
    gates = verify_host(mixable.path) + verify_against_run(mixable.path, run, num_images=1000)
    assert all(gate.passed for gate in gates)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_its_images_of_plain_labels_are_those_of_the_bundle_of_classes(
    mixable: Exported, bundle: Path, precision: str
) -> None:
    with (
        Sampler(mixable.path, precision=precision) as weights,
        Sampler(bundle, precision=precision) as index,
    ):
        assert np.array_equal(weights.sample(50), index.sample(50))
        assert np.array_equal(weights.sample(4, labels=2), index.sample(4, labels=2))
        assert np.array_equal(weights.sample(2, labels=[1, "0"]), index.sample(2, labels=[1, 0]))
        z = draw_latents(range(3), 16)
        assert np.array_equal(weights.generate(z, np.arange(3)), index.generate(z, np.arange(3)))
        found, expected = (s.interpolate(3, 8, 5, label=1) for s in (weights, index))
        assert np.array_equal(found, expected)


def test_a_bundle_of_classes_refuses_mixtures_and_names_the_option(bundle: Path) -> None:
    with Sampler(bundle) as sampler:
        for draw in (
            lambda: sampler.sample(2, labels={"0": 0.5, "1": 0.5}),
            lambda: sampler.sample(1, labels=[{0: 1.0}]),
            lambda: sampler.interpolate(3, 3, 4, label=0, to_label=1),
            lambda: sampler.generate(np.zeros((1, 16), np.float32), np.eye(3)[:1]),
        ):
            with pytest.raises(RequestError, match="gan export RUN --class-weights"):
                draw()
