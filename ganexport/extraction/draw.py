"""The draw as nodes of a graph: seeds, classes and truncations become what a generator takes.

It is `ganinfer.drawing`'s, to the bit, in operators that runtimes have had for long: a product of
32-bit words is an int64 Mul, whose low 64 bits are right; all else of Philox is uint64.

N images, Z latent, K classes; B blocks of four words.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ganexport.extraction.mass import mass
from ganexport.extraction.nodes import Nodes, Operand
from ganexport.extraction.normal import quantile
from ganinfer.drawing.latents import (
    LABEL_STREAM,
    LATENT_STREAM,
    TRUNCATION_MODES,
    draw_labels,
    draw_latents,
)
from ganinfer.drawing.model import Model
from ganinfer.drawing.normal import WHOLE, central_mass
from ganinfer.drawing.philox import MULTIPLIERS, ROUNDS, WEYL
from ganinfer.errors import ExportError

# A row that every run draws besides, and whose latent is known: a seed with both halves beyond 31
# bits, in a truncation that leaves room for tails.
CANARY_SEED = 0x9E3779B97F4A7C15
CANARY_TRUNCATION = 2.5

_MASK = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)  # bits


@dataclass(frozen=True)
class Draw:
    """Nodes that draw.

    Attributes:
        at: the nodes and their constants.
        inputs: seed int64 (N,), and y and truncation as far as the model has them.
        drawn: what a generator's inputs get: names of z float32 (N, Z), y, truncation.
        sound: name of a bool, () or (N,): this runtime draws rightly, and the generator was
            exported for that truncation.
    """

    at: Nodes
    inputs: list[onnx.ValueInfoProto]
    drawn: dict[str, str]
    sound: str


def draw_of(model: Model, mode: str | None) -> Draw:
    """The draw that a bundle's model has.

    Args:
        model: what the bundle says of it.
        mode: of its truncation, see `truncation_mode`.
    """
    at, num_classes = Nodes("draw."), len(model.classes)
    inputs = [helper.make_tensor_value_info("seed", TensorProto.INT64, ["batch"])]
    canary = np.array([CANARY_SEED], np.uint64).view(np.int64)
    words = _words(at, at("Concat", "seed", canary, axis=0), model)
    z = _latents(at, at.columns(words, 0, model.z_dim), model, mode)
    drawn = {"z": at.rows(z, 0, -1)}
    checks = [at("Equal", at.rows(z, -1), _known_latent(model, mode))]
    if num_classes:
        own = _labels(at, words, num_classes)
        known = draw_labels([CANARY_SEED], num_classes)[:, None]
        checks.append(at("Equal", at.rows(own, -1), known))
        drawn["y"], y = _classes(at, at.rows(own, 0, -1), model)
        inputs.append(y)
    if mode is not None:
        inputs.append(helper.make_tensor_value_info("truncation", TensorProto.DOUBLE, ["batch"]))
    right = at.cast(at("Concat", *checks, axis=1), np.int64)
    sound = at.cast(at("ReduceMin", right, keepdims=0), np.bool_)
    if model.truncation_input is not None:  # which no model has without a mode
        drawn["truncation"], fits = _psi(at, model)
        sound = at("And", sound, fits)
    return Draw(at, inputs, drawn, sound)


def truncation_mode(model: Model, mode: str | None) -> str | None:
    """The mode that is asked for, or the model's first; None if it has no truncation.

    Raises:
        ExportError: the model does not have it.
    """
    if mode is not None and mode not in model.truncation_modes:
        known = ", ".join(model.truncation_modes) or "none"
        raise ExportError(f"truncation mode {mode!r}: this model has {known}")
    return mode or next(iter(model.truncation_modes), None)


def _words(at: Nodes, seeds: str, model: Model) -> str:
    """Philox's words as uint64 (N, 4 B): of latents and, in the last block, of the label."""
    blocks = [(n, LATENT_STREAM) for n in range(-(-model.z_dim // 4))]
    blocks += [(0, LABEL_STREAM)] * bool(model.classes)
    # Rows c0 and c2 are in `factors`, c1 and c3 in `others`: (2, N, B). The key is (2, N, 1).
    factors: str | NDArray[np.int64] = np.array(blocks, np.int64).T[:, None, :]
    others: str | np.uint64 = np.uint64(0)
    multipliers = np.array(MULTIPLIERS, np.int64)[:, None, None]
    bits = at.reshaped(at.cast(seeds, np.uint64), 1, -1, 1)
    halves = at("BitShift", bits, np.array([0, 32], np.uint64)[:, None, None], direction="RIGHT")
    key = at.cast(at("BitwiseAnd", halves, _MASK), np.int64)
    steps = np.arange(ROUNDS)[:, None] * np.array(WEYL, np.int64)
    sums = at.cast(at("Add", key, steps[:, :, None, None]), np.uint64)
    keys = at("BitwiseAnd", sums, _MASK)
    for n in range(ROUNDS):
        products = at.cast(at("Mul", factors, multipliers), np.uint64)
        swapped = at("Gather", products, np.array([1, 0], np.int64), axis=0)
        high = at("BitShift", swapped, _WORD, direction="RIGHT")
        mixed = at("BitwiseXor", high, others)
        mixed = at("BitwiseXor", mixed, at("Gather", keys, np.int64(n), axis=0))
        factors, others = at.cast(mixed, np.int64), at("BitwiseAnd", swapped, _MASK)
    pairs = [at("Unsqueeze", half, np.array([3], np.int64)) for half in (mixed, others)]
    words = at("Transpose", at("Concat", *pairs, axis=3), perm=[1, 2, 0, 3])
    return at.reshaped(words, -1, 4 * len(blocks))


def _latents(at: Nodes, words: str, model: Model, mode: str | None) -> str:
    """Latents float32 (N + 1, Z) of words uint64, the canary's last."""
    centred = at("Sub", at.cast(words, np.float64), np.float64(2.0**31 - 0.5))
    centred = at("Mul", centred, np.float64(2.0**-32))
    if model.z_distribution == "uniform":
        return at.cast(at("Mul", centred, np.float64(2)), np.float32)
    share, limit, factor = _truncation(at, model, mode)
    z = at.cast(quantile(at, at("Mul", centred, share)), np.float32)
    z = at("Max", at("Min", z, limit), at("Neg", limit))
    return at("Mul", z, factor)


def _truncation(at: Nodes, model: Model, mode: str | None) -> tuple[Operand, Operand, Operand]:
    """The mass drawn from, the largest latent, and what latents are multiplied by: (N + 1, 1)."""
    usual, whole = model.default_truncation or WHOLE, np.float64(WHOLE)
    if mode not in TRUNCATION_MODES:
        return np.float64(central_mass(usual)), np.float32(usual), np.float32(1)
    asked = at("Concat", "truncation", np.array([CANARY_TRUNCATION]), axis=0)
    positive = at("Greater", asked, np.float64(0))
    if mode == "resample":
        t = at("Min", at("Where", positive, asked, np.float64(usual)), whole)
        return at.column(mass(at, t)), at.column(at.cast(t, np.float32)), np.float32(1)
    share = at("Where", positive, np.float64(1), np.float64(central_mass(usual)))
    t = at("Where", positive, whole, np.float64(usual))
    factor = at("Where", positive, at.cast(asked, np.float32), np.float32(1))
    return at.column(share), at.column(at.cast(t, np.float32)), at.column(factor)


def _known_latent(model: Model, mode: str | None) -> NDArray[np.float32]:
    """The canary's, float32 (1, Z), as ganinfer draws it."""
    truncated = mode in TRUNCATION_MODES
    return draw_latents(
        [CANARY_SEED],
        model.z_dim,
        distribution=model.z_distribution,
        truncation=CANARY_TRUNCATION if truncated else model.default_truncation,
        truncation_mode=mode if truncated and mode is not None else "resample",
    )


def _labels(at: Nodes, words: str, num_classes: int) -> str:
    """The classes int64 (N + 1, 1) that seeds draw: the high word of the last block's first."""
    word = at.cast(at.columns(words, -4, -3), np.int64)
    product = at.cast(at("Mul", word, np.int64(num_classes)), np.uint64)
    return at.cast(at("BitShift", product, _WORD, direction="RIGHT"), np.int64)


def _classes(at: Nodes, own: str, model: Model) -> tuple[str, onnx.ValueInfoProto]:
    """What a generator's y gets, of own classes int64 (N, 1), and the input that may replace it."""
    count = len(model.classes)
    if model.class_input == "weights":
        one_hot = at.cast(at("Equal", own, np.arange(count, dtype=np.int64)), np.float32)
        largest = at("ReduceMax", "y", np.array([1], np.int64), keepdims=1)
        y = at("Where", at("Greater", largest, np.float32(0)), "y", one_hot)
        return y, helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", count])
    flat = at.reshaped(own, -1)
    y = at("Where", at("Less", "y", np.int64(0)), flat, "y")
    return y, helper.make_tensor_value_info("y", TensorProto.INT64, ["batch"])


def _psi(at: Nodes, model: Model) -> tuple[str, str]:
    """What a generator's truncation gets, float32 (N,); whether it was exported for that."""
    taken = model.truncation_input
    assert taken is not None
    usual = np.float64(taken.untruncated)
    psi = at("Where", at("Greater", "truncation", np.float64(0)), "truncation", usual)
    fits = at(
        "And",
        at("GreaterOrEqual", psi, np.float64(taken.least)),
        at("LessOrEqual", psi, np.float64(taken.largest)),
    )
    return at.cast(psi, np.float32), fits
