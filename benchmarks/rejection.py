"""What rejection sampling by the discriminator is worth: as many images, with and without.

    python benchmarks/rejection.py x.gan data/mnist [-o benchmarks/results/rejection-mnist.md]

The bundle must hold its discriminator. Plain images are drawn for two sets of seeds, so that the
difference between the first two rows is the noise. Accepted: the share of images drawn.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer import Sampler, draw_labels
from ganinfer.drawing.images import Images
from ganinfer.rejection import accepted
from gantrain.data.dataset import Dataset
from gantrain.evaluation.references import open_reference
from gantrain.evaluation.scores import score_images
from gantrain.metrics._measured import Batch

METRICS = ["fid", "kid", "precision_recall", "density_coverage", "label_accuracy"]
PERCENTILES = (50.0, 80.0, 95.0)
_OTHER_SEEDS = 1 << 40


def draws(sampler: Sampler, count: int) -> Iterator[tuple[str, float, Images, NDArray[np.uint64]]]:
    """Name, share accepted, images and seeds of each row."""
    for name, seed in (("plain", 0), ("plain, other seeds", 2 * _OTHER_SEEDS)):
        seeds = np.uint64(seed) + np.arange(count, dtype=np.uint64)
        yield name, 1.0, sampler.sample(seeds=seeds), seeds
    for percentile in PERCENTILES:
        images, seeds = accepted(sampler, count, seed=_OTHER_SEEDS, percentile=percentile)
        yield (
            f"percentile {percentile:g}",
            count / (int(seeds[-1]) - _OTHER_SEEDS + 1),
            images,
            seeds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    reference = open_reference(Dataset(options.data))
    lines: list[str] = []
    with Sampler(options.bundle) as sampler:
        for name, share, images, seeds in draws(sampler, options.num):
            labels = draw_labels(seeds, len(sampler.classes)) if sampler.classes else None
            batch: Batch = (images, labels)
            metrics = METRICS if sampler.classes else METRICS[:-1]
            scores = score_images([batch], reference, metrics=metrics).scores
            if not lines:
                lines += [f"| {' | '.join(['images', 'accepted', *scores])} |"]
                lines += [f"|{'---|' * (len(scores) + 2)}"]
            cells = [
                f"{s.value:.4g} ± {s.standard_error:.2g}" if s.standard_error else f"{s.value:.4g}"
                for s in scores.values()
            ]
            lines.append(f"| {' | '.join([name, f'{share:.0%}', *cells])} |")
            print(lines[-1], file=sys.stderr)
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
