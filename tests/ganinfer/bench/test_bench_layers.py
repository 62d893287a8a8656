import functools
import importlib

import onnx
import pytest
from conftest import CLASSES, SMALL

from ganexport.graph.macs import node_macs
from ganexport.graph.owners import layers_of
from ganexport.graph.subpixel import to_subpixel
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer.backends._profile import Kernel
from ganinfer.bench.layers import INPUTS, Layers


@functools.cache
def graph_of(model: str) -> bytes:
    """A small generator of an architecture, as it is exported."""
    module = importlib.import_module(f"gantrain.models.{model}")
    network = module.Generator(16, 3, len(CLASSES), **SMALL[model][0])
    subject = of_module(network.eval(), Spec(network.z_dim, CLASSES))
    return subject.to_onnx(rewrite(subject.twin()))


@pytest.mark.parametrize("model", ["biggan", "r3gan", "stylegan2"])
def test_layers_and_their_arithmetic_are_those_of_the_export(model: str) -> None:
    file = graph_of(model)
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(file), data_prop=True)
    expected = {INPUTS: 0}
    for layer, macs in zip(layers_of(inferred.graph), node_macs(inferred.graph), strict=True):
        name = INPUTS if layer == "input" else layer
        expected[name] = expected.get(name, 0) + macs
    assert {layer.name: layer.macs for layer in Layers(file).layers} == expected


@pytest.mark.parametrize("model", ["biggan", "resnet"])
def test_zeros_of_a_widened_kernel_are_no_work(model: str) -> None:
    file = graph_of(model)
    changed = to_subpixel(file, "fp32")
    assert b"to_image.weight_pixels" in changed
    before, after = ({one.name: one.macs for one in Layers(g).layers} for g in (file, changed))
    assert after == before


def kernel(name: str, *nodes: str, feeds: tuple[str, ...] = ()) -> Kernel:
    return Kernel(name, nodes, feeds, "Conv", "fp32", moves=not nodes, num_bytes=1)


def owners(*kernels: Kernel) -> list[list[str]]:
    return Layers(graph_of("biggan")).of_kernels(kernels)


def test_a_fused_kernel_belongs_to_the_layer_that_multiplies() -> None:
    fused = kernel("k", "norm", "blocks.2.conv2", "node_that_a_runtime_made")
    assert owners(fused) == [["blocks.2.conv2", "norm"]]


def test_a_kernel_called_after_a_folded_factor_multiplies_for_the_layer_before_it() -> None:
    graph = onnx.load_from_string(graph_of("biggan")).graph
    (factor,) = [n.name for n in graph.node if "generator.blocks.1.gamma" in n.input]
    assert owners(kernel("k", factor)) == [["blocks.1.out", "blocks.1"]]
    beside = owners(kernel("k", factor), kernel("own", "blocks.1.out"))
    assert beside == [["blocks.1"], ["blocks.1.out"]]


@pytest.mark.parametrize(
    "name", ["blocks.2.conv2/WithoutBiases", "Added_blocks.2.conv2_nchwc", "blocks.2.conv2_token_7"]
)
def test_what_a_runtime_adds_to_a_name_is_seen_through(name: str) -> None:
    assert owners(kernel(name, name)) == [["blocks.2.conv2"]]


def test_a_part_of_a_word_is_no_name() -> None:
    assert owners(kernel("k", "blocks.2.conv21"), kernel("norms", "norms")) == [[INPUTS], [INPUTS]]


def test_a_copy_belongs_to_what_takes_it_or_else_to_what_gives_it() -> None:
    to_the_last = kernel("copy", feeds=("again",))
    again = kernel("again", feeds=("last",))
    last = kernel("last", "to_image", feeds=("out",))
    out = kernel("out", feeds=("nowhere",))
    assert owners(to_the_last, again, last, out) == [["to_image"]] * 4
