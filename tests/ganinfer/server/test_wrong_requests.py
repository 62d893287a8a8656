"""Wrong requests: each is answered 4xx in one line, and none is our fault."""

import gzip
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganinfer import Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import INFER, Host, hosted

from ganinfer.server import Serving

IMAGES = "/v1/images/generations"
BINARY = {"binary_data_output": True}
SEED = {"name": "seed", "shape": [1], "datatype": "UINT64", "data": [1]}


def of(*inputs: object, **more: object) -> dict[str, object]:
    return {"inputs": list(inputs), **more}


def seed(**changes: object) -> dict[str, object]:
    return of({key: value for key, value in {**SEED, **changes}.items() if value is not None})


def beside(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> Any:
    shape = [len(data)] if shape is None else shape
    return of(SEED, {"name": name, "datatype": datatype, "shape": shape, "data": data})


def binary(kind: str, size: object, data: bytes, shape: list[int]) -> tuple[bytes, dict[str, str]]:
    given = {"name": "seed" if kind == "UINT64" else "label", "datatype": kind, "shape": shape}
    inputs = [{**given, "parameters": {"binary_data_size": size}}]
    inputs += [SEED] if kind != "UINT64" else []
    head = json.dumps({"inputs": inputs}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


# Path, body, headers; the status, and words of the answer.
WRONG: list[tuple[str, Any, dict[str, str], int, str]] = [
    (INFER, b"", {}, 400, "body"),
    (INFER, b"{", {}, 400, "body"),
    (INFER, b"[]", {}, 400, "body"),
    (INFER, b"\xff\xfe", {}, 400, "body"),
    (INFER, b"[" * 30_000, {}, 400, "body"),
    (INFER, {}, {}, 400, "inputs"),
    (INFER, {"inputs": 3}, {}, 400, "inputs"),
    (INFER, of(), {}, 400, "either seed or z"),
    (INFER, of(SEED, SEED), {}, 400, "twice"),
    (INFER, beside("noise", "FP32", [1]), {}, 400, "found noise"),
    (INFER, beside("a\nb" * 999, "FP32", [1]), {}, 400, "found a ba b"),
    (INFER, beside("a\nb", "COMPLEX", [1]), {}, 400, "a b: found COMPLEX"),
    (INFER, of(SEED, id=7), {}, 400, "id"),
    (INFER, seed(shape=[2]), {}, 400, "found 1 values"),
    (INFER, seed(shape=[-1]), {}, 400, "inputs.0.shape"),
    (INFER, seed(shape=[1, 1, 1]), {}, 400, "inputs.0.shape"),
    (INFER, seed(shape=[1, 2], data=[1, 2]), {}, 400, "shape"),
    (INFER, seed(shape=[], data=[1]), {}, 400, "no image"),
    (INFER, seed(shape=[0], data=[]), {}, 400, "no image"),
    (INFER, seed(data=None), {}, 400, "either data or binary_data_size"),
    (INFER, seed(data=[-1]), {}, 400, "found -1"),
    (INFER, seed(data=[2**64]), {}, 400, "ends at"),
    (INFER, seed(data=["x"]), {}, 400, "expected an integer"),
    (INFER, seed(data=[1.5]), {}, 400, "expected an integer"),
    (INFER, seed(data=[True]), {}, 400, "expected an integer"),
    (INFER, seed(data=[None]), {}, 400, "expected an integer"),
    (INFER, seed(data=[[[1]]]), {}, 400, "expected an integer"),
    (INFER, seed(datatype="INT64"), {}, 400, "expected UINT64"),
    (INFER, seed(datatype="COMPLEX"), {}, 400, "found COMPLEX"),
    (INFER, seed(parameters={"shared_memory_region": "x"}), {}, 400, "shared memory"),
    (INFER, {**seed(shape=[65], data=list(range(65))), "parameters": BINARY}, {}, 413,
     "at most 64"),
    (INFER, seed(shape=[64], data=list(range(64))), {}, 413, "binary_data"),
    (INFER, beside("label", "INT64", [3]), {}, 422, "expected 0 to 2"),
    (INFER, beside("label", "BYTES", ["cat"]), {}, 422, "no such class"),
    (INFER, beside("label", "BYTES", [1]), {}, 400, "expected texts"),
    (INFER, beside("label", "INT64", [0, 1]), {}, 400, "expected [1]"),
    (INFER, beside("truncation", "FP32", [0.7]), {}, 400, "another number in FP32"),
    (INFER, beside("truncation", "FP64", [0.5, 0.7]), {}, 400, "one a request"),
    (INFER, beside("truncation", "FP64", [-1.0]), {}, 422, "truncation"),
    (INFER, b'{"inputs":[%b,{"name":"truncation","datatype":"FP64","shape":[1],"data":[NaN]}]}'
     % json.dumps(SEED).encode(), {}, 400, "finite"),
    (INFER, beside("truncation", "FP64", [10**400]), {}, 400, "finite"),
    (INFER, beside("z", "FP32", [0.0] * 16, [1, 16]), {}, 400, "either seed or z"),
    (INFER, of({"name": "z", "datatype": "FP32", "shape": [1, 3], "data": [0.0] * 3}), {}, 422,
     "z"),
    (INFER, of({"name": "z", "datatype": "FP32", "shape": [1, 16], "data": [1e300] * 16}), {}, 422,
     "expected"),
    (INFER, of(SEED, parameters={"truncation_mode": 1}), {}, 400, "truncation_mode"),
    (INFER, of(SEED, parameters={"truncation_mode": "none"}), {}, 422, "truncation_mode"),
    (INFER, of(SEED, parameters={"timeout": "soon"}), {}, 400, "timeout"),
    (INFER, of(SEED, parameters={"timeout": -1}), {}, 400, "timeout"),
    (INFER, of(SEED, parameters={"timeout": 1.5}), {}, 400, "timeout"),
    (INFER, of(SEED, parameters={"binary_data_output": 2}), {}, 400, "true or false"),
    (INFER, of(SEED, outputs=[{"name": "pixels"}]), {}, 400, "found 'pixels'"),
    (INFER, of(SEED, outputs=[{"name": "images"}] * 2), {}, 400, "twice"),
    (INFER, of(SEED, outputs=[{"name": "png"}]), {}, 400, "binary_data"),
    (INFER, of(SEED, outputs=[{"name": "images", "parameters": {"classification": 2}}]), {}, 400,
     "classes"),
    (INFER, *binary("UINT64", 8, b"1234", [1]), 400, "4 bytes"),
    (INFER, *binary("UINT64", 4, b"1234", [1]), 400, "UINT64 [1] has 8"),
    (INFER, *binary("UINT64", 8, b"123456789", [1]), 400, "belong to no input"),
    (INFER, *binary("UINT64", -8, b"", [1]), 400, "binary_data_size"),
    (INFER, *binary("UINT64", "8", b"12345678", [1]), 400, "binary_data_size"),
    (INFER, *binary("UINT64", 8, b"12345678", [10**15, 10**15]), 400, "found 8 bytes"),
    (INFER, *binary("BYTES", 3, b"123", [1]), 400, "no length"),
    (INFER, *binary("BYTES", 5, struct.pack("<I", 9) + b"x", [1]), 400, "9 bytes"),
    (INFER, *binary("BYTES", 5, struct.pack("<I", 1) + b"\xff", [1]), 400, "UTF-8"),
    (INFER, *binary("BYTES", 5, struct.pack("<I", 1) + b"1", [2]), 400, "found 1 values"),
    (INFER, of(SEED), {"Inference-Header-Content-Length": "9999"}, 400, "found 9999"),
    (INFER, of(SEED), {"Inference-Header-Content-Length": "-1"}, 400, "a number of bytes"),
    (INFER, of(SEED), {"Content-Encoding": "gzip"}, 400, "Content-Encoding"),
    (INFER, gzip.compress(b"{}")[:-4], {"Content-Encoding": "gzip"}, 400, "too early"),
    (INFER, gzip.compress(b"{}") + b"x", {"Content-Encoding": "gzip"}, 400, "too late"),
    (INFER, of(SEED), {"Content-Encoding": "br"}, 415, "expected gzip or deflate"),
    (INFER, b" " * (1 << 20) + b"{}", {}, 413, "at most 41943 bytes"),
    (INFER, gzip.compress(b" " * (1 << 24)), {"Content-Encoding": "gzip"}, 413, "at most 41943"),
    ("/v2/models/other/infer", of(SEED), {}, 404, "this serves tiny"),
    ("/v2/models/tiny/versions/2/infer", of(SEED), {}, 404, "version '2'"),
    ("/v2/models/tiny", {}, {}, 405, "Method Not Allowed"),
    ("/v2/repository/models/tiny/unload", {}, {}, 404, "Not Found"),
    (IMAGES, {}, {}, 400, "prompt"),
    (IMAGES, {"prompt": "cat"}, {}, 422, "no such class"),
    (IMAGES, {"prompt": "1", "n": 0}, {}, 400, "n:"),
    (IMAGES, {"prompt": "1", "n": 65}, {}, 413, "at most 64"),
    (IMAGES, {"prompt": "1", "size": "1024x1024"}, {}, 400, "draws 16x16"),
    (IMAGES, {"prompt": "1", "model": "dall-e-3"}, {}, 404, "this serves tiny"),
    (IMAGES, {"prompt": "1", "seed": -1}, {}, 422, "seed"),
    (IMAGES, {"prompt": "1", "seed": "one"}, {}, 400, "seed"),
    (IMAGES, {"prompt": "1", "response_format": "tiff"}, {}, 400, "response_format"),
]  # fmt: skip

# Paths that are only asked for.
NOT_THERE: list[tuple[str, int, str]] = [
    ("/v1/other/image.png", 404, "this serves tiny"),
    ("/v1/tiny/image.tiff", 404, "no such format"),
    ("/v1/tiny/image.png?sed=1", 400, "no such parameter"),
    ("/v1/tiny/image.png?n=2", 400, "no such parameter"),
    ("/v1/tiny/image.png?seed=1&seed=2", 400, "twice"),
    ("/v1/tiny/image.png?seed=-1", 400, "seed"),
    ("/v1/tiny/image.png?seed=1e3", 400, "seed"),
    ("/v1/tiny/image.png?seed=18446744073709551616", 422, "seed"),
    ("/v1/tiny/image.png?label=cat", 422, "no such class"),
    ("/v1/tiny/image.png?label=3", 422, "expected 0 to 2"),
    ("/v1/tiny/image.png?truncation=nan", 400, "truncation"),
    ("/v1/tiny/image.png?truncation=1e", 400, "truncation"),
    ("/v1/tiny/image.png?truncation=1e999", 422, "truncation"),
    ("/v1/tiny/image.png?bundle=0", 400, "bundle"),
    ("/v1/tiny/image.png?bundle=000000000000", 404, "another one serves"),
    ("/v1/tiny/grid.png?n=0", 400, "n:"),
    ("/v1/tiny/grid.png?n=65", 413, "at most 64"),
    ("/v1/tiny/grid.png?columns=0", 400, "columns"),
    ("/v1/tiny/image.png?to=8", 400, "found one of them"),
    ("/v1/tiny/image.png?to=8&t=1.01", 400, "t: found 1.01"),
    ("/v1/tiny/image.png?to=18446744073709551616&t=0.5", 422, "seed"),
    ("/v1/tiny/image.png?space=w", 400, "space"),
    ("/v1/tiny/image.png?to=8&t=0.5&space=w", 422, "StyleGANs do"),
    ("/v1/tiny/image.png?label=0:0.5,1:0.5", 422, "--class-weights"),
    ("/v1/tiny/image.png?label=0:0.5,1", 422, "as in 3:0.5,8:0.5"),
    ("/v1/tiny/image.png?label=0:0.5,cat:0.5", 422, "no such class"),
    ("/v1/tiny/interpolate.gif?seed=7", 400, "to: expected the seed"),
    ("/v1/tiny/interpolate.gif?to=8&t=0.5", 400, "no such parameter"),
    ("/v1/tiny/interpolate.gif?to=8&frames=1", 400, "frames"),
    ("/v1/tiny/interpolate.gif?to=8&frames=65", 413, "at most 64"),
    ("/v1/tiny/interpolate.gif?to=8&fps=0", 400, "fps"),
    ("/v1/tiny/interpolate.gif?to=8&fps=101", 400, "fps"),
    ("/v1/tiny/interpolate.png?to=8", 404, "gif, webp, mp4 are"),
    ("/v1/tiny/interpolate.gif?to=8&bundle=000000000000", 404, "another one serves"),
    ("/v1/other", 404, "this serves tiny"),
    ("/playground/page.py", 404, "no such file"),
    ("/playground/__init__.py", 404, "no such file"),
    ("/v1/models/other", 404, "this serves tiny"),
    ("/v2/models/tiny/infer", 405, "Method Not Allowed"),
    ("/v1/tiny/../../etc/passwd", 404, "Not Found"),
    ("/v1/tiny/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, "Not Found"),
    ("/v1/tiny/..%2f..%2fimage.png", 404, "Not Found"),
    ("/v1/%2e%2e/image.png", 404, "this serves tiny"),
    ("/v1/%00/image.png", 404, "this serves tiny"),
    ("/v1/..\\..\\tiny/image.png", 404, "this serves tiny"),
    ("/v1/tiny/image.png%00.npy", 404, "no such format"),
    ("/v2/models/..%2f..%2fetc/config", 404, "Not Found"),
    ("//etc/passwd", 404, "Not Found"),
    ("/manifest.json", 404, "Not Found"),
]


@pytest.fixture(scope="module")
def host(bundle: Path) -> Iterator[Host]:
    with (
        Sampler(bundle, device="cpu", batch_size=4) as sampler,
        hosted({"tiny": sampler}, Serving(max_images=64, max_body_mib=0.04)) as started,
    ):
        yield started


def check(answer: Any, status: int, words: str) -> None:
    assert answer.status == status, answer.body
    (error,) = answer.json.values()
    message = error["message"] if isinstance(error, dict) else error  # as OpenAI has it
    assert words in message
    assert "\n" not in message
    assert len(message) <= 500


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "words"),
    WRONG,
    ids=[f"{n}-{row[4]}" for n, row in enumerate(WRONG)],
)
def test_a_wrong_request_is_told_so(
    host: Host, path: str, body: Any, headers: dict[str, str], status: int, words: str
) -> None:
    check(host.post(path, body, **headers), status, words)


@pytest.mark.parametrize(
    ("path", "status", "words"), NOT_THERE, ids=[path for path, _, _ in NOT_THERE]
)
def test_a_wrong_path_is_told_so(host: Host, path: str, status: int, words: str) -> None:
    check(host.get(path), status, words)


def test_after_them_all_it_still_serves(host: Host) -> None:
    for row in WRONG:
        host.post(row[0], row[1], **row[2])
    assert host.post(INFER, of(SEED)).status == 200
    assert host.get("/readyz").status == 200
