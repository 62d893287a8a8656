"""Formats of extracted files, and the runtimes that they are for: how each is written and run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from ganexport.graph.large import require_one_file
from ganinfer.backends.onnxruntime import CRASH_IN_HALF
from ganinfer.backends.openvino import new_core
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.errors import BackendUnavailable, missing_extra
from ganinfer.host.telemetry import quiet_onnxruntime

Files = dict[str, bytes]  # by their names; they lie in one folder
Run = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]  # of inputs, by names


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        suffix: of the file that a runtime opens.
        write: the files of an ONNX graph; the first one has the given name, and the others that it
            needs beside it.
        open: runs the file at a path on this CPU.
    """

    suffix: str
    write: Callable[[bytes, str], Files]
    open: Callable[[Path], Run]


def opened(form: Format, files: Files) -> Run:
    """What runs files, before they are anywhere.

    Raises:
        BackendUnavailable: their runtime is not installed, or refuses them.
    """
    with TemporaryDirectory(prefix="ganpipe-", ignore_cleanup_errors=True) as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        return form.open(Path(folder) / next(iter(files)))


def _write_onnx(graph: bytes, name: str) -> Files:
    beside = {graph.location: graph.weights} if isinstance(graph, LargeOnnx) else {}
    return {name: graph, **beside}


def _write_ort(graph: bytes, name: str) -> Files:
    """As onnxruntime saves it, without what is good for one kind of processor alone."""
    require_one_file(graph, "the format ort takes one; use --format onnx")
    ort = _onnxruntime()
    with TemporaryDirectory(prefix="ganpipe-") as folder:
        file = Path(folder) / "graph.ort"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(file)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.save_model_format", "ORT")
        _session(ort, graph, options)
        return {name: file.read_bytes()}


def _open_onnxruntime(file: Path) -> Run:
    ort = _onnxruntime()
    session = _session(ort, str(file), ort.SessionOptions())
    names = [value.name for value in session.get_outputs()]

    def run(feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, dict(feed)), strict=True))

    return run


def _session(ort: Any, graph: bytes | str, options: Any) -> Any:
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(CRASH_IN_HALF),
        )
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise BackendUnavailable(
            f"onnxruntime {ort.__version__} refuses the graph: {error}"
        ) from None


def _onnxruntime() -> Any:
    quiet_onnxruntime()
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise BackendUnavailable(str(missing_extra("onnxruntime", error))) from None
    return onnxruntime


def _write_openvino(graph: bytes, name: str) -> Files:
    """Its intermediate representation; the .bin is found by its name."""
    core = new_core()
    import openvino

    with TemporaryDirectory(prefix="ganpipe-", ignore_cleanup_errors=True) as folder:
        source, file = Path(folder) / "graph.onnx", Path(folder) / "graph.xml"
        for part, data in _write_onnx(graph, source.name).items():
            (Path(folder) / part).write_bytes(data)
        try:
            openvino.save_model(core.read_model(source), file, compress_to_fp16=False)
        except RuntimeError as error:
            raise _refused_by_openvino(error) from None
        weights = Path(name).with_suffix(".bin").name
        return {name: file.read_bytes(), weights: file.with_suffix(".bin").read_bytes()}


def _open_openvino(file: Path) -> Run:
    core = new_core()
    try:
        compiled = core.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise _refused_by_openvino(error) from None

    def run(feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {key.any_name: array.copy() for key, array in compiled(dict(feed)).items()}

    return run


def _refused_by_openvino(error: RuntimeError) -> BackendUnavailable:
    return BackendUnavailable(f"openvino refuses the graph: {error}")


FORMATS = {
    "onnx": Format(".onnx", _write_onnx, _open_onnxruntime),
    "ort": Format(".ort", _write_ort, _open_onnxruntime),
    "openvino": Format(".xml", _write_openvino, _open_openvino),
}
