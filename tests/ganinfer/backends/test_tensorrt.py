"""The native backend on a simulated GPU; what needs a real one is marked so."""

import gc
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simulated_gpu
from simulated_gpu import Cuda, Status

from ganexport.pipeline import Exported
from ganinfer import Sampler
from ganinfer.backends import _tensorrt_library
from ganinfer.backends._cuda import gpus_at_rest
from ganinfer.backends._tensorrt_library import host_platform
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.backends.tensorrt import TensorRTBackend, _shapes, bucket_sizes, profile_for
from ganinfer.bench.layers import Layers
from ganinfer.bundle.archive import Bundle, write_bundle
from ganinfer.bundle.manifest import Engine
from ganinfer.drawing.inputs import Inputs, Wanted, draw_wanted
from ganinfer.drawing.latents import seed_array
from ganinfer.drawing.model import Model
from ganinfer.errors import BackendUnavailable, Closed
from ganinfer.lookup import module_names

PROFILES = [[1, 2, 4], [8, 12, 20]]
Open = Callable[..., TensorRTBackend]


@pytest.fixture
def cuda() -> Cuda:
    return Cuda()


@pytest.fixture
def simulate(cuda: Cuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Put a library over the simulated GPU; what it keeps lies in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_tensorrt_library, "_loggers", {})
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)

    def install(product: str = "tensorrt", *, capturable: bool = True) -> None:
        library = simulated_gpu.library(product, cuda, PROFILES, capturable=capturable)
        monkeypatch.setitem(sys.modules, product, library)

    return install


def an_engine(product: str, graph: str) -> Engine:
    return Engine(
        path=f"engines/{product}.plan", report=f"engines/{product}.json", key="0" * 64,
        onnx_sha256=graph, product=product, version="1.2.3.4", platform=host_platform(),
        target="sm89", precision="fp32", profiles=PROFILES, status="pending",
    )  # fmt: skip


@pytest.fixture
def open_engine(bundle: Path, simulate) -> Open:
    """Open an engine of the bundle's ONNX file, on the simulated GPU."""

    def opened(product: str = "tensorrt", *, capturable: bool = True) -> TensorRTBackend:
        simulate(product, capturable=capturable)
        with Bundle(bundle) as read:
            plan, model = read.read_graph("fp32"), read.manifest.model
        return TensorRTBackend(plan, an_engine(product, "0" * 64), model, "auto")

    return opened


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    with Bundle(bundle) as opened:
        return opened.manifest.model


@pytest.fixture(scope="module")
def expected(bundle: Path, model: Model) -> Callable[[Inputs], np.ndarray]:
    """What onnxruntime gives for the same inputs."""
    with Bundle(bundle) as opened:
        return OnnxRuntimeBackend(opened.read_graph("fp32"), "cpu", "fp32").run


def draw(model: Model, n: int, first: int = 0) -> Inputs:
    return draw_wanted(model, [Wanted(seed_array(range(first, first + n)), None)])


@pytest.mark.parametrize("product", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 8, 13, 20, 21, 47])
def test_batches_of_any_size_give_the_images_of_onnxruntime(
    open_engine: Open, model: Model, expected, product: str, n: int
) -> None:
    """Padded up to a bucket, split beyond the largest; twice, and into memory of the caller's."""
    backend = open_engine(product)
    for start in (0, 100):
        inputs = draw(model, n, first=start)
        out = np.zeros((n, 16, 16, 3), np.uint8)
        assert backend.run(inputs, out=out) is out
        assert np.array_equal(out, expected(inputs) if n else out)
        assert np.array_equal(backend.run(inputs), out)
    backend.close()


@pytest.mark.parametrize("product", ["tensorrt", "tensorrt_rtx"])
def test_a_profile_tells_the_layers_of_an_engine(
    open_engine: Open, bundle: Path, model: Model, product: str
) -> None:
    backend = open_engine(product)
    profile = backend.profile(draw(model, 3), seconds=0.0)
    assert profile.seconds.shape == (len(profile.run_seconds), len(profile.kernels))
    assert np.all(profile.seconds == 0.0005)
    kernel = next(kernel for kernel in profile.kernels if kernel.nodes == ("ups.0",))
    assert (kernel.kind, kernel.type, kernel.moves) == ("ConvTranspose", "fp16", False)
    assert kernel.num_bytes == 3 * 4 * 8 * 2
    with Bundle(bundle) as opened:
        layers = Layers(opened.read_graph("fp32"))
    owners = [found[0] for found in layers.of_kernels(profile.kernels)]
    assert set(owners) == {layer.name for layer in layers.layers}
    with pytest.raises(BackendUnavailable, match="at most 20 images a run, 21 were asked for"):
        backend.profile(draw(model, 21), seconds=0.0)
    backend.close()


