"""The training loop.

N batch; z (N, Z) latents; y int64 (N,) labels or None; images (N, C, H, W) in [-1, 1]; logits (N,).
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganinfer.errors import CheckpointError, ConfigError, TrainingError
from ganinfer.files import only_writer, write_atomic
from ganinfer.images import grid, save_png, to_uint8
from ganinfer.latents import draw_latents
from gantrain.checkpoint import State, checkpoint_files, load_checkpoint, save_checkpoint
from gantrain.config import Config, build_optimizer
from gantrain.data import Dataset, RealBatches
from gantrain.ema import Ema
from gantrain.log import StatsLog
from gantrain.models._base import GeneratorModule
from gantrain.objectives._base import Base as Objective

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run stands. Losses and logits are means since the last report."""

    images_seen: int
    total_images: int
    images_per_s: float
    stats: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended. finished is False if it was asked to stop."""

    run: Path
    checkpoint: Path
    images_seen: int
    finished: bool


def train(
    config: Config,
    run: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Train a GAN, from the start or from the run's last checkpoint.

    Killed and called again with the same config, a run goes on from its newest checkpoint; on a
    CPU its final weights are bit-identical to those of an uninterrupted run.

    Args:
        config: the recipe.
        run: folder of the run: config.json, checkpoints/, samples/, stats.jsonl, tensorboard/.
        on_progress: called every log_kimg.
        should_stop: asked after every step; True saves a checkpoint and returns.

    Returns:
        Where the last checkpoint is, and whether the run is finished.

    Raises:
        ConfigError: the device is missing, the data cannot be modelled, or the run folder holds
            a run of another config.
        DataError: the dataset is missing or broken.
        TrainingError: a loss is not finite; the last good checkpoint is kept.
        GanError: another process is training in the folder.
    """
    # The data decides the shape of the networks.
    options = config.train
    device = pick_device(options.device, where=config.where)
    dataset = Dataset(Path(config.data.path))
    shape = (dataset.resolution, dataset.channels, dataset.num_classes)
    torch.manual_seed(options.seed)
    generator = config.build_generator(*shape).to(device)
    discriminator = config.build_discriminator(*shape).to(device)
    if options.channels_last:
        for network in (generator, discriminator):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Ema(generator, half_life_kimg=options.ema_half_life_kimg)
    objective = config.build_objective()
    generator_optimizer = build_optimizer(config.generator_optimizer, generator)
    discriminator_optimizer = build_optimizer(config.discriminator_optimizer, discriminator)
    batches = RealBatches(dataset, options.batch_size, seed=options.seed, device=device)
    rng = torch.Generator(device).manual_seed(options.seed)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")
    images_seen = 0

    def state() -> State:
        return {
            "config": config.as_dict(),
            "dataset": {
                "path": str(dataset.path.resolve()),
                "sha256": dataset.sha256,
                "resolution": dataset.resolution,
                "channels": dataset.channels,
                "classes": dataset.classes,
            },
            "images_seen": images_seen,
            "position": batches.position,
            "generator": generator.state_dict(),
            "discriminator": discriminator.state_dict(),
            "ema": ema.network.state_dict(),
            "generator_optimizer": generator_optimizer.state_dict(),
            "discriminator_optimizer": discriminator_optimizer.state_dict(),
            "rng": rng.get_state(),
            "rng_device": device.type,
            "torch_rng": torch.get_rng_state(),
        }

    def latents() -> Tensor:
        size = (options.batch_size, generator.z_dim)
        if generator.z_distribution == "uniform":
            return torch.rand(size, generator=rng, device=device).mul_(2).sub_(1)
        return torch.randn(size, generator=rng, device=device)

    _claim_run_folder(run, config, dataset)
    with only_writer(run), StatsLog(run) as stats_log:
        # Go on from the newest checkpoint, if there is one.
        if files := checkpoint_files(run):
            saved = load_checkpoint(files[-1])
            images_seen, batches.position = saved["images_seen"], saved["position"]
            generator.load_state_dict(saved["generator"])
            discriminator.load_state_dict(saved["discriminator"])
            ema.network.load_state_dict(saved["ema"])
            _load_optimizer(generator_optimizer, saved["generator_optimizer"])
            _load_optimizer(discriminator_optimizer, saved["discriminator_optimizer"])
            if saved["rng_device"] == device.type:
                rng.set_state(saved["rng"])
            else:  # the state of another kind of device means nothing here
                rng.manual_seed(options.seed + images_seen)
            torch.set_rng_state(saved["torch_rng"])
            log.info("%s: going on from %d images", run, images_seen)
        else:
            save_real_samples(dataset, run)
        stats_log.go_on(images_seen)

        # Train, counting the real images that D has seen.
        total_images = math.ceil(1000 * options.total_kimg)
        meter = Meter(images_seen)
        stopped = False
        while images_seen < total_images and not stopped:
            for _ in range(options.discriminator_steps):
                real, y = batches.next()
                with torch.no_grad(), autocast:
                    fake = generator(latents(), y).float()
                with autocast:
                    loss, real_logits, fake_logits = discriminator_loss(
                        objective, discriminator, real, fake, y
                    )
                discriminator_optimizer.zero_grad()
                torch.autograd.backward(loss)
                discriminator_optimizer.step()
                objective.after_discriminator_step(discriminator)
                meter.add(loss_d=loss, real_logits=real_logits, fake_logits=fake_logits)
                images_seen += options.batch_size

            discriminator.requires_grad_(False)
            with autocast:
                loss = generator_loss(objective, generator, discriminator, latents(), y)
            generator_optimizer.zero_grad()
            torch.autograd.backward(loss)
            generator_optimizer.step()
            discriminator.requires_grad_(True)
            meter.add(loss_g=loss)
            ema.update(generator, batch_size=options.batch_size, images_seen=images_seen)

            # Report, picture and save when another so many images have been seen.
            stopped = should_stop is not None and should_stop()
            last = images_seen >= total_images or stopped
            step_images = options.batch_size * options.discriminator_steps
            if last or _is_due(options.log_kimg, images_seen, step_images):
                stats, images_per_s = meter.read(images_seen)
                _check_finite(stats, run, images_seen)
                stats_log.write({"images_seen": images_seen, **stats, "images_per_s": images_per_s})
                if on_progress:
                    on_progress(Progress(images_seen, total_images, images_per_s, stats))
            if last or _is_due(options.sample_kimg, images_seen, step_images):
                save_samples(ema.network, dataset.num_classes, run, images_seen, device)
            if last or _is_due(options.checkpoint_kimg, images_seen, step_images):
                weights = {"a weight": float(sum(p.sum() for p in ema.network.parameters()))}
                _check_finite({**meter.peek(), **weights}, run, images_seen)
                save_checkpoint(run, state(), keep=options.keep_checkpoints)
    return Outcome(run, checkpoint_files(run)[-1], images_seen, images_seen >= total_images)


