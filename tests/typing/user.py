"""What users write against the SDK; `mypy --strict` must find nothing in it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import ganexport
import gantrain
from ganexport import ExportOptions, Spec, export, export_run
from ganinfer import Sampler, encode_png, grid, save_png
from gantrain import evaluate, load_config, train


def sample(path: Path, names: list[str], how: Literal["numpy", "pil"], latents: bool) -> None:
    with Sampler(path, device=["cpu"]) as sampler:
        images = sampler.sample(4, labels=names)
        assert_type(images, NDArray[np.uint8])
        sampler.sample(4, output="pil")[0].save("x.png")
        assert_type(sampler.sample(4, return_latents=True)[1], NDArray[np.float32])
        pictures, z = sampler.sample(4, output="pil", return_latents=True)
        pictures[0].save("x.png")
        sampler.generate(z, [1, 2, 3, 4])
        sampler.generate(z, np.array([1, 2, 3, 4]))
        sampler.sample(4, output=how)
        sampler.sample(4, return_latents=latents)
        sampler.sample(seeds=range(4))
        sampler.sample(seeds=np.arange(4))
        sampler.sample(2, labels=np.array(["a", "b"]))
        sampler.sample(2, labels=[{"3": 0.5, "8": 0.5}, 1])
        options = {"labels": 3, "truncation": 0.5}
        sampler.sample(2, **options)
        sampler.sample(2, lables=3)  # type: ignore[call-overload]
        assert_type(sampler.submit(3, seed=4, timeout_s=1.0).result(), NDArray[np.uint8])
        for batch in sampler.stream(100, 10):
            batch.sum()
        save_png("x.png", grid(images))
        save_png(Path("x.png"), grid(images))


def open_from(url: str, content: bytes, file: BinaryIO, text: TextIO) -> None:
    for place in (url, content, file, io.BytesIO(content), memoryview(content)):
        Sampler(place).close()
    Sampler(text)  # type: ignore[arg-type]


class Column:
    """What a type checker sees of a column of pandas."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.arange(3)


class Shared:
    """What it sees of an array of CuPy or JAX."""

    def __dlpack__(self, *, stream: int | None = None, copy: bool | None = None) -> object:
        return np.arange(3).__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return np.arange(3).__dlpack_device__()


def whatever(
    sampler: Sampler,
    columns: list[Column | Shared | torch.Tensor | NDArray[Any]],
    numbers: Sequence[int] | None,
    labels: list[str] | list[int] | Sequence[str | int] | np.int64 | None,
    mixture: dict[str, float],
    mixtures: list[dict[int, float]],
    options: dict[str, object],
    typed: dict[str, Any],
) -> None:
    """Variables, whose types are wider than those of literals."""
    for column in columns:
        sampler.submit(seeds=column, labels=column)
        sampler.generate(column, column)
        sampler.synthesize(column)
        encode_png(column)
        for batch in sampler.stream(3, labels=column):
            save_png("x.png", batch[0])
    sampler.submit(seeds=numbers, labels=labels)
    sampler.submit(3, labels=mixture)
    sampler.submit(3, labels=mixtures)
    sampler.interpolate(3, 8, 5, label=mixture, to_label="8")
    sampler.interpolate(3, 8, [0.25, 0.5])
    sampler.interpolate(3, 8, 0.5)  # type: ignore[arg-type]
    sampler.generate([[0.0, 1.0], [0.0, 1.0]], "3")
    sampler.generate(torch.zeros(2, 2), labels)
    sampler.sample(2, **options)
    sampler.sample(2, **typed)
    sampler.submit(2, **typed)
    sampler.stream(2, **typed)
    sampler.submit(2, labels=1.5)  # type: ignore[arg-type]
    sampler.submit(seeds={1, 2})  # type: ignore[arg-type]
    sampler.generate(3)  # type: ignore[arg-type]


async def asample(sampler: Sampler) -> NDArray[np.uint8]:
    return await sampler.asample(3, labels="3", truncation=0.5)


async def serve(path: Path, z: NDArray[np.float32]) -> None:
    async with await Sampler.open(path, device="cpu", watch=True) as sampler:
        assert_type(sampler, Sampler)
        assert_type(await sampler.agenerate(z, [3], timeout_s=1.0), NDArray[np.uint8])
        await sampler.ainterpolate(3, 8, 5, label="3", space="z")
        async for batch in sampler.astream(100, 10, labels=3):
            batch.sum()
        assert_type(sampler.reload(), bool)
        sampler.astream(100, lables=3)  # type: ignore[call-arg]
    await Sampler.open(path, threds=3)  # type: ignore[call-arg]


def ship(module: nn.Module, run: Path) -> None:
    config = load_config(Path("dcgan-digits"), ["train.total_kimg=5"])
    assert_type(config, gantrain.Config)
    train(config, run)
    assert_type(evaluate(run, metrics=["fid"]).values, dict[str, float])
    options = ExportOptions(precisions=["fp32"], num_images=1000)
    assert_type(export_run(run, Path("x.gan"), options), ganexport.Exported)
    export(module, Spec(z_dim=8, classes=["a", "b"]), Path("y.gan"), options)
    ExportOptions(precision=["fp32"])  # type: ignore[call-arg]
    ganexport.exprot()  # type: ignore[attr-defined]
