"""Nearest neighbours among features, in float64 and in blocks, on any device.

A (M, F) and B (N, F) are sets of features; a set's neighbours within itself leave out the point
itself.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gantrain.metrics._measured import Measured

MAX_IMAGES = 10_000  # of each side; what compares every image with every other takes no more
_BLOCK_BYTES = 64 << 20


def some_features(measured: Measured, num_images: int = MAX_IMAGES, *, seed: int = 0) -> Tensor:
    """float64 (M, F): all features, or those of num_images images chosen by seed."""
    features = measured.features[some_rows(len(measured), num_images, seed=seed)]
    return torch.from_numpy(features).to(measured.device, torch.float64)


def some_rows(num_rows: int, num_chosen: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Numbers of all rows, or of as many as are wanted, chosen by seed, in ascending order."""
    if num_rows <= num_chosen:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(seed).permutation(num_rows)[:num_chosen])


def distance_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of A and their squared distances (m, N) to all of B, block by block."""
    centre = b.mean(dim=0)  # |x|^2 + |y|^2 - 2 x.y keeps its digits near the origin
    a, b = a - centre, b - centre
    squares_a, squares_b = a.square().sum(1), b.square().sum(1)
    step = max(1, _BLOCK_BYTES // (8 * len(b)))
    for start in range(0, len(a), step):
        rows = slice(start, min(start + step, len(a)))
        block = torch.addmm(squares_b[None], a[rows], b.T, alpha=-2).add_(squares_a[rows, None])
        yield rows, block.clamp_(min=0)


def nearest(a: Tensor, b: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Squared distances (M, k) from each of A to its k nearest of B, ascending; their indices."""
    found = [block.topk(k, largest=False) for _, block in distance_blocks(a, b)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def nearest_within(a: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The same among A itself, each point's own 0 left out."""
    values, indices = [], []
    for rows, block in distance_blocks(a, a):
        own = torch.arange(rows.start, rows.stop, device=a.device)
        block[torch.arange(len(block), device=a.device), own] = torch.inf
        found = block.topk(k, largest=False)
        values.append(found.values)
        indices.append(found.indices)
    return torch.cat(values), torch.cat(indices)


def nearest_of_all(a: Tensor, measured: Measured, k: int = 1) -> tuple[Tensor, Tensor]:
    """As `nearest`, with all images of a measured set as B, which is read chunk by chunk."""
    values = torch.empty(len(a), 0, dtype=a.dtype, device=a.device)
    indices = torch.empty(len(a), 0, dtype=torch.int64, device=a.device)
    seen = 0
    for chunk in measured.stream("features"):
        b = torch.from_numpy(chunk).to(a)
        block = torch.cat([block for _, block in distance_blocks(a, b)])
        numbers = torch.arange(seen, seen + len(b), device=a.device).expand(len(a), -1)
        found = torch.cat([values, block], dim=1).topk(min(k, seen + len(b)), largest=False)
        values, indices = found.values, torch.cat([indices, numbers], 1).gather(1, found.indices)
        seen += len(b)
    return values, indices
