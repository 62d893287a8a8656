"""A head that first adds columns to D's features."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ganinfer.errors import ConfigError
from gantrain.models._base import DiscriminatorModule


class WidenedHead(nn.Module):
    """features (N, F), y -> logits (N,) of the features and what `more` (N, M) makes of them."""

    def __init__(self, more: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.more, self.head = more, head

    def forward(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(self.more(features), y)
        return logits


def widen_head(
    discriminator: DiscriminatorModule, make: Callable[[int], nn.Module], num_more: int
) -> None:
    """Put a layer features (N, F) -> (N, F + num_more) before D's head; make gets F."""
    outer, inner = inner_head(discriminator)
    if not hasattr(inner, "widened"):
        raise ConfigError(
            f"[[regularizers]]: D's {type(inner).__name__} takes no features more than D's own;"
            " leave out what adds some, or take another discriminator"
        )
    # A Head, or a part's own that can be widened like one.
    outer.head = WidenedHead(make(inner.num_features), inner.widened(num_more))


def inner_head(discriminator: DiscriminatorModule) -> tuple[Any, Any]:
    """The head that judges, behind all that widens it, and the module whose `head` it is."""
    outer: Any = discriminator
    while isinstance(outer.head, WidenedHead):
        outer = outer.head
    return outer, outer.head
