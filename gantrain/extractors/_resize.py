"""Images at Inception's size, as each tool makes them: two matrix products.

N images, C channels, H x W pixels.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIZE = 299
RESIZERS = {
    "tf": "TensorFlow 1's bilinear to 299x299",
    "clean": "antialiased bicubic to 299x299",
    "pytorch": "PyTorch's bilinear to 299x299",
}


def resize(images: Tensor, kind: str) -> Tensor:
    """Images at Inception's size.

    Args:
        images: float32 (N, C, H, W) on [0, 255].
        kind: "tf": bilinear as TensorFlow 1 does it, whose first pixels coincide; torch-fidelity's
            and StyleGAN's. "clean": bicubic that averages over all pixels when it shrinks, as PIL's
            and clean-fid's. "pytorch": bilinear with aligned edges and no averaging; pytorch-fid's.

    Returns:
        float32 (N, C, 299, 299) on [0, 255]: what bicubic overshoots is clipped, as clean-fid does.
    """
    height, width = images.shape[2:]
    if (height, width) == (SIZE, SIZE):
        return images
    rows, columns = (_weights(kind, size, images.device) for size in (height, width))
    resized: Tensor = rows @ (images @ columns.T)
    return resized.clamp(0, 255) if kind == "clean" else resized


def normalize(images: Tensor, kind: str) -> Tensor:
    """[0, 255] -> about [-1, 1], as each kind's tool does."""
    return images * (2 / 255) - 1 if kind == "pytorch" else (images - 128) / 128


@lru_cache(maxsize=16)
def _weights(kind: str, size: int, device: torch.device) -> Tensor:
    """float32 (299, size): each row makes one pixel of a line of `size`."""
    pixels, scale = np.arange(SIZE), size / SIZE
    if kind == "clean":
        centres = (pixels + 0.5) * scale
        distances = np.arange(size) + 0.5 - centres[:, None]
        weights = _bicubic(distances / max(scale, 1))
        weights /= weights.sum(1, keepdims=True)
    else:
        assert kind in ("tf", "pytorch"), kind
        scale = float(np.float32(scale))  # both tools round it, and then the product, to float32
        places = pixels * scale if kind == "tf" else (pixels + 0.5) * scale - 0.5
        weights = _bilinear(places.astype(np.float32).clip(0), size)
    return torch.from_numpy(weights.astype(np.float32)).to(device)


def _bilinear(places: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Each row the weights of the two pixels around a place."""
    before = places.astype(np.int64)
    after = np.minimum(before + 1, size - 1)
    share = places - before
    weights = np.zeros((len(places), size))
    rows = np.arange(len(places))
    weights[rows, before] = 1 - share
    weights[rows, after] += share
    return weights


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel of a = -0.5: nothing from 2 on."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
