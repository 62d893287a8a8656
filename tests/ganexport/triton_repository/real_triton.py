"""A real tritonserver: the one in the wheel of nvidia-pytriton, in an environment of its own.

It has the Python backend alone; `generator_backend.py` stands for onnxruntime's.
"""

import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

STAND_IN = Path(__file__).with_name("generator_backend.py")


@dataclass(frozen=True)
class Server:
    http: str
    grpc: str


def make_environment(folder: Path) -> Path:
    """Install the server; its packages' folder. Skips the test where it cannot be had."""
    libc, number = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, number.split("."))) < (2, 35):
        pytest.skip(f"the wheel needs glibc 2.35; this is {libc} {number}")
    if sys.version_info >= (3, 14):
        pytest.skip("the wheel has no stub for this Python")
    library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY"))
    if library.suffix == ".a" or not library.exists():
        pytest.skip(f"the stub needs a shared libpython; there is {library}")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    # With NumPy 2 its stub hands over empty INT64 tensors.
    wanted = ["nvidia-pytriton==0.7.0", "numpy<2", f"onnxruntime=={version('onnxruntime')}"]
    command = [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the wheel cannot be had: {done.stderr.strip().splitlines()[-1]}")
    return next((folder / "lib").glob("python3*/site-packages"))


@contextmanager
def serve(packages: Path, repositories: list[Path], folder: Path) -> Iterator[Server]:
    """A server of repositories, ready."""
    of_wheel, backends = packages / "pytriton/tritonserver", folder / "backends"
    stub = of_wheel / f"python_backend_stubs/3.{sys.version_info.minor}"
    shutil.copytree(of_wheel / "backends/python", backends / "python")
    shutil.copytree(stub, backends / "python", dirs_exist_ok=True)
    (backends / "onnxruntime").mkdir()
    shutil.copy(STAND_IN, backends / "onnxruntime/model.py")
    libraries = [sysconfig.get_config_var("LIBDIR"), str(packages / "nvidia_pytriton.libs")]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    env["PATH"] = os.pathsep.join([str(packages.parents[2] / "bin"), env["PATH"]])
    http, grpc = free_ports(2)
    command = [
        of_wheel / "bin/tritonserver",
        f"--backend-directory={backends}",
        *(f"--model-repository={repository}" for repository in repositories),
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--allow-metrics=false",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{http}", folder / "log")
        yield Server(f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(process: subprocess.Popen, url: str, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/v2/health/ready").close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(log.read_text(errors="replace")[-4000:])


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
