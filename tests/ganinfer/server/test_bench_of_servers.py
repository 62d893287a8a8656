"""gan bench --server, against real servers."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganinfer import Sampler
from ganinfer.bench.connection import Connection
from ganinfer.bench.served import CALLERS, bench_server
from ganinfer.cli.bench import _show_served
from ganinfer.errors import BackendUnavailable, Ending, ParityError

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from conftest import rewrite_manifest
from hosting import Hosted, hosted

from ganinfer.server import Serving

KEY = "of-the-shop"


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def host(sampler: Sampler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    with hosted({"tiny": sampler, "other": sampler}, Serving(api_keys=keys)) as started:
        yield started


def test_every_kind_of_request_has_its_figures(
    host: Hosted, bundle: Path, tmp_path: Path, gan: Callable[..., Any], monkeypatch
) -> None:
    monkeypatch.setenv("GANINFER_API_KEY", KEY)
    place = tmp_path / "x.json"
    done = gan("bench", bundle, "--server", host.url, "--seconds", 0.05, "--json", place)
    assert done.returncode == 0, done.stderr
    assert "equal to the byte to a Sampler's here" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:6])) <= 100
    found = json.loads(place.read_text())
    assert found["byte_equal"]
    assert list(found["served"]) == ["raw", "png", "raw, 64 images"]
    for served in found["served"].values():
        assert list(served) == [str(callers) for callers in CALLERS]
        assert all(0 < one["p50_ms"] <= one["p99_ms"] for one in served.values())


def test_what_it_cannot_measure_is_told_in_words(
    host: Hosted, bundle: Path, copied: Path, gan: Callable[..., Any]
) -> None:
    with pytest.raises(BackendUnavailable, match="401: .*Authorization.*see --api-key-file"):
        bench_server(bundle, host.url)
    with pytest.raises(BackendUnavailable, match="model absent: 404: .*this serves"):
        bench_server(bundle, host.url, name="absent", key=KEY)
    rewrite_manifest(copied, lambda manifest: manifest["model"].update(family="other"))
    with pytest.raises(BackendUnavailable, match="it serves the bundle [0-9a-f]{12}, and this"):
        bench_server(copied, host.url, name="tiny", key=KEY)
    done = gan("bench", bundle, "--server", "http://127.0.0.1:9")
    assert (done.returncode, done.stderr.count("\n")) == (Ending.UNAVAILABLE, 1)
    assert "is the server up, and this its port?" in done.stderr
    for wrong in (["--server", host.url, "--tune"], ["--api-key-file", "x"]):
        assert "it goes with" in gan("bench", bundle, *wrong).stderr


class Dark(Sampler):
    """Its images are those of the bundle, but for one pixel."""

    async def asample(self, n: int | None = None, **asked: Any) -> Any:
        images = await super().asample(n, **asked)
        images[:, 3, 3] ^= 128
        return images


def test_other_images_are_not_measured(bundle: Path) -> None:
    with (
        Dark(bundle, device="cpu") as sampler,
        hosted({"tiny": sampler}) as host,
        pytest.raises(ParityError, match="not those of this bundle: .* steps off"),
    ):
        bench_server(bundle, host.url, seconds=0.01)


def test_what_the_server_refuses_has_no_figure(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        Sampler(bundle, device="cpu", batch_size=1, max_queue=2) as sampler,
        hosted({"tiny": sampler}) as host,
    ):
        report = bench_server(bundle, host.url, seconds=0.01)
    assert report.served["raw"][1] is not None
    assert report.served["raw"][128] is None
    _show_served(report)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("raw ")]
    assert row.split()[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{",
        b"HTTP/1.1 two OK\r\nContent-Length: 0\r\n\r\n",
        b"x" * (1 << 20),
    ],
)
def test_what_is_no_answer_in_http_is_told(answer: bytes) -> None:
    async def ask(port: int) -> None:
        async with Connection(f"http://127.0.0.1:{port}") as connection:
            await connection.ask("GET", "/")

    def tell() -> None:
        with listening.accept()[0] as accepted:
            accepted.recv(1000)
            accepted.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=tell)
        thread.start()
        with pytest.raises(BackendUnavailable, match="no answer in HTTP"):
            asyncio.run(ask(listening.getsockname()[1]))
        thread.join()


def test_answers_on_one_connection_are_in_their_order(host: Hosted, sampler: Sampler) -> None:
    async def ask() -> list[bytes]:
        async with Connection(f"{host.url}/v1/", {"X-Api-Key": KEY}) as connection:
            paths = [f"/tiny/image.npy?seed={seed}" for seed in range(5)]
            return [(await connection.ask("GET", path)).body for path in paths]

    images = [np.frombuffer(file[-768:], np.uint8) for file in asyncio.run(ask())]
    assert np.array_equal(np.concatenate(images), sampler.sample(5).ravel())
