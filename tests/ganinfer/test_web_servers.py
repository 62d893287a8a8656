"""A Sampler in the processes that web servers make: forked, recycled, stopped while they answer."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks"),
]

# /5 is a PNG file of seed 5; /5/400 draws 400 images, and says in a file that it has begun.
WSGI = """
import os, sys
from pathlib import Path
from ganinfer import Sampler, encode_png

sampler = Sampler(os.environ["BUNDLE"], device="cpu", backend=os.environ["BACKEND"])
if os.environ["WARM"]:
    sampler.sample(4)

def app(environ, start_response):
    seed, _, n = environ["PATH_INFO"].strip("/").partition("/")
    if n:
        Path(os.environ["BEGUN"], f"{os.getpid()}-{seed}").touch()
    images = sampler.sample(int(n or 1), seed=int(seed))
    body = encode_png(images[-1])
    start_response("200 OK", [("Content-Type", "image/png"), ("X-Pid", str(os.getpid()))])
    return [body]
"""
ASGI = """
import os
from pathlib import Path
from ganinfer import Sampler, encode_png

sampler = None

async def app(scope, receive, send):
    global sampler
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            sampler = await Sampler.open(
                os.environ["BUNDLE"], device="cpu", backend=os.environ["BACKEND"]
            )
            await send({"type": message["type"] + ".complete"})
        await sampler.aclose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    seed, _, n = scope["path"].strip("/").partition("/")
    if n:
        Path(os.environ["BEGUN"], f"{os.getpid()}-{seed}").touch()
    images = await sampler.asample(int(n or 1), seed=int(seed))
    headers = [(b"x-pid", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": encode_png(images[-1])})
"""
GUNICORN = ["-m", "gunicorn", "wsgi:app", "--workers", "2", "--graceful-timeout", "30"]
UVICORN = ["-m", "uvicorn", "asgi:app", "--workers", "2"]
RECYCLED = ["--max-requests", "5"]
WORKERS = ["-k", "uvicorn_worker.UvicornWorker"]
GUNICORN_ASGI = ["-m", "gunicorn", "asgi:app", *GUNICORN[3:], *WORKERS]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get(port: int, path: str) -> tuple[str, bytes]:
    """The process that answered, and what."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.headers["X-Pid"], answer.read()


@contextmanager
def serving(
    folder: Path, command: Sequence[str], bundle: Path, backend: str, *, warm: bool = False
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that answers, and its port."""
    (folder / "wsgi.py").write_text(textwrap.dedent(WSGI))
    (folder / "asgi.py").write_text(textwrap.dedent(ASGI))
    port = free_port()
    bind = ["-b", f"127.0.0.1:{port}"] if "gunicorn" in command else ["--port", str(port)]
    own = {"BUNDLE": str(bundle), "BACKEND": backend, "WARM": "1" * warm, "BEGUN": str(folder)}
    own["HOME"] = str(folder)  # gunicorn keeps a socket there
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command, *bind],
            cwd=folder,
            env=os.environ | own,
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                get(port, "/0")
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.1)
        yield server, port
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("command", "backend", "warm"),
    [
        ([*GUNICORN, *RECYCLED], "onnxruntime", False),
        ([*GUNICORN, *RECYCLED, "--preload"], "onnxruntime", False),
        ([*GUNICORN, *RECYCLED, "--preload"], "onnxruntime", True),
        ([*GUNICORN, *RECYCLED, "--preload"], "openvino", True),
        ([*GUNICORN, *RECYCLED, "--preload", "-k", "gthread", "--threads", "4"], "openvino", True),
        (GUNICORN_ASGI, "onnxruntime", False),
        (UVICORN, "onnxruntime", False),
    ],
    ids=["plain", "preload", "preload warm", "openvino", "gthread", "uvicorn workers", "uvicorn"],
)
def test_no_request_is_lost(
    bundle: Path, tmp_path: Path, command: list[str], backend: str, warm: bool
) -> None:
    """While workers are recycled and when the server is stopped; and it ends in order."""
    pytest.importorskip(backend)
    for package in ("gunicorn", "uvicorn", "uvicorn_worker"):
        if any(word.startswith(package) for word in command):
            pytest.importorskip(package)
    with serving(tmp_path, command, bundle, backend, warm=warm) as (server, port):
        answers = [get(port, f"/{n % 7}") for n in range(100)]
        # uvicorn's are not recycled: they reset connections that they have taken, whatever runs.
        assert "--max-requests" not in command or len({pid for pid, _ in answers}) > 2
        pictures = {}
        for n, (_, picture) in enumerate(answers):
            assert pictures.setdefault(n % 7, picture) == picture
        outcomes: Counter[str] = Counter()

        def call(seed: int) -> None:
            try:
                outcomes["right" if get(port, f"/{seed}/2000")[1] else "empty"] += 1
            except OSError as error:
                outcomes[repr(error)] += 1

        callers = [threading.Thread(target=call, args=(n,)) for n in range(2)]
        for caller in callers:
            caller.start()
        end = time.monotonic() + 60
        while len([p for p in tmp_path.iterdir() if p.name[0].isdigit()]) < 2:
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.join(60)
        assert server.wait(60) in (0, -signal.SIGTERM)
        assert outcomes == {"right": 2}
    log = (tmp_path / "log").read_text()
    for word in ("Traceback", "SIGKILL", "SIGABRT", "SIGSEGV", "timeout"):
        assert word not in log, log
