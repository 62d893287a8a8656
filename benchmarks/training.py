"""Training images/s against the same networks in a plain script, and what the loop itself costs.

    python benchmarks/training.py --data data/cifar10 -o benchmarks/results/training-<machine>.json

The plain script is what research code does: eager float32, a DataLoader of PNG files with two
workers, upsampling before and pooling after each convolution, D on real and generated images, an
optimizer that is not fused. Its networks have the same weights and give the same images. Rounds
of both alternate in one process, so that their ratio means something on a noisy machine.
"""

import argparse
import copy
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from road import processor
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gantrain.data.dataset import Dataset, RealBatches
from gantrain.game.build import build_game, build_optimizer
from gantrain.game.config import Config, parse_config
from gantrain.game.parts import Game
from gantrain.models._layers import DownConv2d, UpConv2d
from gantrain.training.ema import Ema
from gantrain.training.record import Progress
from gantrain.training.summary import summarize
from gantrain.training.train import losses, train

ROUNDS = 5
REPORT_EVERY = 4  # steps; recipes report every 5,000 images
NETWORKS = {"biggan": ({"width": 64}, {"width": 64}), "dcgan": ({"width": 64}, {"width": 64})}
SETTINGS = {
    "fp32": {},
    "fp32 channels_last": {"channels_last": True},
    "bf16 channels_last": {"channels_last": True, "precision": "bf16"},
    "bf16 channels_last compiled": {
        "channels_last": True,
        "precision": "bf16",
        "compile": "on",
    },
}


class PngFolder(TorchDataset):
    """What `torchvision.datasets.ImageFolder` with ToTensor and Normalize gives."""

    def __init__(self, dataset: Dataset, folder: Path, count: int) -> None:
        assert dataset.labels is not None
        self.files = [folder / f"{n:05d}.png" for n in range(count)]
        self.labels = dataset.labels[:count].tolist()
        for n, file in enumerate(self.files):
            Image.fromarray(np.asarray(dataset.images[n])).save(file)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        return pixels.permute(2, 0, 1).float() / 127.5 - 1, self.labels[index]


@contextmanager
def plain_resampling() -> Iterator[None]:
    """Upsample, then convolve; convolve, then pool."""

    def up(self: UpConv2d, x: Tensor) -> Tensor:
        wide = functional.interpolate(x, scale_factor=2.0)
        return functional.conv2d(wide, self.weight, self.bias, padding=1)

    def down(self: DownConv2d, x: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.conv2d(x, self.weight, self.bias, padding=1), 2)

    fused = UpConv2d.forward, DownConv2d.forward
    UpConv2d.forward, DownConv2d.forward = up, down
    try:
        yield
    finally:
        UpConv2d.forward, DownConv2d.forward = fused


def recipe(
    data: Path,
    model: str,
    device: str,
    batch_size: int,
    *,
    networks: tuple[dict, dict] | None = None,
    **options: object,
) -> Config:
    """Hinge, spectral norm in both networks, one D step."""
    generator, discriminator = networks or NETWORKS[model]
    adam = {"name": "adam", "learning_rate": 2e-4, "betas": [0.0, 0.9]}
    tree = {
        "data": {"path": str(data)},
        "model": {"name": model, "generator": generator, "discriminator": discriminator},
        "objective": {"name": "hinge"},
        "regularizers": [{"name": "spectral_norm", "networks": ["generator", "discriminator"]}],
        "optimizer": {"generator": adam, "discriminator": adam},
        "train": {
            "total_kimg": 1e6,
            "batch_size": batch_size,
            "device": device,
            "log_kimg": REPORT_EVERY * batch_size / 1000,
            "sample_kimg": 1e6,
            "checkpoint_kimg": 1e6,
            **options,
        },
    }
    return parse_config(tree, where="benchmark")


