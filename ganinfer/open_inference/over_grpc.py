"""Asks a server for images over gRPC; values go and come as bytes."""

import math
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ganinfer.drawing.images import Images
from ganinfer.errors import BackendUnavailable, RequestError
from ganinfer.open_inference.messages import INFERENCE_SERVICE, inference
from ganinfer.open_inference.over_http import LARGEST_HEADER, MOST_IMAGES, TIMEOUT_S, ServedModel

_REMEDIES = {
    grpc.StatusCode.UNAVAILABLE: "; is the server up, and this its port?",
    grpc.StatusCode.UNAUTHENTICATED: "; see --api-key-file",
}


class RpcModel(ServedModel):
    """The same as `ServedModel`, of a server at grpc://host:port."""

    def _open(self) -> None:
        parts = urlsplit(self.url)
        try:
            known = parts.hostname and parts.port
        except ValueError:
            known = None
        if not known or parts.path:
            raise RequestError(
                f"server {self.url}: expected an address, as in grpc://localhost:8001"
            )
        if self._api_key and not self._api_key.isascii():
            raise RequestError(
                f"server {self.url}: gRPC takes no API key but of ASCII; use http://"
            )
        self._address = parts.netloc
        self._metadata = [("authorization", f"Bearer {self._api_key}")] if self._api_key else []

    def _inputs(self) -> dict[str, list[int]]:
        asked = inference.ModelMetadataRequest(name=self.name)
        told = self._call("ModelMetadata", asked, inference.ModelMetadataResponse)
        return {one.name: list(one.shape) for one in told.inputs}

    def _batch_size(self) -> int:
        asked = inference.ModelConfigRequest(name=self.name)
        try:
            told = self._call("ModelConfig", asked, inference.ModelConfigResponse)
        except BackendUnavailable:  # it has no such extension of the protocol
            return MOST_IMAGES
        return min(told.config.max_batch_size, MOST_IMAGES) or MOST_IMAGES

    def _infer(self, n: int, tensors: list[tuple[str, str, NDArray[Any]]]) -> Images:
        message = inference.ModelInferRequest(model_name=self.name)
        for name, datatype, array in tensors:
            message.inputs.add(name=name, datatype=datatype, shape=self._column(n))
            message.raw_input_contents.append(array.tobytes())
        message.outputs.add(name="images")
        told = self._call(
            "ModelInfer", message, inference.ModelInferResponse, pixels=n * math.prod(self._shape)
        )
        for output, data in zip(told.outputs, told.raw_output_contents, strict=False):
            if output.name == "images" and output.datatype == "UINT8":
                try:
                    return np.frombuffer(data, np.uint8).reshape(output.shape)
                except ValueError:  # more or fewer pixels than that
                    break
        raise self._foreign("an answer that has no images")

    def _call(self, method: str, message: Any, kind: Any, *, pixels: int = 0) -> Any:
        """The answer of a method, of a class of messages."""
        options = [("grpc.max_receive_message_length", LARGEST_HEADER + pixels)]
        try:
            with grpc.insecure_channel(self._address, options=options) as channel:
                ask = channel.unary_unary(f"/{INFERENCE_SERVICE}/{method}")
                data = message.SerializeToString()
                return kind.FromString(ask(data, timeout=TIMEOUT_S, metadata=self._metadata))
        except DecodeError:
            raise self._foreign("an answer that is none of the protocol") from None
        except grpc.RpcError as error:
            code, words = error.code(), (error.details() or "")[:300]
            remedy = _REMEDIES.get(code, "")
            raise BackendUnavailable(
                f"{self.url}: model {self.name}: {code.name}: {words}{remedy}"
            ) from None
