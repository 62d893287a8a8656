"""NumPy's arrays in a file of torch.save, made into tensors without NumPy's own unpickling."""

import re

import numpy as np
import torch
from torch import Tensor

_NUMBERS = re.compile(r"f[248]|[iu][1248]|b1")  # floats, integers and booleans; no objects


class DType:
    """Stands where a file wants a `numpy.dtype`.

    Attributes:
        code: such as "f4". order: of its bytes, "<", ">", or "|" for single ones.
    """

    def __init__(self, code: object = "", *_: object) -> None:
        self.code, self.order = str(code), "|"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = str(state[1])


class Array:
    """Stands where a file wants a `numpy.ndarray`.

    Attributes:
        tensor: its numbers; None of what has none, as of objects, or fewer than its shape says.
    """

    tensor: Tensor | None = None

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        """Of (version, shape, dtype, whether columns come first, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            return
        _, shape, dtype, columns_first, data = state
        if not isinstance(dtype, DType) or not _NUMBERS.fullmatch(dtype.code):
            return
        try:
            flat = np.frombuffer(data, dtype.order + dtype.code)
            array = flat.reshape(shape, order="F" if columns_first else "C")
            # A copy, in this host's order of bytes and with rows first.
            self.tensor = torch.from_numpy(array.astype(dtype.code, order="C"))
        except (ValueError, TypeError):  # what is said of the bytes does not fit them
            return
