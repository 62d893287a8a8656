"""Networks of more classes than the numeric gates look at."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganexport.proof import classes, reference
from ganexport.proof.numeric import numeric_gates
from ganexport.proof.parity import Prover
from ganexport.proof.reference import reference_of
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from ganinfer.bundle.manifest import GateResult

NUM_CLASSES = 1000


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_CLASSES, 8)
        self.out = nn.Linear(8, 3 * 8 * 8)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.out(z * self.embed(y))).view(-1, 3, 8, 8)


def subject() -> Subject:
    torch.manual_seed(0)
    names = [f"n{k:04}" for k in range(NUM_CLASSES)]
    return of_module(Conditional().eval(), Spec(z_dim=8, classes=names))


def swapped(of: Subject) -> bytes:
    """The graph of a network two of whose classes are each other's, neither among the first."""
    twin = of.twin()
    rows = twin.embed.weight.data
    rows[[700, 901]] = rows[[901, 700]]
    return of.to_onnx(twin)


def found(of: Subject, graph: bytes) -> dict[str, GateResult]:
    ((_, gates),) = Prover(of, None, num_images=1000).check_graphs({"fp32": graph})
    return {gate.gate: gate for gate in gates}


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a network that takes long: it draws 16 probes."""
    monkeypatch.setattr(reference, "_OPERATIONS", 1.0)


def test_a_network_that_is_soon_drawn_shows_every_class() -> None:
    own = subject()
    assert set(reference_of(own).inputs.labels) == set(range(NUM_CLASSES))
    failed = {g.gate for g in numeric_gates(own, swapped(own), "fp32") if not g.passed}
    assert "error / rounding" in failed
    assert classes.GATE not in found(own, own.to_onnx(own.twin()))


@pytest.mark.usefixtures("_slow")
def test_of_one_that_takes_long_the_other_classes_are_looked_at_once() -> None:
    own = subject()
    probed = set(reference_of(own).inputs.labels)
    assert len(probed) == 16
    assert max(np.diff(sorted(probed))) < NUM_CLASSES / 8  # spread over all
    right = found(own, own.to_onnx(own.twin()))[classes.GATE]
    assert right.passed
    assert right.num_images == NUM_CLASSES - 16
    wrong = found(own, swapped(own))[classes.GATE]
    assert not wrong.passed
    assert wrong.detail in ("class n0700", "class n0901")


@pytest.mark.usefixtures("_slow")
def test_what_is_not_looked_at_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    own = subject()
    monkeypatch.setattr(classes, "_OPERATIONS", 100 * reference.operations(own))
    gate = found(own, own.to_onnx(own.twin()))[classes.GATE]
    assert gate.passed
    assert gate.num_images == 99
    assert gate.detail == "99 of 984 classes that the other gates do not look at"
