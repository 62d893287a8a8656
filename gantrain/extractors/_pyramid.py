"""A frozen network that gives its maps, from the finest to the coarsest, instead of features."""

import itertools
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset

Network = TypeVar("Network", bound=nn.Module)


class Pyramid(nn.Module):
    """Images (N, C, H, W) in [-1, 1] -> maps (N, widths[l], H_l, W_l).

    Its weights are random until `learn`, and buffers from the beginning: nothing trains, clips or
    normalises them, and they travel in the state dict. There is no batch norm in it.

    Attributes:
        widths: channels of each map.
    """

    widths: tuple[int, ...]

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        raise NotImplementedError

    def learn(
        self, dataset: Dataset, device: torch.device, progress: Progress | None = None
    ) -> None:
        """Take the weights that this network has for a dataset.

        progress: called with (what is being done, done, in all).

        Raises:
            DataError: there are none at hand.
        """
        raise NotImplementedError


def freeze(network: Network) -> Network:
    """Fold batch norms into the convolutions before them, and make buffers of all weights.

    In place, and in eval mode from then on; returns the network.
    """
    network.eval()
    layers = [(p, name, layer) for p in network.modules() for name, layer in p.named_children()]
    for (parent, name, layer), (of_norm, norm_name, norm) in itertools.pairwise(layers):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, name, fuse_conv_bn_eval(layer, norm))
            setattr(of_norm, norm_name, nn.Identity())
    for layer in network.modules():
        for name, weight in list(layer.named_parameters(recurse=False)):
            delattr(layer, name)
            layer.register_buffer(name, weight.detach())
    return network
