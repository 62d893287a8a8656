"""What whoever runs the server relies on over gRPC: health, keys, counts, limits, who hangs up."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganinfer import BackendUnavailable, RequestError, Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("grpc", reason="pip install 'ganpipe[serve-grpc]'")

import grpc
from hosting import Hosted, hosted, wait_until

from ganinfer.open_inference import served_model
from ganinfer.open_inference.messages import health, inference
from ganinfer.server import Serving

SERVICE = "/inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer"
STREAM = f"{SERVICE}/ModelStreamInfer"
HEALTH = "/grpc.health.v1.Health"


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu", batch_size=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def host(sampler: Sampler) -> Iterator[Hosted]:
    serving = Serving(access_log=True, max_images=100_000)
    with hosted({"tiny": sampler}, serving, grpc=True) as started:
        yield started


@pytest.fixture(scope="module")
def channel(host: Hosted) -> Iterator[Any]:
    with grpc.insecure_channel(host.grpc) as opened:
        yield opened


def seeds(count: int) -> bytes:
    message = inference.ModelInferRequest(model_name="tiny")
    given = message.inputs.add(name="seed", datatype="UINT64", shape=[count])
    given.contents.uint64_contents.extend(range(count))
    return bytes(message.SerializeToString())


def status(
    channel: Any, path: str, data: bytes = b"", *sent: tuple[str, str], timeout: float = 60
) -> str:
    try:
        channel.unary_unary(path)(data, timeout=timeout, metadata=sent)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def serving_of(channel: Any, service: str) -> str:
    asked = health.HealthCheckRequest(service=service).SerializeToString()
    answer = health.HealthCheckResponse.FromString(channel.unary_unary(f"{HEALTH}/Check")(asked))
    return name_of(answer.status)


def name_of(number: int) -> str:
    values = health.HealthCheckResponse.DESCRIPTOR.fields_by_name["status"].enum_type
    return str(values.values_by_number[number].name)


def test_health_is_readiness_and_is_watched_until_the_server_stops(bundle: Path) -> None:
    with (
        Sampler(bundle, device="cpu", batch_size=2) as sampler,
        hosted({"tiny": sampler}, ready=False, grpc=True) as host,
        grpc.insecure_channel(host.grpc) as channel,
    ):
        said = [
            name_of(health.HealthCheckResponse.FromString(next(answers)).status)
            for service in (b"", b"\x0a\x05other")
            for answers in [channel.unary_stream(f"{HEALTH}/Watch")(service)]
        ]
        assert said[0] in ("SERVING", "NOT_SERVING")
        assert said[1] == "SERVICE_UNKNOWN"
        wait_until(lambda: host.application.service.ready, "it is ready")
        for service in ("", "inference.GRPCInferenceService", "live"):
            assert serving_of(channel, service) == "SERVING"
        assert status(channel, f"{HEALTH}/Check", b"\x0a\x05other") == "NOT_FOUND"
        watched = channel.unary_stream(f"{HEALTH}/Watch")(b"")
        assert next(watched) == b"\x08\x01"
        host.application.service.draining = True
        assert [name_of(health.HealthCheckResponse.FromString(w).status) for w in watched] == [
            "NOT_SERVING"
        ]
        assert serving_of(channel, "") == "NOT_SERVING"
        assert serving_of(channel, "live") == "SERVING"
        answer = channel.unary_unary(f"{SERVICE}/ServerReady")(b"")
        assert not inference.ServerReadyResponse.FromString(answer).ready
        assert status(channel, INFER, seeds(1)) == "OK"  # what still comes is served
        sampler.close()
        assert serving_of(channel, "live") == "NOT_SERVING"
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(INFER)(seeds(1))
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert str(bundle.parent) not in error.value.details()


def test_health_is_told_to_grpcs_own_client(host: Hosted) -> None:
    pytest.importorskip("grpc_health.v1.health_pb2_grpc", reason="pip install 'ganpipe[dev]'")
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(host.grpc) as channel:
        client = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest()
        assert client.Check(asked).status == health_pb2.HealthCheckResponse.SERVING
        watched = client.Watch(asked)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        watched.cancel()


def test_keys_open_all_but_the_probes(sampler: Sampler, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("first\nsecond\n")
    with (
        hosted({"tiny": sampler}, Serving(api_keys=keys), grpc=True) as host,
        grpc.insecure_channel(host.grpc) as channel,
    ):
        for path in (f"{HEALTH}/Check", f"{SERVICE}/ServerLive", f"{SERVICE}/ServerReady"):
            assert status(channel, path) == "OK"
        for path in (INFER, f"{SERVICE}/ServerMetadata", f"{SERVICE}/RepositoryIndex"):
            for wrong in ("third", "firs", "firstx", ""):
                assert status(channel, path, b"", ("x-api-key", wrong)) == "UNAUTHENTICATED"
                sent = ("authorization", f"Bearer {wrong}")
                assert status(channel, path, b"", sent) == "UNAUTHENTICATED"
            assert status(channel, path) == "UNAUTHENTICATED"
        with pytest.raises(grpc.RpcError) as error:
            list(channel.stream_stream(STREAM)(iter([seeds(1)])))
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert status(channel, INFER, seeds(1), ("x-api-key", "first")) == "OK"
        assert status(channel, INFER, seeds(1), ("authorization", "bearer second")) == "OK"
        model = (f"grpc://{host.grpc}", "tiny", (16, 16, 3))
        assert served_model(*model, api_key="second").images([1]).shape == (1, 16, 16, 3)
        with pytest.raises(BackendUnavailable, match="UNAUTHENTICATED: .*; see --api-key-file"):
            served_model(*model, api_key="third")
        with pytest.raises(RequestError, match="no API key but of ASCII"):
            served_model(*model, api_key="schl\u00fcssel")


def test_calls_have_ids_and_are_counted_and_logged(
    host: Hosted, channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    counted = 'ganinfer_grpc_requests_total{method="ModelInfer",status="%s"}'
    with caplog.at_level(logging.INFO, "ganinfer.server.access"):
        parent = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
        sent = (("x-request-id", "mine"), ("x-api-key", "secret"), parent)
        _, call = channel.unary_unary(INFER).with_call(seeds(3), metadata=sent)
        assert ("x-request-id", "mine") in [tuple(pair) for pair in call.trailing_metadata()]
        assert status(channel, INFER, seeds(0)) == "INVALID_ARGUMENT"
        wait_until(
            lambda: counted % "INVALID_ARGUMENT" in host.get("/metrics").body.decode(), "counted"
        )
    assert f"{counted % 'OK'} 1" in host.get("/metrics").body.decode()
    lines = [json.loads(r.message) for r in caplog.records if INFER in r.message]
    assert [line["status"] for line in lines] == ["OK", "INVALID_ARGUMENT"]
    assert (lines[0]["id"], lines[0]["client"]) == ("mine", "127.0.0.1")
    assert [line["trace_id"] for line in lines] == ["a" * 32, None]
    assert lines[0]["bytes"] > 3 * 768
    assert len(lines[1]["id"]) == 32
    assert "secret" not in caplog.text


def test_limits_are_those_of_http(sampler: Sampler) -> None:
    for serving, count, expected in [
        (Serving(max_megapixels=0.001), 3, "OK"),
        (Serving(max_megapixels=0.001), 4, "INVALID_ARGUMENT"),
        (Serving(max_images=3), 4, "INVALID_ARGUMENT"),
        (Serving(timeout_s=1e-6), 1, "DEADLINE_EXCEEDED"),
    ]:
        with (
            hosted({"tiny": sampler}, serving, grpc=True) as host,
            grpc.insecure_channel(host.grpc) as channel,
        ):
            assert status(channel, INFER, seeds(count)) == expected


def test_a_full_queue_is_told(bundle: Path) -> None:
    with (
        Sampler(bundle, device="cpu", batch_size=2, max_queue=1) as sampler,
        hosted({"tiny": sampler}, grpc=True) as host,
        grpc.insecure_channel(host.grpc) as channel,
    ):
        work = sampler.submit(60_000)  # it waits until the last batch is begun
        assert status(channel, INFER, seeds(1)) == "RESOURCE_EXHAUSTED"
        assert serving_of(channel, "") == "NOT_SERVING"
        work.cancel()


@pytest.mark.parametrize("end", ["cancel", "deadline", "stream"])
def test_who_waits_no_more_takes_the_request_back(
    host: Hosted, channel: Any, sampler: Sampler, end: str
) -> None:
    before, asked = sampler.stats, 3 if end == "stream" else 1
    if end == "stream":
        call = channel.stream_stream(STREAM)(iter([seeds(60_000)] * asked))
    else:
        timeout = 0.3 if end == "deadline" else None
        call = channel.unary_unary(INFER).future(seeds(60_000), timeout=timeout)

    def taken() -> int:
        return sum(sampler.stats[name] - before[name] for name in ("cancelled", "late"))

    def begun() -> bool:
        now = sampler.stats
        return now["queue_requests"] + now["in_flight"] + taken() == asked

    wait_until(lambda: begun() and sampler.stats["images"] > before["images"], "it is begun")
    if end != "deadline":
        call.cancel()
    status = "DEADLINE_EXCEEDED" if end == "deadline" else "CANCELLED"
    method = "ModelStreamInfer" if end == "stream" else "ModelInfer"
    gone = f'{{method="{method}",status="{status}"}} 1'
    wait_until(lambda: gone in host.get("/metrics").body.decode(), "it is counted")
    wait_until(lambda: taken() == asked, "it is taken back")
    wait_until(lambda: not sampler.stats["in_flight"], "nothing is left of it")
    assert sampler.stats["images"] - before["images"] < 60_000


class Broken(Sampler):
    """Its drawing fails as no sampler's should."""

    async def asample(self, n: int | None = None, **asked: Any) -> Any:
        if asked:
            raise ZeroDivisionError("/a/secret/path")
        return await super().asample(n)


