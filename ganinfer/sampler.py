"""The sampler: seeds, labels and truncation in; pixels out.

N images, Z latent, K classes; images are uint8 (N, H, W, C), C of 1 or 3.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import BundleError, ParityError, RequestError
from ganinfer.images import Images, to_pil
from ganinfer.inputs import ClassInput, Inputs, class_input, draw_inputs, truncation_input
from ganinfer.latents import Seeds, draw_labels, seed_array, slerp
from ganinfer.lookup import suggest
from ganinfer.mixing import Mixture, Weights, between, checked_weights, is_mixed, mix

if TYPE_CHECKING:
    from PIL.Image import Image

    from ganinfer.backends import Backend
    from ganinfer.rejection import Judge
    from ganinfer.signature import PublicKey

log = logging.getLogger(__name__)

Label = int | str
SeedList = Sequence[int] | NDArray[np.integer] | None
Labels = Label | Mixture | Sequence[Label | Mixture] | NDArray[np.integer] | None


class Sampler:
    """Draws images from a bundle.

    The image of a seed depends on the seed, its label and the truncation alone: not on the other
    images of a batch, nor on their order. Calls from several threads are safe.

        with Sampler("digits.gan") as sampler:
            images = sampler.sample(64, seed=0, labels=3)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 64,
        allow_unverified: bool = False,
        public_key: "PublicKey | None" = None,
    ) -> None:
        """Open a bundle and check on this host that it gives its golden images.

        Args:
            path: a bundle: a `name.gan` directory or file, or hf://owner/name[@revision].
            backend: "auto", "onnxruntime" or "tensorrt".
            device: "auto", "cpu", "cuda" or "cuda:<n>". One that was asked for and is not there
                is an error, never a silent fall-back.
            precision: "auto", or one that the bundle holds: "fp32", "fp16", ...
            batch_size: images that go to the device at once.
            allow_unverified: open a bundle that was exported without its parity check.
            public_key: of whoever must have signed the bundle; PEM, or the path of such a file.

        Raises:
            BundleError: the bundle is missing, damaged, of a newer format, unverified or not
                signed by that key.
            ConfigError: the key cannot be used.
            BackendUnavailable: this host cannot run it as asked.
            ParityError: it runs, and its golden images are not those of the trained generator.
        """
        from ganinfer.bundle import Bundle
        from ganinfer.hub import local_path

        self._batch_size = _checked_integer("batch_size", batch_size, least=1)
        _check_device_name(device)
        self._backend: Backend | None = None
        self._bundle = Bundle(local_path(path), public_key=public_key)
        try:
            self._open(backend, device, precision, allow_unverified)
        except BaseException:
            self.close()
            raise

    def _open(self, backend: str, device: str, precision: str, allow_unverified: bool) -> None:
        from ganinfer.backends import open_backend

        path = self._bundle.path
        self._manifest = self._bundle.manifest
        self._model = self._manifest.model
        if not self._manifest.verified and not allow_unverified:
            raise BundleError(
                f"{path}: was exported with --no-verify: nobody knows whether it is the generator"
                " that was trained; export it again, or pass allow_unverified=True"
            )
        self._backend, self._reason = open_backend(self._bundle, backend, device, precision)
        log.info("%s: %s on %s", path, self._backend.name, self._backend.device)
        self._check_golden()

    @property
    def info(self) -> dict[str, Any]:
        """What was opened, on what, and why: model, backend, device, precision, versions."""
        backend = self._opened()
        return {
            "path": str(self._bundle.path),
            **self._model.model_dump(),
            "backend": backend.name,
            "device": backend.device,
            "precision": backend.precision,
            "reason": self._reason,
            "verified": self._manifest.verified,
            **backend.details,
        }

    @property
    def classes(self) -> list[str]:
        """The K class names; empty for an unconditional model."""
        return list(self._model.classes)

    def number_of(self, label: Label) -> int:
        """The number in [0, K) of a class, from it or its name.

        Raises:
            RequestError: there is no such class.
        """
        return self._number(label)

    @property
    def sha256(self) -> str:
        """Of the manifest, which has those of all files: it names the bundle's content."""
        return self._bundle.sha256

    @property
    def dataset_sha256(self) -> str | None:
        """Of the dataset that the generator was trained on, if that is known."""
        return self._manifest.source.dataset_sha256

    @property
    def dataset_path(self) -> Path | None:
        """Where that dataset lay, as the training config says it."""
        path = self._manifest.source.dataset_path
        return None if path is None else Path(path)

    @overload
    def sample(
        self, n: int | None = None, *, seed: int = 0, seeds: SeedList = None,
        labels: Labels = None, truncation: float | None = None, truncation_mode: str | None = None,
        output: Literal["numpy"] = "numpy",
    ) -> Images: ...  # fmt: skip

    @overload
    def sample(
        self, n: int | None = None, *, seed: int = 0, seeds: SeedList = None,
        labels: Labels = None, truncation: float | None = None, truncation_mode: str | None = None,
        output: Literal["pil"],
    ) -> "list[Image]": ...  # fmt: skip

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: SeedList = None,
        labels: Labels = None,
        truncation: float | None = None,
        truncation_mode: str | None = None,
        output: Literal["numpy", "pil"] = "numpy",
    ) -> "Images | list[Image]":
        """Draw images.

        Args:
            n: how many; may be left out when `seeds` says it.
            seed: images get the seeds seed, seed + 1, ..., seed + n - 1.
            seeds: one seed an image, integers in [0, 2**64), instead of `seed`.
            labels: a class (its number in [0, K) or its name) for all images, one class for each,
                or None: each seed draws its own. Of a bundle that takes weights also mixtures,
                {"3": 0.5, "8": 0.5}, which sum to 1.
            truncation: "resample": latents from N(0, 1) given abs(z) <= truncation; "scale":
                latents times truncation; "network": the generator's own, as StyleGAN2's psi. None
                for that of the training, which is none as a rule.
            truncation_mode: one of the model's, see `info`; its first by default.
            output: "numpy", or "pil" for a list of Pillow images.

        Returns:
            uint8 (N, H, W, C), or N Pillow images.

        Raises:
            RequestError: something that this model cannot serve.
        """
        if output not in ("numpy", "pil"):
            raise RequestError(f"output {output!r}: expected 'numpy' or 'pil'")
        if seeds is None:
            keys = seed_array(range(seed, seed + _checked_count(n, seed)))
        else:
            keys = seed_array(seeds)
            if n is not None and n != len(keys):
                raise RequestError(f"n is {n}, and {len(keys)} seeds were given; leave n out")
        y = self._labels_of(keys, self._numbers(labels, len(keys)))
        images = self._images(draw_inputs(self._model, keys, y, truncation, truncation_mode))
        return images if output == "numpy" else [to_pil(image) for image in images]

    def generate(
        self,
        z: NDArray[np.float32],
        y: NDArray[np.integer] | Weights | None = None,
        *,
        truncation: float | None = None,
    ) -> Images:
        """Images of latents that the caller made.

        Args:
            z: float (N, Z), finite.
            y: integers (N,) in [0, K) for a conditional model, else None; of a bundle that takes
                weights also float (N, K).
            truncation: what a generator that takes it as an input gets; the latents are as they
                are.

        Returns:
            uint8 (N, H, W, C).

        Raises:
            RequestError: wrong shapes or types, or values out of range.
        """
        z = self._checked_latents(z)
        if truncation is not None and self._model.truncation_input is None:
            raise RequestError(
                f"truncation {truncation}: this generator does not take it; truncate z instead"
            )
        truncations = truncation_input(self._model, len(z), truncation)
        classes = class_input(self._model, self._checked_labels(y, len(z)))
        return self._images(Inputs(z, classes, truncations))

    def stream(
        self,
        n: int,
        batch_size: int = 64,
        *,
        seed: int = 0,
        labels: Labels = None,
        truncation: float | None = None,
        truncation_mode: str | None = None,
    ) -> Iterator[Images]:
        """Draw any number of images in constant memory.

        Args:
            n: how many.
            batch_size: images in each array that is yielded; the last may be smaller.
            seed, labels, truncation, truncation_mode: as in `sample`.

        Yields:
            uint8 (batch_size, H, W, C), the same images that `sample` gives.

        Raises:
            RequestError: as in `sample`, before the first image.
        """
        batch_size = _checked_integer("batch_size", batch_size, least=1)
        end = seed + _checked_count(n, seed)
        numbers = self._numbers(labels, n)
        draw_inputs(self._model, [seed], None, truncation, truncation_mode)  # complain now

        def batches() -> Iterator[Images]:
            for start in range(seed, end, batch_size):
                keys = seed_array(range(start, min(start + batch_size, end)))
                done = start - seed
                part = None if numbers is None else numbers[done : done + len(keys)]
                y = self._labels_of(keys, part)
                inputs = draw_inputs(self._model, keys, y, truncation, truncation_mode)
                yield self._images(inputs)

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
    ) -> Images:
        """Images along the way from one seed to another, both included.

        Args:
            seed_a, seed_b: the ends; the same one shows a latent as another class.
            steps: how many images, >= 2.
            label: the class of them all; seed_a's own by default.
            to_label: the class of the last one, by mixtures of the two.
            truncation, truncation_mode: as in `sample`.

        Returns:
            uint8 (steps, H, W, C). Normal latents are interpolated along the sphere, uniform
            ones along the line.
        """
        steps = _checked_integer("steps", steps, least=2)
        keys = seed_array([seed_a, seed_b])
        ends = draw_inputs(self._model, keys, None, truncation, truncation_mode).z
        if self._model.z_distribution == "normal":
            path = slerp(ends[0], ends[1], steps)
        else:
            path = np.linspace(ends[0], ends[1], steps, dtype=np.float32)
        y = class_input(self._model, self._labels_of(keys[:1], self._numbers(label, 1)))
        if to_label is not None:
            end = class_input(self._model, self._numbers(to_label, 1))
            y = between(self._model, y, end, steps)
        elif y is not None:
            y = y.repeat(steps, axis=0)
        return self._images(Inputs(path, y, truncation_input(self._model, steps, truncation)))

    def open_judge(self) -> "Judge":
        """The bundle's discriminator, which tells its images from real ones.

        Raises:
            RequestError: the bundle has none.
        """
        from ganinfer.rejection import Judge

        self._opened()
        return Judge(self._bundle)

    def close(self) -> None:
        """Free the backend and the bundle's file; more than once does no harm."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None
        self._bundle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _numbers(self, labels: Any, n: int) -> ClassInput | None:
        """Labels as the caller gives them -> int64 (N,), or float32 (N, K) of mixtures.

        None lets each seed draw its own.
        """
        if labels is None:
            return None
        if not self._model.classes:
            raise RequestError(f"labels {labels!r}: this model has no classes; leave labels out")
        if is_mixed(labels):
            return mix(self._model, labels, n, self._number)
        if isinstance(labels, int | str | np.integer):
            number = np.array([self._number(labels)], np.int64)
            return np.broadcast_to(number, n)
        if not isinstance(labels, Sequence | np.ndarray) or np.ndim(labels) != 1:
            raise RequestError(
                f"labels: found {labels!r}; expected one class, or one for each image"
            )
        if len(labels) != n:
            raise RequestError(
                f"labels: found {len(labels)} for {n} images; give one, or one for each"
            )
        return np.array([self._number(label) for label in labels], np.int64)

    def _number(self, label: Label | np.integer) -> int:
        classes = self._model.classes
        if isinstance(label, str):
            if label not in classes:
                raise RequestError(
                    f"label {label!r}: there is no such class; {suggest(label, classes)}"
                )
            return classes.index(label)
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise RequestError(f"label {label!r}: expected a class number or name")
        if not 0 <= label < len(classes):
            raise RequestError(
                f"label {label}: expected 0 to {len(classes) - 1}, for {', '.join(classes)}"
            )
        return int(label)

    def _labels_of(self, keys: Seeds, numbers: ClassInput | None) -> ClassInput | None:
        if numbers is None and self._model.classes:
            return draw_labels(keys, len(self._model.classes))
        return numbers

    def _checked_latents(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        array = np.asarray(z)
        if array.ndim != 2 or array.shape[1] != self._model.z_dim or array.dtype.kind != "f":
            raise RequestError(
                f"z: found {array.dtype} {array.shape}; expected float32 (N, {self._model.z_dim})"
            )
        with np.errstate(over="ignore"):
            latents = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(latents).all():
            raise RequestError("z: holds NaN or infinite values; expected finite float32 latents")
        return latents

    def _checked_labels(self, y: NDArray[np.integer] | Weights | None, n: int) -> ClassInput | None:
        num_classes = len(self._model.classes)
        if (y is None) != (num_classes == 0):
            expected = f"integers (N,) in [0, {num_classes})" if num_classes else "None"
            raise RequestError(f"y: found {type(y).__name__}; this model expects {expected}")
        if y is None:
            return None
        array = np.asarray(y)
        if array.shape == (n, num_classes) and array.dtype.kind == "f":
            return checked_weights(self._model, array)
        if array.shape != (n,) or array.dtype.kind not in "iu":
            raise RequestError(f"y: found {array.dtype} {array.shape}; expected integers ({n},)")
        if n and not (array.min() >= 0 and array.max() < num_classes):
            raise RequestError(
                f"y: found {array.min()} to {array.max()}; expected 0 to {num_classes - 1}"
            )
        return np.ascontiguousarray(array, np.int64)

    def _run(self, inputs: Inputs) -> Images:
        """One device batch, padded to a power of two where a new batch size costs time."""
        backend, n = self._opened(), len(inputs)
        if not backend.fixed_batches:
            return backend.run(inputs)
        return backend.run(inputs.padded(1 << (n - 1).bit_length()))[:n]

    def _images(self, inputs: Inputs) -> Images:
        model, n = self._model, len(inputs)
        images = np.empty((n, model.resolution, model.resolution, model.channels), np.uint8)
        for start in range(0, n, self._batch_size):
            stop = min(start + self._batch_size, n)
            images[start:stop] = self._run(inputs.rows(start, stop))
        return images

    def _opened(self) -> "Backend":
        if self._backend is None:
            raise RequestError(f"{self._bundle.path}: this Sampler is closed; open it again")
        return self._backend

    def _check_golden(self) -> None:
        """Does this host give the images that torch gave where the bundle was made?"""
        from ganinfer.golden import golden_failure, read_golden

        inputs, expected = read_golden(self._bundle)
        found = self._images(inputs)
        backend = self._opened()
        failure = golden_failure(found, expected, backend.precision)
        if failure:
            raise ParityError(
                f"{self._bundle.path}: golden gate: {backend.name} on {backend.device}"
                f" in {backend.precision} gives other images than the trained generator:"
                f" {failure}. Use another backend or precision, or export the bundle again"
            )


def _checked_integer(name: str, value: int, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise RequestError(f"{name}: found {value!r}; expected an integer, {least} or more")
    return int(value)


def _checked_count(n: int | None, seed: int) -> int:
    if n is None:
        raise RequestError("n: how many images? give n, or seeds")
    count = _checked_integer("n", n, least=0)
    if _checked_integer("seed", seed, least=0) > 2**64 - max(count, 1):
        raise RequestError(f"seed: found {seed} for {n} images; seeds lie in 0 to 2**64 - 1")
    return count


def _check_device_name(device: str) -> None:
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise RequestError(f"device {device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:<n>'")
