"""What a client may keep waiting, in bytes and seconds; and bytes that are no request at all."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganinfer import Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import INFER, Host, Hosted, hosted, seeds, wait_until

from ganinfer.server import Serving, connections

HOST = b"Host: x\r\n\r\n"
GET = b"GET /livez HTTP/1.1\r\n" + HOST
POST = f"POST {INFER} HTTP/1.1\r\n".encode()


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu", batch_size=64) as opened:
        yield opened


@pytest.fixture(scope="module")
def host(sampler: Sampler) -> Iterator[Hosted]:
    with hosted({"tiny": sampler}, Serving(timeout_s=20.0)) as started:
        yield started


def told(host: Host, *sent: bytes) -> bytes:
    """What is answered until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", host.port), timeout=60) as client:
        for part in sent:
            client.sendall(part)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """What comes until the other side closes the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):  # it has not read all that was sent
        while more := client.recv(1 << 16):
            found += more
    return found


NO_REQUESTS = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n" + HOST,
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n" + HOST + b"{}",
    "length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n" + HOST,
    "a length below zero": POST + b"Content-Length: -1\r\n" + HOST,
    "a length beyond all": POST + b"Content-Length: " + b"9" * 30 + b"\r\n" + HOST,
    "no chunk": POST + b"Transfer-Encoding: chunked\r\n" + HOST + b"x\r\n",
    "a zero in a header": b"GET /livez HTTP/1.1\r\nA: \x00\r\n" + HOST,
    "no header": b"GET /livez HTTP/1.1\r\nno colon\r\n" + HOST,
    "no path": b"GET \xff\xfe HTTP/1.1\r\n" + HOST,
}


@pytest.mark.parametrize("sent", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_is_told_so_and_the_connection_closed(host: Host, sent: bytes) -> None:
    assert told(host, sent).startswith(b"HTTP/1.1 400 ")
    assert host.get("/readyz").status == 200


def test_a_request_behind_which_junk_comes_is_answered(host: Host) -> None:
    found = told(host, GET * 3 + b"\x00junk\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 ")
    assert b'{"live":true}' in found


@pytest.mark.parametrize("begin", [b"GET /", b"GET /livez HTTP/1.1\r\nX-Long: "])
def test_a_head_is_of_bounded_size(host: Host, begin: bytes) -> None:
    assert told(host, begin, b"a" * (1 << 19)).startswith(b"HTTP/1.1 431 ")
    assert host.get("/livez", X_Long="a" * (connections.MAX_HEAD // 2)).status == 200


def test_a_head_has_to_come_in_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    assert told(host) == b""
    assert told(host, b"GET /livez HT").startswith(b"HTTP/1.1 408 ")
    found = told(host, GET, b"GET /livez HT")  # also behind another one
    assert found.startswith(b"HTTP/1.1 200 ")
    assert b'{"live":true}HTTP/1.1 408 ' in found


def test_an_answer_that_nobody_reads_is_given_up(
    host: Hosted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "READ_S", 0.2)
    body = str(seeds(1000)).replace("'", '"').replace("True", "false").encode()  # JSON: large
    head = POST + f"Content-Length: {len(body)}\r\n".encode() + HOST
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", host.port))
        for _ in range(8):  # more than kernels keep
            client.sendall(head + body)
        wait_until(lambda: host.server.server_state.connections, "it is there")
        wait_until(lambda: not host.server.server_state.connections, "it is given up")
    assert "Traceback" not in caplog.text


def test_what_comes_at_the_very_end_is_answered(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LAST_S", 2.0)
    with (
        hosted({"tiny": sampler}) as host,
        socket.create_connection(("127.0.0.1", host.port), timeout=60) as client,
    ):
        client.sendall(GET)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        host.server.should_exit = True
        wait_until(lambda: not listens(host.port), "it takes no connection")
        client.sendall(b"GET /v1/tiny/image.npy?seed=3 HTTP/1.1\r\n" + HOST)
        found = read_all(client)
    assert found.startswith(b"HTTP/1.1 200 ")
    assert found.endswith(sampler.sample(1, seed=3).tobytes())


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
