from pathlib import Path

import numpy as np
import pytest
import torch

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.witness import Witness, frechet_distance, paired_gates
from gantrain.metrics import _moments

RNG = np.random.default_rng(0)


def features(seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (600, 8)).astype(np.float32)


LABELS = np.arange(600) % 3


def test_the_same_images_pass_and_others_do_not() -> None:
    a, b = features(0), features(1)
    witness = Witness.of(a, b, (LABELS, LABELS), 3)
    assert witness.means.shape == (4, 8)
    near = a + 1e-3 * features(2)
    gates = paired_gates(witness, near, LABELS, "onnx", ["x", "y", "z"])
    assert [gate.gate for gate in gates] == ["paired FID / floor", "paired, worst class"]
    assert all(gate.passed for gate in gates)
    spoiled = near.copy()
    spoiled[LABELS == 1] += 0.5
    whole, worst = paired_gates(witness, spoiled, LABELS, "onnx", ["x", "y", "z"])
    assert not whole.passed
    assert not worst.passed
    assert worst.detail == "class y"
    assert witness.shares(b, LABELS)[0] == pytest.approx(1)


def test_a_witness_is_read_as_it_was_written(bundle: Path) -> None:
    with Bundle(bundle) as opened:
        witness = Witness.load(opened)
        assert witness is not None
        assert witness.save() == opened.read("witness/moments.f64")
    assert witness.means.shape == (4, 64)  # three classes
    assert witness.num_images == 1000


def test_the_distance_is_the_metrics_distance() -> None:
    a, b = features(0), 1.3 * features(1, 0.4)
    ours = frechet_distance(*((x.mean(0, dtype=float), np.cov(x.T.astype(float))) for x in (a, b)))
    moments = (_moments.Moments.of([torch.from_numpy(x)]) for x in (a, b))
    assert ours == pytest.approx(_moments.frechet_distance(*moments), rel=1e-9)
