"""Sampling from exported GANs, without torch.

from ganinfer import Sampler
with Sampler("digits.gan") as sampler:
    images = sampler.sample(64, seed=0, labels=3, truncation=0.7)   # uint8 (64, H, W, C)
"""

from ganinfer.drawing.images import encode_png, grid, save_png, to_uint8
from ganinfer.drawing.latents import draw_labels, draw_latents
from ganinfer.errors import (
    BackendUnavailable,
    BundleError,
    Closed,
    ConfigError,
    DeadlineExceeded,
    GanError,
    MissingExtra,
    ParityError,
    QueueFull,
    RequestError,
    http_status,
)
from ganinfer.sampler import Sampler

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "BundleError",
    "Closed",
    "ConfigError",
    "DeadlineExceeded",
    "GanError",
    "MissingExtra",
    "ParityError",
    "QueueFull",
    "RequestError",
    "Sampler",
    "__version__",
    "draw_labels",
    "draw_latents",
    "encode_png",
    "grid",
    "http_status",
    "save_png",
    "to_uint8",
]
