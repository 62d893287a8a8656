"""What is exported: a generator, and what a bundle says of it, wherever it comes from."""

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganexport.graph import large
from ganexport.graph import tracing as graph
from ganexport.graph.class_weights import take_weights
from ganexport.subjects.adapted import Adapted, adapt
from ganexport.subjects.casting import cast, computes_in_float64, held_modules
from ganexport.subjects.contract import check_contract
from ganexport.subjects.forms import embedded_classes
from ganexport.subjects.spec import Spec
from ganexport.subjects.styled import psi_input, style_input, styled
from ganinfer.bundle.manifest import Source
from ganinfer.drawing.inputs import Inputs, draw_inputs
from ganinfer.drawing.model import Model
from ganinfer.errors import ExportError
from ganinfer.files import sha256_bytes
from gantrain.data.resolution import resolution_of, size_of
from gantrain.models._base import DiscriminatorModule, StyledGenerator
from gantrain.models._derived import settle
from gantrain.runs.checkpoint import TrainedGenerator, load_discriminator


@dataclass(frozen=True, eq=False)
class Subject:
    """A generator to export; equal only to itself, so that what is drawn of it can be kept.

    Attributes:
        network: the reference, in eval mode, float32, on the CPU: z float32 (N, Z), if there are
            classes y int64 (N,), if it takes them truncation float32 (N,), styles w float32
            (N, L, D) and takes_w float32 (N,) -> float32 (N, C, H, W) on [-1, 1].
        model: what the bundle says it takes and gives.
        source: where it comes from.
        where: its name in messages.
        twin: makes the network that is traced: the same function, its weights plain.
        notes: what was chosen of it or found by trying, and is out of the ordinary, for the user
            to check.
        open_discriminator: loads the one that it was trained against, where there is one.
        data: where that lies which it was trained on, if that is known. labelled: False if labels
            that it may have were left out.
        scale_known: that its values are on [-1, 1] was said, or it was trained here.
    """

    network: nn.Module
    model: Model
    source: Source
    where: str
    twin: Callable[[], nn.Module] = field(repr=False)
    notes: tuple[str, ...] = ()
    open_discriminator: Callable[[], DiscriminatorModule] | None = field(default=None, repr=False)
    data: Path | None = None
    labelled: bool = True
    scale_known: bool = True

    @property
    def num_classes(self) -> int:
        """K, 0 if the network takes no y."""
        return len(self.model.classes)

    @cached_property
    def is_large(self) -> bool:
        """Are its weights too many for one ONNX file, and for copies of them?"""
        weights = (*self.network.parameters(), *self.network.buffers())
        return sum(weight.nbytes for weight in weights) > large.LARGEST

    @cached_property
    def precise(self) -> nn.Module | None:
        """The network in float64; None if its forward does not stay in it, or if it is large."""
        if self.is_large:
            return None
        network = cast(self.network, torch.float64)
        given = arguments_of(self.example, torch.float64)
        return network if computes_in_float64(network, *given) else None

    @property
    def example(self) -> Inputs:
        """Of one image, of the last class."""
        last = np.array([self.num_classes - 1]) if self.num_classes else None
        return draw_inputs(self.model, [0], last)

    def __call__(self, inputs: Inputs) -> Tensor:
        """The network's images, each of one class, in float32."""
        images: Tensor = self.network(*arguments_of(inputs, torch.float32))
        return images

    def precisely(self, inputs: Inputs) -> Tensor:
        """The same in float64, of a network that is `precise`."""
        assert self.precise is not None
        images: Tensor = self.precise(*arguments_of(inputs, torch.float64))
        return images

    def to_onnx(self, network: nn.Module) -> bytes:
        """The file of a network that takes and gives what this one does; see `graph.to_onnx`."""
        file = graph.to_onnx(
            network,
            z_dim=self.model.z_dim,
            num_classes=self.num_classes,
            truncation=self.model.truncation_input is not None,
            styles=self.model.style_input,
        )
        weights = self.model.class_input == "weights"
        return take_weights(file, self.num_classes) if weights else file


def arguments_of(inputs: Inputs, dtype: torch.dtype) -> list[Tensor]:
    """What a network is given, each image of one class, on the CPU."""
    feed = dataclasses.replace(inputs, y=inputs.labels).feed()
    given = (torch.from_numpy(array) for array in feed.values())
    return [value.to(dtype) if value.is_floating_point() else value for value in given]


def of_run(trained: TrainedGenerator) -> Subject:
    """A generator that gantrain trained.

    Raises:
        ExportError: it makes no images, but points.
    """
    network, config = trained.network, trained.config
    psi, styles = None, None
    if isinstance(network, StyledGenerator):
        psi, styles = psi_input(), style_input(network)
    if trained.channels not in (1, 3):
        raise ExportError(
            f"{trained.path}: gives points of {trained.channels} numbers; a bundle holds images"
        )
    model = _model(
        Spec(
            network.z_dim,
            trained.classes,
            network.z_distribution,
            config.train.truncation,
            truncation_input=psi,
            style_input=styles,
            family=config.model,
        ),
        size_of(trained.resolution),
        trained.channels,
    )
    source = Source(
        checkpoint_sha256=trained.sha256,
        images_seen=trained.images_seen,
        ema=True,
        dataset_sha256=trained.dataset_sha256,
        dataset_path=config.data.path,
        config=config.as_dict(),
    )
    return Subject(
        _with_inputs(network),
        model,
        source,
        str(trained.path),
        twin=lambda: _with_inputs(graph.bake(trained)),
        open_discriminator=lambda: load_discriminator(trained.path),
        data=trained.dataset_path,
        labelled=config.data.labels,
    )


