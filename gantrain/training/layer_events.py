"""Which layer an operation of a training step belongs to, by what torch's profiler noted.

A forward is known by the range around its layer. An operation of a backward belongs to the layer
whose forward made its node: torch gives both the same number.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import record_function

from gantrain.game.parts import Game

WEIGHT = ".parametrizations."  # in a name: what makes a layer's weight, such as spectral norm
_RANGE = "layer "
_BACKWARD = "autograd::engine::evaluate_function: "
_PRODUCTS = {"aten::convolution", "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
# What is no layer, by the beginning of the range's name.
_PARTS = {
    "data": "data",
    "Optimizer.": "optimizers",
    "average": "averaged generator",
    "figures": "figures of the record",
}
OTHER = "latents, losses, regularizers"


@dataclass
class Spent:
    """Of one layer: microseconds, calls, and products of matrices in either direction."""

    forward_us: float = 0.0
    backward_us: float = 0.0
    weight_us: float = 0.0
    calls: int = 0
    forward_products: int = 0
    backward_products: int = 0


def mark_layers(game: Game) -> list[str]:
    """Put a range around every layer of both networks that holds parameters; returns their names.

    A layer is named as in "discriminator.downs.0", and by that what is found of it.
    """
    marked = []
    for name, network in (("generator", game.generator), ("discriminator", game.discriminator)):
        for path, layer in network.named_modules(prefix=name):
            if any(True for _ in layer.parameters()):
                _mark(path, layer)
                marked.append(path)
    # The game calls D's features and its head, never D itself.
    discriminator: Any = game.discriminator
    whole = record_function(f"{_RANGE}discriminator")
    discriminator.features = whole(discriminator.features)
    return marked


def _mark(name: str, layer: nn.Module) -> None:
    open_ranges: list[record_function] = []

    def enter(_layer: nn.Module, _inputs: object) -> None:
        open_ranges.append(record_function(_RANGE + name))
        open_ranges[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(_layer: nn.Module, _inputs: object, _output: object) -> None:
        open_ranges.pop().__exit__(None, None, None)

    layer.register_forward_pre_hook(enter)
    layer.register_forward_hook(leave)


def spent_by(
    events: Iterable[FunctionEvent], *, on_gpu: bool
) -> tuple[dict[str, Spent], dict[str, float]]:
    """The layers' shares, by name, and the microseconds of what is no layer, by name.

    on_gpu: count the GPU's time, not the CPU's.
    """
    in_order = sorted(events, key=lambda event: event.time_range.start)
    # The last operation with a node's number made the node; the others came before it.
    made = {
        event.sequence_nr: event
        for event in in_order
        if event.sequence_nr >= 0 and "Backward" not in event.name
    }
    layers: dict[str, Spent] = defaultdict(Spent)
    parts: dict[str, float] = defaultdict(float)
    for event in in_order:
        name, backward = _owner(event, made)
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if not name.startswith(_RANGE):
            parts[name] += spent
            continue
        layer = layers[name.removeprefix(_RANGE).partition(WEIGHT)[0]]
        layer.calls += event.name == name and WEIGHT not in name
        if backward:
            layer.backward_us += spent
            layer.backward_products += _num_products(event)
        else:
            layer.forward_us += spent
            layer.forward_products += _num_products(event)
        if WEIGHT in name:
            layer.weight_us += spent
    return layers, parts


def _owner(event: FunctionEvent, made: dict[int, FunctionEvent]) -> tuple[str, bool]:
    """The nearest range around an event, or around what made its node; and was there a node?"""
    at: FunctionEvent | None = event
    backward = False
    while at is not None:
        if at.name.startswith(_RANGE):
            return at.name, backward
        if part := next((part for begin, part in _PARTS.items() if at.name.startswith(begin)), ""):
            return part, backward
        if at.name.startswith(_BACKWARD):
            maker = made.get(at.sequence_nr)
            # A node of a backward, of a penalty that differentiates twice, was made earlier too.
            if maker is None or maker.time_range.start >= at.time_range.start:
                return OTHER, True
            at, backward = maker, True
            continue
        at = at.cpu_parent
    return OTHER, backward


def _num_products(event: FunctionEvent) -> int:
    """Products of the size of the layer's own, in an operation that is not within another."""
    if event.name == "aten::convolution_backward":
        wants_input, wants_weight, _ = event.concrete_inputs[-1]
        return int(wants_input) + int(wants_weight)
    within = event.cpu_parent
    nested = within is not None and within.name in {*_PRODUCTS, "aten::_convolution"}
    return int(event.name in _PRODUCTS and not nested)
