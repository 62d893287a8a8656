"""What it is worth to begin with another run: MNIST's digits 5-9, from scratch and from others.

    python benchmarks/finetuning.py data/mnist work -o benchmarks/results/finetuning-mnist

A conditional DCGAN is trained on the digits 0-4, another on 0-2; then others on some images of each
of the digits 5-9: from scratch, with the first one's networks, with D's first layer frozen, too,
and with the second one's, which know three classes and not five. No class has a name of theirs, so
every row of a class is fresh. FID is measured as they go, on classifier features, at the same
images seen. Runs go on where they were killed.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

from ganinfer.drawing.images import save_png
from ganinfer.files import write_atomic
from gantrain.data.dataset import Dataset
from gantrain.data.prepare import prepare
from gantrain.game.config import load_config
from gantrain.report.charts import line_chart
from gantrain.runs.log import read_stats
from gantrain.training.train import train

PARENTS = {"0-4": range(5), "0-2": range(3)}
WAYS = {
    "from scratch": [],
    "from 0-4": ["start.path={folder}/parent-0-4"],
    "from 0-4, D frozen": [
        "start.path={folder}/parent-0-4",
        'train.freeze=["discriminator.downs.0"]',
    ],
    "from 0-2": ["start.path={folder}/parent-0-2"],
}


def some_classes(mnist: Dataset, folder: Path, digits: range, num_each: int) -> Path:
    """A prepared dataset of the first images of some classes, under their own names."""
    if (folder / "data/dataset.json").exists():
        return folder / "data"
    assert mnist.labels is not None
    for digit in digits:
        (folder / "images" / str(digit)).mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(mnist.labels == digit)[:num_each]:
            save_png(folder / "images" / str(digit) / f"{index:05d}.png", mnist.images[index])
    return prepare(str(folder / "images"), folder / "data", grayscale=True).path


def fids(data: Path, run: Path, *more: str) -> list[tuple[float, float]]:
    """Train the shipped recipe there; kimg and FID of each measurement."""
    often = ["train.trackers=[]", "train.checkpoint_kimg=5"]
    recipe = load_config(Path("dcgan-mnist"), [f"data.path={data}", *often, *more])
    train(recipe, run, on_progress=lambda p: print(run.name, p.images_seen, *p.notes, flush=True))
    records = read_stats(run / "stats.jsonl")
    return [(record["images_seen"] / 1000, record["fid"]) for record in records if "fid" in record]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="MNIST, prepared.")
    parser.add_argument("folder", type=Path, help="Of runs and data.")
    parser.add_argument("--parent-kimg", type=float, default=100)
    parser.add_argument("--kimg", type=float, default=30)
    parser.add_argument("--num-each", type=int, default=1000, help="Images of each of 5-9.")
    parser.add_argument("-o", "--output", type=Path, help="Two files: this, .svg and .json.")
    options = parser.parse_args()
    mnist = Dataset(options.data)
    for name, digits in PARENTS.items():
        old = some_classes(mnist, options.folder / name, digits, 3000)
        fids(old, options.folder / f"parent-{name}", f"train.total_kimg={options.parent_kimg}")
    new = some_classes(mnist, options.folder / "5-9", range(5, 10), options.num_each)
    measured = (f"train.total_kimg={options.kimg}", "train.eval_kimg=1", "train.eval_images=2000")
    found = {
        way: fids(
            new,
            options.folder / way.replace(",", "").replace(" ", "-"),
            *measured,
            *(setting.format(folder=options.folder) for setting in settings),
        )
        for way, settings in WAYS.items()
    }
    print(json.dumps(found, indent=2))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        request = {k: v for k, v in vars(options).items() if isinstance(v, int | float)}
        text = json.dumps({"request": request, "fid": found}, indent=2) + "\n"
        write_atomic(options.output.with_suffix(".json"), text.encode())
        lines = {way: [(x, math.log10(y)) for x, y in points] for way, points in found.items()}
        chart = line_chart(
            "MNIST 5-9: FID as it is trained", lines, x_label="kimg", y_label="log10 FID"
        )
        write_atomic(options.output.with_suffix(".svg"), chart.encode())


if __name__ == "__main__":
    main()
