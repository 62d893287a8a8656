from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ganexport.graph.precision import convert
from ganexport.options import ExportOptions
from ganexport.pipeline import export_run, export_subject
from ganexport.proof.layers import compare_bundle
from ganexport.proof.verify import verify_against_run
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.spec import Spec
from ganexport.subjects.standing import UNTRUNCATED, StandingNorm, with_standing_statistics
from ganexport.subjects.subject import Subject, of_module, of_run
from ganinfer import Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.images import to_uint8
from ganinfer.drawing.inputs import Inputs, draw_inputs
from ganinfer.errors import ExportError, RequestError
from gantrain.models import biggan
from gantrain.runs.checkpoint import load_generator
from gantrain.training.standing import standing_statistics


@pytest.fixture(scope="module")
def subject(run: Path) -> Subject:
    return of_run(load_generator(run))


@pytest.fixture(scope="module")
def standing(subject: Subject) -> Subject:
    return with_standing_statistics(subject, [0.4, 0.8])


def norms(subject: Subject) -> list[StandingNorm]:
    return [layer for layer in subject.network.modules() if isinstance(layer, StandingNorm)]


def test_each_truncation_has_the_statistics_of_its_own_latents(standing: Subject) -> None:
    variances = norms(standing)[0].get_buffer("variances")
    assert len(variances) == 3
    # The first norm sees a linear layer: variances go as those of the latents.
    ratios = (variances[:2] / variances[2]).mean(1)
    torch.testing.assert_close(ratios, torch.tensor([0.0524, 0.1921]), rtol=0.1, atol=0)


def test_images_of_one_batch_may_have_truncations_of_their_own(standing: Subject) -> None:
    asked = [0.4, 0.55, 0.8, 2.0, UNTRUNCATED]
    alone = [draw_inputs(standing.model, [7], np.array([1]), t) for t in asked]
    together = standing(Inputs.joined(alone))
    for n, inputs in enumerate(alone):
        torch.testing.assert_close(together[n : n + 1], standing(inputs), rtol=0, atol=1e-6)


def test_statistics_in_between_are_interpolated(standing: Subject) -> None:
    place = standing.network.get_submodule("place")
    norm = norms(standing)[0]
    place(torch.tensor([0.6, 0.4, 0.1, 9.0]))
    scale, _ = norm.scale_and_shift()
    v = norm.get_buffer("variances")
    expected = torch.stack([(v[0] + v[1]) / 2, v[0], v[0], v[2]])
    torch.testing.assert_close(scale, torch.rsqrt(expected + 1e-5), rtol=1e-5, atol=1e-6)


def test_the_subject_it_comes_from_is_left_as_it_was(subject: Subject, standing: Subject) -> None:
    inputs = draw_inputs(subject.model, range(4), np.arange(4) % 3)
    again = of_run(load_generator(Path(subject.where)))
    torch.testing.assert_close(subject(inputs), again(inputs), rtol=0, atol=0)
    assert subject.model.truncation_input is None


def test_the_graph_has_no_branch_and_keeps_places_in_float32(standing: Subject) -> None:
    single = standing.to_onnx(rewrite(standing.twin()))
    half = onnx.load_from_string(convert(single, "fp16"))
    assert {"If", "Loop", "Where"}.isdisjoint(node.op_type for node in half.graph.node)
    inferred = onnx.shape_inference.infer_shapes(half).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    floors = [node for node in half.graph.node if node.op_type == "Floor"]
    assert floors
    assert all(types[node.output[0]] == onnx.TensorProto.FLOAT for node in floors)


@pytest.mark.slow
def test_a_biggan_of_several_truncations_is_the_same_as_onnx() -> None:
    torch.manual_seed(0)
    network = biggan.Generator(32, 3, 4, width=8)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    standing_statistics(network, num_batches=4)
    classes = [str(k) for k in range(4)]
    subject = with_standing_statistics(of_module(network, Spec(network.z_dim, classes)), [0.5])
    shipped = OnnxRuntimeBackend(subject.to_onnx(rewrite(subject.twin())), "cpu", "fp32")
    for t in (None, 0.5, 1.3):
        inputs = draw_inputs(subject.model, range(8), np.arange(8) % 4, t)
        expected = to_uint8(subject(inputs).numpy()).transpose(0, 2, 3, 1)
        assert np.abs(shipped.run(inputs).astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.slow
def test_a_bundle_serves_every_truncation_in_its_range(run: Path, tmp_path: Path) -> None:
    made = export_run(run, tmp_path / "x.gan", ExportOptions(standing=[0.4, 0.8], num_images=1000))
    assert all(gate.passed for gate in made.gates)
    with Sampler(made.path) as sampler:
        assert sampler.info["truncation_modes"] == ["resample"]
        plain, truncated = sampler.sample(4), sampler.sample(4, truncation=0.5)
        assert not np.array_equal(plain, truncated)
        assert np.array_equal(sampler.sample(4, truncation=0.5)[2:3], truncated[2:3])
        assert np.array_equal(next(sampler.stream(4, 4, truncation=0.5)), truncated)
        with pytest.raises(RequestError, match="truncation 0.3: .*exported for 0.4 to 4"):
            sampler.sample(4, truncation=0.3)
        with pytest.raises(RequestError, match="this model has resample"):
            sampler.sample(4, truncation=0.5, truncation_mode="scale")


@pytest.mark.parametrize("truncations", [[0.8, 0.4], [0.0, 0.5], [0.5, 4.0], [0.5, 0.5]])
def test_truncations_that_do_not_rise_are_refused(
    subject: Subject, truncations: list[float], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"rise, above 0 and below 4, as in 0.3,0.5,0.7,1"):
        export_subject(subject, tmp_path / "x.gan", ExportOptions(standing=truncations))
    assert not list(tmp_path.iterdir())


def test_networks_without_batch_norm_or_a_normal_latent_are_refused() -> None:
    class Linear(nn.Module):
        def forward(self, z):
            return z.reshape(-1, 1, 2, 2).clamp(-1, 1)

    with pytest.raises(ExportError, match="has no batch norm"):
        with_standing_statistics(of_module(Linear(), Spec(4)), [0.5])
    with pytest.raises(ExportError, match="goes with a normal latent"):
        with_standing_statistics(of_module(Linear(), Spec(4, z_distribution="uniform")), [0.5])


def test_a_bundle_is_verified_against_its_run_with_its_own_statistics(
    run: Path, tmp_path: Path
) -> None:
    made = export_run(run, tmp_path / "x.gan", ExportOptions(standing=[0.5], num_images=1000))
    assert all(gate.passed for gate in verify_against_run(made.path, run, num_images=1000))
    assert compare_bundle(made.path, run=run).first is None
