"""A server of the Open Inference Protocol, and servers that only seem to be one."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganinfer import Sampler
from ganinfer.errors import BackendUnavailable, BundleError, Ending, RequestError
from ganinfer.open_inference import ServedModel
from ganinfer.verify import verify_server

SHAPE = (16, 16, 3)
DTYPES = {"UINT64": "<u8", "INT64": "<i8", "FP64": "<f8"}
Answer = tuple[int, dict[str, str], bytes]


def as_bytes(images: np.ndarray) -> Answer:
    """With another tensor before it."""
    outputs = [
        {
            "name": name,
            "datatype": "UINT8",
            "shape": shape,
            "parameters": {"binary_data_size": size},
        }
        for name, shape, size in (("other", [3], 3), ("images", images.shape, images.nbytes))
    ]
    header = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    body = header + b"abc" + images.tobytes()
    return 200, {"Inference-Header-Content-Length": str(len(header))}, body


def as_json(images: np.ndarray) -> Answer:
    output = {"name": "images", "datatype": "UINT8", "shape": images.shape}
    output["data"] = images.ravel().tolist()
    return 200, {}, json.dumps({"outputs": [output]}).encode()


@contextmanager
def serve(
    infer: Callable[[dict[str, np.ndarray]], Answer], *, columns: bool, most: int | None
) -> Iterator[str]:
    """A server of a model "m". columns: its tensors are (N, 1). most: images of a request."""
    shape = [-1, 1] if columns else [-1]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/v2/models/m": {"inputs": [{"name": "seed", "shape": shape}]}}
            if most is not None:
                answers["/v2/models/m/config"] = {"max_batch_size": most}
            found = answers.get(self.path)
            self.reply(404 if found is None else 200, {}, json.dumps(found or {}).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            start = int(self.headers["Inference-Header-Content-Length"])
            tensors = {}
            for one in json.loads(body[:start])["inputs"]:
                stop = start + one["parameters"]["binary_data_size"]
                array = np.frombuffer(body[start:stop], DTYPES[one["datatype"]])
                tensors[one["name"]] = array.reshape(one["shape"])
                assert tensors[one["name"]].ndim == len(shape)
                start = stop
            assert not most or len(tensors["seed"]) <= most
            self.reply(*infer({name: array.ravel() for name, array in tensors.items()}))

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, backend="onnxruntime", device="cpu") as opened:
        yield opened


def drawn(sampler: Sampler, asked: dict[str, np.ndarray]) -> np.ndarray:
    labels, truncations = asked.get("label"), asked.get("truncation")
    truncation = None if truncations is None else float(truncations[0])
    return sampler.sample(seeds=asked["seed"], labels=labels, truncation=truncation)


@pytest.mark.parametrize("answer", [as_bytes, as_json])
@pytest.mark.parametrize(("columns", "most"), [(True, 3), (False, None), (True, 1000), (False, 0)])
def test_images_are_those_of_the_sampler(
    answer: Callable[[np.ndarray], Answer], columns: bool, most: int | None, sampler: Sampler
) -> None:
    seeds, labels = [0, 5, 2**64 - 1, 2**53 + 1], [2, 1, 0, 2]
    with serve(lambda asked: answer(drawn(sampler, asked)), columns=columns, most=most) as url:
        served = ServedModel(f"{url}/", "m", SHAPE)
        found = served.images(seeds, labels=labels, truncation=0.7)
        expected = sampler.sample(seeds=seeds, labels=labels, truncation=0.7)
        assert np.array_equal(found, expected)
        assert np.array_equal(served.images(seeds), sampler.sample(seeds=seeds))


def test_a_server_gets_the_verdict_of_its_images(
    bundle: Path, sampler: Sampler, gan: Callable[..., Any]
) -> None:
    with serve(lambda asked: as_bytes(drawn(sampler, asked)), columns=True, most=100) as url:
        gates = verify_server(bundle, url, name="m")
        assert [gate.gate for gate in gates] == [
            *("golden images", "paired FID / floor", "paired, worst class")
        ]
        assert all(gate.passed for gate in gates)
        assert gates[0].artifact == f"{url} m fp32"
        with pytest.raises(BackendUnavailable, match="no fp8 variant; it holds fp32"):
            verify_server(bundle, url, name="m", precision="fp8")
        done = gan("verify", bundle, "--server", url, "--model", "m")
        assert (done.returncode, done.stderr) == (0, "")


def with_fault(fault: str, images: np.ndarray) -> np.ndarray:
    if fault == "one step too bright":
        return np.where(images < 255, images + 1, images)
    if fault == "BGR":
        return images[..., ::-1]
    assert fault == "the first seed for all"
    return images[[0] * len(images)]


@pytest.mark.parametrize("fault", ["one step too bright", "BGR", "the first seed for all"])
def test_a_server_that_gives_other_images_fails(fault: str, bundle: Path, sampler: Sampler) -> None:
    def infer(asked: dict[str, np.ndarray]) -> Answer:
        return as_bytes(np.ascontiguousarray(with_fault(fault, drawn(sampler, asked))))

    with serve(infer, columns=True, most=100) as url:
        golden, *_ = verify_server(bundle, url, name="m")
        assert not golden.passed
        assert golden.detail


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((429, {}, b'{"error": "queue full"}'), "model m: 429: queue full"),
        ((502, {}, b"<html>bad gateway"), "model m: 502: <html>bad gateway"),
        ((200, {}, b"[]"), "an answer that is none of the protocol"),
        ((200, {}, b'{"outputs": ["images"]}'), "an answer that is none of the protocol"),
        ((200, {}, b"[" * 100_000), "an answer that is none of the protocol"),
        ((200, {}, b"\xff"), "an answer that is none of the protocol"),
        ((200, {"Inference-Header-Content-Length": "x"}, b"{}"), "none of the protocol"),
        (as_bytes(np.zeros((1, 8, 8, 3), np.uint8)), r"images of shape \(1, 8, 8, 3\), not"),
        ((200, {}, b" " * (2 << 20)), "more than 1,"),
    ],
)
def test_another_answer_is_told_in_words(answer: Answer, words: str) -> None:
    with (
        serve(lambda asked: answer, columns=True, most=8) as url,
        pytest.raises(BackendUnavailable, match=words),
    ):
        ServedModel(url, "m", SHAPE).images([1])


def test_another_model_or_nobody_there_is_told_in_words(bundle: Path, gan) -> None:
    with (
        serve(lambda asked: (200, {}, b""), columns=True, most=8) as url,
        pytest.raises(BackendUnavailable, match="model other: 404"),
    ):
        ServedModel(url, "other", SHAPE)
    done = gan("verify", bundle, "--server", url)
    assert done.returncode == Ending.UNAVAILABLE
    assert "no answer in HTTP (ConnectionRefusedError" in done.stderr
    with pytest.raises(BundleError, match="no such bundle"):
        verify_server(bundle / "x", url)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:port", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="expected an address, as in"):
        ServedModel(url, "m", SHAPE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "m"], "--model: it goes with --server"),
        (["--server", "http://x", "--backend", "onnxruntime"], "--server: it goes without"),
        (["--api-key-file", "f"], "--api-key-file: it goes with --server"),
        (["--precision", "fp32"], "--precision: it goes with --layers or --server"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], words: str, bundle: Path, gan
) -> None:
    done = gan("verify", bundle, *options)
    assert done.returncode == Ending.USAGE
    assert words in done.stderr
