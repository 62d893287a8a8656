"""A picture's file -> the pixels that training sees. Every rule of how that is done stands here.

- It is turned upright as EXIF says; of several frames the first is taken.
- 16 bits keep their upper 8. int32 is taken for 16 bits, float for [0, 1]; what lies outside is
  refused, as its range is not known.
- Colours of an ICC profile become sRGB.
- What is transparent is laid over a background.
- A picture of more than MAX_PIXELS is refused.
- It is cropped, padded or squashed to the set's shape, resized by Lanczos, and made grey or RGB.
"""

import io
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gantrain.data.names import picture_formats

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Framing = Literal["centre", "random", "none", "pad", "squash"]
FRAMINGS = get_args(Framing)

MAX_PIXELS = 250_000_000  # 1 GB as RGBA; Pillow's own limit is lower, and without a name
WHITE: Colour = (255, 255, 255)

ONE_FRAME = "pictures with several frames, of which the first is taken"
NO_PROFILE = "pictures with a colour profile that cannot be used, taken as sRGB"
DIM = "pictures that use less than an eighth of their range (scale them if they hold fewer bits)"
ENLARGED = "pictures that were too small and are enlarged"


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 (H, W), if it is grey, or (H, W, 3).
        notes: what was done to it that its owner should know.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()

    @property
    def is_colour(self) -> bool:
        return self.pixels.ndim == 3


@dataclass(frozen=True, kw_only=True)
class Form:
    """What every picture of a set is made into.

    Attributes:
        height, width: in pixels. channels: 1 or 3.
        framing: how another shape is met: by a crop at the centre or at a place of its own that
            the picture's name decides, by a border of the background, by squashing, or not at all.
        background: what lies behind what is transparent.
    """

    height: int
    width: int
    channels: int
    framing: Framing = "centre"
    background: Colour = WHITE


def prepared(data: bytes | Pixels, form: Form, name: str) -> Picture:
    """A picture's file, or its pixels -> uint8 (H, W, C) of a form.

    Raises:
        Exception: it is broken, by whatever the decoder raises.
    """
    return fit(decode(data, form.background), form, name)


def decode(data: bytes | Pixels, background: Colour = WHITE) -> Picture:
    """A picture's file, or pixels (H, W) or (H, W, 1, 3 or 4) -> its picture as it is.

    Raises:
        Exception: it is broken, by whatever the decoder raises.
    """
    from PIL import Image

    if isinstance(data, bytes):
        if not data:
            raise ValueError("no bytes: the picture lies elsewhere, or its file is empty")
        with _own_limit(), Image.open(io.BytesIO(data), formats=picture_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{height}x{width}: more than {MAX_PIXELS:,} pixels")
            return _flattened(image, background)
    if data.ndim == 3 and data.shape[2] == 4:
        return _flattened(Image.fromarray(data), background)
    return Picture(data[..., 0] if data.ndim == 3 and data.shape[2] == 1 else data)


def fit(picture: Picture, form: Form, name: str) -> Picture:
    """Frame, resize and convert a picture to uint8 (H, W, C) of a form.

    Raises:
        ValueError: its shape is another one, and the form's framing is "none".
    """
    from PIL import Image

    height, width = picture.pixels.shape[:2]
    size, image, notes = (form.width, form.height), Image.fromarray(picture.pixels), picture.notes
    if (width, height) != size:
        image = _framed(image, form, name)
        if form.width > image.width or form.height > image.height:
            notes = (*notes, ENLARGED)
        image = image.resize(size, Image.Resampling.LANCZOS)
    image = image.convert("L" if form.channels == 1 else "RGB")
    return Picture(np.asarray(image).reshape(form.height, form.width, form.channels), notes)


def _framed(image: "Image.Image", form: Form, name: str) -> "Image.Image":
    """The picture in the form's shape, of whatever size."""
    from PIL import Image

    across, down = image.width / form.width, image.height / form.height
    scale = max(across, down) if form.framing == "pad" else min(across, down)
    width, height = round(form.width * scale), round(form.height * scale)
    if form.framing == "squash" or (width, height) == image.size:
        return image
    if form.framing == "none":
        raise ValueError(
            f"{image.height}x{image.width} (height x width) has another shape than"
            f" {form.height}x{form.width}; crop, pad or squash it"
        )
    if form.framing == "pad":
        grey = len(set(form.background)) == 1 and image.mode == "L"
        canvas = Image.new("L", (width, height), form.background[0])
        if not grey:
            canvas = Image.new("RGB", (width, height), form.background)
        canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return canvas
    spare = np.array([image.width - width, image.height - height])
    left, top = (spare // 2).tolist()
    if form.framing == "random":
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        left, top = rng.integers(0, spare, endpoint=True).tolist()
    return image.crop((left, top, left + width, top + height))


def _flattened(image: "Image.Image", background: Colour) -> Picture:
    """Upright, 8 bits, sRGB, opaque; grey if it was."""
    from PIL import Image, ImageOps

    notes = [ONE_FRAME] if getattr(image, "is_animated", False) else []
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    hidden = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        image = Image.fromarray(_eight_bits(values, notes))
        if isinstance(hidden, int):  # the value that stands for nothing
            image.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    elif hidden is not None or image.mode in ("PA", "RGBa"):
        grey = image.mode in ("1", "L")
        image = image.convert("RGBA").convert("LA") if grey else image.convert("RGBA")
    elif image.mode in ("P", "La"):
        image = image.convert("RGB" if image.mode == "P" else "LA")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if alpha is not None:
        image = image.convert(image.mode[:-1])
    if profile:
        image = _to_srgb(image, profile, notes)
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if alpha is not None:
        behind = Image.new("RGB", image.size, background)
        grey = image.mode == "L" and len(set(background)) == 1
        image = Image.composite(image.convert("RGB"), behind, alpha).convert("L" if grey else "RGB")
    return Picture(np.asarray(image), tuple(notes))


def _eight_bits(values: NDArray[Any], notes: list[str]) -> Pixels:
    """Grey values of 16 bits, int32 or float -> uint8, by the rules of this module."""
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        # Half a step of tolerance, as resampling leaves it; a NaN compares as False.
        if not (low >= -1 / 512 and high <= 1 + 1 / 512):
            raise ValueError(f"float values {low:g} to {high:g}; expected 0 to 1")
        if high < 1 / 8:
            notes.append(DIM)
        rounded: Pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        return rounded
    if low < 0 or high > 65535:
        raise ValueError(f"{values.dtype} values {low} to {high}; expected 0 to 65535")
    if high < 65536 / 8:
        notes.append(DIM)
    return np.right_shift(values.astype(np.uint16), 8).astype(np.uint8)


def _to_srgb(image: "Image.Image", profile: bytes, notes: list[str]) -> "Image.Image":
    """Colours as the profile means them; unchanged if it is sRGB's, or of no use."""
    from PIL import ImageCms

    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(given):
            return image
        converted = ImageCms.profileToProfile(
            image, given, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert converted is not None
        return converted.convert("L") if image.mode == "L" else converted
    except (ImportError, OSError, TypeError, ValueError, ImageCms.PyCMSError):
        notes.append(NO_PROFILE)
        return image


_decoding = threading.Lock()
_limits: list[int | None] = []  # Pillow's limit, once for each thread that decodes


@contextmanager
def _own_limit() -> Iterator[None]:
    """Pillow's limit of pixels, which warns at one size and raises at another, is out of force."""
    from PIL import Image

    with _decoding:
        _limits.append(_limits[0] if _limits else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _decoding:
            limit = _limits.pop()
            if not _limits:
                Image.MAX_IMAGE_PIXELS = limit
