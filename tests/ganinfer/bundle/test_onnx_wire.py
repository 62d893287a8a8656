import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ganinfer.bundle.onnx_wire import ExternalData, external_data


def external(name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def model_with(initializers=(), nodes=(), functions=()) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [], [], list(initializers))
    return helper.make_model(graph, functions=list(functions))


INSIDE = numpy_helper.from_array(np.zeros(1, np.float32), "w")
INNER = helper.make_graph([], "inner", [], [], [external()])


@pytest.mark.parametrize(
    "model",
    [
        model_with([external()]),
        model_with([INSIDE], [helper.make_node("Constant", [], ["c"], value=external())]),
        model_with([INSIDE], [helper.make_node("If", ["c"], [], then_branch=INNER)]),
        model_with(
            functions=[
                helper.make_function(
                    "d",
                    "f",
                    [],
                    ["c"],
                    [helper.make_node("Constant", [], ["c"], value=external())],
                    [helper.make_opsetid("", 20)],
                )
            ]
        ),
    ],
    ids=["initializer", "constant", "subgraph", "function"],
)
def test_external_data_is_found_wherever_it_hides(model: onnx.ModelProto) -> None:
    assert external_data(model.SerializeToString()) == [ExternalData("weights.bin", 0, 0)]


def test_a_tag_that_parsers_read_differently_is_refused() -> None:
    def varint(value: int) -> bytes:
        data = b""
        while value > 0x7F:
            data += bytes([value & 0x7F | 0x80])
            value >>= 7
        return data + bytes([value])

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    entry = field(1, b"location") + field(2, b"/etc/passwd")
    tensor = varint((13 << 3 | 2) + 2**32) + varint(len(entry)) + entry
    with pytest.raises(ValueError, match="field tag"):
        external_data(field(7, field(5, tensor)))
    location = varint(14 << 3) + varint(2**32 + 1)
    with pytest.raises(ValueError, match="reference to another file"):
        external_data(field(7, field(5, location)))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [("location", "a"), ("location", "b")],
        [("location", "a"), ("offset", "-1")],
        [("location", "a"), ("checksum", "0")],
        [("offset", "0")],
    ],
    ids=str,
)
def test_a_reference_that_parsers_read_differently_is_refused(entries) -> None:
    tensor = external()
    del tensor.external_data[:]
    for key, value in entries:
        tensor.external_data.add(key=key, value=value)
    with pytest.raises(ValueError, match="another file"):
        external_data(model_with([tensor]).SerializeToString())


def test_a_place_without_a_mark_is_refused() -> None:
    tensor = external()
    tensor.ClearField("data_location")
    with pytest.raises(ValueError, match="another file"):
        external_data(model_with([tensor]).SerializeToString())


def test_data_inside_is_fine() -> None:
    node = helper.make_node("Constant", [], ["c"], value=INSIDE)
    assert external_data(model_with([INSIDE], [node]).SerializeToString()) == []


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\xff\xff", b"\xff" * 20, b"\x0b", b"\x09abc"])
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        external_data(data)
