"""StyleGAN3's importer, against the paper's formulas written out slowly, in float64."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from published import file_of, network, register
from test_importer_stylegan2 import close, correlated, dense, slow_mapping, state_of
from torch import Tensor

from ganexport.importers import _stylegan3, stylegan2, stylegan3
from ganexport.importers._stylegan3 import LayerPlan, Plan
from ganexport.subjects.subject import of_module
from ganexport.subjects.weights import read_state
from ganinfer.drawing.model import StyleInput
from ganinfer.errors import ExportError
from gantrain.pickle_networks import Published

CLAMP = 0.9


def layer_of(
    name: str, *, kernel: int, up: int, down: int, taps: tuple[tuple[int, ...], tuple[int, ...]]
) -> dict[str, Any]:
    return {"name": name, "kernel": kernel, "up": up, "down": down, "taps": taps}


# Separable filters, one that is not, odd lengths, a crop, and the image.
LAYERS = [
    layer_of("L0_10_6", kernel=3, up=2, down=2, taps=((6,), (4,))),
    layer_of("L1_14_5", kernel=3, up=4, down=2, taps=((9,), (4, 4))),
    layer_of("L2_8_4", kernel=1, up=2, down=2, taps=((5, 5), (5,))),
    layer_of("L3_8_3", kernel=1, up=1, down=1, taps=((), ())),
]
CHANNELS, SIZE, RATE, BANDWIDTH, SCALE = 6, 10, 8.0, 2.0, 0.25


def plan(num_classes: int = 0) -> Plan:
    layers, num_in, size = [], CHANNELS, SIZE
    for spec in LAYERS:
        _, out_size, num_out = map(int, spec["name"][1:].split("_"))
        up_taps, down_taps = spec["taps"]
        wide = (out_size - 1) * spec["down"] + 1 + (down_taps[0] - 1 if down_taps else 0)
        wide += up_taps[0] - 1 if up_taps else 0
        total = wide - (size + spec["kernel"] - 1) * spec["up"]
        before = (total + spec["up"]) // 2 if up_taps else 0
        layers.append(
            LayerPlan(
                name=spec["name"],
                num_in=num_in,
                num_out=num_out,
                kernel=spec["kernel"],
                up=spec["up"],
                down=spec["down"],
                up_taps=up_taps,
                down_taps=down_taps,
                before=before,
                after=total - before,
                to_image=num_out == 3,
                clamp=CLAMP,
            )
        )
        num_in, size = num_out, out_size
    mapping = stylegan2.Plan(7, num_classes, 5 if num_classes else 0, [9, 8], [], 3)
    return Plan(mapping, SIZE, RATE, BANDWIDTH, layers, SCALE)


def weights_of(made: Plan) -> dict[str, Tensor]:
    with torch.device("meta"):
        names = _stylegan3.Generator(made, psi=1.0, cutoff=None).state_dict()
    drawn = torch.Generator().manual_seed(1)
    state = {}
    for name, empty in names.items():
        value = torch.randn(empty.shape, generator=drawn)
        if name.endswith("_filter"):
            value = value.abs() / value.abs().sum()  # not symmetric
        elif name.endswith("magnitude_ema"):
            value = value.abs() + 0.5
        elif name.startswith("mapping.fc"):
            value *= 100
        elif name.endswith("affine.bias"):
            value = 1 + 0.3 * value
        elif name.endswith(("bias", "w_avg")):
            value *= 0.2
        state[name] = value
    return state


def attributes_of(made: Plan) -> dict[str, dict[str, Any]]:
    given: dict[str, dict[str, Any]] = {
        "": {"class_name": "Generator"},
        "mapping.fc0": {"activation": "lrelu", "bias_gain": 0.01},
        "synthesis": {"layer_names": [x.name for x in made.layers], "output_scale": made.scale},
        "synthesis.input": {
            "size": np.array([made.size, made.size]),
            "sampling_rate": np.float64(made.rate),
            "bandwidth": made.bandwidth,
        },
    }
    size = made.size
    for layer in made.layers:
        size = layer.size(size)
        given[f"synthesis.{layer.name}"] = {
            "up_factor": layer.up,
            "down_factor": layer.down,
            "padding": [layer.before, layer.after] * 2,
            "out_size": np.array([size, size]),
            "is_torgb": layer.to_image,
            "conv_clamp": layer.clamp,
        }
    return given


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    torch.manual_seed(0)


def saved(folder: Path, made: Plan, changed: dict[str, dict[str, Any]] | None = None) -> Published:
    given = attributes_of(made)
    for name, own in (changed or {}).items():
        given[name] = given.get(name, {}) | own
    (folder / "x.pkl").write_bytes(file_of(network(weights_of(made), given)))
    state = read_state(folder / "x.pkl")
    assert isinstance(state, Published)
    return state


# The paper's formulas, one image at a time.


def numbers(state: dict[str, Tensor], name: str) -> np.ndarray:
    return state[name].double().numpy()


def filtered(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Convolved where the filter lies within."""
    square = np.outer(taps, taps) if taps.ndim == 1 else taps
    diagonal = np.eye(len(x))[:, :, None, None] * square[::-1, ::-1]
    return correlated(x, diagonal, 0, 0)


