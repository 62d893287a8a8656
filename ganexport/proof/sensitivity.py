"""Which layers cannot bear a lower precision? They stay float32 until the images are good."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ganexport.graph.precision import Feed, convert, layers
from ganexport.proof.numeric import accuracy
from ganexport.proof.reference import reference_of
from ganexport.proof.rounding import LEAST_PSNR_DB, WORST_IMAGE_DB
from ganexport.subjects.subject import Subject
from ganinfer.bundle.manifest import Precision
from ganinfer.errors import ExportError
from ganinfer.progress import Progress

NUM_IMAGES = 64
_MARGIN_DB = 0.5  # the gates look at more images


@dataclass(frozen=True)
class Kept:
    """What stays float32 in a variant, and why.

    Attributes:
        layers: that a search kept, worst first, each with the PSNR in dB of the network in which
            it alone is converted.
        psnr_db: of the variant that keeps them; None if nothing was searched for.
        named: layers and nodes that the user named.
        overflowing: layers of which a part is kept because fp16 does not hold its numbers, each
            with the largest; see `ganexport.proof.overflow.Overflowing`.
        for_gates: layers, each with the gates that fail where it is converted.
    """

    layers: dict[str, float]
    psnr_db: float | None
    named: tuple[str, ...] = ()
    overflowing: Mapping[str, float | None] = field(default_factory=dict)
    for_gates: Mapping[str, str] = field(default_factory=dict)

    @property
    def anything(self) -> bool:
        """Is there something to tell?"""
        return self.psnr_db is not None or bool(self.named or self.overflowing)


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
        target_db: least PSNR on [-1, 1], peak 2, over 64 images; the gate's own, with a margin, if
            that is more.
        calibration: for int8 and fp8.
        keep: nodes that stay float32 anyway.
        progress: called with (what is being done, layers done, layers in all).

    Returns:
        The layers to keep; none if the variant is good as it is.

    Raises:
        ExportError: not even with all layers in float32.
    """
    least_of_gates = reference_of(subject).allowed.least_psnr_db(precision)
    least = max(target_db, least_of_gates + _MARGIN_DB)
    least_of_worst = LEAST_PSNR_DB[precision] - WORST_IMAGE_DB + _MARGIN_DB

    def psnr(layers_kept: list[str]) -> tuple[float, float]:
        """Of all images, and of the worst one."""
        kept = [*keep, *layers_kept]
        variant = convert(graph, precision, keep=kept, calibration=calibration)
        return accuracy(subject, variant, precision, num_images=NUM_IMAGES)

    def enough(found: tuple[float, float]) -> bool:
        return found[0] >= least and found[1] >= least_of_worst

    found = psnr([])
    if enough(found):
        return Kept({}, found[0])
    names = layers(graph)
    alone = {}
    for number, name in enumerate(names):
        alone[name], _ = psnr([other for other in names if other != name])
        if progress:
            progress(f"sensitivity in {precision}", number + 1, len(names))
    order = sorted(names, key=lambda name: alone[name])
    added: list[str] = []
    for name in order:
        added.append(name)
        found = psnr(added)
        if enough(found):
            return Kept({name: alone[name] for name in added}, found[0])
    raise ExportError(
        f"{precision}: {found[0]:.1f} dB with every layer in fp32, and {least:g} are asked for;"
        f" leave {precision} out"
    )
