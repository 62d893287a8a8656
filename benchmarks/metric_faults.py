"""Which metric sees which fault? Real digits, spoiled in known ways, take a generator's place.

    python benchmarks/metric_faults.py --data data/mnist --test data/mnist-test

Training set: the first 50,000 images; real images that the generator has not seen: the test set;
a generator without faults: 5,000 of the other 10,000. Writes the table into
gantrain/metrics/README.md, between its marks, and the figures into benchmarks/results/.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from road import processor
from scipy.ndimage import gaussian_filter

from ganinfer.lookup import module_names
from gantrain.data.dataset import Dataset
from gantrain.data.prepare import prepare
from gantrain.evaluation.references import open_reference
from gantrain.evaluation.scores import metric_modules, score_images
from gantrain.metrics._score import Better, Score

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Sides = tuple[Images, Labels]

NUM_IMAGES = 5000
NEEDS_A_GENERATOR = {"ppl", "classification_error"}
README = Path(__file__).parents[1] / "gantrain" / "metrics" / "README.md"
RESULTS = Path(__file__).parent / "results" / "metric-faults.json"
BEGIN, END = "<!-- table: benchmarks/metric_faults.py -->", "<!-- end -->"


def dropped(images: Images, labels: Labels, training: Dataset, more: Sides) -> Sides:
    """Digits 0, 1, 2 are never made; whoever asks for them gets another."""
    others = more[0][more[1] >= 3]
    spoiled = images.copy()
    spoiled[labels < 3] = others[: (labels < 3).sum()]
    return spoiled, labels


def one_of_each(images: Images, labels: Labels, training: Dataset, more: Sides) -> Sides:
    """Each class has one image."""
    first = np.array([np.flatnonzero(labels == k)[0] for k in range(10)])
    return images[first[labels]], labels


def blur(images: Images, labels: Labels, training: Dataset, more: Sides) -> Sides:
    """Blurred by a Gaussian of one pixel."""
    soft = gaussian_filter(images.astype(float), (0, 1, 1, 0))
    return np.rint(soft).astype(np.uint8), labels


def noise(images: Images, labels: Labels, training: Dataset, more: Sides) -> Sides:
    """Gaussian noise of 25 grey levels."""
    noisy = images + np.random.default_rng(0).normal(0, 25, images.shape)
    return np.rint(noisy.clip(0, 255)).astype(np.uint8), labels


def memorised(images: Images, labels: Labels, training: Dataset, more: Sides) -> Sides:
    """Copies of training images."""
    assert training.labels is not None
    return np.array(training.images[: len(images)]), np.array(training.labels[: len(images)])


def swapped(images: Images, labels: Labels, training: Dataset, more: Sides) -> Sides:
    """Who asks for a digit gets the one below it."""
    return images, (labels + 1) % 10


FAULTS: dict[str, Callable[[Images, Labels, Dataset, Sides], Sides]] = {
    "3 classes dropped": dropped,
    "one image a class": one_of_each,
    "blur": blur,
    "noise": noise,
    "memorised": memorised,
    "labels swapped": swapped,
}


def badness(score: Score, better: Better) -> float | None:
    """How bad a value is, on a scale that only compares; None where there is no better."""
    if better is None:
        return None
    if better == "lower":
        return score.value
    return -score.value if better == "higher" else abs(score.value - float(better))


def sees(score: Score, sound: Score, better: Better) -> bool | None:
    """Is a value worse than without the fault, by 3 standard errors, or by a tenth without them?"""
    now, before = badness(score, better), badness(sound, better)
    if now is None or before is None:
        return None
    if score.standard_error is None or sound.standard_error is None:
        return now - before > 0.1 * abs(before)
    return now - before > 3 * math.hypot(score.standard_error, sound.standard_error)


def split(train: Dataset, folder: Path) -> tuple[Dataset, Sides, Sides]:
    """The training set, the images of a generator without faults, and as many more."""
    assert train.labels is not None
    np.savez(folder / "x.npz", images=train.images[:50_000], labels=train.labels[:50_000])
    training = Dataset(prepare(str(folder / "x.npz"), folder / "training").path)
    sides = [
        (np.array(train.images[rows]), np.array(train.labels[rows]))
        for rows in (slice(50_000, 50_000 + NUM_IMAGES), slice(55_000, 55_000 + NUM_IMAGES))
    ]
    return training, sides[0], sides[1]


def table(
    found: dict[str, dict[str, Score]], better: dict[str, Better], metric_of: dict[str, str]
) -> str:
    """Markdown: a score a row, a fault a column; bold where the fault is seen."""
    arrows = {"lower": "↓", "higher": "↑", None: ""}
    rows = ["| metric | score | | " + " | ".join(found) + " |"]
    rows.append("|" + "---|" * (len(found) + 3))
    for name, sound in found["none"].items():
        goal = better[name]
        cells = []
        for scores in found.values():
            score = scores[name]
            text = f"{score.value:.3g}"
            cells.append(f"**{text}**" if sees(score, sound, goal) else text)
        arrow = f"→ {goal:g}" if isinstance(goal, float) else arrows[goal]
        rows.append(f"| `{metric_of[name]}` | {name} | {arrow} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared MNIST, training set")
    parser.add_argument("--test", type=Path, required=True, help="prepared MNIST, test set")
    options = parser.parse_args()
    modules = metric_modules(
        [n for n in module_names("gantrain.metrics") if n not in NEEDS_A_GENERATOR]
    )
    better = {name: goal for module in modules.values() for name, goal in module.BETTER.items()}
    metric_of = {name: metric for metric, module in modules.items() for name in module.BETTER}
    with tempfile.TemporaryDirectory() as folder:
        training, sound, more = split(Dataset(options.data), Path(folder))
        reference = open_reference(Dataset(options.test), trained_on=training)
        found: dict[str, dict[str, Score]] = {}
        for name, spoil in ({"none": None} | FAULTS).items():
            spoiled = sound if spoil is None else spoil(*sound, training, more)
            found[name] = score_images([spoiled], reference, metrics=list(modules)).scores
            print(
                name, {key: round(score.value, 4) for key, score in found[name].items()}, flush=True
            )
    record = {
        "device": processor(),
        "torch": torch.__version__,
        "num_images": NUM_IMAGES,
        "faults": {
            fault: {name: [score.value, score.standard_error] for name, score in scores.items()}
            for fault, scores in found.items()
        },
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    text = README.read_text()
    head, tail = text[: text.index(BEGIN)], text[text.index(END) :]
    README.write_text(f"{head}{BEGIN}\n\n{table(found, better, metric_of)}\n\n{tail}")


if __name__ == "__main__":
    main()
