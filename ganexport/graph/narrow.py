"""A convolution of few channels, as that of an image, and one that computes more at once.

Processors compute some 16 channels together, and of a kernel with three the rest is lost. Along one
axis, of kernel w of size k, pads p and q, and any s:

    y[s o + r] = sum over t < k of w[t] x[s o + r + t - p]
               = sum over j < k + s - 1 of w[j - r] x[s o + j - p],  w being 0 elsewhere:

for the s pixels r a convolution of stride s and of the same pads, which is s times as many channels
of a kernel that is s - 1 larger. Of two axes s s of (k + s - 1)^2 / (s k)^2 of the multiplications,
zeros included: 16 of 36 of a 3x3 kernel and s = 2, for each vector of channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ganexport.graph.macs import Shape
from ganexport.graph.phases import Made, on_part

VECTOR = 16  # channels that processors compute together


@dataclass(frozen=True)
class Narrow:
    """A convolution over two axes whose channels fill a vector several times less than once.

    Attributes:
        node: that it is. weight: (C_out, C_in, k, l). bias: (C_out,).
        pads: top, left, bottom, right.
        stride: s, pixels along each axis that are computed at once.
    """

    node: onnx.NodeProto
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    pads: Sequence[int]
    stride: int

    @classmethod
    def of(cls, node: onnx.NodeProto, weights: list[NDArray[Any]]) -> "Narrow | None":
        """None if the node is left as it is."""
        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        channels, _, *kernel = weights[0].shape
        fits = [s for s in (2, 4) if s * s * channels <= VECTOR]
        if (
            not fits
            or len(kernel) != 2
            or max(kernel) == 1
            or said.get("auto_pad", b"NOTSET") != b"NOTSET"
            or said.get("group", 1) != 1
            or any(n != 1 for name in ("strides", "dilations") for n in said.get(name, ()))
        ):
            return None
        bias = weights[1] if len(weights) > 1 else None
        return cls(node, weights[0], bias, said.get("pads", [0] * 4), max(fits))

    @property
    def num_inputs(self) -> int:
        """Channels of its input."""
        return int(self.weight.shape[1])

    @property
    def num_channels(self) -> int:
        """Of the result."""
        return len(self.weight)

    def convolution(self, size: Shape, after: Sequence[onnx.NodeProto] = ()) -> Made | None:
        """Of several pixels at once; then they are put where they belong.

        None if they do not fill the result, or nobody knows.

        Args:
            size: of the input, (H, W); 0 if not fixed.
            after: as of `ganexport.graph.phases.Transposed.convolution`.
        """
        s, channels, kernel = self.stride, self.num_channels, self.weight.shape[2:]
        ends = [sum(self.pads[axis::2]) - kernel[axis] + 1 for axis in (0, 1)]
        if 0 in size or any((n + end) % s for n, end in zip(size, ends, strict=True)):
            return None
        wide = np.zeros((s, s, *self.weight.shape[:2], *(k + s - 1 for k in kernel)), np.float32)
        for row in range(s):
            for column in range(s):
                part = wide[row, column]
                part[:, :, row : row + kernel[0], column : column + kernel[1]] = self.weight
        name, weight, (result,) = self.node.name, self.node.input[1], self.node.output
        weights = {f"{weight}_pixels": wide.reshape(s * s * channels, *wide.shape[3:])}
        if self.bias is not None:
            weights[f"{weight}_pixels_bias"] = np.tile(self.bias, s * s)
        end = after[-1].output[0] if after else result
        nodes = [
            helper.make_node(
                "Conv", [self.node.input[0], *weights], [f"{result}_pixels"], name,
                kernel_shape=wide.shape[4:], pads=self.pads, strides=[s, s],
            ),
            *on_part(after, result, "pixels"),
            helper.make_node(
                "DepthToSpace", [f"{end}_pixels"], [end], f"{name}.shuffle", blocksize=s, mode="DCR"
            ),
        ]  # fmt: skip
        return Made(nodes, weights)
