from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import pytest
import torch
from onnx import numpy_helper

from ganexport.graph.owners import layers_of
from ganexport.graph.precision import PRECISIONS, convert
from ganexport.graph.subpixel import in_precision
from ganexport.graph.tracing import to_onnx
from ganexport.proof.layers import DEPARTS_DB, Comparison, compare_bundle, compare_graphs
from ganexport.subjects.rewrites import rewrite
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ExportError
from gantrain.models.dcgan import Generator
from gantrain.training.standing import standing_statistics

pytest.importorskip("polygraphy")


@pytest.fixture(scope="module")
def single(bundle: Path) -> bytes:
    with Bundle(bundle) as opened:
        return opened.read_graph("fp32")


FEED = {"z": draw_latents(range(4), 16), "y": np.arange(4) % 3}


def scale_weight(graph: bytes, layer: str, factor: float) -> bytes:
    model = onnx.load_from_string(graph)
    node = next(node for node in model.graph.node if node.name == layer)
    weight = next(w for w in model.graph.initializer if w.name == node.input[1])
    array = (numpy_helper.to_array(weight) * factor).astype(numpy_helper.to_array(weight).dtype)
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    return model.SerializeToString()


def compare(single: bytes, variant: bytes, precision: str) -> Comparison:
    return compare_graphs(single, variant, precision, FEED)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_honest_variant_departs_nowhere(single: bytes, precision: str) -> None:
    variant = convert(single, precision, calibration=FEED)
    found = compare(single, variant, precision)
    assert found.first is None
    assert {"tanh", "images"} <= {tensor.tensor for tensor in found.tensors}
    assert found.num_images == 4


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_one_of_subpixel_convolutions_does_not_either(precision: str) -> None:
    torch.manual_seed(0)
    network = Generator(16, 3, 0, z_dim=16, width=8)
    standing_statistics(network, num_batches=2, truncation=None, seed=0)
    network.to_image.weight.data *= 10  # from grey to images
    single = to_onnx(rewrite(network.eval()), z_dim=16, num_classes=0)
    feed = {"z": draw_latents(range(32), 16)}
    variant = convert(in_precision(single, precision), precision, calibration=feed)
    found = compare_graphs(single, variant, precision, feed)
    assert found.first is None
    # Among them those of which int8 has divided channels.
    assert {"relu", "relu_1", "round_1"} <= {tensor.tensor for tensor in found.tensors}
    assert {"project", "ups.0", "to_image"} <= {tensor.layer for tensor in found.layers}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("layer", ["project", "ups.0", "to_image"])
def test_a_fault_in_one_layer_is_named(single: bytes, precision: str, layer: str) -> None:
    faulty = scale_weight(convert(single, precision), layer, 1.2)
    found = compare(single, faulty, precision)
    assert found.first is not None
    assert found.first.layer == found.largest_jump.layer == layer
    assert found.first.psnr_db < DEPARTS_DB[precision]
    before = [tensor for tensor in found.layers if tensor.psnr_db >= DEPARTS_DB[precision]]
    assert bool(before)


def test_a_tensor_of_another_shape_departs(single: bytes) -> None:
    model = onnx.load_from_string(single)
    node = next(node for node in model.graph.node if node.op_type == "Transpose")
    next(a for a in node.attribute if a.name == "perm").ints[:] = [0, 1, 2, 3]
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    del model.graph.value_info[:]
    found = compare(single, model.SerializeToString(), "fp32")
    assert found.first is not None
    assert found.first.op == "Transpose"
    assert found.first.psnr_db == -np.inf


def test_every_node_belongs_to_a_layer_or_to_the_inputs(single: bytes) -> None:
    found = layers_of(onnx.load_from_string(single).graph)
    assert found[0] == "input"
    assert found[-1] == "to_image"
    assert {"project", "ups.0", "norms.0.scale_and_shift", "to_image"} <= set(found)


def test_a_bundle_is_compared_on_its_golden_latents(bundle: Path, run: Path) -> None:
    assert compare_bundle(bundle).departs_db == DEPARTS_DB["fp16"]
    traced = compare_bundle(bundle, "fp32", run)
    assert traced.num_images == 16
    assert all(tensor.psnr_db == np.inf for tensor in traced.tensors)


def test_a_variant_that_is_not_there_is_named(bundle: Path) -> None:
    with pytest.raises(ExportError, match="no int8 variant .* it holds fp32, fp16"):
        compare_bundle(bundle, "int8")


def test_graphs_of_other_names_share_nothing(single: bytes) -> None:
    model = onnx.compose.add_prefix(
        onnx.load_from_string(single), "other_", rename_inputs=False, rename_nodes=False
    )
    with pytest.raises(ExportError, match="share no tensor"):
        compare(single, model.SerializeToString(), "fp32")
