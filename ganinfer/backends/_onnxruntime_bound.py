"""An onnxruntime session run by IO binding: inputs and images at fixed places on its device."""

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends import SupportsDLPack, device_index
from ganinfer.errors import RequestError
from ganinfer.images import Images

log = logging.getLogger(__name__)

Feed = dict[str, NDArray[Any]]
Form = tuple[tuple[str, tuple[int, ...], str], ...]  # names, shapes and types of a Feed
Result = TypeVar("Result")

_PLAIN = -1  # the gpu_graph_id of a run that neither captures a CUDA graph nor replays one

# Held to capture a graph, and to open a session. CUDA captures for the whole process: what any
# thread allocates, frees or waits for on a GPU meanwhile fails, and so does the capture.
capturing = threading.Lock()
_sessions: "weakref.WeakSet[BoundSession]" = weakref.WeakSet()


@contextlib.contextmanager
def gpus_at_rest() -> Iterator[None]:
    """No session is opened, and none is at work on any GPU."""
    with capturing, contextlib.ExitStack() as held:
        for session in list(_sessions):
            held.enter_context(session.lock)
        yield


class BoundSession:
    """A session, its memory for each batch size, and the one thread that runs it.

    onnxruntime keeps CUDA graphs for the thread that captured them, and lets no other run.
    """

    def __init__(self, ort: ModuleType, session: Any, device: str, *, captures: bool) -> None:
        """Bind nothing yet.

        Args:
            ort: onnxruntime.
            session: of one output, uint8 (N, H, W, C).
            device: "cpu" or "cuda:<n>".
            captures: whether the session was opened for CUDA graphs: then the first run of a batch
                size captures one, under that size as its id, and later runs replay it.
        """
        self._ort, self._session, self._captures = ort, session, captures
        self._place = (device.partition(":")[0], device_index(device))
        (output,) = session.get_outputs()
        self._output, self._image_shape = output.name, tuple(output.shape[1:])
        self._inputs: dict[Form, dict[str, Any]] = {}
        self._runs: dict[Form, tuple[Any, Any]] = {}  # binding and options of those seen before
        self._lane = ThreadPoolExecutor(1, thread_name_prefix=f"onnxruntime {device}")
        self.lock = threading.Lock()  # what is at work on the GPU holds it
        with capturing:
            _sessions.add(self)

    def run(self, feed: Feed) -> Images:
        """The images of a feed, in an array of their own on the host."""
        return self._call(self._run, feed)

    def run_on_device(self, feed: Feed) -> SupportsDLPack:
        """The images of a feed, in memory of their own on the device."""
        return self._call(self._run_on_device, feed)

    def close(self) -> None:
        """Finish what runs; free the memory and the session."""
        self._lane.shutdown()
        with self.lock:
            self._runs.clear()
            self._inputs.clear()
            self._session = None

    def _call(self, work: Callable[[Feed], Result], feed: Feed) -> Result:
        try:
            future = self._lane.submit(work, feed)
        except RuntimeError:
            raise RequestError("this backend is closed; open the bundle again") from None
        return future.result()

    def _run(self, feed: Feed) -> Images:
        form = _form(feed)
        known = form in self._runs
        with gpus_at_rest() if self._captures and not known else self.lock:
            inputs = self._filled(form, feed)
            if known:
                self._session.run_with_iobinding(*self._runs[form])
            else:
                self._runs[form] = self._first_run(inputs, len(feed["z"]))
            binding, _ = self._runs[form]
            images: Images = binding.copy_outputs_to_cpu()[0]
        return images

    def _run_on_device(self, feed: Feed) -> SupportsDLPack:
        with self.lock:
            images: SupportsDLPack = self._new_images(len(feed["z"]))
            binding = self._bind(self._filled(_form(feed), feed), images)
            # A graph would write to where it was captured.
            self._session.run_with_iobinding(binding, self._options(_PLAIN))
        return images

    def _first_run(self, inputs: dict[str, Any], n: int) -> tuple[Any, Any]:
        """Run with new images; the binding and the options to run again with."""
        binding = self._bind(inputs, self._new_images(n))
        if self._captures:
            options = self._options(n)
            try:
                self._session.run_with_iobinding(binding, options)
            except Exception as error:  # onnxruntime raises a dozen unrelated classes
                log.warning("batches of %d run without a CUDA graph: %s", n, error)
            else:
                return binding, options
        options = self._options(_PLAIN)
        self._session.run_with_iobinding(binding, options)
        return binding, options

    def _filled(self, form: Form, feed: Feed) -> dict[str, Any]:
        """The inputs where they lie for good, with the values of a feed.

        The copies are from pageable memory: `update_inplace` waits for them anyhow, and nothing is
        documented that copies from a pinned OrtValue without waiting.
        """
        if form not in self._inputs:
            self._inputs[form] = {
                name: self._allocate(a.shape, a.dtype) for name, a in feed.items()
            }
        inputs = self._inputs[form]
        for name, array in feed.items():
            inputs[name].update_inplace(np.ascontiguousarray(array))
        return inputs

    def _bind(self, inputs: dict[str, Any], images: Any) -> Any:
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(self._output, images)
        return binding

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
