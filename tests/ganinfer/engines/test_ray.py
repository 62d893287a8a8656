"""Work on real clusters of Ray, all of whose processes are on this machine."""

import json
import os
import pickle
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganinfer
from ganinfer import Sampler
from ganinfer.engines.cluster import Cluster
from ganinfer.engines.ray import spread
from ganinfer.errors import MissingExtra, RequestError
from ganinfer.shards import plan, write_shards

ROOT = Path(ganinfer.__file__).parent.parent

# Three nodes, until somebody closes its input.
THREE_NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
print("it listens at", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

# A format whose fifth shard kills its actor, and whose twelfth the driver, each once.
FATAL = """
import os, signal, time
from itertools import chain
from pathlib import Path
from ganinfer.formats.npz import pack, write as write_npz

def write(sink, parts, count):
    first = next(parts)
    for number, victim in ((5, "actor"), (12, "driver")):
        pid = Path(__file__).with_name(victim)
        if first.seeds[0] == 100 * number and pid.exists():
            sink.write(b"half of it")
            victim = int(pid.read_text() or os.getpid())
            pid.unlink()
            os.kill(victim, signal.SIGKILL)
            time.sleep(60)  # an actor does not outlive its driver for long
    write_npz(sink, chain([first], parts), count)
"""

# Workers, and what they are to see of a cluster that starts for them.
WORKERS = """
import os, signal
from pathlib import Path
from ganinfer.errors import DataError

def sockets():
    return lambda item: listening(os.environ["RAY_AUTH_TOKEN"].encode())

def listening(token):
    mine = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if token in (process / "environ").read_bytes():
                mine |= {os.readlink(fd) for fd in (process / "fd").iterdir()}
        except OSError:
            pass
    rows = [line.split() for f in ("tcp", "tcp6") for line in open(f"/proc/net/{f}")]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine]

def failing():
    def work(error):
        raise {"DataError": DataError("no data"), "OSError": OSError(28, "full", "x.tar")}[error]
    return work

def dying():
    return lambda item: os.kill(os.getpid(), signal.SIGKILL)

def unopened():
    raise DataError("not here")
"""

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}  # as Linux writes 127.0.0.1

LOCAL = """
from workers import sockets
from ganinfer.engines.cluster import Cluster
from ganinfer.engines.ray import spread
for _ in range(2):
    ((_, found),) = spread(sockets, [0], Cluster())
    print(*found)
"""

ERRORS = """
import json
import workers
from ganinfer.engines.cluster import Cluster
from ganinfer.engines.ray import spread

def error(make, items, **options):
    try:
        list(spread(make, items, Cluster(**options)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

said = [error(workers.failing, [0], address=place) for place in ("127.0.0.1:9", "x")]
import ray
ray.init("local", num_cpus=2, include_dashboard=False)
said += [error(workers.failing, [name]) for name in ("DataError", "OSError")]
said += [error(workers.unopened, [0]), error(workers.dying, [0])]
said += [error(workers.failing, [0], gpus=1)]
assert ray.is_initialized()
print(json.dumps(said))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with modules of the user's own."""
    (tmp_path / "workers.py").write_text(WORKERS)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/__init__.py").touch()
    (tmp_path / "own/fatal.py").write_text(FATAL)
    return tmp_path


@pytest.fixture
def environment(place: Path) -> dict[str, str]:
    """Of programs that use Ray; what Ray leaves in a home would be there."""
    found = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    (place / "home").mkdir()
    return {**found, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}", "HOME": str(place / "home")}


@pytest.fixture
def three_nodes(ray_python: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a cluster, which listens on the loopback interface alone."""
    environment |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with subprocess.Popen(
        [ray_python, "-c", THREE_NODES],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        for line in process.stdout:
            if line.startswith("it listens at"):
                yield line.split()[-1]
                break
        process.stdin.close()
    assert process.returncode == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files, hidden ones too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_actor_and_driver_may_be_killed(
    three_nodes: str, ray_python: Path, environment, place: Path, bundle: Path, monkeypatch
) -> None:
    opening = ["--backend", "onnxruntime", "--precision", "fp32"]
    command = [ray_python, "-c", "from ganexport.cli.gan import main; main()", "sample", bundle]
    command += ["-n", "2350", "--shard-size", "100", "--format", "own.fatal", *opening]
    command += ["-o", "shards", "--engine", "ray", "--address", three_nodes]
    (place / "own/actor").touch()
    with subprocess.Popen(command, cwd=place, env=environment) as process:
        (place / "own/driver").write_text(str(process.pid))
    assert process.returncode == -signal.SIGKILL
    assert not list((place / "own").glob("actor"))
    finished = len(list((place / "shards/records").glob("*.json")))
    assert 6 <= finished < 24
    again = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    kept = int(again.stdout.split()[0])
    assert finished <= kept < 24  # an actor may outlive its driver by a shard
    monkeypatch.syspath_prepend(place)
    with Sampler(bundle, backend="onnxruntime", precision="fp32") as sampler:
        options = {"format": "own.fatal", "shard_size": 100}
        write_shards(sampler, 2350, place / "calm", **options)
    assert contents(place / "shards") == contents(place / "calm")


@pytest.mark.slow
def test_a_cluster_that_starts_here_is_open_to_nobody_else(
    ray_python: Path, environment, place: Path
) -> None:
    done = subprocess.run(
        [ray_python, "-c", LOCAL], env=environment, capture_output=True, text=True
    )
    found = done.stdout.split()
    assert len(found) > 3, done.stderr
    assert set(found) <= LOOPBACK
    assert not list((place / "home").iterdir())


@pytest.mark.slow
def test_what_fails_is_told_in_words(ray_python: Path, environment) -> None:
    done = subprocess.run(
        [ray_python, "-c", ERRORS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # Ray tells of workers that died on stdout, whenever it likes.
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("[")]
    found = json.loads(line)
    expected = [
        "BackendUnavailable: ray: 127.0.0.1:9: no cluster can be reached there",
        "BackendUnavailable: ray: x: no cluster can be reached there",
        "DataError: no data",
        "OSError: [Errno 28] full: 'x.tar'",
        "DataError: not here",
        "BackendUnavailable: ray: 4 actors died at the same work, one after the other",
        "BackendUnavailable: ray: an actor takes 1 CPUs and 1 GPUs, and the nodes have 2 and 0",
    ]
    for words, text in zip(expected, found, strict=True):
        assert words in text
        assert "Traceback" not in text


def test_without_ray_its_extra_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"ganpipe\[ray\]"):
        list(spread(dict, [0], Cluster()))


@pytest.mark.parametrize("options", [{"cpus": 0}, {"gpus": -1.0}, {"actors": 0}])
def test_an_actor_that_cannot_be_is_refused(options: dict) -> None:
    with pytest.raises(RequestError, match=rf"{next(iter(options))}: found .*; expected"):
        Cluster(**options)


def test_a_plan_may_be_sent_to_other_processes(
    bundle: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)
    with Sampler(bundle, backend="onnxruntime") as sampler:
        sent = pickle.dumps(plan(sampler, 100, format="own.fatal", labels=[2, 0]))
    planned = pickle.loads(sent)
    assert planned.write(0, place / "x").count == 100
    (place / "own/fatal.py").write_text(f"{FATAL}# changed\n")
    with pytest.raises(RequestError, match=r"own.fatal: its sources here are others"):
        pickle.loads(sent)
