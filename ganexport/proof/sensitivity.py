"""Which layers cannot bear a lower precision? They stay float32 until the images are good."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from ganexport.graph.precision import Feed, convert, layers
from ganexport.proof.numeric import numeric_psnr
from ganexport.subjects.subject import Subject
from ganinfer.bundle.manifest import Precision
from ganinfer.errors import ExportError
from ganinfer.progress import Progress

NUM_IMAGES = 64


@dataclass(frozen=True)
class Kept:
    """What stays float32 in a variant, and why.

    Attributes:
        layers: that a search kept, worst first, each with the PSNR in dB of the network in which
            it alone is converted.
        psnr_db: of the variant that keeps them; None if nothing was searched for.
        overflowing: layers of which a part is kept because fp16 does not hold its numbers, each
            with the largest; see `ganexport.proof.overflow.Overflowing`.
    """

    layers: dict[str, float]
    psnr_db: float | None
    overflowing: Mapping[str, float | None] = field(default_factory=dict)


def keep_worst_layers(
    subject: Subject,
    graph: bytes,
    precision: Precision,
    target_db: float,
    *,
    calibration: Feed,
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> Kept:
    """Keep the most sensitive layers in float32 until the target is met.

    Args:
        subject: the reference.
        graph: its float32 ONNX file.
        precision: of the variant.
        target_db: least PSNR on [-1, 1], peak 2, over 64 images.
        calibration: for int8 and fp8.
        keep: nodes that stay float32 anyway.
        progress: called with (what is being done, layers done, layers in all).

    Returns:
        The layers to keep; none if the variant is good as it is.

    Raises:
        ExportError: not even with all layers in float32.
    """

    def psnr(layers_kept: list[str]) -> float:
        kept = [*keep, *layers_kept]
        variant = convert(graph, precision, keep=kept, calibration=calibration)
        return numeric_psnr(subject, variant, precision, num_images=NUM_IMAGES)

    found = psnr([])
    if found >= target_db:
        return Kept({}, found)
    names = layers(graph)
    alone = {}
    for number, name in enumerate(names):
        alone[name] = psnr([other for other in names if other != name])
        if progress:
            progress(f"sensitivity in {precision}", number + 1, len(names))
    order = sorted(names, key=lambda name: alone[name])
    added: list[str] = []
    for name in order:
        added.append(name)
        found = psnr(added)
        if found >= target_db:
            return Kept({name: alone[name] for name in added}, found)
    best = float(np.round(found, 1))
    raise ExportError(
        f"{precision}: {best} dB with every layer in fp32, {target_db:g} were asked for; leave"
        f" {precision} out, or ask for less"
    )
