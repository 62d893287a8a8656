"""The Open Inference Protocol over gRPC, with its own clients."""

import hashlib
import io
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganinfer import BackendUnavailable, Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("grpc", reason="pip install 'ganpipe[serve-grpc]'")
pytest.importorskip("tritonclient.grpc", reason="pip install 'ganpipe[dev]'")

import grpc
import tritonclient.grpc as triton
from hosting import Hosted, hosted

from ganinfer.open_inference.messages import inference
from ganinfer.verify import verify_server

LARGEST = 2**64 - 1


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu", batch_size=8) as opened:
        yield opened


@pytest.fixture(scope="module")
def host(sampler: Sampler) -> Iterator[Hosted]:
    with hosted({"tiny": sampler}, grpc=True) as started:
        yield started


@pytest.fixture
def client(host: Hosted) -> Iterator[Any]:
    with triton.InferenceServerClient(host.grpc) as opened:
        yield opened


def tensor(name: str, values: np.ndarray) -> Any:
    kinds = {"uint64": "UINT64", "int64": "INT64", "float64": "FP64", "float32": "FP32"}
    given = triton.InferInput(name, list(values.shape), kinds.get(values.dtype.name, "BYTES"))
    return given.set_data_from_numpy(values)


def seeds(*values: int) -> Any:
    return tensor("seed", np.array(values, np.uint64))


def test_its_client_learns_what_http_tells(host: Hosted, client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("tiny", "2")
    assert client.get_server_metadata(as_json=True) == host.get("/v2").json
    told = client.get_model_metadata("tiny", as_json=True)
    over_http = host.get("/v2/models/tiny").json
    for one in (*told["inputs"], *told["outputs"]):
        one["shape"] = [int(length) for length in one["shape"]]  # int64 is text in its JSON
    assert told == over_http
    config = client.get_model_config("tiny").config
    configured = host.get("/v2/models/tiny/config").json
    assert config.max_batch_size == configured["max_batch_size"]
    assert [one.name for one in config.input] == [one["name"] for one in configured["input"]]
    assert all(one.optional for one in config.input)
    assert list(config.output[0].dims) == [16, 16, 3]
    parameters = {name: {"string_value": p.string_value} for name, p in config.parameters.items()}
    assert parameters == configured["parameters"]
    (entry,) = client.get_model_repository_index().models
    assert (entry.name, entry.version, entry.state) == ("tiny", "1", "READY")


def test_its_statistics_are_those_of_http(host: Hosted, client: Any) -> None:
    client.infer("tiny", [seeds(1, 2, 3)])
    (of_all,) = client.get_inference_statistics(as_json=True)["model_stats"]
    (found,) = client.get_inference_statistics("tiny", as_json=True)["model_stats"]
    (over_http,) = host.get("/v2/models/tiny/stats").json["model_stats"]
    assert found == of_all
    success = over_http["inference_stats"]["success"]
    assert success["count"] >= 1
    assert found["inference_stats"]["success"] == {name: str(n) for name, n in success.items()}
    assert found["inference_count"] == str(over_http["inference_count"])


def test_its_client_gets_the_images_of_the_sampler(client: Any, sampler: Sampler) -> None:
    asked = np.array([5, 2**63 + 1, LARGEST], np.uint64)
    inputs = [
        tensor("seed", asked[:, None]),
        tensor("label", np.array([2, 0, 1])),
        tensor("truncation", np.array([0.7])),
    ]
    for compression in (None, "gzip", "deflate"):
        answer = client.infer("tiny", inputs, request_id="mine", compression_algorithm=compression)
        found = answer.as_numpy("images")
        assert found.dtype == np.uint8
        assert np.array_equal(found, sampler.sample(seeds=asked, labels=[2, 0, 1], truncation=0.7))
        assert answer.get_response().id == "mine"
    for mode in ("resample", "scale"):
        found = client.infer("tiny", inputs, parameters={"truncation_mode": mode})
        expected = sampler.sample(
            seeds=asked, labels=[2, 0, 1], truncation=0.7, truncation_mode=mode
        )
        assert np.array_equal(found.as_numpy("images"), expected)


def test_class_names_and_files(client: Any, sampler: Sampler) -> None:
    answer = client.infer(
        "tiny",
        [seeds(1, 2), tensor("label", np.array([b"1", b"0"], object))],
        outputs=[triton.InferRequestedOutput(name) for name in ("png", "images")],
    )
    expected = sampler.sample(seeds=[1, 2], labels=["1", "0"])
    assert np.array_equal(answer.as_numpy("images"), expected)
    files = [np.asarray(Image.open(io.BytesIO(file))) for file in answer.as_numpy("png")]
    assert np.array_equal(np.stack(files), expected)


def test_latents_of_the_clients_own_and_many_images(client: Any, sampler: Sampler) -> None:
    expected, z = sampler.sample(4, labels=[0, 1, 2, 0], return_latents=True)
    answer = client.infer("tiny", [tensor("z", z), tensor("label", np.array([0, 1, 2, 0]))])
    assert np.array_equal(answer.as_numpy("images"), expected)
    answer = client.infer("tiny", [seeds(*range(1000))])
    assert np.array_equal(answer.as_numpy("images"), sampler.sample(1000))


def test_typed_contents_are_taken_too(host: Hosted, sampler: Sampler) -> None:
    message = inference.ModelInferRequest(model_name="tiny")
    for name, kind, shape, field, values in [
        ("seed", "UINT64", [2, 1], "uint64_contents", [4, LARGEST]),
        ("label", "BYTES", [2], "bytes_contents", [b"1", b"2"]),
        ("truncation", "FP64", [1], "fp64_contents", [0.7]),
    ]:
        given = message.inputs.add(name=name, datatype=kind, shape=shape)
        getattr(given.contents, field).extend(values)
    with grpc.insecure_channel(host.grpc) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer = inference.ModelInferResponse.FromString(ask(message.SerializeToString()))
    expected = sampler.sample(seeds=[4, LARGEST], labels=["1", "2"], truncation=0.7)
    assert list(answer.outputs[0].shape) == [2, 16, 16, 3]
    assert answer.raw_output_contents[0] == expected.tobytes()


def test_a_stream_answers_each_request_in_order(client: Any, sampler: Sampler) -> None:
    found: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: found.put((result, error)))
    for number in range(200):
        model = "other" if number % 50 == 7 else "tiny"
        client.async_stream_infer(model, [seeds(number, number + 1)], request_id=str(number))
    for number in range(200):
        result, error = found.get(timeout=60)
        if number % 50 == 7:
            assert "there is none; this serves tiny" in error.message()
            continue
        assert error is None
        assert result.get_response().id == str(number)
        assert np.array_equal(result.as_numpy("images"), sampler.sample(2, seed=number))
    client.stop_stream()


