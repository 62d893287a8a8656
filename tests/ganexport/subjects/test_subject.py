"""Any generator: a module and a few words about it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganexport.options import ExportOptions
from ganexport.pipeline import export
from ganexport.subjects.outside import of_factory
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer import Sampler
from ganinfer.errors import Ending, ExportError
from ganinfer.verify import verify_host


class Somebodys(nn.Module):
    """A small generator of another project's, with both kinds of spectral norm."""

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Linear(8, 16 * 4 * 4))
        self.norm = nn.BatchNorm2d(16)
        self.up = torch.nn.utils.spectral_norm(nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1))
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.classes = nn.Embedding(num_classes, 8) if num_classes else None

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.classes is not None:
            z = z + self.classes(y)
        x = torch.relu(self.norm(self.first(z).unflatten(1, (16, 4, 4))))
        return torch.tanh(4 * self.last(torch.relu(self.up(x))))


def trained(num_classes: int = 0) -> Somebodys:
    torch.manual_seed(0)
    module = Somebodys(num_classes).train()
    for _ in range(5):  # batch norm and spectral norm have seen something
        module(torch.randn(32, 8), torch.zeros(32, dtype=torch.int64))
    return module


def test_a_module_becomes_a_bundle_that_is_that_module(tmp_path: Path) -> None:
    module = trained()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    made = export(module, Spec(z_dim=8), tmp_path / "x.gan", ExportOptions(num_images=1000))
    assert {gate.gate for gate in made.gates} >= {"max error", "paired FID / floor"}
    assert "FID change" not in {gate.gate for gate in made.gates}  # to no data
    assert module.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    with Sampler(made.path) as sampler:
        assert sampler.info["family"] == "custom"
        assert sampler.dataset_sha256 is None
        z = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
        found = sampler.generate(z)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(z)).permute(0, 2, 3, 1)
    assert np.abs(found - ((expected.numpy() + 1) * 127.5)).max() <= 0.5 + 1e-3
    assert all(gate.passed for gate in verify_host(made.path))


def test_classes_have_names(tmp_path: Path) -> None:
    spec = Spec(z_dim=8, classes=["cat", "dog"], family="somebodys", truncation=0.8)
    made = export(
        trained(2), spec, f"{tmp_path}/x.gan", ExportOptions(num_images=1000, precisions=["fp32"])
    )
    with Sampler(made.path) as sampler:
        assert sampler.classes == ["cat", "dog"]
        assert sampler.info["default_truncation"] == 0.8
        assert not np.array_equal(sampler.sample(2, labels="cat"), sampler.sample(2, labels="dog"))


def test_a_dataset_of_the_same_shape_serves_the_gates(shapes: Path, tmp_path: Path) -> None:
    class Large(Somebodys):
        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return nn.functional.interpolate(super().forward(z), scale_factor=2.0)

    torch.manual_seed(0)
    made = export(
        Large(),
        Spec(z_dim=8),
        tmp_path / "x.gan",
        ExportOptions(num_images=1000, data=shapes, precisions=[]),
    )
    assert "FID change" in {gate.gate for gate in made.gates}
    with pytest.raises(ExportError, match="16x16x3, and the generator gives 8x8x3; give data of"):
        export(trained(), Spec(z_dim=8), tmp_path / "y.gan", ExportOptions(data=shapes))


class Bytes(Somebodys):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (super().forward(z) + 1) * 127.5


class Maps(Somebodys):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(z).repeat(1, 4, 1, 1)


@pytest.mark.parametrize(
    ("module", "spec", "message"),
    [
        (Somebodys(), Spec(z_dim=9), "does not take z float32 .2, 9.*look at z_dim"),
        (Bytes(), Spec(z_dim=8), r"to 25\d .*as of bytes.*output_range"),
        (Maps(), Spec(z_dim=8), r"gives torch.float32 \(2, 12, 8, 8\)"),
        (nn.Sequential(nn.Linear(8, 8)), Spec(z_dim=8), r"gives torch.float32 \(2, 8\)"),
    ],
)
def test_what_is_no_generator_is_refused(module, spec, message, tmp_path) -> None:
    with pytest.raises(ExportError, match=message):
        export(module, spec, tmp_path / "x.gan")
    assert list(tmp_path.iterdir()) == []


MINE = """
import torch
from torch import nn

class G(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3 * 8 * 8)
    def forward(self, z, y=None):
        x = z if y is None else z + y[:, None].float()
        return torch.tanh(self.layer(x)).reshape(-1, 3, 8, 8)

def make():
    torch.manual_seed(0)
    return G()

def nothing():
    return 3

def scripted():
    import warnings
    warnings.simplefilter("ignore")
    return torch.jit.trace(make(), torch.zeros(1, 4))
"""


