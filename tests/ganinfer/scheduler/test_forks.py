"""Processes that are forked off while a Sampler is open, and end as programs do."""

import os
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import run_python

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.confstr("CS_GNU_LIBC_VERSION") is None,
    reason="needs Linux with glibc",
)

# Runs `child` in a process that is forked off, and says how that ended.
PARENT = """
import os, sys, time
from ganinfer import Closed, Sampler

sampler = Sampler(sys.argv[1], device="cpu", backend=sys.argv[2])
expected = sampler.sample(4, seed=5)
{before}
child = os.fork()
if child == 0:
{child}
else:
    end = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.02)
    if done == (0, 0):
        os.kill(child, 9)
    print("ended" if done[0] else "HANGS", os.waitstatus_to_exitcode(done[1]))
    assert (sampler.sample(4, seed=5) == expected).all()
    sampler.close()
"""


def run(bundle: Path, backend: str, child: str, before: str = "") -> list[str]:
    pytest.importorskip(backend)
    script = PARENT.format(before=before, child=textwrap.indent(child, "    "))
    return run_python(script, bundle, backend)


SAMPLES = "assert (sampler.sample(4, seed=5) == expected).all(); print('sampled')"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("child", "status"),
    [
        (f"{SAMPLES}; sys.exit(0)", 0),
        (f"{SAMPLES}; sys.exit(7)", 7),
        (f"{SAMPLES}; raise ValueError('x')", 1),
        ("print('sampled'); sys.exit(3)", 3),
        (f"{SAMPLES}; sampler.close()", 0),
    ],
    ids=["ends", "with a status", "by an exception", "does not sample", "closes"],
)
def test_a_child_ends_as_it_should_and_loses_no_output(
    bundle: Path, backend: str, child: str, status: int
) -> None:
    after = "" if "exit" in child or "raise" in child else "\nsys.exit(0)"
    assert run(bundle, backend, child + after) == ["sampled", f"ended {status}"]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_was_asked_for_before_the_fork_is_not_waited_for(bundle: Path, backend: str) -> None:
    before = """
futures = [sampler.submit(3000), sampler.submit(4)]
parent = os.getpid()
for future in futures:
    future.add_done_callback(lambda _: os.getpid() == parent or print("called back here, too"))
"""
    child = """
for future in futures:
    try:
        future.result(60)
    except Closed as error:
        print(error)
sys.exit(0)
"""
    said = "asked for before this process was forked off; ask again in it"
    assert run(bundle, backend, child, before) == [said] * 2 + ["ended 0"]


def test_a_child_of_a_child_ends_too(bundle: Path) -> None:
    child = """
sampler.sample(1)
grandchild = os.fork()
if grandchild == 0:
    sys.exit(5 if (sampler.sample(4, seed=5) == expected).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
"""
    assert run(bundle, "onnxruntime", child) == ["ended 5"]


def test_where_a_child_could_not_end_it_is_refused_in_words(bundle: Path) -> None:
    """As with musl, whose library has no such exit function."""
    before = """
import ganinfer.scheduler.runner
ganinfer.scheduler.runner.end_without_destructors = lambda: False
"""
    child = """
from ganinfer import BackendUnavailable
try:
    sampler.sample(1)
except BackendUnavailable as error:
    print(str(error).partition(": ")[2])
sys.stdout.flush()
os._exit(0)
"""
    (said, ended) = run(bundle, "onnxruntime", child, before)
    assert said.startswith("this process was forked off one that had opened it")
    assert "spawn" in said
    assert ended == "ended 0"


def test_a_child_finds_the_bundle_from_wherever_it_goes(bundle: Path, tmp_path: Path) -> None:
    before = "os.chdir(os.path.dirname(sys.argv[1])); sampler.close()\n"
    before += "sampler = Sampler(os.path.basename(sys.argv[1]), backend=sys.argv[2])"
    assert run(bundle, "onnxruntime", f"os.chdir('/'); {SAMPLES}; sys.exit(0)", before) == [
        "sampled",
        "ended 0",
    ]
