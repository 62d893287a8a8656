"""The application in a real Ray Serve, by the program of docs/serving.md."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganinfer
from ganinfer import Sampler

pytestmark = pytest.mark.slow
ROOT = Path(ganinfer.__file__).parent.parent

# Beside the program: on this machine alone, and until somebody closes its input.
HOST = """
import sys
import ray
from ray import serve
ray.init(num_cpus=2, include_dashboard=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
from on_ray import digits
serve.run(digits)
print("it serves", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def address(
    ray_python: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("deployment")
    (program,) = re.findall(
        r"^```py\n(# on_ray\.py\n.+?)^```$", (ROOT / "docs/serving.md").read_text(), re.M | re.S
    )
    (folder / "on_ray.py").write_text(program)
    (folder / "digits.gan").symlink_to(bundle)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all sockets are of the loopback interface
        "HOME": str(folder),  # it leaves a token there
    }
    with subprocess.Popen(
        [ray_python, "-c", HOST, str(port)],
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line == "it serves\n":
                break
        else:
            pytest.fail("".join(said)[-4000:])
        yield f"127.0.0.1:{port}"
        process.stdin.close()
        process.stdout.read()
    assert process.returncode == 0


def test_images_are_those_of_the_sampler(address: str, bundle: Path) -> None:
    triton: Any = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    with (
        triton.InferenceServerClient(address) as client,
        Sampler(bundle, backend="onnxruntime", device="cpu") as sampler,
    ):
        assert client.is_server_live()
        seeds = np.array([0, 7, 2**64 - 1], np.uint64)
        given = triton.InferInput("seed", [3], "UINT64")
        given.set_data_from_numpy(seeds)
        found = client.infer("digits", [given]).as_numpy("images")
        assert np.array_equal(found, sampler.sample(seeds=seeds))
