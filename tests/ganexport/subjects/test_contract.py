"""What the gates take for granted is looked at first: planted faults, each named."""

import pytest
import torch
from torch import Tensor, nn

from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer.errors import ExportError


class Net(nn.Module):
    def __init__(self, middle: nn.Module | None = None, last: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 48)
        self.middle = nn.Identity() if middle is None else middle
        self.last = nn.Tanh() if last is None else last

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.middle(self.first(z)).reshape(-1, 3, 4, 4))


class Batch(nn.Module):
    """Normalises by the batch, as batch norm in training does."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0, correction=0) + 1e-3)


class Masking(nn.Module):
    """Draws by other means than noise is drawn."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.5))


class InPlace(nn.Module):
    """Another image at another place of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(len(x))[:, None]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class Forced(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True)


class Kept(nn.BatchNorm1d):
    """Stays in training whatever it is told."""

    def train(self, mode: bool = True) -> "Kept":
        return super().train(True)


class ByHand(Net):
    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z)
        return self.last((x - x.mean(0)).reshape(-1, 3, 4, 4))


class Even(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert len(x) % 2 == 0 or len(x) == 1, "even batches"
        return x


class Scaled(nn.Module):
    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * self.scale + self.shift


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Net(nn.BatchNorm1d(48, track_running_stats=False)), "for 1 images.*running statistics"),
        (
            Net(nn.Sequential(nn.Unflatten(1, (3, 16)), Forced(3), nn.Flatten())),
            r"batch of 16 than in one of .*middle.1 \(Forced\).*running statistics",
        ),
        (Net(nn.Sequential(nn.ReLU(), Batch())), r"in layer middle.1 \(Batch\)"),
        (Net(InPlace()), r"another one in a batch of 16.*middle \(InPlace\)"),
        (Net(Masking()), r"something random is drawn inside, in layer middle \(Masking\)"),
        (Net(Kept(48)), r"layer middle normalises by the batch at hand.* keeps training on"),
        (ByHand(), r"batch of 16.*, in forward itself, after layer first \(Linear\)"),
        (Net(Counting()), r"changes middle.calls;"),
        (Net(Even()), "fails for 3 images at once: AssertionError: even batches"),
        (Net(Scaled(float("nan"), 0)), "NaN or infinite"),
    ],
)
def test_a_broken_promise_is_named(module: Net, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        of_module(module, Spec(z_dim=6))


@pytest.mark.parametrize(
    ("last", "output_range"),
    [(nn.Sigmoid(), "0:1"), (Scaled(127.5, 127.5), "0:255"), (nn.Sigmoid(), "-1:1")],
)
def test_a_range_that_is_said_is_taken(last: nn.Module, output_range: str) -> None:
    subject = of_module(Net(last=last), Spec(z_dim=6, output_range=output_range))
    images = subject.network(torch.randn(8, 6))
    assert -1.001 <= float(images.min()) <= float(images.max()) <= 1.001
    assert (float(images.min()) < -0.5) == (output_range != "-1:1")


def test_imagenets_normalisation_is_undone() -> None:
    class Normalised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
            return (torch.sigmoid(x) - mean) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    module = Net(last=Normalised())
    subject = of_module(module, Spec(z_dim=6, output_range="imagenet"))
    z = torch.randn(8, 6)
    unit = torch.sigmoid(module.first(z).reshape(-1, 3, 4, 4))
    torch.testing.assert_close(subject.network(z), unit * 2 - 1, atol=1e-5, rtol=0)


def test_a_batch_norm_with_its_statistics_keeps_the_promise() -> None:
    module = Net(nn.Sequential(nn.BatchNorm1d(48), nn.Dropout(0.5)))
    for _ in range(3):
        module(torch.randn(32, 6))
    assert of_module(module, Spec(z_dim=6)).notes == ()
