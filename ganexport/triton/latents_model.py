"""NAME_latents, which Triton's Python backend runs: seeds become what the generator takes.

`gan triton` copies this file, with those of ganinfer that it imports, into the repository. It needs
Python 3.10 and NumPy.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))  # the copies before whatever is installed

from ganinfer.drawing.inputs import draw_inputs  # noqa: E402
from ganinfer.drawing.latents import draw_labels  # noqa: E402
from ganinfer.errors import RequestError  # noqa: E402


class TritonPythonModel:
    """seed UINT64 (N, 1) [, label INT64 (N, 1)] [, truncation FP64 (N, 1)] -> z [, y] [, psi]."""

    def initialize(self, _: dict[str, str]) -> None:
        """Read what the bundle says of its model."""
        text = (FOLDER / "model.json").read_text(encoding="utf-8")
        self.model: Any = json.loads(text, object_hook=lambda fields: SimpleNamespace(**fields))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; a mistake in one of them is told to its caller alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            drawn = self._draw(*(_column(request, n) for n in ("seed", "label", "truncation")))
        except RequestError as error:
            wrong = triton.TritonError(str(error), triton.TritonError.INVALID_ARG)
            return triton.InferenceResponse(error=wrong)
        return triton.InferenceResponse([triton.Tensor(name, a) for name, a in drawn.items()])

    def _draw(self, seeds: Any, labels: Any, truncations: Any) -> dict[str, Any]:
        """Columns (N,), or None -> outputs (N, ...)."""
        num_classes = len(self.model.classes)
        if labels is None and num_classes:
            labels = draw_labels(seeds, num_classes)
        elif labels is not None and not (labels.min() >= 0 and labels.max() < num_classes):
            wrong = labels[(labels < 0) | (labels >= num_classes)][0]
            raise RequestError(f"label {wrong}: expected 0 to {num_classes - 1}")
        if truncations is None:
            return _outputs(draw_inputs(self.model, seeds, labels).feed())
        drawn: dict[str, Any] = {}
        values, which = np.unique(truncations, return_inverse=True)
        for number, value in enumerate(values):
            rows = which == number
            y = None if labels is None else labels[rows]
            part = draw_inputs(self.model, seeds[rows], y, float(value)).feed()
            for name, array in part.items():
                shape = (len(seeds), *array.shape[1:])
                drawn.setdefault(name, np.empty(shape, array.dtype))[rows] = array
        return _outputs(drawn)


def _column(request: Any, name: str) -> Any:
    """An input (N, 1) as (N,); None if it is left out."""
    tensor = triton.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()[:, 0]


def _outputs(drawn: dict[str, Any]) -> dict[str, Any]:
    """What the generator takes, by the names of outputs; each has an axis beside the batch's."""
    names = {"truncation": "psi"}
    return {
        names.get(name, name): array[:, None] if array.ndim == 1 else array
        for name, array in drawn.items()
    }
