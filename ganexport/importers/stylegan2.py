"""StyleGAN2 generators of NVIDIA's stylegan2-ada-pytorch, from `G_ema.state_dict()`.

psi, which draws w towards the mean of what the mapping network gave in training, is an input of the
graph: `sample(truncation=0.7)`; `truncation_cutoff` says for how many styles. z is never truncated;
the mapping network normalises it. The graph also takes styles w (N, L, D) in the place of z.

All is float32, as in the original with `force_fp32=True` and `noise_mode="const"`. By default the
original runs its four highest resolutions, none below 8x8, in float16 on GPUs, and its images
differ from these by that rounding. What lets it do so, a clamp of every layer to +-256, is there in
float32 too. NVIDIA's stylegan3 has this network under the same names.

The `.pkl` that both publish says of each layer how it is clamped and activated: what this network
does not compute is refused. A state dict says neither; it is taken for what training makes.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ganexport.importers._stylegan2 import Generator, Plan
from ganexport.subjects.spec import Spec
from ganexport.subjects.styled import psi_input
from ganinfer.drawing.model import StyleInput
from ganinfer.errors import ExportError
from gantrain.models._derived import settle
from gantrain.models._mapping import MAPPING_RATE
from gantrain.pickle_networks import Published

EXPECTED = "G_ema.state_dict() of stylegan2-ada-pytorch, the skip architecture with noise"


def read(
    state: dict[str, Tensor],
    *,
    truncation_psi: float | None = None,
    truncation_cutoff: int | None = None,
    conv_clamp: float | Literal["published", "none"] | None = "published",
    classes: Sequence[str] = (),
) -> tuple[nn.Module, Spec]:
    """Rebuild a generator from `G_ema.state_dict()` of stylegan2-ada-pytorch.

    Args:
        state: name -> tensor. Resolution, widths, depth of the mapping network and number of
            classes are read off the shapes.
        truncation_psi: of w, fixed: 1 for none, 0 for the mean image. None makes it an input of
            the graph, 1 for those who ask for none.
        truncation_cutoff: how many styles are drawn to the mean, from the first on; None for all.
        conv_clamp: of every layer. "published" is what a `.pkl` says, and 256 of a state dict, what
            training takes by default; None, "none" or inf where it has none, as after `--fp32=1`.
        classes: names of the K classes; by default "0", "1", ...

    Returns:
        The generator, z float32 (N, Z), with classes y int64 (N,), psi float32 (N,) unless it is
        fixed, and styles w float32 (N, L, D) with takes_w float32 (N,), see `Styled` -> float32
        (N, C, H, W), nominally on [-1, 1]; and what the bundle says of it.

    Raises:
        ExportError: these are no such names or shapes; the options do not fit.
    """
    plan = infer(state)
    if isinstance(state, Published):
        check_attributes(state)
    clamp = _clamp(state, conv_clamp)
    check_classes(classes, plan.num_classes)
    check_cutoff(truncation_cutoff, plan.num_styles)
    with torch.device("meta"):
        generator = Generator(plan, psi=truncation_psi, clamp=clamp, cutoff=truncation_cutoff)
    load(generator, state, expected=EXPECTED)
    names = list(classes) or [str(k) for k in range(plan.num_classes)]
    return generator.eval(), Spec(
        plan.z_dim,
        names,
        truncation_input=psi_input(truncation_psi, truncation_cutoff),
        style_input=StyleInput(num_styles=plan.num_styles, w_dim=plan.widths[-1]),
        family="stylegan2",
        output_range="-1:1",
    )


def check_cutoff(cutoff: int | None, num_styles: int) -> None:
    """Refuse to draw more styles to the mean than there are.

    Raises:
        ExportError: it is more, or below 0.
    """
    if cutoff is not None and not 0 <= cutoff <= num_styles:
        raise ExportError(
            f"truncation_cutoff {cutoff}: expected 0 to {num_styles}, the styles that are drawn to"
            " the mean"
        )


def check_classes(names: Sequence[str], num_classes: int) -> None:
    """Refuse names that are not one for each class.

    Raises:
        ExportError: they are not.
    """
    if names and len(names) != num_classes:
        raise ExportError(
            f"classes: {len(names)} names, and mapping.embed.weight has {num_classes}"
            " classes; give one name for each"
        )


def check_attributes(state: Published, *, importer: str = "stylegan2") -> None:
    """Refuse a network whose modules say that they compute something else.

    Args:
        state: with its modules, also of StyleGAN3, which has the same mapping network.
        importer: its name in messages.

    Raises:
        ExportError: one does.
    """
    for name, module in state.modules.items():
        expected: dict[str, object] = {"architecture": "skip", "use_noise": True}
        if re.fullmatch(r"mapping\.fc\d+", name):
            expected |= {"activation": "lrelu", "bias_gain": MAPPING_RATE}
        elif name == "mapping.embed" or name.endswith(".affine"):
            expected |= {"activation": "linear", "bias_gain": 1}
        elif name.endswith((".conv0", ".conv1")):
            expected |= {"activation": "lrelu", "up": 2 if name.endswith(".conv0") else 1}
        for key, value in expected.items():
            found = module.state.get(key, value)
            if not isinstance(found, str | float | int) or found != value:
                raise ExportError(
                    f"{importer}: {name} has {key} {str(found)[:40]!a}; expected {value!r}: another"
                    " network, which no importer rebuilds; export it with --module"
                )


def _clamp(state: dict[str, Tensor], given: float | str | None) -> float:
    """Of all layers, inf for none."""
    if given == "published":
        given = _published_clamp(state) if isinstance(state, Published) else 256.0
    if given is None or given == "none":
        return math.inf
    if not isinstance(given, int | float) or not given > 0:
        raise ExportError(f"conv_clamp {given}: expected a positive number, 256 or inf")
    return given


def _published_clamp(state: Published) -> Any:
    clamps = state.every("conv_clamp")
    if any(type(clamp) not in (int, float, type(None)) or clamp != clamps[0] for clamp in clamps):
        raise ExportError("stylegan2: its layers have several conv_clamp; expected one number")
    return clamps[0] if clamps else None


def infer(state: dict[str, Tensor]) -> Plan:
    """The plan that the shapes give; names that do not belong to it are left to `load`.

    Raises:
        ExportError: a name that it must be read off is missing or has another number of axes.
    """
    sizes = {int(m[1]) for n in state if (m := re.match(r"synthesis\.b(\d+)\.", n))}
    if not sizes:
        raise ExportError(
            f"stylegan2: found {sorted(state)[:3]} among {len(state)} names; expected those of"
            " G_ema of stylegan2-ada-pytorch, mapping.fc0.weight, synthesis.b4.const, ...;"
            " for rosinality's style.1.weight, ... use stylegan2_rosinality, for"
            " synthesis.input.freqs, ... stylegan3"
        )
    doublings = range(max(sizes).bit_length() - 2)
    return infer_mapping(
        state,
        channels=[shape_of(state, f"synthesis.b{4 << n}.conv1.weight", 4)[0] for n in doublings],
        image_channels=shape_of(state, "synthesis.b4.torgb.weight", 4)[0],
    )


def infer_mapping(state: dict[str, Tensor], *, channels: list[int], image_channels: int) -> Plan:
    """A plan with what the shapes of the mapping network give; see `infer`."""
    num_layers = sum(re.fullmatch(r"mapping\.fc\d+\.weight", n) is not None for n in state)
    layers = range(max(num_layers, 1))
    widths = [shape_of(state, f"mapping.fc{n}.weight", 2)[0] for n in layers]
    embedding_dim, num_classes = 0, 0
    if "mapping.embed.weight" in state:
        embedding_dim, num_classes = shape_of(state, "mapping.embed.weight", 2)
    z_dim = shape_of(state, "mapping.fc0.weight", 2)[1] - embedding_dim
    if z_dim < 1:
        raise ExportError(
            f"mapping.fc0.weight: takes {z_dim + embedding_dim} numbers, of which"
            f" mapping.embed.weight gives {embedding_dim}; expected more, those of z"
        )
    return Plan(z_dim, num_classes, embedding_dim, widths, channels, image_channels)


def shape_of(state: dict[str, Tensor], name: str, num_axes: int) -> tuple[int, ...]:
    """Of a tensor that must be there.

    Raises:
        ExportError: it is not, or has another number of axes.
    """
    if name not in state:
        raise ExportError(
            f"1 missing ['{name}'] among {len(state)} names; expected all of G_ema.state_dict() of"
            " stylegan2-ada-pytorch or stylegan3"
        )
    shape = tuple(state[name].shape)
    if len(shape) != num_axes:
        raise ExportError(f"{name} {shape}; expected {num_axes} axes")
    return shape


def load(generator: nn.Module, state: dict[str, Tensor], *, expected: str) -> None:
    """Load copies of the weights, strictly, as float32, and settle the layers.

    Args:
        generator: on any device.
        state: name -> tensor.
        expected: in words.

    Raises:
        ExportError: names or shapes are not the generator's.
    """
    own = {name: tuple(value.shape) for name, value in generator.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    missing, unknown = sorted(own.keys() - theirs.keys()), sorted(theirs.keys() - own.keys())
    other = [
        f"{n} {theirs[n]}, expected {own[n]}"
        for n in sorted(own.keys() & theirs.keys())
        if own[n] != theirs[n]
    ]
    if missing or unknown or other:
        raise ExportError(
            f"{len(missing)} missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]},"
            f" {len(other)} of other shapes {other[:3]}; expected {expected}"
        )
    copies = {n: v.detach().to("cpu", torch.float32, copy=True) for n, v in state.items()}
    generator.load_state_dict(copies, assign=True)
    generator.requires_grad_(False)
    settle(generator)
