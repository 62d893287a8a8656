"""What a run may begin with: another run, a checkpoint, or weights as such."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ganinfer.errors import CheckpointError, RunNotFound
from ganinfer.files import sha256_file
from gantrain.models.stylegan2 import published_discriminator
from gantrain.pickle_networks import is_plain, read_snapshot
from gantrain.runs.checkpoint import State, is_checkpoint, load_newest

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Ancestor:
    """What was found there.

    Attributes:
        path, sha256: of the file. images_seen: how long it was trained; None if that is unknown.
        classes: that its networks know, by name; None if the names are unknown.
        ema, generator, discriminator: tensors by name; of weights as such, the first two are the
            same, and there may be no discriminator's.
        saved: the whole state of a checkpoint; None of weights as such.
        conv_clamp: that the layers of a StyleGAN2 of NVIDIA's were trained with, if any.
    """

    path: Path
    sha256: str
    images_seen: int | None
    classes: list[str] | None
    ema: Tensors
    generator: Tensors
    discriminator: Tensors
    saved: State | None
    conv_clamp: float | None = None


def open_ancestor(path: Path) -> Ancestor:
    """Read a run's newest checkpoint, one checkpoint, or weights as such.

    Args:
        path: the folder of a run, or a file: safetensors, or a `.pkl` of NVIDIA's StyleGAN2, of
            which nothing is run. Weights in safetensors are a generator's, unless their names begin
            with "generator." and "discriminator.".

    Raises:
        CheckpointError: there is nothing of that kind. No other pickle is opened.
    """
    if (path / "manifest.json").exists():
        raise CheckpointError(
            f"{path}: a bundle, which has graphs and no weights to train on; begin with the run"
            " that it was exported from"
        )
    if path.is_dir() or is_checkpoint(path):
        file, saved = load_newest(path)
        return Ancestor(
            path=file,
            sha256=sha256_file(file),
            images_seen=saved["images_seen"],
            classes=saved["dataset"]["classes"],
            ema=saved["ema"],
            generator=saved["generator"],
            discriminator=saved["discriminator"],
            saved=saved,
        )
    if path.suffix == ".pkl" and is_plain(path):
        return _of_snapshot(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        kind = RunNotFound if isinstance(error, FileNotFoundError) else CheckpointError
        raise kind(
            f"{path}: no weights to begin with ({error}); expected a run's folder, a checkpoint of"
            " it, a .safetensors file, or a .pkl of NVIDIA's StyleGAN2. Other pickles (.pt, .pth,"
            " .ckpt) may run code and are not opened here; save their tensors as safetensors"
        ) from None
    discriminator = _under("discriminator.", tensors)
    generator = _under("generator.", tensors) or ({} if discriminator else tensors)
    return _of_weights(path, generator, generator, discriminator)


def _of_snapshot(path: Path) -> Ancestor:
    networks = read_snapshot(path)
    ema, generator = (networks.get(key) for key in ("G_ema", "G"))
    discriminator = published_discriminator(networks.get("D", {}))
    found = _of_weights(path, ema or generator or {}, generator or ema or {}, discriminator)
    clamps = [clamp for network in networks.values() for clamp in network.every("conv_clamp")]
    numbers = [float(clamp) for clamp in clamps if isinstance(clamp, int | float) and clamp > 0]
    return replace(found, conv_clamp=min(numbers, default=None))


def _of_weights(path: Path, ema: Tensors, generator: Tensors, discriminator: Tensors) -> Ancestor:
    return Ancestor(
        path=path,
        sha256=sha256_file(path),
        images_seen=None,
        classes=None,
        ema=ema,
        generator=generator,
        discriminator=discriminator,
        saved=None,
    )


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
