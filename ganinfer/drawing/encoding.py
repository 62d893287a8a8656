"""Images as files of a kind, many at a time: png, webp without loss, jpeg."""

import io
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ganinfer.drawing.images import Images, check_picture, encode_pngs, to_pil
from ganinfer.errors import RequestError

_JPEG_QUALITY = 95


class Encoding(NamedTuple):
    """A way to write images.

    Attributes:
        name: as it was asked for, such as "jpeg:90".
        suffix: of the files' names, without a point.
        channels: of the images that it holds; a webp holds grey as RGB.
        encode: makes files of uint8 (N, H, W, C).
    """

    name: str
    suffix: str
    channels: tuple[int, ...]
    encode: Callable[[Images], list[bytes]]


def encoding_of(name: str) -> Encoding:
    """The encoding that a name asks for: "png", "webp", "jpeg", or "jpeg:90" of a quality.

    Raises:
        RequestError: there is none such.
    """
    match = re.fullmatch(r"(png|webp|jpeg)(?::(\d{1,3}))?", name)
    quality = int(match[2]) if match and match[2] else _JPEG_QUALITY
    if not match or (match[2] and match[1] != "jpeg") or not 1 <= quality <= 100:
        raise RequestError(
            f"encoding {name!r:.40}: expected png, webp, jpeg, or jpeg:90, of a quality from 1 to"
            " 100"
        )
    if match[1] == "png":
        return PNG
    if match[1] == "webp":
        return Encoding(name, "webp", (1, 3, 4), _each(lossless=True, exact=True, format="webp"))
    return Encoding(name, "jpg", (1, 3), _each(quality=quality, format="jpeg"))


def _each(**options: Any) -> Callable[[Images], list[bytes]]:
    return lambda images: list(map(partial(_encoded, options), images))


def _encoded(options: dict[str, Any], image: Images) -> bytes:
    buffer, picture = io.BytesIO(), to_pil(image)
    if options["format"] == "webp" and picture.mode == "L":
        picture = picture.convert("RGB")
    picture.save(buffer, **options)
    return buffer.getvalue()


PNG = Encoding("png", "png", (1, 3, 4), encode_pngs)


def check_channels(encoding: Encoding, channels: int) -> None:
    """Refuse images that an encoding does not hold as they are.

    Raises:
        RequestError: they have two channels, or are transparent and it is jpeg.
    """
    check_picture(channels)
    if channels not in encoding.channels:
        raise RequestError(
            f"encoding {encoding.name}: is not transparent, as these images are; take png or webp"
        )
