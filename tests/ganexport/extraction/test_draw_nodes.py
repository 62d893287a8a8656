"""The draw as a graph gives ganinfer's bits in the onnxruntime that is installed."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ganexport.extraction.check import SEEDS, seed_feed
from ganexport.extraction.draw import draw_of
from ganexport.extraction.mass import mass
from ganexport.extraction.nodes import Nodes
from ganexport.extraction.seeds import alone
from ganinfer.drawing.inputs import draw_inputs, labels_of
from ganinfer.drawing.latents import draw_labels, draw_latents
from ganinfer.drawing.model import Model, TruncationInput
from ganinfer.drawing.normal import central_mass

EDGES = [0, 2**31, 2**32 - 1, 2**53 + 1, 2**63, 2**64 - 1]


def model_of(z_dim: int, num_classes: int = 0, **fields: Any) -> Model:
    classes = [str(n) for n in range(num_classes)]
    given = {"z_distribution": "normal", "truncation_modes": ["resample", "scale"], **fields}
    return Model(family="x", resolution=8, channels=1, classes=classes, z_dim=z_dim, **given)


def session_of(model: Model, mode: str | None) -> Any:
    return opened(alone(draw_of(model, mode), model))


def opened(graph: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # each core has a process of these tests
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=providers)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", ["resample", "scale"])
@pytest.mark.parametrize("z_dim", [1, 6, 128])
def test_latents_and_labels_are_those_of_ganinfer(z_dim: int, mode: str) -> None:
    model = model_of(z_dim, 10)
    session = session_of(model, mode)
    for t in (None, 0.001, 0.7, 1.95, 7.999, 8.0, 1e30):
        z, labels = session.run(None, seed_feed(model, SEEDS, None, [t] * len(SEEDS)))
        assert same(z, draw_latents(SEEDS, z_dim, truncation=t, truncation_mode=mode)), t
        assert same(labels, draw_labels(SEEDS, 10))


def test_uniform_latents_are_those_of_ganinfer() -> None:
    model = model_of(9, z_distribution="uniform", truncation_modes=[])
    session = session_of(model, None)
    assert [i.name for i in session.get_inputs()] == ["seed"]
    (z,) = session.run(None, seed_feed(model, SEEDS))
    assert same(z, draw_latents(SEEDS, 9, distribution="uniform"))


@pytest.mark.parametrize("mode", ["resample", "scale"])
def test_each_row_has_its_own_class_and_truncation(mode: str) -> None:
    model = model_of(5, 7, default_truncation=0.6)
    given = [None, 0.3, 2.0, None]
    z, labels = session_of(model, mode).run(
        None, seed_feed(model, [1, 1, 1, 2**63], np.array([-1, 6, 0, -5]), given)
    )
    for row, (seed, t) in enumerate(zip([1, 1, 1, 2**63], given, strict=True)):
        assert same(z[row : row + 1], draw_inputs(model, [seed], None, t, mode).z)
    assert labels.tolist() == [*draw_labels([1], 7), 6, 0, *draw_labels([2**63], 7)]


def test_weights_are_those_given_or_the_class_of_the_seed() -> None:
    model = model_of(4, 3, class_input="weights")
    given = np.array([[0.5, 0, 0.5], [0, 0, 0], [-1, -1, -1]], np.float32)
    feed = seed_feed(model, [5, 6, 7]) | {"y": given}
    _, weights = session_of(model, "resample").run(None, feed)
    assert same(weights[:1], given[:1])
    assert same(weights[1:], np.eye(3, dtype=np.float32)[draw_labels([6, 7], 3)])


@pytest.mark.parametrize("modes", [["network"], ["resample"]])
def test_a_truncation_of_the_generator_is_passed_on(modes: list[str]) -> None:
    taken = TruncationInput(least=0.2, largest=1.5, untruncated=1.0)
    model = model_of(4, truncation_modes=modes, truncation_input=taken)
    given = [None, 0.7, 1.5, 1.6, 0.1]
    z, psi = session_of(model, modes[0]).run(None, seed_feed(model, range(5), None, given))
    assert same(psi, np.array([1, 0.7, 1.5, 1.6, 0.1], np.float32))
    for row in range(3):
        assert same(z[row : row + 1], draw_inputs(model, [row], None, given[row]).z)
    assert np.isnan(z[3:]).all()  # the generator was not exported for these


def test_masses_are_the_nearest_float64_for_every_thousandth() -> None:
    nodes = Nodes("")
    last = mass(nodes, "t")
    values = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, ["n"]) for n in ("t", last)]
    graph = helper.make_graph(nodes.nodes, "mass", values[:1], values[1:], nodes.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    t = np.arange(1, 8001) / 1000
    (found,) = opened(model).run(None, {"t": t})
    assert same(found, np.array([central_mass(float(value)) for value in t]))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["resample", "scale", None])
@pytest.mark.parametrize("z_dim", [1, 32, 100, 512])
def test_none_of_ten_thousand_seeds_differs(z_dim: int, mode: str | None) -> None:
    """In 20 truncations; of each thousand seeds a third goes to 0, to 10 and to 1,000 classes."""
    seeds = np.random.default_rng(z_dim).integers(0, 2**64, 10_000, dtype=np.uint64)
    kind: dict[str, Any] = {} if mode else {"z_distribution": "uniform", "truncation_modes": []}
    models = [model_of(z_dim, num_classes, **kind) for num_classes in (0, 10, 1000)]
    sessions = [session_of(model, mode) for model in models]
    for t in [None, *np.arange(1, 20) / 8] if mode else [None]:
        for n, part in enumerate(np.array_split(seeds, 30)):
            part[: len(EDGES)] = EDGES
            model, session = models[n % 3], sessions[n % 3]
            own = labels_of(model, part, None)
            expected = draw_inputs(model, part, own, t, mode).feed().values()
            found = session.run(None, seed_feed(model, part, None, [t] * len(part)))
            assert all(same(a, b) for a, b in zip(found, expected, strict=True)), (n, t)
