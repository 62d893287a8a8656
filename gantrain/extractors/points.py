"""Points in the plane need no network."""

import torch
from torch import Tensor

from gantrain.data.dataset import Modes
from gantrain.extractors._base import Seen


class Points:
    """Points are their own features; the logits are minus the distances to the modes, in sigmas."""

    name = "the points themselves"
    resizer = "none"
    key = "points"
    sees_classes = True

    def __init__(self, modes: Modes, device: torch.device) -> None:
        self.device = device
        self._centres = torch.from_numpy(modes.centres).to(device)
        self._sigma = modes.sigma

    def __call__(self, images: Tensor) -> Seen:
        """float32 (N, C, 1, 1) -> Seen."""
        points = images.flatten(1)
        distances = (points.double()[:, None] - self._centres).norm(dim=2)
        return Seen(points, (-distances / self._sigma).float())
