"""What a generator's graph takes for a batch of images, and how a seed becomes it.

N images, Z latent, K classes; L styles of length D.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.latents import Seeds, draw_labels, draw_latents, is_number, seed_array
from ganinfer.errors import RequestError

if TYPE_CHECKING:
    from ganinfer.drawing.model import Model

ClassInput = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """One batch.

    Attributes:
        z: float32 (N, Z).
        y: int64 (N,), or float32 (N, K) of a graph that takes weights; None if there are no
            classes.
        truncation: float32 (N,); None if the graph has no such input.
        w: styles float32 (N, L, D); None if the graph takes none.
        takes_w: float32 (N,), with w: 1 where it is taken as it is, 0 where z is mapped.
    """

    z: NDArray[np.float32]
    y: ClassInput | None = None
    truncation: NDArray[np.float32] | None = None
    w: NDArray[np.float32] | None = None
    takes_w: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.z)

    def feed(self) -> dict[str, NDArray[Any]]:
        """The inputs that there are, by their names in the graph."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Classes int64 (N,): y itself, or what its rows weigh most."""
        if self.y is None:
            return None
        classes = self.y.argmax(axis=1) if self.y.ndim == 2 else self.y
        return classes.astype(np.int64, copy=False)

    def rows(self, start: int, stop: int) -> "Inputs":
        """Images start to stop."""
        return Inputs(**{name: array[start:stop] for name, array in self.feed().items()})

    def padded(self, n: int) -> "Inputs":
        """As many images as n, the last ones copies of the first."""
        missing = n - len(self)
        if missing <= 0:
            return self
        return Inputs(
            **{
                name: np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
                for name, array in self.feed().items()
            }
        )

    @classmethod
    def joined(cls, parts: Sequence["Inputs"]) -> "Inputs":
        """One batch after the other."""
        if len(parts) == 1:
            return parts[0]
        feeds = [part.feed() for part in parts]
        return cls(**{name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})


@dataclass(frozen=True)
class Wanted:
    """Images that are known by their seeds, not drawn yet.

    Attributes:
        keys: uint64 (N,).
        numbers: int64 (N,), the classes asked for, or float32 (N, K), mixtures of them; None lets
            each seed draw its own.
        truncation, mode: as `Sampler.sample` takes them.
    """

    keys: Seeds
    numbers: ClassInput | None
    truncation: float | None = None
    mode: str | None = None

    def rows(self, start: int, stop: int) -> "Wanted":
        """Images start to stop."""
        if stop - start == len(self.keys):
            return self
        numbers = None if self.numbers is None else self.numbers[start:stop]
        return Wanted(self.keys[start:stop], numbers, self.truncation, self.mode)


def draw_wanted(model: "Model", parts: Sequence[Wanted | Inputs]) -> Inputs:
    """The inputs of several requests, one after the other.

    What is drawn alike is drawn together: for a few images the time goes by calls, not numbers.
    """
    if len(parts) == 1:
        (part,) = parts
        return part if isinstance(part, Inputs) else _drawn(model, [part])
    alike: dict[tuple[float | None, str | None, bool], list[int]] = {}
    drawn: dict[int, Inputs] = {}
    for n, part in enumerate(parts):
        if isinstance(part, Inputs):
            drawn[n] = part
        else:
            own = (part.truncation, part.mode, part.numbers is None)
            alike.setdefault(own, []).append(n)
    for places in alike.values():
        group = [part for part in (parts[n] for n in places) if isinstance(part, Wanted)]
        inputs, start = _drawn(model, group), 0
        if len(group) == len(parts):
            return inputs
        for n, part in zip(places, group, strict=True):
            drawn[n] = inputs.rows(start, start + len(part.keys))
            start += len(part.keys)
    return Inputs.joined([drawn[n] for n in range(len(parts))])


def _drawn(model: "Model", alike: Sequence[Wanted]) -> Inputs:
    """The inputs of requests that differ in seeds and labels alone."""
    first, numbers = alike[0], None
    keys = _joined([part.keys for part in alike])
    if first.numbers is not None:
        numbers = _joined([class_input(model, part.numbers) for part in alike])
    return draw_inputs(model, keys, labels_of(model, keys, numbers), first.truncation, first.mode)


