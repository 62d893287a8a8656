"""What whoever runs a server relies on: probes, counts, keys, limits, and who hangs up."""

import asyncio
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganinfer import ConfigError, RequestError, Sampler
from ganinfer.errors import Ending

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import INFER, Host, hosted, seeds, wait_until

from ganinfer.server import Serving, app


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu", batch_size=6) as opened:
        yield opened


@pytest.fixture(scope="module")
def host(sampler: Sampler) -> Iterator[Host]:
    with hosted({"tiny": sampler, "same": sampler}, Serving(access_log=True)) as started:
        yield started


def test_it_is_ready_once_it_has_drawn_each_size_and_no_more_when_it_stops(bundle: Path) -> None:
    with (
        Sampler(bundle, device="cpu", batch_size=6) as sampler,
        hosted({"tiny": sampler}, ready=False) as host,
    ):
        first = host.get("/readyz")
        assert first.json["models"] == {"tiny": first.status == 200}
        wait_until(lambda: host.get("/readyz").status == 200, "it is ready")
        assert sampler.stats["images"] >= 1 + 2 + 4 + 6
        assert host.get("/v2/health/ready").status == 200
        host.application.service.draining = True
        for path in ("/readyz", "/v2/health/ready", "/v2/models/tiny/ready"):
            assert host.get(path).status == 503
        assert host.get("/livez").status == 200
        assert host.post(INFER, seeds(1)).status == 200  # what still comes is served


def test_batches_that_no_request_may_have_do_not_keep_it_from_being_ready(bundle: Path) -> None:
    with (
        Sampler(bundle, device="cpu", batch_size=24, max_queue_images=20) as sampler,
        hosted({"tiny": sampler}),
    ):
        assert sampler.stats["images"] == 1 + 2 + 4 + 8 + 16


def test_a_closed_sampler_is_neither_live_nor_ready(bundle: Path) -> None:
    sampler = Sampler(bundle, device="cpu", batch_size=1)
    with hosted({"tiny": sampler}) as host:
        sampler.close()
        assert host.get("/livez").status == 503
        assert host.get("/readyz").status == 503
        answer = host.post(INFER, seeds(1))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert str(bundle.parent) not in answer.json["error"]


def test_metrics_count_requests_by_path_and_status(host: Host) -> None:
    host.get("/v1/tiny/image.png?seed=3")
    host.get("/v1/same/image.png?seed=x")
    host.ask("PATCH", "/nothing", None)
    text = host.get("/metrics").body.decode()
    counted = re.findall(r"ganinfer_http_requests_total\{(.+?)\} (\d+)", text)
    found = {labels: int(count) for labels, count in counted}
    path = 'method="GET",path="/v1/{model}/image.{format}",status='
    assert found[f'{path}"200"'] == 1
    assert found[f'{path}"400"'] == 1
    assert found['method="other",path="other",status="404"'] == 1
    assert 'ganinfer_images_total{bundle="' in text
    assert len(re.findall("# TYPE ganinfer_images_total", text)) == 1


def test_a_request_id_is_given_back_or_made(host: Host) -> None:
    assert host.get("/livez", X_Request_Id="abc-1").headers["x-request-id"] == "abc-1"
    made = {host.get("/livez", X_Request_Id=name).headers["x-request-id"] for name in ("a b", "")}
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in made)
    assert len(made) == 2


