"""Servers of gRPC that only seem to be one of images; a real one is in tests/ganinfer/server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ganinfer import BackendUnavailable, RequestError
from ganinfer.open_inference import served_model

pytest.importorskip("grpc", reason="pip install 'ganpipe[serve-grpc]'")

import grpc

from ganinfer.open_inference.messages import INFERENCE_SERVICE, inference

SHAPE = (16, 16, 3)


@contextmanager
def serve(infer: Any, *, inputs: tuple[str, ...] = ("seed",), most: int | None) -> Iterator[str]:
    """A server of a model "m". infer: what it answers. most: images of a request."""

    def model(data: bytes, _: Any) -> bytes:
        answer = inference.ModelMetadataResponse()
        for name in inputs:
            answer.inputs.add(name=name, datatype="UINT64", shape=[-1])
        return bytes(answer.SerializeToString())

    def config(data: bytes, _: Any) -> bytes:
        answer = inference.ModelConfigResponse()
        answer.config.max_batch_size = most or 0
        return bytes(answer.SerializeToString())

    methods = {"ModelMetadata": model, "ModelInfer": infer}
    methods |= {} if most is None else {"ModelConfig": config}
    handlers = {name: grpc.unary_unary_rpc_method_handler(m) for name, m in methods.items()}
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(INFERENCE_SERVICE, handlers)]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def answer(name: str = "images", kind: str = "UINT8", shape: Any = (1, *SHAPE), size: int = 768):
    told = inference.ModelInferResponse()
    told.outputs.add(name="other", datatype="UINT8", shape=[3])
    told.outputs.add(name=name, datatype=kind, shape=shape)
    told.raw_output_contents.extend([b"abc", bytes(range(256)) * (size // 256)])
    return bytes(told.SerializeToString())


@pytest.mark.parametrize("most", [2, 0, None])
def test_images_come_in_as_many_requests_as_it_takes(most: int | None) -> None:
    asked: list[Any] = []

    def infer(data: bytes, _: Any) -> bytes:
        asked.append(inference.ModelInferRequest.FromString(data))
        (n,) = asked[-1].inputs[0].shape
        return answer(shape=(n, *SHAPE), size=n * 768)

    with serve(infer, most=most) as url:
        found = served_model(f"{url}/", "m", SHAPE).images([1, 2, 2**64 - 1], truncation=0.7)
    assert found.shape == (3, *SHAPE)
    assert found.tobytes() == bytes(range(256)) * 9
    seeds = b"".join(one.raw_input_contents[0] for one in asked)
    assert np.frombuffer(seeds, "<u8").tolist() == [1, 2, 2**64 - 1]
    assert [list(one.inputs[0].shape) for one in asked] == ([[2], [1]] if most else [[3]])


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (b"\xff", "an answer that is none of the protocol"),
        (b"", "an answer that has no images"),
        (answer(name="pixels"), "an answer that has no images"),
        (answer(kind="FP32"), "an answer that has no images"),
        (answer(size=256), "an answer that has no images"),
        (answer(shape=(-1, -768)), "an answer that has no images"),
        (answer(shape=(1, -1)), r"images of shape \(1, 768\), not"),
        (answer(shape=(1, 16, 48)), r"images of shape \(1, 16, 48\), not"),
        (bytes(2 << 20), "RESOURCE_EXHAUSTED"),
        (None, "model m: INTERNAL"),
    ],
)
def test_another_answer_is_told_in_words(told: bytes | None, words: str) -> None:
    with (
        serve(lambda data, _: told, most=8) as url,
        pytest.raises(BackendUnavailable, match=words),
    ):
        served_model(url, "m", SHAPE).images([1])


def test_another_model_or_nobody_there_is_told_in_words() -> None:
    with (
        serve(lambda data, _: b"", inputs=("noise",), most=8) as url,
        pytest.raises(BackendUnavailable, match="model m takes noise; expected seed"),
    ):
        served_model(url, "m", SHAPE)
    with pytest.raises(BackendUnavailable, match="UNAVAILABLE: .*is the server up"):
        served_model(url, "m", SHAPE)


@pytest.mark.parametrize("url", ["grpc://", "grpc://x", "grpc://x:port", "grpc://x:1/path"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="expected an address, as in grpc://"):
        served_model(url, "m", SHAPE)
