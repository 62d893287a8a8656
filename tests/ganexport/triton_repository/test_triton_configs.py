"""What Triton is told, read by the schema that Triton reads it by."""

from pathlib import Path
from typing import Any

import pytest

from ganexport.pipeline import Exported
from ganexport.triton.configs import Word, to_text
from ganexport.triton.options import TritonOptions
from ganexport.triton.repository import write_repository
from ganinfer.errors import ExportError, RequestError

schema = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="pip install 'ganpipe[dev]'"
)
text_format = pytest.importorskip("google.protobuf.text_format")


def read(folder: Path) -> dict[str, Any]:
    """Model -> its parsed config."""
    return {
        file.parent.name: text_format.Parse(file.read_text(), schema.ModelConfig())
        for file in folder.glob("*/config.pbtxt")
    }


def write(bundle: Path, folder: Path, **options: Any) -> dict[str, Any]:
    write_repository(bundle, folder, TritonOptions(**options))
    return read(folder)


def inputs(config: Any) -> dict[str, tuple[int, list[int]]]:
    return {one.name: (one.data_type, list(one.dims)) for one in config.input}


def outputs(config: Any) -> dict[str, tuple[int, list[int]]]:
    return {one.name: (one.data_type, list(one.dims)) for one in config.output}


@pytest.mark.parametrize("which", ["tiny", "styled"])
@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime_tensorrt"])
def test_every_tensor_of_an_ensemble_fits_its_models(
    which: str, backend: str, bundle: Path, styled: Exported, tmp_path: Path
) -> None:
    path = bundle if which == "tiny" else styled.path
    configs = write(path, tmp_path / "r", name="m", backend=backend, png=True)
    assert set(configs) == {"m", "m_latents", "m_generator", "m_png", "m_packing"}
    for name in ("m", "m_png"):
        ensemble = configs[name]
        known = inputs(ensemble)
        for step in ensemble.ensemble_scheduling.step:
            model = configs[step.model_name]
            assert set(step.input_map) == set(inputs(model))
            for own, tensor in step.input_map.items():
                assert inputs(model)[own] == known[tensor]
            known |= {tensor: outputs(model)[own] for own, tensor in step.output_map.items()}
        assert outputs(ensemble).items() <= known.items()
        optional = {one.name for one in ensemble.input if one.optional}
        assert optional == {"label", "label_name", "truncation"}


def test_what_is_asked_for_is_in_the_configs(bundle: Path, tmp_path: Path) -> None:
    configs = write(
        bundle,
        tmp_path / "r",
        name="m",
        device="cuda",
        batch_size=24,
        instances=3,
        max_queue=5,
        timeout_s=0.25,
    )
    assert {config.max_batch_size for config in configs.values()} == {24}
    generator = configs["m_generator"]
    (group,) = generator.instance_group
    assert (group.count, group.kind) == (3, schema.ModelInstanceGroup.KIND_GPU)
    policy = generator.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (5, 250_000)
    assert policy.timeout_action == schema.ModelQueuePolicy.REJECT
    assert [one.batch_size for one in generator.model_warmup] == [1, 2, 4, 8, 16, 24]
    (cuda,) = generator.optimization.execution_accelerators.gpu_execution_accelerator
    assert (cuda.name, cuda.parameters["use_tf32"]) == ("cuda", "0")
    assert "device_id" not in cuda.parameters


def test_tensorrt_of_onnxruntime_has_a_profile_for_every_batch(
    bundle: Path, tmp_path: Path
) -> None:
    configs = write(bundle, tmp_path / "r", name="m", backend="onnxruntime_tensorrt", batch_size=8)
    accelerators = configs["m_generator"].optimization.execution_accelerators
    first, second = accelerators.gpu_execution_accelerator
    assert (first.name, second.name) == ("tensorrt", "cuda")
    assert first.parameters["trt_profile_min_shapes"] == "z:1x16,y:1"
    assert first.parameters["trt_profile_max_shapes"] == "z:8x16,y:8"


def test_a_stylegans_truncation_goes_into_the_graph(styled: Exported, tmp_path: Path) -> None:
    configs = write(styled.path, tmp_path / "r", name="m")
    taken = {one.name: one for one in configs["m_generator"].input}
    assert set(taken) == {"z", "y", "truncation"}
    assert taken["truncation"].HasField("reshape")
    assert not taken["truncation"].reshape.shape
    _, step = configs["m"].ensemble_scheduling.step
    assert dict(step.input_map) == {"z": "z", "y": "y", "truncation": "psi"}


def test_text_says_what_the_message_says() -> None:
    config = {"name": 'a "b"\\', "backend": "x", "instance_group": {"kind": Word("KIND_CPU")}}
    parsed = text_format.Parse(to_text(config), schema.ModelConfig())
    assert parsed.name == 'a "b"\\'
    assert parsed.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "tensorrt_rtx"}, "backend 'tensorrt_rtx': expected one of onnxruntime, "),
        ({"device": "gpu"}, "device 'gpu': expected one of auto, cpu, cuda"),
        ({"backend": "tensorrt", "device": "cpu"}, "runs on GPUs; device 'cpu'"),
        ({"target": "sm90"}, "target: it goes with backend tensorrt"),
        ({"name": "a/b"}, "name 'a/b': expected letters"),
        ({"timeout_s": 0}, "timeout_s: found 0"),
        ({"batch_size": 0}, "batch_size: found 0; expected an integer, 1 or more"),
    ],
)
def test_options_that_no_repository_can_have_are_refused(options: dict, words: str) -> None:
    with pytest.raises((ExportError, RequestError), match=words):
        TritonOptions(**options)
