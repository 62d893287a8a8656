"""Shards in stores of fsspec: its own memory, and a real S3 server and client on this host."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ganinfer import Sampler
from ganinfer.errors import DataError, Ending, RequestError
from ganinfer.lookup import module_names
from ganinfer.shards import INDEX, plan, write_missing, write_shards

fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")

HERE = {"backend": "onnxruntime", "precision": "fp32"}
BUCKET = "pictures"
PART = 5 << 20  # bytes: the smallest part of an upload that S3 takes
PER_PART = PART // (16 * 16 * 3) + 1  # images of an npz shard that fill one


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, **HERE) as opened:
        yield opened


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def on_disk(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def in_store(files: Any, place: str) -> dict[str, bytes]:
    files.invalidate_cache()
    return {name.partition(f"{place}/")[2]: files.cat_file(name) for name in files.find(place)}


@pytest.mark.parametrize("place", ["memory://a/b", "memory://a/b/", Path("memory://a/b")], ids=str)
def test_a_store_holds_what_a_folder_holds(sampler, memory, tmp_path: Path, place) -> None:
    for folder in (place, tmp_path / "disk", (tmp_path / "disk").as_uri()):
        write_shards(sampler, 50, folder, shard_size=20)
    again = write_shards(sampler, 50, place, shard_size=20, check="sha256")
    assert (again.num_kept, again.damaged) == (3, [])
    assert in_store(memory, "/a/b") == on_disk(tmp_path / "disk")


def test_what_is_damaged_or_missing_in_a_store_is_drawn_again(
    sampler, memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, planned = "memory://a", plan(sampler, 50, shard_size=10)
    write_shards(sampler, 50, place, shard_size=10)
    before = in_store(memory, "/a")
    memory.pipe("/a/shard-000000.tar", bytes(len(before["shard-000000.tar"])))
    memory.pipe("/a/shard-000001.tar", b"half")
    memory.rm("/a/shard-000002.tar")
    memory.rm("/a/records/shard-000003.tar.json")
    for page in (1000, 1):  # files are asked for one by one; all are listed
        monkeypatch.setattr("ganinfer.shards.remote._PAGE", page)
        assert planned.missing(place) == [1, 2, 3]
        found = planned.standing(place, check="sha256")
        assert (found.missing, list(found.finished)) == ([0, 1, 2, 3], [4])
        assert found.damaged == [f"shard-00000{n}.tar" for n in range(3)]
    write_shards(sampler, 50, place, shard_size=10, check="sha256")
    assert in_store(memory, "/a") == before


def test_what_the_process_has_just_written_is_not_read_again(sampler, memory, tmp_path) -> None:
    planned = plan(sampler, 50, shard_size=10)
    for number in (0, 1):
        written = write_missing(planned, planned.part(number, 2), "memory://a")
    memory.rm("/a/records", recursive=True)
    with pytest.raises(DataError, match=r"memory://a: 3 of 5 shards are not there: shard-000000"):
        planned.finish("memory://a", known=written.records)
    write_missing(planned, planned.part(0, 2), "memory://a")
    index = planned.finish("memory://a", known=written.records)
    write_shards(sampler, 50, tmp_path, shard_size=10)
    assert (tmp_path / INDEX).read_bytes() == index.json_bytes


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nix://a/b", "nix://a/b: there is no nix://; expected a path, .*, s3://, gs://, az://"),
        ("http://127.0.0.1:9/a", r"http://127.0.0.1:9/a/request.json: cannot be read \(.*connect"),
    ],
)
def test_a_place_that_takes_no_files_is_told_in_words(sampler, place: str, words: str) -> None:
    with pytest.raises(DataError, match=f"^{words}"):
        write_shards(sampler, 5, place)


def test_another_request_in_a_store_is_refused(sampler, memory) -> None:
    write_shards(sampler, 5, "memory://a")
    with pytest.raises(RequestError, match=r"^memory://a: holds the shards of another request: n"):
        write_shards(sampler, 6, "memory://a")


def test_pictures_do_not_go_to_a_url(gan, bundle: Path, tmp_path: Path) -> None:
    done = gan("sample", bundle, "-o", "s3://a/b", cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (Ending.USAGE, [])
    assert done.stderr == "error: -o s3://a/b: only shards (-n) go to a URL; give a path\n"


# From here on: S3.


class Line:
    """A TCP proxy in front of a server, that can be cut.

    left: bytes that it still lets pass towards the server; what more there would be is lost, and
        so are all connections from then on. None: no end.
    drops: connections that are cut alone, each after so many bytes.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self.left: int | None = None
        self.drops: list[int] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._server))
        back = threading.Thread(target=self._answers, args=(server, client), daemon=True)
        back.start()
        own = self.drops.pop(0) if self.drops else None
        with suppress(OSError), client, server:
            while data := client.recv(1 << 16):
                if own is not None and (own := own - len(data)) < 0:
                    break
                if self.left is not None and (left := self.left - len(data)) < 0:
                    break
                self.left = None if self.left is None else left
                server.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of an S3 server on this host."""
    for package in ("s3fs", "moto", "flask_cors"):
        pytest.importorskip(package, reason="needs the extra dev")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        assert process.poll() is None
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.05)
    yield port
    process.kill()
    process.wait()


@pytest.fixture
def line(server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Line]:
    line = Line(server)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": line.url,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # s3fs tries five times; each by itself does not
        "NO_PROXY": "127.0.0.1",
        "FSSPEC_S3": json.dumps({"default_block_size": PART}),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"default_block_size": PART})
    yield line
    line.close()


@pytest.fixture
def s3(line: Line) -> Iterator[Any]:
    """The client, of an empty bucket."""
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir(BUCKET)
    yield files
    line.left = None
    files.invalidate_cache()
    files.rm(BUCKET, recursive=True)


@pytest.mark.parametrize("name", module_names("ganinfer.formats"))
def test_s3_holds_what_a_folder_holds(sampler, s3, tmp_path: Path, name: str) -> None:
    place = f"s3://{BUCKET}/a/b"
    write_shards(sampler, 300, place, shard_size=120, format=name)
    write_shards(sampler, 300, tmp_path, shard_size=120, format=name)
    assert in_store(s3, f"{BUCKET}/a/b") == on_disk(tmp_path)
    again = write_shards(sampler, 300, place, shard_size=120, format=name, check="sha256")
    assert (again.num_kept, again.damaged) == (3, [])


def test_a_sha256_is_of_the_bytes_that_s3_has(sampler, s3) -> None:
    place, planned = f"s3://{BUCKET}", plan(sampler, 30, shard_size=10)
    write_shards(sampler, 30, place, shard_size=10)
    before = in_store(s3, BUCKET)
    s3.pipe(f"{BUCKET}/shard-000001.tar", bytes(len(before["shard-000001.tar"])))
    assert planned.missing(place) == []
    assert planned.missing(place, check="sha256") == [1]
    assert write_shards(sampler, 30, place, shard_size=10, check="sha256").num_kept == 2
    assert in_store(s3, BUCKET) == before


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_that_is_killed_in_an_upload_leaves_no_half_of_it(
    sampler, bundle: Path, s3, tmp_path: Path
) -> None:
    size = 2 * PER_PART
    code = f"""
