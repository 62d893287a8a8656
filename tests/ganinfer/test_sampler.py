import asyncio
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite_manifest
from PIL import Image

from ganinfer import Sampler
from ganinfer.drawing.latents import draw_labels, draw_latents
from ganinfer.errors import (
    BackendUnavailable,
    BundleError,
    Closed,
    ConfigError,
    ParityError,
    RequestError,
)
from ganinfer.files import sha256_file


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def sampler(bundle: Path, request: pytest.FixtureRequest):
    with Sampler(bundle, precision=request.param) as opened:
        yield opened


def test_images_have_the_models_shape(sampler: Sampler) -> None:
    images = sampler.sample(5)
    assert images.shape == (5, 16, 16, 3)
    assert images.dtype == np.uint8
    assert sampler.sample(0).shape == (0, 16, 16, 3)


def test_image_is_independent_of_batch_size_and_order(sampler: Sampler) -> None:
    """Bit for bit: alone, in a batch of 64, in any order, in batches of any size."""
    together = sampler.sample(200, seed=0, labels=1)
    for seed in range(0, 200, 13):
        assert np.array_equal(sampler.sample(1, seed=seed, labels=1)[0], together[seed])
    order = np.random.default_rng(0).permutation(200)
    assert np.array_equal(sampler.sample(seeds=order, labels=1), together[order])
    assert np.array_equal(sampler.sample(64, labels=1), together[:64])
    for size in (1, 3, 64, 100):
        assert np.array_equal(np.concatenate(list(sampler.stream(200, size, labels=1))), together)


def test_random_labels_belong_to_the_seed(sampler: Sampler) -> None:
    labels = draw_labels(range(30), 3)
    assert np.array_equal(sampler.sample(30), sampler.sample(30, labels=labels))
    assert np.array_equal(sampler.sample(5, seed=20), sampler.sample(30)[20:25])
    assert np.array_equal(np.concatenate(list(sampler.stream(30, 7))), sampler.sample(30))


def test_labels_by_name_number_and_sequence_agree(sampler: Sampler) -> None:
    expected = sampler.sample(4, labels=2)
    assert np.array_equal(sampler.sample(4, labels="2"), expected)
    assert np.array_equal(sampler.sample(4, labels=[2, "2", np.int64(2), 2]), expected)
    assert not np.array_equal(sampler.sample(4, labels=0), expected)


def test_generate_takes_the_callers_latents(sampler: Sampler) -> None:
    z = draw_latents(range(6), 16)
    assert np.array_equal(sampler.generate(z, np.zeros(6, int)), sampler.sample(6, labels=0))


def test_truncation_changes_the_latents_only(sampler: Sampler) -> None:
    z = draw_latents(range(6), 16, truncation=0.5)
    expected = sampler.generate(z, np.ones(6, np.int64))
    assert np.array_equal(sampler.sample(6, labels=1, truncation=0.5), expected)
    scaled = sampler.sample(6, labels=1, truncation=0.5, truncation_mode="scale")
    assert not np.array_equal(scaled, expected)


def test_interpolation_meets_both_ends(sampler: Sampler) -> None:
    path = sampler.interpolate(4, 9, 5, label=1)
    ends = sampler.sample(seeds=[4, 9], labels=1)
    assert path.shape == (5, 16, 16, 3)
    steps = np.abs(path[[0, -1]].astype(int) - ends)
    assert steps.max() <= 1


def test_places_on_the_way_are_those_of_the_whole_way(sampler: Sampler) -> None:
    whole = sampler.interpolate(4, 9, 5, label=1)
    assert np.array_equal(sampler.interpolate(4, 9, [0.75, 0, 0.5], label=1), whole[[3, 0, 2]])
    assert np.array_equal(sampler.interpolate(4, 9, np.linspace(0, 1, 5), label=1), whole)
    for wrong, words in (
        (1, "steps: found 1; expected an integer, 2 or more"),
        ([0.5, 1.5], "steps: found 1.5; expected places from 0 to 1"),
        ([float("nan")], "steps: found nan"),
        ([[0.5]], "found float64 .1, 1.; expected how many images, or a list"),
        (0.5, "steps: found 0.5; expected an integer"),
        ("0.5", "steps: found '0.5'"),
    ):
        with pytest.raises(RequestError, match=words):
            sampler.interpolate(4, 9, wrong, label=1)


