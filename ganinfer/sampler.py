"""The sampler: seeds, labels and truncation in; pixels out.

N images, Z latent, K classes; images are uint8 (N, H, W, C), C of 1 (grey), 2, 3 (RGB) or 4 (RGBA).
L styles of length D.
"""

import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.arguments import (
    Label,
    Labels,
    Steps,
    check_takes_styles,
    checked_duration,
    class_number,
)
from ganinfer.drawing.images import Images, check_picture, to_pil
from ganinfer.drawing.inputs import Wanted, draw_wanted
from ganinfer.drawing.reading import AnyArray
from ganinfer.errors import BundleError, RequestError
from ganinfer.scheduler.asking import Asked, Chosen, Latents, Served, Streamed, Way, check_names
from ganinfer.scheduler.batching import Soon
from ganinfer.scheduler.opening import Opening, OpeningOptions
from ganinfer.scheduler.request import Request
from ganinfer.scheduler.rollout import Rollout
from ganinfer.scheduler.runner import Runner

if TYPE_CHECKING:
    import asyncio

    from PIL.Image import Image

    from ganinfer.backends._base import SupportsDLPack
    from ganinfer.bundle.archive import Bundle
    from ganinfer.bundle.places import Place
    from ganinfer.bundle.signature import PublicKey
    from ganinfer.drawing.model import Model

Styles = NDArray[np.float32]

_MAPPED_AT_ONCE = 64


