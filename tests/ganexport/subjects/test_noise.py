"""Noise that a generator takes or draws, and dropout that it keeps on: one answer for each."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.subjects.outside import of_factory
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.images import to_uint8
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ConfigError, ExportError

SIZE = 8


class Net(nn.Module):
    """tanh images of 8x8, of what a test makes of the features (N, 3, 8, 8) and a noise."""

    def __init__(self, change: Callable = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 3 * SIZE * SIZE)
        self._change = change

    def features(self, z: Tensor) -> Tensor:
        return self.layer(z).reshape(-1, 3, SIZE, SIZE)

    def forward(self, z: Tensor) -> Tensor:
        return self._change(self.features(z)).tanh()


class Taking(Net):
    def forward(self, z: Tensor, noise) -> Tensor:
        return self._change(self.features(z), noise).tanh()


class Conditional(Net):
    def forward(self, z: Tensor, y: Tensor, input_noise: Tensor) -> Tensor:
        return (self.features(z + y[:, None]) + input_noise).tanh()


def normal(seed: int, *shape: int) -> Tensor:
    """A noise as it is kept."""
    return torch.from_numpy(draw_latents([seed], int(np.prod(shape)))).reshape(shape)


def shipped_and_torchs(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images of five seeds: of the exported graph, and of the subject."""
    inputs = draw_inputs(subject.model, range(5), np.arange(5) % 2 if subject.num_classes else None)
    backend = OnnxRuntimeBackend(subject.to_onnx(subject.twin()), "cpu", "fp32")
    with torch.no_grad():
        images = to_uint8(subject(inputs).numpy())
    return backend.run(inputs).astype(int), images.transpose(0, 2, 3, 1).astype(int)


def map_of(x: Tensor) -> tuple[int, ...]:
    return (x.shape[0], 1, SIZE, SIZE)


MAP = (1, 1, SIZE, SIZE)
DRAWN = [
    (lambda x: x + torch.randn(map_of(x)), normal(0, *MAP)),
    (lambda x: x + torch.randn(*map_of(x), device=x.device), normal(0, *MAP)),
    (lambda x: x + torch.randn_like(x), normal(0, 1, 3, SIZE, SIZE)),
    (lambda x: x + x.new_empty(map_of(x)).normal_(1.0, 0.5), 1 + 0.5 * normal(0, *MAP)),
    (lambda x: x + torch.randn(3, SIZE, SIZE), normal(0, 3, SIZE, SIZE)),
    (
        lambda x: x + torch.randn(map_of(x)) - torch.randn(size=map_of(x)),
        normal(0, *MAP) - normal(1, *MAP),
    ),
    (
        lambda x: x + torch.randn(x.shape, generator=torch.Generator().manual_seed(5)),
        normal(0, 1, 3, SIZE, SIZE),
    ),
]


@pytest.mark.parametrize(("change", "noise"), DRAWN)
def test_noise_that_forward_draws_is_drawn_once_and_kept(change, noise: Tensor) -> None:
    module = Net(change)
    subject = of_module(module, Spec(z_dim=6))
    assert "draws" in subject.notes[0]
    assert "drawn once and kept" in subject.notes[0]
    z = torch.randn(5, 6)
    assert torch.allclose(subject.network(z), (module.features(z) + noise).tanh(), atol=1e-6)
    assert subject.precise is not None
    shipped, expected = shipped_and_torchs(subject)
    assert np.abs(shipped - expected).max() <= 1


def test_uniform_noise_is_uniform() -> None:
    module = Net(lambda x: x + torch.rand_like(x) - x.new_empty(map_of(x)).uniform_(-2, 2))
    subject = of_module(module, Spec(z_dim=6))
    first = (torch.from_numpy(draw_latents([0], 192, distribution="uniform")) + 1) / 2
    second = torch.from_numpy(draw_latents([1], 64, distribution="uniform")) * 2
    noise = first.reshape(1, 3, SIZE, SIZE) - second.reshape(MAP)
    z = torch.randn(5, 6)
    assert torch.allclose(subject.network(z), (module.features(z) + noise).tanh(), atol=1e-6)


def test_noise_can_be_off() -> None:
    module = Net(DRAWN[0][0])
    subject = of_module(module, Spec(z_dim=6, noise="off"))
    assert subject.notes[0].endswith("is off, as noise=off says")
    z = torch.randn(5, 6)
    assert torch.equal(subject.network(z), module.features(z).tanh())


