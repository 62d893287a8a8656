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
    """seed UINT64 [, label INT64 or label_name BYTES] [, truncation FP64] -> z [, y] [, psi].

    All inputs are (N, 1).
    """

    def initialize(self, _: dict[str, str]) -> None:
        """Read what the bundle says of its model."""
        text = (FOLDER / "model.json").read_text(encoding="utf-8")
        self.model: Any = json.loads(text, object_hook=lambda fields: SimpleNamespace(**fields))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request; a mistake in one of them is told to its caller alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            labels = self._labels(_column(request, "label"), _column(request, "label_name"))
            drawn = self._draw(_column(request, "seed"), labels, _column(request, "truncation"))
        except RequestError as error:
            wrong = triton.TritonError(str(error), triton.TritonError.INVALID_ARG)
            return triton.InferenceResponse(error=wrong)
        return triton.InferenceResponse([triton.Tensor(name, a) for name, a in drawn.items()])

    def _labels(self, numbers: Any, names: Any) -> Any:
        """Class numbers int64 (N,) of what a client gives; None if it leaves both out."""
        classes = self.model.classes
        if names is None:
            wrong = [] if numbers is None else numbers[(numbers < 0) | (numbers >= len(classes))]
            if len(wrong):
                raise RequestError(f"label {wrong[0]}: expected 0 to {len(classes) - 1}")
            return numbers
        if numbers is not None:
            raise RequestError("label_name: found beside label; expected one of them")
        texts = [name.decode(errors="replace") for name in names]
        for text in texts:
            if text not in classes:
                raise RequestError(f"label_name {text!r:.40}: there is no such class")
        return np.array([classes.index(text) for text in texts], np.int64)

    def _draw(self, seeds: Any, labels: Any, truncations: Any) -> dict[str, Any]:
        """Columns (N,), or None -> outputs (N, ...)."""
        if labels is None and self.model.classes:
            labels = draw_labels(seeds, len(self.model.classes))
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
