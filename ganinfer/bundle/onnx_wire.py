"""Reads just enough of an ONNX file's protobuf wire format to find weights kept in other files.

A runtime follows such references to any path that the file names; a bundle's graph has none.
Field numbers are those of onnx.proto3.
"""

from collections.abc import Iterator

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto
_EXTERNAL = 1

# message -> {field: message of the submessage}
_SUBMESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


def uses_external_data(model: bytes) -> bool:
    """Does any tensor of an ONNX model lie in another file?

    Raises:
        ValueError: these bytes are no protobuf message.
    """
    stack = [("model", memoryview(model))]
    while stack:
        message, data = stack.pop()
        for field, value in _fields(data):
            if message == "tensor":
                if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and _is_external(value)):
                    return True
            elif (child := _SUBMESSAGES[message].get(field)) and isinstance(value, memoryview):
                stack.append((child, value))
    return False


def _is_external(value: int | memoryview) -> bool:
    # Enumerations are 32 bits wide; a longer number is cut. Bytes are not what belongs there.
    return not isinstance(value, int) or value & 0xFFFFFFFF == _EXTERNAL


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, integer or bytes) of a message, in order."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        field, wire_type = tag >> 3, tag & 7
        # Parsers differ in what they make of longer tags; no honest file has one.
        if tag >> 32 or field == 0:
            raise ValueError(f"field tag {tag}")
        if wire_type == 0:
            value, position = _varint(data, position)
            yield field, value
            continue
        if wire_type == 2:
            size, position = _varint(data, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position + size > len(data):
            raise ValueError("a field runs past the end")
        yield field, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise ValueError("a number of more than 10 bytes")
