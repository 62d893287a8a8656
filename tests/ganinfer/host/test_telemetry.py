"""What the libraries that run networks leave behind and start, in a home that is new."""

import os
import sys
from pathlib import Path

import pytest
from conftest import run_python

SAMPLE = """
import os, sys
from ganinfer import Sampler
with Sampler(sys.argv[1], device="cpu", backend=sys.argv[2]) as sampler:
    sampler.sample(2)
"""
LOOK = """
names = []
for thread in os.listdir("/proc/self/task"):
    try:
        names.append(open(f"/proc/self/task/{thread}/comm").read().strip())
    except FileNotFoundError:
        pass  # it ended meanwhile
print(names)
print(sorted(name for name in sys.modules if "telemetry" in name))
"""


def run(bundle: Path, backend: str, home: Path, **environment: str) -> list[str]:
    pytest.importorskip(backend)
    own = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    own |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), **environment}
    return run_python(SAMPLE + LOOK, bundle, backend, env=own)


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_nothing_is_written_or_started(bundle: Path, tmp_path: Path, backend: str) -> None:
    threads, modules = run(bundle, backend, tmp_path)
    assert files(tmp_path) == set()
    assert not any(word in threads.lower() for word in ("telemetry", "1ds", "http", "upload"))
    assert "openvino_telemetry'" not in modules


@pytest.mark.skipif(os.name != "posix", reason="there every user has a home")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "auto"])
def test_a_user_without_a_home_may_sample(bundle: Path, backend: str) -> None:
    """As OpenShift runs containers: without HOME, by a uid that no passwd knows."""
    if backend != "auto":
        pytest.importorskip(backend)
    nobody = """
import os, pwd

def unknown(uid):
    raise KeyError(uid)

os.environ.pop("HOME", None)
pwd.getpwuid = unknown
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HOME", "XDG_"))}
    run_python(nobody + SAMPLE, bundle, backend, env=environment)
