"""Path length regularisation: Karras et al., StyleGAN2, 1912.04958, section 3.2, equation 4.

weight * E (||J^T e|| - a)^2, where J = dG/dw, e ~ N(0, I) is an image of noise, and a follows the
mean of ||J^T e||: a step in w then changes the image by as much wherever it is taken.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from gantrain.distributed import all_mean
from gantrain.game.parts import Game, Hooks, Step
from gantrain.models._base import StyledGenerator
from gantrain.models._layers import Count

Weight = Annotated[float, Field(gt=0)]


class Regularizer(Hooks):
    """Counted in every interval-th round alone, interval times, for one in `share` of the images.

    e is scaled by 1 / sqrt(HW), so that a hardly depends on the resolution. rate: at which it
    follows.
    """

    differentiates_twice = True
    mean: Tensor

    def __init__(
        self,
        *,
        weight: Weight = 2.0,
        interval: Count = 4,
        share: Count = 2,
        rate: Annotated[float, Field(gt=0, le=1)] = 0.01,
    ) -> None:
        super().__init__()
        self._weight, self._interval, self._share, self._rate = weight, interval, share, rate
        self.register_buffer("mean", torch.zeros(()))

    def refuses(self, game: Game) -> str | None:
        """A generator without styles."""
        if isinstance(game.generator, StyledGenerator):
            return None
        return "G makes no styles whose paths have a length; use it with stylegan2"

    def generator_penalty(self, step: Step) -> Tensor | float:
        """See the module."""
        if step.game.rounds % self._interval:
            return 0.0
        generator = step.game.generator
        assert isinstance(generator, StyledGenerator)
        assert step.z is not None
        count = max(len(step.z) // self._share, 1)
        styles = generator.styles(step.z[:count], None if step.y is None else step.y[:count])
        lengths = path_lengths(generator, styles)
        self.mean.lerp_(all_mean(lengths.detach().mean()), self._rate)
        # A copy: the next part of the batch moves the mean before this one's gradient is taken.
        penalty = (lengths - self.mean.clone()).square().mean()
        return self._interval * self._weight * penalty

    def stats(self) -> dict[str, float]:
        """The mean that lengths are drawn to."""
        return {"path_length": float(self.mean)}


def path_lengths(generator: StyledGenerator, styles: Tensor) -> Tensor:
    """||J^T e|| of each image, by the L styles' root mean square: (N, L, D) -> (N,)."""
    images = generator.synthesis(styles).float()
    noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
    (slopes,) = torch.autograd.grad((images * noise).sum(), styles, create_graph=True)
    return slopes.float().square().sum(2).mean(1).sqrt()
