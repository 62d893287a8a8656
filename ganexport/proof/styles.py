"""Does a generator that takes styles make of them what torch makes of them?

Styles come from the mapping network that ships, cut out of the float32 graph. Every other image
gets those of its own seed, and must be the image that torch makes of the seed: so mapping and
synthesis together are the whole network. The others get styles of two seeds, and must be torch's
image of these.
"""

import dataclasses
from functools import lru_cache

import numpy as np

from ganexport.proof.numeric import run_backend, runnable
from ganexport.proof.reference import drawn_by_torch, num_probes, probes, reference_of
from ganexport.proof.rounding import uint8_images
from ganexport.subjects.subject import Subject
from ganinfer.backends._base import Backend
from ganinfer.backends.onnxruntime import MappingNetwork, OnnxRuntimeBackend
from ganinfer.bundle.golden import pixel_differences, pixel_failure
from ganinfer.bundle.manifest import GateResult, Precision, gate_result
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs

NUM_IMAGES = 32


def style_gate_of_graph(
    subject: Subject, mapping: bytes, graph: bytes, precision: Precision
) -> GateResult:
    """The gate of a variant, as onnxruntime runs it on the CPU; see `style_gate`."""
    graph, artifact = runnable(graph, precision)
    return style_gate(subject, mapping, OnnxRuntimeBackend(graph, "cpu", precision), artifact)


def style_gate(subject: Subject, mapping: bytes, backend: Backend, artifact: str) -> GateResult:
    """Compare a backend's images of styles with torch's, by the limits of its precision.

    Args:
        subject: the reference, which takes styles.
        mapping: ONNX file, z [, y] [, truncation] -> w.
        backend: what ships. artifact: its name in the result.
    """
    inputs, expected = _expected(subject, mapping)
    found = run_backend(subject, backend, inputs)
    precision: Precision = backend.precision  # type: ignore[assignment]
    limits = reference_of(subject).allowed.pixels(precision)
    failure = pixel_failure(found, expected, limits)
    steps, _, psnr = pixel_differences(found, expected)
    by_steps = limits.max_steps is not None
    return gate_result(
        artifact,
        "styles, max uint8 step" if by_steps else "styles, uint8, dB",
        steps if by_steps else psnr,
        f"<= {limits.max_steps}" if by_steps else f">= {limits.min_psnr_db:.3g}",
        failure is None,
        failure or "",
        num_images=len(expected),
    )


@lru_cache(maxsize=1)
def _expected(subject: Subject, mapping: bytes) -> tuple[Inputs, Images]:
    """What a backend is given, and the images that torch makes; the same in every precision."""
    count = min(NUM_IMAGES, num_probes(subject) // 2)
    inputs, _ = probes(subject, count)
    w = MappingNetwork(mapping)(inputs)
    mixed = w.copy()
    for n in range(1, count, 2):
        place = n // 2 % (w.shape[1] + 1)
        mixed[n, place:] = w[n - 1, place:]
    of_styles = dataclasses.replace(inputs, w=mixed, takes_w=np.ones(count, np.float32))
    in_torch = dataclasses.replace(of_styles, takes_w=(np.arange(count) % 2).astype("float32"))
    return of_styles, uint8_images(drawn_by_torch(subject, in_torch))