def slow_input(state: dict[str, Tensor], w: np.ndarray) -> np.ndarray:
    cos, sin, right, down = dense(state, "synthesis.input.affine", w)
    length = math.hypot(cos, sin)
    cos, sin, right, down = cos / length, sin / length, right / length, down / length
    rotated = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    moved = np.array([[1, 0, -right], [0, 1, -down], [0, 0, 1]])
    whole = rotated @ moved @ numbers(state, "synthesis.input.transform")
    features = np.zeros((CHANNELS, SIZE, SIZE))
    for k, frequency in enumerate(numbers(state, "synthesis.input.freqs")):
        own = frequency @ whole[:2, :2]
        phase = numbers(state, "synthesis.input.phases")[k] + frequency @ whole[:2, 2]
        amplitude = 1 - (math.hypot(*own) - BANDWIDTH) / (RATE / 2 - BANDWIDTH)
        for row in range(SIZE):
            for column in range(SIZE):
                place = np.array([column + 0.5 - SIZE / 2, row + 0.5 - SIZE / 2]) / RATE
                wave = math.sin(2 * math.pi * (own @ place + phase))
                features[k, row, column] = min(max(amplitude, 0), 1) * wave
    mixed = numbers(state, "synthesis.input.weight") / math.sqrt(CHANNELS)
    return np.einsum("oi,ihw->ohw", mixed, features)


def slow_layer(
    state: dict[str, Tensor], layer: LayerPlan, x: np.ndarray, w: np.ndarray
) -> np.ndarray:
    name = f"synthesis.{layer.name}"
    style, weight = dense(state, f"{name}.affine", w), numbers(state, f"{name}.weight")
    if layer.to_image:
        weight = weight * style[:, None, None] / math.sqrt(weight[0].size)
    else:
        weight = np.stack([kernel / math.sqrt((kernel**2).mean()) for kernel in weight])
        weight = weight * (style / math.sqrt((style**2).mean()))[:, None, None]
        weight = np.stack([kernel / math.sqrt((kernel**2).sum() + 1e-8) for kernel in weight])
    weight = weight / math.sqrt(numbers(state, f"{name}.magnitude_ema"))
    x = correlated(x, weight, layer.kernel - 1, layer.kernel - 1)
    x = x + numbers(state, f"{name}.bias")[:, None, None]
    if layer.to_image:
        return np.clip(x, -layer.clamp, layer.clamp)
    sparse = np.zeros((len(x), x.shape[1] * layer.up, x.shape[2] * layer.up))
    sparse[:, :: layer.up, :: layer.up] = x
    border = ((0, 0), *[(max(layer.before, 0), max(layer.after, 0))] * 2)
    sparse = np.pad(sparse, border)
    first, last = max(-layer.before, 0), sparse.shape[1] - max(-layer.after, 0)
    x = layer.up**2 * filtered(
        sparse[:, first:last, first:last], numbers(state, f"{name}.up_filter")
    )
    x = np.clip(np.where(x > 0, x, 0.2 * x) * math.sqrt(2), -layer.clamp, layer.clamp)
    x = filtered(x, numbers(state, f"{name}.down_filter"))
    return x[:, :: layer.down, :: layer.down]


