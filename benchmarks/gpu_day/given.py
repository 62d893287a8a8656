"""Datasets, networks and bundles that stages share, made in the cache where they are not there."""

import dataclasses
import traceback
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ganexport.options import ExportOptions
from ganexport.pipeline import export
from ganexport.subjects.spec import Spec
from gantrain.data.prepare import prepare
from gantrain.models import biggan, dcgan
from gantrain.models._base import GeneratorModule
from gantrain.training.standing import standing_statistics
from gpu_day.day import Day, Skip, in_a_line

NETWORKS: dict[str, tuple[Callable[[int], GeneratorModule], int]] = {  # of a width; classes
    "biggan-32": (lambda width: biggan.Generator(32, 3, 10, width=width), 10),
    "dcgan-64": (lambda width: dcgan.Generator(64, 3, 0, width=width), 0),
}


def dataset(day: Day, name: str) -> Path:
    """A prepared dataset: "digits", or one that was given: a prepared folder, or an npz or zip.

    Raises:
        Skip: it was not given.
    """
    made = day.cache / "data" / name
    if made.exists():
        return made
    if name == "digits":
        return prepare("digits", made, resolution=16).path
    if day.data and (day.data / name / "dataset.json").exists():
        return day.data / name
    for suffix in ("npz", "zip") if day.data else ():
        if (file := day.data / f"{name}.{suffix}").exists():
            return prepare(str(file), made).path
    raise Skip(f"{name} was not given: --data FOLDER with {name}.npz or a prepared {name}/")


def random_pictures(day: Day, resolution: int) -> Path:
    """A dataset for speed alone: 2,000 colour images of noise, ten classes."""
    made = day.cache / "data" / f"noise{resolution}"
    if made.exists():
        return made
    rng = np.random.default_rng(0)
    shape = (2000, resolution, resolution, 3)
    file = day.cache / f"noise{resolution}.npz"
    labels = np.arange(2000) % 10
    np.savez(file, images=rng.integers(0, 256, shape, np.uint8), labels=labels)
    return prepare(str(file), made).path


def network_of(day: Day, name: str) -> GeneratorModule:
    """One of NETWORKS, untrained, on a CPU in small; its batch norms have seen latents."""
    torch.manual_seed(0)
    build, _ = NETWORKS[name]
    network = build(64 if day.on_card else 8)
    standing_statistics(network, num_batches=8)
    return network.eval()


def bundle(day: Day, name: str) -> Path:
    """That network in fp32 and fp16, with engines where TensorRT is; unverified.

    Of these the speed is of interest; the road proves what it exports.
    """
    path = day.cache / f"{name}.gan"
    if not path.exists():
        network = network_of(day, name)
        spec = Spec(network.z_dim, [str(k) for k in range(NETWORKS[name][1])], family=name)
        make = partial(export, network, spec, path)
        export_with_engines(day, path, ExportOptions(verify=False), make)
    return path


def export_with_engines(
    day: Day, path: Path, options: ExportOptions, make: Callable[[ExportOptions], object]
) -> None:
    """Make a bundle, on a card with engines where TensorRT is; without them, if that fails.

    Why it failed stands in a note beside the bundle; it is written beforehand, since a library
    that has never run here may take the process with it.
    """
    note = note_of(path)
    if day.on_card and any(map(find_spec, ("tensorrt", "tensorrt_rtx"))) and not note.exists():
        note.write_text("the process ended while engines were made")
        try:
            make(dataclasses.replace(options, tensorrt=True))
        except Exception as error:
            traceback.print_exc()
            note.write_text(in_a_line(error))
        else:
            note.unlink()
            return
    make(options)


def note_of(path: Path) -> Path:
    return path.with_suffix(".no-engines")
