"""Repositories that a real tritonserver serves; every image is that of `Sampler`."""

import io
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_triton import Server, make_environment, serve

from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export_run
from ganexport.triton.options import TritonOptions
from ganexport.triton.repository import write_repository
from ganinfer import Sampler
from ganinfer.bench.served import bench_server
from ganinfer.errors import BackendUnavailable
from ganinfer.open_inference import ServedModel
from ganinfer.verify import verify_server

grpc = pytest.importorskip("tritonclient.grpc", reason="pip install 'ganpipe[dev]'")
pytestmark = pytest.mark.slow

SEEDS = [0, 7, 2**63, 2**64 - 1]


@pytest.fixture(scope="module")
def weighted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(class_weights=True, precisions=["fp32"], num_images=1000)
    return export_run(run, tmp_path_factory.mktemp("weighted") / "x.gan", options).path


@pytest.fixture(scope="module")
def repositories(
    bundle: Path, styled: Exported, weighted: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("repositories")
    held = TritonOptions(device="cpu", name="held", batch_size=4, max_queue=2)
    plan = {
        "tiny": (bundle, TritonOptions(device="cpu", name="tiny", png=True, instances=2)),
        "styled": (styled.path, TritonOptions(device="cpu", name="styled")),
        "weighted": (weighted, TritonOptions(device="cpu", name="weighted")),
        "held": (bundle, held),
    }
    for name, (path, options) in plan.items():
        write_repository(path, folder / name, options)
    return {name: folder / name for name in plan}


@pytest.fixture(scope="module")
def server(
    repositories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    packages = make_environment(tmp_path_factory.mktemp("environment"))
    (repositories["held"] / "held_generator/1/go").touch()  # its warm-up waits for it, too
    with serve(packages, list(repositories.values()), tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, backend="onnxruntime", device="cpu") as opened:
        yield opened


def ask(server: Server, model: str, output: str = "images", **columns: list) -> np.ndarray:
    """Over gRPC, by Triton's own client."""
    kinds: dict[str, tuple[str, Any]] = {
        "seed": ("UINT64", np.uint64),
        "label": ("INT64", np.int64),
        "label_name": ("BYTES", np.object_),
        "truncation": ("FP64", np.float64),
    }
    inputs = []
    for name, values in columns.items():
        kind, dtype = kinds[name]
        tensor = grpc.InferInput(name, [len(values), 1], kind)
        tensor.set_data_from_numpy(np.array(values, dtype)[:, None])
        inputs.append(tensor)
    with grpc.InferenceServerClient(server.grpc) as client:
        wanted = [grpc.InferRequestedOutput(output)]
        return client.infer(model, inputs, outputs=wanted, client_timeout=60).as_numpy(output)


def test_optional_inputs_may_be_left_out_in_every_way(server: Server, sampler: Sampler) -> None:
    labels, n = [2, 0, 1, 2], len(SEEDS)
    for given, expected in [
        ({}, sampler.sample(seeds=SEEDS)),
        ({"label": labels}, sampler.sample(seeds=SEEDS, labels=labels)),
        ({"label_name": ["2", "0", "1", "2"]}, sampler.sample(seeds=SEEDS, labels=labels)),
        ({"truncation": [0.5] * n}, sampler.sample(seeds=SEEDS, truncation=0.5)),
        (
            {"label": labels, "truncation": [0.5] * n},
            sampler.sample(seeds=SEEDS, labels=labels, truncation=0.5),
        ),
    ]:
        assert np.array_equal(ask(server, "tiny", seed=SEEDS, **given), expected)


def test_each_image_has_its_own_truncation(server: Server, sampler: Sampler) -> None:
    found = ask(server, "tiny", seed=SEEDS, truncation=[0.5, 1.0, 0.5, 2.0])
    for image, seed, truncation in zip(found, SEEDS, [0.5, 1.0, 0.5, 2.0], strict=True):
        assert np.array_equal(image, sampler.sample(seeds=[seed], truncation=truncation)[0])


def test_over_http_the_bytes_are_the_same(server: Server, sampler: Sampler) -> None:
    served = ServedModel(server.http, "tiny", (16, 16, 3))
    assert served.batch_size == 64
    seeds = list(range(100))  # two requests
    found = served.images(seeds, truncation=0.7)
    assert np.array_equal(found, sampler.sample(seeds=seeds, truncation=0.7))


def test_many_at_once_are_merged_and_none_is_mixed_up(server: Server, sampler: Sampler) -> None:
    def one(number: int) -> bool:
        seeds = list(range(number, number + 1 + number % 9))
        given = {"truncation": [0.5] * len(seeds)} if number % 2 else {}
        expected = sampler.sample(seeds=seeds, truncation=0.5 if number % 2 else None)
        return np.array_equal(ask(server, "tiny", seed=seeds, **given), expected)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(200)))
    with grpc.InferenceServerClient(server.grpc) as client:
        stats = client.get_inference_statistics("tiny_generator", as_json=True)["model_stats"][0]
    assert int(stats["execution_count"]) < int(stats["inference_stats"]["success"]["count"])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"seed": [1], "label": [3]}, "label 3: expected 0 to 2"),
        ({"seed": [1], "label": [-1]}, "label -1: expected 0 to 2"),
        ({"seed": [1], "label_name": ["cat"]}, "label_name 'cat': there is no such class"),
        ({"seed": [1], "label": [1], "label_name": ["1"]}, "label_name: found beside label"),
        ({"seed": [1], "truncation": [-1.0]}, "truncation: found -1.0; expected a positive number"),
        ({"seed": [1], "truncation": [np.nan]}, "truncation: found nan; expected a positive"),
        ({"seed": [1, 2], "label": [0]}, "batch"),
        ({"seed": range(65)}, "batch-size must be <= 64"),
        ({"seed": []}, "byte size mismatch for input .seed."),
    ],
)
def test_a_mistake_is_answered_in_words(server: Server, columns: dict, words: str) -> None:
    with pytest.raises(Exception, match=words) as raised:
        ask(server, "tiny", **columns)
    assert "INVALID_ARG" in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_files_are_a_model_of_their_own(server: Server, sampler: Sampler) -> None:
    files = ask(server, "tiny_png", "png", seed=SEEDS)[:, 0]
    images = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
    assert np.array_equal(images, sampler.sample(seeds=SEEDS))


