"""Training on shards where they lie, against training on the same images in memory.

    python benchmarks/streaming.py -o benchmarks/results/streaming-<machine>.json

scikit-learn's digits as PNG in tar files: grey at 16 pixels, coloured at 64. Told is the time of
all processors for an image, which other work on the machine does not lengthen; rounds alternate.
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
from gantrain.data.indexing import index_shards
from gantrain.data.prepare import prepare
from gantrain.data.sources import digits
from gantrain.data.windows import StreamedBatches
from gantrain.game.config import load_config
from gantrain.training.train import train

ROUNDS = 3
BATCH, BATCHES, KIMG = 64, 50, 2
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
    """Microseconds for an image with which nothing is done."""
    batches.next()
    start = time.process_time()
    for _ in range(BATCHES):
        batches.next()
    return 1e6 * (time.process_time() - start) / (BATCHES * BATCH)


def training(data: Path, run: Path) -> float:
    """Microseconds for an image of the shipped recipe."""
    options = {"total_kimg": KIMG, "log_kimg": KIMG, "eval_kimg": 0, "device": "cpu"}
    overrides = [f"train.{key}={value}" for key, value in options.items()]
    config = load_config(Path("dcgan-digits"), [f"data.path={data}", *overrides])
    start = time.process_time()
    train(config, run)
    return 1e6 * (time.process_time() - start) / (1000 * KIMG)


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
            start = time.process_time()
            index_shards(work / name, places["shards"])
            looking = 1e6 * (time.process_time() - start) / len(Dataset(places["shards"]))
            times: dict[str, list[float]] = {}
            for turn in range(ROUNDS):
                for where, place in places.items():
                    kind = RealBatches if where == "memory" else StreamedBatches
                    batches = kind(Dataset(place), BATCH, seed=0, device=torch.device("cpu"))
                    times.setdefault(f"loading from {where}", []).append(loading(batches))
                    run = work / f"{name}-{where}-{turn}"
                    times.setdefault(f"training from {where}", []).append(training(place, run))
            medians = {what: round(statistics.median(values)) for what, values in times.items()}
            found[name] = {"looking at it": round(looking), **medians}
            print(name, found[name], flush=True)
    output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
