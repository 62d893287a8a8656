"""Networks that float32 computes and fp16 cannot, among those that it can."""

import functools
import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional

from ganexport.graph.precision import convert
from ganexport.proof.numeric import accuracy, numeric_gates
from ganexport.proof.overflow import largest_values, overflow_gate, what_overflows
from ganexport.proof.parity import Prover
from ganexport.proof.reference import probes
from ganexport.proof.sensitivity import keep_worst_layers
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from ganinfer.bundle.archive import Bundle
from ganinfer.errors import ExportError


class Net(nn.Module):
    """z (N, 16) -> images (N, 3, 8, 8), with something between two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(16, 32 * 8 * 8)
        self.style = nn.Linear(16, 32)
        self.conv = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.rgb = nn.Conv2d(32, 3, 1)
        self.norm = nn.InstanceNorm2d(32, affine=True)
        self.register_buffer("far", torch.tensor(1e6))

    def between(self, x: Tensor, z: Tensor) -> Tensor:
        return self.conv(x)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.rgb(self.between(self.fc(z).view(-1, 32, 8, 8), z)))


class Plain(Net):
    pass


class Norm(Net):
    """Of large numbers, as one node, which computes in float32 inside."""

    def between(self, x: Tensor, z: Tensor) -> Tensor:
        return self.norm(x * 1000)


class PixelNorm(Net):
    def between(self, x: Tensor, z: Tensor) -> Tensor:
        x = self.conv(x) * 3000
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Normalised(Net):
    """The norm is one node, ReduceL2, and 5,000 at most: only inside are there squares."""

    def between(self, x: Tensor, z: Tensor) -> Tensor:
        return functional.normalize(self.conv(x) * 1000, dim=1) * 5


class WrittenNorm(Net):
    """An instance norm that is written out."""

    def between(self, x: Tensor, z: Tensor) -> Tensor:
        x = self.conv(x) * 3000
        return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)


class Demodulated(Net):
    """StyleGAN2's convolution with styles of hundreds: the sums of squares are millions."""

    def between(self, x: Tensor, z: Tensor) -> Tensor:
        style, weight = self.style(z) * 300, self.conv.weight * 10
        squares = (weight * style[:, None, :, None, None]).square().sum((2, 3, 4))
        x = functional.conv2d(x * style[:, :, None, None], weight, padding=1)
        return x * torch.rsqrt(squares + 1e-8)[:, :, None, None]


class LargeConstant(Net):
    def between(self, x: Tensor, z: Tensor) -> Tensor:
        return self.conv(x) * self.far / (self.far + 1)


class Masked(Net):
    """Attention, to earlier channels alone."""

    def between(self, x: Tensor, z: Tensor) -> Tensor:
        rows = self.conv(x).flatten(2)
        scores = rows @ rows.mT
        later = torch.ones(32, 32, dtype=torch.bool).triu(1)
        return (scores.masked_fill(later, -torch.inf).softmax(-1) @ rows).unflatten(2, (8, 8))


class Vanishing(Net):
    """What fp16 rounds to zero is divided by."""

    def between(self, x: Tensor, z: Tensor) -> Tensor:
        small = self.conv(x) * 1e-9
        return small / (small.abs().mean(1, keepdim=True) + 1e-12)


@functools.cache
def subject_of(net: type[Net]) -> tuple[Subject, bytes]:
    subject = of_module(net(), Spec(16))
    return subject, subject.to_onnx(subject.twin())


@pytest.mark.parametrize("net", [Plain, Norm])
def test_nothing_is_kept_of_what_fp16_holds(net: type[Net]) -> None:
    subject, graph = subject_of(net)
    found = what_overflows(subject, graph)
    assert not found.nodes
    assert not found.layers
    variant = convert(graph, "fp16")
    assert overflow_gate(subject, variant).passed
    assert all(gate.passed for gate in numeric_gates(subject, variant, "fp16"))


OVERFLOWING = [
    (PixelNorm, "conv", 1e6, "Pow"),
    (Normalised, "conv", 1e5, "Mul"),
    (WrittenNorm, "conv", 1e6, "Mul"),
    (Demodulated, "conv", 1e6, "Pow"),
]


@pytest.mark.parametrize(("net", "layer", "least", "op"), OVERFLOWING)
def test_squares_beyond_fp16_fail_and_are_named(
    net: type[Net], layer: str, least: float, op: str
) -> None:
    subject, graph = subject_of(net)
    variant = convert(graph, "fp16")
    gate = overflow_gate(subject, variant)
    assert not gate.passed
    assert gate.value > 1
    assert f"layer {layer}: {op} " in gate.detail
    assert "65,504" in gate.detail
    assert accuracy(subject, variant, "fp16", num_images=16)[0] < 30


