"""Twenty small networks of many kinds, untrained: those that `gates.py` exports."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers import _stylegan2, stylegan2
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from gantrain.game.build import build_generator
from gantrain.game.config import load_config
from gantrain.training.standing import standing_statistics

CONFIGS = Path(__file__).parents[1] / "configs"


class Lambda(nn.Module):
    """A function of parts that are modules."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.parts, self._function = nn.ModuleDict(parts), function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(self.parts, *inputs)


def dcgan(
    z_dim: int = 100,
    width: int = 16,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    act: Callable[[], nn.Module] = nn.ReLU,
    classes: int = 0,
) -> nn.Module:
    layers: list[nn.Module] = []
    widths = [z_dim, 4 * width, 2 * width, width]
    for i in range(3):
        shape = (4, 1, 0) if i == 0 else (4, 2, 1)
        layers += [nn.ConvTranspose2d(widths[i], widths[i + 1], *shape, bias=False)]
        layers += [norm(widths[i + 1]), act()]
    main = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())
    for layer in main:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0, 0.1)
    if classes:
        network: nn.Module = Lambda(
            lambda p, z, y: p["main"]((z * p["embed"](y))[:, :, None, None]),
            main=main,
            embed=nn.Embedding(classes, z_dim),
        )
    else:
        network = Lambda(lambda p, z: p["main"](z[:, :, None, None]), main=main)
    labels = [torch.randint(0, classes, (64,))] if classes else []
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(64, z_dim), *labels)
    return network


def pixel_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x**2).mean(1, keepdim=True) + 1e-8)


def progressive() -> nn.Module:
    def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
        x = pixel_norm(torch.relu(p["first"](pixel_norm(z)).view(-1, 32, 4, 4)))
        x = pixel_norm(torch.relu(p["second"](functional.interpolate(x, scale_factor=4))))
        return torch.tanh(p["image"](x))

    return Lambda(
        forward,
        first=nn.Linear(32, 512),
        second=nn.Conv2d(32, 32, 3, padding=1),
        image=nn.Conv2d(32, 3, 1),
    )


def fourier() -> nn.Module:
    def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
        phase = 2 * math.pi * p["frequencies"](z)
        return torch.tanh(p["out"](torch.cat([phase.sin(), phase.cos()], 1))).view(-1, 3, 16, 16)

    frequencies = nn.Linear(16, 64, bias=False)
    nn.init.normal_(frequencies.weight, 0, 8)
    out = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 768))
    return Lambda(forward, frequencies=frequencies, out=out)


def transformer() -> nn.Module:
    def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
        x = p["second"](p["first"](p["tokens"](z).view(-1, 16, 32)))
        return torch.tanh(functional.pixel_shuffle(p["image"](x).mT.reshape(-1, 192, 4, 4), 8))

    layers = [nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True) for _ in range(2)]
    return Lambda(
        forward,
        tokens=nn.Linear(64, 512),
        first=layers[0],
        second=layers[1],
        image=nn.Linear(32, 192),
    )


def residual() -> nn.Module:
    def block() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.SiLU(),
            nn.Conv2d(16, 16, 3, padding=1),
        )

    def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
        x = p["first"](z).view(-1, 16, 8, 8)
        for name in sorted(n for n in p if n.startswith("block")):
            x = x + p[name](x)
        x = functional.interpolate(x, scale_factor=4, mode="bilinear")
        return torch.tanh(0.3 * p["image"](x))

    blocks = {f"block{n:02}": block() for n in range(16)}
    return Lambda(forward, first=nn.Linear(32, 1024), image=nn.Conv2d(16, 3, 1), **blocks)


def simple(tail: Callable[[Tensor], Tensor], gain: float = 1.0) -> Callable[[], nn.Module]:
    """Two convolutions with what the tail makes of them."""

    def make() -> nn.Module:
        def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
            x = torch.relu(gain * p["first"](z).view(-1, 16, 4, 4))
            return tail(p["image"](functional.interpolate(p["norm"](x), scale_factor=4)))

        return Lambda(
            forward,
            first=nn.Linear(32, 256),
            norm=nn.InstanceNorm2d(16),
            image=nn.Conv2d(16, 3, 3, padding=1),
        )

    return make


