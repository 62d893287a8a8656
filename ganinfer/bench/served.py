"""How fast does a server give a bundle's images, to one caller and to many?

Over the Open Inference Protocol, with binary tensors: of `gan serve`, Triton, and others.
"""

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from ganinfer.bench.connection import Answer, Connection
from ganinfer.bench.measure import BULK, Served
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.golden import limits_of, pixel_failure
from ganinfer.drawing.images import Images
from ganinfer.errors import BackendUnavailable, ParityError
from ganinfer.host.machine import Host, this_host
from ganinfer.open_inference.over_http import LENGTH, packed_request
from ganinfer.progress import Progress
from ganinfer.sampler import Sampler

CALLERS = (1, 8, 32, 128)
_CHECKED = 4  # images

Call = Callable[[int], Awaitable[object]]  # draws images of a seed, and of those that follow


@dataclass(frozen=True)
class Kind:
    """Requests that differ by their seeds alone.

    Attributes:
        output: "images" or "png". n: images of each.
    """

    output: str
    n: int

    def __str__(self) -> str:
        name = "raw" if self.output == "images" else self.output
        return name if self.n == 1 else f"{name}, {self.n} images"


@dataclass(frozen=True)
class ServerReport:
    """What was measured of a server, and from where.

    Attributes:
        bundle: its path. sha256: of its manifest.
        byte_equal: whether the server's images are those of a Sampler here, bit for bit; if not,
            they are within the bundle's limits.
        seconds: about how long each figure was measured.
        host: that asked.
        served: by the kind of request, and the number of callers; None where the server refused, as
            its queue was full or its time over.
    """

    bundle: str
    sha256: str
    server: str
    model: str
    byte_equal: bool
    seconds: float
    host: Host
    served: dict[str, dict[int, Served | None]]

    def to_json(self) -> str:
        """All figures."""
        return json.dumps(asdict(self), indent=1) + "\n"


