"""Small networks of projects whose own code can be installed, and that code.

importers/*_names.txt are the state dicts of small networks of that code, and the reference images
are what it gives for them with the weights of `draw`: stylegan2-pytorch 1.9.0, lightweight-gan
1.2.1, torch-mimicry 0.1.16 and pro-gan-pth 3.4 of the package index, FastGAN-pytorch of a fork
(the original repository is empty now), and autonomousvision/projected-gan at its last commit.
Where a package is installed, it runs here beside the importer; FastGAN's two files are found as
`fastgan_original.models` and `pg_modules.networks_fastgan`, and older versions of packages as
`lightweight_gan_1_0` and the like.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from originals import draw, noise_of, original, shapes_of
from torch import Tensor, nn

from ganexport.importers import (
    fastgan,
    lightweight_gan,
    pro_gan_pytorch,
    stylegan2_pytorch,
    torch_mimicry,
)
from ganexport.subjects.noise import NORMAL, UNIFORM, Draw, drawn
from ganexport.subjects.spec import Spec

Network = Callable[..., Tensor]
State = dict[str, Tensor]


def square_noise(seed: int, size: int) -> Tensor:
    """What the importers keep in the place of N(0, 1) of (H, H)."""
    return drawn(Draw(NORMAL, (size, size)), seed)


@dataclass(frozen=True)
class Case:
    """A small network of another project.

    Attributes:
        name: of its configuration in the importer's file of names.
        importer: the module. options: of its `read`.
        original: makes, of its arguments and a state, the project's own modules, and what calls
            them: z, with classes y -> images.
        shape: of an image. num_classes: K. scales: see `draw`.
        reference: eight values of the original's images.
    """

    name: str
    importer: ModuleType
    original: Callable[[dict[str, Any], State], tuple[nn.Module, Network]]
    arguments: dict[str, Any]
    shape: tuple[int, int, int]
    reference: list[float]
    scales: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    num_classes: int = 0

    @property
    def family(self) -> str:
        return self.importer.__name__.rpartition(".")[2]

    def state(self) -> State:
        return draw(shapes_of(f"{self.family}_names.txt")[self.name], self.scales)

    def read(self) -> tuple[nn.Module, Spec]:
        network, spec = self.importer.read(self.state(), **self.options)
        return network, spec

    def inputs(self) -> tuple[Tensor, ...]:
        drawn = np.random.RandomState(1).standard_normal((4, Z_DIM))
        z = torch.tensor(drawn, dtype=torch.float32)
        return (z, torch.tensor([0, 1, 2, 1])) if self.num_classes else (z,)

    def __str__(self) -> str:
        return f"{self.family}-{self.name}"


Z_DIM = 12


def original_stylegan2(arguments: dict[str, Any], state: State) -> tuple[nn.Module, Network]:
    arguments = dict(arguments)
    own = original(f"stylegan2_pytorch{arguments.pop('version', '')}.stylegan2_pytorch")
    gan = nn.ModuleDict(
        {
            "SE": own.StyleVectorizer(Z_DIM, 3, lr_mul=0.1),
            "GE": own.Generator(latent_dim=Z_DIM, **arguments),
        }
    )
    if state:
        gan.load_state_dict(state)

    def images(z: Tensor) -> Tensor:
        size = arguments["image_size"]
        noise = drawn(Draw(UNIFORM, (size, size)), 0).T[None, :, :, None].to(z)
        w = gan["SE"](z)[:, None].expand(-1, gan["GE"].num_layers, -1)
        return gan["GE"](w, noise.expand(len(z), -1, -1, -1))

    return gan, images


def original_lightweight(arguments: dict[str, Any], state: State) -> tuple[nn.Module, Network]:
    arguments = dict(arguments)
    own = original(f"lightweight_gan{arguments.pop('version', '')}.lightweight_gan")
    gan = nn.ModuleDict({"GE": own.Generator(latent_dim=Z_DIM, **arguments)}).eval()
    if state:
        gan.load_state_dict(state)

    def images(z: Tensor) -> Tensor:
        with noise_of([square_noise(n, 8 << n) for n in range(len(gan["GE"].layers))]):
            return gan["GE"](z)

    return gan, images


def original_mimicry(arguments: dict[str, Any], state: State) -> tuple[nn.Module, Network]:
    arguments = dict(arguments)
    own = original(f"torch_mimicry.nets.{arguments.pop('module')}")
    network = getattr(own, arguments.pop("name"))(nz=Z_DIM, **arguments).eval()
    if state:
        network.load_state_dict(state)
    return network, network


def original_progan(arguments: dict[str, Any], state: State) -> tuple[nn.Module, Network]:
    own = original("pro_gan_pytorch.networks")
    transposed = original("pro_gan_pytorch.custom_layers").EqualizedConvTranspose2d
    transposed._output_padding = lambda *_: (0, 0)  # torch's has other arguments since 1.12
    arguments = dict(arguments)
    depth = arguments.pop("shown", None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(own, "nf", lambda stage: max(16, 64 >> stage))
        network = own.Generator(latent_size=Z_DIM, **arguments).eval()
    if state:
        network.load_state_dict(state)
    return network, functools.partial(network, depth=depth)


def original_fastgan(arguments: dict[str, Any], state: State) -> tuple[nn.Module, Network]:
    arguments = dict(arguments)
    seeds = arguments.pop("seeds")
    is_projected = "img_resolution" in arguments
    module = "pg_modules.networks_fastgan" if is_projected else "fastgan_original.models"
    z_dim = {"z_dim" if is_projected else "nz": Z_DIM}
    network = original(module).Generator(**z_dim, **arguments).eval()
    if state:
        network.load_state_dict(state)

    def images(z: Tensor, y: Tensor | None = None) -> Tensor:
        with noise_of([square_noise(seed, 8 << (seed // 2)) for seed in seeds]):
            if not is_projected:
                return network(z)[0]
            return network(z, y if y is None else nn.functional.one_hot(y, 3).to(z))

    return network, images


MIMICRY = {"running_mean": 0.3}
FASTGAN = {"running_mean": 0.03, "running_var": 0.1, r"feat_\d+\.[26]\.weight$|noise\.weight": 0.1}
CASES = [
    Case(
        name="attention",
        importer=stylegan2_pytorch,
        original=original_stylegan2,
        arguments={
            "image_size": 32,
            "network_capacity": 4,
            "fmap_max": 24,
            "attn_layers": [1, 3],
        },
        shape=(3, 32, 32),
        reference=[-0.4131, -0.22217, -0.48455, -0.50667, -0.68818, -0.50678, -0.57707, -0.62062],
        scales={r"net\.\d\.weight": 13.0, "to_rgb.conv": 0.1},
        options={"truncation_psi": 1.0},
    ),
    Case(
        name="no_const",
        importer=stylegan2_pytorch,
        original=original_stylegan2,
        arguments={"image_size": 16, "network_capacity": 4, "no_const": True},
        shape=(3, 16, 16),
        reference=[0.15125, -0.00131, 0.17713, -0.02374, 0.3035, -0.21922, 0.2221, 0.27209],
        scales={r"net\.\d\.weight": 13.0, "to_rgb.conv": 0.5},
        options={"truncation_psi": 1.0},
    ),
    Case(
        name="version_1_0",
        importer=stylegan2_pytorch,
        original=original_stylegan2,
        arguments={"image_size": 16, "network_capacity": 4, "version": "_1_0"},
        shape=(3, 16, 16),
        reference=[-0.90054, 0.76389, -0.89414, 0.64608, -1.82562, 0.90265, -0.89665, 0.57564],
        scales={r"net\.\d\.weight": 13.0, "to_rgb.conv": 0.5},
        options={"truncation_psi": 1.0},
    ),
    Case(
        name="attention",
        importer=lightweight_gan,
        original=original_lightweight,
        arguments={"image_size": 128, "fmap_max": 16, "attn_res_layers": [8, 32]},
        shape=(3, 128, 128),
        reference=[-0.01274, 0.36971, 0.10647, -0.0518, 0.01838, 0.00034, 0.12546, -0.16922],
        scales={"running": 0.06, r"0\.3\.weight$": 0.1},
    ),
    Case(
        name="freq_chan_attn",
        importer=lightweight_gan,
        original=original_lightweight,
        arguments={
            "image_size": 128,
            "fmap_max": 16,
            "freq_chan_attn": True,
            "greyscale": True,
        },
        shape=(1, 128, 128),
        reference=[0.14918, 0.42491, 0.1024, -0.21482, -0.11215, 0.0147, 0.06284, -0.13352],
        scales={"running": 0.06, r"0\.3\.weight$": 0.1},
    ),
    Case(
        name="version_1_0",
        importer=lightweight_gan,
        original=original_lightweight,
        arguments={"image_size": 64, "fmap_max": 16, "version": "_1_0"},
        shape=(3, 64, 64),
        reference=[-0.2826, -0.08755, -0.13207, 0.29745, -0.24805, 0.14391, -0.2409, 0.2437],
        scales={"running": 0.06, r"0\.3\.weight$": 0.1},
    ),
    Case(
        name="version_0_23",
        importer=lightweight_gan,
        original=original_lightweight,
        arguments={"image_size": 64, "fmap_max": 16, "version": "_0_23"},
        shape=(3, 64, 64),
        reference=[0.17606, -0.18544, 0.06461, 0.08615, 0.25072, 0.98219, 0.1994, 1.07947],
        scales={"running": 0.06, r"0\.3\.weight$": 0.1},
    ),
    Case(
        name="sngan_32",
        importer=torch_mimicry,
        original=original_mimicry,
        arguments={"module": "sngan", "name": "SNGANGenerator32", "ngf": 16},
        shape=(3, 32, 32),
        reference=[-0.33932, 0.41243, -0.19197, 0.31997, -0.20804, 0.2366, -0.47634, 0.26346],
        scales=MIMICRY,
    ),
    Case(
        name="infomax_48",
        importer=torch_mimicry,
        original=original_mimicry,
        arguments={"module": "infomax_gan", "name": "InfoMaxGANGenerator48", "ngf": 32},
        shape=(3, 48, 48),
        reference=[0.02216, -0.74127, 0.29004, -0.21017, 0.07778, -0.13575, 0.27858, 0.06116],
        scales=MIMICRY,
    ),
    Case(
        name="dcgan_cifar",
        importer=torch_mimicry,
        original=original_mimicry,
        arguments={"module": "dcgan.dcgan_cifar", "name": "DCGANGeneratorCIFAR", "ngf": 16},
        shape=(3, 32, 32),
        reference=[0.41258, 0.60791, 0.45156, 0.58215, 0.44741, 0.56, 0.37326, 0.56705],
        scales=MIMICRY,
        options={"output": "sigmoid"},
    ),
    Case(
        name="cgan_pd_32",
        importer=torch_mimicry,
        original=original_mimicry,
        arguments={"module": "cgan_pd", "name": "CGANPDGenerator32", "ngf": 16, "num_classes": 3},
        shape=(3, 32, 32),
        reference=[0.39969, 0.36814, 0.31178, 0.19873, 0.11184, 0.09653, 0.40559, -0.00751],
        scales=MIMICRY,
        num_classes=3,
    ),
    Case(
        name="sagan_128",
        importer=torch_mimicry,
        original=original_mimicry,
        arguments={"module": "sagan", "name": "SAGANGenerator128", "ngf": 32, "num_classes": 3},
        shape=(3, 128, 128),
        reference=[0.03088, -0.18375, 0.01385, -0.16312, 0.01124, -0.16513, 0.01504, -0.16136],
        scales=MIMICRY,
        num_classes=3,
    ),
    Case(
        name="depth_5",
        importer=pro_gan_pytorch,
        original=original_progan,
        arguments={"depth": 5},
        shape=(3, 32, 32),
        reference=[0.08718, -0.47454, 0.13632, -0.02376, 0.21201, -0.22101, 0.05846, -0.42239],
        scales={r"layers.*weight": 15.0, "rgb.*weight": 1.0},
    ),
    Case(
        name="depth_5",
        importer=pro_gan_pytorch,
        original=original_progan,
        arguments={"depth": 5, "shown": 3},
        shape=(3, 8, 8),
        reference=[0.15687, -0.06556, 0.1003, -0.27789, 0.38647, 0.06845, 0.02181, 0.14038],
        scales={r"layers.*weight": 15.0, "rgb.*weight": 1.0},
        options={"depth": 3},
    ),
    Case(
        name="plain_grey",
        importer=pro_gan_pytorch,
        original=original_progan,
        arguments={"depth": 4, "num_channels": 1, "use_eql": False},
        shape=(1, 16, 16),
        reference=[0.92051, 0.28352, 0.48117, 0.79485, 0.6618, 1.06545, 0.13653, 0.26122],
        options={"use_eql": False},
    ),
    Case(
        name="original_256",
        importer=fastgan,
        original=original_fastgan,
        arguments={"im_size": 256, "ngf": 8, "seeds": [0, 1, 4, 5, 8, 9]},
        shape=(3, 256, 256),
        reference=[0.00046, -0.01844, -0.01295, -0.0553, -0.00269, -0.03457, -0.01549, -0.10296],
        scales=FASTGAN | {"running_var": 0.035},
    ),
    Case(
        name="projected_128",
        importer=fastgan,
        original=original_fastgan,
        arguments={"img_resolution": 128, "ngf": 8, "seeds": range(10)},
        shape=(3, 128, 128),
        reference=[0.11291, 0.19081, 0.09706, 0.17562, 0.13487, 0.11697, 0.13143, 0.33371],
        scales=FASTGAN | {"running_var": 0.15},
    ),
    Case(
        name="projected_lite",
        importer=fastgan,
        original=original_fastgan,
        arguments={
            "img_resolution": 256,
            "ngf": 8,
            "seeds": [],
            "synthesis_kwargs": {"lite": True},
        },
        shape=(3, 256, 256),
        reference=[0.04336, 0.42607, -0.0248, 0.20901, 0.02752, 0.20812, -0.06227, 0.24873],
        scales=FASTGAN | {"running_var": 0.002},
    ),
    Case(
        name="projected_classes",
        importer=fastgan,
        original=original_fastgan,
        arguments={
            "img_resolution": 128,
            "ngf": 8,
            "cond": 1,
            "seeds": range(10),
            "synthesis_kwargs": {"num_classes": 3},
        },
        shape=(3, 128, 128),
        reference=[-0.15464, -0.0673, -0.24729, -0.01882, -0.20479, -0.09885, -0.24585, -0.05953],
        scales=FASTGAN,
        num_classes=3,
    ),
]
