"""What every extractor takes and gives. N images, F features, K classes."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """What a network sees in N images: float32, on the extractor's device.

    features: (N, F). logits: (N, K), or None. spatial: (N, S), a flattened map of an earlier
    layer, or None.
    """

    features: Tensor
    logits: Tensor | None = None
    spatial: Tensor | None = None


class Extractor(Protocol):
    """Images -> Seen.

    Attributes:
        name: for records. resizer: how images come to the network's size, for records.
        key: differs wherever the same image may give other features; names caches.
        sees_classes: its K logits are the dataset's classes.
        device: where it runs.
    """

    name: str
    resizer: str
    key: str
    sees_classes: bool
    device: torch.device

    def __call__(self, images: Tensor) -> Seen:
        """float32 (N, C, H, W) on [0, 255], or points (N, C, 1, 1), on the device -> Seen."""


def see(extractor: Extractor, images: NDArray[Any]) -> Seen:
    """What an extractor sees in uint8 images, or float32 points, (N, H, W, C)."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(extractor.device)
    with torch.no_grad():
        return extractor(pixels.permute(0, 3, 1, 2).float())
