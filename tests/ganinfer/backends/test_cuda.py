"""Who may work on the GPUs, and when."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from simulated_gpu import Cuda

from ganinfer.backends import _cuda
from ganinfer.backends._cuda import compute_capability, gpus_at_rest, work_lock
from ganinfer.errors import BackendUnavailable


def at_rest() -> bool:
    with gpus_at_rest() as found:
        return found


def elsewhere(call):
    """What a call gives in another thread."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(call).result(20)


def test_gpus_are_at_rest_when_nobody_works_there() -> None:
    lock = work_lock()
    with lock:
        assert not elsewhere(at_rest)
    assert elsewhere(at_rest)


def test_while_gpus_rest_nobody_begins_and_no_one_else_makes_them_rest() -> None:
    lock = work_lock()
    with gpus_at_rest() as found:
        assert found
        assert not elsewhere(lambda: lock.acquire(blocking=False))
        assert not elsewhere(at_rest)
    assert elsewhere(at_rest)


def test_who_finds_somebody_at_work_holds_up_nobody() -> None:
    busy, idle = work_lock(), work_lock()
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        with busy:
            begun.set()
            done.wait(20)

    with ThreadPoolExecutor(1) as worker:
        worker.submit(work)
        begun.wait(20)
        with gpus_at_rest() as found:
            assert not found
            assert elsewhere(lambda: idle.acquire(blocking=False) and not idle.release())
            elsewhere(work_lock)  # nor is who opens something
        done.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_during_a_capture_waits_for_nobody() -> None:
    with gpus_at_rest():
        child = os.fork()
        if not child:
            signal.alarm(10)
            with work_lock():
                os._exit(0 if len(_cuda._locks) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((Cuda.cudaError_t.cudaErrorInvalidValue, None), "cudaErrorInvalidValue"),
        ((Cuda.cudaError_t.cudaSuccess, 1), "it has 1 GPUs, numbered from 0"),
        (RuntimeError("no function cuInit"), "no function cuInit"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, answer, reason: str
) -> None:
    def count():
        if isinstance(answer, Exception):
            raise answer
        return answer

    cuda = Cuda()
    monkeypatch.setattr(cuda, "cudaGetDeviceCount", count)
    monkeypatch.setattr(_cuda, "load_cuda", lambda product: cuda)
    with pytest.raises(BackendUnavailable, match=rf"no cuda:1 \({reason}\). Use backend"):
        compute_capability("tensorrt", 1)
