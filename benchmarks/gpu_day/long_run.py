"""BigGAN for all the time that is left: FID over time, and samples. The next call goes on."""

import base64
import time
from pathlib import Path

from gantrain.game.config import Config, load_config
from gantrain.runs.log import read_stats
from gantrain.training.record import Progress
from gantrain.training.train import train
from gpu_day.day import Day, Skip, Values
from gpu_day.given import dataset

STOP_S = 8.0  # kept for the last checkpoint, sheet and FID


def run(day: Day) -> None:
    """One row, told again whenever the run reports; "partial" until the run has its end."""
    try:
        name, data = "cifar10", dataset(day, "cifar10")
    except Skip:
        name, data = "digits", dataset(day, "digits")
    row = f"BigGAN on {name}"
    if not day.begin(row, limit_s=1e9):
        return
    folder = day.cache / "runs" / f"biggan-{name}"
    start = time.monotonic()
    last_told = 0.0

    def tell(status: str) -> None:
        day.end(row, status, "", values_of(folder, config), time.monotonic() - start)

    def on_progress(_: Progress) -> None:
        nonlocal last_told
        if time.monotonic() - last_told > 5:
            tell("partial")
            last_told = time.monotonic()

    config = recipe(day, name, data)
    outcome = train(
        config,
        folder,
        on_progress=on_progress,
        should_stop=lambda: day.seconds_left < STOP_S,
    )
    tell("ok" if outcome.finished else "partial")


def recipe(day: Day, name: str, data: Path) -> Config:
    every, total = (100, 32_000) if day.on_card else (0.5, 1.5)
    options = [
        f"data.path={data}",
        f"train.device={day.device}",
        f"train.total_kimg={total}",
        *(f"train.{what}_kimg={every}" for what in ("eval", "sample", "checkpoint")),
        f"train.log_kimg={every / 5}",
        f"train.eval_images={5000 if day.on_card else 200}",
        "train.standing_batches=4",
    ]
    if name == "digits":  # 16 pixels: two blocks, so three chunks of z
        options.append("model.generator.z_dim=60")
    if not day.on_card:
        options += ["model.generator.width=8", "model.discriminator.width=8"]
        options += ["train.discriminator_steps=1", "train.precision=fp32"]
    return load_config(Path("biggan-cifar10"), options)


def values_of(folder: Path, config: Config) -> Values:
    """The curve so far, and the sample sheets: the first, the middle one and the last."""
    stats = read_stats(folder / "stats.jsonl")
    sheets = sorted(f for f in (folder / "samples").glob("*.png") if f.stem.isdigit())
    chosen = sheets if len(sheets) < 3 else [sheets[0], sheets[len(sheets) // 2], sheets[-1]]
    return {
        "kimg": stats[-1]["images_seen"] / 1000 if stats else 0.0,
        "total_kimg": config.train.total_kimg,
        "images_per_s": stats[-1]["images_per_s"] if stats else None,
        "fid": [[s["images_seen"] / 1000, s["fid"]] for s in stats if "fid" in s],
        "speed": [[s["images_seen"] / 1000, s["images_per_s"]] for s in stats],
        "sheets": {file.stem: base64.b64encode(file.read_bytes()).decode() for file in chosen},
    }
