"""The importers of BigGAN's kin, against the names, shapes and images of the originals.

Where importers/*_names.txt come from:

- hf_biggan_deep: the state dict of pytorch-pretrained-biggan 0.1.1 (PyPI), its BigGAN128.
- ajbrock_biggan, _cifar, _deep: github.com/ajbrock/BigGAN-PyTorch, read in layers.py at a5557079,
  BigGAN.py at 92a45ec1 and BigGANdeep.py at 98459431, in the configurations of its scripts
  launch_BigGAN_bs256x8.sh (835ebe78; of the published weights), launch_BigGAN_deep.sh (ec171497)
  and of copies of launch_cifar_ema.sh. The first has 70,433,988 parameters, as others count too.
- studiogan_*: github.com/POSTECH-CVLab/PyTorch-StudioGAN, read in src/utils/ops.py at c0b4097d and
  src/models/big_resnet.py at 3669dace; of resnet.py and deep_conv.py the versions that go with
  these were read in copies; configurations CIFAR10/BigGAN-Mod.yaml, DCGAN.yaml (3cf89986) and
  SNGAN.yaml (07cc4408).

The reference images are the originals': of the package itself, and of transcriptions of the sources
above. Their networks have the published names with fewer channels, and weights drawn by `draw`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from originals import Shapes, draw, eight

from ganexport.importers import ajbrock_biggan, hf_biggan_deep, studiogan
from ganexport.importers._published import Published
from ganexport.options import ExportOptions
from ganexport.pipeline import export
from ganexport.subjects.subject import of_module
from ganinfer import Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.inputs import Inputs, truncation_input
from ganinfer.errors import ExportError
from ganinfer.lookup import check_options

FIXTURES = Path(__file__).parent / "importers"


@dataclass(frozen=True)
class Case:
    """A published network, and a small one of the same names.

    smaller: what a dimension becomes; of those that are not here, multiples of `unit` are channels
        and become so many `narrow`.
    build: further arguments of the importer's `build`.
    """

    name: str
    importer: ModuleType
    unit: int
    narrow: int
    smaller: dict[int, int]
    z_dim: int
    resolution: int
    family: str
    build: tuple[Any, ...] = ()
    num_classes: int = 10
    reference: list[float] = field(default_factory=list)
    options: dict[str, float] = field(default_factory=dict)

    def published(self) -> Shapes:
        lines = (FIXTURES / f"{self.name}_names.txt").read_text().splitlines()
        rows = [line.split() for line in lines if not line.startswith("#")]
        return {name: tuple(map(int, shape)) for name, *shape in rows}

    def small(self) -> Shapes:
        def narrow(size: int) -> int:
            if size in self.smaller:
                return self.smaller[size]
            return size // self.unit * self.narrow if size % self.unit == 0 else size

        return {name: tuple(map(narrow, shape)) for name, shape in self.published().items()}

    def state(self) -> dict[str, torch.Tensor]:
        return draw(self.small())

    def __str__(self) -> str:
        return self.name


def inputs(z_dim: int, num_classes: int) -> tuple[torch.Tensor, ...]:
    """Four latents and, with classes, labels."""
    z = torch.tensor(np.random.RandomState(1).standard_normal((4, z_dim)), dtype=torch.float32)
    return (z, torch.tensor([0, 1, 2, 1])) if num_classes else (z,)


CASES = [
    Case(
        name="hf_biggan_deep",
        importer=hf_biggan_deep,
        unit=16,
        narrow=1,
        smaller={1000: 3},
        z_dim=8,
        num_classes=3,
        resolution=128,
        family="biggan_deep",
        reference=[0.46095, -0.0689, 0.90536, 0.56406, 0.36519, -0.49947, 0.59613, 0.37154],
        options={"truncation": 0.4},
    ),
    Case(
        name="ajbrock_biggan",
        importer=ajbrock_biggan,
        unit=24,
        narrow=2,
        smaller={1000: 3, 148: 8, 128: 6, 20: 2},
        z_dim=12,
        num_classes=3,
        resolution=128,
        family="biggan",
        build=(1e-5,),
        reference=[-0.09809, -0.04847, 0.03298, 0.35398, -0.02211, -0.07061, -0.04784, 0.03911],
    ),
    Case(
        name="ajbrock_biggan_cifar",
        importer=ajbrock_biggan,
        unit=32,
        narrow=1,
        smaller={},
        z_dim=4,
        num_classes=10,
        resolution=32,
        family="biggan",
        build=(1e-5,),
        reference=[0.31943, 0.61455, 0.54657, 0.94692, 0.54006, 0.79341, 0.4875, 0.95793],
    ),
    Case(
        name="ajbrock_biggan_deep",
        importer=ajbrock_biggan,
        unit=16,
        narrow=1,
        smaller={1000: 3},
        z_dim=8,
        num_classes=3,
        resolution=128,
        family="biggan_deep",
        build=(1e-5,),
        reference=[0.86997, -0.90513, 0.733, -0.10901, 0.29185, -0.05469, 0.6506, -0.20743],
    ),
    Case(
        name="studiogan_big_resnet",
        importer=studiogan,
        unit=48,
        narrow=1,
        smaller={148: 8, 128: 6, 20: 2},
        z_dim=8,
        num_classes=10,
        resolution=32,
        family="big_resnet",
        build=(None, "ReLU"),
        reference=[0.30314, -0.23156, 0.64447, -0.39084, 0.557, -0.21883, 0.68111, -0.359],
    ),
    Case(
        name="studiogan_resnet",
        importer=studiogan,
        unit=32,
        narrow=1,
        smaller={},
        z_dim=4,
        num_classes=10,
        resolution=32,
        family="resnet",
        build=(None, "ReLU"),
        reference=[-0.13503, -0.8535, -0.35282, -0.56129, -0.25034, -0.80284, -0.27712, -0.75497],
    ),
    Case(
        name="studiogan_deep_conv",
        importer=studiogan,
        unit=8,
        narrow=1,
        smaller={},
        z_dim=16,
        num_classes=0,
        resolution=32,
        family="deep_conv",
        build=(None, "ReLU"),
        reference=[0.79601, -0.11355, 0.77405, -0.77653, 0.7907, -0.73295, 0.79683, -0.79894],
    ),
]
BY_NAME = {case.name: case for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_skeleton_has_the_published_names_and_shapes(case):
    published = case.published()
    empty = {name: torch.empty(shape, device="meta") for name, shape in published.items()}
    network = case.importer.build(Published(empty, "test"), *case.build)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == published


@every_case
def test_network_gives_the_originals_images(case):
    network, spec = case.importer.read(case.state(), **case.options)
    images = network(*inputs(case.z_dim, case.num_classes))
    assert images.shape == (4, 3, case.resolution, case.resolution)
    assert eight(images) == pytest.approx(case.reference, abs=2e-5)
    assert (spec.z_dim, spec.family, spec.z_distribution) == (case.z_dim, case.family, "normal")
    assert spec.classes == [str(n) for n in range(case.num_classes)]


@every_case
def test_network_keeps_nothing_of_spectral_norm_and_of_other_truncations(case):
    network, _ = case.importer.read(case.state(), **case.options)
    endings = ("weight_orig", "weight_u", "weight_v", "u0", "sv0", "running_means", "running_vars")
    assert not [name for name in network.state_dict() if name.endswith(endings)]


@every_case
def test_state_is_left_as_it_was(case):
    state = case.state()
    before = {name: value.clone() for name, value in state.items()}
    network, _ = case.importer.read(state)
    network(*inputs(case.z_dim, case.num_classes))
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in state)


def tiny_hugging_face() -> dict[str, torch.Tensor]:
    """The attention and the last two blocks alone: 8x8 images."""
    shapes = {}
    for name, shape in BY_NAME["hf_biggan_deep"].small().items():
        for old, new in (("9", "0"), ("8", "1"), ("10", "2")):
            if name.startswith(f"generator.layers.{old}."):
                shapes[name.replace(f".{old}.", f".{new}.", 1)] = shape
        if ".layers." not in name:
            shapes[name] = tuple(256 if size == 2048 else size for size in shape)
    return draw(shapes)


@pytest.mark.parametrize(
    ("importer", "state"),
    [
        (hf_biggan_deep, tiny_hugging_face()),
        (ajbrock_biggan, BY_NAME["ajbrock_biggan"].state()),
    ],
    ids=["hf_biggan_deep", "ajbrock_biggan"],
)
def test_onnx_of_another_batch_gives_the_networks_images(importer, state):
    subject = of_module(*importer.read(state))
    z_dim, num_classes = subject.model.z_dim, subject.num_classes
    z, y = inputs(z_dim, num_classes)
    given = Inputs(z[:3].numpy(), y[:3].numpy(), truncation_input(subject.model, 3, None))
    shipped = OnnxRuntimeBackend(subject.to_onnx(subject.twin()), "cpu", "fp32").run(given)
    expected = ((subject(given) + 1) * 127.5).round().permute(0, 2, 3, 1)
    assert np.abs(shipped.astype(int) - expected.numpy().astype(int)).max() <= 1


def test_bundle_of_an_imported_network_passes_its_gates(tmp_path):
    case = BY_NAME["studiogan_big_resnet"]
    exported = export(
        *studiogan.read(case.state()), tmp_path / "x.gan", ExportOptions(num_images=1000)
    )
    assert exported.gates
    assert all(gate.passed for gate in exported.gates)
    with Sampler(tmp_path / "x.gan") as sampler:
        assert sampler.sample(seeds=[0, 1], labels=[3, 9]).shape == (2, 32, 32, 3)


# --- names and shapes that are not the published ones


THREE = pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("hf_biggan_deep", "generator.layers.3.bn_2.offset.weight_u"),
        ("ajbrock_biggan", "blocks.2.0.bn2.bias.u0"),
        ("studiogan_big_resnet", "blocks.1.0.bn2.bias.weight_v"),
    ],
)


@THREE
def test_missing_name_is_named(name, tensor):
    case = BY_NAME[name]
    state = case.state()
    del state[tensor]
    with pytest.raises(ExportError, match=rf"1 names missing \['{tensor}'\], 0 unknown"):
        case.importer.read(state)


@THREE
def test_unknown_name_is_named(name, tensor):
    case = BY_NAME[name]
    state = case.state() | {tensor + "x": torch.zeros(1)}
    with pytest.raises(ExportError, match=rf"0 names missing \[\], 1 unknown \['{tensor}x'\]"):
        case.importer.read(state)


@THREE
def test_shape_that_differs_is_named(name, tensor):
    case = BY_NAME[name]
    state = case.state() | {tensor: torch.zeros(7, 7)}
    with pytest.raises(ExportError, match=rf"1 of other shapes \['{tensor} \(7, 7\), expected"):
        case.importer.read(state)


@pytest.mark.parametrize(
    ("importer", "state"),
    [
        (hf_biggan_deep, tiny_hugging_face()),
        (ajbrock_biggan, BY_NAME["ajbrock_biggan_cifar"].state()),
        (studiogan, BY_NAME["studiogan_resnet"].state()),
    ],
    ids=["hf_biggan_deep", "ajbrock_biggan", "studiogan"],
)
def test_every_name_is_needed(importer, state):
    for tensor in state:
        rest = {name: value for name, value in state.items() if name != tensor}
        with pytest.raises(ExportError):
            importer.read(rest)


@pytest.mark.parametrize(
    "importer",
    [hf_biggan_deep, ajbrock_biggan, studiogan],
    ids=["hf_biggan_deep", "ajbrock_biggan", "studiogan"],
)
@pytest.mark.parametrize(
    "state",
    [{}, {"main.0.weight": torch.zeros(100, 512, 4, 4), "main.1.bias": torch.zeros(512)}],
    ids=["empty", "dcgan"],
)
def test_state_of_another_project_is_refused(importer, state):
    with pytest.raises(ExportError, match="expected .* no .* among its"):
        importer.read(state)


def test_rows_that_make_no_square_are_refused():
    state = BY_NAME["ajbrock_biggan"].state() | {"linear.weight": torch.zeros(129, 2)}
    with pytest.raises(ExportError, match="linear.weight has 129 rows, and the first block 128"):
        ajbrock_biggan.read(state)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("ajbrock_biggan", "blocks.0.0.bn1.bn.running_mean", "--cross_replica"),
        ("ajbrock_biggan", "blocks.0.0.bn1.bn.accumulation_counter", "--mybn"),
        ("ajbrock_biggan", "linear.u1", "--num_G_SVs"),
        ("studiogan_resnet", "blocks.0.0.conv2d4.weight", "big_resnet_deep"),
        ("studiogan_resnet", "info_mix_linear.weight", "InfoGAN"),
        ("studiogan_resnet", "synthesis.b4.const", "stylegan2"),
    ],
)
def test_what_is_not_read_is_refused_by_name(name, tensor, message):
    case = BY_NAME[name]
    with pytest.raises(ExportError, match=f"{tensor}.* belongs to .*{message}"):
        case.importer.read(case.state() | {tensor: torch.zeros(1)})


# --- hf_biggan_deep: truncation


ROWS = torch.arange(51.0)[:, None].square()  # its interpolation is not itself a row


def test_every_multiple_of_two_hundredths_has_its_own_row():
    found = [hf_biggan_deep.row_of(ROWS, number / 50).item() for number in range(1, 51)]
    assert found == [float(number**2) for number in range(1, 51)]
    # 50 * 0.14, 0.28, 0.56, 0.58 and 0.94 are no integers in floating point.
    assert hf_biggan_deep.row_of(ROWS, 0.58).item() == 29.0**2


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [(0.5, 625.0), (0.51, (625 + 676) / 2), (0.505, 0.75 * 625 + 0.25 * 676), (0.01, 0.5)],
)
def test_truncation_in_between_is_interpolated_from_the_nearer_row(truncation, expected):
    assert hf_biggan_deep.row_of(ROWS, truncation).item() == pytest.approx(expected)


def test_truncation_chooses_the_statistics_and_scales_the_latents():
    state = BY_NAME["hf_biggan_deep"].state()
    half, _ = hf_biggan_deep.read(state, truncation=0.5)
    one_row = {
        n: v[25:26].expand(51, -1) if n.endswith(("means", "vars")) else v for n, v in state.items()
    }
    same_row, _ = hf_biggan_deep.read(one_row, truncation=1.0)
    z, y = inputs(8, 3)
    assert torch.allclose(half(z, y), same_row(0.5 * z, y), atol=1e-6)


def test_any_truncation_may_be_asked_of_one_network():
    state = BY_NAME["hf_biggan_deep"].state()
    network, spec = hf_biggan_deep.read(state)
    assert spec.truncation_input is not None
    z, y = inputs(8, 3)
    asked = torch.tensor([0.5, 0.42, 1.0, 0.51])
    found = network(z, y, asked)
    for n, t in enumerate(asked.tolist()):
        fixed, _ = hf_biggan_deep.read(state, truncation=t)
        assert torch.allclose(found[n : n + 1], fixed(z[n : n + 1], y[n : n + 1]), atol=2e-5)


def test_latents_of_hugging_face_are_those_within_two_deviations():
    _, spec = hf_biggan_deep.read(BY_NAME["hf_biggan_deep"].state())
    assert spec.truncation == 2.0


@pytest.mark.parametrize("truncation", [0.0, -0.5, 1.01, float("nan")])
def test_truncation_out_of_range_is_refused(truncation):
    with pytest.raises(
        ExportError, match=f"truncation {truncation}; expected above 0 and at most 1"
    ):
        hf_biggan_deep.read({}, truncation=truncation)


# --- studiogan: what the names do not say


def unconditional_big_resnet() -> dict[str, torch.Tensor]:
    """No shared embedding; gains and biases are of a chunk of z, which is 2 long."""
    shapes = BY_NAME["studiogan_big_resnet"].small()
    del shapes["shared.weight"]
    for name, shape in shapes.items():
        if ".gain." in name or ".bias.weight" in name:
            shapes[name] = tuple(
                2 if size == 8 and n == len(shape) - 1 and not name.endswith("u") else size
                for n, size in enumerate(shape)
            )
    return draw(shapes)


def test_backbone_is_asked_for_where_two_have_the_names():
    with pytest.raises(ExportError, match="say backbone=big_resnet or backbone=resnet"):
        studiogan.read(unconditional_big_resnet())


def test_unconditional_big_resnet_is_conditioned_on_chunks_alone():
    network, spec = studiogan.read(unconditional_big_resnet(), backbone="big_resnet")
    z, _ = inputs(8, 10)
    images = network(z)
    assert (spec.z_dim, spec.classes, images.shape) == (8, [], (4, 3, 32, 32))
    last_chunk_differs = torch.cat([z[:, :6], -z[:, 6:]], dim=1)
    assert not torch.allclose(network(last_chunk_differs), images, atol=1e-3)


def test_the_same_names_may_be_of_a_resnet_of_as_many_classes():
    network, spec = studiogan.read(unconditional_big_resnet(), backbone="resnet")
    z = torch.zeros(2, 2)
    images = network(z, torch.tensor([0, 1]))
    assert (spec.z_dim, spec.classes, images.shape) == (2, ["0", "1"], (2, 3, 32, 32))
    assert not torch.equal(images[0], images[1])


def test_backbone_that_the_names_contradict_is_refused():
    with pytest.raises(ExportError, match="backbone=resnet, and the names are those of big_resnet"):
        studiogan.read(BY_NAME["studiogan_big_resnet"].state(), backbone="resnet")


def test_embeddings_of_old_versions_are_the_matrices_of_new_ones():
    state = BY_NAME["studiogan_resnet"].state()
    old = {}
    for name, value in state.items():
        by_class = name.endswith((".gain.weight", ".bias.weight"))
        new = name.replace(".gain.", ".embed0.").replace(".bias.weight", ".embed1.weight")
        old[new] = value.T.contiguous() if by_class else value
    z, y = inputs(4, 10)
    assert torch.equal(studiogan.read(old)[0](z, y), studiogan.read(state)[0](z, y))


def test_options_are_those_of_studiogans_configs():
    state = BY_NAME["studiogan_big_resnet"].state()
    defaults = check_options(studiogan.read, {}, where="--set", name="studiogan")
    assert defaults == {"backbone": None, "g_act_fn": "ReLU", "z_prior": "gaussian"}
    network, spec = studiogan.read(state, g_act_fn="Leaky_ReLU", z_prior="uniform")
    assert spec.z_distribution == "uniform"
    z, y = inputs(8, 10)
    assert not torch.allclose(network(z, y), studiogan.read(state)[0](z, y), atol=1e-3)


def test_bn_eps_is_that_of_every_batch_norm_but_the_last():
    network, _ = ajbrock_biggan.read(BY_NAME["ajbrock_biggan_cifar"].state(), bn_eps=0.1)
    original = [0.30795, 0.61645, 0.50872, 0.94675, 0.5034, 0.78868, 0.45284, 0.95721]
    assert eight(network(*inputs(4, 10))) == pytest.approx(original, abs=2e-5)
