"""StyleGAN3 generators, T and R, from the `.pkl` of NVIDIA's stylegan3.

The `.pkl` is needed: how a layer pads, and how its factors and rates are, stands in the attributes
of its modules and in no state dict. psi, which draws w towards the mean of what the mapping network
gave in training, is an input of the graph: `sample(truncation=0.7)`; `truncation_cutoff` says for
how many styles. The graph also takes styles w (N, L, D) in the place of z. All is float32, as in
the original with `force_fp32=True`. The network's own `transform`, a rotation and a translation of
all images, is that of the file.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganexport.importers import stylegan2
from ganexport.importers._stylegan3 import Generator, LayerPlan, Plan
from ganexport.subjects.spec import Spec
from ganexport.subjects.styled import psi_input
from ganinfer.drawing.model import StyleInput
from ganinfer.errors import ExportError
from gantrain.pickle_networks import Published
from gantrain.pickle_values import Array, Instance

LAYER_NAME = re.compile(r"L\d+_\d+_\d+", re.ASCII)
LARGEST_SIZE = 8192  # pixels of the maps' side
NUM_TAPS = 2**26  # of all channels' filters; a published R has 2 million
LARGEST_FACTOR = 16  # of a filter; 4 is the largest that is published


def read(
    state: dict[str, Tensor],
    *,
    truncation_psi: float | None = None,
    truncation_cutoff: int | None = None,
    classes: Sequence[str] = (),
) -> tuple[nn.Module, Spec]:
    """Rebuild a generator from the `.pkl` of stylegan3.

    Args:
        state: name -> tensor, and the attributes of the modules.
        truncation_psi: of w, fixed: 1 for none, 0 for the mean image. None makes it an input of
            the graph, 1 for those who ask for none.
        truncation_cutoff: how many styles are drawn to the mean: the input's, then the layers' from
            the first on; None for all.
        classes: names of the K classes; by default "0", "1", ...

    Returns:
        The generator, z float32 (N, Z), with classes y int64 (N,), psi float32 (N,) unless it is
        fixed, and styles w float32 (N, L, D) with takes_w float32 (N,), see `Styled` -> float32
        (N, C, H, W), nominally on [-1, 1]; and what the bundle says of it.

    Raises:
        ExportError: these are no such names, shapes or attributes; the options do not fit.
    """
    if not isinstance(state, Published):
        raise ExportError(
            "stylegan3: a state dict does not say how its layers filter; give NVIDIA's .pkl as it"
            " is published, of which nothing is run"
        )
    stylegan2.check_attributes(state, importer="stylegan3")
    plan = infer(state)
    num_classes = plan.mapping.num_classes
    stylegan2.check_classes(classes, num_classes)
    stylegan2.check_cutoff(truncation_cutoff, plan.num_styles)
    with torch.device("meta"):
        generator = Generator(plan, psi=truncation_psi, cutoff=truncation_cutoff)
    stylegan2.load(generator, state, expected="G_ema of NVIDIA's stylegan3")
    names = list(classes) or [str(k) for k in range(num_classes)]
    spec = Spec(
        plan.mapping.z_dim,
        names,
        truncation_input=psi_input(truncation_psi, truncation_cutoff),
        style_input=StyleInput(num_styles=plan.num_styles, w_dim=plan.mapping.widths[-1]),
        family="stylegan3",
        output_range="-1:1",
    )
    return generator.eval(), spec


def infer(state: Published) -> Plan:
    """The plan that shapes and attributes give; names beyond it are left to `load`.

    Raises:
        ExportError: one that it must be read off is missing, or is nothing that it can be.
    """
    if "synthesis.input.freqs" not in state:
        raise ExportError(
            f"stylegan3: found {sorted(state)[:3]} among {len(state)} names; expected those of"
            " G_ema of NVIDIA's stylegan3, synthesis.input.freqs, ...; for synthesis.b4.const, ..."
            " use stylegan2"
        )
    names = _attribute(state, "synthesis", "layer_names")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ExportError("stylegan3: synthesis has no layer_names; expected a list of names")
    if not names or len(set(names)) < len(names) or not all(map(LAYER_NAME.fullmatch, names)):
        raise ExportError(f"stylegan3: layers {str(names[:3])[:80]}; expected L0_36_512, ...")
    layers = [_layer(state, name) for name in names]
    if sum(x.num_out * (math.prod(x.up_taps) + math.prod(x.down_taps)) for x in layers) > NUM_TAPS:
        raise ExportError(
            "stylegan3: its filters are too large; those published have 12 to 48 taps"
        )
    size = _size(state, "synthesis.input", "size")
    plan = Plan(
        mapping=stylegan2.infer_mapping(state, channels=[], image_channels=layers[-1].num_out),
        size=size,
        rate=_number(state, "synthesis.input", "sampling_rate"),
        bandwidth=_number(state, "synthesis.input", "bandwidth"),
        layers=layers,
        scale=_number(state, "synthesis", "output_scale", default=1.0),
    )
    for layer in layers:
        where = f"synthesis.{layer.name}"
        size, stated = layer.size(size), _size(state, where, "out_size")
        if size != stated:
            raise ExportError(f"stylegan3: {where} gives {size} pixels; its out_size is {stated}")
    return plan


def _layer(state: Published, name: str) -> LayerPlan:
    where = f"synthesis.{name}"
    num_out, num_in, kernel, _ = stylegan2.shape_of(state, f"{where}.weight", 4)
    padding = _attribute(state, where, "padding")
    if not isinstance(padding, list) or len(padding) != 4 or padding[:2] != padding[2:]:
        raise ExportError(f"stylegan3: {where} has no padding of the same two numbers, twice")
    before, after = (
        _whole(value, f"{where}.padding", least=-LARGEST_SIZE) for value in padding[:2]
    )
    to_image = _attribute(state, where, "is_torgb")
    clamp = _attribute(state, where, "conv_clamp")
    taps = {}
    for part in ("up_filter", "down_filter"):
        taps[part] = tuple(state[f"{where}.{part}"].shape) if f"{where}.{part}" in state else ()
        if taps[part] and (len(taps[part]) > 2 or len(set(taps[part])) > 1):
            raise ExportError(f"stylegan3: {where}.{part} {taps[part]}; expected (T,) or (T, T)")
    return LayerPlan(
        name=name,
        num_in=num_in,
        num_out=num_out,
        kernel=kernel,
        up=_whole(_attribute(state, where, "up_factor"), f"{where}.up_factor", most=LARGEST_FACTOR),
        down=_whole(
            _attribute(state, where, "down_factor"), f"{where}.down_factor", most=LARGEST_FACTOR
        ),
        up_taps=taps["up_filter"],
        down_taps=taps["down_filter"],
        before=before,
        after=after,
        to_image=to_image is True,
        clamp=math.inf if clamp is None else _number(state, where, "conv_clamp"),
    )


def _attribute(state: Published, module: str, key: str) -> Any:
    found = state.modules.get(module, Instance("", {})).state
    if key not in found:
        raise ExportError(f"stylegan3: {module} has no {key}; expected NVIDIA's stylegan3")
    return found[key]


def _number(state: Published, module: str, key: str, default: float | None = None) -> float:
    found = default
    if default is None or key in state.modules[module].state:
        found = _attribute(state, module, key)
    if not isinstance(found, int | float) or not 0 < found < 2**31:
        raise ExportError(f"stylegan3: {module}.{key} is no positive number")
    return float(found)


def _whole(value: object, where: str, *, least: int = 1, most: int = LARGEST_SIZE) -> int:
    if not isinstance(value, int) or not least <= value <= most:
        raise ExportError(f"stylegan3: {where} is no number from {least} to {most}")
    return int(value)


def _size(state: Published, module: str, key: str) -> int:
    """H of square maps, which numpy holds twice."""
    found = _attribute(state, module, key)
    if not isinstance(found, Array) or len(found.values) != 2 or len(set(found.values)) != 1:
        raise ExportError(f"stylegan3: {module}.{key} is no size of square maps")
    return _whole(found.values[0], f"{module}.{key}")