import os, signal
from ganinfer import Sampler
from ganinfer.shards import write_shards
def kill(what, done, total):
    if what == "sampling" and done > {size + PER_PART + 1000}:
        os.kill(os.getpid(), signal.SIGKILL)
with Sampler({str(bundle)!r}, **{HERE}) as sampler:
    write_shards(sampler, {2 * size}, "s3://{BUCKET}/a", shard_size={size}, format="npz",
        progress=kill)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    (begun,) = s3.list_multipart_uploads(BUCKET)
    assert begun["Key"] == "a/shard-000001.npz"
    assert not s3.exists(f"{BUCKET}/a/shard-000001.npz")
    options = {"shard_size": size, "format": "npz"}
    assert write_shards(sampler, 2 * size, f"s3://{BUCKET}/a", **options).num_kept == 1
    write_shards(sampler, 2 * size, tmp_path, **options)
    assert in_store(s3, f"{BUCKET}/a") == on_disk(tmp_path)


def test_a_line_that_is_cut_is_told_and_no_loss(sampler, line: Line, s3, tmp_path: Path) -> None:
    place, options = f"s3://{BUCKET}/a", {"shard_size": 2 * PER_PART, "format": "npz"}
    line.left = int(3.5 * PART)  # in the second part of the second shard
    with pytest.raises(DataError) as refusal:
        write_shards(sampler, 4 * PER_PART, place, **options)
    words = r"s3://pictures/a/shard-000001.npz: cannot be written \(.+\); check the connection, and"
    assert refusal.match(f"^{words} try again$")
    line.left = None
    assert not s3.exists(f"{BUCKET}/a/shard-000001.npz")
    assert write_shards(sampler, 4 * PER_PART, place, **options).num_kept == 1
    write_shards(sampler, 4 * PER_PART, tmp_path, **options)
    assert in_store(s3, f"{BUCKET}/a") == on_disk(tmp_path)


