"""scikit-learn's handwritten digits, which come with the extra `train`."""

import numpy as np

from ganinfer.errors import missing_extra
from gantrain.data.source import Source


def digits() -> Source:
    """1,797 grey 8x8 images, values 0-16 spread to 0-255.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise missing_extra("sklearn", error) from None
    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    names = [f"digits[{i}]" for i in range(len(pixels))]
    classes = [str(n) for n in range(10)]
    return Source(names, classes, data.target.astype(np.int64), lambda i: pixels[i])