@pytest.mark.parametrize(
    ("module", "options", "noise", "note"),
    [
        (Taking(lambda x, n: x + n), {}, normal(0, *MAP), "(N, 1, 8, 8) after z"),
        (
            Taking(lambda x, n: x + n[:, : x.shape[2], : x.shape[3]].permute(0, 3, 1, 2)),
            {},
            normal(0, 1, SIZE, SIZE, 1).permute(0, 3, 1, 2),
            "(N, 8, 8, 1) after z",
        ),
        (
            Taking(lambda x, n: x + n[:, :, None, None]),
            {"noise_shape": [3]},
            normal(0, 1, 3, 1, 1),
            "(N, 3) after z",
        ),
        (
            Taking(lambda x, n: x + functional.interpolate(n[0], scale_factor=2.0) + n[1]),
            {"noise_shape": [[1, 4, 4], [1, 8, 8]]},
            functional.interpolate(normal(0, 1, 1, 4, 4), scale_factor=2.0) + normal(1, *MAP),
            "a list of (N, 1, 4, 4), (N, 1, 8, 8) after z",
        ),
    ],
)
def test_noise_that_is_an_argument_is_found_or_named(module, options, noise, note) -> None:
    subject = of_module(module, Spec(z_dim=6, **options))
    assert f"noise is taken as {note}" in subject.notes[0]
    z = torch.randn(5, 6)
    assert torch.allclose(subject.network(z), (module.features(z) + noise).tanh(), atol=1e-6)
    shipped, expected = shipped_and_torchs(subject)
    assert np.abs(shipped - expected).max() <= 1


def test_noise_follows_the_classes() -> None:
    module = Conditional()
    subject = of_module(module, Spec(z_dim=6, classes=2))
    z, y = torch.randn(4, 6), torch.tensor([1, 0, 1, 0])
    assert torch.allclose(subject.network(z, y), module(z, y, normal(0, *MAP)), atol=1e-6)
    shipped, expected = shipped_and_torchs(subject)
    assert np.abs(shipped - expected).max() <= 1


@pytest.mark.parametrize(
    "dropout",
    [
        lambda x: functional.dropout(x, 0.5, training=True),
        lambda x: functional.dropout2d(x),
        nn.Dropout(0.5).train().forward,
    ],
)
def test_dropout_that_is_kept_on_is_off_and_said(dropout) -> None:
    module = Net(dropout)
    subject = of_module(module, Spec(z_dim=6))
    assert subject.notes == ("dropout, which its forward keeps on, is off",)
    z = torch.randn(5, 6)
    assert torch.equal(subject.network(z), module.features(z).tanh())
    shipped, expected = shipped_and_torchs(subject)
    assert np.abs(shipped - expected).max() <= 1


def unequal(x: Tensor) -> Tensor:
    for _ in range(len(x)):
        x = x + torch.randn(3, SIZE, SIZE)
    return x


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (
            Net(lambda x: x + torch.randn(3 * len(x), SIZE, SIZE).reshape(x.shape)),
            {},
            r"draws noise \(6, 8, 8\) for two images; expected .*\(N, \.\.\.\)",
        ),
        (Net(unequal), {}, "draws noise a varying number of times"),
        (Net(), {"noise": "off"}, "noise=off: Net takes no noise and draws none; leave it out"),
        (Taking(lambda x, n: x + n[0] + n[1]["a"]), {}, r"needs noise, .*noise_shape=\[1,32,32\]"),
        (Taking(lambda x, n: x + n), {"noise_shape": [1, 5, 5]}, "does not take z"),
        (Net(lambda x: x.reshape(64, 3, 8, 8)), {}, "takes 64 latents at once, and not 2.*-1 in"),
    ],
)
def test_what_has_no_answer_is_refused(module: Net, options: dict, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        of_module(module, Spec(z_dim=6, **options))


@pytest.mark.parametrize("shape", [[0], ["a"], [[1, 4], [True]], [1, [4, 4]]])
def test_a_shape_that_no_noise_has_is_refused(shape: list) -> None:
    with pytest.raises(ExportError, match="noise_shape: found .*; expected a shape"):
        Spec(z_dim=6, noise_shape=shape)


def make() -> nn.Module:
    return Net(DRAWN[0][0])


def test_the_command_line_says_the_same() -> None:
    from pathlib import Path

    place = f"{Path(__file__)}:make"
    subject = of_factory(place, None, None, {"z_dim": 6, "noise": "off"})
    assert "is off" in subject.notes[0]
    with pytest.raises(ConfigError, match="noise"):
        of_factory(place, None, None, {"z_dim": 6, "noise": "on"})
