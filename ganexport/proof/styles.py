"""Does a generator that takes styles make of them what torch makes of them?

Styles come from the mapping network that ships, cut out of the float32 graph. Every other image
gets those of its own seed, and must be the image that torch makes of the seed: so mapping and
synthesis together are the whole network. The others get styles of two seeds, and must be torch's
image of these.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ganexport.proof.numeric import probes, run_backend, run_torch, runnable
from ganexport.subjects.subject import Subject
from ganinfer.backends._base import Backend
from ganinfer.backends.onnxruntime import MappingNetwork, OnnxRuntimeBackend
from ganinfer.bundle.golden import PIXEL_GATES, golden_failure, pixel_differences
from ganinfer.bundle.manifest import GateResult, Precision, gate_result
from ganinfer.drawing.images import to_uint8

NUM_IMAGES = 32


def style_gates(
    subject: Subject, mapping: bytes, graphs: Mapping[Precision, bytes]
) -> list[GateResult]:
    """The gate of every variant, as onnxruntime runs it on the CPU; see `style_gate`."""
    gates = []
    for precision, graph in graphs.items():
        graph, artifact = runnable(graph, precision)
        backend = OnnxRuntimeBackend(graph, "cpu", precision)
        gates.append(style_gate(subject, mapping, backend, artifact))
    return gates


def style_gate(subject: Subject, mapping: bytes, backend: Backend, artifact: str) -> GateResult:
    """Compare a backend's images of styles with torch's, by the limits of its precision.

    Args:
        subject: the reference, which takes styles.
        mapping: ONNX file, z [, y] [, truncation] -> w.
        backend: what ships. artifact: its name in the result.
    """
    inputs, _ = probes(subject, NUM_IMAGES)
    w = MappingNetwork(mapping)(inputs)
    mixed = w.copy()
    for n in range(1, NUM_IMAGES, 2):
        place = n // 2 % (w.shape[1] + 1)
        mixed[n, place:] = w[n - 1, place:]
    given = np.ones(NUM_IMAGES, np.float32)
    of_styles = dataclasses.replace(inputs, w=mixed, takes_w=given)
    in_torch = dataclasses.replace(of_styles, takes_w=(np.arange(NUM_IMAGES) % 2).astype("float32"))
    expected = to_uint8(run_torch(subject, in_torch)).transpose(0, 2, 3, 1)
    found = run_backend(backend, of_styles)
    failure = golden_failure(found, expected, backend.precision)
    steps, _, _ = pixel_differences(found, expected)
    return gate_result(
        artifact,
        "styles, max uint8 step",
        steps,
        f"<= {PIXEL_GATES[backend.precision].max_steps}",
        failure is None,
        failure or "",
        num_images=NUM_IMAGES,
    )