def test_connections_that_drop_are_made_again(sampler, line: Line, s3, tmp_path: Path) -> None:
    line.drops = [2000, 400, 20_000]
    write_shards(sampler, 300, f"s3://{BUCKET}/a", shard_size=120)
    assert line.drops == []
    write_shards(sampler, 300, tmp_path, shard_size=120)
    assert in_store(s3, f"{BUCKET}/a") == on_disk(tmp_path)


def test_a_failure_of_ours_ends_the_upload_and_keeps_its_words(sampler, s3) -> None:
    place = f"s3://{BUCKET}/a"

    def fail(what: str, done: int, total: int) -> None:
        if what == "sampling" and done > PER_PART + 1000:
            assert s3.list_multipart_uploads(BUCKET)
            raise OSError("no more")

    with pytest.raises(OSError, match="^no more$"):
        size = 2 * PER_PART
        write_shards(sampler, size, place, shard_size=size, format="npz", progress=fail)
    assert list(in_store(s3, f"{BUCKET}/a")) == ["request.json"]
    assert s3.list_multipart_uploads(BUCKET) == []


def test_two_may_upload_the_same_shard_at_once(sampler, s3) -> None:
    planned = plan(sampler, 2 * PER_PART, shard_size=2 * PER_PART, format="npz")
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: planned.write(0, f"s3://{BUCKET}/a"), range(2))
    assert one == other
    assert planned.missing(f"s3://{BUCKET}/a", check="sha256") == []
    assert sorted(in_store(s3, f"{BUCKET}/a")) == [
        "records/shard-000000.npz.json",
        "shard-000000.npz",
    ]


@pytest.mark.slow
def test_another_process_finishes_what_lies_in_s3(
    sampler, bundle: Path, gan, s3, tmp_path: Path
) -> None:
    place, planned = f"s3://{BUCKET}/a", plan(sampler, 40, shard_size=10)
    write_missing(planned, planned.part(0, 2), place)
    here = [word for name, value in HERE.items() for word in (f"--{name}", value)]
    command = ["sample", bundle, "-n", 40, "--shard-size", 10, "-o", place, *here]
    part = gan(*command, "--shards", "1/2", cwd=tmp_path)
    assert f"20 images by onnxruntime on cpu in fp32 -> {place}" in part.stdout
    done = gan(*command, "--finish", "--check", "sha256", cwd=tmp_path)
    assert "4 shards by onnxruntime fp32 on cpu" in done.stdout
    write_shards(sampler, 40, tmp_path, shard_size=10)
    assert in_store(s3, f"{BUCKET}/a") == on_disk(tmp_path)


def test_what_a_server_refuses_is_told_in_words(sampler, line: Line, s3, monkeypatch) -> None:
    with pytest.raises(DataError, match=f"^{line.url}/none/request.json: nothing can be written"):
        write_shards(sampler, 5, f"{line.url}/none")
    missing = r"s3://none/a/request.json: there is no such place \(The specified bucket does not"
    with pytest.raises(DataError, match=f"^{missing} exist"):
        write_shards(sampler, 5, "s3://none/a")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    nobody = r"s3://pictures/a/request.json: nobody is logged in there \(Unable to locate cred"
    with pytest.raises(DataError, match=f"^{nobody}"):
        write_shards(sampler, 5, f"s3://{BUCKET}/a")
