from pathlib import Path

import numpy as np
import pytest

from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.errors import Closed

pytest.importorskip("openvino")
from ganinfer.backends import openvino


def test_a_run_goes_on_to_its_images_while_the_backend_is_closed(bundle: Path) -> None:
    with Bundle(bundle) as opened:
        backend = openvino.open(opened, "cpu", "fp32")
        inputs = draw_inputs(opened.manifest.model, range(3), np.arange(3))
    expected = backend.run(inputs)
    _, (request,) = backend._compiled[1]

    class Closing:
        def infer(self, *arguments, **options):
            backend.close()
            return request.infer(*arguments, **options)

    backend._compiled[1][1][:] = [Closing()]
    assert np.array_equal(backend.run(inputs), expected)
    with pytest.raises(Closed, match="closed"):
        backend.run(inputs)
