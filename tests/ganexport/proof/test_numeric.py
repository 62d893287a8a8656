"""Gates whose limits are a network's own rounding; networks as others write them."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ganexport.graph import tracing as graph_module
from ganexport.graph.precision import convert
from ganexport.options import ExportOptions
from ganexport.pipeline import export
from ganexport.proof.numeric import numeric_gates
from ganexport.proof.reference import reference_of
from ganexport.proof.rounding import Allowed, Deviation, least_uint8_psnr_db
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module, of_run
from ganinfer import Sampler
from ganinfer.bundle.manifest import GateResult
from gantrain.runs.checkpoint import load_generator


class Fourier(nn.Module):
    """Sines of large numbers: float32 itself is 1e-5 off, and fp16 has no digits left."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(8 * torch.randn(8, 32))
        self.out = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3 * 8 * 8))

    def forward(self, z: Tensor) -> Tensor:
        phase = 2 * math.pi * z @ self.frequencies
        features = torch.cat([phase.sin(), phase.cos()], dim=1)
        return torch.tanh(self.out(features)).view(-1, 3, 8, 8)


class PixelNorm(nn.Module):
    """As ProGAN has it, behind a ReLU: pixels of zeros, which the epsilon alone keeps finite."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 4 * 64), nn.Conv2d(4, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = torch.relu(self.first(z).view(-1, 4, 8, 8))
        return torch.tanh(self.last(x * torch.rsqrt((x**2).mean(1, keepdim=True) + 1e-8)))


class Narrow(nn.Module):
    """Its forward leaves float64 in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 3 * 8 * 8)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.out(z.float().to(self.out.weight.dtype))).view(-1, 3, 8, 8)


class Buffers(Narrow):
    """The same, without a parameter."""

    def __init__(self) -> None:
        super().__init__()
        weight = self.out.weight.detach()
        del self.out
        self.register_buffer("weight", weight)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z.float().to(self.weight.dtype) @ self.weight.T).view(-1, 3, 8, 8)


class Saturated(nn.Module):
    """Behind a tanh that is nearly 1, where torch is exact and onnxruntime four digits off."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 3 * 8 * 8)

    def forward(self, z: Tensor) -> Tensor:
        x = self.out(z)
        return torch.tanh(x + 6.5 * torch.sign(x)).view(-1, 3, 8, 8)


class OneColour(nn.Module):
    """All pixels of all images are one number, whose error is a chance."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.tensor(-0.9))

    def forward(self, z: Tensor) -> Tensor:
        return (torch.tanh(self.colour) + 0 * z[:, :1]).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


class PlainAttribute(nn.Module):
    """A constant that is no buffer, in float64, as NumPy gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 3 * 8 * 8)
        self.grid = torch.from_numpy(np.linspace(-1, 1, 8))

    def forward(self, z: Tensor) -> Tensor:
        x = self.out(z).view(-1, 3, 8, 8)
        return torch.tanh(x * self.grid)


def subject_of(net: type[nn.Module], z_dim: int = 8) -> Subject:
    torch.manual_seed(0)
    return of_module(net().eval(), Spec(z_dim=z_dim))


def failed(gates: list[GateResult]) -> set[str]:
    return {gate.gate for gate in gates if not gate.passed}


def test_numeric_gates_pass_for_an_honest_graph(run: Path) -> None:
    subject = of_run(load_generator(run))
    data = graph_module.to_onnx(subject.twin(), z_dim=16, num_classes=3)
    assert failed(numeric_gates(subject, data, "fp32")) == set()


RIGHT = [Fourier, PixelNorm, Narrow, Buffers, Saturated, OneColour, PlainAttribute]


@pytest.mark.parametrize("net", RIGHT)
def test_a_right_export_passes_whatever_float32_does_to_it(net: type[nn.Module]) -> None:
    subject = subject_of(net)
    gates = numeric_gates(subject, subject.to_onnx(subject.twin()), "fp32")
    assert failed(gates) == set()
    detail = next(gate.detail for gate in gates if gate.gate == "error / rounding")
    assert ("from torch in float64" in detail) == (not issubclass(net, Narrow))


def test_fourier_features_are_beyond_fp16_and_that_is_no_fault_of_the_conversion() -> None:
    subject = subject_of(Fourier)
    assert reference_of(subject).allowed.own.largest > 1e-6
    graph = subject.to_onnx(subject.twin())
    assert failed(numeric_gates(subject, convert(graph, "fp16"), "fp16")) <= {
        "PSNR, dB",
        "PSNR uint8, dB",
        "worst image uint8, dB",
    }


def test_an_epsilon_stays_in_the_graph_and_leaving_it_out_is_found() -> None:
    subject = subject_of(PixelNorm)
    graph = onnx.load_from_string(subject.to_onnx(subject.twin()))
    epsilons = [w for w in graph.graph.initializer if numpy_helper.to_array(w).size == 1]
    epsilon = next(w for w in epsilons if 0 < numpy_helper.to_array(w).item() < 1e-7)
    epsilon.CopyFrom(numpy_helper.from_array(np.float32(0), epsilon.name))
    assert "error / rounding" in failed(numeric_gates(subject, graph.SerializeToString(), "fp32"))


def test_weights_of_eight_bits_are_more_than_fp16_rounding() -> None:
    subject = subject_of(PlainAttribute)
    graph = onnx.load_from_string(subject.to_onnx(subject.twin()))
    weight = next(w for w in graph.graph.initializer if w.name.endswith("out.weight"))
    array = numpy_helper.to_array(weight)
    step = np.abs(array).max() / 127
    weight.CopyFrom(numpy_helper.from_array((array / step).round() * step, weight.name))
    for precision in ("fp32", "fp16"):
        variant = convert(graph.SerializeToString(), precision)
        assert "error / rounding" in failed(numeric_gates(subject, variant, precision))


def test_a_shipped_graph_whose_images_depend_on_each_other_is_named() -> None:
    class Centred(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, z: Tensor) -> Tensor:
            return self.network(z - 0.5 * z.mean(dim=0, keepdim=True))

    subject = subject_of(PlainAttribute)
    graph = subject.to_onnx(Centred(subject.twin()))
    gates = {gate.gate: gate for gate in numeric_gates(subject, graph, "fp32")}
    alone = gates["alone and in a batch, dB"]
    assert not alone.passed
    assert "makes an image depend on those it is drawn with" in alone.detail


class Squeezed(nn.Module):
    """A dimension of one taken away, and for a single image the batch with it and put back."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 3 * 8 * 8)

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, :, None, None].squeeze()
        x = x[None] if x.dim() == 1 else x
        return torch.tanh(self.out(x)).view(-1, 3, 8, 8)


