"""In what form a network takes latents and labels, and gives images; found by trying it.

The forms that authors use -> one: z float32 (N, Z), y int64 (N,), truncation float32 (N,), styles
-> images float32 (N, C, H, W) on [-1, 1]. N batch, Z latent, K classes.
"""

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ganexport.subjects.noise import Noise
from ganexport.subjects.spec import RANGES, Spec
from ganinfer.errors import ExportError

# Latents: what they are called in words, and how they are made of z (N, Z).
LATENTS: dict[str, Callable[[Tensor], Any]] = {
    "(N, Z)": lambda z: z,
    "(N, Z, 1, 1)": lambda z: z[:, :, None, None],
    "a list of one (N, Z)": lambda z: [z],
    "(N, 1, Z)": lambda z: z[:, None, :],
}
# Labels: of y (N,) and K.
LABELS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "int64 (N,)": lambda y, _: y,
    "one-hot float32 (N, K)": lambda y, k: nn.functional.one_hot(y, k).float(),
    "float32 (N, 1)": lambda y, _: y[:, None].float(),
}
_LABEL_NAMES = {"y", "c", "label", "labels", "class_id", "class_ids", "classes", "class_labels"}
_CHANNELS = (2, 1, 4, 3)  # of images, the likeliest last
_IMAGE_KEYS = ("image", "images", "img", "imgs", "rgb", "sample", "samples", "fake", "output")


@dataclass(frozen=True)
class Form:
    """How a network is called, and what of its output is the image.

    Attributes:
        latent: key of LATENTS. labels: key of LABELS, or None.
        labels_first: it takes y before z.
        pick: keys and indices that lead to the image; empty if the output is the image.
        layout: "nchw", "nhwc", or "flat" for (N, C H W).
        shape: (C, H, W).
        output_range: key of RANGES. channel_order: "rgb" or "bgr".
    """

    latent: str = "(N, Z)"
    labels: str | None = None
    labels_first: bool = False
    pick: tuple[str | int, ...] = ()
    layout: str = "nchw"
    shape: tuple[int, int, int] = (0, 0, 0)
    output_range: str = "-1:1"
    channel_order: str = "rgb"

    def call(self, network: nn.Module, z: Tensor, y: Tensor | None, *more: Tensor, k: int) -> Any:
        """What the network itself gives for z (N, Z), y (N,) of k classes, and what follows."""
        arguments = [LATENTS[self.latent](z)]
        if y is not None:
            assert self.labels is not None
            labels = LABELS[self.labels](y, k)
            labels = labels.to(z.dtype) if labels.is_floating_point() else labels
            arguments.insert(0 if self.labels_first else 1, labels)
        return network(*arguments, *more)

    def image(self, output: Any, dtype: torch.dtype) -> Tensor:
        """Of that the images (N, C, H, W) on [-1, 1], in RGB, in a type."""
        for key in self.pick:
            output = output[key]
        images: Tensor = output.to(dtype)
        if self.layout == "nhwc":
            images = images.permute(0, 3, 1, 2)
        elif self.layout == "flat":
            images = images.reshape(-1, *self.shape)
        if self.channel_order == "bgr":
            images = images[:, [2, 1, 0]]
        if self.output_range != "-1:1":
            scale, shift = (torch.tensor(v)[:, None, None] for v in RANGES[self.output_range])
            images = images * scale + shift
        return images

    def words(self, z_dim: int, num_classes: int) -> list[str]:
        """What is out of the ordinary, for the user to check."""
        plain, notes = Form(), []
        if self.latent != plain.latent:
            latent = self.latent.replace("Z", str(z_dim))
            notes.append(f"z is taken as {latent}")
        if self.labels is not None and self.labels != "int64 (N,)":
            notes.append(f"y is taken as {self.labels.replace('K', str(num_classes))}")
        if self.labels_first:
            notes.append("y is taken before z")
        if self.pick:
            place = "".join(f"[{key!r}]" for key in self.pick)
            notes.append(f"of what it gives, output{place} is the image")
        if self.layout != plain.layout:
            channels, height, width = self.shape
            notes.append(f"images are taken as {self.layout}: {height}x{width}x{channels}")
        if self.output_range != plain.output_range:
            notes.append(f"its values, {self.output_range}, are brought to [-1, 1] in the graph")
        if self.channel_order != plain.channel_order:
            notes.append("its channels, blue first, are turned to red, green, blue in the graph")
        return notes

    def unusual_shape(self) -> list[str]:
        """What is to be said of images that are not square, or neither grey nor RGB."""
        channels, height, width = self.shape
        if height == width and channels in (1, 3):
            return []
        planes = {2: ", two planes of no kind of picture", 4: ", taken as RGBA"}.get(channels, "")
        return [f"images are {height}x{width}x{channels} (height, width, channels){planes}"]


