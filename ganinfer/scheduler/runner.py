"""An opened bundle at work: backends that gave its golden images, and the queue before them."""

import atexit
import contextlib
import dataclasses
import functools
import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ganinfer.drawing.inputs import draw_wanted
from ganinfer.errors import BackendUnavailable, BundleError, Closed, ParityError, Unverified
from ganinfer.host.limits import at_most, usable_memory
from ganinfer.scheduler.asking import Asking
from ganinfer.scheduler.batching import Batcher
from ganinfer.scheduler.comparing import Comparison, worth_it
from ganinfer.scheduler.forks import abandon, end_without_destructors
from ganinfer.scheduler.opening import Opening
from ganinfer.scheduler.request import Request
from ganinfer.scheduler.sizes import doubled_up_to
from ganinfer.scheduler.stats import Stats
from ganinfer.scheduler.tracing import open_tracing

if TYPE_CHECKING:
    from ganinfer.backends._base import Backend
    from ganinfer.backends.onnxruntime import MappingNetwork

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Replaced(BundleError):
    """In a process that was forked off: another bundle lies there by now."""


_SHARE_OF_MEMORY = 0.25  # for images that are waited for


class Runner:
    """What threads, asyncio tasks and forked processes share; see `ganinfer.Sampler`.

    Attributes:
        opening: how it was opened.
        bundle: that it runs.
        backends: one a device; none yet in a process that was forked off.
        asking: makes requests of its model.
        reason: in words, why these.
        stats: of what this process ran.
    """

    def __init__(self, path: Path, opening: Opening) -> None:
        """Open a bundle and its backends; errors as of `Sampler`."""
        from ganinfer.bundle.archive import Bundle

        self.opening = opening
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 - wherever this process goes
        self.bundle = Bundle(path, public_key=opening.public_key)
        self.backends: list[Backend] = []
        max_queue_images = opening.max_queue_images or self._images_that_fit()
        self.asking = Asking(self.bundle.manifest.model, max_queue_images)
        self._batcher_of = functools.partial(
            Batcher,
            draw=functools.partial(draw_wanted, self.bundle.manifest.model),
            largest=opening.batch_size,
            max_queue=opening.max_queue,
            max_queue_images=max_queue_images,
            max_wait_ms=opening.max_wait_ms,
        )
        self._closed, self._may_fork = False, True
        self._comparison: Comparison | None = None
        self._start_anew()
        try:
            if not self.bundle.manifest.verified and not opening.allow_unverified:
                raise Unverified(
                    f"{path}: was exported with --no-verify: nobody knows whether it is the"
                    " generator that was trained; export it again, or pass allow_unverified=True"
                    " (--allow-unverified)"
                )
            self._open_backends()
            self._compare_backends()
        except BaseException:
            self.close()
            raise
        _open_runners.add(self)

    def _start_anew(self) -> None:
        """Nothing runs yet: at first, and in a process that was forked off."""
        self._lock = threading.Lock()
        self.stats = self.asking.stats = Stats()
        self._batcher: Batcher | None = None
        self._mapping: MappingNetwork | None = None

    def ready(self) -> Batcher:
        """The batcher, in a forked process over backends of its own.

        Raises:
            Closed: this is closed. BundleError: of a forked process, the bundle is gone.
        """
        with self._lock:
            if self._closed:
                raise Closed(f"{self.bundle.path}: this Sampler is closed; open it again")
            if not self.backends:
                if not self._may_fork:
                    raise BackendUnavailable(
                        f"{self.bundle.path}: this process was forked off one that had opened it,"
                        " and this system's C library could not end it in order: open the bundle"
                        " in each process, or start them by spawn"
                    )
                whole(self._path, self._open_again)
            if self._batcher is None:
                tracing = open_tracing(self.bundle.sha256, self.backends)
                self._batcher = self._batcher_of(self.backends, stats=self.stats, tracing=tracing)
            return self._batcher

    def warm_up(self, largest: int) -> None:
        """Draw 1, 2, 4, ... images and `largest` on each device, which costs it time once.

        Raises:
            BackendUnavailable: a device does not run it.
        """
        sizes = doubled_up_to(min(largest, self.asking.max_images)) if largest else []
        for backend in self.backends:
            with self._apart(backend, largest) as batcher:
                for size in sizes:
                    batcher.run_whole(self.asking.of_seeds(size))

    def mapping(self) -> "MappingNetwork":
        """What makes styles of latents, in a bundle that has it; `ready` comes first."""
        if self._mapping is None:
            from ganinfer.backends.onnxruntime import MappingNetwork

            assert self.bundle.manifest.mapping is not None
            graph = self.bundle.read_onnx(self.bundle.manifest.mapping)
            with at_most(self.opening.threads):
                self._mapping = MappingNetwork(graph)
        return self._mapping

    @property
    def live(self) -> bool:
        """Whether it can serve: it is not closed, and its threads are there."""
        batcher = self._batcher
        return not self._closed and self._may_fork and (batcher is None or batcher.live)

    @property
    def has_room(self) -> bool:
        """Whether its queue takes one more image."""
        batcher = self._batcher
        return batcher is None or batcher.has_room

    def close(self, *, cancel: bool = False, timeout_s: float | None = None) -> None:
        """Finish or fail what was asked for; free the backends and the bundle's file.

        What a backend is still at after `timeout_s` ends before it is freed, in a thread.
        """
        if self._comparison is not None:
            self._comparison.stop()
        with self._lock:
            self._closed = True
            batcher = self._batcher
        if batcher is None or batcher.close(cancel=cancel, timeout_s=timeout_s):
            self._free()
        else:
            threading.Thread(target=self.close, name="ganinfer close", daemon=True).start()

    def _free(self) -> None:
        with self._lock:
            backends, self.backends, self._mapping = self.backends, [], None
        if backends:
            from ganinfer.backends._shared import release

            for backend in backends:
                release(backend)
        self.bundle.close()

    def __del__(self) -> None:
        if (batcher := getattr(self, "_batcher", None)) is not None:
            batcher.stop()  # or its threads would outlive a sampler that nobody closed
        if (comparison := getattr(self, "_comparison", None)) is not None:
            comparison.stop()

    def _images_that_fit(self) -> int:
        """Into a share of the memory that this process may have."""
        size = math.prod(self.bundle.manifest.model.image_shape(1))
        return max(self.opening.batch_size, int(_SHARE_OF_MEMORY * usable_memory()) // size)

    def _open_backends(self) -> None:
        """One a device; all of a pool in the first one's precision, so that all give one image."""
        from ganinfer.backends._open import open_backend
        from ganinfer.backends._shared import release

        wanted = self.opening
        opened: list[Backend] = []
        reasons: dict[str, None] = {}
        with contextlib.ExitStack() as undo, at_most(wanted.threads):
            for device in wanted.devices:
                precision = opened[0].precision if opened else wanted.precision
                backend, reason = open_backend(
                    self.bundle, wanted.backend, device, precision, prove=self._prove
                )
                undo.callback(release, backend)
                opened.append(backend)
                reasons[reason] = None
                log.info("%s: %s on %s", self.bundle.path, backend.name, backend.device)
            undo.pop_all()
        self.backends, self.reason = opened, "; ".join(reasons)

    def _compare_backends(self) -> None:
        """In the background, for the programs that come, where all of it was left to us."""
        wanted = self.opening
        free = wanted.measure and wanted.backend == wanted.device == wanted.precision == "auto"
        if free and worth_it(self.bundle, wanted.threads):
            self._comparison = Comparison(self._path, self.bundle.sha256, wanted.threads)

    def _prove(self, backend: "Backend") -> None:
        """Does this host give the images that torch gave where the bundle was made?

        Raises:
            ParityError: it gives others.
        """
        from ganinfer.bundle.golden import limits_of, pixel_failure, read_golden

        inputs, expected = read_golden(self.bundle)
        if self.bundle.manifest.mapping is not None:  # every other image by way of its styles
            takes_w = (np.arange(len(inputs)) % 2).astype(np.float32)
            inputs = dataclasses.replace(inputs, w=self.mapping()(inputs), takes_w=takes_w)
        found = np.empty_like(expected)
        with self._apart(backend, len(inputs)) as batcher:  # the way that all images will go
            batcher.submit(Request(inputs, found)).result()
        limits = limits_of(self.bundle.manifest.golden, backend.precision)
        failure = pixel_failure(found, expected, limits)
        if failure:
            raise ParityError(
                f"{self.bundle.path}: golden gate: {backend.name} on {backend.device}"
                f" in {backend.precision} gives other images than the trained generator:"
                f" {failure}. Use another backend or precision, or export the bundle again"
            )

    @contextlib.contextmanager
    def _apart(self, backend: "Backend", max_queue_images: int) -> Iterator[Batcher]:
        """A queue before one backend, which is in no statistics."""
        batcher = self._batcher_of([backend], stats=Stats(), max_queue_images=max_queue_images)
        try:
            yield batcher
        finally:
            batcher.close()

    def _forked(self) -> None:
        """The threads of the parent's backends are not here; freeing them would wait for them."""
        self._comparison = None  # the parent's
        if self.backends:
            self._may_fork = end_without_destructors()
            abandon((self.backends, self._batcher, self._mapping, self.bundle))
            self.backends = []
        if self._batcher is not None:
            self._batcher.forked()
        self._start_anew()

    def _open_again(self) -> None:
        """Open the bundle once more, by the same key, and backends over it."""
        from ganinfer.bundle.archive import Bundle

        again = Bundle(self._path, public_key=self.opening.public_key)
        try:
            if again.sha256 != self.bundle.sha256:
                raise Replaced(
                    f"{self.bundle.path}: another bundle was put there since this Sampler was"
                    " opened; open it again"
                )
            self.bundle = again
            self._open_backends()
        except BaseException:
            again.close()
            raise


def open_runner(path: Path, opening: Opening) -> Runner:
    """Open a bundle and its backends; errors as of `Sampler`."""
    return whole(path, lambda: Runner(path, opening))


def whole(path: Path, read: Callable[[], Result]) -> Result:
    """What reads the bundle at a path; read anew if that was replaced meanwhile.

    So that what is read is all of one bundle, and errors are those of a bundle that lies there.
    """
    while True:
        seen = identity(path)
        try:
            return read()
        except BundleError:
            if identity(path) == seen:
                raise


def identity(path: Path) -> list[tuple[int, ...]]:
    """What tells the bundle at a path from another one there, without reading it."""
    found: list[tuple[int, ...]] = []
    for file in (path, path / "manifest.json"):  # the latter for links within the folder
        with contextlib.suppress(OSError):
            status = file.stat()
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
    return found


_open_runners: "weakref.WeakSet[Runner]" = weakref.WeakSet()


def _after_fork() -> None:
    for runner in list(_open_runners):
        runner._forked()


@atexit.register
def _at_exit() -> None:
    """Threads that are at work in a backend as the interpreter ends would abort the process."""
    for runner in list(_open_runners):
        runner.close(cancel=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
