"""ADA: Karras et al., Training Generative Adversarial Networks with Limited Data, 2006.06676.

Each augmentation befalls an image with probability p, and p follows how far D overfits: with
r = E sign(s(x)), p rises while r > target and falls while r < target (sections 2.2 and 3). Images
are resampled bilinearly, without the paper's wavelet filter.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from gantrain.distributed import all_mean, world_size
from gantrain.game.draws import Draws
from gantrain.game.parts import Game, Hooks

INTERVAL = 4  # D steps between two changes of p


class Regularizer(Hooks):
    """p moves by 1 in adjust_kimg; it starts at initial_p, and adjust_kimg = 0 keeps it there."""

    p: Tensor
    signs: Tensor

    def __init__(
        self,
        *,
        target: Annotated[float, Field(gt=0, lt=1)] = 0.6,
        adjust_kimg: Annotated[float, Field(ge=0)] = 500.0,
        initial_p: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        super().__init__()
        self._target, self._adjust_images = target, 1000 * adjust_kimg
        self.register_buffer("p", torch.tensor(float(initial_p)))
        self.register_buffer("signs", torch.zeros(2))  # sum of signs, D steps

    def refuses(self, game: Game) -> str | None:
        """Points are no images; and logits without a zero point do not show how D overfits."""
        if game.points:
            return "points cannot be augmented as images; leave it out"
        if not game.objective.zero_point and self._adjust_images:
            return (
                "p follows the sign of D's logits, and this objective gives them no zero point; set"
                " adjust_kimg = 0 and a constant initial_p"
            )
        return None

    def augment(self, images: Tensor, game: Game) -> Tensor:
        """Geometry, then colour."""
        images = warp(images, self.p, game.draws)
        return recolor(images, self.p, game.draws)

    @torch.no_grad()
    def after_discriminator_step(
        self, game: Game, real_logits: Tensor, fake_logits: Tensor
    ) -> None:
        """Every fourth step, move p towards the target."""
        sign = all_mean(real_logits.sign().mean())
        self.signs += torch.stack([sign, torch.ones_like(sign)])
        if self._adjust_images and self.signs[1] >= INTERVAL:
            images = INTERVAL * len(real_logits) * world_size()
            direction = torch.sign(self.signs[0] / self.signs[1] - self._target)
            self.p.add_(direction * images / self._adjust_images).clamp_(0, 1)
            self.signs.zero_()

    def stats(self) -> dict[str, float]:
        """The probability."""
        return {"augment_p": float(self.p)}


def warp(images: Tensor, p: Tensor, draws: Draws) -> Tensor:
    """Flip, quarter turns, shifts by whole pixels, scale, rotation, stretch, fractional shifts."""
    n, _, height, width = images.shape

    def maybe(values: Tensor, neutral: float) -> Tensor:
        """Each value with probability p, else the neutral one."""
        return torch.where(draws.uniform(n) < p, values, neutral)

    def rotate(angle: Tensor) -> Tensor:
        """Of pixels, which are square; the coordinates need not be."""
        return _rotate(angle, height / width)

    # The matrices map output to input coordinates on [-1, 1], so the first change stands leftmost.
    # Of the flip, as of the turns, the neutral one is among those that are drawn.
    matrix = _scale(maybe(1.0 - 2.0 * draws.integers(2, n), 1.0), None)
    matrix = matrix @ rotate(maybe(draws.integers(4, n) * (math.pi / 2), 0.0))
    pixels = torch.tensor([2 / width, 2 / height], device=images.device)
    shift = ((draws.uniform(n, 2) * 2 - 1) * 0.125 / (pixels / 2)).round() * pixels
    moved = maybe(torch.ones(n, device=images.device), 0.0)
    matrix = matrix @ _shift(moved * shift[:, 0], moved * shift[:, 1])
    size = maybe(torch.exp2(0.2 * draws.normal(n)), 1.0)
    matrix = matrix @ _scale(size, size)
    # Two rotations, before and after the stretch; together they befall with probability p.
    each = 1 - (1 - p).clamp_min(0).sqrt()
    turns = torch.where(draws.uniform(n, 2) < each, (draws.uniform(n, 2) * 2 - 1) * math.pi, 0.0)
    matrix = matrix @ rotate(turns[:, 0])
    stretch = maybe(torch.exp2(0.2 * draws.normal(n)), 1.0)
    matrix = matrix @ _scale(stretch, 1 / stretch)
    matrix = matrix @ rotate(turns[:, 1])
    shift = draws.normal(n, 2) * 0.125 * 2
    moved = maybe(torch.ones(n, device=images.device), 0.0)
    matrix = matrix @ _shift(moved * shift[:, 0], moved * shift[:, 1])
    grid = functional.affine_grid(matrix[:, :2], list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def recolor(images: Tensor, p: Tensor, draws: Draws) -> Tensor:
    """Brightness, contrast, inverted luma; hue and saturation of colour images."""
    n, channels = images.shape[:2]

    def maybe(values: Tensor, neutral: float) -> Tensor:
        return torch.where(draws.uniform(n) < p, values, neutral)[:, None, None, None]

    images = images + maybe(0.2 * draws.normal(n), 0.0)
    images = images * maybe(torch.exp2(0.5 * draws.normal(n)), 1.0)
    grey = images.mean(1, keepdim=True)
    images = images - 2 * grey * maybe(draws.integers(2, n).float(), 0.0)
    if channels == 3:
        grey = images.mean(1, keepdim=True)
        chroma = images - grey
        angle = maybe((draws.uniform(n) * 2 - 1) * math.pi, 0.0)
        # Rotation about the grey axis: the cross product with (1, 1, 1) / sqrt(3) turns by 90.
        turned = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3)
        chroma = chroma * angle.cos() + turned * angle.sin()
        images = grey + chroma * maybe(torch.exp2(draws.normal(n)), 1.0)
    return images


def _matrix(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """Numbers and (N,) tensors -> (N, 3, 3)."""
    whole = [[torch.zeros_like(like) + entry for entry in row] for row in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in whole], dim=-2)


def _scale(x: Tensor, y: Tensor | None) -> Tensor:
    return _matrix([[x, 0.0, 0.0], [0.0, 1.0 if y is None else y, 0.0], [0.0, 0.0, 1.0]], x)


def _rotate(angle: Tensor, aspect: float) -> Tensor:
    """By an angle, of images whose height is `aspect` times their width."""
    c, s = angle.cos(), angle.sin()
    return _matrix([[c, -s * aspect, 0.0], [s / aspect, c, 0.0], [0.0, 0.0, 1.0]], angle)


def _shift(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], x)
