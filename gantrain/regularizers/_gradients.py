"""Gradients of D with respect to its images, themselves differentiable."""

import torch
from torch import Tensor

from gantrain.game.parts import Game
from gantrain.models._base import batch_norm_of


def image_gradients(logits: Tensor, images: Tensor) -> Tensor:
    """D logit_i / d image_i: logits (N,), images (N, C, H, W) -> (N, CHW)."""
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradients.flatten(1)


def refuses_batch_norm(game: Game) -> str | None:
    """The penalties are defined image by image; under batch norm there is no such gradient."""
    if layer := batch_norm_of(game.discriminator):
        return (
            f"D's layer {layer} is a batch norm, through which an image's gradient depends on the"
            " others of its batch; use none, or layer norm, in D"
        )
    return None
