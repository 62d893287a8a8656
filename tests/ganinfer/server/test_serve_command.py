"""gan serve, as a process: signals, ports, names."""

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ganinfer import RequestError, Sampler
from ganinfer.bundle.archive import sign_bundle
from ganinfer.bundle.manifest import MANIFEST, MANIFEST_DIGEST, digest_line
from ganinfer.bundle.signature import SIGNATURE, make_keys, open_private_key
from ganinfer.cli.serve import named_bundles
from ganinfer.errors import Ending

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import INFER, Answer, Host, seeds, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

PROGRAM = [sys.executable, "-c", "from ganexport.cli.gan import main; main()", "-v", "serve"]


@dataclass(frozen=True)
class Served(Host):
    """In a process of its own."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def grpc(self) -> str:
        """Where it serves gRPC, if it does."""
        (address,) = re.findall(r"^grpc on (127\.0\.0\.1:\d+)$", self.said, re.MULTILINE)
        return str(address)

    @property
    def said(self) -> str:
        return self.log.read_text()


@contextmanager
def serving(folder: Path, *arguments: object) -> Iterator[Served]:
    log = folder / "log"
    command = [*PROGRAM, *map(str, arguments), "--port", "0", "--device", "cpu"]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:

        def address() -> re.Match[str] | None:
            assert process.poll() is None, log.read_text()
            return re.search(r"http://127\.0\.0\.1:(\d+) serves", log.read_text())

        wait_until(address, "it says where it serves")
        found = address()
        assert found
        host = Served(int(found[1]), process, log)
        wait_until(lambda: ready(host), "it is ready")
        yield host
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def ready(host: Host) -> bool:
    try:
        return host.get("/readyz").status == 200
    except OSError:
        return False


def test_it_serves_several_bundles_and_ends_in_order(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "second.gan")
    bundles = (bundle, copy, f"third={bundle}")
    with serving(tmp_path, *bundles, "--max-open", 2, "--access-log") as host:
        assert host.get("/readyz").json["models"] == dict.fromkeys(
            ["tiny", "second", "third"], True
        )
        pictures = {host.get(f"/v1/{name}/image.png?seed=4").body for name in ("tiny", "third")}
        assert len(pictures) == 1
        assert "second: closed" in host.said
        assert "third: opened" in host.said
        host.process.send_signal(signal.SIGTERM)
        assert host.process.wait(60) == 0
        assert '"path": "/v1/third/image.png", "status": 200' in host.said
        assert "Traceback" not in host.said


def test_what_is_begun_at_sigterm_is_finished(bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, bundle, "--max-images", 10_000) as host:
        answers: list[Answer] = []
        clients = [
            threading.Thread(target=lambda: answers.append(host.post(INFER, seeds(5000))))
            for _ in range(3)
        ]
        for client in clients:
            client.start()
        wait_until(lambda: images(host) > 127, "they are begun")
        host.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join()
        assert host.process.wait(60) == 0
        assert [answer.status for answer in answers] == [200] * 3
        with Sampler(bundle, device="cpu") as sampler:
            expected = sampler.sample(5000).tobytes()
        assert all(answer.body.endswith(expected) for answer in answers)


def test_who_has_connected_at_sigterm_is_answered(bundle: Path, tmp_path: Path) -> None:
    """A machine that is busy lets hundreds wait in the socket's queue, with requests."""
    with serving(tmp_path, bundle) as host, contextlib.ExitStack() as stack:
        host.process.send_signal(signal.SIGSTOP)
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", host.port), timeout=60))
            for _ in range(400)
        ]
        for client in clients:
            client.sendall(b"GET /v1/tiny/image.png HTTP/1.1\r\nHost: x\r\n\r\n")
        host.process.send_signal(signal.SIGTERM)
        host.process.send_signal(signal.SIGCONT)
        statuses = Counter(client.recv(12) for client in clients)
        assert statuses == {b"HTTP/1.1 200": 400}
        assert host.process.wait(60) == 0


def images(host: Host) -> int:
    """That were drawn; a batch of 1, 2, ..., 64 before it is ready."""
    (stats,) = host.get("/v2/models/tiny/stats").json["model_stats"]
    return int(stats["inference_count"])


def test_drain_s_bounds_the_wait(bundle: Path, tmp_path: Path) -> None:
    options = ("--max-images", 1_000_000, "--max-megapixels", 1000, "--batch-size", 1)
    with serving(tmp_path, bundle, *options, "--drain-s", 1) as host:
        statuses: list[object] = []

        def ask() -> None:
            try:
                statuses.append(host.post(INFER, seeds(300_000)).status)
            except OSError as error:
                statuses.append(type(error))

        client = threading.Thread(target=ask)
        client.start()
        wait_until(lambda: images(host) > 1, "it is begun")
        host.process.send_signal(signal.SIGTERM)
        assert host.process.wait(60) == 0
        client.join()
        assert statuses == [503]
        assert "Traceback" not in host.said


def test_grpc_ends_with_it(bundle: Path, tmp_path: Path) -> None:
    """What is begun has --drain-s to end, as over HTTP; an idle stream holds up nothing."""
    grpc = pytest.importorskip("grpc", reason="pip install 'ganpipe[serve-grpc]'")
    from ganinfer.open_inference.messages import inference

    def asked(count: int) -> bytes:
        message = inference.ModelInferRequest(model_name="tiny")
        given = message.inputs.add(name="seed", datatype="UINT64", shape=[count])
        given.contents.uint64_contents.extend(range(count))
        return bytes(message.SerializeToString())

    service = "/inference.GRPCInferenceService"
    options = ("--max-images", 1_000_000, "--max-megapixels", 1000, "--batch-size", 1)
    for count, drain_s, expected in [(2000, 30, "OK"), (300_000, 1, "UNAVAILABLE")]:
        with (
            serving(tmp_path, bundle, *options, "--grpc-port", 0, "--drain-s", drain_s) as host,
            grpc.insecure_channel(host.grpc) as channel,
        ):
            over = threading.Event()
            channel.stream_stream(f"{service}/ModelStreamInfer")(iter(over.wait, True))
            call = channel.unary_unary(f"{service}/ModelInfer").future(asked(count))
            wait_until(lambda host=host: images(host) > 1, "it is begun")
            host.process.send_signal(signal.SIGTERM)
            assert host.process.wait(60) == 0
            assert call.code().name == expected
            over.set()
            assert "Traceback" not in host.said