def style() -> Subject:
    plan = _stylegan2.Plan(16, 3, 8, [16, 16], [16, 12, 8], 3)
    with torch.device("meta"):
        names = _stylegan2.Generator(plan, psi=1.0, clamp=256.0).state_dict()
    state = {}
    for name, empty in names.items():
        value = torch.randn(empty.shape)
        if name.endswith("resample_filter"):
            tap = torch.tensor([1.0, 3.0, 3.0, 1.0])
            value = tap[:, None] * tap / 64
        elif name.startswith("mapping.fc"):
            value *= 100
        elif name.endswith("affine.bias"):
            value = 1 + 0.3 * value
        elif name.endswith("torgb.weight"):
            value *= 0.1
        elif name.endswith(("noise_strength", "bias", "w_avg")):
            value *= 0.2
        state[name] = value
    return of_module(*stylegan2.read(state))


def recipe(name: str, *overrides: str) -> Callable[[], Subject]:
    shapes = {"digits": (16, 1, 10), "mnist": (28, 1, 10), "cifar10": (32, 3, 10)}

    def make() -> Subject:
        config = load_config(CONFIGS / f"{name}.toml", overrides)
        size, channels, classes = shapes[name.partition("-")[2]]
        network = build_generator(config, size, channels, classes if config.conditional else 0)
        standing_statistics(network, num_batches=4, truncation=config.train.truncation, seed=0)
        names = [str(k) for k in range(network.num_classes)]
        return of_module(
            network, Spec(network.z_dim, names, network.z_distribution, config.train.truncation)
        )

    return make


def custom(
    make: Callable[[], nn.Module], z_dim: int, classes: int = 0, output_range: str | None = None
) -> Callable[[], Subject]:
    names = [str(k) for k in range(classes)]
    return lambda: of_module(make().eval(), Spec(z_dim, names, output_range=output_range))


NARROW = "model.generator.width=16"
NETWORKS: dict[str, Callable[[], Subject]] = {
    "DCGAN, classes": custom(lambda: dcgan(classes=10), 100, 10),
    "residual, 32 convolutions": custom(residual, 32),
    "transformer": custom(transformer, 64),
    "StyleGAN2, classes, psi": style,
    "DCGAN, instance norm": custom(
        lambda: dcgan(norm=lambda n: nn.InstanceNorm2d(n, affine=True), act=nn.LeakyReLU), 100
    ),
    "DCGAN": custom(dcgan, 100),
    "DCGAN, group norm, ELU": custom(
        lambda: dcgan(norm=lambda n: nn.GroupNorm(4, n), act=nn.ELU), 100
    ),
    "pixel norm behind ReLU": custom(progressive, 32),
    "Fourier features": custom(fourier, 16),
    "sigmoid, 0:1": custom(simple(torch.sigmoid), 32, output_range="0:1"),
    "saturated": custom(simple(lambda x: torch.tanh(8 * x)), 32),
    "zeros": custom(simple(lambda x: torch.tanh(functional.softshrink(x, 0.3))), 32),
    "clamped": custom(simple(lambda x: (2 * x).clamp(-1, 1)), 32),
    "values to 1e4": custom(simple(torch.tanh, gain=1e4), 32),
    "values of 1e-4": custom(simple(torch.tanh, gain=1e-4), 32),
    "dcgan-digits": recipe("dcgan-digits"),
    "gan-mnist": recipe("gan-mnist"),
    "wgan_gp-cifar10, narrow": recipe("wgan_gp-cifar10", NARROW),
    "sagan-cifar10, narrow": recipe("sagan-cifar10", NARROW),
    "biggan-cifar10, narrow": recipe("biggan-cifar10", NARROW),
}
