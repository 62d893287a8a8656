"""Pixels: the one quantisation rule, grids and PNG files."""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.reading import AnyArray, described, read
from ganinfer.errors import RequestError
from ganinfer.files import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image

Images = NDArray[np.uint8]

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # of a PNG, by channels: grey, RGB, RGBA
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


def check_picture(channels: int) -> None:
    """Refuse images that a PNG file or Pillow holds only as something else.

    PNG's and Pillow's two channels are grey and opacity, which a generator's need not be.

    Raises:
        RequestError: they have two channels.
    """
    if channels not in _COLOUR_TYPES:
        raise RequestError(
            f"images of {channels} channels: expected grey (1), RGB (3) or RGBA (4) for a picture;"
            " take numbers, output='numpy' or -n with --format npz, or look at the channels side by"
            " side in a grid, as -o x.png makes it"
        )


def visible(images: Images) -> Images:
    """Images (..., H, W, C) to look at: two channels side by side, in grey, (..., H, 2W, 1)."""
    if images.shape[-1] != 2:
        return images
    return np.concatenate([images[..., :1], images[..., 1:]], axis=-2)


def opaque(images: Images) -> Images:
    """RGBA (..., 4) on white, as RGB (..., 3); others as they are."""
    if images.shape[-1] != 4:
        return images
    colour, alpha = images[..., :3].astype(np.uint16), images[..., 3:].astype(np.uint16)
    mixed: Images = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return mixed


def grid(
    images: Images, *, columns: int | None = None, scale: int | None = None, gap: int = 2
) -> Images:
    """Lay images out in rows; two channels side by side, in grey.

    Args:
        images: uint8 (N, H, W, C), N >= 1.
        columns: images in a row; by default the grid is about square.
        scale: each pixel becomes scale x scale; by default the longer side of a tile is at least 48
            pixels.
        gap: white pixels between tiles, opaque ones.

    Returns:
        uint8 (H', W', C), of two channels (H', W', 1).
    """
    images = visible(images)
    count, height, width, channels = images.shape
    columns = columns or min(count, math.ceil(math.sqrt(count * height / width)))
    rows = math.ceil(count / columns)
    scale = scale or max(1, math.ceil(48 / max(height, width)))
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
    """uint8 (H, W, C) as a Pillow image: L of one channel, RGB of three, RGBA of four.

    Raises:
        RequestError: another shape; of two channels see `check_picture`.
    """
    if image.ndim != 3:
        raise RequestError(f"image of shape {image.shape}: expected (H, W, C)")
    check_picture(image.shape[2])
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def encode_png(image: AnyArray) -> bytes:
    """The bytes of a PNG file of one image.

    Args:
        image: uint8 (H, W, C) with C of 1 (grey), 3 (RGB) or 4 (RGBA), or (H, W), grey; an array,
            or what NumPy or DLPack can read.

    Raises:
        RequestError: another type or shape; of two channels see `check_picture`.
    """
    pixels = read("image", image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not pixels.size:
        raise RequestError(
            f"image: found {described(pixels)}; expected uint8 (H, W, C) or (H, W): take one of a"
            " batch, or its grid; to_uint8 makes it of floats in [-1, 1]"
        )
    buffer = io.BytesIO()
    to_pil(pixels if pixels.ndim == 3 else pixels[..., None]).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(path: str | Path, image: AnyArray) -> None:
    """Write one image as a PNG file, whole or not at all.

    Args:
        path: of the file.
        image: as `encode_png` takes it.

    Raises:
        RequestError: as `encode_png` does.
    """
    write_atomic(Path(path), encode_png(image))


def encode_pngs(images: Images) -> list[bytes]:
    """PNG files of many images, uint8 (N, H, W, C) with C of 1, 3 or 4.

    Several times as fast as `encode_png`, which searches each row's best filter, and for that up
    to a quarter larger. Each row is told by its difference to the one above; the bytes depend on
    the pixels and on zlib alone.
    """
    n, height, width, channels = images.shape
    check_picture(channels)
    rows = np.empty((n, height, 1 + width * channels), np.uint8)
    rows[:, :, 0] = 2  # the filter's number
    rows[:, :, 1:] = images.reshape(n, height, -1)
    rows[:, 1:, 1:] -= images.reshape(n, height, -1)[:, :-1]
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    start, end = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header), _chunk(b"IEND", b"")
    pack = _stored if height * width * channels <= _TOO_SMALL_TO_COMPRESS else _compressed
    return [start + _chunk(b"IDAT", pack(image.tobytes())) + end for image in rows]


def _compressed(data: bytes) -> bytes:
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return packer.compress(data) + packer.flush()


def _stored(data: bytes) -> bytes:
    """A zlib stream of one block as it is, as level 0 makes it, without a compressor."""
    size = len(data)
    return b"\x78\x01\x01%b%b%b" % (
        struct.pack("<HH", size, size ^ 0xFFFF),
        data,
        struct.pack(">I", zlib.adler32(data)),
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return b"%b%b%b%b" % (struct.pack(">I", len(data)), kind, data, struct.pack(">I", check))
