"""A session's binding, on the CPU: there the same calls run as on a GPU, but for the capture."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ganinfer.backends._cuda import gpus_at_rest, work_lock
from ganinfer.backends._onnxruntime_bound import BoundSession
from ganinfer.backends._onnxruntime_cuda import CPU
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend, open_first
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.errors import BackendUnavailable, Closed

needs_dlpack = pytest.mark.skipif(
    not hasattr(onnxruntime.OrtValue, "__dlpack__"),
    reason=f"onnxruntime {onnxruntime.__version__} hands out no memory, and says so",
)


@pytest.fixture(scope="module")
def opened(bundle: Path) -> Iterator[Bundle]:
    with Bundle(bundle) as held:
        yield held


@pytest.fixture
def session(opened: Bundle):
    return open_first(onnxruntime, opened.read_graph("fp32"), [[CPU]], 1)[0]


@pytest.fixture(params=[False, True], ids=["plain", "captures"])
def bound(session, request: pytest.FixtureRequest) -> Iterator[BoundSession]:
    made = bind(session, captures=request.param)
    yield made
    made.close()


def bind(session, *, captures: bool) -> BoundSession:
    return BoundSession(onnxruntime, session, "cpu", captures=captures, details={})


@pytest.fixture
def graph_ids(session, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Under which a session was asked to run, in order; it refuses "2"."""
    ids, run = [], session.run_with_iobinding

    def noted(binding, options) -> None:
        ids.append(options.get_run_config_entry("gpu_graph_id"))
        if ids[-1] == "2":
            raise RuntimeError("operation not permitted when stream is capturing")
        run(binding, options)

    monkeypatch.setattr(session, "run_with_iobinding", noted)
    return ids


def feed(opened: Bundle, n: int, seed: int = 0):
    return draw_inputs(opened.manifest.model, range(seed, seed + n), np.arange(n) % 3).feed()


@pytest.mark.parametrize("n", [1, 2, 8])
def test_bound_runs_give_the_bits_of_plain_ones(opened: Bundle, session, bound, n: int) -> None:
    for seed in (0, 100, 200):
        expected = session.run(None, feed(opened, n, seed))[0]
        assert np.array_equal(bound.run(feed(opened, n, seed)), expected)


def test_sizes_take_turns_without_disturbing_each_other(opened: Bundle, session, bound) -> None:
    for seed, n in enumerate([1, 8, 2, 8, 1, 2]):
        expected = session.run(None, feed(opened, n, seed))[0]
        assert np.array_equal(bound.run(feed(opened, n, seed)), expected)
    assert len(bound._bound) == 3


def test_images_are_the_callers_own(opened: Bundle, bound) -> None:
    first = bound.run(feed(opened, 2, seed=0))
    kept = first.copy()
    bound.run(feed(opened, 2, seed=50))
    assert np.array_equal(first, kept)
    assert first.flags.writeable


def test_inputs_and_images_stay_where_they_are(opened: Bundle, bound) -> None:
    def places() -> list[int]:
        ((inputs, binding),) = bound._bound.values()
        return [value.data_ptr() for value in [*inputs.values(), *binding.get_outputs()]]

    bound.run(feed(opened, 2))
    first = places()
    bound.run(feed(opened, 2, seed=7))
    assert places() == first


def test_inputs_of_images_that_stay_on_the_device_are_not_kept(opened: Bundle, bound) -> None:
    bound.run_on_device(feed(opened, 3))
    assert not bound._bound


def test_threads_share_a_binding_and_each_gets_its_own_images(
    opened: Bundle, session, bound
) -> None:
    def differs(seed: int) -> bool:
        given = feed(opened, 1 + seed % 4, seed)
        return not np.array_equal(bound.run(given), session.run(None, given)[0])

    with ThreadPoolExecutor(2) as callers:
        assert not any(callers.map(differs, range(60)))


def test_one_thread_runs_whoever_calls(opened: Bundle, session, bound, monkeypatch) -> None:
    at_work = set()
    run = session.run_with_iobinding

    def noted(*arguments) -> None:
        at_work.add(threading.current_thread().name)
        run(*arguments)

    monkeypatch.setattr(session, "run_with_iobinding", noted)
    with ThreadPoolExecutor(3) as callers:
        list(callers.map(lambda seed: bound.run(feed(opened, 2, seed)), range(12)))
    assert at_work == {"onnxruntime cpu_0"}


def test_a_capture_that_fails_leaves_its_size_without_and_the_others_with(
    opened: Bundle, session, graph_ids: list[str], caplog
) -> None:
    bound = bind(session, captures=True)
    for n in (8, 2, 2, 4, 4):
        given = feed(opened, n, seed=n)
        assert np.array_equal(bound.run(given), session.run(None, given)[0])
    bound.close()
    assert graph_ids == ["1", "1", "2", "-1", "-1", "3", "3", "3"]
    assert "batches of 2 run without a CUDA graph: operation not permitted" in caplog.text
    assert bound._details["cuda_graphs"] == "used, for batches of 4, 8"


