"""What a source of images is, and how a picture's file is decoded."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (H, W) or (H, W, 3)

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Source:
    """Images that can be read one by one.

    names: what each image is called in a message. classes: class names; empty when unlabelled.
    labels: int64 (N,) or None. read: index -> pixels; raises OSError or ValueError if broken.
    files: that it is made of, where there are several.
    """

    names: list[str]
    classes: list[str]
    labels: NDArray[np.int64] | None
    read: Callable[[int], Pixels]
    files: Sequence[Path] = ()


def is_image(path: PurePath) -> bool:
    """By its suffix; what systems hide (.thumbnails, __MACOSX) is passed over."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def decode(data: bytes) -> Pixels:
    """Decode an image file to uint8 (H, W), if it is grey, or (H, W, 3)."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):  # convert() would clip to 255 instead of scaling
            return (np.asarray(upright) >> 8).astype(np.uint8)
        if upright.mode in ("I", "F"):
            raise ValueError(f"mode {upright.mode}: values without a known range")
        return np.asarray(upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB"))
