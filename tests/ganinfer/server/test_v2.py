"""The Open Inference Protocol, with its own clients."""

import asyncio
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganinfer import Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import Host, hosted

LARGEST = 2**64 - 1


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu", batch_size=8) as opened:
        yield opened


@pytest.fixture(scope="module")
def host(sampler: Sampler) -> Iterator[Host]:
    with hosted({"tiny": sampler}) as started:
        yield started


@pytest.fixture
def triton() -> Any:
    return pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")


def tensor(triton: Any, name: str, values: np.ndarray, *, binary: bool = True) -> Any:
    kinds = {"uint64": "UINT64", "int64": "INT64", "float64": "FP64", "float32": "FP32"}
    kind = kinds.get(values.dtype.name, "BYTES")
    given = triton.InferInput(name, list(values.shape), kind)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def infer(host: Host, **parts: Any) -> Any:
    answer = host.post("/v2/models/tiny/infer", parts)
    assert answer.status == 200, answer.body
    return answer.json


def test_its_client_learns_what_is_served(host: Host, triton: Any, sampler: Sampler) -> None:
    with triton.InferenceServerClient(host.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("other")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        told = client.get_model_metadata("tiny")
        assert [t["name"] for t in told["inputs"]] == ["seed", "z", "label", "truncation"]
        assert told["outputs"][0] == {
            "name": "images", "datatype": "UINT8", "shape": [-1, 16, 16, 3]
        }  # fmt: skip
        config = client.get_model_config("tiny")
        assert config["max_batch_size"] == 1024
        assert config["parameters"]["bundle_sha256"]["string_value"] == sampler.sha256
        (entry,) = client.get_model_repository_index()
        assert (entry["name"], entry["state"]) == ("tiny", "READY")


def test_its_statistics_count_inferences(host: Host, triton: Any) -> None:
    with triton.InferenceServerClient(host.address) as client:

        def figures() -> Any:
            (found,) = client.get_inference_statistics("tiny")["model_stats"]
            return found

        before = figures()
        client.infer("tiny", [tensor(triton, "seed", np.arange(3, dtype=np.uint64))])
        after, everything = figures(), client.get_inference_statistics()
    assert after["inference_count"] - before["inference_count"] == 3
    success = [stats["inference_stats"]["success"] for stats in (before, after)]
    assert success[1]["count"] - success[0]["count"] == 1
    assert success[1]["ns"] > success[0]["ns"]
    queues = [stats["inference_stats"]["queue"] for stats in (before, after)]
    assert queues[1]["count"] - queues[0]["count"] == 1
    assert 0 < queues[1]["ns"] - queues[0]["ns"] < success[1]["ns"] - success[0]["ns"]
    assert [stats["name"] for stats in everything["model_stats"]] == ["tiny"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_its_client_gets_the_images_of_the_sampler(
    host: Host, triton: Any, sampler: Sampler, binary: bool, compression: str | None
) -> None:
    seeds = np.array([5, 2**63 + 1, LARGEST], np.uint64)
    with triton.InferenceServerClient(host.address) as client:
        answer = client.infer(
            "tiny",
            [
                tensor(triton, "seed", seeds[:, None], binary=binary),
                tensor(triton, "label", np.array([2, 0, 1]), binary=binary),
                tensor(triton, "truncation", np.array([0.7]), binary=binary),
            ],
            outputs=[triton.InferRequestedOutput("images", binary_data=binary)],
            request_id="mine",
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
    expected = sampler.sample(seeds=seeds, labels=[2, 0, 1], truncation=0.7)
    found = answer.as_numpy("images")
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    assert answer.get_response()["id"] == "mine"


def test_class_names_and_files(host: Host, triton: Any, sampler: Sampler) -> None:
    names = np.array([b"1", b"0"], object)
    with triton.InferenceServerClient(host.address) as client:
        answer = client.infer(
            "tiny",
            [tensor(triton, "seed", np.array([1, 2], np.uint64)), tensor(triton, "label", names)],
            outputs=[triton.InferRequestedOutput(name) for name in ("png", "images")],
        )
    expected = sampler.sample(seeds=[1, 2], labels=["1", "0"])
    assert np.array_equal(answer.as_numpy("images"), expected)
    files = [Image.open(io.BytesIO(file)) for file in answer.as_numpy("png")]
    assert np.array_equal(np.stack([np.asarray(file) for file in files]), expected)


def test_latents_of_the_clients_own(host: Host, triton: Any, sampler: Sampler) -> None:
    expected, z = sampler.sample(4, labels=[0, 1, 2, 0], return_latents=True)
    for binary in (True, False):
        with triton.InferenceServerClient(host.address) as client:
            inputs = {"z": z, "label": np.array([0, 1, 2, 0])}
            answer = client.infer(
                "tiny", [tensor(triton, *item, binary=binary) for item in inputs.items()]
            )
        assert np.array_equal(answer.as_numpy("images"), expected)


def test_its_asyncio_client(host: Host, triton: Any, sampler: Sampler) -> None:
    aio = pytest.importorskip("tritonclient.http.aio")

    async def ask() -> list[Any]:
        async with aio.InferenceServerClient(host.address) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("tiny"))["versions"] == ["1"]
            return await asyncio.gather(
                *(
                    client.infer("tiny", [tensor(triton, "seed", np.array([seed], np.uint64))])
                    for seed in range(32)
                )
            )

    found = np.concatenate([answer.as_numpy("images") for answer in asyncio.run(ask())])
    assert np.array_equal(found, sampler.sample(32))


def test_its_client_is_told_what_is_wrong(host: Host, triton: Any) -> None:
    with (
        triton.InferenceServerClient(host.address) as client,
        pytest.raises(Exception, match=r"\[422\] label 'cat'.*there is no such class"),
    ):
        seed = tensor(triton, "seed", np.array([1], np.uint64))
        client.infer("tiny", [seed, tensor(triton, "label", np.array([b"cat"], object))])


def test_seeds_that_no_number_of_javascript_holds_are_taken_as_texts(
    host: Host, sampler: Sampler
) -> None:
    seeds = [2**53 + 1, LARGEST]
    expected = sampler.sample(seeds=seeds)
    for data in (seeds, list(map(str, seeds)), [[str(seed)] for seed in seeds]):
        shape = [2, 1] if isinstance(data[0], list) else [2]
        seed = {"name": "seed", "shape": shape, "datatype": "UINT64", "data": data}
        (found,) = infer(host, inputs=[seed])["outputs"]
        assert found["shape"] == [2, 16, 16, 3]
        assert found["data"] == expected.ravel().tolist()


def test_binary_data_output_and_versions(host: Host, sampler: Sampler) -> None:
    seed = {"name": "seed", "shape": [1], "datatype": "UINT64", "data": [9]}
    asked = {"inputs": [seed], "parameters": {"binary_data_output": True, "unknown": 1}}
    answer = host.post("/v2/models/tiny/versions/1/infer", asked)
    length = int(answer.headers["inference-header-content-length"])
    told = json.loads(answer.body[:length])
    assert told["model_name"] == "tiny"
    assert "id" not in told
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 768}
    assert answer.body[length:] == sampler.sample(1, seed=9).tobytes()
    assert host.get("/v2/models/tiny/versions/2").status == 404


def test_binary_values_stand_in_the_order_of_their_inputs(host: Host, sampler: Sampler) -> None:
    texts = b"".join(struct.pack("<I", len(name)) + name for name in (b"1", b"2"))
    sizes = {"label": len(texts), "seed": 16}
    kinds = {"label": "BYTES", "seed": "UINT64"}
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "shape": [2],
                    "datatype": kinds[name],
                    "parameters": {"binary_data_size": size},
                }
                for name, size in sizes.items()
            ]
        }
    ).encode()
    body = head + texts + struct.pack("<2Q", 4, LARGEST)
    answer = host.post(
        "/v2/models/tiny/infer",
        zlib.compress(body),
        Inference_Header_Content_Length=str(len(head)),
        Content_Encoding="deflate",
    )
    expected = sampler.sample(seeds=[4, LARGEST], labels=["1", "2"])
    assert answer.json["outputs"][0]["data"] == expected.ravel().tolist()


def test_a_truncation_mode_is_a_parameter(host: Host, sampler: Sampler) -> None:
    inputs = [
        {"name": "seed", "shape": [1], "datatype": "UINT64", "data": [3]},
        {"name": "truncation", "shape": [1], "datatype": "FP64", "data": [0.5]},
    ]
    for mode in ("resample", "scale"):
        (found,) = infer(host, inputs=inputs, parameters={"truncation_mode": mode})["outputs"]
        expected = sampler.sample(seeds=[3], truncation=0.5, truncation_mode=mode)
        assert found["data"] == expected.ravel().tolist()


def test_a_timeout_is_in_microseconds(host: Host) -> None:
    seeds = {"name": "seed", "shape": [1000], "datatype": "UINT64", "data": list(range(1000))}
    late = host.post("/v2/models/tiny/infer", {"inputs": [seeds], "parameters": {"timeout": 1}})
    assert late.status == 504
    assert "deadline" in late.json["error"]
    infer(host, inputs=[seeds], parameters={"timeout": 60_000_000})
    infer(host, inputs=[seeds], parameters={"timeout": 0})
