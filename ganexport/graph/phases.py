"""One transposed convolution, and the convolutions that give the same numbers.

Shi et al., Is the deconvolution layer the same as a convolutional layer?, 1609.07009. Of stride s,
kernel w of size k and padding p, along one axis:

    y[o] = sum over i of x[i] w[o + p - s i].

With o + p = s q + r, zeros added to w up to m s, m = ceil(k / s),

    y[o] = sum over j < m of x[q - j] w[r + s j]:

for each of the s phases r a convolution of m taps, whose results at q are the pixels s q + r. p
that is no multiple of s leaves pixels at the borders, which are not wanted.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ganexport.graph.macs import Shape

_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Made:
    """What takes a node's place, and the constants that it needs, by name."""

    nodes: list[onnx.NodeProto]
    weights: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Axis:
    """One axis of the convolution that takes a transposed one's place.

    Attributes:
        before: zeros that are added before the kernel. taps: m, of each phase.
        pads: of the input, at both ends. cut: pixels of the result, at both ends.
    """

    before: int
    taps: int
    pads: tuple[int, int]
    cut: tuple[int, int]

    @classmethod
    def of(cls, kernel: int, stride: int, pads: tuple[int, int], added: int) -> "_Axis":
        """added: to the output, as output_padding says."""
        taps = math.ceil(kernel / stride)
        # Zeros before the kernel shift the result: where they can, to where nothing is cut off.
        shifts = range(taps * stride - kernel + 1)
        before = next((n for n in shifts if (pads[0] + n) % stride == 0), 0)
        first, cut = divmod(pads[0] + before, stride)
        last, kept = divmod(kernel + before - pads[1] + added - 1, stride)
        return cls(before, taps, (taps - 1 - first, last), (cut, stride - 1 - kept))

    def grids(self, stride: int) -> list[tuple[int, int, int]]:
        """Of the first pixel that is wanted, the second, ...: its phase, and the phase's pads."""
        phases = [(self.cut[0] + n) % stride for n in range(stride)]
        return [
            (r, self.pads[0] - (r < self.cut[0]), self.pads[1] - (stride - 1 - r < self.cut[1]))
            for r in phases
        ]


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution over two axes of one stride; weight (C_in, C_out / groups, k, k)."""

    node: onnx.NodeProto
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    stride: int
    groups: int
    axes: tuple[_Axis, _Axis]

    @classmethod
    def of(cls, node: onnx.NodeProto, weights: list[NDArray[Any]]) -> "Transposed | None":
        """None if the node is left as it is."""
        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        kernel = weights[0].shape[2:]
        strides = set(said.get("strides", (1,)))
        if (
            len(kernel) != 2
            or len(strides) != 1
            or any(size != 1 for size in said.get("dilations", ()))
            or said.get("auto_pad", b"NOTSET") != b"NOTSET"
            or "output_shape" in said
        ):
            return None
        pads, added = said.get("pads", [0] * 4), said.get("output_padding", [0] * 2)
        (stride,) = strides
        vertical, horizontal = (
            _Axis.of(kernel[n], stride, (pads[n], pads[n + 2]), added[n]) for n in (0, 1)
        )
        if min(*vertical.pads, *horizontal.pads) < 0:
            return None
        bias = weights[1] if len(weights) > 1 else None
        groups = said.get("group", 1)
        return cls(node, weights[0], bias, stride, groups, (vertical, horizontal))

    @property
    def num_inputs(self) -> int:
        """Channels of its input."""
        return len(self.weight)

    @property
    def num_channels(self) -> int:
        """Of the result."""
        return self.groups * int(self.weight.shape[1])

    @property
    def cuts(self) -> bool:
        """Does `convolution` make pixels that are cut off?"""
        return any(any(axis.cut) for axis in self.axes)

    @property
    def adds_zeros(self) -> bool:
        """Is the kernel no whole number of strides, so that zeros are multiplied?"""
        return any(size % self.stride for size in self.weight.shape[2:])

    def is_product(self, map_size: Shape) -> bool:
        """Is its input one pixel, which with the whole kernel gives all of the result?"""
        alone = map_size == (1, 1)
        whole = all(axis.pads == (axis.taps - 1, axis.taps - 1) for axis in self.axes)
        return alone and whole and self.stride == self.groups == 1

    def product(self) -> Made:
        """Of z (N, C_in, 1, 1) with the weight as a matrix (C_in, C_out k k)."""
        name, kernel = self.node.name, self.node.input[1]
        (source, *_), (result,) = self.node.input, self.node.output
        flat, product, shape = (f"{result}_{part}" for part in ("flat", "product", "shape"))
        channels, *size = self.weight.shape[1:]
        weights: dict[str, NDArray[Any]] = {
            f"{kernel}_matrix": self.weight.reshape(len(self.weight), -1)
        }
        if self.bias is not None:
            weights[f"{kernel}_matrix_bias"] = np.repeat(self.bias, math.prod(size))
        nodes = [
            helper.make_node("Flatten", [source], [flat], f"{name}.flat", axis=1),
            helper.make_node("Gemm", [flat, *weights], [product], name),
            helper.make_node("Reshape", [product, shape], [result], f"{name}.map"),
        ]
        return Made(nodes, {**weights, shape: np.array([0, channels, *size])})

    def convolution(self, after: Sequence[onnx.NodeProto] = ()) -> Made:
        """Of all phases at once; then their pixels are put where they belong, and cut off.

        Args:
            after: what alone takes the result, one node after the other, number by number. It then
                comes before the shuffle, where runtimes make it a part of the convolution.
        """
        name, kernel, s = self.node.name, self.node.input[1], self.stride
        source, (result,) = self.node.input[0], self.node.output
        # A pixel's channels lie side by side in most runtimes: so they move together.
        mode = "DCR" if self.groups == 1 else "CRD"
        kernels, bias = self._phases(), np.repeat(self._biases[:, None], s * s, axis=1)
        if mode == "DCR":
            kernels, bias = kernels.swapaxes(0, 1), bias.T
        weights: dict[str, NDArray[Any]] = {
            f"{kernel}_phases": kernels.reshape(-1, *kernels.shape[2:])
        }
        if self.bias is not None:
            weights[f"{kernel}_phases_bias"] = bias.reshape(-1)
        (top, bottom), (left, right) = (axis.cut for axis in self.axes)
        cut = any((top, bottom, left, right))
        end = after[-1].output[0] if after else result
        wide = f"{end}_wide" if cut else end
        sums = f"{result}_phases" if s > 1 else wide
        nodes = [
            helper.make_node(
                "Conv", [source, *weights], [sums], name,
                kernel_shape=[axis.taps for axis in self.axes],
                pads=[axis.pads[end] for end in (0, 1) for axis in self.axes],
                group=self.groups,
            ),
            *on_part(after, result, "phases"),
        ]  # fmt: skip
        if s > 1:
            shuffle = f"{name}.shuffle"
            nodes.append(
                helper.make_node(
                    "DepthToSpace", [f"{end}_phases"], [wide], shuffle, blocksize=s, mode=mode
                )
            )
        if cut:
            bounds = {
                f"{end}_starts": np.array([top, left]),
                f"{end}_ends": np.array([-bottom or _LAST, -right or _LAST]),
                f"{end}_axes": np.array([2, 3]),
            }
            nodes.append(helper.make_node("Slice", [wide, *bounds], [end], f"{name}.crop"))
            weights |= bounds
        return Made(nodes, weights)

    def convolutions(self, after: Sequence[onnx.NodeProto] = ()) -> Made | None:
        """Of each phase by itself, with its own padding, so that nothing is cut off.

        None if phases differ in size, or one would need less than no padding. after: as above.
        """
        name, kernel, s = self.node.name, self.node.input[1], self.stride
        source, (result,) = self.node.input[0], self.node.output
        grids = [axis.grids(s) for axis in self.axes]
        if any(sum(axis.cut) not in (0, s) for axis in self.axes) or any(
            min(grid) < 0 for grid in itertools.chain(*grids)
        ):
            return None
        kernels = self._phases()
        end = after[-1].output[0] if after else result
        nodes: list[onnx.NodeProto] = []
        weights: dict[str, NDArray[Any]] = {}
        for n, ((row, *vertical), (column, *horizontal)) in enumerate(itertools.product(*grids)):
            own = {f"{kernel}_phase_{n}": kernels[:, row * s + column]}
            if self.bias is not None:
                own[f"{kernel}_phase_{n}_bias"] = self.bias
            nodes += [
                helper.make_node(
                    "Conv", [source, *own], [f"{result}_phase_{n}"], f"{name}.{n}" if n else name,
                    kernel_shape=[axis.taps for axis in self.axes],
                    pads=[pads[end] for end in (0, 1) for pads in (vertical, horizontal)],
                    group=self.groups,
                ),
                *on_part(after, result, f"phase_{n}", f".{n}" if n else ""),
            ]  # fmt: skip
            weights |= own
        results, phases = [f"{end}_phase_{n}" for n in range(s * s)], f"{end}_phases"
        nodes += [
            helper.make_node("Concat", results, [phases], f"{name}.phases", axis=1),
            helper.make_node("DepthToSpace", [phases], [end], f"{name}.shuffle", blocksize=s),
        ]
        return Made(nodes, weights)

    @property
    def _biases(self) -> NDArray[np.float32]:
        return np.zeros(self.num_channels, np.float32) if self.bias is None else self.bias

    def _phases(self) -> NDArray[np.float32]:
        """The weight (C_out, s s, C_in / groups, m, m) of all phases."""
        s, (channels, of_group) = self.stride, self.weight.shape[:2]
        grouped = self.weight.reshape(self.groups, channels // self.groups, *self.weight.shape[1:])
        weight = grouped.swapaxes(1, 2).reshape(
            self.groups * of_group, channels // self.groups, *self.weight.shape[2:]
        )
        zeros = [
            (axis.before, axis.taps * s - size - axis.before)
            for axis, size in zip(self.axes, weight.shape[2:], strict=True)
        ]
        whole = np.pad(weight, [(0, 0), (0, 0), *zeros])
        rows, columns = (axis.taps for axis in self.axes)
        taps = whole.reshape(*weight.shape[:2], rows, s, columns, s)[:, :, ::-1, :, ::-1]
        return taps.transpose(0, 3, 5, 1, 2, 4).reshape(-1, s * s, weight.shape[1], rows, columns)


def on_part(
    nodes: Sequence[onnx.NodeProto], result: str, part: str, number: str = ""
) -> list[onnx.NodeProto]:
    """Copies of nodes that take a layer's result one after the other, for a part of it."""
    own = {name: f"{name}_{part}" for name in (result, *(node.output[0] for node in nodes))}
    copies = []
    for node in nodes:
        inputs = [own.get(name, name) for name in node.input]
        copy = helper.make_node(node.op_type, inputs, [own[node.output[0]]], node.name + number)
        copy.attribute.extend(node.attribute)
        copies.append(copy)
    return copies
