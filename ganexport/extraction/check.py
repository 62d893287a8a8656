"""Does an extracted file draw what ganinfer draws, and make the golden images?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganexport.extraction.formats import Run
from ganinfer.backends.onnxruntime import MappingNetwork
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.golden import limits_of, pixel_failure, read_golden
from ganinfer.drawing.images import to_uint8
from ganinfer.drawing.inputs import ClassInput, class_input, draw_inputs, labels_of
from ganinfer.drawing.latents import seed_array
from ganinfer.drawing.model import Model
from ganinfer.errors import ExportError

# Where integers of a runtime may be too narrow, and some others.
SEEDS = (0, 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63, 2**64 - 1, *range(1000, 1025))


def seed_feed(
    model: Model,
    seeds: Sequence[int],
    y: NDArray[np.int64] | None = None,
    truncations: Sequence[float | None] | None = None,
) -> dict[str, NDArray[Any]]:
    """What a graph that draws is given for N seeds.

    Args:
        model: what the bundle says of it.
        seeds: integers in [0, 2**64).
        y: classes int64 (N,); by default the seeds' own.
        truncations: None, alone or in the place of one, asks for that of the training.
    """
    n, num_classes = len(seeds), len(model.classes)
    feed: dict[str, NDArray[Any]] = {"seed": seed_array(seeds).view(np.int64)}
    if num_classes:
        own: ClassInput = np.full(n, -1, np.int64)
        if model.class_input == "weights":
            own = np.zeros((n, num_classes), np.float32)
        feed["y"] = own if y is None else np.asarray(class_input(model, y))
    if model.truncation_modes:
        feed["truncation"] = np.array([t or 0.0 for t in truncations or [None] * n])
    return feed


def check_draw(model: Model, mode: str | None, run: Run) -> None:
    """Compare latents, classes and truncations with ganinfer's, bit by bit.

    Args:
        model: what the bundle says of it.
        mode: of its truncation.
        run: the graph of the draw alone.

    Raises:
        ExportError: one differs.
    """
    taken = model.truncation_input
    some = 0.7 if taken is None else (taken.least + taken.largest) / 2
    for truncation in (None, some) if mode is not None else (None,):
        own = labels_of(model, seed_array(SEEDS), None)
        expected = draw_inputs(model, SEEDS, own, truncation, mode).feed()
        found = run(seed_feed(model, SEEDS, None, [truncation] * len(SEEDS)))
        pairs = zip(found.values(), expected.values(), strict=False)  # w is not drawn
        if any(a.tobytes() != b.tobytes() for a, b in pairs):
            raise ExportError(
                "the draw does not come out right in this runtime, whose integers or floats have"
                " fewer than 64 bits; take --latents z, and draw as docs/draw.md says"
            )


def golden_feed(bundle: Bundle, latents: str) -> dict[str, NDArray[Any]]:
    """What a graph is given for the golden images; latents: see `ExtractOptions`."""
    golden, model = bundle.manifest.golden, bundle.manifest.model
    if latents == "seed":
        y = None if golden.labels is None else np.array(golden.labels)
        return seed_feed(model, golden.seeds, y, golden.truncations)
    inputs, _ = read_golden(bundle)
    if latents == "mapped":
        assert bundle.manifest.mapping is not None
        return {"w": MappingNetwork(bundle.read_onnx(bundle.manifest.mapping))(inputs)}
    feed = inputs.feed()
    return {name: feed[name] for name in feed if name not in ("w", "takes_w")}


def check_images(bundle: Bundle, precision: str, images: NDArray[Any]) -> None:
    """Compare golden images, uint8 or as `to_uint8` takes them, with the bundle's.

    Raises:
        ExportError: they are farther off than the export allowed.
    """
    _, expected = read_golden(bundle)
    if images.dtype != np.uint8:
        images = to_uint8(images).transpose(0, 2, 3, 1)
    limits = limits_of(bundle.manifest.golden, precision)
    if failure := pixel_failure(images, expected, limits):
        raise ExportError(
            f"{bundle.path}: its golden images are not made in this format: {failure}; take"
            " another --format or --precision"
        )
