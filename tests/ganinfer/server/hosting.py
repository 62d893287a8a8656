"""A real server in a thread of the test, and the plainest client."""

import http.client
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

from ganinfer import Sampler
from ganinfer.server import Serving
from ganinfer.server.application import Application
from ganinfer.server.connections import BoundedProtocol
from ganinfer.server.running import _Server, address_of, bound_socket
from ganinfer.server.shelf import Shelf

INFER = "/v2/models/tiny/infer"


def seeds(count: int) -> dict[str, object]:
    """A request for so many images, as bytes."""
    data = list(range(count))
    return {
        "inputs": [{"name": "seed", "shape": [count], "datatype": "UINT64", "data": data}],
        "parameters": {"binary_data_output": True},
    }


def pixels(file: bytes) -> np.ndarray:
    """Those of a picture."""
    return np.asarray(Image.open(io.BytesIO(file)))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Host:
    """Where a server listens, on this machine."""

    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, data, **headers)

    def ask(self, method: str, path: str, body: bytes | None, **headers: str) -> Answer:
        """Names of headers are written with _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())
        finally:
            connection.close()


@dataclass(frozen=True)
class Hosted(Host):
    """In this process."""

    application: Application
    server: uvicorn.Server
    grpc: str | None


class InThread(_Server):
    """Signals are the main thread's."""

    def capture_signals(self) -> AbstractContextManager[None]:
        return nullcontext()


def wait_until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@contextmanager
def hosted(
    samplers: Mapping[str, Sampler] | Shelf,
    serving: Serving | None = None,
    *,
    ready: bool = True,
    grpc: bool = False,
) -> Iterator[Hosted]:
    """A server that answers, also over gRPC if asked; if ready, also one that is warm."""
    application = Application(samplers, serving or Serving())
    bound = bound_socket("127.0.0.1", 0)
    port = bound.getsockname()[1]
    config = uvicorn.Config(
        application, lifespan="on", http=BoundedProtocol, ws="none", log_config=None
    )
    beside, address = None, None
    if grpc:
        from ganinfer.server.rpc.running import RpcServer

        rpc_bound = bound_socket("127.0.0.1", 0)
        beside, address = RpcServer(application.service, rpc_bound), address_of(rpc_bound)
    server = InThread(config, application, beside)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "it starts")
        if ready:
            wait_until(lambda: application.service.ready, "it is ready")
        yield Hosted(port, application, server, address)
    finally:
        server.should_exit = True
        thread.join()
