from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ganinfer import Sampler
from ganinfer.backends._onnxruntime_cuda import CPU
from ganinfer.backends.onnxruntime import _open_session
from ganinfer.backends.onnxruntime_tensorrt import (
    TENSORRT,
    TENSORRT_RTX,
    TensorRTSession,
    provider_options,
)
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.drawing.model import StyleInput
from ganinfer.errors import BackendUnavailable, RequestError

ABSENT = not {TENSORRT, TENSORRT_RTX} & set(onnxruntime.get_available_providers())


@pytest.mark.skipif(not ABSENT, reason="this onnxruntime has TensorRT")
def test_an_onnxruntime_without_tensorrt_is_refused_and_never_replaced(bundle: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"has no TensorRT, only .*CPU.*ganpipe\[gpu\]"):
        Sampler(bundle, backend="onnxruntime_tensorrt")


def test_the_cpu_is_refused(bundle: Path) -> None:
    with pytest.raises(BackendUnavailable, match="device 'cpu' was asked for"):
        Sampler(bundle, backend="onnxruntime_tensorrt", device="cpu")


def test_tensorrt_is_told_its_shapes_and_where_to_keep_its_engine(bundle: Path) -> None:
    with Bundle(bundle) as opened:
        model = opened.manifest.model
    options = provider_options(
        TENSORRT, device="cuda:1", model=model, batches=(1, 8, 32), cache=Path("host/sha")
    )
    assert options == {
        "device_id": "1",
        "trt_profile_min_shapes": "z:1x16,y:1",
        "trt_profile_opt_shapes": "z:8x16,y:8",
        "trt_profile_max_shapes": "z:32x16,y:32",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(Path("host/sha")),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": "host",
    }


def test_tensorrt_rtx_keeps_its_kernels_and_an_unconditional_model_has_no_labels(
    bundle: Path,
) -> None:
    with Bundle(bundle) as opened:
        model = opened.manifest.model.model_copy(update={"classes": []})
    options = provider_options(
        TENSORRT_RTX, device="cuda:0", model=model, batches=(1, 8, 32), cache=Path("host/sha")
    )
    assert options == {
        "device_id": "0",
        "nv_profile_min_shapes": "z:1x16",
        "nv_profile_opt_shapes": "z:8x16",
        "nv_profile_max_shapes": "z:32x16",
        "nv_runtime_cache_path": str(Path("host/sha")),
    }


def test_labels_as_weights_have_one_for_each_class(bundle: Path) -> None:
    with Bundle(bundle) as opened:
        model = opened.manifest.model.model_copy(update={"class_input": "weights"})
    options = provider_options(
        TENSORRT, device="cuda:0", model=model, batches=(1, 8, 32), cache=Path("host/sha")
    )
    assert options["trt_profile_max_shapes"] == "z:32x16,y:32x3"


def test_styles_have_a_shape_of_their_own(bundle: Path) -> None:
    styles = StyleInput(num_styles=6, w_dim=12)
    with Bundle(bundle) as opened:
        model = opened.manifest.model.model_copy(update={"style_input": styles})
    options = provider_options(
        TENSORRT, device="cuda:0", model=model, batches=(1, 8, 32), cache=Path("host/sha")
    )
    assert options["trt_profile_opt_shapes"] == "z:8x16,y:8,w:8x6x12,takes_w:8"


@pytest.mark.parametrize(
    ("largest", "sizes"), [(100, (1, 2, 4, 8, 16, 32, 64, 100)), (4, (1, 2, 4)), (1, (1,))]
)
def test_batches_are_padded_to_no_more_than_the_engine_takes(
    bundle: Path, largest: int, sizes: tuple[int, ...]
) -> None:
    with Bundle(bundle) as opened:
        graph = opened.read_graph("fp32")
    session = TensorRTSession(graph, "cpu", "fp32", providers=[CPU], largest=largest)
    assert session.batch_sizes == sizes
    session.close()


def test_without_the_cpu_among_its_providers_a_session_puts_nothing_there(bundle: Path) -> None:
    """onnxruntime would add it by itself."""
    with Bundle(bundle) as opened:
        graph = opened.read_graph("fp32")
    with pytest.raises(BackendUnavailable, match="fallback to CPU EP has been explicitly disabled"):
        _open_session(onnxruntime, graph, [], 1)


def test_more_images_than_the_engine_takes_are_split_and_land_in_the_callers_buffer(
    bundle: Path,
) -> None:
    with Bundle(bundle) as opened:
        graph, model = opened.read_graph("fp32"), opened.manifest.model
    session = TensorRTSession(graph, "cpu", "fp32", providers=[CPU], largest=4)
    inputs = draw_inputs(model, range(10), np.arange(10) % 3)
    out = np.zeros((10, 16, 16, 3), np.uint8)
    assert session.run(inputs, out=out) is out
    assert np.array_equal(out, session.run(inputs))
    assert np.array_equal(out[8:], session.run(inputs.rows(8, 10)))
    with pytest.raises(RequestError, match="10 images: the engine makes at most 4 at once"):
        session.run_on_device(inputs)
    session.close()