def more_arguments(spec: Spec, n: int) -> list[Tensor]:
    """What a network is called with after z and y for n images: no truncation, styles of z."""
    more = []
    if (taken := spec.truncation_input) is not None:
        more.append(torch.full((n,), taken.untruncated))
    if (styles := spec.style_input) is not None:
        more += [torch.zeros(n, styles.num_styles, styles.w_dim), torch.zeros(n)]
    return more


@torch.no_grad()
def find_form(network: nn.Module, spec: Spec, name: str, noise: Noise) -> Form:
    """Try the network with latents and labels in the forms that authors use.

    Args:
        network: in eval mode, float32.
        spec: what it does not say of itself.
        name: of the network, for messages.
        noise: that it takes.

    Raises:
        ExportError: it takes none of them, or gives no images; the message says what was tried.
    """
    num_classes = len(spec.class_names)
    z = torch.linspace(-1, 1, 2 * spec.z_dim).reshape(2, spec.z_dim)
    y = torch.tensor([0, num_classes - 1]) if num_classes else None
    more = [*noise.given(z), *more_arguments(spec, 2)]
    refusals: dict[Form, Exception] = {}
    others: list[str] = []
    for form in _candidates(network, num_classes):
        try:
            output = form.call(copy.deepcopy(network), z, y, *more, k=num_classes)
        except Exception as error:
            refusals[form] = error
            continue
        if found := _find_image(output, form):
            if found.shape[0] != 3 and spec.channel_order == "bgr":
                raise ExportError(
                    f"{name}: gives images of {found.shape[0]} channels, and channel_order bgr is"
                    " of three; leave it out"
                )
            if spec.output_range == "imagenet" and found.shape[0] != 3:
                raise ExportError(
                    f"{name}: gives images of {found.shape[0]} channels, and output_range imagenet"
                    f" is of RGB. {_wrapper('return the image on [-1, 1], and leave it out')}"
                )
            order, scale = spec.channel_order, spec.output_range or "-1:1"
            return replace(found, output_range=scale, channel_order=order)
        others.append(f"{_described(output)} for z as {form.latent}")
    if others:
        raise ExportError(
            f"{name}: gives {others[0]}; expected images (N, C, H, W) of 1 to 4 channels, or flat"
            f" ones, square, grey or RGB. {_wrapper('return the image, as (N, C, H, W)')}"
        )
    raise ExportError(_refusal(network, spec, name, refusals))


