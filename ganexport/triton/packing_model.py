"""NAME_packing, which Triton's Python backend runs: images become PNG files.

`gan triton` copies this file, with those of ganinfer that it imports, into the repository. It needs
Python 3.10 and NumPy.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

sys.path.insert(0, str(Path(__file__).parent))  # the copies before whatever is installed

from ganinfer.drawing.images import encode_pngs


class TritonPythonModel:
    """images UINT8 (N, H, W, C) -> png BYTES (N, 1)."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        images = triton.get_input_tensor_by_name(request, "images").as_numpy()
        files = np.array(encode_pngs(images), np.object_).reshape(-1, 1)
        return triton.InferenceResponse([triton.Tensor("png", files)])
