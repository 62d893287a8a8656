"""WGAN's constraint: Arjovsky, Chintala, Bottou, 1701.07875, algorithm 1: w <- clip(w, -c, c)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from gantrain.game.parts import Game, Hooks


class Regularizer(Hooks):
    """The critic becomes K-Lipschitz for some K that depends on c and the architecture."""

    keeps_lipschitz = True

    def __init__(self, *, clip: Annotated[float, Field(gt=0)] = 0.01) -> None:
        super().__init__()
        self._clip = clip

    def refuses(self, game: Game) -> str | None:
        """Spectral norm in D, which divides any scale of the weights out again."""
        hook = game.named("spectral_norm")
        if hook is not None and "discriminator" in hook.networks:
            return (
                "D is under spectral_norm, which takes the clipped weights' scale out again;"
                " leave one of the two out"
            )
        return None

    @torch.no_grad()
    def after_discriminator_step(
        self, game: Game, real_logits: Tensor, fake_logits: Tensor
    ) -> None:
        """Clip every parameter of the critic that is trained."""
        for parameter in game.discriminator.parameters():
            if parameter.requires_grad:
                parameter.clamp_(-self._clip, self._clip)
