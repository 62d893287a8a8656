"""Tensors of the Open Inference Protocol, version 2: in JSON, and by its binary extension.

A request is JSON; the bytes of tensors that say binary_data_size follow it, in their order, and the
header Inference-Header-Content-Length says where they begin. Answers are made in the same way.
"""

import io
import math
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_core import to_json

from ganinfer.server.answers import malformed
from ganinfer.server.bodies import Body, read_json

# Types that inputs here have; a BYTES tensor holds texts.
DTYPES = {"UINT64": "<u8", "INT64": "<i8", "FP64": "<f8", "FP32": "<f4"}
LARGE = 1 << 18  # bytes; more are read or packed beside the event loop

Values = NDArray[Any] | list[str]


class InputTensor(Body):
    name: str
    datatype: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=2)]
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class OutputAsked(Body):
    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferenceRequest(Body):
    id: str | None = None
    inputs: list[InputTensor]
    outputs: list[OutputAsked] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Tensor:
    """An input: values in their order, as many as the shape says."""

    datatype: str
    shape: tuple[int, ...]
    values: Values


@dataclass(frozen=True)
class Output:
    """An output; files: of a BYTES tensor of shape (N,), else pixels are set."""

    name: str
    binary: bool
    pixels: NDArray[np.uint8] | None = None
    files: Sequence[bytes] = ()

    @property
    def datatype(self) -> str:
        return "BYTES" if self.pixels is None else "UINT8"

    @property
    def shape(self) -> list[int]:
        return [len(self.files)] if self.pixels is None else list(self.pixels.shape)

    @property
    def raw(self) -> bytes | memoryview:
        """Its bytes; a file follows 4 bytes of its length, little-endian."""
        if self.pixels is not None:
            return self.pixels.data
        return b"".join(struct.pack("<I", len(file)) + file for file in self.files)


def read_request(
    body: bytes, header_length: str | None
) -> tuple[InferenceRequest, dict[str, Tensor]]:
    """A request and its inputs by name.

    Raises:
        HTTPException: 400 if it is malformed.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isdecimal() and len(header_length) < 16):
            raise malformed("Inference-Header-Content-Length: expected a number of bytes")
        length = int(header_length)
        if length > len(body):
            raise malformed(
                f"Inference-Header-Content-Length: found {length}, and a body of {len(body)} bytes"
            )
    request = read_json(InferenceRequest, body[:length])
    rest = io.BytesIO(body)
    rest.seek(length)

    def values_of(given: InputTensor) -> Values:
        name, size = given.name, given.parameters.get("binary_data_size")
        if (size is None) == (given.data is None):
            raise malformed(f"{name}: expected either data or binary_data_size")
        if size is None:
            return _from_json(given, list(_flat(given.data or [], len(given.shape))))
        left = len(body) - rest.tell()
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
            raise malformed(f"{name}: binary_data_size {size}: {left} bytes of the body are left")
        return from_raw(given, rest.read(size))

    tensors = read_tensors(request, values_of)
    if left := len(body) - rest.tell():
        raise malformed(f"body: {left} bytes belong to no input")
    return request, tensors


def read_tensors(
    request: InferenceRequest, values_of: Callable[[InputTensor], Values]
) -> dict[str, Tensor]:
    """The inputs of a request by name.

    Args:
        request: what they are.
        values_of: finds the values of each, in their order.

    Raises:
        HTTPException: 400, there can be no such input.
    """
    tensors: dict[str, Tensor] = {}
    for given in request.inputs:
        name, kind = given.name, given.datatype
        if name in tensors:
            raise malformed(f"inputs: {name!r} is there twice")
        if kind != "BYTES" and kind not in DTYPES:
            raise malformed(f"{name}: found {kind}; expected one of {', '.join(DTYPES)}, BYTES")
        if "shared_memory_region" in given.parameters:
            raise malformed(f"{name}: shared memory is not served; send data")
        tensors[name] = Tensor(kind, tuple(given.shape), values_of(given))
    return tensors


def from_raw(given: InputTensor, data: bytes) -> Values:
    """The values of an input from their bytes.

    Raises:
        HTTPException: 400, they are not those of its type and shape.
    """
    name, kind = given.name, given.datatype
    if kind == "BYTES":
        texts = list(_texts(name, data))
        check_count(given, len(texts))
        return texts
    expected = math.prod(given.shape) * np.dtype(DTYPES[kind]).itemsize
    if len(data) != expected:
        raise malformed(f"{name}: found {len(data)} bytes; {kind} {given.shape} has {expected}")
    return np.frombuffer(data, DTYPES[kind])


def check_count(given: InputTensor, count: int) -> None:
    """Refuse, by 400, more or fewer values than the shape says."""
    if count != math.prod(given.shape):
        raise malformed(f"{given.name}: found {count} values for the shape {given.shape}")


def _flat(data: list[Any], depth: int) -> Iterator[Any]:
    """Values in their order; data is flat, or nested as the shape is."""
    for value in data:
        if isinstance(value, list) and depth > 1:
            yield from _flat(value, depth - 1)
        else:
            yield value


def _from_json(given: InputTensor, flat: list[Any]) -> Values:
    """Values that JSON holds; integers may be texts, as JavaScript's numbers end at 2**53."""
    name, kind = given.name, given.datatype
    check_count(given, len(flat))
    if kind == "BYTES":
        if not all(isinstance(value, str) for value in flat):
            raise malformed(f"{name}: expected texts")
        return flat
    dtype = np.dtype(DTYPES[kind])
    read = number if dtype.kind == "f" else integer
    values = [read(name, value) for value in flat]
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        for value in values:
            if not limits.min <= value <= limits.max:
                raise malformed(f"{name}: found {value!s:.40}; {kind} ends at {limits.max}")
    with np.errstate(over="ignore"):  # to infinity, which is refused where it matters
        return np.array(values, dtype)


