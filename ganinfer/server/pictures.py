"""Images as files: png, webp, jpeg, npy; classes as URLs name them."""

import io
import re
from collections.abc import Callable

import numpy as np

from ganinfer.drawing.encoding import encoding_of
from ganinfer.drawing.images import Images, check_picture, opaque
from ganinfer.drawing.mixing import parse_mixture
from ganinfer.errors import RequestError
from ganinfer.sampler import Sampler


def _in(name: str) -> Callable[[Images], bytes]:
    """One image in an encoding; where that is not transparent, RGBA on white."""
    encoding = encoding_of(name)

    def encode(image: Images) -> bytes:
        held = image if image.shape[2] in encoding.channels else opaque(image)
        return encoding.encode(held[None])[0]

    return encode


def _npy(image: Images) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, image)
    return buffer.getvalue()


# Name -> media type, and what makes the bytes of uint8 (H, W, C).
FORMATS: dict[str, tuple[str, Callable[[Images], bytes]]] = {
    "png": ("image/png", _in("png")),
    "webp": ("image/webp", _in("webp")),
    "jpeg": ("image/jpeg", _in("jpeg")),
    "npy": ("application/x-npy", _npy),
}


def check_format(sampler: Sampler, name: str) -> None:
    """Refuse images that the format does not hold.

    Raises:
        RequestError: two channels are no picture, but for npy.
    """
    if name != "npy":
        check_picture(sampler.shape[2])


def class_of(sampler: Sampler, text: str) -> int:
    """The number of a class that a text names: by its name, or else its number.

    Raises:
        RequestError: the model has no such class, or none at all.
    """
    classes = sampler.classes
    if not classes:
        raise RequestError(f"label {text!r:.40}: this model has no classes; leave it out")
    is_number = text not in classes and re.fullmatch(r"\d{1,9}", text)
    return sampler.number_of(int(text) if is_number else text)


def label_of(sampler: Sampler, text: str) -> int | dict[int, float]:
    """The class that a text names; or of a mixture, as in 3:0.7,5:0.3, its classes' weights.

    Raises:
        RequestError: the model has no such class, or it is written otherwise.
    """
    if ":" not in text or text in sampler.classes:
        return class_of(sampler, text)
    weights: dict[int, float] = {}
    for part, weight in parse_mixture(text, sampler.classes, separator=",").items():
        number = sampler.number_of(part)
        weights[number] = weights.get(number, 0.0) + weight
    return weights
