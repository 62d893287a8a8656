"""What we use of CUDA, TensorRT and onnxruntime exists there, in the oldest and newest version.

Installed modules are asked; vendor_names/ holds what benchmarks/vendor_names.py has read from the
wheels of those that cannot be installed without a GPU, or are older.
"""

from pathlib import Path

import pytest
import vendor_uses

from ganexport.engines.targets import _LEVELS
from ganinfer.backends._onnxruntime_cuda import cuda_attempts
from ganinfer.backends.onnxruntime_tensorrt import TENSORRT, provider_options
from ganinfer.drawing.model import Model, StyleInput, TruncationInput

KEPT = Path(__file__).parent / "vendor_names"
USES = vendor_uses.uses()
# What only one of TensorRT and TensorRT-RTX has, and is asked of that one alone.
ONLY_TENSORRT = {"HardwareCompatibilityLevel", "IBuilderConfig.hardware_compatibility_level"} | {
    f"IBuilderConfig.{name}_timing_cache" for name in ("create", "get", "set")
}
ONLY_RTX = {
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy",
    "DynamicShapesKernelSpecializationStrategy.EAGER",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "ICudaEngine.create_runtime_config",
    "IExecutionContext.is_stream_capturable",
    "IRuntimeCache.deserialize",
    "IRuntimeCache.serialize",
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IRuntimeConfig.set_runtime_cache",
}
ASKED_FOR_FIRST = {"preload_dlls"}  # by hasattr
# 1.20's library holds it in pieces; with "ORT" it refuses an ONNX file, as it should.
IN_PIECES = {"session.load_model_format"}
FROM_1_31_ON = {  # asked for where it is
    "session.intra_op.spin_duration_us",
    "session.save_external_prepacked_constant_initializers",
}
MODULES = {
    "cuda": vendor_uses.CUDA,
    "tensorrt": vendor_uses.TRT,
    "onnxruntime": vendor_uses.ORT,
}


def kept(file: Path) -> dict[str, list[str]]:
    lines = (line.partition(": ") for line in file.read_text().splitlines())
    return {"" if owner == "." else owner: names.split() for owner, _, names in lines}


def wanted(module: str, *, rtx: bool) -> set[str]:
    return set(USES[module]) - (ONLY_TENSORRT if rtx else ONLY_RTX) - ASKED_FOR_FIRST


def missing(names: dict[str, list[str]], uses: set[str]) -> set[str]:
    return {
        use for use in uses if use.rpartition(".")[2] not in names.get(use.rpartition(".")[0], [])
    }


@pytest.mark.parametrize("file", sorted(KEPT.glob("*.txt")), ids=lambda file: file.stem)
def test_what_we_use_is_in_the_wheel(file: Path) -> None:
    module = MODULES[file.name.partition("_")[0]]
    absent = missing(kept(file), wanted(module, rtx="_rtx_" in file.name))
    assert {use: USES[module][use] for use in absent} == {}


@pytest.mark.parametrize("name", [vendor_uses.CUDA, "tensorrt", "tensorrt_rtx", "onnxruntime"])
def test_what_we_use_is_in_the_installed_module(name: str) -> None:
    module = pytest.importorskip(name)
    ours = name.removesuffix("_rtx")
    uses = wanted(ours, rtx=name != ours)
    assert missing(vendor_uses.names_of(module, uses), uses) == set()


def test_sources_are_read_as_they_are_written() -> None:
    """What no reader would overlook; what is in one product alone is used, too."""
    assert "cudaMemcpyKind.cudaMemcpyHostToDevice" in USES[vendor_uses.CUDA]
    assert "ICudaEngine.device_memory_size_v2" in USES["tensorrt"]
    assert "IOBinding.copy_outputs_to_cpu" in USES["onnxruntime"]
    assert not (ONLY_RTX | ONLY_TENSORRT) - set(USES["tensorrt"])
    assert vendor_uses.files() <= set(vendor_uses.HOLDS)


@pytest.mark.parametrize("version", ["10.12.0.36", "11.4.0.106"])
def test_tensorrt_has_the_levels_of_our_targets(version: str) -> None:
    names = kept(KEPT / f"tensorrt_cu12_bindings-{version}.txt")
    assert set(_LEVELS.values()) <= set(names["HardwareCompatibilityLevel"])


@pytest.mark.parametrize("version", ["1.20.0", "1.31.1"])
def test_onnxruntime_has_our_options(version: str) -> None:
    names = kept(KEPT / f"onnxruntime_gpu-{version}.txt")
    for name, options in (providers[0] for providers in cuda_attempts("cuda:0")):
        assert set(options) <= set(names[name])
    model = Model(
        family="x",
        resolution=8,
        channels=3,
        classes=["a", "b"],
        z_dim=4,
        z_distribution="normal",
        truncation_modes=["network"],
        truncation_input=TruncationInput(least=0, largest=1, untruncated=1),
        style_input=StyleInput(num_styles=2, w_dim=4),
    )
    options = provider_options(
        TENSORRT, device="cuda:0", model=model, batches=(1, 2, 4), cache=Path("x")
    )
    assert set(options) <= set(names[TENSORRT])
    later = set() if version == "1.31.1" else FROM_1_31_ON
    assert vendor_uses.entries() - IN_PIECES - later <= set(names["entries"])
