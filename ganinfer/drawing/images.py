"""Pixels: the one quantisation rule, grids and PNG files."""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import RequestError
from ganinfer.files import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image

Images = NDArray[np.uint8]

# Below, Huffman's tables take six times as long as all the rest, and save 3 %.
_TOO_SMALL_TO_COMPRESS = 400  # bytes of pixels


def to_uint8(images: NDArray[np.float32]) -> Images:
    """Quantise pixels: round((clip(x, -1, 1) + 1) * 127.5), halves to the even neighbour.

    Args:
        images: float32 of any shape, [-1, 1] nominal.

    Returns:
        uint8 of the same shape, 0 to 255.
    """
    scaled = (np.clip(images, np.float32(-1), np.float32(1)) + np.float32(1)) * np.float32(127.5)
    quantised: Images = np.rint(scaled).astype(np.uint8)
    return quantised


def grid(
    images: Images, *, columns: int | None = None, scale: int | None = None, gap: int = 2
) -> Images:
    """Lay images out in rows.

    Args:
        images: uint8 (N, H, W, C), N >= 1.
        columns: images in a row; by default the grid is about square.
        scale: each pixel becomes scale x scale; by default tiles are at least 48 pixels wide.
        gap: white pixels between tiles.

    Returns:
        uint8 (H', W', C).
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = scale or max(1, math.ceil(48 / width))
    tiles = images.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale, width * scale
    sheet = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8
    )
    for index, tile in enumerate(tiles):
        top = gap + (index // columns) * (height + gap)
        left = gap + (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def to_pil(image: Images) -> "Image":
    """uint8 (H, W, C), C of 1 or 3, as a Pillow image."""
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise RequestError(f"image of shape {image.shape}: expected (H, W, 1) or (H, W, 3)")
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def encode_png(image: Images) -> bytes:
    """The bytes of a PNG file of one image, uint8 (H, W, C) with C of 1 or 3."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(path: str | Path, image: Images) -> None:
    """Write one image, uint8 (H, W, C) with C of 1 or 3, as a PNG file, whole or not at all."""
    write_atomic(Path(path), encode_png(image))


def encode_pngs(images: Images) -> list[bytes]:
    """PNG files of many images, uint8 (N, H, W, C) with C of 1 or 3.

    Several times as fast as `encode_png`, which searches each row's best filter, and for that up
    to a quarter larger. Each row is told by its difference to the one above; the bytes depend on
    the pixels and on zlib alone.
    """
    n, height, width, channels = images.shape
    if channels not in (1, 3):
        raise RequestError(f"images of shape {images.shape}: expected (N, H, W, 1) or (N, H, W, 3)")
    rows = np.empty((n, height, 1 + width * channels), np.uint8)
    rows[:, :, 0] = 2  # the filter's number
    rows[:, :, 1:] = images.reshape(n, height, -1)
    rows[:, 1:, 1:] -= images.reshape(n, height, -1)[:, :-1]
    colour_type = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    start, end = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header), _chunk(b"IEND", b"")
    level = 0 if height * width * channels <= _TOO_SMALL_TO_COMPRESS else 1
    files = []
    for image in rows:
        packer = zlib.compressobj(level, strategy=zlib.Z_RLE)
        packed = packer.compress(image.data) + packer.flush()
        files.append(start + _chunk(b"IDAT", packed) + end)
    return files


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return b"%b%b%b%b" % (struct.pack(">I", len(data)), kind, data, struct.pack(">I", check))
