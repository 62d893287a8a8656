"""Any feature network in a file: ONNX, or TorchScript."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganinfer.errors import DataError, DataNotFound, missing_extra
from ganinfer.files import sha256_file
from ganinfer.host.telemetry import quiet_onnxruntime
from gantrain.extractors._base import Seen

_INPUT = "uint8 or float32 (N, C, H, W) on [0, 255]"


def open_module(path: Path, *, device: torch.device) -> "OnnxModule | TorchScriptModule":
    """Open a network that takes images and gives features.

    Args:
        path: .onnx or .pt. It takes one input, uint8 or float32 (N, C, H, W) on [0, 255], C = 3 for
            grey images too unless it wants one channel, and gives features (N, F), and then,
            if it likes, logits (N, K).
        device: where it runs.

    Raises:
        DataError: the file is missing, broken, or another kind of network.
    """
    if not path.exists():
        raise DataNotFound(f"{path}: no such file; expected a feature network, ONNX or TorchScript")
    return OnnxModule(path, device) if path.suffix == ".onnx" else TorchScriptModule(path, device)


class OnnxModule:
    """A network that onnxruntime runs."""

    resizer = "the network's own"
    sees_classes = False

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            quiet_onnxruntime()
            import onnxruntime
        except ModuleNotFoundError as error:
            raise missing_extra("onnxruntime", error) from None
        providers = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        available = [p for p in providers if p in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), providers=[*available, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise DataError(f"{path}: no ONNX network that onnxruntime runs ({error})") from None
        inputs = self._session.get_inputs()
        types = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in types:
            found = [(i.name, i.type, i.shape) for i in inputs]
            raise DataError(f"{path}: its inputs are {found}; expected one, {_INPUT}")
        self._name, self._dtype = inputs[0].name, types[inputs[0].type]
        self._takes = inputs[0].shape[1:]
        self.device, self._path = device, path
        self.name, self.key = path.name, f"onnx {sha256_file(path)} {available}"

    def __call__(self, images: Tensor) -> Seen:
        """float32 (N, C, H, W) on [0, 255] -> Seen."""
        if self._takes[0] != 1 and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        found = images.shape[1:]
        if any(isinstance(n, int) and n != m for n, m in zip(self._takes, found, strict=True)):
            raise DataError(
                f"{self._path}: takes images (C, H, W) = {tuple(self._takes)}, and these are"
                f" {tuple(found)}; give --extractor a network that takes them"
            )
        array = images.cpu().numpy()
        if self._dtype is np.uint8:
            array = np.rint(array).astype(np.uint8)
        try:
            outputs = self._session.run(None, {self._name: array})
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise DataError(f"{self._path}: {error}") from None
        given = [torch.from_numpy(output).float().to(self.device) for output in outputs]
        return _seen(given, len(images), self._path)


class TorchScriptModule:
    """A network that torch.jit saved; loading it runs no Python code."""

    resizer = "the network's own"
    sees_classes = False

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it is the file's format
                loaded = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise DataError(
                f"{path}: no TorchScript network ({first}); torch.jit.script(...).save makes one"
            ) from None
        self._network = loaded.eval()
        self.device, self._path = device, path
        self.name, self.key = path.name, f"torchscript {sha256_file(path)} {device.type}"

    def __call__(self, images: Tensor) -> Seen:
        """float32 (N, C, H, W) on [0, 255] -> Seen."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        try:
            outputs = self._network(images)
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1]
            raise DataError(
                f"{self._path}: cannot take float32 {tuple(images.shape)} on [0, 255] ({last})"
            ) from None
        found = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
        return _seen([output.float() for output in found], len(images), self._path)


def _seen(outputs: list[Tensor], num_images: int, path: Path) -> Seen:
    """Features, and logits if there is a second output."""
    shapes = [tuple(output.shape) for output in outputs]
    if not 1 <= len(shapes) <= 2 or any(len(s) != 2 or s[0] != num_images for s in shapes):
        raise DataError(
            f"{path}: gives {shapes} for {num_images} images; expected features (N, F), or features"
            " and logits (N, K)"
        )
    return Seen(outputs[0], outputs[1] if len(outputs) == 2 else None)
