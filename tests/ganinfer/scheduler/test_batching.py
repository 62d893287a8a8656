"""Many callers, one device: merged fairly, each answer as if it were alone."""

import asyncio
import gc
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite_manifest

from ganinfer import DeadlineExceeded, QueueFull, RequestError, Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.archive import Bundle, sign_bundle
from ganinfer.bundle.signature import make_keys, open_private_key
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs, draw_inputs
from ganinfer.errors import BackendUnavailable, BundleError, Closed
from ganinfer.scheduler.batching import Batcher
from ganinfer.scheduler.deadlines import Deadlines
from ganinfer.scheduler.request import Request
from ganinfer.scheduler.sizes import RunTimes, next_batch, padded_size
from ganinfer.scheduler.stats import Stats


class Watched(OnnxRuntimeBackend):
    """The real backend, that can be held, and can be told to fail."""

    def __init__(self, graph: bytes) -> None:
        super().__init__(graph, "cpu", "fp32")
        self.parallel_runs = 1
        self.sizes: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.entered, self.gate = threading.Semaphore(0), threading.Event()
        self.gate.set()
        self.failures = 0
        self.refused: np.ndarray | None = None

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:
        self.entered.release()
        assert self.gate.wait(20)
        self.sizes.append(len(inputs))
        self.threads.add(threading.current_thread())
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("the device fell off the bus")
        if self.refused is not None and (inputs.z == self.refused).all(axis=1).any():
            raise BackendUnavailable("the device cannot stand this latent")
        return super().run(inputs, out=out, alone=alone)


@pytest.fixture
def watched(bundle: Path):
    with Bundle(bundle) as opened:
        backend = Watched(opened.read_graph("fp32"))
        backend.model = opened.manifest.model
    yield backend
    backend.gate.set()
    backend.close()


def batcher_of(backend: Watched, **options) -> Batcher:
    usual = {"largest": 8, "max_queue": 9, "max_queue_images": 99, "max_wait_ms": 0}
    return Batcher([backend], Inputs.joined, stats=Stats(), **usual | options)


@pytest.fixture
def batcher(watched: Watched):
    made = batcher_of(watched, largest=16, max_queue=4, max_queue_images=400)
    yield made
    watched.gate.set()
    made.close()


def request(backend: Watched, n: int, seed: int = 0, **options) -> Request:
    seeds, y = range(seed, seed + n), np.arange(n) % 3
    inputs = draw_inputs(backend.model, seeds, y)
    return Request(inputs, np.zeros((n, 16, 16, 3), np.uint8), **options)


def hold(backend: Watched, batcher: Batcher) -> Future:
    """Occupy the device with one image, so that what comes next has to wait."""
    backend.gate.clear()
    future = batcher.submit(request(backend, 1))
    assert backend.entered.acquire(timeout=20)
    return future


def test_what_waits_is_merged_into_one_batch(watched: Watched, batcher: Batcher) -> None:
    first = hold(watched, batcher)
    others = [batcher.submit(request(watched, n, seed=10 * n)) for n in (2, 3, 4)]
    watched.gate.set()
    answers = [future.result(20) for future in (first, *others)]
    assert watched.sizes == [1, 9]
    for n, answer in zip((2, 3, 4), answers[1:], strict=True):
        alone = batcher.submit(request(watched, n, seed=10 * n)).result(20)
        assert np.array_equal(answer, alone)


def test_a_large_request_holds_up_no_small_one(watched: Watched, batcher: Batcher) -> None:
    first = hold(watched, batcher)
    large = batcher.submit(request(watched, 200))
    small = batcher.submit(request(watched, 5, seed=7))
    order: list[str] = []
    large.add_done_callback(lambda _: order.append("large"))
    small.add_done_callback(lambda _: order.append("small"))
    watched.gate.set()
    large.result(20)
    first.result(20)
    assert order == ["small", "large"]
    assert watched.sizes[1] == 16  # 5 of the one, 11 of the other


def test_one_more_than_the_queue_holds_is_refused(watched: Watched, batcher: Batcher) -> None:
    hold(watched, batcher)
    waiting = [batcher.submit(request(watched, 1)) for _ in range(4)]
    with pytest.raises(QueueFull, match="4 requests are waiting, and max_queue is 4"):
        batcher.submit(request(watched, 1))
    assert waiting[0].cancel()  # what is taken back makes room
    batcher.submit(request(watched, 1))