def test_gan_verify_gives_the_verdict_of_it(host: Hosted, bundle: Path) -> None:
    for address in (host.url, f"grpc://{host.grpc}"):
        gates = verify_server(bundle, address)
        assert len(gates) >= 1
        assert all(gate.passed for gate in gates)
        assert gates[0].artifact == f"{address} tiny fp32"
    with pytest.raises(BackendUnavailable, match=r"model other: NOT_FOUND: .*this serves tiny"):
        verify_server(bundle, f"grpc://{host.grpc}", name="other")


# In a process of its own: two event loops of gRPC do not go well with each other in one.
ASYNCIO = """
import asyncio, hashlib, sys
import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

def asked(seed):
    given = InferInput("seed", [1], "UINT64")
    given.set_data_from_numpy(np.array([seed], np.uint64))
    return {"model_name": "tiny", "inputs": [given]}

async def program():
    async with InferenceServerClient(sys.argv[1]) as client:
        assert await client.is_server_ready()
        answers = await asyncio.gather(*(client.infer(**asked(seed)) for seed in range(32)))

        async def requests():
            for seed in range(32, 64):
                yield asked(seed)

        async for answer, error in client.stream_infer(requests()):
            assert error is None
            answers.append(answer)
    images = b"".join(answer.as_numpy("images").tobytes() for answer in answers)
    print(hashlib.sha256(images).hexdigest())

asyncio.run(program())
"""


def test_its_asyncio_client(host: Hosted, sampler: Sampler) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASYNCIO, str(host.grpc)], capture_output=True, text=True, timeout=60
    )
    expected = hashlib.sha256(sampler.sample(64).tobytes()).hexdigest()
    assert done.stdout == f"{expected}\n", done.stderr
