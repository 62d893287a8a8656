"""gan serve --uds: a Unix socket, made, taken over and removed."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ganinfer.errors import ConfigError

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import wait_until
from test_serve_command import PROGRAM

from ganinfer.server.running import listening
from ganinfer.server.unix_socket import unix_socket
from ganinfer.server.workers import socket_for_one

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")


def test_its_user_and_group_may_connect_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "gan.sock"
    with unix_socket(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_that_of_a_server_that_is_no_more_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "gan.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    with unix_socket(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_what_somebody_uses_is_refused_and_left_alone(tmp_path: Path) -> None:
    path, file = tmp_path / "gan.sock", tmp_path / "notes.txt"
    file.write_text("mine")
    with unix_socket(path):
        with pytest.raises(ConfigError, match="a server listens there; stop it, or choose"):
            unix_socket(path).__enter__()
        assert path.is_socket()
    with pytest.raises(ConfigError, match="is there, and is no socket; choose another --uds"):
        unix_socket(file).__enter__()
    assert file.read_text() == "mine"
    for wrong in (tmp_path / "nowhere" / "gan.sock", tmp_path / ("x" * 120)):
        with pytest.raises(ConfigError, match="choose another --uds"):
            unix_socket(wrong).__enter__()


def test_nobody_blocks_those_that_share_it(tmp_path: Path) -> None:
    """Python lets a duplicate wait if its original does, and with it all others."""
    with unix_socket(tmp_path / "gan.sock") as bound, socket_for_one(bound) as given:
        assert not os.get_blocking(bound.fileno())
        taken = socket.socket(fileno=os.dup(given.fileno()))  # as another process gets it
        ends = listening(taken)
        assert len(ends) > 1
        assert {end.gettimeout() for end in ends} == {0.0}
        assert not os.get_blocking(bound.fileno())
        for end in ends:
            end.close()


def test_one_that_has_taken_its_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "gan.sock"
    with unix_socket(path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_its_curl_line_works(bundle: Path, tmp_path: Path, workers: int) -> None:
    path, log = tmp_path / "my gan.sock", tmp_path / "log"
    options = ["--uds", str(path), "--workers", str(workers), "--device", "cpu"]
    with log.open("wb") as sink:
        process = subprocess.Popen([*PROGRAM, str(bundle), *options], stdout=sink, stderr=sink)
    try:
        wait_until(lambda: process.poll() is not None or "curl" in log.read_text(), "it is told")
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("curl")]
        assert f"unix:{path} serves tiny" in log.read_text()

        def ask() -> "subprocess.CompletedProcess[str]":
            return subprocess.run(line, shell=True, capture_output=True, text=True)

        wait_until(lambda: '"ready":true' in ask().stdout, "it is ready")
    finally:
        process.terminate()
    assert process.wait(60) == 0
    assert not path.exists()
    assert "Traceback" not in log.read_text()
