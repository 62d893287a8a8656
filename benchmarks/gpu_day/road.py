"""The road on the device: train, evaluate, export, verify, sample, each against the CPU.

What the docs promise to the bit is compared to the bit: latents, labels, which real images are
drawn, and on a CPU the weights of a run that was stopped. Images and FID have a tolerance.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganinfer import Sampler, draw_latents
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.golden import pixel_differences
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import BackendUnavailable
from ganinfer.verify import verify_host
from gantrain.data.dataset import Dataset, RealBatches
from gantrain.evaluation.evaluate import evaluate
from gantrain.game.config import Config, load_config
from gantrain.runs.checkpoint import load_generator
from gantrain.runs.samples import generate
from gantrain.training.train import train
from gpu_day.day import Day, Fails, Skip, Values, check
from gpu_day.given import dataset, export_with_engines, note_of
from gpu_day.simulated import engine_against_onnxruntime

RECIPES = {"digits": ("dcgan-digits", 60), "mnist": ("dcgan-mnist", 120)}  # kimg on a card
CPU_KIMG = 1.28
# sha256 of 1,000 latents of 128 numbers, and of 10,000 labels of ten classes, on any machine.
LATENTS = "bb7c8d3cf8fb33e8e8bdd3d8fb541aa215ad8b21d77246cc2a3b3b0ea8956fe4"
LABELS = "7824cf577b2065595b0677358f6c146c4bab1f4f1c0ccac787dc9c22a8f7534c"
MOST_STEPS = {"fp32": 1, "fp16": 2}  # of uint8, as golden images may differ


def run(day: Day) -> None:
    day.row("latents", latents)
    day.row("labels", labels)
    for name in RECIPES:
        try:
            dataset(day, name)
        except Skip as reason:
            day.row(name, partial(skipped, str(reason)))
            continue
        of_dataset(day, name)
    if not day.on_card:
        day.row(
            "an engine on a simulated GPU",
            lambda: engine_against_onnxruntime(bundle_of(day, "digits")),
        )


def of_dataset(day: Day, name: str) -> None:
    """All steps on one dataset; a step makes what it needs of those before, if it is not there."""
    day.row(f"{name}: real images", lambda: real_images(day, name))
    day.row(f"{name}: train", lambda: trained(day, name), limit_s=120)
    day.row(f"{name}: stopped and resumed", lambda: resumed(day, name), limit_s=120)
    day.row(f"{name}: images of the run", lambda: images_of_the_run(day, name))
    limit_s = 120 if day.on_card else 300
    day.row(f"{name}: evaluate", lambda: evaluated(day, name), limit_s=limit_s)
    day.row(f"{name}: export", lambda: exported(day, name), limit_s=120)
    day.row(f"{name}: engines", lambda: engines(day, name))
    day.row(f"{name}: verify", lambda: verified(day, name), limit_s=60)
    for backend in ("onnxruntime", "tensorrt", "onnxruntime_tensorrt"):
        for precision in ("fp32", "fp16"):
            day.row(
                f"{name}: sample, {backend} {precision}",
                lambda b=backend, p=precision: sampled(day, name, b, p),
            )
    day.row(f"{name}: images that stay on the device", lambda: on_device(day, name))


def skipped(why: str) -> Values:
    raise Skip(why)


def latents() -> Values:
    z = draw_latents(range(1000), 128)
    return of_bytes(z, LATENTS)


def labels() -> Values:
    return of_bytes(draw_labels(range(10_000), 10), LABELS)


def of_bytes(array: np.ndarray, expected: str) -> Values:
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return check(digest == expected, found=digest[:16], allowed=f"{expected[:16]}, to the bit")


def recipe(day: Day, name: str, device: str) -> Config:
    file, kimg = RECIPES[name]
    kimg = kimg if day.on_card else CPU_KIMG
    return load_config(
        Path(file),
        [
            f"data.path={dataset(day, name)}",
            f"train.device={device}",
            f"train.total_kimg={kimg}",
            f"train.checkpoint_kimg={kimg / 2}",
            f"train.log_kimg={kimg / 4}",
            f"train.sample_kimg={kimg}",
        ],
    )


def run_of(day: Day, name: str) -> Path:
    """The run on the device; trained, or finished, where it is not."""
    folder = day.cache / "runs" / name
    assert train(recipe(day, name, day.device), folder).finished
    return folder


def bundle_of(day: Day, name: str) -> Path:
    path = day.cache / f"{name}.gan"
    if not path.exists():
        run, options = run_of(day, name), ExportOptions(num_images=2000 if day.on_card else 1000)
        export_with_engines(day, path, options, partial(export_run, run, path))
    return path


def real_images(day: Day, name: str) -> Values:
    """Batches that the device draws are those of the CPU."""
    data = Dataset(dataset(day, name))
    devices = (torch.device(day.device), torch.device("cpu"))
    found, expected = (RealBatches(data, 64, seed=5, device=d, mirror=True) for d in devices)
    same = 0
    for _ in range(50):
        (real, y), (true, labels) = found.next(), expected.next()
        same += torch.equal(real.cpu(), true) and torch.equal(y.cpu(), labels)
    return check(same == 50, found=f"{same} of 50 batches equal", allowed="all, to the bit")


def trained(day: Day, name: str) -> Values:
    config, speeds = recipe(day, name, day.device), []
    folder = day.cache / "runs" / name
    outcome = train(
        config, folder, on_progress=lambda p: speeds.append(p.images_per_s * p.is_record)
    )
    seen = f"{outcome.images_seen} images seen"
    return check(
        outcome.finished, found=seen, allowed="finished", images_per_s=max(speeds, default=0)
    )


def resumed(day: Day, name: str) -> Values:
    """A run that was stopped half-way, against one that was not."""
    config = recipe(day, name, day.device)
    folder = day.cache / "runs" / f"{name}-stopped"
    steps = iter(range(10**9))
    half = config.train.total_images // config.train.batch_size // 2
    train(config, folder, should_stop=lambda: next(steps) >= half)
    assert train(config, folder).finished
    found, expected = (load_generator(f).network.state_dict() for f in (folder, run_of(day, name)))
    largest = max(float((found[key] - expected[key]).abs().max()) for key in expected)
    allowed = "any: reported" if day.on_card else "0, to the bit"
    return check(day.on_card or largest == 0, found=largest, allowed=allowed)


def images_of_the_run(day: Day, name: str) -> Values:
    """Torch on the device against torch on the CPU, the same weights, seeds and labels."""
    network = load_generator(run_of(day, name)).network
    y = draw_labels(range(64), 10)
    expected = generate(network, range(64), y)
    found = generate(network.to(day.device), range(64), y, device=day.device)
    return compared(found, expected, 1)


def compared(found: np.ndarray, expected: np.ndarray, most: int) -> Values:
    steps, share, psnr = pixel_differences(found, expected)
    return check(
        steps <= most,
        found=f"{steps} steps",
        allowed=f"<= {most} of 255",
        share_of_pixels=share,
        psnr_db=psnr,
    )


def evaluated(day: Day, name: str) -> Values:
    """FID with all networks on the device and on the CPU, each with a classifier of its own.

    Of digits alone: on the CPU a classifier of MNIST takes a minute.
    """
    found = fid(day, name, day.device, "device")
    if name != "digits":
        return check(found < float("inf"), found=found, allowed="finite")
    expected = fid(day, name, "cpu", "cpu")
    # The classifiers were trained apart, by other kernels, from the same weights.
    off = abs(found / expected - 1)
    return check(
        off <= 0.1, found=f"{off:.2%} apart", allowed="<= 10 %", on_device=found, on_cpu=expected
    )


def fid(day: Day, name: str, device: str, place: str) -> float:
    """On a device; what was measured is kept apart for each place, or nothing would be compared."""
    record = evaluate(
        run_of(day, name),
        metrics=["fid"],
        num_images=2000 if day.on_card else 500,
        device=device,
        cache=day.cache / f"fid-{place}",
    )
    return record.scores["fid"].value


def exported(day: Day, name: str) -> Values:
    with Bundle(bundle_of(day, name)) as opened:
        manifest = opened.manifest
    passed = sum(gate.passed for gate in manifest.parity)
    return check(
        passed == len(manifest.parity) > 0 and manifest.verified,
        found=f"{passed} of {len(manifest.parity)} gates",
        allowed="all",
        precisions=", ".join(graph.precision for graph in manifest.graphs),
    )


def engines(day: Day, name: str) -> Values:
    """Those that the export built, and proved on this card."""
    path = bundle_of(day, name)
    if (note := note_of(path)).exists():
        raise Fails(note.read_text(), {})
    with Bundle(path) as opened:
        entries = opened.manifest.engines
    if not entries:
        raise Skip("TensorRT is not installed" if day.on_card else "needs a GPU")
    pending = [f"{e.product} {e.precision} {e.target}" for e in entries if e.status == "pending"]
    return check(
        not pending,
        found=", ".join(pending) or "none pending",
        allowed="none pending",
        engines=", ".join(f"{e.product} {e.version} {e.precision} {e.target}" for e in entries),
    )


def verified(day: Day, name: str) -> Values:
    gates = verify_host(bundle_of(day, name), device=day.device)
    failed = [f"{gate.artifact}: {gate.gate}: {gate.detail}" for gate in gates if not gate.passed]
    return check(not failed, found="; ".join(failed) or f"{len(gates)} passed", allowed="all pass")


def sampled(day: Day, name: str, backend: str, precision: str) -> Values:
    """A backend on the device against onnxruntime on the CPU; and batches of other sizes."""
    path, y = bundle_of(day, name), draw_labels(range(100), 10)
    with Sampler(path, backend="onnxruntime", device="cpu", precision="fp32") as sampler:
        expected = sampler.sample(100, labels=y)
    try:
        opened = Sampler(path, backend=backend, device=day.device, precision=precision)
    except BackendUnavailable as error:
        raise Skip(str(error)) from None
    with opened as sampler:
        whole = sampler.sample(100, labels=y)
        single = np.concatenate([sampler.sample(1, seed=n, labels=y[n]) for n in range(10)])
        details = {
            key: sampler.info[key]
            for key in ("backend", "device", "cuda_graphs")
            if key in sampler.info
        }
    if not day.on_card and not np.array_equal(single, whole[:10]):
        return check(False, found="another image in another batch", allowed="the same, to the bit")
    steps = int(np.abs(single.astype(int) - whole[:10]).max())
    return compared(whole, expected, MOST_STEPS[precision]) | {"alone_steps": steps} | details


def on_device(day: Day, name: str) -> Values:
    """What torch takes over without a copy is what the host gets."""
    try:
        opened = Sampler(bundle_of(day, name), backend="onnxruntime", device=day.device)
    except BackendUnavailable as error:
        raise Skip(str(error)) from None
    with opened as sampler:
        tensor = torch.from_dlpack(sampler.sample_on_device(16))
        values = compared(tensor.cpu().numpy(), sampler.sample(16), 1)
        return values | {"place": str(tensor.device)}
