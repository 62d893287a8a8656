"""What is exported: a generator, and what a bundle says of it, wherever it comes from."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganexport.graph import tracing as graph
from ganexport.graph.class_weights import take_weights
from ganinfer.bundle.manifest import Source
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.model import Model, TruncationInput
from ganinfer.errors import ExportError
from ganinfer.files import sha256_bytes
from gantrain.models._base import DiscriminatorModule
from gantrain.runs.checkpoint import TrainedGenerator, load_discriminator

LARGEST = 8.0  # what lies farther from [-1, 1] is on another scale


@dataclass(frozen=True)
class Spec:
    """What a network does not say of itself.

    Attributes:
        z_dim: Z, length of a latent.
        classes: names of the K classes; empty if the network takes no y.
        z_distribution: "normal", N(0, 1), or "uniform", U(-1, 1).
        truncation: of the latents it was trained with; for those who ask for none.
        truncation_input: if the network takes the truncation itself, after z and y, float32 (N,)
            (StyleGAN2's psi): its range. Latents are then left as they are.
        family: what it is called in the bundle.
    """

    z_dim: int
    classes: Sequence[str] = ()
    z_distribution: str = "normal"
    truncation: float | None = None
    truncation_input: TruncationInput | None = None
    family: str = "custom"


@dataclass(frozen=True, eq=False)
class Subject:
    """A generator to export; equal only to itself, so that what is drawn of it can be kept.

    Attributes:
        network: the reference, in eval mode, float32, on the CPU: z float32 (N, Z), if there are
            classes y int64 (N,), if it takes one truncation float32 (N,) -> float32 (N, C, H, W) on
            [-1, 1].
        model: what the bundle says it takes and gives.
        source: where it comes from.
        where: its name in messages.
        twin: makes the network that is traced: the same function, its weights plain.
        open_discriminator: loads the one that it was trained against, where there is one.
    """

    network: nn.Module
    model: Model
    source: Source
    where: str
    twin: Callable[[], nn.Module] = field(repr=False)
    open_discriminator: Callable[[], DiscriminatorModule] | None = field(default=None, repr=False)

    @property
    def num_classes(self) -> int:
        """K, 0 if the network takes no y."""
        return len(self.model.classes)

    def __call__(self, inputs: Inputs) -> Tensor:
        """The reference's images, each of one class."""
        feed = dataclasses.replace(inputs, y=inputs.labels).feed()
        images: Tensor = self.network(*(torch.from_numpy(array) for array in feed.values()))
        return images

    def to_onnx(self, network: nn.Module) -> bytes:
        """The file of a network that takes and gives what this one does; see `graph.to_onnx`."""
        file = graph.to_onnx(
            network,
            z_dim=self.model.z_dim,
            num_classes=self.num_classes,
            truncation=self.model.truncation_input is not None,
        )
        weights = self.model.class_input == "weights"
        return take_weights(file, self.num_classes) if weights else file


def of_run(trained: TrainedGenerator) -> Subject:
    """A generator that gantrain trained.

    Raises:
        ExportError: it makes no images, but points.
    """
    network, config = trained.network, trained.config
    if trained.channels not in (1, 3):
        raise ExportError(
            f"{trained.path}: {trained.channels} channels; a bundle holds grey or RGB images"
        )
    model = _model(
        Spec(
            network.z_dim,
            trained.classes,
            network.z_distribution,
            config.train.truncation,
            family=config.model,
        ),
        trained.resolution,
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
        network,
        model,
        source,
        str(trained.path),
        twin=lambda: graph.bake(trained),
        open_discriminator=lambda: load_discriminator(trained.path),
    )


def of_module(module: nn.Module, spec: Spec) -> Subject:
    """Any generator.

    Args:
        module: z float32 (N, Z), with classes y int64 (N,), and what `spec` says of a truncation
            -> float32 (N, C, H, W) on [-1, 1], square, grey or RGB. It is copied, and left as it
            is.
        spec: what it does not say of itself.

    Raises:
        ExportError: it does not take or give this, or gives other images each time.
    """
    name = type(module).__name__
    for part in module.modules():  # a weight that a hook computed cannot be copied with its graph
        for key, value in vars(part).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                vars(part)[key] = value.detach()
    network = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    images = _try(network, spec, name)
    state = {key: value.contiguous().clone() for key, value in network.state_dict().items()}
    source = Source(
        checkpoint_sha256=sha256_bytes(save(state)),
        images_seen=None,
        ema=None,
        dataset_sha256=None,
        dataset_path=None,
        config={},
    )
    model = _model(spec, images.shape[2], images.shape[1])
    return Subject(network, model, source, name, lambda: _plain(network))


def with_class_weights(subject: Subject) -> Subject:
    """The same generator, to be exported with a weight for each class instead of a class.

    Raises:
        ExportError: it has no classes.
    """
    if not subject.num_classes:
        raise ExportError(f"{subject.where}: has no classes to mix; leave --class-weights out")
    model = subject.model.model_copy(update={"class_input": "weights"})
    return dataclasses.replace(subject, model=model)


@torch.no_grad()
def _try(network: nn.Module, spec: Spec, name: str) -> Tensor:
    """Images of two latents, if they are what a generator gives."""
    z = torch.linspace(-1, 1, 2 * spec.z_dim).reshape(2, spec.z_dim)
    arguments, takes = [z], f"z float32 (2, {spec.z_dim})"
    if spec.classes:
        arguments.append(torch.zeros(2, dtype=torch.int64))
        takes += " and y int64 (2,)"
    if spec.truncation_input is not None:
        arguments.append(torch.full((2,), spec.truncation_input.untruncated))
        takes += " and truncation float32 (2,)"
    try:
        images, again = network(*arguments), network(*arguments)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        raise ExportError(
            f"{name}: does not take {takes}: {error}; look at z_dim and classes"
        ) from None
    expected = "float32 (2, 1 or 3, H, H) on [-1, 1]"
    if not isinstance(images, Tensor):
        raise ExportError(f"{name}: gives {type(images).__name__} for {takes}; expected {expected}")
    shape = tuple(images.shape)
    square = len(shape) == 4 and shape[0] == 2 and shape[1] in (1, 3) and shape[2] == shape[3]
    if not square or images.dtype != torch.float32:
        raise ExportError(f"{name}: gives {images.dtype} {shape} for {takes}; expected {expected}")
    if not torch.isfinite(images).all() or images.abs().max() > LARGEST:
        raise ExportError(
            f"{name}: values from {images.min():g} to {images.max():g}; expected {expected}: scale"
            " its output"
        )
    if not torch.equal(images, again):
        raise ExportError(
            f"{name}: other images for the same z; noise must be given or fixed, not drawn inside"
        )
    return images


def _plain(network: nn.Module) -> nn.Module:
    """A copy whose parametrized and spectrally normalised weights are plain tensors.

    torch's own removal works on the class, which a copy shares with its original.
    """
    twin = copy.deepcopy(network)
    for module in twin.modules():
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
    return twin.eval()


def _model(spec: Spec, resolution: int, channels: int) -> Model:
    normal = spec.z_distribution == "normal"
    return Model(
        family=spec.family,
        resolution=resolution,
        channels=1 if channels == 1 else 3,
        classes=list(spec.classes),
        z_dim=spec.z_dim,
        z_distribution="normal" if normal else "uniform",
        truncation_modes=["network"]
        if spec.truncation_input
        else (["resample", "scale"] if normal else []),
        default_truncation=spec.truncation,
        truncation_input=spec.truncation_input,
    )