def test_pil_output_holds_the_same_pixels(sampler: Sampler) -> None:
    pictures = sampler.sample(3, output="pil")
    assert all(isinstance(picture, Image.Image) for picture in pictures)
    assert np.array_equal(np.stack([np.asarray(p) for p in pictures]), sampler.sample(3))


def test_threads_may_share_a_sampler(sampler: Sampler) -> None:
    expected = sampler.sample(40)
    results: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        results[number] = sampler.sample(40)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(images, expected) for images in results.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n: found -1"),
        ({"n": 2.5}, "n: found 2.5"),
        ({}, "how many images"),
        ({"seeds": 5}, "seeds: found 5"),
        ({"n": 2, "labels": 1.5}, "labels: found 1.5"),
        ({"n": 1, "labels": np.array([[1]])}, r"labels: found int64 \(1, 1\)"),
        ({"n": 2, "truncation": True}, "truncation: found True"),
        ({"n": 2, "truncation_mode": "nonsense"}, "truncation_mode 'nonsense'"),
        ({"n": 2, "seed": -1}, "seed"),
        ({"n": 2, "seed": 2**64 - 1}, "seed"),
        ({"n": 3, "seeds": [1, 2]}, "2 seeds"),
        ({"n": 1, "seeds": [-4]}, "seeds"),
        ({"n": 2, "labels": 3}, "label 3: expected 0 to 2"),
        ({"n": 2, "labels": -1}, "label -1"),
        ({"n": 2, "labels": "dog"}, "no such class"),
        ({"n": 2, "labels": [0]}, "found 1 for 2"),
        ({"n": 2, "labels": [0.5, 1]}, r"labels: found float64 \(2,\)"),
        ({"n": 2, "truncation": 0}, "truncation"),
        ({"n": 2, "truncation": 0.5, "truncation_mode": "clip"}, "truncation_mode"),
        ({"n": 2, "output": "jpeg"}, "output"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(sampler: Sampler, arguments, message) -> None:
    with pytest.raises(RequestError, match=message):
        sampler.sample(**arguments)


@pytest.mark.parametrize(
    ("z", "y", "message"),
    [
        (np.zeros((2, 5), np.float32), [0, 0], "z: found"),
        (np.zeros(16, np.float32), [0], "z: found"),
        (np.zeros((1, 16), int), [0], "z: found"),
        (np.full((1, 16), np.nan, np.float32), [0], "NaN"),
        (np.full((1, 16), 1e300), [0], "infinite"),
        (np.zeros((1, 16), np.float32), None, "y: found NoneType"),
        (np.zeros((1, 16), np.float32), [3], "y: found 3; expected 0 to 2"),
        (np.zeros((1, 16), np.float32), [0, 1], "y: found"),
        (np.zeros((1, 16), np.float32), [0.0], "y: found"),
    ],
)
def test_bad_latents_and_labels_are_refused(sampler: Sampler, z, y, message) -> None:
    with pytest.raises(RequestError, match=message):
        sampler.generate(z, y)


def test_stream_complains_when_called_not_when_consumed(sampler: Sampler) -> None:
    with pytest.raises(RequestError, match="label"):
        sampler.stream(10, labels=7)
    with pytest.raises(RequestError, match="truncation"):
        sampler.stream(10, truncation=-1.0)
    with pytest.raises(RequestError, match="batch_size"):
        sampler.stream(10, 0)


def test_a_closed_sampler_says_so_and_closes_twice(bundle: Path) -> None:
    with Sampler(bundle) as sampler:
        sampler.close()
    sampler.close()
    with pytest.raises(Closed, match="closed"):
        sampler.sample(1)


def test_info_says_what_runs_where(sampler: Sampler) -> None:
    info = sampler.info
    # OpenVINO computes in float32 or bfloat16.
    expected = (
        "openvino" if find_spec("openvino") and info["precision"] == "fp32" else "onnxruntime"
    )
    assert (info["backend"], info["device"], info["family"]) == (expected, "cpu", "dcgan")
    assert info["verified"] is True
    assert info["classes"] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "coreml"}, ConfigError, "onnxruntime, onnxruntime_tensorrt, openvino"),
        ({"precision": "int8"}, BackendUnavailable, "it holds fp32, fp16"),
        ({"device": "tpu"}, RequestError, "device 'tpu'"),
        ({"backend": "tensorrt"}, BackendUnavailable, "holds no TensorRT engine"),
        ({"batch_size": 0}, RequestError, "batch_size"),
        ({"batch_size": 2.5}, RequestError, "batch_size"),
        ({"device": 5}, RequestError, "device 5"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_words(bundle, options, error, message) -> None:
    with pytest.raises(error, match=message):
        Sampler(bundle, **options)


def test_a_gpu_that_is_not_there_is_an_error_not_a_fallback(bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(BackendUnavailable, match="built without CUDAExec.*ganpipe"):
            Sampler(bundle, device=device)


def test_another_generator_behind_the_same_name_fails_the_golden_gate(copied: Path) -> None:
    """Whoever swaps the graph and signs the manifest again is still found out."""
    path = copied / "golden/images.npy"
    np.save(path, np.load(path) ^ 8)
    digest = sha256_file(path)
    rewrite_manifest(copied, lambda m: m["files"]["golden/images.npy"].update(sha256=digest))
    with pytest.raises(ParityError, match=r"golden gate: \w+ on cpu in fp32"):
        Sampler(copied)


def test_an_unverified_bundle_needs_leave(run: Path, tmp_path: Path) -> None:
    from ganexport.options import ExportOptions
    from ganexport.pipeline import export_run

    path = export_run(
        run, tmp_path / "x.gan", ExportOptions(precisions=["fp32"], verify=False)
    ).path
    with pytest.raises(BundleError, match="--no-verify"):
        Sampler(path)
    with Sampler(path, allow_unverified=True) as sampler:
        assert sampler.info["verified"] is False


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_images_that_stay_on_the_device_are_the_same(bundle: Path, backend: str) -> None:
    pytest.importorskip(backend)
    with Sampler(bundle, backend=backend, device="cpu", batch_size=8) as sampler:
        kept = sampler.sample_on_device(8, seed=3, labels=1)
        assert np.array_equal(np.from_dlpack(kept), sampler.sample(8, seed=3, labels=1))
        with pytest.raises(RequestError, match="found 9; expected 1 to 8"):
            sampler.sample_on_device(9)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1, "5", True, None])
