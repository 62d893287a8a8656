"""ONNX nodes, written down as one computes: each call adds a node and gives its result's name."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Operand = str | NDArray[Any] | np.generic

_END = np.iinfo(np.int64).max


class Nodes:
    """Nodes of a graph, and the constants that they take.

    Attributes:
        nodes: in the order of the calls.
        constants: each once, however often it is taken.
    """

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._prefix = prefix
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, operator: str, *operands: Operand, **attributes: Any) -> str:
        """Add a node; an operand is another's result, or numbers of the very type."""
        name = f"{self._prefix}{len(self.nodes)}"
        inputs = [o if isinstance(o, str) else self._constant(o) for o in operands]
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def cast(self, operand: Operand, dtype: type[np.generic]) -> str:
        """The same numbers in another type."""
        return self("Cast", operand, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def rows(self, operand: str, start: int, stop: int = _END) -> str:
        """operand[start:stop]"""
        return self._sliced(operand, start, stop, 0)

    def columns(self, operand: str, start: int, stop: int) -> str:
        """operand[:, start:stop]"""
        return self._sliced(operand, start, stop, 1)

    def reshaped(self, operand: str, *shape: int) -> str:
        """The same numbers in another shape, of which one number may be -1."""
        return self("Reshape", operand, np.array(shape, np.int64))

    def column(self, operand: str) -> str:
        """(N,) as (N, 1)."""
        return self.reshaped(operand, -1, 1)

    def _sliced(self, operand: str, start: int, stop: int, axis: int) -> str:
        return self("Slice", operand, *(np.array([n], np.int64) for n in (start, stop, axis)))

    def _constant(self, numbers: NDArray[Any] | np.generic) -> str:
        array = np.asarray(numbers)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = f"{self._prefix}c{len(self._names)}"
            self.constants.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]
