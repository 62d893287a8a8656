"""Requests out of what callers ask for; all of it is checked before any work.

N images, Z latent, K classes; L styles of length D.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.arguments import (
    Label,
    Labels,
    SeedList,
    Steps,
    checked_count,
    checked_duration,
    checked_integer,
    checked_labels,
    checked_latents,
    checked_out,
    checked_styles,
    gives_each,
    numbers_asked,
    places_asked,
    room_for,
    seeds_asked,
)
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import (
    Inputs,
    Wanted,
    class_input,
    draw_inputs,
    labels_of,
    of_styles,
    truncation_input,
    without_styles,
)
from ganinfer.drawing.latents import lerp, seed_array, slerp
from ganinfer.drawing.mixing import Mixture, check_mixable
from ganinfer.drawing.reading import AnyArray
from ganinfer.errors import RequestError
from ganinfer.lookup import suggest
from ganinfer.scheduler.request import Request
from ganinfer.scheduler.stats import Stats

if TYPE_CHECKING:
    from ganinfer.drawing.model import Model

Latents = NDArray[np.float32]

P = ParamSpec("P")
R = TypeVar("R")


class Chosen(TypedDict, total=False):
    """Keyword arguments that choose images; `Sampler.sample` says what they mean."""

    seed: int
    seeds: SeedList
    labels: Labels
    truncation: float | None
    truncation_mode: str | None


class Served(TypedDict, total=False):
    """Keyword arguments that say where images go, and until when."""

    out: Images | None
    timeout_s: float | None


class Asked(Chosen, Served, total=False):
    """Both."""


class Way(TypedDict, total=False):
    """Keyword arguments of `Sampler.interpolate`."""

    label: Label | Mixture | None
    to_label: Label | Mixture | None
    truncation: float | None
    truncation_mode: str | None
    space: str
    timeout_s: float | None


class Streamed(TypedDict, total=False):
    """Keyword arguments of `Sampler.stream`."""

    seed: int
    labels: Labels
    truncation: float | None
    truncation_mode: str | None
    timeout_s: float | None


def check_names(method: str, given: Mapping[str, object], taken: type, *more: str) -> None:
    """Refuse keyword arguments that a method does not take, under its own name.

    Args:
        method: of Sampler. given: its keyword arguments.
        taken: the TypedDict of those that it takes. more: that it takes besides.

    Raises:
        TypeError: there is such a one.
    """
    known = taken.__optional_keys__  # type: ignore[attr-defined]
    if given.keys() <= known:
        return
    name = next(name for name in given if name not in known)
    raise TypeError(
        f"Sampler.{method}(): no argument {name!r}; {suggest(name, [*more, *sorted(known)])}"
    )


def _counted(make: Callable[Concatenate["Asking", P], R]) -> Callable[Concatenate["Asking", P], R]:
    """The same, and each refusal is counted."""

    @functools.wraps(make)
    def counted(self: "Asking", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return make(self, *args, **kwargs)
        except RequestError:
            self.stats.invalid()
            raise

    return counted


class Asking:
    """Makes the requests of one model.

    All raise RequestError for what the model cannot serve.

    Attributes:
        stats: where what was refused is counted.
    """

    def __init__(self, model: "Model", max_images: int) -> None:
        """max_images: of a request, at most."""
        self.model, self.max_images, self.stats = model, max_images, Stats()

    @_counted
    def of_seeds(
        self,
        n: int | None,
        *,
        out: Images | None = None,
        timeout_s: float | None = None,
        **chosen: Unpack[Chosen],
    ) -> Request:
        """As `Sampler.sample` takes them."""
        if n is not None:
            self._check_size(checked_integer("n", n, least=0))  # before its seeds are made
        try:
            wanted = self._wanted(n, **chosen)
            return self._request(wanted, len(wanted.keys), out, timeout_s)
        except (MemoryError, OverflowError):
            raise RequestError(
                f"n: found {n}; so many images at once do not fit into memory; use stream"
            ) from None

    @_counted
    def wanted(self, n: int | None, **chosen: Unpack[Chosen]) -> Wanted:
        """As `Sampler.mapped` takes them: what chooses images."""
        return self._wanted(n, **chosen)

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
        self._check_truncation(truncation, truncation_mode)
        keys = seeds_asked(n, seed, seeds)
        numbers = numbers_asked(self.model, labels, len(keys))
        return Wanted(keys, numbers, truncation, truncation_mode)

    @_counted
    def of_latents(
        self,
        z: AnyArray | Sequence[Sequence[float]],
        y: Labels = None,
        *,
        truncation: float | None = None,
        **served: Unpack[Served],
    ) -> Request:
        """As `Sampler.generate` takes them."""
        z = checked_latents(self.model, z)
        if truncation is not None and self.model.truncation_input is None:
            raise RequestError(
                f"truncation {truncation}: this generator does not take it; truncate z instead"
            )
        truncations = truncation_input(self.model, len(z), truncation)
        classes = class_input(self.model, checked_labels(self.model, y, len(z)))
        return self._of_inputs(Inputs(z, classes, truncations), **served)

    @_counted
    def of_styles(self, w: AnyArray, **served: Unpack[Served]) -> Request:
        """As `Sampler.synthesize` takes them."""
        return self._of_styles(w, **served)

    def _of_styles(self, w: AnyArray, **served: Unpack[Served]) -> Request:
        return self._of_inputs(of_styles(self.model, checked_styles(self.model, w)), **served)

    @_counted
    def of_way(
        self,
        seed_a: int,
        seed_b: int,
        steps: Steps,
        *,
        mapped: Callable[[Wanted], NDArray[np.float32]],
        label: Label | Mixture | None = None,
        to_label: Label | Mixture | None = None,
        truncation: float | None = None,
        truncation_mode: str | None = None,
        space: str = "z",
        timeout_s: float | None = None,
    ) -> Request:
        """As `Sampler.interpolate` takes them; mapped: makes styles."""
        if space not in ("z", "w"):
            raise RequestError(f"space {space!r}: expected 'z' or 'w'")
        t, keys = places_asked(steps), seed_array([seed_a, seed_b])
        self._check_truncation(truncation, truncation_mode)
        own = labels_of(self.model, keys[:1], numbers_asked(self.model, label, 1))
        last = own if to_label is None else numbers_asked(self.model, to_label, 1)
        start, end = class_input(self.model, own), class_input(self.model, last)
        if space == "w":
            numbers = None if start is None else np.concatenate([start, end])
            w = mapped(Wanted(keys, numbers, truncation, truncation_mode))
            return self._of_styles(lerp(w[0], w[1], t), timeout_s=timeout_s)
        ends = draw_inputs(self.model, keys, None, truncation, truncation_mode).z
        path = (slerp if self.model.z_distribution == "normal" else lerp)(ends[0], ends[1], t)
        y = start
        if to_label is not None:
            check_mixable(self.model)
            assert start is not None
            assert end is not None
            y = lerp(start[0], end[0], t)
        elif start is not None:
            y = start.repeat(len(t), axis=0)
        inputs = Inputs(path, y, truncation_input(self.model, len(t), truncation))
        return self._of_inputs(inputs, timeout_s=timeout_s)

    @_counted
    def of_stream(
        self,
        n: int,
        batch_size: int = 64,
        *,
        seed: int = 0,
        labels: Labels = None,
        truncation: float | None = None,
        truncation_mode: str | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Request]:
        """As `Sampler.stream` takes them: checked now, each made when it is asked for."""
        seed = checked_integer("seed", seed, least=0)
        end = seed + checked_count(n, seed)
        batch_size = min(checked_integer("batch_size", batch_size, least=1), max(end - seed, 1))
        self._check_size(batch_size)
        one_each = gives_each(labels)
        numbers = numbers_asked(self.model, labels, end - seed if one_each else batch_size)
        self._check_truncation(truncation, truncation_mode)

        def request(start: int) -> Request:
            stop = min(start + batch_size, end)
            part = numbers
            if numbers is not None:
                first = start - seed if one_each else 0
                part = numbers[first : first + stop - start]
            wanted = Wanted(seed_array(range(start, stop)), part, truncation, truncation_mode)
            return self._request(wanted, stop - start, timeout_s=timeout_s)

        return map(request, range(seed, end, batch_size))

    def _check_truncation(self, truncation: float | None, mode: str | None) -> None:
        if truncation is not None or mode is not None:
            draw_inputs(self.model, [], None, truncation, mode)

    def _of_inputs(
        self, inputs: Inputs, out: Images | None = None, timeout_s: float | None = None
    ) -> Request:
        """Of inputs, which may lack styles."""
        inputs = without_styles(self.model, inputs) if inputs.w is None else inputs
        return self._request(inputs, len(inputs), out, timeout_s)

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
        out = checked_out(self.model, out, n)
        return Request(wanted, room_for(self.model.image_shape(n)), out, deadline)

    def _check_size(self, n: int) -> None:
        if n > self.max_images:
            raise RequestError(
                f"n: found {n}; at most {self.max_images} images at once, for the sake of memory:"
                " use stream, or open with a larger max_queue_images"
            )
