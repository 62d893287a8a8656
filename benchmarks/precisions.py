"""Every recipe's generator in every precision, and as a portable TensorRT-RTX engine.

    python benchmarks/precisions.py [-o benchmarks/results/precisions.md] [recipe ...]

The generators are untrained, their batch norms have seen latents: what is shown is what a
precision does to the arithmetic; fp16 and bf16 are emulated. dB: PSNR before rounding, peak 2; in
brackets where it is below the precision's gate, so that the export asks for --auto-precision.
steps: largest difference in uint8. paired: distance to torch's images over the sampling floor
(1,000 images, a random network's features), where that takes less than a minute. A dash: not
measured; a refusal is told in words.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from ganexport.engines.tensorrt import build_engine
from ganexport.graph.precision import PRECISIONS, convert
from ganexport.proof import numeric
from ganexport.proof.overflow import what_overflows
from ganexport.proof.parity import Prover
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.golden import pixel_differences
from ganinfer.drawing.images import to_uint8
from ganinfer.errors import GanError
from gantrain.game.build import build_generator
from gantrain.game.config import load_config
from gantrain.training.standing import standing_statistics

CONFIGS = Path(__file__).parents[1] / "configs"
SHAPES = {  # resolution, channels, classes
    "digits": (16, 1, 10),
    "mnist": (28, 1, 10),
    "mnist100": (28, 1, 10),
    "stacked_mnist": (28, 3, 0),
    "cifar10": (32, 3, 10),
    "folder64": (64, 3, 0),
    "folder128": (128, 3, 10),
}
NUM_IMAGES = 32
SECONDS_FOR_PAIRED = 60.0


def subject_of(recipe: str) -> Subject:
    config = load_config(CONFIGS / f"{recipe}.toml")
    resolution, channels, num_classes = SHAPES[recipe.partition("-")[2]]
    torch.manual_seed(0)
    network = build_generator(
        config, resolution, channels, num_classes if config.conditional else 0
    )
    standing_statistics(network, num_batches=4, truncation=config.train.truncation, seed=0)
    classes = [str(k) for k in range(network.num_classes)]
    spec = Spec(network.z_dim, classes, network.z_distribution, config.train.truncation)
    return of_module(network, spec)


def rows(recipe: str) -> list[list[str]]:
    subject = subject_of(recipe)
    twin = rewrite(subject.twin())
    single = subject.to_onnx(twin)
    inputs, _ = numeric.probes(subject, NUM_IMAGES)
    start = time.perf_counter()
    expected = to_uint8(numeric.run_torch(subject, inputs)).transpose(0, 2, 3, 1)
    seconds = 1000 * (time.perf_counter() - start) / NUM_IMAGES
    prover = Prover(subject, None, num_images=1000) if seconds < SECONDS_FOR_PAIRED else None
    found = []
    for precision in PRECISIONS:
        name = [recipe, precision]
        try:
            keep = what_overflows(subject, single).nodes if precision == "fp16" else ()
            variant = convert(single, precision, calibration=inputs.feed(), keep=keep)
            psnr = numeric.numeric_psnr(subject, variant, precision, num_images=NUM_IMAGES)
            backend = OnnxRuntimeBackend(numeric.runnable(variant, precision)[0], "cpu", precision)
            steps = pixel_differences(numeric.run_backend(backend, inputs), expected)[0]
            paired = "-"
            if prover:
                gates = prover.distributional_gates(backend, precision)
                paired = f"{gates[0].value:.2g}"
        except GanError as error:
            found.append([*name, f"refused: {_short(error)}", "", "", "", ""])
            continue
        try:
            built = build_engine(
                variant, product="tensorrt_rtx", target="portable", precision=precision,
                profiles=[(1, 8, 16)],
            )  # fmt: skip
            engine = f"{len(built.plan) / 1e6:.1f} MB"
        except GanError as error:
            engine = f"refused: {_short(error)}"
        least = numeric.FLOAT_GATES[precision].min_psnr_db or 0.0
        decibels = f"{psnr:.1f}" if psnr >= least else f"({psnr:.1f})"
        size = f"{len(variant) / 1e6:.1f} MB"
        found.append([*name, size, decibels, str(steps), paired, engine])
        print(" | ".join(found[-1]), file=sys.stderr, flush=True)
    return found


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120].replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    recipes = options.recipes or sorted(file.stem for file in CONFIGS.glob("*.toml"))
    lines = ["| recipe | precision | ONNX | dB | steps | paired | RTX engine |", "|" + "---|" * 7]
    for recipe in recipes:
        if recipe.partition("-")[2] not in SHAPES:
            lines.append(f"| {recipe} | all | refused: points are no images |  |  |  |  |")
            continue
        lines += ["| " + " | ".join(row) + " |" for row in rows(recipe)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(f"`python {' '.join(sys.argv)}`\n\n{text}")


if __name__ == "__main__":
    main()
