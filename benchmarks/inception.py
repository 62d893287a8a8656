"""Images/s of Inception against pytorch-fid and torch-fidelity, on the same random weights.

    pip install pytorch-fid torch-fidelity
    python benchmarks/inception.py -o benchmarks/results/inception-<machine>.json

All three see the same pictures of 32 pixels, each by its own resizer, in batches of 50, rounds
alternating in one process; how far their features lie apart is the largest difference over the
largest feature.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from road import processor
from torch import Tensor

from gantrain.extractors.inception import InceptionExtractor, InceptionV3

BATCH, ROUNDS = 50, 5

See = Callable[[Tensor], Tensor]  # uint8 (N, 3, H, W) -> features (N, 2048)


def random_weights() -> dict[str, Tensor]:
    """Statistics of batch norms like those of trained ones: no layer dies, and none explodes."""
    torch.manual_seed(0)
    network = InceptionV3()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return network.state_dict()


def ours(state: dict[str, Tensor], resizer: str) -> See:
    network = InceptionV3()
    network.load_state_dict(state)
    extractor = InceptionExtractor(network, resizer, sha256="0" * 64, device=torch.device("cpu"))
    return lambda images: extractor(images.float()).features


def pytorch_fid(state: dict[str, Tensor]) -> See:
    from pytorch_fid import inception

    with patch.object(inception, "load_state_dict_from_url", lambda *_, **__: state):
        network = inception.InceptionV3([3]).eval()
    return lambda images: network(images.float() / 255)[0].flatten(1)


def torch_fidelity(state: dict[str, Tensor]) -> See:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(state, file.name)
        network = FeatureExtractorInceptionV3("inception", ["2048"], file.name).eval()
    return lambda images: network(images)[0]


@torch.no_grad()
def measure() -> dict[str, dict[str, float]]:
    state = random_weights()
    images = torch.randint(256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    found = {}
    for peer, see, resizer in (
        ("pytorch-fid", pytorch_fid(state), "pytorch"),
        ("torch-fidelity", torch_fidelity(state), "tf"),
    ):
        own = ours(state, resizer)
        expected, seen = see(images), own(images)
        seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
        for _ in range(ROUNDS):
            for name, network in (("theirs", see), ("ours", own)):
                start = time.perf_counter()
                network(images)
                seconds[name].append(time.perf_counter() - start)
        rates = {name: BATCH / statistics.median(taken) for name, taken in seconds.items()}
        found[peer] = {
            **{f"{name}_images_per_s": round(rate, 1) for name, rate in rates.items()},
            "ratio": round(rates["ours"] / rates["theirs"], 2),
            "difference": float((seen - expected).abs().max() / expected.abs().max()),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    record = {
        "device": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **measure(),
    }
    text = json.dumps(record, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
