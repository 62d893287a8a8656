"""What the tensors of a graph are, for latents that no gate looks at."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ganinfer.errors import missing_extra
from ganinfer.host.telemetry import quiet_onnxruntime

Feed = dict[str, NDArray[Any]]
_BATCH = 32


def batches(feed: Feed) -> Iterator[Feed]:
    """Inputs (N, ...) by name, in parts that are run at once."""
    for start in range(0, len(next(iter(feed.values()))), _BATCH):
        rows = slice(start, start + _BATCH)
        yield {name: np.ascontiguousarray(array[rows]) for name, array in feed.items()}


def tensors(
    model: onnx.ModelProto, names: Collection[str], feed: Feed
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Float32 tensors of a graph by name, a batch after the other.

    Raises:
        MissingExtra: onnxruntime is not installed.
    """
    try:
        quiet_onnxruntime()
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_extra("onnxruntime", error) from None
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for name in names:
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        watched.graph.output.append(value)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of each weight that no output needs
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options)
    for part in batches(feed):
        yield dict(zip(names, session.run(list(names), part), strict=True))


def mean_over_batches(
    found: Iterable[dict[str, NDArray[np.float32]]], measure: Callable[[NDArray[np.float32]], Any]
) -> dict[str, NDArray[np.float64]]:
    """By name, what is measured of a tensor in a batch, averaged over batches."""
    measured: dict[str, list[Any]] = defaultdict(list)
    for batch in found:
        for name, x in batch.items():
            measured[name].append(measure(x))
    return {name: np.mean(each, axis=0, dtype=np.float64) for name, each in measured.items()}
