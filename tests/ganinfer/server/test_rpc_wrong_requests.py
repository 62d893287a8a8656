"""Wrong calls: each is refused in one line, and none is our fault."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganinfer import Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("grpc", reason="pip install 'ganpipe[serve-grpc]'")

import grpc
from google.protobuf.json_format import ParseDict
from hosting import Hosted, hosted

from ganinfer.open_inference.messages import inference
from ganinfer.server import Serving

SERVICE = "/inference.GRPCInferenceService"
SEED = {"name": "seed", "shape": [1], "datatype": "UINT64"}
ONE = b"\1" + bytes(7)  # UINT64
INVALID = "INVALID_ARGUMENT"


def of(*inputs: dict[str, Any], raw: list[bytes] | None = None, **more: Any) -> bytes:
    """A message; raw: values of its inputs, as bytes."""
    message = inference.ModelInferRequest()
    ParseDict({"model_name": "tiny", "inputs": list(inputs), **more}, message)
    message.raw_input_contents.extend(raw or [])
    return bytes(message.SerializeToString())


def seed(**changes: Any) -> bytes:
    return of({**SEED, **changes}, raw=[ONE])


def beside(name: str, datatype: str, data: bytes, shape: list[int] | None = None) -> bytes:
    given = {"name": name, "datatype": datatype, "shape": [1] if shape is None else shape}
    return of(SEED, given, raw=[ONE, data])


def asking(**more: Any) -> bytes:
    return of(SEED, raw=[ONE], **more)


# A message; its status, and words of the answer.
WRONG: list[tuple[bytes, str, str]] = [
    (b"\xff\x00\xff", INVALID, "expected a message inference.ModelInferRequest"),
    (of(SEED, raw=[ONE])[:-3], INVALID, "expected a message"),
    (b"\x0a\x01\xff", INVALID, "expected a message"),  # a name that is no UTF-8
    (b"", "NOT_FOUND", "model ''"),
    (asking(model_name="other"), "NOT_FOUND", "this serves tiny"),
    (asking(model_name="../../etc/passwd"), "NOT_FOUND", "this serves tiny"),
    (asking(model_version="2"), "NOT_FOUND", "version '2'"),
    (of(), INVALID, "either seed or z"),
    (of(SEED, SEED, raw=[ONE, ONE]), INVALID, "twice"),
    (of(SEED), INVALID, "found 0 values"),
    (of(SEED, raw=[ONE, ONE]), INVALID, "found 2 for 1 inputs"),
    (of(SEED, SEED, raw=[ONE]), INVALID, "found 1 for 2 inputs"),
    (seed(contents={"uint64_contents": [1]}), INVALID, "either contents or raw_input_contents"),
    (of({**SEED, "contents": {"int64_contents": [1]}}), INVALID, "UINT64 is in uint64_contents"),
    (of({**SEED, "contents": {"uint64_contents": [1, 2]}}), INVALID, "found 2 values"),
    (seed(name="noise"), INVALID, "found noise"),
    (seed(name="a\nb"), INVALID, "found a b"),
    (seed(datatype="COMPLEX"), INVALID, "found COMPLEX"),
    (seed(datatype="INT64"), INVALID, "expected UINT64"),
    (seed(shape=[]), INVALID, "no image"),
    (of({**SEED, "shape": [0]}, raw=[b""]), INVALID, "no image"),
    (seed(shape=[-1]), INVALID, "shape.0"),
    (seed(shape=[1] * 3), INVALID, "shape"),
    (seed(shape=[2**62, 2**62]), INVALID, "found 8 bytes"),
    (seed(shape=[1, 2]), INVALID, "found 8 bytes"),
    (seed(parameters={"shared_memory_region": {"string_param": "x"}}), INVALID, "shared memory"),
    (of({**SEED, "shape": [65]}, raw=[bytes(65 * 8)]), INVALID, "at most 64 a request"),
    (beside("label", "INT64", struct.pack("<q", 3)), INVALID, "expected 0 to 2"),
    (beside("label", "BYTES", b"\3\0\0\0cat"), INVALID, "no such class"),
    (beside("label", "BYTES", b"\1\0\0\0\xff"), INVALID, "UTF-8"),
    (beside("label", "BYTES", b"\xff\xff\xff\xff1"), INVALID, "4294967295 bytes"),
    (of({**SEED, "contents": {"uint64_contents": [1]}},
        {"name": "label", "datatype": "BYTES", "shape": [1],
         "contents": {"bytes_contents": ["/w=="]}}), INVALID, "UTF-8"),
    (beside("label", "INT64", bytes(16), [2]), INVALID, "expected [1]"),
    (beside("truncation", "FP32", bytes(4)), INVALID, "another number in FP32"),
    (beside("truncation", "FP64", struct.pack("<d", -1)), INVALID, "truncation"),
    (beside("truncation", "FP64", struct.pack("<d", float("nan"))), INVALID, "truncation"),
    (beside("z", "FP32", bytes(64), [1, 16]), INVALID, "either seed or z"),
    (of({"name": "z", "datatype": "FP32", "shape": [1, 3]}, raw=[bytes(12)]), INVALID, "z"),
    (asking(parameters={"truncation_mode": {"int64_param": 1}}), INVALID, "truncation_mode"),
    (asking(parameters={"truncation_mode": {"string_param": "no"}}), INVALID, "truncation_mode"),
    (asking(parameters={"timeout": {"double_param": 1.5}}), INVALID, "timeout"),
    (asking(parameters={"timeout": {"int64_param": -1}}), INVALID, "timeout"),
    (asking(parameters={"timeout": {"int64_param": 1}}), "DEADLINE_EXCEEDED", "deadline"),
    (asking(outputs=[{"name": "pixels"}]), INVALID, "found 'pixels'"),
    (asking(outputs=[{"name": "images"}] * 2), INVALID, "twice"),
    (asking(outputs=[{"name": "images", "parameters": {"classification": {"int64_param": 2}}}]),
     INVALID, "classes"),
    (bytes(1 << 20), "RESOURCE_EXHAUSTED", "41943"),
]  # fmt: skip


@pytest.fixture(scope="module")
def host(bundle: Path) -> Iterator[Hosted]:
    with (
        Sampler(bundle, device="cpu", batch_size=4) as sampler,
        hosted({"tiny": sampler}, Serving(max_images=64, max_body_mib=0.04), grpc=True) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def channel(host: Hosted) -> Iterator[Any]:
    with grpc.insecure_channel(host.grpc) as opened:
        yield opened


def refusal(channel: Any, data: bytes, method: str = "ModelInfer", **options: Any) -> Any:
    """The status and the words of what is not answered; "OK" of what is."""
    try:
        channel.unary_unary(f"{SERVICE}/{method}")(data, timeout=60, **options)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


@pytest.mark.parametrize(
    ("data", "status", "words"), WRONG, ids=[f"{n}-{row[2]}" for n, row in enumerate(WRONG)]
)
def test_a_wrong_request_is_told_so(channel: Any, data: bytes, status: str, words: str) -> None:
    found, told = refusal(channel, data)
    assert (found, words in told) == (status, True), told
    assert "\n" not in told
    assert len(told) <= 500


def test_a_bomb_is_no_larger_than_a_body(channel: Any) -> None:
    found, _ = refusal(channel, bytes(1 << 24), compression=grpc.Compression.Gzip)
    assert found == "RESOURCE_EXHAUSTED"


def test_other_methods_are_told_what_is_wrong(channel: Any) -> None:
    named = inference.ModelConfigRequest(name="other").SerializeToString()
    for method in ("ModelConfig", "ModelMetadata", "ModelStatistics"):
        assert refusal(channel, named, method)[0] == "NOT_FOUND"
        assert refusal(channel, b"\xff", method)[0] == INVALID
    for method in ("SystemSharedMemoryRegister", "RepositoryModelUnload", "Nothing"):
        assert refusal(channel, b"", method)[0] == "UNIMPLEMENTED"


def test_noise_is_never_our_fault_and_stops_nothing(channel: Any) -> None:
    chance = random.Random(0)
    right = asking(parameters={"timeout": {"int64_param": 0}}, id="x")
    seen = set()
    for number in range(600):
        data = bytearray(right if number % 3 else chance.randbytes(chance.randrange(200)))
        for _ in range(chance.randrange(1, 4) if number % 3 else 0):
            data[chance.randrange(len(data))] = chance.randrange(256)
        seen.add(refusal(channel, bytes(data))[0])
    assert seen <= {"OK", INVALID, "NOT_FOUND", "DEADLINE_EXCEEDED"}
    assert {INVALID, "NOT_FOUND"} <= seen
    for data, *_ in WRONG:
        refusal(channel, data)
    assert refusal(channel, right) == ("OK", "")


def test_a_stream_goes_on_after_what_is_wrong(channel: Any) -> None:
    small = [row for row in WRONG if len(row[0]) < 1000]
    right = asking(id="last")
    answers = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(
        iter([*(row[0] for row in small), right])
    )
    told = [inference.ModelStreamInferResponse.FromString(data) for data in answers]
    for answer, (_, _, words) in zip(told, small, strict=False):
        assert words in answer.error_message
        assert not answer.HasField("infer_response")
    assert len(told) == len(small) + 1
    assert told[-1].infer_response.id == "last"
    with pytest.raises(grpc.RpcError) as error:
        list(channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter([right, bytes(1 << 20)])))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