def integer(name: str, value: Any) -> int:
    """An integer of JSON, or a text of one.

    Raises:
        HTTPException: 400, it is something else.
    """
    digits = isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal()
    if isinstance(value, bool) or not (isinstance(value, int) or digits):
        raise malformed(f"{name}: found {value!r:.40}; expected an integer")
    return int(value)


def number(name: str, value: Any) -> float:
    """A finite number of JSON.

    Raises:
        HTTPException: 400, it is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:  # NaN is not
        raise malformed(f"{name}: found {value!r:.40}; expected a finite number")
    return float(value)


def _texts(name: str, data: bytes) -> Iterator[str]:
    """Each is 4 bytes of its length, little-endian, and as many of UTF-8."""
    place = 0
    while place < len(data):
        if len(data) - place < 4:
            raise malformed(f"{name}: its last value has no length")
        (length,) = struct.unpack_from("<I", data, place)
        place += 4
        if length > len(data) - place:
            raise malformed(f"{name}: a value of {length} bytes, and {len(data) - place} are left")
        try:
            yield data[place : place + length].decode()
        except UnicodeDecodeError:
            raise malformed(f"{name}: expected texts in UTF-8") from None
        place += length


def pack_answer(told: dict[str, Any], outputs: list[Output]) -> tuple[bytes, int | None]:
    """An answer's body, and how long its JSON is if bytes of tensors follow it."""
    tails: list[bytes | memoryview] = []
    described = []
    for output in outputs:
        entry: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": output.shape,
        }
        if output.binary:
            tails.append(output.raw)
            entry["parameters"] = {"binary_data_size": memoryview(tails[-1]).nbytes}
        else:
            assert output.pixels is not None
            entry["data"] = output.pixels.ravel().tolist()
        described.append(entry)
    head = to_json({**told, "outputs": described})
    return b"".join([head, *tails]), len(head) if tails else None
