"""Differentiable Augmentation for Data-Efficient GAN Training: Zhao et al., 2006.10738.

D sees T(x) and T(G(z)), with T random and differentiable: colour (brightness, saturation,
contrast), translation by up to an eighth, cutout of a square half the image wide.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from gantrain.game.draws import Draws
from gantrain.game.parts import Game, Hooks

Policy = Annotated[list[Literal["color", "translation", "cutout"]], Field(min_length=1)]


class Regularizer(Hooks):
    """Every image is augmented, by its own random numbers."""

    def __init__(self, *, policy: Policy = ["color", "translation", "cutout"]) -> None:  # noqa: B006
        super().__init__()
        self._policy = policy

    def refuses(self, game: Game) -> str | None:
        """Points are no images."""
        return "points cannot be augmented as images; leave it out" if game.points else None

    def augment(self, images: Tensor, game: Game) -> Tensor:
        """T(images)."""
        if "color" in self._policy:
            images = color(images, game.draws)
        if "translation" in self._policy:
            images = translate(images, game.draws)
        if "cutout" in self._policy:
            images = cutout(images, game.draws)
        return images


def color(images: Tensor, draws: Draws) -> Tensor:
    """Brightness +- 0.5, then saturation x 0..2, then contrast x 0.5..1.5."""
    u = draws.uniform(len(images), 3)[:, :, None, None]
    images = images + (u[:, 0:1] - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * u[:, 1:2]) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (u[:, 2:3] + 0.5) + mean


def translate(images: Tensor, draws: Draws) -> Tensor:
    """Shift by up to an eighth of the size in each direction; black (0) comes in."""
    size = images.shape[-1]
    reach = (size + 4) // 8
    shifts = draws.integers(2 * reach + 1, 2 * len(images)).view(-1, 2)
    padded = functional.pad(images, [reach] * 4)
    rows = shifts[:, 0, None] + torch.arange(size, device=images.device)  # (N, H)
    columns = shifts[:, 1, None] + torch.arange(size, device=images.device)
    n = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def cutout(images: Tensor, draws: Draws) -> Tensor:
    """A square of half the size becomes 0; it may lie partly outside."""
    size = images.shape[-1]
    hole = (size + 1) // 2
    centres = draws.integers(size + 1 - hole % 2, 2 * len(images)).view(-1, 2)
    place = torch.arange(size, device=images.device)
    inside = (place >= centres[..., None] - hole // 2) & (
        place < centres[..., None] - hole // 2 + hole
    )  # (N, 2, size)
    mask = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images * (~mask)[:, None]
