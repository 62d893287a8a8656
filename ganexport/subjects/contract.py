"""What the gates take for granted of a network, looked at before anything is exported.

An image depends on its own z and y alone; the same input gives the same image; and calling the
network changes nothing in it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganexport.subjects.forms import more_arguments
from ganexport.subjects.spec import Spec
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ExportError

NUM_IMAGES, FEW_IMAGES = 16, 6  # at once; few of more than half a megapixel each
LARGE = 1 << 19
# Of values on [-1, 1]: a quarter of a uint8 step. More than rounding, less than can be seen.
TOLERANCE = 2e-3
# Ends of the names of what a batch norm counts in training.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Arguments = tuple[Tensor, ...]


@torch.no_grad()
def check_contract(network: nn.Module, spec: Spec, name: str, *, pixels: int = 0) -> Tensor:
    """Refuse a network of which the proof would not hold.

    Args:
        network: z float32 (N, Z), with classes y int64 (N,), perhaps a truncation float32 (N,) ->
            images float32 (N, C, H, W).
        spec: what it does not say of itself.
        name: of the network, for messages.
        pixels: of an image.

    Returns:
        Its images of some seeds, each class in turn.

    Raises:
        ExportError: it is otherwise; the message names layers or values, and what helps.
    """
    arguments = _arguments(spec, FEW_IMAGES if pixels > LARGE else NUM_IMAGES)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = _call(network, arguments, name)
    changed = [k for k, v in network.state_dict().items() if not _equal(v, before[k])]
    if changed:
        if statistics := [key for key in changed if key.endswith(_STATISTICS)]:
            layer = statistics[0].removeprefix("network.").rpartition(".")[0]
            raise ExportError(
                f"{name}: layer {layer} normalises by the batch at hand, and counts it, although"
                " the network is in eval mode: its forward, or a train() of its own, keeps training"
                " on. Take that out, so that it uses its running statistics"
            )
        raise ExportError(
            f"{name}: calling it in eval mode changes {', '.join(changed[:3])}; a bundle's network"
            " stays as it is: forward must not write to weights or buffers"
        )
    if not torch.isfinite(images).all():
        raise ExportError(
            f"{name}: gives NaN or infinite values for latents drawn as {spec.z_distribution};"
            " look at its weights, and whether it has any"
        )
    _check_repeatable(network, arguments, images, name)
    _check_alone(network, arguments, images, name)
    return images


def _arguments(spec: Spec, count: int) -> Arguments:
    """Latents of some seeds, each class in turn, the last class first; no truncation, no styles."""
    uniform = spec.z_distribution == "uniform"
    z = draw_latents(
        range(count),
        spec.z_dim,
        distribution="uniform" if uniform else "normal",
        truncation=spec.truncation,
    )
    arguments = [torch.from_numpy(z)]
    if num_classes := len(spec.class_names):
        arguments.append((num_classes - 1 - torch.arange(count)) % num_classes)
    return (*arguments, *more_arguments(spec, count))


def _call(network: nn.Module, arguments: Arguments, name: str) -> Tensor:
    """Images, or what stands against it in words."""
    rows = len(arguments[0])
    try:
        images: Tensor = network(*arguments)
    except Exception as error:
        text = str(error).strip().splitlines() or [""]
        raise ExportError(
            f"{name}: fails for {rows} images at once: {type(error).__name__}: {text[0][:200]};"
            " a bundle's network takes any number, from 1 on, and its batch norms have running"
            " statistics"
        ) from None
    if images.dim() != 4 or len(images) != rows:
        raise ExportError(
            f"{name}: gives {tuple(images.shape)} for {rows} latents; expected an image for each"
        )
    return images


def _check_repeatable(network: nn.Module, arguments: Arguments, images: Tensor, name: str) -> None:
    """The same input, the same image, whatever torch's generator is at."""
    state = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        again = network(*arguments)
    finally:
        torch.set_rng_state(state)
    if torch.equal(images, again):
        return
    layer = _first_difference(network, arguments, arguments, rows=None)
    raise ExportError(
        f"{name}: other images for the same z: something random is drawn inside{layer}, by other"
        " means than randn, rand, normal_, uniform_ and dropout, which would be kept; make it a"
        " buffer that stays, or take it out"
    )


def _check_alone(network: nn.Module, arguments: Arguments, images: Tensor, name: str) -> None:
    """An image alone, in twos, in threes and among others, at any place, is the same image."""
    count = len(images)
    for rows in (slice(count - 1, count), slice(1, 3), slice(2, 5)):
        part = tuple(argument[rows] for argument in arguments)
        found = _call(network, part, name)
        difference = float((found - images[rows]).abs().max())
        if difference > TOLERANCE:
            layer = _first_difference(network, arguments, part, rows=rows)
            raise ExportError(
                f"{name}: an image is another one in a batch of {count} than in one of"
                f" {len(found)}, by {difference:.3g} on [-1, 1]{layer}; nothing that looks at the"
                " whole batch can ship: give batch norm its running statistics"
                " (track_running_stats=True, eval mode), and take means over an image's own values"
            )


def _first_difference(
    network: nn.Module, one: Arguments, other: Arguments, *, rows: slice | None
) -> str:
    """In words the innermost layer that makes different values of equal ones, in two calls.

    Where forward itself does so between two layers, the one before.

    rows: which of the first call's rows the second has; None for all.
    """
    seen: list[dict[str, tuple[list[Tensor], list[Tensor]]]] = []
    for arguments in (one, other):
        found: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

        def note(
            layer: str, kept: dict[str, tuple[list[Tensor], list[Tensor]]] = found
        ) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_module: nn.Module, inputs: Any, output: Any) -> None:
                kept[layer] = (_copies(inputs), _copies(output))

            return hook

        handles = [m.register_forward_hook(note(n)) for n, m in network.named_modules() if n]
        try:
            network(*arguments)
        finally:
            for handle in handles:
                handle.remove()
        seen.append(found)
    first, second = seen
    before = ""
    for layer in first:  # inner layers are done before those that hold them
        if layer not in second:
            continue
        inputs = zip(first[layer][0], second[layer][0], strict=False)
        outputs = zip(first[layer][1], second[layer][1], strict=False)
        kind = type(network.get_submodule(layer)).__name__
        told = f"layer {layer.removeprefix('network.')} ({kind})"
        if not all(_alike(a, b, rows) for a, b in inputs):
            break
        if not all(_alike(a, b, rows) for a, b in outputs):
            return f", in {told}"
        before = told
    return f", in forward itself, after {before}" if before else ""


def _copies(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values.detach().clone()]
    if isinstance(values, list | tuple):
        return [tensor for value in values for tensor in _copies(value)]
    return []


def _alike(one: Tensor, other: Tensor, rows: slice | None) -> bool:
    """Are they the same but for rounding, where both have rows?"""
    if rows is not None and one.dim() and other.dim() and len(one) > len(other):
        one = one[rows]
    if one.shape != other.shape:
        return one.dim() == 0 or rows is not None  # of something that is no batch
    scale = max(1.0, float(one.abs().max())) if one.numel() and one.is_floating_point() else 1.0
    return bool((one - other).abs().max() <= TOLERANCE * scale / 2) if one.numel() else True


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())
