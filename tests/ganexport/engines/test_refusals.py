"""Graphs that TensorRT-RTX really refuses."""

import importlib.util

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from ganexport.engines.refusals import explain_builder
from ganexport.engines.tensorrt import build_engine
from ganinfer.errors import ExportError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="pip install 'ganpipe[rtx]'"
)

SEQUENCE = """<ir_version: 8, opset_import: ["" : 20]>
g (float[n, 4] z) => (float[n, 1] y)
{ a = MatMul(z, weight)
  [split] parts = SplitToSequence<axis = 1>(a)
  first = Constant<value = int64 {0}>()
  [take] y = SequenceAt(parts, first) }"""
ATTENTION = """<ir_version: 10, opset_import: ["" : 23]>
g (float[n, 16, 4] z, float[n, 4, 4] k, float[n, 4, 16] v) => (float[n, 16, 16] y)
{ [look] y = Attention<q_num_heads = 1, kv_num_heads = 1>(z, k, v) }"""
UINT8 = """<ir_version: 8, opset_import: ["" : 20]>
g (float[n, 2, 4] z) => (uint8[n, 4, 2] y)
{ [pixels] a = Cast<to = 2>(z)
  [permute] y = Transpose<perm = [0, 2, 1]>(a) }"""
BFLOAT16 = """<ir_version: 8, opset_import: ["" : 22]>
g (float[n, 4, 4, 4] z) => (float[n, 4, 8, 8] y)
{ a = Cast<to = 16>(z)
  b = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1]>(a, weight)
  y = Cast<to = 1>(b) }"""


def give_weight(model: onnx.ModelProto, layer: str, array: np.ndarray) -> None:
    """As `ganexport.graph.tracing` names it; the text format has no names with dots."""
    name = f"generator.{layer}.weight"
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    node = next(node for node in model.graph.node if "weight" in node.input)
    node.name, node.input[1] = layer, name


@pytest.mark.parametrize(
    ("text", "weight", "message"),
    [
        (
            SEQUENCE,
            ("mapping.0", np.eye(4, dtype=np.float32)),
            r"SplitToSequence split \(layer mapping.0\): not supported; .*a list of sizes",
        ),
        (ATTENTION, None, "Attention look: .*export at opset 22 or below"),
        (UINT8, None, "Cast pixels: .*let the cast to uint8 stand last"),
        (
            BFLOAT16,
            ("ups.0", np.ones((4, 4, 4, 4), ml_dtypes.bfloat16)),
            "layers named: ups.0; .*no transposed convolution in bfloat16",
        ),
    ],
)
def test_a_refusal_names_node_and_layer_and_says_what_helps(text, weight, message) -> None:
    model = onnx.parser.parse_model(text)
    if weight is not None:
        layer, array = weight
        give_weight(model, layer, array)
    with pytest.raises(ExportError, match=message):
        build_engine(
            model.SerializeToString(),
            product="tensorrt_rtx",
            target="portable",
            precision="fp32",
            profiles=[(1, 2, 4)],
        )


def test_a_builder_that_says_nothing_is_told_so() -> None:
    assert explain_builder([], b"") == "it gives no reason"