def test_more_images_than_may_wait_are_refused(watched: Watched, batcher: Batcher) -> None:
    hold(watched, batcher)
    waiting = [batcher.submit(request(watched, 190)) for _ in range(2)]
    message = "380 images wait, and max_queue_images is 400; 21 more do not fit"
    with pytest.raises(QueueFull, match=message):
        batcher.submit(request(watched, 21))
    batcher.submit(request(watched, 20))
    assert waiting[0].cancel()  # what is taken back makes room
    batcher.submit(request(watched, 190))


def test_a_late_request_is_told_while_the_device_is_busy(
    watched: Watched, batcher: Batcher
) -> None:
    """Whether it waits or runs; the others come in order."""
    running = hold(watched, batcher)
    late = batcher.submit(request(watched, 2, deadline=time.monotonic() + 0.01))
    good = batcher.submit(request(watched, 2, deadline=time.monotonic() + 60))
    with pytest.raises(DeadlineExceeded, match="2 of 2 images were not there"):
        late.result(20)
    assert not running.done()
    watched.gate.set()
    assert running.result(20).any()
    assert good.result(20).any()
    watched.gate.clear()
    begun = batcher.submit(request(watched, 3, deadline=time.monotonic() + 0.2))
    while not begun.done():
        time.sleep(0.01)
    with pytest.raises(DeadlineExceeded, match="3 of 3 images were not there"):
        begun.result()
    watched.gate.set()
    assert batcher.submit(request(watched, 2)).result(20).any()


def test_who_is_late_is_told_by_the_last_worker_too(watched: Watched, batcher: Batcher) -> None:
    """When the batcher closes, and nobody watches deadlines any more."""
    hold(watched, batcher)
    late = batcher.submit(request(watched, 2, deadline=time.monotonic() + 0.05))
    batcher.stop()
    time.sleep(0.1)
    watched.gate.set()
    with pytest.raises(DeadlineExceeded):
        late.result(20)


def test_a_callback_that_raises_does_not_end_the_watch(watched: Watched, batcher: Batcher) -> None:
    def leave(_: Future) -> None:
        raise SystemExit

    hold(watched, batcher)
    for _ in range(2):
        late = batcher.submit(request(watched, 2, deadline=time.monotonic() + 0.01))
        late.add_done_callback(leave)
        with pytest.raises(DeadlineExceeded):
            late.result(20)


def test_requests_that_are_answered_before_they_are_watched(watched: Watched) -> None:
    """As a worker may, between the queue and the watch; when all of them are, none is next."""
    deadlines = Deadlines(lambda request: None)
    for _ in range(3000):
        answered = request(watched, 1, deadline=time.monotonic() + 600)
        answered.future.set_result(answered.images)
        deadlines.add(answered)
    deadlines.close()


def test_deadlines_that_are_kept_are_forgotten(watched: Watched, batcher: Batcher) -> None:
    for _ in range(1100):
        batcher.submit(request(watched, 1, deadline=time.monotonic() + 600)).result(20)
    assert len(batcher._deadlines._heap) < 200
    assert not batcher._open


def test_a_cancelled_request_is_not_run(watched: Watched, batcher: Batcher) -> None:
    hold(watched, batcher)
    cancelled, good = (batcher.submit(request(watched, 3)) for _ in range(2))
    assert cancelled.cancel()
    watched.gate.set()
    good.result(20)
    assert watched.sizes == [1, 3]
    with pytest.raises(CancelledError):
        cancelled.result(1)


def test_a_failing_backend_fails_its_request_and_serves_the_next(
    watched: Watched, batcher: Batcher
) -> None:
    watched.failures = 1
    with pytest.raises(BackendUnavailable, match="fell off the bus"):
        batcher.submit(request(watched, 2)).result(20)
    assert batcher.submit(request(watched, 2)).result(20).any()