def _with_inputs(network: nn.Module) -> nn.Module:
    """A StyledGenerator with psi and styles as inputs; any other as it is."""
    return styled(network) if isinstance(network, StyledGenerator) else network


def of_module(module: Any, spec: Any) -> Subject:
    """Any generator.

    Args:
        module: an nn.Module that takes latents, with classes labels, and what `spec` says of a
            truncation, in one of the forms that `ganexport.subjects.forms` knows, and gives images
            of 1 to 4 channels. It is copied, and left as it is.
        spec: a Spec, what it does not say of itself.

    Raises:
        ExportError: it takes or gives something else, or breaks the contract that the proof
            rests on; see `ganexport.subjects.contract`.
    """
    if not isinstance(module, nn.Module) or not isinstance(spec, Spec):
        wrong, kind = (spec, "Spec") if isinstance(module, nn.Module) else (module, "nn.Module")
        raise ExportError(f"found {type(wrong).__name__}; expected a {kind}")
    for layer, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ExportError(
                f"found a TorchScript program, of {part.original_name}"
                f"{f', as layer {layer}' if layer else ''}; expected the nn.Module that it was made"
                " from, without torch.jit"
            )
    name = type(module).__name__
    network = cast(module, torch.float32)
    for part in held_modules(network):
        part.eval().requires_grad_(False)
    form, noise = adapt(network, spec, name)
    source = Source(
        checkpoint_sha256=_sha256_of(network),
        images_seen=None,
        ema=None,
        dataset_sha256=None,
        dataset_path=None,
        config={},
    )
    num_classes = len(spec.class_names)
    notes = [*form.words(spec.z_dim, num_classes), *noise.words()]
    unusual = form.unusual_shape()

    def adapted(network: nn.Module) -> nn.Module:
        return Adapted(network, form, num_classes, noise) if notes else network

    images = check_contract(adapted(network), spec, name, pixels=math.prod(form.shape[1:]))
    return Subject(
        adapted(network),
        _model(spec, (images.shape[2], images.shape[3]), images.shape[1]),
        source,
        name,
        lambda: adapted(_plain(network)),
        (*notes, *unusual, *_unnamed_classes(network, num_classes), *spec.notes),
        scale_known=spec.output_range is not None,
    )


def _sha256_of(network: nn.Module) -> str:
    """Of its weights, as a safetensors file would have them."""
    state: dict[str, Tensor] = {}
    places: set[int] = set()
    for key, value in network.state_dict().items():
        whole = value.contiguous()
        place = whole.untyped_storage().data_ptr()
        # Such a file holds no two weights of the same memory.
        state[key] = whole.clone() if place in places else whole
        places.add(place)
    return sha256_bytes(save(state))


def _unnamed_classes(network: nn.Module, num_classes: int) -> list[str]:
    """What to say of a network that embeds more classes than were named."""
    sizes = embedded_classes(network)
    if not num_classes or not sizes or num_classes in sizes:
        return []
    return [f"it embeds {sizes[-1]} classes, and the first {num_classes} of them are named"]


def with_class_weights(subject: Subject) -> Subject:
    """The same generator, to be exported with a weight for each class instead of a class.

    Raises:
        ExportError: it has no classes.
    """
    if not subject.num_classes:
        raise ExportError(f"{subject.where}: has no classes to mix; leave --class-weights out")
    model = subject.model.model_copy(update={"class_input": "weights"})
    return dataclasses.replace(subject, model=model)


def _plain(network: nn.Module) -> nn.Module:
    """A copy whose weights, and what is derived of them, are plain tensors.

    torch's own removal works on the class, which a copy shares with its original.
    """
    twin = copy.deepcopy(network)
    for module in held_modules(twin):
        if parametrize.is_parametrized(module):
            values = {n: getattr(module, n).detach() for n in module.parametrizations}  # type: ignore[union-attr]
            module.__class__ = type(module).__bases__[0]
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))
        for key, hook in list(module._forward_pre_hooks.items()):
            if type(hook).__name__ in ("SpectralNorm", "WeightNorm"):
                hook(module, ())  # leaves the weight as it is used
                weight = getattr(module, hook.name).detach()  # type: ignore[attr-defined]
                del module._forward_pre_hooks[key]
                delattr(module, hook.name)  # type: ignore[attr-defined]
                for suffix in ("_orig", "_g", "_v"):
                    module._parameters.pop(hook.name + suffix, None)  # type: ignore[attr-defined]
                module.register_parameter(
                    hook.name,  # type: ignore[attr-defined]
                    nn.Parameter(weight, requires_grad=False),
                )
    settle(twin)
    return twin.eval()


def _model(spec: Spec, size: tuple[int, int], channels: int) -> Model:
    normal = spec.z_distribution == "normal"
    return Model(
        family=spec.family,
        resolution=resolution_of(size),
        channels=channels,  # type: ignore[arg-type]
        classes=spec.class_names,
        z_dim=spec.z_dim,
        z_distribution="normal" if normal else "uniform",
        truncation_modes=["network"]
        if spec.truncation_input
        else (["resample", "scale"] if normal else []),
        default_truncation=spec.truncation,
        truncation_input=spec.truncation_input,
        style_input=spec.style_input,
    )
