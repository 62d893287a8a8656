"""The road on CUDA; skipped where there is none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, tiny_recipe

from ganexport.proof.device import _on_gpu
from ganexport.proof.reference import drawn_by_torch, exact_images, probes, run_torch
from ganexport.subjects.subject import of_run
from ganinfer import Sampler
from ganinfer.backends import onnxruntime
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.errors import BackendUnavailable
from ganinfer.lookup import module_names
from gantrain.game.config import parse_config
from gantrain.runs.checkpoint import load_generator
from gantrain.runs.samples import generate
from gantrain.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bf16", "channels_last": True},
        {"precision": "bf16", "channels_last": True, "compile": "on"},
        {"precision": "bf16", "channels_last": True, "compile": "cuda_graphs"},
        {"microbatch_size": 5, "standing_batches": 4, "eval_kimg": 0.5, "eval_images": 100},
    ],
    ids=["fp32", "bf16 channels_last", "compiled", "cuda graphs", "microbatches"],
)
def test_training_runs_stops_and_resumes_on_cuda(shapes: Path, tmp_path: Path, options) -> None:
    config = parse_config(tiny_recipe(shapes, device="cuda", total_kimg=1, **options), where="x")
    steps = iter([False] * 20 + [True])
    assert not train(config, tmp_path / "run", should_stop=lambda: next(steps)).finished
    assert train(config, tmp_path / "run").finished


@pytest.mark.parametrize("regularizer", module_names("gantrain.regularizers"))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_regularizer_trains_and_resumes_on_cuda(
    shapes: Path, tmp_path: Path, regularizer: str, precision: str
) -> None:
    tree = tiny_recipe(shapes, device="cuda", total_kimg=0.4, precision=precision)
    tree["objective"] = {"name": "nonsaturating"}
    tree["regularizers"] = [{"name": regularizer}]
    steps = iter([False] * 5 + [True])
    config = parse_config(tree, where="x")
    assert not train(config, tmp_path / "run", should_stop=lambda: next(steps)).finished
    assert train(config, tmp_path / "run").finished


@pytest.mark.parametrize("model", module_names("gantrain.models"))
def test_every_model_trains_on_cuda(shapes: Path, tmp_path: Path, model: str) -> None:
    tree = tiny_recipe(shapes, device="cuda", total_kimg=0.2)
    generator, discriminator = SMALL.get(model, ({}, {}))
    tree["model"] = {"name": model, "generator": generator, "discriminator": discriminator}
    assert train(parse_config(tree, where="x"), tmp_path / "run").finished


def test_cuda_gives_the_images_of_the_cpu(run: Path) -> None:
    network = load_generator(run).network
    labels = np.arange(60) % 3
    expected = generate(network, range(60), labels)
    found = generate(network.cuda(), range(60), labels, device="cuda")
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnxruntime_on_cuda_passes_the_golden_gate(bundle: Path, precision: str) -> None:
    try:
        sampler = Sampler(bundle, backend="onnxruntime", device="cuda", precision=precision)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with sampler:
        assert sampler.info["device"] == "cuda:0"
        # Another batch size may take another algorithm: equal but for the last rounding.
        steps = np.abs(sampler.sample(10).astype(int) - sampler.sample(64)[:10])
        assert steps.max() <= 1


@pytest.fixture
def onnxruntime_cuda(bundle: Path):
    with Bundle(bundle) as opened:
        try:
            backend = onnxruntime.open(opened, "cuda", "fp32")
        except BackendUnavailable as error:
            pytest.skip(str(error))
        backend.model = opened.manifest.model
    yield backend
    backend.close()


def test_replayed_cuda_graphs_give_the_images_of_plain_runs(onnxruntime_cuda) -> None:
    model = onnxruntime_cuda.model
    for seed, n in enumerate([1, 8, 64, 8, 1, 64]):
        inputs = draw_inputs(model, range(seed, seed + n), np.arange(n) % 3)
        plain = torch.from_dlpack(onnxruntime_cuda.run_on_device(inputs)).cpu().numpy()
        for _ in range(3):
            assert np.abs(onnxruntime_cuda.run(inputs).astype(int) - plain).max() <= 1
    assert onnxruntime_cuda.details["cuda_graphs"] == "used, for batches of 1, 8, 64"


def test_images_stay_on_the_gpu_and_are_torchs_without_a_copy(onnxruntime_cuda) -> None:
    inputs = draw_inputs(onnxruntime_cuda.model, range(8), np.arange(8) % 3)
    value = onnxruntime_cuda.run_on_device(inputs)
    tensor = torch.from_dlpack(value)
    assert (tensor.device, tensor.data_ptr()) == (torch.device("cuda:0"), value.data_ptr())
    kept = tensor.clone()
    for seed in range(20):
        onnxruntime_cuda.run(
            draw_inputs(onnxruntime_cuda.model, range(seed, seed + 8), np.arange(8) % 3)
        )
    assert torch.equal(tensor, kept)


def test_threads_share_the_gpu_while_sizes_are_captured(bundle: Path) -> None:
    try:
        sampler = Sampler(bundle, backend="onnxruntime", device="cuda", precision="fp32")
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with sampler, ThreadPoolExecutor(8) as callers:
        expected = sampler.sample(64).astype(int)
        found = list(callers.map(lambda n: sampler.sample(n), range(1, 65)))
        assert all(np.abs(images - expected[: len(images)]).max() <= 1 for images in found)


def test_the_gates_draw_torchs_images_on_the_gpu(run: Path) -> None:
    subject = of_run(load_generator(run))
    inputs, _ = probes(subject, 32)
    assert _on_gpu(subject, torch.float64, torch.device("cuda")) is not None
    assert np.abs(drawn_by_torch(subject, inputs) - run_torch(subject, inputs)).max() < 1e-4
    exact = subject.precisely(inputs).numpy()
    assert np.abs(exact_images(subject, inputs) - exact).max() < 1e-10