def test_a_fault_of_ours_names_a_request_and_nothing_else(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Broken(bundle, device="cpu", batch_size=1) as sampler,
        hosted({"tiny": sampler}, grpc=True) as host,
        grpc.insecure_channel(host.grpc) as channel,
    ):
        sent = (("x-request-id", "number-9"),)
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(INFER)(seeds(1), metadata=sent)
        assert error.value.code() is grpc.StatusCode.INTERNAL
        (answer,) = channel.stream_stream(STREAM)(iter([seeds(1)]), metadata=sent)
        streamed = inference.ModelStreamInferResponse.FromString(answer)
    for told in (error.value.details(), streamed.error_message):
        assert "number-9" in told
        assert "secret" not in told
    assert "request number-9" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_when_it_stops_streams_end_with_what_was_asked(bundle: Path) -> None:
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        yield seeds(2)
        over.wait()  # and asks for nothing more, as an idle client

    with Sampler(bundle, device="cpu", batch_size=2) as sampler:
        with hosted({"tiny": sampler}, grpc=True) as host:
            channel = grpc.insecure_channel(host.grpc)
            answers = channel.stream_stream(STREAM)(requests())
            first = inference.ModelStreamInferResponse.FromString(next(answers))
        # It has stopped, long before drain_s was over.
        with pytest.raises(grpc.RpcError) as error:
            next(answers)
        assert (error.value.code(), error.value.details()) == (
            grpc.StatusCode.UNAVAILABLE,
            "this server stops",
        )
        expected = sampler.sample(2).tobytes()
    over.set()
    channel.close()
    assert first.infer_response.raw_output_contents[0] == expected
