"""Optimizers by name: one function each; keyword-only arguments are the section's schema."""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

Rate = Annotated[float, Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


def adam(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: Rate,
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.0, 0.9],  # noqa: B006
    eps: Rate = 1e-8,
) -> torch.optim.Optimizer:
    """Kingma, Ba, 1412.6980; betas (0.5, 0.999) in DCGAN, (0, 0.9) in SNGAN and SAGAN."""
    return torch.optim.Adam(
        parameters, lr=learning_rate, betas=(betas[0], betas[1]), eps=eps, fused=True
    )


def rmsprop(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: Rate,
    decay: Beta = 0.99,
    eps: Rate = 1e-8,
) -> torch.optim.Optimizer:
    """Tieleman, Hinton, lecture 6.5; 5e-5 in WGAN, whose critic momentum makes unstable."""
    return torch.optim.RMSprop(parameters, lr=learning_rate, alpha=decay, eps=eps, foreach=True)


def sgd(
    parameters: Iterable[nn.Parameter], *, learning_rate: Rate, momentum: Beta = 0.0
) -> torch.optim.Optimizer:
    """Stochastic gradient descent, with momentum in the first GAN."""
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, fused=True)
