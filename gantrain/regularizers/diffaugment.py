"""Differentiable Augmentation for Data-Efficient GAN Training: Zhao et al., 2006.10738.

D sees T(x) and T(G(z)), with T random and differentiable: colour (brightness, saturation,
contrast), translation by up to an eighth, cutout of a part half as high and half as wide.
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
    reach_y, reach_x = ((size + 4) // 8 for size in images.shape[2:])
    padded = functional.pad(images, [reach_x, reach_x, reach_y, reach_y])
    rows, columns = (
        draws.integers(2 * reach + 1, len(images))[:, None]
        + torch.arange(size, device=images.device)
        for size, reach in zip(images.shape[2:], (reach_y, reach_x), strict=True)
    )  # (N, H) and (N, W)
    n = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def cutout(images: Tensor, draws: Draws) -> Tensor:
    """A part of half the height and half the width becomes 0; it may lie partly outside."""
    rows, columns = (_hole(size, len(images), draws) for size in images.shape[2:])
    mask = rows[:, :, None] & columns[:, None, :]
    return images * (~mask)[:, None]


def _hole(size: int, n: int, draws: Draws) -> Tensor:
    """Which of `size` places are within half of them around a random one: bool (N, size)."""
    hole = (size + 1) // 2
    first = draws.integers(size + 1 - hole % 2, n)[:, None] - hole // 2
    places = torch.arange(size, device=draws.device)
    return (places >= first) & (places < first + hole)