def test_how_long_to_wait_is_a_finite_number(bundle: Path, value) -> None:
    with pytest.raises(RequestError, match="max_wait_ms: found"):
        Sampler(bundle, max_wait_ms=value)
    if value is not None:
        with Sampler(bundle) as sampler, pytest.raises(RequestError, match="timeout_s: found"):
            sampler.submit(1, timeout_s=value)


def test_seeds_are_those_of_the_moment_of_asking(bundle: Path) -> None:
    with Sampler(bundle, max_wait_ms=200) as sampler:
        seeds = np.arange(5, 8, dtype=np.uint64)
        expected = sampler.sample(seeds=[5, 6, 7])
        future = sampler.submit(seeds=seeds)
        seeds[:] = 0
        assert np.array_equal(future.result(20), expected)


def test_numpy_integers_are_seeds(bundle: Path) -> None:
    with Sampler(bundle) as sampler:
        expected = sampler.sample(10, seed=250)
        assert np.array_equal(sampler.sample(10, seed=np.uint8(250)), expected)
        assert np.array_equal(next(sampler.stream(10, seed=np.uint8(250))), expected)


@pytest.mark.parametrize(
    "asked",
    [{"n": 10**12}, {"n": 2**63}, {"seeds": range(2**63)}, {"n": 2, "labels": [[1], [2, 3]]}],
    ids=str,
)
def test_what_fits_no_memory_or_no_image_is_refused_in_words(bundle: Path, asked) -> None:
    with (
        Sampler(bundle) as sampler,
        pytest.raises(RequestError, match="fit into|for the sake of memory|rows have the shapes"),
    ):
        sampler.sample(**asked)


