from pathlib import Path

import numpy as np
import pytest
from faults import FAULTS

from ganexport.graph import tracing as graph_module
from ganexport.proof.parity import Prover
from ganexport.subjects.subject import of_run
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.witness import Witness
from gantrain.evaluation.references import open_reference
from gantrain.metrics._reference import Reference
from gantrain.runs.checkpoint import load_generator


@pytest.fixture(scope="module")
def reference(shapes: Path) -> Reference:
    return open_reference(shapes)


@pytest.fixture(scope="module")
def prover(run: Path, reference: Reference) -> Prover:
    return Prover(of_run(load_generator(run)), reference, num_images=2000)


@pytest.mark.parametrize(
    "name",
    ["labels off by one", "channels swapped", "EMA weights not used", "batch norm in train mode"],
)
def test_the_distribution_alone_gives_these_faults_away(name, prover: Prover, monkeypatch) -> None:
    attribute, replacement = FAULTS[name]
    monkeypatch.setattr(graph_module, attribute, replacement)
    data = graph_module.to_onnx(prover.subject.twin(), z_dim=16, num_classes=3)
    gates = prover.distributional_gates(OnnxRuntimeBackend(data, "cpu", "fp32"), "faulty")
    assert not all(gate.passed for gate in gates)


def test_an_honest_backend_passes_the_gates_that_look_at_pixels_alone(prover: Prover) -> None:
    data = graph_module.to_onnx(prover.subject.twin(), z_dim=16, num_classes=3)
    gates = prover.check_backend(OnnxRuntimeBackend(data, "cpu", "fp32"), "engine")
    assert len(gates) == 6
    assert all(gate.passed for gate in gates)


def test_a_collapsed_generator_is_judged_without_dividing_by_zero(prover: Prover) -> None:
    same, others = (drawn.upto(1000, of=1000) for drawn in (prover._torch_a, prover._torch_b))
    witness = Witness.of(same, same, (None, None), 0)
    assert witness.shares(same, None)[0] == pytest.approx(0, abs=1e-3)
    assert witness.shares(others, None)[0] > 0.1
    constant = np.repeat(same[:1], 1000, axis=0)
    witness = Witness.of(constant, constant, (None, None), 0)
    assert witness.shares(constant, None)[0] == 0
    assert witness.shares(others, None)[0] > 0.1
