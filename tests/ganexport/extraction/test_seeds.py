"""Seeds go in, and the images of Sampler come out: in onnxruntime, and what others make of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import rewrite_manifest

from ganexport.extraction.check import SEEDS, golden_feed, seed_feed
from ganexport.extraction.extract import extract
from ganexport.extraction.options import ExtractOptions
from ganexport.pipeline import Exported
from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.golden import read_golden
from ganinfer.drawing.model import Model
from ganinfer.errors import ConfigError, ExportError


def session(file: Path) -> Any:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def model_of(bundle: Path) -> Model:
    with Bundle(bundle) as opened:
        return opened.manifest.model


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("mode", ["resample", "scale"])
def test_seeds_give_the_images_of_the_sampler(
    bundle: Path, tmp_path: Path, precision: str, mode: str
) -> None:
    options = ExtractOptions(latents="seed", precision=precision, truncation_mode=mode)
    extract(bundle, tmp_path / "g.onnx", options)
    found, model = session(tmp_path / "g.onnx"), model_of(bundle)
    y = np.arange(len(SEEDS)) % 3
    given: dict[str, Any] = {"truncation": 0.6, "truncation_mode": mode}
    with Sampler(bundle, precision=precision) as sampler:
        (images,) = found.run(["images"], seed_feed(model, SEEDS))
        assert np.array_equal(images, sampler.sample(seeds=list(SEEDS)))
        (images,) = found.run(["images"], seed_feed(model, SEEDS, y, [0.6] * len(SEEDS)))
        assert np.array_equal(images, sampler.sample(seeds=list(SEEDS), labels=y, **given))


def test_seeds_and_mixtures_give_the_images_of_the_sampler(mixable: Path, tmp_path: Path) -> None:
    extract(mixable, tmp_path / "g.onnx", ExtractOptions(latents="seed"))
    found, feed = session(tmp_path / "g.onnx"), seed_feed(model_of(mixable), [4, 5])
    feed["y"][0] = 0.25, 0.75, 0
    with Sampler(mixable) as sampler:
        mixed = sampler.sample(seeds=[4], labels=[{0: 0.25, 1: 0.75}])
        own = sampler.sample(seeds=[5])
    assert np.array_equal(found.run(["images"], feed)[0], np.concatenate([mixed, own]))


@pytest.mark.parametrize("pixels", ["uint8", "float"])
def test_a_stylegan_takes_seeds_and_its_own_truncation(
    styled: Exported, tmp_path: Path, pixels: str
) -> None:
    extract(styled.path, tmp_path / "g.onnx", ExtractOptions(latents="seed", pixels=pixels))
    found, model = session(tmp_path / "g.onnx"), model_of(styled.path)
    assert model.truncation_input is not None
    beyond = model.truncation_input.largest + 0.1
    (images,) = found.run(["images"], seed_feed(model, [1, 2, 3], None, [None, 0.5, beyond]))
    assert np.ptp(images[2]) == 0  # flat: it was not exported for that
    if pixels == "uint8":
        with Sampler(styled.path) as sampler:
            assert np.array_equal(images[:1], sampler.sample(seeds=[1]))
            assert np.array_equal(images[1:2], sampler.sample(seeds=[2], truncation=0.5))


def test_a_runtime_that_computes_integers_wrongly_shows_flat_images(
    bundle: Path, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    model = model_of(bundle)
    for latents in ("seed", "draw"):
        extract(bundle, tmp_path / f"{latents}.onnx", ExtractOptions(latents=latents))
    run = openvino.compile_model(tmp_path / "seed.onnx", "CPU")
    assert np.ptp(run(seed_feed(model, SEEDS))["images"]) == 0
    run = openvino.compile_model(tmp_path / "draw.onnx", "CPU")
    assert np.isnan(run(seed_feed(model, SEEDS))["z"]).all()
    with pytest.raises(ExportError, match="have fewer than 64 bits; take --latents z"):
        extract(bundle, tmp_path / "g.xml", ExtractOptions(latents="seed", format="openvino"))
    assert not list(tmp_path.glob("g.*"))


@pytest.mark.parametrize("latents", ["z", "seed", "draw"])
def test_a_file_says_where_it_is_from_and_what_it_takes(
    copied: Path, tmp_path: Path, latents: str
) -> None:
    rewrite_manifest(copied, lambda manifest: manifest.update(license="CC-BY-4.0"))
    for name in ("a.onnx", "b.onnx"):
        extract(copied, tmp_path / name, ExtractOptions(latents=latents))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    model = onnx.load(tmp_path / "a.onnx")
    found = {entry.key: entry.value for entry in model.metadata_props}
    with Bundle(copied) as opened:
        assert found["bundle_sha256"] == opened.sha256
    assert found["license"] == "CC-BY-4.0"
    assert json.loads(found["classes"]) == ["0", "1", "2"]
    assert list(json.loads(found["inputs"])) == [value.name for value in model.graph.input]
    assert list(json.loads(found["outputs"])) == [value.name for value in model.graph.output]


@pytest.mark.parametrize("latents", ["z", "seed"])
def test_the_format_ort_is_read_by_the_loader_of_small_builds(
    bundle: Path, tmp_path: Path, latents: str
) -> None:
    for name, form in (("g.ort", "ort"), ("g.onnx", "onnx")):
        extract(bundle, tmp_path / name, ExtractOptions(latents=latents, format=form))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ORT")
    found = onnxruntime.InferenceSession(tmp_path / "g.ort", options)
    assert "bundle_sha256" in found.get_modelmeta().custom_metadata_map
    with Bundle(bundle) as opened:
        model = opened.manifest.model
    feed: dict[str, Any] = seed_feed(model, SEEDS)
    if latents == "z":
        feed = {"z": np.ones((2, 16), np.float32), "y": np.array([0, 2])}
    steps = [s.run(["images"], feed)[0].astype(int) for s in (found, session(tmp_path / "g.onnx"))]
    assert abs(steps[0] - steps[1]).max() <= 1


@pytest.mark.parametrize("latents", ["z", "mapped"])
def test_the_format_openvino_is_an_xml_and_a_bin(
    styled: Exported, tmp_path: Path, latents: str
) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    extract(styled.path, tmp_path / "g.xml", ExtractOptions(latents=latents, format="openvino"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.bin", "g.xml"]
    run = openvino.compile_model(tmp_path / "g.xml", "CPU")
    with Bundle(styled.path) as opened:
        found = run(golden_feed(opened, latents))["images"]
        _, images = read_golden(opened)
    assert abs(found.astype(int) - images).max() <= 1


def test_what_does_not_go_together_is_said(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="expected a name that ends in .xml"):
        extract(bundle, tmp_path / "g.onnx", ExtractOptions(format="openvino"))
    with pytest.raises(ConfigError, match="format 'tf': expected onnx, ort or openvino"):
        ExtractOptions(format="tf")
    with pytest.raises(ConfigError, match="it goes with latents seed or draw"):
        ExtractOptions(truncation_mode="scale")
    with pytest.raises(ExportError, match="'network': this model has resample, scale"):
        extract(
            bundle, tmp_path / "g.onnx", ExtractOptions(latents="seed", truncation_mode="network")
        )
    assert not list(tmp_path.iterdir())
