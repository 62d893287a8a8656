"""Images of a generator for given seeds, and the pictures that show how a run stands.

Seeds (N,), labels (N,) or None; images uint8 (N, H, W, C).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.images import grid, save_png, to_uint8
from ganinfer.latents import draw_latents
from gantrain.data import Dataset
from gantrain.models._base import GeneratorModule

NUM_POINTS = 2500  # in a picture of points


@torch.no_grad()
def draw(
    network: GeneratorModule,
    seeds: Any,
    labels: Any,
    *,
    truncation: float | None = None,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """float32 (N, C, H, W) on [-1, 1] of a network in eval mode, for seeds (N,) and labels (N,)."""
    z = draw_latents(
        seeds, network.z_dim, distribution=network.z_distribution, truncation=truncation
    )
    y = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64)).to(device)
    images: NDArray[np.float32] = network(torch.from_numpy(z).to(device), y).float().cpu().numpy()
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


def real_sheet(dataset: Dataset, num_classes: int) -> NDArray[np.int64]:
    """Indices of real images, laid out as `sample_sheet` lays out generated ones."""
    seeds, labels, _ = sample_sheet(num_classes)
    order = np.random.default_rng(0).permutation(len(dataset))
    if dataset.labels is None or labels is None:
        return np.resize(order, len(seeds))
    of_class = [order[dataset.labels[order] == k] for k in range(dataset.num_classes)]
    # A class with too few images repeats them; one with none shows others.
    of_class = [members if len(members) else order for members in of_class]
    turns = np.arange(len(seeds)) // dataset.num_classes
    return np.array([of_class[k][n % len(of_class[k])] for k, n in zip(labels, turns, strict=True)])


def save_samples(
    network: GeneratorModule,
    dataset: Dataset,
    run: Path,
    images_seen: int,
    *,
    truncation: float | None,
    device: torch.device,
) -> None:
    """Save run/samples/<images_seen>.png, the same seeds every time."""
    path = run / "samples" / f"{images_seen:012d}.png"
    if dataset.points is not None:
        labels = np.arange(NUM_POINTS) % network.num_classes if network.num_classes else None
        points = draw(network, range(NUM_POINTS), labels, truncation=truncation, device=device)
        save_png(path, scatter(points[:, :, 0, 0]))
        return
    seeds, labels, columns = sample_sheet(network.num_classes)
    images = generate(network, seeds, labels, truncation=truncation, device=device)
    save_png(path, grid(images, columns=columns))


def save_real_samples(dataset: Dataset, num_classes: int, run: Path) -> None:
    """Save run/samples/real.png, to compare with: real images, laid out as `save_samples` does."""
    (run / "samples").mkdir(parents=True, exist_ok=True)
    path = run / "samples" / "real.png"
    if dataset.points is not None:
        save_png(path, scatter(dataset.images[:NUM_POINTS, 0, 0]))
        return
    images = np.ascontiguousarray(dataset.images[real_sheet(dataset, num_classes)])
    save_png(path, grid(images, columns=sample_sheet(num_classes)[2]))


def scatter(points: NDArray[np.float32], size: int = 400) -> NDArray[np.uint8]:
    """Points (N, 2) on [-1, 1] as dots on white, uint8 (size, size, 1); y points upwards."""
    image = np.full((size, size, 1), 255, np.uint8)
    places = np.clip(((points + 1) / 2 * size).astype(int), 1, size - 2)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            image[size - 1 - places[:, 1] + down, places[:, 0] + right] = 0
    return image
