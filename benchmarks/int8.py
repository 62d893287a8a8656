"""What each step around int8's quantisation is worth, in decibels of PSNR.

    python benchmarks/int8.py faces.gan digits.gan [-o benchmarks/results/int8.md]

Of each bundle's float32 graph, which `gan export --without subpixel` left as it is, int8 is made
anew, a step more in each column: the static quantisation of onnxruntime alone; one scale on both
sides of a ReLU; channels of like range; corrected biases, which is what ships. Against the float32
graph before rounding, peak 2: all images, and the worst one. Run by onnxruntime; the latents are
those of `gan export`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ganexport.graph.calibrating import Feed, tensors
from ganexport.graph.correct import correct_biases
from ganexport.graph.equalize import equalize
from ganexport.graph.quantize import to_int8
from ganexport.graph.share_scales import share_scales
from ganexport.graph.subpixel import in_precision
from ganexport.graph.tracing import float_images
from ganexport.pipeline import CALIBRATION_IMAGES, CALIBRATION_SEEDS
from ganexport.proof.rounding import Deviation, psnr_db
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.drawing.latents import draw_labels
from ganinfer.files import write_atomic

NUM_IMAGES = 64
COLUMNS = ("quantised", "+ one scale", "+ equalised", "+ biases")


def images(model: onnx.ModelProto, feed: Feed) -> NDArray[np.float32]:
    """Before rounding, float32 (N, C, H, W)."""
    name = float_images(model)
    return np.concatenate([batch[name] for batch in tensors(model, [name], feed)])


def row(path: Path) -> list[str]:
    with Bundle(path) as bundle:
        spec, graph = bundle.manifest.model, in_precision(bundle.read_graph("fp32"), "int8")

    def feed(seeds: range) -> Feed:
        labels = draw_labels(seeds, len(spec.classes)) if spec.classes else None
        return draw_inputs(spec, seeds, labels).feed()

    exact = onnx.load_from_string(graph)
    shown = feed(range(NUM_IMAGES))
    calibration = feed(range(CALIBRATION_SEEDS, CALIBRATION_SEEDS + CALIBRATION_IMAGES))
    expected = images(exact, shown)
    cells = [path.stem]
    for count in range(len(COLUMNS)):
        source = onnx.load_from_string(graph)
        if count >= 2:
            equalize(source, calibration)
        quantized = to_int8(source, calibration, ())
        if count >= 1:
            share_scales(quantized, source, calibration, 127.0)
        if count >= 3:
            correct_biases(quantized, source, calibration)
        found = Deviation.of(images(quantized, shown), expected)
        cells.append(f"{psnr_db(found.rms):.1f} ({psnr_db(found.worst):.1f})")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    rows = [["network", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    for path in options.bundles:
        rows.append(row(path))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    print(text)
    if options.output:
        names = " ".join(path.name for path in options.bundles)
        command = f"`python benchmarks/int8.py {names}`, dB of all images (of the worst one)"
        write_atomic(options.output, f"{command}\n\n{text}".encode())


if __name__ == "__main__":
    main()
