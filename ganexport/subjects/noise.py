"""Noise beside z: what a network asks for as an argument, and what its forward draws.

An image of a bundle depends on its seed alone. So each noise is drawn once, as the latents of the
seeds 0, 1, ... are, and is the same for all images; or it is zero. N images.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ExportError

Shape = tuple[int, ...]  # of a noise for N images: its first number is 1 if each has its own

NORMAL, UNIFORM = "normal", "uniform"
_SIZED: dict[Any, str] = {torch.randn: NORMAL, torch.rand: UNIFORM}
_LIKE: dict[Any, str] = {torch.randn_like: NORMAL, torch.rand_like: UNIFORM}
_FILLED: dict[Any, str] = {Tensor.normal_: NORMAL, Tensor.uniform_: UNIFORM}
_DROPOUTS: tuple[Any, ...] = (
    *(functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d),
    *(functional.alpha_dropout, functional.feature_alpha_dropout),
)
# Heights of square noise that is looked for, smallest first.
_SIZES = sorted({28, *(1 << n for n in range(2, 11)), *(3 << n for n in range(2, 9))})


@dataclass(frozen=True)
class Draw:
    """A noise that a forward draws: "normal", N(0, 1), or "uniform", U(0, 1), of a shape."""

    kind: str
    shape: Shape


class Noise(nn.Module):
    """What a network gets in the place of noise; as a module, so that a graph keeps it.

    Attributes:
        shapes: of the noises that it takes as an argument after z and y, for one image each.
        listed: whether they are a list. draws: what its forward draws, in order.
        dropout: whether its forward keeps dropout on, which is then off.
    """

    def __init__(
        self,
        shapes: Sequence[Shape] = (),
        *,
        listed: bool = False,
        draws: Sequence[Draw] = (),
        dropout: bool = False,
        off: bool = False,
    ) -> None:
        super().__init__()
        self.shapes, self.listed, self.draws = list(shapes), listed, list(draws)
        self.dropout, self._off = dropout, off
        wanted = [Draw(NORMAL, (1, *shape)) for shape in shapes] + self.draws
        for seed, draw in enumerate(wanted):
            value = torch.zeros(draw.shape) if off else drawn(draw, seed)
            self.register_buffer(f"noise_{seed}", value)

    def given(self, z: Tensor) -> list[Any]:
        """What the network is called with after z (N, Z) and y."""
        if not self.shapes:
            return []
        values = [
            self.get_buffer(f"noise_{number}").expand(z.shape[0], *shape)
            for number, shape in enumerate(self.shapes)
        ]
        return [values] if self.listed else values

    def replacing(self) -> "Draws":
        """Within it, what is drawn is this noise, and dropout is off."""
        first = len(self.shapes)

        def kept(number: int, _kind: str, shape: Sequence[int]) -> Tensor:
            return self.get_buffer(f"noise_{first + number}").expand(*shape)

        return Draws(kept)

    def words(self) -> list[str]:
        """What is out of the ordinary, for the user to check."""
        notes = []
        kept = (
            "off, as noise=off says"
            if self._off
            else "drawn once and kept (noise=off takes it out)"
        )
        if self.shapes:
            shapes = ", ".join(str(("N", *shape)).replace("'", "") for shape in self.shapes)
            what = f"a list of {shapes}" if self.listed else shapes
            notes.append(f"noise is taken as {what} after z, and is {kept}")
        if self.draws:
            times = "once" if len(self.draws) == 1 else f"{len(self.draws)} times"
            notes.append(f"noise, which its forward draws {times} for every batch, is {kept}")
        if self.dropout:
            notes.append("dropout, which its forward keeps on, is off")
        return notes


class Draws(TorchFunctionMode):
    """Within it, noise comes from a function, and dropout does nothing."""

    def __init__(self, noise: Callable[[int, str, Sequence[int]], Tensor]) -> None:
        """noise: of the number of the draw, its kind and its shape."""
        super().__init__()
        self._noise = noise
        self.count = 0
        self.dropout = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            call = inspect.signature(func).bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["training"]:
                self.dropout = True
                return call.arguments["input"]
        elif func in _SIZED:
            size = kwargs.get("size", args[0] if args and not _is_number(args[0]) else args)
            return self._next(_SIZED[func], size)
        elif func in _LIKE:
            return self._next(_LIKE[func], (args[0] if args else kwargs["input"]).shape)
        elif func in _FILLED:
            names = ("mean", "std") if func is Tensor.normal_ else ("from", "to")
            given = dict(zip(names, (0.0, 1.0), strict=True)) | kwargs
            given |= dict(zip(names, args[1:], strict=False))
            start, end = (given[name] for name in names)
            scale = end if func is Tensor.normal_ else end - start
            return args[0].copy_(self._next(_FILLED[func], args[0].shape) * scale + start)
        return func(*args, **kwargs)

    def _next(self, kind: str, shape: Sequence[int]) -> Tensor:
        self.count += 1
        return self._noise(self.count - 1, kind, shape)


@torch.no_grad()
def find_noise(
    call: Callable[[int], Any], name: str, *, shapes: Sequence[Shape], listed: bool, off: bool
) -> Noise:
    """What a network gets in the place of noise.

    Args:
        call: calls it for a number of images, with what it takes as an argument.
        name: of the network, for messages.
        shapes, listed: as in `Noise`. off: zeros.

    Raises:
        ExportError: what it draws depends on the number of images otherwise than by its first
            dimension, or on what was drawn before.
    """
    found: list[list[Draw]] = []
    dropout = False
    for count in (2, 3):
        draws: list[Draw] = []

        def note(number: int, kind: str, shape: Sequence[int], draws: list[Draw] = draws) -> Tensor:
            draws.append(Draw(kind, tuple(shape)))
            return drawn(draws[-1], number)

        with Draws(note) as drawing:
            try:
                call(count)
            except Exception:  # it is said by `check_contract`, which calls it likewise
                return Noise(shapes, listed=listed, off=off)
        dropout |= drawing.dropout
        found.append(draws)
    two, three = found
    kept = [_for_any_number(a, b) for a, b in zip(two, three, strict=False)]
    if len(two) != len(three) or None in kept:
        odd = next((a for a, b in zip(two, kept, strict=False) if b is None), None)
        what = f"noise {odd.shape} for two images" if odd else "noise a varying number of times"
        raise ExportError(
            f"{name}: its forward draws {what}; expected the same for every batch, or (N, ...) for"
            " N images. Give it the noise as an argument, or take it out"
        )
    fixed = [draw for draw in kept if draw is not None]
    return Noise(shapes, listed=listed, draws=fixed, dropout=dropout, off=off)


def likely_shapes() -> Iterator[Shape]:
    """Of a noise for one image, as authors have it: (1, H, H) and (H, H, 1), smallest first."""
    for size in _SIZES:
        yield (1, size, size)
        yield (size, size, 1)


def _for_any_number(two: Draw, three: Draw) -> Draw | None:
    """What was drawn for two images, and for three, as a noise for any number."""
    if two == three:
        return two
    (a, *rest), (b, *others) = two.shape or (0,), three.shape or (0,)
    if two.kind == three.kind and (a, b) == (2, 3) and rest == others:
        return Draw(two.kind, (1, *rest))
    return None


def drawn(draw: Draw, seed: int) -> Tensor:
    """A noise, as the shared stream draws the latent of a seed, float32."""
    uniform = draw.kind == UNIFORM
    size = math.prod(draw.shape)
    flat = draw_latents([seed], max(1, size), distribution="uniform" if uniform else "normal")
    value = torch.from_numpy(flat)[0, :size].reshape(draw.shape)
    return (value + 1) / 2 if uniform else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | torch.SymInt)