def embedded_classes(network: nn.Module) -> list[int]:
    """How many classes its embeddings have, the fewest first."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Embedding)]
    return sorted({layer.num_embeddings for layer in layers})


def _candidates(network: nn.Module, num_classes: int) -> Iterator[Form]:
    """Forms to try, the likeliest first."""
    first = _labels_first(network)
    latents = list(LATENTS)
    if not num_classes:
        yield from (Form(latent=latent) for latent in latents)
        return
    for latent, labels in itertools.product(latents, LABELS):
        yield Form(latent=latent, labels=labels, labels_first=first)


def _parameters(network: nn.Module) -> list[inspect.Parameter]:
    """Of forward, as far as they can be told."""
    try:
        return list(inspect.signature(network.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _labels_first(network: nn.Module) -> bool:
    """Do the names of its arguments say that labels come before latents?"""
    names = [parameter.name for parameter in _parameters(network)]
    return len(names) > 1 and names[0].lower() in _LABEL_NAMES and names[1] not in _LABEL_NAMES


def _find_image(output: Any, form: Form) -> Form | None:
    """The form, with where in an output the image is; None if there is none."""
    found = [
        replace(form, pick=pick, layout=placed[0], shape=placed[1])
        for pick, tensor in _tensors(output)
        if (placed := _as_image(tensor))
    ]

    def rank(candidate: Form) -> tuple[bool, bool, int, int]:
        channels, height, width = candidate.shape
        named = bool(candidate.pick) and candidate.pick[-1] in _IMAGE_KEYS
        return candidate.layout != "flat", named, height * width, _CHANNELS.index(channels)

    return max(found, key=rank, default=None)  # the first of the best


def _tensors(output: Any, pick: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Tensor]]:
    """The tensors of an output, and the keys that lead to them."""
    if isinstance(output, Tensor):
        yield pick, output
    elif isinstance(output, dict):
        for key, value in output.items():
            yield from _tensors(value, (*pick, key))
    elif isinstance(output, list | tuple):
        for number, value in enumerate(output):
            yield from _tensors(value, (*pick, number))


def _as_image(tensor: Tensor) -> tuple[str, tuple[int, int, int]] | None:
    """Layout and shape (C, H, W) of two images, if that is what a tensor is."""
    shape = tuple(tensor.shape)
    if not tensor.is_floating_point() or len(shape) < 2 or shape[0] != 2:
        return None
    if len(shape) == 4:
        _, a, b, c = shape
        readings = [("nchw", (a, b, c))] if a in _CHANNELS else []
        # (2, 512, 4, 4) is no image, 512 high and 4 wide, but a map of 512 channels.
        if c in _CHANNELS and (readings or a == b or min(a, b) > max(_CHANNELS)):
            readings.append(("nhwc", (c, a, b)))
        return max(readings, key=lambda r: (r[1][0] in (1, 3), r[1][1] == r[1][2]), default=None)
    if len(shape) == 2:
        for channels in (1, 3):
            size = round((shape[1] / channels) ** 0.5)
            if size >= 4 and channels * size * size == shape[1]:
                return "flat", (channels, size, size)
    return None


def _refusal(network: nn.Module, spec: Spec, name: str, refusals: dict[Form, Exception]) -> str:
    """What to say of a network that takes none of the forms."""
    form, error = next(iter(refusals.items()))
    takes = f"z float32 (2, {spec.z_dim})"
    if form.labels:
        takes += f" and y = 0 and {len(spec.class_names) - 1}"
    text = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
    message = f"{name}: does not take {takes}: {said}."
    sizes = embedded_classes(network)
    if spec.class_names and sizes and len(spec.class_names) not in sizes:
        return (
            f"{message} It embeds {' or '.join(map(str, sizes))} classes, and"
            f" {len(spec.class_names)} were named; set classes to what it embeds"
        )
    more = needed_arguments(network)[1:]
    if not spec.class_names and (sizes or _LABEL_NAMES & {name.lower() for name in more}):
        return f"{message} Does it take classes? set classes to their number or names"
    if more and not spec.class_names:
        return (
            f"{message} Its forward needs {', '.join(more)} as well, which no bundle gives."
            " A noise is named by its shape, as in noise_shape=[1,32,32]."
            f" {_wrapper('call the network with what it needs')}"
        )
    tried = ", ".join(dict.fromkeys(tried.latent for tried in refusals))
    return (
        f"{message} z was tried as {tried}; look at z_dim and classes, or wrap it."
        f" {_wrapper('call the network as it wants to be called')}"
    )


def needed_arguments(network: nn.Module) -> list[str]:
    """The arguments that forward cannot do without."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = _parameters(network)
    return [p.name for p in parameters if p.default is p.empty and p.kind in positional]


def _described(output: Any) -> str:
    """As in "torch.float32 (2, 3, 4, 8)"."""
    if isinstance(output, Tensor):
        return f"{output.dtype} {tuple(output.shape)}"
    parts = [f"{tensor.dtype} {tuple(tensor.shape)}" for _, tensor in _tensors(output)]
    return f"{type(output).__name__} of {', '.join(parts[:4]) or 'no tensors'}"


def _wrapper(what: str) -> str:
    """Three lines that make any network one of ours."""
    return (
        "A wrapper: class G(torch.nn.Module) whose __init__ makes the network and whose"
        f" forward(self, z) has to {what}"
    )
