"""Stands for Triton's onnxruntime backend in `backends/onnxruntime/model.py`, on a CPU.

Triton's Python backend runs it; it is told what the real one is told, the config.pbtxt. Of a
model whose name begins with "held", it waits until there is a file `go` in its folder.
"""

import json
import time
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        file = folder / "model.onnx"
        place = file / "model.onnx" if file.is_dir() else file
        self.session = onnxruntime.InferenceSession(place, providers=["CPUExecutionProvider"])
        self.names = [tensor["name"] for tensor in config["input"]]
        self.largest = config["max_batch_size"]
        self.go = folder / "go" if args["model_name"].startswith("held") else folder

    def execute(self, requests: list) -> list:
        feeds = [
            {n: triton.get_input_tensor_by_name(r, n).as_numpy() for n in self.names}
            for r in requests
        ]
        sizes = [len(feed["z"]) for feed in feeds]
        assert sum(sizes) <= self.largest
        while not self.go.exists():
            time.sleep(0.01)
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.names}
        (images,) = self.session.run(["images"], joined)
        parts = np.split(images, np.cumsum(sizes)[:-1])
        return [triton.InferenceResponse([triton.Tensor("images", part)]) for part in parts]