class Sampler:
    """Draws images from a bundle.

    The image of a seed depends on the seed, its label and the truncation alone: not on the other
    images of a batch, nor on their order. Threads, asyncio tasks and processes may share one: what
    they ask for at the same time is merged into batches, and each gets its share of the device.

        with Sampler("digits.gan") as sampler:
            images = sampler.sample(64, seed=0, labels=3)
            later = sampler.submit(8, seed=64)                  # a Future
            soon = await sampler.asample(8, seed=72, timeout_s=0.5)
    """

    def __init__(
        self,
        path: "Place",
        *,
        backend: str = "auto",
        device: str | Sequence[str] = "auto",
        precision: str = "auto",
        threads: int | None = None,
        batch_size: int = 64,
        max_queue: int = 1024,
        max_queue_images: int | None = None,
        max_wait_ms: float = 0.0,
        watch: bool = False,
        measure: bool = True,
        allow_unverified: bool = False,
        public_key: "PublicKey | None" = None,
    ) -> None:
        """Open a bundle and check on this host that it gives its golden images.

        Args:
            path: a bundle: a `name.gan` directory or file; hf://owner/name[@revision]; https://,
                s3://, gs:// or another URL, of a file; or a file's content, as bytes or as a file
                opened in binary mode. See `ganinfer.bundle.places.located`.
            backend: "auto", "onnxruntime", "openvino", "tensorrt", "onnxruntime_tensorrt", or
                "package.module" of your own, see `ganinfer.lookup`.
            device: "auto", "cpu", "cuda" or "cuda:<n>"; several make a pool. One that was asked for
                and is not there is an error, never a silent fall-back.
            precision: "auto", or one that the bundle holds: "fp32", "fp16", ...
            threads: of the CPU, at most; by default all that this process may use, as its affinity,
                its container's quota and GANINFER_THREADS say. All samplers of a process share
                these.
            batch_size: images that go to the device at once, at most; a GPU's batches are padded
                to a few sizes.
            max_queue: requests that may wait; one more is refused with QueueFull.
            max_queue_images: images that they may have in all, and one request at most; by default
                as many as fit into a quarter of the memory that this process may have.
            max_wait_ms: how long a batch that is not full waits for other requests.
            watch: look each second whether another bundle lies at the path, and `reload` it.
            measure: of a bundle that is opened with "auto" alone, compare the backends in the
                background, once on this host, for the next program that opens it; never with
                GANINFER_MEASURE=0 in the environment. See `ganinfer.scheduler.comparing`.
            allow_unverified: open a bundle that was exported without its parity check.
            public_key: of whoever must have signed the bundle; PEM, or the path of such a file.

        Raises:
            BundleError: the bundle is missing, cannot be had, is damaged, of a newer format,
                unverified or not signed by that key.
            RequestError: path is none of these.
            MissingExtra: a package for such a URL is not installed.
            ConfigError: the key cannot be used, or there is no such backend.
            BackendUnavailable: this host cannot run it as asked.
            ParityError: it runs, and its golden images are not those of the trained generator.
        """
        opening = Opening(
            backend=backend,
            device=device,
            precision=precision,
            threads=threads,
            batch_size=batch_size,
            max_queue=max_queue,
            max_queue_images=max_queue_images,
            max_wait_ms=max_wait_ms,
            watch=watch,
            measure=measure,
            allow_unverified=allow_unverified,
            public_key=public_key,
        )
        self._rollout = Rollout(path, opening)

    @classmethod
    async def open(cls, path: "Place", **opening: Unpack[OpeningOptions]) -> Self:
        """Open a bundle in a thread, so that an asyncio program goes on; arguments as of the class.

        async with await Sampler.open("digits.gan") as sampler:
            images = await sampler.asample(8)
        """
        import asyncio

        opens = asyncio.ensure_future(asyncio.to_thread(functools.partial(cls, path, **opening)))
        try:
            return await asyncio.shield(opens)
        except asyncio.CancelledError:
            opens.add_done_callback(_close_unclaimed)
            raise

    def __reduce__(self) -> tuple[Callable[[], "Sampler"], tuple[()]]:
        """A process that gets this sampler opens the bundle for itself, and no other one."""
        from ganinfer.host.tuned import session

        origin, runner = self._rollout.origin, self._runner
        asked = origin, runner.bundle.sha256, runner.opening, session()
        return functools.partial(_reopened, *asked), ()

    def __repr__(self) -> str:
        """Bundle, shape, classes, backend, device, precision, and whether it is open."""
        runner, shape = self._runner, "x".join(map(str, self.shape))
        what = f"{runner.bundle.path}, {shape}, {len(self.classes) or 'no'} classes"
        if not self.live:
            return f"<Sampler {what}, closed>"
        if not (backends := runner.backends):
            return f"<Sampler {what}, not opened yet in this process>"
        devices = ", ".join(backend.device for backend in backends)
        return f"<Sampler {what}, {backends[0].name} on {devices} in {backends[0].precision}, open>"

    @property
    def _runner(self) -> Runner:
        return self._rollout.runner

    @property
    def _model(self) -> "Model":
        return self._runner.asking.model

    @property
    def live(self) -> bool:
        """Whether this process can still serve: it is not closed, and no thread of it has died."""
        return self._runner.live

    @property
    def ready(self) -> bool:
        """Whether a request would be taken now: it is live, and its queue is not full."""
        return self._runner.live and self._runner.has_room

    @property
    def bundle(self) -> "Bundle":
        """What was opened. Closing the sampler closes it.

        Raises:
            Closed: the sampler is closed.
        """
        self._runner.ready()
        return self._runner.bundle

    @property
    def info(self) -> dict[str, Any]:
        """What was opened, on what, and why: model, backend, device, precision, versions.

        shape: of an image, (H, W, C). reload_error: why the bundle that lies there now does not
        serve, see `watch`; None if it does.
        """
        runner = self._runner
        bundle, backends = runner.bundle, runner.ready().backends
        return {
            "path": str(bundle.path),
            **self._model.model_dump(),
            "shape": self._model.shape,
            "backend": backends[0].name,
            "device": ", ".join(backend.device for backend in backends),
            "precision": backends[0].precision,
            "reason": runner.reason,
            "verified": bundle.manifest.verified,
            "reload_error": self._rollout.reload_error,
            **backends[0].details,
        }

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self._model.shape

    @property
    def batch_size(self) -> int:
        """Images that go to the device at once, at most, as it was opened."""
        return self._runner.opening.batch_size

    @property
    def stats(self) -> dict[str, Any]:
        """Counts of requests, images and batches, what waits now, histograms and percentiles.

        All that this process did since it opened the bundle, as `json.dumps` takes it; see
        `ganinfer.scheduler.stats.Stats.read`.
        """
        return self._runner.stats.read()

    @property
    def classes(self) -> list[str]:
        """The K class names; empty for an unconditional model."""
        return list(self._model.classes)

    def number_of(self, label: Label) -> int:
        """The number in [0, K) of a class, from it or its name.

        Raises:
            RequestError: there is no such class.
        """
        return class_number(self._model, label)

    @property
    def sha256(self) -> str:
        """Of the manifest, which has those of all files: it names the bundle's content."""
        return self._runner.bundle.sha256

    @property
    def dataset_sha256(self) -> str | None:
        """Of the dataset that the generator was trained on, if that is known."""
        return self._runner.bundle.manifest.source.dataset_sha256

    @property
    def dataset_path(self) -> Path | None:
        """Where that dataset lay, as the training config says it."""
        path = self._runner.bundle.manifest.source.dataset_path
        return None if path is None else Path(path)

    @property
    def dataset_labelled(self) -> bool:
        """False if its labels, which it may have, were left out."""
        data = self._runner.bundle.manifest.source.config.get("data")
        return not (isinstance(data, dict) and data.get("labels") is False)

    @overload
    def sample(
        self, n: int | None = None, *, output: Literal["numpy"] = "numpy",
        return_latents: Literal[False] = False, **asked: Unpack[Asked],
    ) -> Images: ...  # fmt: skip

    @overload
    def sample(
        self, n: int | None = None, *, output: Literal["pil"],
        return_latents: Literal[False] = False, **asked: Unpack[Asked],
    ) -> "list[Image]": ...  # fmt: skip

    @overload
    def sample(
        self, n: int | None = None, *, output: Literal["numpy"] = "numpy",
        return_latents: Literal[True], **asked: Unpack[Asked],
    ) -> tuple[Images, Latents]: ...  # fmt: skip

    @overload
    def sample(
        self, n: int | None = None, *, output: Literal["pil"],
        return_latents: Literal[True], **asked: Unpack[Asked],
    ) -> "tuple[list[Image], Latents]": ...  # fmt: skip

    @overload  # for who decides as the program runs, or passes a dict on; names are still checked
    def sample(
        self, n: int | None = None, *, output: Any = "numpy", return_latents: Any = False,
        seed: Any = 0, seeds: Any = None, labels: Any = None, truncation: Any = None,
        truncation_mode: Any = None, out: Any = None, timeout_s: Any = None,
    ) -> Any: ...  # fmt: skip

    def sample(
        self,
        n: int | None = None,
        *,
        output: Literal["numpy", "pil"] = "numpy",
        return_latents: bool = False,
        **asked: Unpack[Asked],
    ) -> Any:
        """Draw images.

        Args:
            n: how many; may be left out when `seeds` says it.
            seed: images get the seeds seed, seed + 1, ..., seed + n - 1.
            seeds: one seed an image, integers in [0, 2**64), instead of `seed`: a sequence, an
                array, a column of a table.
            labels: a class (its number in [0, K) or its name) for all images, one class for each,
                or None: each seed draws its own. Of a bundle that takes weights also mixtures,
                {"3": 0.5, "8": 0.5}, which sum to 1, and weights (N, K).
            truncation: "resample": latents from N(0, 1) given abs(z) <= truncation; "scale":
                latents times truncation; "network": the generator's own, as StyleGAN2's psi. None
                for that of the training, which is none as a rule.
            truncation_mode: one of the model's, see `info`; its first by default.
            output: "numpy", or "pil" for a list of Pillow images: L, RGB or RGBA.
            return_latents: also return z float32 (N, Z), which `generate` takes.
            out: uint8 (N, H, W, C) to write the images into; it is left alone if there are none.
            timeout_s: seconds from now within which the images must be there; whatever the device
                is at then, the caller is told.

        Returns:
            uint8 (N, H, W, C), which torch.from_dlpack takes without a copy, or N Pillow images;
            with return_latents the images and z.

        Raises:
            RequestError: something that this model cannot serve.
            QueueFull: too many requests are waiting. DeadlineExceeded: they are not there in time.
        """
        check_names("sample", asked, Asked, "n", "output", "return_latents")
        if output not in ("numpy", "pil"):
            raise RequestError(f"output {output!r}: expected 'numpy' or 'pil'")
        if output == "pil":
            check_picture(self._model.channels)
        request = self._runner.asking.of_seeds(n, **asked)
        if return_latents:
            inputs = request.wanted = draw_wanted(self._model, [request.wanted])
        images = self._serve(request)
        found = images if output == "numpy" else [to_pil(image) for image in images]
        return (found, inputs.z) if return_latents else found

    def submit(self, n: int | None = None, **asked: Unpack[Asked]) -> "Future[Images]":
        """Ask for images without waiting for them; arguments as in `sample`.

        Returns:
            A Future of uint8 (N, H, W, C). Cancelling it takes back what is not begun.

        Raises:
            RequestError: something that this model cannot serve.
            QueueFull: too many requests or images are waiting.
        """
        check_names("submit", asked, Asked, "n")
        return self._submit(self._runner.asking.of_seeds(n, **asked))

    async def asample(self, n: int | None = None, **asked: Unpack[Asked]) -> Images:
        """Draw images in an asyncio program; arguments as in `sample`.

        Cancelling the task takes back what is not begun.
        """
        check_names("asample", asked, Asked, "n")
        return await self._served(self._runner.asking.of_seeds(n, **asked))

    def sample_on_device(
        self,
        n: int | None = None,
        **chosen: Unpack[Chosen],
    ) -> "SupportsDLPack":
        """Draw one batch of images that stay in the memory of the GPU that made them.

        They are made at once, beside what other callers wait for.

        Args:
            n: at most `batch_size` images. A GPU tunes itself for each new n.
            chosen: seed, seeds, labels, truncation and truncation_mode, as in `sample`.

        Returns:
            uint8 (N, H, W, C), which torch.from_dlpack and cupy.from_dlpack take without a copy.
            Keep it until all that reads it there has run. On a CPU it is a NumPy array.

        Raises:
            RequestError: as in `sample`, or more images than a batch.
            BackendUnavailable: the backend hands out no memory of a GPU.
        """
        check_names("sample_on_device", chosen, Chosen, "n")
        request = self._runner.asking.of_seeds(n, **chosen)
        found, largest = len(request.images), self._runner.opening.batch_size
        if not 0 < found <= largest:
            raise RequestError(
                f"n: found {found}; expected 1 to {largest}, one batch; open with a larger"
                " batch_size for more"
            )
        inputs = draw_wanted(self._model, [request.wanted])
        return self._rollout.served(lambda runner: runner.ready().run_on_device(inputs))

    def generate(
        self,
        z: AnyArray | Sequence[Sequence[float]],
        y: Labels = None,
        *,
        truncation: float | None = None,
        **served: Unpack[Served],
    ) -> Images:
        """Images of latents that the caller made.

        Args:
            z: float (N, Z), finite; an array, or what NumPy or DLPack can read.
            y: labels as in `sample` for a conditional model, else None; of a bundle that takes
                weights also float (N, K).
            truncation: what a generator that takes it as an input gets; the latents are as they
                are.
            served: out and timeout_s, as in `sample`.

        Returns:
            uint8 (N, H, W, C).

        Raises:
            RequestError: wrong shapes or types, or values out of range.
            QueueFull, DeadlineExceeded: as in `sample`.
        """
        check_names("generate", served, Served, "z", "y", "truncation")
        request = self._runner.asking.of_latents(z, y, truncation=truncation, **served)
        return self._serve(request)

    async def agenerate(
        self,
        z: AnyArray | Sequence[Sequence[float]],
        y: Labels = None,
        *,
        truncation: float | None = None,
        **served: Unpack[Served],
    ) -> Images:
        """`generate` in an asyncio program."""
        check_names("agenerate", served, Served, "z", "y", "truncation")
        request = self._runner.asking.of_latents(z, y, truncation=truncation, **served)
        return await self._served(request)

    def mapped(self, n: int | None = None, **chosen: Unpack[Chosen]) -> Styles:
        """Styles of seeds: what a StyleGAN's mapping network makes of them.

        It runs at once, on the CPU and in float32, beside what other callers wait for: a few
        million multiplications an image, where the synthesis has billions.

        Args:
            n: how many; may be left out when `seeds` says it.
            chosen: seed, seeds, labels and truncation, as in `sample`.

        Returns:
            float32 (N, L, D): W in each of the L places, drawn to the mean as truncation says.
            `synthesize` takes it, or W+, where the places differ: see `ganinfer.styles`.

        Raises:
            RequestError: as in `sample`, or the generator has no styles.
        """
        check_names("mapped", chosen, Chosen, "n")
        check_takes_styles(self._model)
        return self._mapped(self._runner.asking.wanted(n, **chosen))

    def _mapped(self, wanted: Wanted) -> Styles:
        return self._rollout.served(lambda runner: _mapped(runner, wanted))

    def synthesize(self, w: AnyArray, **served: Unpack[Served]) -> Images:
        """Images of styles: `synthesize(mapped(8))` is `sample(8)`.

        Args:
            w: float (N, L, D), finite, a style for each place, or (N, D), the same for all; they
                are taken as they are. An array, or what NumPy or DLPack can read.
            served: out and timeout_s, as in `sample`.

        Returns:
            uint8 (N, H, W, C).

        Raises:
            RequestError: wrong shape or type, or the generator has no styles.
            QueueFull, DeadlineExceeded: as in `sample`.
        """
        check_names("synthesize", served, Served, "w")
        return self._serve(self._runner.asking.of_styles(w, **served))

    async def asynthesize(self, w: AnyArray, **served: Unpack[Served]) -> Images:
        """`synthesize` in an asyncio program."""
        check_names("asynthesize", served, Served, "w")
        return await self._served(self._runner.asking.of_styles(w, **served))

    def stream(
        self, n: int, batch_size: int = 64, **streamed: Unpack[Streamed]
    ) -> Iterator[Images]:
        """Draw any number of images in constant memory.

        Args:
            n: how many.
            batch_size: images in each array that is yielded; the last may be smaller.
            streamed: seed, labels, truncation and truncation_mode, as in `sample`; timeout_s of
                each array, from when it is asked for, one ahead.

        Yields:
            uint8 (batch_size, H, W, C), the same images that `sample` gives. While one is looked
            at, the next is drawn. After a `reload` the next ones are those of the new bundle.

        Raises:
            RequestError: as in `sample`, before the first image.
        """
        check_names("stream", streamed, Streamed, "n", "batch_size")
        requests = self._runner.asking.of_stream(n, batch_size, **streamed)

        def batches() -> Iterator[Images]:
            following: Future[Images] | None = None
            try:
                for request in requests:
                    current, following = following, self._submit(request)
                    if current is not None:
                        yield _result(current)
                if following is not None:
                    yield _result(following)
            finally:
                if following is not None:
                    following.cancel()  # whoever stops here waits for no more

        return batches()

    def astream(
        self, n: int, batch_size: int = 64, **streamed: Unpack[Streamed]
    ) -> AsyncIterator[Images]:
        """`stream` in an asyncio program: `async for images in sampler.astream(10_000): ...`."""
        check_names("astream", streamed, Streamed, "n", "batch_size")
        requests = self._runner.asking.of_stream(n, batch_size, **streamed)

        async def batches() -> AsyncIterator[Images]:
            import asyncio

            following: Future[Images] | None = None
            try:
                for request in requests:
                    current, following = following, self._submit(request)
                    if current is not None:
                        yield await asyncio.wrap_future(current)
                if following is not None:
                    yield await asyncio.wrap_future(following)
            finally:
                if following is not None:
                    following.cancel()

        return batches()

    def interpolate(self, seed_a: int, seed_b: int, steps: Steps, **way: Unpack[Way]) -> Images:
        """Images along the way from one seed to another, both included.

        Args:
            seed_a, seed_b: the ends; the same one shows a latent as another class.
            steps: how many images, >= 2; or where N of them lie, as in [0.25, 0.5]: numbers in
                [0, 1], 0 at seed_a.
            way: label: the class of them all; seed_a's own by default. to_label: the class of the
                last one, by mixtures of the two; in W by any generator. truncation,
                truncation_mode: as in `sample`. space: "z", or "w", the straight way between a
                StyleGAN's styles. timeout_s: as in `sample`, of the images.

        Returns:
            uint8 (N, H, W, C). Normal latents are interpolated along the sphere, uniform
            ones along the line.
        """
        check_names("interpolate", way, Way, "seed_a", "seed_b", "steps")
        asking = self._runner.asking
        return self._serve(asking.of_way(seed_a, seed_b, steps, mapped=self._mapped, **way))

    async def ainterpolate(
        self, seed_a: int, seed_b: int, steps: Steps, **way: Unpack[Way]
    ) -> Images:
        """`interpolate` in an asyncio program."""
        check_names("ainterpolate", way, Way, "seed_a", "seed_b", "steps")
        asking = self._runner.asking
        request = asking.of_way(seed_a, seed_b, steps, mapped=self._mapped, **way)
        return await self._served(request)

    def reload(self, path: "Place | None" = None) -> bool:
        """Let another bundle take the place of the one that serves, while requests go on.

        It is opened and proven beside the old one, and draws batches as large as that has drawn;
        then requests go to it, and the old one ends once it has finished its own. One that does not
        open leaves the old one serving. `stats`, `info` and `sha256` are those of the one that
        serves.

        Args:
            path: of the other bundle; by default what lies now where this one was opened.

        Returns:
            Whether it is another one; of the same content nothing happens.

        Raises:
            BundleError, BackendUnavailable, ParityError: as when a Sampler is opened; or images,
                classes or latents are of another kind than those that callers ask for.
            Closed: the sampler is closed.
        """
        return self._rollout.reload(path)

    def _serve(self, request: Request) -> Images:
        """Images for whoever waits here."""
        return _result(self._rollout.served(lambda runner: runner.ready().serve(request)))

    def _submit(self, request: Request, soon: Soon | None = None) -> "Future[Images]":
        return self._rollout.served(lambda runner: runner.ready().submit(request, soon))

    async def _served(self, request: Request) -> Images:
        """Images for a task of asyncio."""
        import asyncio

        loop = asyncio.get_running_loop()
        return await asyncio.wrap_future(self._submit(request, loop.call_soon), loop=loop)

    def close(self, *, cancel: bool = False, timeout_s: float | None = None) -> None:
        """Finish what was asked for, free the backends and the bundle's file.

        More than once does no harm. No Future is left without an answer.

        Args:
            cancel: fail what is not begun, instead of finishing it.
            timeout_s: after which all that is not there fails; what a backend is at then ends
                before it is freed, but nobody waits for it.
        """
        if timeout_s is not None:
            timeout_s = checked_duration("timeout_s", timeout_s)
        self._rollout.close(cancel=cancel, timeout_s=timeout_s)

    async def aclose(self, *, cancel: bool = False, timeout_s: float | None = None) -> None:
        """`close` in an asyncio program, which goes on meanwhile."""
        import asyncio

        await asyncio.to_thread(self.close, cancel=cancel, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _mapped(runner: Runner, wanted: Wanted) -> Styles:
    """See `Sampler.mapped`."""
    model, n = runner.asking.model, len(wanted.keys)
    taken = check_takes_styles(model)
    runner.ready()
    mapping = runner.mapping()
    w = np.empty((n, taken.num_styles, taken.w_dim), np.float32)
    for start in range(0, n, _MAPPED_AT_ONCE):
        stop = min(start + _MAPPED_AT_ONCE, n)
        w[start:stop] = mapping(draw_wanted(model, [wanted.rows(start, stop)]))
    return w


def _close_unclaimed(opened: "asyncio.Future[Any]") -> None:
    """Of a task that was cancelled while it waited for its sampler."""
    if not opened.cancelled() and opened.exception() is None:
        threading.Thread(target=opened.result().close, name="ganinfer close").start()


def _reopened(origin: str, sha256: str, opening: Opening, began: float) -> Sampler:
    """A sampler that was pickled, in a session that began then."""
    from ganinfer.host.tuned import belong_to

    belong_to(began)
    sampler = Sampler(origin, **vars(opening))
    if sampler.sha256 != sha256 and not opening.watch:
        found, place = sampler.sha256, sampler.bundle.path
        sampler.close()
        raise BundleError(
            f"{place}: found the bundle {found[:12]}, and the Sampler that was sent here had"
            f" {sha256[:12]}; put that one there, or open this one anew"
        )
    return sampler


def _result(future: "Future[Images]") -> Images:
    """Wait for images; what nobody waits for any more is taken back."""
    try:
        return future.result()
    except BaseException:  # as Ctrl-C
        future.cancel()
        raise
