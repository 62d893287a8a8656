"""StyleGAN2 generators of rosinality's stylegan2-pytorch, from `checkpoint["g_ema"]`.

The network of `stylegan2` under other names: its weights are renamed, and that module computes. Two
conventions differ. The convolutions' weights are multiplied by 1 / sqrt(fan in) before they are
demodulated, which decides where the 1e-8 counts; and its filters carry the upsampling's gain of 4.
Noise is that of the file, as with `randomize_noise=False`; no layer is clamped.
"""

import math
import re

import torch
from torch import Tensor, nn

from ganexport.importers import stylegan2
from ganexport.importers._stylegan2 import Generator
from ganexport.subjects.spec import Spec
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ExportError

NUM_AVERAGED = 4096  # latents for the mean of w, as many as its generate.py draws


def read(
    state: dict[str, Tensor],
    *,
    truncation_psi: float | None = None,
    truncation_cutoff: int | None = None,
) -> tuple[nn.Module, Spec]:
    """Rebuild a generator from `checkpoint["g_ema"]` of rosinality's stylegan2-pytorch.

    Args:
        state: name -> tensor. "latent_avg", which converted checkpoints hold beside "g_ema", may be
            put in; without it the mean of w is that of the latents of the seeds 0 to 4095.
        truncation_psi, truncation_cutoff: of w, see `stylegan2`; its own code draws all styles to
            the mean.

    Returns:
        The generator and what the bundle says of it, as `stylegan2.read` does.

    Raises:
        ExportError: these are no such names or shapes.
    """
    renamed = rename(state)
    if truncation_psi != 1 and "latent_avg" not in state:
        renamed["mapping.w_avg"] = _mean_w(renamed)
    return stylegan2.read(
        renamed,
        truncation_psi=truncation_psi,
        truncation_cutoff=truncation_cutoff,
        conv_clamp=None,
    )


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names, in the shapes and on the scales of `stylegan2`.

    Raises:
        ExportError: names are missing or unknown.
    """
    num_layers = sum(re.fullmatch(r"style\.\d+\.weight", n) is not None for n in state)
    num_blocks = sum(re.fullmatch(r"to_rgbs\.\d+\.bias", n) is not None for n in state)
    names = _names(num_layers, num_blocks)
    own, theirs = set(names.values()), set(state) - {"latent_avg"}
    missing, unknown = sorted(own - theirs), sorted(theirs - own)
    if missing or unknown:
        raise ExportError(
            f"stylegan2_rosinality: {len(missing)} missing {missing[:3]}, {len(unknown)} unknown"
            f" {unknown[:3]}; expected g_ema of a checkpoint of rosinality's stylegan2-pytorch;"
            " for NVIDIA's mapping.fc0.weight, ... use stylegan2"
        )
    renamed = {name: _converted(name, state[old]) for name, old in names.items()}
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for size in (4 << n for n in range(num_blocks + 1)):  # there, but nothing is filtered by them
        renamed.setdefault(f"synthesis.b{size}.resample_filter", tap.outer(tap))
        renamed[f"synthesis.b{size}.conv1.resample_filter"] = tap.outer(tap)
    w_dim = len(renamed[f"mapping.fc{num_layers - 1}.bias"])
    renamed["mapping.w_avg"] = state.get("latent_avg", torch.zeros(w_dim)).reshape(-1)
    return renamed


def _names(num_layers: int, num_blocks: int) -> dict[str, str]:
    """NVIDIA's name -> rosinality's."""
    names = {"synthesis.b4.const": "input.input"}
    for n in range(max(num_layers, 1)):
        for part in ("weight", "bias"):
            names[f"mapping.fc{n}.{part}"] = f"style.{n + 1}.{part}"
    convs = [("b4.conv1", "conv1")]
    images = [("b4", "to_rgb1")]
    for n in range(num_blocks):
        block = f"b{8 << n}"
        convs += [(f"{block}.conv0", f"convs.{2 * n}"), (f"{block}.conv1", f"convs.{2 * n + 1}")]
        images.append((block, f"to_rgbs.{n}"))
        names[f"synthesis.{block}.conv0.resample_filter"] = f"convs.{2 * n}.conv.blur.kernel"
        names[f"synthesis.{block}.resample_filter"] = f"to_rgbs.{n}.upsample.kernel"
    for n, (new, old) in enumerate(convs):
        names[f"synthesis.{new}.weight"] = f"{old}.conv.weight"
        names[f"synthesis.{new}.bias"] = f"{old}.activate.bias"
        names[f"synthesis.{new}.noise_strength"] = f"{old}.noise.weight"
        names[f"synthesis.{new}.noise_const"] = f"noises.noise_{n}"
        for part in ("weight", "bias"):
            names[f"synthesis.{new}.affine.{part}"] = f"{old}.conv.modulation.{part}"
    for new, old in images:
        names[f"synthesis.{new}.torgb.weight"] = f"{old}.conv.weight"
        names[f"synthesis.{new}.torgb.bias"] = f"{old}.bias"
        for part in ("weight", "bias"):
            names[f"synthesis.{new}.torgb.affine.{part}"] = f"{old}.conv.modulation.{part}"
    return names


def _converted(name: str, value: Tensor) -> Tensor:
    """Without the axes of length 1 that stand for the batch; on NVIDIA's scale."""
    value = value.detach().float()
    if name.endswith("resample_filter"):
        return value / 4
    if name.endswith((".const", "torgb.weight")):
        return value.squeeze(0)
    if name.endswith((".conv0.weight", ".conv1.weight")):
        value = value.squeeze(0)
        return value / math.sqrt(math.prod(value.shape[1:]))
    if name.endswith("noise_const"):
        return value.squeeze(0).squeeze(0)
    if name.endswith("noise_strength"):
        return value.squeeze(0)
    return value.flatten() if name.endswith("torgb.bias") else value


@torch.no_grad()
def _mean_w(renamed: dict[str, Tensor]) -> Tensor:
    generator, spec = stylegan2.read(renamed, conv_clamp=None)
    assert isinstance(generator, Generator)
    z = torch.from_numpy(draw_latents(range(NUM_AVERAGED), spec.z_dim))
    mean: Tensor = generator.mapping(z).mean(dim=0)
    return mean