def add_engine(bundle: Path, target: Path, product: str) -> None:
    """Write the bundle with an engine of its ONNX file."""
    with Bundle(bundle) as opened:
        entry = an_engine(product, opened.manifest.files["onnx/fp32.onnx"].sha256)
        manifest = opened.manifest.model_copy(update={"engines": [entry]})
        files = {name: opened.read(name) for name in opened.manifest.files}
        engine = {entry.path: opened.read_graph("fp32"), entry.report: b"{}"}
    write_bundle(target, manifest, files | engine)


def test_an_engine_takes_styles(styled: Exported, tmp_path: Path, simulate) -> None:
    simulate()
    add_engine(styled.path, tmp_path / "x.gan", "tensorrt")
    with Sampler(tmp_path / "x.gan", backend="tensorrt") as sampler:
        w = sampler.mapped(7, truncation=0.5)
        assert np.array_equal(sampler.synthesize(w), sampler.sample(7, truncation=0.5))


@pytest.mark.parametrize("product", ["tensorrt", "tensorrt_rtx"])
def test_a_sampler_over_an_engine_gives_the_images_of_onnxruntime(
    bundle: Path, tmp_path: Path, simulate, cuda: Cuda, product: str
) -> None:
    """The golden images are checked on the way."""
    simulate(product)
    add_engine(bundle, tmp_path / "x.gan", product)
    with (
        Sampler(tmp_path / "x.gan", backend="tensorrt") as sampler,
        Sampler(bundle, backend="onnxruntime", precision="fp32") as other,
    ):
        assert sampler.info["cuda_graphs"] == "used"
        assert cuda.calls["cudaGraphLaunch"] > 0
        for n in (1, 7, 50):
            assert np.array_equal(sampler.sample(n), other.sample(n))
        futures = [sampler.submit(3, seed=seed) for seed in range(40)]
        for seed, future in enumerate(futures):
            assert np.array_equal(future.result(60), other.sample(3, seed=seed))
    assert not cuda.live


def test_a_sampler_that_nobody_closed_frees_its_gpu(
    bundle: Path, tmp_path: Path, simulate, cuda: Cuda
) -> None:
    simulate()
    add_engine(bundle, tmp_path / "x.gan", "tensorrt")
    sampler = Sampler(tmp_path / "x.gan", backend="tensorrt")
    sampler.sample(3)
    sampler.submit(3).result(60)
    del sampler
    for _ in range(100):  # its threads end first
        gc.collect()
        if not cuda.live:
            break
        time.sleep(0.05)
    assert not cuda.live


