"""What no client should send: bytes of requests, for benchmarks/serving_stress.py.

Each is a function of a random generator; what it gives is written to a connection as it is.
"""

import gzip
import json
import random
import struct
from collections.abc import Callable

HOST = b"Host: 127.0.0.1\r\n"
BOMB = gzip.compress(bytes(64 << 20))  # 64 kB


def post(path: str, body: bytes, headers: str = "", length: int | str | None = None) -> bytes:
    """A request whose Content-Length need not be that of its body."""
    told = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nContent-Length: {told}\r\n{headers}"
    return head.encode("latin-1") + HOST + b"\r\n" + body


def get(target: bytes, headers: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n"


def infer(body: object, headers: str = "", path: str = "/v2/models/x/infer") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post(path, data, headers)


def good_body(rng: random.Random, n: int = 2) -> dict[str, object]:
    seeds = [rng.randrange(1 << 64) for _ in range(n)]
    return {"inputs": [{"name": "seed", "shape": [n], "datatype": "UINT64", "data": seeds}]}


def flipped_bytes(rng: random.Random) -> bytes:
    body = bytearray(json.dumps(good_body(rng)).encode())
    for _ in range(rng.randint(1, 8)):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return infer(bytes(body))


def random_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(1, 4000)) + b"\r\n\r\n"


def random_body(rng: random.Random) -> bytes:
    return infer(rng.randbytes(rng.randint(0, 4000)))


def huge_numbers(rng: random.Random) -> bytes:
    number = rng.choice(["9" * 4000, "1e999", "-1e999", "NaN", "18446744073709551616", "-1"])
    place = rng.choice(["shape", "data"])
    seed = {"name": "seed", "shape": [1], "datatype": "UINT64", "data": [7], place: ["@"]}
    return infer(json.dumps({"inputs": [seed]}).replace('"@"', number).encode())


def huge_shape(rng: random.Random) -> bytes:
    shape = rng.choice([[1 << 62], [1 << 31, 1 << 31], [0], [-1], [], [1, 1, 1]])
    seed = {"name": "seed", "shape": shape, "datatype": "UINT64"}
    seed |= {"parameters": {"binary_data_size": rng.choice([0, 8, -8, 1 << 62, 1.5, "8", True])}}
    head = json.dumps({"inputs": [seed]}).encode()
    return infer(head + bytes(8), f"Inference-Header-Content-Length: {len(head)}\r\n")


def deep_json(rng: random.Random) -> bytes:
    return infer(rng.choice([b"[", b'{"inputs":']) * rng.randint(1000, 100_000))


def wrong_types(rng: random.Random) -> bytes:
    anything = [None, True, 1.5, "x", [], {}, [[[]]], -1, {"inputs": {}}]
    body = good_body(rng)
    tensor = body["inputs"][0]  # type: ignore[index]
    tensor[rng.choice(list(tensor))] = rng.choice(anything)
    body[rng.choice(["id", "outputs", "parameters"])] = rng.choice(anything)
    return infer(body)


def truncated_tensor(rng: random.Random) -> bytes:
    n = rng.randint(1, 9)
    seed = {"name": "seed", "shape": [n], "datatype": "UINT64"}
    head = json.dumps({"inputs": [seed | {"parameters": {"binary_data_size": 8 * n}}]}).encode()
    tail = struct.pack(f"<{n}Q", *range(n))[: rng.randrange(8 * n)]
    return infer(head + tail, f"Inference-Header-Content-Length: {len(head)}\r\n")


def header_length(rng: random.Random) -> bytes:
    told = rng.choice(["-1", "1e3", "9" * 15, "9" * 400, "0", "3", "x", "", "\xb2"])
    body = json.dumps(good_body(rng)).encode()
    return infer(body, f"Inference-Header-Content-Length: {told}\r\n")


def content_length(rng: random.Random) -> bytes:
    told = rng.choice(["-1", "x", "9" * 30, str(1 << 40), "0", "7, 7", ""])
    return post("/v2/models/x/infer", b"{}", length=told)


def many_headers(rng: random.Random) -> bytes:
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 50) for n in range(rng.choice([200, 20_000])))
    return get(b"/v1/x/image.png", lines)


