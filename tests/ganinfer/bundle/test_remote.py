import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python

from ganinfer import BundleError, Sampler
from ganinfer.bundle.places import local_path, located
from ganinfer.bundle.tree import write_tree
from ganinfer.errors import Ending
from ganinfer.files import sha256_bytes

fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")
pytest.importorskip("aiohttp", reason="needs the extra remote")


@dataclass
class Reply:
    """What lies at a path of the server. stops: half of it is sent, until the event is set."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    closes: bool = False
    stops: threading.Event | None = None


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.server.asked.append((self.command, self.path))
        reply = self.server.files.get(self.path.partition("?")[0], Reply(status=404))
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(reply.body) // 2
        with suppress(ConnectionError):
            self.wfile.write(reply.body[:half])
            if reply.stops:
                self.wfile.flush()
                reply.stops.wait(60)
            if not reply.closes:
                self.wfile.write(reply.body[half:])

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A web server on this host. files: by path. asked: (method, path) of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Reply] = {}
        self.asked: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def downloads(self) -> int:
        return sum(method == "GET" for method, _ in self.asked)


@pytest.fixture
def server(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], bytes]:
    """A file that is stored as a bundle is; what is in it makes it another one."""

    def make(text: str) -> bytes:
        place = tmp_path / "small.gan"
        write_tree(place, {"text": text.encode()}, single_file=True)
        return place.read_bytes()

    return make


def tagged(body: bytes, tag: str) -> Reply:
    return Reply(body, {"ETag": f'"{tag}"'})


def test_a_url_gives_the_images_of_its_file_and_is_downloaded_once(server, single_file) -> None:
    server.files["/x.gan"] = tagged(single_file.read_bytes(), "1")
    with Sampler(single_file) as sampler:
        expected = sampler.sample(4)
    for _ in range(2):
        with Sampler(f"{server.url}/x.gan") as sampler:
            np.testing.assert_array_equal(sampler.sample(4), expected)
    assert server.downloads() == 1


OLD = tuple(map(int, fsspec.__version__.split(".")[:2])) < (2025, 9)


@pytest.mark.parametrize(
    "header",
    [
        "ETag",
        pytest.param(
            "Last-Modified", marks=pytest.mark.skipif(OLD, reason="older ones do not tell it")
        ),
    ],
)
def test_a_new_version_is_downloaded(server: Server, small, header: str) -> None:
    for text in ("old", "new"):
        server.files["/x.gan"] = Reply(small(text), {header: text})
        for _ in range(2):
            assert local_path(f"{server.url}/x.gan").read_bytes() == small(text)
    assert server.downloads() == 2


def test_what_tells_no_version_is_downloaded_each_time(server: Server, small) -> None:
    for text in ("old", "new"):
        server.files["/x.gan"] = Reply(small(text))
        assert local_path(f"{server.url}/x.gan").read_bytes() == small(text)
    assert server.downloads() == 2


def test_a_name_for_other_processes_names_the_content(server, single_file, small) -> None:
    url = f"{server.url}/x.gan"
    server.files["/x.gan"] = tagged(single_file.read_bytes(), "1")
    name, _ = located(url)
    assert name == f"{url}#sha256={sha256_bytes(single_file.read_bytes())}"
    with Sampler(url) as sampler:
        sent = pickle.dumps(sampler)
        server.files["/x.gan"] = tagged(small("another"), "2")
        code = "import pickle, sys; print(pickle.loads(eval(sys.argv[1])).sample(1).sum())"
        assert run_python(code, repr(sent)) == [str(sampler.sample(1).sum())]


def test_a_content_that_is_named_and_here_needs_no_network(server: Server, small) -> None:
    url = f"{server.url}/x.gan#sha256={sha256_bytes(small('x'))}"
    server.files["/x.gan"] = Reply(small("x"))
    file = local_path(url)
    asked = len(server.asked)
    assert located(url) == (url, file)
    assert len(server.asked) == asked


def test_another_content_than_that_which_is_named_is_refused(server, small, downloads) -> None:
    server.files["/x.gan"] = tagged(small("x"), "1")
    wanted = sha256_bytes(small("y"))
    with pytest.raises(BundleError, match=f"found a file with sha256 .*, and {wanted} was asked"):
        local_path(f"{server.url}/x.gan#sha256={wanted}")
    assert not list(downloads.rglob("*.gan"))
    with pytest.raises(BundleError, match="expected 64 digits of 0-9a-f after #sha256="):
        local_path(f"{server.url}/x.gan#sha256=abc")


def test_without_the_server_what_it_had_is_used_and_that_is_said(server, small, caplog) -> None:
    url = f"{server.url}/x.gan"
    server.files["/x.gan"] = tagged(small("x"), "1")
    file = local_path(url)
    for status in (429, 503):
        server.files["/x.gan"] = Reply(status=status)
        assert local_path(url) == file
        assert f"the server refused ({status})" in caplog.messages[-1]
    server.stop()
    assert local_path(url) == file
    assert f"what it had the last time is used, sha256 {file.stem}" in caplog.messages[-1]
    with pytest.raises(BundleError, match="cannot be read .*Cannot connect to host"):
        local_path(f"{server.url}/another.gan")


def test_what_is_there_no_more_is_not_used(server: Server, small) -> None:
    server.files["/x.gan"] = tagged(small("x"), "1")
    local_path(f"{server.url}/x.gan")
    for status in (404, 403):
        server.files["/x.gan"] = Reply(status=status)
        with pytest.raises(BundleError):
            local_path(f"{server.url}/x.gan")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=404), "nothing lies there; check the URL"),
        (Reply(status=401), "this process may not read it (401)"),
        (Reply(status=403), "this process may not read it (403)"),
        (Reply(status=500), "the server refused (500); try again later"),
        (Reply(b"x" * 9999, closes=True), "cannot be read (Response payload is not completed"),
        (Reply(b"<html>Log in, please</html>"), "no bundle in one file"),
        (Reply(), "no bundle in one file"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_had_is_told_in_words(server, downloads, reply, words) -> None:
    server.files["/x.gan"] = reply
    with pytest.raises(BundleError) as refusal:
        local_path(f"{server.url}/x.gan")
    assert str(refusal.value).startswith(f"{server.url}/x.gan: {words}")
    assert [file for file in downloads.rglob("*") if file.is_file()] == []


def test_a_host_that_does_not_exist_is_told_in_words(server: Server) -> None:
    with pytest.raises(BundleError, match=r"^https://host.invalid/x.gan: cannot be read"):
        local_path("https://host.invalid/x.gan")


def test_what_is_no_url_is_told_in_words(server: Server) -> None:
    for url in ("https://[x/y.gan", "https://", "http://:x/y"):
        with pytest.raises(BundleError, match=r"^https?://.*: cannot be read"):
            local_path(url)


def test_secrets_of_a_url_are_not_told(server: Server) -> None:
    with pytest.raises(BundleError) as refusal:
        local_path(f"http://me:password@127.0.0.1:{server.server_port}/x.gan?signature=abc")
    assert str(refusal.value).startswith(f"{server.url}/x.gan?...: nothing lies there")


def test_a_download_says_how_far_it_is(server: Server, small) -> None:
    body = small("x" * 100)
    server.files["/x.gan"] = tagged(body, "1")
    told: list[tuple[str, int, int]] = []
    local_path(f"{server.url}/x.gan", progress=lambda *what: told.append(what))
    assert told[-1] == ("downloading", len(body), len(body))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_processes_that_download_at_once_get_whole_files(server, single_file, downloads) -> None:
    server.files["/x.gan"] = tagged(single_file.read_bytes(), "1")
    code = (
        "import sys; from ganinfer.bundle.places import local_path; print(local_path(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"{server.url}/x.gan"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    places = {process.communicate(timeout=120)[0].strip() for process in processes}
    (kept,) = downloads.glob("*.gan")
    assert places == {str(kept)}
    assert kept.read_bytes() == single_file.read_bytes()
    assert not list(downloads.glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_download_that_is_killed_leaves_nothing_that_is_used(server, small, downloads) -> None:
    gate = threading.Event()
    server.files["/x.gan"] = Reply(small("x" * 99_999), {"ETag": "1"}, stops=gate)
    code = "import sys; from ganinfer.bundle.places import local_path; local_path(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", code, f"{server.url}/x.gan"])
    while not any(part.stat().st_size for part in downloads.glob(".*.part")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    gate.set()
    assert not list(downloads.rglob("*.gan"))
    assert local_path(f"{server.url}/x.gan").read_bytes() == small("x" * 99_999)


def test_the_gan_command_takes_urls(server: Server, single_file, gan, tmp_path) -> None:
    server.files["/x.gan"] = tagged(single_file.read_bytes(), "1")
    url = f"{server.url}/x.gan"
    for command in (("inspect", url), ("extract", url, "-o", "x.onnx")):
        result = gan(*command, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    result = gan("evaluate", f"{server.url}/y.gan", cwd=tmp_path)
    assert result.returncode == Ending.MISSING
    assert result.stderr.strip() == f"error: {server.url}/y.gan: nothing lies there; check the URL"


def test_other_places_of_fsspec_work_alike(small, downloads: Path) -> None:
    memory = fsspec.filesystem("memory")
    for text in ("old", "new"):
        memory.pipe("/models/x.gan", small(text))
        name, file = located("memory://models/x.gan")
        assert file.read_bytes() == small(text)
        assert name == f"memory://models/x.gan#sha256={sha256_bytes(small(text))}"
    assert local_path(Path("memory://models/x.gan")) == file  # a Path makes one slash of two
    with pytest.raises(BundleError, match="memory://models: is a folder; .* --single-file"):
        local_path("memory://models")
    with pytest.raises(BundleError, match="memory://models/y.gan: nothing lies there"):
        local_path("memory://models/y.gan")


@pytest.mark.parametrize(
    ("url", "package", "words"),
    [
        (
            "https://b/x.gan",
            "fsspec",
            "fsspec is not installed; run: pip install 'ganpipe[remote]'",
        ),
        (
            "https://b/x.gan",
            "aiohttp",
            "aiohttp is not installed; run: pip install 'ganpipe[remote]'",
        ),
        ("s3://b/x.gan", "s3fs", "s3://b/x.gan: s3:// needs another package .*pip install s3fs"),
        ("gs://b/x.gan", "gcsfs", "gs://b/x.gan: gs:// needs another package .*pip install gcsfs"),
    ],
)
def test_a_package_that_is_missing_is_named(url: str, package: str, words: str) -> None:
    code = """
import sys
sys.modules[sys.argv[2]] = None
from ganinfer import MissingExtra, Sampler
try:
    Sampler(sys.argv[1])
except MissingExtra as error:
    print(error)
"""
    (printed,) = run_python(code, url, package)
    assert re.fullmatch(words.replace("[", r"\["), printed)
