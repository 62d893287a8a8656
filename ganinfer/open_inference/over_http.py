"""Asks a server for images by the Open Inference Protocol, version 2, over HTTP.

Triton speaks it, and KServe, and others. Tensors go as bytes, which is the protocol's binary
extension; an answer may be JSON. N images of (H, W, C).
"""

import http.client
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.images import Images
from ganinfer.errors import BackendUnavailable, RequestError

LENGTH = "Inference-Header-Content-Length"
MOST_IMAGES = 64  # of a request, if the server says nothing
TIMEOUT_S = 120.0
LARGEST_HEADER = 1 << 20
_JSON_BYTES = 8  # of a pixel's number, at most
# What reading JSON of any shape raises.
_MALFORMED = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


class ServedModel:
    """A model of a server: seed [, label] [, truncation] -> images.

    Attributes:
        name: as the server knows it. url: of the server.
        batch_size: the most images of a request.
    """

    def __init__(
        self, url: str, name: str, shape: tuple[int, int, int], *, api_key: str | None = None
    ) -> None:
        """Ask the server what the model takes.

        Args:
            url: of the server, http://host:port.
            name: of the model.
            shape: (H, W, C) of its images.
            api_key: that it asks for, if it does.

        Raises:
            RequestError: that is no such address.
            BackendUnavailable: nobody answers there, or the model is another one.
        """
        self.url, self.name, self._shape = url.rstrip("/"), name, shape
        self._api_key = api_key
        self._open()
        inputs = self._inputs()
        if "seed" not in inputs:
            raise BackendUnavailable(
                f"{self.url}: model {name} takes {', '.join(inputs) or 'nothing'}; expected seed"
                " -> images, as gan triton makes it; choose it with --model"
            )
        self._takes_columns = len(inputs["seed"]) == 2  # (N, 1), not (N,)
        self.batch_size = self._batch_size()

    def images(
        self,
        seeds: Sequence[int],
        *,
        labels: Sequence[int] | None = None,
        truncation: float | None = None,
    ) -> Images:
        """Images uint8 (N, H, W, C) of seeds, in as many requests as it takes.

        Args:
            seeds: integers in [0, 2**64), one an image.
            labels: classes, one an image; None lets each seed draw its own.
            truncation: None for none.

        Raises:
            BackendUnavailable: the server refuses, or answers something else than such images.
        """
        found = []
        for start in range(0, len(seeds), self.batch_size):
            stop = min(start + self.batch_size, len(seeds))
            tensors = [("seed", "UINT64", np.array(seeds[start:stop], "<u8"))]
            if labels is not None:
                tensors.append(("label", "INT64", np.array(labels[start:stop], "<i8")))
            if truncation is not None:
                values = np.full(stop - start, truncation, "<f8")
                tensors.append(("truncation", "FP64", values))
            images = self._infer(stop - start, tensors)
            expected = (stop - start, *self._shape)
            if images.shape != expected:
                raise self._foreign(f"images of shape {images.shape}, not {expected}")
            found.append(images)
        return np.concatenate(found)

    def _column(self, n: int) -> list[int]:
        """The shape of one value an image."""
        return [n, 1] if self._takes_columns else [n]

    def _open(self) -> None:
        """Find out where the server is."""
        self._connect, self._path = _place(self.url)
        # Bytes, as http.client takes no text beyond latin-1.
        key = self._api_key
        self._headers = {"Authorization": f"Bearer {key}".encode()} if key else {}

    def _infer(self, n: int, tensors: list[tuple[str, str, NDArray[Any]]]) -> Images:
        """Images of so many seeds, of whatever shape the server gives them."""
        body, headers = packed_request(tensors, self._column(n))
        size = n * math.prod(self._shape)
        status, length, answer = self._ask("POST", "/infer", size, body, headers)
        self._check(status, answer)
        try:
            return _output(answer, length)
        except _MALFORMED:
            raise self._foreign("an answer that is none of the protocol") from None

    def _inputs(self) -> dict[str, list[int]]:
        """Name -> shape of what the model takes."""
        status, _, answer = self._ask("GET", "", 0)
        self._check(status, answer)
        try:
            return {one["name"]: list(one["shape"]) for one in json.loads(answer)["inputs"]}
        except _MALFORMED:
            raise self._foreign("a description that is none of the protocol") from None

    def _batch_size(self) -> int:
        """As the server says, if it has this extension of the protocol."""
        status, _, answer = self._ask("GET", "/config", 0)
        try:
            largest = int(json.loads(answer)["max_batch_size"]) if status == 200 else 0
        except _MALFORMED:
            largest = 0
        return min(largest, MOST_IMAGES) if largest > 0 else MOST_IMAGES

    def _ask(
        self,
        method: str,
        path: str,
        pixels: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str | None, bytes]:
        """Status, length of the JSON part if there are tensors behind it, and the answer."""
        target = f"{self._path}/v2/models/{quote(self.name, safe='')}{path}"
        most = LARGEST_HEADER + _JSON_BYTES * pixels
        try:
            with closing(self._connect()) as connection:
                connection.request(
                    method, target, body or None, {**(headers or {}), **self._headers}
                )
                response = connection.getresponse()
                answer = response.read(most + 1)
        except (OSError, http.client.HTTPException) as error:
            raise BackendUnavailable(
                f"{self.url}: no answer in HTTP ({error!r}); is the server up, and this its port?"
            ) from None
        if len(answer) > most:
            raise self._foreign(f"more than {most:,} bytes")
        return response.status, response.headers[LENGTH], answer

    def _check(self, status: int, answer: bytes) -> None:
        if status == 200:
            return
        try:
            words = str(json.loads(answer)["error"])
        except _MALFORMED:
            words = answer.decode(errors="replace").strip()
        if status in (401, 403):
            words += "; see --api-key-file"
        raise BackendUnavailable(f"{self.url}: model {self.name}: {status}: {words[:300]}")

    def _foreign(self, found: str) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self.url}: model {self.name}: {found}; is it the model of this bundle, as gan triton"
            " makes it?"
        )


def _place(url: str) -> tuple[Callable[[], http.client.HTTPConnection], str]:
    """What opens a connection to a server, and the path before that of the protocol.

    Raises:
        RequestError: that is no address.
    """
    parts = checked_address(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connect = partial(kinds[parts.scheme], parts.hostname, parts.port, timeout=TIMEOUT_S)
    return connect, parts.path


def checked_address(url: str) -> SplitResult:
    """The parts of a server's address; it has a host.

    Raises:
        RequestError: that is no address.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise RequestError(f"server {url}: expected an address, as in http://localhost:8000")
    return parts


def packed_request(
    tensors: Sequence[tuple[str, str, NDArray[Any]]], shape: list[int], output: str = "images"
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request whose tensors, all of one shape, are bytes.

    Args:
        tensors: name, datatype and little-endian values of each.
        shape: (N, 1) or (N,).
        output: what is asked for, as bytes.
    """
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, datatype, array in tensors
    ]
    outputs = [{"name": output, "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(header))}
    return header + b"".join(array.tobytes() for _, _, array in tensors), headers


def _output(answer: bytes, length: str | None) -> Images:
    """The output "images": in bytes behind the JSON part, or in it."""
    start = len(answer) if length is None else int(length)
    for output in json.loads(answer[:start])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if output["name"] == "images":
            if output["datatype"] != "UINT8":
                raise ValueError("not pixels")
            if size is None:
                return np.array(output["data"], np.uint8).reshape(output["shape"])
            pixels = np.frombuffer(answer[start : start + size], np.uint8)
            return pixels.reshape(output["shape"])
        start += size or 0
    raise KeyError("images")