def test_the_access_log_is_lines_of_json(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ganinfer.server.access"):
        host.get("/v1/tiny/image.npy?seed=3", X_Request_Id="mine", X_Api_Key="secret")
        wait_until(lambda: "mine" in caplog.text, "it is told")  # after the client is
    (line,) = [json.loads(r.message) for r in caplog.records if "mine" in r.message]
    assert (line["id"], line["status"], line["path"]) == ("mine", 200, "/v1/tiny/image.npy")
    assert line["bytes"] == 768 + 128
    assert "secret" not in json.dumps(line)


def test_keys_open_all_but_the_probes(sampler: Sampler, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("# of the shop\nfirst\n\n  second  \n")
    with hosted({"tiny": sampler}, Serving(api_keys=keys, cors=("https://shop.example",))) as host:
        assert host.get("/livez").status == host.get("/v2/health/ready").status == 200
        for path in ("/v2", "/metrics", "/v1/models", "/v1/tiny/image.png", "/nothing"):
            told = host.get(path)
            assert (told.status, told.headers["www-authenticate"]) == (401, "Bearer")
        for wrong in ("third", "firs", "firstx", "# of the shop", "", "\xe9"):
            assert host.get("/v2", X_Api_Key=wrong).status == 401
            assert host.get("/v2", Authorization=f"Bearer {wrong}").status == 401
        assert host.get("/v2", Authorization="Basic first").status == 401
        assert host.get("/v2", X_Api_Key="first").status == 200
        assert host.get("/v2", Authorization="bearer second").status == 200
        preflight = host.ask(
            "OPTIONS",
            "/v2",
            None,
            Origin="https://shop.example",
            Access_Control_Request_Method="GET",
            Access_Control_Request_Headers="x-api-key",
        )
        assert preflight.status == 200
        allowed = host.get("/v2", Origin="https://shop.example")
        assert allowed.status == 401
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-origin" not in host.get("/v2", Origin="https://x.y").headers


def test_verify_shows_a_key_of_a_file_or_of_the_environment(
    sampler: Sampler, bundle: Path, tmp_path: Path, gan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, mine = tmp_path / "keys", tmp_path / "mine"
    keys.write_text("first\nschl\u00fcssel\n", "utf-8")
    mine.write_text("# of the shop\nschl\u00fcssel\n", "utf-8")
    with hosted({"tiny": sampler}, Serving(api_keys=keys)) as host:
        verify = ("verify", bundle, "--server", host.url, "--model", "tiny")
        refused = gan(*verify)
        assert refused.returncode == Ending.UNAVAILABLE
        assert "401: expected Authorization: Bearer <key>" in refused.stderr
        assert "see --api-key-file" in refused.stderr
        assert gan(*verify, "--api-key-file", mine).returncode == 0
        monkeypatch.setenv("GANINFER_API_KEY", "first\n")
        assert gan(*verify).returncode == 0


def test_every_key_is_compared_whichever_is_shown(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("first\nsecond\nthird\n")
    compared: list[tuple[bytes, bytes]] = []

    def compare(shown: bytes, known: bytes) -> bool:
        compared.append((shown, known))
        return shown == known

    with hosted({"tiny": sampler}, Serving(api_keys=keys)) as host:
        monkeypatch.setattr("hmac.compare_digest", compare)
        for key, status in (("first", 200), ("third", 200), ("fourth", 401), ("", 401)):
            compared.clear()
            assert host.get("/v2", X_Api_Key=key).status == status
            assert len(compared) == 3
            assert {len(text) for pair in compared for text in pair} == {32}  # sha256 of each


def test_pages_of_other_origins_are_allowed_nothing(host: Host) -> None:
    answer = host.get("/v1/tiny/image.png", Origin="https://elsewhere.example")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = host.ask(
        "OPTIONS", "/v2", None, Origin="https://x.y", Access_Control_Request_Method="GET"
    )
    assert preflight.status == 405


@pytest.mark.parametrize("text", [None, b"", b"# none\n", b"\xff"])
def test_a_file_without_keys_is_refused(
    sampler: Sampler, tmp_path: Path, text: bytes | None
) -> None:
    if text is not None:
        (tmp_path / "keys").write_bytes(text)
    with pytest.raises(ConfigError, match="keys"):
        app({"tiny": sampler}, Serving(api_keys=tmp_path / "keys"))


def test_names_and_limits_that_cannot_be_are_refused(sampler: Sampler) -> None:
    for samplers in ({}, {"a/b": sampler}, {"models": sampler}, {"": sampler}, {"..": sampler}):
        with pytest.raises(RequestError):
            app(samplers)
    for wrong in ({"timeout_s": 0.0}, {"max_images": 0}, {"max_body_mib": -1.0}):
        with pytest.raises(RequestError, match=next(iter(wrong))):
            Serving(**wrong)


def test_too_many_pixels_are_too_large(sampler: Sampler) -> None:
    with hosted({"tiny": sampler}, Serving(max_megapixels=0.001)) as host:
        assert host.post(INFER, seeds(3)).status == 200
        told = host.post(INFER, seeds(4))
        assert told.status == 413
        assert "16x16" in told.json["error"]


def test_the_servers_deadline_is_kept(sampler: Sampler) -> None:
    with hosted({"tiny": sampler}, Serving(timeout_s=1e-6)) as host:
        for path in ("/v1/tiny/image.png", "/v1/tiny/grid.webp"):
            assert host.get(path).status == 504


def test_a_full_queue_is_told_and_asked_again_later(bundle: Path) -> None:
    with (
        Sampler(bundle, device="cpu", batch_size=2, max_queue=1) as sampler,
        hosted({"tiny": sampler}) as host,
    ):
        work = sampler.submit(60_000)  # it waits until the last batch is begun
        told = host.post(INFER, seeds(1))
        assert (told.status, told.headers["retry-after"]) == (429, "1")
        assert host.get("/readyz").status == 503
        work.cancel()


def test_who_hangs_up_takes_the_request_back(bundle: Path) -> None:
    with (
        Sampler(bundle, device="cpu", batch_size=2) as sampler,
        hosted({"tiny": sampler}, Serving(max_images=100_000)) as host,
    ):
        body = json.dumps(seeds(60_000)).encode()
        before = sampler.stats["images"]
        with socket.create_connection(("127.0.0.1", host.port)) as client:
            head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            wait_until(lambda: sampler.stats["images"] > before, "it is begun")
        gone = 'path="/v2/models/{model}/infer",status="499"} 1'
        wait_until(lambda: gone in host.get("/metrics").body.decode(), "it is taken back")
        assert sampler.sample(1).shape == (1, 16, 16, 3)
        assert sampler.stats["images"] - before < 60_000


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_that(sampler: Sampler) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{"
    with (
        hosted({"tiny": sampler}, Serving(timeout_s=0.2)) as host,
        socket.create_connection(("127.0.0.1", host.port), timeout=60) as client,
    ):
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")


class Broken(Sampler):
    """Its drawing fails as no sampler's should."""

    async def asample(self, n: int | None = None, **asked: Any) -> Any:
        if asked:
            raise ZeroDivisionError("/a/secret/path")
        return await super().asample(n)


def test_a_fault_of_ours_names_a_request_and_nothing_else(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Broken(bundle, device="cpu", batch_size=1) as sampler, hosted({"tiny": sampler}) as host:
        for answer in (
            host.post(INFER, seeds(1), X_Request_Id="number-9"),
            host.get("/v1/tiny/image.png", X_Request_Id="number-9"),
        ):
            assert answer.status == 500
            assert "number-9" in answer.json["error"]
            assert "secret" not in answer.body.decode()
            assert "Traceback" not in answer.body.decode()
    assert "request number-9" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_request_that_the_host_gives_up_is_told(bundle: Path) -> None:
    """As uvicorn does when it has waited for `drain_s`."""
    with Sampler(bundle, device="cpu", batch_size=2) as sampler:
        application = app({"tiny": sampler}, Serving(max_images=100_000))
        sent = [{"type": "http.request", "body": json.dumps(seeds(60_000)).encode()}]
        told: list[Any] = []
        scope = {"type": "http", "method": "POST", "path": INFER, "headers": []}

        async def receive() -> Any:
            while not sent:
                await asyncio.sleep(1)
            return sent.pop()

        async def send(message: Any) -> None:
            told.append(message)

        async def program() -> None:
            asked = asyncio.ensure_future(application(scope, receive, send))
            while not sampler.stats["images"]:
                await asyncio.sleep(0.01)
            asked.cancel()
            await asked

        asyncio.run(program())
    assert told[0]["status"] == 503


def test_threads_of_many_clients_are_merged(host: Host, sampler: Sampler) -> None:
    before = sampler.stats
    answers: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n: answers.append(host.post(INFER, seeds(1 + n % 3)).status)
        )
        for n in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 24
    assert sampler.stats["requests"] - before["requests"] == 24
