"""What a caller asks for, checked before any work: counts, seeds, labels, latents.

N images, Z latent, K classes; L styles of length D.
"""

import functools
import math
import mmap
import re
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import ClassInput
from ganinfer.drawing.latents import Seeds, is_number, seed_array
from ganinfer.drawing.mixing import Mixture, checked_weights, is_mixed, mix
from ganinfer.drawing.reading import AnyArray, described, read, single
from ganinfer.errors import RequestError
from ganinfer.lookup import suggest

if TYPE_CHECKING:
    from ganinfer.drawing.model import Model, StyleInput

_LARGE = 1 << 18  # bytes

Label = int | str
SeedList = Sequence[int] | AnyArray | None
Labels = Label | Mixture | Sequence[Label | Mixture] | AnyArray | None
Steps = int | Sequence[float] | AnyArray


def seeds_asked(n: int | None, seed: int, seeds: SeedList) -> Seeds:
    """The seeds (N,) of `seeds`, or of n images from `seed` on.

    Raises:
        RequestError: they do not fit together, or are no seeds.
    """
    if seeds is None:
        first = checked_integer("seed", seed, least=0)
        return seed_array(range(first, first + checked_count(n, first)))
    keys = seed_array(seeds).copy()  # the caller may go on with an array of theirs
    if n is not None and checked_integer("n", n, least=0) != len(keys):
        raise RequestError(f"n is {n}, and {len(keys)} seeds were given; leave n out")
    return keys


def numbers_asked(model: "Model", labels: Labels, n: int) -> ClassInput | None:
    """Labels as the caller gives them -> int64 (N,), or float32 (N, K) of mixtures.

    None lets each seed draw its own.

    Raises:
        RequestError: a label that the model does not have, or another number of them.
    """
    return None if labels is None else _classes(model, "labels", labels, n)


def checked_labels(model: "Model", y: Labels, n: int) -> ClassInput | None:
    """Classes of a caller's own latents, int64 (N,), or weights of classes, float32 (N, K).

    Raises:
        RequestError: wrong shape, type or values, or none where the model has classes.
    """
    num_classes = len(model.classes)
    if (y is None) != (num_classes == 0):
        expected = f"integers (N,) in [0, {num_classes})" if num_classes else "None"
        raise RequestError(f"y: found {type(y).__name__}; this model expects {expected}")
    return None if y is None else _classes(model, "y", y, n)


def _classes(model: "Model", name: str, given: Any, n: int) -> ClassInput:
    """One class or mixture for all images, or one for each; or weights (N, K)."""
    if isinstance(given, int | str | np.integer):
        return np.full(n, class_number(model, given), np.int64)
    if not model.classes:
        raise _no_classes(name)
    num_classes = len(model.classes)
    if isinstance(given, Mapping):
        number = functools.partial(class_number, model)
        return np.broadcast_to(mix(model, [given], number), (n, num_classes))
    array = read(name, given)
    if array.ndim == 0 and isinstance(label := array.item(), int | str):
        return np.full(n, class_number(model, label), np.int64)
    if array.shape == (n, num_classes) and array.dtype.kind in "fiu":
        return checked_weights(model, array)
    if array.ndim != 1 or array.dtype.kind not in "iuUO":
        raise RequestError(
            f"{name}: found {described(array)}; expected a class number or name, or one for each"
            " image"
        )
    if len(array) != n:
        raise RequestError(f"{name}: found {len(array)} for {n} images; give one, or one for each")
    labels = array.tolist()
    if array.dtype.kind in "iu":
        if n and not (min(labels) >= 0 and max(labels) < num_classes):
            found = " to ".join(map(str, sorted({min(labels), max(labels)})))
            raise RequestError(
                f"{name}: found {found}; expected 0 to {num_classes - 1}, for"
                f" {', '.join(model.classes)}"
            )
        return array.astype(np.int64)
    if array.dtype.kind == "O" and is_mixed(labels):
        return mix(model, labels, functools.partial(class_number, model))
    return np.array([class_number(model, label) for label in labels], np.int64)


def class_number(model: "Model", label: Any) -> int:
    """The number in [0, K) of a class, from it or its name.

    Raises:
        RequestError: there is no such class.
    """
    classes = model.classes
    if not isinstance(label, int | str | np.integer):
        label = single("label", label)
    if not classes:
        raise _no_classes(f"label {label!r}")
    if isinstance(label, str):
        if label not in classes:
            raise RequestError(
                f"label {str(label)!r}: there is no such class; {suggest(label, classes)}"
            )
        return classes.index(label)
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise RequestError(f"label {label!r}: expected a class number or name")
    if not 0 <= label < len(classes):
        raise RequestError(
            f"label {label}: expected 0 to {len(classes) - 1}, for {', '.join(classes)}"
        )
    return int(label)


def _no_classes(what: str) -> RequestError:
    return RequestError(f"{what}: this model has no classes; leave labels out")


def gives_each(labels: Labels) -> bool:
    """Is it one class for each image, not one for all, nor None?"""
    if labels is None or isinstance(labels, int | str | Mapping):
        return False
    return getattr(labels, "ndim", 1) != 0  # a tensor, or a number of NumPy


