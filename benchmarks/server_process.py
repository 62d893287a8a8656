"""Servers in processes of their own, for benchmarks/serving.py and benchmarks/serving_stress.py."""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GAN = [sys.executable, "-X", "faulthandler", "-c", "from ganexport.cli.gan import main; main()"]


@dataclass(frozen=True)
class Server:
    url: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def started(command: list[str], log: Path, **options: Any) -> Iterator[Server]:
    """A server on this machine that has said where it serves; ended at the end."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, **options)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{' '.join(command)}:\n{log.read_text()}")
            time.sleep(0.05)
        yield Server(found[0], process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


@contextmanager
def gan_serve(log: Path, *arguments: object) -> Iterator[Server]:
    """`gan serve` on a free port, ready."""
    with started([*GAN, "-v", "serve", *map(str, arguments), "--port", "0"], log) as server:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{server.url}/readyz").close()
            except OSError:
                time.sleep(0.1)
            else:
                break
        else:
            raise SystemExit(f"{server.url} is not ready:\n{log.read_text()}")
        yield server
