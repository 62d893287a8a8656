"""A head that first adds columns to D's features."""

from collections.abc import Callable

from torch import Tensor, nn

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
    outer: nn.Module = discriminator
    name = "head"
    while isinstance(inner := getattr(outer, name), WidenedHead):
        outer = inner
    # A Head, or an objective's own that can be widened like one.
    setattr(outer, name, WidenedHead(make(inner.num_features), inner.widened(num_more)))
