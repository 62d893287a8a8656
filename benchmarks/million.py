"""A million images by one process, by four who are killed, and by Ray: the same bytes.

    python benchmarks/million.py digits.gan [-n 1000000] [--ray-python ray/bin/python]
        [-o benchmarks/results/million-<machine>.json]

One process writes all shards and nobody disturbs it. Of four processes, each with a part, two are
killed with SIGKILL twice and started again. Of three actors, each on a node of its own, one is
killed, then the driver, and the same command goes on. All shards are compared by their sha256.

Then three processes with a part each and three actors do the same undisturbed, one thread for
drawing and one for encoding each. What Ray costs is told of the time from the first tenth of the
shards to the last, so that no start is in it; the starts are told beside it.
"""

import argparse
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from road import processor
from shards import GAN, digests

from ganinfer.shards.records import RECORDS

BAR = 1.05  # Ray's seconds over those of plain processes
NODES = 3
HOST = f"""
import sys
from ray.cluster_utils import Cluster
head = {{"num_cpus": 1, "include_dashboard": False}}
cluster = Cluster(initialize_head=True, head_node_args=head)
for _ in range({NODES - 1}):
    cluster.add_node(num_cpus=1)
print("it listens at", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


class Work:
    """A folder that is to be filled; processes that do so, and when its shards were there."""

    def __init__(self, bundle: Path, n: int, shard_size: int, folder: Path) -> None:
        self.folder, self.num_shards = folder, -(-n // shard_size)
        self._command = ["sample", bundle, "-n", n, "--shard-size", shard_size, "-o", folder]
        self.began = time.time()

    def start(
        self,
        *options: object,
        python: str | Path = sys.executable,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen:
        given = [*self._command, "--threads", 1, "--workers", 1, *options]
        return subprocess.Popen(
            [python, "-c", GAN, *map(str, given)], env=env, stdout=subprocess.DEVNULL
        )

    def times(self, part: int = 0, of: int = 1) -> list[float]:
        """When the shards of a part were there, in order."""
        records = (self.folder / RECORDS).glob("shard-*.json")
        mine = [r for r in records if int(r.name.split(".")[0].split("-")[1]) % of == part]
        return sorted(record.stat().st_mtime for record in mine)

    def wait_for(self, share: float, process: subprocess.Popen, part: int = 0, of: int = 1) -> None:
        while len(self.times(part, of)) < share * self.num_shards / of:
            assert process.poll() is None, "it ended before it could be killed; give a larger -n"
            time.sleep(0.02)

    def seconds(self) -> dict[str, float]:
        """Of the whole, of the start, and from the first tenth of the shards to the last."""
        times = self.times()
        return {
            "seconds": round(times[-1] - self.began, 2),
            "to_the_first_shard": round(times[0] - self.began, 2),
            "after_a_tenth": round(times[-1] - times[len(times) // 10], 2),
        }


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def finished(*processes: subprocess.Popen) -> None:
    for process in processes:
        assert process.wait() == 0


def by_parts(work: Work, num_parts: int, victims: tuple[int, ...] = ()) -> None:
    """Each part by a process; the victims are killed at a third and at two thirds of theirs."""
    running = {i: work.start("--shards", f"{i}/{num_parts}") for i in range(num_parts)}
    for share in (1 / 3, 2 / 3) if victims else ():
        for i in victims:
            work.wait_for(share, running[i], i, num_parts)
            kill(running[i])
            running[i] = work.start("--shards", f"{i}/{num_parts}")
    finished(*running.values())
    finished(work.start("--finish"))


@contextmanager
def cluster(python: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Options and environment of who works by it."""
    env = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    command = [python, "-c", HOST]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) as host:
        assert host.stdin
        assert host.stdout
        address = next(line for line in host.stdout if line.startswith("it listens at")).split()[-1]
        yield ["--engine", "ray", "--address", address], env
        host.stdin.close()


def actors(token: str) -> list[int]:
    """Processes of the cluster with this token that are actors."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_actor = (process / "cmdline").read_bytes().startswith(b"ray::_Actor")
            if is_actor and token.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def by_ray(work: Work, python: Path, *, killing: bool = False) -> None:
    with cluster(python) as (options, env):
        work.began = time.time()  # a cluster is there as a rule
        driver = work.start(*options, python=python, env=env)
        if killing:
            work.wait_for(1 / 3, driver)
            os.kill(actors(env["RAY_AUTH_TOKEN"])[0], signal.SIGKILL)
            work.wait_for(2 / 3, driver)
            kill(driver)
            driver = work.start(*options, python=python, env=env)
        finished(driver)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-n", type=int, default=1_000_000)
    parser.add_argument("--shard-size", type=int, default=10_000)
    parser.add_argument("--ray-python", type=Path, default=Path(sys.executable))
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    bundle, python = options.bundle.absolute(), options.ray_python.absolute()
    ways = {
        "one process": lambda work: finished(work.start()),
        "four processes, two of them killed twice": lambda work: by_parts(work, 4, (1, 2)),
        "three actors, one of them killed, and the driver": lambda work: by_ray(
            work, python, killing=True
        ),
        "three processes": lambda work: by_parts(work, NODES),
        "three actors": lambda work: by_ray(work, python),
    }
    expected: dict[str, str] = {}
    differing: dict[str, list[str]] = {}
    seconds: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        with tempfile.TemporaryDirectory(prefix="ganpipe-million-") as folder:
            work = Work(bundle, options.n, options.shard_size, Path(folder, "shards"))
            way(work)
            seconds[name] = work.seconds()
            found = digests(work.folder)
        expected = expected or found
        differing[name] = [name for name, _ in sorted(expected.items() ^ found.items())]
        print(f"{name}: {seconds[name]}, {len(differing[name])} files differ", flush=True)
    ratio = seconds["three actors"]["after_a_tenth"] / seconds["three processes"]["after_a_tenth"]
    result = {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "images": options.n,
        "files": len(expected),
        "files_that_differ": differing,
        "seconds": seconds,
        "ray_over_processes_after_a_tenth": round(ratio, 4),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    good = ratio <= BAR and not any(differing.values())
    print("ok" if good else "NOT ok")
    sys.exit(not good)


if __name__ == "__main__":
    main()