def test_of_a_failed_batch_only_the_requests_that_fail_alone_do(
    watched: Watched, batcher: Batcher
) -> None:
    first = hold(watched, batcher)
    bad, *good = (batcher.submit(request(watched, n, seed=10 * n)) for n in (3, 2, 4))
    watched.refused = draw_inputs(watched.model, [31], None).z[0]
    watched.gate.set()
    with pytest.raises(BackendUnavailable, match="cannot stand this latent"):
        bad.result(20)
    assert all(future.result(20).any() for future in (first, *good))
    assert watched.sizes[:2] == [1, 9]
    assert sorted(watched.sizes[2:]) == [2, 3, 4]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_whatever_a_callback_raises_all_are_answered(watched, batcher, error, caplog) -> None:
    def callback(_: Future) -> None:
        raise error("from a callback")

    first = hold(watched, batcher)
    others = [batcher.submit(request(watched, n, seed=n)) for n in (2, 3)]
    others[0].add_done_callback(callback)
    watched.gate.set()
    assert all(future.result(20).any() for future in (first, *others))
    assert watched.sizes == [1, 5]  # and nothing is run twice
    assert batcher.submit(request(watched, 2)).result(20).any()


def test_a_callback_may_ask_again_and_may_close(watched: Watched, batcher: Batcher) -> None:
    """Also that of a request that is too late."""
    first = hold(watched, batcher)
    late = batcher.submit(request(watched, 2, deadline=time.monotonic() + 0.01))
    time.sleep(0.05)
    others: list[Future] = []

    def ask(_: Future) -> None:
        other = threading.Thread(target=lambda: others.append(batcher.submit(request(watched, 1))))
        other.start()
        other.join(5)  # which a lock that is held here would never let end

    late.add_done_callback(ask)
    watched.gate.set()
    with pytest.raises(DeadlineExceeded):
        late.result(20)
    assert first.result(20).any()
    deadline = time.monotonic() + 20
    while not others and time.monotonic() < deadline:
        time.sleep(0.01)
    assert others[0].result(20).any()
    start = time.monotonic()
    closed: Future = Future()
    last = batcher.submit(request(watched, 1))
    last.add_done_callback(lambda _: closed.set_result(batcher.close()))
    closed.result(20)
    assert time.monotonic() - start < 10


def test_a_buffer_whose_request_was_taken_back_is_left_alone(
    watched: Watched, batcher: Batcher
) -> None:
    mine = np.full((2, 16, 16, 3), 7, np.uint8)
    watched.gate.clear()
    asked = request(watched, 2, out=mine)
    taken_back = batcher.submit(asked)
    assert watched.entered.acquire(timeout=20)
    assert taken_back.cancel()
    watched.gate.set()
    other = np.zeros_like(mine)
    kept = batcher.submit(request(watched, 2, out=other))
    assert kept.result(20) is other
    assert other.any()
    assert (mine == 7).all()


def test_who_waits_for_a_cancelled_future_is_told(watched: Watched, batcher: Batcher) -> None:
    first = hold(watched, batcher)
    waiting, running = batcher.submit(request(watched, 3)), first
    assert waiting.cancel()
    assert running.cancel()  # the device has it already
    watched.gate.set()
    assert wait([waiting, running], timeout=20).not_done == set()


def test_a_cancelled_request_whose_batch_fails_is_no_answer(
    watched: Watched, batcher: Batcher
) -> None:
    first = hold(watched, batcher)
    assert first.cancel()
    watched.failures = 1
    watched.gate.set()
    assert wait([first], timeout=20).not_done == set()
    found = batcher._stats.read()
    assert (found["requests"], found["failed"], found["failed_batches"]) == (0, 0, 1)
    assert found["queue_ms"]["p50"] == 0


def test_cancelling_at_any_moment_ends_no_worker(watched: Watched, batcher: Batcher) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            batcher.submit(request(watched, 1)).cancel()
    except QueueFull:
        pass
    finally:
        sys.setswitchinterval(interval)
    assert batcher.submit(request(watched, 1)).result(20).any()
    assert all(worker.is_alive() for worker in batcher._workers)


def test_a_batch_that_is_cut_of_cancelled_requests_alone_is_none(
    watched: Watched, batcher: Batcher
) -> None:
    """A worker has counted what waits, and then all of it is cancelled."""
    asked = request(watched, 3)
    batcher._queue = [asked]
    asked.future.cancel()
    assert batcher._cut(watched, pending=3) is None
    assert not any(batcher._running.values())


def test_what_a_callback_asks_for_is_run_in_its_worker(watched: Watched, batcher: Batcher) -> None:
    answers: list[np.ndarray] = []
    first = hold(watched, batcher)
    first.add_done_callback(
        lambda _: answers.append(batcher.serve(request(watched, 20)).result(20))
    )
    watched.gate.set()
    assert batcher.submit(request(watched, 1)).result(20).any()
    assert answers[0].shape[0] == 20
    assert answers[0].any(axis=(1, 2, 3)).all()


