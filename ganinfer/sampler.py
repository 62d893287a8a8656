"""The sampler: seeds, labels and truncation in; pixels out.

N images, Z latent, K classes; images are uint8 (N, H, W, C), C of 1 (grey), 2, 3 (RGB) or 4 (RGBA).
L styles of length D.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.arguments import (
    Label,
    Labels,
    SeedList,
    check_takes_styles,
    checked_count,
    checked_duration,
    checked_integer,
    checked_labels,
    checked_latents,
    checked_out,
    checked_styles,
    class_number,
    gives_each,
    numbers_asked,
    room_for,
    seeds_asked,
)
from ganinfer.drawing.images import Images, check_picture, to_pil
from ganinfer.drawing.inputs import (
    ClassInput,
    Inputs,
    Wanted,
    class_input,
    draw_inputs,
    draw_wanted,
    labels_of,
    of_styles,
    truncation_input,
    without_styles,
)
from ganinfer.drawing.latents import Seeds, is_number, seed_array, slerp
from ganinfer.drawing.mixing import Mixture, between
from ganinfer.drawing.reading import AnyArray
from ganinfer.errors import BundleError, RequestError
from ganinfer.scheduler.opening import Opening
from ganinfer.scheduler.request import Request
from ganinfer.scheduler.runner import open_runner

if TYPE_CHECKING:
    from PIL.Image import Image

    from ganinfer.backends._base import SupportsDLPack
    from ganinfer.bundle.archive import Bundle
    from ganinfer.bundle.signature import PublicKey

Latents = NDArray[np.float32]
Styles = NDArray[np.float32]

_MAPPED_AT_ONCE = 64


class Chosen(TypedDict, total=False):
    """Keyword arguments that choose images; `Sampler.sample` says what they mean."""

    seed: int
    seeds: SeedList
    labels: Labels
    truncation: float | None
    truncation_mode: str | None


class Asked(Chosen, total=False):
    """And those that say where they go, and until when."""

    out: Images | None
    timeout_s: float | None


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
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        device: str | Sequence[str] = "auto",
        precision: str = "auto",
        threads: int | None = None,
        batch_size: int = 64,
        max_queue: int = 1024,
        max_queue_images: int | None = None,
        max_wait_ms: float = 0.0,
        allow_unverified: bool = False,
        public_key: "PublicKey | None" = None,
    ) -> None:
        """Open a bundle and check on this host that it gives its golden images.

        Args:
            path: a bundle: a `name.gan` directory or file, or hf://owner/name[@revision].
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
            allow_unverified: open a bundle that was exported without its parity check.
            public_key: of whoever must have signed the bundle; PEM, or the path of such a file.

        Raises:
            BundleError: the bundle is missing, damaged, of a newer format, unverified or not
                signed by that key.
            ConfigError: the key cannot be used, or there is no such backend.
            BackendUnavailable: this host cannot run it as asked.
            ParityError: it runs, and its golden images are not those of the trained generator.
        """
        from ganinfer.bundle.hub import located

        if not isinstance(path, str | os.PathLike):
            raise RequestError(f"path {path!r}: expected that of a bundle, a str or Path")
        opening = Opening(
            backend=backend,
            device=device,
            precision=precision,
            threads=threads,
            batch_size=batch_size,
            max_queue=max_queue,
            max_queue_images=max_queue_images,
            max_wait_ms=max_wait_ms,
            allow_unverified=allow_unverified,
            public_key=public_key,
        )
        self._origin, place = located(path)
        self._runner = open_runner(place, opening)
        self._model = self._runner.bundle.manifest.model

    def __reduce__(self) -> tuple[Callable[[], "Sampler"], tuple[()]]:
        """A process that gets this sampler opens the bundle for itself, and no other one."""
        runner = self._runner
        return functools.partial(_reopened, self._origin, runner.bundle.sha256, runner.opening), ()

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

        shape: of an image, (H, W, C).
        """
        bundle, backends = self._runner.bundle, self._runner.ready().backends
        return {
            "path": str(bundle.path),
            **self._model.model_dump(),
            "shape": self._model.shape,
            "backend": backends[0].name,
            "device": ", ".join(backend.device for backend in backends),
            "precision": backends[0].precision,
            "reason": self._runner.reason,
            "verified": bundle.manifest.verified,
            **backends[0].details,
        }

    @property
    def stats(self) -> dict[str, Any]:
        """Requests, images, batches and their fill, seconds of latents and device, percentiles.

        See `ganinfer.scheduler.stats.Stats.read`.
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
        if output not in ("numpy", "pil"):
            raise RequestError(f"output {output!r}: expected 'numpy' or 'pil'")
        if output == "pil":
            check_picture(self._model.channels)
        request = self._asked(n, **asked)
        if return_latents:
            inputs = request.wanted = draw_wanted(self._model, [request.wanted])
        images = _result(self._runner.ready().serve(request))
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
        request = self._asked(n, **asked)
        return self._runner.ready().submit(request)

    def _asked(
        self,
        n: int | None,
        *,
        out: Images | None = None,
        timeout_s: float | None = None,
        **chosen: Unpack[Chosen],
    ) -> Request:
        """A request, checked."""
        if n is not None and is_number(n):
            self._check_size(n)  # before its seeds are made
        try:
            wanted = self._wanted(n, **chosen)
            return self._request(wanted, len(wanted.keys), out, timeout_s)
        except (MemoryError, OverflowError):
            raise RequestError(
                f"n: found {n}; so many images at once do not fit into memory; use stream"
            ) from None

    def _check_size(self, n: int) -> None:
        if n > (most := self._runner.max_queue_images):
            raise RequestError(
                f"n: found {n}; at most {most} images at once, for the sake of memory: use stream,"
                " or open with a larger max_queue_images"
            )

    def _wanted(
        self,
        n: int | None,
        *,
        seed: int = 0,
        seeds: SeedList = None,
        labels: Labels = None,
        truncation: float | None = None,
        truncation_mode: str | None = None,
    ) -> Wanted:
        """What chooses images, checked."""
        if truncation is not None or truncation_mode is not None:
            draw_inputs(self._model, [], None, truncation, truncation_mode)  # complain here
        keys = seeds_asked(n, seed, seeds)
        numbers = numbers_asked(self._model, labels, len(keys))
        return Wanted(keys, numbers, truncation, truncation_mode)

    def _request(
        self,
        wanted: Wanted | Inputs,
        n: int,
        out: Images | None = None,
        timeout_s: float | None = None,
    ) -> Request:
        """A request for n images."""
        self._check_size(n)
        deadline = None
        if timeout_s is not None:
            deadline = time.monotonic() + checked_duration("timeout_s", timeout_s)
        out = checked_out(self._model, out, n)
        return Request(wanted, room_for(self._model.image_shape(n)), out, deadline)

    async def asample(self, n: int | None = None, **asked: Unpack[Asked]) -> Images:
        """Draw images in an asyncio program; arguments as in `sample`.

        Cancelling the task takes back what is not begun.
        """
        import asyncio

        return await asyncio.wrap_future(self.submit(n, **asked))

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
        request = self._asked(n, **chosen)
        found, largest = len(request.images), self._runner.opening.batch_size
        if not 0 < found <= largest:
            raise RequestError(
                f"n: found {found}; expected 1 to {largest}, one batch; open with a larger"
                " batch_size for more"
            )
        return self._runner.ready().run_on_device(draw_wanted(self._model, [request.wanted]))

    def generate(
        self,
        z: AnyArray | Sequence[Sequence[float]],
        y: Labels = None,
        *,
        truncation: float | None = None,
        out: Images | None = None,
        timeout_s: float | None = None,
    ) -> Images:
        """Images of latents that the caller made.

        Args:
            z: float (N, Z), finite; an array, or what NumPy or DLPack can read.
            y: labels as in `sample` for a conditional model, else None; of a bundle that takes
                weights also float (N, K).
            truncation: what a generator that takes it as an input gets; the latents are as they
                are.
            out: uint8 (N, H, W, C) to write the images into.
            timeout_s: as in `sample`.

        Returns:
            uint8 (N, H, W, C).

        Raises:
            RequestError: wrong shapes or types, or values out of range.
            QueueFull, DeadlineExceeded: as in `sample`.
        """
        z = checked_latents(self._model, z)
        if truncation is not None and self._model.truncation_input is None:
            raise RequestError(
                f"truncation {truncation}: this generator does not take it; truncate z instead"
            )
        truncations = truncation_input(self._model, len(z), truncation)
        classes = class_input(self._model, checked_labels(self._model, y, len(z)))
        return self._images_of(Inputs(z, classes, truncations), out, timeout_s)

    def _images_of(
        self, inputs: Inputs, out: Images | None = None, timeout_s: float | None = None
    ) -> Images:
        """Images of inputs, which may lack styles."""
        inputs = without_styles(self._model, inputs) if inputs.w is None else inputs
        request = self._request(inputs, len(inputs), out, timeout_s)
        return _result(self._runner.ready().serve(request))

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
        check_takes_styles(self._model)
        return self._mapped(self._wanted(n, **chosen))

    def _mapped(self, wanted: Wanted) -> Styles:
        taken, n = check_takes_styles(self._model), len(wanted.keys)
        self._runner.ready()
        mapping = self._runner.mapping()
        w = np.empty((n, taken.num_styles, taken.w_dim), np.float32)
        for start in range(0, n, _MAPPED_AT_ONCE):
            stop = min(start + _MAPPED_AT_ONCE, n)
            w[start:stop] = mapping(draw_wanted(self._model, [wanted.rows(start, stop)]))
        return w

    def synthesize(
        self,
        w: AnyArray,
        *,
        out: Images | None = None,
        timeout_s: float | None = None,
    ) -> Images:
        """Images of styles: `synthesize(mapped(8))` is `sample(8)`.

        Args:
            w: float (N, L, D), finite, a style for each place, or (N, D), the same for all; they
                are taken as they are. An array, or what NumPy or DLPack can read.
            out: uint8 (N, H, W, C) to write the images into.
            timeout_s: as in `sample`.

        Returns:
            uint8 (N, H, W, C).

        Raises:
            RequestError: wrong shape or type, or the generator has no styles.
            QueueFull, DeadlineExceeded: as in `sample`.
        """
        inputs = of_styles(self._model, checked_styles(self._model, w))
        return self._images_of(inputs, out, timeout_s)

    def stream(
        self,
        n: int,
        batch_size: int = 64,
        *,
        seed: int = 0,
        labels: Labels = None,
        truncation: float | None = None,
        truncation_mode: str | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Images]:
        """Draw any number of images in constant memory.

        Args:
            n: how many.
            batch_size: images in each array that is yielded; the last may be smaller.
            seed, labels, truncation, truncation_mode: as in `sample`.
            timeout_s: of each array, from when it is asked for, one ahead.

        Yields:
            uint8 (batch_size, H, W, C), the same images that `sample` gives. While one is looked
            at, the next is drawn.

        Raises:
            RequestError: as in `sample`, before the first image.
        """
        batch_size = checked_integer("batch_size", batch_size, least=1)
        seed = checked_integer("seed", seed, least=0)
        end = seed + checked_count(n, seed)
        one_each = gives_each(labels)
        numbers = numbers_asked(self._model, labels, end - seed if one_each else batch_size)
        draw_inputs(self._model, [], None, truncation, truncation_mode)  # complain now

        def ask(start: int) -> "Future[Images]":
            stop = min(start + batch_size, end)
            part = numbers
            if numbers is not None:
                first = start - seed if one_each else 0
                part = numbers[first : first + stop - start]
            wanted = Wanted(seed_array(range(start, stop)), part, truncation, truncation_mode)
            request = self._request(wanted, stop - start, timeout_s=timeout_s)
            return self._runner.ready().submit(request)

        def batches() -> Iterator[Images]:
            following = ask(seed) if n else None
            try:
                for start in range(seed, end, batch_size):
                    assert following is not None
                    current = following
                    following = ask(start + batch_size) if start + batch_size < end else None
                    yield _result(current)
            finally:
                if following is not None:
                    following.cancel()  # whoever stops here waits for no more

        return batches()

    def interpolate(
        self,
        seed_a: int,
        seed_b: int,
        steps: int,
        *,
        label: Label | Mixture | None = None,
        to_label: Label | Mixture | None = None,
        truncation: float | None = None,
        truncation_mode: str | None = None,
        space: str = "z",
        timeout_s: float | None = None,
    ) -> Images:
        """Images along the way from one seed to another, both included.

        Args:
            seed_a, seed_b: the ends; the same one shows a latent as another class.
            steps: how many images, >= 2.
            label: the class of them all; seed_a's own by default.
            to_label: the class of the last one, by mixtures of the two; in W by any generator.
            truncation, truncation_mode: as in `sample`.
            space: "z", or "w", the straight way between a StyleGAN's styles.
            timeout_s: as in `sample`, of the images.

        Returns:
            uint8 (steps, H, W, C). Normal latents are interpolated along the sphere, uniform
            ones along the line.
        """
        if space not in ("z", "w"):
            raise RequestError(f"space {space!r}: expected 'z' or 'w'")
        steps = checked_integer("steps", steps, least=2)
        keys = seed_array([seed_a, seed_b])
        if space == "w":
            labels = self._two_labels(keys, label, to_label)
            w = self._mapped(Wanted(keys, labels, truncation, truncation_mode))
            way = np.linspace(w[0], w[1], steps, dtype=np.float32)
            return self.synthesize(way, timeout_s=timeout_s)
        ends = draw_inputs(self._model, keys, None, truncation, truncation_mode).z
        if self._model.z_distribution == "normal":
            path = slerp(ends[0], ends[1], steps)
        else:
            path = np.linspace(ends[0], ends[1], steps, dtype=np.float32)
        own = labels_of(self._model, keys[:1], numbers_asked(self._model, label, 1))
        y = class_input(self._model, own)
        if to_label is not None:
            end = class_input(self._model, numbers_asked(self._model, to_label, 1))
            y = between(self._model, y, end, steps)
        elif y is not None:
            y = y.repeat(steps, axis=0)
        inputs = Inputs(path, y, truncation_input(self._model, steps, truncation))
        return self._images_of(inputs, timeout_s=timeout_s)

    def _two_labels(
        self, keys: Seeds, label: Label | Mixture | None, to_label: Label | Mixture | None
    ) -> ClassInput | None:
        """The classes of two ends; see `interpolate`."""
        own = labels_of(self._model, keys[:1], numbers_asked(self._model, label, 1))
        last = own if to_label is None else numbers_asked(self._model, to_label, 1)
        ends = [class_input(self._model, numbers) for numbers in (own, last)]
        return None if own is None else np.concatenate(ends)  # type: ignore[arg-type]

    def close(self, *, cancel: bool = False) -> None:
        """Finish what was asked for, free the backends and the bundle's file.

        More than once does no harm. No Future is left without an answer.

        Args:
            cancel: fail what is not begun, instead of finishing it.
        """
        self._runner.close(cancel=cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _reopened(origin: str, sha256: str, opening: Opening) -> Sampler:
    """A sampler that was pickled."""
    sampler = Sampler(origin, **vars(opening))
    if sampler.sha256 != sha256:
        found = sampler.sha256
        sampler.close()
        raise BundleError(
            f"{origin}: found the bundle {found[:12]}, and the Sampler that was sent here had"
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