def long_header(rng: random.Random) -> bytes:
    return get(b"/livez", b"X-Long: " + b"z" * rng.choice([10_000, 300_000, 3_000_000]) + b"\r\n")


def long_path(rng: random.Random) -> bytes:
    return get(b"/v1/" + b"a" * rng.choice([10_000, 300_000]) + b"/image.png")


def bad_headers(rng: random.Random) -> bytes:
    lines = [b"No colon\r\n", b": empty\r\n", b"A: \x00\r\n", b"Host: b\r\n", b"A\r\n b\r\n"]
    lines += [b"Transfer-Encoding: chunked\r\n", b"X-Request-Id: a\rb\r\n", b"Expect: x\r\n"]
    lines += [b"If-None-Match: " + b'"x",' * 5000 + b"\r\n", b"Connection: upgrade\r\n"]
    return get(b"/v1/x/image.png", b"".join(rng.sample(lines, rng.randint(1, 4))))


def bad_chunks(rng: random.Random) -> bytes:
    chunks = rng.choice(
        [b"x\r\n", b"-1\r\n", b"FFFFFFFFFFFFFFFFF\r\n{", b"2\r\n{}XX", b"0\r\n\r\n"]
    )
    head = b"POST /v2/models/x/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    return head + HOST + b"\r\n" + chunks


def path_tricks(rng: random.Random) -> bytes:
    tricks = [b"/../../../etc/passwd", b"/v1/../../etc/passwd", b"/v1/%2e%2e/%2e%2e/etc/passwd"]
    tricks += [b"//etc/passwd", b"/v1/x/..%2f..%2fmanifest.json", b"/v1/x/image.png/../../x"]
    tricks += [b"/v1/%00/image.png", b"/v1/x/image.%ff", b"/v2/models/../models/x/config"]
    tricks += [b"http://169.254.1.1/latest", b"*", b"/v1/x/image.png?seed=%00", b"/\\..\\x"]
    tricks += [b"/v1/x/image.png?" + b"&".join([b"seed=1"] * 2000), b"/v2/repository/index"]
    return get(rng.choice(tricks))


def bomb(rng: random.Random) -> bytes:
    return infer(BOMB, "Content-Encoding: gzip\r\n")


def damaged_gzip(rng: random.Random) -> bytes:
    body = bytearray(gzip.compress(json.dumps(good_body(rng)).encode()))
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    cut = rng.randint(0, len(body))
    return infer(
        bytes(body[:cut]), f"Content-Encoding: {rng.choice(['gzip', 'deflate', 'br'])}\r\n"
    )


def pipelined_junk(rng: random.Random) -> bytes:
    return infer(good_body(rng)) * rng.randint(1, 3) + rng.randbytes(200)


def other_methods(rng: random.Random) -> bytes:
    method = rng.choice([b"PUT", b"DELETE", b"CONNECT", b"TRACE", b"OPTIONS", b"PRI", b"get", b"X"])
    return method + b" /v2/models/x/infer HTTP/" + rng.choice([b"1.1", b"1.0", b"2.0", b"9"]) + (
        b"\r\n" + HOST + b"\r\n"
    )  # fmt: skip


def openai_junk(rng: random.Random) -> bytes:
    body = {"prompt": rng.choice(["", "x" * 9999, "\x00", None, 3]), "n": rng.choice([0, 10**30])}
    body |= {"seed": rng.choice([-1, 2**64, "9" * 5000, 1.5]), "response_format": "b64_json"}
    return post("/v1/images/generations", json.dumps(body).encode())


def too_many(rng: random.Random) -> bytes:
    n = rng.choice([5000, 200_000])
    seed = {"name": "seed", "shape": [n], "datatype": "UINT64", "data": list(range(n))}
    return infer({"inputs": [seed]})


KINDS: list[Callable[[random.Random], bytes]] = [
    flipped_bytes,
    random_bytes,
    random_body,
    huge_numbers,
    huge_shape,
    deep_json,
    wrong_types,
    truncated_tensor,
    header_length,
    content_length,
    many_headers,
    long_header,
    long_path,
    bad_headers,
    bad_chunks,
    path_tricks,
    bomb,
    damaged_gzip,
    pipelined_junk,
    other_methods,
    openai_junk,
    too_many,
]