def slow_network(
    state: dict[str, Tensor], made: Plan, z: Tensor, y: int | None, psi: float, cutoff: int
) -> np.ndarray:
    whole, truncated = (slow_mapping(state, z, y, share) for share in (1.0, psi))
    return slow_synthesis(
        state, made, [truncated if cutoff > n else whole for n in range(len(made.layers) + 1)]
    )


def slow_synthesis(state: dict[str, Tensor], made: Plan, w: Sequence[np.ndarray]) -> np.ndarray:
    """A style for the input, and one for each layer."""
    x = slow_input(state, w[0])
    for layer, style in zip(made.layers, w[1:], strict=True):
        x = slow_layer(state, layer, x, style)
    return SCALE * x


def test_the_input_is_turned_and_moved(tmp_path: Path) -> None:
    state = saved(tmp_path, plan())
    generator, _ = stylegan3.read(state)
    w = torch.randn(3, 8)
    found = generator.get_submodule("synthesis.input")(w)
    close(found, np.stack([slow_input(state, row.double().numpy()) for row in w]))


@pytest.mark.parametrize("n", range(4))
def test_a_layer_is_modulated_and_filtered(tmp_path: Path, n: int) -> None:
    made = plan()
    state, layer, size = saved(tmp_path, made), made.layers[n], [10, 10, 14, 8][n]
    generator, _ = stylegan3.read(state)
    x, w = torch.randn(2, layer.num_in, size, size), torch.randn(2, 8)
    found = generator.get_submodule(f"synthesis.{layer.name}")(x, w)
    pairs = zip(x.double().numpy(), w.double().numpy(), strict=True)
    close(found, np.stack([slow_layer(state, layer, *pair) for pair in pairs]))
    assert found.abs().max() > 0.5 * CLAMP


@pytest.mark.parametrize("cutoff", [None, 0, 3])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_network_is_the_papers(tmp_path: Path, num_classes: int, cutoff: int | None) -> None:
    made = plan(num_classes)
    state = saved(tmp_path, made)
    generator, spec = stylegan3.read(state, truncation_cutoff=cutoff)
    assert (spec.z_dim, len(spec.classes), spec.family) == (7, num_classes, "stylegan3")
    z, y, psi = torch.randn(2, 7), torch.tensor([2, 0]), torch.tensor([0.6, 1.0])
    found = generator(z, *([y] if num_classes else []), psi)
    drawn = len(LAYERS) + 1 if cutoff is None else cutoff
    expected = [
        slow_network(state, made, z[k], int(y[k]) if num_classes else None, share, drawn)
        for k, share in enumerate([0.6, 1.0])
    ]
    close(found, np.stack(expected))


def test_styles_that_are_given_go_to_their_layers_as_they_are(tmp_path: Path) -> None:
    made = plan()
    state = saved(tmp_path, made)
    generator, spec = stylegan3.read(state)
    assert spec.style_input == StyleInput(num_styles=5, w_dim=8)
    z, psi, w = torch.randn(2, 7), torch.rand(2), torch.randn(2, 5, 8)
    found = generator(z, psi, w, torch.tensor([1.0, 0.0]))
    close(found[0], slow_synthesis(state, made, list(w[0].double().numpy())))
    torch.testing.assert_close(found[1], generator(z, psi)[1], rtol=0, atol=1e-6)


