"""How fast three GANs train: the plain script of training.py, and ours in its settings."""

from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from training import SETTINGS, PngFolder, bare_step, plain_step, recipe, seconds

from gantrain.data.dataset import Dataset
from gantrain.game.build import build_game
from gantrain.game.config import Config
from gantrain.training.summary import summarize
from gpu_day.day import Day, Values
from gpu_day.given import random_pictures

# Name -> model, resolution, widths of G and D on a card.
GANS = {
    "dcgan-64": ("dcgan", 64, 64, 64),
    "biggan-32": ("biggan", 32, 64, 64),
    "sngan-32": ("resnet", 32, 64, 32),
}
ON_CARD = SETTINGS | {
    "bf16 channels_last cuda_graphs": {
        "channels_last": True,
        "precision": "bf16",
        "compile": "cuda_graphs",
    }
}
ON_CPU = {name: SETTINGS[name] for name in ("fp32", "bf16 channels_last")}


def run(day: Day) -> None:
    settings = ON_CARD if day.on_card else ON_CPU
    for compiled in (False, True):  # what compiles comes last
        for name in GANS:
            if not compiled:
                day.row(f"{name}: plain script", partial(measured, day, name, None), limit_s=90)
            for setting, options in settings.items():
                if ("compile" in options) is compiled:
                    work = partial(measured, day, name, options)
                    day.row(f"{name}: {setting}", work, limit_s=150)


def measured(day: Day, name: str, options: dict[str, object] | None) -> Values:
    """Images/s of D's real images, over steps of one D and one G update; None: the plain script."""
    model, resolution, *widths = GANS[name]
    if not day.on_card:
        resolution, widths = min(resolution, 32), [8, 8]
    batch_size = 64 if day.on_card else 8
    device, data = torch.device(day.device), random_pictures(day, resolution)
    networks = ({"width": widths[0]}, {"width": widths[1]})
    config = recipe(data, model, day.device, batch_size, networks=networks, **(options or {}))
    dataset = Dataset(data)
    shape = (dataset.resolution, dataset.channels, dataset.num_classes)
    torch.manual_seed(0)
    torch.compiler.reset()
    if day.on_card:
        torch.cuda.reset_peak_memory_stats()
    game = build_game(config, *shape, device)
    if options is None:
        step = plain_step(game, loader(day, dataset, batch_size), device)
    else:
        step = bare_step(config, game, dataset, device)
    first = seconds(step, 1)
    once = seconds(step, 3)
    num_steps = max(3, int((1.5 if day.on_card else 0.5) / once))
    best = min(seconds(step, num_steps) for _ in range(2))
    return {
        "images_per_s": batch_size / best,
        "ms_per_step": 1000 * best,
        "first_step_s": first,
        "batch_size": batch_size,
        "macs_of_an_image": macs(config),
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if day.on_card else None,
    }


def macs(config: Config) -> int:
    """Multiply-accumulates of a step for one image, backwards counted as twice forwards.

    D's update: G forwards, D forwards and backwards on a real and a generated image. G's: G and D
    forwards, G backwards, and D backwards to its input alone.
    """
    generator, discriminator = (network.macs for network in summarize(config))
    return (1 + 1 + 2) * generator + (2 * 3 + 1 + 1) * discriminator


def loader(day: Day, dataset: Dataset, batch_size: int) -> DataLoader:
    folder: Path = day.cache / f"png{dataset.resolution}"
    folder.mkdir(exist_ok=True)
    return DataLoader(
        PngFolder(dataset, folder, 2000 if day.on_card else 200),
        batch_size=batch_size,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        persistent_workers=True,
    )
