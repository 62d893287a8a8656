"""Does every class of many give the network's own images?

The other gates look at 512 images, and at few of a network that takes long: of a thousand classes
most are not among them, and two that are swapped would pass.
"""

import numpy as np

from ganexport.proof.numeric import run_backend
from ganexport.proof.reference import drawn_by_torch, operations, reference_of
from ganexport.proof.rounding import uint8_images
from ganexport.subjects.subject import Subject
from ganinfer.backends._base import Backend
from ganinfer.bundle.manifest import GateResult, gate_result
from ganinfer.drawing.inputs import draw_inputs

GATE = "other classes, max uint8 step"
_OPERATIONS = 2e13  # some minutes on two cores


def class_gate(subject: Subject, backend: Backend, artifact: str) -> GateResult | None:
    """Compare an image of each class that `reference_of` has none of with torch's in float32.

    Of a network that takes long, of as many classes as can be, spread over all; the result says so.

    Args:
        subject: the reference.
        backend: what ships, in fp32: its class tables are those of every precision.
        artifact: its name in the result.

    Returns:
        None if there are no such classes.
    """
    reference = reference_of(subject)
    seen = reference.inputs.labels
    if seen is None or len(left := np.setdiff1d(np.arange(subject.num_classes), seen)) == 0:
        return None
    step = -(-len(left) // max(1, int(_OPERATIONS / operations(subject))))
    y = left[::step]
    inputs = draw_inputs(subject.model, [int(k) for k in y], y)
    expected = uint8_images(drawn_by_torch(subject, inputs))
    found = run_backend(subject, backend, inputs)
    largest = np.abs(found.astype(np.int16) - expected).max(axis=(1, 2, 3))
    worst = int(largest.argmax())
    steps, limit = int(largest[worst]), reference.allowed.pixels("fp32").max_steps
    assert limit is not None
    details = [f"class {subject.model.classes[y[worst]]}"] if steps > limit else []
    if step > 1:
        details.append(f"{len(y)} of {len(left)} classes that the other gates do not look at")
    return gate_result(
        artifact, GATE, steps, f"<= {limit}", steps <= limit, "; ".join(details), num_images=len(y)
    )