def labels_of(model: "Model", keys: Seeds, numbers: ClassInput | None) -> ClassInput | None:
    """The classes asked for, or those that the seeds draw; None in an unconditional model."""
    if numbers is None and model.classes:
        return draw_labels(keys, len(model.classes))
    return numbers


def _joined(parts: list[Any]) -> Any:
    """Arrays one after the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def draw_inputs(
    model: "Model",
    seeds: Seeds | Sequence[int] | range,
    y: ClassInput | None,
    truncation: float | None = None,
    mode: str | None = None,
) -> Inputs:
    """Latents of seeds, in a truncation that the model has.

    Args:
        model: what the bundle says of it.
        seeds: integers in [0, 2**64), one an image.
        y: see `class_input`.
        truncation: see `Sampler.sample`; None for that of the training.
        mode: one of the model's; its first by default.

    Raises:
        RequestError: a truncation that the model does not have.
    """
    keys = seed_array(seeds)
    mode = _checked_mode(model, truncation, mode)
    of_latents = truncation if truncation is not None and mode != "network" else None
    z = draw_latents(
        keys,
        model.z_dim,
        distribution=model.z_distribution,
        truncation=model.default_truncation if of_latents is None else of_latents,
        truncation_mode="resample" if of_latents is None else mode,
    )
    inputs = Inputs(z, class_input(model, y), truncation_input(model, len(keys), truncation))
    return without_styles(model, inputs)


def without_styles(model: "Model", inputs: Inputs) -> Inputs:
    """The same images, of z: what the graph's inputs "w" and "takes_w" get if it has them."""
    if model.style_input is None:
        return inputs
    n, shape = len(inputs), (model.style_input.num_styles, model.style_input.w_dim)
    w = np.zeros((n, *shape), np.float32)
    return replace(inputs, w=w, takes_w=np.zeros(n, np.float32))


def of_styles(model: "Model", w: NDArray[np.float32]) -> Inputs:
    """Images of styles w (N, L, D); z, y and truncation are there, and count for nothing."""
    n, num_classes = len(w), len(model.classes)
    y = class_input(model, np.zeros(n, np.int64)) if num_classes else None
    z = np.zeros((n, model.z_dim), np.float32)
    return Inputs(z, y, truncation_input(model, n, None), w, np.ones(n, np.float32))


def class_input(model: "Model", y: ClassInput | None) -> ClassInput | None:
    """What the graph's input "y" gets: int64 (N,), or float32 (N, K) if it takes weights.

    Args:
        model: what the bundle says of it.
        y: classes int64 (N,), or, if the graph takes them, weights float32 (N, K); None if there
            are no classes.
    """
    if y is None or y.ndim == 2 or model.class_input == "index":
        return y
    one_hot: NDArray[np.float32] = np.eye(len(model.classes), dtype=np.float32)[y]
    return one_hot


def truncation_input(
    model: "Model", n: int, truncation: float | None
) -> NDArray[np.float32] | None:
    """What the graph's input "truncation" gets for n images, (N,); None if it has none.

    Raises:
        RequestError: the network was not made for it.
    """
    taken = model.truncation_input
    if taken is None:
        return None
    value = taken.untruncated if truncation is None else truncation
    if not is_number(value) or not taken.least <= value <= taken.largest:
        raise RequestError(
            f"truncation {value}: this generator was exported for {taken.least:g} to"
            f" {taken.largest:g}; choose one in between, or leave it out"
        )
    return np.full(n, value, np.float32)


def _checked_mode(model: "Model", truncation: float | None, mode: str | None) -> str:
    if truncation is not None and not model.truncation_modes:
        raise RequestError(
            f"truncation {truncation}: this model's {model.z_distribution} latent has none;"
            " leave truncation out"
        )
    if mode is not None and mode not in model.truncation_modes:
        raise RequestError(
            f"truncation_mode {mode!r}: this model has"
            f" {', '.join(model.truncation_modes) or 'none'}"
        )
    return mode or (model.truncation_modes[0] if model.truncation_modes else "resample")
