import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from ganexport.engines.origins import layers_of_nodes


def test_a_node_belongs_to_the_layer_of_its_weight_or_to_the_nearest_one_before_it() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 20]>
        g (float[n, 4] z) => (float[n, 4] y)
        { [before] a = Relu(z)
          [first] b = MatMul(a, first)
          [activation] c = Relu(b)
          [second] d = Mul(c, second)
          [sum] y = Add(d, b) }"""
    )
    for node, name in ((1, "generator.block.first.weight"), (3, "generator.second.weight")):
        model.graph.node[node].input[1] = name  # the text format has no names with dots
        model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), name))
    assert layers_of_nodes(model) == {
        "first": "block.first",
        "activation": "block.first",
        "second": "second",
        "sum": "block.first",
    }
