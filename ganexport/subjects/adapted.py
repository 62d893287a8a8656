"""A network behind one form: how it is called, what it gives, and what it gets for noise."""

from typing import Any

import torch
from torch import Tensor, nn

from ganexport.subjects.forms import Form, find_form, more_arguments, needed_arguments
from ganexport.subjects.noise import Noise, find_noise, likely_shapes
from ganexport.subjects.spec import Spec
from ganinfer.errors import ExportError

_BATCHES = (1, 4, 8, 16, 25, 32, 64, 100, 128, 256)  # that authors write as numbers


class Adapted(nn.Module):
    """A network that takes z, y if there are classes, and what else it takes, but no noise."""

    def __init__(self, network: nn.Module, form: Form, num_classes: int, noise: Noise) -> None:
        super().__init__()
        self.network, self._form, self._num_classes = network, form, num_classes
        self.noise = noise

    def forward(self, z: Tensor, *given: Tensor) -> Tensor:
        y, more = (given[0], given[1:]) if self._num_classes else (None, given)
        with self.noise.replacing():
            output = self._form.call(
                self.network, z, y, *self.noise.given(z), *more, k=self._num_classes
            )
        return self._form.image(output, z.dtype)


def adapt(network: nn.Module, spec: Spec, name: str) -> tuple[Form, Noise]:
    """Find by trying how a network is called, and what it needs or draws of noise.

    Args:
        network: in eval mode, float32.
        spec: what it does not say of itself.
        name: of the network, for messages.

    Raises:
        ExportError: it cannot be called; the message says what was tried.
    """
    off = spec.noise == "off"
    noise = Noise(spec.noise_shapes, listed=spec.noise_listed, off=off)
    asked = needed_arguments(network)[1 + bool(spec.class_names) :]
    if len(asked) == 1 and "noise" in asked[0].lower() and not (spec.noise_shapes or _more(spec)):
        form, noise = _probe(network, spec, name, asked[0])
    else:
        try:
            form = find_form(network, spec, name, noise)
        except ExportError:
            _refuse_fixed_batch(network, spec, name, noise)
            raise
    num_classes = len(spec.class_names)

    def call(count: int) -> Any:
        return _called(network, form, spec, noise, count)

    found = find_noise(call, name, shapes=noise.shapes, listed=noise.listed, off=off)
    if spec.noise != "fixed" and not (found.shapes or found.draws):
        raise ExportError(f"noise={spec.noise}: {name} takes no noise and draws none; leave it out")
    assert num_classes or form.labels is None
    return form, found


def _more(spec: Spec) -> bool:
    return spec.truncation_input is not None or spec.style_input is not None


def _probe(network: nn.Module, spec: Spec, name: str, argument: str) -> tuple[Form, Noise]:
    """A form with the smallest noise that fits."""
    for shape in likely_shapes():
        noise = Noise([shape], off=True)  # of the shape alone, which is quick
        try:
            return find_form(network, spec, name, noise), noise
        except ExportError:
            continue
    raise ExportError(
        f"{name}: its forward needs {argument}, and no (N, 1, H, H) or (N, H, H, 1) fits, H up to"
        " 1024. Say its shape for one image, noise_shape=[1,32,32], or of a list of them,"
        " noise_shape=[[1,4,4],[1,8,8]]; or look at z_dim and classes"
    )


def _called(network: nn.Module, form: Form, spec: Spec, noise: Noise, count: int) -> Any:
    """What a network gives for a number of images."""
    num_classes = len(spec.class_names)
    z = torch.linspace(-1, 1, count * spec.z_dim).reshape(count, spec.z_dim)
    y = torch.arange(count) % num_classes if num_classes else None
    more = [*noise.given(z), *more_arguments(spec, count)]
    return form.call(network, z, y, *more, k=num_classes)


@torch.no_grad()
def _refuse_fixed_batch(network: nn.Module, spec: Spec, name: str, noise: Noise) -> None:
    """Say so of a network that takes one number of images alone."""
    form = Form(labels="int64 (N,)" if spec.class_names else None)
    for count in (2, *_BATCHES):
        try:
            _called(network, form, spec, noise, count)
        except Exception:  # whatever a stranger's forward raises
            continue
        if count == 2:
            return
        raise ExportError(
            f"{name}: takes {count} latents at once, and not 2: forward makes a number of the batch"
            " size, as in view(64, ...); write z.shape[0], or -1 in view and reshape"
        )
