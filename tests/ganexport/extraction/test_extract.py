from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from test_importer_stylegan2 import CLASSES, state_of

from ganexport.extraction.extract import extract
from ganexport.extraction.options import ExtractOptions
from ganexport.importers import stylegan2
from ganexport.pipeline import Exported
from ganinfer import Sampler, to_uint8
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import BackendUnavailable, ConfigError, ExportError


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_images_round_to_those_of_the_bundle(bundle: Path, tmp_path, precision: str) -> None:
    extract(bundle, tmp_path / "g.onnx", ExtractOptions(precision=precision, pixels="float"))
    z, y = draw_latents(range(5), 16), np.arange(5) % 3
    (images,) = session(tmp_path / "g.onnx").run(["images"], {"z": z, "y": y})
    assert (images.dtype, images.shape[:2]) == (np.float32, (5, 3))
    with Sampler(bundle, precision=precision) as sampler:
        assert np.array_equal(to_uint8(images).transpose(0, 2, 3, 1), sampler.generate(z, y))


def test_the_graph_as_it_is(bundle: Path, tmp_path: Path) -> None:
    extract(bundle, tmp_path / "g.onnx")
    inputs = {i.name: i.shape for i in session(tmp_path / "g.onnx").get_inputs()}
    assert inputs == {"z": ["batch", 16], "y": ["batch"]}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_mapped_latents_go_in_behind_the_mapping_network(
    styled: Exported, tmp_path: Path, precision: str
) -> None:
    extract(styled.path, tmp_path / "g.onnx", ExtractOptions(precision=precision, latents="mapped"))
    found = session(tmp_path / "g.onnx")
    assert {i.name: i.shape for i in found.get_inputs()} == {"w": ["batch", 6, 12]}
    with Sampler(styled.path, precision=precision) as sampler:
        w = sampler.mapped(3, truncation=0.6)
        w[:, 2] = w[::-1, 2]
        assert np.array_equal(found.run(["images"], {"w": w})[0], sampler.synthesize(w))


def test_without_styles_the_graph_takes_what_it_took(styled: Exported, tmp_path: Path) -> None:
    extract(styled.path, tmp_path / "g.onnx", ExtractOptions(pixels="float"))
    generator, _ = stylegan2.read(state_of(CLASSES))
    z, y = torch.from_numpy(draw_latents(range(3), 10)), torch.tensor([0, 1, 2])
    psi = torch.tensor([1.0, 0.5, 0.7])
    found = session(tmp_path / "g.onnx")
    assert [i.name for i in found.get_inputs()] == ["z", "y", "truncation"]
    given = {"z": z.numpy(), "y": y.numpy(), "truncation": psi.numpy()}
    (images,) = found.run(["images"], given)
    np.testing.assert_allclose(images, generator(z, y, psi).numpy(), atol=1e-5)


def test_what_a_bundle_has_not_is_said_by_name(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "g.onnx"
    with pytest.raises(BackendUnavailable, match="no int8 variant; it holds fp32, fp16"):
        extract(bundle, file, ExtractOptions(precision="int8"))
    with pytest.raises(ExportError, match="its graphs take no styles"):
        extract(bundle, file, ExtractOptions(latents="mapped"))
    with pytest.raises(ConfigError, match="pixels 'half': expected uint8 or float"):
        extract(bundle, file, ExtractOptions(pixels="half"))
    assert not file.exists()