@pytest.mark.parametrize(("net", "layer", "least", "op"), OVERFLOWING)
def test_what_makes_and_takes_them_stays_float32(
    net: type[Net], layer: str, least: float, op: str
) -> None:
    subject, graph = subject_of(net)
    found = what_overflows(subject, graph)
    assert found.layers.keys() == {layer}
    assert least < found.layers[layer] < 1e9
    variant = convert(graph, "fp16", keep=found.nodes)
    gate = overflow_gate(subject, variant)
    assert gate.passed
    assert f"kept in float32: {layer} (values up to " in gate.detail
    assert all(gate.passed for gate in numeric_gates(subject, variant, "fp16"))
    weights = {w.name: w.data_type for w in onnx.load_from_string(variant).graph.initializer}
    assert weights["generator.fc.weight_fp16"] == TensorProto.FLOAT16


@pytest.mark.parametrize(("net", "value"), [(LargeConstant, r"1e\+06"), (Masked, "inf")])
def test_a_constant_beyond_fp16_stays_float32(net: type[Net], value: str) -> None:
    subject, graph = subject_of(net)
    with pytest.raises(ExportError, match=f"largest value {value} does not fit fp16"):
        convert(graph, "fp16")
    variant = convert(graph, "fp16", keep=what_overflows(subject, graph).nodes)
    assert overflow_gate(subject, variant).passed
    assert all(gate.passed for gate in numeric_gates(subject, variant, "fp16"))


def test_what_fp16_rounds_to_zero_stays_float32_where_it_is_divided_by() -> None:
    subject, graph = subject_of(Vanishing)
    gate = overflow_gate(subject, convert(graph, "fp16"))
    assert not gate.passed
    assert "layer conv: Div node_div gives infinity" in gate.detail
    found = what_overflows(subject, graph)
    assert found.layers == {"conv": None}
    variant = convert(graph, "fp16", keep=found.nodes)
    assert all(gate.passed for gate in numeric_gates(subject, variant, "fp16"))


def test_the_largest_values_are_those_of_the_network() -> None:
    subject, graph = subject_of(Plain)
    first = next(t for t in largest_values(subject, graph, "fp32") if t.node == "fc")
    half = next(
        t for t in largest_values(subject, convert(graph, "fp16"), "fp16") if t.node == "fc"
    )
    assert (first.layer, first.op, first.in_half, half.in_half) == ("fc", "Gemm", False, True)
    z = torch.from_numpy(probes(subject, 64)[0].z)
    exact = float(subject.network.fc(z).abs().max())
    assert first.largest == pytest.approx(exact, rel=1e-5)
    assert half.largest == pytest.approx(exact, rel=1e-2)


def test_a_search_keeps_what_overflows_besides() -> None:
    subject, graph = subject_of(Demodulated)
    nodes = what_overflows(subject, graph).nodes
    assert keep_worst_layers(subject, graph, "fp16", 55, calibration={}, keep=nodes).layers == {}
    with pytest.raises(ExportError, match="with every layer in fp32"):
        keep_worst_layers(subject, graph, "fp16", 55, calibration={})


def test_a_shipped_graph_that_overflows_is_found_by_the_gates() -> None:
    """Such as verify of a bundle that was written before."""
    subject, graph = subject_of(Demodulated)
    prover = Prover(subject, None, num_images=1000)
    checked = dict(prover.check_graphs({"fp32": graph, "fp16": convert(graph, "fp16")}))
    assert all(gate.passed for gate in checked["fp32"])
    gates = checked["fp16"]
    failed = {gate.gate: gate for gate in gates if not gate.passed}
    assert {gate.artifact for gate in failed.values()} == {"onnx fp16 (emulated)"}
    assert "layer conv: Pow " in failed["largest value / 65,504"].detail


def test_an_export_keeps_and_names_them(gan, tmp_path: Path) -> None:
    source = Path(__file__).read_text()
    (tmp_path / "nets.py").write_text(source + "\n\ndef make() -> Net:\n    return Demodulated()\n")
    told = gan(
        "export", "--module", "nets:make", "--set", "z_dim=16", "--num", 1000, "-o", "x.gan",
        "--precision", "fp16", cwd=tmp_path,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "fp16: kept in fp32, which alone holds it: conv (values up to " in told.stdout
    with Bundle(tmp_path / "x.gan") as bundle:
        kept = json.loads(bundle.read("parity.json"))["kept_in_fp32"]
        gates = [g for g in bundle.manifest.parity if g.gate.startswith("largest value")]
    assert kept["fp16"]["overflowing"]["conv"] > 1e6
    assert "kept in float32: conv" in gates[0].detail
