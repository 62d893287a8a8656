import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import rewrite_manifest

from ganexport.pipeline import Exported
from ganinfer import Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.inputs import Wanted, draw_wanted, of_styles
from ganinfer.drawing.latents import seed_array
from ganinfer.errors import BundleError, Closed, ParityError, RequestError
from ganinfer.files import sha256_bytes
from ganinfer.film import walk
from ganinfer.styles import mix_styles, style_grid


@pytest.fixture(scope="module")
def sampler(styled: Exported) -> Sampler:
    return Sampler(styled.path)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_image_of_mapped_styles_is_the_seeds_own(
    styled: Exported, backend: str, precision: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
        precision = "fp32"
    with Sampler(styled.path, backend=backend, precision=precision) as sampler:
        w = sampler.mapped(70, truncation=0.7)
        assert (w.shape, w.dtype) == ((70, 6, 12), np.float32)
        assert np.array_equal(sampler.synthesize(w), sampler.sample(70, truncation=0.7))


def test_without_truncation_of_styles_all_are_the_mean(sampler: Sampler) -> None:
    w = sampler.mapped(seeds=[1, 5], labels=["cat", "fox"], truncation=0)
    assert np.array_equal(w[0], w[1])


def test_requests_of_seeds_and_of_styles_share_a_batch(sampler: Sampler) -> None:
    model = sampler.bundle.manifest.model
    of_seeds = Wanted(seed_array(range(4)), None)
    inputs = draw_wanted(model, [of_seeds, of_styles(model, sampler.mapped(3, seed=10))])
    backend = OnnxRuntimeBackend(sampler.bundle.read_graph("fp32"), "cpu", "fp32")
    found = backend.run(inputs)
    assert np.array_equal(found[:4], sampler.sample(4))
    assert np.array_equal(found[4:], sampler.sample(3, seed=10))


def test_one_style_for_all_places_may_be_given(sampler: Sampler) -> None:
    w = sampler.mapped(3)
    out = np.empty((3, 16, 16, 3), np.uint8)
    assert sampler.synthesize(w[:, 0], out=out) is out
    assert np.array_equal(out, sampler.sample(3))


def test_mixed_styles_come_from_both(sampler: Sampler) -> None:
    w, other = sampler.mapped(4), sampler.mapped(1, seed=9)
    mixed = mix_styles(w, other, range(2))
    assert np.array_equal(mixed[:, :2], np.repeat(other[:, :2], 4, axis=0))
    assert np.array_equal(mixed[:, 2:], w[:, 2:])
    tensors = torch.from_numpy(w).requires_grad_(), torch.from_numpy(other)
    assert np.array_equal(mix_styles(*tensors, range(2)), mixed)
    assert np.array_equal(sampler.synthesize(tensors[0]), sampler.synthesize(w))
    assert np.array_equal(w, sampler.mapped(4))
    images = sampler.synthesize(mixed)
    assert not np.array_equal(images, sampler.synthesize(w))


def test_the_grid_has_its_seeds_at_its_edges(sampler: Sampler) -> None:
    images = style_grid(sampler, [0, 1], [4, 5, 6], labels="dog").reshape(3, 4, 16, 16, 3)
    assert images[0, 0].min() == 255
    assert np.array_equal(images[0, 1:], sampler.sample(seeds=[4, 5, 6], labels="dog"))
    assert np.array_equal(images[1:, 0], sampler.sample(seeds=[0, 1], labels="dog"))
    all_places = style_grid(sampler, [0], [4], places=range(6))
    assert np.array_equal(all_places[3], all_places[1])


def test_the_way_in_w_is_straight_between_its_ends(sampler: Sampler) -> None:
    found = sampler.interpolate(3, 8, 5, label="cat", to_label="fox", space="w")
    w = sampler.mapped(seeds=[3, 8], labels=["cat", "fox"])
    assert np.array_equal(found[2], sampler.synthesize((w[:1] + w[1:]) / 2)[0])
    assert np.array_equal(found[0], sampler.sample(seeds=[3], labels="cat")[0])
    frames = list(walk(sampler, [3, 8], 4, labels="cat", space="w"))
    assert np.array_equal(np.stack(frames), sampler.interpolate(3, 8, 5, label="cat", space="w"))


# What a user can get wrong.


def test_wrong_styles_are_refused_in_words(sampler: Sampler) -> None:
    w = sampler.mapped(2)
    for wrong, words in (
        (w[:, :5], r"found float32 \(2, 5, 12\); expected float32 \(N, 6, 12\), or \(N, 12\)"),
        (w[0, 0], r"found float32 \(12,\)"),
        (w.astype(int), "found int64"),
        (w * np.nan, "NaN or infinite"),
        ("w", "found 'w'"),
    ):
        with pytest.raises(RequestError, match=words):
            sampler.synthesize(wrong)
    with pytest.raises(RequestError, match="places: found 6; expected 0 to 5"):
        mix_styles(w, w, [0, 6])
    with pytest.raises(RequestError, match=r"styles: found \(2, 6, 12\) and \(3, 6, 12\)"):
        mix_styles(w, sampler.mapped(3), [0])
    with pytest.raises(RequestError, match="space 'x': expected 'z' or 'w'"):
        sampler.interpolate(1, 2, 3, space="x")
    with pytest.raises(RequestError, match="truncation 3: .* 0 to 2"):
        sampler.mapped(2, truncation=3)


def test_a_generator_without_styles_says_so(bundle: Path) -> None:
    with Sampler(bundle) as sampler:
        for ask in (
            lambda: sampler.mapped(2),
            lambda: sampler.synthesize(np.zeros((1, 6, 12), np.float32)),
            lambda: sampler.interpolate(1, 2, 3, space="w"),
            lambda: style_grid(sampler, [0], [1]),
        ):
            with pytest.raises(RequestError, match=r"generator \(dcgan\) takes none; StyleGANs do"):
                ask()


# The bundle.


def test_opening_proves_the_mapping_network(styled: Exported, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(styled.path, tmp_path / "x.gan"))
    file = folder / "onnx/mapping.onnx"
    model = onnx.load(file)
    kernel = next(w for w in model.graph.initializer if w.name.endswith("fc1.kernel"))
    weights = np.frombuffer(kernel.raw_data, np.float32) * np.float32(1.1)
    kernel.raw_data = weights.tobytes()
    data = model.SerializeToString()
    file.write_bytes(data)
    entry = {"sha256": sha256_bytes(data), "size": len(data)}
    rewrite_manifest(folder, lambda m: m["files"].update({"onnx/mapping.onnx": entry}))
    with pytest.raises(ParityError, match="golden gate"):
        Sampler(folder, backend="onnxruntime")


@pytest.mark.parametrize("part", ["mapping", "style_input"])
def test_mapping_and_styles_go_together(styled: Exported, tmp_path: Path, part: str) -> None:
    folder = Path(shutil.copytree(styled.path, tmp_path / "x.gan"))
    rewrite_manifest(
        folder, lambda m: (m if part == "mapping" else m["model"]).update({part: None})
    )
    with pytest.raises(BundleError, match="expected mapping and model.style_input both"):
        Sampler(folder)


def test_a_closed_sampler_maps_nothing(styled: Exported) -> None:
    sampler = Sampler(styled.path)
    sampler.close()
    with pytest.raises(Closed, match="closed"):
        sampler.mapped(1)