def places_asked(steps: Steps) -> NDArray[np.float64]:
    """Where images lie on a way, (N,) in [0, 1], from their number or from a list of these.

    Raises:
        RequestError: one image, or a place that is not on the way.
    """
    array = read("steps", steps)
    if not array.ndim:
        return np.linspace(0.0, 1.0, checked_integer("steps", steps, least=2))
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise RequestError(
            f"steps: found {described(array)}; expected how many images, or a list of where they"
            " lie, from 0 to 1"
        )
    beside = ~((array >= 0) & (array <= 1))
    if beside.any():
        raise RequestError(f"steps: found {array[beside][0]:g}; expected places from 0 to 1")
    return array.astype(np.float64)


def labels_in_turn(labels: Labels) -> list[Any]:
    """Classes or mixtures that are repeated in turn; one is a list of one.

    Raises:
        RequestError: there are none, or they have rows.
    """
    if isinstance(labels, Mapping):
        return [labels]
    array = read("labels", labels)
    if array.ndim > 1 or not array.size:
        found = described(array) if array.size else "none"
        raise RequestError(f"labels: found {found}; give a class or several, or leave labels out")
    return array.reshape(-1).tolist()


def checked_latents(model: "Model", z: AnyArray | Sequence[Any]) -> NDArray[np.float32]:
    """A caller's own latents, finite float32 (N, Z), of floats (N, Z) that `read` takes.

    Raises:
        RequestError: wrong shape, type or values.
    """
    array = read("z", z)
    if array.ndim != 2 or array.shape[1] != model.z_dim or array.dtype.kind != "f":
        raise RequestError(f"z: found {described(array)}; expected float32 (N, {model.z_dim})")
    return _finite("z", array, "latents")


def checked_styles(model: "Model", w: AnyArray | Sequence[Any]) -> NDArray[np.float32]:
    """A caller's own styles, finite float32 (N, L, D), from (N, L, D), or (N, D) for all L.

    Raises:
        RequestError: the graph takes none; wrong shape, type or values.
    """
    taken = check_takes_styles(model)
    array, length = read("w", w), taken.w_dim
    if array.ndim == 2 and array.shape[1] == length:
        array = np.repeat(array[:, None], taken.num_styles, axis=1)
    if array.shape[1:] != (taken.num_styles, length) or array.dtype.kind != "f":
        raise RequestError(
            f"w: found {described(array)}; expected float32 (N, {taken.num_styles},"
            f" {length}), or (N, {length}) for the same style everywhere"
        )
    return _finite("w", array, "styles")


def _finite(name: str, array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Floats of any width as float32."""
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(numbers).all():
        raise RequestError(f"{name}: holds NaN or infinite values; expected finite float32 {what}")
    return numbers


def check_takes_styles(model: "Model") -> "StyleInput":
    """What a graph says of its w.

    Raises:
        RequestError: it takes none.
    """
    if model.style_input is None:
        raise RequestError(
            f"w: this bundle's generator ({model.family}) takes none; StyleGANs do, once they are"
            " exported with this version: gan export --from stylegan2, or stylegan3"
        )
    return model.style_input


def checked_out(model: "Model", out: Images | None, n: int) -> Images | None:
    """A caller's buffer for n images, if there is one.

    Raises:
        RequestError: wrong shape or type, or not writeable in one piece.
    """
    if out is None:
        return None
    shape = model.image_shape(n)
    fits = isinstance(out, np.ndarray) and out.shape == shape and out.dtype == np.uint8
    if not fits or not out.flags.c_contiguous or not out.flags.writeable:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise RequestError(f"out: found {found}; expected a writeable, contiguous uint8 {shape}")
    return out


def room_for(shape: tuple[int, ...]) -> Images:
    """A new array; a large one is a mapping of its own, which goes back to the system when freed.

    The C library keeps what one thread allocates and another frees: hundreds of MB under load.
    """
    size = math.prod(shape)
    if size < _LARGE or not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.empty(shape, np.uint8)
    try:
        room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(str(error)) from None
    return np.frombuffer(room, np.uint8).reshape(shape)


def checked_duration(name: str, value: float) -> float:
    """A finite time.

    Raises:
        RequestError: something else.
    """
    if not (is_number(value) and 0 <= value < threading.TIMEOUT_MAX):
        raise RequestError(f"{name}: found {value!r}; expected a finite number, 0 or more")
    return float(value)


def checked_integer(name: str, value: Any, *, least: int) -> int:
    """An integer that is large enough; also NumPy's, or a tensor's of no axes.

    Raises:
        RequestError: something else.
    """
    number = value if isinstance(value, int) else single(name, value)
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise RequestError(f"{name}: found {number!r}; expected an integer, {least} or more")
    return int(number)


def checked_count(n: int | None, seed: int) -> int:
    """How many images, whose seeds begin with `seed`.

    Raises:
        RequestError: no count, or the seeds end before.
    """
    if n is None:
        raise RequestError("n: how many images? give n, or seeds")
    count = checked_integer("n", n, least=0)
    if checked_integer("seed", seed, least=0) > 2**64 - max(count, 1):
        raise RequestError(f"seed: found {seed} for {count} images; seeds lie in 0 to 2**64 - 1")
    return count


def checked_devices(device: str | Sequence[str]) -> list[str]:
    """One device, or several of a pool, by name.

    Raises:
        RequestError: a name that is none.
    """
    if not isinstance(device, str | Sequence):
        raise RequestError(f"device {device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:<n>'")
    names = [device] if isinstance(device, str) else list(device)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
            raise RequestError(f"device {name!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:<n>'")
    if not names:
        raise RequestError("device: none was named; expected 'auto', 'cpu', 'cuda' or 'cuda:<n>'")
    return names