def test_nobody_waits_for_company_beyond_their_deadline(watched: Watched) -> None:
    patient = batcher_of(watched, max_wait_ms=5000)
    start = time.monotonic()
    asked = request(watched, 2, deadline=start + 2)
    assert patient.submit(asked).result(20).any()
    assert time.monotonic() - start < 2
    patient.close()


def test_closing_finishes_what_was_asked_for(watched: Watched, batcher: Batcher) -> None:
    first = hold(watched, batcher)
    waiting = [batcher.submit(request(watched, 20)) for _ in range(3)]
    threading.Timer(0.05, watched.gate.set).start()
    batcher.close()
    assert all(future.done() and future.result().any() for future in (first, *waiting))
    with pytest.raises(Closed, match="closed"):
        batcher.submit(request(watched, 1))


def test_closing_may_fail_what_is_not_begun(watched: Watched, batcher: Batcher) -> None:
    first = hold(watched, batcher)
    waiting = batcher.submit(request(watched, 20))
    threading.Timer(0.05, watched.gate.set).start()
    batcher.close(cancel=True)
    assert first.result(1).any()
    with pytest.raises(Closed, match="closed before its turn"):
        waiting.result(1)


def test_closing_waits_no_longer_than_it_may(watched: Watched, batcher: Batcher) -> None:
    first = hold(watched, batcher)
    waiting = batcher.submit(request(watched, 20))
    start = time.monotonic()
    assert not batcher.close(timeout_s=0.1)  # the device is at work yet
    assert time.monotonic() - start < 5
    for future in (first, waiting):
        with pytest.raises(Closed, match=r"not there 0\.1 s later"):
            future.result(0)
    watched.gate.set()
    assert batcher.close()
    assert not batcher.live


def test_a_worker_that_closes_waits_for_nobody(watched: Watched, batcher: Batcher) -> None:
    first, done = hold(watched, batcher), list[bool]()
    others = [batcher.submit(request(watched, 20)) for _ in range(3)]
    first.add_done_callback(lambda _: done.append(batcher.close()))
    watched.gate.set()
    assert all(future.result(20).any() for future in others)
    assert batcher.close()
    assert done == [False]


def test_a_batch_may_wait_for_company(watched: Watched) -> None:
    patient = batcher_of(watched, max_wait_ms=200)
    futures = [patient.submit(request(watched, 2)) for _ in range(4)]
    for future in futures:
        future.result(20)
    assert watched.sizes == [8]
    patient.close()


@pytest.mark.parametrize(
    ("asked", "runs", "sizes", "pads", "running", "expected"),
    [
        (64, 2, (), False, 0, 32),  # shared out
        (64, 2, (), False, 1, 64),  # whoever comes second takes the rest
        (1, 2, (), False, 0, 1),
        (7, 16, (), False, 0, 7),  # so few that one run with all threads is sooner done
        (7, 16, (), False, 1, 1),
        (500, 2, (), False, 0, 64),
        (11, 2, (1, 2, 4, 8), False, 0, 4),  # cut
        (11, 1, (1, 2, 4, 8, 16), True, 0, 11),  # padded
        (30, 1, (1, 2, 4, 8, 16), True, 0, 16),  # a larger one would only be split
    ],
)
def test_the_size_of_the_next_batch(watched, asked, runs, sizes, pads, running, expected) -> None:
    watched.parallel_runs, watched.batch_sizes, watched.pads = runs, sizes, pads
    assert next_batch(asked, 64, watched, running=running) == expected
    if pads:
        assert padded_size(expected, 64, watched) == 16


def quick(backend: Watched) -> Batcher:
    """As of a small network on a quiet machine."""
    batcher = batcher_of(backend)
    batcher._run_times.add(backend, 1, 1e-4)
    return batcher


def test_short_runs_are_made_one_after_the_other(watched: Watched) -> None:
    watched.parallel_runs = 2
    batcher = quick(watched)
    first = hold(watched, batcher)
    few = [batcher.submit(request(watched, 2)) for _ in range(3)]
    assert not watched.entered.acquire(timeout=0.2)  # they are sooner done together
    full = batcher.submit(request(watched, 2))
    assert watched.entered.acquire(timeout=20)
    watched.gate.set()
    for future in (first, *few, full):
        assert future.result(20).any()
    batcher.close()
    assert next_batch(7, 8, watched, running=0, short=True) == 7


