"""Points in the plane around known modes: where mode collapse can be counted.

Of Metz et al., Unrolled GANs, 1611.02163, and Srivastava et al., VEEGAN, 1705.07761. The plane is
scaled so that the outermost centres lie at 0.8 and points fit on [-1, 1].
"""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer.files import write_atomic

NUM_POINTS = 100_000


def ring8() -> tuple[NDArray[np.float64], float]:
    """Eight Gaussians, sigma 0.02, on a circle of radius 2: centres (8, 2) and sigma, scaled."""
    angles = 2 * np.pi * np.arange(8) / 8
    scale = 0.8 / 2
    return 2 * scale * np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.02 * scale


def grid25() -> tuple[NDArray[np.float64], float]:
    """A 5x5 grid of Gaussians, sigma 0.05, spacing 2: centres (25, 2) and sigma, scaled."""
    line = np.arange(-4.0, 5.0, 2.0)
    scale = 0.8 / 4
    return scale * np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2), 0.05 * scale


TOYS = {"ring8": ring8, "grid25": grid25}


def prepare_points(name: str, destination: Path, *, format_version: int, seed: int = 0) -> int:
    """Draw a toy dataset into a folder as `prepare` does; the number of points.

    images.npy is float32 (N, 1, 1, 2), labels.npy the mode of each point.
    """
    centres, sigma = TOYS[name]()
    rng = np.random.default_rng(seed)
    labels = np.arange(NUM_POINTS) % len(centres)
    points = centres[labels] + sigma * rng.standard_normal((NUM_POINTS, 2))
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    digest = hashlib.sha256()
    for file, array in (
        ("images.npy", points.astype(np.float32)[:, None, None]),
        ("labels.npy", labels.astype(np.int64)),
    ):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        digest.update(buffer.getvalue())
        write_atomic(partial / file, buffer.getvalue())
    description = {
        "format_version": format_version,
        "num_images": NUM_POINTS,
        "resolution": 1,
        "channels": 2,
        "classes": [str(n) for n in range(len(centres))],
        "modes": {"centres": centres.tolist(), "sigma": sigma},
        "sha256": digest.hexdigest(),
        "source": name,
        "split": "train",
        "num_skipped": 0,
    }
    write_atomic(partial / "dataset.json", (json.dumps(description, indent=2) + "\n").encode())
    if destination.exists():
        shutil.rmtree(destination)
    partial.rename(destination)
    return NUM_POINTS
