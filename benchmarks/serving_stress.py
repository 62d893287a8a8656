"""`gan serve` under load, among clients that hang up and clients that send anything at all.

    python benchmarks/serving_stress.py BUNDLE OTHER [--minutes 5] [-o FILE.json]

Two hundred clients on this machine ask a real server, whose bundle is exchanged every ten seconds
for OTHER, of another training of the same recipe, and back. Eight in ten are well-behaved: they ask
for raw tensors, for PNGs by URL with ETags, and as OpenAI's clients do, and compare every answer,
bit for bit, with what a Sampler of either bundle gives: it must be wholly of one. Told 429 or 503
with Retry-After, they ask again. One in ten hangs up amid a request, one in ten sends what
benchmarks/hostile_requests.py makes, or half of a request, slowly. At the end the server gets
SIGTERM under this load. It ends by itself, and with status 1 if anything is not as it should be.
"""

import argparse
import asyncio
import base64
import json
import random
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_requests import KINDS, good_body, infer
from server_process import Server, gan_serve
from soak import Swapped

from ganinfer import Sampler
from ganinfer.bench.connection import Answer, Connection
from ganinfer.drawing.images import encode_pngs
from ganinfer.errors import BackendUnavailable
from ganinfer.host.machine import this_host
from ganinfer.open_inference.over_http import LENGTH, packed_request

NUM_CLIENTS, NUM_KINDS, EVERY_S, DRAIN_S = 200, 40, 10.0, 10
END_S = DRAIN_S + 15.0  # of a machine that is busy
TIMEOUT_S = 5.0  # of the server; slow bodies are told so then
MOST_GROWTH = 1.25  # of memory, in the last third over the second


class Truth:
    """What either bundle gives."""

    def __init__(self, bundles: list[Path]) -> None:
        rng = random.Random(0)
        self.sizes = [rng.choice([1, 1, 1, 2, 5, 16, 64]) for _ in range(NUM_KINDS)]
        self.first = [rng.randrange(1 << 63) for _ in range(NUM_KINDS)]
        self.raw: list[list[bytes]] = [[] for _ in range(NUM_KINDS)]
        self.png: list[list[bytes]] = [[] for _ in range(NUM_KINDS)]  # of the first image
        for path in bundles:
            with Sampler(path) as sampler:
                for kind, (n, seed) in enumerate(zip(self.sizes, self.first, strict=True)):
                    images = sampler.sample(n, seed=seed)
                    self.raw[kind].append(images.tobytes())
                    self.png[kind] += encode_pngs(images[:1])
        assert all(one != other for one, other in self.raw)


