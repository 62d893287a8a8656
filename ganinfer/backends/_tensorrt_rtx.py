"""TensorRT-RTX compiles its kernels where it runs; they are kept for the next opening."""

import logging
from types import ModuleType
from typing import Any

from platformdirs import user_cache_path

from ganinfer.files import sha256_bytes
from ganinfer.host import kept

log = logging.getLogger(__name__)


def runtime_config(trt: ModuleType, engine: Any) -> Any:
    """How contexts of an engine are to run, with memory of ours; the GPU is in use."""
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(
        trt.ExecutionContextAllocationStrategy.USER_MANAGED
    )
    # All kernels are compiled at a shape's first run. Lazily, they would come later, and be neither
    # those that the golden images have proved nor those in a graph of ours. The library's own
    # graphs stay off, as they are by default: ours hold the copies as well.
    config.dynamic_shapes_kernel_specialization_strategy = (
        trt.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    return config


class RuntimeCache:
    """The compiled kernels of one engine: a file in the user's cache, for each version and GPU.

    Nothing of it is unpickled, and the library refuses those of another GPU, driver or version.
    """

    def __init__(self, trt: ModuleType, config: Any, plan: bytes, capability: str) -> None:
        """Give a runtime config what was kept; from now on it adds to it. The GPU is in use."""
        folder = user_cache_path("ganpipe") / "tensorrt_rtx" / trt.__version__
        self._file = folder / f"{sha256_bytes(plan)}-{capability}.bin"
        self._cache = config.create_runtime_cache()
        self._content = kept.read(self._file)
        if self._content is not None and not self._cache.deserialize(self._content):
            log.warning("%s: of another GPU or driver; made anew", self._file)
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write it, if it has changed."""
        serialized = self._cache.serialize()
        content = None if serialized is None else bytes(serialized)
        if content is not None and content != self._content:
            kept.write(self._file, content)
            self._content = content
