"""An onnxruntime session run by IO binding: inputs and images at fixed places on its device."""

import itertools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends._base import SupportsDLPack, device_index
from ganinfer.backends._cuda import gpus_at_rest, work_lock
from ganinfer.drawing.images import Images
from ganinfer.errors import Closed

log = logging.getLogger(__name__)

Feed = dict[str, NDArray[Any]]
Form = tuple[tuple[str, tuple[int, ...], str], ...]  # names, shapes and types of a Feed
Result = TypeVar("Result")

_PLAIN = -1  # the gpu_graph_id of a run that neither captures a CUDA graph nor replays one


class BoundSession:
    """A session, its memory for each batch size, and the one thread that runs it.

    onnxruntime keeps CUDA graphs for the thread that captured them, and lets no other run.
    """

    def __init__(
        self,
        ort: ModuleType,
        session: Any,
        device: str,
        *,
        captures: bool,
        details: dict[str, str],
    ) -> None:
        """Bind nothing yet.

        Args:
            ort: onnxruntime.
            session: of one output, uint8 (N, H, W, C).
            device: "cpu" or "cuda:<n>".
            captures: whether the session was opened for CUDA graphs: then the first run of a batch
                size with nobody else at work on a GPU captures one, and later runs replay it.
            details: of the backend; here it says which batch sizes have a CUDA graph.
        """
        self._ort, self._session, self._captures = ort, session, captures
        self._details, self._captured = details, set[int]()
        self._place = (device.partition(":")[0], device_index(device))
        (output,) = session.get_outputs()
        self._output, self._image_shape = output.name, tuple(output.shape[1:])
        self._bound: dict[Form, tuple[dict[str, Any], Any]] = {}  # inputs and binding
        self._plain = self._options(_PLAIN)
        self._options_of: dict[Form, Any] = {}  # of those that captured, or could not
        # A captured id is replayed whatever is bound: so no two forms share one.
        self._graph_ids = itertools.count(1)
        self._lane = ThreadPoolExecutor(1, thread_name_prefix=f"onnxruntime {device}")
        self._lock = work_lock()

    def run(self, feed: Feed) -> Images:
        """The images of a feed, in an array of their own on the host."""
        return self._call(self._run, feed)

    def run_on_device(self, feed: Feed) -> SupportsDLPack:
        """The images of a feed, in memory of their own on the device."""
        return self._call(self._run_on_device, feed)

    def close(self) -> None:
        """Finish what runs; free the memory and the session."""
        self._lane.shutdown()
        with self._lock:
            self._bound.clear()
            self._session = None

    def _call(self, work: Callable[[Feed], Result], feed: Feed) -> Result:
        try:
            future = self._lane.submit(work, feed)
        except RuntimeError:
            raise Closed("this backend is closed; open the bundle again") from None
        return future.result()

    def _run(self, feed: Feed) -> Images:
        form = _form(feed)
        if self._captures and form not in self._options_of:
            self._capture(form, feed)
        with self._lock:
            binding = self._filled(form, feed)
            self._session.run_with_iobinding(binding, self._options_of.get(form, self._plain))
            images: Images = binding.copy_outputs_to_cpu()[0]
        return images

    def _run_on_device(self, feed: Feed) -> SupportsDLPack:
        """A size that nobody padded: its inputs are not kept, and no graph writes the images."""
        with self._lock:
            images: SupportsDLPack = self._new_images(len(feed["z"]))
            inputs = self._new_inputs(feed)
            _fill(inputs, feed)
            self._session.run_with_iobinding(self._bind(inputs, images), self._plain)
        return images

    def _capture(self, form: Form, feed: Feed) -> None:
        """Have a graph from now on; if somebody is at work on a GPU, another time."""
        n = len(feed["z"])
        with gpus_at_rest() as at_rest:
            if not at_rest:
                return
            options = self._options(next(self._graph_ids))
            try:
                self._session.run_with_iobinding(self._filled(form, feed), options)
            except Exception as error:  # onnxruntime raises a dozen unrelated classes
                log.warning("batches of %d run without a CUDA graph: %s", n, error)
                options = self._plain
            else:
                self._captured.add(n)
                sizes = ", ".join(map(str, sorted(self._captured)))
                self._details["cuda_graphs"] = f"used, for batches of {sizes}"
            self._options_of[form] = options

    def _filled(self, form: Form, feed: Feed) -> Any:
        """The binding of inputs and images that stay where they are, with the values of a feed."""
        if form not in self._bound:
            inputs = self._new_inputs(feed)
            self._bound[form] = inputs, self._bind(inputs, self._new_images(len(feed["z"])))
        inputs, binding = self._bound[form]
        _fill(inputs, feed)
        return binding

    def _bind(self, inputs: dict[str, Any], images: Any) -> Any:
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(self._output, images)
        return binding

    def _new_inputs(self, feed: Feed) -> dict[str, Any]:
        return {name: self._allocate(array.shape, array.dtype) for name, array in feed.items()}

    def _new_images(self, n: int) -> Any:
        return self._allocate((n, *self._image_shape), np.dtype(np.uint8))

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        # Not from the session's arena: a replay writes to whatever was free there at the capture.
        return self._ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype.type, *self._place)

    def _options(self, graph_id: int) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph_id))
        return options


def _form(feed: Feed) -> Form:
    return tuple((name, array.shape, array.dtype.str) for name, array in feed.items())


def _fill(inputs: dict[str, Any], feed: Feed) -> None:
    """Copy from pageable memory.

    `update_inplace` waits for it anyhow, and nothing is documented that copies from a pinned
    OrtValue without waiting.
    """
    for name, array in feed.items():
        inputs[name].update_inplace(np.ascontiguousarray(array))
