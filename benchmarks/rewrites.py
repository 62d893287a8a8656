"""What each rewrite of the export is worth: images/s of BigGAN-32 without it, and with all.

    python benchmarks/rewrites.py [-o benchmarks/results/rewrites-<machine>.md]

The generator is untrained, of 256 channels, batch 32; rounds of all variants alternate in one
process. Backends: onnxruntime and OpenVINO on the CPU, in float32.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from road import processor

from ganexport.graph.tracing import to_onnx
from ganexport.subjects.rewrites import REWRITES, rewrite
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.latents import draw_latents
from gantrain.models.biggan import Generator
from gantrain.training.standing import standing_statistics

BATCH, ROUNDS, NUM_CLASSES = 32, 7, 10
VARIANTS = {"none": list(REWRITES), **{f"all but {n}": [n] for n in REWRITES}, "all": []}

Run = Callable[[], np.ndarray]


def graphs() -> dict[str, bytes]:
    found = {}
    for name, without in VARIANTS.items():
        torch.manual_seed(0)
        network = Generator(32, 3, NUM_CLASSES, width=64)
        standing_statistics(network, num_batches=2, truncation=None, seed=0)
        network.eval()
        found[name] = to_onnx(
            rewrite(network, without), z_dim=network.z_dim, num_classes=NUM_CLASSES
        )
    return found


def on_onnxruntime(graph: bytes, z: np.ndarray, y: np.ndarray) -> Run:
    backend = OnnxRuntimeBackend(graph, "cpu", "fp32")
    return lambda: backend.run(Inputs(z, y))


def on_openvino(graph: bytes, z: np.ndarray, y: np.ndarray) -> Run:
    import openvino

    core = openvino.Core()
    model = core.compile_model(
        core.read_model(graph),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "1"},
    )
    return lambda: np.asarray(model([z, y])[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    made = graphs()
    lines = ["| backend | " + " | ".join(VARIANTS) + " |", "|" + "---|" * (len(VARIANTS) + 1)]
    openers = {f"onnxruntime {onnxruntime.__version__}": on_onnxruntime}
    try:
        import openvino

        openers[f"OpenVINO {openvino.__version__.partition('-')[0]}"] = on_openvino
    except ModuleNotFoundError:
        print("openvino is not installed", file=sys.stderr)
    inputs = onnx.load_from_string(made["all"]).graph.input
    z = draw_latents(range(BATCH), inputs[0].type.tensor_type.shape.dim[1].dim_value)
    y = np.arange(BATCH) % NUM_CLASSES
    for name, opener in openers.items():
        runs = {variant: opener(graph, z, y) for variant, graph in made.items()}
        images = [run() for run in runs.values()]
        worst = max(int(np.abs(i.astype(int) - images[0]).max()) for i in images)
        assert worst <= 1, worst
        times: dict[str, list[float]] = {variant: [] for variant in runs}
        for _ in range(ROUNDS):
            for variant, run in runs.items():
                start = time.perf_counter()
                run()
                times[variant].append(time.perf_counter() - start)
        medians = {variant: statistics.median(t) for variant, t in times.items()}
        cells = [
            f"{BATCH / seconds:.1f}/s ({medians['none'] / seconds:.2f}x)"
            for seconds in medians.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        command = f"`python {' '.join(sys.argv)}` on {processor()}, {torch.get_num_threads()} cores"
        options.output.write_text(f"{command}\n\n{text}")


if __name__ == "__main__":
    main()
