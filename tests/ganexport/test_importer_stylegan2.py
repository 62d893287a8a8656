"""StyleGAN2's importers, against the published names and the papers' formulas written out slowly.

importers/stylegan2_names.txt is what two configs of NVlabs/stylegan2-ada-pytorch give according to
its source, training/networks.py (commit 375a436) and train.py (commit f7e4867).
"""

import math

import numpy as np
import onnx
import pytest
import torch
from originals import shapes_of
from torch import Tensor

from ganexport.importers import _stylegan2, stylegan2, stylegan2_rosinality
from ganexport.pipeline import Exported
from ganinfer import Sampler
from ganinfer.drawing.latents import draw_latents
from ganinfer.drawing.model import StyleInput
from ganinfer.errors import ExportError, RequestError
from gantrain.models import _synthesis
from gantrain.models import stylegan2 as trained

TINY = _stylegan2.Plan(
    z_dim=10, num_classes=0, embedding_dim=0, widths=[12, 12], channels=[8, 7, 6], image_channels=3
)
CLASSES = _stylegan2.Plan(
    z_dim=10, num_classes=3, embedding_dim=5, widths=[9, 12], channels=[8, 7, 6], image_channels=3
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def published() -> dict[str, dict[str, tuple[int, ...]]]:
    """Config -> name -> shape."""
    return shapes_of("stylegan2_names.txt")


def on_meta(plan: _stylegan2.Plan) -> _stylegan2.Generator:
    with torch.device("meta"):
        return _stylegan2.Generator(plan, psi=1.0, clamp=256.0)


def state_of(plan: _stylegan2.Plan, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of about the scale of trained ones; filters that are not symmetric."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, empty in on_meta(plan).state_dict().items():
        value = torch.randn(empty.shape, generator=generator)
        if name.endswith("resample_filter"):
            value = value.abs() / value.abs().sum()
        elif name.startswith("mapping.fc"):
            value *= 100  # / the learning rate
        elif name.endswith("affine.bias"):
            value = 1 + 0.3 * value
        elif name.endswith("torgb.weight"):
            value *= 0.05
        elif name.endswith(("noise_strength", "bias", "w_avg")):
            value *= 0.2
        state[name] = value
    return state


def close(found: Tensor, expected: Tensor | np.ndarray) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-5)


# The papers' formulas, one image and one weight at a time, in float64.


def dense(state: dict[str, Tensor], name: str, x: np.ndarray, rate: float = 1.0) -> np.ndarray:
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    return np.array(
        [
            sum(w * rate / math.sqrt(len(x)) * f for w, f in zip(row, x, strict=True)) + rate * b
            for row, b in zip(weight, bias, strict=True)
        ]
    )


def lrelu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def unit(x: np.ndarray) -> np.ndarray:
    return x / math.sqrt(sum(f * f for f in x) / len(x) + 1e-8)


def slow_mapping(state: dict[str, Tensor], z: Tensor, y: int | None, psi: float) -> np.ndarray:
    x = unit(z.double().numpy())
    if y is not None:
        hot = np.zeros(state["mapping.embed.weight"].shape[1])
        hot[y] = 1
        x = np.concatenate([x, unit(dense(state, "mapping.embed", hot))])
    layer = 0
    while f"mapping.fc{layer}.weight" in state:
        x = lrelu(dense(state, f"mapping.fc{layer}", x, rate=0.01))
        layer += 1
    average = state["mapping.w_avg"].double().numpy()
    return average + psi * (x - average)


def correlated(x: np.ndarray, weight: np.ndarray, before: int, after: int) -> np.ndarray:
    """(I, H, W), (O, I, k, k) -> (O, H', W'), zeros added before and after each axis."""
    k = weight.shape[-1]
    x = np.pad(x, ((0, 0), (before, after), (before, after)))
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    return sum(
        np.einsum("oi,ihw->ohw", weight[:, :, a, b], x[:, a : a + height, b : b + width])
        for a in range(k)
        for b in range(k)
    )


def doubled(x: np.ndarray, taps: np.ndarray, before: int, after: int) -> np.ndarray:
    """Zeros between the pixels, then the filter, a convolution, with a gain of 4."""
    channels, height, width = x.shape
    sparse = np.zeros((channels, 2 * height, 2 * width))
    sparse[:, ::2, ::2] = x
    diagonal = np.eye(channels)[:, :, None, None] * taps[::-1, ::-1]
    return 4 * correlated(sparse, diagonal, before, after)


def slow_layer(
    state: dict[str, Tensor], name: str, x: np.ndarray, w: np.ndarray, clamp: float
) -> np.ndarray:
    """Its weights are made for this image; upsampling comes before its convolution."""
    own = {
        key: state[f"{name}.{key}"].double().numpy()
        for key in ("weight", "bias", "noise_const", "noise_strength", "resample_filter")
    }
    modulated = own["weight"] * dense(state, f"{name}.affine", w)[:, None, None]
    for kernel in modulated:
        kernel /= math.sqrt((kernel**2).sum() + 1e-8)
    if name.endswith("conv0"):
        # Transposing a convolution turns its kernel.
        x = doubled(x, own["resample_filter"], 3, 2)
        x = correlated(x, modulated[:, :, ::-1, ::-1], 0, 0)
    else:
        x = correlated(x, modulated, 1, 1)
    x = x + own["noise_strength"] * own["noise_const"]
    return np.clip(lrelu(x + own["bias"][:, None, None]), -clamp, clamp)


def slow_to_rgb(
    state: dict[str, Tensor], name: str, x: np.ndarray, w: np.ndarray, clamp: float
) -> np.ndarray:
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    style = dense(state, f"{name}.affine", w) / math.sqrt(len(x))
    image = correlated(x, weight * style[:, None, None], 0, 0) + bias[:, None, None]
    return np.clip(image, -clamp, clamp)


def slow_synthesis(
    state: dict[str, Tensor], w: np.ndarray, resolution: int, clamp: float
) -> np.ndarray:
    """w (L, D): a style for each layer, in turn; an image's is that of the layer that follows."""
    place = 0
    x = state["synthesis.b4.const"].double().numpy()
    image: np.ndarray | None = None
    size = 4
    while size <= resolution:
        block = f"synthesis.b{size}"
        if size > 4:
            x = slow_layer(state, f"{block}.conv0", x, w[place], clamp)
            place += 1
        x = slow_layer(state, f"{block}.conv1", x, w[place], clamp)
        place += 1
        rgb = slow_to_rgb(state, f"{block}.torgb", x, w[place], clamp)
        taps = state[f"{block}.resample_filter"].double().numpy()
        image = rgb if image is None else doubled(image, taps, 2, 1) + rgb
        size *= 2
    assert image is not None
    return image


# What is published.


@pytest.mark.parametrize("config", ["paper256", "cifar"])
def test_names_and_shapes_are_those_that_are_published(config: str) -> None:
    shapes = published()[config]
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    own = on_meta(stylegan2.infer(state)).state_dict()
    assert {name: tuple(value.shape) for name, value in own.items()} == shapes


@pytest.mark.parametrize(
    ("config", "shape", "options"),
    [
        ("paper256", (256, 3, 0), {"channel_base": 16384}),
        ("cifar", (32, 3, 10), {"depth": 2}),
    ],
)
def test_the_network_that_is_trained_here_has_them_too(
    config: str, shape: tuple[int, int, int], options: dict
) -> None:
    with torch.device("meta"):
        own = trained.Generator(*shape, **options).state_dict()
    assert {name: tuple(value.shape) for name, value in own.items()} == published()[config]


def test_the_shapes_say_what_the_network_is() -> None:
    plans = {
        config: stylegan2.infer({n: torch.empty(s, device="meta") for n, s in shapes.items()})
        for config, shapes in published().items()
    }
    wide = _stylegan2.Plan(512, 0, 0, [512] * 8, [512, 512, 512, 512, 256, 128, 64], 3)
    assert plans["paper256"] == wide
    assert plans["cifar"] == _stylegan2.Plan(512, 10, 512, [512] * 2, [512] * 4, 3)


def test_counts_are_those_that_the_original_printed() -> None:
    """Parameters and buffers in the log of somebody's run at 1024x1024, --cfg=auto.

    The rows up to b16 are also in the log of NVlabs/stylegan2-ada-pytorch issue 182.
    """
    channels = [512, 512, 512, 512, 512, 256, 128, 64, 32]
    generator = on_meta(_stylegan2.Plan(512, 0, 0, [512] * 2, channels, 3))
    printed = {
        "mapping.fc0": (262656, 0),
        "synthesis.b4.conv1": (2622465, 32),
        "synthesis.b4.torgb": (264195, 0),
        "synthesis.b8.conv0": (2622465, 80),
        "synthesis.b16.conv1": (2622465, 272),
        "synthesis.b128.conv0": (1442561, 16400),
        "synthesis.b256.conv1": (213249, 65552),
        "synthesis.b1024.conv0": (51297, 1048592),
        "synthesis.b1024.torgb": (16515, 0),
        "": (28794124, 2797104),
    }
    for name, counts in printed.items():
        module = generator.get_submodule(name)
        found = (
            sum(value.numel() for value in module.parameters()),
            sum(value.numel() for value in module.buffers()),
        )
        assert found == counts, name


def test_a_state_dict_goes_in_and_comes_out() -> None:
    state = state_of(TINY)
    before = {name: value.clone() for name, value in state.items()}
    generator, spec = stylegan2.read(state, truncation_psi=1.0)
    assert (spec.z_dim, list(spec.classes), spec.z_distribution) == (10, [], "normal")
    assert spec.truncation is None
    after = generator.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    after["synthesis.b4.const"].zero_()
    assert all(torch.equal(state[name], before[name]) for name in before)
    images = generator(torch.randn(4, 10))
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert torch.isfinite(images).all()


# The building blocks.


@pytest.mark.parametrize("psi", [1.0, 0.6])
@pytest.mark.parametrize("plan", [TINY, CLASSES], ids=["unconditional", "classes"])
def test_the_mapping_network_is_the_papers(plan: _stylegan2.Plan, psi: float) -> None:
    state = state_of(plan)
    generator, _ = stylegan2.read(state, truncation_psi=psi)
    assert isinstance(generator, _stylegan2.Generator)
    z, y = torch.randn(4, 10), torch.tensor([0, 2, 1, 2])
    labels = y.tolist() if plan.num_classes else [None] * 4
    expected = [slow_mapping(state, row, k, psi) for row, k in zip(z, labels, strict=True)]
    w = generator.mapping(z, y if plan.num_classes else None)
    close(generator.mapping.w_avg + psi * (w - generator.mapping.w_avg), np.stack(expected))


@pytest.mark.parametrize("scale", [1.0, 1e-4])  # in the latter the 1e-8 counts
@pytest.mark.parametrize("name", ["synthesis.b8.conv1", "synthesis.b8.conv0"])
def test_a_layer_is_modulated_and_demodulated(name: str, scale: float) -> None:
    state = state_of(TINY)
    state[f"{name}.weight"] *= scale
    generator, _ = stylegan2.read(state)
    upsampling = name.endswith("conv0")
    x = torch.randn(3, 8, 4, 4) if upsampling else torch.randn(3, 7, 8, 8)
    w = torch.randn(3, 12)
    expected = [
        slow_layer(state, name, *(v.double().numpy() for v in pair), 256.0)
        for pair in zip(x, w, strict=True)
    ]
    close(generator.get_submodule(name)(x, w), np.stack(expected))


@pytest.mark.parametrize("dead", [["weight"], ["affine.weight", "affine.bias"]])
def test_a_dead_layer_gives_its_noise_and_bias(dead: list[str]) -> None:
    name, state = "synthesis.b8.conv1", state_of(TINY)
    for part in dead:
        state[f"{name}.{part}"].zero_()
    generator, _ = stylegan2.read(state)
    x, w = torch.randn(1, 7, 8, 8), torch.randn(1, 12)
    expected = slow_layer(state, name, x[0].double().numpy(), w[0].double().numpy(), 256.0)
    close(generator.get_submodule(name)(x, w)[0], expected)


def test_an_image_is_upsampled_by_zeros_and_a_filter() -> None:
    taps = torch.rand(4, 4)
    image = torch.randn(2, 3, 5, 5)
    found = _synthesis.upsampled(image, _synthesis.tiled(taps, 3))
    expected = [doubled(one.double().numpy(), taps.double().numpy(), 2, 1) for one in image]
    close(found, np.stack(expected))


def test_upsampling_keeps_a_constant_image() -> None:
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    found = _synthesis.upsampled(torch.ones(1, 3, 6, 6), _synthesis.tiled(tap.outer(tap), 3))
    close(found[:, :, 1:-1, 1:-1], torch.ones(1, 3, 10, 10))


@pytest.mark.parametrize(
    ("clamp", "cutoff"), [(256.0, None), (0.5, None), (256.0, 0), (256.0, 3), (256.0, 6)]
)
def test_the_network_is_the_papers(clamp: float, cutoff: int | None) -> None:
    state = state_of(CLASSES)
    generator, spec = stylegan2.read(state, truncation_cutoff=cutoff, conv_clamp=clamp)
    assert spec.truncation_input is not None
    assert spec.truncation_input.num_styles == cutoff
    z, y, psi = torch.randn(2, 10), torch.tensor([2, 0]), torch.tensor([0.8, 0.3])
    expected = []
    for row, k, share in zip(z, y.tolist(), psi.tolist(), strict=True):
        drawn, whole = (slow_mapping(state, row, k, of) for of in (share, 1.0))
        count = 6 if cutoff is None else cutoff
        w = np.stack([drawn] * count + [whole] * (6 - count))
        expected.append(slow_synthesis(state, w, 16, clamp))
    close(generator(z, y, psi), np.stack(expected))


def test_styles_that_are_given_go_to_their_layers_as_they_are() -> None:
    state = state_of(CLASSES)
    generator, spec = stylegan2.read(state)
    assert spec.style_input == StyleInput(num_styles=6, w_dim=12)
    z, y, psi, w = torch.randn(2, 10), torch.tensor([2, 0]), torch.rand(2), torch.randn(2, 6, 12)
    found = generator(z, y, psi, w, torch.tensor([1.0, 0.0]))
    close(found[0], slow_synthesis(state, w[0].double().numpy(), 16, 256.0))
    torch.testing.assert_close(found[1], generator(z, y, psi)[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("clamp", [None, math.inf])
def test_the_clamp_can_be_left_out(clamp: float | None) -> None:
    state = state_of(TINY)
    state["synthesis.b4.const"] *= 1e4
    state["synthesis.b4.conv1.weight"] *= 1e4
    state["synthesis.b4.torgb.bias"] += 300
    z = torch.randn(2, 10)
    assert stylegan2.read(state, conv_clamp=clamp, truncation_psi=1.0)[0](z).abs().max() > 256 + 44
    clamped, _ = stylegan2.read(state)
    x, image = clamped.get_submodule("synthesis.b4")(None, None, torch.randn(2, 2, 12))
    assert max(x.abs().max(), image.abs().max()) == 256


def test_without_variety_of_w_there_is_one_image() -> None:
    generator, _ = stylegan2.read(state_of(CLASSES), truncation_psi=0.0)
    images = generator(torch.randn(5, 10), torch.tensor([0, 1, 2, 0, 1]))
    torch.testing.assert_close(images, images[:1].expand_as(images), rtol=0, atol=1e-6)


def test_an_image_is_independent_of_its_batch() -> None:
    generator, _ = stylegan2.read(state_of(CLASSES), truncation_psi=1.0)
    z, y = torch.randn(5, 10), torch.tensor([0, 1, 2, 0, 1])
    alone = torch.cat([generator(z[n : n + 1], y[n : n + 1]) for n in range(5)])
    torch.testing.assert_close(generator(z, y), alone, rtol=0, atol=1e-6)


def test_other_weights_may_be_loaded_later() -> None:
    generator, _ = stylegan2.read(state_of(TINY, seed=0), truncation_psi=1.0)
    other = state_of(TINY, seed=1)
    generator.load_state_dict(other)
    z = torch.randn(2, 10)
    assert torch.equal(generator(z), stylegan2.read(other, truncation_psi=1.0)[0](z))


# What a user can get wrong.


def without(*names: str) -> dict[str, Tensor]:
    return {name: value for name, value in state_of(TINY).items() if name not in names}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            without("synthesis.b8.conv0.bias", "mapping.w_avg"),
            r"2 missing \['mapping.w_avg', 'synthesis.b8.conv0.bias'\], 0 unknown",
        ),
        (
            state_of(TINY) | {"synthesis.b8.skip.weight": torch.zeros(7, 8, 1, 1)},
            r"0 missing .*1 unknown \['synthesis.b8.skip.weight'\].*expected G_ema.state_dict",
        ),
        (
            state_of(TINY) | {"synthesis.b8.conv1.affine.bias": torch.zeros(9)},
            r"1 of other shapes \['synthesis.b8.conv1.affine.bias \(9,\), expected \(7,\)'\]",
        ),
        (
            without("synthesis.b16.conv1.weight"),
            "1 missing .'synthesis.b16.conv1.weight'.*expected all",
        ),
        (without("mapping.fc0.weight"), "1 missing .'mapping.fc0.weight'"),
        (
            state_of(TINY) | {"synthesis.b4.torgb.weight": torch.zeros(3)},
            r"synthesis.b4.torgb.weight \(3,\); expected 4 axes",
        ),
        (
            state_of(TINY) | {"mapping.embed.weight": torch.zeros(12, 3)},
            "mapping.fc0.weight: takes 10 numbers, of which mapping.embed.weight gives 12",
        ),
        (
            {"style.1.weight": torch.zeros(8, 8)},
            r"found \['style.1.weight'\] among 1 names; expected those of G_ema.*rosinality",
        ),
    ],
)
def test_other_state_dicts_are_refused_by_name(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        stylegan2.read(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv_clamp": 0.0}, "conv_clamp 0.0: expected a positive number"),
        ({"truncation_cutoff": 7}, "truncation_cutoff 7: expected 0 to 6, the styles"),
        ({"classes": ["cat"]}, "classes: 1 names, and mapping.embed.weight has 3 classes"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        stylegan2.read(state_of(CLASSES), **options)


# The bundle.


def test_it_becomes_a_bundle_that_passes_its_gates(styled: Exported) -> None:
    assert {gate.artifact for gate in styled.gates} == {"onnx fp32", "onnx fp16 (emulated)"}
    assert sum(gate.gate.startswith("styles, ") for gate in styled.gates) == 2
    assert all(gate.passed for gate in styled.gates)
    generator, _ = stylegan2.read(state_of(CLASSES), truncation_psi=0.7)
    with Sampler(styled.path) as sampler:
        assert sampler.info["family"] == "stylegan2"
        assert sampler.classes == ["cat", "dog", "fox"]
        assert sampler.info["truncation_modes"] == ["network"]
        found = sampler.sample(seeds=[3, 4, 5], labels="fox", truncation=0.7)
        with pytest.raises(RequestError, match="truncation 2.5: .*exported for 0 to 2"):
            sampler.sample(1, truncation=2.5)
    z = torch.from_numpy(draw_latents([3, 4, 5], 10))
    images = generator(z, torch.tensor([2, 2, 2])).clamp(-1, 1).permute(0, 2, 3, 1)
    assert np.abs(found - (images.numpy() + 1) * 127.5).max() <= 0.5 + 1e-3


def test_all_images_of_a_batch_share_one_convolution(styled: Exported) -> None:
    graph = onnx.load(styled.path / "onnx/fp32.onnx").graph
    constants = {weight.name for weight in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(convolutions) == 5 + 3 + 2 + 2  # layers, images, filters of maps and of images
    assert all(node.input[1] in constants for node in convolutions)
    assert "synthesis.b16.conv0.weight" not in str(constants)  # only what is computed with


# Rosinality's names: those of its model.py for 8x8 pixels and one layer of the mapping network.


def modulated(new: str, old: str) -> list[tuple[str, str]]:
    return [
        (f"{new}.weight", f"{old}.conv.weight"),
        (f"{new}.affine.weight", f"{old}.conv.modulation.weight"),
        (f"{new}.affine.bias", f"{old}.conv.modulation.bias"),
    ]


def pairs() -> dict[str, str]:
    """NVIDIA's name -> rosinality's."""
    names = [
        ("mapping.fc0.weight", "style.1.weight"),
        ("mapping.fc0.bias", "style.1.bias"),
        ("synthesis.b4.const", "input.input"),
        ("synthesis.b4.conv1.noise_const", "noises.noise_0"),
        ("synthesis.b8.conv0.noise_const", "noises.noise_1"),
        ("synthesis.b8.conv1.noise_const", "noises.noise_2"),
        ("synthesis.b8.conv0.resample_filter", "convs.0.conv.blur.kernel"),
        ("synthesis.b8.resample_filter", "to_rgbs.0.upsample.kernel"),
        ("synthesis.b4.torgb.bias", "to_rgb1.bias"),
        ("synthesis.b8.torgb.bias", "to_rgbs.0.bias"),
    ]
    names += modulated("synthesis.b4.torgb", "to_rgb1")
    names += modulated("synthesis.b8.torgb", "to_rgbs.0")
    for new, old in (("b4.conv1", "conv1"), ("b8.conv0", "convs.0"), ("b8.conv1", "convs.1")):
        names += modulated(f"synthesis.{new}", old)
        names.append((f"synthesis.{new}.noise_strength", f"{old}.noise.weight"))
        names.append((f"synthesis.{new}.bias", f"{old}.activate.bias"))
    return dict(names)


def rosinalitys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network as rosinality's model.py keeps it."""
    made = {}
    for new, old in pairs().items():
        value = state[new].clone()
        if old.endswith("kernel"):
            value *= 4
        elif old.startswith("noises."):
            value = value[None, None]
        elif old.endswith(("conv.weight", "input.input")):
            value = value[None]
        elif old.endswith("noise.weight"):
            value = value.reshape(1)
        elif old.startswith("to_rgb") and old.endswith("0.bias" if "rgbs" in old else "rgb1.bias"):
            value = value.reshape(1, 3, 1, 1)
        made[old] = value
    return made


SQUARE = _stylegan2.Plan(12, 0, 0, [12], [8, 7], 3)


def test_rosinalitys_checkpoint_is_the_same_network() -> None:
    state = state_of(SQUARE)
    w_avg = {"latent_avg": state["mapping.w_avg"]}
    found, spec = stylegan2_rosinality.read(rosinalitys(state) | w_avg, truncation_psi=0.6)
    expected, _ = stylegan2.read(state, truncation_psi=0.6, conv_clamp=None)
    assert (spec.z_dim, list(spec.classes), spec.family) == (12, [], "stylegan2")
    z = torch.randn(4, 12)
    torch.testing.assert_close(found(z), expected(z), rtol=1e-5, atol=1e-5)


def test_rosinalitys_weights_are_scaled_before_the_demodulation() -> None:
    state = rosinalitys(state_of(SQUARE))
    renamed = stylegan2_rosinality.rename(state)
    own = renamed["synthesis.b8.conv1.weight"]
    close(own, state["convs.1.conv.weight"][0] / math.sqrt(7 * 9))
    assert torch.equal(renamed["synthesis.b8.torgb.weight"], state["to_rgbs.0.conv.weight"][0])


def test_rosinalitys_mean_of_w_is_drawn_where_it_is_missing() -> None:
    state = rosinalitys(state_of(SQUARE))
    generator, _ = stylegan2_rosinality.read(state, truncation_psi=0.5)
    untruncated, _ = stylegan2_rosinality.read(state)
    assert isinstance(untruncated, _stylegan2.Generator)
    w = untruncated.mapping(torch.from_numpy(draw_latents(range(4096), 12)))
    close(generator.state_dict()["mapping.w_avg"], w.mean(dim=0))


def test_rosinalitys_names_are_checked() -> None:
    state = rosinalitys(state_of(SQUARE))
    del state["convs.1.activate.bias"]
    message = r"1 missing \['convs.1.activate.bias'\], 1 unknown \['odd'\]; expected g_ema"
    with pytest.raises(ExportError, match=message):
        stylegan2_rosinality.read(state | {"odd": torch.zeros(1)})
    with pytest.raises(ExportError, match="for NVIDIA's mapping.fc0.weight, ... use stylegan2"):
        stylegan2_rosinality.read(state_of(SQUARE))
    broken = rosinalitys(state_of(SQUARE)) | {"conv1.conv.weight": torch.zeros(8)}
    with pytest.raises(ExportError, match="synthesis.b4.conv1.weight .8,.; expected 4 axes"):
        stylegan2_rosinality.read(broken)
