"""Perceptual path length in z (Karras et al., 1812.04948): how smoothly images change with z.

E d(G(slerp(z1, z2; t)), G(slerp(z1, z2; t + eps)))^2 / eps^2, t uniform, one class a path. The
paper's d is LPIPS; here it is the distance of the extractor's features, so figures compare only
between equal extractors.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import DataError
from gantrain.metrics._generated import Generated
from gantrain.metrics._measured import Measured
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS: tuple[str, ...] = ()
BETTER: dict[str, Better] = {"ppl_features": "lower"}
NUM_PATHS = 2000
EPSILON = 1e-4
_BATCH = 50
_FIRST_SEED = 1 << 33  # far from the seeds of the images


@torch.no_grad()
def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"ppl_features"}: mean over 2,000 paths but for the 1 % at either end, as in the paper."""
    source = fake.source
    if not isinstance(source, Generated) or source.network is None:
        raise DataError(
            "ppl: it needs a run, whose network gives images before they are rounded to uint8"
        )
    network, extractor = source.network, reference.extractor
    found = []
    # TF32 rounds more than two images so near to each other differ by.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for start in range(0, NUM_PATHS, _BATCH):
            seeds = range(_FIRST_SEED + 2 * start, _FIRST_SEED + 2 * (start + _BATCH))
            z = draw_latents(seeds, network.z_dim, distribution=network.z_distribution)
            t = np.random.default_rng(start).random(_BATCH) * (1 - EPSILON)
            labels = source.labels_of(seeds[:_BATCH])
            y = None if labels is None else torch.from_numpy(labels).to(source.device)
            ends = []
            for place in (t, t + EPSILON):
                between = path_points(z[:_BATCH], z[_BATCH:], place, network.z_distribution)
                images = network(torch.from_numpy(between).to(source.device), y).float()
                ends.append(extractor(pixels(images)).features.double())
            found.append((ends[0] - ends[1]).square().sum(1) / EPSILON**2)
    lengths = torch.cat(found).sort().values
    cut = len(lengths) // 100
    kept = lengths[cut:-cut]
    return {
        "ppl_features": Score(float(kept.mean()), float(kept.std() / len(kept) ** 0.5), len(kept))
    }


def path_points(
    a: NDArray[np.float32], b: NDArray[np.float32], t: NDArray[np.float64], distribution: str
) -> NDArray[np.float32]:
    """One point, t in [0, 1] of the way, on each path from a to b, all (N, Z).

    Normal latents go along the sphere, uniform ones along the line.
    """
    start, end, t = a.astype(np.float64), b.astype(np.float64), t[:, None]
    if distribution == "uniform":
        return (start + (end - start) * t).astype(np.float32)
    lengths = np.linalg.norm(start, axis=1) * np.linalg.norm(end, axis=1)
    angle = np.arccos((start * end).sum(1) / lengths)[:, None]
    on_arc = np.sin((1 - t) * angle) * start + np.sin(t * angle) * end
    point: NDArray[np.float32] = (on_arc / np.sin(angle)).astype(np.float32)
    return point


def pixels(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> [0, 255] without rounding; points stay points."""
    return images if images.shape[2:] == (1, 1) else (images.clamp(-1, 1) + 1) * 127.5