class Load:
    """The clients, and what became of their requests."""

    def __init__(self, server: Server, truth: Truth, seconds: float) -> None:
        self._server, self._truth = server, truth
        self._end = time.monotonic() + seconds
        self._stopping = False  # SIGTERM was sent
        self._etags: dict[str, bytes] = {}  # the file that each came with
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self) -> dict[str, Any]:
        """All clients, until some time after SIGTERM; how the server ended."""
        roles = [self.hangs_up, self.is_hostile, *[self.is_good] * 8]
        clients = [
            asyncio.create_task(roles[number % len(roles)](random.Random(number)))
            for number in range(NUM_CLIENTS)
        ]
        await asyncio.sleep(self._end - time.monotonic())
        self._stopping, began = True, time.monotonic()
        self._server.process.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.to_thread(self._server.process.wait, END_S)
        except subprocess.TimeoutExpired:  # what it does instead is in its log then
            self._server.process.send_signal(signal.SIGABRT)
            status = await asyncio.to_thread(self._server.process.wait)
        ended = time.monotonic() - began
        await asyncio.gather(*clients)
        return {"status": status, "seconds": ended}

    def over(self) -> bool:
        return self._stopping and self._server.process.poll() is not None

    async def is_good(self, rng: random.Random) -> None:
        """Asks in all three ways, and again if it is told to."""
        ways = [self.asks_tensors, self.asks_url, self.asks_as_openai]
        while not self.over():
            try:
                async with Connection(self._server.url) as connection:
                    for _ in range(rng.randint(1, 200)):
                        if self._stopping:
                            self.outcomes["begun after SIGTERM"] += 1
                        await rng.choice(ways)(connection, rng.randrange(NUM_KINDS))
            except BackendUnavailable:
                self.outcomes["cut off at the end" if self._stopping else "CUT OFF"] += 1
                await asyncio.sleep(0.05)

    async def asks_tensors(self, connection: Connection, kind: int) -> None:
        n, first = self._truth.sizes[kind], self._truth.first[kind]
        seeds = np.arange(first, first + n, dtype="<u8")
        body, headers = packed_request([("seed", "UINT64", seeds)], [n])
        answer = await self.answered(
            connection, "POST", "/v2/models/x/infer", body, headers=headers
        )
        if answer.status == 200:
            found = answer.body[int(answer.headers[LENGTH.lower()]) :]
            self.judge("raw", found, self._truth.raw[kind])

    async def asks_url(self, connection: Connection, kind: int) -> None:
        path = f"/v1/x/image.png?seed={self._truth.first[kind]}"
        known = random.sample(sorted(self._etags), len(self._etags) // 4)
        headers = {"If-None-Match": ", ".join(known)}
        answer = await self.answered(connection, "GET", path, headers=headers)
        tag = answer.headers.get("etag", "")
        if answer.status == 304:
            self.judge("png by its ETag", self._etags.get(tag, b"unknown"), self._truth.png[kind])
        elif answer.status == 200:
            self.judge("png", answer.body, self._truth.png[kind])
            if self._etags.setdefault(tag, answer.body) != answer.body:
                self.fault(f"WRONG: {tag} is of two pictures")

    async def asks_as_openai(self, connection: Connection, kind: int) -> None:
        body = {"prompt": "", "seed": self._truth.first[kind], "response_format": "b64_json"}
        data = json.dumps(body).encode()
        answer = await self.answered(connection, "POST", "/v1/images/generations", data)
        if answer.status == 200:
            (one,) = json.loads(answer.body)["data"]
            self.judge("openai", base64.b64decode(one["b64_json"]), self._truth.png[kind])

    async def answered(self, connection: Connection, *asked: Any, headers: Any = None) -> Answer:
        """The answer, in the end."""
        while True:
            sent_before = not self._stopping
            try:
                answer = await connection.ask(*asked, headers=headers)
            except BackendUnavailable as error:
                if sent_before:
                    self.fault(f"LOST: {error}")
                raise
            if answer.status not in (429, 503):
                break
            self.outcomes[f"asked again after {answer.status}"] += 1
            if "retry-after" not in answer.headers:
                self.fault(f"WRONG: {answer.status} without Retry-After")
            if self._stopping:
                return answer
            await asyncio.sleep(float(answer.headers.get("retry-after", 1)) * random.random())
        if answer.status not in (200, 304):
            self.fault(f"WRONG: {answer.status}: {answer.body[:200]!r}")
        return answer

    def judge(self, what: str, found: bytes, rights: list[bytes]) -> None:
        self.outcomes[f"right, {what}"] += found in rights
        if found not in rights:
            self.fault(f"WRONG: {what}")

    def fault(self, what: str) -> None:
        self.outcomes[what.partition(":")[0]] += 1
        self.wrong.append(what[:300])

    async def hangs_up(self, rng: random.Random) -> None:
        """Amid its request, or before it has the answer; politely or not."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sent = infer(good_body(rng, rng.choice([1, 64, 900])))
            writer.write(sent[: rng.randint(1, len(sent))] if rng.random() < 0.5 else sent)
            await asyncio.sleep(rng.choice([0, 0.001, 0.01, 0.1]))
            if rng.random() < 0.5:  # a reset, not an end
                writer.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                writer.transport.abort()
            self.outcomes["hung up"] += 1

        while not self.over():
            await self.connected(talk)
            await asyncio.sleep(rng.uniform(0.02, 0.2))

    async def is_hostile(self, rng: random.Random) -> None:
        """Sends anything; whatever is answered is no fault of the server's."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            kind = rng.choice(KINDS)
            sent, slow = kind(rng), rng.random() < 0.05
            writer.write(sent[: len(sent) // 2] if slow else sent)
            if not slow and rng.random() < 0.1:
                writer.write_eof()
            answer = b""
            try:
                async with asyncio.timeout(2 * TIMEOUT_S if slow else 1.0):
                    answer = await reader.read(4096)
                    while len(answer) < 12 and (more := await reader.read(4096)):
                        answer += more
            except TimeoutError:
                pass
            name = "half, slowly" if slow else kind.__name__
            status = answer[9:12].decode("latin-1") or "nothing"
            self.outcomes[f"hostile: {status}"] += 1
            if status[0] == "5" and status not in ("503", "504"):
                self.fault(f"WRONG: {status} to {name}: {answer[-300:]!r} {sent[:200]!r}")

        while not self.over():
            await self.connected(talk)

    async def connected(self, talk: Callable[..., Any]) -> None:
        port = int(self._server.url.rpartition(":")[2])
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await talk(reader, writer)
            finally:
                writer.close()
        except OSError:
            self.outcomes["connection closed"] += 1
            await asyncio.sleep(0.05)


def watch(server: Server, swapped: Swapped, found: dict[str, Any]) -> None:
    """Memory each second, another bundle every ten; until the server ends."""
    begun, next_swap = time.monotonic(), EVERY_S
    while server.process.poll() is None:
        try:
            status = Path(f"/proc/{server.process.pid}/status").read_text()
        except OSError:
            break
        (line,) = [one for one in status.splitlines() if one.startswith("VmRSS")] or ["VmRSS 0"]
        found["rss_mib"].append(round(int(line.split()[1]) / 1024, 1))
        if time.monotonic() - begun > next_swap:
            next_swap += EVERY_S
            swapped.swap()
            server.process.send_signal(signal.SIGHUP)
            found["swaps"] += 1
        time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs=2)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {"host": str(this_host()), "rss_mib": [], "swaps": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = Truth(given.bundles)
        swapped = Swapped(folder / "x.gan", given.bundles)
        options = ("--timeout-s", TIMEOUT_S, "--drain-s", DRAIN_S, "--max-queue", 64)
        with gan_serve(folder / "log", folder / "x.gan", *options) as server:
            watching = threading.Thread(target=watch, args=(server, swapped, found))
            watching.start()
            load = Load(server, truth, 60 * given.minutes)
            found["end"] = asyncio.run(load.run())
            watching.join()
        log = (folder / "log").read_text()
    third = max(1, len(found["rss_mib"]) // 3)
    second, last = max(found["rss_mib"][third : 2 * third]), max(found["rss_mib"][2 * third :])
    held = {
        "every answer is right, and none is lost": not load.wrong and not load.outcomes["CUT OFF"],
        "its bundle was exchanged": log.count(": reloaded")
        >= max(1, found["swaps"] - 1),  # the last
        "no traceback": "Traceback" not in log,
        "memory is bounded": last <= MOST_GROWTH * second,
        "it ended with 0, in time": found["end"]["status"] == 0,
    }
    failed = [name for name, true in held.items() if not true]
    if failed:
        found["log"] = log[-8000:]
    found |= {"outcomes": dict(sorted(load.outcomes.items()))}
    found["wrong"] = dict(Counter(load.wrong).most_common(20))
    found["held"] = held
    text = json.dumps(found, indent=1)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")
    raise SystemExit(f"stress: not so: {'; '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
