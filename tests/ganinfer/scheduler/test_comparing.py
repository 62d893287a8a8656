"""Backends compared beside a program: real processes and real runtimes."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python

from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.host.tuned import folder, known
from ganinfer.scheduler import comparing
from ganinfer.scheduler.comparing import MEASURE, Comparison, compare

pytest.importorskip("openvino", reason="needs two backends to compare")
LONG_S = 300.0  # it gets what other tests leave of the processors


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(MEASURE, "1")
    monkeypatch.setattr(comparing, "_DELAY_S", 0.0)
    monkeypatch.setattr(comparing, "_MOST_S", LONG_S)
    monkeypatch.setattr(comparing, "_RUNS_S", 0.2)
    monkeypatch.setattr(comparing, "_WAVERS", 100.0)  # other tests run beside these


@pytest.fixture
def sha256(bundle: Path) -> str:
    with Bundle(bundle) as opened:
        return opened.sha256


def until_ended(sampler: Sampler) -> int:
    """The exit code of what compares."""
    comparison = sampler._runner._comparison
    assert comparison is not None
    comparison._timer.join(LONG_S)
    assert comparison._process is not None
    return comparison._process.returncode


def until_begun(sampler: Sampler) -> int:
    """Its process."""
    comparison, end = sampler._runner._comparison, time.monotonic() + LONG_S
    assert comparison is not None
    while (process := comparison._process) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return process.pid


@pytest.mark.skipif(sys.platform == "win32", reason="priorities of a Unix")
def test_it_runs_at_the_lowest_priority_and_what_it_finds_counts_later(
    bundle: Path, sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        comparing,
        "_PROCESS",
        """
import os, sys
from ganinfer.scheduler import comparing
comparing._WAVERS, comparing._RUNS_S = 100.0, 0.2
comparing.main()
assert sys.platform != "linux" or os.sched_getscheduler(0) == os.SCHED_IDLE
assert os.environ["GANINFER_MAP"] == "0"
sys.exit(os.nice(0))
""",
    )
    with Sampler(bundle) as sampler:
        before = sampler.sample(8)
        assert until_ended(sampler) == 19
        (choice,) = known(sha256)
        assert not choice.asked
        with Sampler(bundle) as other:
            assert other.info["reason"].startswith("first that opens")
            assert other._runner._comparison is None  # once is enough
            np.testing.assert_array_equal(other.sample(8), before)
    code = "import sys, ganinfer; i = ganinfer.Sampler(sys.argv[1]).info;"
    code += "print(i['backend']); print(i['reason'])"
    backend, reason = run_python(code, bundle)
    assert (backend, reason) == (choice.backend, f"fastest on this host: {choice}")


def test_of_both_backends_one_is_chosen_in_the_precision_of_auto(bundle: Path, sha256: str) -> None:
    compare(bundle, sha256)
    compare(bundle, sha256)
    (choice,) = known(sha256)
    assert choice.precision == "fp32"
    other = {"openvino": "onnxruntime", "onnxruntime": "openvino"}[choice.backend]
    assert choice.compared.endswith(f"x {other} fp32")


def test_what_wavers_is_not_believed(
    bundle: Path, sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_WAVERS", -1.0)
    compare(bundle, sha256)
    assert not known(sha256)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a Unix")
def test_killed_half_way_it_leaves_nothing_and_is_begun_again(bundle: Path, sha256: str) -> None:
    with Sampler(bundle) as sampler:
        os.kill(until_begun(sampler), signal.SIGKILL)
        assert until_ended(sampler) == -signal.SIGKILL
        assert len(sampler.sample(1)) == 1
    assert not known(sha256)
    compare(bundle, sha256)
    assert known(sha256)


def test_closing_ends_it(bundle: Path, sha256: str) -> None:
    sampler = Sampler(bundle)
    until_begun(sampler)
    sampler.close()
    assert until_ended(sampler) != 0
    assert not known(sha256)


def test_closed_at_once_it_never_begins(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_DELAY_S", LONG_S)
    sampler = Sampler(bundle)
    sampler.close()
    comparison = sampler._runner._comparison
    assert isinstance(comparison, Comparison)
    comparison._timer.join(LONG_S)
    assert comparison._process is None


def test_it_ends_with_its_program_however_that_ends(bundle: Path) -> None:
    code = """
import os, sys, time
from ganinfer import Sampler
from ganinfer.scheduler import comparing
comparing._DELAY_S = 0.0
comparing._PROCESS = "import time; from ganinfer.scheduler import comparing as c;"
comparing._PROCESS += "c.compare = lambda *_: time.sleep(600); c.main()"
comparison = Sampler(sys.argv[1])._runner._comparison
while comparison._process is None:
    time.sleep(0.01)
print(comparison._process.pid, flush=True)
os._exit(0)
"""
    (pid,) = run_python(code, bundle)
    end = time.monotonic() + LONG_S
    while is_there(int(pid)):
        assert time.monotonic() < end
        time.sleep(0.02)


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there who asks how it ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_leaves_it_alone(bundle: Path, sha256: str) -> None:
    code = """
import os, sys
from ganinfer import Sampler
from ganinfer.scheduler import comparing
comparing._DELAY_S = 0.0
sampler = Sampler(sys.argv[1])
comparison = sampler._runner._comparison
while comparison._process is None:
    pass
if not (child := os.fork()):
    sampler.sample(1)
    assert sampler._runner._comparison is None
    sampler.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(comparison._process.poll())
"""
    assert run_python(code, bundle) == ["None"]


@pytest.mark.skipif(os.name != "posix", reason="needs a folder that cannot be made")
def test_where_nothing_can_be_kept_nobody_is_bothered(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with Sampler(bundle) as sampler:
        assert until_ended(sampler) != 0
        assert len(sampler.sample(1)) == 1


def test_one_process_at_a_time_compares(bundle: Path, sha256: str) -> None:
    pytest.importorskip("fcntl", reason="needs locks of files")
    from ganinfer.files import only_writer

    folder().mkdir(parents=True)
    with only_writer(folder()), Sampler(bundle) as sampler:
        assert until_ended(sampler) != 0
    assert not known(sha256)


@pytest.mark.parametrize(
    "options",
    [{"backend": "onnxruntime"}, {"device": "cpu"}, {"precision": "fp32"}, {"measure": False}],
)
def test_whoever_asks_for_something_has_nothing_compared(bundle, options) -> None:
    with Sampler(bundle, **options) as sampler:
        assert sampler._runner._comparison is None


def test_the_environment_forbids_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEASURE, "0")
    with Sampler(bundle) as sampler:
        assert sampler._runner._comparison is None