@pytest.mark.slow
def test_the_command_exports_a_module_of_the_users_own(gan, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    torch.save(
        {"g": {"layer.weight": torch.ones(192, 4), "layer.bias": torch.zeros(192)}},
        tmp_path / "w.pt",
    )
    options = ("--set", "z_dim=4", "--set", "classes=3", "--num", 1000, "--precision", "fp32")
    file = ("--weights", "w.pt")
    done = gan("export", "--module", "mine:make", *file, *options, "-o", "x.gan", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "w.pt: took g: 2 tensors, 960 parameters" in done.stdout
    with Sampler(tmp_path / "x.gan") as sampler:
        assert sampler.classes == ["0", "1", "2"]
        z = np.full((1, 4), 0.05, np.float32)
        found = sampler.generate(z, np.array([2]))
    expected = np.rint((np.tanh(0.2 + 8.0) + 1) * 127.5)
    assert (found == expected).all()
    for arguments, code, word in (
        (("--module", "mine:make", "-o", "y.gan"), Ending.USAGE, "z_dim"),
        (("--module", "mine:nothing", "-o", "y.gan", *options), Ending.FAILED, "gives int"),
        (
            ("--module", "mine:scripted", "-o", "y.gan", *options),
            Ending.FAILED,
            "a TorchScript program, of G",
        ),
        (("--module", "mine:make", "-o", "y.gan", "--set", "zdim=4"), Ending.USAGE, "z_dim"),
    ):
        result = gan("export", *arguments, cwd=tmp_path)
        assert result.returncode == code
        assert word in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "y.gan").exists()


def test_the_twin_computes_the_same_with_plain_weights() -> None:
    subject = of_module(trained(), Spec(z_dim=8))
    twin = subject.twin()
    names = [name for name, _ in twin.named_parameters()]
    assert "up.weight" in names
    assert not any("original" in name or "weight_orig" in name for name in names)
    z = torch.randn(4, 8)
    torch.testing.assert_close(twin(z), subject.network(z), rtol=0, atol=1e-6)
    again = subject.twin()  # and the network is left as it was
    assert torch.equal(twin(z), again(z))


class Kept(nn.Module):
    """Keeps layers and numbers where torch does not look, and itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = {"all": [nn.Linear(8, 3 * 64), nn.BatchNorm1d(3 * 64)]}
        self.register_buffer("phases", torch.exp(2j * torch.linspace(0, 1, 3 * 64)))
        self.computed = [self.layers["all"][0].bias * 2]
        self.register_buffer("also", self.layers["all"][0].bias * 3)
        self.own = [self]

    def forward(self, z: Tensor) -> Tensor:
        first, norm = self.layers["all"]
        turned = (norm(first(z)) * self.phases).imag + self.computed[0] + self.also
        return torch.tanh(turned).view(-1, 3, 8, 8)


def test_what_a_module_keeps_in_its_own_ways_is_part_of_it_and_left_as_it_is() -> None:
    torch.manual_seed(0)
    module = Kept()
    subject = of_module(module, Spec(z_dim=8))
    assert module.computed[0].grad_fn is not None
    assert module.layers["all"][1].training
    z = torch.randn(4, 8)
    module.layers["all"][1].eval()
    with torch.no_grad():
        assert torch.equal(subject.network(z), module(z))
        assert subject.precise is not None
        torch.testing.assert_close(subject.precise(z.double()).float(), module(z))


def test_a_layer_that_is_torchscript_is_named() -> None:
    module = nn.Sequential(nn.Linear(8, 192), nn.Unflatten(1, (3, 8, 8)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module[0] = torch.jit.script(module[0])
    with pytest.raises(ExportError, match="TorchScript program, of Linear, as layer 0;"):
        of_module(module, Spec(z_dim=8))


def test_a_factory_may_give_its_spec_and_options_go_before_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "from ganexport import Spec\n"
        "def make():\n"
        "    layers = nn.Linear(6, 192), nn.Tanh(), nn.Unflatten(1, (3, 8, 8))\n"
        "    return nn.Sequential(*layers), Spec(6, z_distribution='uniform', family='mine')\n"
    )
    model = of_factory(f"{tmp_path / 'net.py'}:make", None, None, {"family": "yours"}).model
    assert (model.z_dim, model.z_distribution, model.family) == (6, "uniform", "yours")