def bench_server(
    path: Path,
    url: str,
    *,
    name: str | None = None,
    key: str | None = None,
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> ServerReport:
    """Measure a server of a bundle, from here; the bundle and some images are compared first.

    Args:
        path: the bundle.
        url: of the server, http://host:port.
        name: of its model; by default the bundle's file name, without .gan.
        key: shown to the server, as `Authorization: Bearer <key>`.
        seconds: about how long each figure is measured.
        progress: called with (what is being measured, figures done, figures in all).

    Raises:
        BundleError: the bundle is missing or damaged.
        BackendUnavailable: the server does not answer, refuses, or has another bundle.
        ParityError: it gives other images.
        RequestError: that is no address.
    """
    with Bundle(path) as bundle:
        sha256, golden = bundle.sha256, bundle.manifest.golden
        name = name or bundle.name
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    asking = _Asking(url, name, headers)
    precision, kinds = asyncio.run(asking.agree(sha256))
    with Sampler(path, precision=precision, allow_unverified=True) as sampler:
        expected = sampler.sample(_CHECKED)
        limits = limits_of(golden, sampler.info["precision"])
    found = asyncio.run(asking.images(expected.shape, kinds))
    if failure := pixel_failure(found, expected, limits):
        raise ParityError(
            f"{url}: model {name}: its images are not those of this bundle: {failure}; gan verify"
            " --server says more"
        )
    served: dict[str, dict[int, Served | None]] = {str(kind): {} for kind in kinds}
    wanted = [(kind, callers) for kind in kinds for callers in CALLERS]
    for done, (kind, callers) in enumerate(wanted):
        if progress:
            progress(f"{kind} @{callers}", done, len(wanted))
        served[str(kind)][callers] = asyncio.run(asking.measure(kind, callers, seconds))
    equal = bool(np.array_equal(found, expected))
    return ServerReport(str(path), sha256, url, name, equal, seconds, this_host(), served)


async def press(calls: Sequence[Call], n: int, seconds: float) -> Served:
    """What callers get, after a quarter as long that is not counted.

    Args:
        calls: one a caller; each draws n images from the seed that it is given.
        n: images of a call.
        seconds: about how long.
    """
    await _times(calls, n, seconds / 4)
    began = time.perf_counter()
    times = await _times(calls, n, seconds)
    return Served.of(times, time.perf_counter() - began, n)


async def _times(calls: Sequence[Call], n: int, seconds: float) -> list[float]:
    """Seconds of each request."""
    end, times = time.perf_counter() + seconds, []

    async def caller(number: int, call: Call) -> None:
        for seed in range(number << 32, (number + 1) << 32, n):
            began = time.perf_counter()
            await call(seed)
            times.append(time.perf_counter() - began)
            if time.perf_counter() > end:
                break

    await asyncio.gather(*(caller(number, call) for number, call in enumerate(calls)))
    return times


class _TooMuch(BackendUnavailable):
    """The server has too much to do."""


class _Asking:
    """Requests to one model of a server."""

    def __init__(self, url: str, name: str, headers: Mapping[str, str]) -> None:
        self._url, self._name, self._headers = url, name, headers
        self._path = f"/v2/models/{quote(name, safe='')}"
        self._columns = False  # whether a seed is (N, 1), not (N,)

    async def agree(self, sha256: str) -> tuple[str, list[Kind]]:
        """The precision that the server says, or "auto", and the kinds of requests it takes."""
        async with Connection(self._url, self._headers) as connection:
            model = self._json(await connection.ask("GET", self._path))
            config = self._json(await connection.ask("GET", f"{self._path}/config"))
        try:
            told = {key: one["string_value"] for key, one in config["parameters"].items()}
            other = told["bundle_sha256"]
            shapes = {one["name"]: one["shape"] for one in model["inputs"]}
            self._columns = len(shapes["seed"]) == 2
            outputs = {one["name"] for one in model["outputs"]}
            largest = int(config["max_batch_size"])
        except (AttributeError, LookupError, TypeError, ValueError):
            raise self._wrong(
                "it does not say which bundle it serves; expected gan serve, or Triton with a"
                " repository of gan triton"
            ) from None
        if other != sha256:
            raise self._wrong(f"it serves the bundle {other!s:.12}, and this one is {sha256:.12}")
        sizes = [("images", 1), ("png", 1), ("images", BULK)]
        kinds = [Kind(output, n) for output, n in sizes if output in outputs and n <= largest]
        return told.get("precision", "auto"), kinds

    async def images(self, shape: tuple[int, ...], kinds: Sequence[Kind]) -> Images:
        """Of the first seeds, in one request; the first of them also as a file, if it gives any."""
        async with Connection(self._url, self._headers) as connection:
            raw = await self._ask(connection, Kind("images", shape[0]), 0)
            with_file = any(kind.output == "png" for kind in kinds)
            packed = await self._ask(connection, Kind("png", 1), 0) if with_file else None
        try:
            images = np.frombuffer(_tail(raw), np.uint8).reshape(shape)
            if packed is None:
                return images
            picture = np.asarray(Image.open(io.BytesIO(_tail(packed)[4:])))  # behind its length
        except (LookupError, OSError, ValueError) as error:
            raise self._wrong(f"expected tensors of {shape} as bytes, and files: {error}") from None
        if picture.tobytes() != images[0].tobytes():
            raise ParityError(
                f"{self._url}: model {self._name}: its PNG of seed 0 has other pixels than its raw"
                " image"
            )
        return images

    async def measure(self, kind: Kind, num_callers: int, seconds: float) -> Served | None:
        """Callers who keep a connection each; None if that is more than the server takes."""

        def call(connection: Connection) -> Call:
            return lambda seed: self._ask(connection, kind, seed)

        async with AsyncExitStack() as stack:
            opened = [
                await stack.enter_async_context(Connection(self._url, self._headers))
                for _ in range(num_callers)
            ]
            try:
                return await press([call(connection) for connection in opened], kind.n, seconds)
            except _TooMuch:
                return None

    async def _ask(self, connection: Connection, kind: Kind, seed: int) -> Answer:
        seeds = np.arange(seed, seed + kind.n, dtype="<u8")
        shape = [kind.n, 1] if self._columns else [kind.n]
        body, headers = packed_request([("seed", "UINT64", seeds)], shape, kind.output)
        answer = await connection.ask("POST", f"{self._path}/infer", body, headers)
        self._check(answer)
        return answer

    def _json(self, answer: Answer) -> Any:
        self._check(answer)
        try:
            return json.loads(answer.body)
        except ValueError:
            raise self._wrong("its description is no JSON") from None

    def _check(self, answer: Answer) -> None:
        if answer.status != 200:
            words = answer.body.decode(errors="replace").strip()
            hint = "; see --api-key-file" if answer.status == 401 else ""
            error = self._wrong(f"{answer.status}: {words[:300]}{hint}")
            raise _TooMuch(*error.args) if answer.status in (429, 503, 504) else error

    def _wrong(self, what: str) -> BackendUnavailable:
        return BackendUnavailable(f"{self._url}: model {self._name}: {what}")


def _tail(answer: Answer) -> bytes:
    """The tensors' bytes, behind the JSON part."""
    return answer.body[int(answer.headers[LENGTH.lower()]) :]
