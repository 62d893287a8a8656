"""What a classifier, an ONNX file, is sure of: the image's class, or of a model without, any.

Input, one:    float (N, C, H, W) in [-1, 1], or uint8 (N, H, W, C)
Output, first: float (N, K), of the model's classes in their order: probabilities or logits

Whether these are logits is found out of eight images, by whether each image's numbers lie in [0, 1]
and sum to 1.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends.onnxruntime import ForeignNetwork
from ganinfer.bundle.onnx_wire import external_data
from ganinfer.drawing.images import Images
from ganinfer.errors import RequestError
from ganinfer.filters import Filter
from ganinfer.formats import Batch
from ganinfer.sampler import Sampler

_PROBES = 8  # images that show what the outputs are
_ROUNDING = 1e-3

Floats = NDArray[np.float64]


def open(sampler: Sampler, *, least: float | None = None, classifier: Path | None = None) -> Filter:
    """Load the classifier.

    Args:
        sampler: whose images it looks at.
        least: probability that an image is kept from.
        classifier: the file.

    Raises:
        RequestError: one of these is missing, or the classifier does not fit the model.
        BackendUnavailable: onnxruntime is not installed, or refuses the file.
    """
    if least is None or not 0 < least <= 1:
        raise RequestError(
            f"keep classifier: found the confidence {least}; expected one above 0, up to 1, as in"
            " 'classifier>=0.9', in quotes, for > is the shell's"
        )
    if classifier is None:
        raise RequestError("keep classifier: of which classifier? name its ONNX file: --classifier")
    see = _Classifier(classifier, sampler)
    probes = see(sampler.sample(_PROBES))
    sums = np.abs(probes.sum(1) - 1)
    logits = probes.min() < 0 or probes.max() > 1 + _ROUNDING or sums.max() > _ROUNDING

    def keeps(batch: Batch) -> NDArray[np.bool_]:
        scores = see(batch.images)
        probabilities = _softmax(scores) if logits else scores
        of_class = probabilities.max(1)
        if batch.labels is not None:
            of_class = np.take_along_axis(probabilities, batch.labels[:, None], 1)[:, 0]
        sure: NDArray[np.bool_] = of_class >= least
        return sure

    read_as = "logits, through softmax" if logits else "probabilities"
    return Filter(f"confidence of {classifier.name} ({read_as}) of {least:g} or more", keeps)


class _Classifier:
    """uint8 (N, H, W, C) -> float64 (N, K), as the file gives them."""

    def __init__(self, path: Path, sampler: Sampler) -> None:
        self._path, self._classes = path, sampler.classes
        self._network = ForeignNetwork(_whole(path))
        height, width, channels = sampler.shape
        forms = {
            "tensor(float)": (channels, height, width),
            "tensor(uint8)": (height, width, channels),
        }
        inputs = self._network.inputs
        if len(inputs) != 1 or not _fits(inputs[0][1], forms.get(inputs[0][0])):
            found = " and ".join(f"{kind} {shape}" for kind, shape in inputs)
            expected = " or ".join(f"{kind} {['N', *form]}" for kind, form in forms.items())
            raise RequestError(f"classifier {path}: takes {found}; expected one input, {expected}")
        self._takes_bytes = inputs[0][0] == "tensor(uint8)"

    def __call__(self, images: Images) -> Floats:
        if self._takes_bytes:
            scores = self._network(images)
        else:
            floats = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
            scores = self._network(floats)
        num_classes = len(self._classes) or scores.shape[-1]
        if scores.shape != (len(images), num_classes):
            named = f", one for each of {', '.join(self._classes)}" if self._classes else ""
            raise RequestError(
                f"classifier {self._path}: gives {scores.shape} of {len(images)} images; expected"
                f" ({len(images)}, {num_classes}){named}"
            )
        return scores.astype(np.float64)


def _whole(path: Path) -> bytes:
    """An ONNX file that is all of the network, so that its sha256 says what it is."""
    try:
        graph = path.read_bytes()
        outside = external_data(graph)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"is no ONNX file ({error})"
        raise RequestError(f"classifier {path}: {reason}; give an ONNX file") from None
    if outside:
        raise RequestError(
            f"classifier {path}: has its weights in {outside[0].location}; expected one file:"
            " export it again with external_data=False"
        )
    return graph


def _fits(shape: list[int | str | None], form: tuple[int, int, int] | None) -> bool:
    """Does an input take batches of any size, of images of this form?"""
    if form is None or len(shape) != 4 or isinstance(shape[0], int):
        return False
    pairs = zip(shape[1:], form, strict=True)
    return all(side == wanted or not isinstance(side, int) for side, wanted in pairs)


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    shares: Floats = raised / raised.sum(1, keepdims=True)
    return shares