def test_sighup_reloads(bundle: Path, copied: Path, tmp_path: Path) -> None:
    with serving(tmp_path, f"tiny={copied}") as host:
        path = "/v1/tiny/image.png?seed=7"
        old = host.get(path)
        data = (copied / MANIFEST).read_bytes().replace(b'"dcgan"', b'"other"', 1)
        (copied / MANIFEST).write_bytes(data)
        (copied / MANIFEST_DIGEST).write_bytes(digest_line(data))
        host.process.send_signal(signal.SIGHUP)
        wait_until(lambda: host.get(path).headers["etag"] != old.headers["etag"], "it is reloaded")
        assert host.get(path).body == old.body
        (copied / MANIFEST).write_bytes(b"{}")
        host.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in host.said, "it says why not")
        assert host.get(path).body == old.body


def test_a_bundle_that_its_key_has_not_signed_never_serves(
    copied: Path, tmp_path: Path, gan: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    pytest.importorskip("cryptography")
    public, key = make_keys(tmp_path / "key.pem"), open_private_key(tmp_path / "key.pem")
    done = gan("serve", copied, "--port", 0, "--public-key", public)
    assert done.returncode == Ending.DAMAGED
    assert "not signed" in done.stderr
    sign_bundle(copied, key)
    with serving(tmp_path, f"tiny={copied}", "--public-key", public) as host:
        old = host.get("/v1/tiny/image.png?seed=7")
        (copied / SIGNATURE).unlink()
        data = (copied / MANIFEST).read_bytes().replace(b'"dcgan"', b'"other"', 1)
        (copied / MANIFEST).write_bytes(data)
        (copied / MANIFEST_DIGEST).write_bytes(digest_line(data))
        host.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in host.said, "it says why not")
        assert host.get("/v1/tiny/image.png?seed=7").headers["etag"] == old.headers["etag"]


def test_an_address_that_somebody_has_is_told_before_anything_is_opened(
    gan: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--port", "--grpc-port"):
            free = ["--port", 0] if option == "--grpc-port" else []
            done = gan("serve", tmp_path / "missing.gan", *free, option, port)
            assert done.returncode == Ending.USAGE
            assert done.stderr.splitlines() == [
                f"error: 127.0.0.1:{port}: Address already in use; choose another --host or"
                f" {option}"
            ]


def test_a_users_mistakes_are_one_line(
    gan: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    for arguments, words in [
        (["a.gan", "b/a.gan"], "a model is named a already"),
        (["models.gan"], "expected letters"),
        (["a.gan", "--timeout-s", "0"], "timeout_s"),
        (["a.gan", "--port", "0"], "a.gan"),
        (["a.gan", "--host", "no.such.host.invalid"], "choose another --host"),
    ]:
        done = gan("serve", *arguments, cwd=tmp_path)
        assert done.returncode in (Ending.USAGE, Ending.MISSING)
        (line,) = done.stderr.splitlines()
        assert words in line


def test_names_of_bundles() -> None:
    texts = ["a/digits.gan", "b=x/y.gan", "hf://owner/faces@v1", "c.d=hf://owner/faces"]
    assert named_bundles(texts) == {
        "digits": "a/digits.gan",
        "b": "x/y.gan",
        "faces": "hf://owner/faces@v1",
        "c.d": "hf://owner/faces",
    }
    for wrong in (["a.gan", "a=b.gan"], ["x y.gan"], [".gan"], ["images=a.gan"]):
        with pytest.raises(RequestError):
            named_bundles(wrong)


def without(package: str, program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program where a package cannot be imported."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == {package!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
"""
    return subprocess.run([sys.executable, "-c", code + program], capture_output=True, text=True)


def test_without_the_extra_its_pip_command_is_told() -> None:
    program = """
from ganinfer import MissingExtra
from ganinfer.server import app
try:
    app({})
except MissingExtra as error:
    print(error)
sys.argv = ['gan', 'serve', 'x.gan']
from ganexport.cli.gan import main
main()
"""
    done = without("starlette", program)
    for said in (done.stdout, done.stderr.removeprefix("error: ")):
        assert said == "starlette is not installed; run: pip install 'ganpipe[serve]'\n"
    assert done.returncode == Ending.UNAVAILABLE


@pytest.mark.parametrize("package", ["grpc", "google"])
def test_only_grpc_needs_its_extra(package: str) -> None:
    program = """
import ganinfer.server.application
sys.argv = ['gan', 'serve', 'missing.gan', *sys.argv[1:]]
from ganexport.cli.gan import main
main()
"""
    done = without(package, program)
    assert done.returncode == Ending.MISSING
    assert "missing.gan: no such bundle" in done.stderr
    done = without(package, program.replace("*sys.argv[1:]", "'--grpc-port', '0'"))
    assert done.returncode == Ending.UNAVAILABLE
    assert done.stderr == (
        f"error: {package} is not installed; run: pip install 'ganpipe[serve-grpc]'\n"
    )