def test_a_queue_may_be_smaller_than_the_golden_images_are_many(bundle: Path) -> None:
    with Sampler(bundle, max_queue_images=1) as sampler:
        assert sampler.sample(1).any()
        with pytest.raises(RequestError, match="n: found 2; at most 1 images at once"):
            sampler.sample(2)


def test_a_stream_of_one_label_takes_constant_memory(bundle: Path) -> None:
    with Sampler(bundle) as sampler:
        stream = sampler.stream(10**12, batch_size=4, labels=1)
        assert np.array_equal(next(stream), sampler.sample(4, labels=1))
        assert np.array_equal(next(stream), sampler.sample(4, seed=4, labels=1))
        stream.close()


SERVICE = """
import signal, sys
from ganinfer import Sampler
signal.signal(signal.SIGTERM, lambda *_: print("term"))
for _ in range(2):
    with Sampler(sys.argv[1], backend=sys.argv[2]) as sampler:
        sampler.sample(2)
signal.raise_signal(signal.SIGTERM)
last = Sampler(sys.argv[1], backend=sys.argv[2])
futures = [last.submit(64) for _ in range(50)]
print("end")
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_service_outlives_its_samplers_and_ends_with_work_left(
    bundle: Path, backend: str
) -> None:
    """A signal after a sampler was closed; then the end of the program while requests wait."""
    pytest.importorskip(backend)
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, str(bundle), backend], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()) == (0, ["term", "end"]), done.stderr


def test_a_sampler_says_what_it_is(bundle: Path) -> None:
    with Sampler(bundle, backend="onnxruntime", device="cpu", precision="fp32") as sampler:
        said = repr(sampler)
    what = f"<Sampler {bundle}, 16x16x3, 3 classes, "
    assert said == f"{what}onnxruntime on cpu in fp32, open>"
    assert repr(sampler) == f"{what}closed>"


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        *(("sample", [1]), ("submit", [1]), ("asample", [1]), ("stream", [1]), ("astream", [1])),
        *(("generate", [[]]), ("agenerate", [[]]), ("synthesize", [[]]), ("asynthesize", [[]])),
        *(("interpolate", [0, 1, 2]), ("ainterpolate", [0, 1, 2]), ("mapped", [1])),
        ("sample_on_device", [1]),
    ],
)
def test_each_method_names_what_it_does_not_take(
    sampler: Sampler, method: str, arguments: list[object]
) -> None:
    with pytest.raises(TypeError, match=rf"Sampler.{method}\(\): no argument 'sed'; .*it takes"):
        result = getattr(sampler, method)(*arguments, sed=3)
        asyncio.run(result)


def test_requests_that_cannot_be_served_are_counted(bundle: Path) -> None:
    with Sampler(bundle) as sampler:
        for ask in (
            lambda: sampler.sample(3, labels="wolf"),
            lambda: sampler.submit(-1),
            lambda: sampler.stream(3, truncation=-1.0),
            lambda: sampler.generate(np.zeros((1, 3), np.float32)),
            lambda: sampler.interpolate(0, 1, 3, space="x"),
        ):
            with pytest.raises(RequestError):
                ask()
        sampler.sample(1)
        stats = sampler.stats
    assert (stats["invalid"], stats["requests"], stats["refused"]) == (5, 1, 0)
