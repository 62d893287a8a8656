"""Layers that compute with what they derive from their weights, and how that is settled."""

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """A layer that computes with what it derives from its weights: gains, sums, tiled filters.

    The weights keep their published names and values. While they are trained, what is derived of
    them is worked out in every call; of a settled layer it is constant, in its graph too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[str, ...] = ()
        self.register_load_state_dict_post_hook(_settle_again)  # type: ignore[no-untyped-call]

    def derive(self) -> dict[str, Tensor]:
        """Work out, by name, what the layer computes with."""
        raise NotImplementedError

    def derived(self) -> dict[str, Tensor]:
        """What the layer computes with: kept, or worked out now."""
        if self._kept:
            return {name: self.get_buffer(name) for name in self._kept}
        return self.derive()

    @torch.no_grad()
    def settle(self) -> None:
        """Keep it, as buffers that are not in the state dict; weights that are loaded renew it."""
        for name, value in self.derive().items():
            self.register_buffer(name, value.contiguous(), persistent=False)
            self._kept = (*(kept for kept in self._kept if kept != name), name)


def _settle_again(layer: nn.Module, _: object) -> None:
    assert isinstance(layer, Layer)
    if layer._kept:
        layer.settle()


def settle(network: nn.Module) -> None:
    """Settle all layers of a network whose weights are not trained any more."""
    for layer in network.modules():
        if isinstance(layer, Layer):
            layer.settle()
