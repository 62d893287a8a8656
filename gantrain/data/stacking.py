"""Stacked MNIST and its kin: where 1000 modes are made of ten."""

import itertools

import numpy as np

from ganinfer.errors import DataError
from gantrain.data.pictures import Pixels
from gantrain.data.source import Source


def stack(source: Source, num_images: int = 128_000, *, seed: int = 0) -> Source:
    """Stacked MNIST and its kin: random grey images as the channels of a colour one.

    The classes are the triples of the source's (1000 of MNIST's ten), as in VEEGAN (1705.07761).
    """
    if source.labels is None:
        raise DataError("--stack: the source has no classes to make triples of")
    labels, num_classes = source.labels, len(source.classes)
    triples = np.random.default_rng(seed).integers(len(source.names), size=(num_images, 3))
    powers = np.array([num_classes**2, num_classes, 1])

    def read(index: int) -> Pixels:
        planes = [source.read(int(n)) for n in triples[index]]
        if any(plane.ndim != 2 for plane in planes):
            raise DataError("--stack: the source's images have colours; expected grey ones")
        return np.stack(planes, axis=-1)

    names = ["+".join(source.names[n] for n in triple) for triple in triples]
    classes = ["".join(c) for c in itertools.product(source.classes, repeat=3)]
    return Source(names, classes, labels[triples] @ powers, read)