def on_a_loop(backend: Watched, batcher: Batcher, *sizes: int) -> list[Images]:
    """Ask for batches in one turn of an event loop."""

    async def main() -> list[Images]:
        soon = asyncio.get_running_loop().call_soon
        asked = [request(backend, n, seed=10 * n) for n in sizes]
        futures = [batcher.submit(one, soon) for one in asked]
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    return asyncio.run(main())


def test_short_runs_are_made_by_the_event_loop_that_asks(watched: Watched) -> None:
    batcher, me = quick(watched), threading.current_thread()
    answers = on_a_loop(watched, batcher, 1, 2, 3)
    assert watched.sizes == [6]
    assert watched.threads == {me}
    for n, answer in zip((1, 2, 3), answers, strict=True):
        alone = batcher.submit(request(watched, n, seed=10 * n)).result(20)
        assert np.array_equal(answer, alone)
    for n in (1, 2, 6):
        batcher._run_times.add(watched, n, 1.0)
    watched.threads.clear()
    on_a_loop(watched, batcher, 1, 2, 3)
    assert me not in watched.threads
    batcher.close()


@pytest.mark.parametrize("rescue", ["a thread asks", "another loop asks", "it is closed"])
def test_what_a_dead_event_loop_had_promised_is_done(watched: Watched, rescue: str) -> None:
    batcher, dead = quick(watched), asyncio.new_event_loop()
    forgotten = batcher.submit(request(watched, 1), dead.call_soon)
    dead.close()
    assert not watched.entered.acquire(timeout=0.1)
    if rescue == "a thread asks":
        batcher.submit(request(watched, 1)).result(20)
    elif rescue == "another loop asks":
        on_a_loop(watched, batcher, 1)
    else:
        batcher.close()
    assert forgotten.result(20).any()
    batcher.close()


@pytest.mark.parametrize(
    ("measured", "n", "short"),
    [
        ({}, 1, False),
        ({1: 4e-4}, 3, True),  # twice as many take twice as long
        ({1: 4e-4}, 4, False),
        ({1: 4e-4, 5: 5e-4}, 4, True),  # as does what was measured
        ({1: 4e-3, 5: 5e-4}, 1, False),  # smaller ones may be another matter
    ],
)
def test_which_runs_are_short(watched: Watched, measured, n: int, short: bool) -> None:
    times = RunTimes()
    for size, seconds in measured.items():
        times.add(watched, size, seconds)
    assert times.are_short(watched, n) is short


def test_a_batch_that_is_soon_done_is_not_shared_out(watched: Watched) -> None:
    watched.parallel_runs = 2
    batcher = batcher_of(watched)
    for seconds, sizes in ((1.0, [4, 4]), (2e-3, [8])):
        watched.sizes.clear()
        batcher._run_times.add(watched, 4, seconds)
        batcher._run_times.add(watched, 8, 2 * seconds)
        batcher.serve(request(watched, 8)).result(20)
        assert watched.sizes == sizes
    batcher.close()


# The same through Sampler, on every backend of this host.


@pytest.fixture(params=["onnxruntime", "openvino"])
def sampler(bundle: Path, request: pytest.FixtureRequest):
    pytest.importorskip(request.param)
    with Sampler(bundle, backend=request.param) as opened:
        yield opened


def test_concurrent_callers_get_what_they_would_get_alone(sampler: Sampler) -> None:
    asked = [
        {"n": n, "seed": 1000 * n, "labels": n % 3 if n % 2 else None, "truncation": t}
        for n in (1, 2, 5, 33, 130)
        for t in (None, 0.5)
    ]
    alone = [sampler.sample(**one) for one in asked]
    futures = [sampler.submit(**one) for one in asked * 3]
    for n, future in enumerate(futures):
        assert np.array_equal(future.result(60), alone[n % len(asked)])
    stats = sampler.stats
    assert stats["requests"] == 4 * len(asked)
    assert stats["batches"] < 4 * stats["requests"]
    assert stats["fill"] == 1.0
    assert stats["request_ms"]["p99"] >= stats["request_ms"]["p50"] > 0


