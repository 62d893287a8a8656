from pathlib import Path

import onnxruntime
import pytest

from ganinfer.backends._onnxruntime_cuda import CPU, CUDA, cuda_attempts
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend, open_first
from ganinfer.bundle.archive import Bundle
from ganinfer.errors import BackendUnavailable
from ganinfer.lookup import module_names


def graph_of(bundle: Path) -> bytes:
    with Bundle(bundle) as opened:
        return opened.read_graph("fp32")


def test_cuda_is_told_its_device_and_to_capture_graphs_first() -> None:
    plain = {"device_id": "2", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert cuda_attempts("cuda:2") == [
        [(CUDA, plain | {"enable_cuda_graph": "1"}), CPU],
        [(CUDA, plain), CPU],
    ]


def test_a_session_that_refuses_is_opened_as_next_asked_and_the_reason_kept(
    bundle: Path, caplog
) -> None:
    # Without the CPU, every node is on a provider that may not have it.
    session, providers, refusal = open_first(onnxruntime, graph_of(bundle), [[], [CPU]], 1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert providers == [CPU]
    assert refusal.startswith("; onnxruntime ")
    assert "fallback to CPU EP has been explicitly disabled" in refusal
    assert "asking for less" in caplog.text


def test_a_session_that_refuses_everything_gives_the_last_reason(bundle: Path) -> None:
    with pytest.raises(BackendUnavailable, match="refuses the graph"):
        open_first(onnxruntime, b"no graph", [[CPU], [CPU]], 1)


def test_a_refusal_prints_nothing(bundle: Path, capsys) -> None:
    """onnxruntime's own fallback would."""
    with pytest.raises(BackendUnavailable):
        open_first(onnxruntime, graph_of(bundle), [[]], 1)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_an_onnxruntime_without_cuda_names_the_pip_command(bundle: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"built without CUDA.*ganpipe\[gpu\]"):
        OnnxRuntimeBackend(graph_of(bundle), "cuda:0", "fp32")


def test_what_backends_share_is_no_backend() -> None:
    assert module_names("ganinfer.backends") == [
        "onnxruntime",
        "onnxruntime_tensorrt",
        "openvino",
        "tensorrt",
    ]
