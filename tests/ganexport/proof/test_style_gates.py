import copy

import pytest
import torch
from test_importer_stylegan2 import CLASSES, state_of
from torch import Tensor, nn

from ganexport.graph.styles import cut_mapping
from ganexport.importers import stylegan2
from ganexport.proof.styles import style_gate_of_graph
from ganexport.subjects.subject import Subject, of_module


@pytest.fixture(scope="module")
def subject() -> Subject:
    return of_module(*stylegan2.read(state_of(CLASSES)))


def graph_of(subject: Subject, network: nn.Module | None = None) -> bytes:
    return subject.to_onnx(network or subject.twin())


class OneStyle(nn.Module):
    """A synthesis whose layers all take the first style."""

    def __init__(self, synthesis: nn.Module) -> None:
        super().__init__()
        self.synthesis = synthesis

    def forward(self, w: Tensor) -> Tensor:
        return self.synthesis(w[:, :1].expand(-1, w.shape[1], -1))


def test_styles_of_an_honest_graph_pass(subject: Subject) -> None:
    graph = graph_of(subject)
    gate = style_gate_of_graph(subject, cut_mapping(graph), graph, "fp32")
    assert (gate.artifact, gate.gate) == ("onnx fp32", "styles, max uint8 step")
    assert gate.passed
    assert gate.value <= 1


def test_a_network_that_mixes_no_styles_fails(subject: Subject) -> None:
    twin = copy.deepcopy(subject.twin())
    twin.synthesis = OneStyle(twin.synthesis)
    graph = graph_of(subject, twin)
    gate = style_gate_of_graph(subject, cut_mapping(graph), graph, "fp32")
    assert not gate.passed
    assert "uint8 steps off" in gate.detail


def test_another_mapping_network_fails(subject: Subject) -> None:
    other = subject.twin()
    with torch.no_grad():
        other.mapping.w_avg += 0.5
    mapping = cut_mapping(graph_of(subject, other))
    gate = style_gate_of_graph(subject, mapping, graph_of(subject), "fp32")
    assert not gate.passed