def test_asyncio_tasks_share_a_sampler_and_can_be_cancelled(sampler: Sampler) -> None:
    async def main() -> list[np.ndarray]:
        doomed = asyncio.create_task(sampler.asample(2000))
        tasks = [asyncio.create_task(sampler.asample(2, seed=s)) for s in range(20)]
        await asyncio.sleep(0)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        return await asyncio.gather(*tasks)

    expected = sampler.sample(21)
    for seed, images in enumerate(asyncio.run(main())):
        assert np.array_equal(images, expected[seed : seed + 2])


def test_a_batch_is_shared_out_once(bundle: Path) -> None:
    with Sampler(bundle, backend="onnxruntime") as sampler:
        sampler.sample(64)
        assert sampler.stats["batches"] == sampler._runner.backends[0].parallel_runs


def test_images_are_written_into_the_callers_buffer(sampler: Sampler) -> None:
    out = np.zeros((70, 16, 16, 3), np.uint8)
    assert sampler.sample(70, out=out) is out
    assert np.array_equal(out, sampler.sample(70))
    with pytest.raises(RequestError, match=r"out: found uint8 \(70, 16, 16, 3\); .*\(3, 16"):
        sampler.sample(3, out=out)
    with pytest.raises(RequestError, match="writeable, contiguous"):
        sampler.sample(35, out=out[::2])


def test_latents_come_back_and_give_the_same_images(sampler: Sampler) -> None:
    images, z = sampler.sample(5, seed=3, labels=1, truncation=0.5, return_latents=True)
    assert np.array_equal(sampler.generate(z, np.full(5, 1)), images)
    torch = pytest.importorskip("torch")
    assert np.array_equal(sampler.generate(torch.from_numpy(z), np.full(5, 1)), images)
    assert torch.from_dlpack(images).data_ptr() == images.ctypes.data


def test_too_late_is_said_and_nothing_is_left_behind(sampler: Sampler) -> None:
    with pytest.raises(DeadlineExceeded):
        sampler.sample(50_000, timeout_s=0.05)
    assert sampler.sample(1).any()


def test_a_sampler_that_nobody_closed_leaves_no_threads(bundle: Path) -> None:
    before = set(threading.enumerate())
    sampler = Sampler(bundle, backend="onnxruntime")
    future = sampler.submit(3)
    del sampler
    gc.collect()
    assert future.result(20).any()  # what was asked for is answered
    deadline = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not set(threading.enumerate()) - before


def test_a_sampler_goes_to_another_process(bundle: Path) -> None:
    with Sampler(bundle, backend="onnxruntime") as sampler:
        again = pickle.loads(pickle.dumps(sampler))
        assert np.array_equal(again.sample(3), sampler.sample(3))
        again.close()
        expected = sampler.sample(3)
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            assert np.array_equal(pool.apply(sampler.sample, (3,)), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_opens_backends_of_its_own(sampler: Sampler) -> None:
    expected = sampler.sample(3)
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = np.array_equal(sampler.sample(3), expected)
            good = good and sampler.stats["requests"] == 1  # its own
        finally:
            os._exit(0 if good else 1)
    assert exit_of(child) == 0
    assert np.array_equal(sampler.sample(3), expected)


def exit_of(child: int) -> int:
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_takes_no_other_bundle(bundle: Path, tmp_path: Path) -> None:
    """Neither another one of the same path, nor one whose signature is gone."""
    public_key = make_keys(tmp_path / "key.pem")
    path = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    sign_bundle(path, open_private_key(tmp_path / "key.pem"))
    with Sampler(path, backend="onnxruntime", public_key=public_key) as sampler:
        (path / "manifest.sig").unlink()
        child = os.fork()
        if child == 0:
            refused = False
            try:
                sampler.sample(1)
            except BundleError as error:
                refused = "sign" in str(error)
            finally:
                os._exit(0 if refused else 1)
        assert exit_of(child) == 0


def test_a_sampler_that_is_sent_finds_its_own_bundle_or_none(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle, tmp_path / "x.gan")
    with Sampler("x.gan", backend="onnxruntime") as sampler:
        sent = pickle.dumps(sampler)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pickle.loads(sent) as again:
            assert np.array_equal(again.sample(3), sampler.sample(3))
    rewrite_manifest(tmp_path / "x.gan", lambda tree: tree["model"].update(family="another"))
    with pytest.raises(
        BundleError, match=r"found the bundle \w{12}, and the Sampler .* had \w{12}"
    ):
        pickle.loads(sent)
