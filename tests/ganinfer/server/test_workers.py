"""gan serve --workers: processes that share an address, and who looks after them."""

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ganinfer import Sampler
from ganinfer.errors import Ending

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from conftest import rewrite_manifest
from hosting import INFER, Host, seeds, wait_until
from test_serve_command import PROGRAM, serving

from ganinfer.server.workers import shares

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes as Linux shows them")

PICTURE = "/v1/tiny/image.png?seed=7&label=2"


def images(host: Host) -> dict[str, int]:
    """That each worker has drawn."""
    text = host.get("/metrics").body.decode()
    found = re.findall(r'ganinfer_images_total\{.*worker="(\d+)"\} (\d+)', text)
    return {worker: int(count) for worker, count in found}


def warm(host: Host) -> bool:
    """Whether both have drawn each size; /readyz speaks for one of them."""
    return [count >= 127 for count in images(host).values()] == [True, True]


def workers_of(process: "subprocess.Popen[bytes]") -> list[int]:
    """Their numbers as the system has them."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    lines = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
    return [int(pid) for pid, arguments in lines if "spawn_main" in arguments]


def test_two_share_an_address_and_tell_of_each_other(bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, bundle, "--workers", 2, "--access-log") as host:
        assert host.said.count(" serves tiny by 2 workers\n") == 1
        wait_until(lambda: warm(host), "both are ready")
        before = images(host)
        assert sorted(before) == ["0", "1"]
        # The kernel deals connections out at random: of 64 hardly ever less than 16 to one.
        clients = [http.client.HTTPConnection("127.0.0.1", host.port) for _ in range(64)]
        for client in clients:
            client.request("GET", PICTURE)
        answers = Counter(client.getresponse().read() for client in clients)
        for client in clients:
            client.close()
        assert list(answers.values()) == [64]
        assert all(count - before[worker] >= 16 for worker, count in images(host).items())
        host.process.send_signal(signal.SIGTERM)
        assert host.process.wait(60) == 0
        assert host.said.count('"path": "/v1/tiny/image.png", "status": 200') == 64
        assert "Traceback" not in host.said


@pytest.mark.slow
def test_over_grpc_they_share_an_address_too(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="pip install 'ganpipe[serve-grpc]'")
    from ganinfer.open_inference import served_model

    with serving(tmp_path, bundle, "--workers", 2, "--grpc-port", 0) as host:
        wait_until(lambda: warm(host), "both are ready")
        address = re.search(r"grpc on (127\.0\.0\.1:\d+)", host.said)
        assert address
        served = served_model(f"grpc://{address[1]}", "tiny", (16, 16, 3))
        found = [served.images([7]).tobytes() for _ in range(64)]  # each by a connection of its own
        assert len(set(found)) == 1
        counted = re.findall(
            r'ganinfer_grpc_requests_total\{method="ModelInfer",status="OK",worker="(.)"\} (\d+)',
            host.get("/metrics").body.decode(),
        )
        assert {worker for worker, _ in counted} == {"0", "1"}
        assert sum(int(count) for _, count in counted) == 64


@pytest.mark.slow
def test_one_that_dies_is_started_again_while_the_other_serves(
    bundle: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, bundle, "--workers", 2) as host:
        before = workers_of(host.process)
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: "ended: SIGKILL; starting it again in 0.5 s" in host.said, "it is seen")
        assert host.get(PICTURE).status == 200
        wait_until(lambda: warm(host), "it is there again")
        after = workers_of(host.process)
        assert len(after) == 2
        assert set(after) & set(before) == {before[1]}


@pytest.mark.slow
def test_signals_reach_all(copied: Path, tmp_path: Path) -> None:
    with serving(tmp_path, f"tiny={copied}", "--workers", 2, "--max-images", 10_000) as host:
        wait_until(lambda: warm(host), "both are ready")
        old = {host.get(PICTURE).headers["etag"] for _ in range(20)}
        rewrite_manifest(copied, lambda tree: tree["model"].update(family="other"))
        host.process.send_signal(signal.SIGHUP)
        wait_until(lambda: host.said.count("tiny: reloaded") == 2, "both have reloaded")
        new = {host.get(PICTURE).headers["etag"] for _ in range(20)}
        assert len(old) == len(new) == len(new - old) == 1
        before = images(host)
        answers: list[bytes] = []
        callers = [
            threading.Thread(target=lambda: answers.append(host.post(INFER, seeds(4000)).body))
            for _ in range(4)
        ]
        for caller in callers:
            caller.start()
        wait_until(lambda: sum(images(host).values()) > sum(before.values()), "they are begun")
        host.process.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.join()
        assert host.process.wait(60) == 0
    with Sampler(copied, device="cpu") as sampler:
        expected = sampler.sample(4000).tobytes()
    assert [answer.endswith(expected) for answer in answers] == [True] * 4


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["", "on cpu", " serves tiny"])
def test_ctrl_c_ends_all_without_a_word(bundle: Path, tmp_path: Path, moment: str) -> None:
    """A terminal sends it to all processes of the group."""
    log = tmp_path / "log"
    command = [*PROGRAM, str(bundle), "--workers", "2", "--port", "0", "--device", "cpu"]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    wait_until(lambda: workers_of(process), "it is begun")
    wait_until(lambda: moment in log.read_text(), "it is so far")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()
    wait_until(lambda: not alive(-process.pid), "all of its group are gone")


@pytest.mark.slow
def test_workers_end_when_nobody_looks_after_them(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as private:  # paths of sockets are short
        monkeypatch.setenv("TMPDIR", private)
        with serving(tmp_path, bundle, "--workers", 2) as host:
            workers = workers_of(host.process)
            assert len(workers) == 2
            host.process.kill()
            host.process.wait()
            wait_until(lambda: not any(map(alive, workers)), "they end")
        assert not os.listdir(private)


def alive(pid: int) -> bool:
    """A process, or a group if the number is negative."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_no_worker_can_open_is_told_in_one_line(
    gan: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    done = gan("serve", "none.gan", "--workers", 2, "--port", 0, cwd=tmp_path)
    assert done.returncode == Ending.MISSING
    assert done.stderr.startswith("error: none.gan: no such bundle")
    assert len(done.stderr.splitlines()) == 1


CRASHING = """
import os

def precisions(bundle):
    return ["fp32"]

def open(bundle, device, precision):
    os.abort()
"""


@pytest.mark.slow
def test_it_gives_up_when_workers_end_again_and_again(
    bundle: Path, tmp_path: Path, gan: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/crashing.py").write_text(CRASHING)
    options = ("--workers", 2, "--port", 0, "--backend", "lab.crashing")
    done = gan("serve", bundle, *options, cwd=tmp_path)
    assert done.returncode == 1
    *before, last = done.stderr.splitlines()
    assert last == "error: workers end again and again, and none is left: SIGABRT"
    assert 4 <= sum("ended: SIGABRT; starting it again" in line for line in before) <= 10


def test_threads_are_shared_out() -> None:
    assert shares(8, 2) == [4, 4]
    assert shares(7, 3) == [2, 2, 3]
    assert shares(2, 4) == [1, 1, 1, 1]