def test_an_image_is_independent_of_its_batch(tmp_path: Path) -> None:
    generator, _ = stylegan3.read(saved(tmp_path, plan()), truncation_psi=0.7)
    z = torch.randn(4, 7)
    alone = torch.cat([generator(z[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(generator(z), alone, rtol=0, atol=1e-6)


def test_its_graph_gives_the_same_images(tmp_path: Path) -> None:
    subject = of_module(*stylegan3.read(saved(tmp_path, plan(3)), classes=["a", "b", "c"]))
    file = subject.to_onnx(subject.twin())
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = [torch.randn(5, 7), torch.tensor([0, 2, 1, 1, 0]), torch.full((5,), 0.6)]
    given += [torch.randn(5, 5, 8), torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])]
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, {n: v.numpy() for n, v in zip(names, given, strict=True)})
    images = subject.network(*given)
    if found.dtype == np.uint8:  # as a bundle's graphs give them
        expected = ((images.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
        assert np.abs(found.astype(float) - expected).max() <= 1
    else:
        close(torch.from_numpy(found), images)


# What a user can get wrong.


def test_a_state_dict_alone_is_refused() -> None:
    with pytest.raises(ExportError, match="does not say how its layers filter; give NVIDIA's .pkl"):
        stylegan3.read(weights_of(plan()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"synthesis.L1_14_5": {"out_size": np.array([15, 15])}}, "14 pixels; its out_size is 15"),
        ({"synthesis.L1_14_5": {"out_size": np.array([14, 15])}}, "no size of square maps"),
        ({"synthesis.L1_14_5": {"padding": [1, 2, 3, 4]}}, "no padding of the same two numbers"),
        ({"synthesis.L0_10_6": {"up_factor": 10**9}}, "up_factor is no number from 1 to 16"),
        ({"synthesis.L0_10_6": {"up_factor": "2"}}, "up_factor is no number"),
        ({"synthesis.L0_10_6": {"conv_clamp": -1.0}}, "conv_clamp is no positive number"),
        ({"synthesis.input": {"size": np.array([10**9] * 2)}}, "size is no number from 1 to 8192"),
        ({"synthesis.input": {"bandwidth": None}}, "bandwidth is no positive number"),
        ({"synthesis": {"layer_names": ["L0_10_6"] * 2}}, "expected L0_36_512"),
        ({"synthesis": {"layer_names": ["forward"]}}, "expected L0_36_512"),
        ({"synthesis": {"layer_names": ["L9_1_1"]}}, "1 missing .'synthesis.L9_1_1.weight'"),
        ({"synthesis": {"layer_names": ["L0_10_6"]}}, "unknown"),
        ({"synthesis": {"layer_names": None}}, "has no layer_names"),
        ({"mapping.fc0": {"activation": "relu"}}, "stylegan3: mapping.fc0 has activation 'relu'"),
    ],
)
def test_another_network_is_refused_by_what_it_says(
    tmp_path: Path, changed: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        stylegan3.read(saved(tmp_path, plan(), changed))


def test_filters_are_not_copied_for_all_channels_if_they_are_huge(tmp_path: Path) -> None:
    state = saved(tmp_path, plan())
    state["synthesis.L2_8_4.up_filter"] = torch.ones(1, device="meta").expand(5000, 5000)
    with pytest.raises(ExportError, match="its filters are too large"):
        stylegan3.read(state)


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = saved(tmp_path, plan())
    with pytest.raises(ExportError, match="truncation_cutoff 6: expected 0 to 5"):
        stylegan3.read(state, truncation_cutoff=6)
    with pytest.raises(ExportError, match="classes: 1 names, and .* has 0 classes"):
        stylegan3.read(state, classes=["cat"])


def test_the_two_importers_name_each_other(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="for synthesis.input.freqs, ... stylegan3"):
        stylegan2.read(saved(tmp_path, plan()))
    other = state_of(stylegan2.Plan(10, 0, 0, [12, 12], [8, 7], 3))
    (tmp_path / "y.pkl").write_bytes(file_of(network(other, {})))
    with pytest.raises(ExportError, match="for synthesis.b4.const, ... use stylegan2"):
        stylegan3.read(read_state(tmp_path / "y.pkl"))
