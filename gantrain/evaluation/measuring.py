"""Images, whoever made them, as the metrics and the extractor see them, beside the real ones."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from ganinfer.errors import DataError
from ganinfer.progress import Progress
from gantrain.evaluation.pictures import Pictures
from gantrain.extractors._base import Extractor
from gantrain.metrics._classes import renumbered
from gantrain.metrics._measured import (
    SEEN,
    Batch,
    Labels,
    Measured,
    MeasuredSource,
    Source,
    measure_once,
)
from gantrain.metrics._reference import Reference

COLUMNS = ("images", *SEEN)


def measure_images(
    images: Iterable[Batch] | Source,
    reference: Reference,
    needs: Sequence[str],
    *,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Measured:
    """See in images, and in the real ones, what metrics need; arguments as in `score_images`.

    Raises:
        DataError: images or classes that are not like the dataset's.
    """
    fake = _measured(images, reference, needs, progress)
    fake.labels = _by_name(fake.labels, classes, reference, needed="labels" in needs)
    columns = [need for need in needs if need in COLUMNS]
    fake.need(*columns)
    if reference.has_images:
        reference.real.need(*columns)
        reference.training.need(*columns)
    return fake


def to_be_seen(images: Source, reference: Reference, needs: Sequence[str]) -> list[MeasuredSource]:
    """What `measure_images` looks at, chunk by chunk: these images, and the reference's.

    Raises:
        DataError: images that are not like the dataset's.
    """
    found = [_measured(images, reference, needs, None)]
    if reference.has_images:
        found += [reference.real, reference.training]
    return [one for one in dict.fromkeys(found) if isinstance(one, MeasuredSource)]


def _measured(
    images: Iterable[Batch] | Source,
    reference: Reference,
    needs: Sequence[str],
    progress: Progress | None,
) -> Measured:
    """The images, seen as far as they come only once."""

    def extractor() -> Extractor:
        return reference.extractor

    one_size = not reference.any_size or "images" in needs
    columns = [column for column in needs if column in COLUMNS]
    if isinstance(images, Iterable):
        checked = ((_checked(batch, reference, one_size), labels) for batch, labels in images)
        return measure_once(checked, extractor, *columns)
    if isinstance(images, Pictures) and reference.is_prepared and one_size:
        images = images.of_shape(reference.dataset.images.shape[1:])
    for image in images.read(range(1)):
        _checked(image[None], reference, one_size)
    return MeasuredSource(
        images,
        extractor,
        cache=reference.cache,
        device=reference.device,
        progress=partial(progress, "generating") if progress else None,
    )


def _checked(images: NDArray[Any], reference: Reference, one_size: bool) -> NDArray[Any]:
    """The images, if the dataset's are of the same kind."""
    if not reference.is_prepared:
        return images
    dataset = reference.dataset
    dtype, expected = dataset.images.dtype, dataset.images.shape[1:]
    if images.dtype != dtype or (one_size and images.shape[1:] != expected):
        raise DataError(
            f"images {images.dtype} {images.shape}: the dataset {dataset.path} has"
            f" {dtype} (N, {', '.join(map(str, expected))}); give --data of that shape, or an"
            " --extractor that takes any, such as inception"
        )
    return images


def _by_name(
    labels: Labels, classes: Sequence[str] | None, reference: Reference, *, needed: bool
) -> Labels:
    """Labels as numbers of the real images' classes; None if they are others, and not needed.

    Raises:
        DataError: they are others, and needed.
    """
    if labels is None or classes is None or not reference.has_images:
        return labels
    try:
        return renumbered(labels, classes, reference.classes)
    except DataError:
        if needed:
            raise
        return None