def test_a_stylegan_takes_truncation_in_its_graph(server: Server, styled: Exported) -> None:
    with Sampler(styled.path, backend="onnxruntime", device="cpu") as sampler:
        found = ask(server, "styled", seed=SEEDS, truncation=[0.6] * 4)
        assert np.array_equal(found, sampler.sample(seeds=SEEDS, truncation=0.6))
        assert np.array_equal(ask(server, "styled", seed=SEEDS), sampler.sample(seeds=SEEDS))


def test_a_graph_that_takes_weights_of_classes_gets_them(server: Server, weighted: Path) -> None:
    with Sampler(weighted, backend="onnxruntime", device="cpu") as sampler:
        found = ask(server, "weighted", seed=SEEDS, label=[2, 0, 1, 2])
        assert np.array_equal(found, sampler.sample(seeds=SEEDS, labels=[2, 0, 1, 2]))


def test_a_full_queue_rejects_and_those_that_wait_are_served(
    server: Server, repositories: dict[str, Path], sampler: Sampler
) -> None:
    go = repositories["held"] / "held_generator/1/go"
    go.unlink()
    with ThreadPoolExecutor(12) as pool:
        try:
            asked = [pool.submit(ask, server, "held", seed=SEEDS) for _ in range(12)]
            rejected, _ = wait(asked, return_when=FIRST_EXCEPTION)
            assert rejected
            with pytest.raises(BackendUnavailable, match="503: .*maximum queue size"):
                ServedModel(server.http, "held", (16, 16, 3)).images(SEEDS)
        finally:
            go.touch()
    errors = [str(one.exception()) for one in asked if one.exception()]
    assert all("UNAVAILABLE" in error and "maximum queue size" in error for error in errors)
    served = [one.result() for one in asked if not one.exception()]
    assert 1 <= len(served) < 12
    assert all(np.array_equal(images, sampler.sample(seeds=SEEDS)) for images in served)


def test_the_verdict_is_that_of_a_backend_here(
    server: Server, bundle: Path, styled: Exported, gan
) -> None:
    for path, name in ((bundle, "tiny"), (styled.path, "styled")):
        gates = verify_server(path, server.http, name=name)
        assert {gate.gate for gate in gates} >= {"golden images", "paired FID / floor"}
        assert all(gate.passed for gate in gates)
    done = gan("verify", bundle, "--server", server.http)
    assert done.returncode == 0, done.stderr
    assert "tiny.gan: good" in done.stdout


def test_it_is_measured_as_our_own_server_is(server: Server, bundle: Path) -> None:
    report = bench_server(bundle, server.http, seconds=0.05)
    assert list(report.served) == ["raw", "raw, 64 images"]  # files are another model
    assert report.byte_equal


def test_a_server_of_another_bundle_fails(server: Server, bundle: Path, styled: Exported) -> None:
    with pytest.raises(BackendUnavailable, match="404: .*'digits'"):
        verify_server(bundle, server.http, name="digits")
    golden, *_ = verify_server(styled.path, server.http, name="tiny")
    assert not golden.passed
    assert "steps off" in golden.detail
