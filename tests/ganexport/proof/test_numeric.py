from pathlib import Path

from ganexport.graph import tracing as graph_module
from ganexport.proof.numeric import numeric_gates
from ganexport.subjects.subject import of_run
from gantrain.runs.checkpoint import load_generator


def test_numeric_gates_pass_for_an_honest_graph(run: Path) -> None:
    subject = of_run(load_generator(run))
    data = graph_module.to_onnx(subject.twin(), z_dim=16, num_classes=3)
    assert all(gate.passed for gate in numeric_gates(subject, data, "fp32"))