def test_inputs_of_other_types_never_run_under_the_graph_of_their_size(
    opened: Bundle, session, graph_ids: list[str]
) -> None:
    bound, given = bind(session, captures=True), feed(opened, 1)
    bound.run(given)
    with pytest.raises(Exception, match="Unexpected input data type"):
        bound.run(given | {"z": given["z"].astype(np.float64)})
    bound.close()
    assert graph_ids == ["1", "1", "2", "-1"]


def test_what_a_graph_cannot_take_is_refused_and_harms_nobody(opened: Bundle, bound) -> None:
    good = feed(opened, 2)
    expected = bound.run(good)
    wrong = good | {"z": good["z"].astype(np.float64)}
    with pytest.raises(Exception, match="Unexpected input data type"):
        bound.run(wrong)
    assert np.array_equal(bound.run(good), expected)


def test_while_another_is_at_work_a_batch_runs_plainly_and_is_captured_later(
    opened: Bundle, session, graph_ids: list[str]
) -> None:
    """As long as a session opens, above all."""
    bound, given = bind(session, captures=True), feed(opened, 1)
    with work_lock():
        first = bound.run(given)
    assert graph_ids == ["-1"]
    assert np.array_equal(bound.run(given), first)
    assert graph_ids == ["-1", "1", "1"]
    bound.close()


def test_nothing_is_at_work_while_gpus_rest(opened: Bundle, bound) -> None:
    bound.run(feed(opened, 1))
    with ThreadPoolExecutor(1) as caller:
        with gpus_at_rest():
            later = caller.submit(bound.run, feed(opened, 1))
            time.sleep(0.05)
            assert not later.done()
        assert later.result(timeout=20).shape == (1, 16, 16, 3)


@needs_dlpack
def test_images_on_the_device_are_shared_and_outlive_what_made_them(
    opened: Bundle, session, bound
) -> None:
    given = feed(opened, 2)
    expected = session.run(None, given)[0]
    value = bound.run_on_device(given)
    tensor, array = torch.from_dlpack(value), np.from_dlpack(value)
    assert tensor.data_ptr() == array.ctypes.data == value.data_ptr()
    assert (tensor.dtype, tensor.shape) == (torch.uint8, (2, 16, 16, 3))
    bound.run_on_device(feed(opened, 2, seed=9))
    bound.run(feed(opened, 2, seed=99))
    bound.close()
    del value
    gc.collect()
    assert np.array_equal(tensor.numpy(), expected)
    assert np.array_equal(array, expected)


def test_a_closed_binding_is_refused_and_forgotten(opened: Bundle, session) -> None:
    bound = bind(session, captures=False)
    bound.run(feed(opened, 1))
    bound.close()
    bound.close()
    for call in (bound.run, bound.run_on_device):
        with pytest.raises(Closed, match=r"closed; open the bundle again"):
            call(feed(opened, 1))
    gone = weakref.ref(bound)
    del bound, call
    gc.collect()
    assert gone() is None


class Bound(OnnxRuntimeBackend):
    """The backend as on a GPU, but for the device."""

    def __init__(self, graph: bytes) -> None:
        super().__init__(graph, "cpu", "fp32")
        session = self._session(self._threads)
        self._bound = bind(session, captures=True)


def test_a_backend_runs_by_its_binding_and_fills_the_callers_buffer(opened: Bundle) -> None:
    graph = opened.read_graph("fp32")
    backend, plain = Bound(graph), OnnxRuntimeBackend(graph, "cpu", "fp32")
    inputs = draw_inputs(opened.manifest.model, range(3), np.arange(3))
    expected, out = plain.run(inputs), np.zeros((3, 16, 16, 3), np.uint8)
    assert backend.run(inputs, out=out) is out
    assert np.array_equal(out, expected)
    assert np.array_equal(backend.run(inputs), expected)
    assert np.array_equal(plain.run_on_device(inputs), expected)
    backend.close()
    with pytest.raises(Closed, match="closed"):
        backend.run(inputs)


@needs_dlpack
def test_a_backend_hands_out_the_memory_of_its_binding(opened: Bundle) -> None:
    backend = Bound(opened.read_graph("fp32"))
    inputs = draw_inputs(opened.manifest.model, range(3), np.arange(3))
    expected = backend.run(inputs)
    assert np.array_equal(np.from_dlpack(backend.run_on_device(inputs)), expected)
    backend.close()


def test_a_backend_says_on_which_device_a_run_failed(opened: Bundle) -> None:
    backend = Bound(opened.read_graph("fp32"))
    inputs = draw_inputs(opened.manifest.model, range(3), None)
    with pytest.raises(BackendUnavailable, match="onnxruntime failed on cpu: .*y"):
        backend.run(inputs)
    backend.close()


def test_an_onnxruntime_without_dlpack_is_told(opened: Bundle, monkeypatch) -> None:
    backend = Bound(opened.read_graph("fp32"))
    monkeypatch.delattr(onnxruntime.OrtValue, "__dlpack__", raising=False)
    inputs = draw_inputs(opened.manifest.model, range(1), np.zeros(1, int))
    with pytest.raises(BackendUnavailable, match="hands out no memory of a GPU; run: pip install"):
        backend.run_on_device(inputs)
    backend.close()
