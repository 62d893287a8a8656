"""Generators as their authors write them: what they take and give is found by trying."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer.errors import ExportError


class Net(nn.Module):
    """tanh images of 8x8 in whatever form a test wants them."""

    def __init__(self, given=lambda x: x, latent=lambda z: z, channels: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(6, channels * 64)
        self._given, self._latent, self._channels = given, latent, channels
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, z):
        z = self._latent(z)
        return self._given(self.layer(z).tanh().reshape(-1, self._channels, 8, 8))


class Conditional(Net):
    def __init__(self, code) -> None:
        super().__init__()
        self._code = code

    def forward(self, z, y):
        return super().forward(z + self._code(y))


class LabelsFirst(Net):
    def forward(self, labels, z):
        return super().forward(z + labels[:, None])


def expect(condition: bool, x: Tensor) -> Tensor:
    if not condition:
        raise ValueError(f"found {tuple(x.shape)}")
    return x


NHWC = (0, 2, 3, 1)


@pytest.mark.parametrize(
    ("module", "notes"),
    [
        (Net(), ()),
        (Net(latent=lambda z: expect(z.dim() == 4, z).flatten(1)), ("z is taken as (N, 6, 1, 1)",)),
        (Net(latent=lambda z: expect(z.dim() == 3, z)[:, 0]), ("z is taken as (N, 1, 6)",)),
        (
            Net(latent=lambda styles: styles[0] if isinstance(styles, list) else 1 / 0),
            ("z is taken as a list of one (N, 6)",),
        ),
        (Net(lambda x: (x, x[:, :1])), ("of what it gives, output[0] is the image",)),
        (Net(lambda x: {"w": x.mean((1, 2)), "img": x}), ("output['img'] is the image",)),
        (Net(lambda x: [x[:, :, ::2, ::2], x]), ("of what it gives, output[1] is the image",)),
        (Net(lambda x: x.permute(NHWC)), ("images are taken as nhwc: 8x8x3",)),
        (Net(lambda x: x.flatten(1)), ("images are taken as flat: 8x8x3",)),
        (Net(lambda x: x.flatten(1), channels=1), ("images are taken as flat: 8x8x1",)),
        (Net(torch.Tensor.double), ()),
        (Net(channels=4), ("images are 8x8x4 (height, width, channels), taken as RGBA",)),
        (Net(channels=2), ("images are 8x8x2 (height, width, channels), two planes",)),
        (
            Net(lambda x: x.permute(NHWC), channels=4),
            ("images are taken as nhwc: 8x8x4", "taken as RGBA"),
        ),
        (Net(lambda x: (x, x[:, :1]), channels=4), ("output[0] is the image", "taken as RGBA")),
    ],
)
def test_forms_are_found_and_said(module: Net, notes: tuple[str, ...]) -> None:
    subject = of_module(module, Spec(z_dim=6))
    assert len(subject.notes) == len(notes)
    assert all(note in said for note, said in zip(notes, subject.notes, strict=True))
    z = torch.randn(5, 6)
    expected = module.layer(z).tanh().reshape(5, -1, 8, 8)
    assert torch.equal(subject.network(z), expected)
    assert torch.equal(subject.twin()(z), expected)


@pytest.mark.parametrize(
    ("module", "note"),
    [
        (Conditional(nn.Embedding(4, 6)), None),
        (Conditional(nn.Linear(4, 6, bias=False)), "y is taken as one-hot float32 (N, 4)"),
        (LabelsFirst(), "y is taken before z"),
    ],
)
def test_labels_are_taken_as_they_are_wanted(module: Net, note: str | None) -> None:
    subject = of_module(module, Spec(z_dim=6, classes=4))
    assert subject.notes == (() if note is None else (note,))
    assert subject.model.classes == ["0", "1", "2", "3"]
    z, y = torch.randn(4, 6), torch.tensor([3, 2, 1, 0])
    code = {
        "Conditional": lambda: module._code(
            y if isinstance(module._code, nn.Embedding) else nn.functional.one_hot(y, 4).float()
        ),
        "LabelsFirst": lambda: y[:, None],
    }[type(module).__name__]()
    expected = module.layer(z + code).tanh().reshape(4, 3, 8, 8)
    assert torch.equal(subject.network(z, y), expected)


def test_a_form_becomes_part_of_the_graph() -> None:
    """A one-hot label, an image in a tuple, on [0, 1]: a bundle's own z and y, and uint8."""
    from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
    from ganinfer.drawing.inputs import draw_inputs

    class Half(Conditional):
        def forward(self, z, y):
            return (super().forward(z, y) + 1) / 2, z

    module = Half(nn.Linear(4, 6, bias=False))
    subject = of_module(module, Spec(z_dim=6, classes=4, output_range="0:1"))
    backend = OnnxRuntimeBackend(subject.to_onnx(subject.twin()), "cpu", "fp32")
    inputs = draw_inputs(subject.model, range(3), np.array([0, 3, 2]))
    y = nn.functional.one_hot(torch.from_numpy(inputs.y), 4).float()
    with torch.no_grad():
        unit = module(torch.from_numpy(inputs.z), y)[0].permute(NHWC).numpy()
    assert np.abs(backend.run(inputs) - unit * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("module", "classes", "message"),
    [
        (Conditional(nn.Embedding(4, 6)), 5, "It embeds 4 classes, and 5 were named"),
        (Conditional(nn.Embedding(4, 6)), 0, "Does it take classes"),
        (
            Net(lambda x: x.reshape(-1, 12, 4, 4)),
            0,
            r"gives torch.float32 \(2, 12, 4, 4\) .*expected images .* A wrapper: class G",
        ),
        (Net(lambda x: x.reshape(-1, 192, 1, 1)), 0, r"gives torch.float32 \(2, 192, 1, 1\)"),
        (Net(lambda x: x > 0), 0, r"gives torch.bool \(2, 3, 8, 8\)"),
        (Net(lambda x: {"a": 1}), 0, "gives dict of no tensors"),
    ],
)
def test_what_fits_no_form_is_refused(module: Net, classes: int, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        of_module(module, Spec(z_dim=6, classes=classes))


@pytest.mark.parametrize(
    ("given", "shape", "note"),
    [
        (lambda x: x[..., :5], (8, 5, 3), "images are 8x5x3 (height, width, channels)"),
        (lambda x: x[:, :, :5], (5, 8, 3), "images are 5x8x3 (height, width, channels)"),
        (lambda x: x[:, :, :5].permute(NHWC), (5, 8, 3), "images are taken as nhwc: 5x8x3"),
        (lambda x: x[:, :, :4, :4].permute(NHWC), (4, 4, 3), "images are taken as nhwc: 4x4x3"),
        (lambda x: x[:, :, :4].permute(NHWC), (4, 8, 3), "images are taken as nhwc: 4x8x3"),
    ],
)
def test_height_and_width_are_told_apart(given, shape: tuple[int, int, int], note: str) -> None:
    subject = of_module(Net(given), Spec(z_dim=6))
    assert subject.model.shape == shape
    assert subject.notes[0] == note
    height, width, channels = shape
    assert subject.network(torch.randn(5, 6)).shape == (5, channels, height, width)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_imagenets_range_is_of_rgb_alone(channels: int) -> None:
    with pytest.raises(ExportError, match=f"images of {channels} channels, and output_range image"):
        of_module(Net(channels=channels), Spec(z_dim=6, output_range="imagenet"))


def test_fewer_classes_than_the_network_embeds_are_said() -> None:
    subject = of_module(Conditional(nn.Embedding(4, 6)), Spec(z_dim=6, classes=["cat", "dog"]))
    assert subject.notes == ("it embeds 4 classes, and the first 2 of them are named",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z_dim": 0}, "z_dim: found 0; expected the length"),
        ({"z_dim": "6"}, "z_dim: found '6'"),
        ({"classes": ["a", "b", "a"]}, "'a' is there twice"),
        ({"classes": "ab"}, "classes: found 'ab'; expected their names, or how many"),
        ({"classes": [1, 2]}, "classes: found 1; expected a name"),
        ({"classes": -1}, "classes: found -1"),
        ({"z_distribution": "gausian"}, "did you mean 'gaussian'"),
        ({"z_distribution": "U(0, 1)"}, r"\(z \+ 1\) / 2"),
        ({"truncation": 0}, "truncation: found 0"),
        ({"truncation": 0.7, "z_distribution": "uniform"}, "only a normal latent"),
        ({"output_range": "0:2"}, "output_range: found '0:2'"),
    ],
)
def test_names_and_numbers_are_not_taken_on_trust(options: dict, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        Spec(**{"z_dim": 6} | options)


def test_synonyms_mean_what_they_say() -> None:
    names = {"Normal": "normal", "GAUSSIAN": "normal", "N(0, 1)": "normal", "Uniform": "uniform"}
    assert {name: Spec(6, z_distribution=name).z_distribution for name in names} == names
    assert Spec(6, range(3)).class_names == Spec(6, 3).class_names == ["0", "1", "2"]