def discriminator_loss(
    objective: Objective, discriminator: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """D's loss on one batch, and its logits (N,) for real and generated images."""
    real_logits = discriminator(real, y).float()
    fake_logits = discriminator(fake, y).float()
    loss = objective.discriminator_loss(real_logits, fake_logits)
    return loss + objective.penalty(discriminator, real, fake, y), real_logits, fake_logits


def generator_loss(
    objective: Objective,
    generator: nn.Module,
    discriminator: nn.Module,
    z: Tensor,
    y: Tensor | None,
) -> Tensor:
    """G's loss on one batch."""
    return objective.generator_loss(discriminator(generator(z, y), y).float())


class Meter:
    """Means since the last reading, kept on the device so that no step waits for them."""

    def __init__(self, images_seen: int) -> None:
        self._sums: dict[str, list[Tensor]] = {}
        self._images_seen, self._time = images_seen, time.monotonic()

    def add(self, **values: Tensor) -> None:
        """Take in the mean of each tensor."""
        for key, value in values.items():
            self._sums.setdefault(key, []).append(value.detach().mean())

    def peek(self) -> dict[str, float]:
        """The means so far."""
        return {key: float(torch.stack(v).mean()) for key, v in self._sums.items()}

    def read(self, images_seen: int) -> tuple[dict[str, float], float]:
        """The means and the images/s since the last reading; starts anew."""
        means = self.peek()
        now = time.monotonic()
        images_per_s = (images_seen - self._images_seen) / max(now - self._time, 1e-9)
        self._sums.clear()
        self._images_seen, self._time = images_seen, now
        return means, images_per_s


def pick_device(name: str, *, where: str) -> torch.device:
    """The device of [train] device; one that was asked for and is missing is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{where} [train] device: {name!r} is not there; this torch {torch.__version__} sees"
            f" {torch.cuda.device_count()} CUDA devices; use 'cpu' or 'auto'"
        )
    return device


def sample_sheet(num_classes: int) -> tuple[range, NDArray[np.int64] | None, int]:
    """Seeds, labels and columns of the pictures that show a generator: a class a column.

    With no classes, or too many for columns, about a hundred images in rows of ten.
    """
    columns = num_classes if 2 <= num_classes <= 16 else 10
    seeds = range(10 * columns)
    return seeds, np.arange(len(seeds)) % num_classes if num_classes else None, columns


def save_samples(
    network: GeneratorModule, num_classes: int, run: Path, images_seen: int, device: torch.device
) -> None:
    """Save run/samples/<images_seen>.png, the same seeds every time."""
    seeds, labels, columns = sample_sheet(num_classes)
    images = generate(network, seeds, labels, device=device)
    save_png(run / "samples" / f"{images_seen:012d}.png", grid(images, columns=columns))


@torch.no_grad()
def generate(
    network: GeneratorModule,
    seeds: Any,
    labels: Any,
    *,
    truncation: float | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 (N, H, W, C) of a network in eval mode, for seeds (N,) and labels (N,) or None."""
    z = draw_latents(
        seeds, network.z_dim, distribution=network.z_distribution, truncation=truncation
    )
    y = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64)).to(device)
    images = network(torch.from_numpy(z).to(device), y).float().cpu().numpy()
    return to_uint8(images).transpose(0, 2, 3, 1)