def bare_step(
    config: Config, game: Game, data: Dataset, device: torch.device
) -> Callable[[], None]:
    """One step of the project's setting, with nothing around it."""
    options = config.train
    generator, discriminator = game.generator, game.discriminator
    if options.channels_last:
        for network in (generator, discriminator):
            network.to(memory_format=torch.channels_last)
    optimizers = [
        build_optimizer(config.generator_optimizer, generator),
        build_optimizer(config.discriminator_optimizer, discriminator),
    ]
    batches = RealBatches(data, options.batch_size, seed=0, device=device)
    ema = Ema(generator, half_life_kimg=10)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")
    discriminator_loss, generator_loss = losses(game, options)

    def step() -> None:
        real, y = batches.next()
        optimizers[1].zero_grad()
        with torch.no_grad(), autocast:
            fake = generator(game.draws.latents(generator, len(real)), y).float()
        with autocast:
            loss, _ = discriminator_loss(real, fake, y)
        loss.backward()
        optimizers[1].step()
        discriminator.requires_grad_(False)
        optimizers[0].zero_grad()
        with autocast:
            loss = generator_loss(game.draws.latents(generator, len(real)), y, real)
        loss.backward()
        optimizers[0].step()
        discriminator.requires_grad_(True)
        ema.update(generator, batch_size=len(real), images_seen=10_000)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def plain_step(game: Game, loader: DataLoader, device: torch.device) -> Callable[[], None]:
    """One step of the plain script."""
    generator, discriminator = game.generator, game.discriminator
    for_g = torch.optim.Adam(generator.parameters(), 2e-4, (0.0, 0.9), foreach=False)
    for_d = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.0, 0.9), foreach=False)
    ema = copy.deepcopy(generator)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    batches = endless()

    def step() -> None:
        with plain_resampling():
            real, y = (part.to(device) for part in next(batches))
            z = torch.randn(len(real), generator.z_dim, device=device)
            for_d.zero_grad()
            with torch.no_grad():
                fake = generator(z, y)
            real_logits, fake_logits = discriminator(real, y), discriminator(fake, y)
            loss = torch.relu(1 - real_logits).mean() + torch.relu(1 + fake_logits).mean()
            loss.backward()
            for_d.step()
            for_g.zero_grad()
            z = torch.randn(len(real), generator.z_dim, device=device)
            (-discriminator(generator(z, y), y).mean()).backward()
            for_g.step()
            with torch.no_grad():
                for average, value in zip(ema.parameters(), generator.parameters(), strict=True):
                    average.mul_(0.999).add_(value, alpha=0.001)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def seconds(step: Callable[[], None], num_steps: int) -> float:
    start = time.perf_counter()
    for _ in range(num_steps):
        step()
    return (time.perf_counter() - start) / num_steps


def loop_over_bare(
    config: Config, run: Path, bare: Callable[[], None], num_pairs: int = 12
) -> list[float]:
    """Seconds of REPORT_EVERY steps inside `train` over those of bare steps, again and again.

    They alternate, a bare group after each report, so that both see the same noise.
    """
    ratios: list[float] = []
    resumed_at: list[float] = []

    def on_progress(progress: Progress) -> None:
        if not progress.is_record:
            return
        now = time.perf_counter()
        if resumed_at:
            inside = (now - resumed_at[-1]) / REPORT_EVERY
            ratios.append(inside / seconds(bare, REPORT_EVERY))
        resumed_at.append(time.perf_counter())

    train(config, run, on_progress=on_progress, should_stop=lambda: len(ratios) >= num_pairs)
    return ratios[:num_pairs]  # stopping makes one more report, after fewer steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared CIFAR-10")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="in a round")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    data = Dataset(options.data)
    record: dict[str, object] = {
        "command": " ".join(sys.argv),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "batch_size": options.batch_size,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        loader = DataLoader(
            PngFolder(data, folder, 2000),
            batch_size=options.batch_size,
            shuffle=True,
            num_workers=2,
            drop_last=True,
            persistent_workers=True,
        )
        for model in NETWORKS:
            shape = (data.resolution, data.channels, data.num_classes)
            steps: dict[str, Callable[[], None]] = {}
            configs: dict[str, Config] = {}
            for name, setting in SETTINGS.items():
                torch.manual_seed(0)
                config = recipe(options.data, model, options.device, options.batch_size, **setting)
                game = build_game(config, *shape, device)
                steps[name], configs[name] = bare_step(config, game, data, device), config
            torch.manual_seed(0)
            game = build_game(configs["fp32"], *shape, device)
            steps["plain script"] = plain_step(game, loader, device)
            times: dict[str, list[float]] = {name: [] for name in steps}
            for name, step in steps.items():
                print(f"{model} {name}: warm-up {seconds(step, 2):.2f} s a step", file=sys.stderr)
            for _ in range(ROUNDS):
                for name, step in steps.items():
                    times[name].append(seconds(step, options.steps))
            medians = {name: statistics.median(t) for name, t in times.items()}
            fastest = min(SETTINGS, key=lambda name: medians[name])
            ratios = [a / b for a, b in zip(times["plain script"], times[fastest], strict=True)]
            name = "bf16 channels_last"
            loop = loop_over_bare(configs[name], folder / model, steps[name])
            networks = summarize(configs["fp32"])
            record[model] = {
                "parameters": [network.num_parameters for network in networks],
                "macs_of_one_image": [network.macs for network in networks],
                "images_per_s": {
                    name: round(options.batch_size / t, 2) for name, t in medians.items()
                },
                "fastest": fastest,
                "ratio_to_plain_script": round(statistics.median(ratios), 2),
                "ratio_in_each_round": [round(r, 2) for r in ratios],
                "loop_over_bare_steps": round(statistics.median(loop), 3),
                "loop_over_bare_steps_quartiles": [
                    round(q, 3) for q in statistics.quantiles(loop, n=4)
                ],
            }
    text = json.dumps(record, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
