"""Images/s on this machine: training steps, and sampling by torch and by every backend that opens.

    python benchmarks/road.py --device cuda -o benchmarks/results/road-<machine>.json

All figures of one run come from one process, so that ratios mean something on a noisy machine.
The network is the DCGAN of configs/dcgan-mnist.toml at the width given, untrained: speed does not
depend on what weights say.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganinfer import Sampler
from ganinfer.errors import BackendUnavailable
from ganinfer.host.limits import usable_cpus
from gantrain.data.prepare import prepare
from gantrain.game.config import load_config
from gantrain.runs.checkpoint import load_generator
from gantrain.training.record import Progress
from gantrain.training.train import train

BATCHES = (1, 16, 64, 256)


def processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def images_per_s(draw: Callable[[int], object], batch: int, seconds: float = 2.0) -> float:
    """Median over repeated calls, after a warm-up."""
    for _ in range(3):
        draw(batch)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        draw(batch)
        times.append(time.perf_counter() - start)
    return round(batch / statistics.median(times), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--kimg", type=float, default=20)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    record: dict[str, object] = {
        "command": " ".join(sys.argv),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        "cpus": usable_cpus(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "network": f"DCGAN, digits at 32x32, width {options.width}, batch 64",
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare("digits", folder / "data", resolution=32)
        training: dict[str, float] = {}
        for precision in ("fp32", "bf16"):
            config = load_config(
                Path("dcgan-mnist"),
                [
                    f"data.path={folder / 'data'}",
                    f"model.generator.width={options.width}",
                    f"model.discriminator.width={options.width}",
                    f"train.device={options.device}",
                    f"train.precision={precision}",
                    f"train.total_kimg={options.kimg}",
                    f"train.log_kimg={options.kimg / 4}",
                ],
            )
            speeds: list[float] = []

            def note(progress: Progress, speeds: list[float] = speeds) -> None:
                if progress.is_record:
                    speeds.append(progress.images_per_s)

            train(config, folder / precision, on_progress=note)
            training[precision] = round(statistics.median(speeds[1:]), 1)
        record["training_images_per_s"] = training

        trained = load_generator(folder / "fp32")
        network = trained.network.to(device)

        def by_torch(batch: int) -> None:
            with torch.no_grad():
                z = torch.randn(batch, network.z_dim, device=device)
                y = torch.randint(10, (batch,), device=device)
                pixels = ((network(z, y) + 1) * 127.5).round().to(torch.uint8)
                pixels.permute(0, 2, 3, 1).cpu().numpy()

        sampling = {"torch eager fp32": {n: images_per_s(by_torch, n) for n in BATCHES}}
        engines = device.type == "cuda" and any(map(find_spec, ("tensorrt", "tensorrt_rtx")))
        bundle = export_run(
            folder / "fp32", folder / "x.gan", ExportOptions(num_images=1000, tensorrt=engines)
        ).path
        for backend in ("onnxruntime", "openvino", "tensorrt"):
            for precision in ("fp32", "fp16"):
                name = f"{backend} {precision}"
                try:
                    with Sampler(
                        bundle,
                        backend=backend,
                        device=options.device,
                        precision=precision,
                        batch_size=max(BATCHES),
                    ) as sampler:
                        sampling[name] = {n: images_per_s(sampler.sample, n) for n in BATCHES}
                except BackendUnavailable as error:
                    record[f"{name} refused"] = str(error)
        record["sampling_images_per_s_by_batch"] = sampling
    text = json.dumps(record, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
