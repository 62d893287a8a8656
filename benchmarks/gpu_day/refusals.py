"""What is refused, in the words that a user sees: each wrong call with its message.

A row holds if the call ends with one of the project's errors, not with a traceback, and not well.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganinfer import Sampler
from ganinfer.backends._cuda import compute_capability
from ganinfer.backends.onnxruntime import installed
from ganinfer.backends.tensorrt import TensorRTBackend
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.errors import BackendUnavailable, Ending, GanError
from gantrain.game.config import load_config
from gantrain.training.train import train
from gpu_day import simulated
from gpu_day.day import Day, Fails, Skip, Values
from gpu_day.given import bundle, dataset
from gpu_day.road import bundle_of, run_of

Call = Callable[[], object]
ROOT = Path(__file__).resolve().parents[2]
GAN = "from ganexport.cli.gan import main; main()"


def run(day: Day) -> None:
    path = bundle_of(day, "digits")
    opened = partial(Sampler, path)
    calls: dict[str, Call] = {
        'device "cuda:7"': partial(opened, backend="onnxruntime", device="cuda:7"),
        'device "gpu"': partial(opened, device="gpu"),
        "a precision that the bundle lacks": partial(opened, device=day.device, precision="int8"),
        "TensorRT on a CPU": partial(opened, backend="tensorrt", device="cpu"),
        "onnxruntime's TensorRT on a CPU": partial(
            opened, backend="onnxruntime_tensorrt", device="cpu"
        ),
        "onnxruntime without CUDA": partial(without_cuda, path),
        "TensorRT that is not installed": partial(without_tensorrt, day),
        "a target that TensorRT-RTX lacks": partial(unknown_target, day),
        "more images on the device than a batch": partial(too_many, day, path),
        'training on "cuda:7"': partial(trained, day, "cuda:7"),
        "an engine for another card": partial(engine, day, target="sm75"),
        "an engine of another version": partial(engine, day, version="9.9.9.9"),
        "an engine of another system": partial(engine, day, platform="windows-amd64"),
        "a damaged engine": partial(damaged_engine, day),
        "no memory for an engine": partial(no_memory_for_an_engine, day),
        "sampling, the memory used up": partial(sampling_without_memory, day),
        "training, a batch that does not fit": partial(training_without_memory, day),
    }
    for name, call in calls.items():
        day.row(name, partial(refused, call))
    lines = {
        "gan sample --device cuda:7": ["sample", str(path), "--device", "cuda:7"],
        "gan bench --device cuda:7": ["bench", str(path), "--device", "cuda:7"],
        "gan verify --backend tensorrt": ["verify", str(path), "--backend", "tensorrt"],
    }
    for name, arguments in lines.items():
        day.row(name, partial(refused_by_command, arguments))
    day.row("gan sample, the GPU hidden", partial(refused_by_command, hidden(path), gpus=""))


def hidden(path: Path) -> list[str]:
    return ["sample", str(path), "--device", "cuda", "--backend", "onnxruntime"]


def refused(call: Call) -> Values:
    """The message of a call.

    Raises:
        Fails: it goes well, or ends otherwise than with an error of the project's.
    """
    try:
        call()
    except Skip:
        raise
    except GanError as error:
        return {"message": str(error), "error": type(error).__name__}
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Fails(f"a traceback: {text}", {"message": text}) from error
    raise Fails("it was not refused", {})


def refused_by_command(arguments: list[str], *, gpus: str | None = None) -> Values:
    """The same of the `gan` command, in a process of its own."""
    environment = dict(os.environ, COLUMNS="300")
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    done = subprocess.run(
        [sys.executable, "-c", GAN, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=50,
    )
    said = " ".join((done.stdout + done.stderr).split())
    values = {"message": said[-500:], "exit_code": done.returncode}
    if "Traceback" in said:
        raise Fails("a traceback", values)
    if done.returncode != Ending.UNAVAILABLE:
        raise Fails(f"exit code {done.returncode}, not {Ending.UNAVAILABLE:d}", values)
    return values


def without_cuda(path: Path) -> None:
    if "CUDAExecutionProvider" in installed()[1]:
        raise Skip("this onnxruntime has CUDA")
    Sampler(path, backend="onnxruntime", device="cuda")


def without_tensorrt(day: Day) -> None:
    if find_spec("tensorrt"):
        raise Skip("tensorrt is installed")
    options = ExportOptions(tensorrt=True, product="tensorrt")
    export_run(run_of(day, "digits"), day.cache / "refused.gan", options)


def unknown_target(day: Day) -> None:
    if not find_spec("tensorrt_rtx"):
        raise Skip("tensorrt_rtx is not installed")
    options = ExportOptions(targets=["sm90"], product="tensorrt_rtx", num_images=1000)
    export_run(run_of(day, "digits"), day.cache / "refused.gan", options)


def too_many(day: Day, path: Path) -> None:
    """On a CPU, too, the limit is the batch."""
    try:
        sampler = Sampler(path, backend="onnxruntime", device=day.device, batch_size=8)
    except BackendUnavailable as error:
        raise Skip(str(error)) from None
    with sampler:
        sampler.sample_on_device(9)


def trained(day: Day, device: str, *options: str) -> None:
    data = dataset(day, "digits")
    given = [f"data.path={data}", f"train.device={device}", "train.total_kimg=1", *options]
    train(load_config(Path("dcgan-digits"), given), day.cache / "runs" / "refused")


def engine(day: Day, *, plan: bytes | None = None, **changed: Any) -> None:
    """Open an engine whose entry, or plan, is another: a real one, or on the simulated GPU."""
    path = bundle_of(day, "digits")
    with Bundle(path) as opened:
        model = opened.manifest.model
        if not day.on_card:
            entry, graph = simulated.an_engine(**changed), opened.read_graph("fp32")
            with simulated.gpu():
                TensorRTBackend(graph, entry, model, "auto").close()
            return
        if not opened.manifest.engines:
            raise Skip("there is no engine: TensorRT is not installed, or has none for this card")
        entry = opened.manifest.engines[0]
        compute_capability(entry.product)  # without cuda-python another refusal comes first
        fields = entry.model_dump() | changed
        content = opened.read(entry.path) if plan is None else plan
        TensorRTBackend(content, type(entry)(**fields), model, "cuda").close()


def damaged_engine(day: Day) -> None:
    if not day.on_card:
        raise Skip("needs a GPU: a plan is read by the real library")
    engine(day, plan=b"damaged" * 1000)


def no_memory_for_an_engine(day: Day) -> None:
    """On the simulated GPU; a real one: `sampling_without_memory`."""
    if day.on_card:
        raise Skip("of the simulated GPU")
    with Bundle(bundle_of(day, "digits")) as opened, simulated.gpu() as cuda:
        cuda.failures["cudaMalloc"] = type(cuda).cudaError_t.cudaErrorMemoryAllocation
        graph, model = opened.read_graph("fp32"), opened.manifest.model
        TensorRTBackend(graph, simulated.an_engine(), model, "auto")


def sampling_without_memory(day: Day) -> None:
    """Something else holds all but 300 MiB of the GPU."""
    if not day.on_card:
        raise Skip("needs a GPU")
    path = bundle(day, "biggan-32")
    free = torch.cuda.mem_get_info(0)[0]
    held = torch.empty(free - 300 * 2**20, dtype=torch.uint8, device="cuda")
    try:
        with Sampler(path, backend="onnxruntime", device="cuda", batch_size=4096) as sampler:
            backend = sampler._runner.backends[0]
            backend.run(draw_inputs(sampler._model, range(4096), None))
    except BackendUnavailable as error:
        if "built without" in str(error):
            raise Skip(str(error)) from None
        raise
    finally:
        del held
        torch.cuda.empty_cache()


def training_without_memory(day: Day) -> None:
    if not day.on_card:
        raise Skip("needs a GPU")
    wide = ["model.generator.width=1024", "model.discriminator.width=1024"]
    trained(day, "cuda", "train.batch_size=65536", *wide)