def test_at_the_end_of_the_process_nothing_is_freed(
    open_engine: Open, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver does it, and may be gone already."""
    backend = open_engine()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "is_finalizing", lambda: True)
        del backend
        gc.collect()
    assert cuda.live


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_frees_nothing(open_engine: Open, cuda: Cuda) -> None:
    backend = open_engine()
    cuda.calls.clear()
    child = os.fork()
    if not child:
        signal.alarm(10)
        try:
            backend.close()
        finally:
            os._exit(0 if cuda.live and not cuda.calls else 1)
    assert os.waitpid(child, 0)[1] == 0
    backend.close()
    assert not cuda.live


def test_the_callers_thread_keeps_its_own_device(
    open_engine: Open, model: Model, cuda: Cuda
) -> None:
    cuda.thread.device = 5
    backend = open_engine()
    backend.run(draw(model, 3))
    with pytest.raises(BackendUnavailable):
        cuda.failures["cudaGraphLaunch"] = Status.cudaErrorIllegalAddress
        backend.run(draw(model, 3))
    backend.close()
    assert cuda.thread.device == 5
    assert not cuda.live


def test_no_graph_is_captured_elsewhere_while_an_engine_is_at_work(
    open_engine: Open, model: Model, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    fails = cuda.fails

    def look() -> None:
        with gpus_at_rest() as at_rest:
            seen.append(at_rest)

    def noted(name: str) -> Status:
        other = threading.Thread(target=look)
        other.start()
        other.join()
        return fails(name)

    monkeypatch.setattr(cuda, "fails", noted)
    backend = open_engine()
    backend.run(draw(model, 3))
    backend.close()
    assert len(seen) > 20
    assert not any(seen)


def test_a_bucket_that_has_run_is_one_launch_of_its_graph(
    open_engine: Open, model: Model, cuda: Cuda
) -> None:
    backend = open_engine()
    backend.run(draw(model, 3))
    cuda.calls.clear()
    backend.run(draw(model, 4))
    assert cuda.calls == {
        "cudaGetDevice": 1, "cudaSetDevice": 2, "cudaGraphLaunch": 1, "cudaStreamSynchronize": 1
    }  # fmt: skip
    assert backend.details["cuda_graphs"] == "used"
    backend.close()


def test_contexts_of_all_buckets_share_one_workspace(
    open_engine: Open, model: Model, cuda: Cuda
) -> None:
    backend = open_engine()
    allocated = cuda.calls["cudaMalloc"]
    for n in (1, 2, 4, 8, 20):
        backend.run(draw(model, n))
    assert cuda.calls["create_execution_context"] == 5
    assert cuda.calls["cudaMalloc"] == allocated
    backend.close()


@pytest.mark.parametrize(
    "call",
    ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "not capturable"],
)
def test_where_a_graph_is_refused_the_same_images_come_without(
    open_engine: Open, model: Model, expected, cuda: Cuda, call: str, caplog
) -> None:
    cuda.failures[call] = Status.cudaErrorStreamCaptureUnsupported
    backend = open_engine("tensorrt_rtx", capturable=call != "not capturable")
    for n in (3, 4, 20):
        inputs = draw(model, n)
        assert np.array_equal(backend.run(inputs), expected(inputs))
    assert backend.details["cuda_graphs"].startswith("refused: ")
    assert caplog.text.count("goes on without CUDA graphs") == 1
    assert not cuda.calls["cudaGraphLaunch"]
    assert cuda.last_error == Status.cudaSuccess  # nobody else finds it
    backend.close()
    assert not cuda.live


def test_an_engine_that_fails_while_it_is_captured_leaves_the_stream_as_it_was(
    open_engine: Open, model: Model, expected, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, inputs = open_engine(), draw(model, 4)
    run = simulated_gpu.IExecutionContext.execute_async_v3

    def refuse(context, stream_handle) -> bool:
        return cuda.stream(stream_handle).captured is None and run(context, stream_handle)

    monkeypatch.setattr(simulated_gpu.IExecutionContext, "execute_async_v3", refuse)
    assert np.array_equal(backend.run(inputs), expected(inputs))
    assert "refused" in backend.details["cuda_graphs"]
    backend.close()
    assert not cuda.live


def test_threads_get_their_own_images(open_engine: Open, model: Model, expected) -> None:
    backend = open_engine()
    wrong: list[int] = []

    def ask(first: int) -> None:
        for n in (1, 5, 20, 23) * 3:
            inputs = draw(model, n, first=first)
            if not np.array_equal(backend.run(inputs), expected(inputs)):
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    backend.close()


def test_whatever_fails_at_any_call_everything_is_freed(
    open_engine: Open, model: Model, expected, cuda: Cuda
) -> None:
    inputs = draw(model, 5)
    for nth in range(1, 100):
        cuda.num_fallible, cuda.failures = 0, {nth: Status.cudaErrorIllegalAddress}
        try:
            backend = open_engine("tensorrt_rtx")
        except BackendUnavailable:
            assert not cuda.live, f"call {nth}"
            continue
        try:
            backend.run(inputs)
        except BackendUnavailable:
            assert np.array_equal(backend.run(inputs), expected(inputs)), "one batch fails alone"
        backend.close()
        assert not cuda.live, f"call {nth}"
        if cuda.num_fallible < nth:
            break
    assert 20 < nth < 99


def test_a_gpu_without_memory_says_so(open_engine: Open, cuda: Cuda) -> None:
    cuda.failures["cudaMalloc"] = Status.cudaErrorMemoryAllocation
    with pytest.raises(BackendUnavailable, match="cudaErrorMemoryAllocation; is another program"):
        open_engine()


def test_closing_twice_is_fine_and_running_after_it_is_refused(
    open_engine: Open, model: Model, cuda: Cuda
) -> None:
    backend = open_engine()
    backend.run(draw(model, 2))
    backend.close()
    backend.close()
    assert not cuda.live
    with pytest.raises(Closed, match="closed"):
        backend.run(draw(model, 2))


def test_compiled_kernels_are_kept_for_the_next_opening(
    open_engine: Open, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_engine("tensorrt_rtx")
    backend.run(draw(model, 4))
    (file,) = (tmp_path / "cache/ganpipe/tensorrt_rtx/1.2.3.4").iterdir()
    assert file.name.endswith("-sm89.bin")
    assert file.read_bytes().endswith(b"kernels 1 4"), "before it is closed, which may never be"
    backend.close()
    backend = open_engine("tensorrt_rtx")
    backend.run(draw(model, 20))
    backend.close()
    assert file.read_bytes().endswith(b"kernels 1 20 4")
    with monkeypatch.context() as patch:
        patch.setattr("ganinfer.host.kept.write", lambda *_: pytest.fail("nothing has changed"))
        open_engine("tensorrt_rtx").close()


@pytest.mark.parametrize("content", [b"short", b"0" * 64 + b"kernels 4"])
def test_damaged_kernels_are_left_alone_and_made_anew(
    open_engine: Open, model: Model, tmp_path: Path, caplog, content: bytes
) -> None:
    open_engine("tensorrt_rtx").close()
    (file,) = (tmp_path / "cache/ganpipe/tensorrt_rtx/1.2.3.4").iterdir()
    file.write_bytes(content)
    backend = open_engine("tensorrt_rtx")
    backend.run(draw(model, 8))
    backend.close()
    assert "damaged; made anew" in caplog.text
    assert file.read_bytes().endswith(b"kernels 1 8")


def test_kernels_that_the_library_refuses_are_made_anew(
    open_engine: Open, tmp_path: Path, caplog
) -> None:
    from ganinfer.host import kept

    open_engine("tensorrt_rtx").close()
    (file,) = (tmp_path / "cache/ganpipe/tensorrt_rtx/1.2.3.4").iterdir()
    kept.write(file, b"of another driver")
    open_engine("tensorrt_rtx").close()
    assert "of another GPU or driver; made anew" in caplog.text
    assert kept.read(file) == b"kernels 1"


def test_an_engine_that_the_library_refuses_says_why(open_engine: Open, cuda: Cuda) -> None:
    cuda.failures["deserialize_cuda_engine"] = Status.cudaErrorInvalidValue
    with pytest.raises(BackendUnavailable, match="refuses the engine for sm89 on sm89"):
        open_engine()
    assert not cuda.live


def test_inputs_are_those_of_the_model(model: Model) -> None:
    assert _shapes(model)["y"] == ((), np.int64)
    weights = model.model_copy(update={"class_input": "weights"})
    assert _shapes(weights)["y"] == ((3,), np.float32)
    assert "y" not in _shapes(model.model_copy(update={"classes": []}))
    assert "truncation" not in _shapes(model)


@pytest.mark.parametrize(
    ("profiles", "sizes"),
    [
        (PROFILES, (1, 2, 4, 8, 12, 16, 20)),
        ([[1, 64, 256]], (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        ([[64, 64, 100], [1, 2, 3]], (1, 2, 3, 64, 100)),
        ([[5, 5, 5]], (5,)),
    ],
)
def test_buckets_are_what_profiles_are_tuned_for_and_powers_of_two(
    profiles: list[list[int]], sizes: tuple[int, ...]
) -> None:
    assert bucket_sizes(profiles) == sizes


TWO = [[1, 1, 8], [8, 64, 256]]


@pytest.mark.parametrize(
    ("size", "profiles", "chosen"),
    [
        (1, TWO, 0),
        (8, TWO, 0),  # both cover it; 1 is nearer than 64
        (16, TWO, 1),
        (256, TWO, 1),
        (8, [[1, 256, 256], [1, 4, 256]], 1),
        (4, [[64, 64, 128], [1, 2, 4]], 1),
    ],
)
def test_a_bucket_takes_the_profile_that_covers_it_with_the_nearest_likeliest_batch(
    size: int, profiles: list[list[int]], chosen: int
) -> None:
    assert profile_for(size, profiles) == chosen


def test_modules_that_begin_with_an_underscore_are_no_backends() -> None:
    assert module_names("ganinfer.backends") == [
        "onnxruntime",
        "onnxruntime_tensorrt",
        "openvino",
        "tensorrt",
    ]


# What is simulated must exist.


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(n for n in public(Cuda) if n.startswith("cuda")))
def test_the_simulated_cuda_is_as_the_real_one(name: str) -> None:
    real = getattr(pytest.importorskip("cuda.bindings.runtime"), name)
    simulated = getattr(Cuda, name)
    if inspect.isfunction(simulated):
        _, *parameters = inspect.signature(simulated).parameters
        assert parameters == list(inspect.signature(real).parameters)
    elif isinstance(simulated, type):
        assert {m.name: m.value for m in simulated}.items() <= {
            m.name: int(m) for m in real
        }.items()
    else:
        assert simulated == real


def test_the_simulated_library_has_nothing_that_the_real_one_lacks() -> None:
    real = pytest.importorskip("tensorrt_rtx")
    simulated = simulated_gpu.library("tensorrt_rtx", Cuda(), PROFILES)
    missing = {name for name in public(simulated) if not hasattr(real, name)}
    for name in public(simulated):
        part = getattr(simulated, name)
        if isinstance(part, type):
            # The fields that Python has of an enum are not the library's.
            names = part.__members__ if hasattr(part, "__members__") else public(part)
            missing |= {f"{name}.{n}" for n in names if not hasattr(getattr(real, name), n)}
    assert not missing
