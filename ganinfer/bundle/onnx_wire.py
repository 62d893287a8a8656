"""Reads just enough of an ONNX file's protobuf wire format to find weights kept in other files.

A runtime follows such references to any path that the file names; a bundle's graph names one file
at most, and that is in the bundle. Field numbers are those of onnx.proto3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto
_EXTERNAL = 1
_KEYS = {b"location", b"offset", b"length"}

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


@dataclass(frozen=True)
class ExternalData:
    """Where a tensor lies that is kept in another file: its name, and bytes in it."""

    location: str
    offset: int
    length: int


def external_data(model: bytes) -> list[ExternalData]:
    """All references of an ONNX model to other files.

    Raises:
        ValueError: these bytes are no protobuf message, or a reference is not one location with at
            most one offset and one length; parsers differ in what they make of anything else.
    """
    return [
        _reference(fields)
        for fields in _tensors(model)
        if any(
            field == _EXTERNAL_DATA or (field == _DATA_LOCATION and _is_external(value))
            for field, value in fields
        )
    ]


def _tensors(model: bytes) -> Iterator[list[tuple[int, int | memoryview]]]:
    """The fields of every tensor of a model, wherever it is."""
    stack = [("model", memoryview(model))]
    while stack:
        message, data = stack.pop()
        if message == "tensor":
            yield list(fields_of(data))
            continue
        for field, value in fields_of(data):
            if (child := _SUBMESSAGES[message].get(field)) and isinstance(value, memoryview):
                stack.append((child, value))


def _reference(fields: list[tuple[int, int | memoryview]]) -> ExternalData:
    """What the fields of a tensor say of another file."""
    marks = [value for field, value in fields if field == _DATA_LOCATION]
    entries: dict[bytes, bytes] = {}
    for field, entry in fields:
        if field != _EXTERNAL_DATA or not isinstance(entry, memoryview):
            continue
        (key_field, key), (value_field, value) = _pair(entry)
        if (key_field, value_field) != (1, 2) or key in entries:
            raise ValueError("a reference to another file that says something twice")
        entries[key] = value
    location = entries.get(b"location")
    if marks != [_EXTERNAL] or location is None or not entries.keys() <= _KEYS:
        raise ValueError("a reference to another file that is not a location, offset and length")
    numbers = entries.get(b"offset", b"0"), entries.get(b"length", b"0")
    if not all(number.isdigit() and len(number) <= 18 for number in numbers):
        raise ValueError("a place in another file that is no number")
    return ExternalData(location.decode("utf-8", "replace"), *map(int, numbers))


def _pair(entry: memoryview) -> list[tuple[int, bytes]]:
    """The two fields of a StringStringEntryProto."""
    found = [
        (field, bytes(value)) for field, value in fields_of(entry) if not isinstance(value, int)
    ]
    if len(found) != 2:
        raise ValueError("a reference to another file that is no pair of a key and a value")
    return found


def _is_external(value: int | memoryview) -> bool:
    # Enumerations are 32 bits wide; a longer number is cut. Bytes are not what belongs there.
    return not isinstance(value, int) or value & 0xFFFFFFFF == _EXTERNAL


def fields_of(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
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


def integers_of(data: memoryview, number: int) -> tuple[int, ...]:
    """The integers of a field of a message, written one by one or all in one piece."""
    found: list[int] = []
    for field, value in fields_of(data):
        if field != number:
            continue
        if isinstance(value, int):
            found.append(value)
            continue
        position = 0
        while position < len(value):
            integer, position = _varint(value, position)
            found.append(integer)
    return tuple(found)