def test_a_squeeze_leaves_a_batch_of_one_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = ExportOptions(precisions=["fp32"], num_images=1000)
    exported = export(Squeezed().eval(), Spec(z_dim=8), tmp_path / "x.gan", options)
    with Sampler(exported.path) as sampler:
        assert sampler.sample(1, seed=3).shape == (1, 8, 8, 3)


def test_uint8_limits_do_not_contradict_those_before_rounding() -> None:
    rng = np.random.default_rng(0)
    for psnr in (35.0, 45.0, 55.0, 65.0):
        exact = rng.uniform(-1, 1, 200_000)
        exact[::2] = 0.0  # on a boundary: 127.5
        noise = rng.normal(0, 2 * 10 ** (-psnr / 20), exact.shape)
        steps = np.rint((exact + 1) * 127.5) - np.rint((exact + noise).clip(-1, 1) * 127.5 + 127.5)
        assert 10 * np.log10(255**2 / np.mean(steps**2)) >= least_uint8_psnr_db(psnr) - 0.05


def test_a_value_that_is_no_number_is_infinitely_far() -> None:
    images = np.zeros((2, 1, 4, 4))
    broken = images.copy()
    broken[1, 0, 0, 0] = np.nan
    assert Deviation.of(broken, images).largest == math.inf
    assert Allowed(Deviation.of(images, images)).largest > 0


def test_gates_of_images_that_are_no_numbers_fail_and_can_be_said_in_json() -> None:
    subject = subject_of(PlainAttribute)
    graph = onnx.load_from_string(subject.to_onnx(subject.twin()))
    weight = next(w for w in graph.graph.initializer if w.name.endswith("out.bias"))
    weight.CopyFrom(numpy_helper.from_array(np.full(3 * 8 * 8, np.nan, np.float32), weight.name))
    gates = numeric_gates(subject, graph.SerializeToString(), "fp16")
    assert failed(gates) >= {"error / rounding", "PSNR, dB"}
    json.dumps([gate.model_dump() for gate in gates], allow_nan=False)


def test_what_fails_is_left_out_and_what_is_proven_ships(tmp_path: Path) -> None:
    torch.manual_seed(0)
    exported = export(
        Fourier().eval(),
        Spec(z_dim=8),
        tmp_path / "x.gan",
        ExportOptions(precisions=["fp16"], num_images=1000),
    )
    assert {gate.artifact for gate in exported.gates} == {"onnx fp32"}
    (left,) = exported.left_out
    assert left.artifact == "fp16"
    assert "gate 'PSNR, dB' of onnx fp16 (emulated)" in left.why
    assert "--auto-precision 55dB" in left.why
    kept = export(
        Fourier().eval(),
        Spec(z_dim=8),
        tmp_path / "y.gan",
        ExportOptions(precisions=["fp16"], num_images=1000, keep=["input"]),
    )
    assert kept.kept["fp16"].named == ("input",)