def save_real_samples(dataset: Dataset, run: Path) -> None:
    """Save run/samples/real.png, to compare with: real images, laid out as `save_samples` does."""
    (run / "samples").mkdir(parents=True, exist_ok=True)
    seeds, labels, columns = sample_sheet(dataset.num_classes)
    order = np.random.default_rng(0).permutation(len(dataset))
    if dataset.labels is None or labels is None:
        chosen = np.resize(order, len(seeds))
    else:
        of_class = [order[dataset.labels[order] == k] for k in range(dataset.num_classes)]
        # A class with too few images repeats them; one with none shows others.
        of_class = [members if len(members) else order for members in of_class]
        turns = np.arange(len(seeds)) // dataset.num_classes
        chosen = np.array(
            [of_class[k][n % len(of_class[k])] for k, n in zip(labels, turns, strict=True)]
        )
    images = np.ascontiguousarray(dataset.images[chosen])
    save_png(run / "samples" / "real.png", grid(images, columns=columns))


def _claim_run_folder(run: Path, config: Config, dataset: Dataset) -> None:
    """Write run/config.json, or check that the run that is there is this one."""
    mine = {"dataset_sha256": dataset.sha256, **config.as_dict()}
    path = run / "config.json"
    if not path.exists() or not checkpoint_files(run):
        run.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(mine, indent=2) + "\n").encode())
        return
    differing = _differences(json.loads(path.read_text()), mine)
    # A run may be prolonged, moved, and watched more or less often.
    free = {
        "total_kimg",
        "device",
        "log_kimg",
        "sample_kimg",
        "checkpoint_kimg",
        "keep_checkpoints",
        "path",
    }
    if changed := [d for d in differing if d.split(":")[0].split(".")[-1] not in free]:
        raise CheckpointError(
            f"{run}: holds a run of another config; {'; '.join(changed[:3])}."
            " Go on with the old config, or choose another folder with -o"
        )


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            d for k in keys for d in _differences(old.get(k), new.get(k), f"{key}.{k}".lstrip("."))
        ]
    return [] if old == new else [f"{key}: it has {old!r}, this config {new!r}"]


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: State) -> None:
    # JSON made strings of the parameters' numbers.
    moments = {int(number): moment for number, moment in saved["state"].items()}
    optimizer.load_state_dict({"state": moments, "param_groups": saved["param_groups"]})


def _is_due(every_kimg: float, images_seen: int, step_images: int) -> bool:
    """Has this step crossed a multiple of every_kimg?"""
    every = 1000 * every_kimg
    return images_seen // every != (images_seen - step_images) // every


def _check_finite(means: dict[str, float], run: Path, images_seen: int) -> None:
    bad = [f"{key} is {value}" for key, value in means.items() if not math.isfinite(value)]
    if bad:
        files = checkpoint_files(run)
        kept = f"the last good checkpoint is {files[-1]}" if files else "no checkpoint was made yet"
        raise TrainingError(
            f"{run}: after {images_seen} images {', '.join(bad)}; {kept}."
            " Lower the learning rates, or use precision = 'fp32', and start anew with -o"
        )
