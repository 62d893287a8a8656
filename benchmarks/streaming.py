"""Training on shards where they lie, against training on the same images in memory.

    python benchmarks/streaming.py -o benchmarks/results/streaming-<machine>.json

scikit-learn's digits as PNG in tar files: grey at 16 pixels, coloured at 64. Rounds of both
alternate in one process, so that their ratio means something on a noisy machine.
"""

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from road import processor

from gantrain.data.dataset import Dataset, RealBatches
from gantrain.data.index import index_shards
from gantrain.data.prepare import prepare
from gantrain.data.sources import digits
from gantrain.data.windows import StreamedBatches
from gantrain.game.config import load_config
from gantrain.training.train import train

ROUNDS = 3
BATCH, BATCHES = 64, 100
SIZES = {"16x16x1": (16, "L"), "64x64x3": (64, "RGB")}


def write_shards(folder: Path, side: int, mode: str) -> None:
    """Four tar files of the digits in this size."""
    folder.mkdir()
    source = digits()
    for shard, numbers in enumerate(np.array_split(np.arange(len(source.names)), 4)):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for number in numbers:
                buffer = io.BytesIO()
                picture = Image.fromarray(source.read(number)).resize((side, side))
                picture.convert(mode).save(buffer, "png")
                for suffix, data in (
                    ("png", buffer.getvalue()),
                    ("cls", b"%d" % source.labels[number]),
                ):
                    entry = tarfile.TarInfo(f"{number:05}.{suffix}")
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))


def loading(batches: RealBatches | StreamedBatches) -> float:
    """Images/s where nothing is done with them."""
    batches.next()
    start = time.perf_counter()
    for _ in range(BATCHES):
        batches.next()
    return BATCHES * BATCH / (time.perf_counter() - start)


def training(data: Path, run: Path) -> float:
    """Images/s of the shipped recipe."""
    config = load_config(
        Path("dcgan-digits"),
        [
            f"data.path={data}",
            "train.total_kimg=2",
            "train.log_kimg=0.5",
            "train.eval_kimg=0",
            "train.device=cpu",
        ],
    )
    train(config, run)
    records = map(json.loads, (run / "stats.jsonl").read_text().splitlines())
    return statistics.median([record["images_per_s"] for record in records][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    found: dict[str, object] = {"processor": processor(), "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, (side, mode) in SIZES.items():
            write_shards(work / name, side, mode)
            places = {"memory": work / f"{name}-memory", "shards": work / f"{name}-shards"}
            prepare(str(work / name), places["memory"])
            start = time.perf_counter()
            index_shards(work / name, places["shards"])
            looked_at = len(Dataset(places["shards"])) / (time.perf_counter() - start)
            rates: dict[str, list[float]] = {}
            for turn in range(ROUNDS):
                for where, place in places.items():
                    kind = RealBatches if where == "memory" else StreamedBatches
                    batches = kind(Dataset(place), BATCH, seed=0, device=torch.device("cpu"))
                    rates.setdefault(f"loading from {where}", []).append(loading(batches))
                    run = work / f"{name}-{where}-{turn}"
                    rates.setdefault(f"training from {where}", []).append(training(place, run))
            medians = {what: round(statistics.median(values)) for what, values in rates.items()}
            pairs = zip(rates["training from shards"], rates["training from memory"], strict=True)
            ratio = statistics.median(shards / memory for shards, memory in pairs)
            found[name] = {"looking": round(looked_at), **medians, "ratio of training": ratio}
            print(name, found[name], flush=True)
    output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
