"""Images of a generator for given seeds, and the pictures that show how a run stands.

Seeds (N,), labels (N,) or None; images uint8 (N, H, W, C).
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.drawing.images import grid, to_uint8
from ganinfer.drawing.latents import draw_latents
from gantrain.data.dataset import Dataset
from gantrain.models._base import GeneratorModule, StyledGenerator

NUM_POINTS = 2500  # in a picture of points
_MOST = 1_000_000  # real images among which those of a picture are chosen


@torch.no_grad()
def draw(
    network: GeneratorModule,
    seeds: Any,
    labels: Any,
    *,
    truncation: float | None = None,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """float32 (N, C, H, W) of a network in eval mode, for seeds (N,) and labels (N,) or None.

    truncation: of the latents; of a generator with styles it is psi, and the styles are truncated.
    """
    psi = truncation if isinstance(network, StyledGenerator) else None
    drawn = draw_latents(
        seeds,
        network.z_dim,
        distribution=network.z_distribution,
        truncation=truncation if psi is None else None,
    )
    z = torch.from_numpy(drawn).to(device)
    y = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64)).to(device)
    made = network(z, y) if psi is None else network(z, y, psi=psi)
    images: NDArray[np.float32] = made.float().cpu().numpy()
    return images


def generate(
    network: GeneratorModule,
    seeds: Any,
    labels: Any,
    *,
    truncation: float | None = None,
    device: torch.device | str = "cpu",
) -> NDArray[np.uint8]:
    """uint8 (N, H, W, C) of a network in eval mode, for seeds (N,) and labels (N,) or None."""
    images = draw(network, seeds, labels, truncation=truncation, device=device)
    return to_uint8(images).transpose(0, 2, 3, 1)


def sample_sheet(num_classes: int) -> tuple[range, NDArray[np.int64] | None, int]:
    """Seeds, labels and columns of the pictures that show a generator: a class a column.

    With no classes, or too many for columns, about a hundred images in rows of ten.
    """
    columns = num_classes if 2 <= num_classes <= 16 else 10
    seeds = range(10 * columns)
    return seeds, np.arange(len(seeds)) % num_classes if num_classes else None, columns


class Sheet:
    """The seeds and labels of a run's pictures, the same throughout, and real images to compare.

    Attributes:
        seeds: of the generated images. labels: int64 (N,), or None.
    """

    def __init__(self, dataset: Dataset, num_classes: int) -> None:
        """num_classes: of the generator; 0 if it is unconditional."""
        self._dataset, self._num_classes = dataset, num_classes
        self.seeds, self.labels, self._columns = sample_sheet(num_classes)
        if dataset.points is not None:
            self.seeds = range(NUM_POINTS)
            self.labels = np.arange(NUM_POINTS) % num_classes if num_classes else None

    @cached_property
    def real(self) -> NDArray[np.float32]:
        """Real images of the same labels, float32 (N, C, H, W)."""
        images: NDArray[np.float32] = self._dataset.floats(self._real_indices()).numpy()
        return images

    def picture(self, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        """float32 (N, C, H, W) -> one picture, uint8 (H, W, C): a grid, or dots in the plane."""
        if self._dataset.points is not None:
            return scatter(images[:, :, 0, 0])
        return grid(to_uint8(images).transpose(0, 2, 3, 1), columns=self._columns)

    def _real_indices(self) -> NDArray[np.int64]:
        rng, count = np.random.default_rng(0), len(self._dataset)
        order = rng.permutation(count) if count <= _MOST else rng.integers(count, size=_MOST)
        labels = self._dataset.labels
        if labels is None or self.labels is None:
            return np.resize(order, len(self.seeds))
        of_class = [order[labels[order] == k] for k in range(self._num_classes)]
        # A class with too few images repeats them; one with none shows others.
        of_class = [members if len(members) else order for members in of_class]
        turns = np.arange(len(self.seeds)) // self._num_classes
        pairs = zip(self.labels, turns, strict=True)
        return np.array([of_class[k][n % len(of_class[k])] for k, n in pairs])


def scatter(points: NDArray[np.float32], size: int = 400) -> NDArray[np.uint8]:
    """Points (N, 2) on [-1, 1] as dots on white, uint8 (size, size, 1); y points upwards."""
    image = np.full((size, size, 1), 255, np.uint8)
    places = np.clip(((points + 1) / 2 * size).astype(int), 1, size - 2)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            image[size - 1 - places[:, 1] + down, places[:, 0] + right] = 0
    return image
