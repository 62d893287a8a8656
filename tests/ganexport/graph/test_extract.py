from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from test_importer_stylegan2 import CLASSES, state_of

from ganexport.graph.extract import extract
from ganexport.importers import stylegan2
from ganexport.options import ExportOptions
from ganexport.pipeline import export
from ganinfer import Sampler, to_uint8
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import BundleError, ExportError


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator, spec = stylegan2.read(state_of(CLASSES))
    return export(
        generator, spec, tmp_path_factory.mktemp("s") / "x.gan", ExportOptions(num_images=1000)
    ).path


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_images_round_to_those_of_the_bundle(bundle: Path, tmp_path, precision: str) -> None:
    extract(bundle, tmp_path / "g.onnx", precision=precision, pixels="float")
    z, y = draw_latents(range(5), 16), np.arange(5) % 3
    (images,) = session(tmp_path / "g.onnx").run(["images"], {"z": z, "y": y})
    assert (images.dtype, images.shape[:2]) == (np.float32, (5, 3))
    with Sampler(bundle, precision=precision) as sampler:
        assert np.array_equal(to_uint8(images).transpose(0, 2, 3, 1), sampler.generate(z, y))


def test_the_graph_as_it_is(bundle: Path, tmp_path: Path) -> None:
    extract(bundle, tmp_path / "g.onnx")
    inputs = {i.name: i.shape for i in session(tmp_path / "g.onnx").get_inputs()}
    assert inputs == {"z": ["batch", 16], "y": ["batch"]}


def test_mapped_latents_go_in_behind_the_mapping_network(styled: Path, tmp_path: Path) -> None:
    extract(styled, tmp_path / "g.onnx", pixels="float", latents="mapped")
    generator, _ = stylegan2.read(state_of(CLASSES))
    z, y = torch.from_numpy(draw_latents(range(3), 10)), torch.tensor([0, 1, 2])
    w, psi = generator.mapping(z, y), torch.tensor([1.0, 0.5, 0.7])
    found = session(tmp_path / "g.onnx")
    assert [i.name for i in found.get_inputs()] == ["w", "truncation"]
    (images,) = found.run(["images"], {"w": w.numpy(), "truncation": psi.numpy()})
    np.testing.assert_allclose(images, generator(z, y, psi).numpy(), atol=1e-5)


def test_what_a_bundle_has_not_is_said_by_name(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "g.onnx"
    with pytest.raises(BundleError, match="no int8 graph; it holds fp32, fp16"):
        extract(bundle, file, precision="int8")
    with pytest.raises(ExportError, match="no mapping network"):
        extract(bundle, file, latents="mapped")
    with pytest.raises(ExportError, match="pixels 'half': expected uint8 or float"):
        extract(bundle, file, pixels="half")
    assert not file.exists()
