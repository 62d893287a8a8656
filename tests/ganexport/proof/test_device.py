"""Where torch's images are drawn; the CPU stands for a GPU, the road to which is the same."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganexport.proof import device
from ganexport.proof.reference import drawn_by_torch, exact_images, probes, run_torch
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module


class Layers(nn.Module):
    """here: what the forward takes for the device of its weights."""

    def __init__(self, here: str = "cpu") -> None:
        super().__init__()
        self.first, self.here = nn.Linear(8, 8 * 16), here
        self.second = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = torch.relu(self.first(z)).view(-1, 8, 4, 4)
        return torch.tanh(self.second(x) + torch.zeros(1, device=self.here))


def subject() -> Subject:
    torch.manual_seed(0)
    return of_module(Layers().eval(), Spec(z_dim=8))


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpu", lambda: torch.device("cpu"))


def test_channels_last_or_not_are_the_same_images() -> None:
    own = subject()
    inputs, _ = probes(own, 40)
    np.testing.assert_allclose(drawn_by_torch(own, inputs), run_torch(own, inputs), atol=1e-6)
    own.network.second.weight.data *= 2  # the network itself is left as it is
    assert own.network.second.weight.is_contiguous()


@pytest.mark.usefixtures("_gpu")
def test_a_gpu_draws_the_images_of_the_cpu() -> None:
    own = subject()
    inputs, _ = probes(own, 40)
    assert device._on_gpu(own, torch.float64, torch.device("cpu")) is not None
    np.testing.assert_allclose(drawn_by_torch(own, inputs), run_torch(own, inputs), atol=1e-6)
    exact = torch.cat([own.precisely(inputs.rows(n, n + 1)) for n in range(40)])
    np.testing.assert_allclose(exact_images(own, inputs), exact.numpy(), atol=1e-14)


@pytest.mark.usefixtures("_gpu")
def test_a_network_that_does_not_run_there_is_drawn_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, real = subject(), device.cast
    inputs, _ = probes(own, 4)
    expected = run_torch(own, inputs)

    def elsewhere(network: nn.Module, dtype: torch.dtype, place: torch.device) -> nn.Module:
        moved = real(network, dtype, place)
        moved.here = "meta"  # as a forward that names the CPU is on another device than a GPU's
        return moved

    monkeypatch.setattr(device, "cast", elsewhere)
    assert device._on_gpu(own, torch.float32, torch.device("cpu")) is None
    np.testing.assert_allclose(drawn_by_torch(own, inputs), expected, atol=1e-6)


@pytest.mark.usefixtures("_gpu")
def test_a_network_that_draws_other_images_there_is_drawn_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, real = subject(), device.cast

    def wrong(network: nn.Module, dtype: torch.dtype, place: torch.device) -> nn.Module:
        moved = real(network, dtype, place)
        moved.second.bias.data += 0.1
        return moved

    monkeypatch.setattr(device, "cast", wrong)
    assert device._on_gpu(own, torch.float32, torch.device("cpu")) is None
